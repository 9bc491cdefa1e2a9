"""Four eyes: approvals above a limit wait for a second person, and the store holds them to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from features.money import DAY_MS
from serving.desk import Desk
from serving.reviewing import data_of
from serving.reviews import (
    ActRefusedError,
    Authority,
    Doing,
    ReviewConflictError,
    UnknownReviewError,
    act_on,
    act_on_many,
    effect_of_approval,
    who_may_approve,
)
from serving.roles import Role, rank_of
from serving.store.accounts import Account
from serving.store.erasure import erase
from serving.store.refunds import TransitionRefusedError
from serving.store.retention import Keep, apply
from serving.store.reviews import Review
from serving.store.store import Store
from serving.wire import InvalidRequest
from tests.serving.store.test_erasure import everything
from tests.serving.test_desk import ME, NOW, SECRET, Clock, data, now, open_desk, url
from tests.serving.test_reservations import asked, held, order, outcome
from tests.serving.test_reviews import (
    CUSTOMER,
    WHY,
    act,
    answered,
    decided,
    desk,
    desk_of,
    hook,
    policy,
    told,
)

__all__ = ["desk", "now", "open_desk", "policy", "url"]  # fixtures

LIMIT = 5_500
"""Below the 6,000 that is asked."""


def account(
    store: Store, name: str, role: Role, limit: int | None = None, disabled: int | None = None
) -> None:
    with store.write() as tx:
        one = Account(f"id-{name}", name, role, limit, 1, disabled, None, True)
        if store.accounts.by_name(tx._connection, name) is None:
            store.accounts.add(tx._connection, one)
        store.accounts.change(tx._connection, one)
        store.accounts.set_password(tx._connection, one.id, "a hash")


@pytest.fixture
def people(desk: Desk) -> Desk:
    """Ann and Al, agents with a limit, Mo, a manager without one, and what is above the limit."""
    account(desk.store, "Ann", "agent", LIMIT)
    account(desk.store, "Al", "agent", LIMIT)
    account(desk.store, "Mo", "manager")
    account(desk.store, "Max", "manager", LIMIT)
    account(desk.store, "Vi", "viewer")
    return desk


@pytest.mark.each_store
def test_what_is_above_a_limit_waits_for_somebody_of_a_higher_role(people, now):
    desk = people
    hook(desk)
    first = decided(desk, now)
    review = act(desk, now, "approve", abuse=False)
    assert (review.status, review.closed_at) == ("OPEN", None)
    assert review.proposal is not None
    assert review.proposal[:3] == ("Ann", rank_of("agent"), LIMIT)
    assert (desk.store.refund("r-1").state, held(desk, "r-1")) == ("NEEDS_REVIEW", 6000)
    assert answered(desk, now) == ("MANUAL_REVIEW", "RULE", True)
    assert told(desk, "refund.reviewed") == []
    assert "label" not in {e.event_type for e in desk.store.events()}
    found = data_of(desk, "r-1", now())["proposal"]
    assert found and found["at"] == review.proposal.first_at
    assert (found["by"], found["abuse"], found["needs"]) == ("Ann", False, "manager")
    for same in ("Ann", " ANN "):
        with pytest.raises(ActRefusedError, match="Ann proposed to approve it: expected manager"):
            act(desk, now, "approve", by=same)
    for lesser in ("Al", "Max"):
        with pytest.raises(ActRefusedError, match="approves up to 5,500 alone: expected manager"):
            act(desk, now, "approve", by=lesser)
    done = act(desk, now, "approve", by="Mo", justification="Seen the photos as well.")
    assert (done.status, done.ending, done.closed_by) == ("DONE", "approved", "Mo")
    assert done.approval[-4:-1] == ("Mo", rank_of("manager"), None)
    assert told(desk, "refund.reviewed") == [
        {"refundId": "r-1", "scoreId": data(first)["scoreId"], "act": "approved",
         "action": "ALLOW", "abuse": False}
    ]  # fmt: skip
    [label] = [e.payload for e in desk.store.events() if e.event_type == "label"]
    assert label["label"] == "NOT_REFUND_ABUSE"
    entries = [e for e in desk.store.audit_about("refund:r-1") if e.action.startswith("review")]
    assert [(e.action, e.personal["by"]) for e in entries] == [
        ("review_approval_proposed", "Ann"), ("review_approved", "Mo")]  # fmt: skip
    assert entries[1].personal["proposed_by"] == "Ann"
    assert answered(desk, now)[:2] == ("ALLOW", "MANUAL_REVIEW")
    assert data_of(desk, "r-1", now())["proposal"] is None


def test_within_a_limit_one_is_enough_and_one_of_any_role_may_refuse(people, now):
    decided(people, now, "r-1", 5500)
    assert act(people, now, "approve").ending == "approved"
    order(people, now, "o-2")
    people.decide(asked("r-2", 6000, order_id="o-2"), now, ME)
    act(people, now, "approve", "r-2")
    assert act(people, now, "deny", "r-2", by="Al").ending == "denied"
    assert people.store.reviews_of("r-2")[0][0].approval is None


def test_a_proposal_is_taken_back_by_a_question_or_by_whoever_made_it(people, now):
    decided(people, now)
    with pytest.raises(ReviewConflictError, match="nobody proposed"):
        act(people, now, "withdraw")
    act(people, now, "approve")
    assert act(people, now, "note", by="Mo", justification="ok").proposal is not None
    with pytest.raises(ActRefusedError, match="expected them to withdraw that, got Mo"):
        act(people, now, "withdraw", by="Mo")
    assert act(people, now, "withdraw").proposal is None
    act(people, now, "approve", by="Al")
    assert act(people, now, "request_information", by="Ann").proposal is None
    act(people, now, "approve")
    decided(people, now, "r-1", 7000)
    [open_, before] = people.store.reviews_of("r-1")[0]
    assert (open_.proposal, before.ending) == (None, "decided_again")


def test_who_may_act_is_looked_up_where_the_act_is_written(people, now):
    decided(people, now)
    with pytest.raises(ActRefusedError, match="Vi is viewer: expected agent or higher"):
        act(people, now, "deny", by="Vi")
    account(people.store, "Mo", "manager", disabled=5)
    with pytest.raises(ActRefusedError, match="this account is disabled"):
        act(people, now, "approve", by="mo")
    account(people.store, "Mo", "agent", 100)
    assert act(people, now, "approve", by="Mo").proposal.first_rank == rank_of("agent")
    assert people.store.reviews_of("r-1")[0][0].closed_at is None


def test_whoever_has_no_account_has_the_limit_that_the_service_sets(people, now):
    decided(people, now)
    doing = Doing.of("approve", by="Zoe", justification=WHY)
    assert act_on(people.store, "r-1", doing, at=now(), limit_minor=100).proposal
    assert [one.name for one in who_may_approve(people.store, people.store.review_queue()[0])] == [
        "Mo"]  # fmt: skip
    assert act(people, now, "approve", by="Mo").ending == "approved"


def test_only_who_leads_gives_reviews_to_others(people, now):
    decided(people, now)
    assert act(people, now, "assign", assignee="Ann").assignee == "Ann"
    with pytest.raises(ActRefusedError, match="to give a review to others"):
        act(people, now, "assign", assignee="Al")
    with pytest.raises(ActRefusedError):
        act(people, now, "assign", by="Al", assignee="")
    with pytest.raises(ActRefusedError, match=r"take another's \(it is Ann's\)"):
        act(people, now, "assign", by="Al", assignee="Al")
    assert act(people, now, "assign", by="Mo", assignee="Al").assignee == "Al"
    assert act(people, now, "assign", by="Al", assignee="").assignee is None


@pytest.mark.each_store
def test_the_database_itself_refuses_an_approval_without_enough_people(people, now):
    decided(people, now)
    [review] = people.store.review_queue()
    approve = f"UPDATE reviews SET ending = 'approved' WHERE score_id = '{review.score_id}'"

    def run(*statements: str) -> None:
        with people.store.write() as tx:
            for one in statements:
                tx._connection.execute(text(one))

    def behind(first: str, second: str = "NULL, NULL, NULL, NULL") -> str:
        return (
            "INSERT INTO review_approvals (score_id, first_by, first_rank, first_limit_minor, "
            "first_at, second_by, second_rank, second_limit_minor, second_at) "
            f"VALUES ('{review.score_id}', {first}, 1, {second})"
        )

    for rows in (
        [],
        [behind("'Ann', 1, 5999")],
        [behind("'Ann', 1, 5999", "'Ann', 2, NULL, 2")],
        [behind("'Ann', 1, 5999", "'Bob', 1, NULL, 2")],
        [behind("'Ann', 1, 5999", "'Bob', 2, 5999, 2")],
        [behind("'Ann', 1, 9999999"),
         f"UPDATE reviews SET payable_minor = NULL WHERE score_id = '{review.score_id}'"],
    ):  # fmt: skip
        with pytest.raises(DatabaseError, match="only with enough people behind it"):
            run(*rows, approve)
    assert people.store.review_queue()[0].approval is None, "nothing of it was kept"
    run(behind("'Ann', 1, 5999", "'Bob', 2, 6000, 2"), approve)


@pytest.mark.each_store
def test_of_two_who_second_at_once_one_does(people, now):
    account(people.store, "Mia", "manager")
    decided(people, now)
    act(people, now, "approve")

    def second(name: str) -> str:
        try:
            return act(people, now, "approve", by=name).closed_by or "nobody"
        except ReviewConflictError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        came = sorted(pool.map(second, ("Mo", "Mia")), key=len)
    assert came[0] in ("Mo", "Mia")
    assert f"{came[0]} approved it" in came[1]
    acts = [one.act for one in people.store.reviews_of("r-1")[1]]
    assert acts == ["approval_proposed", "approved"]


# --- several at once, notes, refusals that are reopened -----------------------------------------


def test_many_are_acted_on_one_by_one(people, now):
    for number in range(3):
        order(people, now, f"o-{number}0")
        people.decide(asked(f"r-{number}", 6000, order_id=f"o-{number}0"), now, ME)
    act(people, now, "deny", "r-1")
    doing = Doing.of("approve", by="Ann", justification=WHY)
    came = act_on_many(people.store, ["r-0", "r-1", "r-9", "r-2", "r-0"], doing, at=now())
    assert list(came) == ["r-0", "r-1", "r-9", "r-2"]
    assert [type(each) for each in came.values()] == [
        Review, ReviewConflictError, UnknownReviewError, Review]  # fmt: skip
    assert came["r-0"].proposal and came["r-2"].proposal
    for wrong in ([], [f"r-{n}" for n in range(101)]):
        with pytest.raises(InvalidRequest, match="must be 1 to 100 refunds"):
            act_on_many(people.store, wrong, doing, at=now())


def test_a_note_changes_nothing_but_what_is_told(people, now):
    decided(people, now)
    before = people.store.review_queue()
    act(people, now, "note", by="Al", justification="See r-7.")
    assert people.store.review_queue() == before
    done = act(people, now, "approve", by="Mo")
    assert act(people, now, "note", justification="Paid on Monday.") == done
    assert [one.justification for one in people.store.reviews_of("r-1")[1]] == [
        "See r-7.", WHY, "Paid on Monday."]  # fmt: skip
    with pytest.raises(InvalidRequest, match="justification: must be 1 to 2000"):
        Doing.of("note", by="Ann", justification="…")


@pytest.mark.each_store
@pytest.mark.parametrize("amount", [9001, 6000], ids=["by a rule", "by a person"])
def test_a_refusal_is_reopened_and_then_answered_as_it_was_approved(people, now, amount):
    desk = people
    order(desk, now, "o-9", captured=20_000)
    asked_for = asked("r-9", amount if amount == 6000 else 30_000, order_id="o-9")
    if amount == 6000:
        desk.decide(asked_for, now, ME)
        act(desk, now, "deny", "r-9")
    answer = desk.decide(asked_for, now, ME)
    assert data(answer)["action"] == "PREVENT"
    with pytest.raises(ActRefusedError, match="to reopen a refusal"):
        act(desk, now, "reopen", "r-9")
    review = act(desk, now, "reopen", "r-9", by="Mo")
    assert (review.status, review.score_id) == ("OPEN", data(answer)["scoreId"])
    assert desk.store.review_queue() == [review]
    assert review.due_at - review.opened_at == DAY_MS
    assert desk.store.refund("r-9").state == "NEEDS_REVIEW"
    assert held(desk, "r-9") == review.due_minor
    with pytest.raises(ReviewConflictError, match="waits for a person as it is"):
        act(desk, now, "reopen", "r-9", by="Mo")
    assert desk.decide(asked_for, now, ME).replayed, "until then it is answered as before"
    assert desk.store.audit_about("refund:r-9")[-1].action == "review_reopened"
    if amount != 6000:  # more than was captured: nobody may promise that
        with pytest.raises(ReviewConflictError, match="left of the order"):
            act(desk, now, "approve", "r-9", by="Mo")
        assert act(desk, now, "deny", "r-9").ending == "denied"
        assert desk.store.refund("r-9").state == "DENIED"
        return
    assert act(desk, now, "approve", "r-9").proposal, "four eyes here, too"
    assert act(desk, now, "approve", "r-9", by="Mo", abuse=False).ending == "approved"
    again = desk.decide(asked_for, now, ME)
    assert (data(again)["action"], data(again)["source"]) == ("ALLOW", "MANUAL_REVIEW")
    assert desk.store.refund("r-9").state == "APPROVED"


def test_reopening_takes_a_verdict_back_until_one_is_given_again(people, now):
    people.decide(asked("r-1", 6_000), now, ME)
    act(people, now, "deny", "r-1", abuse=True)
    act(people, now, "reopen", "r-1", by="Mo")
    act(people, now, "approve", "r-1", by="Mo", justification="It was somebody else's parcel.")
    labels = [one.payload["label"] for one in people.store.refund_events("r-1")
                  if one.event_type == "label"]  # fmt: skip
    assert labels == ["REFUND_ABUSE", "UNREVIEWED"]


def test_a_refusal_that_its_backend_carried_out_is_reopened_as_well(people, now):
    with people.store.write() as tx:
        tx.put_on_list("block", "customer", CUSTOMER, reason="ring", author="Mo", at=now())
    assert answered(people, now, "r-1", 100)[:2] == ("PREVENT", "LIST")
    people.record(outcome("r-1", "DECLINED"), now(), "key:key_1")
    act(people, now, "reopen", by="Mo", justification="It was another of that name.")
    assert act(people, now, "approve").ending == "approved"
    assert answered(people, now, "r-1", 100)[:2] == ("ALLOW", "MANUAL_REVIEW")
    assert answered(people, now, "r-2", 100)[:2] == ("PREVENT", "LIST"), "that was of one refund"


def test_what_was_not_refused_or_is_settled_is_not_reopened(people, now):
    decided(people, now, "r-1", 100)
    with pytest.raises(ReviewConflictError, match="answered ALLOW; only what was refused"):
        act(people, now, "reopen", by="Mo")
    with pytest.raises(UnknownReviewError, match="no decision on refund 'r-8'"):
        act(people, now, "reopen", "r-8", by="Mo")
    decided(people, now, "r-2", 30_000)
    people.record(outcome("r-2", "CANCELED"), now(), "key:key_1")
    with pytest.raises(TransitionRefusedError, match="is CANCELED: expected one that was denied"):
        act(people, now, "reopen", "r-2", by="Mo")
    assert people.store.review_queue() == []


# --- the queue ----------------------------------------------------------------------------------


@pytest.mark.each_store
def test_the_queue_is_asked_for_by_what_matters(people, now):
    store = people.store
    for number, amount in enumerate((6000, 8000, 7000)):
        order(people, now, f"o-{number}0")
        people.decide(asked(f"r-{number}", amount, order_id=f"o-{number}0"), now, ME)
    first = store.reviews_of("r-0")[0][0]
    act(people, now, "approve", "r-2")

    def of(**wanted: Any) -> list[str]:
        found = [one.refund_id for one in store.review_queue(**wanted)]
        assert store.count_review_queue(**wanted) == len(found)
        return found

    assert of(payable_at_least=7000) == ["r-1", "r-2"]
    assert of(order_id="o-00") == ["r-0"]
    assert of(customer=first.customer, currency="GBP") == ["r-1", "r-2", "r-0"]
    assert (of(customer="nobody"), of(currency="EUR")) == ([], [])
    assert (of(proposed=True), of(proposed=False)) == (["r-2"], ["r-1", "r-0"])
    assert of(opened_until=first.opened_at) == ["r-0"]


def test_the_next_case_is_one_that_somebody_can_work_on(people, now):
    for number, amount in enumerate((6000, 8000, 7000, 6500)):
        order(people, now, f"o-{number}0")
        people.decide(asked(f"r-{number}", amount, order_id=f"o-{number}0"), now, ME)
    act(people, now, "assign", "r-1", by="Mo", assignee="Al")
    act(people, now, "approve", "r-2")
    act(people, now, "request_information", "r-3")

    def following(name: str, role: Role, after: str | None = None) -> str | None:
        place = None
        if after:
            review = people.store.reviews_of(after)[0][0]
            place = review.place, review.score_id
        found = people.store.next_review(name, rank_of(role), place)
        return found and found.refund_id

    assert following("Ann", "agent") == "r-0", "the others are Al's, proposed, or wait"
    assert following("Mo", "manager") == "r-2"
    assert following("Al", "agent") == "r-1"
    assert following("Al", "agent", "r-1") == "r-0"
    assert following("Al", "agent", "r-0") == "r-1", "from the first on after the last"
    assert following("Ann", "agent", "r-0") is None


# --- what is personal ---------------------------------------------------------------------------


@pytest.mark.each_store
def test_why_an_approval_was_proposed_is_erased_and_goes_with_its_review(people, now):
    decided(people, now)
    act(people, now, "approve")
    erase(people.store, CUSTOMER, actor="bob", at=now())
    assert WHY not in everything(people.store)
    assert act(people, now, "approve", by="Mo").ending == "approved"
    apply(people.store, Keep(decisions=30), at=NOW + 400 * DAY_MS, actor="bob",
          pause=lambda _: None)  # fmt: skip
    with people.store.database.read() as connection:
        left = connection.execute(text("SELECT count(*) FROM review_approvals")).scalar()
    assert left == 0


# --- any order of acts --------------------------------------------------------------------------

ROLES: list[Role] = ["viewer", "agent", "manager", "finance", "admin"]


class Person(NamedTuple):
    name: str
    role: Role
    limit: int | None

    def is_enough(self, amount: int) -> bool:
        return self.limit is None or amount <= self.limit


PEOPLE = st.lists(
    st.builds(Person, st.just(""), st.sampled_from(ROLES),
              st.sampled_from([None, 0, 5_000, 6_000, 8_000])), min_size=3, max_size=3,
)  # fmt: skip
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["approve"] * 4 + ["deny", "request_information", "withdraw", "note",
                         "reopen", "6000", "8000"]), st.integers(0, 2)), max_size=14,
)  # fmt: skip


class Naive:
    """What is expected of one refund, as the rules of four eyes say it."""

    def __init__(self, amount: int) -> None:
        self.amount, self.status, self.proposer = amount, "open", None

    def approve(self, who: Person) -> bool:
        """Whether it is taken; then it is approved, or proposed."""
        if self.status != "open":
            return False
        if who.is_enough(self.amount):
            self.status, self.proposer = "approved", None
            return True
        if self.proposer is not None:
            return False
        self.proposer = who
        return True

    def other(self, name: str, who: Person) -> bool:
        if name == "note":
            return True
        if name == "reopen":
            if self.status != "denied" or who.role not in ("manager", "admin"):
                return False
            self.status = "open"
            return True
        if self.status != "open" or (name == "withdraw" and who != self.proposer):
            return False
        self.proposer = None
        if name == "deny":
            self.status = "denied"
        return True


NUMBERS = itertools.count()
TICKS = Clock()


@pytest.fixture(scope="module")
def any_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('any')}/s.db", SECRET)
    yield desk_of(store)
    store.close()


@hypothesis_settings(max_examples=40)
@given(people=PEOPLE, steps=STEPS)
def test_nothing_is_ever_approved_without_enough_people_behind_it(any_desk, people, steps):
    desk, now, number = any_desk, TICKS, next(NUMBERS)
    people = [one._replace(name=f"P{'abc'[n]}{number}") for n, one in enumerate(people)]
    for one in people:
        account(desk.store, one.name, one.role, one.limit)
    refund_id, order_id = f"r-{number}", f"o-{number}"
    order(desk, now, order_id)

    def decide(amount: int) -> str:
        said = asked(refund_id, amount, customer=f"c-{number}", order_id=order_id)
        return data(desk.decide(said, now, ME))["action"]

    decide(6000)
    model = Naive(6000)
    for name, which in steps:
        who = people[which]
        if name.isdigit():
            if model.status == "open" and int(name) != model.amount:  # else it is answered again
                decide(int(name))
                model = Naive(int(name)) if desk.store.review_queue(order_id=order_id) else model
            continue
        before = desk.store.reviews_of(refund_id)[0][0]
        doing = Doing.of(name, by=who.name, justification=WHY)
        try:
            act_on(desk.store, refund_id, doing, at=now())
            taken = True
        except (ActRefusedError, ReviewConflictError, TransitionRefusedError):
            taken = False
        if who.role == "viewer":
            expected = False
        elif name == "approve":
            expected = model.approve(who)
        else:
            expected = model.other(name, who)
        latest = desk.store.reviews_of(refund_id)[0][0]
        assert taken == expected, (name, who, before)
        assert (latest.ending or "open") == model.status
        proposed = latest.proposal and latest.proposal.first_by
        assert proposed == (model.proposer and model.proposer.name)
        if latest.ending == "approved":
            assert latest.approval and latest.payable_minor
            names = latest.approval.first_by, latest.approval.second_by
            behind = sorted((one for one in people if one.name in names),
                            key=lambda one: rank_of(one.role))  # fmt: skip
            assert any(one.is_enough(latest.payable_minor) for one in behind)
            if latest.approval.second_by:
                assert rank_of(behind[0].role) < rank_of(behind[1].role)


@given(payable=st.none() | st.integers(0, 100), limit=st.none() | st.integers(0, 100))
def test_alone_nobody_approves_more_than_their_limit(payable, limit):
    review = Review("s", "r", "c", None, "GBP", 5, 5, payable, 1, 0.2, -1, 10, 20)
    alone = effect_of_approval(review, Authority("Ann", "agent", limit)) == "approved"
    assert alone == (limit is None or (payable is not None and payable <= limit))
