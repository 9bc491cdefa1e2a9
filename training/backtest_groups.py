"""Where refunds move and why: segments, months, the parts of the policies, and example cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rules.backtest import Cause
from training.backtest_figures import Worth
from training.backtest_report import CausedBy, Example, Moves, Segment
from training.backtest_rows import ACTIONS, UNKNOWN, Case, Rows
from training.backtest_sums import Counted, shifts, tally
from training.bootstrap import Interval, interval
from training.costs import ALLOWED, PREVENTED
from training.segments import AGE_EDGES_DAYS, AMOUNT_EDGES_MINOR, banded

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

EXAMPLES: Final = 10
"""Examples of each kind of change."""

_NOT_KNOWN: Final = "(unknown)"


def divisions(of: Counted, words: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, Mask]]:
    """By what, which, and whose rows: every segment that has a refund; of facts that are there."""
    for by, name in (("reason", "reason"), ("channel", "channel"), ("country", "country")):
        yield from _worded(by, of.table[name], words[name])
    amount = np.where(of.table["payable_minor"] == UNKNOWN, np.nan, of.payable)
    if not np.isnan(amount).all():
        yield from banded("amount", amount, AMOUNT_EDGES_MINOR, 100, "")
    age = of.table["age_days"]
    if not np.isnan(age).all():
        yield from banded("account age", age, AGE_EDGES_DAYS, 1, " days")
    month = of.table["decided_at"].astype("datetime64[ms]").astype("datetime64[M]")
    for one in np.unique(month):
        yield "month", str(one), month == one


def _worded(by: str, codes: IntArray, words: Sequence[str]) -> Iterator[tuple[str, str, Mask]]:
    counts = np.bincount(codes[codes != UNKNOWN], minlength=len(words))
    if not counts.any():
        return
    for code in sorted(range(len(words)), key=lambda code: (-counts[code], words[code])):
        if counts[code]:
            yield by, words[code], codes == code
    if (codes == UNKNOWN).any():
        yield by, _NOT_KNOWN, codes == UNKNOWN


@dataclass(frozen=True)
class Groups:
    """Groups of refunds: all, then every segment, then what each cause moved; masks (n,).

    ``alone`` are the refunds that each cause moved by itself.
    """

    segments: list[tuple[str, str]]
    causes: list[Cause]
    masks: list[Mask]
    alone: list[int]


def groups_of(of: Counted, rows: Rows) -> Groups:
    """The groups of the refunds that count."""
    divided = list(divisions(of, rows.words))
    causes = sorted({cause for each in rows.causes for cause in each})
    code = of.table["causes"]  # -1, where nothing moved, is the last place
    caused = [np.array([*(cause in each for each in rows.causes), False])[code] for cause in causes]
    alone = [
        int(np.array([*(each == (cause,) for each in rows.causes), False])[code].sum())
        for cause in causes
    ]
    masks = [np.ones(len(of), np.bool_), *(mask for *_, mask in divided), *caused]
    return Groups([(by, name) for by, name, _ in divided], causes, masks, alone)


def worth_of(of: Counted, groups: Groups, saved_minor: FloatArray) -> Worth:
    """What each group's refunds save, by customer; those that save nothing are left out."""
    worth = np.flatnonzero(saved_minor)
    within = [np.flatnonzero(mask[worth]) for mask in groups.masks]
    return Worth(of.customer[worth], saved_minor[worth], within)


def moves_of(
    of: Counted, groups: Groups, saved_minor: FloatArray, drawn_minor: FloatArray
) -> tuple[Moves, tuple[Segment, ...], tuple[CausedBy, ...]]:
    """Who moves in all, by segment, and by cause, the cause of most first.

    ``saved_minor`` (n,) is what each refund costs less, ``drawn_minor`` (rounds, groups) what each
    group's do in every round of the bootstrap.
    """
    each = [
        _moves(of, mask & of.moved, saved_minor, interval(drawn_minor[:, place]))
        for place, mask in enumerate(groups.masks)
    ]
    of_segments, of_causes = each[1 : 1 + len(groups.segments)], each[1 + len(groups.segments) :]
    segments = tuple(
        Segment(by, name, int(mask.sum()), _held(of.before[mask]), _held(of.after[mask]), part)
        for (by, name), mask, part in zip(
            groups.segments, groups.masks[1 : 1 + len(groups.segments)], of_segments, strict=True
        )
    )
    causes = [
        CausedBy(cause, part, alone)
        for cause, part, alone in zip(groups.causes, of_causes, groups.alone, strict=True)
        if part.moved
    ]
    return each[0], segments, tuple(sorted(causes, key=lambda one: (-one.moves.moved, one.cause)))


def _moves(of: Counted, rows: Mask, saved_minor: FloatArray, around: Interval) -> Moves:
    return Moves(
        shifts(of.before[rows], of.after[rows]), int(rows.sum()), int(of.payable[rows].sum()),
        tally(of, rows & (of.abuse == 1)), tally(of, rows & (of.abuse == 0)),
        float(saved_minor[rows].sum()), around,
    )  # fmt: skip


def _held(action: IntArray) -> int:
    return int(((action != ALLOWED) & (action != PREVENTED)).sum())


# --- examples ------------------------------------------------------------------------------------


def examples(rows: Rows, of: Counted) -> Iterator[Example]:
    """Ten refunds of each kind of change, as even as can be over causes and labels.

    Which ones of equal causes and labels is settled by a hash: the same seed, the same refunds.
    """
    at_place = {int(place): at for at, place in enumerate(of.place.tolist())}
    kinds: dict[tuple[int, int], dict[Any, list[tuple[Case, Any, int]]]] = {}
    for (before, after, causes), cases in rows.cases.items():
        for case in cases:
            at = at_place.get(case.row)
            if at is not None:
                group = (causes, int(of.abuse[at]))
                groups = kinds.setdefault((before, after), {})
                groups.setdefault(group, []).append((case, causes, at))
    for (before, after), groups in sorted(kinds.items()):
        for case, causes, at in _spread(list(groups.values())):
            abuse, payable = int(of.abuse[at]), int(of.table["payable_minor"][at])
            yield Example(
                case.refund_id, int(of.table["decided_at"][at]), ACTIONS[before], ACTIONS[after],
                case.sources, case.reasons_before, case.reasons_after, causes, case.currency,
                case.order_currency, case.facts,
                None if payable == UNKNOWN else payable,
                None if abuse == UNKNOWN else abuse == 1,
            )  # fmt: skip


def _spread(groups: list[list[tuple[Case, Any, int]]]) -> Iterator[tuple[Case, Any, int]]:
    """One of each group in turn, until there are enough."""
    each = [sorted(group, key=lambda one: (one[0].order, one[0].row)) for group in groups]
    each.sort(key=lambda group: (group[0][0].order, group[0][0].row))
    turns = [one for turn in range(EXAMPLES) for group in each for one in group[turn : turn + 1]]
    yield from turns[:EXAMPLES]
