"""The same engine over partitions: features of folders larger than memory, and on a Dask cluster.

`features_of_folder` works a data folder through in stages. Each is one function over partitions,
whose tasks share nothing but files on a scratch folder (`training.shuffle`), so that a task holds
one partition in memory and can be run anywhere, twice, and in any order:

1. *read* each file part by part: check it as `read_folder` does, sort it by time;
2. *order* the rows of a range of time: a row's place in the canonical order is known from then on,
   and decides every tie; deal the rows to partitions by the refund or order that they name;
3. *check ids*: no event_id is that of two events;
4. *attribute* the events of a partition, which has all that they name; deal them to partitions by
   holder, once for each key; when an entity was first seen is found on the way;
5. *aggregate* the holders of a key: `features.engine.aggregate` on all their events and requests;
6. *combine* the requests of a range of time, and write them, in this process and in order.

The numbers are those of `feature_frame` bit for bit: both call the same functions on the same
events in the same order, and no sum runs over more than one holder.

What `read_folder` checks is checked here too, with one exception: item tables, which no feature
reads, are not looked at. One holder's events are never split: a partition is as large as the
busiest of them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.attribution import (
    CASE,
    IDENTITIES,
    STREAM_COLUMNS,
    Attributed,
    Requests,
    Stream,
    attribute_part,
)
from features.catalog import PLAN
from features.engine import Plan, aggregate, combine
from features.events import COLUMN_OF, ENTITIES, EVENTS, KEYS
from features.kernels import UNKNOWN, FloatArray, IntArray
from features.money import Rates
from features.tables import (
    EVENT_OF_TABLE,
    MAX_PROBLEMS_PER_COLUMN,
    FolderError,
    Problem,
    canonical,
    check_table,
    find_files,
    load_in_parts,
    two_rates,
    with_event_ids,
)
from training.dataset import features_table, rates_of, write_features
from training.shuffle import as_batch, gather, partition_of, spread, write_run

EVENTS_PER_PARTITION: Final = 250_000
"""How many events a partition has where nobody says how many partitions there are."""

_CSV_BLOCK: Final = 2**25
_BYTES_PER_CSV_ROW: Final = 100
_NEVER: Final = int(np.iinfo(np.int64).max)
_SAMPLES: Final = 1000
_CONNECT_SECONDS: Final = 10
_RANGE: Final = 2**40  # a place is the range of time times this, plus the row in the range

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Run = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Calls a function with each of some items, anywhere; gives the results as they come."""

Progress = Callable[[int, int], None]
"""Is told how many tasks are done, and how many there are."""


class ScaleError(RuntimeError):
    """A task failed, or there is no cluster to run it; says which."""


@dataclass(frozen=True)
class Written:
    """What `features_of_folder` wrote: rows, features, and what of the folder it ignored."""

    requests: int
    names: tuple[str, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """What all tasks know. ``bounds`` (partitions - 1,) are the instants (epoch ms) at which all
    ranges of time but the first begin; ``tables`` the event tables of the folder, by name."""

    scratch: Path
    partitions: int
    tables: tuple[str, ...]
    bounds: IntArray
    rates: Rates
    plan: Plan


def features_of_folder(
    data: Path, out: Path, *, base: str = "GBP", partitions: int | None = None,
    dask: str | None = None, progress: Progress = lambda done, total: None,
) -> Written:  # fmt: skip
    """Write the features of every refund request of a data folder as Parquet, in canonical order.

    ``dask`` is the address of a scheduler whose workers have this code and see both folders under
    the same paths; without it the tasks run here, one after another. Scratch files, under 1 kB an
    event, lie beside ``out`` meanwhile. ``progress`` is told of every task that is done.

    Raises `FolderError` with every problem of the folder, `FileNotFoundError` without one, and
    `ScaleError` naming the task that failed.
    """
    files, problems, ignored = find_files(data)
    data, out = data.resolve(), out.resolve()
    files = {name: path.resolve() for name, path in files.items()}
    pieces = [piece for name, path in files.items() for piece in _pieces(name, path)]
    # More parts than events would be parts of nothing.
    partitions = min(partitions or partitions_for(data), sum(piece.rows for piece in pieces) or 1)
    names = tuple(PLAN.step_of)
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        _runner(dask) as run,
        TemporaryDirectory(
            ".scratch", f"{out.name}-", out.parent, ignore_cleanup_errors=True
        ) as scratch,
    ):
        stages = _Stages(run, progress, len(pieces) + partitions * (4 + len(PLAN.by_key)))
        folder = Path(scratch)
        read = stages.run("reading", partial(_read, folder), pieces)
        rates, wrong_rates, ignored_rates = _read_rates(files, base)
        problems += [*wrong_rates, *(problem for piece in read for problem in piece.problems)]
        _refuse(problems)
        tables = tuple(name for name in files if name in EVENT_OF_TABLE)
        job = Job(folder, partitions, tables, _bounds(read, partitions), rates, PLAN)
        _through(job, stages)
        write_features(stages.each(_combined(job)), names, out)
    for piece in read:
        ignored += [note for note in piece.ignored if note not in ignored]
    return Written(pq.read_metadata(out).num_rows, names, (*ignored, *ignored_rates))


