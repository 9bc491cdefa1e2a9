"""Refund backends that remember what they were answered, and ask again where they were not."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from features.money import DAY_MS

AMOUNT_MINOR: Final = 1_000
CUSTOMERS: Final = 6
"""So few that several clients ask about one of them at once."""

SCORED: Final = "/v2/refund?score=refundRequest"
PATIENCE_SECONDS: Final = 90
"""How long a client asks again until it is answered."""

_COME_AGAIN: Final = frozenset({409, 429, 503})


@dataclass
class Sent:
    """A request, and what it was answered: None while that is not known."""

    path: str
    refund_id: str
    customer_id: str
    body: bytes
    key: str | None = None
    score_id: str | None = None
    action: str | None = None
    is_known: bool = False

    @property
    def is_scored(self) -> bool:
        """Whether it asked for a decision."""
        return self.path == SCORED


@dataclass
class Ledger:
    """What was sent, by what it was; shared by the clients of a run."""

    scored: dict[str, Sent] = field(default_factory=dict)
    outcomes: dict[str, Sent] = field(default_factory=dict)
    unsure: list[Sent] = field(default_factory=list)
    replayed: int = 0
    told_otherwise: list[str] = field(default_factory=list)
    """Refunds whose decision was another when it was asked for again."""
    refused: list[str] = field(default_factory=list)
    """Answers that no client should have got."""
    broken: int = 0
    """Requests that got no answer, or were told to come again."""

    @property
    def acknowledged(self) -> int:
        """How many decisions were answered."""
        # Clients add to it meanwhile.
        return sum(one.is_known for one in list(self.scored.values()))


class Backend:
    """One client: a connection, and the requests it makes up."""

    def __init__(self, port: int, key: str, ledger: Ledger, label: str, seed: int) -> None:
        self._port, self._key, self._ledger, self._label = port, key, ledger, label
        self._random = random.Random(seed)
        self._number = 0
        self._connection: http.client.HTTPConnection | None = None
        self.pending: Sent | None = None
        """What was sent last, if it is not answered."""

    def step(self) -> bool:
        """Send what is not answered again, or else a request of a kind drawn by chance."""
        one = self.pending or self._drawn()
        is_answered = self.send(one)
        self.pending = None if is_answered else one
        return is_answered

    def _drawn(self) -> Sent:
        draw, known = self._random.random(), self._answered()
        if draw < 0.15 and known:
            return self._random.choice(known)
        if draw < 0.35 and known:
            return self._outcome(self._random.choice(known))
        return self._refund()

    def _answered(self) -> list[Sent]:
        return [one for one in list(self._ledger.scored.values())
                if one.is_known and one.refund_id.startswith(self._label)]  # fmt: skip

    def _refund(self) -> Sent:
        self._number += 1
        refund_id = f"{self._label}-{self._number}"
        # A run's part of the label, so that the clients share their customers.
        customer_id = f"{self._label.rpartition('-')[0]}-{self._random.randrange(CUSTOMERS)}"
        now = time.time_ns() // 10**6
        body = {
            "timestamp": now, "customer": {"customerId": customer_id},
            "order": {"orderId": f"o-{refund_id}", "orderTime": now - 9 * DAY_MS,
                      "deliveredTime": now - 5 * DAY_MS, "price": 9_000, "currency": "GBP"},
            "refund": {"refundId": refund_id, "status": "OPEN", "amount": AMOUNT_MINOR,
                       "currency": "GBP", "refundReason": "CHANGED_MIND"},
            "device": {"deviceId": f"d-{customer_id}", "ipAddress": "203.0.113.7"},
        }  # fmt: skip
        key = f"k-{refund_id}" if self._number % 2 else None
        one = Sent(SCORED, refund_id, customer_id, orjson.dumps(body), key)
        self._ledger.scored[refund_id] = one
        return one

    def _outcome(self, of: Sent) -> Sent:
        told = self._ledger.outcomes.get(of.refund_id)
        if told is None:
            body = {"timestamp": time.time_ns() // 10**6,
                    "refund": {"refundId": of.refund_id, "status": "COMPLETED"}}  # fmt: skip
            told = Sent("/v2/refund", of.refund_id, of.customer_id, orjson.dumps(body))
            self._ledger.outcomes[of.refund_id] = told
        return told

    def send(self, one: Sent) -> bool:
        """Send a request, once; whether it was answered."""
        try:
            status, replayed, body = self._ask(one)
        except (OSError, http.client.HTTPException):
            self._connection = None
            status, replayed, body = 503, False, b""
        if status in _COME_AGAIN:
            self._ledger.broken += 1
            return False
        if status != 200:
            self._ledger.refused.append(f"{one.path} {one.refund_id}: {status} {body[:200]!r}")
            return True
        if one.is_scored:
            self._take(one, orjson.loads(body)["data"], replayed=replayed)
        one.is_known = True
        return True

    def _take(self, one: Sent, data: Any, *, replayed: bool) -> None:
        ledger = self._ledger
        ledger.replayed += replayed
        if one.score_id not in (None, data["scoreId"]):
            ledger.told_otherwise.append(one.refund_id)
        one.score_id, one.action = data["scoreId"], data["action"]

    def _ask(self, one: Sent) -> tuple[int, bool, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        headers = {"Content-Type": "application/json", "Authorization": f"token {self._key}"}
        if one.key is not None:
            headers["Idempotency-Key"] = one.key
        self._connection.request("POST", one.path, one.body, headers)
        response = self._connection.getresponse()
        replayed = response.getheader("Idempotent-Replayed") == "true"
        return response.status, replayed, response.read()


@contextmanager
def clients(port: int, key: str, ledger: Ledger, run: str, count: int) -> Iterator[None]:
    """Keep ``count`` clients busy while the ``with`` block lasts."""
    over = threading.Event()

    def work(number: int) -> None:
        backend = Backend(port, key, ledger, f"{run}-{number}", seed=number)
        while not over.is_set():
            if not backend.step():
                over.wait(0.02)
        if backend.pending is not None:
            ledger.unsure.append(backend.pending)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def settle(port: int, key: str, ledger: Ledger, fail: Callable[[str], Exception]) -> None:
    """Ask again, as a backend does, until everything that was sent is answered."""
    backend = Backend(port, key, ledger, "again", seed=0)
    until = time.monotonic() + PATIENCE_SECONDS
    while ledger.unsure:
        ledger.unsure = [one for one in ledger.unsure if not backend.send(one)]
        if ledger.unsure:
            if time.monotonic() > until:
                raise fail(f"{len(ledger.unsure)} requests are not answered")
            time.sleep(0.1)
