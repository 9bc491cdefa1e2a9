"""Access and erasure by HTTP, and nothing personal in what is logged on any way through."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from sqlalchemy import select

from serving import policies
from serving.desk import Desk
from serving.heads import HeadFile
from serving.logs import configure_logs
from serving.sealing import Sealer
from serving.store.erasure import erase
from serving.store.schema import metadata
from serving.store.store import Store
from serving.vouching import vouch
from tests.serving.documents import document
from tests.serving.test_desk import BODY, NAMES, SECRET, open_desk, url
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
    client = Client(desk, second_person=False)
    yield client
    client.api.close()


def act(call: Client) -> list[dict[str, Any]]:
    """Score a refund of each of two customers who share all but customer and e-mail."""
    call("POST", "/v2/lists/block", {"entity": "customer", "id": NAMES["customer"],
         "reason": "said Ann"}, scopes=EVERY)  # fmt: skip
    path = "/v2/refund?score=refundRequest"
    answers = [told(call("POST", path, body, scopes=EVERY)) for body in (BODY, OTHER)]
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
    assert (order["order_id"], order["amount_minor"]) == ("o-1", 9000)
    assert order["email"] == NAMES["email"]
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
        "reviews": 0, "review_acts": 0, "attachments": 0,
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
    for one, known in ((path, True), (path, False), ("/v2/customer/nobody", False)):
        gone = told(call("DELETE", one, scopes=EVERY))
        assert (gone["known"], gone["erased"]["events"]) == (known, int(known))


def keyed(call: Client, path: str, body: Any, key: str) -> None:
    api_key = call.keys["ann", *EVERY]
    headers = {"Authorization": f"token {api_key}", "Idempotency-Key": f'"{key}"'}
    answer = call.http.request("POST", path, content=orjson.dumps(body), headers=headers)
    assert answer.status_code == 200, answer.text


def test_no_first_result_and_no_audit_entry_tells_of_an_erased_customer(
    call: Client, tmp_path: Path
) -> None:
    """What a key got says what was reported, and the hash of it is that of the customer's id."""
    act(call)
    customer, store = NAMES["customer"], call.desk.store
    label = {"category": "REFUND_ABUSE", "review": "REFUND_ABUSE"}
    outcome = {"refund": {"refundId": "r-1", "status": "DECLINED"}}
    dispute = {"dispute": {"disputeId": "d"}, "customer": {"customerId": customer}}
    history = {"timestamp": 1_500_000_000, **dispute}
    entry = {"entity": "customer", "id": customer, "reason": "again"}
    for key, path, body in (
        ("order", "/v2/order", BODY), ("outcome", "/v2/refund", outcome),
        ("label", f"/v2/customer/{customer}/labels", label), ("dispute", "/v2/dispute", dispute),
        ("scored", "/v2/refund?score=refundRequest", BODY), ("listed", "/v2/lists/block", entry),
        ("history", "/v2/backfill/dispute", history), ("other's", "/v2/order", OTHER),
    ):  # fmt: skip
        keyed(call, path, body, key)
    call("DELETE", "/v2/lists/block", {"entity": "customer", "id": customer}, scopes=EVERY)
    head = tmp_path / "head"
    assert Sealer(store, SECRET, head).seal()
    counts = told(call("DELETE", f"/v2/customer/{customer}", scopes=EVERY))["erased"]
    assert counts["idempotency_keys"] == 7
    with store.database.read() as connection:
        kept = connection.exec_driver_sql("SELECT key FROM idempotency_keys").scalars().all()
        audited = repr(connection.exec_driver_sql("SELECT * FROM audit_log").fetchall())
    assert kept == ["other's"]
    assert store.identifiers.mac("customer", customer) not in audited
    findings: list[Any] = []
    assert vouch(store, SECRET, HeadFile(head).read(), findings.append).erased == 3
    assert findings == []


def test_nothing_personal_is_logged(call: Client, capfd: Any, caplog: Any) -> None:
    """Every call, what it refuses, and what fails unforeseen, against all that is written."""
    caplog.set_level(logging.DEBUG)
    configure_logs("DEBUG")
    marked = {**NAMES, "name": "Zoë Marked", "note": "free-text-marked", "postcode": "ZZ9 9ZZ"}
    odd = deepcopy(BODY)
    odd["refund"]["refundReason"] = odd["refund"]["items"][0]["refundReason"] = marked["note"]
    odd["addresses"]["shipping"]["postalCode"] = marked["postcode"]
    bad = {**odd, "customer": {"customerId": [marked["customer"]], "email": marked["email"]}}
    label = {"category": "REFUND_ABUSE", "review": "REFUND_ABUSE", "comment": marked["note"],
             "reviewer": {"name": marked["name"], "email": marked["email"]}}  # fmt: skip
    of_customer = f"/v2/customer/{marked['customer']}"
    entry = {"entity": "email", "id": marked["email"], "reason": marked["note"]}
    calls: list[tuple[Any, ...]] = [
        ("POST", "/v2/refund?score=refundRequest", odd), ("POST", "/v2/refund?score=x", odd),
        ("POST", "/v2/refund?score=refundRequest", bad), ("POST", "/v2/refund", bad),
        ("POST", "/v2/order", {**odd, "order": {**odd["order"], "price": 1}}),
        ("POST", "/v2/dispute", {"dispute": {"disputeId": "d", "reason": marked["note"]},
                                 "customer": {"customerId": marked["customer"]}}),
        ("POST", f"{of_customer}/labels", label), ("POST", f"{of_customer}/labels", {"a": 1}),
        ("POST", "/v2/lists/block", entry), ("GET", "/v2/lists/block?reveal=true"),
        ("DELETE", "/v2/lists/block", {"entity": "email", "id": "x@x.x"}),
        ("GET", f"/v2/refund/{marked['customer']}"), ("GET", f"{of_customer}/nothing"),
        ("GET", f"{of_customer}/export"), ("DELETE", of_customer),
    ]  # fmt: skip
    for method, path, *body in calls:
        call(method, path, *body, scopes=EVERY)

    def fails(*_: Any, **__: Any) -> None:
        raise KeyError(marked["customer"], marked["email"])

    call.desk.store.decision_log.save = fails  # type: ignore[method-assign]
    answer = call("POST", "/v2/refund?score=refundRequest", BODY, scopes=EVERY)
    assert answer.status_code == 500
    shown = capfd.readouterr()
    ours = (r for r in caplog.records if r.name != "httpx")  # which is the test's own client
    written = shown.out + shown.err + "".join(r.getMessage() for r in ours)
    assert "unforeseen" in written
    assert "KeyError" in written
    for what, value in marked.items():
        assert value.lower() not in written.lower(), what


