"""Segments: every refund in one of each division, judged at one threshold."""

import json
from dataclasses import replace

import numpy as np
import pytest

from features.attribution import CODES
from training.dataset import Examples, TimeSplit
from training.fit import Fitted
from training.labels import CLEAN
from training.ranking import Ranking
from training.segments import divide, segments

NAMES = ("reason", "payable_minor", "registered_age_days")


def examples_of(rows: list[tuple[float, float, float, int]]) -> Examples:
    """From reason, amount, age and abuse."""
    n = len(rows)
    table = np.array(rows, float)
    return Examples(
        np.arange(n), np.array([f"r{i}" for i in range(n)], object), np.arange(n),
        np.arange(n) * 20 * 86_400_000, dict(zip(NAMES, table.T[:3], strict=True)), table[:, 3],
        np.array(["ANALYST" if abuse else CLEAN for abuse in table[:, 3]], object),
    )  # fmt: skip


def test_segments_are_named_in_words() -> None:
    damaged = CODES["reason"].index("ITEM_DAMAGED")
    found = [
        (by, name, int(rows.sum()))
        for by, name, rows in divide(
            examples_of([(damaged, 1999, 13, 0), (np.nan, 2000, 14, 1), (99, 2e6, np.nan, 0)])
        )
    ]
    assert found == [
        ("reason", "ITEM_DAMAGED", 1), ("reason", "(another)", 1), ("reason", "(unknown)", 1),
        ("amount", "below 20", 1), ("amount", "20 to 50", 1), ("amount", "500 or more", 1),
        ("account age", "below 14 days", 1), ("account age", "14 to 90 days", 1),
        ("account age", "(unknown)", 1),
        ("month", "1970-01", 2), ("month", "1970-02", 1),
        ("label source", "ANALYST", 3),
    ]  # fmt: skip


def test_every_division_holds_every_refund_once(fitted: Fitted, split: TimeSplit) -> None:
    probability = fitted.model.predict(split.test.inputs)
    found = segments(probability, split.test, rounds=20)
    divisions = {one.by for one in found} - {"label source"}
    assert divisions == {"reason", "amount", "account age", "month"}
    for by in divisions:
        assert sum(one.n for one in found if one.by == by) == len(split.test)
        assert sum(one.n_positives for one in found if one.by == by) == split.test.positives
    json.dumps([one.to_json() for one in found], allow_nan=False)
    # The rates of segments make up the global ones, at 5 % of honest refunds.
    honest = [(one.n - one.n_positives, one.fpr) for one in found if one.by == "amount"]
    flagged = sum(n * fpr for n, fpr in honest if n) / sum(n for n, _ in honest)
    assert 0.03 < flagged <= 0.05
    abuse = [(one.n_positives, one.tpr) for one in found if one.by == "amount"]
    tpr = sum(n * rate for n, rate in abuse if n) / split.test.positives
    figures = Ranking(probability, split.test.abuse).figures()
    assert tpr == pytest.approx(figures["tpr_at_5pct_fpr"])


def test_a_segments_figures_are_those_of_its_refunds_alone() -> None:
    examples = examples_of([(0, 100, 1, i % 3 == 0) for i in range(30)]
                           + [(1, 100, 1, 0) for _ in range(10)])  # fmt: skip
    score = np.random.default_rng(0).random(40)
    first, second = segments(score, examples, rounds=10)[:2]
    expected = Ranking(score[:30], examples.abuse[:30]).figures()["average_precision"]
    assert first.average_precision == expected
    assert first.lift == pytest.approx(expected * 3)
    assert first.prevalence == pytest.approx(1 / 3)
    assert second.to_json()["average_precision"] is None
    assert second.to_json()["tpr"] is None
    twice = segments(score, examples, weight=np.full(40, 2.0), rounds=10)[0]
    assert replace(twice, average_precision_interval=first.average_precision_interval) == first
