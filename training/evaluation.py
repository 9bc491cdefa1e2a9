"""Evaluate: a model on a data folder, as far as its labels are mature and new to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.catalog import MODEL_FEATURES
from features.feature import definitions_hash
from features.tables import Tables
from rules.document import Band, Costs
from serving.model import AbuseModel
from training.capacity import Desk
from training.dataset import (
    MIN_POSITIVES,
    MODEL_NAMES,
    Examples,
    TooLittleData,
    day_of,
    labelled_examples,
    rates_of,
)
from training.evaluate import Judgement, Truth, judge
from training.propensity import Weighted, weigh
from training.segments import Segment, segments

FloatArray = NDArray[np.float64]


LEAST_COVERED: Final = 0.5
"""Weighted figures are given where the weights cover at least this share of the labelled refunds:
of a history that was imported yesterday they would speak for a handful."""


@dataclass(frozen=True)
class Evaluation:
    """How a model does on refunds of ``since`` to ``until`` (days, UTC), by their mature labels.

    ``labels`` counts the refunds of that time by basis, those without a label included. ``scores``
    has a row per labelled refund: ``refund_id, known_at, probability, abuse``.
    """

    since: str
    until: str
    labels: dict[str, dict[str, int]]
    judgement: Judgement
    weighted: dict[str, Any] | None
    segments: tuple[Segment, ...]
    scores: pa.Table

    def to_json(self) -> dict[str, Any]:
        """The figures by their own names beside everything else; the scores are left out."""
        return {
            **self.judgement.to_json(),
            "since": self.since,
            "until": self.until,
            "labels": self.labels,
            "weighted": self.weighted,
            "segments": [segment.to_json() for segment in self.segments],
        }


def evaluate_folder(
    tables: Tables,
    model: AbuseModel,
    *,
    bands: Sequence[Band],
    costs: Costs,
    since: int | None = None,
    until: int | None = None,
    maturity_days: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Judge a model on a canonical data folder, at the bands and costs of a policy.

    Refunds are those requested from ``since`` (epoch ms; what the model has learnt from when not
    given) up to ``until``; labels mature as the model's own did, unless ``maturity_days`` says
    otherwise. Raises FeatureMismatch for a model of another catalog, ValueError where
    ``since`` lies in what the model has learnt from, and TooLittleData without both classes.
    """
    model.check_features(MODEL_NAMES, definitions_hash(MODEL_FEATURES))
    new_from = model.manifest.test_from
    since = new_from if since is None else since
    if since < new_from:
        raise ValueError(
            f"since: expected {day_of(new_from)} or later, got {day_of(since)}: the model has "
            "learnt from what came before"
        )
    if maturity_days is None:
        maturity_days = int(model.manifest.label_definition["maturity_days"])
    rates = rates_of(tables, model.manifest.base_currency)
    examples, labels = labelled_examples(
        tables, rates, since=since, until=until, maturity_days=maturity_days
    )
    if not 0 < examples.positives < len(examples):
        raise TooLittleData(
            f"expected mature labels of both kinds since {day_of(since)}, got {len(examples):,} "
            f"refunds, {examples.positives:,} of them abuse"
        )
    probability = model.predict(examples.inputs)
    desk = Desk(reviews_per_day=costs.reviews_per_day)
    judged = judge(probability, Truth.of(examples), desk=desk, bands=bands, costs=costs, seed=seed)
    weighted = weighted_judgement(
        weigh_labelled(examples, tables), probability, examples, desk=desk, bands=bands,
        costs=costs, seed=seed,
    )  # fmt: skip
    scores = pa.table(
        {"refund_id": pa.array(examples.refund_id.tolist(), pa.string()),
         "known_at": examples.known_at, "probability": probability, "abuse": examples.abuse}
    )  # fmt: skip
    return Evaluation(
        day_of(since), day_of(examples.known_at[-1]), labels, judged, weighted,
        segments(probability, examples, seed=seed), scores,
    )  # fmt: skip


def weigh_labelled(examples: Examples, tables: Tables) -> Weighted | None:
    """Inverse-propensity weights of examples, where the folder's decisions cover enough of them."""
    if "decisions" not in tables or not tables["decisions"].num_rows:
        return None
    weighed = weigh(examples, tables)
    abuse = examples.abuse[weighed.used]
    both = MIN_POSITIVES <= abuse.sum() < len(abuse)
    return weighed if both and weighed.used.mean() >= LEAST_COVERED else None


def weighted_judgement(
    weighed: Weighted | None, probability: FloatArray, examples: Examples, *, desk: Desk,
    bands: Sequence[Band], costs: Costs, seed: int,
) -> dict[str, Any] | None:  # fmt: skip
    """The figures of probabilities (n,) under the weights, and what these speak for."""
    if weighed is None:
        return None
    used = weighed.used
    truth = Truth.of(examples.where(used), weighed.weight[used])
    judged = judge(probability[used], truth, desk=desk, bands=bands, costs=costs, seed=seed)
    return {
        "coverage": weighed.coverage.to_json(),
        "effective_size": weighed.effective_size,
        "judgement": judged.to_json(),
    }
