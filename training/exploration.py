"""What the random-allow draw cost and taught: paid by chance, learnt, and left in the dark.

Exploration pays a random share of held refunds up to an amount. Those labels alone tell what held
refunds are: the others were not paid, and nobody looked into most of them.

A refund counts once and has one `rules.exploration.Lot`. What holding it would have led to is
decided anew, without the draw. Money is that of labelled refunds with a known amount; **the net
cost** of exploring is what paying them cost less what holding them would have: a review, or the
harm of refusing an honest customer.

**For the held refunds as a whole** the explored ones stand, each weighing one over its propensity
(`training.propensity`). They speak for refunds that had a chance to be paid, and for no other: not
for amounts above the cap, nor for what hard rules, limits and lists hold.

**The draw is tested twice.** All draws must be uniform in [0, 1): chi-square over equal classes. Of
the refunds that could be explored the policy's share must have been: an exact binomial test. The
first looks at the draw, the second also at who asks: a backend that sends a held refund again under
a new id until it is paid draws uniformly and is explored too often.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from rules.document import Costs
from rules.exploration import FINEST, ExplorationCounts, HeldRefund, Lot
from rules.logged import Logged
from rules.policy import Policy
from training.bootstrap import Interval, known, resample
from training.costs import ALLOWED, PREVENTED, REVIEWED, cost_of
from training.exploration_text import text
from training.policy_figures import (
    LEAST_CUSTOMERS,
    FloatArray,
    IntArray,
    Money,
    Share,
    share_of,
    total,
    wilson,
)
from training.policy_judgement import Maturity
from training.propensity import effective_size

CLASSES: Final = 20
"""Into so many equal parts draws are sorted for the test, fewer where there are few."""

LEAST_DRAWS: Final = 50
"""With fewer draws than these their uniformity is not tested."""


@dataclass(frozen=True)
class Draw:
    """How often one policy explored what it could. ``chance`` is how likely a share so far from
    the policy's, or farther, is if the draw is fair."""

    policy: str
    share: float
    max_amount_minor: float
    eligible: int
    explored: int
    realised: Share
    chance: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {"policy": self.policy, "share": self.share,
                "max_amount_minor": self.max_amount_minor, "eligible": self.eligible,
                "explored": self.explored, "realised": self.realised.to_json(),
                "chance": known(self.chance)}  # fmt: skip


@dataclass(frozen=True)
class HeldCost:
    """What holding all refunds that could be explored costs, in minor units, by three sources.

    ``by_model`` believes the probabilities that were logged, ``by_reviews`` the labels of held
    refunds that somebody looked into (NaN: none), ``by_exploration`` those of explored ones.
    ``change`` is the latter less the model's; ``holding_saves`` what paying all would cost more.
    NaN where no explored refund has a label.
    """

    refunds: int
    by_model: float
    by_reviews: float
    by_exploration: float
    interval: Interval
    change: float
    change_interval: Interval
    holding_saves: float
    holding_saves_interval: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        names = ("by_model", "by_reviews", "by_exploration", "change", "holding_saves")
        intervals = ("interval", "change_interval", "holding_saves_interval")
        return {"refunds": self.refunds, **{name: known(getattr(self, name)) for name in names},
                **{name: getattr(self, name).to_json() for name in intervals}}  # fmt: skip


@dataclass(frozen=True)
class ExplorationReport:
    """What exploration of a period cost and taught; refunds by `Lot` and what they would be paid.

    ``unlooked`` counts held refunds of NEVER by what held them.
    """

    currency: str
    costs: Costs
    maturity: Maturity
    decisions: int
    elsewhere: int
    first_at: int | None
    last_at: int | None
    draws: tuple[Draw, ...]
    drawn: int
    uniform_chance: float
    """How likely draws so uneven, or more so, are if they are uniform; NaN: too few to test."""
    refunds: Mapping[Lot, int]
    payable_minor: Mapping[Lot, float]
    unlooked: Mapping[str, int]
    paid: int
    paid_minor: float
    labelled: int
    abuse: int
    young: int
    reviews_spared: int
    reviews_spared_minor: float
    abuse_paid: Money
    honest_released: Money
    net_cost: Money
    abuse_rate: Share
    reviewed_rate: Share
    effective_size: float
    labelled_paid: int
    held_cost: HeldCost

    @property
    def explores(self) -> bool:
        """Whether any policy of the period explores."""
        return bool(self.draws)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        plain = ("currency", "decisions", "elsewhere", "first_at", "last_at", "drawn", "paid",
                 "paid_minor", "labelled", "abuse", "young", "reviews_spared",
                 "reviews_spared_minor", "effective_size", "labelled_paid")  # fmt: skip
        nested = ("abuse_paid", "honest_released", "net_cost", "abuse_rate", "reviewed_rate",
                  "held_cost")  # fmt: skip
        return {
            **{name: getattr(self, name) for name in plain},
            "costs": self.costs.model_dump(mode="json"),
            "as_of": self.maturity.as_of,
            "maturity_days": self.maturity.days,
            "least_customers": LEAST_CUSTOMERS,
            "draws": [draw.to_json() for draw in self.draws],
            "uniform_chance": known(self.uniform_chance),
            "refunds": {lot.value: n for lot, n in self.refunds.items()},
            "payable_minor": {lot.value: n for lot, n in self.payable_minor.items()},
            "never_explored_by": dict(self.unlooked),
            **{name: getattr(self, name).to_json() for name in nested},
        }

    def to_text(self) -> str:
        """The report for an analyst to read."""
        return text(self)


