"""The queue page: what waits and in which order, filters, many at once, and the way to the next."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest

from serving.console import queue
from serving.reviews import Doing, act_on
from tests.serving.console.conftest import SANDBOX, SignedIn, now_ms
from tests.serving.console.held import WHY, Held, desk, held

__all__ = ["desk", "held"]  # fixtures

SignIn = Callable[..., SignedIn]


def cases(html: str) -> list[str]:
    """The refunds of a queue page, in its order."""
    return [unescape(found) for found in re.findall(r"data-row><code><bdi>([^<]*)", html)]


def said(html: str) -> str:
    """What a reader sees."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


@pytest.fixture
def three(held: Held) -> list[str]:
    """Three that wait, the least at stake first."""
    held("paid", 1_000)
    return [held("r-1", 6_000), held("r-2", 8_000, customer="b"), held("r-3", 9_000, customer="c")]


def test_the_most_at_stake_comes_first_with_why_it_waits(
    signed_in: SignIn, three: list[str]
) -> None:
    html = signed_in("viewer").see("/queue")
    assert cases(html) == three[::-1]
    assert "Amounts over the limit" in said(html) or "limit for paying unseen" in said(html)
    for part in ("3 wait", "0 overdue", "0 mine", "90.00 GBP", "nobody's", "24 hours left"):
        assert part in said(html), part
    assert "Start with the first case" not in html  # a viewer does not work on cases
    assert 'name="refund"' not in html


def test_who_may_not_assign_takes_and_does_nothing_else_to_many(
    signed_in: SignIn, three: list[str]
) -> None:
    ann = signed_in("agent", "Ann")
    assert "Deny them" not in ann.see("/queue")
    assert ann.submit("/queue", act="deny", refund=three, justification=WHY).status_code == 403
    done = ann.submit("/queue", act="take", refund=three[:2])
    assert "Took 2 cases: r-1 , r-2" in said(done.text)
    assert cases(ann.see("/queue?whose=mine")) == three[:2][::-1]
    assert cases(ann.see("/queue?whose=nobody")) == [three[2]]
    assert "2 mine" in said(done.text)


def test_many_are_denied_with_one_justification_and_each_outcome_is_told(
    desk, signed_in: SignIn, three: list[str]
) -> None:
    mia = signed_in("manager", "Mia")
    act_on(desk.store, "r-1", Doing.of("approve", by="Ann", justification=WHY), at=now_ms())
    done = mia.submit("/queue", act="deny", refund=three, justification=WHY, abuse="yes")
    assert done.status_code == 200
    assert "Denied 2 cases: r-2 , r-3 1 was left as it is:" in said(done.text)
    assert "Ann approved it" in said(done.text)
    assert cases(mia.see("/queue")) == []
    assert [act.abuse for act in desk.store.reviews_of("r-2", 1)[1]] == [True]
    assert desk.store.refund("r-1").state == "APPROVED"


def test_what_was_typed_and_chosen_is_kept_when_it_is_refused(
    signed_in: SignIn, three: list[str]
) -> None:
    mia = signed_in("manager", "Mia")
    short = mia.submit("/queue", act="deny", refund=three[:1], justification="<b>no", abuse="yes")
    assert short.status_code == 422
    assert "&lt;b&gt;no</textarea>" in short.text
    assert re.search(r'value="r-1"[^>]*checked', short.text)
    assert '<option value="yes" selected>' in short.text
    none = mia.submit("/queue", act="note", justification=WHY)
    assert none.status_code == 422 and "tick one case at least" in none.text
    wrong = mia.submit("/queue", act="shred", refund=three, justification=WHY)
    assert wrong.status_code == 422 and "shred" in wrong.text
    enter = mia.submit("/queue", act="", refund=three[:1], justification=WHY)
    assert enter.status_code == 422 and "<code>act</code> must be chosen" in enter.text
    assert WHY in enter.text and re.search(r'value="r-1"[^>]*checked', enter.text)
    odd = mia.submit("/queue", act="deny", refund=three, justification=WHY, abuse="perhaps")
    assert odd.status_code == 422 and "must be yes, no or empty" in odd.text
    assert len(cases(mia.see("/queue"))) == 3


def test_a_case_is_given_to_somebody(signed_in: SignIn, three: list[str]) -> None:
    signed_in("agent", "Ann")
    mia = signed_in("manager", "Mia")
    assert "<option>Ann</option>" in mia.see("/queue")
    unsaid = mia.submit("/queue", act="assign", refund=["r-1"], assignee="")
    assert unsaid.status_code == 422 and "<code>assignee</code> must be chosen" in unsaid.text
    given = mia.submit("/queue", act="assign", refund=["r-1"], assignee="Ann")
    assert "Gave 1 case to Ann: r-1" in said(given.text)
    assert "<bdi>Ann</bdi>" in mia.see("/queue")
    back = mia.submit("/queue", act="assign", refund=["r-1"], assignee=queue.NOBODY)
    assert "Gave 1 case back to nobody: r-1" in said(back.text)
    assert "<bdi>Ann</bdi>" not in mia.see("/queue")


