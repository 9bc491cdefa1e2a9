"""The statements by which history is read, each built once.

What a decision reads is one statement, and so one snapshot; none reads more than it gives, or more
than a bound. Only ids and times are parameters: words and numbers of our own stand in the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    CTE,
    ColumnElement,
    LargeBinary,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    exists,
    func,
    literal_column,
    select,
    union_all,
    values,
)
from sqlalchemy import null as sql_null
from sqlalchemy.sql import ClauseElement, FromClause

from features.documents import MAX_EVENTS
from features.events import ENTITIES, EVENTS, KEYS
from serving.store.database import Database, padded_size
from serving.store.indexing import NAMING_COLUMN, SLICE_OF
from serving.store.schema import entities, event_keys, events, identifiers

MOST_ROWS: Final = 1_001
"""Of each slice: what a window holds at most, and one more, for the request that is left out."""

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""Pairs of key and event type."""

Builder: TypeAlias = Callable[[int], ClauseElement]
"""Builds a statement for a list of ids of a given length."""

OF_EVENT: Final = ("seq", "event_id", "event_type", "known_at", "payload")
"""The columns of a stored event."""


def names_there(size: int) -> ClauseElement:
    """Which of so many ids any event bears: as that of an order, and as that of a refund."""
    ids = [(bindparam(f"id{i}", type_=Text),) for i in range(size)]
    wanted = values(column("id", Text), name="wanted").data(ids).cte("wanted")
    return union_all(
        *(
            select(_word(kind), wanted.c.id).where(
                exists(literal_column("1")).where(events.c[naming] == wanted.c.id)
            )
            for kind, naming in NAMING_COLUMN.items()
        )
    )


def unknown_identifiers(size: int) -> ClauseElement:
    """Which of so many (kind, pseudonym) have no original stored."""
    pairs = [tuple(bindparam(f"{name}{i}", type_=Text) for name in ("kind", "mac"))
             for i in range(size)]  # fmt: skip
    columns = column("kind", Text), column("mac", Text)
    wanted, i = values(*columns, name="wanted").data(pairs).cte("wanted"), identifiers.c
    is_stored = exists(literal_column("1")).where(i.kind == wanted.c.kind, i.mac == wanted.c.mac)
    return select(wanted.c.kind, wanted.c.mac).where(~is_stored)


def first_versions(kind: str) -> Builder:
    """The versions of orders or refunds that were known first."""
    named = events.c[NAMING_COLUMN[kind]]

    def build(size: int) -> ClauseElement:
        are_versions = is_word(events.c.event_type, kind), is_one_of(named, size)
        in_order = events.c.known_at, events.c.event_id
        if size == 1:
            one = select(*(events.c[c] for c in OF_EVENT)).where(*are_versions)
            # Else SQLAlchemy gives SQLite an offset as one more parameter.
            return one.order_by(*in_order).limit(_number(1)).offset(_number(0))
        place = func.row_number().over(partition_by=named, order_by=in_order)
        versions = select(events.c.seq, place.label("place")).where(*are_versions).subquery()
        first = select(versions.c.seq).where(versions.c.place == literal_column("1"))
        return select(*(events.c[c] for c in OF_EVENT)).where(events.c.seq.in_(first))

    return build


def latest_versions(size: int) -> ClauseElement:
    """Of so many refunds the id, and the event's, of the version that was known last."""
    e = events.c
    place = func.row_number().over(
        partition_by=e.refund_id, order_by=(e.known_at.desc(), e.event_id.desc())
    )
    versions = (
        select(e.refund_id, e.event_id, place.label("place"))
        .where(is_word(e.event_type, "refund_request"), is_one_of(e.refund_id, size))
        .subquery()
    )
    found = select(versions.c.refund_id, versions.c.event_id)
    return found.where(versions.c.place == literal_column("1"))


def events_about(kind: str) -> Builder:
    """The events that name orders or refunds; one that names both is about the refund."""
    named = events.c[NAMING_COLUMN[kind]]

    def build(size: int) -> ClauseElement:
        about = select(*(events.c[c] for c in OF_EVENT)).where(
            is_one_of(named, size), events.c.event_type.not_in(_words(NAMING_COLUMN))
        )
        if kind == "order":
            about = about.where(events.c.refund_id.is_(None))
        return about.order_by(events.c.seq)

    return build


def _word(value: str) -> Any:
    """A word of our own vocabulary as it stands: only ids are parameters."""
    return literal_column(f"'{value}'")


def _number(value: int) -> ColumnElement[Any]:
    """A number of our own as it stands."""
    return literal_column(str(value))


def _words(values: Iterable[str]) -> list[Any]:
    return [_word(value) for value in values]


