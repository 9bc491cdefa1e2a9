"""The document says what the program does: each example is sent, each refusal provoked."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from jsonschema import Draft202012Validator
from sqlalchemy.exc import OperationalError

from benchmarks.inprocess import NOW, Answered, InProcess
from features.money import Rates
from rules.policy import Policy
from serving import docs, examples
from serving.api import CALLS
from serving.desk import Desk
from serving.limits import Limits
from serving.models import Models
from serving.openapi import document
from serving.policies import Policies
from serving.routing import Call
from serving.store.store import Store
from tests.serving.champions import fixed
from tests.serving.conftest import DEFAULT_POLICY

SECRET = b"a secret of 16 bytes or more"
CONTRACT = Path(__file__).parents[1] / "contract"
DOCUMENT = document(CALLS)
METHODS = ("get", "post", "delete")
OPERATIONS = {
    told["operationId"]: (method.upper(), path, told)
    for path, operations in DOCUMENT["paths"].items()
    for method, told in operations.items()
}


def strict(schema: Any) -> Any:
    """A schema of answers in which nothing may stand that is not in the document."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if "properties" in closed and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


COMPONENTS = {
    **DOCUMENT["components"],
    "schemas": {name: strict(one) for name, one in DOCUMENT["components"]["schemas"].items()},
}


def problems(schema: Mapping[str, Any], value: Any) -> list[str]:
    """What is wrong with a value, by the document."""
    validator = Draft202012Validator({**strict(schema), "components": COMPONENTS})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def checked(told: Mapping[str, Any], answer: Answered) -> None:
    """An answer is as a call's document says of its status."""
    said = told["responses"].get(str(answer.status))
    assert said is not None, (told["operationId"], answer)
    if "$ref" in said:
        said = DOCUMENT["components"]["responses"][said["$ref"].rpartition("/")[2]]
    for name, header in said["headers"].items():
        header = DOCUMENT["components"]["headers"][header["$ref"].rpartition("/")[2]]
        assert name.lower() in answer.headers or not header.get("required"), (name, answer)
        if (value := answer.headers.get(name.lower())) is not None:
            assert problems(header["schema"], value) == []
    media = answer.headers["content-type"].partition(";")[0]
    schema = said["content"][media]["schema"]
    body = answer.json() if media == "application/json" else answer.body.decode()
    assert problems(schema, body) == [], answer.body


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, policy: Policy) -> Iterator[InProcess]:
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('openapi')}/s.db", SECRET)
    desk = Desk(store=store, policies=Policies(policy), models=Models(fixed(), None),
                rates=Rates("GBP"), secret=SECRET, deadline_ms=60_000, is_sandbox=True)  # fmt: skip
    opened = InProcess(desk, DEFAULT_POLICY.read_text(encoding="utf-8"))
    hold(opened)
    yield opened
    opened.close()


def hold(app: InProcess) -> None:
    """The refund that the examples of reviews are about waits for a person."""
    body = orjson.loads((CONTRACT / "request-score.json").read_bytes())
    body["customer"] = {"customerId": "c-held", "email": "qa-force-refund-manualreview@example.com"}
    body["order"], body["refund"]["refundId"] = {"orderId": "o-held"}, examples.HELD
    answer = app.ask("POST", "/v2/refund", body, query={"score": "refundRequest"})
    assert answer.json()["data"]["action"] == "MANUAL_REVIEW"


