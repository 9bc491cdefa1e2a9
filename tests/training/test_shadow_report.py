"""The report on shadow rules: money by hand, and advice that is never surer than its interval."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rules.engine import Circumstances
from rules.logged import Logged
from rules.policy import Policy
from tests.rules.logs import ALLOW, DAY_MS, PREVENT, REVIEW, START, logged, policy_of, rule
from training.policy_figures import LEAST_CUSTOMERS
from training.policy_judgement import Maturity
from training.shadow_report import Advice, ShadowReport, ShadowRule, shadow_report

COSTS = {"fee_minor": 500, "review_minor": 400, "prevented_honest_multiple": 1.5}
QUIET = rule("quiet", "a >= 3.0", "PREVENT", mode="shadow")
POLICY = policy_of(rule("loud", "b >= 1.0"), QUIET, costs=COSTS,
                   exploration={"share": 0.25, "max_amount_minor": 900})  # fmt: skip
MATURITY = Maturity(START + 40 * DAY_MS, 30)
LATE = START + 20 * DAY_MS


def judged(rows: list[Logged], policy: Policy = POLICY) -> ShadowReport:
    return shadow_report({policy.hash: policy}, rows, costs=policy.costs, currency="GBP",
                         maturity=MATURITY)  # fmt: skip


def only(report: ShadowReport) -> ShadowRule:
    (found,) = report.rules
    return found


def paid(n: int, amount: float, abuse: bool | None, policy: Policy = POLICY, name: str = "r",
         a: float = 4.0, at: int = START) -> list[Logged]:  # fmt: skip
    return [logged(f"{name}{i}", policy, a=a, b=0.0, payable_minor=amount, abuse=abuse, at=at)
            for i in range(n)]  # fmt: skip


@pytest.fixture(scope="module")
def by_hand() -> list[Logged]:
    drawn = Circumstances(exploration_draw=0.1)
    return [
        logged("paid-abuse", POLICY, a=4.0, b=0.0, payable_minor=1000.0, abuse=True),
        logged("paid-honest", POLICY, a=4.0, b=0.0, payable_minor=2000.0, abuse=False),
        logged("held-abuse", POLICY, a=4.0, b=1.0, payable_minor=5000.0, abuse=True),
        logged("held-honest", POLICY, a=4.0, b=1.0, payable_minor=1200.0, abuse=False),
        logged("young", POLICY, a=4.0, b=0.0, payable_minor=9000.0, at=LATE),
        logged("unseen", POLICY, a=4.0, b=1.0, payable_minor=7000.0),
        logged("explored", POLICY, a=4.0, b=1.0, payable_minor=800.0, abuse=True,
               circumstances=drawn),
        logged("missed", POLICY, a=0.0, b=1.0, payable_minor=1.0, abuse=True),
        logged("unsettled", POLICY, b=0.0, payable_minor=1.0, abuse=False),
    ]  # fmt: skip


def test_hits_and_changes_are_counted(by_hand) -> None:
    found = only(judged(by_hand))
    assert (found.rule_id, found.version, found.action) == ("quiet", 1, PREVENT)
    assert (found.evaluated, found.hits, found.unknowns) == (9, 7, 1)
    assert found.missing == {"a": 1}
    assert found.last_hit == LATE
    assert found.hits_minor == 1000 + 2000 + 5000 + 1200 + 9000 + 7000 + 800
    changes = {(s.before, s.after): (s.requests, s.payable_minor) for s in found.changes}
    assert changes == {(ALLOW, PREVENT): (3, 12_000), (REVIEW, PREVENT): (4, 14_000)}
    assert found.reviews_per_day == -4 / 20  # the decisions span twenty days


def test_money_is_that_of_labelled_refunds(by_hand) -> None:
    effect = only(judged(by_hand)).effect
    assert (effect.changed, effect.labelled, effect.customers) == (7, 5, 5)
    assert (effect.abuse_stopped.minor, effect.abuse_stopped.refunds) == (1000, 1)
    assert (effect.honest_prevented.minor, effect.honest_prevented.refunds) == (3200, 2)
    assert effect.honest_held.refunds == 0
    saved = 1500 - 3000 + 400 + (400 - 1800) + 400
    assert effect.saved.minor == saved
    weighed = effect.saved_weighted
    assert weighed is not None
    # Only what was paid: the explored refund stands for four.
    assert (weighed.minor, weighed.refunds) == (1500 - 3000 + 4 * 400, 3)


def test_precision_says_who_has_no_label(by_hand) -> None:
    precision = only(judged(by_hand)).precision
    assert (precision.refunds, precision.labelled, precision.abuse) == (7, 5, 3)
    assert (precision.young, precision.unseen) == (1, 1)
    assert precision.last_matures_at == LATE + 30 * DAY_MS
    assert precision.share.value == 3 / 5
    assert precision.weighted is not None
    assert precision.weighted.value == pytest.approx((1 + 4) / (1 + 1 + 4))


def test_a_refund_sent_again_counts_once_in_money(by_hand) -> None:
    again = [*by_hand, replace(by_hand[0], decided_at=START + DAY_MS)]
    found = only(judged(again))
    assert found.hits == 8
    assert found.effect.saved == only(judged(by_hand)).effect.saved


ENOUGH = LEAST_CUSTOMERS


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        (paid(50, 5000, None, a=0.0), Advice.NEVER_HITS),
        (paid(ENOUGH - 1, 5000, True), Advice.TOO_FEW),
        (paid(400, 5000, None), Advice.TOO_FEW),
        (paid(ENOUGH, 5000, True), Advice.BETTER_LIVE),
        (paid(ENOUGH, 5000, False), Advice.WORSE_LIVE),
        (paid(30, 5000, True) + paid(30, 5000, False, name="h"), Advice.CANNOT_BE_TOLD),
    ],
)
def test_advice_follows_the_interval(rows: list[Logged], advice: Advice) -> None:
    report = judged(rows)
    assert only(report).advice is advice
    assert f"advice: {report.to_json()['rules'][0]['advice_sentence']}" in report.to_text()


def test_advice_on_a_hard_rule_says_what_labels_do_not_judge() -> None:
    hard = policy_of(rule("terms", "a >= 3.0", "PREVENT", mode="shadow", stage="hard"), costs=COSTS)
    report = judged(paid(ENOUGH, 5000, False, hard), hard)
    assert only(report).advice is Advice.WORSE_LIVE
    assert "labels of abuse do not judge" in report.to_text()


def test_many_refunds_of_few_customers_are_too_few() -> None:
    rows = [replace(row, customer=f"c{i % 5}") for i, row in enumerate(paid(200, 5000, True))]
    assert only(judged(rows)).advice is Advice.TOO_FEW


def test_what_others_answer_already_changes_nothing() -> None:
    twin = policy_of(rule("loud", "a >= 2.0", "PREVENT"), QUIET)
    found = only(judged(paid(50, 5000, True, twin), twin))
    assert found.advice is Advice.CHANGES_NOTHING
    assert (found.answered, found.answered_by_rule) == (50, 50)
    assert found.beside == {"loud": 50}


def test_weights_that_contradict_forbid_advice() -> None:
    """Held abuse that analysts labelled speaks for the rule; what chance paid speaks against it."""
    held = [logged(f"h{i}", POLICY, a=4.0, b=0.0, payable_minor=50_000.0, abuse=True)
            for i in range(40)]  # fmt: skip
    drawn = Circumstances(exploration_draw=0.1)
    explored = [logged(f"e{i}", POLICY, a=4.0, b=1.0, payable_minor=900.0, abuse=False,
                       circumstances=drawn) for i in range(40)]  # fmt: skip
    assert only(judged(held + explored)).advice is Advice.BETTER_LIVE
    looked_into = [replace(row, action=REVIEW) for row in held]
    assert only(judged(looked_into + explored)).advice is Advice.CANNOT_BE_TOLD


def test_the_report_reads_as_text_and_as_json(by_hand) -> None:
    report = judged(by_hand)
    text = report.to_text()
    assert text.startswith("shadow rules on 9 decisions from 2026-05-28 to 2026-06-17, by policy 1")
    assert "hit 7 (77.8 %), could not be settled on 1; last hit 2026-06-17" in text
    assert "ALLOW -> PREVENT: 3, 120.00 GBP" in text
    assert "abuse stopped 10.00 GBP on 1 refund (" in text
    assert "1 younger than 30 days and 1 neither paid nor looked into" in text
    assert "too early to judge: labelled refunds of 5 customers" in text
    assert "\N{NO-BREAK SPACE}" not in text
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["rules"][0]["effect"]["saved"]["minor"] == -2100


def test_without_a_shadow_rule_the_report_says_so() -> None:
    plain = policy_of(rule("loud", "b >= 1.0"))
    report = judged([logged("r", plain, b=2.0)], plain)
    assert "no rule and no limit was in the shadow" in report.to_text()
    assert "How to read" not in report.to_text()


def test_an_unsettled_rule_is_told_by_its_fact() -> None:
    rows = [logged(f"r{i}", POLICY, b=0.0, payable_minor=1.0) for i in range(9)]
    assert "mostly not be settled, for want of a (9)" in judged(rows).to_text()
