"""From events to streams: whose history an event belongs to, and from when.

A `Stream` holds the events of one type as arrays, ready to be windowed. For each key it has two
columns: the holder's code and the instant from which the event counts in that holder's history.

- An event's own columns are its *direct* keys, effective from its own ``known_at``.
- An event that names a refund, or else an order, *inherits* every key it lacks from the first
  version of what it names, effective from the later of the two ``known_at``. Orders and refund
  requests inherit nothing.
- A refund, and an order, counts once, at its first ``known_at`` with its first fields. A refund
  that came with ``ignore`` in its first version is no history, though what names it still inherits.

The store applies the same rules when it indexes an event; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.events import COLUMN_OF, ENTITIES, EVENTS, KEYS, VOCABULARY, RefundRequest, due_minor
from features.kernels import UNKNOWN, FloatArray, IntArray, whole
from features.money import CURRENCIES, Rates
from features.tables import Tables, arrow_schema

STREAM_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "order": KEYS[:-1],
    "order_update": ("order",),
    "transaction": ("order", "refund"),
    "refund_request": KEYS,
    "refund_outcome": KEYS,
    "return": KEYS,
    "dispute": KEYS[:-1],
    "label": KEYS,
}
"""Which histories an event enters: what a feature over it may be grouped by."""

CODES: Final[Mapping[str, tuple[str, ...]]] = {
    **VOCABULARY,
    "currency": CURRENCIES,
    "success": ("false", "true"),
    "final_sale": ("false", "true"),
}
"""Coded columns: a value's code is its place; a value outside is the list's length; none is NaN."""

# Per stream: column -> (column of the table, how it becomes numbers).
STREAM_COLUMNS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "order": {
        "amount": ("amount_minor", "base"),
        "currency": ("currency", "code"),
        "item_count": ("item_count", "number"),
        "ordered_at": ("ordered_at", "number"),
        "registered_at": ("registered_at", "number"),
    },
    "order_update": {
        "order_status": ("status", "code"),
        "delivered_at": ("delivered_at", "number"),
    },
    "transaction": {
        "kind": ("kind", "code"),
        "success": ("success", "code"),
        "minor": ("amount_minor", "number"),
        "currency": ("currency", "code"),
    },
    "refund_request": {
        "amount": ("amount_minor", "base"),
        "reason": ("reason", "code"),
        "claim": ("claim", "code"),
        "type": ("type", "code"),
        "policy": ("policy", "code"),
        "initiated_by": ("initiated_by", "code"),
        "registered_at": ("registered_at", "number"),
    },
    "refund_outcome": {
        "outcome_status": ("status", "code"),
        "decline_reason": ("decline_reason", "code"),
        "paid": ("amount_minor", "paid"),
    },
    "return": {"return_status": ("status", "code"), "case": ("refund_id", "case")},
    "dispute": {
        "stage": ("stage", "code"),
        "outcome": ("outcome", "code"),
        "dispute": ("dispute_id", "identity"),
    },
    "label": {
        "label": ("label", "code"),
        "source": ("source", "code"),
        "case": ("refund_id", "case"),
        "amount": ("amount_minor", "paid"),
    },
}

IDENTITIES: Final = frozenset(
    column
    for columns in STREAM_COLUMNS.values()
    for column, (_, how) in columns.items()
    if how in ("identity", "case")
)
"""Columns that say which thing an event is about."""

CASE: Final = ("refund", "order", "customer")
"""A case is the first of these that an event names."""

REQUEST_FIELDS: Final = (
    "amount_minor", "nonrefundable_minor", "asked_minor", "refund_amount_minor", "payable_minor",
    "order_amount_minor", "currency", "country_mismatch", "final_sale", "reason", "claim", "type",
    "initiated_by", "issued_to", "policy", "item_count", "ip_risk", "registered_at", "ordered_at",
    "delivered_at",
)  # fmt: skip
"""What a request itself says, as numbers."""


@dataclass(frozen=True)
class Stream:
    """Events of one type as arrays of one length n, in canonical order: (known_at, event_id).

    ``keys[key]`` holds codes (-1: none), ``times[key]`` the effective instants in epoch ms,
    ``columns`` whole numbers, `UNKNOWN` where a value is not known.
    """

    keys: Mapping[str, IntArray]
    times: Mapping[str, IntArray]
    columns: Mapping[str, IntArray]

    def __len__(self) -> int:
        return len(next(iter(self.times.values())))

    def column(self, name: str) -> IntArray:
        """A column, or the codes of a key."""
        return self.keys[name] if name in self.keys else self.columns[name]


@dataclass(frozen=True)
class Requests:
    """The refund requests to compute features for, as arrays of one length m.

    ``cutoff`` (epoch ms) is each request's own known_at, and ascends; codes (-1: none) share their
    space with the streams. ``fields`` are float64, NaN unknown.
    """

    cutoff: IntArray
    keys: Mapping[str, IntArray]
    fields: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return len(self.cutoff)


@dataclass(frozen=True)
class History:
    """All that features read: streams by event type, and each entity's first_seen by code."""

    streams: Mapping[str, Stream]
    first_seen: Mapping[str, IntArray] = field(default_factory=dict)


