"""The calls about policies and lists: what they do, what they refuse, and what they audit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
import yaml
from fastapi.testclient import TestClient
from sqlalchemy import update
from starlette.requests import Request

from rules.source import LONGEST
from serving import accounts, policies
from serving.api import Api, create_app
from serving.desk import Desk
from serving.envelope import ApiError
from serving.headers import ENTIRE
from serving.store.schema import api_keys
from tests.serving.documents import document, rule
from tests.serving.test_desk import BODY, ME, NAMES, NOW, Clock, data, open_desk, report, url

__all__ = ["open_desk", "url"]  # fixtures

ONE = document("1")
TWO = document("2", rule(40_000, version=2))


class Client:
    """Calls with the key of a person who has some scopes."""

    def __init__(self, desk: Desk, second_person: bool) -> None:
        self.desk = desk
        self.api = Api({"live": desk, "test": desk}, 64 * 1024, second_person=second_person)
        self.http = TestClient(create_app(lambda: self.api))
        self.keys: dict[tuple[str, ...], str] = {}

    def __call__(
        self, method: str, path: str, body: Any = None, *, who: str = "ann",
        scopes: tuple[str, ...] = ("admin",), kind: str = "application/json",
    ) -> Any:  # fmt: skip
        key = self.keys.setdefault(
            (who, *scopes), self.desk.store.keys.create("live", scopes, NOW, name=who)
        )
        content = body.encode() if isinstance(body, str) else body
        if content is not None and not isinstance(content, bytes):
            content = orjson.dumps(content)
        return self.http.request(
            method, path, content=content,
            headers={"Authorization": f"token {key}", "Content-Type": kind},
        )  # fmt: skip


@pytest.fixture
def desk(open_desk: Any) -> Desk:
    opened = open_desk()
    policies.ensure_first(opened.store, ONE, 1)
    opened.policies.put(policies.active(opened.store))
    return opened


@pytest.fixture
def call(desk: Desk) -> Iterator[Client]:
    yield Client(desk, second_person=False)


@pytest.fixture
def strict(desk: Desk) -> Iterator[Client]:
    """Where a policy's author cannot put it in force."""
    yield Client(desk, second_person=True)


def refused(answer: Any, status: int, *fields: str) -> dict[str, Any]:
    """The one envelope, with what is wrong by field."""
    body = answer.json()
    assert answer.status_code == body["status"] == status, body
    assert body["message"]
    assert [problem["field"] for problem in body.get("validationErrors", [])] == list(fields)
    assert answer.headers["x-request-id"]
    return body  # type: ignore[no-any-return]


