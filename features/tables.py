"""The same events as columnar tables: the schema of a data folder, reading, checking and writing.

A data folder holds one table per event type as ``.parquet`` or ``.csv``. A bad folder is refused
whole, with every problem listed; unknown columns are reported and ignored. What `read_folder`
returns is canonical: typed, normalised, every row with its ``event_id``, duplicates counted once,
ordered by (known_at, event_id), so that nothing after it depends on how the rows were stored.
"""

from __future__ import annotations

import csv
import difflib
import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from features.events import EVENTS, NORMAL, NORMALISE, Event, Kind, event_digest, left_out_of_id
from features.money import MINOR_UNIT_DIGITS

Tables = Mapping[str, pa.Table]
"""Table name -> canonical table."""

MAX_PROBLEMS_PER_COLUMN: Final = 1000
"""Beyond it a column's problems are counted, not listed: a wrong column is wrong in every row."""

EARLIEST_MS: Final = 631_152_000_000
LATEST_MS: Final = 4_102_444_800_000
"""Times of a web shop lie from 1990 on and before 2100; seconds, micro- and nanoseconds do not."""

_BATCH: Final = 65_536

_ARROW_TYPES: Final = {
    "time": pa.int64(), "minor": pa.int64(), "count": pa.int64(), "flag": pa.bool_(),
    "share": pa.float64(), "rate": pa.float64(), "propensity": pa.float64(),
}  # fmt: skip

_EXPECTED: Final = {
    "id": "a text of 1 to 256 characters",
    "text": "a text of at most 1024 characters",
    "time": "ISO 8601 with offset, or epoch milliseconds, from 1990 to 2099",
    "minor": "an integer of minor units from 0 to 10^15",
    "count": "a whole number from 0 to 10^9",
    "flag": "true or false",
    "share": "a number from 0 to 1",
    "rate": "a number above 0",
    "propensity": "a number above 0 and at most 1",
    "currency": "an ISO 4217 code",
    "country": "two upper-case letters (ISO 3166)",
    "date": "a date as YYYY-MM-DD",
}


ACTIONS: Final = ("ALLOW", "REVIEW", "MANUAL_REVIEW", "PREVENT")
"""What a decision may be, the mildest first: the values of `rules.decision.Action`."""

DECISION_SOURCES: Final = ("RULE", "MODEL", "LIST", "MANUAL_REVIEW", "RATE_LIMIT", "FALLBACK")
"""Who may have had the last word: the values of `rules.decision.Source`."""


@dataclass(frozen=True)
class Column:
    """A column of a table: what it holds and whether it must be there."""

    name: str
    kind: str
    required: bool = False
    choices: tuple[str, ...] = ()

    @property
    def arrow_type(self) -> pa.DataType:
        """The type of the canonical column."""
        return _ARROW_TYPES.get(self.kind, pa.string())

    @property
    def expected(self) -> str:
        """What a value must be, for an error message."""
        return "one of " + ", ".join(self.choices) if self.choices else _EXPECTED[self.kind]


@dataclass(frozen=True)
class Problem:
    """Something wrong with a folder. ``row`` counts from 1, the header not counted."""

    table: str
    column: str | None
    row: int | None
    value: str | None
    expected: str

    def __str__(self) -> str:
        place = self.table + (f".{self.column}" if self.column else "")
        place += f", row {self.row}" if self.row is not None else ""
        got = f", got {self.value}" if self.value is not None else ""
        return f"{place}: expected {self.expected}{got}"


class FolderError(Exception):
    """A data folder was refused; holds every problem.

    >>> print(FolderError([Problem("orders", "amount_minor", 3, "'10.00'", "an integer")]))
    the data folder has 1 problem:
      orders.amount_minor, row 3: expected an integer, got '10.00'
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        head = f"the data folder has {count} problem{'s' if count != 1 else ''}:"
        return "\n  ".join([head, *map(str, self.problems)])


@dataclass(frozen=True)
class Folder:
    """A data folder that passed: its canonical tables, and what in it was ignored."""

    tables: Tables
    ignored: tuple[str, ...] = ()


def _column(name: str, info: FieldInfo) -> Column | None:
    """The table column of a model's field; None for the embedded items."""
    if name == "items":
        return None
    arms = [info.annotation, *get_args(info.annotation)]
    metadata = list(info.metadata)
    for arm in arms:
        if hasattr(arm, "__metadata__"):
            metadata.extend(arm.__metadata__)
        if get_origin(arm) is Literal:
            return Column(name, "text", info.is_required(), get_args(arm))
    kind = next(item.name for item in metadata if isinstance(item, Kind))
    return Column(name, kind, info.is_required())


