"""What is counted: by the conventions, exactly, cheaply, and for all workers together."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from serving.metrics import (
    COUNTERS,
    GAUGES,
    SECONDS,
    STAGES,
    Metrics,
    degraded_reason,
    forget_dead_workers,
)

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"


def test_a_decision_is_counted_once_in_each_instrument():
    metrics = Metrics()
    desk = metrics.of("live")
    for _ in range(3):
        desk.observe({"read": 0.0004, "total": 0.0021}, "PREVENT", "RULE", 0.9, ["ip_risk"])
    desk.observe({"total": 9.0}, "MANUAL_REVIEW", "FALLBACK", None, (), degraded_reason("no model"))
    desk.replayed()
    desk.reported("return", unexpected=2)
    for _ in range(2):  # carrying twice counts nothing twice
        metrics.carry()
    value, live = metrics.value, {"store": "live"}
    assert value("recourse_decisions_total", action="PREVENT", source="RULE", **live) == 3
    assert value("recourse_decisions_total", action="ALLOW", source="MODEL", **live) is None
    assert value("recourse_decision_seconds_count", stage="total", **live) == 4
    assert value("recourse_decision_seconds_sum", stage="read", **live) == pytest.approx(0.0012)
    buckets = {
        edge: value("recourse_decision_seconds_bucket", stage="total", le=edge, **live)
        for edge in ("0.002", "0.003", "1.0", "+Inf")
    }
    assert buckets == {"0.002": 0, "0.003": 3, "1.0": 3, "+Inf": 4}
    assert value("recourse_score_count", **live) == 3
    assert value("recourse_unknown_facts_total", fact="ip_risk", **live) == 3
    assert value("recourse_degraded_total", reason="no_model", **live) == 1
    assert value("recourse_replays_total", **live) == 1
    assert value("recourse_reports_total", kind="return", **live) == 1
    assert value("recourse_unexpected_transitions_total", **live) == 2
    assert value("recourse_decision_seconds_count", stage="total", store="sandbox") is None


def test_an_edge_belongs_to_its_bucket_as_in_prometheus():
    metrics = Metrics()
    for edge in SECONDS:
        metrics.of("live").observe({"total": edge}, "ALLOW", "MODEL", 0.05)
    metrics.carry()
    counted = [
        metrics.value("recourse_decision_seconds_bucket", stage="total", store="live", le=str(edge))
        for edge in SECONDS
    ]
    assert counted == list(range(1, len(SECONDS) + 1))
    assert metrics.value("recourse_score_bucket", store="live", le="0.05") == len(SECONDS)


def test_an_info_gauge_shows_the_present_version_alone():
    metrics = Metrics()
    for version in ("1", "2", "2"):
        metrics.show("model_info", "champion", version)
    shown = {
        version: metrics.value("recourse_model_info", role="champion", version=version)
        for version in ("1", "2")
    }
    assert shown == {"1": 0, "2": 1}


def test_names_are_by_the_conventions():
    text = Metrics().exposition().decode()
    names = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len(names) >= len(COUNTERS) + len(GAUGES) + 2
    for name, kind in names:
        assert name.startswith("recourse_")
        assert name.endswith("_total") == (kind == "counter" and not name.endswith("_created"))


def test_the_runbook_lists_every_metric_with_its_labels():
    listed = {
        name: tuple(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(
            r"^\| `(recourse_\w+)` \|([^|]*)\|", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    expected = {
        "recourse_decision_seconds": ("stage", "store"),
        "recourse_score": ("store",),
        **{f"recourse_{name}_total": labels for name, (_, labels) in COUNTERS.items()},
        **{f"recourse_{name}": labels for name, (_, labels, _) in GAUGES.items()},
    }
    assert listed == expected


def test_the_alarms_of_the_runbook_are_about_metrics_that_there_are():
    text = RUNBOOK.read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (group,) = yaml.safe_load(block)["groups"]
    shown = Metrics().exposition().decode()
    names = {name for _, name in re.findall(r"^# (TYPE) (\S+) ", shown, re.MULTILINE)}
    for alarm in group["rules"]:
        used = re.findall(r"recourse_\w+", alarm["expr"])
        assert used
        assert {name.removesuffix("_bucket") for name in used} <= names, alarm["alert"]
        assert f"| {alarm['alert'].removeprefix('Recourse')} |" in text, "it says what to do"


WORKER = """
import os, sys
from serving.metrics import STAGES, Metrics, forget_dead_workers
metrics = Metrics()
metrics.of("live").observe({"total": 0.002}, "ALLOW", "MODEL", 0.1)
metrics.gauges["store_up"].labels("live").set(float(sys.argv[1]))
metrics.carry()
if len(sys.argv) > 2:
    print(len(forget_dead_workers()))
    print(metrics.exposition().decode())
"""


def test_workers_are_counted_together_and_dead_ones_leave_no_gauge(tmp_path):
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def worker(*arguments: str) -> str:
        command = [sys.executable, "-c", WORKER, *arguments]
        done = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    worker("0")
    told = worker("1", "and tell")
    assert told.startswith("1\n"), "the gauges of the worker that is gone were dropped"
    assert 'recourse_store_up{store="live"} 1.0' in told, "what it said last no longer counts"
    decisions = 'recourse_decisions_total{action="ALLOW",source="MODEL",store="live"} 2.0'
    assert decisions in told, "what it counted still does"
    assert 'recourse_decision_seconds_count{stage="total",store="live"} 2.0' in told


def test_alone_nobody_is_forgotten(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    assert forget_dead_workers() == []


def test_the_stages_are_those_of_a_decision():
    assert STAGES[-1] == "total"
    with pytest.raises(KeyError):
        Metrics().of("live").observe({"guessing": 1.0}, "ALLOW", "MODEL", None)
