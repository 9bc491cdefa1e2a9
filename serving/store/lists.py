"""The block and allow lists: entities that analysts decided about, until an entry expires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sqlalchemy import Connection, bindparam, delete, select

from features.events import ENTITIES
from serving.store.database import Database
from serving.store.identifiers import Identifiers
from serving.store.schema import identifiers, lists

ListName: TypeAlias = Literal["block", "allow"]

_COLUMNS: Final = ("value", "list", "entity", "reason", "created_at", "expires_at")


@dataclass(frozen=True, slots=True)
class ListEntry:
    """An entity on a list; ``value`` is its pseudonym, times are epoch milliseconds."""

    value: str
    list: ListName
    entity: str
    reason: str
    created_at: int
    expires_at: int | None


class Lists:
    """The lists of one database. Holds no state of its own."""

    def __init__(self, database: Database, pseudonyms_of: Identifiers) -> None:
        self._database = database
        self._identifiers = pseudonyms_of

    def put(
        self,
        connection: Connection,
        list: ListName,
        entity: str,
        original: str,
        *,
        reason: str,
        at: int,
        expires_at: int | None = None,
    ) -> ListEntry:
        """Add an entity to a list, or renew its entry."""
        if entity not in ENTITIES:
            raise ValueError(f"entity: expected one of {', '.join(ENTITIES)}, got {entity!r}")
        mac = self._identifiers.mac(entity, original)
        entry = ListEntry(mac, list, entity, reason, at, expires_at)
        row = tuple(getattr(entry, name) for name in _COLUMNS)
        statement = self._database.inserting(lists, _COLUMNS, "replace")
        self._database.run(connection, statement, row)
        # Analysts list entities that no event has named yet; their page shows the original.
        columns = ("kind", "mac", "key_id", "ciphertext")
        sealed = (entity, mac, self._identifiers.key_id,
                  self._identifiers.seal(entity, mac, original))  # fmt: skip
        statement = self._database.inserting(identifiers, columns, "ignore")
        self._database.run(connection, statement, sealed)
        return entry

    def remove(self, connection: Connection, list: ListName, entity: str, original: str) -> bool:
        """Take an entity off a list; returns whether it was on it."""
        mac = self._identifiers.mac(entity, original)
        gone = delete(lists).where(lists.c.value == mac, lists.c.list == list)
        return connection.execute(gone).rowcount > 0

    def matching(
        self, connection: Connection, keys: Mapping[str, str], at: int
    ) -> tuple[ListEntry, ...]:
        """The entries in force at ``at`` about any of these entities (kind -> original)."""
        wanted = [self._identifiers.mac(k, keys[k]) if keys.get(k) else None for k in ENTITIES]
        prepared = self._database.prepared(
            "matching_lists",
            lambda: select(*(lists.c[name] for name in _COLUMNS)).where(
                lists.c.value.in_([bindparam(f"id{i}") for i in range(len(ENTITIES))])
            ),
        )
        rows = self._database.run(connection, prepared, tuple(wanted))
        found = (ListEntry(*row) for row in rows)
        return tuple(e for e in found if e.expires_at is None or e.expires_at > at)

    def entries(self, connection: Connection, list: ListName) -> tuple[ListEntry, ...]:
        """Everything on a list, the newest entry first, expired ones included."""
        columns = [lists.c[name] for name in _COLUMNS]
        statement = (
            select(*columns)
            .where(lists.c.list == list)
            .order_by(lists.c.created_at.desc(), lists.c.value)
        )
        return tuple(ListEntry(*row) for row in connection.execute(statement))
