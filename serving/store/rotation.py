"""The secret of a store is replaced: the same persons under new pseudonyms and new ciphertexts.

Who was erased has no ciphertext, and keeps the random pseudonym. Nothing that a decision reads is
different afterwards, and API keys, which do not depend on the secret, stay valid.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
import sqlalchemy
from sqlalchemy import Column, Connection, Engine, bindparam, delete, event, select, tuple_, update

from serving.store.accounts import Accounts
from serving.store.answered import name_of, reseal
from serving.store.attachments import Attachments
from serving.store.audit import NAMING, AuditEntry
from serving.store.database import Database, StoreRefusedError
from serving.store.identifiers import Identifiers
from serving.store.outbox import Outbox
from serving.store.renaming import FORMER, renamed
from serving.store.schema import (
    audit_log,
    decisions,
    entities,
    event_keys,
    events,
    idempotency_keys,
    identifiers,
    lists,
    meta,
    refunds,
    reviews,
)
from serving.store.seals import rekey
from serving.store.store import Store

_BATCH: Final = 5_000
_WAIT_MS: Final = 1_000
_IN_USE: Final = "the store is in use: end every service and command that has it open"

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many parts of the work are done, and of how many."""


@dataclass(frozen=True)
class Rotated:
    """What a rotation did: the ids of the two secrets, and the rows changed by table."""

    before: str
    after: str
    rows: Mapping[str, int]


def rotate(
    url: str, secret: bytes, new_secret: bytes, *, actor: str, at: int, via: str | None = None,
    progress: Progress | None = None,
) -> Rotated:  # fmt: skip
    """Put the store at ``url`` under another secret, in one transaction that nobody else may see.

    ``actor``, ``at`` (epoch ms) and ``via`` as in `serving.store.erasure.erase`. Some three minutes
    for a million events. Raises `StoreRefusedError` where somebody has the store open, where it is
    not under ``secret``, or where the two secrets are one.
    """
    before, after = Identifiers(secret), Identifiers(new_secret)
    if before.key_id == after.key_id:
        raise StoreRefusedError("the new secret: expected another one than the store has")
    database = _Alone(url)
    try:
        clock = database.check(before.key_id)
        database.upgrade(allowed=False)
        store = Store(database, before, clock)
        store.history.upgrade(allowed=False)
        with database.write() as connection:
            database.hold_off(connection)
            rows = _Rotation(store, connection, after, progress).run()
            rekey(connection, database, secret, new_secret)
            entry = AuditEntry(at, via or actor, "secret_rotated", "secret",
                               {"before": before.key_id, "after": after.key_id, "rows": rows},
                               {"by": actor})  # fmt: skip
            store.audit_log.append(connection, entry)
    finally:
        database.close()
    return Rotated(before.key_id, after.key_id, rows)


def key_id_of(url: str) -> str | None:
    """The id of the secret that a store is under; None where there is no store."""
    database = Database(url)
    if database.is_sqlite and not Path(sqlalchemy.make_url(url).database or "").exists():
        return None
    try:
        with database.read() as connection:
            if not sqlalchemy.inspect(connection).has_table(meta.name):
                return None
            found = select(meta.c.value).where(meta.c.name == "key_id")
            return str(connection.execute(found).scalar_one())
    finally:
        database.close()


