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
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from features.events import EVENTS, NORMALISE, Event, Kind, derive_event_id
from features.money import MINOR_UNIT_DIGITS

Tables = Mapping[str, pa.Table]
"""Table name -> canonical table."""

MAX_PROBLEMS_PER_COLUMN: Final = 1000
"""Beyond it a column's problems are counted, not listed: a wrong column is wrong in every row."""

_ARROW_TYPES: Final = {
    "time": pa.int64(), "minor": pa.int64(), "count": pa.int64(), "flag": pa.bool_(),
    "share": pa.float64(), "rate": pa.float64(),
}  # fmt: skip

_EXPECTED: Final = {
    "id": "a text of 1 to 256 characters",
    "text": "a text of at most 1024 characters",
    "time": "ISO 8601 with offset, or epoch milliseconds",
    "minor": "an integer of minor units from 0 to 10^15",
    "count": "a whole number from 0 to 10^9",
    "flag": "true or false",
    "share": "a number from 0 to 1",
    "rate": "a number above 0",
    "currency": "an ISO 4217 code",
    "country": "two upper-case letters (ISO 3166)",
    "date": "a date as YYYY-MM-DD",
}


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
    return schema


SCHEMA: Final[Mapping[str, tuple[Column, ...]]] = _schema()
"""Every table of a data folder and its columns, in order."""

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

    >>> parse_time("2026-03-29T01:30:00+00:00"), parse_time("2026-03-29")
    (1774747800000, None)
    """
    if isinstance(value, datetime):
        return None if value.tzinfo is None else round(value.timestamp() * 1000)
    if isinstance(value, int):
        return value if 0 <= value <= 10**14 else None
    text = str(value).strip()
    if re.fullmatch(r"\d{1,14}", text):
        return int(text)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    if instant.tzinfo is None:
        return None
    delta = instant - datetime(1970, 1, 1, tzinfo=UTC)
    millis = (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000
    return millis if millis >= 0 else None


def _parse_whole(most: int) -> Callable[[Any], int | None]:
    def parse(value: Any) -> int | None:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not re.fullmatch(r"\d{1,16}", str(value).strip()):
            return None
        number = int(value)
        return number if number <= most else None

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
    "currency": lambda value: value if value in MINOR_UNIT_DIGITS else None,
    "country": lambda value: value if re.fullmatch("[A-Z]{2}", str(value)) else None,
    "date": _parse_date,
}


# --- one column ------------------------------------------------------------------------------


def _already_good(column: Column, values: pa.ChunkedArray) -> bool:
    """Whether a typed column can be taken as it is: the fast path for our own Parquet."""
    if values.type != column.arrow_type:
        return False
    if column.choices:
        known = pc.is_in(values, pa.array(column.choices))
        return bool(pc.all(pc.or_(known, pc.is_null(values))).as_py() in (True, None))
    if column.kind == "flag":
        return True
    if column.kind == "currency":
        return set(pc.unique(values).to_pylist()) <= {None, *MINOR_UNIT_DIGITS}
    if column.kind in ("time", "minor", "count", "share", "rate"):
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
    if pa.types.is_dictionary(values.type) or pa.types.is_large_string(values.type):
        values = values.cast(pa.string())
    if _already_good(column, values):
        canonical = values
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
                    near = difflib.get_close_matches(str(raw).upper(), column.choices, 1)
                    hint = f" (did you mean {near[0]}?)" if near else ""
                    problems.append(
                        Problem(table, column.name, row, repr(raw), column.expected + hint)
                    )
        if hidden:
            problems.append(
                Problem(table, column.name, None, f"{hidden} more like these", column.expected)
            )
        canonical = pa.chunked_array([pa.array(parsed, column.arrow_type)])
    if column.required:
        empty = [i for i, valid in enumerate(values.is_valid().to_pylist(), 1) if not valid or
                 values[i - 1].as_py() == ""] if canonical.null_count else []  # fmt: skip
        problems += [Problem(table, column.name, row, "nothing", column.expected)
                     for row in empty[:MAX_PROBLEMS_PER_COLUMN]]  # fmt: skip
    return canonical, problems


def _normalised(column: Column, values: pa.ChunkedArray) -> pa.ChunkedArray:
    normalise = NORMALISE.get(column.name)
    if normalise is None:
        return values
    distinct = pc.unique(values).to_pylist()
    spelling = {value: None if value is None else normalise(value) for value in distinct}
    if all(before == after for before, after in spelling.items()):
        return values
    return pa.chunked_array([pa.array([spelling[v] for v in values.to_pylist()], pa.string())])


# --- one table -------------------------------------------------------------------------------


def _load(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(path)
    # Everything as text: our parsers, not a guess from the first rows, say what a value means.
    with path.open(encoding="utf-8-sig", newline="") as lines:
        names = next(csv.reader(lines), [])
    options = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True, null_values=[""], quoted_strings_can_be_null=True,
    )  # fmt: skip
    return pa.csv.read_csv(path, convert_options=options)


def _check_table(table: str, raw: pa.Table) -> tuple[pa.Table, list[Problem], list[str]]:
    known = {column.name: column for column in SCHEMA[table]}
    ignored = [
        f"{table}.{name} is not a column we know"
        + "".join(f"; did you mean {n}?" for n in difflib.get_close_matches(name, known, 1))
        for name in raw.column_names
        if name not in known
    ]
    problems: list[Problem] = []
    columns: list[pa.ChunkedArray] = []
    for column in SCHEMA[table]:
        if column.name in raw.column_names:
            values, found = _read_column(table, column, raw[column.name])
            problems += found
            columns.append(_normalised(column, values) if not found else values)
        else:
            if column.required:
                problems.append(Problem(table, column.name, None, "no such column",
                                        f"a column of {column.expected}"))  # fmt: skip
            columns.append(pa.chunked_array([pa.nulls(raw.num_rows, column.arrow_type)]))
    checked = pa.table(columns, schema=arrow_schema(table))
    if table in EVENT_OF_TABLE:
        event = EVENT_OF_TABLE[table]
        if not any(problem.column in event.one_of for problem in problems):
            problems += _check_one_of(event, checked)
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
    return [
        Problem(event.table, None, row + 1, f"{given[row].as_py()}",
                f"{what} of {', '.join(event.one_of)}")
        for row in _rows(bad)
    ]  # fmt: skip


def with_event_ids(event: type[Event], table: pa.Table) -> pa.Table:
    """The table with an ``event_id`` in every row, derived where none was given."""
    if table["event_id"].null_count == 0:
        return table
    ids = [
        row["event_id"] or derive_event_id(event.event_type, row, repeats=event.repeats)
        for row in table.to_pylist()
    ]
    return table.set_column(table.schema.get_field_index("event_id"), "event_id", pa.array(ids))


def canonical(event: type[Event], table: pa.Table) -> pa.Table:
    """Rows by (known_at, event_id), each event once, at the first time it was known."""
    table = with_event_ids(event, table)
    table = table.sort_by([("known_at", "ascending"), ("event_id", "ascending")])
    if len(pc.unique(table["event_id"])) == table.num_rows:
        return table
    rows = pa.table({"event_id": table["event_id"], "row": range(table.num_rows)})
    first = rows.group_by("event_id").aggregate([("row", "min")])["row_min"]
    return table.take(first.take(pc.sort_indices(first)))


def _conflicts(event: type[Event], table: pa.Table) -> list[Problem]:
    """Rows that share an event_id and differ in more than their time."""
    if table["event_id"].null_count == table.num_rows:
        return []
    counts = pc.value_counts(table["event_id"].combine_chunks())
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").drop_null()
    if not len(repeated):
        return []
    seen: dict[str, Any] = {}
    problems = []
    for row, values in enumerate(table.to_pylist(), 1):
        content = {k: v for k, v in values.items() if k != "known_at"}
        known = seen.setdefault(values["event_id"] or f"row {row}", content)
        if known != content:
            problems.append(Problem(event.table, "event_id", row, repr(values["event_id"]),
                                    "one content per event_id"))  # fmt: skip
    return problems


# --- the folder ------------------------------------------------------------------------------


def _find_files(folder: Path) -> tuple[dict[str, Path], list[Problem], list[str]]:
    files: dict[str, Path] = {}
    problems: list[Problem] = []
    ignored: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".parquet", ".csv"):
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
        problems += [
            Problem(event.item_table, parent, row + 1, repr(items[parent][row].as_py()),
                    f"a {parent} that {event.table} has")
            for row in _rows(orphans)[:MAX_PROBLEMS_PER_COLUMN]
        ]  # fmt: skip
    return problems


def read_folder(folder: Path) -> Folder:
    """Read and check a data folder.

    Raises `FolderError` with every problem of every table when anything is wrong, and
    `FileNotFoundError` when there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of tables")
    files, problems, ignored = _find_files(folder)
    tables: dict[str, pa.Table] = {}
    for name, path in files.items():
        try:
            raw = _load(path)
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            reason = str(error).splitlines()[0]
            problems.append(Problem(name, None, None, reason, f"a readable {path.suffix[1:]}"))
            continue
        checked, found, unknown = _check_table(name, raw)
        problems += found
        ignored += unknown
        tables[name] = checked
    if not problems:
        for name, table in tables.items():
            if name in EVENT_OF_TABLE:
                problems += _conflicts(EVENT_OF_TABLE[name], table)
        problems += _check_items(tables)
    if problems:
        raise FolderError(problems)
    return Folder({name: canonical_table(name, table) for name, table in tables.items()},
                  tuple(ignored))  # fmt: skip


def canonical_table(name: str, table: pa.Table) -> pa.Table:
    """Any table of the schema in its canonical order, without repeated rows."""
    if name in EVENT_OF_TABLE:
        return canonical(EVENT_OF_TABLE[name], table)
    keys = SCHEMA[name][:2] if name == "fx_rates" else (*SCHEMA[name][1:3], SCHEMA[name][0])
    return table.sort_by([(column.name, "ascending") for column in keys])


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
