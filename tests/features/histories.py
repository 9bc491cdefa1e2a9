"""Histories: generated events that crowd together where windows, ties and versions are decided.

And what to compute over them: a wide plan that leaves out no operation, and generated definitions.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa
from hypothesis import strategies as st

from features.attribution import (
    CODES,
    REQUEST_FIELDS,
    STREAM_COLUMNS,
    STREAM_KEYS,
    attribute,
)
from features.catalog import BY_NAME, FEATURES
from features.engine import Past, Plan, compute, compute_one
from features.events import COLUMN_OF, ENTITIES, EVENTS, KEYS, RefundRequest, derive_event_id
from features.feature import (
    MAX_DAYS,
    Aggregate,
    Both,
    Difference,
    Expression,
    Feature,
    Field,
    Known,
    Near,
    Op,
    Ratio,
    Where,
    count,
    count_same,
    distinct_near,
    either,
    entropy,
    last,
    median,
    since_last,
    standing,
    total,
    where,
)
from features.kernels import FloatArray
from features.money import DAY_MS, Rates
from features.packed import pack
from features.tables import Tables, arrow_schema, canonical
from tests.features.oracle import MAX_EVENTS, Oracle, Row

START = 1_735_689_600_000
"""2025-01-01 UTC."""

RATES = [
    ("2024-06-01", "USD", 0.75), ("2025-01-08", "USD", 0.8125), ("2025-06-01", "USD", 0.5),
    ("2025-02-01", "EUR", 0.875), ("2024-01-01", "JPY", 0.00625), ("2024-01-01", "KWD", 2.5),
    ("2024-01-01", "AUD", 16.0),
]  # fmt: skip
"""Rates that doubles hold exactly, so that halves to be rounded are halves.

CHF has none, ZZZ is no currency. 2**49 minor units of AUD are worth 2**53: from there on amounts
are unknown.
"""

Events = dict[str, list[dict[str, Any]]]

_GIVEN: Mapping[str, tuple[str | None, ...]] = {
    "currency": (*["GBP"] * 4, *["USD"] * 2, "EUR", "JPY", "KWD", "AUD", "CHF", "ZZZ"),
    "success": (None, "true", "false"),
    "reason": (None, "ITEM_NOT_RECEIVED", "EMPTY_BOX", "ITEM_DAMAGED", "NEW_REASON"),
    "claim": (None, "FULL", "PARTIAL"),
    "type": (None, "GOODWILL", "RETURN"),
    "policy": (None, "GOODWILL", "STATUTORY"),
    "initiated_by": (None, "AGENT", "CUSTOMER"),
    "decline_reason": (None, "POLICY", "RISK"),
    "order_status": ("SHIPPED", "DELIVERED"),
    "kind": ("CAPTURE", "REFUND"),
    "outcome_status": ("COMPLETED", "COMPLETED", "DECLINED"),
    "return_status": ("LABEL_CREATED", "IN_TRANSIT", "RECEIVED", "LOST", "REJECTED"),
    "stage": (None, "CHARGEBACK", "CHARGEBACK", "ARBITRATION", "EARLY_FRAUD_WARNING",
              "CHARGEBACK_REVERSED"),
    "outcome": (None, "WON", "LOST", "LOST"),
    "label": ("REFUND_ABUSE", "REFUND_ABUSE", "NOT_REFUND_ABUSE"),
    "source": (None, "ANALYST", "CHARGEBACK"),
}  # fmt: skip
"""What generated events say in coded columns: few values, so that they meet; None: not given."""


# --- plans -------------------------------------------------------------------------------------


def plan_of(*expressions: Expression) -> Plan:
    """A plan of bare expressions, for tests that look at numbers alone."""
    return Plan.of(_features(expressions))


def _features(expressions: Iterable[Expression]) -> Iterator[Feature]:
    return (Feature(e, "velocity", "count", "X", "{value}", "tests") for e in expressions)


def _some(stream: str) -> Where:
    """A condition on the stream's first coded column."""
    column = next(c for c in STREAM_COLUMNS[stream] if c in CODES)
    return where(f"some_{stream}", **{column: _GIVEN[column][:2]})


