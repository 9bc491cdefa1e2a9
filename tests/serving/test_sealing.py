"""The sealed audit log: whatever is tampered with is named, and erasing is no tampering."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from features.money import DAY_MS
from serving import heads
from serving.heads import Head, HeadFile
from serving.sealing import AT_ONCE, LEASE_MS, ChainMovedError, Sealer
from serving.store.audit import AuditEntry
from serving.store.retention import Keep, apply
from serving.store.seals import KeyLostError, SealKeys, rekey, seal_of
from serving.store.store import Store
from serving.vouching import Finding, Vouched, vouch

SECRET = b"a secret of 16 bytes or more"
OTHER = b"another secret, of somebody else"
NOW = 1_790_000_000_000


@dataclass
class Log:
    """A store whose audit log can be tampered with, as whoever owns the database could."""

    store: Store
    head: Path
    now: int = NOW
    findings: list[Finding] = field(default_factory=list)

    def sealer(self, secret: bytes = SECRET) -> Sealer:
        return Sealer(self.store, secret, self.head, now=lambda: self.now)

    def fill(self, entries: list[AuditEntry]) -> None:
        with self.store.write() as tx:
            tx.audit_many(entries)

    def seal(self) -> int | None:
        sealer = self.sealer()
        try:
            return sealer.seal()
        finally:
            sealer.give_up()

    def vouch(self, exported: list[Head] | None = None) -> Vouched:
        self.findings = []
        given = HeadFile(self.head).read() if exported is None else exported
        return vouch(self.store, SECRET, given, self.findings.append)

    def found(self) -> set[tuple[str, int | None]]:
        self.vouch()
        return {(one.problem, one.seq) for one in self.findings}

    def run(self, *statements: str, **values: Any) -> None:
        with self.store.database.write() as connection:
            for statement in statements:
                connection.execute(text(statement), values)

    def rows(self, what: str) -> list[Any]:
        with self.store.database.read() as connection:
            return list(connection.execute(text(what)))

    def disarm(self) -> None:
        """Do away with what keeps the tables append-only."""
        if not self.store.database.is_sqlite:
            self.run("ALTER TABLE audit_log DISABLE TRIGGER ALL",
                     "ALTER TABLE audit_seals DISABLE TRIGGER ALL")  # fmt: skip
            return
        for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'trigger' "
                                 "AND tbl_name IN ('audit_log', 'audit_seals')"):  # fmt: skip
            self.run(f"DROP TRIGGER {name}")

    def empty(self) -> None:
        self.run("DELETE FROM audit_log", "DELETE FROM audit_seals")
        self.head.unlink(missing_ok=True)


@pytest.fixture
def log(store_url: str, tmp_path: Path) -> Iterator[Log]:
    store = Store.open(store_url, SECRET)
    yield Log(store, tmp_path / "audit-head-live.jsonl")
    store.close()


def entry(number: int, person: str | None = None) -> AuditEntry:
    personal = None if person is None else {"by": person}
    return AuditEntry(number, "key:k", "decided", f"refund:r-{number}", {"n": number}, personal)


# --- what is named -------------------------------------------------------------------------------

FIELDS = {"at": "at + 1", "actor": "'me'", "action": "'denied'", "subject": "'refund:x'",
          "content": "'{}'"}  # fmt: skip

Tamper = Callable[[Log, list[int], int], set[tuple[str, int | None]]]
"""Does something to the entry at an index of these seqs; returns what is to be found."""


def altered(column: str, value: str) -> Tamper:
    def tamper(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
        log.run(f"UPDATE audit_log SET {column} = {value} WHERE seq = {seqs[i]}")
        return {("altered", seqs[i])}

    return tamper


def removed(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    log.run(f"DELETE FROM audit_log WHERE seq = {seqs[i]}")
    return {("removed", seqs[i])}


def renumbered(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    log.run(f"UPDATE audit_log SET seq = seq - 1 WHERE seq = {seqs[i]}")
    return {("removed", seqs[i]), ("inserted", seqs[i] - 1)}


def inserted(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    log.run("INSERT INTO audit_log (seq, at, actor, action, subject, content) "
            f"VALUES ({seqs[i] - 1}, 1, 'key:k', 'decided', 'refund:r', '{{}}')")  # fmt: skip
    return {("inserted", seqs[i] - 1)}


def personal_altered(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    log.run(f"UPDATE audit_log SET personal = '{{\"personal\":{{}}}}' WHERE seq = {seqs[i]}")
    return {("personal_altered", seqs[i])}


def committed_anew(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    log.run(f"UPDATE audit_log SET personal = NULL, commitment = 'ab' WHERE seq = {seqs[i]}")
    return {("altered", seqs[i]), ("erased_unrecorded", None)}


def swapped(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    one, two = seqs[i], seqs[(i + 1) % len(seqs)]
    if one == two:
        return set()
    log.run(f"UPDATE audit_log SET seq = -1 WHERE seq = {one}",
            f"UPDATE audit_log SET seq = {one} WHERE seq = {two}",
            f"UPDATE audit_log SET seq = {two} WHERE seq = -1")  # fmt: skip
    return {("altered", one), ("altered", two)}


def cut_off(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    log.run(f"DELETE FROM audit_log WHERE seq >= {seqs[i]}",
            f"DELETE FROM audit_seals WHERE seq >= {seqs[i]}")  # fmt: skip
    return {("cut_off", None)}


def seals_cut_off(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    log.run(f"DELETE FROM audit_seals WHERE seq >= {seqs[i]}")
    return {("cut_off", None), *(("inserted", seq) for seq in seqs[i:])}


def put_back(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    """As a backup would, from which the service goes on."""
    cut_off(log, seqs, i)
    log.run(f"INSERT INTO audit_log (seq, at, actor, action, subject, content) "
            f"SELECT {seqs[-1] + 1} + n, 1, 'key:k', 'decided', 'refund:r', '{{}}' "
            f"FROM (SELECT 1 AS n UNION ALL SELECT 2) AS numbers")  # fmt: skip
    log.seal()
    cut = i + 2 < len(seqs)  # what was exported lies further than what there is now
    return {("cut_off" if cut else "head_differs", None)}


def seal_altered(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    log.run("UPDATE audit_seals SET mac = :mac WHERE seq = :seq", mac=bytes(32), seq=seqs[i])
    differs = {("head_differs", None)} if i == len(seqs) - 1 else set()
    return {("seal_altered", seqs[i]), *differs}


def seal_removed(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    log.run(f"DELETE FROM audit_seals WHERE seq = {seqs[i]}")
    gap = {("cut_off" if i == len(seqs) - 1 else "seal_removed", None)}
    return {("inserted", seqs[i]), *gap}


def seal_moved(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    log.run(f"UPDATE audit_seals SET position = 0 WHERE seq = {seqs[i]}")
    return {("seal_removed", None)}


def seal_of_another(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    log.run(f"UPDATE audit_seals SET seq = {seqs[i] - 1} WHERE seq = {seqs[i]}")
    return {("removed", seqs[i] - 1), ("inserted", seqs[i])}


def written_anew(log: Log, seqs: list[int], i: int) -> set[tuple[str, int | None]]:
    """The whole chain, by somebody who lacks the secret."""
    log.run(f"UPDATE audit_log SET action = 'denied' WHERE seq = {seqs[i]}")
    mac, key = bytes(32), SealKeys(OTHER).of(1)
    with log.store.database.read() as connection:
        entries = log.store.audit_log.after(connection, 0)
    for position, one in enumerate(entries, 1):
        mac = seal_of(key, mac, position, one)
        log.run("UPDATE audit_seals SET mac = :mac WHERE position = :p", mac=mac, p=position)
    return {("altered", seqs[i]), ("head_differs", None)}


EXACT: list[Tamper] = [
    *(altered(column, value) for column, value in FIELDS.items()), removed, renumbered, inserted,
    committed_anew, personal_altered, cut_off, seals_cut_off, seal_altered, seal_removed,
]  # fmt: skip
"""What is found is this and nothing else."""

AT_LEAST: list[Tamper] = [swapped, put_back, seal_moved, seal_of_another, written_anew]
"""What lies beside is doubtful then, too."""


def tampered_with(log: Log, tamper: Tamper, persons: list[str | None], i: int) -> None:
    log.empty()
    log.fill([entry(n, person) for n, person in enumerate(persons)])
    # As where others were rolled back: between two entries there is room for one.
    log.run("UPDATE audit_log SET seq = -2 * seq", "UPDATE audit_log SET seq = -seq")
    log.seal()
    assert log.found() == set()
    seqs = [row[0] for row in log.rows("SELECT seq FROM audit_log ORDER BY seq")]
    expected = tamper(log, seqs, i % len(seqs))
    found = log.found()
    assert found == expected if tamper in EXACT else found >= expected


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    folder = tmp_path_factory.mktemp("sealed")
    store = Store.open(f"sqlite:///{folder}/store.db", SECRET)
    log = Log(store, folder / "audit-head-live.jsonl")
    log.disarm()
    yield log
    store.close()


@settings(max_examples=60)
@given(
    st.sampled_from([*EXACT, *AT_LEAST]),
    st.lists(st.sampled_from([None, "Ann", "Bob"]), min_size=1, max_size=6),
    st.integers(0, 5),
)
def test_any_tampering_is_named(
    on_sqlite: Log, tamper: Tamper, persons: list[str | None], i: int
) -> None:
    tampered_with(on_sqlite, tamper, persons, i)


@pytest.mark.each_store
def test_every_kind_of_tampering_is_named(log: Log) -> None:
    log.disarm()
    for tamper in (*EXACT, *AT_LEAST):
        tampered_with(log, tamper, ["Ann", None, "Bob", None], 1)


NO_VALUES = ("x'00ff'", "CAST(x'ff' AS TEXT)", "5", "'é'", "5.5")
"""What SQLite lets stand in a column of any kind."""


@pytest.mark.parametrize("i", [0, 3])
@pytest.mark.parametrize("value", NO_VALUES)
def test_what_is_of_no_kind_is_named_and_not_stumbled_over(
    on_sqlite: Log, value: str, i: int
) -> None:
    """Else one such value would keep whoever verifies from all the others."""
    log, persons = on_sqlite, ["Ann", None, "Bob", "Eve"]
    for column in ("at", "action", "content", "commitment", "personal"):
        tampered_with(log, lambda *_: set(), persons, i)
        (seq,) = (row[0] for row in log.rows(f"SELECT seq FROM audit_log LIMIT 1 OFFSET {i}"))
        altered(column, value)(log, [seq], 0)
        assert ("personal_altered" if column == "personal" else "altered", seq) in log.found()
    for column in ("mac", "seq"):
        tampered_with(log, lambda *_: set(), persons, i)
        log.run(f"UPDATE audit_seals SET {column} = {value} WHERE position = {i + 1}")
        log.vouch()
        assert {one.position for one in log.findings} >= {i + 1}
        assert all(str(one) for one in log.findings)


def test_a_key_that_was_put_into_the_store_is_refused(log: Log) -> None:
    for name in ("audit_key:x", "audit_key:7"):
        log.run("INSERT INTO meta VALUES (:name, '00')", name=name)
        with pytest.raises(KeyLostError):
            log.vouch()
        log.run("DELETE FROM meta WHERE name = :name", name=name)


@pytest.mark.each_store
def test_the_database_refuses_to_change_or_remove_a_seal(log: Log) -> None:
    log.fill([entry(1)])
    log.seal()
    again = (
        "INSERT OR REPLACE INTO audit_seals SELECT * FROM audit_seals"
        if log.store.database.is_sqlite
        else "TRUNCATE audit_seals"
    )
    for attempt in ("UPDATE audit_seals SET seq = 5", "DELETE FROM audit_seals", again):
        with pytest.raises(DBAPIError, match="audit_seals is only ever appended to"):
            log.run(attempt)
    assert log.found() == set()


def test_erasing_what_is_personal_is_no_tampering(log: Log) -> None:
    log.fill([entry(1, "Ann"), entry(2, "Bob"), entry(3)])
    log.seal()
    keep = Keep(audit=1)
    apply(log.store, keep, at=DAY_MS + 2, actor="ann")
    vouched = log.vouch()
    assert (vouched.findings, vouched.sealed, vouched.erased) == (0, 3, 1)
    log.seal()
    assert log.found() == set()
    log.run("UPDATE audit_log SET personal = NULL WHERE subject = 'refund:r-2'")
    assert log.found() == {("erased_unrecorded", None)}, "nobody recorded this one"


def test_what_is_not_vouched_for_is_told(log: Log) -> None:
    log.fill([entry(1), entry(2)])
    log.seal()
    exported = HeadFile(log.head).read()
    log.fill([entry(3)])
    log.seal()
    log.fill([entry(4), entry(5)])
    vouched = log.vouch(exported)
    assert (vouched.findings, vouched.sealed, vouched.sealed_since) == (0, 3, 1)
    assert (vouched.unsealed, vouched.unsealed_since, vouched.head) == (2, 4, exported[-1])
    log.head.unlink()
    assert log.found() == {("no_head", None)}


# --- sealing -------------------------------------------------------------------------------------


@pytest.mark.each_store
def test_a_log_from_before_there_were_seals_is_caught_up_with_in_parts(log: Log) -> None:
    log.fill([entry(n) for n in range(2 * AT_ONCE + 3)])
    assert log.seal() == 2 * AT_ONCE + 3
    assert log.seal() == 0
    assert log.found() == set()
    assert [head.position for head in HeadFile(log.head).read()] == [2 * AT_ONCE + 3]


def test_one_process_of_several_seals_and_another_goes_on_where_it_died(log: Log) -> None:
    first, second = log.sealer(), log.sealer()
    log.fill([entry(1)])
    assert (first.seal(), second.seal()) == (1, None)
    log.fill([entry(2)])
    log.now += LEASE_MS  # the first was killed, and could not give the lease back
    assert second.seal() == 1
    log.fill([entry(3)])
    assert first.seal() is None
    second.stop()
    assert log.found() == set()
    assert log.vouch().sealed == 3
    assert first.seal() == 0


def test_a_process_that_was_stopped_while_another_sealed_seals_nothing_twice(log: Log) -> None:
    first, second = log.sealer(), log.sealer()
    log.fill([entry(1)])
    first.seal()
    now, log.now = log.now, log.now + LEASE_MS
    log.fill([entry(2)])
    assert second.seal() == 1
    log.now = now  # its clock, and what it knows, are those of before
    log.fill([entry(3)])
    with pytest.raises(ChainMovedError):
        first.seal()
    assert first.seal() == 1
    assert log.found() == set()


def test_who_cuts_off_under_a_running_service_and_takes_the_heads_away_is_found(log: Log) -> None:
    sealer = log.sealer()
    log.fill([entry(n) for n in range(4)])
    assert sealer.seal() == 4
    log.disarm()
    log.run("DELETE FROM audit_log WHERE seq > 2", "DELETE FROM audit_seals WHERE position > 2")
    log.head.unlink()
    log.fill([entry(n) for n in range(9, 12)])
    with pytest.raises(ChainMovedError):
        sealer.seal()
    assert sealer.seal() == 3
    assert log.found() == {("head_differs", None)}


def test_a_head_that_was_not_exported_before_a_crash_is_exported_after_it(log: Log) -> None:
    log.fill([entry(1)])
    log.seal()
    log.head.unlink()
    assert log.seal() == 0
    assert [head.position for head in HeadFile(log.head).read()] == [1]


def test_who_drew_a_lower_number_and_commits_later_is_sealed_in_its_turn(
    new_database: Any, tmp_path: Path
) -> None:
    store = Store.open(new_database(), SECRET)
    log = Log(store, tmp_path / "head.jsonl")
    with store.write() as slow:
        slow.audit("key:k", "decided", "refund:slow", {}, at=1)
        log.fill([entry(2), entry(3)])
        sealer = log.sealer()
        assert sealer.seal() == 0, "nothing above it is sealed before it is there, or never will be"
        log.fill([entry(4)])
    with pytest.raises(ZeroDivisionError), store.write() as never:
        never.audit("key:k", "decided", "refund:never", {}, at=1)
        raise ZeroDivisionError
    assert sealer.seal() == 3, "what was there when it was asked who writes"
    assert sealer.seal() == 1
    rows = log.rows("SELECT position, seq FROM audit_seals ORDER BY position")
    assert [tuple(row) for row in rows] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert log.found() == set()
    store.close()


def test_the_chain_goes_on_under_another_secret(log: Log) -> None:
    log.fill([entry(1), entry(2)])
    log.seal()
    for old, new in ((SECRET, OTHER), (OTHER, SECRET + b"2")):
        with log.store.database.write() as connection:
            rekey(connection, log.store.database, old, new)
        log.fill([entry(3)])
        sealer = log.sealer(new)
        assert sealer.seal() == 1
        sealer.give_up()
        assert vouch(log.store, new, HeadFile(log.head).read(), print).findings == 0
        with pytest.raises(KeyLostError, match="position 2 was altered in the store"):
            vouch(log.store, old, [], print)
    log.run("UPDATE meta SET value = '00' WHERE name = 'audit_key:3'")
    with pytest.raises(KeyLostError, match="position 3 was altered"):
        vouch(log.store, SECRET + b"2", [], print)


def test_a_file_of_heads_stays_small_and_keeps_what_the_chain_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "MOST_LINES", 20)
    file = HeadFile(tmp_path / "head.jsonl")
    told = [Head(n * 86_400_000 // 10, n + 1, n + 1, "ab") for n in range(21)]  # ten a day
    for head in told[:2]:
        file.append(head)
    with file.path.open("ab") as half:  # a crash in the midst of a line
        half.write(b'{"at":1,')
    for head in told[2:20]:
        file.append(head)
    assert not file.compact(lambda head: True)
    file.append(told[20])
    assert file.read() == told
    assert file.compact(lambda head: head != told[7])
    assert file.read() == [told[7], told[9], told[19], told[20]]


def test_it_seals_from_start_to_stop(log: Log) -> None:
    sealer = log.sealer()
    sealer.start()
    log.fill([entry(1)])
    sealer.stop()
    assert log.found() == set()
    assert log.vouch().sealed == 1
    assert "audit-sealer" not in {thread.name for thread in threading.enumerate()}
