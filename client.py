"""What a refund backend imports: it asks Recourse before money moves, and no failure pays.

One file, which needs httpx and nothing else of Recourse. `Recourse` is for threads, `AsyncRecourse`
for asyncio; both are thin around one core that does no I/O. Within the budget (750 ms) an attempt
that fails is made again with the same ``Idempotency-Key``. When no answer comes, the decision is
the fallback's: `HoldForReview`, unless another is given.

>>> answers = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": {
...     "action": "ALLOW", "source": "MODEL", "scoreId": "s1", "degraded": False}}))
>>> recourse = Recourse("https://recourse.internal", "sk_live_x", transport=answers)
>>> recourse.decide(customer={"customerId": "c1"}, order={"orderId": "o1"},
...                 refund={"refundId": "r1", "amount": 900, "currency": "GBP"}).action
'ALLOW'
>>> down = httpx.MockTransport(lambda request: httpx.Response(503))
>>> with Recourse("https://recourse.internal", "sk_live_x", 0.05, transport=down) as recourse:
...     held = recourse.decide(refund={"refundId": "r1", "amount": 900, "currency": "GBP"})
>>> held.action, held.source, held.degraded, held.cause
('MANUAL_REVIEW', 'CLIENT_FALLBACK', True, 'unavailable')
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import difflib
import hashlib
import hmac
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import (
    Any,
    Final,
    Literal,
    NamedTuple,
    NotRequired,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
)
from urllib.parse import quote

import httpx

__all__ = [
    "AsyncRecourse",
    "Breaker",
    "Decision",
    "Fallback",
    "HoldForReview",
    "NoAnswer",
    "PayBelow",
    "Recourse",
    "RecourseError",
    "Refused",
    "WebhookEvent",
    "WebhookRefused",
    "verify_webhook",
]

Action = Literal["ALLOW", "PREVENT", "MANUAL_REVIEW", "REVIEW"]
"""Pay; do not pay; hold for a person. REVIEW comes from the sandbox only: hold, too."""

Cause = Literal["unreachable", "unavailable", "in-flight", "throttled", "timeout", "error"]
"""Why no answer came, from what says nothing about the request to what may be its own doing."""

CAUSES: Final[tuple[Cause, ...]] = (
    "unreachable", "unavailable", "in-flight", "throttled", "timeout", "error",
)  # fmt: skip

Body = Mapping[str, Any]
"""A body of the contract."""

FALLBACK: Final = "CLIENT_FALLBACK"
"""The source of a decision that the client made itself."""

SCORE_PATH: Final = "/v2/refund?score=refundRequest"

BUDGET_SECONDS: Final = 0.75
REPORT_SECONDS: Final = 5.0
MOST_ATTEMPTS: Final = 5
SHARE: Final = 0.6
"""What an attempt may take of the time that is left, so that a lost one leaves time for another."""

LEAST_SECONDS: Final = 0.01
BACKOFF_SECONDS: Final = 0.025
WEBHOOK_TOLERANCE_SECONDS: Final = 300

_ACTIONS: Final = ("ALLOW", "PREVENT", "MANUAL_REVIEW", "REVIEW")
_PARTS: Final = ("timestamp", "customer", "order", "refund", "device", "paymentMethods",
                 "transactions", "addresses")  # fmt: skip

T = TypeVar("T")


# --- what is answered --------------------------------------------------------------------------


class Reason(TypedDict):
    """Why: a reason code, its sentence and, of the model's reasons, the feature behind it."""

    code: str
    description: str
    feature: NotRequired[str]
    value: NotRequired[float | str | None]
    contribution: NotRequired[float]


class Rule(TypedDict):
    """A rule that was hit; ``passive`` if it runs in the shadow and had no say."""

    triggered: bool
    description: str
    state: Literal["active", "passive"]
    action: str
    ruleId: NotRequired[str]
    ruleVersion: NotRequired[int]


Notice = TypedDict("Notice", {"class": str, "msg": str, "help": str})
"""Something about the request that its sender may want to mend."""


class FollowUp(TypedDict):
    """What may be offered instead; ``amount`` in minor units of ``currency``."""

    code: str
    amount: NotRequired[int]
    currency: NotRequired[str]
    ruleId: NotRequired[str]


