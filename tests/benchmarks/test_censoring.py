"""The censoring benchmark on a small world: its weights are the policy's own, and it tells all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from benchmarks import censoring
from benchmarks.censoring import FIGURES, WAYS, Gauge, Model, Past, cell, is_sound, main
from benchmarks.censoring import weights_by_way as weigh
from rules.document import Band, Costs
from rules.engine import Circumstances, Score, decide
from rules.policy import Policy
from training.propensity import fates, weights

COSTS = Costs(fee_minor=500, review_minor=400, prevented_honest_multiple=1.5)
PREVENT, REVIEW = 3, 2
CAP = 1000.0


@pytest.fixture(scope="module")
def past() -> Past:
    """Refunds of which the risky are held, the riskiest prevented, and a third above the cap."""
    random = np.random.default_rng(0)
    risk = random.random(4000) ** 3
    action = np.select([risk > 0.8, risk > 0.5], [PREVENT, REVIEW], 0)
    amount = random.choice([500.0, CAP, CAP + 1], 4000)
    abuse = (random.random(4000) < risk).astype(float)
    return Past(abuse, amount, action, said=abuse.copy(), costs=COSTS, days=30.0)


@pytest.fixture(scope="module")
def gauges(past: Past) -> Mapping[str, Gauge]:
    random = np.random.default_rng(1)
    bands = (Band.model_validate({"action": "PREVENT", "probability_at_least": 0.9}, strict=False),)
    good = 0.1 + 0.3 * past.abuse + 0.6 * random.random(4000)
    return {
        "champion": Gauge(Model(good, bands), past),
        "worse": Gauge(Model(random.random(4000), bands), past),
    }


def test_weights_are_those_of_decisions_that_the_policy_makes(past: Past) -> None:
    share = 0.3
    document = {
        "version": "1", "rules": [], "exploration": {"share": share, "max_amount_minor": CAP},
        "bands": [{"action": "MANUAL_REVIEW", "probability_at_least": 0.5},
                  {"action": "PREVENT", "probability_at_least": 0.8}],
    }  # fmt: skip
    policy = Policy.from_yaml(json.dumps(document), facts={"payable_minor": "double"})
    draw = np.random.default_rng(2).random(len(past.abuse))
    probability = {0: 0.1, REVIEW: 0.6, PREVENT: 0.9}
    made = [
        decide({"payable_minor": amount}, Score(probability[action], 1.0), policy,
               Circumstances(exploration_draw=float(drawn)))
        for amount, action, drawn in zip(past.amount_minor.tolist(), past.action.tolist(), draw,
                                         strict=True)
    ]  # fmt: skip
    propensity = np.array([decision.propensity for decision in made])
    explored = np.array([decision.explored for decision in made])
    action = np.array([decision.action.value for decision in made], object)
    explorable = past.explorable(CAP)
    ours = weigh(past, explorable, explorable & (draw < share), share)["weighted"]
    assert explored.any()
    np.testing.assert_array_equal(
        ours[: len(made)], weights(fates(action, explored, propensity), propensity)
    )
    assert not ours[len(made) :].any()


def test_everything_explored_is_the_truth_in_each_way_but_the_analysts(
    past: Past, gauges: Mapping[str, Gauge]
) -> None:
    found = cell(past, gauges, share=1.0, cap_minor=math.inf, draws=2, seed=0)
    for errors in found["models"].values():
        for figure in FIGURES:
            assert errors[figure]["truth"] == errors[figure]["truth_of_covered"]
            for way in WAYS:
                assert errors[figure][way]["error"] == pytest.approx(0, abs=1e-9)
                assert errors[figure][way]["sd"] == pytest.approx(0, abs=1e-9)


def test_weights_find_the_truth_of_what_they_cover_and_labels_alone_do_not(
    past: Past, gauges: Mapping[str, Gauge]
) -> None:
    draws = 60
    found = cell(past, gauges, share=0.3, cap_minor=CAP, draws=draws, seed=0)
    assert 0 < found["covered_share"] < 1
    assert found["covered_abuse_share"] < found["covered_share"]
    for errors in found["models"].values():
        for figure in ("average_precision", "prevalence"):
            naive, weighted = errors[figure]["naive_refused"], errors[figure]["weighted"]
            # The mean over draws is known to its own standard error, and Hajek's bias is small.
            room = 4 * weighted["sd"] / np.sqrt(draws) + 0.01 * errors[figure]["truth"]
            assert abs(weighted["error_to_covered"]) < room
            assert abs(naive["error_to_covered"]) > 2 * room


def test_exploring_costs_what_paying_costs_more_than_holding(
    past: Past, gauges: Mapping[str, Gauge]
) -> None:
    found = cell(past, gauges, share=1.0, cap_minor=CAP, draws=2, seed=0)
    chosen = (past.action > 0) & (past.amount_minor <= CAP)
    paid = past.abuse * (past.amount_minor + 500)
    held = np.where(past.action == REVIEW, 400, (1 - past.abuse) * 1.5 * past.amount_minor)
    expected = (paid - held)[chosen].sum() / 4
    assert found["cost_of_exploring"]["per_1000_refunds_minor"] == pytest.approx(expected)
    assert found["cost_of_exploring"]["lost_to_abuse_per_1000_refunds_minor"] == pytest.approx(
        paid[chosen].sum() / 4
    )


def test_a_choice_is_wrong_when_the_worse_model_looks_better(
    past: Past, gauges: Mapping[str, Gauge]
) -> None:
    found = cell(past, gauges, share=1.0, cap_minor=math.inf, draws=2, seed=0)
    choice = found["wrong_choice"]["worse"]["average_precision"]
    assert choice["true_gain"] < 0
    assert choice["wrong_share"] == dict.fromkeys(WAYS, 0.0)
    swapped = {"champion": gauges["worse"], "better": gauges["champion"]}
    gained = cell(past, swapped, share=1.0, cap_minor=math.inf, draws=2, seed=0)
    better = gained["wrong_choice"]["better"]["average_precision"]
    assert better["true_gain"] == pytest.approx(-choice["true_gain"])


def test_a_run_prints_one_document_and_its_exit_code_says_whether_it_is_sound(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(censoring, "TREES", 20)
    code = main(["--customers", "1500", "--days", "300", "--seed", "5", "--draws", "12",
                 "--shares", "0.5", "--caps-minor", "inf", "--maturity-days", "30"])  # fmt: skip
    said = capsys.readouterr()
    report: dict[str, Any] = json.loads(said.out)
    assert code == (0 if is_sound(report) else 1)
    judged, (found,) = report["judged"], report["cells"]
    assert 0 < judged["held_share"] < 1
    assert judged["share_of_abuse_held"] > judged["held_share"]
    assert found["cap_minor"] is None
    assert found["covered_share"] == 1
    assert found["models"].keys() == {"champion", "retrained", "reseeded", "without_history"}
    assert "naive_refused" in said.err
    own = report["the_shops_own_labels"]
    assert 0 < own["censored_share"] < 1
    worse = json.loads(said.out)
    for errors in worse["cells"][0]["models"].values():
        errors["prevalence"]["weighted"]["error"] = 1.0
    assert not is_sound(worse)
