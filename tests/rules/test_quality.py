"""Counting what rules and bands do: against plain loops over `decide`, and by hand."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rules.backtest import as_backtested
from rules.decision import Mode, Outcome
from rules.engine import Circumstances, ListHit, ListMatch, Score, decide, evaluate
from rules.logged import Logged
from rules.policy import Policy
from rules.quality import count_policy
from tests.rules.logs import ALLOW, DAY_MS, PREVENT, REVIEW, START, logged, policy_of, rule

HARD, SHADOW = {"stage": "hard"}, {"mode": "shadow"}
BANDS = [
    {"action": "MANUAL_REVIEW", "probability_at_least": 0.3},
    {"action": "MANUAL_REVIEW", "expected_loss_minor_at_least": 2000},
    {"action": "PREVENT", "probability_at_least": 0.8, "expected_loss_minor_at_least": 100},
]
RULES = [
    rule("hard_review", "a >= 4.0 && word == 'bad'", **HARD),
    rule("hard_prevent", "a >= 6.0", "PREVENT", **HARD, on_unknown="miss"),
    rule("same_as_hard", "a >= 6.0", "PREVENT"),
    rule("risk_review", "b >= 2.0"),
    rule("risk_unsure", "b >= 5.0 && a >= 1.0", on_unknown="review"),
    rule("quiet", "a >= 3.0", "PREVENT", **SHADOW),
    rule("quiet_unsure", "word == 'bad'", **SHADOW, on_unknown="review"),
]
POLICY = policy_of(*RULES, bands=BANDS)

numbers = st.one_of(st.none(), st.integers(0, 7).map(float), st.just(float("nan")))
facts = st.fixed_dictionaries({
    "a": numbers, "b": numbers, "word": st.sampled_from(["good", "bad", None]),
    "payable_minor": st.one_of(st.none(), st.integers(0, 9000).map(float)),
})  # fmt: skip
lists = st.builds(
    ListMatch,
    block=st.sampled_from([(), (), (ListHit("ip", "bots"),)]),
    allow=st.sampled_from([(), (), (ListHit("customer", "friend"),)]),
)
around = st.builds(
    Circumstances, lists=lists, disposition=st.sampled_from([None, None, ALLOW, PREVENT]),
    exploration_draw=st.sampled_from([None, 0.1]),
)  # fmt: skip


@st.composite
def rows(draw: Any) -> list[Logged]:
    return [
        logged(f"r-{draw(st.integers(0, 12))}", probability=draw(st.sampled_from([None, 0.1, 0.9])),
               customer=f"c-{draw(st.integers(0, 3))}", at=START + draw(st.integers(0, 9)) * DAY_MS,
               abuse=draw(st.sampled_from([None, False, True])), circumstances=draw(around),
               **draw(facts))
        for _ in range(draw(st.integers(0, 12)))
    ]  # fmt: skip


def action(row: Logged, policy: Policy) -> Any:
    return decide(row.facts, row.score, policy, as_backtested(row.circumstances)).action


def outcome(row: Logged, rule_id: str) -> Outcome:
    found = evaluate(row.facts, row.score, POLICY, row.circumstances.lists)
    return next(result.outcome for result in found if result.rule_id == rule_id)


@settings(max_examples=60, deadline=None)
@given(rows())
def test_every_count_is_what_a_plain_loop_finds(history: list[Logged]) -> None:
    counts = count_policy(POLICY, history)
    assert counts.requests == len(history)
    assert counts.actions == Counter(action(row, POLICY) for row in history)
    assert counts.payable_unknown == sum(row.payable_minor is None for row in history)
    hit = {
        id: [row for row in history if outcome(row, id) is Outcome.HIT] for id in counts.rules
    }  # fmt: skip
    for id, of in counts.rules.items():
        unsure = [row for row in history if outcome(row, id) is Outcome.UNKNOWN]
        assert (of.hits, of.unknowns) == (len(hit[id]), len(unsure)), id
        assert of.payable_minor == sum(row.payable_minor or 0 for row in hit[id])
        assert of.last_hit == max((row.decided_at for row in hit[id]), default=None)
        assert of.first_hit == min((row.decided_at for row in hit[id]), default=None)
        without = POLICY.without(id)
        moved = [row for row in history if action(row, without) is not action(row, POLICY)]
        decisive = [row for row in moved if outcome(row, id) is Outcome.HIT]
        assert of.decisive == len(decisive), id
        assert of.decisive_unknowns == len(moved) - len(decisive), id
        unsure_minor = sum(row.payable_minor or 0 for row in moved if row not in decisive)
        assert of.decisive_unknowns_minor == unsure_minor
        assert of.decisive_minor == sum(row.payable_minor or 0 for row in decisive)
        assert of.shifts == Counter(
            (action(row, without), action(row, POLICY)) for row in decisive
        )  # fmt: skip
    for one, other in combinations(counts.rules, 2):
        both = sum(outcome(row, other) is Outcome.HIT for row in hit[one])
        assert counts.common(one, other) == counts.common(other, one) == both
    for place, of_band in enumerate(counts.bands):
        bandless = policy_of(*RULES, bands=BANDS[:place] + BANDS[place + 1 :])
        moved = [row for row in history if action(row, bandless) is not action(row, POLICY)]
        assert of_band.decisive == len(moved), place


@settings(max_examples=40, deadline=None)
@given(rows())
def test_a_refund_is_kept_once_as_it_was_first_hit_with_whatever_label_came(history) -> None:
    counts = count_policy(POLICY, history)
    kept = counts.refunds
    ids = {row.refund_id for row in history if any(outcome(row, id) is Outcome.HIT
                                                    for id in counts.rules)}  # fmt: skip
    assert len(kept) == len(ids)
    for id, of in counts.rules.items():
        hit = {row.refund_id for row in history if outcome(row, id) is Outcome.HIT}
        assert len(set(of.places)) == len(hit), id
        assert len(of.places) == of.hits, id


def test_the_first_request_and_any_label_of_a_refund_are_kept() -> None:
    counts = count_policy(POLICY, [
        logged("r", b=3.0, payable_minor=100.0, at=START),
        logged("r", b=3.0, payable_minor=900.0, at=START + 1, abuse=True),
        logged("other", b=0.0, payable_minor=1.0),
    ])  # fmt: skip
    assert list(counts.refunds.payable_minor) == [100.0]
    assert list(counts.refunds.decided_at) == [START]
    assert list(counts.refunds.abuse) == [1]
    assert list(counts.rules["risk_review"].places) == [0, 0]


def test_a_rule_beside_its_double_never_decides() -> None:
    counts = count_policy(POLICY, [logged("r", a=7.0, b=0.0, word="good", payable_minor=500.0)])
    assert counts.actions == {PREVENT: 1}
    for id in ("hard_prevent", "same_as_hard"):
        assert (counts.rules[id].hits, counts.rules[id].decisive) == (1, 0)
    alone = count_policy(POLICY.without("same_as_hard"),
                         [logged("r", a=7.0, b=0.0, word="good", payable_minor=500.0)])  # fmt: skip
    assert alone.rules["hard_prevent"].shifts == {(ALLOW, PREVENT): 1}
    assert alone.rules["hard_prevent"].decisive_minor == 500.0


def test_history_is_told_of_the_facts_of_rules_that_never_hit() -> None:
    counts = count_policy(POLICY, [
        logged("r1", a=1.0, b=3.0, word="good"), logged("r2", a=2.0, word="fair"),
        logged("r3", word=None),
    ])  # fmt: skip
    assert counts.rules["risk_review"].hits == 1
    seen = counts.facts["a"]
    assert (seen.known, seen.low, seen.high) == (2, 1.0, 2.0)
    assert counts.facts["word"].values == {"good", "fair"}
    hit_all = count_policy(policy_of(rule("one", "a >= 1.0")), [logged("r", a=1.0)])
    assert hit_all.facts == {}


def test_values_of_a_fact_are_kept_up_to_a_number() -> None:
    policy = policy_of(rule("one", "word == 'bad'"))
    few = count_policy(policy, [logged(f"r{i}", word=f"w{i}") for i in range(3)]).facts["word"]
    many = count_policy(policy, [logged(f"r{i}", word=f"w{i}") for i in range(99)]).facts["word"]
    assert (few.all_values, len(few.values)) == (True, 3)
    assert (many.all_values, many.known) == (False, 99)
    assert len(many.values) < 99


def test_limits_count_as_rules() -> None:
    kinds = {"refund_count_by_customer_1d": "double"}
    policy = Policy.from_yaml(
        "{version: '1', bands: [], rules: [], limits: [{id: per_day, version: 1, by: customer, "
        "days: 1, at_most: 2, action: MANUAL_REVIEW}]}", facts=kinds)  # fmt: skip
    counts = count_policy(policy, [
        logged("r1", refund_count_by_customer_1d=1.0),
        logged("r2", refund_count_by_customer_1d=2.0), logged("r3"),
    ])  # fmt: skip
    of = counts.rules["per_day"]
    assert (of.hits, of.unknowns, of.decisive) == (1, 1, 1)
    assert of.shifts == {(ALLOW, REVIEW): 1}
    assert of.missing == {"refund_count_by_customer_1d": 1}


def test_shadow_rules_are_never_decisive() -> None:
    counts = count_policy(POLICY, [logged("r", a=3.0, b=0.0, word="good", payable_minor=1.0)])
    assert (counts.rules["quiet"].hits, counts.rules["quiet"].decisive) == (1, 0)
    assert counts.rules["quiet"].mode is Mode.SHADOW
    assert counts.actions == {ALLOW: 1}


def test_score_facts_are_read_from_the_score() -> None:
    policy = policy_of(
        rule("sure", "probability > 0.5",
             examples={"hit": [{"probability": 0.9}], "miss": [{"probability": 0.1}]})
    )  # fmt: skip
    seen = count_policy(policy, [logged("r", probability=0.25), logged("s", probability=None)])
    assert (seen.facts["probability"].known, seen.facts["probability"].high) == (1, 0.25)
    assert Score(0.25, None).probability == 0.25
