"""Bootstrap over customers: how far a figure could as well have come out otherwise.

The refunds of one customer are not independent, so customers are drawn, with all their refunds
(Efron 1979; Davison and Hinkley 1997, section 3.8). A round gives every customer the number of
times it was drawn, and a figure is measured under these numbers as weights: nothing is copied, and
what was sorted stays sorted. Rounds are paired: all scores are measured on the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Measure = Callable[[FloatArray], Mapping[str, float]]
"""Figures by name, given the weights (n,) of the refunds."""

BOOTSTRAP_ROUNDS: Final = 400
"""Enough that ten rounds lie beyond each end of a 95 % interval."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; NaN where nothing could be measured."""

    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """Plain values, None for what is unknown.

        >>> Interval(0.5, float("nan")).to_json()
        {'low': 0.5, 'high': None}
        """
        return {"low": known(self.low), "high": known(self.high)}


def known(value: float) -> float | None:
    """A number as JSON can hold it: None where it is NaN or infinite.

    >>> known(0.5), known(float("nan"))
    (0.5, None)
    """
    return float(value) if np.isfinite(value) else None


def interval(values: FloatArray | list[float]) -> Interval:
    """The middle 95 % of bootstrap values, leaving out rounds in which there was none.

    >>> interval([0.0, 1.0, 2.0, float("nan")])
    Interval(low=0.05, high=1.95)
    """
    measured = np.asarray(values, np.float64)
    measured = measured[np.isfinite(measured)]
    if not len(measured):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(measured, [0.025, 0.975])
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class Rounds:
    """Figures in every round: ``values[score][figure]`` is (rounds,), NaN where there was none."""

    values: Mapping[str, Mapping[str, FloatArray]]

    def interval(self, score: str, figure: str, around: float | None = None) -> Interval:
        """The 95 % interval of a figure; with ``around``, moved so that its rounds centre there.

        A desk with room for k finds less in every resample: who is drawn twice takes two of its
        places. That is an effect of drawing, not a doubt about the figure, so it is taken off.
        """
        values = self.values[score][figure]
        return interval(values if around is None else values + (around - np.nanmean(values)))

    def gain(self, score: str, other: str, figure: str) -> Interval:
        """The 95 % interval of ``score``'s figure less ``other``'s, round by round."""
        return interval(self.values[score][figure] - self.values[other][figure])


def resample(
    measures: Mapping[str, Measure],
    customer: IntArray,
    weight: FloatArray | None = None,
    *,
    rounds: int = BOOTSTRAP_ROUNDS,
    seed: int = 0,
) -> Rounds:
    """Take the measures under draws of as many customers as there are, with replacement.

    ``customer`` (n,) holds codes, ``weight`` (n,) what the refunds weigh in themselves, 1 by
    default. The same seed gives the same rounds.

    >>> shares = {"refunds": lambda weight: {"first": weight[0] / weight.sum()}}
    >>> drawn = resample(shares, np.array([7, 8, 8]), rounds=100)
    >>> sorted(set(drawn.values["refunds"]["first"].round(2).tolist()))  # one of two, twice
    [0.0, 0.33, 1.0]
    """
    draw = np.random.default_rng(seed)
    _, who = np.unique(customer, return_inverse=True)
    count = int(who.max()) + 1
    own = np.ones(len(who)) if weight is None else weight
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in measures}
    for _ in range(rounds):
        times = np.bincount(draw.integers(0, count, count), minlength=count).astype(np.float64)
        drawn = own * times[who]
        for name, measure in measures.items():
            found[name].append(measure(drawn))
    return Rounds({
        name: {figure: np.array([one[figure] for one in each]) for figure in each[0]}
        for name, each in found.items()
    })  # fmt: skip
