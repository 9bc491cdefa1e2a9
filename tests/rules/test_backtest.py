"""Backtests: the shift of actions, the money, and what is left out on purpose."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.backtest import LoggedFacts, backtest
from rules.decision import Action
from rules.engine import ListMatch, Score, decide
from rules.policy import Policy

ALLOW, MANUAL_REVIEW, PREVENT = Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT


def policy(version: str, review_at: float, prevent_at: float, **changes) -> Policy:
    document = {
        "version": version,
        "costs": {"fee_minor": 100, "review_minor": 40, "prevented_honest_multiple": 2},
        "bands": [
            {"action": "MANUAL_REVIEW", "probability_at_least": review_at},
            {"action": "PREVENT", "probability_at_least": prevent_at},
        ],
        "rules": [],
        **changes,
    }
    return Policy.from_yaml(json.dumps(document), facts={"payable_minor": "double"})


LAX, STRICT = policy("lax", 0.6, 0.9), policy("strict", 0.3, 0.5)


def logged(refund_id, probability, payable_minor, abuse=None, **changes) -> LoggedFacts:
    facts = {"payable_minor": payable_minor}
    return LoggedFacts(refund_id, facts, Score(probability, 1.0), abuse=abuse, **changes)


ROWS = [
    logged("honest-low", 0.1, 1000.0, abuse=False),
    logged("abuse-middle", 0.4, 2000.0, abuse=True),
    logged("honest-middle", 0.7, 3000.0, abuse=False),
    logged("unlabelled", 0.55, 4000.0),
    logged("abuse-high", 0.95, 5000.0, abuse=True),
    logged("unknown-amount", 0.4, None),
]


def test_the_report_adds_up_by_hand():
    report = backtest(LAX, STRICT, iter(ROWS))
    assert (report.requests, report.labelled, report.payable_unknown) == (6, 4, 1)
    assert report.shifts == {
        ALLOW: {ALLOW: 1, MANUAL_REVIEW: 2, PREVENT: 1},
        MANUAL_REVIEW: {ALLOW: 0, MANUAL_REVIEW: 0, PREVENT: 1},
        PREVENT: {ALLOW: 0, MANUAL_REVIEW: 0, PREVENT: 1},
    }
    before, after = report.before, report.after
    assert (before.paid.count, before.paid.payable_minor) == (4, 7000.0)
    assert (before.held.payable_minor, before.prevented.payable_minor) == (3000.0, 5000.0)
    assert before.abuse_paid.payable_minor == 2000.0
    assert before.cost_minor == (2000 + 100) + 40
    assert (after.paid.payable_minor, after.held.payable_minor) == (1000.0, 2000.0)
    assert after.prevented.payable_minor == 3000.0 + 4000.0 + 5000.0
    assert after.honest_prevented.payable_minor == 3000.0
    assert after.abuse_prevented.payable_minor == 5000.0
    assert after.cost_minor == 2 * 40 + 2 * 3000


def test_the_changed_refunds_are_named():
    changes = {change.refund_id: change for change in backtest(LAX, STRICT, ROWS).changes}
    assert set(changes) == {"abuse-middle", "honest-middle", "unlabelled", "unknown-amount"}
    change = changes["honest-middle"]
    assert (change.before, change.after) == (MANUAL_REVIEW, PREVENT)
    assert (change.payable_minor, change.abuse) == (3000.0, False)
    assert changes["unknown-amount"].payable_minor is None


def test_the_candidate_does_not_set_its_own_prices():
    cheap = policy("cheap", 0.3, 0.5, costs={})
    priced = backtest(LAX, STRICT, ROWS).after.cost_minor
    assert backtest(LAX, cheap, ROWS).after.cost_minor == priced


def test_lists_rate_limits_and_missing_scores_are_replayed():
    rows = [
        logged("blocked", 0.1, 10.0, lists=ListMatch(block=("b",))),
        logged("flooding", 0.1, 10.0, rate_limited=True),
        replace(logged("degraded", 0.1, 10.0), score=None),
    ]
    report = backtest(LAX, policy("open", 0.6, 0.9, fallback="ALLOW"), rows)
    assert report.before.prevented.count == report.after.prevented.count == 1
    assert (report.before.held.count, report.after.held.count) == (2, 1)
    assert [change.refund_id for change in report.changes] == ["degraded"]


def test_nothing_is_explored_in_a_backtest():
    exploring = policy("lax", 0.6, 0.9, exploration={"share": 1.0, "max_amount_minor": 1e9})
    assert backtest(LAX, exploring, ROWS).changes == ()


def test_the_report_is_plain_json():
    told = json.loads(json.dumps(backtest(LAX, STRICT, ROWS).to_json()))
    assert told["shifts"]["ALLOW"] == {"ALLOW": 1, "MANUAL_REVIEW": 2, "PREVENT": 1}
    assert told["before"]["paid"] == {"count": 4, "payable_minor": 7000.0}
    assert told["changes"][0]["refund_id"] == "abuse-middle"
    assert told["changes"][0]["after"] == "MANUAL_REVIEW"


rows = st.builds(
    logged,
    st.text(max_size=3),
    st.floats(0, 1),
    st.none() | st.integers(0, 10**9).map(float),
    st.sampled_from([None, True, False]),
)


@pytest.mark.parametrize("candidate", [LAX, STRICT])
@given(log=st.lists(rows, max_size=20))
def test_every_refund_is_booked_once_under_each_policy(candidate, log):
    report = backtest(LAX, candidate, log)
    total = sum(row.facts["payable_minor"] or 0.0 for row in log)
    for ledger in (report.before, report.after):
        tallies = (ledger.paid, ledger.held, ledger.prevented)
        assert sum(tally.count for tally in tallies) == len(log)
        assert sum(tally.payable_minor for tally in tallies) == total
    assert sum(sum(row.values()) for row in report.shifts.values()) == len(log)
    moved = [
        row.refund_id
        for row in log
        if decide(row.facts, row.score, LAX, row.lists).action
        is not decide(row.facts, row.score, candidate, row.lists).action
    ]
    assert [change.refund_id for change in report.changes] == moved
