"""What is kept around one decision: of its customer, its order, and of whoever shares with it.

For those who explain a decision, not for those who make one. Every statement is led by an index and
bounded, whatever a key holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    bindparam,
    func,
    literal_column,
    select,
    union_all,
)

from features.events import ENTITIES
from serving.store.database import Database
from serving.store.history import LONGEST_WINDOW_MS
from serving.store.holdings import in_parts
from serving.store.indexing import SLICE_OF, StoredEvent
from serving.store.schema import audit_log, decisions, event_keys, events
from serving.store.statements import OF_EVENT, is_word

MOST_COUNTED: Final = 10_000
"""Of a customer's events of one type, on either side of a decision, no more are counted."""

MOST_OF_KEY: Final = 1_000
"""Of what a key holds of one type, the latest so many: as features see it."""

MOST_VERSIONS: Final = 2_000
"""So many versions of requests are read at most."""

_MOST_DECIDED: Final = 500
_CUTOFF: Final[ColumnElement[int]] = bindparam("cutoff")
_OF_CUSTOMER: Final = (
    "order", "refund_request", "refund_outcome", "return", "dispute", "label",
)  # fmt: skip
_OF_ORDER: Final = ("order", "order_update", "transaction", "return", "dispute")
_OF_REFUND: Final = ("refund_request", "refund_outcome", "transaction", "return", "label")
_SHARED: Final = ENTITIES[1:]


class Around(NamedTuple):
    """Events on either side of a decision.

    ``named`` are about its order and refund; ``before`` and ``after`` are what else the customer
    has, each from the nearest to the decision on. ``unread_before`` and ``unread_after`` count what
    is on that side besides, of each type up to `MOST_COUNTED`.
    """

    before: list[StoredEvent]
    after: list[StoredEvent]
    named: list[StoredEvent]
    unread_before: int
    unread_after: int


class Answered(NamedTuple):
    """A decision as it was answered; ``event_id`` is that of the request."""

    score_id: str
    refund_id: str
    decided_at: int
    event_id: str
    data: Mapping[str, Any]


class Held(NamedTuple):
    """An event that a key holds, packed as `features.packed.LAYOUT` says."""

    kind: str
    event_type: str
    event_id: str
    known_at: int
    packed: bytes


# --- one customer ------------------------------------------------------------------------------


def events_around(
    database: Database, connection: Connection, keys: Mapping[str, str], cutoff: int,
    order_id: str | None, refund_id: str, event_id: str, most: int,
) -> Around:  # fmt: skip
    """What is known of a request's customer, order and refund on either side of its cutoff.

    ``keys`` are the request's pseudonyms and ``event_id`` its own event. Of each type that a
    customer has the latest ``most`` before the cutoff and the first ``most`` from it on; of the
    order and the refund the latest ``most`` of each type. Of disputes that name a payment method
    alone those of the request's are the customer's.
    """
    values = {
        "customer": keys.get("customer", ""), "payment_method": keys.get("payment_method", ""),
        "order": order_id or "", "refund": refund_id, "event": event_id, "cutoff": cutoff,
    }  # fmt: skip

    def rows_of(name: str, build: Callable[[], Any]) -> list[Any]:
        prepared = database.prepared((name, most), build)
        return database.run(connection, prepared, prepared.bind(values))

    named = [_stored(row) for row in rows_of("events_named", lambda: _named(most))]
    is_named = {event.event_id for event in named}
    sides: dict[str, list[StoredEvent]] = {"before": [], "after": []}
    met = dict.fromkeys(sides, 0)
    for side, kind, *row in rows_of("events_around", lambda: _of_customer(most)):
        event = _stored(row)
        if event.event_id in is_named:
            continue
        if kind == "customer":
            met[side] += 1
        if kind == "customer" or "payment_method_id" in event.payload:
            sides[side].append(event)
    counts = dict(rows_of("events_counted", lambda: _counted(most)))
    unread = {side: counts[side] - met[side] for side in sides}
    return Around(
        sorted(sides["before"], key=_in_time, reverse=True), sorted(sides["after"], key=_in_time),
        named, unread["before"], unread["after"],
    )  # fmt: skip


def _in_time(event: StoredEvent) -> tuple[int, int]:
    return event.known_at, event.seq


