"""The hostile refunds: one for each rule and limit of the default policy, by its id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from features.money import DAY_MS
from tests.serving.hostile import (
    GONE,
    HOUR_MS,
    NOW,
    Hostile,
    confirmed,
    disputed,
    earlier_refunds,
    of_others,
    own_order,
    paid,
    refund,
    returned,
)  # fmt: skip

_LARGE: Mapping[str, Any] = {
    "order.price": 22_500, "order.items.0.price": 11_000, "order.items.1.price": 11_000,
    "refund.amount": 11_000, "refund.items.0.price": 11_000, "transactions.0.amount": 22_500,
}  # fmt: skip
"""Of two lines of 110.00 one is asked back, of which 2.50 are kept."""


def _late(days: float) -> Mapping[str, Any]:
    return {"order.orderTime": NOW - int((days + 4) * DAY_MS),
            "order.deliveredTime": NOW - int(days * DAY_MS)}  # fmt: skip


def _reason(word: str) -> Mapping[str, Any]:
    return {"refund.refundReason": word, "refund.items.0.refundReason": word}


def _second_line(case: str, days: float) -> tuple[Any, ...]:
    """The other line of the order, asked for and paid before, by a transaction."""
    changes = {"refund.items.0.sku": "s-2"}
    went = {"transactionId": f"t-{case}-back", "paymentMethodId": f"p-{case}", "amount": 2000,
            "currency": "GBP", "type": "refund", "success": True}  # fmt: skip
    kind, body, at = paid(case, f"r-{case}-1", days - 1, amount=2000, currency="GBP")
    return (
        refund(case, f"r-{case}-1", f"o-{case}", days, **changes, **{"refund.amount": 2250}),
        (kind, {**body, "order": {"orderId": f"o-{case}"}, "transactions": [went]}, at),
    )


_SPLIT = [
    {"transactionId": "t-tender_already_refunded", "amount": 3000, "currency": "GBP",
     "paymentMethodId": "p-tender_already_refunded", "type": "capture", "success": True},
    {"transactionId": "t-voucher", "amount": 6000, "currency": "GBP",
     "paymentMethodId": "p-voucher", "type": "capture", "success": True},
]  # fmt: skip
_PARTLY = {"order.deliveredTime": GONE, "order.status.stage": "accepted",
           "order.items.1.status.stage": "accepted"}  # fmt: skip
_BOTH_LINES = [
    {"sku": f"s-{n}", "quantity": 1, "price": 4250, "currency": "GBP", "category": "toys",
     "finalSale": False, "refundReason": "OTHER"}
    for n in (1, 2)
]  # fmt: skip

HOSTILE: Mapping[str, Hostile] = {
    # --- money that has gone, or was never there
    "refund_already_completed": Hostile({}, (paid("refund_already_completed",
                                                  "r-refund_already_completed", 1),)),
    "line_already_refunded": Hostile(
        {},
        (refund("line_already_refunded", "r-line-1", "o-line_already_refunded", 4),
         paid("line_already_refunded", "r-line-1", 3)),
    ),
    "line_asked_twice": Hostile(
        {}, (refund("line_asked_twice", "r-twice-1", "o-line_asked_twice", 4),)
    ),
    "tender_already_refunded": Hostile(
        {"transactions": _SPLIT}, _second_line("tender_already_refunded", 4)
    ),
    "amount_above_captured": Hostile({"transactions.0.amount": 3999}),
    "amount_above_unheld": Hostile(
        {}, stranger={"refund.amount": 5251, "refund.items.0.sku": "s-2"}
    ),
    # Cheap on the order, dear in the request.
    "amount_above_lines": Hostile({"order.items.0.price": 100}),
    "order_in_other_currency": Hostile(
        {"refund.currency": "EUR", "refund.items.0.currency": "EUR"}
    ),
    "order_unknown": Hostile(
        {"order": {"orderId": "o-order_unknown"}, "transactions": []}, order_known=False
    ),
    # --- the return window
    "outside_return_window": Hostile(_late(31)),
    "outside_category_window": Hostile(
        {**_late(15), **_LARGE, "order.items.0.category": "electronics",
         "refund.items.0.category": "electronics"}
    ),
    "return_window_unproven": Hostile(
        {**_late(31), "order.deliveredTime": GONE, "order.status.stage": "fulfilled"}
    ),
    "late_fault_claim": Hostile({**_late(31), **_reason("ITEM_DAMAGED")}),
    # --- what is owed at all
    # The order's word: the request says that it was not.
    "final_sale": Hostile(
        {}, order_changes={"order.items.0.finalSale": True}
    ),
    "unwanted_beside_faulty": Hostile(
        {**_late(31), "refund.amount": 8250, "refund.refundReason": "ITEM_NOT_RECEIVED",
         "refund.items": [
             {**line, "price": price, "refundReason": reason}
             for line, price, reason in zip(
                 _BOTH_LINES, (4250, 4000), ("ITEM_NOT_RECEIVED", "CHANGED_MIND"), strict=True)
         ]},
    ),
    "inspection_failed": Hostile({}, (returned("inspection_failed", "REJECTED", 1),)),
    "shipping_fee_not_owed": Hostile(
        {"order.price": 4750, "transactions.0.amount": 4750, "refund.amount": 4750,
         "refund.claim": "FULL", "addresses.shipping.country": "US",
         "addresses.billing.country": "US", "order.items.1": GONE}
    ),
    "subscription_cancelled_late": Hostile(
        {**_reason("SUBSCRIPTION_CANCELLED"), "order.orderTime": NOW - 9 * DAY_MS,
         "order.status.stage": "cancelled", "order.items.0.status.stage": "cancelled",
         "order.items.1.status.stage": "cancelled", "order.deliveredTime": GONE}
    ),
    "goodwill_limit": Hostile(
        {"refund.type": "GOODWILL"},
        tuple(earlier_refunds("goodwill_limit", (60, 120, 180), **{"refund.type": "GOODWILL"})),
    ),
    # --- how it would be paid
    "payment_method_expired": Hostile(
        {"paymentMethods.0.expiryYear": 2020},
        unreported=("paymentMethods", "refund.issuedTo"),
    ),
    "payout_elsewhere": Hostile({**_LARGE, "refund.issuedTo": "BANK_TRANSFER"}),
    # --- where the goods are
    "shipped_part_not_returned": Hostile(
        {**_PARTLY, **_reason("OTHER"), "refund.items": _BOTH_LINES, "refund.amount": 8500}
    ),
    "return_not_received": Hostile(
        {"refund.type": "RETURN"},
        (*earlier_refunds("return_not_received", (90,)),
         confirmed("r-return_not_received-0", 60)),
    ),
    "instant_refund_not_earned": Hostile({"refund.type": "INSTANT"}, is_known=False),
    "unused_return_labels": Hostile(
        {},
        (*earlier_refunds("unused_return_labels", (50, 60, 70)),
         *(returned("", "LABEL_CREATED", 45, f"r-unused_return_labels-{n}") for n in range(3))),
    ),
    # --- the bank has a say
    "open_chargeback_on_order": Hostile({}, (disputed("o-open_chargeback_on_order", 1),)),
    "prior_chargebacks": Hostile({}, (disputed("o-prior_chargebacks-2", 30),)),
    # --- who asks
    "another_customers_order": Hostile(
        {},
        (own_order("victim", {"order.orderId": "o-another_customers_order"}, 7.5),),
        order_known=False,
    ),
    "country_mismatch": Hostile({**_LARGE, "addresses.billing.country": "US"}, is_known=False),
    "shared_device": Hostile(
        _LARGE, tuple(of_others("shared_device", "device", (10, 20))), is_known=False
    ),
    "shared_payment_method": Hostile(
        _LARGE, tuple(of_others("shared_payment_method", "card", (10, 200))), is_known=False
    ),
    "identity_unproven": Hostile(
        _LARGE, tuple(of_others("identity_unproven", "device", (100, 200))), is_known=False
    ),
    "high_ip_risk": Hostile({"device.ipRisk": 0.9}, unreported=("device",)),
    # --- how much, how often
    "over_auto_approve_limit": Hostile(
        {"order.price": 30_500, "order.items.0.price": 25_000, "order.items.1.price": 5000,
         "refund.amount": 25_000, "refund.items.0.price": 25_000, "transactions.0.amount": 30_500}
    ),
    "new_account_large_refund": Hostile(
        {**_LARGE, "customer.registrationTime": NOW - 13 * DAY_MS}, is_known=False
    ),
    "high_refund_velocity": Hostile(
        {}, tuple(earlier_refunds("high_refund_velocity", (10, 14, 18, 22, 26)))
    ),
    "serial_item_not_received": Hostile(
        _reason("ITEM_NOT_RECEIVED"),
        tuple(earlier_refunds("serial_item_not_received", (40, 50, 60, 70),
                              **_reason("ITEM_NOT_RECEIVED"))),
    ),
    "abuse_confirmed_before": Hostile(
        {},
        (*earlier_refunds("abuse_confirmed_before", (100, 120)),
         *(confirmed(f"r-abuse_confirmed_before-{n}", 60) for n in range(2))),
    ),
    # --- limits
    "customer_per_day": Hostile(
        {}, tuple(earlier_refunds("customer_per_day", (0.1 * n for n in range(1, 6))))
    ),
    "device_per_day": Hostile(
        {}, tuple(earlier_refunds("device_per_day", (0.1 * n for n in range(1, 9))))
    ),
    "ip_per_day": Hostile(
        {"device.ipAddress": "198.51.100.7"},
        tuple(refund(f"ip-{n}", f"r-ip-{n}", f"o-ip-{n}", n * HOUR_MS / DAY_MS / 2,
                     **{"device.ipAddress": "198.51.100.7"}) for n in range(1, 31)),
    ),
}  # fmt: skip

SHADOW = ("payout_elsewhere", "unused_return_labels", "ip_per_day")
"""Rules that only watch: they hit, and nothing follows."""
