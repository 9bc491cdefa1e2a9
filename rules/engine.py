"""From facts and score to the decision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import cel

from features.events import ENTITIES
from rules.condition import Facts, FactValue, known_facts
from rules.decision import (
    Action,
    Decision,
    FollowUp,
    FollowUpCode,
    Mode,
    Outcome,
    RuleResult,
    Source,
    Stage,
)
from rules.document import Band, Exploration
from rules.policy import CompiledRule, Policy


@dataclass(frozen=True, slots=True)
class Score:
    """The model's word: calibrated probability of abuse, and expected loss in minor units.

    The loss is None where the amount in the base currency is unknown; NaN is read as None.

    Raises:
        ValueError: the probability is not within 0 and 1, or the loss is negative.
    """

    probability: float
    expected_loss_minor: float | None

    def __post_init__(self) -> None:
        loss = self.expected_loss_minor
        if loss is not None and math.isnan(loss):
            object.__setattr__(self, "expected_loss_minor", None)
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability: expected a number in [0, 1], got {self.probability!r}")
        if loss is not None and loss < 0:
            raise ValueError(f"expected_loss_minor: expected at least 0, got {loss!r}")


@dataclass(frozen=True, slots=True)
class ListHit:
    """An entity of the request that is on a list, and why it was put there."""

    entity: str
    reason: str


_ALL_ENTITIES: Final = frozenset(ENTITIES)


@dataclass(frozen=True, slots=True)
class ListMatch:
    """The block and allow entries that this request's entities are on.

    `entities` are the kinds of entity that the request names; of the others no list tells
    anything, and facts such as `device_on_block_list` are unknown.
    """

    block: tuple[ListHit, ...] = ()
    allow: tuple[ListHit, ...] = ()
    entities: frozenset[str] = _ALL_ENTITIES

    def facts(self) -> dict[str, FactValue]:
        """What conditions may read of the lists; None where the request names no such entity.

        >>> facts = ListMatch(block=(ListHit("ip", "bots"),), entities=frozenset({"ip"})).facts()
        >>> facts["ip_on_block_list"], facts["ip_on_allow_list"], facts["device_on_block_list"]
        (True, False, None)
        """
        told: dict[str, FactValue] = {}
        for name, hits in (("block", self.block), ("allow", self.allow)):
            on = {hit.entity for hit in hits}
            for entity in ENTITIES:
                told[f"{entity}_on_{name}_list"] = entity in on if entity in self.entities else None
        return told


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else bears on a decision: list entries, an analyst's word, the sandbox, the draw.

    `exploration_draw` is uniform in [0, 1), or None where nothing may be explored.
    """

    lists: ListMatch = field(default_factory=ListMatch)
    disposition: Action | None = None
    sandbox: Action | None = None
    exploration_draw: float | None = None


NOTHING_ELSE: Final = Circumstances()


