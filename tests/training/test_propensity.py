"""Weights: unbiased over the draws, nothing for what analysts chose, and honest of their limits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from features.catalog import FEATURES
from features.money import DAY_MS
from features.tables import Tables
from rules.decision import Action
from rules.engine import Circumstances, Score, decide
from rules.policy import Policy
from serving.scorer import exploration_draw
from tests.training.tables import START, folder_of
from training.dataset import Examples
from training.propensity import (
    EXPLORED,
    FATES,
    HELD,
    NEVER_EXPLORABLE,
    PAID,
    UNDECIDED,
    effective_size,
    fates,
    mean,
    weigh,
    weights,
)

Row = Mapping[str, Any]


def decision(refund_id: str, day: float = 0, **made: Any) -> dict[str, Any]:
    at = START + int(day * DAY_MS)
    usual = {"score_id": f"{refund_id}@{day}", "refund_id": refund_id, "known_at": at,
             "action": "ALLOW", "source": "MODEL", "propensity": 1.0,
             "explored": False}  # fmt: skip
    return usual | made


EXPLORE = {"explored": True, "propensity": 0.05}
HOLD = {"action": "MANUAL_REVIEW", "propensity": 0.95}
NEVER = {"action": "PREVENT", "source": "RULE"}


def folder(refunds: Sequence[str], decisions: Sequence[Row], **tables: Sequence[Row]) -> Tables:
    """A folder of refunds asked for one a day."""
    requests = [
        {"refund_id": refund_id, "customer_id": "c", "known_at": START + day * DAY_MS,
         "amount_minor": 500, "currency": "GBP"}
        for day, refund_id in enumerate(refunds)
    ]  # fmt: skip
    return folder_of(refund_requests=requests, decisions=decisions, **tables)


def examples(tables: Tables, *refunds: str) -> Examples:
    """Labelled examples of some of the refunds of a folder."""
    known = tables["refund_requests"]["refund_id"].to_pylist()
    row = np.array([known.index(refund) for refund in refunds], np.int64)
    n = len(row)
    return Examples(
        row=row, refund_id=np.array(refunds, object), customer=np.zeros(n, np.int64),
        known_at=tables["refund_requests"]["known_at"].to_numpy()[row].astype(np.int64),
        features={}, abuse=np.zeros(n), basis=np.full(n, "ANALYST", object),
    )  # fmt: skip


def paid(refund_id: str, day: float) -> dict[str, Any]:
    known_at = START + int(day * DAY_MS)
    return {"refund_id": refund_id, "known_at": known_at, "status": "COMPLETED"}


# --- the estimator -----------------------------------------------------------------------------


def test_in_the_mean_over_all_draws_the_weighted_sum_is_the_sum_over_what_is_covered() -> None:
    """Exactly so: every outcome of the draws, each with its probability."""
    value = np.array([3.0, -1.0, 8.0, 5.0, 100.0])
    share = np.array([np.nan, 0.05, 0.2, 0.5, 0.0])  # paid, three explorable, never explorable
    expected = squares = 0.0
    for drawn in itertools.product([True, False], repeat=3):
        explored = np.array([False, *drawn, False])
        likely = float(np.where(explored, share, 1 - share)[1:4].prod())
        action = np.where(explored, "ALLOW", "PREVENT").astype(object)
        action[0] = "ALLOW"
        propensity = np.where(explored, share, 1 - share)
        propensity[[0, 4]] = 1.0
        fate = fates(action, explored, propensity)
        assert fate[[0, 4]].tolist() == [PAID, NEVER_EXPLORABLE]
        total = float(weights(fate, propensity) @ value)
        assert total == pytest.approx(mean(value, weights(fate, propensity), 4) * 4)
        expected += likely * total
        squares += likely * total**2
    assert expected == pytest.approx(value[:4].sum())
    chance = share[1:4]
    variance = (value[1:4] ** 2 * (1 - chance) / chance).sum()
    assert squares - expected**2 == pytest.approx(variance)


def test_the_mean_of_a_constant_is_the_constant_whoever_was_explored() -> None:
    assert mean(np.full(3, 0.7), np.array([1.0, 20.0, 0.0])) == pytest.approx(0.7)


def test_a_clip_bounds_the_weights_and_what_they_speak_for() -> None:
    fate, propensity = np.array([PAID, EXPLORED, EXPLORED], object), np.array([1.0, 0.01, 0.5])
    assert weights(fate, propensity).tolist() == [1.0, 100.0, 2.0]
    assert weights(fate, propensity, clip=5).tolist() == [1.0, 5.0, 2.0]
    assert effective_size(weights(fate, propensity, clip=5)) > effective_size(
        weights(fate, propensity)
    )
    with pytest.raises(ValueError, match=r"clip: expected a weight of at least 1, got 0.5"):
        weights(fate, propensity, clip=0.5)


# --- a folder's decisions ----------------------------------------------------------------------


def test_examples_are_weighed_by_what_the_policy_did_to_them() -> None:
    names = ["paid", "explored", "held", "never", "undecided", "unlabelled"]
    decisions = [
        decision("paid", 0, probability=0.01),
        decision("explored", 1, **EXPLORE, probability=0.4),
        decision("held", 2, **HOLD, probability=0.4),
        decision("never", 3, **NEVER, probability=0.9),
        decision("unlabelled", 5, **HOLD, probability=0.3),
    ]
    tables = folder([*names, "last"], [*decisions, decision("last", 6)])
    weighed = weigh(examples(tables, "paid", "explored", "held", "never", "undecided", "last"),
                    tables)  # fmt: skip
    assert weighed.fate.tolist() == [PAID, EXPLORED, HELD, NEVER_EXPLORABLE, UNDECIDED, PAID]
    assert weighed.weight.tolist() == [1.0, 20.0, 0.0, 0.0, 0.0, 1.0]
    assert weighed.used.tolist() == [True, True, False, False, False, True]
    assert weighed.effective_size == pytest.approx(22**2 / 402)
    coverage = weighed.coverage
    assert coverage.refunds == dict(zip(FATES, (2, 1, 2, 1, 1), strict=True))
    assert coverage.labelled == dict(zip(FATES, (2, 1, 1, 1, 1), strict=True))
    assert coverage.covered == 5
    assert coverage.covered_share == pytest.approx(5 / 7)
    assert coverage.covered_abuse_share == pytest.approx(1.11 / 2.01)
    assert coverage.to_json()["refunds"][HELD] == 2


def test_an_analysts_release_does_not_make_a_held_refund_one_that_was_paid_by_the_policy() -> None:
    released = decision("r", 1, source="MANUAL_REVIEW")
    tables = folder(["r"], [decision("r", 0, **HOLD), released], refund_outcomes=[paid("r", 2)])
    assert weigh(examples(tables, "r"), tables).fate.tolist() == [HELD]


@pytest.mark.parametrize(
    ("paid_on", "fate", "weight"), [(0.5, EXPLORED, 20.0), (1.0, HELD, 0.0), (None, HELD, 0.0)]
)
def test_of_several_decisions_the_last_before_the_payment_counts(
    paid_on: float | None, fate: str, weight: float
) -> None:
    outcomes = [] if paid_on is None else [paid("r", paid_on)]
    decisions = [decision("r", 0, **EXPLORE), decision("r", 1, **HOLD)]
    tables = folder(["r"], decisions, refund_outcomes=outcomes)
    weighed = weigh(examples(tables, "r"), tables)
    assert (weighed.fate.tolist(), weighed.weight.tolist()) == ([fate], [weight])


def test_a_refund_paid_before_anybody_decided_is_undecided() -> None:
    tables = folder(["r"], [decision("r", 3)], refund_outcomes=[paid("r", 2)])
    assert weigh(examples(tables, "r"), tables).fate.tolist() == [UNDECIDED]


def test_reviewed_refunds_may_stand_for_all_that_are_never_explorable() -> None:
    names = ["a", "n1", "n2", "n3", "z"]
    decisions = [decision("a", 0), *(decision(n, 1, **NEVER) for n in names[1:4]), decision("z", 4)]
    tables = folder(names, decisions)
    chosen = examples(tables, "a", "n1", "n3", "z")
    assert weigh(chosen, tables).weight.tolist() == [1.0, 0.0, 0.0, 1.0]
    weighed = weigh(chosen, tables, uncovered="as_reviewed")
    assert weighed.weight.tolist() == [1.0, 1.5, 1.5, 1.0]
    assert weighed.coverage.covered_share == pytest.approx(2 / 5)


def test_coverage_is_of_the_examples_period_and_leaves_ignored_refunds_out() -> None:
    names = ["before", "first", "ignored", "last", "after"]
    tables = folder(names, [decision(name) for name in names])
    requests = tables["refund_requests"].to_pylist()
    requests.append({**requests[2], "event_id": "again", "ignore": True})
    tables = folder_of(refund_requests=requests, decisions=tables["decisions"].to_pylist())
    weighed = weigh(examples(tables, "first", "last"), tables)
    assert weighed.coverage.refunds[PAID] == 2


def test_a_folder_without_decisions_or_no_example_is_refused() -> None:
    tables = folder(["r"], [decision("r")])
    without = {name: table for name, table in tables.items() if name != "decisions"}
    with pytest.raises(ValueError, match="decisions: expected this table"):
        weigh(examples(tables, "r"), without)
    with pytest.raises(ValueError, match="examples: expected at least one"):
        weigh(examples(tables), tables)


# --- with the policy's own draws ---------------------------------------------------------------


def test_weights_of_decisions_that_the_policy_made_find_what_was_held() -> None:
    """Two thousand refunds, a fifth held, and all abuse among those that are explorable."""
    document = """
