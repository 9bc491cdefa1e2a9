"""The vocabulary: one frozen model per event, the entities, the enumerations, normalisation.

An event is an immutable fact. Its fields are the columns of its table in a data folder, so the
models below are the only place where a column is named; `features.tables` derives its schema from
them. `known_at` is when the service could have known the fact; every other time is a business time.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field

ENTITIES: Final = ("customer", "device", "payment_method", "address", "ip", "email")
"""What events touch and features aggregate by."""

KEYS: Final = (*ENTITIES, "order", "refund")
"""Everything that history is looked up by: the entities, and the order and refund themselves."""

COLUMN_OF: Final[Mapping[str, str]] = {
    "customer": "customer_id",
    "device": "device_id",
    "payment_method": "payment_method_id",
    "address": "address_id",
    "ip": "ip",
    "email": "email",
    "order": "order_id",
    "refund": "refund_id",
}
"""The column that holds each key."""

IDENTIFIERS: Final = frozenset(COLUMN_OF[entity] for entity in ENTITIES)
"""Columns that point at a person: pseudonymised in the store, left out of derived event ids."""


@dataclass(frozen=True)
class Kind:
    """What a column holds; decides how a data folder's values are checked."""

    name: Literal["id", "text", "time", "minor", "count", "flag", "share", "currency", "country"]


Id = Annotated[str, Kind("id"), Field(min_length=1, max_length=256)]
Text = Annotated[str, Kind("text"), Field(max_length=1024)]
Millis = Annotated[int, Kind("time"), Field(ge=0)]
Minor = Annotated[int, Kind("minor"), Field(ge=0, le=10**15)]
Count = Annotated[int, Kind("count"), Field(ge=0, le=10**9)]
Flag = Annotated[bool, Kind("flag")]
Share = Annotated[float, Kind("share"), Field(ge=0, le=1)]
Currency = Annotated[str, Kind("currency"), Field(pattern=r"^[A-Z]{3}$")]
Country = Annotated[str, Kind("country"), Field(pattern=r"^[A-Z]{2}$")]

# Closed lists: what they name drives features or the lifecycle, so another value is an error.
OrderStatus = Literal["ACCEPTED", "SHIPPED", "DELIVERED", "CANCELLED"]
TransactionKind = Literal["CAPTURE", "REFUND", "VOID"]
OutcomeStatus = Literal["COMPLETED", "DECLINED", "FAILED", "CANCELED"]
ReturnStatus = Literal["LABEL_CREATED", "IN_TRANSIT", "RECEIVED", "LOST", "ACCEPTED", "REJECTED"]
Verdict = Literal["REFUND_ABUSE", "NOT_REFUND_ABUSE", "UNREVIEWED"]
LabelSource = Literal["ANALYST", "CHARGEBACK", "INVESTIGATION"]

# Open lists: the field moves on, so a value outside is kept and answered with a warning.
VOCABULARY: Final[Mapping[str, tuple[str, ...]]] = {
    "reason": (
        "ITEM_NOT_RECEIVED", "CUSTOMER_INCORRECT_ITEM", "ITEM_DAMAGED", "NOT_AS_DESCRIBED",
        "MISSING_ITEM", "WRONG_ITEM_SENT", "EMPTY_BOX", "CHANGED_MIND", "LATE_DELIVERY",
        "SUBSCRIPTION_CANCELLED", "OTHER",
    ),
    "claim": ("FULL", "PARTIAL"),
    "type": ("REFUND", "RETURN", "STORE_CREDIT", "GOODWILL", "INSTANT", "REPLACEMENT"),
    "initiated_by": ("CUSTOMER", "MERCHANT", "AGENT"),
    "issued_to": ("ORIGINAL_PAYMENT_METHOD", "GIFT_CARD", "STORE_CREDIT", "BANK_TRANSFER"),
    "policy": ("TERMS_AND_CONDITIONS", "GOODWILL", "STATUTORY"),
    "decline_reason": ("RAVELIN", "RISK", "POLICY", "MERCHANT"),
    "stage": (
        "EARLY_FRAUD_WARNING", "REQUEST_FOR_INFORMATION", "NOTIFICATION_OF_CHARGEBACK",
        "CHARGEBACK", "SECOND_CHARGEBACK", "CHARGEBACK_REVERSED", "PREARBITRATION", "ARBITRATION",
    ),
    "outcome": ("ACCEPTED", "WON", "EXPIRED", "LOST"),
    "order_status": get_args(OrderStatus),
    "kind": get_args(TransactionKind),
    "outcome_status": get_args(OutcomeStatus),
    "return_status": get_args(ReturnStatus),
    "label": get_args(Verdict),
    "source": get_args(LabelSource),
}  # fmt: skip
"""Known values per list, in a fixed order: a value's place is its numeric code."""


