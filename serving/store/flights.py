"""Which idempotency keys are in flight, in whatever process: held by locks that die with it.

A row that says so would need a commit before each decision, and a lease for the row of a process
that was killed. A lock costs neither: the system, or the server, drops it with its holder.
"""

from __future__ import annotations

import os
import struct
import threading
from typing import Final

from sqlalchemy import Connection

from serving.store.database import STORE_UNAVAILABLE, Database, lock_number

try:
    import fcntl
except ImportError:  # not Unix: one process knows of its own flights only
    fcntl = None  # type: ignore[assignment]

_LOCK: Final = "hhqqi"
"""``struct flock`` of Linux: type, whence, start, length, process."""


class Flights:
    """What is under way over one store, by name. Threads may share it.

    On SQLite each is a lock on a byte of a file beside the database, which says nothing and stays
    empty; on PostgreSQL an advisory lock of a connection of its own.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> database = Database(f"sqlite:///{folder.name}/s.db")
    >>> ours, theirs = Flights(database), Flights(database)
    >>> ours.begin("a"), ours.begin("a"), theirs.begin("a"), theirs.begin("b")
    (True, False, False, True)
    >>> ours.end("a"); theirs.begin("a")
    True
    >>> ours.close(); theirs.close(); database.close(); folder.cleanup()
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._guard = threading.Lock()
        self._ours: set[int] = set()
        self._file: int | None = None
        self._connection: Connection | None = None

    def begin(self, name: str) -> bool:
        """Whether this flight may begin: False while one of its name is under way.

        Raises what `STORE_UNAVAILABLE` lists when PostgreSQL cannot be reached.
        """
        number = lock_number(("flight", name))
        with self._guard:
            if number in self._ours or not self._lock(number):
                return False
            self._ours.add(number)
            return True

    def end(self, name: str) -> None:
        """Let another of this name begin."""
        number = lock_number(("flight", name))
        with self._guard:
            if number in self._ours:
                self._ours.discard(number)
                self._unlock(number)

    def close(self) -> None:
        """End all that this process began."""
        with self._guard:
            self._ours.clear()
            if self._file is not None:
                os.close(self._file)
                self._file = None
            self._drop_connection()

    # --- locks -------------------------------------------------------------------------------

    def _lock(self, number: int) -> bool:
        if not self._database.is_sqlite:
            statement, is_new = "SELECT pg_try_advisory_lock(%s)", self._connection is None
            try:
                return self._ask(statement, number)
            except STORE_UNAVAILABLE:
                if is_new:
                    raise
            return self._ask(statement, number)  # the connection was cut off since its last use
        if fcntl is None:
            return True
        try:
            self._set(fcntl.F_WRLCK, number)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, number: int) -> None:
        if self._database.is_sqlite:
            if fcntl is not None:
                self._set(fcntl.F_UNLCK, number)
            return
        try:
            self._ask("SELECT pg_advisory_unlock(%s)", number)
        except STORE_UNAVAILABLE:
            return  # the lock went with the connection

    def _set(self, kind: int, number: int) -> None:
        """Lock or unlock a byte; the file need not be as long."""
        if self._file is None:
            path = f"{self._database.path}-flights"
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        place = number & 0x3FFF_FFFF_FFFF_FFFF
        if hasattr(fcntl, "F_OFD_SETLK"):  # of the open file, so that two stores in one process
            lock = struct.pack(_LOCK, kind, os.SEEK_SET, place, 1, 0)  # are told apart
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, lock)
        else:
            how = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
            fcntl.lockf(self._file, how, 1, place, os.SEEK_SET)

    def _ask(self, statement: str, number: int) -> bool:
        if self._connection is None:
            self._connection = self._database.session()
        try:
            return bool(self._connection.exec_driver_sql(statement, (number,)).scalar())
        except STORE_UNAVAILABLE:
            self._drop_connection()
            raise

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
