"""Logged decisions: what the desk kept is what it decided on, as much of it as is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from features.money import Rates
from rules.decision import Action, Source
from rules.engine import ListHit, decide
from rules.policy import Policy
from serving.desk import Desk
from serving.logged import ALWAYS, logged_decisions
from serving.models import Models
from serving.policies import Policies
from serving.scorer import Champion
from serving.store.store import Store
from tests.serving.champions import fixed
from tests.serving.test_desk import LATE_BODY, ME, NAMES, NOW, SECRET, report

AMOUNTS = [500, 25_000]


def ask(store: Store, policy: Policy, champion: Champion | None, at: int, **how: Any) -> None:
    desk = Desk(store, Policies(policy), Models(champion), Rates("GBP"), SECRET, 60_000)
    desk.decide(report(**how), lambda: at, ME)


@pytest.fixture(scope="module")
def store(
    policy: Policy, champion: Champion, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """Decisions by model, rule, list and fallback, a minute apart."""
    opened = Store.open(f"sqlite:///{tmp_path_factory.mktemp('logged')}/s.db", SECRET)
    for number, amount in enumerate(AMOUNTS):
        ask(opened, policy, champion, NOW + number * 60_000, refund_id=f"r-{number}", amount=amount)
    ask(opened, policy, champion, NOW + 240_000, body=LATE_BODY, refund_id="r-late")
    ask(opened, policy, fixed(fails=RuntimeError("no")), NOW + 300_000, refund_id="r-degraded")
    with opened.write() as tx:
        tx.put_on_list("block", "device", NAMES["device"], reason="farm", author="me",
                       at=NOW + 330_000)  # fmt: skip
    ask(opened, policy, champion, NOW + 360_000, refund_id="r-listed")
    yield opened
    opened.close()


def test_every_decision_comes_out_as_it_was_made(store: Store, policy: Policy) -> None:
    rows = list(logged_decisions(store, reads=None))
    assert [row.refund_id for row in rows] == [
        "r-0", "r-1", "r-late", "r-degraded", "r-listed"
    ]  # fmt: skip
    for row, kept in zip(rows, store.decisions(), strict=True):
        again = decide(row.facts, row.score, policy, row.circumstances)
        assert again.to_json() == kept.record["decision"]
        assert (row.action, row.source) == (again.action, again.source)
        assert (row.propensity, row.explored) == (again.propensity, again.explored)
        assert row.hits == tuple(rule.rule_id for rule in again.hits)
        assert (row.policy_hash, row.decided_at) == (policy.hash, kept.decided_at)
        assert row.customer == kept.record["keys"]["customer"] != NAMES["customer"]


def test_what_the_decisions_rested_on(store: Store) -> None:
    by_id = {row.refund_id: row for row in logged_decisions(store)}
    late, degraded, listed = by_id["r-late"], by_id["r-degraded"], by_id["r-listed"]
    assert (late.action, late.source) == (Action.PREVENT, Source.RULE)
    assert "outside_return_window" in late.hits
    assert degraded.score is None and degraded.source is Source.FALLBACK
    assert listed.circumstances.lists.block == (ListHit("device", "farm"),)
    assert listed.circumstances.lists.entities == {
        "customer", "email", "device", "ip", "payment_method", "address"
    }  # fmt: skip
    assert by_id["r-1"].facts["amount_minor"] == 25_000 == by_id["r-1"].payable_minor


def test_only_the_facts_asked_for_are_there(store: Store, policy: Policy) -> None:
    for row in logged_decisions(store, reads=["refund_count_by_customer_30d", "final_sale"]):
        assert row.facts.keys() <= {"refund_count_by_customer_30d", "final_sale", *ALWAYS}
        assert {"refund_count_by_customer_30d", "final_sale", "amount_minor"} <= row.facts.keys()
    for row in logged_decisions(store, reads=[]):
        assert row.facts.keys() <= set(ALWAYS)
    all_facts = logged_decisions(store, reads=None)
    for row, whole in zip(logged_decisions(store, reads=policy.reads), all_facts, strict=True):
        fewer = decide(row.facts, row.score, policy, row.circumstances)
        every = decide(whole.facts, whole.score, policy, whole.circumstances)
        assert replace(fewer, follow_up=None) == replace(every, follow_up=None)


def test_a_stretch_of_time(store: Store) -> None:
    found = logged_decisions(store, since=NOW + 60_000, until=NOW + 300_000)
    assert [row.refund_id for row in found] == ["r-1", "r-late"]


def test_what_was_stored_without_facts_is_left_out(store: Store) -> None:
    (first, *_) = store.decisions()
    record = {name: value for name, value in first.record.items() if name != "facts"}
    with store.write() as tx:
        tx.save_decision(replace(first, score_id="old", content_hash="old", record=record,
                                 decided_at=1))  # fmt: skip
    assert len(list(store.decisions())) == 6
    assert len(list(logged_decisions(store))) == 5
