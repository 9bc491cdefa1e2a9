"""The chain of seals over the audit log: what a seal is, the keys it takes, and where it is kept.

Position 1, 2, 3 … seals the entries in the order of their ``seq``. A seal is HMAC-SHA256, under a
key that comes from the secret, of the seal before, its own position and its entry (`KeptEntry`:
all but what is personal, of which the commitment counts). So nobody who has the database and not
the secret can make one, and each vouches for all before it.
"""

from __future__ import annotations

import bisect
import hmac
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, bindparam, delete, select

from serving.store.audit import KeptEntry
from serving.store.database import Database
from serving.store.schema import audit_log, audit_seals, meta

GENESIS: Final = bytes(32)
"""What stands for the seal before the first."""

_NONCE_BYTES: Final = 12
_FORMER: Final = "audit_key:"
"""Begins the names in ``meta`` of the keys that earlier secrets gave, each under the present one;
the position follows up to which it sealed."""


class Seal(NamedTuple):
    """One seal: its position, the ``seq`` of its entry, and its HMAC."""

    position: int
    seq: int
    mac: bytes


class Sealed(NamedTuple):
    """A seal beside the entry that it names; None where there is none."""

    seal: Seal
    entry: KeptEntry | None


class KeyLostError(ValueError):
    """A key of an earlier secret cannot be had: its row in ``meta`` was altered."""


class SealKeys:
    """The keys of a chain: what the secret gives, and before a position what earlier ones gave.

    >>> keys = SealKeys(b"a secret of 16 bytes or more")
    >>> keys.of(1) == keys.of(1_000), len(keys.of(1))
    (True, 32)
    """

    def __init__(self, secret: bytes, former: Mapping[int, bytes] | None = None) -> None:
        self._present = _derive(secret, b"recourse audit chain")
        self._former = dict(sorted((former or {}).items()))

    @classmethod
    def kept(cls, connection: Connection, secret: bytes) -> SealKeys:
        """The keys of a store; raises `KeyLostError` for one that this secret does not open."""
        return cls(secret, {until: _open(wrapped, until, secret)
                            for until, wrapped in _wrapped(connection).items()})  # fmt: skip

    def of(self, position: int) -> bytes:
        """The key that seals a position."""
        at = bisect.bisect_left(list(self._former), position)
        return [*self._former.values(), self._present][at]

    def seal(self, before: bytes, position: int, entry: KeptEntry) -> bytes:
        """The HMAC that seals an entry at a position, after the seal ``before``."""
        return seal_of(self.of(position), before, position, entry)


def seal_of(key: bytes, before: bytes, position: int, entry: KeptEntry) -> bytes:
    """As `SealKeys.seal`, with the key at hand."""
    message = before + position.to_bytes(8, "big", signed=True) + entry.sealed_bytes()
    return hmac.digest(key, message, "sha256")


class Seals:
    """The seals of one database. Holds no state of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last(self, connection: Connection) -> Seal:
        """The last seal; position 0 before the first."""
        prepared = self._database.prepared(
            "last_seal",
            lambda: (
                select(*audit_seals.c).order_by(audit_seals.c.position.desc()).limit(1)
            ),
        )  # fmt: skip
        rows = self._database.run(connection, prepared, prepared.bind({}))
        return Seal._make(rows[0]) if rows else Seal(0, 0, GENESIS)

    def at(self, connection: Connection, position: int) -> Seal | None:
        """The seal at a position."""
        found = select(*audit_seals.c).where(audit_seals.c.position == position)
        row = connection.execute(found).one_or_none()
        return None if row is None else Seal(row[0], row[1], bytes(row[2]))

    def add(self, connection: Connection, seals: Iterable[Seal]) -> None:
        """Keep further seals."""
        statement = self._database.inserting(audit_seals, Seal._fields)
        self._database.run_many(connection, statement, [tuple(seal) for seal in seals])

    def after(self, connection: Connection, position: int, limit: int) -> list[Sealed]:
        """The first ``limit`` seals after a position, in order, each beside its entry."""

        def build() -> Any:
            entry = [audit_log.c[name] for name in KeptEntry._fields]
            joined = audit_seals.outerjoin(audit_log, audit_seals.c.seq == audit_log.c.seq)
            return (
                select(*audit_seals.c, *entry)
                .select_from(joined)
                .where(audit_seals.c.position > bindparam("place"))
                .order_by(audit_seals.c.position)
                .limit(bindparam("most"))
            )

        prepared = self._database.prepared("seals_after", build)
        values = prepared.bind({"place": position, "most": limit})
        return [
            Sealed(Seal(row[0], row[1], row[2]),
                   None if row[3] is None else KeptEntry._make(row[3:]))
            for row in self._database.run(connection, prepared, values)
        ]  # fmt: skip


def rekey(connection: Connection, database: Database, secret: bytes, new_secret: bytes) -> None:
    """Go on with the chain under another secret, in the transaction that replaces it.

    What is sealed stays so: its keys are kept under the new secret. Nobody may be sealing.
    """
    former = {until: _open(wrapped, until, secret)
              for until, wrapped in _wrapped(connection).items()}  # fmt: skip
    last = Seals(database).last(connection).position
    if last > max(former, default=0):
        former[last] = _derive(secret, b"recourse audit chain")
    connection.execute(delete(meta).where(meta.c.name.startswith(_FORMER, autoescape=True)))
    statement = database.inserting(meta, ("name", "value"))
    rows = [(f"{_FORMER}{until}", _wrap(key, until, new_secret)) for until, key in former.items()]
    database.run_many(connection, statement, rows)


def _wrapped(connection: Connection) -> dict[int, str]:
    names = meta.c.name.startswith(_FORMER, autoescape=True)
    rows = connection.execute(select(meta.c.name, meta.c.value).where(names)).fetchall()
    try:
        return {int(name.removeprefix(_FORMER)): value for name, value in rows}
    except ValueError:
        raise KeyLostError(
            f"a row in meta whose name begins with {_FORMER!r} was put there: "
            "expected a position after it"
        ) from None


def _wrap(key: bytes, until: int, secret: bytes) -> str:
    nonce = os.urandom(_NONCE_BYTES)
    cipher = AESGCM(_derive(secret, b"recourse audit keys"))
    return (nonce + cipher.encrypt(nonce, key, f"{until}".encode())).hex()


def _open(wrapped: str, until: int, secret: bytes) -> bytes:
    cipher = AESGCM(_derive(secret, b"recourse audit keys"))
    try:
        sealed = bytes.fromhex(wrapped)
        return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], f"{until}".encode())
    except (TypeError, ValueError, InvalidTag):
        raise KeyLostError(
            f"the key that sealed the audit log up to position {until} was altered in the store, "
            "or put there under another secret"
        ) from None


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)
