"""What labels weigh when the policy decided which of them there are: `weigh`.

A refund that is held shows nothing: had it been paid, its label would have come. So labels are many
where the past policy saw no risk and few where it did, and a figure taken over labelled refunds
alone speaks for refunds that the past policy liked. The policy's random holdout pays a known share
of held refunds; each of those stands for the others that were held as it was.

**The estimator.** Let U be the refunds decided in a period, f(y, s) what a figure sums over them
(y: the label that paying brings about, s: a score), and R = 1 where the policy's own decision paid.
The draw depends on the refund's id and a secret alone, so R is independent of y given what the
decision rested on, with P(R = 1) = pi known and logged:

=================  ======================================================  ======  ========
fate               the policy's last decision before the money moved       pi      weight
=================  ======================================================  ======  ========
PAID               paid, whatever was drawn                                1       1
EXPLORED           paid by chance: it would have been held                 share   1 / pi
HELD               held by chance: it might have been explored             share   0
NEVER_EXPLORABLE   held whatever was drawn: a hard rule, a list, the rate  0       none
                   limit, the fallback, or an amount above the cap
UNDECIDED          decided by another system: nothing is known of pi       ?       none
=================  ======================================================  ======  ========

The sum of f R / pi is, in the mean over draws, the sum of f over the refunds with pi > 0 (Horvitz
and Thompson 1952): E[R] / pi = 1 for each. Its variance is the sum of f^2 (1 - pi) / pi. Shares and
rates are quotients of two such sums (Hajek 1971), and so are average precision, AUC, TPR and cost
per refund: with these weights in place of counts each is consistent for its value over the same
refunds, with a bias that falls as one over the number explored.

**A held refund has weight 0, labelled or not.** Where an analyst reviewed it, or released it and it
was paid, the label is there because of what the analyst saw, which is the truth itself in part:
there is no pi. Analysts' decisions are therefore skipped: what counts is the policy's last one, and
of several the last before the refund was paid (after that, nothing brings the label about any
more). Under one policy all decisions on a refund share one draw, so this is exact; where a refund
was decided again under another policy *because* it was held, pi is a little too small.

**No overlap.** Of refunds that are never explorable no weight makes up for the labels that are not
there: `Coverage` says what share of the refunds, and of the abuse that the deciding model expected,
the weighted figures speak for. They are left out; or, on demand, those that somebody reviewed
stand for all of them, which assumes that reviews fell on them at random, and they seldom do.

What a weight does not mend: labels that are wrong, and refunds that were allowed but never paid,
which have no label under any policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.tables import Tables
from rules.decision import Action, Source
from training.dataset import Examples, end_of
from training.labels import paid_at

FloatArray = NDArray[np.float64]
Names = NDArray[np.object_]

PAID, EXPLORED, HELD = "PAID", "EXPLORED", "HELD"
NEVER_EXPLORABLE, UNDECIDED = "NEVER_EXPLORABLE", "UNDECIDED"
FATES: Final = (PAID, EXPLORED, HELD, NEVER_EXPLORABLE, UNDECIDED)
"""What the policy's last decision made of a refund; the first three are covered by the weights."""

COVERED: Final = (PAID, EXPLORED, HELD)

Uncovered = Literal["left_out", "as_reviewed"]


def fates(action: Names, explored: NDArray[np.bool_], propensity: FloatArray) -> Names:
    """The fate (n,) of decisions; UNDECIDED where the action is None.

    >>> actions = np.array(["ALLOW", "ALLOW", "PREVENT", "MANUAL_REVIEW"], object)
    >>> explored, propensity = np.array([0, 1, 0, 0], bool), np.array([1.0, 0.05, 0.95, 1.0])
    >>> fates(actions, explored, propensity).tolist()
    ['PAID', 'EXPLORED', 'HELD', 'NEVER_EXPLORABLE']
    """
    paid = action == Action.ALLOW.value
    unknown = np.array([value is None for value in action.tolist()], np.bool_)
    found = np.select(
        [unknown, paid & explored, paid, propensity < 1],
        [UNDECIDED, EXPLORED, PAID, HELD], NEVER_EXPLORABLE,
    )  # fmt: skip
    return found.astype(object)


def weights(fate: Names, propensity: FloatArray, clip: float | None = None) -> FloatArray:
    """One over the probability of having been paid (n,), at most ``clip``; 0 where not paid.

    A clip gives up some of what the holdout speaks for, to make the figures less restless. Raises
    ValueError for a clip below 1.

    >>> fate = np.array(["PAID", "EXPLORED", "HELD"], object)
    >>> weights(fate, np.array([1.0, 0.05, 0.95])).tolist()
    [1.0, 20.0, 0.0]
    >>> weights(fate, np.array([1.0, 0.05, 0.95]), clip=10).tolist()
    [1.0, 10.0, 0.0]
    """
    if clip is not None and clip < 1:
        raise ValueError(f"clip: expected a weight of at least 1, got {clip}")
    weight = np.where(fate == PAID, 1.0, 0.0)
    explored = fate == EXPLORED
    weight[explored] = 1 / propensity[explored]
    return weight if clip is None else np.minimum(weight, clip)


