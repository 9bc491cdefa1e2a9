"""What people do on reviews: approve, deny, ask for information, assign. Nothing here knows HTTP.

Each act is one transaction: the review, the refund's state and what it holds of its order, the
verdict as a label, the webhook, and an audit entry whose justification can be erased. Whether a
refund is to be paid and whether it is abuse are two questions: a claim may be refused for coming
too late, and one that is paid for goodwill may be abuse. So the verdict is said apart, or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from features.balance import Money
from features.documents import OrderDocuments
from features.events import Label, RefundRequest
from rules.policy import PolicyError
from serving import announcements
from serving.governance import AlteredPolicyError, loaded
from serving.persons import NameRefused, name_of_person
from serving.store.refunds import State
from serving.store.reviews import Act, ActKind, Review
from serving.store.store import Store, Transaction
from serving.wire import InvalidRequest, Problem, did_you_mean, shown

LEAST_CHARACTERS: Final = 10
MOST_CHARACTERS: Final = 2_000

ActName = Literal["approve", "deny", "request_information", "assign"]

_KIND: Final[dict[str, ActKind]] = {
    "approve": "approved", "deny": "denied", "request_information": "information_requested",
    "assign": "assigned",
}  # fmt: skip
ACTS: Final = tuple(_KIND)
"""What can be done on a review, as it is asked for."""

_GOAL: Final[dict[ActKind, State]] = {"approved": "APPROVED", "denied": "DENIED"}

DONE_BY: Final = {
    "approved": "approved it", "denied": "denied it",
    "decided_again": "it was decided again on other fields", "paid": "it was reported paid",
    "declined": "it was reported declined", "canceled": "it was reported canceled",
}  # fmt: skip
"""How a review ended, as it is told."""


class UnknownReviewError(LookupError):
    """The refund never waited for a person; the message is its argument."""


class ReviewConflictError(Exception):
    """The review is not what whoever acts on it takes it for; the message says what it is."""


class Doing(NamedTuple):
    """What somebody would do on the review of a refund, checked: see `Doing.of`."""

    kind: ActKind
    by: str
    justification: str | None
    abuse: bool | None
    assignee: str | None
    score_id: str | None

    @classmethod
    def of(
        cls, act: str, *, by: str, justification: str | None = None, abuse: bool | None = None,
        assignee: str | None = None, score_id: str | None = None,
    ) -> Doing:  # fmt: skip
        """An act of a person; raises `InvalidRequest`, a ValueError, with all that is wrong.

        ``justification`` of 10 to 2,000 characters is asked of all but assign, ``assignee`` is for
        assign alone: a person, or '' for nobody. ``abuse`` is the verdict, for approve and deny;
        None gives none. ``score_id`` is the decision that was read, where it is to be that one.

        >>> Doing.of("deny", by="Ann", justification="The parcel was signed for.", abuse=True).kind
        'denied'
        >>> Doing.of("refuse", by="Ann", justification="no")
        Traceback (most recent call last):
        ...
        serving.wire.InvalidRequest: act: must be one of approve, deny, request_information, \
