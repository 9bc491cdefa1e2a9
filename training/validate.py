"""Prequential validation: a recipe judged as it would have done, fold after fold in time.

Each fold learns from what was mature when it starts and is judged on what came next, so nothing is
learnt from the future and no label from before it was known. All folds grow in step, a tree each,
and stop when neither their mean average precision (AP) nor their mean log-loss has become better
for `PATIENCE` trees.

**How many trees.** Every decision walks each tree to predict and again to explain, while the last
trees rank hardly better. The number is the smallest whose mean AP is within `TOLERANCE` of the
best, in the spirit of the one-standard-error rule (Breiman et al. 1984). Two things keep luck out
where abuse is rare and AP jumps from tree to tree: AP is taken as its running mean over
`SMOOTHED` trees, and no number is chosen before the log-loss, which is steady, has fallen by
`LEARNT` of all that it falls.

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
SMOOTHED: Final = 9
LEARNT: Final = 0.9

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Validation:
    """What the folds said of a recipe.

    ``curve`` (rounds, folds) is the AP after each tree, ``log_loss`` (rounds,) the folds' mean,
    ``trees`` how many to grow. ``examples``
    are all that the folds were judged on, in order of time, ``log_odds`` (n,) what each fold's own
    trees, ``trees`` of them, said of its refunds.
    """

    recipe: Recipe
    trees: int
    curve: FloatArray
    log_loss: FloatArray
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
            "log_loss_curve": self.log_loss.tolist(),
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
    precisions: list[list[float]] = []
    losses: list[float] = []
    while len(losses) < recipe.max_trees and _still_rising(precisions, losses):
        for booster in boosters:
            booster.update()
        said = [{each[1]: each[2] for each in booster.eval_valid()} for booster in boosters]
        precisions.append([of["average_precision"] for of in said])
        losses.append(float(np.mean([of["binary_logloss"] for of in said])))
        progress(len(losses), recipe.max_trees)
    progress(recipe.max_trees, recipe.max_trees)
    curve, log_loss = np.array(precisions), np.array(losses)
    trees = choose_trees(curve.mean(axis=1), log_loss)
    judged = Examples.one_after_another([fold.judge for fold in folds])
    scores = [log_odds(booster, fold.judge, trees)
              for booster, fold in zip(boosters, folds, strict=True)]  # fmt: skip
    return Validation(recipe, trees, curve, log_loss, judged, np.concatenate(scores))


def _still_rising(precisions: list[list[float]], losses: list[float]) -> bool:
    if not losses:
        return True
    best = max(int(np.argmax(np.mean(precisions, axis=1))), int(np.argmin(losses)))
    return len(losses) - 1 - best < PATIENCE


def choose_trees(average_precision: FloatArray, log_loss: FloatArray) -> int:
    """How many trees, from the mean AP and log-loss (rounds,) after each; see the module's head.

    >>> choose_trees(np.array([0.30, 0.45, 0.45, 0.45]), np.array([0.20, 0.15, 0.11, 0.10]))
    4
    """
    rounds = len(average_precision)
    half = min(SMOOTHED, rounds) // 2
    smooth = np.array([
        average_precision[max(0, at - half) : at + half + 1].mean() for at in range(rounds)
    ])  # fmt: skip
    least = log_loss.min()
    learnt = np.flatnonzero(log_loss <= least + (1 - LEARNT) * (log_loss[0] - least))[0]
    enough = np.flatnonzero(smooth[learnt:] >= smooth[learnt:].max() - TOLERANCE)[0]
    return int(learnt + enough) + 1


def _started(fold: Fold, recipe: Recipe, seed: int) -> lightgbm.Booster:
    learnt = dataset(fold.learn, recipe, seed)
    booster = lightgbm.Booster(recipe.parameters(seed), learnt)
    booster.add_valid(dataset(fold.judge, recipe, seed, like=learnt), "judge")
    return booster
