"""The linear-time SHAP values equal LightGBM's, shap's, and Shapley's definition."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import combinations
from operator import add
from pathlib import Path
from typing import Any, cast

import lightgbm
import numpy as np
import pytest
import shap
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.explain import Floats, TreeExplainer, _explain
from serving.scorer import Champion
from tests.serving.champions import trained_model

TOLERANCE = 1e-9
SPECIAL = [np.nan, 0.0, -0.0, 1e-36, -1e-36, 2e-35, 1.0, -1.0, 1e300, np.inf, -np.inf]


def make_rows(n: int, n_features: int, seed: int = 3) -> Floats:
    """Continuous columns with unknowns and zeros; the last column holds categories."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, n_features))
    rows[rng.random(rows.shape) < 0.15] = np.nan
    rows[rng.random(rows.shape) < 0.10] = 0.0
    rows[:, -1] = rng.integers(0, 70, n)
    return rows


def fit(
    n_features: int = 6,
    trees: int = 15,
    n: int = 1500,
    categorical: bool = False,
    **options: Any,
) -> lightgbm.Booster:
    rows = make_rows(n, n_features)
    known = np.nan_to_num(rows)
    signal = known[:, 0] * known[:, 1] + np.isnan(rows[:, 2]) + (rows[:, -1] % 3 == 1)
    label = (signal + np.random.default_rng(4).normal(size=n) > 0.8).astype(int)
    if options.get("objective") == "multiclass":
        label += rows[:, -1] > 50
    parameters = {
        "objective": "binary",
        "verbosity": -1,
        "num_threads": 1,
        "seed": 5,
        "min_data_in_leaf": 5,
        **options,
    }
    categories = [n_features - 1] if categorical else []
    data = lightgbm.Dataset(rows, label, categorical_feature=categories)
    return lightgbm.train(parameters, data, trees)


def special_rows(booster: lightgbm.Booster, n: int = 150) -> Floats:
    """Rows of awkward values: the thresholds themselves, non-finite ones, unseen categories."""
    n_features = booster.num_feature()
    thresholds = [
        node["threshold"]
        for tree in booster.dump_model()["tree_info"]
        for node in walk(tree["tree_structure"])
        if node.get("decision_type") == "<="
    ]
    rng = np.random.default_rng(8)
    pool = np.array(SPECIAL + thresholds[:40])
    rows = rng.choice(pool, size=(n, n_features))
    categories = [np.nan, -1.0, -0.5, 0.0, 0.9, 3.0, 31.0, 32.0, 63.0, 64.0, 69.0, 400.0, 3e9, 1e30]
    rows[:, -1] = rng.choice(categories, size=n)
    return np.concatenate([rows, make_rows(n, n_features, seed=9)])


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for side in ("left_child", "right_child"):
        if side in node:
            yield from walk(node[side])


def assert_same_as_lightgbm(booster: lightgbm.Booster, rows: Floats) -> None:
    explainer = TreeExplainer.from_booster(booster)
    assert explainer.fallback_reason is None
    assert explainer.exact_fast
    expected = booster.predict(rows, pred_contrib=True)
    assert np.abs(explainer.contributions(rows) - expected).max() <= TOLERANCE
    raw = booster.predict(rows, raw_score=True)
    assert explainer.raw_scores(rows).tobytes() == raw.tobytes()


CATEGORIES = {"categorical": True, "max_cat_to_onehot": 4, "min_data_per_group": 5}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="missing type NaN"),
        pytest.param({"zero_as_missing": True}, id="missing type Zero"),
        pytest.param({"use_missing": False}, id="missing type None"),
        pytest.param(CATEGORIES, id="categories"),
        pytest.param({**CATEGORIES, "max_cat_to_onehot": 100}, id="one category against the rest"),
        pytest.param({**CATEGORIES, "zero_as_missing": True}, id="categories, missing type Zero"),
        pytest.param({"num_leaves": 2}, id="stumps"),
        pytest.param({"num_leaves": 64, "max_depth": 6}, id="depth 6"),
        pytest.param({"n_features": 3, "num_leaves": 200}, id="features repeated along paths"),
        pytest.param({"n_features": 40, "num_leaves": 300, "trees": 5}, id="several sweeps a tree"),
        pytest.param({"min_gain_to_split": 25.0, "trees": 60}, id="trees of one leaf among others"),
        pytest.param({"min_data_in_leaf": 10_000}, id="only a tree of one leaf"),
        pytest.param({"boosting": "dart", "drop_rate": 0.5}, id="dart"),
        pytest.param(
            {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, id="random forest"
        ),
        pytest.param({"data_sample_strategy": "goss"}, id="goss"),
        pytest.param({"objective": "regression", "linear_lambda": 1.0}, id="regression"),
        pytest.param({"monotone_constraints": [1, 0, 0, 0, 0, 0]}, id="monotone"),
        pytest.param({"boost_from_average": False}, id="from zero, not from the average"),
        pytest.param({"extra_trees": True}, id="thresholds at random"),
        pytest.param({"path_smooth": 10.0}, id="smoothed paths"),
        pytest.param({"cegb_penalty_split": 1e-3, "cegb_tradeoff": 2.0}, id="cost of splits"),
        pytest.param({"interaction_constraints": [[0, 1, 5], [2, 3, 4]]}, id="interactions"),
        pytest.param({"use_quantized_grad": True}, id="quantized gradients"),
        pytest.param({"objective": "regression_l1"}, id="leaves renewed after growing"),
    ],
)
def test_equals_lightgbm(options: dict[str, Any]) -> None:
    booster = fit(**options)
    assert_same_as_lightgbm(booster, special_rows(booster))


