"""The HTTP interface: routes, authentication, the clock, and one envelope for every error.

A request's time is fixed here and passed down; nothing below reads a clock.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, TypeVar

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import answers, contract
from serving.desk import Answer, Desk, KeyReusedError, Sender
from serving.reports import Report
from serving.store.database import STORE_UNAVAILABLE
from serving.store.keys import ApiKey
from serving.wire import InvalidRequest, Problem, did_you_mean

log = structlog.get_logger()

SCORE_VALUE: Final = "refundRequest"
MAX_LATENCY_MS: Final = 10_000
"""The longest delay that a sandbox client can ask for with ``Recourse-Min-Latency``."""

JSON: Final = "application/json"
T = TypeVar("T")


class ApiError(Exception):
    """A refusal, answered in our envelope."""

    def __init__(
        self, status: int, message: str, problems: tuple[Problem, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.problems = status, message, problems
        self.headers = dict(headers or {})


class Clock:
    """The time of arrival in epoch ms, never the same twice: each request sees those before it."""

    def __init__(self, read_ns: Callable[[], int] = time.time_ns) -> None:
        self._read_ns = read_ns
        self._last = 0

    def now(self) -> int:
        """The present, or a millisecond after what was told last."""
        self._last = max(self._last + 1, self._read_ns() // 1_000_000)
        return self._last


class Api:
    """The routes over two desks that share nothing: live and sandbox."""

    def __init__(self, desks: Mapping[Literal["live", "test"], Desk], max_body_bytes: int) -> None:
        self.desks = desks
        self.max_body_bytes = max_body_bytes
        self._clock = Clock()
        # Decisions of one process run one after another on one thread: the event loop stays free
        # for health checks, and no two of them wait for each other's write lock.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="desk")

    def close(self) -> None:
        """Finish what was accepted, then let go of the stores."""
        self._thread.shutdown(wait=True)
        for desk in self.desks.values():
            desk.store.close()

    # --- what every call does ----------------------------------------------------------------

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _body(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        if kind != JSON and not kind.endswith("+json"):
            raise ApiError(415, f"Content-Type: must be {JSON}, got {kind}")
        too_large = ApiError(413, f"body: must be at most {self.max_body_bytes} bytes")
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self.max_body_bytes:
            raise too_large
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self.max_body_bytes:
                raise too_large
        return bytes(body)

    def _admit(self, request: Request, scope: str) -> tuple[Desk, ApiKey]:
        """Who is asking, and the desk that the key leads to."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        how = {"WWW-Authenticate": "Bearer"}
        if scheme.lower() not in ("token", "bearer") or not key.strip():
            raise ApiError(401, "Authorization: is required, as in: token sk_live_…", headers=how)
        key = key.strip()
        desk = self.desks["test" if "_test_" in key else "live"]
        known = desk.store.keys.verify(key)
        if known is None:
            raise ApiError(401, "Authorization: this key is not known, or was revoked", headers=how)
        if scope not in known.scopes:
            has = ", ".join(sorted(known.scopes)) or "none"
            raise ApiError(403, f"Authorization: this key lacks the scope {scope}, it has {has}")
        return desk, known

    def _known_at(self, desk: Desk, report: Report) -> Callable[[], int]:
        """What gives a report's known_at: the store's clock."""
        if desk.store.clock == "ingest":
            return self._clock.now
        given = report.timestamp
        if given is None:
            problem = Problem("timestamp", "is required by a store with the clock event")
            raise InvalidRequest([problem])
        return lambda: given

    async def _record(self, request: Request, parse: Callable[[bytes], Report]) -> Response:
        body = await self._body(request)

        def work() -> Answer:
            desk, key = self._admit(request, "report")
            report = parse(body)
            return desk.record(report, self._known_at(desk, report)(), f"key:{key.id}")

        return _respond(await self._run(work))

    # --- calls -------------------------------------------------------------------------------

    async def refund(self, request: Request) -> Response:
        """A refund request to be decided, or a report about a refund."""
        wanted = request.query_params.get("score")
        if wanted is None:
            return await self._record(request, lambda b: contract.parse_refund(b, scored=False))
        started = time.monotonic()
        body = await self._body(request)

        def work() -> Answer:
            desk, key = self._admit(request, "score")
            if wanted != SCORE_VALUE:
                hint = did_you_mean(wanted, [SCORE_VALUE]) or f", expected {SCORE_VALUE}"
                raise InvalidRequest([Problem("score", f"is not a score we make{hint}", wanted)])
            report = contract.parse_refund(body, scored=True)
            sender = Sender(key.id, request.headers.get("idempotency-key"))
            return desk.decide(report, self._known_at(desk, report), sender, started)

        answer = await self._run(work)
        await _delay(request, started)
        return _respond(answer)

    async def order(self, request: Request) -> Response:
        """An order or its change."""
        return await self._record(request, contract.parse_order)

    async def returned(self, request: Request) -> Response:
        """A return's progress."""
        return await self._record(request, contract.parse_return)

    async def dispute(self, request: Request) -> Response:
        """A dispute's stage or outcome."""
        return await self._record(request, contract.parse_dispute)

    async def label(self, request: Request) -> Response:
        """A verdict on a refund or on its customer."""
        customer_id = request.path_params["customerId"]
        return await self._record(request, lambda b: contract.parse_label(b, customer_id))

    async def _read(
        self, request: Request, scope: str, find: Callable[[Desk], Mapping[str, Any]]
    ) -> Response:
        def work() -> Mapping[str, Any]:
            desk, _ = self._admit(request, scope)
            return find(desk)

        data = await self._run(work)
        return _json({"status": 200, "timestamp": self._clock.now() // 1000, "data": data})

    async def read_refund(self, request: Request) -> Response:
        """A refund's state and the decisions on it, the latest first."""
        refund_id = request.path_params["refundId"]

        def find(desk: Desk) -> Mapping[str, Any]:
            refund = desk.store.refund(refund_id)
            if refund is None:
                raise ApiError(404, f"refundId: no refund {refund_id!r} is known")
            decisions = desk.store.decisions_of(refund_id)
            return {
                "refundId": refund_id,
                "state": refund.state,
                "orderId": refund.order_id,
                "payable": refund.payable_minor,
                "currency": refund.currency,
                "decisions": [
                    {"timestamp": d.response["timestamp"], **d.response["data"]} for d in decisions
                ],
            }

        return await self._read(request, "report", find)

    async def read_decision(self, request: Request) -> Response:
        """The full record of one decision; identifiers in it are pseudonyms."""
        score_id = request.path_params["scoreId"]

        def find(desk: Desk) -> Mapping[str, Any]:
            decision = desk.store.decision(score_id)
            if decision is None:
                raise ApiError(404, f"scoreId: no decision {score_id!r} is known")
            return {"scoreId": score_id, "decidedAt": decision.decided_at,
                    "record": decision.record, "response": decision.response}  # fmt: skip

        return await self._read(request, "review", find)


async def _delay(request: Request, started: float) -> None:
    """Let a sandbox client see how it copes with a slow answer."""
    wanted = request.headers.get("recourse-min-latency")
    if wanted is None or "_test_" not in request.headers.get("authorization", ""):
        return
    if not wanted.isdigit() or int(wanted) > MAX_LATENCY_MS:
        raise ApiError(400, f"Recourse-Min-Latency: must be 0 to {MAX_LATENCY_MS} ms, got {wanted}")
    await asyncio.sleep(max(0.0, int(wanted) / 1000 - (time.monotonic() - started)))


# --- answers ---------------------------------------------------------------------------------


def _json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
          ) -> Response:  # fmt: skip
    return Response(orjson.dumps(body), status, headers, JSON)


def _respond(answer: Answer) -> Response:
    return _json(answer.body, headers={"Idempotent-Replayed": "true"} if answer.replayed else None)


def _failed(error: Exception) -> Response:
    """Any failure in our envelope; what we did not foresee says nothing of itself."""
    match error:
        case ApiError():
            body = answers.error_body(error.status, error.message, error.problems)
            return _json(body, error.status, error.headers)
        case InvalidRequest():
            return _json(answers.error_body(400, error.message, error.problems), 400)
        case KeyReusedError():
            return _json(answers.error_body(422, str(error)), 422)
        case HTTPException(status_code=404):
            return _json(answers.error_body(404, "no such address; see /docs"), 404)
        case HTTPException():
            body = answers.error_body(error.status_code, str(error.detail))
            return _json(body, error.status_code, error.headers)
        case _ if isinstance(error, STORE_UNAVAILABLE):
            log.error("store_unavailable", error=type(error).__name__)
            body = answers.error_body(503, "the store cannot be reached: nothing was recorded")
            return _json(body, 503, {"Retry-After": "1"})
        case _:
            log.error("unforeseen", exc_info=error)
            return _json(answers.error_body(500, "something went wrong on our side"), 500)


class Envelope:
    """The outermost layer: a request id on every answer, and no error that escapes unwrapped."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["Cache-Control"] = "no-store"
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except ClientDisconnect:
                return  # nobody is left to answer, and nothing was recorded
            except Exception as error:
                if started:
                    raise
                await _failed(error)(scope, receive, send_with_id)


Handler = Callable[[Request], Awaitable[Response]]


def create_app(current: Callable[[], Api]) -> ASGIApp:
    """The ASGI application; ``current`` gives the `Api` once the worker has opened its stores."""
    app = FastAPI(title="Recourse", description="Risk scoring for refund abuse.",
                  openapi_url="/openapi.json", docs_url="/docs", redoc_url=None)  # fmt: skip
    routes: list[tuple[str, str, Callable[[Api], Handler], str]] = [
        ("POST", "/v2/refund", lambda api: api.refund, "Score or report a refund"),
        ("POST", "/v2/order", lambda api: api.order, "Report an order or its change"),
        ("POST", "/v2/return", lambda api: api.returned, "Report a return's progress"),
        ("POST", "/v2/dispute", lambda api: api.dispute, "Report a dispute"),
        ("POST", "/v2/customer/{customerId:path}/labels", lambda api: api.label, "Set a label"),
        ("GET", "/v2/refund/{refundId:path}", lambda api: api.read_refund, "Read a refund"),
        ("GET", "/v2/decision/{scoreId}", lambda api: api.read_decision, "Read a decision"),
    ]
    for method, path, of, summary in routes:
        app.add_api_route(path, _endpoint(current, of), methods=[method], summary=summary)
    for kind in (HTTPException, ApiError, InvalidRequest, KeyReusedError):
        app.add_exception_handler(kind, _handle)
    return Envelope(app)


def _endpoint(current: Callable[[], Api], of: Callable[[Api], Handler]) -> Handler:
    async def endpoint(request: Request) -> Response:
        return await of(current())(request)

    return endpoint


async def _handle(_: Request, error: Exception) -> Response:
    return _failed(error)


__all__ = ["Api", "ApiError", "Clock", "create_app"]
