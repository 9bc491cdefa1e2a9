"""Does training hold in a world that it was not made on, and what is true behind the labels?

``python -m benchmarks.world`` simulates a shop by another seed than the sample's, trains on it as
`recourse train` does, and prints one JSON document:

- ``test``: the figures of the out-of-time test with intervals, and each baseline's;
- ``views``: the same refunds and decisions by the shop's ``labels``, by the ``truth_of_labelled``
  refunds, and by the ``truth`` of all of the test period: those that were refused and never looked
  at too, which have no label. Figures, and what 1,000 refunds cost at the chosen bands, at the
  policy's, at the blueprint's own in its four readings, and paying all;
- ``kinds``: how much of each kind of abuse is held, in truth;
- ``random_split``: the same examples divided by chance: refused with which reason, and how good
  the model would have looked;
- ``planted_leaks``: the four kinds of `benchmarks.plants`, each by itself.

``claims`` says of each thing that must hold whether it does; exit code 1 when one does not. Costs
are in minor units of the base currency and take a review to find the truth.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.plants import at_random, planted
from benchmarks.service import say
from features.money import Rates
from features.tables import Tables, read_folder, write_folder
from rules.document import Band, Costs
from serving.home import Home
from serving.model import AbuseModel
from training.baselines import blueprint, blueprint_actions
from training.bootstrap import interval, resample
from training.capacity import Desk
from training.costs import ALLOWED, PREVENTED, REVIEWED, cost_of, mean_cost
from training.dataset import (
    Examples,
    FeatureFrame,
    TimeSplit,
    feature_frame,
    rates_of,
    training_frame,
)
from training.evaluate import HEADLINES, Judgement, Truth, decided, judge
from training.labels import IGNORED, IMMATURE, label_refunds
from training.leaks import find_leaks
from training.ranking import Ranking
from training.recipe import Recipe, grow
from training.report import TrainedReport
from training.simulate import simulate_with_truth
from training.train import NotRegistered, Options, train

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CUSTOMERS, DAYS, SEED = 61_200, 548, 23
"""So many customers ask for 200,000 refunds in 18 months. The sample's seed is 4."""

MATURITY_DAYS: Final = 30
SLOPE: Final = (0.9, 1.1)
"""Where the calibration slope must lie."""

COST: Final = "cost_per_1000_minor"
MODEL: Final = "model"


