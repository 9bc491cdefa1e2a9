"""Examples of calls and answers, as OpenAPI shows them; each is sent to the service by the tests.

Those named ``request-…`` are the reference's own, field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from serving.backfill import NDJSON, Kind
from serving.envelope import JSON

YAML: Final = "application/yaml"


@dataclass(frozen=True)
class Example:
    """A call: its body, and what it gives for its parameters by name."""

    summary: str
    body: Any = None
    given: Mapping[str, Any] = field(default_factory=dict)
    media: str = JSON


_AT: Final = 1_512_828_988_826
_CUSTOMER: Final = {"customerId": "abc-123-ZYZ"}
_ORDER: Final = {"orderId": "abcde12345-ZXY"}
_DEVICE: Final = {"deviceId": "df020f51-5ebb-4901-82cf-96299225754b"}
_SCORED: Final = {"score": "refundRequest"}

_ASKED: Final = {
    "refundId": "abc-123-GDFS",
    "refundRequestTime": 1_636_629_706_000,
    "status": "OPEN",
    "initiatedBy": "CUSTOMER",
    "type": "REFUND",
    "claim": "FULL",
    "policy": "TERMS_AND_CONDITIONS",
    "amount": 1000,
    "currency": "GBP",
    "nonRefundableAmount": 250,
    "issuedTo": "ORIGINAL_PAYMENT_METHOD",
    "items": [
        {
            "name": "Midi Dress",
            "quantity": 1,
            "price": 1000,
            "currency": "GBP",
            "sku": "1234AAB",
            "category": "Clothing",
            "subcategory": "Dresses",
            "brand": "Trendy Threads",
            "refundReason": "ITEM_NOT_RECEIVED",
        }
    ],
}
_PAID_BACK: Final = {
    "transactionId": "pi_3Jd",
    "paymentMethodId": "card_1Ijim5Bvd0CnXcVWpZz66Idb",
    "gateway": "stripe",
    "gatewayReference": "65645tfghdhgd",
    "amount": 7000,
    "currency": "GBP",
    "type": "refund",
    "success": True,
}
_REFUNDED: Final = {**_ORDER, "status": {"stage": "refunded"}}

REFUND: Final[Mapping[str, Example]] = {
    "request-score": Example(
        "A refund request, to be decided",
        {"timestamp": _AT, "customer": _CUSTOMER, "order": _ORDER, "refund": _ASKED,
         "device": _DEVICE},
        {**_SCORED, "Idempotency-Key": "0b1c7f6e-9d53-4f7a-8a35-2f6f0e1f7b11"},
    ),
    "request-sandbox-allow": Example(
        "In the sandbox an e-mail forces the answer",
        {"timestamp": _AT, "customer": {**_CUSTOMER, "email": "qa-force-refund-allow@ravelin.com"},
         "order": _ORDER, "refund": _ASKED, "device": _DEVICE},
        _SCORED,
    ),
    "request-outcome-declined": Example(
        "The refund was declined",
        {"timestamp": _AT, "customer": _CUSTOMER, "order": _ORDER,
         "refund": {"refundId": "abc-123-ZYZ", "status": "DECLINED", "declineReason": "RAVELIN"}},
    ),
    "request-outcome-issued": Example(
        "The refund was paid",
        {"timestamp": _AT, "customer": _CUSTOMER, "order": _REFUNDED,
         "refund": {"refundId": "abc-123-GDFS", "refundIssuedTime": _AT, "status": "COMPLETED"},
         "transactions": [{**_PAID_BACK, "amount": 700}]},
    ),
    "request-outcome-full": Example(
        "A refund that we were not asked about was paid",
        {"timestamp": _AT, "customer": _CUSTOMER, "order": _REFUNDED,
         "refund": {
             "refundId": "abc-123-GDFS", "refundRequestTime": 1_636_629_706_000,
             "refundIssuedTime": 1_636_629_706_000, "status": "COMPLETED",
             "initiatedBy": "CUSTOMER", "type": "REFUND", "claim": "FULL",
             "policy": "TERMS_AND_CONDITIONS", "amount": 7000, "currency": "GBP",
             "issuedTo": "ORIGINAL_PAYMENT_METHOD",
             "items": [{
                 "name": "Heart Gold Necklace", "quantity": 1, "price": 7000, "currency": "GBP",
                 "sku": "345682KGP", "category": "Accessories", "subcategory": "Jewellery",
                 "brand": "Trendy Threads", "refundReason": "CUSTOMER_INCORRECT_ITEM",
             }],
         },
         "transactions": [_PAID_BACK]},
    ),
}  # fmt: skip

_ORDERED: Final = {
    "timestamp": 1_636_024_906,
    "customer": {**_CUSTOMER, "registrationTime": 1_512_828_988, "email": "ann@example.com"},
    "order": {
        **_ORDER, "orderTime": 1_636_024_906, "price": 1500, "shippingAmount": 500,
        "currency": "GBP", "channel": "web", "status": {"stage": "accepted", "actor": "merchant"},
        "items": [{"name": "Midi Dress", "sku": "1234AAB", "quantity": 1, "price": 1000,
                   "currency": "GBP", "category": "Clothing", "finalSale": False}],
    },
    "device": {**_DEVICE, "ipAddress": "203.0.113.7", "userAgent": "Mozilla/5.0"},
    "paymentMethods": [{"paymentMethodId": "card_1Ijim5Bvd0CnXcVWpZz66Idb", "expiryMonth": 12,
                        "expiryYear": 2030}],
    "transactions": [{"transactionId": "pi_1Ab", "amount": 1500, "currency": "GBP",
                      "paymentMethodId": "card_1Ijim5Bvd0CnXcVWpZz66Idb", "type": "capture",
                      "success": True}],
    "addresses": {"shipping": {"country": "GB", "postalCode": "AB1 2CD", "street": "1 High St."}},
}  # fmt: skip
_DELIVERED: Final = {
    "timestamp": 1_636_300_000,
    "order": {**_ORDER, "status": {"stage": "delivered"}, "deliveredTime": 1_636_299_000},
}
_RETURNED: Final = {
    "timestamp": 1_636_900_000,
    "return": {"returnId": "rma-77", "refundId": "abc-123-GDFS", "status": "RECEIVED"},
}
_DISPUTED: Final = {
    "timestamp": 1_638_000_000,
    "dispute": {"disputeId": "dp_1", "stage": "CHARGEBACK", "reason": "not received",
                "amount": 1500, "currency": "GBP"},
    "order": _ORDER,
}  # fmt: skip
_LABELLED: Final = {
    "category": "REFUND_ABUSE",
    "review": "REFUND_ABUSE",
    "refundId": "abc-123-GDFS",
    "reviewer": {"name": "Ann", "email": "ann@shop.example"},
    "comment": "The parcel was signed for.",
}

ORDER: Final = {
    "placed": Example("An order as it was placed and paid", _ORDERED),
    "delivered": Example("It was delivered", _DELIVERED),
}
RETURN: Final = {"received": Example("The goods came back", _RETURNED)}
DISPUTE: Final = {"chargeback": Example("The bank took the money back", _DISPUTED)}
LABEL: Final = {
    "abuse": Example("An analyst found abuse", _LABELLED, {"customerId": "abc-123-ZYZ"}),
}

_EARLIER: Final[Mapping[Kind, Any]] = {
    "refund": {"timestamp": 1_500_300_000, "customer": _CUSTOMER, "order": {"orderId": "o-2017"},
               "refund": {"refundId": "r-2017", "status": "COMPLETED", "amount": 900,
                          "currency": "GBP"}},
    "order": {"timestamp": 1_500_000_000, "customer": _CUSTOMER,
              "order": {"orderId": "o-2017", "price": 900, "currency": "GBP"}},
    "return": {"timestamp": 1_500_200_000,
               "return": {"refundId": "r-2017", "status": "RECEIVED"}},
    "dispute": {"timestamp": 1_500_400_000, "order": {"orderId": "o-2017"},
                "dispute": {"disputeId": "dp_0", "stage": "NOTIFICATION_OF_CHARGEBACK"}},
    "label": {"timestamp": 1_500_500_000, "category": "REFUND_ABUSE", "refundId": "r-2017",
              "review": "NOT_REFUND_ABUSE", "source": "INVESTIGATION"},
}  # fmt: skip


def history(kind: Kind) -> dict[str, Example]:
    """Examples of history of a kind: one body, and several on lines, one of them wrong."""
    one = _EARLIER[kind]
    wrong = {**one, "timestamp": "2017-07-14"}
    lines = "".join(orjson.dumps(line).decode() + "\n" for line in (one, wrong))
    return {
        "one": Example("One of them", one),
        "lines": Example("One a line; the second is refused", lines, media=NDJSON),
    }


_POLICY: Final = """\
version: example-1
note: Ask a person about large amounts.
bands:
  - {action: MANUAL_REVIEW, probability_at_least: 0.25, expected_loss_minor_at_least: 500}
  - {action: PREVENT, probability_at_least: 0.85, expected_loss_minor_at_least: 2000}
