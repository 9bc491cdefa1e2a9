"""API keys: shown once when made, stored as a hash, compared in constant time.

That one is made, replaced or revoked is audited in the same transaction, under the key's id.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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
_COLUMNS: Final = ("id", "mode", "scopes", "created_at", "revoked_at", "name", "expires_at")
_KEPT: Final = ("id", "sha256", "mode", "scopes", "created_at", "name", "expires_at")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key without the key; ``name`` is its holder's, if it was made with one.

    It ends when it is revoked, or at ``expires_at`` (epoch ms, None: never).
    """

    id: str
    mode: Mode
    scopes: frozenset[str]
    created_at: int
    revoked_at: int | None = None
    name: str | None = None
    expires_at: int | None = None

    def in_force(self, at: int) -> bool:
        """Whether it may be used at an instant.

        >>> key = ApiKey("key_1", "live", frozenset({"score"}), 0, expires_at=10)
        >>> key.in_force(9), key.in_force(10)
        (True, False)
        """
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


class RotatedError(ValueError):
    """A key that another has taken the place of: ``successor`` is the other's id."""

    def __init__(self, key_id: str, successor: str) -> None:
        super().__init__(f"{key_id} was rotated already: in its place is {successor}")
        self.successor = successor


class ApiKeys:
    """The API keys of one database. Holds no state of its own: revoking works at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._audit_log = AuditLog(database)

    def create(
        self, mode: Mode, scopes: Iterable[str], at: int, name: str | None = None, *,
        by: str = PROGRAM, via: str | None = None, expires_at: int | None = None,
    ) -> str:  # fmt: skip
        """A new key of 256 bits, which nobody can show again.

        ``name`` says who holds it: what is done with the key is done by them. ``by`` is who makes
        it, and ``via`` how the audit log names who asked, where that is more than the person.
        Raises `ValueError` for a mode or scopes that do not exist, for what is no person's name
        (`serving.persons`), and for an end that is not after ``at``.
        """
        wanted = sorted(set(scopes))
        unknown = [scope for scope in wanted if scope not in SCOPES]
        if unknown or not wanted:
            got = ", ".join(map(repr, unknown)) or "none"
            raise ValueError(f"scopes: expected some of {', '.join(SCOPES)}, got {got}")
        if mode not in ("test", "live"):
            raise ValueError(f"mode: expected test or live, got {mode!r}")
        if expires_at is not None and expires_at <= at:
            raise ValueError(f"expires_at: expected a time after {at} ms, got {expires_at}")
        holder = None if name is None else name_of_person(name)
        made = ApiKey(_new_id(), mode, frozenset(wanted), at, name=holder, expires_at=expires_at)
        content = {"mode": mode, "scopes": wanted, "expires_at": expires_at}
        with self._database.write() as connection:
            key = self._keep(connection, made)
            self._audit(connection, "key_created", made.id, content, {"name": holder, "by": by},
                        via or by, at)  # fmt: skip
        return key

    def rotate(
        self, key_id: str, at: int, grace_ms: int, *, by: str = PROGRAM, via: str | None = None,
        expires_at: int | None = None,
    ) -> tuple[str, ApiKey, int] | None:  # fmt: skip
        """A new key in place of one in force, which ends ``grace_ms`` from now at the latest.

        The new one has the mode, scopes and name of the old; it ends at ``expires_at`` or, where
        none is given, after as long as the old one had. Returns the new key, its entry and when
        the old one ends; None where none of this id is in force. Raises `RotatedError` for one
        whose successor is in force: of two, one would be nobody's.
        """
        if grace_ms < 0:
            raise ValueError(f"grace_ms: expected 0 or more, got {grace_ms}")
        with self._database.write() as connection:
            self._database.lock(connection, [("api_key", key_id)])
            statement = select(*_columns()).where(api_keys.c.id == key_id)
            row = connection.execute(statement).one_or_none()
            old = None if row is None else _api_key(row)
            if old is None or not old.in_force(at):
                return None
            successor = self._successor(connection, key_id, at)
            if successor is not None:
                raise RotatedError(key_id, successor)
            ends = at + grace_ms if old.expires_at is None else min(at + grace_ms, old.expires_at)
            if expires_at is None:
                meant = self._end_at_first(connection, old)
                expires_at = None if meant is None else at + meant - old.created_at
            new = replace(old, id=_new_id(), created_at=at, expires_at=expires_at)
            key = self._keep(connection, new)
            ended = {"expires_at": ends} if grace_ms else {"revoked_at": at}
            connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(**ended))
            self._audit(connection, "key_rotated", key_id, {"to": new.id, "ends_at": ends},
                        {"by": by}, via or by, at)  # fmt: skip
            content = {"mode": new.mode, "scopes": sorted(new.scopes), "expires_at": expires_at,
                       "in_place_of": key_id}  # fmt: skip
            self._audit(connection, "key_created", new.id, content, {"name": new.name, "by": by},
                        via or by, at)  # fmt: skip
        return key, new, ends

    def _successor(self, connection: Connection, key_id: str, at: int) -> str | None:
        """A key in force that one was rotated to, at once or by way of others."""
        rotated = [key_id]
        for one in rotated:
            for entry in self._audit_log.about(connection, f"key:{one}"):
                if entry.action != "key_rotated":
                    continue
                new = entry.content["to"]
                statement = select(*_columns()).where(api_keys.c.id == new)
                row = connection.execute(statement).one_or_none()
                if row is not None and _api_key(row).in_force(at):
                    return str(new)
                rotated.append(new)
        return None

    def _end_at_first(self, connection: Connection, key: ApiKey) -> int | None:
        """When a key was to end as it was made; where it was rotated it ends with the grace."""
        for entry in self._audit_log.about(connection, f"key:{key.id}"):
            if entry.action == "key_created":
                end: int | None = entry.content.get("expires_at")
                return end
        return key.expires_at

    def _keep(self, connection: Connection, made: ApiKey) -> str:
        """Store a new key's entry; returns the key."""
        key = f"sk_{made.mode}_{secrets.token_urlsafe(_KEY_BYTES)}"
        row = (made.id, _hash(key), made.mode, " ".join(sorted(made.scopes)), made.created_at,
               made.name, made.expires_at)  # fmt: skip
        self._database.run(connection, self._database.inserting(api_keys, _KEPT), row)
        return key

    def verify(self, key: str, at: int | None = None) -> ApiKey | None:
        """The key's entry; None for a key that is unknown, revoked, or ended at ``at`` (ms).

        Without ``at`` the caller asks `ApiKey.in_force`.
        """
        digest = _hash(key)
        prepared = self._database.prepared(
            "api_key",
            lambda: select(*_columns(), api_keys.c.sha256).where(
                api_keys.c.sha256 == bindparam("digest")
            ),
        )
        with self._database.read() as connection:
            found = self._database.run(connection, prepared, (digest,))
        for row in found:
            if hmac.compare_digest(row[-1], digest) and row[4] is None:
                entry = _api_key(row)
                return entry if at is None or entry.in_force(at) else None
        return None

    def all(self) -> list[ApiKey]:
        """Every key there ever was, oldest first."""
        statement = select(*_columns()).order_by(api_keys.c.created_at, api_keys.c.id)
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
                self._audit(connection, "key_revoked", key_id, {}, {"by": by}, via or by, at)
        return was_there

    def _audit(
        self, connection: Connection, action: str, key_id: str, content: Mapping[str, Any],
        personal: Mapping[str, Any], actor: str, at: int,
    ) -> None:  # fmt: skip
        entry = AuditEntry(at, actor, action, f"key:{key_id}", content, personal)
        self._audit_log.append(connection, entry)


def _api_key(row: Any) -> ApiKey:
    return ApiKey(row[0], row[1], frozenset(row[2].split()), row[3], row[4], row[5], row[6])


def _columns() -> list[Any]:
    return [api_keys.c[name] for name in _COLUMNS]


def _new_id() -> str:
    return f"key_{secrets.token_hex(8)}"


def _hash(key: str) -> str:
    # A key holds 256 random bits, so there is nothing to guess and no slow hash is needed.
    return hashlib.sha256(key.encode()).hexdigest()