# --- the world ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A simulated folder, its features, and what nobody there knows.

    ``abuse`` (m,) is the truth of each row of refund requests, ``mode`` (m,) who makes the claim
    up, None for an honest one.
    """

    tables: Tables
    frame: FeatureFrame
    abuse: FloatArray
    mode: NDArray[np.object_]

    @classmethod
    def simulate(cls, customers: int, days: int, seed: int) -> World:
        """Simulate, write and read back: what is trained on went the way of any data folder."""
        made = simulate_with_truth(customers, days, seed)
        with TemporaryDirectory(prefix="world-") as work:
            write_folder(made.tables, Path(work))
            tables = read_folder(Path(work)).tables
        frame = feature_frame(tables, rates_of(tables))
        told = {name: made.truth["refunds"][name].to_pylist() for name in ("abuse", "mode")}
        place = {one: n for n, one in enumerate(made.truth["refunds"]["refund_id"].to_pylist())}
        row = [place[one] for one in frame.refund_id.tolist()]
        return cls(
            tables, frame, np.array(told["abuse"], np.float64)[row],
            np.array(told["mode"], object)[row],
        )  # fmt: skip

    @property
    def rates(self) -> Rates:
        """Its exchange rates."""
        return rates_of(self.tables)


def trained(tables: Tables, options: Options, home: Path) -> tuple[TrainedReport, AbuseModel]:
    """Train as the command does. Raises NotRegistered."""
    report = train(tables, home=home, options=options, say=say)
    served = Home(home).served_version()
    if served is None:
        raise RuntimeError(f"{home}: expected the first model to be served, none is")
    return report, AbuseModel.load(Home(home).model(served))


# --- labels and truth ----------------------------------------------------------------------------


def views(world: World, split: TimeSplit) -> dict[str, Examples]:
    """The test period by what is taken for the truth; see the head of this file.

    The period ends where labels can be mature. A merchant's own mistakes are in none.
    """
    labels = label_refunds(world.tables, as_of=split.as_of, maturity_days=split.maturity_days)
    within = (labels.known_at >= split.test_from) & ~np.isin(labels.basis, (IMMATURE, IGNORED))
    row, said, basis = labels.row[within], labels.abuse[within], labels.basis[within]
    customers = world.tables["refund_requests"]["customer_id"].combine_chunks().dictionary_encode()
    truth = Examples(
        row, world.frame.refund_id[row], customers.indices.to_numpy().astype(np.int64)[row],
        world.frame.known_at[row], world.frame.columns, world.abuse[row], basis,
    )  # fmt: skip
    labelled = ~np.isnan(said)
    of_labelled = truth.where(labelled)
    return {
        "labels": replace(of_labelled, abuse=said[labelled]),
        "truth_of_labelled": of_labelled,
        "truth": truth,
    }


def by_labels_and_truth(
    world: World, split: TimeSplit, report: TrainedReport, model: AbuseModel
) -> dict[str, Any]:
    """A model's figures and decisions under each view of the test period."""
    costs, bands = report.costs, {
        MODEL: report.placement.bands.written(),
        "policy": report.outcome_of_policy.policy,
        "paying_all": (),
    }  # fmt: skip
    seen = views(world, split)
    probability = {name: model.predict(examples.inputs) for name, examples in seen.items()}
    truth = seen["truth"]
    action = decisions(truth, probability["truth"], bands, costs)[MODEL]
    return {
        "bands": [band.model_dump(mode="json", exclude_none=True) for band in bands[MODEL]],
        "costs": costs.model_dump(mode="json"),
        "labels": labels_against_truth(seen),
        "views": {
            name: view(examples, probability[name], bands, costs) for name, examples in seen.items()
        },
        "kinds": kinds(world.mode[truth.row], probability["truth"], action),
    }


def view(
    examples: Examples, probability: FloatArray, bands: Mapping[str, Sequence[Band]], costs: Costs
) -> dict[str, Any]:
    """The figures of probabilities (n,) on examples, and what each way of deciding costs."""
    desk = Desk(reviews_per_day=costs.reviews_per_day)
    judged = judge(probability, Truth.of(examples), desk=desk, bands=bands[MODEL], costs=costs)
    return {
        "refunds": len(examples),
        "abuse": examples.positives,
        **headlines(judged),
        "costs": costs_of(examples, decisions(examples, probability, bands, costs), costs),
    }


def headlines(judged: Judgement) -> dict[str, dict[str, float | None]]:
    """Each headline figure with its 95 % interval."""
    figures = judged.figures.to_json()
    return {
        name: {"value": figures[name], **judged.intervals[name].to_json()}
        for name in HEADLINES
        if name in judged.intervals
    }


def decisions(
    examples: Examples, probability: FloatArray, bands: Mapping[str, Sequence[Band]], costs: Costs
) -> dict[str, IntArray]:
    """The severity (n,) of what each way of deciding makes of the examples."""
    truth, scored = Truth.of(examples), blueprint(examples)
    ways = {
        name: decided(of, probability, truth, costs).astype(np.int64) for name, of in bands.items()
    }
    for high, score in (("", scored.score), ("_ip_high", scored.score_ip_high)):
        for denies, does in ((True, "denies"), (False, "reviews_only")):
            ways[f"blueprint_{does}{high}"] = blueprint_actions(score, denies=denies)
    return ways


