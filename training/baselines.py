"""What a model must beat to be worth having: the blueprint's score, a regression, the amount.

A model that ranks no better than what takes an hour to build is not registered. The present
champion is compared too, but does not decide: a challenger that is not better may be registered and
watched in the shadow, and is refused at promotion (`training.promote`).

**What decides** (`beats`). The blueprint and the amount are what a shop has without us: a model
must be surely better, its paired 95 % interval of the AP gained above zero. A regression on the
same features is a rival of another kind: on little data the interval is as wide as any gain worth
having, so that to ask for it would refuse every model for want of data alone. There the point
estimate decides as soon as the interval is narrow enough to tell, and until then only a
model that is surely worse is refused; `doubts` says so in the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from features.catalog import MODEL_FEATURES
from rules.document import Costs
from serving.model import AbuseModel
from training.bootstrap import BOOTSTRAP_ROUNDS, Interval, known, resample
from training.costs import ALLOWED, PREVENTED, REVIEWED, cost_of, mean_cost
from training.dataset import MODEL_NAMES, Examples
from training.evaluate import Desk, Figures, Meter, Truth

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# --- the blueprint ---------------------------------------------------------------------------

REFUNDS_IN_30_DAYS: Final = 3
LARGE_MINOR: Final = 200_00
"""The blueprint says 200 dollars; here it is 200 of the base currency, unless told otherwise."""
YOUNG_DAYS: Final = 14
HIGH_IP_RISK: Final = 0.75
"""The blueprint's IP risk is high or not; a reputation from 0 to 1 is high in its top quarter."""
REVIEW_FROM, DENY_FROM = 30, 70
"""Points from which the blueprint reviews, and from which it denies, or reviews if so inclined."""

_IP_POINTS: Final = 10


@dataclass(frozen=True)
class Blueprint:
    """The refund approval blueprint's score of n refunds, with and without what is not known.

    ``score`` (n,), 0 to 95, gives nothing for what is unknown; ``score_ip_high`` gives the ten
    points where no IP reputation is known, so the truth lies between the two. ``unknown`` is the
    share of refunds for which a signal is unknown, by signal.
    """

    score: FloatArray
    score_ip_high: FloatArray
    unknown: Mapping[str, float]


def blueprint(examples: Examples, *, large_minor: float = LARGE_MINOR) -> Blueprint:
    """Score examples by the blueprint's five signals.

    25 points for at least three refunds requested in 30 days (before this one), 20 for more than
    200, 15 for an account younger than 14 days, 25 for a chargeback before (within a year, which is
    as far as windows reach), 10 for an IP address of high risk.
    """
    recent = examples.column("refund_count_by_customer_30d")
    amount = examples.column("payable_minor")
    age = examples.column("registered_age_days")
    chargebacks = examples.column("chargeback_count_by_customer_365d")
    ip_risk = examples.column("ip_risk")
    score = (
        25.0 * (recent >= REFUNDS_IN_30_DAYS)
        + 20.0 * (amount > large_minor)
        + 15.0 * (age < YOUNG_DAYS)
        + 25.0 * (chargebacks >= 1)
        + _IP_POINTS * (ip_risk >= HIGH_IP_RISK)
    )
    signals = {"amount": amount, "account_age": age, "ip_risk": ip_risk}
    return Blueprint(
        score,
        score + _IP_POINTS * np.isnan(ip_risk),
        {name: float(np.isnan(values).mean()) for name, values in signals.items()},
    )


def blueprint_actions(score: FloatArray, *, denies: bool = True) -> IntArray:
    """What the blueprint does at each score: severities (n,) as in `training.costs`.

    0 to 29 points are approved, 30 to 69 reviewed; from 70 on the blueprint denies, or reviews
    where it is told not to deny.

    >>> blueprint_actions(np.array([25.0, 30.0, 70.0])).tolist()
    [0, 2, 3]
    >>> blueprint_actions(np.array([25.0, 30.0, 70.0]), denies=False).tolist()
    [0, 2, 2]
    """
    top = PREVENTED if denies else REVIEWED
    return np.select([score >= DENY_FROM, score >= REVIEW_FROM], [top, REVIEWED], ALLOWED)


