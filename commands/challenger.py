"""A model scored in the shadow: set, clear, report."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.shared import (
    AsJson,
    ModeOption,
    instant,
    open_store,
    print_json,
    refuse,
    registry_of,
    settings_of,
)

app = typer.Typer(no_args_is_help=True, help="A model scored in the shadow.")


@app.command("set")
def set_challenger(
    version: Annotated[str, typer.Argument(help="A registered version, as `train` printed it.")],
) -> None:
    """Have the service score a version in the shadow: logged beside each decision, never acted on.

    A running service takes it up within seconds.

    Example: `recourse challenger set 2`
    """
    from serving.home import Home

    settings = settings_of()
    registry = registry_of(Home(settings.home))
    try:
        registry.challenge(version, settings.base_currency)
    except LookupError as error:
        refuse(str(error))
    print(f"version {version} is scored beside champion {registry.champion() or 'none'}")


@app.command("clear")
def clear_challenger(as_json: AsJson = False) -> None:
    """Score no version in the shadow any more.

    Example: `recourse challenger clear`
    """
    from serving.home import Home

    version = registry_of(Home(settings_of().home)).end_challenge()
    if as_json:
        print_json({"was_challenger": version})
        return
    print(f"version {version} is scored no more" if version else "there was no challenger")


@app.command("report")
def report_challenger(
    version: Annotated[
        str | None, typer.Option(help="Of which challenger; the one scored last when not given.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Decided then or later; ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Decided before; ISO 8601.")] = None,
    maturity_days: Annotated[int, typer.Option(min=1, help="When a label is mature.")] = 60,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Compare a challenger with who decided: probabilities, actions, and who was right.

    Example: `recourse challenger report --since 2026-07-01T00:00:00Z`
    """
    from serving.policies import policy_in_force
    from training.challenger import challenger_report

    first, last = instant(since, "--since"), instant(until, "--until")
    store = open_store(mode)
    try:
        report = challenger_report(
            store, policy_in_force(settings_of(), mode).costs, version=version, since=first,
            until=last, maturity_days=maturity_days,
        )  # fmt: skip
    except LookupError as error:
        refuse(f"the {mode} store: {error}")
    finally:
        store.close()
    if as_json:
        print_json(report.to_json())
    else:
        print(report.to_text())
