"""Decisions: the order of resolution, sources, monotone severity, exploration."""

import json
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.decision import FACT_MISSING, Action, Mode, Outcome, Source, Stage
from rules.document import Band
from rules.engine import ListMatch, Score, band_action, decide
from rules.policy import Policy

ALLOW, MANUAL_REVIEW, PREVENT = Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT

# One rule of every make. Each reads a fact of its own name: true hits, false misses, None unknown.
MAKES = list(
    product(("hard", "risk"), ("live", "shadow"), ("MANUAL_REVIEW", "PREVENT"), ("miss", "review"))
)
RULES = {"_".join(make).lower(): make for make in MAKES}
KINDS = {**dict.fromkeys(RULES, "bool"), "payable_minor": "double"}


def made(names=tuple(RULES), **changes) -> Policy:
    document = {
        "version": "1",
        "bands": [
            {"action": "MANUAL_REVIEW", "probability_at_least": 0.5},
            {
                "action": "PREVENT",
                "probability_at_least": 0.8,
                "expected_loss_minor_at_least": 1000,
            },
        ],
        "rules": [
            {
                "id": name,
                "version": 1,
                "stage": RULES[name][0],
                "mode": RULES[name][1],
                "action": RULES[name][2],
                "on_unknown": RULES[name][3],
                "when": name,
                "reason": name.upper(),
                "description": name,
                "examples": {"hit": [{name: True}], "miss": [{name: False}], "unknown": [{}]},
            }
            for name in names
        ],
        **changes,
    }
    return Policy.from_yaml(json.dumps(document), facts=KINDS)


POLICY = made()
NOTHING = dict.fromkeys(RULES, False)
NO_LISTS = ListMatch()
BLOCKED, ALLOWED = ListMatch(block=("b",)), ListMatch(allow=("a",))
BOTH = ListMatch(block=("b",), allow=("a",))
SETTLED = st.sampled_from([False, True, None])
LOW, MIDDLE, HIGH = Score(0.1, 100.0), Score(0.6, 600.0), Score(0.9, 5000.0)

requests = st.fixed_dictionaries(
    {
        "facts": st.fixed_dictionaries(dict.fromkeys(RULES, SETTLED)),
        "score": st.sampled_from([None, LOW, MIDDLE, HIGH, Score(0.9, None)]),
        "lists": st.sampled_from([NO_LISTS, BLOCKED, ALLOWED]),
        "disposition": st.sampled_from([None, None, ALLOW, MANUAL_REVIEW, PREVENT]),
        "rate_limited": st.booleans(),
    }
)  # fmt: skip


def decided(facts=(), score=LOW, lists=NO_LISTS, policy=POLICY, **keywords):
    return decide({**NOTHING, **dict(facts)}, score, policy, lists, **keywords)


def hit(*names):
    return dict.fromkeys(names, True)


def unknown(*names):
    return dict.fromkeys(names)


HARD_PREVENT, HARD_REVIEW = "hard_live_prevent_review", "hard_live_manual_review_review"
RISK_PREVENT, RISK_REVIEW = "risk_live_prevent_miss", "risk_live_manual_review_miss"