@dataclass(frozen=True)
class BlueprintCost:
    """What the blueprint costs at its own bands, read in one way.

    ``ip_high`` tells whether an unknown IP reputation was given its ten points, ``denies`` what
    was done from 70 points on. ``cost_per_1000_minor`` is comparable with `Figures`'s.
    """

    ip_high: bool
    denies: bool
    cost_per_1000_minor: float
    reviewed_share: float
    prevented_share: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "cost_per_1000_minor": known(self.cost_per_1000_minor)}


def blueprint_costs(scored: Blueprint, truth: Truth, costs: Costs) -> tuple[BlueprintCost, ...]:
    """The blueprint's cost in all four readings, over refunds of known amount."""
    found = []
    for ip_high, score in ((False, scored.score), (True, scored.score_ip_high)):
        for denies in (True, False):
            action = blueprint_actions(score, denies=denies)
            spent = cost_of(action, truth.abuse, truth.amount_minor, costs)
            shares = [float(np.average(action == of, weights=truth.weight))
                      for of in (REVIEWED, PREVENTED)]  # fmt: skip
            cost = 1000 * mean_cost(spent, truth.weight)
            found.append(BlueprintCost(ip_high, denies, cost, *shares))
    return tuple(found)


# --- logistic regression -----------------------------------------------------------------------

LOGISTIC_ROWS: Final = 100_000
"""The latest training refunds that the regression is fitted on: more teach its weights nothing."""

LOGISTIC_C: Final = 0.01
"""Inverse strength of its ridge penalty."""


def _compressed(values: FloatArray) -> FloatArray:
    """The logarithm of counts and amounts on both sides of 0: a long tail would rule the fit."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))


def logistic_regression(
    train: Examples, *, weight: FloatArray | None = None, rows: int = LOGISTIC_ROWS
) -> Pipeline:
    """A fitted scikit-learn pipeline over all inputs of the model, the latest ``rows`` seen.

    Numbers are compressed, the unknown replaced by the median and said to be unknown in a column
    of its own, then standardised; codes become one column per value. ``predict_proba`` of
    ``Examples.inputs`` gives probabilities.
    """
    codes = [place for place, f in enumerate(MODEL_FEATURES) if f.unit == "code"]
    numbers = [place for place in range(len(MODEL_NAMES)) if place not in codes]
    prepared = ColumnTransformer([
        ("numbers", make_pipeline(
            FunctionTransformer(_compressed),
            SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
            StandardScaler(),
        ), numbers),
        ("codes", OneHotEncoder(handle_unknown="ignore", sparse_output=False), codes),
    ])  # fmt: skip
    regression = LogisticRegression(C=LOGISTIC_C, max_iter=500)
    fitted = Pipeline([("prepared", prepared), ("regression", regression)])
    latest = train.rows(max(0, len(train) - rows), len(train))
    own = None if weight is None else weight[len(weight) - len(latest) :]
    return fitted.fit(latest.inputs, latest.abuse, regression__sample_weight=own)


# --- comparison --------------------------------------------------------------------------------

SURELY, AHEAD, NOTHING = "surely better", "ahead", "nothing"
"""What is demanded of a model: an interval of the gain above zero; a gain, where the test can tell;
or no more than to be compared."""

TELLING_SHARE: Final = 0.05
"""A test can tell two scores apart where the half of the gain's interval is at most this share of
the baseline's AP."""


@dataclass(frozen=True)
class Baseline:
    """A score (n,) of the test refunds that the model is held against.

    ``new`` (n,) tells on which of them it may be: those it has not learnt from. ``demand`` is
    what a model must be to be registered (`SURELY`, `AHEAD`, or `NOTHING`); ``probability``
    whether the score is one.
    """

    name: str
    score: FloatArray
    new: NDArray[np.bool_]
    demand: str
    probability: bool


