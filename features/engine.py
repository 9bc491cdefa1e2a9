"""The one engine: windows over streams. The only place that knows where a window begins and ends.

`aggregate` works on one key, or on several that share one sorted axis: both edges of a window are
found by binary search on it, counts and sums taken from prefix sums, last values by index; distinct
values and order statistics look at the events of each window. Aggregates that differ in window or
key alone are computed in one stroke. `combine` adds what the request itself says, ratios and ages.
Training calls it with a year of requests, key by key; serving with one request and the slices its
keys own, all keys at once: the same code, so the two cannot drift.

A window of w days before a cutoff c is [c - w, c) on the effective known_at, and holds at most
the latest `MAX_EVENTS` events of its type; the request's own refund is never in it.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.attribution import CODES, FloatArray, History, IntArray, Requests, Stream
from features.events import KEYS
from features.feature import (
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
    Op,
    Ratio,
    Where,
)
from features.money import DAY_MS

BoolArray = NDArray[np.bool_]

MAX_EVENTS: Final = 1000
"""A window holds at most this many events of its type: the latest."""

_PAIRS_AT_ONCE: Final = 4_000_000
"""How many (window, event) pairs the distinct and order kernels hold in memory."""


# --- what to compute, worked out once ----------------------------------------------------------


@dataclass(frozen=True)
class _Measure:
    """P aggregates of one stream that are one operation, computed in one stroke."""

    op: Op
    sources: tuple[tuple[str | None, Where | None], ...]
    """The columns they are about, and the conditions on them."""
    steps: tuple[int, ...]
    """(P,) the plan's steps that they are"""
    source: IntArray
    """(P, 1) which of the sources"""
    key: IntArray
    """(P,) which of the work's keys"""
    window: IntArray
    """(P,) which of the stream's windows"""


@dataclass(frozen=True)
class _StreamWork:
    """All that is asked of one stream."""

    name: str
    edges_ms: IntArray
    """(1 + W,) how long before the cutoff its windows end, which is 0, and begin"""
    measures: tuple[_Measure, ...]


@dataclass(frozen=True)
class Work:
    """Aggregates of one or more keys, arranged so that what they share is computed once."""

    keys: tuple[str, ...]
    streams: tuple[_StreamWork, ...]

    @classmethod
    def of(cls, step_of: Mapping[Aggregate, int]) -> Work:
        """Arrange aggregates, each with the step of the plan that it is."""
        aggregates = tuple(step_of)
        keys = tuple(dict.fromkeys(a.by for a in aggregates))
        streams = []
        for name in dict.fromkeys(a.stream for a in aggregates):
            of_stream = [a for a in aggregates if a.stream == name]
            days = sorted({a.days for a in of_stream})
            measures = []
            for op in dict.fromkeys(a.op for a in of_stream):
                alike = [a for a in of_stream if a.op == op]
                sources = tuple(dict.fromkeys((a.column, a.where) for a in alike))
                measures.append(
                    _Measure(
                        op,
                        sources,
                        tuple(step_of[a] for a in alike),
                        np.array([[sources.index((a.column, a.where))] for a in alike]),
                        np.array([keys.index(a.by) for a in alike]),
                        np.array([days.index(a.days) for a in alike]),
                    )
                )
            edges_ms = np.array([0, *days], np.int64) * DAY_MS
            streams.append(_StreamWork(name, edges_ms, tuple(measures)))
        return cls(keys, tuple(streams))


