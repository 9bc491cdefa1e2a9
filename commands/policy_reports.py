"""Reports on a policy: its shadow rules, the quality of its rules, what exploration taught."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from commands.shared import (
    AsJson,
    ModeOption,
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

Maturity = Annotated[int, typer.Option(min=1, help="When a label is mature.")]


@app.command("shadow-report")
def shadow_report(
    rule: Annotated[str | None, typer.Option(help="Only this rule or limit.")] = None,
    since: Since = None,
    until: Until = None,
    maturity_days: Maturity = 60,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Say what shadow rules hit, what they would have changed, and whether they were right.

    Example: `recourse policy shadow-report --rule repeated_empty_box`
    """
    from training.policy_reports import store_shadow_report

    first, last = instant(since, "--since"), instant(until, "--until")
    with store_of(mode) as store:
        try:
            report = store_shadow_report(
                store, rule_id=rule, since=first, until=last, maturity_days=maturity_days
            )
        except LookupError as error:
            refuse(f"the {mode} store: {error}")
    _tell(report, as_json=as_json)


@app.command("quality")
def quality(
    policy: Annotated[
        str | None,
        typer.Option(help="A file, or a version kept; the one in force when not given."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A data folder (Parquet or CSV); the decisions that the store "
                                    "logged when not given."),
    ] = None,
    since: Since = None,
    until: Until = None,
    maturity_days: Maturity = 60,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Judge each rule: hits, overlap, precision, money, and what is redundant or contradicts.

    Example: `recourse policy quality --data data/sample --maturity-days 30`
    """
    from serving.policies import policy_in_force
    from training.dataset import end_of, rates_of
    from training.policy_reports import folder_quality_report, store_quality_report

    settings = settings_of()
    judged = policy_named(policy, mode) if policy else policy_in_force(settings, mode)
    if data is not None:
        base = settings.base_currency
        tables = read_with_rates(data, base)
        with progress_of("replaying") as progress:
            report = folder_quality_report(
                tables, champion_of(), judged, rates_of(tables, base), as_of=end_of(tables),
                maturity_days=maturity_days, progress=progress,
            )  # fmt: skip
        _tell(report, as_json=as_json)
        return
    first, last = instant(since, "--since"), instant(until, "--until")
    with store_of(mode) as store:
        try:
            report = store_quality_report(
                store, judged, since=first, until=last, maturity_days=maturity_days
            )
        except LookupError as error:
            refuse(f"the {mode} store: {error}")
    _tell(report, as_json=as_json)


@app.command("exploration")
def exploration(
    since: Since = None,
    until: Until = None,
    maturity_days: Maturity = 60,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Say what paying a random share of held refunds cost, and what it taught.

    Example: `recourse policy exploration --since 2026-07-01T00:00:00Z`
    """
    from training.policy_reports import store_exploration_report

    first, last = instant(since, "--since"), instant(until, "--until")
    with store_of(mode) as store:
        try:
            report = store_exploration_report(
                store, since=first, until=last, maturity_days=maturity_days
            )
        except LookupError as error:
            refuse(f"the {mode} store: {error}")
    _tell(report, as_json=as_json)


def _tell(report: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_json())
    else:
        print(report.to_text())
