"""Prequential validation: a recipe judged as it would have done, fold after fold in time.

Each fold learns from what was mature when it starts and is judged on what came next, so nothing is
learnt from the future and no label from before it was known. All folds grow in step, a tree each,
and stop when their mean average precision (AP) has not risen for `PATIENCE` trees.

**How many trees.** Every decision walks each tree to predict and again to explain, while the last
trees rank hardly better. The number is the smallest whose mean AP is within `TOLERANCE` of the
best, in the spirit of the one-standard-error rule (Breiman et al. 1984).

What the folds said of refunds that they had not seen calibrates the model and places its bands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

from training.dataset import MIN_POSITIVES, Examples, Fold, TooLittleData
from training.recipe import Recipe, dataset, log_odds

FloatArray = NDArray[np.float64]

PATIENCE: Final = 40
TOLERANCE: Final = 0.002
"""How much mean AP fewer trees may cost."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Validation:
    """What the folds said of a recipe.

    ``curve`` (rounds, folds) is the AP after each tree, ``trees`` how many to grow. ``examples``
    are all that the folds were judged on, in order of time, ``log_odds`` (n,) what each fold's own
    trees, ``trees`` of them, said of its refunds.
    """

    recipe: Recipe
    trees: int
    curve: FloatArray
    examples: Examples
    log_odds: FloatArray

    @property
    def average_precision(self) -> FloatArray:
        """AP of each fold (folds,) with the number of trees chosen."""
        chosen: FloatArray = self.curve[self.trees - 1]
        return chosen

    def to_json(self) -> dict[str, Any]:
        """Figures by fold, and the mean curve."""
        return {
            "recipe": self.recipe.to_json(),
            "trees": self.trees,
            "best_trees": int(self.curve.mean(axis=1).argmax()) + 1,
            "average_precision_by_fold": self.average_precision.tolist(),
            "average_precision": float(self.average_precision.mean()),
            "curve": self.curve.mean(axis=1).tolist(),
        }


def check_enough(parts: Sequence[tuple[str, Examples]]) -> None:
    """Raise TooLittleData, naming every part without enough of both classes."""
    few = [f"{name} has {part.positives} of {len(part)}" for name, part in parts
           if not MIN_POSITIVES <= part.positives < len(part)]  # fmt: skip
    if few:
        raise TooLittleData(
            f"too few mature labels: expected at least {MIN_POSITIVES} refunds of abuse, and clean "
            f"ones beside them, in each part; {'; '.join(few)}"
        )


def validate(
    folds: Sequence[Fold], recipe: Recipe, seed: int, progress: Progress = lambda done, total: None
) -> Validation:
    """Grow a recipe on every fold in step, and choose how many trees."""
    boosters = [_started(fold, recipe, seed) for fold in folds]
    curve: list[list[float]] = []
    best, best_at = -1.0, 0
    while len(curve) < recipe.max_trees and len(curve) - best_at < PATIENCE:
        for booster in boosters:
            booster.update()
        curve.append([booster.eval_valid()[0][2] for booster in boosters])
        mean = float(np.mean(curve[-1]))
        if mean > best:
            best, best_at = mean, len(curve)
        progress(len(curve), recipe.max_trees)
    progress(recipe.max_trees, recipe.max_trees)
    grown = np.array(curve)
    trees = int(np.flatnonzero(grown.mean(axis=1) >= best - TOLERANCE)[0]) + 1
    said = [log_odds(booster, fold.judge, trees)
            for booster, fold in zip(boosters, folds, strict=True)]  # fmt: skip
    judged = Examples.one_after_another([fold.judge for fold in folds])
    return Validation(recipe, trees, grown, judged, np.concatenate(said))


def _started(fold: Fold, recipe: Recipe, seed: int) -> lightgbm.Booster:
    learnt = dataset(fold.learn, recipe, seed)
    booster = lightgbm.Booster(recipe.parameters(seed), learnt)
    booster.add_valid(dataset(fold.judge, recipe, seed, like=learnt), "judge")
    return booster
