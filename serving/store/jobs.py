"""Jobs: what takes too long for a page, asked for, under way and done, with what came of each."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import orjson
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from serving.store.database import Database
from serving.store.schema import jobs

Kind: TypeAlias = Literal["backtest", "period"]
"""What is asked for: a backtest of a policy, or a report on the decisions of a period."""

State: TypeAlias = Literal["waiting", "under way", "done", "failed"]

MOST_KEPT: Final = 20
"""Of each kind so many that are done are kept, the latest."""

_COLUMNS: Final = (
    "id", "kind", "arguments", "asked_by", "asked_at", "begun_at", "tries", "done_at", "problem",
)  # fmt: skip


class Job(NamedTuple):
    """A job; times are epoch ms. ``tries`` counts how often it was begun.

    ``problem`` is why nothing came of it: a word of `serving.jobs`, or what its program said last.
    """

    id: str
    kind: Kind
    arguments: Mapping[str, Any]
    asked_by: str
    asked_at: int
    begun_at: int | None = None
    tries: int = 0
    done_at: int | None = None
    problem: str | None = None

    @property
    def state(self) -> State:
        """Where it stands.

        >>> Job("j", "period", {}, "ann", 5).state, Job("j", "period", {}, "ann", 5, 6, 1).state
        ('waiting', 'under way')
        """
        if self.done_at is None:
            return "waiting" if self.begun_at is None else "under way"
        return "done" if self.problem is None else "failed"


class Jobs:
    """The jobs of one database. Holds no state of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- asked for -----------------------------------------------------------------------------

    def lock(self, connection: Connection) -> None:
        """Hold others who ask off until the transaction ends."""
        self._database.lock(connection, [("jobs",)])

    def add(
        self, connection: Connection, kind: Kind, arguments: Mapping[str, Any], by: str, at: int
    ) -> Job:
        """Keep a new job, to be begun when those before it are done."""
        job = Job(f"job_{secrets.token_hex(8)}", kind, arguments, by, at)
        row = {**job._asdict(), "arguments": _text(arguments)}
        connection.execute(insert(jobs).values(row))
        return job

    def prune(self, connection: Connection, kind: Kind) -> None:
        """Delete what is done of a kind, but for the latest `MOST_KEPT`."""
        done = jobs.c.kind == kind, jobs.c.done_at.is_not(None)
        latest = select(jobs.c.id).where(*done).order_by(*_LATEST_FIRST).limit(MOST_KEPT)
        kept = list(connection.execute(latest).scalars())
        connection.execute(delete(jobs).where(*done, jobs.c.id.not_in(kept)))

    def forget(self, connection: Connection, ids: Sequence[str]) -> None:
        """Delete jobs, and what came of them."""
        connection.execute(delete(jobs).where(jobs.c.id.in_(ids)))

    # --- as they are done ----------------------------------------------------------------------

    def next(self, connection: Connection) -> Job | None:
        """The job to see to: one that was begun and not ended, else the first that waits."""
        first = (
            _select(jobs.c.done_at.is_(None))
            .order_by(jobs.c.begun_at.is_(None), jobs.c.asked_at, jobs.c.id)
            .limit(1)
        )
        return next(map(_job, connection.execute(first)), None)

    def begin(self, connection: Connection, job: Job, at: int) -> Job:
        """Note that a job is begun, once more if it was begun before."""
        begun = job._replace(begun_at=at, tries=job.tries + 1)
        self._change(connection, job, begun_at=at, tries=begun.tries)
        return begun

    def put_back(self, connection: Connection, job: Job) -> None:
        """Have a job wait again, as if it had not been begun this time."""
        self._change(connection, job, begun_at=None, tries=job.tries - 1)

    def end(
        self, connection: Connection, job: Job, at: int, *, problem: str | None = None,
        document: str | None = None, page: str | None = None,
    ) -> bool:  # fmt: skip
        """Keep what came of a job; returns False if it is another's by now, and nothing is kept."""
        return self._change(
            connection, job, done_at=at, problem=problem, document=document, page=page
        )

    def _change(self, connection: Connection, job: Job, **values: Any) -> bool:
        """Change a job, if it stands as it is known here."""
        as_known = jobs.c.id == job.id, jobs.c.tries == job.tries, jobs.c.done_at.is_(None)
        return connection.execute(update(jobs).where(*as_known).values(values)).rowcount > 0

    # --- reading -------------------------------------------------------------------------------

    def get(self, connection: Connection, id: str) -> Job | None:
        """A job by its id."""
        return next(map(_job, connection.execute(_select(jobs.c.id == id))), None)

    def of_kind(
        self, connection: Connection, kind: Kind, *, arguments: Mapping[str, Any] | None = None,
        ended: bool | None = None, limit: int = MOST_KEPT,
    ) -> list[Job]:  # fmt: skip
        """Jobs of a kind, the latest first; of these ``arguments``, ended or not, where given."""
        statement = _select(jobs.c.kind == kind).order_by(*_LATEST_FIRST).limit(limit)
        if arguments is not None:
            statement = statement.where(jobs.c.arguments == _text(arguments))
        if ended is not None:
            statement = statement.where(jobs.c.done_at.is_not(None) == ended)
        return list(map(_job, connection.execute(statement)))

    def count_waiting(self, connection: Connection) -> int:
        """How many are not done."""
        waiting = select(func.count()).where(jobs.c.done_at.is_(None))
        return connection.execute(waiting).scalar_one()

    def document(self, connection: Connection, id: str) -> Any:
        """What came of a job, as JSON values; None where nothing did."""
        text = connection.execute(select(jobs.c.document).where(jobs.c.id == id)).scalar()
        return None if text is None else orjson.loads(text)

    def page(self, connection: Connection, id: str) -> str | None:
        """The same as an HTML page for a browser, which needs nothing else."""
        return connection.execute(select(jobs.c.page).where(jobs.c.id == id)).scalar()


_LATEST_FIRST: Final = (jobs.c.asked_at.desc(), jobs.c.id.desc())


def _select(is_wanted: ColumnElement[bool]) -> Any:
    return select(*(jobs.c[name] for name in _COLUMNS)).where(is_wanted)


def _job(row: Any) -> Job:
    job = Job(*row)
    return job._replace(arguments=orjson.loads(row.arguments))


def _text(arguments: Mapping[str, Any]) -> str:
    """Arguments in one spelling, so that the same are found again."""
    return orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS).decode()
