"""How good a score is: rare classes, money and review capacity, not AUC alone.

Average precision (AP) leads: with a few per cent of abuse it is what a reviewer feels, and it falls
where AUC hardly moves. `judge` measures everything at once, with intervals from a bootstrap over
customers; `Figures` is the list of what is measured. All take weights: with the inverse of the
propensities, refunds whose labels a policy let through stand for those it did not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rules.document import Band, Costs
from training.bands import actions
from training.bootstrap import BOOTSTRAP_ROUNDS, Interval, known, resample
from training.capacity import CardDesk, Desk, RefundDesk
from training.costs import cost_of, mean_cost
from training.dataset import Examples
from training.ranking import Ranking
from training.reliability import Reliability, reliability

__all__ = ["HEADLINES", "Desk", "Figures", "Judgement", "Meter", "Truth", "decided", "judge"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_UNKNOWN: Final = float("nan")


@dataclass(frozen=True)
class Figures:
    """What a score is judged by: the one list, whose names reports, runs and gates share.

    NaN is what cannot be said: calibration of a score that is no probability, cost without bands.
    ``n`` and ``n_positives`` count refunds; all else is weighted. A desk opens
    ``reviews_per_day`` refunds of each day (precision, recall), or ``cards_per_day`` customers
    (card precision, those caught before left out). A ceiling is what no score can exceed.
    ``cost_per_1000_minor`` is in minor units of the base currency, over refunds of known amount.
    """

    n: float
    n_positives: float
    average_precision: float = _UNKNOWN
    auc: float = _UNKNOWN
    tpr_at_1pct_fpr: float = _UNKNOWN
    tpr_at_5pct_fpr: float = _UNKNOWN
    tpr_at_10pct_fpr: float = _UNKNOWN
    reviews_per_day: float = _UNKNOWN
    precision_at_capacity: float = _UNKNOWN
    precision_at_capacity_ceiling: float = _UNKNOWN
    recall_at_capacity: float = _UNKNOWN
    recall_at_capacity_ceiling: float = _UNKNOWN
    cards_per_day: float = _UNKNOWN
    card_precision: float = _UNKNOWN
    card_precision_ceiling: float = _UNKNOWN
    brier: float = _UNKNOWN
    log_loss: float = _UNKNOWN
    calibration_slope: float = _UNKNOWN
    calibration_intercept: float = _UNKNOWN
    calibration_error: float = _UNKNOWN
    mean_probability: float = _UNKNOWN
    prevalence: float = _UNKNOWN
    cost_per_1000_minor: float = _UNKNOWN

    def to_json(self) -> dict[str, float | None]:
        """By name, None for what is unknown."""
        return {name: known(value) for name, value in asdict(self).items()}


HEADLINES: Final = (
    "average_precision", "auc", "tpr_at_1pct_fpr", "tpr_at_5pct_fpr", "tpr_at_10pct_fpr",
    "precision_at_capacity", "recall_at_capacity", "card_precision", "brier", "log_loss",
    "calibration_slope", "calibration_intercept", "mean_probability", "cost_per_1000_minor",
)  # fmt: skip
"""The figures that have an interval. Not the calibration error: resampling alone raises it."""

_CENTRED: Final = frozenset({"precision_at_capacity", "recall_at_capacity", "card_precision"})


@dataclass(frozen=True)
class Truth:
    """What is known of n refunds that a score is judged on, arrays (n,).

    ``abuse`` is 1 or 0, ``customer`` holds codes, ``known_at`` epoch ms, ``amount_minor`` what
    would be paid (base currency, NaN where unknown), ``weight`` what each refund stands for.
    """

    abuse: FloatArray
    customer: IntArray
    known_at: IntArray
    amount_minor: FloatArray
    weight: FloatArray

    @classmethod
    def of(cls, examples: Examples, weight: FloatArray | None = None) -> Truth:
        """The truth of labelled examples; each weighs 1 by default."""
        return cls(
            examples.abuse, examples.customer, examples.known_at, examples.column("payable_minor"),
            np.ones(len(examples)) if weight is None else weight,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.abuse)

    def where(self, chosen: NDArray[np.bool_]) -> Truth:
        """The truth of some of the refunds."""
        return Truth(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class Judgement:
    """A score's figures, the 95 % intervals of the headlines, and its reliability.

    ``reliability`` is empty for a score that is no probability.
    """

    figures: Figures
    intervals: Mapping[str, Interval]
    reliability: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values: the figures by their own names, then ``intervals`` and ``reliability``."""
        return {
            **self.figures.to_json(),
            "intervals": {name: i.to_json() for name, i in self.intervals.items()},
            "reliability": [dict(each) for each in self.reliability],
        }