def partitions_for(data: Path) -> int:
    """One for every `EVENTS_PER_PARTITION` events of a data folder, CSV rows being guessed."""
    files, _, _ = find_files(data)
    rows = sum(piece.rows for name, path in files.items() for piece in _pieces(name, path))
    return max(1, math.ceil(rows / EVENTS_PER_PARTITION))


def _through(job: Job, stages: _Stages) -> None:
    """All stages between the first and the last; files that were read are not kept."""
    each = range(job.partitions)
    stages.run("ordering", partial(_order, job), each)
    shutil.rmtree(job.scratch / "runs")
    problems = stages.run("checking the event ids of", partial(_check_ids, job), each)
    problems += stages.run("attributing", partial(_attribute, job), each)
    _refuse([problem for of_task in problems for problem in of_task])
    shutil.rmtree(job.scratch / "things")
    holders = [(key, partition) for key in job.plan.by_key for partition in each]
    stages.run("aggregating", partial(_aggregate, job), holders)
    shutil.rmtree(job.scratch / "events")


# --- reading ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """A part of a file: all of a CSV file, or some row groups of a Parquet file."""

    table: str
    path: Path
    row_groups: tuple[int, ...] | None
    first_row: int
    rows: int

    def __str__(self) -> str:
        return f"{self.path.name} from row {self.first_row + 1}"


@dataclass(frozen=True)
class _Read:
    """What reading a piece found; ``known_at`` is a sample, each for so many rows ``weight``."""

    problems: list[Problem]
    ignored: list[str]
    known_at: IntArray
    weight: FloatArray