def exploration_report(
    policies: Mapping[str, Policy],
    rows: Iterable[Logged],
    *,
    costs: Costs,
    currency: str,
    maturity: Maturity,
    is_paid: Callable[[str], bool],
) -> ExplorationReport:
    """Judge exploration over decided requests with their labels, oldest first, read once.

    ``policies`` by hash are those that decided; ``is_paid`` tells whether the money of a refund
    moved, and is asked of explored ones.
    """
    seen = ExplorationCounts(policies)
    for row in rows:
        seen.take(row)
    return _report(seen, costs, currency, maturity, is_paid)


# --- figures -----------------------------------------------------------------------------------


def _report(
    seen: ExplorationCounts,
    costs: Costs,
    currency: str,
    maturity: Maturity,
    is_paid: Callable[[str], bool],
) -> ExplorationReport:
    held = [*seen.held.values()]
    explored = {k: h for k, h in seen.held.items() if h.lot is Lot.EXPLORED}
    by_chance = _Columns.of([*explored.values()])
    eligible = _Columns.of([h for h in held if h.lot in (Lot.EXPLORED, Lot.HELD)])
    looked_into = _Columns.of([h for h in held if h.lot is Lot.HELD])
    paid = [h for refund_id, h in explored.items() if is_paid(refund_id)]
    reviews = int((by_chance.severity == REVIEWED).sum())
    abuse, amount = by_chance.abuse, by_chance.payable_minor
    has_label = by_chance.labelled
    weight = 1 / by_chance.propensity
    young = ~has_label & (maturity.matures_at(0) + by_chance.decided_at > maturity.as_of)
    weights = np.append(np.ones(len(seen.labelled_paid)), weight[has_label])
    harm = costs.prevented_honest_multiple * amount
    return ExplorationReport(
        currency=currency,
        costs=costs,
        maturity=maturity,
        decisions=seen.decisions,
        elsewhere=seen.elsewhere,
        first_at=seen.first_at,
        last_at=seen.last_at,
        draws=tuple(_draws(seen)),
        drawn=seen.draws.total(),
        uniform_chance=_uniform(seen.draws),
        refunds={lot: sum(h.lot is lot for h in held) for lot in Lot},
        payable_minor={
            lot: sum(h.payable_minor for h in held if h.lot is lot and h.payable_minor >= 0)
            for lot in Lot
        },
        unlooked=dict(Counter(h.why for h in held if h.lot is Lot.NEVER).most_common()),
        paid=len(paid),
        paid_minor=sum(h.payable_minor for h in paid if h.payable_minor >= 0),
        labelled=int(has_label.sum()),
        abuse=int((abuse == 1).sum()),
        young=int(young.sum()),
        reviews_spared=reviews,
        reviews_spared_minor=reviews * costs.review_minor,
        abuse_paid=total(np.where(abuse == 1, amount + costs.fee_minor, np.nan),
                         by_chance.customer),
        honest_released=total(
            np.where((abuse == 0) & (by_chance.severity == PREVENTED), harm, np.nan),
            by_chance.customer,
        ),
        net_cost=total(by_chance.cost(ALLOWED, costs) - by_chance.cost(None, costs),
                       by_chance.customer),
        abuse_rate=share_of(abuse[has_label], by_chance.customer[has_label], weight[has_label]),
        reviewed_rate=share_of(
            looked_into.abuse[looked_into.labelled], looked_into.customer[looked_into.labelled]
        ),
        effective_size=effective_size(weights),
        labelled_paid=len(seen.labelled_paid),
        held_cost=_held_cost(eligible, by_chance, looked_into, costs),
    )  # fmt: skip


