"""Headers: what a request's say, and those that every answer bears.

They say who it was, and what a browser must not do with it.
Strict-Transport-Security is not among them: the service speaks HTTP behind a proxy that has the
certificate, and to promise TLS is for whoever ends it.
"""

from __future__ import annotations

from typing import Final, TypeVar

from starlette.types import Message, Scope

T = TypeVar("T", str, None)
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

IMMUTABLE: Final = "public, max-age=31536000, immutable"
"""The Cache-Control of what never changes: a file whose address names its content. All else that is
answered is not to be kept anywhere."""

_LASTING: Final[Raw] = (b"cache-control", IMMUTABLE.encode())
_WITH_POLICY: Final = (NOTHING, *ALWAYS)
_OURS: Final = frozenset({*(name for name, _ in ALWAYS), b"x-request-id"})

ENTIRE: Final = "recourse.entire"
"""Where a request's scope says that all of its body has come, so that nobody waits for it."""


def all_sent(scope: Scope, name: bytes) -> list[str]:
    """What a request's headers of this name (in lower case) say."""
    return [value.decode("latin-1") for found, value in scope["headers"] if found == name]


def sent(scope: Scope, name: bytes, otherwise: T) -> str | T:
    """What the first of them says; without any, ``otherwise``.

    >>> scope = {"headers": [(b"accept", b"text/html"), (b"accept", b"*/*")]}
    >>> sent(scope, b"accept", None), sent(scope, b"te", "trailers"), all_sent(scope, b"accept")
    ('text/html', 'trailers', ['text/html', '*/*'])
    """
    return next(iter(all_sent(scope, name)), otherwise)


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
    given = start.get("headers", ())
    own = [header for header in given if header[0] not in _OURS]
    ours = ALWAYS if POLICY in dict(own) else _WITH_POLICY
    if _LASTING in given:
        ours = (*(header for header in ours if header[0] != _LASTING[0]), _LASTING)
    return {**start, "headers": [*own, *ours, (b"x-request-id", request_id.encode())]}