def _pieces(table: str, path: Path) -> list[_Piece]:
    """What tasks read of a file; nothing of those that no feature is computed from."""
    if table not in EVENT_OF_TABLE:
        return []
    if path.suffix != ".parquet":
        return [_Piece(table, path, None, 0, path.stat().st_size // _BYTES_PER_CSV_ROW)]
    try:
        file = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return [_Piece(table, path, None, 0, 0)]  # reading it will say what is wrong
    sizes = [file.row_group(group).num_rows for group in range(file.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    pieces = []
    for _, of_piece in groupby(range(len(sizes)), lambda g: starts[g] // EVENTS_PER_PARTITION):
        groups = tuple(of_piece)
        first, last = int(starts[groups[0]]), int(starts[groups[-1] + 1])
        pieces.append(_Piece(table, path, groups, first, last - first))
    return pieces or [_Piece(table, path, None, 0, 0)]


def _read(scratch: Path, piece: _Piece) -> _Read:
    """Check a piece and write it as runs, sorted by time, that have the row of each event."""
    problems: list[Problem] = []
    ignored: dict[str, None] = {}
    known_at, weight = [np.empty(0, np.int64)], [np.empty(0)]
    row = piece.first_row
    try:
        for raw in load_in_parts(piece.path, piece.row_groups, EVENTS_PER_PARTITION, _CSV_BLOCK):
            checked, found, unknown = check_table(piece.table, raw)
            problems += [p if p.row is None else replace(p, row=p.row + row) for p in found]
            ignored |= dict.fromkeys(unknown)
            if not problems:
                run = _run(piece.table, checked, row)
                write_run(run, scratch / "runs" / piece.table / f"{row:012}.arrow")
                sample = run["known_at"].to_numpy()[:: len(run) // _SAMPLES + 1]
                known_at.append(sample)
                weight.append(np.full(len(sample), len(run) / max(len(sample), 1)))
            row += len(raw)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        expected = f"a readable {piece.path.suffix[1:]}"
        problems.append(Problem(piece.table, None, None, str(error).splitlines()[0], expected))
    return _Read(problems, list(ignored), np.concatenate(known_at), np.concatenate(weight))


def _run(table: str, checked: pa.Table, first_row: int) -> pa.Table:
    identified = with_event_ids(EVENT_OF_TABLE[table], checked)
    rows = identified.append_column("row", pa.array(np.arange(len(checked)) + first_row))
    return rows.take(pa.array(rows["known_at"].to_numpy().argsort(kind="stable")))


def _read_rates(files: Mapping[str, Path], base: str) -> tuple[Rates, list[Problem], list[str]]:
    """The rates of the folder, small enough to be read at once, and what is wrong with them."""
    if "fx_rates" not in files:
        return Rates.of(base, []), [], []
    try:
        parts = list(load_in_parts(files["fx_rates"], None, EVENTS_PER_PARTITION, _CSV_BLOCK))
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        expected = f"a readable {files['fx_rates'].suffix[1:]}"
        problem = Problem("fx_rates", None, None, str(error).splitlines()[0], expected)
        return Rates.of(base, []), [problem], []
    checked, problems, ignored = check_table("fx_rates", pa.concat_tables(parts))
    problems += two_rates(checked)
    rates = Rates.of(base, []) if problems else rates_of({"fx_rates": checked}, base)
    return rates, problems, ignored


def _refuse(problems: Iterable[Problem]) -> None:
    """Raise FolderError if there are any: by table, column and row, not too many of a column."""
    listed: list[Problem] = []
    ordered = sorted(
        problems, key=lambda p: (p.table, p.column or "", p.row or math.inf, p.expected)
    )
    for place, of_column in groupby(ordered, lambda p: (p.table, p.column)):
        found = list(of_column)
        listed += found[:MAX_PROBLEMS_PER_COLUMN]
        hidden = len(found) - MAX_PROBLEMS_PER_COLUMN
        if hidden > 0:
            listed.append(Problem(*place, None, f"{hidden} more like these", "as above"))
    if listed:
        raise FolderError(listed)


# --- the canonical order ---------------------------------------------------------------------


def _bounds(read: Sequence[_Read], partitions: int) -> IntArray:
    """Instants (partitions - 1,) between which there are about as many events."""
    known_at = np.concatenate([piece.known_at for piece in read])
    weight = np.concatenate([piece.weight for piece in read])
    order = known_at.argsort(kind="stable")
    upto = weight[order].cumsum()
    if not len(upto):
        return np.zeros(partitions - 1, np.int64)
    shares = np.arange(1, partitions) / partitions * upto[-1]
    bounds: IntArray = known_at[order][upto.searchsorted(shares).clip(max=len(upto) - 1)]
    return bounds


def _order(job: Job, time_range: int) -> None:
    """Give the events of a range of time their places; deal them by what they name."""
    edges = (-_NEVER, *job.bounds.tolist(), _NEVER)
    low, high = edges[time_range], edges[time_range + 1]
    ids = []
    for number, table in enumerate(job.tables):
        runs = sorted((job.scratch / "runs" / table).iterdir())
        rows = pa.concat_tables([_between(run, low, high) for run in runs])
        rows = rows.sort_by([("known_at", "ascending"), ("event_id", "ascending")])
        places = time_range * _RANGE + np.arange(len(rows))
        to = partition_of(_named(rows), job.partitions)
        name = f"{time_range:06}.arrow"
        spread(rows.append_column("place", pa.array(places)), to, job.partitions,
               job.scratch / "things" / table / name)  # fmt: skip
        origin = pa.array(number * job.partitions + to)
        ids.append(rows.select(["event_id", "row"]).append_column("origin", origin))
    found = pa.concat_tables(ids)
    to = partition_of(found["event_id"], job.partitions)
    spread(found, to, job.partitions, job.scratch / "ids" / name)


def _between(run: Path, low: int, high: int) -> pa.Table:
    """The rows of a sorted run in [low, high); no others are read."""
    with pa.memory_map(str(run)) as source:
        rows = pa.Table.from_batches([pa.ipc.open_file(source).get_batch(0)])
    first, end = rows["known_at"].to_numpy().searchsorted([low, high])
    return rows.slice(first, end - first)


def _named(rows: pa.Table) -> pa.ChunkedArray:
    """What each event has to be together with: the refund it names or is, else the order."""
    given = [c for c in ("refund_id", "order_id", "event_id") if c in rows.column_names]
    return pc.coalesce(*(rows[column] for column in given))


def _check_ids(job: Job, partition: int) -> list[Problem]:
    """Events that share an id with one of another table, or with one that names another thing.

    Those that name the same are compared where they meet, in `_attribute`.
    """
    rows = gather(job.scratch / "ids", partition)
    numbers, origins = rows["row"].to_numpy(), rows["origin"].to_numpy()
    order = np.lexsort((numbers, origins // job.partitions))
    rows, numbers, origins = rows.take(pa.array(order)), numbers[order], origins[order]
    codes = as_batch(rows)["event_id"].dictionary_encode().indices.to_numpy()
    _, first_of = np.unique(codes, return_index=True)
    first = first_of[codes]
    problems: list[Problem] = []
    for at in np.flatnonzero(origins != origins[first]):
        here, there = (job.tables[origins[i] // job.partitions] for i in (at, first[at]))
        if here == there:
            other = "refund or order that it names"
            expected = f"one content per event_id: row {numbers[first[at]] + 1} has another {other}"
        else:
            expected = f"an id of its own: row {numbers[first[at]] + 1} of {there} has it"
        event_id = repr(rows["event_id"][int(at)].as_py())
        problems.append(Problem(here, "event_id", int(numbers[at]) + 1, event_id, expected))
    return problems


# --- attribution -----------------------------------------------------------------------------


def _attribute(job: Job, partition: int) -> list[Problem]:
    """Attribute the events of a partition, and deal them and the requests by holder."""
    tables: dict[str, pa.Table] = {}
    problems: list[Problem] = []
    for name in job.tables:
        rows = _in_order(gather(job.scratch / "things" / name, partition))
        if pc.count_distinct(rows["event_id"]).as_py() < len(rows):
            problems += _conflicts(name, rows)
            rows = canonical(EVENT_OF_TABLE[name], rows)
        tables[name] = rows
    if problems:
        return problems
    found = attribute_part(tables, job.rates)
    asked = _asked(found, tables["refund_requests"])
    file = f"{partition:06}.arrow"
    to = asked["place"].to_numpy() // _RANGE
    said = asked.select(_columns(*(field for _, field in job.plan.fields)))
    spread(said, to, job.partitions, job.scratch / "requests" / file)
    for key, work in job.plan.by_key.items():
        folder = job.scratch / "events" / key
        values = _columns(*(v for stream in work.streams for v in stream.values))
        holders = _texts(found, key, found.requests.keys[key])
        _deal(job, asked.select(values), holders, folder / "asked" / file)
        if key in ENTITIES:
            seen = pa.table({"at": found.history.first_seen[key]})
            _deal(job, seen, found.ids[key], folder / "seen" / file)
        for of_stream in work.streams:
            if EVENTS[of_stream.name].table in tables:
                stream = found.history.streams[of_stream.name]
                events = _events(found, tables, of_stream.name, of_stream.columns, key)
                holders = _texts(found, key, stream.keys[key])
                _deal(job, events, holders, folder / of_stream.name / file)
    return []


def _in_order(rows: pa.Table) -> pa.Table:
    return rows.take(pa.array(rows["place"].to_numpy().argsort()))


def _conflicts(table: str, rows: pa.Table) -> Iterator[Problem]:
    """Rows that share an event_id, given or derived, and differ in more than their time."""
    counts = pc.value_counts(rows["event_id"])
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    alike = rows.filter(pc.is_in(rows["event_id"], repeated)).sort_by("row")
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    for content in alike.drop_columns(["known_at", "place"]).to_pylist():
        event_id, row = content.pop("event_id"), content.pop("row") + 1
        first_row, known = first.setdefault(event_id, (row, content))
        other = ", ".join(name for name in content if content[name] != known[name])
        if other:
            expected = f"one content per event_id: row {first_row} has another {other}"
            yield Problem(table, "event_id", row, repr(event_id), expected)


_FIXED: Final = ("place", "cutoff", "at", "holder")
"""Columns of dealt rows that no feature reads."""


def _columns(*names: str) -> list[str]:
    """The columns of requests that are dealt: these, and what every stage needs."""
    return list(dict.fromkeys(("place", "cutoff", "refund", *names)))


def _asked(found: Attributed, rows: pa.Table) -> pa.Table:
    """The requests: their places, cutoffs, keys by their values, and what they say."""
    requests = found.requests
    keys = {key: _texts(found, key, requests.keys[key]) for key in KEYS}
    fixed = {"place": rows["place"], "cutoff": requests.cutoff}
    return pa.table({**fixed, **keys, **requests.fields})


def _events(
    found: Attributed, tables: Mapping[str, pa.Table], event_type: str, columns: Sequence[str],
    key: str,
) -> pa.Table:  # fmt: skip
    """The events of a stream with the columns that are asked of it; identities as texts."""
    stream, rows = found.history.streams[event_type], found.rows[event_type]
    table = tables[EVENTS[event_type].table]

    def column(name: str) -> Any:
        if name in KEYS:
            return _texts(found, name, stream.keys[name])
        if name in IDENTITIES:
            return _identities(table, STREAM_COLUMNS[event_type][name]).take(pa.array(rows))
        return stream.columns[name]

    place = table["place"].take(pa.array(rows))
    asked = {name: column(name) for name in columns}
    return pa.table({"place": place, "at": stream.times[key], **asked})


def _texts(found: Attributed, key: str, codes: IntArray) -> pa.Array:
    return found.ids[key].take(pa.array(codes, mask=codes < 0))


def _identities(table: pa.Table, origin: tuple[str, str]) -> pa.ChunkedArray:
    """What each event is about, as a text that means the same in every partition."""
    column, how = origin
    if how == "identity":
        return table[column]
    given = [key for key in CASE if COLUMN_OF[key] in table.column_names]
    return pc.coalesce(
        *(pc.binary_join_element_wise(key, table[COLUMN_OF[key]], " ") for key in given)
    )


def _deal(job: Job, rows: pa.Table, holders: pa.Array, path: Path) -> None:
    """Deal the rows that have a holder, to the partition of the holder."""
    held = rows.append_column("holder", holders).filter(pc.is_valid(holders))
    spread(held, partition_of(held["holder"], job.partitions), job.partitions, path)


# --- aggregates of holders -------------------------------------------------------------------


def _aggregate(job: Job, holders: tuple[str, int]) -> None:
    """The aggregates of a key for the requests of a partition of its holders, dealt by time."""
    key, partition = holders
    work, steps = job.plan.by_key[key], job.plan.steps_by_key[key]
    folder = job.scratch / "events" / key
    tables = {path.name: gather(path, partition) for path in sorted(folder.iterdir())}
    tables = {n: rows if n == "seen" else _in_order(rows) for n, rows in tables.items()}
    codes = _codes(tables, key)
    asked = tables.pop("asked")
    own = codes["asked"]
    said = (name for name in asked.column_names if name not in (*KEYS, *_FIXED))
    fields = {name: asked[name].to_numpy() for name in said}
    requests = Requests(asked["cutoff"].to_numpy(), own, fields)
    out = np.empty((job.plan.steps, len(asked)))  # of which only the rows of this key are touched
    out[steps] = np.nan
    found = {"place": asked["place"].to_numpy()}
    if "seen" in tables:
        seen = np.full(int(own[key].max(initial=-1)) + 1, _NEVER)
        _earliest(seen, codes["seen"][key], tables.pop("seen")["at"].to_numpy())
        found["seen"] = seen[own[key]]
    streams = {name: _stream(rows, codes[name], key) for name, rows in tables.items()}
    aggregate(work, key, streams, requests, out)
    found |= {str(step): out[step] for step in steps}
    path = job.scratch / "found" / key / f"{partition:06}.arrow"
    spread(pa.table(found), found["place"] // _RANGE, job.partitions, path)


def _codes(tables: Mapping[str, pa.Table], key: str) -> dict[str, dict[str, IntArray]]:
    """Codes of the keys in every table, by their names: equal where the values are."""
    codes: dict[str, dict[str, IntArray]] = {name: {} for name in tables}
    for name in KEYS:
        column = "holder" if name == key else name
        having = [table for table in tables if column in tables[table].column_names]
        values = [as_batch(tables[table].select([column]))[column] for table in having]
        if not values:
            continue
        encoded = pc.fill_null(pa.concat_arrays(values).dictionary_encode().indices, -1)
        parts = np.split(encoded.to_numpy().astype(np.int64), np.cumsum([*map(len, values)])[:-1])
        for table, part in zip(having, parts, strict=True):
            codes[table][name] = part
    return codes


def _earliest(seen: IntArray, codes: IntArray, at: IntArray) -> None:
    asked = codes < len(seen)
    np.minimum.at(seen, codes[asked], at[asked])


def _stream(rows: pa.Table, keys: Mapping[str, IntArray], key: str) -> Stream:
    columns = {}
    for name in rows.column_names:
        if name in IDENTITIES:
            codes = as_batch(rows)[name].dictionary_encode().indices
            columns[name] = pc.fill_null(codes.cast(pa.int64()), UNKNOWN).to_numpy()
        elif name not in (*KEYS, *_FIXED):
            columns[name] = rows[name].to_numpy()
    return Stream(keys, {key: rows["at"].to_numpy()}, columns)


# --- rows of features ------------------------------------------------------------------------


def _combined(job: Job) -> Iterator[pa.Table]:
    """The rows of the result, range of time by range of time."""
    plan = job.plan
    for time_range in range(job.partitions):
        asked = _in_order(gather(job.scratch / "requests", time_range))
        m, places = len(asked), asked["place"].to_numpy()
        out = np.full((plan.steps, m), np.nan)
        keys, first_seen = {}, {}
        for key in plan.by_key:
            found = gather(job.scratch / "found" / key, time_range)
            rows = places.searchsorted(found["place"].to_numpy())
            for step in plan.steps_by_key[key]:
                out[step, rows] = found[str(step)].to_numpy()
            if key in ENTITIES:
                keys[key], first_seen[key] = np.full(m, -1), np.full(m, _NEVER)
                keys[key][rows] = rows
                first_seen[key][rows] = found["seen"].to_numpy()
        fields = {field: asked[field].to_numpy() for _, field in plan.fields}
        combine(plan, Requests(asked["cutoff"].to_numpy(), keys, fields), first_seen, out)
        columns = {name: out[step] for name, step in plan.step_of.items()}
        yield features_table(asked["refund"], asked["cutoff"].to_numpy(), columns)


# --- where tasks run -------------------------------------------------------------------------


class _Stages:
    """Runs stages one after the other, and tells how many of all tasks are done."""

    def __init__(self, run: Run, progress: Progress, total: int) -> None:
        self._run, self._progress, self._total, self._done = run, progress, total, 0

    def run(
        self, what: str, function: Callable[[_Item], _Result], items: Sequence[_Item]
    ) -> list[_Result]:
        """The results of a stage, in the order in which its tasks ended."""
        return list(self.each(self._run(_Task(what, function), items)))

    def each(self, results: Iterable[_Result]) -> Iterator[_Result]:
        """The results as they come, each a task done."""
        for result in results:
            self._done += 1
            self._progress(self._done, self._total)
            yield result


@dataclass(frozen=True)
class _Task:
    """A function that says, when it fails, what it was doing."""

    what: str
    function: Callable[[Any], Any]

    def __call__(self, item: Any) -> Any:
        try:
            return self.function(item)
        except Exception as error:
            of = " ".join(map(str, item)) if isinstance(item, tuple) else item
            what = f"{self.what} {'' if isinstance(item, _Piece) else 'partition '}{of}"
            raise ScaleError(f"{what}: {type(error).__name__}: {error}") from error


@contextmanager
def _runner(dask: str | None) -> Iterator[Run]:
    """Where tasks run: here one after another, or on the cluster of a Dask scheduler."""
    if dask is None:
        yield map
        return
    try:
        distributed: Any = import_module("distributed")  # untyped
    except ModuleNotFoundError as error:
        raise ScaleError("--dask needs the extra 'dask': pip install 'recourse[dask]'") from error
    try:
        client = distributed.Client(dask, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise ScaleError(f"--dask: no scheduler answers at {dask}: {error}") from error
    with client:

        def run(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
            futures = client.map(function, items, pure=False)
            try:
                for future in distributed.as_completed(futures):
                    yield future.result()
            except distributed.KilledWorker as error:
                raise ScaleError(f"{error}") from error
            finally:
                client.cancel(futures)

        yield run


__all__ = ["EVENTS_PER_PARTITION", "ScaleError", "Written", "features_of_folder", "partitions_for"]