class Recorded(TypedDict):
    """What a report recorded, by the ids that it gave."""

    customerId: NotRequired[str]
    orderId: NotRequired[str]
    refundId: NotRequired[str]
    warnings: list[Notice]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a refund. ``data`` is the answer as it came, empty for a fallback."""

    action: Action
    source: str
    degraded: bool
    idempotency_key: str
    score_id: str | None = None
    score: int | None = None
    abuse_probability: float | None = None
    risk_level: str | None = None
    reasons: tuple[Reason, ...] = ()
    rules: tuple[Rule, ...] = ()
    warnings: tuple[Notice, ...] = ()
    model_version: str | None = None
    policy_version: str | None = None
    follow_up: FollowUp | None = None
    replayed: bool = False
    request_id: str | None = None
    cause: Cause | None = None
    """Why the fallback decided; None where it did not."""
    body: Body = field(default_factory=dict, repr=False)
    """What was asked, for `Recourse.reconcile`."""
    data: Body = field(default_factory=dict, repr=False)

    @property
    def pays(self) -> bool:
        """Whether to pay. Everything but ALLOW is not to be paid now."""
        return self.action == "ALLOW"

    @property
    def is_fallback(self) -> bool:
        """Whether the client decided itself, because no answer came."""
        return self.source == FALLBACK


class RecourseError(Exception):
    """What the client raises. Whatever it is, nothing is to be paid."""


class NoAnswer(RecourseError):  # noqa: N818 - it is what happened
    """A report, or a question asked again, got no answer in time; send it again later."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(f"no answer ({cause}): {detail}")
        self.cause, self.detail = cause, detail


class Refused(RecourseError):  # noqa: N818 - it is what happened
    """The service refused what it was sent: the caller has to be mended, not the service.

    ``validation_errors`` lists all that is wrong with a body: field, message and value.
    """

    def __init__(
        self, status: int, message: str, validation_errors: tuple[Mapping[str, Any], ...],
        request_id: str | None,
    ) -> None:  # fmt: skip
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message
        self.validation_errors, self.request_id = validation_errors, request_id


class WebhookRefused(RecourseError):  # noqa: N818 - it is what happened
    """A webhook that the service did not sign, or not lately; answer it with 400."""


# --- when no answer comes ----------------------------------------------------------------------


class Fallback(Protocol):
    """What decides when no answer comes. Called from several threads."""

    def decide(self, body: Body, cause: Cause, now: float) -> Action:
        """The action for the body that was sent; ``now`` is in Unix seconds."""


class HoldForReview:
    """Hold every refund for a person: whoever can cause a failure gains nothing by it."""

    def decide(self, body: Body, cause: Cause, now: float) -> Action:
        """Always MANUAL_REVIEW."""
        return "MANUAL_REVIEW"


@dataclass
class PayBelow:
    """Pay small refunds of customers in good standing, and few of them; hold the rest.

    Only where the failure says nothing about the request (``causes``): a body that makes the
    service fail, or a flood that makes it slow, is held. Paid are amounts due up to ``minor`` (in
    minor units of ``currency``), for customers registered at least ``known_after_days`` ago, or
    who pass ``standing``, a function of the body. Each customer is paid ``per_customer`` refunds a
    day, and all of them ``total_minor`` an hour (default: 25 times ``minor``), as this process
    counts: of n processes each should have an n-th. A refund asked about again gets what it got.

    >>> policy = PayBelow(minor=2_000, currency="GBP")
    >>> body = {"customer": {"customerId": "c1", "registrationTime": 1_600_000_000},
    ...         "refund": {"refundId": "r1", "amount": 1_900, "currency": "GBP"}}
    >>> policy.decide(body, "unreachable", 1.7e9), policy.decide(body, "error", 1.7e9)
    ('ALLOW', 'MANUAL_REVIEW')
    >>> another = {**body, "refund": {**body["refund"], "refundId": "r2"}}
    >>> policy.decide(another, "unreachable", 1.7e9 + 60)  # one a day
    'MANUAL_REVIEW'
    """

    minor: int
    currency: str
    only_known_customers: bool = True
    known_after_days: float = 90
    per_customer: int = 1
    total_minor: int | None = None
    causes: frozenset[Cause] = frozenset({"unreachable", "unavailable"})
    standing: Callable[[Body], bool] | None = None

    def __post_init__(self) -> None:
        self._paid: dict[str, tuple[float, str, int]] = {}  # refund id -> when, customer, minor
        self._one_at_a_time = threading.Lock()

    def decide(self, body: Body, cause: Cause, now: float) -> Action:
        """ALLOW what is small, known and within the limits; else MANUAL_REVIEW."""
        refund, customer = body.get("refund"), body.get("customer")
        if cause not in self.causes or not isinstance(refund, Mapping):
            return "MANUAL_REVIEW"
        due = _due_minor(refund)
        refund_id = refund.get("refundId")
        who = customer.get("customerId") if isinstance(customer, Mapping) else None
        if due is None or due > self.minor or refund.get("currency") != self.currency:
            return "MANUAL_REVIEW"
        if not (isinstance(refund_id, str) and isinstance(who, str) and refund_id and who):
            return "MANUAL_REVIEW"
        if self.only_known_customers and not self._is_known(body, customer, now):
            return "MANUAL_REVIEW"
        with self._one_at_a_time:
            return "ALLOW" if self._fits(refund_id, who, due, now) else "MANUAL_REVIEW"

    def _is_known(self, body: Body, customer: Any, now: float) -> bool:
        if self.standing is not None:
            return bool(self.standing(body))
        registered = _unix_seconds(customer.get("registrationTime"))
        return registered is not None and registered <= now - self.known_after_days * 86_400

    def _fits(self, refund_id: str, customer: str, due: int, now: float) -> bool:
        self._paid = {k: v for k, v in self._paid.items() if now - v[0] < 86_400}
        if refund_id in self._paid:
            return self._paid[refund_id][1:] == (customer, due)
        total = sum(minor for at, _, minor in self._paid.values() if now - at < 3_600)
        of_customer = sum(who == customer for _, who, _ in self._paid.values())
        most = 25 * self.minor if self.total_minor is None else self.total_minor
        if of_customer >= self.per_customer or total + due > most:
            return False
        self._paid[refund_id] = now, customer, due
        return True


