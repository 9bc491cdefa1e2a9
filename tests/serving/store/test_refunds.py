"""The lifecycle: ours is held to the table, a report is always recorded."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pytest

from features.events import RefundOutcome, RefundRequest, Transaction
from serving.store.refunds import (
    STATE_OF_OUTCOME,
    TRANSITIONS,
    Refund,
    State,
    TransitionRefusedError,
)
from serving.store.store import Store

Make = Callable[..., RefundRequest]
STATES = get_args(State)


def outcome(refund_id: str, status: str, known_at: int = 2_000, **more: object) -> RefundOutcome:
    return RefundOutcome(refund_id=refund_id, known_at=known_at, status=status, **more)


@pytest.mark.parametrize("start", STATES)
@pytest.mark.parametrize("to", STATES)
def test_ours_are_refused_unless_listed_and_reports_never(start: State, to: State) -> None:
    ours, reported = Refund("r", start, 1), Refund("r", start, 1)
    if to in TRANSITIONS[start]:
        ours.move(to, at=2)
        assert (ours.state, ours.state_at) == (to, 2)
        assert not Refund("r", start, 1).report(to, at=2)
    else:
        with pytest.raises(TransitionRefusedError, match=f"is {start}: expected .* got {to}"):
            ours.move(to, at=2)
        assert ours.state == start
    reported.report(to, at=2)
    assert reported.state == to


def test_every_state_leads_to_an_end() -> None:
    ends = {state for state, following in TRANSITIONS.items() if not following}
    assert ends == {"DENIED", "REFUNDED", "CANCELED"}
    for state in set(STATES) - ends:
        assert "CANCELED" in TRANSITIONS[state]


def test_a_decided_refund_is_followed_to_its_payment(store: Store, refund: Make) -> None:
    with store.write("c1") as tx:
        tx.append([refund("r1", amount_minor=500, non_refundable_minor=80, order_id="o1")])
        assert tx.transition("r1", "VALIDATED", "DECIDED", "APPROVED", at=1_000) is False
    with store.write() as tx:
        assert not tx.append([outcome("r1", "COMPLETED")])[0].is_unexpected
    found = store.refund("r1")
    assert found is not None
    assert (found.state, found.payable_minor, found.order_id) == ("REFUNDED", 420, "o1")
    assert found.customer == store.identifiers.mac("customer", "c1")


@pytest.mark.parametrize("status", STATE_OF_OUTCOME)
def test_an_outcome_of_a_refund_never_seen_is_recorded_and_flagged(
    store: Store, refund: Make, status: str
) -> None:
    with store.write() as tx:
        assert tx.append([outcome("r1", status)])[0].is_unexpected
    found = store.refund("r1")
    assert found is not None
    assert (found.state, found.customer) == (STATE_OF_OUTCOME[status], None)
    with store.write() as tx:
        tx.append([refund("r1")])
    later = store.refund("r1")
    assert later is not None
    assert (later.state, later.first_known_at) == (STATE_OF_OUTCOME[status], 1_000)


def test_paid_though_denied_is_recorded_and_flagged(store: Store, refund: Make) -> None:
    with store.write() as tx:
        tx.append([refund("r1")])
        tx.transition("r1", "VALIDATED", "DECIDED", "DENIED", at=1_000)
        [paid] = tx.append([outcome("r1", "COMPLETED")])
        [again] = tx.append([outcome("r1", "COMPLETED")])
        assert paid.is_unexpected
        assert (again.is_new, again.is_unexpected) == (False, False)
        assert tx.refund("r1") == store_refund(tx.refund("r1"), "REFUNDED")


def store_refund(found: Refund | None, state: State) -> Refund:
    assert found is not None
    assert found.state == state
    return found


def test_a_report_that_comes_late_moves_nothing(store: Store, refund: Make) -> None:
    with store.write() as tx:
        tx.append([refund("r1"), outcome("r1", "COMPLETED", known_at=3_000)])
        [late] = tx.append([outcome("r1", "FAILED", known_at=2_000)])
        assert (late.is_new, late.is_unexpected) == (True, False)
        store_refund(tx.refund("r1"), "REFUNDED")


def test_a_resent_refund_keeps_its_first_time_and_takes_its_last_amount(
    store: Store, refund: Make
) -> None:
    with store.write() as tx:
        tx.append([refund("r1", known_at=10), refund("r1", known_at=20, amount_minor=900)])
        found = tx.refund("r1")
        assert found is not None
        assert (found.first_known_at, found.payable_minor) == (10, 900)


def test_reservations_of_one_order_add_up(store: Store, refund: Make) -> None:
    with store.write() as tx:
        tx.append(refund(f"r{i}", order_id="o1") for i in range(3))
        tx.append([refund("other", order_id="o2")])
        for number in range(3):
            tx.reserve(f"r{number}", 100 * (number + 1))
        tx.reserve("r0", 150)
        tx.append([refund("r1", order_id="o1", amount_minor=501)])  # sent again: still reserved
        assert tx.reserved("o1", besides="r1") == {"GBP": 450}
        assert tx.reserved("o1", besides="none") == {"GBP": 650}
        assert tx.reserved("o3", besides="none") == {}
    assert store.reserved("o1", besides="r1") == {"GBP": 450}


@pytest.mark.parametrize("status", STATE_OF_OUTCOME)
def test_an_outcome_releases_what_a_refund_holds(either: Store, refund: Make, status: str) -> None:
    with either.write("c1", "o1") as tx:
        tx.append([refund("r1", order_id="o1"), refund("r2", order_id="o1", currency="EUR")])
        tx.reserve("r1", 500)
        tx.reserve("r2", 70)
        tx.transition("r1", "VALIDATED", "DECIDED", "APPROVED", at=1_000)
        assert tx.reserved("o1", besides="r3") == {"GBP": 500, "EUR": 70}
        older = outcome("r1", status, known_at=999, decline_reason="of an earlier attempt")
        tx.append([older])
        assert tx.reserved("o1", besides="r3") == {"GBP": 500, "EUR": 70}
    with either.write() as tx:
        tx.append([outcome("r1", status)])
    assert either.reserved("o1", besides="r3") == {"EUR": 70}
    with either.write() as tx:  # asked for again, and reported again: in the same state
        tx.reserve("r1", 30)
        tx.append([outcome("r1", status, known_at=3_000, decline_reason="again")])
    assert either.reserved("o1", besides="r3") == {"EUR": 70}


def test_what_we_deny_holds_nothing(store: Store, refund: Make) -> None:
    with store.write() as tx:
        tx.append([refund("r1", order_id="o1")])
        tx.transition("r1", "VALIDATED", "DECIDED", "NEEDS_REVIEW", at=1_000)
        tx.reserve("r1", 500)
        tx.transition("r1", "DENIED", at=1_500)
        assert tx.reserved("o1", besides="none") == {}


def test_refunds_of_one_order_at_once_never_hold_more_than_there_is(
    either: Store, refund: Make
) -> None:
    """Six customers ask for 300 of an order of 1,000: three get it, and nobody waits for ever."""
    start = threading.Barrier(8)

    def ask(number: int) -> bool:
        start.wait()
        refund_id, customer = f"r{number}", f"c{number}"
        with either.write(customer, "o1") as tx:
            held = tx.reserved("o1", besides=refund_id).get("GBP", 0)
            request = refund(refund_id, customer_id=customer, order_id="o1", amount_minor=300)
            tx.append([request])
            if held + 300 > 1_000:
                return False
            tx.reserve(refund_id, 300)
            return True

    def report(number: int) -> None:
        """Meanwhile reports about the same refunds and the same order come in."""
        start.wait()
        for _ in range(5):
            with either.write() as tx:
                paid = Transaction(
                    transaction_id=uuid.uuid4().hex, known_at=5, kind="CAPTURE", order_id="o1",
                    amount_minor=1, currency="GBP",
                )  # fmt: skip
                tx.append([paid, refund(f"r{number}", order_id="o1", customer_id=f"c{number}")])

    with ThreadPoolExecutor(8) as pool:
        reporting = [pool.submit(report, number) for number in range(2)]
        asking = [pool.submit(ask, number) for number in range(6)]
        allowed = [job.result() for job in asking]
        assert [job.result() for job in reporting] == [None, None]
    assert sum(allowed) == 3
    assert either.reserved("o1", besides="none") == {"GBP": 900}
