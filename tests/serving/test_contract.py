"""Bodies to reports and events: the reference's examples, every refusal, and any JSON at all."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.events import (
    EVENTS,
    Dispute,
    Event,
    Label,
    Order,
    OrderUpdate,
    RefundOutcome,
    RefundRequest,
    Return,
    Transaction,
    address_key,
)
from serving.contract import parse_dispute, parse_label, parse_order, parse_refund, parse_return
from serving.reports import MAX_WARNINGS, Report
from serving.wire import MAX_PROBLEMS, InvalidRequest, to_millis

EXAMPLES = Path(__file__).parents[1] / "contract"
NOW = 1_700_000_000_000

FULL_REFUND: dict[str, Any] = {
    "timestamp": 1_636_629_706,
    "customer": {"customerId": "c1", "registrationTime": 1_600_000_000, "email": "Ann+x@Shop.COM"},
    "order": {
        "orderId": "o1",
        "orderTime": 1_636_000_000_000,
        "deliveredTime": 1_636_100_000_000,
        "price": 9000,
        "shippingAmount": 500,
        "currency": "GBP",
        "channel": "web",
        "status": {"stage": "delivered", "actor": "courier"},
        "items": [
            {
                "name": "Necklace",
                "quantity": 2,
                "price": 4000,
                "currency": "GBP",
                "sku": "k1",
                "category": "Accessories",
                "subcategory": "Jewellery",
                "brand": "Trendy",
                "finalSale": False,
                "status": {"stage": "fulfilled", "actor": "warehouse"},
            }
        ],
    },
    "refund": {
        "refundId": "r1",
        "refundRequestTime": 1_636_629_706_000,
        "refundIssuedTime": 1_636_629_707_000,
        "status": "OPEN",
        "initiatedBy": "CUSTOMER",
        "type": "REFUND",
        "claim": "FULL",
        "policy": "GOODWILL",
        "amount": 7000,
        "currency": "GBP",
        "nonRefundableAmount": 250,
        "issuedTo": "GIFT_CARD",
        "refundIssuedTo": ["ORIGINAL_PAYMENT_METHOD"],
        "refundReason": "OTHER",
        "declineReason": "RISK",
        "ignore": False,
        "items": [
            {
                "name": "Necklace",
                "quantity": 2,
                "price": 3500,
                "currency": "GBP",
                "sku": "k1",
                "category": "Accessories",
                "subcategory": "Jewellery",
                "brand": "Trendy",
                "finalSale": True,
                "refundReason": "EMPTY_BOX",
            }
        ],
    },
    "device": {"deviceId": "d1", "ipAddress": "2001:db8::1", "ipRisk": 0.5, "userAgent": "Moz"},
    "paymentMethods": [
        {"paymentMethodId": "p1", "expiryMonth": 12, "expiryYear": 2024},
        {"paymentMethodId": "p2", "expiryMonth": 1, "expiryYear": 2030},
    ],
    "transactions": [
        {
            "transactionId": "t1",
            "paymentMethodId": "p1",
            "gateway": "stripe",
            "gatewayReference": "g1",
            "amount": 9000,
            "currency": "GBP",
            "type": "capture",
            "success": True,
        }
    ],
    "addresses": {
        "billing": {"country": "fr", "postalCode": "75001", "street": "1 rue"},
        "shipping": {"country": "GB", "postalCode": "AB1 2CD", "street": "1 High St"},
    },
}
FULL_RETURN: dict[str, Any] = {
    "timestamp": 1_636_629_706,
    "return": {"returnId": "n1", "refundId": "r1", "orderId": "o1", "status": "RECEIVED"},
    "refund": {"refundId": "r1"},
    "order": {"orderId": "o1"},
}
FULL_DISPUTE: dict[str, Any] = {
    "timestamp": 1_636_629_706,
    "dispute": {
        "disputeId": "x1",
        "stage": "CHARGEBACK",
        "outcome": "LOST",
        "reason": "4853",
        "amount": 7000,
        "currency": "GBP",
    },
    "order": {"orderId": "o1"},
    "paymentMethod": {"paymentMethodId": "p1"},
    "customer": {"customerId": "c1"},
}
FULL_LABEL: dict[str, Any] = {
    "timestamp": 1_636_629_706,
    "customer": {"customerId": "c1"},
    "refundId": "r1",
    "category": "REFUND_ABUSE",
    "review": "NOT_REFUND_ABUSE",
    "source": "INVESTIGATION",
    "reviewer": {"name": "Ann", "email": "ann@shop.com"},
    "comment": "called",
}
FULL_ORDER: dict[str, Any] = {k: v for k, v in FULL_REFUND.items() if k != "refund"}

PARSERS: dict[str, tuple[Callable[[bytes], Report], dict[str, Any]]] = {
    "refund": (lambda body: parse_refund(body, scored=False), FULL_REFUND),
    "scored refund": (lambda body: parse_refund(body, scored=True), FULL_REFUND),
    "order": (parse_order, FULL_ORDER),
    "return": (parse_return, FULL_RETURN),
    "dispute": (parse_dispute, FULL_DISPUTE),
    "label": (parse_label, FULL_LABEL),
}

Steps = tuple[str | int, ...]
ABSENT = object()


def leaves(value: Any, path: Steps = ()) -> list[Steps]:
    """Every path of a body, parts and their fields alike."""
    children: Any = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    below = [leaf for key, child in children for leaf in leaves(child, (*path, key))]
    return ([path] if path else []) + below


def changed(body: dict[str, Any], path: Steps | str, value: Any = ABSENT) -> dict[str, Any]:
    """A copy of ``body`` with another value at ``path``, or none."""
    steps = path.split(".") if isinstance(path, str) else path
    copied = copy.deepcopy(body)
    *parents, last = steps
    part: Any = copied
    for step in parents:
        part = part[int(step) if isinstance(part, list) else step]
    if isinstance(part, list):
        last = int(last)
    elif not isinstance(last, str):
        raise KeyError(last)
    if value is not ABSENT:
        part[last] = value
    else:
        del part[last]
    return copied


def refund(*changes: tuple[str, Any]) -> bytes:
    body = FULL_REFUND
    for path, value in changes:
        body = changed(body, path, value)
    return orjson.dumps(body)


def of_type(events: list[Event], kind: type[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def refusal(parse: Callable[[], object]) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse()
    return str(caught.value)


# --- the reference's examples ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scored", "types"),
    [
        ("request-score", True, ["refund_request"]),
        ("request-sandbox-allow", True, ["refund_request"]),
        ("request-outcome-issued", False, ["refund_outcome", "transaction"]),
        ("request-outcome-declined", False, ["refund_outcome"]),
        ("request-outcome-full", False, ["refund_request", "refund_outcome", "transaction"]),
    ],
)
def test_the_reference_s_requests_are_accepted_as_they_stand(
    name: str, scored: bool, types: list[str]
) -> None:
    report = parse_refund((EXAMPLES / f"{name}.json").read_bytes(), scored=scored)
    assert [event.event_type for event in report.events(NOW)] == types
    assert report.warnings() == []
    assert report.timestamp == 1_512_828_988_826


def test_every_example_request_is_tested_above() -> None:
    assert len(list(EXAMPLES.glob("request-*.json"))) == 5


def test_the_fixtures_are_the_reference_s_own() -> None:
    reference = Path(__file__).parents[3] / "shared" / "contract"
    if not reference.is_dir():
        pytest.skip("the reference's documents are not beside this checkout")
    for path in reference.glob("*.json"):
        assert (EXAMPLES / path.name).read_bytes() == path.read_bytes()


# --- columns -----------------------------------------------------------------------------------


def test_a_full_refund_fills_every_column_of_its_request() -> None:
    (request,) = of_type(parse_refund(refund(), scored=True).events(NOW), RefundRequest)
    expected = {
        "known_at": NOW,
        "refund_id": "r1",
        "customer_id": "c1",
        "amount_minor": 7000,
        "currency": "GBP",
        "order_id": "o1",
        "non_refundable_minor": 250,
        "order_amount_minor": 9000,
        "reason": "EMPTY_BOX",
        "claim": "FULL",
        "type": "REFUND",
        "initiated_by": "CUSTOMER",
        "issued_to": "GIFT_CARD",
        "policy": "GOODWILL",
        "channel": "web",
        "item_count": 2,
        "ordered_at": 1_636_000_000_000,
        "registered_at": 1_600_000_000_000,
        "delivered_at": 1_636_100_000_000,
        "device_id": "d1",
        "payment_method_id": "p1",
        "payment_method_expires_at": 1_735_689_599_999,
        "address_id": address_key("1 High St", "AB1 2CD", "GB"),
        "ip": "2001:db8::/64",
        "email": "ann@shop.com",
        "billing_country": "FR",
        "shipping_country": "GB",
        "final_sale": True,
        "ip_risk": 0.5,
        "ignore": False,
        "items": (
            {
                "line_id": "1",
                "sku": "k1",
                "category": "Accessories",
                "quantity": 2,
                "amount_minor": 7000,
                "reason": "EMPTY_BOX",
            },
        ),
    }
    assert request.model_dump(exclude={"event_id"}) == expected


def test_a_full_order_fills_every_column() -> None:
    report = parse_order(orjson.dumps(FULL_ORDER))
    order, update, of_line, transaction = report.events(NOW)
    assert isinstance(order, Order)
    assert [name for name, value in order if value in (None, ())] == []
    assert order.items[0].amount_minor == 8000, "the price is of one piece"
    assert isinstance(update, OrderUpdate)
    assert (update.status, update.delivered_at) == ("DELIVERED", 1_636_100_000_000)
    assert isinstance(of_line, OrderUpdate)
    assert (of_line.status, of_line.sku, of_line.quantity) == ("SHIPPED", "k1", 2)
    assert isinstance(transaction, Transaction)
    assert (transaction.kind, transaction.order_id) == ("CAPTURE", "o1")


@pytest.mark.parametrize(
    ("stage", "statuses"),
    [
        ("accepted", ["ACCEPTED"]),
        ("fulfilled", ["SHIPPED"]),
        ("delivered", ["DELIVERED"]),
        ("cancelled", ["CANCELLED"]),
        ("CANCELED", ["CANCELLED"]),
        ("refunded", []),
    ],
)
def test_stages_become_order_updates(stage: str, statuses: list[str]) -> None:
    body = orjson.dumps({"order": {"orderId": "o1", "status": {"stage": stage}}})
    report = parse_order(body)
    assert [e.status for e in of_type(report.events(NOW), OrderUpdate)] == statuses
    assert report.warnings() == []


def _lines(*lines: tuple[str | None, int | None, str | None]) -> list[dict[str, Any]]:
    """Lines of an order from (sku, quantity, stage)."""
    return [
        {"sku": sku, "quantity": quantity, "status": {"stage": stage} if stage else None}
        for sku, quantity, stage in lines
    ]


@pytest.mark.parametrize(
    ("lines", "updates"),
    [
        ([("a", 2, "fulfilled")], [("a", None, "SHIPPED", 2)]),
        ([("a", None, "accepted")], [("a", None, "ACCEPTED", 1)]),
        ([("a", 1, "Cancelled")], [("a", None, "CANCELLED", 1)]),
        ([("a", 3, "delivered")], [("a", None, "DELIVERED", 3), ("a", None, "SHIPPED", 3)]),
        # A line that is split: one piece of three is there, one on its way.
        (
            [("a", 1, "delivered"), ("a", 1, "fulfilled"), ("a", 1, "accepted")],
            [("a", None, "ACCEPTED", 1), ("a", None, "DELIVERED", 1), ("a", None, "SHIPPED", 2)],
        ),
        ([("a", 1, None), (None, 2, "fulfilled")], [(None, "2", "SHIPPED", 2)]),
        ([("a", 0, "fulfilled"), ("b", 1, "refunded"), ("c", 1, None)], []),
    ],
)
def test_the_stages_of_lines_become_updates_by_sku(
    lines: list[tuple[str | None, int | None, str | None]],
    updates: list[tuple[str | None, str | None, str, int]],
) -> None:
    order = {"orderId": "o1", "status": {"stage": "accepted"}, "items": _lines(*lines)}
    whole, *found = parse_order(orjson.dumps({"order": order})).events(NOW)
    assert (whole.status, whole.sku, whole.line_id, whole.quantity) == (
        "ACCEPTED", None, None, None,
    )  # fmt: skip
    assert [(u.sku, u.line_id, u.status, u.quantity) for u in found] == updates
    assert all(u.order_id == "o1" and u.known_at == NOW for u in found)


def test_an_unknown_stage_of_a_line_warns() -> None:
    order = {
        "orderId": "o1",
        "status": {"stage": "accepted"},
        "items": _lines(("a", 1, "fulfiled")),
    }
    report = parse_order(orjson.dumps({"order": order}))
    assert len(report.events(NOW)) == 1
    (warning,) = report.warnings()
    assert warning["msg"] == (
        'order.items[0].status.stage: "FULFILED" is not a value we know (did you mean FULFILLED?): '
        "no change is recorded"
    )


@pytest.mark.parametrize(
    ("year", "month", "last"),
    [(2024, 2, "2024-02-29"), (2023, 2, "2023-02-28"), (2025, 12, "2025-12-31"),
     (1990, 1, "1990-01-31"), (2099, 12, "2099-12-31")],
)  # fmt: skip
def test_a_payment_method_is_valid_to_the_end_of_its_last_month(
    year: int, month: int, last: str
) -> None:
    told = (("paymentMethods.0.expiryYear", year), ("paymentMethods.0.expiryMonth", month))
    (request,) = of_type(parse_refund(refund(*told), scored=True).events(NOW), RefundRequest)
    expected = datetime.fromisoformat(f"{last}T23:59:59.999+00:00")
    assert request.payment_method_expires_at == round(expected.timestamp() * 1000)


@pytest.mark.parametrize(
    ("told", "refusal"),
    [
        ({"expiryMonth": 13, "expiryYear": 2027},
         "paymentMethods[0].expiryMonth: must be a month as a number from 1 to 12, got 13"),
        ({"expiryMonth": "1", "expiryYear": 2027},
         'paymentMethods[0].expiryMonth: must be a month as a number from 1 to 12, got "1"'),
        ({"expiryMonth": 1, "expiryYear": 27},
         "paymentMethods[0].expiryYear: must be a year as a number of four digits, from 1990 to "
         "2099, got 27"),
        ({"expiryMonth": 1}, "paymentMethods[0].expiryYear: is required beside expiryMonth"),
        ({"expiryYear": 2027, "expiryMonth": None},
         "paymentMethods[0].expiryMonth: is required beside expiryYear"),
    ],
)  # fmt: skip
def test_half_an_expiry_or_a_wrong_one_is_refused_by_name(
    told: dict[str, Any], refusal: str
) -> None:
    body = refund(("paymentMethods", [{"paymentMethodId": "p1", **told}]))
    order = orjson.dumps({"order": {"orderId": "o1", "status": {"stage": "accepted"}},
                          "paymentMethods": [{"paymentMethodId": "p1", **told}]})  # fmt: skip
    for parse in (lambda: parse_refund(body, scored=True), lambda: parse_order(order)):
        with pytest.raises(InvalidRequest) as refused:
            parse()
        assert str(refused.value) == refusal


def test_a_time_of_delivery_alone_is_a_delivery() -> None:
    body = orjson.dumps({"order": {"orderId": "o1", "deliveredTime": 1_636_100_000}})
    (update,) = parse_order(body).events(NOW)
    assert update == OrderUpdate(
        event_id=update.event_id, known_at=NOW, order_id="o1", status="DELIVERED",
        delivered_at=1_636_100_000_000,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "becomes"),
    [
        ("refund", ("REFUND", "o1", None)),
        ("capture", ("CAPTURE", "o1", None)),
        ("Sale", ("CAPTURE", "o1", None)),
        ("debit", ("CAPTURE", "o1", None)),
        ("void", ("VOID", "o1", None)),
        ("cancel", ("VOID", "o1", None)),
    ],
)
def test_transactions_say_what_they_belong_to(kind: str, becomes: tuple[str, ...]) -> None:
    report = parse_refund(refund(("transactions.0.type", kind)), scored=True)
    (found,) = of_type(report.events(NOW), Transaction)
    assert (found.kind, found.order_id, found.refund_id) == becomes


def test_what_went_back_is_of_the_refund_that_was_paid() -> None:
    """An open refund has paid nothing: its order's refunds are those of others."""
    told = (("transactions.0.type", "refund"), ("refund.status", "COMPLETED"))
    (found,) = of_type(parse_refund(refund(*told), scored=False).events(NOW), Transaction)
    assert (found.order_id, found.refund_id) == ("o1", "r1")
    alone = parse_refund(refund(told[0], ("order", None)), scored=False)
    (found,) = of_type(alone.events(NOW), Transaction)
    assert (found.order_id, found.refund_id) == (None, "r1")


