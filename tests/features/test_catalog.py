"""Every feature of the catalog keeps the rules; a new line of the catalog is tested unasked."""

from __future__ import annotations

import dataclasses
import random
import re
import string
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.absence import is_of_something, never_of_nothing, witnesses
from features.catalog import BY_NAME, FEATURES, MODEL_FEATURES, PLAN
from features.events import EVENTS
from features.feature import (
    Age,
    Aggregate,
    Between,
    Both,
    Difference,
    Family,
    Feature,
    Known,
    Ratio,
    Unit,
    count,
    definitions_hash,
    where,
)
from features.money import DAY_MS
from tests.features.histories import WIDE_PLAN, Computed, Events, crowded, histories, in_batch

WITNESSES = witnesses(FEATURES)

every_feature = pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
whole_histories = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

CEL_RESERVED = {
    "false", "in", "null", "true", "as", "break", "const", "continue", "else", "for", "function",
    "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while",
}  # fmt: skip

_UNIT_OF = {
    **dict.fromkeys(("count", "count_same", "standing", "distinct", "distinct_near"), "count"),
    "entropy": "bits", "since_last": "days", "since_first": "days",
}  # fmt: skip

# --- definitions -------------------------------------------------------------------------------


@every_feature
def test_name_is_a_cel_identifier(feature: Feature) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", feature.name)
    assert feature.name not in CEL_RESERVED


@every_feature
def test_name_finds_the_feature_and_its_column(feature: Feature) -> None:
    assert BY_NAME[feature.name] is feature
    assert PLAN.features[FEATURES.index(feature)] is feature


@every_feature
def test_family_and_unit_are_of_the_vocabulary(feature: Feature) -> None:
    assert feature.family in get_args(Family)
    assert feature.unit in get_args(Unit)


@every_feature
def test_reason_code_is_upper_snake_case(feature: Feature) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", feature.reason_code)


@every_feature
def test_sentence_says_the_value_where_there_is_one_to_say(feature: Feature) -> None:
    said = feature.sentence
    for text in filter(None, (said.one, said.many, said.below)):
        placeholders = {name for _, name, _, _ in string.Formatter().parse(text) if name}
        assert placeholders == (set() if feature.unit == "flag" else {"value"})
    for text in filter(None, (said.one, said.many, said.none, said.below)):
        told = text.format(value="7")
        assert told and told == told.strip()
        assert not set("{}|()") & set(told) and not told.endswith(".")
        assert "None" not in told
    assert said.one == said.many or feature.unit in ("count", "flag")


@every_feature
def test_what_has_no_value_is_told_apart_with_all_features_at_hand(feature: Feature) -> None:
    """Nothing is both of nothing, and never; what is of nothing is no witness of itself."""
    never, something = never_of_nothing(feature.expression), is_of_something(feature.expression)
    assert not (never and something)
    place = FEATURES.index(feature)
    assert (WITNESSES[place][-1:] == (place,)) == (not something)
    assert not never or WITNESSES[place] == (place,)


def test_a_model_sees_a_count_by_every_holder_so_nothing_earlier_is_told_as_such() -> None:
    for place, (feature, why) in enumerate(
        zip(MODEL_FEATURES, witnesses(MODEL_FEATURES), strict=True)
    ):
        assert (place in why) == (not is_of_something(feature.expression)), feature.name


@every_feature
def test_why_is_documented(feature: Feature) -> None:
    assert feature.why.strip().endswith(".")


@every_feature
def test_the_unit_is_that_of_what_is_computed(feature: Feature) -> None:
    match feature.expression:
        case Aggregate(op=op) if op in _UNIT_OF:
            assert feature.unit == _UNIT_OF[op]
        case Age() | Between():
            assert feature.unit == "days"
        case Both() | Known():
            assert feature.unit == "flag"
        case Difference():
            assert feature.unit == "count"
        case Ratio(top=Age()):
            assert feature.unit == "days"
        case Ratio() as ratio:
            assert feature.unit in ("share" if "_share_" in ratio.name else "ratio", "share")


def test_names_are_unique_and_models_see_a_part_in_the_same_order() -> None:
    assert len(BY_NAME) == len(FEATURES)
    assert list(MODEL_FEATURES) == [feature for feature in FEATURES if feature.for_model]


def test_definitions_hash_changes_with_the_order_of_any_two_neighbours() -> None:
    hashes = {definitions_hash(FEATURES)}
    for place in range(len(FEATURES) - 1):
        swapped = list(FEATURES)
        swapped[place : place + 2] = reversed(swapped[place : place + 2])
        hashes.add(definitions_hash(swapped))
    assert len(hashes) == len(FEATURES)


def test_definitions_hash_changes_with_a_condition_under_the_same_name() -> None:
    feature = BY_NAME["chargeback_count_by_customer_365d"]
    narrower = count("dispute", by="customer", days=365,
                     where=where("chargeback", stage=("CHARGEBACK",)))  # fmt: skip
    other = dataclasses.replace(feature, expression=narrower)
    assert other.name == feature.name
    assert definitions_hash([other]) != definitions_hash([feature])


