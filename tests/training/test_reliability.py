"""Calibration figures: scikit-learn's where it has them, and Cox's slope finds what was planted."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from training.reliability import Reliability, reliability

DRAW = np.random.default_rng(4)
LOG_ODDS = DRAW.normal(-2.5, 1.5, 4000)
ABUSE = (DRAW.random(4000) < expit(LOG_ODDS)).astype(float)
WEIGHT = DRAW.integers(0, 4, 4000).astype(float)


def test_losses_and_slope_are_those_of_scikit_learn_under_weights() -> None:
    probability = expit(0.6 * LOG_ODDS - 1)
    figures = Reliability(probability, ABUSE).figures(WEIGHT)
    kept = {"sample_weight": WEIGHT}
    assert figures["brier"] == pytest.approx(brier_score_loss(ABUSE, probability, **kept))
    assert figures["log_loss"] == pytest.approx(log_loss(ABUSE, probability, **kept))
    fitted = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(
        (0.6 * LOG_ODDS - 1)[:, None], ABUSE, sample_weight=WEIGHT
    )
    assert figures["calibration_slope"] == pytest.approx(fitted.coef_[0, 0], rel=1e-4)
    assert figures["calibration_intercept"] == pytest.approx(fitted.intercept_[0], rel=1e-4)
    assert figures["mean_probability"] == pytest.approx(np.average(probability, weights=WEIGHT))
    assert figures["prevalence"] == pytest.approx(np.average(ABUSE, weights=WEIGHT))


def test_the_slope_undoes_what_was_done_to_true_probabilities() -> None:
    slope, intercept = Reliability(expit(LOG_ODDS), ABUSE).recalibration()
    assert slope == pytest.approx(1, abs=0.15)
    assert intercept == pytest.approx(0, abs=0.3)
    # A score twice as bold as it should be has half the slope, exactly.
    assert Reliability(expit(2 * LOG_ODDS), ABUSE).recalibration()[0] == pytest.approx(slope / 2)
    honest = Reliability(expit(LOG_ODDS), ABUSE).figures()["calibration_error"]
    assert Reliability(expit(2 * LOG_ODDS), ABUSE).figures()["calibration_error"] > 2 * honest


def test_far_off_scores_converge_and_what_has_no_slope_says_so() -> None:
    for scale, shift in ((0.01, 6.0), (30.0, 0.0), (-1.0, 0.0)):
        probability = np.clip(expit(scale * LOG_ODDS + shift), 1e-12, 1 - 1e-12)
        slope, _ = Reliability(probability, ABUSE).recalibration()
        assert np.isfinite(slope) and np.sign(slope) == np.sign(scale)
    apart = Reliability(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert np.isnan(apart.recalibration()[0])
    assert np.isnan(Reliability(expit(LOG_ODDS), np.zeros(4000)).recalibration()[0])


def test_certainty_that_is_wrong_costs_much_but_not_everything() -> None:
    figures = Reliability(np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.0, 1.0])).figures()
    assert 5 < figures["log_loss"] < 50


def test_bins_hold_every_refund_once_and_weigh_it() -> None:
    probability = np.linspace(0, 1, 25)
    bins = reliability(probability, np.ones(25), bins=10)
    assert sum(b["refunds"] for b in bins) == 25
    assert [b["predicted"] for b in bins] == sorted(b["predicted"] for b in bins)
    assert {b["observed"] for b in bins} == {1.0}
    one = reliability(np.array([0.2, 0.4]), np.array([0.0, 1.0]), 1, np.array([3.0, 1.0]))
    assert one == [{"refunds": 2, "predicted": pytest.approx(0.25), "observed": 0.25}]
