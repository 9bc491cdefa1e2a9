"""Promote: a challenger becomes champion when it is shown to be better, and is refused otherwise.

Both are judged on the challenger's own out-of-time test refunds, as its run kept them, as far as
they are new to the champion too: it may have learnt later. The features must be the catalog's, and
`training.gate` must have no objection. A refusal gives every reason. `rollback` moves the alias
back to whom the champion replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.catalog import MODEL_FEATURES
from features.feature import definitions_hash
from rules.policy import Policy, load_policy
from serving.facts import FACTS
from serving.home import Home
from serving.model import AbuseModel, FeatureMismatch
from training.bands import default_policy_path
from training.dataset import MIN_POSITIVES, MODEL_NAMES
from training.evaluate import Truth
from training.evaluation import LEAST_COVERED
from training.gate import Bounds, Comparison, compare, measure_latency, objections
from training.registry import MODEL_NAME, Registry
from training.train import GROUP_PREFIX, TEST_ROWS, WEIGHT


class PromotionRefused(Exception):  # noqa: N818 - a verdict, not a fault
    """A challenger was not promoted; ``reasons`` says why, ``comparison`` by which figures.

    >>> print(PromotionRefused("2", ["its Brier score is worse"]))
    version 2 is not promoted: its Brier score is worse
    """

    def __init__(
        self, version: str, reasons: list[str], comparison: Comparison | None = None
    ) -> None:
        self.version, self.reasons, self.comparison = version, tuple(reasons), comparison
        super().__init__(f"version {version} is not promoted: {'; '.join(reasons)}")


@dataclass(frozen=True)
class Promotion:
    """A version that is champion now, whom it replaced, and how the two compared.

    ``comparison`` is None where there was no champion that could still serve.
    """

    version: str
    replaced: str | None
    comparison: Comparison | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        compared = None if self.comparison is None else self.comparison.to_json()
        return {"version": self.version, "replaced": self.replaced, "comparison": compared}


def promote(
    version: str | None = None,
    *,
    home: Path,
    policy: Policy | None = None,
    bounds: Bounds | None = None,
) -> Promotion:
    """Make ``version``, by default the latest, champion and serve it, if it passes the gate.

    The cost is judged by the bands and costs of ``policy``, by default the one that Recourse comes
    with; ``bounds`` are the gate's. Raises PromotionRefused with all reasons, and LookupError for a
    version that does not exist.
    """
    # Asked of a home without models, MLflow would make a database first.
    registry = Registry(Home(home)) if Home(home).registry.exists() else None
    versions = registry.versions() if registry else []
    if version is None and versions:
        version = versions[-1]
    if registry is None or version is None or version not in versions:
        raise LookupError(
            f"{MODEL_NAME} has no version {version or 'at all'}: "
            f"expected one of {', '.join(versions) or 'none, train first'}"
        )
    before = registry.champion()
    if version == before:
        raise PromotionRefused(version, ["it is champion already"])
    challenger, champion = registry.load(version), registry.usable_champion()
    reasons = []
    if (mismatch := _mismatch(challenger)) is not None:
        reasons.append(mismatch)
    if champion is not None and (other := _other_currency(challenger, champion)) is not None:
        reasons.append(other)
    comparison = None
    rows = None
    try:
        rows = pq.read_table(registry.run_file(version, TEST_ROWS))
    except LookupError as error:
        reasons.append(f"{error}: train again")
    if champion is not None and rows is not None and not reasons:
        rows = rows.filter(rows["known_at"].to_numpy() >= champion.manifest.test_from)
        rows, notes = _covered(rows)
        positives = int(rows["abuse"].to_numpy().sum())
        if MIN_POSITIVES <= positives < rows.num_rows:
            compared = _compare(challenger, champion, rows, policy)
            comparison = replace(compared, notes=(*compared.notes, *notes))
            reasons += objections(comparison, bounds or Bounds())
        else:
            reasons.append(
                f"only {positives} of the {rows.num_rows} test refunds that are new to both are "
                f"abuse, expected at least {MIN_POSITIVES}"
            )
    if reasons:
        raise PromotionRefused(version, reasons, comparison)
    registry.crown([*registry.champions(), version])
    return Promotion(version, before, comparison)


def rollback(*, home: Path) -> Promotion:
    """Make the version that the champion replaced champion again, if it can still serve.

    Raises LookupError where there is no champion or it replaced none, and PromotionRefused where
    the catalog has changed since.
    """
    if not Home(home).registry.exists():
        raise LookupError(f"nothing to roll back to: {Home(home).registry} is not there")
    registry = Registry(Home(home))
    *earlier, champion = registry.champions() or ["none"]
    if not earlier:
        raise LookupError(f"nothing to roll back to: champion {champion} replaced none")
    if (mismatch := _mismatch(registry.load(earlier[-1]))) is not None:
        raise PromotionRefused(earlier[-1], [mismatch])
    registry.crown(earlier)
    return Promotion(earlier[-1], champion, None)


def _covered(rows: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """The rows that have a weight; all of them, unweighted, where these are too few to judge by."""
    if WEIGHT not in rows.column_names:
        return rows, ()
    covered = rows.filter(rows[WEIGHT].to_numpy() > 0)
    positives = int(covered["abuse"].to_numpy().sum())
    if (
        MIN_POSITIVES <= positives < covered.num_rows
        and covered.num_rows >= LEAST_COVERED * rows.num_rows
    ):
        return covered, ()
    said = (
        f"refunds are not weighed by propensity: of the {rows.num_rows} that are new to both only "
        f"{covered.num_rows} were decided with one, {positives} of them abuse"
    )
    return rows.drop([WEIGHT]), (said,)


def _mismatch(model: AbuseModel) -> str | None:
    try:
        model.check_features(MODEL_NAMES, definitions_hash(MODEL_FEATURES))
    except FeatureMismatch as mismatch:
        return str(mismatch)
    return None


def _other_currency(challenger: AbuseModel, champion: AbuseModel) -> str | None:
    ours, theirs = challenger.manifest.base_currency, champion.manifest.base_currency
    if ours == theirs:
        return None
    return f"it reckons in {ours}, the champion and so the service in {theirs}"


def _compare(
    challenger: AbuseModel, champion: AbuseModel, rows: pa.Table, policy: Policy | None
) -> Comparison:
    matrix = np.column_stack([rows[f"feature.{name}"].to_numpy() for name in MODEL_NAMES])
    written = _default_policy() if policy is None else policy
    groups = {name.removeprefix(GROUP_PREFIX): np.array(rows[name].to_pylist(), object)
              for name in rows.column_names if name.startswith(GROUP_PREFIX)}  # fmt: skip
    return compare(
        challenger.predict(matrix), champion.predict(matrix), _truth(rows),
        bands=written.bands, costs=written.costs, groups=groups,
        latency=measure_latency(challenger, champion, matrix),
    )  # fmt: skip


def _truth(rows: pa.Table) -> Truth:
    weight = np.ones(rows.num_rows)
    if WEIGHT in rows.column_names:
        weight = rows[WEIGHT].to_numpy()
    return Truth(
        rows["abuse"].to_numpy(), rows["customer"].to_numpy(), rows["known_at"].to_numpy(),
        rows["feature.payable_minor"].to_numpy(), weight,
    )  # fmt: skip


def _default_policy() -> Policy:
    return load_policy(default_policy_path(), FACTS)
