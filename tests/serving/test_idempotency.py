"""Idempotency-Key to the letter: what was done once is told again, and nothing is done twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from benchmarks.inprocess import Answered, InProcess
from serving import contract
from serving.desk import Desk, InFlightError, KeyReusedError, Sender
from serving.errands import Scoring
from serving.idempotency import MOST_CHARACTERS, key_of
from serving.keyring import SECONDS, KeyRing
from serving.store.decisions import IDEMPOTENCY_MS
from serving.store.store import Store
from serving.together import MOST_TOGETHER, together
from serving.watch import Watch
from serving.wire import InvalidRequest
from tests.serving.conftest import DEFAULT_POLICY
from tests.serving.test_desk import (
    BODY,
    ME,
    NOW,
    Clock,
    data,
    earlier,
    kept,
    now,
    open_desk,
    report,
    url,
)
from tests.serving.test_reservations import CAPTURED_MINOR, COMPLETE, asked, order

__all__ = ["now", "open_desk", "url"]  # fixtures

OUTCOME = {**BODY, "refund": {"refundId": "r-1", "status": "COMPLETED", "amount": 1000}}


def outcome(**refund: Any) -> Any:
    body = {**OUTCOME, "refund": {**OUTCOME["refund"], **refund}}
    return contract.parse_refund(orjson.dumps(body), scored=False)


def tell(desk: Desk, said: Any, at: int, key: str = "k") -> Any:
    sender = Sender("key_1", key)
    claim = sender.claim(said.content_hash, "POST /v2/refund")
    return desk.record(said, at, sender.actor, claim)


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "key"),
    [("a", "a"), ('"a b"', "a b"), (' "a" ', "a"), (r'"a\"\\"', 'a"\\'), ("x" * 255, "x" * 255)],
)
def test_a_key_is_a_string_with_its_quotes_or_without(given: str, key: str) -> None:
    assert key_of([given]) == key


@pytest.mark.parametrize(
    "given",
    ["", " ", '""', '" "', "a b", "a,b", '"a', 'a"', '"a";x=1', "clé", '"clé"', "a\tb", r'"\a"',
     "x" * 256, f'"{"x" * 256}"'],
)  # fmt: skip
def test_what_is_no_key_is_refused_by_name(given: str) -> None:
    with pytest.raises(InvalidRequest, match=f"Idempotency-Key: .*1 to {MOST_CHARACTERS}"):
        key_of([given])
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        key_of(["a", "a"])


# --- reports -------------------------------------------------------------------------------------


@pytest.mark.each_store
def test_a_report_is_recorded_once_and_told_again_to_the_letter(open_desk, now):
    desk, later = open_desk(), open_desk()
    desk.decide(report(), now, ME)
    first = tell(desk, outcome(), now())
    with desk.store.write() as tx:
        tx.transition("r-1", "FAILED", at=now(), reported=True)
    again = tell(later, outcome(), now())
    assert (first.replayed, again.replayed) == (False, True)
    assert orjson.dumps(again.body) == orjson.dumps(first.body)
    assert desk.store.refund("r-1").state == "FAILED", "a replay tells nothing"
    reported = [e for e in desk.store.audit_about("refund:r-1") if e.action == "reported"]
    assert len(reported) == 1
    with pytest.raises(KeyReusedError, match="'k'"):
        tell(desk, outcome(amount=999), now())
    with pytest.raises(KeyReusedError, match="another call"):
        desk.decide(report(), now, Sender("key_1", "k"))


def test_a_report_counts_anew_under_its_key_after_a_day(open_desk):
    desk = open_desk()
    desk.decide(report(), lambda: NOW, ME)
    assert not tell(desk, outcome(), NOW + 1).replayed
    assert tell(desk, outcome(), NOW + IDEMPOTENCY_MS).replayed
    assert not tell(desk, outcome(), NOW + 1 + IDEMPOTENCY_MS).replayed


def test_what_is_said_of_a_report_is_what_was_recorded(open_desk, now):
    desk = open_desk()
    asked = data(desk.record(outcome(amount=None), now(), "key:key_1"))
    assert asked["recorded"] == ["order", "refund_outcome"]
    unknown = data(desk.record(outcome(status="COMPLETD", amount=None), now(), "key:key_1"))
    assert unknown["recorded"] == ["order"]
    message = next(w["msg"] for w in unknown["warnings"] if w["class"] == "unknown-value")
    assert "did you mean COMPLETED?" in message
    assert "no outcome of the refund is recorded" in message


# --- decisions -----------------------------------------------------------------------------------


@pytest.mark.each_store
def test_a_key_replays_its_allow_though_the_refund_was_declined_since(open_desk, now):
    desk = open_desk()
    me = Sender("key_1", "k")
    first = desk.decide(report(), now, me)
    desk.record(outcome(status="DECLINED"), now(), "key:key_1")
    again = desk.decide(report(), now, me)
    assert data(first)["action"] == "ALLOW"
    assert orjson.dumps(again.body) == orjson.dumps(first.body)
    assert not desk.decide(report(), now, ME).replayed, "without the key it is decided anew"


class Counting(Store):
    """A store that counts the decisions that are made, not only kept."""

    judged = 0

    def matching_lists(self, *of: Any, **given: Any) -> Any:
        self.judged += 1
        return super().matching_lists(*of, **given)

    def grounds(self, *of: Any, **given: Any) -> Any:
        self.judged += 1
        return super().grounds(*of, **given)


def test_a_replay_decides_nothing_and_writes_nothing(open_desk, now, monkeypatch):
    desk = open_desk(Counting)
    me = Sender("key_1", "k")
    desk.decide(report(), now, me)
    made = desk.store.judged

    def write(*_: Any) -> Any:
        raise AssertionError("a replay needs no lock")

    monkeypatch.setattr(desk.store, "write", write)
    assert desk.decide(report(), now, me).replayed
    assert desk.decide(report(), now, Sender("key_2")).replayed
    assert desk.store.judged == made > 0


@pytest.mark.each_store
def test_the_same_key_is_in_conflict_while_its_first_request_is_under_way(open_desk, now):
    """Two threads, two processes' worth of stores: the second meets the first in the middle."""
    ours, theirs = open_desk(), open_desk()
    me = Sender("key_1", "k")
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        inside.set()
        assert go_on.wait(20)
        return now()

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ours.decide, report(), slow, me)
        assert inside.wait(20)
        for desk in (ours, theirs):
            with pytest.raises(InFlightError, match="'k' is still under way"):
                desk.decide(report(), now, me)
            with pytest.raises(InFlightError):
                tell(desk, outcome(), now())
        assert not theirs.decide(report(refund_id="r-2"), now, Sender("key_2", "k")).replayed
        go_on.set()
        answer = first.result(20)
    again = theirs.decide(report(), now, me)
    assert again.replayed
    assert again.body == answer.body


