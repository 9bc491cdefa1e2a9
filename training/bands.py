"""Bands, and what they lead to: how many refunds are paid, held and prevented, and what that costs.

Per refund of amount A, in minor units of the base currency: paying an abuser costs A and the fee,
preventing an honest customer costs a multiple of A, a review costs a fixed sum and is taken to find
the truth.

Bands speak where no rule, list or analyst does. All here is of bands alone: a refund that a rule
holds or prevents is counted as its bands would have it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

import rules
from features.money import DAY_MS
from rules.decision import Action
from rules.document import Band, Costs

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROOM: Final = 1e-9
"""Sums of weights may pass a capacity by this share: they are no whole numbers."""


@dataclass(frozen=True)
class Bands:
    """Review from an expected loss on (infinity: never), prevent from a probability on (or never).

    ``review_probability`` matters to a refund whose amount is unknown, and so its expected loss:
    below it the largest amount seen would not reach the review threshold either.
    """

    review_loss_minor: float
    prevent_probability: float | None
    review_probability: float = 0.0

    @classmethod
    def of(cls, policy: Sequence[Band]) -> Bands:
        """The thresholds of bands that are no more than these.

        Raises:
            ValueError: they are more, such as two bands for one action.

        >>> Bands.of(Bands(400.0, 0.9).written())
        Bands(review_loss_minor=400.0, prevent_probability=0.9, review_probability=0.0)
        """
        review = [band for band in policy if band.action is Action.MANUAL_REVIEW]
        prevent = [band for band in policy if band.action is Action.PREVENT]
        losses = [band.expected_loss_minor_at_least for band in review]
        if (
            max(len(review), len(prevent)) > 1
            or None in losses
            or any(band.expected_loss_minor_at_least is not None for band in prevent)
        ):
            raise ValueError(
                "bands: expected at most one that reviews, with an expected loss, and one that "
                f"prevents, with a probability alone; got {_as_policy(policy)}"
            )
        return cls(
            losses[0] if losses and losses[0] is not None else math.inf,
            prevent[0].probability_at_least if prevent else None,
            (review[0].probability_at_least or 0.0) if review else 0.0,
        )

    def written(self) -> tuple[Band, ...]:
        """The bands as a policy holds them: from mild to severe, none that could never decide."""
        bands = []
        never = self.prevent_probability is not None and (
            self.prevent_probability <= self.review_probability
        )
        if math.isfinite(self.review_loss_minor) and not never:
            bands.append(
                Band(
                    action=Action.MANUAL_REVIEW,
                    probability_at_least=self.review_probability or None,
                    expected_loss_minor_at_least=self.review_loss_minor,
                )
            )
        if self.prevent_probability is not None:
            bands.append(Band(action=Action.PREVENT, probability_at_least=self.prevent_probability))
        return tuple(bands)

    def to_policy(self) -> list[dict[str, Any]]:
        """The ``bands`` of a policy document.

        >>> Bands(400.0, 0.9).to_policy()[1]
        {'action': 'PREVENT', 'probability_at_least': 0.9}
        """
        return _as_policy(self.written())


def _as_policy(bands: Sequence[Band]) -> list[dict[str, Any]]:
    return [band.model_dump(mode="json", exclude_none=True) for band in bands]


def actions(
    bands: Sequence[Band], probability: FloatArray, expected_loss_minor: FloatArray
) -> NDArray[np.int8]:
    """The severity (n,) of the action that bands call for: `rules.engine.band_action` on arrays.

    A NaN loss is unknown, and where it decides the band calls for review, as there.

    >>> bands = Bands(400.0, 0.9).written()
    >>> actions(bands, np.array([0.1, 0.1, 0.1, 0.9]), np.array([399, 400, np.nan, 9])).tolist()
    [0, 2, 2, 3]
    """
    reached = np.zeros(len(probability), np.int8)
    held = np.int8(Action.MANUAL_REVIEW.severity)
    for band in bands:
        severity = np.int8(band.action.severity)
        calls = np.where(probability >= (band.probability_at_least or 0), severity, np.int8(0))
        least = band.expected_loss_minor_at_least
        if least is not None:
            calls[expected_loss_minor < least] = 0
            calls[np.isnan(expected_loss_minor) & (calls > 0)] = held
        np.maximum(reached, calls, out=reached)
    return reached


def default_policy_path() -> Path:
    """Where the policy lies that Recourse starts with."""
    return Path(rules.__file__).parent / "policies" / "default.yaml"


def default_costs() -> Costs:
    """The costs of the policy that Recourse starts with."""
    text = default_policy_path().read_text(encoding="utf-8")
    return Costs(**yaml.safe_load(text)["costs"])


# --- what bands lead to ------------------------------------------------------------------------


@dataclass(frozen=True)
class Weighed:
    """Refunds and the sum of what they would be paid in minor units, both by weight.

    Those whose amount in the base currency is unknown are counted and add no money.
    """

    count: float
    payable_minor: float


@dataclass(frozen=True)
class DeskLoad:
    """The review desk from day to day (UTC): bands keep to its capacity on the mean day only.

    ``largest_backlog`` is how many reviews wait at the end of the worst day, when each day's
    surplus is left to the next.
    """

    reviews_per_day_at_most: float
    days: int
    days_over: int
    busiest_day: float
    largest_backlog: float


@dataclass(frozen=True)
class Outcome:
    """What bands, ``policy``, lead to on a set of refunds that span ``days``.

    The words are those of `rules.backtest.Ledger`: paid, held for review, prevented, and of them
    what was abuse and what was honest. Costs are in minor units of the base currency, over the
    refunds whose amount is known; counts and reviews are of all refunds. ``desk`` is None where the
    times or the capacity are not given, or the capacity is without end.
    """

    policy: tuple[Band, ...]
    days: float
    refunds: Weighed
    amount_unknown: float
    amount_unknown_held: float
    paid: Weighed
    held: Weighed
    prevented: Weighed
    abuse_paid: Weighed
    abuse_held: Weighed
    abuse_prevented: Weighed
    honest_prevented: Weighed
    abuse_paid_minor_per_1000: float
    honest_prevented_minor_per_1000: float
    reviews_minor_per_1000: float
    desk: DeskLoad | None = None

    @property
    def bands(self) -> Bands:
        """The two thresholds; ValueError where ``policy`` is more than these."""
        return Bands.of(self.policy)

    @property
    def cost_minor_per_1000(self) -> float:
        """The whole cost of 1,000 refunds."""
        return (
            self.abuse_paid_minor_per_1000
            + self.honest_prevented_minor_per_1000
            + self.reviews_minor_per_1000
        )

    @property
    def cost_minor(self) -> float:
        """The whole cost of a refund."""
        return self.cost_minor_per_1000 / 1000

    @property
    def cost_minor_per_day(self) -> float:
        """The whole cost of a day."""
        return self.cost_minor * (self.refunds.count - self.amount_unknown) / self.days

    @property
    def reviews_per_day(self) -> float:
        """Reviews on the mean day."""
        return self.held.count / self.days

    @property
    def prevented_share(self) -> float:
        """The share of refunds that are prevented."""
        return self.prevented.count / self.refunds.count

    def to_json(self) -> dict[str, Any]:
        """Plain values, the bands as a policy writes them."""
        document = asdict(self)
        document.pop("policy")
        return {
            "bands": _as_policy(self.policy),
            "cost_minor": self.cost_minor,
            "cost_minor_per_1000": self.cost_minor_per_1000,
            "reviews_per_day": self.reviews_per_day,
            "prevented_share": self.prevented_share,
            **document,
        }


def outcome(
    bands: Bands | Sequence[Band],
    probability: FloatArray,
    abuse: FloatArray,
    amount_minor: FloatArray,
    days: float,
    costs: Costs,
    *,
    weight: FloatArray | None = None,
    known_at: IntArray | None = None,
    reviews_per_day: float | None = None,
) -> Outcome:
    """What bands alone lead to on refunds (n,) of which ``abuse`` (n,) is the truth, or how likely.

    Arguments:
        bands: the two thresholds, or the bands of any policy.
        probability: calibrated, (n,).
        abuse: 1 or 0, or a probability, (n,).
        amount_minor: what would be paid, in the base currency, NaN where unknown, (n,).
        days: the time that the refunds span.
        costs: what mistakes and reviews cost.
        weight: for how many refunds each stands, (n,): one where not given.
        known_at: epoch milliseconds, (n,); with it the desk's days are counted.
        reviews_per_day: the desk's capacity; the one of ``costs`` where not given.

    Raises:
        ValueError: the columns differ in length, there are no days, or no weight.

    >>> costs = Costs(fee_minor=0, review_minor=100, prevented_honest_multiple=2.0)
    >>> refunds = np.array([0.1, 0.5, 0.95]), np.array([0.0, 0.0, 1.0]), np.full(3, 1000.0)
    >>> outcome(Bands(400, 0.9), *refunds, days=1, costs=costs).cost_minor * 3
    100.0
    """
    w = weights_of(probability, abuse, amount_minor, weight=weight, days=days)
    policy = bands.written() if isinstance(bands, Bands) else tuple(bands)
    known = ~np.isnan(amount_minor)
    payable = np.where(known, amount_minor, 0.0)
    loss = probability * (amount_minor + costs.fee_minor)
    severity = actions(policy, probability, loss)
    paid, held, prevented = (
        severity == action.severity
        for action in (Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT)
    )
    thousands = float(w[known].sum()) / 1000 or math.nan  # no known amount: no known cost

    def weighed(share: ArrayLike) -> Weighed:
        count = w * np.asarray(share, np.float64)
        return Weighed(float(count.sum()), float((count * payable).sum()))

    abuse_paid = weighed(paid * abuse)
    paid_unknown = float((w * paid * abuse)[~known].sum())
    honest_prevented = weighed(prevented * (1 - abuse))
    room = costs.reviews_per_day if reviews_per_day is None else reviews_per_day
    return Outcome(
        policy=policy,
        days=float(days),
        refunds=weighed(np.ones(len(w))),
        amount_unknown=float(w[~known].sum()),
        amount_unknown_held=float(w[held & ~known].sum()),
        paid=weighed(paid),
        held=weighed(held),
        prevented=weighed(prevented),
        abuse_paid=abuse_paid,
        abuse_held=weighed(held * abuse),
        abuse_prevented=weighed(prevented * abuse),
        honest_prevented=honest_prevented,
        abuse_paid_minor_per_1000=(
            abuse_paid.payable_minor + costs.fee_minor * (abuse_paid.count - paid_unknown)
        ) / thousands,
        honest_prevented_minor_per_1000=(
            costs.prevented_honest_multiple * honest_prevented.payable_minor / thousands
        ),
        reviews_minor_per_1000=costs.review_minor * float(w[held & known].sum()) / thousands,
        desk=_desk_load(known_at, w * held, room),
    )  # fmt: skip


def weights_of(*columns: FloatArray, weight: FloatArray | None, days: float) -> FloatArray:
    """The weights (n,), ones where not given, once everything given is sound.

    Raises:
        ValueError: as `outcome` says; the first column is taken for the probability.
    """
    n = len(columns[0])
    w = np.ones(n) if weight is None else np.asarray(weight, np.float64)
    lengths = [len(column) for column in (*columns, w)]
    if len(set(lengths)) > 1:
        raise ValueError(f"columns: expected one length for all, got {lengths}")
    if not days > 0:
        raise ValueError(f"days: expected more than 0, got {days!r}")
    if np.isnan(columns[0]).any():
        raise ValueError("probability: expected numbers in [0, 1], got NaN")
    if not ((w >= 0).all() and np.isfinite(w).all() and w.any()):
        raise ValueError("weight: expected finite numbers of at least 0, and some above")
    return w


def _desk_load(
    known_at: IntArray | None, reviews: FloatArray, room: float | None
) -> DeskLoad | None:
    if known_at is None or room is None or math.isinf(room):
        return None
    day = known_at // DAY_MS
    per_day = np.bincount(day - day.min(), weights=reviews)
    backlog = worst = 0.0
    for arrived in per_day.tolist():
        backlog = max(0.0, backlog + arrived - room)
        worst = max(worst, backlog)
    over = int((per_day > room * (1 + ROOM)).sum())
    return DeskLoad(float(room), len(per_day), over, float(per_day.max()), worst)
