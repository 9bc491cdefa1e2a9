"""Leases: what only one process of several may do at a time, such as sending webhooks.

A process that holds a lease renews it; one that dies lets it run out. No process waits for another,
and none is asked whether it lives. A holder that is stopped for longer than its lease and then goes
on does not know that it lost it: what is done under a lease must bear to be done twice.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, delete, or_, select

from serving.store.database import Database
from serving.store.schema import leases


class Leases:
    """The leases of one database. Holds no state of its own.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> database = Database(f"sqlite:///{folder.name}/s.db")
    >>> database.create("key", "ingest")
    >>> leases = Leases(database)
    >>> leases.take("webhooks", "a", at=0, ms=100), leases.take("webhooks", "b", at=99, ms=100)
    (True, False)
    >>> leases.take("webhooks", "b", at=100, ms=100), leases.take("webhooks", "a", at=100, ms=100)
    (True, False)
    >>> leases.give_back("webhooks", "b"); leases.take("webhooks", "a", at=100, ms=100)
    True
    >>> database.close(); folder.cleanup()
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, name: str, holder: str, at: int, ms: int) -> bool:
        """Whether ``holder`` has the lease until ``at + ms``: taken anew, or renewed.

        A lease that ends further ahead than any is given for was taken by a clock that was wrong,
        and counts for nothing.
        """
        find = self._database.prepared(
            "lease",
            lambda: select(leases.c.holder, leases.c.until_at).where(
                leases.c.name == bindparam("name")
            ),
        )
        with self._database.read() as connection:  # most who ask are not the holder: no lock yet
            held = self._database.run(connection, find, (name,))
        if held and held[0][0] != holder and at < held[0][1] <= at + 2 * ms:
            return False
        with self._database.write() as connection:
            return self._taken(connection, (name, holder, at + ms), at, ms)

    def _taken(self, connection: Connection, row: tuple[str, str, int], at: int, ms: int) -> bool:
        def free(new: Any) -> tuple[dict[str, Any], Any]:
            changes = {"holder": new.holder, "until_at": new.until_at}
            # What is compared are columns alone: the text of the statement is rendered once.
            over = or_(
                leases.c.holder == new.holder,
                leases.c.until_at <= new.until_at - new.ms,
                leases.c.until_at > new.until_at + new.ms,
            )
            return changes, over

        columns = ("name", "holder", "until_at", "ms")
        statement = self._database.upserting(leases, columns, free)
        self._database.run(connection, statement, (*row, ms))
        kept = connection.execute(select(leases.c.holder).where(leases.c.name == row[0]))
        return bool(kept.scalar_one() == row[1])

    def give_back(self, name: str, holder: str) -> None:
        """Let another take the lease at once."""
        gone = delete(leases).where(leases.c.name == name, leases.c.holder == holder)
        with self._database.write() as connection:
            connection.execute(gone)
