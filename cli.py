"""``recourse …``: the commands, gathered.

Exit code 0: done; 1: refused, with one plain sentence on standard error; 2: wrongly called.
With ``--json`` standard output holds one JSON document and nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import typer
from pydantic import ValidationError
from typer.exceptions import TyperException

from commands import (
    accounts,
    audit,
    backtest,
    challenger,
    data,
    keys,
    lists,
    models,
    policy,
    privacy,
    report,
    reviews,
    service,
    webhooks,
)
from commands.refusals import of_call, of_settings
from commands.shared import refuse

# Said before LightGBM is loaded: its idle threads sleep instead of spinning, which would take the
# cores from those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    name="recourse", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
    help="Risk scoring for refund abuse: simulate, train, serve, explain.",
    pretty_exceptions_enable=False,
)  # fmt: skip
for _module in (data, models, backtest, report, service, privacy):
    app.add_typer(_module.app)
for _name, _module in (
    ("audit", audit),
    ("policy", policy),
    ("lists", lists),
    ("reviews", reviews),
    ("challenger", challenger),
    ("keys", keys),
    ("accounts", accounts),
    ("webhooks", webhooks),
):
    app.add_typer(_module.app, name=_name)


def main() -> None:
    """The entry point: what is refused is said in plain words, not as a stack."""
    try:
        sys.exit(app(prog_name="recourse", standalone_mode=False))
    except TyperException as error:
        refuse(of_call(error), error.exit_code)
    except typer.Abort:
        refuse("nothing was done")
    except ValidationError as error:
        refuse(of_settings(error))
    except tuple(_refusals()) as error:
        refuse(_plain(error))


def _refusals() -> Iterator[type[Exception]]:
    """What the packages raise for input they refuse, if it was imported at all."""
    for module, name in (
        ("features.tables", "FolderError"),
        ("features.money", "RatesError"),
        ("rules.policy", "PolicyError"),
        ("serving.model", "ModelError"),
        ("serving.store.database", "StoreRefusedError"),
        ("sqlalchemy.exc", "SQLAlchemyError"),
        ("training.dataset", "TooLittleData"),
        ("training.promote", "PromotionRefused"),
    ):
        if module in sys.modules:
            yield getattr(sys.modules[module], name)
    yield OSError


def _plain(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if type(error).__module__.startswith("sqlalchemy"):
        return f"the store: {getattr(error, 'orig', None) or error}".partition("\n")[0]
    return str(error)


if __name__ == "__main__":
    main()
