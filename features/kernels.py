"""The compiled loops of the engine: grouping events by holder, sliding windows, derived numbers.

One pass serves a year of requests and a single one. The events of a holder lie in order of time and
so do its requests: from one request to the next both edges of a window only move forward. Counts
and sums are differences of running sums at the edges. For the rest each event enters a window once
and leaves it once, and what the window holds is kept up to date as they pass: how often each value
occurs, the latest event about each thing, a sorted list for order statistics. The cost is that of
the events and requests, however long or busy the windows are.

A **cell** is one aggregate: an operation on the events that a *source* (a condition) chooses, in
one window. Cells are arranged by the kind of key they are about and by window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
ByteArray = NDArray[np.uint8]

UNKNOWN: Final = int(np.iinfo(np.int64).min)
"""What stands for a value that is not known in columns of whole numbers."""

OPS: Final = (
    "count", "total", "mean",  # from running sums
    "distinct", "count_same", "entropy",  # from how often each value occurs
    "median", "maximum",  # from the values in order
    "standing", "last", "since_last", "since_first", "distinct_near",
)  # fmt: skip
"""A cell's operation is its place here; those that work alike are neighbours."""

_COUNT, _TOTAL, _MEAN, _DISTINCT, _SAME, _ENTROPY, _MEDIAN, _MAXIMUM, _STANDING, _LAST, \
    _SINCE_LAST, _SINCE_FIRST, _NEAR = range(len(OPS))  # fmt: skip

DERIVED: Final = ("coalesce", "age", "between", "ratio", "difference", "both", "known")
"""What is computed from other numbers; the code is the place here."""

_COALESCE, _AGE, _BETWEEN, _RATIO, _DIFFERENCE, _BOTH, _KNOWN = range(len(DERIVED))

_DAY_MS: Final = 86_400_000.0

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile at the first call; keep the machine code on disk for the next process.

    Where nothing can be written, as in a read-only container, each process compiles for itself.
    """
    try:
        made = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # "no locator available": no folder to keep it in
        made = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(_Function, made)


def inlined(function: _Function) -> _Function:
    """Compile into each caller."""
    return cast(_Function, numba.njit(inline="always", error_model="numpy")(function))


class Cells(NamedTuple):
    """What is asked of one stream. P cells on S sources; K kinds of keys, W windows, T tests.

    A source chooses an event when all tests of any of its groups hold; without groups it chooses
    all. ``bounds`` has the first cell of each (kind of key, window) and the end of the last.
    """

    op: IntArray
    """(P,) places in `OPS`"""
    source: IntArray
    """(P,)"""
    column: IntArray
    """(P,) the column it is about, -1 for none"""
    request_value: IntArray
    """(P,) the request value that count_same and distinct_near compare with, else -1"""
    near_column: IntArray
    """(P,) the column that distinct_near compares"""
    near_ms: IntArray
    """(P,) how far from the request's value it may be"""
    sum_of: IntArray
    """(P,) which running sum a count, total or mean is read from; -1 for a count of all events"""
    sum_op: IntArray
    """(Q,) the running sums: places in `OPS`, each for all windows at once"""
    sum_source: IntArray
    """(Q,)"""
    sum_column: IntArray
    """(Q,) -1 for none"""
    bounds: IntArray
    """(K * W + 1,)"""
    sums_end: IntArray
    """(K * W,) where counts, totals and means end: they come first"""
    edges_ms: IntArray
    """(W,) how long before the cutoff each window begins, ascending"""
    groups_of_source: IntArray
    """(S + 1,) where the groups of each source begin"""
    tests_of_group: IntArray
    """(G + 1,) where the tests of each group begin"""
    test_column: IntArray
    """(T,)"""
    allowed: ByteArray
    """(T, V) whether a test holds for the code + 1; 0 stands for unknown"""


# --- grouping ----------------------------------------------------------------------------------


@compiled
def group(holder: IntArray, wanted: ByteArray) -> tuple[IntArray, IntArray]:
    """The places (n',) of the wanted holders' items, holder by holder in the order given.

    Also where each of the H holders begins, (H + 1,). A holder below 0 is none.

    >>> order, starts = group(np.array([1, 0, -1, 1]), np.ones(2, np.uint8))
    >>> order.tolist(), starts.tolist()
    ([1, 0, 3], [0, 1, 3])
    """
    starts = np.zeros(len(wanted) + 1, np.int64)
    for h in holder:
        if h >= 0 and wanted[h]:
            starts[h + 1] += 1
    for h in range(len(wanted)):
        starts[h + 1] += starts[h]
    place = starts[:-1].copy()
    order = np.empty(starts[-1], np.int64)
    for i in range(len(holder)):
        h = holder[i]
        if h >= 0 and wanted[h]:
            order[place[h]] = i
            place[h] += 1
    return order, starts


