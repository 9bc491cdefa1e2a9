"""Rules, warnings, verdicts and audit entries of a decision, as they are on file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from features.events import Label
from features.money import Rates
from rules.policy import Policy
from serving.desk import Desk
from serving.explanation.annals import audit_of, notes_of, rules_told, warnings_of
from serving.language import ENGLISH
from serving.models import Models
from serving.policies import Policies
from serving.store.erasure import erase
from serving.store.store import Store
from tests.serving.champions import fixed
from tests.serving.explanation.stored import NOW, asked, day, decide, put
from tests.serving.test_desk import BODY, LATE_BODY, ME, NAMES, report

SECRET = b"a secret of 16 bytes or more"
HOSTILE = "</script><img src=x onerror=alert(1)>{author}\u202e"

pytestmark = pytest.mark.each_store


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = Store.open(store_url, SECRET)
    yield opened
    opened.close()


@pytest.fixture
def desk(store: Store, policy: Policy) -> Desk:
    return Desk(store, Policies(policy), Models(fixed(0.4)), Rates("GBP"), SECRET, 60_000)


def test_every_rule_is_told_and_which_of_them_decided(desk: Desk, policy: Policy) -> None:
    desk.decide(report(LATE_BODY), lambda: NOW, ME)
    (decision,) = desk.store.decisions_of("r-1")
    told = rules_told(decision, policy, ENGLISH)
    assert {rule.rule_id for rule in told} == {rule.id for rule in policy.rules}
    outcomes = [rule.outcome for rule in told]
    assert outcomes == sorted(outcomes, key=["hit", "unknown", "miss"].index)
    (decisive,) = [rule for rule in told if rule.decisive]
    assert (decisive.rule_id, decisive.action) == ("outside_return_window", "PREVENT")
    assert decisive.description
    for rule in told:
        known = next(each for each in policy.rules if each.id == rule.rule_id)
        assert (rule.description, rule.stage) == (known.miss.description, known.miss.stage.value)
        assert bool(rule.unknown_facts) == (rule.outcome == "unknown")
    bare = [rule for rule in rules_told(decision, None, ENGLISH) if rule.outcome == "miss"]
    assert {rule.description for rule in bare} == {
        "The policy that this rule is of is not at hand."
    }


def test_no_rule_is_decisive_where_the_model_decided(desk: Desk, policy: Policy) -> None:
    desk.decide(report(), lambda: NOW, ME)
    (decision,) = desk.store.decisions_of("r-1")
    assert decision.record["decision"]["source"] == "MODEL"
    assert not any(rule.decisive for rule in rules_told(decision, policy, ENGLISH))


def test_a_rule_in_the_shadow_is_told_and_never_decisive(store: Store) -> None:
    decision = decide(store, asked("r", 0))
    hit = {"rule_id": HOSTILE, "version": 3, "mode": "shadow", "stage": "risk", "outcome": "hit",
           "action": "PREVENT", "calls_for": "PREVENT", "reason": HOSTILE,
           "description": HOSTILE, "unknown_facts": []}  # fmt: skip
    live = {**hit, "rule_id": "live", "mode": "live"}
    milder = {**live, "rule_id": "milder", "calls_for": "MANUAL_REVIEW"}
    settled = {"action": "PREVENT", "source": "RATE_LIMIT", "hits": [hit, live, milder],
               "unknowns": [], "misses": []}  # fmt: skip
    made = replace(decision, record={**decision.record, "decision": settled})
    told = rules_told(made, None, ENGLISH)
    assert [(rule.rule_id, rule.mode, rule.decisive) for rule in told] == [
        (HOSTILE, "shadow", False), ("live", "live", True), ("milder", "live", False),
    ]  # fmt: skip
    assert (told[0].description, told[0].reason) == (HOSTILE, HOSTILE)
    for source in ("LIST", "MODEL", "MANUAL_REVIEW", "FALLBACK"):
        by_other = {**decision.record, "decision": {**settled, "source": source}}
        told = rules_told(replace(decision, record=by_other), None, ENGLISH)
        assert not any(rule.decisive for rule in told)


def test_warnings_are_told_as_they_were_answered(desk: Desk) -> None:
    desk.decide(report(BODY, claim="FULLY"), lambda: NOW, ME)
    (decision,) = desk.store.decisions_of("r-1")
    assert any(told.startswith("refund.claim: ") for told in warnings_of(decision))
    assert len(warnings_of(decision)) == len(decision.response["data"]["warnings"])


def test_verdicts_on_the_refund_are_notes_with_who_gave_them(store: Store) -> None:
    decide(store, asked("r", 0))
    put(store, [
        Label(refund_id="r", label="REFUND_ABUSE", source="ANALYST", reviewer=HOSTILE,
              known_at=day(1)),
        Label(refund_id="r", label="NOT_REFUND_ABUSE", known_at=day(2)),
        Label(refund_id="other", label="REFUND_ABUSE", known_at=day(2)),
        Label(customer_id="ann", label="REFUND_ABUSE", known_at=day(2)),
    ])  # fmt: skip
    assert [(note.at, note.author, note.said) for note in notes_of(store, "r", ENGLISH)] == [
        (day(1), store.identifiers.mac("reviewer", HOSTILE), "Confirmed as abuse by an analyst"),
        (day(2), "not named", "Cleared of abuse"),
    ]


def test_audit_entries_about_the_refund_are_told_without_what_is_personal(store: Store) -> None:
    with store.write() as tx:
        for n in range(5):
            tx.audit("key:k", "decided", "refund:r", {"n": n, "word": HOSTILE}, at=NOW + n)
        tx.audit("key:k", "decided", "refund:r2", {}, at=NOW)
        tx.audit("ann", "noted", "refund:r", {}, at=NOW + 5, personal={"by": "Ann Lee"})
    told = audit_of(store, "r", most=3)
    assert [(entry.at, entry.actor, entry.action) for entry in told] == [
        (NOW + 3, "key:k", "decided"), (NOW + 4, "key:k", "decided"), (NOW + 5, "ann", "noted"),
    ]  # fmt: skip
    assert told[0].content == {"n": 3, "word": HOSTILE}
    assert [entry.seq for entry in told] == sorted(entry.seq for entry in told)
    assert "Ann Lee" not in repr(told)
    assert not told[-1].erased
    with store.write() as tx:
        store.audit_log.erase_before(tx._connection, NOW + 6)
    assert [entry.erased for entry in audit_of(store, "r", most=3)] == [False, False, True]


def test_an_erased_customers_decision_is_told_like_any_other(desk: Desk, policy: Policy) -> None:
    desk.decide(report(BODY, claim="ASK ANN"), lambda: NOW, ME)
    (before,) = desk.store.decisions_of("r-1")
    erase(desk.store, NAMES["customer"], actor="eve", at=NOW + 1)
    (after,) = desk.store.decisions_of("r-1")
    assert rules_told(after, policy, ENGLISH) == rules_told(before, policy, ENGLISH)
    assert "ERASED" in warnings_of(after)
    assert len(audit_of(desk.store, "r-1")) == 1
    assert notes_of(desk.store, "r-1", ENGLISH) == ()
