"""What a worker looks at time and again beside the decisions: its stores and their rates.

Each has a thread of its own, so that a database which does not answer holds up nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any, Final, Literal

import structlog

from features.money import Rates, RatesError
from serving.clock import Clock
from serving.desk import Desk
from serving.metrics import Metrics, StoreName
from serving.store.database import STORE_UNAVAILABLE
from serving.store.store import Store
from serving.store.vitals import Vitals, rates_mark, sizes, vitals

STORE_SECONDS: Final = 2.0
"""How often a store is asked whether it takes writes."""

LATE_SECONDS: Final = 6.0
"""How long it may take to answer before it counts as unreachable: longer than writers wait."""

RATES_SECONDS: Final = 5.0
"""How often the exchange rates of a store are looked at."""

CARRY_SECONDS: Final = 1.0
"""How often what was counted is handed over to Prometheus."""

log = structlog.get_logger()


class Repeated:
    """Does something every so many seconds, on a thread of its own, until it is stopped."""

    def __init__(self, name: str, seconds: float, act: Callable[[], None]) -> None:
        self._seconds, self._act = seconds, act
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first time is ``seconds`` from now."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is being done, which is waited for no longer than `LATE_SECONDS`."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(LATE_SECONDS)

    def _repeat(self) -> None:
        while not self._ending.wait(self._seconds):
            try:
                self._act()
            except Exception as error:  # what fails once is tried again
                log.error("look_failed", look=self._thread.name, exc_info=error)


class StoreWatch:
    """Whether a store takes writes, and how far behind it is; asked beside the decisions."""

    def __init__(self, name: StoreName, store: Store, clock: Clock, metrics: Metrics) -> None:
        self._name, self._store = name, store
        self._clock, self._metrics = clock, metrics
        self._began: float | None = None
        self._problem: str | None = None
        self._repeated = Repeated(f"store-watch-{name}", STORE_SECONDS, self.look)

    @property
    def is_up(self) -> bool:
        """Whether the store took the last write that was tried, and the present one is not late."""
        began = self._began
        return self._problem is None and (began is None or time.monotonic() - began < LATE_SECONDS)

    def start(self) -> None:
        """Look now, and then every `STORE_SECONDS`."""
        self.look()
        self._repeated.start()

    def stop(self) -> None:
        """Look no more."""
        self._repeated.stop()

    def look(self) -> None:
        """Ask the store once, and let the gauges show what it says."""
        self._began = began = time.monotonic()
        problem = None
        try:
            found = vitals(self._store.database)
            self._gauge("store_probe_seconds", time.monotonic() - began)
            if self._store.clock == "ingest" and found.latest_known_at is not None:
                # What another worker told before this one's time is over here too.
                self._clock.at_least(found.latest_known_at)
            self._show(found)
        except STORE_UNAVAILABLE as error:
            problem = type(error).__name__
        self._began = None
        self._tell(problem)
        self._gauge("store_up", problem is None)

    def _tell(self, problem: str | None) -> None:
        if problem is not None and self._problem is None:
            log.error("store_unreachable", store=self._name, error=problem)
        elif problem is None and self._problem is not None:
            log.warning("store_reachable_again", store=self._name)
        self._problem = problem

    def _show(self, found: Vitals) -> None:
        now = self._clock.now()
        waiting, oldest_ms, dead = self._store.outbox_lag(now)
        reviews, overdue = self._store.reviews_waiting(now)
        since = now if found.unsealed_since is None else found.unsealed_since
        shown = {
            "audit_unsealed": found.unsealed,
            "audit_unsealed_seconds": max(0, now - since) / 1000,
            "outbox_pending": waiting,
            "outbox_oldest_seconds": oldest_ms / 1000,
            "outbox_dead": dead,
            "reviews_waiting": reviews,
            "reviews_overdue": overdue,
            **sizes(self._store.database),
        }
        for gauge, value in shown.items():
            self._gauge(gauge, value)
        self._metrics.gauges["clock_ahead_seconds"].set(max(0.0, self._clock.ahead_seconds()))

    def _gauge(self, name: str, value: float) -> None:
        self._metrics.gauges[name].labels(self._name).set(value)


class RatesWatch:
    """Takes up exchange rates that were imported while the service runs, for one desk.

    A desk holds its rates for good, so it is replaced by one that differs in nothing else; a
    decision keeps the desk that it began with. Rates that cannot be converted by change nothing.
    """

    def __init__(self, desks: MutableMapping[Any, Desk], mode: Literal["live", "test"]) -> None:
        self._desks, self._mode = desks, mode
        self._settled: tuple[Any, ...] | None = None
        self._repeated = Repeated(f"rates-watch-{mode}", RATES_SECONDS, self.look)

    def start(self) -> None:
        """Look now, and then every `RATES_SECONDS`."""
        self.look()
        self._repeated.start()

    def stop(self) -> None:
        """Look no more."""
        self._repeated.stop()

    def look(self) -> None:
        """Take up what changed since the last look; what is refused is logged once."""
        desk = self._desks[self._mode]
        try:
            with desk.store.database.read() as connection:
                mark = rates_mark(connection)
            if mark == self._settled:
                return
            rates = Rates.of(desk.rates.base, desk.store.fx_rates())
        except STORE_UNAVAILABLE:
            return  # `StoreWatch` tells of it
        except RatesError as error:
            self._settled = mark
            log.error("rates_refused", mode=self._mode, reason=str(error), then="the old ones stay")
            return
        if rates != desk.rates:
            self._desks[self._mode] = replace(desk, rates=rates)
            log.info("rates_taken_up", mode=self._mode, rates=mark[0], until=mark[1])
        self._settled = mark
