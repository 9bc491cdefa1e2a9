"""Replay equals serving: what a decision saw is what the engine makes of the exported store."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from features.money import DAY_MS, Rates
from features.tables import EVENT_OF_TABLE, read_folder, write_folder
from tests.e2e.service import Service, recourse
from training.dataset import feature_frame, rates_of
from training.demo import request_of

SCORED = 60


@pytest.fixture(scope="module")
def served(world: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A sandbox with the world's past in it, and decisions on the refunds that came after."""
    home = tmp_path_factory.mktemp("replay")
    tables = dict(read_folder(world).tables)
    cut = int(pc.max(tables["refund_requests"]["known_at"]).as_py()) - 20 * DAY_MS
    later = tables["refund_requests"].filter(pc.greater_equal(
        tables["refund_requests"]["known_at"], cut))  # fmt: skip
    past = {
        name: table.filter(pc.less(table["known_at"], cut)) if name in EVENT_OF_TABLE else table
        for name, table in tables.items()
    }
    for items, parent, key in (("order_items", "orders", "order_id"),
                               ("refund_items", "refund_requests", "refund_id")):  # fmt: skip
        past[items] = past[items].filter(pc.is_in(past[items][key], past[parent][key]))
    write_folder(past, home / "past")
    recourse(home, "import", str(home / "past"), "--mode", "test", RECOURSE_CLOCK="event")
    (home / "model").symlink_to(trained / "model")
    with Service(home, clock="event") as service:
        decisions = []
        for row in range(SCORED):
            body = request_of({"refund_requests": later}, row)
            if row % 3 == 0:
                body["order"] |= {"price": 12_345, "currency": body["refund"]["currency"]}
            answer = service.score(body, "test")
            assert answer.status_code == 200, answer.text
            data = answer.json()["data"]
            decisions.append(
                (body["refund"]["refundId"], service.features(data["scoreId"], "test"))
            )
            assert not data["degraded"], data["warnings"]
    out = home / "export"
    recourse(home, "export", "--mode", "test", "--out", str(out), RECOURSE_CLOCK="event")
    yield decisions, read_folder(out).tables


def test_every_served_row_equals_the_offline_row(served: Any) -> None:
    decisions, tables = served
    frame = feature_frame(tables, rates_of(tables))
    offline = {
        (refund_id, known_at): dict(zip(frame.names, row, strict=True))
        for refund_id, known_at, row in zip(frame.refund_id, frame.known_at.tolist(),
                                            frame.matrix.tolist(), strict=True)
    }  # fmt: skip
    by_refund = {refund_id: row for (refund_id, _), row in sorted(offline.items())}
    with_history = 0
    for refund_id, row in decisions:
        expected = {n: None if math.isnan(v) else v for n, v in by_refund[refund_id].items()}
        different = {n: (row[n], expected[n]) for n in row if row[n] != expected[n]}
        assert not different, (refund_id, different)
        with_history += (row["order_count_by_customer_365d"] or 0) > 0
    assert with_history > SCORED / 2, "equality over empty histories would mean little"


def test_an_unknown_currency_is_unknown_and_not_zero(served: Any) -> None:
    _, tables = served
    base_only = feature_frame(tables, Rates("GBP"))
    converted = feature_frame(tables, rates_of(tables))
    payable = base_only.names.index("payable_minor")
    foreign = pc.not_equal(tables["refund_requests"]["currency"], "GBP").to_numpy(
        zero_copy_only=False
    )
    assert foreign.any()
    assert all(math.isnan(v) for v in base_only.matrix[foreign, payable])
    assert not any(math.isnan(v) for v in converted.matrix[foreign, payable])
