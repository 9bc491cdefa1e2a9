"""Policy versions, kept for ever, and the acts that put one of them in force.

Both tables are only ever appended to, which the database itself holds: what a policy that once
decided said, and who put it in force, can be shown for every decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from sqlalchemy import Connection, func, select

from serving.store.database import Database
from serving.store.schema import policies, policy_acts

ActName: TypeAlias = Literal["activated", "rolled_back"]

_VERSION: Final = ("hash", "version", "text", "author", "note", "created_at")
_ACT: Final = ("seq", "at", "act", "hash", "replaced", "actor", "note")


class PolicyExistsError(Exception):
    """A policy of this version is kept already, and says something else."""


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A policy as it was given: ``text`` is the document, ``hash`` that of its content.

    ``author`` is who proposed it, ``created_at`` when (epoch milliseconds).
    """

    hash: str
    version: str
    text: str
    author: str
    note: str | None
    created_at: int


@dataclass(frozen=True, slots=True)
class PolicyAct:
    """That ``actor`` put the policy ``hash`` in force in place of ``replaced`` (None: the first).

    ``seq`` rises with every act.
    """

    seq: int
    at: int
    act: ActName
    hash: str
    replaced: str | None
    actor: str
    note: str | None


class Policies:
    """The policies of one database. Holds no state of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- versions ----------------------------------------------------------------------------

    def add(
        self, connection: Connection, *, version: str, hash: str, text: str, author: str,
        note: str | None, at: int,
    ) -> PolicyVersion:  # fmt: skip
        """Keep a policy; one of this hash that is kept already is returned as it is.

        Raises `PolicyExistsError` for a version that is kept with other content.
        """
        self.lock(connection)
        if (kept := self.by_hash(connection, hash)) is not None:
            return kept
        if (kept := self.get(connection, version)) is not None:
            raise PolicyExistsError(
                f"policy {version!r} is kept with hash {kept.hash}, got other content with hash "
                f"{hash}: expected a version that is not used yet"
            )
        added = PolicyVersion(hash, version, text, author, note, at)
        row = tuple(getattr(added, name) for name in _VERSION)
        self._database.run(connection, self._database.inserting(policies, _VERSION), row)
        return added

    def versions(self, connection: Connection) -> list[PolicyVersion]:
        """Every policy there ever was, the oldest first."""
        columns = [policies.c[name] for name in _VERSION]
        statement = select(*columns).order_by(policies.c.created_at, policies.c.version)
        return [PolicyVersion(*row) for row in connection.execute(statement)]

    def get(self, connection: Connection, version: str) -> PolicyVersion | None:
        """The policy of this version."""
        return self._one(connection, policies.c.version == version)

    def by_hash(self, connection: Connection, hash: str) -> PolicyVersion | None:
        """The policy of this hash."""
        return self._one(connection, policies.c.hash == hash)

    def _one(self, connection: Connection, is_wanted: Any) -> PolicyVersion | None:
        columns = [policies.c[name] for name in _VERSION]
        row = connection.execute(select(*columns).where(is_wanted)).fetchone()
        return PolicyVersion(*row) if row else None

    # --- acts --------------------------------------------------------------------------------

    def lock(self, connection: Connection) -> None:
        """Hold other authors and activations off until the transaction ends."""
        self._database.lock(connection, [("policies",)])

    def activate(
        self, connection: Connection, hash: str, *, actor: str, at: int,
        act: ActName = "activated", note: str | None = None,
    ) -> PolicyAct:  # fmt: skip
        """Put a policy in force, whichever is in force now.

        Raises `ValueError` for a policy that is not kept, or an act of another name.
        """
        if act not in get_args(ActName):
            raise ValueError(f"act: expected {' or '.join(get_args(ActName))}, got {act!r}")
        self.lock(connection)
        if self.by_hash(connection, hash) is None:
            raise ValueError(f"hash: expected that of a policy that is kept, got {hash!r}")
        replaced = self.active(connection)
        row = (at, act, hash, replaced.hash if replaced else None, actor, note)
        statement = self._database.inserting(policy_acts, _ACT[1:])
        self._database.run(connection, statement, row)
        return PolicyAct(self.last_act(connection), *row)

    def active(self, connection: Connection) -> PolicyVersion | None:
        """The policy in force; None before the first act."""
        last = select(policy_acts.c.hash).order_by(policy_acts.c.seq.desc()).limit(1)
        return self._one(connection, policies.c.hash == last.scalar_subquery())

    def last_act(self, connection: Connection) -> int:
        """The number of the last act; 0 before the first."""
        prepared = self._database.prepared(
            "last_policy_act", lambda: select(func.max(policy_acts.c.seq))
        )
        [(seq,)] = self._database.run(connection, prepared, ())
        return seq or 0

    def acts(self, connection: Connection) -> list[PolicyAct]:
        """Every act, the first first."""
        columns = [policy_acts.c[name] for name in _ACT]
        statement = select(*columns).order_by(policy_acts.c.seq)
        return [PolicyAct(*row) for row in connection.execute(statement)]
