"""The ledger of an order: equal to the naive one on any history, and what each fact is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings

from features import documents
from features.events import (
    Event,
    Order,
    OrderUpdate,
    RefundOutcome,
    RefundRequest,
    Transaction,
)
from features.folder import FolderEvents
from features.ledger import LEDGER, LEDGER_FACTS, Fact, Hold, order_ledger
from features.money import DAY_MS
from tests.features.ledgers import CUTOFF, START, histories, holds, naive, tables_of

History = tuple[RefundRequest, list[Event]]


# --- any history ---------------------------------------------------------------------------------


@settings(max_examples=150)
@given(history=histories(), held=holds())
def test_the_ledger_equals_the_naive_one(history: History, held: list[Hold]) -> None:
    request, events = history
    assert order_ledger(request, events) == naive(request, events)
    assert order_ledger(request, events, held) == naive(request, events, holds=held)


def test_the_histories_tell_something_of_every_fact() -> None:
    """Known and something, known and nothing, unknown: else equality would show little."""
    met: set[tuple[str, object]] = set()

    @settings(max_examples=400, derandomize=True, database=None)
    @given(history=histories(), held=holds())
    def meet(history: History, held: list[Hold]) -> None:
        for name, value in order_ledger(*history, held).items():
            met.add((name, "unknown" if value is None else bool(value)))

    meet()
    every = {(name, how) for name in LEDGER_FACTS for how in (True, False, "unknown")}
    assert every - met <= {("order_cancelled_after_days", False)}, "seldom: at the very instant"


@settings(max_examples=100)
@given(history=histories())
def test_nothing_is_added_up_over_a_crowded_order(history: History) -> None:
    request, events = history
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "MAX_EVENTS", 2)
        assert order_ledger(request, events) == naive(request, events, most=2)


@settings(max_examples=100)
@given(history=histories())
def test_what_is_later_and_what_is_its_own_is_not_seen(history: History) -> None:
    request, events = history
    seen = [
        event for event in events
        if event.known_at <= CUTOFF
        and not (event.known_at == CUTOFF and isinstance(event, RefundRequest | RefundOutcome))
        and not (isinstance(event, RefundRequest) and event.refund_id == request.refund_id)
    ]  # fmt: skip
    assert order_ledger(request, events) == order_ledger(request, seen)


@settings(max_examples=100)
@given(history=histories())
def test_a_folder_gives_back_what_an_order_needs(history: History) -> None:
    request, events = history
    folder = FolderEvents(tables_of(events))
    (again,) = [r for r in folder.requests() if r.event_id == request.event_id]
    assert again == request
    assert order_ledger(again, folder.of_order(again)) == order_ledger(request, events)


def test_every_fact_has_its_kind_and_says_what_it_is() -> None:
    assert all(fact.kind in ("double", "bool") and fact.says for fact in LEDGER.values())
    assert len({fact.says for fact in LEDGER.values()}) == len(LEDGER)


# --- what each is for ----------------------------------------------------------------------------


def asks(**changes: Any) -> RefundRequest:
    fields: dict[str, Any] = {
        "refund_id": "r0", "customer_id": "c1", "order_id": "o1", "known_at": CUTOFF,
        "amount_minor": 1_000, "currency": "GBP", "payment_method_id": "card",
        "items": [{"line_id": "1", "sku": "a", "quantity": 1}], **changes,
    }  # fmt: skip
    return RefundRequest(**fields)


def ordered(known_at: int = START, **changes: Any) -> Order:
    fields: dict[str, Any] = {
        "order_id": "o1", "customer_id": "c1", "amount_minor": 3_000, "currency": "GBP",
        "items": [{"line_id": "1", "sku": "a", "quantity": 2, "amount_minor": 2_000},
                  {"line_id": "2", "sku": "b", "quantity": 1, "amount_minor": 1_000}], **changes,
    }  # fmt: skip
    return Order(known_at=known_at, **fields)


def moved(name: str, kind: str, minor: int, known_at: int = START, **changes: Any) -> Transaction:
    fields: dict[str, Any] = {"order_id": "o1", "currency": "GBP", "payment_method_id": "card"}
    return Transaction(transaction_id=name, kind=kind, amount_minor=minor, known_at=known_at,
                       **{**fields, **changes})  # fmt: skip


def asked_before(refund_id: str, known_at: int = START + 1, **changes: Any) -> RefundRequest:
    return asks(refund_id=refund_id, known_at=known_at, **changes)


def outcome(refund_id: str, status: str, known_at: int = START + 2, **changes: Any) -> Event:
    return RefundOutcome(refund_id=refund_id, status=status, known_at=known_at, **changes)


def update(status: str, known_at: int = START + 1, **changes: Any) -> OrderUpdate:
    return OrderUpdate(order_id="o1", status=status, known_at=known_at, **changes)


def fact(name: str, *events: Event, request: RefundRequest | None = None) -> object:
    return order_ledger(request or asks(), events)[name]


PAID: Sequence[Event] = (ordered(), moved("t1", "CAPTURE", 3_000))
BACK: Sequence[Event] = (asked_before("r1"), outcome("r1", "COMPLETED"))


def test_a_request_without_an_order_has_no_ledger() -> None:
    assert set(order_ledger(asks(order_id=None), PAID).values()) == {None}


def test_a_transaction_counts_once_however_often_it_is_told() -> None:
    """As it was last told, and of the refund it named at first."""
    told = (
        moved("t1", "CAPTURE", 3_000, success=None),
        moved("t1", "CAPTURE", 3_000, START + 1, success=True),
        moved("t2", "CAPTURE", 500, success=None),
        moved("t2", "CAPTURE", 500, START + 1, success=False),
        asked_before("r1"), asked_before("r2"),
        moved("t3", "REFUND", 400, START + 2, refund_id="r1"),
        moved("t3", "REFUND", 400, START + 3, refund_id="r2"),
        outcome("r1", "COMPLETED", amount_minor=400),
    )  # fmt: skip
    assert fact("order_captured_minor", *told) == 3_000
    assert fact("order_paid_back_minor", *told) == 400


@pytest.mark.parametrize(
    ("voids", "captured"),
    [
        ([moved("t2", "VOID", 500)], 3_200),
        ([moved("t2", "VOID", 0)], 3_000),
        ([moved("t2", "VOID", 900)], 3_000),
        ([moved("t9", "VOID", 500)], None),
        ([moved("t9", "VOID", 500), moved("t2", "VOID", 0)], None),
        ([moved("t9", "VOID", 0)], None),
        ([moved("t9", "VOID", 500, success=False)], 3_700),
        ([moved("t2", "VOID", 500, currency="EUR")], None),
        ([moved("t9", "VOID", 500, currency="EUR")], None),
        # What never went through, and what was paid back, is not money that was captured.
        ([moved("t3", "CAPTURE", 900, success=False), moved("t3", "VOID", 900)], 3_700),
        ([moved("t3", "REFUND", 300), moved("t3", "VOID", 0)], 3_700),
    ],
)
def test_a_void_takes_back_what_was_captured(voids: list[Event], captured: int | None) -> None:
    told = (ordered(), moved("t1", "CAPTURE", 3_000), moved("t2", "CAPTURE", 700))
    assert fact("order_captured_minor", *told, *voids) == captured


def test_money_that_only_an_outcome_tells_of_went_back_all_the_same() -> None:
    assert fact("order_paid_back_minor", *PAID, *BACK) == 1_000
    less = outcome("r1", "COMPLETED", amount_minor=600)
    assert fact("order_paid_back_minor", *PAID, asked_before("r1"), less) == 600
    kept = asked_before("r1", non_refundable_minor=250)
    assert fact("order_paid_back_minor", *PAID, kept, outcome("r1", "COMPLETED")) == 750


def test_of_several_payments_told_of_a_refund_the_greatest_counts() -> None:
    """Since it last failed: what was paid before that came back."""

    def paid(*told: tuple[str, int | None]) -> Fact:
        return fact("order_paid_back_minor", *PAID, asked_before("r1"),
                    *(outcome("r1", status, START + 1 + n, amount_minor=amount)
                      for n, (status, amount) in enumerate(told)))  # fmt: skip

    assert paid(("COMPLETED", 600), ("COMPLETED", 300)) == 600
    assert paid(("COMPLETED", 300), ("COMPLETED", 600)) == 600
    assert paid(("COMPLETED", 300), ("COMPLETED", None)) == 1_000
    assert paid(("COMPLETED", 600), ("FAILED", None), ("COMPLETED", 300)) == 300
    assert paid(("COMPLETED", 600), ("FAILED", None)) == 0


def test_an_outcome_and_its_transaction_are_the_same_money() -> None:
    for named in ({"refund_id": "r1"}, {"refund_id": "r1", "order_id": None}, {}):
        paid = moved("t9", "REFUND", 1_000, START + 2, **named)
        assert fact("order_paid_back_minor", *PAID, *BACK, paid) == 1_000, named


def test_a_refund_is_paid_as_it_was_asked_for_then() -> None:
    """Asking for more afterwards does not change what was paid."""
    later = asked_before("r1", START + 3, amount_minor=9_000)
    assert fact("order_paid_back_minor", *PAID, *BACK, later) == 1_000
    failed = outcome("r1", "FAILED", START + 3)
    assert fact("order_paid_back_minor", *PAID, *BACK, failed) == 0


@pytest.mark.parametrize(
    ("status", "reserved"),
    [(None, 1_000), ("FAILED", 0), ("COMPLETED", 0), ("DECLINED", 0), ("CANCELED", 0)],
)
def test_an_open_refund_holds_what_it_asks_for(status: str | None, reserved: int) -> None:
    settled = [outcome("r1", status)] if status else []
    assert fact("order_reserved_minor", *PAID, asked_before("r1"), *settled) == reserved


def test_an_open_refund_holds_no_more_than_is_left_of_it() -> None:
    begun = moved("t9", "REFUND", 300, START + 2, refund_id="r1")
    assert fact("order_reserved_minor", *PAID, asked_before("r1"), begun) == 700
    assert fact("order_paid_back_minor", *PAID, asked_before("r1"), begun) == 300


def test_of_transactions_and_outcome_the_one_that_tells_more_is_believed() -> None:
    paid = moved("t9", "REFUND", 1_200, START + 2, refund_id="r1")
    assert fact("order_reserved_minor", *PAID, asked_before("r1"), paid) == 0
    assert fact("order_paid_back_minor", *PAID, *BACK, paid) == 1_200
    half = outcome("r1", "COMPLETED", amount_minor=600)
    other = (asked_before("r2"), outcome("r2", "COMPLETED", amount_minor=500))
    assert fact("order_paid_back_minor", *PAID, asked_before("r1"), half, paid, *other) == 1_700


def test_a_refund_decided_on_counts_by_what_is_held_for_it() -> None:
    """Of 30.00 captured: r1 was allowed 7.00, r2 is in review, r3 let go, r4 reported only."""
    asked = [asked_before(f"r{n}", amount_minor=1_000 + n) for n in range(1, 5)]
    held = [Hold("r1", 700, "GBP", True), Hold("r2", 900, "GBP", False),
            Hold("r3", 0, "EUR", False), Hold("r0", 800, "GBP", True)]  # fmt: skip

    def reserved_and_held(*more: Event, holds: Sequence[Hold] | None = held) -> tuple[Any, Any]:
        ledger = order_ledger(asks(), [*PAID, *asked, *more], holds)
        return ledger["order_reserved_minor"], ledger["order_held_minor"]

    assert reserved_and_held() == (700 + 1_004, 900)
    assert reserved_and_held(holds=[]) == (1_001 + 1_002 + 1_003 + 1_004, 0)
    assert reserved_and_held(holds=None) == reserved_and_held(holds=[])
    paid = [moved("t8", "REFUND", 300, refund_id="r1"), moved("t9", "REFUND", 950, refund_id="r2")]
    assert reserved_and_held(*paid) == (400 + 1_004, 0)
    assert reserved_and_held(holds=[*held, Hold("r5", 5, "EUR", False)]) == (1_704, None)
    assert reserved_and_held(holds=[*held, Hold("r5", 5, "EUR", True)]) == (None, 900)


def test_a_request_holds_nothing_against_itself() -> None:
    again = [asked_before("r0", START + n, amount_minor=900 + n) for n in range(3)]
    own = outcome("r0", "COMPLETED")
    assert fact("order_reserved_minor", *PAID, *again) == 0
    assert fact("refunded_again_piece_count", *PAID, *again, own) == 0
    # What went out for it did; of an outcome without an amount it is not known how much.
    paid = moved("t9", "REFUND", 800, refund_id="r0")
    assert fact("order_paid_back_minor", *PAID, *again, paid) == 800
    assert fact("order_paid_back_minor", *PAID, *again, own) is None


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("order_captured_minor", moved("t2", "CAPTURE", 5, currency="EUR")),
        ("order_paid_back_minor", moved("t2", "REFUND", 5, currency="EUR")),
        ("order_reserved_minor", asked_before("r1", currency="EUR")),
        ("tender_left_minor", moved("t2", "CAPTURE", 5, currency="EUR")),
    ],
)
def test_money_of_several_currencies_is_not_added_up(name: str, event: Event) -> None:
    assert fact(name, *PAID) is not None
    assert fact(name, *PAID, event) is None


def test_the_currency_is_that_of_the_order() -> None:
    in_euro = asks(currency="EUR")
    assert fact("order_captured_minor", *PAID, request=in_euro) == 3_000
    assert fact("order_captured_minor", *PAID[1:], request=in_euro) is None


def test_each_tender_gives_back_what_it_paid() -> None:
    split = (ordered(), moved("t1", "CAPTURE", 1_000),
             moved("t2", "CAPTURE", 2_000, payment_method_id="gift"))  # fmt: skip
    back = moved("t3", "REFUND", 400, START + 1)
    assert fact("tender_left_minor", *split, back) == 600
    assert fact("tender_left_minor", *split, back, request=asks(payment_method_id="gift")) == 2_000
    assert fact("tender_left_minor", *split, request=asks(payment_method_id="new")) == 0
    # Nobody says which tender got it: neither the transaction, nor an outcome alone.
    assert fact("tender_left_minor", *split, moved("t3", "REFUND", 4, payment_method_id=None)) \
        is None  # fmt: skip
    assert fact("tender_left_minor", *split, *BACK) is None
    assert fact("tender_left_minor", *split, request=asks(payment_method_id=None)) is None


def test_sums_that_a_double_would_not_hold_are_unknown() -> None:
    captures = [moved(f"t{n}", "CAPTURE", 10**15) for n in range(10)]
    assert fact("order_captured_minor", *captures[:9]) == 9 * 10**15
    assert fact("order_captured_minor", *captures) is None


def test_shipping_is_what_the_order_said_first() -> None:
    told = (ordered(), ordered(START + 1, shipping_minor=395, event_id="e2"),
            ordered(START + 2, shipping_minor=595, event_id="e3"))  # fmt: skip
    assert fact("order_shipping_minor", *told) == 395
    assert fact("order_shipping_minor", ordered()) is None


# --- goods


def pieces(*found: tuple[str | None, int | None]) -> list[dict[str, Any]]:
    return [{"line_id": str(n), "sku": sku, "quantity": q} for n, (sku, q) in enumerate(found)]


@pytest.mark.parametrize(
    ("asked", "again"),
    [
        (pieces(("a", 1)), 0),
        (pieces(("a", 2)), 1),
        (pieces(("a", 1), ("a", None)), 1),
        (pieces(("b", 1)), 0),
        (pieces(("z", 2)), 2),
        (pieces((None, 1)), None),
        ([], None),
    ],
)
def test_a_piece_that_was_paid_back_is_not_there_again(asked: Any, again: int | None) -> None:
    """Two of a and one of b were ordered, and one of a is paid back."""
    request = asks(items=asked)
    assert fact("refunded_again_piece_count", *PAID, *BACK, request=request) == again
    assert fact("asked_twice_piece_count", *PAID, *BACK, request=request) == again


def test_two_refunds_of_one_piece_are_seen_before_either_is_paid() -> None:
    request, other = asks(items=pieces(("b", 1))), asked_before("r1", items=pieces(("b", 1)))
    assert fact("refunded_again_piece_count", *PAID, other, request=request) == 0
    assert fact("asked_twice_piece_count", *PAID, other, request=request) == 1
    declined = outcome("r1", "DECLINED")
    assert fact("asked_twice_piece_count", *PAID, other, declined, request=request) == 0
    # Asked for again since, or tried again after it failed: its balance is held, and so are they.
    for held, count in ((500, 1), (0, 0)):
        hold = Hold("r1", held, "GBP", is_promised=True)
        ledger = order_ledger(request, [*PAID, other, declined], [hold])
        assert ledger["asked_twice_piece_count"] == count
    paid = [other, outcome("r1", "COMPLETED")]
    ledger = order_ledger(asks(items=pieces(("a", 1))), [*PAID, *paid], [hold])
    assert ledger["asked_twice_piece_count"] == 0


def test_pieces_are_unknown_where_any_lines_are() -> None:
    whole = (asked_before("r1", items=[]), outcome("r1", "COMPLETED"))
    assert fact("refunded_again_piece_count", *PAID, *whole) is None
    # A line without a price is left out of an order: its number of pieces tells.
    assert fact("refunded_again_piece_count", ordered(item_count=3)) == 0
    assert fact("refunded_again_piece_count", ordered(item_count=4)) is None
    assert fact("refunded_again_piece_count", ordered(items=[])) is None
    later = ordered(START + 1, event_id="e2")
    assert fact("refunded_again_piece_count", ordered(items=[]), later) == 0


@pytest.mark.parametrize(
    ("asked", "worth"),
    [
        (pieces(("a", 1)), 1_000),
        (pieces(("a", 2)), 2_000),
        (pieces(("a", 9)), 2_000),
        (pieces(("a", 1), ("a", 1), ("b", None)), 3_000),
        (pieces(("z", 1)), 0),
        (pieces((None, 1)), None),
        ([], None),
    ],
)
def test_pieces_are_worth_what_the_order_says(asked: Any, worth: int | None) -> None:
    """Two of a at 10.00 and one of b at 10.00, whatever the refund says they cost."""
    request = asks(items=[{**line, "amount_minor": 9_000} for line in asked])
    assert fact("asked_worth_minor", ordered(), request=request) == worth


def test_the_dearest_pieces_count_and_a_part_of_a_penny_is_rounded_up() -> None:
    lines = [{"line_id": "1", "sku": "a", "quantity": 3, "amount_minor": 1_000},
             {"line_id": "2", "sku": "a", "amount_minor": 500}]  # fmt: skip
    told = ordered(items=lines)
    for count, worth in ((1, 500), (2, 834), (3, 1_167), (4, 1_500)):
        request = asks(items=pieces(("a", count)))
        assert fact("asked_worth_minor", told, request=request) == worth
    # Another line may have had no price; another currency cannot be compared.
    assert fact("asked_worth_minor", ordered(item_count=4)) == 1_000
    unpriced = asks(items=pieces(("z", 1)))
    assert fact("asked_worth_minor", ordered(item_count=4), request=unpriced) is None
    assert fact("asked_worth_minor", ordered(), request=asks(currency="EUR")) is None
    assert fact("asked_worth_minor") is None


def sold(**finality: bool | None) -> list[dict[str, Any]]:
    return [{"line_id": sku, "sku": sku, "amount_minor": 5, "final_sale": final}
            for sku, final in finality.items()]  # fmt: skip


@pytest.mark.parametrize(
    ("of_order", "asked", "own", "final"),
    [
        # The order tells of what is asked for: the request's no does not count.
        (sold(a=True, b=False), ["a"], False, True),
        (sold(a=True, b=False), ["a", "b"], False, True),
        (sold(a=True, b=False), ["b"], None, False),
        (sold(a=False), ["a"], True, True),
        # Which line it is cannot be told: a no settles nothing, unless no line was final.
        (sold(a=True, b=False), [None], False, None),
        (sold(a=True, b=False), ["z"], False, None),
        (sold(a=True, b=False), [], False, None),
        (sold(a=True, b=True), [None], False, True),
        (sold(a=False, b=False), [None], None, False),
        (sold(a=False, b=False), [], None, False),
        (sold(a=False, b=None), [], None, None),
        # The order says nothing of it: the request does.
        (sold(a=None), ["a"], False, False),
        (sold(a=None), ["a"], None, None),
        ([], ["a"], None, None),
        ([], ["a"], False, False),
    ],
)
def test_what_was_sold_for_good_the_order_says(
    of_order: Any, asked: list[str | None], own: bool | None, final: bool | None
) -> None:
    request = asks(items=pieces(*((sku, 1) for sku in asked)), final_sale=own)
    assert fact("final_sale", ordered(items=of_order), request=request) is final


def test_what_the_order_said_first_stays_said() -> None:
    first, later = ordered(items=sold(a=True)), ordered(START + 1, items=sold(a=False))
    told = (first, later.model_copy(update={"event_id": "e2"}))
    assert fact("final_sale", *told, request=asks(final_sale=False)) is True
    partly = ordered(items=sold(a=False), item_count=2)
    assert fact("final_sale", partly, request=asks(items=[])) is None
    assert order_ledger(asks(order_id=None, final_sale=False), told)["final_sale"] is False


def test_a_thousand_versions_of_one_refund_hide_no_other() -> None:
    """Nor may a thousand versions of the order take the place of its first."""
    again = [asked_before("r2", START + 2, amount_minor=n, event_id=f"r2-{n:04}")
             for n in range(1, 1_002)]  # fmt: skip
    stolen = [ordered(START + 3, customer_id="thief", event_id=f"o-{n}") for n in range(1_001)]
    ledger = order_ledger(asks(), [*PAID, *BACK, *again, *stolen])
    assert ledger["order_paid_back_minor"] == 1_000
    assert ledger["order_reserved_minor"] == 1_001
    assert ledger["order_customer_differs"] is False


@pytest.mark.parametrize("crowd", [
    [asked_before(f"x{n}", amount_minor=1) for n in range(1_001)],
    [moved(f"x{n}", "CAPTURE", 1) for n in range(1_000)],
    [update("SHIPPED", delivered_at=START + n) for n in range(1_001)],
    [outcome("r1", "COMPLETED", event_id=f"x{n}") for n in range(1_000)],
])  # fmt: skip
def test_beyond_a_real_limit_sums_are_unknown_and_never_smaller(crowd: list[Event]) -> None:
    ledger = order_ledger(asks(), [*PAID, *BACK, *crowd])
    unknown = {name for name, value in ledger.items() if value is None}
    assert {"order_captured_minor", "order_paid_back_minor", "order_reserved_minor",
            "refunded_again_piece_count", "asked_twice_piece_count"} <= unknown  # fmt: skip
    assert ledger["order_customer_differs"] is False
    fewer = order_ledger(asks(), [*PAID, *BACK, *crowd[:-2]])
    assert fewer["order_captured_minor"] is not None


ALL = asks(items=pieces(("a", 2), ("b", 1)))


@pytest.mark.parametrize(
    ("events", "shipped", "asked_shipped"),
    [
        ([], None, None),
        ([update("ACCEPTED")], False, 0),
        ([update("CANCELLED")], False, 0),
        ([update("SHIPPED")], True, 3),
        ([update("DELIVERED")], True, 3),
        ([update("SHIPPED", sku="a")], True, 2),
        ([update("SHIPPED", line_id="2")], True, 1),
        ([update("SHIPPED", sku="a", quantity=1)], True, 1),
        ([update("SHIPPED", sku="a", quantity=1), update("DELIVERED", sku="a", quantity=1)],
         True, 1),
        ([update("SHIPPED", line_id="7")], True, None),
        # The order shipped, its lines say how far: told together, or later, the lines tell.
        ([update("SHIPPED"), update("SHIPPED", sku="a", quantity=1),
          update("ACCEPTED", sku="b", quantity=1)], True, 1),
        ([update("ACCEPTED", sku="b"), update("SHIPPED", START + 2)], True, 3),
        ([update("CANCELLED", sku="b"), update("SHIPPED", START + 2)], True, 2),
    ],
)  # fmt: skip
def test_what_shipped_is_told_from_what_did_not(
    events: list[Event], shipped: bool | None, asked_shipped: int | None
) -> None:
    assert fact("order_shipped", ordered(), *events, request=ALL) is shipped
    assert fact("asked_shipped_piece_count", ordered(), *events, request=ALL) == asked_shipped


def test_the_pieces_that_did_not_ship_are_asked_for_first() -> None:
    """One of two shipped: one may be refunded unseen, but only once."""
    told = (ordered(), update("SHIPPED", sku="a", quantity=1))
    assert fact("asked_shipped_piece_count", *told, request=asks(items=pieces(("a", 1)))) == 0
    assert fact("asked_shipped_piece_count", *told, request=asks(items=pieces(("a", 2)))) == 1
    once_more = asks(items=pieces(("a", 1)))
    assert fact("asked_shipped_piece_count", *told, *BACK, request=once_more) == 1


def test_a_time_of_delivery_in_the_request_is_a_delivery() -> None:
    assert fact("order_shipped", ordered(), request=asks(delivered_at=START)) is True
    assert fact("order_shipped", ordered(), request=asks(delivered_at=CUTOFF + 1)) is None


def test_what_the_order_says_with_the_request_is_read() -> None:
    brought = (ordered(CUTOFF, shipping_minor=395), update("SHIPPED", CUTOFF, sku="a"),
               moved("t1", "CAPTURE", 3_000, CUTOFF))  # fmt: skip
    ledger = order_ledger(ALL, brought)
    assert (ledger["order_shipping_minor"], ledger["order_captured_minor"]) == (395, 3_000)
    assert ledger["asked_shipped_piece_count"] == 2
    rivals = (asked_before("r1", CUTOFF), outcome("r2", "COMPLETED", CUTOFF))
    assert order_ledger(ALL, [*brought, *rivals]) == ledger


# --- times and persons


def test_a_subscription_is_cancelled_so_long_after_it_was_ordered() -> None:
    told = (ordered(ordered_at=CUTOFF - 3 * DAY_MS), update("CANCELLED", CUTOFF - 2 * DAY_MS),
            update("CANCELLED", CUTOFF - DAY_MS))  # fmt: skip
    assert fact("order_cancelled_after_days", *told) == 1.0
    sooner = asks(ordered_at=CUTOFF - 2 * DAY_MS - DAY_MS // 2)
    assert fact("order_cancelled_after_days", *told, request=sooner) == 0.5
    at_once = asks(ordered_at=CUTOFF - 2 * DAY_MS)
    assert fact("order_cancelled_after_days", *told, request=at_once) == 0
    assert fact("order_cancelled_after_days", *told, request=asks(ordered_at=CUTOFF)) is None
    assert fact("order_cancelled_after_days", *told[:1]) is None


@pytest.mark.parametrize(
    ("name", "column"),
    [("order_customer_differs", "customer_id"), ("order_email_differs", "email"),
     ("order_address_differs", "address_id")],
)  # fmt: skip
def test_who_asks_is_compared_with_who_ordered(name: str, column: str) -> None:
    order = ordered(START, **{column: "one"})
    later = ordered(START + 1, **{column: "other"}, event_id="e2")
    for said, differs in (("one", False), ("other", True)):
        assert fact(name, order, later, request=asks(**{column: said})) is differs
    assert fact(name, request=asks(**{column: "one"})) is None


def test_an_event_without_an_id_is_known_by_what_it_says() -> None:
    one = moved("t1", "CAPTURE", 3_000)
    assert one.event_id is None
    assert fact("order_captured_minor", one, one, moved("t1", "CAPTURE", 3_000, CUTOFF)) == 3_000
