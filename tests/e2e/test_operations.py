"""The running service, looked at from outside: its numbers over several workers, and its end."""

from __future__ import annotations

import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.service import Service
from tests.e2e.test_contract import changed

PATIENCE_SECONDS = 30
DECISIONS = 12


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers without a model, which no number needs."""
    with Service(tmp_path_factory.mktemp("operations"), workers=2) as running:
        yield running


def until(found: Callable[[], bool]) -> bool:
    """Whether it came to be in time."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while not found():
        if time.monotonic() > ends:
            return False
        time.sleep(0.05)
    return True


def counted(service: Service, name: str) -> list[float]:
    """The samples of this name, whatever their labels."""
    text = service.client.get("/metrics").text
    return [float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)]


def rows(home: Path, statement: str) -> int:
    """One number of the sandbox."""
    with closing(sqlite3.connect(f"file:{home / 'sandbox.db'}?mode=ro", uri=True)) as connection:
        return int(connection.execute(statement).fetchone()[0] or 0)


def test_the_workers_are_counted_together(served: Service) -> None:
    for number in range(DECISIONS):
        # Each on a connection of its own: whichever worker is free takes it.
        headers = served.headers("test", Connection="close")
        answer = served.client.post("/v2/refund?score=refundRequest", headers=headers,
                                    json=changed(refundId=f"r-{number}"))  # fmt: skip
        assert answer.status_code == 200, answer.text
    assert until(lambda: sum(counted(served, "recourse_decisions_total")) == DECISIONS)
    assert sum(counted(served, "recourse_decision_seconds_count")) >= DECISIONS
    assert counted(served, "recourse_store_up") == [1, 1]
    assert len(counted(served, "recourse_worker_resident_bytes")) == 2


def test_told_to_stop_it_answers_what_it_accepted_seals_and_ends(served: Service) -> None:
    before = rows(served.home, "SELECT count(*) FROM decisions")
    with ThreadPoolExecutor(1) as elsewhere:
        last = elsewhere.submit(
            served.score, changed(refundId="last"), "test", **{"Recourse-Min-Latency": "700"}
        )
        assert until(lambda: rows(served.home, "SELECT count(*) FROM decisions") > before)
        served.process.send_signal(signal.SIGTERM)
        assert last.result().status_code == 200, "it was under way"
        assert served.process.wait(PATIENCE_SECONDS) == 0
    with pytest.raises(httpx.TransportError):
        served.client.get("/readyz")
    sealed = rows(served.home, "SELECT max(seq) FROM audit_seals")
    assert sealed == rows(served.home, "SELECT max(seq) FROM audit_log") > 0


def test_a_supervisor_that_is_killed_while_its_workers_start_leaves_none(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.launch()
    supervisor = psutil.Process(service.process.pid)
    workers: list[psutil.Process] = []
    while not workers:
        time.sleep(0.01)
        workers = supervisor.children(recursive=True)
    supervisor.kill()
    service.process.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    for worker in alive:
        worker.kill()
    assert not alive