@pytest.mark.parametrize(
    ("keywords", "action", "source"),
    [
        ({}, ALLOW, Source.MODEL),
        ({"score": MIDDLE}, MANUAL_REVIEW, Source.MODEL),
        ({"score": HIGH}, PREVENT, Source.MODEL),
        ({"facts": hit(RISK_REVIEW)}, MANUAL_REVIEW, Source.RULE),
        ({"facts": hit(RISK_REVIEW), "score": MIDDLE}, MANUAL_REVIEW, Source.RULE),
        ({"facts": hit(RISK_REVIEW), "score": HIGH}, PREVENT, Source.MODEL),
        ({"facts": hit(RISK_PREVENT), "score": MIDDLE}, PREVENT, Source.RULE),
        ({"score": HIGH, "lists": ALLOWED}, ALLOW, Source.LIST),
        ({"facts": hit(RISK_PREVENT), "lists": ALLOWED}, ALLOW, Source.LIST),
        ({"lists": BOTH}, PREVENT, Source.LIST),
        ({"lists": BLOCKED, "disposition": ALLOW}, ALLOW, Source.MANUAL_REVIEW),
        ({"facts": hit(HARD_PREVENT), "disposition": ALLOW}, PREVENT, Source.RULE),
        ({"facts": hit(HARD_PREVENT), "lists": ALLOWED}, PREVENT, Source.RULE),
        ({"facts": hit(HARD_REVIEW), "lists": ALLOWED}, MANUAL_REVIEW, Source.RULE),
        ({"facts": unknown(HARD_PREVENT), "lists": ALLOWED}, MANUAL_REVIEW, Source.RULE),
        ({"facts": hit(HARD_REVIEW), "lists": BLOCKED}, PREVENT, Source.LIST),
        ({"facts": unknown(HARD_PREVENT), "score": HIGH}, PREVENT, Source.MODEL),
        ({"facts": hit(HARD_REVIEW), "disposition": ALLOW}, ALLOW, Source.MANUAL_REVIEW),
        ({"facts": hit(HARD_PREVENT), "sandbox": ALLOW}, ALLOW, Source.RULE),
        ({"sandbox": Action.REVIEW}, Action.REVIEW, Source.RULE),
        ({"score": None}, MANUAL_REVIEW, Source.FALLBACK),
        ({"score": None, "facts": hit(RISK_REVIEW)}, MANUAL_REVIEW, Source.FALLBACK),
        ({"score": None, "facts": hit(RISK_PREVENT)}, PREVENT, Source.RULE),
        ({"score": None, "facts": hit(HARD_PREVENT)}, PREVENT, Source.RULE),
        ({"score": None, "lists": ALLOWED}, ALLOW, Source.LIST),
        ({"rate_limited": True}, MANUAL_REVIEW, Source.RATE_LIMIT),
        ({"rate_limited": True, "lists": ALLOWED}, MANUAL_REVIEW, Source.RATE_LIMIT),
        ({"rate_limited": True, "score": HIGH}, PREVENT, Source.MODEL),
        ({"rate_limited": True, "facts": hit(HARD_PREVENT)}, PREVENT, Source.RULE),
        ({"rate_limited": True, "disposition": ALLOW}, ALLOW, Source.MANUAL_REVIEW),
    ],
)  # fmt: skip
def test_the_order_of_resolution(keywords, action, source):
    decision = decided(**keywords)
    assert (decision.action, decision.source) == (action, source)
    assert decision.degraded is ("score" in keywords and keywords["score"] is None)


def test_reasons_are_those_of_the_rules_that_called_for_the_action():
    decision = decided(hit(RISK_PREVENT, RISK_REVIEW, "hard_live_manual_review_miss"))
    assert decision.reasons == (RISK_PREVENT.upper(),)
    held = decided({**hit(RISK_REVIEW, "hard_live_manual_review_miss"), **unknown(HARD_REVIEW)})
    assert set(held.reasons) == {
        RISK_REVIEW.upper(),
        "HARD_LIVE_MANUAL_REVIEW_MISS",
        FACT_MISSING,
    }
    assert decided(score=HIGH).reasons == ()


def test_list_reasons_are_given_when_a_list_decided_and_only_then():
    both = ListMatch(block=("fraud ring",), allow=("staff",))
    assert decided(lists=both).list_reasons == ("fraud ring",)
    assert decided(lists=ListMatch(allow=("staff",))).list_reasons == ("staff",)
    assert decided(hit(HARD_PREVENT), lists=both).list_reasons == ()


