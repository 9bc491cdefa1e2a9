"""Decisions in a store with little to type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from features.events import COLUMN_OF, KEYS, Event, Order, RefundRequest
from features.money import DAY_MS
from serving.store.decisions import Decision
from serving.store.store import Store

NOW = 1_780_000_000_000


def day(days: float) -> int:
    """So many days after the decision; below 0 before it."""
    return NOW + int(days * DAY_MS)


def order(order_id: str, days: float, customer: str = "ann", **more: Any) -> Order:
    """An order so many days after the decision."""
    facts = {"amount_minor": 9_000, "currency": "GBP", **more}
    return Order(order_id=order_id, customer_id=customer, known_at=day(days), **facts)


def asked(refund_id: str, days: float, customer: str = "ann", **more: Any) -> RefundRequest:
    """A refund request so many days after the decision."""
    facts = {"amount_minor": 4_900, "currency": "GBP", **more}
    return RefundRequest(refund_id=refund_id, customer_id=customer, known_at=day(days), **facts)


def put(store: Store, events: Iterable[Event]) -> None:
    """Append events in one transaction."""
    with store.write() as tx:
        tx.append(events)


def decide(
    store: Store, request: RefundRequest, score_id: str | None = None, **answer: Any
) -> Decision:
    """Keep a request and a decision on it, as far as what surrounds it needs it."""
    at = request.known_at
    keys = {kind: value for kind in KEYS if (value := getattr(request, COLUMN_OF[kind]))}
    with store.write() as tx:
        (appended,) = tx.append([request])
        record = {
            "refund_id": request.refund_id,
            "event_id": appended.event_id,
            "cutoff": at,
            "keys": store.history.pseudonyms(keys),
            "lists": {"block": [], "allow": [], "entities": []},
            "decision": {
                "action": "MANUAL_REVIEW", "source": "MODEL", "hits": [], "unknowns": [],
                "misses": [],
            },
        }  # fmt: skip
        data = {"action": "MANUAL_REVIEW", "source": "MODEL", "abuseProbability": 0.62, **answer}
        response = {"status": 200, "timestamp": at // 1000, "data": {"warnings": [], **data}}
        score_id = score_id or f"s-{request.refund_id}-{at}"
        decision = Decision(score_id, request.refund_id, f"h-{at}", at, record, response)
        tx.save_decision(decision)
        tx.audit("key", "decided", f"refund:{request.refund_id}", {"score_id": score_id}, at=at)
    return decision