assign, got "refuse"; justification: must be 10 to 2000 characters that can be read, letters among \
them, got "no"
        """
        found = list(_problems(act, justification, abuse, assignee))
        if found:
            raise InvalidRequest(found)
        named = name_of_person(assignee) if assignee else None
        text = justification.strip() if justification else None
        return cls(_KIND[act], name_of_person(by), text, abuse, named, score_id)


def _problems(
    act: str, justification: str | None, abuse: bool | None, assignee: str | None
) -> Iterator[Problem]:
    if act not in _KIND:
        hint = did_you_mean(act, ACTS)
        yield Problem("act", f"must be one of {', '.join(ACTS)}{hint}", shown(act))
    if justification is None and act != "assign":
        told = f"is required, {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters: say why"
        yield Problem("justification", told)
    elif justification is not None and not _fits(justification):
        told = (f"must be {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters that can be read, "
                "letters among them")  # fmt: skip
        yield Problem("justification", told, shown(justification))
    if abuse is not None and act in ("request_information", "assign"):
        yield Problem("abuse", "must be left out here: it is told with approve or deny", abuse)
    if act == "assign" and assignee is None:
        yield Problem("assignee", "is required: a person's name, or an empty one for nobody")
    elif act in _KIND and act != "assign" and assignee is not None:
        yield Problem("assignee", "must be left out here: assign is an act of its own",
                      shown(assignee))  # fmt: skip
    elif assignee:
        try:
            name_of_person(assignee)
        except NameRefused as error:
            told = str(error).removeprefix("name: expected").partition(", got")[0]
            yield Problem("assignee", f"must be{told}", shown(assignee))


def _fits(text: str) -> bool:
    """Whether a text is long enough, has letters, and holds nothing unseen but what joins them."""
    seen = all(one.isprintable() or one in "\n\t\u200c\u200d" for one in text)
    seen = seen and any(one.isalpha() for one in text)
    return seen and LEAST_CHARACTERS <= len(text.strip()) <= MOST_CHARACTERS


def act_on(
    store: Store, refund_id: str, doing: Doing, *, at: int, via: str | None = None
) -> Review:
    """Do it at ``at`` (epoch ms), all or nothing; returns the review as it stands then.

    ``via`` is how the audit log names who asked, where that is more than the person.

    Raises:
        UnknownReviewError: no decision ever held the refund.
        ReviewConflictError: the review ended before, with who was first; or it is about another
            decision than ``doing.score_id``; or it would be approved and more is asked than is left
            of its order beside what others were promised.
        serving.store.refunds.TransitionRefusedError: the refund cannot be moved so.
    """
    with store.reading() as tx:
        review = _current(tx, refund_id, doing)
    is_bounded = doing.kind == "approved" and _are_orders_complete(store)
    with store.write_on(review) as tx:
        review = _current(tx, refund_id, doing)  # whoever was first has committed by now
        if is_bounded:
            _refuse_above_balance(tx, review)
        at = _instant(store, tx, review, at)
        done = _after(review, doing, at)
        if (goal := _GOAL.get(doing.kind)) is not None:
            tx.dispose(review, goal, at=at)
        tx.change_review(
            done,
            Act(refund_id, review.score_id, at, doing.kind, doing.by, doing.justification,
                doing.abuse, doing.assignee),
        )  # fmt: skip
        if doing.abuse is not None:
            tx.append([_label(refund_id, doing, at)])
        _record(tx, done, doing, at, via)
    return done


def _instant(store: Store, tx: Transaction, review: Review, at: int) -> int:
    """When an act is done, in the time that the store lives in: after all that led to it.

    Another worker's clock may be ahead; in a store with the clock ``event`` the present says
    nothing, and what is reported next would come too late for it.
    """
    refund = tx.refund(review.refund_id)
    before = max(review.opened_at, tx.last_act_at(review.refund_id))
    decided = tx.decision(review.score_id)
    if decided is not None:  # one that was renewed is older than what it is about
        before = max(before, decided.decided_at)
    if refund is not None:
        before = max(before, refund.state_at)
    return before + 1 if store.clock == "event" else max(at, before)


def _current(tx: Transaction, refund_id: str, doing: Doing) -> Review:
    """The open review that is meant."""
    review = None if "\0" in refund_id else tx.review(refund_id)
    if review is None:
        raise UnknownReviewError(f"refundId: no review of refund {shown(refund_id)!r} is known")
    if review.closed_at is not None:
        raise ReviewConflictError(f"refund {refund_id!r}: {how_it_ended(review)}; nothing of it "
                                  "waits for a person")  # fmt: skip
    if doing.score_id not in (None, review.score_id):
        raise ReviewConflictError(
            f"scoreId: the review is about decision {review.score_id!r}, expected that one, got "
            f"{shown(doing.score_id)!r}; read it again, its fields are others now"
        )
    return review


def _are_orders_complete(store: Store) -> bool:
    """Whether what an order's documents say binds, as in decisions: the policy in force says it.

    Of one that cannot be loaded the careful answer: it may be.
    """
    kept = store.active_policy()
    try:
        return kept is None or loaded(kept).orders_complete
    except (PolicyError, AlteredPolicyError):
        return True


_SEES_ALL: Final = 2**53
"""A cutoff after all that is kept: under the order's lock nothing else comes."""


