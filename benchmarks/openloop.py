"""An open-loop load generator: requests leave when they are due, whatever became of those before.

A closed loop waits for a slow answer and asks less meanwhile, so it hides what its users would have
waited for. Here a latency is counted from the moment that a request was to leave, also while it
waits for a free connection.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import uvloop

DRAIN_SECONDS: Final = 30
"""How long answers are waited for once everything has left."""

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RETRY_AFTER = b"\r\nretry-after:"
_DEGRADED = b'"degraded":true'


class Shot(NamedTuple):
    """A request, what kind it is, and the statuses that are right for it."""

    kind: str
    request: bytes
    expected: frozenset[int] = frozenset({200})


@dataclass
class Tally:
    """What came of the requests of one phase."""

    seconds: float = 0.0
    due: int = 0
    ms: list[float] = field(default_factory=list)
    """From due to answered, of those answered as expected."""
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    """Kind and status of what was answered otherwise."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first such answer of each."""
    refused: int = 0
    """Answers 429 and 503 that say when to come again: more was asked than can be done."""
    broken: int = 0
    """Connections that ended under a request."""
    unanswered: int = 0
    """Requests without an answer when it was over."""
    degraded: int = 0
    generator_cpu_share: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Figures; times in ms."""
        quantiles = np.percentile(self.ms, [50, 99, 99.9, 100]).round(2) if self.ms else [None] * 4
        return {
            "seconds": round(self.seconds, 1), "due": self.due,
            "per_second": round(len(self.ms) / self.seconds, 1) if self.seconds else 0,
            **dict(zip(("p50_ms", "p99_ms", "p99_9_ms", "max_ms"), map(_number, quantiles),
                       strict=True)),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "kinds": dict(sorted(self.kinds.items())), "unexpected": dict(self.unexpected),
            "examples": self.examples,
            "refused": self.refused, "broken": self.broken,
            "unanswered": self.unanswered, "degraded": self.degraded,
            "generator_cpu_share": round(self.generator_cpu_share, 2),
        }  # fmt: skip

    @property
    def errors(self) -> int:
        """What no client should meet."""
        return sum(self.unexpected.values()) + self.broken + self.unanswered


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def open_loop(
    port: int, shots: Iterator[Shot], rate: float, seconds: float, connections: int = 128,
    seed: int = 0,
) -> Tally:  # fmt: skip
    """Send ``rate`` requests a second on average, at random moments, over so many connections."""
    return uvloop.run(_Loop(port, shots, rate, seconds, connections, seed).run())


class _Loop:
    def __init__(
        self, port: int, shots: Iterator[Shot], rate: float, seconds: float, connections: int,
        seed: int,
    ) -> None:  # fmt: skip
        self.port, self._shots, self._rate, self._seconds = port, shots, rate, seconds
        self._count, self._random = connections, random.Random(seed)
        self.tally = Tally()
        self.due: deque[tuple[float, Shot]] = deque()
        self.idle: list[_Connection] = []
        self.flying = 0

    async def run(self) -> Tally:
        cpu = time.process_time()
        for _ in range(self._count):
            await self.connect()
        started = time.perf_counter()
        await self._send_all(started)
        self.tally.seconds = time.perf_counter() - started
        until = time.perf_counter() + DRAIN_SECONDS
        while (self.due or self.flying) and time.perf_counter() < until:
            await asyncio.sleep(0.01)
        self.tally.unanswered = len(self.due) + self.flying
        taken = time.perf_counter() - started
        self.tally.generator_cpu_share = (time.process_time() - cpu) / taken
        for connection in self.idle:
            connection.close()
        return self.tally

    async def _send_all(self, started: float) -> None:
        at = started
        while at < started + self._seconds:
            now = time.perf_counter()
            if at > now:
                await asyncio.sleep(at - now)
                continue
            self.due.append((at, next(self._shots)))
            self.tally.due += 1
            if self.idle:
                self.idle.pop().take()
            elif not self.tally.due % 64:
                await asyncio.sleep(0)  # behind as it is, answers are to be read all the same
            at += self._random.expovariate(self._rate)

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)


class _Connection(asyncio.Protocol):
    """Takes what is due, one at a time."""

    def __init__(self, of: _Loop) -> None:
        self._of = of
        self._transport: asyncio.WriteTransport
        self._buffer = b""
        self._now: tuple[float, Shot] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.take()

    def take(self) -> None:
        """Send the next that is due, or wait for one."""
        if not self._of.due:
            self._of.idle.append(self)
            return
        self._now = self._of.due.popleft()
        self._of.flying += 1
        self._transport.write(self._now[1].request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end)
        if length is not None and len(self._buffer) >= end + 4 + int(length[1]):
            answer, self._buffer = self._buffer, b""
            self._note(answer, end)
            self.take()

    def _note(self, answer: bytes, end: int) -> None:
        assert self._now is not None
        (at, shot), self._now = self._now, None
        self._of.flying -= 1
        tally, found = self._of.tally, _STATUS.match(answer)
        status = int(found[1]) if found else 0
        tally.statuses[status] += 1
        tally.kinds[shot.kind] += 1
        if status in shot.expected:
            tally.ms.append((time.perf_counter() - at) * 1000)
            tally.degraded += _DEGRADED in answer
        elif status in (429, 503) and _RETRY_AFTER in answer[:end].lower():
            tally.refused += 1
        else:
            what = f"{shot.kind} {status}"
            tally.unexpected[what] += 1
            tally.examples.setdefault(what, answer[end + 4 :][:300].decode(errors="replace"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._now is not None:
            self._now = None
            self._of.flying -= 1
            self._of.tally.broken += 1
        elif self in self._of.idle:
            self._of.idle.remove(self)
        else:
            return
        asyncio.get_running_loop().create_task(self._of.connect())

    def close(self) -> None:
        """End it: nothing of it is to be counted any more."""
        self._transport.abort()
