"""Whether a probability can be believed: Brier score, log-loss, recalibration, reliability.

**Slope and intercept** are those of logistic recalibration (Cox 1958): the label is regressed on
the log-odds of the probability. Slope 1 and intercept 0 are perfect; a slope below 1 means that
high probabilities are too high and low ones too low, as an overfitted model's are.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.kernels import compiled

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BINS: Final = 10
_LEAST: Final = float(np.finfo(np.float64).eps)
"""Probabilities are kept so far off 0 and 1 for log-odds and log-loss, as in scikit-learn."""


class Reliability:
    """Probabilities (n,) against labels (n,) of 1 for abuse and 0, measured under any weights.

    >>> half = Reliability(np.full(4, 0.5), np.array([0.0, 1.0, 0.0, 1.0])).figures()
    >>> half["brier"], half["calibration_error"], half["calibration_slope"]
    (0.25, 0.0, nan)
    """

    def __init__(self, probability: FloatArray, abuse: FloatArray) -> None:
        inside = np.clip(probability, _LEAST, 1 - _LEAST)
        self._probability = probability
        self._abuse = abuse
        self._log_odds = np.log(inside) - np.log1p(-inside)
        self._losses = np.column_stack([
            (probability - abuse) ** 2,
            -np.where(abuse == 1, np.log(inside), np.log1p(-inside)),
            probability,
            abuse,
        ])  # fmt: skip
        # Equal probabilities lie in one bin, unlike in `reliability`: order must not matter.
        edges = np.unique(np.quantile(probability, np.arange(1, BINS) / BINS))
        self._bin = np.searchsorted(edges, probability, side="right")
        # Where rounds begin: they end close by.
        self._start = np.array([0.0, 1.0])
        slope, intercept = self.recalibration()
        if np.isfinite(slope):
            self._start = np.array([intercept, slope])

    def figures(self, weight: FloatArray | None = None) -> dict[str, float]:
        """Brier score, log-loss, slope, intercept, calibration error, and the two means."""
        weight = np.ones(len(self._abuse)) if weight is None else weight
        brier, log_loss, probability, abuse = (weight @ self._losses / weight.sum()).tolist()
        slope, intercept = self.recalibration(weight)
        gaps = np.bincount(self._bin, weight * (self._probability - self._abuse), BINS)
        return {
            "brier": brier,
            "log_loss": log_loss,
            "calibration_slope": slope,
            "calibration_intercept": intercept,
            "calibration_error": float(np.abs(gaps).sum() / weight.sum()),
            "mean_probability": probability,
            "prevalence": abuse,
        }

    def recalibration(self, weight: FloatArray | None = None) -> tuple[float, float]:
        """Slope and intercept; NaN where the data settle none, as with one class alone."""
        weight = np.ones(len(self._abuse)) if weight is None else weight
        intercept, slope = _recalibrate(self._log_odds, self._abuse, weight, self._start).tolist()
        return slope, intercept


@compiled
def _recalibrate(
    log_odds: FloatArray, abuse: FloatArray, weight: FloatArray, start: FloatArray
) -> FloatArray:
    """Newton's method for intercept and slope by maximum likelihood, its steps held to 1.

    It works on standardised log-odds, whatever their range, and translates back.
    """
    total = weight.sum()
    mean = (weight * log_odds).sum() / total
    scale = np.sqrt((weight * (log_odds - mean) ** 2).sum() / total)
    if not scale > 1e-12 * max(1.0, abs(mean)):
        return np.array([np.nan, np.nan])  # all alike: no slope is best
    intercept, slope = start[0] + start[1] * mean, start[1] * scale
    for _ in range(100):
        g0 = g1 = h00 = h01 = h11 = 0.0
        for i in range(len(log_odds)):
            if weight[i] > 0:
                x = (log_odds[i] - mean) / scale
                p = 1.0 / (1.0 + np.exp(-(intercept + slope * x)))
                error, curve = weight[i] * (abuse[i] - p), weight[i] * p * (1.0 - p)
                g0 += error
                g1 += error * x
                h00 += curve
                h01 += curve * x
                h11 += curve * x * x
        volume = h00 * h11 - h01 * h01
        # The classes are apart, or one is empty: the steeper the better, without end.
        if volume <= 1e-12 * h00 * h11 or h00 < 1e-9 * total:
            break
        step0, step1 = (h11 * g0 - h01 * g1) / volume, (h00 * g1 - h01 * g0) / volume
        longest = max(abs(step0), abs(step1))
        held = min(1.0, 1.0 / longest) if longest > 0 else 1.0
        intercept += held * step0
        slope += held * step1
        if longest < 1e-5:  # the next step is of its square
            return np.array([intercept - slope * mean / scale, slope / scale])
    return np.array([np.nan, np.nan])


def _bins(probability: FloatArray, bins: int) -> list[IntArray]:
    """Rows in bins of equal size by probability, in order."""
    order = np.argsort(probability, kind="stable")
    return [np.asarray(rows) for rows in np.array_split(order, min(bins, len(order)))]


def reliability(
    probability: FloatArray, abuse: FloatArray, bins: int = BINS, weight: FloatArray | None = None
) -> list[dict[str, Any]]:
    """Predicted against observed share of abuse, in bins of equal size by probability.

    Bins in which no refund has any weight are left out.

    >>> reliability(np.array([0.1, 0.3]), np.array([0.0, 1.0]), bins=2)[1]
    {'refunds': 1, 'predicted': 0.3, 'observed': 1.0}
    """
    weight = np.ones(len(abuse)) if weight is None else weight
    return [
        {
            "refunds": len(rows),
            "predicted": float(np.average(probability[rows], weights=weight[rows])),
            "observed": float(np.average(abuse[rows], weights=weight[rows])),
        }
        for rows in _bins(probability, bins)
        if weight[rows].any()
    ]
