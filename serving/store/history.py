"""The history: events appended once each, and the bounded slices of it that a decision reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Connection, Select, bindparam, case, func, literal_column, select, union_all
from sqlalchemy import null as sql_null
from sqlalchemy.sql import ClauseElement

from features.attribution import Row
from features.events import (
    COLUMN_OF,
    ENTITIES,
    EVENTS,
    KEYS,
    Event,
    Label,
    derive_event_id,
)
from features.money import DAY_MS
from serving.store.database import Database, Prepared, padded, padded_size
from serving.store.identifiers import Identifiers, Pseudonyms
from serving.store.indexing import NAMING_COLUMN, Attribution, KeyRow, Name, StoredEvent, inherited
from serving.store.refunds import Refunds
from serving.store.schema import entities, event_keys, events, identifiers

LONGEST_WINDOW_MS: Final = 365 * DAY_MS
MOST_ROWS: Final = 1_001
"""Of each slice: what a window holds at most, and one more, for the request that is left out."""

_EVENT_COLUMNS: Final = (
    "seq", "event_id", "event_type", "known_at", "order_id", "refund_id", "payload",
)  # fmt: skip


class Appended(NamedTuple):
    """What became of an event. ``is_unexpected``: its report did not fit the refund's state."""

    event_id: str
    is_new: bool
    is_unexpected: bool = False


@dataclass(frozen=True, slots=True)
class Slices:
    """What one decision reads, all of one snapshot. Events are shared: they are not to be changed.

    ``rows`` has an entry for each pair (key, event type) that was asked for and whose key has a
    value: (effective known_at, event, refund it names), oldest first, all before the cutoff. An
    event holds the key columns it inherits. Identifiers are pseudonyms; ``pseudonyms`` holds those
    of the keys asked for.
    """

    rows: Mapping[tuple[str, str], Sequence[Row]]
    first_seen: Mapping[str, int | None]
    """Per entity asked for: when it was first seen, None if not before the cutoff."""
    named: Mapping[str, Mapping[str, Any] | None]
    """For ``order`` and ``refund``, if asked for: the first version, if known before the cutoff."""
    pseudonyms: Mapping[str, str]
    snapshot: int
    """The highest event sequence that the read saw; 0 in an empty store."""
    customer_seen: int
    """How often the customer's history had been added to."""


class Draft(NamedTuple):
    """An event ready to be stored: its payload is under pseudonyms, nulls left out."""

    event_type: str
    event_id: str
    known_at: int
    payload: dict[str, Any]


