"""A head that has no end costs a worker neither memory nor a descriptor; all is told in JSON."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from serving import connection
from serving.connection import MOST_HEAD_BYTES, BoundedProtocol
from serving.front import set_up_server
from serving.headers import ENTIRE
from serving.logs import configure_libraries

HEAD = b"GET /v2/policies HTTP/1.1\r\nHost: x\r\n"
PIECE = b"X: " + b"a" * 30_000


async def answered(scope: Any, receive: Any, send: Any) -> None:
    is_entire, body, more = ENTIRE in scope, b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    body = body or b"ok"
    if any(name == b"x-forwarded-for" for name, _ in scope["headers"]):
        body = scope["client"][0].encode() + b" ok"
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(body)).encode()),
                            (b"entire", str(is_entire).encode())]})  # fmt: skip
    await send({"type": "http.response.body", "body": body})


def told(*pieces: bytes, wait_for_end: bool = True) -> tuple[bytes, Any]:
    """The status line, and the body, that a connection answers these pieces with."""

    async def asked() -> bytes:
        set_up_server()
        config = Config(answered, log_config=None, lifespan="off")
        config.load()
        assert config.http_protocol_class is BoundedProtocol
        state = ServerState()
        loop = asyncio.get_running_loop()

        def protocol() -> BoundedProtocol:
            return BoundedProtocol(config, state, {})

        server = await loop.create_server(protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        found = await reader.read() if wait_for_end else await reader.readuntil(b"ok")
        writer.close()
        server.close()
        return found

    head, _, body = asyncio.run(asked()).partition(b"\r\n\r\n")
    return head, body


def test_a_head_is_bounded_and_what_is_no_http_is_told_so_in_the_envelope() -> None:
    large = told(HEAD, *[PIECE] * (MOST_HEAD_BYTES // len(PIECE) + 1))
    assert large[0].startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert json.loads(large[1])["message"].endswith(f"at most {MOST_HEAD_BYTES} bytes together")
    assert b"\r\nx-request-id: " in large[0]
    broken = told(b"how do you do\r\n\r\n")
    assert broken[0].startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert json.loads(broken[1])["status"] == 400


def test_a_head_in_pieces_is_answered_and_many_on_one_connection_are_none_too_large() -> None:
    ask: Callable[[], list[bytes]] = lambda: [HEAD, PIECE + b"\r\n\r\n"]  # noqa: E731
    head, body = told(*ask(), *ask(), *ask(), wait_for_end=False)
    assert (head[:15], body[:2]) == (b"HTTP/1.1 200 OK", b"ok")


@pytest.mark.parametrize(("pieces", "status"), [([HEAD], b"HTTP/1.1 408"), ([], b"")])
def test_a_head_that_does_not_end_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, pieces: list[bytes], status: bytes
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
    assert told(*pieces)[0][:12] == status


def test_what_a_library_says_is_json_and_quotes_no_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = {handler: handler.formatter for handler in logging.getLogger().handlers}
    configure_libraries()
    try:
        try:
            raise KeyError("c-4711")
        except KeyError:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
        said = json.loads(caplog.handler.format(caplog.records[-1]))
    finally:
        for handler, formatter in before.items():
            handler.setFormatter(formatter)
    assert (said["event"], said["level"]) == ("Exception in ASGI application", "error")
    assert said["exception"].startswith("KeyError") and "c-4711" not in json.dumps(said)


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_a_wish_for_another_protocol_is_passed_over_and_the_body_is_read(protocol: bytes) -> None:
    head = HEAD.replace(b"GET", b"POST") + b"connection: Upgrade\r\nupgrade: " + protocol
    asked = head + b"\r\nContent-Length: 16\r\n\r\n", b"two\r\nupgrade: ok"
    for pieces in (asked, [b"".join(asked)], [b"".join(asked)] * 2):
        found, body = told(*pieces, wait_for_end=False)
        assert (found[:15], body[:16]) == (b"HTTP/1.1 200 OK", b"two\r\nupgrade: ok")


def test_it_is_known_of_a_body_that_came_with_its_head() -> None:
    head = HEAD.replace(b"GET", b"POST") + b"Content-Length: 2\r\n\r\n"
    for pieces, is_entire in ([head + b"ok"], b"True"), ([head, b"ok"], b"False"):
        found, body = told(*pieces, wait_for_end=False)
        assert (found.endswith(b"\r\nentire: " + is_entire), body) == (True, b"ok")


def test_no_peer_is_taken_at_its_word_for_whom_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    forwarded = HEAD + b"X-Forwarded-For: 203.0.113.9\r\n\r\n"
    assert told(forwarded, wait_for_end=False)[1] == b"127.0.0.1 ok"
