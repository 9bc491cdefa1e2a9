"""The review desk: a review for each refund that waits for a person, and what people did on it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_ID: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_SEQ: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_DUE_AFTER_MS: Final = 24 * 3_600_000
_UNKNOWN_PLACE: Final = -(2**62)
_BATCH: Final = 500


def upgrade() -> None:
    """Bring a store from version 6 to version 7."""
    _tables()
    _open_what_waits()


def _tables() -> None:
    big = sa.BigInteger
    op.create_table(
        "reviews",
        sa.Column("score_id", _ID, nullable=False),
        sa.Column("refund_id", _ID, nullable=False),
        sa.Column("customer", _ID, nullable=False),
        sa.Column("order_id", _ID),
        sa.Column("currency", _ID, nullable=False),
        sa.Column("amount_minor", big(), nullable=False),
        sa.Column("due_minor", big(), nullable=False),
        sa.Column("payable_minor", big()),
        sa.Column("expected_loss_minor", big()),
        sa.Column("probability", sa.Float(53)),
        sa.Column("place", big(), nullable=False),
        sa.Column("opened_at", big(), nullable=False),
        sa.Column("due_at", big(), nullable=False),
        sa.Column("overdue_told_at", big()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("assignee", sa.Text()),
        sa.Column("closed_at", big()),
        sa.Column("ending", sa.Text()),
        sa.Column("closed_by", sa.Text()),
        sa.PrimaryKeyConstraint("score_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("reviews_by_refund", "reviews", ["refund_id", "opened_at"])
    for index, columns, which in (
        ("reviews_open_by_refund", "refund_id", "closed_at IS NULL"),
        ("reviews_open_by_place", "place score_id status assignee due_at", "status != 'DONE'"),
        ("reviews_open_by_due", "due_at overdue_told_at", "status != 'DONE'"),
        ("reviews_closed", "closed_at score_id", "closed_at IS NOT NULL"),
    ):
        those = sa.text(which)
        op.create_index(
            index, "reviews", columns.split(), unique=index == "reviews_open_by_refund",
            sqlite_where=those, postgresql_where=those,
        )  # fmt: skip
    op.create_table(
        "review_acts",
        sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
        sa.Column("refund_id", _ID, nullable=False),
        sa.Column("score_id", _ID, nullable=False),
        sa.Column("at", big(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("justification", sa.Text()),
        sa.Column("abuse", sa.Boolean()),
        sa.Column("assignee", sa.Text()),
        sqlite_autoincrement=True,
    )
    op.create_index("review_acts_by_refund", "review_acts", ["refund_id", "seq"])
    op.create_index("review_acts_by_time", "review_acts", ["at"])


_WAITING: Final = """
SELECT d.score_id, r.refund_id, r.customer, r.order_id, r.currency, r.payable_minor, d.decided_at,
    d.record, e.payload
FROM refunds AS r JOIN decisions AS d ON d.score_id = r.score_id
LEFT JOIN events AS e ON e.refund_id = r.refund_id AND e.event_type = 'refund_request'
    AND e.known_at <= d.decided_at
WHERE r.state IN ('NEEDS_REVIEW', 'EXECUTING', 'FAILED')
    OR (r.state IN ('APPROVED', 'REFUNDED') AND d.decided_at > r.state_at)
ORDER BY d.score_id, e.known_at DESC, e.event_id
"""
"""Every refund that its last decision may have held, with the versions of its request.

One that was promised stays so when it is asked for with other fields that are held; what was
decided when it was approved held nothing, and what was paid since waits for nobody.
"""


def _open_what_waits() -> None:
    """Reviews of the refunds that wait for a person already; they have a day from their decision.

    What a refund is worth in the base currency stands in its decision among hundreds of numbers, so
    it is left unknown: the queue goes by the expected loss.
    """
    connection = op.get_bind()
    found = connection.execute(sa.text(_WAITING)).fetchall()
    rows = list(_reviews(found))
    names = list(rows[0]) if rows else []
    statement = sa.text(
        f"INSERT INTO reviews ({', '.join(names)}) VALUES ({', '.join(f':{n}' for n in names)})"
    )
    for start in range(0, len(rows), _BATCH):
        connection.execute(statement, rows[start : start + _BATCH])


def _reviews(found: Any) -> Iterator[Mapping[str, Any]]:
    of_decision: dict[str, list[Any]] = {}
    for row in found:
        of_decision.setdefault(row[0], []).append(row)
    for score_id, rows in of_decision.items():
        _, refund_id, customer, order_id, currency, due_minor, at, text, _ = rows[0]
        record = json.loads(text)
        if record.get("decision", {}).get("action") not in ("MANUAL_REVIEW", "REVIEW"):
            continue
        asked = _request(record, [json.loads(row[8]) for row in rows if row[8]])
        amount_minor = int((record.get("facts") or {}).get("amount_minor", due_minor or 0))
        if asked is not None:
            customer, order_id = asked["customer_id"], asked.get("order_id")
            currency, amount_minor = asked["currency"], asked["amount_minor"]
            due_minor = max(0, amount_minor - (asked.get("non_refundable_minor") or 0))
        if customer is None or currency is None or due_minor is None:
            continue
        loss = record.get("expected_loss_minor")
        yield {
            "score_id": score_id,
            "refund_id": refund_id,
            "customer": customer,
            "order_id": order_id,
            "currency": currency,
            "amount_minor": amount_minor,
            "due_minor": due_minor,
            "expected_loss_minor": None if loss is None else round(loss),
            "probability": record.get("probability"),
            "place": _UNKNOWN_PLACE if loss is None else -round(loss),
            "opened_at": at,
            "due_at": at + _DUE_AFTER_MS,
            "status": "OPEN",
        }


def _request(
    record: Mapping[str, Any], versions: list[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The version that a decision is about: it names it; else the latest, which is the first."""
    named = [each for each in versions if each.get("event_id") == record.get("event_id")]
    return next(iter(named or versions), None)
