"""API keys: shown once when made, stored as a hash, compared in constant time.

That one is made or revoked is audited in the same transaction, under the key's id.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Connection, bindparam, select, update

from serving.persons import name_of_person
from serving.store.audit import AuditEntry, AuditLog
from serving.store.database import Database
from serving.store.schema import api_keys

Mode: TypeAlias = Literal["test", "live"]

SCOPES: Final = ("score", "report", "review", "admin")

PROGRAM: Final = "recourse"
"""Who acts where nobody is named: the program itself."""

_KEY_BYTES: Final = 32
_COLUMNS: Final = ("id", "mode", "scopes", "created_at", "revoked_at", "name")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key without the key; ``name`` is its holder's, if it was made with one."""

    id: str
    mode: Mode
    scopes: frozenset[str]
    created_at: int
    revoked_at: int | None = None
    name: str | None = None


class ApiKeys:
    """The API keys of one database. Holds no state of its own: revoking works at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._audit_log = AuditLog(database)

    def create(
        self, mode: Mode, scopes: Iterable[str], at: int, name: str | None = None, *,
        by: str = PROGRAM, via: str | None = None,
    ) -> str:  # fmt: skip
        """A new key of 256 bits, which nobody can show again.

        ``name`` says who holds it: what is done with the key is done by them. ``by`` is who makes
        it, and ``via`` how the audit log names who asked, where that is more than the person.
        Raises `ValueError` for a mode or scopes that do not exist, and for what is no person's name
        (`serving.persons`).
        """
        wanted = sorted(set(scopes))
        unknown = [scope for scope in wanted if scope not in SCOPES]
        if unknown or not wanted:
            got = ", ".join(map(repr, unknown)) or "none"
            raise ValueError(f"scopes: expected some of {', '.join(SCOPES)}, got {got}")
        if mode not in ("test", "live"):
            raise ValueError(f"mode: expected test or live, got {mode!r}")
        holder = None if name is None else name_of_person(name)
        key = f"sk_{mode}_{secrets.token_urlsafe(_KEY_BYTES)}"
        columns = ("id", "sha256", "mode", "scopes", "created_at", "name")
        key_id = f"key_{secrets.token_hex(8)}"
        row = (key_id, _hash(key), mode, " ".join(wanted), at, holder)
        statement = self._database.inserting(api_keys, columns)
        content = {"mode": mode, "scopes": wanted, "name": holder, "by": by}
        with self._database.write() as connection:
            self._database.run(connection, statement, row)
            self._audit(connection, "key_created", key_id, content, via or by, at)
        return key

    def verify(self, key: str) -> ApiKey | None:
        """The key's entry; None for a key that is unknown or revoked."""
        digest = _hash(key)
        prepared = self._database.prepared(
            "api_key",
            lambda: select(*(api_keys.c[name] for name in _COLUMNS), api_keys.c.sha256).where(
                api_keys.c.sha256 == bindparam("digest")
            ),
        )
        with self._database.read() as connection:
            found = self._database.run(connection, prepared, (digest,))
        for row in found:
            if hmac.compare_digest(row[-1], digest) and row[4] is None:
                return _api_key(row)
        return None

    def all(self) -> list[ApiKey]:
        """Every key there ever was, oldest first."""
        statement = select(*(api_keys.c[name] for name in _COLUMNS)).order_by(
            api_keys.c.created_at, api_keys.c.id
        )
        with self._database.read() as connection:
            return [_api_key(row) for row in connection.execute(statement)]

    def revoke(self, key_id: str, at: int, *, by: str = PROGRAM, via: str | None = None) -> bool:
        """End a key; returns whether it was there and in force. ``by`` and ``via`` as above."""
        statement = (
            update(api_keys)
            .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=at)
        )
        with self._database.write() as connection:
            was_there = connection.execute(statement).rowcount > 0
            if was_there:
                self._audit(connection, "key_revoked", key_id, {"by": by}, via or by, at)
        return was_there

    def _audit(
        self, connection: Connection, action: str, key_id: str, content: Mapping[str, Any],
        actor: str, at: int,
    ) -> None:  # fmt: skip
        entry = AuditEntry(at, actor, action, f"key:{key_id}", content)
        self._audit_log.append(connection, entry)


def _api_key(row: Any) -> ApiKey:
    return ApiKey(row[0], row[1], frozenset(row[2].split()), row[3], row[4], row[5])


def _hash(key: str) -> str:
    # A key holds 256 random bits, so there is nothing to guess and no slow hash is needed.
    return hashlib.sha256(key.encode()).hexdigest()
