"""Letting go in the background: once an hour one process of several looks at some of the store."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Final

import structlog

from serving.settings import Settings
from serving.store.database import STORE_UNAVAILABLE
from serving.store.erasure import forget_log
from serving.store.keys import PROGRAM
from serving.store.retention import Keep, apply
from serving.store.store import Store

EVERY_SECONDS: Final = 3_600.0
LEASE: Final = "retention"

log = structlog.get_logger()


def keep_of(settings: Settings) -> Keep:
    """How long the settings keep each table.

    >>> keep_of(Settings(retention_days_events=400)).events
    400
    """
    return Keep(
        events=settings.retention_days_events,
        decisions=settings.retention_days_decisions,
        idempotency=settings.retention_days_idempotency,
        audit=settings.retention_days_audit,
        lists=settings.retention_days_lists,
    )


class RetentionWatch:
    """Applies the retention of one store each hour, on a thread of its own, from start to stop."""

    def __init__(self, store: Store, keep: Keep) -> None:
        self._store, self._keep = store, keep
        self._holder = secrets.token_hex(8)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="retention", daemon=True)

    def start(self) -> None:
        """Begin; the first pass comes after an hour."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the transaction that is under way."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._ending.wait(EVERY_SECONDS):
            self.look(time.time_ns() // 10**6)

    def look(self, at: int) -> bool:
        """One pass as of ``at`` (epoch ms), unless another process has had its turn this hour.

        Returns whether there was a pass. What fails is logged, and tried again in an hour.
        """
        try:
            # Held for most of the hour and not given back: so the others have none in it.
            if not self._store.leases.take(LEASE, self._holder, at, int(EVERY_SECONDS * 900)):
                return False
            applied = apply(self._store, self._keep, at=at, actor=PROGRAM, whole=False,
                            pause=self._pause)  # fmt: skip
            forget_log(self._store.database)
        except InterruptedError:
            return False
        except STORE_UNAVAILABLE as error:
            log.error("retention_failed", error=type(error).__name__)
            return False
        except Exception as error:  # a fault of ours: the thread goes on
            log.error("retention_failed", exc_info=error)
            return False
        if gone := {table: count for table, count in applied.rows.items() if count}:
            log.info("retention_applied", **gone)
        return True

    def _pause(self, seconds: float) -> None:
        if self._ending.wait(seconds):
            raise InterruptedError
