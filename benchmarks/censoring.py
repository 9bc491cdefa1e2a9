"""How far off is an evaluation on the labels that a policy left over, and how far with weights?

``python -m benchmarks.censoring`` prints one JSON document. A simulated shop tells the truth of
every refund, which no real one does. A champion trained on the first part of it runs as the past
policy over the last: what it holds has no label, unless the random holdout pays it. Models are then
judged there three ways: on the truth of all refunds; naively, on labelled refunds alone; and with
the weights of `training.propensity`. Only the holdout's draws are made again, many times.

- ``naive_refused``: what was held was refused and never looked at;
- ``naive_reviewed``: analysts looked at all that the champion would review, and their word counts
  as a label; they find and accuse as the simulated ones do on the average;
- ``weighted``, ``weighted_clipped``: paid refunds and explored ones, by one over the propensity;
- ``weighted_as_reviewed``: those, and what is reviewed but never explorable stands for all of that
  kind.

A label is the truth wherever a refund was paid, so that only censoring is measured. What the shop
itself came to know, with errors, late, and under a crude policy of its own, is in
``the_shops_own_labels``. Features are those of the shop's history, in which this champion did not
act: an error of the comparison that is the same for all ways.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

from features.money import DAY_MS
from features.tables import Tables, read_folder, write_folder
from rules.decision import Action
from rules.document import Band, Costs
from training.bands import actions, default_costs
from training.calibrate import calibrate
from training.costs import cost_of, mean_cost
from training.dataset import MODEL_NAMES, FeatureFrame, end_of, feature_frame, rates_of
from training.labels import CENSORED, label_refunds
from training.propensity import NEVER_EXPLORABLE, effective_size, fates, weights
from training.ranking import Ranking
from training.simulate import simulate_with_truth
from training.thresholds import place_bands

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Bools = NDArray[np.bool_]

CHAMPION_AT, JUDGED_FROM = 0.45, 0.65
"""Where in time, as shares of the refunds, the champion is trained and the judgement begins."""

REVIEW_SHARE: Final = 0.05
CLIP: Final = 10.0
ANALYSTS_FIND, ANALYSTS_ACCUSE = 0.75, 0.04
"""Shares of abuse found and of honest refunds accused, about as in `training.world_aftermath`."""

WAYS: Final = ("naive_refused", "naive_reviewed", "weighted", "weighted_clipped",
               "weighted_as_reviewed")  # fmt: skip
FIGURES: Final = ("average_precision", "auc", "tpr_at_5pct_fpr", "prevalence", "calibration_gap",
                  "cost_per_1000_minor")  # fmt: skip
"""``calibration_gap``: mean probability less prevalence."""

CHAMPION: Final = "champion"
PARAMETERS: Final = {
    "objective": "binary", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 50,
    "feature_fraction": 0.6, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5.0,
    "num_threads": 2, "deterministic": True, "force_row_wise": True, "verbosity": -1,
}  # fmt: skip
TREES, TREE_SHARE = 150, 0.8


# --- the world -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shop:
    """A simulated shop: its folder, its features, and what nobody there knows: ``abuse`` (m,)."""

    tables: Tables
    frame: FeatureFrame
    abuse: FloatArray
    first: IntArray  # rows of first versions, in order of time

    @classmethod
    def simulate(cls, customers: int, days: int, seed: int) -> Shop:
        """Simulate, write and read back: what is judged went the way of any data folder."""
        world = simulate_with_truth(customers, days, seed)
        with TemporaryDirectory(prefix="censoring-") as work:
            write_folder(world.tables, Path(work))
            tables = read_folder(Path(work)).tables
        frame = feature_frame(tables, rates_of(tables))
        told = world.truth["refunds"]
        truth = dict(zip(told["refund_id"].to_pylist(), told["abuse"].to_pylist(), strict=True))
        abuse = np.array([truth[refund] for refund in frame.refund_id.tolist()], np.float64)
        _, first = np.unique(frame.refund_id.astype(str), return_index=True)
        return cls(tables, frame, abuse, np.sort(first))

    def instant(self, share: float) -> int:
        """When so large a share of the refunds had been asked for."""
        return int(self.frame.known_at[self.first[int(share * len(self.first))]])


@dataclass(frozen=True)
class Model:
    """A model as far as it is judged: its probabilities and bands over the refunds judged."""

    probability: FloatArray
    bands: tuple[Band, ...]

    def actions(self, amount_minor: FloatArray, costs: Costs) -> IntArray:
        """The severity (n,) of what its bands call for."""
        loss = self.probability * (amount_minor + costs.fee_minor)
        return actions(self.bands, self.probability, loss).astype(np.int64)


def fit(
    shop: Shop, names: Sequence[str], *, as_of: int, maturity_days: int, costs: Costs,
    judged: IntArray, seed: int,
) -> Model:  # fmt: skip
    """Trees on the labels known at ``as_of``, calibrated and banded on the latest of them."""
    labels = label_refunds(shop.tables, as_of=as_of, maturity_days=maturity_days)
    known = ~np.isnan(labels.abuse)
    row, abuse = labels.row[known], labels.abuse[known]
    cut = int(TREE_SHARE * len(row))
    columns = np.column_stack([shop.frame.columns[name] for name in names])
    data = lightgbm.Dataset(columns[row[:cut]], abuse[:cut])
    booster = lightgbm.train({**PARAMETERS, "seed": seed}, data, TREES)

    def log_odds(rows: IntArray) -> FloatArray:
        return np.asarray(booster.predict(columns[rows], raw_score=True))

    late = row[cut:]
    calibrator = calibrate(log_odds(late), abuse[cut:]).calibrator
    at = shop.frame.known_at[late]
    days = float(at[-1] - at[0]) / DAY_MS
    placed = place_bands(
        calibrator.probability(log_odds(late)), shop.frame.columns["payable_minor"][late],
        days=days, costs=costs, reviews_per_day=REVIEW_SHARE * len(late) / days,
    )  # fmt: skip
    return Model(calibrator.probability(log_odds(judged)), placed.bands.written())


def fit_all(shop: Shop, judged: IntArray, maturity_days: int, costs: Costs) -> dict[str, Model]:
    """The champion and its challengers: one newly trained, one alike, one that knows too little."""
    old, new = shop.instant(CHAMPION_AT), shop.instant(JUDGED_FROM)
    no_history = [name for name in MODEL_NAMES if "_by_" not in name]
    recipes: dict[str, tuple[Sequence[str], int, int]] = {
        CHAMPION: (MODEL_NAMES, old, 1),
        "retrained": (MODEL_NAMES, new, 1),
        "reseeded": (MODEL_NAMES, old, 2),
        "without_history": (no_history, new, 1),
    }
    models = {}
    for name, (columns, as_of, seed) in recipes.items():
        say(f"training {name}")
        models[name] = fit(shop, columns, as_of=as_of, maturity_days=maturity_days, costs=costs,
                           judged=judged, seed=seed)  # fmt: skip
    return models


# --- what the past policy leaves over ----------------------------------------------------------


@dataclass(frozen=True)
class Past:
    """The refunds judged and what the champion's bands made of them; arrays (n,).

    ``action`` is a severity, ``said`` what an analyst would say of each.
    """

    abuse: FloatArray
    amount_minor: FloatArray
    action: IntArray
    said: FloatArray
    costs: Costs
    days: float

    @property
    def held(self) -> Bools:
        """What is not paid at once."""
        return self.action > Action.ALLOW.severity

    def explorable(self, cap_minor: float) -> Bools:
        """What the holdout may pay: held, and of a known amount up to the cap."""
        return self.held & (self.amount_minor <= cap_minor)

    def exploring_costs(self) -> FloatArray:
        """What paying each refund costs more than what was decided; NaN: amount unknown."""
        paid = np.full(len(self.action), Action.ALLOW.severity)
        return cost_of(paid, self.abuse, self.amount_minor, self.costs) - cost_of(
            self.action, self.abuse, self.amount_minor, self.costs
        )


def past_of(shop: Shop, judged: IntArray, champion: Model, costs: Costs, seed: int) -> Past:
    """Run the champion over the refunds judged, and ask an analyst about each."""
    amount = shop.frame.columns["payable_minor"][judged]
    abuse = shop.abuse[judged]
    chance = np.where(abuse == 1, ANALYSTS_FIND, ANALYSTS_ACCUSE)
    said = np.random.default_rng(seed).random(len(judged)) < chance
    at = shop.frame.known_at[judged]
    return Past(
        abuse, amount, champion.actions(amount, costs), said.astype(np.float64), costs,
        float(at[-1] - at[0]) / DAY_MS,
    )  # fmt: skip


def weights_by_way(past: Past, explorable: Bools, explored: Bools, share: float) -> dict[str, Any]:
    """What each way of judging weighs, (2n,): by the truth that paying shows, then by analysts."""
    action = np.where(past.held & ~explored, "PREVENT", "ALLOW").astype(object)
    propensity = np.where(explored, share, np.where(explorable, 1 - share, 1.0))
    fate = fates(action, explored, propensity)
    paid = (~past.held | explored).astype(np.float64)
    reviewed = (past.action == Action.MANUAL_REVIEW.severity) & ~explored
    never = fate == NEVER_EXPLORABLE
    stands_for = never.sum() / max(1, (never & reviewed).sum())
    nobody = np.zeros(len(paid))
    weight = weights(fate, propensity)
    found = {
        "naive_refused": (paid, nobody),
        "naive_reviewed": (paid, reviewed.astype(np.float64)),
        "weighted": (weight, nobody),
        "weighted_clipped": (weights(fate, propensity, CLIP), nobody),
        "weighted_as_reviewed": (weight, np.where(never & reviewed, stands_for, 0.0)),
    }
    return {way: np.concatenate(both) for way, both in found.items()}


class Gauge:
    """Measures a model under any weights (2n,): by the truth, then by what analysts say."""

    def __init__(self, model: Model, past: Past) -> None:
        self._abuse = np.concatenate([past.abuse, past.said])
        self._probability = np.tile(model.probability, 2)
        amount = np.tile(past.amount_minor, 2)
        self._ranking = Ranking(self._probability, self._abuse)
        action = np.tile(model.actions(past.amount_minor, past.costs), 2)
        self._cost = cost_of(action, self._abuse, amount, past.costs)

    def figures(self, weight: FloatArray) -> FloatArray:
        """The `FIGURES`, in their order."""
        ranked = self._ranking.figures(weight)
        total = weight.sum()
        prevalence = float(weight @ self._abuse / total)
        return np.array([
            *(ranked[name] for name in FIGURES[:3]), prevalence,
            float(weight @ self._probability / total) - prevalence,
            1000 * mean_cost(self._cost, weight),
        ])  # fmt: skip


# --- the experiment ----------------------------------------------------------------------------


def cell(
    past: Past, gauges: Mapping[str, Gauge], *, share: float, cap_minor: float, draws: int,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """One share and cap, over many draws of the holdout: each way against the truth."""
    explorable = past.explorable(cap_minor)
    random = np.random.default_rng(seed)
    measured = np.empty((draws, len(WAYS), len(gauges), len(FIGURES)))
    extra, loss = past.exploring_costs(), past.abuse * (past.amount_minor + past.costs.fee_minor)
    spent, sizes, lost = [], [], []
    for draw in range(draws):
        explored = explorable & (random.random(len(explorable)) < share)
        weight = weights_by_way(past, explorable, explored, share)
        for at, way in enumerate(WAYS):
            measured[draw, at] = [gauge.figures(weight[way]) for gauge in gauges.values()]
        spent.append(extra[explored].sum())
        lost.append(loss[explored].sum())
        sizes.append(effective_size(weight["weighted"]))
    n, covered = len(explorable), ~past.held | explorable
    truth = {
        "all": np.array([g.figures(_once(np.ones(n))) for g in gauges.values()]),
        "covered": np.array([g.figures(_once(covered.astype(float))) for g in gauges.values()]),
    }
    return {
        "share": share,
        "cap_minor": None if math.isinf(cap_minor) else cap_minor,
        "explored_per_draw": float(share * explorable.sum()),
        "covered_share": float(covered.mean()),
        "covered_abuse_share": float(past.abuse[covered].sum() / past.abuse.sum()),
        "effective_size": float(np.mean(sizes)),
        "cost_of_exploring": _money(past, np.array(spent), np.array(lost)),
        "models": {
            name: _errors(truth["all"][m], truth["covered"][m], measured[:, :, m])
            for m, name in enumerate(gauges)
        },
        "wrong_choice": _wrong_choices(truth["all"], measured, list(gauges)),
    }


def _once(weight: FloatArray) -> FloatArray:
    """By the truth alone."""
    return np.concatenate([weight, np.zeros(len(weight))])


def _errors(truth: FloatArray, covered: FloatArray, measured: FloatArray) -> dict[str, Any]:
    """By figure: the truth, and by way the mean over draws, its errors and standard deviation."""
    return {
        figure: {
            "truth": float(truth[f]),
            "truth_of_covered": float(covered[f]),
            **{
                way: {
                    "mean": float(values.mean()),
                    "error": float(values.mean() - truth[f]),
                    "error_to_covered": float(values.mean() - covered[f]),
                    "sd": float(values.std(ddof=1)),
                    "rmse": float(np.sqrt(np.mean((values - truth[f]) ** 2))),
                }
                for w, way in enumerate(WAYS)
                for values in [measured[:, w, f]]
            },
        }
        for f, figure in enumerate(FIGURES)
    }


_BETTER: Final = {"average_precision": 1, "cost_per_1000_minor": -1}


def _wrong_choices(truth: FloatArray, measured: FloatArray, names: list[str]) -> dict[str, Any]:
    """How often each way prefers the worse of the champion and a challenger."""
    champion = names.index(CHAMPION)
    found: dict[str, Any] = {}
    for c, challenger in enumerate(names):
        if c == champion:
            continue
        for figure, sign in _BETTER.items():
            f = FIGURES.index(figure)
            gain = sign * (truth[c, f] - truth[champion, f])
            seen = sign * (measured[:, :, c, f] - measured[:, :, champion, f])
            wrong = np.mean((seen > 0) != (gain > 0), axis=0)
            found.setdefault(challenger, {})[figure] = {
                "true_gain": float(gain),
                "mean_gain": dict(zip(WAYS, seen.mean(axis=0).tolist(), strict=True)),
                "sd_of_gain": dict(zip(WAYS, seen.std(axis=0, ddof=1).tolist(), strict=True)),
                "wrong_share": dict(zip(WAYS, wrong.tolist(), strict=True)),
            }
    return found


def _money(past: Past, spent: FloatArray, lost: FloatArray) -> dict[str, float]:
    """What exploring cost, in minor units: beyond what holding would have, and paid to abusers."""
    per_1000, per_month = 1000 / len(past.abuse), 30 / past.days
    return {
        "per_1000_refunds_minor": float(spent.mean() * per_1000),
        "sd_per_1000_refunds_minor": float(spent.std(ddof=1) * per_1000),
        "per_30_days_minor": float(spent.mean() * per_month),
        "lost_to_abuse_per_1000_refunds_minor": float(lost.mean() * per_1000),
    }


def own_labels(shop: Shop, judged: IntArray, model: Model, maturity_days: int) -> dict[str, Any]:
    """The shop's own labels at the end of its data against the truth of the same refunds."""
    labels = label_refunds(shop.tables, as_of=end_of(shop.tables), maturity_days=maturity_days)
    place = np.full(len(shop.abuse), -1)
    place[judged] = np.arange(len(judged))
    kept = (place[labels.row] >= 0) & (~np.isnan(labels.abuse) | (labels.basis == CENSORED))
    row, said = labels.row[kept], labels.abuse[kept]
    probability, truth = model.probability[place[row]], shop.abuse[row]
    labelled = ~np.isnan(said)

    def ap(chosen: Bools, abuse: FloatArray) -> float:
        ranking = Ranking(probability[chosen], abuse[chosen])
        return float(ranking.figures(np.ones(int(chosen.sum())))["average_precision"])

    everyone = np.ones(len(row), np.bool_)
    return {
        "mature_refunds": len(row),
        "censored_share": float(1 - labelled.mean()),
        "abuse_share_of_censored": float(truth[~labelled].mean()),
        "abuse_share_of_labelled": float(truth[labelled].mean()),
        "labels_that_are_wrong_share": float((said[labelled] != truth[labelled]).mean()),
        "abuse_labelled_clean_share": float(
            1 - said[labelled & (truth == 1)].mean() if (labelled & (truth == 1)).any() else 0
        ),
        "average_precision": {
            "truth_of_all": ap(everyone, truth),
            "truth_of_labelled": ap(labelled, truth),
            "labels_of_labelled": ap(labelled, said),
        },
    }