@dataclass(frozen=True)
class Plan:
    """What a list of features needs, worked out once: aggregates by key, and what they read."""

    features: tuple[Feature, ...]
    derived: tuple[tuple[int, Expression, tuple[int, ...]], ...]
    """Every expression but the aggregates: its step and those of its inputs, inputs first."""
    step_of: Mapping[str, int]
    """The step of each feature, in the order of the features."""
    by_key: Mapping[str, Work]
    at_once: Work
    reads: Mapping[tuple[str, str], tuple[str, ...]]
    """(key, stream) -> the stream's columns and keys that any aggregate of that key reads."""

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
        by_key: dict[str, dict[Aggregate, int]] = {}
        reads: dict[tuple[str, str], set[str]] = {}
        for a, step in aggregates.items():
            by_key.setdefault(a.by, {})[a] = step
            columns = reads.setdefault((a.by, a.stream), set())
            columns.update(a.columns)
            if a.stream == "refund_request":
                columns.add("refund")
        return cls(
            features,
            tuple(
                (step, part, tuple(step_of[of] for of in part.inputs))
                for part, step in step_of.items()
                if not isinstance(part, Aggregate)
            ),
            {feature.name: step_of[feature.expression] for feature in features},
            {key: Work.of(of_key) for key, of_key in by_key.items()},
            Work.of(aggregates),
            {pair: tuple(sorted(columns)) for pair, columns in reads.items()},
        )


# --- windows -----------------------------------------------------------------------------------


class _Windows(NamedTuple):
    """Ranges [left, right) of sorted events, and where the own refund stands; all (P, m)."""

    left: IntArray
    right: IntArray
    own: IntArray | None
    """-1 where the own refund is not among the earlier events; None if it never is."""


@dataclass(frozen=True)
class _Asked:
    """What m requests ask of k keys. All keys share one axis: they count holders in steps of k."""

    cutoff: IntArray
    """(m,)"""
    first: int
    last: int
    """The first and the last cutoff."""
    holder: IntArray
    """(k, m) on the shared axis"""
    refund: IntArray
    """(k, m) each request's own refund, counted like the holders"""
    most: int
    """The highest holder."""
    absent: BoolArray
    """(k, m) where a request has no such key; its holder is then any"""

    @classmethod
    def of(cls, requests: Requests, keys: Sequence[str]) -> _Asked:
        k, cutoff = len(keys), requests.cutoff
        codes, number = np.array([requests.keys[key] for key in keys]), np.arange(k)[:, None]
        holder = np.maximum(codes, 0) * k + number
        return cls(
            cutoff, int(cutoff.min()), int(cutoff.max()), holder,
            requests.keys["refund"] * k + number, int(holder.max()), codes < 0,
        )  # fmt: skip


Part = tuple[int, str, Stream]
"""A key's number and name, and its events of one stream."""


