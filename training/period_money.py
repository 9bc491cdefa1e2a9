"""What the answers of a period come to in money, in minor units of the base currency.

**Loss prevented** is expected, never seen: what was prevented was not paid, so nobody finds out
what it would have been. It is the probability of abuse that the model said times the amount, over
what was prevented; without the fee that an abuser costs besides. Beside it stands what preventing
is expected to cost, by the policy's costs: honest customers among those who were refused, and the
reviews.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rules.decision import Action
from rules.document import Costs
from training.costs import ALLOWED, PREVENTED
from training.period_read import IntArray, Mask, Refunds

_HELD: Final = (Action.REVIEW.severity, Action.MANUAL_REVIEW.severity)


@dataclass(frozen=True)
class Sums:
    """What some refunds come to.

    They ask for ``asked_minor``, of which ``allowed_minor``, ``held_minor`` and ``prevented_minor``
    were answered so, and ``paid_minor`` was paid by the end of the store, whatever was answered.
    By probability, ``lost_minor`` of what was allowed is abuse, ``loss_prevented_minor`` of what
    was prevented is, and ``honest_minor`` is what preventing the rest of it costs. Reviews cost
    ``review_minor``. ``unscored`` refunds were prevented without a probability or a known amount,
    by a rule or a list: they count as no loss prevented.
    """

    asked_minor: float
    allowed_minor: float
    held_minor: float
    prevented_minor: float
    paid_minor: float
    lost_minor: float
    loss_prevented_minor: float
    honest_minor: float
    review_minor: float
    unscored: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def sums(
    of: Refunds, is_paid: Mask, costs: Costs, place: IntArray | None = None, number: int = 1
) -> Sequence[Sums]:
    """What refunds (n,) come to in each of so many places; ``place`` (n,) is 0 if not given."""
    action, payable = of.table["action"], np.nan_to_num(of.table["payable_minor"])
    p = of.table["probability"]
    expected = np.nan_to_num(p * of.table["payable_minor"])
    honest = np.nan_to_num((1 - p) * of.table["payable_minor"]) * costs.prevented_honest_multiple
    allowed, prevented, held = action == ALLOWED, action == PREVENTED, np.isin(action, _HELD)
    is_known = ~np.isnan(p * of.table["payable_minor"])
    columns: list[NDArray[np.floating[Any]]] = [
        payable, payable * allowed, payable * held, payable * prevented, payable * is_paid,
        expected * allowed, expected * prevented, honest * prevented, held * costs.review_minor,
    ]  # fmt: skip
    where = np.zeros(len(of), np.int64) if place is None else place
    each = [np.bincount(where, column, number).tolist() for column in columns]
    unscored = np.bincount(where[prevented & ~is_known], minlength=number).tolist()
    return [Sums(*row) for row in zip(*each, unscored, strict=True)]
