"""The gate before every call: who asks too much is turned away before anything is read or queued.

What it costs to refuse is a hash and a few look-ups on the event loop, a hundredth of a decision:
a flood is answered with 429 and 503 while the service decides at its capacity. Nothing is let in
here; whether a key is in force is asked of the store, by `serving.api.Api.admit`.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.envelope import ApiError
from serving.limits import Limits, Turns, whole_seconds

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ADMITTED: Final = "recourse.key"
"""Where a request's scope has a list of what became of its key: its id, None if not in force."""

CALLS: Final = "/v2/"

HOLD_SECONDS: Final = 0.25
"""A refusal is held so long: who asks again at once, whatever `Retry-After` says, asks four times a
second on each connection, and not a thousand times. Waiting costs nothing, HTTP a tenth of a ms."""

MOST_HELD: Final = 2_000
"""So many refusals are held at a time; further ones go out at once."""

log = structlog.get_logger()


class Guarded(Protocol):
    """What stands behind a gate."""

    @property
    def limits(self) -> Limits:
        """The limits of this worker."""

    @property
    def turns(self) -> Turns:
        """Who waits for a decision."""


class Gate:
    """An ASGI application around another; raises `ApiError` for what is turned away.

    ``proxies`` are the networks whose word is taken for whom they ask for (``X-Forwarded-For``),
    and ``clock`` gives seconds that do not go back.
    """

    def __init__(
        self, app: ASGIApp, current: Callable[[], Guarded], proxies: Sequence[Network] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._app, self._current, self._proxies, self._clock = app, current, proxies, clock
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        key = _key(scope) if scope["type"] == "http" and scope["path"].startswith(CALLS) else None
        if key is None:
            await self._app(scope, receive, send)
            return
        behind = self._current()
        limits, name = behind.limits, hashlib.sha256(key).digest()
        try:
            self._enter(behind, name, scope)
        except ApiError:
            await self._hold()
            raise
        admitted: list[str | None] = []
        scope[ADMITTED] = admitted  # a list, which whoever copies the scope shares
        try:
            await self._app(scope, receive, send)
        finally:
            limits.leave(name)
            if admitted:
                self._learn(limits, name, scope, in_force=admitted[-1] is not None)

    def _enter(self, behind: Guarded, name: bytes, scope: Scope) -> None:
        limits = behind.limits
        if limits.is_known(name):
            self._admit(limits, name)
        else:
            self._stop_guessing(limits, address_of(scope, self._proxies))
        now = self._clock()
        if behind.turns.is_full(now):
            raise busy(503, "too many requests wait for their decision")
        if not limits.enter(name, behind.turns.waited(now)):
            raise busy(429, "too many requests of this API key wait for their answers")

    async def _hold(self) -> None:
        if self._held < MOST_HELD:
            self._held += 1
            try:
                await asyncio.sleep(HOLD_SECONDS)
            finally:
                self._held -= 1

    def _admit(self, limits: Limits, name: bytes) -> None:
        wait = limits.admit(name, self._clock())
        if wait is not None:
            raise ApiError(
                429, f"this API key asks more than {limits.rate:g} times a second",
                headers={"Retry-After": whole_seconds(wait)},
            )  # fmt: skip

    def _stop_guessing(self, limits: Limits, address: str) -> None:
        wait = limits.blocked(address, self._clock())
        if wait is not None:
            raise ApiError(
                429, "Authorization: too many unknown keys came from this address",
                headers={"Retry-After": whole_seconds(wait)},
            )  # fmt: skip

    def _learn(self, limits: Limits, name: bytes, scope: Scope, *, in_force: bool) -> None:
        limits.learn(name, in_force=in_force)
        if not in_force:
            address = address_of(scope, self._proxies)
            if limits.failed(address, self._clock()):
                log.warning(
                    "unknown_keys", address=address, more_than=limits.failures, per="minute"
                )


def address_of(scope: Scope, proxies: Sequence[Network]) -> str:
    """Who asks: the peer, or whom a trusted proxy says it asks for; IPv6 as its /64."""
    client = scope.get("client")
    address: str = client[0] if client else ""
    if proxies and _is_one_of(address, proxies):
        told = [value.decode("latin-1") for name, value in scope["headers"]
                if name == b"x-forwarded-for"]  # fmt: skip
        # From the right: what stands further left was written by whoever wanted to.
        for hop in reversed(",".join(told).split(",")):
            if _ip(hop) is None:
                break
            address = hop.strip()
            if not _is_one_of(address, proxies):
                break
    ip = _ip(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return address


def is_asked_securely(scope: Scope, proxies: Sequence[Network]) -> bool:
    """Whether somebody asks over https: to us, or to a proxy that is trusted."""
    client = scope.get("client")
    if client and _is_one_of(client[0], proxies):
        told = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
        if told:
            return bool(told[-1].strip().lower() == b"https")
    return bool(scope.get("scheme") == "https")


def _is_one_of(address: str, proxies: Sequence[Network]) -> bool:
    ip = _ip(address)
    return ip is not None and any(ip in network for network in proxies)


def busy(status: int, why: str) -> ApiError:
    """The refusal of what could be done a second later."""
    return ApiError(status, f"{why}: ask again in a second", headers={"Retry-After": "1"})


def _key(scope: Scope) -> bytes | None:
    """The key that a request bears, None without one."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            _, _, key = value.partition(b" ")
            return key.strip() or None
    return None


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip())
    except ValueError:
        return None
