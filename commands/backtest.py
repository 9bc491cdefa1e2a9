"""The backtest: history under two policies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from commands.shared import (
    AsJson,
    Mode,
    Since,
    Until,
    champion_of,
    instant,
    policy_named,
    print_json,
    progress_of,
    read_with_rates,
    refuse,
    settings_of,
    store_of,
)

app = typer.Typer()


@app.command()
def backtest(
    candidate: Annotated[
        str, typer.Option("--policy", help="The policy to judge: a file, or a version kept.")
    ],
    against: Annotated[
        str | None,
        typer.Option(help="What it would replace, a file or a version; what is in force when not "
                          "given."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A data folder (Parquet or CSV); the decisions that the store "
                                    "logged when not given."),
    ] = None,
    since: Since = None,
    until: Until = None,
    maturity_days: Annotated[int, typer.Option(min=1, help="When a label is mature.")] = 60,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the page for a browser.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="How many share logged decisions; as many as processors "
                                         "when not given. The report is the same."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same intervals and examples.")] = 0,
    mode: Annotated[Mode, typer.Option("--mode", help="Whose decisions: live, or test.")] = "live",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Replay history under two policies: what would change, in decisions, reviews and money.

    Over the decisions that a store logged, or over a data folder with the model that is served.

    Example: `recourse backtest --policy new.yaml --data data/sample --out backtest.html`
    """
    from serving.policies import policy_in_force
    from training.backtest import backtest_folder, backtest_store
    from training.backtest_page import page
    from training.backtest_wording import to_text
    from training.dataset import end_of, rates_of

    settings = settings_of()
    after = policy_named(candidate, mode)
    if out is not None and not out.absolute().parent.is_dir():
        refuse(f"--out {out}: {out.parent} is no folder; expected one that is there")
    in_force = policy_in_force(settings, mode)
    before = policy_named(against, mode) if against else in_force
    first, last = instant(since, "--since"), instant(until, "--until")
    with progress_of("replaying") as progress:
        if data is not None:
            base = settings.base_currency
            tables = read_with_rates(data, base)
            try:
                report = backtest_folder(
                    tables, champion_of(), before, after, rates_of(tables, base),
                    as_of=end_of(tables), since=first, until=last, maturity_days=maturity_days,
                    seed=seed, progress=progress,
                    before_is_in_force=before.hash == in_force.hash,
                )  # fmt: skip
            except LookupError as error:
                refuse(f"{data}: {error}")
        else:
            with store_of(mode) as store:
                try:
                    report = backtest_store(
                        store, before, after, since=first, until=last, seed=seed,
                        maturity_days=maturity_days, processes=processes or os.cpu_count() or 1,
                        progress=progress, before_is_in_force=before.hash == in_force.hash,
                    )  # fmt: skip
                except LookupError as error:
                    refuse(f"the {mode} store: {error}")
    if out is not None:
        out.write_text(page(report), encoding="utf-8")
    if as_json:
        print_json(report.to_json())
        return
    print(to_text(report))
    if out is not None:
        print(f"the page for a browser: {out}")
