"""The one engine: windows over streams, and what is derived from them.

A list of features becomes a `Plan`: the aggregates of each kind of key arranged as cells, and the
numbers computed from others in order. `aggregate` lays the events of a stream out holder by holder
and slides the windows over them; `combine` adds what the request itself says, ages and ratios. A
folder is worked through key by key, one request with the slices that its keys own all keys at once:
the same compiled loops (`features.kernels`), so that training and serving cannot drift.

A window of w days before a cutoff c is [c - w, c) on the effective known_at, and holds at most the
latest `MAX_EVENTS` events of its type; the request's own refund is never in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from features import kernels
from features.attribution import (
    CODES,
    IDENTITIES,
    PLACE,
    REQUEST_FIELDS,
    History,
    Requests,
    Stream,
    one_request,
)
from features.events import KEYS, RefundRequest
from features.feature import (
    Age,
    Aggregate,
    Between,
    Both,
    Coalesce,
    Difference,
    Expression,
    Feature,
    Field,
    FirstSeen,
    Known,
    Ratio,
    Where,
)
from features.kernels import UNKNOWN, Cells, FloatArray, IntArray
from features.money import DAY_MS, EXACT_BELOW, Rates
from features.packed import LAYOUT, id63

MAX_EVENTS: Final = 1000
"""A window holds at most this many events of its type: the latest."""

_DERIVED: Final[Mapping[type[Expression], str]] = {
    Coalesce: "coalesce", Age: "age", Between: "between", Ratio: "ratio",
    Difference: "difference", Both: "both", Known: "known",
}  # fmt: skip


# --- what to compute, worked out once ----------------------------------------------------------


@dataclass(frozen=True)
class _Packing:
    """Where a stream's columns lie in a packed event of ``size`` bytes; the last three are the
    event's own time, its currency and its effective time."""

    size: int
    offset: IntArray
    width: IntArray


@dataclass(frozen=True)
class _StreamWork:
    """All that is asked of one stream."""

    name: str
    columns: tuple[str, ...]
    """The columns and keys it reads: C of them."""
    money: tuple[int, ...]
    """Which of them are amounts, packed in their own currency."""
    values: tuple[str, ...]
    """The keys and fields of the request that events are compared with: R of them."""
    cells: Cells
    codes: IntArray
    """(K, C) how many codes each column has: 0 for numbers, -1 where it holds identifiers and any
    cell of that kind of key tells them apart"""
    key_of: IntArray
    """(C,) which of `KEYS` each column is, their number if none"""
    slices: tuple[tuple[str, str], ...]
    """The slices of its keys, by which a request's past is found."""
    kinds: IntArray
    """(P,) which of the work's keys the cells are about"""
    steps: IntArray
    """(P,) the plan's steps that the cells are"""
    packing: _Packing

    @classmethod
    def of(cls, name: str, asked: Mapping[Aggregate, int], keys: Sequence[str]) -> _StreamWork:
        """What ``asked`` of one stream, each with its step of the plan, comes to."""
        # Key by key, window by window, and in each what is read from running sums first.
        aggregates = sorted(
            asked, key=lambda a: (keys.index(a.by), a.days, kernels.OPS.index(a.op) >= len(_SUMS))
        )
        columns = sorted({column for a in aggregates for column in a.columns})
        if name == "refund_request":  # by which a request's own refund is found: the last
            columns = [*(column for column in columns if column != "refund"), "refund"]
        values = tuple(dict.fromkeys(v for a in aggregates if (v := _request_value(a))))
        return cls(
            name,
            tuple(columns),
            tuple(columns.index(column) for column in ("amount", "paid") if column in columns),
            values,
            _cells(aggregates, keys, columns, values),
            np.array([[_codes_in(column, key, asked) for column in columns] for key in keys]),
            _whole(KEYS.index(column) if column in KEYS else len(KEYS) for column in columns),
            tuple((key, name) for key in keys),
            _whole(keys.index(a.by) for a in aggregates),
            _whole(asked[a] for a in aggregates),
            _packing(name, columns),
        )


