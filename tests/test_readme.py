"""The README holds: every command in it is run, on a fresh home, and does what it says."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import REPOSITORY, Service, environment

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks() -> list[list[str]]:
    """The commands of each shell block, continuation lines joined, comments taken off."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        found.append([re.sub(r"\s+#.*$", "", line).strip() for line in lines if line.strip()])
    return found


MAKE, USE, SCORE, REPORT, DATA, ANALYSTS, EXPLAIN, CONSOLE, OPERATORS = blocks()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


def run(command: str, home: Path, **more: str) -> str:
    command = command.replace("var/", f"{home}/")
    done = subprocess.run(
        ["bash", "-c", command], cwd=REPOSITORY, env=environment(home, **more), check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def demo(home: Path) -> Iterator[str]:
    """What `make demo` prints; its service is ended afterwards."""
    where = f"PORT={free_port()} DEMO_HOME={home}/demo"
    printed = run(f"make demo {where}", home)
    yield printed
    run(f"make demo-stop {where}", home)


def test_the_first_block_names_the_two_commands() -> None:
    assert MAKE == ["make demo", "make test"]
    assert "make test" in (REPOSITORY / ".ci" / "run").read_text()  # which is what runs this test


def test_make_demo_prints_three_decisions_and_how_to_ask(demo: str) -> None:
    reference, abuser, honest = re.findall(r"^  (ALLOW|MANUAL_REVIEW|PREVENT), by ", demo, re.M)
    assert (abuser, honest) == ("MANUAL_REVIEW", "ALLOW") or (abuser, honest) == (
        "PREVENT", "ALLOW",
    )  # fmt: skip
    assert reference in ("ALLOW", "MANUAL_REVIEW")
    assert "warning customer-not-found" in demo
    assert "ABUSE_CONFIRMED_BEFORE" in demo
    explained = re.findall(r"explained in (\S+\.html)$", demo, re.M)
    assert len(explained) == 3
    assert all("<!doctype html>" in Path(page).read_text("utf-8") for page in explained)
    invitation = re.search(r"http://127\.0\.0\.1:\d+/console/sandbox/welcome\S+", demo)
    assert invitation, demo
    assert "Demo Admin" in httpx.get(invitation[0]).text
    command = re.search(r"curl -s .*?request-score\.json", demo, re.S)
    assert command, demo
    answer = subprocess.run(["bash", "-c", command[0]], cwd=REPOSITORY, check=True,
                            capture_output=True, text=True).stdout  # fmt: skip
    assert json.loads(answer)["data"]["customerId"] == "abc-123-ZYZ"


def test_the_commands_of_the_use_block_and_both_curls(home: Path, world: Path) -> None:
    """On a smaller world than the sample, which `make demo` trains on and imports by the same
    commands; the service runs on a free port."""
    make_env, *commands = USE
    train, imported, keys, serve = (c.replace("data/sample", str(world)) for c in commands)
    run(make_env, home)
    assert "refund-abuse, version 1, now champion" in run(train, home)
    run(imported, home)
    key = run(keys, home).strip()
    assert key.startswith("sk_test_")
    assert serve == ".venv/bin/recourse serve --port 3000"
    with Service(home) as service:
        for block, field in ((SCORE, "action"), (REPORT, "refundId")):
            (curl,) = block
            there = curl.replace("127.0.0.1:3000", f"127.0.0.1:{service.port}")
            body = json.loads(run(there, home, KEY=key))
            assert body["status"] == 200
            assert field in body["data"]
            if field == "action":
                (home / "score-id").write_text(body["data"]["scoreId"])
        assert isinstance(service.client, httpx.Client)


def test_the_commands_for_data_scientists(home: Path) -> None:
    for command in DATA:
        run(command, home)
    for made in ("world", "features.parquet", "scores.parquet", "export"):
        assert (home / made).exists(), made


def test_the_commands_for_analysts(home: Path) -> None:
    assert (home / "world").exists(), "made by the commands for data scientists"
    for command in ANALYSTS:
        run(command, home)
    assert (home / "backtest.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_commands_that_begin_the_console(home: Path) -> None:
    create, listed = CONSOLE
    address = run(create, home).strip()
    assert re.fullmatch(r"/console/sandbox/welcome\?invitation=[\w-]{43}", address)
    assert "Ann Lee" in run(listed, home)


def test_the_commands_that_explain(home: Path) -> None:
    """Of the decision that was answered above."""
    one, many = EXPLAIN
    told = run(one, home, SCORE_ID=(home / "score-id").read_text())
    assert told.startswith(("Allow: refund abc-123-GDFS", "Manual review: refund abc-123-GDFS"))
    assert "Refund decisions, 1 May 2026 to 31 May 2026" in run(many, home)
    for made in ("decision.html", "may.html"):
        assert (home / made).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_commands_for_whoever_runs_it(home: Path) -> None:
    for command in OPERATORS:
        run(command, home)


def test_every_setting_is_in_the_table() -> None:
    from serving.settings import Settings

    listed = set(re.findall(r"`RECOURSE_([A-Z_]+)`", README.partition("## Settings")[2]))
    internal = {"WORKERS", "MAX_BODY_BYTES"}
    assert listed | internal == {name.upper() for name in Settings.model_fields}
