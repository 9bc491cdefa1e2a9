"""The report on exploration: lots, money by hand, unfair draws, and what held refunds cost."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from rules.engine import Circumstances, ListHit, ListMatch
from rules.exploration import ExplorationCounts, Lot
from rules.logged import Logged
from rules.policy import Policy
from tests.rules.logs import ALLOW, DAY_MS, START, logged, policy_of, rule
from training.exploration import ExplorationReport, exploration_report
from training.policy_judgement import Maturity

COSTS = {"fee_minor": 500, "review_minor": 400, "prevented_honest_multiple": 1.5}
SHARE, CAP = 0.25, 1000


def exploring(share: float = SHARE, version: str = "1", **more: Any) -> Policy:
    return policy_of(
        rule("ask", "b >= 1.0"), rule("refuse", "b >= 5.0", "PREVENT"),
        rule("hard", "a >= 5.0", stage="hard"), costs=COSTS, version=version,
        exploration={"share": share, "max_amount_minor": CAP}, **more,
    )  # fmt: skip


POLICY = exploring()
MATURITY = Maturity(START + 40 * DAY_MS, 30)


def one(refund: str, draw: float | None = 0.9, policy: Policy = POLICY, **more: Any) -> Logged:
    facts = {"a": 0.0, "b": 1.0, "payable_minor": 800.0, **more}
    lists = facts.pop("lists", ListMatch())
    disposition = facts.pop("disposition", None)
    around = Circumstances(lists=lists, disposition=disposition, exploration_draw=draw)
    return logged(refund, policy, circumstances=around, **facts)


def judged(rows: list[Logged], *policies: Policy, paid: Any = lambda id: True) -> ExplorationReport:
    by_hash = {policy.hash: policy for policy in policies or (POLICY,)}
    return exploration_report(by_hash, rows, costs=POLICY.costs, currency="GBP",
                              maturity=MATURITY, is_paid=paid)  # fmt: skip


@pytest.mark.parametrize(
    ("row", "lot", "why"),
    [
        (one("r", 0.1), Lot.EXPLORED, ""),
        (one("r", 0.9), Lot.HELD, ""),
        (one("r", 0.1, payable_minor=1000.0), Lot.EXPLORED, ""),
        (one("r", 0.1, payable_minor=1001.0), Lot.ABOVE_CAP, ""),
        (one("r", 0.1, payable_minor=None), Lot.AMOUNT_UNKNOWN, ""),
        (one("r", 0.1, a=6.0), Lot.NEVER, "hard rules"),
        (one("r", 0.1, a=6.0, payable_minor=None), Lot.NEVER, "hard rules"),
        (one("r", 0.1, probability=None), Lot.NEVER, "the fallback"),
        (one("r", 0.1, b=0.0, lists=ListMatch(block=(ListHit("ip", "bots"),))), Lot.NEVER, "lists"),
    ],
)
def test_every_held_refund_has_its_lot(row: Logged, lot: Lot, why: str) -> None:
    counts = ExplorationCounts({POLICY.hash: POLICY})
    counts.take(row)
    (held,) = counts.held.values()
    assert (held.lot, held.why) == (lot, why)


def test_who_is_paid_anyway_or_answered_by_an_analyst_has_none() -> None:
    report = judged([one("paid", b=0.0), one("disposed", 0.1, disposition=ALLOW)])
    assert sum(report.refunds.values()) == 0
    assert report.drawn == 1


def test_a_refund_counts_once() -> None:
    again = [one("twice"), one("twice"), one("explored", 0.1), one("explored", 0.1, a=6.0),
             one("paid later"), one("paid later", b=0.0)]  # fmt: skip
    report = judged(again)
    assert report.refunds == {Lot.EXPLORED: 1, Lot.HELD: 1, Lot.ABOVE_CAP: 0,
                              Lot.AMOUNT_UNKNOWN: 0, Lot.NEVER: 0}  # fmt: skip
    (draw,) = report.draws
    assert (draw.explored, draw.eligible) == (1, 3)
    assert report.drawn == 3


@pytest.fixture(scope="module")
def by_hand() -> list[Logged]:
    return [
        one("asked-abuse", 0.1, payable_minor=900.0, abuse=True),
        one("asked-honest", 0.1, payable_minor=600.0, abuse=False),
        one("refused-abuse", 0.1, b=6.0, payable_minor=400.0, abuse=True),
        one("refused-honest", 0.1, b=6.0, payable_minor=1000.0, abuse=False),
        one("young", 0.1, payable_minor=50.0, at=START + 20 * DAY_MS),
        one("held", payable_minor=300.0),
        one("looked-into", b=6.0, payable_minor=200.0, abuse=True),
        one("above", payable_minor=70_000.0, abuse=False),
        one("paid", b=0.0, abuse=False),
    ]  # fmt: skip


def test_what_it_cost_by_hand(by_hand: list[Logged]) -> None:
    report = judged(by_hand, paid=lambda id: id != "young")
    assert (report.paid, report.paid_minor) == (4, 2900)
    assert (report.labelled, report.abuse, report.young) == (4, 2, 1)
    assert report.abuse_paid.minor == (900 + 500) + (400 + 500)
    assert report.honest_released.minor == 1.5 * 1000
    assert (report.reviews_spared, report.reviews_spared_minor) == (3, 1200)
    # Held, each asked one costs a review and the honest refused one its harm.
    assert report.net_cost.minor == (1400 - 400) + (0 - 400) + 900 - 1500


def test_what_it_taught_by_hand(by_hand: list[Logged]) -> None:
    report = judged(by_hand)
    assert report.abuse_rate.value == 0.5
    assert (report.reviewed_rate.value, report.reviewed_rate.refunds) == (1.0, 1)
    assert report.labelled_paid == 1
    assert report.effective_size == pytest.approx((1 + 4 * 4) ** 2 / (1 + 4 * 16))
    held = report.held_cost
    assert held.refunds == 7
    # The mean of those explored with a label, for all seven that had the chance.
    assert held.by_exploration == pytest.approx(7 * (400 + 400 + 0 + 1500) / 4)
    expected = 400 * 4 + 0.99 * 1.5 * (400 + 1000 + 200)
    assert held.by_model == pytest.approx(expected)
    assert held.change == pytest.approx(held.by_exploration - expected)
    assert held.by_reviews == 0.0
    assert held.holding_saves == pytest.approx(7 * ((1400 - 400) - 400 + 900 - 1500) / 4)


def test_what_it_leaves_in_the_dark(by_hand: list[Logged]) -> None:
    report = judged(by_hand)
    assert report.refunds[Lot.ABOVE_CAP] == 1
    assert report.payable_minor[Lot.ABOVE_CAP] == 70_000
    assert "above the amount: 1 refund of 8 held, 700.00 GBP of 734.50 GBP" in report.to_text()


def drawn(n: int, draw: Any) -> list[Logged]:
    return [one(f"r{i}", draw(i)) for i in range(n)]


def test_a_fair_draw_passes_and_an_unfair_one_is_told() -> None:
    fair = judged(drawn(400, lambda i: (i * 7 % 400) / 400))
    assert fair.uniform_chance == 1.0
    (draw,) = fair.draws
    assert (draw.explored, draw.eligible, draw.chance) == (100, 400, pytest.approx(1.0))
    assert draw.realised.interval.low < SHARE < draw.realised.interval.high
    unfair = judged(drawn(400, lambda i: i / 1000))
    assert unfair.uniform_chance < 1e-9
    assert unfair.draws[0].chance < 1e-9
    text = unfair.to_text()
    assert "are not even" in text
    assert "that is hardly chance" in text
    assert "hardly chance" not in fair.to_text()


def test_too_few_draws_are_not_tested() -> None:
    report = judged(drawn(20, lambda i: 0.5))
    assert math.isnan(report.uniform_chance)
    assert "too few to test" in report.to_text()


def test_each_policy_is_held_to_its_own_share() -> None:
    other = exploring(1.0, version="2")
    report = judged([one("r1", 0.1), one("r2", 0.9), one("r3", 0.9, other)], POLICY, other)
    assert [(d.policy, d.explored, d.eligible) for d in report.draws] == [("1", 1, 2), ("2", 1, 1)]


def test_the_explored_stand_for_all_that_were_held() -> None:
    """Over many draws the estimates centre on the truth, and the intervals hold it."""
    truth = random.Random(3)
    held = [(800.0, truth.random() < 0.4, 6.0 if truth.random() < 0.5 else 1.0)
            for _ in range(150)]  # fmt: skip
    rate = sum(abuse for _, abuse, _ in held) / len(held)
    cost = sum(400.0 if b < 5 else 0.0 if abuse else 1.5 * amount for amount, abuse, b in held)
    rates, costs, rounds = [], [], 30
    covered = 0
    for seed in range(rounds):
        draw = random.Random(seed)
        rows = []
        for i, (amount, abuse, b) in enumerate(held):
            row = one(f"r{i}", draw.random(), b=b, payable_minor=amount)
            label = {"abuse": abuse} if row.explored else {}
            rows.append(one(f"r{i}", row.circumstances.exploration_draw, b=b, payable_minor=amount,
                            **label))  # fmt: skip
        report = judged(rows)
        rates.append(report.abuse_rate.value)
        costs.append(report.held_cost.by_exploration)
        covered += report.abuse_rate.interval.low <= rate <= report.abuse_rate.interval.high
    assert sum(rates) / rounds == pytest.approx(rate, abs=0.05)
    assert sum(costs) / rounds == pytest.approx(cost, rel=0.1)
    assert covered / rounds >= 0.85


def test_the_report_reads_as_text_and_as_json(by_hand: list[Logged]) -> None:
    report = judged(by_hand)
    text = report.to_text()
    assert text.startswith("exploration on 9 decisions from 2026-05-28 to ")
    assert "policy 1 pays 25.0 % of held refunds up to 10.00 GBP" in text
    assert "5 of 7 refunds that could be explored were: 71.4 %" in text
    assert "abuse paid, fees included: 23.00 GBP on 2 refunds" in text
    assert "these are labels of 4 customers: read the interval" in text
    assert "\N{NO-BREAK SPACE}" not in text
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["refunds"]["EXPLORED"] == 5
    assert document["uniform_chance"] is None


def test_without_exploration_nothing_can_be_known() -> None:
    plain = policy_of(rule("ask", "b >= 1.0"))
    report = judged([one("r", 0.1, plain), one("unknown", 0.1)], plain)
    assert (report.explores, report.elsewhere) == (False, 1)
    assert "no policy of that time explores" in report.to_text()
    json.dumps(report.to_json(), allow_nan=False)
