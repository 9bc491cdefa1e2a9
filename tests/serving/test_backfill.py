"""History by the wire: recorded as of its own time, line by line, once, and never scored."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from features.money import DAY_MS
from features.packed import LAYOUT
from serving import backfill
from serving.api import Api, create_app
from serving.backfill import LINES_AT_ONCE, NDJSON
from serving.desk import Desk
from tests.serving.test_desk import BODY, NAMES, NOW, open_desk, url

__all__ = ["open_desk", "url"]  # fixtures

DAY_1 = NOW - 300 * DAY_MS
CUSTOMER = {"customerId": NAMES["customer"]}

Post = Callable[..., Any]


def order(number: int, **more: Any) -> dict[str, Any]:
    return {"timestamp": DAY_1 + number, "customer": CUSTOMER,
            "order": {"orderId": f"o-{number}", "price": 900, "currency": "GBP"},
            **more}  # fmt: skip


def refund(refund_id: str, status: str, at: int, **more: Any) -> dict[str, Any]:
    return {"timestamp": at, "customer": CUSTOMER, "order": {"orderId": "o-1"},
            "refund": {"refundId": refund_id, "status": status, **more}}  # fmt: skip


ASKED = {"amount": 500, "currency": "GBP"}


def lines(*bodies: Any) -> bytes:
    return b"\n".join(b if isinstance(b, bytes) else orjson.dumps(b) for b in bodies)


@pytest.fixture
def desk(open_desk: Any) -> Desk:
    return open_desk()


@pytest.fixture
def post(desk: Desk) -> Iterator[Post]:
    api = Api({"live": desk, "test": desk}, 64 * 1024)
    key = desk.store.keys.create("live", ["admin"], NOW)
    http = TestClient(create_app(lambda: api))

    def call(kind: str, body: Any, media: str = NDJSON, key: str = key) -> Any:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Authorization": f"token {key}", "Content-Type": media}
        return http.post(f"/v2/backfill/{kind}", content=content, headers=headers)

    yield call
    api.finish()


def told(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]  # type: ignore[no-any-return]


def results(answer: Any) -> list[str]:
    return [line["result"] for line in told(answer)["lines"]]


def times_of(desk: Desk, event_type: str) -> list[int]:
    pair = ("customer", event_type)
    rows = desk.store.read({"customer": NAMES["customer"]}, NOW, [pair]).rows.get(pair, b"")
    return np.frombuffer(rows, LAYOUT[event_type])["at"].tolist()  # type: ignore[no-any-return]


def test_its_timestamp_is_when_it_was_known_in_a_store_that_tells_time_by_arrival(post, desk):
    assert desk.store.clock == "ingest"
    assert results(post("order", order(1), "application/json")) == ["recorded"]
    assert times_of(desk, "order") == [DAY_1 + 1]
    (entry,) = desk.store.audit_about("order")
    assert (entry.action, entry.actor[:8]) == ("backfilled", "key:key_")
    assert entry.at > NOW  # when it was done, by the clock


def test_every_kind_is_taken_and_none_is_scored(post, desk):
    of_refund = {"timestamp": DAY_1 + 9, "refundId": "r-1"}
    assert results(post("order", order(1))) == ["recorded"]
    assert results(post("refund", refund("r-1", "OPEN", DAY_1 + 5, **ASKED))) == ["recorded"]
    sent = {"timestamp": DAY_1 + 8, "return": {"status": "RECEIVED", "refundId": "r-1"}}
    assert results(post("return", sent)) == ["recorded"]
    dispute = {"timestamp": DAY_1 + 8, "dispute": {"disputeId": "d-1", "stage": "CHARGEBACK"},
               "order": {"orderId": "o-1"}}  # fmt: skip
    assert results(post("dispute", dispute)) == ["recorded"]
    label = {**of_refund, "category": "REFUND_ABUSE", "review": "REFUND_ABUSE"}
    assert results(post("label", label)) == ["recorded"]
    assert desk.store.decisions_of("r-1") == []
    assert desk.store.refund("r-1").state == "REQUESTED"
    for kind in ("order", "refund_request", "return", "dispute", "label"):
        assert len(times_of(desk, kind)) == 1, kind


def test_good_lines_are_kept_though_others_are_refused(post, desk):
    answer = post(
        "order",
        lines(
            order(1),
            b"{",
            b"",
            order(2, timestamp=None),
            order(3),
            order(4, order={"orderId": "o", "price": "9", "currency": "gbp"}),
        ),
    )
    data = told(answer)
    assert {name: data[name] for name in ("recorded", "known", "nothing", "refused")} == {
        "recorded": 2, "known": 0, "nothing": 0, "refused": 3}  # fmt: skip
    said = {line["line"]: [(p["field"], p["value"]) for p in line.get("validationErrors", [])]
            for line in data["lines"]}  # fmt: skip
    assert said == {1: [], 2: [("body", None)], 4: [("timestamp", None)], 5: [],
                    6: [("order.price", "9"), ("order.currency", "gbp")]}  # fmt: skip
    assert (
        "must be an integer of minor units" in data["lines"][-1]["validationErrors"][0]["message"]
    )
    assert times_of(desk, "order") == [DAY_1 + 1, DAY_1 + 3]


def test_sent_again_it_changes_nothing(post, desk):
    many = lines(*(order(n) for n in range(LINES_AT_ONCE * 2 + 1)))
    assert set(results(post("order", many))) == {"recorded"}
    before, audited = times_of(desk, "order"), desk.store.audit_about("order")
    assert len(before) == len(audited) == LINES_AT_ONCE * 2 + 1
    assert set(results(post("order", many))) == {"known"}
    assert (times_of(desk, "order"), desk.store.audit_about("order")) == (before, audited)


def test_a_payment_that_came_back_and_was_made_again_is_told_in_one_body(post, desk):
    ups = [refund("r-1", "OPEN", DAY_1, **ASKED)]
    ups += [
        refund("r-1", s, DAY_1 + n) for n, s in enumerate(("COMPLETED", "FAILED", "COMPLETED"), 1)
    ]
    for expected in ("recorded", "known"):
        data = told(post("refund", lines(*ups)))
        assert {line["result"] for line in data["lines"]} == {expected}
        refund_ = desk.store.refund("r-1")
        assert (refund_.state, refund_.state_at) == ("REFUNDED", DAY_1 + 3)
        assert len(times_of(desk, "refund_outcome")) == 3


def test_a_surprise_is_kept_and_said(post):
    data = told(post("refund", refund("r-9", "COMPLETED", DAY_1)))
    [line] = data["lines"]
    assert line["result"] == "recorded"
    assert [w["class"] for w in line["warnings"]] == ["unexpected-transition"]
    data = told(post("refund", refund("r-9", "LATER", DAY_1)))
    assert [(one["result"], one["warnings"][0]["class"]) for one in data["lines"]] == [
        ("nothing", "unknown-value")
    ]


def test_no_time_in_the_future_is_taken(post, desk):
    ahead = 4_000_000_000_000
    answer = post("order", order(1, timestamp=ahead), "application/json")
    assert answer.status_code == 400
    assert answer.json()["validationErrors"] == [
        {"field": "timestamp", "message": "must not be later than now", "value": ahead}
    ]
    assert results(post("order", lines(order(1, timestamp=ahead), order(2)))) == [
        "refused", "recorded"
    ]  # fmt: skip
    assert times_of(desk, "order") == [DAY_1 + 2]


def test_it_may_be_larger_than_other_bodies_but_not_too_large(post, desk, monkeypatch):
    wide = lines(*(order(n, pad="x" * 2000) for n in range(50)))
    assert len(wide) > 64 * 1024
    assert post("order", wide).status_code == 200
    assert post("order", wide, "application/json").status_code == 413
    assert post("order", b"{}", "text/csv").status_code == 415
    long_line = post("order", lines(order(1), order(2, pad="x" * 70_000)))
    assert (long_line.status_code, "line 2" in long_line.json()["message"]) == (413, True)
    monkeypatch.setattr(backfill, "MAX_LINES", 3)
    assert post("order", lines(*map(order, range(4)))).status_code == 413
    empty = post("order", b" \n\n")
    assert (empty.status_code, empty.json()["validationErrors"][0]["field"]) == (400, "body")


def test_a_store_that_fails_on_the_way_says_how_far_it_came(post, desk, monkeypatch):
    whole, calls = desk.store.write_about, itertools.count()

    def failing(*names: Any) -> Any:
        if next(calls):
            raise OperationalError("BEGIN", None, OSError("gone"))
        return whole(*names)

    monkeypatch.setattr(desk.store, "write_about", failing)
    many = lines(*(order(n) for n in range(LINES_AT_ONCE + 1)))
    answer = post("order", many)
    assert answer.status_code == 503
    assert f"lines up to {LINES_AT_ONCE} say was recorded" in answer.json()["message"]
    assert len(times_of(desk, "order")) == LINES_AT_ONCE
    monkeypatch.undo()
    assert results(post("order", many)) == ["known"] * LINES_AT_ONCE + ["recorded"]


def test_who_reports_does_not_rewrite_the_past(post, desk):
    key = desk.store.keys.create("live", ["report", "score", "review"], NOW)
    answer = post("order", order(1), key=key)
    assert answer.status_code == 403
    assert "admin" in answer.json()["message"]
    assert times_of(desk, "order") == []


def test_a_body_with_much_in_it_is_history_whole(post, desk):
    body = {**BODY, "timestamp": DAY_1}
    assert results(post("refund", body)) == ["recorded"]
    assert (times_of(desk, "order"), times_of(desk, "refund_request")) == ([DAY_1], [DAY_1])
