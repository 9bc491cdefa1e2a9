"""A backtest of a store: what was decided and what became known of it, however it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.money import DAY_MS, Rates
from rules.backtest import Cause, backtest
from rules.decision import Action, Source
from rules.document import Costs
from rules.engine import Circumstances, Score
from rules.logged import Logged
from rules.policy import Policy
from serving.desk import Desk
from serving.models import Models
from serving.policies import Policies
from serving.store.decisions import Decision
from serving.store.store import Store
from serving.store.transfer import export
from tests.serving.test_desk import BODY, ME, NOW, SECRET, report
from tests.training.test_backtest import policy_of
from tests.training.test_challenger import AMOUNTS, Shop, by_amount
from training.backtest import backtest_store, labelled
from training.backtest_figures import measured
from training.backtest_report import BacktestReport, Tally
from training.backtest_rows import Recorder, Rows, merged
from training.backtest_sums import Counted, counted, last_of_each, ledger, saved_minor, shifts
from training.dataset import end_of
from training.labels import label_refunds
from training.store_labels import end_of_store, label_tables

ALLOW, MANUAL_REVIEW, PREVENT = Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT
MODEL = by_amount(0.02, 0.7, "1")
SHARE = 0.5
EXPLORING = policy_of(
    "1", 20000.0, "MANUAL_REVIEW",
    bands=[{"action": "MANUAL_REVIEW", "probability_at_least": 0.6},
           {"action": "PREVENT", "probability_at_least": 0.9}],
    exploration={"share": SHARE, "max_amount_minor": 100_000},
)  # fmt: skip
PAYING = policy_of("2", 20000.0, "MANUAL_REVIEW")
"""What the model would hold, this pays: its bands begin at 0.9."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Thirty honest refunds and ten of abuse, which are held unless exploration pays them."""
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('shop')}/shop.db", SECRET)
    opened = Shop(store)
    opened.decide(MODEL, None, EXPLORING)
    opened.look_into()
    yield opened
    store.close()


@pytest.fixture(scope="module")
def explored(shop: Shop) -> int:
    """How many refunds of abuse were paid by chance."""
    found = sum(one.record["decision"]["explored"] for one in shop.store.decisions())
    assert 0 < found < 10
    return found


def run(shop: Shop, before: Policy = EXPLORING, after: Policy = PAYING, **how: Any
        ) -> BacktestReport:  # fmt: skip
    return backtest_store(shop.store, before, after, maturity_days=30, **how)


def test_what_was_decided_is_decided_again(shop: Shop, explored: int) -> None:
    found = run(shop)
    assert (found.source, found.currency) == ("store", "GBP")
    assert (found.decisions, found.requests, found.unreadable) == (40, 40, 0)
    assert (found.own, found.own_same) == (40 - explored, 40 - explored), "the explored were not"
    assert found.shifts[MANUAL_REVIEW][ALLOW] == 10 and found.shifts[ALLOW][ALLOW] == 30
    assert [one.cause for one in found.causes] == [Cause("band", "MANUAL_REVIEW")]
    facts = {"expected_loss_minor": pytest.approx(3850), "probability": 0.7}
    assert found.examples[0].facts == facts


def test_labels_are_those_of_paid_refunds_and_the_report_says_so(shop: Shop, explored: int) -> None:
    found = run(shop)
    assert (found.labelled, found.abuse) == (30 + explored, explored)
    assert (found.unlabelled, found.immature) == (10 - explored, 0)
    assert found.after.abuse_paid == Tally(explored, explored * 5000)
    assert found.before.abuse_held == Tally(explored, explored * 5000)
    assert found.moves.unlabelled == 10 - explored
    young = backtest_store(shop.store, EXPLORING, PAYING, maturity_days=365)
    assert (young.labelled, young.immature) == (0, 40)


def test_explored_refunds_stand_for_those_that_were_held(shop: Shop, explored: int) -> None:
    weighted = run(shop).weighted
    assert weighted is not None
    assert weighted.refunds == {"PAID": 30, "EXPLORED": explored, "HELD": 10 - explored,
                                "NEVER_EXPLORABLE": 0, "UNDECIDED": 0}  # fmt: skip
    assert weighted.labelled["HELD"] == 0
    paid = weighted.figures["abuse_paid"]
    assert paid.count is not None and paid.minor is not None
    assert (paid.count.before, paid.count.after) == (0, explored / SHARE)
    assert paid.minor.after == explored / SHARE * 5000


def test_the_report_is_the_same_with_two_processes(shop: Shop) -> None:
    told: list[tuple[int, int]] = []
    one = run(shop, seed=3)
    two = run(shop, seed=3, processes=2, progress=lambda done, total: told.append((done, total)))
    assert json.dumps(one.to_json(), allow_nan=False) == json.dumps(two.to_json())
    assert told[-1] == (16, 16) and len(told) == 16


