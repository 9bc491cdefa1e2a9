"""What an accepted body says: its events, its warnings and the hash of its content.

Pure translation: nothing here reads a clock or a store; `known_at` is handed in.
"""

from __future__ import annotations

import functools
import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Final, TypeVar, get_args

import orjson
from pydantic import Field

from features.events import (
    IDENTIFIERS,
    Dispute,
    Event,
    Label,
    LabelSource,
    Order,
    OrderUpdate,
    OutcomeStatus,
    RefundOutcome,
    RefundRequest,
    Return,
    Transaction,
    Verdict,
    derive_event_id,
)  # fmt: skip
from serving import answers, bodies
from serving.wire import Array, Identifier, Known, OneOf, Text, Time, Wire, Word

_OUTCOMES: Final = frozenset(get_args(OutcomeStatus))

MAX_WARNINGS: Final = 20
"""Enough to see what is wrong; a thousand lines with one misspelling need not say it each."""

# --- reports -------------------------------------------------------------------------------------


class Report(Wire):
    """A body that was accepted. ``timestamp`` is its own time (epoch ms), which moves no window."""

    timestamp: Time | None = None

    @functools.cached_property
    def content_hash(self) -> str:
        """Digest of the recognised fields, whatever their order, less timestamp and userAgent."""
        canonical = orjson.dumps(_content(self), default=_content, option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(canonical, digest_size=16).hexdigest()

    @abstractmethod
    def events(self, known_at: int) -> list[Event]:
        """The facts in the body, as known at ``known_at`` (epoch ms)."""

    @abstractmethod
    def documents(self) -> dict[str, str]:
        """The order and the refund that it is about, by column, as far as it names them."""

    def names(self) -> frozenset[tuple[str, str]]:
        """Everything that it names, as column and value: what reports have in common by which one
        moves what another reads."""
        customer = getattr(self, "customer", None)
        of_customer = {"customer_id": customer.customer_id} if customer else {}
        return frozenset({**of_customer, **self.documents()}.items())

    def warnings(self) -> list[answers.WarningBody]:
        """What its sender may want to mend, the first `MAX_WARNINGS` of it."""
        return [*islice(self._warnings(), MAX_WARNINGS)]

    def _warnings(self) -> Iterator[answers.WarningBody]:
        yield from ()


class CommerceReport(Report):
    """What bodies about an order and about a refund of it have in common."""

    customer: bodies.CustomerPart | None = None
    order: bodies.OrderPart | None = None
    device: bodies.DevicePart | None = None
    payment_methods: Array[bodies.PaymentMethodPart] = ()
    transactions: Array[bodies.TransactionPart] = ()
    addresses: bodies.AddressesPart | None = None

    @functools.cached_property
    def _columns(self) -> Mapping[str, Any]:
        """The columns that an order and a refund request share."""
        customer, order, device = self.customer, self.order, self.device
        billing = self.addresses and self.addresses.billing
        shipping = self.addresses and self.addresses.shipping
        return {
            "customer_id": customer and customer.customer_id,
            "registered_at": customer and customer.registration_time,
            "email": customer and customer.email,
            "order_id": order and order.order_id,
            "ordered_at": order and order.order_time,
            "channel": order and order.channel,
            "device_id": device and device.device_id,
            "ip": device and device.ip_address,
            "payment_method_id": next((p.payment_method_id for p in self.payment_methods), None),
            "address_id": shipping and shipping.address_id,
            "billing_country": billing and billing.country_code,
            "shipping_country": shipping and shipping.country_code,
        }

    def documents(self) -> dict[str, str]:
        """The order, if it is named."""
        return {"order_id": self.order.order_id} if self.order else {}

    def names(self) -> frozenset[tuple[str, str]]:
        """Every person, device and document."""
        given = {c: v for c, v in self._columns.items() if c in IDENTIFIERS and v is not None}
        return frozenset({**given, **self.documents()}.items())

    def _order_events(self, known_at: int) -> Iterator[Event]:
        order = self.order
        if order is None:
            return
        if self.customer and order.price is not None and order.currency:
            yield _event(
                Order,
                known_at,
                **self._columns,
                amount_minor=order.price,
                currency=order.currency,
                shipping_minor=order.shipping_amount,
                item_count=_piece_count(order.items),
                items=_order_lines(order.items, order.currency),
            )
        status = bodies.ORDER_STAGES.get(order.status.stage or "") if order.status else None
        if status is not None:
            delivered_at = order.delivered_time if status == "DELIVERED" else None
            yield _event(OrderUpdate, known_at, order_id=order.order_id, status=status,
                         delivered_at=delivered_at)  # fmt: skip
        for update in _line_updates(order.items):
            yield _event(OrderUpdate, known_at, order_id=order.order_id, **update)

    def _transaction_events(
        self, known_at: int, refund: bodies.RefundPart | None = None
    ) -> Iterator[Event]:
        order_id = self.order and self.order.order_id
        # Nothing is paid yet of a refund that is open: what went back was of others on the order.
        paid = refund is not None and refund.status != "OPEN"
        for part in self.transactions:
            kind = bodies.TRANSACTION_KINDS.get(part.type)
            if kind is None:
                continue
            yield _event(
                Transaction,
                known_at,
                transaction_id=part.transaction_id,
                kind=kind,
                order_id=order_id,
                # A capture belongs to the order, unless the refund is all that we are told.
                refund_id=refund.refund_id
                if refund and (order_id is None or (kind == "REFUND" and paid))
                else None,
                payment_method_id=part.payment_method_id,
                amount_minor=part.amount,
                currency=part.currency,
                success=part.success,
            )

    def _warnings(self) -> Iterator[answers.WarningBody]:
        order = self.order
        if order and order.status:
            yield from _unknown_values("order.status", order.status)
        for i, item in enumerate(order.items if order else ()):
            if item.status:
                yield from _unknown_values(f"order.items[{i}].status", item.status)
        if order and order.price is not None and order.currency:
            for i, item in enumerate(order.items):
                if item.currency and item.currency != order.currency:
                    field = f"order.items[{i}].currency"
                    yield answers.other_currency(field, item.currency, order.currency)
                elif item.price is None:
                    field = f"order.items[{i}].price"
                    yield answers.fact_missing(field, "the line is left out of the order")
        for i, part in enumerate(self.transactions):
            yield from _unknown_values(f"transactions[{i}]", part)
        for role in ("billing", "shipping"):
            address = getattr(self.addresses, role, None)
            if address and address.country and address.country_code is None:
                yield answers.unknown_value(f"addresses.{role}.country", address.country, ())


class OrderReport(CommerceReport):
    """An order, or a change of one."""

    def events(self, known_at: int) -> list[Event]:
        """The order, its updates and its transactions."""
        found = list(self._order_events(known_at))
        order = self.order
        delivered = any(isinstance(e, OrderUpdate) and e.status == "DELIVERED" for e in found)
        if order and order.delivered_time and not delivered:
            # A time of delivery says that it was delivered, whatever stage came after.
            found.append(_event(OrderUpdate, known_at, order_id=order.order_id, status="DELIVERED",
                                delivered_at=order.delivered_time))  # fmt: skip
        return [*found, *self._transaction_events(known_at)]


class RefundReport(CommerceReport):
    """A refund: a request to be scored, the same reported only, or an outcome."""

    refund: bodies.RefundPart

    def documents(self) -> dict[str, str]:
        """The refund, and its order if that is named."""
        return {**super().documents(), "refund_id": self.refund.refund_id}

    def events(self, known_at: int) -> list[Event]:
        """The embedded order, the request, the outcome and the transactions, as far as told."""
        found = list(self._order_events(known_at))
        refund = self.refund
        if self.customer and refund.amount is not None and refund.currency:
            found.append(self._request(known_at, refund.amount, refund.currency))
        if refund.status in _OUTCOMES:
            found.append(self._outcome(known_at))
        return [*found, *self._transaction_events(known_at, refund)]

    def _request(self, known_at: int, amount_minor: int, currency: str) -> RefundRequest:
        refund, order, device = self.refund, self.order, self.device
        same_currency = order is not None and (order.currency or currency) == currency
        return _event(
            RefundRequest,
            known_at,
            **self._columns,
            refund_id=refund.refund_id,
            amount_minor=amount_minor,
            currency=currency,
            non_refundable_minor=refund.non_refundable_amount,
            order_amount_minor=order.price if order and same_currency else None,
            delivered_at=order and order.delivered_time,
            payment_method_expires_at=next((p.expires_at for p in self.payment_methods), None),
            reason=_reason(refund, currency),
            claim=refund.claim,
            type=refund.type,
            initiated_by=refund.initiated_by,
            issued_to=refund.issued_to or next(iter(refund.refund_issued_to), None),
            policy=refund.policy,
            item_count=_piece_count(refund.items),
            final_sale=_any_final(refund.items),
            ip_risk=device and device.ip_risk,
            ignore=refund.ignore,
            items=_refund_lines(refund.items, currency),
        )

    def _outcome(self, known_at: int) -> RefundOutcome:
        refund = self.refund
        paid = refund.amount if refund.status == "COMPLETED" else None
        return _event(
            RefundOutcome,
            known_at,
            refund_id=refund.refund_id,
            status=refund.status,
            # What policy keeps of the amount was not paid.
            amount_minor=None if paid is None else paid - (refund.non_refundable_amount or 0),
            decline_reason=refund.decline_reason,
        )

    def _warnings(self) -> Iterator[answers.WarningBody]:
        refund = self.refund
        if refund.status == "OPEN" and not (self.device and self.device.device_id):
            yield answers.device_missing()
        yield from _unknown_values("refund", refund)
        for i, item in enumerate(refund.items):
            field = f"refund.items[{i}]"
            yield from _unknown_values(field, item)
            if refund.currency and item.currency and item.currency != refund.currency:
                yield answers.other_currency(f"{field}.currency", item.currency, refund.currency)
            elif item.price is None and len({each.refund_reason for each in refund.items}) > 1:
                yield answers.fact_missing(f"{field}.price", "the lines' reasons differ, and which "
                                           "is that of the most value cannot be told")  # fmt: skip
        order = self.order
        if order and order.currency and refund.currency and order.currency != refund.currency:
            yield answers.other_currency("order.currency", order.currency, refund.currency)
        yield from super()._warnings()


class ReturnReport(Report):
    """A return's progress; it names its refund, its order or both, in either place."""

    return_: bodies.ReturnPart = Field(alias="return")
    refund: bodies.RefundRef | None = None
    order: bodies.OrderRef | None = None

    def documents(self) -> dict[str, str]:
        """What it names, in either place."""
        part = self.return_
        refund_id = part.refund_id or (self.refund and self.refund.refund_id)
        order_id = part.order_id or (self.order and self.order.order_id)
        named = {"refund_id": refund_id, "order_id": order_id}
        return {name: value for name, value in named.items() if value}

    def events(self, known_at: int) -> list[Event]:
        """The step."""
        part = self.return_
        # The return's own id tells two parcels of one order apart; it is in the event's id only.
        return [
            _event(
                Return,
                known_at,
                natural_key=part.return_id,
                **self.documents(),
                status=part.status,
            )
        ]


class DisputeReport(Report):
    """A dispute of an order, of a payment method or of a customer: the first given counts."""

    dispute: bodies.DisputePart
    order: bodies.OrderRef | None = None
    payment_method: bodies.PaymentMethodPart | None = None
    customer: bodies.CustomerRef | None = None

    def documents(self) -> dict[str, str]:
        """The order, if it is of one."""
        return {"order_id": self.order.order_id} if self.order else {}

    def events(self, known_at: int) -> list[Event]:
        """The stage or outcome."""
        part = self.dispute
        of: dict[str, str] = {}
        if self.order:
            of["order_id"] = self.order.order_id
        elif self.payment_method:
            of["payment_method_id"] = self.payment_method.payment_method_id
        elif self.customer:
            of["customer_id"] = self.customer.customer_id
        return [
            _event(
                Dispute,
                known_at,
                **of,
                dispute_id=part.dispute_id,
                stage=part.stage,
                outcome=part.outcome,
                reason=part.reason,
                amount_minor=part.amount,
                currency=part.currency,
            )
        ]

    def _warnings(self) -> Iterator[answers.WarningBody]:
        yield from _unknown_values("dispute", self.dispute)


class LabelReport(Report):
    """A verdict on a refund, or on its customer when it names none."""

    customer: bodies.CustomerRef | None = None
    refund_id: Identifier | None = None
    category: Annotated[Word, OneOf(("REFUND_ABUSE",))]
    review: Annotated[Word, OneOf(get_args(Verdict))]
    source: Annotated[Word, OneOf(get_args(LabelSource))] | None = None
    reviewer: bodies.ReviewerPart | None = None
    comment: Text | None = None

    def documents(self) -> dict[str, str]:
        """The refund, if it is of one."""
        return {"refund_id": self.refund_id} if self.refund_id else {}

    def events(self, known_at: int) -> list[Event]:
        """The verdict."""
        of_customer = self.customer if self.refund_id is None else None
        return [
            _event(
                Label,
                known_at,
                refund_id=self.refund_id,
                customer_id=of_customer and of_customer.customer_id,
                label=self.review,
                source=self.source or "ANALYST",
                reviewer=self.reviewer and (self.reviewer.email or self.reviewer.name),
            )
        ]


_NOT_CONTENT: Final = frozenset(("timestamp", "user_agent"))


def _content(part: Wire) -> dict[str, Any]:
    """What a part says that makes a report another one; the parts in it as they are."""
    given = part.__dict__
    return {
        name: given[name]
        for name in part.__pydantic_fields__
        if given[name] is not None and name not in _NOT_CONTENT
    }


# --- reports to events ---------------------------------------------------------------------------

AnyEvent = TypeVar("AnyEvent", bound=Event)


def _event(
    model: type[AnyEvent], known_at: int, *, natural_key: str | None = None, **content: Any
) -> AnyEvent:
    """An event whose id is derived from all it says; ``natural_key`` is in the id alone.

    A body is held to all that is asked of an event, and more, so it is not checked again.
    """
    said = {name: value for name, value in content.items() if value is not None}
    said["known_at"] = known_at
    keyed = said if natural_key is None else {**said, "natural_key": natural_key}
    said["event_id"] = derive_event_id(model.event_type, keyed, repeats=model.repeats)
    return model.as_checked(said)


def _piece_count(items: Sequence[bodies.ItemPart]) -> int | None:
    return sum(item.pieces for item in items) if items else None


def _order_lines(items: Iterable[bodies.ItemPart], currency: str) -> list[dict[str, Any]] | None:
    """The lines whose worth in the order's currency is known; the others are warned about."""
    lines = (
        {
            "line_id": str(number),
            "sku": item.sku,
            "category": item.category,
            "quantity": item.quantity,
            "amount_minor": item.amount_minor(currency),
            "final_sale": item.final_sale,
        }
        for number, item in enumerate(items, 1)
    )
    return [line for line in lines if line["amount_minor"] is not None] or None


def _line_updates(items: Iterable[bodies.OrderItemPart]) -> Iterator[dict[str, Any]]:
    """Where the pieces of each line stand, lines of one sku together: a split line is still one.

    Lines without a sku are told by their place. What was delivered has shipped, so each update says
    how many pieces have come at least as far.
    """
    pieces: dict[tuple[str, str], Counter[str]] = {}
    for number, item in enumerate(items, 1):
        status = bodies.ORDER_STAGES.get(item.status.stage or "") if item.status else None
        if status is None or not item.pieces:
            continue
        line = ("sku", item.sku) if item.sku else ("line_id", str(number))
        reached = pieces.setdefault(line, Counter())
        reached[status] += item.pieces
        if status == "DELIVERED":
            reached["SHIPPED"] += item.pieces
    for (column, name), reached in pieces.items():
        for status, quantity in sorted(reached.items()):
            yield {column: name, "status": status, "quantity": quantity}


def _refund_lines(
    items: Iterable[bodies.RefundItemPart], currency: str
) -> list[dict[str, Any]] | None:
    lines = [
        {
            "line_id": str(number),
            "sku": item.sku,
            "category": item.category,
            "quantity": item.quantity,
            "amount_minor": item.amount_minor(currency),
            "reason": item.refund_reason,
        }
        for number, item in enumerate(items, 1)
    ]
    return lines or None


def _reason(refund: bodies.RefundPart, currency: str) -> str | None:
    """Why it is asked: the reason of the line worth most, of equals the first.

    The refund's own reason stands for lines that tell none. Where reasons differ and a price is
    not told, the line worth most is not known, and so its reason is not.
    """
    reasons = [item.refund_reason or refund.refund_reason for item in refund.items]
    if len({*reasons}) < 2:
        return reasons[0] if reasons else refund.refund_reason
    worth = [item.amount_minor(currency) for item in refund.items]
    known = [amount for amount in worth if amount is not None]
    return reasons[worth.index(max(known))] if len(known) == len(worth) else None


def _any_final(items: Sequence[bodies.ItemPart]) -> bool | None:
    """Whether any line was sold for good; unknown unless one is or all say they are not."""
    said = [item.final_sale for item in items]
    if True in said:
        return True
    return False if said and None not in said else None


@functools.cache
def _open_lists(model: type[Wire]) -> tuple[tuple[str, str, Known], ...]:
    """The fields of a part that have an open list: name, wire name, list."""
    return tuple(
        (name, field.alias or name, known)
        for name, field in model.model_fields.items()
        for known in field.metadata
        if isinstance(known, Known)
    )


def _unknown_values(path: str, part: Wire) -> Iterator[answers.WarningBody]:
    for name, wire_name, known in _open_lists(type(part)):
        value = getattr(part, name)
        if not value or value in known.choices:
            continue
        at = f"{path}.{wire_name}"
        said = (
            {f"{at}[{i}]": word for i, word in enumerate(value)}
            if isinstance(value, tuple)
            else {at: value}
        )
        for field, word in said.items():
            if word is not None and word not in known.choices:
                yield answers.unknown_value(field, word, known.choices, known.otherwise)
