"""The training frame: a gap between training and test, and nothing of the future in it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.catalog import FEATURES, MODEL_FEATURES
from features.money import DAY_MS
from features.tables import Tables
from tests.training.tables import START, folder_of
from training.dataset import (
    MODEL_NAMES,
    TimeSplit,
    TooLittleData,
    data_digest,
    feature_frame,
    rates_of,
    training_frame,
    write_frame,
)
from training.labels import IGNORED, label_refunds

YEAR = START + 365 * DAY_MS


def known_before(tables: Tables, instant: int) -> Tables:
    """The folder as it was at an instant."""
    return {
        name: table.filter(pc.less(table["known_at"], instant))
        if "known_at" in table.column_names else table
        for name, table in tables.items()
    }  # fmt: skip


def request(number: int, at: int, **more: Any) -> dict[str, Any]:
    return {"refund_id": f"r{number}", "customer_id": "c", "known_at": at, "amount_minor": 10,
            "currency": "GBP", **more}  # fmt: skip


# --- the split -----------------------------------------------------------------------------------


def test_between_training_and_test_lies_the_time_a_label_takes(split: TimeSplit) -> None:
    assert split.train.known_at.max() <= split.test_from - 60 * DAY_MS
    assert split.test.known_at.min() >= split.test_from
    assert split.test.known_at.max() <= split.as_of - 60 * DAY_MS
    assert split.test_from % DAY_MS == 0
    share = len(split.test) / (len(split.test) + len(split.train))
    assert 0.15 < share < 0.35


def test_a_refund_is_one_example(split: TimeSplit, tables: Tables) -> None:
    refunds = [*split.train.refund_id, *split.test.refund_id]
    assert len(set(refunds)) == len(refunds)
    versions = tables["refund_requests"]["refund_id"]
    assert len(pc.unique(versions)) < len(versions)


def test_examples_are_in_order_of_time(split: TimeSplit) -> None:
    for part in (split.train, split.test):
        assert (np.diff(part.known_at) >= 0).all()


def test_the_test_may_start_where_one_says(tables: Tables) -> None:
    chosen = YEAR - 60 * DAY_MS
    split = training_frame(tables, rates_of(tables), test_from=chosen, maturity_days=30)
    assert split.test_from == chosen
    assert chosen <= split.test.known_at.min() < chosen + DAY_MS
    assert chosen - 31 * DAY_MS < split.train.known_at.max() <= chosen - 30 * DAY_MS


# --- nothing of the future -----------------------------------------------------------------------


def test_training_is_the_same_without_anything_known_later(
    split: TimeSplit, tables: Tables
) -> None:
    past = known_before(tables, split.test_from)
    then = label_refunds(past, as_of=split.test_from)
    now = label_refunds(tables, as_of=split.test_from)
    # A merchant's own mistakes are left out whenever they come to light: cleaning, not a leak.
    kept = now.basis != IGNORED
    assert kept.sum() > 1000
    np.testing.assert_array_equal(then.row, now.row)
    np.testing.assert_array_equal(then.abuse[kept], now.abuse[kept])
    np.testing.assert_array_equal(then.basis[kept], now.basis[kept])
    features = feature_frame(past, rates_of(past)).matrix
    np.testing.assert_array_equal(features, feature_frame(tables, rates_of(tables)).matrix[
        : len(features)])  # fmt: skip


def test_turning_every_later_label_round_changes_no_training_label(
    split: TimeSplit, tables: Tables
) -> None:
    labels = tables["labels"]
    later = pc.greater_equal(labels["known_at"], split.test_from)
    assert pc.sum(later).as_py() > 100
    turned = pc.if_else(pc.equal(labels["label"], "REFUND_ABUSE"), "NOT_REFUND_ABUSE",
                        "REFUND_ABUSE")  # fmt: skip
    place = labels.schema.get_field_index("label")
    changed = labels.set_column(place, "label", pc.if_else(later, turned, labels["label"]))
    again = training_frame({**tables, "labels": changed}, rates_of(tables))
    assert again.train_labels == split.train_labels
    np.testing.assert_array_equal(again.train.abuse, split.train.abuse)
    np.testing.assert_array_equal(again.train.matrix, split.train.matrix)
    assert again.test_labels != split.test_labels


# --- features, rates, digest ---------------------------------------------------------------------


def test_a_feature_frame_has_the_catalogs_columns_and_a_row_per_version(tables: Tables) -> None:
    frame = feature_frame(tables, rates_of(tables))
    assert frame.names == tuple(feature.name for feature in FEATURES)
    assert frame.matrix.shape == (tables["refund_requests"].num_rows, len(FEATURES))
    assert frame.matrix.dtype == np.float64
    assert frame.known_at.tolist() == tables["refund_requests"]["known_at"].to_pylist()


def test_a_written_frame_is_read_as_it_was(tables: Tables, tmp_path: Path) -> None:
    frame = feature_frame(tables, rates_of(tables))
    write_frame(frame, tmp_path / "new" / "features.parquet")
    table = pq.read_table(tmp_path / "new" / "features.parquet")
    assert table.column_names == ["refund_id", "known_at", *frame.names]
    assert table["refund_id"].to_pylist() == frame.refund_id.tolist()
    written = np.column_stack([table[name].to_numpy() for name in frame.names])
    np.testing.assert_array_equal(written, frame.matrix)


def test_columns_are_picked_by_name_and_models_see_no_facts_of_rules(split: TimeSplit) -> None:
    test = split.test
    assert len(MODEL_NAMES) == len(MODEL_FEATURES) < len(FEATURES)
    picked = test.columns(["payable_minor", "reason"])
    np.testing.assert_array_equal(picked[:, 0], test.column("payable_minor"))
    assert test.inputs.shape == (len(test), len(MODEL_NAMES))


def test_rates_come_from_the_folder_and_without_a_table_only_the_base_is_known() -> None:
    rows = [{"date": "2025-01-01", "currency": "USD", "rate": 0.5}]
    at = np.array([START + DAY_MS])
    assert rates_of(folder_of(fx_rates=rows)).to_base(np.array([10]), ["USD"], at).tolist() == [5.0]
    bare = rates_of({}, "EUR").to_base(np.array([10, 10]), ["EUR", "USD"], at.repeat(2))
    np.testing.assert_array_equal(bare, [10, np.nan])


def test_the_digest_follows_the_content() -> None:
    def digest(*rows: dict[str, Any]) -> str:
        return data_digest(folder_of(refund_requests=rows))

    one, two = request(1, START), request(2, START + 1)
    assert digest(one, two) == digest(two, one)
    assert digest(one, two) != digest(one, {**two, "amount_minor": 11})


# --- too little ----------------------------------------------------------------------------------


def test_too_little_data_is_refused_with_what_is_missing() -> None:
    with pytest.raises(TooLittleData, match="no refund requests"):
        training_frame(folder_of(refund_requests=[]), rates_of({}))
    young = folder_of(refund_requests=[request(1, START), request(2, START + DAY_MS)])
    with pytest.raises(TooLittleData, match=r"no refund is mature: .*2025-01-01.* 60 days"):
        training_frame(young, rates_of({}))
    unpaid = folder_of(refund_requests=[request(1, START), request(2, YEAR)])
    with pytest.raises(TooLittleData, match="labelled refunds for training and test"):
        training_frame(unpaid, rates_of({}), test_from=START + 90 * DAY_MS)
