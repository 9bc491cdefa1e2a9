"""The dashboard: that its figures are the report's and the store's, and what it says without."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from features.money import DAY_MS
from rules.document import Costs
from serving import figures
from serving.console import dashboard_plots as drawn
from serving.desk import Desk
from serving.language import ENGLISH
from serving.store.figures import Waiting
from serving.store.store import Store
from tests.serving.test_figures import a_review
from tests.training.period_logs import Log
from training.period import period_report

END = 20_600 * DAY_MS + DAY_MS // 2
HOSTILE = "<script>alert(1)</script>"


def filled(store: Store) -> None:
    """Two months of decisions, some days without, and reviews."""
    log = Log(store)
    with log.writing():
        log.decide(60, END - 60 * DAY_MS, END - 30 * DAY_MS, hits=[HOSTILE])
        log.decide(40, END - 29 * DAY_MS, END - 20 * DAY_MS, hits=["a_rule", HOSTILE])
        now = log.decide(50, END - 3 * DAY_MS, END, hits=["a_rule"])
        log.decide(3, END - DAY_MS, END, model=None)
        log.write("prevented", "c1", END - 9, action="PREVENT", probability=0.75)
        for refund_id in now[:5]:
            log.write(refund_id, "c1", END - 5, action="MANUAL_REVIEW", probability=0.3)
    log.look_into(now)
    with store.database.write() as connection:
        for n, ending in enumerate(("approved", "denied", "paid", None)):
            closed = None if ending is None else END - DAY_MS
            by = f"Ann {HOSTILE}"
            one = a_review(n, END - 2 * DAY_MS, closed, ending=ending, closed_by=by)
            store.reviews.open(connection, one)


def a_report(store: Store, days: int) -> dict[str, Any]:
    """The report as its job leaves it, for the last so many days; kept in the store."""
    job = figures.ask_for(store, days, END)
    found = period_report(
        store, since=job.arguments["since"], until=job.arguments["until"], costs=Costs(),
        base_currency="GBP", maturity_days=20, rounds=20,
    ).to_json()  # fmt: skip
    with store.database.write() as connection:
        begun = store.jobs.begin(connection, job, END)
        store.jobs.end(connection, begun, END, document=orjson.dumps(found).decode(), page="whole")
    return found


def cells(page: str, title: str) -> list[list[str]]:
    """The rows of the table below a plot, its head first."""
    table = page.split(f"<h3>{title}</h3>")[1].split("<table")[1].split("</table>")[0]
    return [
        [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.split("</t[hd]>", row)[:-1]]
        for row in table.split("<tr>")[1:]
    ]


def test_figures_are_those_of_the_report_and_of_all_decisions(
    desk: Desk, signed_in: Callable[..., Any]
) -> None:
    store = desk.store
    filled(store)
    told = a_report(store, 30)
    page = signed_in("manager").see("/dashboard")
    period = figures.period_of(store, 30, END)
    last = {one.refund_id: one for one in store.decisions(period.since, period.until)}
    head, *rows = cells(page, "What was answered")
    assert head[:2] == ["Day", "Refunds"] and len(rows) == 30
    assert sum(int(row[1]) for row in rows) == len(last) == told["now"]["refunds"]
    by_day = Counter(ENGLISH.short_day(one.decided_at) for one in last.values())
    assert {row[0]: int(row[1]) for row in rows if row[1] != "0"} == by_day
    assert any(row[1] == "0" for row in rows), "a day without decisions is a day, too"
    actions = Counter(one.record["decision"]["action"] for one in last.values())
    names = {"Allow": "ALLOW", "Manual review": "MANUAL_REVIEW", "Prevent": "PREVENT"}
    for place, name in enumerate(head[2:], 2):
        assert sum(int(row[place]) for row in rows) == actions[names[name]]
    for name, amount in told["now"]["money"].items():
        if name in ("asked_minor", "paid_minor", "held_minor", "loss_prevented_minor"):
            assert f"<strong>{ENGLISH.money(amount, 'GBP')}</strong>" in page
    _, *money = cells(page, "Loss prevented and loss expected")
    prevented = sum(float(row[1].split()[0].replace(",", "")) for row in money)
    expected = sum(
        one.record["probability"] * one.record["features"]["payable_minor"]
        for one in last.values() if one.record["decision"]["action"] == "PREVENT"
    )  # fmt: skip
    assert prevented == pytest.approx(expected / 100, abs=0.01 * len(money)) and expected
    _, *degraded = cells(page, "Decided without the model")
    assert sum(int(row[1]) + int(row[2]) for row in degraded) == told["now"]["degraded"] == 3
    _, *rules = cells(page, "Refunds that a rule hit")
    hits = Counter(
        hit["rule_id"] for one in last.values() for hit in one.record["decision"]["hits"]
    )
    assert {row[0]: int(row[2]) for row in rules} == hits


def test_what_others_wrote_is_inert_and_analysts_are_named_to_few(
    desk: Desk, signed_in: Callable[..., Any]
) -> None:
    filled(desk.store)
    a_report(desk.store, 30)
    page = signed_in("manager").see("/dashboard")
    assert HOSTILE not in page and "Ann &lt;script&gt;" in page and "style=" not in page
    assert "By analyst" not in signed_in("agent").see("/dashboard")


def test_a_report_is_made_on_demand(desk: Desk, signed_in: Callable[..., Any]) -> None:
    assert "style=" not in signed_in("viewer").see("/dashboard"), "an empty store has a page"
    viewer, agent = signed_in("viewer", "Vi"), signed_in("agent", "Al")
    assert "Make them now" not in viewer.see("/dashboard")
    assert "were not made yet" in viewer.see("/dashboard")
    assert viewer.submit("/dashboard", days="7").status_code == 403
    answer = agent.submit("/dashboard", days="7")
    assert answer.headers["location"] == "/console/sandbox/dashboard?days=7&told=asked"
    page = agent.see("/dashboard?days=7&told=asked")
    assert "The figures were asked for." in page and "wait for their turn" in page
    assert agent.submit("/dashboard", days="7").status_code == 303, "once is enough"
    assert figures.reported(desk.store, 7).pending is not None
    for bad in ("8", "", HOSTILE, "٧"):
        answer = agent.submit("/dashboard", days=bad)
        assert answer.status_code == 422 and "must be one of 7, 30, 90, 365" in answer.text
        assert HOSTILE not in answer.text
        page = agent.get("/console/sandbox/dashboard", params={"days": bad})
        assert page.status_code == 422 and HOSTILE not in page.text


def test_why_a_report_failed_is_told(desk: Desk, signed_in: Callable[..., Any]) -> None:
    job = figures.ask_for(desk.store, 30, END)
    with desk.store.database.write() as connection:
        begun = desk.store.jobs.begin(connection, job, END)
        desk.store.jobs.end(connection, begun, END, problem=f"it broke {HOSTILE}")
    page = signed_in("viewer").see("/dashboard")
    assert "The last attempt failed: it broke &lt;script&gt;" in page


def test_one_decision_and_each_length(desk: Desk, signed_in: Callable[..., Any]) -> None:
    Log(desk.store).write("r", "c", END, action="MANUAL_REVIEW", probability=None)
    viewer = signed_in("viewer")
    for days in figures.PERIODS:
        a_report(desk.store, days)
        page = viewer.see(f"/dashboard?days={days}")
        assert "1 refund was decided; none in the" in page and "The whole report" in page
        head, *rows = cells(page, "What was answered")
        assert head[0] == ("Day" if days < 45 else "Week from")
        assert [row[1] for row in rows if row[1] != "0"] == ["1"]
    job = figures.reported(desk.store, 7).job
    assert job is not None and viewer.see(f"/job/{job.id}") == "whole"


@pytest.mark.parametrize(("hours", "told"), [(0.0001, "minutes"), (30.0, "hours")])
def test_times_to_an_answer_are_told_in_a_unit_that_fits(hours: float, told: str) -> None:
    slot = figures.Slot(0, 1, 1, 0, 1, 0, hours, 0)
    of = figures.Figures(figures.Period(7, 0, DAY_MS), 0, (slot,), Waiting(0, 0, None, 0, 0),
                         is_timed=True, hours=hours, analysts=())  # fmt: skip
    [times] = [one for one in drawn.reviews(of, ENGLISH) if one.title == "Time to an answer"]
    assert times.unit.startswith(told)
    assert "0.0000" not in times.drawing
    titles = [one.title for one in drawn.reviews(replace(of, is_timed=False), ENGLISH)]
    assert titles == ["The queue", "Share approved"]
    nothing = replace(of, slots=(slot._replace(approved=0),))
    assert [one.title for one in drawn.reviews(nothing, ENGLISH)] == ["The queue"]


def test_days_are_counted_as_they_begin() -> None:
    assert drawn.days_of(END - END % DAY_MS - 29 * DAY_MS, END) == 30
