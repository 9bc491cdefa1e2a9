"""The audit log keeps what it is told, in order."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from serving.store.audit import AuditEntry
from serving.store.store import Store


def test_entries_come_back_in_order(store: Store) -> None:
    with store.write() as tx:
        tx.audit("api", "decide", "r1", {"action": "ALLOW"}, at=2)
        tx.audit("ann", "review", "r1", {"verdict": "deny"}, at=1)
        tx.audit("api", "decide", "r2", {}, at=3)
    assert store.audit_about("r1") == [
        AuditEntry(2, "api", "decide", "r1", {"action": "ALLOW"}),
        AuditEntry(1, "ann", "review", "r1", {"verdict": "deny"}),
    ]


def test_many_entries_at_once_come_back_in_order(store: Store) -> None:
    entries = [AuditEntry(at, "ann", "listed", "d1", {"at": at}) for at in (3, 1, 2)]
    with store.write() as tx:
        tx.audit_many(entries)
    assert store.audit_about("d1") == entries


def test_what_is_personal_stands_beside_its_commitment_and_can_be_erased(either: Store) -> None:
    with either.write() as tx:
        for at, by, value in ((1, "Ann", "d"), (2, "Ann", "d"), (2, "Bob", "e")):
            tx.audit("key:k", "listed", "list:block", {"entity": "device"}, at=at,
                     personal={"by": by, "value": f"pseudonym-{value}"})  # fmt: skip
        tx.audit("key:k", "decided", "refund:r", {"score_id": "s"}, at=3)
    log, database = either.audit_log, either.database
    with database.read() as connection:
        before = log.after(connection, 0)
    assert all(entry.keeps_its_word for entry in before)
    assert [entry.commitment is None for entry in before] == [False, False, False, True]
    assert len({entry.commitment for entry in before}) == 4, "one name, two commitments"
    assert before[0].entry().personal == {"by": "Ann", "value": "pseudonym-d"}
    with database.write() as connection:
        assert log.erase_before(connection, 2) == 1
        others = [f"other-{n}" for n in range(99)]
        assert log.erase_naming(connection, ["pseudonym-e", *others]) == 1
    with database.read() as connection:
        after = log.after(connection, 0)
    assert [entry.is_erased for entry in after] == [True, False, True, False]
    assert [e.sealed_bytes() for e in before] == [e.sealed_bytes() for e in after]
    assert [one.personal is None for one in either.audit_about("list:block")] == [True, False, True]


@pytest.mark.parametrize(
    "change",
    ["personal = 'x'", "personal = NULL, content = '{}'", "commitment = NULL, personal = NULL"],
)
def test_nothing_but_what_is_personal_can_be_erased(either: Store, change: str) -> None:
    with either.write() as tx:
        tx.audit("key:k", "listed", "device:d", {"list": "block"}, at=1, personal={"by": "Ann"})
    refused = pytest.raises(DBAPIError, match="audit_log is only ever appended to")
    with refused, either.database.write() as connection:
        connection.execute(text(f"UPDATE audit_log SET {change}"))
