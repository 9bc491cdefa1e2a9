"""The benchmark of explanations, on one small model."""

from __future__ import annotations

import warnings

import pytest

from benchmarks.explain import measure
from tests.serving.test_explain import CATEGORIES, fit, make_rows


@pytest.fixture(autouse=True)
def _quiet() -> None:
    warnings.filterwarnings("ignore", message="LightGBM binary classifier")


def test_explainers_agree_and_every_figure_is_there() -> None:
    found = measure(fit(**CATEGORIES), make_rows(5, 6))
    assert found["exact_fast"]
    assert found["trees"] == 15
    assert found["categorical_splits"] > 0
    assert max(found["max_abs_difference"].values()) < 1e-12
    assert max(found["sum_error"].values()) < 1e-12
    for figures in (found, found["in_a_row"]):
        assert figures["median_us"].keys() == {"ours", "pred_contrib", "shap"}
        assert figures["ratio"].keys() == {"pred_contrib", "shap"}
    assert 0 < found["nbytes"] < 5_000_000
