"""Whatever else is written at whatever moment of a decision: nothing is missed, nothing is lost."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import orjson
import pytest

from features.events import RefundRequest
from features.money import DAY_MS, Rates
from rules.policy import Policy
from serving import contract
from serving.desk import OPTIMISTIC_TRIES, Desk
from serving.facts import FACTS
from serving.monitor import skew
from serving.reviews import Doing, act_on
from serving.store.store import Store, Transaction
from tests.serving.documents import BALANCE, UNHELD, document, rule
from tests.serving.listening import listen
from tests.serving.test_desk import (
    BODY,
    ME,
    NAMES,
    NOW,
    Clock,
    data,
    earlier,
    kept,
    now,
    open_desk,
    report,
    url,
)  # fmt: skip
from tests.serving.test_reservations import CAPTURED_MINOR, COMPLETE, order

__all__ = ["now", "open_desk", "url"]  # fixtures

pytestmark = pytest.mark.each_store


HOLDING = Policy.from_yaml(
    document("1", BALANCE, UNHELD, rule(5_000), orders_complete=True), facts=FACTS
)
"""Where 5,000 and more wait for a person."""


class Noting(Store):
    """A store that knows whether it is writing."""

    is_writing = False

    @contextmanager
    def write_about(self, *about: Any) -> Iterator[Transaction]:
        try:
            with super().write_about(*about) as tx:
                self.is_writing = True
                yield tx
        finally:
            self.is_writing = False


class Meanwhile:
    """Does something before a given statement of a desk, or beside its transaction."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._act: Callable[[], object] | None = None
        self._left = 0
        self._beside: list[threading.Thread] = []
        self.failed: list[Exception] = []
        listen(desk.store, self._heard)

    def before(self, statement: int, act: Callable[[], object]) -> None:
        self._left, self._act = statement, act

    def over(self) -> bool:
        """Wait for what was done; whether the decision came to the statement at all."""
        for thread in self._beside:
            thread.join()
        self._beside.clear()
        assert not self.failed, self.failed
        return self._act is None

    def _heard(self, _: str, __: Any) -> None:
        if self._act is None:
            return
        self._left -= 1
        if self._left >= 0:
            return
        act, self._act = self._act, None

        def tried() -> None:
            try:
                act()
            except Exception as error:
                self.failed.append(error)

        thread = threading.Thread(target=tried)
        thread.start()
        if self._desk.store.is_writing:  # type: ignore[attr-defined]
            self._beside.append(thread)  # may wait for this very transaction
        else:
            thread.join()


@pytest.fixture
def policy() -> Policy:
    """A merchant who reports every order and capture."""
    return COMPLETE


def asked(refund_id: str, customer: str, order_id: str, amount: int) -> Any:
    body = deepcopy(BODY)
    body["customer"] = {"customerId": customer}
    body["order"] = {"orderId": order_id}
    body["refund"] |= {"refundId": refund_id, "amount": amount}
    return contract.parse_refund(orjson.dumps(body), scored=True)


def paid(refund_id: str) -> Any:
    """An outcome that names neither the customer nor the order."""
    said = {"refund": {"refundId": refund_id, "status": "COMPLETED"}}
    return contract.parse_refund(orjson.dumps(said), scored=False)


def at_each_statement(
    desk: Desk, now: Clock, prepare: Callable[[int], object], act: Callable[[int], object],
    amount: int, check: Callable[[int, Any], None],
) -> int:  # fmt: skip
    """Decide refund ``r-N`` of customer ``c-N`` and order ``o-N``, acting before statement N."""
    meanwhile = Meanwhile(desk)
    for place in itertools.count():
        prepare(place)
        meanwhile.before(place, lambda place=place: act(place))
        answer = desk.decide(asked(f"r-{place}", f"c-{place}", f"o-{place}", amount), now, ME)
        if not meanwhile.over():
            return place
        check(place, answer)
    raise AssertionError("a decision has an end")


def test_of_two_refunds_of_a_customer_one_sees_the_other(open_desk, now):
    others, desk = open_desk(), open_desk(Noting)
    found: dict[int, Any] = {}

    def act(n: int) -> None:
        found[n] = others.decide(asked(f"r-other-{n}", f"c-{n}", f"o-other-{n}", 100), now, ME)

    def check(n: int, answer: Any) -> None:
        records = sorted((kept(desk, one) for one in (answer, found[n])), key=lambda r: r["cutoff"])
        seen = [record["features"]["refund_count_by_customer_1d"] for record in records]
        assert seen == [0, 1], f"before statement {n}"

    assert at_each_statement(desk, now, lambda n: None, act, 100, check) > 15


