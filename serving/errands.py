"""What is asked of a desk: to decide a refund request, or to keep what a backend reports.

Each is a `serving.together.Job`: prepared outside the write lock, written inside it, and answered
when that is committed. What was answered before is answered again without being decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from features.events import Event, RefundOutcome, due_minor
from rules.decision import Action, Mode, Source
from serving import announcements, answers
from serving.case import Case, Judged, answer_of, impersonal, record_of
from serving.idempotency import Answer, Claim, digest, take_off
from serving.metrics import degraded_reason
from serving.reports import RefundReport, Report
from serving.store.database import Mark
from serving.store.decisions import IDEMPOTENCY_MS, FirstResult
from serving.store.decisions import Decision as StoredDecision
from serving.store.refunds import ENDED, Decided, Refund, State
from serving.store.reservations import Reservation
from serving.store.reviews import Review, place_of
from serving.store.store import Transaction
from serving.together import Job, MovedError
from serving.watch import Watch

if TYPE_CHECKING:
    from serving.desk import Desk

STATE_OF_ACTION: Final[Mapping[Action, State]] = {
    Action.ALLOW: "APPROVED",
    Action.PREVENT: "DENIED",
    Action.MANUAL_REVIEW: "NEEDS_REVIEW",
    Action.REVIEW: "NEEDS_REVIEW",
}


@dataclass(frozen=True)
class Sender:
    """Who asks: an API key, and the idempotency key it gave if any."""

    api_key_id: str
    idempotency_key: str | None = None

    @property
    def actor(self) -> str:
        """The sender as the audit log names it."""
        return f"key:{self.api_key_id}"

    def claim(self, content: str, call: str | None = None) -> Claim | None:
        """What the sender's key is bound to: content, and a call if that is not scoring."""
        if self.idempotency_key is None:
            return None
        bound = content if call is None else digest(call, content)
        return Claim(self.api_key_id, self.idempotency_key, bound)


class Standing(NamedTuple):
    """What stands of a request that was decided before: the decision, if its answer may be given
    again, or what an analyst answered in its place, which is to be decided once."""

    decision: StoredDecision | None = None
    disposition: Action | None = None


_NOTHING: Final = Standing()


class _Keyed(Job):
    """A job that may come with an idempotency key."""

    claim: Claim | None = None
    _is_flying = False

    def take_off(self) -> None:
        """Hold the key, if it is not held by this job; raises `InFlightError` if by another."""
        if self.claim is not None and not self._is_flying:
            take_off(self.store, self.claim)
            self._is_flying = True

    def end(self, result: Answer | Exception) -> None:
        """Let the key go."""
        if self.claim is not None and self._is_flying:
            self.store.flights.end(self.claim.name)
            self._is_flying = False