class Event(BaseModel):
    """A fact and the instant from which it could be known.

    >>> Order(
    ...     order_id="o1", customer_id="c1", known_at=0, amount_minor=500, currency="GBP"
    ... ).event_type
    'order'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_type: ClassVar[str]
    table: ClassVar[str]
    item_table: ClassVar[str | None] = None
    one_of: ClassVar[tuple[str, ...]] = ()
    """Of these columns at least one must be given; `only_one` forbids more."""
    only_one: ClassVar[bool] = False
    part_of: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Columns that are a part of another one's amount, and so never more than it."""
    repeats: ClassVar[bool] = False
    """Whether the same content at another time is another event (a label set again)."""

    event_id: Id | None = None
    known_at: Millis

    @classmethod
    def as_checked(cls, content: Mapping[str, Any]) -> Self:
        """The event of content that was checked before, such as a stored one's; checks nothing.

        What a validated event would be, in a tenth of the time: lines may be given as mappings,
        and what is no column is left out.

        >>> content = {"transaction_id": "t", "kind": "CAPTURE", "known_at": 1, "order_id": "o",
        ...            "amount_minor": 5, "currency": "GBP", "is_of_a_later_program": True}
        >>> Transaction.as_checked(content) == Transaction.model_validate(content, extra="ignore")
        True
        """
        items = content.get("items")
        if items and isinstance(items[0], Mapping):
            line = _LINE_OF[cls]
            content = {**content, "items": tuple([_unchecked(line, each) for each in items])}
        return _unchecked(cls, content)

    def content(self) -> dict[str, Any]:
        """All that it says, as ``model_dump(exclude_none=True)`` gives it, in a fifth of the time.

        >>> Return(refund_id="r", status="LOST", known_at=1).content()
        {'known_at': 1, 'refund_id': 'r', 'status': 'LOST'}
        """
        said = _said(self)
        if items := said.get("items"):
            said["items"] = tuple([_said(line) for line in items])
        return said


def _said(part: BaseModel) -> dict[str, Any]:
    return {name: value for name, value in part.__dict__.items() if value is not None}


class OrderItem(BaseModel):
    """A line of an order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line_id: Id
    sku: Id | None = None
    category: Text | None = None
    quantity: Count | None = None
    amount_minor: Minor
    final_sale: Flag | None = None


class RefundItem(BaseModel):
    """A line of a refund request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line_id: Id
    sku: Id | None = None
    category: Text | None = None
    quantity: Count | None = None
    amount_minor: Minor | None = None
    reason: Text | None = None


class Order(Event):
    """An order as first known."""

    event_type = "order"
    table = "orders"
    item_table = "order_items"

    order_id: Id
    customer_id: Id
    amount_minor: Minor
    currency: Currency
    item_count: Count | None = None
    shipping_minor: Minor | None = None
    channel: Text | None = None
    ordered_at: Millis | None = None
    registered_at: Millis | None = None
    device_id: Id | None = None
    payment_method_id: Id | None = None
    address_id: Id | None = None
    ip: Id | None = None
    email: Id | None = None
    billing_country: Country | None = None
    shipping_country: Country | None = None
    items: tuple[OrderItem, ...] = ()


class OrderUpdate(Event):
    """A change of an order, or of one of its lines."""

    event_type = "order_update"
    table = "order_updates"

    order_id: Id
    status: OrderStatus
    delivered_at: Millis | None = None
    line_id: Id | None = None
    sku: Id | None = None
    quantity: Count | None = None


class Transaction(Event):
    """Money that moved, or was meant to."""

    event_type = "transaction"
    table = "transactions"
    one_of = ("order_id", "refund_id")

    transaction_id: Id
    kind: TransactionKind
    order_id: Id | None = None
    refund_id: Id | None = None
    payment_method_id: Id | None = None
    amount_minor: Minor
    currency: Currency
    success: Flag | None = None