def test_filters_stand_in_the_address_and_say_what_is_wrong_with_them(
    desk, signed_in: SignIn, held: Held, three: list[str]
) -> None:
    held("late", 7_000, customer="d", days_ago=2)
    ann = signed_in("agent", "Ann", 1_000)
    assert cases(ann.see("/queue?overdue=1")) == ["late"]
    assert "Overdue" in said(ann.see("/queue?overdue=1"))
    assert cases(ann.see("/queue?least=80")) == ["r-3", "r-2"]
    assert cases(ann.see("/queue?most=70")) == ["late", "r-1"]
    assert "0 within my limit" in said(ann.see("/queue"))
    assert len(cases(ann.see("/queue?currency=gbp"))) == 4
    assert cases(ann.see("/queue?currency=EUR")) == []
    assert "Nothing is like this." in ann.see("/queue?currency=EUR")
    for act in ("request_information", "approve"):
        refund = {"approve": "r-2"}.get(act, "r-1")
        act_on(desk.store, refund, Doing.of(act, by="Ann", justification=WHY), at=now_ms())
    assert cases(ann.see("/queue?status=information")) == ["r-1"]
    assert cases(ann.see("/queue?status=second")) == ["r-2"]
    assert "approval proposed" in ann.see("/queue?status=second")
    assert "r-1" not in cases(ann.see("/queue?status=open"))
    act_on(desk.store, "r-3", Doing.of("deny", by="Ann", justification=WHY), at=now_ms())
    done = ann.see("/queue?status=done")
    assert cases(done) == ["r-3"] and "Denied" in said(done) and 'name="refund"' not in done
    html = ann.see("/queue?least=%3Cb%3E&most=1,5&whose=x&status=y&currency=z&after=w", 422)
    for field in ("least", "most", "whose", "status", "currency", "after"):
        assert f"<code>{field}</code> must be" in html
    assert 'value="&lt;b&gt;"' in html and "<b>" not in html


def test_parts_follow_one_another_within_a_filter(
    monkeypatch: pytest.MonkeyPatch, signed_in: SignIn, three: list[str]
) -> None:
    monkeypatch.setattr(queue, "ROWS", 2)
    ann = signed_in("agent", "Ann")
    first = ann.see("/queue?least=1")
    assert cases(first) == ["r-3", "r-2"]
    following = re.search(r'href="([^"]*)" rel="next"', first)
    assert following is not None and "Back to the first" not in first
    second = ann.see(unescape(following[1]).removeprefix(SANDBOX))
    assert cases(second) == ["r-1"] and 'rel="next"' not in second
    assert f'href="{SANDBOX}/queue?least=1">Back to the first' in second


def test_the_next_case_is_taken_and_one_that_is_left_is_given_back(
    desk, signed_in: SignIn, three: list[str]
) -> None:
    ann, bob = signed_in("agent", "Ann"), signed_in("agent", "Bob")

    def opened(client: SignedIn, **form: str) -> str:
        answer = client.submit("/next", **form)
        assert answer.status_code == 303
        return answer.headers["location"].removeprefix(SANDBOX)

    assert opened(ann) == "/case/r-3"
    assert opened(bob) == "/case/r-2"  # not the one that is Ann's
    assert opened(ann, after="r-3", release="yes") == "/case/r-1"
    assert opened(bob, after="r-2", release="yes") == "/case/r-3"  # from the first on again
    assert [each.assignee for each in desk.store.review_queue()] == ["Bob", None, "Ann"]
    assert opened(ann, after="no such") == "/case/r-2"


def test_nothing_that_waits_says_what_to_do(signed_in: SignIn) -> None:
    ann = signed_in("agent", "Ann")
    assert "Nothing waits for a person." in ann.see("/queue")
    assert ann.submit("/next").headers["location"] == f"{SANDBOX}/queue"


def test_only_what_somebody_did_is_told_to_them(
    monkeypatch: pytest.MonkeyPatch, desk, signed_in: SignIn, three: list[str]
) -> None:
    act_on(desk.store, "r-1", Doing.of("deny", by="Ann", justification=WHY), at=now_ms())
    assert "Denied, without a verdict on abuse." in said(
        signed_in("agent", "Ann").see("/queue?done=r-1")
    )
    note = Doing.of("note", by="Dora", justification="An hour ago.")
    act_on(desk.store, "r-2", note, at=now_ms())
    dora = signed_in("agent", "Dora")
    assert 'role="status"' in dora.see("/queue?done=r-2")
    monkeypatch.setattr(queue, "RECENT_MS", -60_000)
    assert 'role="status"' not in dora.see("/queue?done=r-2")
    assert 'role="status"' not in signed_in("agent", "Bob").see("/queue?done=r-1")
    assert 'role="status"' not in signed_in("agent", "Cid").see("/queue?done=%3Cb%3Er-9")


def test_many_are_answered_as_the_list_showed_them_or_not_at_all(
    desk: Any, signed_in: SignIn, held: Held
) -> None:
    for refund_id in ("r-1", "r-2"):
        held(refund_id, 6_000)
    mia = signed_in("manager", "Mia")
    read = re.findall(r'name="read" value="([^"]+)"', mia.see("/queue"))
    assert {text.partition(" ")[2] for text in read} == {"r-1", "r-2"}
    held("r-1", 7_000)  # asked for again, for more, while the list was read
    done = mia.submit("/queue", act="deny", refund=["r-1", "r-2"], read=read, justification=WHY)
    assert "Denied 1 case: r-2" in said(done.text)
    assert desk.store.refund("r-1").state == "NEEDS_REVIEW"


def test_of_what_is_done_mine_is_what_i_ended(desk: Any, signed_in: SignIn, held: Held) -> None:
    for refund_id in ("r-1", "r-2"):
        held(refund_id)
    ann = signed_in("agent", "Ann")
    for name, refund in (("Ann", "r-1"), ("Bob", "r-2")):
        act_on(desk.store, refund, Doing.of("deny", by=name, justification=WHY), at=now_ms())
    assert cases(ann.see("/queue?status=done&whose=mine")) == ["r-1"]
