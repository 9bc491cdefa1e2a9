"""The table of calls and the way to their handlers: one look-up, and a complete Allow for 405."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]
Owner = TypeVar("Owner")

CALL: Final = "recourse.call"
"""Where a request's scope holds the declared path of its call, for who counts or traces."""


@dataclass(frozen=True)
class Call(Generic[Owner]):
    """One call: ``handler`` gives what answers it, of the object that the worker has opened.

    ``path`` may hold parameters as Starlette writes them: ``{id}``, or ``{id:path}`` for one that
    may hold slashes.
    """

    method: str
    path: str
    handler: Callable[[Owner], Handler]
    summary: str


class Router(Generic[Owner]):
    """An ASGI application over a table of calls; of several that match the first one answers.

    ``pages`` are applications by their address, which no call has. Raises HTTPException: 404 for an
    address that is none, 405 with every method that its address allows.

    >>> import asyncio
    >>> async def answer(request): return Response(request.path_params.get("id", "all"))
    >>> table = [Call("GET", "/things", lambda _: answer, "All"),
    ...          Call("POST", "/things", lambda _: answer, "Make one"),
    ...          Call("GET", "/things/{id}", lambda _: answer, "One")]
    >>> router = Router(table, lambda: None)
    >>> async def ask(method, path):
    ...     async def send(message): print(message.get("status") or message["body"])
    ...     scope = {"type": "http", "method": method, "path": path, "headers": []}
    ...     try:
    ...         await router(scope, None, send)
    ...     except HTTPException as refusal:
    ...         print(refusal.status_code, refusal.headers)
    >>> asyncio.run(ask("GET", "/things/7"))
    200
    b'7'
    >>> asyncio.run(ask("DELETE", "/things"))
    405 {'Allow': 'GET, POST'}
    >>> asyncio.run(ask("GET", "/nothing"))
    404 None
    """

    def __init__(
        self,
        calls: Sequence[Call[Owner]],
        current: Callable[[], Owner],
        pages: Mapping[str, ASGIApp] = MappingProxyType({}),
    ) -> None:
        self._current, self._pages = current, pages
        self._plain: dict[str, dict[str, Call[Owner]]] = {}
        self._patterns = []
        for call in calls:
            if "{" in call.path:
                pattern, _, convertors = compile_path(call.path)
                self._patterns.append((pattern, convertors, call))
            else:
                self._plain.setdefault(call.path, {}).setdefault(call.method, call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            found = self._plain.get(path, {}).get(scope["method"])
            if found is not None:
                scope["path_params"] = {}
            else:
                found = self._matching(scope, path)
            if found is not None:
                scope[CALL] = found.path
                response = await found.handler(self._current())(Request(scope, receive, send))
                await response(scope, receive, send)
                return
        if (page := self._pages.get(scope["path"])) is None:
            raise HTTPException(404)
        await page(scope, receive, send)

    def _matching(self, scope: Scope, path: str) -> Call[Owner] | None:
        """The call whose pattern fits; None for an address of none."""
        allowed = list(self._plain.get(path, ()))
        for pattern, convertors, call in self._patterns:
            if (match := pattern.match(path)) is None:
                continue
            if call.method == scope["method"]:
                scope["path_params"] = {
                    name: convertors[name].convert(text) for name, text in match.groupdict().items()
                }
                return call
            allowed.append(call.method)
        if allowed:
            raise HTTPException(405, "Method Not Allowed", {"Allow": _listed(allowed)})
        return None


def _listed(methods: Iterable[Any]) -> str:
    return ", ".join(sorted({*methods}))
