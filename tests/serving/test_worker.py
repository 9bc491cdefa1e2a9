"""One worker: what it counts, logs and traces, and what it does when its store is not there."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.inprocess import Answered, InProcess
from features.money import RatesError
from serving.access import Access
from serving.lookout import RatesWatch
from serving.settings import Settings
from serving.store import database as databases
from serving.store.schema import fx_rates
from serving.tracing import Tracing, TracingError
from serving.worker import Worker
from tests.serving.champions import fixed
from tests.serving.test_desk import BODY, NAMES

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = f"00-{TRACE}-00f067aa0ba902b7-01"


class Asked(InProcess):
    """A worker's whole application, asked by the holder of a sandbox key."""

    def __init__(self, worker: Worker) -> None:
        self.worker, self.app, self.desk = worker, worker.app, worker.desks["test"]
        self.key = self.desk.store.keys.create("test", ("score", "report"), 1, name="ann")

    def decide(self, refund_id: str, **headers: str) -> Answered:
        body = deepcopy(BODY)
        body["refund"]["refundId"], body["order"]["orderId"] = refund_id, f"order of {refund_id}"
        query = {"score": "refundRequest"}
        return self.ask("POST", "/v2/refund", body, query=query, headers=headers)

    def metrics(self) -> dict[str, float]:
        self.worker.metrics.carry()
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines)
            if not name.startswith("#")
        }


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    return Settings(home=tmp_path, log_requests="all", deadline_ms=10_000)


@pytest.fixture
def impatient(monkeypatch) -> None:
    """To be asked for before what opens a store."""
    monkeypatch.setattr(databases, "BUSY_TIMEOUT_MS", 20)


@pytest.fixture
def asked(settings) -> Iterator[Asked]:
    worker = Worker(settings)
    yield Asked(worker)
    worker.close()


def lines(told: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in told.splitlines()]


def test_decisions_are_counted_logged_and_nothing_personal_is_said(asked, capsys):
    assert asked.decide("r-1", traceparent=SAMPLED).json()["data"]["degraded"]
    asked.worker.models.put("champion", fixed(0.2, fails=ValueError(NAMES["customer"])))
    failed = asked.decide("r-2")
    asked.worker.models.put("champion", fixed(0.2))
    decided = asked.decide("r-3")
    assert (failed.status, decided.json()["data"]["degraded"]) == (200, False)
    asked.decide("r-3")
    asked.ask("GET", f"/nowhere/{NAMES['customer']}")
    asked.ask("POST", f"/v2/customer/{NAMES['customer']}/labels", {"category": "NONE"})
    found = asked.metrics()
    assert found['recourse_degraded_total{reason="no_model",store="sandbox"}'] == 1
    assert found['recourse_degraded_total{reason="failed",store="sandbox"}'] == 1
    assert found['recourse_replays_total{store="sandbox"}'] == 1
    for stage in ("parse", "read", "features", "model", "explain", "rules", "write", "total"):
        timed = f'recourse_decision_seconds_count{{stage="{stage}",store="sandbox"}}'
        assert found[timed] >= 1, stage
    assert found['recourse_score_bucket{le="0.2",store="sandbox"}'] == 1
    call = 'recourse_http_requests_total{call="POST /v2/refund",status="200"}'
    assert found[call] == 4
    assert found['recourse_http_requests_total{call="none",status="404"}'] == 1
    labels = 'call="POST /v2/customer/{customerId:path}/labels",status="400"'
    assert found[f"recourse_http_requests_total{{{labels}}}"] == 1
    assert found['recourse_model_info{role="champion",version="none"}'] == 1
    assert found['recourse_store_up{store="live"}'] == 1
    told = capsys.readouterr().err
    requests = [line for line in lines(told) if line["event"] == "request"]
    assert [line["status"] for line in requests] == [200, 200, 200, 200, 404, 400, 200]
    assert requests[0]["trace_id"] == TRACE
    assert requests[2]["request_id"] == decided.headers["x-request-id"]
    text = asked.ask("GET", "/metrics").body.decode() + told
    for personal in NAMES.values():
        assert personal not in text


