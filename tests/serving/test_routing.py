"""The table of calls: who answers what, and what is said of an address that nobody answers."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from serving.api import CALLS, Api, create_app


def ask(
    method: str, path: str, raw_path: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], Any]:
    """An answer of the application without any desk; its headers by lower-case name."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": method, "path": path, "query_string": b"",
             "raw_path": raw_path,
             "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}  # fmt: skip

    async def served() -> None:
        await create_app(lambda: Api({}, 1024))(scope, receive, send)

    asyncio.run(served())
    start, body = sent[0], b"".join(message.get("body", b"") for message in sent[1:])
    told = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return start["status"], told, orjson.loads(body or b"null")


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


@pytest.mark.parametrize(
    ("path", "meant"),
    [("/v2/refunds", "/v2/refund"), ("/v2/refund/", "/v2/refund"), ("/refund", "/v2/refund"),
     ("/v2/customers/abc-123/labels", "/v2/customer/{customerId}/labels"),
     ("/v2/lists/block/", "/v2/lists/{name}"), ("/openapi", "/openapi.json")],
)  # fmt: skip
def test_an_address_that_is_nearly_one_is_told_which_was_meant(path: str, meant: str) -> None:
    status, _, body = ask("POST", path)
    assert status == 404
    assert f"did you mean {meant}?" in body["message"]


@pytest.mark.parametrize(
    ("method", "path", "meant"),
    [("POST", "/v2/refund/r-1/label", "POST /v2/customer/{customerId}/labels"),
     ("POST", "/v2/refund/r-1", "POST /v2/refund"),
     ("GET", "/v2/refund", "GET /v2/refund/{refundId}"),
     ("GET", "/v2/customer/c1", "GET /v2/customer/{customerId}/export"),
     ("DELETE", "/v2/policies/3", None)],
)  # fmt: skip
def test_a_method_in_the_wrong_place_is_told_where_it_belongs(
    method: str, path: str, meant: str | None
) -> None:
    status, headers, body = ask(method, path)
    assert status == 405
    hint = f" (did you mean {meant}?)" if meant else ""
    told = f"{method} is not allowed at this address, but {headers['allow']}{hint}"
    assert body["message"] == told


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/v2/customer/c1/"), ("GET", "/v2/customer/c1/export/"), ("GET", "/v2/refund/r1/"),
     ("POST", "/v2/customer/c1//labels"), ("DELETE", "/v2/customer//c1")],
)  # fmt: skip
def test_a_slash_too_many_is_no_part_of_an_id(method: str, path: str) -> None:
    status, _, body = ask(method, path)
    assert status == 404
    assert "did you mean /v2/" in body["message"]
    written = path.replace("//", "%2F/").rstrip("/") + "%2F" * path.endswith("/")
    assert ask(method, path, written.encode())[0] != 404, "an id may hold one, written out"


def test_what_names_nothing_is_no_address() -> None:
    for path in ("/v2/refund/", "/v2/customer/", "/v2/decision/a\0b", "/" + "x/" * 9_000):
        assert ask("GET", path)[0] == 404, path


def test_options_tells_what_is_allowed_and_head_what_get_answers_without_it() -> None:
    status, headers, body = ask("OPTIONS", "/v2/lists/block")
    assert (status, body) == (204, None)
    assert headers["allow"] == "DELETE, GET, HEAD, OPTIONS, POST"
    got, head = ask("GET", "/v2/policies"), ask("HEAD", "/v2/policies")
    assert (got[0], head[0], head[2]) == (401, 401, None)  # the same refusal, unsaid
    assert head[1]["content-length"] == got[1]["content-length"]


def test_no_call_stands_in_the_table_twice() -> None:
    named = [(call.method, call.path) for call in CALLS]
    assert len(named) == len(set(named))
    assert all(call.summary for call in CALLS)
