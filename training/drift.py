"""Drift: which features, and whether the score, moved from the training rows to the test's.

PSI (`serving.psi`) tells how far, and a bootstrap tells how far is far: pairs of samples, as large
as the training data and as the test, are drawn from the training customers, and the 99th percentile
of their PSI is the threshold. Whoever is drawn comes with all refunds, since those of one customer
are alike. The customary 0.1 and 0.25 are blind on large data and ring without cause on small.

Above the threshold a feature has surely moved, which need not hurt: set it beside how much the
model looks at the feature. Of 100 features that stand still, one is above it by chance.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.psi import bins, count_of, cuts, psi
from training.bootstrap import known
from training.dataset import Examples
from training.fit import Fitted

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROUNDS: Final = 200
PERCENTILE: Final = 99.0
"""Which percentile of the bootstrap's PSI is the threshold."""

MOST_GROUPS: Final = 2_000
"""More customers than these are drawn in so many groups, put together at random: the counts of a
sample vary the same, in bounded memory."""

SCORE: Final = "score"


@dataclass(frozen=True)
class Drift:
    """One feature, or the score: before is training, after the test. NaN is what is unknown.

    ``drifted`` says that ``psi`` is above ``threshold``, which no more than one pair in a hundred
    drawn from the training data is. Shares unknown are of all rows, medians of the known values.
    """

    name: str
    psi: float
    threshold: float
    drifted: bool
    unknown_before: float
    unknown_after: float
    median_before: float
    median_after: float

    @property
    def times(self) -> float:
        """PSI over its threshold; infinite where the training data never moved at all.

        >>> Drift("amount", 0.5, 0.25, True, 0.0, 0.0, 1.0, 2.0).times
        2.0
        """
        if self.threshold > 0:
            return self.psi / self.threshold
        return float("inf") if self.psi > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {name: value if isinstance(value, str | bool) else known(value)
                for name, value in asdict(self).items()}  # fmt: skip


@dataclass(frozen=True)
class DriftReport:
    """The score and every feature of the model, the furthest over its threshold first."""

    score: Drift
    features: tuple[Drift, ...]

    @property
    def drifted(self) -> tuple[Drift, ...]:
        """The features that surely moved."""
        return tuple(one for one in self.features if one.drifted)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "percentile": PERCENTILE,
            "score": self.score.to_json(),
            "features_drifted": len(self.drifted),
            "features": [one.to_json() for one in self.features],
        }


def drift(
    train: Examples,
    test: Examples,
    probability: FloatArray,
    fitted: Fitted,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> DriftReport:
    """Measure the model's features and score between the training rows and the test's.

    ``probability`` (n,) is of the test; the score before is that of the refunds which the folds
    were judged on, since no tree had seen them. The bins are of the model's reference, made of
    ``train``. The same seed gives the same thresholds.
    """
    model, judged = fitted.model, fitted.validation.examples
    pairs = Pairs(train.customer, len(test), rounds=rounds, seed=seed)
    found = [
        measured(name, train.column(name), test.column(name), quantiles, pairs)[0]
        for name, quantiles in zip(model.feature_names, model.reference.quantiles, strict=True)
    ]
    score, _ = measured(
        SCORE, fitted.probability, probability, model.reference.score_quantiles,
        Pairs(judged.customer, len(test), rounds=rounds, seed=seed),
    )  # fmt: skip
    return DriftReport(score, tuple(sorted(found, key=lambda one: (-one.times, -one.psi))))


class Pairs:
    """Pairs of samples from the same customers, and what PSI comes to between them.

    ``customer`` (n,) holds codes of the rows before. The first of a pair has about as many rows as
    these, the second about ``size``.
    """

    def __init__(self, customer: IntArray, size: int, *, rounds: int, seed: int) -> None:
        draw = np.random.default_rng(seed)
        _, who = np.unique(customer, return_inverse=True)
        customers = int(who.max()) + 1
        self._groups = min(customers, MOST_GROUPS)
        self._group = (draw.permutation(customers) % self._groups)[who]
        later = max(1, round(self._groups * size / len(customer)))
        self._before, self._after = (self._drawn(draw, count, rounds)
                                     for count in (self._groups, later))  # fmt: skip

    def _drawn(self, draw: np.random.Generator, count: int, rounds: int) -> FloatArray:
        """How often each group is drawn (rounds, groups), ``count`` of them with replacement."""
        even = np.full(self._groups, 1 / self._groups)
        return draw.multinomial(count, even, rounds).astype(np.float64)

    def psi(self, binned: IntArray, count: int) -> FloatArray:
        """PSI of each pair (rounds,) over rows before (n,) that lie in ``count`` bins."""
        place = self._group * count + binned
        counts = np.bincount(place, minlength=self._groups * count).reshape(self._groups, count)
        each = counts.astype(np.float64)
        return psi(self._before @ each, self._after @ each)


def measured(
    name: str, before: FloatArray, after: FloatArray, quantiles: FloatArray, pairs: Pairs
) -> tuple[Drift, FloatArray]:
    """How far values moved from those before (n,) to those after (m,), and PSI of each pair.

    The pairs are of the rows before, the bins of the ``quantiles`` (q,).
    """
    begins = cuts(quantiles)
    count = count_of(begins)
    was, now = bins(before, begins), bins(after, begins)
    moved = float(psi(*(np.bincount(each, minlength=count).astype(float) for each in (was, now))))
    by_chance = pairs.psi(was, count)
    threshold = float(np.percentile(by_chance, PERCENTILE))
    found = Drift(
        name, moved, threshold, moved > threshold,
        float(np.isnan(before).mean()), float(np.isnan(after).mean()),
        _median(before), _median(after),
    )  # fmt: skip
    return found, by_chance


def _median(values: FloatArray) -> float:
    """The median of what is known, NaN where nothing is."""
    there = values[~np.isnan(values)]
    return float(np.median(there)) if len(there) else float("nan")
