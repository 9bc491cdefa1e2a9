"""The engine equals the oracle, in batch and in serving, on every generated history."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from features.engine import MAX_EVENTS, Plan
from features.feature import Age, Aggregate, Between, Expression, Feature, Ratio, count, last, total
from features.money import DAY_MS
from tests.features.histories import (
    RATES,
    START,
    WIDE_PLAN,
    Events,
    histories,
    in_batch,
    in_serving,
)
from tests.features.oracle import Oracle

whole_histories = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def same(got: float, expected: float) -> bool:
    return got == expected or (math.isnan(got) and math.isnan(expected))


def agrees(expression: Expression, got: float, expected: float) -> bool:
    """Exactly where the result is whole; to the last digits where it was divided."""
    divided = isinstance(expression, (Age, Between, Ratio)) or (
        isinstance(expression, Aggregate) and expression.op in ("mean", "median", "since_last")
    )
    return same(got, expected) or (divided and math.isclose(got, expected, rel_tol=1e-9))


def disagreements(events: Events, plan: Plan) -> list[str]:
    """Where batch and oracle, or serving and batch, part."""
    oracle, computed = Oracle(events, RATES), in_batch(events, plan)
    found = []
    for number, request in enumerate(oracle.requests):
        batch, serving = computed.of(number), in_serving(oracle, request, plan)
        for feature in plan.features:
            name, expected = feature.name, oracle.value(feature.expression, request)
            if not agrees(feature.expression, batch[name], expected):
                found.append(f"{request['event_id']}: {name} is {expected}, batch {batch[name]}")
            if not same(serving[name], batch[name]):
                found.append(
                    f"{request['event_id']}: {name} is {batch[name]} in batch, "
                    f"{serving[name]} in serving"
                )
    return found


@whole_histories
@given(histories())
def test_engine_equals_oracle_in_batch_and_in_serving(events: Events) -> None:
    assert disagreements(events, WIDE_PLAN) == []


def _one_owner(events: Events) -> Events:
    owner = {"customer_id": "c1", "device_id": "d1", "payment_method_id": "p1", "address_id": "a1",
             "ip": "192.0.2.1", "email": "a@example.com"}  # fmt: skip
    for kind in ("order", "refund_request"):
        for number, row in enumerate(events[kind]):
            row |= {**owner, "event_id": f"{kind}{number}"}
    return events


@settings(whole_histories, max_examples=50)
@given(histories())
def test_engine_equals_oracle_when_one_holder_owns_everything(events: Events) -> None:
    assert disagreements(_one_owner(events), WIDE_PLAN) == []


# --- the bound ---------------------------------------------------------------------------------


def _refund(number: int, known_at: int, **fields: Any) -> dict[str, Any]:
    return {"refund_id": f"r{number:04}", "event_id": f"e{number:04}", "customer_id": "c",
            "known_at": known_at, "amount_minor": number, "currency": "GBP", **fields}  # fmt: skip


BOUND_PLAN = Plan.of(
    Feature(e, "velocity", "count", "X", "{value}", "tests")
    for e in (
        count("refund_request", by="customer", days=1),
        count("refund_request", by="customer", days=365),
        total("refund_request", "amount", by="customer", days=365),
        last("refund_request", "registered_at", by="customer"),
        count("refund_outcome", by="customer", days=365),
        total("refund_outcome", "paid", by="customer", days=365),
    )
)
NOW = START + 100 * DAY_MS


def _values(events: Events, cutoff: int) -> dict[str, float]:
    computed = in_batch(events, BOUND_PLAN)
    (number,) = [n for n, (_, known_at) in enumerate(computed.requests) if known_at == cutoff]
    return computed.of(number)


@pytest.mark.parametrize("own_among_them", [False, True])
def test_a_window_holds_the_latest_thousand_and_ties_at_its_edge_go_by_event_id(
    own_among_them: bool,
) -> None:
    # Five at the edge share an instant; the three of the highest event ids fit.
    earlier = [_refund(n, NOW - 50 * DAY_MS) for n in range(5)]
    later = [_refund(n, NOW - 40 * DAY_MS + n) for n in range(5, 5 + MAX_EVENTS - 3)]
    oldest = _refund(9_000, NOW - 60 * DAY_MS, registered_at=START)
    own = _refund(9_001, NOW - 39 * DAY_MS) if own_among_them else None
    asked = _refund(9_001, NOW, event_id="asked")
    events = {"refund_request": [asked, *later, *earlier, oldest, *([own] if own else [])]}

    values = _values(events, NOW)
    assert values["refund_count_by_customer_365d"] == MAX_EVENTS
    assert values["refund_amount_sum_by_customer_365d"] == sum(range(2, 5 + MAX_EVENTS - 3))
    assert math.isnan(values["refund_registered_at_last_by_customer_365d"])
    oracle = Oracle(events, RATES)
    request = oracle.requests[-1]
    expected = {f.name: oracle.value(f.expression, request) for f in BOUND_PLAN.features}
    assert values == pytest.approx(expected, nan_ok=True, rel=0)
    assert in_serving(oracle, request, BOUND_PLAN) == pytest.approx(values, nan_ok=True, rel=0)


def test_the_bound_is_on_each_event_type_and_goes_by_the_effective_time() -> None:
    # 1,005 outcomes known before their refunds: all become the customer's at the same instant, and
    # those known first are left out, whatever their ids.
    refunds = [_refund(n, NOW - 10) for n in range(1_005)]
    outcomes = [
        {"refund_id": f"r{n:04}", "event_id": f"x{9_999 - n}", "status": "COMPLETED",
         "known_at": NOW - 2_000 + n}
        for n in range(1_005)
    ]  # fmt: skip
    events = {"refund_request": [*refunds, _refund(5_000, NOW)], "refund_outcome": outcomes}
    values = _values(events, NOW)
    assert values["refund_outcome_count_by_customer_365d"] == MAX_EVENTS
    assert values["refund_outcome_paid_sum_by_customer_365d"] == sum(range(5, 1_005))
    oracle = Oracle(events, RATES)
    expected = {f.name: oracle.value(f.expression, oracle.requests[-1])
                for f in BOUND_PLAN.features}  # fmt: skip
    assert values == pytest.approx(expected, nan_ok=True, rel=0)
    assert in_serving(oracle, oracle.requests[-1], BOUND_PLAN) == pytest.approx(
        values, nan_ok=True, rel=0
    )


def test_disputes_are_told_apart_in_batch_and_in_serving() -> None:
    disputes = [
        {"dispute_id": dispute, "order_id": "o1", "stage": stage, "known_at": NOW - before}
        for dispute, stage, before in (
            ("x1", "CHARGEBACK", 9), ("x1", "ARBITRATION", 8), ("x2", "CHARGEBACK", 7),
            ("x3", "CHARGEBACK", 6), ("x3", "CHARGEBACK_REVERSED", 5),
        )
    ]  # fmt: skip
    events = {"refund_request": [_refund(1, NOW, order_id="o1")], "dispute": disputes}
    name = "open_chargeback_count_by_order_365d"
    oracle = Oracle(events, RATES)
    assert in_batch(events).of(0)[name] == 2
    assert in_serving(oracle, oracle.requests[0])[name] == 2
