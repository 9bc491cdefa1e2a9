"""What the tests of the rules share: the kinds of facts."""

import pytest


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
