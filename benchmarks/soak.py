"""Whether the service stays as it is under hours of ordinary load, and outlives a rush.

``python -m benchmarks.soak [--seconds 600] [--share 0.6] [--spike-seconds 10] [--model-home HOME]
[--history HOME] [--store sqlite] [--workers 1]`` measures what the service can do of a mixture of
calls, sends `share` of that for the given time in an open loop (`benchmarks.openloop`), then ten
times as much for a moment, and measures again what it can do. Latencies count from when a request
was to leave. ``--history`` copies the sandbox of another home, so that there is a past to read; it
must have been made with ``--clock event``. Prints one JSON document. Exit code 1 when ordinary load
met an error, a refusal or a fallback, a rush anything but an answer or a refusal that says when to
come again (429 or 503 with ``Retry-After``), or less could be done after it than before.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import orjson

from benchmarks.faults import database_of
from benchmarks.load import closed_loop, http_request
from benchmarks.openloop import Shot, open_loop
from benchmarks.service import BenchmarkError, Recourse, Served, free_port, say
from features.money import DAY_MS

CAPACITY_SECONDS: Final = 8
CAPACITY_CLIENTS: Final = 8
UNDER_WAY: Final = 200
"""The latest so many requests may not be answered yet: nobody sends one again before it is."""

SPIKE: Final = 10
"""How many times the ordinary load a rush is."""

RECOVERED_AT_LEAST: Final = 0.85
"""What can be done after the rush, of what could before; the rest is how two measurements vary."""

CUSTOMERS: Final = 5_000

MIXTURE: Final = {
    "scored": 60, "outcome": 12, "order": 10, "return": 6, "replay": 5, "dispute": 3, "label": 3,
    "bad": 1,
}  # fmt: skip
"""How many of a hundred requests are of which kind."""

SCORED: Final = "/v2/refund?score=refundRequest"


class Mixture:
    """Endless requests of all kinds, about refunds that were asked for before."""

    def __init__(self, key: str, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._headers = {"Content-Type": "application/json", "Authorization": f"token {key}"}
        self._numbers = itertools.count()
        self._sent: list[tuple[str, str, bytes]] = []

    def __iter__(self) -> Iterator[Shot]:
        kinds, weights = list(MIXTURE), list(MIXTURE.values())
        while True:
            for kind in self._random.choices(kinds, weights, k=256):
                yield self._shot(kind if self._sent else "scored")

    def requests(self) -> Iterator[bytes]:
        """The same as bare requests, without those that are refused."""
        return (shot.request for shot in self if shot.kind != "bad")

    def _shot(self, kind: str) -> Shot:
        number, now = next(self._numbers), time.time_ns() // 10**6
        if kind == "scored":
            return self._scored(number, now)
        if kind == "replay":
            if len(self._sent) <= UNDER_WAY:
                return self._scored(number, now)
            return Shot(kind, self._random.choice(self._sent[-2_000:-UNDER_WAY])[2])
        refund_id, customer_id, _ = self._random.choice(self._sent[-2_000:])
        if kind == "bad":
            body = self._refund(number, now, customer_id)
            body["refund"]["amount"] = "10.00"
            return Shot(kind, self._post(SCORED, body), frozenset({400}))
        path, body = self._report(kind, number, now, refund_id, customer_id)
        return Shot(kind, self._post(path, body))

    def _scored(self, number: int, now: int) -> Shot:
        customer_id = f"soak-{self._random.randrange(CUSTOMERS)}"
        body = self._refund(number, now, customer_id)
        key = {"Idempotency-Key": f"k-{number}"} if number % 2 else {}
        request = self._post(SCORED, body, key)
        self._sent.append((body["refund"]["refundId"], customer_id, request))
        if len(self._sent) > 4_000:
            del self._sent[:2_000]
        return Shot("scored", request)

    def _refund(self, number: int, now: int, customer_id: str) -> dict[str, Any]:
        return {
            "timestamp": now,
            "customer": {"customerId": customer_id, "email": f"{customer_id}@example.com",
                         "registrationTime": now - 400 * DAY_MS},
            "order": {"orderId": f"o-{number}", "orderTime": now - 9 * DAY_MS,
                      "deliveredTime": now - 5 * DAY_MS, "price": 9_000, "currency": "GBP"},
            "refund": {"refundId": f"r-{number}", "status": "OPEN", "currency": "GBP",
                       "amount": self._random.randrange(500, 9_000), "type": "REFUND",
                       "refundReason": self._random.choice(["CHANGED_MIND", "ITEM_DAMAGED"]),
                       "items": [{"sku": "s", "quantity": 1, "refundReason": "CHANGED_MIND"}]},
            "device": {"deviceId": f"d-{customer_id}",
                       "ipAddress": f"203.0.113.{self._random.randrange(256)}"},
            "paymentMethods": [{"paymentMethodId": f"p-{customer_id}"}],
            "addresses": {"shipping": {"street": f"{customer_id} Street", "country": "GB"}},
        }  # fmt: skip

    def _report(
        self, kind: str, number: int, now: int, refund_id: str, customer_id: str
    ) -> tuple[str, dict[str, Any]]:
        who = {"timestamp": now, "customer": {"customerId": customer_id}}
        if kind == "outcome":
            return "/v2/refund", {**who, "refund": {"refundId": refund_id, "status": "COMPLETED"}}
        if kind == "order":
            order = {"orderId": f"o-new-{number}", "price": 5_000, "currency": "GBP"}
            paid = {"transactionId": f"t-{number}", "type": "CAPTURE", "amount": 5_000,
                    "currency": "GBP", "success": True}  # fmt: skip
            return "/v2/order", {**who, "order": order, "transactions": [paid]}
        if kind == "return":
            told = {"refundId": refund_id, "status": "RECEIVED", "returnId": f"x-{number}"}
            return "/v2/return", {"timestamp": now, "return": told}
        if kind == "dispute":
            told = {"disputeId": f"d-{number}", "stage": "CHARGEBACK"}
            return "/v2/dispute", {**who, "dispute": told}
        verdict = {"timestamp": now, "category": "REFUND_ABUSE", "refundId": refund_id,
                   "review": self._random.choice(["REFUND_ABUSE", "NOT_REFUND_ABUSE"])}  # fmt: skip
        return f"/v2/customer/{customer_id}/labels", verdict

    def _post(self, path: str, body: Any, more: Mapping[str, str] | None = None) -> bytes:
        return http_request(path, orjson.dumps(body), {**self._headers, **(more or {})})


@dataclass
class Samples:
    """What the service holds, looked at each second."""

    memory_bytes: list[int] = field(default_factory=list)
    wal_bytes: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """In MB, which are a million bytes."""
        memory, wal = self.memory_bytes or [0], self.wal_bytes or [0]
        return {
            "memory_mb_start": round(memory[0] / 1e6, 1),
            "memory_mb_end": round(memory[-1] / 1e6, 1),
            "memory_mb_most": round(max(memory) / 1e6, 1),
            "wal_mb_end": round(wal[-1] / 1e6, 1), "wal_mb_most": round(max(wal) / 1e6, 1),
        }  # fmt: skip


@contextmanager
def watched(served: Served, wal: Path) -> Iterator[Samples]:
    """Look at a service while the ``with`` block lasts."""
    samples, over = Samples(), threading.Event()

    def look() -> None:
        while True:
            samples.memory_bytes.append(served.memory_bytes())
            samples.wal_bytes.append(wal.stat().st_size if wal.exists() else 0)
            if over.wait(1):
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def capacity(port: int, mixture: Mixture, seconds: float) -> float:
    """Requests a second that the service answers to clients who wait for each answer."""
    load = closed_loop(port, mixture.requests(), CAPACITY_CLIENTS, seconds)
    if not load.ms or load.failed:
        raise BenchmarkError(f"{load.failed} of {load.failed + len(load.ms)} answers were not good")
    return len(load.ms) / load.seconds


def measure(
    served: Served, key: str, wal: Path, share: float, seconds: float, spike_seconds: float
) -> dict[str, Any]:
    """Everything, one after another, of a service that is ready."""
    mixture, port = Mixture(key), served.port
    say("warming up")
    capacity(port, mixture, CAPACITY_SECONDS / 4)
    before = capacity(port, mixture, CAPACITY_SECONDS)
    say(f"{before:.0f} requests/s can be done; {share:.0%} of that for {seconds:.0f} s")
    with watched(served, wal) as samples:
        soak = open_loop(port, iter(mixture), share * before, seconds)
    say(f"{SPIKE} times as much for {spike_seconds:.0f} s")
    with watched(served, wal) as rush:
        spike = open_loop(port, iter(mixture), SPIKE * share * before, spike_seconds, 512, seed=1)
    after = capacity(port, mixture, CAPACITY_SECONDS)
    return {
        "capacity_per_second": {"before": round(before, 1), "after": round(after, 1),
                                "recovered": round(after / before, 2)},
        "soak": {**soak.to_json(), **samples.to_json(), "errors": soak.errors},
        "spike": {**spike.to_json(), **rush.to_json(), "errors": spike.errors},
    }  # fmt: skip


def is_sound(report: Mapping[str, Any]) -> bool:
    """Whether all that must hold did."""
    soak, spike = report["soak"], report["spike"]
    return (
        not soak["errors"]
        and not soak["refused"]
        and not soak["degraded"]
        and not spike["errors"]
        and report["capacity_per_second"]["recovered"] >= RECOVERED_AT_LEAST
    )


def run(
    folder: Path, *, share: float, seconds: float, spike_seconds: float, store: str = "sqlite",
    workers: int = 1, model_home: Path | None = None, history: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Serve from ``folder`` and measure; raises BenchmarkError where it cannot be."""
    folder.mkdir(parents=True, exist_ok=True)
    if history is not None:
        if store != "sqlite":
            raise BenchmarkError("--history: expected --store sqlite, as it is a file")
        shutil.copy2(history / "secret", folder / "secret")
        shutil.copy2(history / "sandbox.db", folder / "sandbox.db")
    with database_of(store, folder) as (url, _):
        recourse = Recourse(folder, more={"RECOURSE_SANDBOX_DATABASE_URL": url})
        recourse.obtain_model(model_home)
        key = recourse.create_key("score", "report")
        served = recourse.start(free_port(), workers)
        try:
            served.wait()
            wal = folder / "sandbox.db-wal"
            found = measure(served, key, wal, share, seconds, spike_seconds)
        finally:
            served.stop()
    return {"store": store, "workers": workers, "share": share, **found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--share", type=float, default=0.6, help="of what the service can do")
    parser.add_argument("--spike-seconds", type=float, default=10)
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--model-home", type=Path, help="serve the model that this home serves")
    parser.add_argument("--history", type=Path, help="begin with a copy of this home's sandbox")
    given = vars(parser.parse_args(arguments))
    try:
        with TemporaryDirectory(prefix="recourse-soak-") as place:
            report = run(Path(place) / "home", **given)
    except (BenchmarkError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(report, indent=2))
    return 0 if is_sound(report) else 1


if __name__ == "__main__":
    sys.exit(main())
