"""Shares and sums over refunds with 95 % intervals that count customers, for the policy reports.

**A share**, such as how many of a rule's hits are abuse: Wilson's interval (1927), which holds for
few cases and for shares of 0 and 1, where a bootstrap finds no doubt at all. It takes refunds for
independent, and those of one customer are not, so it is given the number of *customers* that would
say as much: the smaller of (sum w)^2 / sum w^2 over the customers' weights w (Kish 1965: as if the
refunds of a customer all agreed) and p (1 - p) / V, where V is the variance of the share between
customers (the linearised ratio, Cochran 1977, section 6.4; Korn and Graubard 1998 use it so).

**A sum**, such as what a rule would have saved: a bootstrap over customers, each of them drawn a
Poisson number of times. So how many customers there are is uncertain as well, which it is: a rule
does not hit the same number of customers next month. Few customers make such an interval too
narrow, so a report advises nothing below `LEAST_CUSTOMERS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import BOOTSTRAP_ROUNDS, Interval, interval, known

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LEAST_CUSTOMERS: Final = 30
"""Labelled refunds of fewer customers than these say too little to act upon."""

_Z: Final = 1.959963984540054
"""The standard normal's quantile of 0.975."""


@dataclass(frozen=True)
class Share:
    """A share of refunds, and how sure it is. ``effective`` customers would say as much."""

    value: float
    interval: Interval
    refunds: int
    customers: int
    effective: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {"value": known(self.value), "interval": self.interval.to_json(),
                "refunds": self.refunds, "customers": self.customers,
                "effective_customers": self.effective}  # fmt: skip


@dataclass(frozen=True)
class Money:
    """A sum in minor units of the base currency; the interval is that of another such period."""

    minor: float
    interval: Interval
    refunds: int
    """How many refunds it is over; those whose amount is unknown are not among them."""
    customers: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {"minor": known(self.minor), "interval": self.interval.to_json(),
                "refunds": self.refunds, "customers": self.customers}  # fmt: skip


def wilson(share: float, size: float) -> Interval:
    """Wilson's 95 % interval of a share seen in ``size`` independent cases, also no whole number.

    >>> wilson(0.5, 10), wilson(1.0, 10)  # 5 of 10; 10 of 10
    (Interval(low=0.2366, high=0.7634), Interval(low=0.7225, high=1.0))
    >>> wilson(0.5, 0)
    Interval(low=nan, high=nan)
    """
    if not size > 0:
        return Interval(math.nan, math.nan)
    shrunk = 1 + _Z**2 / size
    centre = (share + _Z**2 / (2 * size)) / shrunk
    half = _Z * math.sqrt(share * (1 - share) / size + _Z**2 / (4 * size**2)) / shrunk
    return Interval(round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4))


def share_of(which: FloatArray, customer: IntArray, weight: FloatArray | None = None) -> Share:
    """The share of refunds (n,) that are ``which`` (1 or 0), each weighing 1 if nothing is said.

    Refunds of weight 0 are for nothing; over none the share is NaN.

    >>> one_each = share_of(np.array([1.0, 1.0, 0.0, 0.0]), np.array([1, 2, 3, 4]))
    >>> two_by_two = share_of(np.array([1.0, 1.0, 0.0, 0.0]), np.array([1, 1, 2, 2]))
    >>> one_each.value == two_by_two.value, one_each.effective, two_by_two.effective
    (True, 4.0, 2.0)
    >>> two_by_two.interval  # two customers, one of them an abuser, tell next to nothing
    Interval(low=0.0945, high=0.9055)
    """
    own = np.ones(len(which)) if weight is None else weight
    used = own > 0
    which, customer, own = which[used], customer[used], own[used]
    if not len(which):
        return Share(math.nan, Interval(math.nan, math.nan), 0, 0, 0.0)
    _, who = np.unique(customer, return_inverse=True)
    weights = np.bincount(who, own)
    total = float(weights.sum())
    share = float(own @ which) / total
    effective = total**2 / float((weights**2).sum())
    residual = np.bincount(who, own * (which - share))
    variance = float((residual**2).sum()) / total**2
    if variance > 0:
        effective = min(effective, share * (1 - share) / variance)
    effective = max(effective, 1.0)
    return Share(share, wilson(share, effective), len(which), len(weights), round(effective, 6))


def total(value_minor: FloatArray, customer: IntArray, *, seed: int = 0) -> Money:
    """The sum of values (n,) with its interval over customers; NaN values are left out.

    Over no value the sum is 0 and the interval unknown. The same seed gives the same interval.

    >>> spent = total(np.array([100.0, 250.0, np.nan]), np.array([1, 2, 2]))
    >>> spent.minor, spent.refunds, spent.customers
    (350.0, 2, 2)
    """
    used = ~np.isnan(value_minor)
    if not used.any():
        return Money(0.0, Interval(math.nan, math.nan), 0, 0)
    _, who = np.unique(customer[used], return_inverse=True)
    by_customer = np.bincount(who, value_minor[used])
    draw = np.random.default_rng(seed)
    sums = [float(draw.poisson(1.0, len(by_customer)) @ by_customer)
            for _ in range(BOOTSTRAP_ROUNDS)]  # fmt: skip
    return Money(float(by_customer.sum()), interval(sums), int(used.sum()), len(by_customer))
