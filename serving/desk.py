"""The desk of one store, live or sandbox: takes a report in, decides it, and answers only for what
the store has kept.

A decision reads history outside the write lock and is committed inside it. When the customer's
history moved in between, it is made again, the last time under the lock, so that of many refunds
sent at once each sees those before it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from features.catalog import PLAN
from features.engine import Past
from features.events import ENTITIES, Event, RefundRequest, due_minor
from features.ledger import Fact, order_ledger
from features.money import Rates
from rules.decision import Action
from rules.engine import Circumstances, ListHit, ListMatch
from rules.policy import Policy
from serving import announcements, answers
from serving.case import Case, Judged, answer_of, impersonal, record_of
from serving.clock import FARTHEST_AHEAD_SECONDS
from serving.models import Models
from serving.policies import Policies
from serving.reports import RefundReport, Report
from serving.scorer import Late, exploration_draw, keys_of, score, shadow
from serving.store.decisions import Decision as StoredDecision
from serving.store.refunds import ENDED, TRANSITIONS, Refund, State
from serving.store.reservations import Reservation
from serving.store.store import Store, Transaction

OPTIMISTIC_TRIES: Final = 2
"""How often a decision is made outside the write lock before it is made inside it."""

READS: Final = tuple(PLAN.reads)

STATE_OF_ACTION: Final[Mapping[Action, State]] = {
    Action.ALLOW: "APPROVED",
    Action.PREVENT: "DENIED",
    Action.MANUAL_REVIEW: "NEEDS_REVIEW",
    Action.REVIEW: "NEEDS_REVIEW",
}

SANDBOX_ACTIONS: Final[Mapping[str, Action]] = {
    "qa-force-refund-allow": Action.ALLOW,
    "qa-force-refund-prevent": Action.PREVENT,
    "qa-force-refund-manualreview": Action.MANUAL_REVIEW,
    "qa-force-refund-review": Action.REVIEW,
}
"""Local parts of ``customer.email`` that force an answer, in the sandbox only."""


class MovedError(Exception):
    """The customer's history, or the order's balance, moved while a decision was made."""


class KeyReusedError(Exception):
    """An idempotency key came with other content than at first."""


@dataclass(frozen=True)
class Sender:
    """Who asks: an API key, and the idempotency key it gave if any."""

    api_key_id: str
    idempotency_key: str | None = None

    @property
    def actor(self) -> str:
        """The sender as the audit log names it."""
        return f"key:{self.api_key_id}"


@dataclass(frozen=True)
class Answer:
    """A body to send, and whether it repeats an earlier one."""

    body: Mapping[str, Any]
    replayed: bool = False


@dataclass(frozen=True)
class Desk:
    """Everything that one store's decisions are made with."""

    store: Store
    policies: Policies
    models: Models
    rates: Rates
    secret: bytes
    deadline_ms: int
    is_sandbox: bool = False

    def warm_up(self) -> None:
        """Go the way of a decision once, up to what is kept, before the first one is waiting."""
        request = RefundRequest(refund_id="-", customer_id="-", order_id="-", known_at=1,
                                amount_minor=0, currency=self.rates.base)  # fmt: skip
        self._judge(request, _Deadline(math.inf, time.monotonic()))

    # --- reports -----------------------------------------------------------------------------

    def record(self, report: Report, known_at: int, actor: str) -> Answer:
        """Keep what a backend reports; a surprise is kept too, and flagged."""
        events = report.events(known_at)
        customer = getattr(getattr(report, "customer", None), "customer_id", None)
        warnings = report.warnings()
        refund_id = next((e.refund_id for e in events if hasattr(e, "refund_id") and e.refund_id),
                         None)  # fmt: skip
        # An outcome changes what is left of the order, also where it names the refund alone.
        before = self.store.refund(refund_id) if refund_id else None
        order_id = next((e.order_id for e in events if hasattr(e, "order_id") and e.order_id), None)
        with self.store.write(customer, order_id or (before.order_id if before else None)) as tx:
            before = tx.refund(refund_id) if refund_id else None
            if before and known_at < (at := self._no_earlier(known_at, before.state_at)):
                known_at, events = at, report.events(at)  # else it would count as late
            taken = []
            for event, appended in zip(events, tx.append(events), strict=True):
                taken.append(appended.event_id)
                if appended.is_unexpected:
                    was = before.state if before else None
                    status = getattr(event, "status", "")
                    warnings.append(answers.unexpected_transition(was, status))
            subject = f"refund:{refund_id}" if refund_id else events[0].event_type if events else ""
            content = {"events": taken}
            tx.audit(actor, "reported", subject, content, at=known_at)
        return Answer(
            answers.recorded_body(recorded_at=known_at, customer_id=customer, order_id=order_id,
                                  refund_id=refund_id, warnings=warnings)
        )  # fmt: skip

    # --- decisions ---------------------------------------------------------------------------

    def decide(
        self, report: RefundReport, now: Callable[[], int], sender: Sender,
        arrived: float | None = None,
    ) -> Answer:  # fmt: skip
        """Decide a refund request: the stored decision if it was decided before, else a new one.

        ``now`` gives the cutoff, once per attempt: a decision made again is made later. The
        deadline counts from ``arrived``, by the monotonic clock, so waiting counts too. Raises
        `KeyReusedError` for an idempotency key that came with other content before.
        """
        started = time.monotonic() if arrived is None else arrived
        deadline = _Deadline(self.deadline_ms, started)
        customer = {} if report.customer is None else {"customer": report.customer.customer_id}
        order_id = report.order.order_id if report.order else None
        for _ in range(OPTIMISTIC_TRIES):
            # Before the cutoff: what commits from here on may bear a later time than the cutoff,
            # which the read would leave out, and each of the two would believe to be the first.
            before = self.store.read(customer, 0, ())
            reserved = self._reserved(order_id, report.refund.refund_id)
            case = Case.of(report, self._no_earlier(now(), before.customer_latest + 1))
            judged = self._judge(case.request, deadline, reserved, case.events)
            if judged.slices.customer_seen != before.customer_seen:
                continue
            try:
                with self.store.write(case.request.customer_id, case.request.order_id) as tx:
                    return self._settle(tx, case, judged, sender)
            except MovedError:
                continue
        with self.store.write(customer.get("customer"), order_id) as tx:
            reserved = self._reserved(order_id, report.refund.refund_id)
            latest = self.store.read(customer, 0, ()).customer_latest
            # Under the lock: later than all that it waited for.
            case = Case.of(report, self._no_earlier(now(), latest + 1))
            judged = self._judge(case.request, deadline, reserved, case.events)
            return self._settle(tx, case, judged, sender, may_move=True)

    def _no_earlier(self, known_at: int, than: int) -> int:
        """A time of arrival that comes no earlier than what is kept already.

        Another worker's clock may be ahead by what the machines' clocks differ, or have told the
        same millisecond. A time that is farther ahead than any clock can be is not followed.
        """
        is_ahead = known_at < than < known_at + FARTHEST_AHEAD_SECONDS * 1000
        return than if is_ahead and self.store.clock == "ingest" else known_at

    def _judge(
        self, request: RefundRequest, deadline: _Deadline,
        reserved: tuple[Reservation, ...] = (), brought: Iterable[Event] = (),
    ) -> Judged:  # fmt: skip
        """Decide a request; ``brought`` is what its body says besides, such as its order."""
        # Taken once: what is promoted or put in force meanwhile is for the next decision.
        models, policy = self.models.now, self.policies.now
        keys = keys_of(request)
        slices = self.store.read(keys, request.known_at, READS)
        circumstances = self._circumstances(request, keys, policy)
        ledger = self._ledger(request, reserved, brought)
        past = Past(slices.rows, slices.pseudonyms, slices.first_seen)
        verdict = score(
            request, past, models.champion, policy, self.rates, circumstances, deadline, ledger
        )
        judged = Judged(slices, policy, circumstances, verdict, reserved=reserved)
        if (challenger := models.shadow) is None:
            return judged
        with deadline.stopped():
            beside = shadow(verdict, challenger, policy, circumstances, deadline)
        if beside.problem is not None:
            self.models.report(beside.version, beside.problem)
        return replace(judged, shadow=beside)

    def _circumstances(
        self, request: RefundRequest, keys: Mapping[str, str], policy: Policy
    ) -> Circumstances:
        """What else bears on the decision, as of its cutoff."""
        entries = self.store.matching_lists(keys, request.known_at)
        return Circumstances(
            lists=ListMatch(
                block=tuple(ListHit(e.entity, e.reason) for e in entries if e.list == "block"),
                allow=tuple(ListHit(e.entity, e.reason) for e in entries if e.list == "allow"),
                entities=frozenset(ENTITIES) & keys.keys(),
            ),
            sandbox=_forced(request.email) if self.is_sandbox else None,
            exploration_draw=exploration_draw(self.secret, request.refund_id, policy.hash),
        )

    def _reserved(self, order_id: str | None, refund_id: str) -> tuple[Reservation, ...]:
        """What other refunds hold of an order's balance."""
        return () if order_id is None else self.store.reserved(order_id, besides=refund_id)

    def _ledger(
        self, request: RefundRequest, reserved: Sequence[Reservation], brought: Iterable[Event]
    ) -> Mapping[str, Fact] | None:
        """What the order's own documents say, and what is held of it.

        Whatever the policy in force reads: a later one is tried on what is kept of this decision.
        """
        if request.order_id is None:
            return None
        events = [*self.store.order_events(request), *brought]
        holds = [hold for one in reserved for hold in one.holds(request.known_at)]
        return order_ledger(request, events, holds)

    def _settle(
        self, tx: Transaction, case: Case, judged: Judged, sender: Sender, *, may_move: bool = False
    ) -> Answer:
        """Answer as before if this was answered before; else keep the decision and answer.

        Under the lock only reports that name neither the customer nor the order get in between, on
        PostgreSQL: with ``may_move`` the decision comes before them.
        """
        at = case.request.known_at
        api_key, key = sender.api_key_id, sender.idempotency_key
        first = tx.first_result(api_key, key, at) if key else None
        if first is not None and first.content_hash != case.content_hash:
            raise KeyReusedError(
                f"Idempotency-Key: {key!r} was used with other content; use a new one"
            )
        found = first or self._standing(tx, case)
        if found is not None:
            if key and first is None:
                tx.save_first_result(api_key, key, case.first_result(found.response))
            data = {"customerId": case.request.customer_id, **found.response["data"]}
            return Answer({**found.response, "data": data}, replayed=True)
        if not may_move and (
            tx.customer_moved_since(judged.slices) or self._balance_moved(tx, case, judged)
        ):
            raise MovedError
        body = self._keep(tx, case, judged, sender)
        if key:
            tx.save_first_result(api_key, key, case.first_result(impersonal(body)))
        return Answer(body)

    def _standing(self, tx: Transaction, case: Case) -> StoredDecision | None:
        """The decision on exactly this content, if its answer may be given again.

        A promise, or a place in the queue of reviews, is given again while the order's balance is
        held for it, and once it was kept. A refund that its backend declined or canceled meanwhile
        gave the balance back, so it is decided anew; a refusal is always the same.
        """
        request = case.request
        found = tx.find_decision(request.refund_id, case.content_hash)
        if found is None:
            return None
        action = Action(found.record["decision"]["action"])
        refund = tx.refund(request.refund_id)
        if action is Action.PREVENT or refund is None or refund.state == "REFUNDED":
            return found
        if refund.state in ENDED:
            return None
        if request.order_id is None:
            return found
        held = tx.reservation(request.refund_id, request.order_id, request.currency)
        is_promise = action is Action.ALLOW
        return found if held.backs(_due_minor(request), is_promise=is_promise) else None

    def _balance_moved(self, tx: Transaction, case: Case, judged: Judged) -> bool:
        """Whether other refunds hold more or less of the order's balance than was read."""
        request = case.request
        return request.order_id is not None and (
            tx.reserved(request.order_id, besides=request.refund_id) != judged.reserved
        )

    def _keep(
        self, tx: Transaction, case: Case, judged: Judged, sender: Sender
    ) -> Mapping[str, Any]:
        """Write the decision and all it rests on; returns what is answered."""
        request, decision = case.request, judged.verdict.decision
        tx.append(case.events)
        before = tx.refund(request.refund_id) or Refund(request.refund_id)
        self._move(tx, before, request, decision.action)
        self._reserve(tx, request, decision.action)
        body = answer_of(case, judged)
        tx.save_decision(
            StoredDecision(
                score_id=case.score_id,
                refund_id=request.refund_id,
                content_hash=case.content_hash,
                decided_at=request.known_at,
                record=record_of(case, judged, self.rates.base),
                response=impersonal(body),
            )
        )
        content = {"score_id": case.score_id, "action": decision.action.value,
                   "source": decision.source.value}  # fmt: skip
        subject = f"refund:{request.refund_id}"
        tx.audit(sender.actor, "decided", subject, content, at=request.known_at)
        told = announcements.refund_decided(request.refund_id, body["data"])
        tx.announce("refund.decided", told, request.known_at)
        return body

    def _move(
        self, tx: Transaction, before: Refund, request: RefundRequest, action: Action
    ) -> None:
        """Take the refund from where it is to where the decision puts it, if a way leads there.

        One that was denied or canceled and is asked for again begins anew (see
        `serving.store.refunds.Refund.ask_again`), so its state follows the last decision. One that
        was approved or paid stays so, whatever is decided on other fields: its payment may be under
        way, and its state tells what became of it.
        """
        state, goal = before.state, STATE_OF_ACTION[action]
        if state in ENDED:
            tx.ask_again(request.refund_id, at=request.known_at)
            state = "REQUESTED"
        way: tuple[State, ...] = ("VALIDATED", "DECIDED", goal) if state == "REQUESTED" else (goal,)
        if all(to in TRANSITIONS[at] for at, to in itertools.pairwise((state, *way))):
            tx.transition(request.refund_id, *way, at=request.known_at)

    def _reserve(self, tx: Transaction, request: RefundRequest, action: Action) -> None:
        """Hold what may be paid of the order's balance, until an outcome releases it.

        What was promised before may be under way, so no later decision lets go of it: not one on
        a smaller amount, not a refusal, not one on another order.
        """
        if request.order_id is None:
            return
        held = tx.reservation(request.refund_id, request.order_id, request.currency)
        if action is Action.PREVENT:
            held = held.refuse()
        elif action is Action.ALLOW:
            held = held.allow(_due_minor(request))
        else:
            held = held.review(_due_minor(request))
        tx.reserve(held)


def _due_minor(request: RefundRequest) -> int:
    return due_minor(request.amount_minor, request.non_refundable_minor)


class _Deadline:
    """The deadline of one decision, less the time that it is stopped for a challenger."""

    def __init__(self, limit_ms: float, started: float) -> None:
        self._limit_ms, self._started = limit_ms, started

    def __call__(self, stage: str) -> None:
        """Raise `Late` when there is no time for ``stage``."""
        taken = (time.monotonic() - self._started) * 1000
        if taken > self._limit_ms:
            raise Late(f"{taken:.0f} ms had passed before {stage}, of {self._limit_ms}")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done within is not on the decision's account."""
        stopped = time.monotonic()
        yield
        self._started += time.monotonic() - stopped


def _forced(email: str | None) -> Action | None:
    return SANDBOX_ACTIONS.get(email.partition("@")[0]) if email else None
