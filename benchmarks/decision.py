"""What a whole decision costs, as ratios in one run: our service, the floor and the usual stack.

``python -m benchmarks.decision [--events N] [--grow N …] [--model-home HOME]`` serves one model in
three ways, a worker each: `benchmarks.peers.floor`, `benchmarks.peers.usual`, and the real
service over a store of a million events, with durable decisions, rules and exact reasons. The three
get the same bodies from the same generator: refunds, each with a fresh id, of customers who asked
for refunds before, drawn from the whole store. They take turns in short rounds, so that they share
the machine's moods. Then our service alone with two workers; with ``--grow`` over stores of other
sizes, in turns again. Each stage's share comes from the service's own metrics. Prints one JSON
document; times are milliseconds. Exit code 1 when an answer failed or was a fallback.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import orjson

from benchmarks.bodies import refund_body
from benchmarks.filling import Populations, row_of
from benchmarks.load import Load, closed_loop, http_request
from benchmarks.service import (
    BenchmarkError,
    Client,
    Recourse,
    free_port,
    running,
    say,
)
from features.money import DAY_MS
from features.tables import FolderError, Tables, read_folder
from serving.lookout import CARRY_SECONDS

EVENTS: Final = 1_000_000
ROUNDS: Final = 5
SECONDS: Final = 1.25
"""How long each service is under each load, per round."""

MANY_CLIENTS: Final = 8
PATH: Final = "/v2/refund?score=refundRequest"

P50_TO_FLOOR_AT_MOST: Final = 10.0
P50_TO_FLOOR_GOAL: Final = 6.0
THROUGHPUT_TO_USUAL_AT_LEAST: Final = 2.0
THROUGHPUT_TO_USUAL_GOAL: Final = 4.0
GROWTH_AT_MOST: Final = 1.3

_STAGE: Final = re.compile(
    r'^recourse_decision_seconds_(sum|count)\{[^}]*stage="(\w+)"[^}]*\} (\S+)', re.MULTILINE
)


# --- requests --------------------------------------------------------------------------------


def returning_refunds(tables: Tables) -> list[dict[str, Any]]:
    """The last refund request of every customer who made at least two in the last year.

    In a fixed random order, so that neighbours share nothing. Raises BenchmarkError for none.
    """
    rows = tables["refund_requests"].to_pylist()
    since = rows[-1]["known_at"] - 365 * DAY_MS if rows else 0
    last: dict[str, dict[str, Any]] = {}
    returning: set[str] = set()
    for row in rows:
        if row["known_at"] >= since and row["order_id"] is not None:
            if row["customer_id"] in last:
                returning.add(row["customer_id"])
            last[row["customer_id"]] = row
    if not returning:
        raise BenchmarkError("the data folder has no customer with two refunds in its last year")
    chosen = [last[customer] for customer in sorted(returning)]
    return [chosen[i] for i in np.random.default_rng(0).permutation(len(chosen))]


def bodies(
    refunds: Sequence[Mapping[str, Any]], after: int, populations: int = 1
) -> Iterator[bytes]:
    """Endless scored requests as JSON: the refunds of one population and then of the next.

    Each is asked anew, a millisecond after the one before; ids begin with the time.
    """
    number = 0
    while True:
        for row in refunds:
            number += 1
            now = {"refund_id": f"again-{after}-{number}", "known_at": after + number}
            named = row_of(row, 1 + number % populations)
            yield orjson.dumps(refund_body({**named, **now}))


# --- measuring -------------------------------------------------------------------------------


@dataclass
class Contender:
    """A server under measurement, and what was measured of it."""

    port: int
    headers: Mapping[str, str]
    bodies: Iterator[bytes]
    alone: list[Load] = field(default_factory=list)
    crowded: list[Load] = field(default_factory=list)

    def requests(self) -> Iterator[bytes]:
        """The bodies as requests to this server."""
        return (http_request(PATH, body, self.headers) for body in self.bodies)

    def warm_up(self, seconds: float) -> None:
        """What is compiled or cached at first use."""
        closed_loop(self.port, self.requests(), 1, seconds)

    def measure(self, seconds: float, *, crowded: bool = True) -> None:
        """One round."""
        self.alone.append(closed_loop(self.port, self.requests(), 1, seconds))
        if crowded:
            self.crowded.append(closed_loop(self.port, self.requests(), MANY_CLIENTS, seconds))

    def report(self) -> dict[str, Any]:
        """Percentiles over all rounds at one client; the median round's throughput at eight."""
        ms = [value for load in self.alone for value in load.ms]
        loads = [*self.alone, *self.crowded]
        if not ms or not all(load.ms for load in self.crowded):
            raise BenchmarkError(f"the server on port {self.port} gave no good answer")
        p50, p95, p99 = np.percentile(ms, [50, 95, 99]).round(3).tolist()
        found = {
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "answers": sum(len(load.ms) for load in loads),
            "failed": sum(load.failed for load in loads),
            "degraded": sum(load.degraded for load in loads),
        }
        if not self.crowded:
            return found
        return {
            **found,
            "requests_per_second": round(median(len(x.ms) / x.seconds for x in self.crowded), 1),
            # Near 1 the generator, not the server, would be what was measured.
            "generator_cpu_share": round(
                median(x.generator_cpu_seconds / x.seconds for x in self.crowded), 3
            ),
        }


