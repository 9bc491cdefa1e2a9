"""Train: a data folder in, a tested and registered model out.

Within the training period time runs: the trees learn on the first part, a later part says how many
of them (early stopping on average precision), and a still later one, which no tree saw, calibrates
and places the bands. The number settled, the trees are grown again on the first two parts. The
out-of-time test is touched once, at the end. No resampling: it raises AUC and lowers AP.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn
from sklearn.metrics import average_precision_score

from features.catalog import MODEL_FEATURES
from features.feature import definitions_hash
from features.money import DAY_MS
from features.tables import Tables
from rules.document import Costs
from serving.home import Home
from serving.model import AbuseModel, Manifest, Reference
from training.calibrate import Calibration, calibrate
from training.dataset import (
    MODEL_NAMES,
    Examples,
    TimeSplit,
    TooLittleData,
    data_digest,
    rates_of,
    training_frame,
)
from training.evaluate import (
    REVIEW_SHARE,
    Interval,
    baselines,
    bootstrap,
    evaluate,
    interval,
    reliability,
)
from training.labels import CLEAN, DEFAULT_MATURITY_DAYS, SOURCES, label_definition
from training.report import TrainedReport, contributions, draw_summary, top_features
from training.thresholds import Bands, Outcome, choose_bands, default_costs, outcome

MAX_TREES: Final = 200
PATIENCE: Final = 30
FIT_SHARE, STOP_SHARE = 0.65, 0.15
"""Of the training examples, in time: for the trees, for their number; the rest calibrates."""

MIN_POSITIVES: Final = 10
"""Each part needs at least so many cases of abuse: below, its figures are noise."""

# Modest on purpose: every decision walks all trees, and its explanation too.
PARAMETERS: Final[Mapping[str, Any]] = {
    "objective": "binary",
    "metric": "average_precision",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "max_depth": 6,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "num_threads": 2,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}

TEST_ROWS: Final = "test.parquet"
"""The run's copy of its test examples: what a later challenger or champion is compared on."""


@dataclass(frozen=True)
class Fitted:
    """A model that has not seen the test, and what was settled on the way."""

    model: AbuseModel
    trees: int
    calibration: Calibration
    bands: Bands
    cost_curve: tuple[Outcome, ...]


def train(
    tables: Tables,
    *,
    home: Path,
    test_from: str | None = None,
    maturity_days: int = DEFAULT_MATURITY_DAYS,
    seed: int = 0,
    base: str = "GBP",
    costs: Costs | None = None,
) -> TrainedReport:
    """Train on a canonical data folder, test out of time, register; the first model is served.

    ``test_from`` is the first day of the test, ISO 8601 (UTC). All is written below ``home``
    (RECOURSE_HOME). Raises ValueError for what is no day, and TooLittleData where the folder has
    too few mature labels.
    """
    from training.registry import Registry  # imports MLflow, which costs seconds

    started = time.perf_counter()
    costs = costs or default_costs()
    split = training_frame(
        tables,
        rates_of(tables, base),
        test_from=None if test_from is None else instant_of(test_from),
        maturity_days=maturity_days,
    )
    digest = data_digest(tables)
    fitted = fit(split, seed=seed, base=base, costs=costs, digest=digest)
    metrics = evaluate(fitted.model, split.test)
    model = replace(fitted.model, manifest=replace(fitted.model.manifest, metrics=_known(metrics)))
    registry = Registry(Home(home))
    with TemporaryDirectory() as scratch, registry.run() as run_id:
        directory, logged = Path(scratch) / "abuse_model", Path(scratch) / "logged"
        logged.mkdir()
        model.save(directory)
        values, rows = contributions(model, split.test)
        draw_summary(model, values, rows, logged / "shap_summary.png")
        version = registry.register(model, directory)
        first = registry.champion() is None
        report = TrainedReport(
            model_version=version, champion=first, run_id=run_id,
            **_periods(split), **_judgement(fitted, split, costs, seed),
            metrics=metrics, top_features=top_features(model, values),
            seconds=time.perf_counter() - started,
        )  # fmt: skip
        (logged / "report.md").write_text(report.to_markdown(), encoding="utf-8")
        document = json.dumps(report.to_json(), indent=2)
        (logged / "report.json").write_text(document, encoding="utf-8")
        pq.write_table(_as_table(split.test), logged / TEST_ROWS, compression="zstd")
        parameters = {**PARAMETERS, "trees": fitted.trees, "seed": seed, "base": base,
                      "maturity_days": maturity_days, "test_from": report.test_from,
                      "calibrator": report.calibrator, "data_digest": digest,
                      "features_hash": model.manifest.features_hash}  # fmt: skip
        registry.log(parameters, metrics, logged)
        if first:
            registry.crown([version])
    return report