def _cells(
    aggregates: Sequence[Aggregate], keys: Sequence[str], columns: Sequence[str],
    values: Sequence[str],
) -> Cells:  # fmt: skip
    """The aggregates as the compiled loops take them: names become places in lists."""
    ops, days = kernels.OPS, sorted({a.days for a in aggregates})
    sources = list(dict.fromkeys(a.where for a in aggregates))
    # A running sum serves all windows; a count of all events needs none.
    sums = list(
        dict.fromkeys(_sum(a) for a in aggregates if a.op in _SUMS and (a.column or a.where))
    )
    groups = np.arange(len(keys) * len(days) + 1)
    group_of = [keys.index(a.by) * len(days) + days.index(a.days) for a in aggregates]
    in_group = [g + (a.op not in _SUMS) / 2 for g, a in zip(group_of, aggregates, strict=True)]
    return Cells(
        op=_whole(ops.index(a.op) for a in aggregates),
        source=_whole(sources.index(a.where) for a in aggregates),
        column=_places((a.column for a in aggregates), columns),
        request_value=_places(map(_request_value, aggregates), values),
        near_column=_places((a.near.column if a.near else None for a in aggregates), columns),
        near_ms=_whole(a.near.days * DAY_MS if a.near else 0 for a in aggregates),
        sum_of=_whole(2 * sums.index(_sum(a)) if _sum(a) in sums else -1 for a in aggregates),
        sum_op=_whole(ops.index(op) for op, _, _ in sums),
        sum_source=_whole(sources.index(where) for _, where, _ in sums),
        sum_column=_places((column for _, _, column in sums), columns),
        bounds=np.searchsorted(group_of, groups),
        sums_end=np.searchsorted(in_group, groups[:-1], side="right"),
        edges_ms=np.array(days, np.int64) * DAY_MS,
        **_conditions(sources, columns),
    )


_SUMS: Final = ("count", "total", "mean")


def _sum(a: Aggregate) -> tuple[str, Where | None, str | None]:
    return a.op, a.where, a.column


def _whole(values: Iterable[int]) -> IntArray:
    return np.array(list(values), np.int64)


def _places(names: Iterable[str | None], known: Sequence[str]) -> IntArray:
    """Where each name stands, -1 for none."""
    return _whole(-1 if name is None else known.index(name) for name in names)


def _request_value(a: Aggregate) -> str | None:
    if a.op == "count_same":
        return a.column
    return a.near.column if a.near else None


def _conditions(sources: Sequence[Where | None], columns: Sequence[str]) -> dict[str, Any]:
    """The conditions as the tables of `Cells`."""
    groups_of = [source.groups if source else () for source in sources]
    groups = [group for of_source in groups_of for group in of_source]
    tests = [test for group in groups for test in group]
    widest = max((len(CODES[column]) for column, _ in tests), default=0)
    allowed = np.zeros((len(tests), widest + 2), np.uint8)
    for row, (column, values) in enumerate(tests):
        for value in values:
            allowed[row, 0 if value is None else CODES[column].index(value) + 1] = 1
    return {
        "groups_of_source": _whole(np.cumsum([0, *map(len, groups_of)])),
        "tests_of_group": _whole(np.cumsum([0, *map(len, groups)])),
        "test_column": _whole(columns.index(column) for column, _ in tests),
        "allowed": allowed,
    }


def _packing(name: str, columns: Sequence[str]) -> _Packing:
    layout = LAYOUT[name]
    fields: Mapping[str, Any] = layout.fields or {}
    wanted = [*columns, "known_at", "currency" if "currency" in fields else "at", "at"]
    return _Packing(
        layout.itemsize,
        _whole(fields[column][1] for column in wanted),
        _whole(fields[column][0].itemsize for column in wanted),
    )


@dataclass(frozen=True)
class Work:
    """Aggregates of one or more keys, arranged by stream."""

    keys: tuple[str, ...]
    streams: tuple[_StreamWork, ...]

    @classmethod
    def of(cls, step_of: Mapping[Aggregate, int]) -> Work:
        """Arrange aggregates, each with the step of the plan that it is."""
        keys = tuple(key for key in KEYS if any(a.by == key for a in step_of))
        names = dict.fromkeys(a.stream for a in step_of)
        streams = (
            _StreamWork.of(name, {a: s for a, s in step_of.items() if a.stream == name}, keys)
            for name in names
        )
        return cls(keys, tuple(streams))


