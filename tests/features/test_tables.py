"""Data folders: what is refused and how it is said, and what comes out of a good one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from features.events import EVENTS, RefundRequest, derive_event_id
from features.money import CURRENCIES
from features.tables import (
    ACTIONS,
    DECISION_SOURCES,
    EARLIEST_MS,
    LATEST_MS,
    MAX_PROBLEMS_PER_COLUMN,
    SCHEMA,
    Folder,
    FolderError,
    Problem,
    arrow_schema,
    canonical_table,
    parse_time,
    read_folder,
    with_event_ids,
    write_folder,
)
from rules.decision import Action, Source
from tests.features.histories import RATES, START, Events, histories, tables_of

Row = dict[str, Any]
in_folders = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture,
                                                           HealthCheck.too_slow]
)  # fmt: skip

REFUND: Row = {"refund_id": "r1", "customer_id": "c1", "known_at": START, "amount_minor": 500,
               "currency": "GBP"}  # fmt: skip
ORDER: Row = {"order_id": "o1", "customer_id": "c1", "known_at": START, "amount_minor": 900,
              "currency": "GBP"}  # fmt: skip
DECISION: Row = {"score_id": "s1", "refund_id": "r1", "known_at": START, "action": "ALLOW",
                 "source": "MODEL", "propensity": "1.0", "explored": "false"}  # fmt: skip


def write_csv(folder: Path, tables: Mapping[str, list[Row]]) -> Path:
    """Tables as CSV, every value as text."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        texts = {c: [None if row.get(c) is None else str(row[c]) for row in rows] for c in columns}
        schema = pa.schema([(column, pa.string()) for column in columns])
        pa.csv.write_csv(pa.table(texts, schema=schema), folder / f"{name}.csv")
    return folder


def problems_of(folder: Path) -> tuple[Problem, ...]:
    with pytest.raises(FolderError) as error:
        read_folder(folder)
    return error.value.problems


def read(folder: Path, **tables: list[Row]) -> Folder:
    return read_folder(write_csv(folder, {"refund_requests": [REFUND], **tables}))


# --- one bad value -----------------------------------------------------------------------------

WHOLE = "an integer of minor units from 0 to 10^15"
TIME = "ISO 8601 with offset, or epoch milliseconds, from 1990 to 2099"