def _accepted(op: Op, stream: str, column: str | None, by: str) -> bool:
    try:
        Aggregate(op, stream, column, by, 365, near=_near(op, stream))
    except ValueError:
        return False
    return True


def _near(op: Op, stream: str) -> Near | None:
    """The stream's first time that a request has too."""
    if op != "distinct_near":
        return None
    times = (c for c in STREAM_COLUMNS[stream] if c.endswith("_at") and c in REQUEST_FIELDS)
    return next((Near(column, 30) for column in times), None)


@functools.cache
def operations() -> tuple[tuple[Op, str, str | None, tuple[str, ...]], ...]:
    """Every operation, stream and column that may be paired, with the keys they may be kept by."""
    pairs = [
        (op, stream, column)
        for op in get_args(Op)
        for stream in STREAM_KEYS
        for column in ((None,) if op in ("count", "since_last", "since_first")
                       else (*STREAM_COLUMNS[stream], *KEYS))
        if op != "distinct_near" or _near(op, stream)
    ]  # fmt: skip
    kept_by = (
        tuple(key for key in STREAM_KEYS[stream] if key != column and
              _accepted(op, stream, column, key))
        for op, stream, column in pairs
    )  # fmt: skip
    return tuple((*pair, keys) for pair, keys in zip(pairs, kept_by, strict=True) if keys)


def _each_operation_once() -> Iterator[Aggregate]:
    """Every operation on every column of every stream; keys, windows, conditions in turn."""
    for turn, (op, stream, column, keys) in enumerate(operations()):
        chosen = _some(stream) if op == "standing" or turn % 3 == 0 else None
        days = (365, 90, 30, 7)[turn % 4]
        yield Aggregate(op, stream, column, keys[turn % len(keys)], days, chosen, _near(op, stream))


_CLAIMED = either("claimed", where("reason", reason=("ITEM_NOT_RECEIVED", None)),
                  where("typed", type=("GOODWILL",), policy=(None,)))  # fmt: skip
_LOST = where("lost", return_status=("LOST",))
_BY_HAND = (
    # The same events under several windows, conditions and operations.
    *(count("return", by="customer", days=days, where=_LOST) for days in (1, 7, 90, 365)),
    *(standing("return", "case", by="customer", days=days, where=_LOST) for days in (3, 60)),
    *(median("refund_request", "amount", by=by, days=365) for by in ENTITIES),
    *(entropy("refund_request", "reason", by="address", days=days) for days in (30, 365)),
    *(count_same("refund_request", "device", by="customer", days=365, where=chosen)
      for chosen in (None, _CLAIMED)),
    *(distinct_near("order", "customer", near="registered_at", within_days=days, by=by, days=365)
      for days in (30, 60) for by in ("device", "email", "customer")),
    total("refund_request", "amount", by="ip", days=60, where=_CLAIMED),
    since_last("refund_request", by="ip", where=where("simple", claim=(None,))),
    Both("lost_and_claimed", count("return", by="device", days=90, where=_LOST),
         count("refund_request", by="device", days=90, where=_CLAIMED)),
    Ratio(total("transaction", "minor", by="order", days=30),
          total("transaction", "minor", by="order", days=365)),
    *map(Field, REQUEST_FIELDS),
    Known(Field("ip_risk")), Known(last("order", "item_count", by="order")),
)  # fmt: skip


def _by_first_name(expressions: Iterable[Expression]) -> Iterable[Expression]:
    return {expression.name: expression for expression in reversed([*expressions])}.values()


WIDE_PLAN = Plan.of(
    (
        *FEATURES,
        *(
            feature
            for feature in _features(_by_first_name((*_BY_HAND, *_each_operation_once())))
            if feature.name not in BY_NAME
        ),
    )
)
"""The catalog, and every operation on every column of every stream."""


