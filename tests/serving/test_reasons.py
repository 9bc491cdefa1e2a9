"""Reasons: what raises the risk, strongest first, in sentences that are true of the value."""

from __future__ import annotations

import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.attribution import CODES
from features.catalog import BY_NAME, FEATURES, MODEL_FEATURES
from features.feature import Aggregate, Feature, Field
from serving.reasons import (
    MAX_REASONS,
    NOT_KNOWN,
    Ranking,
    as_json,
    formatted,
    risk_level,
    sentence,
)

CODES_OF_REASON = {feature.reason_code for feature in MODEL_FEATURES}
RANKING = Ranking(MODEL_FEATURES)
rows = st.lists(
    st.floats(-5, 5), min_size=len(MODEL_FEATURES), max_size=len(MODEL_FEATURES)
)  # fmt: skip


def reasons_of(contributions, most=MAX_REASONS, value=1.0):
    values = np.full(len(MODEL_FEATURES), value)
    return RANKING.reasons(values, np.array(contributions), "GBP", most)


def weight_of(code: str, contributions) -> float:
    return sum(
        contribution
        for feature, contribution in zip(MODEL_FEATURES, contributions, strict=True)
        if feature.reason_code == code
    )


def contributing(**by_name: float) -> list[float]:
    assert by_name.keys() <= BY_NAME.keys()
    return [by_name.get(feature.name, 0.0) for feature in MODEL_FEATURES]


# --- weights and order ---------------------------------------------------------------------------


@given(rows)
def test_a_reason_weighs_what_its_features_contribute_together(contributions):
    for reason in reasons_of(contributions, most=100):
        assert reason.contribution == pytest.approx(weight_of(reason.code, contributions))


@given(rows)
def test_only_what_raises_the_risk_is_a_reason_and_none_of_it_is_missing(contributions):
    found = [reason.code for reason in reasons_of(contributions, most=100)]
    assert set(found) == {c for c in CODES_OF_REASON if weight_of(c, contributions) > 0}
    assert len(set(found)) == len(found)


@given(rows, st.integers(0, 8))
def test_the_strongest_come_first_and_no_more_than_asked_for(contributions, most):
    found = reasons_of(contributions, most)
    weights = [reason.contribution for reason in found]
    assert weights == sorted(weights, reverse=True)
    assert len(found) <= most
    assert list(found) == list(reasons_of(contributions, most=100))[:most]


def test_a_code_whose_features_cancel_out_is_no_reason():
    assert not reasons_of(contributing(
        refund_count_by_customer_30d=0.5, refund_count_by_customer_7d=-0.5))  # fmt: skip


def test_a_reason_is_told_by_the_feature_that_contributes_most():
    (reason,) = reasons_of(contributing(
        refund_count_by_customer_7d=0.2, refund_count_by_customer_30d=0.9,
        refund_count_by_customer_90d=-0.4))  # fmt: skip
    assert reason.code == "REFUND_VELOCITY_HIGH"
    assert reason.feature == "refund_count_by_customer_30d"
    assert reason.description == "1 earlier refund requests by this customer in 30 days"
    assert reason.contribution == pytest.approx(0.7)


def test_equal_weights_keep_the_order_of_the_catalog():
    found = reasons_of(contributing(payable_minor=0.5, refund_count_by_customer_30d=0.5))
    assert [reason.code for reason in found] == ["REFUND_VELOCITY_HIGH", "AMOUNT_HIGH"]


# --- sentences -----------------------------------------------------------------------------------


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
@pytest.mark.parametrize("value", [0.0, 1.0, 3.7, 1e9, math.nan])
def test_every_feature_says_a_whole_sentence_for_every_value(feature: Feature, value: float):
    said = sentence(feature, value, "GBP")
    assert said.strip() == said != ""
    assert "{" not in said
    assert "nan" not in said.split()
    assert said.startswith("not known: ") == math.isnan(value)


@pytest.mark.parametrize(
    "feature", [f for f in FEATURES if f.unit not in ("code", "flag")], ids=lambda f: f.name
)
def test_a_number_stands_in_its_sentence(feature: Feature):
    assert formatted(4.0, feature.unit, "GBP") in sentence(feature, 4.0, "GBP")


coded = pytest.mark.parametrize(
    "feature", [f for f in FEATURES if f.unit == "code"], ids=lambda f: f.name
)


