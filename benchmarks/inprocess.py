"""The whole application in this process, over a real store: asked without a socket.

One event loop for all requests of a test: what a request costs is what the application does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import orjson

from serving import policies
from serving.api import Api, create_app
from serving.desk import Desk
from serving.limits import Limits

NOW: Final = 1_780_000_000_000
SCOPES: Final = ("score", "report", "review", "admin")

T = TypeVar("T")


@dataclass(frozen=True)
class Answered:
    """An answer; ``headers`` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read."""
        return orjson.loads(self.body)


class InProcess:
    """An application over one desk, which is live and sandbox at once, and a key that may all."""

    def __init__(self, desk: Desk, policy: str, **settings: Any) -> None:
        policies.ensure_first(desk.store, policy, 1)
        # As many at once as a test likes; a test of the limits gives its own.
        limits = settings.pop("limits", Limits(rate=0, failures=0))
        self.desk = desk
        self.api = Api({"live": desk, "test": desk}, 64 * 1024, limits=limits, **settings)
        self.app = create_app(lambda: self.api)
        self.key = desk.store.keys.create("test", SCOPES, NOW, name="ann")

    async def __call__(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None, key: str | None = None,
    ) -> Answered:  # fmt: skip
        """Ask with a JSON body; ``headers`` replace the usual ones, ``key`` is ours if none."""
        content = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        given = {"authorization": f"token {key or self.key}", "content-type": "application/json",
                 **{name.lower(): value for name, value in (headers or {}).items()}}  # fmt: skip
        sent = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
        return await self.send(method, path, content, urlencode(query or {}).encode(), sent)

    async def send(
        self, method: str, path: str, body: bytes, query: bytes,
        headers: Iterable[tuple[bytes, bytes]],
    ) -> Answered:  # fmt: skip
        """Send a request as it stands."""
        sent: list[Any] = []
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            # Whoever has been sent stays until the answer is there.
            return waiting.pop() if waiting else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "root_path": "",
                 "raw_path": quote(path).encode(), "scheme": "http", "http_version": "1.1",
                 "query_string": query, "client": ("192.0.2.1", 1), "server": ("127.0.0.1", 80),
                 "headers": [*headers]}  # fmt: skip
        await self.app(scope, receive, send)
        told = {name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in sent[0]["headers"]}  # fmt: skip
        return Answered(sent[0]["status"], told, b"".join(m.get("body", b"") for m in sent[1:]))

    def close(self) -> None:
        """End its threads and its store."""
        self.api.close()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do ``work`` in an event loop of its own."""
        return asyncio.run(work())

    def ask(self, *of: Any, **given: Any) -> Answered:
        """Ask once, outside of any event loop."""
        return asyncio.run(self(*of, **given))
