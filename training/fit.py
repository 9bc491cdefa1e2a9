"""Fit: from a split in time to a model that has not seen the test.

1. **The recipe** is validated, or searched, on the prequential folds (`training.validate`).
2. **The trees** are grown by it on all training examples: no later part is kept from them, since
   the folds have said already how many to grow.
3. **Calibration** is learnt from what each fold said of refunds later than those its trees saw.
   The final trees saw more than any fold did; that its curve fits them too is what the calibration
   slope of the out-of-time test shows.
4. **The bands** are placed on the same refunds, with the calibrated probability.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import lightgbm
import numpy as np
import sklearn
from numpy.typing import NDArray

from features.catalog import MODEL_FEATURES
from features.feature import definitions_hash
from features.money import DAY_MS
from rules.document import Costs
from serving.explain import TreeExplainer
from serving.model import AbuseModel, Manifest, Reference
from training.calibrate import Calibration, calibrate
from training.capacity import REVIEW_SHARE
from training.dataset import MODEL_NAMES, TimeSplit
from training.labels import label_definition
from training.recipe import Recipe, grow
from training.search import search
from training.thresholds import REVIEWS_PER_REVIEWER_PER_DAY, Placement, place_bands
from training.validate import Progress, Validation, check_enough, validate

FloatArray = NDArray[np.float64]

SIZES: Final = (0.25, 0.5, 1.0, 2.0)
"""Numbers of trees that a report sets beside the chosen one, as multiples of it."""

TIMED_DECISIONS: Final = 100


@dataclass(frozen=True)
class Size:
    """What a number of trees ranks and costs: mean AP of the folds, and one decision's time.

    ``decision_ms`` is the median time of probability and SHAP contributions of a single refund on
    the machine that trained; it is told, and decides nothing.
    """

    trees: int
    average_precision: float
    decision_ms: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Fitted:
    """A model that has not seen the test, and what was settled on the way.

    ``probability`` (n,) is the calibrated probability of the refunds that the folds were judged on
    (``validation.examples``). ``trials`` are the recipes of a search, empty without one.
    """

    model: AbuseModel
    validation: Validation
    trials: tuple[dict[str, Any], ...]
    calibration: Calibration
    probability: FloatArray
    placement: Placement

    @property
    def trees(self) -> int:
        """How many trees the model has."""
        return self.validation.trees


def fit(
    split: TimeSplit,
    *,
    seed: int,
    base: str,
    costs: Costs,
    digest: str,
    recipe: Recipe | None = None,
    search_trials: int = 0,
    reviews_per_reviewer_per_day: float = REVIEWS_PER_REVIEWER_PER_DAY,
    progress: Progress = lambda done, total: None,
) -> Fitted:
    """Recipe, trees, calibration and bands from the training examples alone.

    ``search_trials`` recipes are tried beside ``recipe``. The desk's capacity is
    that of ``costs``, else `REVIEW_SHARE` of the refunds. Raises
    TooLittleData where a fold or the test has too few cases of abuse.
    """
    check_split(split)
    recipe = recipe or Recipe()
    trials: tuple[dict[str, Any], ...] = ()
    if search_trials:
        searched = search(split.folds, recipe, trials=search_trials, seed=seed, progress=progress)
        validation, trials = searched.best, searched.trials
    else:
        validation = validate(split.folds, recipe, seed, progress)
    booster = grow(split.train, validation.recipe, validation.trees, seed)
    judged = validation.examples
    calibration = calibrate(validation.log_odds, judged.abuse)
    probability = calibration.calibrator.probability(validation.log_odds)
    days = float(split.folds[-1].end - split.folds[0].start) / DAY_MS
    room = costs.reviews_per_day
    placement = place_bands(
        probability, judged.column("payable_minor"), days=days, costs=costs,
        reviews_per_day=REVIEW_SHARE * len(judged) / days if room is None else room,
        known_at=judged.known_at, reviews_per_reviewer_per_day=reviews_per_reviewer_per_day,
    )  # fmt: skip
    model = AbuseModel(
        booster,
        calibration.calibrator,
        _manifest(split, booster, base, digest),
        Reference.of(split.train.inputs, probability),
    )
    return Fitted(model, validation, trials, calibration, probability, placement)


def check_split(split: TimeSplit) -> None:
    """Raise TooLittleData, naming every part of a split without enough of both classes."""
    parts = [("the test", split.test)]
    for number, fold in enumerate(split.folds, 1):
        parts += [(f"fold {number} to learn from", fold.learn), (f"fold {number}", fold.judge)]
    check_enough(parts)


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


def sizes(fitted: Fitted, rows: FloatArray) -> tuple[Size, ...]:
    """AP and cost of a decision for several numbers of trees; ``rows`` (n, features) are timed.

    More trees than the model has are not grown for it: their AP is known from the folds, their time
    is NaN.
    """
    curve = fitted.validation.curve.mean(axis=1)
    found: list[Size] = []
    for share in SIZES:
        trees = min(len(curve), max(1, round(fitted.trees * share)))
        if any(size.trees == trees for size in found):
            continue
        taken = float("nan") if trees > fitted.trees else _decision_ms(fitted.model, trees, rows)
        found.append(Size(trees, float(curve[trees - 1]), taken))
    return tuple(found)


def _decision_ms(model: AbuseModel, trees: int, rows: FloatArray) -> float:
    cut = lightgbm.Booster(model_str=model.booster.model_to_string(num_iteration=trees))
    smaller = replace(model, booster=cut)
    explainer = TreeExplainer.from_booster(cut)
    explainer.warm_up()
    taken = []
    for row in rows[:TIMED_DECISIONS, None]:
        started = time.perf_counter()
        smaller.predict(row)
        explainer.contributions(row)
        taken.append(time.perf_counter() - started)
    return 1000 * float(np.median(taken))
