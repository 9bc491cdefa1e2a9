"""The policy's edges nearest to a decision: which other score, or amount, is answered otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from features.events import due_minor
from rules.condition import KnownFacts, known_facts
from rules.decision import Action
from rules.engine import Score, decide
from rules.policy import Policy
from serving.explanation.parts import Edge
from serving.explanation.scene import Scene
from serving.explanation.words import action_name
from serving.language import Language
from serving.scorer import Verdict

_STEPS: Final = 50
"""So many probabilities are tried, besides the bands' own thresholds, before looking closer."""

_AMOUNTS: Final = 20
"""So many smaller amounts are tried before looking closer."""

_CLOSE: Final = 1e-7
_READ_ALWAYS: Final[Mapping[str, str]] = {"payable_minor": "double"}


class _Region(NamedTuple):
    """Probabilities from ``start`` on, up to where the next begins, that get one answer."""

    start: float
    action: Action


def probability_edges(
    scene: Scene, verdict: Verdict, language: Language
) -> tuple[list[Edge], str | None]:
    """The nearest other answers by another score, milder and more severe, all else as it was.

    And a sentence, where no score or no lower one would change the answer.
    """
    action = verdict.decision.action
    regions = _regions(_by_probability(scene, verdict), scene.policy, verdict)
    below, above = _around(regions, verdict)
    milder = next((i for i in reversed(below) if regions[i].action < action), None)
    severer = next((i for i in above if regions[i].action > action), None)
    edges = [
        _edge(regions, i, language, is_milder=i == milder)
        for i in (milder, severer)
        if i is not None
    ]
    return edges, _unmoved(verdict, milder, severer, language)


def _unmoved(
    verdict: Verdict, milder: int | None, severer: int | None, language: Language
) -> str | None:
    decision = verdict.decision
    action = action_name(decision.action.value, language)
    if decision.explored:
        return language.say(
            "It was let through by chance, to learn from it: no score would have held it."
        )
    if milder is None and severer is None:
        return language.say("Whatever the score, it would be: {action}.", action=action)
    if milder is None and decision.action is not Action.ALLOW:
        return language.say("However low the score, it would be: {action}.", action=action)
    return None


def _around(regions: Sequence[_Region], verdict: Verdict) -> tuple[Sequence[int], Sequence[int]]:
    """The regions below and above the score; without one any score would be another."""
    if verdict.score is None:
        return range(len(regions)), range(len(regions))
    starts = [region.start for region in regions]
    here = max(i for i, start in enumerate(starts) if start <= verdict.score.probability)
    return range(here), range(here + 1, len(regions))


def _by_probability(scene: Scene, verdict: Verdict) -> Callable[[float], Action]:
    """What the rules engine answers with another probability, expected loss following."""
    policy, circumstances = scene.policy, scene.circumstances
    facts = KnownFacts(known_facts(verdict.facts, {**policy.given, **_READ_ALWAYS}))
    payable_minor = verdict.row["payable_minor"]

    def action(probability: float) -> Action:
        loss = None
        if not math.isnan(payable_minor):
            loss = policy.costs.expected_loss_minor(probability, payable_minor)
        return decide(facts, Score(probability, loss), policy, circumstances).action

    return action


def _regions(action: Callable[[float], Action], policy: Policy, verdict: Verdict) -> list[_Region]:
    """All probabilities, by what they are answered."""
    points = {step / _STEPS for step in range(_STEPS + 1)} | {*_thresholds(policy, verdict)}
    if verdict.score is not None:
        points.add(verdict.score.probability)
    regions = [_Region(0.0, action(0.0))]
    low = 0.0
    for point in sorted(points):
        answered = action(point)
        while answered is not (present := regions[-1].action):
            high = point
            while high - low > _CLOSE:
                middle = (low + high) / 2
                low, high = (middle, high) if action(middle) is present else (low, middle)
            regions.append(_Region(high, action(high)))
            low = high
        low = point
    return regions


