"""The one engine: windows over streams. The only place that knows where a window begins and ends.

`aggregate` works on one key: events sorted by (holder, time), both window edges found by binary
search, counts and sums taken from prefix sums, last values by index; distinct values and order
statistics look at the events of each window. `combine` joins the keys and adds what the request
itself says, ratios and ages. Training calls it with a year of requests, serving with one request
and the slices its keys own: the same code, so the two cannot drift.

A window of w days before a cutoff c is [c - w, c) on the effective known_at, and holds at most
the latest `MAX_EVENTS` events of its type; the request's own refund is never in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.attribution import CODES, FloatArray, History, IntArray, Requests, Stream
from features.feature import (
    MAX_DAYS,
    Age,
    Aggregate,
    Between,
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
from features.money import DAY_MS

BoolArray = NDArray[np.bool_]

MAX_EVENTS: Final = 1000
"""A window holds at most this many events of its type: the latest."""

_PAIRS_AT_ONCE: Final = 4_000_000
"""How many (request, event) pairs the distinct and order kernels hold in memory."""


@dataclass(frozen=True)
class _Sorted:
    """A stream's events under one key, by (holder, time, tie), and where they sit in the stream."""

    rows: IntArray
    holder: IntArray
    time: IntArray

    @classmethod
    def of(cls, stream: Stream, key: str) -> _Sorted:
        holder, time = stream.keys[key], stream.times[key]
        rows = np.lexsort((stream.tie, time, holder))
        rows = rows[np.searchsorted(holder[rows], 0) :]
        return cls(rows, holder[rows], time[rows])


@dataclass(frozen=True)
class _Windows:
    """For m requests and their windows: event ranges [left, right), and the own refund's place."""

    left: Mapping[int, IntArray]
    right: IntArray
    own: IntArray
    """Where in the sorted events the request's own refund stands, -1 if nowhere before it."""


def _search(events: _Sorted, holder: IntArray, at: Sequence[IntArray]) -> list[IntArray]:
    """For each instant array (m,): how many events come before (holder, instant)."""
    before = min(int(instants.min()) for instants in at) - 1
    span = max(int(instants.max()) for instants in at) - before + 2
    holders = int(max(holder.max(), events.holder.max(initial=0))) + 1
    if holders * span >= 2**63:
        raise OverflowError(f"{holders} holders over {span} ms: compute fewer requests at a time")
    # One sorted axis for all holders. Events before every instant, or after all of them, need only
    # keep their side, so their times can be clipped.
    axis = events.holder * span + np.clip(events.time - before, 0, span - 1)
    return [np.searchsorted(axis, holder * span + (instants - before)) for instants in at]


def _windows(
    events: _Sorted, stream: Stream, requests: Requests, key: str, days: Iterable[int]
) -> _Windows:
    """Both edges of every window; the left one clamped to the latest `MAX_EVENTS`."""
    holder = np.maximum(requests.keys[key], 0)
    lengths = sorted(set(days))
    edges = [requests.cutoff, *(requests.cutoff - d * DAY_MS for d in lengths)]
    right, *lefts = _search(events, holder, edges)
    own = _own_place(events, stream, requests, holder, right)
    # The own refund takes no room in the window: one more event may be reached past it.
    latest = right - MAX_EVENTS
    latest = latest - (own >= latest) * (own >= 0)
    return _Windows(
        {d: np.maximum(left, latest) for d, left in zip(lengths, lefts, strict=True)}, right, own
    )


def _own_place(
    events: _Sorted, stream: Stream, requests: Requests, holder: IntArray, right: IntArray
) -> IntArray:
    versions = stream.own_refund
    if versions is None or not len(events.rows):
        return np.full(len(requests), -1, np.int64)
    refund = versions[events.rows]
    wanted = requests.keys["refund"]
    place_of = np.full(max(int(refund.max()), int(wanted.max())) + 2, -1, np.int64)
    place_of[refund] = np.arange(len(refund))
    place = place_of[wanted]
    seen = (place >= 0) & (place < right) & (events.holder[place] == holder)
    return np.where(seen, place, -1)


# --- kernels ---------------------------------------------------------------------------------


