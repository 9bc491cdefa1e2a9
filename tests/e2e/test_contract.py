"""The wire contract as its users meet it: the reference's own requests, and broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import Service

CONTRACT = Path(__file__).parents[1] / "contract"


def example(name: str) -> dict[str, Any]:
    return json.loads((CONTRACT / f"{name}.json").read_text())  # type: ignore[no-any-return]


def holds(answer: Any, reference: Any) -> bool:
    """Whether an answer has at least the reference's fields, of the same kinds."""
    if isinstance(reference, dict):
        return isinstance(answer, dict) and all(
            k in answer and holds(answer[k], v) for k, v in reference.items()
        )
    if isinstance(reference, list):
        return isinstance(answer, list) and all(holds(a, reference[0]) for a in answer)
    return isinstance(answer, type(reference))


def test_the_references_request_is_decided_with_its_answers_fields(service: Service) -> None:
    answer = service.score((CONTRACT / "request-score.json").read_bytes())
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert holds(body, example("response-prevent"))
    data = body["data"]
    assert data["customerId"] == "abc-123-ZYZ"
    assert data["source"] in ("MODEL", "RULE")
    assert not data["degraded"]
    assert data["reasons"], "a model's decision says why"
    assert 0 <= data["abuseProbability"] <= 1
    assert data["score"] == round(100 * data["abuseProbability"])
    assert "customer-not-found" in {warning["class"] for warning in data["warnings"]}
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize("name", ["outcome-full", "outcome-issued", "outcome-declined"])
def test_the_references_outcomes_are_recorded_without_a_recommendation(
    service: Service, name: str
) -> None:
    answer = service.post("/v2/refund", (CONTRACT / f"request-{name}.json").read_bytes())
    assert answer.status_code == 200, answer.text
    assert "action" not in answer.json()["data"]


FORCED = {"allow": "ALLOW", "prevent": "PREVENT", "manualreview": "MANUAL_REVIEW",
          "review": "REVIEW"}  # fmt: skip


@pytest.mark.parametrize("word", FORCED)
def test_a_sandbox_email_forces_its_action_with_a_test_key_only(
    service: Service, word: str
) -> None:
    body = example("request-sandbox-allow")
    body["customer"]["email"] = f"qa-force-refund-{word}@example.com"
    forced = service.score(body, "test").json()
    assert holds(forced, example("response-sandbox-allow"))
    assert (forced["data"]["action"], forced["data"]["source"]) == (FORCED[word], "RULE")
    real = service.score(body, "live").json()["data"]
    assert real["source"] == "MODEL" or real["rules"]["triggered"]
    assert real["action"] != "REVIEW"


def changed(**refund: Any) -> dict[str, Any]:
    body = example("request-score")
    body["refund"] |= refund
    return body


def without(*path: str) -> dict[str, Any]:
    body = example("request-score")
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return body


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (without("refund", "refundId"), "refund.refundId", "refund.refundId: is required"),
        (without("customer", "customerId"), "customer.customerId", "customer.customerId: is"),
        (without("order"), "order.orderId", "order.orderId: is required"),
        (changed(amount="10.00"), "refund.amount",
         'refund.amount: must be an integer of minor units, got "10.00"'),
        (changed(amount=-1), "refund.amount", "refund.amount: "),
        (changed(amount=10.5), "refund.amount", "refund.amount: "),
        (changed(currency="gbp"), "refund.currency", "refund.currency: "),
        (changed(status="COMPLETED"), "refund.status", "refund.status: must be OPEN"),
        (changed(nonRefundableAmount=2000), "refund.nonRefundableAmount", "refund.nonRef"),
        (changed(items=[]), "refund.refundReason", "refund.refundReason: is required"),
    ],
)  # fmt: skip
def test_a_broken_request_is_answered_by_field_and_value(
    service: Service, body: dict[str, Any], field: str, message: str
) -> None:
    answer = service.score(body)
    assert answer.status_code == 400
    refusal = answer.json()
    assert refusal["status"] == 400
    assert refusal["message"].startswith(message)
    assert [problem["field"] for problem in refusal["validationErrors"]] == [field]


def test_all_problems_come_at_once(service: Service) -> None:
    body = changed(amount="10.00", currency="ZZZ")
    del body["refund"]["refundId"]
    fields = {p["field"] for p in service.score(body).json()["validationErrors"]}
    assert fields == {"refund.refundId", "refund.amount", "refund.currency"}


def test_other_refusals_use_the_same_envelope(service: Service) -> None:
    score = "/v2/refund?score=refundRequest"
    good = json.dumps(example("request-score")).encode()
    client, headers = service.client, service.headers()
    unknown_key = headers | {"Authorization": "token sk_live_nobody"}
    report_only = headers | {"Authorization": f"token {service.make_key('live', 'report')}"}
    plain = headers | {"Content-Type": "text/plain"}
    cases = [
        (client.post("/v2/refund?score=refund", content=good, headers=headers), 400, "score"),
        (client.post(score, content=b"{", headers=headers), 400, "body"),
        (client.post(score, content=b"[1]", headers=headers), 400, "body"),
        (client.post(score, content=good), 401, "Authorization"),
        (client.post(score, content=good, headers=unknown_key), 401, "Authorization"),
        (client.post(score, content=good, headers=report_only), 403, "score"),
        (client.get("/v2/nothing", headers=headers), 404, "no such address"),
        (client.get(score, headers=headers), 405, ""),
        (client.post(score, content=b" " * 300 * 1024, headers=headers), 413, "body"),
        (client.post(score, content=iter([b" " * 1024] * 300), headers=headers), 413, "body"),
        (client.post(score, content=good, headers=plain), 415, "Content-Type"),
        (client.get("/v2/refund/none", headers=headers), 404, "refundId"),
    ]
    for answer, status, named in cases:
        assert answer.status_code == status, answer.text
        assert answer.json()["status"] == status
        assert named in answer.json()["message"]
        assert answer.headers["x-request-id"]


def test_an_idempotency_key_replays_and_refuses_other_content(service: Service) -> None:
    body = changed(refundId="idempotent-1")
    key = {"Idempotency-Key": "one"}
    first = service.score(body, **key)
    again = service.score(body, **key)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    other = service.score(changed(refundId="idempotent-2"), **key)
    assert other.status_code == 422
    assert "Idempotency-Key" in other.json()["message"]


def test_an_unknown_value_is_kept_and_warned_about(service: Service) -> None:
    data = service.score(changed(refundId="odd", claim="FULLY")).json()["data"]
    warning = next(w for w in data["warnings"] if w["class"] == "unknown-value")
    assert "refund.claim" in warning["msg"]
    assert "did you mean FULL" in warning["msg"]


def test_the_sandbox_delays_an_answer_on_request(service: Service) -> None:
    slow = service.score(changed(refundId="slow"), "test", **{"Recourse-Min-Latency": "300"})
    assert slow.elapsed.total_seconds() >= 0.3
    quick = service.score(changed(refundId="slow"), "live", **{"Recourse-Min-Latency": "9000"})
    assert quick.elapsed.total_seconds() < 9


def test_health_and_documentation_answer_without_a_key(service: Service) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert service.client.get(path).status_code == 200, path
