"""What training costs: seconds and memory by the number of refund requests, features included.

``python -m benchmarks.training`` prints one JSON document. A shop of 18 months is simulated for
each size and written to disk, in a process of its own; then another one reads the folder and does
all that `recourse train` does in a new RECOURSE_HOME: features, labels, the search for leaks,
folds, trees, calibration, bands, test, baselines, the registry and the report. Simulating is in no
figure, compiling neither.

``stages`` has each stage's seconds by the clock and of the processor, and the most memory that the
process had held by its end; ``growth`` by how much more than in proportion a larger size took.
Exit code 1 where a model was refused: its training would have been cheap.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any, Final

from benchmarks.features import peak_bytes
from benchmarks.service import say
from features.tables import Tables, read_folder, write_folder
from training.dataset import feature_frame, rates_of
from training.report import TrainedReport
from training.simulate import simulate
from training.train import NotRegistered, Options, train

SIZES: Final = (50_000, 200_000)
DAYS: Final = 548
REQUESTS_PER_CUSTOMER: Final = 3.35
"""About, in so many days."""

MATURITY_DAYS: Final = 30
TO_COMPILE: Final = 200


@dataclass(frozen=True)
class Mark:
    """The clocks, and the most memory held so far, at an instant."""

    at: float
    cpu: float
    peak: int

    @classmethod
    def now(cls) -> Mark:
        """As they are."""
        return cls(perf_counter(), process_time(), peak_bytes())

    def since(self, earlier: Mark) -> dict[str, float]:
        """What passed, and the peak by now."""
        return {
            "seconds": round(self.at - earlier.at, 1),
            "cpu_seconds": round(self.cpu - earlier.cpu, 1),
            "peak_mb": _mb(self.peak),
        }


def save_world(requests: int, days: int, seed: int, folder: Path) -> None:
    """Simulate a shop in which about so many refunds are asked for, and write its folder."""
    write_folder(simulate(round(requests / REQUESTS_PER_CUSTOMER), days, seed), folder)


def measure(folder: Path, maturity_days: int) -> dict[str, Any]:
    """Read a folder and train on it; to be called in a fresh process."""
    import training.page
    import training.registry  # noqa: F401 - what is imported is in no stage

    imported = Mark.now()
    tables = read_folder(folder).tables
    read = Mark.now()
    rates = rates_of(tables)
    feature_frame({name: table.slice(0, TO_COMPILE) for name, table in tables.items()}, rates)
    report, marks = _trained(tables, maturity_days)
    begun, done = marks[0][1], marks[-1][1]
    return {
        "requests": tables["refund_requests"].num_rows,
        "other_events": sum(len(table) for table in tables.values())
        - len(tables["refund_requests"]),
        "tables_mb": _mb(sum(table.nbytes for table in tables.values())),
        "peak_before_mb": _mb(imported.peak),
        "reading": read.since(imported),
        "training": done.since(begun),
        "stages": {
            stage: later.since(earlier)
            for (stage, earlier), (_, later) in pairwise(marks)
        },
        "n_train": report.n_train,
        "n_test": report.n_test,
        "n_positives_train": report.n_positives_train,
        "trees": report.trees,
        "trees_tried": len(report.validation["curve"]),
        "average_precision": report.judgement.figures.average_precision,
        "average_precision_interval": report.judgement.intervals["average_precision"].to_json(),
        "auc": report.judgement.figures.auc,
        "calibration_slope": report.judgement.figures.calibration_slope,
        "refusals": list(report.refusals),
    }  # fmt: skip


def _trained(tables: Tables, maturity_days: int) -> tuple[TrainedReport, list[tuple[str, Mark]]]:
    """The report of a training run, and when each of its stages began; the last is the end."""
    marks: list[tuple[str, Mark]] = []

    def began(stage: str) -> None:
        marks.append((stage, Mark.now()))
        say(stage)

    with TemporaryDirectory(prefix="training-home-") as home:
        began("policy and rates")
        try:
            report = train(tables, home=Path(home), options=Options(maturity_days=maturity_days),
                           say=began)  # fmt: skip
        except NotRegistered as refused:
            report = refused.report
        marks.append(("end", Mark.now()))
    return report, marks


def _mb(size: int) -> int:
    return round(size / 2**20)


def measure_all(
    sizes: Sequence[int], *, days: int, seed: int, maturity_days: int
) -> dict[str, Any]:
    """Each size in a process of its own, and how they grow."""
    found = []
    for requests in sizes:
        with TemporaryDirectory(prefix="training-") as work:
            say(f"simulating {requests:,} refund requests")
            in_fresh_process(save_world, requests, days, seed, Path(work))
            say("reading them")
            found.append(in_fresh_process(measure, Path(work), maturity_days))
            print(to_text(found[-1]), file=sys.stderr)
    return {
        "cpus": os.cpu_count(),
        "versions": {name: version(name) for name in ("lightgbm", "numpy", "pandas", "mlflow")},
        "days": days,
        "seed": seed,
        "maturity_days": maturity_days,
        "sizes": found,
        "growth": [growth(small, large) for small, large in pairwise(found)],
    }


def growth(small: Mapping[str, Any], large: Mapping[str, Any]) -> dict[str, float]:
    """How much more a larger size takes, over how much larger it is: 1 is in proportion."""
    times = large["requests"] / small["requests"]
    return {
        "from": small["requests"],
        "to": large["requests"],
        **{
            clock: round(large["training"][clock] / small["training"][clock] / times, 3)
            for clock in ("seconds", "cpu_seconds", "peak_mb")
        },
    }


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's answer, from a process that nothing else has run in."""
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning) as pool:
        return pool.submit(function, *arguments).result()


def to_text(size: Mapping[str, Any]) -> str:
    """A size in a line, and one for each stage."""
    parts = {"reading": size["reading"], "training": size["training"], **size["stages"]}
    return "\n".join([
        f"{size['requests']:,} requests, {size['trees']} of {size['trees_tried']} trees, "
        f"AP {size['average_precision']:.3f}",
        *(f"    {name:<20} {part['seconds']:7.1f} s {part['cpu_seconds']:7.1f} s of processor "
          f"{part['peak_mb']:7,} MB" for name, part in parts.items()),
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training",
                                     description=(__doc__ or "").partition("\n")[0])  # fmt: skip
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES),
                        help="refund requests, about (default: 50000 200000)")  # fmt: skip
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--seed", type=int, default=23)
    parser.add_argument("--maturity-days", type=int, default=MATURITY_DAYS)
    asked = parser.parse_args(arguments)
    report = measure_all(asked.sizes, days=asked.days, seed=asked.seed,
                         maturity_days=asked.maturity_days)  # fmt: skip
    print(json.dumps(report, indent=2))
    return int(any(size["refusals"] for size in report["sizes"]))


if __name__ == "__main__":
    sys.exit(main())
