"""Champions for tests: one that says what it is told, and a tiny real one."""

from __future__ import annotations

import time
from types import SimpleNamespace

import lightgbm
import numpy as np

from features.catalog import MODEL_FEATURES
from features.feature import definitions_hash
from serving.model import AbuseModel, Manifest, Platt, Reference
from serving.reasons import Ranking
from serving.scorer import Champion

NAMES = tuple(feature.name for feature in MODEL_FEATURES)


class FixedModel:
    """Says one probability, or fails, after a while; stands in for the model and what explains it.

    Every feature contributes nothing except the first, which carries all.
    """

    def __init__(
        self, probability: float = 0.01, *, fails: Exception | None = None, seconds: float = 0
    ) -> None:
        self.probability, self.fails, self.seconds = probability, fails, seconds
        self.reference = Reference(
            np.full((len(NAMES), 101), np.nan), np.zeros(len(NAMES)), np.linspace(0, 1, 101)
        )
        self.manifest = SimpleNamespace(test_from=0)  # it learnt from nothing
        self.calibrator = Platt(1.0, 0.0)

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        if self.fails:
            raise self.fails
        return np.full(len(matrix), self.probability)

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        found = np.zeros((len(matrix), len(NAMES) + 1))
        found[:, 0] = 1.0
        return found


def fixed(probability: float = 0.01, **how: object) -> Champion:
    """A champion that says this probability whatever it is asked."""
    model = FixedModel(probability, **how)
    return Champion(model, model, "fixed", Ranking(MODEL_FEATURES, model.reference))


def trained_model() -> AbuseModel:
    """A real booster on random rows where abuse is many refunds or a large amount."""
    random = np.random.default_rng(0)
    rows = random.exponential(3, (800, len(NAMES)))
    amount = NAMES.index("payable_minor")
    rows[:, amount] *= 5_000
    rows[random.random(rows.shape) < 0.2] = np.nan
    known = np.nan_to_num(rows)
    abuse = (known[:, NAMES.index("refund_count_by_customer_30d")] > 5) | (
        known[:, amount] > 30_000
    )
    data = lightgbm.Dataset(rows, abuse, feature_name=list(NAMES))
    parameters = {"objective": "binary", "num_leaves": 7, "num_threads": 1, "verbosity": -1}
    booster = lightgbm.train(parameters, data, 20)
    manifest = Manifest(
        feature_names=NAMES, features_hash=definitions_hash(MODEL_FEATURES), base_currency="GBP",
        label_definition={}, training_from=1, training_until=2, test_from=3, base_rate=0.1,
        expected_log_odds=-2.0, data_digest="d",
    )  # fmt: skip
    score = Platt(1.0, 0.0).probability(np.asarray(booster.predict(rows, raw_score=True)))
    return AbuseModel(booster, Platt(1.0, 0.0), manifest, Reference.of(rows, score))
