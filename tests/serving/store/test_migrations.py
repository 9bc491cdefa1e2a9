"""A store made by an older program becomes one of this program, and a new one is the same."""

from __future__ import annotations

import json
import sqlite3
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, select, text

from features.events import RefundRequest
from features.packed import LAYOUT_HASH
from serving.store import migrations
from serving.store.database import Database, StoreRefusedError, schema_version
from serving.store.identifiers import Identifiers
from serving.store.reviews import Review
from serving.store.schema import SCHEMA_VERSION, event_keys, meta, metadata
from serving.store.store import Store

SECRET = b"a secret of 16 bytes or more"
MADE_BY = Path(__file__).parent / "made_by"
VERSIONS = (1, 2, 3, 5)
"""Dumps of stores that the programs of these versions made: an order, a refund of it and its
outcome, a decision, a list entry, a key. That of 5 upgraded the one of 3."""


def open_at_once(url: str) -> list[Store]:
    """Six workers that open the store at the same moment."""
    start = threading.Barrier(6)

    def open_one() -> Store:
        start.wait()
        return Store.open(url, SECRET, upgrade=True)

    with ThreadPoolExecutor(6) as pool:
        return [job.result() for job in [pool.submit(open_one) for _ in range(6)]]


def close(stores: list[Store]) -> None:
    for store in stores:
        store.close()


@pytest.fixture
def file(url: str) -> str:
    return url.removeprefix("sqlite:///")


def made_by(version: int, file: str) -> None:
    with sqlite3.connect(file) as connection:
        connection.executescript((MADE_BY / f"version_{version}.sql").read_text())


def changed(file: str, *statements: str) -> None:
    with sqlite3.connect(file) as connection:
        for statement in statements:
            connection.execute(statement)


def layout(file: str) -> list[tuple[str, ...]]:
    """Every table, index and trigger of a file, by the statement that would make it."""
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
    with sqlite3.connect(file) as connection:
        rows = connection.execute(query).fetchall()
    return [(*row[:3], " ".join((row[3] or "").split())) for row in rows]


def all_rows(file: str, table: str) -> list[Any]:
    with sqlite3.connect(file) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()


def test_the_migrations_lead_to_the_schema(either: Store, tmp_path: Path) -> None:
    with either.database.read() as connection:
        assert schema_version(connection) == SCHEMA_VERSION
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    if either.database.is_sqlite:
        straight = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/straight.db")
        metadata.create_all(straight)
        migrated = str(tmp_path / "either.db")
        assert options(migrated) == options(f"{tmp_path}/straight.db") | {"alembic_version": (0, 0)}


def options(file: str) -> dict[str, tuple[int, int]]:
    """Per table, what no inspection tells: whether it has no rowid, and whether it counts up."""
    with sqlite3.connect(file) as connection:
        found = connection.execute(
            "SELECT list.name, wr, instr(sql, 'AUTOINCREMENT') > 0 FROM pragma_table_list AS list "
            "JOIN sqlite_master USING (name) WHERE list.type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        return {name: (without_rowid, counts) for name, without_rowid, counts in found}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_of_an_older_program_is_upgraded_by_the_service_alone(
    url: str, file: str, tmp_path: Path, version: int
) -> None:
    made_by(version, file)
    before = layout(file)
    with pytest.raises(
        StoreRefusedError, match=rf"\(schema version {version}, expected {SCHEMA_VERSION}\)"
    ):
        Store.open(url, SECRET)
    assert layout(file) == before
    workers = open_at_once(url)
    Store.open(f"sqlite:///{tmp_path}/new.db", SECRET).close()
    assert layout(file) == layout(f"{tmp_path}/new.db")
    shows_what_was_kept(workers[0])
    close(workers)


def shows_what_was_kept(store: Store) -> None:
    assert store.clock == "event"
    decision = store.decision("s1")
    assert decision is not None
    assert decision.record == {
        "score": 0.5, "features": {"a": 1.5, "b": None}, "contributions": {"a": 0.25}
    }  # fmt: skip
    assert [raw.feature_names for raw in store.raw_decisions()] == [("a", "b")]
    refund = store.refund("r1")
    assert refund is not None
    assert refund.state == "REFUNDED"
    [entry] = store.matching_lists({"email": "ann@example.com"}, at=8)
    assert (entry.list, entry.reason, entry.author) == ("block", "fraud", None)
    [key] = store.keys.all()
    assert (key.mode, key.name) == ("test", None)
    slices = store.read({"customer": "c1"}, 100, [("customer", "refund_outcome")])
    assert slices.snapshot == 3
    assert slices.rows["customer", "refund_outcome"]
    assert [entry.action for entry in store.audit_about("refund:r1")] == ["decided"]


