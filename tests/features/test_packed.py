"""What `pack` says of an event is what its stream says of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from features import attribution
from features.attribution import (
    CODES,
    IDENTITIES,
    STREAM_COLUMNS,
    STREAM_KEYS,
    IntArray,
    attribute,
    in_base,
)
from features.events import COLUMN_OF, EVENTS
from features.money import Rates
from features.packed import LAYOUT, UNKNOWN, id63, pack
from tests.features.histories import RATES, Events, histories, tables_of

Row = dict[str, Any]

NAMING = {"order": "order_id", "refund_request": "refund_id"}


def first_versions(rows: list[Row], column: str) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(row[column], row)
    return found


def unpacked(kind: str, rows: list[Row], refunds: dict[str, Row]) -> dict[str, IntArray]:
    """The rows packed and read again: columns (n,) as streams have them."""
    data = b"".join(
        pack(kind, row, row["known_at"] + 1, refunds.get(row.get("refund_id") or ""))
        for row in rows
    )
    fields = np.frombuffer(data, LAYOUT[kind])
    columns = {name: fields[name].astype(np.int64) for name in LAYOUT[kind].names or ()}
    return {n: np.where(v == UNKNOWN, attribution.UNKNOWN, v) for n, v in columns.items()}


def same_things(left: IntArray, right: IntArray) -> bool:
    """Whether two arrays tell things apart in the same way, nothing from something too."""
    nothing = attribution.UNKNOWN
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    return (
        len({a for a, _ in pairs}) == len(pairs) == len({b for _, b in pairs})
        and all((a == nothing) == (b in (nothing, -1)) for a, b in pairs)
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(events=histories())
def test_packed_events_say_what_their_streams_say(events: Events) -> None:
    tables = tables_of(events)
    rates = Rates.of("GBP", RATES)
    history, _ = attribute(tables, rates)
    refunds = first_versions(tables["refund_requests"].to_pylist(), "refund_id")
    for kind, stream in history.streams.items():
        rows = tables[EVENTS[kind].table].to_pylist() if EVENTS[kind].table in tables else []
        if kind in NAMING:
            rows = list(first_versions(rows, NAMING[kind]).values())
            rows = [row for row in rows if not row.get("ignore")]
        assert len(stream) == len(rows)
        if not rows:
            continue
        found = unpacked(kind, rows, refunds)
        assert found["known_at"].tolist() == [row["known_at"] for row in rows]
        assert found["at"].tolist() == [row["known_at"] + 1 for row in rows]
        for column, (_, how) in STREAM_COLUMNS[kind].items():
            values = found[column]
            if how in ("base", "paid"):
                values = in_base(values, found["currency"], found["known_at"], rates)
            if column in IDENTITIES:
                assert same_things(values, stream.columns[column]), (kind, column)
            else:
                assert values.tolist() == stream.columns[column].tolist(), (kind, column)
        for key in STREAM_KEYS[kind] if kind in NAMING else ():
            given_ids = [row[COLUMN_OF[key]] for row in rows]
            assert found[key].tolist() == [
                attribution.UNKNOWN if value is None else id63(value) for value in given_ids
            ]


def test_a_case_of_one_kind_is_never_that_of_another() -> None:
    named: list[Row] = [{"refund_id": "x"}, {"order_id": "x"}, {"customer_id": "x"}]
    both = {"refund_id": "x", "order_id": "x"}
    cases = [
        int(np.frombuffer(pack("label", {"known_at": 1, **row}, 1), LAYOUT["label"])["case"][0])
        for row in [*named, both]
    ]
    assert len(set(cases)) == 3
    assert cases[3] == cases[0]
    assert min(cases) >= 0


@pytest.mark.parametrize(
    ("said", "refund", "paid"),
    [
        (300, {"amount_minor": 900, "currency": "GBP"}, (300, "GBP")),
        (None, {"amount_minor": 900, "currency": "JPY"}, (900, "JPY")),
        (None, {"amount_minor": 9, "currency": "GBP", "non_refundable_minor": 4}, (5, "GBP")),
        (None, {"amount_minor": 9, "currency": "GBP", "non_refundable_minor": 10}, (0, "GBP")),
        (0, {"amount_minor": 900, "currency": "GBP"}, (0, "GBP")),
        (300, None, (UNKNOWN, None)),
        (None, None, (UNKNOWN, None)),
    ],
)
def test_what_an_outcome_paid(said: int | None, refund: Row | None, paid: tuple[int, Any]) -> None:
    outcome = {"known_at": 1, "refund_id": "r", "status": "COMPLETED", "amount_minor": said}
    row = np.frombuffer(pack("refund_outcome", outcome, 1, refund), LAYOUT["refund_outcome"])[0]
    amount, currency = paid
    code = UNKNOWN if currency is None else CODES["currency"].index(currency)
    assert (row["paid"], row["currency"]) == (amount, code)


@pytest.mark.parametrize("kind", LAYOUT)
def test_the_largest_and_the_fewest_values_fit(kind: str) -> None:
    largest = {"_minor": 10**15, "_count": 10**9, "_at": 2**62}
    full = {
        name: next((v for ending, v in largest.items() if name.endswith(ending)), "x" * 256)
        for name in EVENTS[kind].model_fields
    }
    refund = {"amount_minor": 10**15, "currency": "ZZZ"}
    for event, named in ((full, refund), ({"known_at": 0}, None)):
        assert len(pack(kind, event, event["known_at"], named)) == LAYOUT[kind].itemsize
