"""Facts: what a policy may read is what it gets, and leaving a field out is no way past a rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from features.catalog import FEATURES, PLAN
from features.engine import Past
from features.events import Dispute, Event, Order, RefundOutcome, RefundRequest, Transaction
from features.money import CURRENCIES, DAY_MS, Rates
from rules.decision import Action, Decision, Mode, Source, Stage
from rules.engine import ListMatch, Score, decide
from rules.policy import DECISION_FACTS, Policy
from serving.facts import FACTS, facts_of
from serving.scorer import feature_row, keys_of
from serving.store.store import Store

NOW = 1_780_000_000_000
RATES = Rates("GBP")
SAFE = Score(probability=0.01, expected_loss_minor=50.0)
KINDS: Mapping[str, type] = {"double": float, "string": str, "bool": bool}

REQUIRED = {"refund_id", "customer_id", "known_at", "amount_minor", "currency", "event_id"}
OPTIONAL = tuple(name for name in RefundRequest.model_fields if name not in REQUIRED)

HONEST: Mapping[str, Any] = {
    "refund_id": "r-1", "customer_id": "c-1", "known_at": NOW, "amount_minor": 5000,
    "currency": "GBP", "order_id": "o-1", "non_refundable_minor": 0, "reason": "CHANGED_MIND",
    "claim": "FULL", "type": "REFUND", "initiated_by": "CUSTOMER",
    "issued_to": "ORIGINAL_PAYMENT_METHOD", "policy": "STATUTORY", "channel": "WEB",
    "item_count": 1, "ordered_at": NOW - 8 * DAY_MS, "registered_at": NOW - 900 * DAY_MS,
    "delivered_at": NOW - 5 * DAY_MS, "device_id": "d-1", "payment_method_id": "p-1",
    "address_id": "a-1", "ip": "192.0.2.1", "email": "a@example.com", "billing_country": "GB",
    "shipping_country": "GB", "final_sale": False, "ip_risk": 0.1,
}  # fmt: skip
"""A request that no rule of the default policy has anything against."""


def order(**changes: Any) -> Order:
    return Order(order_id="o-1", customer_id="c-1", known_at=NOW - 8 * DAY_MS, amount_minor=9000,
                 currency="GBP", **changes)  # fmt: skip


def captured(minor: int) -> Transaction:
    return Transaction(transaction_id="t-1", kind="CAPTURE", order_id="o-1", amount_minor=minor,
                       currency="GBP", known_at=NOW - 7 * DAY_MS)  # fmt: skip


def goodwill(number: int) -> RefundRequest:
    return RefundRequest(refund_id=f"g-{number}", customer_id="c-1", amount_minor=100,
                         currency="GBP", type="GOODWILL", known_at=NOW - (50 + number) * DAY_MS,
                         )  # fmt: skip


KNOWN: tuple[Event, ...] = (order(), captured(9000))

HOSTILE: Mapping[str, tuple[Mapping[str, Any], tuple[Event, ...]]] = {
    "refund_already_completed": (
        {}, (*KNOWN, RefundOutcome(refund_id="r-1", status="COMPLETED", known_at=NOW - DAY_MS))
    ),
    "amount_above_captured": ({}, (order(), captured(4000))),
    "order_in_other_currency": ({"currency": "EUR"}, KNOWN),
    "order_unknown": ({}, ()),
    "outside_return_window": (
        {"ordered_at": NOW - 35 * DAY_MS, "delivered_at": NOW - 31 * DAY_MS}, KNOWN
    ),
    "return_window_unproven": ({"ordered_at": NOW - 35 * DAY_MS, "delivered_at": None}, KNOWN),
    "final_sale": ({"final_sale": True}, KNOWN),
    "open_chargeback_on_order": (
        {},
        (*KNOWN, Dispute(dispute_id="x-1", order_id="o-1", stage="CHARGEBACK",
                         known_at=NOW - DAY_MS)),
    ),
    "goodwill_limit": ({"type": "GOODWILL"}, (*KNOWN, *map(goodwill, range(3)))),
    "return_not_received": ({"type": "RETURN"}, KNOWN),
}  # fmt: skip
"""Per hard rule: what the hostile request changes on the honest one, and what is known of it."""


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


def decided(fields: Mapping[str, Any], past: Any, policy: Policy) -> Decision:
    request = request_of(fields)
    facts = facts_of(request, feature_row(request, past(request), RATES))
    return decide(facts, SAFE, policy, ListMatch())


# --- what a policy may read ----------------------------------------------------------------------


def test_the_default_policy_reads_facts_that_are_there(policy, complete):
    for loaded in (policy, complete):
        assert loaded.reads
        assert set(loaded.reads) <= FACTS.keys() | DECISION_FACTS.keys()


def test_every_fact_of_a_full_request_is_of_its_kind(past_of):
    request = request_of(HONEST)
    facts = facts_of(request, feature_row(request, past_of(*KNOWN)(request), RATES))
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
    for name in ("refund_reason", "refund_type", "refund_policy", "final_sale", "order_currency"):
        assert facts[name] is None
    for name in ("delivered_age_days", "refund_count_by_device_7d",
                 "open_chargeback_count_by_order_365d"):  # fmt: skip
        assert math.isnan(facts[name])
    assert facts["refund_count_by_customer_30d"] == 0


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


# --- leaving fields out --------------------------------------------------------------------------


def test_the_honest_request_is_allowed(past_of, policy, complete):
    for loaded in (policy, complete):
        decision = decided(HONEST, past_of(*KNOWN), loaded)
        assert (decision.action, decision.source) == (Action.ALLOW, Source.MODEL)


def test_every_hard_rule_has_its_hostile_request(complete):
    hard = {rule.hit.rule_id for rule in complete.rules if rule.hit.stage is Stage.HARD}
    assert hard == set(HOSTILE)


@pytest.mark.parametrize("rule_id", HOSTILE)
def test_a_hostile_request_is_held_by_its_rule(rule_id, past_of, complete):
    changes, events = HOSTILE[rule_id]
    decision = decided({**HONEST, **changes}, past_of(*events), complete)
    acting = {rule.rule_id for rule in (*decision.hits, *decision.unknowns)}
    assert rule_id in acting
    assert decision.source is Source.RULE
    assert decision.action > Action.ALLOW


@pytest.mark.parametrize("rule_id", HOSTILE)
def test_leaving_fields_out_does_not_get_a_hostile_request_paid(rule_id, past_of, policy, complete):
    changes, events = HOSTILE[rule_id]
    hostile, past = {**HONEST, **changes}, past_of(*events)
    live = {rule.hit.rule_id: rule.hit.mode is Mode.LIVE for rule in policy.rules}
    held_by = [complete, policy] if live[rule_id] else [complete]
    given = [name for name in OPTIONAL if hostile.get(name) is not None]
    # Those that a hard rule reads, in pairs as well.
    read = [name for name in given if name in
            ("order_id", "reason", "type", "policy", "ordered_at", "delivered_at", "final_sale",
             "non_refundable_minor")]  # fmt: skip
    for dropped in (*combinations(given, 1), *combinations(read, 2)):
        left = {name: value for name, value in hostile.items() if name not in dropped}
        for loaded in held_by:
            decision = decided(left, past, loaded)
            assert decision.action >= Action.MANUAL_REVIEW, dropped
            assert decision.reasons, dropped