# --- columns to numbers ----------------------------------------------------------------------

PLACE: Final[Mapping[str, Mapping[Any, int]]] = {
    column: {
        **{value: code for code, value in enumerate(vocabulary)},
        **({False: 0, True: 1} if vocabulary == ("false", "true") else {}),
    }
    for column, vocabulary in CODES.items()
}
"""The code of each known value of a coded column, flags as themselves or as words."""


def code_of(column: str, value: Any) -> int:
    """The code of a value: `UNKNOWN` where none is given, the list's length for one outside it.

    >>> [code_of("return_status", value) for value in ("IN_TRANSIT", "EATEN")]
    [1, 6]
    >>> code_of("success", True), code_of("success", None) == UNKNOWN
    (1, True)
    """
    return UNKNOWN if value is None else PLACE[column].get(value, len(CODES[column]))


def codes_of(column: str, values: pa.ChunkedArray) -> IntArray:
    """Codes (n,) of a table's column."""
    if pa.types.is_boolean(values.type):
        return _whole(values.cast(pa.int8()))
    vocabulary = CODES[column]
    codes = pc.fill_null(pc.index_in(values, pa.array(vocabulary)), len(vocabulary))
    return _whole(pc.if_else(pc.is_valid(values), codes, None))


def _whole(values: pa.ChunkedArray) -> IntArray:
    numbers = pc.fill_null(values.cast(pa.int64()), UNKNOWN)
    return np.asarray(numbers.to_numpy(), np.int64)


def as_float(values: IntArray) -> FloatArray:
    """Whole numbers (n,) as float64, NaN where unknown."""
    return np.where(values == UNKNOWN, np.nan, values)


def in_base(amounts: IntArray, currencies: IntArray, at: IntArray, rates: Rates) -> IntArray:
    """Amounts (n,) in minor units of the base currency, from codes of `CODES`'s currencies."""
    if (currencies == PLACE["currency"][rates.base]).all():
        return amounts
    return whole(rates.to_base_codes(amounts, currencies, at))


# --- requests --------------------------------------------------------------------------------

_CODED_FIELDS: Final = (
    "currency", "final_sale", "reason", "claim", "type", "initiated_by", "issued_to", "policy",
)  # fmt: skip
_WHOLE_FIELDS: Final = (
    "amount_minor", "non_refundable_minor", "order_amount_minor", "item_count", "registered_at",
    "ordered_at", "delivered_at",
)  # fmt: skip
_SAID: Final = (*_CODED_FIELDS, *_WHOLE_FIELDS)
_MONEY: Final = [_SAID.index(column) for column in (
    "currency", "amount_minor", "non_refundable_minor", "order_amount_minor",
)]  # fmt: skip
_MADE: Final = (
    "nonrefundable_minor", "asked_minor", "refund_amount_minor", "payable_minor",
    "order_amount_minor",
)  # fmt: skip
"""Fields made of what is said; the last three are in the base currency."""


