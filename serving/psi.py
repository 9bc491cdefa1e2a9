"""PSI, the population stability index: how far the shares of values have moved, in plain numpy.

``sum((q - p) ln(q / p))`` over bins, p being the shares before and q those after: the symmetric
divergence of Jeffreys (1946). Bins are made of a `serving.model.Reference`'s quantiles, so what
training measures a service can measure again. How much is much depends on the bins and on how many
rows there are; `training.drift` finds that out instead of taking 0.1 and 0.25 for it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BINS: Final = 10
"""How many bins of equal share there are, where no value is too frequent for it."""


def cuts(quantiles: FloatArray) -> FloatArray:
    """Where bins begin, rising, from evenly spaced quantiles (q,) of known values.

    A value so frequent that two neighbouring deciles fall on it has a bin of its own: most counts
    are 0, and "more than 0" must not share its bin. NaN quantiles, of a feature that was never
    known, give no cuts.

    >>> cuts(np.linspace(0, 100, 101)).tolist()
    [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]
    >>> bins(np.array([-1.0, 0.0, 1.0]), cuts(np.zeros(101))).tolist()
    [0, 1, 2]
    """
    every = np.linspace(0, len(quantiles) - 1, BINS + 1).round().astype(int)[1:-1]
    inner = quantiles[every]
    inner = inner[~np.isnan(inner)]
    values, times = np.unique(inner, return_counts=True)
    above = np.nextafter(values[times > 1], np.inf)
    return np.unique(np.concatenate([values, above]))


def bins(values: FloatArray, begins: FloatArray) -> IntArray:
    """The bin (n,) of values (n,): 0 below the first cut, and behind the last the unknown (NaN).

    >>> bins(np.array([1.0, 2.0, np.nan]), np.array([2.0])).tolist()
    [0, 1, 2]
    """
    found = np.searchsorted(begins, values, side="right")
    return np.where(np.isnan(values), len(begins) + 1, found).astype(np.int64)


def count_of(begins: FloatArray) -> int:
    """How many bins there are, that of the unknown included."""
    return len(begins) + 2


def psi(before: FloatArray, after: FloatArray) -> FloatArray:
    """PSI (...) of counts (..., bins) before and after.

    Half a row is added to every bin, so that an empty one is finite; one that is empty on both
    sides says nothing.

    >>> float(psi(np.array([50.0, 50.0, 0.0]), np.array([5.0, 5.0, 0.0])).round(6))
    0.0
    >>> float(psi(np.array([50.0, 50.0, 0.0]), np.array([90.0, 10.0, 0.0])).round(2))
    0.85
    """
    p, q = (_shares(np.asarray(counts, np.float64), before + after > 0)
            for counts in (before, after))  # fmt: skip
    moved = (q - p) * (np.log(q) - np.log(p))
    return np.asarray(np.where(before + after > 0, moved, 0.0).sum(axis=-1))


def _shares(counts: FloatArray, seen: NDArray[np.bool_]) -> FloatArray:
    """Shares (..., bins) with half a row more in each bin that is seen."""
    smoothed = counts + 0.5 * seen
    total = smoothed.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(seen, smoothed / np.where(total > 0, total, 1.0), 1.0))
