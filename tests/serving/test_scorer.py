"""The scorer: features to probability to reasons to decision, and what stands in when one fails."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.catalog import FEATURES, MODEL_FEATURES
from features.engine import Past
from features.events import RefundRequest
from features.money import Rates
from rules.decision import Action, Source
from rules.engine import Circumstances, ListHit, ListMatch, decide
from serving.explain import TreeExplainer
from serving.model import FeatureMismatch
from serving.reasons import as_json
from serving.scorer import (
    Champion,
    Late,
    exploration_draw,
    feature_row,
    judge,
    keys_of,
    score,
)
from tests.serving.champions import fixed, trained_model

NOTHING = Circumstances()
REQUEST = RefundRequest(refund_id="r-1", customer_id="c-1", known_at=1_780_000_000_000,
                        amount_minor=5000, currency="GBP", order_id="o-1", final_sale=False,
                        reason="ITEM_NOT_RECEIVED", type="REFUND", policy="STATUTORY")  # fmt: skip
NO_PAST = Past({}, keys_of(REQUEST), {})


@pytest.fixture
def row() -> dict[str, float]:
    return feature_row(REQUEST, NO_PAST, Rates("GBP"))


# --- the way of a decision -----------------------------------------------------------------------


def test_a_score_is_a_judgement_of_the_feature_row(champion, policy, row):
    whole = score(REQUEST, NO_PAST, champion, policy, Rates("GBP"), NOTHING)
    judged = judge(REQUEST, row, champion, policy, NOTHING)
    np.testing.assert_equal(dict(whole.row), dict(row))
    np.testing.assert_array_equal(whole.contributions, judged.contributions)
    assert (whole.decision, whole.score) == (judged.decision, judged.score)
    assert [*map(as_json, whole.reasons)] == [*map(as_json, judged.reasons)]


def test_a_row_has_every_feature_and_knows_what_it_does_not_know(row):
    assert list(row) == [feature.name for feature in FEATURES]
    assert row["payable_minor"] == 5000
    assert row["refund_count_by_customer_30d"] == 0
    assert math.isnan(row["refund_count_by_device_7d"])


def test_a_row_is_also_an_array_and_either_is_scored_alike(champion, policy, row):
    assert row.numbers.tobytes() == np.array([*row.values()]).tobytes()
    quick = judge(REQUEST, row, champion, policy, NOTHING)
    plain = judge(REQUEST, dict(row), champion, policy, NOTHING)
    assert (quick.decision, quick.score) == (plain.decision, plain.score)
    assert quick.contributions.tobytes() == plain.contributions.tobytes()


def test_a_quick_score_is_the_models_to_the_bit(champion):
    assert champion.is_quick
    quantiles = champion.model.reference.quantiles.T
    random = np.random.default_rng(5)
    rows = random.permuted(np.vstack([quantiles, np.full_like(quantiles[:20], np.nan)]), axis=0)
    slow = replace(champion, is_quick=False)
    for row in rows:
        assert champion.probability(row[np.newaxis]) == slow.probability(row[np.newaxis])


def test_an_explainer_that_says_otherwise_scores_nothing(champion, monkeypatch):
    honest = TreeExplainer.raw_scores
    monkeypatch.setattr(
        TreeExplainer, "raw_scores", lambda self, rows: np.nextafter(honest(self, rows), 9)
    )
    checked = Champion.of(champion.model, "8")
    assert not checked.is_quick
    row = np.full((1, len(MODEL_FEATURES)), 2.0)
    assert checked.probability(row) == champion.model.predict(row)[0]


def test_the_verdict_rests_on_the_model(champion, policy, row):
    verdict = judge(REQUEST, row, champion, policy, NOTHING)
    vector = np.array([[row[feature.name] for feature in MODEL_FEATURES]])
    assert verdict.score.probability == champion.model.predict(vector)[0]
    assert verdict.contributions.sum() == pytest.approx(champion.model.log_odds(vector)[0])
    assert verdict.score.expected_loss_minor == policy.costs.expected_loss_minor(
        verdict.score.probability, 5000
    )
    assert verdict.problem is None
    assert not verdict.decision.degraded


@pytest.mark.parametrize("known", [{}, {"refund_count_by_order_365d": 2.0, "payable_minor": 1.0}])
def test_a_decision_on_what_the_policy_reads_is_that_on_all_facts(champion, policy, row, known):
    ledger = {"final_sale": True}
    for features in (row, dict(row), {**row, **known}):
        verdict = judge(REQUEST, features, champion, policy, NOTHING, ledger=ledger)
        assert verdict.decision == decide(verdict.facts, verdict.score, policy, NOTHING)


def test_more_refunds_before_make_a_higher_risk_and_the_first_reason(champion, policy, row):
    calm = judge(REQUEST, row, champion, policy, NOTHING)
    busy = judge(REQUEST, {**row, "refund_count_by_customer_30d": 12.0}, champion, policy,
                 NOTHING)  # fmt: skip
    assert busy.score.probability > calm.score.probability
    assert busy.reasons[0].feature == "refund_count_by_customer_30d"


@pytest.mark.parametrize(
    ("probability", "action"),
    [(0.01, Action.ALLOW), (0.6, Action.MANUAL_REVIEW), (0.99, Action.PREVENT)],
)
def test_the_bands_answer_what_no_rule_does(policy, row, probability, action):
    decision = judge(REQUEST, row, fixed(probability), policy, NOTHING).decision
    assert (decision.action, decision.source) == (action, Source.MODEL)


def test_an_amount_that_cannot_be_converted_is_not_a_small_one(policy):
    request = REQUEST.model_copy(update={"currency": "JPY"})
    foreign = feature_row(request, NO_PAST, Rates("GBP"))
    verdict = judge(request, foreign, fixed(0.9), policy, NOTHING)
    assert verdict.score.expected_loss_minor is None
    assert verdict.decision.action is Action.MANUAL_REVIEW


def test_circumstances_bear_on_the_decision(policy, row):
    def action(**circumstances: object) -> Action:
        given = Circumstances(**circumstances)
        return judge(REQUEST, row, fixed(0.6), policy, given).decision.action

    assert action() is Action.MANUAL_REVIEW
    assert action(lists=ListMatch(block=(ListHit("customer", "b"),))) is Action.PREVENT
    assert action(lists=ListMatch(allow=(ListHit("customer", "a"),))) is Action.ALLOW
    assert action(disposition=Action.ALLOW) is Action.ALLOW
    assert action(sandbox=Action.REVIEW) is Action.REVIEW


# --- without a model -----------------------------------------------------------------------------


def test_the_deadline_is_asked_before_each_stage(champion, policy, row):
    asked: list[str] = []
    judge(REQUEST, row, champion, policy, NOTHING, asked.append)
    assert asked == ["model", "explanation", "rules"]


@pytest.mark.parametrize("stage", ["model", "explanation"])
def test_late_at_any_stage_is_the_fallback_and_half_a_score_is_none(champion, policy, row, stage):
    def late(at: str) -> None:
        if at == stage:
            raise Late(f"before {at}")

    verdict = judge(REQUEST, row, champion, policy, NOTHING, late)
    assert (verdict.decision.action, verdict.decision.source) == (
        policy.fallback, Source.FALLBACK,
    )  # fmt: skip
    assert verdict.decision.degraded
    assert verdict.score is verdict.contributions is verdict.risk_level is None
    assert verdict.reasons == ()
    assert verdict.problem == f"the model was late: before {stage}"


@pytest.mark.parametrize(
    "broken", [None, fixed(fails=ValueError("boom")), fixed(float("nan")), fixed(1.5)],
    ids=["none", "raises", "nan", "above one"],
)  # fmt: skip
def test_a_model_that_fails_is_the_fallback_and_says_why(policy, row, broken):
    verdict = judge(REQUEST, row, broken, policy, NOTHING)
    assert verdict.decision.source is Source.FALLBACK
    assert verdict.decision.degraded
    assert verdict.problem


def test_a_model_that_fails_lifts_no_block(policy, row):
    blocked = Circumstances(lists=ListMatch(block=(ListHit("customer", "b"),)))
    assert judge(REQUEST, row, None, policy, blocked).decision.action is Action.PREVENT


def test_a_fault_in_the_explanation_costs_the_score_too(champion, policy, row):
    class Faulty:
        def contributions(self, _: object) -> None:
            raise ZeroDivisionError

    verdict = judge(REQUEST, row, replace(champion, explainer=Faulty()), policy, NOTHING)
    assert verdict.score is None
    assert verdict.decision.degraded


def test_a_model_of_other_features_is_refused():
    model = trained_model()
    other = replace(model.manifest, features_hash="of another catalog")
    with pytest.raises(FeatureMismatch, match="other definitions"):
        Champion.of(replace(model, manifest=other), "8")


# --- the exploration draw, and keys --------------------------------------------------------------


@given(st.text(), st.text())
def test_a_draw_is_a_share_and_the_same_for_the_same(refund_id, policy_hash):
    draw = exploration_draw(b"secret", refund_id, policy_hash)
    assert 0 <= draw < 1
    assert draw == exploration_draw(b"secret", refund_id, policy_hash)
    assert draw != exploration_draw(b"other", refund_id, policy_hash)
    assert draw != exploration_draw(b"secret", refund_id, policy_hash + "2")


def test_draws_fall_evenly():
    draws = np.array([exploration_draw(b"secret", f"r-{i}", "p") for i in range(4000)])
    counts, _ = np.histogram(draws, 10, (0, 1))
    assert np.abs(counts - 400).max() < 100  # five standard deviations


def test_keys_are_those_that_the_request_has():
    assert keys_of(REQUEST) == {"customer": "c-1", "order": "o-1", "refund": "r-1"}
    assert keys_of(REQUEST.model_copy(update={"device_id": "d"}))["device"] == "d"
