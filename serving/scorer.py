"""The whole decision on one refund request, read top to bottom: values in, values out.

`score` turns what history holds of the request's keys into features; `judge` turns a feature row
into a decision with its reasons. A batch over a data folder has its rows already and only judges:
both go through the same function, as they go through the same engine before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np

from features.catalog import MODEL_FEATURES, PLAN
from features.engine import Past, Row, compute_one
from features.events import COLUMN_OF, RefundRequest
from features.feature import definitions_hash
from features.kernels import FloatArray, IntArray
from features.ledger import Fact
from features.money import Rates
from rules.condition import KnownFacts, known_facts
from rules.decision import Decision
from rules.engine import Circumstances, Score, decide
from rules.policy import Policy
from serving.explain import TreeExplainer
from serving.facts import BESIDE, FACTS, facts_beside
from serving.keyed import KeyedHash
from serving.language import ENGLISH, Language
from serving.model import AbuseModel, FeatureMismatch, ModelError
from serving.reasons import Ranking, Reason, as_json, risk_level


@dataclass(frozen=True)
class Champion:
    """A model with what explains it, ready to decide: loaded once, shared by all requests."""

    model: AbuseModel
    explainer: TreeExplainer
    version: str
    ranking: Ranking
    """Its reasons, in the language that the service speaks."""
    is_quick: bool = False
    """Whether the explainer was seen to say the model's log-odds, to the bit, and sooner."""

    def probability(self, vector: FloatArray) -> float:
        """The calibrated probability of abuse of one row (1, features), NaN where unknown."""
        model = self.model
        if not self.is_quick:
            return float(model.predict(vector)[0])
        return float(model.calibrator.probability(self.explainer.raw_scores(vector)[0]))

    @classmethod
    def of(
        cls, model: AbuseModel, version: str, base_currency: str | None = None,
        language: Language = ENGLISH,
    ) -> Champion:  # fmt: skip
        """Prepare a model for serving, and go the way of a decision with it once.

        Raises ModelError with all reasons against it: FeatureMismatch when the catalog is another;
        amounts in another currency than ``base_currency``; a probability that is none.
        """
        problems = []
        try:
            names = [feature.name for feature in MODEL_FEATURES]
            model.check_features(names, definitions_hash(MODEL_FEATURES))
        except FeatureMismatch as mismatch:
            problems.append(str(mismatch))
        kind: type[ModelError] = FeatureMismatch if problems else ModelError
        learnt_in = model.manifest.base_currency
        if base_currency not in (None, learnt_in):
            problems.append(f"base_currency: the model learnt amounts in {learnt_in}, expected "
                            f"{base_currency}")  # fmt: skip
        if problems:
            raise kind("; ".join(problems))
        (probability,) = model.predict(np.full((1, len(MODEL_FEATURES)), np.nan))
        if not 0 <= probability <= 1:
            raise ModelError(f"probability: expected a number in [0, 1], got {probability}")
        explainer = TreeExplainer.from_booster(model.booster)
        explainer.warm_up()
        ranking = Ranking(MODEL_FEATURES, model.reference, learnt_in, language)
        count = len(MODEL_FEATURES)
        ranking.reasons(np.zeros(count), np.ones(count))  # compiled before anybody waits for it
        return cls(model, explainer, version, ranking, _says_the_same(explainer, model))


def _says_the_same(explainer: TreeExplainer, model: AbuseModel) -> bool:
    """Whether both come to the same log-odds, bit for bit, on rows from all over the training."""
    if not explainer.exact_fast:
        return False
    rows = np.ascontiguousarray(model.reference.quantiles.T)
    rows = np.vstack([rows, np.zeros_like(rows[:1]), np.full_like(rows[:1], np.nan)])
    return explainer.raw_scores(rows).tobytes() == model.log_odds(rows).tobytes()


@dataclass(frozen=True)
class Verdict:
    """A decision and all it rests on. ``row`` is the whole feature row, NaN where unknown."""

    decision: Decision
    score: Score | None
    risk_level: str | None
    reasons: tuple[Reason, ...]
    row: Mapping[str, float]
    contributions: FloatArray | None
    """Log-odds per model feature, the expected value last."""
    beside: Mapping[str, Fact]
    """What the policy could read of the request beside its feature row."""
    problem: str | None = None
    """Why there is no score, where there is none."""
    model_version: str | None = None
    """The version that was asked for the score."""

    @property
    def facts(self) -> Mapping[str, Fact]:
        """All that the policy could read of the request."""
        return {**self.row, **self.beside}

    @cached_property
    def told_reasons(self) -> list[Mapping[str, str | float | None]]:
        """The reasons as response and record show them."""
        return [as_json(reason) for reason in self.reasons]


@dataclass(frozen=True)
class Shadow:
    """What a challenger would have led to: logged beside the decision, never acted on."""

    version: str
    score: Score | None = None
    decision: Decision | None = None
    problem: str | None = None
    """Why there is no score, where there is none."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, as a decision's record keeps them."""
        return {
            "version": self.version,
            "probability": self.score.probability if self.score else None,
            "expected_loss_minor": self.score.expected_loss_minor if self.score else None,
            "action": self.decision.action.value if self.decision else None,
            "source": self.decision.source.value if self.decision else None,
            "problem": self.problem,
        }


class Late(Exception):  # noqa: N818 - raised by a deadline, it is what happened
    """The deadline passed between two stages."""


Deadline = Callable[[str], None]
"""Called with the name of the stage to come; raises `Late` when there is no time for it."""


def no_deadline(stage: str) -> None:
    """There is always time."""


