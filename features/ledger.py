"""The ledger of one order: what its own documents say a refund of it may still be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from features.balance import Hold as Hold
from features.balance import Money, exact_minor
from features.documents import OrderDocuments
from features.events import Event, RefundRequest
from features.goods import Goods
from features.money import DAY_MS

Fact = float | str | bool | tuple[str, ...] | None
"""A fact's value; None and NaN both mean unknown."""


class Meaning(NamedTuple):
    """What a fact is: its kind (as a policy sees it), its unit, and a sentence."""

    kind: str
    unit: str
    says: str


LEDGER: Final[Mapping[str, Meaning]] = {
    "order_shipping_minor": Meaning("double", "minor", "shipping charged on the order"),
    "order_captured_minor": Meaning(
        "double", "minor", "captured on the order, each transaction once, however long ago"
    ),
    "order_paid_back_minor": Meaning(
        "double", "minor",
        "went back on the order: of each refund what its transactions or its outcome say, "
        "whichever is more",
    ),
    "order_reserved_minor": Meaning(
        "double", "minor",
        "promised to other refunds of the order, or asked for by some not decided here, and not "
        "settled yet",
    ),
    "order_held_minor": Meaning(
        "double", "minor", "asked for by other refunds of the order that are held for review"
    ),
    "tender_left_minor": Meaning(
        "double", "minor",
        "captured less refunded on the order through the payment method of this request",
    ),
    "refunded_again_piece_count": Meaning(
        "double", "count",
        "pieces asked for beyond those that were ordered and are not paid back yet",
    ),
    "asked_twice_piece_count": Meaning(
        "double", "count",
        "pieces asked for beyond those that are neither paid back nor asked for by another refund "
        "that is open or held for",
    ),
    "asked_shipped_piece_count": Meaning(
        "double", "count",
        "pieces asked for that had shipped, beyond those that did not and are not paid back yet",
    ),
    "asked_worth_minor": Meaning(
        "double", "minor",
        "what the pieces asked for were worth on the order, by sku; of those ordered only",
    ),
    "final_sale": Meaning(
        "bool", "flag",
        "a line of the refund was sold for good, as the order says it, or else the request",
    ),
    "order_shipped": Meaning("bool", "flag", "anything of the order has shipped"),
    "order_cancelled_after_days": Meaning(
        "double", "days", "from the order to the first word of its cancellation"
    ),
    "order_customer_differs": Meaning(
        "bool", "flag", "another customer placed the order than asks for the refund"
    ),
    "order_email_differs": Meaning(
        "bool", "flag", "the order was placed with another e-mail address than the request's"
    ),
    "order_address_differs": Meaning(
        "bool", "flag", "the order went to another address than the request's"
    ),
}  # fmt: skip
"""The facts of an order's ledger. Money is in the order's own currency, exact to the minor unit."""

LEDGER_FACTS: Final[Mapping[str, str]] = {name: fact.kind for name, fact in LEDGER.items()}
"""Fact -> kind: "double", "string", "bool" or "strings"."""


def order_ledger(
    request: RefundRequest, events: Iterable[Event], holds: Sequence[Hold] | None = None
) -> dict[str, Fact]:
    """The `LEDGER_FACTS` of a request's order, as of the request's cutoff; None where unknown.

    ``events`` are the order's documents, in any order and possibly twice: versions of the order,
    its updates, its transactions, its refund requests with their outcomes, and the transactions
    that name only those refunds. Others are not looked at. Identifiers of persons must be of one
    spelling with the request's, both as they are or both under pseudonyms.

    An event at the cutoff or after it is not seen, but for what the order itself says at the
    cutoff: that came with the request. A request sees neither itself nor other versions of its own
    refund, only what went out for it. Where there are more than 1,000 refunds, updates or words on
    transactions, nothing is added up: what rests on them is unknown.

    ``holds`` is what the service holds of the order for other refunds. One that it names counts by
    that, any other that is open by what it asks for; without a service all do, and none is held.

    >>> from features.events import Order, Transaction
    >>> order = Order(order_id="o", customer_id="c", known_at=1, amount_minor=900, currency="GBP")
    >>> paid = Transaction(transaction_id="t", kind="CAPTURE", order_id="o", known_at=2,
    ...                    amount_minor=900, currency="GBP")
    >>> request = RefundRequest(refund_id="r", customer_id="d", order_id="o", known_at=3,
    ...                         amount_minor=900, currency="GBP")
    >>> ledger = order_ledger(request, [order, paid])
    >>> ledger["order_captured_minor"], ledger["order_customer_differs"], ledger["order_shipped"]
    (900.0, True, None)
    """
    if request.order_id is None:
        return {**dict.fromkeys(LEDGER_FACTS), "final_sale": request.final_sale}
    documents = OrderDocuments.seen_by(request, events)
    money, goods = Money(documents, request, holds), Goods(documents, request, holds or ())
    first = documents.first
    said: dict[str, Fact] = {
        "order_shipping_minor": exact_minor(money.shipping()),
        "asked_worth_minor": exact_minor(goods.worth()),
        "final_sale": goods.sold_finally(),
        "order_customer_differs": _differs(request.customer_id, first(lambda o: o.customer_id)),
        "order_email_differs": _differs(request.email, first(lambda o: o.email)),
        "order_address_differs": _differs(request.address_id, first(lambda o: o.address_id)),
    }
    if documents.is_crowded:
        return {**dict.fromkeys(LEDGER_FACTS), **said}
    return {
        **said,
        "order_captured_minor": exact_minor(money.captured()),
        "order_paid_back_minor": exact_minor(money.paid_back),
        "order_reserved_minor": exact_minor(money.reserved()),
        "order_held_minor": exact_minor(money.held()),
        "tender_left_minor": exact_minor(money.tender_left()),
        "refunded_again_piece_count": _number(goods.refunded_again()),
        "asked_twice_piece_count": _number(goods.asked_twice()),
        "asked_shipped_piece_count": _number(goods.asked_shipped()),
        "order_shipped": goods.shipped(),
        "order_cancelled_after_days": _cancelled_after_days(documents, request),
    }


def _number(count: int | None) -> float | None:
    return None if count is None else float(count)


def _cancelled_after_days(documents: OrderDocuments, request: RefundRequest) -> float | None:
    ordered_at = request.ordered_at
    if ordered_at is None:
        ordered_at = documents.first(lambda order: order.ordered_at)
    cancelled = (u.known_at for u in documents.updates if u.status == "CANCELLED")
    at = min(cancelled, default=None)
    return None if at is None or ordered_at is None or at < ordered_at else (
        (at - ordered_at) / DAY_MS
    )  # fmt: skip


def _differs(own: str | None, of_order: str | None) -> bool | None:
    return None if own is None or of_order is None else own != of_order
