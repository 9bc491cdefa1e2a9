"""What features cost: windows against DuckDB, pandas and Polars, the whole catalog, one request.

``python -m benchmarks.features [PART ...]`` prints one JSON document; its parts are

- ``windows``: counts and sums of the requests' own past in four windows, by device and by IP
  address, in four engines on the same arrays; and ``distinct``: distinct counts in two of the
  windows, ours and DuckDB's. The engines take turns, so that they share the machine's moods, and
  every number of each is compared with ours. The bound on a window's events is lifted. Arrays are
  brought into an engine's own form before its time begins, and ours is compiled by then.
- ``catalog``: every feature of the catalog for a synthetic world at several sizes, three other
  events to a request, each size in a process of its own for the sake of its peak memory.
- ``one``: every feature of the catalog for one request, from a store on disk, against one
  `Booster.predict` on one row: a customer's 200 events, and an office's address with 100,000.

A ratio says how many times longer the peer takes. Exit code 1 when an engine's numbers differ.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any, Final

import duckdb
import lightgbm
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather
from threadpoolctl import threadpool_limits

from benchmarks.service import say
from features.attribution import History, Requests, Stream, attribute
from features.catalog import MODEL_FEATURES, PLAN
from features.engine import Past, Plan, compute
from features.events import VOCABULARY, RefundRequest
from features.feature import Aggregate, Feature, count, distinct, total
from features.kernels import FloatArray, IntArray
from features.money import DAY_MS, Rates
from features.packed import LAYOUT
from features.tables import Folder, Tables, arrow_schema
from serving.scorer import feature_row, keys_of
from serving.store.store import Store
from serving.store.transfer import import_folder

PARTS: Final = ("windows", "distinct", "catalog", "one")
REQUESTS: Final = 1_000_000
SIZES: Final = (100_000, 300_000, 1_000_000)
ROUNDS: Final = 3
PANDAS_SHARE: Final = 0.1
"""pandas works on this share of the devices, then of the addresses; its time is extrapolated."""

DAYS: Final = (7, 30, 90, 365)
DISTINCT_DAYS: Final = (30, 365)
START_MS: Final = 1_700_000_000_000
SPAN_MS: Final = 730 * DAY_MS
MINUTE_MS: Final = 60_000

# What is asked for: how many times longer the peers must take, at least.
AT_LEAST: Final = {"windows": {"duckdb": 30, "pandas": 40, "polars": 1}, "distinct": {"duckdb": 10}}


# --- windows: the arrays that all engines get ---------------------------------------------------


@dataclass(frozen=True)
class Log:
    """Refund requests (n,) in order of time: when, from where, and how much."""

    time: IntArray
    """Epoch ms, ascending: whole minutes, so that some requests of a holder are at one instant."""
    keys: Mapping[str, IntArray]
    amount: IntArray

    def __len__(self) -> int:
        return len(self.time)

    def columns(self) -> dict[str, IntArray]:
        """All of it by name."""
        return {"time": self.time, "amount": self.amount, **self.keys}


def popular(rng: np.random.Generator, size: int, n: int) -> IntArray:
    """Draws (n,) of the codes below ``size`` by Zipf's law: code k in proportion to 1 / (k + 1)."""
    return np.minimum((size + 1) ** rng.random(n) - 1, size - 1).astype(np.int64)


