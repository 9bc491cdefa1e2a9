"""What people do on reviews: approve, deny, ask, assign, note, reopen. Nothing here knows HTTP.

Each act is one transaction: the review, the refund's state and what it holds of its order, the
verdict as a label, the webhook, and an audit entry whose justification can be erased. Whether a
refund is to be paid and whether it is abuse are two questions: a claim may be refused for coming
too late, and one that is paid for goodwill may be abuse. So the verdict is said apart, or not.

Who approves more than their limit proposes it: the refund goes on waiting, until somebody of a
higher role whose limit is enough approves it too (four eyes). Who acts is looked up where the act
is written, and the store lets no review end as approved without enough people behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from features.balance import Money
from features.documents import OrderDocuments
from features.events import Label, RefundRequest, due_minor
from features.money import DAY_MS
from rules.policy import PolicyError
from serving import announcements
from serving.governance import AlteredPolicyError, loaded
from serving.persons import NameRefused, is_same_person, name_of_person
from serving.roles import ROLES, Permission, Role, may, rank_of
from serving.store.approvals import Approval
from serving.store.refunds import State, TransitionRefusedError
from serving.store.reviews import Act, ActKind, Review, place_of
from serving.store.store import Store, Transaction
from serving.wire import InvalidRequest, Problem, did_you_mean, shown

LEAST_CHARACTERS: Final = 10
MOST_CHARACTERS: Final = 2_000

MOST_AT_ONCE: Final = 100
"""On how many reviews something is done at once."""

ActName = Literal["approve", "deny", "request_information", "assign", "withdraw", "note", "reopen"]

_KIND: Final[dict[str, ActKind]] = {
    "approve": "approved", "deny": "denied", "request_information": "information_requested",
    "assign": "assigned", "withdraw": "proposal_withdrawn", "note": "noted", "reopen": "reopened",
}  # fmt: skip
ACTS: Final = tuple(_KIND)
"""What can be done on a review, as it is asked for."""

_UNEXPLAINED: Final = ("assign", "withdraw")
_SETTLING: Final = ("approve", "deny")
_TOLD: Final[frozenset[ActKind]] = frozenset({"approved", "denied", "information_requested"})
"""What webhooks tell."""

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


class ActRefusedError(Exception):
    """Whoever acts may not do this; the message says why, and who could."""


class Authority(NamedTuple):
    """Who acts: by which name, in which role, and up to how much they approve alone.

    ``limit_minor`` is in minor units of the base currency, None for any amount.
    """

    name: str
    role: Role = "agent"
    limit_minor: int | None = None
    has_account: bool = False

    @property
    def rank(self) -> int:
        """How high the role is."""
        return rank_of(self.role)

    def is_enough_for(self, payable_minor: int | None) -> bool:
        """Whether they approve this much alone: what is not known is above every limit.

        >>> ann = Authority("Ann", "agent", 500)
        >>> ann.is_enough_for(500), ann.is_enough_for(501), ann.is_enough_for(None)
        (True, False, False)
        """
        if self.limit_minor is None:
            return True
        return payable_minor is not None and payable_minor <= self.limit_minor


Effect = Literal["approved", "seconded", "approval_proposed", "own_proposal", "not_enough"]
"""What comes of an approval: it settles the review, alone or as the second of two; it waits for
somebody of a higher role; or it is refused, as a proposal of one's own or for one's own limit."""


def effect_of_approval(review: Review, who: Authority) -> Effect:
    """What comes of it if somebody approves a review that waits: a page can say it beforehand.

    >>> review = Review("s", "r", "c", None, "GBP", 900, 900, 900, 1, 0.2, -1, 10, 20)
    >>> ann, bob = Authority("Ann", "agent", 500), Authority("Bob", "manager", 1_000)
    >>> effect_of_approval(review, ann), effect_of_approval(review, bob)
    ('approval_proposed', 'approved')
    >>> review = review._replace(approval=Approval("Ann", ann.rank, 500, 11))
    >>> effect_of_approval(review, ann), effect_of_approval(review, bob)
    ('own_proposal', 'seconded')
    >>> effect_of_approval(review, Authority("Cid", "agent", 800))
    'not_enough'
    """
    proposal, is_enough = review.proposal, who.is_enough_for(review.payable_minor)
    if proposal is None:
        return "approved" if is_enough else "approval_proposed"
    if is_same_person(proposal.first_by, who.name):
        return "approved" if is_enough else "own_proposal"
    if not is_enough:
        return "not_enough"
    return "seconded" if who.rank > proposal.first_rank else "approved"


def role_above(rank: int) -> Role | None:
    """The lowest role that ranks higher; None above the highest.

    >>> role_above(rank_of("agent")), role_above(rank_of("admin"))
    ('manager', None)
    """
    return ROLES[rank + 1] if rank + 1 < len(ROLES) else None


def who_may_approve(store: Store, review: Review) -> list[Authority]:
    """Who has an account and could end a review as approved now, the lowest role first."""
    people = [Authority(one.name, one.role, one.limit_minor, has_account=True)
              for one in store.accounts.all() if one.is_active]  # fmt: skip
    able = [one for one in people if may(one.role, "review")
            and effect_of_approval(review, one) in ("approved", "seconded")]  # fmt: skip
    return sorted(able, key=lambda one: (one.rank, one.name))


def authority_of(tx: Transaction, name: str, limit_minor: int | None = None) -> Authority:
    """Who somebody is who acts under a name, as of now.

    Whoever has an account acts with its role and limit, from wherever. Anybody else, who was given
    a key or is at the machine, has the role of an agent, and ``limit_minor``. Raises
    `ActRefusedError` for an account that is disabled.
    """
    account = tx.account(name)
    if account is None:
        return Authority(name, limit_minor=limit_minor)
    if account.disabled_at is not None:
        raise ActRefusedError(f"{account.name}: this account is disabled, so nothing was done")
    return Authority(account.name, account.role, account.limit_minor, has_account=True)


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

        ``justification`` of 10 to 2,000 characters is asked of all but assign and withdraw; a note
        is its own, and may be shorter. ``assignee`` is for assign alone: a person, or '' for
        nobody. ``abuse`` is the verdict, for approve and deny; None gives none. ``score_id`` is the
        decision that was read, where it is to be that one.

        >>> Doing.of("deny", by="Ann", justification="The parcel was signed for.", abuse=True).kind
        'denied'
        >>> Doing.of("refuse", by="Ann", justification="no")
        Traceback (most recent call last):
        ...
        serving.wire.InvalidRequest: act: must be one of approve, deny, request_information, \
assign, withdraw, note, reopen, got "refuse"; justification: must be 10 to 2000 characters that \
can be read, letters among them, got "no"
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
    least = 1 if act == "note" else LEAST_CHARACTERS
    if justification is None and act not in _UNEXPLAINED:
        told = f"is required, {least} to {MOST_CHARACTERS} characters: say why"
        yield Problem("justification", told)
    elif justification is not None and not _fits(justification, least):
        told = (f"must be {least} to {MOST_CHARACTERS} characters that can be read, "
                "letters among them")  # fmt: skip
        yield Problem("justification", told, shown(justification))
    if abuse is not None and act in _KIND and act not in _SETTLING:
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


def _fits(text: str, least: int) -> bool:
    """Whether a text is long enough, has letters, and holds nothing unseen but what joins them."""
    seen = all(one.isprintable() or one in "\n\t\u200c\u200d" for one in text)
    seen = seen and any(one.isalpha() for one in text)
    return seen and least <= len(text.strip()) <= MOST_CHARACTERS


def act_on(
    store: Store, refund_id: str, doing: Doing, *, at: int, via: str | None = None,
    limit_minor: int | None = None, review_ms: int = DAY_MS,
) -> Review:  # fmt: skip
    """Do it at ``at`` (epoch ms), all or nothing; returns the review as it stands then.

    ``via`` is how the audit log names who asked, where that is more than the person.
    ``limit_minor`` is up to how much they approve alone if they have no account (None: any amount):
    above it the approval is kept as a proposal, and the review stays open. ``review_ms`` is how
    long a person has for a review that is opened anew.

    Raises:
        UnknownReviewError: no decision ever held the refund; or, to reopen, none was made of it.
        ReviewConflictError: the review ended before, with who was first; or it is about another
            decision than ``doing.score_id``; or it would be approved and more is asked than is left
            of its order beside what others were promised; or there is nothing to take back.
        ActRefusedError: who acts may not, or stands behind the approval already, or is not enough.
        serving.store.refunds.TransitionRefusedError: the refund cannot be moved so.
    """
    with store.reading() as tx:
        review = _meant(store, tx, refund_id, doing, at + review_ms)
    is_bounded = doing.kind == "approved" and _are_orders_complete(store)
    with store.write_on(review) as tx:
        review = _meant(store, tx, refund_id, doing, at + review_ms)  # the first has committed
        who = authority_of(tx, doing.by, limit_minor)
        _refuse_unless_may(review, doing, who)
        if is_bounded:
            _refuse_above_balance(tx, review)
        at = _instant(store, tx, review, at)
        done, act = _after(review, doing, who, at)
        if (goal := _GOAL.get(act.act)) is not None:
            tx.dispose(review, goal, at=at)
        if act.act == "reopened":
            done = done._replace(opened_at=at, due_at=at + review_ms)
            tx.reopen(done, at=at)
            if tx.has_verdict(refund_id):
                # Who called it abuse may have been wrong: it is said anew with the next answer.
                tx.append([_label(act, "UNREVIEWED")])
        tx.change_review(done, act)
        _record(tx, done, act, review.proposal, via)
    return done


def act_on_many(
    store: Store, refund_ids: Iterable[str], doing: Doing, *, at: int, via: str | None = None,
    limit_minor: int | None = None, read: Mapping[str, str] | None = None,
) -> dict[str, Review | Exception]:  # fmt: skip
    """Do the same on several reviews: what became of each, by refund; arguments as for `act_on`.

    ``read`` is, by refund, the decision that was read, where it is to be that one. Each is a
    transaction of its own, so one that is refused hinders no other: its outcome is the error.
    Raises `InvalidRequest`, and does nothing, for none or more than `MOST_AT_ONCE`.
    """
    ids = list(dict.fromkeys(refund_ids))
    if not 1 <= len(ids) <= MOST_AT_ONCE:
        told = f"must be 1 to {MOST_AT_ONCE} refunds"
        raise InvalidRequest([Problem("refundIds", told, len(ids))])
    done: dict[str, Review | Exception] = {}
    for refund_id in ids:
        of_it = doing._replace(score_id=(read or {}).get(refund_id, doing.score_id))
        try:
            done[refund_id] = act_on(store, refund_id, of_it, at=at, via=via,
                                     limit_minor=limit_minor)  # fmt: skip
        except (UnknownReviewError, ReviewConflictError, ActRefusedError,
                TransitionRefusedError) as error:  # fmt: skip
            done[refund_id] = error
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


def _meant(
    store: Store, tx: Transaction, refund_id: str, doing: Doing, due_at: int
) -> Review:  # fmt: skip
    """The review that is meant: the one that is open, but for a note, and to reopen one."""
    review = None if "\0" in refund_id else tx.review(refund_id)
    if doing.kind == "reopened":
        review = _refused(store, tx, refund_id, review, due_at)
    elif review is None:
        raise UnknownReviewError(f"refundId: no review of refund {shown(refund_id)!r} is known")
    elif review.closed_at is not None and doing.kind != "noted":
        raise ReviewConflictError(f"refund {refund_id!r}: {how_it_ended(review)}; nothing of it "
                                  "waits for a person")  # fmt: skip
    if doing.score_id not in (None, review.score_id):
        raise ReviewConflictError(
            f"scoreId: the review is about decision {review.score_id!r}, expected that one, got "
            f"{shown(doing.score_id)!r}; read it again, its fields are others now"
        )
    return review


def _refused(
    store: Store, tx: Transaction, refund_id: str, latest: Review | None, due_at: int
) -> Review:
    """The review, still to be opened, of the last decision on a refund, which refused it.

    Of the last one, as it is what the same request is answered with.
    """
    name = shown(refund_id)
    if latest is not None and latest.closed_at is None:
        raise ReviewConflictError(f"refund {refund_id!r}: it waits for a person as it is")
    last = next(iter(tx.decisions_of(refund_id)), None) if "\0" not in refund_id else None
    if last is None:
        raise UnknownReviewError(f"refundId: no decision on refund {name!r} is known")
    action = last.record["decision"]["action"]
    if latest is not None and latest.score_id == last.score_id:
        action, told = latest.disposition, how_it_ended(latest)
    else:
        told = f"it was answered {action}"
    if action != "PREVENT":
        raise ReviewConflictError(f"refund {refund_id!r}: {told}; only what was refused is "
                                  "reopened")  # fmt: skip
    if latest is not None and latest.score_id == last.score_id:
        return latest._replace(status="OPEN", closed_at=None, ending=None, closed_by=None,
                               overdue_told_at=None, approval=None)  # fmt: skip
    asked_as = last.record.get("event_id")
    asked = next((event.payload for event in store.refund_events(refund_id)
                  if event.event_id == asked_as), None)  # fmt: skip
    if asked is None:
        raise UnknownReviewError(
            f"refundId: what was asked of refund {name!r} is not kept any more"
        )
    due = due_minor(asked["amount_minor"], asked.get("non_refundable_minor"))
    payable, loss = ((last.record.get("features") or {}).get("payable_minor"),
                     last.record["expected_loss_minor"])  # fmt: skip
    payable_minor = None if payable is None else round(payable)
    return Review(
        last.score_id, refund_id, last.record["keys"]["customer"], asked.get("order_id"),
        asked["currency"], asked["amount_minor"], due, payable_minor,
        None if loss is None else round(loss), last.record["probability"],
        place_of(loss, payable_minor), last.decided_at, due_at,
    )  # fmt: skip


def _refuse_unless_may(review: Review, doing: Doing, who: Authority) -> None:
    """Refuse what somebody's role, or what they did before, does not allow."""
    if not may(who.role, "review"):
        raise ActRefusedError(f"{who.name} is {who.role}: expected agent or higher to act on "
                              "reviews")  # fmt: skip
    needs: Permission = "review"
    if doing.kind == "reopened" or (doing.kind == "assigned" and not _is_own(review, doing, who)):
        needs = "assign"
    if who.has_account and not may(who.role, needs):
        what = "reopen a refusal"
        if doing.kind == "assigned":
            whose = f", or take another's (it is {review.assignee}'s)" if review.assignee else ""
            what = f"give a review to others{whose}"
        raise ActRefusedError(f"{who.name} is {who.role}: expected manager or admin to {what}")
    proposal = review.proposal
    if doing.kind == "proposal_withdrawn":
        if proposal is None:
            raise ReviewConflictError(f"refund {review.refund_id!r}: nobody proposed to approve "
                                      "it, so nothing is to be withdrawn")  # fmt: skip
        if not is_same_person(proposal.first_by, who.name):
            raise ActRefusedError(f"{proposal.first_by} proposed to approve it: expected them to "
                                  f"withdraw that, got {who.name}")  # fmt: skip
    if doing.kind != "approved" or proposal is None:
        return
    higher = _higher(proposal)
    match effect_of_approval(review, who):
        case "own_proposal":
            raise ActRefusedError(f"{who.name} proposed to approve it: expected {higher} as the "
                                  "second")  # fmt: skip
        case "not_enough":
            raise ActRefusedError(
                f"{who.name} approves up to {who.limit_minor:,} alone: expected {higher} as the "
                f"second, beside {proposal.first_by}"
            )


