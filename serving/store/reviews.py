"""The reviews: what waits for a person, what is most at stake first, and what people did there.

A decision that holds a refund opens a review in its own transaction. Whatever settles the refund
otherwise closes it: another decision on it, a payment, a refusal. So one is open at most.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypedDict, Unpack

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from serving.store import approvals
from serving.store.approvals import Approval, Approvals
from serving.store.database import Database
from serving.store.schema import is_waiting, review_acts, review_approvals, reviews

Status: TypeAlias = Literal["OPEN", "WAITING", "DONE"]
"""Where a review stands; WAITING is for information that was asked for."""

Ending: TypeAlias = Literal["approved", "denied", "decided_again", "paid", "declined", "canceled"]
"""What ended a review: a person, or what was decided or reported of the refund meanwhile."""

ActKind: TypeAlias = Literal[
    "approved", "denied", "information_requested", "assigned", "approval_proposed",
    "proposal_withdrawn", "noted", "reopened",
]  # fmt: skip

Disposition: TypeAlias = Literal["ALLOW", "PREVENT"]
"""What a person answered in the decision's place."""

_DISPOSITION: Final[dict[str | None, Disposition]] = {"approved": "ALLOW", "denied": "PREVENT"}

UNKNOWN_PLACE: Final = -(2**62)
"""Of what nobody can say how much is at stake comes first."""


class Review(NamedTuple):
    """A review of one decision; amounts are minor units, times epoch ms.

    ``customer`` is a pseudonym. ``amount_minor`` was asked and ``due_minor`` would be paid of it,
    in ``currency``; ``payable_minor`` is that in the base currency, as is the expected loss.
    ``approval`` tells who stands behind it, as far as people have it: proposals are approvals.
    """

    score_id: str
    refund_id: str
    customer: str
    order_id: str | None
    currency: str
    amount_minor: int
    due_minor: int
    payable_minor: int | None
    expected_loss_minor: int | None
    probability: float | None
    place: int
    opened_at: int
    due_at: int
    overdue_told_at: int | None = None
    status: Status = "OPEN"
    assignee: str | None = None
    closed_at: int | None = None
    ending: Ending | None = None
    closed_by: str | None = None
    approval: Approval | None = None

    @property
    def proposal(self) -> Approval | None:
        """The approval that somebody proposed, which waits for one of a higher role."""
        return self.approval if self.closed_at is None else None

    @property
    def disposition(self) -> Disposition | None:
        """What the analyst answered, if one did."""
        return disposition_of(self.ending)

    def is_overdue(self, at: int) -> bool:
        """Whether it was to be done by an instant and is, or was, not.

        >>> review = Review("s", "r", "c", None, "GBP", 5, 5, 5, 1, 0.2, -1, 10, due_at=20)
        >>> review.is_overdue(at=19), review.is_overdue(at=20)
        (False, True)
        >>> review._replace(closed_at=19).is_overdue(at=30)
        False
        """
        return self.due_at <= (at if self.closed_at is None else self.closed_at)


class Act(NamedTuple):
    """What a person did on a review; ``abuse`` is their verdict, None where they gave none."""

    refund_id: str
    score_id: str
    at: int
    act: ActKind
    actor: str
    justification: str | None = None
    abuse: bool | None = None
    assignee: str | None = None


class Wanted(TypedDict, total=False):
    """Which reviews are wanted; what is left out, or None, wants any.

    With DONE as ``status`` those that are done, else those that wait. ``assignee`` is a name, ''
    for nobody's; ``closed_by`` is who ended what is done. With ``overdue_at`` only what is late by
    then, with ``opened_until`` what has waited since then at least. ``payable_at_least`` and
    ``payable_at_most`` are in minor units of the base currency; what is not known is neither.
    ``customer`` is a pseudonym. ``proposed`` wants those whose approval waits for a second person,
    or not those; of what is done, those that somebody approved, or not those.
    """

    status: Status | None
    assignee: str | None
    closed_by: str | None
    overdue_at: int | None
    opened_until: int | None
    payable_at_least: int | None
    payable_at_most: int | None
    currency: str | None
    order_id: str | None
    customer: str | None
    proposed: bool | None


class Reviewed(NamedTuple):
    """What became of the review of a decision."""

    is_open: bool
    disposition: Disposition | None


def disposition_of(ending: str | None) -> Disposition | None:
    """What an ending answers in the decision's place; None if it is no person's.

    >>> disposition_of("denied"), disposition_of("paid")
    ('PREVENT', None)
    """
    return _DISPOSITION.get(ending)


def place_of(expected_loss_minor: float | None, payable_minor: float | None) -> int:
    """The place in the queue of what is at stake: the lowest is the first.

    Without a score all that would be paid is at stake; where not even that is known, it is first.

    >>> place_of(120.4, 900.0), place_of(None, 900.0), place_of(None, None) < place_of(1e9, None)
    (-120, -900, True)
    """
    at_stake = payable_minor if expected_loss_minor is None else expected_loss_minor
    return UNKNOWN_PLACE if at_stake is None else -round(at_stake)


