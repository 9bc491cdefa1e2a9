"""The checks of the policy we ship: money, windows, what is owed, follow-ups, lists and limits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.events import ENTITIES
from rules.decision import Action, FollowUpCode, Source
from rules.engine import ListHit, ListMatch, Score
from rules.policy import Policy
from serving.facts import FACTS
from tests.rules.default import (
    ALLOW,
    HOSTILE,
    PREVENT,
    REVIEW,
    TEXT,
    decided,
    hits,
    loaded,
)  # fmt: skip


@pytest.fixture(scope="module")
def default() -> Policy:
    return loaded(orders_complete=False)


@pytest.fixture(scope="module")
def complete() -> Policy:
    return loaded(orders_complete=True)


# --- money is exact ------------------------------------------------------------------------------

_minor = st.integers(0, 2**50)


@given(_minor, _minor, _minor, st.integers(-3, 3))
def test_amounts_are_compared_to_the_minor_unit(captured, paid_back, reserved, more):
    left = captured - paid_back - reserved
    asked = max(0, left + more)
    decision = decided(
        {"order_captured_minor": float(captured), "order_paid_back_minor": float(paid_back),
         "order_reserved_minor": float(reserved), "asked_minor": float(asked)},
        loaded(orders_complete=True),
    )  # fmt: skip
    assert ("amount_above_captured" in hits(decision)) == (asked > left)
    follow_up = decision.follow_up
    if "amount_above_captured" in hits(decision) and 0 < left < asked:
        assert follow_up is not None
        assert (follow_up.code, follow_up.amount_minor) == (FollowUpCode.PARTIAL_AMOUNT, left)


def test_of_two_refunds_that_race_the_second_finds_its_money_reserved(complete):
    first = decided({}, complete)
    second = decided({"order_reserved_minor": 5000.0}, complete)
    assert (first.action, second.action) == (ALLOW, PREVENT)
    assert second.reasons == ("AMOUNT_ABOVE_CAPTURED",)


def test_what_only_waits_for_a_person_refuses_nobody(complete):
    """A stranger's request that is in review leaves the order's owner a review, not a refusal."""
    waiting = decided({"order_held_minor": 5000.0}, complete)
    assert (waiting.action, waiting.reasons) == (REVIEW, ("AMOUNT_ABOVE_CAPTURED",))
    assert waiting.follow_up is not None
    assert waiting.follow_up.amount_minor == 9000 - 3000 - 5000
    promised = decided({"order_held_minor": 5000.0, "order_reserved_minor": 5000.0}, complete)
    assert promised.action is PREVENT
    assert decided({"order_held_minor": 1000.0}, complete).action is ALLOW


def test_pieces_are_worth_the_less_that_request_and_order_say(complete):
    """A cheap line priced dear in the request, to get the money of one sold for good."""
    for told in ({"asked_worth_minor": 100.0}, {"asked_lines_minor": 100.0}):
        decision = decided(told, complete)
        assert (decision.action, decision.reasons) == (REVIEW, ("AMOUNT_ABOVE_LINES",))
        assert decision.follow_up is not None
        assert decision.follow_up.amount_minor == 100
    shipping = {"asked_lines_minor": 4500.0, "asked_worth_minor": 4500.0}
    assert decided(shipping, complete).action is ALLOW
    assert decided({"asked_worth_minor": None}, complete).action is REVIEW


# --- the window, by category and region ----------------------------------------------------------

EU_AND_UK = frozenset((
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT",
    "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK", "IS", "LI", "NO", "GB",
))  # fmt: skip
_OF_FAULT = ("MISSING_ITEM", "EMPTY_BOX", "ITEM_DAMAGED", "NOT_AS_DESCRIBED", "WRONG_ITEM_SENT")


def _window_says(reason: str, category: str, country: str, days: float) -> Action:
    """The window, said again in plain words."""
    if reason == "ITEM_NOT_RECEIVED":
        return ALLOW
    if reason in _OF_FAULT:
        return REVIEW if days > 30 else ALLOW
    short = category == "electronics" or (category == "beauty" and country not in EU_AND_UK)
    return PREVENT if days > (14 if short else 30) else ALLOW


@pytest.mark.parametrize("country", ["GB", "DE", "US", "AU"])
@pytest.mark.parametrize("category", ["electronics", "beauty", "toys"])
def test_the_return_window_is_by_category_and_region(category, country, default):
    for reason in ("CHANGED_MIND", "OTHER", "LATE_DELIVERY", "ITEM_NOT_RECEIVED", *_OF_FAULT):
        for days in (0.0, 14.0, 14.01, 30.0, 30.01, 400.0):
            decision = decided(
                {"refund_reason": reason, "item_categories": (category,), "payable_minor": 9000.0,
                 "shipping_country": country, "delivered_age_days": days,
                 "ordered_age_days": days + 2},
                default,
            )  # fmt: skip
            told = (reason, days)
            assert decision.action is _window_says(reason, category, country, days), told


def test_nobody_in_the_eu_or_uk_has_less_than_the_statutory_14_days(default):
    for country in EU_AND_UK:
        for category in ("electronics", "beauty", "toys"):
            withdrawal = {"item_categories": (category,), "shipping_country": country,
                          "delivered_age_days": 14.0, "ordered_age_days": 20.0,
                          "payable_minor": 9000.0}  # fmt: skip
            assert decided(withdrawal, default).action is ALLOW, (country, category)


def test_the_regions_are_the_same_wherever_they_are_listed():
    lists = re.findall(r"shipping_country in \[([^\]]*)\]", TEXT)
    assert len(lists) == 2
    for listed in lists:
        assert frozenset(re.findall(r'"(\w\w)"', listed)) == EU_AND_UK


@pytest.mark.parametrize("age_days", [0.0, 30.0])
def test_a_young_order_proves_the_return_window(age_days, default):
    undelivered = {"delivered_age_days": None, "ordered_age_days": age_days, "payable_minor": 900.0}
    assert decided(undelivered, default).action is ALLOW


# --- what is owed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "action", "offered"),
    [
        ({"shipping_country": "US"}, REVIEW, 5500),
        ({"shipping_country": "GB", "delivered_age_days": 14.0}, ALLOW, None),
        ({"shipping_country": "GB", "delivered_age_days": 14.01}, REVIEW, 5500),
        ({"shipping_country": "US", "refund_reason": "ITEM_DAMAGED"}, ALLOW, None),
        ({"shipping_country": "US", "asked_minor": 5500.0}, ALLOW, None),
        # Within 14 days of delivery, and nobody tells where: unsettled, so nothing is offered.
        ({"shipping_country": None}, REVIEW, None),
    ],
)
def test_shipping_fees_go_back_where_the_merchant_erred_or_the_law_says_so(
    changes, action, offered, complete
):
    """Of 90.00 captured, 30.00 went back and 5.00 were for shipping: 55.00 of goods are left."""
    whole = {"asked_minor": 6000.0, "ordered_age_days": 20.0, **changes}
    decision = decided(whole, complete)
    assert decision.action is action
    assert (decision.follow_up and decision.follow_up.amount_minor) == offered


@pytest.mark.parametrize(
    ("days", "action"),
    [(0.0, ALLOW), (1.0, ALLOW), (1.0001, PREVENT), (None, REVIEW)],
)
def test_a_subscription_is_refunded_when_cancelled_within_24_hours(days, action, default):
    cancelled = {"refund_reason": "SUBSCRIPTION_CANCELLED", "order_cancelled_after_days": days}
    assert decided(cancelled, default).action is action


def test_the_fourth_goodwill_refund_of_a_year_is_one_too_many(default):
    goodwill = {"refund_type": "GOODWILL"}
    third = decided({**goodwill, "goodwill_count_by_customer_365d": 2.0}, default)
    fourth = decided({**goodwill, "goodwill_count_by_customer_365d": 3.0}, default)
    assert third.action is ALLOW
    assert (fourth.action, fourth.reasons) == (PREVENT, ("GOODWILL_LIMIT_EXCEEDED",))


@pytest.mark.parametrize(
    ("payable_minor", "orders", "account_days", "against", "action"),
    [
        (20_000.0, 2.0, None, {}, ALLOW),
        (20_000.0, 0.0, 30.0, {}, ALLOW),
        (5_000.0, 0.0, 0.0, {}, ALLOW),
        (5_001.0, 1.0, 29.9, {}, REVIEW),
        (5_001.0, 1.0, None, {}, REVIEW),
        (100.0, 9.0, 900.0, {"chargeback_count_by_customer_365d": 1.0}, REVIEW),
        (100.0, 9.0, 900.0, {"abuse_confirmed_count_by_customer_365d": 1.0}, REVIEW),
        (100.0, 9.0, 900.0, {"return_rejected_count_by_customer_365d": 1.0}, REVIEW),
    ],
)
def test_who_is_trusted_need_not_wait_for_the_return_scan(
    payable_minor, orders, account_days, against, action, default
):
    changes = {"payable_minor": payable_minor, "order_count_by_customer_365d": orders,
               "registered_age_days": account_days, **against}  # fmt: skip
    decision = decided(changes, default)
    held = {rule.rule_id for rule in (*decision.hits, *decision.unknowns)}
    asked = {"prior_chargebacks", "new_account_large_refund"}  # hold some of them as well
    assert ("return_not_received" in held) == (action is REVIEW)
    if not held & asked:
        assert decision.action is action
    scanned = decided({**changes, "return_received_count_by_order_365d": 1.0}, default)
    assert "return_not_received" not in hits(scanned)


# --- follow-ups ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule_id", "code"),
    [
        ("amount_above_captured", FollowUpCode.PARTIAL_AMOUNT),
        ("tender_already_refunded", FollowUpCode.PARTIAL_AMOUNT),
        ("amount_above_lines", FollowUpCode.PARTIAL_AMOUNT),
        ("shipping_fee_not_owed", FollowUpCode.PARTIAL_AMOUNT),
        ("payment_method_expired", FollowUpCode.STORE_CREDIT),
        ("return_not_received", FollowUpCode.WAIT_FOR_RETURN),
        ("instant_refund_not_earned", FollowUpCode.WAIT_FOR_RETURN),
        ("shipped_part_not_returned", FollowUpCode.WAIT_FOR_RETURN),
        ("country_mismatch", FollowUpCode.STEP_UP_VERIFICATION),
        ("another_customers_order", FollowUpCode.STEP_UP_VERIFICATION),
        ("shared_device", FollowUpCode.STEP_UP_VERIFICATION),
        ("final_sale", None),
        ("refund_already_completed", None),
    ],
)
def test_a_rule_suggests_what_may_be_offered_instead(rule_id, code, complete):
    follow_up = decided(HOSTILE[rule_id], complete).follow_up
    assert (follow_up.code if follow_up else None) is code
    if follow_up is not None:
        assert follow_up.rule_id == rule_id


def test_nothing_is_offered_of_what_is_all_gone(complete):
    gone = {"order_paid_back_minor": 9000.0, "tender_left_minor": 0.0}
    assert decided(gone, complete).follow_up is None


def test_the_model_s_doubt_suggests_to_verify(default):
    doubtful = decided({}, default, score=Score(0.3, 1600.0))
    assert (doubtful.action, doubtful.source) == (REVIEW, Source.MODEL)
    assert doubtful.follow_up is not None
    assert doubtful.follow_up.code is FollowUpCode.STEP_UP_VERIFICATION


# --- lists, limits, exploration ------------------------------------------------------------------


@pytest.mark.parametrize("entity", ENTITIES)
def test_anything_may_be_blocked_and_only_a_customer_be_let_through(entity, default):
    blocked = decided({}, default, ListMatch(block=(ListHit(entity, "a thief"),)))
    assert (blocked.action, blocked.source) == (PREVENT, Source.LIST)
    large = {"payable_minor": 20_001.0, "refund_type": "REFUND"}
    allowed = decided(large, default, ListMatch(allow=(ListHit(entity, "a friend"),)))
    assert allowed.action is (ALLOW if entity == "customer" else REVIEW)


@pytest.mark.parametrize(
    ("fact", "at_most"), [("refund_count_by_customer_1d", 5), ("refund_count_by_device_1d", 8)]
)
def test_a_limit_holds_the_request_after_the_last_that_is_free(fact, at_most, default):
    last = decided({fact: at_most - 1.0}, default)
    next_ = decided({fact: float(at_most)}, default)
    assert last.action is ALLOW
    assert (next_.action, next_.source) == (REVIEW, Source.RATE_LIMIT)
    assert next_.reasons == ("REFUND_LIMIT",)


def test_exploration_is_off_and_one_comment_away(default):
    assert default.exploration is None
    text = TEXT.replace("# exploration:", "exploration:")
    exploring = Policy.from_yaml(text, facts=FACTS).exploration
    assert exploring is not None
    assert (exploring.share, exploring.max_amount_minor) == (0.02, 3000)