class Meter:
    """Measures one score (n,) under any weights (n,), having sorted it once.

    ``cost_minor`` (n,) is what the score's decisions cost (`training.costs`); without
    ``probability`` there are no calibration figures.
    """

    def __init__(
        self,
        score: FloatArray,
        truth: Truth,
        *,
        desk: Desk | None = None,
        cost_minor: FloatArray | None = None,
        probability: bool = True,
    ) -> None:
        self.truth, self.cost_minor = truth, cost_minor
        k, cards = (desk or Desk()).capacity(truth.known_at)
        self.ranking = Ranking(score, truth.abuse)
        self._queue = RefundDesk(score, truth.abuse, truth.known_at, k)
        self._cards = CardDesk(score, truth.abuse, truth.known_at, truth.customer, cards)
        self._calibration = Reliability(score, truth.abuse) if probability else None

    def __call__(self, weight: FloatArray) -> dict[str, float]:
        """The `Figures` that vary with weights, by name."""
        found = {**self.ranking.figures(weight), **self._queue.figures(weight)}
        found["card_precision"] = self._cards.precision(weight)
        if self._calibration is not None:
            found |= self._calibration.figures(weight)
        if self.cost_minor is not None:
            found["cost_per_1000_minor"] = 1000 * mean_cost(self.cost_minor, weight)
        return found

    def figures(self) -> Figures:
        """All figures, under the truth's own weights."""
        truth = self.truth
        found = Figures(
            n=float(len(truth)), n_positives=float(truth.abuse.sum()),
            reviews_per_day=float(self._queue.k), cards_per_day=float(self._cards.k),
            card_precision_ceiling=self._cards.ceiling(),
            prevalence=float(np.average(truth.abuse, weights=truth.weight)),
        )  # fmt: skip
        return replace(found, **self(truth.weight))


def judge(
    score: FloatArray,
    truth: Truth,
    *,
    desk: Desk | None = None,
    bands: Sequence[Band] = (),
    costs: Costs | None = None,
    probability: bool = True,
    rounds: int = BOOTSTRAP_ROUNDS,
    seed: int = 0,
) -> Judgement:
    """Judge a score (n,): probabilities, or with ``probability`` False any number that ranks.

    The cost is that of ``bands`` on probabilities, under ``costs``; without costs it is unknown.

    >>> truth = Truth(np.array([0.0, 0.0, 1.0]), np.arange(3), np.zeros(3, np.int64),
    ...               np.full(3, 1000.0), np.ones(3))
    >>> judged = judge(np.array([0.1, 0.2, 0.7]), truth, costs=Costs(fee_minor=500))
    >>> judged.figures.average_precision, judged.figures.cost_per_1000_minor
    (1.0, 500000.0)
    """
    cost_minor = None
    if costs is not None:
        cost_minor = cost_of(decided(bands, score, truth, costs), truth.abuse, truth.amount_minor,
                             costs)  # fmt: skip
    meter = Meter(score, truth, desk=desk, cost_minor=cost_minor, probability=probability)
    drawn = resample({"score": meter}, truth.customer, truth.weight, rounds=rounds, seed=seed)
    bins = reliability(score, truth.abuse, weight=truth.weight) if probability else []
    figures = meter.figures()
    intervals = {
        name: drawn.interval("score", name, getattr(figures, name) if name in _CENTRED else None)
        for name in HEADLINES
        if name in drawn.values["score"]
    }
    return Judgement(figures, intervals, tuple(bins))


def decided(
    bands: Sequence[Band], probability: FloatArray, truth: Truth, costs: Costs
) -> NDArray[np.int8]:
    """The severity (n,) of the action that bands call for at probabilities (n,)."""
    return actions(bands, probability, probability * (truth.amount_minor + costs.fee_minor))
