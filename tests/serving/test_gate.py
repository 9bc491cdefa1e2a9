"""Who asks too much is turned away before anything is read, and nobody else is."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving import gate
from serving.api import Api, create_app
from serving.desk import Desk
from serving.envelope import ApiError
from serving.gate import ADMITTED, Gate
from serving.limits import FEW, LONGEST_WAIT_SECONDS, MOST_REMEMBERED, Buckets, Limits, Turns
from tests.serving.test_desk import NOW, open_desk, url

__all__ = ["open_desk", "url"]  # fixtures


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "HOLD_SECONDS", 0)


PROXY = ipaddress.ip_network("10.0.0.0/8")


@dataclass
class Behind:
    """A service that knows some keys, behind a gate, asked at a time of the test's choosing."""

    limits: Limits
    keys: set[str] = field(default_factory=lambda: {"good"})
    now: float = 0.0
    answered: int = 0
    holds: asyncio.Event | None = None

    def __post_init__(self) -> None:
        self.turns = Turns(self.limits.waiting, LONGEST_WAIT_SECONDS)
        self.gate = Gate(self._app, lambda: self, [PROXY], lambda: self.now)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        key = dict(scope["headers"])[b"authorization"].decode().split()[-1]
        # As a HEAD request is answered: from a copy of the scope.
        {**scope}[ADMITTED].append("key_1" if key in self.keys else None)
        self.answered += 1
        if self.holds is not None:
            await self.holds.wait()

    def scope(self, key: str, address: str = "192.0.2.1", via: str | None = None) -> Any:
        headers = [(b"authorization", f"token {key}".encode())]
        if via is not None:
            headers.append((b"x-forwarded-for", via.encode()))
        return {"type": "http", "path": "/v2/refund", "headers": headers, "client": (address, 1)}

    async def asked(self, *of: Any, **more: Any) -> tuple[int, str] | None:
        """The refusal, with when to ask again; None for what was let through."""
        try:
            await self.gate(self.scope(*of, **more), None, None)  # type: ignore[arg-type]
        except ApiError as refusal:
            return refusal.status, refusal.headers["Retry-After"]
        return None

    def ask(self, *of: Any, **more: Any) -> tuple[int, str] | None:
        return asyncio.run(self.asked(*of, **more))


def test_a_key_is_refused_beyond_its_rate_and_no_other_key_is() -> None:
    behind = Behind(Limits(rate=1, burst=3), {"good", "other"})
    assert [behind.ask("good") for _ in range(6)] == [None] * 4 + [(429, "1")] * 2
    assert behind.ask("other") is None
    behind.now = 1.0
    assert [behind.ask("good") for _ in range(2)] == [None, (429, "1")]
    assert behind.answered == 6, "what was refused reached nobody"


def test_an_address_that_guesses_keys_is_refused_and_those_who_know_one_are_not() -> None:
    behind = Behind(Limits(failures=3))
    assert behind.ask("good") is None
    assert [behind.ask(f"guess-{i}") for i in range(5)] == [None] * 3 + [(429, "20")] * 2
    assert behind.answered == 4
    assert behind.ask("good") is None, "the same address, with a key that is known"
    assert behind.ask("guess-9", "192.0.2.2") is None, "another address"
    behind.now = 20.0
    assert [behind.ask("guess-6") for _ in range(2)] == [None, (429, "20")]


def test_a_key_that_ends_is_counted_as_unknown_from_then_on() -> None:
    behind = Behind(Limits(failures=2))
    assert behind.ask("good") is None
    behind.keys.clear()
    assert [behind.ask("good") for _ in range(3)] == [None, None, (429, "30")]


