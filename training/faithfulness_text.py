"""What the training report says of its reasons: whether they are true, and where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from serving.codes import name_of_code
from serving.language import ENGLISH
from training.faithfulness import GOAL, Cause, Faithfulness
from training.wording import count, number, percent, span, things

MOST_CODES: Final = 12
"""The page shows so many codes."""


def points(drop: float | None) -> str:
    """A drop in probability, in percentage points.

    >>> points(0.2218)
    '22.2 points'
    """
    return f"{number(None if drop is None else 100 * drop, 1)} points"


def code_name(code: str) -> str:
    """The name of a reason code."""
    return name_of_code(code, ENGLISH)


def doubts(found: Faithfulness) -> Iterator[str]:
    """What a reader should know where the main reason does not do what it should."""
    if not found.is_kept:
        yield (
            "the main reason is not to be relied on: made usual, it lowers the score of "
            f"{percent(found.main.share)} of the flagged refunds, at least {percent(GOAL, 0)} "
            "were to be expected"
        )


def in_a_sentence(found: Faithfulness) -> str:
    """How often the main reason is why the score is as high as it is."""
    if not found.asked:
        return "No refund of the test is flagged, so no reason was put to the test."
    of = f" (an even sample of {count(found.flagged)})" if found.asked < found.flagged else ""
    return (
        f"With the facts of its main reason set to what is usual, the probability falls at "
        f"{percent(found.main.share)} of {things(found.asked, 'flagged refund')}{of} "
        f"({span(found.interval, percent)}), by {points(found.main.mean_drop)} on average; as many "
        f"facts drawn at random lower it at {percent(found.chance.share)}, by "
        f"{points(found.chance.mean_drop)}."
    )


def exceptions(found: Faithfulness) -> list[str]:
    """The reasons that lowered nothing, by cause, the most frequent codes of each by name."""
    if not found.unmoved:
        return []
    mains = sum(one.rank == 0 for one in found.unmoved)
    said = [
        f"Of all {things(found.told.reasons, 'reason')} that are told of these refunds, "
        f"{count(len(found.unmoved))} lowered nothing, {count(mains) if mains else 'none'} of them "
        "as the main reason."
    ]
    for cause, why in _WHY.items():
        of = [one for one in found.unmoved if one.cause == cause]
        if of:
            safer = sum(one.safer_share for one in of) / len(of)
            said.append(
                f"{things(len(of), 'reason')}: {why} {_most(tuple(one.code for one in of))}. With "
                f"the facts of other refunds in place, the score falls at {percent(safer, 0)}."
            )
    return said


_WHY: dict[Cause, str] = {
    "usual": "the refund has what is usual, so nothing was changed, but it is compared with an "
             "average of all, in which those that differ are safer.",
    "elsewhere": "another reason of the same refund says it too; with that made usual first, the "
                 "score falls.",
    "no_safer": "what is usual is no safer to the model than what the refund has, but others are.",
}  # fmt: skip


def _most(codes: tuple[str, ...], named: int = 3) -> str:
    """The codes that come most often, with how often.

    >>> _most(("ACCOUNT_AGE", "CLAIM_KIND", "CLAIM_KIND"))
    'Most often: Kind of claim (2), Age of the account (1)'
    """
    often = sorted(dict.fromkeys(codes), key=lambda code: (-codes.count(code), code))[:named]
    listed = ", ".join(f"{code_name(code)} ({count(codes.count(code))})" for code in often)
    return f"Most often: {listed}"
