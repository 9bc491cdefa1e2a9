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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.events import COLUMN_OF, ENTITIES, EVENTS, KEYS, VOCABULARY, RefundRequest
from features.money import CURRENCIES, Rates
from features.tables import Tables, arrow_schema

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Values: TypeAlias = "pa.ChunkedArray | list[Any]"
"""A column as a data folder has it, or as the store's rows give it."""

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
    "return": {"return_status": ("status", "code")},
    "dispute": {
        "stage": ("stage", "code"),
        "outcome": ("outcome", "code"),
        "dispute": ("dispute_id", "identity"),
    },
    "label": {"label": ("label", "code"), "source": ("source", "code")},
}


@dataclass(frozen=True)
class Stream:
    """Events of one type as arrays of one length n.

    ``keys[key]`` holds codes (-1: none), ``times[key]`` the effective instants in epoch ms, ``tie``
    the canonical order of events of the same instant, ``columns`` float64 values, NaN unknown.
    """

    keys: Mapping[str, IntArray]
    times: Mapping[str, IntArray]
    tie: IntArray
    columns: Mapping[str, FloatArray]
    own_refund: IntArray | None = None
    """Of refund requests: the code of the refund each one is; None for other streams."""

    def __len__(self) -> int:
        return len(self.tie)


@dataclass(frozen=True)
class Requests:
    """The refund requests to compute features for, as arrays of one length m.

    ``cutoff`` (epoch ms) is each request's own known_at; codes share their space with the streams.
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


def code_of(values: Values, vocabulary: Sequence[str]) -> FloatArray:
    """Codes (n,) of text or flags: NaN where none is given, the list's length where unknown.

    >>> code_of(["LOST", None, "new"], ["WON", "LOST"]).tolist()
    [1.0, nan, 2.0]
    """
    if isinstance(values, list):
        place = {value: float(code) for code, value in enumerate(vocabulary)}
        other = float(len(vocabulary))
        return np.array([
            np.nan if v is None else place.get(v if isinstance(v, str) else str(v).lower(), other)
            for v in values
        ])  # fmt: skip
    if pa.types.is_boolean(values.type):
        return _to_float(values.cast(pa.int8()))
    codes = pc.fill_null(pc.index_in(values, pa.array(list(vocabulary))), len(vocabulary))
    return _to_float(pc.if_else(pc.is_valid(values), codes, None))


def _to_float(values: Values) -> FloatArray:
    if isinstance(values, list):
        return np.array([np.nan if v is None else v for v in values], np.float64)
    return np.asarray(values.cast(pa.float64()).to_numpy(), np.float64)


def _objects(values: Values) -> NDArray[np.object_]:
    return np.array(values if isinstance(values, list) else values.to_pylist(), dtype=object)


def _to_base(amounts: FloatArray, currencies: Values, at: IntArray, rates: Rates) -> FloatArray:
    # A folder of one currency, the usual one, never leaves Arrow.
    if not isinstance(currencies, list) and pc.unique(currencies).to_pylist() == [rates.base]:
        return amounts
    return rates.to_base(amounts, _objects(currencies), at)


Source = Callable[[str], Values]
"""Gives a column of the events by name; ``named.x`` is column x of the refund an event names."""


def stream_column(event_type: str, column: str, source: Source, rates: Rates) -> FloatArray:
    """One column (n,) of a stream as numbers."""
    origin, how = STREAM_COLUMNS[event_type][column]
    if how == "code":
        return code_of(source(origin), CODES[column])
    if how == "number":
        return _to_float(source(origin))
    at = np.asarray(_to_float(source("known_at")), np.int64)
    if how == "base":
        return _to_base(_to_float(source(origin)), source("currency"), at, rates)
    # "paid": what an outcome says, else what the refund asked for less what policy keeps.
    said, asked = _to_float(source(origin)), _to_float(source("named.amount_minor"))
    kept = np.nan_to_num(_to_float(source("named.non_refundable_minor")))
    amounts = np.where(np.isnan(said), asked - kept, said)
    return rates.to_base(amounts, _objects(source("named.currency")), at)


# --- requests --------------------------------------------------------------------------------


def request_fields(source: Source, cutoff: IntArray, rates: Rates) -> dict[str, FloatArray]:
    """What a refund request itself says, as numbers (m,): base-currency money, times, codes."""
    amount, kept = _to_float(source("amount_minor")), _to_float(source("non_refundable_minor"))
    currency = source("currency")
    payable = amount - np.nan_to_num(kept)
    fields = {
        "amount_minor": amount,
        "nonrefundable_minor": kept,
        "asked_minor": payable,
        "refund_amount_minor": _to_base(amount, currency, cutoff, rates),
        "payable_minor": _to_base(payable, currency, cutoff, rates),
        "order_amount_minor": _to_base(
            _to_float(source("order_amount_minor")), currency, cutoff, rates
        ),
        "currency": code_of(currency, CODES["currency"]),
        "country_mismatch": _mismatch(source("billing_country"), source("shipping_country")),
        "final_sale": code_of(source("final_sale"), CODES["final_sale"]),
    }
    for column in ("reason", "claim", "type", "initiated_by", "issued_to", "policy"):
        fields[column] = code_of(source(column), CODES[column])
    for column in ("item_count", "ip_risk", "registered_at", "ordered_at", "delivered_at"):
        fields[column] = _to_float(source(column))
    return fields


def _mismatch(left: Values, right: Values) -> FloatArray:
    if isinstance(left, list):
        return np.array([np.nan if a is None or b is None else float(a != b)
                         for a, b in zip(left, right, strict=True)])  # fmt: skip
    return _to_float(pc.not_equal(left, right).cast(pa.int8()))


# --- a data folder ---------------------------------------------------------------------------


class _Table:
    """An event table with its codes: what attribution works on."""

    def __init__(self, event_type: str, table: pa.Table) -> None:
        self.event_type = event_type
        self.table = table
        self.known_at: IntArray = table["known_at"].to_numpy().astype(np.int64)
        self.codes: dict[str, IntArray] = {}

    def source(self, column: str) -> Values:
        return self.table[column]


def _read_tables(tables: Tables) -> dict[str, _Table]:
    return {
        event_type: _Table(event_type, tables.get(event.table,
                           arrow_schema(event.table).empty_table()))
        for event_type, event in EVENTS.items()
    }  # fmt: skip


def _assign_codes(tables: Mapping[str, _Table]) -> dict[str, int]:
    """Give every key's values codes that all tables share; returns how many each key has."""
    sizes = {}
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
        sizes[key] = len(encoded.dictionary)
    return sizes


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
) -> Stream:
    """One table as a stream, its events attributed."""
    n = len(table.known_at)
    keys = {key: table.codes.get(key, np.full(n, -1, np.int64)) for key in KEYS}
    times = dict.fromkeys(KEYS, table.known_at)
    rows = _rows_named(table, first)
    for key, of_named in named.items():
        _inherit(keys, times, of_named, rows[key])
    kept = np.arange(n)
    if table.event_type in ("order", "refund_request"):
        own_key = table.event_type.removesuffix("_request")
        kept = _counted_once(table, own_key, first[own_key])
    keys = {key: codes[kept] for key, codes in keys.items()}
    times = {key: instants[kept] for key, instants in times.items()}
    source = _with_named(table, named["refund"], rows["refund"])
    columns = {
        column: _identity(table.table[origin]) if how == "identity"
        else stream_column(table.event_type, column, source, rates)
        for column, (origin, how) in STREAM_COLUMNS[table.event_type].items()
    }  # fmt: skip
    own = keys["refund"] if table.event_type == "refund_request" else None
    return Stream(keys, times, kept, {c: values[kept] for c, values in columns.items()}, own)