class _Scan:
    """The events of one stream, sorted by holder and time, and the windows asked of them."""

    def __init__(self, edges_ms: IntArray, parts: Sequence[Part], asked: _Asked) -> None:
        self._streams = [stream for _, _, stream in parts]
        self._cutoff, k = asked.cutoff, len(asked.holder)
        held = np.concatenate([stream.keys[key] * k + number for number, key, stream in parts])
        time = np.concatenate([stream.times[key] for _, key, stream in parts])
        tie = np.concatenate([stream.tie for stream in self._streams])

        # Events before every window, or after all, need only keep their side: times are clipped.
        before = asked.first - int(edges_ms[-1]) - 1
        span = asked.last - before + 2
        holders = max(asked.most, int(held.max())) + 1
        if holders * span >= 2**63:
            raise OverflowError(
                f"{holders} holders over {span} ms: compute fewer requests at a time"
            )
        axis = held * span + np.minimum(np.maximum(time - before, 0), span - 1)
        self._order = np.lexsort((tie, axis))
        self._time, axis = time[self._order], axis[self._order]
        edges = _search(axis, asked.holder * span + (asked.cutoff - before), edges_ms)
        self._right = edges[0]
        self._own = self._own_place(held[self._order], asked)
        latest = self._right - MAX_EVENTS
        if self._own is not None:
            # The own refund takes no room in the window: one more event may be reached past it.
            latest = latest - ((self._own >= latest) & (self._own >= 0))
        self._left = np.maximum(edges[1:], latest)
        self._columns: dict[str, FloatArray] = {}

    def _own_place(self, held: IntArray, asked: _Asked) -> IntArray | None:
        versions = [s.own_refund for s in self._streams if s.own_refund is not None]
        if not versions:
            return None
        k = len(asked.holder)
        refund = np.concatenate(versions)[self._order] * k + held % k
        place_of = np.full(max(int(refund.max()), int(asked.refund.max())) + 1, -1)
        place_of[refund] = np.arange(len(refund))
        place = place_of[asked.refund]
        # Among another holder's events it stands outside the windows, like all of theirs.
        seen = (place >= 0) & (place < self._right)
        return np.where(seen, place, -1) if seen.any() else None

    def _column(self, name: str) -> FloatArray:
        """A column or key of the sorted events; NaN in a slice whose own key does not read it."""
        if name not in self._columns:
            values = np.full(len(self._order), np.nan)
            start = 0
            for stream in self._streams:
                stop = start + len(stream)
                found = stream.keys if name in KEYS else stream.columns
                if name in found:
                    values[start:stop] = found[name]
                start = stop
            if name in KEYS:
                values[values < 0] = np.nan
            self._columns[name] = values[self._order]
        return self._columns[name]

    def _chosen(self, where: Where | None) -> BoolArray:
        if where is None:
            return np.ones(len(self._order), np.bool_)
        groups = (
            functools.reduce(
                operator.and_, (_among(self._column(name), name, values) for name, values in group)
            )
            for group in where.groups
        )
        return functools.reduce(operator.or_, groups)

    def _windows(self, measure: _Measure) -> _Windows:
        """The windows (P, m) of a measure, on its sources one behind the other."""
        shift = measure.source * len(self._order)
        own = None
        if self._own is not None:
            own = self._own[measure.key]
            own = np.where(own >= 0, own + shift, -1)
        return _Windows(
            self._left[measure.window, measure.key] + shift, self._right[measure.key] + shift, own
        )

    def value(self, measure: _Measure) -> FloatArray:
        """The aggregates of a measure for every request (P, m)."""
        windows = self._windows(measure)
        chosen = np.concatenate([self._chosen(where) for _, where in measure.sources])
        op = measure.op
        if op == "count":
            return _sums(chosen, windows).astype(np.float64)
        if op == "since_last":
            place = _last_place(chosen, windows)
            time = self._time[place % len(self._time)]
            return np.where(place >= 0, (self._cutoff - time) / DAY_MS, np.nan)
        values = np.concatenate([self._column(column or "") for column, _ in measure.sources])
        unknown = np.isnan(values)
        known = chosen & ~unknown
        if op == "total":
            sums = _sums(np.where(known, values, 0), windows)
            return np.where(_sums(chosen & unknown, windows) > 0, np.nan, sums)
        if op == "mean":
            sums = _sums(np.where(known, values, 0), windows)
            return _over(sums, _sums(known, windows))
        if op == "distinct":
            return _distinct(values, known, windows)
        if op == "last":
            place = _last_place(known, windows)
            return np.where(place >= 0, values[place], np.nan)
        return _order_statistic(values, known, windows, op)


def _search(axis: IntArray, at: IntArray, earlier: IntArray) -> IntArray:
    """How many events stand before each point less each of some lengths: (W, *points)."""
    # In order, a million binary searches stay in the cache: ten times faster than out of it.
    order = at.ravel().argsort()
    found = np.empty((len(earlier), at.size), np.int64)
    found[:, order] = axis.searchsorted(at.ravel()[order] - earlier[:, None])
    return found.reshape(len(earlier), *at.shape)


def _among(codes: FloatArray, column: str, values: tuple[str | None, ...]) -> BoolArray:
    places = CODES[column]
    return functools.reduce(
        operator.or_,
        (np.isnan(codes) if value is None else codes == places.index(value) for value in values),
    )