@dataclass(frozen=True)
class _Derived:
    """The numbers computed from others, as `kernels.derive` takes them."""

    op: IntArray
    step: IntArray
    inputs: IntArray
    bounds: IntArray


@dataclass(frozen=True)
class Plan:
    """What a list of features needs, worked out once. Every number it takes is a step."""

    features: tuple[Feature, ...]
    steps: int
    step_of: Mapping[str, int]
    """The step of each feature, in the order of the features."""
    fields: tuple[tuple[int, str], ...]
    first_seen: tuple[tuple[int, str], ...]
    derived: _Derived
    steps_by_key: Mapping[str, IntArray]
    """The steps that are aggregates of each key."""
    by_key: Mapping[str, Work]
    at_once: Work
    reads: tuple[tuple[str, str], ...]
    """The pairs (key, stream) that any aggregate reads."""
    slices: tuple[tuple[str, str], ...]
    """The slices of all streams, in the order in which `packed` takes them."""
    packed: kernels.AtOnce
    """``at_once`` and ``derived`` as one request is computed with."""
    place_of: Mapping[str, int]
    """The place of each feature among them."""

    @classmethod
    def of(cls, features: Iterable[Feature]) -> Plan:
        """The plan for ``features``; raises ValueError when two of them share a name."""
        features = tuple(features)
        names = [feature.name for feature in features]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"features defined twice: {', '.join(sorted(doubled))}")
        parts = (part for feature in features for part in feature.expression.walk())
        step_of = {part: step for step, part in enumerate(dict.fromkeys(parts))}
        aggregates = {a: step for a, step in step_of.items() if isinstance(a, Aggregate)}
        fields = tuple((s, part.column) for part, s in step_of.items() if isinstance(part, Field))
        seen = tuple((s, part.entity) for part, s in step_of.items() if isinstance(part, FirstSeen))
        derived, at_once = _derived(step_of), Work.of(aggregates)
        step_of_feature = {feature.name: step_of[feature.expression] for feature in features}
        keys = [key for key in KEYS if any(a.by == key for a in aggregates)]
        return cls(
            features,
            len(step_of),
            step_of_feature,
            fields,
            seen,
            derived,
            {k: _whole(s for a, s in aggregates.items() if a.by == k) for k in keys},
            {k: Work.of({a: s for a, s in aggregates.items() if a.by == k}) for k in keys},
            at_once,
            tuple(dict.fromkeys((a.by, a.stream) for a in aggregates)),
            tuple(pair for work in at_once.streams for pair in work.slices),
            _packed(at_once, derived, fields, seen, step_of_feature.values()),
            {name: place for place, name in enumerate(names)},
        )


def _derived(step_of: Mapping[Expression, int]) -> _Derived:
    parts = [part for part in step_of if type(part) in _DERIVED]
    inputs = [[step_of[of] for of in part.inputs] for part in parts]
    return _Derived(
        _whole(kernels.DERIVED.index(_DERIVED[type(part)]) for part in parts),
        _whole(step_of[part] for part in parts),
        _whole(step for steps in inputs for step in steps),
        _whole(np.cumsum([0, *map(len, inputs)])),
    )


def _packed(
    work: Work, derived: _Derived, fields: Sequence[tuple[int, str]],
    first_seen: Sequence[tuple[int, str]], features: Iterable[int],
) -> kernels.AtOnce:  # fmt: skip
    """The work as a few arrays."""
    numbers: list[IntArray] = []
    allowed: list[kernels.ByteArray] = []
    for of_stream in work.streams:
        tests, has_own = of_stream.cells.allowed, of_stream.name == "refund_request"
        fixed = (of_stream.packing.size, has_own, sum(map(len, allowed)), *tests.shape)
        numbers += [
            *of_stream.cells[:-1], of_stream.codes.ravel(), of_stream.key_of, of_stream.kinds,
            of_stream.steps, of_stream.packing.offset, of_stream.packing.width,
            _whole(of_stream.money),
            _whole(-1 - KEYS.index(v) if v in KEYS else REQUEST_FIELDS.index(v)
                   for v in of_stream.values),
            _whole(fixed),
        ]  # fmt: skip
        allowed.append(tests.ravel())
    ends = np.cumsum([0, *map(len, numbers)])
    begins = np.arange(len(work.streams))[:, np.newaxis] * len(kernels.PARTS)
    return kernels.AtOnce(
        _joined(numbers, np.int64),
        ends[begins + np.arange(len(kernels.PARTS) + 1)],
        _joined(allowed, np.uint8),
        np.array([(step, REQUEST_FIELDS.index(name)) for step, name in fields], np.int64).reshape(
            -1, 2
        ),
        _whole(step for step, _ in first_seen),
        derived.op,
        derived.step,
        derived.inputs,
        derived.bounds,
        _whole(features),
    )


