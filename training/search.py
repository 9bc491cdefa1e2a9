"""Search: recipes tried on the prequential folds, within a budget; same seed, same recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from training.dataset import Fold
from training.recipe import Recipe
from training.validate import TOLERANCE, Progress, Validation, validate

PATIENT_TRIALS: Final = 8
"""How many recipes are drawn at random before the search learns from them."""


SEARCHED: Final = (
    "learning_rate", "num_leaves", "min_data_in_leaf", "feature_fraction", "bagging_fraction",
    "lambda_l2", "max_bin",
)  # fmt: skip
"""What of a recipe is drawn."""

MAX_BINS: Final = (255, 1023, 4095)


@dataclass(frozen=True)
class Searched:
    """The best recipe's validation, and every trial: recipe, trees and mean AP."""

    best: Validation
    trials: tuple[dict[str, Any], ...]


def search(
    folds: Sequence[Fold], start: Recipe, *, trials: int, seed: int,
    progress: Progress = lambda done, total: None,
) -> Searched:  # fmt: skip
    """Try ``start`` and ``trials`` recipes beside it; the highest mean AP over the folds wins,
    if it is higher than that of ``start`` by more than `training.validate.TOLERANCE`.

    Tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna. Class weights, monotone
    constraints and categorical codes stay as ``start`` has them.
    """
    import optuna  # costs a second

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: list[Validation] = []

    def objective(trial: optuna.Trial) -> float:
        recipe = replace(
            start,
            learning_rate=trial.suggest_float("learning_rate", 0.02, 0.15, log=True),
            num_leaves=trial.suggest_int("num_leaves", 4, 63, log=True),
            min_data_in_leaf=trial.suggest_int("min_data_in_leaf", 10, 200, log=True),
            feature_fraction=trial.suggest_float("feature_fraction", 0.2, 0.9),
            bagging_fraction=trial.suggest_float("bagging_fraction", 0.5, 1.0),
            lambda_l2=trial.suggest_float("lambda_l2", 0.1, 50.0, log=True),
            max_bin=trial.suggest_categorical("max_bin", sorted({*MAX_BINS, start.max_bin})),
        )
        found.append(validate(folds, recipe, seed))
        progress(len(found), trials + 1)
        return float(found[-1].average_precision.mean())

    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=PATIENT_TRIALS)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial({name: getattr(start, name) for name in SEARCHED})
    study.optimize(objective, n_trials=trials + 1)
    best = max(found, key=lambda v: float(v.average_precision.mean()))
    if found[0].average_precision.mean() >= best.average_precision.mean() - TOLERANCE:
        best = found[0]  # a lead within the noise is no reason to leave the usual recipe
    return Searched(
        best,
        tuple(
            {**v.recipe.to_json(), "trees": v.trees,
             "average_precision": float(v.average_precision.mean())}
            for v in found
        ),
    )  # fmt: skip