class History:
    """Events of one database. Holds no state of its own."""

    def __init__(self, database: Database, pseudonyms_of: Identifiers) -> None:
        self._database = database
        self._identifiers = pseudonyms_of
        self._refunds = Refunds(database)

    # --- appending ---------------------------------------------------------------------------

    def append(self, connection: Connection, arriving: Iterable[Event]) -> list[Appended]:
        """Store events in the order given; one whose ``event_id`` is there already is ignored."""
        pseudonyms = Pseudonyms(self._identifiers)
        drafts = [_draft(event, pseudonyms) for event in arriving]
        return self.append_drafts(connection, drafts, pseudonyms)

    def append_drafts(
        self, connection: Connection, drafts: Sequence[Draft], pseudonyms: Pseudonyms
    ) -> list[Appended]:
        """Store drafts; ``pseudonyms`` made theirs."""
        if not drafts:
            return []
        self._database.lock(connection, _names_of(drafts))
        new = self._number(connection, drafts)
        if not new:
            return [Appended(draft.event_id, False) for draft in drafts]
        attribution = self._attribution(connection, new)
        rows = [row for event in new for row in attribution.add(event)]
        self._insert(connection, new, rows, pseudonyms)
        unexpected = self._refunds.follow(connection, new)
        fresh = {event.event_id for event in new}
        answers = []
        for draft in drafts:
            is_new = draft.event_id in fresh
            fresh.discard(draft.event_id)  # the same event again in one batch
            answers.append(
                Appended(draft.event_id, is_new, is_new and draft.event_id in unexpected)
            )
        return answers

    def _number(self, connection: Connection, drafts: Sequence[Draft]) -> list[StoredEvent]:
        """The drafts that are not stored yet, each once, with their sequence numbers."""
        by_id: dict[str, Draft] = {}
        for draft in drafts:
            by_id.setdefault(draft.event_id, draft)
        ids = list(by_id)
        known = self._database.prepared(
            ("known", padded_size(len(ids))),
            lambda: select(events.c.event_id).where(_is_one_of(events.c.event_id, len(ids))),
        )
        for (event_id,) in self._database.run(connection, known, tuple(padded(ids))):
            del by_id[event_id]
        new = by_id.values()
        if not new:
            return []
        seqs = self._database.reserve_seqs(connection, len(new))
        return [
            StoredEvent(seq, draft.event_id, draft.event_type, draft.known_at, draft.payload)
            for seq, draft in zip(seqs, new, strict=True)
        ]

    def _attribution(self, connection: Connection, new: Sequence[StoredEvent]) -> Attribution:
        own = {name for event in new if (name := event.own_name())}
        named = {name for event in new if (name := event.names())}
        first: dict[Name, StoredEvent] = {}
        waiting: list[tuple[Name, StoredEvent]] = []
        for kind in NAMING_COLUMN:
            ids = [name.value for name in own | named if name.kind == kind]
            for event in self._select(connection, ("first", kind), ids, _first_versions(kind)):
                first[Name(kind, event.payload[NAMING_COLUMN[kind]])] = event
        for kind in NAMING_COLUMN:
            ids = [name.value for name in own - first.keys() if name.kind == kind]
            found = self._select(connection, ("waiting", kind), ids, _waiting_for(kind))
            waiting += [(Name(kind, e.payload[NAMING_COLUMN[kind]]), e) for e in found]
        return Attribution(first, waiting)

    def _select(
        self, connection: Connection, name: tuple[str, str], ids: Sequence[str], build: _Builder
    ) -> list[StoredEvent]:
        if not ids:
            return []
        size = padded_size(len(ids))
        prepared = self._database.prepared((*name, size), lambda: build(size))
        found = self._database.run(connection, prepared, tuple(padded(ids)))
        return [StoredEvent(r[0], r[1], r[2], r[3], orjson.loads(r[4])) for r in found]

    def _insert(
        self,
        connection: Connection,
        new: Sequence[StoredEvent],
        rows: list[KeyRow],
        pseudonyms: Pseudonyms,
    ) -> None:
        inserting, run_many = self._database.inserting, self._database.run_many
        run_many(
            connection,
            inserting(events, _EVENT_COLUMNS),
            [(e.seq, e.event_id, e.event_type, e.known_at, e.payload.get("order_id"),
              e.payload.get("refund_id"), orjson.dumps(e.payload).decode()) for e in new],
        )  # fmt: skip
        # In key order: neighbours share pages, and concurrent writers lock in one order.
        if rows:
            rows.sort()
            run_many(connection, inserting(event_keys, KeyRow._fields), rows)
        if seen := _entity_rows(new, rows):
            run_many(connection, self._upsert_entities(), seen)
        if originals := pseudonyms.take_new():
            columns = ("kind", "mac", "key_id", "ciphertext")
            run_many(connection, inserting(identifiers, columns, "ignore"), originals)

    def _upsert_entities(self) -> Prepared:
        def update(new: Any) -> tuple[dict[str, Any], Any]:
            old = entities.c
            is_earlier = new.first_seen < old.first_seen
            return {
                "first_seen": case((is_earlier, new.first_seen), else_=old.first_seen),
                "moved": old.moved + new.moved,
            }, is_earlier | (new.moved > literal_column("0"))

        return self._database.upserting(entities, ("kind", "value", "first_seen", "moved"), update)

    # --- reading -----------------------------------------------------------------------------

    def read(
        self, keys: Mapping[str, str], cutoff: int, reads: Sequence[tuple[str, str]]
    ) -> Slices:
        """The slices that a request with these keys owns, as of its cutoff.

        ``keys`` maps a key (``customer``, …, ``order``, ``refund``) to its original value,
        ``reads`` are pairs of key and event type; pairs of a key without a value are left out.
        Each slice holds the latest 1,001 events with ``cutoff - 365 days <= known_at < cutoff``,
        by (effective known_at, own known_at, event_id). One statement, so one snapshot.
        """
        given = {kind: keys[kind] for kind in KEYS if keys.get(kind)}
        pairs = tuple(reads)
        # One statement whatever keys are given: building one takes longer than a decision may. No
        # pseudonym is empty, so the arms of a key without a value find nothing.
        shape = self._database.prepared(("read", pairs), lambda: _reading(KEYS, pairs))
        pseudonyms = self._identifiers.macs(given)
        values = {**dict.fromkeys(KEYS, ""), **pseudonyms,
                  "cutoff": cutoff, "since": cutoff - LONGEST_WINDOW_MS}  # fmt: skip
        with self._database.read() as connection:
            found = self._database.run(connection, shape, shape.bind(values))
        return _slices(found, tuple(given), pairs, pseudonyms, cutoff)

    def latest_verdict(self, connection: Connection, label: Label) -> str | None:
        """The last verdict of the label's source on the same refund, or the same customer."""
        kind, value = ("refund", label.refund_id) if label.refund_id else (
            "customer", self._identifiers.mac("customer", label.customer_id or ""))  # fmt: skip
        prepared = self._database.prepared(
            ("labels", kind),
            lambda: (
                select(events.c.payload)
                .join(event_keys, event_keys.c.seq == events.c.seq)
                .where(
                    _is(event_keys.c.key_kind, kind),
                    event_keys.c.key_value == bindparam("value"),
                    _is(event_keys.c.event_type, "label"),
                )
                .order_by(event_keys.c.known_at.desc(), event_keys.c.own_known_at.desc(),
                          event_keys.c.event_id.desc())
                .limit(literal_column(str(MOST_ROWS)))
            ),
        )  # fmt: skip
        for (text,) in self._database.run(connection, prepared, prepared.bind({"value": value})):
            earlier = orjson.loads(text)
            if (earlier.get("source"), earlier.get("refund_id")) == (label.source, label.refund_id):
                return str(earlier["label"])
        return None

    def customer_moved(self, connection: Connection, slices: Slices) -> bool:
        """Whether the customer's history was added to since the slices were read."""
        customer = slices.pseudonyms.get("customer")
        if customer is None:
            return False
        moved = self._database.prepared(
            "customer_moved",
            lambda: select(entities.c.moved).where(
                _is(entities.c.kind, "customer"), entities.c.value == bindparam("customer")
            ),
        )
        found = self._database.run(connection, moved, (customer,))
        return (found[0][0] if found else 0) != slices.customer_seen


