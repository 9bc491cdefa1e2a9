"""The feature benchmark at small sizes: every engine is right, and a wrong one is found out."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.features import (
    NOT_COMPUTED,
    Engine,
    Log,
    World,
    counts_and_sums,
    differences,
    distinct_counts,
    in_duckdb,
    in_pandas,
    in_polars,
    main,
    make_log,
    measure_one,
    measure_world,
    ours,
    save_world,
    take_turns,
)
from features.catalog import PLAN
from features.feature import Aggregate
from features.money import DAY_MS
from features.tables import canonical_table, read_folder, write_folder


@pytest.fixture(scope="module")
def log() -> Log:
    """On whole days, so that windows end on events and many are at one instant."""
    made = make_log(3000)
    return Log(made.time // DAY_MS * DAY_MS, made.keys, made.amount)


def by_hand(log: Log, a: Aggregate) -> list[int]:
    """From the definition: over [t - w, t) of the same holder."""
    holder, days = log.keys[a.by].tolist(), (log.time // DAY_MS).tolist()
    values = (log.columns()[a.column] if a.column else log.amount).tolist()
    found = []
    for row, (mine, now) in enumerate(zip(holder, days, strict=True)):
        window = [
            values[i]
            for i in range(row)
            if holder[i] == mine and now - a.days <= days[i] < now
        ]  # fmt: skip
        found.append(sum(window) if a.op == "total" else len(
            window if a.op == "count" else set(window)))  # fmt: skip
    return found


@pytest.mark.parametrize(
    "columns", [counts_and_sums(), distinct_counts()], ids=["sums", "distinct"]
)
def test_ours_is_what_the_definition_says(log: Log, columns: list[Aggregate]) -> None:
    engine = ours(log, columns)
    answer = engine.answer(engine.run())
    for aggregate in columns:
        assert answer[aggregate.name].tolist() == by_hand(log, aggregate), aggregate.name


def test_every_engine_agrees_with_ours(log: Log) -> None:
    columns = counts_and_sums()
    peers = [in_duckdb(log, columns), in_polars(log, columns), in_pandas(log, columns, 0.5)]
    report = take_turns([ours(log, columns), *peers], rounds=1)
    assert report["differences"] == []
    assert report["columns"] == 16
    assert report["compared"]["duckdb"] == report["compared"]["polars"] == 16 * len(log)
    assert 4 * len(log) < report["compared"]["pandas"] < 16 * len(log)
    assert report["extrapolated_by"].keys() == {"pandas"}
    distinct = distinct_counts()
    assert not take_turns([ours(log, distinct), in_duckdb(log, distinct)], 1)["differences"]


def test_a_difference_names_engine_column_and_row() -> None:
    right, wrong = np.array([0, 1, 2, 3]), np.array([0, NOT_COMPUTED, 5, 6])
    assert differences("peer", {"a": right, "b": right}, {"a": right, "b": wrong}) == [
        {"engine": "peer", "column": "b", "rows": 2, "first_row": 2, "ours": 2, "theirs": 5}
    ]


def test_the_bound_on_a_windows_events_is_lifted() -> None:
    n = 1500
    keys = {"device": np.zeros(n, np.int64), "ip": np.zeros(n, np.int64)}
    engine = ours(Log(np.arange(n) * 1000, keys, np.ones(n, np.int64)), counts_and_sums())
    assert engine.answer(engine.run())["refund_count_by_device_365d"][-1] == n - 1


def test_an_extrapolated_time_is_multiplied() -> None:
    def engine(name: str, factor: float) -> Engine:
        return Engine(
            name, lambda: sum(range(10**6)), lambda _: {"a": np.ones(1, np.int64)}, factor
        )

    report = take_turns([engine("ours", 1), engine("part", 100)], rounds=1)
    assert report["ratio"]["part"] > 10
    assert report["extrapolated_by"] == {"part": 100}


def test_a_world_is_a_canonical_data_folder(tmp_path: Path) -> None:
    tables = World(200, customers=20, days=90).tables()
    assert tables["refund_requests"].num_rows == 200
    assert sum(table.num_rows for table in tables.values()) == 800
    for name, table in tables.items():
        assert canonical_table(name, table).equals(table), name
    write_folder(tables, tmp_path)
    read = read_folder(tmp_path).tables
    assert all(read[name].equals(table) for name, table in tables.items())


def test_two_worlds_share_no_identifier() -> None:
    worlds = (World(50, customers=1, days=90), World(50, customers=9, days=90, first=1000, ip=1000))
    seen = []
    for world in worlds:
        requests = world.tables()["refund_requests"]
        columns = ("event_id", "refund_id", "order_id", "customer_id", "device_id", "ip")
        seen.append({value for column in columns for value in requests[column].to_pylist()})
    assert seen[0].isdisjoint(seen[1])
    assert set(worlds[1].tables()["orders"]["ip"].to_pylist()) == {"ip-1000"}


def test_a_world_is_measured(tmp_path: Path) -> None:
    save_world(300, tmp_path)
    report = measure_world(tmp_path, rounds=1)
    assert (report["requests"], report["other_events"]) == (300, 900)
    assert report["features"] == len(PLAN.features)
    assert report["peak_mb"] >= report["peak_before_mb"] > 0
    assert report["result_mb"] == round(8 * 300 * len(PLAN.features) / 2**20)
    assert report["seconds"] == pytest.approx(
        report["attribute_seconds"] + report["compute_seconds"], abs=0.002
    )


def test_the_command_prints_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["windows", "distinct", "--requests", "500", "--rounds", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["windows"]["ratio"].keys() == {"duckdb", "polars", "pandas"}
    assert report["distinct"]["ratio"].keys() == {"duckdb"}


def test_one_request_reads_the_history_it_claims() -> None:
    report = measure_one(office_events=3000, repeats=3)
    assert 190 <= report["events_read"]["customer"]["customer"] <= 210
    assert report["events_read"]["office"]["ip"] > 2000
    assert report["ratio"]["office_to_customer"] > 0


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["window"])
    assert "no part window" in capsys.readouterr().err
