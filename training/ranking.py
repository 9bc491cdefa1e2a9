"""How well a score ranks: AP, AUC and TPR at a share of honest refunds, under any weights.

The score is sorted once; each measurement is one pass over it, so that hundreds of bootstrap rounds
take seconds. Ties count as scikit-learn counts them: refunds of one score are one threshold.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.kernels import compiled

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FALSE_RATES: Final = {
    "tpr_at_1pct_fpr": 0.01,
    "tpr_at_5pct_fpr": 0.05,
    "tpr_at_10pct_fpr": 0.10,
}
"""Shares of honest refunds at which the share of abuse found is stated."""

_RATES: Final = np.array(list(FALSE_RATES.values()))


class Ranking:
    """A score (n,), the higher the riskier, against labels (n,) of 1 for abuse and 0.

    Raises ValueError for a score that is NaN somewhere.

    >>> ranking = Ranking(np.array([0.1, 0.2, 0.7]), np.array([0.0, 1.0, 1.0]))
    >>> ranking.figures()["auc"], ranking.figures()["average_precision"]
    (1.0, 1.0)
    >>> ranking.figures(np.array([1.0, 0.0, 0.0]))["auc"]  # no abuse has any weight
    nan
    """

    def __init__(self, score: FloatArray, abuse: FloatArray) -> None:
        if np.isnan(score).any():
            raise ValueError(f"score: expected numbers, got NaN {int(np.isnan(score).sum())} times")
        self._order = np.argsort(-score, kind="stable")
        ranked = score[self._order]
        self._ends = np.append(np.flatnonzero(np.diff(ranked)) + 1, len(ranked)).astype(np.int64)
        self._abuse = abuse[self._order] == 1
        self._score = ranked

    def figures(self, weight: FloatArray | None = None) -> dict[str, float]:
        """AP, AUC and the TPRs of `FALSE_RATES`; NaN unless both classes have weight."""
        weight = np.ones(len(self._order)) if weight is None else weight
        ap, auc, *rates = _rank(self._order, self._ends, self._abuse, weight, _RATES).tolist()
        return {"average_precision": ap, "auc": auc, **dict(zip(FALSE_RATES, rates, strict=True))}

    def threshold(self, false_rate: float, weight: FloatArray | None = None) -> float:
        """The least score at which at most ``false_rate`` of the honest refunds are flagged.

        A refund is flagged from the threshold on; infinity where even one flags too many.

        >>> honest = Ranking(np.arange(100.0), np.zeros(100))
        >>> honest.threshold(0.05), honest.threshold(0.001)
        (95.0, inf)
        """
        weight = np.ones(len(self._order)) if weight is None else weight
        honest = np.cumsum(weight[self._order] * ~self._abuse)
        last = self._ends - 1
        within = np.flatnonzero(honest[last] <= false_rate * honest[-1])
        return float(self._score[last[within[-1]]]) if len(within) else float("inf")


@compiled
def _rank(
    order: IntArray, ends: IntArray, abuse: NDArray[np.bool_], weight: FloatArray, rates: FloatArray
) -> FloatArray:
    """AP, AUC, then the TPR at each rate."""
    found = np.zeros(2 + len(rates))
    positives = negatives = 0.0
    for i in range(len(order)):
        if abuse[i]:
            positives += weight[order[i]]
        else:
            negatives += weight[order[i]]
    if positives <= 0 or negatives <= 0:
        return np.full(2 + len(rates), np.nan)
    true = false = 0.0
    start = 0
    for end in ends:
        more_true = more_false = 0.0
        for i in range(start, end):
            if abuse[i]:
                more_true += weight[order[i]]
            else:
                more_false += weight[order[i]]
        start = end
        # Of a pair of one score each is the riskier with even chances.
        found[1] += more_false * (true + more_true / 2)
        true += more_true
        false += more_false
        if more_true > 0:
            found[0] += more_true * true / (true + false)
        for rate in range(len(rates)):
            if false / negatives <= rates[rate]:
                found[2 + rate] = true / positives
    found[0] /= positives
    found[1] /= positives * negatives
    return found
