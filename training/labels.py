"""What counts as abuse, whose word it is, and when a label is mature enough to learn from.

**Sources**, best first: INVESTIGATION, CHARGEBACK, ANALYST, and last clean maturity: a paid refund
of which nobody said anything. The first source that has a word on a refund decides; of one source
the latest word counts, and UNREVIEWED takes it back. A label that names no source is an analyst's.

**A label of a customer** covers that customer's refunds of the maturity window before it. When
UNREVIEWED is said of a customer, that source's earlier labels of the customer are void, and only
those: what it said of single refunds stands.

**A chargeback** speaks for itself, without anybody filing a label: the money was asked back from
the bank and from the shop, *and the shop paid*, whichever came first. How the dispute ended does
not matter: a merchant wins such a dispute by showing that the refund had been paid, which proves
the double dip, and one that is lost was paid twice. A chargeback where no refund was paid says
nothing: customers who were wrongly declined go to their bank as well. It is matched by order and
counts from the first stage that is a chargeback (`features.catalog.CHARGEBACK_STAGES`: neither an
early warning nor a question), or from the payment if that came later.

**Maturity.** A refund counts when ``maturity_days`` have passed since it, labelled or not: taking
early labels sooner would fill the last weeks with abuse alone. A mature refund that is unlabelled
and was not paid is *censored*: nobody saw what it would have been, so it is no negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.catalog import CHARGEBACK_STAGES
from features.money import DAY_MS
from features.tables import Tables, arrow_schema

DEFAULT_MATURITY_DAYS: Final = 60

SOURCES: Final = ("INVESTIGATION", "CHARGEBACK", "ANALYST")
"""Who may have a word on a refund, best first."""

CLEAN, CENSORED, IMMATURE, IGNORED = "CLEAN_MATURITY", "CENSORED", "IMMATURE", "IGNORED"
BASES: Final = (*SOURCES, CLEAN, CENSORED, IMMATURE, IGNORED)
"""Why a refund has the label it has, or none."""


@dataclass(frozen=True)
class Labels:
    """The refunds requested before an instant, one row each at its first version; arrays (n,).

    ``row`` is the first version's place in the canonical table of refund requests; ``abuse`` is 1,
    0, or NaN where the refund is in no training or test set; ``basis`` is one of `BASES`;
    ``said_at`` is when the word that decides became known (epoch ms), -1 where nobody said any.
    """

    row: NDArray[np.int64]
    known_at: NDArray[np.int64]
    abuse: NDArray[np.float64]
    basis: NDArray[np.object_]
    said_at: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    def counts(self, between: NDArray[np.bool_] | None = None) -> dict[str, dict[str, int]]:
        """How many refunds per basis, and what they are: ``{basis: {refunds, abuse}}``."""
        chosen = np.ones(len(self), np.bool_) if between is None else between
        return {
            basis: {"refunds": int(of.sum()), "abuse": int((self.abuse[of] == 1).sum())}
            for basis in BASES
            for of in [chosen & (self.basis == basis)]
        }


DELAY_DAYS: Final = (7, 30, 60)
"""Where the classes of label delay in `delays` end."""


def delays(labels: Labels) -> list[dict[str, Any]]:
    """How many refunds of each month have a word of each source, and how long it took.

    One row per basis and month of request (UTC): ``{basis, month, refunds, abuse, delay_days_p50,
    within_7d, within_30d, within_60d, later}``. A refund of which nobody spoke has no delay: there
    the last five are None.
    """
    months = labels.known_at.astype("datetime64[ms]").astype("datetime64[M]").astype(str)
    took = np.where(labels.said_at < 0, np.nan, (labels.said_at - labels.known_at) / DAY_MS)
    frame = pd.DataFrame(
        {"basis": labels.basis, "month": months, "abuse": labels.abuse == 1, "took": took}
    )
    rows = []
    edges = (-np.inf, *DELAY_DAYS, np.inf)
    names = (*(f"within_{days}d" for days in DELAY_DAYS), "later")
    for (basis, month), group in frame.groupby(["basis", "month"], sort=True):
        known = group["took"].dropna().to_numpy()
        classes, _ = np.histogram(known, edges)
        rows.append(
            {"basis": str(basis), "month": str(month), "refunds": len(group),
             "abuse": int(group["abuse"].sum()),
             "delay_days_p50": float(np.median(known)) if len(known) else None,
             **{name: int(count) if len(known) else None
                for name, count in zip(names, classes, strict=True)}}
        )  # fmt: skip
    return sorted(rows, key=lambda row: (BASES.index(row["basis"]), row["month"]))


def label_definition(maturity_days: int) -> dict[str, Any]:
    """What a label meant, for a model's manifest.

    >>> label_definition(60)["precedence"][0]
    'INVESTIGATION'
    """
    return {
        "maturity_days": maturity_days,
        "precedence": [*SOURCES, CLEAN],
        "chargeback_stages": list(CHARGEBACK_STAGES),
        "chargeback_needs_paid_refund": True,
        "customer_label_covers_days": maturity_days,
    }


def label_refunds(
    tables: Tables, *, as_of: int, maturity_days: int = DEFAULT_MATURITY_DAYS
) -> Labels:
    """The label of every refund requested before ``as_of``, from what was known before it.

    ``tables`` is a canonical data folder, ``as_of`` epoch milliseconds. `refund.ignore` on any
    version, whenever it came, keeps a refund out. Raises ValueError for a maturity below one day.
    """
    if maturity_days < 1:
        raise ValueError(f"maturity_days: expected at least 1, got {maturity_days}")
    maturity_ms = maturity_days * DAY_MS
    refunds, ignored = _refunds(tables, as_of)
    payments = paid_at(tables, as_of)
    said = pd.concat(
        [
            _by_chargeback(tables, refunds, payments, as_of),
            *_by_somebody(tables, refunds, as_of, maturity_ms),
        ]
    )
    abuse, basis, said_at = _settle(said, len(refunds))
    known_at = refunds["known_at"].to_numpy(np.int64)
    silent = np.isnan(abuse)
    paid = refunds["refund_id"].isin(payments.index).to_numpy()
    abuse[silent & paid] = 0.0
    basis[silent & paid] = CLEAN
    for left_out, why in (
        (silent & ~paid, CENSORED),
        (known_at + maturity_ms > as_of, IMMATURE),
        (refunds["refund_id"].isin(ignored).to_numpy(), IGNORED),
    ):
        abuse[left_out] = np.nan
        basis[left_out] = why
    return Labels(refunds["row"].to_numpy(np.int64), known_at, abuse, basis, said_at)


def _frame(tables: Tables, name: str, columns: list[str]) -> pd.DataFrame:
    table = tables.get(name, arrow_schema(name).empty_table()).select(["known_at", *columns])
    frame: pd.DataFrame = table.to_pandas()
    # pandas 3.0 cannot join on Arrow's strings where a table is empty.
    return frame.astype(dict.fromkeys(columns, object))


def _known(frame: pd.DataFrame, as_of: int) -> pd.DataFrame:
    return frame[frame["known_at"] < as_of]


def _refunds(tables: Tables, as_of: int) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """First versions known before ``as_of``, and the ids that any version says to ignore."""
    frame = _frame(tables, "refund_requests", ["refund_id", "customer_id", "order_id", "ignore"])
    ignored = frame.loc[frame["ignore"].eq(True), "refund_id"]
    frame["row"] = np.arange(len(frame))
    first = _known(frame.drop_duplicates("refund_id"), as_of).reset_index(drop=True)
    first["place"] = np.arange(len(first))
    return first, ignored


def paid_at(tables: Tables, as_of: int) -> pd.Series[Any]:
    """When each paid refund was first known to be paid: epoch ms by refund_id."""
    outcomes = _known(_frame(tables, "refund_outcomes", ["refund_id", "status"]), as_of)
    moved = _known(_frame(tables, "transactions", ["refund_id", "kind", "success"]), as_of)
    moved = moved[moved["kind"].eq("REFUND") & moved["success"].ne(False)]
    paid = pd.concat([outcomes[outcomes["status"].eq("COMPLETED")], moved])
    first: pd.Series[Any] = paid.dropna(subset="refund_id").groupby("refund_id")["known_at"].min()
    return first


# What somebody said of a refund: place of the refund, source, known_at, abuse (NaN: UNREVIEWED).
_SAID: Final = ["place", "source", "known_at", "abuse"]


def _by_chargeback(
    tables: Tables, refunds: pd.DataFrame, payments: pd.Series[Any], as_of: int
) -> pd.DataFrame:
    disputes = _known(_frame(tables, "disputes", ["dispute_id", "order_id", "stage"]), as_of)
    disputes = disputes[disputes["stage"].isin(CHARGEBACK_STAGES) & disputes["order_id"].notna()]
    disputes = disputes.drop_duplicates(["dispute_id", "order_id"])
    found = refunds[["place", "refund_id", "order_id"]].merge(disputes, on="order_id")
    found = found.join(payments.rename("paid_at"), on="refund_id", how="inner")
    found["known_at"] = found[["known_at", "paid_at"]].max(axis=1)
    return found.assign(source="CHARGEBACK", abuse=1.0)[_SAID]


def _by_somebody(
    tables: Tables, refunds: pd.DataFrame, as_of: int, maturity_ms: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels of customers, then of refunds: at one instant the more precise word is the later."""
    said = _known(_frame(tables, "labels", ["refund_id", "customer_id", "label", "source"]), as_of)
    said["source"] = said["source"].fillna("ANALYST")
    said["abuse"] = said["label"].map({"REFUND_ABUSE": 1.0, "NOT_REFUND_ABUSE": 0.0}).astype(float)

    whole = said[said["customer_id"].notna()].drop(columns="refund_id")
    turn = pd.Series(np.arange(len(whole)), index=whole.index)
    voided = turn.where(whole["abuse"].isna(), -1)
    whole = whole[turn > voided.groupby([whole["customer_id"], whole["source"]]).transform("max")]
    requested = refunds[["place", "customer_id", "known_at"]]
    whole = requested.merge(whole, on="customer_id", suffixes=("_asked", ""))
    ago = whole["known_at"] - whole["known_at_asked"]
    whole = whole[(ago >= 0) & (ago <= maturity_ms)]

    single = said[said["refund_id"].notna()].drop(columns="customer_id")
    single = refunds[["place", "refund_id"]].merge(single, on="refund_id")
    return whole[_SAID], single[_SAID]


def _settle(
    said: pd.DataFrame, size: int
) -> tuple[NDArray[np.float64], NDArray[np.object_], NDArray[np.int64]]:
    """The latest word of each source, then the best source that has one: abuse, basis, said_at."""
    rank: Mapping[str, int] = {source: place for place, source in enumerate(SOURCES)}
    latest = said.sort_values("known_at", kind="stable").drop_duplicates(
        ["place", "source"], keep="last"
    )
    words = latest.dropna(subset="abuse")
    words = words.assign(rank=words["source"].map(rank)).sort_values("rank", kind="stable")
    best = words.drop_duplicates("place")
    abuse = np.full(size, np.nan)
    basis = np.full(size, CENSORED, dtype=object)
    place = best["place"].to_numpy(np.int64)
    abuse[place] = best["abuse"].to_numpy(np.float64)
    basis[place] = best["source"].to_numpy(object)
    said_at = np.full(size, -1, np.int64)
    said_at[place] = best["known_at"].to_numpy(np.int64)
    return abuse, basis, said_at
