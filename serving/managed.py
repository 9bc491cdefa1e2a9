"""What the calls that people make answer: decision records, policy versions, lists, erasures.

Plain types, which OpenAPI is published from. Times are epoch milliseconds.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

# On Python before 3.12 pydantic reads a TypedDict from here only.
from typing_extensions import TypedDict

from serving.store.lists import ListName
from serving.store.policies import ActName

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


class ErasedData(TypedDict):
    """A customer who was erased: how many rows of which table were changed or deleted.

    ``known`` is whether anything was held of them; of whom nothing was, the id may be a wrong one.
    """

    customerId: str
    known: bool
    erased: dict[str, int]