class RefundRequest(Event):
    """A refund request: what is scored, and what every velocity counts."""

    event_type = "refund_request"
    table = "refund_requests"
    item_table = "refund_items"
    part_of = MappingProxyType({"non_refundable_minor": "amount_minor"})

    refund_id: Id
    customer_id: Id
    amount_minor: Minor
    currency: Currency
    order_id: Id | None = None
    non_refundable_minor: Minor | None = None
    order_amount_minor: Minor | None = None
    reason: Text | None = None
    claim: Text | None = None
    type: Text | None = None
    initiated_by: Text | None = None
    issued_to: Text | None = None
    policy: Text | None = None
    channel: Text | None = None
    item_count: Count | None = None
    ordered_at: Millis | None = None
    registered_at: Millis | None = None
    delivered_at: Millis | None = None
    device_id: Id | None = None
    payment_method_id: Id | None = None
    address_id: Id | None = None
    ip: Id | None = None
    email: Id | None = None
    billing_country: Country | None = None
    shipping_country: Country | None = None
    payment_method_expires_at: Millis | None = None
    final_sale: Flag | None = None
    ip_risk: Share | None = None
    ignore: Flag | None = None
    items: tuple[RefundItem, ...] = ()


class RefundOutcome(Event):
    """What became of a refund."""

    event_type = "refund_outcome"
    table = "refund_outcomes"

    refund_id: Id
    status: OutcomeStatus
    amount_minor: Minor | None = None
    decline_reason: Text | None = None


class Return(Event):
    """Progress of goods on their way back."""

    event_type = "return"
    table = "returns"
    one_of = ("refund_id", "order_id")

    refund_id: Id | None = None
    order_id: Id | None = None
    status: ReturnStatus


class Dispute(Event):
    """A stage or an outcome of a dispute."""

    event_type = "dispute"
    table = "disputes"
    one_of = ("customer_id", "order_id", "payment_method_id")
    only_one = True

    dispute_id: Id
    customer_id: Id | None = None
    order_id: Id | None = None
    payment_method_id: Id | None = None
    amount_minor: Minor | None = None
    currency: Currency | None = None
    stage: Text | None = None
    outcome: Text | None = None
    reason: Text | None = None


class Label(Event):
    """Somebody's verdict on a refund, or on a customer."""

    event_type = "label"
    table = "labels"
    one_of = ("refund_id", "customer_id")
    only_one = True
    repeats = True

    refund_id: Id | None = None
    customer_id: Id | None = None
    label: Verdict
    source: LabelSource | None = None
    reviewer: Text | None = None


EVENTS: Final[Mapping[str, type[Event]]] = {
    event.event_type: event
    for event in (
        Order, OrderUpdate, Transaction, RefundRequest, RefundOutcome, Return, Dispute, Label,
    )
}  # fmt: skip
"""Every event by its type, in the order of DESIGN's tables."""

_LINE_OF: Final[Mapping[type[Event], type[BaseModel]]] = {
    Order: OrderItem,
    RefundRequest: RefundItem,
}

AnyModel = TypeVar("AnyModel", bound=BaseModel)


def _unchecked(model: type[AnyModel], content: Mapping[str, Any]) -> AnyModel:
    """As `BaseModel.model_construct`, which goes through the fields one by one, at once."""
    blank = _BLANK[model]
    filled = {**blank, **content}
    if len(filled) > len(blank):
        filled = {name: filled[name] for name in blank}
        content = {name: value for name, value in content.items() if name in blank}
    made = model.__new__(model)
    set_slot = object.__setattr__  # the models are frozen
    set_slot(made, "__dict__", filled)
    set_slot(made, "__pydantic_fields_set__", set(content))
    set_slot(made, "__pydantic_extra__", None)
    set_slot(made, "__pydantic_private__", None)
    return made


_BLANK: Final[Mapping[type[BaseModel], Mapping[str, Any]]] = {
    model: {name: None if field.is_required() else field.default
            for name, field in model.model_fields.items()}
    for model in (*EVENTS.values(), *_LINE_OF.values())
}  # fmt: skip
"""The fields of each model in their order, with their defaults."""


