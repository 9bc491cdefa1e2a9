"""The skew monitor: the feature rows that decisions were made on, computed anew from the events.

Training computes features from a store's events; a decision computed them from slices of an index,
in the middle of traffic. The two must be the same numbers. `skew` puts the logged row of every
decision through the path that training takes, under the store's pseudonyms:

- as of the decision's cutoff, from all events known before it. Rows that are the same to the last
  bit are *equal*, and done;
- where they are not, from those events alone that the decision's read saw. A row that is the same
  then is *late visible*: an event known before the cutoff was committed after the read, by a
  concurrent writer or a backfill. Every other row is *mismatched*: serving and training differ.

A decision that cannot be compared is *missing* when it has no row, or no value of some feature of
the catalog, or when its request event, with its keys, is not in the store; *extra* when its row has
a value that is of no feature. Of mismatched, missing and extra rows none is expected. Rows of
another catalog or base currency are counted apart, and decisions made while the monitor runs are
left to its next run.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.attribution import STREAM_COLUMNS, History, Requests, attribute
from features.catalog import FEATURES, PLAN
from features.engine import compute
from features.events import COLUMN_OF, EVENTS, KEYS
from features.feature import Aggregate, Feature, FirstSeen
from features.kernels import FloatArray, IntArray
from features.money import DAY_MS, Rates
from features.tables import EVENT_OF_TABLE, Tables, arrow_schema, canonical_table
from serving.case import CATALOG_HASH
from serving.store.decisions import Decision
from serving.store.indexing import NAMING_COLUMN, StoredEvent
from serving.store.store import Store

MOST_LISTED: Final = 1_000
"""How many gaps, mismatches and late differences each are listed; all are counted."""

MOST_EVENTS: Final = 20
"""How many events are listed with a difference, the latest."""

_NAMES: Final = tuple(feature.name for feature in FEATURES)
_ROWS_AT_ONCE: Final = 10_000
_EVENTS_AT_ONCE: Final = 200_000
_SEQ: Final = "seq"
_EVENT_TYPES: Final = tuple(EVENTS)
_NAMING: Final = {*COLUMN_OF.values()} | {
    origin for columns in STREAM_COLUMNS.values() for origin, how in columns.values()
    if how == "identity"
}  # fmt: skip
_VERSIONED: Final = tuple(_EVENT_TYPES.index(kind) for kind in NAMING_COLUMN)

Kind = Literal["mismatched", "late_visible"]
GapKind = Literal["missing", "extra"]


# --- what is reported --------------------------------------------------------------------------


@dataclass(frozen=True)
class EventSeen:
    """An event that bears on a difference."""

    seq: int
    event_id: str
    event_type: str
    known_at: int


@dataclass(frozen=True)
class Difference:
    """A feature of one decision that is not what it was; None where the value is unknown.

    ``events`` are, for ``late_visible``, those that the replay counts and the decision's read could
    not see; for ``mismatched`` those that both saw in the feature's window. At most `MOST_EVENTS`
    of ``event_count`` are listed, the latest.
    """

    kind: Kind
    score_id: str
    refund_id: str
    cutoff: int
    snapshot: int
    feature: str
    logged: float | None
    recomputed: float | None
    event_count: int
    events: tuple[EventSeen, ...]

    def __str__(self) -> str:
        about = "not seen" if self.kind == "late_visible" else "in its window"
        listed = ", ".join(f"{e.event_type} {e.event_id} (seq {e.seq})" for e in self.events[:3])
        more = f" and {self.event_count - 3:,} more" if self.event_count > 3 else ""
        return (
            f"{self.kind}: {self.feature} of refund {self.refund_id} was {_shown(self.logged)}, "
            f"recomputed {_shown(self.recomputed)}; {about}: {listed or 'no event'}{more}"
        )


@dataclass(frozen=True)
class Gap:
    """A decision of which there is nothing to compare, and what is wrong with it."""

    kind: GapKind
    score_id: str
    refund_id: str
    problem: str

    def __str__(self) -> str:
        return f"{self.kind}: refund {self.refund_id} (score {self.score_id}): {self.problem}"


@dataclass
class Skew:
    """Decisions counted by what became of their rows, and the first differences and gaps."""

    decisions: int = 0
    compared: int = 0
    equal: int = 0
    late_visible: int = 0
    mismatched: int = 0
    missing: int = 0
    extra: int = 0
    other_catalog: int = 0
    features: int = len(_NAMES)
    differing_features: Counter[str] = field(default_factory=Counter)
    """How many rows each feature differs in, late visible ones included."""
    gaps: list[Gap] = field(default_factory=list)
    mismatches: list[Difference] = field(default_factory=list)
    late: list[Difference] = field(default_factory=list)

    @property
    def is_exact(self) -> bool:
        """Whether serving and training agree on every decision; not known where none compares."""
        agree = not (self.mismatched or self.missing or self.extra)
        return agree and (self.compared > 0 or self.decisions == 0)

    @property
    def findings(self) -> list[Gap | Difference]:
        """What is listed, the worst first."""
        return [*self.gaps, *self.mismatches, *self.late]

    @property
    def counts(self) -> dict[str, int]:
        """The counts by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}

    def to_json(self) -> dict[str, Any]:
        """One document: the counts, then what was found."""
        return asdict(self) | {"differing_features": dict(self.differing_features.most_common())}

    def _add(self, gap: Gap) -> None:
        self.missing += gap.kind == "missing"
        self.extra += gap.kind == "extra"
        if len(self.gaps) < MOST_LISTED:
            self.gaps.append(gap)


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.17g}"


