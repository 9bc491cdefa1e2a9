"""What refunds hold of the balance of orders: promised or in review, until it is known what came.

A decision writes what its request asked of, so a refund that was asked for on two orders, or in two
currencies, holds each until it is settled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select

from features.ledger import Hold
from serving.store.database import Database, padded, padded_size
from serving.store.schema import reservations


class Reservation(NamedTuple):
    """What one refund holds of one order in one currency, in minor units.

    There is one, if only of nothing, for every refund and order that a decision was about.
    """

    refund_id: str
    order_id: str
    currency: str
    promised_minor: int = 0
    """The most that was allowed of it and is not settled."""
    review_minor: int = 0
    """What waits for a person, with what is promised of it."""
    paid_at: int | None = None
    """When the refund was reported paid (epoch ms): from then on that counts, and this does not."""

    def allow(self, due_minor: int) -> Reservation:
        """Promise an amount. An earlier promise may be under way: the greater is held.

        >>> Reservation("r", "o", "GBP").allow(60).allow(20).promised_minor
        60
        """
        before = 0 if self.paid_at is not None else self.promised_minor
        return self._replace(
            promised_minor=max(before, due_minor), review_minor=0, paid_at=None
        )  # fmt: skip

    def review(self, due_minor: int) -> Reservation:
        """Hold an amount for review, in place of what was held for one."""
        promised = 0 if self.paid_at is not None else self.promised_minor
        return self._replace(promised_minor=promised, review_minor=due_minor, paid_at=None)

    def refuse(self) -> Reservation:
        """Hold nothing for review. What was promised before stays so: it may be under way.

        >>> Reservation("r", "o", "GBP").allow(60).review(90).refuse().promised_minor
        60
        """
        return self if self.paid_at is not None else self._replace(review_minor=0)

    def release(self) -> Reservation:
        """Hold nothing: it is not to be paid."""
        return self._replace(promised_minor=0, review_minor=0, paid_at=None)

    def pay(self, paid_minor: int | None, at: int) -> Reservation:
        """Count as paid; what was paid less than promised is free.

        ``paid_minor`` is what was paid, None if all. Of several payments the greatest counts.

        >>> once = Reservation("r", "o", "GBP").allow(80).pay(40, at=7)
        >>> once.promised_minor, once.pay(80, at=8).promised_minor
        (40, 80)
        """
        if paid_minor is None:
            return self._replace(paid_at=at)
        if self.paid_at is not None:
            return self._replace(paid_at=at, promised_minor=max(self.promised_minor, paid_minor))
        return self._replace(
            paid_at=at, promised_minor=min(self.promised_minor, paid_minor),
            review_minor=min(self.review_minor, paid_minor),
        )  # fmt: skip

    def fail(self) -> Reservation:
        """Hold what a payment did not bring: it may be tried again.

        >>> Reservation("r", "o", "GBP").allow(60).pay(50, at=7).fail().holds(8)
        [Hold(refund_id='r', amount_minor=50, currency='GBP', is_promised=True)]
        """
        return self._replace(paid_at=None)

    def backs(self, due_minor: int, *, is_promise: bool) -> bool:
        """Whether this much is held, promised or for review, so that the answer still stands."""
        most = self.promised_minor if is_promise else max(self.promised_minor, self.review_minor)
        return self.paid_at is None and most >= due_minor

    def holds(self, cutoff: int) -> list[Hold]:
        """What counts for a decision with this cutoff, which sees no payment of that instant."""
        if self.paid_at is not None and self.paid_at < cutoff:
            return [Hold(self.refund_id, 0, self.currency, is_promised=True)]
        found = [Hold(self.refund_id, self.promised_minor, self.currency, is_promised=True)]
        if self.review_minor > self.promised_minor:
            more_minor = self.review_minor - self.promised_minor
            found.append(Hold(self.refund_id, more_minor, self.currency, is_promised=False))
        return found


_COLUMNS: Final = Reservation._fields


class Reservations:
    """The table of reservations. Holds no state of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_order(
        self, connection: Connection, order_id: str, besides: str
    ) -> tuple[Reservation, ...]:
        """What other refunds than ``besides`` hold of an order, in the order of their ids."""
        prepared = self._database.prepared(
            "reservations_of_order",
            lambda: select(*(reservations.c[name] for name in _COLUMNS)).where(
                reservations.c.order_id == bindparam("order"),
                reservations.c.refund_id != bindparam("besides"),
            ),
        )
        values = {"order": order_id, "besides": besides}
        rows = self._database.run(connection, prepared, prepared.bind(values))
        return tuple(sorted((Reservation(*row) for row in rows), key=_PLACE))

    def of_refunds(
        self, connection: Connection, refund_ids: Sequence[str]
    ) -> dict[str, list[Reservation]]:
        """What each of these refunds holds, of any order; those without a decision left out."""
        size = padded_size(len(refund_ids))
        prepared = self._database.prepared(
            ("reservations", size),
            lambda: select(*(reservations.c[name] for name in _COLUMNS)).where(
                reservations.c.refund_id.in_([bindparam(f"id{i}") for i in range(size)])
            ),
        )
        found: dict[str, list[Reservation]] = {}
        for row in self._database.run(connection, prepared, tuple(padded(refund_ids))):
            found.setdefault(row[0], []).append(Reservation(*row))
        return found

    def hold_off(
        self, connection: Connection, refund_ids: Sequence[str]
    ) -> dict[str, list[Reservation]]:
        """As `of_refunds`; decisions on any of these orders wait until the transaction ends."""
        found = self.of_refunds(connection, refund_ids)
        orders = {("order", one.order_id) for each in found.values() for one in each}
        self._database.lock(connection, orders)
        return found

    def put(self, connection: Connection, changed: Iterable[Reservation]) -> None:
        """Keep reservations in place of those there are."""
        if rows := sorted(changed, key=_PLACE):
            statement = self._database.inserting(reservations, _COLUMNS, "replace")
            self._database.run_many(connection, statement, rows)


_PLACE: Final = itemgetter(0, 1, 2)
