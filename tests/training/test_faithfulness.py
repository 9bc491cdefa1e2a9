"""Reasons made usual: whether the score falls, and why not where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import lightgbm
import numpy as np
import pytest
from markupsafe import escape
from numpy.typing import NDArray

from features.catalog import BY_NAME, MODEL_FEATURES
from features.feature import definitions_hash
from serving.explain import TreeExplainer
from serving.model import AbuseModel, Manifest, Platt, Reference
from serving.reasons import Ranking
from training import faithfulness_text
from training.dataset import MODEL_NAMES, Examples, TimeSplit
from training.faithfulness import DRAWS, Faithfulness, faithfulness
from training.fit import Fitted
from training.report import TrainedReport

FloatArray = NDArray[np.float64]
ROWS = 3_000
FIRST, SECOND = "payable_minor", "refund_count_by_customer_30d"
FIRST_CODE, SECOND_CODE = (BY_NAME[name].reason_code for name in (FIRST, SECOND))


def examples(matrix: FloatArray, abuse: FloatArray) -> Examples:
    """Rows of the model's features, three to a customer."""
    columns = {name: matrix[:, k] for k, name in enumerate(MODEL_NAMES)}
    n = len(matrix)
    row = np.arange(n)
    refunds = np.array([f"refund-{k}" for k in row], object)
    basis = np.array(["ANALYST"] * n, object)
    return Examples(row, refunds, row // 3, row, columns, abuse, basis)


def made(
    abuse: Callable[[FloatArray, FloatArray], FloatArray],
    *,
    common: float = 0.5,
    trees: int = 30,
    **options: object,
) -> tuple[AbuseModel, Examples]:
    """A model in which two facts of two codes decide, each 1 in a share of cases, else 0."""
    draw = np.random.default_rng(3)
    matrix = np.zeros((ROWS, len(MODEL_NAMES)))
    first, second = (draw.random(ROWS) < share for share in (common, 0.4))
    matrix[:, MODEL_NAMES.index(FIRST)] = first
    matrix[:, MODEL_NAMES.index(SECOND)] = second
    risk = abuse(first.astype(float), second.astype(float))
    label = (draw.random(ROWS) < risk).astype(float)
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, "seed": 1,
                  "num_leaves": 4, **options}  # fmt: skip
    booster = lightgbm.train(parameters, lightgbm.Dataset(matrix, label), trees)
    manifest = Manifest(
        feature_names=MODEL_NAMES, features_hash=definitions_hash(MODEL_FEATURES),
        base_currency="GBP", label_definition={}, training_from=1, training_until=2, test_from=3,
        base_rate=0.1, expected_log_odds=-2.0, data_digest="d",
    )  # fmt: skip
    reference = Reference.of(matrix, np.full(ROWS, 0.1))
    return AbuseModel(booster, Platt(1.0, 0.0), manifest, reference), examples(matrix, label)


def flagged(model: AbuseModel, test: Examples, above: float) -> NDArray[np.bool_]:
    return model.predict(test.columns(model.feature_names)) > above


def test_a_fact_that_raises_the_risk_is_a_true_reason() -> None:
    model, test = made(lambda first, second: 0.05 + 0.6 * second, common=0.3)
    found = faithfulness(model, test, flagged(model, test, 0.4))
    assert found.main.share == 1.0
    assert found.is_kept
    assert found.main.mean_drop == pytest.approx(0.6, abs=0.1)
    assert found.chance.reasons == DRAWS * found.asked
    assert found.chance.mean_drop < 0.05  # one feature of 188 others, and only one of them counts
    (one,) = [each for each in found.codes if each.main.reasons]
    assert one.code == SECOND_CODE
    assert not [each for each in found.unmoved if each.rank == 0]


def test_a_model_whose_usual_request_is_the_risky_one_has_no_true_reasons() -> None:
    """Most have the risky value, so what is usual is what raises the score above the average."""
    model, test = made(lambda first, second: 0.1 + 0.5 * first, common=0.7)
    found = faithfulness(model, test, flagged(model, test, 0.4))
    assert found.main.share == 0.0
    assert not found.is_kept
    assert found.interval.low == 0.0 < found.interval.high < 0.05
    assert {(one.code, one.cause) for one in found.unmoved if one.rank == 0} == {
        (FIRST_CODE, "usual")
    }
    (doubt,) = faithfulness_text.doubts(found)
    assert "the main reason is not to be relied on" in doubt
    assert "at least 95" in doubt


def test_two_facts_that_say_the_same_cover_each_other() -> None:
    """Either alone is enough: without the one the other keeps the score up."""
    model, test = made(
        lambda first, second: 0.05 + 0.85 * np.maximum(first, second),
        common=0.4, learning_rate=1.0, trees=1, num_leaves=3,
    )  # fmt: skip
    rows = test.columns(model.feature_names)
    both = rows[:, [MODEL_NAMES.index(name) for name in (FIRST, SECOND)]].all(axis=1)
    found = faithfulness(model, test, both)
    causes = {(one.code, one.cause, one.other) for one in found.unmoved}
    each_other = {(FIRST_CODE, SECOND_CODE), (SECOND_CODE, FIRST_CODE)}
    assert causes
    assert causes <= {(code, "elsewhere", other) for code, other in each_other}
    for one in found.unmoved:
        assert one.made_usual >= one.probability


