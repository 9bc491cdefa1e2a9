"""Pseudonyms: identifiers of persons become keyed hashes, their originals ciphertexts."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from features.events import COLUMN_OF, ENTITIES
from serving.keyed import KeyedHash

KIND_OF_COLUMN: Final[Mapping[str, str]] = {
    **{COLUMN_OF[entity]: entity for entity in ENTITIES},
    "reviewer": "reviewer",
}
"""Columns under a pseudonym. A label's reviewer is a name as free text, so it is one of them."""

Original: TypeAlias = tuple[str, str, str]
"""A kind, a pseudonym, and what that stands for."""

MIN_SECRET_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_REMEMBERED: Final = 1024
"""So many pseudonyms are remembered, those asked for last: the decisions that are under way."""


class Identifiers:
    """The pseudonyms of one secret. Stateless after construction, so free to share.

    Pseudonym: the first 16 bytes of HMAC-SHA256, base64url (22 characters); the kind is part of
    the message, so equal values of two kinds do not meet. Original: AES-256-GCM, bound to its kind
    and pseudonym. Both keys come from the secret by HKDF-SHA256 (RFC 5869).

    >>> identifiers = Identifiers(b"a secret of 16 bytes or more")
    >>> pseudonym = identifiers.mac("customer", "c1")
    >>> len(pseudonym), pseudonym == identifiers.mac("email", "c1")
    (22, False)
    >>> ciphertext = identifiers.seal("customer", pseudonym, "c1")
    >>> identifiers.reveal("customer", pseudonym, ciphertext)
    'c1'
    >>> Identifiers(b"short")
    Traceback (most recent call last):
    ValueError: secret: expected at least 16 bytes, got 5
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(
                f"secret: expected at least {MIN_SECRET_BYTES} bytes, got {len(secret)}"
            )
        self._hash = KeyedHash(_derive(secret, b"recourse pseudonym"))
        self._cipher = AESGCM(_derive(secret, b"recourse identifier"))
        self.key_id = _derive(secret, b"recourse key id")[:8].hex()
        """Tells secrets apart without giving them away."""
        # Of one decision each identifier is asked for five times, when it is read and written.
        self._mac_of = lru_cache(_REMEMBERED)(self._made_mac)

    def mac(self, kind: str, value: str) -> str:
        """The pseudonym of an identifier."""
        return self._mac_of(kind, value)

    def _made_mac(self, kind: str, value: str) -> str:
        digest = self._hash.digest(f"{kind}|{value}".encode())[:16]
        return base64.urlsafe_b64encode(digest)[:22].decode()

    def macs(self, keys: Mapping[str, str]) -> dict[str, str]:
        """Keys by kind with the entities under pseudonyms; order and refund ids stay."""
        return {
            kind: self.mac(kind, value) if kind in ENTITIES else value
            for kind, value in keys.items()
        }

    def seal(self, kind: str, pseudonym: str, value: str) -> bytes:
        """The ciphertext of an original, its nonce first."""
        return self.seal_bytes(kind, pseudonym, value.encode())

    def reveal(self, kind: str, pseudonym: str, ciphertext: bytes) -> str:
        """The original; raises `cryptography.exceptions.InvalidTag` if it was tampered with."""
        return self.reveal_bytes(kind, pseudonym, ciphertext).decode()

    def seal_bytes(self, kind: str, name: str, content: bytes) -> bytes:
        """The ciphertext of any content, bound to its kind and name; its nonce first."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, f"{kind}|{name}".encode())

    def reveal_bytes(self, kind: str, name: str, ciphertext: bytes) -> bytes:
        """The content; raises `cryptography.exceptions.InvalidTag` if it was tampered with."""
        nonce, sealed = ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:]
        return self._cipher.decrypt(nonce, sealed, f"{kind}|{name}".encode())


class Pseudonyms:
    """Puts pseudonyms into events, and remembers which originals it met.

    >>> pseudonyms = Pseudonyms(Identifiers(b"a secret of 16 bytes or more"))
    >>> content = {"customer_id": "c1", "refund_id": "r1"}
    >>> pseudonyms.put_into(content)
    >>> content["customer_id"] != "c1", content["refund_id"]
    (True, 'r1')
    >>> met = pseudonyms.take_new()
    >>> [(kind, value) for kind, _, value in met], pseudonyms.take_new()
    ([('customer', 'c1')], [])
    >>> [(kind, len(sealed)) for kind, _, _, sealed in pseudonyms.sealed(met)]
    [('customer', 30)]
    """

    def __init__(self, identifiers: Identifiers) -> None:
        self._identifiers = identifiers
        self._known: dict[tuple[str, str], str] = {}
        self._new: list[Original] = []

    def put_into(self, content: dict[str, Any]) -> None:
        """Replace the identifiers of an event's content."""
        for column, kind in KIND_OF_COLUMN.items():
            value = content.get(column)
            if value is None:
                continue
            pseudonym = self._known.get((kind, value))
            if pseudonym is None:
                pseudonym = self._known[kind, value] = self._identifiers.mac(kind, value)
                self._new.append((kind, pseudonym, value))
            content[column] = pseudonym

    def take_new(self) -> list[Original]:
        """What was met since the last call, in key order."""
        new, self._new = sorted(self._new), []
        return new

    def sealed(self, originals: Iterable[Original]) -> list[tuple[str, str, str, bytes]]:
        """Their rows of the table ``identifiers``."""
        seal, key_id = self._identifiers.seal, self._identifiers.key_id
        return [(kind, mac, key_id, seal(kind, mac, value)) for kind, mac, value in originals]


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)
