"""What running the service asks for: the sealed audit log, webhooks, erasure, keys in rotation."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_ID: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_SEQ: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring a store from version 5 to version 6."""
    op.add_column("events", sa.Column("xid", sa.BigInteger()))
    if op.get_bind().dialect.name == "postgresql":
        # As a default of what is to come: the rows there are need not be written anew.
        op.execute("ALTER TABLE events ALTER xid SET DEFAULT pg_current_xact_id()::text::bigint")
    _audit()
    op.add_column("api_keys", sa.Column("expires_at", sa.BigInteger()))
    op.add_column(
        "entities", sa.Column("latest", sa.BigInteger(), nullable=False, server_default="0")
    )
    _webhooks()
    _keys_first()


def _keys_first() -> None:
    """The index of keys by key, and then by slice: a decision reads all slices of a key."""
    columns = "slice, key_value, known_at, own_known_at, event_id, packed"
    in_order = ["key_value", "slice", "known_at", "own_known_at", "event_id"]
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint("event_keys_pkey", "event_keys", type_="primary")
        op.create_primary_key("event_keys_pkey", "event_keys", in_order)
        return
    op.rename_table("event_keys", "event_keys_before")
    op.create_table(
        "event_keys",
        sa.Column("slice", sa.SmallInteger(), nullable=False),
        sa.Column("key_value", _ID, nullable=False),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.Column("own_known_at", sa.BigInteger(), nullable=False),
        sa.Column("event_id", _ID, nullable=False),
        sa.Column("packed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(*in_order),
        sqlite_with_rowid=False,
    )
    op.execute(
        f"INSERT INTO event_keys ({columns}) SELECT {columns} FROM event_keys_before "
        f"ORDER BY {', '.join(in_order)}"
    )
    op.drop_table("event_keys_before")


def _webhooks() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", _ID, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("types", sa.Text(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary()),
        sa.Column("previous_until", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger()),
        sa.Column("disabled_why", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("url"),
    )
    op.create_table(
        "webhook_outbox",
        sa.Column("webhook_id", _ID, nullable=False),
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_since", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger()),
        sa.Column("dead_at", sa.BigInteger()),
        sa.Column("outcome", sa.Text()),
        sa.PrimaryKeyConstraint("webhook_id", "endpoint_id"),
        sqlite_with_rowid=False,
    )
    for name, columns in (
        ("next_at", ["endpoint_id", "next_at", "created_at"]), ("dead_at", ["dead_at"]),
    ):  # fmt: skip
        given = sa.text(f"{name} IS NOT NULL")
        op.create_index(
            f"webhook_outbox_by_{name}", "webhook_outbox", columns,
            sqlite_where=given, postgresql_where=given,
        )  # fmt: skip
    op.create_table(
        "leases",
        sa.Column("name", _ID, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until_at", sa.BigInteger(), nullable=False),
        sa.Column("ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
    )


# --- the audit log -------------------------------------------------------------------------------

_PERSONAL: Final = ("by", "name", "note", "reason")
"""What entries of version 5 hold of persons, beside what only says what was done."""

_UNCHANGED: Final = ("seq", "at", "actor", "action", "subject", "content", "commitment")


def _audit() -> None:
    """Personal content beside its commitment, and the seals; only personal content can be erased.

    What entries hold of persons is moved while nothing is sealed: afterwards it would be for ever.
    """
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.execute(
        "DROP TRIGGER audit_log_no_update"
        if is_sqlite
        else "DROP TRIGGER audit_log_append_only ON audit_log"
    )
    for name in ("commitment", "personal"):
        op.add_column("audit_log", sa.Column(name, sa.Text()))
    _move_personal()
    op.create_table(
        "audit_seals",
        sa.Column("position", _SEQ, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
    )
    for statement in _only_erased_sqlite() if is_sqlite else _only_erased_postgresql():
        op.execute(statement)


def _move_personal() -> None:
    connection = op.get_bind()
    rows = connection.execute(
        sa.text("SELECT seq, action, subject, content FROM audit_log "
                "WHERE action NOT IN ('decided', 'reported')")
    ).fetchall()  # fmt: skip
    for seq, action, subject, text in rows:
        content = json.loads(text)
        personal = {name: content.pop(name) for name in _PERSONAL if name in content}
        if action in ("listed", "unlisted"):  # a pseudonym in a subject could never be erased
            content["entity"], _, personal["value"] = subject.partition(":")
            subject = f"list:{content.pop('list')}"
        if all(value is None for value in personal.values()):
            continue
        salted = json.dumps({"salt": secrets.token_hex(16), "personal": personal},
                            separators=(",", ":"))  # fmt: skip
        connection.execute(
            sa.text("UPDATE audit_log SET subject = :subject, content = :content, "
                    "personal = :personal, commitment = :commitment WHERE seq = :seq"),
            {"subject": subject, "content": json.dumps(content, separators=(",", ":")),
             "personal": salted, "commitment": hashlib.sha256(salted.encode()).hexdigest(),
             "seq": seq},
        )  # fmt: skip


def _only_erased_sqlite() -> list[str]:
    changed = " OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in _UNCHANGED)
    log, seals = (f"BEGIN SELECT RAISE(ABORT, '{table} is only ever appended to'); END"
                  for table in ("audit_log", "audit_seals"))  # fmt: skip
    there = "EXISTS (SELECT 1 FROM audit_seals WHERE position = NEW.position)"
    return [
        "CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log "
        f"WHEN NEW.personal IS NOT NULL OR OLD.personal IS NULL OR {changed} {log}",
        f"CREATE TRIGGER audit_seals_no_update BEFORE UPDATE ON audit_seals {seals}",
        f"CREATE TRIGGER audit_seals_no_delete BEFORE DELETE ON audit_seals {seals}",
        f"CREATE TRIGGER audit_seals_no_replace BEFORE INSERT ON audit_seals WHEN {there} {seals}",
    ]


def _only_erased_postgresql() -> list[str]:
    changed = " OR ".join(f"NEW.{name} IS DISTINCT FROM OLD.{name}" for name in _UNCHANGED)
    refused = "EXECUTE FUNCTION only_ever_appended_to()"
    return [
        "CREATE TRIGGER audit_log_append_only BEFORE DELETE OR TRUNCATE ON audit_log "
        f"FOR EACH STATEMENT {refused}",
        "CREATE TRIGGER audit_log_only_erased BEFORE UPDATE ON audit_log FOR EACH ROW "
        f"WHEN (NEW.personal IS NOT NULL OR OLD.personal IS NULL OR {changed}) {refused}",
        "CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seals "
        f"FOR EACH STATEMENT {refused}",
    ]
