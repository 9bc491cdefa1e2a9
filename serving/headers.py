"""The headers that every answer bears: who it was, and what a browser must not do with it.

Strict-Transport-Security is not among them: the service speaks HTTP behind a proxy that has the
certificate, and to promise TLS is for whoever ends it.
"""

from __future__ import annotations

from typing import Final

from starlette.types import Message

Raw = tuple[bytes, bytes]

POLICY: Final = b"content-security-policy"

ALWAYS: Final[tuple[Raw, ...]] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)

NOTHING: Final[Raw] = (POLICY, b"default-src 'none'; frame-ancestors 'none'")
"""The policy of an answer that has none: nothing is loaded, run or framed. A page names in a policy
of its own what it holds."""


def secured(start: Message, request_id: str) -> Message:
    """The beginning of an answer with these headers: in place of its own, but for its policy.

    >>> start = {"type": "http.response.start", "status": 200, "headers": [
    ...     (b"content-security-policy", b"default-src 'self'"), (b"cache-control", b"no-cache")]}
    >>> for name, value in sorted(secured(start, "ab")["headers"])[:3]:
    ...     print(name.decode(), value.decode())
    cache-control no-store
    content-security-policy default-src 'self'
    cross-origin-opener-policy same-origin
    """
    own = [header for header in start.get("headers", ()) if header[0] not in _OURS]
    policy = () if any(name == POLICY for name, _ in own) else (NOTHING,)
    headers = [*own, *policy, *ALWAYS, (b"x-request-id", request_id.encode())]
    return {**start, "headers": headers}


_OURS: Final = frozenset({*(name for name, _ in ALWAYS), b"x-request-id"})
