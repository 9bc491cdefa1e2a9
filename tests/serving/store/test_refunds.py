"""The lifecycle: ours is held to the table, a report is always recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest

from features.events import RefundOutcome, RefundRequest
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


def outcome(refund_id: str, status: str, known_at: int = 2_000) -> RefundOutcome:
    return RefundOutcome(refund_id=refund_id, known_at=known_at, status=status)


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


def test_an_outcome_releases_what_a_refund_holds(store: Store, refund: Make) -> None:
    with store.write() as tx:
        tx.append([refund("r1", order_id="o1"), refund("r2", order_id="o1", currency="EUR")])
        tx.reserve("r1", 500)
        tx.reserve("r2", 70)
        assert tx.reserved("o1", besides="r3") == {"GBP": 500, "EUR": 70}
        tx.append([outcome("r1", "COMPLETED")])
        assert tx.reserved("o1", besides="r3") == {"EUR": 70}
