"""What is left of a service that is killed under load, again and again: all that it acknowledged.

``python -m benchmarks.faults [--kills 200] [--store both] [--seed 1] [--model-home HOME]`` serves
with two workers over a store of each kind, lets clients ask, report and ask again, and kills at
random moments: a worker, the process that watches over the workers, all of them at once, or, with
PostgreSQL, the database's own server; now and then the service is stopped in good order instead.
What was not answered is sent again afterwards, as a backend would, and then the store is read by
plain SQL (`benchmarks.witness`) and its audit chain vouched for; in the end the features of every
decision are computed anew from what it had read. Prints one JSON document. Exit code 1 when
anything acknowledged was lost, anything counted twice, a decision saw too much or too little, or
the chain broke.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import orjson

from benchmarks import postgresql
from benchmarks.service import BenchmarkError, Recourse, Served, free_port, say
from benchmarks.traffic import Ledger, clients, settle
from benchmarks.witness import Findings, examine
from features.money import Rates
from serving.heads import HeadFile
from serving.monitor import skew
from serving.store.store import Store
from serving.vouching import vouch

WORKERS: Final = 2
CLIENTS: Final = 4
LOAD_SECONDS: Final = (0.1, 0.6)
"""How long the clients ask before a kill, from and to, once each has been answered twice."""

AFTER_SECONDS: Final = 0.2
"""And after one that the service is to live through."""

SKEWED: Final = ("mismatched", "missing", "extra")
"""What must not become of a decision that is computed anew; late visible it may well be."""

SETTINGS: Final = {
    "RECOURSE_DEADLINE_MS": "10000",  # a slow machine is no fault
    "RECOURSE_RATE_LIMIT_PER_SECOND": "0",
    "RECOURSE_WEBHOOK_ALLOW_PRIVATE": "true",
}

DELIVERY_SECONDS: Final = 60
"""How long webhooks may still come in the end: a killed sender's lease has to run out."""

KINDS: Final = {"worker": 8, "service": 6, "supervisor": 3, "stop": 1, "database": 4}
"""How often each kind of end comes; the last with PostgreSQL only."""


def drawn(store: str, kills: int, seed: int) -> list[str]:
    """The ends that a service over a kind of store is to come to.

    >>> set(drawn("sqlite", 100, seed=1)) == KINDS.keys() - {"database"}
    True
    """
    kinds = [kind for kind in KINDS if kind != "database" or store == "postgresql"]
    return random.Random(seed).choices(kinds, [KINDS[kind] for kind in kinds], k=kills)


class Receiver:
    """An endpoint of webhooks that counts which decisions it was told of."""

    def __init__(self) -> None:
        told: Counter[str] = Counter()

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # a refused connection would be tried again much later

            def handle_error(self, *_: Any) -> None:
                pass  # a sender was killed

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                told[orjson.loads(body)["data"]["scoreId"]] += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.told = told
        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Report:
    """What a run over one store came to."""

    store: str
    kills: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)
    ledger: Ledger = field(default_factory=Ledger)
    chain_invalid: int = 0
    undelivered: int = 0
    delivered_again: int = 0
    skew: dict[str, int] = field(default_factory=dict)
    """Decisions by what came of computing their features anew, from what each had read."""
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether all that must hold did."""
        ledger, skewed = self.ledger, sum(self.skew.get(name, 0) for name in SKEWED)
        return self.findings.sound and not (
            self.chain_invalid
            or self.undelivered
            or ledger.told_otherwise
            or ledger.refused
            or skewed
        )

    def to_json(self) -> dict[str, Any]:
        """One document."""
        ledger = self.ledger
        return {
            "store": self.store, "kills": sum(self.kills.values()), "by_kind": dict(self.kills),
            "acknowledged": ledger.acknowledged, "outcomes": len(ledger.outcomes),
            "replayed": ledger.replayed, "broken_off": ledger.broken, **asdict(self.findings),
            "answered_otherwise": len(ledger.told_otherwise), "refused": ledger.refused[:10],
            "chain_invalid": self.chain_invalid, "undelivered": self.undelivered,
            "delivered_again": self.delivered_again, "skew": self.skew,
            "seconds": round(self.seconds, 1),
        }  # fmt: skip


class Victim:
    """A service over one store, and what ends it or a part of it."""

    def __init__(
        self, recourse: Recourse, url: str, database: postgresql.Server | None, workers: int
    ) -> None:
        self._recourse, self._database, self._workers = recourse, database, workers
        self.url, self.port = url, free_port()
        self.served = self._start()

    def _start(self) -> Served:
        served = self._recourse.start(self.port, self._workers)
        served.wait()
        return served

    def secret(self) -> bytes:
        """The secret of the service's home."""
        return self._recourse.settings().secret_bytes()

    def head(self) -> Path:
        """Where the head of the sandbox's audit chain is."""
        return self._recourse.settings().audit_head("sandbox")

    def end(self, kind: str) -> str:
        """End something; returns what it was."""
        workers = self.served.workers()
        if kind == "worker" and len(workers) < self._workers:
            kind = "service"  # the one before has not come back yet
        if kind == "worker":
            workers[-1].kill()
        elif kind == "database" and self._database:
            self._database.restart()
        elif kind == "supervisor":
            self.served.process.kill()
            self.served.process.wait()
            for worker in workers:  # they see that they are alone
                worker.wait(30)
        elif kind == "stop":
            self.served.stop()
        else:
            self.served.kill()
        return kind

    def come_back(self) -> None:
        """Be ready again, whatever there was of an end."""
        if self.served.process.poll() is None:
            self.served.wait()
        else:
            self.served = self._start()


