"""What a decision offers and pays beside the rules: follow-ups, and the random holdout."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.decision import (
    FollowUp,
    FollowUpCode,
    Source,
)
from tests.rules.makes import (
    ALLOW,
    ALLOWED,
    BLOCKED,
    EXPLORING,
    HARD_PREVENT,
    HARD_REVIEW,
    HIGH,
    LIMIT_REVIEW,
    MANUAL_REVIEW,
    MIDDLE,
    POLICY,
    PREVENT,
    RISK_PREVENT,
    RISK_REVIEW,
    SMALL,
    decided,
    hit,
    limit,
    made,
    requests,
    rule,
    unknown,
)


def suggesting():
    bands = [{"action": "MANUAL_REVIEW", "probability_at_least": 0.5,
              "follow_up": {"code": "STEP_UP_VERIFICATION"}},
             {"action": "PREVENT", "probability_at_least": 0.8}]  # fmt: skip
    amount = {"code": "PARTIAL_AMOUNT", "amount_minor": "left_minor - 10.0"}
    return made(
        bands=bands,
        rules=[
            rule(HARD_PREVENT, follow_up=amount),
            rule(HARD_REVIEW, follow_up={"code": "WAIT_FOR_RETURN"}),
            rule("hard_shadow_prevent_review", follow_up={"code": "WAIT_FOR_RETURN"}),
            rule(RISK_PREVENT, follow_up={"code": "STORE_CREDIT"}),
            rule(RISK_REVIEW),
        ],
        limits=[limit(LIMIT_REVIEW, follow_up={"code": "STORE_CREDIT"})],
    )


SUGGESTING = suggesting()


@pytest.mark.parametrize(
    ("keywords", "code", "rule_id", "amount_minor"),
    [
        ({}, None, None, None),
        ({"facts": hit(HARD_REVIEW)}, "WAIT_FOR_RETURN", HARD_REVIEW, None),
        ({"facts": unknown(HARD_REVIEW)}, None, None, None),
        ({"facts": hit(HARD_REVIEW, LIMIT_REVIEW)}, "WAIT_FOR_RETURN", HARD_REVIEW, None),
        ({"facts": hit(RISK_REVIEW, LIMIT_REVIEW)}, "STORE_CREDIT", LIMIT_REVIEW, None),
        ({"facts": hit(RISK_REVIEW), "score": MIDDLE}, None, None, None),
        ({"facts": hit(HARD_REVIEW, RISK_PREVENT)}, "STORE_CREDIT", RISK_PREVENT, None),
        ({"facts": hit("hard_shadow_prevent_review")}, None, None, None),
        ({"score": MIDDLE}, "STEP_UP_VERIFICATION", None, None),
        ({"score": HIGH}, None, None, None),
        ({"score": HIGH, "facts": hit(RISK_PREVENT)}, "STORE_CREDIT", RISK_PREVENT, None),
        ({"facts": hit(HARD_REVIEW), "disposition": PREVENT}, None, None, None),
        ({"facts": hit(HARD_REVIEW), "sandbox": MANUAL_REVIEW}, None, None, None),
        ({"facts": hit(HARD_REVIEW), "lists": BLOCKED}, None, None, None),
        ({"facts": hit(HARD_REVIEW), "lists": ALLOWED}, "WAIT_FOR_RETURN", HARD_REVIEW, None),
        ({"score": None}, None, None, None),
    ],
)
def test_the_follow_up_is_the_first_of_a_hit_that_calls_for_the_action(
    keywords, code, rule_id, amount_minor
):
    decision = decided(**{"policy": SUGGESTING, **keywords})
    expected = None if code is None else {"code": code, "rule_id": rule_id, "amount_minor": None}
    assert decision.to_json()["follow_up"] == expected


@pytest.mark.parametrize(
    ("left", "asked", "offered"),
    [
        (510.5, 1000.0, 500),
        (1010.0, 1000.0, None),
        (1009.9, 1000.0, 999),
        (10.0, 1000.0, None),
        (None, 1000.0, None),
        (500.0, None, None),
    ],
)
def test_a_partial_amount_is_known_positive_and_less_than_what_is_asked(left, asked, offered):
    facts = hit(HARD_PREVENT, RISK_PREVENT) | {"left_minor": left, "asked_minor": asked}
    follow_up = decided(facts, policy=SUGGESTING).follow_up
    if offered is None:  # a risk rule does not speak where a hard one has settled it
        assert follow_up is None
    else:
        assert follow_up == FollowUp(FollowUpCode.PARTIAL_AMOUNT, HARD_PREVENT, offered)
    assert {"left_minor", "asked_minor"} <= SUGGESTING.reads.keys()


def test_an_explored_refund_is_offered_nothing():
    policy = replace(SUGGESTING, exploration=EXPLORING.exploration)
    held = decided(SMALL, MIDDLE, policy=policy, exploration_draw=0.5)
    assert held.follow_up == FollowUp(FollowUpCode.STEP_UP_VERIFICATION)
    assert decided(SMALL, MIDDLE, policy=policy, exploration_draw=0.0).follow_up is None


def test_exploration_pays_a_share_of_held_refunds_and_logs_how_likely_that_was():
    paid = decided(SMALL, score=HIGH, policy=EXPLORING, exploration_draw=0.049)
    held = decided(SMALL, score=HIGH, policy=EXPLORING, exploration_draw=0.05)
    assert (paid.action, paid.explored, paid.propensity) == (ALLOW, True, 0.05)
    assert (held.action, held.explored, held.propensity) == (PREVENT, False, 0.95)
    assert decided(SMALL, policy=EXPLORING, exploration_draw=0.0).propensity == 1.0


@given(requests, st.floats(0, 1, exclude_max=True))
def test_a_request_has_one_chance_to_be_paid_whatever_is_drawn(request, draw):
    policy = replace(POLICY, exploration=EXPLORING.exploration)
    request = request | {"policy": policy, "facts": request["facts"] | SMALL}
    one, other = (decided(**request, exploration_draw=d) for d in (draw, 0.99 * (draw < 0.05)))

    def chance_to_be_paid(decision):
        paid = decision.action is ALLOW
        return decision.propensity if paid else 1 - decision.propensity

    assert chance_to_be_paid(one) == pytest.approx(chance_to_be_paid(other))
    assert (one.exploration_draw, one.to_json()["exploration_draw"]) == (draw, draw)


def test_a_refund_is_explored_whichever_of_band_and_risk_rule_holds_it():
    for held in ({"score": HIGH}, {"facts": SMALL | hit(RISK_REVIEW)}):
        decision = decided(**{"facts": SMALL} | held, policy=EXPLORING, exploration_draw=0.0)
        assert (decision.action, decision.source, decision.explored) == (ALLOW, Source.MODEL, True)
        assert decision.reasons == ()


def test_everything_may_be_explored_and_is_then_certain():
    policy = made(exploration={"share": 1.0, "max_amount_minor": 1000})
    paid = decided(SMALL, score=HIGH, policy=policy, exploration_draw=1 - 2**-53)
    assert (paid.action, paid.explored, paid.propensity) == (ALLOW, True, 1.0)


@pytest.mark.parametrize(
    "keywords",
    [
        {"facts": SMALL | hit(HARD_REVIEW)},
        {"facts": SMALL | unknown(HARD_PREVENT)},
        {"facts": SMALL | hit(HARD_PREVENT)},
        {"facts": SMALL, "lists": BLOCKED},
        {"facts": SMALL | hit(LIMIT_REVIEW)},
        {"facts": SMALL, "lists": ALLOWED},
        {"facts": SMALL, "disposition": PREVENT},
        {"facts": SMALL, "score": None},
        {"facts": SMALL, "exploration_draw": None},
        {"facts": SMALL, "policy": POLICY},
        {"facts": {"payable_minor": 1000.5}},
        {"facts": {"payable_minor": float("nan")}},
        {"facts": {}},
    ],
)
def test_exploration_is_capped_and_never_against_hard_rules_lists_or_analysts(keywords):
    explorable = {"score": HIGH, "policy": EXPLORING, "exploration_draw": 0.0}
    assert decided(**{**explorable, "facts": SMALL}).explored
    decision = decided(**explorable | keywords)
    assert (decision.explored, decision.propensity) == (False, 1.0)
