"""One scored request on its way through a desk, and the two documents made of it.

The answer goes out, with the customer's id; the record stays, with pseudonyms only, and holds all
that the decision can be recomputed and explained from.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

from features.catalog import FEATURES, MODEL_FEATURES, PLAN
from features.engine import Row
from features.events import RefundRequest
from features.feature import definitions_hash
from features.ledger import Fact
from rules.decision import Action, FollowUp, Mode, Outcome, RuleResult
from rules.engine import Circumstances, ListMatch
from rules.policy import Policy
from serving import answers
from serving.facts import BESIDE
from serving.fields import fields_of, needs_rate
from serving.reports import RefundReport
from serving.scorer import Shadow, Verdict
from serving.store.decisions import FirstResult, Numbers
from serving.store.history import Slices
from serving.store.reservations import Reservation

CATALOG_HASH: Final = definitions_hash(FEATURES)

_FEATURES: Final = tuple(PLAN.step_of)
_CONTRIBUTING: Final = (*(feature.name for feature in MODEL_FEATURES), "expected")


def new_score_id(at: int) -> str:
    """A new id of a decision: its time (epoch ms), then 80 random bits.

    Such ids are added at the end of an index, where one page takes all that are committed together;
    random ones would each touch a page of their own. Who knows the time of a decision cannot guess
    the rest.

    >>> new_score_id(1_000)[:12], len(new_score_id(1_000)), new_score_id(7) == new_score_id(7)
    ('0000000003e8', 32, False)
    """
    return f"{max(at, 0):012x}{secrets.token_hex(10)}"


@dataclass(frozen=True)
class Case:
    """One attempt at a scored report: its events as of its cutoff."""

    report: RefundReport
    request: RefundRequest
    events: tuple[Any, ...]
    content_hash: str
    score_id: str

    @classmethod
    def of(cls, report: RefundReport, cutoff: int) -> Case:
        """The report as known at ``cutoff`` (epoch ms), under a new score id."""
        events = tuple(report.events(cutoff))
        request = next(event for event in events if isinstance(event, RefundRequest))
        return cls(report, request, events, report.content_hash, new_score_id(cutoff))

    def first_result(self, body: Mapping[str, Any]) -> FirstResult:
        """What an idempotency key that came with this content is bound to."""
        return FirstResult(self.content_hash, 200, body, self.request.known_at)


@dataclass(frozen=True)
class Judged:
    """What one attempt read, decided, and heard from a challenger."""

    slices: Slices
    policy: Policy
    circumstances: Circumstances
    verdict: Verdict
    shadow: Shadow | None = None
    reserved: tuple[Reservation, ...] = ()
    """What other refunds held of the order's balance."""
    order_is_known: bool = False
    """Whether the order was told before the cutoff."""


# --- the answer --------------------------------------------------------------------------------


def answer_of(case: Case, judged: Judged) -> Mapping[str, Any]:
    """The body that is sent."""
    verdict = judged.verdict
    decision = verdict.decision
    action, codes = decision.action, decision.reasons
    by_rule = [
        {"code": rule.reason, "description": _said(rule)}
        for rule in (decision.rules if codes else ())
        if rule.calls_for is action and rule.mode is Mode.LIVE and rule.reason in codes
    ]
    by_list = [{"code": "LISTED", "description": reason} for reason in decision.list_reasons]
    return answers.decision_body(
        decided_at=case.request.known_at,
        customer_id=case.request.customer_id,
        action=cast(answers.ActionName, action.value),
        source=decision.source.value,
        score_id=case.score_id,
        probability=verdict.score.probability if verdict.score else None,
        risk_level=verdict.risk_level,
        reasons=[*by_rule, *by_list, *verdict.told_reasons],  # type: ignore[list-item]
        rules=[_rule_body(rule) for rule in decision.hits],
        warnings=_warnings(case, judged),
        model_version=verdict.model_version,
        policy_version=decision.policy_version,
        degraded=decision.degraded,
        follow_up=_follow_up_body(decision.follow_up, case.request.currency),
    )


