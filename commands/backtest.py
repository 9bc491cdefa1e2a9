"""The backtest: history under two policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.shared import AsJson, DataDir, champion_of, print_json, read_data, settings_of

app = typer.Typer()


@app.command()
def backtest(
    policy_a: Annotated[Path, typer.Option("--policy", help="The policy to judge.")],
    against: Annotated[Path, typer.Option(help="The policy to compare it with.")],
    data: DataDir,
    maturity_days: Annotated[int, typer.Option(min=1, help="When a label is mature.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Replay history under two policies: what would change, in decisions and in money.

    Example: `recourse backtest --policy new.yaml --against rules/policies/default.yaml
    --data data/sample`
    """
    from rules.policy import load_policy
    from serving.facts import FACTS
    from training.backtest import backtest_folder, to_text
    from training.dataset import end_of, rates_of

    tables = read_data(data).tables
    report = backtest_folder(
        tables, champion_of(), load_policy(against, FACTS), load_policy(policy_a, FACTS),
        rates_of(tables, settings_of().base_currency), as_of=end_of(tables),
        maturity_days=maturity_days,
    )  # fmt: skip
    if as_json:
        print_json(report.to_json())
    else:
        print(to_text(report))
