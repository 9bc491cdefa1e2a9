"""Decisions: the order of resolution, sources, monotone severity, lists, limits and bands."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.decision import (
    FACT_MISSING,
    Action,
    Mode,
    Outcome,
    Source,
    Stage,
)
from rules.document import Band
from rules.engine import ListHit, ListMatch, Score, band_action, decide
from rules.policy import Policy
from tests.rules.makes import (
    ALLOW,
    ALLOWED,
    BLOCKED,
    BOTH,
    EXPLORING,
    FACT,
    HARD_PREVENT,
    HARD_REVIEW,
    HIGH,
    KINDS,
    LIMIT_PREVENT,
    LIMIT_REVIEW,
    LOW,
    MANUAL_REVIEW,
    MIDDLE,
    ON_ALLOW,
    ON_BLOCK,
    POLICY,
    PREVENT,
    RISK_PREVENT,
    RISK_REVIEW,
    RULES,
    decided,
    hit,
    limit,
    made,
    requests,
    unknown,
)


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
        ({"facts": hit(LIMIT_REVIEW)}, MANUAL_REVIEW, Source.RATE_LIMIT),
        ({"facts": hit(LIMIT_REVIEW), "score": MIDDLE}, MANUAL_REVIEW, Source.RATE_LIMIT),
        ({"facts": hit(LIMIT_REVIEW), "score": None}, MANUAL_REVIEW, Source.RATE_LIMIT),
        ({"facts": hit(LIMIT_REVIEW), "lists": ALLOWED}, MANUAL_REVIEW, Source.RATE_LIMIT),
        ({"facts": hit(LIMIT_REVIEW), "lists": BLOCKED}, PREVENT, Source.LIST),
        ({"facts": hit(LIMIT_REVIEW), "score": HIGH}, PREVENT, Source.MODEL),
        ({"facts": hit(LIMIT_REVIEW, HARD_REVIEW)}, MANUAL_REVIEW, Source.RULE),
        ({"facts": hit(LIMIT_REVIEW, RISK_REVIEW)}, MANUAL_REVIEW, Source.RATE_LIMIT),
        ({"facts": hit(LIMIT_REVIEW, HARD_PREVENT)}, PREVENT, Source.RULE),
        ({"facts": hit(LIMIT_PREVENT), "lists": ALLOWED}, PREVENT, Source.RATE_LIMIT),
        ({"facts": hit(LIMIT_PREVENT), "disposition": ALLOW}, ALLOW, Source.MANUAL_REVIEW),
        ({"facts": unknown(LIMIT_REVIEW)}, ALLOW, Source.MODEL),
        ({"facts": unknown("limit_live_prevent_review")}, MANUAL_REVIEW, Source.RATE_LIMIT),
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
    assert decided(lists=BOTH).list_reasons == ("b",)
    assert decided(lists=ALLOWED).list_reasons == ("a",)
    assert decided(hit(HARD_PREVENT), lists=BOTH).list_reasons == ()
    assert decided(hit(HARD_REVIEW), lists=ALLOWED).list_reasons == ()


def test_only_the_entities_that_the_policy_names_count_on_a_list():
    policy = made(lists={"block": ["device"], "allow": ["email", "customer"]})
    twice = ListMatch(block=(ON_BLOCK, ListHit("device", "d")), allow=(ON_ALLOW,))
    assert decided(lists=twice, policy=policy).list_reasons == ("d",)
    assert decided(lists=BOTH, policy=policy).list_reasons == ("a",)
    assert decided(lists=BOTH, policy=made(lists={"block": [], "allow": []})).source is Source.MODEL


def test_conditions_read_the_lists_whatever_the_policy_counts():
    when = "device_on_block_list && !email_on_allow_list"
    listed = {
        "id": "listed", "version": 1, "stage": "hard", "when": when, "action": "PREVENT",
        "reason": "LISTED", "description": "a blocked device",
        "examples": {
            "hit": [{"device_on_block_list": True, "email_on_allow_list": False}],
            "miss": [{"device_on_block_list": False}],
        },
    }  # fmt: skip
    policy = made(rules=[listed], lists={"block": [], "allow": []})
    device, email = ListHit("device", "stolen"), ListHit("email", "staff")
    for lists, outcome in (
        (ListMatch(), Outcome.MISS),
        (ListMatch(block=(device,)), Outcome.HIT),
        (ListMatch(block=(device,), allow=(email,)), Outcome.MISS),
        (ListMatch(block=(device,), entities=frozenset({"device"})), Outcome.UNKNOWN),
        (ListMatch(entities=frozenset({"email"})), Outcome.UNKNOWN),
    ):
        claimed = {"device_on_block_list": True}  # what a caller says of lists is not believed
        assert decided(claimed, lists=lists, policy=policy).rules[0].outcome is outcome


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
    decision = decide({"payable_minor": missing}, LOW, policy)
    assert [rule.outcome for rule in decision.rules] == [Outcome.UNKNOWN]
    assert decide({"payable_minor": 6}, LOW, policy).action is PREVENT
    with pytest.raises(TypeError, match="fact payable_minor: expected a double, got '6'"):
        decide({"payable_minor": "6"}, LOW, policy)


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


def test_the_fallback_is_the_policys():
    policy = made(fallback="ALLOW")
    assert decided(score=None, policy=policy).action is ALLOW
    assert decided(score=None, policy=policy).source is Source.FALLBACK


def test_a_limit_lets_its_number_pass_and_stops_the_next_one():
    numbers = limit(LIMIT_REVIEW, at_most=5, on_unknown="miss", reason="FLOOD")
    policy = made(rules=[], limits=[numbers])
    actions = [
        decide({FACT[LIMIT_REVIEW]: earlier}, LOW, policy).action for earlier in (4.0, 5.0, None)
    ]
    assert actions == [ALLOW, MANUAL_REVIEW, ALLOW]
    flooding = decide({FACT[LIMIT_REVIEW]: 5.0}, LOW, policy)
    assert (flooding.source, flooding.reasons) == (Source.RATE_LIMIT, ("FLOOD",))
    assert [(rule.rule_id, rule.stage) for rule in flooding.hits] == [(LIMIT_REVIEW, Stage.LIMIT)]


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


def test_stages_and_modes_of_the_made_rules_are_as_named():
    for rule in POLICY.rules:
        stage, mode, action, _ = RULES[rule.hit.rule_id]
        assert (rule.hit.stage, rule.hit.mode) == (Stage(stage), Mode(mode))
        assert rule.hit.action is Action(action)


def oracle(request) -> tuple[Action, Source, set[str]]:
    """The order of resolution once more, from the docstring of `decide`, one claim at a time."""
    outcomes = request["facts"]
    calls = []  # (stage, what it calls for, why)
    for name, (stage, mode, action, on_unknown) in RULES.items():
        if mode == "live" and outcomes[name]:
            calls.append((stage, Action(action), name.upper()))
        if mode == "live" and outcomes[name] is None and on_unknown == "review":
            calls.append((stage, MANUAL_REVIEW, FACT_MISSING))
    if ("hard", PREVENT) in {(stage, action) for stage, action, _ in calls}:
        reasons = {why for stage, action, why in calls if (stage, action) == ("hard", PREVENT)}
        return PREVENT, Source.RULE, reasons
    if request["disposition"]:
        return request["disposition"], Source.MANUAL_REVIEW, set()
    if request["lists"].block:
        return PREVENT, Source.LIST, set()
    score = request["score"]
    if request["lists"].allow:
        calls = [call for call in calls if call[0] != "risk"]
        rest = [(ALLOW, Source.LIST)]
    elif score is None:
        rest = [(POLICY.fallback, Source.FALLBACK)]
    else:
        rest = []
    ranked = [(action, Source.RULE) for stage, action, _ in calls if stage == "hard"]
    ranked += [(action, Source.RATE_LIMIT) for stage, action, _ in calls if stage == "limit"]
    ranked += rest
    ranked += [(action, Source.RULE) for stage, action, _ in calls if stage == "risk"]
    if not rest:
        ranked.append((band_action(score, POLICY.bands), Source.MODEL))
    for wanted in (PREVENT, MANUAL_REVIEW, ALLOW):
        for action, source in ranked:
            if action is wanted:
                return action, source, {why for _, called, why in calls if called is action}
    raise AssertionError("nothing answers")


@settings(max_examples=400)
@given(requests)
def test_decisions_are_those_of_the_order_of_resolution_told_naively(request):
    decision = decided(**request)
    assert (decision.action, decision.source, set(decision.reasons)) == oracle(request)
    assert decision.list_reasons == (
        {PREVENT: ("b",), ALLOW: ("a",)}[decision.action] if decision.source is Source.LIST else ()
    )
