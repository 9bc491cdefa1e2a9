"""How fast a million logged decisions are decided again under two policies.

``python -m benchmarks.backtest --decisions 1000000`` prints one JSON document. A few thousand
refunds of a data folder are decided by a desk over its history, and each decision is kept many
times over, with other ids, times, customers and numbers, in a store of its own, with its refund
request, and what became of it: 8 kB a decision, as in a live store. None of that is timed. Then
the policy that decided is backtested against a candidate with lower bands and one more rule.
``same_share`` is the share of decisions that the policy makes again as it made them: less than 1
and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import orjson
import psutil
import yaml
from sqlalchemy import insert, select

import rules
from benchmarks.bodies import refund_body
from benchmarks.service import BenchmarkError, Recourse, say
from features.money import DAY_MS, Rates
from features.tables import FolderError, Tables, read_folder
from rules.policy import Policy, load_policy
from serving import contract
from serving.desk import Desk, Sender
from serving.facts import FACTS
from serving.models import Models, load_champion
from serving.policies import Policies
from serving.store.schema import decisions, events, name_lists
from serving.store.store import Store
from serving.store.transfer import import_folder
from training.backtest import backtest_store
from training.dataset import end_of, rates_of

DECISIONS: Final = 1_000_000
TEMPLATES: Final = 3_000
"""So many decisions are real; the others are made of them."""

DECISIONS_PER_CUSTOMER: Final = 3
PERIOD_DAYS: Final = 365
HOUR_MS: Final = DAY_MS // 24
MATURITY_DAYS: Final = 60
ABUSE_SHARE: Final = 0.03
"""Of the refunds that were paid, so many get a label of abuse."""

_SECRET: Final = b"the secret of a benchmark"
_BATCH: Final = 5_000
_DEFAULT: Final = Path(rules.__file__).parent / "policies" / "default.yaml"


def candidate_of(policy: Policy) -> Policy:
    """The policy with every band five points lower, and a rule more."""
    document = yaml.safe_load(policy.text)
    for band in document["bands"]:
        if "probability_at_least" in band:
            band["probability_at_least"] = max(0.01, band["probability_at_least"] - 0.05)
    document["rules"].append({
        "id": "benchmark_amount", "version": 1, "stage": "risk", "action": "MANUAL_REVIEW",
        "when": 'refund_reason != "OTHER" && payable_minor > 10000.0', "reason": "AMOUNT_HIGH",
        "description": "A refund of some worth for a reason that has a name",
        "examples": {"hit": [{"refund_reason": "EMPTY_BOX", "payable_minor": 10001}],
                     "miss": [{"refund_reason": "OTHER", "payable_minor": 10001}]},
    })  # fmt: skip
    return Policy.from_yaml(yaml.safe_dump({**document, "version": "candidate"}), facts=FACTS)


# --- the store -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Templates:
    """Real decisions: rows of the store, their requests, and their numbers as a matrix."""

    rows: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    numbers: np.ndarray[Any, np.dtype[np.float64]]
    """(templates, features)"""
    varied: np.ndarray[Any, np.dtype[np.bool_]]
    """(features,): those that no rule reads, so that the decision stays what it was."""

    @classmethod
    def of(cls, store: Store, reads: frozenset[str]) -> Templates:
        """All decisions that a store holds."""
        with store.database.read() as connection:
            rows = [dict(row) for row in connection.execute(select(decisions)).mappings()]
            requests = {
                row["refund_id"]: dict(row)
                for row in connection.execute(
                    select(events).where(events.c.event_type == "refund_request")
                ).mappings()
            }
        names = next(store.raw_decisions()).feature_names
        return cls(
            rows,
            [requests[row["refund_id"]] for row in rows],
            np.array([np.frombuffer(row["features"], "<f8") for row in rows]),
            np.array([name not in reads for name in names]),
        )


def fill(store: Store, templates: Templates, count: int, since: int) -> None:
    """Write ``count`` decisions over a year from ``since`` (epoch ms), and what became of them."""
    draw = np.random.default_rng(0)
    step = PERIOD_DAYS * DAY_MS / count
    for start in range(0, count, _BATCH):
        numbers = range(start, min(start + _BATCH, count))
        which = [number % len(templates.rows) for number in numbers]
        noise = np.where(templates.varied, draw.uniform(0.8, 1.2, (len(which), 1)), 1.0)
        varied = templates.numbers[which] * noise
        made = [
            _decision(templates.rows[at], number, since + int(number * step), values)
            for number, at, values in zip(numbers, which, varied, strict=True)
        ]
        happened = [
            event
            for row, at, fate in zip(made, which, draw.random(len(which)), strict=True)
            for event in _events(templates.requests[at], row, is_abuse=fate < ABUSE_SHARE)
        ]
        with store.database.write() as connection:
            connection.execute(insert(decisions), made)
            connection.execute(insert(events), happened)


def _decision(row: Mapping[str, Any], number: int, at: int, values: Any) -> dict[str, Any]:
    """A decision like the template's, of another refund of another customer at another time."""
    refund_id, customer = f"refund-{number}", f"customer-{number // DECISIONS_PER_CUSTOMER}"
    record = orjson.loads(row["record"])
    record |= {"refund_id": refund_id, "cutoff": at, "keys": {**record["keys"],
                                                              "customer": customer}}  # fmt: skip
    return {
        **row, "score_id": f"{number:032x}", "refund_id": refund_id, "decided_at": at,
        "record": orjson.dumps(record).decode(), "features": values.tobytes(),
    }  # fmt: skip