def _due_minor(refund: Mapping[str, Any]) -> int | None:
    """What would be paid, if the refund says so in whole minor units."""
    amount, kept = refund.get("amount"), refund.get("nonRefundableAmount") or 0
    if type(amount) is not int or type(kept) is not int or not 0 <= kept <= amount:
        return None
    return amount - kept


def _unix_seconds(given: Any) -> float | None:
    """A time in Unix seconds, milliseconds or nanoseconds, told apart by magnitude."""
    if type(given) not in (int, float) or given <= 0:
        return None
    return float(given / (1 if given < 1e11 else 1e3 if given < 1e14 else 1e9))


class Breaker:
    """Asks no more for a while when nothing but failures came, then tries with one request.

    The time is an argument. Threads may share it.

    >>> breaker = Breaker(failures=2, reset_seconds=5)
    >>> for _ in range(2):
    ...     breaker.failed("timeout", now=0.0)
    >>> breaker.closed_to(now=1.0)
    'timeout'
    >>> breaker.closed_to(now=5.0) is None, breaker.closed_to(now=5.1)  # one request tries
    (True, 'timeout')
    >>> breaker.succeeded(); breaker.closed_to(now=5.2) is None
    True
    """

    def __init__(self, failures: int = 5, reset_seconds: float = 5.0) -> None:
        self._most, self._reset = failures, reset_seconds
        self._count, self._until = 0, 0.0
        self._cause: Cause = CAUSES[0]
        self._one_at_a_time = threading.Lock()

    def closed_to(self, now: float) -> Cause | None:
        """Why a request is not to be sent now; None if it is. Of many one may be sent as a trial.

        It is the worst cause of the failures that led here, so that a request that makes the
        service fail does not pass for an outage in what the others are answered.
        """
        with self._one_at_a_time:
            if self._count < self._most:
                return None
            if now < self._until:
                return self._cause
            self._until = now + self._reset  # nobody else, until this one is settled
            return None

    def succeeded(self) -> None:
        """The service answered, whatever it said."""
        with self._one_at_a_time:
            self._count, self._cause = 0, CAUSES[0]

    def failed(self, cause: Cause, now: float) -> None:
        """The service did not answer, or not as it should."""
        with self._one_at_a_time:
            self._count += 1
            self._cause = _worse(self._cause, cause)
            self._until = now + self._reset


def _worse(one: Cause, other: Cause) -> Cause:
    return max(one, other, key=CAUSES.index)


# --- the core: no I/O, no clock of its own -----------------------------------------------------


class Send(NamedTuple):
    """Send this, and wait so long for the answer."""

    path: str
    headers: Mapping[str, str]
    content: bytes
    timeout: float


