"""The block and allow lists: entities that analysts decided about, until an entry expires."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Final, Literal, NamedTuple, TypeAlias

from sqlalchemy import Connection, bindparam, delete, func, or_, select, tuple_

from features.events import ENTITIES
from serving.store.database import Database
from serving.store.identifiers import Identifiers
from serving.store.schema import identifiers, lists

ListName: TypeAlias = Literal["block", "allow"]

_COLUMNS: Final = ("value", "list", "entity", "reason", "created_at", "expires_at", "author")
_VALUES: Final = attrgetter(*_COLUMNS)


@dataclass(frozen=True, slots=True)
class ListEntry:
    """An entity on a list; ``value`` is its pseudonym, times are epoch milliseconds.

    ``author`` is who put it there: None where a program did that did not ask.
    """

    value: str
    list: ListName
    entity: str
    reason: str
    created_at: int
    expires_at: int | None
    author: str | None

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands among a list's entries: what `Lists.entries` goes on after."""
        return self.created_at, self.value

    def is_in_force(self, at: int) -> bool:
        """Whether the entry counts at this instant: from ``expires_at`` on it does not.

        >>> entry = ListEntry("pseudonym", "block", "email", "fraud", 1, 10, "ann")
        >>> entry.is_in_force(9), entry.is_in_force(10)
        (True, False)
        """
        return self.expires_at is None or at < self.expires_at


class NewEntry(NamedTuple):
    """An entity to put on a list: ``original`` is its id as backends send it."""

    entity: str
    original: str
    reason: str
    expires_at: int | None = None


class Lists:
    """The lists of one database. Holds no state of its own."""

    def __init__(self, database: Database, pseudonyms_of: Identifiers) -> None:
        self._database = database
        self._identifiers = pseudonyms_of

    # --- changing ----------------------------------------------------------------------------

    def put(
        self, connection: Connection, list: ListName, new: Iterable[NewEntry], *,
        author: str, at: int,
    ) -> tuple[ListEntry, ...]:  # fmt: skip
        """Put entities on a list, or renew their entries; of one entity the last entry counts.

        Returns the entries as they now stand. Raises `ValueError` for what is no entity.
        """
        found: dict[str, tuple[ListEntry, NewEntry]] = {}
        for one in new:
            if one.entity not in ENTITIES:
                expected = ", ".join(ENTITIES)
                raise ValueError(f"entity: expected one of {expected}, got {one.entity!r}")
            mac = self._identifiers.mac(one.entity, one.original)
            entry = ListEntry(mac, list, one.entity, one.reason, at, one.expires_at, author)
            found[mac] = entry, one
        rows = [_VALUES(entry) for entry, _ in found.values()]
        # In key order: two who put the same entities on a list then wait, and never in a circle.
        rows.sort(key=itemgetter(0, 1))
        run_many, inserting = self._database.run_many, self._database.inserting
        run_many(connection, inserting(lists, _COLUMNS, "replace"), rows)
        # Analysts list entities that no event has named yet; their page shows the original.
        key_id, seal = self._identifiers.key_id, self._identifiers.seal
        sealed = sorted((e.entity, mac, key_id, seal(e.entity, mac, one.original))
                        for mac, (e, one) in found.items())  # fmt: skip
        columns = ("kind", "mac", "key_id", "ciphertext")
        run_many(connection, inserting(identifiers, columns, "ignore"), sealed)
        return tuple(entry for entry, _ in found.values())

    def remove(self, connection: Connection, list: ListName, value: str) -> str | None:
        """Take a pseudonym off a list; returns its kind of entity, None if it was not there."""
        gone = delete(lists).where(lists.c.value == value, lists.c.list == list)
        return connection.execute(gone.returning(lists.c.entity)).scalar()

    # --- reading -----------------------------------------------------------------------------

    def matching(
        self, connection: Connection, keys: Mapping[str, str], at: int
    ) -> tuple[ListEntry, ...]:
        """The entries in force at ``at`` about any of these entities (kind -> original)."""
        given = {kind: keys[kind] for kind in ENTITIES if keys.get(kind)}
        return self.of_pseudonyms(connection, self._identifiers.macs(given), at)

    def of_pseudonyms(
        self, connection: Connection, pseudonyms: Mapping[str, str], at: int
    ) -> tuple[ListEntry, ...]:
        """As `matching`, of entities whose pseudonyms are known (kind -> pseudonym)."""
        wanted = [pseudonyms.get(kind) for kind in ENTITIES]
        prepared = self._database.prepared(
            "matching_lists",
            lambda: select(*(lists.c[name] for name in _COLUMNS)).where(
                lists.c.value.in_([bindparam(f"id{i}") for i in range(len(ENTITIES))])
            ),
        )
        rows = self._database.run(connection, prepared, tuple(wanted))
        return tuple(entry for row in rows if (entry := ListEntry(*row)).is_in_force(at))

    def entries(
        self,
        connection: Connection,
        list: ListName,
        *,
        entity: str | None = None,
        in_force_at: int | None = None,
        over_at: int | None = None,
        limit: int | None = None,
        after: tuple[int, str] | None = None,
    ) -> tuple[ListEntry, ...]:
        """The entries of a list, the newest first; see `Store.list_entries`."""
        place = tuple_(lists.c.created_at, lists.c.value)
        statement = (
            select(*(lists.c[name] for name in _COLUMNS))
            .where(lists.c.list == list)
            .order_by(lists.c.created_at.desc(), lists.c.value.desc())
            .limit(limit)
        )
        if entity is not None:
            statement = statement.where(lists.c.entity == entity)
        if in_force_at is not None:
            expires = lists.c.expires_at
            statement = statement.where(or_(expires.is_(None), expires > in_force_at))
        if over_at is not None:
            statement = statement.where(lists.c.expires_at <= over_at)
        if after is not None:
            statement = statement.where(place < tuple_(*after))
        return tuple(ListEntry(*row) for row in connection.execute(statement))

    def count_put(self, connection: Connection, list: ListName, at: int) -> int:
        """How many entries were put on a list, or renewed, at an instant (epoch ms)."""
        put = select(func.count()).where(lists.c.list == list, lists.c.created_at == at)
        return connection.execute(put).scalar_one()
