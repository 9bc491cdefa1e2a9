"""Decisions and reviews of a stretch of time: what a dashboard asks of a store as it is now.

No record of a decision is read, and nothing is looked at that an index or the narrow table of
reviews does not tell: a hundred thousand decisions are counted in some milliseconds.

A **wait** is a refund that waits since an instant. Where a decision on other fields took a held
refund's place in the queue (`Reviews.close`), two reviews are one wait, which ends with the latter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, tuple_

from serving.store.reviews import UNKNOWN_PLACE
from serving.store.schema import decisions, is_waiting, reviews

_r: Final = reviews.c


class Ended(NamedTuple):
    """The end of a wait; times are epoch ms."""

    opened_at: int
    closed_at: int
    due_at: int
    ending: str
    closed_by: str | None


def last_decided_at(connection: Connection) -> int | None:
    """When the last decision was made; None without any."""
    return connection.execute(select(func.max(decisions.c.decided_at))).scalar()


def last_closed_at(connection: Connection) -> int | None:
    """When the last review ended; None where none has."""
    last = select(func.max(_r.closed_at)).where(_r.closed_at.is_not(None))  # as its index has it
    return connection.execute(last).scalar()


def decided(connection: Connection, since: int, until: int) -> int:
    """How many decisions there are of ``since <= decided_at < until`` (epoch ms)."""
    at = decisions.c.decided_at
    return connection.execute(select(func.count()).where(at >= since, at < until)).scalar_one()


def opened(connection: Connection, since: int, until: int, width: int) -> dict[int, int]:
    """How many waits began, by slots of ``width`` ms from ``since`` on."""
    slot = ((_r.opened_at - since) // width).label("slot")
    waits = select(_r.refund_id, _r.opened_at, slot).where(_within(_r.opened_at, since, until))
    each = waits.distinct().subquery()
    counted = select(each.c.slot, func.count()).group_by(each.c.slot)
    return {int(place): n for place, n in connection.execute(counted)}


def ended(connection: Connection, since: int, until: int) -> Sequence[Ended]:
    """The waits that ended, in no order."""
    of = select(*(_r[name] for name in Ended._fields)).where(
        _within(_r.closed_at, since, until), _is_the_end()
    )
    return [Ended._make(row) for row in connection.execute(of).all()]


class Waiting(NamedTuple):
    """What waits: how many, late by an instant, since when (epoch ms), and what is at stake.

    That is as the queue is ordered by, in minor units of the base currency; of ``unknown`` nobody
    can say how much it is.
    """

    cases: int
    overdue: int
    oldest_at: int | None
    at_stake_minor: int
    unknown: int


def waiting(connection: Connection, at: int) -> Waiting:
    """What waits now; ``at`` is by when it is late."""
    late = func.count().filter(_r.due_at <= at)
    is_known = _r.place > UNKNOWN_PLACE
    stake = func.coalesce(func.sum(-_r.place).filter(is_known), 0)
    unknown = func.count().filter(~is_known)
    of = select(func.count(), late, func.min(_r.opened_at), stake, unknown).where(is_waiting)
    cases, overdue, oldest, minor, others = connection.execute(of).one()
    return Waiting(cases, overdue, oldest, int(minor), others)


def _within(at: ColumnElement[Any], since: int, until: int) -> ColumnElement[bool]:
    return and_(at >= since, at < until)


def _is_the_end() -> ColumnElement[bool]:
    """Whether a closed review is the last of its wait."""
    other = reviews.alias()
    later = tuple_(other.c.closed_at, other.c.score_id) > tuple_(_r.closed_at, _r.score_id)
    follows = select(other.c.score_id).where(
        other.c.refund_id == _r.refund_id,
        other.c.opened_at == _r.opened_at,
        other.c.score_id != _r.score_id,
        or_(other.c.closed_at.is_(None), later),
    )
    return or_(_r.ending != "decided_again", ~follows.exists())
