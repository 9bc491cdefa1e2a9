"""The audit log keeps what it is told, in order."""

from __future__ import annotations

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
