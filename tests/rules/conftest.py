"""What the tests of the rules share: the kinds of facts, and the default policy over them."""

from pathlib import Path

import pytest

from rules.policy import Policy

DEFAULT = Path(__file__).parents[2] / "rules" / "policies" / "default.yaml"


@pytest.fixture(scope="session")
def kinds() -> dict[str, str]:
    numbers = """
        payable_minor amount_minor nonrefundable_minor delivered_age_days ordered_age_days
        registered_age_days captured_minor_sum_by_order_365d refunded_minor_sum_by_order_365d
        refund_completed_count_by_refund_365d open_chargeback_count_by_order_365d
        return_received_count_by_order_365d goodwill_count_by_customer_365d
        refund_count_by_customer_1d refund_count_by_customer_7d refund_count_by_customer_30d
        refund_count_by_customer_90d refund_count_by_customer_365d
        item_not_received_share_by_customer_365d order_count_by_customer_365d
        chargeback_count_by_customer_365d abuse_confirmed_count_by_customer_365d
    """
    strings = """
        currency order_currency refund_reason refund_type refund_policy claim initiated_by
        issued_to channel
    """
    return {
        **dict.fromkeys(numbers.split(), "double"),
        **dict.fromkeys(strings.split(), "string"),
        "order_known": "bool",
        "final_sale": "bool",
    }


@pytest.fixture(scope="session")
def default_text() -> str:
    return DEFAULT.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def default(default_text: str, kinds: dict[str, str]) -> Policy:
    return Policy.from_yaml(default_text, facts=kinds)


@pytest.fixture(scope="session")
def complete(default_text: str, kinds: dict[str, str]) -> Policy:
    """The default policy of a merchant who reports every order."""
    text = default_text.replace("orders_complete: false", "orders_complete: true")
    assert text != default_text
    return Policy.from_yaml(text, facts=kinds)


@pytest.fixture(scope="session")
def honest() -> dict[str, float | str | bool | None]:
    """A complete request that no rule of the default policy has anything against."""
    return {
        "payable_minor": 5000.0,
        "amount_minor": 5500.0,
        "nonrefundable_minor": 500.0,
        "delivered_age_days": 5.0,
        "ordered_age_days": 8.0,
        "registered_age_days": 800.0,
        "captured_minor_sum_by_order_365d": 9000.0,
        "refunded_minor_sum_by_order_365d": 4000.0,
        "refund_completed_count_by_refund_365d": 0.0,
        "open_chargeback_count_by_order_365d": 0.0,
        "return_received_count_by_order_365d": 1.0,
        "goodwill_count_by_customer_365d": 0.0,
        "refund_count_by_customer_1d": 0.0,
        "refund_count_by_customer_7d": 0.0,
        "refund_count_by_customer_30d": 1.0,
        "refund_count_by_customer_90d": 1.0,
        "refund_count_by_customer_365d": 2.0,
        "item_not_received_share_by_customer_365d": 0.0,
        "order_count_by_customer_365d": 4.0,
        "chargeback_count_by_customer_365d": 0.0,
        "abuse_confirmed_count_by_customer_365d": 0.0,
        "currency": "GBP",
        "order_currency": "GBP",
        "refund_reason": "CHANGED_MIND",
        "refund_type": "RETURN",
        "refund_policy": "TERMS_AND_CONDITIONS",
        "claim": "FULL",
        "initiated_by": "CUSTOMER",
        "issued_to": "ORIGINAL_PAYMENT_METHOD",
        "channel": "WEB",
        "order_known": True,
        "final_sale": False,
    }
