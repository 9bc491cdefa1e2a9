"""What the commands share: options, settings, stores, models, and how they speak.

Every command refuses with exit code 1 and one plain sentence on standard error.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:
    from features.tables import Folder, Tables
    from rules.policy import Policy
    from serving.home import Home
    from serving.scorer import Champion
    from serving.settings import Settings
    from serving.store.store import Store
    from training.registry import Registry

MOST_SHOWN: Final = 10
"""How many of the differences that were found are printed; JSON has more."""

note = Console(stderr=True, soft_wrap=True)

Mode = Literal["live", "test"]

DataDir = Annotated[Path, typer.Option("--data", help="A data folder (Parquet or CSV).")]
OutDir = Annotated[Path, typer.Option("--out", help="Where to write; a folder.")]
OutFile = Annotated[Path, typer.Option("--out", help="Where to write; a Parquet file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ModeOption = Annotated[
    Mode, typer.Option("--mode", help="live, or test for the sandbox: two stores, nothing shared.")
]
By = Annotated[
    str | None, typer.Option("--by", help="Who does this; the login name when not given.")
]
Since = Annotated[str | None, typer.Option(help="Decided then or later; ISO 8601.")]
Until = Annotated[str | None, typer.Option(help="Decided before; ISO 8601.")]


def refuse(message: str, exit_code: int = 1) -> NoReturn:
    """End the command with a sentence on standard error."""
    if message:
        note.print(message, markup=False, highlight=False)
    sys.exit(exit_code)


def print_json(document: Any) -> None:
    """The one document that ``--json`` promises."""
    print(json.dumps(document, indent=2, default=str))


def print_table(rows: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one a line."""
    for name, value in rows:
        shown = f"{value:,.4f}" if isinstance(value, float) else value
        print(f"  {name:<24} {shown}")


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while ``what`` is done: call it with done and total."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=note, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def settings_of(**given: Any) -> Settings:
    """The settings, with those given in place of the environment's; None is not given."""
    from serving.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


def read_data(data: Path) -> Folder:
    """A checked data folder; what it holds that is ignored is said, never silently dropped."""
    from features.tables import read_folder

    folder = read_folder(data)
    say_ignored(folder.ignored)
    return folder


def read_with_rates(data: Path, base: str) -> Tables:
    """The tables of a checked data folder; amounts that no rate turns into the base are said."""
    from training.dataset import rates_of, without_rate

    tables = read_data(data).tables
    say_ignored(without_rate(tables, rates_of(tables, base)))
    return tables


def say_ignored(notes: Iterable[str]) -> None:
    """What was left aside, on standard error."""
    for ignored in notes:
        note.print(f"ignored: {ignored}", markup=False)


def open_store(mode: Mode) -> Store:
    """The store of a mode, made where there is none; to be closed by the caller."""
    from serving.logs import configure_logs
    from serving.store.rotation import key_id_of
    from serving.store.store import Store

    settings = settings_of()
    configure_logs(settings.log_level)
    which: Literal["live", "sandbox"] = "live" if mode == "live" else "sandbox"
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    url, secret = settings.database_url_of(which), settings.secret_bytes()
    try:
        if key_id_of(url) is not None:  # a store that is there has its clock already
            return Store.open(url, secret, create=False)
        return Store.open(url, secret, clock=settings.clock_of(which))
    except ValueError as error:
        refuse(str(error))


def champion_of(model: str | None = None) -> Champion:
    """A model by its directory or MLflow address, or the model that is served."""
    from serving.home import Home
    from serving.model import AbuseModel
    from serving.scorer import Champion

    settings = settings_of()
    home = Home(settings.home)
    path = home.served_model() if model is None else Path(model)
    if model is not None and ":/" in model:
        try:
            path = registry_of(home).find(model)
        except LookupError as error:
            refuse(str(error))
    return Champion.of(
        AbuseModel.load(path), model or path.name, settings.base_currency, settings.spoken()
    )


def registry_of(home: Home) -> Registry:
    """The registry of a home that has one; asked of another, MLflow would make a database first."""
    if not home.registry.exists():
        refuse(f"{home.registry}: no model is registered, train one first")
    from training.registry import Registry

    return Registry(home)


def instant(text: str | None, option: str) -> int | None:
    """An option's time as epoch ms; None where it is not given."""
    from features.tables import parse_time

    if text is None:
        return None
    instant = parse_time(text)
    if instant is None:
        raise typer.BadParameter(
            f"expected ISO 8601 with offset, or epoch milliseconds, got {text!r}",
            param_hint=option,
        )
    return instant


def now_ms() -> int:
    """The present, in epoch ms."""
    return time.time_ns() // 10**6


@contextmanager
def store_of(mode: Mode) -> Iterator[Store]:
    """The store of a mode, closed afterwards."""
    store = open_store(mode)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def kept_store_of(mode: Mode) -> Iterator[Store]:
    """As `store_of`, but refused where there is none: of one that was just made nothing is told.

    Else whoever looks in the wrong place hears that all is well, or that somebody is erased.
    """
    from serving.store.rotation import key_id_of

    url = settings_of().database_url_of("live" if mode == "live" else "sandbox")
    if key_id_of(url) is None:
        refuse(f"the {mode} store: there is none; expected the RECOURSE_HOME or the database that "
               "the service has")  # fmt: skip
    with store_of(mode) as store:
        yield store


def login() -> str:
    """The login of this process: what the system says, not the environment, which anybody sets."""
    if sys.platform == "win32":
        return getpass.getuser()
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        return f"uid-{os.getuid()}"


def person(by: str | None) -> str:
    """Who acts: the name that is given, checked, else the login."""
    from serving.persons import NameRefused, name_of_person

    try:
        return name_of_person(login() if by is None else by)
    except NameRefused as error:
        refuse(f"--by: {error}")


def asking() -> str:
    """Who asks, as the audit log names them beside the person: the login at the command line."""
    return f"cli:{login()}"


def said(error: Exception) -> str:
    """What an error says, without the quotes that a KeyError puts around it."""
    return str(error.args[0]) if error.args else str(error)


def shown_time(at: int) -> str:
    """Epoch ms as a person reads it, UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at / 1000))


def policy_named(name: str, mode: Mode) -> Policy:
    """A policy by its file, or by its version in the store."""
    from rules.condition import nearest
    from rules.diagnostics import render
    from rules.policy import Policy, PolicyError, policy_text
    from serving.facts import FACTS

    path = Path(name)
    if path.exists():
        text = policy_text(path)
        try:
            return Policy.from_yaml(text, facts=FACTS)
        except PolicyError as error:  # of one of two files: which one is to be seen
            refuse(render(error.problems, text, name))
    with store_of(mode) as store:
        kept = store.policy(name)
        if kept is not None:
            return Policy.from_yaml(kept.text, facts=FACTS)
        versions = [version.version for version in store.policy_versions()]
    near = nearest(name, versions)
    hint = f"; did you mean {near}?" if near else ""
    return refuse(f"{name}: no such file, and the {mode} store has no policy of this version{hint}")
