"""Judging a score: figures by hand, intervals about them, and every name in one list."""

import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from features.money import DAY_MS
from rules.document import Costs
from training.bands import Bands
from training.bootstrap import resample
from training.dataset import TimeSplit
from training.evaluate import HEADLINES, Desk, Figures, Truth, judge
from training.fit import Fitted
from training.ranking import Ranking

COSTS = Costs(fee_minor=500, review_minor=400, prevented_honest_multiple=1.5)


def truth_of(abuse: list[int], weight: list[float] | None = None) -> Truth:
    n = len(abuse)
    return Truth(
        np.array(abuse, float), np.arange(n), np.arange(n) * DAY_MS, np.full(n, 1000.0),
        np.ones(n) if weight is None else np.array(weight, float),
    )  # fmt: skip


def test_figures_by_hand() -> None:
    judged = judge(np.array([0.9, 0.8, 0.2, 0.1]), truth_of([1, 0, 1, 0]),
                   bands=Bands(np.inf, 0.85).written(), costs=COSTS, rounds=20)  # fmt: skip
    figures = judged.figures
    assert figures.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert figures.auc == pytest.approx(3 / 4)
    assert figures.tpr_at_5pct_fpr == pytest.approx(1 / 2)
    assert figures.brier == pytest.approx((0.01 + 0.64 + 0.64 + 0.01) / 4)
    assert (figures.n, figures.n_positives, figures.prevalence) == (4, 2, 0.5)
    # Of the abuse the first is prevented, the other paid, with its fee.
    assert figures.cost_per_1000_minor == pytest.approx(1000 * 1500 / 4)


def test_weights_stand_for_what_is_not_there() -> None:
    score = np.array([0.9, 0.8, 0.2, 0.1, 0.3])
    truth = truth_of([1, 0, 1, 0, 0], [1, 3, 2, 0, 1])
    copies = np.repeat(np.arange(5), [1, 3, 2, 0, 1])
    copied = truth_of([1, 0, 0, 0, 1, 1, 0])
    copied = replace(copied, known_at=truth.known_at[copies])
    desk = Desk(reviews_per_day=1)
    ours = judge(score, truth, costs=COSTS, desk=desk, rounds=5).figures
    theirs = judge(score[copies], copied, costs=COSTS, desk=desk, rounds=5).figures
    for name in ("average_precision", "auc", "brier", "log_loss", "calibration_slope",
                 "prevalence", "mean_probability", "recall_at_capacity", "precision_at_capacity",
                 "cost_per_1000_minor"):  # fmt: skip
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), nan_ok=True), name


def test_a_score_that_is_no_probability_is_judged_by_rank_alone() -> None:
    judged = judge(np.array([90.0, 10.0]), truth_of([1, 0]), probability=False, rounds=20)
    assert judged.figures.auc == 1
    document = json.loads(json.dumps(judged.to_json(), allow_nan=False))
    assert document["brier"] is None and document["reliability"] == []
    assert document["cost_per_1000_minor"] is None


def test_a_models_figures_lie_within_their_intervals(fitted: Fitted, split: TimeSplit) -> None:
    probability, truth = fitted.model.predict(split.test.inputs), Truth.of(split.test)
    judged = judge(probability, truth, bands=fitted.placement.bands.written(), costs=COSTS)
    assert set(HEADLINES) == set(judged.intervals) <= {field.name for field in fields(Figures)}
    for name, interval in judged.intervals.items():
        assert interval.low <= getattr(judged.figures, name) <= interval.high, name
    assert all(np.isfinite(value) for value in asdict(judged.figures).values())
    assert 0.75 < judged.figures.auc < 0.98


def test_intervals_narrow_with_more_customers_and_keep_their_promise() -> None:
    # Of 40 worlds with one true AUC, a 95 % interval misses it in two or so.
    true_auc = 0.7602  # of unit normals one standard deviation apart
    missed, widths = 0, {}
    for size in (200, 800):
        for seed in range(40):
            draw = np.random.default_rng(seed)
            abuse = np.arange(size) % 4 == 0
            score = draw.normal(0, 1, size) + abuse
            rounds = resample(
                {"s": Ranking(score, abuse.astype(float)).figures}, np.arange(size), seed=seed
            )
            low, high = np.quantile(rounds.values["s"]["auc"], [0.025, 0.975])
            missed += not low <= true_auc <= high
            widths[size] = high - low
    assert missed <= 10
    assert widths[800] < 0.7 * widths[200]
