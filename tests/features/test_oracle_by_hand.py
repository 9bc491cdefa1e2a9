"""The oracle, and with it the engine, against answers worked out by hand.

That two programs agree does not show that either is right. Each history here is small enough to
count with a finger; what is expected follows from DESIGN.md, not from running anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from features.feature import (
    Aggregate,
    Both,
    Expression,
    Field,
    count,
    count_same,
    distinct,
    distinct_near,
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
from features.money import DAY_MS
from tests.features.histories import RATES, START, Events, in_batch, plan_of
from tests.features.oracle import MAX_EVENTS, Oracle

NOW = START + 400 * DAY_MS
Row = dict[str, Any]
ValueOf = Callable[..., float]

CHARGED_BACK = where("charged_back", stage=("CHARGEBACK",))
ABUSE = where("abuse", label=("REFUND_ABUSE",))
unknown = pytest.approx(math.nan, nan_ok=True)


def by_oracle(expression: Expression, events: Events, asked: str, max_events: int) -> float:
    oracle = Oracle(events, RATES, max_events=max_events)
    (request,) = (request for request in oracle.requests if request["event_id"] == asked)
    return oracle.value(expression, request)


def by_engine(expression: Expression, events: Events, asked: str, max_events: int) -> float:
    computed = in_batch(events, plan_of(expression), max_events)
    (number,) = (n for n, (event_id, _) in enumerate(computed.requests) if event_id == asked)
    return computed.of(number)[expression.name]


@pytest.fixture(params=[by_oracle, by_engine], ids=["oracle", "engine"])
def value_of(request: pytest.FixtureRequest) -> ValueOf:
    """The value of an expression for a refund that customer c asks for at NOW."""

    def value(
        expression: Expression, *, asking: Mapping[str, Any] | None = None,
        max_events: int = MAX_EVENTS, **events: list[Row],
    ) -> float:  # fmt: skip
        asked = {**refund("asked", 0), **(asking or {})}
        rows = {**events, "refund_request": [asked, *events.get("refund_request", [])]}
        return float(request.param(expression, rows, "asked", max_events))

    return value


def _at(days_ago: float) -> int:
    return NOW - round(days_ago * DAY_MS)


def refund(name: str, days_ago: float, **fields: Any) -> Row:
    return {"refund_id": name, "event_id": name, "customer_id": "c", "known_at": _at(days_ago),
            "amount_minor": 100, "currency": "GBP", **fields}  # fmt: skip


def order(name: str, days_ago: float, **fields: Any) -> Row:
    return {"order_id": name, "event_id": name, "customer_id": "c", "known_at": _at(days_ago),
            "amount_minor": 100, "currency": "GBP", **fields}  # fmt: skip


def dispute(name: str, days_ago: float, stage: str, **fields: Any) -> Row:
    return {"dispute_id": name, "known_at": _at(days_ago), "stage": stage,
            **({"customer_id": "c"} if "order_id" not in fields else {}), **fields}  # fmt: skip


def label(days_ago: float, says: str, **about: str) -> Row:
    return {"known_at": _at(days_ago), "label": says, **about}


# --- the same device -----------------------------------------------------------------------------

ON_THIS_DEVICE = count_same("order", "device", by="customer", days=30)


@pytest.mark.parametrize(
    ("device", "expected"), [("d1", 2), ("d2", 1), ("never seen", 0), (None, unknown)]
)
def test_orders_on_the_device_of_the_request(
    value_of: ValueOf, device: str | None, expected: float
) -> None:
    orders = [
        order("o1", 3, device_id="d1"), order("o2", 2, device_id="d2"),
        order("o3", 1, device_id="d1"), order("o4", 1),
        order("too long ago", 31, device_id="d1"),
        order("another's", 1, device_id="d1", customer_id="b"),
    ]  # fmt: skip
    assert value_of(ON_THIS_DEVICE, asking={"device_id": device}, order=orders) == expected


def test_the_holders_latest_events_are_taken_before_the_device_is_looked_at(
    value_of: ValueOf,
) -> None:
    orders = [order("o1", 3, device_id="d1"), order("o2", 2), order("o3", 1, device_id="d2")]
    asking = {"device_id": "d1"}
    assert value_of(ON_THIS_DEVICE, asking=asking, order=orders, max_events=2) == 0
    assert value_of(ON_THIS_DEVICE, asking=asking, order=orders, max_events=3) == 1


# --- how things stand ----------------------------------------------------------------------------

OPEN = standing("dispute", "dispute", by="customer", days=30, where=CHARGED_BACK)


def test_a_dispute_stands_as_its_latest_event_says(value_of: ValueOf) -> None:
    disputes = [
        dispute("reversed", 9, "CHARGEBACK"), dispute("reversed", 8, "CHARGEBACK_REVERSED"),
        dispute("open", 7, "EARLY_FRAUD_WARNING"), dispute("open", 6, "CHARGEBACK"),
        dispute("open too", 5, "CHARGEBACK"), dispute("warning", 4, "EARLY_FRAUD_WARNING"),
    ]  # fmt: skip
    assert value_of(OPEN, dispute=disputes) == 2
    assert value_of(OPEN) == 0


def test_what_left_the_window_has_no_say(value_of: ValueOf) -> None:
    reopened = [dispute("x", 9, "CHARGEBACK"), dispute("x", 8, "CHARGEBACK_REVERSED"),
                dispute("y", 31, "CHARGEBACK"), dispute("z", 7, "CHARGEBACK")]  # fmt: skip
    assert value_of(OPEN, dispute=reopened) == 1
    # The latest two are x reversed and z open; the latest one is z alone.
    assert value_of(OPEN, dispute=reopened, max_events=2) == 1
    again = dispute("x", 1, "CHARGEBACK", event_id="the same content is another event")
    assert value_of(OPEN, dispute=[*reopened, again]) == 2
    assert value_of(OPEN, dispute=reopened[:2], max_events=1) == 0


def test_of_one_instant_the_one_known_later_is_the_latest_then_the_higher_id(
    value_of: ValueOf,
) -> None:
    # Both became the customer's with the order, a day ago.
    of_order = [dispute("x", 5, "CHARGEBACK_REVERSED", order_id="o", event_id="b"),
                dispute("x", 4, "CHARGEBACK", order_id="o", event_id="a")]  # fmt: skip
    assert value_of(OPEN, order=[order("o", 1)], dispute=of_order) == 1
    at_once = [{**row, "known_at": _at(4)} for row in of_order]
    assert value_of(OPEN, order=[order("o", 1)], dispute=at_once) == 0


def test_a_verdict_taken_back_is_none_and_a_case_is_a_refund_or_a_customer(
    value_of: ValueOf,
) -> None:
    cases = standing("label", "case", by="customer", days=365, where=ABUSE)
    refunds = [refund("c", 20), refund("r", 20)]
    labels = [
        label(9, "REFUND_ABUSE", refund_id="c"), label(9, "REFUND_ABUSE", customer_id="c"),
        label(8, "REFUND_ABUSE", refund_id="r"), label(7, "REFUND_ABUSE", refund_id="r"),
    ]  # fmt: skip
    assert value_of(cases, refund_request=refunds, label=labels) == 3
    taken_back = [*labels, label(6, "NOT_REFUND_ABUSE", refund_id="c")]
    assert value_of(cases, refund_request=refunds, label=taken_back) == 2


def test_a_return_is_a_case_of_its_refund_before_its_order(value_of: ValueOf) -> None:
    cases = distinct("return", "case", by="order", days=365)
    returns: list[Row] = [
        {"refund_id": "o", "order_id": "o", "status": "RECEIVED", "known_at": _at(5)},
        {"refund_id": "o", "order_id": "o", "status": "LOST", "known_at": _at(4)},
        {"order_id": "o", "status": "RECEIVED", "known_at": _at(3)},
    ]
    assert value_of(cases, asking={"order_id": "o"}, **{"return": returns}) == 2


# --- how mixed values are ------------------------------------------------------------------------

MIXED = entropy("refund_request", "reason", by="customer", days=30)


@pytest.mark.parametrize(
    ("reasons", "bits"),
    [
        ([], unknown),
        ([None, None], unknown),
        (["EMPTY_BOX", None, "EMPTY_BOX"], 0),
        (["EMPTY_BOX", "ITEM_DAMAGED"], 1),
        (["EMPTY_BOX", "ITEM_DAMAGED", "OTHER", "LATE_DELIVERY"], 2),
        # A half, a quarter and a quarter: 0.5 * 1 + 2 * 0.25 * 2.
        (["EMPTY_BOX", "EMPTY_BOX", "ITEM_DAMAGED", "OTHER"], 1.5),
        # log2(3) - 2/3.
        (["EMPTY_BOX", "EMPTY_BOX", None, "OTHER"], pytest.approx(0.9182958340544896, rel=1e-12)),
        # Outside the vocabulary all values are one.
        (["NEW", "NEWER"], 0),
    ],
)
def test_entropy_in_bits(value_of: ValueOf, reasons: list[str | None], bits: float) -> None:
    refunds = [refund(f"r{n}", n + 1, reason=reason) for n, reason in enumerate(reasons)]
    assert value_of(MIXED, refund_request=refunds) == bits


# --- near the request's own time -----------------------------------------------------------------

REGISTERED = START + 200 * DAY_MS
WEEK_MS = 7 * DAY_MS
NEAR = distinct_near("order", "customer", near="registered_at", within_days=7, by="device",
                     days=30)  # fmt: skip


def _registered(*after_ms: int | None) -> list[Row]:
    """Orders of as many customers on one device, registered so long after the one who asks."""
    return [
        order(f"o{n}", n + 1, customer_id=f"c{n}", device_id="d",
              registered_at=None if ms is None else REGISTERED + ms)
        for n, ms in enumerate(after_ms)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("after_ms", "expected"),
    [
        ((0, WEEK_MS, -WEEK_MS), 3),
        ((WEEK_MS + 1, -WEEK_MS - 1, None), 0),
        ((WEEK_MS - 1, WEEK_MS + 1), 1),
        ((), 0),
    ],
)
def test_accounts_registered_within_a_week_of_this_one(
    value_of: ValueOf, after_ms: tuple[int | None, ...], expected: int
) -> None:
    asking = {"device_id": "d", "registered_at": REGISTERED}
    assert value_of(NEAR, asking=asking, order=_registered(*after_ms)) == expected


def test_near_counts_customers_once_and_takes_the_latest_events_first(value_of: ValueOf) -> None:
    asking = {"device_id": "d", "registered_at": REGISTERED}
    orders = [{**row, "customer_id": "one"} for row in _registered(0, 1, 2)]
    assert value_of(NEAR, asking=asking, order=orders) == 1
    assert value_of(NEAR, asking=asking, order=_registered(WEEK_MS + 1, 0, 0), max_events=2) == 1


def test_near_an_unknown_time_nothing_is_known(value_of: ValueOf) -> None:
    assert value_of(NEAR, asking={"device_id": "d"}, order=_registered(0)) == unknown
    assert value_of(NEAR, asking={"registered_at": REGISTERED}, order=_registered(0)) == unknown


# --- first and last ------------------------------------------------------------------------------


def test_days_since_the_first_event_that_the_window_holds(value_of: ValueOf) -> None:
    refunds = [refund("r1", 31), refund("r2", 30), refund("r3", 12.5), refund("r4", 2)]

    def since(max_events: int = MAX_EVENTS, **fields: Any) -> float:
        first = since_first("refund_request", by="customer", days=30, **fields)
        return value_of(first, refund_request=refunds, max_events=max_events)

    assert since() == 30
    assert since(max_events=2) == 12.5
    assert since(where=where("empty", reason=("EMPTY_BOX",))) == unknown


def test_an_outcome_known_before_its_refund_counts_from_the_refund_on(value_of: ValueOf) -> None:
    events = {
        "refund_request": [refund("r1", 3)],
        "refund_outcome": [{"refund_id": "r1", "status": "COMPLETED", "known_at": _at(20)}],
    }  # fmt: skip
    for op in (since_first, since_last):
        assert value_of(op("refund_outcome", by="customer", days=30), **events) == 3
    assert value_of(count("refund_outcome", by="customer", days=2), **events) == 0
    # The refund's own history has it from its own instant on.
    own = since_first("refund_outcome", by="refund", days=30)
    assert value_of(own, asking={"refund_id": "r1"}, **events) == 20


# --- the own refund ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        (count("refund_request", by="customer", days=30), 1),
        (count_same("refund_request", "order", by="customer", days=30), 0),
        (distinct("refund_request", "refund", by="customer", days=30), 1),
        (since_first("refund_request", by="customer", days=30), 8),
        (since_last("refund_request", by="customer", days=30), 8),
        (total("refund_request", "amount", by="customer", days=30), 7),
        (last("refund_request", "amount", by="customer", days=30), 7),
    ],
    ids=lambda value: value.op if isinstance(value, Aggregate) else None,
)
def test_a_refund_sent_again_sees_no_version_of_itself_nor_does_it_fill_the_window(
    value_of: ValueOf, aggregate: Aggregate, expected: float
) -> None:
    refunds = [
        refund("older", 9, amount_minor=5),
        refund("other", 8, amount_minor=7),
        refund("first version", 7, refund_id="asked", order_id="o"),
        refund("second version", 6, refund_id="asked", order_id="o"),
    ]
    asking = {"order_id": "o"}
    assert value_of(aggregate, asking=asking, refund_request=refunds, max_events=1) == expected


# --- both ----------------------------------------------------------------------------------------

BOTH = Both("refund_and_chargeback", count("refund_request", by="order", days=365),
            count("dispute", by="order", days=365, where=CHARGED_BACK))  # fmt: skip


def test_both_or_not_both_or_unknown(value_of: ValueOf) -> None:
    refunds = [refund("r1", 5, order_id="o"), refund("r2", 4, order_id="o")]
    disputes = [dispute("x", 3, "CHARGEBACK", order_id="o")]
    asking = {"order_id": "o"}
    assert value_of(BOTH, asking=asking, refund_request=refunds, dispute=disputes) == 1
    assert value_of(BOTH, asking=asking, refund_request=refunds) == 0
    assert value_of(BOTH, asking=asking, dispute=disputes) == 0
    assert value_of(BOTH, refund_request=refunds, dispute=disputes) == unknown


# --- money ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount_minor", "currency", "in_base"),
    [
        (0, "GBP", 0), (0, "CHF", unknown), (0, "USD", 0),
        # USD at 0.5 since June: halves go to the even neighbour.
        (5, "USD", 2), (7, "USD", 4), (4, "USD", 2),
        # 1 yen has no minor unit, a dinar has a thousand: 0.00625 * 100 and 2.5 / 10.
        (1_000, "JPY", 625), (1_000, "KWD", 250),
        # AUD at 16: 2**49 is worth 2**53, where doubles begin to skip whole numbers.
        (2**49 - 1, "AUD", 2**53 - 16), (2**49, "AUD", unknown), (10**15, "GBP", 10**15),
    ],
)  # fmt: skip
def test_an_amount_in_base_currency(
    value_of: ValueOf, amount_minor: int, currency: str, in_base: float
) -> None:
    money = {"amount_minor": amount_minor, "currency": currency}
    assert value_of(Field("refund_amount_minor"), asking=money) == in_base
    for op in (total, last, mean, median, maximum):
        aggregate = op("refund_request", "amount", by="customer", days=7)
        assert value_of(aggregate, refund_request=[refund("r", 1, **money)]) == in_base


def test_more_kept_than_asked_for_pays_nothing(value_of: ValueOf) -> None:
    # A penny more, too: -1 must not be mistaken for "unknown".
    paid = total("refund_outcome", "paid", by="customer", days=7)
    for kept in (99, 100, 101, 500):
        fields = {"non_refundable_minor": kept}
        left = max(0, 100 - kept)
        completed = {"refund_id": "r", "status": "COMPLETED", "known_at": _at(1)}
        assert value_of(Field("payable_minor"), asking=fields) == left
        assert value_of(paid, refund_request=[refund("r", 2, **fields)],
                        refund_outcome=[completed]) == left  # fmt: skip


def test_sums_are_whole_numbers_of_pennies_however_large(value_of: ValueOf) -> None:
    # Added as doubles one after the other, the pennies would be lost.
    refunds = [refund("r0", 6, amount_minor=10**15), refund("r1", 5, amount_minor=10**15)]
    refunds += [refund(f"r{n}", 4, amount_minor=1) for n in range(2, 10)]
    amount = total("refund_request", "amount", by="customer", days=30)
    assert value_of(amount, refund_request=refunds) == 2 * 10**15 + 8
    # 2**53 - 16 twice over, and 33: a sum is only rounded once, at the end.
    large = [refund(f"a{n}", 3, amount_minor=2**49 - 1, currency="AUD") for n in range(2)]
    odd = refund("g", 2, amount_minor=35)
    assert value_of(amount, refund_request=[*large, odd]) == float(2**54 - 32 + 35)


@pytest.mark.parametrize("op", [mean, median])
def test_a_middle_between_two_pennies(value_of: ValueOf, op: Callable[..., Aggregate]) -> None:
    aggregate = op("refund_request", "amount", by="customer", days=30)
    refunds = [refund("r1", 2, amount_minor=3), refund("r2", 1, amount_minor=4)]
    assert value_of(aggregate, refund_request=refunds) == 3.5
