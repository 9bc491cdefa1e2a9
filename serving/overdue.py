"""What waits too long for a person: told once a review, by one process of several."""

from __future__ import annotations

import secrets
import time
from typing import Final

import structlog

from serving import announcements
from serving.lookout import Repeated
from serving.store.database import STORE_UNAVAILABLE
from serving.store.reviews import Review
from serving.store.store import Store

EVERY_SECONDS: Final = 30.0
LEASE: Final = "overdue reviews"
_AT_ONCE: Final = 200

log = structlog.get_logger()


class OverdueWatch:
    """Announces the reviews of one store that were to be done by now, from start to stop.

    In a store with the clock ``event`` the present tells no age, so nothing is late there.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._holder = secrets.token_hex(8)
        self._repeated = Repeated("overdue-reviews", EVERY_SECONDS, self._look)

    def start(self) -> None:
        """Begin; the first look comes after `EVERY_SECONDS`."""
        if self._store.clock == "ingest":
            self._repeated.start()

    def stop(self) -> None:
        """End, after the transaction that is under way."""
        self._repeated.stop()

    def _look(self) -> None:
        self.look(time.time_ns() // 10**6)

    def look(self, at: int) -> int:
        """Announce what is late by ``at`` (epoch ms), unless another process does that.

        Returns how many were announced.
        """
        told = 0
        try:
            while (late := self._late(at)) and self._leads(at):
                if not (part := self._tell(late, at)):
                    break
                told += part
        except STORE_UNAVAILABLE as error:
            log.error("overdue_not_told", error=type(error).__name__)
        if told:
            log.info("reviews_overdue", reviews=told)
        return told

    def _leads(self, at: int) -> bool:
        return self._store.leases.take(LEASE, self._holder, at, int(EVERY_SECONDS * 2_000))

    def _late(self, at: int) -> list[Review]:
        with self._store.reading() as tx:
            return tx.overdue_reviews(at, _AT_ONCE)

    def _tell(self, late: list[Review], at: int) -> int:
        """Announce these in one transaction; each may have ended since it was looked for."""
        told = 0
        with self._store.write() as tx:
            for review in sorted(late, key=lambda one: one.score_id):
                if tx.told_overdue(review, at):
                    tx.announce("review.overdue", announcements.review_overdue(
                        review.refund_id, review.score_id, review.due_at,
                        review.expected_loss_minor), at)  # fmt: skip
                    told += 1
        return told
