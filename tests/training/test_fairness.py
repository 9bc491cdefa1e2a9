"""The FPR ratio: by hand, with an interval that noise does not fool, and groups that are groups."""

import numpy as np
import pytest

from tests.training.tables import START, folder_of
from training.fairness import UNKNOWN, fairness, groups_of


def drawn(rates: dict[str, float], honest: int, seed: int):  # type: ignore[no-untyped-def]
    draw = np.random.default_rng(seed)
    group = np.repeat(np.array(list(rates), object), honest)
    flagged = draw.random(len(group)) < np.repeat(list(rates.values()), honest)
    who = np.arange(len(group))
    return fairness("country", group, flagged, np.zeros(len(group)), who, meaning="prevented",
                    rounds=200)  # fmt: skip


def test_only_honest_refunds_count_and_small_or_unknown_groups_do_not() -> None:
    group = np.array(["A"] * 4 + ["B"] * 4 + ["C"] + [UNKNOWN] * 3, object)
    flagged = np.array([1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1], bool)
    abuse = np.array([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0.0])
    found = fairness(
        "country", group, flagged, abuse, np.arange(12), meaning="prevented", min_honest=3
    )
    assert found.ratio == pytest.approx((1 / 3) / (2 / 3))
    assert {(g.group, g.honest, g.counts) for g in found.groups} == {
        ("A", 3, True), ("B", 3, True), ("C", 1, False), (UNKNOWN, 3, False),
    }  # fmt: skip
    weight = np.where(group == "A", 2.0, 1.0)
    weighed = fairness("country", group, flagged, abuse, np.arange(12), meaning="prevented",
                       weight=weight, min_honest=3)  # fmt: skip
    assert weighed.ratio == pytest.approx(found.ratio)


def test_equal_groups_are_not_called_uneven_by_noise() -> None:
    # The plain ratio of eight equal groups is about a half; its interval must know better.
    equal = dict.fromkeys("ABCDEFGH", 0.05)
    found = [drawn(equal, 400, seed) for seed in range(20)]
    assert np.mean([one.ratio for one in found]) < 0.6
    assert np.mean([one.interval.high < 0.6 for one in found]) <= 0.1


def test_uneven_groups_are_found() -> None:
    found = [drawn({"A": 0.10, "B": 0.10, "C": 0.03}, 1000, seed) for seed in range(10)]
    assert np.mean([one.interval.high < 0.6 for one in found]) >= 0.9
    assert np.mean([one.interval.low <= 0.3 <= one.interval.high for one in found]) >= 0.8


def test_nobody_flagged_or_one_group_has_no_ratio() -> None:
    assert drawn({"A": 0.0, "B": 0.0}, 300, 0).to_json()["ratio"] is None
    assert np.isnan(drawn({"A": 0.5}, 300, 0).ratio)
    assert drawn({"A": 0.0, "B": 0.5}, 300, 0).ratio == 0


def test_groups_are_columns_that_no_feature_is() -> None:
    rows = [
        {"refund_id": f"r{i}", "customer_id": f"c{i}", "known_at": START + i, "amount_minor": 1,
         "currency": "GBP", "billing_country": country}
        for i, country in enumerate(["GB", None, "FR"])
    ]  # fmt: skip
    tables = folder_of(refund_requests=rows)
    found = groups_of(tables, "billing_country", np.array([2, 0, 1]))
    assert found.tolist() == ["FR", "GB", UNKNOWN]
    with pytest.raises(ValueError, match=r"expected a column of refund_requests.*got 'colour'"):
        groups_of(tables, "colour", np.array([0]))
    with pytest.raises(ValueError, match="reason is a feature of the model"):
        groups_of(tables, "reason", np.array([0]))
    with pytest.raises(ValueError, match="customer_id has 301 values, expected at most 300"):
        many = [{**rows[0], "refund_id": f"r{i}", "customer_id": f"c{i}"} for i in range(301)]
        groups_of(folder_of(refund_requests=many), "customer_id", np.arange(301))
