"""History from before Recourse, by the wire's own bodies: recorded as of its time, never scored.

Unlike what is reported, its ``timestamp`` is its ``known_at``, in stores of either clock. So it
moves windows of the past, and its scope is ``admin``. It is written in small transactions with
pauses between them, on the thread of the management: decisions go first.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, NotRequired

# On Python before 3.12 pydantic reads a TypedDict from here only.
from typing_extensions import TypedDict

from features.events import Event, RefundOutcome
from serving import answers, contract
from serving.desk import Desk
from serving.envelope import JSON, ApiError
from serving.reports import Report
from serving.store.audit import AuditEntry
from serving.store.database import STORE_UNAVAILABLE
from serving.store.history import Appended
from serving.wire import InvalidRequest, Problem

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from serving.api import Api

NDJSON: Final = "application/x-ndjson"
SCOPES: Final = ("admin",)

MAX_BYTES: Final = 8 * 1024 * 1024
"""The largest body of lines; one line is at most as large as any other body."""

MAX_LINES: Final = 10_000
LINES_AT_ONCE: Final = 50
"""How many lines one transaction holds: a decision waits for no more than them."""

LEAST_PAUSE_SECONDS: Final = 0.005

Kind = Literal["refund", "order", "return", "dispute", "label"]
Result = Literal["recorded", "known", "nothing", "refused"]

PARSE: Final[Mapping[Kind, Callable[[bytes], Report]]] = {
    "refund": lambda body: contract.parse_refund(body, scored=False, backfill=True),
    "order": lambda body: contract.parse_order(body, backfill=True),
    "return": lambda body: contract.parse_return(body, backfill=True),
    "dispute": lambda body: contract.parse_dispute(body, backfill=True),
    "label": lambda body: contract.parse_label(body, backfill=True),
}
"""How a body of each kind is read; each must say its ``timestamp``."""


class LineBody(TypedDict):
    """What became of one line, the first being 1.

    ``known`` was recorded before; ``nothing`` says nothing that is kept, for the reason that its
    warnings give; of ``refused`` nothing was kept, for its ``validationErrors``.
    """

    line: int
    result: Result
    warnings: NotRequired[list[answers.WarningBody]]
    validationErrors: NotRequired[list[answers.ValidationErrorBody]]


class BackfillData(TypedDict):
    """How many lines had which result, and each of them."""

    recorded: int
    known: int
    nothing: int
    refused: int
    lines: list[LineBody]


class Line(NamedTuple):
    """A line by its number: the report in it, and what that says."""

    number: int
    report: Report
    events: Sequence[Event]


@dataclass
class Batch:
    """Lines to be written in one transaction."""

    lines: list[Line] = field(default_factory=list)
    refunds: set[str] = field(default_factory=set)

    def takes(self, line: Line) -> bool:
        """Whether a line may go in with those before it.

        Two outcomes of one refund are two transactions: whether the second is one told again
        depends on where the first put the refund (`serving.store.refunds.Refunds.taken_again`).
        """
        return len(self.lines) < LINES_AT_ONCE and self.refunds.isdisjoint(_outcomes(line))

    def add(self, line: Line) -> None:
        """Put a line in."""
        self.lines.append(line)
        self.refunds.update(_outcomes(line))


def _outcomes(line: Line) -> set[str]:
    return {event.refund_id for event in line.events if isinstance(event, RefundOutcome)}


def read(kind: Kind, body: bytes, at: int, number: int = 1) -> Line:
    """A body of history; raises `InvalidRequest`, also for a time later than ``at`` (epoch ms).

    >>> body = b'{"timestamp": 1500000000, "return": {"status": "RECEIVED", "orderId": "o"}}'
    >>> read("return", body, at=1_600_000_000_000).events[0].known_at
    1500000000000
    >>> read("return", body, at=1_400_000_000_000)
    Traceback (most recent call last):
    ...
    serving.wire.InvalidRequest: timestamp: must not be later than now, got 1500000000000
    """
    report = PARSE[kind](body)
    known_at = report.timestamp
    if known_at is None:
        raise InvalidRequest([Problem("timestamp", "is required")])
    if known_at > at:
        raise InvalidRequest([Problem("timestamp", "must not be later than now", known_at)])
    return Line(number, report, report.events(known_at))


def keep(desk: Desk, lines: Sequence[Line], *, actor: str, at: int) -> list[LineBody]:
    """Record lines in one transaction, each as of its own timestamp; what became of each.

    What was recorded before is left as it is. ``at`` is the present (epoch ms), for the audit.
    """
    paid = {refund_id for line in lines for refund_id in _outcomes(line)}
    standing = {refund_id: desk.store.refund(refund_id) for refund_id in paid}
    # An outcome changes what is left of the order, also where it names the refund alone.
    orders = {name for line in lines for name in _named(line, "order_id")}
    orders |= {refund.order_id for refund in standing.values() if refund and refund.order_id}
    customers = {name for line in lines for name in _named(line, "customer_id")}
    with desk.store.write_about(customers, orders) as tx:
        states = {refund_id: refund.state if (refund := tx.refund(refund_id)) else None
                  for refund_id in paid}  # fmt: skip
        appended = iter(tx.append([event for line in lines for event in line.events]))
        told: list[LineBody] = []
        entries = []
        for line in lines:
            became = [next(appended) for _ in line.events]
            if new := [one.event_id for one in became if one.is_new]:
                entries.append(AuditEntry(at, actor, "backfilled", _subject(line), {"events": new}))
            warnings = line.report.warnings()
            warnings += _surprises(line, became, states)
            told.append({"line": line.number, "result": _result(became), "warnings": warnings})
        tx.audit_many(entries)
    return told


def _named(line: Line, column: str) -> set[str]:
    return {name for event in line.events if (name := getattr(event, column, None))}


def _surprises(
    line: Line, became: Sequence[Appended], states: Mapping[str, str | None]
) -> Iterator[answers.WarningBody]:
    for event, one in zip(line.events, became, strict=True):
        if one.is_unexpected and isinstance(event, RefundOutcome):
            yield answers.unexpected_transition(states[event.refund_id], event.status)


def _result(became: Sequence[Appended]) -> Result:
    if not became:
        return "nothing"
    return "recorded" if any(one.is_new for one in became) else "known"


def _subject(line: Line) -> str:
    refund_id = next(iter(sorted(_named(line, "refund_id"))), None)
    return f"refund:{refund_id}" if refund_id else line.events[0].event_type


def _refused(number: int, error: InvalidRequest) -> LineBody:
    problems = answers.error_body(400, error.message, error.problems)["validationErrors"]
    return {"line": number, "result": "refused", "validationErrors": problems}


def _summed(lines: Sequence[LineBody]) -> BackfillData:
    counts = Counter(line["result"] for line in lines)
    return {"recorded": counts["recorded"], "known": counts["known"], "nothing": counts["nothing"],
            "refused": counts["refused"], "lines": [*lines]}  # fmt: skip


# --- the calls ---------------------------------------------------------------------------------


class Backfill:
    """The calls that take history, over the desks of an `Api`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def of(self, kind: Kind) -> Callable[[Request], Awaitable[Response]]:
        """The call that takes history of one kind: one JSON body, or one on each line (NDJSON)."""

        async def call(request: Request) -> Response:
            # Whoever may not ask does not make us read megabytes.
            await self._api.office(lambda: self._api.admit(request, *SCOPES))
            if media_type(request) != NDJSON:
                body = await self._api.body(request, (JSON, NDJSON))
                return await self._api.manage(
                    request, SCOPES,
                    lambda desk, key, at: _summed([_single(desk, kind, body, f"key:{key.id}", at)]),
                )  # fmt: skip
            body = await self._api.body(request, (JSON, NDJSON), at_most=MAX_BYTES)
            return await self._api.manage_in_turns(
                request, SCOPES, lambda: self._lines(request, kind, body)
            )

        return call

    async def _lines(self, request: Request, kind: Kind, body: bytes) -> BackfillData:
        """Record the lines that can be recorded, some at once, and answer to every one."""
        told: list[LineBody] = []
        rest = _numbered(body, self._api.max_body_bytes)
        while some := [*islice(rest, LINES_AT_ONCE)]:

            def work(some: Sequence[tuple[int, bytes]] = some) -> tuple[list[LineBody], float]:
                desk, key = self._api.admit(request, *SCOPES)
                return _written(desk, kind, some, actor=f"key:{key.id}", at=self._api.now())

            try:
                became, seconds = await self._api.office(work)
            except STORE_UNAVAILABLE as error:
                if not told:
                    raise
                message = (
                    f"the store cannot be reached: what lines up to {told[-1]['line']} say was "
                    "recorded; send the body again, which records nothing twice"
                )
                raise ApiError(503, message, headers={"Retry-After": "1"}) from error
            told += became
            # As long again as it took: whoever waited for the write lock has it by then.
            await asyncio.sleep(max(LEAST_PAUSE_SECONDS, seconds))
        return _summed(told)