def test_of_two_refunds_of_an_order_one_sees_what_the_other_holds(open_desk, now):
    others, desk = open_desk(), open_desk(Noting)
    found: dict[int, Any] = {}

    def act(n: int) -> None:
        one = asked(f"r-other-{n}", f"somebody-{n}", f"o-{n}", CAPTURED_MINOR)
        found[n] = others.decide(one, now, ME)

    def check(n: int, answer: Any) -> None:
        actions = sorted(data(one)["action"] for one in (answer, found[n]))
        assert actions == ["ALLOW", "PREVENT"], f"before statement {n}"

    prepared = lambda n: order(others, now, f"o-{n}")  # noqa: E731
    assert at_each_statement(desk, now, prepared, act, CAPTURED_MINOR, check) > 15


def test_an_outcome_that_names_the_refund_alone_is_taken_in_at_any_moment(open_desk, now):
    """Nothing holds it off, on PostgreSQL not even the locks of the customer and the order."""
    others, desk = open_desk(), open_desk(Noting)

    def prepare(n: int) -> None:
        others.decide(asked(f"r-before-{n}", f"c-{n}", f"o-before-{n}", 100), now, ME)

    def check(n: int, answer: Any) -> None:
        assert earlier(desk, answer) == 1
        assert desk.store.refund(f"r-before-{n}").state == "REFUNDED"
        later = desk.decide(asked(f"r-later-{n}", f"c-{n}", f"o-{n}", 100), now, ME)
        assert kept(desk, later)["features"]["refund_completed_count_by_customer_30d"] == 1

    def act(n: int) -> None:
        others.record(paid(f"r-before-{n}"), now(), "key:key_1")

    assert at_each_statement(desk, now, prepare, act, 100, check) > 15


def test_what_moves_a_customer_under_the_lock_comes_after_the_decision(open_desk, now):
    """It would be refused for ever else: nothing but a report can get there, and it just did."""
    others, desk = open_desk(), open_desk(Noting)
    earlier_ones = [f"r-before-{n}" for n in range(OPTIMISTIC_TRIES + 1)]
    for number, refund_id in enumerate(earlier_ones):
        others.decide(asked(refund_id, "c", f"o-{number}", 100), now, ME)
    told: list[str] = []

    class Telling(type(desk)):  # type: ignore[misc]
        def judge(self, *what: Any, **how: Any) -> Any:
            judged = super().judge(*what, **how)
            if not (self.store.is_writing and self.store.database.is_sqlite):
                told.append(earlier_ones[len(told)])
                others.record(paid(told[-1]), now(), "key:key_1")
            return judged

    telling = Telling(**vars(desk))
    assert earlier(desk, telling.decide(asked("r", "c", "o", 100), now, ME)) == 3
    assert len(told) == OPTIMISTIC_TRIES + (not desk.store.database.is_sqlite)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_what_had_not_committed_when_a_decision_read_is_no_skew(open_desk, now):
    """Its number is lower than one that had: no number tells what a read saw."""
    desk, first, second = open_desk(), open_desk(), open_desk()
    has_read = threading.Event()
    listen(desk.store, lambda text, _: has_read.set() if "INSERT INTO events" in text else None)

    def of(name: str, **more: Any) -> RefundRequest:
        return RefundRequest(refund_id=name, customer_id=name, amount_minor=1, currency="GBP",
                             known_at=NOW - DAY_MS, **more)  # fmt: skip

    with ThreadPoolExecutor(1) as pool:
        with first.store.write() as tx:
            tx.append([of("lower", device_id=NAMES["device"])])
            with second.store.write() as other:
                other.append([of("higher")])
            job = pool.submit(desk.decide, report(), now, ME)
            assert has_read.wait(30)
        answer = job.result()
    assert kept(desk, answer)["features"]["refund_count_by_device_7d"] == 0
    found = skew(desk.store, Rates("GBP"))
    assert (found.compared, found.late_visible, found.mismatched) == (1, 1, 0)