version: "1"
bands: [{action: PREVENT, probability_at_least: 0.5}]
exploration: {share: 0.2, max_amount_minor: 1000}
rules: []
"""
    policy = Policy.from_yaml(document, facts={f.name: "double" for f in FEATURES})
    refunds = [f"r{number}" for number in range(2000)]
    risky = np.arange(2000) % 5 == 2
    amount = np.where(np.arange(2000) % 20 == 2, 1001.0, 1000.0)  # a quarter of the risky ones
    made = [
        decide({"payable_minor": amount[i]}, Score(0.9 if risky[i] else 0.1, 1.0), policy,
               Circumstances(exploration_draw=exploration_draw(b"secret", name, policy.hash)))
        for i, name in enumerate(refunds)
    ]  # fmt: skip
    rows = [
        decision(name, 0, action=d.action.value, explored=d.explored, propensity=d.propensity)
        for name, d in zip(refunds, made, strict=True)
    ]
    tables = folder(refunds, rows)
    seen = [name for name, d in zip(refunds, made, strict=True) if d.action is Action.ALLOW]
    chosen = examples(tables, *seen)
    weighed = weigh(chosen, tables)
    abuse = risky[chosen.row].astype(float)
    truth = 300 / 1900
    naive = abuse.mean()
    coverage = weighed.coverage
    assert coverage.refunds == {
        PAID: 1600, EXPLORED: int(abuse.sum()), HELD: 300 - int(abuse.sum()),
        NEVER_EXPLORABLE: 100, UNDECIDED: 0,
    }  # fmt: skip
    # 300 draws of one in five: a standard deviation of 12 % of the abuse.
    spread = 3 * truth * np.sqrt(0.8 / 0.2 / 300)
    assert mean(abuse, weighed.weight, coverage.covered) == pytest.approx(truth, abs=spread)
    assert mean(abuse, weighed.weight) == pytest.approx(truth, abs=spread)
    assert naive < truth - spread
