"""Bands: they cost what the formulas say, no grid point is cheaper, and a small desk binds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.document import Band, Costs
from training.thresholds import Bands, choose_bands, default_costs, outcome

COSTS = Costs(fee_minor=500, review_minor=400, prevented_honest_multiple=1.5)


def test_each_action_costs_what_it_says() -> None:
    def cost(abuse: float, bands: Bands) -> float:
        return outcome(bands, np.array([0.6]), np.array([abuse]), np.array([1000.0]), 1, COSTS
                       ).cost_minor  # fmt: skip

    pay, review, prevent = Bands(1e9, None), Bands(1, None), Bands(1, 0.5)
    assert (cost(1, pay), cost(0, pay)) == (1500, 0)
    assert (cost(1, review), cost(0, review)) == (400, 400)
    assert (cost(1, prevent), cost(0, prevent)) == (0, 1500)


def test_an_unknown_amount_has_no_cost() -> None:
    refunds = np.array([0.9, 0.9]), np.array([1.0, 1.0]), np.array([1000.0, np.nan])
    assert outcome(Bands(1e9, None), *refunds, 1, COSTS).cost_minor == 1500


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 40))
def test_bands_keep_within_capacity_and_no_affordable_point_is_cheaper(
    seed: int, capacity: float
) -> None:
    draw = np.random.default_rng(seed)
    probability, amount = draw.beta(0.3, 3, 300), draw.lognormal(8, 1, 300)
    bands, curve = choose_bands(probability, amount, days=10, costs=COSTS, reviews_per_day=capacity)
    chosen = outcome(bands, probability, probability, amount, 10, COSTS)
    affordable = [point for point in curve if point.reviews_per_day <= capacity]
    if affordable:
        assert chosen.reviews_per_day <= capacity
        assert chosen.cost_minor == min(point.cost_minor for point in affordable)
    assert bands.review_loss_minor >= COSTS.review_minor


def test_a_larger_desk_never_costs_more() -> None:
    draw = np.random.default_rng(4)
    probability, amount = draw.beta(0.3, 3, 2000), draw.lognormal(8, 1, 2000)
    costs = []
    for capacity in (1, 5, 20, 100):
        bands, _ = choose_bands(probability, amount, days=20, costs=COSTS, reviews_per_day=capacity)
        costs.append(outcome(bands, probability, probability, amount, 20, COSTS).cost_minor)
    assert costs == sorted(costs, reverse=True)
    pay_all = outcome(Bands(np.inf, None), probability, probability, amount, 20, COSTS)
    assert costs[0] < pay_all.cost_minor


def test_bands_are_what_a_policy_reads() -> None:
    review, prevent = (Band.model_validate(b, strict=False) for b in Bands(1200.0, 0.9).to_policy())
    assert (review.expected_loss_minor_at_least, review.probability_at_least) == (1200, None)
    assert (prevent.expected_loss_minor_at_least, prevent.probability_at_least) == (None, 0.9)
    assert len(Bands(1200.0, None).to_policy()) == 1


def test_the_default_costs_are_the_default_policys() -> None:
    assert default_costs() == COSTS


def test_preventing_never_pays_where_honest_customers_are_dear() -> None:
    dear = Costs(fee_minor=0, review_minor=1, prevented_honest_multiple=1e6)
    bands, _ = choose_bands(np.full(50, 0.5), np.full(50, 1000.0), days=1, costs=dear,
                            reviews_per_day=1000)  # fmt: skip
    assert bands.prevent_probability is None or bands.prevent_probability > 0.5
