"""Which events belong to which keys, and from when: attribution, event by event as they arrive.

`features.attribution` says the same for whole tables; the tests hold the two equal. An event's own
columns are its direct keys, from its own ``known_at``. An outcome, return, dispute, label or
transaction that names a refund, or else an order, inherits the keys it lacks from the first
version of what it names, from the later of the two ``known_at``, also when that arrives last. The
first version is the one known first: when that arrives after another, what the other gave is taken
back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from features.attribution import STREAM_KEYS
from features.events import COLUMN_OF, ENTITIES, EVENTS, KEYS
from features.packed import pack

INHERITED: Final[Mapping[str, tuple[str, ...]]] = {
    "refund_request": (*(COLUMN_OF[entity] for entity in ENTITIES), "order_id"),
    "order": tuple(COLUMN_OF[entity] for entity in ENTITIES),
}
"""The columns inherited from a named refund, and from a named order."""

_MOST_EVENT_TYPES: Final = 16

SLICE_OF: Final[Mapping[tuple[str, str], int]] = {
    (key, event_type): _MOST_EVENT_TYPES * place + rank
    for place, key in enumerate(KEYS)
    for rank, event_type in enumerate(EVENTS)
}
"""The number of a (key, event type) in the table ``event_keys``: small, so that SQLite keeps it in
one byte. Stores are full of them: KEYS and EVENTS may be added to at their ends, never reordered.
"""

_ENTITY_COLUMNS: Final = tuple((entity, COLUMN_OF[entity]) for entity in ENTITIES)
_INDEXED: Final = {
    event_type: tuple((SLICE_OF[key, event_type], COLUMN_OF[key]) for key in keys)
    for event_type, keys in STREAM_KEYS.items()
}

NAMING_COLUMN: Final = {"order": "order_id", "refund_request": "refund_id"}
"""The events that others name, and the column that holds the name."""


def inherited(
    payload: Mapping[str, Any], named_type: str, named: Mapping[str, Any]
) -> dict[str, Any]:
    """The key columns that an event lacks and the thing it names has.

    >>> order = {"order_id": "o1", "customer_id": "c", "amount_minor": 5}
    >>> inherited({"order_id": "o1"}, "order", order)
    {'customer_id': 'c'}
    """
    return {
        column: named[column]
        for column in INHERITED[named_type]
        if column in named and column not in payload
    }


class Name(NamedTuple):
    """What an event names: ``kind`` is the event type of the named thing."""

    kind: str
    value: str


class KeyRow(NamedTuple):
    """A row of the table ``event_keys``."""

    slice: int
    key_value: str
    known_at: int
    own_known_at: int
    event_id: str
    packed: bytes


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it is stored: its payload is under pseudonyms."""

    seq: int
    event_id: str
    event_type: str
    known_at: int
    payload: Mapping[str, Any]

    def is_before(self, other: StoredEvent) -> bool:
        """Whether this is the earlier of two versions: known first, at a tie the lower id."""
        return (self.known_at, self.event_id) < (other.known_at, other.event_id)

    def own_name(self) -> Name | None:
        """The name under which others refer to this event, if it is an order or a refund."""
        column = NAMING_COLUMN.get(self.event_type)
        return Name(self.event_type, self.payload[column]) if column else None

    def names(self) -> Name | None:
        """The refund, or else the order, that this event is about."""
        if self.event_type in NAMING_COLUMN:
            return None
        if refund_id := self.payload.get("refund_id"):
            return Name("refund_request", refund_id)
        if order_id := self.payload.get("order_id"):
            return Name("order", order_id)
        return None

    def direct_entities(self) -> Iterator[tuple[str, str]]:
        """The entities in the event's own columns, as (kind, value)."""
        for kind, column in _ENTITY_COLUMNS:
            if value := self.payload.get(column):
                yield kind, value

    def rows(self, named: StoredEvent | None) -> list[KeyRow]:
        """Index rows of the event's own keys, and of those it lacks and ``named`` has."""
        refund = named.payload if named and named.event_type == "refund_request" else None
        rows = self._rows(self.payload, self.known_at, refund)
        if named is not None:
            lacking = inherited(self.payload, named.event_type, named.payload)
            rows += self._rows(lacking, max(self.known_at, named.known_at), refund)
        return rows

    def _rows(
        self, columns: Mapping[str, Any], at: int, refund: Mapping[str, Any] | None
    ) -> list[KeyRow]:
        held = [
            (s, columns[column]) for s, column in _INDEXED[self.event_type] if column in columns
        ]
        if not held:
            return []
        packed = pack(self.event_type, self.payload, at, refund)
        return [KeyRow(s, value, at, self.known_at, self.event_id, packed) for s, value in held]


