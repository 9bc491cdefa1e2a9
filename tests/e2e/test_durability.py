"""What was answered is there, whatever happens to the process; and nothing counts twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import faults
from tests.e2e.service import Service

EXAMPLE = json.loads((Path(__file__).parents[1] / "contract" / "request-score.json").read_text())


def refund(refund_id: str, customer_id: str = "c-1") -> dict[str, object]:
    return {**EXAMPLE, "customer": {"customerId": customer_id},
            "refund": {**EXAMPLE["refund"], "refundId": refund_id}}  # fmt: skip


@pytest.mark.parametrize(
    ("store", "ends"),
    [("sqlite", ("service", "supervisor", "stop")), ("postgresql", ("service", "database"))],
)
def test_what_was_acknowledged_outlives_what_ends_the_service_under_load(
    trained: Path, tmp_path: Path, store: str, ends: tuple[str, ...]
) -> None:
    report = faults.run(store, ends, tmp_path / "home", trained, workers=1)
    assert report.sound, report.to_json()
    assert report.kills == Counter(ends)
    assert report.ledger.acknowledged > 8 * len(ends)


def test_a_changed_refund_is_decided_anew_and_counts_once(service: Service) -> None:
    body = refund("r-10", "c-10")
    first = service.score(body).json()["data"]
    body["refund"] = {**body["refund"], "amount": 900}  # type: ignore[dict-item]
    second = service.score(body).json()["data"]
    assert first["scoreId"] != second["scoreId"]
    assert service.features(second["scoreId"])["refund_count_by_customer_1d"] == 0
    third = service.score(refund("r-11", "c-10")).json()["data"]
    assert service.features(third["scoreId"])["refund_count_by_customer_1d"] == 1


def test_an_outcome_of_a_refund_becomes_history(service: Service) -> None:
    service.score(refund("r-20", "c-20"))
    outcome = {"customer": {"customerId": "c-20"}, "order": {"orderId": "abcde12345-ZXY"},
               "refund": {"refundId": "r-20", "status": "COMPLETED"}}  # fmt: skip
    assert service.post("/v2/refund", outcome).status_code == 200
    again = refund("r-20", "c-20")
    again["refund"] = {**again["refund"], "amount": 800}  # type: ignore[dict-item]
    data = service.score(again).json()["data"]
    assert data["action"] == "PREVENT"
    assert "ALREADY_REFUNDED" in {reason["code"] for reason in data["reasons"]}
    row = service.features(service.score(refund("r-21", "c-20")).json()["data"]["scoreId"])
    assert row["refund_completed_count_by_customer_30d"] == 1
    assert row["refund_completed_paid_sum_by_customer_365d"] == 750


def test_a_label_and_a_dispute_become_history(service: Service) -> None:
    service.score(refund("r-30", "c-30"))
    label = {"category": "REFUND_ABUSE", "review": "REFUND_ABUSE", "refundId": "r-30",
             "reviewer": {"name": "Ann", "email": "ann@example.com"}}  # fmt: skip
    for _ in range(3):  # said again it is a retry, not another case
        assert service.post("/v2/customer/c-30/labels", label).status_code == 200
    dispute = {"customer": {"customerId": "c-30"},
               "dispute": {"disputeId": "d-30", "stage": "CHARGEBACK"}}  # fmt: skip
    assert service.post("/v2/dispute", dispute).status_code == 200
    row = service.features(service.score(refund("r-31", "c-30")).json()["data"]["scoreId"])
    assert row["abuse_confirmed_count_by_customer_365d"] == 1
    assert row["chargeback_count_by_customer_365d"] == 1


def test_live_and_sandbox_share_nothing(service: Service) -> None:
    for number in range(3):
        service.score(refund(f"r-4{number}", "c-40"), "test")
    data = service.score(refund("r-49", "c-40"), "live").json()["data"]
    assert service.features(data["scoreId"])["refund_count_by_customer_1d"] == 0
    assert service.client.get("/v2/refund/r-40", headers=service.headers()).status_code == 404


def test_nothing_personal_is_in_the_log_or_in_clear_in_the_store(service: Service) -> None:
    body = refund("r-60", "customer-in-clear")
    body["customer"] = {"customerId": "customer-in-clear", "email": "someone@in-clear.example"}
    body["device"] = {"deviceId": "device-in-clear", "ipAddress": "203.0.113.77"}
    assert service.score(body).status_code == 200
    files = [path for path in service.home.iterdir() if path.is_file()]
    kept = b"".join(path.read_bytes() for path in files)
    assert b"r-60" in kept
    for secret in (b"in-clear", b"203.0.113.77", service.keys["live"].encode()):
        assert secret not in kept