def make_log(n: int) -> Log:
    """Two years of n requests: on average ten to a device and twenty to an IP address.

    As popular things are, they are very unequal: the busiest address has one request in sixteen.
    """
    rng = np.random.default_rng(0)
    time = np.sort(START_MS + rng.integers(0, SPAN_MS // MINUTE_MS, n) * MINUTE_MS)
    keys = {"device": popular(rng, n // 10 + 1, n), "ip": popular(rng, n // 20 + 1, n)}
    return Log(time, keys, rng.integers(0, 50_000, n))


def counts_and_sums() -> list[Aggregate]:
    """The 16 columns of ``windows``."""
    return [
        aggregate
        for by in ("device", "ip")
        for days in DAYS
        for aggregate in (
            count("refund_request", by=by, days=days),
            total("refund_request", "amount", by=by, days=days),
        )
    ]


def distinct_counts() -> list[Aggregate]:
    """The 4 columns of ``distinct``."""
    return [
        distinct("refund_request", other, by=by, days=days)
        for by, other in (("device", "ip"), ("ip", "device"))
        for days in DISTINCT_DAYS
    ]


# --- windows: the engines -----------------------------------------------------------------------

NOT_COMPUTED: Final = -1
"""Stands in the answer of an engine that was not asked for that row."""


@dataclass(frozen=True)
class Engine:
    """A way to compute aggregates of a log; what is prepared is done before the clock starts."""

    name: str
    run: Callable[[], Any]
    answer: Callable[[Any], Mapping[str, IntArray]]
    """What ``run`` gave as whole numbers (n,) by the aggregates' names, in the order of the log."""
    factor: float = 1.0
    """By which its time is multiplied, when it works on a part of the log."""
    threads: int | None = None
    """As its settings say, where it has such a setting."""


def ours(log: Log, aggregates: Sequence[Aggregate]) -> Engine:
    """The engine of this project."""
    features = [
        Feature(a, "velocity", "count", "BENCHMARK", "{value}", "timed") for a in aggregates
    ]
    plan = Plan.of(features)

    def of_first(n: int) -> dict[str, FloatArray]:
        keys = {**{key: codes[:n] for key, codes in log.keys.items()}, "refund": np.arange(n)}
        times = dict.fromkeys(keys, log.time[:n])
        stream = Stream(keys, times, {"amount": log.amount[:n]})
        requests = Requests(log.time[:n], keys, {})
        return compute(plan, requests, History({"refund_request": stream}), max_events=None)

    of_first(min(1000, len(log)))  # compiles
    return Engine("ours", lambda: of_first(len(log)), _whole)


def in_duckdb(log: Log, aggregates: Sequence[Aggregate]) -> Engine:
    """Range windows over a table in memory, one window clause for each key and length."""
    connection = duckdb.connect()
    connection.register("arrays", pa.table({"row": np.arange(len(log)), **log.columns()}))
    connection.execute("CREATE TABLE log AS FROM arrays")
    columns = {a.name: f"{_sql(a)} OVER {a.by}_{a.days} AS {a.name}" for a in aggregates}
    windows = {
        f"{a.by}_{a.days} AS (PARTITION BY {a.by} ORDER BY time"
        f" RANGE BETWEEN {a.days * DAY_MS} PRECEDING AND 1 PRECEDING)"
        for a in aggregates
    }
    query = (
        f"SELECT row, {', '.join(columns.values())} FROM log WINDOW {', '.join(sorted(windows))}"
    )

    def answer(found: Mapping[str, Any]) -> Mapping[str, IntArray]:
        order = np.argsort(np.asarray(found["row"]))
        # A sum over nothing is null there and 0 here.
        return _whole({name: np.ma.filled(found[name], 0)[order] for name in columns})

    threads = connection.execute("SELECT current_setting('threads')").fetchall()[0][0]
    return Engine(
        "duckdb", lambda: connection.execute(query).fetchnumpy(), answer, threads=int(threads)
    )


def _sql(a: Aggregate) -> str:
    what = {"count": "*", "total": a.column, "distinct": f"DISTINCT {a.column}"}[a.op]
    return f"{'sum' if a.op == 'total' else 'count'}({what})"


def in_polars(log: Log, aggregates: Sequence[Aggregate]) -> Engine:
    """``rolling_sum_by`` over each key, all columns in one query; a count is a sum of ones."""
    frame = pl.DataFrame({**log.columns(), "one": np.ones(len(log), np.int64)})
    columns = [
        pl.col("one" if a.op == "count" else "amount")
        .rolling_sum_by("time", f"{a.days * DAY_MS}i", closed="left")
        .over(a.by)
        .alias(a.name)
        for a in aggregates
    ]

    def answer(found: pl.DataFrame) -> Mapping[str, IntArray]:
        return _whole({name: found[name].fill_null(0).to_numpy() for name in found.columns})

    return Engine("polars", lambda: frame.select(columns), answer, threads=pl.thread_pool_size())


def in_pandas(log: Log, aggregates: Sequence[Aggregate], share: float) -> Engine:
    """``groupby.rolling`` over a share of each key's holders, with all of their requests."""
    every = round(1 / share)
    of_key = {}
    for key, codes in log.keys.items():
        # Without the very busiest: of the rows and of the holders, about the same share.
        rows = np.flatnonzero(codes % every == every // 4)
        time = pd.to_datetime(log.time[rows], unit="ms")
        frame = pd.DataFrame({"amount": log.amount[rows], key: codes[rows]}, index=time)
        of_key[key] = rows, frame.groupby(key)["amount"]
    windows = sorted({(a.by, a.days) for a in aggregates})

    def run() -> Mapping[tuple[str, int], Any]:
        return {
            (by, days): of_key[by][1].rolling(f"{days}D", closed="left").agg(["count", "sum"])
            for by, days in windows
        }

    def answer(found: Mapping[tuple[str, int], Any]) -> Mapping[str, IntArray]:
        columns = {}
        for a in aggregates:
            rows, grouped = of_key[a.by]
            order = np.concatenate(list(grouped.indices.values()))
            values = found[a.by, a.days]["count" if a.op == "count" else "sum"].to_numpy()
            columns[a.name] = np.full(len(log), NOT_COMPUTED)
            columns[a.name][rows[order]] = np.nan_to_num(values)
        return columns

    computed = sum(len(rows) for rows, _ in of_key.values())
    return Engine("pandas", run, answer, factor=len(of_key) * len(log) / computed, threads=1)


def _whole(columns: Mapping[str, Any]) -> dict[str, IntArray]:
    return {name: np.asarray(values).astype(np.int64) for name, values in columns.items()}


# --- windows: measuring -------------------------------------------------------------------------


def take_turns(engines: Sequence[Engine], rounds: int) -> dict[str, Any]:
    """Seconds, ratios and differences of some engines; the first is ours."""
    seconds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    cores: dict[str, list[float]] = {engine.name: [] for engine in engines}
    answers: dict[str, Mapping[str, IntArray]] = {}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for engine in engines:
            started, cpu = perf_counter(), process_time()
            found = engine.run()
            took = perf_counter() - started
            seconds[engine.name].append(took * engine.factor)
            cores[engine.name].append((process_time() - cpu) / took)
            if number == 0:
                answers[engine.name] = engine.answer(found)
            del found
    first, *peers = engines
    medians = {name: median(times) for name, times in seconds.items()}
    return {
        "columns": len(answers[first.name]),
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "seconds_of_rounds": {name: _rounded(times) for name, times in seconds.items()},
        "extrapolated_by": {e.name: round(e.factor, 2) for e in engines if e.factor != 1},
        "threads": {e.name: e.threads for e in engines if e.threads},
        "cores_used": {name: round(median(used), 2) for name, used in cores.items()},
        "ratio": {peer.name: round(medians[peer.name] / medians[first.name], 1) for peer in peers},
        "compared": {
            peer.name: int(sum((v != NOT_COMPUTED).sum() for v in answers[peer.name].values()))
            for peer in peers
        },
        "differences": [
            difference
            for peer in peers
            for difference in differences(peer.name, answers[first.name], answers[peer.name])
        ],
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in values]


def differences(
    peer: str, expected: Mapping[str, IntArray], found: Mapping[str, IntArray]
) -> list[dict[str, Any]]:
    """For each column in which a peer's numbers are not ours: how many, and the first of them."""
    out = []
    for name, values in expected.items():
        rows = np.flatnonzero((found[name] != values) & (found[name] != NOT_COMPUTED))
        if len(rows):
            row = int(rows[0])
            out.append({
                "engine": peer, "column": name, "rows": len(rows), "first_row": row,
                "ours": int(values[row]), "theirs": int(found[name][row]),
            })  # fmt: skip
    return out


def measure_windows(n: int, rounds: int, pandas_share: float) -> dict[str, Any]:
    """The part ``windows``."""
    log, aggregates = make_log(n), counts_and_sums()
    engines = [
        ours(log, aggregates), in_duckdb(log, aggregates), in_polars(log, aggregates),
        in_pandas(log, aggregates, pandas_share),
    ]  # fmt: skip
    return _shape(log, DAYS) | take_turns(engines, rounds) | {"at_least": AT_LEAST["windows"]}


def measure_distinct(n: int, rounds: int) -> dict[str, Any]:
    """The part ``distinct``."""
    log, aggregates = make_log(n), distinct_counts()
    engines = [ours(log, aggregates), in_duckdb(log, aggregates)]
    report = _shape(log, DISTINCT_DAYS) | take_turns(engines, rounds)
    return report | {"at_least": AT_LEAST["distinct"]}


def _shape(log: Log, days: Sequence[int]) -> dict[str, Any]:
    return {
        "requests": len(log),
        "holders": {key: len(np.unique(codes)) for key, codes in log.keys.items()},
        "requests_of_the_busiest": {k: int(np.bincount(c).max()) for k, c in log.keys.items()},
        "windows_days": list(days),
    }


# --- synthetic worlds, made as canonical tables at once ------------------------------------------

OTHERS: Final = {
    "orders": 1.0, "order_updates": 0.5, "transactions": 0.1, "refund_outcomes": 0.9,
    "returns": 0.3, "disputes": 0.1, "labels": 0.1,
}  # fmt: skip
"""Events of each other table to a request: three in all."""

RATES: Final = Rates.of("GBP", [("2023-01-01", "EUR", 0.85), ("2023-01-01", "USD", 0.8)])

_KEY_COLUMNS: Final = (
    "customer_id", "device_id", "payment_method_id", "address_id", "ip", "email",
)  # fmt: skip
_CURRENCIES: Final = ("GBP", "EUR", "USD")
_COUNTRIES: Final = ("GB", "GB", "FR")
_OUTCOMES: Final = ("COMPLETED", "COMPLETED", "COMPLETED", "DECLINED")

Rows = dict[str, IntArray]
"""Columns of events by name, in order of known_at; identifiers as numbers."""


class World:
    """The makings of a data folder: n refund requests, and 3 n other events that they name.

    Most orders of a customer come from a device, an address and so on of their own; the rest from
    shared ones, some of which are very busy. A request names an order and is of whoever placed it.
    """

    def __init__(
        self, n: int, *, customers: int, days: int, first: int = 0, ip: int | None = None
    ) -> None:
        """Numbers of everything begin at ``first``; all comes from one address if ``ip`` is given.

        ``days`` is how long orders go on; what follows from them comes some days later.
        """
        self._rng = np.random.default_rng(first)
        self._first = first
        self._size = {table: round(share * n) for table, share in OTHERS.items()}
        self._orders = self._make_orders(self._size["orders"], customers, days * DAY_MS)
        if ip is not None:
            self._orders["ip"][:] = ip
        self._requests = self._make_requests(n)

    def _make_orders(self, n: int, customers: int, span_ms: int) -> Rows:
        rng, first = self._rng, self._first
        customer = first + rng.integers(0, customers, n)
        registered_at = START_MS - rng.integers(0, SPAN_MS, customers)

        def mostly_own(share: float, others: int) -> IntArray:
            shared = first + customers + popular(rng, others, n)
            return np.where(rng.random(n) < share, customer, shared)

        known_at = np.sort(START_MS + rng.integers(0, span_ms, n))
        return {
            "known_at": known_at,
            "ordered_at": known_at - 1000,
            "registered_at": registered_at[customer - first],
            "order_id": first + np.arange(n),
            "customer_id": customer,
            "device_id": mostly_own(0.8, customers // 4 + 1),
            "payment_method_id": mostly_own(0.9, customers // 4 + 1),
            "address_id": mostly_own(0.9, customers // 10 + 1),
            "ip": mostly_own(0.6, customers // 10 + 1),
            "email": mostly_own(0.98, customers),
            "amount_minor": rng.integers(500, 50_000, n),
            "item_count": rng.integers(1, 5, n),
            "currency": popular(rng, len(_CURRENCIES), n),
        }

    def _make_requests(self, n: int) -> Rows:
        rows = self._following(self._orders, n, 20)
        return rows | {
            "refund_id": self._first + np.arange(n),
            "amount_minor": (rows["amount_minor"] * self._rng.random(n)).astype(np.int64),
            "order_amount_minor": rows["amount_minor"],
            "delivered_at": rows["ordered_at"] + 3 * DAY_MS,
        }

    def _following(self, rows: Rows, n: int, days: float) -> Rows:
        """What (n,) becomes known of such rows, so many days later on average."""
        chosen = self._rng.integers(0, len(rows["known_at"]), n)
        delay = self._rng.exponential(days * DAY_MS, n).astype(np.int64)
        known_at = rows["known_at"][chosen] + delay + 1
        by_time = np.argsort(known_at)
        picked = {name: values[chosen[by_time]] for name, values in rows.items()}
        return picked | {"known_at": known_at[by_time]}

    def tables(self) -> dict[str, pa.Table]:
        """All of it, as `features.tables.read_folder` would give it."""
        orders, requests, size, words = self._orders, self._requests, self._size, self._words
        updates = self._following(orders, size["order_updates"], 4)
        payments = self._following(orders, size["transactions"], 0.1)
        outcomes = self._following(requests, size["refund_outcomes"], 2)
        del outcomes["amount_minor"]  # the whole refund was paid
        returns = self._following(requests, size["returns"], 5)
        disputes = self._following(orders, size["disputes"], 30)
        labels = self._following(requests, size["labels"], 40)
        return {
            "orders": self._table("orders", orders, "order_id", *_KEY_COLUMNS),
            "order_updates": self._table(
                "order_updates", updates | {"delivered_at": updates["known_at"]}, "order_id",
                status=words(size["order_updates"], ("DELIVERED",)),
            ),
            "transactions": self._table(
                "transactions", payments, "order_id",
                transaction_id=_ids("t", self._first + np.arange(size["transactions"])),
                kind=words(size["transactions"], ("CAPTURE",)),
            ),
            "refund_requests": self._table(
                "refund_requests", requests, "refund_id", "order_id", *_KEY_COLUMNS,
                billing_country=words(len(requests["known_at"]), _COUNTRIES),
                shipping_country=words(len(requests["known_at"]), _COUNTRIES),
                **{name: words(len(requests["known_at"]), VOCABULARY[name])
                   for name in ("reason", "claim", "type", "policy", "initiated_by")},
            ),
            "refund_outcomes": self._table(
                "refund_outcomes", outcomes, "refund_id",
                status=words(size["refund_outcomes"], _OUTCOMES),
            ),
            "returns": self._table(
                "returns", returns, "refund_id",
                status=words(size["returns"], VOCABULARY["return_status"]),
            ),
            "disputes": self._table(
                "disputes", disputes, "order_id",
                dispute_id=_ids("dispute", self._first + np.arange(size["disputes"]) // 2),
                stage=words(size["disputes"], VOCABULARY["stage"]),
                outcome=words(size["disputes"], (*VOCABULARY["outcome"], None)),
            ),
            "labels": self._table(
                "labels", labels, "refund_id",
                label=words(size["labels"], VOCABULARY["label"]),
                source=words(size["labels"], VOCABULARY["source"]),
            ),
        }  # fmt: skip

    def _words(self, n: int, words: Sequence[str | None]) -> pa.Array:
        chosen = pa.array(self._rng.integers(0, len(words), n))
        return pa.array(words, pa.string()).take(chosen)

    def _table(self, name: str, rows: Rows, *ids: str, **texts: pa.Array) -> pa.Table:
        """A table with the columns ``ids`` and ``texts``, what numbers it has, and nulls."""
        n, schema = len(rows["known_at"]), arrow_schema(name)
        number = pc.utf8_lpad(pa.array(self._first + np.arange(n)).cast(pa.string()), 9, "0")
        columns = {"event_id": pc.binary_join_element_wise(name, number, "-"), **texts}
        columns |= {column: _ids(column.removesuffix("_id"), rows[column]) for column in ids}
        for field in schema:
            if field.name == "currency":
                columns["currency"] = pa.array(_CURRENCIES).take(pa.array(rows["currency"]))
            elif field.name not in columns:
                known = field.name in rows and pa.types.is_integer(field.type)
                columns[field.name] = (
                    pa.array(rows[field.name]) if known else pa.nulls(n, field.type)
                )
        return pa.table([columns[field.name] for field in schema], schema)


def _ids(kind: str, numbers: IntArray) -> pa.Array:
    return pc.binary_join_element_wise(kind, pa.array(numbers).cast(pa.string()), "-")


# --- catalog: measuring -----------------------------------------------------------------------


def save_world(n: int, folder: Path) -> None:
    """Make two years of a shop and write its tables, so that the making is in no figure."""
    for name, table in World(n, customers=n // 5 + 1, days=SPAN_MS // DAY_MS).tables().items():
        feather.write_feather(table, folder / name, compression="uncompressed")


def measure_world(folder: Path, rounds: int) -> dict[str, Any]:
    """Compute every feature of a world; to be called in a fresh process."""
    before = peak_bytes()
    tables = {
        file.name: feather.read_table(file, memory_map=False) for file in sorted(folder.iterdir())
    }
    compute_all({name: table.slice(0, 100) for name, table in tables.items()})  # compiles
    cpu = process_time()
    times = [compute_all(tables)]
    cpu, peak = process_time() - cpu, peak_bytes()
    times += [compute_all(tables) for _ in range(rounds - 1)]
    attributing, computing = (median(seconds) for seconds in zip(*times, strict=True))
    requests = tables["refund_requests"].num_rows
    return {
        "requests": requests,
        "other_events": sum(table.num_rows for table in tables.values()) - requests,
        "features": len(PLAN.features),
        "attribute_seconds": round(attributing, 3),
        "compute_seconds": round(computing, 3),
        "seconds": round(attributing + computing, 3),
        "cpu_seconds": round(cpu, 3),
        "rows_per_second": round(requests / (attributing + computing)),
        "tables_mb": _mb(sum(table.nbytes for table in tables.values())),
        "result_mb": _mb(8 * requests * len(PLAN.features)),
        "peak_mb": _mb(peak),
        "peak_before_mb": _mb(before),  # what is imported,
    }


def compute_all(tables: Tables) -> tuple[float, float]:
    """How many seconds it takes to attribute the events of a folder, and to compute all of it."""
    started = perf_counter()
    history, requests = attribute(tables, RATES)
    attributed = perf_counter()
    compute(PLAN, requests, history)
    return attributed - started, perf_counter() - attributed


def _mb(size: int) -> int:
    return round(size / 2**20)


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss begins with what the parent process held
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure_catalog(sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """The part ``catalog``."""
    reports = []
    for n in sizes:
        say(f"{n} requests")
        with TemporaryDirectory(prefix="features-") as folder:
            _in_fresh_process(save_world, n, Path(folder))
            reports.append(_in_fresh_process(measure_world, Path(folder), rounds))
    growth = [
        {"from": a["requests"], "to": b["requests"]}
        | {f"{clock}_to_n_log_n": _growth(a, b, clock) for clock in ("seconds", "cpu_seconds")}
        for a, b in pairwise(reports)
    ]
    return {"sizes": reports, "growth": growth, "at_most": {"seconds_to_n_log_n": 1}}


def _growth(small: Mapping[str, Any], large: Mapping[str, Any], clock: str) -> float:
    """How much more a larger world takes, over how much n log n grows; 1 is n log n."""
    few, many = small["requests"], large["requests"]
    growth = many * math.log(many) / (few * math.log(few))
    return float(round(large[clock] / small[clock] / growth, 3))


def _in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning) as pool:
        return pool.submit(function, *arguments).result()


# --- one request, from a store on disk ----------------------------------------------------------

SECRET: Final = b"the store of a benchmark, gone in a minute"
EVENTS_OF_CUSTOMER: Final = 200
EVENTS_OF_OFFICE: Final = 100_000
TREES: Final = 120
REPEATS: Final = 300
HELD_PER_REQUEST: Final = 3.4
"""Events of a `World` to a request that its customer holds; the rest only an order does."""

OFFICE: Final = 1_000_000
"""Numbers of the office's people and things begin here; its address is the first."""


def fill_store(store: Store, office_events: int) -> None:
    """Half a year of a customer with 200 events, and of an office behind one IP address."""
    n_customer, n_office = (
        round(events / HELD_PER_REQUEST) for events in (EVENTS_OF_CUSTOMER, office_events)
    )
    customer = World(n_customer, customers=1, days=180)
    office = World(n_office, customers=n_office // 5 + 1, days=180, first=OFFICE, ip=OFFICE)
    for world in (customer, office):
        import_folder(store, Folder(world.tables()))


def requests_of_customer(ip: int) -> list[RefundRequest]:
    """Requests for 50 orders of the customer, a year after the first, from an IP address."""
    return [
        RefundRequest(
            refund_id=f"refund-new-{order}", order_id=f"order-{order}", customer_id="customer-0",
            device_id="device-0", payment_method_id="payment_method-0", address_id="address-0",
            email="email-0", ip=f"ip-{ip}", known_at=START_MS + 365 * DAY_MS + order,
            amount_minor=1500, currency="GBP", reason="ITEM_NOT_RECEIVED", type="REFUND",
        )
        for order in range(50)
    ]  # fmt: skip


def _booster(rows: FloatArray) -> lightgbm.Booster:
    """A binary model of rows (n, features), its trees as large as a depth of 6 allows."""
    noise = np.random.default_rng(1).normal(size=len(rows))
    label = rows[:, 0] + rows[:, 1] * rows[:, 2] + noise > 1
    parameters = {
        "objective": "binary", "num_leaves": 64, "max_depth": 6, "seed": 1, "verbosity": -1,
    }  # fmt: skip
    return lightgbm.train(parameters, lightgbm.Dataset(rows, label), TREES)


def measure_one(office_events: int, repeats: int) -> dict[str, Any]:
    """The part ``one``."""
    rows = np.random.default_rng(0).normal(size=(5_000, len(MODEL_FEATURES)))
    with threadpool_limits(1):  # LightGBM's threads lose much on a busy machine
        booster = _booster(rows)
    with TemporaryDirectory(prefix="features-") as folder:
        url = f"sqlite:///{folder}/store.db"
        say(f"filling a store with {office_events} events")
        with closing(Store.open(url, SECRET, clock="event")) as store:
            fill_store(store, office_events)
        with closing(Store.open(url, SECRET, create=False)) as store:
            say(f"one request, {repeats} times")
            return _time_one(store, booster, rows[:repeats], repeats)


def _time_one(
    store: Store, booster: lightgbm.Booster, rows: FloatArray, repeats: int
) -> dict[str, Any]:
    """Medians over single requests, which take turns with single predictions.

    Taking turns, each finds the processor's caches as a decision would; in a row, each has them to
    itself. Both are told.
    """
    requests_of = {"customer": requests_of_customer(0), "office": requests_of_customer(OFFICE)}
    n_warming = len(requests_of["customer"])
    seconds: dict[str, list[float]] = defaultdict(list)
    pasts = {}
    for number in range(-n_warming, repeats):
        row = rows[number % len(rows)][None]
        took = {"predict": _seconds(booster.predict, row, num_threads=1)[0]}
        for name, requests in requests_of.items():
            request = requests[number % len(requests)]
            keys = keys_of(request)
            took[f"{name}_read"], found = _seconds(store.read, keys, request.known_at, PLAN.reads)
            past = Past(rows=found.rows, holder=found.pseudonyms, first_seen=found.first_seen)
            took[f"{name}_compute"], _ = _seconds(feature_row, request, past, RATES)
            pasts[name] = past
        if number >= 0:
            for name, value in took.items():
                seconds[name].append(value)
    ms = {name: median(times) * 1e3 for name, times in seconds.items()}
    request = requests_of["customer"][0]
    in_a_row = {
        "predict": _median_ms(repeats, booster.predict, rows[:1], num_threads=1),
        "customer_compute": _median_ms(repeats, feature_row, request, pasts["customer"], RATES),
    }
    whole = {name: ms[f"{name}_read"] + ms[f"{name}_compute"] for name in requests_of}
    return {
        "features": len(PLAN.features),
        "trees": TREES,
        "median_ms": {name: round(value, 4) for name, value in ms.items()},
        "median_ms_in_a_row": {name: round(value, 4) for name, value in in_a_row.items()},
        "events_read": {
            name: {key: _events_of(past, key) for key in ("customer", "ip")}
            for name, past in pasts.items()
        },
        "ratio": {
            "compute_to_predict": round(ms["customer_compute"] / ms["predict"], 2),
            "read_and_compute_to_predict": round(whole["customer"] / ms["predict"], 2),
            "office_to_predict": round(whole["office"] / ms["predict"], 2),
            "office_to_customer": round(whole["office"] / whole["customer"], 2),
            "compute_to_predict_in_a_row": round(
                in_a_row["customer_compute"] / in_a_row["predict"], 2
            ),
        },
        "at_most": {"compute_to_predict": 10, "office_to_predict": 20},
    }


def _seconds(call: Callable[..., Any], *given: Any, **named: Any) -> tuple[float, Any]:
    started = perf_counter()
    found = call(*given, **named)
    return perf_counter() - started, found


def _median_ms(repeats: int, call: Callable[..., Any], *given: Any, **named: Any) -> float:
    return median(_seconds(call, *given, **named)[0] for _ in range(repeats)) * 1e3


def _events_of(past: Past, key: str) -> int:
    return sum(
        len(rows) // LAYOUT[event_type].itemsize
        for (of_key, event_type), rows in past.rows.items()
        if of_key == key
    )


# --- the command --------------------------------------------------------------------------------


def is_sound(report: Mapping[str, Any]) -> bool:
    """Whether all engines agree on every number."""
    return not any(report.get(part, {}).get("differences") for part in PARTS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features",
                                     description=(__doc__ or "").partition("\n")[0])  # fmt: skip
    parser.add_argument("parts", nargs="*", metavar="PART",
                        help=f"what to measure (default: all): {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--requests", type=int, default=REQUESTS,
                        help=f"requests in the windows (default: {REQUESTS:,})")  # fmt: skip
    parser.add_argument("--pandas-share", type=float, default=PANDAS_SHARE,
                        help="what pandas computes; 1 for all (default: 0.1)")  # fmt: skip
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N",
                        help="requests in the worlds of the catalog; 3000000 wants 20 GB of memory "
                             "(default: 100000 300000 1000000)")  # fmt: skip
    parser.add_argument("--office-events", type=int, default=EVENTS_OF_OFFICE,
                        help="events of the busy IP address (default: 100,000)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=ROUNDS,
                        help=f"turns of each engine and size (default: {ROUNDS})")  # fmt: skip
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.parts) - set(PARTS)):
        parser.error(f"no part {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "windows": lambda: measure_windows(given.requests, given.rounds, given.pandas_share),
        "distinct": lambda: measure_distinct(given.requests, given.rounds),
        "catalog": lambda: measure_catalog(given.sizes, given.rounds),
        "one": lambda: measure_one(given.office_events, REPEATS),
    }
    packages = ("duckdb", "lightgbm", "numba", "numpy", "pandas", "polars", "pyarrow")
    report: dict[str, Any] = {
        "cpus": os.cpu_count(), "versions": {name: version(name) for name in packages}
    }  # fmt: skip
    for part in given.parts or PARTS:
        say(f"measuring {part}")
        report[part] = measures[part]()
    print(json.dumps(report, indent=2))
    return 0 if is_sound(report) else 1


if __name__ == "__main__":
    sys.exit(main())
