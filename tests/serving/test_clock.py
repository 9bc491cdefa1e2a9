"""The service's time: whatever the system's clock does, it goes on, and no history disappears."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.clock import BELIEVE_SECONDS, FARTHEST_AHEAD_SECONDS, STEP_SECONDS, Clock

START_MS = 1_780_000_000_000
HOUR_MS = 3_600_000


@dataclass
class System:
    """A machine's two clocks, in ms."""

    wall: int = START_MS
    steady: int = 5_000

    def passes(self, ms: int) -> None:
        self.wall += ms
        self.steady += ms

    def clock(self) -> Clock:
        return Clock(lambda: self.wall * 1_000_000, lambda: self.steady * 1_000_000)


@pytest.mark.parametrize("step_ms", [HOUR_MS, -HOUR_MS, 365 * 24 * HOUR_MS])
def test_a_step_that_is_taken_back_is_never_followed(step_ms):
    system = System()
    clock = system.clock()
    first = clock.now()
    system.wall += step_ms
    for _ in range(5):
        system.passes(60_000)
        clock.now()
    assert clock.now() - first in range(300_001, 300_010)
    system.wall -= step_ms
    system.passes(1_000)
    assert clock.now() == system.wall


def test_a_step_ahead_that_lasts_is_followed():
    system = System()
    clock = system.clock()
    clock.now()
    system.wall += HOUR_MS
    before = clock.now()
    system.passes(BELIEVE_SECONDS * 1000)
    assert clock.now() == system.wall
    assert system.wall - before == HOUR_MS + BELIEVE_SECONDS * 1000 - 1


def test_after_a_step_back_that_lasts_time_waits_and_says_by_how_much():
    system = System()
    clock = system.clock()
    clock.now()
    system.wall -= HOUR_MS
    clock.now()
    system.passes(BELIEVE_SECONDS * 1000)
    last = clock.now()
    assert last == START_MS + 2, "it waits for the system's time, a millisecond a request"
    assert clock.ahead_seconds() == pytest.approx(3_000, abs=1)
    system.passes(HOUR_MS)
    assert clock.now() == system.wall


def test_the_clock_follows_what_drifts():
    system = System()
    clock = system.clock()
    for _ in range(100):
        system.passes(10_000)
        system.wall += STEP_SECONDS * 100  # a tenth of a step each time
        assert clock.now() == system.wall


def test_a_restart_after_a_step_back_tells_no_time_again():
    system = System()
    stored = system.clock().now()
    system.wall -= HOUR_MS
    clock = system.clock()
    clock.at_least(stored)
    assert clock.now() == stored + 1


def test_a_store_from_the_far_future_is_not_followed():
    system = System()
    clock = system.clock()
    clock.at_least(START_MS + (FARTHEST_AHEAD_SECONDS + 60) * 1000)
    assert clock.now() == system.wall


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(-(10**9), 10**9)), max_size=20))
def test_time_only_ever_goes_on(happenings):
    system = System()
    clock = system.clock()
    told = [clock.now()]
    for passes, step in happenings:
        system.passes(passes)
        system.wall += step
        told.append(clock.now())
    assert all(later > earlier for earlier, later in itertools.pairwise(told))
