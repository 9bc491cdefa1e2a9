"""The explanation of one decision as a screen of text: what its page begins with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from serving.explanation.parts import Explanation, ReasonTold
from serving.explanation.words import action_name
from serving.language import Language
from serving.seen import seen

MOST_RAISING: Final = 6
MOST_LOWERING: Final = 3
MOST_CHANGES: Final = 6


def to_text(explanation: Explanation, language: Language) -> str:
    """Verdict, what settled it, reasons for and against, and what would change it."""
    told = seen(explanation, line=True)  # what others wrote must not write on a terminal
    verdict, say = told.verdict, language.say
    lines = [
        say(
            "{action}: refund {refund} of {amount}, decided {when}",
            action=action_name(verdict.action, language),
            refund=verdict.refund_id,
            amount=language.money(verdict.asked_minor, verdict.currency),
            when=language.instant(verdict.decided_at),
        ),
        *(f"  {said}" for said in verdict.decided_by),
        *_reasons(say("What raises the risk:"), told.raising, MOST_RAISING, language),
        *_reasons(say("What lowers it:"), told.lowering, MOST_LOWERING, language),
        *_changes(told, language),
    ]
    return "\n".join(lines)


def _reasons(
    title: str, reasons: Sequence[ReasonTold], most: int, language: Language
) -> Iterator[str]:
    """The weightiest reasons, and how many others there are."""
    if reasons:
        yield title
    for reason in reasons[:most]:
        fact = reason.facts[0]
        told = (fact.sentence, fact.standing, fact.own_past)
        yield f"  {language.signed(reason.contribution)}  {reason.name} ({reason.code})"
        yield f"         {'; '.join(said for said in told if said)}"
    if (others := len(reasons) - most) > 0:
        yield "  " + language.say_of(others, "and a weaker one", "and {value} weaker ones")


def _changes(explanation: Explanation, language: Language) -> Iterator[str]:
    what_if = explanation.what_if
    moving = [
        language.say(
            "{change}: {action}",
            change=change.sentence, action=action_name(change.action, language),
        )
        for change in what_if.changes
        if change.moves
    ]  # fmt: skip
    told = [
        what_if.problem,
        what_if.differs,
        what_if.unmoved,
        *(edge.sentence for edge in what_if.edges),
    ]
    lines = [said for said in (*told, *moving[:MOST_CHANGES]) if said]
    if lines:
        yield language.say("What would change it:")
    yield from (f"  {said}" for said in lines)