def test_unknowns_are_reported_with_the_missing_facts_and_acted_on_as_the_rule_says():
    decision = decided(unknown("hard_live_prevent_miss", HARD_PREVENT))
    told = {rule.rule_id: rule for rule in decision.unknowns}
    assert told[HARD_PREVENT].unknown_facts == (HARD_PREVENT,)
    assert told[HARD_PREVENT].calls_for is MANUAL_REVIEW
    assert told["hard_live_prevent_miss"].calls_for is ALLOW
    assert decision.action is MANUAL_REVIEW


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_none_and_nan_are_both_unknown(missing):
    policy = Policy.from_yaml(
        json.dumps(
            {
                "version": "1",
                "bands": [],
                "rules": [
                    {
                        "id": "large",
                        "version": 1,
                        "stage": "hard",
                        "when": "payable_minor > 5.0",
                        "action": "PREVENT",
                        "reason": "LARGE",
                        "description": "large",
                        "examples": {"hit": [{"payable_minor": 6}], "miss": [{"payable_minor": 5}]},
                    }
                ],
            }
        ),
        facts=KINDS,
    )
    decision = decide({"payable_minor": missing}, LOW, policy, NO_LISTS)
    assert [rule.outcome for rule in decision.rules] == [Outcome.UNKNOWN]
    assert decide({"payable_minor": 6}, LOW, policy, NO_LISTS).action is PREVENT
    with pytest.raises(TypeError, match="fact payable_minor: expected a double, got '6'"):
        decide({"payable_minor": "6"}, LOW, policy, NO_LISTS)


@given(requests)
def test_shadow_rules_are_reported_and_never_acted_on(request):
    shadow = [name for name, make in RULES.items() if make[1] == "shadow"]
    quiet = request | {"facts": request["facts"] | dict.fromkeys(shadow, False)}
    loud, silent = decided(**request), decided(**quiet)
    assert (loud.action, loud.source, loud.reasons) == (
        silent.action,
        silent.source,
        silent.reasons,
    )
    hits = {rule.rule_id for rule in loud.hits if rule.mode is Mode.SHADOW}
    assert hits == {name for name in shadow if request["facts"][name]}


@given(requests, st.sampled_from(list(RULES)), st.none() | st.floats(0, 1, exclude_max=True))
def test_one_more_hit_never_makes_the_answer_milder(request, name, draw):
    policy = replace(POLICY, exploration=EXPLORING.exploration)
    milder = {False: False, None: False, True: None}[request["facts"][name]]
    paid = {"payable_minor": 500.0}
    before = request | {"facts": request["facts"] | {name: milder} | paid}
    after = request | {"facts": request["facts"] | {name: True} | paid}
    assert (
        decided(**before, policy=policy, exploration_draw=draw).action
        <= decided(**after, policy=policy, exploration_draw=draw).action
    )


@given(requests, st.sampled_from([name for name, make in RULES.items() if make[3] == "review"]))
def test_an_unknown_fact_is_never_milder_than_a_miss(request, name):
    missed = request | {"facts": request["facts"] | {name: False}}
    dropped = request | {"facts": request["facts"] | {name: None}}
    assert decided(**missed).action <= decided(**dropped).action


@settings(max_examples=20, deadline=None)
@given(requests, st.permutations(list(RULES)))
def test_the_order_of_rules_decides_nothing(request, names):
    one, other = decided(**request), decided(**request, policy=made(tuple(names)))
    assert (one.action, one.source, set(one.reasons)) == (
        other.action,
        other.source,
        set(other.reasons),
    )


@given(requests)
def test_nothing_overrides_a_hard_prevent(request):
    prevented = request | {"facts": request["facts"] | hit(HARD_PREVENT)}
    decision = decided(**prevented, exploration_draw=0.0)
    assert (decision.action, decision.source) == (PREVENT, Source.RULE)
    assert HARD_PREVENT.upper() in decision.reasons


