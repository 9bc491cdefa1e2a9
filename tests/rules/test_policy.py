"""Loading a policy: all mistakes at once, each with its place; the hash; examples."""

import json
from dataclasses import FrozenInstanceError

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rules.decision import Mode
from rules.policy import Policy, PolicyError, load_policy

SOUND = {
    "version": "2026-04-17.1",
    "bands": [{"action": "MANUAL_REVIEW", "probability_at_least": 0.5}],
    "rules": [
        {
            "id": "large",
            "version": 1,
            "stage": "risk",
            "when": "payable_minor > 100.0",
            "action": "MANUAL_REVIEW",
            "reason": "LARGE",
            "description": "A large amount",
            "examples": {"hit": [{"payable_minor": 101}], "miss": [{"payable_minor": 100}]},
        }
    ],
}


def text(**changes) -> str:
    return json.dumps({**SOUND, **changes})  # JSON is YAML


def rule(**changes) -> dict:
    return {**SOUND["rules"][0], **changes}


def problems(policy_text: str, kinds) -> list:
    with pytest.raises(PolicyError) as refused:
        Policy.from_yaml(policy_text, facts=kinds)
    return list(refused.value.problems)


def test_the_policy_keeps_what_was_written(kinds):
    policy = Policy.from_yaml(text(note="why", author="who"), facts=kinds)
    assert (policy.version, policy.note, policy.author) == ("2026-04-17.1", "why", "who")
    assert dict(policy.reads) == {"payable_minor": "double"}
    with pytest.raises(FrozenInstanceError):
        policy.version = "2"


def test_the_hash_is_of_the_content_not_of_its_layout(kinds):
    plain = Policy.from_yaml(text(), facts=kinds)
    sorted_keys = yaml.safe_dump(SOUND, sort_keys=True, default_flow_style=True)
    spelled = text(orders_complete=False, fallback="MANUAL_REVIEW", note=None,
                   costs={"review_minor": 0, "reviews_per_day": None})  # fmt: skip
    for same in (sorted_keys, spelled, "# a comment\n" + text()):
        assert Policy.from_yaml(same, facts=kinds).hash == plain.hash
    for changed in (
        text(version="2"),
        text(fallback="PREVENT"),
        text(rules=[rule(description="Large")]),
        text(rules=[rule(when="payable_minor > 100.5")]),
        text(bands=[]),
        text(costs={"reviews_per_day": 0}),
    ):
        assert Policy.from_yaml(changed, facts=kinds).hash != plain.hash


def test_the_desks_capacity_is_kept_and_checked(kinds):
    assert Policy.from_yaml(text(), facts=kinds).costs.reviews_per_day is None
    stated = Policy.from_yaml(text(costs={"reviews_per_day": 60}), facts=kinds)
    assert stated.costs.reviews_per_day == 60
    [negative] = problems(text(costs={"reviews_per_day": -1}), kinds)
    assert (negative.place, negative.value) == ("costs.reviews_per_day", "-1")
    assert negative.expected == "at least 0"
    [misspelt] = problems(text(costs={"review_per_day": 60}), kinds)
    assert misspelt.nearest == "reviews_per_day"


def test_a_rule_that_requires_complete_orders_is_shadow_without_them(kinds):
    needing = [rule(requires="orders_complete")]
    modes = [
        Policy.from_yaml(text(rules=needing, orders_complete=told), facts=kinds).rules[0].hit.mode
        for told in (False, True)
    ]
    assert modes == [Mode.SHADOW, Mode.LIVE]
    shadow = [rule(requires="orders_complete", mode="shadow")]
    policy = Policy.from_yaml(text(rules=shadow, orders_complete=True), facts=kinds)
    assert policy.rules[0].hit.mode is Mode.SHADOW


def test_the_score_is_a_fact_for_conditions(kinds):
    scored = rule(
        when="probability > 0.5 && expected_loss_minor > 9.0",
        examples={
            "hit": [{"probability": 0.6, "expected_loss_minor": 10}],
            "miss": [{"probability": 0}],
        },
    )
    policy = Policy.from_yaml(text(rules=[scored]), facts=kinds)
    assert set(policy.reads) == {"probability", "expected_loss_minor"}


