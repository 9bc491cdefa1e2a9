"""How fast one row is explained: TreeExplainer against pred_contrib and shap, in one run.

``python -m benchmarks.explain`` prints one JSON document. Times are medians over single rows that
all differ; the three explainers take turns on each row, so that they share the machine's moods, and
have one thread each (LightGBM gains nothing from more for one row, and loses much on a busy
machine). A ratio says how many times longer the other takes.
"""

import json
import warnings
from statistics import median
from time import perf_counter
from typing import Any

import lightgbm
import numpy as np
import shap
from threadpoolctl import threadpool_limits

from serving.explain import Floats, TreeExplainer

N_FEATURES = 60
N_TIMED = 300
MODELS = ((120, 6), (300, 6), (300, -1))  # trees, greatest depth (-1: any, 31 leaves a tree)


def train(rows: Floats, trees: int, max_depth: int) -> lightgbm.Booster:
    """A binary model of random data, its trees as large as their depth allows."""
    known = np.nan_to_num(rows)
    noise = np.random.default_rng(1).normal(size=len(rows))
    label = known[:, 0] + known[:, 1] * known[:, 2] + noise > 1
    parameters = {
        "objective": "binary",
        "num_leaves": 2**max_depth if max_depth > 0 else 31,
        "max_depth": max_depth,
        "seed": 1,
        "verbosity": -1,
    }
    return lightgbm.train(parameters, lightgbm.Dataset(rows, label), trees)


def measure(booster: lightgbm.Booster, rows: Floats) -> dict[str, Any]:
    """Medians in milliseconds, ratios to ours, and the greatest difference in any value."""
    started = perf_counter()
    explainer = TreeExplainer.from_booster(booster)
    prepared = perf_counter()
    explainer.warm_up()
    warm = perf_counter()
    reference = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    contenders = {
        "ours": explainer.contributions,
        "pred_contrib": lambda row: booster.predict(row, pred_contrib=True),
        "shap": reference.shap_values,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    difference = {"pred_contrib": 0.0, "shap": 0.0}
    for row in np.split(rows, len(rows)):
        answers = {}
        for name, explain in contenders.items():
            start = perf_counter()
            answers[name] = explain(row)
            seconds[name].append(perf_counter() - start)
        for name, n_compared in (("pred_contrib", N_FEATURES + 1), ("shap", N_FEATURES)):
            gap = np.abs(answers["ours"][:, :n_compared] - answers[name]).max()
            difference[name] = max(difference[name], float(gap))
    medians = {name: median(times) * 1e3 for name, times in seconds.items()}
    start = perf_counter()
    explainer.contributions(rows)
    batch_ms_per_row = (perf_counter() - start) * 1e3 / len(rows)
    return {
        "exact_fast": explainer.exact_fast,
        "leaves": sum(tree["num_leaves"] for tree in booster.dump_model()["tree_info"]),
        "median_ms": {name: round(value, 4) for name, value in medians.items()},
        "ratio": {
            name: round(medians[name] / medians["ours"], 1) for name in ("pred_contrib", "shap")
        },
        "batch_ms_per_row": round(batch_ms_per_row, 4),
        "max_abs_difference": difference,
        "nbytes": explainer.nbytes,
        "prepare_seconds": round(prepared - started, 3),
        "warm_up_seconds": round(warm - prepared, 3),
    }


def main() -> None:
    """Train, measure, print."""
    warnings.filterwarnings("ignore", message="LightGBM binary classifier")
    rows = np.random.default_rng(0).normal(size=(20_000, N_FEATURES))
    rows[np.random.default_rng(2).random(rows.shape) < 0.05] = np.nan
    report = {}
    for trees, depth in MODELS:
        booster = train(rows, trees, depth)
        name = f"{trees} trees, " + (f"depth {depth}" if depth > 0 else "31 leaves")
        with threadpool_limits(1):
            report[name] = measure(booster, rows[:N_TIMED])
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
