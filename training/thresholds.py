"""Where the bands lie: thresholds that make a decision cost as little as it can be expected to.

Per refund of probability p and amount A, in minor units of the base currency:

- paying costs ``p (A + fee)``, the expected loss the policy's bands speak of;
- preventing costs ``(1 - p) multiple A``, the harm to an honest customer;
- a review costs a fixed sum and is taken to find the truth; a day has room for so many.

A refund is reviewed from some expected loss on, and prevented from some probability on. Both
thresholds are searched together for the least total; a desk that is too small for what would pay
off raises the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

import rules
from rules.document import Costs

FloatArray = NDArray[np.float64]

_PREVENT_AT: Final = (*np.round(np.arange(0.5, 1.0, 0.02), 2).tolist(), 0.99, None)
_REVIEW_STEPS: Final = np.geomspace(1, 100, 41)
"""Review thresholds tried, as multiples of the cost of a review."""


@dataclass(frozen=True)
class Bands:
    """Two thresholds; ``prevent_probability`` is None where preventing never pays."""

    review_loss_minor: float
    prevent_probability: float | None

    def to_policy(self) -> list[dict[str, Any]]:
        """The ``bands`` of a policy document.

        >>> Bands(400.0, 0.9).to_policy()[1]
        {'action': 'PREVENT', 'probability_at_least': 0.9}
        """
        review = {"action": "MANUAL_REVIEW", "expected_loss_minor_at_least": self.review_loss_minor}
        if self.prevent_probability is None:
            return [review]
        return [review, {"action": "PREVENT", "probability_at_least": self.prevent_probability}]


@dataclass(frozen=True)
class Outcome:
    """What bands lead to on a set of refunds; costs in minor units per refund."""

    bands: Bands
    cost_minor: float
    reviews_per_day: float
    prevented_share: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, the bands as a policy writes them."""
        return {
            "bands": self.bands.to_policy(),
            "cost_minor": self.cost_minor,
            "reviews_per_day": self.reviews_per_day,
            "prevented_share": self.prevented_share,
        }


def default_costs() -> Costs:
    """The costs of the policy that Recourse starts with."""
    path = Path(rules.__file__).parent / "policies" / "default.yaml"
    return Costs(**yaml.safe_load(path.read_text(encoding="utf-8"))["costs"])


def outcome(
    bands: Bands,
    probability: FloatArray,
    abuse: FloatArray,
    amount_minor: FloatArray,
    days: float,
    costs: Costs,
) -> Outcome:
    """What bands cost on refunds (n,) of which ``abuse`` (n,) is the truth, or its probability.

    ``amount_minor`` is what would be paid, in the base currency; refunds for which it is unknown
    have no expected loss and are left out. ``days`` is the time that the refunds span.

    >>> costs = Costs(fee_minor=0, review_minor=100, prevented_honest_multiple=2.0)
    >>> refunds = np.array([0.1, 0.5, 0.95]), np.array([0.0, 0.0, 1.0]), np.full(3, 1000.0)
    >>> outcome(Bands(400, 0.9), *refunds, days=1, costs=costs).cost_minor * 3
    100.0
    """  # fmt: skip
    known = ~np.isnan(amount_minor)
    probability, abuse, amount_minor = probability[known], abuse[known], amount_minor[known]
    loss = probability * (amount_minor + costs.fee_minor)
    cut = np.inf if bands.prevent_probability is None else bands.prevent_probability
    prevented = probability >= cut
    reviewed = ~prevented & (loss >= bands.review_loss_minor)
    cost = np.where(
        prevented,
        (1 - abuse) * costs.prevented_honest_multiple * amount_minor,
        np.where(reviewed, costs.review_minor, abuse * (amount_minor + costs.fee_minor)),
    )
    return Outcome(
        bands, float(cost.mean()), float(reviewed.sum() / days), float(prevented.mean())
    )  # fmt: skip


def choose_bands(
    probability: FloatArray,
    amount_minor: FloatArray,
    *,
    days: float,
    costs: Costs,
    reviews_per_day: float,
) -> tuple[Bands, list[Outcome]]:
    """The bands of least expected cost within the review capacity, and the curve they lie on.

    The curve holds the best outcome for each review threshold tried, capacity or not.
    """  # fmt: skip
    least = max(costs.review_minor, 1.0)
    curve = []
    for review_loss in np.round(least * _REVIEW_STEPS).tolist():
        tried = [
            outcome(Bands(review_loss, cut), probability, probability, amount_minor, days, costs)
            for cut in _PREVENT_AT
        ]
        within = [o for o in tried if o.reviews_per_day <= reviews_per_day]
        curve.append(min(within or tried, key=lambda o: o.cost_minor))
    affordable = [o for o in curve if o.reviews_per_day <= reviews_per_day]
    best = min(affordable, key=lambda o: o.cost_minor) if affordable else curve[-1]
    return best.bands, curve