def words_of(feature: Feature) -> tuple[str, ...]:
    assert isinstance(feature.expression, Field | Aggregate)
    return CODES[feature.expression.column]


@coded
def test_a_code_is_told_by_its_word(feature: Feature):
    words = words_of(feature)
    assert sentence(feature, 0.0, "GBP").endswith(f": {words[0]}")
    last = len(words) - 1
    assert sentence(feature, float(last), "GBP").endswith(f": {words[last]}")
    assert sentence(feature, float(len(words)), "GBP").endswith(": a value outside the list")


def test_a_flag_that_is_not_set_is_not_said_to_be():
    mismatch = BY_NAME["country_mismatch"]
    assert sentence(mismatch, 1.0, "GBP") == "billing and shipping country differ"
    assert sentence(mismatch, 0.0, "GBP") == "not so: billing and shipping country differ"


@pytest.mark.parametrize(
    ("value", "unit", "currency", "said"),
    [
        (129_900.0, "minor", "JPY", "129,900 JPY"),
        (129_900.0, "minor", "KWD", "129.900 KWD"),
        (0.0, "minor", "GBP", "0.00 GBP"),
        (1.0, "share", "GBP", "100 %"),
        (2.0, "days", "GBP", "2 days"),
        (1.0, "days", "GBP", "24 hours"),
        (0.0, "days", "GBP", "0 minutes"),
        (-3.0, "days", "GBP", "-3 days"),
        (0.333, "ratio", "GBP", "0.33"),
        (1234.5, "ratio", "GBP", "1,234"),
        (12_345.0, "count", "GBP", "12,345"),
        (0.0, "bits", "GBP", "0.0 bits"),
        (1.5849625, "bits", "GBP", "1.6 bits"),
    ],
)
def test_numbers_are_said_as_a_person_reads_them(value, unit, currency, said):
    assert formatted(value, unit, currency) == said


# --- levels and JSON -----------------------------------------------------------------------------


def test_the_level_is_where_the_score_stands_among_those_of_training():
    skewed = np.linspace(0, 1, 101) ** 4  # most scores are small
    levels = [risk_level(place**4, skewed) for place in (0.2, 0.6, 0.9, 0.97, 1.0)]
    assert levels == ["lowest", "low", "elevated", "high", "highest"]


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_is_never_of_a_lower_level(one, other):
    order = ["lowest", "low", "elevated", "high", "highest"]
    quantiles = np.linspace(0, 0.7, 101)
    ranks = [order.index(risk_level(score, quantiles)) for score in sorted((one, other))]
    assert ranks == sorted(ranks)


@coded
def test_the_value_of_a_coded_reason_is_its_word_in_json(feature: Feature):
    words = words_of(feature)
    for code, word in enumerate((*words, "a value outside the list")):
        (reason,) = Ranking([feature]).reasons(np.array([float(code)]), np.array([0.5]), "GBP")
        found = orjson.loads(orjson.dumps(as_json(reason)))
        assert found["value"] == word
        assert found["description"] == f"{feature.sentence}: {word}"


def test_the_value_of_a_number_is_the_number_in_json():
    (reason,) = reasons_of(contributing(payable_minor=0.5), value=129_900.0)
    assert as_json(reason)["value"] == 129_900.0


def test_an_unknown_value_is_null_in_json():
    (reason,) = reasons_of(contributing(payable_minor=0.123456), value=math.nan)
    found = orjson.loads(orjson.dumps(as_json(reason)))
    assert found == {
        "code": "NOT_KNOWN",
        "description": "not known: the refund is worth …",
        "feature": "payable_minor",
        "value": None,
        "contribution": 0.1235,
    }


def test_an_unknown_value_never_bears_the_code_of_what_it_might_have_said() -> None:
    chargebacks = BY_NAME["chargeback_count_by_payment_method_365d"]
    refunds = BY_NAME["refund_count_by_customer_30d"]
    features, nan = (chargebacks, refunds), float("nan")
    values, contributions = np.array([nan, 2.0]), np.array([0.5, 0.25])
    unknown, known = Ranking(features).reasons(values, contributions, "GBP")
    assert (unknown.code, unknown.contribution) == (NOT_KNOWN, 0.5)
    assert unknown.description.startswith("not known: ")
    assert known.code == "REFUND_VELOCITY_HIGH"
