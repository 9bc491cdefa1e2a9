"""The policy we ship: what it holds, and that leaving a field out is no way past it."""

from itertools import combinations

import pytest

from rules.decision import FACT_MISSING, Action, Decision, Mode, Source, Stage
from rules.engine import Circumstances, ListHit, ListMatch, Score, decide
from rules.policy import Policy

SAFE = Score(probability=0.01, expected_loss_minor=50.0)
NO_LISTS = Circumstances()
ALLOWED = Circumstances(ListMatch(allow=(ListHit("customer", "a friend of the house"),)))

# One hostile request per hard rule: what it changes on the honest one.
HOSTILE = {
    "refund_already_completed": {"refund_completed_count_by_refund_365d": 1.0},
    "amount_above_captured": {"amount_minor": 6000.0},
    "order_in_other_currency": {"currency": "EUR"},
    "order_unknown": {"order_known": False},
    "outside_return_window": {"delivered_age_days": 31.0, "ordered_age_days": 35.0},
    "return_window_unproven": {"delivered_age_days": None, "ordered_age_days": 35.0},
    "final_sale": {"final_sale": True},
    "open_chargeback_on_order": {"open_chargeback_count_by_order_365d": 1.0},
    "goodwill_limit": {"goodwill_count_by_customer_365d": 3.0, "refund_type": "GOODWILL"},
    "return_not_received": {
        "return_received_count_by_order_365d": 0.0,
        "order_count_by_customer_365d": 2.0,
    },
}


def decided(facts, policy: Policy, lists: Circumstances = NO_LISTS) -> Decision:
    return decide(facts, SAFE, policy, lists)


def test_the_honest_request_is_allowed_by_the_model(honest, complete):
    decision = decided(honest, complete)
    assert (decision.action, decision.source) == (Action.ALLOW, Source.MODEL)
    assert decision.hits == decision.unknowns == ()


def test_every_hard_rule_has_its_hostile_request(complete):
    hard = {rule.hit.rule_id for rule in complete.rules if rule.hit.stage is Stage.HARD}
    assert hard == set(HOSTILE)


@pytest.mark.parametrize("rule_id", HOSTILE)
def test_a_hostile_request_is_stopped_by_its_rule(rule_id, honest, complete):
    decision = decided(honest | HOSTILE[rule_id], complete)
    acting = {rule.rule_id: rule for rule in (*decision.hits, *decision.unknowns)}
    assert decision.action is acting[rule_id].calls_for
    assert decision.source is Source.RULE
    assert acting[rule_id].reason in decision.reasons


@pytest.mark.parametrize("rule_id", HOSTILE)
@pytest.mark.parametrize("lists", [NO_LISTS, ALLOWED])
def test_leaving_fields_out_is_no_way_past_a_hard_rule(rule_id, lists, honest, complete):
    hostile = honest | HOSTILE[rule_id]
    for size in (1, 2):
        for dropped in combinations(hostile, size):
            left = {name: value for name, value in hostile.items() if name not in dropped}
            decision = decided(left, complete, lists)
            assert decision.action >= Action.MANUAL_REVIEW, dropped
            assert decision.reasons, dropped


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"payable_minor": 20_001.0}, "AMOUNT_OVER_AUTO_APPROVE_LIMIT"),
        ({"payable_minor": None}, FACT_MISSING),
        ({"refund_count_by_customer_30d": 3.0}, "REFUND_VELOCITY_HIGH"),
        (
            {
                "refund_count_by_customer_90d": 4.0,
                "item_not_received_share_by_customer_365d": 0.7,
            },
            "FREQUENT_ITEM_NOT_RECEIVED",
        ),
    ],
)
def test_risk_rules_hold_for_review(changes, reason, honest, complete):
    decision = decided(honest | changes, complete)
    assert (decision.action, decision.source) == (Action.MANUAL_REVIEW, Source.RULE)
    assert decision.reasons == (reason,)


def test_rules_on_orders_only_watch_until_orders_are_complete(honest, default, complete):
    stranger = honest | {"order_known": False, "amount_minor": 90_000.0, "currency": "EUR"}
    assert decided(stranger, default).action is Action.ALLOW
    watched = {rule.rule_id: rule.mode for rule in decided(stranger, default).hits}
    assert watched == {"order_in_other_currency": Mode.SHADOW, "order_unknown": Mode.SHADOW}
    assert decided(stranger, complete).reasons == ("ORDER_UNKNOWN",)


def test_the_fourth_goodwill_refund_of_a_year_is_one_too_many(honest, default):
    goodwill = honest | {"refund_type": "GOODWILL"}
    third = decided(goodwill | {"goodwill_count_by_customer_365d": 2.0}, default)
    fourth = decided(goodwill | {"goodwill_count_by_customer_365d": 3.0}, default)
    assert third.action is Action.ALLOW
    assert (fourth.action, fourth.reasons) == (Action.PREVENT, ("GOODWILL_LIMIT_EXCEEDED",))


@pytest.mark.parametrize("age_days", [0.0, 30.0])
def test_a_young_order_proves_the_return_window(age_days, honest, default):
    undelivered = honest | {"delivered_age_days": None, "ordered_age_days": age_days}
    assert decided(undelivered, default).action is Action.ALLOW


@pytest.mark.parametrize(
    ("score", "action"),
    [
        (Score(0.05, 60.0), Action.ALLOW),
        (Score(0.6, 750.0), Action.MANUAL_REVIEW),
        (Score(0.9, 2500.0), Action.PREVENT),
    ],
)
def test_the_reference_request_of_an_unknown_customer_gets_its_band(score, action, default):
    """Nothing is known but the request itself; the counts are 0, since the ids are known."""
    counts = [name for name in default.reads if "_count_" in name]
    facts = {
        **dict.fromkeys(counts, 0.0),
        "captured_minor_sum_by_order_365d": 0.0,
        "refunded_minor_sum_by_order_365d": 0.0,
        "amount_minor": 1000.0,
        "nonrefundable_minor": 250.0,
        "payable_minor": 750.0,
        "currency": "GBP",
        "refund_reason": "ITEM_NOT_RECEIVED",
        "refund_type": "REFUND",
        "refund_policy": "TERMS_AND_CONDITIONS",
        "claim": "FULL",
        "initiated_by": "CUSTOMER",
        "issued_to": "ORIGINAL_PAYMENT_METHOD",
        "order_known": False,
    }
    decision = decide(facts, score, default)
    assert (decision.action, decision.source) == (action, Source.MODEL)
    assert all(rule.mode is Mode.SHADOW for rule in decision.unknowns)
