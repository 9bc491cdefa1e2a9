"""The random-allow holdout through the desk: what is paid by chance, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.money import Rates
from rules.document import Exploration
from rules.policy import Policy
from serving.desk import Desk, Sender
from serving.models import Models
from serving.policies import Policies
from serving.scorer import exploration_draw
from serving.store.store import Store
from tests.serving.champions import fixed
from tests.serving.test_desk import BODY, LATE_BODY, ME, SECRET, Clock, report

SHARE = 0.3


@pytest.fixture
def exploring(policy: Policy, tmp_path: Path) -> Iterator[Desk]:
    """A desk whose model suspects everybody, and whose policy pays some of them anyway."""
    store = Store.open(f"sqlite:///{tmp_path}/desk.db", SECRET, clock="ingest")
    chance = replace(policy, exploration=Exploration(share=SHARE, max_amount_minor=1000))
    policies = Policies(chance)
    yield Desk(store, policies, Models(fixed(0.99)), Rates("GBP"), SECRET, deadline_ms=60_000)
    store.close()


def kept(desk: Desk) -> dict[str, Any]:
    """What was decided on each refund."""
    return {found.refund_id: found.record["decision"] for found in desk.store.decisions()}


def test_the_draw_alone_decides_who_is_paid_and_is_kept_with_the_propensity(exploring: Desk):
    now = Clock()
    refunds = [f"r-{number}" for number in range(40)]
    for refund_id in refunds:
        whose = {"customer": {"customerId": f"c-{refund_id}"},
                 "device": {"deviceId": f"d-{refund_id}"},
                 "paymentMethods": [{"paymentMethodId": f"p-{refund_id}"}]}  # fmt: skip
        exploring.decide(report({**BODY, **whose}, refund_id), now, ME)
    found = kept(exploring)
    assert found.keys() == set(refunds)
    for refund_id, decision in found.items():
        draw = exploration_draw(SECRET, refund_id, exploring.policies.now.hash)
        explored = draw < SHARE
        assert decision["exploration_draw"] == draw
        assert decision["explored"] == explored
        assert decision["propensity"] == (SHARE if explored else 1 - SHARE)
        assert decision["action"] == ("ALLOW" if explored else "MANUAL_REVIEW")
        state = exploring.store.refund(refund_id).state
        assert state == ("APPROVED" if explored else "NEEDS_REVIEW")
    assert 0 < sum(decision["explored"] for decision in found.values()) < len(refunds)


@pytest.mark.parametrize(
    ("body", "fields", "why"),
    [
        (BODY, {"amount": 1001}, "above the cap"),
        (LATE_BODY, {}, "a hard rule prevents it"),
        (BODY, {"currency": "USD"}, "an amount that no rate turns into the base currency"),
    ],
)
def test_what_must_never_be_explored_is_held_with_certainty(
    exploring: Desk, body: dict[str, Any], fields: dict[str, Any], why: str
):
    everything = replace(
        exploring.policies.now, exploration=Exploration(share=1, max_amount_minor=1000)
    )
    desk = replace(exploring, policies=Policies(everything))
    desk.decide(report(BODY, "r-explored"), Clock(), ME)
    desk.decide(report(body, "r-held", **fields), Clock(), Sender("key_2"))
    found = kept(desk)
    assert (found["r-explored"]["action"], found["r-explored"]["explored"]) == ("ALLOW", True)
    held = found["r-held"]
    assert held["action"] != "ALLOW", why
    assert (held["explored"], held["propensity"]) == (False, 1.0), why


def test_without_a_model_nothing_is_explored(exploring: Desk):
    everything = replace(
        exploring.policies.now, exploration=Exploration(share=1, max_amount_minor=1000)
    )
    desk = replace(
        exploring,
        policies=Policies(everything),
        models=Models(fixed(0.99, fails=RuntimeError("gone"))),
    )
    desk.decide(report(), Clock(), ME)
    (decision,) = kept(desk).values()
    assert decision["degraded"]
    assert (decision["action"], decision["explored"]) == (everything.fallback, False)
    assert decision["propensity"] == 1.0


def test_blocked_customers_are_never_explored(exploring: Desk):
    everything = replace(
        exploring.policies.now, exploration=Exploration(share=1, max_amount_minor=1000)
    )
    desk = replace(exploring, policies=Policies(everything))
    with desk.store.write() as tx:
        customer = BODY["customer"]["customerId"]
        tx.put_on_list("block", "customer", customer, reason="known thief", author="ann", at=1)
    desk.decide(report(), Clock(), ME)
    (decision,) = kept(desk).values()
    assert (decision["action"], decision["source"]) == ("PREVENT", "LIST")
    assert (decision["explored"], decision["propensity"]) == (False, 1.0)