def _fields(
    said: IntArray, risk: FloatArray, mismatch: FloatArray, cutoff: IntArray, rates: Rates
) -> dict[str, FloatArray]:
    """`REQUEST_FIELDS` (m,) from what requests say of `_SAID` (len(_SAID), m)."""
    currency, amount, kept, of_order = said[_MONEY]
    payable = _due(amount, kept)
    numbers = np.empty((len(_SAID) + len(_MADE), said.shape[1]), np.int64)
    numbers[: len(_SAID)] = said
    numbers[len(_SAID) :] = kept, payable, amount, payable, of_order
    for row in range(len(_SAID) + 2, len(numbers)):
        numbers[row] = in_base(numbers[row], currency, cutoff, rates)
    known = dict(zip((*_SAID, *_MADE), as_float(numbers), strict=True))
    return known | {"ip_risk": risk, "country_mismatch": mismatch}


def _due(amount: IntArray, kept: IntArray) -> IntArray:
    """What would be paid of an amount of which policy keeps a part: never less than nothing."""
    due = np.maximum(amount - np.where(kept == UNKNOWN, 0, kept), 0)
    return np.where(amount == UNKNOWN, UNKNOWN, due)


def _requests_of(table: _Table, rates: Rates) -> Requests:
    """Every row of refund_requests."""
    columns = table.table
    said = np.array([*(codes_of(c, columns[c]) for c in _CODED_FIELDS),
                     *(_whole(columns[c]) for c in _WHOLE_FIELDS)])  # fmt: skip
    risk = np.asarray(columns["ip_risk"].cast(pa.float64()).to_numpy(), np.float64)
    differ = pc.not_equal(columns["billing_country"], columns["shipping_country"])
    mismatch = as_float(_whole(differ.cast(pa.int8())))
    fields = _fields(said, risk, mismatch, table.known_at, rates)
    return Requests(table.known_at, table.codes, fields)


def one_request(event: RefundRequest, rates: Rates) -> list[float | None]:
    """`REQUEST_FIELDS` of a single refund request, None or NaN where unknown: `_fields` of one.

    >>> request = RefundRequest(
    ...     refund_id="r", customer_id="c", known_at=0, amount_minor=900, currency="GBP"
    ... )
    >>> one = dict(zip(REQUEST_FIELDS, one_request(request, Rates("GBP"))))
    >>> one["payable_minor"], one["order_amount_minor"]
    (900, None)
    """
    amount, kept, of_order = (
        event.amount_minor, event.non_refundable_minor, event.order_amount_minor,
    )  # fmt: skip
    payable = due_minor(amount, kept)
    in_base: Sequence[float | None] = (amount, payable, of_order)
    if event.currency != rates.base:
        minor = np.array(in_base, np.float64)
        codes = np.full(3, code_of("currency", event.currency))
        in_base = rates.to_base_codes(minor, codes, np.full(3, event.known_at)).tolist()
    billing, shipping = event.billing_country, event.shipping_country
    differ = None if billing is None or shipping is None else billing != shipping
    return [
        amount, kept, payable, *in_base,
        _code("currency", event.currency), differ, _code("final_sale", event.final_sale),
        _code("reason", event.reason), _code("claim", event.claim), _code("type", event.type),
        _code("initiated_by", event.initiated_by), _code("issued_to", event.issued_to),
        _code("policy", event.policy), event.item_count, event.ip_risk, event.registered_at,
        event.ordered_at, event.delivered_at,
    ]  # fmt: skip


def _code(column: str, value: Any) -> int | None:
    return None if value is None else PLACE[column].get(value, len(CODES[column]))


# --- a data folder ---------------------------------------------------------------------------


class _Table:
    """An event table with its codes: what attribution works on."""

    def __init__(self, event_type: str, table: pa.Table) -> None:
        self.event_type = event_type
        self.table = table
        self.known_at: IntArray = table["known_at"].to_numpy().astype(np.int64)
        self.codes: dict[str, IntArray] = {}