def test_a_store_that_is_locked_is_answered_with_503_and_comes_back(
    impatient, asked, settings, capsys
):
    live, sandbox = asked.worker._stores["live"], asked.worker._stores["test"]
    with sqlite3.connect(settings.home / "sandbox.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = asked.decide("r-1")
        assert (refused.status, refused.json()["status"]) == (503, 503)
        assert refused.headers["retry-after"] == "1"
        sandbox.look()
        assert not sandbox.is_up
        assert asked.worker.is_ready, "the live store is there"
        assert asked.metrics()['recourse_store_up{store="sandbox"}'] == 0
        other.execute("ROLLBACK")
    other.close()
    assert asked.decide("r-1").status == 200
    sandbox.look()
    assert sandbox.is_up
    with sqlite3.connect(settings.home / "live.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        live.look()
        assert not asked.worker.is_ready
        other.execute("ROLLBACK")
    other.close()
    live.look()
    assert asked.worker.is_ready
    events = [line["event"] for line in lines(capsys.readouterr().err)]
    assert events.count("store_unreachable") == events.count("store_reachable_again") == 2
    counted = 'recourse_log_lines_total{event="store_unreachable",level="error"}'
    assert asked.metrics()[counted] == 2


def test_on_a_full_disk_nothing_is_acknowledged_and_it_comes_back(asked):
    database = asked.desk.store.database

    def grow_to(pages: int) -> None:
        def limit() -> None:  # of one connection: that of the thread that decides
            with database.write() as connection:
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        asyncio.run(asked.worker.api._run(limit))

    with database.read() as connection:
        size = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    grow_to(size + 12)
    statuses = [asked.decide(f"r-{number}").status for number in range(20)]
    assert statuses[-1] == 503
    assert set(statuses) == {200, 503}, "what fitted into free pages was kept"
    kept = [asked.ask("GET", f"/v2/refund/r-{number}").status for number in range(len(statuses))]
    assert [status == 200 for status in kept] == [status == 200 for status in statuses]
    grow_to(size + 10_000)
    again = asked.decide("r-19")
    assert (again.status, again.headers.get("idempotent-replayed")) == (200, None)


def test_exchange_rates_are_taken_up_while_serving(asked, capsys):
    desk = asked.desk
    watch = RatesWatch(asked.worker.desks, "test")
    adding = desk.store.database.inserting(fx_rates, ("date", "currency", "rate"), "replace")

    def add(*row: Any) -> None:
        with desk.store.database.write() as connection:
            desk.store.database.run(connection, adding, row)
        watch.look()

    watch.look()
    assert asked.worker.desks["test"] is desk
    add("2026-01-01", "USD", 0.8)
    taken = asked.worker.desks["test"]
    assert set(taken.rates.by_day) == {"USD"}
    assert (taken.store, taken.policies) == (desk.store, desk.policies)
    assert asked.worker.api.desks["test"] is taken, "the next request is decided with them"
    add("2026-01-01", "USD", 0.7)
    assert set(asked.worker.desks["test"].rates.by_day["USD"].values()) == {0.7}
    before = asked.worker.desks["test"]
    add("2026-01-01", "GBP", 2.0)  # no base currency is worth two of itself
    with pytest.raises(RatesError):
        type(before.rates).of("GBP", desk.store.fx_rates())
    assert asked.worker.desks["test"] is before
    events = [line["event"] for line in lines(capsys.readouterr().err)]
    assert (events.count("rates_taken_up"), events.count("rates_refused")) == (2, 1)


def test_a_sampled_request_leaves_a_span_for_each_stage(asked):
    exporter = InMemorySpanExporter()
    asked.worker.models.put("champion", fixed(0.2))
    tracing = Tracing(0.0, exporter)  # by itself it would trace nothing
    asked.app = Access(asked.app, asked.worker.metrics, tracing, "none")
    asked.decide("r-1")
    asked.decide("r-2", traceparent=SAMPLED)
    tracing.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    root = spans.pop("POST /v2/refund")
    assert format(root.context.trace_id, "032x") == TRACE
    assert format(root.parent.span_id, "016x") == "00f067aa0ba902b7"
    assert dict(root.attributes) == {
        "http.request.method": "POST", "http.route": "/v2/refund",
        "http.response.status_code": 200,
    }  # fmt: skip
    assert spans.keys() == {"parse", "read", "features", "model", "explain", "rules", "write"}
    for span in spans.values():
        assert span.parent.span_id == root.context.span_id
        assert root.start_time <= span.start_time <= span.end_time


def test_an_exporter_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "jaeger")
    assert Tracing.of(0) is None
    with pytest.raises(TracingError, match=r"'jaeger' is not installed, there are .*console.*none"):
        Tracing.of(0.1)


def test_a_worker_lets_others_into_no_file_of_its_home(asked, settings):
    files = [path for path in settings.home.iterdir() if path.is_file()]
    assert {path.name for path in files} >= {"live.db", "sandbox.db-wal", "secret"}
    assert not any(path.stat().st_mode & 0o077 for path in files)
