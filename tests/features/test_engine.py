"""Windows by example: their edges, what is in them, and what is unknown."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.attribution import History, Requests, attribute
from features.engine import Plan, aggregate, compute
from features.feature import (
    Age,
    Between,
    Coalesce,
    Expression,
    Feature,
    Field,
    FirstSeen,
    Known,
    Ratio,
    count,
    distinct,
    last,
    maximum,
    mean,
    median,
    since_last,
    total,
)
from features.kernels import densify
from features.money import DAY_MS, Rates
from tests.features.histories import (
    RATES,
    START,
    WIDE_PLAN,
    Events,
    histories,
    in_batch,
    tables_of,
)

NOW = START + 400 * DAY_MS


def refund(number: int, days_ago: float, **fields: Any) -> dict[str, Any]:
    """A refund request of customer c; number 0 is the one asked about."""
    return {"refund_id": f"r{number}", "customer_id": "c", "amount_minor": 100, "currency": "GBP",
            "known_at": NOW - round(days_ago * DAY_MS), **fields}  # fmt: skip


def plan_of(*expressions: Expression) -> Plan:
    return Plan.of(Feature(e, "velocity", "count", "X", "{value}", "x") for e in expressions)


def value_of(expression: Expression, *refunds: dict[str, Any], **others: Any) -> float:
    """The expression for refund 0, asked at NOW."""
    asked = refund(0, 0)
    events: Events = {"refund_request": [*refunds], **others}
    if not any(row["known_at"] == NOW and row["refund_id"] == "r0" for row in refunds):
        events["refund_request"].append(asked)
    computed = in_batch(events, plan_of(expression))
    at = [n for n, (_, known_at) in enumerate(computed.requests) if known_at == NOW]
    return computed.of(at[-1])[expression.name]


REFUNDS_7D = count("refund_request", by="customer", days=7)
REFUNDS_365D = count("refund_request", by="customer", days=365)


@pytest.mark.parametrize(
    ("days_ago", "expected"),
    [(0, 0), (1 / DAY_MS, 1), (7 - 1 / DAY_MS, 1), (7, 1), (7 + 1 / DAY_MS, 0), (-1, 0)],
)
def test_a_window_holds_its_left_edge_and_not_its_right(days_ago: float, expected: int) -> None:
    # The other refund sorts before the one asked about, so that at a tie it stands before it.
    other, asked = refund(1, days_ago, event_id="a"), refund(0, 0, event_id="b")
    assert value_of(REFUNDS_7D, other, asked) == expected


def test_a_request_sees_no_version_of_its_own_refund() -> None:
    assert value_of(REFUNDS_7D, refund(0, 3, amount_minor=50), refund(0, 2, amount_minor=60)) == 0


def test_a_refund_counts_once_at_its_first_time_with_its_first_fields() -> None:
    versions = refund(1, 8, amount_minor=50), refund(1, 2, amount_minor=70)
    assert value_of(REFUNDS_7D, *versions) == 0
    amount = total("refund_request", "amount", by="customer", days=30)
    assert value_of(amount, *versions) == 50


def test_a_refund_ignored_from_its_first_version_on_is_no_history() -> None:
    assert value_of(REFUNDS_365D, refund(1, 3, ignore=True), refund(1, 2, ignore=False)) == 0
    assert value_of(REFUNDS_365D, refund(1, 3), refund(1, 2, ignore=True)) == 1


def test_an_outcome_counts_once_the_refund_it_names_is_known() -> None:
    outcome = {"refund_id": "r1", "status": "COMPLETED", "known_at": NOW - 20 * DAY_MS}
    week, month = (count("refund_outcome", by="customer", days=days) for days in (7, 30))
    assert value_of(week, refund(1, 5), refund_outcome=[outcome]) == 1
    assert value_of(month, refund(1, -5), refund_outcome=[outcome]) == 0


def test_nothing_counts_as_zero_and_has_no_mean() -> None:
    assert value_of(REFUNDS_7D) == 0
    assert value_of(total("refund_request", "amount", by="customer", days=7)) == 0
    assert value_of(distinct("order", "device", by="customer", days=7)) == 0
    for nothing in (
        mean("refund_request", "amount", by="customer", days=7),
        median("refund_request", "amount", by="customer", days=7),
        maximum("refund_request", "amount", by="customer", days=7),
        last("refund_request", "reason", by="customer"),
        since_last("refund_request", by="customer"),
        Ratio(REFUNDS_7D, REFUNDS_365D),
    ):
        assert math.isnan(value_of(nothing)), nothing.name


def test_without_a_device_nothing_of_devices_is_known() -> None:
    elsewhere = refund(1, 1, device_id="d")
    for unknown in (
        count("refund_request", by="device", days=7),
        total("refund_request", "amount", by="device", days=7),
        distinct("order", "customer", by="device", days=7),
        FirstSeen("device"),
    ):
        assert math.isnan(value_of(unknown, elsewhere)), unknown.name
    assert value_of(count("refund_request", by="device", days=7), elsewhere,
                    refund(0, 0, device_id="d")) == 1  # fmt: skip


def test_an_amount_without_a_rate_makes_a_sum_unknown_and_leaves_a_mean() -> None:
    amounts = refund(1, 1), refund(2, 2, currency="CHF"), refund(3, 3, amount_minor=300)
    assert math.isnan(value_of(total("refund_request", "amount", by="customer", days=7), *amounts))
    assert value_of(mean("refund_request", "amount", by="customer", days=7), *amounts) == 200
    assert value_of(median("refund_request", "amount", by="customer", days=7), *amounts) == 200
    assert value_of(maximum("refund_request", "amount", by="customer", days=7), *amounts) == 300


def test_integers_stay_integers_however_large_the_sums_before_a_window() -> None:
    # 20,000 amounts of 10^15 overflow a double's 53 bits, and all of them together an int64.
    rows = [refund(n, 300 - n / 100, amount_minor=10**15) for n in range(1, 20_000)]
    small = [refund(20_001, 2, amount_minor=1), refund(20_002, 1, amount_minor=2)]
    amount = total("refund_request", "amount", by="customer", days=30)
    assert value_of(amount, *rows, *small) == 3


def test_a_time_after_the_cutoff_is_unknown() -> None:
    asked = refund(0, 0, ordered_at=NOW - 2 * DAY_MS, delivered_at=NOW + 1)
    assert value_of(Age(Field("ordered_at")), asked) == 2
    assert math.isnan(value_of(Age(Field("delivered_at")), asked))
    assert math.isnan(value_of(Between(Field("ordered_at"), Field("delivered_at")), asked))
    assert value_of(Age(Field("delivered_at")), refund(0, 0, delivered_at=NOW)) == 0


def test_between_may_be_negative() -> None:
    asked = refund(0, 0, ordered_at=NOW - DAY_MS, delivered_at=NOW - 3 * DAY_MS)
    assert value_of(Between(Field("ordered_at"), Field("delivered_at")), asked) == -2


def test_coalesce_takes_the_first_that_is_known() -> None:
    either = Coalesce((Field("registered_at"), last("order", "registered_at", by="customer")))
    order = {"order_id": "o", "customer_id": "c", "amount_minor": 1, "currency": "GBP",
             "known_at": NOW - DAY_MS, "registered_at": 5}  # fmt: skip
    assert value_of(either, refund(0, 0, registered_at=0), order=[order]) == 0
    assert value_of(either, order=[order]) == 5
    assert math.isnan(value_of(either))


def test_known_tells_the_unknown_from_zero() -> None:
    assert value_of(Known(Field("ip_risk")), refund(0, 0, ip_risk=0.0)) == 1
    assert value_of(Known(Field("ip_risk"))) == 0


def test_first_seen_goes_back_beyond_every_window() -> None:
    assert value_of(Age(FirstSeen("customer")), refund(1, 399)) == 399
    assert math.isnan(value_of(FirstSeen("customer")))


# --- the machinery -----------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_holders_can_be_computed_in_parts(events: Events) -> None:
    history, requests = attribute(tables_of(events), Rates.of("GBP", RATES))
    for key, work in WIDE_PLAN.by_key.items():
        whole, in_parts = np.zeros((2, WIDE_PLAN.steps, len(requests)))
        aggregate(work, key, history.streams, requests, whole)
        for part in range(2):
            rows = requests.keys[key] % 2 == part
            some = Requests(
                requests.cutoff[rows],
                {name: codes[rows] for name, codes in requests.keys.items()},
                {name: values[rows] for name, values in requests.fields.items()},
            )
            found = np.zeros((WIDE_PLAN.steps, len(some)))
            aggregate(work, key, history.streams, some, found)
            in_parts[:, rows] = found
        np.testing.assert_array_equal(in_parts, whole)


@given(st.lists(st.integers(-1, 5) | st.integers(2**62, 2**63 - 1)), st.integers(-1, 6))
def test_densify_gives_equal_values_equal_codes(values: list[int], first: int) -> None:
    codes = np.array(values, np.int64)
    count = densify(codes, first)
    code_of: dict[int, int] = {first: 0} if first >= 0 else {}
    for value in values:
        if value >= 0:
            code_of.setdefault(value, len(code_of) + (first < 0))
    assert codes.tolist() == [code_of.get(value, -1) for value in values]
    assert count == max(code_of.values(), default=0) + 1


def test_two_features_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="defined twice: refund_count_by_customer_7d"):
        plan_of(REFUNDS_7D, REFUNDS_365D, REFUNDS_7D)


def test_a_plan_knows_what_it_reads() -> None:
    plan = plan_of(
        Ratio(total("refund_request", "amount", by="customer", days=7), Field("payable_minor")),
        last("order", "registered_at", by="order"),
        last("order", "currency", by="order"),
    )
    assert plan.reads == (("customer", "refund_request"), ("order", "order"))


def _no_requests() -> Requests:
    none = np.array([], np.int64)
    return Requests(none, {"customer": none, "refund": none}, {})


def test_no_requests_have_no_values() -> None:
    values = compute(plan_of(REFUNDS_7D), _no_requests(), History({}))
    assert {name: array.shape for name, array in values.items()} == {REFUNDS_7D.name: (0,)}
