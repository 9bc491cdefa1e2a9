"""Deciding again from the record: the same comes out, and whatever was altered shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from rules.decision import Action
from serving import policies
from serving.desk import Desk
from serving.models import Models
from serving.recompute import Recomputation, recompute
from serving.store.store import Store
from tests.serving.champions import fixed
from tests.serving.documents import document, rule
from tests.serving.test_desk import (
    BODY,
    LATE_BODY,
    ME,
    NOW,
    Clock,
    data,
    open_desk,
    put_on,
    report,
    sent_by,
    url,
)
from tests.serving.test_policies import tampered

__all__ = ["open_desk", "url"]  # fixtures

FIRST = document(
    "1",
    rule(),
    rule(id="forced_off", mode="shadow"),
    rule(id="unsettled", stage="hard", when="ip_risk > 0.9",
         examples={"hit": [{"ip_risk": 1}], "miss": [{"ip_risk": 0}]}),
    rule(id="listed_device", when="device_on_block_list && amount_minor > 5.0", mode="shadow",
         examples={"hit": [{"device_on_block_list": True, "amount_minor": 6}],
                   "miss": [{"amount_minor": 1}]}),
    limits=[{"id": "per_day", "version": 1, "by": "device", "days": 1, "at_most": 3,
             "action": "MANUAL_REVIEW"}],
    lists={"block": ["customer"], "allow": ["customer"]},
    exploration={"share": 0.5, "max_amount_minor": 100_000},
)  # fmt: skip


@pytest.fixture
def now() -> Clock:
    return Clock()


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    opened = open_desk(champion=fixed(0.6))
    policies.ensure_first(opened.store, FIRST, 1)
    opened.policies.put(policies.active(opened.store))
    return opened


def settled(refund_id: str, **more: Any) -> Any:
    """A refund that the unsettled rule has nothing against, by a customer and device of its own."""
    body = {**BODY, "customer": {"customerId": more.pop("customer", f"c-{refund_id}")},
            "device": {"deviceId": more.pop("device", f"d-{refund_id}"), "ipRisk": 0.1},
            }  # fmt: skip
    return report(body, refund_id, **more)


def all_the_same(found: Recomputation, decisions: int) -> None:
    assert (found.decisions, found.same, found.whole) == (decisions, decisions, decisions)
    assert (found.share, found.differing, found.older) == (1.0, [], 0)


def test_whatever_bore_on_a_decision_bears_on_it_again(desk, now):
    sources = set()
    for number in range(12):
        one = settled(f"r-{number}", device="one device" if number % 2 else f"d-{number}")
        sources.add(data(desk.decide(one, now, ME))["source"])
    put_on(desk, "block")
    sources.add(data(desk.decide(report(refund_id="blocked"), now, ME))["source"])
    for champion in (None, fixed(fails=RuntimeError("boom")), fixed(0.99)):
        other = replace(desk, models=Models(champion, fixed(0.2)))
        sources.add(data(other.decide(settled(f"r-{champion and champion.version}-{id(champion)}"),
                                      now, ME))["source"])  # fmt: skip
    nobody = {**BODY, "customer": {"customerId": "unsettled"}, "device": {"deviceId": "unsettled"}}
    desk.decide(report(nobody, "unsettled"), now, ME)
    found = recompute(desk.store)
    all_the_same(found, 17)
    assert sources == {"MODEL", "RATE_LIMIT", "LIST", "FALLBACK"}
    assert set(found.by_source) == sources | {"RULE"}
    stored = [decision.record["decision"] for decision in desk.store.decisions()]
    assert {decision["explored"] for decision in stored} == {True, False}
    assert any(decision["unknowns"] for decision in stored)


@pytest.mark.parametrize("word", ["allow", "prevent", "manualreview", "review"])
def test_a_forced_answer_is_forced_again(desk, now, word):
    sandbox = replace(desk, is_sandbox=True)
    answer = sandbox.decide(sent_by(f"qa-force-refund-{word}@any.example", LATE_BODY), now, ME)
    all_the_same(recompute(desk.store), 1)
    (stored,) = desk.store.decisions()
    assert stored.record["sandbox"] == data(answer)["action"]


def test_an_analysts_word_stands_again(desk, now):
    class Reviewed(Desk):
        def _circumstances(self, *given: Any) -> Any:
            return replace(super()._circumstances(*given), disposition=Action.PREVENT)

    fields = {name: getattr(desk, name) for name in desk.__dataclass_fields__}
    answer = Reviewed(**fields).decide(settled("r-1"), now, ME)
    assert (data(answer)["action"], data(answer)["source"]) == ("PREVENT", "MANUAL_REVIEW")
    found = recompute(desk.store)
    all_the_same(found, 1)
    assert dict(found.by_source) == {"MANUAL_REVIEW": 1}


def test_the_record_keeps_what_only_the_policy_reads(desk, now):
    put_on(desk, "block", "device")
    desk.decide(report(), now, ME)
    (stored,) = desk.store.decisions()
    facts = stored.record["facts"]
    assert facts["refund_reason"] == "CHANGED_MIND"
    assert facts["asked_minor"] == 1000
    assert facts["shipping_country"] == "GB"
    assert not facts.keys() & stored.record["features"].keys()
    assert None not in facts.values(), "what is unknown is left out"
    lists = stored.record["lists"]
    assert lists["block"] == [["device", "on the block list"]]
    assert "payment_method" in lists["entities"]
    assert "refund" not in lists["entities"]


def test_each_decision_is_made_again_by_its_own_policy(desk, now):
    desk.decide(settled("r-1", amount=45_000), now, ME)
    second = document("2", rule(40_000, version=2, action="PREVENT"))
    policies.propose(desk.store, second, author="ann", note=None, at=2)
    policies.activate(desk.store, "2", actor="bob", at=3, second_person=True)
    desk.policies.put(policies.active(desk.store))
    answer = desk.decide(settled("r-2", amount=45_000), now, ME)
    assert data(answer)["action"] == "PREVENT"
    found = recompute(desk.store)
    all_the_same(found, 2)
    assert dict(found.by_policy) == {"1": 1, "2": 1}
    all_the_same(recompute(desk.store, since=NOW + 1), 1)
    all_the_same(recompute(desk.store, until=NOW + 1), 1)


# --- what was altered shows ----------------------------------------------------------------------


def altered(store: Store, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the one record of a store behind the program's back."""
    with store.database.write() as connection:
        (kept,) = connection.execute(text("SELECT record FROM decisions")).scalars()
        record = orjson.loads(kept)
        change(record)
        connection.execute(
            text("UPDATE decisions SET record = :record"), {"record": orjson.dumps(record).decode()}
        )


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("probability",), 0.01, "action"),
        (("facts", "amount_minor"), 90_000.0, "hits"),
        (("decision", "action"), "ALLOW", 'action was "ALLOW"'),
        (("decision", "propensity"), 0.123, "propensity was 0.123"),
        (("lists", "block"), [["customer", "planted"]], "source"),
        (("sandbox",), "ALLOW", "source"),
    ],
)
def test_an_altered_record_comes_out_differently(desk, now, path, value, told):
    desk = replace(desk, models=Models(fixed(0.95)))
    policies.propose(desk.store, document("2", rule()), author="ann", note=None, at=2)
    policies.activate(desk.store, "2", actor="bob", at=3, second_person=True)
    desk.policies.put(policies.active(desk.store))
    desk.decide(settled("r-1"), now, ME)
    all_the_same(recompute(desk.store), 1)

    def change(record: dict[str, Any]) -> None:
        inner = record
        for step in path[:-1]:
            inner = inner[step]
        assert inner[path[-1]] != value
        inner[path[-1]] = value

    altered(desk.store, change)
    found = recompute(desk.store)
    assert (found.decisions, found.whole) == (1, 0)
    (one,) = found.differing
    assert told in one.problem
    assert one.refund_id == "r-1"
    assert "r-1" in found.to_text()


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)  # for its triggers
def test_an_altered_or_missing_policy_is_no_witness(desk, now):
    desk.decide(settled("r-1"), now, ME)
    tampered(desk.store, "1", "share: 0.5", "share: 0.6")
    found = recompute(desk.store)
    assert (found.decisions, found.same, found.share) == (1, 0, 0.0)
    assert "altered" in found.differing[0].problem
    altered(desk.store, lambda record: record["decision"].update(policy_hash="of another store"))
    assert "is not in the store" in recompute(desk.store).differing[0].problem


def test_what_an_older_program_logged_is_counted_apart(desk, now):
    desk.decide(settled("r-1"), now, ME)
    altered(desk.store, lambda record: record.pop("facts"))
    found = recompute(desk.store)
    assert (found.decisions, found.older, found.share) == (0, 1, None)
    assert found.to_json()["older"] == 1
    assert "left out" in found.to_text()


def test_an_empty_store_has_nothing_to_compare(desk):
    assert recompute(desk.store).to_text().endswith("no decision to compare")