def costs_of(examples: Examples, ways: Mapping[str, IntArray], costs: Costs) -> dict[str, Any]:
    """What 1,000 refunds cost each way, what the model saves against it, and how it decides."""
    abuse, amount = examples.abuse, examples.column("payable_minor")
    spent = {name: cost_of(action, abuse, amount, costs) for name, action in ways.items()}

    def measure(spent: FloatArray) -> Any:
        return lambda weight: {COST: 1000 * mean_cost(spent, weight)}

    drawn = resample({name: measure(of) for name, of in spent.items()}, examples.customer)
    once = np.ones(len(examples))
    return {
        name: {
            COST: 1000 * mean_cost(spent[name], once),
            "interval": interval(drawn.values[name][COST]).to_json(),
            "model_saves": 1000 * (mean_cost(spent[name], once) - mean_cost(spent[MODEL], once)),
            "model_saves_interval": drawn.gain(name, MODEL, COST).to_json(),
            "reviewed_share": float(np.mean(action == REVIEWED)),
            "prevented_share": float(np.mean(action == PREVENTED)),
            "share_of_abuse_held": float(np.mean(action[abuse == 1] > ALLOWED)),
        }
        for name, action in ways.items()
    }


def kinds(
    mode: NDArray[np.object_], probability: FloatArray, action: IntArray
) -> dict[str, dict[str, float]]:
    """Of each kind of abuse: how many there are, how many are held, and their median score."""
    return {
        str(kind): {
            "refunds": int((of := mode == kind).sum()),
            "held_share": float(np.mean(action[of] > ALLOWED)),
            "probability_p50": float(np.median(probability[of])),
        }
        for kind in sorted({kind for kind in mode.tolist() if kind is not None})
    }


# --- what must be refused ------------------------------------------------------------------------


def random_split(world: World, split: TimeSplit, report: TrainedReport) -> dict[str, Any]:
    """The same examples divided by chance: what the detector says, and what the AP would be."""
    mixed = at_random(split, seed=0)
    booster = grow(mixed.train, Recipe(**report.recipe), report.trees, seed=0)
    score = np.asarray(booster.predict(mixed.test.inputs, raw_score=True), np.float64)
    found = find_leaks(mixed, world.tables, world.rates)
    return {
        "refused": any(leak.kind == "interleaved" for leak in found.leaks),
        "reasons": list(found.reasons),
        "average_precision": Ranking(score, mixed.test.abuse).figures()["average_precision"],
        "average_precision_in_time": report.judgement.figures.average_precision,
    }


def planted_leaks(world: World, split: TimeSplit) -> list[dict[str, Any]]:
    """Each kind of leak planted by itself: whether it is found, and what else is accused."""
    told = []
    for plant in planted(world.tables, world.rates, split):
        say(f"planting {plant.kind}")
        found = find_leaks(plant.split, plant.tables, world.rates, compute=plant.compute)
        named = [(leak.kind, leak.suspect) for leak in found.leaks]
        told.append({
            "kind": plant.kind,
            "suspect": plant.suspect,
            "found": (plant.kind, plant.suspect) in named,
            "else_accused": [": ".join(one) for one in named
                             if one != (plant.kind, plant.suspect)],
            "says": [leak.says for leak in found.leaks if leak.kind == plant.kind],
        })  # fmt: skip
    return told


# --- the report ----------------------------------------------------------------------------------


def run(*, customers: int, days: int, seed: int, maturity_days: int) -> dict[str, Any]:
    """The whole report. Raises NotRegistered where there is no model to speak of."""
    started, cpu = time.perf_counter(), time.process_time()
    say(f"simulating {customers:,} customers over {days} days")
    world = World.simulate(customers, days, seed)
    with TemporaryDirectory(prefix="world-home-") as home:
        report, model = trained(world.tables, Options(maturity_days=maturity_days), Path(home))
    split = training_frame(world.tables, world.rates, maturity_days=maturity_days,
                           features=world.frame)  # fmt: skip
    say("judging by labels and by truth")
    document = {
        "world": {
            "customers": customers, "days": days, "seed": seed, "maturity_days": maturity_days,
            "refunds": len(set(world.frame.refund_id.tolist())), "rows": len(world.frame),
        },
        "trained": _trained(report),
        "test": _test(report),
        **by_labels_and_truth(world, split, report, model),
    }  # fmt: skip
    say("dividing by chance")
    document["random_split"] = random_split(world, split, report)
    document["planted_leaks"] = planted_leaks(world, split)
    document["claims"] = claims(document)
    document["seconds"] = round(time.perf_counter() - started, 1)
    document["cpu_seconds"] = round(time.process_time() - cpu, 1)
    return document


