"""The review desk: what waits, what people do, and what the same request is answered afterwards."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from features.money import DAY_MS, Rates
from rules.policy import Policy
from serving.desk import Desk
from serving.disclosure import document as document_of
from serving.facts import FACTS
from serving.governance import ensure_first
from serving.models import Models
from serving.overdue import OverdueWatch
from serving.policies import Policies
from serving.reviewing import body_of, data_of
from serving.reviews import Doing, ReviewConflictError, UnknownReviewError, act_on
from serving.store.erasure import erase
from serving.store.outbox import TYPES
from serving.store.refunds import TransitionRefusedError
from serving.store.retention import Keep, apply
from serving.store.reviews import Review
from serving.store.rotation import rotate
from serving.store.store import Store, Transaction
from serving.wire import InvalidRequest
from tests.serving.documents import BALANCE, UNHELD, document, rule
from tests.serving.listening import listen
from tests.serving.store.test_erasure import everything
from tests.serving.store.test_rotation import seal_and_vouch
from tests.serving.test_desk import (
    CHAMPION,
    ME,
    NOW,
    SECRET,
    Clock,
    Hooked,
    data,
    kept,
    now,
    open_desk,
    report,
    url,
)
from tests.serving.test_reservations import asked, held, moved, order, outcome

__all__ = ["now", "open_desk", "url"]  # fixtures

HELD_FROM = 5_000
POLICY = Policy.from_yaml(
    document("1", BALANCE, UNHELD, rule(HELD_FROM), orders_complete=True), facts=FACTS
)
CUSTOMER = "cust-in-clear"
WHY = "The carrier says that the parcel was lost."


@pytest.fixture
def policy() -> Policy:
    """Of an order of 9,000 captured: below 5,000 paid, from there on held, above refused."""
    return POLICY


@pytest.fixture
def desk(open_desk: Any, now: Clock) -> Desk:
    opened: Desk = open_desk()
    order(opened, now)
    return opened


def desk_of(store: Store) -> Desk:
    return Desk(store=store, policies=Policies(POLICY), models=Models(CHAMPION, None),
                rates=Rates("GBP"), secret=SECRET, deadline_ms=60_000)  # fmt: skip


def decided(desk: Desk, now: Clock, refund_id: str = "r-1", amount: int = 6000) -> Any:
    return desk.decide(asked(refund_id, amount), now, ME)


def answered(desk: Desk, now: Clock, *args: Any) -> tuple[str, str, bool]:
    answer = decided(desk, now, *args)
    return data(answer)["action"], data(answer)["source"], answer.replayed


def act(
    desk: Desk, now: Clock, name: str, refund_id: str = "r-1", *, by: str = "Ann", **given: Any
) -> Review:
    why = {} if name == "assign" else {"justification": WHY}
    doing = Doing.of(name, by=by, **{**why, **given})
    return act_on(desk.store, refund_id, doing, at=now(), via="key:key_9")


def waiting(desk: Desk) -> list[str]:
    return [review.refund_id for review in desk.store.review_queue()]


def told(desk: Desk, wanted: str) -> list[dict[str, Any]]:
    with desk.store.write() as tx:
        found = desk.store.outbox.deliveries(tx._connection)
    return [orjson.loads(one.payload)["data"] for one in reversed(found) if one.type == wanted]


def hook(desk: Desk) -> None:
    with desk.store.write() as tx:
        desk.store.outbox.add(tx._connection, "https://example.com/", TYPES, NOW)


# --- what opens and closes a review ----------------------------------------------------------


@pytest.mark.each_store
def test_a_refund_that_is_held_waits_for_a_person_and_no_other_does(desk, now):
    answer = decided(desk, now)
    decided(desk, now, "r-2", 100)
    [review] = desk.store.review_queue()
    assert (review.refund_id, review.score_id) == ("r-1", data(answer)["scoreId"])
    assert (review.amount_minor, review.due_minor, review.currency) == (6000, 6000, "GBP")
    assert (review.payable_minor, review.order_id) == (6000, "o-1")
    record = kept(desk, answer)
    assert review.customer == record["keys"]["customer"]
    assert review.probability == record["probability"]
    assert review.expected_loss_minor == round(record["expected_loss_minor"])
    assert review.due_at - review.opened_at == 24 * 3_600_000


def test_what_is_most_at_stake_comes_first(open_desk, now):
    desk = open_desk()
    for number, amount in enumerate((6000, 8000, 7000)):
        order(desk, now, f"o-{number}")
        desk.decide(asked(f"r-{number}", amount, order_id=f"o-{number}"), now, ME)
    assert waiting(desk) == ["r-1", "r-2", "r-0"]
    first, *_ = desk.store.review_queue(limit=1)
    page = desk.store.review_queue(after=(first.place, first.score_id), limit=1)
    assert [one.refund_id for one in page] == ["r-2"]
    act(desk, now, "assign", "r-0", assignee="Bob")
    assert [r.refund_id for r in desk.store.review_queue(assignee="Bob")] == ["r-0"]
    assert [r.refund_id for r in desk.store.review_queue(assignee="")] == ["r-1", "r-2"]
    act(desk, now, "request_information", "r-2")
    assert [r.refund_id for r in desk.store.review_queue(status="WAITING")] == ["r-2"]
    act(desk, now, "deny", "r-1")
    act(desk, now, "approve", "r-0")
    assert waiting(desk) == ["r-2"]
    assert [r.refund_id for r in desk.store.review_queue(status="DONE")] == ["r-0", "r-1"]
    done = desk.store.review_queue(status="DONE", limit=1)[0]
    rest = desk.store.review_queue(status="DONE", after=(done.closed_at, done.score_id))
    assert [r.refund_id for r in rest] == ["r-1"]


def test_without_a_score_the_whole_amount_is_at_stake(open_desk, now):
    desk = open_desk(champion=None)
    order(desk, now)
    decided(desk, now)
    [review] = desk.store.review_queue()
    assert (review.expected_loss_minor, review.probability, review.place) == (None, None, -6000)


@pytest.mark.each_store
@pytest.mark.parametrize(
    ("status", "ending"),
    [("COMPLETED", "paid"), ("DECLINED", "declined"), ("CANCELED", "canceled"), ("FAILED", None)],
)
def test_what_is_reported_closes_a_review_but_a_payment_that_may_be_tried_again(
    desk, now, status, ending
):
    decided(desk, now)
    desk.record(outcome("r-1", status), now(), "key:key_1")
    [review], _ = desk.store.reviews_of("r-1")
    assert review.ending == ending
    assert waiting(desk) == ([] if ending else ["r-1"])
    if ending:
        with pytest.raises(ReviewConflictError, match="it was reported"):
            act(desk, now, "approve")
    else:
        assert act(desk, now, "approve").disposition == "ALLOW"
        assert desk.store.refund("r-1").state == "FAILED", "its payment may be under way"
        assert held(desk, "r-1") == 6000


@pytest.mark.each_store
def test_what_is_decided_anew_closes_a_review_or_renews_it(desk, now):
    decided(desk, now)
    act(desk, now, "assign", assignee="Bob")
    act(desk, now, "request_information")
    before = desk.store.review_queue()[0]
    again = decided(desk, now, "r-1", 7000)
    [review] = desk.store.review_queue()
    assert (review.score_id, review.due_minor) == (data(again)["scoreId"], 7000)
    assert (review.opened_at, review.due_at, review.assignee, review.status) == (
        before.opened_at, before.due_at, "Bob", "OPEN")  # fmt: skip
    earlier = desk.store.reviews_of("r-1")[0][1]
    assert (earlier.score_id, earlier.ending) == (before.score_id, "decided_again")
    assert answered(desk, now, "r-1", 100)[0] == "ALLOW"
    assert waiting(desk) == []
    assert answered(desk, now, "r-1", 8000)[0] == "MANUAL_REVIEW", "more than was allowed"
    assert waiting(desk) == ["r-1"]
    assert answered(desk, now, "r-1", 9001)[0] == "PREVENT"
    assert waiting(desk) == []


def test_a_place_in_the_queue_is_answered_again_only_while_it_is_there(desk, now):
    decided(desk, now)
    assert answered(desk, now) == ("MANUAL_REVIEW", "RULE", True)
    decided(desk, now, "r-1", 7000)
    assert answered(desk, now) == ("MANUAL_REVIEW", "RULE", False)
    assert desk.store.review_queue()[0].due_minor == 6000


# --- what people do ---------------------------------------------------------------------------


@pytest.mark.each_store
def test_what_is_approved_is_promised_labelled_told_audited_and_answered(desk, now):
    hook(desk)
    first = decided(desk, now)
    review = act(desk, now, "approve", abuse=False, score_id=data(first)["scoreId"])
    assert (review.status, review.disposition, review.closed_by) == ("DONE", "ALLOW", "Ann")
    assert (desk.store.refund("r-1").state, held(desk, "r-1")) == ("APPROVED", 6000)
    [label] = [e.payload for e in desk.store.events() if e.event_type == "label"]
    reviewer = desk.store.identifiers.mac("reviewer", "Ann")
    assert (label["label"], label["source"], label["reviewer"], label["refund_id"]) == (
        "NOT_REFUND_ABUSE", "ANALYST", reviewer, "r-1")  # fmt: skip
    assert told(desk, "refund.reviewed") == [
        {"refundId": "r-1", "scoreId": data(first)["scoreId"], "act": "approved",
         "action": "ALLOW", "abuse": False}
    ]  # fmt: skip
    entry = desk.store.audit_about("refund:r-1")[-1]
    assert (entry.actor, entry.action) == ("key:key_9", "review_approved")
    assert entry.personal == {"by": "Ann", "justification": WHY, "assignee": None}
    assert WHY not in orjson.dumps(entry.content).decode()
    [done] = desk.store.reviews_of("r-1")[1]
    assert (done.act, done.actor, done.justification, done.abuse) == ("approved", "Ann", WHY, False)

    again = decided(desk, now)
    assert (data(again)["action"], data(again)["source"]) == ("ALLOW", "MANUAL_REVIEW")
    assert not again.replayed, "it is a decision of its own"
    assert kept(desk, again)["disposition"] == "ALLOW"
    assert data(again)["scoreId"] != data(first)["scoreId"]
    assert decided(desk, now).body == again.body
    assert (desk.store.refund("r-1").state, held(desk, "r-1")) == ("APPROVED", 6000)
    assert waiting(desk) == []


@pytest.mark.each_store
def test_what_is_denied_is_let_go_of_and_prevented_from_then_on(desk, now):
    decided(desk, now)
    assert answered(desk, now, "r-2", 4000)[0] == "MANUAL_REVIEW", "r-1 holds the balance"
    act(desk, now, "deny", abuse=True)
    assert (desk.store.refund("r-1").state, held(desk, "r-1")) == ("DENIED", 0)
    assert answered(desk, now) == ("PREVENT", "MANUAL_REVIEW", False)
    assert answered(desk, now) == ("PREVENT", "MANUAL_REVIEW", True)
    desk.record(outcome("r-1", "CANCELED"), now(), "key:key_1")
    assert answered(desk, now)[0] == "PREVENT", "a refusal is always the same"
    assert answered(desk, now, "r-3", 2000)[0] == "ALLOW"


def test_a_verdict_is_told_apart_from_the_answer_or_not_at_all(desk, now):
    decided(desk, now)
    act(desk, now, "deny")
    assert "label" not in {e.event_type for e in desk.store.events()}


@pytest.mark.each_store
def test_an_approval_is_of_these_fields_and_of_no_others(desk, now):
    decided(desk, now)
    act(desk, now, "approve")
    assert answered(desk, now, "r-1", 8000)[:2] == ("MANUAL_REVIEW", "RULE")
    assert (desk.store.refund("r-1").state, waiting(desk)) == ("APPROVED", ["r-1"])
    act(desk, now, "deny")
    assert (desk.store.refund("r-1").state, held(desk, "r-1")) == ("APPROVED", 6000)
    assert answered(desk, now, "r-1", 8000)[:2] == ("PREVENT", "MANUAL_REVIEW")
    assert answered(desk, now)[:2] == ("ALLOW", "MANUAL_REVIEW"), "as it was approved"


def test_nothing_overrides_a_hard_rule(desk, now):
    decided(desk, now)
    act(desk, now, "approve")
    moved(desk, now, "r-2", 5000)
    assert answered(desk, now)[:2] == ("PREVENT", "RULE")


@pytest.mark.each_store
def test_no_more_is_approved_than_is_left_of_the_order(desk, now):
    hook(desk)
    for refund_id in ("r-1", "r-2"):
        assert answered(desk, now, refund_id)[0] == "MANUAL_REVIEW"
    act(desk, now, "approve", "r-1")
    with pytest.raises(ReviewConflictError) as refused:
        act(desk, now, "approve", "r-2", abuse=False)
    assert str(refused.value) == (
        "refund 'r-2': expected at most the 3,000 that are left of the order, got 6,000 GBP to "
        "approve: of 9,000 captured 0 went back and 6,000 are promised to other refunds"
    )
    assert waiting(desk) == ["r-2"]
    assert [one["refundId"] for one in told(desk, "refund.reviewed")] == ["r-1"]
    assert answered(desk, now, "r-1")[:2] == ("ALLOW", "MANUAL_REVIEW")
    desk.record(outcome("r-1", "COMPLETED"), now(), "key:key_1")
    with pytest.raises(ReviewConflictError, match="6,000 went back and 0 are promised"):
        act(desk, now, "approve", "r-2")
    assert act(desk, now, "deny", "r-2").disposition == "PREVENT"


def test_two_approvals_at_once_promise_no_more_than_there_is(desk, now):
    for refund_id in ("r-1", "r-2"):
        decided(desk, now, refund_id)

    def approve(refund_id: str) -> bool:
        try:
            return act(desk, now, "approve", refund_id).disposition == "ALLOW"
        except ReviewConflictError:
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(approve, ("r-1", "r-2"))) == [False, True]


def test_where_the_policy_promises_no_complete_orders_they_bind_no_analyst(desk, now):
    decided(desk, now)
    decided(desk, now, "r-2")
    text = document("1", BALANCE, UNHELD, rule(HELD_FROM), orders_complete=False)
    ensure_first(desk.store, text, now())
    for refund_id in ("r-1", "r-2"):
        assert act(desk, now, "approve", refund_id).disposition == "ALLOW"


@pytest.mark.parametrize("status", ["CANCELED", "DECLINED"])
def test_an_approval_that_was_given_up_is_none_any_more(desk, now, status):
    decided(desk, now)
    act(desk, now, "approve")
    desk.record(outcome("r-1", status), now(), "key:key_1")
    assert answered(desk, now) == ("MANUAL_REVIEW", "RULE", False)
    assert waiting(desk) == ["r-1"]


@pytest.mark.parametrize(
    ("captured", "expected"), [(9000, ("PREVENT", "RULE")), (20_000, ("ALLOW", "MANUAL_REVIEW"))]
)
def test_what_was_approved_and_paid_before_it_is_asked_again_is_not_promised_twice(
    open_desk, now, captured, expected
):
    desk = open_desk()
    order(desk, now, captured=captured)
    decided(desk, now)
    act(desk, now, "approve")
    desk.record(outcome("r-1", "COMPLETED", 6000), now(), "key:key_1")
    assert answered(desk, now)[:2] == expected, "where it is left, and else nothing overrides that"
    [one] = desk.store.reserved_for("r-1")
    assert (one.promised_minor, one.paid_at is not None) == (6000, True)
    assert desk.store.refund("r-1").state == "REFUNDED"
    assert answered(desk, now, "r-2", 3000)[0] == "ALLOW"


def test_in_the_sandbox_what_was_forced_is_answered_as_it_was_reviewed(open_desk, now):
    desk = open_desk(is_sandbox=True)
    order(desk, now)

    def force() -> tuple[str, str]:
        body = orjson.loads(orjson.dumps({
            "customer": {"customerId": "c", "email": "qa-force-refund-manualreview@example.com"},
            "order": {"orderId": "o-1"}, "refund": {"refundId": "r-1", "status": "OPEN",
            "amount": 100, "currency": "GBP", "refundReason": "OTHER"}}))  # fmt: skip
        found = data(desk.decide(report(body), now, ME))
        return found["action"], found["source"]

    assert force() == ("MANUAL_REVIEW", "RULE")
    act(desk, now, "approve")
    assert force() == ("ALLOW", "MANUAL_REVIEW")


def test_in_a_store_that_lives_in_another_time_an_act_is_of_that_time(tmp_path, now):
    store = Store.open(f"sqlite:///{tmp_path}/s.db", SECRET, clock="event")
    desk = desk_of(store)
    order(desk, now)
    decided(desk, now)
    act_on(store, "r-1", Doing.of("approve", by="Ann", justification=WHY), at=NOW + 900 * DAY_MS)
    now()
    desk.record(outcome("r-1", "COMPLETED", 6000), now(), "key:key_1")
    assert store.refund("r-1").state == "REFUNDED", "what was reported since is no late news"
    store.close()


@pytest.mark.parametrize("clock", ["event", "ingest"])
def test_no_act_is_before_what_it_is_about_or_what_was_done_before(tmp_path, now, clock):
    store = Store.open(f"sqlite:///{tmp_path}/s.db", SECRET, clock=clock)
    desk = desk_of(store)
    order(desk, now)
    decided(desk, now)
    act(desk, now, "approve")
    for _ in range(9):
        now()
    decided(desk, now, "r-1", 7000)
    asks = Doing.of("request_information", by="Ann", justification=WHY)
    denies = Doing.of("deny", by="Ann", justification=WHY)
    for doing in (asks, denies):  # by a clock that is behind
        act_on(store, "r-1", doing, at=NOW)
    every, acts = store.reviews_of("r-1")
    times = [one.at for one in acts]
    assert times == sorted(times)
    assert every[0].opened_at <= times[1] <= every[0].closed_at
    assert every[0].ending == "denied"
    store.close()


@pytest.mark.each_store
@pytest.mark.parametrize(("name", "action"), [("approve", "ALLOW"), ("deny", "PREVENT")])
def test_an_answer_that_is_given_again_leaves_what_other_fields_wait_for(desk, now, name, action):
    decided(desk, now)
    act(desk, now, name)
    decided(desk, now, "r-1", 7000)
    act(desk, now, "assign", assignee="Bob")
    before, state = desk.store.review_queue(), desk.store.refund("r-1").state
    assert answered(desk, now)[:2] == (action, "MANUAL_REVIEW")
    assert (desk.store.review_queue(), desk.store.refund("r-1").state) == (before, state)
    assert held(desk, "r-1") == 7000
    assert answered(desk, now, "r-1", 7000) == ("MANUAL_REVIEW", "RULE", True)
    assert answered(desk, now) == (action, "MANUAL_REVIEW", True)
    assert act(desk, now, "approve").disposition == "ALLOW"
    assert answered(desk, now, "r-1", 7000)[:2] == ("ALLOW", "MANUAL_REVIEW")


@pytest.mark.each_store
def test_the_second_of_two_analysts_is_told_who_was_first(desk, now):
    first = decided(desk, now)

    def try_(by: str, name: str) -> Any:
        try:
            return act(desk, now, name, by=by)
        except ReviewConflictError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(try_, "Ann", "approve"), pool.submit(try_, "Bob", "deny")]
        found = [job.result() for job in jobs]
    [done] = [one for one in found if isinstance(one, Review)]
    [error] = [one for one in found if not isinstance(one, Review)]
    word = {"approved": "approved it", "denied": "denied it"}[done.ending]
    assert f"{done.closed_by} {word} at " in str(error)
    acts = desk.store.reviews_of("r-1")[1]
    assert [(one.actor, one.act) for one in acts] == [(done.closed_by, done.ending)]
    with pytest.raises(ReviewConflictError, match="nothing of it waits"):
        act(desk, now, "assign", assignee="Bob", score_id=data(first)["scoreId"])


def test_what_was_read_must_be_what_is_decided(desk, now):
    first = decided(desk, now)
    decided(desk, now, "r-1", 7000)
    with pytest.raises(ReviewConflictError, match="scoreId: the review is about decision"):
        act(desk, now, "approve", score_id=data(first)["scoreId"])
    assert waiting(desk) == ["r-1"]
    with pytest.raises(UnknownReviewError, match="no review of refund 'r-9'"):
        act(desk, now, "approve", "r-9")


def test_a_refund_that_cannot_be_moved_is_refused_by_name(desk, now):
    decided(desk, now)
    with desk.store.write() as tx:
        tx.transition("r-1", "CANCELED", at=now())
    with pytest.raises(TransitionRefusedError, match="is CANCELED: expected no further"):
        act(desk, now, "approve")
    assert desk.store.reviews_of("r-1")[1] == []


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"act": "approve"}, ["justification"]),
        ({"act": "deny", "justification": "   too    "}, ["justification"]),
        ({"act": "deny", "justification": "x" * 2001}, ["justification"]),
        ({"act": "deny", "justification": ".........."}, ["justification"]),
        ({"act": "deny", "justification": "1234567890"}, ["justification"]),
        ({"act": "deny", "justification": "paid \x1b[2J to nobody"}, ["justification"]),
        ({"act": "deny", "justification": "paid to \u202e ydobon"}, ["justification"]),
        ({"act": "assign"}, ["assignee"]),
        ({"act": "assign", "assignee": "\u0430nn", "abuse": True}, ["abuse", "assignee"]),
        ({"act": "request_information", "justification": WHY, "abuse": False}, ["abuse"]),
        ({"act": "aprove", "justification": "no"}, ["act", "justification"]),
        ({"act": "approve", "justification": WHY, "assignee": "Bob"}, ["assignee"]),
    ],
)
def test_all_that_is_wrong_with_an_act_is_said_at_once(given, fields):
    with pytest.raises(InvalidRequest) as refused:
        Doing.of(**given, by="Ann")
    assert [problem.field for problem in refused.value.problems] == fields


def test_a_justification_may_have_lines_and_any_letters():
    for text in (
        "It was signed for.\n\tBy a neighbour.",
        "پرداخت می‌شود به مشتری",
        "✓ seen 👩‍👧 =1+1",
    ):
        assert Doing.of("deny", by="Ann", justification=f"  {text} ").justification == text


# --- as others go on meanwhile ----------------------------------------------------------------


@pytest.mark.each_store
def test_a_decision_that_an_analyst_overtakes_is_made_with_what_the_analyst_answered(
    open_desk, now
):
    desk = open_desk(Hooked)
    order(desk, now)
    decided(desk, now, "r-1", 7000)
    decided(desk, now)  # 6,000 waits now
    desk.store.between(lambda: act(desk, now, "deny", by="Bob"))
    assert answered(desk, now, "r-1", 7000)[0] == "MANUAL_REVIEW", "that was about other fields"
    act(desk, now, "deny", by="Bob")
    assert answered(desk, now, "r-1", 7000)[:2] == ("PREVENT", "MANUAL_REVIEW")
    assert answered(desk, now)[:2] == ("PREVENT", "MANUAL_REVIEW")


@pytest.mark.each_store
def test_an_act_is_kept_whole_or_not_at_all(desk, now, monkeypatch):
    decided(desk, now)
    before = held(desk, "r-1"), desk.store.refund("r-1"), desk.store.reviews_of("r-1")

    def fail(*_: Any) -> None:
        raise OperationalError("COMMIT", None, OSError("disk full"))

    with monkeypatch.context() as failing:
        failing.setattr(Transaction, "announce", fail)
        with pytest.raises(OperationalError):
            act(desk, now, "deny", abuse=True)
    assert (held(desk, "r-1"), desk.store.refund("r-1"), desk.store.reviews_of("r-1")) == before
    assert "label" not in {e.event_type for e in desk.store.events()}


def statements(desk: Desk, do: Any) -> list[str]:
    heard: list[str] = []
    listen(desk.store, lambda text, _: heard.append(" ".join(text.split())))
    do()
    return heard


def test_only_what_is_held_costs_a_statement_more(desk, now):
    decided(desk, now, "r-0", 50)  # statements are prepared, connections made
    allowed = statements(desk, lambda: decided(desk, now, "r-1", 100))
    assert not [text for text in allowed if "reviews" in text and "FROM decisions" not in text]
    of_held = statements(desk, lambda: decided(desk, now, "r-2", 6000))
    assert len([text for text in of_held if "reviews" in text and "decisions" not in text]) == 1


def test_what_is_late_is_told_once(desk, now):
    hook(desk)
    answer = decided(desk, now)
    [review] = desk.store.review_queue()
    watch, other = OverdueWatch(desk.store), OverdueWatch(desk.store)
    assert watch.look(review.due_at - 1) == 0
    assert desk.store.reviews_waiting(review.due_at - 1) == (1, 0)
    assert desk.store.reviews_waiting(review.due_at) == (1, 1)
    assert desk.store.review_queue(overdue_at=review.due_at - 1) == []
    assert [watch.look(review.due_at + n) + other.look(review.due_at + n) for n in range(3)] == [
        1, 0, 0]  # fmt: skip
    assert [one.refund_id for one in desk.store.review_queue(overdue_at=review.due_at)] == ["r-1"]
    decided(desk, now, "r-1", 7000)
    assert watch.look(review.due_at + 9) == 0, "it waits as long as before"
    assert told(desk, "review.overdue") == [
        {"refundId": "r-1", "scoreId": data(answer)["scoreId"], "dueAt": review.due_at,
         "expectedLoss": review.expected_loss_minor}
    ]  # fmt: skip


def test_in_a_store_where_the_present_tells_no_age_nothing_is_late(tmp_path, now):
    store = Store.open(f"sqlite:///{tmp_path}/s.db", SECRET, clock="event")
    desk = desk_of(store)
    order(desk, now)
    decided(desk, now)
    hook(desk)
    [review] = store.review_queue()
    late = review.due_at + 900 * DAY_MS
    assert OverdueWatch(store).look(late) == 0
    assert store.reviews_waiting(late) == (1, 0)
    assert store.review_queue(overdue_at=late) == []
    assert store.count_review_queue(overdue_at=late) == 0
    assert body_of(store, review, late, "GBP")["overdue"] is False
    assert data_of(desk, "r-1", late)["overdue"] is False
    assert told(desk, "review.overdue") == []
    store.close()


# --- what is personal -------------------------------------------------------------------------


@pytest.mark.each_store
def test_who_is_erased_is_nobody_on_the_desk_and_what_was_written_is_gone(desk, now, tmp_path):
    decided(desk, now)
    before = desk.store.review_queue()[0].customer
    act(desk, now, "request_information")
    exported = orjson.loads(b"".join(document_of(desk.store, CUSTOMER, actor="bob", at=now())))
    [review] = exported["reviews"]
    assert (review["refund_id"], review["status"]) == ("r-1", "WAITING")
    assert [one["justification"] for one in review["acts"]] == [WHY]
    assert "Ann" not in orjson.dumps(exported).decode(), "that is another person"
    rows = erase(desk.store, CUSTOMER, actor="bob", at=now()).rows
    assert (rows["reviews"], rows["review_acts"]) == (1, 1)
    [after] = desk.store.review_queue()
    assert after.customer != before
    text = everything(desk.store)
    assert WHY not in text
    assert before not in text
    [entry] = [e for e in desk.store.audit_about("refund:r-1") if e.action.startswith("review")]
    assert entry.personal is None
    assert seal_and_vouch(desk.store, SECRET, tmp_path / "head") == []
    assert act(desk, now, "deny").disposition == "PREVENT", "it still waits for an answer"


@pytest.mark.each_store
def test_under_another_secret_the_queue_names_the_same_customer(desk, now, url):
    decided(desk, now)
    desk.store.close()
    new = b"another secret, as long as the first"
    assert rotate(url, SECRET, new, actor="bob", at=now()).rows["reviews"] == 1
    store = Store.open(url, new, create=False)
    [review] = store.review_queue()
    assert review.customer == store.identifiers.mac("customer", CUSTOMER)
    store.close()


@pytest.mark.parametrize("keep", [Keep(decisions=30), Keep(events=365)])
def test_what_is_done_goes_with_what_it_was_about(desk, now, keep):
    decided(desk, now)
    act(desk, now, "deny")
    decided(desk, now, "r-2", 7000)
    at = NOW + 400 * DAY_MS
    apply(desk.store, keep, at=at, actor="bob", pause=lambda _: None)
    assert desk.store.reviews_of("r-1") == ([], [])
    assert len(desk.store.reviews_of("r-2")[0]) == (1 if keep.decisions else 0)


# --- any order of things ----------------------------------------------------------------------

STEP = st.one_of(
    st.tuples(st.just("decide"), st.sampled_from([1000, 5000, 6000, 8000, 9001])),
    st.tuples(st.just("report"), st.sampled_from(["COMPLETED", "DECLINED", "CANCELED", "FAILED"])),
    st.tuples(st.just("act"), st.sampled_from(["approve", "deny", "request_information"])),
)


FINAL = ("ALLOW", "PREVENT")


class Naive:
    """What is expected of one refund, without states or reservations."""

    def __init__(self) -> None:
        self.waits_for: int | None = None
        self.is_paid = False
        self.approved: set[int] = {0}
        self.denied: set[int] = set()

    def decided(self, amount: int, action: str, is_new: bool) -> None:
        if amount in self.denied:
            assert action == "PREVENT"
        if action == "ALLOW":
            self.approved.add(amount)
        if is_new:
            self.waits_for = amount if action == "MANUAL_REVIEW" else None

    def reported(self, status: str) -> None:
        is_known = self.is_paid and status == "COMPLETED"  # told twice it is told once
        if status != "FAILED" and not is_known:
            self.waits_for = None
        self.is_paid = status == "COMPLETED"

    def acted(self, name: str) -> None:
        assert self.waits_for is not None, f"{name} of what does not wait"
        if name == "approve":
            self.approved.add(self.waits_for)
        elif name == "deny":
            self.denied.add(self.waits_for)
        if name != "request_information":
            self.waits_for = None


NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def any_desk(tmp_path_factory: pytest.TempPathFactory) -> Any:
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('any')}/s.db", SECRET)
    yield desk_of(store)
    store.close()


TICKS = Clock()


@hypothesis_settings(max_examples=60)
@given(steps=st.lists(st.tuples(st.integers(0, 1), STEP), max_size=14))
def test_whatever_happens_one_review_is_open_and_no_more_is_promised_than_was_approved(
    any_desk, steps
):
    desk, now, number = any_desk, TICKS, next(NUMBERS)
    order(desk, now, f"o-{number}")
    names, naive = [f"r-{number}-{i}" for i in range(2)], [Naive(), Naive()]
    for which, (kind, what) in steps:
        name, model = names[which], naive[which]
        if kind == "decide":
            said = asked(name, what, customer=f"c-{number}", order_id=f"o-{number}")
            answer = desk.decide(said, now, ME)
            is_answer = kept(desk, answer)["disposition"] is not None
            is_new = not answer.replayed and not (is_answer and data(answer)["action"] in FINAL)
            model.decided(what, data(answer)["action"], is_new)
        elif kind == "report":
            desk.record(outcome(name, what), now(), "key:key_1")
            model.reported(what)
        else:
            try:
                act(desk, now, what, name)
            except (ReviewConflictError, UnknownReviewError) as error:
                assert model.waits_for is None or "left of the order" in str(error)
            else:
                model.acted(what)
        for each, expected in zip(names, naive, strict=True):
            every, _ = desk.store.reviews_of(each)
            still = [review.due_minor for review in every if review.closed_at is None]
            assert still == ([] if expected.waits_for is None else [expected.waits_for])
            promised = [one.promised_minor for one in desk.store.reserved_for(each)]
            assert max(promised, default=0) <= max(expected.approved)