class _Rotation:
    """One rotation, in the transaction of ``connection``."""

    def __init__(
        self, store: Store, connection: Connection, after: Identifiers, progress: Progress | None
    ) -> None:
        self._store, self._connection = store, connection
        self._before, self._after = store.identifiers, after
        self._progress = progress
        self._names: dict[tuple[str, str], str] = {}

    def run(self) -> dict[str, int]:
        """Do it; returns how many rows of which table changed."""
        if self._store.database.is_sqlite:
            self._connection.exec_driver_sql("PRAGMA secure_delete = ON")
        steps: Sequence[tuple[str, Callable[[], int]]] = (
            ("identifiers", self._reseal),
            ("events", lambda: self._change([events.c.seq], events.c.payload, (), self._payload)),
            ("decisions", lambda: self._change([decisions.c.score_id], decisions.c.record, (),
                                               self._record)),
            ("entities", lambda: self._change([entities.c.kind, entities.c.value],
                                              entities.c.value, [entities.c.kind], self._name)),
            ("lists", lambda: self._change([lists.c.value, lists.c.list], lists.c.value,
                                           [lists.c.entity], self._name)),
            ("refunds", lambda: self._change([refunds.c.refund_id], refunds.c.customer, (),
                                             lambda old: self._name(old, "customer"))),
            ("reviews", lambda: self._change([reviews.c.score_id], reviews.c.customer, (),
                                             lambda old: self._name(old, "customer"))),
            ("idempotency_keys", lambda: self._change(
                [idempotency_keys.c.api_key_id, idempotency_keys.c.key],
                idempotency_keys.c.response,
                [idempotency_keys.c.api_key_id, idempotency_keys.c.key], self._answer)),
            ("webhook_endpoints", self._outbox),
            ("accounts", self._accounts),
            ("attachments", self._attachments),
            ("event_keys", self._reindex),
        )  # fmt: skip
        rows = {}
        for done, (table, step) in enumerate(steps):
            if self._progress is not None:
                self._progress(done, len(steps))
            rows[table] = step()
        self._connection.execute(
            update(meta).where(meta.c.name == "key_id").values(value=self._after.key_id)
        )
        return rows

    # --- what is done --------------------------------------------------------------------------

    def _reseal(self) -> int:
        """The originals under new pseudonyms and ciphertexts, and those that audit entries name."""
        i, audited = identifiers.c, self._audited()
        found = self._connection.execute(select(i.kind, i.mac, i.ciphertext)).fetchall()
        self._connection.execute(delete(identifiers))
        rows = []
        for kind, old, ciphertext in found:
            original = self._before.reveal(kind, old, ciphertext)
            if kind.startswith(FORMER):
                rows.append(self._sealed(kind, old, original))
                continue
            name = self._names[kind, old] = self._after.mac(kind, original)
            rows.append(self._sealed(kind, name, original))
            if f"{kind}:{old}" in audited:
                rows.append(self._sealed(FORMER + kind, old, original))
        statement = self._store.database.inserting(
            identifiers, ("kind", "mac", "key_id", "ciphertext")
        )
        self._store.database.run_many(self._connection, statement, sorted(rows))
        return len(rows)

    def _sealed(self, kind: str, pseudonym: str, original: str) -> tuple[str, str, str, bytes]:
        return kind, pseudonym, self._after.key_id, self._after.seal(kind, pseudonym, original)

    def _audited(self) -> set[str]:
        """The persons that audit entries name in what is personal."""
        a, named = audit_log.c, set()
        statement = select(a.content, a.personal).where(
            a.subject.in_(NAMING), a.personal.is_not(None)
        )
        for content, text in self._connection.execute(statement):
            personal = orjson.loads(text)["personal"]
            if "customer" in personal:
                named.add(f"customer:{personal['customer']}")
            if "value" in personal:
                named.add(f"{orjson.loads(content)['entity']}:{personal['value']}")
        return named

    def _reindex(self) -> int:
        self._store.history.reindex(self._connection)
        count = select(sqlalchemy.func.count()).select_from(event_keys)
        return self._connection.execute(count).scalar_one()

    def _outbox(self) -> int:
        return Outbox(self._store.database, self._after).reseal(self._connection, self._before)

    def _attachments(self) -> int:
        attachments = Attachments(self._store.database, self._after)
        return attachments.reseal(self._connection, self._before)

    def _accounts(self) -> int:
        return Accounts(self._store.database, self._after).reseal(self._connection, self._before)

    # --- how a value changes -------------------------------------------------------------------

    def _payload(self, text: str) -> str:
        return orjson.dumps(renamed(orjson.loads(text), self._names)).decode()

    def _record(self, text: str) -> str:
        record = orjson.loads(text)
        keys = record["keys"]
        record["keys"] = {k: self._names.get((k, old), old) for k, old in keys.items()}
        return orjson.dumps(record).decode()

    def _answer(self, text: str, api_key_id: str, key: str) -> str:
        return reseal(self._before, self._after, name_of(api_key_id, key), text)

    def _name(self, old: str | None, kind: str) -> str | None:
        return None if old is None else self._names.get((kind, old), old)

    def _change(
        self, keys: Sequence[Column[Any]], column: Column[Any], given: Sequence[Column[Any]],
        change: Callable[..., Any],
    ) -> int:  # fmt: skip
        """Change a column of a table, row by row in the order of its key; returns of how many.

        ``change`` is handed the value and what the columns ``given`` hold. A row whose key changes
        may be met again; its value is a new one by then, and stays.
        """
        place, count = tuple_(*keys), 0
        statement = (
            update(column.table)
            .where(*(key == bindparam(f"key_{n}") for n, key in enumerate(keys)))
            .values({column.name: bindparam("new")})
        )
        reading = select(*keys, column.label("old"), *given).order_by(*keys).limit(_BATCH)
        rows = self._connection.execute(reading).fetchall()
        while rows:
            changed = []
            for row in rows:
                old, *rest = row[len(keys) :]
                if (new := change(old, *rest)) != old:
                    named = {f"key_{n}": value for n, value in enumerate(row[: len(keys)])}
                    changed.append({**named, "new": new})
            if changed:
                self._connection.execute(statement, changed)
            count += len(changed)
            after = tuple_(*rows[-1][: len(keys)])
            rows = self._connection.execute(reading.where(place > after)).fetchall()
        return count


# --- alone -------------------------------------------------------------------------------------


class _Alone(Database):
    """A database that nobody else has open, and nobody else can open meanwhile."""

    def _sqlite_engines(self, url: sqlalchemy.URL) -> tuple[Engine, Engine]:
        engines = super()._sqlite_engines(url)
        # Before anything else: SQLite then shares nothing of this file with another connection.
        event.listen(engines[0], "connect", _take_alone, insert=True)
        return engines

    def write_back(self, *, whole: bool = False) -> None:
        """Not before it is closed: another connection, which that takes, is refused."""

    def hold_off(self, connection: Connection) -> None:
        """On PostgreSQL: refuse where another is connected, and let nobody open the store."""
        if self.is_sqlite:
            return
        connection.exec_driver_sql("LOCK TABLE meta IN ACCESS EXCLUSIVE MODE")
        others = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).scalar_one()
        # One is the connection of this process that reads.
        if others > 1:
            raise StoreRefusedError(f"{_IN_USE} ({others - 1} are connected)")


def _take_alone(connection: Any, _: object) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_WAIT_MS}")
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    try:
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        raise StoreRefusedError(_IN_USE) from error
