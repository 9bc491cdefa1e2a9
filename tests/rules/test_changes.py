"""What a policy changes in another, and whether it may succeed it."""

import json

import pytest

from rules.changes import changes
from rules.decision import Mode
from rules.policy import Policy
from rules.succession import succession_problems

KINDS = {
    "payable_minor": "double",
    "final_sale": "bool",
    "refund_count_by_customer_1d": "double",
    "refund_count_by_customer_7d": "double",
}
RULE = {
    "id": "large", "version": 1, "stage": "risk", "when": "payable_minor > 100.0",
    "action": "MANUAL_REVIEW", "reason": "LARGE", "description": "A large amount",
    "examples": {"hit": [{"payable_minor": 101}], "miss": [{"payable_minor": 100}]},
}  # fmt: skip
OTHER = {**RULE, "id": "other", "requires": "orders_complete"}
LIMIT = {"id": "a_day", "version": 3, "by": "customer", "days": 1, "at_most": 5,
         "action": "MANUAL_REVIEW"}  # fmt: skip
DOCUMENT = {
    "version": "1",
    "bands": [{"action": "MANUAL_REVIEW", "probability_at_least": 0.5}],
    "rules": [RULE, OTHER],
    "limits": [LIMIT],
}


def policy(**changed) -> Policy:
    return Policy.from_yaml(json.dumps({**DOCUMENT, **changed}, indent=1), facts=KINDS)


BEFORE = policy()


def told(**changed) -> list[str]:
    return [change.to_text() for change in changes(BEFORE, policy(**changed))]


@pytest.mark.parametrize(
    ("changed", "sentences"),
    [
        ({}, []),
        ({"version": "2", "note": "n", "author": "a"}, []),
        ({"fallback": "MANUAL_REVIEW", "lists": {}, "costs": {"fee_minor": 0}}, []),
        ({"rules": [{**RULE, "mode": "live", "on_unknown": "miss"}, OTHER]}, []),
        ({"fallback": "PREVENT"}, ["fallback MANUAL_REVIEW becomes PREVENT"]),
        ({"costs": {"fee_minor": 500, "reviews_per_day": 60}},
         ["costs: fee_minor 0 becomes 500", "costs: reviews_per_day none becomes 60"]),
        ({"lists": {"allow": ["customer"], "block": []}},
         ["lists: block customer, device, payment_method, address, ip, email becomes none",
          "lists: allow customer, device, payment_method, address, ip, email becomes customer"]),
        ({"exploration": {"share": 0.05, "max_amount_minor": 1000}},
         ["exploration comes: a share of 0.05 up to 1000"]),
        ({"bands": [{"action": "PREVENT", "probability_at_least": 0.7,
                     "follow_up": {"code": "STORE_CREDIT"}}]},
         ["band 1: action MANUAL_REVIEW becomes PREVENT",
          "band 1: probability_at_least 0.5 becomes 0.7",
          "band 1: follow_up none becomes STORE_CREDIT"]),
        ({"bands": [*DOCUMENT["bands"],
                    {"action": "PREVENT", "expected_loss_minor_at_least": 5000}]},
         ["band PREVENT at expected_loss_minor_at_least 5000 comes: "
          "PREVENT at expected_loss_minor_at_least 5000"]),
        ({"orders_complete": True},
         ["orders_complete false becomes true", "rule other: mode shadow becomes live"]),
        ({"rules": [OTHER]},
         ["rule large goes: MANUAL_REVIEW when `payable_minor > 100.0` (risk, live)"]),
        ({"rules": [RULE, OTHER, {**RULE, "id": "new", "mode": "shadow"}]},
         ["rule new comes: MANUAL_REVIEW when `payable_minor > 100.0` (risk, shadow)"]),
        ({"rules": [OTHER, RULE]}, ["rules: order large, other becomes other, large"]),
        ({"rules": [{**RULE, "version": 2, "when": "payable_minor\n > 100.0", "action": "PREVENT"},
                    OTHER]},
         ["rule large: action MANUAL_REVIEW becomes PREVENT"]),
        ({"rules": [{**RULE, "when": "payable_minor >= 101.0", "follow_up":
                     {"code": "PARTIAL_AMOUNT", "amount_minor": "payable_minor\n- 5.0"}}, OTHER]},
         ["rule large: when `payable_minor > 100.0` becomes `payable_minor >= 101.0`",
          "rule large: follow_up none becomes PARTIAL_AMOUNT of `payable_minor - 5.0`"]),
        ({"rules": [{**RULE, "examples": {**RULE["examples"], "unknown": [{}]}}, OTHER]},
         ["rule large: examples changed"]),
        ({"limits": [{**LIMIT, "days": 7, "at_most": 3}]},
         ["limit a_day: days 1 becomes 7", "limit a_day: at_most 5 becomes 3",
          "limit a_day: description More than 5 refund requests of one customer within 1 day "
          "becomes More than 3 refund requests of one customer within 7 days",
          "limit a_day: when `refund_count_by_customer_1d >= 5.0` becomes "
          "`refund_count_by_customer_7d >= 3.0`"]),
        ({"limits": []},
         ["limit a_day goes: MANUAL_REVIEW when `refund_count_by_customer_1d >= 5.0` (live)"]),
    ],
)  # fmt: skip
def test_changes_are_told_in_sentences(changed, sentences):
    assert told(**changed) == sentences


