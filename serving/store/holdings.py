"""What a store holds about one customer: found in whole, also where no index leads to it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import orjson
from sqlalchemy import ColumnElement, Connection, Select, func, literal_column, or_, select

from features.events import COLUMN_OF, ENTITIES, EVENTS
from serving.store.database import Database
from serving.store.indexing import NAMING_COLUMN, SLICE_OF, Name, StoredEvent
from serving.store.schema import decisions, event_keys, events, idempotency_keys

Person: TypeAlias = tuple[str, str]
"""A kind of entity and a pseudonym."""

MOST_SOUGHT: Final = 200
"""For so many pseudonyms the database searches; for more every document is read and parsed."""

_IN_ONE_TEXT: Final = 40
"""How many texts one condition looks for in another."""

AT_ONCE: Final = 500
"""How many ids one statement names."""

_PART: Final = 10_000

_LATE_MS: Final = 10_000
"""So much earlier than the latest the time of a result may be that is committed after it: longer
than writers wait, whose clock on SQLite is one machine's."""

_NAMES_NOTHING: Final = '"data":{"recorded":'
"""Stands in the answer to a report that names neither an order nor a refund, as it is kept."""

_COLUMNS: Final = tuple(
    events.c[name] for name in ("seq", "event_id", "event_type", "known_at", "payload")
)
_BEARING: Final = tuple(
    event_type
    for event_type, event in EVENTS.items()
    if any(COLUMN_OF[entity] in event.model_fields for entity in ENTITIES)
)
"""The types of events that have a column for a person."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a look reached: the last event, and on SQLite the last decision, in the file.

    ``result`` is the latest time of an idempotency key's first result (epoch ms).
    """

    event: int
    decision: int
    result: int


@dataclass(frozen=True)
class Holdings:
    """What a store holds about a customer.

    ``own`` are their pseudonyms, theirs alone: the customer's, and those of e-mail, device, payment
    method, address and IP that no other customer's event bears. ``seqs`` are the events that bear
    one of these or are about the customer's orders and refunds, ``about`` those, ``decided`` the
    decisions on the customer's requests. ``results`` are the idempotency keys that got one of
    these, or an answer that names one of the orders and refunds; and all whose answer names
    neither, of which nobody can tell whose they are.
    """

    customer: str
    own: frozenset[Person]
    seqs: tuple[int, ...]
    about: frozenset[Name]
    decided: tuple[str, ...]
    results: tuple[tuple[str, str], ...]
    seen: Seen

    @property
    def names(self) -> set[tuple[str, str]]:
        """What writers lock before they append what belongs to these holdings."""
        named = {(NAMING_COLUMN[name.kind], name.value) for name in self.about}
        return {("customer", self.customer)} | named


def holdings_of(database: Database, connection: Connection, customer: str) -> Holdings:
    """All that is held about a customer, by their pseudonym.

    Events and decisions are looked through from first to last, since later versions of an order
    and ignored refunds are in no index: it takes some two seconds for a million of each, locks
    nothing, and may miss what is written meanwhile, which `have_moved` tells.
    """
    look = _Look(database, connection)
    seen = look.reach()
    own: set[Person] = {("customer", customer)}
    tried = set(own)
    mine = look.of_key("customer", customer)
    while True:
        about = _orders_and_refunds(mine)
        naming = look.naming(about)
        owners = look.owners([*mine, *naming])
        theirs = [e for e in (*mine, *naming) if owners[e.seq] == customer]
        new = {person for e in theirs for person in _persons(e)} - tried
        tried |= new
        own |= {person for person in new if not look.is_anothers(person, customer)}
        found = list(look.bearing(own, after=0))
        now = [e for e in found if e.payload.get("customer_id") == customer]
        if {e.seq for e in now} <= {e.seq for e in mine}:
            break
        mine = now
    owners = look.owners(found)
    strangers = [e for e in found if owners[e.seq] not in (customer, None)]
    own -= {person for e in strangers for person in _persons(e)}
    seqs = {e.seq for e in found if not own.isdisjoint(_persons(e))} | {e.seq for e in theirs}
    decided = look.decided(customer, after=0)
    results = look.results(decided, about)
    return Holdings(customer, frozenset(own), tuple(sorted(seqs)), frozenset(about),
                    tuple(sorted(decided)), tuple(sorted(results)), seen)  # fmt: skip


