"""Recipe: how trees are grown on examples. Its options are what a search may try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import lightgbm
import numpy as np

from features.catalog import MODEL_FEATURES
from training.dataset import MODEL_NAMES, Examples

RISING: Final = frozenset({
    "ABUSE_CONFIRMED_BEFORE", "CHARGEBACK_LOST", "CHARGEBACK_OPEN", "COUNTRY_MISMATCH",
    "DEVICE_SHARED", "EARLY_FRAUD_WARNING", "FREQUENT_DAMAGE", "FREQUENT_EMPTY_BOX",
    "FREQUENT_ITEM_NOT_RECEIVED", "IDENTITY_SHARED", "IP_RISK_HIGH",
    "LINKED_REFUNDS_DECLINED_BEFORE", "LINKED_REFUND_VELOCITY_HIGH", "ORDER_REFUNDED_BEFORE",
    "PRIOR_CHARGEBACK", "REFUNDED_SHARE_HIGH", "REFUNDS_DECLINED_BEFORE", "REFUND_VELOCITY_HIGH",
    "RETURN_LABELS_UNUSED", "RETURN_REJECTED_BEFORE",
})  # fmt: skip
FALLING: Final = frozenset({"ABUSE_CLEARED_BEFORE", "RETURN_RECEIVED"})
"""Reason codes whose counts and shares can only raise, or only lower, the risk, where a recipe is
``monotone``. Times since an event run the other way."""

_MONOTONE_UNITS: Final = frozenset({"count", "share", "ratio", "flag"})


@dataclass(frozen=True)
class Recipe:
    """How trees are grown. The defaults are modest: every decision walks all trees, twice.

    ``class_weight`` "balanced" weighs both classes alike (the calibrator takes it back out);
    ``monotone`` holds the features of `RISING` and `FALLING` to one direction; ``categorical``
    splits codes by sets of values instead of by their order. ``max_bin`` is how finely numbers are
    told apart: rare extremes of amounts and shares need many. At most ``max_trees`` are grown.

    >>> Recipe(num_leaves=1)
    Traceback (most recent call last):
        ...
    ValueError: recipe: num_leaves: expected at least 2, got 1
    """

    learning_rate: float = 0.05
    num_leaves: int = 8
    max_depth: int = 6
    min_data_in_leaf: int = 30
    feature_fraction: float = 0.4
    bagging_fraction: float = 0.8
    lambda_l2: float = 5.0
    max_bin: int = 255
    class_weight: Literal["none", "balanced"] = "none"
    monotone: bool = False
    categorical: bool = True
    max_trees: int = 400

    def __post_init__(self) -> None:
        wrong = [
            f"{name}: expected {expected}, got {getattr(self, name)!r}"
            for name, holds, expected in (
                ("learning_rate", 0 < self.learning_rate <= 1, "above 0, at most 1"),
                ("num_leaves", self.num_leaves >= 2, "at least 2"),
                ("max_depth", self.max_depth >= 1, "at least 1"),
                ("min_data_in_leaf", self.min_data_in_leaf >= 1, "at least 1"),
                ("feature_fraction", 0 < self.feature_fraction <= 1, "above 0, at most 1"),
                ("bagging_fraction", 0 < self.bagging_fraction <= 1, "above 0, at most 1"),
                ("lambda_l2", self.lambda_l2 >= 0, "at least 0"),
                ("max_bin", 2 <= self.max_bin <= 65_535, "2 to 65535"),
                ("class_weight", self.class_weight in ("none", "balanced"), "none or balanced"),
                ("max_trees", self.max_trees >= 1, "at least 1"),
            )
            if not holds
        ]
        if wrong:
            raise ValueError(f"recipe: {'; '.join(wrong)}")

    def parameters(self, seed: int) -> dict[str, Any]:
        """LightGBM's parameters: one seed, one model, on any number of threads.

        >>> Recipe().parameters(seed=7)["metric"]
        ['average_precision', 'binary_logloss']
        """
        return {
            "objective": "binary",
            "metric": ["average_precision", "binary_logloss"],
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "max_depth": self.max_depth,
            "min_data_in_leaf": self.min_data_in_leaf,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": 1,
            "lambda_l2": self.lambda_l2,
            "max_bin": self.max_bin,
            "is_unbalance": self.class_weight == "balanced",
            "seed": seed,
            "num_threads": THREADS,
            "deterministic": True,
            # By column only the features drawn for a tree are read: the same trees, sooner.
            "force_col_wise": True,
            "verbosity": -1,
            **({"monotone_constraints": list(DIRECTIONS.values())} if self.monotone else {}),
        }

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain values."""
        return asdict(self)


THREADS: Final = 2


def _direction(reason_code: str, unit: str, name: str) -> int:
    if unit not in _MONOTONE_UNITS or "days_since" in name:
        return 0
    return (reason_code in RISING) - (reason_code in FALLING)


DIRECTIONS: Final[Mapping[str, int]] = {
    feature.name: _direction(feature.reason_code, feature.unit, feature.name)
    for feature in MODEL_FEATURES
}
"""The direction of each model input in a monotone model: 1, -1, or 0 for either."""


def dataset(
    examples: Examples, recipe: Recipe, seed: int, like: lightgbm.Dataset | None = None
) -> lightgbm.Dataset:
    """Examples as LightGBM reads them: the catalog's model features, in bins.

    The bins are made of the examples themselves, or are those of ``like``. All parameters are
    given: which features can be split at all is settled here, by the size of leaves.
    """
    codes = [f.name for f in MODEL_FEATURES if f.unit == "code"] if recipe.categorical else []
    return lightgbm.Dataset(
        examples.inputs, examples.abuse, reference=like, feature_name=list(MODEL_NAMES),
        categorical_feature=codes,
        params=recipe.parameters(seed),
    )  # fmt: skip


def grow(examples: Examples, recipe: Recipe, trees: int, seed: int) -> lightgbm.Booster:
    """So many trees on all the examples."""
    return lightgbm.train(recipe.parameters(seed), dataset(examples, recipe, seed), trees)


def log_odds(booster: lightgbm.Booster, examples: Examples, trees: int) -> Any:
    """What the first ``trees`` say of examples (n,), before calibration."""
    said = booster.predict(examples.inputs, raw_score=True, num_iteration=trees)
    return np.asarray(said, np.float64)
