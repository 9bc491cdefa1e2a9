"""The bootstrap: paired, reproducible, over customers; and with the width theory asks for."""

import numpy as np
import pytest

from training.bootstrap import Rounds, interval, resample
from training.ranking import Ranking


def mean_of(values: np.ndarray):  # type: ignore[no-untyped-def]
    return lambda weight: {"mean": float(weight @ values / weight.sum())}


def test_rounds_are_paired_and_reproducible() -> None:
    draw = np.random.default_rng(1)
    values, customer = draw.random(400), draw.integers(0, 100, 400)
    measures = {"a": mean_of(values), "b": mean_of(values + 1)}
    found = resample(measures, customer, seed=7)
    assert found.gain("b", "a", "mean").low == pytest.approx(1)
    assert found.gain("b", "a", "mean").high == pytest.approx(1)
    again, other = resample(measures, customer, seed=7), resample(measures, customer, seed=8)
    assert (found.values["a"]["mean"] == again.values["a"]["mean"]).all()
    assert (found.values["a"]["mean"] != other.values["a"]["mean"]).any()


def test_the_width_is_that_of_the_normal_theory() -> None:
    values = np.random.default_rng(3).normal(0, 1, 2000)
    found = resample({"s": mean_of(values)}, np.arange(2000), rounds=1000).interval("s", "mean")
    expected = 2 * 1.96 * values.std() / np.sqrt(2000)
    assert found.high - found.low == pytest.approx(expected, rel=0.1)


def test_customers_not_refunds_are_drawn() -> None:
    # Ten customers of 40 like refunds each tell as much as ten refunds, not as 400.
    draw = np.random.default_rng(2)
    customer = np.repeat(np.arange(10), 40)
    abuse = (customer % 3 == 0).astype(float)
    score = 0.3 * abuse + draw.normal(0, 0.5, 10)[customer] + draw.normal(0, 0.05, 400)

    def width(who: np.ndarray) -> float:
        found = resample({"s": Ranking(score, abuse).figures}, who).interval("s", "auc")
        return found.high - found.low

    assert width(customer) > 2 * width(np.arange(400))


def test_own_weights_stay() -> None:
    values, weight = np.array([0.0, 1.0]), np.array([0.0, 2.0])
    found = resample({"s": mean_of(values)}, np.zeros(2, int), weight, rounds=5)
    assert set(found.values["s"]["mean"]) == {1.0}


def test_rounds_without_a_value_are_left_out_and_centring_moves_only() -> None:
    rounds = Rounds({"s": {"f": np.array([1.0, 2.0, 3.0, np.nan])}})
    plain, moved = rounds.interval("s", "f"), rounds.interval("s", "f", around=5.0)
    assert (moved.low + moved.high) / 2 == pytest.approx(5)
    assert moved.high - moved.low == pytest.approx(plain.high - plain.low)
    nothing = interval([float("nan")])
    assert nothing.to_json() == {"low": None, "high": None}
