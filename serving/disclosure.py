"""All that is known about one customer, as one JSON document: what an access request asks for.

It is made part by part, so that nobody's long history has to fit into memory at once. Facts stand
in the columns of a data folder, with the identifiers as they were sent; what the columns do not
have, the store does not know. Who gave a verdict, or reviewed a refund, is left out: that is
another person.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import select

from features.events import COLUMN_OF, ENTITIES, EVENTS
from serving.attachments import attachments_of
from serving.store.holdings import Holdings, Person, holdings_of, in_parts
from serving.store.identifiers import KIND_OF_COLUMN
from serving.store.lists import ListEntry
from serving.store.schema import events, lists
from serving.store.store import Store

_AT_ONCE: Final = 500
_LEFT_OUT: Final = ("reviewer",)
_REFUND: Final = ("refund_id", "state", "state_at", "order_id", "payable_minor", "currency")
_REVIEW: Final = ("refund_id", "score_id", "opened_at", "due_at", "status", "closed_at", "ending")
_ACT: Final = ("at", "act", "justification", "abuse")
_ATTACHED: Final = ("refund_id", "name", "kind", "size_bytes", "added_at")
_LISTED: Final = ("list", "entity", "reason", "created_at", "expires_at")

Row = dict[str, Any]


def document(
    store: Store, customer_id: str, *, actor: str, at: int, via: str | None = None
) -> Iterator[bytes]:
    """The parts of the document, in UTF-8; that it was made is audited before the first.

    ``actor``, ``at`` (epoch ms) and ``via`` as in `serving.store.erasure.erase`. One of whom
    nothing is known gets a document with empty tables.
    """
    database = store.database
    with database.read() as connection:
        held = holdings_of(database, connection, store.identifiers.mac("customer", customer_id))
    with store.write() as tx:
        content = {"events": len(held.seqs), "decisions": len(held.decided)}
        personal = {"by": actor, "customer": held.customer}
        tx.audit(via or actor, "customer_exported", "customer", content, at=at, personal=personal)
    return _parts(store, customer_id, held, at)


def _parts(store: Store, customer_id: str, held: Holdings, at: int) -> Iterator[bytes]:
    tables, persons = _survey(store, held)
    originals = _originals(store, persons | held.own)
    known: dict[str, list[str]] = {kind: [] for kind in ENTITIES}
    for (kind, _), original in sorted(originals.items()):
        known[kind].append(original)
    head = orjson.dumps({"customerId": customer_id, "exportedAt": at, "identifiers": known})
    yield head[:-1]
    for event in EVENTS.values():
        yield from _table(event.table, _facts(store, tables.get(event.event_type, ()), originals))
    refund_ids = sorted(name.value for name in held.about if name.kind == "refund_request")
    yield from _table("refunds", _refunds(store, refund_ids))
    yield from _table("reviews", _reviews(store, refund_ids))
    yield from _table("attachments", _attachments(store, refund_ids))
    yield from _table("decisions", _decisions(store, held.decided))
    yield from _table("lists", _lists(store, persons | held.own, originals))
    yield b"}"


def _table(name: str, rows: Iterable[Row]) -> Iterator[bytes]:
    yield b',"%s":[' % name.encode()
    for number, row in enumerate(rows):
        yield (b"," if number else b"") + orjson.dumps(row)
    yield b"]"


def _survey(store: Store, held: Holdings) -> tuple[dict[str, list[int]], set[Person]]:
    """The numbers of the customer's events by type, and whom these events name."""
    tables: dict[str, list[int]] = {}
    persons: set[Person] = set()
    for seq, event_type, payload in _events(store, held.seqs):
        tables.setdefault(event_type, []).append(seq)
        persons |= {(k, payload[c]) for k in ENTITIES if (c := COLUMN_OF[k]) in payload}
    return tables, persons


def _events(store: Store, seqs: Sequence[int]) -> Iterator[tuple[int, str, Row]]:
    columns = (events.c.seq, events.c.event_type, events.c.payload)
    for part in in_parts(seqs, _AT_ONCE):
        statement = select(*columns).where(events.c.seq.in_(part)).order_by(events.c.seq)
        with store.database.read() as connection:
            rows = connection.execute(statement).fetchall()
        for seq, event_type, payload in rows:
            yield seq, event_type, orjson.loads(payload)


def _originals(store: Store, persons: Iterable[Person]) -> dict[Person, str]:
    by_kind: dict[str, list[str]] = {}
    for kind, pseudonym in persons:
        by_kind.setdefault(kind, []).append(pseudonym)
    return {
        (kind, pseudonym): original
        for kind, every in by_kind.items()
        for part in in_parts(every, _AT_ONCE)
        for pseudonym, original in store.reveal(kind, part).items()
    }


def _facts(store: Store, seqs: Sequence[int], originals: Mapping[Person, str]) -> Iterator[Row]:
    """Events with their originals; one that was erased, as it can be of another, stays as it is."""
    for _, _, payload in _events(store, seqs):
        for column, kind in KIND_OF_COLUMN.items():
            if column in payload:
                payload[column] = originals.get((kind, payload[column]), payload[column])
        yield {column: value for column, value in payload.items() if column not in _LEFT_OUT}


def _refunds(store: Store, refund_ids: Sequence[str]) -> Iterator[Row]:
    for part in in_parts(refund_ids, _AT_ONCE):
        with store.database.read() as connection:
            found = store.refunds.get(connection, part)
        for refund_id in sorted(found):
            yield {name: getattr(found[refund_id], name) for name in _REFUND}


def _reviews(store: Store, refund_ids: Sequence[str]) -> Iterator[Row]:
    """The reviews of refunds, the first first, each with what was done there."""
    for refund_id in refund_ids:
        reviews, acts = store.reviews_of(refund_id)
        for review in reversed(reviews):
            done = [{name: getattr(act, name) for name in _ACT}
                    for act in acts if act.score_id == review.score_id]  # fmt: skip
            yield {**{name: getattr(review, name) for name in _REVIEW}, "acts": done}


def _attachments(store: Store, refund_ids: Sequence[str]) -> Iterator[Row]:
    """What people attached to refunds, without its content, which may show others."""
    for refund_id in refund_ids:
        for one in attachments_of(store, refund_id):
            yield {name: getattr(one, name) for name in _ATTACHED}


def _decisions(store: Store, decided: Sequence[str]) -> Iterator[Row]:
    """What was answered, and the numbers that it rested on."""
    for score_id in decided:
        if (found := store.decision(score_id)) is not None:
            yield {
                "score_id": score_id,
                "refund_id": found.refund_id,
                "decided_at": found.decided_at,
                "answer": found.response["data"],
                "features": found.record.get("features"),
            }


def _lists(
    store: Store, persons: set[Person], originals: Mapping[Person, str]
) -> Iterator[Row]:  # fmt: skip
    columns = [lists.c[name] for name in ListEntry.__slots__]
    for part in in_parts(sorted({value for _, value in persons}), _AT_ONCE):
        statement = select(*columns).where(lists.c.value.in_(part)).order_by(lists.c.value)
        with store.database.read() as connection:
            entries = [ListEntry(*row) for row in connection.execute(statement)]
        for entry in entries:
            original = originals.get((entry.entity, entry.value))
            yield {"id": original, **{name: getattr(entry, name) for name in _LISTED}}
