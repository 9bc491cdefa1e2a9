"""What an id leads to, and what is kept of one customer or of one thing that customers use.

For people who look something up. Every statement is led by an index and bounded: of what there is
more of, the latest is read, and the one more that tells that there is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Connection, Select, and_, select, union_all

from features.events import ENTITIES, EVENTS
from serving.store.holdings import Person, in_parts
from serving.store.indexing import SLICE_OF, StoredEvent
from serving.store.lists import ListEntry
from serving.store.reviews import Act
from serving.store.schema import (
    attachments,
    decisions,
    entities,
    event_keys,
    events,
    lists,
    refunds,
    review_acts,
    reviews,
)
from serving.store.statements import OF_EVENT

MOST_HELD: Final = 10_000
"""Of a customer's events of one type the latest so many are looked at."""

OF_CUSTOMER: Final = (
    "order", "refund_request", "refund_outcome", "return", "dispute", "label",
)  # fmt: skip
"""The types of events that stand in a customer's history."""

_PAST_ANY: Final = "\U0010ffff"
_BY_ORDER: Final = ("order", "refund_request")


class FoundRefund(NamedTuple):
    """Where a refund stands: amounts in minor units of its currency, times epoch ms.

    Who and how much are None for one that only reports named. ``at`` is when it was asked for, or
    where that is not known, when its state was reached. ``is_open`` tells of a review that waits.
    """

    refund_id: str
    state: str
    at: int
    customer: str | None
    order_id: str | None
    payable_minor: int | None
    currency: str | None
    score_id: str | None
    is_open: bool


class Row(NamedTuple):
    """An event in the index of a key, and from when it counts there."""

    event_type: str
    known_at: int
    event_id: str
    packed: bytes


class Naming(NamedTuple):
    """An event that names an order or a refund."""

    event_id: str
    event_type: str
    known_at: int
    order_id: str | None
    refund_id: str | None


class Attached(NamedTuple):
    """That a file was attached to a refund's case."""

    id: str
    refund_id: str
    name: str
    author: str
    added_at: int


class Answer(NamedTuple):
    """What was answered to a request; ``data`` is the answer's."""

    score_id: str
    refund_id: str
    decided_at: int
    data: Mapping[str, Any]


# --- by an id ------------------------------------------------------------------------------------


def refunds_like(connection: Connection, beginning: str, limit: int) -> list[str]:
    """The ids of refunds that begin so, in their order."""
    own = refunds.c.refund_id
    found = select(own).where(own >= beginning, own < beginning + _PAST_ANY)
    return list(connection.execute(found.order_by(own).limit(limit)).scalars())


def orders_like(connection: Connection, beginning: str, limit: int) -> list[str]:
    """The ids of orders that begin so, in their order: those that any event names."""
    own = events.c.order_id
    found = select(own).distinct().where(own >= beginning, own < beginning + _PAST_ANY)
    return list(connection.execute(found.order_by(own).limit(limit)).scalars())


def refunds_of_orders(
    connection: Connection, order_ids: Collection[str], limit: int
) -> list[str]:  # fmt: skip
    """The ids of refunds of these orders, as many as ``limit``."""
    found = select(refunds.c.refund_id).where(refunds.c.order_id.in_(sorted(order_ids)))
    return list(connection.execute(found.order_by(refunds.c.refund_id).limit(limit)).scalars())


def customers_of_orders(
    connection: Connection, order_ids: Collection[str]
) -> dict[str, str | None]:  # fmt: skip
    """Who placed these orders, by the first version; None of one that others only name."""
    e = events.c
    known = select(e.order_id).distinct().where(e.order_id.in_(sorted(order_ids)))
    placed = (
        select(e.order_id, e.payload)
        .where(e.order_id.in_(sorted(order_ids)), e.event_type == "order")
        .order_by(e.known_at.desc(), e.event_id.desc())
    )
    found: dict[str, str | None] = dict.fromkeys(connection.execute(known).scalars())
    for order_id, payload in connection.execute(placed):
        found[order_id] = orjson.loads(payload)["customer_id"]
    return found