def is_word(column: Any, value: str) -> Any:
    """Whether a column holds a word of our own vocabulary."""
    return column == _word(value)


def is_one_of(column: Any, count: int) -> Any:
    """Whether a column holds one of the parameters ``id0``, ``id1``, …: of so many, padded."""
    return column.in_([bindparam(f"id{i}") for i in range(padded_size(count))])


def reading(database: Database, pairs: Pairs, *, crowded: bool = False) -> ClauseElement:
    """One statement for all that a decision reads: arms told apart by a slot number.

    Columns: slot; packed events; a note. The slot of what a key holds is its place in `KEYS`, its
    events are joined slice by slice, and the note says of each row of which event type it is: its
    place in `EVENTS` as a digit, or `OUTSIDE`. Any other arm has a note alone.

    Slices of a key lie side by side and are read in one go, for to look for each takes longer than
    to read it. A key with more events than a slice may have, however old, is crowded: so many of
    its events are read, which its note shows, and all slices are to be read one by one.
    """
    for key, event_type in pairs:
        if (key, event_type) not in SLICE_OF:
            raise ValueError(f"read ({key!r}, {event_type!r}): expected a key and an event type")
    arms: list[Select[Any]] = []
    if crowded:
        arms += [_slice(database, *pair) for pair in pairs]
    else:
        arms += [_slices_of(database, kind) for kind in dict.fromkeys(key for key, _ in pairs)]
    arms += [_entity(ENTITY + place, kind) for place, kind in enumerate(KEYS) if kind in ENTITIES]
    arms.append(_arm(SNAPSHOT, database.snapshot(events.c.seq)))
    return union_all(*arms)


ENTITY: Final = 1_000
SNAPSHOT: Final = 2_000
"""Where the slots of `reading` begin that are no key's: each entity's, by its place in `KEYS`, when
it was first seen, how often and how far its history moved; the highest sequence number, with more
on PostgreSQL."""

OUTSIDE: Final = 9
"""Stands for the event type of what is outside the window."""

assert len(EVENTS) <= OUTSIDE


def _slices_of(database: Database, kind: str) -> Select[Any]:
    """All slices of a key, as long as it is not crowded."""
    numbers = [number for (key, _), number in SLICE_OF.items() if key == kind]
    first, last = _number(min(numbers)), _number(max(numbers))
    rows = event_keys.c
    # An order's id may be that of a refund, too.
    held = rows.key_value == bindparam(kind), rows.slice >= first, rows.slice <= last
    place = case((and_(*_in_window()), rows.slice - first), else_=_number(OUTSIDE))
    order = rows.slice, *_IN_SLICE
    found = (
        select(rows.packed, place.label("place"), *order)
        .where(*held)
        .order_by(*order)
        .limit(_number(MOST_ROWS + 1))
    )
    return _joined(database, kind, found)


def _slice(database: Database, key: str, event_type: str) -> Select[Any]:
    """The latest events of one slice."""
    number = SLICE_OF[key, event_type]
    place = _number(list(EVENTS).index(event_type)).label("place")
    rows = event_keys.c
    latest = (
        select(rows.packed, place, rows.slice, *_IN_SLICE)
        .where(rows.slice == _number(number), rows.key_value == bindparam(key), *_in_window())
        .order_by(*(column.desc() for column in _IN_SLICE))
        .limit(_number(MOST_ROWS))
        .subquery()
    )
    return _joined(database, key, select(latest).order_by(*(latest.c[c.name] for c in _IN_SLICE)))


_IN_SLICE: Final = (event_keys.c.known_at, event_keys.c.own_known_at, event_keys.c.event_id)
"""The order of a slice, the oldest event first."""


def _joined(database: Database, kind: str, rows: Select[Any]) -> Select[Any]:
    """An arm of what a key holds."""
    c = rows.subquery().c
    is_inside = c.place < _number(OUTSIDE)
    order = c.slice, *(c[column.name] for column in _IN_SLICE)
    packed = database.joined(c.packed, *order, where=is_inside)
    return select(_number(KEYS.index(kind)), packed, database.digits(c.place))


def _in_window() -> tuple[ColumnElement[bool], ...]:
    known_at = event_keys.c.known_at
    return known_at >= bindparam("since"), known_at < bindparam("cutoff")


def _arm(slot: int, note: Any) -> Select[Any]:
    """An arm that is no slice."""
    return select(literal_column(str(slot)), cast(sql_null(), LargeBinary), note)


def _entity(slot: int, kind: str) -> Select[Any]:
    note: ColumnElement[str] = cast(entities.c.first_seen, Text)
    for added in (entities.c.moved, entities.c.latest):
        note = note + " " + cast(added, Text)
    return _arm(slot, note).where(
        is_word(entities.c.kind, kind), entities.c.value == bindparam(kind)
    )


