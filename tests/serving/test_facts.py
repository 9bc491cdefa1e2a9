"""Facts: what a policy may read is what it gets, of its kind, and unknown where nobody tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from features.catalog import FEATURES, PLAN
from features.engine import Past
from features.events import Event, Order, OrderUpdate, RefundRequest, Transaction
from features.ledger import LEDGER_FACTS, order_ledger
from features.money import CURRENCIES, DAY_MS, Rates
from rules.policy import DECISION_FACTS
from serving.facts import FACTS, MEANING, facts_beside
from serving.scorer import feature_row, keys_of
from serving.store.store import Store

NOW = 1_780_000_000_000
RATES = Rates("GBP")
KINDS: Mapping[str, type] = {"double": float, "string": str, "bool": bool, "strings": tuple}


def facts_of(
    request: RefundRequest, row: Mapping[str, float], ledger: Any = None
) -> dict[str, Any]:
    return {**row, **facts_beside(request, row, ledger)}


REQUIRED = {"refund_id", "customer_id", "known_at", "amount_minor", "currency", "event_id"}

HONEST: Mapping[str, Any] = {
    "refund_id": "r-1", "customer_id": "c-1", "known_at": NOW, "amount_minor": 5000,
    "currency": "GBP", "order_id": "o-1", "non_refundable_minor": 0, "reason": "CHANGED_MIND",
    "claim": "FULL", "type": "REFUND", "initiated_by": "CUSTOMER",
    "issued_to": "ORIGINAL_PAYMENT_METHOD", "policy": "STATUTORY", "channel": "WEB",
    "item_count": 1, "ordered_at": NOW - 8 * DAY_MS, "registered_at": NOW - 900 * DAY_MS,
    "delivered_at": NOW - 5 * DAY_MS, "device_id": "d-1", "payment_method_id": "p-1",
    "address_id": "a-1", "ip": "192.0.2.1", "email": "a@example.com", "billing_country": "GB",
    "shipping_country": "GB", "final_sale": False, "ip_risk": 0.1,
    "payment_method_expires_at": NOW + DAY_MS,
    "items": [{"line_id": "1", "sku": "s-1", "category": "toys", "quantity": 1,
               "amount_minor": 5000}],
}  # fmt: skip
"""A request that says all that there is to say."""


def order(**changes: Any) -> Order:
    return Order(order_id="o-1", customer_id="c-1", known_at=NOW - 8 * DAY_MS, amount_minor=9000,
                 currency="GBP", shipping_minor=500, email="a@example.com", address_id="a-1",
                 items=[{"line_id": "1", "sku": "s-1", "quantity": 2, "amount_minor": 8500}],
                 **changes)  # fmt: skip


def captured(minor: int) -> Transaction:
    return Transaction(transaction_id="t-1", kind="CAPTURE", order_id="o-1", amount_minor=minor,
                       currency="GBP", known_at=NOW - 7 * DAY_MS,
                       payment_method_id="p-1")  # fmt: skip


KNOWN: tuple[Event, ...] = (order(), captured(9000))


@pytest.fixture
def past_of(tmp_path: Path) -> Iterator[Callable[..., Callable[[RefundRequest], Past]]]:
    """A store that holds some events, read as the service reads it."""
    opened: list[Store] = []

    def holding(*events: Event) -> Callable[[RefundRequest], Past]:
        path = tmp_path / f"{len(opened)}.db"
        store = Store.open(f"sqlite:///{path}", b"a secret of 16 bytes or more", clock="event")
        opened.append(store)
        with store.write() as tx:
            tx.append(events)

        def past(request: RefundRequest) -> Past:
            slices = store.read(keys_of(request), request.known_at, PLAN.reads)
            return Past(slices.rows, slices.pseudonyms, slices.first_seen)

        return past

    yield holding
    for store in opened:
        store.close()


def request_of(fields: Mapping[str, Any]) -> RefundRequest:
    return RefundRequest(**{name: value for name, value in fields.items() if value is not None})


# --- what a policy may read ----------------------------------------------------------------------


def test_the_default_policy_reads_facts_that_are_there(policy, complete):
    for loaded in (policy, complete):
        assert loaded.reads
        assert set(loaded.reads) <= FACTS.keys() | DECISION_FACTS.keys()


def test_every_fact_of_a_full_request_is_of_its_kind(past_of):
    request = request_of(HONEST)
    row = feature_row(request, past_of(*KNOWN)(request), RATES)
    updates = [OrderUpdate(order_id="o-1", status=status, known_at=NOW - DAY_MS)
               for status in ("SHIPPED", "CANCELLED")]  # fmt: skip
    facts = facts_of(request, row, order_ledger(request, [*KNOWN, *updates]))
    assert FACTS.keys() <= facts.keys()
    for name, kind in FACTS.items():
        assert type(facts[name]) is KINDS[kind], name


def test_every_fact_of_an_empty_request_is_of_its_kind_or_unknown(past_of):
    bare = request_of({name: HONEST[name] for name in REQUIRED if name in HONEST})
    facts = facts_of(bare, feature_row(bare, past_of()(bare), RATES))
    for name, kind in FACTS.items():
        assert facts[name] is None or type(facts[name]) is KINDS[kind], name


def test_what_was_not_sent_is_unknown_and_not_zero(past_of):
    bare = request_of({name: HONEST[name] for name in REQUIRED if name in HONEST})
    facts = facts_of(bare, feature_row(bare, past_of()(bare), RATES))
    for name in ("refund_reason", "refund_type", "refund_policy", "final_sale", "order_currency",
                 "shipping_country", "payment_method_expired", "item_categories",
                 "asked_lines_minor", *LEDGER_FACTS):  # fmt: skip
        assert facts[name] is None
    for name in ("delivered_age_days", "refund_count_by_device_7d",
                 "open_chargeback_count_by_order_365d"):  # fmt: skip
        assert math.isnan(facts[name])
    assert facts["refund_count_by_customer_30d"] == 0


@pytest.mark.parametrize(
    ("lines", "categories"),
    [
        ([], None),
        (["toys"], ("toys",)),
        (["toys", "Shoes", "toys"], ("toys", "Shoes")),
        (["toys", None], None),
        ([None], None),
    ],
)
def test_a_list_of_the_lines_is_whole_or_unknown(
    lines: list[str | None], categories: tuple[str, ...] | None, plain_row: dict[str, float]
) -> None:
    """A line that keeps its category to itself does not hide behind the others."""
    items = [{"line_id": str(n), "category": said, "sku": said} for n, said in enumerate(lines)]
    facts = facts_of(request_of({**HONEST, "items": items}), plain_row)
    assert (facts["item_categories"], facts["item_skus"]) == (categories, categories)


@pytest.mark.parametrize(
    ("own", "lines", "reasons"),
    [
        ("OTHER", [], ("OTHER",)),
        (None, [], None),
        ("OTHER", [None, None], ("OTHER",)),
        ("OTHER", ["EMPTY_BOX", "CHANGED_MIND", "EMPTY_BOX"], ("EMPTY_BOX", "CHANGED_MIND")),
        ("OTHER", ["EMPTY_BOX", None], None),
        ("OTHER", ["EMPTY_BOX", "BORED"], None),
        ("BORED", [None], None),
    ],
)
def test_the_lines_reasons_are_all_told_or_unknown(
    own: str | None, lines: list[str | None], reasons: tuple[str, ...] | None,
    plain_row: dict[str, float],
) -> None:  # fmt: skip
    items = [{"line_id": str(n), **({"reason": said} if said else {})}
             for n, said in enumerate(lines)]  # fmt: skip
    facts = facts_of(request_of({**HONEST, "reason": own, "items": items}), plain_row)
    assert facts["item_reasons"] == reasons


@pytest.mark.parametrize(
    ("fact", "column", "odd"),
    [("refund_reason", "reason", "BORED"), ("refund_type", "type", "INSTANT_REFUND"),
     ("refund_policy", "policy", "GOOD_WILL"), ("claim", "claim", "HALF"),
     ("initiated_by", "initiated_by", "BOT"), ("issued_to", "issued_to", "CASH")],
)  # fmt: skip
def test_a_word_of_no_list_is_unknown_to_a_policy(
    fact: str, column: str, odd: str, plain_row: dict[str, float]
) -> None:
    """Spelled otherwise it must not pass a rule that leaving it out does not pass."""
    request = request_of({**HONEST, column: odd})
    assert getattr(request, column) == odd, "the event keeps it"
    assert facts_of(request, plain_row)[fact] is None
    assert facts_of(request_of(HONEST), plain_row)[fact] == HONEST[column]
    assert facts_of(request_of({**HONEST, "channel": odd}), plain_row)["channel"] == odd


def test_what_the_order_says_of_final_sale_stands_above_the_request(
    plain_row: dict[str, float],
) -> None:
    request = request_of(HONEST)
    assert facts_of(request, plain_row)["final_sale"] is False
    assert facts_of(request, plain_row, {"final_sale": True})["final_sale"] is True
    assert facts_of(request, plain_row, {"final_sale": None})["final_sale"] is None
    assert facts_of(request, plain_row, {"order_reserved_minor": 0.0})["final_sale"] is False


@pytest.mark.parametrize(("last", "expired"), [(-1, True), (0, False), (1, False)])
def test_a_payment_method_is_valid_to_its_last_instant(
    last: int, expired: bool, plain_row: dict[str, float]
) -> None:
    request = request_of({**HONEST, "payment_method_expires_at": NOW + last})
    assert facts_of(request, plain_row)["payment_method_expired"] is expired


def test_what_lines_are_worth_is_exact_or_unknown(plain_row: dict[str, float]) -> None:
    def worth(*minor: int | None) -> object:
        items = [{"line_id": str(n), "amount_minor": m} for n, m in enumerate(minor)]
        return facts_of(request_of({**HONEST, "items": items}), plain_row)["asked_lines_minor"]

    assert worth(4250, 1) == 4251
    assert worth(4250, None) is None
    assert worth(*[10**15] * 9) == 9 * 10**15
    assert worth(*[10**15] * 10) is None, "a double would not hold each such number"


def test_each_fact_of_the_ledger_reaches_the_policy(plain_row: dict[str, float]) -> None:
    request = request_of(HONEST)
    ledger = order_ledger(request, KNOWN)
    facts = facts_of(request, plain_row, ledger)
    assert {name: facts[name] for name in LEDGER_FACTS} == ledger
    part = facts_of(request, plain_row, {"order_reserved_minor": 5.0})
    assert part["order_reserved_minor"] == 5.0
    assert part["order_captured_minor"] is None


def test_every_fact_that_a_condition_may_read_says_what_it_is() -> None:
    assert MEANING.keys() == FACTS.keys() | DECISION_FACTS.keys()
    assert not FACTS.keys() & DECISION_FACTS.keys()
    for name, kind in {**FACTS, **DECISION_FACTS}.items():
        assert MEANING[name].kind == kind, name
    assert all(meaning.unit and meaning.says for meaning in MEANING.values())
    assert not [name for name, meaning in MEANING.items() if "{" in meaning.says]


def test_codes_are_words_to_a_policy():
    coded = [feature.name for feature in FEATURES if feature.unit == "code"]
    assert coded
    assert {FACTS.get(name, "string") for name in coded} == {"string"}


@pytest.mark.parametrize("currency", ["GBP", "JPY", CURRENCIES[0], CURRENCIES[-1]])
def test_the_currency_of_the_order_is_its_own_word(past_of, currency):
    known = Order(order_id="o-1", customer_id="c-1", known_at=NOW - DAY_MS, amount_minor=9,
                  currency=currency)  # fmt: skip
    request = request_of(HONEST)
    facts = facts_of(request, feature_row(request, past_of(known)(request), RATES))
    assert facts["order_currency"] == currency


def test_a_currency_outside_the_list_is_unknown(past_of):
    known = Order(order_id="o-1", customer_id="c-1", known_at=NOW - DAY_MS, amount_minor=9,
                  currency="XXZ")  # fmt: skip
    request = request_of(HONEST)
    facts = facts_of(request, feature_row(request, past_of(known)(request), RATES))
    assert facts["order_currency"] is None


def test_amounts_are_in_the_requests_own_currency(plain_row):
    request = request_of({**HONEST, "amount_minor": 5000, "non_refundable_minor": 750})
    facts = facts_of(request, plain_row)
    assert (facts["amount_minor"], facts["nonrefundable_minor"], facts["asked_minor"]) == (
        5000.0, 750.0, 4250.0,
    )  # fmt: skip


def test_an_order_is_known_from_history_or_from_the_request(past_of, plain_row):
    strange = {**HONEST, "order_id": "o-other"}
    past = past_of(*KNOWN)
    for fields, known in (
        (HONEST, True),
        (strange, False),
        ({**strange, "order_amount_minor": 9000}, True),
        ({**HONEST, "order_id": None}, False),
    ):
        request = request_of(fields)
        facts = facts_of(request, feature_row(request, past(request), RATES))
        assert facts["order_known"] is known
