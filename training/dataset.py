"""From a data folder to a training frame: features, labels, and a time split with a gap.

Refunds requested before ``test_from`` are for training, those from it on for the test. Training
labels are those known at ``test_from``, so the refunds of the maturity window before it are in
neither: that gap is the delay with which labels arrive. Test labels are those known at the end of
the data. The prequential folds repeat that within the training period: each learns from what was
mature when it starts. A random split would let a model know the future.
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
from training.labels import DEFAULT_MATURITY_DAYS, Labels, delays, label_refunds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TEST_SHARE: Final = 0.2
"""Where no ``test_from`` is given: the share of mature refunds, the latest, that are the test."""

FOLDS: Final = 4
FOLDS_SHARE: Final = 0.4
"""How many prequential folds, and which share of the training examples, the latest, they judge."""

MIN_POSITIVES: Final = 10
"""Each part needs at least so many cases of abuse: below, its figures are noise."""

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

    ``row`` is the refund's place in the canonical table of refund requests and in the arrays of
    ``features``, which all examples of a folder share. ``customer`` holds codes (rows of one code
    are of one customer), ``abuse`` 1 or 0, ``basis`` whose word that is (`training.labels.BASES`).
    """

    row: IntArray
    refund_id: NDArray[np.object_]
    customer: IntArray
    known_at: IntArray
    features: Mapping[str, FloatArray]
    abuse: FloatArray
    basis: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.abuse)

    @property
    def positives(self) -> int:
        """How many are abuse."""
        return int(self.abuse.sum())

    @property
    def names(self) -> tuple[str, ...]:
        """The features that are known of them."""
        return tuple(self.features)

    @property
    def matrix(self) -> FloatArray:
        """All their features (n, F): a copy."""
        return self.columns(self.names)

    def columns(self, names: Sequence[str]) -> FloatArray:
        """Some features (n, len(names)): a copy."""
        if not names:
            return np.zeros((len(self), 0))
        return np.column_stack([self.column(name) for name in names])

    def column(self, name: str) -> FloatArray:
        """One feature (n,)."""
        return self.features[name][self.row]

    @property
    def inputs(self) -> FloatArray:
        """What a model of this catalog sees, (n, len(MODEL_NAMES))."""
        return self.columns(MODEL_NAMES)

    @classmethod
    def one_after_another(cls, parts: Sequence[Examples]) -> Examples:
        """Examples of one folder, in the order of the parts."""
        names = ("row", "refund_id", "customer", "known_at", "abuse", "basis")
        whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(features=parts[0].features, **whole)

    def rows(self, start: int, stop: int) -> Examples:
        """The examples from ``start`` up to ``stop``, in order of time."""
        return self.where(slice(start, stop))

    def where(self, chosen: slice | NDArray[Any]) -> Examples:
        """The chosen examples: a slice, places in order, or a mask (n,)."""
        return Examples(
            self.row[chosen], self.refund_id[chosen], self.customer[chosen], self.known_at[chosen],
            self.features, self.abuse[chosen], self.basis[chosen],
        )  # fmt: skip


@dataclass(frozen=True)
class Fold:
    """A step of prequential validation: learn from what was known at ``start``, then be judged.

    ``learn`` are the refunds mature at ``start``, under the labels known then; ``judge`` those
    requested from ``start`` up to ``end`` (epoch ms), under the labels known when the test began.
    """

    start: int
    end: int
    learn: Examples
    judge: Examples


@dataclass(frozen=True)
class TimeSplit:
    """Training and test examples around ``test_from``; labels end at ``as_of`` (epoch ms).

    ``folds`` divide the training period as ``test_from`` divides the whole. ``train_labels`` and
    ``test_labels`` count refunds by basis, those left out included; ``label_delays`` says how long
    labels took (`training.labels.delays`).
    """

    train: Examples
    test: Examples
    test_from: int
    as_of: int
    maturity_days: int
    train_labels: dict[str, dict[str, int]]
    test_labels: dict[str, dict[str, int]]
    folds: tuple[Fold, ...] = ()
    label_delays: tuple[dict[str, Any], ...] = ()


class _Folder:
    """A folder's features, and examples of it under labels of any time."""

    def __init__(self, tables: Tables, maturity_days: int, features: FeatureFrame) -> None:
        customers = tables["refund_requests"]["customer_id"].combine_chunks().dictionary_encode()
        self._customer = customers.indices.to_numpy().astype(np.int64)
        self._tables, self._maturity_days, self._features = tables, maturity_days, features

    def labels(self, as_of: int) -> Labels:
        return label_refunds(self._tables, as_of=as_of, maturity_days=self._maturity_days)

    def examples(self, labels: Labels, chosen: NDArray[np.bool_]) -> Examples:
        """The chosen of the labels' refunds (n,) that have one."""
        kept, frame = chosen & ~np.isnan(labels.abuse), self._features
        rows = labels.row[kept]
        return Examples(
            rows, frame.refund_id[rows], self._customer[rows], frame.known_at[rows],
            frame.columns, labels.abuse[kept], labels.basis[kept],
        )  # fmt: skip


