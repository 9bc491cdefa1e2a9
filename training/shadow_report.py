"""What shadow rules would have changed had they been live, in money, and whether they should be.

Counts are of requests, in one pass over what was decided (`rules.shadow`); precision and money are
of refunds, each once, at the first request on which the rule called for something, as that is when
it would have acted. Money is that of labelled refunds alone: of the others nobody knows what they
were. Figures and intervals: `training.policy_figures`; labels and weights:
`training.policy_judgement`.

**The advice** needs labelled refunds of `LEAST_CUSTOMERS` customers among those whose answer would
change. Then the 95 % interval of the money saved decides: wholly above 0 is better live, wholly
below 0 is not, and all else cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from features.money import DAY_MS
from rules.decision import Action, Mode, Stage
from rules.document import Costs
from rules.logged import Logged
from rules.policy import Policy
from rules.shadow import ShadowCount, ShadowCounts, count_shadow
from training.costs import ALLOWED, PREVENTED, REVIEWED
from training.policy_figures import LEAST_CUSTOMERS, Money, total
from training.policy_judgement import (
    Frame,
    Maturity,
    Precision,
    first_of_each,
    saved_minor,
    saved_total,
)
from training.policy_log import Logging, Unlogged
from training.propensity import EXPLORED
from training.shadow_text import advice, text


class Advice(StrEnum):
    """What the figures say of putting a shadow rule live."""

    NEVER_HITS = "NEVER_HITS"
    CHANGES_NOTHING = "CHANGES_NOTHING"
    TOO_FEW = "TOO_FEW"
    BETTER_LIVE = "BETTER_LIVE"
    WORSE_LIVE = "WORSE_LIVE"
    CANNOT_BE_TOLD = "CANNOT_BE_TOLD"


@dataclass(frozen=True)
class Shift:
    """Requests whose answer would have gone from one action to another."""

    before: Action
    after: Action
    requests: int
    payable_minor: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"before": self.before.value, "after": self.after.value,
                "requests": self.requests, "payable_minor": self.payable_minor}  # fmt: skip


@dataclass(frozen=True)
class Effect:
    """What a rule would have been worth, over labelled refunds whose answer would have changed.

    ``abuse_stopped`` was paid and would not have been; ``honest_prevented`` would have been
    refused, ``honest_held`` would have waited for a review. ``saved`` is what all mistakes and
    reviews would have cost less; ``saved_weighted`` the same over refunds that were paid, each
    weighing one over the chance it had, None where exploration paid none of them.
    """

    changed: int
    labelled: int
    customers: int
    abuse_stopped: Money
    honest_prevented: Money
    honest_held: Money
    saved: Money
    saved_weighted: Money | None

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        names = ("abuse_stopped", "honest_prevented", "honest_held", "saved")
        weighted = self.saved_weighted
        return {
            "changed": self.changed,
            "labelled": self.labelled,
            "customers": self.customers,
            **{name: getattr(self, name).to_json() for name in names},
            "saved_weighted": weighted.to_json() if weighted else None,
        }


@dataclass(frozen=True)
class ShadowRule:
    """One version of a shadow rule or limit, and what is to be done with it."""

    rule_id: str
    version: int
    stage: Stage
    action: Action
    reason: str
    description: str
    policies: tuple[str, ...]
    """Versions of the policies that had it in the shadow."""
    evaluated: int
    hits: int
    unknowns: int
    first_at: int
    last_at: int
    last_hit: int | None
    hits_minor: float
    missing: Mapping[str, int]
    changes: tuple[Shift, ...]
    changed_unknowns: int
    answered: int
    answered_by_rule: int
    beside: Mapping[str, int]
    reviews_per_day: float
    """How many more refunds a day would have gone to the desk; below 0 fewer."""
    precision: Precision
    effect: Effect
    advice: Advice

    @property
    def hit_rate(self) -> float:
        """The share of requests that it hit."""
        return self.hits / self.evaluated

    @property
    def changed(self) -> int:
        """How many requests would have been answered otherwise."""
        return sum(shift.requests for shift in self.changes)

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        plain = ("rule_id", "version", "reason", "description", "evaluated", "hits", "unknowns",
                 "hit_rate", "first_at", "last_at", "last_hit", "hits_minor", "changed",
                 "changed_unknowns", "answered", "answered_by_rule",
                 "reviews_per_day")  # fmt: skip
        return {
            **{name: getattr(self, name) for name in plain},
            "stage": self.stage.value,
            "action": self.action.value,
            "policies": list(self.policies),
            "missing": dict(self.missing),
            "beside": dict(self.beside),
            "changes": [shift.to_json() for shift in self.changes],
            "precision": self.precision.to_json(),
            "effect": self.effect.to_json(),
            "advice": self.advice.value,
        }


@dataclass(frozen=True)
class ShadowReport:
    """The shadow rules of a period. ``elsewhere`` counts requests that a policy decided which is
    not at hand."""

    currency: str
    costs: Costs
    maturity: Maturity
    requests: int
    elsewhere: int
    first_at: int | None
    last_at: int | None
    policies: Mapping[str, int]
    """Requests by the version of the policy that decided."""
    rules: tuple[ShadowRule, ...]
    unlogged: tuple[Unlogged, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "currency": self.currency,
            "costs": self.costs.model_dump(mode="json"),
            "as_of": self.maturity.as_of,
            "maturity_days": self.maturity.days,
            "least_customers": LEAST_CUSTOMERS,
            "requests": self.requests,
            "elsewhere": self.elsewhere,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "policies": dict(self.policies),
            "unlogged": [one.to_json() for one in self.unlogged],
            "rules": [{**r.to_json(), "advice_sentence": advice(r, self)} for r in self.rules],
        }

    def to_text(self) -> str:
        """The report for an analyst to read."""
        return text(self)


def shadow_report(
    policies: Mapping[str, Policy],
    rows: Iterable[Logged],
    *,
    costs: Costs,
    currency: str,
    maturity: Maturity,
    rule_id: str | None = None,
) -> ShadowReport:
    """Judge the shadow rules of the policies that decided, over what they decided.

    Arguments:
        policies: by hash; all that decided, or their requests are counted as ``elsewhere``.
        rows: decided requests with their labels, read once.
        costs: what mistakes and reviews cost, the same for all policies.
        currency: the base currency, an ISO 4217 code.
        maturity: until when labels are known, and how old a refund must be.
        rule_id: judge this rule or limit only.
    """
    logging = shadow_logging(policies, rule_id)
    counts = count_shadow(policies, logging.watching(rows), rule_id)
    frame = Frame.of(counts.refunds)
    place = _places_in_policies(policies)
    chosen = sorted(counts.rules.values(), key=lambda c: (place.get(c.rule_id, 0), c.version))
    return ShadowReport(
        currency=currency,
        costs=costs,
        maturity=maturity,
        requests=counts.requests,
        elsewhere=counts.elsewhere,
        first_at=counts.first_at,
        last_at=counts.last_at,
        policies={policies[hash_].version: n for hash_, n in counts.by_policy.items()},
        rules=tuple(_judged(count, counts, frame, costs, maturity) for count in chosen),
        unlogged=logging.unlogged(),
    )


def shadow_logging(policies: Mapping[str, Policy], rule_id: str | None = None) -> Logging:
    """Nothing counted yet of the facts that shadow rules read, or that one of them does."""
    return Logging.of_rules(
        rule
        for policy in policies.values()
        for rule in policy.rules
        if rule.miss.mode is Mode.SHADOW and rule_id in (None, rule.id)
    )


def _places_in_policies(policies: Mapping[str, Policy]) -> dict[str, int]:
    """Where each rule stands in the last policy that has it."""
    return {rule.miss.rule_id: at for p in policies.values() for at, rule in enumerate(p.rules)}


def _judged(
    count: ShadowCount, counts: ShadowCounts, frame: Frame, costs: Costs, maturity: Maturity
) -> ShadowRule:
    if count.first_at is None or count.last_at is None:
        raise ValueError(f"{count.rule_id}: expected a rule that was evaluated")
    is_hit = np.array(count.is_hit, np.bool_)
    hits = frame.at(np.array(count.places, np.int64)[is_hit])
    precision = Precision.of(hits, maturity)
    effect = _effect(count, frame, costs)
    return ShadowRule(
        rule_id=count.rule_id,
        version=count.version,
        stage=count.stage,
        action=count.action,
        reason=count.reason,
        description=count.description,
        policies=tuple(sorted(counts.policies[hash_].version for hash_ in count.policies)),
        evaluated=count.evaluated,
        hits=count.hits,
        unknowns=count.unknowns,
        first_at=count.first_at,
        last_at=count.last_at,
        last_hit=count.last_hit,
        hits_minor=count.hits_minor,
        missing=dict(count.missing.most_common()),
        changes=tuple(
            Shift(before, after, n, count.changes_minor[before, after])
            for (before, after), n in sorted(count.changes.items())
        ),
        changed_unknowns=count.changed_unknowns,
        answered=count.answered,
        answered_by_rule=count.answered_by_rule,
        beside=dict(count.beside.most_common()),
        reviews_per_day=_further_reviews(count) / _days(count.first_at, count.last_at),
        precision=precision,
        effect=effect,
        advice=_advice(count, effect),
    )


def _days(first: int, last: int) -> float:
    """The time between two instants in days, at least one."""
    return max(1.0, (last - first) / DAY_MS)


def _further_reviews(count: ShadowCount) -> int:
    held = Action.MANUAL_REVIEW
    return sum(n * ((after is held) - (before is held))
               for (before, after), n in count.changes.items())  # fmt: skip


def _effect(count: ShadowCount, frame: Frame, costs: Costs) -> Effect:
    first = first_of_each(count.places)
    before = np.array(count.before, np.int64)[first]
    after = np.array(count.after, np.int64)[first]
    called = frame.at(np.array(count.places, np.int64))
    differs = before != after
    labelled = differs & called.labelled
    saved = np.where(differs, saved_minor(called, before, after, costs), np.nan)
    explored = labelled & (called.fate == EXPLORED)
    abuse, amount = called.abuse, called.payable_minor

    def over(which: np.ndarray[Any, np.dtype[np.bool_]]) -> Money:
        return total(np.where(which, amount, np.nan), called.customer)

    weighted = np.where(called.weight > 0, saved * called.weight, np.nan)
    return Effect(
        changed=int(differs.sum()),
        labelled=int(labelled.sum()),
        customers=len(np.unique(called.customer[labelled])),
        abuse_stopped=over(labelled & (abuse == 1) & (before == ALLOWED)),
        honest_prevented=over(labelled & (abuse == 0) & (after == PREVENTED)),
        honest_held=over(
            labelled & (abuse == 0) & (after == REVIEWED) & (before == ALLOWED)
        ),
        saved=saved_total(called, before, after, costs),
        saved_weighted=total(weighted, called.customer) if explored.any() else None,
    )  # fmt: skip


def _advice(count: ShadowCount, effect: Effect) -> Advice:
    if not count.hits and not count.changes:
        return Advice.NEVER_HITS
    if not count.changes:
        return Advice.CHANGES_NOTHING
    if effect.saved.customers < LEAST_CUSTOMERS:
        return Advice.TOO_FEW
    saved, weighed = effect.saved.interval, effect.saved_weighted
    if saved.low > 0 and (weighed is None or weighed.interval.high > 0):
        return Advice.BETTER_LIVE
    if saved.high < 0 and (weighed is None or weighed.interval.low < 0):
        return Advice.WORSE_LIVE
    return Advice.CANNOT_BE_TOLD
