"""The default policy, an honest request that it allows, and a hostile one for each of its rules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rules.decision import Action, Decision
from rules.engine import Circumstances, ListMatch, Score, decide
from rules.policy import CompiledRule, Policy
from serving.facts import FACTS

DEFAULT = Path(__file__).parents[2] / "rules" / "policies" / "default.yaml"
TEXT = DEFAULT.read_text(encoding="utf-8")
SAFE = Score(probability=0.01, expected_loss_minor=50.0)
ALLOW, REVIEW, PREVENT = Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT

Facts = Mapping[str, Any]

HONEST: Facts = {
    "payable_minor": 5000.0,
    "amount_minor": 5500.0,
    "nonrefundable_minor": 500.0,
    "asked_minor": 5000.0,
    "asked_lines_minor": 6000.0,
    "asked_worth_minor": 6000.0,
    "currency": "GBP",
    "order_currency": "GBP",
    "order_known": True,
    "order_captured_minor": 9000.0,
    "order_paid_back_minor": 3000.0,
    "order_reserved_minor": 0.0,
    "order_held_minor": 0.0,
    "order_shipping_minor": 500.0,
    "tender_left_minor": 6000.0,
    "refunded_again_piece_count": 0.0,
    "asked_twice_piece_count": 0.0,
    "asked_shipped_piece_count": 2.0,
    "order_cancelled_after_days": None,
    "order_customer_differs": False,
    "item_count": 2.0,
    "item_categories": ("toys",),
    "final_sale": False,
    "delivered_age_days": 5.0,
    "ordered_age_days": 8.0,
    "registered_age_days": 800.0,
    "shipping_country": "GB",
    "country_mismatch": 0.0,
    "ip_risk": 0.1,
    "payment_method_expired": False,
    "refund_reason": "CHANGED_MIND",
    "item_reasons": ("CHANGED_MIND",),
    "refund_type": "RETURN",
    "refund_policy": "TERMS_AND_CONDITIONS",
    "claim": "PARTIAL",
    "initiated_by": "CUSTOMER",
    "issued_to": "ORIGINAL_PAYMENT_METHOD",
    "refund_completed_count_by_refund_365d": 0.0,
    "refund_count_by_order_365d": 1.0,
    "return_received_count_by_order_365d": 0.0,
    "return_rejected_count_by_order_365d": 0.0,
    "open_chargeback_count_by_order_365d": 0.0,
    "order_count_by_customer_365d": 4.0,
    "goodwill_count_by_customer_365d": 0.0,
    "refund_count_by_customer_1d": 0.0,
    "refund_count_by_customer_7d": 0.0,
    "refund_count_by_customer_30d": 1.0,
    "refund_count_by_customer_90d": 2.0,
    "item_not_received_share_by_customer_365d": 0.0,
    "chargeback_count_by_customer_365d": 0.0,
    "abuse_confirmed_count_by_customer_365d": 0.0,
    "return_rejected_count_by_customer_365d": 0.0,
    "return_label_abandoned_count_by_customer_365d": 0.0,
    "customer_distinct_by_device_365d": 1.0,
    "customer_distinct_by_payment_method_365d": 1.0,
    "refund_count_by_device_1d": 0.0,
    "refund_count_by_device_30d": 1.0,
    "refund_count_by_ip_1d": 0.0,
}
"""A complete request, in need of nearly everything, that no rule has anything against."""

NEW = {"order_count_by_customer_365d": 2.0, "payable_minor": 10_001.0}
"""A large refund to a customer that is hardly known."""

HOSTILE: Mapping[str, Facts] = {
    "refund_already_completed": {"refund_completed_count_by_refund_365d": 1.0},
    "line_already_refunded": {"refunded_again_piece_count": 1.0, "asked_twice_piece_count": 1.0},
    "line_asked_twice": {"asked_twice_piece_count": 1.0},
    "tender_already_refunded": {"tender_left_minor": 4999.0},
    "amount_above_captured": {"order_reserved_minor": 1001.0},
    "amount_above_unheld": {"order_held_minor": 1001.0},
    "amount_above_lines": {"asked_lines_minor": 4499.0},
    "order_in_other_currency": {"currency": "EUR"},
    "order_unknown": {"order_known": False},
    "outside_return_window": {"delivered_age_days": 31.0, "ordered_age_days": 35.0},
    "outside_category_window": {
        "delivered_age_days": 15.0, "ordered_age_days": 18.0, "payable_minor": 5001.0,
        "item_categories": ("toys", "electronics"),
    },
    "return_window_unproven": {"delivered_age_days": None, "ordered_age_days": 35.0},
    "late_fault_claim": {
        "refund_reason": "ITEM_DAMAGED", "delivered_age_days": 31.0, "ordered_age_days": 35.0,
    },
    "final_sale": {"final_sale": True},
    "unwanted_beside_faulty": {
        "refund_reason": "ITEM_DAMAGED", "item_reasons": ("ITEM_DAMAGED", "CHANGED_MIND"),
        "final_sale": True,
    },
    "inspection_failed": {"return_rejected_count_by_order_365d": 1.0},
    "shipping_fee_not_owed": {"asked_minor": 5501.0, "shipping_country": "US"},
    "subscription_cancelled_late": {
        "refund_reason": "SUBSCRIPTION_CANCELLED", "order_cancelled_after_days": 1.5,
    },
    "goodwill_limit": {"goodwill_count_by_customer_365d": 3.0, "refund_type": "GOODWILL"},
    "payment_method_expired": {"payment_method_expired": True},
    "payout_elsewhere": {"issued_to": "BANK_TRANSFER", "payable_minor": 5001.0},
    "shipped_part_not_returned": {"asked_shipped_piece_count": 1.0, "refund_type": "REFUND"},
    "return_not_received": {"payable_minor": 20_001.0},
    "instant_refund_not_earned": {"refund_type": "INSTANT", "order_count_by_customer_365d": 2.0},
    "unused_return_labels": {"return_label_abandoned_count_by_customer_365d": 3.0},
    "open_chargeback_on_order": {"open_chargeback_count_by_order_365d": 1.0},
    "prior_chargebacks": {"chargeback_count_by_customer_365d": 1.0},
    "another_customers_order": {"order_customer_differs": True},
    "country_mismatch": {**NEW, "country_mismatch": 1.0},
    "shared_device": {
        **NEW, "customer_distinct_by_device_365d": 2.0, "refund_count_by_device_30d": 2.0,
    },
    "shared_payment_method": {**NEW, "customer_distinct_by_payment_method_365d": 2.0},
    "identity_unproven": {**NEW, "customer_distinct_by_device_365d": 2.0},
    "high_ip_risk": {"ip_risk": 0.8},
    "over_auto_approve_limit": {"payable_minor": 20_001.0},
    "new_account_large_refund": {**NEW, "registered_age_days": 13.0},
    "high_refund_velocity": {"refund_count_by_customer_30d": 5.0},
    "serial_item_not_received": {
        "refund_count_by_customer_90d": 4.0, "item_not_received_share_by_customer_365d": 0.7,
    },
    "abuse_confirmed_before": {"abuse_confirmed_count_by_customer_365d": 2.0},
    "customer_per_day": {"refund_count_by_customer_1d": 5.0},
    "device_per_day": {"refund_count_by_device_1d": 8.0},
    "ip_per_day": {"refund_count_by_ip_1d": 30.0},
}  # fmt: skip
"""One hostile request per rule and limit: what it changes on the honest one."""

SHADOW = ("payout_elsewhere", "unused_return_labels", "ip_per_day")


@cache
def loaded(*, orders_complete: bool) -> Policy:
    """The default policy, of a merchant who reports every order or of one who does not."""
    text = TEXT.replace("orders_complete: false", f"orders_complete: {orders_complete}".lower())
    assert (text != TEXT) == orders_complete
    return Policy.from_yaml(text, facts=FACTS)


def decided(
    changes: Facts, policy: Policy, lists: ListMatch | None = None, score: Score | None = SAFE
) -> Decision:
    """The decision on the honest request with these changes; its reason is that of its lines."""
    circumstances = Circumstances(lists=lists or ListMatch())
    reason = changes.get("refund_reason", HONEST["refund_reason"])
    lines = {"item_reasons": None if reason is None else (reason,)}
    return decide({**HONEST, **lines, **changes}, score, policy, circumstances)


def hits(decision: Decision) -> set[str]:
    return {rule.rule_id for rule in decision.hits}


def rule_of(policy: Policy, rule_id: str) -> CompiledRule:
    (found,) = (rule for rule in policy.rules if rule.hit.rule_id == rule_id)
    return found
