"""The lifecycle: ours is held to the table, a report is always recorded."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pytest

from benchmarks.postgresql import Server
from features.events import RefundOutcome, RefundRequest, Transaction
from serving.store.database import STORE_UNAVAILABLE
from serving.store.refunds import (
    STATE_OF_OUTCOME,
    TRANSITIONS,
    Refund,
    State,
    TransitionRefusedError,
)
from serving.store.store import Store
from tests.serving.conftest import SECRET, make_store

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


def test_the_last_amount_is_that_of_the_version_known_last(either: Store, refund: Make) -> None:
    """Also when an older one arrives after it, or with it."""
    with either.write() as tx:
        tx.append(
            [outcome("r1", "FAILED", known_at=5), refund("r1", known_at=20, amount_minor=900)]
        )
        tx.append([refund("r1", known_at=10, amount_minor=700, currency="EUR")])
        both = [refund("r2", known_at=40, amount_minor=50), refund("r2", known_at=30)]
        tx.append([*both, refund("r1", known_at=15)])
        r1, r2 = tx.refund("r1"), tx.refund("r2")
        assert r1 is not None and r2 is not None
        assert (r1.first_known_at, r1.payable_minor, r1.currency) == (10, 900, "GBP")
        assert (r2.first_known_at, r2.payable_minor) == (30, 50)
        tx.append([refund("r1", known_at=21, amount_minor=80)])
        found = tx.refund("r1")
        assert found is not None
        assert found.payable_minor == 80


def test_less_told_of_a_payment_than_before_is_recorded_and_flagged(
    either: Store, refund: Make
) -> None:
    """Both may have come through, so the greater counts for what is held of the order."""

    def told(*reports: RefundOutcome) -> list[tuple[bool, bool]]:
        with either.write() as tx:
            return [(one.is_new, one.is_unexpected) for one in tx.append(reports)]

    with either.write("c1", "o1") as tx:
        tx.append([refund("r1", order_id="o1", amount_minor=500)])
        tx.reserve(tx.reservation("r1", "o1", "GBP").allow(500))
    ok, surprising = (True, False), (True, True)
    first = outcome("r1", "COMPLETED", 2_000, amount_minor=300)
    less, more = (outcome("r1", "COMPLETED", 2_010, amount_minor=a) for a in (200, 310))
    assert told(first, less, more) == [ok, surprising, ok]
    assert told(outcome("r1", "COMPLETED", 2_020, amount_minor=305)) == [surprising]
    assert told(first, less) == [(False, False)] * 2
    assert either.reserved_for("r1")[0].promised_minor == 310
    assert len(list(either.events())) == 5
    assert told(outcome("r1", "FAILED", 2_030)) == [surprising], "it was paid"
    again = outcome("r1", "COMPLETED", 2_040, amount_minor=100)
    assert told(again, outcome("r1", "COMPLETED", 2_050)) == [ok, ok], (
        "all of it, after another end"
    )
    assert told(outcome("r1", "COMPLETED", 2_060, amount_minor=499)) == [surprising]


def test_a_refund_that_ended_unpaid_begins_anew_when_it_is_asked_for_again(
    store: Store, refund: Make
) -> None:
    for number, status in enumerate(("DECLINED", "CANCELED", "COMPLETED", "FAILED")):
        with store.write() as tx:
            tx.append([refund(f"r{number}"), outcome(f"r{number}", status, known_at=2_000)])
            tx.ask_again(f"r{number}", at=1_500)
            found = tx.refund(f"r{number}")
            assert found is not None
            is_anew = status in ("DECLINED", "CANCELED")
            assert found.state == ("REQUESTED" if is_anew else STATE_OF_OUTCOME[status])
            assert found.state_at == 2_000, "no later than the report that it follows"


# --- told again ----------------------------------------------------------------------------------


def test_an_outcome_told_again_counts_if_the_refund_stands_otherwise(either: Store) -> None:
    def tell(status: str, at: int) -> list[bool]:
        with either.write() as tx:
            return [one.is_new for one in tx.append([outcome("r1", status, known_at=at)])]

    told = [("COMPLETED", 10), ("COMPLETED", 11), ("FAILED", 12), ("COMPLETED", 13),
            ("COMPLETED", 14), ("FAILED", 15), ("FAILED", 9)]  # fmt: skip
    new = [tell(*one) for one in told]
    assert new == [[True], [False], [True], [True], [False], [True], [False]]
    found = either.refund("r1")
    assert found is not None
    assert (found.state, found.state_at) == ("FAILED", 15)
    assert [e.known_at for e in either.events()] == [10, 12, 13, 15]


def test_an_older_outcome_delivered_again_is_the_same_one(store: Store) -> None:
    with store.write() as tx:
        first, last = outcome("r1", "COMPLETED", 10), outcome("r1", "FAILED", 20)
        tx.append([first, last])
        assert [one.is_new for one in tx.append([first, last])] == [False, False]
        assert tx.refund("r1") == store_refund(tx.refund("r1"), "FAILED")


def test_outcomes_told_again_at_once_count_once(either: Store) -> None:
    with either.write() as tx:
        tx.append([outcome("r1", "COMPLETED", 10), outcome("r1", "FAILED", 20)])
    start = threading.Barrier(4)

    def tell(number: int) -> bool:
        start.wait()
        with either.write() as tx:
            return tx.append([outcome("r1", "COMPLETED", 30)])[0].is_new

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(tell, range(4))) == [False, False, False, True]


# --- what is held --------------------------------------------------------------------------------


def held(store: Store, refund_id: str, cutoff: int = 2**62) -> list[tuple[str, int, bool]]:
    """(order, amount, whether it is promised) of what a refund holds."""
    return [
        (one.order_id, hold.amount_minor, hold.is_promised)
        for one in sorted(store.reserved_for(refund_id), key=lambda r: r.order_id)
        for hold in one.holds(cutoff)
    ]


def test_what_other_refunds_hold_of_an_order_is_found_by_the_order(either: Store) -> None:
    with either.write("c1", "o1") as tx:
        for number, order_id in enumerate(["o1", "o1", "o1", "o2"]):
            tx.reserve(tx.reservation(f"r{number}", order_id, "GBP").allow(100 * (number + 1)))
        tx.reserve(tx.reservation("r0", "o1", "GBP").allow(150))
        tx.reserve(tx.reservation("r0", "o1", "EUR").review(70))
        tx.reserve(tx.reservation("r0", "o2", "GBP").refuse())
        of_others = tx.reserved("o1", besides="r1")
    assert [(r.refund_id, r.currency, r.promised_minor, r.review_minor) for r in of_others] == [
        ("r0", "EUR", 0, 70), ("r0", "GBP", 150, 0), ("r2", "GBP", 300, 0)
    ]  # fmt: skip
    assert either.reserved("o1", besides="r1") == of_others
    assert len(either.reserved("o1", besides="none")) == 4
    assert either.reserved("o3", besides="none") == ()
    assert ("o2", 0, True) in held(either, "r0"), "that it was decided on is known"


@pytest.mark.parametrize(
    ("status", "left"),
    [("COMPLETED", 0), ("DECLINED", 0), ("CANCELED", 0), ("FAILED", 500)],
)
def test_an_outcome_settles_what_a_refund_holds_of_every_order(
    either: Store, refund: Make, status: str, left: int
) -> None:
    with either.write("c1", "o1") as tx:
        tx.append([refund("r1", order_id="o1"), refund("r2", order_id="o1")])
        for order_id in ("o1", "o2"):
            tx.reserve(tx.reservation("r1", order_id, "GBP").allow(500))
        tx.reserve(tx.reservation("r2", "o1", "GBP").allow(70))
        tx.transition("r1", "VALIDATED", "DECIDED", "APPROVED", at=1_000)
        tx.append([outcome("r1", status, known_at=999, decline_reason="of an earlier attempt")])
    assert held(either, "r1") == [("o1", 500, True), ("o2", 500, True)], "it is no news"
    with either.write() as tx:
        tx.append([outcome("r1", status)])
    assert held(either, "r1") == [("o1", left, True), ("o2", left, True)]
    assert held(either, "r2") == [("o1", 70, True)]


@pytest.mark.parametrize("order_id", ["o1", "o2"])
def test_an_outcome_waits_for_a_decision_on_any_order_that_it_settles(
    new_database: Server, refund: Make, order_id: str
) -> None:
    """As one that failed holds again what a decision in between would take for free."""
    store = Store.open(new_database.like(make_store), SECRET)
    with store.write("c1", "o1") as tx:
        tx.append([refund("r1", order_id="o1")])
        for each in ("o1", "o2"):
            tx.reserve(tx.reservation("r1", each, "GBP").allow(500))

    def tell(store: Store) -> None:
        with store.database.write() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '20ms'")
            told = store.refunds.taken_again(connection, [outcome("r1", "FAILED")])
            store.history.append(connection, told)

    with store.write("c2", order_id), pytest.raises(STORE_UNAVAILABLE, match="lock timeout"):
        tell(store)
    with store.write("c2", "o3"):
        tell(store)
    assert store.refund("r1") == store_refund(store.refund("r1"), "FAILED")
    store.close()


def test_an_outcome_that_is_imported_and_a_decision_do_not_wait_for_one_another(
    new_database: Server, refund: Make
) -> None:
    store = Store.open(new_database.like(make_store), SECRET)
    with store.write("c1", "o1") as tx:
        tx.append([refund("r1", order_id="o1")])
        tx.reserve(tx.reservation("r1", "o1", "GBP").allow(500))

    def load() -> None:
        with store.database.write() as connection:
            store.history.append(connection, [outcome("r1", "FAILED")])

    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with ThreadPoolExecutor() as pool, store.database.session() as asking:
        with store.write("c1", "o1") as tx:
            loading = pool.submit(load)
            while not asking.exec_driver_sql(waiting).scalar_one():
                assert not loading.done()
            tx.append([refund("r1", 1_100, order_id="o1", amount_minor=600)])
        loading.result()
    assert store.refund("r1") == store_refund(store.refund("r1"), "FAILED")
    store.close()


def test_a_payment_does_not_count_at_its_own_instant_and_the_promise_does(
    store: Store, refund: Make
) -> None:
    """As a decision of that instant does not see the outcome: nothing counts for nothing."""
    with store.write("c1", "o1") as tx:
        tx.append([refund("r1", order_id="o1")])
        tx.reserve(tx.reservation("r1", "o1", "GBP").allow(500))
        tx.append([outcome("r1", "COMPLETED", known_at=2_000)])
    assert held(store, "r1", cutoff=2_000) == [("o1", 500, True)]
    assert held(store, "r1", cutoff=2_001) == [("o1", 0, True)]


def test_a_payment_that_came_back_is_held_as_far_as_it_went(store: Store, refund: Make) -> None:
    with store.write("c1", "o1") as tx:
        tx.append([refund("r1", order_id="o1", amount_minor=300)])
        tx.reserve(tx.reservation("r1", "o1", "GBP").allow(500))
        tx.append([outcome("r1", "COMPLETED", known_at=2_000), outcome("r1", "FAILED", 2_001)])
    assert held(store, "r1") == [("o1", 300, True)], "an amount not told is what was asked for"


def test_what_we_deny_holds_nothing(store: Store, refund: Make) -> None:
    with store.write() as tx:
        tx.append([refund("r1", order_id="o1")])
        tx.transition("r1", "VALIDATED", "DECIDED", "NEEDS_REVIEW", at=1_000)
        tx.reserve(tx.reservation("r1", "o1", "GBP").review(500))
        tx.transition("r1", "DENIED", at=1_500)
    assert held(store, "r1") == [("o1", 0, True)]


def test_refunds_of_one_order_at_once_never_hold_more_than_there_is(
    either: Store, refund: Make
) -> None:
    """Six customers ask for 300 of an order of 1,000: three get it, and nobody waits for ever."""
    start = threading.Barrier(8)

    def ask(number: int) -> bool:
        start.wait()
        refund_id, customer = f"r{number}", f"c{number}"
        with either.write(customer, "o1") as tx:
            promised = sum(one.promised_minor for one in tx.reserved("o1", besides=refund_id))
            request = refund(refund_id, customer_id=customer, order_id="o1", amount_minor=300)
            tx.append([request])
            if promised + 300 > 1_000:
                return False
            tx.reserve(tx.reservation(refund_id, "o1", "GBP").allow(300))
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
    assert sum(one.promised_minor for one in either.reserved("o1", besides="none")) == 900
