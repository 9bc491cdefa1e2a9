"""What the tests of the benchmarks share: a home that serves a small model of the real catalog."""

from pathlib import Path

import lightgbm
import numpy as np
import pytest

from features.catalog import MODEL_FEATURES
from features.feature import definitions_hash
from serving.home import Home
from serving.model import AbuseModel, Manifest, Platt, Reference


@pytest.fixture(scope="session")
def model_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = tuple(feature.name for feature in MODEL_FEATURES)
    rows = np.random.default_rng(0).exponential(size=(400, len(names)))
    label = rows[:, names.index("refund_count_by_customer_30d")] > 1
    data = lightgbm.Dataset(rows, label, feature_name=list(names))
    booster = lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, data, 8)
    manifest = Manifest(
        feature_names=names, features_hash=definitions_hash(MODEL_FEATURES), base_currency="GBP",
        label_definition={"maturity_days": 30}, training_from=1, training_until=2, test_from=3,
        base_rate=0.1, expected_log_odds=-2.0, data_digest="invented",
    )  # fmt: skip
    model = AbuseModel(booster, Platt(1.0, -3.0), manifest, Reference.of(rows, label * 0.1))
    made = tmp_path_factory.mktemp("model")
    model.save(made)
    home = tmp_path_factory.mktemp("home")
    Home(home).serve_model(made, "7")
    return home
