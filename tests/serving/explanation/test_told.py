"""All reasons of an explanation: grouped and told as the answer does, with the customer's past."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.catalog import BY_NAME, MODEL_FEATURES
from serving.explanation.told import LEAST_SHARE, own_past_of, told
from serving.language import ENGLISH
from serving.model import Reference
from serving.reasons import Ranking

NUMBER = len(MODEL_FEATURES)
NO_PAST = np.empty((0, NUMBER))
_RANDOM = np.random.default_rng(3)
SEEN = Reference.of(_RANDOM.exponential(3, (2_000, NUMBER)), np.linspace(0, 1, 2_000))
RANKING = Ranking(MODEL_FEATURES, SEEN, "GBP")

seeds = st.integers(0, 10_000)


def row_of(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Values, a fifth of them missing, and contributions, some of them nothing."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 9, NUMBER).astype(float)
    values[random.random(NUMBER) < 0.2] = np.nan
    return values, random.normal(size=NUMBER) * (random.random(NUMBER) < 0.8)


def told_of(values, contributions, past=NO_PAST, reference=SEEN):
    return told(MODEL_FEATURES, values, contributions, past, reference, "GBP", ENGLISH)


@given(seeds)
def test_a_code_has_the_weight_and_the_sentence_that_the_answer_gives_it(seed: int) -> None:
    values, contributions = row_of(seed)
    raising, _ = told_of(values, contributions)
    answered = RANKING.reasons(values, contributions, 99)
    assert [reason.code for reason in raising][: len(answered)] == [r.code for r in answered]
    for reason, in_answer in zip(raising, answered, strict=False):
        fact = reason.facts[0]
        assert reason.contribution == in_answer.contribution
        assert (fact.feature, fact.value) == (in_answer.feature, in_answer.value)
        said = fact.sentence if fact.standing is None else f"{fact.sentence}; {fact.standing}"
        assert said == in_answer.description


@given(seeds)
def test_all_that_contributes_is_told_on_one_side_or_the_other(seed: int) -> None:
    values, contributions = row_of(seed)
    raising, lowering = told_of(values, contributions)
    assert all(reason.contribution > 0 for reason in raising)
    assert all(reason.contribution < 0 for reason in lowering)
    every = [*raising, *lowering]
    assert sum(r.contribution for r in every) == pytest.approx(contributions.sum())
    assert len({r.code for r in every}) == len(every)
    for side in (raising, lowering):
        weights = [abs(reason.contribution) for reason in side]
        assert weights == sorted(weights, reverse=True)
    for reason in every:
        strong = [abs(fact.contribution) for fact in reason.facts[1:]]
        assert all(one >= LEAST_SHARE * abs(reason.contribution) for one in strong)
        leading = [f.contribution * math.copysign(1, reason.contribution) for f in reason.facts]
        assert leading == sorted(leading, reverse=True)


@given(seeds)
def test_shares_are_of_the_way_from_base_rate_to_score(seed: int) -> None:
    values, contributions = row_of(seed)
    every = [reason for side in told_of(values, contributions) for reason in side]
    if abs(contributions.sum()) < 0.05:
        assert all(reason.share is None for reason in every)
    else:
        assert sum(reason.share or 0 for reason in every) == pytest.approx(1)


def test_a_score_at_the_base_rate_has_no_shares() -> None:
    contributions = np.zeros(NUMBER)
    contributions[:2] = 0.3, 0.01
    contributions[-1] = -0.3
    (raising,), (lowering,) = told_of(np.ones(NUMBER), contributions)
    assert (raising.share, lowering.share) == (None, None)
    assert (raising.name, lowering.name) == ("Number of refund requests", "Found honest before")
    assert [fact.feature for fact in raising.facts] == [f.name for f in MODEL_FEATURES[:2]]


def test_without_a_model_nothing_is_said_of_others() -> None:
    values, contributions = row_of(1)
    every = [reason for side in told_of(values, contributions, reference=None) for reason in side]
    assert {fact.standing for reason in every for fact in reason.facts} == {None}


@pytest.mark.parametrize(
    ("name", "value", "before", "said"),
    [
        ("refund_count_by_customer_30d", 2, [], None),
        ("refund_count_by_customer_30d", math.nan, [1], None),
        ("days_since_last_refund_by_customer_365d", 2, [math.nan], None),
        ("refund_count_by_customer_30d", 1, [0, 1, 2, math.nan],
         "0 to 2 at this customer's last 3 requests"),
        ("refund_count_by_customer_30d", 3, [3, 3, 3],
         "the same at this customer's last 3 requests"),
        ("refund_count_by_customer_30d", 3, [3], "the same at this customer's last request"),
        ("refund_count_by_customer_30d", 5, [0, 2, 1, 0],
         "more than at any of this customer's last 4 requests: at most 2"),
        ("refund_count_by_customer_30d", 5, [2], "more than at this customer's last request: 2"),
        ("refund_count_by_customer_30d", 1, [2, 4],
         "fewer than at any of this customer's last 2 requests: at least 2"),
        ("delivered_age_days", 40, [3, 9],
         "longer than at any of this customer's last 2 requests: at most 9 days"),
        ("delivered_age_days", 2, [3, 9],
         "shorter than at any of this customer's last 2 requests: at least 3 days"),
        ("payable_minor", 500, [700, 900],
         "less than at any of this customer's last 2 requests: at least 7.00 GBP"),
        ("country_mismatch", 1, [0, 0], "not so at any of this customer's last 2 requests"),
        ("country_mismatch", 1, [1, 0], "the same at 1 of this customer's last 2 requests"),
        ("reason", 3, [3, 3], "the same at this customer's last 2 requests"),
        ("reason", 3, [1], "not so at this customer's last request"),
    ],
)  # fmt: skip
def test_a_value_is_told_beside_those_of_the_customers_own_past(name, value, before, said):
    past = np.array(before, np.float64)
    assert own_past_of(BY_NAME[name], float(value), past, "GBP", ENGLISH) == said


def test_each_fact_has_its_own_past() -> None:
    contributions = np.zeros(NUMBER)
    contributions[[0, 5]] = 1.0
    past = np.tile(np.arange(NUMBER, dtype=float), (2, 1))
    raising, _ = told_of(np.full(NUMBER, 1000.0), contributions, past)
    assert [reason.facts[0].own_past for reason in raising] == [
        "more than at any of this customer's last 2 requests: at most 0",
        "more than at any of this customer's last 2 requests: at most 5",
    ]