_COLUMNS: Final = Review._fields[:-1]
_ACT: Final = Act._fields
_CARRIED: Final = ("opened_at", "due_at", "overdue_told_at", "assignee")


class Reviews:
    """The tables of reviews. Holds no state of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._approvals = Approvals(database)

    # --- as decisions and reports have it ------------------------------------------------------

    def open(self, connection: Connection, review: Review) -> None:
        """Open a review; none of its refund may be open."""
        self._database.run(connection, self._database.inserting(reviews, _COLUMNS), review[:-1])

    def reopen(self, connection: Connection, review: Review) -> None:
        """Open a review of a decision, whether or not there was one; nobody stands behind it."""
        again = self._database.inserting(reviews, _COLUMNS, "replace")
        self._database.run(connection, again, review[:-1])
        self._approvals.drop(connection, review.score_id)

    def close(
        self, connection: Connection, refund_id: str, ending: Ending, at: int
    ) -> dict[str, Any] | None:
        """End the review of a refund that is open, if one is.

        Returns what another review in its place keeps of it: the customer goes on waiting, so since
        when, until when and for whom stays.
        """
        prepared = self._database.prepared(
            "close_review",
            lambda: (
                update(reviews)
                .where(reviews.c.refund_id == bindparam("refund"), reviews.c.closed_at.is_(None))
                .values(status=bindparam("done"), closed_at=bindparam("at"), ending=bindparam("as"))
                .returning(*(reviews.c[name] for name in _CARRIED))
            ),
        )
        values = {"refund": refund_id, "done": "DONE", "at": at, "as": ending}
        found = self._database.run(connection, prepared, prepared.bind(values))
        return dict(zip(_CARRIED, found[0], strict=True)) if found else None

    def is_open(self, connection: Connection, refund_id: str) -> bool:
        """Whether a review of a refund waits for a person."""
        found = select(reviews.c.score_id).where(
            reviews.c.refund_id == refund_id, reviews.c.closed_at.is_(None)
        )
        return connection.execute(found.limit(1)).first() is not None

    # --- as people have it ---------------------------------------------------------------------

    def of_refund(
        self, connection: Connection, refund_id: str, limit: int | None = None
    ) -> list[Review]:
        """The reviews of a refund, the latest first: the one that is open, if one is."""
        statement = (
            _select()
            .where(reviews.c.refund_id == refund_id)
            .order_by(reviews.c.closed_at.is_(None).desc(), reviews.c.closed_at.desc(),
                      reviews.c.score_id.desc())
            .limit(limit)
        )  # fmt: skip
        return _reviews(connection.execute(statement))

    def queue(
        self, connection: Connection, *, limit: int = 100, after: tuple[int, str] | None = None,
        **wanted: Unpack[Wanted],
    ) -> list[Review]:  # fmt: skip
        """What waits, the most at stake first; with DONE what was done, the last done first.

        ``limit`` of them from ``after`` on, which is `place_in` of the last of the page before.
        """
        r, is_done = reviews.c, wanted.get("status") == "DONE"
        first = r.closed_at if is_done else r.place
        order = (first.desc(), r.score_id.desc()) if is_done else (first, r.score_id)
        # First which, from the index alone; then what is in the table of these few.
        which = select(r.score_id).where(*_those(wanted)).order_by(*order).limit(limit)
        if after is not None:
            place = tuple_(first, r.score_id)
            which = which.where(place < after if is_done else place > after)
        found = _select().where(r.score_id.in_(which)).order_by(*order)
        return _reviews(connection.execute(found))

    def count_queue(self, connection: Connection, **wanted: Unpack[Wanted]) -> int:
        """How many there are of what `queue` gives, without a limit."""
        counted = select(func.count()).select_from(reviews).where(*_those(wanted))
        return connection.execute(counted).scalar_one()

    def next_open(
        self, connection: Connection, name: str, rank: int, after: tuple[int, str] | None = None,
        **wanted: Unpack[Wanted],
    ) -> Review | None:  # fmt: skip
        """The next case for somebody of this name and rank: of theirs and nobody's, at most stake.

        After one that is at ``after`` (`place_in`), and from the first on after the last; of what
        is ``wanted``, if anything is. What waits for somebody of a higher rank has nothing to do
        for them, and what waits for information only where just that is wanted.
        """
        r, a = reviews.c, review_approvals.c
        is_above = exists().where(a.score_id == r.score_id, a.first_rank >= rank)
        place = tuple_(r.place, r.score_id)
        which = (
            select(r.score_id)
            .where(*_those({"status": "OPEN", **wanted}),
                   or_(r.assignee.is_(None), r.assignee == name), ~is_above.correlate(reviews))
            .order_by(r.place, r.score_id)
            .limit(1)
        )  # fmt: skip
        starts = [which]
        if after is not None:
            starts = [which.where(place > after), which.where(place < after)]
        for start in starts:
            found = _select().where(r.score_id == start.scalar_subquery())
            if (row := connection.execute(found).first()) is not None:
                return _reviews([row])[0]
        return None

    def assignees(self, connection: Connection, limit: int) -> list[str]:
        """Who has reviews that wait, by name."""
        name = reviews.c.assignee
        having = select(name).distinct().where(is_waiting, name.is_not(None))
        return list(connection.execute(having.order_by(name).limit(limit)).scalars())

    def count(self, connection: Connection, at: int) -> tuple[int, int]:
        """How many wait, and how many of them are late by ``at``."""
        late = func.count().filter(reviews.c.due_at <= at)
        waiting, overdue = connection.execute(select(func.count(), late).where(is_waiting)).one()
        return waiting, overdue

    def overdue(self, connection: Connection, at: int, limit: int) -> list[Review]:
        """What is late by ``at`` and nobody was told of, the longest due first."""
        r = reviews.c
        statement = (
            _select()
            .where(is_waiting, r.overdue_told_at.is_(None), r.due_at <= at)
            .order_by(r.due_at)
            .limit(limit)
        )
        return _reviews(connection.execute(statement))

    def told_overdue(self, connection: Connection, score_id: str, at: int) -> bool:
        """Note that it was told that a review is late; whether that was still to be told."""
        r = reviews.c
        is_it = (r.score_id == score_id) & r.closed_at.is_(None) & r.overdue_told_at.is_(None)
        done = connection.execute(update(reviews).where(is_it).values(overdue_told_at=at))
        return done.rowcount > 0

    def change(self, connection: Connection, review: Review) -> None:
        """Keep how a review stands now; who stands behind it first, as a trigger looks there."""
        if review.approval is None:
            self._approvals.drop(connection, review.score_id)
        else:
            self._approvals.put(connection, review.score_id, review.approval)
        stands = ("status", "assignee", "opened_at", "due_at", "overdue_told_at", "closed_at",
                  "ending", "closed_by")  # fmt: skip
        changed = {name: getattr(review, name) for name in stands}
        connection.execute(
            update(reviews).where(reviews.c.score_id == review.score_id).values(changed)
        )

    def add_act(self, connection: Connection, act: Act) -> None:
        """Keep what a person did."""
        connection.execute(insert(review_acts).values(act._asdict()))

    def last_act_at(self, connection: Connection, refund_id: str) -> int:
        """When a person last did something on a refund's reviews; 0 if nobody did."""
        of_refund = review_acts.c.refund_id == refund_id
        last = select(func.max(review_acts.c.at)).where(of_refund)
        return connection.execute(last).scalar_one() or 0

    def acts(self, connection: Connection, refund_id: str) -> list[Act]:
        """What people did on a refund's reviews, the first first."""
        statement = (
            select(*(review_acts.c[name] for name in _ACT))
            .where(review_acts.c.refund_id == refund_id)
            .order_by(review_acts.c.seq)
        )
        return [Act(*row) for row in connection.execute(statement)]


