"""Opening a store, and what holds when several write at once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from features.events import RefundRequest
from features.packed import LAYOUT, LAYOUT_HASH
from serving.store.database import STORE_UNAVAILABLE, StoreRefusedError
from serving.store.history import Slices
from serving.store.store import Store

SECRET = b"a secret of 16 bytes or more"
Refund = Callable[..., RefundRequest]
PAIR = ("customer", "refund_request")


def count_of(slices: Slices) -> int:
    return len(slices.rows.get(PAIR, b"")) // LAYOUT["refund_request"].itemsize


def test_what_was_committed_is_there_when_opened_again(url: str, refund: Refund) -> None:
    first = Store.open(url, SECRET, clock="event")
    with first.write() as tx:
        tx.append([refund("r1")])
    first.close()
    again = Store.open(url, SECRET)
    assert again.clock == "event"
    assert again.read({"customer": "c1"}, 2_000, [PAIR]).rows[PAIR]
    again.close()


def test_every_commit_is_synced(store: Store) -> None:
    with store.database.write() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE meta SET value = '99' WHERE name = 'schema_version'", "schema version 99"),
        ("UPDATE meta SET value = 'other' WHERE name = 'key_id'", "the store was made with"),
        ("DROP TABLE meta", "no store"),
    ],
)
def test_a_store_that_must_not_be_used_is_refused(
    url: str, store: Store, change: str, message: str
) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
        file.execute(change)
    with pytest.raises(StoreRefusedError, match=message):
        Store.open(url, SECRET, create=False)


OTHER_LAYOUT = """
    UPDATE meta SET value = 'another' WHERE name = 'packed_layout';
    UPDATE event_keys SET packed = x'00';
"""
VERSION_1 = """
    UPDATE meta SET value = '1' WHERE name = 'schema_version';
    DELETE FROM meta WHERE name = 'packed_layout';
    DROP INDEX decisions_by_time;
    DROP TABLE name_lists;
    INSERT INTO decisions (score_id, refund_id, content_hash, decided_at, record, response)
        VALUES ('s0', 'r1', 'content', 5, '{"features":{"a":1.5}}', '{}');
    DROP TABLE event_keys;
    CREATE TABLE event_keys (
        key_kind TEXT NOT NULL, key_value TEXT NOT NULL, event_type TEXT NOT NULL,
        known_at BIGINT NOT NULL, own_known_at BIGINT NOT NULL, event_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (key_kind, key_value, event_type, known_at, own_known_at, event_id)
    ) WITHOUT ROWID;
    INSERT INTO event_keys VALUES ('customer', 'c', 'order', 1, 1, 'e', 1);
"""


def what_there_is(file: sqlite3.Connection) -> list[list[tuple[str, ...]]]:
    queries = ("SELECT type, name, sql FROM sqlite_master ORDER BY name",
               "SELECT * FROM event_keys", "SELECT * FROM meta ORDER BY name")  # fmt: skip
    return [file.execute(query).fetchall() for query in queries]


@pytest.mark.parametrize("change", [OTHER_LAYOUT, VERSION_1])
def test_an_older_store_has_its_index_made_anew(
    url: str, store: Store, refund: Refund, change: str
) -> None:
    with store.write() as tx:
        tx.append(refund(f"r{i}", known_at=i, device_id="d") for i in range(20))
    with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
        before = what_there_is(file)
        file.executescript(change)
        assert what_there_is(file) != before
    with pytest.raises(StoreRefusedError, match="made by another version of this program"):
        Store.open(url, SECRET)
    workers = open_at_once(url)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
        assert what_there_is(file) == before
    assert ("packed_layout", LAYOUT_HASH) in before[2]
    kept = [decision.record for decision in workers[0].decisions()]
    assert kept == ([{"features": {"a": 1.5}}] if change == VERSION_1 else [])
    for worker in workers:
        worker.close()


def test_another_secret_or_clock_is_refused(url: str, store: Store) -> None:
    with pytest.raises(StoreRefusedError, match="expected the secret"):
        Store.open(url, b"another secret, long enough")
    with pytest.raises(StoreRefusedError, match="clock is 'ingest'"):
        Store.open(url, SECRET, clock="event")


def test_a_store_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a file"):
        Store.open("sqlite://", SECRET)


def test_a_failed_transaction_leaves_nothing(store: Store, refund: Refund) -> None:
    with pytest.raises(RuntimeError), store.write() as tx:
        tx.append([refund("r1")])
        tx.audit("api", "decide", "r1", {}, at=1)
        raise RuntimeError
    assert store.read({"customer": "c1"}, 2_000, [PAIR]).snapshot == 0
    assert store.audit_about("r1") == []
    assert store.refund("r1") is None


def test_a_store_that_stays_locked_is_unavailable(
    store: Store, refund: Refund, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.store.database.BUSY_TIMEOUT_MS", 50)
    impatient = Store.open(url, SECRET)
    with store.write(), pytest.raises(STORE_UNAVAILABLE), impatient.write() as tx:
        tx.append([refund("r1")])
    impatient.close()


def open_at_once(url: str) -> list[Store]:
    start = threading.Barrier(6)

    def open_one() -> Store:
        start.wait()
        return Store.open(url, SECRET, upgrade=True)

    with ThreadPoolExecutor(6) as pool:
        return [job.result() for job in [pool.submit(open_one) for _ in range(6)]]


def test_workers_may_start_at_once(url: str) -> None:
    opened = open_at_once(url)
    assert {store.identifiers.key_id for store in opened} == {opened[0].identifiers.key_id}
    for store in opened:
        store.close()


def test_ten_refunds_at_once_each_see_those_before(url: str, store: Store, refund: Refund) -> None:
    """Two workers, ten requests of one customer: decided one after another."""
    workers = [Store.open(url, SECRET) for _ in range(2)]
    start = threading.Barrier(10)

    def decide(number: int) -> int:
        worker = workers[number % 2]
        start.wait()
        while True:
            slices = worker.read({"customer": "c1"}, 2_000, [PAIR])
            with worker.write("c1") as tx:
                if not tx.customer_moved_since(slices):
                    tx.append([refund(f"r{number}")])
                    return count_of(slices)

    with ThreadPoolExecutor(10) as pool:
        seen = [job.result() for job in [pool.submit(decide, i) for i in range(10)]]
    assert sorted(seen) == list(range(10))
    for worker in workers:
        worker.close()


def test_a_read_is_one_snapshot(store: Store, refund: Refund) -> None:
    """However writers interleave, the rows read are exactly those up to the snapshot."""
    done = threading.Event()

    def write() -> None:
        for number in range(60):
            with store.write("c1") as tx:
                tx.append([refund(f"a{number}"), refund(f"b{number}")])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    counts = set()
    while not done.is_set():
        slices = store.read({"customer": "c1"}, 2_000, [PAIR, ("customer", "order")])
        assert count_of(slices) == slices.snapshot
        assert slices.snapshot % 2 == 0
        assert slices.customer_seen == slices.snapshot / 2
        counts.add(slices.snapshot)
    writer.join()
    assert counts
