"""The parts of request bodies, field by field as CONTRACT names them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, get_args

from pydantic import AfterValidator, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from features.events import VOCABULARY, OutcomeStatus, ReturnStatus, address_key
from serving.wire import (
    MAX_MINOR,
    Amount,
    Array,
    Currency,
    Email,
    Flag,
    Identifier,
    Ip,
    Known,
    Month,
    OneOf,
    Quantity,
    Share,
    Text,
    Time,
    Wire,
    Word,
    Year,
)  # fmt: skip

ORDER_STAGES: Final[Mapping[str, str | None]] = {
    "ACCEPTED": "ACCEPTED",
    "FULFILLED": "SHIPPED",
    "DELIVERED": "DELIVERED",
    "CANCELLED": "CANCELLED",
    "CANCELED": "CANCELLED",
    "REFUNDED": None,
}
"""`order.status.stage` -> the status of the order update; a refund's own events say `refunded`."""

TRANSACTION_KINDS: Final[Mapping[str, str]] = {
    "REFUND": "REFUND",
    "CAPTURE": "CAPTURE",
    "AUTH_CAPTURE": "CAPTURE",
    "SALE": "CAPTURE",
    "DEBIT": "CAPTURE",
    "VOID": "VOID",
    "CANCEL": "VOID",
}
"""`transactions[].type` -> the kind of the transaction."""

REFUND_STATUSES: Final = ("OPEN", *get_args(OutcomeStatus))


class CustomerPart(Wire):
    """Who asks."""

    customer_id: Identifier
    registration_time: Time | None = None
    email: Email | None = None


class ItemPart(Wire):
    """A line of an order: ``price`` is of one piece."""

    name: Text | None = None
    price: Amount | None = None
    quantity: Quantity | None = None
    currency: Currency | None = None
    sku: Identifier | None = None
    category: Text | None = None
    subcategory: Text | None = None
    brand: Text | None = None
    final_sale: Flag | None = None

    @field_validator("quantity")
    @classmethod
    def _in_bounds(cls, quantity: int | None, info: ValidationInfo) -> int | None:
        if (quantity or 0) * (info.data.get("price") or 0) > MAX_MINOR:
            raise PydanticCustomError("line", "times price must be at most 10^15 minor units")
        return quantity

    @property
    def pieces(self) -> int:
        """How many; a line without a quantity is one piece."""
        return 1 if self.quantity is None else self.quantity

    def amount_minor(self, currency: str) -> int | None:
        """What the line is worth; unknown without a price, or in another currency."""
        if self.price is None or (self.currency or currency) != currency:
            return None
        return self.price * self.pieces


def _reason_as_listed(reason: str | None) -> str | None:
    """Both spellings of cancelled, as one."""
    if reason in VOCABULARY["reason"] or reason is None:
        return reason
    listed = reason.replace("CANCELED", "CANCELLED")
    return listed if listed in VOCABULARY["reason"] else reason


Reason = Annotated[Word | None, AfterValidator(_reason_as_listed), Known(VOCABULARY["reason"])]
"""Why a refund, or a line of it, is asked for."""


class RefundItemPart(ItemPart):
    """A line of a refund."""

    refund_reason: Reason = None


class StatusPart(Wire):
    """Where an order stands and who moved it."""

    stage: Annotated[Word | None, Known(tuple(ORDER_STAGES), "no change is recorded")] = None
    actor: Text | None = None


class OrderItemPart(ItemPart):
    """A line of an order, and where its pieces stand."""

    status: StatusPart | None = None


class OrderPart(Wire):
    """The order, or as much of it as the backend says."""

    order_id: Identifier
    order_time: Time | None = None
    delivered_time: Time | None = None
    price: Amount | None = None
    shipping_amount: Amount | None = None
    currency: Currency | None = None
    channel: Text | None = None
    status: StatusPart | None = None
    items: Array[OrderItemPart] = ()


