"""Features by partitions are those of the local run, byte for byte, in less memory."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import cli
from features.catalog import PLAN
from features.events import VOCABULARY
from features.money import DAY_MS
from features.tables import (
    EVENT_OF_TABLE,
    SCHEMA,
    Column,
    FolderError,
    arrow_schema,
    read_folder,
    write_folder,
)
from tests.training.tables import START, simulated
from training import scale
from training.dataset import feature_frame, rates_of, write_frame
from training.scale import ScaleError, features_of_folder, partitions_for
from training.shuffle import gather, partition_of, spread

PARTITIONS = [1, 3, 7]

# --- folders -------------------------------------------------------------------------------------

INSTANTS = [START + day * DAY_MS for day in range(0, 400, 25)]
"""Few, so that ties are many and outcomes come before their refunds."""

CURRENCIES = ["GBP", "EUR", "USD", "JPY"]


def value_of(rng: random.Random, column: Column) -> Any:
    """A value of few, so that things meet; often none where it may be left out."""
    if not column.required and rng.random() < 0.25:
        return None
    if column.choices or column.name in VOCABULARY:
        return rng.choice([*column.choices, *VOCABULARY.get(column.name, ())])
    match column.kind:
        case "id":
            return f"{column.name}-{rng.randrange(60 if column.name == 'refund_id' else 12)}"
        case "time":
            return rng.choice(INSTANTS)
        case "minor":
            return rng.choice([0, 1, 499, 10_000])
        case "currency":
            return rng.choice(CURRENCIES)
        case "country":
            return rng.choice(["GB", "FR"])
        case "flag":
            return rng.random() < 0.3
        case "share":
            return rng.random()
        case "count":
            return rng.randrange(5)
    return "text"


def row_of(rng: random.Random, table: str, number: int) -> dict[str, Any]:
    event = EVENT_OF_TABLE[table]
    row = {column.name: value_of(rng, column) for column in SCHEMA[table]}
    if event.one_of:
        named = rng.choice(event.one_of)
        for column in event.one_of:
            row[column] = row[column] if not event.only_one and rng.random() < 0.5 else None
        row[named] = value_of(rng, Column(named, "id", required=True))
    for part, whole in event.part_of.items():
        row[part] = min(row[part] or 0, row[whole])
    # Canonical order is by text, so that 10 comes before 9.
    return row | {"event_id": f"{table}-{number}"}


def adversarial(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Ties, re-sent refunds, outcomes before them, missing ids, ids of nothing, repeated events."""
    rng = random.Random(seed)
    tables = {}
    for table in EVENT_OF_TABLE:
        rows = [row_of(rng, table, n) for n in range(150)]
        again = [row | {"known_at": rng.choice(INSTANTS)} for row in rng.sample(rows, 30)]
        tables[table] = rng.sample(rows + again, 180)
    for number, row in enumerate(tables["transactions"]):  # these go without an id of their own
        row |= {"event_id": None, "transaction_id": f"t-{number}"}
    tables["fx_rates"] = [
        {"date": "2025-01-01", "currency": currency, "rate": rate}
        for currency, rate in (("EUR", 0.85), ("USD", 0.8))
    ]
    return tables


def write_rows(tables: dict[str, list[dict[str, Any]]], folder: Path, rows: int = 64) -> Path:
    """As it came: in no order, with repeated events, in small row groups."""
    folder.mkdir()
    for name, of_table in tables.items():
        table = pa.Table.from_pylist(of_table, schema=arrow_schema(name))
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=rows)
    return folder


def local(folder: Path, out: Path) -> bytes:
    """The file that a run in memory writes."""
    tables = read_folder(folder).tables
    write_frame(feature_frame(tables, rates_of(tables)), out)
    return out.read_bytes()


