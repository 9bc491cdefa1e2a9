"""Baselines: the blueprint to the point, a regression worth its name, and who must be beaten."""

from dataclasses import replace

import numpy as np
import pytest

from rules.document import Costs
from training.baselines import (
    AHEAD,
    NOTHING,
    SURELY,
    Against,
    against,
    baselines,
    beats,
    blueprint,
    blueprint_actions,
    blueprint_costs,
    doubts,
    logistic_regression,
)
from training.bootstrap import Interval
from training.costs import ALLOWED, PREVENTED, REVIEWED
from training.dataset import Examples, TimeSplit
from training.evaluate import Figures, Truth
from training.fit import Fitted
from training.ranking import Ranking

NAN = float("nan")
SIGNALS = ("refund_count_by_customer_30d", "payable_minor", "registered_age_days",
           "chargeback_count_by_customer_365d", "ip_risk")  # fmt: skip


def examples_of(*rows: tuple[float, ...], abuse: list[int] | None = None) -> Examples:
    n = len(rows)
    columns = dict(zip(SIGNALS, np.array(rows, float).T, strict=True))
    return Examples(
        np.arange(n), np.array([f"r{i}" for i in range(n)], object), np.arange(n), np.arange(n),
        columns, np.array(abuse or [0] * n, float), np.array(["ANALYST"] * n, object),
    )  # fmt: skip


@pytest.mark.parametrize(("signals", "points"), [
    ((2, 20_000, 14, 0, 0.74), 0),  # each just below its line
    ((3, 20_000, 14, 0, 0.74), 25),
    ((2, 20_001, 14, 0, 0.74), 20),
    ((2, 20_000, 13.9, 0, 0.74), 15),
    ((2, 20_000, 14, 1, 0.74), 25),
    ((2, 20_000, 14, 0, 0.75), 10),
    ((9, 90_000, 1, 4, 1.0), 95),
])  # fmt: skip
def test_the_blueprints_points(signals: tuple[float, ...], points: int) -> None:
    assert blueprint(examples_of(signals)).score.tolist() == [points]


def test_what_is_unknown_adds_nothing_and_is_said() -> None:
    scored = blueprint(examples_of((3, NAN, NAN, 0, NAN), (0, 0, 99, 0, 0.9), (0, 0, 99, 0, 0)))
    assert scored.score.tolist() == [25, 10, 0]
    assert scored.score_ip_high.tolist() == [35, 10, 0]
    third = pytest.approx(1 / 3)
    assert scored.unknown == {"amount": third, "account_age": third, "ip_risk": third}
    dollars = blueprint(examples_of((0, 16_000, 99, 0, 0)), large_minor=150_00)
    assert dollars.score.tolist() == [20]


def test_the_blueprints_bands() -> None:
    score = np.array([0, 25, 30, 65, 70, 95.0])
    milder = [ALLOWED, ALLOWED, REVIEWED, REVIEWED]
    assert blueprint_actions(score).tolist() == [*milder, PREVENTED, PREVENTED]
    assert blueprint_actions(score, denies=False).tolist() == [*milder, REVIEWED, REVIEWED]


def test_the_blueprints_cost_in_all_readings() -> None:
    # 70 points and honest; 20 and an abuser; 60 and an abuser, or 70 if its IP were high.
    examples = examples_of((3, 30_000, 99, 1, 0), (0, 30_000, 99, 0, 0), (3, 100, 1, 0, NAN),
                           abuse=[0, 1, 1])  # fmt: skip
    costs = Costs(fee_minor=500, review_minor=400, prevented_honest_multiple=1.5)
    found = blueprint_costs(blueprint(examples), Truth.of(examples), costs)
    assert [(one.ip_high, one.denies) for one in found] == [
        (False, True), (False, False), (True, True), (True, False),
    ]  # fmt: skip
    expected = [45_000 + 30_500 + 400, 400 + 30_500 + 400]
    assert [one.cost_per_1000_minor for one in found[:2]] == pytest.approx(
        [1000 * total / 3 for total in expected]
    )
    assert (found[0].reviewed_share, found[0].prevented_share) == pytest.approx((1 / 3, 1 / 3))
    # With the ten points the third reaches 50 only: still reviewed.
    assert found[2].cost_per_1000_minor == found[0].cost_per_1000_minor