def _known(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)


# --- comparing ---------------------------------------------------------------------------------


def skew(store: Store, rates: Rates, *, since: int | None = None, until: int | None = None) -> Skew:
    """Compare the rows of decisions with ``since <= decided_at < until`` (epoch ms; None: all).

    ``rates`` are those that the service was started with. Memory grows with the events, which are
    held as columns, not with the decisions.
    """
    found = Skew()
    past = _Past(store.events(), rates, store.event_transactions)
    unanswered: dict[str, list[Gap]] = {}
    for logged in _parts(_logged(store.decisions(since, until), rates, found), _ROWS_AT_ONCE):
        places = past.places([one.event_id for one in logged])
        for one, place in zip(logged, places, strict=True):
            if place < 0:
                problem = f"its request event {one.event_id} is not in the store"
                gap = Gap("missing", one.score_id, one.refund_id, problem)
                unanswered.setdefault(one.event_id, []).append(gap)
        there = (places >= 0).nonzero()[0]
        there = there[_asked_so(logged, places, there, past, store, found)]
        _compare([logged[number] for number in there.tolist()], places[there], past, found)
    # A request that came after the events were read was decided after that, and is no gap.
    came_since = {e.event_id for e in store.events()} if unanswered else set()
    for event_id, gaps in unanswered.items():
        if event_id in came_since:
            found.decisions -= len(gaps)
        else:
            for gap in gaps:
                found._add(gap)
    return found


class _Logged(NamedTuple):
    """The grounds of one decision: the row (F,), and what it is computed anew from."""

    score_id: str
    refund_id: str
    event_id: str
    cutoff: int
    snapshot: int
    transactions: str | None
    keys: Mapping[str, str]
    row: FloatArray


def _logged(decisions: Iterable[Decision], rates: Rates, found: Skew) -> Iterator[_Logged]:
    """The rows of decisions; those that cannot be compared are counted and left out."""
    for decision in decisions:
        found.decisions += 1
        record = decision.record
        if (record["catalog_hash"], record["base_currency"]) != (CATALOG_HASH, rates.base):
            found.other_catalog += 1
            continue
        row = record["features"] or {}
        if gap := _gap(decision, row):
            found._add(gap)
            continue
        yield _Logged(
            decision.score_id, decision.refund_id, record["event_id"], record["cutoff"],
            record["snapshot"], record.get("transactions"), record["keys"],
            np.array([row[n] for n in _NAMES], np.float64),
        )  # fmt: skip


