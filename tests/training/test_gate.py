"""The gate: each objection alone, all of them together, and none for what noise has done."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from features.money import DAY_MS
from rules.document import Costs
from training.bands import Bands
from training.bootstrap import Interval
from training.evaluate import Truth
from training.fairness import Fairness, GroupRate
from training.gate import Bounds, Comparison, Latency, compare, in_turns, objections

N = 4000
DRAW = np.random.default_rng(11)
LOG_ODDS = DRAW.normal(-3, 1.6, N)
ABUSE = (DRAW.random(N) < expit(LOG_ODDS)).astype(float)
AMOUNT = DRAW.integers(1_000, 60_000, N).astype(float)
TRUTH = Truth(ABUSE, np.arange(N) // 2, np.arange(N) * DAY_MS // 40, AMOUNT, np.ones(N))
COSTS = Costs(fee_minor=500, review_minor=400, prevented_honest_multiple=1.5)
BANDS = Bands(4_000, 0.7).written()

GOOD = expit(LOG_ODDS)
BLURRED = expit(LOG_ODDS * 0.55 + DRAW.normal(0, 0.9, N) - 1.0)


def judged(challenger: np.ndarray, champion: np.ndarray, **more: object) -> Comparison:
    return compare(challenger, champion, TRUTH, bands=BANDS, costs=COSTS, rounds=200, **more)  # type: ignore[arg-type]


BETTER = judged(GOOD, BLURRED)


def test_a_better_model_meets_no_objection() -> None:
    assert BETTER.gain.low > 0 and BETTER.saving.low > 0
    assert objections(BETTER, Bounds()) == []
    document = json.loads(json.dumps(BETTER.to_json(), allow_nan=False))
    assert document["refunds"] == N and document["positives"] == ABUSE.sum()
    assert document["notes"] == [
        "fairness is not judged: no groups were named at training",
        "latency is not judged: it was not measured",
    ]


def test_an_equal_model_is_not_better_and_a_worse_one_is_worse_by_every_measure() -> None:
    (reason,) = objections(judged(GOOD, GOOD), Bounds())
    assert reason.startswith(f"it is not surely better on {ABUSE.sum():.0f} cases of abuse")
    assert "cost per 1,000 refunds" in reason and "average precision" in reason
    reasons = objections(judged(BLURRED, GOOD), Bounds())
    for said in (
        "not surely better",
        "surely worse by one measure: average precision",
        "surely worse by one measure: cost",
        "worse: Brier score",
        "worse: log-loss",
    ):
        assert any(said in reason for reason in reasons), said


def test_one_of_cost_and_precision_is_enough_unless_the_other_is_surely_worse() -> None:
    flat, up, down = Interval(-1, 1), Interval(1, 2), Interval(-2, -1)
    for gain, saving, refused in (
        (up, flat, False), (flat, up, False), (flat, flat, True), (up, down, True),
        (down, up, True),
    ):  # fmt: skip
        found = replace(BETTER, gain=gain, saving=saving)
        assert bool(objections(found, Bounds())) == refused, (gain, saving)


def test_the_same_ranking_with_bolder_probabilities_is_worse_calibrated() -> None:
    bold = judged(expit(2 * LOG_ODDS), GOOD)
    assert bold.gain == Interval(0, 0)
    reasons = objections(bold, Bounds())
    assert any("its calibration slope 0.5" in reason for reason in reasons)
    assert any("surely worse: log-loss" in reason for reason in reasons)
    # A slope that is off no further than the champion's is no objection.
    both = judged(expit(2 * LOG_ODDS), expit(2 * LOG_ODDS))
    assert not any("slope" in reason for reason in objections(both, Bounds()))
    assert not any("slope" in reason for reason in objections(bold, Bounds(slope=(0.4, 1.1))))


def test_noise_is_no_objection_to_calibration() -> None:
    # As good a model with other noise has a higher Brier score half of the time.
    for seed in range(8):
        noise = np.random.default_rng(seed).normal(0, 0.05, (2, N))
        found = judged(expit(LOG_ODDS + noise[0]), expit(LOG_ODDS + noise[1]))
        reasons = objections(found, Bounds())
        assert not any("slope" in reason for reason in reasons)


def test_groups_are_judged_by_what_is_prevented_and_at_a_global_threshold() -> None:
    group = np.where(np.arange(N) % 2 == 0, "GB", "FR").astype(object)
    uneven = expit(LOG_ODDS + np.where(group == "FR", 1.5, 0.0))
    found = judged(uneven, BLURRED, groups={"billing_country": group})
    assert [one.flagged for one in found.fairness] == [
        "prevented", "flagged with 5% of the honest refunds",
    ]  # fmt: skip
    assert found.fairness[1].interval.high < 0.5
    reasons = objections(found, Bounds())
    assert any("uneven between groups of billing_country" in reason for reason in reasons)
    assert not any("uneven" in one for one in objections(found, Bounds(fpr_ratio_at_least=0.0)))
    even = judged(GOOD, BLURRED, groups={"billing_country": group})
    assert not any("uneven" in one for one in objections(even, Bounds()))


def test_what_is_only_probably_uneven_is_no_objection() -> None:
    rates = (GroupRate("A", 300, 0.02, True), GroupRate("B", 300, 0.06, True))
    sure = Fairness("country", "prevented", rates, 1 / 3, Interval(0.2, 0.45))
    unsure = replace(sure, interval=Interval(0.1, 0.9))
    assert objections(replace(BETTER, fairness=(unsure,)), Bounds()) == []
    (reason,) = objections(replace(BETTER, fairness=(sure,)), Bounds())
    assert "2.00% in A and 6.00% in B are prevented; the ratio 0.33" in reason


def test_a_group_that_cannot_be_judged_is_noted() -> None:
    group = np.array(["GB"] * N, object)
    found = judged(GOOD, BLURRED, groups={"billing_country": group})
    assert found.notes[0] == (
        "billing_country: no FPR ratio of refunds prevented, fewer than two groups have enough "
        "honest refunds"
    )


@pytest.mark.parametrize(("challenger_ms", "champion_ms", "slow"), [
    (0.9, 0.1, False),  # nine times the champion's, and yet within the budget
    (3.0, 2.1, False),  # above the budget on this machine, as the champion nearly is
    (3.0, 1.9, True),
])  # fmt: skip
def test_slow_is_above_budget_and_ratio(
    challenger_ms: float, champion_ms: float, slow: bool
) -> None:
    found = replace(BETTER, latency=Latency(challenger_ms, champion_ms))
    assert bool(objections(found, Bounds())) == slow


def test_decisions_are_timed_in_turns_and_by_the_median() -> None:
    now, calls = 0, []

    def costing(name: str, first_ns: int, ns: int):  # type: ignore[no-untyped-def]
        def call(row: np.ndarray) -> None:
            nonlocal now
            calls.append((name, float(row[0, 0])))
            now += first_ns if len(calls) < 5 else ns  # the first calls are disturbed

        return call

    rows = np.arange(9.0)[:, None]
    taken = in_turns(costing("a", 10**9, 2_000_000), costing("b", 10**9, 500_000), rows,
                     clock=lambda: now)  # fmt: skip
    assert taken == (2.0, 0.5)
    assert calls[:6] == [("a", 0), ("b", 0), ("a", 0), ("b", 0), ("b", 1), ("a", 1)]