@compiled
def own_places(
    refunds: IntArray, times: IntArray, own: IntArray, cutoffs: IntArray, order: IntArray
) -> IntArray:
    """Where each request's own refund stands among earlier events, in the order of ``order``.

    ``refunds`` and ``times`` (n,) are the events', ``own`` and ``cutoffs`` (m,) the requests'. -1
    where there is none; empty when no request has one, as when each is asked for the first time.
    """
    highest = -1
    for refund in own:
        highest = max(highest, refund)
    place_of = np.full(highest + 1, -1, np.int64)
    for e in range(len(refunds)):
        if refunds[e] <= highest:
            place_of[refunds[e]] = e
    places, found = np.full(len(order), -1, np.int64), False
    for i in range(len(order)):
        place = place_of[own[order[i]]]
        if place >= 0 and times[place] < cutoffs[order[i]]:
            places[i], found = place, True
    return places if found else np.empty(0, np.int64)


@compiled
def densify(values: IntArray, first: int) -> int:
    """Replace values in place by codes 1, 2, … as they are met, ``first`` by 0, negatives by -1.

    Returns how many codes there are. Hashing, so the order of the values costs nothing.

    >>> values = np.array([7, 9, UNKNOWN, 7, 5])
    >>> densify(values, 9), values.tolist()
    (3, [1, 0, -1, 1, 2])
    """
    size = 8
    while size < 2 * (len(values) + 1):
        size *= 2
    keys = np.full(size, -1, np.int64)
    codes = np.empty(size, np.int64)
    count = 1
    if first >= 0:
        place = first & (size - 1)
        keys[place] = first
        codes[place] = 0
    for i in range(len(values)):
        value = values[i]
        if value < 0:
            values[i] = -1
            continue
        place = value & (size - 1)
        while keys[place] >= 0 and keys[place] != value:
            place = (place + 1) & (size - 1)
        if keys[place] < 0:
            keys[place] = value
            codes[place] = count
            count += 1
        values[i] = codes[place]
    return count