def have_moved(database: Database, connection: Connection, holdings: Holdings) -> bool:
    """Whether there is more, or other, to be found by now.

    SQLite has one writer at a time, so what is new is what was written last; on PostgreSQL what
    began earlier may commit later, so all is looked through once more.
    """
    if not database.is_sqlite:
        again = holdings_of(database, connection, holdings.customer)
        return _content(again) != _content(holdings)
    look, after = _Look(database, connection), holdings.seen
    results = look.results(holdings.decided, holdings.about, since=after.result - _LATE_MS)
    if not set(results) <= set(holdings.results):
        return True
    if look.reach() == after:
        return False
    bearing = next(look.bearing(holdings.own, after=after.event), None)
    known = set(holdings.seqs)
    return (
        bearing is not None
        or any(e.seq not in known for e in look.naming(holdings.about) if e.seq > after.event)
        or bool(look.decided(holdings.customer, after=after.decision))
    )


def _content(one: Holdings) -> tuple[object, ...]:
    return one.own, one.seqs, one.about, one.decided, one.results


class _Look:
    """The statements of one look at a store."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._connection = connection
        self._is_sqlite = database.is_sqlite
        self._holds = func.instr if database.is_sqlite else func.strpos

    def reach(self) -> Seen:
        """How far there is anything to see."""
        last = self._connection.execute(select(func.max(events.c.seq))).scalar()
        if not self._is_sqlite:
            return Seen(last or 0, 0, 0)
        decided = select(func.max(_ROWID)).select_from(decisions)
        kept = select(func.max(idempotency_keys.c.created_at))
        return Seen(last or 0, self._connection.execute(decided).scalar() or 0,
                    self._connection.execute(kept).scalar() or 0)  # fmt: skip

    def of_key(self, kind: str, value: str) -> list[StoredEvent]:
        """Events that the index has under an entity and that bear it themselves."""
        found = select(event_keys.c.event_id).where(
            event_keys.c.slice.in_(slices_of(kind)), event_keys.c.key_value == value
        )
        indexed = _stored(self._run(select(*_COLUMNS).where(events.c.event_id.in_(found))))
        return [e for e in indexed if e.payload.get(COLUMN_OF[kind]) == value]

    def is_anothers(self, person: Person, customer: str) -> bool:
        """Whether the index has an order or a refund of another customer under an entity."""
        kind, value = person
        of_anybody = [SLICE_OF[kind, event_type] for event_type in NAMING_COLUMN]
        statement = (
            select(events.c.seq)
            .join(event_keys, event_keys.c.event_id == events.c.event_id)
            .where(event_keys.c.slice.in_(of_anybody), event_keys.c.key_value == value,
                   self._holds(events.c.payload, customer) == 0)
            .limit(1)
        )  # fmt: skip
        return self._connection.execute(statement).first() is not None

    def naming(self, about: Iterable[Name]) -> list[StoredEvent]:
        """The events that name these orders and refunds, and are none themselves."""
        found = []
        for kind, column in NAMING_COLUMN.items():
            ids = [name.value for name in about if name.kind == kind]
            for part in in_parts(ids):
                statement = select(*_COLUMNS).where(
                    events.c[column].in_(part), events.c.event_type.not_in(list(NAMING_COLUMN))
                )
                if kind == "order":  # one that names both is about the refund
                    statement = statement.where(events.c.refund_id.is_(None))
                found += _stored(self._run(statement))
        return found

    def bearing(self, persons: Collection[Person], after: int) -> Iterator[StoredEvent]:
        """The events that bear one of these pseudonyms in a column of its kind."""
        wanted = frozenset(persons)
        statement = select(*_COLUMNS).where(events.c.event_type.in_(_BEARING))
        if len(wanted) <= MOST_SOUGHT:
            statement = statement.where(events.c.seq > after, self._bears(wanted))
            parts: Iterable[Sequence[Any]] = [self._run(statement.order_by(events.c.seq))]
        else:
            parts = self._part_by_part(statement, after)
        for rows in parts:
            for event in _stored(rows):
                if not wanted.isdisjoint(_persons(event)):
                    yield event

    def _bears(self, persons: Collection[Person]) -> ColumnElement[bool]:
        """Whether a payload holds one of many values, each looked for in one go."""
        if self._is_sqlite:
            by_kind: dict[str, list[str]] = {}
            for kind, value in sorted(persons):
                by_kind.setdefault(kind, []).append(value)
            return or_(
                *(func.json_extract(events.c.payload, f"$.{COLUMN_OF[kind]}").in_(values)
                  for kind, values in by_kind.items())
            )  # fmt: skip
        return events.c.payload.regexp_match("|".join(sorted(value for _, value in persons)))

    def _part_by_part(self, statement: Select[Any], after: int) -> Iterator[Sequence[Any]]:
        while True:
            rows = self._run(
                statement.where(events.c.seq > after).order_by(events.c.seq).limit(_PART)
            )
            if not rows:
                return
            yield rows
            after = rows[-1][0]

    def owners(self, of: Iterable[StoredEvent]) -> dict[int, str | None]:
        """Whose each event is, by its number: its own customer's, else that of what it names."""
        found = list(of)
        named = {name for e in found if "customer_id" not in e.payload and (name := e.names())}
        first: dict[Name, StoredEvent] = {}
        for kind, column in NAMING_COLUMN.items():
            ids = [name.value for name in named if name.kind == kind]
            for part in in_parts(ids):
                statement = select(*_COLUMNS).where(
                    events.c[column].in_(part), events.c.event_type == kind
                )
                for version in _stored(self._run(statement)):
                    name = Name(kind, version.payload[column])
                    if name not in first or version.is_before(first[name]):
                        first[name] = version
        return {e.seq: _owner(e, first) for e in found}

    def decided(self, customer: str, after: int) -> list[str]:
        """The decisions whose grounds name a customer."""
        statement = select(decisions.c.score_id).where(
            self._holds(decisions.c.record, f'"{customer}"') > 0
        )
        if self._is_sqlite:
            statement = statement.where(after < _ROWID)
        return [score_id for (score_id,) in self._run(statement)]

    def results(
        self, decided: Sequence[str], about: Iterable[Name], since: int = 0
    ) -> set[tuple[str, str]]:
        """The idempotency keys of ``Holdings.results``, of a time from ``since`` on."""
        keys = idempotency_keys.c
        named = [f'"{_ANSWERED_AS[name.kind]}":{orjson.dumps(name.value).decode()}'
                 for name in about]  # fmt: skip
        found = set()
        for part in in_parts([_NAMES_NOTHING, *decided, *named], _IN_ONE_TEXT):
            statement = select(keys.api_key_id, keys.key).where(
                keys.created_at >= since, self._any_in(keys.response, part)
            )
            found |= {(api_key_id, key) for api_key_id, key in self._run(statement)}
        return found

    def _any_in(self, column: ColumnElement[str], sought: Iterable[str]) -> ColumnElement[bool]:
        return or_(*(self._holds(column, one) > 0 for one in sought))

    def _run(self, statement: Any) -> Sequence[Any]:
        return self._connection.execute(statement).fetchall()


