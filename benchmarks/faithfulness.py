"""Whether reasons are true: made usual, does the main reason of a flagged refund lower its score?

``python -m benchmarks.faithfulness`` prints one JSON document: `training.faithfulness` on the
out-of-time test of a data folder, with a model trained as `recourse train` does. Refunds are
flagged by the proposed bands (``proposed``) and by those of the policy that comes with Recourse
(``policy``). ``causes`` counts the reasons that lowered nothing by why, and ``examples`` has the
first of each code and cause. Exit code 1: the main reason lowers fewer than 95 %.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.service import say
from features.tables import read_folder
from rules.document import Band
from rules.policy import load_policy
from serving.facts import FACTS
from training.bands import actions, default_policy_path
from training.dataset import TimeSplit, data_digest, rates_of, training_frame
from training.faithfulness import Faithfulness, Unmoved, faithfulness
from training.fit import Fitted, fit


def measured(fitted: Fitted, split: TimeSplit, bands: Sequence[Band], fee: float) -> Faithfulness:
    """The reasons of what these bands do not simply allow; ``fee`` in minor units."""
    test = split.test
    probability = fitted.model.predict(test.inputs)
    loss = probability * (test.column("payable_minor") + fee)
    return faithfulness(fitted.model, test, actions(bands, probability, loss) > 0)


def told(found: Faithfulness) -> dict[str, Any]:
    """Plain values; of what lowered nothing, counts and the first of each kind."""
    document = asdict(found)
    document.pop("unmoved")
    first: dict[tuple[str, str], Unmoved] = {}
    for one in found.unmoved:
        first.setdefault((one.code, one.cause), one)
    causes = Counter(f"{one.code}: {one.cause}" for one in found.unmoved)
    return {
        **document,
        "unmoved_main": sum(one.rank == 0 for one in found.unmoved),
        "causes": dict(causes.most_common()),
        "examples": [asdict(one) for one in first.values()],
    }


def report(data: Path, maturity_days: int, seed: int) -> tuple[dict[str, Any], bool]:
    """Everything, and whether reasons are as true as they must be."""
    tables = read_folder(data).tables
    split = training_frame(tables, rates_of(tables), maturity_days=maturity_days)
    policy = load_policy(default_policy_path(), FACTS)
    say("training")
    fitted = fit(split, seed=seed, base="GBP", costs=policy.costs, digest=data_digest(tables))
    say("asking")
    found = {
        "proposed": measured(
            fitted, split, fitted.placement.bands.written(), policy.costs.fee_minor
        ),
        "policy": measured(fitted, split, policy.bands, policy.costs.fee_minor),
    }
    document = {"trees": fitted.trees, "n_test": len(split.test)}
    return (
        {**document, **{name: told(one) for name, one in found.items()}},
        all(one.is_kept for one in found.values()),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, ask, print; exit code 1 where too many main reasons are not true."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/sample"), help="a data folder")
    parser.add_argument("--maturity-days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    document, is_kept = report(asked.data, asked.maturity_days, asked.seed)
    print(json.dumps(_known(document), indent=2, allow_nan=False))
    return 0 if is_kept else 1


def _known(value: Any) -> Any:
    """The same with None for NaN: a share of no cases."""
    if isinstance(value, dict):
        return {name: _known(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and value != value else value


if __name__ == "__main__":
    sys.exit(main())
