"""Leaks planted in honest data, one of each kind that `training.leaks` looks for.

A plant changes a data folder, its split or its features as a careless export or a careless feature
would. What the detector should then say is the plant's ``kind`` and ``suspect``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from features.money import DAY_MS, Rates
from features.tables import Tables, canonical_table
from training.dataset import Examples, FeatureFrame, TimeSplit, feature_frame, training_frame
from training.labels import label_refunds
from training.leaks import Compute, Kind

SOON_MS: Final = 5 * 60_000
SHARED: Final = 3
AHEAD_DAYS: Final = 7
AHEAD: Final = f"refund_count_by_customer_{AHEAD_DAYS}d"


@dataclass(frozen=True)
class Planted:
    """A folder, its split and how its features are made, with one leak: what should be said."""

    kind: Kind
    suspect: str
    tables: Tables
    split: TimeSplit
    compute: Compute = feature_frame


def planted(tables: Tables, rates: Rates, split: TimeSplit) -> Iterator[Planted]:
    """The four kinds, each planted by itself in a canonical folder that has been split."""

    def again(tables: Tables, features: FeatureFrame | None = None) -> TimeSplit:
        return training_frame(
            tables, rates, test_from=split.test_from, maturity_days=split.maturity_days, folds=1,
            features=features,
        )  # fmt: skip

    told = risk_written_afterwards(tables)
    yield Planted("separates_alone", "ip_risk", told, again(told))
    soon = known_soon(tables, "labels")
    yield Planted("collapses_with_the_gap", "labels", soon, again(soon))
    both = sorted(split.train.refund_id[-SHARED:].tolist())
    yield Planted("shared_refunds", ", ".join(both), tables, sharing(split, SHARED))
    ahead = again(tables, looking_ahead(tables, rates))
    yield Planted("future_facts", AHEAD, tables, ahead, looking_ahead)


# --- 1: a feature that separates alone -------------------------------------------------------


def risk_written_afterwards(tables: Tables) -> Tables:
    """The risk of an IP address looked up when the case was closed: nearly the answer."""
    row, abuse = answers(tables)
    draw = np.random.default_rng(1)
    values = np.full(len(tables["refund_requests"]), 0.3)
    values[row] = np.where(abuse, draw.uniform(0.55, 1, len(row)), draw.uniform(0, 0.6, len(row)))
    return with_column(tables, "ip_risk", values)


def answers(tables: Tables) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of the requests and what they turned out to be, as an export at the end would say."""
    labels = label_refunds(tables, as_of=2**60)
    settled = ~np.isnan(labels.abuse)
    return labels.row[settled], labels.abuse[settled] == 1


def with_column(tables: Tables, name: str, values: Any) -> Tables:
    """The folder with another column of refund requests, its values by row."""
    requests = tables["refund_requests"]
    place = requests.schema.get_field_index(name)
    column = pa.array(values, requests.schema.field(name).type, from_pandas=True)
    return {**tables, "refund_requests": requests.set_column(place, name, column)}


# --- 2: a score that collapses when the label gap widens -------------------------------------


def known_soon(tables: Tables, table: str, source: str | None = None) -> Tables:
    """Verdicts dated five minutes after the refund, or the order, that they are about."""
    verdicts = tables[table].to_pandas()
    at = pd.Series(-1, verdicts.index)
    for named, key in (("refund_requests", "refund_id"), ("orders", "order_id")):
        if key in verdicts:
            first = tables[named].to_pandas().drop_duplicates(key).set_index(key)["known_at"]
            at = at.where(at >= 0, verdicts[key].map(first).fillna(-1).astype("int64"))
    if table == "disputes":  # of the latest refund of the order, as only those teach
        asked = tables["refund_requests"].to_pandas().groupby("order_id")["known_at"].max()
        at = at.where(verdicts["order_id"].map(asked).isna(), verdicts["order_id"].map(asked))
    moved = (at >= 0) & (True if source is None else verdicts["source"].eq(source))
    known_at = verdicts["known_at"].where(~moved, at + SOON_MS).astype("int64")
    place = tables[table].schema.get_field_index("known_at")
    changed = tables[table].set_column(place, "known_at", pa.array(known_at))
    return {**tables, table: canonical_table(table, changed)}


# --- 3: training and test that share refunds, or their time ----------------------------------


def both_parts(split: TimeSplit) -> Examples:
    """Training and test examples, one behind the other."""
    return Examples.one_after_another([split.train, split.test])


def sharing(split: TimeSplit, count: int) -> TimeSplit:
    """The split with the last ``count`` training refunds in the test as well.

    So the two lie in one another's time too, which the detector says apart.
    """
    whole = both_parts(split)
    shared = np.arange(len(split.train) - count, len(whole))
    return replace(split, test=whole.where(shared))


def at_random(split: TimeSplit, seed: int) -> TimeSplit:
    """The same examples divided by chance into parts of the same size."""
    whole = both_parts(split)
    drawn = np.random.default_rng(seed).permutation(len(whole))
    train, test = np.sort(drawn[: len(split.train)]), np.sort(drawn[len(split.train) :])
    return replace(split, train=whole.where(train), test=whole.where(test))


# --- 4: features computed from what came later -----------------------------------------------


def looking_ahead(tables: Tables, rates: Rates) -> FeatureFrame:
    """The features of the catalog, one of which counts the customer's requests of the next week."""
    frame = feature_frame(tables, rates)
    requests = tables["refund_requests"].select(["customer_id", "known_at"]).to_pandas()
    times = {who: np.sort(of) for who, of in requests.groupby("customer_id")["known_at"]}
    ahead = [
        np.searchsorted(times[who], at + AHEAD_DAYS * DAY_MS)
        - np.searchsorted(times[who], at, "right")
        for who, at in zip(requests["customer_id"], requests["known_at"], strict=True)
    ]
    return replace(frame, columns={**frame.columns, AHEAD: np.array(ahead, np.float64)})