def told(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.keys() == {"status", "timestamp", "data"}
    return body["data"]  # type: ignore[no-any-return]


# --- policies ------------------------------------------------------------------------------------


def test_a_policy_is_proposed_activated_and_read(call, desk):
    proposed = told(call("POST", "/v2/policies", TWO, kind="application/yaml"))
    assert (proposed["version"], proposed["author"], proposed["active"]) == ("2", "ann", False)
    assert any("large_amount" in change for change in proposed["changes"])
    act = told(call("POST", "/v2/policies/2/activate", {"note": "read the backtest"}, who="bob"))
    assert (act["version"], act["replaced"], act["actor"]) == ("2", "1", "bob")
    listed = told(call("GET", "/v2/policies", scopes=("review",)))
    assert listed["active"] == "2"
    assert [(p["version"], p["active"]) for p in listed["policies"]] == [("2", True), ("1", False)]
    assert [(a["act"], a["version"], a["actor"], a["note"]) for a in listed["acts"]] == [
        ("activated", "2", "bob", "read the backtest"), ("activated", "1", "recourse", None)
    ]  # fmt: skip
    one = told(call("GET", "/v2/policies/2", scopes=("review",)))
    assert one["text"] == TWO
    audited = desk.store.audit_about("policy:2")
    assert [(entry.action, entry.personal["by"]) for entry in audited] == [
        ("proposed", "ann"), ("activated", "bob")
    ]  # fmt: skip
    assert all(entry.actor.startswith("key:key_") for entry in audited)


def test_json_is_a_policy_document_too(call):
    assert told(call("POST", "/v2/policies", yaml.safe_load(TWO)))["version"] == "2"


def test_a_bad_policy_is_refused_with_every_problem_at_its_place(call, desk):
    bad = document("2", rule(), rule(), rule(id="other", when="amout_minor > 1.0"))
    body = call("POST", "/v2/policies", bad, kind="application/yaml").json()
    assert body["status"] == 400
    assert "2 problems" in body["message"]
    messages = {p["field"]: p["message"] for p in body["validationErrors"]}
    assert any("did you mean amount_minor?" in message for message in messages.values())
    assert all(message.startswith("line ") for message in messages.values())
    assert desk.store.policy("2") is None


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[1]", b"{", b"version: '1'\n\tx: 1"])
def test_what_is_no_document_is_refused(call, body):
    assert call("POST", "/v2/policies", body, kind="application/yaml").json()["status"] == 400


def test_a_policy_that_does_not_follow_is_a_conflict(call):
    taken = document("1", rule(40_000, version=2))
    refused(call("POST", "/v2/policies", taken, kind="text/yaml"), 409, "version")
    unrisen = call("POST", "/v2/policies", document("2", rule(40_000)), kind="text/yaml").json()
    assert unrisen["status"] == 409
    assert "large_amount" in unrisen["validationErrors"][0]["field"]


def test_the_author_alone_cannot_where_two_are_asked_for(strict):
    strict("POST", "/v2/policies", TWO, kind="application/yaml", who="ann")
    body = refused(strict("POST", "/v2/policies/2/activate", who="ann"), 409)
    assert "ann wrote it" in body["message"]
    assert told(strict("POST", "/v2/policies/2/activate", who="bob"))["actor"] == "bob"


def test_a_key_without_a_name_is_its_own_person_where_one_is_enough(call, desk):
    key = desk.store.keys.create("live", ["admin"], NOW)
    call.keys["nobody", "admin"] = key
    told(call("POST", "/v2/policies", TWO, kind="application/yaml", who="nobody"))
    (known,) = [one for one in desk.store.keys.all() if one.name is None]
    assert desk.store.policy("2").author == known.id
    assert told(call("POST", "/v2/policies/2/activate", who="nobody"))["actor"] == known.id


def test_a_key_without_a_name_is_nobodys_where_two_are_asked_for(strict, desk):
    strict.keys["nobody", "admin"] = desk.store.keys.create("live", ["admin"], NOW)
    sent = strict("POST", "/v2/policies", TWO, kind="application/yaml", who="nobody")
    assert "recourse keys create --name" in refused(sent, 403)["message"]
    assert desk.store.policy("2") is None
    told(strict("POST", "/v2/policies", TWO, kind="application/yaml", who="ann"))
    refused(strict("POST", "/v2/policies/2/activate", who="nobody"), 403)
    (known,) = [one for one in desk.store.keys.all() if one.name is None]
    entry = desk.store.audit_about("policy:2")[-1]
    assert (entry.action, entry.actor) == ("activation_refused", f"key:{known.id}")
    assert told(strict("POST", "/v2/policies/2/activate", who="bob"))["actor"] == "bob"


def test_a_holder_named_before_names_were_checked_is_told_to_take_another_key(call, desk):
    told(call("GET", "/v2/policies", who="ann"))
    with desk.store.database.write() as connection:
        connection.execute(update(api_keys).values(name="ann\u200b"))
    sent = call("POST", "/v2/policies", TWO, kind="application/yaml", who="ann")
    assert "make a key with another name" in refused(sent, 403)["message"]


def test_five_hundred_rules_are_no_larger_than_a_call_may_be(call):
    rules = [rule(id=f"rule_{i}", description="x" * 300) for i in range(500)]
    large = document("2", *rules)
    assert 64 * 1024 < len(large) < LONGEST
    assert told(call("POST", "/v2/policies", large, kind="text/yaml"))["version"] == "2"
    refused(call("POST", "/v2/policies", "x" * (LONGEST + 1), kind="text/yaml"), 413)
    refused(call("POST", "/v2/lists/block", "x" * 65 * 1024), 413)


def test_what_is_in_force_is_a_conflict_and_what_is_unknown_is_not_found(call):
    refused(call("POST", "/v2/policies/1/activate"), 409)
    body = refused(call("POST", "/v2/policies/11/activate"), 404)
    assert "did you mean 1?" in body["message"]
    refused(call("GET", "/v2/policies/11"), 404)


def test_a_proposal_may_say_why(call, desk):
    path = "/v2/policies?note=after%20the%20ring%20of%20June"
    assert told(call("POST", path, TWO, kind="application/yaml"))["note"] == (
        "after the ring of June"
    )
    (entry,) = desk.store.audit_about("policy:2")
    assert entry.personal["note"] == "after the ring of June"
    long = call("POST", f"/v2/policies?note={'x' * 1025}", TWO, kind="application/yaml")
    refused(long, 400, "note")


@pytest.mark.parametrize("body", [{"note": 5}, [1], "{"])
def test_a_note_is_a_text(call, body):
    call("POST", "/v2/policies", TWO, kind="application/yaml")
    assert call("POST", "/v2/policies/2/activate", body).json()["status"] == 400
    assert told(call("GET", "/v2/policies"))["active"] == "1"


# --- lists ---------------------------------------------------------------------------------------

ENTRY = {"entity": "device", "id": NAMES["device"], "reason": "ring of June"}


def test_who_is_put_on_a_list_is_decided_by_it_until_taken_off(call, desk):
    now = Clock()
    put = told(call("POST", "/v2/lists/block", ENTRY, scopes=("review",)))
    assert (put["entity"], put["id"], put["author"]) == ("device", NAMES["device"], "ann")
    answer = desk.decide(report(), now, ME)
    assert (data(answer)["action"], data(answer)["source"]) == ("PREVENT", "LIST")
    gone = {"entity": "device", "id": NAMES["device"]}
    told(call("DELETE", "/v2/lists/block", gone, scopes=("review",), who="bob"))
    assert data(desk.decide(report(refund_id="r-2"), now, ME))["action"] == "ALLOW"
    refused(call("DELETE", "/v2/lists/block", gone), 404)
    audited = desk.store.audit_about("list:block")
    assert [(one.action, one.personal["by"], one.personal["value"]) for one in audited] == [
        ("listed", "ann", put["value"]), ("unlisted", "bob", put["value"])
    ]  # fmt: skip
    assert NAMES["device"] not in str(audited), "the audit log names pseudonyms only"


def test_an_entity_is_listed_in_the_spelling_that_requests_are_read_in(call, desk):
    entry = {"entity": "email", "id": " SomeOne+x@IN-clear.example ", "reason": "x"}
    assert told(call("POST", "/v2/lists/block", entry))["id"] == NAMES["email"]
    assert data(desk.decide(report(), Clock(), ME))["source"] == "LIST"


def test_a_list_is_read_by_pseudonym_and_by_id_only_when_that_is_asked_for_and_audited(call, desk):
    for name in ("d1", "d2", "d3"):
        told(call("POST", "/v2/lists/block", {**ENTRY, "id": name}))
    told(call("POST", "/v2/lists/block", {**ENTRY, "entity": "customer", "id": "c1"}))
    plain = told(call("GET", "/v2/lists/block?entity=device", scopes=("review",)))
    assert [entry["entity"] for entry in plain["entries"]] == ["device"] * 3
    assert all("id" not in entry for entry in plain["entries"])
    assert {e.action for e in desk.store.audit_about("list:block")} == {"listed"}
    first = told(call("GET", "/v2/lists/block?entity=device&limit=2&reveal=true"))
    assert [entry["id"] for entry in first["entries"]] == ["d3", "d2"]
    following = f"entity=device&limit=2&reveal=true&after={first['next']}"
    rest = told(call("GET", f"/v2/lists/block?{following}"))
    assert [entry["id"] for entry in rest["entries"]] == ["d1"]
    assert rest["next"] is None
    revealed = [e for e in desk.store.audit_about("list:block") if e.action == "revealed"]
    assert [(e.content, e.personal) for e in revealed] == [
        ({"entries": 2}, {"by": "ann"}), ({"entries": 1}, {"by": "ann"})
    ]  # fmt: skip
    assert told(call("GET", "/v2/lists/allow"))["entries"] == []


def test_expired_entries_are_shown_only_when_asked_for(call, desk):
    with desk.store.write() as tx:
        tx.put_on_list("block", "device", "old", reason="x", author="ann", at=1, expires_at=2)
    assert told(call("GET", "/v2/lists/block"))["entries"] == []
    (entry,) = told(call("GET", "/v2/lists/block?expired=true"))["entries"]
    assert entry["expiresAt"] == 2


def test_a_bad_entry_is_refused_by_every_field(call):
    bad = {"entity": "devise", "id": " ", "reason": "", "expiresAt": 1_600_000_000}
    answer = call("POST", "/v2/lists/block", bad)
    body = refused(answer, 400, "entity", "id", "reason", "expiresAt")
    assert "did you mean device?" in body["message"]
    refused(call("POST", "/v2/lists/block", {"entity": "device"}), 400, "id", "reason")
    refused(call("POST", "/v2/lists/block", {**ENTRY, "entity": "email"}), 400, "id")
    refused(call("POST", "/v2/lists/block", {**ENTRY, "entity": "ip"}), 400, "id")
    refused(call("POST", "/v2/lists/block", {**ENTRY, "expiresAt": "soon"}), 400, "expiresAt")
    refused(call("DELETE", "/v2/lists/block", {"entity": "device", "id": ""}), 400, "id")
    refused(call("DELETE", "/v2/lists/block?id=d-1"), 400, "entity")
    refused(call("DELETE", "/v2/lists/block?entity=device&id=d-1", ENTRY), 400, "body")
    neither = refused(call("DELETE", "/v2/lists/block"), 400, "entity", "id")
    assert "in the query or in a JSON body" in neither["message"]


def test_a_misspelt_field_is_refused_and_makes_no_entry_for_ever(call):
    later = {**ENTRY, "expires_at": 1_900_000_000}
    body = refused(call("POST", "/v2/lists/block", later), 400, "expires_at")
    assert "did you mean expiresAt?" in body["message"]
    assert told(call("GET", "/v2/lists/block"))["entries"] == []
    body = refused(call("GET", "/v2/lists/block?limt=3"), 400, "limt")
    assert "did you mean limit?" in body["message"]
    refused(call("POST", "/v2/policies/1/activate", {"not": "x"}), 400, "not")
    body = refused(call("DELETE", "/v2/lists/block?entitty=device&id=d"), 400, "entitty", "entity")
    assert "did you mean entity?" in body["message"]
    for query in ("scores=refundRequest", "scoer=1", "type=refundrequest"):
        body = refused(call("POST", f"/v2/refund?{query}", {}), 400, query.partition("=")[0])
        assert "did you mean score=refundRequest?" in body["message"]
    for wrong, hint in (("refundReqest", " (did you mean refundRequest?)"),
                        ("REFUNDREQUEST", " (did you mean refundRequest?)"),
                        ("customer", ", expected refundRequest")):  # fmt: skip
        answer = call("POST", f"/v2/refund?score={wrong}", {}, scopes=("score",))
        assert f'score: is not a score we make{hint}, got "{wrong}"' in answer.json()["message"]


def test_a_bad_question_is_refused_by_every_field(call):
    query = "entity=devise&limit=0&after=x&reveal=yes&expired=1"
    refused(call("GET", f"/v2/lists/block?{query}"), 400,
            "limit", "entity", "after", "reveal", "expired")  # fmt: skip
    body = refused(call("GET", "/v2/lists/blok"), 404)
    assert "did you mean block?" in body["message"]


# --- who may -------------------------------------------------------------------------------------

CALLS = [
    ("GET", "/v2/policies", None, ("review", "admin")),
    ("POST", "/v2/policies", TWO, ("admin",)),
    ("GET", "/v2/policies/1", None, ("review", "admin")),
    ("POST", "/v2/policies/1/activate", None, ("admin",)),
    ("GET", "/v2/lists/allow", None, ("review", "admin")),
    ("POST", "/v2/lists/allow", ENTRY, ("review", "admin")),
    ("DELETE", "/v2/lists/allow", ENTRY, ("review", "admin")),
]


@pytest.mark.parametrize(("method", "path", "body", "scopes"), CALLS)
def test_each_call_needs_one_of_its_scopes(call, method, path, body, scopes):
    for scope in ("score", "report", "review", "admin"):
        answer = call(method, path, body, scopes=(scope,), kind="application/json")
        assert (answer.status_code == 403) == (scope not in scopes), scope
    refused(call(method, path, body, scopes=("score", "report")), 403)
    refused(call.http.request(method, path), 401)
    unknown = {"Authorization": "token sk_live_nobody"}
    refused(call.http.request(method, path, headers=unknown), 401)


def test_a_body_of_another_kind_or_size_is_refused(call):
    refused(call("POST", "/v2/lists/block", "x", kind="text/csv"), 415)
    refused(call("POST", "/v2/policies", "x", kind="text/plain"), 415)
    packed = {"Content-Encoding": "gzip", "Authorization": "token sk_live_nobody"}
    body = refused(call.http.request("POST", "/v2/order", headers=packed), 415)
    assert body["message"] == "Content-Encoding: must be identity, got gzip"


def test_a_body_that_does_not_come_is_not_waited_for(call, monkeypatch):
    monkeypatch.setattr("serving.receiving.LEAST_READ_SECONDS", -1_000)
    scope = {"type": "http", "method": "POST", "path": "/v2/order", "headers": []}
    request = Request(scope, asyncio.Event().wait)
    with pytest.raises(ApiError, match="body: must be complete within") as refusal:
        asyncio.run(call.api.body(request))
    assert (refusal.value.status, refusal.value.headers) == (408, {"Connection": "close"})


def test_a_body_that_is_all_there_is_bounded_too(call):
    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * 70_000}

    scope = {"type": "http", "method": "POST", "path": "/v2/order", "headers": [], ENTIRE: True}
    with pytest.raises(ApiError, match="body: must be at most 65536 bytes") as refusal:
        asyncio.run(call.api.body(Request(scope, receive)))
    assert refusal.value.status == 413
    read = asyncio.run(call.api.body(Request(scope, receive), at_most=70_000))
    assert read == scope["recourse.body"] == b"x" * 70_000


def test_who_gives_no_key_is_told_the_form_and_never_what_may_be_a_key(call):
    for given, told_of in (("Basic abc", "the scheme Basic"), ("sk_live_x", "is required")):
        answer = call.http.request("GET", "/v2/policies", headers={"Authorization": given})
        message = refused(answer, 401)["message"]
        assert told_of in message and given not in message


def test_a_policy_that_is_being_checked_keeps_no_decision_waiting(call, desk, monkeypatch):
    """A decision made while a proposal is checked: it would wait for ever on the same thread."""
    decided: list[Any] = []

    def slow(*_: Any, **__: Any) -> Any:
        key = desk.store.keys.create("live", ["score"], NOW)
        sent = call.http.post(
            "/v2/refund?score=refundRequest", content=orjson.dumps(BODY),
            headers={"Authorization": f"token {key}", "Content-Type": "application/json"},
        )  # fmt: skip
        decided.append(sent.status_code)
        return original(*_, **__)

    original = policies.propose
    monkeypatch.setattr(policies, "propose", slow)
    told(call("POST", "/v2/policies", TWO, kind="application/yaml"))
    assert decided == [200]


def test_the_follow_up_is_in_the_answer_only_where_there_is_one(desk):
    held = replace(desk)
    first = data(held.decide(report(), Clock(), ME))
    assert "followUp" not in first
    policies.propose(
        desk.store, document("2", rule(1_000, version=2, follow_up={"code": "STORE_CREDIT"})),
        author="ann", note=None, at=3,
    )  # fmt: skip
    policies.activate(desk.store, "2", actor="bob", at=4, second_person=True)
    desk.policies.put(policies.active(desk.store))
    second = data(desk.decide(report(refund_id="r-2"), Clock(), ME))
    assert second["followUp"] == {"code": "STORE_CREDIT", "ruleId": "large_amount"}


@pytest.mark.parametrize("state", ["viewer", "disabled"])
def test_a_key_is_no_way_round_what_its_holder_may(call, desk, state):
    """Whoever has an account that may not, or is disabled, may not with a key of their own."""
    account, _ = accounts.invite(
        desk.store, "Ann", "viewer" if state == "viewer" else "manager", None, by="x", via="x",
        at=NOW,
    )  # fmt: skip
    if state == "disabled":
        accounts.disable(desk.store, account.id, by="x", via="x", at=NOW)
    entry = {"entity": "device", "id": "d", "reason": "r"}
    asked = (
        ("POST", "/v2/lists/block", entry), ("GET", "/v2/lists/block?reveal=true", None),
        ("GET", "/v2/customer/c/export", None), ("DELETE", "/v2/customer/c", None),
        ("POST", "/v2/policies/p1/activate", None),
    )  # fmt: skip
    for method, path, body in asked:
        message = refused(call(method, path, body, who="Ann"), 403)["message"]
        assert ("disabled" if state == "disabled" else "viewer") in message
    answer = call("GET", "/v2/lists/block", who="Ann")
    assert answer.status_code == (200 if state == "viewer" else 403)
    assert call("POST", "/v2/lists/block", entry, who="Bob").status_code == 200