def test_a_request_that_failed_lets_its_key_go(open_desk, now, monkeypatch):
    desk = open_desk()
    me = Sender("key_1", "k")
    with monkeypatch.context() as failing:
        failing.setattr(desk.store.decision_log, "save", _raise(RuntimeError("boom")))
        with pytest.raises(RuntimeError, match="boom"):
            desk.decide(report(), now, me)
    assert desk.store.refund("r-1") is None, "nothing of it was kept"
    assert not desk.decide(report(), now, me).replayed


def _raise(error: Exception) -> Any:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    return fails


# --- together ------------------------------------------------------------------------------------


def scoring(desk: Desk, now: Clock, said: Any, sender: Sender = ME) -> Scoring:
    return Scoring(desk, said, now, sender, Watch(60_000))


def of(number: int, refund_id: str | None = None, **refund: Any) -> Any:
    """A refund of a customer, an order, a device and a card of its own."""
    body = deepcopy(BODY)
    body["paymentMethods"] = [{"paymentMethodId": f"card {number}"}]
    body["device"]["ipAddress"] = f"10.{number // 65536}.{number // 256 % 256}.{number % 256}"
    for part, name in (("customer", "customerId"), ("order", "orderId"), ("device", "deviceId")):
        body[part][name] = f"{name} {number}"
    body["customer"]["email"] = f"{number}@in-clear.example"
    return report(body, **{"refundId": refund_id or f"r-{number}", **refund})


def test_what_is_done_together_is_committed_once_and_each_is_kept(open_desk, now, monkeypatch):
    desk = open_desk()
    commits = []
    write = desk.store.write
    monkeypatch.setattr(desk.store, "write", lambda *names: commits.append(names) or write(*names))
    answers = together([scoring(desk, now, of(number)) for number in range(4)])
    assert len(commits) == 1
    assert [len(desk.store.decisions_of(f"r-{number}")) for number in range(4)] == [1] * 4
    assert [kept(desk, answer)["refund_id"] for answer in answers] == [f"r-{n}" for n in range(4)]


def test_of_one_customer_each_sees_those_before_it_though_they_come_together(open_desk, now):
    desk = open_desk()
    answers = together([scoring(desk, now, report(refund_id=f"r-{n}")) for n in range(5)])
    assert [earlier(desk, answer) for answer in answers] == [0, 1, 2, 3, 4]


def test_of_one_order_the_second_is_held_to_what_the_first_left(open_desk, now):
    desk = open_desk(policy=COMPLETE)
    order(desk, now)
    both = [asked(f"r-{n}", CAPTURED_MINOR, customer=f"c-{n}") for n in range(2)]
    answers = together([scoring(desk, now, one) for one in both])
    assert [data(answer)["action"] for answer in answers] == ["ALLOW", "PREVENT"]