def torment(victim: Victim, report: Report, key: str, ends: Sequence[str]) -> None:
    """Load, end, bring back, settle and examine, so many times."""
    draw, ledger = random.Random(len(ends)), report.ledger
    started = time.monotonic()
    for number, wanted in enumerate(ends):
        run = f"f{number}"
        with clients(victim.port, key, ledger, run, CLIENTS):
            enough = ledger.acknowledged + 2 * CLIENTS
            # Before its first head is out an audit log has nothing to be held to.
            while ledger.acknowledged < enough or not victim.head().exists():
                time.sleep(0.02)
            time.sleep(draw.uniform(*LOAD_SECONDS))
            kind = victim.end(wanted)
            if kind in ("worker", "database"):
                time.sleep(AFTER_SECONDS)
        victim.come_back()
        report.kills[kind] += 1
        settle(victim.port, key, ledger, BenchmarkError)
        report.findings += examine(victim.url, run, ledger, announced=True)
        report.chain_invalid += not is_valid(victim)
        if number % 10 == 9:
            taken = time.monotonic() - started
            say(
                f"{report.store}: {number + 1} ends in {taken:.0f} s, {ledger.acknowledged} answers"
            )
    report.seconds = time.monotonic() - started


def is_valid(victim: Victim) -> bool:
    """Whether the audit chain of the sandbox, as it is now, holds to its exported head."""
    secret, findings = victim.secret(), list[Any]()
    store = Store.open(victim.url, secret, create=False)
    try:
        vouch(store, secret, HeadFile(victim.head()).read(), findings.append)
    finally:
        store.close()
    for finding in findings[:3]:
        say(f"audit: {finding}")
    return not findings


def skew_of(victim: Victim) -> dict[str, int]:
    """Compute the features of every decision anew, from what its read had seen."""
    store = Store.open(victim.url, victim.secret(), create=False)
    try:
        return dict(skew(store, Rates.of("GBP", store.fx_rates())).counts)
    finally:
        store.close()


def await_delivery(report: Report, receiver: Receiver) -> None:
    """Wait until every acknowledged decision was told of, at least once."""
    wanted = {one.score_id for one in report.ledger.scored.values() if one.is_known}
    until = time.monotonic() + DELIVERY_SECONDS
    while wanted - receiver.told.keys() and time.monotonic() < until:
        time.sleep(0.5)
    report.undelivered = len(wanted - receiver.told.keys())
    report.delivered_again = sum(count > 1 for count in receiver.told.values())


@contextmanager
def database_of(kind: str, folder: Path) -> Iterator[tuple[str, postgresql.Server | None]]:
    """The url of a new database, and the server if it has one of its own."""
    if kind == "sqlite":
        yield f"sqlite:///{(folder / 'sandbox.db').absolute()}", None
        return
    with (
        TemporaryDirectory(prefix="recourse-") as place,
        postgresql.running(Path(place) / "data") as server,
    ):
        yield server(), server


def run(
    kind: str, ends: Sequence[str], folder: Path, model_home: Path | None = None,
    workers: int = WORKERS,
) -> Report:  # fmt: skip
    """Let a service over one kind of store come to these `KINDS` of ends, one after another.

    ``folder`` becomes its home; it serves the model of ``model_home``, or one trained on the
    sample. Raises BenchmarkError where it cannot be served, or does not come back.
    """
    report, receiver = Report(kind), Receiver()
    folder.mkdir(parents=True, exist_ok=True)
    with database_of(kind, folder) as (url, server):
        recourse = Recourse(folder, "ingest", {**SETTINGS, "RECOURSE_SANDBOX_DATABASE_URL": url})
        recourse.obtain_model(model_home)
        store, now = Store.open(url, recourse.settings().secret_bytes()), time.time_ns() // 10**6
        with store.database.write() as connection:
            store.outbox.add(connection, receiver.url, ["refund.decided"], now)
        key = store.keys.create("test", ["score", "report"], now)
        store.close()
        victim = Victim(recourse, url, server, workers)
        try:
            torment(victim, report, key, ends)
            await_delivery(report, receiver)
            report.skew = skew_of(victim)
        finally:
            if victim.served.process.poll() is None:
                victim.served.stop()
            receiver.close()
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="on each store")
    parser.add_argument("--store", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model-home", type=Path, help="serve the model that this home serves")
    given = parser.parse_args(arguments)
    kinds = ["sqlite", "postgresql"] if given.store == "both" else [given.store]
    try:
        with TemporaryDirectory(prefix="recourse-faults-") as place:
            reports = [run(kind, drawn(kind, given.kills, given.seed), Path(place) / kind,
                           given.model_home) for kind in kinds]  # fmt: skip
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({report.store: report.to_json() for report in reports}, indent=2))
    return 0 if all(report.sound for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