def test_splits_that_were_forced(tmp_path: Path) -> None:
    forced = {"feature": 4, "threshold": 0.1, "left": {"feature": 4, "threshold": -0.4}}
    (tmp_path / "splits.json").write_text(json.dumps(forced))
    booster = fit(forcedsplits_filename=str(tmp_path / "splits.json"))
    assert booster.dump_model()["tree_info"][0]["tree_structure"]["split_feature"] == 4
    assert_same_as_lightgbm(booster, special_rows(booster))


def test_a_model_that_was_trained_on_and_one_refitted() -> None:
    """Counts of a refitted model are those of the rows it was grown on; both explain by them."""
    rows = make_rows(800, 6, seed=21)
    label = (np.nan_to_num(rows)[:, 3] > 0.2).astype(int)
    first = fit(trees=5)
    options = {"objective": "binary", "verbosity": -1, "num_threads": 1, "num_leaves": 9}
    longer = lightgbm.train(options, lightgbm.Dataset(rows, label), 5, init_model=first)
    assert longer.num_trees() == 10
    for booster in (longer, first.refit(rows, label)):
        assert_same_as_lightgbm(booster, special_rows(booster))


@st.composite
def training(draw: st.DrawFn) -> dict[str, Any]:
    """How LightGBM may be asked to grow trees."""

    def any_of(*values: Any) -> Any:  # fmt: skip
        return draw(st.sampled_from(values))

    boosting = any_of(
        {"boosting": "gbdt"}, {"boosting": "dart", "drop_rate": 0.3},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
        {"data_sample_strategy": "goss"},
    )  # fmt: skip
    return {
        **boosting,
        "n_features": any_of(3, 6, 12),
        "n": 400,
        "trees": any_of(1, 4, 8),
        "objective": any_of("binary", "cross_entropy", "regression", "huber", "quantile"),
        "num_leaves": any_of(2, 5, 8, 9, 40),
        "max_depth": any_of(-1, 1, 4),
        "min_data_in_leaf": any_of(1, 5, 60),
        "max_bin": any_of(3, 63, 255),
        "categorical": any_of(True, False),
        "max_cat_to_onehot": any_of(1, 4, 100),
        "cat_smooth": any_of(0.0, 10.0),
        "min_data_per_group": any_of(1, 50),
        "max_cat_threshold": any_of(2, 32),
        "use_missing": any_of(True, False),
        "zero_as_missing": any_of(True, False),
        "extra_trees": any_of(True, False),
        "boost_from_average": any_of(True, False),
        "linear_lambda": any_of(0.0, 1.0),
        "path_smooth": any_of(0.0, 3.0),
        "min_gain_to_split": any_of(0.0, 3.0),
        "cegb_penalty_split": any_of(0.0, 0.01),
        "feature_fraction": any_of(0.5, 1.0),
        "lambda_l1": any_of(0.0, 1.0),
        "learning_rate": any_of(0.1, 1.0),
        "seed": draw(st.integers(0, 1000)),
    }


@settings(max_examples=40, deadline=None, derandomize=True)
@given(options=training())
def test_equals_lightgbm_however_it_was_trained(options: dict[str, Any]) -> None:
    booster = fit(**options)
    assert_same_as_lightgbm(booster, special_rows(booster, 60)[:120])


