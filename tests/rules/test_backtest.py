"""Backtests: two policies on one request, what is left out on purpose, and what made a change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.backtest import Cause, Compared, as_backtested, backtest, facts_read
from rules.decision import Action, Mode, Source
from rules.engine import Circumstances, ListHit, ListMatch, Score, decide
from rules.logged import Logged
from rules.policy import Policy

ALLOW, MANUAL_REVIEW, PREVENT = Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT
FACTS = {"payable_minor": "double", "a": "double", "b": "double",
         "refund_count_by_customer_1d": "double"}  # fmt: skip
BLOCKED = ListMatch(block=(ListHit("ip", "bots"),))
ALLOWED = ListMatch(allow=(ListHit("customer", "friend"),))


def rule(id: str, when: str, action: Action = MANUAL_REVIEW, **more: Any) -> dict[str, Any]:
    """A rule with examples that hold for `FACT > 5.0`."""
    fact = when.split()[0]
    return {"id": id, "version": 1, "stage": "risk", "when": when, "action": action.value,
            "reason": id.upper(), "description": id,
            "examples": {"hit": [{fact: 9.0}], "miss": [{fact: 1.0}]}, **more}  # fmt: skip


def policy(version: str, **changes: Any) -> Policy:
    document = {
        "version": version,
        "bands": [
            {"action": "MANUAL_REVIEW", "probability_at_least": 0.6},
            {"action": "PREVENT", "probability_at_least": 0.9},
        ],
        "rules": [],
        **changes,
    }
    return Policy.from_yaml(json.dumps(document), facts=FACTS)


LAX = policy("lax")
STRICT = policy("strict", bands=[
    {"action": "MANUAL_REVIEW", "probability_at_least": 0.3},
    {"action": "PREVENT", "probability_at_least": 0.5},
])  # fmt: skip


def logged(
    probability: float | None = 0.1, lists: ListMatch | None = None, **facts: float
) -> Logged:
    score = None if probability is None else Score(probability, 1.0)
    circumstances = Circumstances(lists=lists or ListMatch())
    return Logged("r", "c", 0, facts, score, circumstances)


def compared(before: Policy, after: Policy, row: Logged) -> Compared:
    (one,) = backtest(before, after, [row])
    return one


def causes(before: Policy, after: Policy, row: Logged) -> list[tuple[str, str]]:
    return [tuple(cause) for cause in compared(before, after, row).causes]


def test_both_decide_on_what_was_logged() -> None:
    rows = [logged(0.1), logged(0.4), logged(0.7), logged(0.95)]
    actions = [(one.before.action, one.after.action) for one in backtest(LAX, STRICT, rows)]
    assert actions == [
        (ALLOW, ALLOW), (ALLOW, MANUAL_REVIEW), (MANUAL_REVIEW, PREVENT), (PREVENT, PREVENT)
    ]  # fmt: skip


def test_a_degraded_decision_stays_so() -> None:
    one = compared(policy("a", fallback="ALLOW"), LAX, logged(None))
    assert (one.before.source, one.after.source) == (Source.FALLBACK, Source.FALLBACK)
    assert one.causes == (Cause("fallback", "MANUAL_REVIEW"),)


def test_nothing_is_explored_and_no_analyst_answers() -> None:
    exploring = policy("x", exploration={"share": 1.0, "max_amount_minor": 1e9})
    circumstances = Circumstances(disposition=PREVENT, exploration_draw=0.0)
    row = Logged("r", "c", 0, {"payable_minor": 5.0}, Score(0.7, 1.0), circumstances)
    assert decide(row.facts, row.score, exploring, circumstances).source is Source.MANUAL_REVIEW
    one = compared(exploring, exploring, row)
    assert (one.before.action, one.before.explored, one.before.propensity) == (
        MANUAL_REVIEW, False, 1.0
    )  # fmt: skip


def test_lists_and_the_sandbox_bear_on_both() -> None:
    assert compared(LAX, STRICT, logged(0.1, BLOCKED)).after.source is Source.LIST
    forced = as_backtested(Circumstances(sandbox=PREVENT, exploration_draw=0.5))
    assert forced == Circumstances(sandbox=PREVENT)


def test_what_was_answered_is_not_believed() -> None:
    told = Logged("r", "c", 0, {}, Score(0.1, 1.0), Circumstances(), policy_hash=LAX.hash,
                  action=PREVENT, source=Source.MODEL)  # fmt: skip
    assert compared(LAX, STRICT, told).before.action is ALLOW


# --- causes --------------------------------------------------------------------------------------


def test_a_band_is_a_cause() -> None:
    assert causes(LAX, STRICT, logged(0.4)) == [("band", "MANUAL_REVIEW")]
    assert causes(STRICT, LAX, logged(0.7)) == [("band", "PREVENT")]
    assert causes(LAX, STRICT, logged(0.1)) == []


def test_of_several_rules_each_is_a_cause_and_those_of_both_policies_are_none() -> None:
    one, two = rule("one", "a > 5.0"), rule("two", "b > 5.0")
    base = policy("base")
    assert causes(base, policy("c", rules=[one, two]), logged(a=9.0, b=9.0)) == [
        ("rule", "one"), ("rule", "two")
    ]  # fmt: skip
    severe = policy("d", rules=[one, rule("two", "b > 5.0", PREVENT)])
    assert causes(policy("e", rules=[one, two]), severe, logged(a=9.0, b=9.0)) == [("rule", "two")]


def test_a_shadow_rule_made_live_is_a_cause_both_ways() -> None:
    shadow = policy("s", rules=[rule("one", "a > 5.0", mode="shadow")])
    live = policy("l", rules=[rule("one", "a > 5.0")])
    assert causes(shadow, live, logged(a=9.0)) == [("rule", "one")]
    assert causes(live, shadow, logged(a=9.0)) == [("rule", "one")]


def test_a_limit_is_a_cause() -> None:
    limit = {"id": "per_day", "version": 1, "by": "customer", "days": 1, "at_most": 2,
             "action": "MANUAL_REVIEW"}  # fmt: skip
    row = logged(refund_count_by_customer_1d=2.0)
    assert causes(LAX, policy("limited", limits=[limit]), row) == [("limit", "per_day")]


def test_an_unsettled_rule_is_a_cause() -> None:
    hard = policy("h", rules=[rule("one", "a > 5.0", PREVENT, stage="hard")])
    one = compared(LAX, hard, logged())
    assert one.after.action is MANUAL_REVIEW and one.causes == (Cause("rule", "one"),)


def test_lists_are_causes_where_a_policy_counts_other_entities() -> None:
    deaf = policy("deaf", lists={"block": ["customer"], "allow": []})
    assert causes(LAX, deaf, logged(0.1, BLOCKED)) == [("list", "block")]
    assert causes(LAX, deaf, logged(0.95, ALLOWED)) == [("list", "allow")]


def test_an_allow_list_silences_the_band_of_both() -> None:
    hard = rule("one", "a > 5.0", stage="hard")
    strict = policy("t", bands=[{"action": "MANUAL_REVIEW", "probability_at_least": 0.3}],
                    rules=[hard])  # fmt: skip
    assert causes(LAX, strict, logged(0.4, ALLOWED, a=9.0)) == [("rule", "one")]


def test_the_facts_that_causes_read() -> None:
    before = policy("b", rules=[rule("one", "a > 5.0")])
    after = policy("c", rules=[rule("one", "b > 5.0")])
    assert facts_read([Cause("rule", "one")], before, after) == ("a", "b")
    assert facts_read([Cause("band", "PREVENT")], before) == (
        "expected_loss_minor", "probability"
    )  # fmt: skip
    assert facts_read([Cause("list", "block")], before) == ()


def _document(kinds: list[tuple[str, Action, str]]) -> Policy:
    rules = [
        rule(f"r{at}", f"{fact} > 5.0", action, stage=stage)
        for at, (fact, action, stage) in enumerate(kinds)
    ]
    return policy("random", rules=rules)


@pytest.fixture(scope="module")
def nine() -> Policy:
    """Rules of both facts, stages and actions."""
    return _document([
        (fact, action, stage)
        for fact in ("a", "b") for action in (MANUAL_REVIEW, PREVENT) for stage in ("hard", "risk")
    ])  # fmt: skip


known = st.none() | st.floats(0, 10)
rows = st.builds(
    lambda probability, lists, a, b: logged(probability, lists, a=a, b=b),
    st.none() | st.floats(0, 1), st.sampled_from([ListMatch(), ALLOWED, BLOCKED]), known, known,
)  # fmt: skip


@given(row=rows, at=st.integers(0, 7), data=st.data())
def test_where_one_rule_differs_it_alone_is_the_cause(nine: Policy, row, at, data) -> None:
    base = nine
    for other in data.draw(st.sets(st.integers(0, 7).filter(lambda other: other != at))):
        base = base.with_mode(f"r{other}", Mode.SHADOW)
    for before, after in ((base, base.without(f"r{at}")), (base.without(f"r{at}"), base)):
        one = compared(before, after, row)
        assert one.moved == (one.before.action is not one.after.action)
        assert one.causes == ((Cause("rule", f"r{at}"),) if one.moved else ())


@given(row=rows, live=st.sets(st.integers(0, 7)), others=st.sets(st.integers(0, 7)))
def test_causes_call_for_the_more_severe_action_in_one_policy_only(
    nine: Policy, row, live, others
) -> None:
    def only(kept: set[int]) -> Policy:
        made = nine
        for at in range(8):
            made = made if at in kept else made.with_mode(f"r{at}", Mode.SHADOW)
        return made

    one = compared(only(live), only(others), row)
    if not one.moved:
        return
    severe, mild = sorted((one.before, one.after), key=lambda it: it.action)[::-1]
    calling = [
        {r.rule_id for r in of.rules if r.mode is Mode.LIVE and r.calls_for >= severe.action}
        for of in (severe, mild)
    ]
    assert one.causes
    assert {cause.id for cause in one.causes if cause.kind == "rule"} <= calling[0] - calling[1]
