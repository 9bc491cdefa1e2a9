"""The ledger of one order: what its own documents say a refund of it may still be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

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
        "double", "minor", "asked for by other refunds of the order and not settled yet"
    ),
    "tender_left_minor": Meaning(
        "double", "minor",
        "captured less refunded on the order through the payment method of this request",
    ),
    "refunded_again_piece_count": Meaning(
        "double", "count",
        "pieces asked for beyond those that were ordered and are not paid back yet",
    ),
    "asked_shipped_piece_count": Meaning(
        "double", "count",
        "pieces asked for that had shipped, beyond those that did not and are not paid back yet",
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