def test_stops_at_the_best_iteration_as_predict_does() -> None:
    booster = fit()
    booster.best_iteration = 7
    rows = make_rows(20, 6)
    parts = TreeExplainer.from_booster(booster).contributions(rows)
    raw = booster.predict(rows, raw_score=True, num_iteration=7)
    np.testing.assert_allclose(parts.sum(axis=1), raw, atol=TOLERANCE)
    assert TreeExplainer.from_booster(booster).raw_scores(rows).tobytes() == raw.tobytes()


@pytest.mark.filterwarnings("ignore:LightGBM binary classifier")
@pytest.mark.parametrize("own_code", [False, True], ids=["through lightgbm", "shap's own code"])
def test_equals_shap(own_code: bool) -> None:
    booster = fit(num_leaves=64, max_depth=6)
    rows = make_rows(50, 6)
    reference = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    if own_code:  # for a LightGBM model shap asks pred_contrib, unless told that it has its own
        reference.model.model_type = "internal"
        rows = np.nan_to_num(rows, nan=0.5)
    parts = TreeExplainer.from_booster(booster).contributions(rows)
    values = reference.shap_values(rows, check_additivity=False)
    assert np.abs(parts[:, :-1] - values).max() <= TOLERANCE
    assert parts[0, -1] == pytest.approx(float(np.ravel(reference.expected_value)[-1]), abs=1e-9)


def shapley_by_definition(booster: lightgbm.Booster, row: Floats) -> list[float]:
    """A sum over all coalitions, in plain Python; for rows and trees without unknowns, categories.

    A node that no training row reached is as if it were not there.
    """
    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    n = booster.num_feature()

    def count(node: dict[str, Any]) -> int:
        return cast(int, node.get("internal_count", node.get("leaf_count")))

    def expected(node: dict[str, Any], known: tuple[int, ...]) -> float:
        if "leaf_value" in node:
            return cast(float, node["leaf_value"])
        left, right = node["left_child"], node["right_child"]
        feature = node["split_feature"]
        if feature in known:
            return expected(left if row[feature] <= node["threshold"] else right, known)
        both = ((count(child), child) for child in (left, right))
        return sum(n * expected(child, known) for n, child in both if n) / max(count(node), 1)

    def value(known: tuple[int, ...]) -> float:
        return sum(expected(tree, known) for tree in trees)

    def shapley(feature: int) -> float:
        others = [other for other in range(n) if other != feature]
        return sum(
            (value((*known, feature)) - value(known))
            * math.factorial(size)
            * math.factorial(n - size - 1)
            / math.factorial(n)
            for size in range(n)
            for known in combinations(others, size)
        )

    return [*(shapley(feature) for feature in range(n)), value(())]


@pytest.fixture(scope="module")
def small_booster() -> lightgbm.Booster:
    return fit(n_features=4, trees=3, num_leaves=12, use_missing=False)


@settings(max_examples=40, deadline=None)
@given(row=st.lists(st.floats(-3, 3).filter(lambda x: abs(x) > 1e-30), min_size=4, max_size=4))
def test_equals_the_definition(small_booster: lightgbm.Booster, row: list[float]) -> None:
    values = np.array(row)
    parts = TreeExplainer.from_booster(small_booster).contributions(values[np.newaxis])[0]
    expected = shapley_by_definition(small_booster, values)
    assert np.abs(parts - expected).max() <= TOLERANCE


def shapley_exactly(booster: lightgbm.Booster, row: Floats, feature: int) -> tuple[Fraction, int]:
    """In whole fractions: leaf by leaf, the polynomial in x multiplied out and integrated.

    For trees and rows without unknowns and categories; with it the most features on a path.
    """
    total, most = Fraction(0), 0

    def walk_down(node: dict[str, Any], path: dict[int, tuple[Fraction, bool]]) -> None:
        nonlocal total, most
        if "leaf_value" in node:
            most = max(most, len(path))
            if feature in path:
                polynomial = [Fraction(1)]
                for share, kept in (path[other] for other in path if other != feature):
                    low, high = (share, 1 - share) if kept else (share, -share)
                    raised = [Fraction(0), *(high * c for c in polynomial)]
                    kept_low = [*(low * c for c in polynomial), Fraction(0)]
                    polynomial = list(map(add, kept_low, raised))
                integral = sum(c / (k + 1) for k, c in enumerate(polynomial))
                share, kept = path[feature]
                total += Fraction(node["leaf_value"]) * (int(kept) - share) * integral
            return
        tested = node["split_feature"]
        left = bool(row[tested] <= node["threshold"])
        share, kept = path.get(tested, (Fraction(1), True))
        for side, goes in (("left_child", left), ("right_child", not left)):
            child = node[side]
            count = child.get("internal_count", child.get("leaf_count"))
            part = share * Fraction(count, node["internal_count"])
            walk_down(child, {**path, tested: (part, kept and goes)})

    for tree in booster.dump_model()["tree_info"]:
        walk_down(tree["tree_structure"], {})
    return total, most


