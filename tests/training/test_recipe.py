"""Recipes: every option changes what it says it changes, and codes and directions are kept."""

import numpy as np
import pytest

from features.catalog import FEATURES, MODEL_FEATURES
from training.dataset import MODEL_NAMES, TimeSplit
from training.recipe import DIRECTIONS, FALLING, RISING, Recipe, grow

TREES = 40


def test_directions_are_of_reason_codes_that_the_catalog_has() -> None:
    codes = {feature.reason_code for feature in FEATURES}
    assert codes >= RISING | FALLING
    assert not RISING & FALLING
    assert set(DIRECTIONS) == set(MODEL_NAMES)
    assert {-1, 0, 1} == set(DIRECTIONS.values())
    assert DIRECTIONS["days_since_last_refund_by_customer_365d"] == 0


def test_a_monotone_model_never_falls_where_it_may_only_rise(split: TimeSplit) -> None:
    booster = grow(split.train, Recipe(monotone=True), TREES, seed=0)
    free = grow(split.train, Recipe(), TREES, seed=0)
    rows = split.test.inputs[:200]
    used = booster.feature_importance("split")
    held = [place for place, name in enumerate(MODEL_NAMES)
            if DIRECTIONS[name] and used[place]]  # fmt: skip
    assert len(held) > 5
    bent = 0
    for place in held:
        steps = []
        for value in np.nanquantile(split.train.inputs[:, place], np.linspace(0, 1, 12)):
            moved = rows.copy()
            moved[:, place] = value
            steps.append([m.predict(moved, raw_score=True) for m in (booster, free)])
        rise = np.diff(np.array(steps), axis=0) * DIRECTIONS[MODEL_NAMES[place]]
        assert rise[:, 0].min() > -1e-9, MODEL_NAMES[place]
        bent += bool(rise[:, 1].min() < -1e-9)
    assert bent  # without the option some of them do fall


def test_class_weights_raise_the_score_of_the_rare_class(split: TimeSplit) -> None:
    means = [
        float(np.mean(grow(split.train, Recipe(class_weight=weight), TREES, 0).predict(
            split.test.inputs
        )))
        for weight in ("none", "balanced")
    ]  # fmt: skip
    assert means[1] > 2 * means[0]


def test_codes_are_split_as_sets_or_by_order(split: TimeSplit) -> None:
    codes = [f.name for f in MODEL_FEATURES if f.unit == "code"]
    assert "reason" in codes
    for categorical, found in ((True, "=="), (False, "<=")):
        booster = grow(split.train, Recipe(categorical=categorical), TREES, seed=0)
        trees = booster.trees_to_dataframe()
        kinds = set(trees.loc[trees["split_feature"].isin(codes), "decision_type"])
        assert kinds == {found}


def test_more_bins_tell_numbers_apart_more_finely(split: TimeSplit) -> None:
    cuts = []
    for max_bin in (8, 255):
        booster = grow(split.train, Recipe(max_bin=max_bin), TREES, seed=0)
        trees = booster.trees_to_dataframe()
        of = trees.loc[trees["split_feature"] == "payable_minor", "threshold"]
        cuts.append(of.nunique())
    assert cuts[0] <= 8 < cuts[1]


def test_every_wrong_option_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"learning_rate: .* got 0.0; max_bin: .* got 1$"):
        Recipe(learning_rate=0.0, max_bin=1)