@pytest.mark.parametrize(
    ("table", "good", "column", "value", "expected"),
    [
        ("refund_requests", REFUND, "amount_minor", "10.50", WHOLE),
        ("refund_requests", REFUND, "amount_minor", "-1", WHOLE),
        ("refund_requests", REFUND, "amount_minor", "1000000000000001", WHOLE),
        ("refund_requests", REFUND, "amount_minor", "£5", WHOLE),
        ("refund_requests", REFUND, "currency", "gbp", "an ISO 4217 code"),
        ("refund_requests", REFUND, "currency", "XYZ", "an ISO 4217 code"),
        ("refund_requests", REFUND, "known_at", "2025-01-01T00:00:00", TIME),
        ("refund_requests", REFUND, "known_at", "yesterday", TIME),
        ("refund_requests", REFUND, "known_at", "-5", TIME),
        ("refund_requests", REFUND, "known_at", "1735689600", TIME + " (looks like seconds)"),
        ("refund_requests", REFUND, "known_at", "0", TIME),
        ("refund_requests", REFUND, "registered_at", "631151999999", TIME),
        ("refund_requests", REFUND, "registered_at", "1989-12-31T23:59:59Z", TIME),
        ("refund_requests", REFUND, "ordered_at", "2100-01-01T00:00:00+00:00", TIME),
        ("refund_requests", REFUND, "delivered_at", "1735689600000000",
         TIME + " (looks like microseconds)"),
        ("refund_requests", REFUND, "delivered_at", "1735689600000000000",
         TIME + " (looks like nanoseconds)"),
        ("refund_requests", REFUND, "delivered_at", "2025-02-30T00:00:00Z", TIME),
        ("refund_requests", REFUND, "item_count", "1.5", "a whole number from 0 to 10^9"),
        ("refund_requests", REFUND, "ip_risk", "1.01", "a number from 0 to 1"),
        ("refund_requests", REFUND, "ip_risk", "nan", "a number from 0 to 1"),
        ("refund_requests", REFUND, "ignore", "maybe", "true or false"),
        ("refund_requests", REFUND, "billing_country", "gb", "two upper-case letters (ISO 3166)"),
        ("refund_requests", REFUND, "device_id", "x" * 257, "a text of 1 to 256 characters"),
        ("refund_requests", REFUND, "reason", "x" * 1025, "a text of at most 1024 characters"),
        ("order_updates", {"order_id": "o1", "known_at": START, "status": "SHIPPED"}, "status",
         "DELIVERD", "one of ACCEPTED, SHIPPED, DELIVERED, CANCELLED (did you mean DELIVERED?)"),
        ("labels", {"refund_id": "r1", "known_at": START, "label": "REFUND_ABUSE"}, "label",
         "FRAUD", "one of REFUND_ABUSE, NOT_REFUND_ABUSE, UNREVIEWED"),
        *(("fx_rates", {"date": "2025-01-01", "currency": "USD", "rate": "0.8"}, "rate", rate,
           "a number above 0") for rate in ("0", "-0.8", "nan", "inf")),
        ("fx_rates", {"date": "2025-01-01", "currency": "USD", "rate": "0.8"}, "date",
         "01/02/2025", "a date as YYYY-MM-DD"),
        *(("decisions", DECISION, "propensity", propensity, "a number above 0 and at most 1")
          for propensity in ("0", "-0.05", "1.01", "nan")),
        ("decisions", DECISION, "action", "PREVNT",
         "one of ALLOW, REVIEW, MANUAL_REVIEW, PREVENT (did you mean PREVENT?)"),
        ("decisions", DECISION, "source", "GUESS",
         "one of RULE, MODEL, LIST, MANUAL_REVIEW, RATE_LIMIT, FALLBACK"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_with_its_place_and_what_was_expected(
    tmp_path: Path, table: str, good: Row, column: str, value: str, expected: str
) -> None:
    other = {**good, **({"date": "2025-01-02"} if table == "fx_rates" else {"known_at": START + 1})}
    tables = {"refund_requests": [REFUND], table: [other, {**good, column: value}]}
    problem = Problem(table, column, 2, repr(value), expected)
    assert problems_of(write_csv(tmp_path, tables)) == (problem,)
    said = str(problem)
    for part in (f"{table}.{column}", "row 2", value, expected):
        assert part in said


@pytest.mark.parametrize("column", [c.name for c in SCHEMA["refund_requests"] if c.required])
def test_a_required_column_must_be_there_and_full(tmp_path: Path, column: str) -> None:
    lacking = {name: value for name, value in REFUND.items() if name != column}
    (missing,) = problems_of(write_csv(tmp_path / "no_column", {"refund_requests": [lacking]}))
    assert (missing.table, missing.column, missing.value) == (
        "refund_requests", column, "no such column",
    )  # fmt: skip
    rows = [REFUND, {**REFUND, "refund_id": "r2", column: None}]
    (empty,) = problems_of(write_csv(tmp_path / "no_value", {"refund_requests": rows}))
    assert (empty.column, empty.row, empty.value) == (column, 2, "nothing")


@pytest.mark.parametrize(
    ("table", "row", "given", "expected"),
    [
        ("returns", {"status": "RECEIVED", "refund_id": None, "order_id": None}, "0",
         "at least one of refund_id, order_id"),
        ("labels", {"label": "REFUND_ABUSE", "refund_id": "r1", "customer_id": "c1"}, "2",
         "exactly one of refund_id, customer_id"),
        ("disputes", {"dispute_id": "x", "customer_id": None, "order_id": None}, "0",
         "exactly one of customer_id, order_id, payment_method_id"),
        ("transactions", {"transaction_id": "t", "kind": "CAPTURE", "amount_minor": 1,
                          "currency": "GBP", "order_id": None}, "0",
         "at least one of order_id, refund_id"),
    ],
)  # fmt: skip
def test_an_event_must_name_what_it_is_about(
    tmp_path: Path, table: str, row: Row, given: str, expected: str
) -> None:
    tables = {"refund_requests": [REFUND], table: [{**row, "known_at": START}]}
    assert problems_of(write_csv(tmp_path, tables)) == (Problem(table, None, 1, given, expected),)


@pytest.mark.parametrize(
    ("column", "value"), [("ip_risk", float("nan")), ("ip_risk", 1.5), ("known_at", 1_735_689_600),
                          ("registered_at", 1_735_689_600.0), ("currency", "XYZ"),
                          ("billing_country", "gb"), ("amount_minor", -1), ("email", "x" * 257)],
)  # fmt: skip
def test_a_typed_column_is_checked_like_text(tmp_path: Path, column: str, value: object) -> None:
    rows = [{column: None, **REFUND}, {**REFUND, "refund_id": "r2", column: value}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "refund_requests.parquet")
    (problem,) = problems_of(tmp_path)
    assert (problem.column, problem.row, problem.value) == (column, 2, repr(value))
    assert ("seconds" in problem.expected) is column.endswith("_at")


@pytest.mark.parametrize("kept", [501, 10**15])
def test_a_part_is_not_more_than_the_whole(tmp_path: Path, kept: int) -> None:
    rows = [{**REFUND, "refund_id": f"r{kept}", "non_refundable_minor": kept}
            for kept in (None, 0, 500, kept)]  # fmt: skip
    assert problems_of(write_csv(tmp_path, {"refund_requests": rows})) == (
        Problem("refund_requests", "non_refundable_minor", 4, str(kept),
                "at most amount_minor, of which it is a part: 500"),
    )  # fmt: skip


def test_a_wrong_column_is_counted_not_listed(tmp_path: Path) -> None:
    rows = [{**REFUND, "refund_id": f"r{n}", "ip_risk": "high"} for n in range(1_005)]
    problems = problems_of(write_csv(tmp_path, {"refund_requests": rows}))
    assert len(problems) == MAX_PROBLEMS_PER_COLUMN + 1
    assert problems[-1].value == "5 more like these"


# --- the whole folder --------------------------------------------------------------------------


def test_all_problems_of_all_tables_come_at_once(tmp_path: Path) -> None:
    tables = {
        "refund_requests": [{**REFUND, "currency": "£", "amount_minor": "x"}],
        "orders": [{**ORDER, "known_at": "noon"}],
        "returns": [{"status": "GONE", "known_at": START}],
    }
    problems = problems_of(write_csv(tmp_path, tables))
    assert {(p.table, p.column) for p in problems} == {
        ("refund_requests", "currency"), ("refund_requests", "amount_minor"),
        ("orders", "known_at"), ("returns", "status"), ("returns", None),
    }  # fmt: skip
    with pytest.raises(FolderError) as error:
        read_folder(tmp_path)
    assert str(error.value).startswith(f"the data folder has {len(problems)} problems:\n")
    assert all(str(problem) in str(error.value) for problem in problems)


def test_a_folder_without_refund_requests_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(write_csv(tmp_path, {"orders": [ORDER]}))
    assert (problem.table, problem.value) == ("refund_requests", "no such file")


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder of tables"):
        read_folder(tmp_path / "nowhere")


def test_a_table_given_twice_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path, {"refund_requests": [REFUND]})
    write_folder(tables_of({"refund_request": [REFUND]}), tmp_path)
    assert any("as well" in (problem.value or "") for problem in problems_of(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("orders.csv", b"", "csv"),
        ("orders.csv", b"order_id,customer_id\n\xff\xfe,c1\n", "csv"),
        ("orders.csv", "order_id,customer_id\no1,Jos\u00e9\n".encode("latin-1"), "csv"),
        ("orders.csv", b"order_id,customer_id\no1\n", "csv"),
        ("orders.parquet", b"PAR?", "parquet"),
        ("orders.parquet", b"", "parquet"),
    ],
    ids=["empty", "no UTF-8", "Latin-1", "ragged", "no Parquet", "empty Parquet"],
)
def test_an_unreadable_file_is_named(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    write_csv(tmp_path, {"refund_requests": [{**REFUND, "currency": "£"}]})
    (tmp_path / name).write_bytes(content)
    problems = problems_of(tmp_path)
    unreadable = [problem for problem in problems if problem.table == "orders"]
    assert [problem.expected for problem in unreadable] == [f"a readable {kind}"]
    assert any(problem.table == "refund_requests" for problem in problems)


def test_a_table_of_a_header_alone_is_an_empty_table(tmp_path: Path) -> None:
    write_csv(tmp_path, {"refund_requests": [REFUND]})
    (tmp_path / "orders.csv").write_text(",".join(ORDER) + "\n")
    folder = read_folder(tmp_path)
    assert folder.tables["orders"].num_rows == 0
    assert folder.tables["orders"].schema == arrow_schema("orders")


def test_a_table_in_another_format_is_told(tmp_path: Path) -> None:
    folder = write_csv(tmp_path, {"refund_requests": [REFUND]})
    (folder / "orders.csv.gz").touch()
    (folder / "Labels.CSV").touch()
    (folder / "notes.txt").touch()
    assert read_folder(folder).ignored == (
        "Labels.CSV is not read: expected a name in .parquet or .csv",
        "orders.csv.gz is not read: expected a name in .parquet or .csv",
    )


def test_a_row_said_twice_counts_once_and_is_told(tmp_path: Path) -> None:
    read = read_folder(write_csv(tmp_path, {"refund_requests": [REFUND, REFUND]}))
    assert read.tables["refund_requests"].num_rows == 1
    assert read.ignored == ("refund_requests: 1 rows say again what others say",)


def test_a_header_with_a_column_twice_or_misspelt_is_refused(tmp_path: Path) -> None:
    (tmp_path / "refund_requests.csv").write_text(
        "refund_id,refund_id,customer_id,known_at,ammount_minor,currency\n"
        "r,r,c,2026-01-01T00:00:00Z,5,GBP\n"
    )
    with pytest.raises(FolderError) as refusal:
        read_folder(tmp_path)
    assert [str(problem) for problem in refusal.value.problems] == [
        "refund_requests.refund_id: expected one, got 2 columns of this name",
        "refund_requests.amount_minor: expected a column of an integer of minor units from 0 to "
        "10^15, got no such column, but 'ammount_minor'",
    ]


def test_unknown_tables_and_columns_are_ignored_and_reported_with_the_nearest(
    tmp_path: Path,
) -> None:
    folder = read(tmp_path, order=[{"a": 1}], orders=[{**ORDER, "chanel": "WEB", "zzz": 1}])
    assert set(folder.ignored) == {
        "order.csv is not a table we know; did you mean orders?",
        "orders.chanel is not a column we know; did you mean channel?",
        "orders.zzz is not a column we know",
    }
    assert "chanel" not in folder.tables["orders"].column_names


def test_items_need_their_parent(tmp_path: Path) -> None:
    items = [{"order_id": parent, "line_id": "1", "amount_minor": 5} for parent in ("o1", "o2")]
    write_csv(tmp_path, {"refund_requests": [REFUND], "orders": [ORDER], "order_items": items,
                         "refund_items": [{"refund_id": "r9", "line_id": "1"}]})  # fmt: skip
    assert problems_of(tmp_path) == (
        Problem("order_items", "order_id", 2, "'o2'", "a order_id that orders has"),
        Problem("refund_items", "refund_id", 1, "'r9'", "a refund_id that refund_requests has"),
    )


def test_items_without_the_table_of_their_parents_are_refused(tmp_path: Path) -> None:
    items = [{"order_id": "o1", "line_id": "1", "amount_minor": 5}]
    write_csv(tmp_path, {"refund_requests": [REFUND], "order_items": items})
    assert [problem.value for problem in problems_of(tmp_path)] == ["'o1'"]


def test_one_event_id_has_one_content(tmp_path: Path) -> None:
    rows = [{**REFUND, "event_id": "e1"}, {**REFUND, "event_id": "e1", "known_at": START + 5},
            {**REFUND, "event_id": "e1", "amount_minor": 1}]  # fmt: skip
    assert problems_of(write_csv(tmp_path, {"refund_requests": rows})) == (
        Problem("refund_requests", "event_id", 3, "'e1'",
                "one content per event_id: row 1 has another amount_minor"),
    )  # fmt: skip


TRANSACTION: Row = {"transaction_id": "t1", "known_at": START, "kind": "CAPTURE", "order_id": "o1",
                    "amount_minor": 900, "currency": "GBP"}  # fmt: skip


@pytest.mark.parametrize(
    ("table", "row", "person"),
    [
        ("refund_requests", REFUND, {"device_id": "d2"}),
        ("refund_requests", REFUND, {"customer_id": "c2", "email": "b@example.com"}),
        ("orders", ORDER, {"ip": "192.0.2.1"}),
        ("transactions", TRANSACTION, {"payment_method_id": "p2"}),
        ("disputes", {"dispute_id": "x", "known_at": START, "customer_id": "c1"},
         {"customer_id": "c2"}),
        ("disputes", {"dispute_id": "x", "known_at": START, "customer_id": "c1"},
         {"customer_id": None, "payment_method_id": "p2"}),
    ],
)  # fmt: skip
def test_events_that_differ_in_a_person_alone_need_ids_and_none_is_lost(
    tmp_path: Path, table: str, row: Row, person: Row
) -> None:
    other = {**row, **person, "known_at": START + 1}
    tables = {"refund_requests": [REFUND], table: [row, {**row, "known_at": START + 2}, other]}
    columns = [column.name for column in SCHEMA[table] if column.name in person]
    assert problems_of(write_csv(tmp_path / "without", tables)) == (
        Problem(table, "event_id", 3, "nothing",
                f"an event_id to tell it from row 1: only {', '.join(columns)} differs"),
    )  # fmt: skip
    tables[table][2] = {**other, "event_id": "e1"}
    read_back = read_folder(write_csv(tmp_path / "with", tables)).tables[table]
    assert read_back["known_at"].to_pylist() == [START, START + 1]


def test_a_given_id_that_is_anothers_derived_one_is_told_as_well(tmp_path: Path) -> None:
    rows = [REFUND, {**REFUND, "event_id": derive_event_id("refund_request", REFUND),
                     "device_id": "d2"}]  # fmt: skip
    (problem,) = problems_of(write_csv(tmp_path, {"refund_requests": rows}))
    assert (problem.row, problem.expected) == (
        2, "one content per event_id: row 1 has another device_id",
    )  # fmt: skip


def test_an_id_is_that_of_one_event_of_whatever_type(tmp_path: Path) -> None:
    tables = {"refund_requests": [{**REFUND, "event_id": "1"}],
              "orders": [{**ORDER, "event_id": "0"}, {**ORDER, "event_id": "1", "order_id": "o2"}],
              "order_items": [{"order_id": "o2", "line_id": "1", "amount_minor": 1,
                               "event_id": "1"}]}  # fmt: skip
    assert problems_of(write_csv(tmp_path, tables)) == (
        Problem(
            "refund_requests", "event_id", 1, "'1'", "an id of its own: row 2 of orders has it"
        ),
    )


def test_problems_of_one_kind_are_counted_when_they_are_many(tmp_path: Path) -> None:
    rows = [{**REFUND, "device_id": f"d{n}"} for n in range(MAX_PROBLEMS_PER_COLUMN + 5)]
    problems = problems_of(write_csv(tmp_path, {"refund_requests": rows}))
    assert len(problems) == MAX_PROBLEMS_PER_COLUMN + 1
    assert str(problems[-1]) == (
        "refund_requests.event_id: expected as above, got 4 more like these"
    )


def test_a_day_has_one_rate(tmp_path: Path) -> None:
    usd = {"date": "2025-01-01", "currency": "USD", "rate": 0.8}
    rates = [usd, {**usd, "currency": "EUR"}, usd, {**usd, "rate": 0.80}]
    folder = read(tmp_path / "same", fx_rates=rates)
    assert folder.tables["fx_rates"]["currency"].to_pylist() == ["EUR", "USD"]
    tables = {"refund_requests": [REFUND], "fx_rates": [*rates, {**usd, "rate": 0.75}]}
    assert problems_of(write_csv(tmp_path / "two", tables)) == (
        Problem("fx_rates", "rate", 5, "0.75", "0.8, the rate of USD on 2025-01-01 in row 1"),
    )


def test_a_decision_counts_once_and_has_one_content(tmp_path: Path) -> None:
    later = {**DECISION, "score_id": "s0", "known_at": START + 1}
    explored = {**DECISION, "score_id": "s2", "explored": "true", "propensity": "0.05"}
    folder = read(tmp_path / "good", decisions=[later, DECISION, explored, later])
    assert folder.tables["decisions"]["score_id"].to_pylist() == ["s1", "s2", "s0"]
    assert folder.tables["decisions"]["propensity"].to_pylist() == [1.0, 0.05, 1.0]
    assert folder.ignored == ("decisions: 1 rows say again what others say",)
    held = {**explored, "action": "PREVENT"}
    tables = {"refund_requests": [REFUND], "decisions": [DECISION, explored, held]}
    assert problems_of(write_csv(tmp_path / "bad", tables)) == (
        Problem("decisions", "action", 3, "PREVENT", "ALLOW, as what is explored is paid"),
        Problem("decisions", "score_id", 3, "'s2'",
                "one decision per score_id: row 2 has another action"),
    )  # fmt: skip


def test_a_decision_is_what_the_rules_may_answer() -> None:
    assert tuple(Action) == ACTIONS
    assert tuple(Source) == DECISION_SOURCES


def test_an_event_delivered_twice_counts_once_at_its_first_time(tmp_path: Path) -> None:
    again = {**REFUND, "known_at": START + 5}
    requests = read(tmp_path, refund_requests=[again, REFUND]).tables["refund_requests"]
    assert requests["known_at"].to_pylist() == [START]
    assert requests["event_id"].to_pylist() == [derive_event_id("refund_request", REFUND)]


def test_labels_of_many_customers_at_one_instant_all_stay(tmp_path: Path) -> None:
    labels = [
        {"customer_id": f"c{n}", "known_at": START, "label": "REFUND_ABUSE"} for n in range(3)
    ]
    assert read(tmp_path, labels=labels).tables["labels"].num_rows == 3


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "millis"),
    [
        ("1735689600000", START),
        ("2025-01-01T00:00:00Z", START),
        ("2025-01-01 00:00:00+00:00", START),
        ("2025-01-01T01:30:00+01:30", START),
        ("2025-01-01T00:00:00.123456Z", START + 123),
        ("2024-12-31T19:00:00-0500", START),
        # Central Europe, 26 October 2025: half past two comes twice, an hour apart.
        ("2025-10-26T02:30:00+02:00", 1_761_438_600_000),
        ("2025-10-26T02:30:00+01:00", 1_761_442_200_000),
        # New York, 9 March 2025: a second after 01:59:59 it is 03:00.
        ("2025-03-09T01:59:59-05:00", 1_741_503_599_000),
        ("2025-03-09T03:00:00-04:00", 1_741_503_600_000),
        ("1990-01-01T00:00:00Z", EARLIEST_MS),
        ("2099-12-31T23:59:59.999Z", LATEST_MS - 1),
    ],
)
def test_times_are_instants(tmp_path: Path, written: str, millis: int) -> None:
    folder = read(tmp_path, refund_requests=[{**REFUND, "known_at": written}])
    assert folder.tables["refund_requests"]["known_at"].to_pylist() == [millis]


def test_a_timestamp_column_of_parquet_needs_a_zone(tmp_path: Path) -> None:
    def write(zone: str | None) -> Path:
        table = pa.Table.from_pylist([REFUND])
        times = pa.array([START * 1000 + 123_456], pa.timestamp("us", tz=zone))
        folder = tmp_path / str(zone)
        folder.mkdir()
        pq.write_table(table.set_column(2, "known_at", times), folder / "refund_requests.parquet")
        return folder

    requests = read_folder(write("UTC")).tables["refund_requests"]
    assert requests["known_at"].to_pylist() == [START + 123]
    assert [problem.expected for problem in problems_of(write(None))] == [TIME]


def test_spellings_are_made_one(tmp_path: Path) -> None:
    rows = [{**REFUND, "refund_id": f"r{n}", "email": email, "ip": ip} for n, (email, ip) in
            enumerate([("Ann+x@Example.com", "2001:db8:1:2::5"),
                       ("ann@example.com ", "2001:db8:1:2:ffff::")])]  # fmt: skip
    requests = read(tmp_path, refund_requests=rows).tables["refund_requests"]
    assert set(requests["email"].to_pylist()) == {"ann@example.com"}
    assert set(requests["ip"].to_pylist()) == {"2001:db8:1:2::/64"}


def test_numbers_read_as_floats_or_ints_are_still_ids_amounts_and_times(tmp_path: Path) -> None:
    # What pandas makes of a column of ids and of one with gaps.
    row = {**REFUND, "refund_id": 17, "customer_id": 5.0, "amount_minor": 500.0, "ip_risk": 1,
           "ordered_at": float(START)}  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "refund_requests.parquet")
    (got,) = read_folder(tmp_path).tables["refund_requests"].to_pylist()
    assert (got["refund_id"], got["customer_id"], got["amount_minor"]) == ("17", "5", 500)
    assert (got["ordered_at"], got["ip_risk"]) == (START, 1.0)


