"""Pseudonyms replaced by others: in events, in what is derived from them, and in decisions.

Only names change. Whatever counted under the old ones counts under the new ones, so each feature of
each request is what it was.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson
from sqlalchemy import Connection, Table, bindparam, delete, select, update

from features.events import VOCABULARY
from serving.store.database import Database
from serving.store.holdings import Person, in_parts
from serving.store.identifiers import KIND_OF_COLUMN
from serving.store.indexing import NAMING_COLUMN, KeyRow, Name, StoredEvent, rows_of
from serving.store.schema import (
    entities,
    event_keys,
    events,
    refunds,
    review_acts,
    review_approvals,
    reviews,
)

Renames: TypeAlias = Mapping[Person, str]
"""The new pseudonym of each that is replaced."""

ERASED: Final = "ERASED"
"""Stands where free text stood: no value of any list, as what stood there."""

FORMER: Final = "former:"
"""Begins the kind of an identifier whose pseudonym comes from an earlier secret: what was audited
under it cannot be changed, and is to be read all the same."""


def random_pseudonym() -> str:
    """A pseudonym of nobody: 128 random bits in the form of one that is made from an identifier.

    >>> len(random_pseudonym()), random_pseudonym() == random_pseudonym()
    (22, False)
    """
    return base64.urlsafe_b64encode(os.urandom(16))[:22].decode()


def renamed(payload: Mapping[str, Any], new: Renames) -> dict[str, Any]:
    """An event's payload under new pseudonyms.

    >>> renamed({"customer_id": "a", "ip": "b", "order_id": "a"}, {("customer", "a"): "z"})
    {'customer_id': 'z', 'ip': 'b', 'order_id': 'a'}
    """
    return {
        column: new.get((kind, value), value) if (kind := KIND_OF_COLUMN.get(column)) else value
        for column, value in payload.items()
    }


def without_free_text(event_type: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """A payload in which every word that no list knows, and every reason of a dispute, is gone.

    What counts words counts those outside its list as one, so it counts as before.

    >>> without_free_text("refund_request", {"reason": "EMPTY_BOX", "claim": "ASK ANN LEE"})
    {'reason': 'EMPTY_BOX', 'claim': 'ERASED'}
    """
    kept = {column: _known_word(event_type, column, value) for column, value in payload.items()}
    if "items" in kept:
        kept["items"] = [
            {column: _known_word(event_type, column, value) for column, value in item.items()}
            for item in kept["items"]
        ]
    return kept


def _known_word(event_type: str, column: str, value: Any) -> Any:
    listed = VOCABULARY.get(column)
    if event_type == "dispute" and column == "reason":
        return ERASED
    return ERASED if listed and isinstance(value, str) and value not in listed else value


# --- events ------------------------------------------------------------------------------------


Change: TypeAlias = Callable[[StoredEvent], StoredEvent]


def change_events(
    database: Database, connection: Connection, seqs: Sequence[int], change: Change
) -> dict[str, int]:
    """Change events by their numbers, and their rows in the index; returns how many of each.

    ``seqs`` must hold every event that names a changed order or refund: it inherits.
    """
    before = _events(connection, events.c.seq, seqs)
    after = [change(event) for event in before]
    first = _first_versions(connection, before)
    changed = {event.seq: event for event in after}
    rows = _rows(before, first)
    rows_now = _rows(after, {name: changed.get(e.seq, e) for name, e in first.items()})
    different = [new for old, new in zip(before, after, strict=True) if new != old]
    for event in different:
        connection.execute(
            update(events).where(events.c.seq == event.seq).values(
                event_id=event.event_id, payload=orjson.dumps(event.payload).decode()
            )
        )  # fmt: skip
    gone, come = sorted(rows - rows_now), sorted(rows_now - rows)
    if gone:
        columns = KeyRow._fields[:-1]
        statement = delete(event_keys).where(
            *(event_keys.c[name] == bindparam(f"old_{name}") for name in columns)
        )
        named = [{f"old_{name}": getattr(row, name) for name in columns} for row in gone]
        connection.execute(statement, named)
    if come:
        inserting = database.inserting(event_keys, KeyRow._fields, "replace")
        database.run_many(connection, inserting, come)
    return {"events": len(different), "event_keys": len(come)}


def _rows(of: Iterable[StoredEvent], first: Mapping[Name, StoredEvent]) -> set[KeyRow]:
    return {row for event in of for row in rows_of(event, first)}


def _first_versions(connection: Connection, of: Iterable[StoredEvent]) -> dict[Name, StoredEvent]:
    """The first versions of the orders and refunds that events are or name."""
    names = {name for event in of for name in (event.own_name(), event.names()) if name}
    first: dict[Name, StoredEvent] = {}
    for kind, column in NAMING_COLUMN.items():
        ids = sorted(name.value for name in names if name.kind == kind)
        for version in _events(connection, events.c[column], ids, kind):
            name = Name(kind, version.payload[column])
            if name not in first or version.is_before(first[name]):
                first[name] = version
    return first


def _events(
    connection: Connection, column: Any, values: Sequence[Any], event_type: str | None = None
) -> list[StoredEvent]:
    e = events.c
    found = []
    for part in in_parts(values):
        statement = select(e.seq, e.event_id, e.event_type, e.known_at, e.payload).where(
            column.in_(part)
        )
        if event_type is not None:
            statement = statement.where(e.event_type == event_type)
        rows = connection.execute(statement.order_by(e.seq)).fetchall()
        found += [StoredEvent(r[0], r[1], r[2], r[3], orjson.loads(r[4])) for r in rows]
    return found


def random_event_id() -> str:
    """An event id that follows from nothing, in the form of a derived one."""
    return hashlib.blake2b(os.urandom(32), digest_size=16).hexdigest()


# --- what else names persons -------------------------------------------------------------------


def rename_entities(connection: Connection, new: Renames) -> int:
    """When entities were first seen, under new pseudonyms; returns of how many."""
    count = 0
    for (kind, old), name in sorted(new.items()):
        is_it = (entities.c.kind == kind) & (entities.c.value == old)
        count += connection.execute(update(entities).where(is_it).values(value=name)).rowcount
    return count


def rename_refunds(
    connection: Connection, new: Renames, refund_ids: Sequence[str], table: Table = refunds
) -> int:
    """The customers of refunds, or of their reviews, under new pseudonyms; returns of how many."""
    count = 0
    for (kind, old), name in sorted(new.items()):
        if kind != "customer":
            continue
        for part in in_parts(refund_ids):
            is_it = table.c.refund_id.in_(part) & (table.c.customer == old)
            count += connection.execute(update(table).where(is_it).values(customer=name)).rowcount
    return count


def unsay_justifications(connection: Connection, refund_ids: Sequence[str]) -> int:
    """What people wrote about reviews of refunds is forgotten; returns of how many acts.

    A proposal's justification is its act's, kept with it once more.
    """
    said = review_acts.c.justification.is_not(None)
    for part in in_parts(refund_ids):
        theirs = select(reviews.c.score_id).where(reviews.c.refund_id.in_(part))
        connection.execute(
            update(review_approvals)
            .where(review_approvals.c.score_id.in_(theirs))
            .values(justification=ERASED)
        )
    return sum(
        connection.execute(
            update(review_acts)
            .where(review_acts.c.refund_id.in_(part), said)
            .values(justification=ERASED)
        ).rowcount
        for part in in_parts(refund_ids)
    )
