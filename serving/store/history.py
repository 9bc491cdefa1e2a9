"""The history: events appended once each, and the bounded slices of it that a decision reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, NamedTuple

import orjson
import structlog
from sqlalchemy import (
    Connection,
    bindparam,
    case,
    delete,
    literal_column,
    select,
)

from features.documents import MAX_EVENTS
from features.events import (
    COLUMN_OF,
    ENTITIES,
    EVENTS,
    IDENTIFIERS,
    KEYS,
    Event,
    RefundRequest,
    derive_event_id,
)
from features.money import DAY_MS
from features.packed import LAYOUT, LAYOUT_HASH
from serving.store.database import (
    Database,
    Prepared,
    StoreRefusedError,
    padded,
    padded_size,
)
from serving.store.identifiers import Identifiers, Original, Pseudonyms
from serving.store.indexing import (
    NAMING_COLUMN,
    SLICE_OF,
    Attribution,
    KeyRow,
    Name,
    StoredEvent,
    names_of,
    rows_of,
)
from serving.store.refunds import Decided, Refunds
from serving.store.schema import entities, event_keys, events, identifiers
from serving.store.statements import (
    ENTITY,
    MOST_ROWS,
    OF_EVENT,
    SNAPSHOT,
    Builder,
    events_about,
    first_versions,
    is_one_of,
    is_word,
    names_there,
    order_documents,
    reading,
    unknown_identifiers,
)

log = structlog.get_logger()

LONGEST_WINDOW_MS: Final = 365 * DAY_MS
_EVENT_COLUMNS: Final = (
    "seq", "event_id", "event_type", "known_at", "order_id", "refund_id", "payload",
)  # fmt: skip

_FEW: Final = 32
"""As many as it takes no longer to ask which are there than to act as if all were."""

_BATCH: Final = 10_000
_LAST_SEQ: Final = 2**63 - 1
_OF_CUSTOMERS: Final = frozenset(s for (key, _), s in SLICE_OF.items() if key == "customer")
_IN_KEY_ORDER: Final = itemgetter(1, 0, 2, 3, 4)
"""Sorts stably: of two rows of one key, the one made later is written last."""


class Appended(NamedTuple):
    """What became of an event. ``is_unexpected``: its report did not fit the refund's state."""

    event_id: str
    is_new: bool
    is_unexpected: bool = False


@dataclass(frozen=True, slots=True)
class Slices:
    """What one decision reads, all of one snapshot.

    ``rows`` has an entry for each pair (key, event type) that was asked for and holds any events:
    these packed as `features.packed.LAYOUT` says and joined, oldest first, at most 1,001, all
    before the cutoff. Identifiers are pseudonyms, in packed events their `id63`; ``pseudonyms``
    holds those of the keys asked for.
    """

    rows: Mapping[tuple[str, str], bytes]
    first_seen: Mapping[str, int | None]
    """Per entity asked for: when it was first seen, None if not before the cutoff."""
    pseudonyms: Mapping[str, str]
    snapshot: int
    """The highest event sequence that the read saw; 0 in an empty store."""
    customer_seen: int
    """How often the customer's history had been added to."""
    customer_latest: int = 0
    """The latest time that the customer's history reached to (epoch ms), also beyond the cutoff."""
    transactions: str | None = None
    """Which transactions the read saw, as PostgreSQL's `pg_current_snapshot`; None on SQLite."""


class Draft(NamedTuple):
    """An event ready to be stored: its payload is under pseudonyms, nulls left out."""

    event_type: str
    event_id: str
    known_at: int
    payload: dict[str, Any]


class _Slice(NamedTuple):
    """A slice among all that a key holds: its digit, and of how many bytes its events are."""

    digit: str
    size: int
    pair: tuple[str, str]
    is_asked_for: bool


class _Reading(NamedTuple):
    """How some pairs of key and event type are read: at once, or one by one, and told apart."""

    slices: Sequence[Sequence[_Slice]]
    """Of each of `KEYS`, in their order."""
    at_once: Prepared
    one_by_one: Callable[[], Prepared]


