"""The balance of an order: what decisions may pay of it is held, and none is paid twice."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from features.events import Transaction
from rules.policy import Policy
from serving import contract
from serving.desk import OPTIMISTIC_TRIES, Desk, Sender
from serving.facts import FACTS
from tests.serving.champions import fixed
from tests.serving.documents import BALANCE, UNHELD, document, rule
from tests.serving.test_desk import (
    BODY,
    ME,
    Clock,
    Hooked,
    data,
    kept,
    open_desk,
    report,
    url,
)

__all__ = ["open_desk", "url"]  # fixtures

COMPLETE = Policy.from_yaml(document("1", BALANCE, UNHELD, orders_complete=True), facts=FACTS)
CAPTURED_MINOR = 9000


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


def moved(desk: Desk, now: Clock, refund_id: str, amount: int, order_id: str = "o-1") -> None:
    """A transaction that names the refund it is of."""
    at = now()
    paid = Transaction(transaction_id=f"t-{at}", kind="REFUND", order_id=order_id, known_at=at,
                       refund_id=refund_id, amount_minor=amount, currency="GBP")  # fmt: skip
    with desk.store.write(None, order_id) as tx:
        tx.append([paid])


def held(desk: Desk, refund_id: str) -> int:
    """What a refund holds now, of whatever order."""
    return sum(
        hold.amount_minor
        for one in desk.store.reserved_for(refund_id)
        for hold in one.holds(cutoff=2**62)
    )


def answer_to(desk: Desk, now: Clock, *args: Any, **more: Any) -> tuple[str, Any]:
    found = data(desk.decide(asked(*args, **more), now, ME))
    return found["action"], found.get("followUp")


# --- one after another ---------------------------------------------------------------------------


@pytest.mark.each_store
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
    answer = desk.decide(asked("r-2", 4000), now, ME)
    assert data(answer)["action"] == "MANUAL_REVIEW", "it waits too: nobody is refused for it"
    assert data(answer)["reasons"][0]["code"] == "AMOUNT_ABOVE_CAPTURED"
    facts = kept(desk, answer)["facts"]
    assert (facts["order_reserved_minor"], facts["order_held_minor"]) == (0, 6000)


@pytest.mark.parametrize("status", ["DECLINED", "CANCELED"])
def test_what_was_not_paid_is_there_again(open_desk, now, status):
    desk = open_desk()
    order(desk, now)
    answer_to(desk, now, "r-1", 6000)
    desk.record(outcome("r-1", status), now(), "key:key_1")
    assert held(desk, "r-1") == 0
    assert answer_to(desk, now, "r-2", 9000)[0] == "ALLOW"


def test_a_payment_that_failed_may_be_tried_again_so_its_balance_is_held(open_desk, now):
    desk = open_desk()
    order(desk, now)
    answer_to(desk, now, "r-1", 9000)
    desk.record(outcome("r-1", "FAILED"), now(), "key:key_1")
    assert held(desk, "r-1") == 9000
    assert answer_to(desk, now, "r-2", 1)[0] == "PREVENT"
    again = desk.decide(asked("r-1", 9000), now, ME)
    assert (data(again)["action"], again.replayed) == ("ALLOW", True)
    desk.record(outcome("r-1", "COMPLETED", 9000), now(), "key:key_1")
    assert desk.store.refund("r-1").state == "REFUNDED"
    assert answer_to(desk, now, "r-3", 1)[0] == "PREVENT"


@pytest.mark.each_store
@pytest.mark.parametrize("status", ["DECLINED", "CANCELED"])
def test_an_answer_whose_balance_was_let_go_of_is_not_given_again(open_desk, now, status):
    desk = open_desk()
    order(desk, now)
    first = desk.decide(asked("r-1", 9000), now, ME)
    desk.record(outcome("r-1", status), now(), "key:key_1")
    assert answer_to(desk, now, "r-2", 9000)[0] == "ALLOW"
    desk.record(outcome("r-2", "COMPLETED", 9000), now(), "key:key_1")
    again = desk.decide(asked("r-1", 9000), now, ME)
    assert (data(again)["action"], again.replayed) == ("PREVENT", False)
    assert data(again)["scoreId"] != data(first)["scoreId"]
    assert desk.decide(asked("r-1", 9000), now, ME).body == again.body


def test_a_refund_that_was_canceled_may_be_asked_for_again(open_desk, now):
    desk = open_desk()
    order(desk, now)
    answer_to(desk, now, "r-1", 9000)
    desk.record(outcome("r-1", "CANCELED"), now(), "key:key_1")
    again = desk.decide(asked("r-1", 9000), now, ME)
    assert (data(again)["action"], again.replayed) == ("ALLOW", False)
    assert (desk.store.refund("r-1").state, held(desk, "r-1")) == ("APPROVED", 9000)
    assert desk.decide(asked("r-1", 9000), now, ME).body == again.body
    assert answer_to(desk, now, "r-2", 1)[0] == "PREVENT"
    told = desk.record(outcome("r-1", "COMPLETED", 9000), now(), "key:key_1")
    assert data(told)["warnings"] == []


@pytest.mark.parametrize("status", ["CANCELED", "FAILED"])
def test_the_pieces_of_a_refund_that_is_held_again_are_not_asked_for_by_another(
    open_desk, now, status
):
    """As a refund that is asked for again keeps the outcome that it had before."""
    desk = open_desk()
    order(desk, now)
    one = [{"lineId": "1", "sku": "s1", "quantity": 1, "price": 9000}]
    listed = {"orderId": "o-1", "price": 9000, "currency": "GBP", "items": one}
    told = contract.parse_order(orjson.dumps({"customer": BODY["customer"], "order": listed}))
    desk.record(told, now(), "key:key_1")

    def asked_twice(refund_id: str) -> Any:
        lines = [{"lineId": "1", "sku": "s1", "quantity": 1, "refundReason": "OTHER"}]
        answer = desk.decide(asked(refund_id, 1000, items=lines), now, ME)
        return kept(desk, answer)["facts"]["asked_twice_piece_count"]

    assert asked_twice("r-1") == 0
    desk.record(outcome("r-1", status), now(), "key:key_1")
    assert asked_twice("r-2") == (1 if status == "FAILED" else 0)
    assert asked_twice("r-1") == (0 if status == "FAILED" else 1)
    assert asked_twice("r-3") == 1


def test_an_idempotency_key_is_answered_to_the_letter(open_desk, now):
    desk = open_desk()
    order(desk, now)
    me = Sender("key_1", "k")
    first = desk.decide(asked("r-1", 9000), now, me)
    desk.record(outcome("r-1", "CANCELED"), now(), "key:key_1")
    again = desk.decide(asked("r-1", 9000), now, me)
    assert (again.body, again.replayed) == (first.body, True)


def test_what_was_paid_is_answered_as_before(open_desk, now):
    desk = open_desk()
    order(desk, now)
    first = desk.decide(asked("r-1", 9000), now, ME)
    desk.record(outcome("r-1", "COMPLETED", 9000), now(), "key:key_1")
    again = desk.decide(asked("r-1", 9000), now, ME)
    assert (again.body, again.replayed) == (first.body, True)


@pytest.mark.each_store
@pytest.mark.parametrize("asked_for_less", [True, False])
def test_a_promise_that_was_kept_in_part_is_not_given_again(open_desk, now, asked_for_less):
    """What was not paid of it went to another refund since."""
    desk = open_desk()
    order(desk, now)
    assert answer_to(desk, now, "r-1", 6000)[0] == "ALLOW"
    if asked_for_less:
        assert answer_to(desk, now, "r-1", 2000)[0] == "ALLOW"
    desk.record(outcome("r-1", "COMPLETED", 2000), now(), "key:key_1")
    assert answer_to(desk, now, "r-2", 7000)[0] == "ALLOW"
    again = desk.decide(asked("r-1", 6000), now, ME)
    assert (data(again)["action"], again.replayed) == ("PREVENT", False)
    assert desk.decide(asked("r-1", 2000), now, ME).replayed is asked_for_less


def test_a_place_in_the_queue_that_was_given_up_is_not_given_again(open_desk, now):
    desk = open_desk(champion=fixed(0.6))
    order(desk, now)
    answer_to(desk, now, "r-1", 6000)
    assert desk.decide(asked("r-1", 6000), now, ME).replayed
    assert answer_to(desk, now, "r-1", 9001)[0] == "PREVENT"
    again = desk.decide(asked("r-1", 6000), now, ME)
    assert (data(again)["action"], again.replayed) == ("MANUAL_REVIEW", False)
    assert (desk.store.refund("r-1").state, held(desk, "r-1")) == ("NEEDS_REVIEW", 6000)


def test_a_refusal_lets_go_of_no_promise(open_desk, now):
    """Whatever the refund went through before: it is held from the promise to the outcome."""
    desk = open_desk()
    order(desk, now)
    assert answer_to(desk, now, "r-1", 9001)[0] == "PREVENT"
    assert desk.store.refund("r-1").state == "DENIED"
    assert answer_to(desk, now, "r-1", 9000)[0] == "ALLOW"
    assert desk.store.refund("r-1").state == "APPROVED", "asked for again, it began anew"
    assert answer_to(desk, now, "r-1", 9002)[0] == "PREVENT"
    assert (desk.store.refund("r-1").state, held(desk, "r-1")) == ("APPROVED", 9000)
    assert answer_to(desk, now, "r-2", 9000)[0] == "PREVENT"
    assert desk.decide(asked("r-1", 9000), now, ME).replayed


@pytest.mark.each_store
def test_the_balance_is_held_of_the_order_that_was_decided_about(open_desk, now):
    desk = open_desk()
    order(desk, now)
    order(desk, now, "o-2")
    unplaced = {"customer": BODY["customer"], "refund": {**BODY["refund"], "amount": 1}}
    desk.record(contract.parse_refund(orjson.dumps(unplaced), scored=False), now(), "key:key_1")
    assert answer_to(desk, now, "r-1", 9000)[0] == "ALLOW"
    assert answer_to(desk, now, "r-2", 1)[0] == "PREVENT", "held of the order told later"
    assert answer_to(desk, now, "r-1", 9000, order_id="o-2")[0] == "ALLOW"
    for order_id in ("o-1", "o-2"):
        assert answer_to(desk, now, f"r of {order_id}", 1, order_id=order_id)[0] == "PREVENT"
    desk.record(outcome("r-1", "CANCELED"), now(), "key:key_1")
    for order_id in ("o-1", "o-2"):
        later = answer_to(desk, now, f"again of {order_id}", 9000, order_id=order_id)
        assert later[0] == "ALLOW", "settled for both"


@pytest.mark.each_store
def test_an_outcome_told_again_after_another_is_a_new_one(open_desk, now):
    desk = open_desk()
    order(desk, now)
    answer_to(desk, now, "r-1", 9000)
    for status, amount in (("COMPLETED", 9000), ("FAILED", None), ("COMPLETED", 9000)):
        for _ in range(2):  # delivered twice, it counts once
            desk.record(outcome("r-1", status, amount), now(), "key:key_1")
        assert answer_to(desk, now, f"r-{status}-{now()}", 1)[0] == "PREVENT"
    assert desk.store.refund("r-1").state == "REFUNDED"
    told = [e for e in desk.store.events() if e.event_type == "refund_outcome"]
    assert [e.payload["status"] for e in told] == ["COMPLETED", "FAILED", "COMPLETED"]
    audited = [e.content["events"] for e in desk.store.audit_about("refund:r-1")
               if e.action == "reported"]  # fmt: skip
    assert [told[-1].event_id] in audited, "under the id that it is kept by"


def test_what_was_paid_less_than_promised_is_there_again(open_desk, now):
    desk = open_desk()
    order(desk, now)
    answer_to(desk, now, "r-1", 6000)
    desk.record(outcome("r-1", "COMPLETED", 2000), now(), "key:key_1")
    assert answer_to(desk, now, "r-2", 7000)[0] == "ALLOW"
    desk.record(outcome("r-1", "FAILED"), now(), "key:key_1")
    assert held(desk, "r-1") == 2000, "what was paid may be tried again, the rest was given away"
    again = desk.decide(asked("r-1", 6000), now, ME)
    assert (data(again)["action"], again.replayed) == ("PREVENT", False)


def test_of_several_payments_of_a_refund_the_greatest_counts(open_desk, now):
    """Each may have come through, whichever was told last."""
    desk = open_desk(policy=COMPLETE)
    order(desk, now)
    answer_to(desk, now, "r-1", 8000)
    surprises = [
        [each["msg"] for each in desk.record(told, now(), "key:key_1").body["data"]["warnings"]]
        for told in (outcome("r-1", "COMPLETED", paid) for paid in (4000, 8000, 2000))
    ]
    less = "refund.amount: less is reported as paid than before; the greater payment counts"
    assert surprises == [[], [], [less]]
    assert answer_to(desk, now, "r-2", 4500, customer="c-2")[0] == "PREVENT"
    assert answer_to(desk, now, "r-3", 1000, customer="c-3")[0] == "ALLOW"
    assert desk.decide(asked("r-1", 8000), now, ME).replayed


def test_a_refund_that_was_only_reported_counts_until_it_is_decided_on(open_desk, now):
    desk = open_desk()
    order(desk, now)
    body = {"customer": BODY["customer"], "order": {"orderId": "o-1"},
            "refund": {**BODY["refund"], "refundId": "r-0", "amount": 9000}}  # fmt: skip
    desk.record(contract.parse_refund(orjson.dumps(body), scored=False), now(), "key:key_1")
    assert answer_to(desk, now, "r-1", 1)[0] == "PREVENT"
    assert answer_to(desk, now, "r-0", 9001)[0] == "PREVENT"
    assert answer_to(desk, now, "r-2", 1)[0] == "ALLOW", "decided on, it holds nothing"


def test_a_transaction_before_the_outcome_counts_once(open_desk, now):
    desk = open_desk()
    order(desk, now)
    answer_to(desk, now, "r-1", 3000)
    moved(desk, now, "r-1", 3000)
    assert answer_to(desk, now, "r-2", 6000)[0] == "ALLOW"
    desk.record(outcome("r-1", "COMPLETED", 3000), now(), "key:key_1")
    assert answer_to(desk, now, "r-3", 1)[0] == "PREVENT"


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


def test_the_ledger_is_kept_whatever_the_policy_in_force_reads(open_desk, now):
    desk = open_desk(policy=Policy.from_yaml(document("2", rule()), facts=FACTS))
    order(desk, now)
    assert answer_to(desk, now, "r-1", 6000)[0] == "ALLOW"
    facts = kept(desk, desk.decide(asked("r-2", 6000), now, ME))["facts"]
    assert (facts["order_captured_minor"], facts["order_reserved_minor"]) == (9000, 6000)


# --- at once -------------------------------------------------------------------------------------


def paid(desk: Desk, refunds: dict[str, int]) -> int:
    """What the decisions on these refunds let be paid, at most."""
    found = {d.refund_id: d.record["decision"]["action"] for d in desk.store.decisions()}
    return sum(minor for refund, minor in refunds.items() if found.get(refund) != "PREVENT")


@pytest.mark.each_store
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


@pytest.mark.each_store
def test_an_outcome_in_between_makes_a_decision_be_made_again(open_desk, now):
    others, desk = open_desk(), open_desk(Hooked)
    order(desk, now)
    answer_to(others, now, "r-0", 5000, "somebody")
    desk.store.between(lambda: others.record(outcome("r-0", "CANCELED"), now(), "key:key_1"))
    answer = desk.decide(asked("r-1", 8000), now, ME)
    assert data(answer)["action"] == "ALLOW"
    assert kept(desk, answer)["facts"]["order_reserved_minor"] == 0


@pytest.mark.each_store
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