def test_an_unknown_kind_of_transaction_warns_and_moves_no_money() -> None:
    report = parse_refund(refund(("transactions.0.type", "captured")), scored=True)
    assert of_type(report.events(NOW), Transaction) == []
    (warning,) = report.warnings()
    assert warning["class"] == "unknown-value"
    assert warning["msg"] == (
        'transactions[0].type: "CAPTURED" is not a value we know (did you mean CAPTURE?): '
        "the transaction is not recorded"
    )


@pytest.mark.parametrize(
    ("status", "paid"),
    [("COMPLETED", 6750), ("DECLINED", None), ("FAILED", None), ("cancelled", None)],
)
def test_outcomes(status: str, paid: int | None) -> None:
    report = parse_refund(refund(("refund.status", status)), scored=False)
    (outcome,) = of_type(report.events(NOW), RefundOutcome)
    assert outcome.status == status.upper().replace("LL", "L")
    assert outcome.amount_minor == paid
    assert outcome.decline_reason == "RISK"
    assert len(of_type(report.events(NOW), RefundRequest)) == 1


def test_an_unknown_status_is_kept_with_a_warning_and_is_no_outcome() -> None:
    report = parse_refund(refund(("refund.status", "COMPLETE")), scored=False)
    assert of_type(report.events(NOW), RefundOutcome) == []
    assert [w["msg"] for w in report.warnings()] == [
        'refund.status: "COMPLETE" is not a value we know (did you mean COMPLETED?): '
        "no outcome of the refund is recorded"
    ]


