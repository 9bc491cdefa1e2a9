"""Hostile refunds on the wire: for each rule of the default policy a body, and what was reported.

Everything about a case bears its name: its customer, order, device and card are its own, so that
all of them share one store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import orjson

from features.money import DAY_MS
from serving import contract
from serving.reports import Report

NOW = 1_780_000_000_000
HOUR_MS = DAY_MS // 24

Body = dict[str, Any]
Changes = Mapping[str, Any]
Reported = tuple[Callable[..., Report], Body, float]
"""How a body is read, the body, and how many days ago it came."""

_SCORED: Mapping[str, Any] = {"scored": False}


def body_of(case: str, changes: Changes) -> Body:
    """A request that says all there is to say, with some of it changed by dotted path.

    Two lines of 42.50 and 5.00 for shipping, delivered 5 days ago; the first line is asked back,
    of which 2.50 are kept.
    """
    line = {"name": "A thing", "price": 4250, "quantity": 1, "currency": "GBP", "category": "toys",
            "subcategory": "wooden", "brand": "Any", "finalSale": False}  # fmt: skip
    body: Body = {
        "timestamp": NOW,
        "customer": {"customerId": f"c-{case}", "registrationTime": NOW - 800 * DAY_MS,
                     "email": f"{case}@mail.example"},
        "order": {
            "orderId": f"o-{case}", "orderTime": NOW - 8 * DAY_MS,
            "deliveredTime": NOW - 5 * DAY_MS, "price": 9000, "shippingAmount": 500,
            "currency": "GBP", "channel": "web",
            "status": {"stage": "delivered", "actor": "carrier"},
            "items": [{**line, "sku": f"s-{n}", "status": {"stage": "delivered"}} for n in (1, 2)],
        },
        "refund": {
            "refundId": f"r-{case}", "refundRequestTime": NOW, "status": "OPEN",
            "initiatedBy": "CUSTOMER", "type": "REFUND", "claim": "PARTIAL",
            "policy": "TERMS_AND_CONDITIONS", "amount": 4250, "nonRefundableAmount": 250,
            "currency": "GBP", "issuedTo": "ORIGINAL_PAYMENT_METHOD",
            "refundReason": "CHANGED_MIND", "ignore": False,
            "items": [{**line, "sku": "s-1", "refundReason": "CHANGED_MIND"}],
        },
        "device": {"deviceId": f"d-{case}", "ipAddress": "192.0.2.1", "ipRisk": 0.1,
                   "userAgent": "any"},
        "paymentMethods": [
            {"paymentMethodId": f"p-{case}", "expiryMonth": 12, "expiryYear": 2040}
        ],
        "transactions": [
            {"transactionId": f"t-{case}", "paymentMethodId": f"p-{case}", "gateway": "any",
             "gatewayReference": "ref", "amount": 9000, "currency": "GBP", "type": "capture",
             "success": True}
        ],
        "addresses": {
            role: {"country": "GB", "postalCode": f"AB1 {case}", "street": f"1 {case} Street"}
            for role in ("billing", "shipping")
        },
    }  # fmt: skip
    for path, value in changes.items():
        put(body, path.split("."), value)
    return body


_GONE = object()
GONE: Any = _GONE
"""A change that takes a field away."""


def put(body: Any, path: Iterable[str], value: Any) -> None:
    """Change what stands at a path, or take it away."""
    *parents, last = [int(step) if step.isdigit() else step for step in path]
    for step in parents:
        body = body[step]
    if value is _GONE:
        del body[last]
    else:
        body[last] = deepcopy(value)


# --- what was reported ---------------------------------------------------------------------------


def own_order(case: str, changes: Changes, days: float = 7) -> Reported:
    """The order of a case as its backend reported it, with its capture."""
    body = body_of(case, changes)
    return contract.parse_order, {k: v for k, v in body.items() if k != "refund"}, days


def order(case: str, order_id: str, days: float, **changes: Any) -> Reported:
    """Another order of the case's customer, bought as the first was."""
    body = body_of(case, {"order.orderId": order_id, "transactions": [], **changes})
    return contract.parse_order, {k: v for k, v in body.items() if k != "refund"}, days


