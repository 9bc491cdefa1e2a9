"""The documents of one order, as far as a refund request of it may see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, Final, TypeVar, cast

from features.events import (
    Event,
    Order,
    OrderUpdate,
    RefundOutcome,
    RefundRequest,
    Transaction,
    derive_event_id,
)

MAX_EVENTS: Final = 1_000
"""So many refunds, outcomes, transactions and updates of one order are looked at; one that has more
of any is crowded, and what is added up over it is unknown: never a sum of some."""

AnyEvent = TypeVar("AnyEvent", bound=Event)
AnyValue = TypeVar("AnyValue")


@dataclass(frozen=True)
class OrderDocuments:
    """What a request sees of its order: each event once, oldest first."""

    orders: Sequence[Order]
    """The first so many versions: none that came later takes the place of an earlier word."""
    updates: Sequence[OrderUpdate]
    transactions: Sequence[Transaction]
    """By the latest word on each, those that failed too; see `_as_they_stand`."""
    asked: Mapping[str, Sequence[RefundRequest]]
    """The versions of each other refund of the order."""
    outcomes: Mapping[str, RefundOutcome]
    """The latest outcome of each refund, the request's own among them."""
    payments: Mapping[str, Sequence[RefundOutcome]]
    """Of each refund that is paid, every payment told since any other outcome of it."""
    is_crowded: bool
    """There is more than is looked at."""

    @classmethod
    def seen_by(cls, request: RefundRequest, events: Iterable[Event]) -> OrderDocuments:
        """What of these events, in any order and possibly twice, the request sees.

        What the order itself says at the cutoff came with the request, which may read it; a refund
        of that instant comes after it.
        """
        order_id, own, cutoff = request.order_id, request.refund_id, request.known_at
        said: dict[str, list[Event]] = {}
        for event in sorted(_each_once(events), key=_PLACE):
            if event.known_at <= cutoff:
                said.setdefault(event.event_type, []).append(event)
        asked: dict[str, list[RefundRequest]] = {}
        for version in _of(said, RefundRequest):
            if version.known_at < cutoff and version.order_id == order_id:
                asked.setdefault(version.refund_id, []).append(version)
        refunds = {*asked, own}
        updates = [event for event in _of(said, OrderUpdate) if event.order_id == order_id]
        moved = [
            event
            for event in _of(said, Transaction)
            if event.order_id == order_id or (event.order_id is None and event.refund_id in refunds)
        ]
        orders = [event for event in _of(said, Order) if event.order_id == order_id]
        told = [
            outcome
            for outcome in _of(said, RefundOutcome)
            if outcome.known_at < cutoff and outcome.refund_id in refunds
        ]
        return cls(
            orders[:MAX_EVENTS],
            updates,
            _as_they_stand(moved),
            {refund_id: versions for refund_id, versions in asked.items() if refund_id != own},
            {outcome.refund_id: outcome for outcome in told},
            _payments(told),
            max(len(asked), len(updates), len(moved), len(told)) > MAX_EVENTS,
        )

    def first(self, told: Callable[[Order], AnyValue | None]) -> AnyValue | None:
        """What the first version of the order says that says it."""
        for order in self.orders:
            said = told(order)
            if said is not None:
                return said
        return None

    @cached_property
    def paid(self) -> Sequence[RefundRequest]:
        """The other refunds that were paid, as they were asked for when they were."""
        found = []
        for refund_id, versions in self.asked.items():
            outcome = self.outcomes.get(refund_id)
            if outcome is not None and outcome.status == "COMPLETED":
                until = [v for v in versions if v.known_at <= outcome.known_at]
                found.append((until or versions[:1])[-1])
        return found

    @cached_property
    def open(self) -> Sequence[RefundRequest]:
        """The other refunds of which no outcome is known, as they are asked for now."""
        outcomes = self.outcomes
        return [versions[-1] for refund_id, versions in self.asked.items()
                if refund_id not in outcomes]  # fmt: skip


def _each_once(events: Iterable[Event]) -> Iterable[Event]:
    """Events under their ids; one that came twice is known from the earlier time."""
    each: dict[str, Event] = {}
    for event in events:
        if event.event_id is None:
            content = event.content()
            content.pop("items", None)
            event_id = derive_event_id(event.event_type, content, repeats=event.repeats)
            event = event.model_copy(update={"event_id": event_id})
        event_id = event.event_id or ""
        if event_id not in each or event.known_at < each[event_id].known_at:
            each[event_id] = event
    return each.values()


_PLACE: Final = attrgetter("known_at", "event_id")


def _of(events: Mapping[str, Sequence[Event]], kind: type[AnyEvent]) -> Sequence[AnyEvent]:
    """The events of a kind, where each lies under its type."""
    found: Any = events.get(kind.event_type, ())
    return cast("Sequence[AnyEvent]", found)


def _payments(outcomes: Iterable[RefundOutcome]) -> dict[str, list[RefundOutcome]]:
    found: dict[str, list[RefundOutcome]] = {}
    for outcome in outcomes:
        if outcome.status == "COMPLETED":
            found.setdefault(outcome.refund_id, []).append(outcome)
        else:
            found.pop(outcome.refund_id, None)
    return found


def _as_they_stand(transactions: Iterable[Transaction]) -> list[Transaction]:
    """Each transaction once, as last told, of the refund that it named at first.

    Bodies repeat the transactions of an order, also those of its other refunds.
    """
    standing: dict[tuple[str, str], Transaction] = {}
    for told in transactions:
        key = (told.transaction_id, told.kind)
        before = standing.get(key)
        of = before.refund_id if before and before.refund_id else told.refund_id
        if told.refund_id != of:
            told = told.model_copy(update={"refund_id": of})
        standing[key] = told
    return [*standing.values()]
