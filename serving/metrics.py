"""What the service counts, by the conventions of Prometheus, and how it is shown at /metrics.

A decision passes nine instruments, and prometheus-client takes 15 µs for that where several workers
share files. So what is counted in the path of a decision goes into plain lists first, in 2 µs, and
a thread carries it over each second (`serving.lookout`): a scrape is at most that much behind.
"""

from __future__ import annotations

import os
import resource
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from serving.tracing import note_stages

__all__ = ["CONTENT_TYPE_LATEST", "STAGES", "DecisionMetrics", "Metrics", "forget_dead_workers"]

StoreName = Literal["live", "sandbox"]
GaugeMode = Literal["livemax", "livemin", "livemostrecent", "liveall"]

STAGES: Final = ("parse", "read", "features", "model", "explain", "rules", "write", "total")
"""The parts of a decision that are timed; ``total`` is from arrival to commit."""

SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip
"""Upper edges of the buckets of durations, in seconds, close where decisions are."""

SCORES: Final = tuple(round(0.05 * n, 2) for n in range(1, 20))
"""Upper edges of the buckets of the calibrated probability."""

COUNTERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "decisions": ("Decisions made and kept", ("action", "source", "store")),
    "unknown_facts": (
        "Decisions in which a live rule could not be settled for want of a fact",
        ("fact", "store"),
    ),
    "degraded": ("Decisions by the policy's fallback, for want of a score", ("reason", "store")),
    "replays": ("Answers that repeated an earlier decision", ("store",)),
    "reports": ("Reports recorded, by event type", ("kind", "store")),
    "unexpected_transitions": ("Reports of what no decision had led to", ("store",)),
    "http_requests": ("Requests answered, by call and HTTP status", ("call", "status")),
    "log_lines": ("Warnings and errors in the log, by event", ("event", "level")),
}
"""Name, without its prefix: what it counts, and its labels."""

GAUGES: Final[Mapping[str, tuple[str, tuple[str, ...], GaugeMode]]] = {
    "model_info": ("1 for the version that a role has", ("role", "version"), "livemax"),
    "policy_info": ("1 for the version in force", ("store", "version", "hash"), "livemax"),
    "store_up": ("1 while the store takes writes", ("store",), "livemin"),
    "store_probe_seconds": (
        "How long an empty write took: waiting for the lock, and the way there and back",
        ("store",),
        "livemostrecent",
    ),
    "store_bytes": ("Size of the database", ("store",), "livemostrecent"),
    "store_wal_bytes": ("Size of SQLite's write-ahead log", ("store",), "livemostrecent"),
    "store_free_bytes": ("Space left beside SQLite's file", ("store",), "livemostrecent"),
    "audit_unsealed": ("Audit entries that no seal covers yet", ("store",), "livemostrecent"),
    "audit_unsealed_seconds": (
        "Age of the oldest audit entry that no seal covers",
        ("store",),
        "livemostrecent",
    ),
    "outbox_pending": ("Webhooks that wait to be delivered", ("store",), "livemostrecent"),
    "outbox_oldest_seconds": ("Age of the oldest webhook that waits", ("store",), "livemostrecent"),
    "outbox_dead": ("Webhooks that were given up", ("store",), "livemostrecent"),
    "reviews_waiting": ("Refunds that wait for a person", ("store",), "livemostrecent"),
    "reviews_overdue": ("Those that were to be done by now", ("store",), "livemostrecent"),
    "clock_ahead_seconds": (
        "How far the service's time is ahead of the system's, which was set back",
        (),
        "livemax",
    ),
    "worker_resident_bytes": ("Resident memory, by worker", (), "liveall"),
    "worker_cpu_seconds": ("Processor time used since the start, by worker", (), "liveall"),
}
"""Name, without its prefix: what it shows, its labels, and how several workers' are made one."""