def labelled_examples(
    tables: Tables, rates: Rates, *, since: int, until: int | None = None, maturity_days: int
) -> tuple[Examples, dict[str, dict[str, int]]]:
    """The refunds requested from ``since`` up to ``until`` (epoch ms) that have a mature label.

    Labels are those known at the end of the data. With them come the counts of all refunds of that
    time by basis (`training.labels.Labels.counts`).
    """
    folder = _Folder(tables, maturity_days, feature_frame(tables, rates))
    labels = folder.labels(end_of(tables))
    chosen = labels.known_at >= since
    if until is not None:
        chosen &= labels.known_at < until
    return folder.examples(labels, chosen), labels.counts(chosen)


def training_frame(
    tables: Tables,
    rates: Rates,
    *,
    test_from: int | None = None,
    test_until: int | None = None,
    maturity_days: int = DEFAULT_MATURITY_DAYS,
    train_days: int | None = None,
    folds: int = FOLDS,
    fold_days: int | None = None,
    features: FeatureFrame | None = None,
) -> TimeSplit:
    """Split a canonical data folder in time, with features and labels.

    ``test_from`` is epoch ms; without it the latest `TEST_SHARE` of the mature refunds, from a UTC
    midnight on, are the test. ``test_until`` ends the test before the data do. A refund is one
    example, at its first version.

    ``train_days`` forgets what is older than so many days before the label gap; without it
    everything mature is learnt from. The ``folds`` of prequential validation end where the
    training examples end, each ``fold_days`` long; without a length they share the latest
    `FOLDS_SHARE` of the training examples, and are fewer where abuse is too rare for so many.
    ``features`` are those of `feature_frame`, where a caller has them already. Raises
    TooLittleData where a side would be empty, ValueError for a test that ends before it starts.
    """
    as_of = end_of(tables)
    if test_from is None:
        test_from = _latest_share(tables, as_of, maturity_days)
    if test_until is not None and test_until <= test_from:
        raise ValueError(
            f"test_until: expected later than the test's start, {day_of(test_from)}, got "
            f"{day_of(test_until)}"
        )
    folder = _Folder(
        tables, maturity_days, feature_frame(tables, rates) if features is None else features
    )

    def labelled(instant: int) -> tuple[Labels, NDArray[np.bool_]]:
        """Labels at an instant, and which of them a model may learn from then."""
        labels = folder.labels(instant)
        mature_until = instant - maturity_days * DAY_MS
        oldest = -np.inf if train_days is None else mature_until - train_days * DAY_MS
        return labels, (labels.known_at < instant) & (labels.known_at >= oldest)

    at_test, before = labelled(test_from)
    at_end = folder.labels(as_of)
    after = at_end.known_at >= test_from
    if test_until is not None:
        after &= at_end.known_at < test_until
    train, test = folder.examples(at_test, before), folder.examples(at_end, after)
    _check_not_empty(train, test, test_from, as_of, maturity_days)
    steps = []
    for start, end in _fold_times(train, test_from, maturity_days, folds, fold_days):
        judged = (at_test.known_at >= start) & (at_test.known_at < end)
        steps.append(
            Fold(start, end, folder.examples(*labelled(start)), folder.examples(at_test, judged))
        )
    return TimeSplit(
        train, test, test_from, as_of, maturity_days, at_test.counts(before), at_end.counts(after),
        tuple(steps), tuple(delays(at_end)),
    )  # fmt: skip


def _check_not_empty(
    train: Examples, test: Examples, test_from: int, as_of: int, maturity_days: int
) -> None:
    empty = [name for name, part in (("training", train), ("test", test)) if not len(part)]
    if empty:
        raise TooLittleData(
            f"no mature, labelled refunds for {' and '.join(empty)}: the test starts at "
            f"{day_of(test_from)}, the data ends at {day_of(as_of)}, a label takes "
            f"{maturity_days} days"
        )


def _fold_times(
    train: Examples, test_from: int, maturity_days: int, folds: int, fold_days: int | None
) -> list[tuple[int, int]]:
    """Where the folds start and end: one behind the other, the last with what is mature.

    Where no length is asked for, fewer and longer ones are made of data that has too little abuse.
    """
    end = test_from - maturity_days * DAY_MS
    if fold_days is not None:
        return _steps(end, folds, fold_days)
    first = train.known_at[int(len(train) * (1 - FOLDS_SHARE))]
    for number in range(folds, 0, -1):
        steps = _steps(end, number, max(1, int((end - first) // (number * DAY_MS))))
        edges = [steps[0][0], *(stop for _, stop in steps)]
        abuse, _ = np.histogram(train.known_at[train.abuse == 1], edges)
        if abuse.min() >= MIN_POSITIVES:
            break
    return steps


def _steps(end: int, number: int, days: int) -> list[tuple[int, int]]:
    starts = [end - left * days * DAY_MS for left in range(number, 0, -1)]
    return [(start, start + days * DAY_MS) for start in starts]


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
            f"no refund is mature: the first came at {day_of(known_at.min())}, the data ends at "
            f"{day_of(as_of)}, a label takes {maturity_days} days"
        )
    start = int(mature[int(len(mature) * (1 - TEST_SHARE))])
    return start // DAY_MS * DAY_MS


def day_of(epoch_ms: int) -> str:
    """The UTC day of an instant, ISO 8601.

    >>> day_of(86_400_000)
    '1970-01-02'
    """
    return str(np.datetime64(int(epoch_ms), "ms").astype("datetime64[D]"))
