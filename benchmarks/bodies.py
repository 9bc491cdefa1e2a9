"""Rows of a data folder as a refund backend would send them: the wire bodies of the contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]
"""A row of a table: column -> value, None where unknown."""

Body: TypeAlias = dict[str, Any]


def order_body(order: Row, lines: Iterable[Row] = ()) -> Body:
    """A row of ``orders`` with its ``order_items``, as ``POST /v2/order`` takes it.

    >>> order_body({"order_id": "o1", "customer_id": "c1", "known_at": 1_290_000_000_000,
    ...             "amount_minor": 500, "currency": "GBP", "shipping_country": "GB"})["order"]
    {'orderId': 'o1', 'price': 500, 'currency': 'GBP'}
    """
    part = {
        "orderId": order["order_id"],
        "orderTime": order.get("ordered_at"),
        "price": order["amount_minor"],
        "shippingAmount": order.get("shipping_minor"),
        "currency": order["currency"],
        "channel": order.get("channel"),
        "items": [_line(line) for line in lines],
    }
    return _given({**_who(order), "order": part})


def refund_body(request: Row, lines: Iterable[Row] = ()) -> Body:
    """A row of ``refund_requests`` with its ``refund_items``, as a scored request.

    >>> body = refund_body({"refund_id": "r1", "customer_id": "c1", "known_at": 1_290_000_000_000,
    ...                     "amount_minor": 500, "currency": "GBP", "order_id": "o1",
    ...                     "order_amount_minor": 700, "reason": "OTHER"})
    >>> body["order"]
    {'orderId': 'o1', 'price': 700, 'currency': 'GBP'}
    >>> body["refund"]["status"], body["refund"]["refundReason"]
    ('OPEN', 'OTHER')
    """
    price = request.get("order_amount_minor")
    order = {
        "orderId": request["order_id"],
        "orderTime": request.get("ordered_at"),
        "deliveredTime": request.get("delivered_at"),
        "price": price,
        "currency": None if price is None else request["currency"],
        "channel": request.get("channel"),
    }
    refund = {
        "refundId": request["refund_id"],
        "refundRequestTime": request["known_at"],
        "status": "OPEN",
        "amount": request["amount_minor"],
        "currency": request["currency"],
        "nonRefundableAmount": request.get("non_refundable_minor"),
        "refundReason": request.get("reason"),
        "claim": request.get("claim"),
        "type": request.get("type"),
        "initiatedBy": request.get("initiated_by"),
        "issuedTo": request.get("issued_to"),
        "policy": request.get("policy"),
        "items": [{"finalSale": request.get("final_sale"), **_line(line)} for line in lines],
    }
    return _given({**_who(request), "order": order, "refund": refund})


def _who(row: Row) -> Body:
    """What the bodies of orders and refunds share: when, who, from where."""
    method, street = row.get("payment_method_id"), row.get("address_id")
    return {
        "timestamp": row["known_at"],
        "customer": {
            "customerId": row["customer_id"],
            "registrationTime": row.get("registered_at"),
            "email": row.get("email"),
        },
        "device": {
            "deviceId": row.get("device_id"),
            "ipAddress": row.get("ip"),
            "ipRisk": row.get("ip_risk"),
        },
        "paymentMethods": [] if method is None else [{"paymentMethodId": method}],
        "addresses": {
            "billing": {"country": row.get("billing_country")},
            # The id is a hash of an address that nobody can tell any more: it stands for a street.
            "shipping": {"country": row.get("shipping_country"), "street": street},
        },
    }


def _line(line: Row) -> Body:
    """A line; the wire's ``price`` is of one piece, so its amount must be a multiple of that."""
    quantity, amount = line.get("quantity"), line.get("amount_minor")
    return {
        "sku": line.get("sku"),
        "category": line.get("category"),
        "quantity": quantity,
        "price": amount // quantity if quantity and amount is not None else amount,
        "refundReason": line.get("reason"),
        **({"finalSale": line["final_sale"]} if line.get("final_sale") is not None else {}),
    }


def _given(body: Body) -> Body:
    """The same without what is unknown, and without parts that hold nothing."""
    kept = {key: _pruned(value) for key, value in body.items()}
    return {key: value for key, value in kept.items() if value not in (None, {}, [])}


def _pruned(value: Any) -> Any:
    if isinstance(value, list):
        return [_pruned(entry) for entry in value]
    return _given(value) if isinstance(value, dict) else value
