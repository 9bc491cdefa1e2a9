"""What labels say of the decisions of a period: calibration as they mature, and reviews.

**Calibration** is over months of decision and reaches back further than the period, as labels take
weeks. It is over refunds with a mature label: what was held has one only where somebody looked into
it. Where exploration paid some held refunds the figures are given a second time over paid ones,
each weighing one over the chance it had (`training.propensity`).

**A verdict** is an analyst's latest word on a refund since the decision; a word on a customer is
one on the refunds that the customer asked for within the maturity window before it. UNREVIEWED
takes a word back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from sqlalchemy import select

from features.money import DAY_MS
from features.tables import Tables
from rules.decision import Action
from rules.document import Costs
from serving.store.schema import refunds as kept_refunds
from serving.store.store import Store
from training.bootstrap import Interval, known, resample
from training.charts import reliability_bins
from training.costs import ALLOWED, PREVENTED, REVIEWED, cost_of, mean_cost
from training.labels import BASES, CENSORED, IGNORED, IMMATURE, label_refunds, paid_at
from training.period_read import FloatArray, IntArray, Mask, Refunds
from training.policy_figures import share_of, wilson
from training.propensity import fates, weights
from training.ranking import Ranking
from training.reliability import Reliability

BANDS: Final = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Where bands of probability begin, in which reviews are held against the model."""

LEAST_COSTED: Final = 100
"""Of fewer refunds with a label it is not said what a thousand cost: one mistake would make it."""

_ACTION: Final = {action.severity: action.value for action in Action}


@dataclass(frozen=True)
class Fit:
    """Predicted against observed share of abuse; the interval is of 95 % and counts customers."""

    refunds: int
    abuse: float
    predicted: float
    observed: float
    interval: Interval

    @property
    def fits(self) -> bool | None:
        """Whether the prediction lies within the interval; None where there is none."""
        if not self.refunds:
            return None
        return self.interval.low <= self.predicted <= self.interval.high

    @classmethod
    def of(cls, of: Refunds, abuse: FloatArray, weight: FloatArray) -> Fit:
        """Of the refunds that weigh something and have both a label and a probability."""
        p = of.table["probability"]
        used = (weight > 0) & ~np.isnan(abuse) & ~np.isnan(p)
        share = share_of(abuse[used], of.table["customer"][used], weight[used])
        total = weight[used].sum()
        predicted = float(weight[used] @ p[used] / total) if total else float("nan")
        return cls(int(used.sum()), float(abuse[used].sum()), predicted, share.value,
                   share.interval)  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {"refunds": self.refunds, "abuse": self.abuse, "predicted": known(self.predicted),
                "observed": known(self.observed), "interval": self.interval.to_json(),
                "fits": self.fits}  # fmt: skip


@dataclass(frozen=True)
class Month:
    """Refunds decided in a month of UTC, ``2026-05``, and what is known of them by now.

    ``abuse_paid`` and ``honest_prevented`` are how many and how much; ``cost_per_1000_minor`` is
    that of the actions on the ``costed`` refunds, those with a label and a known amount: NaN of
    fewer than `LEAST_COSTED`.
    """

    month: str
    refunds: int
    labelled: int
    immature: int
    censored: int
    ignored: int
    fit: Fit
    abuse_paid: tuple[int, float]
    honest_prevented: tuple[int, float]
    costed: int
    cost_per_1000_minor: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {
            **{name: getattr(self, name)
               for name in ("month", "refunds", "labelled", "immature", "censored", "ignored")},
            "fit": self.fit.to_json(),
            "abuse_paid": self.abuse_paid[0],
            "abuse_paid_minor": self.abuse_paid[1],
            "honest_prevented": self.honest_prevented[0],
            "honest_prevented_minor": self.honest_prevented[1],
            "costed": self.costed,
            "cost_per_1000_minor": known(self.cost_per_1000_minor),
        }  # fmt: skip


@dataclass(frozen=True)
class Ranked:
    """How well probabilities put abuse first: average precision, which by chance is the prevalence.

    The interval is of 95 % and counts customers.
    """

    refunds: int
    average_precision: float
    interval: Interval
    auc: float
    prevalence: float

    @classmethod
    def of(cls, probability: FloatArray, abuse: FloatArray, customer: IntArray) -> Ranked | None:
        """Of refunds (n,) with a label and a probability; None unless both kinds are there."""
        if len(np.unique(abuse)) < 2:
            return None
        ranking = Ranking(probability, abuse)
        figures = ranking.figures()
        drawn = resample({"model": ranking.figures}, customer)
        return cls(len(abuse), figures["average_precision"],
                   drawn.interval("model", "average_precision"), figures["auc"],
                   float(abuse.mean()))  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {**asdict(self), "interval": self.interval.to_json()}


