"""A real server that takes webhooks in, verifies them as a receiver should, and answers at will."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

Reply = tuple[int, Mapping[str, str]]
OK: Reply = (204, {})


@dataclass
class Receiver:
    """What came, and what is answered: the replies in turn, then 204."""

    url: str = ""
    secret: str = ""
    replies: list[Reply] = field(default_factory=list)
    came: list[tuple[Mapping[str, str], Any]] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)
    hang: threading.Event = field(default_factory=threading.Event)
    hangs: bool = False

    @property
    def ids(self) -> list[str]:
        """The ids of the webhooks that came and were verified, in order."""
        return [headers["webhook-id"] for headers, _ in self.came]

    def take(self, headers: Mapping[str, str], body: bytes) -> Reply:
        """Verify one, with the library that receivers are told to use, and answer."""
        if self.hangs:
            self.hang.wait(20)
        try:
            told = Webhook(self.secret).verify(body, dict(headers))
        except WebhookVerificationError as error:
            self.forged.append(str(error))
            return 400, {}
        self.came.append((headers, told))
        return self.replies.pop(0) if self.replies else OK


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver on a port of its own."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more = receiver.take(headers, body)
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            content = b"" if status == 204 else orjson.dumps({"status": status})
            if status != 204:
                self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            pass  # a caller that did not trust the certificate, or did not wait

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook?tenant=1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.hang.set()
        server.shutdown()
        server.server_close()
        thread.join()
