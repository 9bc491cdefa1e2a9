"""The engine equals the oracle, in batch and in serving, on every generated history."""

from __future__ import annotations

import csv
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.engine import Plan
from features.feature import (
    Age,
    Aggregate,
    Between,
    Expression,
    Field,
    Ratio,
    count,
    distinct_near,
    last,
    since_first,
    since_last,
    standing,
    total,
    where,
)
from features.money import DAY_MS
from features.tables import FolderError, read_folder
from tests.features.histories import (
    RATES,
    START,
    WIDE_PLAN,
    Events,
    crowded,
    histories,
    in_batch,
    in_serving,
    of_tables,
    plan_of,
    plans,
)
from tests.features.oracle import MAX_EVENTS, Oracle

whole_histories = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
_DIVIDED = ("mean", "median", "entropy", "since_last", "since_first")


def same(got: float, expected: float) -> bool:
    return got == expected or (math.isnan(got) and math.isnan(expected))


def agrees(expression: Expression, got: float, expected: float) -> bool:
    """Exactly where the result is whole; to the last digits where it was divided."""
    divided = any(
        isinstance(part, (Age, Between, Ratio))
        or (isinstance(part, Aggregate) and part.op in _DIVIDED)
        for part in expression.walk()
    )
    return same(got, expected) or (divided and math.isclose(got, expected, rel_tol=1e-9))


def disagreements(events: Events, plan: Plan, max_events: int = MAX_EVENTS) -> list[str]:
    """Where batch and oracle, or serving and batch, part."""
    oracle = Oracle(events, RATES, max_events=max_events)
    computed = in_batch(events, plan, max_events)
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


@whole_histories
@given(crowded(), st.sampled_from([1, 2, 3, 5]))
def test_engine_equals_oracle_when_one_holder_owns_more_than_a_window_holds(
    events: Events, max_events: int
) -> None:
    assert disagreements(events, WIDE_PLAN, max_events) == []


@settings(whole_histories, max_examples=100)
@given(histories() | crowded(), plans(), st.sampled_from([1, 2, 3, MAX_EVENTS]))
def test_engine_equals_oracle_on_any_definitions(
    events: Events, plan: Plan, max_events: int
) -> None:
    assert disagreements(events, plan, max_events) == []


# --- the bound ---------------------------------------------------------------------------------


def _refund(number: int, known_at: int, **fields: Any) -> dict[str, Any]:
    return {"refund_id": f"r{number:04}", "event_id": f"e{number:04}", "customer_id": "c",
            "known_at": known_at, "amount_minor": number, "currency": "GBP", **fields}  # fmt: skip