def _counted_once(table: _Table, key: str, first: IntArray) -> IntArray:
    rows = np.sort(first[first >= 0])
    if key == "refund" and len(rows):
        ignored = pc.fill_null(table.table["ignore"], False).to_numpy(zero_copy_only=False)
        rows = rows[~ignored[rows].astype(bool)]
    return rows


def _with_named(table: _Table, refunds: _Table, rows: IntArray) -> Source:
    def source(column: str) -> Values:
        if not column.startswith("named."):
            return table.table[column]
        indices = pa.array(rows, mask=rows < 0)
        return refunds.table[column.removeprefix("named.")].take(indices)

    return source


def _identity(values: pa.ChunkedArray) -> FloatArray:
    codes = values.combine_chunks().dictionary_encode().indices
    return _to_float(codes)


def attribute(tables: Tables, rates: Rates) -> tuple[History, Requests]:
    """A canonical data folder as streams, and every row of refund_requests as a request.

    The requests are in the order of the canonical table; re-sent versions are requests too.
    """
    read = _read_tables(tables)
    sizes = _assign_codes(read)
    named = {"refund": read["refund_request"], "order": read["order"]}
    first = {key: _first_rows(table.codes[key], sizes[key]) for key, table in named.items()}
    streams = {name: _stream(table, named, first, rates) for name, table in read.items()}
    requests = read["refund_request"]
    cutoff = requests.known_at
    return (
        History(streams, _first_seen(read, sizes)),
        Requests(cutoff, requests.codes, request_fields(requests.source, cutoff, rates)),
    )


