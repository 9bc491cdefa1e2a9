"""Whether honest customers of some groups are flagged more often than others: the FPR ratio.

The harm is an honest customer who is prevented. So of each group the share of honest refunds that
is flagged is taken (the false positive rate), and the lowest is divided by the highest: 1 is even,
0.5 means one group's honest customers are hit twice as often. The operator names the group, a
column of the refund requests; a feature of the model can be none.

**The interval.** The least and the greatest of several noisy rates lie apart even where all are
equal, and in a resample more so. Hence the basic bootstrap interval (Davison and Hinkley 1997,
section 5.2) of the ratio's logarithm, which takes that excess off, with half a refund added to each
rate's numerator so that a logarithm exists.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.tables import Tables
from training.bootstrap import BOOTSTRAP_ROUNDS, Interval, known, resample
from training.dataset import MODEL_NAMES

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MIN_HONEST: Final = 200
"""A group with fewer honest refunds is reported, and left out of the ratio: its rate is noise."""

MAX_GROUPS: Final = 300
"""More distinct values than there are countries are no groups."""

UNKNOWN: Final = "(unknown)"


@dataclass(frozen=True)
class GroupRate:
    """Of one group: honest refunds, the share of them that is flagged, and whether it counts."""

    group: str
    honest: int
    false_rate: float
    counts: bool


@dataclass(frozen=True)
class Fairness:
    """The FPR ratio over the groups of one column; ``flagged`` says what being flagged means.

    ``ratio`` is NaN where fewer than two groups count, or nobody honest is flagged.
    """

    column: str
    flagged: str
    groups: tuple[GroupRate, ...]
    ratio: float
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {
            "column": self.column,
            "flagged": self.flagged,
            "groups": [{**asdict(g), "false_rate": known(g.false_rate)} for g in self.groups],
            "ratio": known(self.ratio),
            "interval": self.interval.to_json(),
        }


def groups_of(tables: Tables, column: str, row: IntArray) -> NDArray[np.object_]:
    """The group (n,) of refunds at these rows of the refund requests; `UNKNOWN` where not given.

    Raises ValueError where there is no such column, where it is a feature of the model, and where
    it has too many values to name groups.
    """
    table = tables["refund_requests"]
    if column not in table.column_names:
        raise ValueError(f"group: expected a column of refund_requests, one of "
                         f"{', '.join(table.column_names)}, got {column!r}")  # fmt: skip
    if column in MODEL_NAMES:
        raise ValueError(f"group: {column} is a feature of the model, expected one that is not")
    found = np.array([UNKNOWN if value is None else str(value)
                      for value in table[column].take(row).to_pylist()], object)  # fmt: skip
    if (distinct := len(set(found.tolist()))) > MAX_GROUPS:
        raise ValueError(f"group: {column} has {distinct} values, expected at most {MAX_GROUPS}")
    return found


def fairness(
    column: str,
    group: NDArray[np.object_],
    flagged: NDArray[np.bool_],
    abuse: FloatArray,
    customer: IntArray,
    *,
    meaning: str,
    weight: FloatArray | None = None,
    min_honest: int = MIN_HONEST,
    rounds: int = BOOTSTRAP_ROUNDS,
    seed: int = 0,
) -> Fairness:
    """The FPR ratio of flagged (n,) refunds between groups (n,), with an interval over customers.

    ``meaning`` says in words what is flagged. Groups of fewer than ``min_honest`` honest refunds,
    and refunds of unknown group, are listed and do not count.

    >>> group = np.repeat(np.array(["GB", "FR"], object), 400)
    >>> flagged = np.arange(800) % np.repeat([10, 20], 400) == 0
    >>> found = fairness("billing_country", group, flagged, np.zeros(800), np.arange(800),
    ...                  meaning="prevented")
    >>> found.ratio, [one.false_rate for one in found.groups]
    (0.5, [0.05, 0.1])
    """
    weight = np.ones(len(abuse)) if weight is None else weight
    honest = np.flatnonzero(abuse == 0)
    names, of = np.unique(group[honest].astype(str), return_inverse=True)
    sizes = np.bincount(of, minlength=len(names))
    hit = flagged[honest].astype(np.float64)
    counts = (sizes >= min_honest) & (names != UNKNOWN)

    def sums(weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        own = weight[honest]
        return (
            np.bincount(of, own * hit, len(names)).astype(np.float64),
            np.bincount(of, own, len(names)).astype(np.float64),
        )

    def log_ratio(weight: FloatArray) -> float:
        flags, all_honest = sums(weight)
        rates = (flags[counts] + 0.5) / (all_honest[counts] + 1)
        return float(np.log(rates.min() / rates.max()))

    flags, all_honest = sums(weight)
    with np.errstate(invalid="ignore"):
        rates = flags / all_honest
    ratio, low, high = float("nan"), float("nan"), float("nan")
    if counts.sum() >= 2 and rates[counts].max() > 0:
        ratio = float(rates[counts].min() / rates[counts].max())
        drawn = resample({"groups": lambda w: {"log_ratio": log_ratio(w)}}, customer, weight,
                         rounds=rounds, seed=seed)  # fmt: skip
        spread, middle = drawn.interval("groups", "log_ratio"), 2 * log_ratio(weight)
        low, high = (float(np.exp(min(0.0, middle - end))) for end in (spread.high, spread.low))
    listed = tuple(
        GroupRate(str(names[i]), int(sizes[i]), float(rates[i]), bool(counts[i]))
        for i in np.argsort(-sizes, kind="stable").tolist()
    )
    return Fairness(column, meaning, listed, ratio, Interval(low, high))
