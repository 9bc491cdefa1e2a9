"""What the API answers: the reference's fields, and bodies that match the types published."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from pydantic import TypeAdapter

from serving import answers
from serving.wire import Problem

EXAMPLES = Path(__file__).parents[1] / "contract"

RULE: answers.RuleBody = {
    "triggered": True,
    "description": "Customer is a serial complainer",
    "state": "active",
    "action": "PREVENT",
}


def holds(answer: Any, example: Any) -> bool:
    """Whether ``answer`` has at least the fields and values of ``example``."""
    if isinstance(example, dict):
        return all(key in answer and holds(answer[key], example[key]) for key in example)
    if isinstance(example, list):
        return len(answer) == len(example) and all(map(holds, answer, example))
    return bool(answer == example)


@pytest.mark.parametrize(
    ("name", "action", "rules"),
    [
        ("response-prevent", "PREVENT", [RULE]),
        ("response-sandbox-allow", "ALLOW", []),
    ],
)
def test_a_decision_holds_the_reference_s_fields(
    name: str, action: answers.ActionName, rules: list[answers.RuleBody]
) -> None:
    body = answers.decision_body(
        decided_at=1_637_933_719_999, customer_id="abc-123-ZYZ", action=action, source="RULE",
        score_id="s1", rules=rules,
    )  # fmt: skip
    assert holds(body, orjson.loads((EXAMPLES / f"{name}.json").read_bytes()))
    assert "score" not in body["data"], "what is unknown is left out"


def test_a_full_decision_is_valid_against_its_type_and_is_json() -> None:
    body = answers.decision_body(
        decided_at=1_637_933_719_000, customer_id="c", action="MANUAL_REVIEW", source="MODEL",
        score_id="s", probability=0.87312, risk_level="highest",
        reasons=[{"code": "X", "description": "x", "feature": "f", "value": float("nan"),
                  "contribution": 1.21}],
        rules=[{**RULE, "ruleId": "r", "ruleVersion": 2}],
        warnings=[answers.device_missing()], model_version="3", policy_version="7", degraded=True,
    )  # fmt: skip
    TypeAdapter(answers.DecisionBody).validate_python(body, strict=True)
    said = orjson.loads(orjson.dumps(body))["data"]
    assert (said["score"], said["abuseProbability"]) == (87, 0.8731)
    assert said["reasons"][0]["value"] is None


def test_what_a_missing_rate_and_missing_fields_need_is_said_together() -> None:
    facts = {"payable_minor": (), "claim": ("refund.claim",)}
    both = answers.unsettled("x", facts, holds=True, without_rate="JPY")
    assert both["msg"].endswith(
        "not known are payable_minor, claim (refund.claim); this store has no exchange rate for JPY"
    )
    assert "recourse import" in both["help"]
    assert "Send the fields" in both["help"]
    rate = answers.unsettled("x", {"payable_minor": ()}, holds=True, without_rate="JPY")
    assert "Send the fields" not in rate["help"]


def test_errors_and_records_are_valid_against_their_types() -> None:
    error = answers.error_body(400, "x", [Problem("refund.amount", "is required")])
    TypeAdapter(answers.ErrorBody).validate_python(error, strict=True)
    assert answers.error_body(404, "no such refund") == {"status": 404, "message": "no such refund"}
    recorded = answers.recorded_body(
        recorded_at=1_637_933_719_000, customer_id="c", order_id="o", refund_id="r"
    )
    TypeAdapter(answers.RecordedBody).validate_python(recorded, strict=True)
    assert recorded["timestamp"] == 1_637_933_719


def test_every_class_of_warning_can_be_said_and_helps() -> None:
    said = [
        answers.customer_not_found(),
        answers.order_not_found(),
        answers.device_missing(),
        answers.unknown_value("refund.claim", 'a "b"', ("FULL",)),
        answers.fact_missing("order.deliveredTime", "rule x could not be settled"),
        answers.late_event(5000),
        answers.unexpected_transition(None, "COMPLETED"),
        answers.degraded("no model"),
    ]
    assert [warning["class"] for warning in said] == list(get_args(answers.WarningClass))
    for warning in said:
        TypeAdapter(answers.WarningBody).validate_python(warning, strict=True)
        assert warning["msg"]
        assert warning["help"].endswith(".")
