"""From a data folder to a training frame: features, labels, and a time split with a gap.

Refunds requested before ``test_from`` are for training, those from it on for the test. Training
labels are those known at ``test_from``, so the refunds of the maturity window before it are in
neither: that gap is the delay with which labels arrive. Test labels are those known at the end of
the data. A random split would let a model know the future.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.attribution import attribute, codes_of
from features.catalog import MODEL_FEATURES, PLAN
from features.engine import compute
from features.money import CURRENCIES, DAY_MS, Rates
from features.tables import EVENT_OF_TABLE, Tables
from training.labels import DEFAULT_MATURITY_DAYS, Labels, label_refunds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TEST_SHARE: Final = 0.2
"""Where no ``test_from`` is given: the share of mature refunds, the latest, that are the test."""

MODEL_NAMES: Final = tuple(feature.name for feature in MODEL_FEATURES)
"""The inputs of a model, in order."""


class TooLittleData(ValueError):  # noqa: N818 - says what is wrong with the data
    """A data folder cannot be trained or tested on; says what it lacks."""


def rates_of(tables: Tables, base: str = "GBP") -> Rates:
    """The exchange rates of a data folder into ``base``; without a table, the base alone."""
    if "fx_rates" not in tables:
        return Rates.of(base, [])
    columns = (tables["fx_rates"][name].to_pylist() for name in ("date", "currency", "rate"))
    return Rates.of(base, zip(*columns, strict=True))


def without_rate(tables: Tables, rates: Rates) -> list[str]:
    """What is to be said of amounts that no rate turns into the base currency: they are unknown.

    >>> row = {"refund_id": "r", "customer_id": "c", "known_at": 10**12, "amount_minor": 5,
    ...        "currency": "USD"}
    >>> without_rate({"refund_requests": pa.Table.from_pylist([row])}, Rates("GBP"))
    ['refund_requests: 1 amounts in USD, which had no rate to GBP on their day, are unknown']
    """
    said = []
    for name in (name for name in ("orders", "refund_requests") if name in tables):
        table = tables[name]
        known_at = table["known_at"].to_numpy().astype(np.int64)
        currencies = codes_of("currency", table["currency"])
        one = np.ones(len(known_at), np.int64)
        lost = currencies[np.isnan(rates.to_base_codes(one, currencies, known_at))]
        for code, count in zip(*np.unique(lost, return_counts=True), strict=True):
            said.append(f"{name}: {count:,} amounts in {CURRENCIES[code]}, which had no rate to "
                        f"{rates.base} on their day, are unknown")  # fmt: skip
    return said


def data_digest(tables: Tables) -> str:
    """A SHA-256 over the content of canonical tables: the same folder, the same digest."""
    digest = hashlib.sha256()
    for name in sorted(tables):
        digest.update(name.encode())
        digest.update(tables[name].schema.serialize())
        for batch in tables[name].combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()


# --- features --------------------------------------------------------------------------------


@dataclass(frozen=True)
class FeatureFrame:
    """One row per row of refund_requests, in its order: what `recourse features` writes.

    ``refund_id`` (m,), ``known_at`` (m,) in epoch ms, ``columns`` float64 (m,) by the names of the
    catalog, NaN where unknown.
    """

    refund_id: NDArray[np.object_]
    known_at: IntArray
    columns: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return len(self.known_at)

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in the order of the catalog."""
        return tuple(self.columns)

    @property
    def matrix(self) -> FloatArray:
        """All features (m, F): a copy, as large as the frame."""
        return self.rows(slice(None))

    def rows(self, rows: IntArray | slice) -> FloatArray:
        """The features of some rows, (n, F)."""
        return np.column_stack([values[rows] for values in self.columns.values()])


def feature_frame(tables: Tables, rates: Rates) -> FeatureFrame:
    """All features of the catalog, each request as of its own ``known_at``."""
    history, requests = attribute(tables, rates)
    refunds = tables["refund_requests"]
    return FeatureFrame(
        np.array(refunds["refund_id"].to_pylist(), dtype=object),
        refunds["known_at"].to_numpy().astype(np.int64),
        compute(PLAN, requests, history),
    )


ROWS_PER_GROUP: Final = 65_536
"""Rows of a Parquet row group: what is written, and may be read, at once."""


def write_frame(frame: FeatureFrame, path: Path) -> None:
    """Write a frame as Parquet: ``refund_id``, ``known_at`` (epoch ms), then the features."""
    parts = (slice(at, at + ROWS_PER_GROUP) for at in range(0, len(frame), ROWS_PER_GROUP))
    tables = (
        features_table(
            pa.array(frame.refund_id[part].tolist(), pa.string()), frame.known_at[part],
            {name: values[part] for name, values in frame.columns.items()},
        )
        for part in parts
    )  # fmt: skip
    write_features(tables, frame.names, path)


def features_table(
    refund_id: pa.Array, known_at: IntArray, columns: Mapping[str, FloatArray]
) -> pa.Table:
    """Rows of a file of features."""
    return pa.table({"refund_id": refund_id, "known_at": known_at, **columns})


def write_features(parts: Iterable[pa.Table], names: Sequence[str], path: Path) -> None:
    """Write parts of a file of features one behind the other; all of it, or no file at all.

    The same rows give the same bytes, however they come in parts.
    """
    numbers = dict.fromkeys(names, pa.float64())
    schema = pa.schema({"refund_id": pa.string(), "known_at": pa.int64(), **numbers})
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid4().hex[:8]}.unfinished")
    try:
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            rest = schema.empty_table()
            for part in parts:
                rest = pa.concat_tables([rest, part])
                while len(rest) >= ROWS_PER_GROUP:
                    writer.write_table(rest.slice(0, ROWS_PER_GROUP).combine_chunks())
                    rest = rest.slice(ROWS_PER_GROUP)
            if len(rest):
                writer.write_table(rest.combine_chunks())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