def _read_tables(tables: Tables) -> dict[str, _Table]:
    return {
        event_type: _Table(event_type, tables.get(event.table,
                           arrow_schema(event.table).empty_table()))
        for event_type, event in EVENTS.items()
    }  # fmt: skip


def _assign_codes(tables: Mapping[str, _Table]) -> dict[str, pa.Array]:
    """Give every key's values codes that all tables share; returns the value of each code."""
    ids = {}
    for key in KEYS:
        column = COLUMN_OF[key]
        having = [t for t in tables.values() if column in t.table.column_names]
        chunks = [chunk for t in having for chunk in t.table[column].chunks]
        joined = pa.chunked_array(chunks, pa.string()).combine_chunks()
        encoded = joined.dictionary_encode()
        codes = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
        ends = np.cumsum([len(t.known_at) for t in having])
        for t, part in zip(having, np.split(codes, ends[:-1]), strict=True):
            t.codes[key] = part
        ids[key] = encoded.dictionary
    return ids


def _first_rows(codes: IntArray, size: int) -> IntArray:
    """The first row of each code (size,), -1 where there is none; rows are in canonical order."""
    first = np.full(size, -1, np.int64)
    rows = np.arange(len(codes))[::-1]
    reversed_codes = codes[::-1]
    held = reversed_codes >= 0
    first[reversed_codes[held]] = rows[held]
    return first


def _inherit(
    keys: dict[str, IntArray], times: dict[str, IntArray], named: _Table, rows: IntArray
) -> None:
    """Take the keys that events lack from row ``rows`` (n,; -1: none) of what they name."""
    if not (rows >= 0).any():
        return
    for key, codes in named.codes.items():
        lacking = (keys[key] < 0) & (rows >= 0)
        keys[key] = np.where(lacking, codes[rows], keys[key])
        later = np.maximum(times[key], named.known_at[rows])
        times[key] = np.where(lacking, later, times[key])


def _rows_named(table: _Table, first: Mapping[str, IntArray]) -> dict[str, IntArray]:
    """The refund, or else the order, that each event names: rows (n,) of its first version."""
    none = np.full(len(table.known_at), -1, np.int64)
    if table.event_type in ("order", "refund_request"):
        return {"refund": none, "order": none}
    refund = table.codes.get("refund", none)
    order = np.where(refund < 0, table.codes.get("order", none), -1)
    return {
        key: np.where(codes >= 0, first[key][codes], -1) if (codes >= 0).any() else none
        for key, codes in (("refund", refund), ("order", order))
    }


def _stream(
    table: _Table, named: Mapping[str, _Table], first: Mapping[str, IntArray], rates: Rates
) -> tuple[Stream, IntArray]:
    """One table as a stream, its events attributed, and the row of each of them."""
    n = len(table.known_at)
    keys = {key: table.codes.get(key, np.full(n, -1, np.int64)) for key in KEYS}
    times = dict.fromkeys(KEYS, table.known_at)
    rows = _rows_named(table, first)
    for key, of_named in named.items():
        _inherit(keys, times, of_named, rows[key])
    columns = _columns(table, named["refund"], rows["refund"], rates)
    if table.event_type not in ("order", "refund_request"):
        return Stream(keys, times, columns), np.arange(n)
    own_key = table.event_type.removesuffix("_request")
    once = _counted_once(table, own_key, first[own_key])
    keys, times, columns = (
        {name: values[once] for name, values in of.items()} for of in (keys, times, columns)
    )
    return Stream(keys, times, columns), once


def _counted_once(table: _Table, key: str, first: IntArray) -> IntArray:
    """The rows of first versions, without refunds that came as ignored."""
    rows = np.sort(first[first >= 0])
    if key == "refund" and len(rows):
        ignored = pc.fill_null(table.table["ignore"], False).to_numpy(zero_copy_only=False)
        rows = rows[~ignored[rows].astype(bool)]
    return rows


