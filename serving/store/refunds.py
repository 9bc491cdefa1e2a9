"""Where each refund stands: its lifecycle, followed from events and moved by decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sqlalchemy import Connection, bindparam, func, literal_column, select, update

from features.events import due_minor
from serving.store.database import Database, padded, padded_size
from serving.store.indexing import StoredEvent
from serving.store.schema import refunds

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


SETTLED: Final[frozenset[State]] = frozenset({"REFUNDED", "DENIED", "FAILED", "CANCELED"})
"""States in which a refund holds nothing of its order's balance: it was paid, or is not to be. One
that is asked for again holds what the new decision lets it."""


class TransitionRefusedError(Exception):
    """A transition of ours that the lifecycle does not list."""


@dataclass
class Refund:
    """Where a refund stands. Who and how much are None for one that only reports named.

    ``reserved_minor`` is what it holds of its order's balance.
    """

    refund_id: str
    state: State = "REQUESTED"
    state_at: int = -1
    customer: str | None = None
    order_id: str | None = None
    first_known_at: int | None = None
    payable_minor: int | None = None
    currency: str | None = None
    reserved_minor: int = 0

    def request(self, event: StoredEvent) -> None:
        """Take in a version of the request: who and when from the first, money from the latest."""
        payload = event.payload
        if self.first_known_at is None:
            self.state_at = max(self.state_at, event.known_at)
        if self.first_known_at is None or event.known_at < self.first_known_at:
            self.first_known_at = event.known_at
            self.customer = payload["customer_id"]
            self.order_id = payload.get("order_id")
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
            self._enter(to, self.state_at)
            return False
        is_expected = self.state_at >= 0 and to in (
            *TRANSITIONS[self.state], *UNSURPRISING_REPORTS.get(self.state, ())
        )  # fmt: skip
        self._enter(to, at)
        return not is_expected

    def _enter(self, state: State, at: int) -> None:
        self.state, self.state_at = state, at
        if state in SETTLED:
            self.reserved_minor = 0


_COLUMNS: Final = (
    "refund_id", "state", "state_at", "customer", "order_id", "first_known_at",
    "payable_minor", "currency", "reserved_minor",
)  # fmt: skip


class Refunds:
    """The table of refunds. Holds no state of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def follow(self, connection: Connection, new: Iterable[StoredEvent]) -> set[str]:
        """Take in new events; returns the ids of those that were unexpected reports."""
        relevant = [e for e in new if e.event_type in ("refund_request", "refund_outcome")]
        if not relevant:
            return set()
        ids = list({event.payload["refund_id"]: None for event in relevant})
        found = self.get(connection, ids)
        unexpected = set()
        for event in relevant:
            refund_id = event.payload["refund_id"]
            refund = found.setdefault(refund_id, Refund(refund_id))
            if event.event_type == "refund_request":
                refund.request(event)
            elif refund.report(STATE_OF_OUTCOME[event.payload["status"]], event.known_at):
                unexpected.add(event.event_id)
        self._put(connection, found.values())
        return unexpected

    def transition(
        self, connection: Connection, refund_id: str, to: Sequence[State], at: int, reported: bool
    ) -> bool:
        """Move a refund through states, one after another; see `Transaction.transition`."""
        self._database.lock(connection, [("refund_id", refund_id)])  # as events about it do
        refund = self.get(connection, [refund_id]).get(refund_id) or Refund(refund_id)
        is_unexpected = False
        for state in to:
            if reported:
                is_unexpected |= refund.report(state, at)
            else:
                refund.move(state, at)
        self._put(connection, [refund])
        return is_unexpected

    def get(self, connection: Connection, refund_ids: Sequence[str]) -> dict[str, Refund]:
        """Those of the refunds that are known, by id."""
        size = padded_size(len(refund_ids))
        columns = [refunds.c[name] for name in _COLUMNS]
        prepared = self._database.prepared(
            ("refunds", size),
            lambda: select(*columns).where(
                refunds.c.refund_id.in_([bindparam(f"id{i}") for i in range(size)])
            ),
        )
        rows = self._database.run(connection, prepared, tuple(padded(refund_ids)))
        return {row[0]: Refund(*row) for row in rows}

    def _put(self, connection: Connection, changed: Iterable[Refund]) -> None:
        statement = self._database.inserting(refunds, _COLUMNS, "replace")
        rows = sorted(tuple(getattr(r, name) for name in _COLUMNS) for r in changed)
        self._database.run_many(connection, statement, rows)

    # --- the balance of an order -------------------------------------------------------------

    def reserve(self, connection: Connection, refund_id: str, amount_minor: int) -> None:
        """Hold this much of the order's balance for the refund, in place of what it held."""
        prepared = self._database.prepared(
            "reserve",
            lambda: (
                update(refunds)
                .where(refunds.c.refund_id == bindparam("id"))
                .values(reserved_minor=bindparam("amount"))
            ),
        )
        values = {"id": refund_id, "amount": amount_minor}
        self._database.run(connection, prepared, prepared.bind(values))

    def reserved(self, connection: Connection, order_id: str, besides: str) -> dict[str, int]:
        """What other refunds than ``besides`` hold of an order's balance, by currency."""
        prepared = self._database.prepared(
            "reserved",
            lambda: (
                select(refunds.c.currency, func.sum(refunds.c.reserved_minor))
                .where(
                    refunds.c.order_id == bindparam("order"),
                    refunds.c.refund_id != bindparam("besides"),
                    refunds.c.reserved_minor > literal_column("0"),
                )
                .group_by(refunds.c.currency)
            ),
        )
        values = {"order": order_id, "besides": besides}
        rows = self._database.run(connection, prepared, prepared.bind(values))
        return {currency: int(minor) for currency, minor in rows}
