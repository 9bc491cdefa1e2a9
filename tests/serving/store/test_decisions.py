"""Decisions and idempotency keys come back as they went in, and for as long as they should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from features.events import RefundRequest
from serving.store.decisions import IDEMPOTENCY_MS, Decision, FirstResult
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