class RefundPart(Wire):
    """The refund: what is asked, or what became of it."""

    refund_id: Identifier
    refund_request_time: Time | None = None
    refund_issued_time: Time | None = None
    status: Annotated[Word, Known(REFUND_STATUSES, "no outcome of the refund is recorded")]
    initiated_by: Annotated[Word | None, Known(VOCABULARY["initiated_by"])] = None
    type: Annotated[Word | None, Known(VOCABULARY["type"])] = None
    claim: Annotated[Word | None, Known(VOCABULARY["claim"])] = None
    policy: Annotated[Word | None, Known(VOCABULARY["policy"])] = None
    amount: Amount | None = None
    currency: Currency | None = None
    non_refundable_amount: Amount | None = None
    issued_to: Annotated[Word | None, Known(VOCABULARY["issued_to"])] = None
    refund_issued_to: Annotated[Array[Word], Known(VOCABULARY["issued_to"])] = ()
    refund_reason: Reason = None
    decline_reason: Annotated[Word | None, Known(VOCABULARY["decline_reason"])] = None
    ignore: Flag | None = None
    items: Array[RefundItemPart] = ()

    @field_validator("non_refundable_amount")
    @classmethod
    def _part_of_amount(cls, kept: int | None, info: ValidationInfo) -> int | None:
        amount = info.data.get("amount")
        if kept is not None and amount is not None and kept > amount:
            raise PydanticCustomError("part", "must not exceed refund.amount")
        return kept

    @field_validator("status")
    @classmethod
    def _one_spelling(cls, status: str) -> str:
        return "CANCELED" if status == "CANCELLED" else status


class DevicePart(Wire):
    """The customer's device and network."""

    device_id: Identifier | None = None
    ip_address: Ip | None = None
    ip_risk: Share | None = None
    user_agent: Text | None = None


class PaymentMethodPart(Wire):
    """A means of payment."""

    payment_method_id: Identifier
    expiry_month: Month | None = None
    expiry_year: Year | None = None

    @property
    def expires_at(self) -> int | None:
        """The last millisecond (UTC) of its last month, as epoch ms; None where none is given."""
        if self.expiry_month is None or self.expiry_year is None:
            return None
        years, month = divmod(self.expiry_month, 12)
        following = datetime(self.expiry_year + years, month + 1, 1, tzinfo=UTC)
        return int(following.timestamp()) * 1000 - 1


class TransactionPart(Wire):
    """Money that moved, or was meant to."""

    transaction_id: Identifier
    payment_method_id: Identifier | None = None
    gateway: Text | None = None
    gateway_reference: Text | None = None
    amount: Amount
    currency: Currency
    type: Annotated[Word, Known(tuple(TRANSACTION_KINDS), "the transaction is not recorded")]
    success: Flag | None = None


class AddressPart(Wire):
    """A postal address."""

    country: Text | None = None
    postal_code: Text | None = None
    street: Text | None = None

    @property
    def country_code(self) -> str | None:
        """Two letters in upper case; anything else is unknown."""
        code = (self.country or "").strip().upper()
        return code if len(code) == 2 and code.isascii() and code.isalpha() else None

    @property
    def address_id(self) -> str | None:
        """One id however the address is typed; dashes and blanks are no address to share."""
        if not any(map(str.isalnum, (self.street or "") + (self.postal_code or ""))):
            return None
        return address_key(self.street, self.postal_code, self.country_code)


class AddressesPart(Wire):
    """Where the bill and the goods go."""

    billing: AddressPart | None = None
    shipping: AddressPart | None = None


class CustomerRef(Wire):
    """A customer by id."""

    customer_id: Identifier


class OrderRef(Wire):
    """An order by id."""

    order_id: Identifier


class RefundRef(Wire):
    """A refund by id."""

    refund_id: Identifier


class ReturnPart(Wire):
    """A step of goods on their way back."""

    return_id: Identifier | None = None
    refund_id: Identifier | None = None
    order_id: Identifier | None = None
    status: Annotated[Word, OneOf(get_args(ReturnStatus))]


class DisputePart(Wire):
    """A stage or an outcome of a dispute."""

    dispute_id: Identifier
    stage: Annotated[Word | None, Known(VOCABULARY["stage"])] = None
    outcome: Annotated[Word | None, Known(VOCABULARY["outcome"])] = None
    reason: Text | None = None
    amount: Amount | None = None
    currency: Currency | None = None


class ReviewerPart(Wire):
    """Who gave the verdict."""

    name: Text | None = None
    email: Text | None = None
