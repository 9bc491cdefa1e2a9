"""Definitions: what they are called, and which are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from features.feature import (
    Age,
    Between,
    Both,
    Coalesce,
    Difference,
    Expression,
    Field,
    FirstSeen,
    Known,
    Ratio,
    count,
    count_same,
    distinct,
    distinct_near,
    either,
    entropy,
    last,
    maximum,
    mean,
    median,
    since_first,
    since_last,
    standing,
    total,
    where,
)

CHARGED_BACK = where("chargeback", stage=("CHARGEBACK",))
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
        (count_same("order", "device", by="customer", days=365),
         "order_count_by_customer_and_device_365d"),
        (count_same("refund_request", "order", by="email", days=7,
                    where=where("damaged", reason=("ITEM_DAMAGED",))),
         "damaged_count_by_email_and_order_7d"),
        (standing("dispute", "dispute", by="device", days=90, where=CHARGED_BACK),
         "chargeback_count_by_device_90d"),
        (entropy("refund_request", "reason", by="customer", days=365),
         "reason_entropy_by_customer_365d"),
        (entropy("return", "return_status", by="customer", days=30, where=LOST),
         "lost_return_return_status_entropy_by_customer_30d"),
        (distinct("dispute", "dispute", by="customer", days=30),
         "dispute_distinct_by_customer_30d"),
        (distinct("refund_request", "reason", by="ip", days=1), "reason_distinct_by_ip_1d"),
        (distinct_near("refund_request", "customer", near="registered_at", within_days=2, by="ip",
                       days=30),
         "customer_registered_within_2d_distinct_by_ip_30d"),
        (since_first("refund_outcome", by="refund"),
         "days_since_first_refund_outcome_by_refund_365d"),
        (since_first("return", by="device", days=7, where=LOST),
         "days_since_first_lost_return_by_device_7d"),
        (median("order", "amount", by="email", days=90), "order_amount_median_by_email_90d"),
        (maximum("order", "amount", by="email", days=90), "order_amount_max_by_email_90d"),
        (mean("refund_outcome", "paid", by="order", days=7),
         "refund_outcome_paid_mean_by_order_7d"),
        (Both("refund_and_chargeback", count("refund_request", by="order", days=365),
              count("dispute", by="order", days=365)),
         "refund_and_chargeback_by_order_365d"),
        (Difference("label_unused", count("return", by="customer", days=30, where=LOST),
                    count("return", by="customer", days=30)),
         "label_unused_count_by_customer_30d"),
        (Ratio(count("return", by="customer", days=30, where=LOST),
               count("return", by="customer", days=90)),
         "lost_return_count_by_customer_30d_over_return_count_by_customer_90d"),
        (Age(Coalesce((Field("delivered_at"), last("order_update", "delivered_at", by="order")))),
         "delivered_age_days"),
        (Between(Field("ordered_at"), Field("delivered_at")), "ordered_to_delivered_days"),
        (Known(Field("ip_risk")), "ip_risk_known"),
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
        (lambda: Field("regstered_at"),
         "a request has no field 'regstered_at', did you mean registered_at?"),
        (lambda: count_same("order", "customr", by="device", days=7),
         "order has no column 'customr', did you mean customer?"),
        (lambda: count_same("order", "amount", by="device", days=7),
         "count_same: 'amount' is no key, expected one of customer, device"),
        (lambda: count_same("return", "device", by="customer", days=7),
         "return has no column 'device'"),
        (lambda: standing("refund_request", "refund", by="customer", days=7,
                          where=where("full", claim=("FULL",))),
         "standing: a refund request is one event, it has no later state"),
        (lambda: standing("dispute", "stage", by="customer", days=7, where=CHARGED_BACK),
         "standing: 'stage' names nothing"),
        (lambda: distinct("order", "amount", by="customer", days=7),
         "distinct: amount of order is neither code nor identity"),
        (lambda: total("order", "currency", by="customer", days=7),
         "total: currency of order is a code, not a number"),
        (lambda: distinct_near("order", "customer", near="amount", within_days=7, by="device",
                               days=30),
         "near: 'amount' is no time that events and requests have, expected one of registered_at"),
        (lambda: distinct_near("order", "customer", near="registered_at", within_days=-1,
                               by="device", days=30),
         "within_days: expected 1 to 365, got -1"),
        (lambda: entropy("transaction", "minor", by="order", days=7),
         "entropy: minor of transaction is no code"),
        (lambda: total("dispute", "dispute", by="customer", days=7),
         "total: dispute of dispute is an identity, not a number"),
        (lambda: last("label", "case", by="customer", days=7),
         "last: case of label is an identity, not a number"),
        (lambda: total("refund_outcome", "paid", by="refund", days=7),
         "paid of refund_outcome is not kept by 'refund': what a refund asked for may come later"),
        (lambda: distinct_near("order", "customer", near="registred_at", within_days=7,
                               by="device", days=30),
         "'registred_at' is no time that events and requests have, did you mean registered_at?"),
        (lambda: distinct_near("order", "amount", near="registered_at", within_days=7,
                               by="device", days=30),
         "distinct_near: amount of order is neither code nor identity"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_refused(define: Callable[[], Expression], says: str) -> None:
    with pytest.raises(ValueError) as error:
        define()
    assert says in str(error.value)


def test_either_chooses_what_any_alternative_chooses_under_one_noun() -> None:
    both = either("bad", LOST, CHARGED_BACK)
    assert both.noun == "bad"
    assert both.groups == (*LOST.groups, *CHARGED_BACK.groups)


def test_a_definition_reads_its_column_its_condition_and_what_it_must_be_near() -> None:
    near = distinct_near("order", "customer", near="registered_at", within_days=7, by="device",
                         days=30, where=where("dear", currency=("CHF",)))  # fmt: skip
    assert near.columns == {"customer", "registered_at", "currency"}


def test_walking_an_expression_meets_what_it_is_made_of_before_itself() -> None:
    left, right = (
        count("return", by="order", days=7, where=LOST),
        count("dispute", by="order", days=7),
    )
    both = Both("x", left, right)
    share = Ratio(both, right)
    assert [*share.walk()] == [left, right, both, right, share]
