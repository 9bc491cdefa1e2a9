"""Data: simulate, import, export, features."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from commands.shared import (
    DataDir,
    ModeOption,
    OutDir,
    OutFile,
    instant,
    note,
    open_store,
    print_table,
    progress_of,
    read_data,
    refuse,
    say_ignored,
    settings_of,
)

app = typer.Typer()


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
    print_table((name, table.num_rows) for name, table in tables.items())


@app.command("import")
def import_(
    data: Annotated[Path, typer.Argument(help="A data folder (Parquet or CSV).")],
    mode: ModeOption = "live",
) -> None:
    """Load a data folder into the store: all of it, or nothing.

    Example: `recourse import data/sample --mode test`
    """
    from serving.store.transfer import import_folder

    folder = read_data(data)
    store = open_store(mode)
    with progress_of("importing") as progress:
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

    limit = instant(until, "--until")
    store = open_store(mode)
    tables = exported(store, limit)
    store.close()
    write_folder(tables, out)
    print_table((name, table.num_rows) for name, table in tables.items())


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

    base = settings_of(base_currency=base_currency).base_currency
    partitions = partitions or partitions_for(data)
    if dask is None and partitions == 1:
        tables = read_data(data).tables
        rates = rates_of(tables, base)
        say_ignored(without_rate(tables, rates))
        with note.status("computing features"):
            frame = feature_frame(tables, rates)
        write_frame(frame, out)
        requests, names = len(frame), frame.names
    else:
        # Ended politely, it takes its scratch files with it.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            with progress_of("computing features") as progress:
                written = features_of_folder(
                    data, out, base=base, partitions=partitions, dask=dask, progress=progress
                )
        except ScaleError as error:
            refuse(str(error))
        say_ignored(written.ignored)
        requests, names = written.requests, written.names
    print(f"{requests:,} requests, {len(names)} features: {out}")