def order_documents(*, crowded: bool = False) -> ClauseElement:
    """Event types and payloads of all that is told of an order.

    No more events than the ledger looks at, and one, of what names the order, and of the outcomes
    and transactions of its refunds; without a payload what is among both. Where there are more, it
    is to be read as ``crowded``: an arm for each type, of which none reads more than it gives.
    """
    return _crowded_documents() if crowded else _all_documents()


def _all_documents() -> ClauseElement:
    e, of_order = events.c, events.c.order_id == bindparam("order")
    asked = (
        select(e.refund_id)
        .where(is_word(e.event_type, "refund_request"), of_order)
        .limit(_MOST_OF_ORDER)
        .subquery()
    )
    refunds = select(asked.c.refund_id).union_all(select(bindparam("refund", type_=Text)))
    is_wanted = e.event_type.in_(_words(("refund_outcome", "transaction")))
    found = select(e.event_type, e.payload, e.order_id).limit(_MOST_OF_ORDER)
    own = found.where(of_order).subquery().c
    of_its = found.where(is_wanted, e.refund_id.in_(refunds)).subquery().c
    return union_all(
        select(own.event_type, own.payload),
        select(of_its.event_type, case((of_its.order_id.is_(None), of_its.payload))),
    )


def _crowded_documents() -> ClauseElement:
    e = events.c
    cutoff: ColumnElement[int] = bindparam("cutoff")
    of_order, seen = e.order_id == bindparam("order"), e.known_at <= cutoff
    asked = (
        select(e.refund_id)
        .where(is_word(e.event_type, "refund_request"), of_order, e.known_at < cutoff)
        .group_by(e.refund_id)
        .limit(_MOST_OF_ORDER)
        .cte("asked")
    )
    refunds = (
        select(asked.c.refund_id).union(select(bindparam("refund", type_=Text))).cte("refunds")
    )
    of_refund = e.refund_id.in_(select(refunds.c.refund_id))
    arms = [
        select(e.event_type, e.payload).where(e.seq.in_(union_all(*_versions(asked)))),
        _some_of("refund_outcome", of_refund, e.known_at < cutoff),
        _some_of("transaction", of_refund, e.order_id.is_(None), seen),
        _some_of("transaction", of_order, seen),
        _some_of("order_update", of_order, seen),
        _some_of("order", of_order, seen, first=True),
    ]
    return union_all(*arms)


_MOST_OF_ORDER: Final[ColumnElement[Any]] = literal_column(str(MAX_EVENTS + 1))
"""One more than the ledger looks at, so that it sees that there are more."""


def _versions(asked: CTE) -> Iterator[Select[Any]]:
    """Of each refund the versions that count: the first, the last, and that of its outcome."""
    version, outcome = events.alias("version"), events.alias("outcome")
    cutoff: ColumnElement[int] = bindparam("cutoff")
    own = (
        is_word(version.c.event_type, "refund_request"),
        version.c.refund_id == asked.c.refund_id,
        version.c.order_id == bindparam("order"),
    )
    settled_at = (
        select(func.max(outcome.c.known_at))
        .where(is_word(outcome.c.event_type, "refund_outcome"), outcome.c.known_at < cutoff,
               outcome.c.refund_id == asked.c.refund_id)
        .correlate(asked)
        .scalar_subquery()
    )  # fmt: skip
    yield _one_each(asked, version, *own, version.c.known_at < cutoff, first=True)
    yield _one_each(asked, version, *own, version.c.known_at < cutoff)
    yield _one_each(asked, version, *own, version.c.known_at <= settled_at)


def _one_each(
    of: CTE, among: FromClause, *wanted: ColumnElement[bool], first: bool = False
) -> Select[Any]:
    """For each refund the number of its first or latest event of a kind."""
    one = (
        select(among.c.seq)
        .where(*wanted)
        .order_by(*_by_time(among.c, first=first))
        .limit(literal_column("1"))
        .correlate(of)
        .scalar_subquery()
    )
    return select(one).select_from(of)


def _some_of(event_type: str, *wanted: ColumnElement[bool], first: bool = False) -> Select[Any]:
    """The first or the latest events of a type, one more than the ledger looks at."""
    found = (
        select(events.c.event_type, events.c.payload)
        .where(is_word(events.c.event_type, event_type), *wanted)
        .order_by(*_by_time(events.c, first=first))
        .limit(_MOST_OF_ORDER)
        .subquery()
    )
    return select(found.c.event_type, found.c.payload)


def _by_time(columns: Any, *, first: bool) -> tuple[Any, ...]:
    order = (columns.known_at, columns.event_id)
    return order if first else tuple(column.desc() for column in order)
