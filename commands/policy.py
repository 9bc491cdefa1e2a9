"""The policy: checked, versioned, tried and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.shared import settings_of

app = typer.Typer(no_args_is_help=True, help="Policy documents.")


@app.command("check")
def check(
    file: Annotated[Path | None, typer.Argument(help="The default policy when not given.")] = None,
) -> None:
    """Load a policy, run its examples, and print every problem at once.

    Example: `recourse policy check rules/policies/default.yaml`
    """
    from serving.service import load_settings_policy

    loaded = load_settings_policy(settings_of(policy=file))
    print(f"policy {loaded.version}: {len(loaded.rules)} rules, hash {loaded.hash}")
