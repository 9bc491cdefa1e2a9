"""The queue in parts, what is counted of it, and the file of one case, on each store."""

from __future__ import annotations

import pytest

from serving import waiting
from serving.desk import Desk
from serving.reviews import Authority, Doing, act_on
from serving.roles import Role
from tests.serving.test_desk import ME, Clock, now, open_desk, url
from tests.serving.test_reservations import asked, order
from tests.serving.test_reviews import WHY, decided, desk, policy

__all__ = ["desk", "now", "open_desk", "policy", "url"]  # fixtures


def ids(part: waiting.Part) -> list[str]:
    return [case.review.refund_id for case in part.cases]


def who(role: Role = "agent", limit_minor: int | None = None) -> Authority:
    return Authority("Ann", role, limit_minor, has_account=True)


@pytest.mark.each_store
def test_the_queue_is_read_in_parts_with_reasons(desk: Desk, now: Clock) -> None:
    order(desk, now, "o-2")
    decided(desk, now, "r-1", 6_000)
    desk.decide(asked("r-2", 7_000, order_id="o-2"), now, ME)
    act_on(desk.store, "r-1", Doing.of("approve", by="Ann", justification=WHY), at=now(),
           limit_minor=100)  # fmt: skip
    first = waiting.part_of_queue(desk.store, limit=1)
    assert ids(first) == ["r-2"] and first.next is not None and first.cases[0].reasons
    after = waiting.place_of_text(waiting.text_of(first.next))
    second = waiting.part_of_queue(desk.store, limit=1, after=after)
    assert ids(second) == ["r-1"] and second.next is None
    assert ids(waiting.part_of_queue(desk.store, limit=9, proposed=True)) == ["r-1"]
    assert ids(waiting.part_of_queue(desk.store, limit=9, proposed=False)) == ["r-2"]
    assert waiting.counts_of(desk.store, "Ann", now()) == (2, 0, 0, 1)


@pytest.mark.each_store
def test_a_case_tells_what_would_come_of_an_approval_and_what_to_read(
    desk: Desk, now: Clock
) -> None:
    assert waiting.case_file(desk.store, "r-1", who()) is None
    assert waiting.case_file(desk.store, "\0", who()) is None
    decided(desk, now, "r-1", 6_000)
    read = waiting.case_file(desk.store, "r-1", who(limit_minor=100))
    assert read is not None and read.effect == "approval_proposed" and not read.is_reopenable
    assert read.score_id == read.decisions[0][0]
    seen = waiting.case_file(desk.store, "r-1", who("viewer"))
    assert seen is not None and seen.effect is None
    decided(desk, now, "r-1", 1_000)  # asked for less it is paid at once
    paid = waiting.case_file(desk.store, "r-1", who("manager"))
    assert paid is not None and not paid.is_open and not paid.is_reopenable
    assert len(paid.decisions) == 2 and paid.score_id == paid.decisions[0][0] != read.score_id


def test_only_a_refusal_is_reopened_and_not_by_everybody(desk: Desk, now: Clock) -> None:
    decided(desk, now, "r-1", 6_000)
    act_on(desk.store, "r-1", Doing.of("deny", by="Ann", justification=WHY), at=now())
    for role, may in (("agent", False), ("manager", True)):
        case = waiting.case_file(desk.store, "r-1", who(role))  # type: ignore[arg-type]
        assert case is not None and case.is_reopenable is may
    decided(desk, now, "r-9", 60_000)  # refused at once: nothing ever waited
    case = waiting.case_file(desk.store, "r-9", who("admin"))
    assert case is not None and case.review is None and case.is_reopenable