class Wait(NamedTuple):
    """Wait so long."""

    seconds: float


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Failure(NamedTuple):
    """What went wrong instead."""

    cause: Cause
    detail: str
    is_up: bool = False
    """Whether the service answered all the same: what is wrong may be this request alone."""


Steps = Generator[Send | Wait, Reply | Failure | None, T]


@dataclass
class _Core:
    """What both clients are: each call is a generator of steps that a driver takes."""

    key: str
    timeout: float
    report_timeout: float = REPORT_SECONDS
    fallback: Fallback = field(default_factory=HoldForReview)
    breaker: Breaker = field(default_factory=Breaker)
    on_fallback: Callable[[Decision], None] | None = None
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    draw: Callable[[], float] = random.random

    def timed(self, body: Body | None, parts: Body) -> dict[str, Any]:
        """A body of its parts, with the time at which it is first sent."""
        whole = {**(body or {}), **parts}
        whole.setdefault("timestamp", int(self.wall() * 1000))
        return whole

    def decide(self, body: Body, key: str | None) -> Steps[Decision]:
        """Ask; the fallback's decision where no answer comes."""
        key = key or str(uuid.uuid4())
        cause = self.breaker.closed_to(self.clock())
        if cause is None:
            answer = yield from self._asked(body, key, self.timeout)
            if isinstance(answer, Decision):
                return answer
            cause = answer.cause
        action = self.fallback.decide(body, cause, self.wall())
        decision = Decision(action, FALLBACK, True, key, cause=cause, body=body)
        if self.on_fallback is not None:
            self.on_fallback(decision)
        return decision

    def reconcile(self, decision: Decision) -> Steps[Decision]:
        """Ask again what a fallback decided; raises NoAnswer."""
        key = decision.idempotency_key
        answer = yield from self._asked(decision.body, key, self.report_timeout)
        if isinstance(answer, Failure):
            raise NoAnswer(answer.cause, answer.detail)
        return answer

    def report(self, path: str, body: Body | None, parts: Body) -> Steps[Recorded]:
        """Send a report; raises NoAnswer and Refused."""
        content = _dumped(self.timed(body, parts))
        reply = yield from self._exchange(path, {}, content, self.report_timeout)
        data = _data(reply) if isinstance(reply, Reply) else reply
        if isinstance(data, Failure):
            raise NoAnswer(data.cause, data.detail)
        recorded: Any = data
        return recorded  # type: ignore[no-any-return]

    def _asked(self, body: Body, key: str, timeout: float) -> Steps[Decision | Failure]:
        """Ask, and let the breaker know whether the service is there."""
        headers, content = {"idempotency-key": key}, _dumped(body)
        reply = yield from self._exchange(SCORE_PATH, headers, content, timeout)
        try:
            answer = _answer(reply, key, body) if isinstance(reply, Reply) else reply
        except Refused:
            self.breaker.succeeded()
            raise
        if isinstance(answer, Decision) or answer.is_up:
            self.breaker.succeeded()
        else:
            self.breaker.failed(answer.cause, self.clock())
        return answer

    def _exchange(
        self, path: str, headers: Mapping[str, str], content: bytes, budget: float
    ) -> Steps[Reply | Failure]:
        """Send until something is answered that another attempt would not change, or time is up.

        Of several failures the worst is told: a request that breaks the service, which is then
        not reachable, was not merely unlucky.
        """
        headers = {"authorization": f"token {self.key}", "content-type": "application/json",
                   "user-agent": "recourse-client/1", **headers}  # fmt: skip
        deadline = self.clock() + budget
        worst: Failure | None = None
        for attempt in range(1, MOST_ATTEMPTS + 1):
            left = deadline - self.clock()
            share = 1.0 if attempt == MOST_ATTEMPTS else SHARE
            outcome = yield Send(path, headers, content, max(left * share, LEAST_SECONDS))
            assert outcome is not None
            failure = outcome if isinstance(outcome, Failure) else _failure_of(outcome)
            if failure is None:
                return outcome
            if worst is None or _worse(worst.cause, failure.cause) != worst.cause:
                worst = failure
            wait = self.draw() * BACKOFF_SECONDS * 2**attempt
            if isinstance(outcome, Reply):
                wait = max(wait, _retry_after(outcome.headers))
            if self.clock() + wait + LEAST_SECONDS >= deadline:
                break
            yield Wait(wait)
        assert worst is not None
        return worst