def _is_own(review: Review, doing: Doing, who: Authority) -> bool:
    """Whether somebody takes a review that is nobody's, or keeps or gives back their own.

    So of two who take one at once the first has it.
    """
    before, after = review.assignee or who.name, doing.assignee or who.name
    return is_same_person(before, who.name) and is_same_person(after, who.name)


def _higher(proposal: Approval) -> str:
    """Who could be the second, in words."""
    role = role_above(proposal.first_rank)
    return f"{f'{role} or higher' if role else 'somebody'} whose limit is enough"


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


def _after(review: Review, doing: Doing, who: Authority, at: int) -> tuple[Review, Act]:
    """How a review stands after an act, and the act as it is kept."""
    kind, abuse, approval = doing.kind, doing.abuse, review.approval
    if kind == "approved":
        effect = effect_of_approval(review, who)
        kind = "approval_proposed" if effect == "approval_proposed" else "approved"
        if approval is not None and abuse is None and effect == "seconded":
            abuse = approval.abuse
        approval = _stands_behind(approval, doing, who, at, is_second=effect == "seconded")
    elif kind in ("denied", "information_requested", "proposal_withdrawn"):
        approval = None
    after = review._replace(approval=approval)
    if kind == "approved" or kind == "denied":
        after = after._replace(status="DONE", closed_at=at, ending=kind, closed_by=doing.by)
    elif kind == "assigned":
        after = after._replace(assignee=doing.assignee)
    elif kind == "information_requested":
        after = after._replace(status="WAITING")
    act = Act(review.refund_id, review.score_id, at, kind, doing.by, doing.justification, abuse,
              doing.assignee)  # fmt: skip
    return after, act