@pytest.mark.parametrize(
    ("said", "final"),
    [
        ([True, False], True),
        ([True, None], True),
        ([False, False], False),
        ([False, None], None),
        ([None], None),
        ([], None),
    ],
)
def test_final_sale(said: list[bool | None], final: bool | None) -> None:
    items = [{"refundReason": "OTHER", "finalSale": flag} for flag in said]
    report = parse_refund(refund(("refund.items", items)), scored=True)
    (request,) = of_type(report.events(NOW), RefundRequest)
    assert request.final_sale is final


@pytest.mark.parametrize(
    ("own", "lines", "reason"),
    [
        (None, [("ITEM_DAMAGED", 400, 1), ("EMPTY_BOX", 300, 2)], "EMPTY_BOX"),
        (None, [("ITEM_DAMAGED", 600, 1), ("EMPTY_BOX", 300, 2)], "ITEM_DAMAGED"),
        # The refund's own word does not speak over its lines, and stands where they are silent.
        ("EMPTY_BOX", [("CHANGED_MIND", 400, 1)], "CHANGED_MIND"),
        ("EMPTY_BOX", [("CHANGED_MIND", 400, 1), (None, 500, 1)], "EMPTY_BOX"),
        ("EMPTY_BOX", [(None, None, 1), (None, 500, 1)], "EMPTY_BOX"),
        ("EMPTY_BOX", [], "EMPTY_BOX"),
        (None, [("CHANGED_MIND", 400, 1), (None, 500, 1)], None),
        # Leaving a price out makes no line the dearest.
        (None, [("CHANGED_MIND", None, 1), ("ITEM_NOT_RECEIVED", 1, 1)], None),
        ("OTHER", [("CHANGED_MIND", 8999, 1), ("ITEM_NOT_RECEIVED", None, 1)], None),
        (None, [("CHANGED_MIND", None, 1), ("CHANGED_MIND", 1, 1)], "CHANGED_MIND"),
        (None, [("SUBSCRIPTION_CANCELED", 1, 1), ("subscription_cancelled ", None, 1)],
         "SUBSCRIPTION_CANCELLED"),
    ],
)  # fmt: skip
def test_the_reason_is_that_of_the_line_worth_most(
    own: str | None, lines: list[tuple[str | None, int | None, int]], reason: str | None
) -> None:
    items = [{"refundReason": said, "price": price, "quantity": quantity}
             for said, price, quantity in lines]  # fmt: skip
    body = refund(("refund.items", items), ("refund.refundReason", own))
    (request,) = of_type(parse_refund(body, scored=False).events(NOW), RefundRequest)
    assert request.reason == reason