# --- generated events --------------------------------------------------------------------------


def _one_of(*choices: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(choices)


def _given(column: str) -> st.SearchStrategy[Any]:
    return _one_of(*_GIVEN[column])


# Offsets between any two of these days are often exactly the days of a window.
times = st.builds(
    lambda day, shift: START + day * DAY_MS + shift,
    _one_of(0, 1, 7, 8, 30, 31, 37, 60, 90, 91, 97, 120, 365, 366, 372, 395),
    _one_of(0, 0, 0, 0, 1, -1, DAY_MS // 2),
)
# Thirty and sixty days apart to the millisecond, and a millisecond more.
_maybe_time = _one_of(None, *(START + day * DAY_MS for day in (-90, 0, 30, 90)),
                      START + 30 * DAY_MS + 1, START - 30 * DAY_MS - 1)  # fmt: skip
_amounts = _one_of(0, 1, 2, 4, 5, 10, 999, 12_345, 10**12, 2**49, 2**49 + 1, 10**15)
_flags = _one_of(None, True, False)
# A refund, an order and a customer may bear the same id and are not the same.
_orders, _refunds = _one_of("o1", "o2", "same"), _one_of("r1", "r2", "same")
_customers = _one_of("c1", "same")
_methods = _one_of(None, "p1", "p2")
_persons = {
    "customer_id": _customers,
    "device_id": _one_of(None, "d1", "d1", "d2"),
    "payment_method_id": _methods,
    "address_id": _one_of(None, "a1", "a2"),
    "ip": _one_of(None, "192.0.2.1", "192.0.2.2"),
    "email": _one_of(None, "a@example.com", "b@example.com"),
}
_OWNER = {"customer_id": "c1", "device_id": "d1", "payment_method_id": "p1", "address_id": "a1",
          "ip": "192.0.2.1", "email": "a@example.com"}  # fmt: skip

_ROWS: Mapping[str, st.SearchStrategy[dict[str, Any]]] = {
    "order": st.fixed_dictionaries({
        "order_id": _orders, **_persons, "amount_minor": _amounts, "currency": _given("currency"),
        "item_count": _one_of(None, 2), "ordered_at": _maybe_time, "registered_at": _maybe_time,
    }),
    "order_update": st.fixed_dictionaries({
        "order_id": _orders, "status": _given("order_status"), "delivered_at": _maybe_time,
    }),
    "transaction": st.fixed_dictionaries({
        "transaction_id": _one_of("t1", "t2", "t3"), "kind": _given("kind"),
        "order_id": _one_of(None, "o1", "o2"), "refund_id": _refunds,
        "payment_method_id": _methods, "amount_minor": _amounts, "currency": _given("currency"),
        "success": _flags,
    }),
    "refund_request": st.fixed_dictionaries({
        "refund_id": _refunds, "order_id": _one_of(None, "o1", "o2", "same"), **_persons,
        "amount_minor": _amounts, "currency": _given("currency"),
        "non_refundable_minor": _one_of(None, None, 0, 5), "order_amount_minor":
        _one_of(None, 0, 2_000), "reason": _given("reason"), "claim": _given("claim"),
        "type": _given("type"), "policy": _given("policy"), "initiated_by": _given("initiated_by"),
        "issued_to": _one_of(None, "GIFT_CARD", "NEW_WAY"), "item_count": _one_of(None, 0, 3),
        "ordered_at": _maybe_time, "registered_at": _maybe_time, "delivered_at": _maybe_time,
        "billing_country": _one_of(None, "GB", "FR"), "shipping_country": _one_of(None, "GB"),
        "ip_risk": _one_of(None, 0.0, 0.25), "final_sale": _flags,
        "ignore": _one_of(None, None, False, True),
    }),
    "refund_outcome": st.fixed_dictionaries({
        "refund_id": _refunds, "status": _given("outcome_status"),
        "amount_minor": _one_of(None, 0, 5, 700), "decline_reason": _given("decline_reason"),
    }),
    "return": st.one_of(
        st.fixed_dictionaries({"refund_id": _refunds, "order_id": _one_of(None, "o1"),
                               "status": _given("return_status")}),
        st.fixed_dictionaries({"order_id": _orders, "status": _given("return_status")}),
    ),
    "dispute": st.builds(
        lambda named, rest: {**named, **rest},
        st.one_of(
            st.fixed_dictionaries({"customer_id": _customers}),
            st.fixed_dictionaries({"order_id": _orders}),
            st.fixed_dictionaries({"payment_method_id": _one_of("p1", "p2")}),
        ),
        st.fixed_dictionaries({
            "dispute_id": _one_of("x1", "x2", "x3"), "stage": _given("stage"),
            "outcome": _given("outcome"),
        }),
    ),
    "label": st.builds(
        lambda named, rest: {**named, **rest},
        st.one_of(
            st.fixed_dictionaries({"refund_id": _refunds}),
            st.fixed_dictionaries({"customer_id": _customers}),
        ),
        st.fixed_dictionaries({"label": _given("label"), "source": _given("source")}),
    ),
}  # fmt: skip


@st.composite
def rows_of(draw: st.DrawFn, kind: str, least: int, most: int) -> list[dict[str, Any]]:
    """Rows of one event type: with and without ids, delivered again earlier or later."""
    drawn = draw(
        st.lists(
            st.tuples(_ROWS[kind], times, _one_of("", "a", "b"), st.none() | times),
            min_size=least, max_size=most,
        )
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    contents: dict[str, Any] = {}
    for number, (content, known_at, prefix, again) in enumerate(drawn):
        derived = derive_event_id(kind, {**content, "known_at": known_at},
                                  repeats=EVENTS[kind].repeats)  # fmt: skip
        # Rows that differ in a person alone share a derived id: two contents need ids of their own.
        is_alone = contents.setdefault(derived, content) == content
        event_id = None if is_alone and not prefix else f"{prefix}{number}"
        rows.append({**content, "event_id": event_id, "known_at": known_at})
        if again is not None:
            rows.append({**rows[-1], "known_at": again})
    return rows


@st.composite
def histories(draw: st.DrawFn, least: int = 0) -> Events:
    """Events of every type, at least so many of each and one refund request."""
    return {
        kind: draw(rows_of(kind, max(1, least), 8) if kind == "refund_request"
                   else rows_of(kind, least, 5))
        for kind in EVENTS
    }  # fmt: skip


@st.composite
def crowded(draw: st.DrawFn) -> Events:
    """Events that one holder of each entity, and often one order, owns all of."""
    events = draw(histories(least=3))
    for kind, rows in events.items():
        for number, row in enumerate(rows):
            row |= {column: owner for column, owner in _OWNER.items() if column in row}
            # Rows that now differ in nothing must not become one event.
            row["event_id"] = row["event_id"] or f"{kind}{number}"
    return events


# --- generated definitions ---------------------------------------------------------------------


@functools.cache
def _wheres(stream: str) -> st.SearchStrategy[Where]:
    """Conditions on one or two coded columns, one or two of them to choose from."""
    values = {
        column: st.lists(_one_of(*(v for v in _GIVEN[column] if v in (None, *CODES[column]))),
                         min_size=1, max_size=3).map(tuple)
        for column in STREAM_COLUMNS[stream] if column in CODES
    }  # fmt: skip
    columns = [(c,) for c in values] + [*itertools.combinations(values, 2)]
    conditions = st.one_of(*(
        st.fixed_dictionaries({c: values[c] for c in both}).map(lambda given: where("x", **given))
        for both in columns
    ))  # fmt: skip
    groups = st.lists(conditions, min_size=1, max_size=2)
    return st.builds(lambda noun, of: either(noun, *of), _one_of("some", "few"), groups)


@functools.cache
def _aggregates(stream: str) -> st.SearchStrategy[Aggregate]:
    """Anything over a stream that the vocabulary of definitions allows."""
    days, within = _one_of(1, 7, 30, 60, 90, 365), _one_of(1, 30, 60, 120)
    return st.one_of(*(
        st.builds(
            Aggregate, st.just(op), st.just(stream), st.just(column), _one_of(*keys), days,
            _wheres(stream) if op == "standing" else st.none() | _wheres(stream),
            st.builds(Near, st.just(near.column), within) if (near := _near(op, stream))
            else st.none(),
        )
        for op, of, column, keys in operations() if of == stream
    ))  # fmt: skip


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A few definitions over one or two streams, and what can be made of two of them."""
    one, other = draw(_one_of(*STREAM_KEYS)), draw(_one_of(*STREAM_KEYS))
    drawn = draw(st.lists(_aggregates(one) | _aggregates(other), min_size=1, max_size=6))
    left, right = drawn[0], drawn[-1]
    made = (Ratio(left, right), Difference("left", left, right), Both("both", left, right),
            Known(left))  # fmt: skip
    return plan_of(*_by_first_name((*drawn, *made)))


def tables_of(events: Mapping[str, list[Any]]) -> Tables:
    """The canonical tables of the events; a type without events has no table."""
    return {
        EVENTS[kind].table: canonical(
            EVENTS[kind], pa.Table.from_pylist(rows, schema=arrow_schema(EVENTS[kind].table))
        )
        for kind, rows in events.items()
        if rows
    }


# --- both ways to the numbers ------------------------------------------------------------------


@dataclass(frozen=True)
class Computed:
    """Features by name (m,) of the requests with these event ids and cutoffs (m,)."""

    requests: list[tuple[str, int]]
    values: Mapping[str, FloatArray]

    def of(self, number: int) -> dict[str, float]:
        """The features of one request."""
        return {name: float(values[number]) for name, values in self.values.items()}


def in_batch(
    events: Mapping[str, list[Any]], plan: Plan = WIDE_PLAN, max_events: int = MAX_EVENTS
) -> Computed:
    """What training computes: every request of a data folder at once."""
    return of_tables(tables_of(events), plan, max_events)


def of_tables(tables: Tables, plan: Plan, max_events: int = MAX_EVENTS) -> Computed:
    """What training computes from canonical tables."""
    history, requests = attribute(tables, Rates.of("GBP", RATES))
    named = tables["refund_requests"].select(["event_id", "known_at"]).to_pylist()
    return Computed(
        [(row["event_id"], row["known_at"]) for row in named],
        compute(plan, requests, history, max_events=max_events),
    )


def in_serving(oracle: Oracle, request: Row, plan: Plan = WIDE_PLAN) -> dict[str, float]:
    """What serving computes: one request from the slices that its keys own, under that bound."""
    holder = {key: request[column] for key, column in COLUMN_OF.items() if request.get(column)}
    rows = {}
    for key in holder:
        for kind in (kind for kind, keys in STREAM_KEYS.items() if key in keys):
            since = request["known_at"] - MAX_DAYS * DAY_MS
            held = [pair for pair in oracle.held(kind, key, request) if pair[0] >= since]
            # One more than the bound: the request's own refund may be among them.
            rows[key, kind] = b"".join(
                pack(kind, found.event, at, found.refund)
                for at, found in held[-oracle.max_events - 1 :]
            )
    first_seen = {}
    for entity in ENTITIES:
        at = oracle.first_seen(entity, request)
        first_seen[str(entity)] = None if at != at else int(at)
    event = RefundRequest(**{name: value for name, value in request.items() if value is not None})
    slices = Past(rows, holder, first_seen)
    return compute_one(plan, event, slices, Rates.of("GBP", RATES), max_events=oracle.max_events)
