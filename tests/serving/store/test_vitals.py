"""What a store tells of itself, on both kinds."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from features.events import RefundRequest
from serving.store.audit import AuditEntry
from serving.store.database import Database
from serving.store.schema import fx_rates
from serving.store.store import Store
from serving.store.vitals import rates_mark, sizes, vitals

SECRET = b"a secret of 16 bytes or more"


@pytest.fixture
def store(store_url):
    opened = Store.open(store_url, SECRET)
    yield opened
    opened.close()


def test_a_new_store_has_nothing_to_tell(store):
    found = vitals(store.database)
    assert (found.latest_known_at, found.unsealed_since, found.unsealed) == (None, None, 0)


def test_the_latest_event_and_what_is_not_sealed_are_told(store):
    request = RefundRequest(refund_id="r", customer_id="c", known_at=7_000, amount_minor=5,
                            currency="GBP")  # fmt: skip
    with store.write("c") as tx:
        tx.append([request])
        for at in (7_000, 8_000):
            tx.audit("ann", "decided", "refund:r", {}, at=at)
    found = vitals(store.database)
    assert (found.latest_known_at, found.unsealed_since, found.unsealed) == (7_000, 7_000, 2)


def test_the_sizes_are_those_of_what_there_is(store):
    found = sizes(store.database)
    assert found["store_bytes"] > 0
    assert set(found) - {"store_bytes"} == (
        {"store_wal_bytes", "store_free_bytes"} if store.database.is_sqlite else set()
    )


def test_the_mark_of_the_rates_moves_when_they_do(store):
    adding = store.database.inserting(fx_rates, ("date", "currency", "rate"), "replace")

    def mark() -> tuple[object, ...]:
        with store.database.read() as connection:
            return rates_mark(connection)

    marks = [mark()]
    for row in (("2026-01-01", "USD", 0.8), ("2026-01-01", "USD", 0.7), ("2026-01-02", "USD", 0.7)):
        with store.database.write() as connection:
            store.database.run(connection, adding, row)
        marks.append(mark())
    assert len(set(marks)) == len(marks)
    assert mark() == marks[-1]


def test_the_log_is_written_back_to_the_file(tmp_path):
    """What only the log had is in the file, as a copy of the file alone shows."""
    opened = Store.open(f"sqlite:///{tmp_path}/store.db", SECRET)
    with opened.write() as tx:
        tx.audit("ann", "decided", "refund:r", {}, at=7)

    def count() -> int:
        alone = tmp_path / "alone.db"
        shutil.copy(tmp_path / "store.db", alone)
        with closing(sqlite3.connect(alone)) as copy:
            try:
                return int(copy.execute("SELECT count(*) FROM audit_log").fetchone()[0])
            except sqlite3.OperationalError:  # its tables are in the log, too
                return 0

    assert count() == 0
    opened.database.write_back()
    assert count() == 1
    opened.close()


class Log:
    """A store's log, and somebody who writes to it just before it is written back."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = Path(store.database.path + "-wal")
        self._other = sqlite3.connect(store.database.path, isolation_level=None)
        self._other.execute("PRAGMA wal_autocheckpoint = 0")
        self._other.execute("PRAGMA busy_timeout = 0")
        self._run, self.acts = Database.run, []
        self.told: list[Any] = []
        self.waits = True
        monkeypatch.setattr(Database, "run", lambda *given: self.run(*given))

    def run(self, database: Database, connection: Any, statement: Any, values: Any) -> Any:
        if "wal_checkpoint" not in statement.sql:
            return self._run(database, connection, statement, values)
        for act in self.acts:
            with nullcontext() if self.waits else suppress(sqlite3.OperationalError):
                self._other.execute(act).fetchall()
        self.told = self._run(database, connection, statement, values)
        return self.told

    def generation(self) -> bytes:
        """Another one each time that the log is begun anew."""
        return self._file.read_bytes()[12:24]


WRITING_BACK = "PRAGMA wal_checkpoint(PASSIVE)"
WRITING = "INSERT INTO fx_rates VALUES (hex(randomblob(8)), 'GBP', 1.0)"


def test_a_log_is_not_begun_anew_while_it_is_written_back(tmp_path, monkeypatch):
    """What SQLite before 3.51.3 loses commits by."""
    with closing(Store.open(f"sqlite:///{tmp_path}/store.db", SECRET)) as opened:
        log = Log(opened, monkeypatch)
        before = log.generation()
        log.acts = [WRITING_BACK, WRITING]  # all is written back, and who commits may begin anew
        opened.database.write_back()
        assert log.generation() == before
        log.acts = []
        opened.database.write_back()
        [(_, frames, written_back)] = log.told
        assert frames == written_back > 0
        log.acts = [WRITING]  # nothing is left to be written back, so it is begun anew
        opened.database.write_back()
        assert log.generation() != before
        assert log.told[0][1:] == (1, 0), "what came since waits for the next time"


def test_a_log_that_others_write_to_all_the_time_is_begun_anew(tmp_path, monkeypatch):
    """Else it grows for as long as the load lasts: each time something is left of it."""
    monkeypatch.setattr("serving.store.database.FEW_FRAMES", 0)
    monkeypatch.setattr("serving.store.database.MOST_CHANGES_IN_LOG", 20)
    with closing(Store.open(f"sqlite:///{tmp_path}/store.db", SECRET)) as opened:
        log = Log(opened, monkeypatch)
        log.waits = False
        log.acts = [WRITING]
        generations = set()
        for number in range(50):
            with opened.write() as tx:
                tx.audit("ann", "decided", f"refund:{number}", {}, at=7)
            opened.database.write_back()  # as beside decisions, while another worker writes
            generations.add(log.generation())
        assert len(generations) > 2


def test_who_writes_much_writes_the_log_back(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/store.db"
    Store.open(url, SECRET).close()  # what making it changes is not counted
    monkeypatch.setattr("serving.store.database.MOST_CHANGES_IN_LOG", 5)
    with closing(Store.open(url, SECRET)) as opened:
        log = Log(opened, monkeypatch)
        for changes in (5, 1):
            assert log.told == []
            with opened.write() as tx:
                tx.audit_many(
                    AuditEntry(7, "ann", "decided", "refund:r", {}) for _ in range(changes)
                )
        [(_, frames, written_back)] = log.told
        assert frames == written_back > 0


def test_where_there_is_no_log_nothing_is_written_back(store):
    store.database.write_back()
    assert vitals(store.database).unsealed == 0
