"""Which events belong to which keys, and from when: attribution, event by event as they arrive.

`features.attribution` says the same for whole tables; the tests hold the two equal. An event's own
columns are its direct keys, from its own ``known_at``. An outcome, return, dispute, label or
transaction that names a refund, or else an order, inherits the keys it lacks from the first
version of what it names, from the later of the two ``known_at``, also when that arrives last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from features.attribution import STREAM_KEYS
from features.events import COLUMN_OF, ENTITIES

INHERITED: Final[Mapping[str, tuple[str, ...]]] = {
    "refund_request": (*(COLUMN_OF[entity] for entity in ENTITIES), "order_id"),
    "order": tuple(COLUMN_OF[entity] for entity in ENTITIES),
}
"""The columns inherited from a named refund, and from a named order."""

_ENTITY_COLUMNS: Final = tuple((entity, COLUMN_OF[entity]) for entity in ENTITIES)
_INDEXED: Final = {
    event_type: tuple((key, COLUMN_OF[key]) for key in keys)
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

    key_kind: str
    key_value: str
    event_type: str
    known_at: int
    own_known_at: int
    event_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it is stored: its payload is under pseudonyms."""

    seq: int
    event_id: str
    event_type: str
    known_at: int
    payload: Mapping[str, Any]

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

    def direct_rows(self) -> list[KeyRow]:
        """Index rows of the event's own keys."""
        return self._rows(self.payload, self.known_at)

    def inherited_rows(self, named: StoredEvent) -> list[KeyRow]:
        """Index rows of the keys the event lacks and the event it names has."""
        lacking = inherited(self.payload, named.event_type, named.payload)
        return self._rows(lacking, max(self.known_at, named.known_at))

    def _rows(self, columns: Mapping[str, Any], known_at: int) -> list[KeyRow]:
        own = self.event_type, known_at, self.known_at, self.event_id, self.seq
        return [
            KeyRow(kind, columns[column], *own)
            for kind, column in _INDEXED[self.event_type]
            if column in columns
        ]


class Attribution:
    """Attribution as events arrive.

    ``first`` holds the first version of every order and refund that the coming events are or name,
    ``waiting`` the earlier events that name one of them which is still to arrive.

    >>> outcome = StoredEvent(1, "e1", "refund_outcome", 10, {"refund_id": "r"})
    >>> request = StoredEvent(2, "e2", "refund_request", 20, {"refund_id": "r", "customer_id": "c"})
    >>> arriving = Attribution({}, ())
    >>> [row.key_kind for row in arriving.add(outcome)]
    ['refund']
    >>> for row in arriving.add(request):
    ...     print(row.key_kind, row.event_type, row.known_at)
    customer refund_request 20
    refund refund_request 20
    customer refund_outcome 20
    """

    def __init__(
        self, first: Mapping[Name, StoredEvent], waiting: Iterable[tuple[Name, StoredEvent]]
    ) -> None:
        self._first = dict(first)
        self._waiting: dict[Name, list[StoredEvent]] = {}
        for name, event in waiting:
            self._waiting.setdefault(name, []).append(event)

    def add(self, event: StoredEvent) -> list[KeyRow]:
        """The index rows that this event's arrival adds."""
        own = event.own_name()
        if own is not None:
            return self._add_named(own, event)
        rows = event.direct_rows()
        name = event.names()
        if name is not None:
            named = self._first.get(name)
            if named is None:
                self._waiting.setdefault(name, []).append(event)
            else:
                rows += event.inherited_rows(named)
        return rows

    def _add_named(self, own: Name, event: StoredEvent) -> list[KeyRow]:
        if own in self._first:
            return []  # a later version: the refund, or order, counts once
        self._first[own] = event
        rows = [] if event.payload.get("ignore") else event.direct_rows()
        for earlier in self._waiting.pop(own, ()):
            rows += earlier.inherited_rows(event)
        return rows
