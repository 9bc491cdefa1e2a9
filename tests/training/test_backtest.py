"""A backtest of a folder: its requests under two policies, its mature labels as the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rules
from features.money import DAY_MS, Rates
from features.tables import Tables
from rules.backtest import BacktestReport
from rules.decision import Action
from rules.policy import Policy
from serving.facts import FACTS
from tests.serving.champions import fixed
from tests.training.tables import START, folder_of
from training.backtest import backtest_folder, to_text

DEFAULT = (Path(rules.__file__).parent / "policies" / "default.yaml").read_text(encoding="utf-8")
NOW = START + 100 * DAY_MS
MATURITY_DAYS = 30


def policy_of(version: str, *changes: tuple[str, str]) -> Policy:
    text = DEFAULT.replace('version: "1"', f'version: "{version}"')
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return Policy.from_yaml(text, facts=FACTS)


@pytest.fixture(scope="module")
def default() -> Policy:
    return policy_of("1")


@pytest.fixture(scope="module")
def strict() -> Policy:
    """Everything of more than 40.00 is prevented, where the default asks a person above 200.00."""
    return policy_of(
        "2",
        ("payable_minor > 20000.0", "payable_minor > 4000.0"),
        ("hit: [{payable_minor: 20001}]", "hit: [{payable_minor: 4001}]"),
        ("miss: [{payable_minor: 20000}]", "miss: [{payable_minor: 4000}]"),
        (
            "  # an amount that cannot be converted may be a large one\n    action: MANUAL_REVIEW",
            "\n    action: PREVENT",
        ),
    )


def refund(number: int, amount_minor: int, day: float, **more: Any) -> dict[str, Any]:
    return {"refund_id": f"r-{number}", "customer_id": f"c-{number}", "amount_minor": amount_minor,
            "currency": "GBP", "known_at": START + int(day * DAY_MS),
            "reason": "ITEM_NOT_RECEIVED", "type": "REFUND", "policy": "STATUTORY",
            "order_id": f"o-{number}", **more}  # fmt: skip


def paid(number: int) -> dict[str, Any]:
    return {"refund_id": f"r-{number}", "status": "COMPLETED", "known_at": START + 20 * DAY_MS}


@pytest.fixture(scope="module")
def folder() -> Tables:
    """Abuse and an honest refund above 40.00, abuse below it, one immature, one of yen, one twice.

    Rows are not in the order of their ids, so a label that lands on another row would show.
    """
    requests = [
        refund(5, 9000, 5),
        refund(1, 7000, 1),
        refund(2, 6000, 2),
        refund(3, 3000, 3),
        refund(4, 5000, 95),
        refund(6, 700, 6, currency="JPY"),
        refund(2, 6500, 4),  # the second refund again, with another amount
    ]
    labels = [
        {"refund_id": f"r-{number}", "label": "REFUND_ABUSE", "source": "ANALYST",
         "known_at": START + 40 * DAY_MS}
        for number in (1, 3, 4)
    ]  # fmt: skip
    return folder_of(refund_requests=requests, labels=labels,
                     refund_outcomes=[paid(number) for number in (1, 2, 3, 6)])  # fmt: skip


@pytest.fixture(scope="module")
def report(folder, default, strict) -> BacktestReport:
    return backtest_folder(folder, fixed(0.01), default, strict, Rates("GBP"), as_of=NOW,
                           maturity_days=MATURITY_DAYS)  # fmt: skip


def test_every_request_is_decided_under_both_policies(report):
    assert report.requests == 7
    assert report.shifts[Action.ALLOW] == {
        Action.ALLOW: 1, Action.MANUAL_REVIEW: 0, Action.PREVENT: 5
    }  # fmt: skip
    # Yen without a rate cannot be told from a large amount: it is held by both.
    assert report.shifts[Action.MANUAL_REVIEW][Action.MANUAL_REVIEW] == 1
    assert report.payable_unknown == 1


def test_labels_lie_on_their_own_requests_and_only_mature_ones_count(report):
    truth = {change.refund_id: change.abuse for change in report.changes}
    # A refund sent again has its label at its first version only, as in training.
    assert [c.abuse for c in report.changes if c.refund_id == "r-2"] == [False, None]
    assert truth["r-1"] is True
    assert truth["r-4"] is None, "not mature"
    assert truth["r-5"] is None, "neither labelled nor paid"
    assert report.labelled == 4  # r-1, r-2, r-3 and r-6


def test_the_ledgers_hold_the_money(report, default):
    before, after = report.before, report.after
    assert (before.version, after.version) == ("1", "2")
    assert (before.abuse_paid.count, before.abuse_paid.payable_minor) == (2, 10_000)
    assert (after.abuse_paid.count, after.abuse_paid.payable_minor) == (1, 3_000)
    assert (after.abuse_prevented.count, after.abuse_prevented.payable_minor) == (1, 7_000)
    assert (after.honest_prevented.count, after.honest_prevented.payable_minor) == (1, 6_000)
    costs = default.costs
    review = costs.review_minor
    assert before.cost_minor == 10_000 + 2 * costs.fee_minor + review
    assert after.cost_minor == (
        3_000 + costs.fee_minor + costs.prevented_honest_multiple * 6_000 + review
    )


def test_labels_known_later_than_the_backtest_are_not_known(folder, default, strict):
    early = backtest_folder(folder, fixed(0.01), default, strict, Rates("GBP"),
                            as_of=START + 39 * DAY_MS, maturity_days=MATURITY_DAYS)  # fmt: skip
    assert early.before.abuse_paid.count == 0
    assert {c.abuse for c in early.changes} == {False, None}


def test_the_same_policy_twice_changes_nothing(folder, default):
    same = backtest_folder(folder, fixed(0.99), default, default, Rates("GBP"), as_of=NOW,
                           maturity_days=MATURITY_DAYS)  # fmt: skip
    assert same.changes == ()
    assert same.before == same.after
    assert "->" not in to_text(same)


def test_a_request_without_a_score_is_decided_by_the_fallback(folder, default):
    broken = fixed(fails=RuntimeError("boom"))
    held = backtest_folder(folder, broken, default, default, Rates("GBP"), as_of=NOW,
                           maturity_days=MATURITY_DAYS)  # fmt: skip
    assert held.before.held.count == held.requests == 7


def test_a_report_reads_as_text_and_as_json(report):
    text = to_text(report)
    assert text.startswith("7 requests, 4 with a mature label\nbefore: policy 1\n")
    assert "abuse paid 10,000, honest prevented 0" in text
    assert text.endswith("\n  ALLOW -> PREVENT: 5")
    document = json.loads(json.dumps(report.to_json()))
    assert document["shifts"]["ALLOW"]["PREVENT"] == 5
    assert document["after"]["abuse_prevented"] == {"count": 1, "payable_minor": 7000}
