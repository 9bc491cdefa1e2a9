"""A head that has no end costs a worker neither memory nor a descriptor; all is told in JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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


class Wire(asyncio.Transport):
    """A peer that sends as it is told, and keeps what it is answered."""

    def __init__(self) -> None:
        super().__init__()
        self.answered, self._is_closing = b"", False

    def write(self, data: Any) -> None:
        if not self._is_closing:
            self.answered += data

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what was asked, and the names of the headers."""
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body, more = body + message["body"], message["more_body"]
    names = b",".join(sorted(name for name, _ in scope["headers"]))
    told = b" ".join([scope["method"].encode(), scope["raw_path"], names, body])
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(told)).encode())]})  # fmt: skip
    await send({"type": "http.response.body", "body": told})


def answers_to(cuts: Iterable[Sequence[bytes]]) -> list[bytes]:
    """All that a connection is answered, for each way of sending; a request id stands for all."""
    config = Config(echo, log_config=None, lifespan="off")
    config.load()

    async def asked() -> list[bytes]:
        found = []
        for pieces in cuts:
            wire = Wire()
            protocol = BoundedProtocol(config, ServerState(), {})
            protocol.connection_made(wire)
            for piece in pieces:
                if not wire.is_closing():
                    protocol.data_received(piece)
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
            protocol.connection_lost(None)
            found.append(re.sub(rb"x-request-id: [0-9a-f]{32}", b"x-request-id: -", wire.answered))
        return found

    return asyncio.run(asked())


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
COUNTED = b"Content-Length: %d\r\n\r\n%s" % (len(SMUGGLED), SMUGGLED)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n%s\r\n" % (
    len(SMUGGLED), SMUGGLED, b"Authorization: token t\r\nUpgrade: h2c\r\nConnection: upgrade\r\n"
)  # fmt: skip
PLAIN = b"Host: x\r\nX-Empty:\r\n"
WISH = b"Host: x\r\nX-Empty:\r\nuPGRADE: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"


def pair(wish: bytes, other: bytes, body: bytes) -> bytes:
    """Two requests on one connection, and a third that says where they ended."""
    first = b"POST /one HTTP/1.1\r\n" + wish + body
    return first + b"PUT /two?a=b HTTP/1.1\r\n" + other + body + b"GET /three HTTP/1.1\r\n\r\n"


def bodies_of(answered: bytes) -> list[bytes]:
    """Of an answer, what each request was told."""
    found = []
    while answered:
        head, _, rest = answered.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        size = int(head.rpartition(b"content-length: ")[2].partition(b"\r\n")[0])
        found.append(rest[:size])
        answered = rest[size:]
    return found


@pytest.mark.parametrize("body", [COUNTED, CHUNKED], ids=["counted", "chunked"])
@pytest.mark.parametrize("other", [PLAIN, WISH], ids=["plain", "wish"])
@pytest.mark.parametrize("wish", [PLAIN, WISH], ids=["plain", "wish"])
def test_a_body_is_never_a_request_however_the_bytes_are_cut(
    wish: bytes, other: bytes, body: bytes
) -> None:
    sent = pair(wish, other, body)
    length = b"content-length" if body is COUNTED else b"transfer-encoding"
    names = [
        b",".join(sorted({b"host", b"x-empty", length} | ({b"connection"} if w is WISH else set())))
        for w in (wish, other)
    ]
    whole = [b"POST /one %s %s" % (names[0], SMUGGLED), b"PUT /two %s %s" % (names[1], SMUGGLED),
             b"GET /three  "]  # fmt: skip
    in_one, byte_by_byte, *in_two = answers_to(
        [[sent], [sent[i : i + 1] for i in range(len(sent))],
         *([sent[:i], sent[i:]] for i in range(1, len(sent)))]
    )  # fmt: skip
    assert bodies_of(in_one) == whole
    assert {byte_by_byte, *in_two} == {in_one}


@given(
    wish=st.sampled_from([PLAIN, WISH]),
    other=st.sampled_from([PLAIN, WISH]),
    body=st.sampled_from([COUNTED, CHUNKED]),
    cuts=st.sets(st.integers(1, 700), max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_pieces_of_any_size_are_answered_as_the_whole(
    wish: bytes, other: bytes, body: bytes, cuts: set[int]
) -> None:
    sent = pair(wish, other, body)
    at = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    in_one, in_pieces = answers_to([[sent], [sent[a:b] for a, b in pairwise(at)]])
    assert len(bodies_of(in_one)) == 3
    assert in_pieces == in_one


def test_many_wishes_in_one_read_are_each_passed_over() -> None:
    asked = b"POST /x HTTP/1.1\r\n" + WISH + b"Content-Length: 2\r\n\r\nok"
    (found,) = answers_to([[asked * 2000, *[b""] * 4000]])
    assert len(bodies_of(found)) == 2000


@pytest.mark.parametrize("target", [b"/v2/refund", b"x.example:443"])
def test_what_follows_connect_is_no_request(target: bytes) -> None:
    sent = b"CONNECT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n" % target + SMUGGLED
    for found in answers_to([[sent], *([sent[:i], sent[i:]] for i in range(1, len(sent)))]):
        assert found.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert found.count(b"HTTP/1.1 ") == 1


def test_the_end_of_a_body_does_not_count_as_of_the_next_head() -> None:
    size = 2 * MOST_HEAD_BYTES
    head = b"POST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size
    (found,) = answers_to([[head, b"a" * size + b"GET /y HT", b"TP/1.1\r\n\r\n"]])
    assert [len(body) > size for body in bodies_of(found)] == [True, False]
    endless = [head, b"a" * size + b"GET /y HTTP/1.1\r\n", *[PIECE] * 3]
    assert b"HTTP/1.1 431 " in answers_to([endless])[0]
