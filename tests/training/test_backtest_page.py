"""The page of a backtest: what it says, and how it looks in a real browser.

No request, no error, no scroll, nothing that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from features.money import DAY_MS, Rates
from rules.backtest import Cause
from rules.decision import Action
from tests.serving.champions import fixed
from tests.training.tables import START, folder_of
from tests.training.test_backtest import policy_of, refund
from training.backtest import backtest_folder
from training.backtest_page import page
from training.backtest_report import BacktestReport, Weighted

HOSTILE = "<img src=x onerror=window.hacked=1>"
Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def report() -> BacktestReport:
    """Sixty refunds over two months, the large ones abuse; the candidate prevents above 40.00."""
    tables = folder_of(
        refund_requests=[
            refund(number, 1000 + 100 * number, number, channel="web" if number % 3 else "app")
            for number in range(60)
        ],
        labels=[
            {"refund_id": f"r-{number}", "source": "ANALYST", "known_at": START + 90 * DAY_MS,
             "label": "REFUND_ABUSE" if number % 2 else "NOT_REFUND_ABUSE"}
            for number in range(50)
        ],
    )  # fmt: skip
    return backtest_folder(
        tables, fixed(0.01), policy_of("1", 5000.0, "MANUAL_REVIEW"),
        policy_of("2", 4000.0, "PREVENT"), Rates("GBP"), as_of=START + 100 * DAY_MS,
        maturity_days=30, before_is_in_force=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def html(report: BacktestReport) -> str:
    return page(report)


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Opens HTML from a file; whatever is said on the console, or asked of a network, fails."""
    trouble: list[str] = []
    pages: list[Page] = []

    def open_page(html: str, width: int = 1280, scheme: Any = "light") -> Page:
        path = tmp_path / "backtest.html"
        path.write_text(html, encoding="utf-8")
        shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        shown.on("console", lambda said: trouble.append(said.text))
        shown.on("pageerror", lambda error: trouble.append(str(error)))
        shown.on("request", lambda asked: trouble.extend(
            [asked.url] if not asked.url.startswith(("data:", path.as_uri())) else []
        ))  # fmt: skip
        shown.goto(path.as_uri())
        pages.append(shown)
        return shown

    yield open_page
    for shown in pages:
        shown.close()
    assert trouble == []


def test_a_policy_that_is_not_in_force_is_not_said_to_be(report: BacktestReport) -> None:
    html = page(replace(report, before_is_in_force=False))
    assert "in force" not in html
    assert "Paid under 1, prevented under 2: 10" in html and "the costs of policy 1." in html
    assert "against 1, in force</h1>" in page(report)


def test_a_condition_without_a_blank_does_not_widen_the_page(
    report: BacktestReport, opened: Opened
) -> None:
    long = "rule large: when `" + "captured_minor_sum_by_order_365d" * 3 + "`"
    shown = opened(page(replace(report, differences=(long,))), 390)
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390


def test_it_says_what_moves_and_what_it_is_worth(report: BacktestReport, html: str) -> None:
    assert "29 of 60 refunds" in html.replace("\N{NO-BREAK SPACE}", " ")
    assert "Rule large" in html and "rule large: action MANUAL_REVIEW becomes PREVENT" in html
    for before, after in ((Action.ALLOW, Action.PREVENT), (Action.MANUAL_REVIEW, Action.PREVENT)):
        assert sum((one.before, one.after) == (before, after) for one in report.examples) == 10
    assert "Paid now, prevented then: 10" in html and "Held now, prevented then: 19" in html
    assert "The desk takes 1 reviews a day" in html


def test_what_the_labels_do_not_tell_is_said(report: BacktestReport, html: str) -> None:
    assert "Labels are censored" not in html
    stored = replace(report, source="store", own=5, own_same=4, unreadable=3)
    said = page(stored)
    assert "Labels are censored by the decisions that were made" in said
    assert "nothing makes up for the labels" in said
    assert "1 come out otherwise than logged" in said
    assert "3 decisions were stored without their facts" in said
    fates = {"PAID": 20, "EXPLORED": 10, "HELD": 10, "NEVER_EXPLORABLE": 20, "UNDECIDED": 0}
    weighted = Weighted(report.figures, fates, fates, 12.5)
    said = page(replace(stored, weighted=weighted))
    assert "By inverse propensity" in said and "66.7\N{NO-BREAK SPACE}%" in said


def test_nothing_moves(report: BacktestReport) -> None:
    still = replace(report, causes=(), examples=(), moves=replace(report.moves, moved=0))
    assert "No refund moves." in page(still)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_desk_and_a_phone(
    opened: Opened, html: str, width: int, scheme: str
) -> None:
    shown = opened(html, width, scheme)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.evaluate("document.documentElement.scrollHeight") > 3000
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


def test_headings_and_tables_are_told_to_who_cannot_see(opened: Opened, html: str) -> None:
    shown = opened(html)
    levels = shown.evaluate(
        "[...document.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert shown.evaluate("[...document.querySelectorAll('th')].every(th => th.scope)")
    assert shown.evaluate("[...document.querySelectorAll('table')].every(t => t.caption.innerText)")
    links = shown.evaluate("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert all(shown.locator(f"#{link}").count() == 1 for link in links)


def test_nothing_hostile_runs(opened: Opened, report: BacktestReport) -> None:
    one = replace(report.examples[0], refund_id=HOSTILE, reasons_after=(HOSTILE,),
                  causes=(Cause("rule", HOSTILE),), facts={HOSTILE: HOSTILE})  # fmt: skip
    hostile = replace(
        report, examples=(one,), differences=(HOSTILE,), currency="GBP",
        before=replace(report.before, version=HOSTILE),
        segments=(replace(report.segments[0], name=HOSTILE, by=HOSTILE),),
    )  # fmt: skip
    shown = opened(page(hostile))
    assert shown.evaluate("window.hacked === undefined")
    assert shown.locator("img, script").count() == 0
    assert HOSTILE in shown.inner_text("body")