def run(
    *, customers: int, days: int, seed: int, shares: Sequence[float], caps_minor: Sequence[float],
    draws: int, maturity_days: int,
) -> dict[str, Any]:  # fmt: skip
    """The whole report."""
    started = time.perf_counter()
    costs = default_costs()
    say(f"simulating {customers:,} customers over {days} days")
    shop = Shop.simulate(customers, days, seed)
    judged = shop.first[shop.frame.known_at[shop.first] >= shop.instant(JUDGED_FROM)]
    models = fit_all(shop, judged, maturity_days, costs)
    past = past_of(shop, judged, models[CHAMPION], costs, seed)
    gauges = {name: Gauge(model, past) for name, model in models.items()}
    cells = []
    for cap in caps_minor:
        for share in shares:
            say(f"exploring {share:.0%} of what is held, up to {cap / 100:g}: {draws} draws")
            cells.append(cell(past, gauges, share=share, cap_minor=cap, draws=draws, seed=seed))
    return {
        "world": {"customers": customers, "days": days, "seed": seed, "refunds": len(shop.first)},
        "judged": {
            "refunds": len(judged),
            "abuse_share": float(past.abuse.mean()),
            "held_share": float(past.held.mean()),
            "prevented_share": float((past.action == Action.PREVENT.severity).mean()),
            "share_of_abuse_held": float(past.abuse[past.held].sum() / past.abuse.sum()),
            "abuse_share_of_held": float(past.abuse[past.held].mean()),
            "bands": [b.model_dump(mode="json", exclude_none=True)
                      for b in models[CHAMPION].bands],
        },
        "the_shops_own_labels": own_labels(shop, judged, models["retrained"], maturity_days),
        "draws": draws,
        "cells": cells,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


def is_sound(report: Mapping[str, Any]) -> bool:
    """Whether weights bring AP and prevalence nearer to the truth than none do, in the mean.

    Of the cells without a cap, where the weights speak for everything.
    """
    return all(
        abs(errors[figure]["weighted"]["error"]) < abs(errors[figure]["naive_refused"]["error"])
        for found in report["cells"]
        if found["cap_minor"] is None
        for errors in found["models"].values()
        for figure in ("average_precision", "prevalence")
    )


def say(what: str) -> None:
    """Tell what is being done."""
    print(what, file=sys.stderr, flush=True)


def to_text(report: Mapping[str, Any]) -> str:
    """The main figures of the newly trained model, a line a cell and way."""
    lines = [f"{'share':>6} {'cap':>8} {'way':<21} {'AP':>7} {'AUC':>7} {'TPR@5':>7} {'abuse':>7} "
             f"{'cost/1000':>10} {'wrong':>6}"]  # fmt: skip
    for found in report["cells"]:
        figures = found["models"]["retrained"]
        wrong = found["wrong_choice"]["retrained"]["average_precision"]["wrong_share"]
        for way in ("truth", *WAYS):
            values = [figures[name] for name in FIGURES if name != "calibration_gap"]
            numbers = [v["truth"] if way == "truth" else v[way]["mean"] for v in values]
            cap = "none" if found["cap_minor"] is None else f"{found['cap_minor'] / 100:g}"
            lines.append(
                f"{found['share']:>6.0%} {cap:>8} {way:<21} "
                + " ".join(f"{number:7.3f}" for number in numbers[:4])
                + f" {numbers[4]:10.0f} " + ("" if way == "truth" else f"{wrong[way]:6.0%}")
            )  # fmt: skip
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.censoring",
                                     description=(__doc__ or "").partition("\n")[0])  # fmt: skip
    parser.add_argument("--customers", type=int, default=12_000)
    parser.add_argument("--days", type=int, default=548)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--draws", type=int, default=200, help="of the holdout, for each cell")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.02, 0.05, 0.1, 0.2],
                        help="of the held refunds that are paid by chance")  # fmt: skip
    parser.add_argument("--caps-minor", type=float, nargs="+", default=[math.inf, 10_000],
                        help="the largest amount explored, inf for any")  # fmt: skip
    parser.add_argument("--maturity-days", type=int, default=60)
    given = parser.parse_args(arguments)
    report = run(
        customers=given.customers, days=given.days, seed=given.seed, shares=given.shares,
        caps_minor=given.caps_minor, draws=given.draws, maturity_days=given.maturity_days,
    )  # fmt: skip
    print(to_text(report), file=sys.stderr)
    print(json.dumps(report, indent=2))
    return 0 if is_sound(report) else 1


if __name__ == "__main__":
    sys.exit(main())
