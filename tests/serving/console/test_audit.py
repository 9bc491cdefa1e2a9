"""The page of the audit log: what is looked for is found, however long the log is."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serving.desk import Desk
from serving.store import audit
from serving.store.audit import AuditEntry, AuditLog, Wanted
from serving.store.store import Store
from tests.serving.conftest import SECRET
from tests.serving.console.conftest import SANDBOX, SignedIn

DAY = 86_400_000
AT = 20_000 * DAY
HOSTILE = '<script>alert(1)</script>\u202e=HYPERLINK("x")'


def entries() -> list[AuditEntry]:
    """Decisions, a minute apart, and now and then what a person did."""
    made = [AuditEntry(AT + n * 60_000, "key:key_1", "decided", f"refund:r{n}", {"n": n})
            for n in range(120)]  # fmt: skip
    made[10] = AuditEntry(
        AT, "cli:root", "listed", "list:block", {}, {"by": "Ann Lee", "reason": HOSTILE}
    )
    made[20] = AuditEntry(AT - DAY, "Ann Lee", "revealed", "customer", {"until": AT})
    return made


@pytest.fixture
def either(store_url: str) -> Iterator[Store]:
    opened = Store.open(store_url, SECRET)
    yield opened
    opened.close()


def test_entries_are_found_by_who_what_and_when(
    either: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with either.database.write() as connection:
        either.audit_log.append_many(connection, entries())
    log = AuditLog(either.database)

    def found(limit: int = 50, before: int | None = None, **wanted: Any) -> tuple[list[int], Any]:
        with either.database.read() as connection:
            got = log.search(connection, Wanted(**wanted), before=before, limit=limit)
        return [entry.seq for entry in got.entries], (got.before, got.is_full)

    assert found(2) == ([120, 119], (119, True))
    assert found(2, before=119) == ([118, 117], (117, True))
    assert found(3, before=3) == ([2, 1], (None, False))
    assert found(actors=("Ann Lee",)) == ([21, 11], (None, False))
    assert found(actors=("Ann",)) == ([], (None, False))
    assert found(actors=('Ann Lee","reason',)) == ([], (None, False))
    assert found(actors=("Bob", "cli:root"))[0] == [11]
    assert found(action="revealed")[0] == [21]
    assert found(subject="refund:r5") == ([6], (None, False))
    assert found(since=AT + 119 * 60_000)[0] == [120]
    assert found(until=AT, since=AT - DAY)[0] == [21]
    monkeypatch.setattr(audit, "LOOKED_THROUGH", 50)
    assert found(action="revealed") == ([], (71, False))
    assert found(action="revealed", before=71) == ([21], (21, False))
    assert found(subject="refund:r5")[0] == [6], "a subject is looked up"


def test_the_log_is_read_page_by_page_and_shows_all_texts_inert(
    signed_in: Callable[..., SignedIn], desk: Desk
) -> None:
    finance = signed_in("finance")
    with desk.store.database.write() as connection:
        desk.store.audit_log.append_many(connection, entries())
    seen, address = "", SANDBOX + "/audit"
    for _ in range(5):
        page = finance.get(address).text
        seen += page
        onward = re.search(r'<a href="([^"]*)" rel="next"', page)
        if onward is None:
            break
        address = html.unescape(onward[1])
    assert all(f"refund:r{n}<" in seen for n in range(120) if n not in (10, 20))
    assert "<script>alert" not in seen and "[U+202E]=HYPERLINK" in seen
    assert "all about it" in seen and f"{SANDBOX}/lists/block" in seen


def test_what_is_looked_for_is_kept_and_told_when_wrong(
    signed_in: Callable[..., SignedIn], desk: Desk
) -> None:
    manager = signed_in("manager", "Ann Lee")
    with desk.store.database.write() as connection:
        desk.store.audit_log.append_many(connection, entries())
    day = "2024-10-04"
    page = manager.see(f"/audit?actor=ann+lee&since={day}&until={day}")
    assert "list:block" in page and "customer" not in re.sub("(?s)<form.*?</form>", "", page)
    assert f'value="{day}"' in page and 'value="ann lee"' in page
    for query, told in (
        ("since=2024-13-01", "must be a day as 2026-01-31"), ("until=-1", "must be a day"),
        ("since=2024-10-05&until=2024-10-04", "must not be before 2024-10-05"),
        ("before=x", "must be the number of an entry"), ("before=٣", "must be the number"),
    ):  # fmt: skip
        assert told in manager.see(f"/audit?{query}&actor=Bob", 422)
    assert "No entry is like that." in manager.see("/audit?action=nothing")
    assert "No entry is like that." in manager.see("/audit?subject=%25'--")


def test_an_entry_that_was_altered_into_none_is_shown(
    signed_in: Callable[..., SignedIn], desk: Desk
) -> None:
    finance = signed_in("finance")
    with desk.store.database.write() as connection:
        desk.store.audit_log.append_many(connection, entries()[:4])
        for (name,) in connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_log'"
        ).fetchall():
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
    for alteration in (
        "content = x'00ff', at = 'then'", "content = '[1]', actor = x'00ff'",
        "content = '{\"changes\": 5}', subject = x'ff'", "personal = '{}', content = '{}'",
    ):  # fmt: skip
        with desk.store.database.write() as connection:
            connection.exec_driver_sql(f"UPDATE audit_log SET {alteration}")
        assert "altered" in finance.see("/audit"), alteration
