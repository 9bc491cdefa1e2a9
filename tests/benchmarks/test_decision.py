"""The benchmark of a decision on a small world and for a blink, so that it cannot rot."""

import itertools
from pathlib import Path

import orjson
import pytest

from benchmarks.decision import bodies, main, returning_refunds, run
from benchmarks.service import BenchmarkError
from features.tables import write_folder
from tests.training.tables import folder_of, simulated

DAY = 86_400_000
START = 1_735_689_600_000


def refund(refund_id: str, customer_id: str, day: int) -> dict[str, object]:
    return {
        "refund_id": refund_id, "customer_id": customer_id, "known_at": START + day * DAY,
        "amount_minor": 500, "currency": "GBP", "order_id": "o1", "reason": "OTHER",
    }  # fmt: skip


def test_only_customers_with_two_refunds_in_a_year_are_asked_about() -> None:
    tables = folder_of(
        refund_requests=[refund("r1", "a", 1), refund("r2", "a", 800), refund("r3", "b", 900),
                         refund("r4", "b", 1000), refund("r5", "c", 1000)]
    )  # fmt: skip
    assert [row["refund_id"] for row in returning_refunds(tables)] == ["r4"]
    with pytest.raises(BenchmarkError, match="no customer with two refunds"):
        returning_refunds(folder_of(refund_requests=[refund("r1", "a", 1)]))


def test_each_request_is_a_new_refund_after_all_history() -> None:
    rows = [refund("r1", "a", 1), refund("r2", "b", 2)]
    sent = [orjson.loads(body) for body in itertools.islice(bodies(rows, 5 * DAY), 3)]
    assert [body["customer"]["customerId"] for body in sent] == ["a~1", "b~1", "a~1"]
    assert len({body["refund"]["refundId"] for body in sent} | {"r1", "r2"}) == 5
    assert [body["timestamp"] - 5 * DAY for body in sent] == [1, 2, 3]


def test_a_population_has_ids_of_its_own() -> None:
    rows = [refund("r1", "a", 1)]
    sent = [orjson.loads(body) for body in itertools.islice(bodies(rows, 5 * DAY, 2), 3)]
    assert [body["customer"]["customerId"] for body in sent] == ["a~2", "a~1", "a~2"]
    assert [body["order"]["orderId"] for body in sent] == ["o1~2", "o1~1", "o1~2"]


def test_all_are_measured_alike(model_home: Path, tmp_path: Path) -> None:
    world = simulated(customers=300, days=120, seed=7)
    # As an export would: tables without rows are left out.
    write_folder({name: t for name, t in world.items() if t.num_rows}, tmp_path / "data")
    report = run(tmp_path / "data", model_home, tmp_path, events=6_000, rounds=1,
                 seconds=0.3, workers=1)  # fmt: skip
    assert report["model_version"] == "7"
    assert report["events"] >= 6_000
    assert set(report["results"]) == {"floor", "usual", "recourse"}
    for result in report["results"].values():
        assert (result["failed"], result["degraded"]) == (0, 0)
        assert result["answers"] > 10
        assert 0 < result["p50_ms"] <= result["p95_ms"] <= result["p99_ms"]
        assert result["requests_per_second"] > 0
        assert 0 < result["generator_cpu_share"] < 1
    ours, floor = report["results"]["recourse"], report["results"]["floor"]
    assert report["ratios"]["p50_ms_to_floor"] == round(ours["p50_ms"] / floor["p50_ms"], 2)
    assert report["ratios"]["p50_ms_to_floor"] > 1, "the floor does less"
    assert {"read", "features", "model", "write"} <= set(report["stages_us"])


def test_without_data_it_says_so_and_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path / "none"), "--model-home", str(tmp_path)]) == 2
    assert "none: expected a folder of tables" in capsys.readouterr().err


def test_without_a_model_it_says_so_and_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [refund("r1", "a", 1), refund("r2", "a", 2)]
    write_folder(folder_of(refund_requests=rows), tmp_path / "data")
    home = tmp_path / "home"
    assert main(["--data", str(tmp_path / "data"), "--model-home", str(home)]) == 2
    assert f"{home}: no model is served" in capsys.readouterr().err