def names_of(events: Iterable[StoredEvent]) -> set[Name]:
    """Every order and refund that the events are or name."""
    return {name for event in events for name in (event.own_name(), event.names()) if name}


def rows_of(event: StoredEvent, first: Mapping[Name, StoredEvent]) -> list[KeyRow]:
    """All index rows of an event, where ``first`` holds the first versions of what it is or names.

    A later version of an order or refund has none: it counts once. Nor has an ignored refund.
    """
    own, name = event.own_name(), event.names()
    if own is not None and (first[own].seq != event.seq or event.payload.get("ignore")):
        return []
    return event.rows(first.get(name) if name else None)


class Attribution:
    """Attribution as events arrive.

    ``first`` holds the first version of every order and refund that the coming events are or name;
    ``about`` the stored events that name one of them whose first version is still to arrive.

    >>> outcome = StoredEvent(1, "e1", "refund_outcome", 10, {"refund_id": "r"})
    >>> asked = {"refund_id": "r", "customer_id": "c", "amount_minor": 5, "currency": "GBP"}
    >>> request = StoredEvent(2, "e2", "refund_request", 20, asked)
    >>> pairs = {number: pair for pair, number in SLICE_OF.items()}
    >>> arriving = Attribution({}, ())
    >>> arriving.add(outcome)
    >>> arriving.add(request)
    >>> for row in arriving.rows():
    ...     print(*pairs[row.slice], row.known_at)
    refund refund_outcome 10
    customer refund_request 20
    refund refund_request 20
    customer refund_outcome 20
    >>> arriving.add(StoredEvent(3, "e3", "refund_request", 15, {**asked, "customer_id": "d"}))
    >>> [(*pairs[row.slice], row.known_at) for row in arriving.gone()]
    [('customer', 'refund_request', 20), ('refund', 'refund_request', 20), \
('customer', 'refund_outcome', 20)]
    """

    def __init__(
        self, first: Mapping[Name, StoredEvent], about: Iterable[tuple[Name, StoredEvent]]
    ) -> None:
        self._first = dict(first)
        self._about: dict[Name, list[StoredEvent]] = {}
        for name, event in about:
            self._about.setdefault(name, []).append(event)
        self._rows: dict[tuple[Any, ...], KeyRow] = {}
        self._gone: dict[tuple[Any, ...], KeyRow] = {}

    def rows(self) -> list[KeyRow]:
        """The index rows that the events' arrival adds, or changes."""
        return list(self._rows.values())

    def gone(self) -> list[KeyRow]:
        """The index rows that are to be taken away."""
        return list(self._gone.values())

    def add(self, event: StoredEvent) -> None:
        """Take in an event.

        What names an order or refund whose first version it is gets the rows it inherits, and the
        rows it has once more: an outcome's own is packed with the refund's money.
        """
        own, name = event.own_name(), event.names()
        if name is not None:
            self._about.setdefault(name, []).append(event)
        about: list[StoredEvent] = []
        if own is not None:
            before = self._first.get(own)
            if before is None or event.is_before(before):
                about = self._about.get(own, [])
                if before is not None:
                    self._take_away(rows_of(before, self._first))
                    for earlier in about:
                        self._take_away(earlier.rows(before))
                self._first[own] = event
        self._put(rows_of(event, self._first))
        for earlier in about:
            self._put(earlier.rows(event))

    def _put(self, rows: Iterable[KeyRow]) -> None:
        for row in rows:
            self._gone.pop(row[:-1], None)
            self._rows[row[:-1]] = row

    def _take_away(self, rows: Iterable[KeyRow]) -> None:
        for row in rows:
            self._rows.pop(row[:-1], None)
            self._gone[row[:-1]] = row