def _events(
    request: Mapping[str, Any], decision: Mapping[str, Any], *, is_abuse: bool
) -> Iterator[dict[str, Any]]:
    """The request; its payment where it was allowed; and the word of an analyst on some."""
    refund_id, at = decision["refund_id"], decision["decided_at"]
    record = orjson.loads(decision["record"])
    customer = record["keys"]["customer"]

    def event(kind: str, at: int, payload: Mapping[str, Any]) -> dict[str, Any]:
        told = {**payload, "refund_id": refund_id, "known_at": at,
                "event_id": f"{kind} of {refund_id}"}  # fmt: skip
        return {"event_id": told["event_id"], "event_type": kind, "known_at": at,
                "order_id": payload.get("order_id"), "refund_id": refund_id,
                "payload": orjson.dumps(told).decode()}  # fmt: skip

    asked = {**orjson.loads(request["payload"]), "customer_id": customer}
    yield event("refund_request", at, {**asked, "order_id": f"order of {refund_id}"})
    if record["decision"]["action"] == "ALLOW":
        yield event("refund_outcome", at + DAY_MS, {"status": "COMPLETED"})
        if is_abuse:
            yield event("label", at + 20 * DAY_MS,
                        {"label": "REFUND_ABUSE", "source": "ANALYST"})  # fmt: skip


def decide_some(store: Store, data: Path, home: Recourse, count: int, policy: Policy) -> None:
    """Let a desk decide ``count`` refunds upon the history of a data folder."""
    folder = read_folder(data)
    import_folder(store, folder)
    champion = load_champion(home.settings())
    rates: Rates = rates_of(folder.tables)
    desk = Desk(store, Policies(policy), Models(champion), rates, _SECRET, 60_000)
    sender = Sender("key_benchmark")
    for at, body in islice(claims(folder.tables), count):
        said = contract.parse_refund(orjson.dumps(body), scored=True)
        desk.decide(said, partial(int, at), sender)


def claims(tables: Tables) -> Iterator[tuple[int, dict[str, Any]]]:
    """The last refunds asked for again, each for a new order of the same age: when, and how.

    An hour apart, and from customer to customer: who comes back at once would pass every limit.
    """
    items: dict[str, list[dict[str, Any]]] = {}
    for line in tables["refund_items"].to_pylist():
        items.setdefault(line["refund_id"], []).append(line)
    rows = [row for row in tables["refund_requests"].to_pylist()
            if row["order_id"] is not None and row["refund_id"] in items]  # fmt: skip
    for number, row in enumerate(reversed(rows)):
        at = end_of(tables) + number * HOUR_MS
        later = at - row["known_at"]
        times = {name: row[name] + later for name in ("ordered_at", "delivered_at")
                 if row.get(name) is not None}  # fmt: skip
        again = {**row, **times, "known_at": at, "refund_id": f"again-{number}",
                 "order_id": f"order of again-{number}"}  # fmt: skip
        yield at, refund_body(again, items[row["refund_id"]])


