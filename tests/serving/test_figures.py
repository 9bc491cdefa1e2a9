"""The figures of a store: against counts made one by one, and where there is little."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.money import DAY_MS
from serving import figures, jobs
from serving.figures import HOUR_MS, MADE_ANEW_MS, PERIODS, Period, ReportWatch, figures_of
from serving.store.decisions import Decision
from serving.store.reviews import UNKNOWN_PLACE, Ending, Review
from serving.store.schema import reviews
from serving.store.store import Store

SECRET = b"a secret of 16 bytes or more"
MIDNIGHT = 20_600 * DAY_MS
NOW = MIDNIGHT + 11 * HOUR_MS


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store.open(f"sqlite:///{tmp_path_factory.mktemp('figures')}/s.db", SECRET)
    yield made
    made.close()


def a_review(number: int, opened_at: int, closed_at: int | None = None, **given: Any) -> Review:
    of = {
        "score_id": f"s{number}", "refund_id": f"r{number}", "customer": "c", "order_id": None,
        "currency": "GBP", "amount_minor": 5, "due_minor": 5, "payable_minor": 500,
        "expected_loss_minor": 1, "probability": 0.2, "place": -1, "opened_at": opened_at,
        "due_at": opened_at + 24 * HOUR_MS, "status": "OPEN" if closed_at is None else "DONE",
        "closed_at": closed_at,
    }  # fmt: skip
    return Review(**{**of, **given})


def put(store: Store, each: list[Review]) -> None:
    """Keep these reviews, and no others."""
    with store.database.write() as connection:
        connection.execute(reviews.delete())
        for one in each:
            store.reviews.open(connection, one)


def by_hand(each: list[Review], period: Period) -> list[tuple[Any, ...]]:
    """The slots of reviews that never took one another's place, found day by day."""
    found = []
    width = period.slot_days * DAY_MS
    for since in period.slots:
        until = min(since + width, period.until)
        ended = [one for one in each if one.closed_at and since <= one.closed_at < until]
        answers = [one for one in ended if one.ending in ("approved", "denied")]
        waits = [
            one for one in each
            if one.opened_at < until and (one.closed_at is None or one.closed_at >= until)
        ]  # fmt: skip
        took = [(one.closed_at or 0) - one.opened_at for one in answers]
        found.append((
            since,
            sum(since <= one.opened_at < until for one in each),
            sum(one.ending == "approved" for one in answers),
            sum(one.ending == "denied" for one in answers),
            sum((one.closed_at or 0) < one.due_at for one in answers),
            len(ended) - len(answers),
            statistics.median(took) / HOUR_MS if took else None,
            len(waits),
        ))  # fmt: skip
    return found


@st.composite
def some_reviews(draw: st.DrawFn) -> list[Review]:
    """Reviews of the last days, to the millisecond at the edges of days."""
    found = []
    for number in range(draw(st.integers(0, 12))):
        at = st.integers(1, 9 * 24).map(lambda hours: NOW - hours * HOUR_MS)
        opened = draw(st.one_of(at, st.sampled_from([MIDNIGHT - DAY_MS, MIDNIGHT, MIDNIGHT - 1])))
        took = draw(st.one_of(st.none(), st.integers(0, 60 * HOUR_MS)))
        closed = None if took is None or opened + took >= NOW else opened + took
        ending = None if closed is None else draw(st.sampled_from(get_args(Ending)))
        found.append(a_review(number, opened, closed, ending=ending, closed_by="Ann"))
    return found


@given(some_reviews(), st.sampled_from([7, 90]))
@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_slots_are_what_is_counted_day_by_day(store: Store, each: list[Review], days: int) -> None:
    put(store, each)
    period = figures.period_of(store, days, NOW)
    found = figures_of(store, period)
    assert [tuple(slot) for slot in found.slots] == by_hand(each, period)
    waits = [one for one in each if one.closed_at is None]
    late = sum(one.due_at <= NOW for one in waits)
    oldest = min((one.opened_at for one in waits), default=None)
    assert found.waits == (len(waits), late, oldest, len(waits), 0)
    assert sum(one.answered for one in found.analysts) == found.total("answered")


@pytest.mark.each_store
def test_what_was_decided_again_while_it_waited_is_one_wait(store_url: str) -> None:
    store = Store.open(store_url, SECRET)
    began = MIDNIGHT + HOUR_MS
    put(store, [
        # Decided again on other fields while it waited, twice: one wait, which an analyst ended.
        a_review(1, began, began + HOUR_MS, ending="decided_again"),
        a_review(2, began, began + 2 * HOUR_MS, refund_id="r1", ending="decided_again"),
        a_review(3, began, began + 4 * HOUR_MS, refund_id="r1", ending="denied", closed_by="Bo"),
        # Decided again, and then let go of.
        a_review(4, began, began + HOUR_MS, ending="decided_again"),
        # Decided again, and still waiting.
        a_review(5, began, began + HOUR_MS, ending="decided_again"),
        a_review(6, began, refund_id="r5", due_at=NOW, place=UNKNOWN_PLACE),
    ])  # fmt: skip
    found = figures_of(store, Period(1, MIDNIGHT, NOW))
    (slot,) = found.slots
    assert tuple(slot) == (MIDNIGHT, 3, 0, 1, 1, 1, 4.0, 1)
    assert found.waits == (1, 1, began, 0, 1) and found.is_timed
    assert [tuple(one) for one in found.analysts] == [("Bo", 1, 0, 1, 4.0)]
    store.close()


