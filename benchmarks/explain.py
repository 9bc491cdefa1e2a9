"""How fast one row is explained: TreeExplainer against pred_contrib and shap, in one run.

``python -m benchmarks.explain`` prints one JSON document. Rows are refund requests of a data
folder, all different, with their unknown values and codes. Three models learn from it: the
champion's recipe (or ``--model DIR``, a served model), 300 trees of depth 6, and a deep one of 255
leaves a tree with categorical splits. Times are medians over single rows; the three explainers take
turns on each row, so that they share the machine's moods and each finds the caches cold, as in a
decision, and have one thread each (LightGBM gains nothing from more for one row, and loses much on
a busy machine). ``in_a_row`` is each by itself. A ratio says how many times longer the other takes.

``max_abs_difference`` is between explainers. Where it is above rounding, ``sum_error`` tells whose
error it is: how far the parts are from adding up to the score. LightGBM, and shap through it,
divide out again what they multiplied in, which loses digits on deep trees
(tests/serving/test_explain.py compares with whole fractions).

``warm_up`` has the seconds that a new process takes to be ready, when nothing is compiled yet
(``cold``) and when an earlier process left its machine code (``kept``).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import lightgbm
import numpy as np
import shap
from threadpoolctl import threadpool_limits

from benchmarks.service import say
from features.catalog import MODEL_FEATURES
from features.tables import read_folder
from serving.explain import Floats, TreeExplainer
from serving.model import AbuseModel
from training.dataset import Examples, rates_of, training_frame
from training.recipe import Recipe, grow

N_TIMED: Final = 300
GROWN: Final[Mapping[str, tuple[int, Recipe]]] = {
    "champion": (152, Recipe()),  # as many trees as training takes on the sample
    "300 trees of depth 6": (300, Recipe(num_leaves=64, max_depth=6, min_data_in_leaf=20)),
    "100 trees of 255 leaves": (100, Recipe(num_leaves=255, max_depth=255, min_data_in_leaf=5)),
}

READY = """
import sys, time
import lightgbm
from serving.explain import TreeExplainer
booster = lightgbm.Booster(model_file=sys.argv[1])
start = time.perf_counter()
TreeExplainer.from_booster(booster).warm_up()
print(time.perf_counter() - start)
"""


def boosters(examples: Examples, model: Path | None) -> dict[str, lightgbm.Booster]:
    """The models to explain, by name."""
    served = {} if model is None else {"champion": AbuseModel.load(model).booster}
    return {
        name: served.get(name) or grow(examples, recipe, trees, seed=0)
        for name, (trees, recipe) in GROWN.items()
    }


def measure(booster: lightgbm.Booster, rows: Floats) -> dict[str, Any]:
    """Medians in microseconds, ratios to ours, greatest differences, memory."""
    started = perf_counter()
    explainer = TreeExplainer.from_booster(booster)
    prepared = perf_counter()
    explainer.warm_up()
    reference = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    contenders = {
        "ours": explainer.contributions,
        "pred_contrib": lambda row: np.asarray(booster.predict(row, pred_contrib=True)),
        "shap": reference.shap_values,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    difference = {"pred_contrib": 0.0, "shap": 0.0}
    error = {"ours": 0.0, "pred_contrib": 0.0}
    for row, score in zip(
        np.split(rows, len(rows)), np.asarray(booster.predict(rows, raw_score=True)), strict=True
    ):
        answers = {}
        for name, explain in contenders.items():
            start = perf_counter()
            answers[name] = explain(row)
            seconds[name].append(perf_counter() - start)
        for name in difference:
            given = answers[name]
            gap = float(np.abs(answers["ours"][:, : given.shape[1]] - given).max())
            difference[name] = max(difference[name], gap)
        for name in error:
            error[name] = max(error[name], abs(float(answers[name].sum() - score)))
    in_turn = _figures(seconds)
    for name, explain in contenders.items():
        seconds[name].clear()
        for row in np.split(rows, len(rows)):
            start = perf_counter()
            explain(row)
            seconds[name].append(perf_counter() - start)
    trees = booster.dump_model()["tree_info"]
    return {
        "exact_fast": explainer.exact_fast,
        "trees": len(trees),
        "leaves": sum(tree["num_leaves"] for tree in trees),
        "categorical_splits": sum(tree["num_cat"] for tree in trees),
        **in_turn,
        "in_a_row": _figures(seconds),
        "max_abs_difference": difference,
        "sum_error": error,
        "nbytes": explainer.nbytes,
        "prepare_seconds": round(prepared - started, 3),
    }


def _figures(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Medians in microseconds, and ratios to ours."""
    medians = {name: median(times) * 1e6 for name, times in seconds.items()}
    return {
        "median_us": {name: round(value, 1) for name, value in medians.items()},
        "ratio": {n: round(medians[n] / medians["ours"], 1) for n in medians if n != "ours"},
    }


def ready_seconds(booster: lightgbm.Booster) -> dict[str, float]:
    """How long a new process takes to compile, and the next one to load what it compiled."""
    with TemporaryDirectory(prefix="explain-") as work:
        saved = Path(work) / "booster.txt"
        booster.save_model(saved)
        environment = {**os.environ, "NUMBA_CACHE_DIR": work}
        command = [sys.executable, "-c", READY, str(saved)]
        cold, kept = (
            float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
            for _ in range(2)
        )
    return {"cold": round(cold, 3), "kept": round(kept, 3)}


def report(data: Path, model: Path | None = None) -> dict[str, Any]:
    """Everything, of the models that learn from a data folder."""
    tables = read_folder(data).tables
    split = training_frame(tables, rates_of(tables), maturity_days=30)
    every = split.test.columns([feature.name for feature in MODEL_FEATURES])
    timed = np.linspace(0, len(every) - 1, min(N_TIMED, len(every))).astype(int)
    rows = np.ascontiguousarray(np.unique(every[timed], axis=0))
    say("growing trees")
    explained = boosters(split.train, model)
    found: dict[str, Any] = {
        "rows": len(rows),
        "features": rows.shape[1],
        "unknown_share": round(float(np.isnan(rows).mean()), 3),
        "models": {},
    }
    for name, booster in explained.items():
        say(f"explaining: {name}")
        with threadpool_limits(1):
            found["models"][name] = measure(booster, rows)
    return {**found, "warm_up": ready_seconds(explained["champion"])}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/sample"), help="a data folder")
    parser.add_argument("--model", type=Path, help="a served model's directory, as the champion")
    asked = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", message="LightGBM binary classifier")
    print(json.dumps(report(asked.data, asked.model), indent=2))


if __name__ == "__main__":
    main()