def _gap(decision: Decision, row: Mapping[str, float | None]) -> Gap | None:
    """What keeps a row from being compared, if anything does."""
    missing = [name for name in _NAMES if name not in row]
    extra = sorted(row.keys() - set(_NAMES))
    if not missing and not extra:
        return None
    names = missing or extra
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    listed = ", ".join(names[:3]) + more
    problem = f"its row lacks {listed}" if missing else f"its row has {listed}, not in the catalog"
    kind: GapKind = "missing" if missing else "extra"
    return Gap(kind, decision.score_id, decision.refund_id, problem if row else "it has no row")


def _asked_so(
    logged: Sequence[_Logged], places: IntArray, there: IntArray, past: _Past, store: Store,
    found: Skew,
) -> NDArray[np.bool_]:  # fmt: skip
    """Which decisions rest on the keys and the time that their request event has.

    A request sent again from another device is decided anew and stays the event it was; one that
    was first reported, and scored later, was known before. Nothing else explains a difference.
    """
    held = np.ones(len(there), np.bool_)
    for place, (number, stored) in enumerate(
        zip(there.tolist(), past.as_stored(places[there]), strict=True)
    ):
        one, (known_at, keys) = logged[number], stored
        if (one.keys == keys and one.cutoff >= known_at) or _is_sent_again(one, store):
            continue
        held[place] = False
        problem = f"its keys or its cutoff are not those of its request event {one.event_id}"
        found._add(Gap("missing", one.score_id, one.refund_id, problem))
    return held


def _is_sent_again(one: _Logged, store: Store) -> bool:
    same = [d for d in store.decisions_of(one.refund_id) if d.record["event_id"] == one.event_id]
    first = min(same, key=lambda d: (d.decided_at, d.score_id))
    return first.score_id != one.score_id


def _compare(logged: Sequence[_Logged], places: IntArray, past: _Past, found: Skew) -> None:
    """Compare rows with what all events known before their cutoffs give, then look closer."""
    found.compared += len(logged)
    doubtful = []
    # In order of time, as the engine takes requests.
    order = places.argsort(kind="stable")
    replayed = past.rows_at(places[order])
    as_stored = past.as_stored(places)
    for number, row in zip(order.tolist(), replayed, strict=True):
        one = logged[number]
        # Sent again from another device, a request is decided anew and stays the event it was.
        if as_stored[number] == (one.cutoff, one.keys) and _same(one.row, row).all():
            found.equal += 1
        else:
            doubtful.append((one, int(places[number])))
    for part in past.index.views(doubtful) if doubtful else ():
        _judge(part, past, found)


def _same(one: FloatArray, other: FloatArray) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (one == other) | (np.isnan(one) & np.isnan(other))
    return same


def _judge(views: Sequence[_View], past: _Past, found: Skew) -> None:
    """Tell what was late to be seen from what is wrong."""
    replayed = past.recompute(views, [view.replayed for view in views])
    seen = past.recompute(views, [view.seen for view in views])
    for view, of_replay, of_read in zip(views, replayed, seen, strict=True):
        logged = view.logged.row
        is_late, is_wrong = ~_same(logged, of_replay), ~_same(logged, of_read)
        if not is_late.any():
            found.equal += 1
            continue
        found.mismatched += bool(is_wrong.any())
        found.late_visible += not is_wrong.any()
        for place in (is_late | is_wrong).nonzero()[0].tolist():
            kind: Kind = "mismatched" if is_wrong[place] else "late_visible"
            value = of_read[place] if is_wrong[place] else of_replay[place]
            found.differing_features[_NAMES[place]] += 1
            listed = found.mismatches if is_wrong[place] else found.late
            if len(listed) < MOST_LISTED:
                listed.append(_difference(view, kind, place, value, past.index))


def _difference(
    view: _View, kind: Kind, place: int, value: np.floating[Any], index: _Index
) -> Difference:
    one, events = view.logged, view.bearing_on(FEATURES[place], kind, index)
    return Difference(
        kind, one.score_id, one.refund_id, one.cutoff, one.snapshot, _NAMES[place],
        _known(one.row[place]), _known(value), len(events),
        tuple(index.event(row) for row in events[:MOST_EVENTS].tolist()),
    )  # fmt: skip


