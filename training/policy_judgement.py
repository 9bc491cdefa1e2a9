"""What labels say of the refunds a rule hit: how many are abuse, how sure, and who has no label.

**Which labels there are** is the policy's doing. A refund that was paid has its label once it is
mature; one that was held has one only where somebody looked into it. So the plain share of abuse
among labelled hits speaks for what was paid or looked into. Where exploration paid some held
refunds, the share is given a second time over paid refunds alone, each weighing one over the chance
it had (`training.propensity`): that speaks for all hits but those that could never be paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from features.money import DAY_MS
from rules.document import Costs
from rules.quality import Refunds
from training.bootstrap import Interval
from training.costs import cost_of
from training.policy_figures import FloatArray, IntArray, Money, Share, share_of, total
from training.propensity import EXPLORED, Names, fates, weights


@dataclass(frozen=True)
class Frame:
    """Refunds as columns (n,): customer codes, amounts (NaN: unknown), abuse (NaN: no label).

    ``fate`` is what the decision made of each (`training.propensity.FATES`), ``weight`` what it
    weighs for that: 0 where it was held.
    """

    customer: IntArray
    decided_at: IntArray
    payable_minor: FloatArray
    abuse: FloatArray
    fate: Names
    weight: FloatArray

    @classmethod
    def of(cls, refunds: Refunds) -> Frame:
        """The refunds that a count kept, in order of their places."""
        action = np.array([a.value if a else None for a in refunds.action], object)
        propensity = np.array(refunds.propensity, np.float64)
        fate = fates(action, np.array(refunds.explored, np.bool_), propensity)
        abuse = np.array(refunds.abuse, np.float64)
        return cls(
            customer=np.array(refunds.customer, np.int64),
            decided_at=np.array(refunds.decided_at, np.int64),
            payable_minor=np.array(refunds.payable_minor, np.float64),
            abuse=np.where(abuse < 0, np.nan, abuse),
            fate=fate,
            weight=weights(fate, propensity),
        )

    def __len__(self) -> int:
        return len(self.customer)

    @property
    def labelled(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which refunds (n,) have a mature label."""
        return ~np.isnan(self.abuse)

    def at(self, places: IntArray) -> Frame:
        """The refunds at these places, a place once however often it is named."""
        chosen = np.unique(places)
        return Frame(self.customer[chosen], self.decided_at[chosen], self.payable_minor[chosen],
                     self.abuse[chosen], self.fate[chosen], self.weight[chosen])  # fmt: skip


@dataclass(frozen=True)
class Maturity:
    """Until when labels are known (epoch ms), and how old a refund must be to have one."""

    as_of: int
    days: int

    def matures_at(self, decided_at: int) -> int:
        """When a refund is old enough, epoch ms."""
        return decided_at + self.days * DAY_MS


@dataclass(frozen=True)
class Precision:
    """How many of a rule's hits are abuse.

    ``young`` hits have no label because they are younger than labels take to mature, ``unseen``
    ones because they were not paid and nobody looked into them. ``weighted`` is None where
    exploration paid none of the labelled hits.
    """

    refunds: int
    labelled: int
    abuse: int
    young: int
    unseen: int
    last_matures_at: int | None
    share: Share
    weighted: Share | None

    @classmethod
    def of(cls, hits: Frame, maturity: Maturity) -> Precision:
        """Judge the refunds that a rule hit, each once."""
        has_label = hits.labelled
        abuse, customer = hits.abuse[has_label], hits.customer[has_label]
        weight = hits.weight[has_label]
        young = ~has_label & (maturity.matures_at(0) + hits.decided_at > maturity.as_of)
        explored = hits.fate[has_label] == EXPLORED
        last = int(hits.decided_at[young].max()) if young.any() else None
        return cls(
            refunds=len(hits),
            labelled=int(has_label.sum()),
            abuse=int(abuse.sum()),
            young=int(young.sum()),
            unseen=int((~has_label & ~young).sum()),
            last_matures_at=None if last is None else maturity.matures_at(last),
            share=share_of(abuse, customer),
            weighted=share_of(abuse, customer, weight) if explored.any() else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {"refunds": self.refunds, "labelled": self.labelled, "abuse": self.abuse,
                "young": self.young, "unseen": self.unseen,
                "last_matures_at": self.last_matures_at, "share": self.share.to_json(),
                "weighted": self.weighted.to_json() if self.weighted else None}  # fmt: skip


def saved_minor(hits: Frame, before: IntArray, after: IntArray, costs: Costs) -> FloatArray:
    """What each refund (n,) costs less under ``after`` than under ``before``, both severities.

    NaN where the label or the amount is not known.

    >>> row = Frame(*np.array([[1], [0]]), np.array([1000.0]), np.array([1.0]),
    ...             np.array(["PAID"], object), np.ones(1))
    >>> allowed, reviewed = np.array([0]), np.array([2])
    >>> costs = Costs(fee_minor=500, review_minor=400)
    >>> saved_minor(row, allowed, reviewed, costs).tolist()  # 1,500 not lost, for a review of 400
    [1100.0]
    """
    cost = [cost_of(action, hits.abuse, hits.payable_minor, costs) for action in (before, after)]
    return np.where(hits.labelled, cost[0] - cost[1], np.nan)


def saved_total(hits: Frame, before: IntArray, after: IntArray, costs: Costs) -> Money:
    """What refunds (n,) cost less together, over those that are labelled and change their action.

    Where their labels are all of one kind a bootstrap sees no doubt. There the interval is widened
    to what the share of abuse allows: as far as it may be wrong, refunds saved what those of the
    other kind would have.
    """
    each = np.where(before == after, np.nan, saved_minor(hits, before, after, costs))
    saved = total(each, hits.customer)
    used = ~np.isnan(each)
    abuse = hits.abuse[used]
    if not used.any() or abuse.min() != abuse.max():
        return saved
    if_other = saved_minor(replace(hits, abuse=1 - hits.abuse), before, after, costs)[used].sum()
    doubt = share_of(abuse, hits.customer[used]).interval
    wrong = doubt.high if abuse[0] == 0 else 1 - doubt.low
    ends = saved.interval.low, saved.interval.high, (1 - wrong) * saved.minor + wrong * if_other
    return replace(saved, interval=Interval(float(min(ends)), float(max(ends))))


def day_of(at: int | None) -> str:
    """The day of an instant (epoch ms, UTC).

    >>> day_of(1_780_000_000_000), day_of(None)
    ('2026-05-28', 'never')
    """
    return "never" if at is None else datetime.fromtimestamp(at / 1000, UTC).date().isoformat()


def first_of_each(places: Sequence[int]) -> IntArray:
    """Where each place (n,) is named first, in order of the places.

    >>> first_of_each([5, 3, 5]).tolist()
    [1, 0]
    """
    return np.unique(np.array(places, np.int64), return_index=True)[1]
