"""The other refunds of a decision's order and customer, as they stood when it was made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from features.events import Event, RefundOutcome, RefundRequest, due_minor
from rules.decision import Action
from serving.store.decisions import Decision
from serving.store.indexing import StoredEvent
from serving.store.refunds import STATE_OF_OUTCOME, Refund
from serving.store.reservations import Reservation
from serving.store.store import Store

MOST_OTHERS: Final = 20
"""Of so many other refunds of the order it is worked out what they held."""

_MOST_OPEN: Final = 5
"""Of so many of the customer's latest refunds without an outcome it is asked how they stood."""

_OUTCOME_FIRST: Final = 0
_DECISION_NEXT: Final = 1


@dataclass(frozen=True)
class Others:
    """The other refunds of the order and of the customer, as they stood at the cutoff.

    ``versions`` are the requests of the order's by event id, ``decisions`` those of each before the
    cutoff, the latest first.
    """

    request: RefundRequest
    documents: Sequence[Event]
    versions: Mapping[str, RefundRequest]
    decisions: Mapping[str, Sequence[Decision]]

    @classmethod
    def of(
        cls, store: Store, request: RefundRequest, documents: Sequence[Event],
        told: Iterable[StoredEvent],
    ) -> Others:  # fmt: skip
        """Those of a request's order, whose documents these are, and among what is ``told``."""
        own, cutoff = request.refund_id, request.known_at
        versions: dict[str, RefundRequest] = {
            str(e.event_id): e
            for e in documents
            if isinstance(e, RefundRequest) and e.known_at < cutoff and e.refund_id != own
        }
        of_order = {version.refund_id for version in versions.values()}
        before = [e for e in told if e.known_at < cutoff]
        ended = {e.payload["refund_id"] for e in before if e.event_type == "refund_outcome"}
        open_ones = [
            e.payload["refund_id"] for e in before
            if e.event_type == "refund_request"
            and e.payload["refund_id"] not in {own, *of_order, *ended}
        ]  # fmt: skip
        wanted = {*open_ones[-_MOST_OPEN:], *(of_order if len(of_order) <= MOST_OTHERS else ())}
        decisions = {
            refund_id: [d for d in store.decisions_of(refund_id) if d.decided_at < cutoff]
            for refund_id in sorted(wanted)
        }
        return cls(request, documents, versions, decisions)

    @property
    def refused(self) -> frozenset[str]:
        """Those that the last decision before the cutoff prevented."""
        return frozenset(
            refund_id for refund_id, decided in self.decisions.items()
            if decided and decided[0].record["decision"]["action"] == Action.PREVENT
        )  # fmt: skip

    def reserved(self, store: Store) -> list[Reservation]:
        """What each held of the order: its decisions and outcomes, replayed.

        The store keeps what they hold now. Where there are more of them than `MOST_OTHERS`, that
        has to do.
        """
        order_id, cutoff = self.request.order_id, self.request.known_at
        refunds = {version.refund_id for version in self.versions.values()}
        if order_id is None or not refunds:
            return []
        if len(refunds) > MOST_OTHERS:
            now = store.reserved(order_id, self.request.refund_id)
            return [one for one in now if one.refund_id in refunds]
        found: list[Reservation] = []
        for refund_id in sorted(refunds):
            steps: list[tuple[int, int, RefundOutcome | Decision]] = [
                (e.known_at, _OUTCOME_FIRST, e)
                for e in self.documents
                if isinstance(e, RefundOutcome) and e.refund_id == refund_id
                and e.known_at < cutoff
            ]  # fmt: skip
            steps += [
                (d.decided_at, _DECISION_NEXT, d)
                for d in self.decisions[refund_id]
                if d.record["event_id"] in self.versions
            ]
            steps.sort(key=itemgetter(0, 1))
            in_order = [step for _, _, step in steps]
            found += _replayed(refund_id, order_id, in_order, self.versions)
        return found


def _replayed(
    refund_id: str, order_id: str, steps: Iterable[RefundOutcome | Decision],
    versions: Mapping[str, RefundRequest],
) -> Iterator[Reservation]:  # fmt: skip
    """What one refund came to hold of an order, in each currency that it was asked in."""
    held: dict[str, Reservation] = {}
    for step in steps:
        if isinstance(step, RefundOutcome):
            held = {currency: settled(one, step) for currency, one in held.items()}
            continue
        asked = versions[step.record["event_id"]]
        due = due_minor(asked.amount_minor, asked.non_refundable_minor)
        before = held.get(asked.currency) or Reservation(refund_id, order_id, asked.currency)
        match Action(step.record["decision"]["action"]):
            case Action.ALLOW:
                held[asked.currency] = before.allow(due)
            case Action.PREVENT:
                held[asked.currency] = before.refuse()
            case _:
                held[asked.currency] = before.review(due)
    yield from held.values()


def settled(held: Reservation, outcome: RefundOutcome | None) -> Reservation:
    """What is left of a reservation after an outcome of its refund, if there is one."""
    if outcome is None:
        return held
    refund = Refund(held.refund_id, state_at=outcome.known_at)
    return refund.settled(held, STATE_OF_OUTCOME[outcome.status], outcome.amount_minor)