BOUND_PLAN = plan_of(
    count("refund_request", by="customer", days=1),
    count("refund_request", by="customer", days=365),
    total("refund_request", "amount", by="customer", days=365),
    last("refund_request", "registered_at", by="customer"),
    since_first("refund_request", by="customer"),
    count("refund_outcome", by="customer", days=365),
    total("refund_outcome", "paid", by="customer", days=365),
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


# --- time zones --------------------------------------------------------------------------------

ZONED_PLAN = plan_of(
    *(count("refund_request", by="customer", days=days) for days in (1, 7)),
    since_last("refund_request", by="customer"),
    since_first("refund_request", by="customer"),
    standing("label", "case", by="customer", days=1,
             where=where("confirmed", label=("REFUND_ABUSE",))),
    distinct_near("refund_request", "refund", near="registered_at", within_days=1, by="customer",
                  days=7),
    Age(Field("registered_at")), Age(Field("delivered_at")),
    Between(Field("ordered_at"), Field("delivered_at")),
)  # fmt: skip
CHANGES = [datetime(2025, 3, 30, 1, tzinfo=UTC), datetime(2025, 10, 26, 1, tzinfo=UTC)]
"""When Europe/London went to summer time, and when it went back."""


def _write(folder: Path, tables: Events) -> Path:
    folder.mkdir()
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return folder


def _around(change: datetime, written: Any) -> Events:
    """A refund asked for every hour from a week before the change of clocks to a day after."""

    def at(hours: float) -> Any:
        return written(change + timedelta(hours=hours))

    hours = [-168, -167, -26, -25, -24, -23, -2, -1, -0.5, 0, 0.5, 1, 2, 22, 23, 24, 25]
    return {
        "refund_requests": [
            {"refund_id": f"r{n}", "customer_id": "c", "known_at": at(hour), "amount_minor": n,
             "currency": "GBP", "registered_at": at(hour - 24 * (n % 3)),
             "ordered_at": at(hour - 30), "delivered_at": at(hour - 6)}
            for n, hour in enumerate(hours)
        ],
        "labels": [
            {"refund_id": f"r{n}", "known_at": at(hour + 0.25), "label": label}
            for n, hour in enumerate(hours)
            for label in ("REFUND_ABUSE", "NOT_REFUND_ABUSE")[n % 2 :]
        ],
    }  # fmt: skip


def _epoch_ms(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000


@pytest.mark.parametrize("change", CHANGES, ids=["spring", "autumn"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/London", "America/New_York", "Asia/Kolkata"])
def test_an_instant_is_the_same_in_whatever_zone_it_is_written(
    tmp_path: Path, change: datetime, zone: str
) -> None:
    def local(instant: datetime) -> str:
        return instant.astimezone(ZoneInfo(zone)).isoformat()

    in_zone = read_folder(_write(tmp_path / "zone", _around(change, local)))
    in_epoch = read_folder(_write(tmp_path / "epoch", _around(change, _epoch_ms)))
    got, expected = of_tables(in_zone.tables, ZONED_PLAN), of_tables(in_epoch.tables, ZONED_PLAN)
    assert got.requests == expected.requests
    for name, values in expected.values.items():
        assert got.values[name].tolist() == pytest.approx(values.tolist(), rel=0, nan_ok=True), name


@pytest.mark.parametrize(
    ("earlier", "asked", "within_a_day"),
    [
        # Clocks went forward at 01:00: 24 hours before noon it was 11 o'clock.
        ("2025-03-29T12:00:00+00:00", "2025-03-30T12:00:00+01:00", True),
        ("2025-03-29T11:00:00+00:00", "2025-03-30T12:00:00+01:00", True),
        ("2025-03-29T10:59:59.999+00:00", "2025-03-30T12:00:00+01:00", False),
        # Clocks went back at 02:00: 24 hours before noon it was 1 o'clock in the afternoon.
        ("2025-10-25T12:00:00+01:00", "2025-10-26T12:00:00+00:00", False),
        ("2025-10-25T12:59:59.999+01:00", "2025-10-26T12:00:00+00:00", False),
        ("2025-10-25T13:00:00+01:00", "2025-10-26T12:00:00+00:00", True),
        # Half past one came twice that night; only its offset tells which.
        ("2025-10-26T01:30:00+01:00", "2025-10-26T01:30:00+00:00", True),
        ("2025-10-26T01:30:00+00:00", "2025-10-26T01:30:00+01:00", False),
    ],
)
def test_a_day_is_24_hours_also_when_clocks_change(
    tmp_path: Path, earlier: str, asked: str, within_a_day: bool
) -> None:
    rows = [{"refund_id": refund, "customer_id": "c", "known_at": at, "amount_minor": 1,
             "currency": "GBP", "event_id": refund}
            for refund, at in (("earlier", earlier), ("asked", asked))]  # fmt: skip
    folder = read_folder(_write(tmp_path / "data", {"refund_requests": rows}))
    computed = of_tables(folder.tables, ZONED_PLAN)
    (number,) = (n for n, (event_id, _) in enumerate(computed.requests) if event_id == "asked")
    assert computed.of(number)["refund_count_by_customer_1d"] == within_a_day


def test_a_local_time_without_an_offset_is_refused(tmp_path: Path) -> None:
    tables = _around(CHANGES[1], lambda instant: instant.astimezone(ZoneInfo("Europe/London"))
                     .replace(tzinfo=None).isoformat())  # fmt: skip
    with pytest.raises(FolderError) as error:
        read_folder(_write(tmp_path / "data", tables))
    problems = error.value.problems
    assert {problem.column for problem in problems} == {
        "known_at", "registered_at", "ordered_at", "delivered_at",
    }  # fmt: skip
    assert all("ISO 8601 with offset" in problem.expected for problem in problems)
