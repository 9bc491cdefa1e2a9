"""The explanation of one decision, put together: from its record, its store and its model.

It is computed when somebody asks, off the way of decisions. What the decision rested on stands in
its record and is told from there; what is computed anew is what would have changed it, and what
the customer's earlier requests looked like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

import numpy as np

from features.catalog import MODEL_FEATURES
from features.money import Rates
from rules.policy import Policy, PolicyError
from serving.explanation.annals import audit_of, notes_of, rules_told, warnings_of
from serving.explanation.links import links_of
from serving.explanation.own_past import own_past
from serving.explanation.parts import Explanation, ReasonTold, Versions, WhatIf
from serving.explanation.scene import NoSceneError, scene_of
from serving.explanation.timeline import timeline_of
from serving.explanation.told import told
from serving.explanation.verdict import verdict_of
from serving.explanation.what_if import what_if
from serving.home import Home
from serving.language import ENGLISH, Language
from serving.model import AbuseModel, ModelError
from serving.policies import AlteredPolicyError, loaded
from serving.scorer import Champion
from serving.store.decisions import Decision
from serving.store.store import Store
from serving.wire import shown

MOST_KEPT: Final = 3
"""How many policies, and models other than the served one, are kept at hand."""

CURVE_POINTS: Final = 201
"""So many points tell the model's curve."""

_EXPECTED: Final = "expected"
"""Among the contributions of a record: where they begin."""


class Explainer:
    """Explains decisions with the models and policies that made them, where these are there still.

    ``served`` gives the present champion; other versions are looked for in ``home``.
    """

    def __init__(
        self, served: Callable[[], Champion | None], *, home: Home | None = None,
        language: Language = ENGLISH,
    ) -> None:  # fmt: skip
        self.language = language
        self._served, self._home = served, home
        self._kept_model = lru_cache(MOST_KEPT)(self._load)
        self._kept_policy = lru_cache(MOST_KEPT)(_policy_of)

    def explain(self, store: Store, score_id: str, rates: Rates) -> Explanation | None:
        """Everything that is told of a decision; None where there is no such decision."""
        decision = store.decision(score_id)
        return None if decision is None else self._explained(store, decision, rates)

    def _explained(self, store: Store, decision: Decision, rates: Rates) -> Explanation:
        record, language = decision.record, self.language
        policy = self._kept_policy(store, record["decision"]["policy_hash"])
        champion = self._model_of(record["model_version"])
        contributions = record["contributions"]
        raising, lowering = self._reasons(store, decision, rates, champion)
        asked = {event.event_id: event for event in store.refund_events(decision.refund_id)}
        base = None if contributions is None else contributions[_EXPECTED]
        base_rate = None
        if champion is not None and base is not None:
            base_rate = float(champion.model.calibrator.probability(np.array([base]))[0])
        return Explanation(
            language=language.tag,
            verdict=verdict_of(
                decision, asked.get(record["event_id"]), policy, base_rate, language
            ),
            raising=raising,
            lowering=lowering,
            base_log_odds=base,
            log_odds=None if contributions is None else float(sum(contributions.values())),
            what_if=self._what_if(store, decision, rates, champion),
            timeline=timeline_of(store, decision, language),
            links=links_of(store, decision, language),
            rules=rules_told(decision, policy, language),
            warnings=warnings_of(decision),
            notes=notes_of(store, decision.refund_id, language),
            audit=audit_of(store, decision.refund_id),
            versions=Versions(
                model=record["model_version"],
                policy=record["decision"]["policy_version"],
                policy_hash=record["decision"]["policy_hash"],
                catalog_hash=record["catalog_hash"],
                base_currency=record["base_currency"],
            ),
            calibration=_calibration(champion, contributions),
        )

    def _reasons(
        self, store: Store, decision: Decision, rates: Rates, champion: Champion | None
    ) -> tuple[tuple[ReasonTold, ...], tuple[ReasonTold, ...]]:
        """What raised the risk and what lowered it, as the model that decided saw it."""
        record = decision.record
        contributions, row = record["contributions"], record["features"]
        if contributions is None:
            return (), ()
        names = [feature.name for feature in MODEL_FEATURES]
        if contributions.keys() - {*names, _EXPECTED}:  # another catalog's: its words are gone
            return (), ()
        return told(
            MODEL_FEATURES,
            np.array([row[name] for name in names], np.float64),
            np.array([contributions[name] for name in names], np.float64),
            own_past(store, decision, rates),
            champion.model.reference if champion else None,
            record["base_currency"],
            self.language,
        )

    def _what_if(
        self, store: Store, decision: Decision, rates: Rates, champion: Champion | None
    ) -> WhatIf:
        """What would change the verdict, asked of the model that decided, if it is there still."""
        try:
            return what_if(scene_of(store, decision, champion, rates), self.language)
        except NoSceneError as error:
            return WhatIf(problem=error.told(self.language))

    def _model_of(self, version: str | None) -> Champion | None:
        """The model of a version, None where it is there no more."""
        served = self._served()
        if served is not None and served.version == version:
            return served
        return None if version is None else self._kept_model(version)

    def _load(self, version: str) -> Champion | None:
        if self._home is None:
            return None
        try:
            model = AbuseModel.load(self._home.model(version))
            return Champion.of(model, version, language=self.language)
        except (ModelError, OSError):
            return None


def not_known(store: Store, score_id: str) -> str:
    """That there is no decision of this id; of a refund's id, which decision is its last."""
    told = f"no decision {shown(score_id)!r} is known"
    decisions = store.decisions_of(score_id) if "\0" not in score_id else []
    if not decisions:
        return told
    return f"{told}, but a refund; the last decision on it is {decisions[0].score_id!r}"


def _calibration(
    champion: Champion | None, contributions: Mapping[str, float] | None
) -> tuple[tuple[float, float], ...]:
    """The model's curve from log-odds to probability, as far as any way to the score may lead."""
    if champion is None or contributions is None:
        return ()
    base = contributions[_EXPECTED]
    weights = [weight for name, weight in contributions.items() if name != _EXPECTED]
    low = base + sum(weight for weight in weights if weight < 0)
    high = base + sum(weight for weight in weights if weight > 0)
    scores = np.linspace(low - 1, high + 1, CURVE_POINTS)
    probabilities = champion.model.calibrator.probability(scores)
    return tuple(zip(scores.tolist(), probabilities.tolist(), strict=True))


def _policy_of(store: Store, digest: str) -> Policy | None:
    """The policy of a hash; None where it is not kept, or is one that this program cannot read."""
    kept = store.policy_by_hash(digest)
    try:
        return None if kept is None else loaded(kept)
    except (PolicyError, AlteredPolicyError):
        return None
