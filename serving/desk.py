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
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from features.catalog import FEATURES, MODEL_FEATURES, PLAN
from features.engine import Past
from features.events import RefundRequest
from features.feature import definitions_hash
from features.money import Rates
from rules.decision import Action, Mode, Outcome, RuleResult
from rules.engine import Circumstances, ListHit, ListMatch
from rules.policy import Policy
from serving import answers
from serving.models import Models
from serving.reasons import as_json
from serving.reports import RefundReport, Report
from serving.scorer import (
    Late,
    Shadow,
    Verdict,
    exploration_draw,
    keys_of,
    score,
    shadow,
)
from serving.store.decisions import Decision as StoredDecision
from serving.store.decisions import FirstResult
from serving.store.history import Slices
from serving.store.refunds import TRANSITIONS, State
from serving.store.store import Store, Transaction

OPTIMISTIC_TRIES: Final = 2
"""How often a decision is made outside the write lock before it is made inside it."""

READS: Final = tuple(PLAN.reads)
CATALOG_HASH: Final = definitions_hash(FEATURES)

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
    """The customer's history moved while a decision was made."""


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
    policy: Policy
    models: Models
    rates: Rates
    secret: bytes
    deadline_ms: int
    is_sandbox: bool = False

    def warm_up(self) -> None:
        """Go the way of a decision once, up to what is kept, before the first one is waiting."""
        request = RefundRequest(refund_id="-", customer_id="-", known_at=1, amount_minor=0,
                                currency=self.rates.base)  # fmt: skip
        self._judge(request, _Deadline(math.inf, time.monotonic()))

    # --- reports -----------------------------------------------------------------------------

    def record(self, report: Report, known_at: int, actor: str) -> Answer:
        """Keep what a backend reports; a surprise is kept too, and flagged."""
        events = report.events(known_at)
        customer = getattr(getattr(report, "customer", None), "customer_id", None)
        warnings = report.warnings()
        refund_id = next((e.refund_id for e in events if hasattr(e, "refund_id") and e.refund_id),
                         None)  # fmt: skip
        with self.store.write(customer) as tx:
            before = tx.refund(refund_id) if refund_id else None
            for event, appended in zip(events, tx.append(events), strict=True):
                if appended.is_unexpected:
                    was = before.state if before else None
                    status = getattr(event, "status", "")
                    warnings.append(answers.unexpected_transition(was, status))
            subject = f"refund:{refund_id}" if refund_id else events[0].event_type if events else ""
            content = {"events": [event.event_id for event in events]}
            tx.audit(actor, "reported", subject, content, at=known_at)
        order_id = next((e.order_id for e in events if hasattr(e, "order_id") and e.order_id), None)
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
        for _ in range(OPTIMISTIC_TRIES):
            # Before the cutoff: what commits from here on may bear a later time than the cutoff,
            # which the read would leave out, and each of the two would believe to be the first.
            seen = self.store.read(customer, 0, ()).customer_seen
            case = _Case.of(report, now())
            judged = self._judge(case.request, deadline)
            if judged.slices.customer_seen != seen:
                continue
            try:
                with self.store.write(case.request.customer_id) as tx:
                    return self._settle(tx, case, judged, sender)
            except MovedError:
                continue
        with self.store.write(customer.get("customer")) as tx:
            case = _Case.of(report, now())  # under the lock: later than all that it waited for
            return self._settle(tx, case, self._judge(case.request, deadline), sender)

    def _judge(self, request: RefundRequest, deadline: _Deadline) -> _Judged:
        models = self.models.now  # taken once: what is promoted meanwhile is for the next one
        keys = keys_of(request)
        slices = self.store.read(keys, request.known_at, READS)
        entries = self.store.matching_lists(keys, request.known_at)
        circumstances = Circumstances(
            lists=ListMatch(
                block=tuple(ListHit(e.entity, e.reason) for e in entries if e.list == "block"),
                allow=tuple(ListHit(e.entity, e.reason) for e in entries if e.list == "allow"),
                entities=frozenset(keys),
            ),
            sandbox=_forced(request.email) if self.is_sandbox else None,
            exploration_draw=exploration_draw(self.secret, request.refund_id, self.policy.hash),
        )
        past = Past(slices.rows, slices.pseudonyms, slices.first_seen)
        verdict = score(
            request, past, models.champion, self.policy, self.rates, circumstances, deadline
        )
        if (challenger := models.shadow) is None:
            return _Judged(slices, verdict)
        with deadline.stopped():
            beside = shadow(request, verdict.row, challenger, self.policy, circumstances, deadline)
        if beside.problem is not None:
            self.models.report(beside.version, beside.problem)
        return _Judged(slices, verdict, beside)

    def _settle(self, tx: Transaction, case: _Case, judged: _Judged, sender: Sender) -> Answer:
        """Answer as before if this was answered before; else keep the decision and answer."""
        at = case.request.known_at
        api_key, key = sender.api_key_id, sender.idempotency_key
        first = tx.first_result(api_key, key, at) if key else None
        if first is not None and first.content_hash != case.content_hash:
            raise KeyReusedError(
                f"Idempotency-Key: {key!r} was used with other content; use a new one"
            )
        found = first or tx.find_decision(case.request.refund_id, case.content_hash)
        if found is not None:
            if key and first is None:
                tx.save_first_result(api_key, key, case.first_result(found.response))
            data = {"customerId": case.request.customer_id, **found.response["data"]}
            return Answer({**found.response, "data": data}, replayed=True)
        if tx.customer_moved_since(judged.slices):
            raise MovedError
        body = self._keep(tx, case, judged, sender)
        if key:
            tx.save_first_result(api_key, key, case.first_result(_impersonal(body)))
        return Answer(body)

    def _keep(
        self, tx: Transaction, case: _Case, judged: _Judged, sender: Sender
    ) -> Mapping[str, Any]:
        """Write the decision and all it rests on; returns what is answered."""
        request, verdict = case.request, judged.verdict
        tx.append(case.events)
        self._move(tx, request, verdict.decision.action)
        body = self._body(case, judged.slices, verdict)
        decision = StoredDecision(
            score_id=case.score_id,
            refund_id=request.refund_id,
            content_hash=case.content_hash,
            decided_at=request.known_at,
            record=self._record(case, judged),
            response=_impersonal(body),
        )
        tx.save_decision(decision)
        content = {"score_id": case.score_id, "action": verdict.decision.action.value,
                   "source": verdict.decision.source.value}  # fmt: skip
        subject = f"refund:{request.refund_id}"
        tx.audit(sender.actor, "decided", subject, content, at=request.known_at)
        return body

    def _move(self, tx: Transaction, request: RefundRequest, action: Action) -> None:
        """Take the refund from where it is to where the decision puts it, if a way leads there.

        A refund that was decided before and asked again with other fields may have none: its state
        tells what became of it, and its last decision is the one it is to be handled by.
        """
        refund = tx.refund(request.refund_id)
        state: State = refund.state if refund else "REQUESTED"
        goal = STATE_OF_ACTION[action]
        way: tuple[State, ...] = ("VALIDATED", "DECIDED", goal) if state == "REQUESTED" else (goal,)
        if all(to in TRANSITIONS[at] for at, to in itertools.pairwise((state, *way))):
            tx.transition(request.refund_id, *way, at=request.known_at)

    # --- documents ---------------------------------------------------------------------------

    def _body(self, case: _Case, slices: Slices, verdict: Verdict) -> Mapping[str, Any]:
        decision = verdict.decision
        by_rule = [
            {"code": rule.reason, "description": _said(rule)}
            for rule in decision.rules
            if rule.mode is Mode.LIVE
            and rule.reason in decision.reasons
            and rule.calls_for is decision.action
        ]
        by_list = [{"code": "LISTED", "description": reason} for reason in decision.list_reasons]
        return answers.decision_body(
            decided_at=case.request.known_at,
            customer_id=case.request.customer_id,
            action=decision.action.value,
            source=decision.source.value,
            score_id=case.score_id,
            probability=verdict.score.probability if verdict.score else None,
            risk_level=verdict.risk_level,
            reasons=[*by_rule, *by_list, *map(as_json, verdict.reasons)],  # type: ignore[list-item]
            rules=[_rule_body(rule) for rule in decision.hits],
            warnings=self._warnings(case, slices, verdict),
            model_version=verdict.model_version,
            policy_version=decision.policy_version,
            degraded=decision.degraded,
        )

    def _warnings(self, case: _Case, slices: Slices, verdict: Verdict) -> list[answers.WarningBody]:
        warnings = case.report.warnings()
        if slices.first_seen.get("customer") is None:
            warnings.append(answers.customer_not_found())
        if slices.named.get("order") is None and case.request.order_amount_minor is None:
            warnings.append(answers.order_not_found())
        live = (rule for rule in verdict.decision.unknowns if rule.mode is Mode.LIVE)
        for rule in live:
            settled = f"rule {rule.rule_id} could not be settled"
            warnings.append(answers.fact_missing(", ".join(rule.unknown_facts), settled))
        if verdict.decision.degraded:
            warnings.append(answers.degraded((verdict.problem or "no score").partition(":")[0]))
        return warnings

    def _record(self, case: _Case, judged: _Judged) -> Mapping[str, Any]:
        """All that the decision can be recomputed and explained from; holds pseudonyms only."""
        slices, verdict = judged.slices, judged.verdict
        scored, contributions = verdict.score, verdict.contributions
        record = {
            "refund_id": case.request.refund_id,
            "event_id": case.request.event_id,
            "cutoff": case.request.known_at,
            "snapshot": slices.snapshot,
            "keys": dict(slices.pseudonyms),
            "decision": verdict.decision.to_json(),
            "probability": scored.probability if scored else None,
            "expected_loss_minor": scored.expected_loss_minor if scored else None,
            "reasons": [as_json(reason) for reason in verdict.reasons],
            "features": {n: None if math.isnan(v) else v for n, v in verdict.row.items()},
            "contributions": None if contributions is None else dict(
                zip((*(f.name for f in MODEL_FEATURES), "expected"), contributions.tolist(),
                    strict=True)
            ),
            "model_version": verdict.model_version,
            "catalog_hash": CATALOG_HASH,
            "base_currency": self.rates.base,
            "problem": verdict.problem,
        }  # fmt: skip
        return record if judged.shadow is None else {**record, "shadow": judged.shadow.to_json()}


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


