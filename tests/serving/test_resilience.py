"""The store fails at any moment, and reports come late, twice and in any order: nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from sqlalchemy.exc import OperationalError

from features.money import DAY_MS
from serving import contract
from serving.desk import Sender
from serving.store.database import STORE_UNAVAILABLE
from serving.store.store import Store, Transaction
from tests.serving.listening import listen
from tests.serving.test_desk import BODY, ME, NOW, data, earlier, kept, now, open_desk, report, url

__all__ = ["now", "open_desk", "url"]  # fixtures

POSTGRESQL = pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)


# --- PostgreSQL comes and goes -------------------------------------------------------------------


@POSTGRESQL
def test_a_restart_of_the_server_costs_no_request(open_desk, now, new_database):
    """Connections that it cut off are not used again, and never were after the last request."""
    desk = open_desk()
    first = desk.decide(report(), now, Sender("key_1", "k"))
    desk.record(outcome("r-1", "FAILED"), now(), "key:key_1")
    new_database.restart()
    assert desk.decide(report(), now, Sender("key_1", "k")).body == first.body
    assert earlier(desk, desk.decide(report(refund_id="r-2"), now, ME)) == 1
    new_database.restart()
    desk.record(outcome("r-2", "COMPLETED"), now(), "key:key_1")
    assert desk.store.refund("r-2").state == "REFUNDED"


@POSTGRESQL
def test_without_a_server_nothing_is_answered_and_then_all_is(open_desk, now, new_database):
    desk = open_desk()
    desk.decide(report(), now, ME)
    new_database.stop_at_once()
    try:
        for _ in range(2):
            with pytest.raises(STORE_UNAVAILABLE):
                desk.decide(report(refund_id="r-2"), now, Sender("key_1", "k"))
            with pytest.raises(STORE_UNAVAILABLE):
                desk.record(outcome("r-1", "COMPLETED"), now(), "key:key_1")
    finally:
        new_database.start()
    assert (desk.store.refund("r-1").state, desk.store.refund("r-2")) == ("APPROVED", None)
    assert earlier(desk, desk.decide(report(refund_id="r-2"), now, Sender("key_1", "k"))) == 1


@POSTGRESQL
def test_a_session_that_ends_in_the_midst_of_a_transaction_keeps_nothing(open_desk, now):
    """Before whichever of its statements: as a fault of the server, or of the network, would."""
    desk, other = open_desk(), open_desk()
    left = 0

    def heard(statement: str, _: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            with other.store.database.read() as connection:
                connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

    listen(desk.store, heard)
    cut = 0
    for number in range(5, 40, 5):
        left = number
        refund_id = f"r-{number}"
        try:
            desk.decide(report(refund_id=refund_id), now, ME)
        except STORE_UNAVAILABLE:
            cut += 1
            assert other.store.refund(refund_id) is None
            assert other.store.decisions_of(refund_id) == []
            assert other.store.audit_about(f"refund:{refund_id}") == []
        left = 0
        answer = desk.decide(report(refund_id=refund_id), now, ME)
        assert earlier(desk, answer) == number // 5 - 1
    assert cut > 2


# --- whichever store -----------------------------------------------------------------------------


class Unheard(Store):
    """A store that commits, and whose answer is lost on the way."""

    @contextmanager
    def write_about(self, *about: Any) -> Iterator[Transaction]:
        with super().write_about(*about) as tx:
            yield tx
        raise OperationalError("COMMIT", None, OSError("connection reset"))


@pytest.mark.each_store
@pytest.mark.parametrize("key", [None, "k-1"])
def test_what_was_kept_though_nobody_heard_is_answered_when_it_is_asked_again(open_desk, now, key):
    me = Sender("key_1", key)
    with pytest.raises(STORE_UNAVAILABLE):
        open_desk(Unheard).decide(report(), now, me)
    desk = open_desk()
    (decision,) = desk.store.decisions_of("r-1")
    again = desk.decide(report(), now, me)
    assert (again.replayed, data(again)["scoreId"]) == (True, decision.score_id)
    assert len(desk.store.audit_about("refund:r-1")) == 1
    assert earlier(desk, desk.decide(report(refund_id="r-2"), now, ME)) == 1


def outcome(refund_id: str, status: str) -> Any:
    body = {"refund": {"refundId": refund_id, "status": status}}
    return contract.parse_refund(orjson.dumps(body), scored=False)


def month_of(number: int) -> list[tuple[Any, int]]:
    """What happened to a customer in a month, and when it became known."""
    refund_id, order_id = f"r-{number}", f"o-{number}"
    who = {"customer": {"customerId": f"c-{number}"}}
    order = {**who, "order": {"orderId": order_id, "price": 9000, "currency": "GBP"},
             "transactions": [{"transactionId": f"t-{number}", "type": "CAPTURE", "amount": 9000,
                               "currency": "GBP", "success": True}]}  # fmt: skip
    asked = {**who, "order": {"orderId": order_id},
             "refund": {**BODY["refund"], "refundId": refund_id}}  # fmt: skip
    label = {"category": "REFUND_ABUSE", "review": "REFUND_ABUSE", "refundId": refund_id}
    dispute = {**who, "dispute": {"disputeId": f"d-{number}", "stage": "CHARGEBACK"}}
    returned = {"return": {"refundId": refund_id, "status": "RECEIVED"}}
    reports = [
        contract.parse_order(orjson.dumps(order)),
        contract.parse_refund(orjson.dumps(asked), scored=False),
        outcome(refund_id, "FAILED"),
        contract.parse_return(orjson.dumps(returned)),
        outcome(refund_id, "COMPLETED"),
        contract.parse_dispute(orjson.dumps(dispute)),
        contract.parse_label(orjson.dumps(label), f"c-{number}"),
    ]
    return [(one, NOW - (24 - 3 * place) * DAY_MS) for place, one in enumerate(reports)]


@pytest.mark.each_store
def test_late_doubled_and_disordered_reports_are_the_same_history(open_desk):
    """Told with their own times, as a backfill tells them: what is seen is what happened."""
    desk, seen = open_desk(), []
    for number in range(5):
        reports = month_of(number) * (2 if number else 1)
        if number:
            random.Random(number).shuffle(reports)
        for one, at in reports:
            desk.record(one, at, "key:key_1")
        body = {"customer": {"customerId": f"c-{number}"}, "order": {"orderId": f"o-{number}"},
                "refund": {**BODY["refund"], "refundId": f"r-now-{number}"}}  # fmt: skip
        asked = contract.parse_refund(orjson.dumps(body), scored=True)
        seen.append(kept(desk, desk.decide(asked, lambda: NOW, ME))["features"])
        assert desk.store.refund(f"r-{number}").state == "REFUNDED"
    assert seen[0]["refund_completed_count_by_customer_30d"] == 1
    assert seen[0]["abuse_confirmed_count_by_customer_365d"] == 1
    assert seen[0]["chargeback_count_by_customer_365d"] == 1
    assert seen[1:] == seen[:1] * 4
