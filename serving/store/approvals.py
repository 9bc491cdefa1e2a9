"""Who stands behind a refund that a person approved, or proposed to: one within a limit, or two.

A trigger of the store lets no review end as approved without a row here that is enough for it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete

from serving.store.database import Database
from serving.store.schema import review_approvals


class Approval(NamedTuple):
    """Who approved a refund at its review, and who seconded it; times are epoch ms.

    Ranks are `serving.roles.rank_of`; a limit is up to how much somebody approves alone, in minor
    units of the base currency, None for any amount. ``abuse`` is the first one's verdict.
    """

    first_by: str
    first_rank: int
    first_limit_minor: int | None
    first_at: int
    justification: str | None = None
    abuse: bool | None = None
    second_by: str | None = None
    second_rank: int | None = None
    second_limit_minor: int | None = None
    second_at: int | None = None


class Approvals:
    """The table of approvals. Holds no state of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, connection: Connection, score_id: str, approval: Approval) -> None:
        """Keep who stands behind the approval of a review, in place of who did."""
        statement = self._database.inserting(review_approvals, COLUMNS, "replace")
        self._database.run(connection, statement, (score_id, *approval))

    def drop(self, connection: Connection, score_id: str) -> None:
        """Forget what was proposed."""
        connection.execute(
            delete(review_approvals).where(review_approvals.c.score_id == score_id)
        )  # fmt: skip


COLUMNS: Final = ("score_id", *Approval._fields)


def columns() -> list[Any]:
    """The columns that `approval_of` reads."""
    return [review_approvals.c[name] for name in Approval._fields]


def approval_of(row: Any) -> Approval | None:
    """What a row of `columns` says, joined from outside: nothing where there is none."""
    return None if row[0] is None else Approval(*row)
