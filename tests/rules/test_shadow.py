"""Counting shadow rules: against the same policy written with the rule live, and by hand."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings

from rules.decision import Mode, Outcome
from rules.engine import Circumstances, evaluate
from rules.logged import Logged
from rules.shadow import count_shadow
from tests.rules.logs import ALLOW, PREVENT, REVIEW, START, logged, policy_of, rule
from tests.rules.test_quality import BANDS, POLICY, RULES, action, rows

QUIET = ("quiet", "quiet_unsure")


def decided(history: list[Logged]) -> list[Logged]:
    return [
        logged(row.refund_id, POLICY, customer=row.customer, at=row.decided_at, abuse=row.abuse,
               probability=row.score.probability if row.score else None,
               circumstances=row.circumstances, **row.facts)
        for row in history
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(rows())
def test_changes_are_those_of_the_policy_written_with_the_rule_live(history) -> None:
    counts = count_shadow({POLICY.hash: POLICY}, decided(history))
    assert counts.rules.keys() == ({(id, 1) for id in QUIET} if history else set())
    for (id, _), of in counts.rules.items():
        written = [{**r, "mode": "live"} if r["id"] == id else r for r in RULES]
        live = policy_of(*written, bands=BANDS)
        shifts = [(action(row, POLICY), action(row, live), row) for row in history]
        moved = [(before, after, row) for before, after, row in shifts if before is not after]
        assert of.changes == Counter((before, after) for before, after, _ in moved)
        for shift, minor in of.changes_minor.items():
            assert minor == sum(r.payable_minor or 0 for b, a, r in moved if (b, a) == shift)
        results = [
            next(r for r in evaluate(row.facts, row.score, POLICY, row.circumstances.lists)
                 if r.rule_id == id)
            for row in history
        ]  # fmt: skip
        hits = [row for row, r in zip(history, results, strict=True) if r.outcome is Outcome.HIT]
        assert (of.evaluated, of.hits) == (len(history), len(hits))
        assert of.unknowns == sum(r.outcome is Outcome.UNKNOWN for r in results)
        assert of.hits_minor == sum(row.payable_minor or 0 for row in hits)
        assert of.answered == sum(action(row, POLICY) >= results[0].action for row in hits)
        beside: Counter[str] = Counter()
        answered_by_rule = 0
        for row in hits:
            others = [r for r in evaluate(row.facts, row.score, POLICY, row.circumstances.lists)
                      if r.mode is Mode.LIVE]  # fmt: skip
            beside.update(r.rule_id for r in others if r.outcome is Outcome.HIT)
            answered_by_rule += any(r.calls_for >= results[0].action for r in others)
        assert of.beside == beside
        assert of.answered_by_rule == answered_by_rule


def test_requests_of_unknown_policies_are_counted_apart() -> None:
    other = policy_of(rule("quiet", "a >= 3.0", mode="shadow"), version="9")
    rows = [logged("r1", POLICY, a=4.0), logged("r2", other, a=4.0)]
    counts = count_shadow({POLICY.hash: POLICY}, rows)
    assert (counts.requests, counts.elsewhere) == (2, 1)
    assert counts.rules["quiet", 1].evaluated == 1


def test_a_rule_is_followed_through_policies_and_a_new_version_is_another() -> None:
    one = policy_of(rule("quiet", "a >= 3.0", mode="shadow"), version="1")
    two = policy_of(rule("quiet", "a >= 3.0", mode="shadow"), rule("b", "b > 1.0"), version="2")
    three = policy_of(rule("quiet", "a >= 5.0", mode="shadow") | {"version": 2}, version="3")
    live = policy_of(rule("quiet", "a >= 3.0"), version="4")
    policies = {policy.hash: policy for policy in (one, two, three, live)}
    rows = [logged(f"r{i}", policy, a=4.0, at=START + i)
            for i, policy in enumerate(policies.values())]  # fmt: skip
    counts = count_shadow(policies, rows)
    assert {key: (of.evaluated, of.hits) for key, of in counts.rules.items()} == {
        ("quiet", 1): (2, 2), ("quiet", 2): (1, 0)
    }  # fmt: skip
    assert counts.rules["quiet", 1].policies == {one.hash, two.hash}
    assert counts.rules["quiet", 1].last_hit == START + 1


def test_only_the_rule_asked_for_is_counted() -> None:
    row = logged("r", POLICY, a=0.0, payable_minor=1.0)
    counts = count_shadow({POLICY.hash: POLICY}, [row], "quiet_unsure")
    assert {id for id, _ in counts.rules} == {"quiet_unsure"}
    assert counts.rules["quiet_unsure", 1].changed_unknowns == 1


def test_exploration_does_not_hide_what_would_have_changed() -> None:
    chance = {"share": 1.0, "max_amount_minor": 10_000}
    quiet = rule("quiet", "a >= 3.0", "PREVENT", mode="shadow")
    policy = policy_of(rule("loud", "b >= 1.0"), quiet, exploration=chance)
    row = logged("r", policy, a=4.0, b=2.0, payable_minor=500.0,
                 circumstances=Circumstances(exploration_draw=0.0))  # fmt: skip
    assert (row.action, row.explored) == (ALLOW, True)
    counts = count_shadow({policy.hash: policy}, [row])
    assert counts.rules["quiet", 1].changes == {(REVIEW, PREVENT): 1}
