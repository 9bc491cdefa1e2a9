"""The HTTP interface: routes, authentication, the clock, and one envelope for every error.

A request's time is fixed here and passed down; nothing below reads a clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Final, Literal, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import contract, docs
from serving.backfill import PARSE, Backfill, Kind
from serving.clock import Clock
from serving.console.visit import ROOT
from serving.desk import Desk
from serving.dossier import refund_data
from serving.envelope import JSON, ApiError, Envelope, json_response, respond
from serving.errands import Scoring, Sender, Telling
from serving.explaining import Explaining
from serving.gate import ADMITTED, Gate, Network, busy
from serving.headers import ENTIRE, all_sent, sent
from serving.home import Home
from serving.idempotency import (
    HEADER,
    Answer,
    Claim,
    InFlightError,
    begin,
    digest,
    end,
    key_of,
    once,
)
from serving.keyring import KeyRing
from serving.language import ENGLISH, Language
from serving.limits import LONGEST_WAIT_SECONDS, Limits, Turns
from serving.management import Management
from serving.privacy import Privacy
from serving.receiving import read_body, read_in_time, too_large
from serving.reports import Report
from serving.reviewing import Reviewing
from serving.roles import ROLES, Permission, may
from serving.routing import Call, Handler, Router
from serving.store.keys import ApiKey
from serving.together import DeskThread, Job
from serving.watch import Watch
from serving.wire import InvalidRequest, Problem, did_you_mean, shown

SCORE_VALUE: Final = "refundRequest"
SCORED: Final = f"score={SCORE_VALUE}".encode()
"""The query of nearly every request, which needs no parsing."""

MAX_LATENCY_MS: Final = 10_000
"""The longest delay that a sandbox client can ask for with ``Recourse-Min-Latency``."""

_KEY: Final = HEADER.lower().encode()

BODY: Final = "recourse.body"
"""Where a request's scope holds its body once it was read."""

T = TypeVar("T")