def test_a_policy_that_is_no_document_is_backtested_as_it_is(shop: Shop) -> None:
    bare = EXPLORING.without("large")
    assert run(shop, EXPLORING, bare, processes=2).after.hash == bare.hash


def test_a_stretch_of_time(shop: Shop) -> None:
    since, until = NOW + 11 * 60_000, NOW + 21 * 60_000
    assert run(shop, since=since, until=until).requests == 10
    with pytest.raises(LookupError, match="no decision of that time"):
        run(shop, since=since, until=since)


def test_labelled_decisions(shop: Shop, explored: int) -> None:
    rows = list(labelled(shop.store, reads=["ip_risk"], maturity_days=30))
    assert len(rows) == 40
    assert sum(row.abuse is True for row in rows) == explored
    assert sum(row.abuse is None for row in rows) == 10 - explored
    assert {row.payable_minor for row in rows} == {1000.0, 5000.0}
    assert "refund_count_by_customer_30d" not in rows[0].facts


def test_labels_are_those_of_an_export(shop: Shop) -> None:
    exported = export(shop.store)
    ours = label_tables(shop.store)
    assert end_of_store(shop.store) == end_of(exported)
    found = []
    for tables in (exported, ours):
        labels = label_refunds(tables, as_of=end_of(exported), maturity_days=30)
        ids = tables["refund_requests"]["refund_id"].take(labels.row).to_pylist()
        found.append((ids, labels.abuse.tolist(), labels.basis.tolist(), labels.said_at.tolist()))
    assert str(found[0]) == str(found[1])
    before = label_tables(shop.store, NOW + 90_000)
    assert before["refund_requests"].num_rows == 1


@pytest.fixture
def own_shop(tmp_path: Path) -> Iterator[Shop]:
    store = Store.open(f"sqlite:///{tmp_path}/shop.db", SECRET)
    yield Shop(store)
    store.close()


def test_a_refund_counts_once_and_what_holds_no_facts_is_told(own_shop: Shop) -> None:
    own_shop.decide(MODEL, None, EXPLORING, AMOUNTS[-2:])
    desk = Desk(own_shop.store, Policies(EXPLORING), Models(MODEL), Rates("GBP"), SECRET, 60_000)
    again = report({**BODY, "customer": {"customerId": "c-r-0"}}, "r-0", amount=1500)
    desk.decide(again, lambda: NOW + DAY_MS, ME)
    (old, *_) = own_shop.store.decisions()
    record = {name: value for name, value in old.record.items() if name != "facts"}
    with own_shop.store.write() as tx:
        tx.save_decision(replace(old, score_id="old", content_hash="old", record=record))
    found = run(own_shop)
    assert (found.decisions, found.requests, found.repeated, found.unreadable) == (4, 2, 1, 1)
    assert found.before.paid.payable_minor == 1500
    kept = [row.payable_minor for row in labelled(own_shop.store, maturity_days=30)]
    assert kept == [5000.0, 1500.0]


def test_a_store_that_tells_nothing_is_refused(own_shop: Shop) -> None:
    with pytest.raises(LookupError, match="no refund request and no decision"):
        run(own_shop)


# --- against loops -------------------------------------------------------------------------------

LAX = policy_of("lax", 300.0, "MANUAL_REVIEW")
STRICT = policy_of("strict", 200.0, "PREVENT")

rows = st.builds(
    lambda id, customer, day, payable, probability, abuse, reason, analyst: Logged(
        f"r{id}", f"c{customer}", day * DAY_MS + id,
        {"payable_minor": payable, "refund_reason": reason},
        None if probability is None else Score(probability, None), Circumstances(), abuse,
        source=Source.MANUAL_REVIEW if analyst else Source.MODEL,
    ),
    st.integers(0, 9), st.integers(0, 4), st.integers(0, 90),
    st.none() | st.integers(0, 400).map(float), st.none() | st.floats(0, 1),
    st.sampled_from([None, True, False]), st.sampled_from(["EMPTY_BOX", "OTHER", None]),
    st.booleans(),
)  # fmt: skip
logs = st.lists(rows, min_size=1, max_size=30)


def recorded(log: list[Logged]) -> Rows:
    recorder = Recorder(LAX, STRICT, seed=0)
    for one in backtest(LAX, STRICT, log):
        recorder.add(one)
    return recorder.rows()


