"""The goods of one order: what shipped, what was paid back, and what is asked for of it, by sku."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction

from features.balance import Hold
from features.documents import OrderDocuments
from features.events import Order, OrderItem, OrderUpdate, RefundItem, RefundRequest

_Pieces = Counter[str]
"""How many pieces of each sku."""


class Goods:
    """The pieces of an order, by sku; None where lines, or the skus of some, are not told."""

    def __init__(
        self, documents: OrderDocuments, request: RefundRequest, holds: Iterable[Hold] = ()
    ) -> None:
        self._documents = documents
        self._request = request
        self._asked = _pieces(request.items)
        self._listed = documents.first(lambda order: order if order.items else None)
        self._ordered = _all_ordered(self._listed)
        self._back = _pieces_of(documents.paid)
        # What failed may be tried again, and what was canceled may have been asked for again.
        held = {hold.refund_id for hold in holds if hold.amount_minor} - documents.payments.keys()
        self._open = _pieces_of(
            versions[-1] for refund_id, versions in documents.asked.items()
            if refund_id in held or refund_id not in documents.outcomes
        )  # fmt: skip
        delivered_at = request.delivered_at
        self._delivered_at = (
            delivered_at if delivered_at is not None and delivered_at <= request.known_at else None
        )

    def refunded_again(self) -> int | None:
        """Pieces asked for beyond those that were ordered and are not paid back."""
        return self._beyond(self._back)

    def asked_twice(self) -> int | None:
        """The same, where no other refund that is open, or held for, asks for them either."""
        back, still_open = self._back, self._open
        return self._beyond(None if back is None or still_open is None else back + still_open)

    def _beyond(self, gone: _Pieces | None) -> int | None:
        """Pieces asked for beyond what was ordered less what is gone."""
        if self._asked is None or self._ordered is None or gone is None:
            return None
        return (self._asked - (self._ordered - gone)).total()

    def worth(self) -> int | None:
        """What the pieces asked for were worth on the order, rounded up.

        Those beyond what was ordered are worth nothing; where the order does not tell all that was,
        that of other skus is unknown. Of a sku sold at several prices the dearest count.
        """
        asked, listed = self._asked, self._listed
        if asked is None or listed is None or listed.currency != self._request.currency:
            return None
        if self._ordered is None and not (+asked).keys() <= {line.sku for line in listed.items}:
            return None
        return math.ceil(sum(
            _worth(count, [line for line in listed.items if line.sku == sku])
            for sku, count in asked.items()
        ))  # fmt: skip

    def sold_finally(self) -> bool | None:
        """Whether a line asked for was sold for good: the order's word stands above the request's.

        Of a sku the first version of the order counts that says it. Where the order has such lines,
        and what is asked for cannot be told apart from them, the request's no settles nothing.
        """
        own, said = self._request.final_sale, self._finality()
        asked = [said.get(line.sku) if line.sku else None for line in self._request.items]
        if own or True in asked:
            return True
        if asked and None not in asked:
            return False
        versions = self._documents.orders
        of_lines = [line.final_sale for line in self._listed.items] if self._listed else []
        if any(line.final_sale for order in versions for line in order.items):
            return True if all(of_lines) else None
        is_whole = self._listed is not None and _is_whole(self._listed)
        return False if own is False or (is_whole and None not in of_lines) else None

    def _finality(self) -> dict[str, bool]:
        """Whether each sku was sold for good, of those that the order tells it of."""
        found: dict[str, bool] = {}
        for order in self._documents.orders:
            version: dict[str, bool] = {}
            for line in order.items:
                if line.sku is not None and line.final_sale is not None:
                    version[line.sku] = version.get(line.sku, False) or line.final_sale
            found = version | found
        return found

    def shipped(self) -> bool | None:
        """Whether anything has; unknown where nobody reports what becomes of the order."""
        if self._delivered_at is not None or any(map(_has_shipped, self._documents.updates)):
            return True
        return False if self._documents.updates else None

    def asked_shipped(self) -> int | None:
        """Pieces asked for that must be some that shipped, as no others are left."""
        shipped = self.shipped()
        if not shipped:
            return None if shipped is None else 0
        asked, ordered, back = self._asked, self._ordered, self._back
        if asked is None or ordered is None or back is None:
            return None
        gone_out = self._gone_out(ordered)
        if gone_out is None:
            return None
        return ((asked - (ordered - gone_out - back)) & gone_out).total()

    def _gone_out(self, ordered: _Pieces) -> _Pieces | None:
        """The pieces that have shipped; None where an update is about a line that is not known."""
        own: dict[str, list[OrderUpdate]] = {}
        whole_at = [] if self._delivered_at is None else [self._delivered_at]
        lines = {item.line_id: item.sku for item in self._listed.items} if self._listed else {}
        for update in self._documents.updates:
            if update.sku is None and update.line_id is None:
                whole_at += [update.known_at] if _has_shipped(update) else []
                continue
            sku = update.sku or lines.get(update.line_id or "")
            if sku is None:
                return None
            own.setdefault(sku, []).append(update)
        return Counter({
            sku: _gone_out_of(pieces, own.get(sku, ()), max(whole_at, default=None))
            for sku, pieces in ordered.items()
        })  # fmt: skip


def _has_shipped(update: OrderUpdate) -> bool:
    return update.status in ("SHIPPED", "DELIVERED")


def _gone_out_of(pieces: int, own: Sequence[OrderUpdate], whole_at: int | None) -> int:
    """How many of a sku's pieces have shipped: as its own updates say, if the order's came before.

    An update's quantity is how many pieces are so far; without one it is about them all.
    """

    def most(*statuses: str) -> int:
        said = (u.quantity for u in own if u.status in statuses)
        return max((pieces if q is None else min(q, pieces) for q in said), default=0)

    latest_own = max((u.known_at for u in own if u.status != "CANCELLED"), default=-1)
    if whole_at is not None and latest_own < whole_at:
        return max(pieces - most("CANCELLED"), most("SHIPPED", "DELIVERED"))
    return most("SHIPPED", "DELIVERED")


def _pieces(lines: Iterable[OrderItem | RefundItem]) -> _Pieces | None:
    """Pieces by sku, a line without a quantity being one; None without lines or without a sku."""
    found: _Pieces = Counter()
    for line in lines:
        if line.sku is None:
            return None
        found[line.sku] += _count(line)
    return found or None


def _count(line: OrderItem | RefundItem) -> int:
    return 1 if line.quantity is None else line.quantity


def _worth(count: int, lines: Iterable[OrderItem]) -> Fraction:
    """What so many pieces of these lines of one sku are worth at most."""
    priced = ((Fraction(line.amount_minor, n), n) for line in lines if (n := _count(line)))
    worth = Fraction(0)
    for price, pieces in sorted(priced, reverse=True):
        worth += price * min(count, pieces)
        count -= min(count, pieces)
    return worth


def _pieces_of(refunds: Iterable[RefundRequest]) -> _Pieces | None:
    """The pieces of several refunds together; None where any does not tell its own."""
    lines: list[RefundItem] = []
    for refund in refunds:
        if not refund.items:
            return None
        lines += refund.items
    return _pieces(lines) if lines else Counter()


def _is_whole(order: Order) -> bool:
    """Whether the lines are all the pieces that the order has."""
    return order.item_count in (None, sum(map(_count, order.items)))


def _all_ordered(order: Order | None) -> _Pieces | None:
    """What was ordered; None where the lines are not all of it."""
    return _pieces(order.items) if order and _is_whole(order) else None