def _stands_behind(
    before: Approval | None, doing: Doing, who: Authority, at: int, *, is_second: bool
) -> Approval:
    if before is not None and is_second:
        return before._replace(second_by=doing.by, second_rank=who.rank,
                               second_limit_minor=who.limit_minor, second_at=at)  # fmt: skip
    return Approval(doing.by, who.rank, who.limit_minor, at, doing.justification, doing.abuse)


def _record(
    tx: Transaction, done: Review, act: Act, proposal: Approval | None, via: str | None
) -> None:
    """The label, and what the audit log keeps of an act and webhooks tell."""
    abuse = act.abuse
    content = {"score_id": done.score_id, "disposition": done.disposition, "abuse": abuse}
    personal = {"by": act.actor, "justification": act.justification, "assignee": act.assignee}
    if proposal is not None and act.act != "proposal_withdrawn":
        personal["proposed_by"] = proposal.first_by
    tx.audit(via or act.actor, f"review_{act.act}", f"refund:{done.refund_id}", content, at=act.at,
             personal=personal)  # fmt: skip
    if act.act not in _TOLD:
        return
    if abuse is not None:
        tx.append([_label(act, "REFUND_ABUSE" if abuse else "NOT_REFUND_ABUSE")])
    told = announcements.refund_reviewed(done.refund_id, done.score_id, act.act, done.disposition,
                                         abuse)  # fmt: skip
    tx.announce("refund.reviewed", told, act.at)


def _label(act: Act, word: Any) -> Label:
    """The verdict, as training learns from it, or that there is none any more."""
    return Label(refund_id=act.refund_id, label=word, source="ANALYST", reviewer=act.actor,
                 known_at=act.at)  # fmt: skip