def requests_of(told: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Name, media type and body of each example of a call; one of a call without any."""
    named = False
    for media, content in told.get("requestBody", {}).get("content", {}).items():
        for name, example in content["examples"].items():
            named = True
            yield name, media, example["value"]
    names = {name for each in told["parameters"] for name in each.get("examples", ())}
    if not named:
        yield from ((name, "application/json", None) for name in sorted(names) or ["none"])


def pointed(document: Any, pointer: str) -> Any:
    for step in pointer.split("/")[1:]:
        document = document[step]
    return document


def follow(told: Mapping[str, Any], sent: Any, answer: Answered, known: dict[str, Any]) -> None:
    """Note what the links of an answer say of the parameters of other calls."""
    for link in told["responses"]["200"].get("links", {}).values():
        for name, expression in link["parameters"].items():
            where, _, pointer = expression.partition("#")
            source = answer.json() if where == "$response.body" else sent
            try:
                known[link["operationId"], name] = pointed(source, pointer)
            except LookupError:
                continue


def test_every_example_is_answered_as_the_document_says(app):
    known: dict[str, Any] = {}

    async def send_all() -> list[tuple[str, str, Answered]]:
        answers = []
        for operation_id, (method, path, told) in OPERATIONS.items():
            for name, media, body in requests_of(told):
                query, headers, address = {}, {"content-type": media}, path
                for each in told["parameters"]:
                    if "$ref" in each or name not in each.get("examples", {}):
                        continue
                    value = known.get((operation_id, each["name"]), each["examples"][name]["value"])
                    if each["in"] == "path":
                        address = address.replace(f"{{{each['name']}}}", quote(value, safe=""))
                    else:
                        {"query": query, "header": headers}[each["in"]][each["name"]] = str(value)
                content = body.encode() if isinstance(body, str) else body
                answer = await app(method, address, content, query=query, headers=headers)
                checked(told, answer)
                if answer.status == 200:
                    follow(told, body, answer, known)
                answers.append((operation_id, name, answer))
        return answers

    answers = app.run(send_all)
    assert {operation_id for operation_id, _, _ in answers} == OPERATIONS.keys()
    assert {(o, n): a.status for o, n, a in answers if a.status != 200} == {}
    told = {(o, n): a for o, n, a in answers}
    forced = told["scoreOrReportRefund", "request-sandbox-allow"].json()["data"]
    # By the link: the decision that was made last.
    assert told["readDecision", "one"].json()["data"]["scoreId"] == forced["scoreId"]
    assert (forced["action"], forced["source"]) == ("ALLOW", "RULE")
    lines = told["backfillOrder", "lines"].json()["data"]
    assert (lines["known"], lines["refused"]) == (1, 1)


def test_the_reference_s_own_examples_are_in_it():
    content = OPERATIONS["scoreOrReportRefund"][2]["requestBody"]["content"]["application/json"]
    shown = {name: example["value"] for name, example in content["examples"].items()}
    reference = {
        path.stem: orjson.loads(path.read_bytes()) for path in CONTRACT.glob("request-*.json")
    }
    assert shown == reference
    answer = OPERATIONS["scoreOrReportRefund"][2]["responses"]["200"]["content"]
    ours = answer["application/json"]["examples"]["prevented"]["value"]
    assert holds(ours, orjson.loads((CONTRACT / "response-prevent.json").read_bytes()))


def holds(ours: Any, reference: Any) -> bool:
    """Whether all that the reference says stands in ours, beside what we add."""
    if isinstance(reference, dict):
        return all(holds(ours[key], value) for key, value in reference.items())
    if isinstance(reference, list):
        return all(map(holds, ours, reference))
    return bool(ours == reference)


def test_the_document_and_all_that_it_shows_is_valid():
    Draft202012Validator.check_schema({"$defs": DOCUMENT["components"]["schemas"]})
    for operation_id, (_, path, told) in OPERATIONS.items():
        contents = [told.get("requestBody", {}).get("content", {}),
                    told["responses"]["200"]["content"]]  # fmt: skip
        for media, content in ((m, c) for each in contents for m, c in each.items()):
            for name, example in content.get("examples", {}).items():
                found = problems(content["schema"], example["value"])
                assert found == [], (operation_id, media, name)
        for parameter in told["parameters"]:
            for name, example in parameter.get("examples", {}).items():
                assert problems(parameter["schema"], example["value"]) == [], (path, name)
    for status, refusal in DOCUMENT["components"]["responses"].items():
        content = refusal["content"]["application/json"]
        assert problems(content["schema"], content["example"]) == []
        assert content["example"]["status"] == int(status)
    text = orjson.dumps(DOCUMENT).decode()
    for reference in set(re.findall(r'"#(/components/[^"]+)"', text)):
        assert pointed(DOCUMENT, reference)
    assert len(OPERATIONS) == len(CALLS)  # no two calls share a name


def test_a_call_that_nobody_described_is_refused_and_a_description_of_none():
    more = Call("PUT", "/v2/more", lambda _: None, "More")
    with pytest.raises(LookupError, match="PUT /v2/more"):
        document([*CALLS, more])
    with pytest.raises(LookupError, match="POST /v2/refund"):
        document([call for call in CALLS if call.path != "/v2/refund"])


@pytest.fixture
def asked(app: InProcess, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Asks for a refund's score."""
    body = orjson.loads((CONTRACT / "request-score.json").read_bytes())
    body["refund"]["refundId"] = "r-refused"

    def ask(changed: Any = body, **given: Any) -> Answered:
        return app.ask("POST", "/v2/refund", changed, query={"score": "refundRequest"}, **given)

    ask.body = body  # type: ignore[attr-defined]
    return ask


def test_every_refusal_is_as_the_document_says(app, asked, monkeypatch):
    told = OPERATIONS["scoreOrReportRefund"][2]
    provoked = {
        400: asked({}),
        401: asked(headers={"authorization": "token sk_test_nobody"}),
        403: asked(headers={"authorization": f"token {narrow(app)}"}),
        405: app.ask("PUT", "/v2/refund"),
        413: asked(b" " * 70_000),
        415: asked(headers={"content-type": "text/plain"}),
    }
    with monkeypatch.context() as late:
        late.setattr("serving.receiving.read_body", raising(TimeoutError()))
        provoked[408] = asked()
    key = {"idempotency-key": "k-1"}
    assert asked(headers=key).status == 200
    changed = deepcopy(asked.body)
    changed["refund"]["amount"] = 999
    provoked[422] = asked(changed, headers=key)
    with monkeypatch.context() as failing:
        failing.setattr(app.api.key_ring, "verify", raising(RuntimeError("in clear: secret")))
        provoked[500] = asked()
    with monkeypatch.context() as failing:
        gone = OperationalError("SELECT in clear", None, OSError("gone"))
        failing.setattr(app.api.key_ring, "verify", raising(gone))
        provoked[503] = asked()
    with monkeypatch.context() as limited:
        limited.setattr(app.api, "limits", Limits(rate=0.01, burst=1))
        provoked[429] = [asked() for _ in range(3)][-1]
    for status, answer in provoked.items():
        assert answer.status == status, answer
        assert b"in clear" not in answer.body
        checked(told, answer)
    for status, (operation_id, answer) in {
        404: ("readRefund", app.ask("GET", "/v2/refund/nobody")),
        409: ("activatePolicy", app.ask("POST", f"/v2/policies/{in_force(app)}/activate")),
    }.items():
        assert answer.status == status, answer
        checked(OPERATIONS[operation_id][2], answer)
    assert {*provoked, 404, 409} == {int(s) for s in DOCUMENT["components"]["responses"]}


def test_a_delay_that_is_none_is_refused_before_anything_is_decided(app, asked):
    body = deepcopy(asked.body)
    body["refund"]["refundId"] = "r-not-delayed"
    for wanted in ("soon", "-1", "²", "10001", "9" * 5_000):
        answer = asked(body, headers={"recourse-min-latency": wanted})
        assert answer.status == 400, wanted
        assert answer.json()["validationErrors"][0]["field"] == "Recourse-Min-Latency"
    assert app.ask("GET", "/v2/refund/r-not-delayed").status == 404
    assert asked(body, headers={"recourse-min-latency": "1"}).status == 200


def narrow(app: InProcess) -> str:
    return app.desk.store.keys.create("test", ["report"], NOW)


def in_force(app: InProcess) -> str:
    return app.desk.store.active_policy().version


def raising(error: Exception) -> Any:
    def fail(*_: Any) -> Any:
        raise error

    return fail


def test_the_page_needs_nothing_from_elsewhere(app):
    answer = app.ask("GET", "/docs", headers={"authorization": ""})
    assert answer.status == 200
    page = answer.body.decode()
    [style] = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert re.findall(r"<script|\son[a-z]+=|src=|https?://|url\(|@import", page) == []
    for operation_id in OPERATIONS:
        assert f'<article id="{operation_id}">' in page
    targets = set(re.findall(' id="([^"]+)"', page))
    assert set(re.findall('href="#([^"]+)"', page)) <= targets
    assert app.ask("GET", "/openapi.json", headers={"authorization": ""}).json() == DOCUMENT


def test_what_a_description_holds_stands_on_the_page_as_text():
    changed = deepcopy(DOCUMENT)
    changed["info"]["title"] = "<b>x</b>"
    changed["components"]["schemas"]["ErrorBody"]["description"] = "`<script>`"
    page = docs.render(changed)
    assert "<b>x" not in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