class Scoring(_Keyed):
    """A refund request on its way to its decision.

    Raises `KeyReusedError` for an idempotency key that came with other content before, and
    `InFlightError` for one whose first request is under way.
    """

    def __init__(
        self, desk: Desk, report: RefundReport, now: Callable[[], int], sender: Sender, watch: Watch
    ) -> None:
        super().__init__()
        self.desk, self.report, self.sender, self.watch = desk, report, sender, watch
        self.store = desk.store
        if report.customer is None:
            raise ValueError("report: expected one that names its customer")
        self.customer_id: str = report.customer.customer_id
        self.order_id = report.order.order_id if report.order else None
        self.claim = sender.claim(report.content_hash)
        self._now = now
        self._case: Case | None = None
        self._judged: Judged | None = None
        self._mark: Mark | None = None

    def names(self) -> frozenset[tuple[str, str]]:
        """Every person, device and document that the request names."""
        return self.report.names()

    def prepare(self) -> Answer | None:
        """Answer again what was answered before; else decide."""
        self.take_off()
        self._case = self._judged = None
        self.watch("read")
        with self.store.reading() as tx:
            self._mark = tx.mark()
            first = (
                None
                if self.claim is None
                else tx.latest_result(self.claim.api_key_id, self.claim.key)
            )
            standing = _NOTHING if first else self._standing(tx)
            # Before the cutoff: what commits from here on may bear a later time than the cutoff,
            # which the read would leave out, and each of the two would believe to be the first.
            seen, latest = tx.customer(self.customer_id)
            reserved = self._reserved(tx)
        cutoff = self.desk.no_earlier(self._now(), latest + 1)
        if self.claim and first and first.created_at > cutoff - IDEMPOTENCY_MS:
            self.claim.checked(first)
            return self._again(first.response)
        if first:
            standing = self._standing_now()
        if standing.decision is not None and self.claim is None:
            return self._again(standing.decision.response)
        self._case = Case.of(self.report, cutoff)
        if standing.decision is not None:
            return None  # the key is bound to it when it is written
        judged = self._judge(self._case, reserved, standing)
        if judged.slices.customer_seen != seen:
            raise MovedError
        self._judged = judged
        return None

    def write(self, tx: Transaction) -> Answer:
        """Keep what was decided, unless what it rests on has moved."""
        self.watch("write")
        return self._settle(tx, may_move=False)

    def do(self, tx: Transaction) -> Answer:
        """Decide under the lock: later than all that it waited for."""
        self.watch("read")
        self._mark = None
        _, latest = tx.customer(self.customer_id)
        reserved, standing = self._reserved(tx), self._standing(tx)
        self._case = Case.of(self.report, self.desk.no_earlier(self._now(), latest + 1))
        self._judged = self._judge(self._case, reserved, standing)
        self.watch("write")
        return self._settle(tx, may_move=True)

    def end(self, result: Answer | Exception) -> None:
        """Count the decision."""
        super().end(result)
        metrics = self.desk.metrics
        if metrics is None or isinstance(result, Exception):
            return
        if result.replayed or self._judged is None:
            metrics.replayed()
            return
        verdict = self._judged.verdict
        decision = verdict.decision
        unknown = {fact for rule in decision.unknowns if rule.mode is Mode.LIVE
                   for fact in rule.unknown_facts}  # fmt: skip
        metrics.observe(
            self.watch.seconds(), decision.action.value, decision.source.value,
            verdict.score.probability if verdict.score else None, unknown,
            degraded_reason(verdict.problem) if decision.degraded else None,
        )  # fmt: skip

    def _judge(
        self, case: Case, reserved: tuple[Reservation, ...], standing: Standing
    ) -> Judged:  # fmt: skip
        return self.desk.judge(
            case.request, self.watch, reserved, case.events, standing.disposition
        )  # fmt: skip

    def _reserved(self, tx: Transaction) -> tuple[Reservation, ...]:
        """What other refunds hold of the order's balance."""
        if self.order_id is None:
            return ()
        return tx.reserved(self.order_id, besides=self.report.refund.refund_id)

    # --- answered before -----------------------------------------------------------------------

    def _again(self, kept: Mapping[str, Any]) -> Answer:
        """An answer that was given before, with the customer it names."""
        return Answer(_personal(kept, self.customer_id), replayed=True)

    def _standing_now(self) -> Standing:
        with self.store.reading() as tx:
            return self._standing(tx)

    def _standing(self, tx: Transaction) -> Standing:
        """What stands of exactly this content.

        A promise, or a place in the queue of reviews, is given again while the order's balance is
        held for it, and once it was kept. A refund that its backend declined or canceled meanwhile,
        or paid less of, gave the balance back, so it is decided anew; a refusal is always the same.
        What an analyst answered stands as if the decision had: asked first, it is decided with that
        answer, which is a decision of its own and stands from then on.
        """
        asked = self.report.refund
        found = tx.find_decision(asked.refund_id, self.report.content_hash)
        if found is None:
            return _NOTHING
        reviewed = found.reviewed
        disposition = Action(reviewed.disposition) if reviewed and reviewed.disposition else None
        action = disposition or Action(found.record["decision"]["action"])
        refund = tx.refund(asked.refund_id)
        given = Standing(found) if disposition is None else Standing(disposition=disposition)
        if action is Action.PREVENT or refund is None:
            return given
        if refund.state in ENDED:
            return _NOTHING
        is_promise, is_paid = action is Action.ALLOW, refund.state == "REFUNDED"
        if reviewed and not (reviewed.is_open or disposition or is_paid):
            return _NOTHING  # what closed the review was about other fields
        if self.order_id is None or asked.amount is None or asked.currency is None:
            return given
        held = tx.reservation(asked.refund_id, self.order_id, asked.currency)
        due = due_minor(asked.amount, asked.non_refundable_amount)
        if is_paid:  # what was paid less than promised is anybody's again
            return given if not is_promise or held.promised_minor >= due else _NOTHING
        return given if held.backs(due, is_promise=is_promise) else _NOTHING

    # --- keeping -------------------------------------------------------------------------------

    def _settle(self, tx: Transaction, *, may_move: bool) -> Answer:
        """Answer as before if this was answered before; else keep the decision and answer.

        Under the lock only reports that name neither the customer nor the order get in between, on
        PostgreSQL: with ``may_move`` the decision comes before them.
        """
        case, judged, claim = self._case, self._judged, self.claim
        if case is None:
            raise MovedError
        at = case.request.known_at
        if judged is None or not tx.is_still_at(self._mark):
            first: FirstResult | None = claim.first(tx, at) if claim else None
            standing = _NOTHING if first else self._standing(tx)
            found = first or standing.decision
            if found is not None:
                if claim and first is None:
                    claim.keep(tx, found.response, at)
                return self._again(found.response)
            if judged is None or judged.circumstances.disposition is not standing.disposition:
                raise MovedError
            if not may_move and (
                tx.customer_moved_since(judged.slices) or self._balance_moved(tx, judged)
            ):
                raise MovedError
        body = self._keep(tx, case, judged)
        if claim:
            claim.keep(tx, impersonal(body), at)
        return Answer(body)

    def _balance_moved(self, tx: Transaction, judged: Judged) -> bool:
        """Whether other refunds hold more or less of the order's balance than was read."""
        return self._reserved(tx) != judged.reserved

    def _keep(self, tx: Transaction, case: Case, judged: Judged) -> Mapping[str, Any]:
        """Write the decision and all it rests on; returns what is answered."""
        request, decision = case.request, judged.verdict.decision
        tx.append(case.events, self._decided(case, judged))
        body = answer_of(case, judged)
        tx.save_decision(
            StoredDecision(
                score_id=case.score_id,
                refund_id=request.refund_id,
                content_hash=case.content_hash,
                decided_at=request.known_at,
                record=record_of(case, judged, self.desk.rates.base),
                response=impersonal(body),
            ),
            is_last=True,
        )
        content = {"score_id": case.score_id, "action": decision.action.value,
                   "source": decision.source.value}  # fmt: skip
        subject = f"refund:{request.refund_id}"
        tx.audit(self.sender.actor, "decided", subject, content, at=request.known_at)
        told = announcements.refund_decided(request.refund_id, body["data"])
        tx.announce("refund.decided", told, request.known_at)
        return body

    def _decided(self, case: Case, judged: Judged) -> Decided:
        """What the decision makes of the refund.

        What was promised before may be under way, so no later decision lets go of it: not one on
        a smaller amount, not a refusal, not one on another order. An analyst's answer was promised
        when it was given, and may have been paid since.
        """
        request, decision = case.request, judged.verdict.decision
        action, is_disposition = decision.action, decision.source is Source.MANUAL_REVIEW
        due = due_minor(request.amount_minor, request.non_refundable_minor)

        def hold(held: Reservation) -> Reservation:
            if action is Action.PREVENT:
                return held.refuse()
            if is_disposition and held.paid_at is not None:
                return held
            return held.allow(due) if action is Action.ALLOW else held.review(due)

        goal = STATE_OF_ACTION[action]
        review = self._review(case, judged, due) if goal == "NEEDS_REVIEW" else None
        return Decided(request.refund_id, goal, case.score_id, request.known_at, request.order_id,
                       request.currency, hold, review,
                       is_answered=judged.circumstances.disposition is not None)  # fmt: skip

    def _review(self, case: Case, judged: Judged, due: int) -> Review:
        """What a person is asked to look at, and by when."""
        request, scored = case.request, judged.verdict.score
        payable = judged.verdict.row["payable_minor"]
        payable_minor = None if math.isnan(payable) else round(payable)
        loss = scored.expected_loss_minor if scored else None
        return Review(
            score_id=case.score_id,
            refund_id=request.refund_id,
            customer=judged.slices.pseudonyms["customer"],
            order_id=request.order_id,
            currency=request.currency,
            amount_minor=request.amount_minor,
            due_minor=due,
            payable_minor=payable_minor,
            expected_loss_minor=None if loss is None else round(loss),
            probability=scored.probability if scored else None,
            place=place_of(loss, payable_minor),
            opened_at=request.known_at,
            due_at=request.known_at + self.desk.review_ms,
        )


