"""Orders and what becomes of them, generated small so that things meet; and the naive ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from features.events import (
    Event,
    Order,
    OrderItem,
    OrderUpdate,
    RefundItem,
    RefundOutcome,
    RefundRequest,
    Transaction,
    due_minor,
)
from features.ledger import LEDGER_FACTS, Fact, Hold
from features.money import DAY_MS
from features.tables import SCHEMA, Tables, arrow_schema, canonical_table

START = 1_735_689_600_000
"""2025-01-01 UTC."""
CUTOFF = START + 4
TIMES = st.integers(START, START + 7)

# --- histories -----------------------------------------------------------------------------------

_AMOUNTS = st.sampled_from([0, 1, 250, 999, 1_000, 1_000, 5_000, 10**15])
_CURRENCIES = st.sampled_from([*["GBP"] * 5, "EUR"])
_REFUNDS = st.sampled_from(["r0", "r1", "r2", "r3"])
_SKUS = st.sampled_from([*["a", "b"] * 4, None])
_COUNTS = st.sampled_from([None, 0, 1, 1, 2, 3])
_ORDERS = st.sampled_from([*["o1"] * 9, "o2"])
_NO = st.none()
_FLAGS = st.sampled_from([None, False, False, True])


def _with(model: type[Event], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Event]:
    given = st.fixed_dictionaries({"known_at": TIMES, **fields})
    return given.map(lambda found: model(**{k: v for k, v in found.items() if v is not None}))


def _order_line(number: int) -> st.SearchStrategy[OrderItem]:
    return st.builds(OrderItem, line_id=st.just(str(number)), sku=_SKUS, quantity=_COUNTS,
                     amount_minor=_AMOUNTS, final_sale=_FLAGS)  # fmt: skip


def _refund_line(number: int) -> st.SearchStrategy[RefundItem]:
    return st.builds(RefundItem, line_id=st.just(str(number)), sku=_SKUS, quantity=_COUNTS)


def _order_lines() -> st.SearchStrategy[tuple[OrderItem, ...]]:
    return st.one_of(*(st.tuples(*map(_order_line, range(1, n + 1))) for n in range(3)))


def _refund_lines() -> st.SearchStrategy[tuple[RefundItem, ...]]:
    return st.one_of(*(st.tuples(*map(_refund_line, range(1, n + 1))) for n in range(3)))


_REQUESTED: Mapping[str, st.SearchStrategy[Any]] = {
    "customer_id": st.sampled_from(["c1", "c2"]),
    "amount_minor": _AMOUNTS,
    "non_refundable_minor": st.sampled_from([None, 0]),
    "currency": _CURRENCIES,
    "payment_method_id": st.sampled_from(["p", "q", None]),
    "email": st.sampled_from(["e1", "e2", None]),
    "address_id": st.sampled_from(["a1", "a2", None]),
    "ordered_at": st.sampled_from([None, None, START - 2, START + 2]),
    "items": _refund_lines(),
    "final_sale": st.sampled_from([None, False, False, True]),
}

_EVENT = st.one_of(
    _with(
        Order, order_id=_ORDERS, customer_id=st.sampled_from(["c1", "c2"]), amount_minor=_AMOUNTS,
        currency=_CURRENCIES, shipping_minor=st.sampled_from([None, 0, 395]),
        item_count=st.sampled_from([None, None, 2, 3]), items=_order_lines(),
        ordered_at=st.sampled_from([None, START - 1, START + 1]),
        email=st.sampled_from(["e1", None]), address_id=st.sampled_from(["a1", None]),
    ),
    _with(
        OrderUpdate, order_id=_ORDERS, quantity=_COUNTS,
        status=st.sampled_from(["ACCEPTED", "SHIPPED", "SHIPPED", "DELIVERED", "CANCELLED"]),
        sku=st.sampled_from(["a", "b", None, None]),
        line_id=st.sampled_from(["1", "9", None, None]),
    ),
    _with(
        Transaction, transaction_id=st.sampled_from(["t1", "t2", "t3", "t4"]),
        kind=st.sampled_from(["CAPTURE", "CAPTURE", "REFUND", "REFUND", "VOID"]), order_id=_ORDERS,
        refund_id=st.one_of(_NO, _REFUNDS), amount_minor=_AMOUNTS, currency=_CURRENCIES,
        payment_method_id=st.sampled_from(["p", "p", "q", None]),
        success=st.sampled_from([True, None, None, False]),
    ),
    _with(Transaction, transaction_id=st.sampled_from(["t1", "t5"]), kind=st.just("REFUND"),
          refund_id=_REFUNDS, amount_minor=_AMOUNTS, currency=_CURRENCIES,
          payment_method_id=st.sampled_from(["p", "q"])),
    _with(RefundRequest, refund_id=_REFUNDS, order_id=_ORDERS, **_REQUESTED),
    _with(RefundOutcome, refund_id=_REFUNDS, amount_minor=st.one_of(_NO, _AMOUNTS),
          status=st.sampled_from(["COMPLETED", "COMPLETED", "DECLINED", "FAILED", "CANCELED"])),
)  # fmt: skip


_PLAIN_ORDER = _with(
    Order, order_id=st.just("o1"), customer_id=st.just("c1"), amount_minor=_AMOUNTS,
    currency=st.just("GBP"), known_at=st.just(START),
    items=st.just((OrderItem(line_id="1", sku="a", quantity=2, amount_minor=2_000),
                   OrderItem(line_id="2", sku="b", amount_minor=1_000))),
)  # fmt: skip


@st.composite
def histories(draw: st.DrawFn) -> tuple[RefundRequest, list[Event]]:
    """The request r0 of the order o1 at `CUTOFF`, and events in any order, some of them twice."""
    asked = _with(
        RefundRequest,
        refund_id=st.just("r0"),
        order_id=st.just("o1"),
        delivered_at=st.sampled_from([None, None, START + 1, START + 6]),
        **_REQUESTED,
    )
    request = draw(asked).model_copy(update={"known_at": CUTOFF, "event_id": "own"})  # fmt: skip
    assert isinstance(request, RefundRequest)
    found = draw(st.lists(_EVENT, max_size=14))
    if draw(st.booleans()):  # else hardly any history tells enough to know what was ordered
        found.append(draw(_PLAIN_ORDER))
    events = [
        event.model_copy(update={"event_id": f"e{number}"}) for number, event in enumerate(found)
    ]
    again = draw(st.lists(st.sampled_from(events), max_size=3)) if events else []
    return request, draw(st.permutations([*events, *again, request]))


_HOLD = st.builds(
    Hold, refund_id=_REFUNDS, amount_minor=_AMOUNTS, currency=_CURRENCIES, is_promised=st.booleans()
)


def holds() -> st.SearchStrategy[list[Hold]]:
    """What a service holds of the order for its refunds, at most once for each."""
    return st.lists(_HOLD, max_size=3, unique_by=lambda hold: hold.refund_id)


def tables_of(events: Iterable[Event]) -> Tables:
    """Events as the canonical tables of a data folder."""
    rows: dict[str, list[dict[str, Any]]] = {"refund_requests": []}
    for event in events:
        content = event.model_dump(exclude_none=True)
        items = content.pop("items", ())
        rows.setdefault(event.table, []).append(content)
        if items and event.item_table:
            parent = SCHEMA[event.item_table][1].name
            head = {"event_id": event.event_id, parent: content[parent]}
            rows.setdefault(event.item_table, []).extend({**head, **item} for item in items)
    once = {name: [*{str(row): row for row in found}.values()] for name, found in rows.items()}
    return {
        name: canonical_table(name, pa.Table.from_pylist(found, arrow_schema(name)))
        for name, found in once.items()
    }


# --- the naive ledger ----------------------------------------------------------------------------


class Unknown(Exception):  # noqa: N818 - it is no error: a fact that nobody told
    """What is asked for is not known."""


def naive(
    request: RefundRequest, events: Sequence[Event], most: int = 1_000,
    holds: Sequence[Hold] = (),
) -> dict[str, Fact]:  # fmt: skip
    """The ledger straight from its sentences, each fact from the start and by itself."""
    told = _Told(request, events, most, holds)
    found: dict[str, Fact] = {}
    for name in LEDGER_FACTS:
        try:
            if told.is_crowded and name not in _OF_THE_ORDER_ALONE:
                raise Unknown
            value = getattr(told, name)()
        except Unknown:
            value = None
        if isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) < 2**53 else None
        found[name] = value
    return found


_OF_THE_ORDER_ALONE = (
    "order_shipping_minor",
    "asked_worth_minor",
    "final_sale",
    "order_customer_differs",
    "order_email_differs",
    "order_address_differs",
)


class _Told:
    def __init__(
        self, request: RefundRequest, events: Sequence[Event], most: int, holds: Sequence[Hold]
    ) -> None:
        self.request = request
        self.holds = {hold.refund_id: hold for hold in holds}
        self.holds.pop(request.refund_id, None)
        first_time: dict[str | None, Event] = {}
        for event in sorted(events, key=lambda e: e.known_at):
            first_time.setdefault(event.event_id, event)
        seen = sorted(first_time.values(), key=lambda e: (e.known_at, e.event_id))
        here, cutoff = request.order_id, request.known_at
        asked = [e for e in seen if isinstance(e, RefundRequest)
                 and e.order_id == here and e.known_at < cutoff]  # fmt: skip
        own = {request.refund_id}
        ids = {e.refund_id for e in asked} | own
        self.orders = [e for e in seen if isinstance(e, Order)
                       and e.order_id == here and e.known_at <= cutoff][:most]  # fmt: skip
        self.updates = [e for e in seen if isinstance(e, OrderUpdate)
                        and e.order_id == here and e.known_at <= cutoff]  # fmt: skip
        self.moved = [
            e
            for e in seen
            if isinstance(e, Transaction)
            and e.known_at <= cutoff
            and (e.order_id == here if e.order_id else e.refund_id in ids)
        ]
        outcomes = [e for e in seen if isinstance(e, RefundOutcome)
                    and e.refund_id in ids and e.known_at < cutoff]  # fmt: skip
        self.outcomes = outcomes
        crowds = (self.updates, self.moved, {e.refund_id for e in asked}, outcomes)
        self.is_crowded = any(len(crowd) > most for crowd in crowds)
        self.outcome = {e.refund_id: e for e in outcomes}
        self.asked = [e for e in asked if e.refund_id not in own]
        self.others = sorted({e.refund_id for e in self.asked})

    # --- money

    def _here(self, amount: int, currency: str) -> int:
        own = self.orders[0].currency if self.orders else self.request.currency
        if currency != own:
            raise Unknown
        return amount

    def _each(self, kind: str) -> list[tuple[str, Transaction, str | None]]:
        """Transaction ids of a kind that went through, as last told, and the refund first named."""
        found = []
        for name in sorted({t.transaction_id for t in self.moved}):
            of_kind = [t for t in self.moved if t.transaction_id == name and t.kind == kind]
            if of_kind and of_kind[-1].success in (True, None):
                named = [t.refund_id for t in of_kind if t.refund_id]
                found.append((name, of_kind[-1], named[0] if named else None))
        return found

    def _captured(self, method: str | None = None) -> int:
        captures = {name: t for name, t, _ in self._each("CAPTURE")}
        left = {name: self._here(t.amount_minor, t.currency) for name, t in captures.items()
                if method in (None, t.payment_method_id)}  # fmt: skip
        told_of = {t.transaction_id for t in self.moved if t.kind != "VOID"}
        for name, void, _ in self._each("VOID"):
            if name in left:
                gone = self._here(void.amount_minor, void.currency) or left[name]
                left[name] -= min(left[name], gone)
            elif name not in told_of:
                raise Unknown
        return sum(left.values())

    def _refunded(self, method: str | None = None) -> int:
        return sum(
            self._here(t.amount_minor, t.currency) for _, t, _ in self._each("REFUND")
            if method in (None, t.payment_method_id)
        )  # fmt: skip

    def _refunded_of(self, refund_id: str) -> int:
        return sum(
            self._here(t.amount_minor, t.currency) for _, t, of in self._each("REFUND")
            if of == refund_id
        )  # fmt: skip

    def _as_paid(self, refund_id: str) -> RefundRequest:
        at = self.outcome[refund_id].known_at
        versions = [v for v in self.asked if v.refund_id == refund_id]
        return ([v for v in versions if v.known_at <= at] or versions[:1])[-1]

    def _is_paid(self, refund_id: str) -> bool:
        return refund_id in self.outcome and self.outcome[refund_id].status == "COMPLETED"

    def _is_open(self, refund_id: str) -> bool:
        return refund_id not in self.outcome

    def order_shipping_minor(self) -> int:
        for order in self.orders:
            if order.shipping_minor is not None:
                return self._here(order.shipping_minor, order.currency)
        raise Unknown

    def order_captured_minor(self) -> int:
        return self._captured()

    def order_paid_back_minor(self) -> int:
        by_refund = 0
        for refund_id in (*self.others, self.request.refund_id):
            moved = self._refunded_of(refund_id)
            if self._is_paid(refund_id):
                is_own = refund_id == self.request.refund_id
                version = self.request if is_own else self._as_paid(refund_id)
                for outcome in reversed(self.outcomes):
                    if outcome.refund_id != refund_id:
                        continue
                    if outcome.status != "COMPLETED":
                        break
                    said = outcome.amount_minor
                    if said is None and is_own:
                        raise Unknown
                    if said is None:
                        said = due_minor(version.amount_minor, version.non_refundable_minor)
                    moved = max(moved, self._here(said, version.currency))
            by_refund += moved
        return max(by_refund, self._refunded())

    def _is_held_again(self, refund_id: str) -> bool:
        hold = self.holds.get(refund_id)
        return hold is not None and hold.amount_minor > 0 and not self._is_paid(refund_id)

    def _held(self, *, promised: bool) -> int:
        total = 0
        for refund_id, hold in self.holds.items():
            if hold.is_promised is promised and hold.amount_minor > 0:
                left = self._here(hold.amount_minor, hold.currency) - self._refunded_of(refund_id)
                total += max(0, left)
        return total

    def order_held_minor(self) -> int:
        return self._held(promised=False)

    def order_reserved_minor(self) -> int:
        total = self._held(promised=True)
        for refund_id in self.others:
            if self._is_open(refund_id) and refund_id not in self.holds:
                asked = [v for v in self.asked if v.refund_id == refund_id][-1]
                due = due_minor(asked.amount_minor, asked.non_refundable_minor)
                total += max(0, self._here(due, asked.currency) - self._refunded_of(refund_id))
        return total

    def tender_left_minor(self) -> int:
        method = self.request.payment_method_id
        moved = [t for kind in ("CAPTURE", "REFUND") for _, t, _ in self._each(kind)]
        if method is None or None in [t.payment_method_id for t in moved]:
            raise Unknown
        if self.order_paid_back_minor() != self._refunded():
            raise Unknown
        return self._captured(method) - self._refunded(method)

    # --- goods

    def _pieces(self, lines: Iterable[OrderItem | RefundItem]) -> list[str]:
        """A sku for each piece."""
        pieces: list[str] = []
        lines = list(lines)
        if not lines:
            raise Unknown
        for line in lines:
            if line.sku is None:
                raise Unknown
            pieces += [line.sku] * (1 if line.quantity is None else line.quantity)
        return pieces

    def _listed(self) -> Order:
        for order in self.orders:
            if order.items:
                return order
        raise Unknown

    def _ordered(self) -> list[str]:
        order = self._listed()
        pieces = self._pieces(order.items)
        if order.item_count is not None and order.item_count != len(pieces):
            raise Unknown
        return pieces

    def _back(self) -> list[str]:
        return [p for r in self.others if self._is_paid(r)
                for p in self._pieces(self._as_paid(r).items)]  # fmt: skip

    def _open(self) -> list[str]:
        last = {v.refund_id: v for v in self.asked}
        wanted = [r for r in self.others if self._is_open(r) or self._is_held_again(r)]
        return [p for r in wanted for p in self._pieces(last[r].items)]

    def _beyond(self, gone: list[str]) -> int:
        left, again = self._ordered(), 0
        for piece in gone:
            if piece in left:
                left.remove(piece)
        for piece in self._pieces(self.request.items):
            if piece in left:
                left.remove(piece)
            else:
                again += 1
        return again

    def refunded_again_piece_count(self) -> int:
        return self._beyond(self._back())

    def asked_twice_piece_count(self) -> int:
        return self._beyond(self._back() + self._open())

    def asked_worth_minor(self) -> int:
        order, asked = self._listed(), self._pieces(self.request.items)
        if order.currency != self.request.currency:
            raise Unknown
        for sku in asked:
            if sku not in [item.sku for item in order.items]:
                self._ordered()  # worth nothing, if that is all there was
        dearest: list[tuple[Fraction, str | None]] = []
        for item in order.items:
            n = 1 if item.quantity is None else item.quantity
            dearest += [(Fraction(item.amount_minor, n or 1), item.sku)] * n
        dearest.sort(key=lambda piece: piece[0], reverse=True)
        worth = Fraction(0)
        for sku in asked:
            found = next((piece for piece in dearest if piece[1] == sku), None)
            if found:
                dearest.remove(found)
                worth += found[0]
        return -(-worth.numerator // worth.denominator)

    def final_sale(self) -> bool:
        if self.request.final_sale:
            return True
        words: list[bool | None] = []
        for asked in self.request.items:
            versions = [[i.final_sale for i in o.items if i.sku == asked.sku and i.sku is not None
                         and i.final_sale is not None] for o in self.orders]  # fmt: skip
            words.append(next((any(said) for said in versions if said), None))
        if any(words):
            return True
        if words and None not in words:
            return False
        lines = [i.final_sale for i in self._listed().items] if any(
            o.items for o in self.orders) else []  # fmt: skip
        if any(i.final_sale for o in self.orders for i in o.items):
            if all(lines):
                return True
            raise Unknown
        if self.request.final_sale is not None:
            return False
        if not lines or None in lines:
            raise Unknown
        pieces = sum(1 if i.quantity is None else i.quantity for i in self._listed().items)
        if self._listed().item_count not in (None, pieces):
            raise Unknown
        return False

    def _delivered(self) -> list[int]:
        at = self.request.delivered_at
        return [at] if at is not None and at <= self.request.known_at else []

    def order_shipped(self) -> bool:
        statuses = [u.status for u in self.updates]
        if "SHIPPED" in statuses or "DELIVERED" in statuses or self._delivered():
            return True
        if not statuses:
            raise Unknown
        return False

    def asked_shipped_piece_count(self) -> int:
        if not self.order_shipped():
            return 0
        asked, ordered, back = map(
            Counter, (self._pieces(self.request.items), self._ordered(), self._back())
        )
        total = 0
        of_line = {item.line_id: item.sku for item in self._listed().items}
        for update in self.updates:
            if update.line_id and not update.sku and not of_line.get(update.line_id):
                raise Unknown  # whichever sku that was, it may be one that is asked for
        shipped = {sku: self._shipped(sku, n) for sku, n in ordered.items()}
        for sku, n in asked.items():
            unshipped_left = max(0, ordered[sku] - shipped.get(sku, 0) - back[sku])
            total += min(max(0, n - unshipped_left), shipped.get(sku, 0))
        return total

    def _shipped(self, sku: str, pieces: int) -> int:
        of_line = {item.line_id: item.sku for item in self._listed().items}
        whole, own = self._delivered(), []
        for update in self.updates:
            if update.sku is None and update.line_id is None:
                whole += [update.known_at] if update.status in ("SHIPPED", "DELIVERED") else []
            elif (update.sku or of_line[update.line_id or ""]) == sku:
                own.append(update)
        reached, cancelled = 0, 0
        for update in own:
            so_many = pieces if update.quantity is None else min(update.quantity, pieces)
            if update.status in ("SHIPPED", "DELIVERED"):
                reached = max(reached, so_many)
            if update.status == "CANCELLED":
                cancelled = max(cancelled, so_many)
        later = [u for u in own if u.status != "CANCELLED" and whole and u.known_at >= max(whole)]
        if whole and not later:
            return max(reached, pieces - cancelled)
        return reached

    # --- times and persons

    def order_cancelled_after_days(self) -> float:
        at = [u.known_at for u in self.updates if u.status == "CANCELLED"]
        said = [o.ordered_at for o in self.orders if o.ordered_at is not None]
        ordered_at = self.request.ordered_at if self.request.ordered_at is not None else (
            said[0] if said else None)  # fmt: skip
        if not at or ordered_at is None or at[0] < ordered_at:
            raise Unknown
        return (at[0] - ordered_at) / DAY_MS

    def _differs(self, column: str) -> bool:
        said = [getattr(o, column) for o in self.orders if getattr(o, column) is not None]
        own = getattr(self.request, column)
        if not said or own is None:
            raise Unknown
        return bool(said[0] != own)

    def order_customer_differs(self) -> bool:
        return self._differs("customer_id")

    def order_email_differs(self) -> bool:
        return self._differs("email")

    def order_address_differs(self) -> bool:
        return self._differs("address_id")