def _first_seen(tables: Mapping[str, _Table], sizes: Mapping[str, int]) -> dict[str, IntArray]:
    seen = {e: np.full(sizes[e], np.iinfo(np.int64).max, np.int64) for e in ENTITIES}
    for table in tables.values():
        for entity in ENTITIES:
            codes = table.codes.get(entity)
            if codes is not None:
                held = codes >= 0
                np.minimum.at(seen[entity], codes[held], table.known_at[held])
    return seen


# --- one request and the slices its keys own ----------------------------------------------------

Row = tuple[int, Mapping[str, Any], Mapping[str, Any] | None]
"""Of an event in a key's history: effective known_at, the event, the refund it names if any."""


def stream_of_rows(
    event_type: str, key: str, rows: Sequence[Row], columns: Sequence[str],
    holder: Mapping[str, str | None], rates: Rates,
) -> Stream:  # fmt: skip
    """The slice of one key's holder as a stream; ``rows`` in canonical order.

    Only ``columns`` (stream columns or keys) are built. ``holder`` is the scored request's own
    value per key: its code is 0, and in the key columns of the slice so is its value's.
    """
    n = len(rows)
    times = np.array([row[0] for row in rows], np.int64)

    def source(column: str) -> Values:
        if column.startswith("named."):
            column = column.removeprefix("named.")
            return [(row[2] or {}).get(column) for row in rows]
        return [row[1].get(column) for row in rows]

    keys = {key: np.zeros(n, np.int64)}
    values: dict[str, FloatArray] = {}
    for column in columns:
        if column in STREAM_COLUMNS[event_type]:
            origin, how = STREAM_COLUMNS[event_type][column]
            if how == "identity":
                values[column] = np.array(_factorise(source(origin), None), np.float64)
            else:
                values[column] = stream_column(event_type, column, source, rates)
        elif column != key:
            found = _factorise(source(COLUMN_OF[column]), holder.get(column))
            keys[column] = np.array(found, np.int64)
    own = keys["refund"] if event_type == "refund_request" else None
    return Stream(keys, {key: times}, np.arange(n), values, own)


def _factorise(values: Values, zero: str | None) -> list[int]:
    """Codes from 1 on, 0 for ``zero``, -1 for None."""
    codes: dict[Any, int] = {zero: 0, None: -1}
    return [codes.setdefault(value, len(codes)) for value in values]


def one_request(event: RefundRequest, rates: Rates) -> Requests:
    """A single refund request as `Requests`: its own value of every key it has is code 0.

    >>> request = RefundRequest(
    ...     refund_id="r", customer_id="c", known_at=0, amount_minor=900, currency="GBP"
    ... )
    >>> one = one_request(request, Rates("GBP"))
    >>> int(one.keys["customer"][0]), int(one.keys["device"][0])
    (0, -1)
    """
    cutoff = np.array([event.known_at], np.int64)

    def source(column: str) -> Values:
        return [getattr(event, column)]

    keys = {
        key: np.array([0 if getattr(event, column) is not None else -1], np.int64)
        for key, column in COLUMN_OF.items()
    }
    return Requests(cutoff, keys, request_fields(source, cutoff, rates))