def _dumped(body: Body) -> bytes:
    return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()


def _failure_of(reply: Reply) -> Failure | None:
    """Why another attempt may help; None for an answer, and for a refusal."""
    status = reply.status
    if 200 <= status < 300 or (400 <= status < 500 and status not in (409, 429)):
        return None
    causes: dict[int, Cause] = {409: "in-flight", 429: "throttled", 503: "unavailable",
                                504: "timeout"}  # fmt: skip
    # A redirect is an error, too: nobody but the service is asked.
    return Failure(causes.get(status, "error"), f"HTTP {status}", is_up=status in (409, 429, 500))


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0


def _data(reply: Reply) -> Body | Failure:
    """The ``data`` of an answer; raises Refused for a refusal."""
    try:
        body = json.loads(reply.content)
    except ValueError:
        body = None
    told: Body = body if isinstance(body, dict) else {}
    if reply.status >= 400:
        problems = told.get("validationErrors")
        raise Refused(
            reply.status, str(told.get("message") or f"HTTP {reply.status}"),
            tuple(problems) if isinstance(problems, list) else (),
            reply.headers.get("x-request-id"),
        )  # fmt: skip
    data = told.get("data")
    return data if isinstance(data, dict) else Failure("error", "an answer that is none of ours")


def _answer(reply: Reply, key: str, body: Body) -> Decision | Failure:
    """The decision that an answer holds; raises Refused for a refusal."""
    data = _data(reply)
    if isinstance(data, Failure):
        return data
    if data.get("action") not in _ACTIONS:
        return Failure("error", f"no action that is known: {data.get('action')!r}"[:200])
    rules = data.get("rules") or {}
    return Decision(
        action=data["action"],
        source=str(data.get("source")),
        degraded=bool(data.get("degraded", False)),
        idempotency_key=key,
        score_id=data.get("scoreId"),
        score=data.get("score"),
        abuse_probability=data.get("abuseProbability"),
        risk_level=data.get("riskLevel"),
        reasons=tuple(data.get("reasons") or ()),
        rules=tuple(rules.get("triggered") or ()),
        warnings=tuple(data.get("warnings") or ()),
        model_version=data.get("modelVersion"),
        policy_version=data.get("policyVersion"),
        follow_up=data.get("followUp"),
        replayed=reply.headers.get("idempotent-replayed") == "true",
        request_id=reply.headers.get("x-request-id"),
        body=body,
        data=data,
    )


def _failed(error: Exception) -> Failure:
    """What an exception of httpx says about the request and the service."""
    cause: Cause = "error"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        cause = "unreachable"
    elif isinstance(error, httpx.TimeoutException | TimeoutError):
        cause = "timeout"
    return Failure(cause, f"{type(error).__name__}: {error}"[:200])


class _Until(dict[str, float]):
    """httpx asks for a time-out at each stage of a request; together they have until here."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        super().__init__()
        self._clock, self._deadline = clock, clock() + seconds

    def get(self, stage: str, default: Any = None) -> float:
        return max(self._deadline - self._clock(), 0.001)

    def held_to(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks of an answer, which may come one by one for ever."""
        for chunk in chunks:
            yield chunk
            if self._clock() > self._deadline:
                raise httpx.ReadTimeout("the answer came too slowly")


class _Options(TypedDict, total=False):
    report_timeout: float
    fallback: Fallback
    breaker: Breaker
    on_fallback: Callable[[Decision], None]
    clock: Callable[[], float]
    wall: Callable[[], float]
    draw: Callable[[], float]


