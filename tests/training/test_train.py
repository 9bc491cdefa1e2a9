"""Training: the same seed the same model, too little data refused, and a model anyone can load."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.catalog import MODEL_FEATURES
from features.feature import definitions_hash
from features.tables import Tables
from serving.home import Home
from serving.model import AbuseModel
from tests.training.tables import START
from training.bands import default_costs
from training.dataset import MODEL_NAMES, TimeSplit, TooLittleData, rates_of, training_frame
from training.fit import Fitted, fit
from training.report import TrainedReport
from training.train import Options, train

# --- fitting -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_model(
    fitted: Fitted, split: TimeSplit, tmp_path: Path
) -> None:
    again = fit(split, seed=0, base="GBP", costs=default_costs(), digest="d1")
    fitted.model.save(tmp_path / "a")
    again.model.save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    other = fit(split, seed=1, base="GBP", costs=default_costs(), digest="d1")
    assert other.model.booster.model_to_string() != fitted.model.booster.model_to_string()


def test_the_test_is_not_looked_at(fitted: Fitted, split: TimeSplit) -> None:
    otherwise = {name: -values for name, values in split.test.features.items()}
    test = replace(split.test, abuse=1 - split.test.abuse, features=otherwise)
    blind = fit(replace(split, test=test), seed=0, base="GBP", costs=default_costs(), digest="d1")
    assert blind.model.booster.model_to_string() == fitted.model.booster.model_to_string()
    assert blind.model.calibrator == fitted.model.calibrator
    assert blind.placement.bands == fitted.placement.bands


def test_a_model_says_what_it_was_made_of(fitted: Fitted, split: TimeSplit) -> None:
    model, manifest = fitted.model, fitted.model.manifest
    model.check_features(MODEL_NAMES, definitions_hash(MODEL_FEATURES))
    assert 1 <= fitted.trees <= fitted.validation.recipe.max_trees
    assert model.booster.num_trees() == fitted.trees
    assert manifest.training_until < manifest.test_from == split.test_from
    assert manifest.base_rate == split.train.abuse.mean()
    contributions = model.booster.predict(split.test.inputs[:5], pred_contrib=True)
    assert set(contributions[:, -1]) == {manifest.expected_log_odds}
    assert manifest.label_definition["maturity_days"] == 60


def test_probabilities_are_of_the_size_of_what_happens(fitted: Fitted, split: TimeSplit) -> None:
    probability = fitted.model.predict(split.test.inputs)
    assert probability.mean() == pytest.approx(split.test.abuse.mean(), rel=0.5)


def test_too_few_positives_are_refused_part_by_part(split: TimeSplit) -> None:
    first, *others = split.folds
    few = replace(
        split, test=split.test.rows(0, 5),
        folds=(replace(first, judge=first.judge.rows(0, 3)), *others),
    )  # fmt: skip
    with pytest.raises(TooLittleData) as refusal:
        fit(few, seed=0, base="GBP", costs=default_costs(), digest="d1")
    assert "the test has" in str(refusal.value) and "fold 1 has" in str(refusal.value)
    assert "fold 2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reviews_per_day": float("inf")}, "reviews_per_day: expected a finite number"),
        ({"groups": ("colour",)}, "group: expected a column of refund_requests"),
        ({"trusted": frozenset({"ip_rsk"})}, "did you mean ip_risk"),
    ],
)
def test_a_wrong_choice_is_refused_before_anything_is_made(
    options: dict[str, Any], said: str, tables: Tables, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        train(tables, home=tmp_path / "home", options=Options(**options))
    assert not (tmp_path / "home").exists()


def test_a_window_too_small_is_named(tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(TooLittleData, match=r"has 0 of .*\(with train_days 1\)$"):
        train(tables, home=tmp_path / "home", options=Options(train_days=1))


def test_a_test_that_ends_before_it_starts_is_refused(tables: Tables) -> None:
    with pytest.raises(ValueError, match="test_until: expected later than the test's start"):
        training_frame(tables, rates_of(tables), test_until=START)


# --- with MLflow ---------------------------------------------------------------------------------


def test_the_first_model_is_served_and_reported(report: TrainedReport, home: Path) -> None:
    assert (report.model_version, report.champion) == ("1", True)
    assert Home(home).served_version() == "1"
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    for name in ("auc", "average_precision", "tpr_at_5pct_fpr", "brier", "log_loss",
                 "prevalence_test"):  # fmt: skip
        assert 0 < document[name] < 1, name
    assert document["n_train"] > document["n_test"] > document["n_positives_test"] > 0
    assert document["intervals"]["auc"]["low"] < document["auc"]
    said = report.summary()
    assert "nan" not in said and "blueprint score" in said and "leaks found: 0" in said
    assert report.kept is not None and report.kept.is_file()


def test_the_run_keeps_what_one_needs_to_judge_it(report: TrainedReport, home: Path) -> None:
    import mlflow

    run = mlflow.MlflowClient(Home(home).tracking_uri).get_run(report.run_id)
    served = AbuseModel.load(Home(home).served_model()).manifest
    assert run.data.params["features_hash"] == definitions_hash(MODEL_FEATURES)
    assert run.data.params["data_digest"] == served.data_digest
    figures = report.judgement.figures
    assert run.data.metrics["average_precision"] == figures.average_precision
    assert served.metrics == figures.to_json()
    logged = {p.name for p in Home(home).artifacts.glob("*/artifacts/*")}
    assert {"report.html", "report.json", "policy-proposal.yaml", "test.parquet"} <= logged


def test_anyone_gets_the_same_probability_from_mlflow(
    report: TrainedReport, home: Path, split: TimeSplit
) -> None:
    import mlflow

    assert report.champion
    mlflow.set_tracking_uri(Home(home).tracking_uri)
    rows = split.test.inputs[:300]
    frame = pd.DataFrame(rows, columns=list(MODEL_NAMES))
    theirs = mlflow.pyfunc.load_model("models:/refund-abuse@champion").predict(frame)
    ours = AbuseModel.load(Home(home).served_model()).predict(rows)
    np.testing.assert_array_equal(np.asarray(theirs), ours)
    shuffled = frame[list(reversed(MODEL_NAMES))]
    again = mlflow.pyfunc.load_model("models:/refund-abuse@champion").predict(shuffled)
    np.testing.assert_array_equal(np.asarray(again), ours)