def _trained(report: TrainedReport) -> dict[str, Any]:
    return {
        **{name: getattr(report, name) for name in (
            "training_from", "training_until", "test_from", "test_until", "n_train",
            "n_positives_train", "n_test", "n_positives_test", "trees", "calibrator")},
        "recipe": dict(report.recipe),
        "leaks": [leak.says for leak in report.leaks.leaks],
        "doubts": list(report.doubts),
        "seconds": {name: round(taken, 1) for name, taken in report.seconds.items()},
    }  # fmt: skip


def _test(report: TrainedReport) -> dict[str, Any]:
    return {
        **headlines(report.judgement),
        "baselines": [
            {
                "name": one.name,
                "average_precision": one.baseline.average_precision,
                "average_precision_gain": one.average_precision_gain.to_json(),
                "auc": one.baseline.auc,
                "auc_gain": one.auc_gain.to_json(),
            }
            for one in report.against
        ],
        "blueprint_unknown": dict(report.blueprint_unknown),
    }


def labels_against_truth(seen: Mapping[str, Examples]) -> dict[str, float]:
    """How far the labels of the test period are from the truth."""
    said, truth, everyone = (seen[name] for name in ("labels", "truth_of_labelled", "truth"))
    missing = 1 - len(said) / len(everyone)
    unlabelled = everyone.positives - truth.positives
    return {
        "without_label_share": missing,
        "abuse_share": everyone.positives / len(everyone),
        "abuse_share_of_labelled": truth.positives / len(truth),
        "abuse_share_of_unlabelled": unlabelled / max(1, len(everyone) - len(said)),
        "abuse_share_as_labelled": said.positives / len(said),
        "abuse_labelled_clean_share": float(np.mean(said.abuse[truth.abuse == 1] == 0)),
        "honest_labelled_abuse_share": float(np.mean(said.abuse[truth.abuse == 0] == 1)),
    }


def to_text(document: Mapping[str, Any]) -> str:
    """Costs by way of deciding, as labelled and in truth, a line each."""
    lines = [f"{'1,000 refunds cost':<32} {'by labels':>10} {'labelled':>10} {'in truth':>10}"]
    costs = [one["costs"] for one in document["views"].values()]
    lines += [
        f"{way:<32} " + " ".join(f"{one[way][COST] / 100:10,.2f}" for one in costs)
        for way in costs[0]
    ]
    return "\n".join([*lines, *(f"{name}: {held}" for name, held in document["claims"].items())])


def claims(document: Mapping[str, Any]) -> dict[str, bool]:
    """What must hold, and whether it does."""
    costs = {name: one["costs"] for name, one in document["views"].items()}

    def cheaper(name: str) -> bool:
        """Surely cheaper than the blueprint in every reading."""
        return all(
            way["model_saves_interval"]["low"] > 0
            for called, way in costs[name].items()
            if called.startswith("blueprint")
        )

    return {
        "no_leak_in_honest_data": not document["trained"]["leaks"],
        "beats_every_baseline_surely": all(
            one["average_precision_gain"]["low"] > 0 for one in document["test"]["baselines"]
        ),
        "calibration_slope": SLOPE[0] <= document["test"]["calibration_slope"]["value"] <= SLOPE[1],
        "cheaper_than_the_blueprint_by_labels": cheaper("labels"),
        "cheaper_than_the_blueprint_in_truth": cheaper("truth"),
        "random_split_refused": document["random_split"]["refused"],
        "planted_leaks_found": all(plant["found"] for plant in document["planted_leaks"]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.world",
                                     description=(__doc__ or "").partition("\n")[0])  # fmt: skip
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--maturity-days", type=int, default=MATURITY_DAYS)
    asked = parser.parse_args(arguments)
    try:
        document = run(customers=asked.customers, days=asked.days, seed=asked.seed,
                       maturity_days=asked.maturity_days)  # fmt: skip
    except NotRegistered as refused:
        say(str(refused))
        print(json.dumps({"refusals": list(refused.report.refusals)}, indent=2))
        return 1
    print(to_text(document), file=sys.stderr)
    print(json.dumps(document, indent=2))
    return 0 if all(document["claims"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