def _columns(model: type[BaseModel]) -> tuple[Column, ...]:
    found = (_column(name, info) for name, info in model.model_fields.items())
    return tuple(column for column in found if column is not None)


def _schema() -> dict[str, tuple[Column, ...]]:
    schema: dict[str, tuple[Column, ...]] = {}
    for event in EVENTS.values():
        schema[event.table] = _columns(event)
        if event.item_table is not None:
            parent = event.event_type.removesuffix("_request") + "_id"
            (item,) = get_args(event.model_fields["items"].annotation)[:1]
            schema[event.item_table] = (
                Column("event_id", "id"), Column(parent, "id", required=True), *_columns(item)
            )  # fmt: skip
    schema["fx_rates"] = (
        Column("date", "date", required=True),
        Column("currency", "currency", required=True),
        Column("rate", "rate", required=True),
    )
    schema["decisions"] = (
        Column("score_id", "id", required=True),
        Column("refund_id", "id", required=True),
        Column("known_at", "time", required=True),
        Column("action", "text", required=True, choices=ACTIONS),
        Column("source", "text", required=True, choices=DECISION_SOURCES),
        Column("propensity", "propensity", required=True),
        Column("explored", "flag", required=True),
        Column("probability", "share"),
        Column("degraded", "flag"),
        Column("model_version", "text"),
        Column("policy_version", "text"),
        Column("policy_hash", "text"),
    )
    return schema


SCHEMA: Final[Mapping[str, tuple[Column, ...]]] = _schema()
"""Every table of a data folder and its columns, in order.

``decisions`` is what a service decided, and how likely it was to: no event, as nobody reports it,
and read by no feature. It says which labels came about by chance (`training.propensity`).
"""

EVENT_OF_TABLE: Final[Mapping[str, type[Event]]] = {e.table: e for e in EVENTS.values()}