FAILS, UNKNOWN, CHANGE = (
    "the example fails",
    "tell the example what is unknown",
    "change one of both",
)


@pytest.mark.parametrize(
    ("examples", "message", "value", "expected"),
    [
        ({"hit": [{"payable_minor": 100}]}, FAILS, "miss", f"hit; {CHANGE}"),
        ({"hit": [{}]}, FAILS, "unknown (unknown: payable_minor)", f"hit; {UNKNOWN}"),
        (
            {"miss": [{"payable_minor": 101}]},
            FAILS,
            "hit",
            f"miss; {CHANGE}",
        ),
        (
            {"miss": [{}]},
            FAILS,
            "unknown (unknown: payable_minor)",
            f"miss; {UNKNOWN}",
        ),
        (
            {"unknown": [{"payable_minor": 1}]},
            FAILS,
            "miss",
            f"unknown; {CHANGE}",
        ),
        ({"hit": []}, "empty", "", "at least one example"),
        ({"hit": [{"payable_minor": "101"}]}, "wrong type", "'101'", "a double or null"),
        ({"hit": [{"payable_minor": True}]}, "wrong type", "True", "a double or null"),
        ({"hit": [{"payable_minor": [1]}]}, "wrong type", "[1]", "a double or null"),
        ({"miss": [{"payable": 1}]}, "unknown fact", "payable", "a fact's name"),
    ],
)
def test_examples_are_run_and_checked(examples, message, value, expected, kinds):
    changed = rule(examples={**SOUND["rules"][0]["examples"], **examples})
    (problem,) = problems(text(rules=[changed]), kinds)
    assert (problem.message, problem.value, problem.expected) == (message, value, expected)
    assert problem.place.startswith("rules.large.examples.")


def test_null_in_an_example_is_an_unknown_fact(kinds):
    examples = {**SOUND["rules"][0]["examples"], "unknown": [{"payable_minor": None}, {}]}
    assert Policy.from_yaml(text(rules=[rule(examples=examples)]), facts=kinds).rules


def test_a_rule_without_examples_is_refused(kinds):
    silent = {key: value for key, value in rule().items() if key != "examples"}
    (problem,) = problems(text(rules=[silent]), kinds)
    assert (problem.place, problem.message, problem.expected) == (
        "rules.large.examples",
        "missing",
        "an example of a hit and one of a miss",
    )


def test_a_repeated_id_names_the_first_holder(kinds):
    (problem,) = problems(text(rules=[rule(), rule(version=2)]), kinds)
    assert (problem.place, problem.message) == ("rules.large.id", "id already used on line 1")


REVIEW, PREVENT = "MANUAL_REVIEW", "PREVENT"


def band(action, probability=None, loss=None) -> dict:
    given = {"probability_at_least": probability, "expected_loss_minor_at_least": loss}
    return {"action": action, **{key: value for key, value in given.items() if value is not None}}


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ([band(PREVENT, 0.9), band(REVIEW, 0.5)], "out of order after bands[0]"),
        ([band(REVIEW, 0.5), band(PREVENT, 0.5)], "overlaps bands[0], which could never decide"),
        ([band(REVIEW, 0.9), band(PREVENT, 0.5)], "overlaps bands[0], which could never decide"),
        ([band(REVIEW, 0.5), band(REVIEW, 0.5)], "overlaps bands[0], which could never decide"),
        ([band(REVIEW, 0.5), band(REVIEW, 0.7)], "overlaps bands[0], which covers it"),
        (
            [band(REVIEW, 0.5, 9), band(PREVENT, loss=5)],
            "overlaps bands[0], which could never decide",
        ),
    ],
)
def test_bands_out_of_order_or_overlapping_are_refused(bands, message, kinds):
    (problem,) = problems(text(bands=bands), kinds)
    assert (problem.place, problem.message) == ("bands[1]", message)


