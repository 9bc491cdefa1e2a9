"""Calibration: it recovers a known curve, never turns an order round, and is chosen in time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.model import Beta, Platt, sigmoid
from training.calibrate import (
    ISOTONIC_MIN_POSITIVES,
    calibrate,
    fit_beta,
    fit_isotonic,
    fit_platt,
)

FITS = [fit_platt, fit_beta, fit_isotonic]


def drawn(n: int, slope: float, intercept: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    log_odds = draw.normal(-1, 2, n)
    return log_odds, (draw.random(n) < sigmoid(slope * log_odds + intercept)).astype(float)


@pytest.mark.parametrize("fit", FITS)
def test_a_distorted_score_is_set_right(fit) -> None:  # type: ignore[no-untyped-def]
    log_odds, abuse = drawn(40_000, 0.5, -1)
    truth = sigmoid(0.5 * log_odds - 1)
    assert np.abs(fit(log_odds, abuse).probability(log_odds) - truth).mean() < 0.01


def test_platt_recovers_its_own_parameters() -> None:
    fitted = fit_platt(*drawn(100_000, 0.7, -1.5))
    assert isinstance(fitted, Platt)
    assert (fitted.slope, fitted.intercept) == pytest.approx((0.7, -1.5), abs=0.05)


@pytest.mark.parametrize("fit", FITS)
def test_a_score_that_is_wrong_way_round_is_levelled_not_turned(fit) -> None:  # type: ignore[no-untyped-def]
    log_odds, abuse = drawn(4_000, -1, 0)
    probability = fit(log_odds, abuse).probability(np.sort(log_odds))
    assert (np.diff(probability) >= -1e-12).all()
    assert probability.mean() == pytest.approx(abuse.mean(), abs=0.02)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(-2, 3))
def test_no_calibrator_ever_falls(seed: int, slope: float) -> None:
    log_odds, abuse = drawn(60, slope, 0, seed)
    abuse[:2] = 0.0, 1.0
    grid = np.linspace(-30, 30, 301)
    for fit in FITS:
        probability = fit(log_odds, abuse).probability(grid)
        assert (np.diff(probability) >= -1e-12).all()
        assert ((probability >= 0) & (probability <= 1)).all()


def test_isotonic_takes_part_only_with_many_positives() -> None:
    few = calibrate(*drawn(2_000, 1, -2))
    assert [trial.kind for trial in few.trials] == ["platt", "beta"]
    log_odds, abuse = drawn(12_000, 1, 0)
    assert abuse[:6_000].sum() > ISOTONIC_MIN_POSITIVES
    assert [t.kind for t in calibrate(log_odds, abuse).trials] == ["platt", "beta", "isotonic"]


def test_the_best_in_time_order_is_kept_and_fitted_on_all() -> None:
    draw = np.random.default_rng(3)
    log_odds = draw.normal(0, 2.5, 30_000)
    abuse = (draw.random(30_000) < Beta(0.3, 1.6, -1).probability(log_odds)).astype(float)
    chosen = calibrate(log_odds, abuse)
    best = min(chosen.trials, key=lambda trial: trial.log_loss)
    assert chosen.calibrator.kind == best.kind != "platt"
    assert chosen.calibrator == {"beta": fit_beta, "isotonic": fit_isotonic}[best.kind](
        log_odds, abuse
    )


def test_a_half_of_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"both halves, got 0 of 5 and 2 of 5"):
        calibrate(np.arange(10.0), np.array([0, 0, 0, 0, 0, 1, 0, 1, 0, 0.0]))
