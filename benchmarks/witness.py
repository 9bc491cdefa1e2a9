"""What a store holds, read by plain SQL and counted by hand, against what was acknowledged.

Nothing here goes through the store's own code: a mistake in that would answer for itself.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import orjson
import psycopg

from benchmarks.traffic import AMOUNT_MINOR, Ledger

VELOCITY: Final = "refund_count_by_customer_1d"

_DECISIONS: Final = """
    SELECT d.score_id, d.refund_id, d.decided_at, d.record, d.features, n.names
    FROM decisions d LEFT JOIN name_lists n ON n.id = d.feature_names
    WHERE d.refund_id LIKE '{run}-%'"""
_EVENTS: Final = """
    SELECT event_type, refund_id, count(*) FROM events
    WHERE refund_id LIKE '{run}-%' GROUP BY event_type, refund_id"""
_RESERVATIONS: Final = """
    SELECT refund_id, promised_minor, review_minor, paid_at FROM reservations
    WHERE refund_id LIKE '{run}-%'"""
_STATES: Final = "SELECT refund_id, state FROM refunds WHERE refund_id LIKE '{run}-%'"
_AUDIT: Final = """
    SELECT content FROM audit_log WHERE action = 'decided' AND subject LIKE 'refund:{run}-%'"""
_TOLD: Final = "SELECT payload FROM webhook_outbox WHERE payload LIKE '%\"{run}-%'"


@dataclass
class Findings:
    """How much is not as it was acknowledged; all 0 where nothing is wrong."""

    lost: int = 0
    """Decisions and outcomes that were acknowledged and are not there, or are others."""
    duplicated: int = 0
    """Decisions, requests, outcomes, audit entries and webhooks beyond one each."""
    velocity_wrong: int = 0
    """Decisions that did not see exactly the refunds before them."""
    reservations_wrong: int = 0
    """Refunds that hold something else than was decided and reported, or stand elsewhere."""
    unaudited: int = 0
    """Decisions without their audit entry, or the other way round."""
    unannounced: int = 0
    """Decisions of which no webhook is to tell."""
    examples: list[str] = field(default_factory=list)

    def __add__(self, other: Findings) -> Findings:
        mine, theirs = asdict(self), asdict(other)
        return Findings(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not any(asdict(self).values())

    def tell(self, kind: str, what: str) -> None:
        """Count one, and keep the first few as they are."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < 20:
            self.examples.append(f"{kind}: {what}")


@contextmanager
def reading(url: str) -> Iterator[Any]:
    """A function that gives the rows of a query; on a connection of its own."""
    if url.startswith("sqlite:///"):
        connection: Any = sqlite3.connect(
            f"file:{url.removeprefix('sqlite:///')}?mode=ro", uri=True
        )
    else:
        connection = psycopg.connect(url, autocommit=True)
    try:
        yield lambda query: connection.execute(query).fetchall()
    finally:
        connection.close()


def examine(url: str, run: str, ledger: Ledger, *, announced: bool) -> Findings:
    """Compare what the store holds of the refunds of a run with what their backends know."""
    with reading(url) as rows:
        of = {name: rows(query.format(run=run)) for name, query in (
            ("decisions", _DECISIONS), ("events", _EVENTS), ("reservations", _RESERVATIONS),
            ("states", _STATES), ("audit", _AUDIT), ("told", _TOLD))}  # fmt: skip
    found = Findings()
    acknowledged = {name: sent for name, sent in ledger.scored.items()
                    if name.startswith(f"{run}-") and sent.is_known}  # fmt: skip
    outcomes = {name for name, sent in ledger.outcomes.items()
                if name.startswith(f"{run}-") and sent.is_known}  # fmt: skip
    decided = {score_id: orjson.loads(record) for score_id, _, _, record, _, _ in of["decisions"]}
    refund_of = {score_id: refund_id for score_id, refund_id, *_ in of["decisions"]}
    for name, sent in acknowledged.items():
        if refund_of.get(sent.score_id or "") != name:
            found.tell("lost", f"the decision {sent.score_id} on {name}")
        elif decided[sent.score_id or ""]["decision"]["action"] != sent.action:
            found.tell("lost", f"what was answered to {name}: {sent.action}")
    for name, count in Counter(refund_of.values()).items():
        if count > 1:
            found.tell("duplicated", f"{count} decisions on {name}")
    _events(found, of["events"], set(refund_of.values()), outcomes)
    _velocity(found, of["decisions"])
    _holdings(found, of, {refund_of[one]: record for one, record in decided.items()}, outcomes)
    _once_each(found, "unaudited", set(decided),
               Counter(orjson.loads(text)["score_id"] for (text,) in of["audit"]))  # fmt: skip
    if announced:
        told = Counter(orjson.loads(text)["data"]["scoreId"] for (text,) in of["told"])
        _once_each(found, "unannounced", set(decided), told)
    return found


def _once_each(found: Findings, kind: str, wanted: set[str], there: Mapping[str, int]) -> None:
    for one in wanted ^ there.keys():
        found.tell(kind, one)
    for one, count in there.items():
        if count > 1:
            found.tell("duplicated", f"{one}, {count} times, where it is {kind} otherwise")


def _events(found: Findings, rows: list[Any], decided: set[str], outcomes: set[str]) -> None:
    count = {(event_type, refund_id): number for event_type, refund_id, number in rows}
    for (event_type, refund_id), number in count.items():
        if number > 1:
            found.tell("duplicated", f"{number} events {event_type} of {refund_id}")
    for event_type, names in (("refund_request", decided), ("refund_outcome", outcomes)):
        for name in names:
            if (event_type, name) not in count:
                found.tell("lost", f"the {event_type} of {name}")


def _velocity(found: Findings, rows: list[Any]) -> None:
    """Of each customer the n-th decision has to have seen n - 1 refunds before it."""
    seen: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for _, refund_id, decided_at, record, features, names in rows:
        if features is None:
            found.tell("velocity_wrong", f"{refund_id} was decided without features")
            continue
        place = orjson.loads(names).index(VELOCITY)
        value = float(np.frombuffer(features, "<f8")[place])
        seen[orjson.loads(record)["keys"]["customer"]].append((decided_at, value))
    for customer, decisions in seen.items():
        for number, (decided_at, value) in enumerate(sorted(decisions)):
            if value != number:
                found.tell("velocity_wrong", f"{customer} at {decided_at}: {value}, not {number}")


def _holdings(
    found: Findings, of: Mapping[str, list[Any]], record_of: Mapping[str, Any], outcomes: set[str]
) -> None:
    held = {name: tuple(row) for name, *row in of["reservations"]}
    state_of = dict(of["states"])
    paid = {name for event_type, name, _ in of["events"] if event_type == "refund_outcome"}
    for name, record in record_of.items():
        action = record["decision"]["action"]
        promised, review, paid_at = held.get(name, (None, None, None))
        wanted = (AMOUNT_MINOR if action == "ALLOW" else 0,
                  AMOUNT_MINOR if action == "MANUAL_REVIEW" else 0)  # fmt: skip
        if (promised, review) != wanted or (paid_at is not None) != (name in paid):
            found.tell("reservations_wrong", f"{name}, {action}: {promised}, {review}, {paid_at}")
        if (name in outcomes and state_of.get(name) != "REFUNDED") or name not in state_of:
            found.tell("reservations_wrong", f"{name} is {state_of.get(name)}")
