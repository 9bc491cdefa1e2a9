"""The report of a training run: everything found, as plain values, and in short to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rules.document import Costs
from serving.language import ENGLISH
from serving.model import AbuseModel, Manifest
from training.bands import Outcome
from training.baselines import Against, Baseline, BlueprintCost
from training.calibrate import Trial
from training.dataset import Examples, TimeSplit
from training.drift import DriftReport
from training.evaluate import Judgement
from training.fairness import Fairness
from training.faithfulness import Faithfulness
from training.fit import Size
from training.leaks import LeakReport
from training.proposal import money
from training.segments import Segment
from training.thresholds import Placement

FloatArray = NDArray[np.float64]

PICTURE_ROWS: Final = 2_000
"""How many test refunds are explained for the report."""


@dataclass(frozen=True)
class Picture:
    """What a page draws that is too large to be said: the split, and arrays of the test.

    ``probability`` (n,) is of ``split.test``; ``values`` (k, features) are SHAP values in log-odds
    of the refunds ``rows`` (k, features), an even sample of it. ``baselines`` are those that the
    report compares with, ``manifest`` and ``seed`` what would make the model again.
    """

    split: TimeSplit
    probability: FloatArray
    values: FloatArray
    rows: FloatArray
    baselines: tuple[Baseline, ...]
    manifest: Manifest
    seed: int


@dataclass(frozen=True)
class TrainedReport:
    """What a training run made and how that did on the out-of-time test.

    ``refusals`` say why the model was not registered (then there is no ``model_version``),
    ``doubts`` what a reader should know all the same. ``champion`` tells whether this version is
    served now. ``judgement`` is of the test as labelled; ``weighted`` the same by inverse
    propensity, where the folder has decisions. ``outcome`` is what the bands of ``placement``
    led to on the test. ``kept`` is where the page lies.
    """

    model_version: str | None
    champion: bool
    run_id: str
    base_currency: str
    policy_version: str
    training_from: str
    training_until: str
    test_from: str
    test_until: str
    maturity_days: int
    n_train: int
    n_test: int
    n_positives_train: int
    n_positives_test: int
    train_labels: Mapping[str, Mapping[str, int]]
    test_labels: Mapping[str, Mapping[str, int]]
    label_delays: tuple[Mapping[str, Any], ...]
    refusals: tuple[str, ...]
    doubts: tuple[str, ...]
    leaks: LeakReport
    recipe: Mapping[str, Any]
    trees: int
    validation: Mapping[str, Any]
    trials: tuple[Mapping[str, Any], ...]
    sizes: tuple[Size, ...]
    calibrator: str
    calibration_trials: tuple[Trial, ...]
    judgement: Judgement
    weighted: Mapping[str, Any] | None
    against: tuple[Against, ...]
    blueprint_unknown: Mapping[str, float]
    blueprint_costs: tuple[BlueprintCost, ...]
    costs: Costs
    placement: Placement
    outcome: Outcome
    outcome_of_policy: Outcome
    outcome_of_paying_all: Outcome
    segments: tuple[Segment, ...]
    fairness: tuple[Fairness, ...]
    drift: DriftReport
    faithfulness: Faithfulness
    top_features: tuple[tuple[str, float], ...]
    seconds: Mapping[str, float]
    kept: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """One document: the figures of the test by their own names beside everything else."""
        document = {name: _plain(value) for name, value in vars(self).items()}
        figures = document.pop("judgement")
        renamed = {"prevalence_test": figures.pop("prevalence")}
        for name in ("n", "n_positives"):  # said as n_test and n_positives_test
            figures.pop(name)
        return {**figures, **renamed, **document}

    def summary(self) -> str:
        """The run in a screen: what was made, how it did, and what it is worth."""
        return "\n".join(_summary(self)) + "\n"


def _plain(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return _plain(value.to_json())
    if isinstance(value, Costs):
        return value.model_dump()
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Iterable):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _summary(r: TrainedReport) -> Iterable[str]:
    f, i = r.judgement.figures, r.judgement.intervals
    state = "not registered" if r.model_version is None else f"version {r.model_version}"
    yield f"refund-abuse, {state}{', now champion' if r.champion else ''}"
    yield (
        f"  trained on {r.n_train:,} refunds ({r.n_positives_train:,} abuse), {r.training_from} to "
        f"{r.training_until}: {r.trees} trees, {r.calibrator} calibration"
    )
    yield (
        f"  tested on {r.n_test:,} ({r.n_positives_test:,} abuse), {r.test_from} to {r.test_until};"
        f" a label takes {r.maturity_days} days"
    )
    for name, said in (
        ("average_precision", "average precision"),
        ("auc", "AUC"),
        ("tpr_at_5pct_fpr", "TPR at 5 % FPR"),
        ("calibration_slope", "calibration slope"),
    ):
        low, high = i[name].low, i[name].high
        yield f"  {said:<20} {getattr(f, name):.3f}  ({low:.3f} to {high:.3f})"
    for one in r.against:
        figure = one.baseline.average_precision
        yield (
            f"    {one.name.replace('_', ' '):<24} AP {figure:.3f}, gain "
            f"{one.average_precision_gain.low:+.3f} to {one.average_precision_gain.high:+.3f}"
        )
    yield (
        f"  cost of 1,000 refunds: {_money(r, r.outcome)} at the proposed bands, "
        f"{_money(r, r.outcome_of_policy)} at those of policy {r.policy_version}, "
        f"{_money(r, r.outcome_of_paying_all)} paying all"
    )
    more = r.placement.one_more
    yield (
        f"  one more reviewer is worth {money(more.saved_minor_per_day, r.base_currency)} a day, "
        "reviews paid"
    )
    yield f"  leaks found: {len(r.leaks.leaks)}"
    found = r.faithfulness
    yield (
        f"  the main reason, made usual, lowers the score of {ENGLISH.share(found.main.share, 1)} "
        f"of {ENGLISH.count(found.asked)} flagged refunds"
    )
    for refusal in r.refusals:
        yield f"  REFUSED: {refusal}"
    for doubt in r.doubts:
        yield f"  note: {doubt}"
    if r.kept is not None:
        yield f"  report: {r.kept}"


def _money(r: TrainedReport, led_to: Outcome) -> str:
    return money(led_to.cost_minor_per_1000, r.base_currency)


def contributions(model: AbuseModel, examples: Examples) -> tuple[FloatArray, FloatArray]:
    """SHAP values (k, features) in log-odds of an even sample of examples, and its rows."""
    picked = np.linspace(0, len(examples) - 1, min(PICTURE_ROWS, len(examples))).astype(int)
    rows = examples.where(picked).columns(model.feature_names)
    values = np.asarray(model.booster.predict(rows, pred_contrib=True))
    return values[:, :-1], rows