# --- kernels: values (n,) of sorted events and windows (P, m) to results (P, m) ------------------


def _sums(values: NDArray[Any], w: _Windows) -> IntArray:
    """The sum over each window of whole numbers, the own refund left out."""
    # int64 wraps around, and differences of wrapped sums are exact while a window's own sum fits:
    # 1,000 events of at most 10^15 minor units do.
    prefix = np.zeros(len(values) + 1, np.int64)
    values.cumsum(dtype=np.int64, out=prefix[1:])
    sums = prefix[w.right] - prefix[w.left]
    if w.own is None:
        return sums
    return sums - np.where(w.own >= w.left, values[w.own].astype(np.int64), 0)


def _last_place(chosen: BoolArray, w: _Windows) -> IntArray:
    """Where the latest chosen event of each window stands, -1 if there is none."""
    latest = np.full(len(chosen) + 1, -1)
    np.maximum.accumulate(np.where(chosen, np.arange(len(chosen)), -1), out=latest[1:])
    place = latest[w.right]
    if w.own is not None:
        place = np.where((place == w.own) & (place >= 0), latest[w.own], place)
    return np.where(place >= w.left, place, -1)


def _pairs(chosen: BoolArray, w: _Windows) -> Iterator[tuple[slice, IntArray, IntArray]]:
    """Every (window, event) pair in chunks: which windows of all (P * m), their number, event."""
    left, right = w.left.ravel(), w.right.ravel()
    own = None if w.own is None else w.own.ravel()
    sizes = right - left
    ends = sizes.cumsum()
    start = 0
    while start < len(sizes):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(ends.searchsorted(done + _PAIRS_AT_ONCE, side="right")))
        part = slice(start, stop)
        window = np.arange(stop - start).repeat(sizes[part])
        # Events count up within a window, and jump to the next one's left edge.
        event = np.arange(len(window)) + (right[part] - (ends[part] - done))[window]
        keep = chosen[event]
        if own is not None:
            keep &= event != own[part][window]
        yield part, window[keep], event[keep]
        start = stop


def _distinct(values: FloatArray, chosen: BoolArray, w: _Windows) -> FloatArray:
    """How many different values each window holds: those whose previous bearer is outside it."""
    bearers = chosen.nonzero()[0]
    # Events of another holder or source stand outside the window: one chain serves them all.
    order = bearers[values[bearers].argsort(kind="stable")]
    previous = np.full(len(values), -1)
    same = values[order[1:]] == values[order[:-1]]
    previous[order[1:][same]] = order[:-1][same]
    left = w.left.ravel()
    out = np.zeros(left.size)
    for part, window, event in _pairs(chosen, w):
        before = previous[event]
        if w.own is not None:
            own = w.own.ravel()[part][window]
            before = np.where((before == own) & (own >= 0), previous[own], before)
        new = before < left[part][window]
        out[part] = np.bincount(window[new], minlength=part.stop - part.start)
    return out.reshape(w.left.shape)


