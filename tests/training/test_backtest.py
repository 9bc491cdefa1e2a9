"""A backtest of a folder: its refunds under two policies, its mature labels as the truth."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from features.money import DAY_MS, Rates
from features.tables import Tables
from rules.backtest import Cause
from rules.decision import Action
from rules.policy import Policy
from serving.facts import FACTS
from tests.serving.champions import fixed
from tests.training.tables import START, folder_of
from training.backtest import backtest_folder, folder_requests, to_text
from training.backtest_report import BacktestReport, Tally
from training.backtest_wording import facts_in_words, worth
from training.bootstrap import Interval

NOW = START + 100 * DAY_MS
MATURITY_DAYS = 30
ALLOW, MANUAL_REVIEW, PREVENT = Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT


def policy_of(version: str, above_minor: float, action: str, **changes: Any) -> Policy:
    """One rule on the amount: what cannot be converted may be large."""
    document = {
        "version": version,
        "costs": {"fee_minor": 500, "review_minor": 400, "prevented_honest_multiple": 1.5,
                  "reviews_per_day": 1},
        "bands": [{"action": "PREVENT", "probability_at_least": 0.9}],
        "rules": [{
            "id": "large", "version": 1, "stage": "risk", "action": action, "reason": "LARGE",
            "when": f"payable_minor > {above_minor}", "on_unknown": "review",
            "description": "The amount is large",
            "examples": {"hit": [{"payable_minor": above_minor + 1}],
                         "miss": [{"payable_minor": above_minor}]},
        }],
        **changes,
    }  # fmt: skip
    return Policy.from_yaml(json.dumps(document), facts=FACTS)


@pytest.fixture(scope="module")
def lax() -> Policy:
    return policy_of("1", 20000.0, "MANUAL_REVIEW")


@pytest.fixture(scope="module")
def strict() -> Policy:
    return policy_of("2", 4000.0, "PREVENT")


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


def run(folder: Tables, before: Policy, after: Policy, **how: Any) -> BacktestReport:
    given = {"as_of": NOW, "maturity_days": MATURITY_DAYS, **how}
    return backtest_folder(folder, fixed(0.01), before, after, Rates("GBP"), **given)


@pytest.fixture(scope="module")
def report(folder: Tables, lax: Policy, strict: Policy) -> BacktestReport:
    return run(folder, lax, strict)


def test_every_refund_is_decided_under_both_policies(report: BacktestReport) -> None:
    assert (report.decisions, report.requests, report.repeated) == (7, 6, 1)
    assert report.shifts[ALLOW] == {ALLOW: 1, MANUAL_REVIEW: 0, PREVENT: 4}
    # Yen without a rate cannot be told from a large amount: it is held by both.
    assert report.shifts[MANUAL_REVIEW][MANUAL_REVIEW] == 1
    assert report.payable_unknown == 1


def test_labels_lie_on_their_own_refunds_and_only_mature_ones_count(
    folder: Tables, lax: Policy, report: BacktestReport
) -> None:
    requests = folder_requests(folder, fixed(0.01), lax, Rates("GBP"), NOW, MATURITY_DAYS)
    told = {row.refund_id: (row.abuse, row.payable_minor) for row in requests}
    assert told == {
        "r-1": (True, 7000), "r-3": (True, 3000), "r-6": (False, None),
        "r-2": (False, 6000),  # sent again with another amount: its first request counts
        "r-4": (None, 5000),  # not mature
        "r-5": (None, 9000),  # neither labelled nor paid
    }  # fmt: skip
    assert (report.labelled, report.abuse, report.immature, report.unlabelled) == (4, 2, 1, 1)


def test_the_ledgers_hold_the_money(report: BacktestReport) -> None:
    before, after = report.before, report.after
    assert (before.version, after.version) == ("1", "2")
    assert (before.abuse_paid, after.abuse_paid) == (Tally(2, 10_000), Tally(1, 3_000))
    assert after.abuse_prevented == Tally(1, 7_000)
    assert after.honest_prevented == Tally(1, 6_000)
    assert before.paid.count == 5 and before.held == Tally(1, 0)
    assert before.cost_minor == 10_000 + 2 * 500 + 400
    assert after.cost_minor == 3_000 + 500 + 1.5 * 6_000 + 400


def test_the_figures_are_the_ledgers(report: BacktestReport) -> None:
    for side in ("before", "after"):
        ledger = getattr(report, side)
        stopped = ledger.abuse_held.count + ledger.abuse_prevented.count
        assert getattr(report.figures["abuse_stopped"].count, side) == stopped
        for name in ("abuse_paid", "abuse_prevented", "honest_held", "honest_prevented"):
            tally, figure = getattr(ledger, name), report.figures[name]
            assert getattr(figure.count, side) == tally.count
            assert getattr(figure.minor, side) == tally.payable_minor
        assert getattr(report.figures["cost"].minor, side) == ledger.cost_minor
        assert getattr(report.figures["reviews"].count, side) == ledger.held.count
    assert report.figures["honest_customers_prevented"].count.after == 1
    saved = report.before.cost_minor - report.after.cost_minor
    assert report.moves.saved_minor == saved == -report.figures["cost"].minor.rise


def test_every_interval_holds_its_figure(report: BacktestReport) -> None:
    for figure in report.figures.values():
        for quantity in (figure.count, figure.minor):
            if quantity is not None:
                low, high = quantity.rise_interval.low, quantity.rise_interval.high
                assert low <= quantity.rise <= high
                assert quantity.before_interval.low <= quantity.before


def test_reviews_are_counted_by_day_against_the_capacity(folder: Tables, lax: Policy) -> None:
    more = policy_of("2", 1000.0, "MANUAL_REVIEW")
    asked = run(folder, lax, more).workload_after
    assert asked.per_day == 6 / run(folder, lax, more).days
    assert (asked.busiest_day, asked.days_over) == (1, 0)
    nobody_said = policy_of("1", 20000.0, "MANUAL_REVIEW", costs={})
    assert run(folder, nobody_said, more).workload_after.days_over is None


def test_causes_and_segments_add_up_to_all_that_moves(report: BacktestReport) -> None:
    (cause,) = report.causes
    assert (cause.cause, cause.moves.moved, cause.alone) == (Cause("rule", "large"), 4, 4)
    for by in {one.by for one in report.segments}:
        parts = [one for one in report.segments if one.by == by]
        assert sum(one.refunds for one in parts) == report.requests
        assert sum(one.moves.moved for one in parts) == report.moved == 4
        assert sum(one.moves.saved_minor for one in parts) == report.moves.saved_minor
    assert {one.name for one in report.segments if one.by == "month"} == {"2025-01", "2025-04"}
    assert {one.by for one in report.segments} == {"reason", "amount", "month"}, "facts there are"


def test_examples_say_why(report: BacktestReport) -> None:
    assert len(report.examples) == 4
    one = next(example for example in report.examples if example.refund_id == "r-1")
    assert (one.before, one.after, one.sources) == (ALLOW, PREVENT, ("MODEL", "RULE"))
    assert (one.reasons_before, one.reasons_after) == ((), ("LARGE",))
    assert one.facts == {"payable_minor": 7000.0}
    assert (one.payable_minor, one.abuse) == (7000, True)
    assert {example.abuse for example in report.examples} == {True, False, None}


def test_labels_known_later_than_the_backtest_are_not_known(
    folder: Tables, lax: Policy, strict: Policy
) -> None:
    early = run(folder, lax, strict, as_of=START + 39 * DAY_MS)
    assert early.before.abuse_paid.count == 0
    assert {one.abuse for one in early.examples} == {False, None}


def test_the_candidate_does_not_set_its_own_prices(
    folder: Tables, lax: Policy, strict: Policy, report: BacktestReport
) -> None:
    cheap = policy_of("2", 4000.0, "PREVENT", costs={})
    assert run(folder, lax, cheap).after.cost_minor == report.after.cost_minor


def test_the_same_policy_twice_changes_nothing(folder: Tables, lax: Policy) -> None:
    same = run(folder, lax, lax)
    assert same.after_name == f"1 ({lax.hash[:8]})"
    assert same.moved == 0 and same.examples == () and same.causes == ()
    assert same.before == same.after
    assert "->" not in to_text(same)
    assert "None of 6 refunds would be decided otherwise." in to_text(same)


def test_a_request_without_a_score_is_decided_by_the_fallback(folder: Tables, lax: Policy) -> None:
    held = backtest_folder(folder, fixed(fails=RuntimeError("boom")), lax, lax, Rates("GBP"),
                           as_of=NOW, maturity_days=MATURITY_DAYS)  # fmt: skip
    assert held.before.held.count == held.requests == held.degraded == 6


def test_a_report_reads_as_text_and_as_json(report: BacktestReport) -> None:
    text = to_text(report)
    assert text.startswith("policy 2 against 1: 6 refunds from 2025-01-02 to ")
    assert "\n  ALLOW -> PREVENT: 4\n" in text
    assert "rule large: ALLOW -> PREVENT 4; alone 4. 1 abuse, 1 honest, 2 without" in text
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["shifts"]["ALLOW"]["PREVENT"] == 4
    assert document["after"]["abuse_prevented"] == {"count": 1, "payable_minor": 7000}
    assert document["causes"][0]["id"] == "large"
    assert len(document["examples"]) == 4


def test_a_candidate_reads_facts_of_the_order_that_the_policy_in_force_does_not(
    folder: Tables, lax: Policy
) -> None:
    """Two refunds of one order, of which none was captured."""
    document = json.loads(lax.text)
    document |= {"version": "2", "rules": [{
        **document["rules"][0], "id": "reserved", "when": "order_reserved_minor > 0.0",
        "on_unknown": "miss",
        "examples": {"hit": [{"order_reserved_minor": 1}], "miss": [{"order_reserved_minor": 0}]},
    }]}  # fmt: skip
    twice = folder_of(refund_requests=[
        refund(1, 2000, 1, order_amount_minor=9000),
        {**refund(2, 3000, 2, order_amount_minor=9000), "order_id": "o-1"},
    ])  # fmt: skip
    found = run(twice, lax, Policy.from_yaml(json.dumps(document), facts=FACTS))
    assert [one.refund_id for one in found.examples] == ["r-2"]
    assert found.examples[0].facts == {"order_reserved_minor": 2000.0}


def test_what_the_model_may_have_learnt_from_is_said_and_can_be_left_out(
    folder: Tables, lax: Policy, strict: Policy
) -> None:
    champion = fixed(0.01)
    champion.model.manifest.test_from = START + 5 * DAY_MS  # type: ignore[misc]

    def found(since: int | None) -> BacktestReport:
        return backtest_folder(folder, champion, lax, strict, Rates("GBP"), as_of=NOW, since=since,
                               maturity_days=MATURITY_DAYS)  # fmt: skip

    whole, new = found(None), found(START + 5 * DAY_MS)
    assert (whole.requests, whole.learnt) == (6, 3)
    assert "may have learnt from the refunds, 3 here" in to_text(whole)
    assert (new.decisions, new.requests, new.learnt) == (3, 3, 0)
    assert "learnt" not in to_text(new)
    with pytest.raises(LookupError, match="no refund request"):
        found(NOW)


def test_a_policy_is_said_to_be_in_force_only_where_it_is(
    folder: Tables, lax: Policy, strict: Policy, report: BacktestReport
) -> None:
    beside, in_force = to_text(report), to_text(run(folder, lax, strict, before_is_in_force=True))
    assert beside.startswith("policy 2 against 1: 6 refunds")
    assert "the costs of policy 1, on the scores of the model that is served now" in beside
    assert "in force" not in beside
    assert "the costs of the policy in force" in in_force


def test_a_model_that_is_not_there_scored_nothing(
    folder: Tables, lax: Policy, strict: Policy
) -> None:
    found = backtest_folder(folder, None, lax, strict, Rates("GBP"), as_of=NOW)
    assert "without scores, for no model is served" in to_text(found)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-4519.0, 120.0, "Neither surely cheaper nor surely dearer: between 45.19 GBP dearer and "
                         "1.20 GBP cheaper."),
        (0.0, 0.0, "Neither cheaper nor dearer."),
        (float("nan"), float("nan"), "Whether it is cheaper or dearer is not known."),
        (-200.0, -100.0, "Dearer by 1.50 GBP (1.00 GBP to 2.00 GBP)."),
        (100.0, 200.0, "Cheaper by 1.50 GBP (1.00 GBP to 2.00 GBP)."),
    ],
)  # fmt: skip
def test_what_is_not_sure_is_said_from_end_to_end(
    report: BacktestReport, low: float, high: float, said: str
) -> None:
    moves = replace(
        report.moves, saved_minor=150.0 if high > 0 else -150.0, saved_interval=Interval(low, high)
    )
    assert worth(moves, "GBP").replace("\N{NO-BREAK SPACE}", " ") == said


def test_every_amount_of_a_case_is_in_its_own_currency(report: BacktestReport) -> None:
    facts = {"payable_minor": 1500.0, "asked_minor": 1500.0, "order_held_minor": 1500.0,
             "expected_loss_minor": 1500.0, "delivered_age_days": 1500.0}  # fmt: skip

    def said(currency: str | None, order_currency: str | None) -> list[str]:
        one = replace(report.examples[0], facts=facts, currency=currency,
                      order_currency=order_currency)  # fmt: skip
        return [text.replace("\N{NO-BREAK SPACE}", " ") for _, text in facts_in_words(one, "GBP")]

    assert said("EUR", "JPY") == ["15.00 GBP", "15.00 EUR", "1,500 JPY", "15.00 GBP", "1,500"]
    assert said("EUR", None)[2] == "15.00 EUR"
    assert said(None, None)[1:3] == ["1,500 minor units", "1,500 minor units"]
    assert report.examples[0].currency == "GBP"
