"""Opening a store, and what holds when several write at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.postgresql import Server
from features.events import RefundRequest
from features.packed import LAYOUT
from serving.store import database
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


def test_every_commit_is_synced(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As delivered: the other tests do not wait for the disk."""
    monkeypatch.setattr(database, "_set_up_sqlite", database._set_up_sqlite.__wrapped__)
    store = Store.open(url, SECRET)
    with store.database.write() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    store.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE alembic_version SET version_num = '0099'", "schema version 99, expected at most"),
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


def test_a_mark_is_another_one_once_anything_was_written(
    url: str, store: Store, refund: Refund
) -> None:
    other = Store.open(url, SECRET)

    def add(by: Store, refund_id: str) -> None:
        with by.write() as tx:
            tx.append([refund(refund_id)])

    def in_another_process() -> None:
        program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])"
        given = (store.database.path, "DELETE FROM refunds WHERE refund_id = 'r1'")
        subprocess.run([sys.executable, "-c", program, *given], check=True)

    cases: list[tuple[str, Callable[[], object], bool]] = [
        ("nothing", lambda: None, True),
        ("reads", lambda: [each.refund("r1") for each in (store, other)], True),
        ("another connection", lambda: add(other, "r1"), False),
        ("this connection", lambda: add(store, "r2"), False),
        ("another process", in_another_process, False),
        ("a new connection", store.database.close, False),
        ("a new one in place of one as new", store.database.close, False),
    ]
    for what, act, is_still in cases:
        with store.reading() as tx:
            mark = tx.mark()
        act()
        with store.write() as tx:
            assert tx.is_still_at(mark) == is_still, what
    other.close()


def test_what_a_transaction_has_written_itself_moves_it_on(store: Store, refund: Refund) -> None:
    with store.write() as tx:
        mark = tx.mark()
        assert tx.is_still_at(mark)
        tx.append([refund("r1")])
        assert not tx.is_still_at(mark)


def test_postgresql_tells_no_mark_so_nothing_is_known_to_stand_still(either: Store) -> None:
    with either.write() as tx:
        mark = tx.mark()
        assert (mark is None) == (not either.database.is_sqlite)
        assert tx.is_still_at(mark) == either.database.is_sqlite


def test_an_import_of_more_people_than_there_is_room_for_locks_holds_every_writer_off(
    new_database: Server,
) -> None:
    store = Store.open(new_database(), SECRET)
    began, done = threading.Event(), []

    def write_one() -> None:
        began.set()
        with store.write("c-1"):
            done.append("one")

    with store.write_about([f"c-{n}" for n in range(20_000)], []):
        other = threading.Thread(target=write_one)
        other.start()
        assert began.wait(10)
        other.join(0.3)
        assert not done
        done.append("all")
    other.join(10)
    assert done == ["all", "one"]
    store.close()