def test_a_missing_price_among_lines_of_several_reasons_is_said() -> None:
    items: list[dict[str, Any]] = [
        {"refundReason": "CHANGED_MIND"}, {"refundReason": "EMPTY_BOX", "price": 300},
    ]  # fmt: skip
    report = parse_refund(refund(("refund.items", items)), scored=True)
    assert [w["msg"] for w in report.warnings() if "reasons differ" in w["msg"]] == [
        "refund.items[0].price is not known: the lines' reasons differ, and which is that of the "
        "most value cannot be told"
    ]
    (request,) = of_type(report.events(NOW), RefundRequest)
    assert [item.reason for item in request.items] == ["CHANGED_MIND", "EMPTY_BOX"]
    items[0]["refundReason"] = "EMPTY_BOX"
    report = parse_refund(refund(("refund.items", items)), scored=True)
    assert not [w for w in report.warnings() if "reasons differ" in w["msg"]]


def test_one_letter_more_or_less_is_the_same_reason() -> None:
    body = refund(("refund.items.0.refundReason", "SUBSCRIPTION_CANCELED"))
    report = parse_refund(body, scored=True)
    (request,) = of_type(report.events(NOW), RefundRequest)
    assert request.items[0].reason == "SUBSCRIPTION_CANCELLED"
    assert not [w for w in report.warnings() if "refundReason" in w["msg"]]