def derive_event_id(event_type: str, content: Mapping[str, Any], *, repeats: bool = False) -> str:
    """An id for an event that came without one: its type, natural key and content, hashed.

    Identifiers of persons stay out, so that an id betrays nobody and survives erasure; the time
    stays out too (a fact delivered twice counts once). An event that `repeats`, a label, has no
    other natural key than whom it is about and when, so there both stay in.

    >>> first = derive_event_id("return", {"refund_id": "r", "status": "LOST", "known_at": 1})
    >>> first == derive_event_id("return", {"status": "LOST", "refund_id": "r", "known_at": 2})
    True
    """
    left_out = left_out_of_id(repeats=repeats)
    kept = {k: v for k, v in content.items() if v is not None and k not in left_out}
    return event_digest(orjson.dumps([event_type, kept], option=orjson.OPT_SORT_KEYS))


def left_out_of_id(*, repeats: bool) -> frozenset[str]:
    """The columns that a derived id does not depend on; see `derive_event_id`."""
    return _ITSELF if repeats else _LEFT_OUT


_ITSELF: Final = frozenset(("event_id",))
_LEFT_OUT: Final = IDENTIFIERS | {"event_id", "known_at"}


def event_digest(canonical: bytes) -> str:
    """The id of an event whose type and content are written as canonical JSON."""
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()


def normalise_email(email: str) -> str:
    """One spelling per mailbox: no case, no white space, no ``+tag``; dots and domain stay.

    >>> normalise_email(" Ann.Lee+shop@Example.COM ")
    'ann.lee@example.com'
    """
    if _NORMAL_EMAIL(email):
        return email
    local, at, domain = unicodedata.normalize("NFKC", email).strip().casefold().rpartition("@")
    return f"{local.split('+')[0] or local}{at}{domain}"


def normalise_ip(ip: str) -> str:
    """An IPv4 address as it is; an IPv6 address as its /64, the share of one household.

    What is no address at all is kept, trimmed: it still links those who sent it.

    >>> normalise_ip("2001:db8:1:2:3:4:5:6"), normalise_ip("::ffff:192.0.2.7")
    ('2001:db8:1:2::/64', '192.0.2.7')
    """
    if _NORMAL_IP(ip):
        return ip
    if found := _PLAIN_IPV6(ip):
        return f"{found[1]}::/64"
    try:
        address = ipaddress.ip_address(ip.strip().removesuffix("/64"))
    except ValueError:
        return ip.strip()
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def address_key(street: str | None, postal_code: str | None, country: str | None) -> str | None:
    """One id per address however it is typed: letters and digits only, then hashed.

    Needs a street or a postal code; a country alone is no address.

    >>> address_key("1, High St.", "AB1 2CD", "GB") == address_key("1 high st", "ab12cd", "gb")
    True
    >>> address_key(None, None, "GB") is None
    True
    """
    parts = [_letters_and_digits(part or "") for part in (street, postal_code, country)]
    if not any(parts[:2]):
        return None
    plain = "|".join(parts)
    return "addr_" + hashlib.blake2b(plain.encode(), digest_size=12).hexdigest()


def _letters_and_digits(text: str) -> str:
    spelling = text if text.isascii() else unicodedata.normalize("NFKD", text)
    return "".join(filter(str.isalnum, spelling.casefold()))


def due_minor(amount_minor: int, non_refundable_minor: int | None) -> int:
    """What would be paid of an amount of which policy keeps a part: never less than nothing.

    >>> due_minor(500, 120), due_minor(500, None), due_minor(100, 120)
    (380, 500, 0)
    """
    return max(0, amount_minor - (non_refundable_minor or 0))


NORMALISE: Final = {"email": normalise_email, "ip": normalise_ip}
"""Columns whose spelling is made one before anything else sees them."""

_BYTE: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
NORMAL: Final = {"email": r"[!-*,-@\[-~]+", "ip": rf"{_BYTE}(?:\.{_BYTE}){{3}}"}
"""Patterns of what `NORMALISE` leaves as it is: nearly all e-mails (ASCII, no upper case, no ``+``)
and all IPv4 addresses, so that millions of rows need no look at each."""

_NORMAL_EMAIL: Final = re.compile(NORMAL["email"]).fullmatch
_NORMAL_IP: Final = re.compile(NORMAL["ip"]).fullmatch

_LED: Final = r"[1-9a-f][0-9a-f]{0,3}"
_GROUP: Final = rf"(?:0|{_LED})"
_PLAIN_IPV6: Final = re.compile(
    rf"((?:{_GROUP}:){{3}}{_LED})(?:(?::{_GROUP}){{4}}|::/64)"
).fullmatch
"""IPv6 addresses as most are written, and their /64: `ipaddress` takes twenty times as long."""
