"""What two policies' mistakes and reviews come to, with 95 % intervals over customers.

A paired bootstrap (`training.bootstrap`): both policies on the same draws, so the interval of a
difference is that of the difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rules.document import Costs
from training.backtest_report import Figure, Figures, Quantity, Weighted
from training.backtest_rows import ACTIONS, UNKNOWN
from training.backtest_sums import Counted
from training.bootstrap import BOOTSTRAP_ROUNDS, Rounds, interval, resample
from training.costs import ALLOWED, PREVENTED
from training.propensity import EXPLORED, FATES, effective_size, fates, weights

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


_PARTS: Final = ("abuse_paid", "abuse_held", "abuse_prevented", "honest_held", "honest_prevented")


def _by_customer(of: Counted, action: IntArray, weight: FloatArray) -> dict[str, FloatArray]:
    """Numbers and sums of each customer's refunds (customers,), by what a policy makes of them."""
    paid, prevented = action == ALLOWED, action == PREVENTED
    held = ~paid & ~prevented
    which = {
        "abuse_paid": paid & (of.abuse == 1), "abuse_held": held & (of.abuse == 1),
        "abuse_prevented": prevented & (of.abuse == 1), "honest_held": held & (of.abuse == 0),
        "honest_prevented": prevented & (of.abuse == 0),
    }  # fmt: skip
    found: dict[str, FloatArray] = {
        "held": _sums(of.customer[held], np.ones(int(held.sum())), of.customers)
    }
    for name, rows in which.items():
        own = weight[rows]
        for part, values in (("count", own), ("minor", own * of.payable[rows])):
            found[f"{name}.{part}"] = _sums(of.customer[rows], values, of.customers)
    found["customers"] = (found["honest_prevented.count"] > 0).astype(np.float64)
    return found


def _measured(sums: Mapping[str, float], costs: Costs) -> dict[str, float]:
    """Figures, as ``name.count`` and ``name.minor``, of sums over customers."""
    found = {name: value for name, value in sums.items() if "." in name}
    for part in ("count", "minor"):
        found[f"abuse_stopped.{part}"] = (
            sums[f"abuse_held.{part}"] + sums[f"abuse_prevented.{part}"]
        )
    found["honest_customers_prevented.count"] = sums["customers"]
    found["reviews.count"] = sums["held"]
    found["reviews.minor"] = sums["held"] * costs.review_minor
    found["cost.minor"] = (
        sums["abuse_paid.minor"] + costs.fee_minor * sums["abuse_paid.count"]
        + costs.prevented_honest_multiple * sums["honest_prevented.minor"] + found["reviews.minor"]
    )  # fmt: skip
    return found


def _sums(code: IntArray, values: FloatArray, size: int) -> FloatArray:
    """The sum of the values (n,) of each code (size,)."""
    return np.bincount(code, values, size).astype(np.float64, copy=False)


@dataclass(frozen=True)
class Worth:
    """What refunds save, ``minor`` (k,), each of a customer; ``groups`` are places among them."""

    customer: IntArray
    minor: FloatArray
    groups: Sequence[IntArray]

    def under(self, drawn: FloatArray) -> FloatArray:
        """What each group (groups,) saves when customers (customers,) weigh so much.

        >>> worth = Worth(np.array([0, 1]), np.array([5.0, 7.0]), [np.array([0, 1]), np.array([1])])
        >>> worth.under(np.array([2.0, 1.0])).tolist()
        [17.0, 7.0]
        """
        saved = self.minor * drawn[self.customer]
        return np.array([saved[places].sum() for places in self.groups])


@dataclass(frozen=True)
class Measured:
    """Figures with their rounds, and what groups of refunds save, round by round."""

    figures: Figures
    saved: FloatArray
    """(rounds, groups), in minor units."""


def measured(
    of: Counted, costs: Costs, weight: FloatArray, worth: Worth | None = None, *,
    seed: int, rounds: int = BOOTSTRAP_ROUNDS,
) -> Measured:  # fmt: skip
    """All figures of both policies, each refund (n,) weighing what ``weight`` says.

    ``worth`` says what groups of refunds save.
    """
    columns = {
        (side, name): values
        for side, action in (("before", of.before), ("after", of.after))
        for name, values in _by_customer(of, action, weight).items()
    }
    # Most customers' refunds are paid, and nobody says a word: those are in no sum.
    filled = [(np.flatnonzero(values), values[values != 0]) for values in columns.values()]
    saved: list[FloatArray] = []

    def measure(drawn: FloatArray) -> Mapping[str, float]:
        if worth is not None:
            saved.append(worth.under(drawn))
        return _of_both(columns, [(values * drawn[who]).sum() for who, values in filled], costs)

    drawn = resample({"both": measure}, np.arange(of.customers), rounds=rounds, seed=seed)
    points = _of_both(columns, [values.sum() for _, values in filled], costs)
    return Measured(_figures(points, drawn), np.array(saved))


def _of_both(
    columns: Iterable[tuple[str, str]], sums: Iterable[float], costs: Costs
) -> dict[str, float]:
    """Figures of both policies, as ``side.name.count`` and ``side.name.minor``, of sums."""
    by_side: dict[str, dict[str, float]] = {"before": {}, "after": {}}
    for (side, name), value in zip(columns, sums, strict=True):
        by_side[side][name] = float(value)
    return {
        f"{side}.{name}": value
        for side, found in by_side.items()
        for name, value in _measured(found, costs).items()
    }


def _figures(points: Mapping[str, float], drawn: Rounds) -> Figures:
    rounds, found = drawn.values["both"], defaultdict[str, dict[str, Quantity]](dict)
    for full in points:
        side, _, figure = full.partition(".")
        if side == "before":
            before, after = full, f"after.{figure}"
            name, part = figure.split(".")
            found[name][part] = Quantity(
                points[before], points[after], interval(rounds[before]), interval(rounds[after]),
                interval(rounds[after] - rounds[before]),
            )  # fmt: skip
    return {name: Figure(parts.get("count"), parts.get("minor")) for name, parts in found.items()}


def weighted(of: Counted, costs: Costs, *, seed: int) -> Weighted | None:
    """The figures by inverse propensity; None where exploration paid no labelled refund."""
    table = of.table
    words = np.array([*(action.value for action in ACTIONS), None], object)
    answered = words[np.where(table["by_analyst"], UNKNOWN, table["answered"])]
    fate = fates(answered, table["explored"], table["propensity"])
    labelled = of.abuse != UNKNOWN
    if not (labelled & (fate == EXPLORED)).any():
        return None
    weight = weights(fate, table["propensity"])
    found = measured(of, costs, weight, seed=seed)
    return Weighted(
        found.figures,
        {one: int((fate == one).sum()) for one in FATES},
        {one: int((labelled & (fate == one)).sum()) for one in FATES},
        effective_size(weight[labelled]),
    )  # fmt: skip
