"""Data folders into a store and out of it: import and export, a round trip that changes nothing."""

from __future__ import annotations

import gc
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson
import pyarrow as pa
from sqlalchemy import Connection, select

from features.events import EVENTS, Event
from features.tables import (
    SCHEMA,
    Folder,
    FolderError,
    Problem,
    Tables,
    arrow_schema,
    canonical_table,
)
from serving.store.decisions import Decision
from serving.store.history import Draft
from serving.store.identifiers import KIND_OF_COLUMN, Pseudonyms
from serving.store.schema import events, fx_rates, identifiers
from serving.store.store import Store

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many events are done, and of how many."""

_BATCH: Final = 10_000
_FX_COLUMNS: Final = ("date", "currency", "rate")
_DECIDED: Final = ("action", "source", "propensity", "explored", "degraded", "policy_version",
                   "policy_hash")  # fmt: skip

# At one instant orders and refunds come before what names them.
_RANK: Final = {
    event_type: rank
    for rank, event_type in enumerate(
        sorted(EVENTS, key=lambda event_type: event_type not in ("order", "refund_request"))
    )
}


@dataclass
class Counts:
    """What an import did, per table: rows stored, those there already, and those never loaded."""

    imported: dict[str, int] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)
    not_loaded: dict[str, int] = field(default_factory=dict)
    """Rows of ``decisions``: a store's decisions are its own acts, kept with all their grounds."""

    def _add(self, table: str, is_new: bool) -> None:
        counts = self.imported if is_new else self.duplicates
        counts[table] = counts.get(table, 0) + 1


def import_folder(store: Store, folder: Folder, progress: Progress | None = None) -> Counts:
    """Load a checked data folder: all of it in one transaction, or nothing.

    ``known_at`` is taken from the data. Events go in by (known_at, orders and refund requests
    first, event_id) and are attributed like any that arrive. Items become part of their order or
    refund: of the version whose ``event_id`` they give, else of the first. On SQLite other writers
    wait until the end. What another service decided is not loaded, only counted. Raises
    `FolderError` for items of an ``event_id`` that is not there.
    """
    items = _items_by_event(folder.tables)
    total = sum(
        folder.tables[e.table].num_rows for e in EVENTS.values() if e.table in folder.tables
    )
    counts = Counts()
    pseudonyms = Pseudonyms(store.identifiers)
    done = 0
    with _without_cycle_collection(), store.database.write() as connection:
        for batch in _batches(_in_order(folder.tables, items, pseudonyms)):
            appended = store.history.append_drafts(connection, batch, pseudonyms)
            for draft, outcome in zip(batch, appended, strict=True):
                counts._add(EVENTS[draft.event_type].table, outcome.is_new)
            done += len(batch)
            if progress is not None:
                progress(done, total)
        _import_rates(store, connection, folder.tables.get("fx_rates"), counts)
    if "decisions" in folder.tables:
        counts.not_loaded["decisions"] = folder.tables["decisions"].num_rows
    return counts