def _joined(arrays: Sequence[Any], kind: type) -> Any:
    return np.concatenate([np.empty(0, kind), *arrays], dtype=kind, casting="unsafe")


# --- a folder: all requests, key by key ----------------------------------------------------------


def compute(
    plan: Plan, requests: Requests, history: History, max_events: int | None = MAX_EVENTS
) -> dict[str, FloatArray]:
    """All features of the plan by name (m,): `aggregate` for each key, then `combine`.

    ``max_events`` is the most that a window holds, None for no bound.
    """
    out = np.empty((plan.steps, len(requests)))

    def one(key: str) -> None:
        aggregate(plan.by_key[key], key, history.streams, requests, out, max_events)

    # Each key writes rows of its own, and the compiled loops let go of the interpreter.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(one, plan.by_key))
    combine(plan, requests, history.first_seen, out)
    return {name: out[step] for name, step in plan.step_of.items()}


def aggregate(
    work: Work, key: str, streams: Mapping[str, Stream], requests: Requests, out: FloatArray,
    max_events: int | None = MAX_EVENTS,
) -> None:  # fmt: skip
    """The aggregates of one key for every request, into their rows of ``out`` (steps, m).

    NaN for requests without such a key (no device was sent); a count or sum of nothing is 0.
    Events of holders that no request has are passed over, so a part of the holders with their
    requests can be computed by itself.
    """
    holder = requests.keys[key]
    if not (holder >= 0).any():
        for of_stream in work.streams:
            out[of_stream.steps] = np.nan
        return
    wanted = np.zeros(int(holder.max()) + 1, np.uint8)
    wanted[holder[holder >= 0]] = 1
    order, request_starts = kernels.group(holder, wanted)
    cutoffs = requests.cutoff[order]
    for of_stream in work.streams:
        stream = streams.get(of_stream.name)
        columns, times, starts = _laid_out(of_stream, key, stream, wanted)
        own = _NO_CODES
        if of_stream.name == "refund_request":
            own_refund = requests.keys["refund"]
            own = kernels.own_places(columns[-1], times, own_refund, requests.cutoff, order)
        found = kernels.slide(
            columns, times, starts, _NO_CODES, order, request_starts, cutoffs,
            own, _values(of_stream, requests), _sizes(of_stream, columns),
            len(times) + 1 if max_events is None else max_events, of_stream.cells,
        )  # fmt: skip
        kernels.scatter(found, order, of_stream.steps, out)


_NO_CODES: Final = np.empty(0, np.int64)


def _laid_out(
    work: _StreamWork, key: str, stream: Stream | None, wanted: kernels.ByteArray
) -> tuple[IntArray, IntArray, IntArray]:
    """The events of the wanted holders, holder by holder in order of their effective times.

    Columns (C, n), times (n,), and where each holder begins (H + 1,).
    """
    if stream is None or not len(stream):
        return np.empty((len(work.columns), 0), np.int64), _NO_CODES, np.zeros(len(wanted) + 1, int)
    held, times = stream.keys[key], stream.times[key]
    held = np.where(held < len(wanted), held, -1)
    # Grouping keeps the order it is given: that of the instants, and at a tie the canonical one.
    if (times[1:] >= times[:-1]).all():
        order, starts = kernels.group(held, wanted)
    else:
        by_time = times.argsort(kind="stable")
        order, starts = kernels.group(held[by_time], wanted)
        order = by_time[order]
    columns = np.empty((len(work.columns), len(order)), np.int64)
    for row, name in enumerate(work.columns):
        np.take(stream.column(name), order, out=columns[row])
    return columns, times[order], starts


