"""The calls of the review desk: what they answer, what they refuse, and who may ask."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from rules.policy import Policy
from serving.desk import Desk
from tests.serving.test_approvals import account
from tests.serving.test_desk import ME, Clock, data, now, open_desk, url
from tests.serving.test_management import Client, refused, told
from tests.serving.test_reservations import asked, order
from tests.serving.test_reviews import POLICY, WHY

__all__ = ["now", "open_desk", "url"]  # fixtures

REVIEW = ("review",)


@pytest.fixture
def policy() -> Policy:
    return POLICY


@pytest.fixture
def desk(open_desk: Any, now: Clock) -> Desk:
    """Three refunds of three orders wait, the second with the most at stake."""
    opened: Desk = open_desk()
    for number, amount in enumerate((5000, 8000, 6000)):
        order(opened, now, f"o-{number}")
        opened.decide(asked(f"r-{number}", amount, order_id=f"o-{number}"), now, ME)
    return opened


@pytest.fixture
def call(desk: Desk) -> Iterator[Client]:
    client = Client(desk, second_person=False)
    yield client
    client.api.close()


def done(call: Client, refund_id: str, act: str, **more: Any) -> Any:
    who = more.pop("who", "ann")
    body = {"act": act, **({} if act == "assign" else {"justification": WHY}), **more}
    return call("POST", f"/v2/reviews/{refund_id}", body, who=who, scopes=REVIEW)


def queue(call: Client, query: str = "") -> list[str]:
    found = told(call("GET", f"/v2/reviews{query}", scopes=REVIEW))
    return [review["refundId"] for review in found["reviews"]]


def test_the_queue_is_read_page_by_page_and_by_whose_it_is(call):
    first = told(call("GET", "/v2/reviews?limit=2", scopes=REVIEW))
    assert [one["refundId"] for one in first["reviews"]] == ["r-1", "r-2"]
    assert queue(call, f"?after={first['next']}") == ["r-0"]
    told(done(call, "r-2", "assign", assignee="Bob Lee"))
    assert queue(call, "?assignee=Bob%20Lee") == ["r-2"]
    assert queue(call, "?assignee=") == ["r-1", "r-0"]
    told(done(call, "r-1", "request_information"))
    assert queue(call, "?status=WAITING") == ["r-1"]
    assert queue(call, "?status=OPEN") == ["r-2", "r-0"]
    every = told(call("GET", "/v2/reviews", scopes=REVIEW))["reviews"]
    late = [one["refundId"] for one in every if one["overdue"]]  # as this machine's clock has it
    assert queue(call, "?overdue=true") == late
    told(done(call, "r-0", "deny"))
    assert queue(call) == ["r-1", "r-2"]
    assert queue(call, "?status=DONE") == ["r-0"]


def test_a_review_is_read_with_all_that_was_done(call, desk):
    review = told(done(call, "r-1", "request_information"))
    assert (review["status"], review["due"], review["baseCurrency"], review["customer"]) == (
        "WAITING", 8000, "GBP",
        desk.store.identifiers.mac("customer", "cust-in-clear"))  # fmt: skip
    review = told(done(call, "r-1", "deny", who="bob", abuse=True, scoreId=review["scoreId"]))
    assert (review["disposition"], review["ending"], review["closedBy"]) == (
        "PREVENT", "denied", "bob")  # fmt: skip
    assert review == told(call("GET", "/v2/reviews/r-1", scopes=REVIEW))
    assert [(a["act"], a["by"], a["abuse"], a["justification"]) for a in review["acts"]] == [
        ("information_requested", "ann", None, WHY), ("denied", "bob", True, WHY)
    ]  # fmt: skip
    assert review["earlier"] == []


def test_the_second_is_told_who_was_first(call):
    told(done(call, "r-1", "approve"))
    body = refused(done(call, "r-1", "deny", who="bob"), 409)
    assert re.search(r"refund 'r-1': ann approved it at \d{4}-", body["message"])
    body = refused(done(call, "r-2", "deny", scoreId="another"), 409)
    assert body["message"].startswith("scoreId: the review is about decision")
    refused(done(call, "nobody", "deny"), 404)
    refused(call("GET", "/v2/reviews/nobody", scopes=REVIEW), 404)
    refused(call("GET", "/v2/reviews/%00", scopes=REVIEW), 404)
    refused(done(call, "%00", "deny"), 404)


def test_what_is_left_of_the_order_is_told_where_it_is_less(call, desk, now):
    desk.decide(asked("r-9", 8500, order_id="o-1"), now, ME)
    told(done(call, "r-1", "approve"))
    body = refused(done(call, "r-9", "approve"), 409)
    assert "at most the 1,000 that are left of the order, got 8,500 GBP" in body["message"]
    assert "r-9" in queue(call)


def test_all_that_is_wrong_is_said_at_once(call):
    path = "/v2/reviews/r-1"
    body = {"act": "approved", "abuse": "yes", "justification": 5, "assignee": "x", "reason": "y"}
    found = refused(call("POST", path, body, scopes=REVIEW), 400,
                    "reason", "act", "justification", "abuse")  # fmt: skip
    assert "did you mean approve?" in found["message"]
    refused(call("POST", path, {"act": "deny"}, scopes=REVIEW), 400, "justification")
    refused(call("POST", path, {"act": "deny", "justification": " short   "}, scopes=REVIEW),
            400, "justification")  # fmt: skip
    refused(call("POST", path, {"act": "assign"}, scopes=REVIEW), 400, "assignee")
    refused(call("POST", path, b"[]", scopes=REVIEW), 400, "body")
    refused(call("GET", "/v2/reviews?status=open&overdue=1&limit=0&after=x&whose=me",
                 scopes=REVIEW), 400, "status", "overdue", "limit", "after", "whose")  # fmt: skip
    refused(call("GET", "/v2/reviews?assignee=%00", scopes=REVIEW), 400, "assignee")


def test_who_signs_is_a_person_with_the_scope(call, desk):
    refused(call("GET", "/v2/reviews", scopes=("score", "report")), 403)
    unnamed = desk.store.keys.create("live", ["review"], 1)
    answer = call.http.post("/v2/reviews/r-1", json={"act": "deny", "justification": WHY},
                            headers={"Authorization": f"token {unnamed}"})  # fmt: skip
    assert "bears no name" in refused(answer, 403)["message"]
    assert len(queue(call)) == 3


def test_an_act_that_is_sent_again_with_its_key_is_done_once(call, desk):
    key = desk.store.keys.create("live", ["review"], 1, name="ann")
    headers = {"Authorization": f"token {key}", "Idempotency-Key": "k-1"}
    body = {"act": "approve", "justification": WHY}
    answers = [call.http.post("/v2/reviews/r-1", json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotent-replayed"] == "true"


def test_the_same_request_is_answered_with_what_was_decided(call, desk, now):
    told(done(call, "r-1", "approve"))
    answer = desk.decide(asked("r-1", 8000, order_id="o-1"), now, ME)
    assert (data(answer)["action"], data(answer)["source"]) == ("ALLOW", "MANUAL_REVIEW")
    refund = told(call("GET", "/v2/refund/r-1", scopes=("report",)))
    assert [(d["action"], d["source"]) for d in refund["decisions"]] == [
        ("ALLOW", "MANUAL_REVIEW"), ("MANUAL_REVIEW", "RULE")]  # fmt: skip


def test_an_approval_above_a_limit_is_told_as_a_proposal(call, desk):
    account(desk.store, "ann", "agent", 5_500)
    account(desk.store, "bob", "manager")
    review = told(done(call, "r-1", "approve", abuse=False))
    assert (review["status"], review["proposal"]["by"]) == ("OPEN", "ann")
    assert review["proposal"]["needs"] == "manager"
    assert (queue(call, "?proposed=true"), queue(call, "?proposed=false")) == (
        ["r-1"], ["r-2", "r-0"])  # fmt: skip
    body = refused(done(call, "r-1", "approve"), 403)
    assert "expected manager or higher whose limit is enough" in body["message"]
    told(done(call, "r-1", "note", justification="ok"))
    told(done(call, "r-1", "withdraw"))
    told(done(call, "r-1", "approve"))
    review = told(done(call, "r-1", "approve", who="bob"))
    assert (review["disposition"], review["closedBy"], review["proposal"]) == ("ALLOW", "bob", None)
    assert [(one["act"], one["by"]) for one in review["acts"]] == [
        ("approval_proposed", "ann"), ("noted", "ann"), ("proposal_withdrawn", "ann"),
        ("approval_proposed", "ann"), ("approved", "bob")]  # fmt: skip
    refused(done(call, "r-1", "reopen", who="bob"), 409)
    told(done(call, "r-0", "deny"))
    refused(done(call, "r-0", "reopen"), 403)
    assert told(done(call, "r-0", "reopen", who="bob"))["status"] == "OPEN"


def test_the_queue_is_asked_for_by_amount_order_customer_and_age(call):
    every = told(call("GET", "/v2/reviews", scopes=REVIEW))["reviews"]
    assert queue(call, "?payableAtLeast=6000&currency=GBP") == ["r-1", "r-2"]
    assert queue(call, "?orderId=o-2") == ["r-2"]
    assert queue(call, f"?customer={every[0]['customer']}") == ["r-1", "r-2", "r-0"]
    oldest = min(one["openedAt"] for one in every)
    assert queue(call, f"?openedUntil={oldest}") == ["r-0"]
    refused(call("GET", "/v2/reviews?payableAtLeast=1.5&openedUntil=x&proposed=1", scopes=REVIEW),
            400, "proposed", "payableAtLeast", "openedUntil")  # fmt: skip
