"""Are the reasons true? What a reason names is made usual, and the score has to fall.

SHAP values share a score out without rest, and still a reason could mislead: its facts may say what
others say too, or weigh only beside an average that no request has. So the flagged refunds of the
test are asked: the features of a reason code, as the service groups and ranks them, are set to the
median of training, all else is kept, and the model scores again. The main reason must lower the
score nearly always. As many features drawn at random, outside of that code, are the control.

A reason that lowers nothing is looked into, and has one of three causes: see `Cause`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.catalog import BY_NAME
from serving.explain import TreeExplainer
from serving.model import AbuseModel
from serving.reasons import Ranking
from training.bootstrap import Interval, interval, resample
from training.dataset import Examples

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Bools = NDArray[np.bool_]

GOAL: Final = 0.95
"""The share of flagged refunds whose score the main reason must lower."""

MOST_ROWS: Final = 2_000
"""So many flagged refunds are enough; of more an even sample is asked."""

DRAWS: Final = 20
"""Random sets of features for each refund."""

OTHERS: Final = 50
"""Refunds whose facts are put in the place of those of a reason that lowered nothing."""

Cause = Literal["usual", "elsewhere", "no_safer"]
"""Why a reason lowered nothing.

``usual``: the refund has what is usual already, so nothing was changed; beside the average of
training, in which others are safer, it raises the score all the same. ``elsewhere``: another reason
of the refund says it too; with that made usual first, the score falls. ``no_safer``: what is usual
is no safer, to the model, than what the refund has.
"""


@dataclass(frozen=True)
class Shift:
    """So many ``reasons`` made usual, and so many of them ``lowered`` the score.

    ``mean_drop`` is how far the probability fell on average; NaN, as ``share``, where there are
    none.
    """

    reasons: int
    lowered: int
    share: float
    mean_drop: float

    @classmethod
    def of(cls, drop: FloatArray) -> Shift:
        """From how far each probability fell (n,).

        >>> Shift.of(np.array([0.25, 0.0, -0.125, 0.375]))
        Shift(reasons=4, lowered=2, share=0.5, mean_drop=0.125)
        """
        lowered = int((drop > 0).sum())
        share = lowered / len(drop) if len(drop) else float("nan")
        return cls(len(drop), lowered, share, float(drop.mean()) if len(drop) else float("nan"))


@dataclass(frozen=True)
class CodeShift:
    """A reason code where it is the main reason, and wherever it is told."""

    code: str
    main: Shift
    told: Shift


@dataclass(frozen=True)
class Unmoved:
    """A reason that lowered nothing: of which refund, at which rank (0 is the main one), and why.

    ``other`` is the reason code that says it too, where the cause is ``elsewhere``; ``safer_share``
    the share of other refunds whose facts, in place of this one's, lower the score.
    """

    refund_id: str
    code: str
    rank: int
    probability: float
    made_usual: float
    cause: Cause
    other: str | None
    safer_share: float


@dataclass(frozen=True)
class Faithfulness:
    """What making reasons usual did to the scores of ``asked`` of the ``flagged`` refunds.

    ``interval`` is of the share that the main reason lowers, ``drop_interval`` of the mean drop,
    both over customers. ``told`` is of every reason that is told, ``unmoved`` those among them that
    lowered nothing, ``codes`` begin with the most frequent main reason.
    """

    flagged: int
    asked: int
    customers: int
    main: Shift
    interval: Interval
    drop_interval: Interval
    chance: Shift
    told: Shift
    codes: tuple[CodeShift, ...]
    unmoved: tuple[Unmoved, ...]

    @property
    def is_kept(self) -> bool:
        """Whether the main reason lowers the score as often as it must; so if none was asked."""
        return not self.main.share < GOAL


class _Told(NamedTuple):
    """A reason of a row: its rank there, its code, and which features (n,) it is made of."""

    row: int
    rank: int
    code: str
    of: Bools


def faithfulness(
    model: AbuseModel, test: Examples, flagged: Bools, *, seed: int = 0
) -> Faithfulness:
    """Make the reasons of the flagged (n,) refunds of the test usual, one at a time."""
    places = np.flatnonzero(flagged)
    picked = places[np.linspace(0, len(places) - 1, min(MOST_ROWS, len(places))).astype(int)]
    asked = test.where(picked)
    rows = asked.columns(model.feature_names)
    told = list(_told(model, rows))
    usual = model.reference.quantiles[:, model.reference.quantiles.shape[1] // 2]
    before = model.predict(rows) if len(rows) else np.empty(0)
    drop = _drops(model, rows, before, usual, [(one.row, one.of) for one in told])
    rank = np.array([one.rank for one in told], np.int64)
    main = [one for one in told if one.rank == 0]
    chance = _drops(model, rows, before, usual, _at_random(main, seed))
    customer = asked.customer[[one.row for one in main]]
    share, mean = _intervals(drop[rank == 0], customer, seed)
    return Faithfulness(
        flagged=len(places), asked=len(main), customers=len(np.unique(customer)),
        main=Shift.of(drop[rank == 0]), interval=share, drop_interval=mean,
        chance=Shift.of(chance), told=Shift.of(drop),
        codes=_by_code(told, drop, rank),
        unmoved=tuple(_unmoved(model, asked, rows, _others(model, test), usual, told, drop)),
    )  # fmt: skip


def _told(model: AbuseModel, rows: FloatArray) -> Iterator[_Told]:
    """The reasons that the service would tell of each row."""
    ranking = Ranking([BY_NAME[name] for name in model.feature_names])
    contributions = TreeExplainer.from_booster(model.booster).contributions(rows)
    for row, (values, parts) in enumerate(zip(rows, contributions, strict=True)):
        grouped = ranking.grouped(values)
        for rank, reason in enumerate(ranking.reasons(values, parts)):
            of = grouped == ranking.codes.index(reason.code)
            yield _Told(row, rank, reason.code, of)


def _drops(
    model: AbuseModel, rows: FloatArray, before: FloatArray, usual: FloatArray,
    changes: Iterable[tuple[int, Bools]],
) -> FloatArray:  # fmt: skip
    """How far a row's probability falls when the chosen features are made usual, (changes,)."""
    chosen = list(changes)
    row = np.array([each for each, _ in chosen], np.int64)
    drops = np.empty(len(chosen))
    for start in range(0, len(chosen), MOST_ROWS):
        part = slice(start, start + MOST_ROWS)
        of = np.array([which for _, which in chosen[part]])
        drops[part] = before[row[part]] - model.predict(np.where(of, usual, rows[row[part]]))
    return drops