def media_type(request: Request) -> str:
    """What a body says that it is."""
    return request.headers.get("content-type", JSON).partition(";")[0].strip().lower()


def _single(desk: Desk, kind: Kind, body: bytes, actor: str, at: int) -> LineBody:
    [told] = keep(desk, [read(kind, body, at)], actor=actor, at=at)
    return told


def _numbered(body: bytes, most_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The lines that say something, by number; raises `ApiError` for too many or too long ones."""
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if len(lines) > MAX_LINES:
        raise ApiError(413, f"body: must have at most {MAX_LINES} lines, got {len(lines)}")
    if not lines:
        raise InvalidRequest([Problem("body", "must have at least one line that is not blank")])
    for number, line in lines:
        if len(line) > most_bytes:
            raise ApiError(413, f"line {number}: must be at most {most_bytes} bytes")
    return iter(lines)


def _written(
    desk: Desk, kind: Kind, lines: Sequence[tuple[int, bytes]], *, actor: str, at: int
) -> tuple[list[LineBody], float]:
    """What became of some lines, and how many seconds the longest transaction took."""
    told: list[LineBody] = []
    batches: list[Batch] = []
    for number, body in lines:
        try:
            line = read(kind, body, at, number)
        except InvalidRequest as error:
            told.append(_refused(number, error))
            continue
        if not (batches and batches[-1].takes(line)):
            batches.append(Batch())
        batches[-1].add(line)
    longest = 0.0
    for batch in batches:
        started = time.perf_counter()
        told += keep(desk, batch.lines, actor=actor, at=at)
        longest = max(longest, time.perf_counter() - started)
    return sorted(told, key=itemgetter("line")), longest


__all__ = ["Backfill", "BackfillData", "LineBody", "keep", "read"]
