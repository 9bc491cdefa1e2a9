"""The events that belong to some keys, as documents: for who explains a decision, not for who makes
one, as a decision reads them packed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.sql import ClauseElement

from serving.store.database import Database
from serving.store.indexing import SLICE_OF, StoredEvent
from serving.store.schema import event_keys, events
from serving.store.statements import OF_EVENT, Pairs


def belonging(
    database: Database, connection: Connection, keys: Mapping[str, str], pairs: Pairs, at: int,
    most: int,
) -> list[StoredEvent]:  # fmt: skip
    """Around an instant (epoch ms) the events of some keys, each once, by when they became known.

    ``keys`` maps a key to its value, a person's to the pseudonym. Of each pair of key and event
    type the latest ``most`` before ``at`` and the first ``most`` from then on, as the index has
    them: of orders and refunds the first versions. One statement, so one snapshot; it reads no more
    than that.
    """
    held = tuple(pair for pair in pairs if pair[0] in keys)
    statement = database.prepared(("belonging", held, most), lambda: _statement(held, most))
    found = database.run(connection, statement, statement.bind({**keys, "at": at}))
    stored = [StoredEvent(r[0], r[1], r[2], r[3], orjson.loads(r[4])) for r in found]
    return sorted(stored, key=lambda event: (event.known_at, event.seq))


def _statement(pairs: Pairs, most: int) -> ClauseElement:
    wanted = union_all(*(arm for pair in pairs for arm in _arms(pair, most)))
    return select(*(events.c[name] for name in OF_EVENT)).where(events.c.event_id.in_(wanted))


def _arms(pair: tuple[str, str], most: int) -> Iterator[Select[Any]]:
    """What is before the instant, and what from then on."""
    rows = event_keys.c
    at: ColumnElement[int] = bindparam("at")
    held = rows.slice == literal_column(str(SLICE_OF[pair])), rows.key_value == bindparam(pair[0])
    in_order = rows.known_at, rows.own_known_at, rows.event_id
    latest = (rows.known_at < at, [column.desc() for column in in_order])
    for is_wanted, order in (latest, (rows.known_at >= at, in_order)):
        part = select(rows.event_id).where(*held, is_wanted).order_by(*order)
        few = part.limit(literal_column(str(most))).subquery()
        yield select(few.c.event_id)