def test_a_value_whose_usual_is_no_safer() -> None:
    """0 is usual and as risky as 1; only the rare 2 is safe, and pulls the average down."""
    model, test = made(lambda first, second: 0.5 + 0 * first)
    column = MODEL_NAMES.index(FIRST)
    draw = np.random.default_rng(5)
    matrix = np.zeros((ROWS, len(MODEL_NAMES)))
    matrix[:, column] = draw.choice([0.0, 1.0, 2.0], ROWS, p=[0.6, 0.2, 0.2])
    label = (matrix[:, column] < 2) & (draw.random(ROWS) < 0.8)
    booster = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1, "num_leaves": 2},
        lightgbm.Dataset(matrix, label), 20,
    )  # fmt: skip
    model = replace(model, booster=booster, reference=Reference.of(matrix, np.full(ROWS, 0.5)))
    test = examples(matrix, label.astype(float))
    found = faithfulness(model, test, matrix[:, column] == 1)
    assert {(one.code, one.cause) for one in found.unmoved} == {(FIRST_CODE, "no_safer")}
    for one in found.unmoved:  # one in five has the safe value
        assert 0.05 < one.safer_share < 0.4
    (_, said) = faithfulness_text.exceptions(found)
    assert "what is usual is no safer to the model than what the refund has" in said


def test_nothing_flagged_is_nothing_asked() -> None:
    model, test = made(lambda first, second: 0.05 + 0.6 * second)
    found = faithfulness(model, test, np.zeros(len(test), bool))
    assert (found.flagged, found.asked, found.codes, found.unmoved) == (0, 0, (), ())
    assert math.isnan(found.main.share)
    assert math.isnan(found.interval.low)
    assert found.is_kept
    assert "no reason was put to the test" in faithfulness_text.in_a_sentence(found)
    assert not list(faithfulness_text.doubts(found))
    assert faithfulness_text.exceptions(found) == []


def test_of_many_an_even_sample_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.faithfulness.MOST_ROWS", 50)
    model, test = made(lambda first, second: 0.05 + 0.6 * second)
    found = faithfulness(model, test, flagged(model, test, 0.4))
    assert found.asked == 50 < found.flagged
    assert f"(an even sample of {found.flagged:,})" in faithfulness_text.in_a_sentence(found)


# --- on a model of the catalog ------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(fitted: Fitted, split: TimeSplit) -> tuple[NDArray[np.bool_], Faithfulness]:
    which = flagged(fitted.model, split.test, 0.1)
    return which, faithfulness(fitted.model, split.test, which)


def test_it_is_what_one_would_compute_by_hand(
    fitted: Fitted, split: TimeSplit, real: tuple[NDArray[np.bool_], Faithfulness]
) -> None:
    model, (which, found) = fitted.model, real
    ranking = Ranking(MODEL_FEATURES)
    explainer = TreeExplainer.from_booster(model.booster)
    lowered, drops = 0, []
    for row in split.test.where(which).columns(model.feature_names):
        (main, *_) = ranking.reasons(row, explainer.contributions(row[np.newaxis])[0])
        other = row.copy()
        for k in np.flatnonzero(ranking.grouped(row) == ranking.codes.index(main.code)):
            seen = model.reference.quantiles[k]
            other[k] = seen[len(seen) // 2]
        before, after = model.predict(np.array([row, other]))
        lowered += after < before
        drops.append(before - after)
    assert found.main.reasons == found.flagged == which.sum()
    assert found.main.lowered == lowered
    assert found.main.mean_drop == pytest.approx(np.mean(drops))


def test_parts_add_up(real: tuple[NDArray[np.bool_], Faithfulness]) -> None:
    _, found = real
    assert sum(one.main.reasons for one in found.codes) == found.asked
    assert sum(one.told.reasons for one in found.codes) == found.told.reasons
    assert len(found.unmoved) == found.told.reasons - found.told.lowered
    assert found.interval.low <= found.main.share <= found.interval.high
    assert found.chance.mean_drop < found.main.mean_drop


def test_all_customers_agreeing_is_no_certainty() -> None:
    """Every resample of customers who agree agrees; those not seen might not."""
    model, test = made(lambda first, second: 0.05 + 0.6 * second, common=0.3)
    which = flagged(model, test, 0.4)
    which[np.flatnonzero(which)[20:]] = False
    found = faithfulness(model, test, which)
    assert found.main.share == found.interval.high == 1.0
    assert found.interval.low == pytest.approx(0.025 ** (1 / found.customers))
    assert found.interval.low < 0.9


def test_the_report_tells_it(report: TrainedReport) -> None:
    found = report.faithfulness
    document = report.to_json()["faithfulness"]
    assert document["main"]["share"] == found.main.share
    assert len(document["codes"]) == len(found.codes)
    assert "the main reason, made usual, lowers the score of" in report.summary()
    assert report.kept is not None
    page = report.kept.read_text(encoding="utf-8")
    assert "Are its reasons true?" in page
    for one in found.codes[: faithfulness_text.MOST_CODES]:
        assert escape(faithfulness_text.code_name(one.code)) in page
