"""Decisions made together: those that wait for one another's commit share it.

A commit is what costs most of a small transaction: the disk is waited for, and pages that every
decision touches are written anew each time. So what waits is taken up at once: each job is prepared
by itself, outside the write lock; all are written in one transaction, one after another; and none
is answered before that is committed. Of jobs about one customer, device or order only the first
goes along, so each sees those before it as if it had come alone.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

import structlog

from serving.idempotency import Answer, KeyReusedError
from serving.store.database import STORE_UNAVAILABLE
from serving.store.store import Store, Transaction

OPTIMISTIC_TRIES: Final = 2
"""How often a job is prepared outside the write lock before it is done inside it."""

MOST_TOGETHER: Final = 16
"""How many share a commit: the write lock is held for no longer than they take."""

REST_SECONDS: Final = 0.0001
"""For so long a thread that has nothing to do leaves the interpreter to the event loop, which has
an answer to send, before it takes apart what that was made from: thousands of objects."""

T = TypeVar("T")

log = structlog.get_logger()


class MovedError(Exception):
    """What a job read had moved when it was to be written; nothing was written."""


REFUSALS: Final = (MovedError, KeyReusedError)
"""What `Job.write` raises before it has written anything."""


class Job(ABC):
    """Something to be answered once it is kept. Begun in the context of its request."""

    store: Store
    customer_id: str | None = None
    order_id: str | None = None

    def __init__(self) -> None:
        self.context: Context = copy_context()

    @abstractmethod
    def names(self) -> frozenset[tuple[str, str]]:
        """What the job is about, as column and value: two that share one take turns."""

    @abstractmethod
    def prepare(self) -> Answer | None:
        """Do what needs no lock; the answer, if that is settled without writing.

        Raises `MovedError` when what was read does not fit together.
        """

    @abstractmethod
    def write(self, tx: Transaction) -> Answer:
        """Write what was prepared; raises one of `REFUSALS` before it has written anything."""

    @abstractmethod
    def do(self, tx: Transaction) -> Answer:
        """Prepare and write under the lock."""

    @abstractmethod
    def end(self, result: Answer | Exception) -> None:
        """Take note of what came of it, once that is certain."""


Result = Answer | Exception


def together(jobs: Sequence[Job]) -> list[Result]:
    """Do jobs of one store; what became of each, in order.

    One that fails fails alone: if the shared transaction comes to nothing, each is written by
    itself, unless the store was out of reach. On PostgreSQL, which shares the commits of all its
    connections by itself, each is always written by itself: transactions that lock several
    customers could wait in a circle.
    """
    results: dict[int, Result] = {}
    waiting = dict(enumerate(jobs))
    for _ in range(OPTIMISTIC_TRIES):
        ready: dict[int, Job] = {}
        for number, job in waiting.items():
            found = _tried(job.context, job.prepare)
            if found is None:
                ready[number] = job
            elif not isinstance(found, MovedError):
                results[number] = found
        results |= {number: found for number, found in _written(ready).items()
                    if not isinstance(found, MovedError)}  # fmt: skip
        waiting = {number: job for number, job in waiting.items() if number not in results}
        if not waiting:
            break
    for number, job in waiting.items():
        results[number] = _tried(job.context, functools.partial(_done, job))
    for number, job in enumerate(jobs):
        failure = _tried(job.context, functools.partial(job.end, results[number]))
        if failure is not None:  # what was kept is kept, and is answered
            log.error("job_not_ended", exc_info=failure)
    return [results[number] for number in range(len(jobs))]


def alone(job: Job) -> Answer:
    """Do one job; raises what it raises."""
    (result,) = together([job])
    if isinstance(result, Exception):
        raise result
    return result


def _tried(context: Context, act: Callable[[], T]) -> T | Exception:
    try:
        return context.run(act)
    except Exception as error:  # is answered to whoever asked
        return error


def _done(job: Job) -> Answer:
    with job.store.write(job.customer_id, job.order_id) as tx:
        return job.do(tx)


def _written(jobs: dict[int, Job]) -> dict[int, Result]:
    """Write prepared jobs in one transaction."""
    if not jobs:
        return {}
    store = next(iter(jobs.values())).store
    if len(jobs) > 1 and not store.database.is_sqlite:
        return _each(jobs)
    results: dict[int, Result] = {}
    # One names what others must not write meanwhile; on SQLite nobody else writes anything.
    of = next((job.customer_id, job.order_id) for job in jobs.values()) if len(jobs) == 1 else ()
    try:
        with store.write(*of) as tx:
            for number, job in jobs.items():
                try:
                    results[number] = job.context.run(job.write, tx)
                except REFUSALS as refusal:
                    results[number] = refusal
    except STORE_UNAVAILABLE as error:
        return dict.fromkeys(jobs, error)
    except Exception as error:
        return dict.fromkeys(jobs, error) if len(jobs) == 1 else _each(jobs)
    return results


def _each(jobs: dict[int, Job]) -> dict[int, Result]:
    return {number: _written({number: job})[number] for number, job in jobs.items()}


# --- the thread ----------------------------------------------------------------------------------

Work = Callable[[], Any]


class _Waiting:
    """Something asked of the thread, and who waits for it."""

    __slots__ = ("context", "future", "job", "loop", "work")

    def __init__(self, work: Work, loop: asyncio.AbstractEventLoop | None) -> None:
        self.work, self.loop = work, loop
        self.context = copy_context()
        self.future: asyncio.Future[Any] | None = loop.create_future() if loop else None
        self.job: Job | None = None


class DeskThread:
    """The one thread on which the decisions of a process are made.

    The event loop stays free for health checks, and no two decisions of a process wait for each
    other's write lock. What is asked for is done in order, but that jobs which wait at the same
    time are done `together`.
    """

    def __init__(self, name: str = "desk") -> None:
        self._asked: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._is_open = True
        # A daemon, so that a process which fails before it closes does not hang.
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    async def ask(self, work: Work) -> Any:
        """What ``work`` gives on the thread; if that is a `Job`, what comes of it."""
        if not self._is_open:
            raise RuntimeError("the desk is closed")
        waiting = _Waiting(work, asyncio.get_running_loop())
        self._asked.put(waiting)
        assert waiting.future is not None
        return await waiting.future

    def do(self, work: Work) -> None:
        """Do ``work`` on the thread, and come back when it is done; raises what it raises.

        What a thread is to have at hand, such as its connections, only it can make ready. Not to be
        called from an event loop.
        """
        done: Future[Any] = Future()

        def reported() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self._asked.put(_Waiting(reported, None))
        done.result()

    def close(self) -> None:
        """Finish what was asked for, and take no more."""
        if self._is_open:
            self._is_open = False
            self._asked.put(None)
        self._thread.join()

    def _serve(self) -> None:
        turns: deque[_Waiting] = deque()
        is_open = True
        while is_open or turns:
            is_open = self._take(turns, wait=not turns) and is_open
            self._begin(turns)
            while turns and (chosen := _choose(turns)):
                jobs = [one.job for one in chosen if one.job is not None]
                try:
                    _answer(chosen, together(jobs))
                except Exception as error:  # a fault of ours: whoever waits is told
                    _answer(chosen, [error] * len(chosen))
                if self._asked.empty():
                    time.sleep(REST_SECONDS)
                del chosen, jobs
                if is_open:
                    break  # others may have come meanwhile

    def _take(self, turns: deque[_Waiting], *, wait: bool) -> bool:
        """Take up what was asked; returns whether there is more to come ever."""
        try:
            while True:
                one = self._asked.get(block=wait)
                if one is None:
                    return False
                turns.append(one)
                wait = False
        except Empty:
            return True

    def _begin(self, turns: deque[_Waiting]) -> None:
        """Do what is no job, and find out what each of the others is."""
        for _ in range(len(turns)):
            one = turns.popleft()
            if one.job is None:
                found = _tried(one.context, one.work)
                if not isinstance(found, Job):
                    _answer([one], [found])
                    continue
                one.job = found
            turns.append(one)


def _choose(turns: deque[_Waiting]) -> list[_Waiting]:
    """Take those that go together: of one store, and about nothing that goes before them."""
    chosen: list[_Waiting] = []
    taken: set[tuple[str, str]] = set()
    store: Store | None = None
    for _ in range(len(turns)):
        one = turns.popleft()
        job = one.job
        assert job is not None
        if len(turns) == 0 and not chosen:
            return [one]  # nothing else waits, so nothing needs to be told apart
        store = store or job.store
        names = job.names()
        if job.store is store and len(chosen) < MOST_TOGETHER and taken.isdisjoint(names):
            chosen.append(one)
        else:
            turns.append(one)
        # What waits holds off those after it, too: nobody overtakes in their own affairs.
        taken |= names
    return chosen


def _answer(those: Sequence[_Waiting], results: Sequence[Any]) -> None:
    told = list(zip(those, results, strict=True))
    loop = those[0].loop
    if loop is None:
        return  # see `DeskThread.do`
    try:
        loop.call_soon_threadsafe(_set, told)
    except RuntimeError:  # the loop is closed, and nobody waits any more
        return


def _set(told: Sequence[tuple[_Waiting, Any]]) -> None:
    for one, result in told:
        if one.future is None or one.future.done():
            continue  # who asked has gone
        if isinstance(result, Exception):
            one.future.set_exception(result)
        else:
            one.future.set_result(result)
