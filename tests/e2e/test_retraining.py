"""The retraining loop of docs/retraining.md: a service that is asked all the while takes up a
better model without a restart and without a failed request, and all who score agree exactly."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, groupby
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from features.tables import Tables, read_folder
from serving.home import Home
from serving.model import AbuseModel
from tests.e2e.service import REPOSITORY, Service, environment
from training.demo import request_of

PAGE = (REPOSITORY / "docs" / "retraining.md").read_text(encoding="utf-8")
PATIENCE_SECONDS = 30
"""How long something that happens within two seconds may take on a machine that does much else."""


def blocks() -> list[list[str]]:
    """The commands of each shell block of the page."""
    return [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)]


START, TRAIN, SHADOW, PROMOTE, BACK = blocks()


def run(command: str, home: Path) -> str:
    """Run a command of the page as it stands there, but over ``home`` in place of ``var``."""
    there = re.sub(r"\bvar/", f"{home}/", command)
    done = subprocess.run(
        ["bash", "-c", there], cwd=REPOSITORY, env=environment(home), check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def until(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    last = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < last, "it did not come about"
        time.sleep(0.02)


def bodies_of(tables: Tables) -> list[dict[str, Any]]:
    """The latest refund requests of a folder, as a backend would send them."""
    rows = range(tables["refund_requests"].num_rows)[-200:]
    bodies = (request_of(tables, row) for row in rows)
    return [body for body in bodies if "orderId" in body["order"]]


@dataclass
class Backend:
    """A refund backend that asks without a pause until it is told to end."""

    service: Service
    bodies: list[dict[str, Any]]
    answers: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Backend:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="backend")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _ask(self) -> None:
        numbers = count()
        with httpx.Client(base_url=self.service.client.base_url, timeout=30) as client:
            while not self._ending.is_set():
                self._ask_one(client, next(numbers))
                time.sleep(0.1)  # leave something of the machine to the commands

    def _ask_one(self, client: httpx.Client, number: int) -> None:
        body = self.bodies[number % len(self.bodies)]
        body = {**body, "refund": {**body["refund"], "refundId": f"live-{number}"}}
        try:
            answer = client.post(
                "/v2/refund", params={"score": "refundRequest"}, json=body,
                headers=self.service.headers(),
            )  # fmt: skip
        except httpx.HTTPError as error:
            self.failures.append(repr(error))
            return
        if answer.status_code != 200:
            self.failures.append(answer.text)
        else:
            self.answers.append({"refundId": f"live-{number}", **answer.json()["data"]})

    @property
    def version(self) -> str | None:
        """The version that made the latest decision."""
        return self.answers[-1].get("modelVersion") if self.answers else None

    def asks_on(self, more: int = 20) -> None:
        """Wait for so many answers more."""
        goal = len(self.answers) + more
        until(lambda: len(self.answers) >= goal or bool(self.failures))


def workers(service: Service) -> set[int]:
    """The processes of a service."""
    return {child.pid for child in psutil.Process(service.process.pid).children(recursive=True)}


def logged(home: Path, event: str) -> list[dict[str, Any]]:
    """The entries of a kind in the service's log."""
    lines = (home / "service.log").read_text().splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [entry for entry in entries if entry.get("event") == event]


# --- the walk ------------------------------------------------------------------------------------


@dataclass
class Walk:
    """What came of the walk."""

    home: Path
    tables: Tables
    answers: list[dict[str, Any]]
    failures: list[str]
    records: dict[str, dict[str, Any]]
    printed: dict[str, str]
    processes: tuple[set[int], set[int]]

    def versions(self) -> list[str | None]:
        """Whose decisions followed whose."""
        return [version for version, _ in groupby(a.get("modelVersion") for a in self.answers)]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """The page from top to bottom, the service asked from its start to the end."""
    home = tmp_path_factory.mktemp("retraining")
    *start, _keys, serve = START
    assert serve == ".venv/bin/recourse serve --port 3000"
    printed = {command: run(command, home) for command in start}
    tables = read_folder(home / "world").tables
    bodies = bodies_of(tables)
    with Service(home) as service, Backend(service, bodies) as backend:
        before = workers(service)
        backend.asks_on()
        for command in (*TRAIN, SHADOW[0]):
            printed[command] = run(command, home)
            backend.asks_on()
        until(lambda: bool(logged(home, "model_taken_up")[1:]))
        backend.asks_on()
        for command in (SHADOW[1], *PROMOTE):
            printed[command] = run(command, home)
        until(lambda: backend.version == "2" or bool(backend.failures))
        backend.asks_on()
        *scores, rollback = BACK
        export = TRAIN[0]
        run(export, home)  # once more, now with decisions of the new champion
        for command in scores:
            printed[command] = run(command, home)
        features = ".venv/bin/recourse features --data var/export --out var/features.parquet"
        run(features, home)
        printed[rollback] = run(rollback, home)
        until(lambda: backend.version == "1" or bool(backend.failures))
        backend.asks_on()
        after = workers(service)
        backend.__exit__()
        records = {
            answer["refundId"]: service.client.get(
                f"/v2/decision/{answer['scoreId']}", headers=service.headers()
            ).json()["data"]["record"]
            for answer in backend.answers
        }
    yield Walk(home, tables, backend.answers, backend.failures, records, printed,
               (before, after))  # fmt: skip
    shutil.rmtree(home)