def _of_customer(most: int) -> Select[Any]:
    arms = [arm for each in _OF_CUSTOMER for arm in _sides("customer", each, most)]
    found = union_all(*arms, *_sides("payment_method", "dispute", most)).subquery().c
    return select(found.side, found.kind, *(events.c[name] for name in OF_EVENT)).join(
        events, events.c.event_id == found.event_id
    )


def _named(most: int) -> Select[Any]:
    return select(*(events.c[name] for name in OF_EVENT)).where(
        events.c.event_id.in_(_ids_named(most))
    )


def _ids_named(most: int) -> CompoundSelect[Any]:
    return union_all(
        *(_of("order", event_type, most) for event_type in _OF_ORDER),
        *(_of("refund", event_type, most) for event_type in _OF_REFUND),
        select(events.c.event_id).where(events.c.event_id == bindparam("event")),
    )


_IN_SLICE: Final = (event_keys.c.known_at, event_keys.c.own_known_at, event_keys.c.event_id)


def _sides(key: str, event_type: str, most: int) -> Iterator[Select[Any]]:
    """The ids of a key's events: the latest before the cutoff, and the first from it on."""
    held, cutoff = _held(key, event_type), _CUTOFF
    known_at = event_keys.c.known_at
    kind: ColumnElement[str] = literal_column(f"'{key}'").label("kind")

    def one(side: str) -> Select[Any]:
        named: ColumnElement[str] = literal_column(f"'{side}'").label("side")
        return select(named, kind, event_keys.c.event_id).where(*held)

    before = one("before").where(known_at < cutoff).order_by(*(c.desc() for c in _IN_SLICE))
    after = one("after").where(known_at >= cutoff).order_by(*_IN_SLICE)
    yield _bounded(before, most)
    yield _bounded(after, most)


def _of(key: str, event_type: str, most: int) -> Select[Any]:
    """The ids of the latest events of a type that name an order or a refund."""
    e = events.c
    named = select(e.event_id).where(
        e[f"{key}_id"] == bindparam(key), is_word(e.event_type, event_type)
    )
    if key == "order":  # one that names both is about the refund
        named = named.where(e.refund_id.is_(None))
    return _bounded(named.order_by(e.known_at.desc(), e.event_id.desc()), most)


def _counted(most: int) -> Any:
    """How many events the customer's slices hold on either side, without those of `_named`."""
    known_at, cutoff = event_keys.c.known_at, _CUTOFF
    sides = (("before", known_at < cutoff), ("after", known_at >= cutoff))
    one: ColumnElement[int] = literal_column("1").label("one")
    is_another = event_keys.c.event_id.not_in(_ids_named(most))
    arms: list[Any] = []
    for side, is_there in sides:
        rows = union_all(
            *(_bounded(select(one).where(*_held("customer", each), is_there, is_another),
                       MOST_COUNTED)
              for each in _OF_CUSTOMER)
        ).subquery()  # fmt: skip
        name: ColumnElement[str] = literal_column(f"'{side}'")
        arms.append(select(name, func.count()).select_from(rows))
    return union_all(*arms)