def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of a canonical table.

    >>> arrow_schema("fx_rates").names
    ['date', 'currency', 'rate']
    """
    return pa.schema([(column.name, column.arrow_type) for column in SCHEMA[table]])


# --- one value -------------------------------------------------------------------------------


def parse_time(value: Any) -> int | None:
    """Epoch milliseconds of a time with offset, or of epoch milliseconds; None for others.

    Times before 1990 or from 2100 on are others: they are seconds or nanoseconds, or wrong.

    >>> parse_time("2026-03-29T01:30:00+00:00"), parse_time("2026-03-29"), parse_time(1_774_747_800)
    (1774747800000, None, None)
    """
    millis = _whole(value)
    if millis is None:
        millis = _millis_of_instant(value)
    return millis if millis is not None and EARLIEST_MS <= millis < LATEST_MS else None


def _millis_of_instant(value: Any) -> int | None:
    try:
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(value.strip())
    except (AttributeError, ValueError):
        return None
    if instant.tzinfo is None:
        return None
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _looks_like(value: Any) -> str | None:
    """The unit in which a refused time would be one, if it would."""
    number = _whole(value) or 0
    units = {"seconds": number * 1000, "microseconds": number // 1000,
             "nanoseconds": number // 10**6}  # fmt: skip
    fitting = (unit for unit, millis in units.items() if EARLIEST_MS <= millis < LATEST_MS)
    return next(fitting, None)


def _whole(value: Any) -> int | None:
    """The whole number that a number or a text of digits is."""
    if isinstance(value, float):  # pandas turns a column of whole numbers with gaps into floats
        return int(value) if value.is_integer() else None
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,20}", str(value).strip()):
        return None
    return int(value)


def _parse_whole(most: int) -> Callable[[Any], int | None]:
    def parse(value: Any) -> int | None:
        number = _whole(value)
        return number if number is not None and 0 <= number <= most else None

    return parse


def _parse_number(accepts: Callable[[float], bool]) -> Callable[[Any], float | None]:
    def parse(value: Any) -> float | None:
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None
        return number if accepts(number) else None

    return parse


def _parse_flag(value: Any) -> bool | None:
    return {"true": True, "false": False, "1": True, "0": False}.get(str(value).strip().lower())


def _parse_text(most: int, least: int = 0) -> Callable[[Any], str | None]:
    def parse(value: Any) -> str | None:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = str(value)
        return text if least <= len(text) <= most else None

    return parse


def _parse_date(value: Any) -> str | None:
    try:
        return date.fromisoformat(str(value)[:10]).isoformat() if len(str(value)) >= 10 else None
    except ValueError:
        return None


_PARSERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "id": _parse_text(256, least=1),
    "text": _parse_text(1024),
    "time": parse_time,
    "minor": _parse_whole(10**15),
    "count": _parse_whole(10**9),
    "flag": _parse_flag,
    "share": _parse_number(lambda x: 0 <= x <= 1),
    "rate": _parse_number(lambda x: 0 < x < float("inf")),
    "propensity": _parse_number(lambda x: 0 < x <= 1),
    "currency": lambda value: value if value in MINOR_UNIT_DIGITS else None,
    "country": lambda value: value if re.fullmatch("[A-Z]{2}", str(value)) else None,
    "date": _parse_date,
}


def _capped(found: Iterable[Problem]) -> list[Problem]:
    """Problems of one kind: so many, and of those beyond their number."""
    found = iter(found)
    listed = list(itertools.islice(found, MAX_PROBLEMS_PER_COLUMN))
    hidden = sum(1 for _ in found)
    if hidden:
        value = f"{hidden} more like these"
        listed.append(Problem(listed[-1].table, listed[-1].column, None, value, "as above"))
    return listed


# --- one column ------------------------------------------------------------------------------


def _typed(column: Column, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in its canonical type where that changes no value, else as it is."""
    if pa.types.is_dictionary(values.type) or pa.types.is_large_string(values.type):
        values = values.cast(pa.string())
    if pa.types.is_string(values.type):
        empty = pc.equal(values, "")
        if pc.any(empty).as_py():
            values = pc.if_else(empty, pa.scalar(None, pa.string()), values)
    wanted = column.arrow_type
    if column.kind == "time" and pa.types.is_timestamp(values.type) and values.type.tz:
        return values.cast(pa.timestamp("ms", "UTC"), safe=False).cast(wanted)
    is_number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    is_digits = (
        wanted == pa.int64()
        and pa.types.is_string(values.type)
        and pc.all(pc.match_substring_regex(values, r"^\d{1,16}$")).as_py() is not False
    )
    if wanted not in (pa.int64(), pa.float64()) or not (is_number or is_digits):
        return values
    try:
        return values.cast(wanted)
    except pa.ArrowInvalid:
        return values


def _already_good(column: Column, values: pa.ChunkedArray) -> bool:
    """Whether a typed column can be taken as it is, no value looked at in Python."""
    if values.type != column.arrow_type:
        return False
    if column.choices:
        return set(pc.unique(values).to_pylist()) <= {None, *column.choices}
    if column.kind == "flag":
        return True
    if column.kind in ("currency", "country"):
        distinct = pc.unique(values).to_pylist()
        return all(v is None or _PARSERS[column.kind](v) is not None for v in distinct)
    if column.kind in ("time", "minor", "count", "share", "rate", "propensity"):
        if pa.types.is_floating(values.type) and pc.any(pc.is_nan(values)).as_py():
            return False
        low, high = (pc.min_max(values)[side].as_py() for side in ("min", "max"))
        return low is None or all(_PARSERS[column.kind](x) is not None for x in (low, high))
    return _short_enough(column, values)


def _short_enough(column: Column, values: pa.ChunkedArray) -> bool:
    if column.kind not in ("id", "text"):
        return False
    lengths = pc.min_max(pc.utf8_length(values))
    low, high = lengths["min"].as_py(), lengths["max"].as_py()
    least, most = (1, 256) if column.kind == "id" else (0, 1024)
    return low is None or (least <= low and high <= most)


