"""Histories: generated events that crowd together where windows, ties and versions are decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from features.attribution import FloatArray, History, attribute, one_request, stream_of_rows
from features.catalog import FEATURES
from features.engine import MAX_EVENTS, Plan, compute
from features.events import COLUMN_OF, ENTITIES, EVENTS, RefundRequest, derive_event_id
from features.feature import (
    MAX_DAYS,
    Expression,
    Feature,
    Field,
    Known,
    count,
    distinct,
    last,
    maximum,
    mean,
    median,
    since_last,
    total,
    where,
)
from features.money import DAY_MS, Rates
from features.tables import Tables, arrow_schema, canonical
from tests.features.oracle import Oracle, Row

START = 1_735_689_600_000
"""2025-01-01 UTC."""

RATES = [
    ("2024-06-01", "USD", 0.75), ("2025-01-08", "USD", 0.8125), ("2025-06-01", "USD", 0.5),
    ("2025-02-01", "EUR", 0.875), ("2024-01-01", "JPY", 0.00625), ("2024-01-01", "KWD", 2.5),
]  # fmt: skip
"""Rates that doubles hold exactly, so that halves to be rounded are halves; CHF has none."""

Events = dict[str, list[dict[str, Any]]]


def _extra(*expressions: Expression) -> tuple[Feature, ...]:
    return tuple(Feature(e, "velocity", "count", "X", "{value}", "tests") for e in expressions)


WIDE_PLAN = Plan.of(
    (
        *FEATURES,
        *_extra(
            *(median("refund_request", "amount", by=by, days=365) for by in ENTITIES),
            median("order", "amount", by="customer", days=30),
            maximum("refund_outcome", "paid", by="device", days=90),
            mean("refund_outcome", "paid", by="order", days=365),
            total("refund_outcome", "paid", by="refund", days=365),
            last("refund_outcome", "outcome_status", by="customer", days=90),
            last("return", "return_status", by="device"),
            last("label", "label", by="customer", days=30),
            distinct("refund_request", "reason", by="customer", days=365),
            distinct("refund_request", "order", by="customer", days=7),
            distinct("dispute", "dispute", by="payment_method", days=90),
            since_last("return", by="customer", where=where("lost", return_status=("LOST",))),
            since_last("label", by="email", days=30),
            since_last("refund_request", by="ip", where=where("simple", claim=(None,))),
            since_last("return", by="device"),
            count("order_update", by="order", days=7),
            count("transaction", by="refund", days=30),
            count("return", by="refund", days=90),
            count("refund_request", by="ip", days=30, where=where("plain", claim=(None,))),
            Field("amount_minor"), Field("asked_minor"), Field("refund_amount_minor"),
            Field("final_sale"), Field("currency"), Field("policy"),
            Known(Field("ip_risk")), Known(last("order", "item_count", by="order")),
        ),
    )
)  # fmt: skip
"""The catalog, and every operation, stream and key that the catalog leaves out."""


# --- generated histories -----------------------------------------------------------------------


def _one_of(*choices: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(choices)


# Offsets between any two of these days are often exactly the days of a window.
times = st.builds(
    lambda day, shift: START + day * DAY_MS + shift,
    _one_of(0, 1, 7, 8, 30, 31, 37, 60, 90, 91, 97, 120, 365, 366, 372, 395),
    _one_of(0, 0, 0, 0, 1, -1, DAY_MS // 2),
)
_maybe_time = _one_of(None, START - 90 * DAY_MS, START, START + 30 * DAY_MS, START + 90 * DAY_MS)
_amounts = _one_of(0, 1, 2, 5, 10, 999, 12_345, 10**12)
_currencies = _one_of("GBP", "GBP", "USD", "EUR", "JPY", "KWD", "CHF")
_flags = _one_of(None, True, False)
_orders, _refunds = _one_of("o1", "o2", "o3"), _one_of("r1", "r2", "r3", "r4")
_customers = _one_of("c1", "c1", "c2")
_methods = _one_of(None, "p1", "p2")
_persons = {
    "customer_id": _customers,
    "device_id": _one_of(None, "d1", "d1", "d2"),
    "payment_method_id": _methods,
    "address_id": _one_of(None, "a1", "a2"),
    "ip": _one_of(None, "192.0.2.1", "192.0.2.2"),
    "email": _one_of(None, "a@example.com", "b@example.com"),
}
_reasons = _one_of(None, "ITEM_NOT_RECEIVED", "EMPTY_BOX", "ITEM_DAMAGED", "NEW_REASON")

_ROWS: Mapping[str, st.SearchStrategy[dict[str, Any]]] = {
    "order": st.fixed_dictionaries({
        "order_id": _orders, **_persons, "amount_minor": _amounts, "currency": _currencies,
        "item_count": _one_of(None, 2), "ordered_at": _maybe_time, "registered_at": _maybe_time,
    }),
    "order_update": st.fixed_dictionaries({
        "order_id": _orders, "status": _one_of("SHIPPED", "DELIVERED"), "delivered_at": _maybe_time,
    }),
    "transaction": st.fixed_dictionaries({
        "transaction_id": _one_of("t1", "t2", "t3"), "kind": _one_of("CAPTURE", "REFUND"),
        "order_id": _one_of(None, "o1", "o2"), "refund_id": _refunds,
        "payment_method_id": _methods, "amount_minor": _amounts, "currency": _currencies,
        "success": _flags,
    }),
    "refund_request": st.fixed_dictionaries({
        "refund_id": _refunds, "order_id": _one_of(None, "o1", "o2", "o3"), **_persons,
        "amount_minor": _amounts, "currency": _currencies,
        "non_refundable_minor": _one_of(None, None, 0, 5), "order_amount_minor":
        _one_of(None, 0, 2_000), "reason": _reasons, "claim": _one_of(None, "FULL"),
        "type": _one_of(None, "GOODWILL", "RETURN"), "policy": _one_of(None, "GOODWILL"),
        "issued_to": _one_of(None, "GIFT_CARD"), "item_count": _one_of(None, 0, 3),
        "ordered_at": _maybe_time, "registered_at": _maybe_time, "delivered_at": _maybe_time,
        "billing_country": _one_of(None, "GB", "FR"), "shipping_country": _one_of(None, "GB"),
        "ip_risk": _one_of(None, 0.0, 0.25), "final_sale": _flags,
        "ignore": _one_of(None, None, False, True),
    }),
    "refund_outcome": st.fixed_dictionaries({
        "refund_id": _refunds, "status": _one_of("COMPLETED", "COMPLETED", "DECLINED"),
        "amount_minor": _one_of(None, 0, 5, 700),
    }),
    "return": st.one_of(
        st.fixed_dictionaries({"refund_id": _refunds, "order_id": _one_of(None, "o1"),
                               "status": _one_of("LABEL_CREATED", "RECEIVED", "LOST")}),
        st.fixed_dictionaries({"order_id": _orders, "status": _one_of("RECEIVED", "REJECTED")}),
    ),
    "dispute": st.builds(
        lambda named, rest: {**named, **rest},
        st.one_of(
            st.fixed_dictionaries({"customer_id": _customers}),
            st.fixed_dictionaries({"order_id": _orders}),
            st.fixed_dictionaries({"payment_method_id": _one_of("p1", "p2")}),
        ),
        st.fixed_dictionaries({
            "dispute_id": _one_of("x1", "x2", "x3"),
            "stage": _one_of(None, "CHARGEBACK", "CHARGEBACK", "ARBITRATION",
                             "EARLY_FRAUD_WARNING", "CHARGEBACK_REVERSED"),
            "outcome": _one_of(None, "WON"),
        }),
    ),
    "label": st.builds(
        lambda named, label: {**named, "label": label},
        st.one_of(
            st.fixed_dictionaries({"refund_id": _refunds}),
            st.fixed_dictionaries({"customer_id": _customers}),
        ),
        _one_of("REFUND_ABUSE", "REFUND_ABUSE", "NOT_REFUND_ABUSE"),
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
def histories(draw: st.DrawFn) -> Events:
    """Events of every type, at least one refund request."""
    return {
        kind: draw(rows_of(kind, 1, 8) if kind == "refund_request" else rows_of(kind, 0, 5))
        for kind in EVENTS
    }


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
    """Features by name (m,) of the requests with these refunds, cutoffs and event ids (m,)."""

    requests: list[tuple[str, int]]
    values: Mapping[str, FloatArray]

    def of(self, number: int) -> dict[str, float]:
        """The features of one request."""
        return {name: float(values[number]) for name, values in self.values.items()}


def in_batch(events: Mapping[str, list[Any]], plan: Plan = WIDE_PLAN) -> Computed:
    """What training computes: every request of a data folder at once."""
    tables = tables_of(events)
    history, requests = attribute(tables, Rates.of("GBP", RATES))
    named = tables["refund_requests"].select(["event_id", "known_at"]).to_pylist()
    return Computed(
        [(row["event_id"], row["known_at"]) for row in named], compute(plan, requests, history)
    )


def in_serving(oracle: Oracle, request: Row, plan: Plan = WIDE_PLAN) -> dict[str, float]:
    """What serving computes: one request from the slices that its keys own."""
    rates = Rates.of("GBP", RATES)
    holder = {key: request.get(column) for key, column in COLUMN_OF.items()}
    slices: dict[str, History] = {}
    for key in plan.by_key:
        streams = {}
        for (by, kind), columns in plan.reads.items():
            if by == key and holder[key] is not None:
                since = request["known_at"] - MAX_DAYS * DAY_MS
                held = [pair for pair in oracle.held(kind, key, request) if pair[0] >= since]
                rows = [(at, found.event, found.refund) for at, found in held[-MAX_EVENTS - 1 :]]
                streams[kind] = stream_of_rows(kind, key, rows, columns, holder, rates)
        slices[key] = History(streams, _first_seen(oracle, key, request))
    event = RefundRequest(**{name: value for name, value in request.items() if value is not None})
    values = compute(plan, one_request(event, rates), slices)
    return {name: float(of_one[0]) for name, of_one in values.items()}


def _first_seen(oracle: Oracle, key: str, request: Row) -> dict[str, Any]:
    if key not in ENTITIES:
        return {}
    seen = oracle.first_seen(key, request)
    return {key: np.array([np.iinfo(np.int64).max if seen != seen else int(seen)])}
