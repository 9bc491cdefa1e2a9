"""Where a backend tells a fact: the fields of the wire that a fact which is not known waits for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

_ORDERS: Final = ("order.price", "order.currency")
_LINES: Final = ("order.items[].sku", "order.items[].quantity", "refund.items[].sku")
_MOVED: Final = ("transactions[].amount", "transactions[].type")

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "refund_reason": ("refund.items[].refundReason", "refund.items[].price"),
    "item_reasons": ("refund.items[].refundReason",),
    "refund_type": ("refund.type",),
    "refund_policy": ("refund.policy",),
    "claim": ("refund.claim",),
    "initiated_by": ("refund.initiatedBy",),
    "issued_to": ("refund.issuedTo",),
    "channel": ("order.channel",),
    "billing_country": ("addresses.billing.country",),
    "shipping_country": ("addresses.shipping.country",),
    "country_mismatch": ("addresses.billing.country", "addresses.shipping.country"),
    "order_currency": _ORDERS,
    "order_known": _ORDERS,
    "payment_method_expired": ("paymentMethods[].expiryMonth", "paymentMethods[].expiryYear"),
    "final_sale": (
        "refund.items[].finalSale",
        "refund.items[].sku",
        "order.items[].finalSale",
        "order.items[].sku",
    ),
    "item_categories": ("refund.items[].category",),
    "item_skus": ("refund.items[].sku",),
    "item_count": ("refund.items[].quantity",),
    "asked_lines_minor": ("refund.items[].price",),
    "asked_worth_minor": (*_LINES, "order.items[].price"),
    "order_shipping_minor": ("order.shippingAmount",),
    "order_captured_minor": _MOVED,
    "order_paid_back_minor": _MOVED,
    "order_reserved_minor": _ORDERS,
    "order_held_minor": _ORDERS,
    "tender_left_minor": ("paymentMethods[].paymentMethodId", "transactions[].paymentMethodId"),
    "refunded_again_piece_count": _LINES,
    "asked_twice_piece_count": _LINES,
    "asked_shipped_piece_count": (*_LINES, "order.items[].status.stage"),
    "order_shipped": ("order.status.stage",),
    "order_cancelled_after_days": ("order.orderTime", "order.status.stage"),
    "order_customer_differs": _ORDERS,
    "order_email_differs": ("customer.email",),
    "order_address_differs": ("addresses.shipping.street", "addresses.shipping.postalCode"),
    "payable_minor_over_order_amount_minor": ("order.price",),
    "registered_age_days": ("customer.registrationTime",),
    "registered_to_ordered_days": ("customer.registrationTime", "order.orderTime"),
    "ordered_age_days": ("order.orderTime",),
    "delivered_age_days": ("order.deliveredTime",),
    "ordered_to_delivered_days": ("order.orderTime", "order.deliveredTime"),
    "ip_risk": ("device.ipRisk",),
}
"""Fact -> the fields that tell it, in requests or in reports before them."""

_OF_KEY: Final[Mapping[str, tuple[str, ...]]] = {
    "device": ("device.deviceId",),
    "payment_method": ("paymentMethods[].paymentMethodId",),
    "address": ("addresses.shipping.street", "addresses.shipping.postalCode"),
    "ip": ("device.ipAddress",),
    "email": ("customer.email",),
    "order": ("order.orderId",),
}


def needs_rate(fact: str) -> bool:
    """Whether a fact is unknown where the refund's currency has no exchange rate.

    >>> needs_rate("payable_minor_over_order_amount_minor"), needs_rate("asked_minor")
    (True, False)
    """
    return fact.startswith("payable_minor") or fact == "expected_loss_minor"


@cache
def fields_of(fact: str) -> tuple[str, ...]:
    """The fields that tell a fact; none for what follows from history or from the model alone.

    >>> fields_of("delivered_age_days"), fields_of("customer_distinct_by_device_365d")
    (('order.deliveredTime',), ('device.deviceId',))
    >>> fields_of("probability")
    ()
    """
    if fact in FIELDS:
        return FIELDS[fact]
    for key, fields in _OF_KEY.items():
        if f"_by_{key}" in fact or fact.startswith((f"{key}_first_seen", f"{key}_on_")):
            return fields
    return ()