@given(requests)
def test_without_a_score_the_decision_is_degraded_and_no_milder_than_fallback_or_overruled(request):
    decision = decided(**request | {"score": None})
    assert decision.degraded
    assert decision.band is None
    if decision.source not in (Source.LIST, Source.MANUAL_REVIEW):
        assert decision.action >= POLICY.fallback


@given(requests)
def test_a_decision_is_plain_json_and_says_everything(request):
    decision = decided(**request)
    told = json.loads(json.dumps(decision.to_json()))
    assert told["action"] == decision.action
    named = [rule["rule_id"] for part in ("hits", "unknowns", "misses") for rule in told[part]]
    assert sorted(named) == sorted(RULES)
    assert (told["policy_version"], told["policy_hash"]) == (POLICY.version, POLICY.hash)


def test_the_fallback_and_the_rate_limit_are_the_policys():
    policy = made(fallback="ALLOW", rate_limited="PREVENT")
    assert decided(score=None, policy=policy).action is ALLOW
    assert decided(score=None, policy=policy).source is Source.FALLBACK
    flooding = decided(policy=policy, rate_limited=True)
    assert (flooding.action, flooding.source) == (PREVENT, Source.RATE_LIMIT)


def test_review_is_for_the_sandbox_alone():
    with pytest.raises(ValueError, match="disposition"):
        decided(disposition=Action.REVIEW)


def test_the_score_is_a_fact_only_when_there_is_one():
    scored = {
        "id": "certain",
        "version": 1,
        "stage": "risk",
        "when": "probability > 0.05",
        "action": "PREVENT",
        "reason": "CERTAIN",
        "description": "certain",
        "examples": {"hit": [{"probability": 0.06}], "miss": [{"probability": 0.05}]},
    }
    policy = made(rules=[scored])
    assert decided(policy=policy).action is PREVENT
    late = decided({"probability": 0.99}, score=None, policy=policy)
    assert [rule.outcome for rule in late.rules] == [Outcome.UNKNOWN]


REVIEW_AND_PREVENT = (
    Band(action=MANUAL_REVIEW, probability_at_least=0.3, expected_loss_minor_at_least=100),
    Band(action=PREVENT, probability_at_least=0.8),
)


@pytest.mark.parametrize(
    ("score", "action"),
    [
        (Score(0.29, 9000.0), ALLOW),
        (Score(0.3, 99.0), ALLOW),
        (Score(0.3, 100.0), MANUAL_REVIEW),
        (Score(0.8, 0.0), PREVENT),
        (Score(0.3, None), MANUAL_REVIEW),
        (Score(0.3, float("nan")), MANUAL_REVIEW),
        (Score(0.1, None), ALLOW),
    ],
)
def test_bands_need_every_threshold_they_name(score, action):
    assert band_action(score, REVIEW_AND_PREVENT) is action


def test_a_loss_that_cannot_be_told_is_reviewed_rather_than_prevented():
    costly = Band(action=PREVENT, expected_loss_minor_at_least=1000)
    assert band_action(Score(0.1, None), [costly]) is MANUAL_REVIEW


@pytest.mark.parametrize("score", [(1.01, 5.0), (-0.1, 5.0), (float("nan"), 5.0), (0.5, -1.0)])
def test_a_score_that_is_none_is_refused(score):
    with pytest.raises(ValueError, match="expected"):
        Score(*score)


EXPLORING = made(exploration={"share": 0.05, "max_amount_minor": 1000})
SMALL = {"payable_minor": 1000.0}


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
        {"facts": SMALL, "rate_limited": True},
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
    assert decision.action > ALLOW
    assert (decision.explored, decision.propensity) == (False, 1.0)


def test_stages_and_modes_of_the_made_rules_are_as_named():
    for rule in POLICY.rules:
        stage, mode, action, _ = RULES[rule.hit.rule_id]
        assert (rule.hit.stage, rule.hit.mode) == (Stage(stage), Mode(mode))
        assert rule.hit.action is Action(action)
