"""Decisions and idempotency keys come back as they went in, and for as long as they should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from features.events import RefundRequest
from serving.store.decisions import IDEMPOTENCY_MS, Decision, FirstResult
from serving.store.schema import decisions, name_lists
from serving.store.store import Store

DECISION = Decision("s1", "r1", "hash", 1_000, {"score": 0.5, "unknown": None}, {"action": "ALLOW"})
RESULT = FirstResult("hash", 200, {"action": "ALLOW"}, 5_000)


def test_a_decision_is_found_by_its_content(
    store: Store, refund: Callable[..., RefundRequest]
) -> None:
    later = replace(DECISION, score_id="s2", decided_at=2_000)
    with store.write("c1") as tx:
        tx.append([refund("r1")])
        assert tx.find_decision("r1", "hash") is None
        tx.save_decision(DECISION)
        assert tx.find_decision("r1", "hash") == DECISION
        tx.save_decision(later)
        assert tx.find_decision("r1", "hash") == later
        assert tx.find_decision("r1", "other") is None
        assert tx.find_decision("r2", "hash") is None
    assert store.decision("s1") == DECISION
    assert store.decision("s3") is None
    assert store.decisions_of("r1") == [later, DECISION]


def test_the_names_of_numbers_are_kept_once(store: Store) -> None:
    features = {f"feature_{number}": number / 3 for number in range(300)} | {"feature_7": None}
    record = {"features": features, "contributions": None, "score": 0.5}
    with pytest.raises(RuntimeError), store.write() as tx:
        tx.save_decision(replace(DECISION, record=record))
        found = tx.find_decision("r1", "hash")
        assert found and found.record == record
        raise RuntimeError("nothing of this transaction is kept, the list of names neither")
    for number in range(3):
        with store.write() as tx:
            tx.save_decision(replace(DECISION, score_id=f"s{number}", record=record))
    with store.write() as tx:
        fewer = {**record, "features": {"feature_1": 1.0}, "contributions": {"feature_1": 0.1}}
        tx.save_decision(replace(DECISION, score_id="s3", record=fewer))
    with store.database.read() as connection:
        texts = connection.execute(select(decisions.c.record)).scalars().all()
        assert len(connection.execute(select(name_lists)).all()) == 2
    assert not any("feature_1" in text for text in texts)
    assert [decision.record for decision in store.decisions()] == [record, record, record, fewer]


@pytest.mark.parametrize("batch", [1, 2, 500])
def test_decisions_come_in_order_of_time(
    store: Store, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.store.decisions._BATCH", batch)
    times = {"a": 30, "b": 10, "d": 20, "c": 20, "e": 0}
    with store.write() as tx:
        for score_id, at in times.items():
            tx.save_decision(replace(DECISION, score_id=score_id, decided_at=at))

    def ids(since: int | None = None, until: int | None = None) -> str:
        return "".join(decision.score_id for decision in store.decisions(since, until))

    assert ids() == "ebcda"
    assert ids(since=20) == "cda"
    assert ids(until=20) == "eb"
    assert ids(10, 30) == "bcd"
    assert ids(since=31) == ""
    assert list(store.decisions(30)) == [replace(DECISION, score_id="a", decided_at=30)]


def test_a_score_id_is_used_once(store: Store) -> None:
    with pytest.raises(IntegrityError), store.write() as tx:
        tx.save_decision(DECISION)
        tx.save_decision(DECISION)
    assert store.decision("s1") is None


def test_the_first_result_of_a_key_is_kept_for_a_day(store: Store) -> None:
    with store.write() as tx:
        tx.save_first_result("key_1", "abc", RESULT)
        last = RESULT.created_at + IDEMPOTENCY_MS
        assert tx.first_result("key_1", "abc", last - 1) == RESULT
        assert tx.first_result("key_1", "abc", last) is None
        assert tx.first_result("key_2", "abc", last - 1) is None
        renewed = replace(RESULT, status=503, created_at=last)
        tx.save_first_result("key_1", "abc", renewed)
        assert tx.first_result("key_1", "abc", last) == renewed
