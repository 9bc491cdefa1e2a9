"""The figures of a store for those who run the desk: live ones, and the report on a period.

Queue, answers and today's volume are counted when they are asked for (`serving.store.figures`).
What takes reading every decision is in the report on the period, which a job makes beside the
service and `ReportWatch` has made anew; figures of it are as of when it was made.

Days are of UTC. A period of n days is the present one and the n - 1 before it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, NamedTuple

import structlog

from features.money import DAY_MS
from serving import jobs
from serving.lookout import Repeated
from serving.store import figures as counts
from serving.store.database import STORE_UNAVAILABLE
from serving.store.figures import Ended, Waiting
from serving.store.jobs import Job
from serving.store.store import Store
from serving.wire import InvalidRequest

PERIODS: Final = (7, 30, 90, 365)
"""How many days a dashboard shows."""

USUAL: Final = 30
MOST_DAYS: Final = 45
"""Of a longer period is counted by week, as in the report on it."""

ANSWERS: Final = frozenset({"approved", "denied"})
"""The endings of reviews that are an analyst's."""

HOUR_MS: Final = 3_600_000
MADE_ANEW_MS: Final = {30: HOUR_MS, 7: HOUR_MS, 90: 6 * HOUR_MS, 365: 24 * HOUR_MS}
"""How old the report on so many days becomes; what people look at most is made first."""

WATCH_SECONDS: Final = 60.0
_KEPT: Final = 2
BY_ITSELF: Final = "recourse"
"""Who asks for a report where no person does."""

log = structlog.get_logger()


class Period(NamedTuple):
    """So many days of UTC, the last of which ends with ``until``; times are epoch ms."""

    days: int
    since: int
    until: int

    @property
    def slot_days(self) -> int:
        """Over how many days a plot counts at once.

        >>> Period(30, 0, 1).slot_days, Period(90, 0, 1).slot_days
        (1, 7)
        """
        return 1 if self.days <= MOST_DAYS else 7

    @property
    def slots(self) -> list[int]:
        """When the slots begin."""
        return [*range(self.since, self.until, self.slot_days * DAY_MS)]