class _Calls:
    """What both clients share but the driver: the core, and what makes requests of its steps."""

    def __init__(self, url: str, key: str, timeout: float, **given: Unpack[_Options]) -> None:
        if httpx.URL(url).scheme not in ("http", "https") or not httpx.URL(url).host:
            raise ValueError(f"url: expected https://host, got {url!r}")
        if not key or timeout <= 0:
            raise ValueError("expected an API key, and a time-out above 0 seconds")
        self._url = url.rstrip("/")
        self._core = _Core(key, timeout, **given)

    def _asking(self, body: Body | None, parts: Body) -> Body:
        for name in parts:
            if name not in _PARTS:
                near = difflib.get_close_matches(name, _PARTS, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise TypeError(f"decide: no part of a request is called {name!r}{hint}")
        whole = self._core.timed(body, parts)
        if isinstance(whole.get("refund"), Mapping):
            whole["refund"] = {"status": "OPEN", **whole["refund"]}
        return whole

    def _request(
        self, http: httpx.Client | httpx.AsyncClient, step: Send
    ) -> tuple[httpx.Request, _Until]:
        until = _Until(self._core.clock, step.timeout)
        request = http.build_request(
            "POST", self._url + step.path, headers=dict(step.headers), content=step.content,
            extensions={"timeout": until},
        )  # fmt: skip
        return request, until


def _labels_path(customer_id: str) -> str:
    return f"/v2/customer/{quote(customer_id, safe='')}/labels"


# --- the two clients ---------------------------------------------------------------------------


class Recourse(_Calls):
    """The client for threads, which may share one. Use as a context manager, or close it.

    ``timeout`` is the whole budget of a decision in seconds, attempts and waits included, but for
    the resolution of the host's name, which the system gives no way to cut short;
    ``report_timeout`` that of a report. ``on_fallback`` is told each decision that the client made
    itself. ``transport`` (of httpx), ``clock``, ``wall``, ``draw`` and ``sleep`` are for tests.

    Raises ValueError for a URL or key that cannot be one.
    """

    def __init__(
        self, url: str, key: str, timeout: float = BUDGET_SECONDS, *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep, **given: Unpack[_Options],
    ) -> None:  # fmt: skip
        super().__init__(url, key, timeout, **given)
        self._http = httpx.Client(transport=transport, timeout=None)
        self._sleep = sleep

    def decide(
        self, body: Body | None = None, /, *, idempotency_key: str | None = None, **parts: Any
    ) -> Decision:
        """Ask whether to pay: the contract's body, or its parts by name, or both.

        ``refund.status`` and ``timestamp`` are filled in. Always gives a decision in time; raises
        Refused for a body or a key that the service refuses, and then nothing is to be paid. A
        refund that is asked for again after it was canceled or declined takes a new key.
        """
        return self._run(self._core.decide(self._asking(body, parts), idempotency_key))

    def reconcile(self, decision: Decision) -> Decision:
        """The service's decision on what a fallback decided, under the same key.

        Asked before the outcome is reported: to a refund that was paid the service says no. Raises
        NoAnswer while there is none, and Refused.
        """
        return self._run(self._core.reconcile(decision))

    def report_refund(self, body: Body | None = None, /, **parts: Any) -> Recorded:
        """Tell what became of a refund.

        May be sent again: the same fact counts once. Raises NoAnswer and Refused, as all reports.
        """
        return self._run(self._core.report("/v2/refund", body, parts))

    def report_order(self, body: Body | None = None, /, **parts: Any) -> Recorded:
        """Tell of an order, or of its change."""
        return self._run(self._core.report("/v2/order", body, parts))

    def report_return(self, body: Body | None = None, /, **parts: Any) -> Recorded:
        """Tell of a return's progress."""
        return self._run(self._core.report("/v2/return", body, parts))

    def report_dispute(self, body: Body | None = None, /, **parts: Any) -> Recorded:
        """Tell of a dispute's stage or outcome."""
        return self._run(self._core.report("/v2/dispute", body, parts))

    def label(self, customer_id: str, body: Body | None = None, /, **parts: Any) -> Recorded:
        """Tell an analyst's verdict on a customer, or on one refund (``refundId``)."""
        return self._run(self._core.report(_labels_path(customer_id), body, parts))

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Recourse:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        outcome: Reply | Failure | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            if isinstance(step, Wait):
                self._sleep(step.seconds)
                outcome = None
            else:
                outcome = self._send(step)

    def _send(self, step: Send) -> Reply | Failure:
        try:
            request, until = self._request(self._http, step)
            response = self._http.send(request, stream=True)
            try:
                content = b"".join(until.held_to(response.iter_bytes()))
            finally:
                response.close()
        except httpx.HTTPError as error:
            return _failed(error)
        return Reply(response.status_code, response.headers, content)


class AsyncRecourse(_Calls):
    """The client for asyncio. Use as an asynchronous context manager, or `aclose` it.

    The same calls and arguments as `Recourse`.
    """

    def __init__(
        self, url: str, key: str, timeout: float = BUDGET_SECONDS, *,
        transport: httpx.AsyncBaseTransport | None = None, **given: Unpack[_Options],
    ) -> None:  # fmt: skip
        super().__init__(url, key, timeout, **given)
        self._http = httpx.AsyncClient(transport=transport, timeout=None)

    async def decide(
        self, body: Body | None = None, /, *, idempotency_key: str | None = None, **parts: Any
    ) -> Decision:
        """As `Recourse.decide`."""
        return await self._run(self._core.decide(self._asking(body, parts), idempotency_key))

    async def reconcile(self, decision: Decision) -> Decision:
        """As `Recourse.reconcile`."""
        return await self._run(self._core.reconcile(decision))

    async def report_refund(self, body: Body | None = None, /, **parts: Any) -> Recorded:
        """As `Recourse.report_refund`."""
        return await self._run(self._core.report("/v2/refund", body, parts))

    async def report_order(self, body: Body | None = None, /, **parts: Any) -> Recorded:
        """As `Recourse.report_order`."""
        return await self._run(self._core.report("/v2/order", body, parts))

    async def report_return(self, body: Body | None = None, /, **parts: Any) -> Recorded:
        """As `Recourse.report_return`."""
        return await self._run(self._core.report("/v2/return", body, parts))

    async def report_dispute(self, body: Body | None = None, /, **parts: Any) -> Recorded:
        """As `Recourse.report_dispute`."""
        return await self._run(self._core.report("/v2/dispute", body, parts))

    async def label(self, customer_id: str, body: Body | None = None, /, **parts: Any) -> Recorded:
        """As `Recourse.label`."""
        return await self._run(self._core.report(_labels_path(customer_id), body, parts))

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncRecourse:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, steps: Steps[T]) -> T:
        outcome: Reply | Failure | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._send(step)

    async def _send(self, step: Send) -> Reply | Failure:
        try:
            request, _ = self._request(self._http, step)
            async with asyncio.timeout(step.timeout):
                response = await self._http.send(request)
        except (httpx.HTTPError, TimeoutError) as error:
            return _failed(error)
        return Reply(response.status_code, response.headers, response.content)