def score(
    request: RefundRequest,
    past: Past,
    champion: Champion | None,
    policy: Policy,
    rates: Rates,
    circumstances: Circumstances,
    deadline: Deadline = no_deadline,
    ledger: Mapping[str, Fact] | None = None,
) -> Verdict:
    """Decide one request from the slices of history its keys own.

    ``ledger`` is what its order's documents say, for a policy that asks (see `features.ledger`).
    """
    row = feature_row(request, past, rates)
    return judge(request, row, champion, policy, circumstances, deadline, ledger)


def feature_row(request: RefundRequest, past: Past, rates: Rates) -> Row:
    """Every feature of the catalog for one request, NaN where unknown."""
    return compute_one(PLAN, request, past, rates)


def judge(
    request: RefundRequest,
    row: Mapping[str, float],
    champion: Champion | None,
    policy: Policy,
    circumstances: Circumstances,
    deadline: Deadline = no_deadline,
    ledger: Mapping[str, Fact] | None = None,
) -> Verdict:
    """Decide one request from its feature row.

    Without a model, or when it fails or is late, the policy's fallback stands in and the decision
    is degraded; hard rules hold all the same.
    """
    reasons: tuple[Reason, ...] = ()
    scored: Score | None = None
    level = contributions = None
    problem = None if champion else "no model is loaded"
    if champion is not None:
        try:
            deadline("model")
            vector = _vector(row)
            scored = _scored(champion, vector, policy, row)
            deadline("explanation")
            contributions = champion.explainer.contributions(vector)[0]
        except Exception as error:  # any failure of the model is answered by the fallback
            scored, contributions, problem = None, None, f"the model {_what_happened(error)}"
        else:
            level = risk_level(scored.probability, champion.model.reference.score_quantiles)
            reasons = champion.ranking.reasons(vector[0], contributions)
    deadline("rules")  # a mark for who times the stages: rules are gone through however late it is
    beside = facts_beside(request, row, ledger)
    decision = decide(_known(row, beside, policy), scored, policy, circumstances)
    version = champion.version if champion else None
    return Verdict(decision, scored, level, reasons, row, contributions, beside, problem, version)


def shadow(
    verdict: Verdict,
    challenger: Champion,
    policy: Policy,
    circumstances: Circumstances,
    deadline: Deadline = no_deadline,
) -> Shadow:
    """Say what the policy would have done with a challenger's score; never raises.

    ``verdict`` is the decision that stands, on the same row and facts.

    The action is the one before exploration: the draw would hide in both where they differ.
    """
    try:
        deadline("the challenger")
        scored = _scored(challenger, _vector(verdict.row), policy, verdict.row)
        unexplored = replace(circumstances, exploration_draw=None)
        known = _known(verdict.row, verdict.beside, policy)
        decision = decide(known, scored, policy, unexplored)
    except Exception as error:  # whatever it is, the decision stands
        return Shadow(challenger.version, problem=f"the challenger {_what_happened(error)}")
    return Shadow(challenger.version, scored, decision)


def _known(row: Mapping[str, float], beside: Mapping[str, Fact], policy: Policy) -> KnownFacts:
    """The facts that a policy reads, where they are known."""
    names, places, kinds = _read_of(tuple(policy.given))
    numbers = row.numbers[places].tolist() if isinstance(row, Row) else [row[n] for n in names]
    known = KnownFacts(known_facts(beside, kinds))
    for name, value in zip(names, numbers, strict=True):
        if value == value:
            known[name] = value
    return known


@lru_cache(maxsize=16)
def _read_of(given: tuple[str, ...]) -> tuple[tuple[str, ...], IntArray, Mapping[str, str]]:
    """Which of the facts are read of a row, with their places; those beside it and their kinds.

    The payable amount is looked at whatever the rules read: exploration is bounded by it.
    """
    kinds = {name: FACTS[name] for name in given if name in BESIDE}
    names = tuple(dict.fromkeys([*(name for name in given if name not in kinds), "payable_minor"]))
    return names, np.array([PLAN.place_of[name] for name in names], np.int64), kinds


_NAMES: Final = tuple(feature.name for feature in MODEL_FEATURES)
_PLACES: Final = np.array([[PLAN.place_of[name] for name in _NAMES]])


def _vector(row: Mapping[str, float]) -> FloatArray:
    """The model's inputs (1, features)."""
    if isinstance(row, Row):
        vector: FloatArray = row.numbers[_PLACES]
        return vector
    return np.array([[row[name] for name in _NAMES]])


def _scored(champion: Champion, vector: FloatArray, policy: Policy, row: Mapping[str, float]
            ) -> Score:  # fmt: skip
    probability = champion.probability(vector)
    return Score(probability, _expected_loss(policy, probability, row["payable_minor"]))


def _what_happened(error: Exception) -> str:
    what = "was late" if isinstance(error, Late) else f"failed: {type(error).__name__}"
    return f"{what}: {error}"


def _expected_loss(policy: Policy, probability: float, payable_minor: float) -> float | None:
    if math.isnan(payable_minor):
        return None
    return policy.costs.expected_loss_minor(probability, payable_minor)


def exploration_draw(secret: bytes, refund_id: str, policy_hash: str) -> float:
    """A number in [0, 1) that nobody can choose: the same refund under the same policy, the same.

    >>> 0 <= exploration_draw(b"key", "refund-1", "policy") < 1
    True
    """
    digest = _hash_under(secret).digest(f"{refund_id}|{policy_hash}".encode())
    return int.from_bytes(digest[:7], "big") / 2**56


_hash_under: Final = lru_cache(maxsize=4)(KeyedHash)


def keys_of(request: RefundRequest) -> dict[str, str]:
    """The keys that a request's past is read by, with its values of them."""
    found = {key: getattr(request, column) for key, column in COLUMN_OF.items()}
    return {key: value for key, value in found.items() if value is not None}