class Telling(_Keyed):
    """A report on its way into the store; a surprise is kept too, and flagged."""

    def __init__(
        self, desk: Desk, report: Report, now: Callable[[], int], actor: str,
        claim: Claim | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.desk, self.report, self.store, self.claim = desk, report, desk.store, claim
        self.customer_id = getattr(getattr(report, "customer", None), "customer_id", None)
        self._now, self._actor = now, actor
        self._known_at = 0
        self._kinds: dict[str, int] = {}

    def names(self) -> frozenset[tuple[str, str]]:
        """Every person and document that the report names."""
        return self.report.names()

    def prepare(self) -> Answer | None:
        """Answer again what was answered before; else fix when it became known, and of what."""
        self.take_off()
        self._known_at = self._now()
        if self.claim is not None:
            with self.store.reading() as tx:
                if (first := self.claim.first(tx, self._known_at)) is not None:
                    return self._again(first)
        # An outcome changes what is left of the order, also where it names the refund alone.
        refund_id, self.order_id = self._named()
        if refund_id is not None and self.order_id is None:
            before = self.store.refund(refund_id)
            self.order_id = before.order_id if before else None
        return None

    def write(self, tx: Transaction) -> Answer:
        """Keep it and what it moves."""
        at = self._known_at
        if self.claim is not None and (first := self.claim.first(tx, at)) is not None:
            return self._again(first)
        refund_id, order_id = self._named()
        before = tx.refund(refund_id) if refund_id else None
        if before is not None:  # else it would count as late
            at = self.desk.no_earlier(at, before.state_at)
        events = self.report.events(at)
        warnings = self.report.warnings()
        paid_otherwise = self._paid_otherwise(tx, before, events) if before else None
        taken, surprises = [], 0
        for event, appended in zip(events, tx.append(events), strict=True):
            taken.append(appended.event_id)
            if not (appended.is_new and isinstance(event, RefundOutcome)):
                continue
            # A refund that the report itself requests was never seen before either.
            if before is None or appended.is_unexpected:
                was = before.state if before else None
                warnings.append(answers.unexpected_transition(was, event.status))
                surprises += 1
            elif paid_otherwise is not None:
                warnings.append(paid_otherwise)
                surprises += 1
        self._kinds = dict.fromkeys((event.event_type for event in events), 0)
        if surprises:
            self._kinds["refund_outcome"] = surprises
        subject = f"refund:{refund_id}" if refund_id else next(iter(self._kinds), "")
        tx.audit(self._actor, "reported", subject, {"events": taken}, at=at)
        body = answers.recorded_body(
            recorded_at=at, customer_id=self.customer_id, order_id=order_id, refund_id=refund_id,
            recorded=self._kinds, warnings=warnings,
        )  # fmt: skip
        if self.claim is not None:
            self.claim.keep(tx, impersonal(body), at)
        return Answer(body)

    def do(self, tx: Transaction) -> Answer:
        """Prepare and write under the lock; nothing moves a report, so it never comes to this."""
        self._known_at = self._now()
        return self.write(tx)

    def end(self, result: Answer | Exception) -> None:
        """Count the report."""
        super().end(result)
        metrics = self.desk.metrics
        if metrics is None or isinstance(result, Exception):
            return
        if result.replayed:
            metrics.replayed()
            return
        for kind, surprises in self._kinds.items():
            metrics.reported(kind, surprises)

    def _paid_otherwise(
        self, tx: Transaction, before: Refund, events: Iterable[Event]
    ) -> answers.WarningBody | None:
        """That more is paid than was approved, or in another currency. Asked before it is kept.

        What the refund holds tells most at a glance, but is less than was approved where less was
        paid before. An amount without a currency is in that of the request.
        """
        paid = next((e for e in events if isinstance(e, RefundOutcome)), None)
        if paid is None or paid.amount_minor is None or not isinstance(self.report, RefundReport):
            return None
        minor, currency = paid.amount_minor, self.report.refund.currency or before.currency
        if any(
            held.promised_minor >= minor and currency == held.currency
            for held in tx.reserved_for(paid.refund_id)
        ):
            return None
        approved: dict[str, int] = {}
        for decision in tx.decisions_of(paid.refund_id):
            facts = decision.record["facts"]
            name, asked_minor = facts.get("currency"), facts.get("asked_minor")
            is_known = name is not None and asked_minor is not None
            if is_known and decision.record["decision"]["action"] == Action.ALLOW:
                approved[name] = max(approved.get(name, 0), int(asked_minor))
        if not approved or minor <= approved.get(currency or "", -1):
            return None
        return answers.paid_otherwise(minor, currency, approved)

    def _again(self, first: FirstResult) -> Answer:
        return Answer(_personal(first.response, self.customer_id), replayed=True)

    def _named(self) -> tuple[str | None, str | None]:
        """The refund and the order that its events name first."""
        names = self.report.documents()
        return names.get("refund_id"), names.get("order_id")


def _personal(kept: Mapping[str, Any], customer_id: str | None) -> Mapping[str, Any]:
    """A body as it was answered: who it is about is not kept with it."""
    if customer_id is None:
        return kept
    return {**kept, "data": {"customerId": customer_id, **kept["data"]}}
