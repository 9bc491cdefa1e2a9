"""The tables that labels are made of, straight from a store: five kinds of event, no identifiers.

`serving.store.transfer.export` gives a store as the data folder it came from; labels need a tenth
of that and no person's name, and a store of millions of decisions should not wait for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson
import pyarrow as pa
from sqlalchemy import ColumnElement, bindparam, func, literal_column, select

from features.events import EVENTS
from features.tables import Tables, arrow_schema
from serving.store.schema import decisions, events
from serving.store.store import Store

_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "refund_outcome": ("refund_id", "status"),
    "transaction": ("refund_id", "kind", "success"),
    "dispute": ("dispute_id", "order_id", "stage"),
    "label": ("refund_id", "customer_id", "label", "source"),
}
"""What `training.labels` reads of each kind of event beside refund requests."""

_REQUEST: Final = ("refund_id", "order_id", "ignore", "customer_id")
_KINDS: Final = ("refund_request", *_COLUMNS)
_BATCH: Final = 10_000
_NEVER_MS: Final = 2**62
_IGNORED: Final = '%"ignore":true%'
"""How a payload says so: a quote within a JSON text is escaped, so this is the key and no text."""


def label_tables(store: Store, until: int | None = None) -> Tables:
    """What labels rest on, of the events known before ``until`` (epoch ms; None: all).

    Identifiers of persons stay pseudonyms, which label refunds as well; refund requests name their
    customers only where a label is one of a customer. Rows are in canonical order; there is a table
    for each kind, with or without rows.
    """
    end = _NEVER_MS if until is None else until
    tables = {kind: _table(kind, columns, _parsed(store, kind, columns, end))
              for kind, columns in _COLUMNS.items()}  # fmt: skip
    labels = tables["label"]["customer_id"]
    requests = _requests(store, end, name_customers=labels.null_count < len(labels))
    tables = {"refund_request": _table("refund_request", _REQUEST, requests), **tables}
    return {EVENTS[kind].table: table for kind, table in tables.items()}


def _parsed(
    store: Store, kind: str, names: tuple[str, ...], until: int
) -> Iterator[list[tuple[Any, ...]]]:
    """Events of one kind, in parts: known_at, event_id, and what their payloads have by name."""
    for batch in _batches(store, kind, until, events.c.payload):
        yield [
            (known_at, event_id, *map(orjson.loads(payload).get, names))
            for _, known_at, event_id, payload in batch
        ]


def _requests(store: Store, until: int, *, name_customers: bool) -> Iterator[list[tuple[Any, ...]]]:
    """Refund requests, in parts; their payloads, most of a store, are parsed only for customers."""
    columns = (events.c.refund_id, events.c.order_id, events.c.payload.like(_IGNORED))
    if not name_customers:
        for batch in _batches(store, "refund_request", until, *columns):
            yield [(*row[1:5], bool(row[5]), None) for row in batch]
        return
    for batch in _batches(store, "refund_request", until, *columns, events.c.payload):
        yield [(*row[1:5], bool(row[5]), orjson.loads(row[6])["customer_id"]) for row in batch]


def _batches(
    store: Store, kind: str, until: int, *columns: ColumnElement[Any]
) -> Iterator[list[tuple[Any, ...]]]:
    """Events of one kind in order of arrival: seq, known_at, event_id, and the columns given."""
    prepared = store.database.prepared(
        ("events_for_labels", kind, len(columns)),
        lambda: (
            select(events.c.seq, events.c.known_at, events.c.event_id, *columns)
            .where(
                events.c.event_type == bindparam("kind"),
                events.c.seq > bindparam("after"),
                events.c.known_at < bindparam("until"),
            )
            .order_by(events.c.seq)
            .limit(literal_column(str(_BATCH)))
        ),
    )
    values = {"kind": kind, "after": 0, "until": until}
    with store.database.read() as connection:
        while rows := store.database.run(connection, prepared, prepared.bind(values)):
            yield rows
            values["after"] = rows[-1][0]


def _table(
    kind: str, columns: tuple[str, ...], batches: Iterable[list[tuple[Any, ...]]]
) -> pa.Table:
    schema = arrow_schema(EVENTS[kind].table)
    names = ("known_at", "event_id", *columns)
    parts = [
        pa.table(
            [pa.array(column, schema.field(name).type)
             for name, column in zip(names, zip(*batch, strict=True), strict=True)],
            names=list(names),
        )
        for batch in batches
    ]  # fmt: skip
    empty = pa.schema([schema.field(name) for name in names]).empty_table()
    table = pa.concat_tables([empty.select(list(names)), *parts]) if parts else empty
    return table.sort_by([("known_at", "ascending"), ("event_id", "ascending")])


def end_of_store(store: Store) -> int:
    """The first instant (epoch ms) at which all that labels and decisions tell was known.

    Raises LookupError for a store that holds neither.
    """
    known = select(func.max(events.c.known_at)).where(events.c.event_type.in_(_KINDS))
    decided = select(func.max(decisions.c.decided_at))
    with store.database.read() as connection:
        latest: list[int | None] = [connection.execute(one).scalar() for one in (known, decided)]
    found = [at for at in latest if at is not None]
    if not found:
        raise LookupError("the store holds no refund request and no decision: expected some")
    return max(found) + 1
