"""What waits for a person, as people work it: a part of the queue with its reasons in brief, how
much there is, and the file of one case. Nothing here knows HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, Unpack

from serving.reviews import Authority, Effect, effect_of_approval, who_may_approve
from serving.roles import may
from serving.store import lookup
from serving.store.refunds import State
from serving.store.reviews import Act, Review, Wanted, place_in
from serving.store.store import Store

MOST_REASONS: Final = 3
"""So many reasons are told of a case in the queue."""

MOST_REVIEWS: Final = 20
"""So many reviews of one refund are told, the latest."""

_PLACE: Final = re.compile(r"(-?[0-9]{1,18}|-4611686018427387904)\.([0-9a-zA-Z_-]{1,256})")

Place = tuple[int, str]


class Reason(NamedTuple):
    """A reason code, and the strongest fact behind it: ``value`` is the request's own word, if any.

    ``feature`` is then the column that has that word.
    """

    code: str
    feature: str = ""
    value: str | None = None


class Waiting(NamedTuple):
    """A review with what its decision rests on: reasons, the weightiest first."""

    review: Review
    reasons: tuple[Reason, ...] = ()
    risk_level: str | None = None


class Part(NamedTuple):
    """A part of the queue, and where the next one begins; None after the last."""

    cases: tuple[Waiting, ...]
    next: Place | None


class Counts(NamedTuple):
    """How many reviews wait: all, the late ones, somebody's own, and for a second person."""

    waiting: int
    overdue: int
    own: int
    proposed: int


def part_of_queue(
    store: Store, *, limit: int, after: Place | None = None, **wanted: Unpack[Wanted]
) -> Part:
    """A part of the queue, the most at stake first; see `serving.store.reviews.Reviews.queue`."""
    found = store.review_queue(limit=limit + 1, after=after, **wanted)
    shown = found[:limit]
    with store.database.read() as connection:
        answers = lookup.answers_of(connection, [review.score_id for review in shown])
    cases = [_told(review, answers.get(review.score_id)) for review in shown]
    return Part(tuple(cases), place_in(shown[-1]) if len(found) > limit else None)


def _told(review: Review, answer: lookup.Answer | None) -> Waiting:
    if answer is None:
        return Waiting(review)
    reasons: dict[str, Reason] = {}
    for told in answer.data.get("reasons", ()):
        value = told.get("value")
        word = value if isinstance(value, str) else None
        reasons.setdefault(told["code"], Reason(told["code"], told.get("feature") or "", word))
    return Waiting(review, tuple(reasons.values())[:MOST_REASONS], answer.data.get("riskLevel"))


def counts_of(store: Store, name: str, at: int) -> Counts:
    """How much waits at ``at`` (epoch ms), and how much of it for somebody of this name."""
    waiting, overdue = store.reviews_waiting(at)
    return Counts(
        waiting, overdue if store.clock == "ingest" else 0,
        store.count_review_queue(assignee=name), store.count_review_queue(proposed=True),
    )  # fmt: skip


def text_of(place: Place) -> str:
    """A place in the queue as an address holds it.

    >>> text_of((-120, "a1")), place_of_text("-120.a1"), place_of_text("x")
    ('-120.a1', (-120, 'a1'), None)
    """
    return f"{place[0]}.{place[1]}"


def place_of_text(text: str) -> Place | None:
    """What `text_of` wrote; None for anything else."""
    found = _PLACE.fullmatch(text)
    return (int(found[1]), found[2]) if found else None


# --- one case ------------------------------------------------------------------------------------


class CaseFile(NamedTuple):
    """A refund as a person decides it, or sees how it was.

    ``review`` is the latest, None where nothing ever waited; ``acts`` is what people did, the first
    first. ``decisions`` are (score id, epoch ms), the latest first. ``effect`` is what comes of it
    if whoever asks approves, None where they may not or nothing waits; ``able`` are those who could
    end it as approved, told where whoever asks could not.
    """

    refund_id: str
    review: Review | None
    earlier: Sequence[Review]
    acts: Sequence[Act]
    decisions: Sequence[tuple[str, int]]
    effect: Effect | None
    able: Sequence[Authority]
    is_reopenable: bool
    state: State | None
    """Where the refund stands; None where nothing of it is kept."""

    @property
    def is_open(self) -> bool:
        """Whether it waits for a person."""
        return self.review is not None and self.review.closed_at is None

    @property
    def score_id(self) -> str:
        """The decision to read: what a person is asked about, or else the last one."""
        if self.review is not None and (self.is_open or not self.decisions):
            return self.review.score_id
        return self.decisions[0][0]


def case_file(store: Store, refund_id: str, who: Authority) -> CaseFile | None:
    """The case of a refund for somebody; None where no decision on it is known."""
    if "\0" in refund_id:
        return None
    reviews, acts = store.reviews_of(refund_id, MOST_REVIEWS)
    with store.database.read() as connection:
        decided = sorted(lookup.decided_when(connection, [refund_id]),
                         key=lambda one: (one[2], one[0]), reverse=True)  # fmt: skip
        last = lookup.answers_of(connection, [decided[0][0]]) if decided else {}
    if not reviews and not decided:
        return None
    review = reviews[0] if reviews else None
    is_open = review is not None and review.closed_at is None
    effect, able = None, list[Authority]()
    if review is not None and is_open and may(who.role, "review"):
        effect = effect_of_approval(review, who)
        if effect not in ("approved", "seconded"):
            able = who_may_approve(store, review)
    refund, was_refused = store.refund(refund_id), False
    if not is_open and decided:
        action = last[decided[0][0]].data["action"]
        if review is not None and review.score_id == decided[0][0]:
            action = review.disposition
        was_refused = action == "PREVENT" and refund is not None and refund.state == "DENIED"
    return CaseFile(
        refund_id, review, reviews[1:], acts, [(one[0], one[2]) for one in decided], effect, able,
        was_refused and may(who.role, "assign"), refund.state if refund is not None else None,
    )  # fmt: skip


def last_of(acts: Sequence[Act], name: str) -> Act | None:
    """The last thing that somebody did on a refund."""
    return next((act for act in reversed(acts) if act.actor == name), None)