def effective_size(weight: FloatArray) -> float:
    """How many refunds of equal weight would say as much (Kish 1965): (sum w)^2 / sum w^2.

    >>> effective_size(np.array([1.0, 1.0, 1.0, 0.0])), round(effective_size(np.array([1, 9.])), 2)
    (3.0, 1.22)
    """
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares else 0.0


def mean(value: FloatArray, weight: FloatArray, population: float | None = None) -> float:
    """The mean of values (n,): Hajek's, or Horvitz and Thompson's over a known population.

    Hajek divides by the weights' own sum. It is the steadier one, and of values that are all the
    same it gives that value; Horvitz and Thompson's has no bias at all.

    >>> value, weight = np.array([0.0, 1.0]), np.array([1.0, 20.0])
    >>> round(mean(value, weight), 3), mean(value, weight, population=25)
    (0.952, 0.8)
    """
    return float(weight @ value) / float(weight.sum() if population is None else population)


@dataclass(frozen=True)
class Coverage:
    """What weighted figures speak for: the refunds of the examples' period, and labels, by fate.

    ``covered_share`` is the share of those refunds that had a chance to be paid;
    ``covered_abuse_share`` their share of the abuse that the deciding models expected, None where
    no decision has a probability.
    """

    refunds: Mapping[str, int]
    labelled: Mapping[str, int]
    covered_share: float
    covered_abuse_share: float | None

    @property
    def covered(self) -> int:
        """How many refunds had a chance to be paid: the population of Horvitz and Thompson."""
        return sum(self.refunds[fate] for fate in COVERED)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Weighted:
    """The weight and fate of each example (n,), and what the weights speak for.

    Examples of weight 0 are for no figure: take those that are `used`.
    """

    weight: FloatArray
    fate: Names
    coverage: Coverage

    @property
    def used(self) -> NDArray[np.bool_]:
        """The examples (n,) that have a weight."""
        return self.weight > 0

    @property
    def effective_size(self) -> float:
        """How many refunds of equal weight would say as much."""
        return effective_size(self.weight)


def weigh(
    examples: Examples,
    tables: Tables,
    *,
    clip: float | None = None,
    uncovered: Uncovered = "left_out",
) -> Weighted:
    """Weigh labelled examples by the decisions of the canonical data folder they are of.

    ``clip`` is the largest weight. With ``uncovered="as_reviewed"`` the labelled ones of those that
    are never explorable stand for all such refunds, each for as many. Raises ValueError where the
    folder has no ``decisions``, or no example.
    """
    if not len(examples):
        raise ValueError("examples: expected at least one, got none")
    decided = _last_decisions(tables)
    refunds = _period(tables, int(examples.known_at.min()), int(examples.known_at.max()))
    population = _fates(decided.reindex(refunds))
    of_examples = decided.reindex(examples.refund_id)
    fate = _fates(of_examples)
    weight = weights(fate, of_examples["propensity"].to_numpy(np.float64), clip)
    never = fate == NEVER_EXPLORABLE
    if uncovered == "as_reviewed" and never.any():
        weight[never] = (population == NEVER_EXPLORABLE).sum() / never.sum()
    return Weighted(weight, fate, _coverage(population, fate, decided.reindex(refunds)))


def _last_decisions(tables: Tables) -> pd.DataFrame:
    """The policy's last decision on each refund before its money moved, by refund_id."""
    if "decisions" not in tables:
        raise ValueError(
            "decisions: expected this table, which `recourse export` writes, to weigh labels by"
        )
    frame: pd.DataFrame = tables["decisions"].to_pandas()
    frame = frame[frame["source"] != Source.MANUAL_REVIEW.value]
    paid = frame["refund_id"].map(paid_at(tables, end_of(tables)))
    in_time = paid.isna() | (frame["known_at"] <= paid)
    last = frame[in_time].drop_duplicates("refund_id", keep="last")  # canonical: in order of time
    return last.set_index("refund_id")[["action", "explored", "propensity", "probability"]]


def _period(tables: Tables, first: int, last: int) -> Names:
    """The refunds first known from ``first`` to ``last``, those to be ignored left out."""
    names = ["refund_id", "known_at", "ignore"]
    frame: pd.DataFrame = tables["refund_requests"].select(names).to_pandas()
    ignored = frame.loc[frame["ignore"].eq(True), "refund_id"]
    frame = frame.drop_duplicates("refund_id")
    chosen = frame["known_at"].between(first, last) & ~frame["refund_id"].isin(ignored)
    return frame.loc[chosen, "refund_id"].to_numpy(object)


def _fates(decided: pd.DataFrame) -> Names:
    action = decided["action"].astype(object)
    return fates(
        action.where(action.notna(), None).to_numpy(object),
        decided["explored"].eq(True).to_numpy(np.bool_),
        decided["propensity"].to_numpy(np.float64),
    )


def _coverage(population: Names, of_examples: Names, decided: pd.DataFrame) -> Coverage:
    covered = np.isin(population, COVERED)
    expected = decided["probability"].fillna(0.0).to_numpy(np.float64)
    total = float(expected.sum())
    return Coverage(
        refunds={fate: int((population == fate).sum()) for fate in FATES},
        labelled={fate: int((of_examples == fate).sum()) for fate in FATES},
        covered_share=float(covered.mean()),
        covered_abuse_share=float(expected[covered].sum()) / total if total else None,
    )
