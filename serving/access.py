"""The outermost layer of a worker: counts each request; logs and traces those that are wanted."""

from __future__ import annotations

import time
from typing import Final, Literal

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.headers import sent
from serving.metrics import Metrics
from serving.routing import CALL
from serving.tracing import Tracing, collect_stages

LogRequests = Literal["none", "failed", "all"]

NO_CALL: Final = "none"
"""What a request is counted under that is no call of ours: its path may hold anything."""

NO_ANSWER: Final = 499
"""The status of a request whose client left before the answer."""

log = structlog.get_logger()


class Access:
    """An ASGI application around another; ``told`` says which requests get a line in the log.

    A line says the call as declared, never its address: that may hold an identifier. Its
    ``request_id`` is the one that the answer bore. Counting takes 1 µs, a line 40, and a trace is
    made after the answer.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None, told: LogRequests
    ) -> None:
        self._app, self._metrics, self._tracing, self._told = app, metrics, tracing, told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = NO_ANSWER

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        tracing = self._tracing
        stages = collect_stages() if tracing is not None else None
        started, started_ns = time.perf_counter(), time.time_ns()
        try:
            await self._app(scope, receive, noted)
        finally:
            call = f"{scope['method']} {scope[CALL]}" if CALL in scope else NO_CALL
            self._metrics.answered(call, status)
            seconds = time.perf_counter() - started
            if self._told == "all" or (self._told == "failed" and status >= 500):
                level = log.warning if status >= 500 else log.info
                level("request", call=call, status=status, ms=round(seconds * 1000, 2))
            if tracing is not None:
                ended_ns = started_ns + round(seconds * 1e9)
                parent = sent(scope, b"traceparent", None)
                tracing.request(call, status, started_ns, ended_ns, parent, stages)