def test_a_pseudonym_moves_from_an_entrys_subject_to_what_can_be_erased(either_url: str) -> None:
    database = Database(either_url)
    kept = {"key_id": store_key(), "clock": "event", "packed_layout": LAYOUT_HASH}
    content = '{"list":"block","by":"ann","reason":"ring","expires_at":null}'
    with database.write() as connection:
        migrations.upgrade(connection, "0005")
        connection.execute(insert(meta), [{"name": n, "value": v} for n, v in kept.items()])
        connection.execute(
            text("INSERT INTO audit_log (at, actor, action, subject, content) "
                 "VALUES (1, 'cli:ann', 'listed', 'email:pseudonym', :content)"),
            {"content": content},
        )  # fmt: skip
    store = Store.open(either_url, SECRET, upgrade=True)
    [entry] = store.audit_about("list:block")
    assert entry.content == {"expires_at": None, "entity": "email"}
    assert entry.personal == {"by": "ann", "reason": "ring", "value": "pseudonym"}
    with store.database.write() as connection:
        assert store.audit_log.erase_naming(connection, ["pseudonym"]) == 1
        found = connection.execute(text("SELECT * FROM audit_log")).fetchall()
    assert "pseudonym" not in repr(found)
    store.close()
    database.close()


def test_an_older_schema_alone_leaves_the_index_as_it_is(url: str, file: str) -> None:
    made_by(3, file)
    changed(
        file,
        f"UPDATE meta SET value = '{LAYOUT_HASH}' WHERE name = 'packed_layout'",
        "UPDATE event_keys SET packed = x'00' WHERE known_at = 5",
    )
    before = all_rows(file, "event_keys")
    Store.open(url, SECRET, upgrade=True).close()
    assert sorted(all_rows(file, "event_keys")) == sorted(before)


def test_an_index_of_another_layout_is_made_anew(
    url: str, file: str, store: Store, refund: Callable[..., RefundRequest]
) -> None:
    with store.write() as tx:
        tx.append(refund(f"r{i}", known_at=i, device_id="d") for i in range(20))
    tables = ("event_keys", "meta")
    before = layout(file), *(all_rows(file, table) for table in tables)
    changed(
        file,
        "UPDATE meta SET value = 'another' WHERE name = 'packed_layout'",
        "UPDATE event_keys SET packed = x'00'",
    )
    with pytest.raises(StoreRefusedError, match="index was made by another version of this"):
        Store.open(url, SECRET)
    workers = open_at_once(url)
    assert (layout(file), *(all_rows(file, table) for table in tables)) == before
    close(workers)


def test_a_program_from_before_migrations_refuses_the_store(store: Store, file: str) -> None:
    """It looks for a version in ``meta``, and refuses one above 3."""
    assert ("schema_version", "4") in all_rows(file, "meta")


def test_an_older_store_on_either_database(either_url: str) -> None:
    database = Database(either_url)
    kept = {"key_id": store_key(), "clock": "event", "packed_layout": LAYOUT_HASH,
            "schema_version": "3"}  # fmt: skip
    key_row = {"slice": 0, "key_value": "c", "known_at": 1, "own_known_at": 1, "event_id": "e",
               "packed": b"as it was"}  # fmt: skip
    with database.write() as connection:
        migrations.upgrade(connection, "0003")
        connection.exec_driver_sql("DROP TABLE alembic_version")
        connection.execute(insert(meta), [{"name": n, "value": v} for n, v in kept.items()])
        connection.execute(insert(event_keys), key_row)
    workers = open_at_once(either_url)
    with database.read() as connection:
        assert connection.execute(select(event_keys.c.packed)).scalars().all() == [b"as it was"]
        assert schema_version(connection) == SCHEMA_VERSION
    close(workers)
    database.close()


REFUNDS_AT_4 = [
    # refund, state, order, payable, reserved, decided on -> promised, for review, paid at
    ("approved", "APPROVED", "o", 500, 700, True, (700, 0, None)),
    ("approved by version 3", "APPROVED", "o", 500, 0, True, (500, 0, None)),
    ("failed", "FAILED", "o", 500, 0, True, (500, 0, None)),
    ("in review", "NEEDS_REVIEW", "o", 500, 0, True, (0, 500, None)),
    ("paid", "REFUNDED", "o", 500, 0, True, (500, 0, 7)),
    ("denied", "DENIED", "o", 500, 0, True, (0, 0, None)),
    ("denied and allowed", "DENIED", "o", 500, 400, True, (400, 0, None)),
    ("canceled", "CANCELED", "o", 500, 0, True, (0, 0, None)),
    ("of no order", "APPROVED", None, 500, 500, True, None),
    ("reported only", "FAILED", "o", 500, 0, False, None),
    ("known by an outcome", "REFUNDED", None, None, 0, False, None),
]