def instant_of(day: str) -> int:
    """The epoch milliseconds at which an ISO 8601 day, or instant, begins; UTC where not said.

    >>> instant_of("1970-01-02"), instant_of("1970-01-01T01:00:00+01:00")
    (86400000, 0)
    >>> instant_of("soon")
    Traceback (most recent call last):
        ...
    ValueError: test_from: expected a day as in 2026-01-31, got 'soon'
    """
    try:
        instant = datetime.fromisoformat(day)
    except ValueError:
        raise ValueError(f"test_from: expected a day as in 2026-01-31, got {day!r}") from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return round(instant.timestamp() * 1000)


def fit(split: TimeSplit, *, seed: int, base: str, costs: Costs, digest: str) -> Fitted:
    """Trees, calibration and bands from the training examples alone."""
    n = len(split.train)
    stop_from, calibrate_from = int(n * FIT_SHARE), int(n * (FIT_SHARE + STOP_SHARE))
    parts = {
        "fitting the trees": split.train.rows(0, stop_from),
        "counting the trees": split.train.rows(stop_from, calibrate_from),
        "calibration": split.train.rows(calibrate_from, n),
        "the test": split.test,
    }
    _check_enough(parts)
    learn, stop, late, _ = parts.values()
    grown = split.train.rows(0, calibrate_from)
    parameters = {**PARAMETERS, "seed": seed}
    trees = _count_trees(learn, stop, parameters)
    booster = lightgbm.train(parameters, _dataset(grown), trees)
    log_odds = np.asarray(booster.predict(late.inputs, raw_score=True))
    calibration = calibrate(log_odds, late.abuse)
    probability = calibration.calibrator.probability(log_odds)
    days = float(late.known_at[-1] - late.known_at[0]) / DAY_MS
    bands, curve = choose_bands(
        probability, late.column("payable_minor"), days=days, costs=costs,
        reviews_per_day=REVIEW_SHARE * len(late) / days,
    )  # fmt: skip
    model = AbuseModel(
        booster,
        calibration.calibrator,
        _manifest(split, booster, base, digest),
        Reference.of(late.inputs, probability),
    )
    return Fitted(model, trees, calibration, bands, tuple(curve))


def _check_enough(parts: Mapping[str, Examples]) -> None:
    few = [f"{name} has {part.positives} of {len(part)}" for name, part in parts.items()
           if not MIN_POSITIVES <= part.positives < len(part)]  # fmt: skip
    if few:
        raise TooLittleData(
            f"too few mature labels: expected at least {MIN_POSITIVES} refunds of abuse, and clean "
            f"ones beside them, in each part; {'; '.join(few)}"
        )


def _dataset(examples: Examples) -> lightgbm.Dataset:
    codes = [f.name for f in MODEL_FEATURES if f.unit == "code"]
    return lightgbm.Dataset(
        examples.inputs, examples.abuse, feature_name=list(MODEL_NAMES), categorical_feature=codes,
        params={"verbosity": -1, "num_threads": PARAMETERS["num_threads"]},
    )  # fmt: skip


def _count_trees(learn: Examples, stop: Examples, parameters: Mapping[str, Any]) -> int:
    """How many trees give the best average precision on later refunds."""
    seen = _dataset(learn)
    later = seen.create_valid(stop.inputs, stop.abuse)
    tried = lightgbm.train(
        dict(parameters), seen, MAX_TREES, valid_sets=[later],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )  # fmt: skip
    return int(tried.best_iteration)