def _refuse_above_balance(tx: Transaction, review: Review) -> None:
    """Refuse to promise more than is left of the order: asked again it would be prevented.

    As decisions reckon it; what is not known, as for another currency, refuses nothing.
    """
    if review.order_id is None:
        return
    asked = RefundRequest(refund_id=review.refund_id, customer_id=review.customer,
                          order_id=review.order_id, known_at=_SEES_ALL,
                          amount_minor=review.due_minor, currency=review.currency)  # fmt: skip
    others = tx.reserved(review.order_id, besides=review.refund_id)
    documents = OrderDocuments.seen_by(asked, tx.order_events(asked))
    money = Money(documents, asked, [hold for one in others for hold in one.holds(_SEES_ALL)])
    currency = documents.first(lambda order: order.currency)
    captured, back, promised = money.captured(), money.paid_back, money.reserved()
    if documents.is_crowded or currency not in (None, review.currency):
        return
    if captured is None or back is None or promised is None:
        return
    left = captured - back - promised
    if review.due_minor > left:
        raise ReviewConflictError(
            f"refund {review.refund_id!r}: expected at most the {max(0, left):,} that are left of "
            f"the order, got {review.due_minor:,} {review.currency} to approve: of {captured:,} "
            f"captured {back:,} went back and {promised:,} are promised to other refunds"
        )


def how_it_ended(review: Review) -> str:
    """How a review that is done ended: who, what and when.

    >>> review = Review("s", "r", "c", None, "GBP", 5, 5, 5, 1, 0.2, -1, 10, 20, closed_at=60_000,
    ...                 ending="approved", closed_by="Ann", status="DONE")
    >>> how_it_ended(review)
    'Ann approved it at 1970-01-01 00:01:00Z'
    """
    when = datetime.fromtimestamp((review.closed_at or 0) / 1000, UTC)
    who = f"{review.closed_by} " if review.closed_by else ""
    return f"{who}{DONE_BY[review.ending or 'paid']} at {when:%Y-%m-%d %H:%M:%S}Z"


def _after(review: Review, doing: Doing, at: int) -> Review:
    """How a review stands after an act."""
    match doing.kind:
        case "assigned":
            return review._replace(assignee=doing.assignee)
        case "information_requested":
            return review._replace(status="WAITING")
        case "approved" | "denied":
            return review._replace(status="DONE", closed_at=at, ending=doing.kind,
                                   closed_by=doing.by)  # fmt: skip


def _label(refund_id: str, doing: Doing, at: int) -> Label:
    """The verdict, as training learns from it."""
    word: Any = "REFUND_ABUSE" if doing.abuse else "NOT_REFUND_ABUSE"
    return Label(refund_id=refund_id, label=word, source="ANALYST", reviewer=doing.by, known_at=at)


def _record(tx: Transaction, done: Review, doing: Doing, at: int, via: str | None) -> None:
    """What the audit log keeps of an act, and what webhooks tell."""
    content = {"score_id": done.score_id, "disposition": done.disposition, "abuse": doing.abuse}
    personal = {"by": doing.by, "justification": doing.justification, "assignee": doing.assignee}
    tx.audit(via or doing.by, f"review_{doing.kind}", f"refund:{done.refund_id}", content, at=at,
             personal=personal)  # fmt: skip
    if doing.kind != "assigned":
        told = announcements.refund_reviewed(done.refund_id, done.score_id, doing.kind,
                                             done.disposition, doing.abuse)  # fmt: skip
        tx.announce("refund.reviewed", told, at)
