"""The refunds of a backtest that count, and sums over them: exact, in whatever order rows come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.money import DAY_MS
from rules.decision import Action
from rules.document import Costs
from rules.policy import Policy
from training.backtest_report import Ledger, Shifts, Tally, Workload
from training.backtest_rows import ACTIONS, UNKNOWN, Rows
from training.bootstrap import Interval
from training.costs import ALLOWED, PREVENTED

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

PLAIN_ACTIONS: Final = (Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT)
_NEVER_MS: Final = 2**62


@dataclass(frozen=True)
class Truth:
    """What is known of refunds by now, by id: labels (True: abuse), and when each was paid (ms)."""

    abuse: Mapping[str, bool]
    paid_at: Mapping[str, int]


@dataclass(frozen=True)
class Counted:
    """The refunds that count, a row each; arrays (n,).

    ``payable`` is 0 where the amount is unknown, ``abuse`` 1, 0, or -1 without a label; ``place``
    is the row of `Rows` each came from; ``customer`` are codes without gaps.
    """

    place: IntArray
    table: NDArray[Any]
    before: IntArray
    after: IntArray
    payable: IntArray
    abuse: IntArray
    customer: IntArray
    customers: int

    def __len__(self) -> int:
        return len(self.place)

    @property
    def moved(self) -> Mask:
        """Those (n,) that the two policies decide differently."""
        moved: Mask = self.before != self.after
        return moved


def counted(rows: Rows, truth: Truth | None) -> Counted:
    """Each refund once: by the policy's last decision before its money moved.

    An analyst's decision counts only where there is no other. Labels are those of ``truth``, or
    without it those of the rows. Raises LookupError where there is no row.
    """
    if not len(rows):
        raise LookupError("nothing to decide: expected at least one refund request")
    table = rows.table
    place = last_of_each(
        rows.refund_ids, table["decided_at"], table["by_analyst"], truth.paid_at if truth else {}
    )
    chosen = table[place]
    abuse = chosen["abuse"].astype(np.int64)
    if truth is not None:
        ids = map(rows.refund_ids.__getitem__, place.tolist())
        abuse = np.fromiter(map(truth.abuse.get, ids, repeat(UNKNOWN)), np.int64, len(place))
    payable = chosen["payable_minor"]
    _, customer = np.unique(chosen["customer"], return_inverse=True)
    return Counted(
        place, chosen, chosen["before"].astype(np.int64), chosen["after"].astype(np.int64),
        np.where(payable == UNKNOWN, 0, payable), abuse, customer.astype(np.int64),
        int(customer.max()) + 1,
    )  # fmt: skip


def last_of_each(
    refund_ids: Sequence[str], decided_at: IntArray, by_analyst: Mask, paid_at: Mapping[str, int]
) -> IntArray:
    """The places of the decisions (n,) that count, in order; ``paid_at`` is epoch ms by refund.

    >>> by_analyst, nobody = np.array([False, False, True]), np.zeros(3, np.bool_)
    >>> last_of_each(["a", "b", "a"], np.array([1, 2, 3]), by_analyst, {}).tolist()
    [0, 1]
    >>> last_of_each(["a", "b", "a"], np.array([1, 2, 3]), nobody, {"a": 2}).tolist()
    [0, 1]
    """
    refund = pd.factorize(np.array(refund_ids, object))[0]
    if int(refund.max(initial=-1)) + 1 == len(refund):
        return np.arange(len(refund))
    paid = np.array([paid_at.get(one, _NEVER_MS) for one in refund_ids], np.int64)
    rank = 2 * ~by_analyst + (decided_at <= paid)
    order = np.lexsort((np.arange(len(refund)), rank, refund))
    is_last = np.append(refund[order][1:] != refund[order][:-1], True)
    return np.sort(order[is_last])


# --- sums ----------------------------------------------------------------------------------------


def tally(of: Counted, which: Mask) -> Tally:
    """How many of some refunds, and how much."""
    return Tally(int(which.sum()), int(of.payable[which].sum()))


def ledger(of: Counted, action: IntArray, policy: Policy, costs: Costs) -> Ledger:
    """What a policy whose actions (n,) these are does, at given costs."""
    paid, prevented = action == ALLOWED, action == PREVENTED
    held, abuse, honest = ~paid & ~prevented, of.abuse == 1, of.abuse == 0
    abuse_paid, honest_prevented = tally(of, paid & abuse), tally(of, prevented & honest)
    all_held = tally(of, held)
    return Ledger(
        policy.version, policy.hash,
        tally(of, paid), all_held, tally(of, prevented),
        abuse_paid, tally(of, held & abuse), tally(of, prevented & abuse),
        tally(of, held & honest), honest_prevented,
        abuse_paid.payable_minor + costs.fee_minor * abuse_paid.count
        + costs.prevented_honest_multiple * honest_prevented.payable_minor
        + costs.review_minor * all_held.count,
    )  # fmt: skip


def shifts(before: IntArray, after: IntArray) -> Shifts:
    """How many go from which action to which; the sandbox's REVIEW only where it occurs."""
    counts = np.bincount(before * len(ACTIONS) + after, minlength=len(ACTIONS) ** 2)
    table = counts.reshape(len(ACTIONS), len(ACTIONS))
    shown = [
        action for action in ACTIONS if action in PLAIN_ACTIONS or table[action.severity].any()
    ]
    return {a: {b: int(table[a.severity, b.severity]) for b in shown} for a in shown}


def saved_minor(of: Counted, costs: Costs) -> FloatArray:
    """What each refund (n,) costs less under the candidate, where label or review tell."""
    return _cost(of, of.before, costs) - _cost(of, of.after, costs)


def _cost(of: Counted, action: IntArray, costs: Costs) -> FloatArray:
    """As `training.costs.cost_of`, but nothing for what no label tells and no amount."""
    paid, prevented = action == ALLOWED, action == PREVENTED
    abuse, honest = of.abuse == 1, of.abuse == 0
    return np.select(
        [paid & abuse, prevented & honest, ~paid & ~prevented],
        [of.payable + costs.fee_minor, costs.prevented_honest_multiple * of.payable,
         np.full(len(of), float(costs.review_minor))], 0.0,
    )  # fmt: skip


def workload_of(
    of: Counted, action: IntArray, reviews: float, around: Interval, *, days: int, costs: Costs
) -> Workload:
    """What a policy whose actions (n,) these are asks of the review desk.

    ``reviews`` are how many in all, ``around`` their interval; ``days`` counts also those without a
    refund.
    """
    held = of.table["decided_at"][(action != ALLOWED) & (action != PREVENTED)] // DAY_MS
    on_day = np.bincount(held - held.min()) if len(held) else np.zeros(1, np.int64)
    return Workload(
        reviews / days,
        Interval(around.low / days, around.high / days),
        int(on_day.max()),
        None if costs.reviews_per_day is None else int((on_day > costs.reviews_per_day).sum()),
    )