class Api:
    """The routes over two desks that share nothing: live and sandbox."""

    def __init__(
        self, desks: Mapping[Literal["live", "test"], Desk], max_body_bytes: int, *,
        second_person: bool = False, limits: Limits | None = None, home: Home | None = None,
        language: Language = ENGLISH,
    ) -> None:  # fmt: skip
        self.limits = limits or Limits()
        self.desks = desks
        self.max_body_bytes = max_body_bytes
        self.management = Management(self, second_person=second_person)
        self.privacy = Privacy(self)
        self.reviewing = Reviewing(self)
        self.backfill = Backfill(self)
        self.explaining = Explaining(self, home=home, language=language)
        self.clock = Clock()
        self.key_ring = KeyRing()
        self._thread = DeskThread()
        self._flying: set[tuple[str, str]] = set()
        self._office = ThreadPoolExecutor(1, thread_name_prefix="management")
        self.turns = Turns(self.limits.waiting, LONGEST_WAIT_SECONDS)
        self._office_turns = Turns(self.limits.waiting)

    def warm_up(self) -> None:
        """Go the way of a decision once on the thread of the desks, which has its own connections.

        To be called before the first request, and not from the event loop.
        """
        for desk in self.desks.values():
            self._thread.do(desk.warm_up)

    def finish(self) -> None:
        """Finish what was accepted, and accept nothing more."""
        self._thread.close()
        self._office.shutdown(wait=True)

    def close(self) -> None:
        """Finish what was accepted, then let go of the stores."""
        self.finish()
        for desk in self.desks.values():
            desk.store.close()

    # --- what every call does ----------------------------------------------------------------

    async def _run(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, done on the thread of the desks."""
        with self._in_turn():
            found: T = await self._thread.ask(work)
        return found

    async def _done(self, make: Callable[[], Job]) -> Response:
        """What comes of a job that is made, and done, on the thread of the desks."""
        with self._in_turn():
            answer: Answer = await self._thread.ask(make)
        return respond(answer)

    @contextmanager
    def _in_turn(self, turns: Turns | None = None) -> Iterator[None]:
        """While something waits for its turn, of the desks if none are given; refused if full."""
        turns = turns or self.turns
        now = time.monotonic()
        if turns.is_full(now):
            raise busy(503, "too many requests wait for their decision")
        ticket = turns.enter(now)
        try:
            yield
        finally:
            turns.leave(ticket)

    async def manage(
        self, request: Request, scopes: tuple[str, ...],
        work: Callable[[Desk, ApiKey, int], Mapping[str, Any]], holder: Permission = "read",
    ) -> Response:  # fmt: skip
        """Answer with what ``work`` gives of the desk, the key that asks and the present (ms).

        A POST with an idempotency key is done `once`; of the body only what `body` gave counts.
        ``holder`` is what the key's holder must be allowed to, as `refuse_holder` has it.
        """

        def admitted(idempotency_key: str | None) -> Answer:
            desk, key = self.admit(request, *scopes)
            refuse_holder(desk, key, holder)
            at, claim = self.clock.now(), None
            if idempotency_key is not None:
                content = request.scope.get(BODY, b"")
                claim = Claim(key.id, idempotency_key, digest(_call(request), content))
            return once(desk.store, claim, at, lambda: self._body(work(desk, key, at)))

        with self.key_in_flight(request) as idempotency_key:
            return respond(await self.office(lambda: admitted(idempotency_key)))

    async def manage_in_turns(
        self, request: Request, scopes: tuple[str, ...],
        work: Callable[[], Awaitable[Mapping[str, Any]]],
    ) -> Response:  # fmt: skip
        """As `manage`, for what takes many turns on the office's thread and answers at the end."""

        def begun() -> tuple[Desk, Claim, Answer | None]:
            desk, key = self.admit(request, *scopes)
            content = request.scope.get(BODY, b"")
            claim = Claim(key.id, str(idempotency_key), digest(_call(request), content))
            return desk, claim, begin(desk.store, claim, self.clock.now())

        with self.key_in_flight(request) as idempotency_key:
            if idempotency_key is None:
                return self.told(await work())
            desk, claim, first = await self.office(begun)
            if first is not None:
                return respond(first)
            body = None
            try:
                body = self._body(await work())
            finally:  # also where many wait for their turn
                at = self.clock.now()
                await asyncio.get_running_loop().run_in_executor(
                    self._office, end, desk.store, claim, body, at
                )
            return json_response(body)

    async def office(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, done on the thread of the management: no decision waits for it."""
        with self._in_turn(self._office_turns):
            return await asyncio.get_running_loop().run_in_executor(self._office, work)

    @contextmanager
    def key_in_flight(self, request: Request) -> Iterator[str | None]:
        """The idempotency key of a POST, held in this process until it is answered.

        What waits for the thread of the desks would wait for the first request too, and find its
        result; it is told at once instead. Between processes it is the store that holds the key
        (`serving.store.flights`). Raises `InFlightError`, and `InvalidRequest` for what is no key.
        """
        given = all_sent(request.scope, _KEY) if request.method == "POST" else ()
        key = key_of(given)
        if key is None:
            yield None
            return
        name = (sent(request.scope, b"authorization", ""), key)
        if name in self._flying:
            raise InFlightError(f"{HEADER}: the first request with {key!r} is still under way")
        self._flying.add(name)
        try:
            yield key
        finally:
            self._flying.discard(name)

    def now(self) -> int:
        """The present in epoch ms, later than every time told before."""
        return self.clock.now()

    async def body(
        self, request: Request, kinds: Sequence[str] = (JSON,), at_most: int | None = None
    ) -> bytes:
        """The whole body, if it is of one of these kinds and not too large.

        ``at_most`` so many bytes, where a call takes more than the settings' limit.
        """
        scope = request.scope
        kind = sent(scope, b"content-type", JSON).partition(";")[0].strip().lower()
        if kind not in kinds and not kind.endswith("+json"):
            raise ApiError(415, f"Content-Type: must be {' or '.join(kinds)}, got {kind}")
        most = max(self.max_body_bytes, at_most or 0)
        declared = _whole_number(sent(scope, b"content-length", ""))
        if declared is not None and declared > most:
            raise too_large(most)
        coding = sent(scope, b"content-encoding", "").strip().lower()
        if coding not in ("", "identity"):
            raise ApiError(415, f"Content-Encoding: must be identity, got {coding[:40]}")
        if ENTIRE in scope:
            scope[BODY] = body = await read_body(request.receive, most)
            return body
        scope[BODY] = body = await read_in_time(request.receive, most)
        return body

    def admit(self, request: Request, *scopes: str) -> tuple[Desk, ApiKey]:
        """Who is asking, and the desk that the key leads to; one of the scopes is enough."""
        scheme, _, key = sent(request.scope, b"authorization", "").partition(" ")
        how = {"WWW-Authenticate": "Bearer"}
        if scheme.lower() not in ("token", "bearer") or not key.strip():
            told = "is required"  # what has no space in it may be a key, and is not told again
            if key:
                told = f"must be token or Bearer and a key, got the scheme {scheme[:20]}"
            raise ApiError(401, f"Authorization: {told}, as in: token sk_live_…", headers=how)
        key = key.strip()
        desk = self.desks["test" if "_test_" in key else "live"]
        at = time.time_ns() // 1_000_000
        # What only ever adds is let in on what the key was a moment ago; a person is looked up.
        is_frequent = not {"score", "report"}.isdisjoint(scopes)
        known = (
            self.key_ring.verify(desk.store, key, at)
            if is_frequent
            else desk.store.keys.verify(key, at)
        )
        request.scope.setdefault(ADMITTED, []).append(None if known is None else known.id)
        if known is None:
            raise ApiError(401, "Authorization: this key is not known, or has ended", headers=how)
        if known.scopes.isdisjoint(scopes):
            has, needs = ", ".join(sorted(known.scopes)) or "none", " or ".join(scopes)
            raise ApiError(403, f"Authorization: this key lacks the scope {needs}, it has {has}")
        return desk, known

    def _known_at(self, desk: Desk, report: Report) -> Callable[[], int]:
        """What gives a report's known_at: the store's clock."""
        if desk.store.clock == "ingest":
            return self.clock.now
        given = report.timestamp
        if given is None:
            problem = Problem("timestamp", "is required by a store with the clock event")
            raise InvalidRequest([problem])
        return lambda: given

    async def _record(self, request: Request, parse: Callable[[bytes], Report]) -> Response:
        with self.key_in_flight(request) as idempotency_key:
            body = await self.body(request)

            def work() -> Job:
                desk, key = self.admit(request, "report")
                report = parse(body)
                sender = Sender(key.id, idempotency_key)
                claim = sender.claim(report.content_hash, _call(request))
                return Telling(desk, report, self._known_at(desk, report), sender.actor, claim)

            return await self._done(work)

    # --- calls -------------------------------------------------------------------------------

    async def refund(self, request: Request) -> Response:
        """A refund request to be decided, or a report about a refund."""
        started, least_seconds = time.monotonic(), _least_seconds(request)
        is_usual = request.scope["query_string"] == SCORED
        wanted = SCORE_VALUE if is_usual else request.query_params.get("score")
        if wanted is None:
            _refuse_misspelt(request.query_params)
            response = await self._record(request, lambda b: contract.parse_refund(b, scored=False))
        else:
            response = await self._score(request, wanted, started)
        if least_seconds:
            await asyncio.sleep(max(0.0, least_seconds - (time.monotonic() - started)))
        return response

    async def _score(self, request: Request, wanted: str, started: float) -> Response:
        besides = _score_problems(wanted)
        with self.key_in_flight(request) as idempotency_key:
            body = await self.body(request)

            def work() -> Job:
                desk, key = self.admit(request, "score")
                watch = Watch(desk.deadline_ms, started)
                watch("parse")
                report = contract.parse_refund(body, scored=True, besides=besides)
                sender = Sender(key.id, idempotency_key)
                made = Scoring(desk, report, self._known_at(desk, report), sender, watch)
                watch.pause()
                return made

            return await self._done(work)

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

    async def read(
        self, request: Request, scope: str, find: Callable[[Desk], Mapping[str, Any]]
    ) -> Response:
        """Answer with what ``find`` gives of the desk, in turn with the decisions."""

        def work() -> Mapping[str, Any]:
            desk, _ = self.admit(request, scope)
            return find(desk)

        return self.told(await self._run(work))

    def told(self, data: Mapping[str, Any]) -> Response:
        """An answer that holds ``data``."""
        return json_response(self._body(data))

    def _body(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"status": 200, "timestamp": self.clock.now() // 1000, "data": data}

    async def read_refund(self, request: Request) -> Response:
        """A refund's state, the facts about it, what became of it, and the decisions on it."""
        refund_id = request.path_params["refundId"]

        return await self.read(request, "report", lambda desk: refund_data(desk.store, refund_id))


def refuse_holder(desk: Desk, key: ApiKey, permission: Permission) -> None:
    """Refuse a key whose holder has an account that is disabled, or of a role that may not.

    So whoever is no longer let into the console, or never was to something there, has no way round
    it. A key of a program, or of somebody without an account, has what its scopes say.
    """
    if key.name is None:
        return
    with desk.store.reading() as tx:
        account = tx.account(key.name)
    if account is None:
        return
    if account.disabled_at is not None:
        raise ApiError(403, f"Authorization: this key is {account.name}'s, whose account is "
                            "disabled")  # fmt: skip
    if not may(account.role, permission):
        able = ", ".join(role for role in ROLES if may(role, permission))
        raise ApiError(403, f"Authorization: this key is {account.name}'s, who is {account.role}; "
                            f"expected {able}")  # fmt: skip


def _call(request: Request) -> str:
    """A call as an idempotency key is bound to it: method and address."""
    return f"{request.method} {request.url.path}"


def _score_problems(wanted: str) -> list[Problem]:
    """What is wrong with the query's ``score``."""
    if wanted == SCORE_VALUE:
        return []
    hint = did_you_mean(wanted, [SCORE_VALUE]) or f", expected {SCORE_VALUE}"
    return [Problem("score", f"is not a score we make{hint}", shown(wanted))]


def _refuse_misspelt(given: Mapping[str, str]) -> None:
    """Refuse what was probably meant to be ``score``: a report would pass for a decision."""
    for name, value in given.items():
        if _is_near(name, "score") or _is_near(value, SCORE_VALUE):
            told = f"is no parameter (did you mean score={SCORE_VALUE}?)"
            raise InvalidRequest([Problem(name[:40], told, shown(value))])


def _is_near(said: str, meant: str) -> bool:
    return bool(get_close_matches(said[:40].lower(), [meant.lower()], cutoff=0.75))


def _least_seconds(request: Request) -> float:
    """How long an answer takes at least: a sandbox client sees how it copes with a slow one."""
    wanted = sent(request.scope, b"recourse-min-latency", None)
    if wanted is None or "_test_" not in sent(request.scope, b"authorization", ""):
        return 0.0
    milliseconds = _whole_number(wanted)
    if milliseconds is None or milliseconds > MAX_LATENCY_MS:
        message = f"must be 0 to {MAX_LATENCY_MS} ms"
        raise InvalidRequest([Problem("Recourse-Min-Latency", message, shown(wanted))])
    return milliseconds / 1000


def _whole_number(text: str) -> int | None:
    """A number as a header says it; of one that is too long to be meant the first digits."""
    return int(text[:18]) if text.isascii() and text.isdigit() else None


def _backfill(kind: Kind) -> Callable[[Api], Handler]:
    return lambda api: api.backfill.of(kind)


CALLS: Final[tuple[Call[Api], ...]] = (
    Call("POST", "/v2/refund", lambda api: api.refund, "Score or report a refund"),
    Call("POST", "/v2/order", lambda api: api.order, "Report an order or its change"),
    Call("POST", "/v2/return", lambda api: api.returned, "Report a return's progress"),
    Call("POST", "/v2/dispute", lambda api: api.dispute, "Report a dispute"),
    Call("POST", "/v2/customer/{customerId:path}/labels", lambda api: api.label, "Set a label"),
    Call("GET", "/v2/customer/{customerId:path}/export", lambda api: api.privacy.export,
         "Export all that is known about a customer"),
    Call("DELETE", "/v2/customer/{customerId:path}", lambda api: api.privacy.erase,
         "Erase a customer"),
    Call("GET", "/v2/refund/{refundId:path}", lambda api: api.read_refund, "Read a refund"),
    Call("GET", "/v2/decision/{scoreId}", lambda api: api.explaining.decision, "Read a decision"),
    Call("GET", "/v2/decision/{scoreId}/explanation", lambda api: api.explaining.explanation,
         "Explain a decision"),
    Call("GET", "/v2/reviews", lambda api: api.reviewing.queue, "Read the review queue"),
    Call("GET", "/v2/reviews/{refundId:path}", lambda api: api.reviewing.review, "Read a review"),
    Call("POST", "/v2/reviews/{refundId:path}", lambda api: api.reviewing.act,
         "Act on a review"),
    Call("GET", "/v2/policies", lambda api: api.management.policies, "Read the policy versions"),
    Call("POST", "/v2/policies", lambda api: api.management.propose, "Propose a policy"),
    Call("GET", "/v2/policies/{version}", lambda api: api.management.policy, "Read a policy"),
    Call("POST", "/v2/policies/{version}/activate", lambda api: api.management.activate,
         "Put a policy in force"),
    Call("GET", "/v2/lists/{name}", lambda api: api.management.entries, "Read a list"),
    Call("POST", "/v2/lists/{name}", lambda api: api.management.put_on_list,
         "Put an entity on a list"),
    Call("DELETE", "/v2/lists/{name}", lambda api: api.management.take_off_list,
         "Take an entity off a list"),
    *(Call("POST", f"/v2/backfill/{kind}", _backfill(kind),
           f"Backfill: history of one {kind}, or of many") for kind in PARSE),
    Call("GET", "/openapi.json", lambda _: docs.document, "Read this document"),
    Call("GET", "/docs", lambda _: docs.page, "Read it as a page"),
)  # fmt: skip
"""Every call there is, in the order in which they are looked through."""


def create_app(
    current: Callable[[], Api], pages: Mapping[str, ASGIApp] | None = None,
    proxies: Sequence[Network] = (), console: ASGIApp | None = None,
) -> ASGIApp:  # fmt: skip
    """The ASGI application; ``current`` gives the `Api` once the worker has opened its stores.

    ``pages`` are what else has an address: path -> application; ``proxies`` as `Gate` takes them.
    """
    calls: ASGIApp = Gate(Router(CALLS, current, pages or {}), current, proxies)

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and f"{scope['path']}/".startswith(f"{ROOT}/")
        await (console if console is not None and is_page else calls)(scope, receive, send)

    return Envelope(either)


__all__ = ["CALLS", "Api", "ApiError", "Clock", "create_app"]
