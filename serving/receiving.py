"""The body of a request, no larger than it may be."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from serving.envelope import ApiError

LEAST_READ_SECONDS: Final = 10.0
LEAST_BYTES_PER_SECOND: Final = 100_000
"""A body is to be complete within so many seconds, and as many as the largest takes at this rate:
who sends one byte a minute holds no place for ever."""


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


async def read_in_time(receive: Receive, most: int) -> bytes:
    """As `read_body`, of one that is still to come; raises `ApiError` (408) if it does not."""
    seconds = LEAST_READ_SECONDS + most / LEAST_BYTES_PER_SECOND
    try:
        async with asyncio.timeout(seconds):
            return await read_body(receive, most)
    except TimeoutError:
        told = f"body: must be complete within {seconds:.0f} s"
        raise ApiError(408, told, headers={"Connection": "close"}) from None


def too_large(most: int) -> ApiError:
    """The refusal of a larger one."""
    return ApiError(413, f"body: must be at most {most} bytes")