# --- drafts ----------------------------------------------------------------------------------


def _draft(event: Event, pseudonyms: Pseudonyms) -> Draft:
    payload = event.model_dump(exclude_none=True)
    items = payload.pop("items", ())
    event_id = event.event_id or derive_event_id(event.event_type, payload, repeats=event.repeats)
    pseudonyms.put_into(payload)
    payload["event_id"] = event_id
    if items:
        payload["items"] = items
    return Draft(event.event_type, event_id, event.known_at, payload)


def _names_of(drafts: Iterable[Draft]) -> set[tuple[str, str]]:
    return {
        (column, draft.payload[column])
        for draft in drafts
        for column in NAMING_COLUMN.values()
        if column in draft.payload
    }


def _entity_rows(
    new: Iterable[StoredEvent], rows: Iterable[KeyRow]
) -> list[tuple[str, str, int, int]]:
    """(kind, value, first seen, 1 if a customer's history grows) in key order."""
    first_seen: dict[tuple[str, str], int] = {}
    for event in new:
        for entity in event.direct_entities():
            first_seen[entity] = min(first_seen.get(entity, event.known_at), event.known_at)
    moved = {row.key_value: row.known_at for row in rows if row.key_kind == "customer"}
    for customer, known_at in moved.items():
        # One who only inherits has an entity row already: the time given here changes nothing.
        first_seen.setdefault(("customer", customer), known_at)
    return sorted(
        (kind, value, at, int(kind == "customer" and value in moved))
        for (kind, value), at in first_seen.items()
    )