def _prefix(values: NDArray[np.generic]) -> IntArray:
    # int64 wraps around, and differences of wrapped sums are exact while a window's own sum fits:
    # 1,000 events of at most 10^15 minor units do.
    out = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, dtype=np.int64, out=out[1:])
    return out


def _between(prefix: IntArray, values: NDArray[np.generic], w: _Windows, days: int) -> IntArray:
    """The sum over each window (m,), the own refund left out."""
    left = w.left[days]
    sums = prefix[w.right] - prefix[left]
    inside = w.own >= left
    if inside.any():
        sums = sums - np.where(inside, values[w.own].astype(np.int64), 0)
    return sums


def _last_place(chosen: BoolArray, w: _Windows, days: int) -> IntArray:
    """Where the latest chosen event of each window stands (m,), -1 if there is none."""
    latest = np.full(len(chosen) + 1, -1, np.int64)
    np.maximum.accumulate(np.where(chosen, np.arange(len(chosen)), -1), out=latest[1:])
    place = latest[w.right]
    place = np.where((place == w.own) & (place >= 0), latest[np.maximum(w.own, 0)], place)
    return np.where(place >= w.left[days], place, -1)


def _pairs(chosen: BoolArray, w: _Windows, days: int) -> Iterator[tuple[slice, IntArray, IntArray]]:
    """Every (request, event) pair of the windows, in chunks: requests, request number, event."""
    left = w.left[days]
    sizes = w.right - left
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right")))
        part = slice(start, stop)
        request = np.repeat(np.arange(stop - start), sizes[part])
        offset = np.arange(len(request)) - np.repeat(ends[part] - sizes[part] - done, sizes[part])
        event = left[part][request] + offset
        keep = chosen[event] & (event != w.own[part][request])
        yield part, request[keep], event[keep]
        start = stop


def _distinct(values: FloatArray, chosen: BoolArray, w: _Windows, days: int) -> FloatArray:
    """How many different values each window holds: those whose previous bearer is outside it."""
    out = np.zeros(len(w.right))
    bearers = np.flatnonzero(chosen)
    # Events of another holder stand outside the window anyway, so one chain serves all holders.
    order = bearers[np.argsort(values[bearers], kind="stable")]
    previous = np.full(len(values), -1, np.int64)
    same = values[order[1:]] == values[order[:-1]]
    previous[order[1:][same]] = order[:-1][same]
    for part, request, event in _pairs(chosen, w, days):
        before = previous[event]
        own = w.own[part][request]
        through_own = (before == own) & (own >= 0)
        before = np.where(through_own, previous[own], before)
        new = before < w.left[days][part][request]
        out[part] = np.bincount(request[new], minlength=part.stop - part.start)
    return out