def test_one_that_fails_takes_no_other_with_it(open_desk, now, monkeypatch):
    desk = open_desk()
    save = desk.store.decision_log.save

    def fails(connection: Any, decision: Any, **given: Any) -> None:
        if decision.refund_id == "r-1":
            raise RuntimeError("boom")
        save(connection, decision, **given)

    monkeypatch.setattr(desk.store.decision_log, "save", fails)
    first, second, third = together([scoring(desk, now, of(number)) for number in range(3)])
    assert isinstance(second, RuntimeError)
    assert [kept(desk, answer)["refund_id"] for answer in (first, third)] == ["r-0", "r-2"]
    assert desk.store.refund("r-1") is None


def test_what_could_not_be_committed_together_is_answered_to_none(open_desk, now, monkeypatch):
    desk = open_desk()
    gone = OperationalError("COMMIT", None, OSError("disk full"))
    monkeypatch.setattr(desk.store.decision_log, "save", _raise(gone))
    results = together([scoring(desk, now, of(number)) for number in range(3)])
    assert results == [gone] * 3
    monkeypatch.undo()
    assert [desk.store.refund(f"r-{number}") for number in range(3)] == [None] * 3
    assert not isinstance(together([scoring(desk, now, of(0))])[0], Exception)


@pytest.mark.each_store
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 2), st.sampled_from([1000, 900]),
                  st.sampled_from([None, "k-1", "k-2"])),
        min_size=2, max_size=MOST_TOGETHER // 2,
    ),
    split=st.integers(1, 4),
)  # fmt: skip
def test_whatever_comes_together_each_content_is_decided_once(two_desks, requests, split):
    """Over two workers on one store, identical and differing requests, with keys and without."""
    desks, clock, number = two_desks
    tag = next(number)
    jobs = [
        # Of customers of their own: once limited, who asked for less would wait with less.
        scoring(desks[which], clock, of(10 * tag + refund, f"r-{tag}-{refund}", amount=amount),
                Sender("key_1", key and f"{tag} {key}"))
        for which, refund, amount, key in requests
    ]  # fmt: skip
    groups = [[job for job in jobs[at : at + split] if job.desk is desk]
              for at in range(0, len(jobs), split) for desk in desks]  # fmt: skip
    results: dict[int, Any] = {}

    def work(group: list[Scoring]) -> None:
        for job, result in zip(group, together(group), strict=True):
            results[id(job)] = result

    threads = [threading.Thread(target=work, args=(group,)) for group in groups if group]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == len(jobs)
    answered: dict[tuple[str, str], set[str]] = {}
    for job in jobs:
        result = results[id(job)]
        if isinstance(result, Exception):
            assert isinstance(result, KeyReusedError | InFlightError)
            assert job.claim is not None
            continue
        named = (job.report.refund.refund_id, job.report.content_hash)
        answered.setdefault(named, set()).add(data(result)["scoreId"])
    store = desks[0].store
    for (refund_id, content), score_ids in answered.items():
        found = [d.score_id for d in store.decisions_of(refund_id) if d.content_hash == content]
        assert {*found} == score_ids
        assert len(found) == 1


@pytest.fixture
def two_desks(open_desk) -> Any:
    return [open_desk(), open_desk()], Clock(), iter(range(1_000))


# --- over HTTP -----------------------------------------------------------------------------------


@pytest.fixture
def app(open_desk) -> Iterator[InProcess]:
    desk = open_desk()
    made = InProcess(desk, DEFAULT_POLICY.read_text(encoding="utf-8"))
    yield made
    made.api.finish()


CALLS = {
    "/v2/refund": OUTCOME,
    "/v2/order": {"customer": BODY["customer"], "order": BODY["order"]},
    "/v2/return": {"return": {"status": "RECEIVED", "orderId": "o-1"}},
    "/v2/dispute": {"order": {"orderId": "o-1"}, "dispute": {"disputeId": "d"}},
    "/v2/customer/cust-in-clear/labels": {"category": "REFUND_ABUSE", "review": "REFUND_ABUSE"},
    "/v2/lists/block": {"entity": "customer", "id": "cust-in-clear", "reason": "a ring"},
}


def test_every_call_replays_by_its_key_and_refuses_it_to_others(app: InProcess) -> None:
    for number, (path, body) in enumerate(CALLS.items()):
        key = {"Idempotency-Key": f'"k-{number}"'}
        first, again = (app.ask("POST", path, body, headers=key) for _ in range(2))
        assert (first.status, again.status) == (200, 200), first.body
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert again.body == first.body
        other = {"order": {"orderId": "x", "deliveredTime": 1_700_000_000}}
        assert app.ask("POST", "/v2/order", other, headers=key).status == 422
    assert app.ask("POST", "/v2/order", CALLS["/v2/order"],
                   headers={"Idempotency-Key": "a b"}).status == 400  # fmt: skip


