"""From log-odds to a probability that can be believed: Platt, beta and isotonic, compared in time.

Calibration looks at refunds later than those the trees saw. Of that slice the earlier half fits
each method and the later half judges it, by log-loss and Brier score; the best is then fitted on
all of it. Isotonic regression takes part only with more positives than it needs not to overfit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from serving.model import Beta, Isotonic, Platt

FloatArray = NDArray[np.float64]

ISOTONIC_MIN_POSITIVES: Final = 1_000


@dataclass(frozen=True)
class Trial:
    """How one method did on the later half of the calibration slice."""

    kind: str
    log_loss: float
    brier: float


@dataclass(frozen=True)
class Calibration:
    """The calibrator chosen, and what it was chosen over."""

    calibrator: Platt | Beta | Isotonic
    trials: tuple[Trial, ...]


def calibrate(log_odds: FloatArray, abuse: FloatArray) -> Calibration:
    """Choose and fit a calibrator on a slice (n,) in order of time.

    Raises ValueError unless both classes are in both halves.
    """
    middle = len(abuse) // 2
    halves = abuse[:middle], abuse[middle:]
    if any(half.sum() in (0, len(half)) for half in halves):
        counts = " and ".join(f"{int(half.sum())} of {len(half)}" for half in halves)
        raise ValueError(f"calibration: expected abuse and none in both halves, got {counts}")
    fits = [fit_platt, fit_beta]
    if halves[0].sum() > ISOTONIC_MIN_POSITIVES:
        fits.append(fit_isotonic)
    trials = []
    for fit in fits:
        tried = fit(log_odds[:middle], abuse[:middle])
        probability = tried.probability(log_odds[middle:])
        trials.append(
            Trial(
                tried.kind,
                float(log_loss(halves[1], probability)),
                float(brier_score_loss(halves[1], probability)),
            )
        )
    best = min(range(len(trials)), key=lambda i: (trials[i].log_loss, trials[i].brier))
    return Calibration(fits[best](log_odds, abuse), tuple(trials))


def fit_platt(log_odds: FloatArray, abuse: FloatArray) -> Platt | Beta | Isotonic:
    """Platt (1999) by maximum likelihood on n scores; falls back to level where it would fall.

    >>> fitted = fit_platt(np.array([-2.0, -1.0, 1.0, 2.0] * 9), np.array([0.0, 1.0, 0.0, 1.0] * 9))
    >>> fitted.kind, bool(fitted.probability(np.array([2.0]))[0] > 0.5)
    ('platt', True)
    """
    (slope,), intercept = _logistic(log_odds[:, None], abuse)
    if slope < 0:
        slope, intercept = 0.0, _base_log_odds(abuse)
    return Platt(slope, intercept)


def fit_beta(log_odds: FloatArray, abuse: FloatArray) -> Platt | Beta | Isotonic:
    """Kull et al. (2017) by maximum likelihood; a tail that would fall is held level, refitted."""
    tails = np.column_stack([-np.logaddexp(0.0, -log_odds), np.logaddexp(0.0, log_odds)])
    (a, b), c = _logistic(tails, abuse)
    if a < 0:
        (b,), c = _logistic(tails[:, 1:], abuse)
        a = 0.0
    elif b < 0:
        (a,), c = _logistic(tails[:, :1], abuse)
        b = 0.0
    if min(a, b) < 0:
        a, b, c = 0.0, 0.0, _base_log_odds(abuse)
    return Beta(a, b, c)


def fit_isotonic(log_odds: FloatArray, abuse: FloatArray) -> Platt | Beta | Isotonic:
    """Isotonic regression, kept off 0 and 1: n refunds cannot show a chance below 1 / (n + 2)."""
    fitted = IsotonicRegression(out_of_bounds="clip").fit(log_odds, abuse)
    least = 1 / (len(abuse) + 2)
    probabilities = np.clip(fitted.y_thresholds_, least, 1 - least)
    return Isotonic(tuple(fitted.X_thresholds_.tolist()), tuple(probabilities.tolist()))


def _logistic(inputs: FloatArray, abuse: FloatArray) -> tuple[tuple[float, ...], float]:
    # A penalty this weak moves nothing but keeps separable halves finite.
    fitted = LogisticRegression(C=1e4, max_iter=1000, tol=1e-8).fit(inputs, abuse)
    return tuple(fitted.coef_[0].tolist()), float(fitted.intercept_[0])


def _base_log_odds(abuse: FloatArray) -> float:
    rate = float(np.mean(abuse))
    return float(np.log(rate / (1 - rate)))
