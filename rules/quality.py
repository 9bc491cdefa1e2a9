"""What the rules and bands of a policy did over logged requests: counted in one pass, no judgement.

`count_policy` decides each request under one policy and counts, per rule, hits, unknowns, common
hits and decisive calls. Of a refund that some rule hit a few numbers are kept, and nothing of the
others, so millions of requests can be streamed.

As in a backtest, analysts' dispositions and the exploration draw are left out on all sides: a rule
is judged by what the policy comes to with it and without it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from rules.backtest import as_backtested
from rules.decision import Action, Decision, Mode, Outcome, RuleResult, Stage
from rules.document import Band
from rules.engine import Circumstances, band_action, decide
from rules.logged import Logged
from rules.policy import DECISION_FACTS, CompiledRule, Policy

MOST_VALUES = 20
"""So many different values of a fact are kept; what has more is told by its number of values."""

_NOT_LABELLED, _NO_AMOUNT = -1, float("nan")


@dataclass(slots=True)
class Refunds:
    """Refunds that some rule hit or called upon, each once: at its first such request.

    Columns stand in order of place. ``customer`` holds codes, ``abuse`` 1, 0, or -1 where there is
    no label, ``payable_minor`` NaN where unknown, ``action`` None where nothing was decided.
    """

    customer: array[int] = field(default_factory=lambda: array("q"))
    decided_at: array[int] = field(default_factory=lambda: array("q"))
    payable_minor: array[float] = field(default_factory=lambda: array("d"))
    abuse: array[int] = field(default_factory=lambda: array("b"))
    action: list[Action | None] = field(default_factory=list)
    explored: array[int] = field(default_factory=lambda: array("b"))
    propensity: array[float] = field(default_factory=lambda: array("d"))
    _places: dict[str, int] = field(default_factory=dict)
    _customers: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._places)

    def place(self, row: Logged) -> int:
        """Where the refund of a request stands; it is taken in when it is new.

        A label that came with any of its requests is kept.
        """
        place = self._places.setdefault(row.refund_id, len(self._places))
        if place == len(self.action):
            payable = row.payable_minor
            self.customer.append(self._customers.setdefault(row.customer, len(self._customers)))
            self.decided_at.append(row.decided_at)
            self.payable_minor.append(_NO_AMOUNT if payable is None else payable)
            self.abuse.append(_NOT_LABELLED)
            self.action.append(row.action)
            self.explored.append(row.explored)
            self.propensity.append(row.propensity)
        if row.abuse is not None:
            self.abuse[place] = row.abuse
        return place


@dataclass(slots=True)
class RuleCount:
    """One rule or limit of a policy over the requests counted.

    ``payable_minor`` sums up what its hits ask for, in minor units of the base currency.
    ``decisive`` counts its hits without which the action had been another, ``shifts`` by (action
    without it, action); ``decisive_unknowns`` the same of requests on which it could not be settled
    and called for a review. ``missing`` counts the facts that left it unsettled. ``places`` are
    those of its hits among the refunds, a refund as often as it was hit; of the decisive ones
    ``decided_places``, each with the severity in ``instead`` that the action had had without it.
    A name with ``minor`` is what those of the name before it ask for.
    """

    rule_id: str
    version: int
    mode: Mode
    stage: Stage
    action: Action
    hits: int = 0
    unknowns: int = 0
    payable_minor: float = 0.0
    decisive: int = 0
    decisive_minor: float = 0.0
    decisive_unknowns: int = 0
    decisive_unknowns_minor: float = 0.0
    shifts: Counter[tuple[Action, Action]] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    first_hit: int | None = None
    last_hit: int | None = None
    places: array[int] = field(default_factory=lambda: array("q"))
    decided_places: array[int] = field(default_factory=lambda: array("q"))
    instead: array[int] = field(default_factory=lambda: array("b"))

    @classmethod
    def of(cls, rule: CompiledRule) -> RuleCount:
        """Nothing counted yet."""
        miss = rule.miss
        return cls(miss.rule_id, miss.version, miss.mode, miss.stage, miss.action)


@dataclass(slots=True)
class BandCount:
    """One band: scores that reach it, and requests on which the action had been another without."""

    band: Band
    reached: int = 0
    decisive: int = 0


@dataclass(slots=True)
class FactSeen:
    """What history showed of a fact: how often it was known, and which values it had."""

    known: int = 0
    low: float | None = None
    high: float | None = None
    values: set[str | bool] = field(default_factory=set)

    @property
    def all_values(self) -> bool:
        """Whether ``values`` are all there were."""
        return len(self.values) < MOST_VALUES

    def take(self, value: Any) -> None:
        """Count one value; unknown ones are none."""
        if value is None or value != value:
            return
        self.known += 1
        if isinstance(value, str | bool):
            self._keep(value)
        elif isinstance(value, int | float):
            self.low = float(value) if self.low is None else min(self.low, float(value))
            self.high = float(value) if self.high is None else max(self.high, float(value))
        else:
            for one in value:
                self._keep(one)

    def _keep(self, value: str | bool) -> None:
        if len(self.values) < MOST_VALUES:
            self.values.add(value)


@dataclass
class PolicyCounts:
    """A policy over logged requests.

    ``together[a, b]`` counts the requests that both rules hit, a before b in policy order.
    ``actions`` counts the policy's answers. ``facts`` tells of the facts of rules that never hit
    what history showed of them.
    """

    policy: Policy
    rules: dict[str, RuleCount]
    bands: tuple[BandCount, ...]
    requests: int = 0
    payable_unknown: int = 0
    first_at: int | None = None
    last_at: int | None = None
    actions: Counter[Action] = field(default_factory=Counter)
    together: Counter[tuple[str, str]] = field(default_factory=Counter)
    refunds: Refunds = field(default_factory=Refunds)
    facts: dict[str, FactSeen] = field(default_factory=dict)

    def common(self, rule: str, other: str) -> int:
        """How many requests both rules hit, whichever comes first in the policy."""
        return self.together[rule, other] or self.together[other, rule]

    @cached_property
    def guards(self) -> dict[str, tuple[str, ...]]:
        """Live rules that are there to hold what cannot be settled, and for which others.

        One is a guard if it alone held a request by being unsettled; or if it calls for a review
        then and reads all that another live rule reads which then misses, unless both are only what
        their stages are by default: hard rules hold what they cannot settle, risk rules miss it.
        What it hits besides says nothing of its worth.
        """
        live = [rule for rule in self.policy.rules if rule.miss.mode is Mode.LIVE]
        found = {}
        for rule in live:
            if rule.unsettled.calls_for is Action.ALLOW:
                continue
            guarded = tuple(other.id for other in live if _guards(rule, other))
            if guarded or self.rules[rule.id].decisive_unknowns:
                found[rule.id] = guarded
        return found


def count_policy(policy: Policy, rows: Iterable[Logged]) -> PolicyCounts:
    """Count a policy's rules and bands over logged requests, each decided once more.

    Two decisions tell whether a rule decides: with it, and without it. The second is made only
    where the rule calls for the very action taken, since a milder or overruled call changes nothing
    by going.
    """
    counting = _Counting(policy)
    for row in rows:
        counting.take(row)
    return counting.counts


def _guards(rule: CompiledRule, other: CompiledRule) -> bool:
    """Whether a rule that holds what it cannot settle does so for another that misses it."""
    is_chosen = other.miss.stage is Stage.HARD or rule.miss.stage is Stage.RISK
    return (
        is_chosen
        and other.miss.stage is not Stage.LIMIT
        and other.unsettled.calls_for is Action.ALLOW
        and set(other.condition.reads) <= set(rule.condition.reads)
    )


class _Counting:
    """The pass of `count_policy`; policies without one part are made once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        rules = {rule.miss.rule_id: RuleCount.of(rule) for rule in policy.rules}
        bands = tuple(BandCount(band) for band in policy.bands)
        self.counts = PolicyCounts(policy, rules, bands)
        self._without = {rule_id: policy.without(rule_id) for rule_id in rules}
        self._bandless = tuple(
            replace(policy, bands=(*policy.bands[:i], *policy.bands[i + 1 :]))
            for i in range(len(bands))
        )
        self._never_hit = {rule.miss.rule_id: rule.condition.reads for rule in policy.rules}
        self._watch()

    def _watch(self) -> None:
        """Look at the facts of the rules that have not hit yet, and at no others."""
        facts = self.counts.facts
        watched = {name for reads in self._never_hit.values() for name in reads}
        self.counts.facts = {name: facts.get(name, FactSeen()) for name in sorted(watched)}

    def take(self, row: Logged) -> None:
        counts = self.counts
        circumstances = as_backtested(row.circumstances)
        decision = decide(row.facts, row.score, self._policy, circumstances)
        payable = row.payable_minor
        counts.requests += 1
        counts.payable_unknown += payable is None
        counts.first_at = least(counts.first_at, row.decided_at)
        counts.last_at = most(counts.last_at, row.decided_at)
        counts.actions[decision.action] += 1
        for name, seen in counts.facts.items():
            seen.take(_fact(row, name))
        hits = [result.rule_id for result in decision.hits]
        for i, rule_id in enumerate(hits):
            counts.together.update((rule_id, other) for other in hits[i + 1 :])
        for result in (*decision.hits, *decision.unknowns):
            self._rule(row, decision, result, circumstances)
        self._bands(row, decision, circumstances)
        if not self._never_hit.keys().isdisjoint(hits):
            for rule_id in hits:
                self._never_hit.pop(rule_id, None)
            self._watch()

    def _rule(
        self, row: Logged, decision: Decision, result: RuleResult, circumstances: Circumstances
    ) -> None:
        count = self.counts.rules[result.rule_id]
        is_hit = result.outcome is Outcome.HIT
        if is_hit:
            count.hits += 1
            count.payable_minor += row.payable_minor or 0.0
            count.first_hit = least(count.first_hit, row.decided_at)
            count.last_hit = most(count.last_hit, row.decided_at)
            count.places.append(self.counts.refunds.place(row))
        else:
            count.unknowns += 1
            count.missing.update(result.unknown_facts)
        if result.mode is not Mode.LIVE or result.calls_for is not decision.action:
            return
        without = decide(row.facts, row.score, self._without[result.rule_id], circumstances)
        if without.action is decision.action:
            return
        if is_hit:
            count.decisive += 1
            count.decisive_minor += row.payable_minor or 0.0
            count.shifts[without.action, decision.action] += 1
            count.decided_places.append(self.counts.refunds.place(row))
            count.instead.append(without.action.severity)
        else:
            count.decisive_unknowns += 1
            count.decisive_unknowns_minor += row.payable_minor or 0.0

    def _bands(self, row: Logged, decision: Decision, circumstances: Circumstances) -> None:
        if row.score is None:
            return
        for count, bandless in zip(self.counts.bands, self._bandless, strict=True):
            call = band_action(row.score, (count.band,))
            if call is Action.ALLOW:
                continue
            count.reached += 1
            if call is decision.action:
                without = decide(row.facts, row.score, bandless, circumstances)
                count.decisive += without.action is not decision.action


def _fact(row: Logged, name: str) -> Any:
    """A fact's value on a request; what the decision itself tells comes from score and lists."""
    if name not in DECISION_FACTS:
        return row.facts.get(name)
    if name in ("probability", "expected_loss_minor"):
        return None if row.score is None else getattr(row.score, name)
    return row.circumstances.lists.facts()[name]


def least(known: int | None, value: int) -> int:
    """The earlier of two instants; the first may not be known yet."""
    return value if known is None else min(known, value)


def most(known: int | None, value: int) -> int:
    """The later of two instants; the first may not be known yet."""
    return value if known is None else max(known, value)