@dataclass(frozen=True)
class Calibration:
    """Whether the probabilities can be believed: by month, in all, and by bin of probability."""

    as_of: int
    """When labels were known, epoch ms."""
    maturity_days: int
    months: tuple[Month, ...]
    whole: Fit
    weighted: Fit | None
    """Over refunds that were paid, by their chance; None where exploration paid none of them."""
    figures: dict[str, float]
    """Of `training.reliability.Reliability`; empty without a label."""
    bins: tuple[dict[str, float], ...]
    ranked: Ranked | None
    """None where labels are not of both kinds."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {
            "as_of": self.as_of,
            "maturity_days": self.maturity_days,
            "whole": self.whole.to_json(),
            "weighted": self.weighted.to_json() if self.weighted else None,
            "figures": {name: known(value) for name, value in self.figures.items()},
            "bins": list(self.bins),
            "ranked": self.ranked.to_json() if self.ranked else None,
            "months": [one.to_json() for one in self.months],
        }


def calibration(
    of: Refunds, tables: Tables, costs: Costs, *, as_of: int, maturity_days: int
) -> Calibration:
    """Hold probabilities against the labels of canonical ``tables``, as known at ``as_of``."""
    abuse, basis = labels_of(of, tables, as_of, maturity_days)
    weight = _weights(of)
    ones = np.ones(len(of))
    explored = of.table["explored"] & ~np.isnan(abuse)
    used = ~np.isnan(abuse) & ~np.isnan(of.table["probability"])
    p, truth = of.table["probability"][used], abuse[used]
    months = of.table["decided_at"].astype("datetime64[ms]").astype("datetime64[M]").astype(str)
    return Calibration(
        as_of=as_of,
        maturity_days=maturity_days,
        months=tuple(
            _month(month, of, months == month, abuse, basis, costs) for month in np.unique(months)
        ),
        whole=Fit.of(of, abuse, ones),
        weighted=Fit.of(of, abuse, weight) if explored.any() else None,
        figures=Reliability(p, truth).figures() if used.any() else {},
        bins=tuple(reliability_bins(p, truth)) if used.any() else (),
        ranked=Ranked.of(p, truth, of.table["customer"][used]),
    )


def _month(
    month: str, of: Refunds, which: Mask, abuse: FloatArray, basis: IntArray, costs: Costs
) -> Month:
    action, payable = of.table["action"], of.table["payable_minor"]
    count = np.bincount(basis[which], minlength=len(BASES) + 1)
    cost = cost_of(action, abuse, payable, costs)
    is_labelled = which & ~np.isnan(abuse)
    costed = int((is_labelled & ~np.isnan(cost)).sum())
    mean_minor = mean_cost(cost[is_labelled], np.ones(int(is_labelled.sum())))

    def tally(mistake: Mask) -> tuple[int, float]:
        return int(mistake.sum()), float(np.nansum(payable[mistake]))

    return Month(
        month=str(month),
        refunds=int(which.sum()),
        labelled=int(is_labelled.sum()),
        immature=int(count[BASES.index(IMMATURE)]),
        censored=int(count[BASES.index(CENSORED)]),
        ignored=int(count[BASES.index(IGNORED)] + count[-1]),
        fit=Fit.of(of, np.where(which, abuse, np.nan), np.ones(len(of))),
        abuse_paid=tally(which & (abuse == 1) & (action == ALLOWED)),
        honest_prevented=tally(which & (abuse == 0) & (action == PREVENTED)),
        costed=costed,
        cost_per_1000_minor=1000 * mean_minor if costed >= LEAST_COSTED else float("nan"),
    )


def labels_of(
    of: Refunds, tables: Tables, as_of: int, maturity_days: int
) -> tuple[FloatArray, IntArray]:
    """Abuse (n,), NaN without a label, and the place in `BASES` of why; behind it: not known."""
    labels = label_refunds(tables, as_of=as_of, maturity_days=maturity_days)
    ids = tables["refund_requests"]["refund_id"].take(labels.row).to_pandas()
    place = pd.Index(ids.astype(object)).get_indexer(pd.Index(of.refund_id))
    abuse = np.append(labels.abuse, np.nan)[place]
    basis = pd.Index(BASES).get_indexer(pd.Index(labels.basis))
    return abuse, np.append(basis, len(BASES)).astype(np.int64)[place]


def _weights(of: Refunds) -> FloatArray:
    action = np.array([_ACTION[each] for each in of.table["action"].tolist()], object)
    propensity = of.table["propensity"].copy()
    return weights(fates(action, of.table["explored"].copy(), propensity), propensity)


# --- reviews -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reviewed:
    """Held refunds with a verdict that are alike, and how many were confirmed as abuse.

    ``predicted`` is the mean probability that the model gave them, NaN where it gave none.
    """

    name: str
    reviewed: int
    confirmed: int
    predicted: float
    interval: Interval

    @property
    def share(self) -> float:
        """The share confirmed, NaN of none."""
        return self.confirmed / self.reviewed if self.reviewed else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {"name": self.name, "reviewed": self.reviewed, "confirmed": self.confirmed,
                "share": known(self.share), "interval": self.interval.to_json(),
                "predicted": known(self.predicted)}  # fmt: skip


@dataclass(frozen=True)
class Reviews:
    """Refunds of a period that were held for review, and what analysts said of them.

    ``open`` still wait for a verdict, ``moved_on`` were settled without one. Hours are from the
    decision to the verdict, NaN without one.
    """

    held: int
    held_minor: float
    whole: Reviewed
    open: int
    open_minor: float
    oldest_open_at: int | None
    moved_on: int
    hours_median: float
    hours_p90: float
    bands: tuple[Reviewed, ...]
    sources: tuple[Reviewed, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {
            **{name: known(value) if isinstance(value, float) else value
               for name, value in asdict(self).items()
               if name not in ("whole", "bands", "sources")},
            "whole": self.whole.to_json(),
            "bands": [one.to_json() for one in self.bands],
            "sources": [one.to_json() for one in self.sources],
        }  # fmt: skip


def paid(of: Refunds, tables: Tables, as_of: int) -> Mask:
    """Which refunds (n,) were paid by ``as_of`` (epoch ms), as canonical ``tables`` tell."""
    found: Mask = pd.Index(of.refund_id).isin(paid_at(tables, as_of).index)
    return found


def waiting(store: Store) -> set[str]:
    """The refunds that wait for a review now, by id."""
    wanted = select(kept_refunds.c.refund_id).where(kept_refunds.c.state == "NEEDS_REVIEW")
    with store.database.read() as connection:
        return set(connection.execute(wanted).scalars())


def reviews(
    of: Refunds, tables: Tables, still: set[str], sources: Sequence[str],
    customers: Sequence[str], maturity_days: int,
) -> Reviews:  # fmt: skip
    """What became of the refunds held; ``still`` are the ids of those that wait now.

    ``sources`` and ``customers`` are the words of the columns of that name.
    """
    held = of.at(np.flatnonzero(of.table["action"] == REVIEWED))
    verdict, said_at = _verdicts(held, tables, customers, maturity_days)
    has_one = ~np.isnan(verdict)
    waits = ~has_one & np.array([one in still for one in held.refund_id], np.bool_)
    at, payable = held.table["decided_at"], held.table["payable_minor"]
    hours = (said_at - at)[has_one] * 24 / DAY_MS
    p = held.table["probability"]
    # The top is a band's own: a probability of 1 belongs to the last.
    band = np.searchsorted(BANDS[1:-1], p, side="right")

    def reviewed(name: str, which: Mask) -> Reviewed:
        there = which & has_one
        n, confirmed = int(there.sum()), int(verdict[there].sum())
        said = p[there & ~np.isnan(p)]
        return Reviewed(name, n, confirmed, float(said.mean()) if len(said) else float("nan"),
                        wilson(confirmed / n if n else 0.0, n))  # fmt: skip

    everything = np.ones(len(held), np.bool_)
    return Reviews(
        held=len(held),
        held_minor=float(np.nansum(payable)),
        whole=reviewed("all", everything),
        open=int(waits.sum()),
        open_minor=float(np.nansum(payable[waits])),
        oldest_open_at=int(at[waits].min()) if waits.any() else None,
        moved_on=int((~has_one & ~waits).sum()),
        hours_median=float(np.median(hours)) if len(hours) else float("nan"),
        hours_p90=float(np.quantile(hours, 0.9)) if len(hours) else float("nan"),
        bands=tuple(
            reviewed(f"{BANDS[i]:g}-{BANDS[i + 1]:g}", (band == i) & ~np.isnan(p))
            for i in range(len(BANDS) - 1)
        ),
        sources=tuple(
            reviewed(sources[i], held.table["source"] == i)
            for i in np.unique(held.table["source"]).tolist()
        ),
    )


def _verdicts(
    held: Refunds, tables: Tables, customers: Sequence[str], maturity_days: int
) -> tuple[FloatArray, FloatArray]:
    """What analysts said of refunds (n,): 1, 0 or NaN; and when (epoch ms)."""
    said: pd.DataFrame = tables["labels"].to_pandas().astype({"refund_id": object})
    said = said[said["source"].fillna("ANALYST").eq("ANALYST")]
    said["abuse"] = said["label"].map({"REFUND_ABUSE": 1.0, "NOT_REFUND_ABUSE": 0.0}).astype(float)
    of = pd.DataFrame({
        "place": np.arange(len(held)),
        "refund_id": held.refund_id,
        "customer_id": np.array([customers[i] for i in held.table["customer"].tolist()], object),
        "decided_at": held.table["decided_at"],
    })  # fmt: skip
    single = said[said["refund_id"].notna()].drop(columns="customer_id")
    whole = said[said["customer_id"].notna()].drop(columns="refund_id")
    whole = of.drop(columns="refund_id").merge(whole.astype({"customer_id": object}))
    whole = whole[whole["known_at"] - whole["decided_at"] <= maturity_days * DAY_MS]
    single = of.drop(columns="customer_id").merge(single)
    words = pd.concat([whole, single])
    words = words[words["known_at"] >= words["decided_at"]]
    last = words.sort_values("known_at", kind="stable").drop_duplicates("place", keep="last")
    verdict, said_at = np.full(len(held), np.nan), np.full(len(held), np.nan)
    place = last["place"].to_numpy(np.int64)
    verdict[place] = last["abuse"].to_numpy(np.float64)
    said_at[place] = last["known_at"].to_numpy(np.float64)
    return verdict, said_at
