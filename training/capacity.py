"""What a review desk with room for so many a day finds: precision, recall, and their ceilings.

Two desks. One opens the riskiest *refunds* of each day (UTC), as the queue does. The other is the
yardstick of the Fraud Detection Handbook, card precision at k: it opens the k riskiest *customers*
of each day, and who was caught is left out from then on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array  # type: ignore[import-untyped]
from scipy.sparse.csgraph import maximum_flow  # type: ignore[import-untyped]

from features.kernels import compiled
from features.money import DAY_MS

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

REVIEW_SHARE: Final = 0.05
"""The review capacity that figures are stated for: a day's reviews as a share of its refunds."""


@dataclass(frozen=True)
class Desk:
    """How many refunds are reviewed a day, and of how many customers card precision speaks.

    ``reviews_per_day`` is by default ``share`` of the mean daily refunds, ``cards_per_day`` the
    reviews of a day; both at least 1.
    """

    reviews_per_day: float | None = None
    share: float = REVIEW_SHARE
    cards_per_day: int | None = None

    def capacity(self, known_at: IntArray) -> tuple[int, int]:
        """Refunds and customers a day, for refunds known at these instants (epoch ms).

        >>> Desk().capacity(np.arange(100) * DAY_MS // 50)
        (2, 2)
        >>> Desk(reviews_per_day=7, cards_per_day=100).capacity(np.zeros(1, np.int64))
        (7, 100)
        """
        days = len(np.unique(known_at // DAY_MS))
        asked = self.reviews_per_day
        k = max(1, round(self.share * len(known_at) / days if asked is None else asked))
        return k, k if self.cards_per_day is None else self.cards_per_day


class RefundDesk:
    """The ``k`` riskiest refunds of each day, the earlier row first among equals.

    Of a refund that weighs more than the room left, that share is opened. ``precision`` is the
    share of abuse among what is opened, ``recall`` the share opened of all abuse; a perfect
    score reaches the ceilings.

    >>> desk = RefundDesk(np.array([0.9, 0.2, 0.8]), np.array([0.0, 1.0, 1.0]), np.zeros(3), 2)
    >>> desk.figures()["precision_at_capacity"], desk.figures()["recall_at_capacity_ceiling"]
    (0.5, 1.0)
    """

    def __init__(self, score: FloatArray, abuse: FloatArray, known_at: IntArray, k: int) -> None:
        day = (known_at // DAY_MS).astype(np.int64)
        self._order = np.lexsort((-score, day))
        self._abuse = abuse[self._order] == 1
        self._ends = np.append(np.flatnonzero(np.diff(day[self._order])) + 1, len(day)).astype(
            np.int64
        )
        self.k = k

    def figures(self, weight: FloatArray | None = None) -> dict[str, float]:
        """Precision and recall at capacity, each with its ceiling; NaN over nothing."""
        weight = np.ones(len(self._order)) if weight is None else weight
        hits, opened, possible, abuse = _open_refunds(
            self._order, self._ends, self._abuse, weight, float(self.k)
        ).tolist()
        return {
            "precision_at_capacity": _ratio(hits, opened),
            "precision_at_capacity_ceiling": _ratio(possible, opened),
            "recall_at_capacity": _ratio(hits, abuse),
            "recall_at_capacity_ceiling": _ratio(possible, abuse),
        }


class CardDesk:
    """Card precision at k: the ``k`` riskiest customers of each day, those caught before left out.

    A customer is as risky as the day's riskiest refund, abusive if any refund of the day is, and
    weighs what its riskiest refund does; among equals the lower code comes first. The figure is
    the mean over days of abusive customers opened, divided by k (Le Borgne et al., Reproducible
    Machine Learning for Credit Card Fraud Detection, 2022, section 4.4).

    >>> score, abuse = np.array([0.9, 0.5, 0.8, 0.1]), np.array([1.0, 0.0, 1.0, 1.0])
    >>> day, customer = np.array([0, 0, 1, 1]), np.array([1, 2, 1, 3])
    >>> desk = CardDesk(score, abuse, day * DAY_MS, customer, k=1)
    >>> desk.precision(), desk.ceiling()  # day 1: customer 1 is caught already, so 3 is opened
    (1.0, 1.0)
    """

    def __init__(
        self, score: FloatArray, abuse: FloatArray, known_at: IntArray, customer: IntArray, k: int
    ) -> None:
        _, day = np.unique(known_at // DAY_MS, return_inverse=True)
        _, who = np.unique(customer, return_inverse=True)
        self.k, self.days, self._customers = k, int(day.max()) + 1, int(who.max()) + 1
        # The riskiest refund of each customer and day stands for both.
        order = np.lexsort((-score, who, day))
        key = day[order] * self._customers + who[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        guilty = np.maximum.reduceat(abuse[order], first) == 1
        chosen = order[first]
        ranked = np.lexsort((who[chosen], -score[chosen], day[chosen]))
        self._row, self._guilty = chosen[ranked], guilty[ranked]
        self._day = day[self._row].astype(np.int64)
        self._who = who[self._row].astype(np.int64)

    def precision(self, weight: FloatArray | None = None) -> float:
        """The mean daily card precision."""
        weight = np.ones(int(self._row.max()) + 1) if weight is None else weight
        found = _open_cards(
            self._day, self._who, self._guilty, weight[self._row], self._customers, float(self.k)
        )
        return float(found / (self.k * self.days))

    def ceiling(self) -> float:
        """The most that any score could reach, each refund weighing 1.

        That is a maximal flow: a customer can be caught once, on a day of its abuse, and a day has
        room for k.
        """
        day, who = self._day[self._guilty], self._who[self._guilty]
        # Nodes: source, customers, days, sink.
        first_day, sink = 1 + self._customers, 1 + self._customers + self.days
        caught, days = np.unique(who), np.arange(self.days)
        parts = [
            (np.zeros_like(caught), 1 + caught, np.ones_like(caught)),
            (1 + who, first_day + day, np.ones_like(who)),
            (first_day + days, np.full(self.days, sink), np.full(self.days, self.k)),
        ]
        start, end, room = (np.concatenate(column) for column in zip(*parts, strict=True))
        graph = coo_array((room.astype(np.int32), (start, end)), shape=(sink + 1, sink + 1))
        flow = maximum_flow(csr_array(graph), 0, sink)
        return float(flow.flow_value / (self.k * self.days))


def card_precision(
    score: FloatArray,
    abuse: FloatArray,
    known_at: IntArray,
    customer: IntArray,
    k: int,
    weight: FloatArray | None = None,
) -> tuple[float, float]:
    """Card precision at ``k`` of a score (n,), and its ceiling; see `CardDesk`."""
    desk = CardDesk(score, abuse, known_at, customer, k)
    return desk.precision(weight), desk.ceiling()


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


@compiled
def _open_refunds(
    order: IntArray, ends: IntArray, abuse: NDArray[np.bool_], weight: FloatArray, k: float
) -> FloatArray:
    """Weights: of abuse opened, of all opened, of abuse that could be opened, of all abuse."""
    sums = np.zeros(4)
    start = 0
    for end in ends:
        room, today = k, 0.0
        for i in range(start, end):
            one = weight[order[i]]
            opened = min(one, room)
            room -= opened
            sums[1] += opened
            if abuse[i]:
                sums[0] += opened
                today += one
        sums[2] += min(k, today)
        sums[3] += today
        start = end
    return sums


@compiled
def _open_cards(
    day: IntArray, who: IntArray, guilty: NDArray[np.bool_], weight: FloatArray, customers: int,
    k: float,
) -> float:  # fmt: skip
    """The weight of abusive customers opened, over all days."""
    at_large = np.ones(customers)
    found, room, today = 0.0, k, -1
    for i in range(len(day)):
        if day[i] != today:
            today, room = day[i], k
        one = weight[i] * at_large[who[i]]
        opened = min(one, room)
        room -= opened
        if guilty[i] and opened > 0:
            found += opened
            at_large[who[i]] -= opened / weight[i]
    return found