def _thresholds(policy: Policy, verdict: Verdict) -> Iterator[float]:
    """The probabilities at which bands begin."""
    worst_minor = policy.costs.expected_loss_minor(1, verdict.row["payable_minor"])
    for band in policy.bands:
        loss = band.expected_loss_minor_at_least
        reached = loss / worst_minor if loss is not None and worst_minor > 0 else 0.0
        yield from (p for p in (band.probability_at_least, reached) if p is not None and p <= 1)


def _edge(regions: Sequence[_Region], place: int, language: Language, *, is_milder: bool) -> Edge:
    """Where a region begins or, of a milder one, ends; both, if what lies behind is another way."""
    action, start = regions[place].action, regions[place].start
    end = regions[place + 1].start if place + 1 < len(regions) else 1.0
    behind = regions[:place] if is_milder else regions[place + 1 :]
    is_between = any((r.action > action) if is_milder else (r.action < action) for r in behind)
    low, low_digits = _shown(start, math.ceil)
    high, high_digits = _shown(end, math.floor)
    values = {
        "low": language.share(low, low_digits), "high": language.share(high, high_digits),
        "action": action_name(action.value, language),
    }  # fmt: skip
    if is_between:
        said = language.say("Between {low} and {high} it would be: {action}.", **values)
    elif not is_milder:
        said = language.say("From a probability of {low} on it would be: {action}.", **values)
    elif end == 1:
        said = language.say("With a score, whichever, it would be: {action}.", **values)
    else:
        said = language.say("Below a probability of {high} it would be: {action}.", **values)
    return Edge("probability", high if is_milder else low, action.value, said)


def _shown(at: float, rounded: Callable[[float], int]) -> tuple[float, int]:
    """An edge as precise as it can be said and stay true, with the digits of its per cents.

    >>> _shown(0.25, math.floor), _shown(0.18437, math.floor), _shown(0.18437, math.ceil)
    ((0.25, 0), (0.184, 1), (0.185, 1))
    >>> _shown(0.00012, math.floor)
    (0.0001, 2)
    """
    for digits in range(5):
        scale = 10.0 ** (digits + 2)
        near = round(at * scale)
        if abs(at - near / scale) <= 2 * _CLOSE and 0 < near < scale:  # it was meant so
            return near / scale, digits
        shown = rounded(at * scale) / scale
        if digits and 0 < shown < 1:
            return shown, digits
    return at, 4


# --- the amount --------------------------------------------------------------------------------


def amount_edges(scene: Scene, verdict: Verdict, language: Language) -> Iterator[Edge]:
    """For each milder answer the largest amount that would get it, through the whole pipeline.

    The model's word may go up and down with the amount, so ``or less`` is said only where all the
    smaller amounts that were tried are answered no more severely.
    """
    request = scene.request
    kept_minor = request.non_refundable_minor or 0
    asked_minor = due_minor(request.amount_minor, kept_minor)

    def action(minor: int) -> Action:
        return scene.decide(amount_minor=minor + kept_minor).decision.action

    severest = verdict.decision.action
    if severest is Action.ALLOW:
        return
    steps = min(_AMOUNTS, asked_minor)
    tried = {minor: action(minor) for step in range(1, steps)
             if (minor := asked_minor * step // steps)}  # fmt: skip
    tried[asked_minor] = severest
    for minor in sorted(tried, reverse=True):
        if tried[minor] >= severest:
            continue
        severest = tried[minor]
        low, high = minor, min(above for above in tried if above > minor)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if action(middle) <= severest else (low, middle)
        is_all = all(tried[other] <= severest for other in tried if other < low)
        yield _amount_edge(low, severest, request.currency, language, is_all=is_all)


def _amount_edge(
    minor: int, action: Action, currency: str, language: Language, *, is_all: bool
) -> Edge:
    values = {"amount": language.money(minor, currency),
              "action": action_name(action.value, language)}  # fmt: skip
    said = (
        language.say("Asked for {amount} or less, it would be: {action}.", **values)
        if is_all
        else language.say("Asked for {amount}, it would be: {action}.", **values)
    )
    return Edge("amount", minor, action.value, said)