def decided_on(connection: Connection, score_id: str) -> str | None:
    """The refund that a decision is about, by the decision's id."""
    found = select(decisions.c.refund_id).where(decisions.c.score_id == score_id)
    return connection.execute(found).scalar()


def persons_there(connection: Connection, persons: Iterable[Person]) -> list[Person]:
    """Which of these pseudonyms (kind, pseudonym) any event bore, or a list holds."""
    wanted = sorted(set(persons))
    values = sorted({value for _, value in wanted})
    met = select(entities.c.kind, entities.c.value).where(
        entities.c.kind.in_(ENTITIES), entities.c.value.in_(values)
    )
    listed = select(lists.c.entity, lists.c.value).where(lists.c.value.in_(values))
    there = {tuple(row) for each in (met, listed) for row in connection.execute(each)}
    return [person for person in wanted if person in there]


def found_refunds(connection: Connection, refund_ids: Collection[str]) -> list[FoundRefund]:
    """Where these refunds stand, those that there are, the latest first."""
    found: list[FoundRefund] = []
    for part in in_parts(sorted(set(refund_ids))):
        rows = connection.execute(_refunds().where(refunds.c.refund_id.in_(part))).fetchall()
        found += map(_refund, rows)
    return sorted(found, key=lambda one: (one.at, one.refund_id), reverse=True)


def _refunds(*beside: Any) -> Select[Any]:
    r = refunds.c
    is_its = and_(reviews.c.refund_id == r.refund_id, reviews.c.closed_at.is_(None))
    return select(
        r.refund_id, r.state, r.state_at, r.first_known_at, r.customer, r.order_id,
        r.payable_minor, r.currency, r.score_id, reviews.c.score_id, *beside,
    ).select_from(refunds.outerjoin(reviews, is_its))  # fmt: skip


def _refund(row: Sequence[Any]) -> FoundRefund:
    refund_id, state, state_at, asked_at, *rest, score_id, open_review = row
    at = state_at if asked_at is None else asked_at
    return FoundRefund._make((refund_id, state, at, *rest, score_id, open_review is not None))


# --- by a key ------------------------------------------------------------------------------------


def held_by(
    connection: Connection, kind: str, value: str, event_types: Sequence[str],
    most: int = MOST_HELD,
) -> list[Row]:  # fmt: skip
    """What a key's index holds of these types, of each the latest ``most``, the latest first."""
    rows = event_keys.c
    arms = []
    for event_type in event_types:
        number = SLICE_OF[kind, event_type]
        held = (
            select(rows.slice, rows.known_at, rows.event_id, rows.packed)
            .where(rows.key_value == value, rows.slice == number)
            .order_by(rows.known_at.desc(), rows.own_known_at.desc(), rows.event_id.desc())
            .limit(most)
        )
        arms.append(select(held.subquery()))
    found = connection.execute(union_all(*arms)).fetchall()  # at once: in a third of the time
    return [Row(_TYPE_OF[number], at, event_id, packed) for number, at, event_id, packed in found]


_TYPE_OF: Final = {
    number: event_type for (_, event_type), number in SLICE_OF.items() if event_type in EVENTS
}


