"""Decisions and idempotency keys come back as they went in, and for as long as they should."""

from __future__ import annotations

import math
import struct
import uuid
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from features.events import RefundRequest
from serving.store.database import Prepared, Row
from serving.store.decisions import IDEMPOTENCY_MS, Decision, FirstResult, Numbers
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


def test_the_names_of_numbers_are_kept_once(either: Store) -> None:
    features = {f"feature_{number}": number / 3 for number in range(300)} | {"feature_7": None}
    record = {"features": features, "contributions": None, "score": 0.5}
    with pytest.raises(RuntimeError), either.write() as tx:
        tx.save_decision(replace(DECISION, record=record))
        found = tx.find_decision("r1", "hash")
        assert found and found.record == record
        raise RuntimeError("nothing of this transaction is kept, the list of names neither")
    for number in range(3):
        with either.write() as tx:
            tx.save_decision(replace(DECISION, score_id=f"s{number}", record=record))
    with either.write() as tx:
        fewer = {**record, "features": {"feature_1": 1.0}, "contributions": {"feature_1": 0.1}}
        tx.save_decision(replace(DECISION, score_id="s3", record=fewer))
    with either.database.read() as connection:
        texts = connection.execute(select(decisions.c.record)).scalars().all()
        assert len(connection.execute(select(name_lists)).all()) == 2
    assert not any("feature_1" in text for text in texts)
    assert [decision.record for decision in either.decisions()] == [record, record, record, fewer]


FEATURES = {"a": 0.1, "b": None, "c": -0.0, "d": 5e-324, "e": 1.7976931348623157e308, "f": math.inf}


def test_numbers_in_an_array_are_kept_as_those_of_a_mapping_are(either: Store) -> None:
    named = {"a": 0.1, "b": None, "c": -0.0}
    packed = Numbers(("a", "b", "c"), np.array([0.1, math.nan, -0.0]))
    with either.write() as tx:
        for score_id, part in (("s1", named), ("s2", packed)):
            record = {"features": part, "contributions": None}
            tx.save_decision(replace(DECISION, score_id=score_id, record=record))
    first, second = either.raw_decisions()
    assert first[3:] == second[3:]
    found = either.decision("s2")
    assert found is not None
    assert repr(found.record["features"]) == repr(named)


def test_numbers_that_do_not_fit_their_names_are_refused(store: Store) -> None:
    record = {"features": Numbers(("a", "b"), np.array([0.1]))}
    got = "2 names: expected as many numbers, got 1"
    with store.write() as tx, pytest.raises(ValueError, match=got):
        tx.save_decision(replace(DECISION, record=record))


@given(st.dictionaries(st.text(), st.none() | st.floats(allow_nan=False)))
@example(FEATURES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_numbers_come_back_to_the_last_bit(store: Store, features: dict[str, float | None]) -> None:
    record = {"score": 0.5, "features": features, "contributions": features}
    score_id = uuid.uuid4().hex
    with store.write() as tx:
        tx.save_decision(replace(DECISION, score_id=score_id, record=record))
    found = store.decision(score_id)
    assert found is not None
    assert repr(found.record["features"]) == repr(features)
    assert repr(found.record["contributions"]) == repr(features)


OLD_RECORDS = [
    '{"score":1,"features":{"a":1.5,"b":null}}',
    '{"score":2,"features":{"names":"ab","numbers":[2.5,null]},"contributions":null}',
    '{"score":3,"features":null}',
]
"""As programs of schema version 1 and 2 kept them, and one without a score."""


def test_raw_decisions_are_the_same_whichever_version_kept_them(either: Store) -> None:
    with either.write() as tx:
        new = {"score": 4, "features": {"a": 3.5, "b": None}, "contributions": {"a": 0.1}}
        tx.save_decision(replace(DECISION, score_id="s4", decided_at=4, record=new))
        tx.save_decision(replace(DECISION, score_id="s5", decided_at=5, record={"score": 5}))
    with either.database.write() as connection:
        connection.execute(insert(name_lists).values(id="ab", names='["a","b"]'))
        for at, record in enumerate(OLD_RECORDS, 1):
            connection.execute(
                insert(decisions).values(score_id=f"s{at}", refund_id="r1", content_hash="h",
                                         decided_at=at, record=record, response="{}")
            )  # fmt: skip
    whole = [*either.raw_decisions(contributions=True)]
    assert [(one.contribution_names, np.frombuffer(one.contributions, "<f8").tolist())
            for one in whole if one.decided_at > 3] == [(("a",), [0.1]), ((), [])]  # fmt: skip
    for decision, raw in zip(either.decisions(), either.raw_decisions(), strict=True):
        record, features = dict(decision.record), decision.record.get("features") or {}
        numbers = [math.nan if value is None else value for value in features.values()]
        assert (raw.score_id, raw.refund_id, raw.decided_at) == (
            decision.score_id, decision.refund_id, decision.decided_at
        )  # fmt: skip
        assert raw.feature_names == tuple(features)
        assert raw.features == struct.pack(f"<{len(numbers)}d", *numbers)
        kept = {name: v for name, v in record.items() if name not in ("features", "contributions")}
        assert kept.items() <= orjson.loads(raw.record).items()
    assert [decision.record["score"] for decision in either.decisions()] == [1, 2, 3, 4, 5]
    assert [raw.score_id for raw in either.raw_decisions(2, 5)] == ["s2", "s3", "s4"]
    halves = either.decision_ranges(2)
    assert [[raw.decided_at for raw in either.raw_decisions(*part)] for part in halves] == [
        [1, 2], [3, 4, 5]
    ]  # fmt: skip


def test_a_range_is_read_along_its_index(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Row]] = []
    run = store.database.run

    def noted(connection: Connection, statement: Prepared, values: Row) -> list[Row]:
        asked.append((statement.sql, values))
        return run(connection, statement, values)

    monkeypatch.setattr(store.database, "run", noted)
    assert list(store.raw_decisions(5, 10)) == []
    [(sql, values)] = asked
    with store.database.read() as connection:
        [plan] = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all()
    assert plan[3].startswith("SEARCH decisions USING INDEX decisions_by_time ")


@given(times=st.lists(st.integers(0, 20), max_size=30), parts=st.integers(1, 7),
       since=st.none() | st.integers(0, 20), until=st.none() | st.integers(0, 21))  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_ranges_share_out_every_decision_once(
    store: Store, times: list[int], parts: int, since: int | None, until: int | None
) -> None:
    with store.database.write() as connection:
        connection.execute(delete(decisions))
    with store.write() as tx:
        for number, at in enumerate(times):
            tx.save_decision(replace(DECISION, score_id=f"s{number}", decided_at=at))
    whole = [decision.score_id for decision in store.decisions(since, until)]
    ranges = store.decision_ranges(parts, since, until)
    shared = [[d.score_id for d in store.decisions(*part)] for part in ranges]
    assert [score_id for part in shared for score_id in part] == whole
    assert len(ranges) <= parts
    assert all(shared)
    most_at_once = max((times.count(at) for at in times), default=0)
    assert all(len(part) <= len(whole) // parts + 1 + most_at_once for part in shared)


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
