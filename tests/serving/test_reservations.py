"""The balance of an order: what decisions may pay of it is held, and none is paid twice."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.policy import Policy
from serving import contract
from serving.desk import OPTIMISTIC_TRIES, Desk
from serving.facts import FACTS
from serving.models import Models
from serving.policies import Policies
from serving.store.store import Store
from tests.serving.champions import fixed
from tests.serving.documents import BALANCE, document, rule
from tests.serving.store.conftest import new_database
from tests.serving.test_desk import (
    BODY,
    ME,
    SECRET,
    Clock,
    Hooked,
    Rates,
    data,
    kept,
    open_desk,
    report,
)

__all__ = ["new_database", "open_desk"]  # fixtures

COMPLETE = Policy.from_yaml(document("1", BALANCE, orders_complete=True), facts=FACTS)
CAPTURED_MINOR = 9000


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if getattr(request, "param", "sqlite") == "postgresql":
        made: str = request.getfixturevalue("new_database")()
        return made
    return f"sqlite:///{tmp_path}/desk.db"


@pytest.fixture
def policy() -> Policy:
    """A merchant who reports every order and capture."""
    return COMPLETE


@pytest.fixture
def now() -> Clock:
    return Clock()


def order(desk: Desk, now: Clock, order_id: str = "o-1", captured: int = CAPTURED_MINOR) -> None:
    """An order that was paid."""
    body = {"customer": BODY["customer"],
            "order": {"orderId": order_id, "price": captured, "currency": "GBP"},
            "transactions": [{"transactionId": f"t-{order_id}", "type": "CAPTURE",
                              "amount": captured, "currency": "GBP", "success": True}]}  # fmt: skip
    desk.record(contract.parse_order(orjson.dumps(body)), now(), "key:key_1")


def asked(
    refund_id: str, amount: int, customer: str = "cust-in-clear", order_id: str = "o-1",
    **refund: Any,
) -> Any:  # fmt: skip
    body = {**BODY, "customer": {"customerId": customer},
            "order": {"orderId": order_id}}  # fmt: skip
    return report(body, amount=amount, refundId=refund_id, **refund)


def outcome(refund_id: str, status: str, amount: int | None = None) -> Any:
    said = {"refundId": refund_id, "status": status}
    if amount is not None:
        said |= {"amount": amount, "currency": "GBP"}  # type: ignore[dict-item]
    return contract.parse_refund(orjson.dumps({"refund": said}), scored=False)


def held(desk: Desk, refund_id: str) -> int:
    return desk.store.refund(refund_id).reserved_minor  # type: ignore[union-attr]


def answer_to(desk: Desk, now: Clock, *args: Any, **more: Any) -> tuple[str, Any]:
    found = data(desk.decide(asked(*args, **more), now, ME))
    return found["action"], found.get("followUp")


# --- one after another ---------------------------------------------------------------------------


def test_what_is_allowed_is_held_and_what_is_left_is_suggested(open_desk, now):
    desk = open_desk()
    order(desk, now)
    assert answer_to(desk, now, "r-1", 6000) == ("ALLOW", None)
    assert held(desk, "r-1") == 6000
    action, follow_up = answer_to(desk, now, "r-2", 4000)
    assert action == "PREVENT"
    assert follow_up == {"code": "PARTIAL_AMOUNT", "amount": 3000, "currency": "GBP",
                         "ruleId": "amount_above_captured"}  # fmt: skip
    assert held(desk, "r-2") == 0
    assert answer_to(desk, now, "r-3", 3000) == ("ALLOW", None)
    assert answer_to(desk, now, "r-4", 1) == ("PREVENT", None), "nothing is left to suggest"


def test_what_policy_keeps_is_not_held(open_desk, now):
    desk = open_desk()
    order(desk, now)
    assert answer_to(desk, now, "r-1", 6000, nonRefundableAmount=500)[0] == "ALLOW"
    assert held(desk, "r-1") == 5500
    assert answer_to(desk, now, "r-2", 3500)[0] == "ALLOW"


def test_what_waits_for_a_person_is_held_too(open_desk, now):
    desk = open_desk(champion=fixed(0.6))
    order(desk, now)
    assert answer_to(desk, now, "r-1", 6000)[0] == "MANUAL_REVIEW"
    assert held(desk, "r-1") == 6000
    assert answer_to(desk, now, "r-2", 4000)[0] == "PREVENT"


@pytest.mark.parametrize("status", ["DECLINED", "FAILED", "CANCELED"])
def test_what_was_not_paid_is_there_again(open_desk, now, status):
    desk = open_desk()
    order(desk, now)
    answer_to(desk, now, "r-1", 6000)
    desk.record(outcome("r-1", status), now(), "key:key_1")
    assert held(desk, "r-1") == 0
    assert answer_to(desk, now, "r-2", 9000)[0] == "ALLOW"


def test_what_was_paid_counts_once(open_desk, now):
    desk = open_desk()
    order(desk, now)
    answer_to(desk, now, "r-1", 6000)
    desk.record(outcome("r-1", "COMPLETED", 6000), now(), "key:key_1")
    assert held(desk, "r-1") == 0
    assert answer_to(desk, now, "r-2", 3001)[0] == "PREVENT"
    assert answer_to(desk, now, "r-3", 3000)[0] == "ALLOW"


def test_a_refund_asked_again_holds_what_it_may_be_paid_now(open_desk, now):
    desk = open_desk()
    order(desk, now)
    answer_to(desk, now, "r-1", 6000)
    answer_to(desk, now, "r-1", 2000)
    assert held(desk, "r-1") == 6000, "the approval of 6000 may be under way"
    answer_to(desk, now, "r-1", 9000)
    assert held(desk, "r-1") == 9000
    assert answer_to(desk, now, "r-1", 9001)[0] == "PREVENT"
    assert held(desk, "r-1") == 9000


def test_a_review_that_becomes_a_refusal_holds_nothing(open_desk, now):
    desk = open_desk(champion=fixed(0.6))
    order(desk, now)
    answer_to(desk, now, "r-1", 6000)
    assert answer_to(desk, now, "r-1", 9001)[0] == "PREVENT"
    assert held(desk, "r-1") == 0


def test_what_is_held_in_another_currency_cannot_be_told(open_desk, now):
    desk = open_desk()
    order(desk, now)
    answer_to(desk, now, "r-1", 100, currency="EUR")
    answer = desk.decide(asked("r-2", 100), now, ME)
    assert data(answer)["action"] == "MANUAL_REVIEW", "an unsettled hard rule is a review"
    assert "order_reserved_minor" not in kept(desk, answer)["facts"]


def test_a_policy_that_does_not_ask_reads_no_balance(open_desk, now):
    plain = Policy.from_yaml(document("2", rule()), facts=FACTS)

    class Blind(Store):
        def reserved(self, order_id: str, besides: str) -> dict[str, int]:
            raise AssertionError("nobody asked")

        def order_events(self, *_: Any) -> Any:
            raise AssertionError("nobody asked")

    desk = open_desk(Blind, policy=plain)
    assert answer_to(desk, now, "r-1", 6000)[0] == "ALLOW"
    assert held(desk, "r-1") == 6000, "another policy may ask later"


# --- at once -------------------------------------------------------------------------------------


def paid(desk: Desk, refunds: dict[str, int]) -> int:
    """What the decisions on these refunds let be paid, at most."""
    found = {d.refund_id: d.record["decision"]["action"] for d in desk.store.decisions()}
    return sum(minor for refund, minor in refunds.items() if found.get(refund) != "PREVENT")


BOTH = pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)


@BOTH
@pytest.mark.parametrize("attempts", range(1, OPTIMISTIC_TRIES + 1))
def test_who_loses_the_race_for_the_balance_is_decided_again(open_desk, now, attempts):
    others, desk = open_desk(), open_desk(Hooked)
    order(desk, now)
    taken = iter(range(1, 10))
    desk.store.between(
        lambda: others.decide(asked(f"r-other-{next(taken)}", 2000, "somebody"), now, ME), attempts
    )
    answer = desk.decide(asked("r-1", 8000), now, ME)
    assert data(answer)["action"] == "PREVENT"
    assert kept(desk, answer)["facts"]["order_reserved_minor"] == 2000 * attempts
    assert data(answer)["followUp"]["amount"] == CAPTURED_MINOR - 2000 * attempts


def test_an_outcome_in_between_makes_a_decision_be_made_again(open_desk, now):
    others, desk = open_desk(), open_desk(Hooked)
    order(desk, now)
    answer_to(others, now, "r-0", 5000, "somebody")
    desk.store.between(lambda: others.record(outcome("r-0", "FAILED"), now(), "key:key_1"))
    answer = desk.decide(asked("r-1", 8000), now, ME)
    assert data(answer)["action"] == "ALLOW"
    assert kept(desk, answer)["facts"]["order_reserved_minor"] == 0


@BOTH
@pytest.mark.parametrize("customers", [1, 2, 8])
def test_of_refunds_sent_at_once_no_more_is_allowed_than_was_captured(open_desk, now, customers):
    desks = [open_desk(), open_desk()]
    order(desks[0], now)
    refunds = {f"r-{number}": 4000 for number in range(8)}
    start = threading.Barrier(len(refunds))

    def decide(number: int) -> str:
        start.wait()
        one = asked(f"r-{number}", 4000, f"c-{number % customers}")
        return data(desks[number % 2].decide(one, now, ME))["action"]

    with ThreadPoolExecutor(len(refunds)) as pool:
        actions = list(pool.map(decide, range(len(refunds))))
    assert sorted(actions) == ["ALLOW"] * 2 + ["PREVENT"] * 6
    assert paid(desks[0], refunds) == 8000


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 6000)),
        st.tuples(st.sampled_from(["COMPLETED", "DECLINED", "FAILED"]), st.integers(0, 5)),
    ),
    max_size=10,
)


@given(STEPS)
@settings(max_examples=25)
def test_an_answer_is_what_a_ledger_kept_by_hand_says(tmp_path_factory, steps):
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('balance')}/desk.db", SECRET)
    desk = Desk(store, Policies(COMPLETE), Models(fixed()), Rates("GBP"), SECRET, 60_000)
    now = Clock()
    order(desk, now)
    paid_minor, open_minor = 0, dict[str, int]()
    for number, (what, value) in enumerate(steps):
        if what == "ask":
            left = CAPTURED_MINOR - paid_minor - sum(open_minor.values())
            action, follow_up = answer_to(desk, now, f"r-{number}", value, f"c-{number % 3}")
            assert action == ("ALLOW" if value <= left else "PREVENT")
            assert (follow_up or {}).get("amount") == (left if 0 < left < value else None)
            if action == "ALLOW":
                open_minor[f"r-{number}"] = value
        elif value < len(open_minor):
            refund_id = list(open_minor)[value]
            due = open_minor.pop(refund_id)
            paid_minor += due if what == "COMPLETED" else 0
            said = outcome(refund_id, what, due if what == "COMPLETED" else None)
            desk.record(said, now(), "key:key_1")
    store.close()