def build(data: Path, model_home: Path | None, work: Path, count: int, templates: int) -> None:
    """Make the store to be backtested in the empty folder ``work``."""
    policy = load_policy(_DEFAULT, FACTS)
    home = Recourse(work / "home")
    home.home.mkdir()
    say("making the model ready")
    home.obtain_model(model_home)
    say(f"deciding {templates:,} refunds")
    real = Store.open(_url(work, "real"), _SECRET)
    decide_some(real, data, home, templates, policy)
    say(f"writing {count:,} decisions")
    store = Store.open(_url(work, "many"), _SECRET)
    with real.database.read() as connection, store.database.write() as target:
        names = [dict(row) for row in connection.execute(select(name_lists)).mappings()]
        target.execute(insert(name_lists), names)
    reads = frozenset({*policy.reads, "payable_minor", "registered_age_days"})
    since = next(real.raw_decisions()).decided_at
    fill(store, Templates.of(real, reads), count, since)
    real.close()
    store.close()


def _url(work: Path, name: str) -> str:
    return f"sqlite:///{work}/{name}.db"


# --- measuring -------------------------------------------------------------------------------


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """The most memory, in MB, that this process and its children hold at once; a list of one.

    Pages of the store that are mapped into them are the system's, and not counted.
    """
    peak, done = [0.0], threading.Event()
    process = psutil.Process()

    def look() -> None:
        while True:
            held = _anonymous_mb(process)
            for child in process.children(recursive=True):
                try:
                    held += _anonymous_mb(child)
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], held)
            if done.wait(0.5):
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _anonymous_mb(process: psutil.Process) -> float:
    """What a process holds beside pages of files; all of it where the system does not tell."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    except OSError:
        return process.memory_info().rss / 2**20
    return sum(int(line.split()[1]) for line in status.splitlines() if "RssAnon" in line) / 1024


def _cpu_seconds() -> float:
    """What this process and its children that ended took of the processors."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def run(
    data: Path, model_home: Path | None, work: Path, count: int, *, templates: int = TEMPLATES,
    processes: int = 2,
) -> dict[str, Any]:  # fmt: skip
    """Build the store in the empty folder ``work`` and backtest; returns the report."""
    with ProcessPoolExecutor(1, get_context("spawn")) as builder:  # its memory is not measured
        builder.submit(build, data, model_home, work, count, templates).result()
    policy, store = load_policy(_DEFAULT, FACTS), Store.open(_url(work, "many"), _SECRET)
    say("backtesting")
    with peak_memory() as peak:
        cpu, started = _cpu_seconds(), time.perf_counter()
        report = backtest_store(store, policy, candidate_of(policy), processes=processes,
                                maturity_days=MATURITY_DAYS)  # fmt: skip
        seconds = time.perf_counter() - started
        cpu = _cpu_seconds() - cpu
    store.close()
    return {
        "decisions": report.decisions,
        "processes": processes,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "decisions_per_second": round(report.decisions / seconds),
        "peak_memory_mb": round(peak[0]),
        "store_gb": round((work / "many.db").stat().st_size / 1e9, 2),
        "rules": len(policy.rules),
        "labelled": report.labelled,
        "moved": report.moved,
        "same_share": report.own_same / report.own if report.own else None,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backtest",
                                     description=(__doc__ or "").partition("\n")[0])  # fmt: skip
    parser.add_argument("--decisions", type=int, default=DECISIONS)
    parser.add_argument("--templates", type=int, default=TEMPLATES,
                        help="how many of them are real (default: 3000)")  # fmt: skip
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path("data/sample"),
                        help="a data folder, the history (default: data/sample)")  # fmt: skip
    parser.add_argument("--model-home", type=Path,
                        help="a home with a model (default: train on the sample)")  # fmt: skip
    given = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="backtest-") as work:
        try:
            report = run(given.data, given.model_home, Path(work), given.decisions,
                         templates=given.templates, processes=given.processes)  # fmt: skip
        except (BenchmarkError, FolderError, FileNotFoundError) as error:
            print(error, file=sys.stderr)
            return 2
    print(json.dumps(report, indent=2))
    return 0 if report["same_share"] == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