@compiled
def unpack(
    data: ByteArray, size: int, offset: IntArray, width: IntArray, more: int
) -> tuple[IntArray, IntArray]:
    """Fields of packed little-endian records of ``size`` bytes as whole numbers, -1 as UNKNOWN.

    Fields begin at ``offset`` and are ``width`` bytes wide (C + more,): (C, n) and (more, n). Those
    of 8 bytes lie at multiples of 8, and so does each record.

    >>> data = np.frombuffer(np.array([7, -1], "<i8").tobytes(), np.uint8)
    >>> columns, more = unpack(data, 8, np.array([0, 0]), np.array([8, 1]), 1)
    >>> columns.tolist(), more.tolist()
    ([[7, -9223372036854775808]], [[7, -9223372036854775808]])
    """
    n, first = len(data) // size, len(offset) - more
    columns, rest = np.empty((first, n), np.int64), np.empty((more, n), np.int64)
    words = data[: len(data) // 8 * 8].view(np.int64)
    for k in range(len(offset)):
        out = columns[k] if k < first else rest[k - first]
        if width[k] == 8:
            for i in range(n):
                word = words[(i * size + offset[k]) // 8]
                out[i] = UNKNOWN if word == -1 else word
            continue
        bits = 8 * width[k]
        for i in range(n):
            at = i * size + offset[k]
            value = np.int64(0)
            for b in range(width[k]):
                value |= np.int64(data[at + b]) << (8 * b)
            if value >> (bits - 1):
                value -= np.int64(1) << bits
            out[i] = UNKNOWN if value == -1 else value
    return columns, rest


# --- money -------------------------------------------------------------------------------------


@compiled
def convert(
    amounts: FloatArray, currencies: IntArray, at_ms: IntArray, changes_ms: IntArray,
    factors: FloatArray, below: float,
) -> FloatArray:  # fmt: skip
    """Amounts (n,) times the factor of their currency and instant, rounded half to even.

    ``changes_ms`` (k,) are the instants at which factors change, ``factors`` (currencies, k + 1)
    those before the first and from each. NaN for what is no currency, and for what is not below
    ``below`` before and after.
    """
    out = np.empty(len(amounts))
    places = np.searchsorted(changes_ms, at_ms, side="right")
    for i in range(len(amounts)):
        value = np.nan
        if 0 <= currencies[i] < len(factors):
            value = np.rint(amounts[i] * factors[currencies[i], places[i]])
        is_exact = abs(amounts[i]) < below and abs(value) < below
        out[i] = value if is_exact else np.nan
    return out


@compiled
def whole(values: FloatArray) -> IntArray:
    """Whole numbers of doubles that hold such, NaN as `UNKNOWN`.

    >>> whole(np.array([2.0, np.nan])).tolist()
    [2, -9223372036854775808]
    """
    out = np.empty(len(values), np.int64)
    for i in range(len(values)):
        out[i] = UNKNOWN if np.isnan(values[i]) else np.int64(values[i])
    return out


# --- sliding windows ---------------------------------------------------------------------------


@compiled
def _chosen(columns: IntArray, cells: Cells) -> ByteArray:
    """Which events (n,) each source (S,) chooses: (n, S)."""
    n, sources = columns.shape[1], len(cells.groups_of_source) - 1
    out = np.empty((n, sources), np.uint8)
    for s in range(sources):
        first, last = cells.groups_of_source[s], cells.groups_of_source[s + 1]
        for e in range(n):
            out[e, s] = first == last
        for g in range(first, last):
            for e in range(n):
                holds = True
                for t in range(cells.tests_of_group[g], cells.tests_of_group[g + 1]):
                    code = columns[cells.test_column[t], e]
                    holds = holds and cells.allowed[t, code + 1 if code >= 0 else 0] != 0
                if holds:
                    out[e, s] = 1
    return out


# The helpers below are compiled into `slide`, and take arrays one by one: an array taken out of a
# tuple in a loop is counted as held, which costs more than the work that is done on it.


@inlined
def _find(ranked: IntArray, at: int, size: int, value: int) -> int:
    """The place of the first of ``size`` ascending values from ``at`` on that is not below one."""
    low, high = at, at + size
    while low < high:
        middle = (low + high) // 2
        if ranked[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def _enter(
    op: int, p: int, e: int, column: int, source: int, at: int, a: IntArray, b: IntArray,
    table: IntArray, ranked: IntArray, columns: IntArray, chosen: ByteArray,
) -> None:  # fmt: skip
    """Event ``e`` comes into the window of cell ``p``.

    ``a`` and ``b`` (P,) are what cells hold: counts, or the place of an event. ``table`` has, from
    ``at`` on, how often each value of the column occurs, or the latest event about it (plus one);
    ``ranked`` the known values in order.
    """
    is_chosen = chosen[e, source] != 0
    value = columns[column, e] if column >= 0 else UNKNOWN
    if op == _STANDING:
        if value >= 0:
            earlier = table[at + value] - 1
            if earlier >= 0 and chosen[earlier, source]:
                a[p] -= 1
            table[at + value] = e + 1
            a[p] += is_chosen
    elif is_chosen:
        if _DISTINCT <= op <= _ENTROPY:
            if value >= 0:
                table[at + value] += 1
                a[p] += table[at + value] == 1
                b[p] += 1
        elif op == _SINCE_LAST:
            a[p] = max(a[p], e)
        elif op == _LAST:
            if value != UNKNOWN:
                a[p] = max(a[p], e)
        elif _MEDIAN <= op <= _MAXIMUM and value != UNKNOWN:
            place = _find(ranked, at, a[p], value)
            for i in range(at + a[p], place, -1):
                ranked[i] = ranked[i - 1]
            ranked[place] = value
            a[p] += 1


@inlined
def _leave(
    op: int, p: int, e: int, column: int, source: int, at: int, a: IntArray, b: IntArray,
    table: IntArray, ranked: IntArray, columns: IntArray, chosen: ByteArray,
) -> None:  # fmt: skip
    """Event ``e`` goes out of the window of cell ``p``."""
    is_chosen = chosen[e, source] != 0
    value = columns[column, e] if column >= 0 else UNKNOWN
    if op == _STANDING:
        if value >= 0 and table[at + value] == e + 1:
            table[at + value] = 0
            a[p] -= is_chosen
    elif is_chosen:
        if _DISTINCT <= op <= _ENTROPY:
            if value >= 0:
                table[at + value] -= 1
                a[p] -= table[at + value] == 0
                b[p] -= 1
        elif _MEDIAN <= op <= _MAXIMUM and value != UNKNOWN:
            place = _find(ranked, at, a[p], value)
            a[p] -= 1
            for i in range(place, at + a[p]):
                ranked[i] = ranked[i + 1]


@inlined
def _from_sums(op: int, total: int, settled: int) -> float:
    """A count, total or mean from the two differences of its running sums."""
    result = np.nan
    if op == _MEAN:
        if settled:
            result = total / settled
    elif settled == 0:
        result = float(total)
    return result


@inlined
def _from_table(
    op: int, held: int, n: int, wanted: int, at: int, codes: int, table: IntArray
) -> float:
    """What is told from how often each of ``codes`` values occurs: ``held`` of them do, n times."""
    result = np.nan
    if op == _DISTINCT:
        result = float(held)
    elif op == _ENTROPY:
        # log2 n - (sum of c log2 c) / n over the counts c, which is -sum p log2 p.
        if n:
            total = 0.0
            for i in range(at, at + codes):
                if table[i] > 1:
                    total += table[i] * np.log2(table[i])
            result = max(np.log2(n) - total / n, 0.0)
    elif wanted >= 0:
        # A value that no event of the stream bears lies outside the table.
        result = float(table[at + wanted]) if wanted < codes else 0.0
    return result


@inlined
def _from_ranked(op: int, n: int, at: int, ranked: IntArray) -> float:
    """The median or maximum of ``n`` values in order."""
    result = np.nan
    if n:
        low, high = ranked[at + (n - 1) // 2], ranked[at + n // 2]
        result = float(ranked[at + n - 1]) if op == _MAXIMUM else low + (high - low) / 2
    return result


@inlined
def _latest(
    op: int, e: int, reach: int, own_at: int, column: int, source: int, columns: IntArray,
    chosen: ByteArray,
) -> int:  # fmt: skip
    """The latest chosen event from ``e`` back that is not the own one; below ``reach`` if none."""
    if e == own_at:
        e -= 1
        while e >= reach and not (
            chosen[e, source] and (op == _SINCE_LAST or columns[column, e] != UNKNOWN)
        ):
            e -= 1
    return e


@inlined
def _near(
    wanted: int, width: int, column: int, near_column: int, source: int, own_at: int, reach: int,
    right: int, mark: int, at: int, columns: IntArray, chosen: ByteArray, table: IntArray,
) -> float:  # fmt: skip
    """How many different values there are among the events close to the request's own value.

    ``mark`` is one that no value bears yet.
    """
    found = 0
    for e in range(reach, right):
        near, code = columns[near_column, e], columns[column, e]
        if e == own_at or near == UNKNOWN or code < 0 or not chosen[e, source]:
            continue
        if abs(near - wanted) <= width and table[at + code] != mark:
            table[at + code] = mark
            found += 1
    return float(found)


@compiled
def _running_sums(columns: IntArray, chosen: ByteArray, cells: Cells) -> IntArray:
    """Two sums per running sum over the events before each place: (n + 1, 2 Q).

    Of a count: how many were chosen. Of a total or mean: the known values, and how many of the
    values that settle it there were, the unknown ones for a total and the known ones for a mean.
    A running sum is told by the column of its first, so by an even number.
    """
    # int64 wraps around, and differences of wrapped sums are exact while a window's own sum fits:
    # 1,000 events of at most 2^53 minor units do.
    n, q = columns.shape[1], len(cells.sum_op)
    sums = np.zeros((n + 1, 2 * q), np.int64)
    for s in range(q):
        op, source, column = cells.sum_op[s], cells.sum_source[s], cells.sum_column[s]
        for e in range(n):
            first, second = 0, 0
            if chosen[e, source]:
                value = columns[column, e] if column >= 0 else 1
                known = value != UNKNOWN
                first = value if known else 0
                second = op != _COUNT and known == (op == _MEAN)
            sums[e + 1, 2 * s] = sums[e, 2 * s] + first
            sums[e + 1, 2 * s + 1] = sums[e, 2 * s + 1] + second
    return sums


@compiled
def _tables(
    op: IntArray, column: IntArray, sizes: IntArray, most: int
) -> tuple[IntArray, int, int]:
    """Where the table or the ranked values of each cell begin (P,), and how long both are in all.

    A table is as wide as its column has codes; ``most`` values are ranked at once.
    """
    at = np.zeros(len(op), np.int64)
    width, ranked = 0, 0
    for p in range(len(op)):
        if _MEDIAN <= op[p] <= _MAXIMUM:
            at[p] = ranked
            ranked += most
        elif _DISTINCT <= op[p] <= _ENTROPY or op[p] == _STANDING or op[p] == _NEAR:
            at[p] = width
            width += sizes[column[p]]
    return at, width, ranked


@compiled
def slide(
    columns: IntArray, times: IntArray, starts: IntArray, kinds: IntArray,
    order: IntArray, request_starts: IntArray, cutoffs: IntArray, own: IntArray,
    values: IntArray, sizes: IntArray, max_events: int, cells: Cells,
) -> FloatArray:  # fmt: skip
    """Every cell for every request that has a holder: (requests in the order of ``order``, P).

    Events (n,) lie holder by holder (H) in canonical order: ``columns`` (C, n), ``times`` (n,)
    their effective instants, ``starts`` (H + 1,) where each holder's begin; ``kinds`` (H,) says
    which kind of key a holder is, each the only one of its kind, or is empty when all are of the
    first. ``order`` are the requests holder by holder in order of cutoff, ``request_starts``
    (H + 1,) likewise. In that order are
    ``cutoffs``, and ``own``: where a request's own refund stands among the events, -1 if it does
    not, or empty when none does. ``values`` (R, m) are the requests' own; ``sizes`` (C,) how many
    codes a column has. A cell of another kind of key than a request's holder is left as it is.
    """
    ops, sources, of_column, sum_of = cells.op, cells.source, cells.column, cells.sum_of
    edges, bounds, sums_end = cells.edges_ms, cells.bounds, cells.sums_end
    of_value, near_column, near_ms = cells.request_value, cells.near_column, cells.near_ms
    chosen = _chosen(columns, cells)
    sums = _running_sums(columns, chosen, cells)
    # Nothing settles a count, nor a total of values that are all known.
    settles = sums[-1, 1:] != 0
    at_of, width, most = _tables(ops, of_column, sizes, min(max_events + 1, len(times)) + 1)
    table, ranked = np.zeros(width, np.int64), np.empty(most, np.int64)
    a, b = np.zeros(len(ops), np.int64), np.zeros(len(ops), np.int64)
    out = np.empty((len(order), len(ops)))
    windows = len(edges)
    left = np.empty(windows, np.int64)
    for h in range(len(starts) - 1):
        if request_starts[h] == request_starts[h + 1]:
            continue
        row = (kinds[h] if len(kinds) else 0) * windows
        e0, e1 = starts[h], starts[h + 1]
        for p in range(bounds[row], bounds[row + windows]):
            if ops[p] != _NEAR:  # its marks only rise
                a[p] = e0 - 1 if ops[p] == _LAST or ops[p] == _SINCE_LAST else 0
                b[p] = 0
        left[:] = e0
        right = e0
        for i in range(request_starts[h], request_starts[h + 1]):
            cutoff, before = cutoffs[i], right
            while right < e1 and times[right] < cutoff:
                right += 1
            own_earlier = own[i] if len(own) else -1
            if own_earlier < e0 or own_earlier >= right:
                own_earlier = -1
            for w in range(windows):
                if bounds[row + w] == bounds[row + w + 1]:
                    continue
                begin, was = cutoff - edges[w], left[w]
                now = max(was, right - max_events)
                while now < right and times[now] < begin:
                    now += 1
                left[w] = now
                own_at = own_earlier if own_earlier >= now else -1
                # The own refund takes no room in the window: one more event may be reached past it.
                is_full = own_at >= 0 and now == right - max_events
                reach = now - 1 if is_full and now > e0 and times[now - 1] >= begin else now
                for p in range(bounds[row + w], sums_end[row + w]):
                    s = sum_of[p]
                    if s < 0:
                        out[i, p] = right - reach - (own_at >= 0)
                        continue
                    total, settled = sums[right, s] - sums[reach, s], 0
                    if settles[s]:
                        settled = sums[right, s + 1] - sums[reach, s + 1]
                    if own_at >= 0:
                        total -= sums[own_at + 1, s] - sums[own_at, s]
                        settled -= sums[own_at + 1, s + 1] - sums[own_at, s + 1]
                    out[i, p] = _from_sums(ops[p], total, settled)
                for p in range(sums_end[row + w], bounds[row + w + 1]):
                    op, column, source, at = ops[p], of_column[p], sources[p], at_of[p]
                    for e in range(was, min(now, before)):
                        _leave(op, p, e, column, source, at, a, b, table, ranked, columns, chosen)
                    for e in range(max(now, before), right):
                        _enter(op, p, e, column, source, at, a, b, table, ranked, columns, chosen)
                    if own_at >= 0:
                        _leave(
                            op, p, own_at, column, source, at, a, b, table, ranked, columns, chosen
                        )
                    if reach < now:
                        _enter(
                            op, p, reach, column, source, at, a, b, table, ranked, columns, chosen
                        )

                    result = np.nan
                    wanted = values[of_value[p], order[i]] if of_value[p] >= 0 else UNKNOWN
                    if op <= _ENTROPY:
                        result = _from_table(op, a[p], b[p], wanted, at, sizes[column], table)
                    elif op <= _MAXIMUM:
                        result = _from_ranked(op, a[p], at, ranked)
                    elif op == _STANDING:
                        result = float(a[p])
                    elif op == _NEAR:
                        if wanted != UNKNOWN:
                            a[p] += 1
                            result = _near(wanted, near_ms[p], column, near_column[p], source,
                                           own_at, reach, right, a[p], at, columns, chosen,
                                           table)  # fmt: skip
                    elif op == _SINCE_FIRST:
                        # Where the last request found it or later, unless this one leaves it out.
                        e = reach if own_at >= 0 else max(a[p], now)
                        while e < right and (e == own_at or not chosen[e, source]):
                            e += 1
                        if own_at < 0:
                            a[p] = e
                        if e < right:
                            result = (cutoff - times[e]) / _DAY_MS
                    else:
                        e = _latest(op, a[p], reach, own_at, column, source, columns, chosen)
                        if e >= reach:
                            since = (cutoff - times[e]) / _DAY_MS
                            result = since if op == _SINCE_LAST else float(columns[column, e])
                    out[i, p] = result

                    if reach < now:
                        _leave(
                            op, p, reach, column, source, at, a, b, table, ranked, columns, chosen
                        )
                    if own_at >= 0:
                        _enter(
                            op, p, own_at, column, source, at, a, b, table, ranked, columns, chosen
                        )
        if len(kinds):  # nobody else's tables
            continue
        # Tables are emptied by what is still in the windows leaving them.
        for w in range(windows):
            for p in range(sums_end[row + w], bounds[row + w + 1]):
                for e in range(left[w], right):
                    _leave(ops[p], p, e, of_column[p], sources[p], at_of[p], a, b, table, ranked,
                           columns, chosen)  # fmt: skip
    return out


@compiled
def scatter(found: FloatArray, order: IntArray, steps: IntArray, out: FloatArray) -> None:
    """What was found of each request (requests in the order of ``order``, P), into its place.

    ``steps`` (P,) are the rows of ``out`` (steps, m). NaN where nothing was looked for.
    """
    place = np.full(out.shape[1], -1, np.int64)
    for i in range(len(order)):
        place[order[i]] = i
    # Request by request: a row is read whole, and each row of the result written from end to end.
    for r in range(len(place)):
        for p in range(len(steps)):
            out[steps[p], r] = found[place[r], p] if place[r] >= 0 else np.nan


@inlined
def slide_one(
    columns: IntArray, times: IntArray, counts: IntArray, codes: IntArray, ids: IntArray,
    has_own: bool, is_held: ByteArray, values: IntArray, cutoff: int, max_events: int,
    cells: Cells, kinds: IntArray, steps: IntArray, out: FloatArray,
) -> None:  # fmt: skip
    """Every cell for one request that holds a key of each of K kinds, into ``out`` (steps, 1).

    ``columns`` (C, n) and ``times`` (n,) are the events of each key one behind the other, so many
    as ``counts`` (K,) says. ``codes`` (K, C) is how many codes a column has, -1 where it holds
    identifiers that a cell of the kind reads; ``ids`` (C,) the request's own identifier, if it is
    one of a key. ``has_own`` says that the last column identifies refunds, and that the request's
    own is left out. ``kinds`` (P,) is the kind of key that a cell is about; those that the request
    has not (``is_held`` (K,)) are unknown. The other arguments are those of `slide`.
    """
    each = np.arange(len(counts) + 1)
    starts = np.zeros(len(counts) + 1, np.int64)
    own = np.full(len(counts) if has_own else 0, -1, np.int64)
    for k in range(len(counts)):
        starts[k + 1] = starts[k] + counts[k]
        if has_own:
            for e in range(starts[k], starts[k + 1]):
                if columns[-1, e] == ids[-1]:
                    own[k] = e
    sizes = np.zeros(codes.shape[1], np.int64)
    for k in range(len(counts)):
        for c in range(len(sizes)):
            size = codes[k, c]
            if size < 0:
                size = densify(columns[c, starts[k] : starts[k + 1]], ids[c])
            sizes[c] = max(sizes[c], size)
    found = slide(
        columns, times, starts, each, np.zeros(len(counts), np.int64), each,
        np.full(len(counts), cutoff), own, values, sizes, max_events, cells,
    )  # fmt: skip
    for p in range(len(kinds)):
        out[steps[p], 0] = found[kinds[p], p] if is_held[kinds[p]] else np.nan


# --- derived numbers ---------------------------------------------------------------------------


@compiled
def derive(op: IntArray, step: IntArray, inputs: IntArray, bounds: IntArray, cutoffs: IntArray,
           out: FloatArray) -> None:  # fmt: skip
    """D numbers computed from others, in order, into the rows ``step`` (D,) of ``out`` (steps, m).

    ``inputs[bounds[d] : bounds[d + 1]]`` are the rows that number d is computed from.
    """
    for d in range(len(op)):
        to, code = step[d], op[d]
        a, b = inputs[bounds[d]], inputs[bounds[d + 1] - 1]
        for r in range(len(cutoffs)):
            x, y = out[a, r], out[b, r]
            if code == _COALESCE:
                for i in range(bounds[d] + 1, bounds[d + 1]):
                    if not np.isnan(x):
                        break
                    x = out[inputs[i], r]
                value = x
            elif code == _AGE:
                value = (cutoffs[r] - x) / _DAY_MS if x <= cutoffs[r] else np.nan
            elif code == _BETWEEN:
                past = x <= cutoffs[r] and y <= cutoffs[r]
                value = (y - x) / _DAY_MS if past else np.nan
            elif code == _RATIO:
                value = x / y if y > 0 else np.nan
            elif code == _DIFFERENCE:
                value = x - y
            elif code == _BOTH:
                value = 1.0 if x > 0 and y > 0 else 0.0
                if np.isnan(x) or np.isnan(y):
                    value = np.nan
            else:
                value = 0.0 if np.isnan(x) else 1.0
            out[to, r] = value


# --- one request, all streams at once ----------------------------------------------------------

# In one file with what it calls: only a change of a function's own file has Numba compile it anew.


class AtOnce(NamedTuple):
    """All that is asked of all streams, and what is derived of it, for one request at a time.

    Handing the arrays of eight streams over one by one takes longer than what is done with them.
    """

    numbers: IntArray
    """All arrays of whole numbers, end to end"""
    bounds: IntArray
    """(S, len(PARTS) + 1) where each stream's `PARTS` begin in ``numbers``"""
    allowed: ByteArray
    """The streams' `Cells.allowed`, end to end"""
    fields: IntArray
    """(F, 2) the steps of what the request says itself, and what of it they are"""
    first_seen: IntArray
    """(E,) the steps of when entities were first seen"""
    derived_op: IntArray
    """(D,) and the next three: as `derive` takes them"""
    derived_step: IntArray
    derived_inputs: IntArray
    derived_bounds: IntArray
    features: IntArray
    """(N,) the step of each feature"""


PARTS: Final = (
    *Cells._fields[:-1],  # all but ``allowed``
    "codes", "key_of", "kinds", "steps", "offset", "width", "money", "values", "fixed",
)  # fmt: skip
"""The arrays of a stream in `AtOnce`, as `slide_one` and `unpack` take them. ``money`` are columns
in their own currency; ``values`` are the request's fields that events are compared with, or, below
0, its keys: -1 the first; ``fixed`` is the size of a packed event, whether its last column tells
the request's own refund, and where in ``allowed`` its own begins, with its rows and columns."""

_CODES, _KEY_OF, _KINDS, _STEPS, _OFFSET, _WIDTH, _MONEY, _VALUES, _FIXED = range(
    len(Cells._fields) - 1, len(PARTS)
)


@inlined
def _part(numbers: IntArray, bounds: IntArray, part: int) -> IntArray:
    return numbers[bounds[part] : bounds[part + 1]]


@inlined
def _cells(numbers: IntArray, b: IntArray, allowed: ByteArray) -> Cells:
    """The cells of a stream whose parts begin at ``b`` (len(PARTS) + 1,)."""
    return Cells(
        _part(numbers, b, 0), _part(numbers, b, 1), _part(numbers, b, 2), _part(numbers, b, 3),
        _part(numbers, b, 4), _part(numbers, b, 5), _part(numbers, b, 6), _part(numbers, b, 7),
        _part(numbers, b, 8), _part(numbers, b, 9), _part(numbers, b, 10), _part(numbers, b, 11),
        _part(numbers, b, 12), _part(numbers, b, 13), _part(numbers, b, 14), _part(numbers, b, 15),
        allowed,
    )  # fmt: skip


@compiled
def features_of(
    data: ByteArray, lengths: IntArray, at_once: AtOnce, ids: IntArray, is_held: ByteArray,
    said: FloatArray, seen: FloatArray, cutoff: int, max_events: int, steps: int, base: int,
    changes_ms: IntArray, factors: FloatArray, below: float,
) -> FloatArray:  # fmt: skip
    """Every feature (N,) of one request.

    ``data`` are the packed events of each stream and in it of each of the K kinds of key, one
    behind the other, so many bytes as ``lengths`` (S, K) says. ``ids`` are the identifiers that the
    request has of `KEYS`, -1 for none, and a last -1; ``is_held`` (K,) says which of the kinds of
    key. ``said`` (Q,) is what it says itself, ``seen`` (E,) when entities were first seen. ``base``
    is the code of the base currency; the rest are the arguments of `convert` and `slide`.
    """
    out = np.full((steps, 1), np.nan)
    numbers, at = at_once.numbers, 0
    for s in range(len(lengths)):
        b = at_once.bounds[s]
        fixed = _part(numbers, b, _FIXED)
        size = fixed[0]
        counts = lengths[s] // size
        end = at + size * counts.sum()
        columns, more = unpack(
            data[at:end], size, _part(numbers, b, _OFFSET), _part(numbers, b, _WIDTH), 3
        )
        at = end
        known_at, currency, times = more[0], more[1], more[2]
        if (currency != base).any():
            for row in _part(numbers, b, _MONEY):
                amounts = columns[row].astype(np.float64)
                columns[row] = whole(
                    convert(amounts, currency, known_at, changes_ms, factors, below)
                )
        compared = _part(numbers, b, _VALUES)
        values = np.empty((len(compared), 1), np.int64)
        for i in range(len(compared)):
            if compared[i] < 0:  # its own key is the first code
                values[i, 0] = 0 if ids[-1 - compared[i]] >= 0 else -1
            else:
                value = said[compared[i]]
                values[i, 0] = UNKNOWN if np.isnan(value) else np.int64(value)
        key_of = _part(numbers, b, _KEY_OF)
        codes = _part(numbers, b, _CODES).reshape(lengths.shape[1], len(key_of))
        tests = at_once.allowed[fixed[2] : fixed[2] + fixed[3] * fixed[4]]
        cells = _cells(numbers, b, tests.reshape(fixed[3], fixed[4]))
        slide_one(
            columns, times, counts, codes, ids[key_of], fixed[1] != 0, is_held, values, cutoff,
            max_events, cells, _part(numbers, b, _KINDS), _part(numbers, b, _STEPS), out,
        )  # fmt: skip
    for i in range(len(at_once.fields)):
        out[at_once.fields[i, 0], 0] = said[at_once.fields[i, 1]]
    for i in range(len(seen)):
        out[at_once.first_seen[i], 0] = seen[i]
    derive(
        at_once.derived_op, at_once.derived_step, at_once.derived_inputs, at_once.derived_bounds,
        np.full(1, cutoff), out,
    )  # fmt: skip
    features: FloatArray = out[at_once.features, 0]
    return features