def _order_statistic(
    values: FloatArray, chosen: BoolArray, w: _Windows, days: int, op: str
) -> FloatArray:
    """The median or maximum of each window (m,), NaN over nothing."""
    out = np.full(len(w.right), np.nan)
    for part, request, event in _pairs(chosen, w, days):
        ranked = values[event][np.lexsort((values[event], request))]
        size = np.bincount(request, minlength=part.stop - part.start)
        end = np.cumsum(size)
        held = size > 0
        first, count = (end - size)[held], size[held]
        if op == "maximum":
            out[part][held] = ranked[end[held] - 1]
        else:
            low, high = ranked[first + (count - 1) // 2], ranked[first + count // 2]
            out[part][held] = low + (high - low) / 2
    return out


# --- one key ---------------------------------------------------------------------------------


def _among(codes: FloatArray, column: str, values: tuple[str | None, ...]) -> BoolArray:
    found = np.isin(codes, [CODES[column].index(v) for v in values if v is not None])
    return found | np.isnan(codes) if None in values else found


def _chosen(where: Where | None, stream: Stream, rows: IntArray) -> BoolArray:
    """Which of the sorted events a condition picks (n,)."""
    if where is None:
        return np.ones(len(rows), np.bool_)
    return np.asarray(
        np.logical_or.reduce([
            np.logical_and.reduce([
                _among(stream.columns[column][rows], column, values) for column, values in group
            ])
            for group in where.groups
        ])
    )  # fmt: skip


def _empty(op: str, m: int) -> FloatArray:
    return np.zeros(m) if op in ("count", "total", "distinct") else np.full(m, np.nan)


def _column(stream: Stream, column: str, rows: IntArray) -> FloatArray:
    if column in stream.columns:
        return stream.columns[column][rows]
    codes = stream.keys[column][rows]
    return np.where(codes >= 0, codes, np.nan)


class _Scan:
    """The windows of one stream under one key, with what its aggregates share."""

    def __init__(self, stream: Stream, requests: Requests, key: str, days: Iterable[int]) -> None:
        self.stream = stream
        self.cutoff = requests.cutoff
        self.events = _Sorted.of(stream, key)
        self.windows = _windows(self.events, stream, requests, key, days)
        self._chosen: dict[Where | None, BoolArray] = {}
        self._prefixes: dict[tuple[Where | None, str | None], tuple[IntArray, FloatArray]] = {}

    def chosen(self, where: Where | None) -> BoolArray:
        if where not in self._chosen:
            self._chosen[where] = _chosen(where, self.stream, self.events.rows)
        return self._chosen[where]

    def _sum(self, where: Where | None, column: str | None, days: int) -> IntArray:
        """Sum of a column's known values; of ones for None; of unknowns for ``"?" + column``."""
        if (where, column) not in self._prefixes:
            chosen = self.chosen(where)
            values = chosen.astype(np.float64)
            if column is not None:
                found = _column(self.stream, column.removeprefix("?"), self.events.rows)
                unknown = np.isnan(found)
                values = values * (unknown if column[0] == "?" else np.where(unknown, 0.0, found))
            self._prefixes[where, column] = _prefix(values), values
        prefix, values = self._prefixes[where, column]
        return _between(prefix, values, self.windows, days)

    def value(self, a: Aggregate) -> FloatArray:
        """One aggregate for every request (m,)."""
        w = self.windows
        if a.op == "count":
            return self._sum(a.where, None, a.days).astype(np.float64)
        if a.op == "since_last":
            place = _last_place(self.chosen(a.where), w, a.days)
            return np.where(place >= 0, (self.cutoff - self.events.time[place]) / DAY_MS, np.nan)
        column = a.column or ""
        if a.op in ("total", "mean"):
            sums = self._sum(a.where, column, a.days).astype(np.float64)
            unknown = self._sum(a.where, f"?{column}", a.days)
            if a.op == "total":
                return np.where(unknown > 0, np.nan, sums)
            known = self._sum(a.where, None, a.days) - unknown
            return np.divide(sums, known, out=np.full(len(sums), np.nan), where=known > 0)
        values = _column(self.stream, column, self.events.rows)
        chosen = self.chosen(a.where) & ~np.isnan(values)
        if a.op == "distinct":
            return _distinct(values, chosen, w, a.days)
        if a.op == "last":
            place = _last_place(chosen, w, a.days)
            return np.where(place >= 0, values[place], np.nan)
        return _order_statistic(values, chosen, w, a.days, a.op)


def aggregate(
    streams: Mapping[str, Stream], requests: Requests, key: str, wanted: Sequence[Aggregate]
) -> dict[Aggregate, FloatArray]:
    """The aggregates ``wanted`` of one key for every request: float64 arrays (m,).

    A request without that key (no device was sent) gets NaN; a count or sum of nothing is 0.
    """
    out: dict[Aggregate, FloatArray] = {}
    absent = requests.keys[key] < 0
    by_stream: dict[str, list[Aggregate]] = {}
    for a in wanted:
        by_stream.setdefault(a.stream, []).append(a)
    for name, aggregates in by_stream.items():
        stream = streams.get(name)
        if stream is None or not len(stream) or not len(requests):
            out |= {a: _empty(a.op, len(requests)) for a in aggregates}
        else:
            scan = _Scan(stream, requests, key, {a.days for a in aggregates})
            if not len(scan.events.rows):
                out |= {a: _empty(a.op, len(requests)) for a in aggregates}
            else:
                out |= {a: scan.value(a) for a in aggregates}
    if absent.any():
        out = {a: np.where(absent, np.nan, values) for a, values in out.items()}
    return out


# --- all keys --------------------------------------------------------------------------------


def combine(
    aggregates: Mapping[Aggregate, FloatArray],
    requests: Requests,
    first_seen: Mapping[str, IntArray],
    expressions: Iterable[Expression],
) -> dict[str, FloatArray]:
    """Every expression by its name (m,), from aggregates of all keys and the requests' own fields.

    An age is cutoff minus a business time; a time later than the cutoff is unknown, not negative.
    A ratio over nothing is NaN.
    """
    done: dict[Expression, FloatArray] = {a: values for a, values in aggregates.items()}  # noqa: C416
    for expression in expressions:
        for part in expression.walk():
            if part not in done:
                done[part] = _evaluate(part, done, requests, first_seen)
    return {expression.name: done[expression] for expression in expressions}


def _evaluate(
    e: Expression,
    done: Mapping[Expression, FloatArray],
    requests: Requests,
    first_seen: Mapping[str, IntArray],
) -> FloatArray:
    cutoff = requests.cutoff
    match e:
        case Field(column):
            return requests.fields[column]
        case FirstSeen(entity):
            code = requests.keys[entity]
            if not len(first_seen[entity]):
                return np.full(len(cutoff), np.nan)
            seen = first_seen[entity][np.maximum(code, 0)]
            return np.where((code >= 0) & (seen < cutoff), seen.astype(np.float64), np.nan)
        case Coalesce(of):
            value = done[of[0]]
            for other in of[1:]:
                value = np.where(np.isnan(value), done[other], value)
            return value
        case Age(of):
            age = (cutoff - done[of]) / DAY_MS
            return np.where(age >= 0, age, np.nan)
        case Between(start, end):
            past = (done[start] <= cutoff) & (done[end] <= cutoff)
            return np.where(past, (done[end] - done[start]) / DAY_MS, np.nan)
        case Ratio(top, bottom):
            below = done[bottom]
            return np.divide(done[top], below, out=np.full(len(below), np.nan), where=below > 0)
        case Difference(_, left, right):
            return done[left] - done[right]
        case Known(of):
            return (~np.isnan(done[of])).astype(np.float64)
        case _:
            raise TypeError(f"no way to compute {type(e).__name__}")


@dataclass(frozen=True)
class Plan:
    """What a list of features needs, worked out once: aggregates by key, and what they read."""

    features: tuple[Feature, ...]
    by_key: Mapping[str, tuple[Aggregate, ...]]
    reads: Mapping[tuple[str, str], tuple[str, ...]]
    """(key, stream) -> the stream's columns and keys that any aggregate of that key reads."""

    @classmethod
    def of(cls, features: Iterable[Feature]) -> Plan:
        """The plan for ``features``; raises ValueError when two of them share a name."""
        features = tuple(features)
        names = [feature.name for feature in features]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"features defined twice: {', '.join(sorted(doubled))}")
        by_key: dict[str, dict[Aggregate, None]] = {}
        reads: dict[tuple[str, str], set[str]] = {}
        for feature in features:
            for part in feature.expression.walk():
                if isinstance(part, Aggregate):
                    by_key.setdefault(part.by, {})[part] = None
                    columns = reads.setdefault((part.by, part.stream), set())
                    columns.update(part.columns)
                    if part.stream == "refund_request":
                        columns.add("refund")
        return cls(
            features,
            {key: tuple(wanted) for key, wanted in by_key.items()},
            {pair: tuple(sorted(columns)) for pair, columns in reads.items()},
        )

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """The features' expressions, in order."""
        return tuple(feature.expression for feature in self.features)


def compute(
    plan: Plan, requests: Requests, history_of: Mapping[str, History] | History
) -> dict[str, FloatArray]:
    """All features of the plan by name (m,): `aggregate` per key, then `combine`.

    ``history_of`` is one history for all keys (a data folder) or one per key (serving's slices).
    """
    done: dict[Aggregate, FloatArray] = {}
    first_seen: dict[str, IntArray] = {}
    for key, wanted in plan.by_key.items():
        history = history_of if isinstance(history_of, History) else history_of[key]
        done |= aggregate(history.streams, requests, key, wanted)
    histories = [history_of] if isinstance(history_of, History) else history_of.values()
    for history in histories:
        first_seen |= history.first_seen
    return combine(done, requests, first_seen, plan.expressions)


__all__ = ["MAX_DAYS", "MAX_EVENTS", "Plan", "aggregate", "combine", "compute"]
