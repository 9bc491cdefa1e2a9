"""The ledger from the wire to the record: what a body says of its order, and a store kept of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from features.ledger import LEDGER_FACTS
from features.money import Rates
from features.tables import Folder, read_folder, write_folder
from rules.policy import Policy
from serving.contract import parse_order, parse_refund
from serving.desk import Desk, Sender
from serving.facts import FACTS
from serving.models import Models
from serving.policies import Policies
from serving.store.store import Store
from serving.store.transfer import export, import_folder
from tests.serving.champions import fixed

SECRET = b"a secret of 16 bytes or more"
NOW = 1_780_000_000_000

ORDER: dict[str, Any] = {
    "customer": {"customerId": "c1", "email": "ann@mail.example"},
    "order": {
        "orderId": "o1", "price": 9000, "currency": "GBP", "shippingAmount": 395,
        "items": [
            {"sku": "a", "quantity": 2, "price": 3000, "status": {"stage": "fulfilled"}},
            {"sku": "b", "quantity": 1, "price": 2605, "status": {"stage": "accepted"}},
        ],
    },
    "transactions": [{"transactionId": "t1", "paymentMethodId": "card", "amount": 9000,
                      "currency": "GBP", "type": "capture", "success": True}],
}  # fmt: skip


def asks(refund_id: str, *skus: str, **changes: Any) -> dict[str, Any]:
    refund = {"refundId": refund_id, "status": "OPEN", "amount": 1000, "currency": "GBP",
              "refundReason": "OTHER",
              "items": [{"sku": sku, "refundReason": "OTHER"} for sku in skus]}  # fmt: skip
    return {**ORDER, "refund": refund,
            "paymentMethods": [{"paymentMethodId": "card", "expiryMonth": 5, "expiryYear": 2026}],
            **changes}  # fmt: skip


def policy_over_all() -> Policy:
    """A policy that reads every fact of the ledger, and never acts."""
    doubles = [name for name, kind in LEDGER_FACTS.items() if kind == "double"]
    flags = [name for name in LEDGER_FACTS if name not in doubles]
    assert {LEDGER_FACTS[name] for name in flags} == {"bool"}
    rule = {
        "id": "every", "version": 1, "mode": "shadow", "stage": "risk", "action": "MANUAL_REVIEW",
        "when": " || ".join([*flags, *(f"{name} > 0.0" for name in doubles)]),
        "reason": "R", "description": "d",
        "examples": {"hit": [{flags[0]: True}],
                     "miss": [{**dict.fromkeys(flags, False), **dict.fromkeys(doubles, 0)}]},
    }  # fmt: skip
    document = {"version": "1", "bands": [], "fallback": "MANUAL_REVIEW", "rules": [rule]}
    policy = Policy.from_yaml(yaml.safe_dump(document), facts=FACTS)
    assert policy.reads.keys() == LEDGER_FACTS.keys()
    return policy


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk whose policy reads every fact of the ledger."""
    store = Store.open(f"sqlite:///{tmp_path}/desk.db", SECRET, clock="event")
    yield Desk(store=store, policies=Policies(policy_over_all()), models=Models(fixed(), None),
               rates=Rates("GBP"), secret=SECRET, deadline_ms=60_000)  # fmt: skip
    store.close()


def facts_at(desk: Desk, at: int, body: dict[str, Any]) -> dict[str, Any]:
    report = parse_refund(orjson.dumps(body), scored=True)
    answer = desk.decide(report, lambda: at, Sender("key"))
    decision = desk.store.decision(answer.body["data"]["scoreId"])
    assert decision is not None
    told: dict[str, Any] = decision.record["facts"]
    return {**dict.fromkeys(LEDGER_FACTS), **told}


def test_a_request_reads_the_order_that_it_brings(desk: Desk) -> None:
    facts = facts_at(desk, NOW, asks("r1", "a", "b"))
    assert {name: facts[name] for name in LEDGER_FACTS} == {
        "order_shipping_minor": 395,
        "order_captured_minor": 9000,
        "order_paid_back_minor": 0,
        "order_reserved_minor": 0,
        "order_held_minor": 0,
        "tender_left_minor": 9000,
        "refunded_again_piece_count": 0,
        "asked_twice_piece_count": 0,
        "asked_shipped_piece_count": 1,
        "asked_worth_minor": 5605,
        "final_sale": None,
        "order_shipped": True,
        "order_cancelled_after_days": None,
        "order_customer_differs": False,
        "order_email_differs": False,
        "order_address_differs": None,
    }
    assert facts["payment_method_expired"] is False
    assert facts["item_skus"] == ["a", "b"]


def test_an_order_reported_before_is_read_as_one_that_is_brought(desk: Desk) -> None:
    desk.record(parse_order(orjson.dumps(ORDER)), NOW - 10, "test")
    alone = asks("r1", "a", "b", order={"orderId": "o1"}, transactions=[])
    brought = facts_at(desk, NOW, asks("r2", "a", "b", order={**ORDER["order"], "orderId": "o2"}))
    facts = facts_at(desk, NOW + 1, alone)
    assert {name: facts[name] for name in LEDGER_FACTS} == {
        name: brought[name] for name in LEDGER_FACTS
    }


def test_what_was_paid_and_what_is_open_is_told_apart(desk: Desk) -> None:
    facts_at(desk, NOW, asks("r1", "b"))
    open_ = facts_at(desk, NOW + 1, asks("r2", "b"))
    done = {"refund": {"refundId": "r1", "status": "COMPLETED"}}
    desk.record(parse_refund(orjson.dumps(done), scored=False), NOW + 2, "test")
    paid = facts_at(desk, NOW + 3, asks("r3", "b", customer={"customerId": "c2"}))
    names = ("refunded_again_piece_count", "asked_twice_piece_count", "order_paid_back_minor",
             "order_customer_differs")  # fmt: skip
    assert [open_[name] for name in names] == [0, 1, 0, False]
    assert [paid[name] for name in names] == [1, 1, 1000, True]


def test_a_card_expires_between_two_requests(desk: Desk) -> None:
    end_of_may = 1_780_272_000_000
    assert facts_at(desk, end_of_may - 1, asks("r1", "a"))["payment_method_expired"] is False
    assert facts_at(desk, end_of_may, asks("r2", "a"))["payment_method_expired"] is True


def test_what_lines_and_payment_methods_tell_survives_export_and_import(
    desk: Desk, tmp_path: Path
) -> None:
    facts_at(desk, NOW, asks("r1", "a", "b"))
    tables = export(desk.store)
    assert set(tables["order_updates"]["sku"].to_pylist()) == {"a", "b"}
    assert tables["refund_requests"]["payment_method_expires_at"].to_pylist() == [1_780_271_999_999]
    write_folder(tables, tmp_path / "folder")
    again = read_folder(tmp_path / "folder").tables
    other = Store.open(f"sqlite:///{tmp_path}/other.db", SECRET)
    import_folder(other, Folder(again, ()))
    there = export(other)
    other.close()
    for name in ("orders", "order_items", "order_updates", "refund_requests", "refund_items"):
        assert there[name].equals(tables[name]), name
