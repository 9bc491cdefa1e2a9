"""Drift: what stands still is quiet, what moves rings, and the unknown counts as a value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.psi import bins, count_of, cuts, psi
from training.dataset import MODEL_NAMES, Examples, TimeSplit
from training.drift import Drift, DriftReport, Pairs, drift
from training.fit import Fitted

COUNTS = arrays.arrays(np.float64, 6, elements=st.integers(0, 1000).map(float))
VALUES = arrays.arrays(
    np.float64, st.integers(1, 60), elements=st.one_of(st.just(np.nan), st.sampled_from(range(5)))
)


# --- the index -----------------------------------------------------------------------------------


@given(COUNTS, COUNTS)
def test_the_index_is_symmetric_and_never_negative(before: np.ndarray, after: np.ndarray) -> None:
    found = float(psi(before, after))
    assert found >= 0 and np.isfinite(found)
    assert found == pytest.approx(float(psi(after, before)))
    assert float(psi(before, before)) == pytest.approx(0, abs=1e-12)


@given(VALUES)
def test_every_value_has_a_bin_and_the_unknown_one_of_its_own(values: np.ndarray) -> None:
    seen = values[~np.isnan(values)]
    begins = cuts(np.quantile(seen, np.linspace(0, 1, 101)) if len(seen) else np.full(101, np.nan))
    found = bins(values, begins)
    unknown = np.isnan(values)
    assert set(found[unknown].tolist()) <= {count_of(begins) - 1}
    assert (found[~unknown] < count_of(begins) - 1).all()
    order = np.argsort(seen)
    assert (np.diff(found[~unknown][order]) >= 0).all()


@pytest.mark.parametrize("often", [0.0, 1.0])
def test_a_frequent_value_shares_its_bin_with_none(often: float) -> None:
    flags = np.full(100, often)
    flags[:4] = 1 - often
    begins = cuts(np.quantile(flags, np.linspace(0, 1, 101)))
    assert bins(np.array([often]), begins) != bins(np.array([1 - often]), begins)


# --- the report ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shuffled(split: TimeSplit) -> tuple[Examples, Examples]:
    """The training customers dealt out at random: nothing can have moved between the halves."""
    half = np.random.default_rng(1).permutation(int(split.train.customer.max()) + 1) % 2 == 0
    first = half[split.train.customer]
    return split.train.where(first), split.train.where(~first)


def one(report: DriftReport, name: str) -> Drift:
    return next(each for each in report.features if each.name == name)


def changed(examples: Examples, name: str, values: np.ndarray) -> Examples:
    column = examples.features[name].copy()
    column[examples.row] = values
    return replace(examples, features={**examples.features, name: column})


def measured(before: Examples, after: Examples, fitted: Fitted, seed: int = 0) -> DriftReport:
    return drift(before, after, fitted.model.predict(after.inputs), fitted, seed=seed)


def test_what_stands_still_is_quiet(shuffled: tuple[Examples, Examples], fitted: Fitted) -> None:
    report = measured(*shuffled, fitted)
    assert {each.name for each in report.features} == set(MODEL_NAMES)
    # One in a hundred is expected by chance; they depend on one another, so several may come.
    assert len(report.drifted) <= 0.05 * len(MODEL_NAMES)
    assert report.to_json()["features_drifted"] == len(report.drifted)


@pytest.mark.parametrize("how", ["scaled", "unknown", "one value"])
def test_what_moves_rings_and_stands_first(
    how: str, shuffled: tuple[Examples, Examples], fitted: Fitted
) -> None:
    before, after = shuffled
    amount = after.column("payable_minor")
    moved = {
        "scaled": amount * 2,
        "unknown": np.where(np.arange(len(after)) % 3 == 0, np.nan, amount),
        "one value": np.full(len(after), 1000.0),
    }[how]
    report = measured(before, changed(after, "payable_minor", moved), fitted)
    found = one(report, "payable_minor")
    assert found.drifted and found.psi > 2 * found.threshold
    assert found in report.features[:5]
    times = [each.times for each in report.features]
    assert times == sorted(times, reverse=True)
    if how == "unknown":
        assert found.unknown_after == pytest.approx(1 / 3 + found.unknown_before, abs=0.02)
    if how == "one value":
        assert found.median_after == 1000.0


def test_a_score_of_another_world_rings(split: TimeSplit, fitted: Fitted) -> None:
    probability = fitted.model.predict(split.test.inputs)
    quiet = drift(split.train, split.test, probability, fitted)
    loud = drift(split.train, split.test, np.sqrt(probability), fitted)
    assert loud.score.drifted
    assert loud.score.psi > quiet.score.psi


def test_the_same_seed_gives_the_same_thresholds(
    shuffled: tuple[Examples, Examples], fitted: Fitted
) -> None:
    first, again = (measured(*shuffled, fitted).to_json() for _ in range(2))
    assert first == again
    assert first != measured(*shuffled, fitted, seed=1).to_json()


def test_a_smaller_test_has_a_higher_threshold(split: TimeSplit) -> None:
    binned = bins(split.train.column("payable_minor"), np.array([2000.0, 5000.0]))
    few, many = (
        np.percentile(Pairs(split.train.customer, size, rounds=100, seed=0).psi(binned, 4), 99)
        for size in (200, 2000)
    )
    assert few > 2 * many


def test_customers_are_drawn_whole() -> None:
    """Ten refunds of one customer that are all alike say no more than one does."""
    value = np.random.default_rng(0).integers(0, 2, 400)
    alone = Pairs(np.arange(400), 400, rounds=200, seed=0).psi(value, 2)
    repeated = Pairs(np.repeat(np.arange(400), 10), 4000, rounds=200, seed=0)
    assert np.median(repeated.psi(np.repeat(value, 10), 2)) > 0.7 * np.median(alone)
    apart = Pairs(np.arange(4000), 4000, rounds=200, seed=0).psi(np.repeat(value, 10), 2)
    assert np.median(apart) < 0.3 * np.median(alone)


def test_groups_of_many_customers_vary_as_the_customers_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = np.random.default_rng(0).integers(0, 3, 3000)
    grouped = Pairs(np.arange(3000), 1000, rounds=400, seed=0).psi(value, 3)
    monkeypatch.setattr("training.drift.MOST_GROUPS", 3000)
    single = Pairs(np.arange(3000), 1000, rounds=400, seed=0).psi(value, 3)
    assert np.mean(grouped) == pytest.approx(np.mean(single), rel=0.2)
