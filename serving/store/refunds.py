"""Where each refund stands: its lifecycle, followed from events and moved by decisions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias

import orjson
from sqlalchemy import Connection, bindparam, literal_column, select

from features.documents import MAX_EVENTS
from features.events import Event, RefundOutcome, derive_event_id, due_minor, event_digest
from serving.store.database import Database, padded, padded_size
from serving.store.indexing import NAMING_COLUMN, StoredEvent
from serving.store.reservations import Reservation, Reservations
from serving.store.reviews import Ending, Review, Reviews
from serving.store.schema import events, refunds
from serving.store.statements import is_word, latest_versions

State: TypeAlias = Literal[
    "REQUESTED", "VALIDATED", "DECIDED", "APPROVED", "DENIED", "NEEDS_REVIEW",
    "EXECUTING", "REFUNDED", "FAILED", "CANCELED",
]  # fmt: skip

TRANSITIONS: Final[Mapping[State, tuple[State, ...]]] = {
    "REQUESTED": ("VALIDATED", "CANCELED"),
    "VALIDATED": ("DECIDED", "CANCELED"),
    "DECIDED": ("APPROVED", "DENIED", "NEEDS_REVIEW", "CANCELED"),
    "NEEDS_REVIEW": ("APPROVED", "DENIED", "CANCELED"),
    "APPROVED": ("EXECUTING", "CANCELED"),
    "EXECUTING": ("REFUNDED", "FAILED", "CANCELED"),
    "FAILED": ("EXECUTING", "CANCELED"),
    "DENIED": (),
    "REFUNDED": (),
    "CANCELED": (),
}
"""The transitions that we make ourselves."""

UNSURPRISING_REPORTS: Final[Mapping[State, tuple[State, ...]]] = {
    # A backend need not ask us, and reports the end of an execution without its beginning.
    "REQUESTED": ("REFUNDED", "FAILED", "DENIED"),
    "APPROVED": ("REFUNDED", "FAILED"),
    "FAILED": ("REFUNDED",),
}
"""Reports that surprise nobody, besides those that are transitions of ours."""

STATE_OF_OUTCOME: Final[Mapping[str, State]] = {
    "COMPLETED": "REFUNDED",
    "DECLINED": "DENIED",
    "FAILED": "FAILED",
    "CANCELED": "CANCELED",
}

ENDED: Final[frozenset[State]] = frozenset({"DENIED", "CANCELED"})
"""The ends without a payment: a refund that is asked for again begins anew from there."""

PROMISED: Final[frozenset[State]] = frozenset({"APPROVED", "EXECUTING", "REFUNDED", "FAILED"})
"""Where a payment may be under way: whatever is decided on other fields, the state stays."""

_MAY_WAIT: Final = PROMISED | {"NEEDS_REVIEW"}
"""Where a review may be open: of a refund held, or of other fields of one that was promised."""

_ENDING_OF: Final[Mapping[State, Ending]] = {
    "REFUNDED": "paid", "DENIED": "declined", "CANCELED": "canceled",
}  # fmt: skip
"""How a report ends a review. A payment that failed may be tried again, so it ends none."""


class TransitionRefusedError(Exception):
    """A transition of ours that the lifecycle does not list."""


@dataclass
class Refund:
    """Where a refund stands. Who and how much are None for one that only reports named."""

    refund_id: str
    state: State = "REQUESTED"
    state_at: int = -1
    customer: str | None = None
    order_id: str | None = None
    first_known_at: int | None = None
    payable_minor: int | None = None
    currency: str | None = None

    def request(self, event: StoredEvent, *, is_latest: bool = True) -> None:
        """Take in a version of the request: who and when from the first, money from the latest.

        Whatever the order in which they arrive: versions go by when they became known.
        """
        payload = event.payload
        if self.first_known_at is None:
            self.state_at = max(self.state_at, event.known_at)
        if self.first_known_at is None or event.known_at < self.first_known_at:
            self.first_known_at = event.known_at
            self.customer = payload["customer_id"]
            self.order_id = payload.get("order_id")
        if is_latest:
            kept = payload.get("non_refundable_minor")
            self.payable_minor = due_minor(payload["amount_minor"], kept)
            self.currency = payload["currency"]

    def move(self, to: State, at: int) -> None:
        """Make a transition of ours; raises `TransitionRefusedError` if it is not listed.

        >>> try:
        ...     Refund("r", "DENIED").move("EXECUTING", at=5)
        ... except TransitionRefusedError as error:
        ...     print(error)
        refund 'r' is DENIED: expected no further transition, got EXECUTING
        """
        if to not in TRANSITIONS[self.state]:
            expected = " or ".join(TRANSITIONS[self.state]) or "no further transition"
            raise TransitionRefusedError(
                f"refund {self.refund_id!r} is {self.state}: expected {expected}, got {to}"
            )
        self._enter(to, at)

    def ask_again(self, at: int) -> None:
        """Begin anew with a refund that was denied or canceled, as its backend asks for it again.

        Nothing leads out of DENIED and CANCELED by a transition of ours, and no refusal becomes an
        approval. That a refund is asked for again is a report, which is recorded as any other; from
        REQUESTED on the transitions are ours. What was paid, or may be under way, stays where it
        is.

        >>> refund = Refund("r", "DENIED", 10, customer="c")
        >>> refund.ask_again(at=20)
        >>> refund.state
        'REQUESTED'
        """
        if self.state in ENDED:
            self._enter("REQUESTED", max(at, self.state_at))

    def reopen(self, at: int) -> None:
        """Have a refusal wait for a person, who takes it up again.

        The one way of ours out of DENIED, and a person's: it leads to their review and no farther,
        so a refusal becomes an approval only there. What was promised before on other fields stays
        where it is, as ever. Raises `TransitionRefusedError` for one that was paid or canceled, or
        was not refused.

        >>> refund = Refund("r", "DENIED", 10, customer="c")
        >>> refund.reopen(at=20)
        >>> refund.state
        'NEEDS_REVIEW'
        """
        if self.state == "DENIED":
            self._enter("NEEDS_REVIEW", at)
        elif self.state not in PROMISED or self.state == "REFUNDED":
            raise TransitionRefusedError(
                f"refund {self.refund_id!r} is {self.state}: expected one that was denied"
            )

    def decide(self, goal: State, at: int) -> bool:
        """Go where a decision puts it, if a way leads there; returns whether one did.

        One that was denied or canceled and is asked for again begins anew, so its state follows the
        last decision. One that was approved or paid stays so, whatever is decided on other fields:
        its payment may be under way, and its state tells what became of it.

        >>> refund = Refund("r", "CANCELED", 10, customer="c")
        >>> refund.decide("APPROVED", at=20), refund.state, refund.decide("DENIED", at=30)
        (True, 'APPROVED', False)
        """
        self.ask_again(at)
        way: tuple[State, ...] = (goal,)
        if self.state == "REQUESTED":
            way = ("VALIDATED", "DECIDED", goal)
        if not all(to in TRANSITIONS[by] for by, to in itertools.pairwise((self.state, *way))):
            return False
        self._enter(goal, at)
        return True

    def report(self, to: State, at: int) -> bool:
        """Take in what a backend says has happened; returns whether it was unexpected.

        A report older than the state arrived late: it is no news, and no surprise.

        >>> refund = Refund("r", "DENIED", 10, customer="c")
        >>> refund.report("REFUNDED", at=20), refund.state
        (True, 'REFUNDED')
        """
        if at < self.state_at:
            return False
        if to == self.state and self.state_at >= 0:
            return False
        is_expected = self.state_at >= 0 and to in (
            *TRANSITIONS[self.state], *UNSURPRISING_REPORTS.get(self.state, ())
        )  # fmt: skip
        self._enter(to, at)
        return not is_expected

    def _enter(self, state: State, at: int) -> None:
        self.state, self.state_at = state, at

    def settled(self, held: Reservation, state: State, paid_minor: int | None) -> Reservation:
        """What is left of a reservation once the refund has come to a state.

        A payment that failed may be tried again, so what was promised is held on. Of a payment
        whose amount is not told, the latest version of the request says it.
        """
        if state in ENDED:
            return held.release()
        if state == "REFUNDED":
            paid_minor = self.payable_minor if paid_minor is None else paid_minor
            return held.pay(paid_minor, self.state_at)
        return held.fail() if state == "FAILED" else held


@dataclass(frozen=True, slots=True)
class Decided:
    """What a decision makes of a refund: where it goes, and what it holds of its order.

    ``goal`` is the state that the decision is for; ``hold`` gives what is held after it of what was
    held before, of ``order_id`` in ``currency``: without an order there is nothing to hold.
    ``review`` is the review that it opens, if it waits for a person.
    """

    refund_id: str
    goal: State
    score_id: str
    at: int
    order_id: str | None
    currency: str
    hold: Callable[[Reservation], Reservation]
    review: Review | None = None
    is_answered: bool = False
    """It gives what an analyst answered to these fields: what waits is about others."""


_COLUMNS: Final = (
    "refund_id", "state", "state_at", "customer", "order_id", "first_known_at",
    "payable_minor", "currency",
)  # fmt: skip
_DECIDED: Final = (*_COLUMNS, "score_id")


class Refunds:
    """The table of refunds. Holds no state of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reservations = Reservations(database)
        self._reviews = Reviews(database)

    def follow(
        self, connection: Connection, new: Iterable[StoredEvent], decided: Decided | None = None
    ) -> set[str]:
        """Take in new events; returns the ids of those that were unexpected reports.

        Then take in what was decided, so that a refund's row is read and written once.
        """
        relevant = [e for e in new if e.event_type in ("refund_request", "refund_outcome")]
        named = dict.fromkeys(event.payload["refund_id"] for event in relevant)
        if decided is not None:
            named[decided.refund_id] = None
        if not named:
            return set()
        ids = list(named)
        found = self.get(connection, ids)
        are_told = any(event.event_type == "refund_outcome" for event in relevant)
        held = self._reservations.of_refunds(connection, ids) if are_told else {}
        latest = self._latest_versions(connection, relevant, found)
        unexpected = set()
        for event in relevant:
            refund_id = event.payload["refund_id"]
            refund = found.setdefault(refund_id, Refund(refund_id))
            if event.event_type == "refund_request":
                is_latest = latest.get(refund_id, event.event_id) == event.event_id
                refund.request(event, is_latest=is_latest)
                continue
            state, is_late = STATE_OF_OUTCOME[event.payload["status"]], _is_late(refund, event)
            may_wait = refund.state in _MAY_WAIT
            paid_minor = event.payload.get("amount_minor")
            if refund.state == state == "REFUNDED" and not is_late:
                # Of two payments told of one refund the greater counts: both may have come through.
                if self._is_less(connection, refund, event):
                    unexpected.add(event.event_id)
                    continue
            elif refund.report(state, event.known_at):
                unexpected.add(event.event_id)
            if refund_id in held and not is_late:
                held[refund_id] = [refund.settled(r, state, paid_minor) for r in held[refund_id]]
            if may_wait and not is_late and state in _ENDING_OF:
                self._reviews.close(connection, refund_id, _ENDING_OF[state], event.known_at)
        self._reservations.put(connection, (one for each in held.values() for one in each))
        if decided is not None:
            refund = found.pop(decided.refund_id, Refund(decided.refund_id))
            self._decide(connection, refund, decided)
        self._put(connection, found.values())
        return unexpected

    def hold_off(self, connection: Connection, refund_ids: Sequence[str]) -> None:
        """Have decisions wait on any order that these refunds hold something of.

        Before anything else is locked: decisions lock their order first, too. On SQLite they wait
        in any case.
        """
        if refund_ids and not self._database.is_sqlite:
            self._reservations.hold_off(connection, refund_ids)

    def _latest_versions(
        self, connection: Connection, new: Sequence[StoredEvent], before: Mapping[str, Refund]
    ) -> dict[str, str]:
        """The id of the version known last, of refunds of which there are several."""
        seen = {name for name, refund in before.items() if refund.first_known_at is not None}
        several: set[str] = set()
        for event in new:
            if event.event_type == "refund_request":
                name = event.payload["refund_id"]
                (several if name in seen else seen).add(name)
        if not several:
            return {}
        size = padded_size(len(several))
        prepared = self._database.prepared(("latest", size), lambda: latest_versions(size))
        return dict(self._database.run(connection, prepared, tuple(padded([*several]))))

    def _is_less(self, connection: Connection, refund: Refund, report: StoredEvent) -> bool:
        """Whether a refund that is paid is told to be paid, and less than was told before."""
        prepared = self._database.prepared(
            "outcomes",
            lambda: (
                select(events.c.payload)
                .where(is_word(events.c.event_type, "refund_outcome"),
                       events.c.refund_id == bindparam("refund"),
                       events.c.known_at <= bindparam("at"),
                       events.c.seq < bindparam("seq"))
                .order_by(events.c.known_at.desc(), events.c.event_id.desc())
                .limit(literal_column(str(MAX_EVENTS)))
            ),
        )  # fmt: skip
        values = {"refund": refund.refund_id, "at": report.known_at, "seq": report.seq}
        rows = self._database.run(connection, prepared, prepared.bind(values))
        outcomes = (orjson.loads(payload) for (payload,) in rows)
        paid = itertools.takewhile(lambda outcome: outcome["status"] == "COMPLETED", outcomes)

        def amount_minor(outcome: Mapping[str, Any]) -> int | None:
            said: int | None = outcome.get("amount_minor", refund.payable_minor)
            return said

        told_minor = amount_minor(report.payload)
        return told_minor is not None and any(
            before is not None and before > told_minor for before in map(amount_minor, paid)
        )

    def _decide(self, connection: Connection, refund: Refund, decided: Decided) -> None:
        """Move a refund and what it holds as was decided, and make this its last decision.

        An analyst's answer that is given again leaves alone what other fields of the refund wait
        for: their review, what is held for it, and that the refund waits.
        """
        id = refund.refund_id
        may_wait = refund.state in _MAY_WAIT
        stays = may_wait and decided.is_answered and decided.review is None
        stays = stays and self._reviews.is_open(connection, id)
        moved = not stays and refund.decide(decided.goal, decided.at)
        row = (*_row(refund), decided.score_id)
        self._database.run(connection, self._database.inserting(refunds, _DECIDED, "replace"), row)
        kept: Mapping[str, Any] | None = None
        if may_wait and not stays:
            kept = self._reviews.close(connection, id, "decided_again", decided.at)
        if decided.review is not None:
            self._reviews.open(connection, decided.review._replace(**kept or {}))
        ends = moved and refund.state in STATE_OF_OUTCOME.values()
        if decided.order_id is None and not ends:
            return
        before = self._reservations.of_refunds(connection, [id]).get(id, [])
        held = {(one.order_id, one.currency): one for one in before}
        if ends:
            held = {name: refund.settled(one, refund.state, None) for name, one in held.items()}
        if decided.order_id is not None:
            name = decided.order_id, decided.currency
            was = held.get(name) or Reservation(id, *name)
            now = decided.hold(was)
            held[name] = now._replace(review_minor=was.review_minor) if stays else now
        changed = [one for one in held.values() if one not in before]
        self._reservations.put(connection, changed)

    def taken_again(self, connection: Connection, arriving: Iterable[Event]) -> list[Event]:
        """The events, outcomes that are told again of a refund that stands otherwise as new ones.

        An outcome's id leaves out its time, so that one delivered twice counts once. But a payment
        that came through, was sent back and came through again was told twice, and both count: the
        second gets an id that includes its time.
        """
        given = list(arriving)
        told = {
            place: (event, _id_of(event)) for place, event in enumerate(given)
            if isinstance(event, RefundOutcome)
        }  # fmt: skip
        if not told:
            return given
        # All that the events will be locked by, at once: two that append cannot wait in a circle.
        self.hold_off(connection, [event.refund_id for event, _ in told.values()])
        self._database.lock(connection, _names_of(given))
        ids = [event_id for _, event_id in told.values()]
        is_there = self._database.prepared(
            ("are_there", padded_size(len(ids))),
            lambda: select(events.c.event_id).where(
                events.c.event_id.in_([bindparam(f"id{i}") for i in range(padded_size(len(ids)))])
            ),
        )
        rows = self._database.run(connection, is_there, tuple(padded(ids)))
        known = {event_id for (event_id,) in rows}
        if not known:
            return given
        standing = self.get(connection, [event.refund_id for event, _ in told.values()])
        for place, (event, event_id) in told.items():
            refund = standing.get(event.refund_id)
            if event_id not in known or refund is None or event.known_at < refund.state_at:
                continue
            if refund.state != STATE_OF_OUTCOME[event.status]:
                dated = event_digest(orjson.dumps(["again", event_id, event.known_at]))
                given[place] = event.model_copy(update={"event_id": dated})
        return given

    def transition(
        self, connection: Connection, refund_id: str, to: Sequence[State], at: int, reported: bool
    ) -> bool:
        """Move a refund through states, one after another; see `Transaction.transition`."""
        self.hold_off(connection, [refund_id])
        self._database.lock(connection, [("refund_id", refund_id)])  # as events about it do
        refund = self.get(connection, [refund_id]).get(refund_id) or Refund(refund_id)
        is_unexpected = False
        for state in to:
            if reported:
                is_unexpected |= refund.report(state, at)
            else:
                refund.move(state, at)
        self._put(connection, [refund])
        if refund.state in STATE_OF_OUTCOME.values():
            held = self._reservations.of_refunds(connection, [refund_id]).get(refund_id, ())
            left = (refund.settled(one, refund.state, None) for one in held)
            self._reservations.put(connection, left)
        return is_unexpected

    def dispose(self, connection: Connection, review: Review, to: State, at: int) -> Refund:
        """Move a refund, and what it holds, as an analyst answered its review: ``to`` a state.

        What waited is promised or let go of. One that was promised before stays where it is, as
        its payment may be under way. Raises `TransitionRefusedError` where no way leads.
        """
        held = self._reservations.hold_off(connection, [review.refund_id])
        self._database.lock(connection, [("refund_id", review.refund_id)])
        found = self.get(connection, [review.refund_id])
        refund = found.get(review.refund_id) or Refund(review.refund_id)
        if refund.state not in PROMISED:
            refund.move(to, at)
            self._put(connection, [refund])
        reviewed = review.order_id, review.currency
        self._reservations.put(
            connection,
            (one.allow(review.due_minor)
             if to == "APPROVED" and (one.order_id, one.currency) == reviewed else one.refuse()
             for one in held.get(review.refund_id, ())),
        )  # fmt: skip
        return refund

    def reopen(self, connection: Connection, review: Review, at: int) -> Refund:
        """Have a refund that was refused wait for a person, and hold what they may promise of it.

        Raises `TransitionRefusedError` where that cannot be; see `Refund.reopen`.
        """
        id, order_id = review.refund_id, review.order_id
        held = self._reservations.hold_off(connection, [id]).get(id, [])
        self._database.lock(connection, [("refund_id", id)])
        refund = self.get(connection, [id]).get(id) or Refund(id)
        refund.reopen(at)
        self._put(connection, [refund])
        self._reviews.reopen(connection, review)
        if order_id is not None:
            name = order_id, review.currency
            was = next((one for one in held if (one.order_id, one.currency) == name), None)
            held_now = (was or Reservation(id, *name)).review(review.due_minor)
            self._reservations.put(connection, [held_now])
        return refund

    def ask_again(self, connection: Connection, refund_id: str, at: int) -> None:
        """Begin anew with a refund that was denied or canceled; see `Refund.ask_again`."""
        self._database.lock(connection, [("refund_id", refund_id)])
        if refund := self.get(connection, [refund_id]).get(refund_id):
            refund.ask_again(at)
            self._put(connection, [refund])

    def get(self, connection: Connection, refund_ids: Sequence[str]) -> dict[str, Refund]:
        """Those of the refunds that are known, by id."""
        size = padded_size(len(refund_ids))
        prepared = self._database.prepared(
            ("refunds", size),
            lambda: select(*(refunds.c[name] for name in _COLUMNS)).where(
                refunds.c.refund_id.in_([bindparam(f"id{i}") for i in range(size)])
            ),
        )
        rows = self._database.run(connection, prepared, tuple(padded(refund_ids)))
        return {row[0]: Refund(*row) for row in rows}

    def _put(self, connection: Connection, changed: Iterable[Refund]) -> None:
        statement = self._database.inserting(refunds, _COLUMNS, "replace")
        if rows := sorted(map(_row, changed)):
            self._database.run_many(connection, statement, rows)


_row: Final = attrgetter(*_COLUMNS)


def _is_late(refund: Refund, event: StoredEvent) -> bool:
    return event.known_at < refund.state_at


def _id_of(event: Event) -> str:
    content = event.model_dump(exclude_none=True)
    return event.event_id or derive_event_id(event.event_type, content, repeats=event.repeats)


def _names_of(given: Iterable[Event]) -> set[tuple[str, str]]:
    """What `serving.store.history` locks for these events."""
    return {
        (column, name)
        for event in given for column in NAMING_COLUMN.values()
        if (name := getattr(event, column, None))
    } | {("event", event.event_id) for event in given if event.event_id}  # fmt: skip