def events_of(connection: Connection, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
    """Events by their ids."""
    found: dict[str, StoredEvent] = {}
    for part in in_parts(sorted(set(event_ids))):
        statement = select(*(events.c[name] for name in OF_EVENT)).where(
            events.c.event_id.in_(part)
        )
        for seq, event_id, event_type, known_at, payload in connection.execute(statement):
            found[event_id] = StoredEvent(seq, event_id, event_type, known_at,
                                          orjson.loads(payload))  # fmt: skip
    return found


def names_in(connection: Connection, event_ids: Sequence[str]) -> dict[str, Naming]:
    """Which order and refund events name, by the ids of the events."""
    return {
        one.event_id: one
        for part in in_parts(event_ids)
        for one in _naming(connection, events.c.event_id.in_(part))
    }


def naming(
    connection: Connection, order_ids: Collection[str], refund_ids: Collection[str]
) -> Iterator[Naming]:
    """Every event that names one of these orders, or one of these refunds."""
    for column, ids in (("order_id", order_ids), ("refund_id", refund_ids)):
        for part in in_parts(sorted(ids)):
            yield from _naming(connection, events.c[column].in_(part))


def _naming(connection: Connection, which: Any) -> Iterator[Naming]:
    columns = (events.c[name] for name in Naming._fields)
    return map(Naming._make, connection.execute(select(*columns).where(which)).fetchall())


def first_seen(connection: Connection, kind: str, value: str) -> int | None:
    """When an entity was first seen (epoch ms)."""
    found = select(entities.c.first_seen).where(entities.c.kind == kind, entities.c.value == value)
    return connection.execute(found).scalar()


def listed(connection: Connection, pseudonyms: Collection[str]) -> list[ListEntry]:
    """The entries of the lists about these pseudonyms, expired ones too, the newest first."""
    found: list[ListEntry] = []
    columns = [lists.c[name] for name in ListEntry.__slots__]
    for part in in_parts(sorted(set(pseudonyms))):
        rows = connection.execute(select(*columns).where(lists.c.value.in_(part)))
        found += (ListEntry(*row) for row in rows)
    return sorted(found, key=lambda entry: (entry.place, entry.list), reverse=True)


# --- of refunds ----------------------------------------------------------------------------------


def decided_when(
    connection: Connection, refund_ids: Collection[str]
) -> Iterator[tuple[str, str, int]]:
    """Id, refund and time of every decision on these refunds."""
    d = decisions.c
    for part in in_parts(sorted(refund_ids)):
        found = select(d.score_id, d.refund_id, d.decided_at).where(d.refund_id.in_(part))
        yield from (tuple(row) for row in connection.execute(found))


def answers_of(connection: Connection, score_ids: Iterable[str]) -> dict[str, Answer]:
    """What was answered, by the ids of decisions."""
    d, found = decisions.c, dict[str, Answer]()
    for part in in_parts(sorted(set(score_ids))):
        statement = select(d.score_id, d.refund_id, d.decided_at, d.response)
        for *row, response in connection.execute(statement.where(d.score_id.in_(part))):
            found[row[0]] = Answer._make((*row, orjson.loads(response)["data"]))
    return found


def acts_when(
    connection: Connection, refund_ids: Collection[str]
) -> Iterator[tuple[int, int]]:  # fmt: skip
    """Number and time of all that people did on the reviews of these refunds."""
    a = review_acts.c
    for part in in_parts(sorted(refund_ids)):
        found = select(a.seq, a.at).where(a.refund_id.in_(part))
        yield from (tuple(row) for row in connection.execute(found))


def acts_of(connection: Connection, seqs: Iterable[int]) -> dict[int, Act]:
    """What people did on reviews, by number."""
    columns, found = [review_acts.c[name] for name in Act._fields], dict[int, Act]()
    for part in in_parts(sorted(set(seqs))):
        statement = select(review_acts.c.seq, *columns).where(review_acts.c.seq.in_(part))
        found |= {seq: Act(*row) for seq, *row in connection.execute(statement)}
    return found


def attached_to(connection: Connection, refund_ids: Collection[str]) -> Iterator[Attached]:
    """What was attached to the cases of these refunds, without what is in it."""
    columns = [attachments.c[name] for name in Attached._fields]
    for part in in_parts(sorted(refund_ids)):
        found = select(*columns).where(attachments.c.refund_id.in_(part))
        yield from (Attached(*row) for row in connection.execute(found))