@dataclass(frozen=True)
class Against:
    """Model and baseline on the same refunds, and the paired 95 % intervals of what is gained."""

    name: str
    demand: str
    model: Figures
    baseline: Figures
    average_precision_gain: Interval
    auc_gain: Interval

    @property
    def refuses(self) -> bool:
        """Whether a model with this result is not to be registered; see the head of this file."""
        gain, baseline = self.average_precision_gain, self.baseline.average_precision
        if self.demand == NOTHING:
            return False
        if self.demand == SURELY:
            return not gain.low > 0
        telling = (gain.high - gain.low) / 2 <= TELLING_SHARE * baseline
        return gain.high <= 0 or (telling and self.model.average_precision <= baseline)

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {
            "name": self.name,
            "demand": self.demand,
            "model": self.model.to_json(),
            "baseline": self.baseline.to_json(),
            "average_precision_gain": self.average_precision_gain.to_json(),
            "auc_gain": self.auc_gain.to_json(),
        }


def baselines(
    train: Examples,
    test: Examples,
    *,
    champion: AbuseModel | None = None,
    weight: FloatArray | None = None,
) -> tuple[Baseline, ...]:
    """The scores that a model of this training is held against, on its test.

    ``weight`` is that of the training examples. A champion that learnt after all of the test is no
    measure, and left out.
    """
    every = np.ones(len(test), np.bool_)
    scored = blueprint(test)
    amount = np.nan_to_num(test.column("payable_minor"))
    logistic = logistic_regression(train, weight=weight).predict_proba(test.inputs)[:, 1]
    found = [
        Baseline("blueprint_score", scored.score, every, SURELY, False),
        Baseline("blueprint_score_ip_high", scored.score_ip_high, every, SURELY, False),
        Baseline("logistic_regression", logistic, every, AHEAD, True),
        Baseline("amount_alone", amount, every, SURELY, False),
    ]
    if champion is not None and (kept := _champion(champion, test)) is not None:
        found.append(kept)
    return tuple(found)


def _champion(champion: AbuseModel, test: Examples) -> Baseline | None:
    new = test.known_at >= champion.manifest.test_from
    if not 0 < test.abuse[new].sum() < new.sum():
        return None
    return Baseline("champion", champion.predict(test.inputs), new, NOTHING, True)


def against(
    probability: FloatArray,
    truth: Truth,
    found: Sequence[Baseline],
    *,
    desk: Desk | None = None,
    rounds: int = BOOTSTRAP_ROUNDS,
    seed: int = 0,
) -> tuple[Against, ...]:
    """Hold a model's probabilities (n,) against each baseline, on the refunds new to both."""
    compared = []
    for baseline in found:
        part = truth.where(baseline.new)
        meters = {
            "model": Meter(probability[baseline.new], part, desk=desk),
            "baseline": Meter(
                baseline.score[baseline.new], part, desk=desk, probability=baseline.probability
            ),
        }
        rankings = {name: meter.ranking.figures for name, meter in meters.items()}
        drawn = resample(rankings, part.customer, part.weight, rounds=rounds, seed=seed)
        compared.append(
            Against(
                baseline.name,
                baseline.demand,
                meters["model"].figures(),
                meters["baseline"].figures(),
                drawn.gain("model", "baseline", "average_precision"),
                drawn.gain("model", "baseline", "auc"),
            )
        )
    return tuple(compared)


def beats(compared: Sequence[Against]) -> list[str]:
    """Why a model is not registered, in sentences; empty where it beats all it must."""
    return [
        _sentence(one, "is not surely better" if one.demand == SURELY else "is not better")
        for one in compared
        if one.refuses
    ]


def doubts(compared: Sequence[Against]) -> list[str]:
    """What a reader should know though it refuses nothing: who is not surely beaten."""
    return [
        _sentence(one, "is not surely better")
        for one in compared
        if not one.refuses and not one.average_precision_gain.low > 0
    ]


def _sentence(one: Against, verdict: str) -> str:
    gain = one.average_precision_gain
    return (
        f"the model {verdict} than {one.name.replace('_', ' ')}: average precision "
        f"{one.model.average_precision:.3f} against {one.baseline.average_precision:.3f} on "
        f"{one.model.n_positives:.0f} cases of abuse, the 95 % interval of the gain is "
        f"{gain.low:+.3f} to {gain.high:+.3f}"
    )