def test_changes_are_plain_json():
    (change,) = changes(BEFORE, policy(fallback="ALLOW"))
    assert json.loads(json.dumps(change.to_json())) == {
        "part": "", "key": "fallback", "before": "MANUAL_REVIEW", "after": "ALLOW",
        "text": "fallback MANUAL_REVIEW becomes ALLOW",
    }  # fmt: skip


PREVENTING = {**RULE, "action": "PREVENT"}


@pytest.mark.parametrize(
    ("changed", "problems"),
    [
        ({}, []),
        ({"version": "2", "fallback": "ALLOW"}, []),
        ({"version": "2", "rules": [OTHER]}, []),
        ({"version": "2", "rules": [{**PREVENTING, "version": 2}, OTHER]}, []),
        ({"version": "2", "rules": [{**RULE, "version": 9}, OTHER]}, []),
        ({"version": "2", "limits": [{**LIMIT, "on_unknown": "miss"}]}, []),
        ({"fallback": "ALLOW"},
         [("version", "this version is in use with other content", "'1'", None)]),
        ({"note": "another"},
         [("version", "this version is in use with other content", "'1'", None)]),
        ({"version": "2", "rules": [PREVENTING, OTHER]},
         [("rules.large.version", "did not rise with the change", "1", "2")]),
        ({"version": "2", "rules": [{**RULE, "examples": {**RULE["examples"], "unknown": [{}]}}]},
         [("rules.large.version", "did not rise with the change", "1", "2")]),
        ({"version": "2", "limits": [{**LIMIT, "version": 2}]},
         [("limits.a_day.version", "fell from 3", "2", "3")]),
        ({"version": "2", "limits": [{**LIMIT, "version": 2, "at_most": 1}]},
         [("limits.a_day.version", "fell from 3", "2", "4")]),
        ({"version": "2", "limits": [], "rules": [{**RULE, "id": "a_day", "version": 3}]},
         [("rules.a_day.version", "did not rise with the change", "3", "4")]),
    ],
)  # fmt: skip
def test_a_version_stands_for_one_content(changed, problems):
    found = succession_problems(BEFORE, policy(**changed))
    assert [(p.place, p.message, p.value, p.nearest) for p in found] == problems
    lines = policy(**changed).text.split("\n")
    for problem in found:
        rest = lines[problem.line - 1][problem.column - 1 :]
        assert rest.startswith(problem.value.replace("'", '"'))


def test_what_only_spells_a_value_otherwise_is_no_change():
    spelled = {
        **RULE, "on_unknown": None, "follow_up": None,
        "examples": {"miss": [{"payable_minor": 100.0}], "hit": [{"payable_minor": 101.0}]},
    }  # fmt: skip
    assert succession_problems(BEFORE, policy(version="2", rules=[spelled, OTHER])) == ()


def test_a_derived_policy_is_told_by_what_acts():
    shadowed = BEFORE.with_mode("large", Mode.SHADOW)
    assert [change.to_text() for change in changes(BEFORE, shadowed)] == [
        "rule large: mode live becomes shadow"
    ]
    (gone,) = changes(BEFORE, BEFORE.without("a_day"))
    assert (gone.part, gone.key, gone.after) == ("limit a_day", "", None)