def place_in(review: Review) -> tuple[int, str]:
    """Where a review stands among those that `Reviews.queue` gives: what it goes on after."""
    first = review.place if review.closed_at is None else review.closed_at
    return first, review.score_id


def _those(wanted: Wanted) -> list[ColumnElement[bool]]:
    """The conditions of what is wanted of the queue."""
    r, status = reviews.c, wanted.get("status")
    is_done = status == "DONE"
    found: list[Any] = [r.closed_at.is_not(None) if is_done else is_waiting]
    if status is not None and not is_done:
        found.append(r.status == status)
    if (assignee := wanted.get("assignee")) is not None:
        found.append(r.assignee == (assignee or None))
    if (late := wanted.get("overdue_at")) is not None:
        found.append(r.due_at <= (r.closed_at if is_done else late))
    if (until := wanted.get("opened_until")) is not None:
        found.append(r.opened_at <= until)
    if (least := wanted.get("payable_at_least")) is not None:
        found.append(r.payable_minor >= least)
    if (most := wanted.get("payable_at_most")) is not None:
        found.append(r.payable_minor <= most)
    named = {name: wanted.get(name) for name in ("currency", "order_id", "customer", "closed_by")}
    found += (r[name] == value for name, value in named.items() if value is not None)
    if (proposed := wanted.get("proposed")) is not None:
        stands = review_approvals.c.score_id == r.score_id
        is_proposed = exists().where(stands).correlate(reviews)
        found.append(is_proposed if proposed else ~is_proposed)
    return found


def _select() -> Any:
    """Reviews, with who stands behind each: to be read by `_reviews`."""
    behind = reviews.outerjoin(review_approvals, review_approvals.c.score_id == reviews.c.score_id)
    columns = [reviews.c[name] for name in _COLUMNS]
    return select(*columns, *approvals.columns()).select_from(behind)


def _reviews(rows: Any) -> list[Review]:
    end = len(_COLUMNS)
    return [Review(*row[:end])._replace(approval=approvals.approval_of(row[end:])) for row in rows]
