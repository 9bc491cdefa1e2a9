"""The benchmark of training on a tiny shop: every stage is told, and figures add up."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks import training
from benchmarks.training import growth, main, measure, save_world, to_text


@pytest.fixture(scope="module")
def size(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("shop")
    save_world(5000, days=400, seed=21, folder=folder)
    with pytest.MonkeyPatch.context() as patch:  # the pictures have tests of their own
        patch.setattr("training.page.write_page", lambda report, picture, path: path.touch())
        return measure(folder, maturity_days=30)


def test_a_size_is_what_was_asked_for(size: dict[str, Any]) -> None:
    assert 3500 < size["requests"] < 6500
    assert size["other_events"] > 5 * size["requests"]
    assert 0 < size["n_train"] + size["n_test"] < size["requests"]
    assert 0 < size["trees"] <= size["trees_tried"]
    assert size["average_precision_interval"]["low"] < size["average_precision"]


def test_stages_are_those_of_a_training_and_add_up(size: dict[str, Any]) -> None:
    stages = size["stages"]
    assert list(stages) == [
        "policy and rates", "features and labels", "leaks", "trees", "test", "report",
    ]  # fmt: skip
    for clock in ("seconds", "cpu_seconds"):
        assert sum(stage[clock] for stage in stages.values()) == pytest.approx(
            size["training"][clock], abs=0.4
        )
    peaks = [stage["peak_mb"] for stage in stages.values()]
    # A peak does not fall, but the kernel counts it by processor and adds up now and then.
    assert all(later >= earlier - 2 for earlier, later in pairwise(peaks))
    assert size["training"]["peak_mb"] == peaks[-1] >= size["peak_before_mb"] - 2 > 0
    assert "trees" in to_text(size)


def test_growth_in_proportion_is_one() -> None:
    small = {"requests": 100, "training": {"seconds": 2.0, "cpu_seconds": 3.0, "peak_mb": 400}}
    large = {"requests": 400, "training": {"seconds": 8.0, "cpu_seconds": 24.0, "peak_mb": 400}}
    assert growth(small, large) == {
        "from": 100, "to": 400, "seconds": 1.0, "cpu_seconds": 2.0, "peak_mb": 0.25,
    }  # fmt: skip


@pytest.mark.parametrize(("refusals", "code"), [([], 0), (["leak: ip_risk"], 1)])
def test_each_size_has_a_process_and_a_refused_model_is_an_error(
    refusals: list[str],
    code: int,
    size: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[tuple[Any, ...]] = []

    def instead(function: Any, *arguments: Any) -> Any:
        asked.append((function, *(one for one in arguments if not isinstance(one, Path))))
        return {**size, "refusals": refusals} if function is measure else None

    monkeypatch.setattr(training, "in_fresh_process", instead)
    assert main(["--sizes", "50", "60", "--seed", "3"]) == code
    assert asked == [(save_world, 50, 548, 3), (measure, 30), (save_world, 60, 548, 3),
                     (measure, 30)]  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    assert [one["requests"] for one in report["sizes"]] == [size["requests"]] * 2
    assert report["growth"][0]["cpu_seconds"] == 1
