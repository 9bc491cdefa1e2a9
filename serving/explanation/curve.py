"""Which probability a score in log-odds means, and which score a probability."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_LEAST: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Curve:
    """A model's calibration by some of its points (score, probability), straight between them.

    Straight is meant in log-odds, beyond the last points too. `Curve.of` makes it of any points:
    of one it keeps the distance in log-odds, of none a score is its own log-odds.

    >>> curve = Curve.of([(-2.0, 0.1), (2.0, 0.9)])
    >>> curve.probability(0.0), round(curve.score(0.9), 6)
    (0.5, 2.0)
    >>> round(Curve.of([(1.0, 0.2)]).probability(1.0), 6), Curve.of([]).probability(0.0)
    (0.2, 0.5)
    """

    points: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, points: Iterable[tuple[float, float]]) -> Curve:
        """A curve through points (score, probability) in any order; it never falls."""
        kept: list[tuple[float, float]] = []
        for score, probability in sorted(points):
            odds = log_odds(min(max(probability, _LEAST), 1 - _LEAST))
            if not kept or (score > kept[-1][0] and odds >= kept[-1][1]):
                kept.append((score, odds))
        if len(kept) < 2:
            score, odds = kept[0] if kept else (0.0, 0.0)
            kept = [(score, odds), (score + 1, odds + 1)]
        return cls(tuple(kept))

    def probability(self, score: float) -> float:
        """The probability that a score means."""
        return 1 / (1 + math.exp(-max(_along(self.points, score), -700)))

    def score(self, probability: float) -> float:
        """The lowest score that means a probability of the curve."""
        return _along([(odds, score) for score, odds in self.points], log_odds(probability))


def log_odds(probability: float) -> float:
    """The log-odds of a probability between 0 and 1.

    >>> log_odds(0.5)
    0.0
    """
    return math.log(probability / (1 - probability))


def _along(points: Sequence[tuple[float, float]], x: float) -> float:
    """The height at x of the line through points."""
    after = min(max(bisect_left(points, (x, -math.inf)), 1), len(points) - 1)
    (left, low), (right, high) = points[after - 1], points[after]
    return low + (x - left) * (high - low) / (right - left) if right > left else low
