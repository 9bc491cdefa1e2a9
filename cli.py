"""``recourse …``: thin commands over the packages.

Exit code 0: done; 1: refused, with one plain sentence on standard error; 2: wrongly called.
With ``--json`` standard output holds one JSON document and nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from typer.exceptions import TyperException

# Said before LightGBM is loaded: its idle threads sleep instead of spinning, which would take the
# cores from those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from features.tables import Folder, Tables
    from serving.home import Home
    from serving.scorer import Champion
    from serving.settings import Settings
    from serving.store.store import Store
    from training.registry import Registry

app = typer.Typer(
    name="recourse", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
    help="Risk scoring for refund abuse: simulate, train, serve, explain.",
    pretty_exceptions_enable=False,
)  # fmt: skip
keys = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")
policy = typer.Typer(no_args_is_help=True, help="Policy documents.")
challenger = typer.Typer(no_args_is_help=True, help="A model scored in the shadow.")
app.add_typer(keys, name="keys")
app.add_typer(challenger, name="challenger")
app.add_typer(policy, name="policy")

SECRETS: Final = (("secret",), ("database_url",), ("sandbox_database_url",))

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


def main() -> None:
    """The entry point: what is refused is said in plain words, not as a stack."""
    try:
        sys.exit(app(prog_name="recourse", standalone_mode=False))
    except TyperException as error:
        _refuse(_misuse(error), error.exit_code)
    except typer.Abort:
        _refuse("nothing was done")
    except ValidationError as error:
        _refuse("; ".join(map(_setting, error.errors())))
    except tuple(_refusals()) as error:
        _refuse(_plain(error))


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


def _misuse(error: TyperException) -> str:
    """How a command was wrongly called, and where it says how it is called."""
    message, context = error.format_message().rstrip("."), getattr(error, "ctx", None)
    return f"{message}; see {context.command_path} --help" if message and context else message


def _setting(problem: ErrorDetails) -> str:
    """What is wrong with a setting; what may hold a password is not repeated."""
    name = "_".join(("RECOURSE", *map(str, problem["loc"]))).upper()
    got = "" if problem["loc"] in SECRETS else f", got {problem['input']!r}"
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}{got}"


def _plain(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if type(error).__module__.startswith("sqlalchemy"):
        return f"the store: {getattr(error, 'orig', None) or error}".partition("\n")[0]
    return str(error)


def _refuse(message: str, exit_code: int = 1) -> NoReturn:
    if message:
        note.print(message, markup=False, highlight=False)
    sys.exit(exit_code)


def _print(document: Any) -> None:
    print(json.dumps(document, indent=2, default=str))


def _table(rows: Iterable[tuple[str, Any]]) -> None:
    for name, value in rows:
        shown = f"{value:,.4f}" if isinstance(value, float) else value
        print(f"  {name:<24} {shown}")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=note, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _settings(**given: Any) -> Settings:
    from serving.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


def _read(data: Path) -> Folder:
    """A checked data folder; what it holds that is ignored is said, never silently dropped."""
    from features.tables import read_folder

    folder = read_folder(data)
    _say_ignored(folder.ignored)
    return folder


def _read_with_rates(data: Path, base: str) -> Tables:
    """The tables of a checked data folder; amounts that no rate turns into the base are said."""
    from training.dataset import rates_of, without_rate

    tables = _read(data).tables
    _say_ignored(without_rate(tables, rates_of(tables, base)))
    return tables


def _say_ignored(notes: Iterable[str]) -> None:
    for ignored in notes:
        note.print(f"ignored: {ignored}", markup=False)


def _open_store(mode: Mode) -> Store:
    from serving.logs import configure_logs
    from serving.store.database import StoreRefusedError
    from serving.store.store import Store

    settings = _settings()
    configure_logs(settings.log_level)
    which: Literal["live", "sandbox"] = "live" if mode == "live" else "sandbox"
    settings.home.mkdir(parents=True, exist_ok=True)
    url, secret = settings.database_url_of(which), settings.secret_bytes()
    try:
        with suppress(StoreRefusedError):  # a store that is there has its clock already
            return Store.open(url, secret, create=False)
        return Store.open(url, secret, clock=settings.clock_of(which))
    except ValueError as error:
        _refuse(str(error))


# --- data ------------------------------------------------------------------------------------


@app.command()
def simulate(
    customers: Annotated[int, typer.Option(min=1, help="How many customers ever register.")],
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long the world runs.")],
    out: OutDir,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
) -> None:
    """Make a synthetic world of customers and abusers.

    Example: `recourse simulate --customers 2000 --days 180 --seed 7 --out world`
    """
    from features.tables import write_folder
    from training.simulate import simulate as simulated

    tables = simulated(customers=customers, days=days, seed=seed)
    write_folder(tables, out)
    _table((name, table.num_rows) for name, table in tables.items())


@app.command("import")
def import_(
    data: Annotated[Path, typer.Argument(help="A data folder (Parquet or CSV).")],
    mode: ModeOption = "live",
) -> None:
    """Load a data folder into the store: all of it, or nothing.

    Example: `recourse import data/sample --mode test`
    """
    from serving.store.transfer import import_folder

    folder = _read(data)
    store = _open_store(mode)
    with _progress("importing") as progress:
        counts = import_folder(store, folder, progress)
    store.close()
    for table in (name for name in folder.tables if name in counts.imported | counts.duplicates):
        known = counts.duplicates.get(table, 0)
        again = f" ({known:,} were there already)" if known else ""
        print(f"  {table:<20} {counts.imported.get(table, 0):>9,}{again}")
    for table, rows in counts.not_loaded.items():
        note.print(f"not loaded: {rows:,} rows of {table}: what a service decided is kept where it "
                   "decided", markup=False)  # fmt: skip


@app.command()
def export(
    out: OutDir,
    until: Annotated[str | None, typer.Option(help="Only what was known before; ISO 8601.")] = None,
    mode: ModeOption = "live",
) -> None:
    """Write the store as a data folder, with the original identifiers.

    Example: `recourse export --until 2026-07-01T00:00:00Z --out export`
    """
    from features.tables import write_folder
    from serving.store.transfer import export as exported

    limit = _instant(until, "--until")
    store = _open_store(mode)
    tables = exported(store, limit)
    store.close()
    write_folder(tables, out)
    _table((name, table.num_rows) for name, table in tables.items())


@app.command()
def features(
    data: DataDir,
    out: OutFile,
    base_currency: Annotated[
        str | None, typer.Option(help="ISO 4217; the setting's when not given.")
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Dask scheduler, tcp://host:port, whose workers have this code and see both "
            "paths as this command does.",
        ),
    ] = None,
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many parts to divide the work into; a task holds one in memory. As many as "
            "the data needs when not given.",
        ),
    ] = None,
) -> None:
    """Compute the features of every refund request, exact as of its own time.

    Data may be larger than memory: the work is divided where there is much of it, or on a cluster.

    Example: `recourse features --data data/sample --out features.parquet`
    """
    from training.dataset import feature_frame, rates_of, without_rate, write_frame
    from training.scale import ScaleError, features_of_folder, partitions_for

    base = _settings(base_currency=base_currency).base_currency
    partitions = partitions or partitions_for(data)
    if dask is None and partitions == 1:
        tables = _read(data).tables
        rates = rates_of(tables, base)
        _say_ignored(without_rate(tables, rates))
        with note.status("computing features"):
            frame = feature_frame(tables, rates)
        write_frame(frame, out)
        requests, names = len(frame), frame.names
    else:
        # Ended politely, it takes its scratch files with it.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            with _progress("computing features") as progress:
                written = features_of_folder(
                    data, out, base=base, partitions=partitions, dask=dask, progress=progress
                )
        except ScaleError as error:
            _refuse(str(error))
        _say_ignored(written.ignored)
        requests, names = written.requests, written.names
    print(f"{requests:,} requests, {len(names)} features: {out}")


# --- models ----------------------------------------------------------------------------------


@app.command()
def train(
    data: DataDir,
    test_from: Annotated[str | None, typer.Option(help="First day of the test, ISO 8601.")] = None,
    test_until: Annotated[
        str | None, typer.Option(help="First day after the test; the data's end when not given.")
    ] = None,
    maturity_days: Annotated[int, typer.Option(min=1, help="When a label is mature.")] = 60,
    train_days: Annotated[
        int | None, typer.Option(min=1, help="Learn from the latest so many days alone.")
    ] = None,
    folds: Annotated[
        int, typer.Option(min=1, max=20, help="Prequential folds; fewer where abuse is rare.")
    ] = 4,
    fold_days: Annotated[
        int | None, typer.Option(min=1, help="How long a fold is; they share 40 % by default.")
    ] = None,
    search: Annotated[
        int, typer.Option(min=0, help="How many recipes to try beside the usual one.")
    ] = 0,
    max_bin: Annotated[
        int, typer.Option(min=2, max=65_535, help="How finely numbers are told apart.")
    ] = 255,
    class_weight: Annotated[
        Literal["none", "balanced"], typer.Option(help="Weigh both classes alike, or as they are.")
    ] = "none",
    monotone: Annotated[
        bool, typer.Option("--monotone", help="Hold what speaks of abuse to one direction.")
    ] = False,
    codes_as_numbers: Annotated[
        bool, typer.Option("--codes-as-numbers", help="Split codes by order, not by sets.")
    ] = False,
    policy_file: Annotated[
        Path | None,
        typer.Option("--policy", help="Whose costs decide; the setting's when not given."),
    ] = None,
    reviews_per_day: Annotated[
        float | None, typer.Option(min=0, help="What the review desk can take.")
    ] = None,
    reviews_per_reviewer: Annotated[
        float, typer.Option(min=0, help="What one reviewer takes a day.")
    ] = 60.0,
    group: Annotated[
        list[str] | None,
        typer.Option(help="A column of refund_requests to compare FPR between; may be repeated."),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(help="A suspect of the leak detector that is none; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed and data, same model.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train on mature labels and report the out-of-time test; the first model is served at once.

    Exit code 1 where the model is not registered: its report says why.

    Example: `recourse train --data data/sample --maturity-days 30`
    """
    from training.recipe import Recipe
    from training.train import NotRegistered, Options, instant_of
    from training.train import train as trained

    times: dict[str, int | None] = {}
    for name, day in (("test_from", test_from), ("test_until", test_until)):
        try:
            times[name] = None if day is None else instant_of(day, name)
        except ValueError as error:
            raise typer.BadParameter(
                str(error), param_hint=f"--{name.replace('_', '-')}"
            ) from error
    settings = _settings(policy=policy_file)
    try:
        options = Options(
            **times, maturity_days=maturity_days, train_days=train_days, folds=folds,
            fold_days=fold_days, search_trials=search, trusted=frozenset(trust or ()),
            groups=tuple(group or ()), reviews_per_day=reviews_per_day,
            reviews_per_reviewer_per_day=reviews_per_reviewer,
            recipe=Recipe(max_bin=max_bin, class_weight=class_weight, monotone=monotone,
                          categorical=not codes_as_numbers),
        )  # fmt: skip
        tables = _read_with_rates(data, settings.base_currency)
        with _progress("training") as progress:
            report = trained(
                tables, home=settings.home, options=options, seed=seed,
                base=settings.base_currency, policy_path=settings.policy, progress=progress,
            )  # fmt: skip
    except NotRegistered as refused:
        if as_json:
            _print(refused.report.to_json())
        else:
            print(refused.report.summary())
        _refuse(str(refused))
    except ValueError as error:
        _refuse(str(error))
    if as_json:
        _print(report.to_json())
    else:
        print(report.summary())


