"""What actions cost, refund by refund, in minor units of the base currency.

- paying an abuser costs the amount and a fee; paying an honest customer costs nothing;
- preventing an honest customer costs a stated multiple of the amount; an abuser, nothing;
- a review costs a fixed sum and is taken to find the truth.

`training.bands.outcome` sums up the same for bands; a test holds the two equal.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rules.decision import Action
from rules.document import Costs

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ALLOWED: Final = Action.ALLOW.severity
REVIEWED: Final = Action.MANUAL_REVIEW.severity
PREVENTED: Final = Action.PREVENT.severity
"""Actions in arrays are their severities: the most severe is the greatest."""


def cost_of(
    action: NDArray[np.integer[Any]], abuse: FloatArray, amount_minor: FloatArray, costs: Costs
) -> FloatArray:
    """What each action (n,), a severity, costs given the truth; NaN where the amount is unknown.

    >>> costs = Costs(fee_minor=500, review_minor=400, prevented_honest_multiple=1.5)
    >>> action = np.array([ALLOWED, REVIEWED, PREVENTED])
    >>> cost_of(action, np.ones(3), np.full(3, 1000.0), costs).tolist()
    [1500.0, 400.0, 0.0]
    >>> cost_of(action, np.zeros(3), np.full(3, 1000.0), costs).tolist()
    [0.0, 400.0, 1500.0]
    """
    paid = abuse * (amount_minor + costs.fee_minor)
    prevented = (1 - abuse) * costs.prevented_honest_multiple * amount_minor
    reviewed = np.where(np.isnan(amount_minor), np.nan, costs.review_minor)
    return np.select([action == PREVENTED, action == REVIEWED], [prevented, reviewed], paid)


def mean_cost(cost_minor: FloatArray, weight: FloatArray) -> float:
    """The weighted mean of costs (n,) over the refunds whose amount is known; NaN over none.

    >>> mean_cost(np.array([100.0, np.nan, 300.0]), np.array([1.0, 1.0, 3.0]))
    250.0
    """
    known = ~np.isnan(cost_minor)
    total = float(weight[known].sum())
    return float(cost_minor[known] @ weight[known]) / total if total > 0 else float("nan")
