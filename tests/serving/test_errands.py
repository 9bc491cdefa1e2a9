"""What an errand looks at again under the lock: whatever may have moved since it was prepared."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import orjson
import pytest

from serving import contract
from serving.desk import Desk, Sender
from serving.errands import Scoring, Telling
from serving.together import together
from serving.watch import Watch
from tests.serving.listening import listen
from tests.serving.test_desk import BODY, ME, SQLITE, Clock, earlier, kept, now, open_desk, url
from tests.serving.test_idempotency import of
from tests.serving.test_reservations import CAPTURED_MINOR, COMPLETE, asked, order

__all__ = ["now", "open_desk", "url"]  # fixtures

LOOKS = ("FROM decisions ", "FROM idempotency_keys ", "FROM reservations WHERE reservations.order")
"""What it asks of a decision or a key before it, and of what others hold."""


def scoring(desk: Desk, now: Clock, said: Any, sender: Sender = ME) -> Scoring:
    return Scoring(desk, said, now, sender, Watch(60_000))


def paid(refund_id: str) -> Any:
    """An outcome that names neither the customer nor the order."""
    said = {"refund": {"refundId": refund_id, "status": "COMPLETED"}}
    return contract.parse_refund(orjson.dumps(said), scored=False)


def looks(desk: Desk, act: Any) -> list[int]:
    """How often each of the looks is taken while ``act`` is done."""
    heard: list[str] = []
    listen(desk.store, lambda statement, _: heard.append(" ".join(statement.split())))
    act()
    return [sum(look in statement for statement in heard) for look in LOOKS]


@SQLITE
def test_where_nobody_wrote_meanwhile_nothing_is_looked_at_twice(open_desk, now):
    desk = open_desk()
    desk.decide(of(0), now, ME)
    assert looks(desk, lambda: desk.decide(of(1), now, Sender("key_1", "k"))) == [1, 1, 1]


@SQLITE
def test_of_those_who_come_together_all_but_the_first_look_again(open_desk, now):
    desk = open_desk()
    three = [scoring(desk, now, of(number)) for number in range(3)]
    assert looks(desk, lambda: together(three)) == [5, 0, 5]


@pytest.mark.each_store
def test_an_outcome_that_comes_together_with_a_decision_moves_its_customer(open_desk, now):
    """Though the two name nothing in common, so that they share a commit."""
    desk = open_desk()
    desk.decide(of(0), now, ME)
    again = deepcopy(BODY)
    again["customer"]["customerId"], again["order"]["orderId"] = "customerId 0", "another"
    again["refund"]["refundId"] = "r-again"
    asked_again = scoring(desk, now, contract.parse_refund(orjson.dumps(again), scored=True))
    told = Telling(desk, paid("r-0"), now, "key:key_1")
    assert told.names().isdisjoint(asked_again.names())
    answer = together([told, asked_again])[1]
    assert earlier(desk, answer) == 1
    assert kept(desk, answer)["features"]["refund_completed_count_by_customer_30d"] == 1


@pytest.mark.each_store
def test_an_outcome_that_comes_together_with_a_decision_moves_its_order(open_desk, now):
    desk = open_desk(policy=COMPLETE)
    order(desk, now)
    desk.decide(asked("r-0", CAPTURED_MINOR, customer="c-0"), now, ME)
    canceled = contract.parse_refund(
        orjson.dumps({"refund": {"refundId": "r-0", "status": "CANCELED"}}), scored=False
    )
    told = Telling(desk, canceled, now, "key:key_1")
    asked_again = scoring(desk, now, asked("r-1", CAPTURED_MINOR, customer="c-1"))
    answer = together([told, asked_again])[1]
    assert kept(desk, answer)["decision"]["action"] == "ALLOW", "what was held is free again"
