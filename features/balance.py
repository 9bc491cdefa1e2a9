"""The money of one order: what was captured, what went back, and what is asked for besides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final, NamedTuple

from features.documents import OrderDocuments
from features.events import RefundOutcome, RefundRequest, Transaction, due_minor

_EXACT_BELOW: Final = 2**53


class Hold(NamedTuple):
    """What the service holds of an order for another refund of it.

    ``is_promised``: the service allowed it; else it is held for review. A refund that is allowed in
    part has two: what waits for review on top of the promise is paid last. ``amount_minor`` is 0
    for a refund that was decided on and holds nothing, so that its own words do not count instead.
    """

    refund_id: str
    amount_minor: int
    currency: str
    is_promised: bool


class Money:
    """The money of an order in whole minor units of ``currency``; None where any is of another."""

    def __init__(
        self,
        documents: OrderDocuments,
        request: RefundRequest,
        holds: Sequence[Hold] | None = None,
    ) -> None:
        self._documents = documents
        self._holds = [hold for hold in holds or () if hold.refund_id != request.refund_id]
        self._request = request
        self._currency = documents.first(lambda order: order.currency) or request.currency
        went = [t for t in documents.transactions if t.success is not False]
        self._captures = [t for t in went if t.kind == "CAPTURE"]
        self._refunds = [t for t in went if t.kind == "REFUND"]
        self._voided = {t.transaction_id: t for t in went if t.kind == "VOID"}
        named = {t.transaction_id for t in documents.transactions if t.kind != "VOID"}
        self._unmatched = [t for name, t in self._voided.items() if name not in named]
        self._paid = {asked.refund_id: asked for asked in documents.paid}
        self._refunds_of: dict[str | None, list[Transaction]] = {}
        for transaction in self._refunds:
            self._refunds_of.setdefault(transaction.refund_id, []).append(transaction)

    def shipping(self) -> int | None:
        """Shipping charged, as the first version of the order says that says it."""
        for order in self._documents.orders:
            if order.shipping_minor is not None:
                return self._in_currency(order.shipping_minor, order.currency)
        return None

    def captured(self) -> int | None:
        """What was captured, less what was voided of it.

        A void may be told under the id of what it voids, and of a capture voids what it says, or
        with 0 the whole. One under an id of its own may be of a capture, or of an authorisation
        that nobody told of: then what is left is not known.
        """
        return None if self._unmatched else _sum(map(self._capture, self._captures))

    @cached_property
    def paid_back(self) -> int | None:
        """All that transactions say, or all that is said of each refund: whichever is more.

        A transaction that names no refund may be the payment of any.
        """
        by_transactions = self._moved(self._refunds)
        by_refunds = _sum(
            self._paid_back_of(refund_id)
            for refund_id in (*self._documents.asked, self._request.refund_id)
        )
        if by_transactions is None or by_refunds is None:
            return None
        return max(by_transactions, by_refunds)

    def reserved(self) -> int | None:
        """What was promised, and what open refunds ask for that the service did not decide on.

        Of each less what transactions paid of it already.
        """
        decided = {hold.refund_id for hold in self._holds}
        undecided = (a for a in self._documents.open if a.refund_id not in decided)
        return _sum([
            *(self._left_of_hold(hold) for hold in self._holds if hold.is_promised),
            *map(self._left_of, undecided),
        ])  # fmt: skip

    def held(self) -> int | None:
        """What the service holds for refunds in review, less what was paid of them already."""
        promised = {hold.refund_id: hold.amount_minor for hold in self._holds if hold.is_promised}
        return _sum(
            self._left_of_hold(hold, paid_before_minor=promised.get(hold.refund_id, 0))
            for hold in self._holds
            if not hold.is_promised
        )

    def tender_left(self) -> int | None:
        """Captured less refunded by the request's payment method.

        Unknown where any money moved by a method that is not told.
        """
        method = self._request.payment_method_id
        moved = [*self._captures, *self._refunds]
        if method is None or self._unmatched or any(t.payment_method_id is None for t in moved):
            return None
        paid_back, by_transactions = self.paid_back, self._moved(self._refunds)
        if paid_back is None or paid_back != by_transactions:
            return None
        captured = _sum(self._capture(t) for t in self._captures if t.payment_method_id == method)
        refunded = self._moved(t for t in self._refunds if t.payment_method_id == method)
        return None if captured is None or refunded is None else captured - refunded

    def _in_currency(self, amount_minor: int, currency: str) -> int | None:
        return amount_minor if currency == self._currency else None

    def _moved(self, transactions: Iterable[Transaction]) -> int | None:
        total, currency = 0, self._currency
        for transaction in transactions:
            if transaction.currency != currency:
                return None
            total += transaction.amount_minor
        return total

    def _capture(self, capture: Transaction) -> int | None:
        """A capture less what was voided of it."""
        captured = self._in_currency(capture.amount_minor, capture.currency)
        void = self._voided.get(capture.transaction_id)
        if captured is None or void is None:
            return captured
        taken_back = self._in_currency(void.amount_minor or captured, void.currency)
        return None if taken_back is None else max(0, captured - taken_back)

    def _moved_of(self, refund_id: str) -> int | None:
        return self._moved(self._refunds_of.get(refund_id, ()))

    def _paid_back_of(self, refund_id: str) -> int | None:
        """What transactions say of a refund, or any payment told of it: whichever is more."""
        paid = [self._moved_of(refund_id)]
        paid += map(self._said, self._documents.payments.get(refund_id, ()))
        amounts = [amount for amount in paid if amount is not None]
        return max(amounts) if len(amounts) == len(paid) else None

    def _said(self, outcome: RefundOutcome) -> int | None:
        """What an outcome says was paid, else what was asked for then.

        Of the request's own refund no other version is looked at.
        """
        if outcome.refund_id == self._request.refund_id:
            paid, currency = outcome.amount_minor, self._request.currency
        else:
            asked = self._paid[outcome.refund_id]
            paid, currency = outcome.amount_minor, asked.currency
            if paid is None:
                paid = due_minor(asked.amount_minor, asked.non_refundable_minor)
        return None if paid is None else self._in_currency(paid, currency)

    def _left_of(self, asked: RefundRequest) -> int | None:
        due = due_minor(asked.amount_minor, asked.non_refundable_minor)
        return self._unpaid(asked.refund_id, due, asked.currency)

    def _left_of_hold(self, hold: Hold, paid_before_minor: int = 0) -> int | None:
        # What is released is of no currency.
        if not hold.amount_minor:
            return 0
        return self._unpaid(hold.refund_id, hold.amount_minor, hold.currency, paid_before_minor)

    def _unpaid(
        self, refund_id: str, amount_minor: int, currency: str, paid_before_minor: int = 0
    ) -> int | None:
        """Of an amount of a refund, what no transaction has paid yet, another being paid first."""
        moved, due = self._moved_of(refund_id), self._in_currency(amount_minor, currency)
        if moved is None or due is None:
            return None
        return max(0, due - max(0, moved - paid_before_minor))


def _sum(amounts: Iterable[int | None]) -> int | None:
    total = 0
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return total


def exact_minor(number: int | None) -> float | None:
    """As a double, which facts are; unknown from where it would not hold every whole number."""
    return None if number is None or abs(number) >= _EXACT_BELOW else float(number)
