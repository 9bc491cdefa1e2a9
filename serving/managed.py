"""What the calls that people make answer: decision records, policies, lists, reviews, erasures.

Plain types, which OpenAPI is published from. Times are epoch milliseconds.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

# On Python before 3.12 pydantic reads a TypedDict from here only.
from typing_extensions import TypedDict

from serving.roles import Role
from serving.store.lists import ListName
from serving.store.policies import ActName
from serving.store.reviews import ActKind, Disposition, Ending, Status

EntityKind = Literal["customer", "device", "payment_method", "address", "ip", "email"]
"""What an entry of a list may be about."""


class StoredAnswer(TypedDict):
    """What was answered, less the customer's id."""

    status: int
    timestamp: int
    data: dict[str, Any]


class DecisionRecord(TypedDict):
    """All that a decision rests on: its record, and what was answered.

    ``record`` holds the cutoff, the snapshot of what was read, the feature row and the facts (what
    is not known is null or left out), the model's contributions, every rule's result, and the
    versions of model, policy and catalog. Persons are in it under pseudonyms.
    """

    scoreId: str
    decidedAt: int
    record: dict[str, Any]
    response: StoredAnswer


class VersionBody(TypedDict):
    """A policy version: who proposed it, when and why, and whether it is in force."""

    version: str
    hash: str
    author: str
    note: str | None
    createdAt: int
    active: bool


class PolicyData(VersionBody):
    """A policy version with its document as it was given."""

    text: str


class ProposedData(VersionBody):
    """A policy version and, a sentence each, what it changes of the one in force."""

    changes: list[str]


class ActBody(TypedDict):
    """That somebody put a version in force, and what it replaced."""

    act: ActName
    version: str
    hash: str
    replaced: str | None
    actor: str
    note: str | None
    at: int


class PoliciesData(TypedDict):
    """The version in force, every version and every act, the newest first."""

    active: str | None
    policies: list[VersionBody]
    acts: list[ActBody]


class ListedEntry(TypedDict):
    """An entry of a list, by pseudonym (``value``); the original id only where it was asked for.

    ``id`` is null where the original was erased.
    """

    entity: EntityKind
    value: str
    reason: str
    author: str | None
    createdAt: int
    expiresAt: int | None
    id: NotRequired[str | None]


class EntriesData(TypedDict):
    """A page of a list; ``next`` is what ``after`` takes for the following one, null at the end."""

    entries: list[ListedEntry]
    next: str | None


class ListedData(TypedDict):
    """An entity that was put on a list, in the one spelling that requests are read in."""

    list: ListName
    entity: EntityKind
    id: str
    value: str
    reason: str
    author: str | None
    createdAt: int
    expiresAt: int | None


class UnlistedData(TypedDict):
    """An entity that was taken off a list."""

    list: ListName
    entity: EntityKind
    id: str


class ProposalBody(TypedDict):
    """An approval that waits for a second person: of ``needs`` or a higher role, if there is one.

    Their limit is to be enough. ``abuse`` is the verdict of the first, null without one.
    """

    by: str
    at: int
    abuse: bool | None
    needs: Role | None


class ReviewBody(TypedDict):
    """A review: of which decision, what is at stake, by when it is to be done, and how it ended.

    ``amount`` was asked and ``due`` would be paid of it, in ``currency``; ``payable`` is that in
    ``baseCurrency``, as is ``expectedLoss``: null where it is not known. ``customer`` is a
    pseudonym. ``disposition`` is what the same request is answered with since an analyst decided.
    ``ending`` tells what ended the review; decided_again is a decision on other fields.
    ``proposal`` is an approval above the limit of whoever gave it: it waits for a second person.
    """

    refundId: str
    scoreId: str
    status: Status
    customer: str
    orderId: str | None
    amount: int
    due: int
    currency: str
    payable: int | None
    expectedLoss: int | None
    baseCurrency: str
    abuseProbability: float | None
    openedAt: int
    dueAt: int
    overdue: bool
    assignee: str | None
    disposition: Disposition | None
    ending: Ending | None
    closedAt: int | None
    closedBy: str | None
    proposal: ProposalBody | None


class ReviewsData(TypedDict):
    """A page of the queue; ``next`` is what ``after`` takes for the following one, null at the end.

    The most at stake comes first; of what is done, what was done last.
    """

    reviews: list[ReviewBody]
    next: str | None


class ReviewActBody(TypedDict):
    """What a person did on a review, and why; ``abuse`` is their verdict, null without one."""

    scoreId: str
    at: int
    act: ActKind
    by: str
    justification: str | None
    abuse: bool | None
    assignee: str | None


class ReviewData(ReviewBody):
    """The latest review of a refund; what people did on all of its reviews; up to 100 before it."""

    acts: list[ReviewActBody]
    earlier: list[ReviewBody]


class ErasedData(TypedDict):
    """A customer who was erased: how many rows of which table were changed or deleted.

    ``known`` is whether anything was held of them; of whom nothing was, the id may be a wrong one.
    """

    customerId: str
    known: bool
    erased: dict[str, int]
