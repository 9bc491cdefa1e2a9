"""What would change a verdict, through the real decision function."""

from __future__ import annotations

from typing import Final

from rules.decision import Action
from serving.explanation.changes import Supposed, facts_to_come, other_circumstances
from serving.explanation.edges import amount_edges, probability_edges
from serving.explanation.parts import Change, WhatIf
from serving.explanation.scene import Scene
from serving.explanation.words import action_name
from serving.language import Language
from serving.scorer import Verdict

MOST_MOVING: Final = 12
MOST_STILL: Final = 4
"""So many changes are told that move the verdict, and that do not."""


def what_if(scene: Scene, language: Language) -> WhatIf:
    """What would change the verdict of a scene: the nearest edges, and facts and circumstances.

    The changes that move the verdict come first: to a milder one, the mildest first, then to a more
    severe one; then a few that do not, first what happened since.
    """
    if scene.circumstances.sandbox is not None:
        told = language.say("The sandbox was asked for this answer, so nothing would change it.")
        return WhatIf(problem=told)
    base = scene.decide()
    edges, unmoved = probability_edges(scene, base, language)
    edges += amount_edges(scene, base, language)
    return WhatIf(
        tuple(edges), _changes(scene, base, language), _differs(scene, base, language), unmoved
    )


def _changes(scene: Scene, base: Verdict, language: Language) -> tuple[Change, ...]:
    answer, again = base.decision.action, scene.decide_after()
    supposed = [
        *_asked_again(answer, again, language),
        *facts_to_come(scene, base, language),
        *other_circumstances(scene, base, language),
    ]
    changes = [_change(one, answer, again) for one in supposed]
    milder = sorted(
        (c for c in changes if c.moves and Action(c.action) < answer),
        key=lambda change: Action(change.action).severity,
    )
    severer = [c for c in changes if c.moves and Action(c.action) > answer]
    still = sorted(
        (c for c in changes if not c.moves), key=lambda change: change.happened_at is None
    )
    of_each_kind = {change.kind.partition("_")[0]: change for change in reversed(still)}
    still = [change for change in still if change in of_each_kind.values()]
    moving = [*milder, *severer]
    return (*moving[:MOST_MOVING], *still[:MOST_STILL])


def _asked_again(answer: Action, again: Verdict, language: Language) -> list[Supposed]:
    """That time alone makes another answer, where it does: what follows is to be read with it."""
    if again.decision.action is answer:
        return []
    said = language.say(
        "Were it decided anew right after, when this request and its order are known already"
    )
    return [Supposed("again", said, again, False)]


def _change(one: Supposed, answer: Action, again: Verdict) -> Change:
    """What came of it. What is answered without it as well is not moved by it."""
    action = one.verdict.decision.action
    moves = action is not answer and not (one.is_to_come and action is again.decision.action)
    probability = one.verdict.score.probability if one.verdict.score else None
    return Change(one.kind, one.sentence, action.value, probability, moves, one.happened_at)


def _differs(scene: Scene, base: Verdict, language: Language) -> str | None:
    """What is different already when the decision is made again, and by which model it was."""
    return " ".join([*_other_model(scene, language), *_other_answer(scene, base, language)]) or None


def _other_model(scene: Scene, language: Language) -> list[str]:
    was = scene.record["model_version"]
    if scene.champion is None:
        if scene.record["probability"] is None:
            return []
        return [language.say(
            "Model {was}, which decided, is not here any more: its score is taken as it was.",
            was=was,
        )]  # fmt: skip
    now = scene.champion.version
    if was in (None, now):
        return []
    return [language.say("It was decided by model {was}; this is what model {now} says.",
                         was=was, now=now)]  # fmt: skip


def _other_answer(scene: Scene, base: Verdict, language: Language) -> list[str]:
    record = scene.record
    was, now = record["probability"], base.score.probability if base.score else None
    answered = Action(record["decision"]["action"])
    told = []
    if was is None and now is not None:
        told.append(language.say(
            "There was no score then; made again now, the probability is {now}.",
            now=language.probability(now),
        ))  # fmt: skip
    elif language.probability(was) != language.probability(now):
        told.append(language.say(
            "Made again now, the probability is {now}, not {was}.",
            now=language.probability(now), was=language.probability(was),
        ))  # fmt: skip
    if base.decision.action is not answered:
        told.append(language.say(
            "Made again now, it would be: {now}.",
            now=action_name(base.decision.action.value, language),
        ))  # fmt: skip
    return told