DEGRADED: Final = (
    ("no model", "no_model"), ("the model was late", "late"), ("the model failed", "failed"),
)  # fmt: skip
"""How a verdict's problem begins, and the reason it is counted under."""


def degraded_reason(problem: str | None) -> str:
    """What a degraded decision is counted under: one of four words, whatever the problem says.

    >>> degraded_reason("the model failed: ValueError: 3 features"), degraded_reason(None)
    ('failed', 'other')
    """
    told = problem or ""
    return next((reason for start, reason in DEGRADED if told.startswith(start)), "other")


class _Histogram(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, counts: Sequence[float], total: float) -> None:
        """Add so many observations to each bucket, the one without an edge last, and their sum."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class _Observations:
    """Observations of one histogram by one thread, carried over by another.

    What was counted only grows, so the carrier needs no lock: it copies and adds the difference.
    """

    def __init__(self, histogram: _Histogram, edges: Sequence[float]) -> None:
        self._histogram, self._edges = histogram, edges
        self._counts, self._sum = [0] * (len(edges) + 1), 0.0
        self._carried, self._carried_sum = [0] * (len(edges) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._edges, value)] += 1
        self._sum += value

    def carry(self) -> None:
        counts, total = self._counts.copy(), self._sum
        if counts != self._carried:
            more = [now - before for now, before in zip(counts, self._carried, strict=True)]
            self._histogram.add(more, total - self._carried_sum)
            self._carried, self._carried_sum = counts, total


class _Counts:
    """Counts of one counter by label values, made by one thread and carried over by another."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.counts: Tally[tuple[str, ...]] = Tally()
        self._carried: dict[tuple[str, ...], int] = {}

    def carry(self) -> None:
        for labels, count in list(self.counts.items()):
            if more := count - self._carried.get(labels, 0):
                self._counter.labels(*labels).inc(more)
                self._carried[labels] = count


class DecisionMetrics:
    """What one desk counts. Only the thread that decides calls it; made by `Metrics.of`.

    >>> metrics = Metrics()
    >>> live = metrics.of("live")
    >>> live.observe({"total": 0.0021}, "PREVENT", "RULE", 0.87, ["device_id"])
    >>> metrics.carry()
    >>> metrics.value("recourse_decisions_total", action="PREVENT", source="RULE", store="live")
    1.0
    """

    def __init__(self, metrics: Metrics, store: StoreName) -> None:
        self._store = store
        self._stages = {
            stage: _Observations(metrics.decision_seconds.labels(stage, store), SECONDS)
            for stage in STAGES
        }
        self._score = _Observations(metrics.score.labels(store), SCORES)
        self._decisions = _Counts(metrics.counters["decisions"])
        self._unknown = _Counts(metrics.counters["unknown_facts"])
        self._degraded = _Counts(metrics.counters["degraded"])
        self._replays = _Counts(metrics.counters["replays"])
        self._reports = _Counts(metrics.counters["reports"])
        self._unexpected = _Counts(metrics.counters["unexpected_transitions"])

    def observe(
        self,
        stage_seconds: Mapping[str, float],
        action: str,
        source: str,
        score: float | None,
        unknown_facts: Collection[str] = (),
        degraded: str | None = None,
    ) -> None:
        """Count a decision that was committed.

        ``stage_seconds`` how long each of `STAGES` took, as far as it was gone through; ``score``
        the probability, None without one; ``unknown_facts`` those that live rules could not be
        settled for, once each: a policy can name none outside the catalog's, so they are bounded;
        ``degraded`` why the fallback decided (see `degraded_reason`), None where it did not.
        """
        note_stages(stage_seconds)
        for stage, seconds in stage_seconds.items():
            self._stages[stage].add(seconds)
        self._decisions.counts[action, source, self._store] += 1
        if score is not None:
            self._score.add(score)
        for fact in unknown_facts:
            self._unknown.counts[fact, self._store] += 1
        if degraded is not None:
            self._degraded.counts[degraded, self._store] += 1

    def replayed(self) -> None:
        """Count an answer that repeated an earlier one."""
        self._replays.counts[(self._store,)] += 1

    def reported(self, kind: str, unexpected: int = 0) -> None:
        """Count a report that was committed, by event type, and its surprising transitions."""
        self._reports.counts[kind, self._store] += 1
        if unexpected:
            self._unexpected.counts[(self._store,)] += unexpected

    def carry(self) -> None:
        """Hand over to Prometheus what was counted since the last time."""
        for observed in (*self._stages.values(), self._score):
            observed.carry()
        for counted in (self._decisions, self._unknown, self._degraded, self._replays,
                        self._reports, self._unexpected):  # fmt: skip
            counted.carry()


