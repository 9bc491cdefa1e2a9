"""Intervals of shares and sums: against scipy where refunds are independent, and by coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rules.document import Costs
from training.bootstrap import Interval
from training.costs import ALLOWED, PREVENTED, REVIEWED
from training.policy_figures import share_of, total, wilson
from training.policy_judgement import Frame, saved_total

COSTS = Costs(fee_minor=500, review_minor=400, prevented_honest_multiple=1.5)


@given(st.integers(1, 400), st.data())
def test_wilson_is_that_of_scipy(size: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, size))
    low, high = stats.binomtest(hits, size).proportion_ci(method="wilson")
    found = wilson(hits / size, size)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


def test_alike_refunds_of_one_customer_count_as_one() -> None:
    customer = np.repeat(np.arange(20), 5)
    abuse = np.repeat((np.arange(20) < 5).astype(float), 5)
    many = share_of(abuse, customer)
    few = share_of((np.arange(20) < 5).astype(float), np.arange(20))
    assert many.value == few.value == 0.25
    assert many.effective == few.effective == 20
    assert many.interval == few.interval
    assert (many.refunds, many.customers) == (100, 20)


def test_one_large_abuser_counts_for_little() -> None:
    customer = np.append(np.zeros(10, np.int64), np.arange(1, 91))
    share = share_of(np.append(np.ones(10), np.zeros(90)), customer)
    # V = (10^2 0.9^2 + 90 0.1^2) / 100^2, and 0.1 * 0.9 / V customers say as much.
    assert share.effective == pytest.approx(0.09 / ((81 + 0.9) / 10_000), abs=1e-5)
    assert share.interval.high > 0.3


def test_weights_of_zero_are_for_nothing_and_nothing_has_no_share() -> None:
    share = share_of(np.array([1.0, 0.0, 0.0]), np.arange(3), np.array([4.0, 1.0, 0.0]))
    assert (share.value, share.refunds, share.customers) == (0.8, 2, 2)
    none = share_of(np.array([]), np.array([], np.int64))
    assert math.isnan(none.value)
    assert none.to_json()["interval"] == {"low": None, "high": None}


def test_intervals_of_shares_hold_the_truth_of_clustered_customers() -> None:
    """Customers have one to six refunds; abusers have more, and abuse nine times in ten."""
    draw = np.random.default_rng(1)
    held, rounds = 0, 500
    truth = (0.2 * 4.5 * 0.9) / (0.2 * 4.5 + 0.8 * 2.0)
    for _ in range(rounds):
        is_abuser = draw.random(80) < 0.2
        refunds = np.where(is_abuser, draw.integers(3, 7, 80), draw.integers(1, 4, 80))
        customer = np.repeat(np.arange(80), refunds)
        abuse = (draw.random(len(customer)) < 0.9) & is_abuser[customer]
        found = share_of(abuse.astype(float), customer).interval
        held += found.low <= truth <= found.high
    assert held / rounds > 0.93


def test_intervals_of_sums_hold_the_truth_though_customers_come_by_chance() -> None:
    draw = np.random.default_rng(2)
    held, rounds, mean = 0, 120, 60 * 2 * 50.0
    for _ in range(rounds):
        customer = np.repeat(np.arange(draw.poisson(60)), 2)
        value = np.repeat(draw.uniform(0, 100, len(customer) // 2), 2)
        found = total(value, customer).interval
        held += found.low <= mean <= found.high
    assert held / rounds > 0.9


def test_a_sum_leaves_out_what_is_not_known() -> None:
    found = total(np.array([10.0, np.nan, -4.0]), np.array([0, 0, 1]))
    assert (found.minor, found.refunds, found.customers) == (6.0, 2, 2)
    nothing = total(np.array([np.nan]), np.array([0]))
    assert (nothing.minor, nothing.refunds) == (0.0, 0)
    assert math.isnan(nothing.interval.low)


def frame(abuse: list[float], amount: list[float]) -> Frame:
    n = len(abuse)
    return Frame(np.arange(n), np.zeros(n, np.int64), np.array(amount), np.array(abuse),
                 np.array(["PAID"] * n, object), np.ones(n))  # fmt: skip


def test_what_is_saved_by_hand() -> None:
    hits = frame([1.0, 0.0, 1.0, 0.0, np.nan], [1000.0, 2000.0, 5000.0, 700.0, 9.0])
    before = np.array([ALLOWED, ALLOWED, REVIEWED, REVIEWED, ALLOWED])
    after = np.full(5, PREVENTED)
    saved = saved_total(hits, before, after, COSTS)
    # 1,000 and the fee; minus 1.5 times 2,000; a review; a review less 1.5 times 700.
    assert saved.minor == 1500 - 3000 + 400 + (400 - 1050)
    assert saved.refunds == 4


def test_labels_of_one_kind_leave_the_doubt_that_their_share_leaves() -> None:
    three = frame([1.0] * 3, [1000.0] * 3)
    saved = saved_total(three, np.full(3, ALLOWED), np.full(3, PREVENTED), COSTS)
    low = wilson(1.0, 3).low
    assert saved.minor == 4500
    assert saved.interval.low == pytest.approx(low * 4500 - (1 - low) * 4500)
    assert saved.interval.low < 0 < saved.interval.high
    mixed = saved_total(frame([1.0, 0.0], [9.0, 9.0]), np.full(2, ALLOWED), np.full(2, REVIEWED),
                        COSTS)  # fmt: skip
    assert isinstance(mixed.interval, Interval)
    assert mixed.minor == 9 + 500 - 400 - 400


def test_what_does_not_change_is_not_counted() -> None:
    same = np.full(2, REVIEWED)
    assert saved_total(frame([1.0, 0.0], [9.0, 9.0]), same, same, COSTS).refunds == 0