def test_periods_are_whole_days_of_utc_and_the_present_one(store: Store) -> None:
    assert figures.period_of(store, 7, NOW) == (7, MIDNIGHT - 6 * DAY_MS, NOW)
    at_midnight = figures.period_of(store, 7, MIDNIGHT)
    assert at_midnight.since == MIDNIGHT - 7 * DAY_MS, "the day that begins has had no instant yet"
    assert len(figures.period_of(store, 30, NOW).slots) == 30
    assert len(figures.period_of(store, 365, NOW).slots) == 53, "weeks, the last of a day"


def test_a_store_that_lives_in_its_events_ends_with_them(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/s.db", SECRET, clock="event")
    assert figures.period_of(store, 7, NOW).until == NOW, "without any the present will do"
    assert figures_of(store, figures.period_of(store, 7, NOW)).decided_today == 0
    decide(store, 1, 5 * DAY_MS + 9)
    period = figures.period_of(store, 7, NOW)
    assert period == (7, -DAY_MS, 5 * DAY_MS + 10)
    assert figures_of(store, period).decided_today == 1
    store.close()


def decide(store: Store, number: int, at: int) -> None:
    with store.write() as tx:
        tx.save_decision(Decision(f"s{number}", f"r{number}", "h", at, {}, {}))


def test_reports_are_made_anew_when_they_are_old(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/s.db", SECRET)
    watch = ReportWatch(store)
    assert watch.look(NOW) is None, "of no decision there is nothing to report"
    decide(store, 1, NOW - 5)
    assert watch.look(NOW) is None, "nobody reads it"
    come(store, NOW)
    asked = []
    for _ in PERIODS:
        job = watch.look(NOW)
        assert job is not None and watch.look(NOW) is None, "one is under way"
        asked.append(job.arguments["days"])
        end(store, job, problem="it broke" if job.arguments["days"] == 90 else None)
    assert asked == [*MADE_ANEW_MS] and watch.look(NOW) is None, "none is old"
    assert figures.reported(store, 30).document == {"days": 30}
    broken = figures.reported(store, 90)
    assert broken.document is None and broken.failed is not None, "what failed is not tried at once"
    later = NOW
    for _ in range(26):
        later += HOUR_MS
        come(store, later)
        while (job := watch.look(later)) is not None:
            end(store, job)
    kept = [one.arguments["days"] for one in jobs.history(store, "period")]
    assert set(kept) == set(PERIODS) and len(kept) <= 3 * len(PERIODS), "none crowds out others"
    assert watch.look(later + 2 * DAY_MS) is None, "nobody reads it any more"
    store.close()


def come(store: Store, at: int) -> None:
    """Let somebody be at the console."""
    with store.database.write() as connection:
        store.accounts.begin(connection, f"session at {at}", "acc_1", at)


def test_a_store_that_stands_still_is_reported_on_once(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/s.db", SECRET, clock="event")
    decide(store, 1, NOW - 40 * DAY_MS)
    come(store, NOW + 30 * DAY_MS)
    watch = ReportWatch(store)
    for days in MADE_ANEW_MS:
        job = watch.look(NOW)
        assert job is not None and job.arguments["until"] == NOW - 40 * DAY_MS + 1
        end(store, job, problem="it broke" if days == 7 else None)
    later = NOW + 30 * DAY_MS
    again = watch.look(later)
    assert again is not None and again.arguments["days"] == 7, "what failed is tried again"
    end(store, again)
    assert watch.look(later) is None
    decide(store, 2, NOW)
    assert watch.look(later) is not None
    store.close()


def end(store: Store, job: Any, problem: str | None = None) -> None:
    with store.database.write() as connection:
        begun = store.jobs.begin(connection, job, job.asked_at)
        document = None if problem else f'{{"days":{job.arguments["days"]}}}'
        store.jobs.end(connection, begun, job.asked_at, problem=problem, document=document)


def test_what_is_under_way_is_not_asked_for_twice(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/s.db", SECRET)
    first = figures.ask_for(store, 30, NOW, by="Ann")
    assert figures.ask_for(store, 30, NOW + 5_000, by="Bo") == first
    assert first.arguments == {"days": 30, "since": MIDNIGHT - 29 * DAY_MS, "until": NOW}
    assert "report --mode=live --since=2026-" in " ".join(jobs.command_of(first, "live"))
    with pytest.raises(ValueError, match="expected one of 7, 30, 90, 365, got 31"):
        figures.ask_for(store, 31, NOW)
    store.close()