class History:
    """Events of one database. Holds no state but statements."""

    def __init__(self, database: Database, pseudonyms_of: Identifiers) -> None:
        self._database = database
        self._identifiers = pseudonyms_of
        self._refunds = Refunds(database)
        self._read_before: tuple[Sequence[tuple[str, str]], _Reading] | None = None

    # --- appending ---------------------------------------------------------------------------

    def append(
        self, connection: Connection, arriving: Iterable[Event], decided: Decided | None = None
    ) -> list[Appended]:
        """Store events in the order given; one whose ``event_id`` is there already is ignored."""
        pseudonyms = Pseudonyms(self._identifiers)
        drafts = [_draft(event, pseudonyms) for event in arriving]
        return self.append_drafts(connection, drafts, pseudonyms, decided)

    def append_drafts(
        self, connection: Connection, drafts: Sequence[Draft], pseudonyms: Pseudonyms,
        decided: Decided | None = None,
    ) -> list[Appended]:  # fmt: skip
        """Store drafts; ``pseudonyms`` made theirs. See `Refunds.follow` for what was decided."""
        if not drafts:
            return []
        self._refunds.hold_off(
            connection, [d.payload["refund_id"] for d in drafts if d.event_type == "refund_outcome"]
        )
        self._database.lock(connection, _names_of(drafts))
        new = self._number(connection, drafts)
        if not new:
            self._refunds.follow(connection, (), decided)
            return [Appended(draft.event_id, False) for draft in drafts]
        attribution = self._attribution(connection, new)
        for event in new:
            attribution.add(event)
        self._insert(connection, new, attribution, pseudonyms)
        unexpected = self._refunds.follow(connection, new, decided)
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
            lambda: select(events.c.event_id).where(is_one_of(events.c.event_id, len(ids))),
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
        there = self._there(connection, names_of(new))
        if not there:
            return Attribution({}, ())
        first = self._first_versions(connection, there)
        becoming = {
            name
            for event in new
            if (name := event.own_name())
            and name in there
            and ((before := first.get(name)) is None or event.is_before(before))
        }
        about: list[tuple[Name, StoredEvent]] = []
        for kind in NAMING_COLUMN:
            ids = [name.value for name in becoming if name.kind == kind]
            found = self._select(connection, ("about", kind), ids, events_about(kind))
            about += [(Name(kind, e.payload[NAMING_COLUMN[kind]]), e) for e in found]
        return Attribution(first, about)

    def _there(self, connection: Connection, names: set[Name]) -> set[Name]:
        """The names without those, if it is only about a few, that no stored event bears."""
        if not 0 < len(names) <= _FEW:
            return names
        ids = [name.value for name in names]
        prepared = self._database.prepared(
            ("there", padded_size(len(ids))), lambda: names_there(padded_size(len(ids)))
        )
        found = set(self._database.run(connection, prepared, tuple(padded(ids))))
        return {name for name in names if name in found}

    def _first_versions(
        self, connection: Connection, names: Collection[Name]
    ) -> dict[Name, StoredEvent]:
        """The first stored version of every order and refund of these names."""
        first: dict[Name, StoredEvent] = {}
        for kind in NAMING_COLUMN:
            ids = [name.value for name in names if name.kind == kind]
            for event in self._select(connection, ("first", kind), ids, first_versions(kind)):
                first[Name(kind, event.payload[NAMING_COLUMN[kind]])] = event
        return first

    def _select(
        self, connection: Connection, name: tuple[str, str], ids: Sequence[str], build: Builder
    ) -> list[StoredEvent]:
        if not ids:
            return []
        size = padded_size(len(ids))
        prepared = self._database.prepared((*name, size), lambda: build(size))
        return _stored(self._database.run(connection, prepared, tuple(padded(ids))))

    def _insert(
        self,
        connection: Connection,
        new: Sequence[StoredEvent],
        attribution: Attribution,
        pseudonyms: Pseudonyms,
    ) -> None:
        inserting, run_many = self._database.inserting, self._database.run_many
        run_many(
            connection,
            inserting(events, _EVENT_COLUMNS),
            [(e.seq, e.event_id, e.event_type, e.known_at, e.payload.get("order_id"),
              e.payload.get("refund_id"), orjson.dumps(e.payload).decode()) for e in new],
        )  # fmt: skip
        rows, gone = attribution.rows(), attribution.gone()
        if gone:
            run_many(connection, self._taking_away(), [row[:-1] for row in gone])
        self._index(connection, rows)
        if seen := _entity_rows(new, [*rows, *gone]):
            run_many(connection, self._upsert_entities(), seen)
        if met := pseudonyms.take_new():
            self._keep_originals(connection, met, pseudonyms)

    def _keep_originals(
        self, connection: Connection, met: Sequence[Original], pseudonyms: Pseudonyms
    ) -> None:
        """Store what pseudonyms stand for, where that is not stored."""
        # Of a few mostly all are stored, and nothing is sealed for nothing. On PostgreSQL another
        # may be erasing one, for which an insert waits.
        if self._database.is_sqlite and len(met) <= _FEW:
            prepared = self._database.prepared(
                ("unknown_identifiers", len(met)), lambda: unknown_identifiers(len(met))
            )
            pairs = tuple([part for kind, mac, _ in met for part in (kind, mac)])
            unknown = set(self._database.run(connection, prepared, pairs))
            met = [one for one in met if one[:2] in unknown]
        if met:
            columns = ("kind", "mac", "key_id", "ciphertext")
            statement = self._database.inserting(identifiers, columns, "ignore")
            self._database.run_many(connection, statement, pseudonyms.sealed(met))

    def _taking_away(self) -> Prepared:
        columns = KeyRow._fields[:-1]
        return self._database.prepared(
            "taking_away",
            lambda: delete(event_keys).where(*(event_keys.c[c] == bindparam(c) for c in columns)),
        )

    def _index(self, connection: Connection, rows: list[KeyRow]) -> None:
        if rows:
            # In key order: neighbours share pages, and concurrent writers lock in one order.
            rows.sort(key=_IN_KEY_ORDER)
            statement = self._database.inserting(event_keys, KeyRow._fields, "replace")
            self._database.run_many(connection, statement, rows)

    def _upsert_entities(self) -> Prepared:
        def update(new: Any) -> tuple[dict[str, Any], Any]:
            old = entities.c
            is_earlier = new.first_seen < old.first_seen
            return {
                "first_seen": case((is_earlier, new.first_seen), else_=old.first_seen),
                "moved": old.moved + new.moved,
                "latest": case((new.latest > old.latest, new.latest), else_=old.latest),
            }, is_earlier | (new.moved > literal_column("0"))

        columns = ("kind", "value", "first_seen", "moved", "latest")
        return self._database.upserting(entities, columns, update)

    # --- making the index anew ---------------------------------------------------------------

    def upgrade(self, *, allowed: bool) -> None:
        """Make the index anew where an older program made it, or packed it by another layout.

        Raises `StoreRefusedError` where that is to be done and not allowed.
        """
        with self._database.read() as connection:
            if not allowed and not self._database.is_current(connection):
                raise StoreRefusedError(
                    "the store's index was made by another version of this program: end what runs "
                    "of that version and start the service once, which makes the index anew"
                )
        self._database.once(self._database.is_current, self.reindex)

    def reindex(self, connection: Connection) -> None:
        """Attribute and pack every stored event anew, in the transaction of ``connection``."""
        log.info("index_is_made_anew", packed_layout=LAYOUT_HASH)
        self._database.empty_index(connection)
        event_count = row_count = 0
        for batch in self._batches(connection, until_seq=None):
            first = self._first_versions(connection, names_of(batch))
            rows = [row for event in batch for row in rows_of(event, first)]
            self._index(connection, rows)
            event_count, row_count = event_count + len(batch), row_count + len(rows)
        log.info("index_was_made_anew", events=event_count, rows=row_count)

    # --- reading -----------------------------------------------------------------------------

    def events(self, until_seq: int | None = None) -> Iterator[StoredEvent]:
        """Every event up to a sequence number, in order of arrival; see `Store.events`."""
        with self._database.read() as connection:
            for batch in self._batches(connection, until_seq):
                yield from batch

    def _batches(
        self, connection: Connection, until_seq: int | None
    ) -> Iterator[list[StoredEvent]]:
        columns = [events.c[name] for name in OF_EVENT]
        prepared = self._database.prepared(
            "events",
            lambda: (
                select(*columns)
                .where(events.c.seq > bindparam("after"), events.c.seq <= bindparam("until"))
                .order_by(events.c.seq)
                .limit(literal_column(str(_BATCH)))
            ),
        )
        values = {"after": 0, "until": _LAST_SEQ if until_seq is None else until_seq}
        while found := self._database.run(connection, prepared, prepared.bind(values)):
            yield _stored(found)
            values["after"] = found[-1][0]

    def read(
        self, connection: Connection, keys: Mapping[str, str], cutoff: int,
        reads: Sequence[tuple[str, str]], pseudonyms: Mapping[str, str] | None = None,
    ) -> Slices:  # fmt: skip
        """The slices that a request with these keys owns, as of its cutoff.

        ``keys`` maps a key (``customer``, …, ``order``, ``refund``) to its original value,
        ``reads`` are pairs of key and event type; pairs without an event are left out.
        Each slice holds the latest 1,001 events with ``cutoff - 365 days <= known_at < cutoff``,
        by (effective known_at, own known_at, event_id). One statement, so one snapshot.
        ``pseudonyms`` are those of the keys, if they are made already.
        """
        told_apart, at_once, one_by_one = self._reading_of(reads)
        if pseudonyms is None:
            pseudonyms = self.pseudonyms(keys)
        # One statement whatever keys are given: building one takes longer than a decision may. No
        # pseudonym is empty, so the arms of a key without a value find nothing.
        values = {**_NO_KEYS, **pseudonyms,
                  "cutoff": cutoff, "since": cutoff - LONGEST_WINDOW_MS}  # fmt: skip
        run = self._database.run
        found = run(connection, at_once, at_once.bind(values))
        slices = _slices(found, told_apart, pseudonyms, cutoff)
        if slices is None:
            statement = one_by_one()
            found = run(connection, statement, statement.bind(values))
            slices = _slices(found, told_apart, pseudonyms, cutoff)
            if slices is None:
                raise AssertionError("read one by one: expected no crowded key")
        return slices

    def _reading_of(self, reads: Sequence[tuple[str, str]]) -> _Reading:
        """How these pairs are read. Decisions ask for the same ones: hashing them takes 3 µs."""
        before = self._read_before
        if before is not None and before[0] is reads:
            return before[1]
        pairs, prepared = tuple(reads), self._database.prepared
        made = _Reading(
            [_slices_of(key, pairs) for key in KEYS],
            prepared(("read", pairs), lambda: reading(self._database, pairs)),
            lambda: prepared(
                ("read one by one", pairs), lambda: reading(self._database, pairs, crowded=True)
            ),
        )
        if isinstance(reads, tuple):  # a list may be another when it comes again
            self._read_before = reads, made
        return made

    def pseudonyms(self, keys: Mapping[str, str]) -> dict[str, str]:
        """The keys that are given, entities under their pseudonyms, in the order of `KEYS`."""
        return self._identifiers.macs({kind: keys[kind] for kind in KEYS if keys.get(kind)})

    def order_events(
        self, connection: Connection, request: RefundRequest,
        pseudonyms: Mapping[str, str] | None = None,
    ) -> list[Event]:  # fmt: skip
        """What `features.ledger.order_ledger` needs of a request's order, up to its cutoff.

        All events that name the order, with the outcomes of its refunds and the transactions that
        name them alone, in no order; of what the ledger does not look at, all or nothing. Of more
        than 1,000 events only what counts is read: of a refund the first version, the last and that
        of its outcome, of each type at most 1,001 events, of refund requests 1,001 refunds: one
        more than the ledger looks at, so that it sees that there are more. Persons stand under
        pseudonyms, those that the request names as it names them. One statement, so one snapshot;
        it reads what belongs to the order and nothing else.
        """
        if request.order_id is None:
            return []
        if pseudonyms is None:
            named = {kind: getattr(request, COLUMN_OF[kind]) for kind in ENTITIES}
            pseudonyms = self.pseudonyms(named)
        originals = {
            pseudonym: getattr(request, COLUMN_OF[kind]) for kind, pseudonym in pseudonyms.items()
        }
        values = {"order": request.order_id, "refund": request.refund_id,
                  "cutoff": request.known_at}  # fmt: skip
        run, prepared = self._database.run, self._database.prepared
        statement = prepared("order_events", order_documents)
        found = run(connection, statement, statement.bind(values))
        if len(found) > MAX_EVENTS:
            statement = prepared("crowded_order_events", lambda: order_documents(crowded=True))
            found = run(connection, statement, statement.bind(values))
        return [
            _event_of(event_type, payload, originals) for event_type, payload in found if payload
        ]

    def transactions(self) -> Iterator[tuple[int, int]]:
        """The number of each event and of the transaction that wrote it, where that is known."""
        prepared = self._database.prepared(
            "transactions",
            lambda: (
                select(events.c.seq, events.c.xid)
                .where(events.c.seq > bindparam("after"), events.c.xid.is_not(None))
                .order_by(events.c.seq)
                .limit(literal_column(str(_BATCH)))
            ),
        )
        after = 0
        with self._database.read() as connection:
            while found := self._database.run(
                connection, prepared, prepared.bind({"after": after})
            ):
                yield from ((seq, xid) for seq, xid in found)
                after = found[-1][0]

    def refund_events(self, refund_id: str) -> list[StoredEvent]:
        """The latest 1,000 events that name a refund, as stored, the oldest first."""
        columns = [events.c[name] for name in OF_EVENT]
        prepared = self._database.prepared(
            "refund_events",
            lambda: (
                select(*columns)
                .where(events.c.refund_id == bindparam("refund"))
                .order_by(events.c.known_at.desc(), events.c.seq.desc())
                .limit(literal_column(str(MAX_EVENTS)))
            ),
        )
        with self._database.read() as connection:
            found = self._database.run(connection, prepared, prepared.bind({"refund": refund_id}))
        return _stored(reversed(found))

    def customer(self, connection: Connection, customer_id: str) -> tuple[int, int]:
        """How often a customer's history was added to, and the latest time that it reaches to."""
        state = self._database.prepared(
            "customer",
            lambda: select(entities.c.moved, entities.c.latest).where(
                is_word(entities.c.kind, "customer"), entities.c.value == bindparam("customer")
            ),
        )
        pseudonym = self._identifiers.mac("customer", customer_id)
        found = self._database.run(connection, state, (pseudonym,))
        return (found[0][0], found[0][1]) if found else (0, 0)

    def customer_moved(self, connection: Connection, slices: Slices) -> bool:
        """Whether the customer's history was added to since the slices were read."""
        customer = slices.pseudonyms.get("customer")
        if customer is None:
            return False
        moved = self._database.prepared(
            "customer_moved",
            lambda: select(entities.c.moved).where(
                is_word(entities.c.kind, "customer"), entities.c.value == bindparam("customer")
            ),
        )
        found = self._database.run(connection, moved, (customer,))
        return (found[0][0] if found else 0) != slices.customer_seen