def test_no_request_failed_and_none_was_without_a_score(walk: Walk) -> None:
    assert walk.failures == []
    assert len(walk.answers) > 100
    assert not [answer for answer in walk.answers if answer["degraded"]]


def test_the_new_model_decides_from_one_decision_to_the_next_and_so_does_the_old_again(
    walk: Walk,
) -> None:
    assert walk.versions() == ["1", "2", "1"]
    for answer in walk.answers:
        assert walk.records[answer["refundId"]]["model_version"] == answer["modelVersion"]


def test_nothing_was_restarted(walk: Walk) -> None:
    before, after = walk.processes
    assert before == after
    took = [(e["role"], e["version"]) for e in logged(walk.home, "model_taken_up")]
    assert took == [("champion", "1"), ("challenger", "2"), ("champion", "2"), ("champion", "1")]
    assert logged(walk.home, "model_refused") == []


def test_the_gate_saw_a_better_model(walk: Walk) -> None:
    assert "version 2 is champion now, in place of 1" in walk.printed[PROMOTE[0]]
    assert "version 1 is champion now, in place of 2" in walk.printed[BACK[-1]]


def test_the_challenger_was_scored_in_the_shadow_and_never_acted_on(walk: Walk) -> None:
    shadowed = [record for record in walk.records.values() if "shadow" in record]
    assert shadowed
    assert {(r["model_version"], r["shadow"]["version"]) for r in shadowed} == {("1", "2")}
    assert all(record["shadow"]["problem"] is None for record in shadowed)
    assert any(r["shadow"]["probability"] != r["probability"] for r in shadowed)
    report = walk.printed[SHADOW[1]]
    assert re.match(r"challenger 2 beside champion 1 \(\d+\): \d+ of \d+ decisions scored", report)
    assert Home(walk.home).challenger_version() is None, "who became champion challenges no more"


def test_all_who_score_give_the_services_probabilities_to_the_last_bit(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service, `recourse score` and `evaluate`, MLflow's pyfunc, and the served directory."""
    import mlflow

    home = Home(walk.home)
    of = {name: pq.read_table(walk.home / f"{name}.parquet")
          for name in ("scores", "scores-before", "features")}  # fmt: skip
    ids = of["scores"]["refund_id"].to_pylist()
    assert all(table["refund_id"].to_pylist() == ids for table in of.values())

    mlflow.set_tracking_uri(home.tracking_uri)
    matrix = of["features"].drop(["refund_id", "known_at"]).to_pandas()
    pyfunc = {
        version: np.asarray(mlflow.pyfunc.load_model(f"models:/refund-abuse/{version}")
                            .predict(matrix))
        for version in "12"
    }  # fmt: skip
    scored = {name: of[name]["probability"].to_numpy() for name in of if name != "features"}
    assert (scored["scores"] == pyfunc["2"]).all()
    served = AbuseModel.load(home.model("2"))
    assert (served.predict(matrix[list(served.feature_names)].to_numpy()) == pyfunc["2"]).all()
    assert (scored["scores-before"] == pyfunc["1"]).all()
    evaluated = pq.read_table(walk.home / "evaluated.parquet").to_pydict()
    first = {refund_id: place for place, refund_id in reversed(list(enumerate(ids)))}
    of_labelled = [pyfunc["2"][first[refund_id]] for refund_id in evaluated["refund_id"]]
    assert len(of_labelled) > 100 and of_labelled == evaluated["probability"]
    assert (pyfunc["1"] != pyfunc["2"]).mean() > 0.9

    compared = {"1": 0, "2": 0}
    for place, refund_id in enumerate(ids):
        if refund_id in walk.records:
            record = walk.records[refund_id]
            version = record["model_version"]
            assert record["probability"] == pyfunc[version][place], refund_id
            if "shadow" in record:
                assert record["shadow"]["probability"] == pyfunc["2"][place], refund_id
            compared[version] += 1
    assert min(compared.values()) >= 20


# --- several workers, and a service that starts without a model ----------------------------------


def test_every_worker_of_a_service_without_a_model_takes_up_the_first(
    world: Path, trained: Path, tmp_path: Path
) -> None:
    bodies = bodies_of(read_folder(world).tables)
    home = Home(tmp_path)
    (version,) = {path.name for path in (trained / "model").iterdir() if path.is_dir()}
    with Service(tmp_path, workers=2) as service:
        with Backend(service, bodies) as backend:
            backend.asks_on()
            assert all(answer["degraded"] for answer in backend.answers)
            home.serve_model(trained / "model" / version, "1")
            until(lambda: len(logged(tmp_path, "model_taken_up")) == 2)
            backend.asks_on()
            seen = len(backend.answers)
            (tmp_path / "model" / "2").mkdir()
            home.serve_model(tmp_path / "model" / "2", "2")
            until(lambda: len(logged(tmp_path, "model_refused")) == 2)
            backend.asks_on()
        took = logged(tmp_path, "model_taken_up")
        assert len({entry["worker"] for entry in took}) == 2
        assert backend.failures == []
        for answer in backend.answers[seen:]:
            assert (answer["degraded"], answer["modelVersion"]) == (False, "1")
        for refusal in logged(tmp_path, "model_refused"):
            assert "it lacks booster.txt" in refusal["reason"]
            assert refusal["then"] == "version 1 stays"