@dataclass
class Bench:
    """What all measurements share: the data, the homes, the stores and the bodies."""

    work: Path
    tables: Tables
    populations: Populations
    recourse: Recourse
    rounds: int
    seconds: float
    stores: Path | None = None

    @classmethod
    def prepare(
        cls, data: Path, model_home: Path | None, work: Path, rounds: int, seconds: float,
        stores: Path | None = None,
    ) -> Bench:  # fmt: skip
        """A home with a model, and the data imported once as the template of every store."""
        tables = read_folder(data).tables
        returning_refunds(tables)  # refused before anything takes its time
        recourse = Recourse((stores or work) / "template")
        if not (recourse.home / "sandbox.db").exists():
            recourse.home.mkdir(parents=True)
            say("making the model ready")
            recourse.obtain_model(model_home)
            say("importing the history")
            recourse.import_folder(data)
        template = recourse.home / "sandbox.db"
        populations = Populations(template, recourse.settings().secret_bytes(), tables)
        return cls(work, tables, populations, recourse, rounds, seconds, stores)

    def store(self, events: int) -> tuple[Recourse, int, int]:
        """A home over a store of at least so many events; its populations, and its events."""
        template = self.populations.events()
        wanted = max(1, -(-events // template))
        share = None if events >= template else self.populations.customers() * events // template
        home = (self.stores or self.work) / f"events-{events}"
        if not (home / "filled").exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            shutil.copytree(self.recourse.home / "model", home / "model")
            shutil.copy(self.recourse.home / "secret", home / "secret")
            say(f"filling a store with {events:,} events")
            kept = self.populations.fill(home / "sandbox.db", range(1, wanted + 1), share)
            (home / "filled").write_text(str(kept), encoding="ascii")
        return Recourse(home), wanted, int((home / "filled").read_text(encoding="ascii"))

    def contender(
        self, stack: ExitStack, home: Recourse, populations: int, workers: int = 1
    ) -> Contender:
        """Our service over a store, which knows the customers that it is asked about."""
        key = home.create_key("score", "report")
        headers = {"Content-Type": "application/json", "Authorization": f"token {key}"}
        port = stack.enter_context(home.serve(workers))
        known = self.populations.known(home.home / "sandbox.db")
        refunds = [row for row in returning_refunds(self.tables) if row["customer_id"] in known]
        # In the store time goes on as it does outside, so that a store may be measured again.
        passed = time.time() - (home.home / "filled").stat().st_mtime
        after = self._last() + max(0, int(passed * 1000))
        return Contender(port, headers, bodies(refunds, after, populations))

    def _last(self) -> int:
        return int(max(
            table["known_at"].to_numpy().max() for table in self.tables.values()
            if "known_at" in table.column_names and table.num_rows
        ))  # fmt: skip


def _peer(stack: ExitStack, name: str, home: Path, sent: Iterator[bytes]) -> Contender:
    """A peer under uvicorn with its quickest parts, one thread for LightGBM as for ours."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", f"benchmarks.peers:{name}", "--factory",
        "--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log",
        "--log-level", "warning",
    ]  # fmt: skip
    environment = {**os.environ, "RECOURSE_HOME": str(home.resolve()), "OMP_NUM_THREADS": "1"}
    log = home / f"{name}.log"
    stack.enter_context(running(command, port, "/readyz", log, environment))
    return Contender(port, {"Content-Type": "application/json"}, sent)


def _check_ours(ours: Contender) -> str:
    """The model version of a decision that rests on the customer's history."""
    key = ours.headers["Authorization"].partition(" ")[2]
    answer = Client(ours.port, key).post(PATH, orjson.loads(next(ours.bodies)))
    if answer.status != 200:
        raise BenchmarkError(f"the service answers {answer.status}: {answer.body}")
    decision = answer.body["data"]
    if "customer-not-found" in {warning["class"] for warning in decision["warnings"]}:
        raise BenchmarkError("the service does not know the customers that were imported")
    version: str = decision["modelVersion"]
    return version


def stages(port: int) -> dict[str, tuple[float, float]]:
    """Seconds and decisions by stage, once the service has counted all that was decided."""
    time.sleep(CARRY_SECONDS * 1.5)
    connection = Client(port).text("/metrics")
    found: dict[str, dict[str, float]] = {}
    for what, stage, value in _STAGE.findall(connection):
        of_stage = found.setdefault(stage, {"sum": 0.0, "count": 0.0})
        of_stage[what] += float(value)
    return {stage: (each["sum"], each["count"]) for stage, each in found.items()}


def profile(
    before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """Mean microseconds of each stage between two readings.

    >>> profile({"read": (1.0, 10)}, {"read": (1.5, 1010), "write": (0.2, 1000)})
    {'read': 500.0, 'write': 200.0}
    """
    told = {}
    for stage, (seconds, count) in after.items():
        seconds_before, count_before = before.get(stage, (0.0, 0.0))
        if count > count_before:
            told[stage] = round((seconds - seconds_before) / (count - count_before) * 1e6, 1)
    return told


# --- the three parts -------------------------------------------------------------------------


def against_peers(bench: Bench, home: Recourse, populations: int) -> dict[str, Any]:
    """One worker of ours, the floor and the usual stack in turns."""
    with ExitStack() as stack:
        say("starting the three services")
        ours = bench.contender(stack, home, populations)
        contenders = {
            "floor": _peer(stack, "floor", home.home, ours.bodies),
            "usual": _peer(stack, "usual", home.home, ours.bodies),
            "recourse": ours,
        }
        for contender in contenders.values():
            contender.warm_up(bench.seconds)
        version = _check_ours(ours)
        alone: list[dict[str, float]] = []
        for number in range(bench.rounds):
            say(f"round {number + 1} of {bench.rounds}")
            for contender in contenders.values():
                contender.measure(bench.seconds)
            before = stages(ours.port)
            ours.measure(bench.seconds, crowded=False)
            alone.append(profile(before, stages(ours.port)))
        results = {name: contender.report() for name, contender in contenders.items()}
    names = {name: None for each in alone for name in each}
    return {
        "model_version": version,
        "results": results,
        "ratios": _ratios(results),
        "stages_us": {
            name: round(median(each[name] for each in alone if name in each), 1) for name in names
        },
    }


def with_workers(
    bench: Bench, home: Recourse, populations: int, workers: int
) -> dict[str, Any]:  # fmt: skip
    """Our service alone, with several workers."""
    with ExitStack() as stack:
        say(f"starting {workers} workers")
        ours = bench.contender(stack, home, populations, workers)
        ours.warm_up(bench.seconds * workers)
        for _ in range(bench.rounds):
            ours.measure(bench.seconds)
        return ours.report()


def growth(bench: Bench, homes: Mapping[int, tuple[Recourse, int]]) -> dict[str, Any]:
    """The latency over stores of several sizes, in turns; each as a ratio to the least."""
    with ExitStack() as stack:
        say("starting a service over each store")
        contenders = {
            events: bench.contender(stack, home, populations)
            for events, (home, populations) in homes.items()
        }
        for contender in contenders.values():
            contender.warm_up(bench.seconds * 2)
        for number in range(bench.rounds * 2):
            say(f"round {number + 1} of {bench.rounds * 2}")
            for contender in contenders.values():
                contender.measure(bench.seconds, crowded=False)
        results = {events: contender.report() for events, contender in contenders.items()}
    least = results[min(results)]["p50_ms"]
    return {
        "results": {str(events): result for events, result in results.items()},
        "p50_to_smallest": {
            str(events): round(result["p50_ms"] / least, 2) for events, result in results.items()
        },
    }


def run(
    data: Path, model_home: Path | None, work: Path, events: int = EVENTS,
    grow: Sequence[int] = (), rounds: int = ROUNDS, seconds: float = SECONDS, workers: int = 2,
    stores: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure all in the empty folder ``work``; returns the report.

    With ``stores`` the filled stores are kept there, and those that are there are measured.
    """
    bench = Bench.prepare(data, model_home, work, rounds, seconds, stores)
    home, populations, kept = bench.store(events)
    report = {"events": kept, **against_peers(bench, home, populations)}
    if workers > 1:
        report[f"with_{workers}_workers"] = with_workers(bench, home, populations, workers)
    if grow:
        homes = {kept: (home, populations)}
        for size in grow:
            other, others, events_of_other = bench.store(size)
            homes[events_of_other] = (other, others)
        report["growth"] = growth(bench, dict(sorted(homes.items())))
    return {
        **report,
        "clients": {"latency": 1, "requests_per_second": MANY_CLIENTS},
        "budget": {
            "p50_to_floor_at_most": P50_TO_FLOOR_AT_MOST,
            "p50_to_floor_goal": P50_TO_FLOOR_GOAL,
            "requests_per_second_to_usual_at_least": THROUGHPUT_TO_USUAL_AT_LEAST,
            "requests_per_second_to_usual_goal": THROUGHPUT_TO_USUAL_GOAL,
            "p50_growth_at_most": GROWTH_AT_MOST,
        },
    }


def _ratios(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Ours divided by theirs: small is good for times, large for throughput."""
    ours = results["recourse"]
    return {
        f"{what}_to_{peer}": round(ours[what] / results[peer][what], 2)
        for peer in ("floor", "usual")
        for what in ("p50_ms", "p95_ms", "p99_ms", "requests_per_second")
    }


def is_sound(report: Mapping[str, Any]) -> bool:
    """Whether every answer was a good one."""
    measured = [*report["results"].values(), *report.get("growth", {}).get("results", {}).values()]
    measured += [part for name, part in report.items() if name.startswith("with_")]
    return not any(result["failed"] or result["degraded"] for result in measured)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decision",
                                     description=(__doc__ or "").partition("\n")[0])  # fmt: skip
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data/sample"),
        help="a data folder, the template of the history (default: data/sample)",
    )
    parser.add_argument("--model-home", type=Path,
                        help="a home with a model (default: train on the sample)")  # fmt: skip
    parser.add_argument("--events", type=int, default=EVENTS,
                        help=f"events in the store (default: {EVENTS:,})")  # fmt: skip
    parser.add_argument("--grow", type=int, nargs="*", default=[],
                        help="sizes of other stores to compare the latency with")  # fmt: skip
    parser.add_argument("--stores", type=Path,
                        help="a folder that keeps the filled stores for another run")  # fmt: skip
    given = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="decision-", dir=os.environ.get("TMPDIR")) as work:
        try:
            report = run(given.data, given.model_home, Path(work), given.events, given.grow,
                         stores=given.stores)  # fmt: skip
        except (BenchmarkError, FolderError, FileNotFoundError) as error:
            print(error, file=sys.stderr)
            return 2
    print(json.dumps(report, indent=2))
    return 0 if is_sound(report) else 1


if __name__ == "__main__":
    sys.exit(main())