def decide(
    facts: Facts, score: Score | None, policy: Policy, circumstances: Circumstances = NOTHING_ELSE
) -> Decision:
    """Decide one request. Every rule is evaluated and reported, whatever settles the answer.

    `score` is None when there is no model or it came too late: the policy's fallback stands in for
    the bands and the decision is degraded. The first that applies:

    1. the sandbox's forced action;
    2. a hard rule that calls for PREVENT: nothing overrides a double refund;
    3. an analyst's disposition of this refund. It also answers hard rules that call for review:
       a review is what they asked for;
    4. the block list, by the entities the policy names for it;
    5. the most severe of what remains: hard rules calling for review, limits that were passed, and
       then either the allow list's ALLOW or the bands (without a score, the fallback) and risk
       rules.

    So a hard rule that calls for review, by a hit or because it could not be settled, is a floor:
    an allow list does not lift it, since leaving a field out must never be a way past a rule, and
    it does not soften a PREVENT of block list, band or risk rule, since then leaving a field out
    would pay as well. An allowed customer who floods still passes limits: the account may be in
    other hands. At equal severity the source is, in this order: a hard rule, a limit, the list or
    fallback, a risk rule, the model.

    A follow-up comes with MANUAL_REVIEW and PREVENT by rule, limit or model only: that of the first
    rule or limit, in policy order, that hit, calls for this action and has one that applies; else,
    where the model decided, that of the band.

    Raises:
        ValueError: the disposition is REVIEW, which only the sandbox may answer.
        TypeError: a fact is not of the kind the policy was loaded with.
    """
    disposition = circumstances.disposition
    if disposition is Action.REVIEW:
        raise ValueError("disposition: expected ALLOW, MANUAL_REVIEW or PREVENT, got REVIEW")
    context, known = _context(facts, score, policy, circumstances.lists)
    results = _evaluated(policy, context, known)
    calling = [rule for rule in results if rule.mode is Mode.LIVE and rule.calls_for > Action.ALLOW]
    hard = [rule for rule in calling if rule.stage is Stage.HARD]
    band = None if score is None else reached_band(score, policy.bands)
    decided = Decision(
        action=Action.ALLOW,
        source=Source.RULE,
        reasons=(),
        list_reasons=(),
        rules=results,
        band=None if score is None else band_action(score, policy.bands),
        explored=False,
        exploration_draw=circumstances.exploration_draw,
        propensity=1.0,
        degraded=score is None,
        policy_version=policy.version,
        policy_hash=policy.hash,
    )
    if circumstances.sandbox is not None:
        return replace(decided, action=circumstances.sandbox)
    if any(rule.calls_for is Action.PREVENT for rule in hard):
        return replace(
            decided,
            action=Action.PREVENT,
            reasons=_reasons(hard, Action.PREVENT),
            follow_up=_follow_up(policy, hard, Action.PREVENT, context, facts),
        )
    if disposition is not None:
        return replace(decided, action=disposition, source=Source.MANUAL_REVIEW)
    blocked = _counting(circumstances.lists.block, policy.lists.block)
    if blocked:
        return replace(decided, action=Action.PREVENT, source=Source.LIST, list_reasons=blocked)

    allowed = _counting(circumstances.lists.allow, policy.lists.allow)
    if allowed:
        calling = [rule for rule in calling if rule.stage is not Stage.RISK]
    action, source = _weigh(calling, policy, decided.band, allowed=bool(allowed))
    follow_up = None
    if action is not Action.ALLOW and source in (Source.RULE, Source.RATE_LIMIT, Source.MODEL):
        follow_up = _follow_up(policy, calling, action, context, facts)
        if follow_up is None and source is Source.MODEL and band is not None and band.follow_up:
            follow_up = FollowUp(band.follow_up.code)
    decided = replace(
        decided,
        action=action,
        source=source,
        reasons=_reasons(calling, action),
        list_reasons=allowed if source is Source.LIST else (),
        follow_up=follow_up,
    )
    draw = circumstances.exploration_draw
    floor = any(rule.stage is not Stage.RISK for rule in calling)
    if floor or allowed or score is None or draw is None:
        return decided
    return _explore(decided, policy.exploration, facts.get("payable_minor"), draw)


def _counting(hits: Sequence[ListHit], entities: Sequence[str]) -> tuple[str, ...]:
    """Return the reasons of the entries that count."""
    return tuple(hit.reason for hit in hits if hit.entity in entities)


def _weigh(
    calling: Sequence[RuleResult], policy: Policy, band: Action | None, *, allowed: bool
) -> tuple[Action, Source]:
    """Return the most severe call and who made it; among equals the first in this order."""
    calls = [(rule.calls_for, Source.RULE) for rule in calling if rule.stage is Stage.HARD]
    calls += [(rule.calls_for, Source.RATE_LIMIT) for rule in calling if rule.stage is Stage.LIMIT]
    if allowed:
        calls.append((Action.ALLOW, Source.LIST))
    elif band is None:
        calls.append((policy.fallback, Source.FALLBACK))
    calls += [(rule.calls_for, Source.RULE) for rule in calling if rule.stage is Stage.RISK]
    if band is not None and not allowed:
        calls.append((band, Source.MODEL))
    return max(calls, key=lambda call: call[0].severity)


