"""Prequential validation: nothing of the future, all folds in step, no more trees than pay."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from features.money import DAY_MS
from features.tables import Tables
from training.dataset import (
    MIN_POSITIVES,
    TimeSplit,
    TooLittleData,
    rates_of,
    training_frame,
)
from training.fit import Fitted, sizes
from training.recipe import Recipe, grow, log_odds
from training.search import search
from training.validate import TOLERANCE, check_enough, choose_trees, validate

SMALL = Recipe(max_trees=15, num_leaves=6)


def test_folds_repeat_the_test_within_the_training_period(split: TimeSplit) -> None:
    assert 2 <= len(split.folds) <= 4
    ends = [fold.end for fold in split.folds]
    assert [fold.start for fold in split.folds[1:]] == ends[:-1]
    assert ends[-1] == split.test_from - split.maturity_days * DAY_MS
    for fold in split.folds:
        assert fold.learn.known_at.max() <= fold.start - split.maturity_days * DAY_MS
        assert fold.start <= fold.judge.known_at.min() <= fold.judge.known_at.max() < fold.end
        assert not set(fold.learn.refund_id) & set(fold.judge.refund_id)
    assert len(split.folds[0].learn) < len(split.folds[-1].learn) < len(split.train)


def test_folds_are_fewer_where_abuse_is_rare(tables: Tables, split: TimeSplit) -> None:
    rates = rates_of(tables)
    many = training_frame(tables, rates, folds=12)
    assert len(split.folds) <= len(many.folds) < 12
    assert all(fold.judge.positives >= MIN_POSITIVES for fold in many.folds)
    assert len(training_frame(tables, rates, folds=12, fold_days=5).folds) == 12


def test_a_fold_learns_labels_as_they_were_known_then(tables: Tables) -> None:
    split = training_frame(tables, rates_of(tables), maturity_days=10)
    now = dict(zip(split.train.refund_id, split.train.abuse, strict=True))
    changed = sum(
        now.get(refund_id) != abuse
        for fold in split.folds
        for refund_id, abuse in zip(fold.learn.refund_id, fold.learn.abuse, strict=True)
    )
    assert changed  # some words came later, and the fold does not know them


def test_a_window_of_training_forgets_what_is_older(tables: Tables, split: TimeSplit) -> None:
    rates = rates_of(tables)
    recent = training_frame(tables, rates, train_days=60, fold_days=20, folds=2)
    mature_until = recent.test_from - recent.maturity_days * DAY_MS
    assert recent.train.known_at.min() >= mature_until - 60 * DAY_MS
    assert recent.test.refund_id.tolist() == split.test.refund_id.tolist()
    for fold in recent.folds:
        assert fold.end - fold.start == 20 * DAY_MS
        gap = fold.start - recent.maturity_days * DAY_MS
        assert gap - 60 * DAY_MS <= fold.learn.known_at.min() <= fold.learn.known_at.max() <= gap
    ended = recent.test_from + 10 * DAY_MS
    week = training_frame(tables, rates, test_from=recent.test_from, test_until=ended)
    assert week.test.known_at.max() < ended


def test_trees_stop_where_more_do_not_pay(fitted: Fitted) -> None:
    found = fitted.validation
    assert found.trees == choose_trees(found.curve.mean(axis=1), found.log_loss)
    assert found.average_precision.tolist() == found.curve[found.trees - 1].tolist()
    assert len(found.curve) == len(found.log_loss) >= found.trees


def test_luck_of_the_first_trees_is_no_reason_to_stop() -> None:
    learning = 0.2 - 0.1 * (1 - np.exp(-np.arange(150) / 20))  # 90 % of it after 46 trees
    lucky = np.full(150, 0.4)
    lucky[5] = 0.9
    assert 40 <= choose_trees(lucky, learning) <= 50
    rising = np.linspace(0.3, 0.5, 150)
    late = choose_trees(rising, learning)
    assert 140 <= late <= 150
    assert rising[late - 1] >= rising[-1] - 0.01
    flat_after = np.minimum(rising, rising[79])
    assert 75 <= choose_trees(flat_after, learning) <= 80


def test_what_the_folds_said_is_what_such_a_model_says(fitted: Fitted, split: TimeSplit) -> None:
    found, at = fitted.validation, 0
    for place, fold in enumerate(split.folds):
        booster = grow(fold.learn, found.recipe, found.trees, seed=0)
        said = found.log_odds[at : at + len(fold.judge)]
        np.testing.assert_allclose(said, log_odds(booster, fold.judge, found.trees), rtol=1e-9)
        assert found.average_precision[place] == pytest.approx(
            average_precision_score(fold.judge.abuse, said), abs=2e-3
        )
        at += len(fold.judge)
    assert at == len(found.examples) == len(fitted.probability)
    assert (np.diff(found.examples.known_at) >= 0).all()


def test_the_final_trees_learn_from_all_of_the_training(fitted: Fitted, split: TimeSplit) -> None:
    again = grow(split.train, fitted.validation.recipe, fitted.trees, seed=0)
    assert again.model_to_string() == fitted.model.booster.model_to_string()


def test_a_search_keeps_its_budget_and_repeats_itself(split: TimeSplit) -> None:
    told: list[tuple[int, int]] = []
    first = search(
        split.folds[-2:], SMALL, trials=2, seed=3,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    again = search(split.folds[-2:], SMALL, trials=2, seed=3)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert first.trials == again.trials
    assert first.trials[0] == {
        **SMALL.to_json(), "trees": first.trials[0]["trees"],
        "average_precision": first.trials[0]["average_precision"],
    }  # fmt: skip
    best = max(trial["average_precision"] for trial in first.trials)
    assert first.best.average_precision.mean() >= best - TOLERANCE


def test_a_search_keeps_the_usual_recipe_unless_another_is_clearly_better(split: TimeSplit) -> None:
    unusual = Recipe(max_trees=12, num_leaves=6, max_bin=512)
    found = search(split.folds[-1:], unusual, trials=1, seed=0)
    gain = max(trial["average_precision"] for trial in found.trials)
    gain -= found.trials[0]["average_precision"]
    assert found.trials[0]["max_bin"] == 512
    assert (found.best.recipe == unusual) == (gain <= TOLERANCE)


def test_smaller_models_are_set_beside_the_chosen_one(fitted: Fitted, split: TimeSplit) -> None:
    found = sizes(fitted, split.test.inputs[:20])
    timed = [size for size in found if size.trees <= fitted.trees]
    assert [size.trees for size in found] == sorted({size.trees for size in found})
    assert fitted.trees in [size.trees for size in timed] and len(timed) >= 2
    assert all(size.decision_ms > 0 for size in timed)


def test_a_fold_with_too_little_is_named(split: TimeSplit) -> None:
    with pytest.raises(TooLittleData, match=r"each part; fold 9 has 0 of 2$"):
        check_enough([("the rest", split.train), ("fold 9", split.train.rows(0, 2))])
    one = replace(split.folds[0], judge=split.folds[0].judge.rows(0, 40))
    assert validate([one], SMALL, seed=0).curve.shape[1] == 1
