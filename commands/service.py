"""The running service: serve, skew."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from commands.shared import (
    MOST_SHOWN,
    AsJson,
    ModeOption,
    instant,
    note,
    now_ms,
    open_store,
    print_json,
    print_table,
    refuse,
    settings_of,
)

if TYPE_CHECKING:
    from serving.settings import Settings

app = typer.Typer()


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, max=64)] = 1,
    clock: Annotated[
        Literal["ingest", "event"] | None,
        typer.Option(help="The sandbox's clock: ingest, or event for replays."),
    ] = None,
) -> None:
    """Serve decisions over HTTP until interrupted.

    Example: `recourse serve --port 3000`
    """
    settings = settings_of(clock=clock)
    _check_before_serving(settings, host, port)
    command = [
        sys.executable, "-m", "bentoml", "serve", "serving.service:Recourse",
        "--host", host, "--port", str(port),
        "--timeout-graceful-shutdown", str(settings.stop_seconds),
        "--working-dir", str(Path(__file__).resolve().parents[1]),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "RECOURSE_HOME": str(settings.home.resolve()),
        "RECOURSE_CLOCK": settings.clock,
        "RECOURSE_WORKERS": str(workers),
        "RECOURSE_SUPERVISOR": str(os.getpid()),  # the process stays, as another program
        # By port: BentoML empties it at the start, the counts of another service's workers too.
        "BENTOML_HOME": str(settings.home.resolve() / "bentoml" / str(port)),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    os.execve(sys.executable, command, environment)


def _check_before_serving(settings: Settings, host: str, port: int) -> None:
    """Refuse here what would end a worker, which BentoML would start again and again."""
    from features.money import Rates
    from serving.policies import start_with
    from serving.store.store import Store

    _check_model(settings)
    which: Literal["live", "sandbox"]
    for which in ("live", "sandbox"):
        url = settings.database_url_of(which)
        try:
            clock = settings.clock_of(which)
            store = Store.open(url, settings.secret_bytes(), clock=clock, upgrade=True)
            Rates.of(settings.base_currency, store.fx_rates())
            start_with(store, settings, now_ms())
            store.close()
        except ValueError as error:
            refuse(str(error))
    with socket.socket() as address:
        address.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            address.bind((host, port))
        except OSError as error:
            refuse(f"--port: {host}:{port} cannot be listened on: {error.strerror}")


def _check_model(settings: Settings) -> None:
    """Refuse a promoted model that no worker would take; raises ModelError. Loads no trees."""
    from features.catalog import MODEL_FEATURES
    from features.feature import definitions_hash
    from serving.home import Home
    from serving.model import ModelError, whole_manifest

    home = Home(settings.home)
    version = home.served_version()
    if version is None:
        return
    manifest = whole_manifest(home.model(version))
    names = [feature.name for feature in MODEL_FEATURES]
    manifest.check_features(names, definitions_hash(MODEL_FEATURES))
    if manifest.base_currency != settings.base_currency:
        raise ModelError(f"base_currency: the model learnt amounts in {manifest.base_currency}, "
                         f"expected {settings.base_currency}")  # fmt: skip


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

    first, last = instant(since, "--since"), instant(until, "--until")
    store = open_store(mode)
    try:
        rates = Rates.of(settings_of().base_currency, store.fx_rates())
        found = measured(store, rates, since=first, until=last)
    finally:
        store.close()
    if as_json:
        print_json(found.to_json())
    else:
        print_table((name.replace("_", " "), count) for name, count in found.counts.items())
        for one in found.findings[:MOST_SHOWN]:
            print(f"  {one}")
    if not found.decisions:
        note.print(f"the {mode} store has no decisions of that time", markup=False)
    if not found.is_exact and not (found.mismatched or found.missing or found.extra):
        refuse(f"the {mode} store: none of {found.decisions:,} decisions could be compared, they "
                "were made with another catalog or base currency")  # fmt: skip
    if not found.is_exact:
        refuse(f"the {mode} store: {found.mismatched:,} rows are mismatched, "
                f"{found.missing:,} missing, {found.extra:,} extra; expected none")  # fmt: skip
