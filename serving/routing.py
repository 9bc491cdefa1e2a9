"""The table of calls and the way to their handlers: one look-up, and a complete Allow for 405."""

from __future__ import annotations

import difflib
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
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

MOST_CHARACTERS: Final = 120
"""Of an address that is none: so much of it is looked at for the one that was meant."""

NEAR: Final = 0.75
"""How like it the one that was meant is at least."""


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


def template_of(path: str) -> str:
    """A declared path as it is told: its parameters without how they are read.

    >>> template_of("/v2/refund/{refundId:path}")
    '/v2/refund/{refundId}'
    """
    return re.sub(":[a-z]+}", "}", path)


class Router(Generic[Owner]):
    """An ASGI application over a table of calls; of several that match the first one answers.

    ``pages`` are applications by their address, which no call has. Raises HTTPException: 404 for an
    address that is none, 405 with every method that its address allows; both with the address that
    was probably meant. A slash that ends an address, or follows another, is part of no parameter:
    in an id it is sent as %2F.

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
    ...         print(refusal.status_code, refusal.headers or refusal.detail)
    >>> asyncio.run(ask("GET", "/things/7"))
    200
    b'7'
    >>> asyncio.run(ask("DELETE", "/things"))
    405 {'Allow': 'GET, HEAD, OPTIONS, POST'}
    >>> asyncio.run(ask("GET", "/thing/"))
    404 no such address (did you mean /things?)
    >>> asyncio.run(ask("GET", "/things/7/"))
    404 no such address (did you mean /things/{id}?)
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
        self._templates: dict[str, set[str]] = {page: {"GET"} for page in pages}
        for call in calls:
            self._templates.setdefault(template_of(call.path), set()).add(call.method)
            if "{" in call.path:
                pattern, _, convertors = compile_path(call.path)
                whole = re.compile(pattern.pattern, re.DOTALL)  # an id may hold a line's end
                self._patterns.append((whole, convertors, call))
            else:
                self._plain.setdefault(call.path, {}).setdefault(call.method, call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return  # there is nothing to open here, or to close
        path, method = scope["path"].removeprefix(scope.get("root_path", "")), scope["method"]
        call = self._plain.get(path, {}).get(method)
        if call is not None:
            scope["path_params"] = {}
        else:
            call = self._matching(scope, path, method)
        if call is not None:
            scope[CALL] = call.path
            response = await call.handler(self._current())(Request(scope, receive, send))
            await response(scope, receive, send)
        elif (page := self._pages.get(path)) is not None:
            await page(scope, receive, send)
        else:
            await self._otherwise(scope, path, method)(scope, receive, send)

    def _matching(self, scope: Scope, path: str, method: str) -> Call[Owner] | None:
        """The call whose pattern fits, its parameters in the scope."""
        for call, found in self._fitting(scope, path):
            if call.method == method:
                scope["path_params"] = found
                return call
        return None

    def _fitting(self, scope: Scope, path: str) -> Iterator[tuple[Call[Owner], dict[str, Any]]]:
        if "\0" in path:  # nothing has such a name, and PostgreSQL takes none
            return
        if b"//" in (scope.get("raw_path") or path.encode()) + b"/":
            return
        for pattern, convertors, call in self._patterns:
            match = pattern.fullmatch(path)
            # A parameter that says nothing is none: /v2/refund/ is no refund's address.
            if match is not None and all(match.groupdict().values()):
                yield (
                    call,
                    {n: convertors[n].convert(text) for n, text in match.groupdict().items()},
                )

    def _otherwise(self, scope: Scope, path: str, method: str) -> ASGIApp:
        """What answers a method that none of an address's calls is declared with."""
        fitting = (call.method for call, _ in self._fitting(scope, path))
        allowed = {*self._plain.get(path, ()), *fitting}
        if not allowed:
            near = _nearest(path, self._templates)
            raise HTTPException(404, f"no such address (did you mean {near}?)" if near else None)
        if "GET" in allowed:
            allowed.add("HEAD")
        headers = {"Allow": ", ".join(sorted({*allowed, "OPTIONS"}))}
        if method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        if method == "HEAD" and "GET" in allowed:
            return self._head
        told = f"{method[:20]} is not allowed at this address, but {headers['Allow']}"
        near = _nearest(path, [t for t, methods in self._templates.items() if method in methods])
        raise HTTPException(
            405, told + (f" (did you mean {method} {near}?)" if near else ""), headers
        )

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What GET answers; the envelope leaves the body out."""
        await self({**scope, "method": "GET"}, receive, send)


def _nearest(path: str, templates: Iterable[str]) -> str | None:
    """The address that was probably meant, None where none is near.

    It is spelled nearly so; or else a step of it is, at the same place.

    >>> _nearest("/v2/refnd", ["/v2/order", "/v2/refund"])
    '/v2/refund'
    >>> _nearest("/v2/refund/r-1/label", ["/v2/refund", "/v2/customer/{customerId}/labels"])
    '/v2/customer/{customerId}/labels'
    """
    given = path[:MOST_CHARACTERS].rstrip("/").split("/")
    known: dict[str, str] = {}
    for template in templates:
        known.setdefault("/".join(_filled(template.split("/"), given)), template)
    near = difflib.get_close_matches("/".join(given), known, 1, cutoff=NEAR)
    if near:
        return known[near[0]]
    likeness = {template: _likeness(template.split("/"), given) for template in known.values()}
    best = max(likeness, key=likeness.__getitem__, default="")
    return best if likeness.get(best) else None


def _filled(steps: Sequence[str], given: Sequence[str]) -> Iterator[str]:
    """A template's steps, with what an address has at the places of its parameters if it has it."""
    for i, step in enumerate(steps):
        if not step.startswith("{"):
            yield step
        elif i < len(given):
            yield given[i]


def _likeness(steps: Sequence[str], given: Sequence[str]) -> float:
    """How like a template's steps an address is, the first and parameters apart.

    0 where none of them is near: that the others are so-so says nothing.
    """
    if len(steps) != len(given):
        return 0.0
    ratios = [
        difflib.SequenceMatcher(None, step, one).ratio()
        for step, one in zip(steps[2:], given[2:], strict=True)
        if not step.startswith("{")
    ]
    return sum(ratios) if max(ratios, default=0) >= NEAR else 0.0
