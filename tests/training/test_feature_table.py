"""The feature table says what the catalog defines, today."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.catalog import FEATURES
from features.feature import Expression, Feature, count, count_same, entropy, standing, where
from training.feature_table import in_words, render

PAGE = Path(__file__).parents[2] / "docs" / "features.md"


def test_the_page_is_up_to_date() -> None:
    stale = "docs/features.md is stale: python -m training.feature_table > docs/features.md"
    assert PAGE.read_text(encoding="utf-8") == render(), stale


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_every_feature_has_one_row_with_all_it_says(feature: Feature) -> None:
    rows = [line for line in render().splitlines() if line.startswith(f"| `{feature.name}`")]
    assert len(rows) == 1
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert cells[0].endswith("†") != feature.for_model
    assert cells[1:] == [
        feature.unit, in_words(feature.expression), f"`{feature.reason_code}`",
        feature.sentence.many, feature.sentence.none, feature.why,
    ]  # fmt: skip


def test_features_that_differ_are_described_differently() -> None:
    said = [in_words(feature.expression) for feature in FEATURES]
    assert len(set(said)) == len(said)


def test_every_condition_is_explained() -> None:
    page = render()
    assert "- `chargeback_lost`: `stage` NOTIFICATION_OF_CHARGEBACK or" in page
    nouns = {
        part.where.noun
        for feature in FEATURES
        for part in feature.expression.walk()
        if getattr(part, "where", None)
    }
    assert all(f"- `{noun}`: " in page for noun in nouns)


lost = where("gone", outcome=("LOST",))


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        (count("refund_request", by="customer", days=1),
         "number of refund requests by customer in 1 day"),
        (count("dispute", by="device", days=7, where=lost),
         "number of steps of disputes that are `gone` by device in 7 days"),
        (standing("dispute", "dispute", by="device", days=7, where=lost),
         "number of disputes that are now `gone` by device in 7 days"),
        (count_same("order", "device", by="customer", days=30),
         "number of orders by customer in 30 days with the request's own `device`"),
        (entropy("refund_request", "reason", by="email", days=30),
         "entropy of `reason` of refund requests by email in 30 days"),
    ],
)  # fmt: skip
def test_an_expression_is_put_into_words(expression: Expression, said: str) -> None:
    assert in_words(expression) == said


def test_an_expression_without_words_is_refused() -> None:
    with pytest.raises(TypeError, match="no words for Expression"):
        in_words(Expression())