def _at_random(main: Sequence[_Told], seed: int) -> Iterator[tuple[int, Bools]]:
    """For each main reason as many features of other codes, several times."""
    draw = np.random.default_rng(seed)
    for one in main:
        others = np.flatnonzero(~one.of)
        for _ in range(DRAWS):
            of = np.zeros_like(one.of)
            of[draw.choice(others, min(int(one.of.sum()), len(others)), replace=False)] = True
            yield one.row, of


def _intervals(drop: FloatArray, customer: IntArray, seed: int) -> tuple[Interval, Interval]:
    """Of the share lowered and of the mean drop.

    Where all customers agree every resample does, and says nothing of customers not seen: then the
    other end is the exact bound of Clopper and Pearson (1934) for as many customers.
    """
    if not len(drop):
        return interval([]), interval([])
    lowered = (drop > 0).astype(np.float64)

    def means(weight: FloatArray) -> dict[str, float]:
        return {"share": float(np.average(lowered, weights=weight)),
                "drop": float(np.average(drop, weights=weight))}  # fmt: skip

    rounds = resample({"main": means}, customer, seed=seed)
    share = rounds.interval("main", "share")
    bound = float(0.025 ** (1 / len(np.unique(customer))))
    if lowered.all():
        share = Interval(bound, 1.0)
    elif not lowered.any():
        share = Interval(0.0, 1 - bound)
    return share, rounds.interval("main", "drop")


def _by_code(told: Sequence[_Told], drop: FloatArray, rank: IntArray) -> tuple[CodeShift, ...]:
    code = np.array([one.code for one in told])
    found = [
        CodeShift(name, Shift.of(drop[(code == name) & (rank == 0)]), Shift.of(drop[code == name]))
        for name in sorted({one.code for one in told})
    ]
    return tuple(sorted(found, key=lambda one: (-one.main.reasons, -one.told.reasons, one.code)))


def _others(model: AbuseModel, test: Examples) -> FloatArray:
    """An even sample of the test: rows (k, features)."""
    picked = np.linspace(0, len(test) - 1, min(OTHERS, len(test))).astype(int)
    return test.where(picked).columns(model.feature_names)


def _unmoved(
    model: AbuseModel, asked: Examples, rows: FloatArray, others: FloatArray, usual: FloatArray,
    told: Sequence[_Told], drop: FloatArray,
) -> Iterator[Unmoved]:  # fmt: skip
    """Those that lowered nothing, each with its cause."""
    of_row: dict[int, list[_Told]] = {}
    for one in told:
        of_row.setdefault(one.row, []).append(one)
    for one, fell in zip(told, drop, strict=True):
        if fell > 0:
            continue
        row = rows[one.row]
        beside = [each for each in of_row[one.row] if each is not one]
        changed = [row, np.where(one.of, usual, row)]
        changed += [np.where(each.of, usual, row) for each in beside]
        changed += [np.where(each.of | one.of, usual, row) for each in beside]
        said = model.predict(np.vstack([*changed, np.where(one.of, others, row)]))
        alone, both = said[2 : 2 + len(beside)], said[2 + len(beside) : len(changed)]
        cause: Cause = "no_safer"
        other = None
        if np.array_equal(changed[1], row, equal_nan=True):
            cause = "usual"
        elif len(beside) and (alone - both).max() > 0:
            cause, other = "elsewhere", beside[int((alone - both).argmax())].code
        yield Unmoved(
            str(asked.refund_id[one.row]), one.code, one.rank, float(said[0]), float(said[1]),
            cause, other, float((said[len(changed) :] < said[0]).mean()),
        )  # fmt: skip
