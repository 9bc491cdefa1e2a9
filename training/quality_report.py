"""How good the rules, limits and bands of a policy are over history: counts, precision, money.

A policy is taken over logged requests, whoever decided them then, or over those of a data folder.
Counts are of requests (`rules.quality`); precision and money are of refunds, each once, at the
first request that the rule hit. A hit is *decisive* where the action had been another without the
rule: only those it can be thanked or blamed for, so what it stops, refuses and saves is told of
them; its precision is that of all its hits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rules.logged import Logged
from rules.policy import Policy
from rules.quality import PolicyCounts, RuleCount, count_policy
from training.bootstrap import known
from training.costs import ALLOWED, PREVENTED, REVIEWED
from training.policy_figures import LEAST_CUSTOMERS, Money, total
from training.policy_judgement import Frame, Maturity, Precision, first_of_each, saved_total
from training.policy_log import Logging, Unlogged
from training.quality_findings import Finding, findings
from training.quality_text import text


@dataclass(frozen=True)
class Overlap:
    """Requests that two rules hit both, out of those of one, and out of those of either."""

    other: str
    common: int
    share: float
    jaccard: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"other": self.other, "common": self.common, "share": self.share,
                "jaccard": self.jaccard}  # fmt: skip


@dataclass(frozen=True)
class RuleQuality:
    """One rule or limit over history.

    ``abuse`` and ``honest`` are what its labelled hits would be paid; ``abuse_stopped``,
    ``honest_prevented``, ``honest_held`` and ``saved`` are of its decisive ones.
    """

    count: RuleCount
    requests: int
    overlaps: tuple[Overlap, ...]
    precision: Precision
    abuse: Money
    honest: Money
    abuse_stopped: Money
    honest_prevented: Money
    honest_held: Money
    saved: Money

    @property
    def share(self) -> float:
        """The share of requests that it hit; NaN over none."""
        return self.count.hits / self.requests if self.requests else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        count = self.count
        plain = ("rule_id", "version", "hits", "unknowns", "payable_minor", "decisive",
                 "decisive_minor", "decisive_unknowns", "first_hit", "last_hit")  # fmt: skip
        money = ("abuse", "honest", "abuse_stopped", "honest_prevented", "honest_held", "saved")
        return {
            **{name: getattr(count, name) for name in plain},
            "mode": count.mode.value,
            "stage": count.stage.value,
            "action": count.action.value,
            "share": known(self.share),
            "missing": dict(count.missing.most_common()),
            "shifts": [{"without": a.value, "with": b.value, "requests": n}
                       for (a, b), n in sorted(count.shifts.items())],
            "overlaps": [overlap.to_json() for overlap in self.overlaps],
            "precision": self.precision.to_json(),
            **{name: getattr(self, name).to_json() for name in money},
        }  # fmt: skip


@dataclass(frozen=True)
class QualityReport:
    """A policy over history, and what is wrong with it."""

    policy: Policy
    currency: str
    maturity: Maturity
    counts: PolicyCounts
    rules: tuple[RuleQuality, ...]
    findings: tuple[Finding, ...]
    unlogged: tuple[Unlogged, ...]

    @property
    def guards(self) -> Mapping[str, tuple[str, ...]]:
        """Rules that hold what cannot be settled (`rules.quality.PolicyCounts.guards`)."""
        return self.counts.guards

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        counts = self.counts
        return {
            "policy": {"version": self.policy.version, "hash": self.policy.hash},
            "currency": self.currency,
            "as_of": self.maturity.as_of,
            "maturity_days": self.maturity.days,
            "least_customers": LEAST_CUSTOMERS,
            "requests": counts.requests,
            "payable_unknown": counts.payable_unknown,
            "first_at": counts.first_at,
            "last_at": counts.last_at,
            "actions": {action.value: n for action, n in sorted(counts.actions.items())},
            "guards": {id: list(guarded) for id, guarded in self.guards.items()},
            "unlogged": [one.to_json() for one in self.unlogged],
            "findings": [finding.to_json() for finding in self.findings],
            "rules": [rule.to_json() for rule in self.rules],
            "bands": [
                {**c.band.model_dump(mode="json", exclude_none=True), "reached": c.reached,
                 "decisive": c.decisive}
                for c in counts.bands
            ],
        }  # fmt: skip

    def to_text(self) -> str:
        """The report for an analyst to read."""
        return text(self)


def quality_report(
    policy: Policy, rows: Iterable[Logged], *, currency: str, maturity: Maturity
) -> QualityReport:
    """Judge every rule, limit and band of a policy over requests with their labels, read once.

    Money is counted by the policy's own costs, in minor units of the base ``currency``.
    """
    logging = Logging.of(policy)
    counts = count_policy(policy, logging.watching(rows))
    unlogged = logging.unlogged()
    frame = Frame.of(counts.refunds)
    rules = tuple(_judged(count, counts, frame, maturity) for count in counts.rules.values())
    found = findings(policy, counts, {rule.count.rule_id: rule for rule in rules}, frame, currency,
                     {one.fact for one in unlogged})  # fmt: skip
    return QualityReport(policy, currency, maturity, counts, rules, found, unlogged)


def _judged(
    count: RuleCount, counts: PolicyCounts, frame: Frame, maturity: Maturity
) -> RuleQuality:
    hits = frame.at(np.array(count.places, np.int64))
    decided = frame.at(np.array(count.decided_places, np.int64))
    instead = np.array(count.instead, np.int64)[first_of_each(count.decided_places)]
    action = np.full(len(decided), count.action.severity)
    abuse, honest = decided.abuse == 1, decided.abuse == 0

    def of(which: np.ndarray[Any, np.dtype[np.bool_]], frame: Frame = decided) -> Money:
        return total(np.where(which, frame.payable_minor, np.nan), frame.customer)

    return RuleQuality(
        count=count,
        requests=counts.requests,
        overlaps=_overlaps(count, counts),
        precision=Precision.of(hits, maturity),
        abuse=of(hits.abuse == 1, hits),
        honest=of(hits.abuse == 0, hits),
        abuse_stopped=of(abuse & (instead == ALLOWED)),
        honest_prevented=of(honest & (action == PREVENTED)),
        honest_held=of(honest & (action == REVIEWED) & (instead == ALLOWED)),
        saved=saved_total(decided, instead, action, counts.policy.costs),
    )


def _overlaps(count: RuleCount, counts: PolicyCounts) -> tuple[Overlap, ...]:
    """The rules that hit together with this one, those with most of its hits first."""
    found = []
    for other in counts.rules.values():
        common = counts.common(count.rule_id, other.rule_id)
        if common and other is not count:
            either = count.hits + other.hits - common
            found.append(Overlap(other.rule_id, common, common / count.hits, common / either))
    return tuple(sorted(found, key=lambda overlap: -overlap.common))