def test_the_regression_learns_from_training_alone_and_ranks(split: TimeSplit) -> None:
    fitted = logistic_regression(split.train)
    score = fitted.predict_proba(split.test.inputs)[:, 1]
    amount = np.nan_to_num(split.test.column("payable_minor"))
    ap = Ranking(score, split.test.abuse).figures()["average_precision"]
    assert ap > 2 * Ranking(amount, split.test.abuse).figures()["average_precision"]
    # Unknown values and codes never seen are no obstacle.
    odd = np.full((1, split.test.inputs.shape[1]), np.nan)
    assert np.isfinite(
        fitted.predict_proba(np.vstack([odd, odd + 1, np.full_like(odd, 1e9)]))
    ).all()
    late = logistic_regression(split.train, rows=1500, weight=np.ones(len(split.train)))
    part = split.train.rows(len(split.train) - 1500, len(split.train))
    again = logistic_regression(part)
    assert np.allclose(
        late.predict_proba(split.test.inputs), again.predict_proba(split.test.inputs)
    )


def test_the_model_is_held_against_each_on_refunds_new_to_it(
    fitted: Fitted, split: TimeSplit
) -> None:
    middle = int(split.test.known_at[len(split.test) // 2])
    later = replace(fitted.model, manifest=replace(fitted.model.manifest, test_from=middle))
    found = baselines(split.train, split.test, champion=later)
    assert [(one.name, one.demand) for one in found] == [
        ("blueprint_score", SURELY), ("blueprint_score_ip_high", SURELY),
        ("logistic_regression", AHEAD), ("amount_alone", SURELY), ("champion", NOTHING),
    ]  # fmt: skip
    probability = fitted.model.predict(split.test.inputs)
    compared = {one.name: one for one in against(probability, Truth.of(split.test), found)}
    for name in ("blueprint_score", "blueprint_score_ip_high", "amount_alone"):
        assert compared[name].average_precision_gain.low > 0, name
        assert not compared[name].refuses
    champion = compared["champion"]
    assert champion.model.n == (split.test.known_at >= middle).sum() < len(split.test)
    assert champion.model == champion.baseline
    assert champion.average_precision_gain == Interval(0, 0)
    assert compared["logistic_regression"].baseline.brier > 0
    assert np.isnan(compared["amount_alone"].baseline.brier)


def test_a_champion_that_is_no_measure_is_left_out(fitted: Fitted, split: TimeSplit) -> None:
    manifest = fitted.model.manifest
    ended = replace(manifest, test_from=int(split.test.known_at[-1]) + 1)
    champion = replace(fitted.model, manifest=ended)
    found = baselines(split.train.rows(0, 2500), split.test, champion=champion)
    assert "champion" not in {one.name for one in found}


def compared(demand: str, gain: tuple[float, float], model: float, baseline: float) -> Against:
    return Against(
        "logistic_regression", demand, Figures(900, 90, average_precision=model),
        Figures(900, 90, average_precision=baseline), Interval(*gain), Interval(0, 0),
    )  # fmt: skip


@pytest.mark.parametrize(("one", "refused", "doubted"), [
    (compared(SURELY, (0.01, 0.09), 0.5, 0.45), False, False),
    (compared(SURELY, (-0.01, 0.09), 0.5, 0.45), True, False),
    (compared(AHEAD, (0.01, 0.03), 0.5, 0.48), False, False),
    # Too little data to tell: neither ahead nor behind refuses, unless it is surely behind.
    (compared(AHEAD, (-0.09, 0.11), 0.51, 0.5), False, True),
    (compared(AHEAD, (-0.12, 0.08), 0.48, 0.5), False, True),
    (compared(AHEAD, (-0.12, -0.02), 0.43, 0.5), True, False),
    # Data that could have shown a gain: then it must be there.
    (compared(AHEAD, (-0.02, 0.02), 0.499, 0.5), True, False),
    (compared(AHEAD, (-0.015, 0.02), 0.503, 0.5), False, True),
    (compared(NOTHING, (-0.5, -0.4), 0.05, 0.5), False, True),
    (compared(SURELY, (NAN, NAN), NAN, 0.5), True, False),
])  # fmt: skip
def test_who_is_refused_and_what_is_doubted(one: Against, refused: bool, doubted: bool) -> None:
    assert (bool(beats([one])), bool(doubts([one]))) == (refused, doubted)


def test_a_refusal_says_the_figures() -> None:
    assert beats([compared(AHEAD, (-0.02, 0.02), 0.499, 0.5)]) == [
        "the model is not better than logistic regression: average precision 0.499 against 0.500 "
        "on 90 cases of abuse, the 95 % interval of the gain is -0.020 to +0.020"
    ]
