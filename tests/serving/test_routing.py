"""The table of calls: who answers what, and what is said of an address that nobody answers."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from serving.api import CALLS, Api, create_app


def ask(method: str, path: str, **headers: str) -> tuple[int, dict[str, str], Any]:
    """An answer of the application without any desk; its headers by lower-case name."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": method, "path": path, "query_string": b"",
             "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}  # fmt: skip

    async def served() -> None:
        await create_app(lambda: Api({}, 1024))(scope, receive, send)

    asyncio.run(served())
    start, body = sent[0], b"".join(message.get("body", b"") for message in sent[1:])
    told = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return start["status"], told, orjson.loads(body)


@pytest.mark.parametrize(
    "path",
    ["/v2/refund", "/v2/policies", "/v2/lists/block", "/v2/refund/a/b", "/v2/customer/a/b/labels"],
)
def test_a_method_that_is_not_allowed_is_told_those_that_are(path: str) -> None:
    status, headers, body = ask("PATCH", path)
    assert (status, body["status"]) == (405, 405)
    allowed = headers["allow"].split(", ")
    assert allowed == sorted(set(allowed))
    assert allowed
    for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        # Whoever is allowed gets to the handler, which asks for a key or a body first.
        status = ask(method, path, **{"content-type": "text/plain"})[0]
        assert (status == 405) == (method not in allowed), method


def test_an_address_of_none_is_404_in_the_envelope() -> None:
    for path in ("/v2/nothing", "/v2/decision/a/b", "/", "/v2/refund/../x/labels"):
        status, headers, body = ask("PUT" if "refund" not in path else "DELETE", path)
        assert status in (404, 405), path
        assert body["status"] == status
        assert len(headers["x-request-id"]) == 32


def test_no_call_stands_in_the_table_twice() -> None:
    named = [(call.method, call.path) for call in CALLS]
    assert len(named) == len(set(named))
    assert all(call.summary for call in CALLS)
