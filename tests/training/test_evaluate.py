"""Figures: against hand-made cases, and honest about their ceilings and their width."""

import numpy as np
import pytest

from features.money import DAY_MS
from training.dataset import TimeSplit
from training.evaluate import (
    at_capacity,
    baselines,
    blueprint_score,
    bootstrap,
    evaluate,
    interval,
    measure,
    rank,
    reliability,
)
from training.train import Fitted


def test_average_precision_and_the_rest_by_hand() -> None:
    figures = measure(np.array([0.9, 0.8, 0.2, 0.1]), np.array([1.0, 0.0, 1.0, 0.0]))
    assert figures["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["auc"] == pytest.approx(3 / 4)
    assert figures["tpr_at_5pct_fpr"] == pytest.approx(1 / 2)
    assert figures["brier"] == pytest.approx((0.01 + 0.64 + 0.64 + 0.01) / 4)
    assert figures["prevalence"] == 0.5


def test_a_desk_takes_the_worst_customers_of_a_day_and_none_twice() -> None:
    #              day 0: c1 guilty on top, c2, c3 guilty      day 1: c1 again, c3 guilty, c4
    customer = np.array([1, 1, 2, 3, 1, 3, 4])
    day = np.array([0, 0, 0, 0, 1, 1, 1])
    score = np.array([0.1, 0.9, 0.5, 0.2, 0.99, 0.6, 0.7])
    abuse = np.array([1, 0, 0, 1, 1, 1, 0.0])
    figures = at_capacity(score, abuse, day * DAY_MS, customer, share=0.3)
    assert figures["reviews_per_day"] == 1
    # Day 0 opens c1: guilty. Day 1 leaves c1 out and opens c4: innocent. c3 is missed twice.
    assert figures["precision_at_capacity"] == 1 / 2
    assert figures["recall_at_capacity"] == 1 / 3
    assert figures["precision_at_capacity_ceiling"] == 1
    assert figures["recall_at_capacity_ceiling"] == 2 / 3


def test_a_perfect_score_reaches_the_ceilings_and_none_is_above(split: TimeSplit) -> None:
    test = split.test
    for score in (test.abuse, np.random.default_rng(0).random(len(test))):
        figures = at_capacity(score, test.abuse, test.known_at, test.customer)
        assert figures["precision_at_capacity"] <= figures["precision_at_capacity_ceiling"]
        assert figures["recall_at_capacity"] <= figures["recall_at_capacity_ceiling"]


def test_the_blueprints_weights_add_up(split: TimeSplit) -> None:
    test = split.test
    score = blueprint_score(test)
    row = int(np.argmax(score))
    by_hand = (
        25 * (test.column("refund_count_by_customer_30d")[row] >= 3)
        + 20 * (test.column("payable_minor")[row] > 20_000)
        + 15 * (test.column("registered_age_days")[row] < 14)
        + 25 * (test.column("chargeback_count_by_customer_365d")[row] >= 1)
        + 10 * (test.column("ip_risk")[row] >= 0.75)
    )
    assert score[row] == by_hand > 0
    assert set(score) <= {float(x) for x in range(0, 100, 5)}


def test_the_model_beats_the_blueprint_and_the_amount(fitted: Fitted, split: TimeSplit) -> None:
    figures = evaluate(fitted.model, split.test)
    for name, weaker in baselines(split.test).items():
        assert figures["average_precision"] > weaker["average_precision"], name
        assert figures["auc"] > weaker["auc"], name
    assert 0.75 < figures["auc"] < 0.98


def test_rounds_are_paired_and_reproducible() -> None:
    draw = np.random.default_rng(1)
    abuse = (draw.random(400) < 0.2).astype(float)
    score, customer = draw.random(400), draw.integers(0, 100, 400)
    rounds = bootstrap({"a": score, "b": score}, abuse, customer, seed=7)
    assert all(r["a"] == r["b"] for r in rounds)
    assert rounds == bootstrap({"a": score, "b": score}, abuse, customer, seed=7)
    figures = interval([r["a"]["auc"] for r in rounds])
    assert figures.low < rank(score, abuse)["auc"] < figures.high


def test_customers_not_refunds_are_drawn() -> None:
    # Ten customers of 40 like refunds each tell as much as ten refunds, not as 400.
    draw = np.random.default_rng(2)
    customer = np.repeat(np.arange(10), 40)
    abuse = (customer % 3 == 0).astype(float)
    score = 0.3 * abuse + draw.normal(0, 0.5, 10)[customer] + draw.normal(0, 0.05, 400)

    def width(who: np.ndarray) -> float:
        found = interval([r["s"]["auc"] for r in bootstrap({"s": score}, abuse, who)])
        return found.high - found.low

    assert width(customer) > 2 * width(np.arange(400))


def test_reliability_bins_hold_every_refund_once() -> None:
    probability = np.linspace(0, 1, 25)
    bins = reliability(probability, np.ones(25), bins=10)
    assert sum(b["refunds"] for b in bins) == 25
    assert [b["predicted"] for b in bins] == sorted(b["predicted"] for b in bins)
    assert {b["observed"] for b in bins} == {1.0}