def test_a_flag_is_no_number(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{**REFUND, "ignore": 2}]),
                   tmp_path / "refund_requests.parquet")  # fmt: skip
    assert [problem.value for problem in problems_of(tmp_path)] == ["2"]


@pytest.mark.parametrize("dictionary", [False, True])
def test_an_empty_text_is_nothing_in_parquet_as_in_csv(tmp_path: Path, dictionary: bool) -> None:
    table = pa.Table.from_pylist([{**REFUND, "reason": "", "device_id": ""}])
    if dictionary:
        table = table.set_column(table.column_names.index("reason"), "reason",
                                 table["reason"].dictionary_encode())  # fmt: skip
    pq.write_table(table, tmp_path / "refund_requests.parquet")
    (got,) = read_folder(tmp_path).tables["refund_requests"].to_pylist()
    assert (got["reason"], got["device_id"]) == (None, None)
    assert got["event_id"] == derive_event_id("refund_request", REFUND)


units = st.sampled_from([("seconds", 1000), ("milliseconds", 1), ("microseconds", -1000),
                         ("nanoseconds", -(10**6))])  # fmt: skip


@given(st.integers(EARLIEST_MS // 1000, LATEST_MS // 1000 - 1), units)
def test_a_time_is_taken_in_milliseconds_alone(second: int, unit: tuple[str, int]) -> None:
    name, scale = unit
    number = second * 1000 // scale if scale > 0 else second * 1000 * -scale
    expected = number if name == "milliseconds" else None
    assert parse_time(number) == parse_time(str(number)) == parse_time(f" {number} ") == expected
    assert parse_time(float(number)) == (None if expected is None else number)


@given(st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=30) | st.none()
       | st.booleans() | st.datetimes() | st.datetimes(timezones=st.timezones()))  # fmt: skip
def test_a_parsed_time_is_one_of_a_web_shop(value: object) -> None:
    millis = parse_time(value)
    assert millis is None or EARLIEST_MS <= millis < LATEST_MS


@given(st.datetimes(datetime(1990, 1, 2), datetime(2099, 12, 30), timezones=st.timezones()))
def test_an_instant_is_the_same_however_it_is_given(instant: datetime) -> None:
    millis = parse_time(instant)
    assert millis == parse_time(instant.astimezone(UTC).isoformat())
    assert millis is not None
    assert datetime.fromtimestamp(millis // 1000, UTC) == instant.astimezone(UTC).replace(
        microsecond=0
    )


json_texts = st.text(max_size=8) | st.sampled_from(
    ["ITEM_DAMAGED", '"', "\\", "\n", "\x7f", "\u2028", "\x00", "é😀", "</script>"]
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "refund_id": json_texts.filter(len), "customer_id": st.sampled_from(["c1", "c2"]),
                "known_at": st.integers(EARLIEST_MS, LATEST_MS - 1),
                "amount_minor": st.integers(0, 10**15), "currency": st.just("GBP"),
            },
            optional={
                "reason": json_texts, "ip_risk": st.floats(0, 1), "ignore": st.booleans(),
                "item_count": st.integers(0, 10**9), "ip": st.just("192.0.2.1"),
                "event_id": st.sampled_from(["a", "b"]),
            },
        )
    )
)  # fmt: skip
def test_ids_of_a_whole_table_are_those_of_its_rows(rows: list[Row]) -> None:
    for event in (RefundRequest, Repeating):
        schema = arrow_schema("refund_requests")
        table = with_event_ids(event, pa.Table.from_pylist(rows, schema=schema))
        assert table["event_id"].to_pylist() == [
            row.get("event_id") or derive_event_id("refund_request", row, repeats=event.repeats)
            for row in rows
        ]


