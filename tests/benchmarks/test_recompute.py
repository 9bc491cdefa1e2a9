"""The recomputation benchmark on a few hundred decisions, so that it cannot rot."""

import json

import pytest

from benchmarks.recompute import main


def test_a_few_hundred_decisions_of_every_kind_come_out_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = main(["--decisions", "300"])
    printed = capsys.readouterr().out
    told = json.loads(printed[printed.index("{") :])
    assert told["missed"] == []
    assert told["differing"] == []
    assert told["decisions"] == told["same"] == told["whole"] >= 300
    assert (told["share"], done) == (1.0, 0)