@dataclass(frozen=True)
class _Judged:
    """What one attempt read, decided, and heard from a challenger."""

    slices: Slices
    verdict: Verdict
    shadow: Shadow | None = None


@dataclass(frozen=True)
class _Case:
    """One attempt at a scored report: its events as of its cutoff."""

    report: RefundReport
    request: RefundRequest
    events: tuple[Any, ...]
    content_hash: str
    score_id: str

    @classmethod
    def of(cls, report: RefundReport, cutoff: int) -> _Case:
        events = tuple(report.events(cutoff))
        request = next(event for event in events if isinstance(event, RefundRequest))
        return cls(report, request, events, report.content_hash, uuid.uuid4().hex)

    def first_result(self, body: Mapping[str, Any]) -> FirstResult:
        """What an idempotency key that came with this content is bound to."""
        return FirstResult(self.content_hash, 200, body, self.request.known_at)


def _forced(email: str | None) -> Action | None:
    return SANDBOX_ACTIONS.get(email.partition("@")[0]) if email else None


def _said(rule: RuleResult) -> str:
    unsettled = rule.outcome is Outcome.UNKNOWN
    return f"not known: {rule.description}" if unsettled else rule.description


def _rule_body(rule: RuleResult) -> answers.RuleBody:
    return {
        "triggered": True,
        "description": rule.description,
        "state": "active" if rule.mode is Mode.LIVE else "passive",
        "action": rule.action.value,
        "ruleId": rule.rule_id,
        "ruleVersion": rule.version,
    }


def _impersonal(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A body as it is stored: the customer's id comes back with the request that is sent again."""
    return {**body, "data": {k: v for k, v in body["data"].items() if k != "customerId"}}