def test_what_was_decided_before_reservations_of_orders_is_held(either_url: str) -> None:
    database = Database(either_url)
    kept = {"key_id": store_key(), "clock": "event", "packed_layout": LAYOUT_HASH}
    with database.write() as connection:
        migrations.upgrade(connection, "0004")
        connection.execute(insert(meta), [{"name": n, "value": v} for n, v in kept.items()])
        for refund_id, state, order_id, payable, reserved, is_decided, _ in REFUNDS_AT_4:
            connection.execute(
                text(
                    "INSERT INTO refunds (refund_id, state, state_at, order_id, payable_minor, "
                    "currency, reserved_minor, score_id) "
                    "VALUES (:refund, :state, 7, :order, :payable, :currency, :reserved, :score)"
                ),
                {"refund": refund_id, "state": state, "order": order_id, "payable": payable,
                 "currency": payable and "GBP", "reserved": reserved,
                 "score": "s" if is_decided else None},
            )  # fmt: skip
    store = Store.open(either_url, SECRET, upgrade=True)
    held = {one.refund_id: one for one in store.reserved("o", besides="none")}
    store.close()
    database.close()
    assert {
        refund_id: (one.promised_minor, one.review_minor, one.paid_at)
        for refund_id, one in held.items()
    } == {refund_id: expected for refund_id, *_, expected in REFUNDS_AT_4 if expected}


def test_what_waited_for_a_person_before_there_were_reviews_is_in_the_queue(
    either_url: str,
) -> None:
    database = Database(either_url)
    kept = {"key_id": store_key(), "clock": "ingest", "packed_layout": LAYOUT_HASH}
    held = {"decision": {"action": "MANUAL_REVIEW"}, "probability": 0.4, "base_currency": "GBP",
            "expected_loss_minor": 120.4, "facts": {"amount_minor": 500.0}}  # fmt: skip
    records = {
        "held": ("NEEDS_REVIEW", held),
        "unscored": ("NEEDS_REVIEW", {**held, "probability": None, "expected_loss_minor": None}),
        "paid": ("REFUNDED", held),
        "promised": ("APPROVED", {**held, "event_id": "e-2"}),
        "allowed": ("APPROVED", {**held, "decision": {"action": "ALLOW"}}),
    }
    numbers = {"features": struct.pack("<dd", 7.0, 700.4), "named": "n"}
    versions = [("e-1", 6, "o", 450), ("e-2", 5, "o-2", 900), ("e-3", 1001, "o", 1)]
    with database.write() as connection:
        migrations.upgrade(connection, "0006")
        connection.execute(insert(meta), [{"name": n, "value": v} for n, v in kept.items()])
        connection.execute(
            text("INSERT INTO name_lists (id, names) VALUES ('n', :names)"),
            {"names": json.dumps(["age_days", "payable_minor"])},
        )
        for name, (state, record) in records.items():
            connection.execute(
                text("INSERT INTO refunds (refund_id, state, state_at, customer, order_id, "
                     "payable_minor, currency, score_id) "
                     "VALUES (:name, :state, :at, 'c', 'o', 450, 'GBP', :score)"),
                {"name": name, "state": state, "score": f"s-{name}",
                 "at": 2000 if name == "paid" else 7},
            )  # fmt: skip
            connection.execute(
                text("INSERT INTO decisions (score_id, refund_id, content_hash, decided_at, record,"
                     " response, features, feature_names) "
                     "VALUES (:score, :name, 'h', 1000, :record, '{}', :features, :named)"),
                {"name": name, "score": f"s-{name}", "record": json.dumps(record),
                 **(numbers if name == "promised" else {"features": None, "named": None})},
            )  # fmt: skip
        for event_id, at, order_id, amount in versions:
            payload = {
                "event_id": event_id,
                "customer_id": "d",
                "order_id": order_id,
                "currency": "EUR",
                "amount_minor": amount,
                "non_refundable_minor": 100,
            }
            connection.execute(
                text("INSERT INTO events (event_id, event_type, known_at, refund_id, payload) "
                     "VALUES (:event, 'refund_request', :at, 'promised', :payload)"),
                {"event": event_id, "at": at, "payload": json.dumps(payload)},
            )  # fmt: skip
    store = Store.open(either_url, SECRET, upgrade=True)
    first, second, third = store.review_queue()
    store.close()
    database.close()
    assert (first.refund_id, first.payable_minor, first.place) == ("unscored", 450, -450)
    assert third == Review(
        "s-promised", "promised", "d", "o-2", "EUR", 900, 800, 700, 120, 0.4, -120, 1000,
        1000 + 24 * 3_600_000,
    )  # fmt: skip
    assert second == Review(
        "s-held", "held", "c", "o", "GBP", 500, 450, 450, 120, 0.4, -120, 1000,
        1000 + 24 * 3_600_000,
    )  # fmt: skip


def store_key() -> str:
    return Identifiers(SECRET).key_id


def test_workers_may_start_at_once(either_url: str) -> None:
    opened = open_at_once(either_url)
    assert {store.identifiers.key_id for store in opened} == {store_key()}
    close(opened)


def test_a_store_of_a_newer_program_is_refused(either: Store, store_url: str) -> None:
    with either.database.write() as connection:
        newer = f"UPDATE alembic_version SET version_num = '{SCHEMA_VERSION + 1:04}'"
        connection.execute(text(newer))
    told = f"version {SCHEMA_VERSION + 1}, expected at most {SCHEMA_VERSION}: a newer program"
    with pytest.raises(StoreRefusedError, match=told):
        Store.open(store_url, SECRET, upgrade=True)