def _order_statistic(values: FloatArray, chosen: BoolArray, w: _Windows, op: Op) -> FloatArray:
    """The median or maximum of each window, NaN over nothing."""
    out = np.full(w.left.size, np.nan)
    for part, window, event in _pairs(chosen, w):
        found = values[event]
        ranked = found[np.lexsort((found, window))]
        size = np.bincount(window, minlength=part.stop - part.start)
        end = size.cumsum()
        held = size > 0
        first, count = (end - size)[held], size[held]
        if op == "maximum":
            out[part][held] = ranked[end[held] - 1]
        else:
            low, high = ranked[first + (count - 1) // 2], ranked[first + count // 2]
            out[part][held] = low + (high - low) / 2
    return out.reshape(w.left.shape)


# --- from streams to features --------------------------------------------------------------------


def aggregate(
    work: Work, streams_of: Mapping[str, Mapping[str, Stream]], requests: Requests
) -> dict[int, FloatArray]:
    """The aggregates of ``work`` for every request, by step of the plan: float64 arrays (m,).

    ``streams_of`` has the streams of each key. A request without a key (no device was sent) gets
    NaN; a count or sum of nothing is 0.
    """
    out: dict[int, FloatArray] = {}
    m = len(requests)
    if not m:
        return {step: np.zeros(0) for of in work.streams for p in of.measures for step in p.steps}
    asked = _Asked.of(requests, work.keys)
    some_absent = bool(asked.absent.any())
    for of_stream in work.streams:
        parts = [
            (number, key, stream)
            for number, key in enumerate(work.keys)
            if (stream := streams_of[key].get(of_stream.name)) is not None and len(stream)
        ]
        scan = _Scan(of_stream.edges_ms, parts, asked) if parts else None
        for measure in of_stream.measures:
            if scan is None:
                nothing = 0.0 if measure.op in ("count", "total", "distinct") else np.nan
                values = np.full((len(measure.steps), m), nothing)
            else:
                values = scan.value(measure)
            if some_absent:
                values = np.where(asked.absent[measure.key], np.nan, values)
            out.update(zip(measure.steps, values, strict=True))
    return out


def combine(
    plan: Plan,
    aggregates: Mapping[int, FloatArray],
    requests: Requests,
    first_seen: Mapping[str, IntArray],
) -> dict[str, FloatArray]:
    """Every feature by its name (m,), from the aggregates by step and the requests' own fields.

    An age is cutoff minus a business time; a time later than the cutoff is unknown, not negative.
    A ratio over nothing is NaN.
    """
    done = dict(aggregates)
    for step, expression, inputs in plan.derived:
        done[step] = _evaluate(expression, [done[of] for of in inputs], requests, first_seen)
    return {name: done[step] for name, step in plan.step_of.items()}


def _over(top: FloatArray | IntArray, bottom: FloatArray | IntArray) -> FloatArray:
    return top / np.where(bottom > 0, bottom, np.nan)


def _evaluate(
    e: Expression,
    inputs: Sequence[FloatArray],
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
            seen = first_seen[entity][code]
            return np.where((code >= 0) & (seen < cutoff), seen, np.nan)
        case Coalesce():
            value, *others = inputs
            for other in others:
                value = np.where(np.isnan(value), other, value)
            return value
        case Age():
            age = (cutoff - inputs[0]) / DAY_MS
            return np.where(age >= 0, age, np.nan)
        case Between():
            start, end = inputs
            past = (start <= cutoff) & (end <= cutoff)
            return np.where(past, (end - start) / DAY_MS, np.nan)
        case Ratio():
            top, bottom = inputs
            return _over(top, bottom)
        case Difference():
            left, right = inputs
            return left - right
        case Known():
            return (~np.isnan(inputs[0])).astype(np.float64)
        case _:
            raise TypeError(f"no way to compute {type(e).__name__}")


def compute(
    plan: Plan, requests: Requests, history_of: Mapping[str, History] | History
) -> dict[str, FloatArray]:
    """All features of the plan by name (m,): `aggregate`, then `combine`.

    ``history_of`` is one history for all keys (a data folder), worked through key by key, or one
    per key (serving's slices), worked through at once.
    """
    if isinstance(history_of, History):
        done: dict[int, FloatArray] = {}
        for key, work in plan.by_key.items():
            done |= aggregate(work, {key: history_of.streams}, requests)
        return combine(plan, done, requests, history_of.first_seen)
    streams_of = {key: history.streams for key, history in history_of.items()}
    first_seen = {
        entity: seen
        for history in history_of.values()
        for entity, seen in history.first_seen.items()
    }
    done = aggregate(plan.at_once, streams_of, requests)
    return combine(plan, done, requests, first_seen)


__all__ = ["MAX_EVENTS", "Plan", "Work", "aggregate", "combine", "compute"]