class Metrics:
    """Every instrument of a worker, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.decision_seconds = _Histogram(
            "recourse_decision_seconds",
            "Time of a decision by stage; total is from arrival until it is kept",
            ("stage", "store"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.score = _Histogram(
            "recourse_score",
            "Calibrated probability of abuse, of the decisions that have one",
            ("store",),
            buckets=SCORES,
            registry=self.registry,
        )
        self.counters = {
            name: Counter(f"recourse_{name}", told, labels, registry=self.registry)
            for name, (told, labels) in COUNTERS.items()
        }
        self.gauges = {
            name: Gauge(f"recourse_{name}", told, labels, registry=self.registry,
                        multiprocess_mode=mode)
            for name, (told, labels, mode) in GAUGES.items()
        }  # fmt: skip
        self._answers = _Counts(self.counters["http_requests"])
        self._desks: dict[StoreName, DecisionMetrics] = {}
        self._shown: dict[tuple[str, str], tuple[str, ...]] = {}

    def of(self, store: StoreName) -> DecisionMetrics:
        """What the desk of this store counts with; the same at each call."""
        if store not in self._desks:
            self._desks[store] = DecisionMetrics(self, store)
        return self._desks[store]

    def answered(self, call: str, status: int) -> None:
        """Count an answer; ``call`` is the route as declared. Only the event loop calls this."""
        self._answers.counts[call, str(status)] += 1

    def show(self, name: str, role: str, *version: str) -> None:
        """Let an info gauge say which version a role has: 1, and 0 for the one it had before."""
        gauge, now = self.gauges[name], (role, *version)
        before = self._shown.get((name, role), now)
        if before != now:
            gauge.labels(*before).set(0)
        self._shown[name, role] = now
        gauge.labels(*now).set(1)

    def carry(self) -> None:
        """Hand over to Prometheus what was counted since the last time. One thread calls it."""
        for desk in list(self._desks.values()):
            desk.carry()
        self._answers.carry()
        self.gauges["worker_resident_bytes"].set(_resident_bytes())
        self.gauges["worker_cpu_seconds"].set(time.process_time())

    def exposition(self) -> bytes:
        """All metrics of all workers, as text; of this one alone where it serves by itself."""
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def value(self, sample: str, **labels: str) -> float | None:
        """One number of this worker; None where nothing was counted."""
        return self.registry.get_sample_value(sample, labels)


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # not Linux: the most there ever was
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def forget_dead_workers(folder: Path | None = None) -> list[int]:
    """Drop the gauges that workers left behind which are gone; returns their process ids.

    Their counters and histograms stay, so that no total ever falls. ``folder`` is where the
    workers share their numbers, ``PROMETHEUS_MULTIPROC_DIR`` if None.
    """
    shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR") if folder is None else str(folder)
    if shared is None:
        return []
    found = {int(path.stem.rpartition("_")[2]) for path in Path(shared).glob("gauge_live*_*.db")}
    dead = sorted(pid for pid in found if not _is_alive(pid))
    for pid in dead:
        mark_process_dead(pid, shared)  # type: ignore[no-untyped-call]
    return dead


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another's: alive, and not ours
        return True
    return True