# --- statements ------------------------------------------------------------------------------


class _Builder:
    """Builds a statement for a list of ids of a given length."""

    def __init__(self, kind: str, waiting: bool) -> None:
        self.kind, self.waiting = kind, waiting

    def __call__(self, size: int) -> ClauseElement:
        named = events.c[NAMING_COLUMN[self.kind]]
        columns = [events.c[name] for name in (*_EVENT_COLUMNS[:4], "payload")]
        if not self.waiting:
            first = (
                select(func.min(events.c.seq))
                .where(_is(events.c.event_type, self.kind), _is_one_of(named, size))
                .group_by(named)
            )
            return select(*columns).where(events.c.seq.in_(first))
        about = select(*columns).where(
            _is_one_of(named, size), events.c.event_type.not_in(_texts(NAMING_COLUMN))
        )
        if self.kind == "order":  # what names a refund as well is about the refund
            about = about.where(events.c.refund_id.is_(None))
        return about.order_by(events.c.seq)


def _first_versions(kind: str) -> _Builder:
    return _Builder(kind, waiting=False)


def _waiting_for(kind: str) -> _Builder:
    return _Builder(kind, waiting=True)


def _text(value: str) -> Any:
    """A word of our own vocabulary as it stands: only ids are parameters."""
    return literal_column(f"'{value}'")


def _texts(values: Iterable[str]) -> list[Any]:
    return [_text(value) for value in values]


def _is(column: Any, value: str) -> Any:
    return column == _text(value)


def _is_one_of(column: Any, count: int) -> Any:
    return column.in_([bindparam(f"id{i}") for i in range(padded_size(count))])


def _reading(kinds: Sequence[str], pairs: Sequence[tuple[str, str]]) -> ClauseElement:
    """One statement for all slices: a bounded subselect each, told apart by a slot number.

    Columns: slot, known_at, own known_at, event_id, seq, payload, seq and payload of what is named.
    """
    for key, event_type in pairs:
        if key not in KEYS or event_type not in EVENTS:
            raise ValueError(f"read ({key!r}, {event_type!r}): expected a key and an event type")
    arms = [_slice(slot, *pair) for slot, pair in enumerate(pairs)]
    for place, kind in enumerate(KEYS):
        if kind in kinds:
            is_entity = kind in ENTITIES
            arms.append(
                _entity(_ENTITY + place, kind) if is_entity else _facts(_NAMED + place, kind)
            )
    arms.append(select(*_columns(_SNAPSHOT, func.max(events.c.seq))))
    return union_all(*arms)


def _columns(slot: int, number: Any, more: Any = None, payload: Any = None) -> list[Any]:
    """The columns of an arm that is no slice."""
    zero: Any = literal_column("0")
    nothing: Any = sql_null()
    return [
        literal_column(str(slot)), number, zero if more is None else more, nothing, zero,
        nothing if payload is None else payload, zero, nothing,
    ]  # fmt: skip


_ENTITY: Final = 1_000
_NAMED: Final = 2_000
_SNAPSHOT: Final = 3_000


def _slice(slot: int, key: str, event_type: str) -> Select[Any]:
    rows = event_keys.c
    event, named = events.alias(), events.alias()
    joined: Any = event_keys.join(event, event.c.seq == rows.seq)
    found: tuple[Any, Any] = (literal_column("0"), sql_null())
    if event_type not in NAMING_COLUMN:
        joined = joined.outerjoin(named, named.c.seq == _seq_of_named(event))
        found = (named.c.seq, named.c.payload)
    latest = (
        select(
            literal_column(str(slot)).label("slot"), rows.known_at, rows.own_known_at,
            rows.event_id, rows.seq, event.c.payload,
            found[0].label("named_seq"), found[1].label("named_payload"),
        )
        .select_from(joined)
        .where(
            _is(rows.key_kind, key),
            rows.key_value == bindparam(key),
            _is(rows.event_type, event_type),
            rows.known_at >= bindparam("since"),
            rows.known_at < bindparam("cutoff"),
        )
        .order_by(rows.known_at.desc(), rows.own_known_at.desc(), rows.event_id.desc())
        .limit(MOST_ROWS)
        .subquery()
    )  # fmt: skip
    return select(latest)


