"""HMAC-SHA256 under one key, its two pads hashed once: what is left of each message is short."""

from __future__ import annotations

import hashlib


class KeyedHash:
    """HMAC-SHA256 (RFC 2104) under a key. Free to share.

    `hmac.digest` hashes key and message anew each time and has OpenSSL look for the algorithm.

    >>> import hmac
    >>> KeyedHash(b"key").digest(b"message") == hmac.digest(b"key", b"message", "sha256")
    True
    >>> KeyedHash(b"k" * 65).digest(b"") == hmac.digest(b"k" * 65, b"", "sha256")
    True
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        size = hashlib.sha256().block_size
        block = (key if len(key) <= size else hashlib.sha256(key).digest()).ljust(size, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER))
        self._outer = hashlib.sha256(block.translate(_OUTER))

    def digest(self, message: bytes) -> bytes:
        """The 32 bytes of a message."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
