"""The audit log: who did what to what, appended in the transaction of what it records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Connection, select

from serving.store.database import Database
from serving.store.schema import audit_log

_COLUMNS: Final = ("at", "actor", "action", "subject", "content")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry. ``content`` must hold no identifier of a person."""

    at: int
    actor: str
    action: str
    subject: str
    content: Mapping[str, Any]


class AuditLog:
    """The audit log of one database. Holds no state of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, connection: Connection, entry: AuditEntry) -> None:
        """Add an entry."""
        self.append_many(connection, [entry])

    def append_many(self, connection: Connection, entries: Iterable[AuditEntry]) -> None:
        """Add entries, in this order."""
        rows = [(e.at, e.actor, e.action, e.subject, orjson.dumps(e.content).decode())
                for e in entries]  # fmt: skip
        self._database.run_many(connection, self._database.inserting(audit_log, _COLUMNS), rows)

    def about(self, connection: Connection, subject: str) -> list[AuditEntry]:
        """The entries about one subject, oldest first."""
        columns = [audit_log.c[name] for name in _COLUMNS]
        statement = select(*columns).where(audit_log.c.subject == subject).order_by(audit_log.c.seq)
        rows = connection.execute(statement).fetchall()
        return [AuditEntry(r[0], r[1], r[2], r[3], orjson.loads(r[4])) for r in rows]
