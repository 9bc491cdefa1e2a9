"""A data folder goes into a store and comes out unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from features.events import EVENTS, Event
from features.tables import FolderError, Tables, arrow_schema, read_folder, write_folder
from serving.store import transfer
from serving.store.decisions import Decision
from serving.store.store import Store
from serving.store.transfer import export, import_folder

MONEY = {"amount_minor": 500, "currency": "GBP"}
WHO = {"customer_id": "c1", "device_id": "d1", "email": "ann@example.com", "ip": "192.0.2.1"}

START = 1_735_689_600_000
"""2025-01-01 UTC: the times below are counted from there."""

_ROWS: dict[str, list[dict[str, Any]]] = {
    "orders": [
        {"order_id": "o1", "known_at": 10, "registered_at": 1, **WHO, **MONEY},
        {"order_id": "o1", "known_at": 15, **WHO, **MONEY, "amount_minor": 700},
        {"order_id": "o2", "known_at": 10, "customer_id": "c2", **MONEY, "event_id": "order-2"},
    ],
    "order_items": [
        {"order_id": "o1", "line_id": "1", "sku": "s", "amount_minor": 300, "final_sale": True},
        {"order_id": "o1", "line_id": "2", "amount_minor": 200, "quantity": 2},
        {"order_id": "o2", "line_id": "1", "amount_minor": 500, "event_id": "order-2"},
    ],
    "order_updates": [
        {"order_id": "o1", "known_at": 20, "status": "DELIVERED", "delivered_at": 19},
    ],
    "transactions": [
        {"transaction_id": "t1", "known_at": 11, "kind": "CAPTURE", "order_id": "o1",
         "payment_method_id": "p1", **MONEY, "success": True},
        {"transaction_id": "t2", "known_at": 12, "kind": "REFUND", "refund_id": "gone", **MONEY},
    ],
    "refund_requests": [
        {"refund_id": "r1", "known_at": 30, "order_id": "o1", **WHO, **MONEY, "ip_risk": 0.1},
        {"refund_id": "r1", "known_at": 35, "order_id": "o1", **WHO, **MONEY, "reason": "OTHER"},
        {"refund_id": "r2", "known_at": 30, "customer_id": "c2", **MONEY, "ignore": True},
    ],
    "refund_items": [{"refund_id": "r1", "line_id": "1", "reason": "OTHER"}],
    "refund_outcomes": [
        {"refund_id": "r1", "known_at": 40, "status": "COMPLETED", "amount_minor": 500},
        {"refund_id": "unknown", "known_at": 5, "status": "DECLINED"},
    ],
    "returns": [{"refund_id": "r1", "known_at": 29, "status": "RECEIVED"},
                {"order_id": "nowhere", "known_at": 29, "status": "LOST"}],
    "disputes": [{"dispute_id": "x", "known_at": 50, "order_id": "o1", "stage": "CHARGEBACK"},
                 {"dispute_id": "y", "known_at": 51, "payment_method_id": "p1"}],
    "labels": [{"refund_id": "r1", "known_at": 60, "label": "REFUND_ABUSE", "reviewer": "Ann Lee"},
               {"customer_id": "c9", "known_at": 61, "label": "UNREVIEWED"}],
    "fx_rates": [{"date": "2026-01-01", "currency": "USD", "rate": 0.8},
                 {"date": "2026-01-02", "currency": "USD", "rate": 0.7500000000000001}],
}  # fmt: skip

ROWS = {
    table: [{c: START + v if c.endswith("_at") else v for c, v in row.items()} for row in rows]
    for table, rows in _ROWS.items()
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tables = {n: pa.Table.from_pylist(rows, schema=arrow_schema(n)) for n, rows in ROWS.items()}
    write_folder(tables, tmp_path / "data")
    return tmp_path / "data"


def dump(store: Store) -> dict[str, list[Any]]:
    tables = ("events", "event_keys", "entities", "identifiers", "refunds", "fx_rates")
    with store.database.read() as connection:
        return {
            table: sorted(connection.exec_driver_sql(f"SELECT * FROM {table}").fetchall(), key=repr)
            for table in tables
        }


def test_a_round_trip_changes_nothing(store: Store, folder: Path, tmp_path: Path) -> None:
    read = read_folder(folder)
    counts = import_folder(store, read)
    assert counts.imported == {n: len(rows) for n, rows in ROWS.items() if not n.endswith("_items")}
    assert counts.duplicates == {}
    exported = export(store)
    assert set(exported) == set(ROWS)  # and no decisions, where none were made
    for name, table in exported.items():
        if not name.endswith("_items"):
            assert table.equals(read.tables[name]), name
    before = dump(store)

    write_folder(exported, tmp_path / "out")
    again = read_folder(tmp_path / "out")
    repeated = import_folder(store, again)
    assert set(repeated.imported) <= {"fx_rates"}
    assert dump(store) == before

    other = Store.open(f"sqlite:///{tmp_path}/other.db", b"another secret, long enough")
    import_folder(other, again)
    assert_same_tables(export(other), exported)
    other.close()


def assert_same_tables(left: Tables, right: Tables) -> None:
    assert set(left) == set(right)
    for name, table in left.items():
        assert table.equals(right[name]), name


def test_items_belong_to_the_version_they_name_or_else_the_first(
    store: Store, folder: Path
) -> None:
    import_folder(store, read_folder(folder))
    items = export(store)["order_items"].to_pylist()
    first = min((o for o in export(store)["orders"].to_pylist() if o["order_id"] == "o1"),
                key=lambda order: order["known_at"])  # fmt: skip
    assert [(item["event_id"], item["line_id"]) for item in items] == [
        (first["event_id"], "1"), (first["event_id"], "2"), ("order-2", "1"),
    ]  # fmt: skip


def test_items_of_an_event_that_is_not_there_are_refused(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    rows = [{**ROWS["refund_items"][0], "event_id": "nobody's"}]
    table = pa.Table.from_pylist(rows, schema=arrow_schema("refund_items"))
    write_folder({"refund_items": table}, folder)
    with pytest.raises(FolderError, match=r"refund_items.event_id, row 1: .* got \"nobody's\""):
        import_folder(store, read_folder(folder))
    assert dump(store)["events"] == []


def test_an_import_that_fails_leaves_nothing(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_BATCH", 3)

    def fail_late(done: int, total: int) -> None:
        if done > 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_folder(store, read_folder(folder), progress=fail_late)
    assert all(rows == [] for rows in dump(store).values())


@pytest.mark.parametrize("batch", [1, 4, 10_000])
def test_an_import_equals_the_events_arriving_one_by_one(
    store: Store, folder: Path, tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_BATCH", batch)
    tables = {n: t for n, t in read_folder(folder).tables.items() if not n.endswith("_items")}
    write_folder(tables, tmp_path / "plain")
    progress: list[tuple[int, int]] = []
    import_folder(store, read_folder(tmp_path / "plain"), lambda *at: progress.append(at))
    total = sum(len(rows) for n, rows in ROWS.items() if n in {e.table for e in EVENTS.values()})
    assert progress[-1] == (total, total)

    live = Store.open(f"sqlite:///{tmp_path}/live.db", b"a secret of 16 bytes or more")
    for event in sorted(events_of(tables), key=arrival):
        with live.write() as tx:
            tx.append([event])
    left, right = dump(store), dump(live)
    for table in ("event_keys", "refunds"):
        assert left[table] == right[table], table
    assert [row[:6] for row in left["events"]] == [row[:6] for row in right["events"]]
    assert [row[:3] for row in left["entities"]] == [row[:3] for row in right["entities"]]
    assert [row[:3] for row in left["identifiers"]] == [row[:3] for row in right["identifiers"]]
    live.close()


def events_of(tables: Tables) -> list[Event]:
    return [
        event.model_validate(row)
        for event in EVENTS.values()
        for row in (tables[event.table].to_pylist() if event.table in tables else [])
    ]


def arrival(event: Event) -> tuple[int, int, str, str]:
    types = list(EVENTS)
    first = event.event_type not in ("order", "refund_request")
    return event.known_at, int(first), f"{types.index(event.event_type)}", str(event.event_id)


# --- decisions -----------------------------------------------------------------------------------


def decision(score_id: str, at: int, **made: Any) -> Decision:
    usual = {"action": "ALLOW", "source": "MODEL", "propensity": 1.0, "explored": False,
             "degraded": False, "policy_version": "1", "policy_hash": "abc"}  # fmt: skip
    record = {"decision": {**usual, **made}, "probability": 0.25, "model_version": "7",
              "features": {"f": 1.0}, "contributions": None}  # fmt: skip
    return Decision(score_id, "r1", f"content of {score_id}", START + at, record, {"data": {}})


def decided(store: Store) -> None:
    with store.write() as tx:
        tx.save_decision(decision("s2", 35, action="PREVENT", propensity=0.95))
        tx.save_decision(decision("s1", 35, explored=True, propensity=0.05))
        tx.save_decision(decision("s3", 31, degraded=True, source="FALLBACK"))


def test_what_a_store_decided_is_exported_with_its_propensity_and_read_back(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    import_folder(store, read_folder(folder))
    decided(store)
    write_folder(export(store), tmp_path / "out")
    table = read_folder(tmp_path / "out").tables["decisions"]
    usual = {"refund_id": "r1", "source": "MODEL", "probability": 0.25, "degraded": False,
             "model_version": "7", "policy_version": "1", "policy_hash": "abc"}  # fmt: skip
    assert table.to_pylist() == [
        {"score_id": "s3", "known_at": START + 31, "action": "ALLOW", "propensity": 1.0,
         "explored": False, **usual, "degraded": True, "source": "FALLBACK"},
        {"score_id": "s1", "known_at": START + 35, "action": "ALLOW", "propensity": 0.05,
         "explored": True, **usual},
        {"score_id": "s2", "known_at": START + 35, "action": "PREVENT", "propensity": 0.95,
         "explored": False, **usual},
    ]  # fmt: skip
    assert export(store, until=START + 35)["decisions"]["score_id"].to_pylist() == ["s3"]


def test_an_import_counts_decisions_and_does_not_load_them(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    import_folder(store, read_folder(folder))
    assert import_folder(store, read_folder(folder)).not_loaded == {}
    decided(store)
    exported = export(store)
    write_folder(exported, tmp_path / "out")
    other = Store.open(f"sqlite:///{tmp_path}/other.db", b"another secret, long enough")
    counts = import_folder(other, read_folder(tmp_path / "out"))
    assert counts.not_loaded == {"decisions": 3}
    assert "decisions" not in counts.imported
    assert list(other.decisions()) == []
    assert_same_tables(export(other), {n: t for n, t in exported.items() if n != "decisions"})
    other.close()


def test_an_export_stops_before_an_instant(store: Store, folder: Path) -> None:
    import_folder(store, read_folder(folder))
    exported = export(store, until=START + 30)
    assert exported["refund_requests"].num_rows == 0
    assert "refund_outcomes" in exported
    assert all(max(t["known_at"].to_pylist(), default=0) < START + 30 for n, t in exported.items()
               if "known_at" in t.column_names)  # fmt: skip