class Repeating(RefundRequest):
    """Like a label: with persons and the time in its id."""

    repeats = True


def test_a_byte_order_mark_and_quoted_text_are_read(tmp_path: Path) -> None:
    tmp_path.joinpath("refund_requests.csv").write_text(
        "\ufeff" + ",".join(f'"{name}"' for name in [*REFUND, "reason"]) + "\n"
        + ",".join(f'"{value}"' for value in REFUND.values()) + ',"torn, wet"\n',
        encoding="utf-8",
    )  # fmt: skip
    (got,) = read_folder(tmp_path).tables["refund_requests"].to_pylist()
    assert (got["refund_id"], got["reason"]) == ("r1", "torn, wet")


# --- round trips -------------------------------------------------------------------------------

fx_rates = canonical_table(
    "fx_rates",
    pa.Table.from_pylist(
        [{"date": day, "currency": currency, "rate": rate} for day, currency, rate in RATES],
        schema=arrow_schema("fx_rates"),
    ),
)


def sound(events: Events) -> Events:
    """The events that a folder may hold: ids of their own across types, real currencies, and no
    more kept than asked."""
    kept = {
        kind: [{**row, "event_id": row["event_id"] and f"{kind}-{row['event_id']}"} for row in rows
               if (row.get("non_refundable_minor") or 0) <= (row.get("amount_minor") or 0)
               and row.get("currency") in (None, *CURRENCIES)]
        for kind, rows in events.items()
    }  # fmt: skip
    assume(kept["refund_request"])
    return kept