def test_lines_of_history_are_told_again_by_their_key(app: InProcess) -> None:
    line: dict[str, Any] = {
        "timestamp": NOW,
        "order": {"orderId": "o-9", "status": {"stage": "accepted"}},
    }
    headers = {"Idempotency-Key": "lines", "content-type": "application/x-ndjson"}
    other = {**line, "order": {**line["order"], "orderId": "o-8"}}
    body = orjson.dumps(line) + b"\n" + orjson.dumps(other)
    first, again = (
        app.ask("POST", "/v2/backfill/order", body, headers=headers) for _ in range(2)
    )  # fmt: skip
    assert (first.status, first.json()["data"]["recorded"]) == (200, 2)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.body == first.body
    assert app.ask("POST", "/v2/backfill/order", body + b"\n{}", headers=headers).status == 422
    too_many = {**headers, "Idempotency-Key": "refused"}
    assert app.ask("POST", "/v2/backfill/order", b"", headers=too_many).status == 400
    assert app.ask("POST", "/v2/backfill/order", body, headers=too_many).status == 200


def test_a_refusal_is_not_kept(app: InProcess) -> None:
    key = {"Idempotency-Key": "k"}
    assert app.ask("POST", "/v2/order", {"order": {}}, headers=key).status == 400
    assert app.ask("POST", "/v2/order", CALLS["/v2/order"], headers=key).status == 200


def test_two_requests_with_one_key_at_once_are_one_answer_and_one_conflict(app: InProcess) -> None:
    key = {"idempotency-key": "k"}

    async def both() -> list[Answered]:
        return await asyncio.gather(*(
            app("POST", "/v2/refund", BODY, query={"score": "refundRequest"}, headers=key)
            for _ in range(2)
        ))  # fmt: skip

    answers = app.run(both)
    assert sorted(answer.status for answer in answers) == [200, 409]
    conflict = next(answer for answer in answers if answer.status == 409)
    assert conflict.headers["retry-after"] == "1"
    assert "Idempotency-Key: the first request" in conflict.json()["message"]
    assert len(app.desk.store.decisions_of("r-1")) == 1


def test_many_at_once_are_all_answered_and_each_sees_those_before(app: InProcess) -> None:
    async def all_at_once() -> list[Answered]:
        sent = []
        for number in range(12):
            body = deepcopy(BODY)
            body["refund"]["refundId"] = f"r-{number}"
            body["order"]["orderId"] = f"o-{number}"
            if number % 2:
                for part, name in (("customer", "customerId"), ("device", "deviceId")):
                    body[part][name] = f"{name} {number}"
            sent.append(app("POST", "/v2/refund", body, query={"score": "refundRequest"}))
        return await asyncio.gather(*sent)

    answers = app.run(all_at_once)
    assert [answer.status for answer in answers] == [200] * 12
    records = [app.desk.store.decision(a.json()["data"]["scoreId"]).record for a in answers[::2]]
    in_order = sorted(records, key=lambda record: record["cutoff"])
    assert [r["features"]["refund_count_by_customer_1d"] for r in in_order] == [*range(6)]


def test_a_misspelt_score_is_told_with_everything_else(app: InProcess) -> None:
    body = {**BODY, "refund": {**BODY["refund"], "amount": "10.00"}}
    answer = app.ask("POST", "/v2/refund", body, query={"score": "refundReqest"})
    fields = [problem["field"] for problem in answer.json()["validationErrors"]]
    assert (answer.status, fields) == (400, ["score", "refund.amount"])
    answer = app.ask("POST", "/v2/refund", b"{", query={"score": "refund"})
    assert [p["field"] for p in answer.json()["validationErrors"]] == ["score", "body"]


# --- keys of the API -----------------------------------------------------------------------------


def test_a_key_is_believed_for_a_second_and_refused_after_it(open_desk) -> None:
    store, ticks = open_desk().store, [100.0]
    ring = KeyRing(lambda: ticks[0])
    key = store.keys.create("test", ["score"], 1, expires_at=NOW + 500)
    known = ring.verify(store, key, NOW)
    assert known is not None
    assert ring.verify(store, key, NOW + 500) is None, "it has ended meanwhile"
    assert store.keys.revoke(known.id, NOW)
    assert ring.verify(store, key, NOW) == known
    ticks[0] += SECONDS
    assert ring.verify(store, key, NOW) is None
    assert ring.verify(store, "sk_test_nobody", NOW) is None