@pytest.fixture(scope="module", params=["simulated", "adversarial 1"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A data folder, and the bytes of its features computed in memory."""
    seed = request.param.partition(" ")[2]
    root = tmp_path_factory.mktemp("case")
    if seed:
        folder = write_rows(adversarial(int(seed)), root / "data")
    else:
        folder = root / "data"
        write_folder(simulated(customers=300, days=300, seed=3), folder)
    return folder, local(folder, root / "local.parquet")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read by many tasks, and in parts."""
    monkeypatch.setattr(scale, "EVENTS_PER_PARTITION", 100)


# --- equal to the local run ----------------------------------------------------------------------


@pytest.mark.parametrize("partitions", PARTITIONS)
def test_by_partitions_the_file_is_the_same_byte_for_byte(
    case: Any, partitions: int, small_pieces: None, tmp_path: Path
) -> None:
    folder, expected = case
    out = tmp_path / "new" / "features.parquet"
    written = features_of_folder(folder, out, partitions=partitions)
    assert out.read_bytes() == expected
    table = pq.read_table(out)
    assert (written.requests, ("refund_id", "known_at", *written.names)) == (
        table.num_rows, tuple(table.column_names)
    )  # fmt: skip
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster of two worker processes."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as cluster:
        yield cluster.scheduler_address


def test_on_a_cluster_of_two_processes_the_file_is_the_same(
    case: Any, scheduler: str, tmp_path: Path
) -> None:
    folder, expected = case
    done: list[tuple[int, int]] = []
    features_of_folder(
        folder, tmp_path / "f.parquet", partitions=3, dask=scheduler,
        progress=lambda *of: done.append(of),
    )  # fmt: skip
    assert (tmp_path / "f.parquet").read_bytes() == expected
    assert done == [(n, len(done)) for n in range(1, len(done) + 1)]


def test_a_folder_of_csv_gives_the_same(tmp_path: Path, small_pieces: None) -> None:
    folder = write_rows(adversarial(2), tmp_path / "parquet")
    (tmp_path / "csv").mkdir()
    for path in folder.iterdir():
        pa.csv.write_csv(pq.read_table(path), tmp_path / "csv" / f"{path.stem}.csv")
    features_of_folder(tmp_path / "csv", tmp_path / "f.parquet", partitions=3)
    assert (tmp_path / "f.parquet").read_bytes() == local(folder, tmp_path / "local.parquet")


def test_rows_across_row_groups_of_the_result_stay_in_order(
    case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = case
    monkeypatch.setattr("training.dataset.ROWS_PER_GROUP", 50)
    expected = local(folder, tmp_path / "local.parquet")
    features_of_folder(folder, tmp_path / "f.parquet", partitions=7)
    assert (tmp_path / "f.parquet").read_bytes() == expected
    assert pq.read_metadata(tmp_path / "f.parquet").row_group(0).num_rows == 50


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_folder_without_requests_gives_a_file_without_rows(
    partitions: int, tmp_path: Path
) -> None:
    folder = write_rows({"refund_requests": [], "orders": []}, tmp_path / "data")
    written = features_of_folder(folder, tmp_path / "f.parquet", partitions=partitions)
    assert written.requests == 0
    assert (tmp_path / "f.parquet").read_bytes() == local(folder, tmp_path / "local.parquet")


# --- what is refused -----------------------------------------------------------------------------


def request(number: int, **more: Any) -> dict[str, Any]:
    return {"refund_id": f"r{number}", "customer_id": "c", "known_at": START + number * DAY_MS,
            "amount_minor": 10, "currency": "GBP", "event_id": f"e{number}", **more}  # fmt: skip


def refused(folder: Path, tmp_path: Path) -> FolderError:
    with pytest.raises(FolderError) as refusal:
        features_of_folder(folder, tmp_path / "f.parquet", partitions=3)
    assert not list(tmp_path.glob("f.parquet*"))
    return refusal.value


CONFLICTS = {
    "one refund": {"refund_requests": [request(1), request(2), request(1, amount_minor=11)]},
    "two refunds": {"refund_requests": [request(1), request(2), request(3, event_id="e1")]},
    "two tables": {
        "refund_requests": [request(1), request(2)],
        "orders": [{"order_id": "o", "customer_id": "c", "known_at": START, "amount_minor": 1,
                    "currency": "GBP", "event_id": "e2"}],
    },
}  # fmt: skip


@pytest.mark.parametrize("tables", CONFLICTS.values(), ids=list(CONFLICTS))
def test_an_event_id_of_two_events_is_refused_with_the_rows_that_the_local_run_names(
    tables: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder = write_rows(tables, tmp_path / "data", rows=1)
    with pytest.raises(FolderError) as expected:
        read_folder(folder)
    found = refused(folder, tmp_path)
    assert [(p.table, p.column, p.row, p.value) for p in found.problems] == [
        (p.table, p.column, p.row, p.value) for p in expected.value.problems
    ]
    first, second = str(found.problems[0]), str(expected.value.problems[0])
    assert first.partition(" row ")[2].split()[0] == second.partition(" row ")[2].split()[0]


def test_wrong_values_of_all_pieces_are_told_as_the_local_run_tells_them(
    tmp_path: Path, small_pieces: None
) -> None:
    rows = [request(n, currency="GBX" if n % 90 == 7 else "GBP") for n in range(300)]
    folder = write_rows({"refund_requests": rows}, tmp_path / "data")
    pq.write_table(pa.table({"order_id": ["o"]}), folder / "orders.parquet")
    (folder / "labels.parquet").write_bytes(b"nothing of the sort")
    (folder / "fx_rates.csv").write_text("date,currency,rate\n2025-01-01,EUR,-1\n")
    with pytest.raises(FolderError) as refusal:
        read_folder(folder)
    expected = refusal.value.problems
    found = refused(folder, tmp_path)
    assert len(found.problems) >= 10
    unreadable, told = (
        [p for p in problems if p.table == "labels"] for problems in (found.problems, expected)
    )
    assert len(unreadable) == len(told) == 1
    assert {str(p) for p in found.problems} - {str(unreadable[0])} == {
        str(p) for p in expected if p.table != "labels"
    }


def test_too_many_problems_of_a_column_are_counted(
    tmp_path: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "MAX_PROBLEMS_PER_COLUMN", 20)
    rows = [request(n, currency="GBX") for n in range(300)]
    found = refused(write_rows({"refund_requests": rows}, tmp_path / "data"), tmp_path)
    assert len(found.problems) == 21
    assert "280 more like these" in str(found)


def test_unknown_columns_are_reported_and_a_missing_table_is_refused(tmp_path: Path) -> None:
    folder = write_rows({"refund_requests": [request(1)]}, tmp_path / "data")
    odd = pq.read_table(folder / "refund_requests.parquet").append_column("mood", pa.array(["x"]))
    pq.write_table(odd, folder / "refund_requests.parquet")
    written = features_of_folder(folder, tmp_path / "f.parquet", partitions=2)
    assert written.ignored == read_folder(folder).ignored != ()
    (tmp_path / "f.parquet").unlink()
    (folder / "refund_requests.parquet").unlink()
    assert "refund_requests" in str(refused(folder, tmp_path))
    with pytest.raises(FileNotFoundError, match="expected a folder of tables"):
        features_of_folder(tmp_path / "nowhere", tmp_path / "f.parquet")


def test_a_task_that_fails_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    folder = write_rows({"refund_requests": [request(1)]}, tmp_path / "data")

    def lose_a_file(done: int, total: int) -> None:
        for run in tmp_path.glob("f.parquet*/runs/refund_requests/*"):
            run.write_bytes(b"lost")

    with pytest.raises(ScaleError, match=r"^ordering partition 0: ArrowInvalid: "):
        features_of_folder(folder, tmp_path / "f.parquet", partitions=2, progress=lose_a_file)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_no_scheduler_and_no_dask_are_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_rows({"refund_requests": [request(1)]}, tmp_path / "data")
    monkeypatch.setattr(scale, "_CONNECT_SECONDS", 0.3)
    for address in ("tcp://127.0.0.1:1", "nonsense://"):
        with pytest.raises(ScaleError, match="--dask: no scheduler answers at " + address):
            features_of_folder(folder, tmp_path / "f.parquet", dask=address)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ScaleError, match="--dask needs the extra 'dask'"):
        features_of_folder(folder, tmp_path / "f.parquet", dask="tcp://127.0.0.1:1")


# --- the command ---------------------------------------------------------------------------------


def recourse(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["recourse", *words])
        cli.main()
    return int(end.value.code or 0)


def test_the_command_gives_the_same_file_on_a_cluster_by_partitions_and_at_once(
    case: Any, scheduler: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, expected = case
    for how in ((), ("--partitions", "2"), ("--dask", scheduler)):
        assert recourse("features", "--data", str(folder), "--out", str(tmp_path / "f"), *how) == 0
        assert f"requests, {len(PLAN.features)} features: " in capsys.readouterr().out
        assert (tmp_path / "f").read_bytes() == expected
        (tmp_path / "f").unlink()


def test_the_command_refuses_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_rows({"refund_requests": [request(1)]}, tmp_path / "data")
    monkeypatch.setattr(scale, "_CONNECT_SECONDS", 0.3)
    words = ("features", "--data", str(folder), "--out", str(tmp_path / "f"))
    assert recourse(*words, "--dask", "tcp://127.0.0.1:1") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.strip().startswith("--dask: no scheduler answers at tcp://127.0.0.1:1: ")
    assert "\n" not in said.err.strip()


# --- parts ---------------------------------------------------------------------------------------


def test_there_are_as_many_partitions_as_the_data_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_rows({"refund_requests": [request(n) for n in range(25)]}, tmp_path / "data")
    assert partitions_for(folder) == 1
    monkeypatch.setattr(scale, "EVENTS_PER_PARTITION", 10)
    assert partitions_for(folder) == 3


def test_what_is_spread_is_gathered_in_its_partition_and_in_order(tmp_path: Path) -> None:
    for number in range(3):
        texts = pa.array([f"{number}-{n}" for n in range(20)])
        table = pa.table({"text": texts})
        spread(table, partition_of(table["text"], 4), 4, tmp_path / f"{number}.arrow")
    parts = [gather(tmp_path, partition)["text"].to_pylist() for partition in range(4)]
    found = [text for part in parts for text in part]
    assert sorted(found) == sorted(f"{a}-{b}" for a in range(3) for b in range(20))
    for part in parts:
        assert part == sorted(part, key=lambda text: tuple(map(int, text.split("-"))))


# --- larger than memory --------------------------------------------------------------------------

PEAK_OF_RUN = """
import sys
from pathlib import Path
from training import dataset, scale

scale.EVENTS_PER_PARTITION, dataset.ROWS_PER_GROUP = 4_000, 2_000

def rise():
    lines = Path("/proc/self/status").read_text().splitlines()
    size = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Vm")}
    return size["VmHWM"] - base[0] if base else size["VmRSS"]

warm, data, out = map(Path, sys.argv[1:4])
base = []
scale.features_of_folder(warm, out, partitions=2)
Path("/proc/self/clear_refs").write_text("5")
base.append(rise())
scale.features_of_folder(data, out, partitions=int(sys.argv[4]))
print(rise())
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells peak memory")
def test_memory_is_bounded_by_the_partition(tmp_path: Path) -> None:
    one = {"refund_requests": [request(1)], "orders": []}
    warm = write_rows(one, tmp_path / "warm")
    requests = [
        request(n, refund_id=f"refund-{n}", customer_id=f"customer-{n % 9_001}",
                device_id=f"device-{n % 7_001}", known_at=START + n * 1000)
        for n in range(25_000)
    ]  # fmt: skip
    data = write_rows({"refund_requests": requests, "orders": []}, tmp_path / "data", rows=5_000)

    def peak(partitions: int) -> int:
        command = [sys.executable, "-c", PEAK_OF_RUN, str(warm), str(data),
                   str(tmp_path / f"{partitions}.parquet"), str(partitions)]  # fmt: skip
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(ended.stdout)

    assert peak(10) < peak(1) / 3
    assert (tmp_path / "10.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()