@pytest.mark.parametrize(
    "bands",
    [
        [],
        [band(REVIEW, 0.5), band(PREVENT, 0.9)],
        [band(REVIEW, 0.5, 100), band(REVIEW, 0.2, 900), band(PREVENT, 0.9, 500)],
        [band(REVIEW, 0.5), band(PREVENT, loss=5000)],
    ],
)
def test_bands_that_each_decide_something_are_accepted(bands, kinds):
    assert len(Policy.from_yaml(text(bands=bands), facts=kinds).bands) == len(bands)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("", "not a policy"),
        ("[1, 2]", "not a policy"),
        ("version: [", "not YAML"),
        ("version: '1'\n---\nversion: '2'", "not YAML"),
        ("note: \0", "not YAML"),
        ("[" * 5000, "nested too deeply"),
        ("note: !!python/object:os.system 1", "cannot be read"),
        ("note: 2026-13-45", "cannot be read"),
        ("? [a]\n: b", "a key that is not a plain name"),
        ("note: &n x\nauthor: *n", "an alias"),
        ("note: x\nnote: y", "key given twice"),
        ('note: "\\ud800"', "not Unicode text"),
        ("rules: {a: 1}", "wrong value"),
        ("rules: [3]", "wrong value"),
    ],
)
def test_text_that_is_no_policy_is_refused_with_a_reason(broken, message, kinds):
    assert message in [problem.message for problem in problems(broken, kinds)]


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["version", "bands", "rules", "id", "when", "examples", "hit", "action"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
))  # fmt: skip
def test_no_document_breaks_the_loader(document):
    try:
        policy = Policy.from_yaml(yaml.safe_dump(document), facts={"payable_minor": "double"})
    except PolicyError as refused:
        assert refused.problems
    else:
        assert policy.hash


def test_a_policy_can_be_read_from_a_file(tmp_path, kinds):
    path = tmp_path / "policy.yaml"
    path.write_text(text(note="naïve"), encoding="utf-8")
    assert load_policy(path, kinds).note == "naïve"


SCORED = rule(id="other", when="payable_minor > 100.0 || probability > 0.5 && false")
TWO = text(rules=[rule(), SCORED],
           limits=[{"id": "a_week", "version": 1, "by": "customer", "days": 7, "at_most": 2,
                    "action": "PREVENT"}])  # fmt: skip


def test_rules_are_followed_by_limits_and_reads_name_what_both_read(kinds):
    policy = Policy.from_yaml(TWO, facts=kinds)
    assert [rule.id for rule in policy.rules] == ["large", "other", "a_week"]
    assert dict(policy.reads) == {
        "payable_minor": "double",
        "probability": "double",
        "refund_count_by_customer_7d": "double",
    }
    assert dict(policy.given) == {
        name: kind for name, kind in policy.reads.items() if name != "probability"
    }
    assert (policy.text, policy.document.version) == (TWO, policy.version)


def test_a_what_if_policy_cannot_be_mistaken_for_one_that_was_checked_in(kinds):
    policy = Policy.from_yaml(TWO, facts=kinds)
    shadowed = policy.with_mode("a_week", Mode.SHADOW)
    modes = {rule.id: {rule.hit.mode, rule.miss.mode, rule.unsettled.mode}
             for rule in shadowed.rules}  # fmt: skip
    assert modes == {"large": {Mode.LIVE}, "other": {Mode.LIVE}, "a_week": {Mode.SHADOW}}
    without = policy.without("other")
    assert [rule.id for rule in without.rules] == ["large", "a_week"]
    assert "probability" not in without.reads
    names = {(p.version, p.hash) for p in (policy, shadowed, without)}
    assert len(names) == 3
    assert all(version.startswith(policy.version) for version, _ in names)
    for derive in (policy.without, lambda name: policy.with_mode(name, Mode.LIVE)):
        with pytest.raises(KeyError, match=r"no rule or limit 'othr'.*did you mean other"):
            derive("othr")


def test_size_is_bounded(kinds):
    many = [rule(id=f"r{i}") for i in range(501)]
    (problem,) = problems(text(rules=many), kinds)
    assert (problem.place, problem.expected) == ("rules", "at most 500 items")
    (problem,) = problems(
        text(rules=[rule(when=" || ".join(["payable_minor > 100.0"] * 100))]), kinds
    )
    assert (problem.place, problem.expected) == ("rules.large.when", "at most 2000 characters")