@pytest.mark.parametrize(
    ("peer", "via", "blocks_as"),
    [
        ("192.0.2.1", "192.0.2.9", "192.0.2.1"),  # nobody's proxy: its word is not taken
        ("10.0.0.1", "192.0.2.9", "192.0.2.9"),
        ("10.0.0.1", "203.0.113.1, 192.0.2.9", "192.0.2.9"),  # the left one is made up
        ("10.0.0.1", "192.0.2.9, 10.0.0.2", "192.0.2.9"),
        ("10.0.0.1", "what, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("2001:db8::1", None, "2001:db8::/64"),
    ],
)
def test_an_address_is_the_peer_or_whom_a_trusted_proxy_names(
    peer: str, via: str | None, blocks_as: str
) -> None:
    behind = Behind(Limits(failures=1))
    assert behind.ask("guess", peer, via=via) is None
    assert behind.limits.blocked(blocks_as, 0.0) == 60.0


def test_what_a_flood_of_names_leaves_in_memory_is_bounded() -> None:
    buckets, limits = Buckets(1, 1), Limits(failures=1)
    for number in range(MOST_REMEMBERED * 2 + 1):
        buckets.take(number, 0.0)
        limits.learn(number, in_force=True)
    assert len(buckets) <= MOST_REMEMBERED
    assert not limits.is_known(0)
    assert limits.is_known(MOST_REMEMBERED * 2)
    assert buckets.wait(MOST_REMEMBERED * 2, 0.0) == 1.0, "the latest is remembered"


def test_a_key_that_floods_leaves_room_for_others() -> None:
    async def flood() -> None:
        behind = Behind(Limits(waiting=8), {"good", "other"})
        await behind.asked("good")
        behind.holds = asyncio.Event()
        every = [asyncio.ensure_future(behind.asked("good")) for _ in range(9)]
        await asyncio.sleep(0)
        assert await behind.asked("good") == (429, "1")
        other = asyncio.ensure_future(behind.asked("other"))
        await asyncio.sleep(0)
        behind.holds.set()
        assert await asyncio.gather(other, *every) == [None, *[None] * 6, *[(429, "1")] * 3]

    asyncio.run(flood())


def test_where_a_decision_takes_long_a_flood_is_refused_first_then_everybody() -> None:
    async def flood() -> None:
        behind = Behind(Limits(waiting=100), {"good", "other"})
        for key in ("good", "other"):
            await behind.asked(key)
        behind.holds = asyncio.Event()
        every = [asyncio.ensure_future(behind.asked("good")) for _ in range(FEW + 1)]
        await asyncio.sleep(0)
        tickets = [behind.turns.enter(behind.now) for _ in every]
        behind.now = LONGEST_WAIT_SECONDS
        assert await behind.asked("good") == (429, "1")
        every.append(asyncio.ensure_future(behind.asked("other")))
        await asyncio.sleep(0)
        behind.now += 0.1
        assert await behind.asked("other") == (503, "1")
        behind.turns.leave(tickets.pop())
        every.append(asyncio.ensure_future(behind.asked("other")))
        await asyncio.sleep(0)
        behind.holds.set()
        assert await asyncio.gather(*every) == [None] * (FEW + 3)

    asyncio.run(flood())


@pytest.fixture
def new_api() -> Iterator[Callable[..., Api]]:
    """Gives the API over a desk, with limits of its own; it is closed in the end."""
    made: list[Api] = []

    def make(desk: Desk, limits: Limits | None = None) -> Api:
        made.append(Api({"live": desk, "test": desk}, 1024, limits=limits))
        return made[-1]

    yield make
    for api in made:
        api.close()


def test_the_service_refuses_in_the_one_envelope_before_it_reads(
    open_desk: Any, new_api: Any
) -> None:
    desk = open_desk()
    api = new_api(desk, Limits(rate=1, burst=1, failures=1))
    http = TestClient(create_app(lambda: api))
    key = desk.store.keys.create("live", ["report"], NOW)

    def get(key: str) -> Any:
        return http.get("/v2/refund/r", headers={"Authorization": f"Bearer {key}"})

    assert [get(key).status_code for _ in range(3)] == [404, 404, 429]
    refusal = get(key)
    assert refusal.headers["Retry-After"] == "1"
    assert refusal.json() == {
        "status": 429, "message": "this API key asks more than 1 times a second"
    }  # fmt: skip
    assert [get("sk_live_guess").status_code for _ in range(2)] == [401, 429]
    full = TestClient(create_app(lambda: new_api(desk, Limits(waiting=0))))
    answer = full.get("/v2/refund/r", headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_a_key_ends_at_its_time(open_desk: Any, new_api: Any) -> None:
    desk = open_desk()
    api = new_api(desk)
    http = TestClient(create_app(lambda: api))
    key = desk.store.keys.create("live", ["report"], 1, expires_at=2)
    answer = http.get("/v2/refund/r", headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/v2/refund/r", "/nowhere"])
def test_every_answer_bars_browsers_from_what_it_is_not_for(
    open_desk: Any, new_api: Any, path: str
) -> None:
    desk = open_desk()
    api = new_api(desk)
    headers = TestClient(create_app(lambda: api)).get(path).headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "script-src" not in headers["Content-Security-Policy"]
    assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")
    assert headers["Cache-Control"] == "no-store"
    assert len(headers["X-Request-Id"]) == 32
