"""From facts and score to the decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from features.events import ENTITIES
from rules.condition import Facts, FactValue, KnownValue, known_facts
from rules.decision import (
    Action,
    Decision,
    FollowUp,
    Mode,
    Outcome,
    RuleResult,
    Source,
    Stage,
)
from rules.document import Band, Exploration
from rules.evaluation import Known
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


_NO_LISTS: Final = ListMatch()
_NOTHING_ELSE: Final = Circumstances()


def decide(
    facts: Facts, score: Score | None, policy: Policy, circumstances: Circumstances = _NOTHING_ELSE
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
    if circumstances.disposition is Action.REVIEW:
        raise ValueError("disposition: expected ALLOW, MANUAL_REVIEW or PREVENT, got REVIEW")
    known = known_of(facts, score, policy, circumstances.lists)
    results = []
    calling: list[_Call] = []
    for run, miss, rule in policy.steps:
        held = run(known)
        if held is False:  # most of them, so without another call
            results.append(miss)
            continue
        result = rule.hit if held else rule.unsettled_by(known)
        results.append(result)
        if result.calls_for is not Action.ALLOW and result.mode is Mode.LIVE:
            calling.append((rule, result))
    band, reached = (None, None) if score is None else _reached(score, policy.bands)
    answer = _answer(policy, circumstances, calling, band, reached, known)
    draw = circumstances.exploration_draw
    if answer.explorable and score is not None and draw is not None:
        answer = _explored(answer, policy.exploration, facts.get("payable_minor"), draw)
    return Decision(
        action=answer.action,
        source=answer.source,
        reasons=answer.reasons,
        list_reasons=answer.list_reasons,
        rules=tuple(results),
        band=band,
        explored=answer.explored,
        exploration_draw=draw,
        propensity=answer.propensity,
        degraded=score is None,
        policy_version=policy.version,
        policy_hash=policy.hash,
        follow_up=answer.follow_up,
    )


def evaluate(
    facts: Facts, score: Score | None, policy: Policy, lists: ListMatch = _NO_LISTS
) -> tuple[RuleResult, ...]:
    """Evaluate every rule and limit, live and shadow, in policy order; errors as in `decide`."""
    known = known_of(facts, score, policy, lists)
    return tuple([rule.evaluated(known) for rule in policy.rules])


def known_of(
    facts: Facts, score: Score | None, policy: Policy, lists: ListMatch = _NO_LISTS
) -> dict[str, KnownValue]:
    """Pick what is known of the facts that the policy reads, once for all of its rules.

    What a decision itself brings comes from score and lists alone, never from `facts`.
    """
    known = known_facts(facts, policy.given)
    if policy.told:
        known = dict(known)
        told = lists.facts()
        if score is not None:
            told["probability"] = score.probability
            told["expected_loss_minor"] = score.expected_loss_minor
        for name in policy.told:
            value = told.get(name)
            if value is not None:
                known[name] = value
    return known


#: A live rule that calls for more than ALLOW, and what it said.
_Call = tuple[CompiledRule, RuleResult]


class _Answer(NamedTuple):
    action: Action
    source: Source
    reasons: tuple[str, ...] = ()
    list_reasons: tuple[str, ...] = ()
    follow_up: FollowUp | None = None
    explorable: bool = False
    explored: bool = False
    propensity: float = 1.0


def _answer(
    policy: Policy, circumstances: Circumstances, calling: Sequence[_Call], band: Action | None,
    reached: Band | None, known: Known,
) -> _Answer:  # fmt: skip
    """Resolve in the order that `decide` promises."""
    if circumstances.sandbox is not None:
        return _Answer(circumstances.sandbox, Source.RULE)
    if _strongest(calling, Stage.HARD) is Action.PREVENT:
        hard = [call for call in calling if call[1].stage is Stage.HARD]
        reasons, follow_up = _told(hard, Action.PREVENT, known)
        return _Answer(Action.PREVENT, Source.RULE, reasons, follow_up=follow_up)
    if circumstances.disposition is not None:
        return _Answer(circumstances.disposition, Source.MANUAL_REVIEW)
    blocked = _counting(circumstances.lists.block, policy.lists.block)
    if blocked:
        return _Answer(Action.PREVENT, Source.LIST, list_reasons=blocked)
    allowed = _counting(circumstances.lists.allow, policy.lists.allow)
    if allowed:
        calling = [call for call in calling if call[1].stage is not Stage.RISK]
    action, source = _weighed(policy, calling, band, allowed=bool(allowed))
    if source is Source.LIST:
        return _Answer(action, source, list_reasons=allowed)
    reasons, follow_up = _told(calling, action, known) if calling else ((), None)
    if source is Source.FALLBACK:
        follow_up = None
    if follow_up is None and source is Source.MODEL and reached and reached.follow_up:
        follow_up = FollowUp(reached.follow_up.code)
    by_risk = all(result.stage is Stage.RISK for _, result in calling)
    explorable = action is not Action.ALLOW and by_risk and not allowed
    return _Answer(action, source, reasons, (), follow_up, explorable)


def _told(
    calling: Sequence[_Call], action: Action, known: Known
) -> tuple[tuple[str, ...], FollowUp | None]:
    """Return the reasons and the first follow-up of the rules that call for the action."""
    reasons: dict[str, None] = {}
    follow_up = None
    for rule, result in calling:
        if result.calls_for is action:
            reasons[result.reason] = None
            if follow_up is None and result.outcome is Outcome.HIT:
                follow_up = rule.suggested(known)
    return tuple(reasons), follow_up


def _counting(hits: Sequence[ListHit], entities: Sequence[str]) -> tuple[str, ...]:
    """Return the reasons of the entries that count."""
    return tuple([hit.reason for hit in hits if hit.entity in entities]) if hits else ()


def _weighed(
    policy: Policy, calling: Sequence[_Call], band: Action | None, *, allowed: bool
) -> tuple[Action, Source]:
    """Return the most severe call and who made it; among equals the first in this order."""
    if not calling and not allowed:  # most requests
        return (policy.fallback, Source.FALLBACK) if band is None else (band, Source.MODEL)
    calls = [
        (_strongest(calling, Stage.HARD), Source.RULE),
        (_strongest(calling, Stage.LIMIT), Source.RATE_LIMIT),
    ]
    if allowed:
        calls.append((Action.ALLOW, Source.LIST))
    elif band is None:
        calls.append((policy.fallback, Source.FALLBACK))
    calls.append((_strongest(calling, Stage.RISK), Source.RULE))
    if band is not None and not allowed:
        calls.append((band, Source.MODEL))
    strongest, source = Action.ALLOW, Source.MODEL
    severity = -1
    for action, called_by in calls:
        if action is not None and action.severity > severity:
            strongest, source, severity = action, called_by, action.severity
    return strongest, source


def _strongest(calling: Sequence[_Call], stage: Stage) -> Action | None:
    """Return the most severe action that rules of a stage call for; None where none calls."""
    strongest: Action | None = None
    for _, result in calling:
        if result.stage is stage:
            if result.calls_for is Action.PREVENT:
                return Action.PREVENT
            strongest = result.calls_for
    return strongest


def band_action(score: Score, bands: Sequence[Band]) -> Action:
    """Return the most severe action among the bands the score reaches, ALLOW below all of them.

    Where the expected loss is unknown and decides, the band calls for review: an amount that
    cannot be told must not pass for a small one.
    """
    return _reached(score, bands)[0]


def _reached(score: Score, bands: Sequence[Band]) -> tuple[Action, Band | None]:
    """Return the answer of the bands, and the first of those that give it."""
    action, first = Action.ALLOW, None
    for band in bands:
        if score.probability < (band.probability_at_least or 0):
            continue
        call, least = band.action, band.expected_loss_minor_at_least
        if least is not None and score.expected_loss_minor is None:
            call = Action.MANUAL_REVIEW
        elif least is not None and (score.expected_loss_minor or 0) < least:
            continue
        if call.severity > action.severity:
            action, first = call, band
    return action, first


def _explored(
    answer: _Answer, exploration: Exploration | None, payable_minor: object, draw: float
) -> _Answer:
    """Pay a random share of held refunds up to an amount, and say how likely that was.

    The unbiased slice is what labels can later be weighted by (inverse propensity).
    """
    if exploration is None or not isinstance(payable_minor, int | float):
        return answer
    if not payable_minor <= exploration.max_amount_minor:  # NaN, the unknown, is never explored
        return answer
    if draw >= exploration.share:
        return answer._replace(propensity=1 - exploration.share)
    return _Answer(Action.ALLOW, Source.MODEL, explored=True, propensity=exploration.share)
