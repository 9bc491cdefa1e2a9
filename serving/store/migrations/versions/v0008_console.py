"""The console: accounts and sessions, evidence, who stands behind an approval, and jobs."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_ID: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_ENOUGH: Final = """
SELECT 1 FROM review_approvals AS a WHERE a.score_id = NEW.score_id AND (
    a.first_limit_minor IS NULL OR NEW.payable_minor <= a.first_limit_minor
    OR (a.second_by <> a.first_by AND a.second_rank > a.first_rank
        AND (a.second_limit_minor IS NULL OR NEW.payable_minor <= a.second_limit_minor)))
"""
"""Whether those who stand behind an approval are enough: one within a limit, or two people of whom
the second ranks higher. Of what is not known how much it is, only no limit is enough."""

_REFUSED: Final = "a review ends as approved only with enough people behind it"


def upgrade() -> None:
    """Bring a store from version 7 to version 8."""
    _approvals()
    _queue()
    _worth_of_what_waits()
    _attachments()
    _accounts()
    _jobs()


def _approvals() -> None:
    op.create_table(
        "review_approvals",
        sa.Column("score_id", _ID, primary_key=True),
        sa.Column("first_by", sa.Text(), nullable=False),
        sa.Column("first_rank", sa.Integer(), nullable=False),
        sa.Column("first_limit_minor", sa.BigInteger()),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("justification", sa.Text()),
        sa.Column("abuse", sa.Boolean()),
        sa.Column("second_by", sa.Text()),
        sa.Column("second_rank", sa.Integer()),
        sa.Column("second_limit_minor", sa.BigInteger()),
        sa.Column("second_at", sa.BigInteger()),
        sqlite_with_rowid=False,
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    differs = "IS NOT" if is_sqlite else "IS DISTINCT FROM"
    is_approved = f"NEW.ending = 'approved' AND OLD.ending {differs} 'approved'"
    if is_sqlite:
        op.execute(
            "CREATE TRIGGER reviews_approved_by_enough BEFORE UPDATE OF ending ON reviews "
            f"WHEN {is_approved} AND NOT EXISTS ({_ENOUGH}) "
            f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"
        )
        return
    op.execute(
        "CREATE OR REPLACE FUNCTION approved_by_enough() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF NOT EXISTS ({_ENOUGH}) THEN RAISE EXCEPTION '{_REFUSED}'; END IF; "
        "RETURN NEW; END $$"
    )
    op.execute(
        "CREATE TRIGGER reviews_approved_by_enough BEFORE UPDATE OF ending ON reviews "
        f"FOR EACH ROW WHEN ({is_approved}) EXECUTE FUNCTION approved_by_enough()"
    )


def _queue() -> None:
    """The index of what waits holds all that the queue is asked for by."""
    columns = ["place", "score_id", "status", "assignee", "due_at", "opened_at", "payable_minor",
               "currency", "order_id", "customer"]  # fmt: skip
    those = sa.text("status != 'DONE'")
    op.drop_index("reviews_open_by_place", "reviews")
    op.create_index("reviews_open_by_place", "reviews", columns, sqlite_where=those,
                    postgresql_where=those)  # fmt: skip


def _worth_of_what_waits() -> None:
    """Of reviews that an upgrade opened, what they come to in the base currency.

    It stands among the numbers of the decision. What nobody can say how much it is would be above
    everybody's limit.
    """
    connection = op.get_bind()
    names = {
        of: json.loads(kept)
        for of, kept in connection.execute(sa.text("SELECT id, names FROM name_lists"))
    }
    found = connection.execute(
        sa.text(
            "SELECT r.score_id, r.expected_loss_minor, d.features, d.feature_names, d.record, "
            "r.currency, r.due_minor "
            "FROM reviews AS r JOIN decisions AS d ON d.score_id = r.score_id "
            "WHERE r.closed_at IS NULL AND r.payable_minor IS NULL"
        )
    )
    known = []
    for score_id, loss, numbers, named, record, currency, due in found:
        payable = _number("payable_minor", numbers, names.get(named, ()))
        if payable is None and json.loads(record).get("base_currency") == currency:
            payable = due
        if payable is not None:
            place = -payable if loss is None else -loss
            known.append({"id": score_id, "payable": payable, "place": place})
    if known:
        connection.execute(
            sa.text("UPDATE reviews SET payable_minor = :payable, place = :place "
                    "WHERE score_id = :id"),
            known,
        )  # fmt: skip


def _number(name: str, numbers: bytes | None, names: Sequence[str]) -> int | None:
    """One of a decision's numbers (float64, little-endian), rounded; None for an unknown one."""
    if numbers is None or name not in names:
        return None
    (value,) = struct.unpack_from("<d", numbers, 8 * names.index(name))
    return None if math.isnan(value) else round(value)


def _attachments() -> None:
    op.create_table(
        "attachments",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("refund_id", _ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
    )
    op.create_index("attachments_by_refund", "attachments", ["refund_id", "added_at"])


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_key", _ID, nullable=False, unique=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("limit_minor", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("password", sa.Text()),
        sa.Column("totp", sa.LargeBinary()),
        sa.Column("totp_step", sa.BigInteger()),
        sa.Column("invitation", sa.Text(), unique=True),
        sa.Column("invited_until", sa.BigInteger()),
        sa.Column("disabled_at", sa.BigInteger()),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sign_in_tries",
        sa.Column("name_mac", _ID, primary_key=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("locked_until", sa.BigInteger()),
        sqlite_with_rowid=False,
    )
    op.create_index("sign_in_tries_by_time", "sign_in_tries", ["last_at"])
    op.create_table(
        "sessions",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("sessions_by_account", "sessions", ["account_id"])


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("begun_at", sa.BigInteger()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("done_at", sa.BigInteger()),
        sa.Column("problem", sa.Text()),
        sa.Column("document", sa.Text()),
        sa.Column("page", sa.Text()),
        sqlite_with_rowid=False,
    )
    op.create_index("jobs_by_kind", "jobs", ["kind", "asked_at"])