def _columns(table: _Table, refunds: _Table, rows: IntArray, rates: Rates) -> dict[str, IntArray]:
    """The columns of a stream (n,); ``rows`` (n,) are those of the refunds that events name."""
    columns = {}
    for column, (origin, how) in STREAM_COLUMNS[table.event_type].items():
        match how:
            case "code":
                columns[column] = codes_of(column, table.table[origin])
            case "number":
                columns[column] = _whole(table.table[origin])
            case "base":
                currencies = codes_of("currency", table.table["currency"])
                amounts = _whole(table.table[origin])
                columns[column] = in_base(amounts, currencies, table.known_at, rates)
            case "paid":
                columns[column] = _paid(table, refunds, rows, rates)
            case "identity":
                columns[column] = _identity(table.table[origin])
            case "case":
                columns[column] = _case(table)
    return columns


def _paid(table: _Table, refunds: _Table, rows: IntArray, rates: Rates) -> IntArray:
    """What an outcome says was paid, else what the refund asked for less what policy keeps.

    A verdict says no amount: it is about what the refund would be paid.
    """
    columns = refunds.table.select(["amount_minor", "non_refundable_minor", "currency"])
    named = columns.take(pa.array(rows, pa.int64(), mask=rows < 0))
    amounts = _due(_whole(named["amount_minor"]), _whole(named["non_refundable_minor"]))
    if "amount_minor" in table.table.column_names:
        said = _whole(table.table["amount_minor"])
        amounts = np.where(said == UNKNOWN, amounts, said)
    return in_base(amounts, codes_of("currency", named["currency"]), table.known_at, rates)


def _identity(values: pa.ChunkedArray) -> IntArray:
    return _whole(values.combine_chunks().dictionary_encode().indices)


def _case(table: _Table) -> IntArray:
    """Codes (n,) of what an event is about: the refund it names, else the order, the customer."""
    cases, codes = np.full(len(table.known_at), UNKNOWN), 0
    for key in CASE:
        found = table.codes.get(key)
        if found is not None:
            cases = np.where((cases == UNKNOWN) & (found >= 0), found + codes, cases)
            codes += int(found.max(initial=-1)) + 1
    return cases


@dataclass(frozen=True)
class Attributed:
    """What `attribute` finds, and what joins a part of a folder with the other parts.

    ``ids[key]`` has the value of each code; ``rows[event type]`` the row of the canonical table
    that each event of a stream is.
    """

    history: History
    requests: Requests
    ids: Mapping[str, pa.Array]
    rows: Mapping[str, IntArray]


def attribute(tables: Tables, rates: Rates) -> tuple[History, Requests]:
    """A canonical data folder as streams, and every row of refund_requests as a request.

    The requests are in the order of the canonical table; re-sent versions are requests too.
    """
    found = attribute_part(tables, rates)
    return found.history, found.requests


def attribute_part(tables: Tables, rates: Rates) -> Attributed:
    """`attribute` for some of a folder's events, among them all that they name."""
    read = _read_tables(tables)
    ids = _assign_codes(read)
    sizes = {key: len(values) for key, values in ids.items()}
    named = {"refund": read["refund_request"], "order": read["order"]}
    first = {key: _first_rows(table.codes[key], sizes[key]) for key, table in named.items()}
    streams, rows = {}, {}
    for name, table in read.items():
        streams[name], rows[name] = _stream(table, named, first, rates)
    history = History(streams, _first_seen(read, sizes))
    return Attributed(history, _requests_of(read["refund_request"], rates), ids, rows)


def _first_seen(tables: Mapping[str, _Table], sizes: Mapping[str, int]) -> dict[str, IntArray]:
    seen = {e: np.full(sizes[e], np.iinfo(np.int64).max, np.int64) for e in ENTITIES}
    for table in tables.values():
        for entity in ENTITIES:
            codes = table.codes.get(entity)
            if codes is not None:
                held = codes >= 0
                np.minimum.at(seen[entity], codes[held], table.known_at[held])
    return seen
