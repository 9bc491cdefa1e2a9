"""The tables that labels are made of, straight from a store: five kinds of event, no identifiers.

`serving.store.transfer.export` gives a store as the data folder it came from; labels need a tenth
of that and no person's name, and a store of millions of decisions should not wait for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson
import pyarrow as pa
from sqlalchemy import func, select

from features.events import EVENTS
from features.tables import Tables, arrow_schema
from serving.store.schema import decisions, events
from serving.store.store import Store

_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "refund_request": ("refund_id", "customer_id", "order_id", "ignore"),
    "refund_outcome": ("refund_id", "status"),
    "transaction": ("refund_id", "kind", "success"),
    "dispute": ("dispute_id", "order_id", "stage"),
    "label": ("refund_id", "customer_id", "label", "source"),
}
"""What `training.labels` and `training.propensity` read of each kind of event."""

_BATCH: Final = 10_000
_NEVER_MS: Final = 2**62


def label_tables(store: Store, until: int | None = None) -> Tables:
    """What labels rest on, of the events known before ``until`` (epoch ms; None: all).

    Identifiers of persons stay pseudonyms, which label refunds as well. Rows are in canonical
    order; there is a table for each kind, with or without rows.
    """
    names = {kind: ("known_at", "event_id", *columns) for kind, columns in _COLUMNS.items()}
    found: dict[str, list[list[Any]]] = {kind: [[] for _ in names[kind]] for kind in names}
    for kind, known_at, event_id, text in _events(store, until):
        told = orjson.loads(text)
        values = (known_at, event_id, *map(told.get, _COLUMNS[kind]))
        for column, value in zip(found[kind], values, strict=True):
            column.append(value)
    return {EVENTS[kind].table: _table(kind, names[kind], found[kind]) for kind in names}


def _events(store: Store, until: int | None) -> Iterator[Any]:
    """What labels rest on, in order of arrival: kind, known_at, event_id, payload."""
    columns = (events.c.event_type, events.c.known_at, events.c.event_id, events.c.payload)
    wanted = select(*columns, events.c.seq).where(
        events.c.event_type.in_(_COLUMNS),
        events.c.known_at < (_NEVER_MS if until is None else until),
    )
    seq = 0
    while True:
        statement = wanted.where(events.c.seq > seq).order_by(events.c.seq).limit(_BATCH)
        with store.database.read() as connection:
            rows = connection.execute(statement).all()
        if not rows:
            return
        yield from (row[:4] for row in rows)
        seq = rows[-1][4]


def _table(kind: str, names: tuple[str, ...], columns: list[list[Any]]) -> pa.Table:
    schema = arrow_schema(EVENTS[kind].table)
    arrays = [
        pa.array(column, schema.field(name).type)
        for name, column in zip(names, columns, strict=True)
    ]
    table = pa.table(arrays, names=list(names))
    return table.sort_by([("known_at", "ascending"), ("event_id", "ascending")])


def end_of_store(store: Store) -> int:
    """The first instant (epoch ms) at which all that labels and decisions tell was known.

    Raises LookupError for a store that holds neither.
    """
    known = select(func.max(events.c.known_at)).where(events.c.event_type.in_(_COLUMNS))
    decided = select(func.max(decisions.c.decided_at))
    with store.database.read() as connection:
        latest: list[int | None] = [connection.execute(one).scalar() for one in (known, decided)]
    found = [at for at in latest if at is not None]
    if not found:
        raise LookupError("the store holds no refund request and no decision: expected some")
    return max(found) + 1