def _held(key: str, event_type: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    rows, number = event_keys.c, SLICE_OF[key, event_type]
    return rows.key_value == bindparam(key), rows.slice == literal_column(str(number))


def _bounded(statement: Select[Any], most: int) -> Select[Any]:
    """At most so many rows, as a part of a greater statement."""
    return select(statement.limit(literal_column(str(most))).subquery())


def versions_of(connection: Connection, refund_ids: Collection[str]) -> list[StoredEvent]:
    """Requests of these refunds, every version: the latest `MOST_VERSIONS`."""
    e = events.c
    statement = (
        select(*(e[name] for name in OF_EVENT))
        .where(e.event_type == "refund_request", e.refund_id.in_(sorted(refund_ids)))
        .order_by(e.known_at.desc(), e.event_id.desc())
        .limit(MOST_VERSIONS)
    )
    return [_stored(row) for row in connection.execute(statement)]


def answered(connection: Connection, refund_ids: Collection[str]) -> list[Answered]:
    """What was decided on these refunds, the latest 500, the last one first."""
    d = decisions.c
    statement = (
        select(d.score_id, d.refund_id, d.decided_at, d.record, d.response)
        .where(d.refund_id.in_(sorted(refund_ids)))
        .order_by(d.decided_at.desc(), d.score_id.desc())
        .limit(_MOST_DECIDED)
    )
    found = [
        Answered(score_id, refund_id, at, orjson.loads(record)["event_id"],
                 orjson.loads(response)["data"])
        for score_id, refund_id, at, record, response in connection.execute(statement)
    ]  # fmt: skip
    return _as_made(connection, found)


def _as_made(connection: Connection, found: list[Answered]) -> list[Answered]:
    """Decisions with those of one refund and instant as they were made: ids do not tell."""
    count = Counter((one.refund_id, one.decided_at) for one in found)
    tied = {refund_id for (refund_id, _), number in count.items() if number > 1}
    if not tied:
        return found
    place: dict[str, int] = {}
    for part in in_parts(sorted(f"refund:{refund_id}" for refund_id in tied)):
        statement = select(audit_log.c.seq, audit_log.c.content).where(
            audit_log.c.subject.in_(part), audit_log.c.action == "decided"
        )
        for seq, content in connection.execute(statement):
            place[orjson.loads(content)["score_id"]] = seq
    return sorted(found, key=lambda one: (one.decided_at, place.get(one.score_id, 0)), reverse=True)


# --- whoever shares with them ------------------------------------------------------------------


def shared_rows(
    database: Database, connection: Connection, keys: Mapping[str, str], cutoff: int,
    event_types: Sequence[str],
) -> list[Held]:  # fmt: skip
    """What the request's device, payment method, address, IP and e-mail hold, the latest first.

    Of each type the latest `MOST_OF_KEY` within the 365 days before the cutoff.
    """
    prepared = database.prepared(("shared_rows", tuple(event_types)), _shared_rows(event_types))
    values = {kind: keys.get(kind, "") for kind in _SHARED}
    window = {"cutoff": cutoff, "since": cutoff - LONGEST_WINDOW_MS}
    rows = database.run(connection, prepared, prepared.bind(values | window))
    return [Held(*_PAIR_OF[number], *row) for number, *row in rows]


_PAIR_OF: Final = {number: pair for pair, number in SLICE_OF.items()}


def _shared_rows(event_types: Sequence[str]) -> Callable[[], Any]:
    rows = event_keys.c
    columns = rows.slice, rows.event_id, rows.known_at, rows.packed

    def arm(kind: str, event_type: str) -> Select[Any]:
        is_within = rows.known_at >= bindparam("since"), rows.known_at < _CUTOFF
        held = select(*columns).where(*_held(kind, event_type), *is_within)
        return _bounded(held.order_by(*(c.desc() for c in _IN_SLICE)), MOST_OF_KEY)

    return lambda: union_all(*(arm(kind, each) for kind in _SHARED for each in event_types))


def payloads(connection: Connection, event_ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """The payloads of events by their ids."""
    found: dict[str, Mapping[str, Any]] = {}
    for part in in_parts(sorted(set(event_ids))):
        statement = select(events.c.event_id, events.c.payload).where(events.c.event_id.in_(part))
        for event_id, payload in connection.execute(statement):
            found[event_id] = orjson.loads(payload)
    return found


def latest_of_customer(
    database: Database, connection: Connection, customer: str, event_type: str, cutoff: int
) -> list[StoredEvent]:
    """The latest `MOST_OF_KEY` events of a type in a customer's history before a cutoff."""
    known_at = event_keys.c.known_at

    def build() -> Select[Any]:
        held = select(event_keys.c.event_id).where(
            *_held("customer", event_type), known_at < _CUTOFF
        )
        ids = _bounded(held.order_by(*(c.desc() for c in _IN_SLICE)), MOST_OF_KEY)
        return select(*(events.c[name] for name in OF_EVENT)).where(events.c.event_id.in_(ids))

    prepared = database.prepared(("latest_of_customer", event_type), build)
    values = {"customer": customer, "cutoff": cutoff}
    return [_stored(row) for row in database.run(connection, prepared, prepared.bind(values))]


def _stored(row: Sequence[Any]) -> StoredEvent:
    return StoredEvent(row[0], row[1], row[2], row[3], orjson.loads(row[4]))
