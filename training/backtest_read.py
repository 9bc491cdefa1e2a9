"""The rows of a stored stretch of time, read and decided anew: here, or in processes of a pool.

A process of the pool imports no more than this file needs.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Final

from rules.backtest import backtest
from rules.logged import Logged
from rules.policy import Policy
from serving.facts import FACTS
from serving.logged import reader
from serving.store.database import Database
from serving.store.decisions import Decisions
from training.backtest_rows import FACTS as SEGMENT_FACTS
from training.backtest_rows import Recorder, Rows
from training.policy_log import Logging

Stretch = tuple[int, int]
"""From when, until before when (epoch ms)."""


@dataclass(frozen=True)
class Reading:
    """Decides what a log holds under two policies; the seed picks possible examples."""

    log: Decisions
    before: Policy
    after: Policy
    seed: int

    @property
    def reads(self) -> Collection[str]:
        """The facts that are taken out of a record: what either policy reads, and segments."""
        names = {*self.before.reads, *self.after.reads, *SEGMENT_FACTS}
        return frozenset(names | Logging.of(self.after).reads)

    def rows(self, stretch: Stretch) -> Rows:
        """The rows of one stretch of time."""
        take, unreadable, logging = reader(self.reads), 0, Logging.of(self.after)

        def readable() -> Iterator[Logged]:
            nonlocal unreadable
            for raw in self.log.raw_between(*stretch):
                logged = take(raw)
                if logged is None:
                    unreadable += 1
                else:
                    yield logged

        recorder = Recorder(self.before, self.after, self.seed)
        for compared in backtest(self.before, self.after, logging.watching(readable())):
            recorder.add(compared)
        return recorder.rows(unreadable, logging)


def is_as_written(policy: Policy) -> bool:
    """Whether another process that reads the policy's document has this policy.

    One made by `Policy.with_mode` or `Policy.without` is no document.
    """
    return Policy.from_yaml(policy.text, facts=FACTS).hash == policy.hash


@contextmanager
def without_cycle_collection() -> Iterator[None]:
    """Millions of small objects and no cycle among them: looking for some takes a tenth."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def pool(processes: int, url: str, before: Policy, after: Policy, seed: int
         ) -> Iterator[ProcessPoolExecutor]:  # fmt: skip
    """Processes that turn stretches of a store's log into rows by `rows_of`."""
    documents = (url, before.text, after.text, seed)
    with ProcessPoolExecutor(processes, get_context("spawn"), _prepare, documents) as executor:
        yield executor


_READING: Final[list[Reading]] = []
"""That of this process of the pool. Policies cannot be sent, so it reads their documents."""


def _prepare(url: str, before: str, after: str, seed: int) -> None:
    gc.disable()  # see `without_cycle_collection`
    read = partial(Policy.from_yaml, facts=FACTS)
    _READING.append(Reading(Decisions(Database(url)), read(before), read(after), seed))


def rows_of(stretch: Stretch) -> Rows:
    """The rows of one stretch of time, in a process of the pool."""
    return _READING[0].rows(stretch)