@contextmanager
def _without_cycle_collection() -> Iterator[None]:
    """Millions of rows and no cycle among them: looking for some takes a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _import_rates(
    store: Store, connection: Connection, table: pa.Table | None, counts: Counts
) -> None:
    if table is None or not table.num_rows:
        return
    rows = [tuple(row[name] for name in _FX_COLUMNS) for row in table.to_pylist()]
    statement = store.database.inserting(fx_rates, _FX_COLUMNS, "replace")
    store.database.run_many(connection, statement, rows)
    counts.imported["fx_rates"] = len(rows)


def _in_order(
    tables: Tables, items: Mapping[str, list[dict[str, Any]]], pseudonyms: Pseudonyms
) -> Iterator[Draft]:
    """Drafts of all tables, merged: each canonical table is in order already."""

    def drafts(event: type[Event]) -> Iterator[Draft]:
        for batch in tables[event.table].to_batches(max_chunksize=_BATCH):
            for row in batch.to_pylist():
                payload = {name: value for name, value in row.items() if value is not None}
                pseudonyms.put_into(payload)
                if found := items.get(payload["event_id"]):
                    payload["items"] = found
                yield Draft(event.event_type, payload["event_id"], payload["known_at"], payload)

    return heapq.merge(
        *(drafts(event) for event in EVENTS.values() if event.table in tables),
        key=lambda draft: (draft.known_at, _RANK[draft.event_type], draft.event_id),
    )


def _batches(drafts: Iterable[Draft]) -> Iterator[list[Draft]]:
    batch: list[Draft] = []
    for draft in drafts:
        batch.append(draft)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _items_by_event(tables: Tables) -> dict[str, list[dict[str, Any]]]:
    """The lines of each order and refund request, by its event_id."""
    found: dict[str, list[dict[str, Any]]] = {}
    problems: list[Problem] = []
    for event in EVENTS.values():
        if event.item_table is None or event.item_table not in tables:
            continue
        parent = SCHEMA[event.item_table][1].name
        versions: dict[str, list[str]] = {}
        heads = tables[event.table].select(["event_id", parent])
        for event_id, name in zip(*(column.to_pylist() for column in heads.columns), strict=True):
            versions.setdefault(name, []).append(event_id)
        for row, item in enumerate(tables[event.item_table].to_pylist(), 1):
            given, name = item.pop("event_id"), item.pop(parent)
            if given is not None and given not in versions[name]:
                problems.append(Problem(event.item_table, "event_id", row, repr(given),
                                        f"one of {', '.join(versions[name])}"))  # fmt: skip
                continue
            line = {key: value for key, value in item.items() if value is not None}
            found.setdefault(given or versions[name][0], []).append(line)
    if problems:
        raise FolderError(problems)
    return found


# --- export ----------------------------------------------------------------------------------


def export(store: Store, until: int | None = None) -> Tables:
    """The events known before ``until`` (epoch ms; None: all) as canonical tables.

    Identifiers are the originals; those that were erased stay pseudonyms. Every row has its
    ``event_id``, items that of their order or refund. What the store decided before ``until`` comes
    as ``decisions``. Tables without rows are left out, except ``refund_requests``, which every data
    folder has.
    """
    columns = (events.c.event_type, events.c.payload)
    statement = select(*columns).order_by(events.c.seq)
    if until is not None:
        statement = statement.where(events.c.known_at < until)
    rows: dict[str, list[dict[str, Any]]] = {"refund_requests": []}
    with store.database.read() as connection:
        # Read before the events: whoever is erased meanwhile is then only missed, never shown.
        originals = _originals(store, connection)
        for event_type, text in connection.execute(statement):
            _take_out(EVENTS[event_type], orjson.loads(text), originals, rows)
    tables = {name: canonical_table(name, _table(name, found)) for name, found in rows.items()}
    if rates := store.fx_rates():
        found = [dict(zip(_FX_COLUMNS, row, strict=True)) for row in rates]
        tables["fx_rates"] = canonical_table("fx_rates", _table("fx_rates", found))
    if decided := [_decided(decision) for decision in store.decisions(until=until)]:
        tables["decisions"] = canonical_table("decisions", _table("decisions", decided))
    return {name: tables[name] for name in SCHEMA if name in tables}


def _decided(decision: Decision) -> dict[str, Any]:
    """A stored decision as a row: what was answered, and how likely that was."""
    record, made = decision.record, decision.record["decision"]
    return {
        "score_id": decision.score_id,
        "refund_id": decision.refund_id,
        "known_at": decision.decided_at,
        **{name: made[name] for name in _DECIDED},
        "probability": record["probability"],
        "model_version": record["model_version"],
    }


def _originals(store: Store, connection: Connection) -> dict[tuple[str, str], str]:
    columns = (identifiers.c.kind, identifiers.c.mac, identifiers.c.ciphertext)
    reveal = store.identifiers.reveal
    return {
        (kind, mac): reveal(kind, mac, sealed)
        for kind, mac, sealed in connection.execute(select(*columns))
    }


def _take_out(
    event: type[Event],
    payload: dict[str, Any],
    originals: Mapping[tuple[str, str], str],
    rows: dict[str, list[dict[str, Any]]],
) -> None:
    """Add a stored event to the rows of its tables."""
    items = payload.pop("items", ())
    for column in KIND_OF_COLUMN.keys() & payload.keys():
        pseudonym = payload[column]
        payload[column] = originals.get((KIND_OF_COLUMN[column], pseudonym), pseudonym)
    rows.setdefault(event.table, []).append(payload)
    if items and event.item_table is not None:
        parent = SCHEMA[event.item_table][1].name
        head = {"event_id": payload["event_id"], parent: payload[parent]}
        rows.setdefault(event.item_table, []).extend({**head, **item} for item in items)


def _table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=arrow_schema(name))
