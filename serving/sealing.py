"""Sealing the audit log: one process of several seals each second what was appended since.

It works beside the decisions: it reads without a lock, and its transactions hold 500 seals at most.
What it did not come to before a crash it seals after the restart. After each sealing the head of
the chain is exported (`serving.heads`).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.exc import IntegrityError

from serving.heads import MOST_LINES, Head, HeadFile
from serving.store.audit import KeptEntry
from serving.store.database import STORE_UNAVAILABLE
from serving.store.seals import Seal, SealKeys, Seals
from serving.store.store import Store

LEASE: Final = "audit"
LEASE_MS: Final = 10_000
EVERY_SECONDS: Final = 1.0
AT_ONCE: Final = 500
PAUSE_SECONDS: Final = 0.02
"""Between two transactions, for those who decide: 20,000 entries a second are sealed all the same,
faster than any service appends them."""

_SETTLING_SECONDS: Final = 0.005
_SETTLING_TRIES: Final = 20

log = structlog.get_logger()


def now_ms() -> int:
    """The present, in epoch ms."""
    return time.time_ns() // 10**6


class ChainMovedError(Exception):
    """Another process sealed meanwhile."""


class Sealer:
    """Seals one store's audit log, from `start` to `stop`, as long as it holds the lease.

    ``secret`` is the store's, ``head`` the file that the head is exported to.
    """

    def __init__(
        self, store: Store, secret: bytes, head: Path, *, now: Callable[[], int] = now_ms
    ) -> None:
        self._store, self._secret, self._now = store, secret, now
        self._seals = Seals(store.database)
        self._file = HeadFile(head)
        self._holder = secrets.token_hex(8)
        self._leads_until = 0
        self._keys = SealKeys(secret)
        self._last: Seal | None = None
        self._sealed_by_us: Head | None = None
        self._exported = 0
        self._lines = 0
        self._settling: tuple[int, frozenset[str]] | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="audit-sealer", daemon=True)

    # --- a thread of its own -----------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Seal what there is, let another process take over, and come back."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self._try()
        self.give_up()

    def _go_on(self) -> None:
        while not self._ending.wait(EVERY_SECONDS):
            self._try()

    def _try(self) -> None:
        try:
            self.seal()
        except ChainMovedError:
            log.warning("audit_sealed_by_another", store=self._file.path.stem)
        except (*STORE_UNAVAILABLE, OSError) as error:
            log.error("audit_not_sealed", error=type(error).__name__, store=self._file.path.stem)
        except Exception as error:
            log.error("audit_not_sealed", exc_info=error, store=self._file.path.stem)

    def give_up(self) -> None:
        """Let another process seal."""
        self._last, self._settling = None, None
        if self._leads_until:
            self._leads_until = 0
            try:
                self._store.leases.give_back(LEASE, self._holder)
            except STORE_UNAVAILABLE:
                return  # it runs out by itself

    # --- sealing -----------------------------------------------------------------------------

    def seal(self) -> int | None:
        """Seal what can be sealed now; returns how many entries, None where another process seals.

        Raises `ChainMovedError` where another did meanwhile, KeyLostError, and what
        `STORE_UNAVAILABLE` lists.
        """
        if not self._leads():
            return None
        if self._last is None:
            self._take_up()
        count, until = 0, self._settled()
        while until is not None and (entries := self._next(until)):
            self._last = self._sealed(self._position, entries)
            count += len(entries)
            if len(entries) < AT_ONCE or not self._leads():
                break
            time.sleep(PAUSE_SECONDS)
        if self._position.position > self._exported:
            self._export(self._position)
        return count

    @property
    def _position(self) -> Seal:
        if self._last is None:
            raise RuntimeError("the chain was not taken up")
        return self._last

    def _leads(self) -> bool:
        at = self._now()
        if at + LEASE_MS // 2 < self._leads_until <= at + LEASE_MS:
            return True
        if self._store.leases.take(LEASE, self._holder, at, LEASE_MS):
            self._leads_until = at + LEASE_MS
            return True
        self._leads_until, self._last = 0, None
        return False

    def _take_up(self) -> None:
        """Begin where the chain ends; what was exported and is not in it is told.

        So is what this process sealed itself: if the chain is cut off while the service runs, and
        the file is taken away, the next file has it.
        """
        if self._sealed_by_us is not None and not self._fits(self._sealed_by_us):
            self._file.append(self._sealed_by_us)
        heads = self._file.read()
        with self._store.database.read() as connection:
            self._keys = SealKeys.kept(connection, self._secret)
            last = self._seals.last(connection)
        for head in heads[-1:]:
            if not self._fits(head):
                log.error("audit_head_differs", exported_at=head.at, exported=head.position,
                          found=last.position, see="recourse audit verify")  # fmt: skip
        if last.position and not heads:
            log.warning("audit_head_missing", found=last.position, see="recourse audit verify")
        self._last, self._lines = last, len(heads)
        self._exported = heads[-1].position if heads and self._fits(heads[-1]) else 0

    def _settled(self) -> int | None:
        """The ``seq`` up to which nobody can append any more, None where somebody still may.

        SQLite has one writer at a time, so what is seen is settled. On PostgreSQL whoever drew a
        lower ``seq`` may commit it later; they hold a lock on the table until then, which only
        those do who append to it or erase from it. No decision waits for this.
        """
        database = self._store.database
        with database.read() as connection:
            if database.is_sqlite:
                return self._store.audit_log.last_seq(connection)
            for _ in range(_SETTLING_TRIES):
                if self._settling is None:
                    last = self._store.audit_log.last_seq(connection)
                    self._settling = last, database.writers(connection, "audit_log")
                last, writers = self._settling
                if not writers or not writers & database.writers(connection, "audit_log"):
                    self._settling = None
                    return last
                time.sleep(_SETTLING_SECONDS)
        return None

    def _next(self, until: int) -> list[KeptEntry]:
        with self._store.database.read() as connection:
            return self._store.audit_log.after(connection, self._position.seq, until, AT_ONCE)

    def _sealed(self, last: Seal, entries: list[KeptEntry]) -> Seal:
        """Seal these entries after ``last``; returns the new last seal."""
        seals, mac = [], last.mac
        for position, entry in enumerate(entries, last.position + 1):
            mac = self._keys.seal(mac, position, entry)
            seals.append(Seal(position, entry.seq, mac))
        try:
            with self._store.database.write() as connection:
                if self._seals.last(connection) != last:
                    raise ChainMovedError
                self._seals.add(connection, seals)
        except (ChainMovedError, IntegrityError):
            self._last = None
            raise ChainMovedError from None
        return seals[-1]

    # --- the head ----------------------------------------------------------------------------

    def _export(self, last: Seal) -> None:
        self._sealed_by_us = Head(self._now(), last.position, last.seq, last.mac.hex())
        self._file.append(self._sealed_by_us)
        self._exported = last.position
        self._lines += 1
        if self._lines > MOST_LINES:
            self._file.compact(self._fits)
            self._lines = len(self._file.read())

    def _fits(self, head: Head) -> bool:
        with self._store.database.read() as connection:
            found = self._seals.at(connection, head.position)
        return found is not None and (found.seq, found.mac.hex()) == (head.seq, head.mac)