def _items_of(events: Events) -> dict[str, pa.Table]:
    rows = [{"refund_id": row["refund_id"], "line_id": line, "quantity": 1}
            for row in events["refund_request"] for line in ("1", "2")]  # fmt: skip
    unique = list({(row["refund_id"], row["line_id"]): row for row in rows}.values())
    table = pa.Table.from_pylist(unique, schema=arrow_schema("refund_items"))
    return {"refund_items": canonical_table("refund_items", table)}


@in_folders
@given(histories())
def test_what_is_written_is_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, events: Events
) -> None:
    events = sound(events)
    written = {**tables_of(events), "fx_rates": fx_rates, **_items_of(events)}
    first, second = (tmp_path_factory.mktemp("round_trip") for _ in range(2))
    write_folder(written, first)
    folder = read_folder(first)
    assert folder.ignored == ()
    assert folder.tables.keys() == written.keys()
    for name, table in folder.tables.items():
        assert table.equals(written[name]), name
    write_folder(folder.tables, second)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


@in_folders
@given(histories(), st.randoms(use_true_random=False))
def test_csv_and_parquet_in_any_order_give_the_same_tables(
    tmp_path_factory: pytest.TempPathFactory, events: Events, order: Any
) -> None:
    events = sound(events)
    as_csv, as_parquet = (tmp_path_factory.mktemp(name) for name in ("csv", "parquet"))
    rows = {EVENTS[kind].table: order.sample(of_kind, len(of_kind))
            for kind, of_kind in events.items() if of_kind}  # fmt: skip
    write_csv(as_csv, rows)
    for name, of_table in rows.items():
        pq.write_table(pa.Table.from_pylist(of_table, arrow_schema(name)),
                       as_parquet / f"{name}.parquet")  # fmt: skip
    expected = tables_of(events)
    for folder in (read_folder(as_csv), read_folder(as_parquet)):
        assert folder.tables.keys() == expected.keys()
        for name, table in folder.tables.items():
            assert table.equals(expected[name]), name


def test_every_table_may_be_empty(tmp_path: Path) -> None:
    """Arrow ends the process on a filter over a column without chunks, which an empty file has."""
    write_folder({name: arrow_schema(name).empty_table() for name in SCHEMA}, tmp_path)
    folder = read_folder(tmp_path)
    assert {name: table.num_rows for name, table in folder.tables.items()} == dict.fromkeys(
        SCHEMA, 0
    )