def _read_column(table: str, column: Column, values: pa.ChunkedArray) -> tuple[Any, list[Problem]]:
    """A canonical column and the problems of its values."""
    problems: list[Problem] = []
    typed = _typed(column, values)
    if _already_good(column, typed):
        canonical = typed
    else:
        parsed: list[Any] = []
        hidden = 0
        parse = _PARSERS[column.kind]
        for row, raw in enumerate(values.to_pylist(), 1):
            value = None if raw is None or raw == "" else parse(raw)
            if column.choices and value not in column.choices:
                value = None
            parsed.append(value)
            if value is None and raw is not None and raw != "":
                hidden += len(problems) >= MAX_PROBLEMS_PER_COLUMN
                if not hidden:
                    expected = column.expected + _hint(column, raw)
                    problems.append(Problem(table, column.name, row, repr(raw), expected))
        if hidden:
            problems.append(
                Problem(table, column.name, None, f"{hidden} more like these", column.expected)
            )
        canonical = pa.chunked_array([pa.array(parsed, column.arrow_type)])
    if column.required and typed.null_count:
        problems += _capped(Problem(table, column.name, row + 1, "nothing", column.expected)
                            for row in _rows(pc.is_null(typed)))  # fmt: skip
    return canonical, problems


def _hint(column: Column, raw: Any) -> str:
    near = difflib.get_close_matches(str(raw).upper(), column.choices, 1)
    if near:
        return f" (did you mean {near[0]}?)"
    unit = _looks_like(raw) if column.kind == "time" else None
    return f" (looks like {unit})" if unit else ""


def _normalised(column: Column, values: pa.ChunkedArray) -> pa.ChunkedArray:
    normalise = NORMALISE.get(column.name)
    if normalise is None or not len(values):
        return values
    odd = pc.invert(pc.match_substring_regex(values, f"^(?:{NORMAL[column.name]})$"))
    spelt = pc.unique(values.filter(odd))
    normal = pa.array([normalise(value) for value in spelt.to_pylist()], pa.string())
    return pc.coalesce(pc.take(normal, pc.index_in(values, spelt)), values)


# --- one table -------------------------------------------------------------------------------