# --- examples --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examples:
    """Labelled refunds in order of time: arrays of one length n.

    ``row`` is the refund's place in the canonical table of refund requests, ``customer`` holds
    codes (rows of one code are of one customer), ``matrix`` (n, F) a column per name, ``abuse`` 1
    or 0, ``basis`` whose word that is (`training.labels.BASES`).
    """

    row: IntArray
    refund_id: NDArray[np.object_]
    customer: IntArray
    known_at: IntArray
    matrix: FloatArray
    names: tuple[str, ...]
    abuse: FloatArray
    basis: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.abuse)

    @property
    def positives(self) -> int:
        """How many are abuse."""
        return int(self.abuse.sum())

    def columns(self, names: Sequence[str]) -> FloatArray:
        """The matrix (n, len(names)) of some features."""
        place = {name: column for column, name in enumerate(self.names)}
        return np.ascontiguousarray(self.matrix[:, [place[name] for name in names]])

    def column(self, name: str) -> FloatArray:
        """One feature (n,)."""
        return self.matrix[:, self.names.index(name)]

    @property
    def inputs(self) -> FloatArray:
        """What a model of this catalog sees, (n, len(MODEL_NAMES))."""
        return self.columns(MODEL_NAMES)

    def rows(self, start: int, stop: int) -> Examples:
        """The examples from ``start`` up to ``stop``, in order of time."""
        return self.where(slice(start, stop))

    def where(self, chosen: slice | NDArray[Any]) -> Examples:
        """The chosen examples: a slice, places in order, or a mask (n,)."""
        return Examples(
            self.row[chosen], self.refund_id[chosen], self.customer[chosen], self.known_at[chosen],
            self.matrix[chosen], self.names, self.abuse[chosen], self.basis[chosen],
        )  # fmt: skip


@dataclass(frozen=True)
class TimeSplit:
    """Training and test examples around ``test_from``; labels end at ``as_of`` (epoch ms).

    ``train_labels`` and ``test_labels`` count refunds by basis, those left out included.
    """

    train: Examples
    test: Examples
    test_from: int
    as_of: int
    maturity_days: int
    train_labels: dict[str, dict[str, int]]
    test_labels: dict[str, dict[str, int]]


def training_frame(
    tables: Tables,
    rates: Rates,
    *,
    test_from: int | None = None,
    maturity_days: int = DEFAULT_MATURITY_DAYS,
) -> TimeSplit:
    """Split a canonical data folder in time, with features and labels.

    ``test_from`` is epoch ms; without it the latest `TEST_SHARE` of the mature refunds, from a UTC
    midnight on, are the test. A refund is one example, at its first version. Raises TooLittleData
    where either side would be empty.
    """
    as_of = end_of(tables)
    if test_from is None:
        test_from = _latest_share(tables, as_of, maturity_days)
    at_test = label_refunds(tables, as_of=test_from, maturity_days=maturity_days)
    at_end = label_refunds(tables, as_of=as_of, maturity_days=maturity_days)
    features = feature_frame(tables, rates)
    customers = tables["refund_requests"]["customer_id"].combine_chunks().dictionary_encode()
    codes = customers.indices.to_numpy().astype(np.int64)

    def examples(labels: Labels, chosen: NDArray[np.bool_]) -> Examples:
        kept = chosen & ~np.isnan(labels.abuse)
        rows = labels.row[kept]
        return Examples(
            rows, features.refund_id[rows], codes[rows], features.known_at[rows],
            features.rows(rows), features.names, labels.abuse[kept], labels.basis[kept],
        )  # fmt: skip

    before, after = at_test.known_at < test_from, at_end.known_at >= test_from
    split = TimeSplit(
        examples(at_test, before), examples(at_end, after), test_from, as_of, maturity_days,
        at_test.counts(before), at_end.counts(after),
    )  # fmt: skip
    empty = [name for name, part in (("training", split.train), ("test", split.test))
             if not len(part)]  # fmt: skip
    if empty:
        raise TooLittleData(
            f"no mature, labelled refunds for {' and '.join(empty)}: the test starts at "
            f"{_day(test_from)}, the data ends at {_day(as_of)}, a label takes {maturity_days} days"
        )
    return split


def end_of(tables: Tables) -> int:
    """The first instant at which all events of the folder were known."""
    latest = [int(tables[name]["known_at"].to_numpy().max()) for name in EVENT_OF_TABLE
              if name in tables and tables[name].num_rows]  # fmt: skip
    if not latest or not tables["refund_requests"].num_rows:
        raise TooLittleData("the data folder has no refund requests")
    return max(latest) + 1


def _latest_share(tables: Tables, as_of: int, maturity_days: int) -> int:
    known_at = tables["refund_requests"]["known_at"].to_numpy()
    mature = known_at[known_at <= as_of - maturity_days * DAY_MS]
    if not len(mature):
        raise TooLittleData(
            f"no refund is mature: the first came at {_day(int(known_at.min()))}, the data ends at "
            f"{_day(as_of)}, a label takes {maturity_days} days"
        )
    start = int(mature[int(len(mature) * (1 - TEST_SHARE))])
    return start // DAY_MS * DAY_MS


def _day(epoch_ms: int) -> str:
    return str(np.datetime64(epoch_ms, "ms").astype("datetime64[D]"))