rules:
  - id: example_large_amount
    version: 1
    stage: risk
    when: amount_minor >= 50000.0
    action: MANUAL_REVIEW
    reason: AMOUNT_OVER_AUTO_APPROVE_LIMIT
    description: A person approves large amounts
    examples:
      hit: [{amount_minor: 50000}]
      miss: [{amount_minor: 49999}]
"""

POLICY: Final = {
    "small": Example("A policy of one rule", _POLICY, {"note": "After the ring of June"}, YAML),
}
VERSION: Final = {"one": Example("A version", given={"version": "example-1"})}
ACTIVATE: Final = {
    "because": Example("With a reason", {"note": "Read the backtest."}, {"version": "example-1"}),
}

HELD: Final = "abc-123-HELD"
"""A refund that waits for a person."""

QUEUE: Final = {
    "mine": Example("What is late and mine", given={
        "status": "OPEN", "assignee": "Ann", "overdue": "true", "limit": 20,
    }),
}  # fmt: skip
OF_REVIEW: Final = {"one": Example("A review", given={"refundId": HELD})}
REVIEW: Final[Mapping[str, Example]] = {
    "assign": Example("Somebody takes it", {"act": "assign", "assignee": "Ann"},
                      {"refundId": HELD}),
    "ask": Example("More is to be known first", {
        "act": "request_information", "justification": "A photo of the empty box is needed.",
    }, {"refundId": HELD}),
    "deny": Example("It is refused, and it is abuse", {
        "act": "deny", "abuse": True, "justification": "The parcel was signed for at the door.",
    }, {"refundId": HELD}),
    "note": Example("Something is noted", {
        "act": "note", "justification": "The carrier answers by Friday.",
    }, {"refundId": HELD}),
}  # fmt: skip

_LISTED: Final = {"entity": "device", "id": _DEVICE["deviceId"]}
ENTRIES: Final = {
    "devices": Example("The devices that are blocked",
                       given={"name": "block", "entity": "device", "limit": 10}),
}  # fmt: skip
LIST: Final = {
    "device": Example("A device of a ring, until 2099", {
        **_LISTED, "reason": "ring of June", "expiresAt": 4_070_908_800,
    }, {"name": "block"}),
}  # fmt: skip
UNLIST: Final = {
    "query": Example("By the address", given={"name": "block", **_LISTED}),
}

OF_REFUND: Final = {"one": Example("A refund", given={"refundId": "abc-123-GDFS"})}
OF_DECISION: Final = {
    "one": Example("A decision", given={"scoreId": "0f1c6a2e7d9b4c3f8a5e6d7c8b9a0f1e"}),
}
OF_CUSTOMER: Final = {"one": Example("A customer", given={"customerId": "abc-123-ZYZ"})}

# --- answers -----------------------------------------------------------------------------------

DECIDED: Final[Mapping[str, Any]] = {
    "prevented": {
        "status": 200,
        "timestamp": 1_637_933_719,
        "data": {
            "customerId": "abc-123-ZYZ",
            "action": "PREVENT",
            "source": "RULE",
            "score": 87,
            "scoreId": "0f1c6a2e7d9b4c3f8a5e6d7c8b9a0f1e",
            "abuseProbability": 0.8731,
            "riskLevel": "highest",
            "reasons": [{
                "code": "REFUND_VELOCITY_HIGH",
                "description": "5 refunds requested in 30 days",
                "feature": "refund_count_by_customer_30d",
                "value": 5.0,
                "contribution": 1.21,
            }],
            "rules": {"triggered": [{
                "triggered": True,
                "description": "Customer is a serial complainer",
                "state": "active",
                "action": "PREVENT",
                "ruleId": "serial_item_not_received",
                "ruleVersion": 2,
            }]},
            "warnings": [{
                "class": "order-not-found",
                "msg": "order.orderId: no order of this id was reported",
                "help": "The refund could not be checked against its order.",
            }],
            "modelVersion": "3",
            "policyVersion": "2",
            "degraded": False,
        },
    },
    "recorded": {
        "status": 200,
        "timestamp": 1_637_933_719,
        "data": {"customerId": "abc-123-ZYZ", "orderId": "abcde12345-ZXY",
                 "refundId": "abc-123-GDFS", "recorded": ["refund_outcome"], "warnings": []},
    },
}  # fmt: skip

RECORDED: Final = {"recorded": DECIDED["recorded"]}

TAKEN: Final = {
    "lines": {
        "status": 200,
        "timestamp": 1_637_933_719,
        "data": {
            "recorded": 1, "known": 0, "nothing": 0, "refused": 1,
            "lines": [
                {"line": 1, "result": "recorded", "warnings": []},
                {"line": 2, "result": "refused", "validationErrors": [{
                    "field": "timestamp",
                    "message": "must be Unix time as an integer of seconds, milliseconds or "
                               "nanoseconds, from 1990 to 2099",
                    "value": "2017-07-14",
                }]},
            ],
        },
    },
}  # fmt: skip