@app.command()
def promote(
    version: Annotated[str | None, typer.Argument(help="The latest when not given.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    back: Annotated[
        bool, typer.Option("--rollback", help="Back to whom the champion replaced, no gate.")
    ] = False,
    fpr_ratio_at_least: Annotated[
        float, typer.Option(min=0, max=1, help="How even the groups named at training must be.")
    ] = 0.5,
    as_json: AsJson = False,
) -> None:
    """Make a registered version the champion, if it passes the gate; every objection is listed.

    Example: `recourse promote 2 --yes`
    """
    from serving.service import load_settings_policy
    from training.gate import Bounds
    from training.promote import PromotionRefused, rollback
    from training.promote import promote as promoted

    settings = _settings()
    home = settings.home
    wanted = "the version before the champion" if back else f"version {version or '(the latest)'}"
    if not yes:
        typer.confirm(f"Judge and serve {wanted}?", abort=True, err=True)
    try:
        done = rollback(home=home) if back else promoted(
            version, home=home, policy=load_settings_policy(settings),
            bounds=Bounds(fpr_ratio_at_least=fpr_ratio_at_least),
        )  # fmt: skip
    except LookupError as error:
        _refuse(str(error))
    except PromotionRefused as refused:
        if as_json:
            compared = refused.comparison
            _print({"version": refused.version, "reasons": list(refused.reasons),
                    "comparison": None if compared is None else compared.to_json()})  # fmt: skip
        _refuse(str(refused))
    if as_json:
        _print(done.to_json())
        return
    print(f"version {done.version} is champion now, in place of {done.replaced or 'none'}")
    if (found := done.comparison) is not None:
        saving = f"{found.saving.low:+,.0f} to {found.saving.high:+,.0f}"
        print(f"average precision gained: {found.gain.low:+.4f} to {found.gain.high:+.4f} (95 %)")
        print(f"saved on 1,000 refunds: {saving} minor units (95 %)")
        for said in found.notes:
            print(f"note: {said}")


@app.command()
def evaluate(
    data: DataDir,
    model: Annotated[
        str | None,
        typer.Option(help="A model's directory or MLflow address; the served one when not given."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Requested then or later; what is new to the model.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Requested before; ISO 8601.")] = None,
    maturity_days: Annotated[
        int | None, typer.Option(min=1, help="When a label is mature; as the model's own were.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write each refund's probability and label.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Judge a model on mature labels that are new to it: figures with their 95 % intervals.

    Example: `recourse evaluate --data data/sample --maturity-days 30`
    """
    import pyarrow.parquet as pq

    from serving.service import load_settings_policy
    from training.evaluation import evaluate_folder

    first, last = _instant(since, "--since"), _instant(until, "--until")
    settings = _settings()
    policy = load_settings_policy(settings)
    try:
        found = evaluate_folder(
            _read_with_rates(data, settings.base_currency), _champion(model).model,
            bands=policy.bands, costs=policy.costs, since=first, until=last,
            maturity_days=maturity_days, seed=seed,
        )  # fmt: skip
    except ValueError as error:
        _refuse(str(error))
    if out is not None:
        pq.write_table(found.scores, out)
    if as_json:
        _print(found.to_json())
        return
    print(f"refunds of {found.since} to {found.until}")
    intervals = found.judgement.intervals
    for name, value in found.judgement.figures.to_json().items():
        between = intervals.get(name)
        span = f"  ({between.low:,.4f} to {between.high:,.4f})" if between else ""
        shown = "not known" if value is None else f"{value:,.4f}"
        print(f"  {name:<32} {shown:>12}{span}")


@app.command()
def score(
    data: DataDir,
    out: OutFile,
    model: Annotated[
        str | None,
        typer.Option(help="A model's directory or MLflow address; the served one when not given."),
    ] = None,
) -> None:
    """Score a data folder as the service would: probability, action, reasons.

    Example: `recourse score --data data/sample --model models:/refund-abuse@champion
    --out scores.parquet`
    """
    from serving.batch import score_folder
    from serving.service import load_settings_policy
    from training.dataset import rates_of

    settings = _settings()
    tables = _read_with_rates(data, settings.base_currency)
    with _progress("scoring") as progress:
        actions = score_folder(
            tables, _champion(model), load_settings_policy(settings),
            rates_of(tables, settings.base_currency), out, progress,
        )  # fmt: skip
    _table(actions.items())


def _champion(model: str | None = None) -> Champion:
    """A model by its directory or MLflow address, or the model that is served."""
    from serving.home import Home
    from serving.model import AbuseModel
    from serving.scorer import Champion

    settings = _settings()
    home = Home(settings.home)
    path = home.served_model() if model is None else Path(model)
    if model is not None and ":/" in model:
        try:
            path = _registry(home).find(model)
        except LookupError as error:
            _refuse(str(error))
    return Champion.of(AbuseModel.load(path), model or path.name, settings.base_currency)


def _registry(home: Home) -> Registry:
    """The registry of a home that has one; asked of another, MLflow would make a database first."""
    if not home.registry.exists():
        _refuse(f"{home.registry}: no model is registered, train one first")
    from training.registry import Registry

    return Registry(home)


@challenger.command("set")
def set_challenger(
    version: Annotated[str, typer.Argument(help="A registered version, as `train` printed it.")],
) -> None:
    """Have the service score a version in the shadow: logged beside each decision, never acted on.

    A running service takes it up within seconds.

    Example: `recourse challenger set 2`
    """
    from serving.home import Home

    settings = _settings()
    registry = _registry(Home(settings.home))
    try:
        registry.challenge(version, settings.base_currency)
    except LookupError as error:
        _refuse(str(error))
    print(f"version {version} is scored beside champion {registry.champion() or 'none'}")


@challenger.command("clear")
def clear_challenger(as_json: AsJson = False) -> None:
    """Score no version in the shadow any more.

    Example: `recourse challenger clear`
    """
    from serving.home import Home

    version = _registry(Home(_settings().home)).end_challenge()
    if as_json:
        _print({"was_challenger": version})
        return
    print(f"version {version} is scored no more" if version else "there was no challenger")


@challenger.command("report")
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
    from serving.service import load_settings_policy
    from training.challenger import challenger_report

    first, last = _instant(since, "--since"), _instant(until, "--until")
    store = _open_store(mode)
    try:
        report = challenger_report(
            store, load_settings_policy(_settings()).costs, version=version, since=first,
            until=last, maturity_days=maturity_days,
        )  # fmt: skip
    except LookupError as error:
        _refuse(f"the {mode} store: {error}")
    finally:
        store.close()
    if as_json:
        _print(report.to_json())
    else:
        print(report.to_text())


# --- policy ----------------------------------------------------------------------------------


@policy.command("check")
def check(
    file: Annotated[Path | None, typer.Argument(help="The default policy when not given.")] = None,
) -> None:
    """Load a policy, run its examples, and print every problem at once.

    Example: `recourse policy check rules/policies/default.yaml`
    """
    from serving.service import load_settings_policy

    loaded = load_settings_policy(_settings(policy=file))
    print(f"policy {loaded.version}: {len(loaded.rules)} rules, hash {loaded.hash}")


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

    tables = _read(data).tables
    report = backtest_folder(
        tables, _champion(), load_policy(against, FACTS), load_policy(policy_a, FACTS),
        rates_of(tables, _settings().base_currency), as_of=end_of(tables),
        maturity_days=maturity_days,
    )  # fmt: skip
    if as_json:
        _print(report.to_json())
    else:
        print(to_text(report))


# --- serving ---------------------------------------------------------------------------------


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, max=64)] = 1,
    clock: Annotated[
        str | None, typer.Option(help="The sandbox's clock: ingest, or event for replays.")
    ] = None,
) -> None:
    """Serve decisions over HTTP until interrupted.

    Example: `recourse serve --port 3000`
    """
    settings = _settings(clock=clock)
    _check_before_serving(settings, host, port)
    command = [
        sys.executable, "-m", "bentoml", "serve", "serving.service:Recourse",
        "--host", host, "--port", str(port),
        "--working-dir", str(Path(__file__).resolve().parent),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "RECOURSE_HOME": str(settings.home.resolve()),
        "RECOURSE_CLOCK": settings.clock,
        "RECOURSE_WORKERS": str(workers),
        "BENTOML_HOME": str(settings.home.resolve() / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    os.execve(sys.executable, command, environment)


def _check_before_serving(settings: Settings, host: str, port: int) -> None:
    """Refuse here what would end a worker, which BentoML would start again and again."""
    from features.money import Rates
    from serving.service import load_champion, load_settings_policy
    from serving.store.store import Store

    load_settings_policy(settings)
    load_champion(settings)
    which: Literal["live", "sandbox"]
    for which in ("live", "sandbox"):
        url = settings.database_url_of(which)
        try:
            clock = settings.clock_of(which)
            store = Store.open(url, settings.secret_bytes(), clock=clock, upgrade=True)
            Rates.of(settings.base_currency, store.fx_rates())
            store.close()
        except ValueError as error:
            _refuse(str(error))
    with socket.socket() as address:
        address.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            address.bind((host, port))
        except OSError as error:
            _refuse(f"--port: {host}:{port} cannot be listened on: {error.strerror}")


@app.command()
def skew(
    since: Annotated[str | None, typer.Option(help="Decided then or later; ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Decided before; ISO 8601.")] = None,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Compute the features of past decisions anew, and tell what differs from what was served.

    Exit code 1 when a row is mismatched, missing or extra. A row is late visible when an event was
    committed after the decision had read, by a concurrent writer or a backfill: that is no skew.

    Example: `recourse skew --since 2026-07-01T00:00:00Z --mode live`
    """
    from features.money import Rates
    from serving.monitor import skew as measured

    first, last = _instant(since, "--since"), _instant(until, "--until")
    store = _open_store(mode)
    try:
        rates = Rates.of(_settings().base_currency, store.fx_rates())
        found = measured(store, rates, since=first, until=last)
    finally:
        store.close()
    if as_json:
        _print(found.to_json())
    else:
        _table((name.replace("_", " "), count) for name, count in found.counts.items())
        for one in found.findings[:MOST_SHOWN]:
            print(f"  {one}")
    if not found.decisions:
        note.print(f"the {mode} store has no decisions of that time", markup=False)
    if not found.is_exact and not (found.mismatched or found.missing or found.extra):
        _refuse(f"the {mode} store: none of {found.decisions:,} decisions could be compared, they "
                "were made with another catalog or base currency")  # fmt: skip
    if not found.is_exact:
        _refuse(f"the {mode} store: {found.mismatched:,} rows are mismatched, "
                f"{found.missing:,} missing, {found.extra:,} extra; expected none")  # fmt: skip


def _instant(text: str | None, option: str) -> int | None:
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


@keys.command("create")
def create_key(
    scope: Annotated[
        list[str] | None, typer.Option(help="score, report, review, admin; may be repeated.")
    ] = None,
    mode: ModeOption = "test",
) -> None:
    """Make an API key and print it, this once.

    Example: `recourse keys create --mode live --scope score --scope report`
    """
    store = _open_store(mode)
    try:
        key = store.keys.create(mode, scope or ["score", "report"], time.time_ns() // 10**6)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    finally:
        store.close()
    print(key)


@keys.command("list")
def list_keys(mode: ModeOption = "test", as_json: AsJson = False) -> None:
    """List the API keys of a store, without the keys themselves.

    Example: `recourse keys list --mode live`
    """
    store = _open_store(mode)
    found = [{**asdict(key), "scopes": sorted(key.scopes)} for key in store.keys.all()]
    store.close()
    if as_json:
        _print(found)
    for key in [] if as_json else found:
        state = "revoked" if key["revoked_at"] else "in force"
        print(f"  {key['id']}  {state}  {', '.join(key['scopes'])}")


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="As `recourse keys list` shows it.")],
    mode: ModeOption = "test",
) -> None:
    """End an API key; it is refused from now on.

    Example: `recourse keys revoke key_0123456789abcdef --mode live`
    """
    store = _open_store(mode)
    was_there = store.keys.revoke(key_id, time.time_ns() // 10**6)
    store.close()
    if not was_there:
        _refuse(f"key id: no key {key_id!r} is in force in the {mode} store")
    print(f"{key_id} is revoked")


if __name__ == "__main__":
    main()