def period_of(store: Store, days: int, at: int) -> Period:
    """The period of so many days that ends at ``at`` (epoch ms).

    In a store with the clock ``event`` the present tells nothing: there it ends with the last
    decision or review.
    """
    until = at
    if store.clock == "event":
        with store.database.read() as connection:
            ends = counts.last_decided_at(connection), counts.last_closed_at(connection)
        until = max([end + 1 for end in ends if end is not None], default=at)
    return Period(days, (until - 1) // DAY_MS * DAY_MS - (days - 1) * DAY_MS, until)


# --- live --------------------------------------------------------------------------------------


class Slot(NamedTuple):
    """What became of reviews in a day or week from ``since`` (epoch ms).

    ``opened`` refunds began to wait. Analysts ``approved`` and ``denied`` some, ``in_time`` of
    these before they were due, after a median of ``hours``; ``otherwise`` stopped waiting because
    the refund was decided again or settled. ``backlog`` still waited at its end.
    """

    since: int
    opened: int
    approved: int
    denied: int
    in_time: int
    otherwise: int
    hours: float | None
    backlog: int

    @property
    def answered(self) -> int:
        """What analysts answered."""
        return self.approved + self.denied

    @property
    def late(self) -> int:
        """What they answered when it was overdue."""
        return self.answered - self.in_time


class Analyst(NamedTuple):
    """What one person answered in a period, after a median of ``hours``."""

    name: str
    answered: int
    approved: int
    in_time: int
    hours: float


@dataclass(frozen=True)
class Figures:
    """What a store tells without its records; ``today`` is since midnight UTC.

    ``waits`` is the queue now; ``hours`` is the median until an answer over the whole period. A
    store that does not live in the present is not timed: nothing in it comes late.
    """

    period: Period
    decided_today: int
    slots: tuple[Slot, ...]
    waits: Waiting
    is_timed: bool
    hours: float | None
    analysts: tuple[Analyst, ...]
    """Who answered, the most first."""

    def total(self, name: str) -> int:
        """A count of `Slot`, over all of the period."""
        return sum(int(getattr(slot, name)) for slot in self.slots)


def figures_of(store: Store, period: Period) -> Figures:
    """The live figures of a period, which ends now."""
    since, until, width = period.since, period.until, period.slot_days * DAY_MS
    today = (until - 1) // DAY_MS * DAY_MS
    with store.database.read() as connection:
        waits = counts.waiting(connection, until)
        opened = counts.opened(connection, since, until, width)
        ended = counts.ended(connection, since, until)
        decided = counts.decided(connection, today, until)
    of_slot: dict[int, list[Ended]] = defaultdict(list)
    of_person: dict[str, list[Ended]] = defaultdict(list)
    for one in ended:
        of_slot[(one.closed_at - since) // width].append(one)
        if one.ending in ANSWERS:
            of_person[one.closed_by or ""].append(one)
    slots: list[Slot] = []
    backlog = waits.cases
    for place in reversed(range(len(period.slots))):
        slot = _slot(period.slots[place], opened.get(place, 0), of_slot[place], backlog)
        backlog += slot.answered + slot.otherwise - slot.opened
        slots.append(slot)
    analysts = [_analyst(name, each) for name, each in of_person.items()]
    return Figures(
        period=period, decided_today=decided, slots=tuple(reversed(slots)), waits=waits,
        is_timed=store.clock == "ingest",
        hours=_hours([one for one in ended if one.ending in ANSWERS]),
        analysts=tuple(sorted(analysts, key=lambda one: (-one.answered, one.name))),
    )  # fmt: skip


def _slot(since: int, opened: int, ended: list[Ended], backlog: int) -> Slot:
    answers = [one for one in ended if one.ending in ANSWERS]
    approved = sum(one.ending == "approved" for one in answers)
    return Slot(
        since, opened, approved, len(answers) - approved, _in_time(answers),
        len(ended) - len(answers), _hours(answers), backlog,
    )  # fmt: skip


def _analyst(name: str, answers: list[Ended]) -> Analyst:
    approved = sum(one.ending == "approved" for one in answers)
    return Analyst(name, len(answers), approved, _in_time(answers), _hours(answers) or 0.0)


def _in_time(answers: list[Ended]) -> int:
    return sum(one.closed_at < one.due_at for one in answers)


def _hours(answers: list[Ended]) -> float | None:
    """The median time until an answer, None without one."""
    if not answers:
        return None
    return median(one.closed_at - one.opened_at for one in answers) / HOUR_MS


# --- the report on a period --------------------------------------------------------------------


class Reported(NamedTuple):
    """The report on so many days: the last that was made, as JSON values, and what is under way."""

    job: Job | None
    document: dict[str, Any] | None
    pending: Job | None
    failed: Job | None
    """The last, where nothing came of it."""


def reported(store: Store, days: int) -> Reported:
    """How the report on so many days stands."""
    of = [job for job in jobs.history(store, "period") if job.arguments.get("days") == days]
    made = next((job for job in of if job.state == "done"), None)
    failed = next(iter(of), None) if of and of[0].state == "failed" else None
    pending = next((job for job in of if job.done_at is None), None)
    return Reported(made, jobs.document(store, made) if made else None, pending, failed)


def ask_for(
    store: Store, days: int, at: int, *, by: str = BY_ITSELF, via: str | None = None
) -> Job:
    """Have the report on so many days made; what is under way of it is not asked for again.

    Raises ValueError for other days than `PERIODS`, `InvalidRequest` where too much waits already.
    """
    if days not in PERIODS:
        raise ValueError(f"days: expected one of {', '.join(map(str, PERIODS))}, got {days}")
    if (pending := reported(store, days).pending) is not None:
        return pending
    period = period_of(store, days, at)
    return jobs.ask(store, "period", period._asdict(), by=by, at=at, via=via)


READ_MS: Final = DAY_MS
"""A console that nobody was at for so long has no readers."""


class ReportWatch:
    """Has the reports of one store made anew when they are old, from start to stop.

    While somebody uses its console, that is: without readers, decisions have the machine to
    themselves. A store without a decision has nothing to report on.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._repeated = Repeated("period-reports", WATCH_SECONDS, self._look)

    def start(self) -> None:
        """Begin; the first look comes after `WATCH_SECONDS`."""
        self._repeated.start()

    def stop(self) -> None:
        """End, after the look that is under way."""
        self._repeated.stop()

    def _look(self) -> None:
        self.look(time.time_ns() // 10**6)

    def look(self, at: int) -> Job | None:
        """Ask for a report that is older than `MADE_ANEW_MS` by ``at`` (epoch ms), if one is.

        One at a time: what people ask for does not wait behind all of them.
        """
        try:
            with self._store.database.read() as connection:
                if counts.last_decided_at(connection) is None:
                    return None
                if self._store.accounts.last_seen_at(connection) < at - READ_MS:
                    return None
            every = jobs.history(self._store, "period")
            if any(job.done_at is None for job in every):
                return None
            for days, age in MADE_ANEW_MS.items():
                of = [job for job in every if job.arguments.get("days") == days]
                self._forget(of)
                if not of or (of[0].asked_at + age <= at and self._is_behind(of[0], at)):
                    return ask_for(self._store, days, at)
        except STORE_UNAVAILABLE as error:
            log.error("reports_not_asked_for", error=type(error).__name__)
        except InvalidRequest:  # too much waits: it is asked for at a later look
            pass
        return None

    def _is_behind(self, job: Job, at: int) -> bool:
        """Whether the same report would be on other days now: a sandbox may stand still."""
        until = period_of(self._store, int(job.arguments["days"]), at).until
        return job.problem is not None or job.arguments["until"] != until

    def _forget(self, of: list[Job]) -> None:
        """Delete all but the latest reports on so many days, which would crowd out others."""
        old = [job.id for job in of if job.done_at is not None][_KEPT:]
        if old:
            with self._store.database.write() as connection:
                self._store.jobs.forget(connection, old)
