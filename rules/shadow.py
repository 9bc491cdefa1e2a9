"""What shadow rules would have changed had they been live: counted in one pass, no judgement.

Each request is taken under the policy that decided it, as `rules.backtest` takes it, and once more
with each shadow rule that calls for something live.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rules.backtest import as_backtested
from rules.decision import Action, Decision, Mode, Outcome, RuleResult, Stage
from rules.engine import Circumstances, decide
from rules.logged import Logged
from rules.policy import Policy
from rules.quality import Refunds, least, most


@dataclass(slots=True)
class ShadowCount:
    """One version of a shadow rule or limit, on the requests that a policy with it in it decided.

    ``changes[a, b]`` counts the requests that would have gone from action a to b, with
    ``changes_minor`` what they would be paid; those on which the rule could not be settled and
    would have called for a review are among them, and ``changed_unknowns`` of them.
    ``answered`` counts hits on which the answer was as severe anyway, ``answered_by_rule`` those on
    which a live rule or limit called for it; ``beside`` counts the live rules that hit together
    with it. Calls are kept as columns: place of the refund, severities before and after, is a hit.
    """

    rule_id: str
    version: int
    stage: Stage
    action: Action
    reason: str
    description: str
    policies: set[str] = field(default_factory=set)
    evaluated: int = 0
    hits: int = 0
    unknowns: int = 0
    hits_minor: float = 0.0
    first_at: int | None = None
    last_at: int | None = None
    last_hit: int | None = None
    missing: Counter[str] = field(default_factory=Counter)
    changes: Counter[tuple[Action, Action]] = field(default_factory=Counter)
    changes_minor: dict[tuple[Action, Action], float] = field(default_factory=dict)
    changed_unknowns: int = 0
    answered: int = 0
    answered_by_rule: int = 0
    beside: Counter[str] = field(default_factory=Counter)
    places: array[int] = field(default_factory=lambda: array("q"))
    before: array[int] = field(default_factory=lambda: array("b"))
    after: array[int] = field(default_factory=lambda: array("b"))
    is_hit: array[int] = field(default_factory=lambda: array("b"))

    @classmethod
    def of(cls, result: RuleResult) -> ShadowCount:
        """Nothing counted yet."""
        return cls(result.rule_id, result.version, result.stage, result.action, result.reason,
                   result.description)  # fmt: skip


@dataclass(slots=True)
class ShadowCounts:
    """What shadow rules saw, by (id, version): a rule with other content is another rule.

    ``policies`` are those that decided, by hash; requests of others are counted as ``elsewhere``.
    With ``rule_id``, only that rule is counted.

    >>> ShadowCounts({}).take(Logged("r", "c", 0, {}, None, Circumstances()))
    """

    policies: Mapping[str, Policy]
    rule_id: str | None = None
    requests: int = 0
    elsewhere: int = 0
    first_at: int | None = None
    last_at: int | None = None
    by_policy: Counter[str] = field(default_factory=Counter)
    rules: dict[tuple[str, int], ShadowCount] = field(default_factory=dict)
    refunds: Refunds = field(default_factory=Refunds)
    _live: dict[tuple[str, str], Policy] = field(default_factory=dict)

    def take(self, row: Logged) -> None:
        """Count one decided request."""
        self.requests += 1
        self.first_at = least(self.first_at, row.decided_at)
        self.last_at = most(self.last_at, row.decided_at)
        policy = self.policies.get(row.policy_hash or "")
        if policy is None:
            self.elsewhere += 1
            return
        self.by_policy[policy.hash] += 1
        circumstances = as_backtested(row.circumstances)
        decision = decide(row.facts, row.score, policy, circumstances)
        for result in decision.rules:
            if result.mode is Mode.SHADOW and self.rule_id in (None, result.rule_id):
                self._shadow(row, policy, decision, result, circumstances)

    def _shadow(
        self, row: Logged, policy: Policy, decision: Decision, result: RuleResult,
        circumstances: Circumstances,
    ) -> None:  # fmt: skip
        key = result.rule_id, result.version
        count = self.rules.get(key)
        if count is None:
            count = self.rules[key] = ShadowCount.of(result)
        count.policies.add(policy.hash)
        count.evaluated += 1
        count.first_at = least(count.first_at, row.decided_at)
        count.last_at = most(count.last_at, row.decided_at)
        if result.outcome is Outcome.UNKNOWN:
            count.unknowns += 1
            count.missing.update(result.unknown_facts)
        elif result.outcome is Outcome.HIT:
            self._hit(count, row, decision, result)
        if result.calls_for > Action.ALLOW:
            live = self._live_policy(policy, result.rule_id)
            after = decide(row.facts, row.score, live, circumstances).action
            self._called(count, row, decision.action, after, result.outcome is Outcome.HIT)

    def _live_policy(self, policy: Policy, rule_id: str) -> Policy:
        key = policy.hash, rule_id
        if key not in self._live:
            self._live[key] = policy.with_mode(rule_id, Mode.LIVE)
        return self._live[key]

    def _hit(self, count: ShadowCount, row: Logged, decision: Decision, result: RuleResult) -> None:
        count.hits += 1
        count.hits_minor += row.payable_minor or 0.0
        count.last_hit = most(count.last_hit, row.decided_at)
        count.answered += decision.action >= result.action
        live = [other for other in decision.rules if other.mode is Mode.LIVE]
        count.answered_by_rule += any(other.calls_for >= result.action for other in live)
        count.beside.update(o.rule_id for o in live if o.outcome is Outcome.HIT)

    def _called(
        self, count: ShadowCount, row: Logged, before: Action, after: Action, is_hit: bool
    ) -> None:
        if after is not before:
            shift = before, after
            count.changes[shift] += 1
            count.changes_minor[shift] = count.changes_minor.get(shift, 0.0) + (
                row.payable_minor or 0.0
            )
            count.changed_unknowns += not is_hit
        count.places.append(self.refunds.place(row))
        count.before.append(before.severity)
        count.after.append(after.severity)
        count.is_hit.append(is_hit)


def count_shadow(
    policies: Mapping[str, Policy], rows: Iterable[Logged], rule_id: str | None = None
) -> ShadowCounts:
    """Count the shadow rules of the policies that decided, by hash, over what they decided."""
    counts = ShadowCounts(policies, rule_id)
    for row in rows:
        counts.take(row)
    return counts