# --- numbers -----------------------------------------------------------------------------------


def _same(left: Computed, right: Computed, numbers: dict[int, int] | None = None) -> None:
    """Requests of the left have the values of those of the right, by default in the same order."""
    if numbers is None:
        assert left.requests == right.requests
        numbers = {number: number for number in range(len(left.requests))}
    rows, others = list(numbers), list(numbers.values())
    for name, values in left.values.items():
        np.testing.assert_array_equal(values[rows], right.values[name][others], err_msg=name)


@whole_histories
@given(histories())
def test_the_same_history_gives_the_same_numbers(events: Events) -> None:
    _same(in_batch(events), in_batch(events))


@whole_histories
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(events: Events, order: random.Random) -> None:
    shuffled = {kind: order.sample(rows, len(rows)) for kind, rows in events.items()}
    _same(in_batch(shuffled), in_batch(events))


@whole_histories
@given(histories(), st.randoms(use_true_random=False))
def test_rows_delivered_again_change_nothing(events: Events, chance: random.Random) -> None:
    again = {
        kind: [*rows, *(row for row in rows if chance.random() < 0.5)]
        for kind, rows in events.items()
    }
    _same(in_batch(again), in_batch(events))


@whole_histories
@given(histories(), st.integers(1, 400 * DAY_MS))
def test_an_event_that_arrives_again_later_counts_once_at_its_first_time(
    events: Events, delay_ms: int
) -> None:
    # A label given no id is another label at another time.
    again = {
        kind: [
            *rows,
            *({**row, "known_at": row["known_at"] + delay_ms} for row in rows
              if row["event_id"] or not EVENTS[kind].repeats),
        ]
        for kind, rows in events.items()
    }  # fmt: skip
    _same(in_batch(again), in_batch(events))


@whole_histories
@given(histories(), histories(), st.data())
def test_what_becomes_known_at_or_after_the_cutoff_changes_nothing(
    events: Events, more: Events, data: st.DataObject
) -> None:
    before = in_batch(events)
    cutoff = data.draw(st.sampled_from([known_at for _, known_at in before.requests]))
    later = {
        kind: [
            *events[kind],
            *({**row, "event_id": f"later{number}"} for number, row in enumerate(more[kind])
              if row["known_at"] >= cutoff),
        ]
        for kind in events
    }  # fmt: skip
    after = in_batch(later)
    place = {request: number for number, request in enumerate(after.requests)}
    _same(
        before,
        after,
        {n: place[request] for n, request in enumerate(before.requests) if request[1] <= cutoff},
    )


@whole_histories
@given(histories())
def test_a_number_is_of_its_unit(events: Events) -> None:
    values = in_batch(events, PLAN).values
    for feature in FEATURES:
        known = values[feature.name][~np.isnan(values[feature.name])]
        is_mean = isinstance(feature.expression, Aggregate) and feature.expression.op == "mean"
        if feature.unit in ("count", "minor", "code", "flag") and not is_mean:
            assert (known == np.rint(known)).all(), feature.name
        if feature.unit in ("bits", "code"):
            assert (known >= 0).all(), feature.name
        if feature.unit == "flag" or "_share_by_" in feature.name:
            assert ((known >= 0) & (known <= 1)).all(), feature.name


def test_every_feature_is_compared_with_the_oracle() -> None:
    assert WIDE_PLAN.features[: len(FEATURES)] == FEATURES


def test_generated_histories_move_every_feature() -> None:
    """What never takes two values in them is tested by none of the tests above.

    A new feature that fails here looks at something that `histories` does not generate yet.
    """
    seen: dict[str, set[float]] = {feature.name: set() for feature in FEATURES}

    @settings(whole_histories, max_examples=250, derandomize=True, database=None)
    @given(crowded())
    def look(events: Events) -> None:
        for name, values in in_batch(events, PLAN).values.items():
            seen[name].update(values[~np.isnan(values)].tolist())

    look()
    assert [name for name, values in seen.items() if len(values) < 2] == []


@whole_histories
@given(histories())
def test_a_value_is_missing_for_the_reason_that_is_told(events: Events) -> None:
    """What is never of nothing is NaN with its holder; a witness that is NaN makes NaN."""
    values = in_batch(events, PLAN).values
    rows = np.array([values[feature.name] for feature in FEATURES])
    missing = np.isnan(rows)
    holders: dict[str | None, np.ndarray] = {}
    for place, feature in enumerate(FEATURES):
        for witness in WITNESSES[place]:
            assert missing[place][missing[witness]].all(), feature.name
        expression = feature.expression
        if never_of_nothing(expression) and isinstance(expression, Aggregate):
            key = expression.column if expression.op == "count_same" else expression.by
            same = holders.setdefault(key, missing[place])
            assert (same == missing[place]).all(), feature.name
