"""Cost by refund: sums to what the thresholds reckon with, and says what it cannot know."""

import numpy as np
import pytest

from rules.document import Costs
from training.bands import Bands, actions, outcome
from training.costs import cost_of, mean_cost


def test_the_mean_is_the_outcome_of_the_same_bands() -> None:
    draw = np.random.default_rng(0)
    probability = draw.random(500)
    abuse = (draw.random(500) < probability).astype(float)
    amount = np.where(draw.random(500) < 0.1, np.nan, draw.integers(100, 50_000, 500))
    weight = draw.random(500)
    costs = Costs(fee_minor=500, review_minor=400, prevented_honest_multiple=1.5)
    for bands in (Bands(3000, 0.8), Bands(np.inf, None), Bands(100, 0.5)):
        action = actions(bands.written(), probability, probability * (amount + costs.fee_minor))
        ours = mean_cost(cost_of(action, abuse, amount, costs), weight)
        theirs = outcome(bands, probability, abuse, amount, 1.0, costs, weight=weight)
        assert ours == pytest.approx(theirs.cost_minor), bands


def test_nothing_known_costs_nobody_knows() -> None:
    cost = cost_of(np.array([0, 2, 3]), np.ones(3), np.full(3, np.nan), Costs(review_minor=1))
    assert np.isnan(cost).all()
    assert np.isnan(mean_cost(cost, np.ones(3)))