# --- the events as columns ---------------------------------------------------------------------


class _Past:
    """All events of a store as canonical tables with their sequence numbers, attributed."""

    def __init__(
        self, events: Iterable[StoredEvent], rates: Rates,
        transactions: Callable[[], Iterable[tuple[int, int]]],
    ) -> None:  # fmt: skip
        self._rates, self._transactions = rates, transactions
        self._tables = _tables(events)
        self._history, self._requests = attribute(self._tables, rates)

    @functools.cached_property
    def index(self) -> _Index:
        """Made when the first row differs."""
        return _Index(self._tables, self._transactions())

    def places(self, event_ids: Sequence[str]) -> IntArray:
        """The rows of these events (n,) among the refund requests, -1 where there is none."""
        stored = self._tables["refund_requests"]["event_id"]
        asked = pc.index_in(stored, pa.array(event_ids, pa.string()).unique())
        held = pc.indices_nonzero(pc.is_valid(asked).combine_chunks()).to_numpy()
        place_of = dict(zip(stored.take(pa.array(held)).to_pylist(), held.tolist(), strict=True))
        return _whole(place_of.get(event_id, -1) for event_id in event_ids)

    def rows_at(self, places: IntArray) -> FloatArray:
        """The feature rows (n, F) of the requests at these ascending places, as they are stored."""
        return _rows(self._history, self._requests, places)

    def as_stored(self, places: IntArray) -> list[tuple[int, dict[str, str]]]:
        """The cutoffs and keys of the requests at these places, as they are stored."""
        columns = {key: COLUMN_OF[key] for key in KEYS}
        rows = self._tables["refund_requests"].select(["known_at", *columns.values()]).take(places)
        return [
            (row["known_at"], {key: row[c] for key, c in columns.items() if row[c] is not None})
            for row in rows.to_pylist()
        ]

    def recompute(self, views: Sequence[_View], seen: Sequence[IntArray]) -> FloatArray:
        """The feature rows (n, F) of the views' requests, each from the events given for it alone.

        The views become worlds that share no identifier, and are computed at once.
        """
        world = np.repeat(np.arange(len(seen)), [len(rows) for rows in seen])
        rows = np.concatenate(seen) if seen else _whole(())
        tables = {}
        for name, table in self._tables.items():
            first = self.index.starts[name]
            here = ((rows >= first) & (rows < first + table.num_rows)).nonzero()[0]
            tables[name] = _apart(table.take(rows[here] - first), world[here])
        requests = _apart(self._asked(views), np.arange(len(views)))
        joined = pa.concat_tables([tables["refund_requests"], requests])
        tables["refund_requests"] = joined
        tables = {
            name: table.sort_by([("known_at", "ascending"), ("event_id", "ascending")])
            for name, table in tables.items()
        }
        history, all_requests = attribute(tables, self._rates)
        number = tables["refund_requests"][_SEQ].to_numpy()
        places = (number < 0).nonzero()[0]
        computed = _rows(history, all_requests, places)
        found = np.empty_like(computed)
        found[-1 - number[places]] = computed
        return found

    def _asked(self, views: Sequence[_View]) -> pa.Table:
        """The requests as they were decided; number n has the sequence number -1 - n."""
        table = self._tables["refund_requests"].take(_whole(view.place for view in views))
        said: dict[str, list[Any]] = {
            COLUMN_OF[key]: [view.logged.keys.get(key) for view in views] for key in KEYS
        }
        said["known_at"] = [view.logged.cutoff for view in views]
        said[_SEQ] = [-1 - number for number in range(len(views))]
        for column, values in said.items():
            place = table.schema.get_field_index(column)
            kind = table.schema.field(column).type
            table = table.set_column(place, table.schema.field(column), pa.array(values, kind))
        return table


def _tables(events: Iterable[StoredEvent]) -> Tables:
    parts: dict[str, list[pa.Table]] = {name: [] for name in EVENT_OF_TABLE}
    for part in _parts(events, _ROWS_AT_ONCE):
        rows: dict[str, list[dict[str, Any]]] = {}
        for event in part:
            name = EVENTS[event.event_type].table
            rows.setdefault(name, []).append({**event.payload, _SEQ: event.seq})
        for name, found in rows.items():
            parts[name].append(pa.Table.from_pylist(found, schema=_schema(name)))
    return {
        name: canonical_table(name, pa.concat_tables([_schema(name).empty_table(), *found]))
        for name, found in parts.items()
    }


