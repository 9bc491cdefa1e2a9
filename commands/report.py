"""Reports for people: why one decision was made, and what many of them came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.shared import (
    AsJson,
    Mode,
    ModeOption,
    Since,
    Until,
    instant,
    kept_store_of,
    now_ms,
    print_json,
    progress_of,
    refuse,
    settings_of,
    shown_time,
)

app = typer.Typer()


@app.command()
def report(
    decision: Annotated[
        str | None, typer.Option(help="The score id of one decision, as its answer has it.")
    ] = None,
    since: Since = None,
    until: Until = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the page for a browser.")
    ] = None,
    maturity_days: Annotated[int, typer.Option(min=1, help="When a label is mature.")] = 60,
    announce: Annotated[
        bool, typer.Option("--announce", help="Send the webhook drift.detected if there is drift.")
    ] = False,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Explain one decision, or report on all decisions of a period and the one before it.

    Example: `recourse report --decision 019ac2… --out decision.html`

    Example: `recourse report --since 2026-10-01T00:00:00Z --until 2026-11-01T00:00:00Z --out
    october.html`
    """
    first, last = instant(since, "--since"), instant(until, "--until")
    if decision is None and first is None:
        raise typer.BadParameter("expected --decision ID, or --since TIME for all of a period")
    if decision is not None and (first is not None or last is not None or announce):
        raise typer.BadParameter("--decision is of one, and --since, --until and --announce are "
                                 "of a period: expected one or the other")  # fmt: skip
    if decision is not None and not decision.strip():
        raise typer.BadParameter("expected the score id of a decision, got nothing",
                                 param_hint="--decision")  # fmt: skip
    if out is not None and out.is_dir():
        refuse(f"--out {out}: expected a file, got a folder")
    if out is not None and not out.absolute().parent.is_dir():
        refuse(f"--out {out}: {out.parent} is no folder; expected one that is there")
    if decision is not None:
        _explain(decision, out, mode, as_json=as_json)
    else:
        _report(first or 0, last, out, maturity_days, mode, announce=announce, as_json=as_json)
    if out is not None and not as_json:
        print(f"the page for a browser: {out}")


def _explain(score_id: str, out: Path | None, mode: Mode, *, as_json: bool) -> None:
    """The explanation of one decision, as the service answers it."""
    from features.money import Rates
    from serving.explanation.assemble import Explainer, not_known
    from serving.explanation.page import render
    from serving.explanation.text import to_text
    from serving.home import Home
    from serving.models import load_champion

    settings = settings_of()
    champion, language = load_champion(settings), settings.spoken()
    explainer = Explainer(lambda: champion, home=Home(settings.home), language=language)
    with kept_store_of(mode) as store:
        rates = Rates.of(settings.base_currency, store.fx_rates())
        explained = explainer.explain(store, score_id, rates)
        if explained is None:
            where = "the sandbox has its own" if mode == "live" else "the live store has its own"
            refuse(f"--decision {score_id}: {not_known(store, score_id)} ({where}; --mode)")
    if out is not None:
        out.write_text(render(explained, language), encoding="utf-8")
    if as_json:
        print_json(explained.to_json())
    else:
        print(to_text(explained, language))


def _report(
    since: int, until: int | None, out: Path | None, maturity_days: int, mode: Mode, *,
    announce: bool, as_json: bool,
) -> None:  # fmt: skip
    """The report on all decisions of a period."""
    from serving.policies import policy_in_force
    from training.period import announce_drift, period_report
    from training.period_page import page

    settings, at = settings_of(), now_ms()
    end = min(until or at, at)
    if end <= since:
        refuse(f"--since: expected a time before {shown_time(end)}, the period's end, "
               f"got {shown_time(since)}")  # fmt: skip
    with kept_store_of(mode) as store:
        try:
            with progress_of("reading decisions"):
                found = period_report(
                    store, since=since, until=end,
                    costs=policy_in_force(settings, mode).costs, maturity_days=maturity_days,
                    base_currency=settings.base_currency,
                )  # fmt: skip
        except LookupError as error:
            refuse(f"the {mode} store: {error}")
        announced = announce_drift(store, found, at) if announce else False
    if out is not None:
        out.write_text(page(found, settings.spoken()), encoding="utf-8")
    if as_json:
        print_json(found.to_json())
        return
    print(found.to_text(settings.spoken()))
    if announce:
        print("drift.detected is sent" if announced else "no drift to announce")
