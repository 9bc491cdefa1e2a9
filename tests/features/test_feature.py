"""Definitions: what they are called, and which are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from features.feature import (
    Aggregate,
    Expression,
    FirstSeen,
    Ratio,
    count,
    distinct,
    last,
    since_last,
    total,
    where,
)

LOST = where("lost_return", return_status=("LOST",))


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        (count("order", by="address", days=90), "order_count_by_address_90d"),
        (count("return", by="customer", days=30, where=LOST), "lost_return_count_by_customer_30d"),
        (total("order", "amount", by="ip", days=1), "order_amount_sum_by_ip_1d"),
        (since_last("label", by="email"), "days_since_last_label_by_email_365d"),
        (last("order", "currency", by="order"), "order_currency_last_by_order_365d"),
        (distinct("order", "device", by="email", days=7), "order_device_distinct_by_email_7d"),
        (
            Ratio(count("return", by="customer", days=30, where=LOST),
                  count("return", by="customer", days=30)),
            "lost_return_share_by_customer_30d",
        ),
        (FirstSeen("email"), "email_first_seen_at"),
    ],
)  # fmt: skip
def test_names_are_derived(expression: Expression, name: str) -> None:
    assert expression.name == name


@pytest.mark.parametrize(
    ("define", "says"),
    [
        (lambda: count("ordr", by="customer", days=7), "no event 'ordr', did you mean order?"),
        (lambda: count("order", by="custmer", days=7),
         "order is not kept by 'custmer', did you mean customer?"),
        (lambda: count("order", by="refund", days=7), "order is not kept by 'refund'"),
        (lambda: count("order", by="customer", days=0), "days: expected 1 to 365, got 0"),
        (lambda: count("order", by="customer", days=366), "days: expected 1 to 365, got 366"),
        (lambda: total("order", "amuont", by="customer", days=7), "did you mean amount?"),
        # An inherited key may become known after the event: counting it would look ahead.
        (lambda: distinct("return", "customer", by="order", days=7),
         "return has no column 'customer'"),
        (lambda: count("order", by="customer", days=7, where=LOST),
         "order has no column 'return_status'"),
        (lambda: where("x", stagee=("CHARGEBACK",)),
         "no coded column 'stagee', did you mean stage?"),
        (lambda: where("x", stage=("CHARGEBAK",)), "stage is never 'CHARGEBAK', did you mean"),
        (lambda: FirstSeen("order"), "no entity 'order'"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_refused(define: Callable[[], Aggregate], says: str) -> None:
    with pytest.raises(ValueError) as error:
        define()
    assert says in str(error.value)