def test_other_currencies_are_left_out_and_said() -> None:
    body = refund(
        ("order.currency", "EUR"),
        ("order.items.0.currency", "USD"),
        ("refund.items.0.currency", "EUR"),
    )
    report = parse_refund(body, scored=True)
    order, *_updates, request, _transaction = report.events(NOW)
    assert isinstance(order, Order)
    assert isinstance(request, RefundRequest)
    assert (order.currency, order.items) == ("EUR", ())
    assert request.order_amount_minor is None
    assert request.items[0].amount_minor is None
    assert {w["msg"].split(":")[0] for w in report.warnings()} == {
        "order.currency", "order.items[0].currency", "refund.items[0].currency",
    }  # fmt: skip


def test_a_country_that_is_none_is_left_out_and_said() -> None:
    report = parse_refund(refund(("addresses.billing.country", "France")), scored=True)
    (request,) = of_type(report.events(NOW), RefundRequest)
    assert request.billing_country is None
    assert [w["msg"] for w in report.warnings()] == [
        'addresses.billing.country: "France" is not a value we know'
    ]


def test_an_address_without_a_letter_is_none() -> None:
    body = refund(
        ("addresses.shipping", {"country": "GB", "street": " - ", "postalCode": ""}),
    )
    (request,) = of_type(parse_refund(body, scored=True).events(NOW), RefundRequest)
    assert request.address_id is None


def test_issued_to_may_come_as_a_list() -> None:
    body = refund(("refund.issuedTo", None), ("refund.refundIssuedTo", ["bank_transfer", "CASH"]))
    report = parse_refund(body, scored=True)
    (request,) = of_type(report.events(NOW), RefundRequest)
    assert request.issued_to == "BANK_TRANSFER"
    assert [w["msg"] for w in report.warnings()] == [
        'refund.refundIssuedTo[1]: "CASH" is not a value we know'
    ]


def test_a_request_without_a_device_warns() -> None:
    report = parse_refund(refund(("device", None)), scored=True)
    assert [w["class"] for w in report.warnings()] == ["device-missing"]


def test_warnings_are_bounded() -> None:
    items = [{"refundReason": f"WHY{i}"} for i in range(500)]
    report = parse_refund(refund(("refund.items", items)), scored=True)
    assert len(report.warnings()) == MAX_WARNINGS


def test_returns_are_named_in_either_place() -> None:
    bodies = [
        {"return": {"refundId": "r1", "status": "lost"}},
        {"return": {"status": "LOST"}, "refund": {"refundId": "r1"}},
    ]
    for body in bodies:
        (step,) = parse_return(orjson.dumps(body)).events(NOW)
        assert isinstance(step, Return)
        assert (step.refund_id, step.order_id, step.status) == ("r1", None, "LOST")


def test_two_parcels_of_an_order_are_two_returns() -> None:
    ids = {
        parse_return(orjson.dumps(changed(FULL_RETURN, "return.returnId", parcel)))
        .events(NOW)[0]
        .event_id
        for parcel in ("n1", "n2")
    }
    assert len(ids) == 2


def test_a_dispute_is_of_one_thing_the_order_first() -> None:
    body = FULL_DISPUTE
    for dropped, column in (
        (None, "order_id"), ("order", "payment_method_id"), ("paymentMethod", "customer_id"),
    ):  # fmt: skip
        body = changed(body, dropped) if dropped else body
        (dispute,) = parse_dispute(orjson.dumps(body)).events(NOW)
        assert isinstance(dispute, Dispute)
        assert [name for name in Dispute.one_of if getattr(dispute, name)] == [column]
        assert (dispute.stage, dispute.outcome, dispute.reason) == ("CHARGEBACK", "LOST", "4853")


def test_a_label_is_of_the_refund_or_else_of_the_customer() -> None:
    (label,) = parse_label(orjson.dumps(FULL_LABEL), "c1").events(NOW)
    assert isinstance(label, Label)
    assert (label.refund_id, label.customer_id) == ("r1", None)
    assert (label.label, label.source) == ("NOT_REFUND_ABUSE", "INVESTIGATION")
    assert label.reviewer == "ann@shop.com"
    plain = {"category": "REFUND_ABUSE", "review": "REFUND_ABUSE"}
    (label,) = parse_label(orjson.dumps(plain), "c9").events(NOW)
    assert isinstance(label, Label)
    assert (label.refund_id, label.customer_id, label.source) == (None, "c9", "ANALYST")