_NO_KEYS: Final = dict.fromkeys(KEYS, "")


def _event_of(event_type: str, payload: str, originals: Mapping[str, str]) -> Event:
    """A stored event as it came, persons under pseudonyms but for those with an original given."""
    content = orjson.loads(payload)
    for column in _IDENTIFIERS_OF[event_type]:
        if (pseudonym := content.get(column)) in originals:
            content[column] = originals[pseudonym]
    return EVENTS[event_type].as_checked(content)  # it was, when it came


_IDENTIFIERS_OF: Final = {
    name: tuple(sorted(IDENTIFIERS & event.model_fields.keys())) for name, event in EVENTS.items()
}


def _stored(rows: Iterable[tuple[Any, ...]]) -> list[StoredEvent]:
    return [StoredEvent(r[0], r[1], r[2], r[3], orjson.loads(r[4])) for r in rows]


# --- drafts ----------------------------------------------------------------------------------


def _draft(event: Event, pseudonyms: Pseudonyms) -> Draft:
    payload = event.content()
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
    } | {("event", draft.event_id) for draft in drafts}


def _entity_rows(
    new: Iterable[StoredEvent], rows: Iterable[KeyRow]
) -> list[tuple[str, str, int, int, int]]:
    """(kind, value, first seen, 1 if a customer's history grows, and to when) in key order."""
    first_seen: dict[tuple[str, str], int] = {}
    for event in new:
        for entity in event.direct_entities():
            first_seen[entity] = min(first_seen.get(entity, event.known_at), event.known_at)
    moved: dict[str, int] = {}
    for row in rows:
        if row.slice in _OF_CUSTOMERS:
            moved[row.key_value] = max(moved.get(row.key_value, 0), row.known_at)
    for customer, known_at in moved.items():
        # One who only inherits has an entity row already: the time given here changes nothing.
        first_seen.setdefault(("customer", customer), known_at)
    return sorted(
        (kind, value, at, *((1, moved[value]) if kind == "customer" and value in moved else (0, 0)))
        for (kind, value), at in first_seen.items()
    )


