"""The service's time: it never goes back, and no jump of the system's clock carries it off.

Histories are read by ``known_at`` alone. A clock that goes back would hide the newest events from
the next request, and one that leaps ahead would make all windows empty at once. So a step of the
system's clock is not followed for `BELIEVE_SECONDS`: one that is taken back in that time does
nothing. After that it is believed, a step back by waiting until the system's time has caught up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

STEP_SECONDS: Final = 30
"""A change of the system's clock against the steady one that counts as a step."""

BELIEVE_SECONDS: Final = 600
"""How long a step has to stand until it is followed."""

FARTHEST_AHEAD_SECONDS: Final = 86_400
"""How far ahead of the system's clock a store may lead this one."""

_SECOND_NS: Final = 10**9

log = structlog.get_logger()


def steady_ns() -> int:
    """Nanoseconds that nobody sets; where the system can tell, sleep counts too."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.monotonic_ns()


class Clock:
    """The time of arrival in epoch ms, never the same twice: each request sees those before it.

    ``read_ns`` gives the system's time, ``steady`` one that no step moves; both in ns.

    >>> clock = Clock(lambda: 7_000_000, lambda: 0)  # stands still at 7 ms
    >>> clock.now(), clock.now(), clock.ahead_seconds()
    (7, 8, 0.001)
    """

    def __init__(
        self, read_ns: Callable[[], int] = time.time_ns, steady: Callable[[], int] = steady_ns
    ) -> None:
        self._read_ns, self._steady = read_ns, steady
        self._last = 0
        self._offset = read_ns() - steady()
        self._doubted: tuple[int, int] | None = None
        """The offset that is not believed yet, and since when."""
        self._one_at_a_time = threading.Lock()

    def now(self) -> int:
        """The present, or a millisecond after what was told last."""
        with self._one_at_a_time:
            self._last = max(self._last + 1, self._trusted_ns() // 1_000_000)
            return self._last

    def at_least(self, known_at: int) -> None:
        """Tell no time up to ``known_at`` (epoch ms) any more: it was told already, by another.

        One that is `FARTHEST_AHEAD_SECONDS` ahead is not followed: some clock was wrong when it
        was told, and this one would stay wrong for as long.
        """
        with self._one_at_a_time:
            if known_at <= self._last:
                return
            ahead = known_at / 1000 - self._trusted_ns() / _SECOND_NS
            if ahead < FARTHEST_AHEAD_SECONDS:
                self._last = max(self._last, known_at)

    def ahead_seconds(self) -> float:
        """How far what was told last is ahead of the system's time; negative where it is behind."""
        with self._one_at_a_time:
            return (self._last - self._read_ns() // 1_000_000) / 1000

    def _trusted_ns(self) -> int:
        wall, steady = self._read_ns(), self._steady()
        offset = wall - steady
        if abs(offset - self._offset) < STEP_SECONDS * _SECOND_NS:
            if self._doubted is not None:
                log.warning("clock_step_taken_back")
            self._offset, self._doubted = offset, None
            return wall
        if self._doubted is None or abs(offset - self._doubted[0]) >= STEP_SECONDS * _SECOND_NS:
            self._doubted = offset, steady
            self._tell("clock_stepped", offset, "it is not followed unless it lasts")
        elif steady - self._doubted[1] >= BELIEVE_SECONDS * _SECOND_NS:
            self._tell("clock_step_believed", offset, "it lasted")
            self._offset, self._doubted = offset, None
            return wall
        return steady + self._offset

    def _tell(self, event: str, offset: int, then: str) -> None:
        log.error(event, seconds=round((offset - self._offset) / _SECOND_NS, 1), then=then)
