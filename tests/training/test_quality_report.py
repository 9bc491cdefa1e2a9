"""The quality of a policy: money by hand, and each finding where it belongs and nowhere else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from rules.logged import Logged
from rules.policy import Policy
from tests.rules.logs import ALLOW, DAY_MS, PREVENT, START, logged, policy_of, rule
from training.policy_judgement import Maturity
from training.quality_findings import FEW_HITS, Kind
from training.quality_report import QualityReport, quality_report

COSTS = {"fee_minor": 500, "review_minor": 400, "prevented_honest_multiple": 1.5}
MATURITY = Maturity(START + 100 * DAY_MS, 30)


def judged(policy: Policy, rows: list[Logged]) -> QualityReport:
    return quality_report(policy, rows, currency="GBP", maturity=MATURITY)


def kinds(report: QualityReport) -> dict[Kind, list[tuple[str, ...]]]:
    found: dict[Kind, list[tuple[str, ...]]] = {}
    for finding in report.findings:
        found.setdefault(finding.kind, []).append(finding.rules)
    return found


def said(report: QualityReport, kind: Kind) -> str:
    (finding,) = [finding for finding in report.findings if finding.kind is kind]
    return finding.sentence


def requests(n: int, name: str = "r", abuse: bool | None = None, **facts: object) -> list[Logged]:
    facts = {"a": 0.0, "b": 0.0, "word": "good", "payable_minor": 1000.0, **facts}
    return [logged(f"{name}{i}", abuse=abuse, **facts) for i in range(n)]


def test_money_is_what_the_rule_alone_decides() -> None:
    policy = policy_of(rule("mild", "a >= 2.0"), rule("hard", "a >= 5.0", "PREVENT"), costs=COSTS)
    report = judged(policy, [
        *requests(1, "a", abuse=True, a=6.0, payable_minor=1000.0),
        *requests(1, "b", abuse=False, a=6.0, payable_minor=2000.0),
        *requests(1, "c", abuse=True, a=3.0, payable_minor=4000.0),
        *requests(1, "d", abuse=False, a=3.0, payable_minor=300.0),
        *requests(1, "e", a=3.0, payable_minor=50.0),
    ])  # fmt: skip
    mild, hard = report.rules
    assert (mild.count.hits, mild.count.decisive, mild.count.payable_minor) == (5, 3, 7350)
    assert (hard.count.hits, hard.count.decisive, hard.share) == (2, 2, 2 / 5)
    assert (mild.abuse.minor, mild.honest.minor) == (5000, 2300)
    assert (mild.abuse_stopped.minor, mild.honest_held.minor) == (4000, 300)
    assert mild.saved.minor == (4500 - 400) - 400
    # Without it the milder one would have held them: it saves a review, and refuses an honest one.
    assert (hard.abuse_stopped.refunds, hard.honest_prevented.minor) == (0, 2000)
    assert hard.saved.minor == 400 + (400 - 3000)
    assert mild.precision.share.value == 0.5
    (overlap,) = hard.overlaps
    assert (overlap.other, overlap.common, overlap.share, overlap.jaccard) == ("mild", 2, 1.0, 0.4)


def test_a_sound_policy_has_no_finding() -> None:
    policy = policy_of(rule("one", "a >= 5.0"), costs=COSTS)
    report = judged(policy, requests(40, a=6.0, abuse=True) + requests(60, "n", abuse=False))
    assert report.findings == ()
    assert "no finding" in report.to_text()


def test_over_no_request_nothing_is_said() -> None:
    report = judged(policy_of(rule("one", "a >= 5.0")), [])
    assert report.findings == ()
    assert report.to_text() == "policy 1 over 0 requests"
    json.dumps(report.to_json(), allow_nan=False)


def test_a_rule_that_never_hits_is_told_with_what_history_lacks() -> None:
    policy = policy_of(
        rule("large", "a >= 5.0"), rule("worded", "word == 'bad'"),
        rule("both", "a >= 2.0 && word == 'good'", examples={
            "hit": [{"a": 3, "word": "good"}], "miss": [{"a": 0, "word": "good"}]}),
    )  # fmt: skip
    history = requests(2400, a=1.0) + requests(1600, "x", a=4.0, word="fair")
    report = judged(policy, history)
    assert kinds(report) == {Kind.NEVER_HITS: [("large",), ("worded",), ("both",)]}
    large, worded, both = (finding.sentence for finding in report.findings)
    assert "never hit in 4,000 requests" in large
    assert "at most 0.07 % of requests" in large
    assert "a 9 (at most 4 was seen)" in large
    assert "word bad (it was fair and good)" in worded
    assert "occurs, but never together" in both


def test_a_short_history_says_of_all_rules_that_never_hit_in_one_sentence() -> None:
    policy = policy_of(rule("large", "a >= 5.0"), rule("worded", "word == 'bad'"))
    report = judged(policy, requests(454, a=1.0))
    assert kinds(report) == {Kind.NEVER_HITS: [("large", "worded")]}
    assert said(report, Kind.NEVER_HITS) == (
        "large and worded never hit in 454 requests, a history too short to say more: up to 0.66 % "
        "of requests may be such."
    )


def test_findings_come_by_what_is_at_stake() -> None:
    policy = policy_of(
        rule("wide", "a >= 3.0"), rule("narrow", "a >= 5.0"), rule("never", "b >= 5.0"),
        rule("left", "b >= 2.0"), rule("left_too", "b >= 1.0"),
    )  # fmt: skip
    report = judged(policy, requests(9, a=6.0, payable_minor=100.0)
                    + requests(2, "b", b=3.0, payable_minor=5000.0))  # fmt: skip
    assert [(f.rules, f.at_stake_minor) for f in report.findings] == [
        (("left", "left_too"), 10_000.0), (("wide", "narrow"), 900.0), (("never",), 0.0)
    ]  # fmt: skip
    first, second, third = [line for line in report.to_text().split("\n") if line[2:4] in
                            ("1.", "2.", "3.")]  # fmt: skip
    assert first.endswith("At stake: 100.00 GBP.") and second.endswith("At stake: 9.00 GBP.")
    assert "At stake" not in third


GUARDED = [
    rule("late_refused", "a >= 5.0 && b >= 6.0", "PREVENT", stage="hard", on_unknown="miss"),
    rule("late_held", "a >= 5.0 && b >= 5.0", stage="hard", on_unknown="miss"),
    rule("unproven", "a >= 5.0 && b >= 4.9", stage="hard"),
]


def test_what_a_guard_hits_makes_no_rule_redundant() -> None:
    """It is there for what the others cannot settle, so it hits what they hit by design."""
    history = requests(40, a=6.0, b=5.5) + requests(40, "p", a=6.0, b=7.0) + requests(400, "n")
    unsettled = [logged(f"u{at}", a=6.0, word="good", payable_minor=1.0) for at in range(3)]
    for rows in (history, history + unsettled):
        report = judged(policy_of(*GUARDED), rows)
        assert report.guards == {"unproven": ("late_refused", "late_held")}
        found = {id for finding in report.findings for id in finding.rules}
        assert found == set() or found == {"late_refused", "late_held"}, report.findings
        assert "Remove" not in report.to_text()
        assert ("a guard: it is there to hold what late_refused and late_held cannot settle"
                in report.to_text())  # fmt: skip
    assert report.to_json()["guards"] == {"unproven": ["late_refused", "late_held"]}


def test_a_rule_that_alone_held_something_by_being_unsettled_is_a_guard() -> None:
    policy = policy_of(rule("asks", "a >= 5.0", stage="hard"), rule("other", "b >= 5.0"))
    assert judged(policy, requests(9)).guards == {}
    report = judged(policy, [*requests(3999), logged("u", b=0.0, payable_minor=1.0)])
    assert report.guards == {"asks": ()}
    asks = next(f.sentence for f in report.findings if f.rules == ("asks",))
    assert "alone held 1 request for that reason: keep it." in asks
    assert "remove" not in asks


def test_risk_rules_that_miss_and_hard_ones_that_hold_are_no_guards_of_each_other() -> None:
    policy = policy_of(rule("hard", "a >= 5.0", stage="hard"), rule("risk", "a >= 3.0"))
    assert judged(policy, requests(9)).guards == {}
    chosen = policy_of(rule("one", "a >= 5.0", on_unknown="review"), rule("risk", "a >= 3.0"))
    assert judged(chosen, requests(9)).guards == {"one": ("risk",)}


def test_what_was_not_logged_is_no_fault_of_the_rule() -> None:
    order = {"order_count_by_order_365d": 1.0}
    policy = Policy.from_yaml(yaml.safe_dump({"version": "1", "bands": [], "rules": [
        {**rule("held", "order_held_minor > 1.0", stage="hard"),
         "examples": {"hit": [{"order_held_minor": 2}], "miss": [{"order_held_minor": 0}]}},
    ]}), facts={"order_held_minor": "double"})  # fmt: skip
    rows = [replace(logged(f"r{at}", **order), policy_hash="h") for at in range(9)]
    report = judged(policy, rows)
    assert kinds(report) == {}
    assert "order_held_minor was not logged with these decisions (9 of 9" in report.to_text()
    undecided = judged(policy, [replace(row, policy_hash=None) for row in rows])
    assert kinds(undecided) == {Kind.MOSTLY_UNKNOWN: [("held",)]}


def test_a_rule_that_is_mostly_unknown_names_the_fact() -> None:
    policy = policy_of(rule("blind", "a >= 5.0 && b >= 1.0", stage="hard"))
    history = [logged(f"r{i}", b=3.0) for i in range(6)] + requests(4)
    report = judged(policy, history)
    sentence = said(report, Kind.MOSTLY_UNKNOWN)
    assert "could not be settled on 6 of 10 requests (60.0 %): not known was a (on 6)." in sentence
    assert "It held 6 of them for a review" in sentence
    assert Kind.NEVER_HITS not in kinds(report)


def test_a_rule_within_another_is_redundant_and_says_of_which() -> None:
    policy = policy_of(rule("wide", "a >= 3.0"), rule("narrow", "a >= 5.0"))
    report = judged(policy, requests(50, a=4.0) + requests(FEW_HITS, "x", a=6.0))
    assert kinds(report) == {Kind.REDUNDANT: [("narrow", "wide")]}
    sentence = said(report, Kind.REDUNDANT)
    assert "wherever it hit (30), wide hit too (80 in all)" in sentence
    assert sentence.endswith("Remove it.")
    few = judged(policy, requests(50, a=4.0) + requests(FEW_HITS - 1, "x", a=6.0))
    assert said(few, Kind.REDUNDANT).endswith("Watch it, and remove it if that goes on.")


def test_of_two_doubles_one_is_to_be_kept() -> None:
    policy = policy_of(rule("one", "a >= 5.0"), rule("two", "a > 5.0"))
    report = judged(policy, requests(40, a=6.0) + requests(5, "n"))
    assert kinds(report) == {Kind.REDUNDANT: [("one", "two")]}
    assert "Keep one of the two" in said(report, Kind.REDUNDANT)


def test_a_milder_rule_inside_a_severe_one_is_redundant_and_overruled() -> None:
    policy = policy_of(rule("mild", "a >= 6.0"), rule("severe", "a >= 5.0", "PREVENT"))
    report = judged(policy, requests(40, a=7.0) + requests(5, "s", a=5.5))
    assert kinds(report) == {
        Kind.REDUNDANT: [("mild", "severe")], Kind.OVERRULED: [("mild", "severe")]
    }  # fmt: skip
    sentence = said(report, Kind.OVERRULED)
    assert "mild calls for MANUAL_REVIEW and severe for PREVENT on the same 40 requests" in sentence


def test_a_severe_rule_inside_a_milder_one_is_not_redundant_beside_it() -> None:
    policy = policy_of(rule("wide", "a >= 3.0"), rule("severe", "a >= 6.0", "PREVENT"),
                       bands=[{"action": "PREVENT", "probability_at_least": 0.9}])  # fmt: skip
    sure = [logged(f"s{i}", probability=0.95, a=7.0, payable_minor=1.0) for i in range(40)]
    report = judged(policy, requests(40, a=4.0) + sure)
    assert ("severe",) in kinds(report)[Kind.NEVER_DECIDES]
    assert Kind.REDUNDANT not in kinds(report)


def test_what_others_together_answer_never_decides() -> None:
    policy = policy_of(rule("left", "a >= 5.0"), rule("right", "b >= 5.0"),
                       rule("sum", "a + b >= 5.0 && (a >= 5.0 || b >= 5.0)"))  # fmt: skip
    report = judged(policy, requests(30, a=6.0) + requests(30, "b", b=6.0))
    assert (("sum",)) in kinds(report)[Kind.NEVER_DECIDES]
    sentence = next(f.sentence for f in report.findings if f.rules == ("sum",))
    assert "hit 60 requests and decided none" in sentence
    assert "left on 30 and right on 30" in sentence


@pytest.mark.parametrize(("abuse", "honest", "cleared"), [(2, 38, True), (20, 20, False)])
def test_refusing_what_reviews_would_clear_is_a_contradiction(
    abuse: int, honest: int, cleared: bool
) -> None:
    policy = policy_of(rule("ask", "a >= 3.0"), rule("refuse", "a >= 6.0", "PREVENT"))
    report = judged(policy, [
        *requests(abuse, "x", abuse=True, a=7.0), *requests(honest, "h", abuse=False, a=7.0),
        *requests(200, "m", a=4.0),
    ])  # fmt: skip
    assert (Kind.REFUSES_THE_CLEARED in kinds(report)) == cleared
    if cleared:
        sentence = said(report, Kind.REFUSES_THE_CLEARED)
        assert "refuse refuses 40 requests that ask would have held" in sentence
        assert "2 abuse of 40 labelled (5.0 %" in sentence


def test_a_rule_that_costs_more_than_it_saves_is_told_in_money() -> None:
    policy = policy_of(rule("harsh", "a >= 6.0", "PREVENT"), costs=COSTS)
    report = judged(policy, requests(40, "h", abuse=False, a=7.0) + requests(60, "n"))
    assert kinds(report) == {Kind.COSTS_MORE_THAN_IT_SAVES: [("harsh",)]}
    assert "40 labelled refunds that it alone decided, 600.00 GBP" in report.findings[0].sentence
    few = judged(policy, requests(20, "h", abuse=False, a=7.0) + requests(60, "n"))
    assert kinds(few) == {}


def test_labels_say_nothing_against_a_hard_rule() -> None:
    """It refuses what the terms do not owe, also to the honest."""
    policy = policy_of(rule("ask", "a >= 3.0"), rule("terms", "a >= 6.0", "PREVENT", stage="hard"),
                       costs=COSTS)  # fmt: skip
    report = judged(policy, requests(40, "h", abuse=False, a=7.0) + requests(200, "m", a=4.0))
    assert kinds(report) == {}
    assert "terms (version 1, PREVENT, hard)" in report.to_text()
    assert "Hard rules refuse what the terms do not owe" in report.to_text()


def test_a_hard_rule_is_not_redundant_beside_a_risk_rule_that_an_allow_list_lifts() -> None:
    policy = policy_of(rule("wide", "a >= 3.0"), rule("floor", "a >= 5.0", stage="hard"))
    report = judged(policy, requests(50, a=4.0) + requests(40, "x", a=6.0))
    assert kinds(report) == {Kind.NEVER_DECIDES: [("floor",)]}
    assert "or it is to hold for customers on the allow list too." in said(
        report, Kind.NEVER_DECIDES
    )


def test_bands_that_never_decide_are_told_with_the_reason() -> None:
    bands = [{"action": "MANUAL_REVIEW", "probability_at_least": 0.5},
             {"action": "PREVENT", "probability_at_least": 0.9}]  # fmt: skip
    policy = policy_of(rule("ask", "a >= 3.0"), bands=bands)
    history = [logged(f"r{i}", probability=0.6, a=5.0, payable_minor=1.0) for i in range(9)]
    report = judged(policy, history)
    reached, unreached = [f.sentence for f in report.findings
                          if f.kind is Kind.BAND_NEVER_DECIDES]  # fmt: skip
    assert "probability of abuse of 50 % on): 9 requests reached it" in reached
    assert "90 % on): no score of 9 requests reached it" in unreached


def test_the_report_reads_as_text_and_as_json() -> None:
    policy = policy_of(
        rule("one", "a >= 5.0", "PREVENT"), rule("quiet", "b >= 5.0", mode="shadow"), costs=COSTS,
        bands=[{"action": "PREVENT", "probability_at_least": 0.9}],
    )  # fmt: skip
    report = judged(policy, requests(3, a=6.0, abuse=True) + requests(7, "q", b=6.0))
    text = report.to_text()
    assert text.startswith("policy 1 over 10 requests from 2026-05-28 to 2026-05-28\n")
    assert "it would answer ALLOW 7 and PREVENT 3" in text
    assert "one (version 1, PREVENT)\n  hit 3 (30.0 %), could not be settled on 0" in text
    assert "decisive on 3, worth 30.00 GBP; its hits ask for 30.00 GBP" in text
    assert "quiet (version 1, MANUAL_REVIEW, in the shadow)" in text
    assert "reached by 0, decided 0" in text
    assert "\N{NO-BREAK SPACE}" not in text
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["rules"][0]["shifts"] == [
        {"without": ALLOW.value, "with": PREVENT.value, "requests": 3}
    ]  # fmt: skip
    assert document["findings"][0]["kind"] == "BAND_NEVER_DECIDES"