def _load(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(path)
    return pa.csv.read_csv(path, convert_options=_csv_options(path))


def load_in_parts(
    path: Path, row_groups: Sequence[int] | None, rows: int, size: int
) -> Iterator[pa.Table]:
    """A file's rows as they are, part by part: at most ``rows`` of Parquet, ``size`` bytes of CSV.

    ``row_groups`` are those of a Parquet file to read, None for all. A file without rows is one
    part, that says what columns it has.
    """
    reading = pa.csv.ReadOptions(block_size=size)
    with (
        pq.ParquetFile(path) if path.suffix == ".parquet"
        else pa.csv.open_csv(path, reading, convert_options=_csv_options(path))
    ) as file:  # fmt: skip
        is_parquet = isinstance(file, pq.ParquetFile)
        yielded = False
        for batch in file.iter_batches(rows, row_groups) if is_parquet else file:
            yielded = True
            yield pa.Table.from_batches([batch])
        if not yielded:
            yield (file.schema_arrow if is_parquet else file.schema).empty_table()


def _csv_options(path: Path) -> pa.csv.ConvertOptions:
    """Everything as text: our parsers, not a guess from the first rows, say what a value means."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        names = next(csv.reader(lines), [])
    return pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True, null_values=[""], quoted_strings_can_be_null=True,
    )  # fmt: skip


def check_table(table: str, raw: pa.Table) -> tuple[pa.Table, list[Problem], list[str]]:
    """A table, or some of its rows, typed and normalised; its problems and what is ignored."""
    known = {column.name: column for column in SCHEMA[table]}
    ignored = [
        f"{table}.{name} is not a column we know"
        + "".join(f"; did you mean {n}?" for n in difflib.get_close_matches(name, known, 1))
        for name in raw.column_names
        if name not in known
    ]
    problems = [
        Problem(table, name, None, f"{count} columns of this name", "one")
        for name, count in Counter(raw.column_names).items()
        if count > 1
    ]
    columns: list[pa.ChunkedArray] = []
    for column in SCHEMA[table]:
        if raw.column_names.count(column.name) == 1:
            values, found = _read_column(table, column, raw[column.name])
            problems += found
            columns.append(_normalised(column, values) if not found else values)
        else:
            if column.required and column.name not in raw.column_names:
                near = difflib.get_close_matches(column.name, raw.column_names, 1)
                got = "".join(f", but {name!r}" for name in near)
                problems.append(Problem(table, column.name, None, f"no such column{got}",
                                        f"a column of {column.expected}"))  # fmt: skip
            columns.append(pa.chunked_array([pa.nulls(raw.num_rows, column.arrow_type)]))
    checked = pa.table(columns, schema=arrow_schema(table))
    if table in EVENT_OF_TABLE:
        event = EVENT_OF_TABLE[table]
        if not any(problem.column in event.one_of for problem in problems):
            problems += _check_one_of(event, checked)
        problems += _check_parts(event, checked)
    return checked, problems, ignored


def _rows(where: pa.ChunkedArray) -> list[int]:
    """The places that are true. Arrow itself dies on a column of no chunks, an empty file's."""
    return pc.indices_nonzero(where.combine_chunks()).to_pylist() if len(where) else []


def _check_one_of(event: type[Event], table: pa.Table) -> list[Problem]:
    if not event.one_of:
        return []
    given = functools.reduce(
        pc.add, [pc.cast(pc.is_valid(table[name]), pa.int8()) for name in event.one_of]
    )
    bad = pc.not_equal(given, 1) if event.only_one else pc.equal(given, 0)
    what = "exactly one" if event.only_one else "at least one"
    return _capped(
        Problem(event.table, None, row + 1, f"{given[row].as_py()}",
                f"{what} of {', '.join(event.one_of)}")
        for row in _rows(bad)
    )  # fmt: skip


def _check_parts(event: type[Event], table: pa.Table) -> list[Problem]:
    return _capped(
        Problem(event.table, part, row + 1, str(table[part][row].as_py()),
                f"at most {whole}, of which it is a part: {table[whole][row].as_py()}")
        for part, whole in event.part_of.items()
        for row in _rows(pc.greater(table[part], table[whole]))
    )  # fmt: skip


def _as_json(values: pa.Array) -> pa.Array:
    """Each value as JSON; null stays null."""
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        return values.cast(pa.string())
    if pa.types.is_string(values.type):
        escaped = pc.match_substring_regex(values, r'[\x00-\x1f"\\]')
        if not pc.any(escaped).as_py():
            return pc.binary_join_element_wise('"', values, '"', "")
    distinct = values.dictionary_encode()
    written = [orjson.dumps(value).decode() for value in distinct.dictionary.to_pylist()]
    return pc.take(pa.array(written, pa.string()), distinct.indices)


def _derived_ids(event: type[Event], rows: pa.RecordBatch) -> list[str]:
    """What `derive_event_id` gives for each row, the JSON of all rows written at once."""
    left_out = left_out_of_id(repeats=event.repeats)
    kept = sorted(name for name in rows.schema.names if name not in left_out)
    members = [pc.binary_join_element_wise(f'"{name}":', _as_json(rows[name]), "")
               for name in kept if rows[name].null_count < rows.num_rows]  # fmt: skip
    objects = pc.binary_join_element_wise(*members, ",", null_handling="skip")
    texts = pc.binary_join_element_wise(f'["{event.event_type}",{{', objects, "}]", "")
    return [event_digest(text) for text in texts.cast(pa.binary()).to_pylist()]


def with_event_ids(event: type[Event], table: pa.Table) -> pa.Table:
    """The table with an ``event_id`` in every row, derived where none was given."""
    if table["event_id"].null_count == 0:
        return table
    derived = [
        pc.coalesce(batch["event_id"], pa.array(_derived_ids(event, batch), pa.string()))
        for batch in table.to_batches(max_chunksize=_BATCH)
    ]
    place = table.schema.get_field_index("event_id")
    return table.set_column(place, "event_id", pa.chunked_array(derived, pa.string()))


def canonical(event: type[Event], table: pa.Table) -> pa.Table:
    """Rows by (known_at, event_id), each event once, at the first time it was known."""
    table = with_event_ids(event, table)
    table = table.sort_by([("known_at", "ascending"), ("event_id", "ascending")])
    if len(pc.unique(table["event_id"])) == table.num_rows:
        return table
    rows = pa.table({"event_id": table["event_id"], "row": range(table.num_rows)})
    first = rows.group_by("event_id").aggregate([("row", "min")])["row_min"]
    return table.take(first.take(pc.sort_indices(first)))


def _repeated(values: pa.ChunkedArray) -> pa.Array:
    counts = pc.value_counts(values)
    return counts.filter(pc.greater(counts.field("counts"), 1)).field("values")


def _conflicts(event: type[Event], table: pa.Table, ids: pa.ChunkedArray) -> Iterator[Problem]:
    """Rows that share an event_id, given or derived, and differ in more than their time.

    A derived id knows no persons (see `derive_event_id`): rows that differ in them alone would
    count as one event, and the others be lost in silence.
    """
    rows = _rows(pc.is_in(ids, _repeated(ids)))
    places = pa.array(rows, pa.int64())
    contents = zip(rows, ids.take(places).to_pylist(), table.take(places).to_pylist(), strict=True)
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    for row, event_id, content in contents:
        given = content.pop("event_id")
        del content["known_at"]
        first_row, known = first.setdefault(event_id, (row, content))
        other = ", ".join(name for name in content if content[name] != known[name])
        if other and given is None:
            expected = f"an event_id to tell it from row {first_row + 1}: only {other} differs"
            yield Problem(event.table, "event_id", row + 1, "nothing", expected)
        elif other:
            expected = f"one content per event_id: row {first_row + 1} has another {other}"
            yield Problem(event.table, "event_id", row + 1, repr(given), expected)


# --- the folder ------------------------------------------------------------------------------


def find_files(folder: Path) -> tuple[dict[str, Path], list[Problem], list[str]]:
    """The file of each table, what is wrong with the files, and which are ignored.

    Raises `FileNotFoundError` when there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of tables")
    files: dict[str, Path] = {}
    problems: list[Problem] = []
    ignored: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".parquet", ".csv"):
            if path.name.partition(".")[0].lower() in SCHEMA:
                ignored.append(f"{path.name} is not read: expected a name in .parquet or .csv")
            continue
        if path.stem not in SCHEMA:
            near = difflib.get_close_matches(path.stem, SCHEMA, 1)
            ignored.append(f"{path.name} is not a table we know"
                           + "".join(f"; did you mean {n}?" for n in near))  # fmt: skip
        elif path.stem in files:
            problems.append(Problem(path.stem, None, None, f"{path.name} as well",
                                    f"one file, {files[path.stem].name}"))  # fmt: skip
        else:
            files[path.stem] = path
    if "refund_requests" not in files:
        problems.append(Problem("refund_requests", None, None, "no such file",
                                "refund_requests.parquet or refund_requests.csv"))  # fmt: skip
    return files, problems, ignored


def _check_items(tables: dict[str, pa.Table]) -> list[Problem]:
    problems = []
    for event in EVENTS.values():
        if event.item_table is None or event.item_table not in tables:
            continue
        items, parent = tables[event.item_table], SCHEMA[event.item_table][1].name
        known = tables[event.table][parent] if event.table in tables else pa.array([], pa.string())
        orphans = pc.invert(pc.is_in(items[parent], pc.unique(known)))
        problems += _capped(
            Problem(event.item_table, parent, row + 1, repr(items[parent][row].as_py()),
                    f"a {parent} that {event.table} has")
            for row in _rows(orphans)
        )  # fmt: skip
    return problems


def _check_events(tables: dict[str, pa.Table]) -> list[Problem]:
    """Give every event its id, and find those that could not be told apart by it."""
    given = {name: table for name, table in tables.items() if name in EVENT_OF_TABLE}
    for name, table in given.items():
        tables[name] = with_event_ids(EVENT_OF_TABLE[name], table)
    ids = {name: tables[name]["event_id"] for name in given}
    together = pa.chunked_array([chunk for of_one in ids.values() for chunk in of_one.chunks],
                                pa.string())  # fmt: skip
    if len(pc.unique(together)) == len(together):
        return []
    problems: list[Problem] = []
    for name, table in given.items():
        problems += _capped(_conflicts(EVENT_OF_TABLE[name], table, ids[name]))
    return problems + _capped(_ids_across(ids))


def _ids_across(ids: Mapping[str, pa.ChunkedArray]) -> Iterator[Problem]:
    """An id is that of one event, of whatever type: of two a store would keep the first alone."""
    shared = _repeated(pa.chunked_array([pc.unique(of_one) for of_one in ids.values()]))
    first: dict[str, tuple[str, int]] = {}
    for name, of_one in ids.items():
        for row in _rows(pc.is_in(of_one, shared)):
            event_id = of_one[row].as_py()
            table, first_row = first.setdefault(event_id, (name, row))
            if table != name:
                expected = f"an id of its own: row {first_row + 1} of {table} has it"
                yield Problem(name, "event_id", row + 1, repr(event_id), expected)


def two_rates(table: pa.Table) -> Iterator[Problem]:
    """Rows that give a currency a second rate on one day."""
    first: dict[tuple[str, str], tuple[int, float]] = {}
    for number, row in enumerate(table.to_pylist(), 1):
        first_row, rate = first.setdefault((row["date"], row["currency"]), (number, row["rate"]))
        if row["rate"] != rate:
            expected = f"{rate}, the rate of {row['currency']} on {row['date']} in row {first_row}"
            yield Problem("fx_rates", "rate", number, str(row["rate"]), expected)


def _odd_decisions(table: pa.Table) -> Iterator[Problem]:
    """Decisions that share an id and differ, and explored ones that did not pay."""
    unpaid = pc.and_(table["explored"], pc.not_equal(table["action"], "ALLOW"))
    for row in _rows(unpaid):
        got = table["action"][row].as_py()
        yield Problem("decisions", "action", row + 1, got, "ALLOW, as what is explored is paid")
    rows = _rows(pc.is_in(table["score_id"], _repeated(table["score_id"])))
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    for row, content in zip(rows, table.take(pa.array(rows, pa.int64())).to_pylist(), strict=True):
        first_row, known = first.setdefault(content["score_id"], (row, content))
        if other := ", ".join(name for name in content if content[name] != known[name]):
            expected = f"one decision per score_id: row {first_row + 1} has another {other}"
            yield Problem("decisions", "score_id", row + 1, repr(content["score_id"]), expected)


def read_folder(folder: Path) -> Folder:
    """Read and check a data folder.

    Raises `FolderError` with every problem of every table when anything is wrong, and
    `FileNotFoundError` when there is no such folder.
    """
    files, problems, ignored = find_files(folder)
    tables: dict[str, pa.Table] = {}
    for name, path in files.items():
        try:
            raw = _load(path)
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            reason = str(error).splitlines()[0]
            problems.append(Problem(name, None, None, reason, f"a readable {path.suffix[1:]}"))
            continue
        checked, found, unknown = check_table(name, raw)
        problems += found
        ignored += unknown
        tables[name] = checked
    if not problems:
        problems += _check_events(tables) + _check_items(tables)
        problems += _capped(two_rates(tables["fx_rates"])) if "fx_rates" in tables else []
        problems += _capped(_odd_decisions(tables["decisions"])) if "decisions" in tables else []
    if problems:
        raise FolderError(problems)
    # One table after the other, so that no more than one is there twice.
    for name in tables:
        rows = tables[name].num_rows
        tables[name] = canonical_table(name, tables[name])
        if again := rows - tables[name].num_rows:
            ignored.append(f"{name}: {again:,} rows say again what others say")
    return Folder(tables, tuple(ignored))


def canonical_table(name: str, table: pa.Table) -> pa.Table:
    """Any table of the schema in its canonical order; an event, a rate and a decision once."""
    if name in EVENT_OF_TABLE:
        return canonical(EVENT_OF_TABLE[name], table)
    if name in ("fx_rates", "decisions"):
        table = table.group_by(table.column_names).aggregate([])
    if name == "fx_rates":
        keys = ["date", "currency", "rate"]
    elif name == "decisions":
        keys = ["known_at", "score_id"]
    else:
        keys = [column.name for column in (*SCHEMA[name][1:3], SCHEMA[name][0])]
    return table.sort_by([(key, "ascending") for key in keys])


def write_folder(tables: Tables, folder: Path) -> None:
    """Write tables as Parquet, in canonical order; the same tables give the same bytes.

    Columns that hold nothing are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        filled = [c.name for c in SCHEMA[name] if c.name in table.column_names
                  and (c.required or table[c.name].null_count < table.num_rows)]  # fmt: skip
        pq.write_table(
            table.select(filled).replace_schema_metadata(None), folder / f"{name}.parquet",
            compression="zstd", compression_level=9, write_statistics=False, store_schema=False,
        )  # fmt: skip