def _seq_of_named(event: Any) -> Any:
    def first(kind: str) -> Any:
        version = events.alias()
        column = NAMING_COLUMN[kind]
        return (
            select(func.min(version.c.seq))
            .where(_is(version.c.event_type, kind), version.c[column] == event.c[column])
            .correlate(event)
            .scalar_subquery()
        )

    return case((event.c.refund_id.is_not(None), first("refund_request")), else_=first("order"))


def _entity(slot: int, kind: str) -> Select[Any]:
    columns = _columns(slot, entities.c.first_seen, entities.c.moved)
    return select(*columns).where(_is(entities.c.kind, kind), entities.c.value == bindparam(kind))


def _facts(slot: int, key: str) -> Select[Any]:
    event_type = "refund_request" if key == "refund" else "order"
    first = (
        select(func.min(events.c.seq))
        .where(_is(events.c.event_type, event_type), events.c[COLUMN_OF[key]] == bindparam(key))
        .scalar_subquery()
    )
    columns = _columns(slot, events.c.known_at, payload=events.c.payload)
    return select(*columns).where(events.c.seq == first)


# --- what was read ---------------------------------------------------------------------------


def _slices(
    found: Sequence[tuple[Any, ...]],
    kinds: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    pseudonyms: Mapping[str, str],
    cutoff: int,
) -> Slices:
    by_slot: list[list[tuple[Any, ...]]] = [[] for _ in pairs]
    first_seen: dict[str, int | None] = {kind: None for kind in kinds if kind in ENTITIES}
    named: dict[str, Mapping[str, Any] | None] = {k: None for k in kinds if k not in ENTITIES}
    snapshot = customer_seen = 0
    for row in found:
        slot, known_at = row[0], row[1]
        if slot < _ENTITY:
            by_slot[slot].append(row[1:])
        elif slot < _NAMED:
            kind = KEYS[slot - _ENTITY]
            first_seen[kind] = known_at if known_at < cutoff else None
            if kind == "customer":
                customer_seen = row[2]
        elif slot < _SNAPSHOT:
            named[KEYS[slot - _NAMED]] = orjson.loads(row[5]) if known_at < cutoff else None
        else:
            snapshot = known_at or 0
    parsing = _Parsing(cutoff)
    rows = {pair: parsing.rows(part) for pair, part in zip(pairs, by_slot, strict=True)
            if pair[0] in pseudonyms}  # fmt: skip
    return Slices(rows, first_seen, named, pseudonyms, snapshot, customer_seen)


class _Parsing:
    """Parses each event once: most come up under several keys."""

    def __init__(self, cutoff: int) -> None:
        self._cutoff = cutoff
        self._events: dict[int, Any] = {}
        self._completed: dict[int, tuple[Any, Any]] = {}

    def rows(self, found: list[tuple[Any, ...]]) -> list[Row]:
        """Rows of a slice, oldest first, of (known_at, own known_at, event_id, seq, …)."""
        found.sort()  # event ids differ, so no comparison reaches what follows them
        return [(row[0], *self._complete(*row[3:])) for row in found]

    def _complete(self, seq: int, text: str, named_seq: int | None, named_text: str | None) -> Any:
        """The event with the keys it inherits, and the refund it names."""
        done = self._completed.get(seq)
        if done is None:
            event, refund = self._parse(seq, text), None
            named = self._parse(named_seq, named_text) if named_seq and named_text else None
            if named is not None and named["known_at"] < self._cutoff:
                refund = named if "refund_id" in event else None
                kind = "order" if refund is None else "refund_request"
                event = {**inherited(event, kind, named), **event}
            done = self._completed[seq] = (event, refund)
        return done

    def _parse(self, seq: int, text: str) -> Any:
        event = self._events.get(seq)
        if event is None:
            event = self._events[seq] = orjson.loads(text)
        return event