def refund(case: str, refund_id: str, order_id: str, days: float, **changes: Any) -> Reported:
    """Another refund that was asked for, on the wire as the case's own is."""
    told = {"refund.refundId": refund_id, "order.orderId": order_id, "transactions": [], **changes}
    return _refund(body_of(case, told), days)


def paid(case: str, refund_id: str, days: float, **changes: Any) -> Reported:
    """A refund was paid, to the case's own card."""
    told = {"refundId": refund_id, "status": "COMPLETED", **changes}
    return _refund({"customer": {"customerId": f"c-{case}"}, "refund": told}, days)


def _refund(body: Body, days: float) -> Reported:
    return (lambda raw: contract.parse_refund(raw, scored=False)), body, days


def returned(case: str, status: str, days: float, refund_id: str | None = None) -> Reported:
    """The goods of the case's order, or of another refund, on their way back."""
    of = {"refundId": refund_id} if refund_id else {"orderId": f"o-{case}"}
    return contract.parse_return, {"return": {**of, "status": status}}, days


def disputed(order_id: str, days: float) -> Reported:
    """The bank took an order's money back."""
    body = {"dispute": {"disputeId": f"x-{order_id}", "stage": "CHARGEBACK"},
            "order": {"orderId": order_id}}  # fmt: skip
    return contract.parse_dispute, body, days


def confirmed(refund_id: str, days: float) -> Reported:
    """An analyst called a refund abuse."""
    body = {"category": "REFUND_ABUSE", "review": "REFUND_ABUSE", "refundId": refund_id}
    return contract.parse_label, body, days


def known_well(case: str) -> list[Reported]:
    """Three more orders, over the year."""
    return [order(case, f"o-{case}-{n}", 60.0 * n) for n in (1, 2, 3)]


def earlier_refunds(case: str, days: Iterable[float], **changes: Any) -> list[Reported]:
    """Earlier refunds of the case's customer, each on an order of its own."""
    return [refund(case, f"r-{case}-{n}", f"o-{case}-past-{n}", d, **changes)
            for n, d in enumerate(days)]  # fmt: skip


def of_others(case: str, column: str, days: Iterable[float]) -> list[Reported]:
    """Refunds of other customers with the case's device or card, and nothing else of it."""
    kept = {"device": ("device.deviceId", f"d-{case}"),
            "card": ("paymentMethods.0.paymentMethodId", f"p-{case}")}  # fmt: skip
    path, value = kept[column]
    return [
        _refund(body_of(f"{case}-other-{n}", {path: value, "transactions": []}), d)
        for n, d in enumerate(days)
    ]


@dataclass(frozen=True)
class Hostile:
    """What a hostile request changes on the honest one, and what was reported before it.

    ``stranger``: another customer asked before it for a refund of the same order, with these
    changes, and waits for a review.
    ``unreported``: fields of which the policy says that nobody has to tell them, so that leaving
    them out ends the suspicion (``on_unknown: miss``).
    """

    changes: Changes
    past: tuple[Reported, ...] = ()
    order_known: bool = True
    order_changes: Changes | None = None
    is_known: bool = True
    unreported: tuple[str, ...] = ()
    stranger: Changes | None = None

    def body(self, case: str) -> Body:
        """The request."""
        return body_of(case, self.changes)

    def asked_before(self, case: str) -> Iterable[Body]:
        """The requests that were decided on before it."""
        if self.stranger is not None:
            ids = {"customer.customerId": f"c-stranger-{case}", "transactions": [],
                   "refund.refundId": f"r-stranger-{case}"}  # fmt: skip
            yield body_of(case, {**ids, **self.stranger})

    def reports(self, case: str) -> list[Reported]:
        """All that was reported before it."""
        own = self.changes if self.order_changes is None else self.order_changes
        told = [own_order(case, {k: v for k, v in own.items() if not k.startswith("refund.")})]
        return [
            *(told if self.order_known else []),
            *(known_well(case) if self.is_known else []),
            *self.past,
        ]


def raw(body: Body) -> bytes:
    """A body as it is sent."""
    return orjson.dumps(body)