def test_deep_trees_are_explained_to_the_last_digits() -> None:
    """LightGBM divides out what it multiplied in, and is off by up to 1e-6 on such trees."""
    rng = np.random.default_rng(11)
    rows = rng.normal(size=(4000, 40))
    label = (rows[:, :20].sum(axis=1) + rng.normal(size=4000) > 0).astype(int)
    options = {"objective": "binary", "num_leaves": 255, "min_data_in_leaf": 2, "verbosity": -1,
               "num_threads": 1, "feature_fraction": 0.3}  # fmt: skip
    booster = lightgbm.train(options, lightgbm.Dataset(rows, label), 4)
    explainer = TreeExplainer.from_booster(booster)
    asked = rng.normal(size=(3, 40))
    parts = explainer.contributions(asked)
    raw = booster.predict(asked, raw_score=True)
    np.testing.assert_allclose(parts.sum(axis=1), raw, rtol=0, atol=1e-13)
    for row, mine in zip(asked, parts, strict=True):
        for feature in np.argsort(-np.abs(mine[:-1]))[:2]:
            exact, most = shapley_exactly(booster, row, int(feature))
            assert most > 8  # several sweeps
            assert mine[feature] == pytest.approx(float(exact), rel=0, abs=1e-15)


def test_leaf_that_no_training_row_reached(small_booster: lightgbm.Booster) -> None:
    """A share of 0 is not divided by. (LightGBM does, and answers NaN for some of these rows.)"""
    text = small_booster.model_to_string()
    tree = dict(line.split("=", 1) for line in text.split("\nTree=")[1].splitlines() if "=" in line)
    left, right = (list(map(int, tree[f"{side}_child"].split())) for side in ("left", "right"))
    leaves = list(map(int, tree["leaf_count"].split()))
    emptied = next(~left[n] for n in range(len(left)) if left[n] < 0 and right[n] < 0)
    leaves[emptied] = 0

    def count(node: int) -> int:
        return leaves[~node] if node < 0 else count(left[node]) + count(right[node])

    edited = edit(
        text,
        leaf_count=" ".join(map(str, leaves)),
        internal_count=" ".join(str(count(node)) for node in range(len(left))),
    )
    booster = lightgbm.Booster(model_str=edited)
    explainer = TreeExplainer.from_booster(booster)
    assert explainer.exact_fast
    rows = np.random.default_rng(6).normal(scale=2, size=(60, 4))
    reached = np.asarray(booster.predict(rows, pred_leaf=True))[:, 0]
    assert emptied in reached
    for row, parts in zip(rows, explainer.contributions(rows), strict=True):
        assert np.abs(parts - shapley_by_definition(booster, row)).max() <= TOLERANCE


def edit(model: str, **entries: str) -> str:
    """The saved model with entries of its first tree replaced."""
    lines = [line for line in model.splitlines() if not line.startswith("tree_sizes=")]
    for key, value in entries.items():
        lines[next(n for n, line in enumerate(lines) if line.startswith(f"{key}="))] = (
            f"{key}={value}"
        )
    return "\n".join(lines)


@settings(max_examples=40, deadline=None)
@given(row=st.lists(st.floats(), min_size=4, max_size=4))
def test_a_line_sums_to_the_raw_score(small_booster: lightgbm.Booster, row: list[float]) -> None:
    rows = np.array([row])
    parts = TreeExplainer.from_booster(small_booster).contributions(rows)
    assert parts.sum() == pytest.approx(
        float(small_booster.predict(rows, raw_score=True)[0]), abs=TOLERANCE
    )


# ----------------------------------------------------------------------------------------------
# What the fast method does not cover
# ----------------------------------------------------------------------------------------------


def assert_falls_back(booster: Any, reason: str) -> None:
    explainer = TreeExplainer.from_booster(booster)
    assert not explainer.exact_fast
    assert explainer.fallback_reason is not None
    assert reason in explainer.fallback_reason
    assert explainer.nbytes == 0
    explainer.warm_up()
    rows = make_rows(5, 6)
    np.testing.assert_array_equal(
        explainer.contributions(rows), booster.predict(rows, pred_contrib=True)
    )


def test_multiclass_falls_back() -> None:
    booster = fit(objective="multiclass", num_class=3, trees=3)
    assert_falls_back(booster, "3 trees an iteration (multiclass), expected 1")


