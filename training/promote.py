"""Promote: a challenger becomes champion when it is shown to be better, and is refused otherwise.

Both are judged on the challenger's own out-of-time test refunds, as its run kept them, as far as
they are new to the champion too. The gate: the features are the catalog's; average precision is
better, with a paired bootstrap interval above zero; the probabilities are no worse by Brier score.
A refusal gives every reason. `rollback` moves the alias back to whom the champion replaced.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.catalog import MODEL_FEATURES
from features.feature import definitions_hash
from serving.home import Home
from serving.model import AbuseModel, FeatureMismatch
from training.dataset import MODEL_NAMES
from training.evaluate import Interval, bootstrap, interval, measure
from training.registry import MODEL_NAME, Registry
from training.train import MIN_POSITIVES, TEST_ROWS

FloatArray = NDArray[np.float64]


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
class Comparison:
    """Challenger and champion on the same refunds; ``gain`` is the 95 % interval of the AP gained.

    The figures are those of `training.evaluate.measure`.
    """

    refunds: int
    positives: int
    challenger: dict[str, float]
    champion: dict[str, float]
    gain: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Promotion:
    """A version that is champion now, whom it replaced, and how the two compared.

    ``comparison`` is None where there was no champion that could still serve.
    """

    version: str
    replaced: str | None
    comparison: Comparison | None


def promote(version: str | None = None, *, home: Path) -> Promotion:
    """Make ``version``, by default the latest, champion and serve it, if it passes the gate.

    Raises PromotionRefused with all reasons, and LookupError for a version that does not exist.
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
    challenger, champion = registry.load(version), registry.load(before) if before else None
    reasons = []
    if (mismatch := _mismatch(challenger)) is not None:
        reasons.append(mismatch)
    comparison = None
    # A champion of other features can serve no more, so it is no measure either.
    if champion is not None and not reasons and _mismatch(champion) is None:
        rows = pq.read_table(registry.run_file(version, TEST_ROWS))
        rows = rows.filter(rows["known_at"].to_numpy() >= champion.manifest.test_from)
        positives = int(rows["abuse"].to_numpy().sum())
        if MIN_POSITIVES <= positives < rows.num_rows:
            comparison = _compare(challenger, champion, rows)
            reasons += _objections(comparison)
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
    registry = Registry(Home(home))
    *earlier, champion = registry.champions() or ["none"]
    if not earlier:
        raise LookupError(f"nothing to roll back to: champion {champion} replaced none")
    if (mismatch := _mismatch(registry.load(earlier[-1]))) is not None:
        raise PromotionRefused(earlier[-1], [mismatch])
    registry.crown(earlier)
    return Promotion(earlier[-1], champion, None)


def _mismatch(model: AbuseModel) -> str | None:
    try:
        model.check_features(MODEL_NAMES, definitions_hash(MODEL_FEATURES))
    except FeatureMismatch as mismatch:
        return str(mismatch)
    return None


def _compare(challenger: AbuseModel, champion: AbuseModel, rows: pa.Table) -> Comparison:
    matrix = np.column_stack([rows[f"feature.{name}"].to_numpy() for name in MODEL_NAMES])
    abuse = rows["abuse"].to_numpy()
    scores = {"challenger": challenger.predict(matrix), "champion": champion.predict(matrix)}
    rounds = bootstrap(scores, abuse, rows["customer"].to_numpy())
    gains = [r["challenger"]["average_precision"] - r["champion"]["average_precision"]
             for r in rounds]  # fmt: skip
    return Comparison(
        len(abuse), int(abuse.sum()), measure(scores["challenger"], abuse),
        measure(scores["champion"], abuse), interval(gains),
    )  # fmt: skip


def _objections(c: Comparison) -> list[str]:
    reasons = []
    if c.gain.low <= 0:
        reasons.append(
            f"average precision {c.challenger['average_precision']:.3f} against "
            f"{c.champion['average_precision']:.3f} is not surely better on {c.positives} cases of "
            f"abuse: the 95 % interval of the gain is {c.gain.low:+.3f} to {c.gain.high:+.3f}"
        )
    if c.challenger["brier"] > c.champion["brier"]:
        reasons.append(
            f"its probabilities are worse: Brier score {c.challenger['brier']:.5f} against "
            f"{c.champion['brier']:.5f}"
        )
    return reasons
