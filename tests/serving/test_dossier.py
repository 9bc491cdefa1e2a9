"""A refund read by its id: where it stands and how it came there, and no person in it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from features.money import DAY_MS
from serving import contract
from serving.desk import Desk
from serving.dossier import refund_data
from serving.envelope import ApiError
from tests.serving.test_desk import BODY, ME, NAMES, NOW, Clock, data, open_desk, report, url

__all__ = ["open_desk", "url"]  # fixtures


@pytest.fixture
def desk(open_desk: Any) -> Desk:
    return open_desk()


def test_a_refund_is_told_from_its_request_to_its_payment(desk):
    answer = desk.decide(report(), Clock(), ME)
    asked_at = desk.store.refund("r-1").first_known_at
    order = {"order": BODY["order"], "customer": BODY["customer"]}
    refund = {"refund": {"refundId": "r-1", "status": "COMPLETED", "amount": 1000,
                         "currency": "GBP"}}  # fmt: skip
    moved = {"transactions": [{"transactionId": "t-1", "amount": 1000, "currency": "GBP",
                               "type": "refund", "success": True}]}  # fmt: skip
    sent = {"return": {"status": "RECEIVED", "refundId": "r-1"}}
    verdict = {"category": "REFUND_ABUSE", "review": "NOT_REFUND_ABUSE", "refundId": "r-1",
               "reviewer": {"email": "ann@in-clear.example"}}  # fmt: skip
    reports = [
        contract.parse_refund(orjson.dumps({**order, **refund, **moved}), scored=False),
        contract.parse_return(orjson.dumps(sent)),
        contract.parse_label(orjson.dumps(verdict)),
    ]
    for day, one in enumerate(reports, 1):
        desk.record(one, NOW + day * DAY_MS, "test")
    told = refund_data(desk.store, "r-1")
    assert (told["state"], told["stateAt"], told["firstKnownAt"]) == (
        "REFUNDED", NOW + DAY_MS, asked_at
    )  # fmt: skip
    assert (told["orderId"], told["payable"], told["currency"]) == ("o-1", 1000, "GBP")
    assert told["outcome"] == {"status": "COMPLETED", "at": NOW + DAY_MS, "amount": 1000}
    assert [fact["event"] for fact in told["history"]] == [
        "refund_request", "refund_request", "refund_outcome", "transaction", "return", "label"
    ]  # fmt: skip
    request, transaction, label = told["history"][0], told["history"][3], told["history"][5]
    assert request == {"event": "refund_request", "at": asked_at, "amount": 1000,
                       "currency": "GBP", "refundReason": "CHANGED_MIND"}  # fmt: skip
    assert (transaction["type"], transaction["success"]) == ("REFUND", True)
    assert (label["review"], label["source"]) == ("NOT_REFUND_ABUSE", "ANALYST")
    [decision] = told["decisions"]
    assert decision["scoreId"] == data(answer)["scoreId"]
    assert decision["timestamp"] == answer.body["timestamp"]
    everything = orjson.dumps(told).decode()
    assert not [name for name in NAMES.values() if name in everything]
    assert "ann@" not in everything


def test_what_only_a_report_named_is_told_as_far_as_it_is_known(desk):
    body = orjson.dumps({"refund": {"refundId": "r-2", "status": "DECLINED"}})
    desk.record(contract.parse_refund(body, scored=False), NOW, "test")
    assert refund_data(desk.store, "r-2") == {
        "refundId": "r-2", "state": "DENIED", "stateAt": NOW, "firstKnownAt": None,
        "orderId": None, "payable": None, "currency": None,
        "outcome": {"status": "DECLINED", "at": NOW},
        "history": [{"event": "refund_outcome", "at": NOW, "status": "DECLINED"}],
        "decisions": [],
    }  # fmt: skip
    with pytest.raises(ApiError, match="'r-3' is known"):
        refund_data(desk.store, "r-3")
