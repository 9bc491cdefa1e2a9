"""Policies and the acts that put them in force; numbers of decisions; authors and key holders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ID: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_SEQ: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_NEW_COLUMNS: Final[Mapping[str, list[tuple[str, Any]]]] = {
    "lists": [("author", sa.Text())],
    "api_keys": [("name", sa.Text())],
    "decisions": [("features", sa.LargeBinary()), ("feature_names", _ID),
                  ("contributions", sa.LargeBinary()), ("contribution_names", _ID)],
}  # fmt: skip

_SAME: Final = {
    "policies": "hash = NEW.hash OR version = NEW.version",
    "policy_acts": "seq = NEW.seq",
    "audit_log": "seq = NEW.seq",
}
"""The tables that are only ever appended to, and which row a new one would replace: on SQLite an
INSERT OR REPLACE is neither an update nor a deletion. A seq that is still to be drawn is -1."""


def upgrade() -> None:
    """Bring a store from version 3 to version 4."""
    for table, columns in _NEW_COLUMNS.items():
        for name, kind in columns:
            op.add_column(table, sa.Column(name, kind))
    op.create_index("lists_by_time", "lists", ["list", "created_at", "value"])
    op.create_table(
        "policies",
        sa.Column("hash", _ID, primary_key=True),
        sa.Column("version", _ID, nullable=False, unique=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("note", sa.Text()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "policy_acts",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("hash", _ID, nullable=False),
        sa.Column("replaced", _ID),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("note", sa.Text()),
        sqlite_autoincrement=True,
    )
    for table, is_same in _SAME.items():
        for statement in _append_only(table, is_same):
            op.execute(statement)
    # Where programs from before there were versions in alembic_version look, to refuse the store.
    op.execute("DELETE FROM meta WHERE name = 'schema_version'")
    op.execute("INSERT INTO meta (name, value) VALUES ('schema_version', '4')")


def _append_only(table: str, is_same: str) -> list[str]:
    """Statements after which the database refuses to change, delete or replace a row."""
    if op.get_bind().dialect.name == "sqlite":
        refused = f"BEGIN SELECT RAISE(ABORT, '{table} is only ever appended to'); END"
        there = f"EXISTS (SELECT 1 FROM {table} WHERE {is_same})"
        return [
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refused}",
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refused}",
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {there} {refused}",
        ]
    return [
        "CREATE OR REPLACE FUNCTION only_ever_appended_to() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is only ever appended to'; "
        "END $$",
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION only_ever_appended_to()",
    ]