@dataclass(frozen=True)
class _Columns:
    """Held refunds as columns (n,)."""

    customer: IntArray
    decided_at: IntArray
    payable_minor: FloatArray
    abuse: FloatArray
    severity: IntArray
    propensity: FloatArray
    probability: FloatArray

    @classmethod
    def of(cls, held: list[HeldRefund]) -> _Columns:
        def column(name: str, kind: type) -> np.ndarray[Any, Any]:
            return np.array([getattr(h, name) for h in held], kind)

        return cls(*(column(name, np.int64 if name in _WHOLE else np.float64)
                     for name in cls.__dataclass_fields__))  # fmt: skip

    @property
    def labelled(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return ~np.isnan(self.abuse)

    def cost(self, severity: int | None, costs: Costs) -> FloatArray:
        """What an action costs each, by default the one before the draw; NaN without a label."""
        action = self.severity if severity is None else np.full(len(self.severity), severity)
        cost = cost_of(action, self.abuse, self.payable_minor, costs)
        return np.where(self.labelled, cost, np.nan)


_WHOLE: Final = ("customer", "decided_at", "severity")


def _draws(seen: ExplorationCounts) -> Iterable[Draw]:
    for policy_hash, policy in seen.policies.items():
        own = policy.exploration
        eligible = len(seen.eligible.get(policy_hash, ()))
        if own is None:
            continue
        explored = len(seen.explored.get(policy_hash, ()))
        share = explored / eligible if eligible else math.nan
        # Draws are independent whoever asks, so refunds count here and not customers.
        yield Draw(
            policy=policy.version,
            share=own.share,
            max_amount_minor=own.max_amount_minor,
            eligible=eligible,
            explored=explored,
            realised=Share(share, wilson(share, eligible), eligible, eligible, float(eligible)),
            chance=float(stats.binomtest(explored, eligible, own.share).pvalue)
            if eligible
            else math.nan,
        )


def _uniform(fine: Counter[int]) -> float:
    """The p-value of a chi-square test that draws, counted by the thousandth, are uniform.

    >>> even = Counter({k: 1 for k in range(1000)})
    >>> _uniform(even), _uniform(Counter({0: 100})) < 1e-9, _uniform(Counter({0: 3}))
    (1.0, True, nan)
    """
    drawn = fine.total()
    if drawn < LEAST_DRAWS:
        return math.nan
    classes = CLASSES if drawn >= 5 * CLASSES else 10
    counts = np.zeros(classes)
    for at, n in fine.items():
        counts[at * classes // FINEST] += n
    return float(stats.chisquare(counts).pvalue)


def _held_cost(
    eligible: _Columns, explored: _Columns, looked_into: _Columns, costs: Costs
) -> HeldCost:
    """The cost of holding all that had a chance to be paid: a mean of those known, times all.

    Refunds without a score have no part in the model's figure, but none of them is explorable.
    """
    population = len(eligible.customer)
    severity, amount = eligible.severity, eligible.payable_minor
    expected = np.where(
        severity == PREVENTED,
        (1 - eligible.probability) * costs.prevented_honest_multiple * amount,
        costs.review_minor,
    )
    by_model = float(np.nansum(expected))
    reviewed = looked_into.cost(None, costs)
    by_reviews = float(np.nanmean(reviewed)) * population if _any(reviewed) else math.nan
    holding = explored.cost(None, costs)
    gain = explored.cost(ALLOWED, costs) - holding
    used = ~np.isnan(holding)
    if not used.any():
        unknown = Interval(math.nan, math.nan)
        return HeldCost(population, by_model, by_reviews, math.nan, unknown, math.nan, unknown,
                        math.nan, unknown)  # fmt: skip

    def figures(weight: FloatArray) -> dict[str, float]:
        drawn = float(weight.sum())
        if not drawn:
            return {"holding": math.nan, "gain": math.nan}
        return {"holding": population * float(weight @ holding[used]) / drawn,
                "gain": population * float(weight @ gain[used]) / drawn}  # fmt: skip

    weight = 1 / explored.propensity[used]
    found = figures(weight)
    rounds = resample({"held": figures}, explored.customer[used], weight)
    interval = rounds.interval("held", "holding")
    return HeldCost(
        refunds=population,
        by_model=by_model,
        by_reviews=by_reviews,
        by_exploration=found["holding"],
        interval=interval,
        change=found["holding"] - by_model,
        change_interval=Interval(interval.low - by_model, interval.high - by_model),
        holding_saves=found["gain"],
        holding_saves_interval=rounds.interval("held", "gain"),
    )


def _any(values: FloatArray) -> bool:
    return bool((~np.isnan(values)).any())