# --- times and hashes --------------------------------------------------------------------------


@given(st.integers(10**11, 10**14 - 1), st.sampled_from([1, 1000, 1_000_000]))
def test_times_are_told_apart_by_magnitude(millis: int, factor: int) -> None:
    assert to_millis(millis * factor) == millis


@given(st.integers(1, 10**11 - 1))
def test_small_times_are_seconds(seconds: int) -> None:
    assert to_millis(seconds) == seconds * 1000


@pytest.mark.parametrize("name", PARSERS)
def test_the_hash_ignores_time_agent_unknown_fields_and_order(name: str) -> None:
    parse, body = PARSERS[name]
    expected = parse(orjson.dumps(body)).content_hash
    other = changed(body, "timestamp", 1_650_000_000)
    if "device" in body:
        other = changed(other, "device.userAgent", "curl")
    other["unheardOf"] = {"deep": [1]}
    reordered = orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
    assert parse(reordered).content_hash == expected


OTHER: dict[type, Any] = {int: 3, str: "MERCHANT", float: 0.25}
OTHER_AT: dict[str, Any] = {
    "amount": 6999,
    "currency": "USD",
    "registrationTime": 1_500_000_000,
    "orderTime": 1_500_000_000,
    "deliveredTime": 1_500_000_000,
    "refundRequestTime": 1_500_000_000,
    "refundIssuedTime": 1_500_000_000,
    "expiryYear": 2031,
    "category": "OTHER",
    "review": "UNREVIEWED",
}


def at(body: Any, path: Steps) -> Any:
    for step in path:
        body = body[step]
    return body


HASHED = [
    (name, path)
    for name in ("refund", "order", "return", "dispute", "label")
    for path in leaves(PARSERS[name][1])
    # Left out: what does not count, parts (their fields do), and a closed list of one.
    if path not in {("timestamp",), ("device", "userAgent")}
    and not isinstance(at(PARSERS[name][1], path), dict | list)
    and (name, path) != ("label", ("category",))
]


@pytest.mark.parametrize(("name", "path"), HASHED, ids=str)
def test_the_hash_changes_with_every_recognised_field(name: str, path: Steps) -> None:
    parse, body = PARSERS[name]
    old = at(body, path)
    value = not old if isinstance(old, bool) else OTHER_AT.get(str(path[-1]), OTHER.get(type(old)))
    if path == ("return", "status"):
        value = "LOST"
    if path == ("source",):
        value = "ANALYST"
    hashes = {parse(orjson.dumps(b)).content_hash for b in (body, changed(body, path, value))}
    assert len(hashes) == 2


def test_event_ids_ignore_time_and_persons_and_know_the_lines() -> None:
    def ids(body: bytes, known_at: int = NOW) -> dict[str, str | None]:
        events = parse_refund(body, scored=True).events(known_at)
        return {event.event_type: event.event_id for event in events}

    assert ids(refund()) == ids(refund(("device.deviceId", "d2")), NOW + 1)
    other = ids(refund(("refund.items.0.sku", "k2")))
    assert other["refund_request"] != ids(refund())["refund_request"]
    assert other["order"] == ids(refund())["order"]


# --- refusals ----------------------------------------------------------------------------------

ID = "must be a string of 1 to 256 characters"
AMOUNT = "must be an integer of minor units"
TIME = (
    "must be Unix time as an integer of seconds, milliseconds, microseconds or nanoseconds, "
    "from 1990 to 2099; it is kept to the millisecond"
)
ISO_4217 = "must be an ISO 4217 code in upper case"
EMAIL = "must be an e-mail address of at most 256 characters"
COUNT = "must be a whole number from 0 to 10^6"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("refund.amount", "10.00", f'{AMOUNT}, got "10.00"'),
        ("refund.amount", 10.5, f"{AMOUNT}, got 10.5"),
        ("refund.amount", True, f"{AMOUNT}, got true"),
        ("refund.amount", -1, f"{AMOUNT}, not negative, got -1"),
        ("refund.amount", 10**16, f"{AMOUNT}, at most 10^15, got {10**16}"),
        ("refund.amount", None, "is required"),
        ("refund.amount", {"gbp": 1}, f'{AMOUNT}, got {{"gbp":1}}'),
        ("refund.refundId", 12, f'{ID} (write "12"), got 12'),
        ("refund.refundId", "", f'{ID}, got ""'),
        ("refund.refundId", "  ", f'{ID}, got "  "'),
        ("refund.refundId", "a\0b", r'must hold no NUL character, got "a\u0000b"'),
        ("refund.refundId", "x" * 257, f'{ID}, got "{"x" * 120}…"'),
        ("order.orderId", None, "is required"),
        ("order.price", "1", f'{AMOUNT}, got "1"'),
        ("customer", [], "must be an object, got []"),
        ("customer.email", 5, f"{EMAIL}, got 5"),
        ("customer.email", " ", f'{EMAIL}, got " "'),
        ("device.deviceId", "", f'{ID}, got ""'),
        ("device.ipAddress", 5, "must be an IP address as a string, got 5"),
        ("device.ipRisk", 1.5, "must be a number from 0 to 1, got 1.5"),
        ("refund.ignore", "true", 'must be true or false, got "true"'),
        ("refund.currency", "gbp", f'{ISO_4217} (did you mean GBP?), got "gbp"'),
        ("refund.currency", "GBX", f'{ISO_4217} (did you mean GBP?), got "GBX"'),
        ("refund.currency", 826, f"{ISO_4217}, got 826"),
        ("refund.status", "DECLINED", 'must be OPEN in a scored request, got "DECLINED"'),
        ("refund.status", None, "is required"),
        ("refund.nonRefundableAmount", 7001, "must not exceed refund.amount, got 7001"),
        ("refund.items[0].refundReason", None, "is required"),
        ("refund.items[0].quantity", 1.5, f"{COUNT}, got 1.5"),
        ("refund.items", {"0": {}}, 'must be an array, got {"0":{}}'),
        ("timestamp", "2021-11-11", f'{TIME}, got "2021-11-11"'),
        ("timestamp", 0, f"{TIME}, got 0"),
        ("timestamp", 86_400, f"{TIME}, got 86400"),
        ("timestamp", 1.5, f"{TIME}, got 1.5"),
        ("transactions[0].amount", None, "is required"),
        ("transactions[0].type", 7, f"{ID}, got 7"),
    ],
)
def test_refused_refunds(path: str, value: Any, message: str) -> None:
    body = refund((path.replace("[0]", ".0"), value))
    assert refusal(lambda: parse_refund(body, scored=True)) == f"{path}: {message}"


