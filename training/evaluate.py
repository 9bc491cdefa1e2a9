"""How good a score is: rare classes, money and review capacity, not AUC alone.

Average precision (AP) leads: with a few per cent of abuse it is what a reviewer feels, and it falls
where AUC hardly moves. Intervals come from a bootstrap over customers, because the refunds of one
customer are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
    roc_curve,
)

from features.money import DAY_MS
from serving.model import AbuseModel
from training.dataset import Examples

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

REVIEW_SHARE: Final = 0.05
"""The review capacity that figures are stated for: a day's reviews as a share of its refunds."""

BOOTSTRAP_ROUNDS: Final = 200


def evaluate(model: AbuseModel, examples: Examples) -> dict[str, float]:
    """The figures of a model on labelled examples: `measure` and `at_capacity`.

    The examples must be new to it: from its manifest's ``test_from`` on.
    """
    probability = model.predict(examples.columns(model.feature_names))
    return {
        **measure(probability, examples.abuse),
        **at_capacity(probability, examples.abuse, examples.known_at, examples.customer),
    }


def measure(probability: FloatArray, abuse: FloatArray) -> dict[str, float]:
    """Ranking and calibration figures of probabilities (n,) against labels (n,) of both classes.

    >>> figures = measure(np.array([0.1, 0.2, 0.7]), np.array([0.0, 0.0, 1.0]))
    >>> figures["auc"], figures["average_precision"], figures["n_positives"]
    (1.0, 1.0, 1.0)
    """
    return {
        **rank(probability, abuse),
        "brier": float(brier_score_loss(abuse, probability)),
        "log_loss": float(log_loss(abuse, probability)),
        "mean_probability": float(probability.mean()),
        "prevalence": float(abuse.mean()),
        "n": float(len(abuse)),
        "n_positives": float(abuse.sum()),
    }


def rank(score: FloatArray, abuse: FloatArray) -> dict[str, float]:
    """What any score (n,) that orders refunds can be judged by: AUC, AP, TPR at 5 % FPR."""
    false_rate, true_rate, _ = roc_curve(abuse, score)
    return {
        "auc": float(roc_auc_score(abuse, score)),
        "average_precision": float(average_precision_score(abuse, score)),
        "tpr_at_5pct_fpr": float(true_rate[false_rate <= 0.05].max()),
    }


def at_capacity(
    score: FloatArray,
    abuse: FloatArray,
    known_at: IntArray,
    customer: IntArray,
    share: float = REVIEW_SHARE,
) -> dict[str, float]:
    """Precision and recall of a review desk that takes the riskiest ``k`` customers of each day.

    A customer is as risky as the day's worst refund, and abusive if any refund of the day is; one
    already caught on an earlier day is left out. k is ``share`` of the mean daily refunds, at least
    1. The ceilings are what a perfect score would reach.
    """  # fmt: skip
    day = known_at // DAY_MS
    days = np.unique(day)
    k = max(1, round(share * len(score) / len(days)))
    caught: set[int] = set()
    hits = taken = possible = present = 0
    for today in days.tolist():
        rows = np.flatnonzero(day == today)
        risk: dict[int, tuple[float, bool]] = {}
        for who, s, y in zip(
            customer[rows].tolist(), score[rows].tolist(), abuse[rows].tolist(), strict=True
        ):
            if who not in caught:
                worst, guilty = risk.get(who, (-np.inf, False))
                risk[who] = max(worst, s), guilty or y == 1
        chosen = sorted(risk, key=lambda who: (-risk[who][0], who))[:k]
        guilty_today = sum(guilty for _, guilty in risk.values())
        found = [who for who in chosen if risk[who][1]]
        hits, taken = hits + len(found), taken + len(chosen)
        present, possible = present + guilty_today, possible + min(k, guilty_today)
        caught.update(found)
    return {
        "reviews_per_day": float(k),
        "precision_at_capacity": hits / taken,
        "precision_at_capacity_ceiling": possible / taken,
        "recall_at_capacity": hits / present if present else float("nan"),
        "recall_at_capacity_ceiling": possible / present if present else float("nan"),
    }


# --- uncertainty -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def bootstrap(
    scores: Mapping[str, FloatArray], abuse: FloatArray, customer: IntArray, seed: int = 0
) -> list[dict[str, dict[str, float]]]:
    """AUC and AP of several scores on the same resamples of customers: ``[{score: figures}]``.

    The rounds are paired: a difference between two scores is taken within a round.
    """
    draw = np.random.default_rng(seed)
    _, who = np.unique(customer, return_inverse=True)
    count = int(who.max()) + 1
    rounds: list[dict[str, dict[str, float]]] = []
    while len(rounds) < BOOTSTRAP_ROUNDS:
        times = np.bincount(draw.integers(0, count, count), minlength=count)[who]
        drawn = np.repeat(np.arange(len(abuse)), times)
        if 0 < abuse[drawn].sum() < len(drawn):
            rounds.append(
                {
                    name: {
                        "auc": float(roc_auc_score(abuse[drawn], score[drawn])),
                        "average_precision": float(
                            average_precision_score(abuse[drawn], score[drawn])
                        ),
                        "brier": float(np.mean((score[drawn] - abuse[drawn]) ** 2)),
                    }
                    for name, score in scores.items()
                }
            )
    return rounds


def interval(values: list[float]) -> Interval:
    """The middle 95 % of bootstrap values.

    >>> interval([0.0, 1.0, 2.0])
    Interval(low=0.05, high=1.95)
    """
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))


# --- what the model must beat ----------------------------------------------------------------


def blueprint_score(examples: Examples) -> FloatArray:
    """The refund approval blueprint's weighted score (n,), 0 to 95, from its five signals.

    25 for three refunds in 30 days, 20 for more than 200 (of the base currency), 15 for an account
    younger than 14 days, 25 for a chargeback before, 10 for a risky IP address. What is unknown
    adds nothing.
    """
    signals = (
        (25, examples.column("refund_count_by_customer_30d") >= 3),
        (20, examples.column("payable_minor") > 200_00),
        (15, examples.column("registered_age_days") < 14),
        (25, examples.column("chargeback_count_by_customer_365d") >= 1),
        (10, examples.column("ip_risk") >= 0.75),
    )
    score = np.zeros(len(examples))
    for points, signal in signals:
        score += points * signal
    return score


def baselines(examples: Examples) -> dict[str, dict[str, float]]:
    """The blueprint's score, and the amount alone, judged on the same examples."""
    amount = np.nan_to_num(examples.column("payable_minor"))
    return {
        "blueprint_score": rank(blueprint_score(examples), examples.abuse),
        "amount_alone": rank(amount, examples.abuse),
    }


def reliability(probability: FloatArray, abuse: FloatArray, bins: int = 10) -> list[dict[str, Any]]:
    """Predicted against observed share of abuse, in bins of equal size by probability.

    >>> reliability(np.array([0.1, 0.3]), np.array([0.0, 1.0]), bins=2)[1]
    {'refunds': 1, 'predicted': 0.3, 'observed': 1.0}
    """
    order = np.argsort(probability, kind="stable")
    return [
        {
            "refunds": len(rows),
            "predicted": float(probability[rows].mean()),
            "observed": float(abuse[rows].mean()),
        }
        for rows in np.array_split(order, min(bins, len(order)))
    ]
