"""One HTTP connection: uvicorn's, with bounds on what it has none for, a request's head.

Uvicorn takes a head of any size, and waits for its end for ever: without a key anybody could fill
a worker's memory, or all of its file descriptors. What is no HTTP is refused in our envelope.
"""

from __future__ import annotations

import logging
import uuid
from asyncio import TimerHandle, Transport
from collections import deque
from http import HTTPStatus
from typing import Final

import httptools
import orjson
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving import answers
from serving.headers import ENTIRE, secured

MOST_HEAD_BYTES: Final = 64 * 1024
"""Of the address and all headers together, to within what one read of the socket brings."""

HEAD_SECONDS: Final = 10.0
"""A head is to be complete so long after its connection was made, or its first bytes came."""

_NOWHERE: Final[deque[tuple[bytes, bytes]]] = deque(maxlen=0)
"""Keeps nothing that is appended."""

_FAILURES: Final = logging.getLogger("recourse.connection")
_FAILURES.setLevel(logging.ERROR)  # a line for each request that is no HTTP is a way to fill disks


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed, with 431 or 408, when a head is too large or too slow.

    A head that comes in one piece, as nearly all do, costs nothing more; it starts no timer.

    A wish to speak another protocol is passed over: Java's client has it by default (h2c). The
    parser reads no body after such a head, but takes it for the next request, so that who writes
    the body would ask. It is given the head again without the wish, and then the body.

    Trailers are passed over. They are not headers, and nothing else bounds how many come.

    No header is believed as to who asks: uvicorn takes a peer at 127.0.0.1 for a proxy, so who
    guesses at keys through a tunnel or a sidecar would be another address with each guess. Whose
    word is taken is for `serving.gate` to know (``RECOURSE_TRUSTED_PROXIES``).
    """

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Wait for a request, but not for ever."""
        super().connection_made(transport)
        self.logger = _FAILURES
        self.access_log = False  # what was asked is told by `serving.access`
        if isinstance(self.app, ProxyHeadersMiddleware):
            self.app = self.app.app
        self._head_bytes, self._in_head = 0, False
        self._has_ended_one = False
        self._plain_head = b""
        self._head_timer: TimerHandle | None = self.loop.call_later(HEAD_SECONDS, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timer, and of what uvicorn holds."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse a head that has no end."""
        self._unset_keepalive_if_required()
        self._has_ended_one = False
        try:
            self._parse(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.send_400_response(str(error))
            return
        if not self._in_head or self.transport.is_closing():
            return
        if not self._has_ended_one:  # or who knows how much of what came is of this head
            self._head_bytes += len(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            told = f"address and headers: must be at most {MOST_HEAD_BYTES} bytes together"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, told)
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head_bytes, self._in_head = 0, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._in_head = False
        self._stop_timer()
        if self.parser.should_upgrade():
            self._plain_head = self._without_upgrade()
            return
        super().on_headers_complete()
        self.headers = _NOWHERE  # type: ignore[assignment]  # go the trailers

    def on_message_complete(self) -> None:
        """A request is whole."""
        if self.parser.should_upgrade():
            return  # its head is still to be given again
        self._has_ended_one = True
        self.scope[ENTIRE] = True  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")

    def _should_upgrade_to_ws(self) -> bool:
        return False

    def _parse(self, data: bytes) -> None:
        """Feed the parser; a head that wishes to upgrade is fed again as one that does not.

        Raises HttpParserUpgrade for CONNECT, whose body nobody can tell from a next request.
        """
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as stop:
                if not self._plain_head:
                    raise
                rest = memoryview(rest)[stop.args[0] :]
            else:
                return
            self.parser.feed_data(self._plain_head)

    def _without_upgrade(self) -> bytes:
        """The head that was parsed, as it came but for Upgrade; empty for CONNECT."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            return b""
        version = self.parser.get_http_version().encode()
        head = [method + b" " + self.url + b" HTTP/" + version]
        head += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*head, b"", b""])

    def _late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._in_head:
            told = f"address and headers: must be complete within {HEAD_SECONDS:g} s"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, told)
        else:
            self.transport.close()  # it asked nothing, so it is answered nothing

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer in our envelope, and end the connection."""
        body = orjson.dumps(answers.error_body(status, message))
        own = [(b"content-type", b"application/json"),
               (b"content-length", str(len(body)).encode()), (b"connection", b"close")]  # fmt: skip
        start = secured({"type": "http.response.start", "headers": own}, uuid.uuid4().hex)
        head = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
        head += [name + b": " + value for name, value in start["headers"]]
        self.transport.write(b"\r\n".join([*head, b"", body]))
        self.transport.close()