# --- clocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ms", [0, 1, 5_000])
def test_a_worker_whose_clock_is_behind_sees_what_another_kept(open_desk, ahead_ms):
    """In turns, the first always ahead: neither clock moves."""
    desks = [(open_desk(), NOW + ahead_ms), (open_desk(), NOW)]
    answers = []
    for number in range(6):
        desk, at = desks[number % 2]
        one = asked(f"r-{number}", "c", f"o-{number}", 100)
        answers.append(desk.decide(one, lambda at=at: at, ME))
    assert [earlier(desks[0][0], answer) for answer in answers] == list(range(6))
    cutoffs = [kept(desks[0][0], answer)["cutoff"] for answer in answers]
    assert cutoffs == sorted(set(cutoffs))


def test_an_outcome_told_to_a_worker_that_is_behind_is_not_late(open_desk):
    ahead, behind = open_desk(), open_desk()
    ahead.decide(asked("r-1", "c", "o", 100), lambda: NOW + 5_000, ME)
    behind.record(paid("r-1"), NOW, "key:key_1")
    assert behind.store.refund("r-1").state == "REFUNDED"
    seen = behind.decide(asked("r-2", "c", "o", 100), lambda: NOW, ME)
    assert kept(behind, seen)["features"]["refund_completed_count_by_customer_30d"] == 1


def test_no_clock_is_so_far_ahead_as_a_wrong_date(open_desk):
    desk, far = open_desk(), NOW + 10 * 365 * 86_400_000
    desk.decide(asked("r-1", "c", "o", 100), lambda: far, ME)
    answer = desk.decide(asked("r-2", "c", "o", 100), lambda: NOW, ME)
    assert (kept(desk, answer)["cutoff"], earlier(desk, answer)) == (NOW, 0)


# --- analysts --------------------------------------------------------------------------------


def test_an_analyst_answers_at_any_moment_of_a_decision(open_desk, now):
    """Before it, and it is answered so; or after it, and then about what was decided."""
    others, desk = open_desk(policy=HOLDING), open_desk(Noting, policy=HOLDING)
    outcomes: set[tuple[str, bool]] = set()

    def prepare(n: int) -> None:
        order(others, now, f"o-{n}")
        others.decide(asked(f"r-{n}", f"c-{n}", f"o-{n}", 6000), now, ME)

    def act(n: int) -> None:
        denying = Doing.of("deny", by="Ann", justification="It was signed for.", abuse=True)
        act_on(others.store, f"r-{n}", denying, at=now())

    def check(n: int, answer: Any) -> None:
        (latest, *_), _ = others.store.reviews_of(f"r-{n}")
        assert latest.disposition == "PREVENT", f"before statement {n}"
        action, is_new = data(answer)["action"], not answer.replayed
        outcomes.add((action, is_new))
        assert (action, is_new) in {("PREVENT", True), ("MANUAL_REVIEW", False)}
        again = data(others.decide(asked(f"r-{n}", f"c-{n}", f"o-{n}", 6000), now, ME))
        assert (again["action"], again["source"]) == ("PREVENT", "MANUAL_REVIEW")
        assert others.store.refund(f"r-{n}").state == "DENIED"

    assert at_each_statement(desk, now, prepare, act, 6000, check) > 1
    assert outcomes == {("PREVENT", True), ("MANUAL_REVIEW", False)}


def test_of_an_answer_and_other_fields_at_any_moment_one_comes_first(open_desk, now):
    others, desk = open_desk(policy=HOLDING), open_desk(Noting, policy=HOLDING)
    found: dict[int, str] = {}

    def prepare(n: int) -> None:
        order(others, now, f"o-{n}")
        others.decide(asked(f"r-{n}", f"c-{n}", f"o-{n}", 7000), now, ME)

    def act(n: int) -> None:
        approving = Doing.of("approve", by="Ann", justification="The carrier lost it.")
        found[n] = act_on(others.store, f"r-{n}", approving, at=now()).score_id

    def check(n: int, answer: Any) -> None:
        assert (data(answer)["action"], answer.replayed) == ("MANUAL_REVIEW", False)
        (review, *earlier), _ = others.store.reviews_of(f"r-{n}")
        held = others.store.reserved_for(f"r-{n}")[0]
        if found[n] == data(answer)["scoreId"]:  # it was about the new fields
            assert (review.disposition, held.promised_minor) == ("ALLOW", 6000)
        else:
            assert (review.closed_at, earlier[0].disposition) == (None, "ALLOW")
            assert (held.promised_minor, held.review_minor) == (7000, 6000)

    assert at_each_statement(desk, now, prepare, act, 6000, check) > 15
    assert len(found) > 15
