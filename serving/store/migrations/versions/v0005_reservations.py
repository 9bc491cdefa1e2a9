"""Reservations by refund, order and currency, in place of one amount a refund."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_ID: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_HOLD_WHAT_WAS_DECIDED: Final = """
INSERT INTO reservations
    (refund_id, order_id, currency, promised_minor, review_minor, paid_at)
SELECT
    refund_id, order_id, currency,
    CASE
        WHEN state IN ('APPROVED', 'EXECUTING', 'FAILED', 'REFUNDED')
            AND payable_minor > reserved_minor THEN payable_minor
        WHEN state = 'NEEDS_REVIEW' THEN 0
        ELSE reserved_minor
    END,
    CASE
        WHEN state <> 'NEEDS_REVIEW' THEN 0
        WHEN payable_minor > reserved_minor THEN payable_minor
        ELSE reserved_minor
    END,
    CASE WHEN state = 'REFUNDED' AND reserved_minor = 0 THEN state_at END
FROM refunds
WHERE score_id IS NOT NULL AND order_id IS NOT NULL AND payable_minor IS NOT NULL
"""
"""What was approved or waits for a person may be paid, also where no amount was reserved for it, as
in a store of version 3. Refunds decided on that hold nothing get a row, which says that they were.
Where a refused refund holds something, it was allowed or held when it was asked for again."""


def upgrade() -> None:
    """Bring a store from version 4 to version 5."""
    op.create_table(
        "reservations",
        sa.Column("refund_id", _ID, nullable=False),
        sa.Column("order_id", _ID, nullable=False),
        sa.Column("currency", _ID, nullable=False),
        sa.Column("promised_minor", sa.BigInteger(), nullable=False),
        sa.Column("review_minor", sa.BigInteger(), nullable=False),
        sa.Column("paid_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("refund_id", "order_id", "currency"),
        sqlite_with_rowid=False,
    )
    op.create_index("reservations_by_order", "reservations", ["order_id"])
    op.execute(_HOLD_WHAT_WAS_DECIDED)
    op.drop_column("refunds", "reserved_minor")