def test_a_decision_under_way_is_made_again_on_a_stranger(
    call: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    act(call)
    judge, erasures = Desk.judge, ["now"]

    def erased_meanwhile(desk: Desk, *given: Any, **named: Any) -> Any:
        judged = judge(desk, *given, **named)
        if erasures:
            erasures.pop()
            erase(desk.store, NAMES["customer"], actor="ann", at=1)
        return judged

    monkeypatch.setattr(Desk, "judge", erased_meanwhile)
    again = deepcopy(BODY)
    again["refund"]["refundId"], again["order"]["orderId"] = "r-3", "o-3"
    back = told(call("POST", "/v2/refund?score=refundRequest", again, scopes=EVERY))
    assert not erasures
    assert "customer-not-found" in {warning["class"] for warning in back["warnings"]}
    [decision] = call.desk.store.decisions_of("r-3")
    assert decision.record["features"]["refund_count_by_customer_365d"] == 0


def everything_in(store: Store) -> bytes:
    """What SQLite's files hold; on PostgreSQL every row of every table."""
    if store.database.is_sqlite:
        return b"".join(path.read_bytes() for path in Path(store.database.path).parent.iterdir()
                        if path.is_file())  # fmt: skip
    with store.database.read() as connection:
        tables = [connection.execute(select(table)).fetchall() for table in metadata.sorted_tables]
    return repr(tables).encode()


def test_no_identifier_stands_in_any_file(call: Client) -> None:
    """Whatever is reported, decided, kept for a key, listed, exported or erased."""
    act(call)
    key = call.keys["ann", *EVERY]
    for path, body in (("/v2/refund?score=refundRequest", BODY), ("/v2/order", BODY)):
        for again in (False, True):
            answer = call.http.request(
                "POST", path, content=orjson.dumps(body),
                headers={"Authorization": f"token {key}", "Idempotency-Key": f'"{len(path)}"'},
            )  # fmt: skip
            is_told_again = again or "score" in path  # which was decided before
            assert answer.headers.get("idempotent-replayed") == ("true" if is_told_again else None)
            assert answer.json()["data"]["customerId"] == NAMES["customer"]
    call("GET", f"/v2/customer/{NAMES['customer']}/export", scopes=EVERY)
    content = everything_in(call.desk.store)
    assert b"o-1" in content
    for what, value in NAMES.items():
        assert value.encode() not in content, what


@pytest.mark.parametrize(
    "end", ["\n", "\r\n", "\n\n", "\nx", "/\n/", "\t", "\x01", "\x7f", "\x85", "\u2028", "/export"]
)
def test_whatever_id_is_taken_is_read_exported_and_erased_and_no_other(
    call: Client, end: str
) -> None:
    plain, ended = NAMES["customer"], NAMES["customer"] + end
    bodies = [BODY, deepcopy(OTHER)]
    bodies[1]["customer"]["customerId"], bodies[1]["refund"]["refundId"] = ended, "r-1" + end
    for body in bodies:
        told(call("POST", "/v2/refund?score=refundRequest", body, scopes=EVERY))
    for refund_id in ("r-1", "r-1" + end):
        path = f"/v2/refund/{quote(refund_id, safe='')}"
        assert told(call("GET", path, scopes=EVERY))["refundId"] == refund_id
    path = f"/v2/customer/{quote(ended, safe='')}"
    label = {"category": "REFUND_ABUSE", "review": "REFUND_ABUSE"}
    told(call("POST", f"{path}/labels", label, scopes=EVERY))
    found = told(call("GET", f"{path}/export", scopes=EVERY))
    assert found["customerId"] == ended
    assert ([r["refund_id"] for r in found["refunds"]], len(found["labels"])) == (["r-1" + end], 1)
    erased = told(call("DELETE", path, scopes=EVERY))
    assert (erased["customerId"], erased["known"]) == (ended, True)
    assert told(call("DELETE", path, scopes=EVERY))["known"] is False
    found = told(call("GET", f"/v2/customer/{plain}/export", scopes=EVERY))
    assert [refund["refund_id"] for refund in found["refunds"]] == ["r-1"]