_ANSWERED_AS: Final = {"order": "orderId", "refund_request": "refundId"}
"""What an answer to a report calls what it names."""

_ROWID: Final[ColumnElement[int]] = literal_column("decisions.rowid")


def slices_of(kind: str) -> list[int]:
    """The numbers of the slices that a kind of entity has in the index of keys."""
    return [number for (key, _), number in SLICE_OF.items() if key == kind]


def in_parts(values: Sequence[T], size: int = AT_ONCE) -> Iterator[Sequence[T]]:
    """Values, at most so many at a time."""
    return (values[start : start + size] for start in range(0, len(values), size))


def _stored(rows: Iterable[Any]) -> list[StoredEvent]:
    return [StoredEvent(r[0], r[1], r[2], r[3], orjson.loads(r[4])) for r in rows]


def _persons(event: StoredEvent) -> set[Person]:
    return set(event.direct_entities())


def _orders_and_refunds(of: Iterable[StoredEvent]) -> set[Name]:
    return {name for event in of if (name := event.own_name())}


def _owner(event: StoredEvent, first: dict[Name, StoredEvent]) -> str | None:
    own: str | None = event.payload.get("customer_id")
    if own is not None:
        return own
    name = event.names()
    named = first.get(name) if name else None
    return None if named is None else named.payload["customer_id"]