def _context(
    facts: Facts, score: Score | None, policy: Policy, lists: ListMatch
) -> tuple[cel.Context, Iterable[str]]:
    """Declare the known facts that the policy reads, and return their names too.

    One context serves all rules: declaring facts costs more than evaluating conditions. What a
    decision itself tells comes from score and lists alone, never from `facts`.
    """
    told = (
        dict(facts)
        | lists.facts()
        | {
            "probability": None if score is None else score.probability,
            "expected_loss_minor": None if score is None else score.expected_loss_minor,
        }
    )
    known = known_facts(told, policy.reads)
    return cel.Context(known), known


def evaluate(
    facts: Facts, score: Score | None, policy: Policy, lists: ListMatch = ListMatch()
) -> tuple[RuleResult, ...]:
    """Evaluate every rule and limit, live and shadow, in policy order."""
    return _evaluated(policy, *_context(facts, score, policy, lists))


def _evaluated(
    policy: Policy, context: cel.Context, known: Iterable[str]
) -> tuple[RuleResult, ...]:
    results = []
    for rule in policy.rules:
        held = rule.condition.holds(context)
        if held is None:
            missing = tuple(name for name in rule.condition.reads if name not in known)
            results.append(replace(rule.unsettled, unknown_facts=missing))
        else:
            results.append(rule.hit if held else rule.miss)
    return tuple(results)


def band_action(score: Score, bands: Sequence[Band]) -> Action:
    """Return the most severe action among the bands the score reaches, ALLOW below all of them.

    Where the expected loss is unknown and decides, the band calls for review: an amount that
    cannot be told must not pass for a small one.
    """
    reached = Action.ALLOW
    for band in bands:
        reached = max(reached, _call(score, band))
    return reached


def reached_band(score: Score, bands: Sequence[Band]) -> Band | None:
    """Return the first band that calls for what `band_action` answers; None below all of them."""
    action = band_action(score, bands)
    if action is Action.ALLOW:
        return None
    return next(band for band in bands if _call(score, band) is action)


def _call(score: Score, band: Band) -> Action:
    if score.probability < (band.probability_at_least or 0):
        return Action.ALLOW
    least = band.expected_loss_minor_at_least
    if least is not None and score.expected_loss_minor is None:
        return Action.MANUAL_REVIEW
    if least is None or (score.expected_loss_minor or 0) >= least:
        return band.action
    return Action.ALLOW


def _reasons(calling: Sequence[RuleResult], action: Action) -> tuple[str, ...]:
    return tuple(dict.fromkeys(rule.reason for rule in calling if rule.calls_for is action))


def _follow_up(
    policy: Policy, calling: Sequence[RuleResult], action: Action, context: cel.Context,
    facts: Facts,
) -> FollowUp | None:  # fmt: skip
    """Return the first follow-up that applies among the rules that hit and call for the action."""
    by_id: dict[str, CompiledRule] = {rule.hit.rule_id: rule for rule in policy.rules}
    for result in calling:
        if result.outcome is not Outcome.HIT or result.calls_for is not action:
            continue
        rule = by_id[result.rule_id]
        if rule.follow_up is None:
            continue
        if rule.follow_up.code is not FollowUpCode.PARTIAL_AMOUNT:
            return rule.follow_up
        amount = rule.amount.minor(context) if rule.amount else None
        asked = facts.get("asked_minor")
        if amount is not None and isinstance(asked, int | float) and 0 < amount < asked:
            return replace(rule.follow_up, amount_minor=amount)
    return None


def _explore(
    decided: Decision, exploration: Exploration | None, payable_minor: object, draw: float
) -> Decision:
    """Pay a random share of held refunds up to an amount, and say how likely that was.

    The unbiased slice is what labels can later be weighted by (inverse propensity).
    """
    if exploration is None or decided.action is Action.ALLOW:
        return decided
    if not isinstance(payable_minor, int | float):
        return decided
    if not payable_minor <= exploration.max_amount_minor:  # NaN, the unknown, is never explored
        return decided
    if draw >= exploration.share:
        return replace(decided, propensity=1 - exploration.share)
    return replace(
        decided,
        action=Action.ALLOW,
        source=Source.MODEL,
        reasons=(),
        explored=True,
        propensity=exploration.share,
        follow_up=None,
    )
