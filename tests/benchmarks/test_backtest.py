"""The backtest's benchmark on two thousand decisions, so that it cannot rot."""

from __future__ import annotations

from pathlib import Path

from benchmarks.backtest import run
from features.tables import write_folder
from tests.training.tables import simulated


def test_two_thousand_decisions_are_made_again(model_home: Path, tmp_path: Path) -> None:
    world = simulated(customers=300, days=120, seed=7)
    write_folder({name: t for name, t in world.items() if t.num_rows}, tmp_path / "data")
    report = run(tmp_path / "data", model_home, tmp_path, 2_000, templates=40, processes=1)
    assert report["decisions"] == 2_000
    assert report["same_share"] == 1.0
    assert 0 < report["labelled"] < 2_000
    assert 0 < report["moved"] < 2_000
    assert report["decisions_per_second"] > 0 and report["peak_memory_mb"] > 0
