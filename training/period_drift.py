"""Drift between two periods: which features of the model moved, whether the score did, how surely.

PSI over ten bins of the earlier period's values, and how far chance alone would move it, as
`training.drift` finds out: pairs of samples drawn from the earlier period's customers. A model has
two hundred features, of which two pass their own threshold by chance, so an alarm needs more: of
each pair the feature that moved most in units of its threshold is taken, and what moved further
than 99 of 100 pairs' farthest **surely** moved.

Only what the same catalog counted, or the same model scored, can be held against one another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from features.catalog import BY_NAME
from serving.model import Reference
from serving.psi import psi
from training.bootstrap import known
from training.drift import PERCENTILE, SCORE, Drift, Pairs, measured
from training.period_read import FloatArray, IntArray, Kept, Refunds, Sample

ROUNDS: Final = 400
"""Enough pairs that four have a farthest beyond what 99 of 100 have."""

LEAST_CUSTOMERS: Final = 100
"""Of fewer customers than these in a period nothing is said of drift."""


@dataclass(frozen=True)
class Moved:
    """One feature, or the score: how far it moved, and how much the model looks at it.

    ``share`` is the feature's part of all that features added to the score or took from it in the
    later period, 0 to 1, and ``code`` its reason code; both None for the score. ``surely`` says
    that none of so many features would have moved so far by chance.
    """

    drift: Drift
    share: float | None
    code: str | None
    surely: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {**self.drift.to_json(), "times": known(self.drift.times), "surely": self.surely,
                "share_of_model": self.share, "reason_code": self.code}  # fmt: skip


@dataclass(frozen=True)
class PeriodDrift:
    """The score and the features, the furthest over its threshold first.

    ``problem`` says why there are no features: ``other_catalog``, ``too_few`` or ``not_scored``;
    ``score_problem`` why there is no score: ``other_model`` besides. ``before`` and ``after`` are
    how many refunds were looked at, of ``customers`` in each period.
    """

    features: tuple[Moved, ...]
    score: Moved | None
    problem: str | None
    score_problem: str | None
    before: int
    after: int
    customers: tuple[int, int]

    @property
    def drifted(self) -> tuple[Moved, ...]:
        """The features over their own thresholds."""
        return tuple(one for one in self.features if one.drift.drifted)

    @property
    def surely(self) -> tuple[Moved, ...]:
        """What chance moves in no more than one such report in a hundred, the score first."""
        each = (*((self.score,) if self.score else ()), *self.features)
        return tuple(one for one in each if one.surely)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "percentile": PERCENTILE,
            "problem": self.problem,
            "score_problem": self.score_problem,
            "refunds_before": self.before,
            "refunds_after": self.after,
            "customers_before": self.customers[0],
            "customers_after": self.customers[1],
            "features_drifted": len(self.drifted),
            "features_surely_drifted": sum(one.surely for one in self.features),
            "score": self.score.to_json() if self.score else None,
            "features": [one.to_json() for one in self.features],
        }


def period_drift(
    before: Refunds, after: Refunds, *, rounds: int = ROUNDS, seed: int = 0
) -> PeriodDrift:
    """Measure how far features and score moved; the same seed gives the same thresholds."""
    kept = _latest(after.samples)
    if kept is None:
        return _nothing("not_scored")
    was, now = before.samples.get(kept), after.samples[kept]
    if was is None or not len(was.row):
        return _nothing("other_catalog" if before.explained.any() else "not_scored")
    who = tuple(of.table["customer"][sample.row] for of, sample in ((before, was), (after, now)))
    customers = len(np.unique(who[0])), len(np.unique(who[1]))
    if min(customers) < LEAST_CUSTOMERS:
        return PeriodDrift((), None, "too_few", "too_few", len(was.row), len(now.row), customers)
    score, score_problem = _score(before, was, after, now, rounds, seed)
    pairs = Pairs(who[0], len(now.row), rounds=rounds, seed=seed)
    return PeriodDrift(
        _features(kept[1], was, now, pairs, customers[0]),
        score,
        None,
        score_problem,
        len(was.row),
        len(now.row),
        customers,
    )


def _nothing(problem: str) -> PeriodDrift:
    return PeriodDrift((), None, problem, problem, 0, 0, (0, 0))


def _latest(samples: Mapping[Kept, Sample]) -> Kept | None:
    """The kind of rows that the last scored refund has."""
    there = [kept for kept, sample in samples.items() if len(sample.row)]
    return max(there, key=lambda kept: int(samples[kept].row[-1]), default=None)


def _features(
    names: tuple[str, ...], was: Sample, now: Sample, pairs: Pairs, customers: int
) -> tuple[Moved, ...]:
    quantiles = Reference.of(was.values, np.zeros(1)).quantiles
    looks = np.abs(now.weights).mean(axis=0)
    share = looks / (looks.sum() or 1.0)
    found = [
        measured(name, was.values[:, i], now.values[:, i], quantiles[i], pairs)
        for i, name in enumerate(names)
    ]
    least = _of_the_unseen(customers, len(was.row), len(now.row))
    found = [(_at_least(drift, least), by_chance) for drift, by_chance in found]
    farthest = _farthest(found)
    moved = [
        Moved(drift, float(part), BY_NAME[name].reason_code if name in BY_NAME else None,
              drift.drifted and drift.times > farthest)
        for name, (drift, _), part in zip(names, found, share, strict=True)
    ]  # fmt: skip
    return tuple(sorted(moved, key=lambda one: (-one.drift.times, -one.drift.psi)))


def _of_the_unseen(customers: int, before: int, after: int) -> float:
    """PSI where a value that no customer had is that of as many as may have been missed.

    Of k customers none has what a share s of all have with probability (1 - s)^k, which is 1 in 100
    for s = ln(100) / k: so rare a value says nothing, though no pair of samples ever shows it.

    >>> round(_of_the_unseen(1_000, 2_000, 2_000), 3)
    0.014
    """
    share = min(1.0, math.log(100) / customers)
    seen = np.array([before, 0.0]), np.array([(1 - share) * after, share * after])
    return float(psi(*seen))


def _at_least(drift: Drift, threshold: float) -> Drift:
    """The drift under a threshold that is no lower than this one, where pairs never differed."""
    if drift.threshold > 0:
        return drift
    return replace(drift, threshold=threshold, drifted=drift.psi > threshold)


def _farthest(found: list[tuple[Drift, FloatArray]]) -> float:
    """How many times its threshold the farthest of all features moves by chance, rarely."""
    thresholds = np.array([drift.threshold for drift, _ in found])
    times = np.array([by_chance for _, by_chance in found]) / thresholds[:, None]
    return float(np.percentile(times.max(axis=0), PERCENTILE))


def _score(
    before: Refunds, was: Sample, after: Refunds, now: Sample, rounds: int, seed: int
) -> tuple[Moved | None, str | None]:
    """The score of the model that decided last, over what it scored in both periods."""
    model = int(after.table["model"][now.row[-1]])
    rows: list[IntArray] = [
        sample.row[of.table["model"][sample.row] == model]
        for of, sample in ((before, was), (after, now))
    ]
    if not len(rows[0]):
        return None, "other_model"
    p, q = (of.table["probability"][each] for of, each in zip((before, after), rows, strict=True))
    who = [of.table["customer"][each] for of, each in zip((before, after), rows, strict=True)]
    if min(len(np.unique(each)) for each in who) < LEAST_CUSTOMERS:
        return None, "too_few"
    quantiles = Reference.of(np.zeros((1, 0)), p).score_quantiles
    pairs = Pairs(who[0], len(q), rounds=rounds, seed=seed)
    found, _ = measured(SCORE, p, q, quantiles, pairs)
    return Moved(found, None, None, found.drifted), None