def test_counts_that_do_not_add_up_fall_back() -> None:
    """Distributed training estimates counts, and then shares do not sum to 1."""
    text = fit(trees=2, num_leaves=2).model_to_string()
    booster = lightgbm.Booster(model_str=edit(text, internal_count="1501"))
    assert_falls_back(booster, "tree 0, node 0: 1501 training rows, but")


class LaterFormat:
    """A booster of a LightGBM to come, which writes a format unknown to us."""

    def __init__(self, booster: lightgbm.Booster) -> None:
        self.booster = booster
        self.num_feature = booster.num_feature
        self.predict = booster.predict

    def model_to_string(self) -> str:
        return self.booster.model_to_string().replace("version=v4", "version=v5", 1)


def test_another_model_format_falls_back() -> None:
    assert_falls_back(LaterFormat(fit(trees=2)), "model format 'v5', expected 'v4'")


def test_linear_trees_are_refused() -> None:
    """LightGBM cannot explain them at all, so there is nothing to fall back to."""
    booster = fit(linear_tree=True, trees=2)
    with pytest.raises(lightgbm.basic.LightGBMError):
        booster.predict(make_rows(1, 6), pred_contrib=True)
    with pytest.raises(ValueError, match="linear trees have no SHAP values"):
        TreeExplainer.from_booster(booster)


# ----------------------------------------------------------------------------------------------
# Compiled before anybody waits
# ----------------------------------------------------------------------------------------------

PREPARE_AND_DECIDE = """
import json
import numpy as np
from numba.core.registry import CPUDispatcher
from serving import explain, reasons
from serving.scorer import Champion
from tests.serving.champions import trained_model

functions = [f for m in (explain, reasons) for f in vars(m).values()
             if isinstance(f, CPUDispatcher)]

def ready():
    return sum(len(f.signatures) for f in functions)

champion = Champion.of(trained_model(), "1")
at_start = ready()
for row in champion.model.reference.quantiles.T[::100]:
    vector = np.ascontiguousarray(row[np.newaxis])
    champion.probability(vector)
    champion.ranking.reasons(vector[0], champion.explainer.contributions(vector)[0])
compiled = sum(n for f in functions for n in f.stats.cache_misses.values())
print(json.dumps([at_start, ready(), compiled]))
"""


def test_a_champion_is_compiled_before_it_is_ready_and_once_for_all_processes() -> None:
    Champion.of(trained_model(), "1")  # now it is on disk, if it was not
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", PREPARE_AND_DECIDE],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    at_start, after_decisions, compiled = json.loads(ran.stdout)
    assert at_start == after_decisions > 2  # a decision compiles nothing, nor loads anything
    assert compiled == 0  # another process found everything made


# ----------------------------------------------------------------------------------------------
# Calling it
# ----------------------------------------------------------------------------------------------


def test_any_memory_layout_and_number_type_uses_one_compilation() -> None:
    explainer = TreeExplainer.from_booster(fit())
    explainer.warm_up()
    rows = make_rows(8, 6)
    expected = explainer.contributions(rows)
    frozen = rows.copy()
    frozen.flags.writeable = False
    for same in (frozen, np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2]):
        np.testing.assert_array_equal(explainer.contributions(same), expected)
    explainer.contributions(cast(Floats, rows.astype(np.float32)))
    assert len(cast(Any, _explain).signatures) == 1


def test_no_rows_and_wrong_shapes() -> None:
    explainer = TreeExplainer.from_booster(fit(trees=2))
    assert explainer.contributions(np.empty((0, 6))).shape == (0, 7)
    for rows in (np.empty((2, 5)), np.empty(6)):
        with pytest.raises(ValueError, match=r"expected shape \(n, 6\)"):
            explainer.contributions(rows)


def test_many_threads_share_an_explainer() -> None:
    explainer = TreeExplainer.from_booster(fit())
    rows = make_rows(400, 6)
    expected = explainer.contributions(rows)
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(explainer.contributions, np.split(rows, 100))
    np.testing.assert_array_equal(np.concatenate(list(parts)), expected)


def test_leaves_the_row_as_it_was() -> None:
    explainer = TreeExplainer.from_booster(fit(zero_as_missing=True))
    rows = make_rows(5, 6)
    before = rows.copy()
    explainer.contributions(rows)
    np.testing.assert_array_equal(rows, before)


def test_memory_of_300_trees() -> None:
    booster = fit(trees=300, num_leaves=64, max_depth=6)
    explainer = TreeExplainer.from_booster(booster)
    assert sum(tree["num_leaves"] for tree in booster.dump_model()["tree_info"]) > 5_000
    assert 0 < explainer.nbytes < 5_000_000