def _manifest(split: TimeSplit, booster: lightgbm.Booster, base: str, digest: str) -> Manifest:
    train = split.train
    expected = booster.predict(np.zeros((1, len(MODEL_NAMES))), pred_contrib=True)
    return Manifest(
        feature_names=MODEL_NAMES,
        features_hash=definitions_hash(MODEL_FEATURES),
        base_currency=base,
        label_definition=label_definition(split.maturity_days),
        training_from=int(train.known_at[0]),
        training_until=int(train.known_at[-1]),
        test_from=split.test_from,
        base_rate=float(train.abuse.mean()),
        expected_log_odds=float(np.asarray(expected)[0, -1]),
        data_digest=digest,
        libraries={m.__name__: m.__version__ for m in (lightgbm, np, sklearn)},
    )


def _as_table(test: Examples) -> pa.Table:
    """Test examples as a table: who and when, the label, and the model's inputs."""
    inputs = dict(zip(MODEL_NAMES, test.inputs.T, strict=True))
    return pa.table(
        {"refund_id": pa.array(test.refund_id.tolist()), "customer": test.customer,
         "known_at": test.known_at, "abuse": test.abuse, "basis": pa.array(test.basis.tolist()),
         **{f"feature.{name}": values for name, values in inputs.items()}}
    )  # fmt: skip


# --- the report's parts ----------------------------------------------------------------------


def _known(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}


def _periods(split: TimeSplit) -> dict[str, Any]:
    def day(epoch_ms: int) -> str:
        return str(np.datetime64(int(epoch_ms), "ms").astype("datetime64[D]"))

    return {
        "training_from": day(split.train.known_at[0]),
        "training_until": day(split.train.known_at[-1]),
        "test_from": day(split.test_from),
        "test_until": day(split.test.known_at[-1]),
        "maturity_days": split.maturity_days,
        "n_train": len(split.train),
        "n_test": len(split.test),
        "n_positives_train": split.train.positives,
        "n_positives_test": split.test.positives,
        "train_labels": split.train_labels,
        "test_labels": split.test_labels,
    }


def _judgement(fitted: Fitted, split: TimeSplit, costs: Costs, seed: int) -> dict[str, Any]:
    test = split.test
    probability = fitted.model.predict(test.inputs)
    amount = test.column("payable_minor")
    days = float(split.test.known_at[-1] - split.test_from + 1) / DAY_MS
    pay_all = Bands(review_loss_minor=np.inf, prevent_probability=None)
    return {
        "trees": fitted.trees,
        "calibrator": fitted.calibration.calibrator.kind,
        "calibration_trials": fitted.calibration.trials,
        "intervals": _intervals(probability, test, seed),
        "baselines": baselines(test),
        "average_precision_by_basis": _by_basis(probability, test),
        "reliability": tuple(reliability(probability, test.abuse)),
        "bands": outcome(fitted.bands, probability, test.abuse, amount, days, costs),
        "cost_of_paying_all_minor": outcome(
            pay_all, probability, test.abuse, amount, days, costs
        ).cost_minor,
        "cost_curve": fitted.cost_curve,
    }


def _intervals(probability: Any, test: Examples, seed: int) -> dict[str, Interval]:
    rounds = bootstrap({"model": probability}, test.abuse, test.customer, seed)
    return {name: interval([r["model"][name] for r in rounds])
            for name in ("average_precision", "auc", "brier")}  # fmt: skip


def _by_basis(probability: Any, test: Examples) -> dict[str, float]:
    """Average precision of each source's abuse against refunds that matured clean."""
    clean = test.basis == CLEAN
    figures = {}
    for source in SOURCES:
        abuse = (test.basis == source) & (test.abuse == 1)
        if abuse.any() and clean.any():
            chosen = clean | abuse
            figures[source] = float(average_precision_score(abuse[chosen], probability[chosen]))
    return figures