def _schema(name: str) -> pa.Schema:
    return arrow_schema(name).append(pa.field(_SEQ, pa.int64()))


def _apart(table: pa.Table, world: IntArray) -> pa.Table:
    """The table with the identifiers of each row kept apart from those of other worlds."""
    prefix = pa.array(world.astype(str).tolist(), pa.string())
    for column in _NAMING & set(table.column_names):
        place = table.schema.get_field_index(column)
        joined = pc.binary_join_element_wise(prefix, table[column].combine_chunks(), "|")
        table = table.set_column(place, column, joined)
    return table


def _rows(history: History, requests: Requests, places: IntArray) -> FloatArray:
    some = Requests(
        requests.cutoff[places],
        {key: codes[places] for key, codes in requests.keys.items()},
        {name: values[places] for name, values in requests.fields.items()},
    )
    columns = compute(PLAN, some, history)
    return np.column_stack([columns[name] for name in _NAMES])


def _parts(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while part := list(itertools.islice(iterator, size)):
        yield part


def _whole(values: Iterable[int]) -> IntArray:
    return np.array(list(values), np.int64)


# --- which events bear on a request ------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """The events around one decision, as rows of the index; ``place`` is that of its request."""

    logged: _Logged
    place: int
    around: Mapping[str, IntArray]
    """By each key of the request."""
    replayed: IntArray
    """Those known before the cutoff."""
    seen: IntArray
    """Those of them that the decision's read saw."""

    def bearing_on(self, feature: Feature, kind: Kind, index: _Index) -> IntArray:
        """Rows of the events that a difference in this feature comes from, the latest first."""
        known = np.setdiff1d(self.replayed, self.seen) if kind == "late_visible" else self.seen
        found = [_whole(())]
        for key, kinds, days in _sources(feature):
            rows = np.intersect1d(self.around.get(key, _whole(())), known)
            recent = index.known_at[rows] >= self.logged.cutoff - days * DAY_MS
            found.append(rows[recent & np.isin(index.kind[rows], kinds)])
        rows = np.unique(np.concatenate(found))
        return rows[np.lexsort((index.seq[rows], index.known_at[rows]))[::-1]]


@functools.cache
def _sources(feature: Feature) -> tuple[tuple[str, tuple[int, ...], float], ...]:
    """(key, event types, days) whose events a feature is made of.

    An event that names an order or a refund comes with whom that belongs to.
    """
    found = []
    for part in feature.expression.walk():
        if isinstance(part, Aggregate):
            own = _EVENT_TYPES.index(part.stream)
            kinds = (own,) if own in _VERSIONED else (own, *_VERSIONED)
            found.append((part.by, kinds, float(part.days)))
        elif isinstance(part, FirstSeen):
            found.append((part.entity, tuple(range(len(_EVENT_TYPES))), float("inf")))
    return tuple(found)


class _Index:
    """Which events hold which keys, over all tables one behind the other."""

    def __init__(self, tables: Tables, transactions: Iterable[tuple[int, int]]) -> None:
        sizes = [table.num_rows for table in tables.values()]
        self._tables = tables
        self.starts = dict(zip(tables, np.cumsum([0, *sizes]).tolist(), strict=False))
        kinds = [_EVENT_TYPES.index(EVENT_OF_TABLE[name].event_type) for name in tables]
        self.kind = np.repeat(kinds, sizes)
        self.known_at = np.concatenate([t["known_at"].to_numpy() for t in tables.values()])
        self.seq = np.concatenate([t[_SEQ].to_numpy() for t in tables.values()])
        seq, xid = np.array(list(transactions), np.int64).reshape(-1, 2).T
        self.xid = np.zeros(len(self.seq), np.int64)  # where it is not known: before any
        if len(seq):
            places = seq.searchsorted(self.seq).clip(max=len(seq) - 1)
            is_known = seq[places] == self.seq
            self.xid[is_known] = xid[places[is_known]]
        self._values: dict[str, pa.Array] = {}
        self._codes: dict[str, IntArray] = {}
        self._holders: dict[str, tuple[IntArray, IntArray]] = {}
        for key in KEYS:
            self._add(key)

    def _add(self, key: str) -> None:
        column = COLUMN_OF[key]
        chunks = [
            chunk
            for table in self._tables.values()
            for chunk in (
                table[column].chunks
                if column in table.column_names
                else [pa.nulls(table.num_rows, pa.string())]
            )
        ]
        encoded = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
        codes = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
        order = codes.argsort(kind="stable")
        bounds = codes[order].searchsorted(np.arange(len(encoded.dictionary) + 1))
        self._values[key], self._codes[key] = encoded.dictionary, codes
        self._holders[key] = order, bounds

    def event(self, row: int) -> EventSeen:
        """The event of a row."""
        name = next(n for n in reversed(self.starts) if self.starts[n] <= row)
        event_id = self._tables[name]["event_id"][row - self.starts[name]].as_py()
        kind = EVENT_OF_TABLE[name].event_type
        return EventSeen(int(self.seq[row]), event_id, kind, int(self.known_at[row]))

    def views(self, doubtful: Sequence[tuple[_Logged, int]]) -> Iterator[list[_View]]:
        """The decisions with the events around them, as many at once as memory allows."""
        codes = {
            key: pc.fill_null(
                pc.index_in(pa.array([d.keys.get(key) for d, _ in doubtful], pa.string()),
                            self._values[key], skip_nulls=True), -1,
            ).to_numpy(zero_copy_only=False)
            for key in KEYS
        }  # fmt: skip
        part: list[_View] = []
        size = 0
        for number, (logged, place) in enumerate(doubtful):
            around = {key: self._around(key, int(codes[key][number])) for key in logged.keys}
            every = np.unique(np.concatenate([_whole(()), *around.values()]))
            replayed = every[self.known_at[every] < logged.cutoff]
            seen = replayed[self._was_seen(replayed, logged)]
            part.append(_View(logged, place, around, replayed, seen))
            size += len(replayed)
            if size > _EVENTS_AT_ONCE:
                yield part
                part, size = [], 0
        if part:
            yield part

    def _was_seen(self, rows: IntArray, logged: _Logged) -> NDArray[np.bool_]:
        """Which of these events a decision's read saw: by number, or by who had committed.

        PostgreSQL's snapshot ``xmin:xmax:a,b``: the transactions before ``xmin`` had ended, those
        from ``xmax`` on had not begun, and of those between a and b had not ended.
        """
        if logged.transactions is None:
            return self.seq[rows] <= logged.snapshot
        _, ceiling, running = logged.transactions.split(":")
        under_way = np.array([int(one) for one in running.split(",") if one], np.int64)
        xid = self.xid[rows]
        return (xid < int(ceiling)) & ~np.isin(xid, under_way)

    def _around(self, key: str, code: int) -> IntArray:
        """The events of a key, those about the orders and refunds among them, and all versions of
        the orders and refunds that any of them is or names: more than features read, never less.
        """
        found = self._holding(key, _whole([code] if code >= 0 else []))
        about = self._about(found)
        versions = self._about(about)
        return np.union1d(about, versions[np.isin(self.kind[versions], _VERSIONED)])

    def _about(self, rows: IntArray) -> IntArray:
        """These events, and all that are or name the same orders and refunds."""
        found = [rows]
        for key in ("order", "refund"):
            codes = np.unique(self._codes[key][rows])
            found.append(self._holding(key, codes[codes >= 0]))
        return np.unique(np.concatenate(found))

    def _holding(self, key: str, codes: IntArray) -> IntArray:
        """The events that hold one of these values of a key."""
        order, bounds = self._holders[key]
        starts, ends = bounds[codes], bounds[codes + 1]
        lengths = ends - starts
        within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        held: IntArray = order[np.repeat(starts, lengths) + within]
        return held
