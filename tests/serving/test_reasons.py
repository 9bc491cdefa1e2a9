"""Reasons: what raises the risk, strongest first, in sentences that are true of the value."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rules
from features.absence import never_of_nothing
from features.attribution import CODES
from features.catalog import BY_NAME, FEATURES, MODEL_FEATURES
from features.events import VOCABULARY
from features.feature import Aggregate, Feature, Field
from rules.policy import load_policy
from serving.codes import NAMES, NO_HISTORY, NOT_KNOWN, name_of_code
from serving.facts import FACTS
from serving.language import ENGLISH
from serving.model import RESOLUTION, Reference
from serving.reasons import LEAST_SHARE, MAX_REASONS, Ranking, as_json, risk_level, sentence
from serving.vocabulary import word_of

CODES_OF_REASON = {feature.reason_code for feature in MODEL_FEATURES}
RANKING = Ranking(MODEL_FEATURES)
row_contributions = st.lists(
    st.floats(-5, 5), min_size=len(MODEL_FEATURES), max_size=len(MODEL_FEATURES)
)  # fmt: skip


def reasons_of(contributions, most=MAX_REASONS, value=1.0):
    values = np.full(len(MODEL_FEATURES), value)
    return RANKING.reasons(values, np.array(contributions), most)


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


@given(row_contributions)
def test_a_reason_weighs_what_its_features_contribute_together(contributions):
    for reason in reasons_of(contributions, most=100):
        assert reason.contribution == pytest.approx(weight_of(reason.code, contributions))


@given(row_contributions)
def test_only_what_raises_the_risk_is_a_reason_and_what_is_missing_weighs_next_to_nothing(
    contributions,
):
    found = [reason.code for reason in reasons_of(contributions, most=100)]
    raising = {c: w for c in CODES_OF_REASON if (w := weight_of(c, contributions)) > 0}
    assert set(found) <= raising.keys()
    assert len(set(found)) == len(found)
    least = LEAST_SHARE * sum(raising.values())
    assert all(raising[code] <= least * (1 + 1e-9) for code in raising.keys() - set(found))
    assert all(raising[code] >= least * (1 - 1e-9) for code in found[1:])


def test_the_strongest_is_a_reason_however_little_it_weighs():
    (reason,) = reasons_of(contributing(payable_minor=1e-12))
    assert reason.code == "AMOUNT_HIGH"
    assert len(reasons_of(contributing(payable_minor=1.0, ip_risk=0.021))) == 2
    assert len(reasons_of(contributing(payable_minor=1.0, ip_risk=0.019))) == 1


@given(row_contributions, st.integers(0, 8))
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
    assert reason.description == "1 earlier refund request by this customer in 30 days"
    assert reason.contribution == pytest.approx(0.7)


def test_equal_weights_keep_the_order_of_the_catalog():
    found = reasons_of(contributing(payable_minor=0.5, refund_count_by_customer_30d=0.5))
    assert [reason.code for reason in found] == ["REFUND_VELOCITY_HIGH", "AMOUNT_HIGH"]


# --- sentences -----------------------------------------------------------------------------------


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
@pytest.mark.parametrize("value", [-2.0, 0.0, 1.0, 3.7, 1e9, math.nan])
def test_every_feature_says_a_whole_sentence_for_every_value(feature: Feature, value: float):
    said = sentence(feature, max(value, 0.0) if feature.unit == "code" else value, "GBP")
    assert said.strip() == said != ""
    assert "{" not in said
    assert "|" not in said
    assert "nan" not in said.split()


@pytest.mark.parametrize(
    "feature", [f for f in FEATURES if f.unit not in ("code", "flag")], ids=lambda f: f.name
)
def test_a_number_stands_in_its_sentence(feature: Feature):
    assert ENGLISH.value(4.0, feature.unit, "GBP") in sentence(feature, 4.0, "GBP")


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_what_is_no_number_is_told_without_one(feature: Feature):
    assert "{" not in feature.sentence.none
    assert not set("0123456789…") & set(feature.sentence.none.partition(" in ")[0])
    if never_of_nothing(feature.expression):
        assert feature.sentence.none.endswith(" is not known")


coded = pytest.mark.parametrize(
    "feature", [f for f in FEATURES if f.unit == "code"], ids=lambda f: f.name
)


def words_of(feature: Feature) -> tuple[str, ...]:
    assert isinstance(feature.expression, Field | Aggregate)
    return CODES[feature.expression.column]


@coded
def test_a_code_is_told_by_its_word(feature: Feature):
    words = words_of(feature)
    for value, code in enumerate(words):
        word = word_of(feature.name, code, ENGLISH)
        if feature.name in VOCABULARY:
            assert word is not None, code
        assert sentence(feature, float(value), "GBP").endswith(f": {word or code}")
    assert sentence(feature, float(len(words)), "GBP").endswith(": a value outside the list")


def test_a_flag_that_is_not_set_is_not_said_to_be():
    mismatch = BY_NAME["country_mismatch"]
    assert sentence(mismatch, 1.0, "GBP") == "billing and shipping country differ"
    assert sentence(mismatch, 0.0, "GBP") == "billing and shipping country are the same"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("chargeback_count_by_customer_365d", 1, "1 chargeback on this customer in a year"),
        ("chargeback_count_by_customer_365d", 0, "0 chargebacks on this customer in a year"),
        ("order_customer_distinct_by_device_365d", 1,
         "1 customer ordered on this device in a year"),
        ("return_label_unused_count_by_customer_365d", 1,
         "1 return of this customer in a year has a label but was never shipped"),
        ("refund_without_return_count_by_customer_365d", -2,
         "refunds of this customer paid in a year, less the returns received: -2"),
        ("registered_to_ordered_days", -3, "the account was registered 3 days after its order"),
        ("ordered_to_delivered_days", -0.5, "the delivery is dated 12 hours before the order"),
        ("ordered_to_delivered_days", 4.2, "delivery took 4 days"),
        ("days_since_last_refund_by_device_365d", math.nan,
         "no earlier refund request from this device in a year"),
        ("country_mismatch", math.nan, "whether billing and shipping country differ is not known"),
    ],
)  # fmt: skip
def test_sentences_read_well(name: str, value: float, said: str):
    assert sentence(BY_NAME[name], value, "GBP") == said


# --- what there is no value of -------------------------------------------------------------------


def unknown_reasons(values: dict[str, float], **contributions: float):
    """The reasons for a row where everything but ``values`` is 1."""
    row = np.array([values.get(feature.name, 1.0) for feature in MODEL_FEATURES])
    return RANKING.reasons(row, np.array(contributing(**contributions)))


def test_nothing_earlier_is_a_fact_where_the_holder_is_known():
    since = "days_since_last_refund_by_device_365d"
    (reason,) = unknown_reasons({since: math.nan}, **{since: 0.5})
    assert (reason.code, reason.value) == (NO_HISTORY, None)
    assert reason.description == "no earlier refund request from this device in a year"


def test_a_holder_that_nobody_named_is_not_known_whatever_would_be_said_of_it():
    by_device = {f.name: math.nan for f in MODEL_FEATURES if "_by_device_" in f.name}
    for name in by_device:
        (reason,) = unknown_reasons(by_device, **{name: 0.5})
        assert (reason.code, reason.description) == (NOT_KNOWN, "the device is not known")


def test_what_cannot_be_compared_as_the_amount_is_not_known_says_so():
    name = "payable_minor_over_order_amount_mean_by_customer_365d"
    (reason,) = unknown_reasons({name: math.nan, "payable_minor": math.nan}, **{name: 0.5})
    assert (reason.code, reason.description) == (
        NOT_KNOWN, "what the refund is worth is not known"
    )  # fmt: skip
    (reason,) = unknown_reasons({name: math.nan}, **{name: 0.5})
    assert (reason.code, reason.description) == (
        NO_HISTORY, "no earlier order by this customer in a year to compare the amount with"
    )  # fmt: skip


def test_a_fact_of_the_request_that_is_missing_is_not_known():
    (reason,) = unknown_reasons({"ip_risk": math.nan}, ip_risk=0.5)
    assert (reason.code, reason.description) == (
        NOT_KNOWN, "the risk of the IP address is not known"
    )  # fmt: skip


def test_without_a_count_beside_it_nothing_is_known():
    since = BY_NAME["days_since_last_refund_by_device_365d"]
    (reason,) = Ranking([since]).reasons(np.array([math.nan]), np.array([1.0]))
    assert reason.code == NOT_KNOWN


# --- where a value stands ------------------------------------------------------------------------

COUNT = BY_NAME["refund_count_by_customer_30d"]
AMOUNT = BY_NAME["payable_minor"]
AGE = BY_NAME["registered_age_days"]


def ranked(feature: Feature, seen, *, unknown: int = 0) -> Ranking:
    """A ranking by what was seen of one feature."""
    column = np.array([*seen, *[math.nan] * unknown], np.float64)
    return Ranking([feature], Reference.of(column[:, None], np.linspace(0, 1, len(column))))


def described(feature: Feature, value: float, seen, *, unknown: int = 0) -> str:
    ranking = ranked(feature, seen, unknown=unknown)
    (reason,) = ranking.reasons(np.array([value]), np.array([1.0]))
    return reason.description.partition("; ")[2]


THOUSAND = np.arange(1000.0)


@pytest.mark.parametrize(
    ("feature", "value", "said"),
    [
        (COUNT, 997, "997 of 1,000 refund requests have fewer"),
        (COUNT, 500, ""),
        (COUNT, 799, ""),
        (COUNT, 800, "800 of 1,000 refund requests have fewer"),
        (COUNT, 3, "995 of 1,000 refund requests have more"),
        (COUNT, 1000, "more than at any refund request that the model learnt from"),
        (AMOUNT, 997, "less at 997 of 1,000 refund requests"),
        (AMOUNT, 3, "more at 995 of 1,000 refund requests"),
        (AMOUNT, -1, "less than at any refund request that the model learnt from"),
        (AGE, 997, "shorter at 997 of 1,000 refund requests"),
        (AGE, 3, "longer at 995 of 1,000 refund requests"),
        (AGE, -1, "shorter than at any refund request that the model learnt from"),
        (BY_NAME["country_mismatch"], 1, ""),
        (BY_NAME["reason"], 1, ""),
    ],
)
def test_a_reason_says_where_its_value_stands_where_that_is_telling(feature, value, said):
    assert described(feature, float(value), THOUSAND) == said


def test_of_a_fact_that_is_not_always_known_it_speaks_of_where_it_is():
    said = described(AGE, 997.0, THOUSAND, unknown=10)
    assert said == "shorter at 997 of 1,000 refund requests where it is known"


def test_a_model_of_a_hundred_parts_tells_in_hundreds():
    seen = Reference(np.arange(101.0)[None, :], np.zeros(1), np.linspace(0, 1, 101))
    ranking = Ranking([COUNT], seen)
    assert ranking.standing(0, 95.5) == "95 of 100 refund requests have fewer"


def test_of_what_was_never_seen_nothing_is_said():
    assert described(COUNT, 5.0, [], unknown=10) == ""
    assert Ranking([COUNT]).standing(0, 5.0) is None


@given(st.lists(st.integers(0, 12), min_size=1, max_size=400), st.integers(-1, 13))
def test_no_more_is_claimed_than_was_seen_and_at_most_a_thousandth_less(seen, value):
    said = ranked(COUNT, seen).standing(0, float(value))
    if said is None:
        return
    fewer = sum(one < value for one in seen) / len(seen)
    more = sum(one > value for one in seen) / len(seen)
    if said.endswith("that the model learnt from"):
        assert (fewer if said.startswith("more") else more) == 1
        return
    claimed = int(said.partition(" of ")[0].replace(",", "")) / RESOLUTION
    true = fewer if said.endswith("fewer") else more
    assert claimed <= true <= claimed + 1 / RESOLUTION + 1e-12


# --- names ---------------------------------------------------------------------------------------


def test_every_code_of_the_catalog_and_the_default_policy_has_a_name():
    policy = load_policy(Path(rules.__file__).parent / "policies" / "default.yaml", facts=FACTS)
    codes = {f.reason_code for f in FEATURES} | {rule.hit.reason for rule in policy.rules}
    assert codes - NAMES.keys() == set()
    assert {NOT_KNOWN, NO_HISTORY, "FACT_MISSING", "LISTED"} <= NAMES.keys()
    assert len(set(NAMES.values())) == len(NAMES)


def test_a_code_that_nobody_named_is_told_in_plain_words():
    assert name_of_code("MY_OWN_CODE", ENGLISH) == "My own code"


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
        (reason,) = Ranking([feature]).reasons(np.array([float(code)]), np.array([0.5]))
        found = orjson.loads(orjson.dumps(as_json(reason)))
        assert found["value"] == word
        said = word_of(feature.name, word, ENGLISH) or word
        assert found["description"] == feature.sentence.many.format(value=said)


def test_the_value_of_a_number_is_the_number_in_json():
    (reason,) = reasons_of(contributing(payable_minor=0.5), value=129_900.0)
    assert as_json(reason)["value"] == 129_900.0


def test_an_unknown_value_is_null_in_json():
    (reason,) = reasons_of(contributing(payable_minor=0.123456), value=math.nan)
    found = orjson.loads(orjson.dumps(as_json(reason)))
    assert found == {
        "code": "NOT_KNOWN",
        "description": "what the refund is worth is not known",
        "feature": "payable_minor",
        "value": None,
        "contribution": 0.1235,
    }


def test_an_unknown_value_never_bears_the_code_of_what_it_might_have_said() -> None:
    chargebacks = BY_NAME["chargeback_count_by_payment_method_365d"]
    refunds = BY_NAME["refund_count_by_customer_30d"]
    features, nan = (chargebacks, refunds), float("nan")
    values, contributions = np.array([nan, 2.0]), np.array([0.5, 0.25])
    unknown, known = Ranking(features).reasons(values, contributions)
    assert (unknown.code, unknown.contribution) == (NOT_KNOWN, 0.5)
    assert unknown.description == "the payment method is not known"
    assert known.code == "REFUND_VELOCITY_HIGH"
