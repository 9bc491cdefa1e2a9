"""Results by reason, amount, account age, month and whose word the label is.

A figure over all refunds hides where a model is blind. Every segment is judged at one threshold,
that of 5 % of all honest refunds flagged, so that the rates of segments can be compared. AP depends
on how common abuse is, so each AP is set beside its segment's prevalence: the lift.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.attribution import CODES
from training.bootstrap import Interval, known, resample
from training.dataset import Examples
from training.labels import CLEAN, SOURCES
from training.ranking import Ranking

FloatArray = NDArray[np.float64]

AMOUNT_EDGES_MINOR: Final = (20_00, 50_00, 100_00, 200_00, 500_00)
AGE_EDGES_DAYS: Final = (14, 90, 365, 1095)
FALSE_RATE: Final = 0.05
"""The share of all honest refunds flagged at the threshold that segments are judged at."""

SEGMENT_ROUNDS: Final = 200
_NOT_KNOWN: Final = "(unknown)"


@dataclass(frozen=True)
class Segment:
    """One value ``name`` of what the refunds were divided ``by``; NaN where nothing can be said.

    ``lift`` is AP over prevalence; ``tpr`` and ``fpr`` are at the global threshold. All but the
    counts ``n`` and ``n_positives`` are weighted.
    """

    by: str
    name: str
    n: int
    n_positives: int
    prevalence: float
    mean_probability: float
    average_precision: float
    average_precision_interval: Interval
    lift: float
    tpr: float
    fpr: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {
            name: value if isinstance(value, str | int | dict) else known(value)
            for name, value in {
                **asdict(self),
                "average_precision_interval": self.average_precision_interval.to_json(),
            }.items()
        }


def segments(
    probability: FloatArray,
    examples: Examples,
    *,
    weight: FloatArray | None = None,
    rounds: int = SEGMENT_ROUNDS,
    seed: int = 0,
) -> tuple[Segment, ...]:
    """Judge probabilities (n,) on the segments of labelled examples (n,)."""
    weight = np.ones(len(examples)) if weight is None else weight
    flagged = probability >= Ranking(probability, examples.abuse).threshold(FALSE_RATE, weight)
    found = []
    for by, name, rows in divide(examples):
        abuse, own, score = examples.abuse[rows], weight[rows], probability[rows]
        ranking = Ranking(score, abuse)
        drawn = resample({"s": ranking.figures}, examples.customer[rows], own, rounds=rounds,
                         seed=seed)  # fmt: skip
        ap, prevalence = ranking.figures(own)["average_precision"], _mean(abuse, own)
        found.append(Segment(
            by, name, len(abuse), int(abuse.sum()), prevalence, _mean(score, own),
            ap, drawn.interval("s", "average_precision"),
            ap / prevalence if prevalence else float("nan"),
            _mean(flagged[rows], own * (abuse == 1)), _mean(flagged[rows], own * (abuse == 0)),
        ))  # fmt: skip
    return tuple(found)


def divide(examples: Examples) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """By what, which, and whose rows (a mask): every segment that has any refunds.

    Refunds lie in one segment of each division, except by label source: there each source's abuse
    stands against the refunds that matured clean.
    """
    yield from _coded("reason", examples.column("reason"), CODES["reason"])
    yield from banded("amount", examples.column("payable_minor"), AMOUNT_EDGES_MINOR, 100, "")
    yield from banded(
        "account age", examples.column("registered_age_days"), AGE_EDGES_DAYS, 1, " days"
    )
    month = examples.known_at.astype("datetime64[ms]").astype("datetime64[M]")
    for one in np.unique(month):
        yield "month", str(one), month == one
    clean = examples.basis == CLEAN
    for source in SOURCES:
        abuse = (examples.basis == source) & (examples.abuse == 1)
        if abuse.any() and clean.any():
            yield "label source", source, clean | abuse


_Division = Iterator[tuple[str, str, NDArray[np.bool_]]]


def _coded(by: str, codes: FloatArray, words: Sequence[str]) -> _Division:
    for code in np.unique(codes[~np.isnan(codes)]).astype(int).tolist():
        yield by, words[code] if code < len(words) else "(another)", codes == code
    if np.isnan(codes).any():
        yield by, _NOT_KNOWN, np.isnan(codes)


def banded(by: str, values: FloatArray, edges: Sequence[int], unit: int, word: str) -> _Division:
    """Values between edges, the lower included; named in ``unit`` and ``word``."""
    bounds = (-np.inf, *edges, np.inf)
    for low, high in pairwise(bounds):
        rows = (values >= low) & (values < high)
        if rows.any():
            below, above = (f"{edge / unit:,g}" for edge in (low, high))
            yield by, (
                f"below {above}{word}" if np.isinf(low)
                else f"{below}{word} or more" if np.isinf(high)
                else f"{below} to {above}{word}"
            ), rows  # fmt: skip
    if np.isnan(values).any():
        yield by, _NOT_KNOWN, np.isnan(values)


def _mean(values: NDArray[Any], weight: FloatArray) -> float:
    total = float(weight.sum())
    return float(values @ weight) / total if total > 0 else float("nan")