def test_arrays_are_bounded() -> None:
    body = refund(("refund.items", [{"refundReason": "OTHER"}] * 1001))
    said = refusal(lambda: parse_refund(body, scored=True))
    assert said.startswith("refund.items: must have at most 1000 entries, got ")
    assert len(said) < 300


def test_what_an_absent_part_needs_is_named_once() -> None:
    said = refusal(lambda: parse_refund(refund(("customer", None)), scored=True))
    assert said == "customer.customerId: is required"
    said = refusal(lambda: parse_refund(refund(("refund.items", [5])), scored=True))
    assert said == "refund.items[0]: must be an object, got 5"


def test_a_line_worth_more_than_any_amount_is_refused() -> None:
    body = refund(("refund.items.0.price", 10**15), ("refund.items.0.quantity", 2))
    assert refusal(lambda: parse_refund(body, scored=True)) == (
        "refund.items[0].quantity: times price must be at most 10^15 minor units, got 2"
    )


def test_all_problems_at_once_and_each_as_data() -> None:
    body = refund(
        ("refund.amount", "10.00"), ("order.orderId", 5), ("refund.items.0.refundReason", None)
    )
    with pytest.raises(InvalidRequest) as caught:
        parse_refund(body, scored=True)
    problems = {problem.field: problem.value for problem in caught.value.problems}
    assert problems == {
        "refund.items[0].refundReason": None, "order.orderId": 5, "refund.amount": "10.00",
    }  # fmt: skip
    assert caught.value.message.count("; ") == 2


def test_problems_are_bounded() -> None:
    body = refund(("refund.items", [{"refundReason": 1, "price": ""}] * 900))
    with pytest.raises(InvalidRequest) as caught:
        parse_refund(body, scored=True)
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert caught.value.message.endswith(f"; and {1800 - MAX_PROBLEMS} more")


def test_a_reason_is_needed_on_the_refund_when_there_are_no_items() -> None:
    body = refund(("refund.items", []), ("refund.refundReason", None))
    assert refusal(lambda: parse_refund(body, scored=True)) == (
        "refund.refundReason: is required when there are no items"
    )
    assert parse_refund(refund(("refund.items", [])), scored=True).refund.refund_reason == "OTHER"


def test_an_outcome_needs_its_refund_and_status_and_no_more() -> None:
    said = refusal(lambda: parse_refund(b"{}", scored=False))
    assert said == "refund.refundId: is required; refund.status: is required"
    body = b'{"refund": {"refundId": "r", "status": "FAILED"}}'
    (outcome,) = parse_refund(body, scored=False).events(NOW)
    assert isinstance(outcome, RefundOutcome)


def test_an_open_report_must_hold_what_is_to_be_recorded() -> None:
    body = b'{"refund": {"refundId": "r", "status": "open"}}'
    assert refusal(lambda: parse_refund(body, scored=False)) == (
        "customer.customerId: is required; refund.amount: is required; refund.currency: is required"
    )


@pytest.mark.parametrize(
    ("parse", "body", "message"),
    [
        (
            parse_order,
            {},
            "order.orderId: is required; order.price: is required, or order.status.stage",
        ),
        (
            parse_order,
            {"order": {"orderId": "o", "price": 5}},
            "order.currency: is required; customer.customerId: is required",
        ),
        (
            parse_return,
            {"return": {"refundId": "r", "status": "LOSTT"}},
            "return.status: must be one of LABEL_CREATED, IN_TRANSIT, RECEIVED, LOST, ACCEPTED, "
            'REJECTED (did you mean LOST?), got "LOSTT"',
        ),
        (
            parse_return,
            {},
            "return.status: is required; return.refundId: is required, or return.orderId",
        ),
        (
            parse_dispute,
            {"dispute": {"disputeId": "x", "amount": 5}},
            "order.orderId: is required, or paymentMethod.paymentMethodId, "
            "or customer.customerId; dispute.currency: is required",
        ),
        (
            parse_label,
            {"category": "REFUND_ABUSE"},
            "review: is required; refundId: is required, or customer.customerId",
        ),
        (
            parse_label,
            {"category": "FRAUD", "review": "REFUND_ABUSE", "refundId": "r"},
            'category: must be one of REFUND_ABUSE, got "FRAUD"',
        ),
    ],
)
def test_refused_others(parse: Callable[[bytes], Report], body: Any, message: str) -> None:
    assert refusal(lambda: parse(orjson.dumps(body))) == message


