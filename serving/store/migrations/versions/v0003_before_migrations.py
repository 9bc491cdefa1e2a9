"""The schema as it was before migrations: makes a new store, or one of version 1 to 3 the same.

Versions 1 and 2 had other indexes, and an index of keys that is to be made anew: it is left empty,
without the layout it was packed by. A store of version 3 has nothing missing.
"""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    inspect,
)

revision = "0003"
down_revision = None

_AT_3: Final = MetaData()

# Ids compare by bytes everywhere, as Python compares strings: ties must break alike on each store.
_ID: Final = Text().with_variant(Text(collation="C"), "postgresql")
_SEQ: Final = BigInteger().with_variant(Integer(), "sqlite")

Table(
    "meta",
    _AT_3,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

_events = Table(
    "events",
    _AT_3,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("event_id", _ID, nullable=False, unique=True),
    Column("event_type", _ID, nullable=False),
    Column("known_at", BigInteger, nullable=False),
    Column("order_id", _ID),
    Column("refund_id", _ID),
    Column("payload", Text, nullable=False),
    sqlite_autoincrement=True,
)

for _name in ("order_id", "refund_id"):
    _given = _events.c[_name].is_not(None)
    Index(  # in the order in which the versions of an order or refund follow one another
        f"events_by_{_name}", _events.c[_name], _events.c.event_type, _events.c.known_at,
        _events.c.event_id, sqlite_where=_given, postgresql_where=_given,
    )  # fmt: skip

Table(
    "event_keys",
    _AT_3,
    Column("slice", SmallInteger, nullable=False),
    Column("key_value", _ID, nullable=False),
    Column("known_at", BigInteger, nullable=False),
    Column("own_known_at", BigInteger, nullable=False),
    Column("event_id", _ID, nullable=False),
    Column("packed", LargeBinary, nullable=False),
    PrimaryKeyConstraint("slice", "key_value", "known_at", "own_known_at", "event_id"),
    sqlite_with_rowid=False,
)

Table(
    "entities",
    _AT_3,
    Column("kind", _ID, nullable=False),
    Column("value", _ID, nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("moved", BigInteger, nullable=False),
    PrimaryKeyConstraint("kind", "value"),
    sqlite_with_rowid=False,
)

Table(
    "identifiers",
    _AT_3,
    Column("kind", _ID, nullable=False),
    Column("mac", _ID, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    PrimaryKeyConstraint("kind", "mac"),
    sqlite_with_rowid=False,
)

Table(
    "refunds",
    _AT_3,
    Column("refund_id", _ID, primary_key=True),
    Column("state", Text, nullable=False),
    Column("state_at", BigInteger, nullable=False),
    Column("customer", _ID),
    Column("order_id", _ID, index=True),
    Column("first_known_at", BigInteger),
    Column("payable_minor", BigInteger),
    Column("currency", Text),
    Column("reserved_minor", BigInteger, nullable=False, server_default="0"),
    Column("score_id", _ID),
    sqlite_with_rowid=False,
)

Table(
    "decisions",
    _AT_3,
    Column("score_id", _ID, primary_key=True),
    Column("refund_id", _ID, nullable=False),
    Column("content_hash", _ID, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
    Column("record", Text, nullable=False),
    Column("response", Text, nullable=False),
    Index("decisions_by_refund", "refund_id", "content_hash", "decided_at"),
    Index("decisions_by_time", "decided_at", "score_id"),
)

Table(
    "name_lists",
    _AT_3,
    Column("id", _ID, primary_key=True),
    Column("names", Text, nullable=False),
    sqlite_with_rowid=False,
)

Table(
    "idempotency_keys",
    _AT_3,
    Column("api_key_id", _ID, nullable=False),
    Column("key", _ID, nullable=False),
    Column("content_hash", _ID, nullable=False),
    Column("status", Integer, nullable=False),
    Column("response", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    PrimaryKeyConstraint("api_key_id", "key"),
    sqlite_with_rowid=False,
)

Table(
    "audit_log",
    _AT_3,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", _ID, nullable=False, index=True),
    Column("content", Text, nullable=False),
    sqlite_autoincrement=True,
)

Table(
    "lists",
    _AT_3,
    Column("value", _ID, nullable=False),
    Column("list", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    PrimaryKeyConstraint("value", "list"),
    sqlite_with_rowid=False,
)

Table(
    "api_keys",
    _AT_3,
    Column("id", Text, primary_key=True),
    Column("sha256", Text, nullable=False, unique=True),
    Column("mode", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

Table(
    "fx_rates",
    _AT_3,
    Column("date", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("rate", Float(53), nullable=False),
    PrimaryKeyConstraint("date", "currency"),
    sqlite_with_rowid=False,
)


def upgrade() -> None:
    """Bring an empty database, or a store of version 1, 2 or 3, to version 3."""
    connection = op.get_bind()
    if _version(connection) in ("1", "2"):
        _AT_3.tables["event_keys"].drop(connection)
        connection.exec_driver_sql("DELETE FROM meta WHERE name = 'packed_layout'")
        for index in _events.indexes:
            index.drop(connection, checkfirst=True)
    _AT_3.create_all(connection)
    for name in ("events", "decisions"):
        for index in _AT_3.tables[name].indexes:
            index.create(connection, checkfirst=True)


def _version(connection: Connection) -> str | None:
    """The version of a store from before migrations; None for an empty database."""
    if not inspect(connection).has_table("meta"):
        return None
    kept = connection.exec_driver_sql("SELECT value FROM meta WHERE name = 'schema_version'")
    return kept.scalar_one_or_none()
