"""Who sends the webhooks: one process of several, each endpoint by a line of its own.

The process that holds the lease sends. One that is killed is succeeded within seconds, and what it
had not marked as delivered is sent again under the same ``webhook-id``. An endpoint that is slow or
gone holds up nobody else.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import httpx
import structlog
from sqlalchemy import select

from serving import announcements
from serving.models import Models
from serving.settings import Settings
from serving.store.audit import AuditEntry
from serving.store.database import STORE_UNAVAILABLE
from serving.store.outbox import Attempt, Delivery, Endpoint
from serving.store.schema import meta
from serving.store.store import Store
from serving.webhooks import (
    AT_ONCE,
    DAY_MS,
    HOUR_MS,
    SECOND_MS,
    TIMEOUT_SECONDS,
    Came,
    Line,
    headers_of,
    judged,
)

LOOK_SECONDS: Final = 0.5
"""How often the outbox is looked at."""

LEASE_MS: Final = 15 * SECOND_MS
"""After so long without a sign of life another process sends."""

STOP_SECONDS: Final = 3.0
"""How long what is under way may take when the service stops; the rest is sent again later."""

LEASE: Final = "webhooks"
MOST_REMOVED: Final = 500
"""How many rows are removed in one transaction, which others wait for."""

_MODEL_TOLD: Final = "model_told"

log = structlog.get_logger()

T = TypeVar("T")


def announce_model(store: Store, version: str | None, at: int) -> bool:
    """Announce the model that decides now, if another was known to decide before, or none.

    Returns whether it was announced. Which one was known is kept in the store, so a promotion is
    told once, whoever sends and whenever it starts. A store that never knew of any takes note of
    what it finds and tells nobody.
    """
    find = select(meta.c.value).where(meta.c.name == _MODEL_TOLD)
    keep = store.database.inserting(meta, ("name", "value"), "replace")
    with store.database.write() as connection:
        store.database.lock(connection, [(_MODEL_TOLD,)])
        before = connection.execute(find).scalar()
        if before == (version or "") or (before and version is None):
            return False
        store.database.run(connection, keep, (_MODEL_TOLD, version or ""))
        if before is None or version is None:
            return False
        data = announcements.model_promoted(version, before or None)
        store.outbox.announce(connection, "model.promoted", data, at)
    return True


def _now_ms() -> int:
    return time.time_ns() // 10**6


class Sender:
    """Sends the webhooks of one store, as one of several processes that could.

    ``serving`` gives the version of the model that decides here, so that a promotion is announced
    by whoever sends; None where there is none.
    """

    def __init__(
        self,
        store: Store,
        *,
        allow_private: bool = False,
        keep_days: int = 14,
        serving: Callable[[], str | None] = lambda: None,
        now: Callable[[], int] = _now_ms,
        draw: Callable[[], float] = random.random,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._store, self._allow_private, self._keep_ms = store, allow_private, keep_days * DAY_MS
        self._serving, self._now, self._draw, self._timeout = serving, now, draw, timeout
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._is_leader, self._asked_at = False, 0
        self._swept_at = 0
        self._told_model: str | None = "not asked yet"
        self._lines: dict[str, tuple[str, Line]] = {}
        self._busy: dict[str, asyncio.Task[int]] = {}
        self._files = ThreadPoolExecutor(2, thread_name_prefix="webhooks-store")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._is_unreachable = False

    def start(self) -> None:
        """Send what is due from now on, on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is under way, within seconds, and let another process send."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._watch())

    async def _watch(self) -> None:
        while not self._ending.is_set():
            await self._look_safely()
            for _ in range(10):  # a wait that an end cuts short
                if not self._ending.is_set():
                    await asyncio.sleep(LOOK_SECONDS / 10)
        await self.close()

    async def _look_safely(self) -> None:
        try:
            await self.look()
            self._is_unreachable = False
        except STORE_UNAVAILABLE as error:
            if not self._is_unreachable:
                log.error("webhooks_store_unreachable", reason=type(error).__name__,
                          then="it is asked again at each look")  # fmt: skip
            self._is_unreachable = True
        except Exception:  # the store holds anything; the sender outlives it
            log.exception("webhooks_look_failed")

    async def close(self) -> None:
        """End the lines and give the lease back."""
        if self._busy:
            _, late = await asyncio.wait(self._busy.values(), timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for _, line in self._lines.values():
            line.close()
        if self._is_leader:
            with suppress(*STORE_UNAVAILABLE):  # it runs out by itself
                await self._stored(partial(self._store.leases.give_back, LEASE, self._holder))
        self._files.shutdown(wait=True)

    async def _stored(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._files, work)

    # --- looking -----------------------------------------------------------------------------

    async def look(self) -> None:
        """Set every endpoint's line to work on what is due, if this process is the one to send."""
        if not await self._lead():
            return
        await self._tell_model()
        endpoints = [one for one in await self._stored(self._endpoints) if one.disabled_at is None]
        for endpoint_id in self._lines.keys() - {one.id for one in endpoints}:
            if endpoint_id not in self._busy:
                self._lines.pop(endpoint_id)[1].close()
        for one in endpoints:
            if one.id not in self._busy:
                task = asyncio.create_task(self._drain(one))
                self._busy[one.id] = task
                task.add_done_callback(partial(self._drained, one.id))
        await self._sweep()

    async def settled(self) -> None:
        """Wait until all that was due at the last look has been tried."""
        while self._busy:
            await asyncio.wait(list(self._busy.values()))

    def _endpoints(self) -> list[Endpoint]:
        with self._store.database.read() as connection:
            return self._store.outbox.endpoints(connection)

    async def _lead(self) -> bool:
        """Whether this process is the one to send: asked, or renewed, three times in a lease."""
        at = self._now()
        if not 0 <= at - self._asked_at < LEASE_MS // 3 or not self._asked_at:
            take = partial(self._store.leases.take, LEASE, self._holder, at, LEASE_MS)
            was, self._is_leader = self._is_leader, False  # unless the store says so now
            self._is_leader = await self._stored(take)
            self._asked_at = at
            if self._is_leader != was:
                log.info("webhooks_sender", leads=self._is_leader, worker=os.getpid())
        return self._is_leader

    async def _tell_model(self) -> None:
        """Announce a model that decides now and did not when one was last announced."""
        version = self._serving()
        if version != self._told_model:
            await self._stored(partial(announce_model, self._store, version, self._now()))
            self._told_model = version

    async def _sweep(self) -> None:
        """Remove what was delivered or given up long ago, a little at each look once an hour."""
        at = self._now()
        if 0 <= at - self._swept_at < HOUR_MS and self._swept_at:
            return

        def remove() -> int:
            with self._store.database.write() as connection:
                before = at - self._keep_ms
                return self._store.outbox.remove(connection, before, MOST_REMOVED)

        if await self._stored(remove) < MOST_REMOVED:
            self._swept_at = at

    # --- sending -----------------------------------------------------------------------------

    async def _drain(self, endpoint: Endpoint) -> int:
        """Send an endpoint all that is due, some at a time; returns how many were tried."""
        tried = 0
        while self._is_leader and not self._ending.is_set():
            due, secrets = await self._stored(partial(self._due, endpoint, self._now()))
            if not due:
                break
            tried += len(due)
            line = self._line(endpoint)
            to = await line.resolved()
            sent = await asyncio.gather(*(self._send(line, to, one, secrets) for one in due))
            gone = any(came.is_gone for came, _ in sent)
            attempts = [attempt for _, attempt in sent]
            await self._stored(partial(self._settle, endpoint, attempts, gone))
            if gone or len(due) < AT_ONCE:
                break
        return tried

    def _due(self, endpoint: Endpoint, at: int) -> tuple[list[Delivery], list[str]]:
        with self._store.database.read() as connection:
            due = self._store.outbox.due(connection, endpoint.id, at, AT_ONCE)
            return due, self._store.outbox.secrets_of(connection, endpoint.id, at) if due else []

    def _line(self, endpoint: Endpoint) -> Line:
        kept = self._lines.get(endpoint.id)
        if kept is None or kept[0] != endpoint.url:
            line = Line(endpoint.url, allow_private=self._allow_private, timeout=self._timeout)
            kept = self._lines[endpoint.id] = endpoint.url, line
        return kept[1]

    async def _send(
        self, line: Line, to: httpx.URL | Came, delivery: Delivery, secrets: Sequence[str]
    ) -> tuple[Came, Attempt]:
        if isinstance(to, Came):
            came = to
        else:
            headers = headers_of(delivery.webhook_id, delivery.payload, secrets, self._now())
            came = await line.post(to, delivery.payload, headers)
        return came, judged(delivery, came, self._now(), self._draw())

    def _settle(self, endpoint: Endpoint, attempts: Sequence[Attempt], is_gone: bool) -> None:
        outbox, at = self._store.outbox, self._now()
        with self._store.database.write() as connection:
            outbox.settle(connection, attempts)
            if is_gone and outbox.disable(connection, endpoint.id, "it answered 410 Gone", at):
                subject, content = f"webhook:{endpoint.id}", {"why": "410 Gone"}
                entry = AuditEntry(at, "recourse", "webhook_disabled", subject, content)
                self._store.audit_log.append(connection, entry)
        if is_gone:
            log.warning("webhook_endpoint_gone", endpoint=endpoint.id, then="it is told no more")
        for one in attempts:
            if not one.is_delivered and one.next_at is None and not is_gone:
                log.error("webhook_given_up", endpoint=endpoint.id, outcome=one.outcome,
                          webhook_id=one.delivery.webhook_id)  # fmt: skip

    def _drained(self, endpoint_id: str, task: asyncio.Task[int]) -> None:
        self._busy.pop(endpoint_id, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, STORE_UNAVAILABLE):  # that is said anyway
            log.error("webhooks_line_failed", endpoint=endpoint_id, reason=type(error).__name__,
                      then="what is due is sent at the next look")  # fmt: skip


def sender_of(store: Store, models: Models, settings: Settings) -> Sender:
    """What sends a store's webhooks in a worker, if no other worker does."""

    def serving() -> str | None:
        champion = models.now.champion
        return champion.version if champion else None

    return Sender(
        store, allow_private=settings.webhook_allow_private,
        keep_days=settings.webhook_keep_days, serving=serving,
    )  # fmt: skip
