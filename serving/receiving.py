"""The body of a request, no larger than it may be."""

from __future__ import annotations

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from serving.envelope import ApiError


async def read_body(receive: Receive, most: int) -> bytes:
    """A body of at most so many bytes; raises `ApiError` (413) for a larger one."""
    body, is_whole = bytearray(), False
    while not is_whole:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > most:
            raise too_large(most)
        is_whole = not message.get("more_body", False)
    return bytes(body)


def too_large(most: int) -> ApiError:
    """The refusal of a larger one."""
    return ApiError(413, f"body: must be at most {most} bytes")
