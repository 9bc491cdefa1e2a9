"""The browser that pages are looked at with: Debian's Chromium, installed where it is missing."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium() -> str:
    """Where Chromium is. A machine whose packages nobody may install skips, and says why."""
    if shutil.which("chromium") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            pytest.skip("no chromium, and no right to apt-get install it")
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            # Several workers may come here at once: the later ones wait for the first.
            subprocess.run(
                ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=600", *command],
                check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )  # fmt: skip
    found = shutil.which("chromium")
    if found is None:
        raise RuntimeError("apt-get installed chromium, and there is none")
    return found
