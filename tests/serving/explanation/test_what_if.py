"""What would change a verdict: each edge and change is held to what the desk then answers."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from features.events import Dispute, RefundOutcome, Return
from features.money import DAY_MS
from serving.desk import Desk
from serving.explanation.parts import Change, WhatIf
from serving.explanation.scene import Scene
from serving.explanation.what_if import what_if
from serving.language import ENGLISH
from serving.store.lists import NewEntry
from serving.store.store import Store
from tests.serving.champions import fixed
from tests.serving.documents import document, rule
from tests.serving.explanation.test_scene import make_desk, scene
from tests.serving.test_desk import BODY, LATE_BODY, ME, NAMES, NOW, SECRET, Clock, report


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = Store.open(store_url, SECRET, clock="ingest")
    yield opened
    opened.close()


RETURN_BODY = deepcopy(BODY)
RETURN_BODY["refund"]["type"] = "RETURN"
RETURN_BODY["refund"]["amount"] = 6_000
RETURN_BODY["customer"]["registrationTime"] = NOW - 9 * DAY_MS
"""Goods that are to come back first: a new customer asks for more than a little."""


def decided(desk: Desk, asked: Any) -> tuple[Scene, WhatIf]:
    was = scene(desk, desk.decide(asked, Clock(), ME))
    return was, what_if(was, ENGLISH)


def change(found: WhatIf, kind: str) -> Change:
    return next(one for one in found.changes if one.kind == kind)


def edges(found: WhatIf) -> list[tuple[str, float, str]]:
    return [(edge.kind, edge.at, edge.action) for edge in found.edges]


# --- five kinds of case --------------------------------------------------------------------------


def test_an_allowed_refund_says_from_which_score_on_it_would_be_held(store: Store) -> None:
    _, found = decided(make_desk(store, champion=fixed(0.01)), report())
    ((kind, at, action),) = edges(found)
    # A loss of 5.00 on 10.00 and the fee of 5.00.
    assert (kind, action) == ("probability", "MANUAL_REVIEW")
    assert at == pytest.approx(0.334)
    assert found.edges[0].sentence == (
        "From a probability of 33.4 % on it would be: Manual review."
    )
    assert (found.differs, found.unmoved, found.problem) == (None, None, None)


def test_the_model_s_verdict_has_edges_on_both_sides_and_a_smaller_amount(store: Store) -> None:
    _, found = decided(make_desk(store, champion=fixed(0.5)), report(amount=9_000))
    assert edges(found) == [
        ("probability", 0.25, "ALLOW"), ("probability", 0.85, "PREVENT"), ("amount", 499, "ALLOW"),
    ]  # fmt: skip
    assert [edge.sentence for edge in found.edges] == [
        "Below a probability of 25 % it would be: Allow.",
        "From a probability of 85 % on it would be: Prevent.",
        "Asked for 4.99 GBP or less, it would be: Allow.",
    ]


def test_a_rule_s_verdict_names_the_rule_and_the_fact(store: Store) -> None:
    _, found = decided(make_desk(store, champion=fixed(0.01)), report(LATE_BODY))
    assert (edges(found), found.unmoved) == ([], "Whatever the score, it would be: Prevent.")
    off = change(found, "rule_off")
    assert off.sentence == "Were rule outside_return_window not in the policy"
    assert off.moves


def test_a_list_s_verdict_is_moved_by_the_entry(store: Store) -> None:
    desk = make_desk(store, champion=fixed(0.01))
    with store.write() as tx:
        entry = NewEntry("device", NAMES["device"], "seen <b>twice</b>")
        tx.put_many_on_list("block", [entry], author="ann", at=1)
    _, found = decided(desk, report())
    off = change(found, "list_entry_off")
    assert (off.action, off.moves) == ("ALLOW", True)
    assert off.sentence == "Were the device not on the block list (seen <b>twice</b>)"
    assert found.unmoved == "Whatever the score, it would be: Prevent."


def test_without_a_score_the_rules_are_asked_and_any_score_is_another(store: Store) -> None:
    desk = make_desk(store, champion=None)
    _, found = decided(desk, report(amount=9_000))
    assert edges(found) == [("probability", 0.25, "ALLOW"), ("probability", 0.85, "PREVENT")]
    assert found.differs is None
    assert all(one.probability is None for one in found.changes)


# --- facts still to come -------------------------------------------------------------------------


@pytest.mark.each_store
def test_once_the_return_is_scanned_it_is_allowed_and_so_it_comes(store: Store) -> None:
    desk, ticks = make_desk(store, champion=fixed(0.01)), Clock()
    answer = desk.decide(report(RETURN_BODY), ticks, ME)
    assert answer.body["data"]["action"] == "MANUAL_REVIEW"
    found = what_if(scene(desk, answer), ENGLISH)
    first = found.changes[0]
    assert (first.kind, first.action, first.moves) == ("return_received", "ALLOW", True)
    assert first.sentence == "Once the return is scanned as received"
    assert first.happened_at is None
    with store.write() as tx:
        tx.append([Return(refund_id="r-1", status="RECEIVED", known_at=NOW + DAY_MS)])
    assert what_if(scene(desk, answer), ENGLISH).changes[0].happened_at == NOW + DAY_MS
    later = desk.decide(report({**RETURN_BODY, "timestamp": NOW + 1}, claim="FULL"),
                        lambda: NOW + 2 * DAY_MS, ME)  # fmt: skip
    assert later.body["data"]["action"] == "ALLOW"


@pytest.mark.each_store
def test_a_dispute_still_open_and_a_delivery_nobody_told_of(store: Store) -> None:
    body = deepcopy(BODY)
    body["order"] |= {"orderTime": NOW - 40 * DAY_MS, "deliveredTime": None}
    desk = make_desk(store, champion=fixed(0.01))
    with store.write() as tx:
        tx.append([Dispute(dispute_id="d-1", order_id="o-1", stage="CHARGEBACK", amount_minor=900,
                           currency="GBP", known_at=NOW - DAY_MS)])  # fmt: skip
    was, found = decided(desk, report(body))
    assert was.decide().decision.action == "MANUAL_REVIEW"
    assert not change(found, "dispute_won").moves  # the delivery still holds it
    late = change(found, "delivered_35")
    assert (late.action, late.moves) == ("PREVENT", True)
    assert late.sentence == "Had it been reported that the delivery was 35 days before the claim"
    known = {rule.rule_id for rule in was.decide().decision.unknowns}
    assert "return_window_unproven" in known


def test_a_fact_that_settles_a_rule_is_named(store: Store) -> None:
    body = deepcopy(BODY)
    body["order"] |= {"orderTime": NOW - 40 * DAY_MS, "deliveredTime": None}
    _, found = decided(make_desk(store, champion=fixed(0.01)), report(body))
    known = change(found, "fact_known")
    assert (known.action, known.moves) == ("ALLOW", True)
    assert known.sentence == (
        "Were it known that delivered_age_days is 30 days, which settles rule "
        "return_window_unproven"
    )


def test_an_earlier_refund_that_was_refused_is_not_said_to_be_open(store: Store) -> None:
    desk, ticks = make_desk(store, champion=fixed(0.01)), Clock()
    desk.decide(report(LATE_BODY, refund_id="r-0"), ticks, ME)
    found = what_if(scene(desk, desk.decide(report(refund_id="r-2"), ticks, ME)), ENGLISH)
    assert not [one for one in found.changes if one.kind.startswith("refund_")]
    assert change(found, "abuse_confirmed").sentence == (
        "Were the earlier refund r-0 confirmed as abuse"
    )


def test_nobody_waits_for_a_refund_that_was_settled_since(store: Store) -> None:
    desk = make_desk(store, champion=fixed(0.5))
    answer = desk.decide(report(amount=9_000), Clock(), ME)
    waits = [one.sentence for one in what_if(scene(desk, answer), ENGLISH).changes
             if one.kind.startswith("wait_")]  # fmt: skip
    assert waits == [
        "Were it decided anew 30 days later, with nothing else happening in between",
        "Were it decided anew 7 days later, with nothing else happening in between",
    ]
    for status, are_waits in (("FAILED", True), ("COMPLETED", False)):
        with store.write() as tx:
            tx.append([RefundOutcome(refund_id="r-1", status=status, known_at=NOW + DAY_MS)])
        kinds = {one.kind for one in what_if(scene(desk, answer), ENGLISH).changes}
        assert any(kind.startswith("wait_") for kind in kinds) is are_waits


# --- what is different already -------------------------------------------------------------------


def test_another_model_is_named(store: Store) -> None:
    desk = make_desk(store, champion=fixed(0.01))
    answer = desk.decide(report(amount=9_000), Clock(), ME)
    newer = fixed(0.5)
    object.__setattr__(newer, "version", "8")
    desk.models.put("champion", newer)
    found = what_if(scene(desk, answer), ENGLISH)
    assert found.differs == (
        "It was decided by model fixed; this is what model 8 says. Made again now, the probability "
        "is 50 %, not 1.0 %. Made again now, it would be: Manual review."
    )
    desk.models.put("champion", None)
    found = what_if(scene(desk, answer), ENGLISH)
    assert found.differs == (
        "Model fixed, which decided, is not here any more: its score is taken as it was."
    )
    assert edges(found)[0][0] == "probability"


def test_a_refund_let_through_by_chance_would_be_whatever_its_score(store: Store) -> None:
    text = document("1", rule(), exploration={"share": 1.0, "max_amount_minor": 100_000})
    _, found = decided(make_desk(store, text, fixed(0.6)), report())
    assert found.edges == ()
    assert found.unmoved is not None
    assert "by chance" in found.unmoved


def test_edges_stay_true_where_rules_read_the_score(store: Store) -> None:
    examples = {"hit": [{"probability": 0.42}], "miss": [{"probability": 0.5}]}
    when = "probability > 0.4 && probability < 0.45"
    odd = rule(id="odd", when=when, action="PREVENT", examples=examples)
    _, found = decided(make_desk(store, document("1", odd), fixed(0.6)), report())
    assert [edge.sentence for edge in found.edges[:2]] == [
        "Between 45 % and 50 % it would be: Allow.",
        "From a probability of 90 % on it would be: Prevent.",
    ]