@given(log=logs, cuts=st.lists(st.integers(0, 30), max_size=3))
def test_parts_merge_to_what_one_pass_gives(log: list[Logged], cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(log)) for cut in cuts), len(log)]
    parts = [recorded(log[start:end]) for start, end in pairwise(edges)]
    whole, together = recorded(log), merged(parts)
    assert whole.table.tobytes() == together.table.tobytes()
    assert whole.refund_ids == together.refund_ids
    assert whole.customers == together.customers
    assert (whole.words, whole.causes) == (together.words, together.causes)
    assert whole.cases == together.cases


@given(log=logs)
def test_sums_are_those_of_a_loop(log: list[Logged]) -> None:
    of = counted(recorded(log), None)
    kept: dict[str, Logged] = {}
    for row in log:
        has = kept.get(row.refund_id)
        by_analyst = row.source is Source.MANUAL_REVIEW
        if has is None or has.source is Source.MANUAL_REVIEW or not by_analyst:
            kept[row.refund_id] = row
    costs = Costs(fee_minor=7, review_minor=3, prevented_honest_multiple=2)
    moved = 0
    cost = {"before": 0.0, "after": 0.0}
    sums: dict[str, Any] = {"before": {}, "after": {}}
    for one in backtest(LAX, STRICT, kept.values()):
        row, payable = one.logged, one.logged.payable_minor or 0
        moved += one.moved
        for side, decision in (("before", one.before), ("after", one.after)):
            key = decision.action, row.abuse
            n, minor = sums[side].get(key, (0, 0))
            sums[side][key] = n + 1, minor + payable
            cost[side] += {
                ALLOW: payable + 7 if row.abuse else 0,
                MANUAL_REVIEW: 3,
                PREVENT: 2 * payable if row.abuse is False else 0,
            }[decision.action]
    assert int(of.moved.sum()) == moved
    for side, actions, made in (("before", of.before, LAX), ("after", of.after, STRICT)):
        found = ledger(of, actions, made, costs)
        expected = {key: Tally(n, int(minor)) for key, (n, minor) in sums[side].items()}
        assert found.abuse_paid == expected.get((ALLOW, True), Tally())
        assert found.abuse_held == expected.get((MANUAL_REVIEW, True), Tally())
        assert found.abuse_prevented == expected.get((PREVENT, True), Tally())
        assert found.honest_held == expected.get((MANUAL_REVIEW, False), Tally())
        assert found.honest_prevented == expected.get((PREVENT, False), Tally())
        assert found.paid.count == sum(n for (action, _), (n, _) in sums[side].items()
                                       if action is ALLOW)  # fmt: skip
        assert found.cost_minor == pytest.approx(cost[side])
    assert saved_minor(of, costs).sum() == pytest.approx(cost["before"] - cost["after"])
    total = sum(count for row in shifts(of.before, of.after).values() for count in row.values())
    assert total == len(of) == len(kept)


def one_each(values: list[int], abuse: list[int]) -> Counted:
    """Refunds of a customer each: paid before, prevented after."""
    n = len(values)
    return Counted(
        np.arange(n), np.zeros(n, [("decided_at", "i8")]), np.zeros(n, np.int64),
        np.full(n, PREVENT.severity), np.array(values), np.array(abuse), np.arange(n), n,
    )  # fmt: skip


def test_an_interval_of_a_difference_is_paired() -> None:
    """What one policy pays the other stops: their sum is the same in every draw, if paired."""
    values = [100, 5_000, 70, 9_000, 3, 800]
    found = measured(one_each(values, [1] * 6), Costs(), np.ones(6), seed=1, rounds=200)
    paid, stopped = found.figures["abuse_paid"].minor, found.figures["abuse_stopped"].minor
    assert paid is not None and stopped is not None
    assert (paid.before, paid.after, stopped.before, stopped.after) == (14_973, 0, 0, 14_973)
    assert paid.rise_interval.low == pytest.approx(-paid.before_interval.high)
    assert stopped.rise_interval == stopped.after_interval == paid.before_interval


def test_the_last_decision_of_the_policy_before_the_money_moved_counts() -> None:
    at, analyst = np.array([1, 2, 3, 4]), np.array([False, False, False, True])
    assert last_of_each(["a"] * 4, at, analyst, {}).tolist() == [2]
    assert last_of_each(["a"] * 4, at, analyst, {"a": 2}).tolist() == [1]
    assert last_of_each(["a"] * 4, at, np.ones(4, np.bool_), {}).tolist() == [3]
    assert last_of_each(["a", "b", "a", "b"], at, analyst, {}).tolist() == [1, 2]


def test_a_decision_is_the_callers_document(shop: Shop) -> None:
    """What is read by the million is what is kept of one."""
    (first, *_) = shop.store.decisions()
    assert isinstance(first, Decision)
    assert orjson.loads(next(shop.store.raw_decisions()).record)["facts"] == first.record["facts"]
