"""What is old enough goes whole, and nothing that a window still reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events import Event, RefundOutcome, RefundRequest
from features.money import DAY_MS
from serving.retaining import RetentionWatch
from serving.store.decisions import Decision, FirstResult
from serving.store.retention import Keep, apply
from serving.store.store import Store
from tests.serving.store.test_erasure import features_of, reindexed
from tests.serving.store.test_history import dump, fresh_store, histories, once

Refund = Callable[..., RefundRequest]
NOW = 800 * DAY_MS


def applied(store: Store, keep: Keep, at: int, **how: Any) -> dict[str, int]:
    found = apply(store, keep, at=at, actor="ann", pause=lambda seconds: None, **how)
    return {table: count for table, count in found.rows.items() if count}


@settings(max_examples=12)
@given(batches=histories(), days=st.sampled_from([365, 366, 400]))
def test_what_is_asked_from_now_on_is_answered_alike(batches: list[list[Event]], days: int) -> None:
    events = once([event for batch in batches for event in batch])
    at = 400 * DAY_MS + 365 * DAY_MS
    asked = [e.model_copy(update={"known_at": at, "refund_id": "new", "event_id": None})
             for e in events if isinstance(e, RefundRequest)]  # fmt: skip
    with fresh_store() as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.store.retention.SEVERAL", 3)
        for batch in batches:
            with store.write() as tx:
                tx.append(batch)
        store.clock = "ingest"
        before = [features_of(store, request) for request in asked]
        would = applied(store, Keep(events=days), at, dry_run=True)
        assert len(dump(store)[1]) == len(events)
        gone = applied(store, Keep(events=days), at)
        assert gone.get("events", 0) == would.get("events", 0)
        kept = dump(store)
        assert len(kept[1]) == len(events) - gone.get("events", 0)
        assert kept == reindexed(store)
        assert [features_of(store, request) for request in asked] == before
        if all(e.known_at < at - days * DAY_MS for e in events):
            assert not kept[1]


def test_each_table_has_its_days(store: Store, refund: Refund) -> None:
    old, new = NOW - 500 * DAY_MS, NOW - 10 * DAY_MS
    with store.write() as tx:
        tx.append([
            refund("gone", old, customer_id="c1", order_id="o1"),
            refund("told-late", old, customer_id="c2", order_id="o2"),
            RefundOutcome(refund_id="told-late", known_at=new, status="COMPLETED"),
            refund("new", new, customer_id="c3"),
        ])  # fmt: skip
        for score_id, at in (("s1", old), ("s2", new)):
            tx.save_decision(Decision(score_id, "gone", "h", at, {"keys": {}}, {}))
            tx.save_first_result("key", score_id, FirstResult("h", 200, {}, at))
        for entity, expires in (("a", old), ("b", new), ("c", None)):
            tx.put_on_list("block", "device", entity, reason="x", author="ann", at=1,
                           expires_at=expires)  # fmt: skip
        tx.audit("ann", "listed", "device:a", {}, at=old, personal={"by": "ann"})
    keep = Keep(events=365, decisions=30, lists=30, audit=30)
    assert applied(store, keep, NOW) == {
        "idempotency_keys": 2, "lists": 1, "audit_log": 1, "decisions": 1, "events": 1,
        "event_keys": 3, "refunds": 1, "identifiers": 1,
    }  # fmt: skip
    assert {e.payload["refund_id"] for e in store.events()} == {"told-late", "new"}
    mac = store.identifiers.mac("customer", "c1")
    assert store.reveal("customer", [mac]) == {}
    assert store.read({"customer": "c1"}, NOW, ()).first_seen["customer"] == old
    of_audit, of_the_rest = store.audit_about("retention")
    assert of_audit.content["rows"] == {"audit_log": 1}
    assert (of_the_rest.content["rows"]["events"], "audit_log" in of_the_rest.content["rows"]) == (
        1, False)  # fmt: skip
    assert applied(store, keep, NOW) == {}


def test_the_background_pass_goes_round(
    store: Store, refund: Refund, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.store.retention._LOOKED_AT", 2)
    with store.write() as tx:
        tx.append(refund(f"r{i}", known_at=i, customer_id=f"c{i}") for i in range(5))
    keep = Keep(events=365)
    counts = [applied(store, keep, NOW, whole=False).get("events", 0) for _ in range(3)]
    assert counts == [2, 2, 1]
    with store.write() as tx:
        tx.append([refund("late", known_at=9)])
    assert [applied(store, keep, NOW, whole=False).get("events", 0) for _ in range(2)] == [1, 0]


def test_what_a_window_reads_is_refused_to_go() -> None:
    with pytest.raises(ValueError, match="at least 365 days"):
        Keep(events=364)
    with pytest.raises(ValueError, match="at least 1 day"):
        Keep(idempotency=0)


def test_a_fault_of_ours_ends_no_later_pass(
    store: Store, refund: Refund, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.write() as tx:
        tx.append([refund("r1", known_at=1)])
    watch = RetentionWatch(store, Keep(events=365))
    with monkeypatch.context() as patch:
        patch.setattr("serving.retaining.apply", lambda *_, **__: 1 // 0)
        assert not watch.look(NOW)
    assert watch.look(NOW)
    assert not list(store.events())


def test_a_store_of_replays_keeps_its_events(refund: Refund) -> None:
    with fresh_store() as store:
        with store.write() as tx:
            tx.append([refund("r1", known_at=1)])
        found = apply(store, Keep(events=365), at=NOW, actor="ann")
        assert found.left
        assert len(list(store.events())) == 1
