"""Ranking figures: scikit-learn's, ties and weights included; thresholds that keep their word."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from training.ranking import FALSE_RATES, Ranking

REFUNDS = st.lists(
    st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=2, max_size=60
)


def columns(
    refunds: list[tuple[int, bool, int]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    score, abuse, weight = (np.array(column, float) for column in zip(*refunds, strict=True))
    both = (weight * abuse).sum() > 0 and (weight * (1 - abuse)).sum() > 0
    return (score, abuse, weight) if both else None


@given(REFUNDS)
def test_figures_are_scikit_learns_with_ties_and_weights(
    refunds: list[tuple[int, bool, int]],
) -> None:
    if (found := columns(refunds)) is None:
        return
    score, abuse, weight = found
    figures = Ranking(score, abuse).figures(weight)
    ap = average_precision_score(abuse, score, sample_weight=weight)
    assert figures["average_precision"] == pytest.approx(ap, abs=1e-12)
    auc = roc_auc_score(abuse, score, sample_weight=weight)
    assert figures["auc"] == pytest.approx(auc, abs=1e-12)
    false, true, _ = roc_curve(abuse, score, sample_weight=weight, drop_intermediate=False)
    for name, rate in FALSE_RATES.items():
        assert figures[name] == pytest.approx(true[false <= rate].max(), abs=1e-12), name


@given(REFUNDS)
def test_a_weight_is_a_number_of_copies(refunds: list[tuple[int, bool, int]]) -> None:
    if (found := columns(refunds)) is None:
        return
    score, abuse, weight = found
    times = weight.astype(int)
    copied = Ranking(np.repeat(score, times), np.repeat(abuse, times)).figures()
    assert Ranking(score, abuse).figures(weight) == pytest.approx(copied)


@given(REFUNDS, st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_a_threshold_flags_all_that_it_may_and_no_more(
    refunds: list[tuple[int, bool, int]], rate: float
) -> None:
    if (found := columns(refunds)) is None:
        return
    score, abuse, weight = found
    cut = Ranking(score, abuse).threshold(rate, weight)
    honest = weight * (1 - abuse)

    def flagged(threshold: float) -> float:
        return float(honest[score >= threshold].sum() / honest.sum())

    assert flagged(cut) <= rate + 1e-12
    lower = score[score < cut]
    assert not len(lower) or flagged(lower.max()) > rate


def test_one_class_alone_has_no_figures_and_nan_is_no_score() -> None:
    figures = Ranking(np.array([0.1, 0.2]), np.ones(2)).figures()
    assert all(np.isnan(value) for value in figures.values())
    with pytest.raises(ValueError, match="score: expected numbers, got NaN 1 times"):
        Ranking(np.array([0.1, np.nan]), np.array([0.0, 1.0]))
