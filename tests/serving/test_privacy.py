"""Access and erasure by HTTP, and nothing personal in what is logged on any way through."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from serving import policies
from serving.desk import Desk
from tests.serving.documents import document
from tests.serving.test_desk import BODY, NAMES, open_desk, url
from tests.serving.test_management import Client, refused, told

__all__ = ["open_desk", "url"]  # fixtures

OTHER: dict[str, Any] = deepcopy(BODY)
OTHER["customer"] = {"customerId": "cust-2", "email": "two@in-clear.example"}
OTHER["order"]["orderId"], OTHER["refund"]["refundId"] = "o-2", "r-2"
EVERY = ("score", "report", "review", "admin")


@pytest.fixture
def call(open_desk: Any) -> Iterator[Client]:
    desk: Desk = open_desk()
    policies.ensure_first(desk.store, document("1"), 1)
    yield Client(desk, second_person=False)


def act(call: Client) -> list[dict[str, Any]]:
    """Score a refund of each of two customers who share all but customer and e-mail."""
    call("POST", "/v2/lists/block", {"entity": "customer", "id": NAMES["customer"],
         "reason": "said Ann"}, scopes=EVERY)  # fmt: skip
    answers = []
    for body in (BODY, OTHER):
        answers.append(told(call("POST", "/v2/refund?score=refundRequest", body, scopes=EVERY)))
    label = {"category": "REFUND_ABUSE", "review": "REFUND_ABUSE", "reviewer": {"name": "Ann Lee"}}
    path = f"/v2/customer/{NAMES['customer']}/labels"
    told(call("POST", path, {**label, "comment": "a thief"}, scopes=EVERY))
    return answers


def test_a_customer_is_exported_in_whole(call: Client) -> None:
    first, _ = act(call)
    path = f"/v2/customer/{NAMES['customer']}/export"
    refused(call("GET", path, scopes=("review",)), 403)
    found = told(call("GET", path, scopes=EVERY))
    assert found["customerId"] == NAMES["customer"]
    shared = {"device": [NAMES["device"]], "ip": [NAMES["ip"]],
              "payment_method": [NAMES["method"]]}  # fmt: skip
    known = found["identifiers"]
    assert len(known.pop("address")) == 1
    assert known == {"customer": [NAMES["customer"]], "email": [NAMES["email"]], **shared}
    [order], [request], [refund] = found["orders"], found["refund_requests"], found["refunds"]
    assert (order["order_id"], order["amount_minor"], order["email"]) == ("o-1", 9000,
                                                                          NAMES["email"])  # fmt: skip
    assert (request["refund_id"], request["customer_id"]) == ("r-1", NAMES["customer"])
    assert (refund["refund_id"], refund["state"]) == ("r-1", "DENIED")
    [decision] = found["decisions"]
    del first["customerId"]
    assert (decision["answer"], decision["refund_id"]) == (first, "r-1")
    [label] = found["labels"]
    assert label["label"] == "REFUND_ABUSE"
    assert "reviewer" not in label
    [entry] = found["lists"]
    assert (entry["id"], entry["reason"], entry["list"]) == (NAMES["customer"], "said Ann", "block")
    [audited] = call.desk.store.audit_about("customer")
    assert (audited.action, audited.personal and audited.personal["by"]) == ("customer_exported",
                                                                             "ann")  # fmt: skip
    empty = told(call("GET", "/v2/customer/nobody/export", scopes=EVERY))
    assert not any(value for name, value in empty.items() if isinstance(value, list))


def test_an_erased_customer_is_nobody_and_the_other_stays(call: Client) -> None:
    act(call)
    path, store = f"/v2/customer/{NAMES['customer']}", call.desk.store
    refused(call("DELETE", path, scopes=("review",)), 403)
    answer = told(call("DELETE", path, scopes=EVERY))
    assert answer["customerId"] == NAMES["customer"]
    counts = answer["erased"]
    assert counts == {
        "events": 3, "event_keys": counts["event_keys"], "entities": 2, "refunds": 1,
        "decisions": 1, "idempotency_keys": 0, "lists": 1, "identifiers": 2,
        "audit_log": counts["audit_log"],
    }  # fmt: skip
    with store.database.read() as connection:
        text = "".join(
            repr(connection.exec_driver_sql(f"SELECT * FROM {table}").fetchall())
            for table in ("events", "entities", "decisions", "lists", "identifiers", "refunds")
        )
    for kind in ("customer", "email"):
        assert store.identifiers.mac(kind, NAMES[kind]) not in text
    assert "said Ann" not in text
    assert store.identifiers.mac("device", NAMES["device"]) in text  # the other's, too
    [decision] = store.decisions_of("r-1")
    assert decision.record["lists"]["block"] == [["customer", "ERASED"]]
    exported = told(call("GET", f"{path}/export", scopes=EVERY))
    assert not any(value for value in exported.values() if isinstance(value, list))
    other = told(call("GET", "/v2/customer/cust-2/export", scopes=EVERY))
    assert other["identifiers"]["device"] == [NAMES["device"]]
    again = deepcopy(BODY)
    again["refund"]["refundId"] = "r-3"
    back = told(call("POST", "/v2/refund?score=refundRequest", again, scopes=EVERY))
    assert "customer-not-found" in {warning["class"] for warning in back["warnings"]}
    assert told(call("DELETE", "/v2/customer/nobody", scopes=EVERY))["erased"]["events"] == 0
