"""From facts and score to the decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cel

from rules.condition import Facts, known_facts
from rules.decision import Action, Decision, Mode, RuleResult, Source, Stage
from rules.document import Band, Exploration
from rules.policy import Policy


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
class ListMatch:
    """The reasons of the block and allow entries that this request's entities are on."""

    block: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


def decide(
    facts: Facts,
    score: Score | None,
    policy: Policy,
    lists: ListMatch,
    *,
    disposition: Action | None = None,
    sandbox: Action | None = None,
    exploration_draw: float | None = None,
    rate_limited: bool = False,
) -> Decision:
    """Decide one request. Every rule is evaluated and reported, whatever settles the answer.

    `score` is None when there is no model or it came too late: the policy's fallback stands in for
    the bands and the decision is degraded. `exploration_draw` is uniform in [0, 1), or None where
    nothing may be explored. The first that applies:

    1. the sandbox's forced action;
    2. a hard rule that calls for PREVENT: nothing overrides a double refund;
    3. an analyst's disposition of this refund. It also answers hard rules that call for review:
       a review is what they asked for;
    4. the block list;
    5. the most severe of what remains: hard rules calling for review, the rate limit, and then
       either the allow list's ALLOW or the bands (without a score, the fallback) and risk rules.

    So a hard rule that calls for review, by a hit or because it could not be settled, is a floor:
    an allow list does not lift it, since leaving a field out must never be a way past a rule, and
    it does not soften a PREVENT of block list, band or risk rule, since then leaving a field out
    would pay as well. An allowed customer who floods is still rate limited: the account may be in
    other hands. At equal severity the source is, in this order: a hard rule, the rate limit, the
    list or fallback, a risk rule, the model.

    Raises:
        ValueError: the disposition is REVIEW, which only the sandbox may answer.
        TypeError: a fact is not of the kind the policy was loaded with.
    """
    if disposition is Action.REVIEW:
        raise ValueError("disposition: expected ALLOW, MANUAL_REVIEW or PREVENT, got REVIEW")
    results = evaluate(facts, score, policy)
    calling = [rule for rule in results if rule.mode is Mode.LIVE and rule.calls_for > Action.ALLOW]
    hard = [rule for rule in calling if rule.stage is Stage.HARD]
    risk = [rule for rule in calling if rule.stage is Stage.RISK]
    band = None if score is None else band_action(score, policy.bands)
    decided = Decision(
        action=Action.ALLOW,
        source=Source.RULE,
        reasons=(),
        list_reasons=(),
        rules=results,
        band=band,
        explored=False,
        exploration_draw=exploration_draw,
        propensity=1.0,
        degraded=score is None,
        policy_version=policy.version,
        policy_hash=policy.hash,
    )
    if sandbox is not None:
        return replace(decided, action=sandbox)
    if any(rule.calls_for is Action.PREVENT for rule in hard):
        return replace(decided, action=Action.PREVENT, reasons=_reasons(hard, Action.PREVENT))
    if disposition is not None:
        return replace(decided, action=disposition, source=Source.MANUAL_REVIEW)
    if lists.block:
        return replace(decided, action=Action.PREVENT, source=Source.LIST, list_reasons=lists.block)

    if lists.allow:
        risk = []
    action, source = _weigh(hard, risk, policy, lists, band, rate_limited=rate_limited)
    decided = replace(
        decided,
        action=action,
        source=source,
        reasons=_reasons([*hard, *risk], action),
        list_reasons=lists.allow if source is Source.LIST else (),
    )
    if hard or rate_limited or lists.allow or score is None or exploration_draw is None:
        return decided
    return _explore(decided, policy.exploration, facts.get("payable_minor"), exploration_draw)


def _weigh(
    hard: Sequence[RuleResult],
    risk: Sequence[RuleResult],
    policy: Policy,
    lists: ListMatch,
    band: Action | None,
    *,
    rate_limited: bool,
) -> tuple[Action, Source]:
    """Return the most severe call and who made it; among equals the first in this order."""
    calls = [(rule.calls_for, Source.RULE) for rule in hard]
    if rate_limited:
        calls.append((policy.rate_limited, Source.RATE_LIMIT))
    if lists.allow:
        calls.append((Action.ALLOW, Source.LIST))
    elif band is None:
        calls.append((policy.fallback, Source.FALLBACK))
    calls.extend((rule.calls_for, Source.RULE) for rule in risk)
    if band is not None and not lists.allow:
        calls.append((band, Source.MODEL))
    return max(calls, key=lambda call: call[0].severity)


def evaluate(facts: Facts, score: Score | None, policy: Policy) -> tuple[RuleResult, ...]:
    """Evaluate every rule, live and shadow, in policy order.

    One context serves all rules: declaring facts costs more than evaluating conditions, so only
    those the rules read are declared. The score's facts come from the score alone.
    """
    scored: Facts = dict(facts) | {
        "probability": None if score is None else score.probability,
        "expected_loss_minor": None if score is None else score.expected_loss_minor,
    }
    known = known_facts(scored, policy.reads)
    context = cel.Context(known)
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
        if score.probability < (band.probability_at_least or 0):
            continue
        least = band.expected_loss_minor_at_least
        if least is not None and score.expected_loss_minor is None:
            reached = max(reached, Action.MANUAL_REVIEW)
        elif least is None or (score.expected_loss_minor or 0) >= least:
            reached = max(reached, band.action)
    return reached


def _reasons(calling: Sequence[RuleResult], action: Action) -> tuple[str, ...]:
    return tuple(dict.fromkeys(rule.reason for rule in calling if rule.calls_for is action))


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
    )