def impersonal(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A body as it is stored: the customer's id comes back with the request that is sent again."""
    return {**body, "data": {k: v for k, v in body["data"].items() if k != "customerId"}}


def _warnings(case: Case, judged: Judged) -> list[answers.WarningBody]:
    slices, verdict = judged.slices, judged.verdict
    warnings = case.report.warnings()
    if slices.first_seen.get("customer") is None:
        warnings.append(answers.customer_not_found())
    if not judged.order_is_known and case.request.order_amount_minor is None:
        warnings.append(answers.order_not_found())
    for rule in verdict.decision.unknowns:
        if rule.mode is Mode.LIVE:
            facts, holds = rule.unknown_facts, rule.calls_for is not Action.ALLOW
            lacks_rate = any(map(needs_rate, facts)) and math.isnan(verdict.row["payable_minor"])
            currency = case.request.currency if lacks_rate else None
            warnings.append(_unsettled(rule.rule_id, facts, holds, currency))
    if verdict.decision.degraded:
        warnings.append(answers.degraded((verdict.problem or "no score").partition(":")[0]))
    return warnings


@lru_cache(maxsize=1024)
def _unsettled(
    rule_id: str, facts: tuple[str, ...], holds: bool, without_rate: str | None
) -> answers.WarningBody:
    """Kept for the next one: the same few facts are missing of most requests.

    ``without_rate`` is the currency that lacks a rate, where that is what the facts wait for.
    """
    fields = {
        fact: () if without_rate and needs_rate(fact) else fields_of(fact) for fact in facts
    }  # fmt: skip
    return answers.unsettled(rule_id, fields, holds=holds, without_rate=without_rate)


def _said(rule: RuleResult) -> str:
    if rule.outcome is not Outcome.UNKNOWN:
        return rule.description
    return f"not settled, as {', '.join(rule.unknown_facts)} is not known: {rule.description}"


def _rule_body(rule: RuleResult) -> answers.RuleBody:
    return {
        "triggered": True,
        "description": rule.description,
        "state": "active" if rule.mode is Mode.LIVE else "passive",
        "action": rule.action.value,
        "ruleId": rule.rule_id,
        "ruleVersion": rule.version,
    }


def _follow_up_body(follow_up: FollowUp | None, currency: str) -> answers.FollowUpBody | None:
    if follow_up is None:
        return None
    body: answers.FollowUpBody = {"code": follow_up.code.value}
    if follow_up.amount_minor is not None:
        body["amount"], body["currency"] = follow_up.amount_minor, currency
    if follow_up.rule_id is not None:
        body["ruleId"] = follow_up.rule_id
    return body


# --- the record --------------------------------------------------------------------------------


def record_of(case: Case, judged: Judged, base_currency: str) -> Mapping[str, Any]:
    """What is kept: `serving.recompute` decides again from it, `serving.monitor` scores again.

    What is unknown of the feature row is NaN here, and None in what the store gives back.
    """
    slices, verdict, circumstances = judged.slices, judged.verdict, judged.circumstances
    scored, row, contributions = verdict.score, verdict.row, verdict.contributions
    record = {
        "refund_id": case.request.refund_id,
        "event_id": case.request.event_id,
        "cutoff": case.request.known_at,
        "snapshot": slices.snapshot,
        **({"transactions": slices.transactions} if slices.transactions else {}),
        "keys": dict(slices.pseudonyms),
        "decision": verdict.decision.to_json(),
        "probability": scored.probability if scored else None,
        "expected_loss_minor": scored.expected_loss_minor if scored else None,
        "reasons": verdict.told_reasons,
        "features": Numbers(_FEATURES, row.numbers) if isinstance(row, Row) else row,
        "facts": _facts(verdict),
        "lists": _lists(circumstances.lists),
        "disposition": circumstances.disposition,
        "sandbox": circumstances.sandbox,
        "contributions": None if contributions is None else Numbers(_CONTRIBUTING, contributions),
        "model_version": verdict.model_version,
        "catalog_hash": CATALOG_HASH,
        "base_currency": base_currency,
        "problem": verdict.problem,
    }  # fmt: skip
    return record if judged.shadow is None else {**record, "shadow": judged.shadow.to_json()}


def _facts(verdict: Verdict) -> dict[str, Fact]:
    """What the policy could read beside the feature row; what is unknown is left out.

    A word that the row holds as a code, under the same name, is kept as the word it is.
    """
    facts, row = verdict.beside, verdict.row
    return {
        name: value
        for name in BESIDE
        if (value := facts[name]) is not None
        and not (isinstance(value, float) and (name in row or math.isnan(value)))
    }


def _lists(lists: ListMatch) -> dict[str, Any]:
    return {
        "block": [[hit.entity, hit.reason] for hit in lists.block],
        "allow": [[hit.entity, hit.reason] for hit in lists.allow],
        "entities": sorted(lists.entities),
    }