# --- webhooks ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """What a webhook tells. The same ``id`` may come twice, and events in any order."""

    id: str
    type: str
    timestamp: str
    data: Body


def verify_webhook(
    headers: Mapping[str, str], body: bytes | str, secret: str | Iterable[str], *,
    tolerance_seconds: float = WEBHOOK_TOLERANCE_SECONDS, now: float | None = None,
) -> WebhookEvent:  # fmt: skip
    """What a webhook tells, if the service signed it (Standard Webhooks) and sent it lately.

    ``secret`` is what `recourse webhooks add` printed, or several while one takes over; ``body``
    the bytes as they came; ``now`` in Unix seconds, the present when not given. Raises
    WebhookRefused.

    >>> try: verify_webhook({}, b"{}", "whsec_c2VjcmV0")
    ... except WebhookRefused as error: print(error)
    webhook: lacks webhook-id, webhook-timestamp or webhook-signature
    """
    given = {name.lower(): value for name, value in headers.items()}
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    webhook_id, sent_at, signatures = (given.get(name, "") for name in names)
    if not (webhook_id and sent_at and signatures):
        raise WebhookRefused("webhook: lacks webhook-id, webhook-timestamp or webhook-signature")
    present = time.time() if now is None else now
    if not (sent_at.isascii() and sent_at.isdigit() and len(sent_at) < 12):
        raise WebhookRefused("webhook: webhook-timestamp is not in Unix seconds")
    if abs(present - int(sent_at)) > tolerance_seconds:
        raise WebhookRefused("webhook: was signed too long ago, or in the future")
    content = body.encode() if isinstance(body, str) else body
    signed = b".".join((webhook_id.encode(), sent_at.encode(), content))
    offered = [one[3:].encode() for one in signatures.split() if one.startswith("v1,")]
    matches = False
    for one in [secret] if isinstance(secret, str) else secret:
        expected = base64.b64encode(hmac.digest(_secret_bytes(one), signed, hashlib.sha256))
        for signature in offered:
            matches |= hmac.compare_digest(expected, signature)
    if not matches:
        raise WebhookRefused("webhook: no signature is by this secret")
    try:
        told = json.loads(content)
        return WebhookEvent(webhook_id, told["type"], told["timestamp"], told["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise WebhookRefused("webhook: its body is none of ours") from error


def _secret_bytes(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_") + "==")
    except binascii.Error as error:
        raise ValueError(
            "secret: expected whsec_… as `recourse webhooks add` printed it"
        ) from error