def test_a_label_of_another_customer_than_its_address_names_is_refused() -> None:
    assert refusal(lambda: parse_label(orjson.dumps(FULL_LABEL), "c9")) == (
        'customer.customerId: must be the customer of the address, or left out, got "c1"'
    )
    for customer in ({}, "", []):
        body = orjson.dumps({**FULL_LABEL, "customer": customer})
        assert refusal(lambda body=body: parse_label(body, "c1")).startswith("customer")


def test_a_customer_id_in_the_address_is_checked_too() -> None:
    body = orjson.dumps({"category": "REFUND_ABUSE", "review": "REFUND_ABUSE"})
    assert refusal(lambda: parse_label(body, "\ud800")).startswith(f"customer.customerId: {ID}")
    assert refusal(lambda: parse_label(body, " ")) == f'customer.customerId: {ID}, got " "'


@pytest.mark.parametrize(
    "parse",
    [
        lambda body: parse_refund(body, scored=False, backfill=True),
        lambda body: parse_order(body, backfill=True),
        lambda body: parse_return(body, backfill=True),
        lambda body: parse_dispute(body, backfill=True),
        lambda body: parse_label(body, backfill=True),
    ],
)
def test_history_must_say_when(parse: Callable[[bytes], Report]) -> None:
    body = FULL_REFUND | FULL_RETURN | FULL_DISPUTE | FULL_LABEL | {"refund": FULL_REFUND["refund"]}
    assert parse(orjson.dumps(body)).timestamp == 1_636_629_706_000
    said = refusal(lambda: parse(orjson.dumps(changed(body, "timestamp"))))
    assert said == "timestamp: is required"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: must be JSON: "),
        (b'{"refund": }', "body: must be JSON: "),
        (b'{"a": "\\ud800"}', "body: must be JSON: "),
        (b'\xff{"a": 1}', "body: must be JSON: "),
        (b'{"a": NaN}', "body: must be JSON: "),
        (b"[1]", "body: must be a JSON object, got [1]"),
        (b"null", "body: must be a JSON object"),
        (b"[" * 250_000, "body: must be nested at most 32 levels deep"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "body: must be nested at most 32 levels deep"),
    ],
)
def test_what_is_no_body(body: bytes, message: str) -> None:
    said = refusal(lambda: parse_refund(body, scored=True))
    assert said.startswith(message)
    if message.endswith("JSON: "):
        assert "at line 1, column " in said


def test_depth_is_counted_outside_strings() -> None:
    brackets = orjson.dumps({**FULL_REFUND, "note": '["\\' + "[{" * 100})
    assert parse_refund(brackets, scored=True).refund.refund_id == "r1"


# --- anything at all ---------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.sampled_from(["", " ", "\0", "\x1c", "ß" * 256, "ﷺ" * 256, "GBP", "::1%x", 0, 10**15, "ﬁ"])
)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def check_never_surprised(parse: Callable[[bytes], Report], body: bytes) -> None:
    """Either every problem is named, or all events hold what `features.events` demands."""
    try:
        report = parse(body)
    except InvalidRequest as refused:
        assert refused.problems
        assert orjson.dumps([problem.value for problem in refused.problems])
        assert refused.message.encode()
        return
    events = report.events(NOW)
    for event in events:
        assert EVENTS[event.event_type].model_validate(event.model_dump()) == event
        assert str(event.content()) == str(event.model_dump(exclude_none=True))
        given_refs = [name for name in event.one_of if getattr(event, name) is not None]
        assert not event.one_of or given_refs
        assert not event.only_one or len(given_refs) == 1
        assert event.event_id is not None
        assert event.known_at == NOW
    assert orjson.dumps(report.warnings())
    left_out: Any = {"timestamp": True, "device": {"user_agent"}}
    content = report.model_dump(exclude=left_out, exclude_none=True)
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    assert report.content_hash == hashlib.blake2b(canonical, digest_size=16).hexdigest()


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_value_at_any_field(name: str, data: st.DataObject) -> None:
    parse, body = PARSERS[name]
    paths = leaves(body)
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        path = data.draw(st.sampled_from(paths), label="path")
        try:
            body = changed(body, path, data.draw(ANY_JSON, label="value"))
        except (KeyError, IndexError, TypeError, ValueError):
            continue  # an earlier change took the parent away
    check_never_surprised(parse, orjson.dumps(body))


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=60) | ANY_JSON.map(orjson.dumps))
def test_any_bytes(body: bytes) -> None:
    for parse, _ in PARSERS.values():
        check_never_surprised(parse, body)


@pytest.mark.parametrize("name", PARSERS)
def test_every_field_may_be_null_or_absent_alike(name: str) -> None:
    parse, body = PARSERS[name]

    def told(body: dict[str, Any]) -> str:
        try:
            return parse(orjson.dumps(body)).content_hash
        except InvalidRequest as refused:
            return refused.message

    for path in leaves(body):
        if not isinstance(path[-1], int):
            assert told(changed(body, path, None)) == told(changed(body, path)), path
