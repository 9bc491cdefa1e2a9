"""A closed-loop load generator: each client sends its next request when it has its answer.

Bare connections under uvloop and no HTTP library: it costs little, and the same for whoever is
measured. What it cost is reported, so that a reader sees whether it was the bottleneck itself.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_DEGRADED = b'"degraded":true'


@dataclass
class Load:
    """What a number of clients measured: milliseconds per answer, and what went wrong."""

    seconds: float = 0.0
    generator_cpu_seconds: float = 0.0
    ms: list[float] = field(default_factory=list)
    failed: int = 0
    """Answers other than 200, and connections that broke."""
    degraded: int = 0
    """Answers that say they are a fallback."""


def http_request(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """The bytes of a POST on a keep-alive connection.

    >>> http_request("/x", b"{}", {"A": "b"})
    b'POST /x HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nContent-Length: 2\\r\\nA: b\\r\\n\\r\\n{}'
    """
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def closed_loop(port: int, requests: Iterator[bytes], clients: int, seconds: float) -> Load:
    """Keep ``clients`` connections busy for so many seconds with what ``requests`` gives."""
    return uvloop.run(_closed_loop(port, requests, clients, seconds))


async def _closed_loop(port: int, requests: Iterator[bytes], clients: int, seconds: float) -> Load:
    load = Load()
    loop = asyncio.get_running_loop()
    cpu, started = time.process_time(), time.perf_counter()
    ends = started + seconds
    connections = [
        (await loop.create_connection(lambda: _Client(requests, load, ends), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]
    await asyncio.gather(*(connection.done for connection in connections))
    load.seconds = time.perf_counter() - started
    load.generator_cpu_seconds = time.process_time() - cpu
    return load


class _Client(asyncio.Protocol):
    """One connection: sends, reads up to the announced length, and sends again until the end."""

    def __init__(self, requests: Iterator[bytes], load: Load, ends: float) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests, self._load, self._ends = requests, load, ends
        self._transport: asyncio.WriteTransport
        self._buffer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end)
        if length is None or len(self._buffer) >= end + 4 + int(length[1]):
            self._received(is_whole=length is not None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._load.failed += 1
            self.done.set_result(None)

    def _send(self) -> None:
        request = next(self._requests)
        self._sent = time.perf_counter()
        self._transport.write(request)

    def _received(self, *, is_whole: bool) -> None:
        now = time.perf_counter()
        answer, self._buffer = self._buffer, b""
        if is_whole and answer.startswith(b"HTTP/1.1 200"):
            self._load.ms.append((now - self._sent) * 1000)
            self._load.degraded += _DEGRADED in answer
        else:
            self._load.failed += 1
        if now < self._ends:
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()