def _values(work: _StreamWork, requests: Requests) -> IntArray:
    """What the requests say of themselves that events are compared with: (R, m)."""
    values = np.empty((len(work.values), len(requests)), np.int64)
    for row, name in enumerate(work.values):
        if name in KEYS:
            values[row] = requests.keys[name]
        else:
            field = requests.fields[name]
            values[row] = np.where(np.isnan(field), UNKNOWN, np.nan_to_num(field))
    return values


def _codes_in(column: str, key: str, asked: Iterable[Aggregate]) -> int:
    if column in CODES:
        return len(CODES[column]) + 1
    is_told_apart = any(a.by == key and a.column == column for a in asked)
    return -1 if is_told_apart and (column in KEYS or column in IDENTITIES) else 0


def _sizes(work: _StreamWork, columns: IntArray) -> IntArray:
    """How many codes each column has (C,), those of identifiers by the highest there is."""
    return _whole(
        int(columns[row].max(initial=-1)) + 1 if size < 0 else size
        for row, size in enumerate(work.codes[0])
    )


def combine(
    plan: Plan, requests: Requests, first_seen: Mapping[str, IntArray], out: FloatArray
) -> None:
    """What the requests themselves say and all that is derived, into rows of ``out`` (steps, m).

    ``first_seen`` (codes,) is when each entity was first seen; what was first seen at the cutoff
    or later was not seen yet.
    """
    for step, entity in plan.first_seen:
        code = requests.keys[entity]
        seen = first_seen[entity][code] if len(first_seen[entity]) else code
        out[step] = np.where((code >= 0) & (seen < requests.cutoff), seen, np.nan)
    _derive(plan, requests, out)


def _derive(plan: Plan, requests: Requests, out: FloatArray) -> None:
    for step, field in plan.fields:
        out[step] = requests.fields[field]
    d = plan.derived
    kernels.derive(d.op, d.step, d.inputs, d.bounds, requests.cutoff, out)


# --- one request, all keys at once ---------------------------------------------------------------


class Past(NamedTuple):
    """What a request may know of its keys.

    ``rows[key, event type]`` are packed events (`features.packed`) one behind the other, oldest
    first, all before the cutoff; ``holder`` has the values of the request's keys, ``first_seen``
    when each entity was first seen (epoch ms), None if not before the cutoff.
    """

    rows: Mapping[tuple[str, str], bytes]
    holder: Mapping[str, str]
    first_seen: Mapping[str, int | None]


class Row(Mapping[str, float]):
    """The features of one request by name, NaN where unknown.

    ``numbers`` (n,) are the same as an array, for who reads many: it takes longer to make a
    dictionary of all than to compute some.
    """

    __slots__ = ("_places", "numbers")

    def __init__(self, places: Mapping[str, int], numbers: FloatArray) -> None:
        self._places = places
        self.numbers = numbers

    def __getitem__(self, name: str) -> float:
        return float(self.numbers[self._places[name]])

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def compute_one(
    plan: Plan, event: RefundRequest, past: Past, rates: Rates, max_events: int = MAX_EVENTS
) -> Row:
    """All features of the plan by name for one request, from the slices its keys own."""
    ids = {key: id63(value) for key, value in past.holder.items()}
    rows, first_seen = past.rows, past.first_seen
    slices = [rows.get(pair, b"") for pair in plan.slices]
    seen = [first_seen.get(entity) for _, entity in plan.first_seen]
    own_ids = [*[ids.get(key, -1) for key in KEYS], -1]
    changes_ms, factors = rates.factors
    values = kernels.features_of(
        np.frombuffer(b"".join(slices), np.uint8),
        np.array(list(map(len, slices)), np.int64).reshape(
            len(plan.at_once.streams), len(plan.at_once.keys)
        ),
        plan.packed,
        np.array(own_ids, np.int64),
        np.array([key in ids for key in plan.at_once.keys], np.uint8),
        np.array(one_request(event, rates), np.float64),
        np.array(seen, np.float64),
        event.known_at, max_events, plan.steps, PLACE["currency"][rates.base],
        changes_ms, factors, EXACT_BELOW,
    )  # fmt: skip
    return Row(plan.place_of, values)