# --- what was read ---------------------------------------------------------------------------


def _slices_of(key: str, asked_for: Collection[tuple[str, str]]) -> list[_Slice]:
    """The slices of a key in the order in which they lie."""
    return [
        _Slice(str(place), LAYOUT[event_type].itemsize, pair, pair in asked_for)
        for place, (event_type, pair) in enumerate((each, (key, each)) for each in EVENTS)
    ]


def _slices(
    found: Iterable[tuple[int, bytes, str]],
    told_apart: Sequence[Sequence[_Slice]],
    pseudonyms: Mapping[str, str],
    cutoff: int,
) -> Slices | None:
    """What the rows of `reading` say; None where they say that a key is crowded."""
    rows: dict[tuple[str, str], bytes] = {}
    first_seen: dict[str, int | None] = {kind: None for kind in pseudonyms if kind in ENTITIES}
    snapshot = customer_seen = customer_latest = 0
    transactions = ""
    for slot, packed, note in found:
        if slot < ENTITY:
            if note is None:
                continue
            if len(note) > MOST_ROWS:
                return None
            start = 0
            for digit, size, pair, is_asked_for in told_apart[slot]:
                if count := note.count(digit):
                    end = start + count * size
                    if is_asked_for:
                        rows[pair] = packed[start:end]
                    start = end
        elif slot < SNAPSHOT:
            kind = KEYS[slot - ENTITY]
            seen, moved, latest = map(int, note.split())
            first_seen[kind] = seen if seen < cutoff else None
            if kind == "customer":
                customer_seen, customer_latest = moved, latest
        else:
            highest, _, transactions = note.partition(" ")
            snapshot = int(highest)
    return Slices(
        rows, first_seen, pseudonyms, snapshot, customer_seen, customer_latest,
        transactions or None,
    )  # fmt: skip
