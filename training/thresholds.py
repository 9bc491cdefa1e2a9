"""Where the bands lie: thresholds that make a decision cost as little as it can be expected to.

Per refund of probability p and amount A, in minor units of the base currency:

- paying costs ``p (A + fee)``, the expected loss the policy's bands speak of;
- preventing costs ``(1 - p) multiple A``, the harm to an honest customer;
- a review costs a fixed sum, is taken to find the truth, and a day has room for so many.

What that makes of the bands. Between paying and reviewing only the expected loss decides: a review
pays off from its own cost on, and from more where the desk is too small for all of those. So one
threshold on the expected loss is exact. Between preventing and the milder of the two, preventing
gains, for a given p, on small refunds if on any: a lower bound on the expected loss would keep out
just those. So the best that bands can do is **one threshold on each**: review from an expected loss
on, prevent from a probability on. Both are searched together. What bands cannot say is "prevent
the small ones and review the large": the regret tells what that costs beside the best action for
each refund.

A desk that finds only a share q of the abuse it looks at should review where one does whose reviews
cost 1/q as much; so that is left to the policy's ``review_minor``, and is no figure of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rules.document import Costs
from training.bands import (
    ROOM,
    Bands,
    FloatArray,
    IntArray,
    Outcome,
    default_costs,
    outcome,
    weights_of,
)

__all__ = [
    "Bands",
    "CurvePoint",
    "Outcome",
    "Placement",
    "Staffing",
    "default_costs",
    "outcome",
    "place_bands",
]

REVIEWS_PER_REVIEWER_PER_DAY: Final = 60.0
"""What one person reviews on a day where nobody said: eight minutes each."""

_PREVENT_AT: Final = np.unique(
    np.round(np.append(np.arange(0.005, 1.0, 0.005), np.arange(0.9, 1.0, 0.001)), 3)
)
"""Probabilities tried, finer where a refusal becomes sure."""

_CURVE_POINTS: Final = 25


@dataclass(frozen=True)
class CurvePoint:
    """The best bands for a desk, their expected outcome, and how far that is from the best at all.

    ``optimum_minor_per_1000`` is the expected cost when each refund gets the action that is best
    for it, within the same capacity: no bands cost less.
    """

    reviews_per_day_at_most: float
    outcome: Outcome
    optimum_minor_per_1000: float

    @property
    def regret_minor_per_1000(self) -> float:
        """What it costs that bands are no finer, for 1,000 refunds."""
        return self.outcome.cost_minor_per_1000 - self.optimum_minor_per_1000

    def to_json(self) -> dict[str, Any]:
        """Plain values; a desk without end has None for its capacity."""
        most = self.reviews_per_day_at_most
        return {
            "reviews_per_day_at_most": most if math.isfinite(most) else None,
            "optimum_minor_per_1000": self.optimum_minor_per_1000,
            "regret_minor_per_1000": self.regret_minor_per_1000,
            **self.outcome.to_json(),
        }


@dataclass(frozen=True)
class Staffing:
    """Another size of the desk, with bands chosen anew for it.

    ``saved_minor_per_day`` is what a day then costs less, negative where it costs more. The cost of
    the further reviews, ``reviews_minor_per_day``, is taken off already; a salary that
    ``costs.review_minor`` does not cover is not.
    """

    point: CurvePoint
    saved_minor_per_day: float
    reviews_minor_per_day: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "saved_minor_per_day": self.saved_minor_per_day,
            "reviews_minor_per_day": self.reviews_minor_per_day,
            **self.point.to_json(),
        }


@dataclass(frozen=True)
class Placement:
    """The bands chosen, the cost curve that they lie on, and what one reviewer is worth.

    The curve runs from no desk to one that has room for all that pays off.
    """

    chosen: CurvePoint
    curve: tuple[CurvePoint, ...]
    one_more: Staffing
    one_fewer: Staffing
    reviews_per_reviewer_per_day: float

    @property
    def bands(self) -> Bands:
        """The bands of least expected cost within the capacity."""
        return self.chosen.outcome.bands

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "chosen": self.chosen.to_json(),
            "curve": [point.to_json() for point in self.curve],
            "one_more_reviewer": self.one_more.to_json(),
            "one_reviewer_fewer": self.one_fewer.to_json(),
            "reviews_per_reviewer_per_day": self.reviews_per_reviewer_per_day,
        }


def place_bands(
    probability: FloatArray,
    amount_minor: FloatArray,
    *,
    days: float,
    costs: Costs,
    reviews_per_day: float | None = None,
    weight: FloatArray | None = None,
    known_at: IntArray | None = None,
    reviews_per_reviewer_per_day: float = REVIEWS_PER_REVIEWER_PER_DAY,
) -> Placement:
    """Choose the bands of least expected cost for a desk, and for smaller and larger ones.

    Arguments:
        probability: calibrated, of refunds that the calibration may rest on but no tree saw, (n,).
        amount_minor: what would be paid, in the base currency, NaN where unknown, (n,).
        days: the time that the refunds span.
        costs: what mistakes and reviews cost.
        reviews_per_day: the desk's capacity, infinity for no bound; the one of ``costs`` if None.
        weight: for how many refunds each stands, (n,): one where not given.
        known_at: epoch milliseconds, (n,); with it the desk's days are counted.
        reviews_per_reviewer_per_day: what one reviewer more, or fewer, makes of the capacity.

    No label is read: costs are expected, from the probability. Refunds of unknown amount take
    their room at the desk, as if they were as large as the largest, and have no cost.

    Raises:
        ValueError: no capacity is given, no amount is known, or as in `outcome`.

    >>> costs = Costs(fee_minor=0, review_minor=100, prevented_honest_multiple=2.0)
    >>> placed = place_bands(np.array([0.02, 0.5, 0.5, 0.99]), np.array([1e3, 1e3, 2e3, 1e3]),
    ...                      days=1, costs=costs, reviews_per_day=1,
    ...                      reviews_per_reviewer_per_day=1)
    >>> placed.bands  # the larger of the two doubtful ones is reviewed, the sure one prevented
    Bands(review_loss_minor=501.0, prevent_probability=0.99, review_probability=0.25)
    >>> placed.one_more.saved_minor_per_day  # 500 not lost, for a review of 100
    400.0
    """
    room = costs.reviews_per_day if reviews_per_day is None else reviews_per_day
    if room is None:
        raise ValueError("reviews_per_day: expected a number, here or in the policy's costs")
    each = reviews_per_reviewer_per_day
    for name, value in (("reviews_per_day", room), ("reviews_per_reviewer_per_day", each)):
        if not value >= 0:
            raise ValueError(f"{name}: expected at least 0, got {value!r}")
    refunds = _Refunds.of(probability, amount_minor, weight, days, costs)
    fewer, more = max(0.0, room - each), room + each
    rooms = np.unique([*_curve_rooms(refunds), fewer, room, more])
    bands = _search(refunds, rooms)
    optima = _optima(refunds, rooms)
    at = {float(r): i for i, r in enumerate(rooms)}

    def point(at_most: float) -> CurvePoint:
        expected = outcome(
            bands[at[at_most]], probability, probability, amount_minor, days, costs,
            weight=weight, known_at=known_at, reviews_per_day=at_most,
        )  # fmt: skip
        return CurvePoint(at_most, expected, float(optima[at[at_most]]))

    enough = next(i for i, found in enumerate(bands) if found == bands[-1])
    drawn = {float(r) for r in rooms[: enough + 1]} | ({float(room)} - {math.inf})
    chosen = point(float(room))
    return Placement(
        chosen=chosen,
        curve=tuple(chosen if r == room else point(r) for r in sorted(drawn)),
        one_more=_staffing(chosen, point(float(more))),
        one_fewer=_staffing(chosen, point(float(fewer))),
        reviews_per_reviewer_per_day=each,
    )


def _staffing(chosen: CurvePoint, other: CurvePoint) -> Staffing:
    was, now = chosen.outcome, other.outcome
    return Staffing(
        other,
        saved_minor_per_day=was.cost_minor_per_day - now.cost_minor_per_day,
        reviews_minor_per_day=(now.reviews_minor_per_1000 - was.reviews_minor_per_1000)
        / 1000 * (now.refunds.count - now.amount_unknown) / now.days,
    )  # fmt: skip


@dataclass(frozen=True)
class _Refunds:
    """Refunds as the search sees them, costs in minor units, each for one refund.

    The expected loss of a refund of unknown amount is that of the largest amount seen, and a little
    more, since `_review_probability` rounds; its costs are 0.
    """

    probability: FloatArray
    loss: FloatArray
    pay: FloatArray
    prevent: FloatArray
    weight: FloatArray
    known: NDArray[np.bool_]
    days: float
    review_minor: float
    largest: float

    @classmethod
    def of(
        cls,
        probability: FloatArray,
        amount_minor: FloatArray,
        weight: FloatArray | None,
        days: float,
        costs: Costs,
    ) -> _Refunds:
        w = weights_of(probability, amount_minor, weight=weight, days=days)
        known = ~np.isnan(amount_minor) & (w > 0)
        if not known.any():
            raise ValueError("amount_minor: expected at least one amount that is known")
        largest = float(amount_minor[known].max()) + costs.fee_minor
        loss = probability * (amount_minor + costs.fee_minor)
        return cls(
            probability=probability,
            loss=np.where(known, loss, 1.01 * probability * largest),
            pay=np.where(known, loss, 0.0),
            prevent=np.where(
                known, (1 - probability) * costs.prevented_honest_multiple * amount_minor, 0.0
            ),
            weight=w,
            known=known,
            days=days,
            review_minor=costs.review_minor,
            largest=largest,
        )


def _least_loss(refunds: _Refunds) -> int:
    """The lowest review threshold that pays off, in whole minor units."""
    return max(1, math.ceil(refunds.review_minor))


def _curve_rooms(refunds: _Refunds) -> FloatArray:
    """Capacities from none to one with room for every review that pays off, denser at the start."""
    worth = refunds.loss >= _least_loss(refunds)
    most = float(refunds.weight[worth].sum()) / refunds.days
    rooms = most * np.linspace(0, 1, _CURVE_POINTS) ** 2
    return np.unique(np.append(np.round(rooms[:-1], 1 if most > 10 else 6), most))


def _search(refunds: _Refunds, rooms: FloatArray) -> list[Bands]:
    """The best bands for each capacity.

    For every probability that might prevent: whom it leaves is reviewed from the largest expected
    loss down, as long as that pays off and there is room. Running sums over the refunds, sorted
    once, tell the best review threshold for all capacities in one pass.
    """
    least = _least_loss(refunds)
    worth = np.flatnonzero(refunds.loss >= least)
    worth = worth[np.argsort(-refunds.loss[worth], kind="stable")]
    loss, probability = refunds.loss[worth], refunds.probability[worth]
    weight = refunds.weight[worth]
    gain = weight * np.where(refunds.known[worth], loss - refunds.review_minor, 0.0)
    within = rooms * refunds.days * (1 + ROOM)
    best = np.full(len(rooms), math.inf)
    found = [Bands(math.inf, None)] * len(rooms)
    for cut, base in _preventing(refunds):
        milder = slice(None) if cut is None else probability < cut
        falling = -loss[milder]
        reviews = np.append(0.0, np.cumsum(weight[milder]))
        gains = np.append(0.0, np.cumsum(gain[milder]))
        fits = np.searchsorted(reviews, within, side="right") - 1  # so many refunds fit
        next_loss = np.append(-falling, -math.inf)[fits]
        from_loss = np.maximum(least, np.floor(next_loss) + 1)  # in whole minor units
        cost = base - gains[np.searchsorted(falling, -from_loss, side="right")]
        for i in np.flatnonzero(cost < best):
            review = float(from_loss[i])
            if not np.searchsorted(falling, -review, side="right"):
                review = math.inf  # nobody is left to review
            found[i] = Bands(review, cut, _review_probability(review, refunds.largest))
        best = np.minimum(best, cost)
    return found


def _preventing(refunds: _Refunds) -> list[tuple[float | None, float]]:
    """The probabilities to prevent from, none first, and the cost with all others paid."""
    order = np.argsort(-refunds.probability, kind="stable")
    differ = (refunds.weight * (refunds.prevent - refunds.pay))[order]
    costs = float(refunds.weight @ refunds.pay) + np.append(0.0, np.cumsum(differ))
    falling = -refunds.probability[order]
    counts = np.searchsorted(falling, -_PREVENT_AT, side="right")
    highest = {int(n): float(cut) for n, cut in zip(counts, _PREVENT_AT, strict=True) if n}
    cuts = sorted(highest.items())  # fewest first: of equal costs the first is kept
    return [(None, float(costs[0])), *((cut, float(costs[n])) for n, cut in cuts)]


def _review_probability(review_loss: float, largest: float) -> float:
    """Below this not even the largest amount reaches the loss: rounded down to three digits.

    >>> _review_probability(501.0, 2000.0), _review_probability(math.inf, 2000.0)
    (0.25, 0.0)
    """
    share = review_loss / largest if largest else 0.0
    if not 0 < share < math.inf:
        return 0.0
    digits = 2 - math.floor(math.log10(share))
    scale = 10.0**digits
    return min(1.0, round(math.floor(share * scale) / scale, digits))


def _optima(refunds: _Refunds, rooms: FloatArray) -> FloatArray:
    """The cost per 1,000 when each refund gets its best action, within each capacity.

    What a review gains over the better of the other two decides who is reviewed; as one takes one
    place, the most gainful first is the optimum. A last place may be filled in part.
    """
    known = refunds.known
    weight = refunds.weight[known]
    otherwise = np.minimum(refunds.pay, refunds.prevent)[known]
    gain = np.maximum(otherwise - refunds.review_minor, 0.0)
    order = np.argsort(-gain, kind="stable")
    reviews = np.append(0.0, np.cumsum(weight[order]))
    gains = np.append(0.0, np.cumsum((weight * gain)[order]))
    least = float(weight @ otherwise) - np.interp(rooms * refunds.days, reviews, gains)
    return np.asarray(least / weight.sum() * 1000)
