"""The page of an explanation, in real Chromium under its own policy: complete, readable, inert."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from html import unescape
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from serving.explanation.page import STYLE, STYLE_POLICY, render, report
from serving.explanation.parts import AuditTold, Timeline
from serving.language import ENGLISH, Language
from serving.seen import seen
from tests.serving.explanation.cases import (
    CASES,
    CODES,
    HOSTILE,
    abuse,
    borderline,
    degraded,
    ruled,
)

ADDRESS = "http://recourse.test/v2/decision/1"
CUSTOMER = "/console/live/customer/c"
Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: render(case(), ENGLISH) for name, case in CASES.items()}


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """Opens HTML as it is served; what the console says, or what else is asked for, fails."""
    trouble: list[str] = []
    shown: list[Page] = []

    def open_page(html: str, width: int = 1280, scheme: Any = "light") -> Page:
        def answer(route: Route) -> None:
            if route.request.url != ADDRESS:
                trouble.append(route.request.url)
            route.fulfill(body=html, content_type="text/html; charset=utf-8",
                          headers={"Content-Security-Policy": STYLE_POLICY})  # fmt: skip

        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda said: trouble.append(said.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        page.route("**/*", answer)
        page.goto(ADDRESS)
        shown.append(page)
        return page

    yield open_page
    for page in shown:
        page.close()
    assert trouble == []


def text_of(html: str) -> str:
    """What a reader sees: without styles and tags."""
    html = re.sub(r"<style>.*?</style>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


# --- what it says --------------------------------------------------------------------------------


def test_the_verdict_comes_first_with_what_decided_it(pages: dict[str, str]) -> None:
    said = text_of(pages["ruled"])
    verdict = said.index("Rule outside_return_window (version 2)")
    assert said.index("Prevent") < verdict < said.index("What raises the risk")
    assert "The score alone would have come to: Allow." in said
    assert "The model did not settle this." in said
    assert "The model did not settle this." not in text_of(pages["abuse"])
    assert re.search(r"Weighs most: Often says nothing arrived \(\+1\.\d+\); Many refund requests",
                     text_of(pages["abuse"]))  # fmt: skip
    assert re.search(r"Weighs most: Age of the account \(-", text_of(pages["honest"]))


def test_what_weighs_most_is_named_whichever_way_it_leads() -> None:
    case = CASES["honest"]()
    heavy = replace(case.raising[0], contribution=9.0)
    html = render(replace(case, raising=(heavy, *case.raising[1:])), ENGLISH)
    assert f"Weighs most: {heavy.name} (+9.00)" in text_of(html)


def test_what_weighs_next_to_nothing_is_counted_only() -> None:
    case = CASES["abuse"]()
    light = tuple(replace(case.raising[0], name=f"light {n}", contribution=0.004) for n in range(3))
    said = text_of(render(replace(case, raising=(*case.raising, *light)), ENGLISH))
    assert "3 more weigh next to nothing." in said
    assert "light 0" not in said


@pytest.mark.parametrize("name", [name for name in CASES if name != "hostile"])
def test_everything_told_is_on_the_page(pages: dict[str, str], name: str) -> None:
    case, said = CASES[name](), text_of(pages[name]).replace("_ ", "_")
    lower = said.lower()
    for reason in (*case.raising, *case.lowering):
        assert reason.name in said and ENGLISH.signed(reason.contribution) in said
        for fact in reason.facts:
            for told in (fact.sentence, fact.standing, fact.own_past):
                assert told is None or told.lower() in lower
    for moment in case.timeline.moments:
        assert moment.title in said and ENGLISH.instant(moment.at) in said
    assert all(change.sentence in said for change in case.what_if.changes)
    assert all(edge.sentence in said for edge in case.what_if.edges)
    for rule in case.rules:
        assert rule.description in said
        assert rule.rule_id in said
    for note in case.notes:
        assert note.said in said and note.detail in said and note.author in said
    for account in case.links.accounts:
        assert account.customer[:9] in said


def test_empty_parts_say_so(pages: dict[str, str]) -> None:
    said = text_of(pages["degraded"])
    for sentence in (
        "No score", "There was no score, so the model has no reasons.", "No rule applied.",
        "Nobody has said anything about this refund.", "There was no score, so there is no way",
        "The request names no device", "The audit log has no entry about this refund.",
        "Decided without a score.", "The expected loss is not known.", "2,500 JPY",
    ):  # fmt: skip
        assert sentence in said, sentence
    bare = text_of(render(replace(degraded(), timeline=Timeline()), ENGLISH))
    assert "Nothing else is known of this customer." in bare
    assert "Nobody else used this device:" in text_of(pages["honest"])
    assert not re.search(r"\b(nan|inf|None|undefined|null)\b", said)


def test_the_waterfall_ends_where_the_verdict_does(pages: dict[str, str]) -> None:
    label = re.search(r'aria-label="(From base rate to score[^"]*)', pages["abuse"])
    assert label is not None
    steps = label[1].split("; ")
    assert len(steps) == 13  # base rate, ten reasons, everything else, score
    assert steps[0].endswith("Base rate: 3.4 %") and "Everything else" in steps[-2]
    assert steps[-1] == "Score of this refund: 93.1 %."


def test_the_calibration_bends_the_way(pages: dict[str, str]) -> None:
    base, score = abuse().base_log_odds, abuse().log_odds
    assert base is not None and score is not None
    bent = replace(abuse(), calibration=((base, 0.0341), (0.0, 0.05), (score, 0.9312)))
    assert pages["abuse"] != render(bent, ENGLISH)


def test_what_is_rare_to_reach_is_still_a_page() -> None:
    same = replace(ruled(), raising=(), lowering=(), log_odds=ruled().base_log_odds)
    assert "Nothing that the model saw" not in text_of(render(same, ENGLISH))
    strange = replace(borderline().verdict, action="REVIEW", follow_up="ASK_NICELY", base_rate=None)
    assert "ASK_NICELY" in text_of(render(replace(borderline(), verdict=strange), ENGLISH))


class _Wrapped(dict[str, Any]):
    """A translation of everything: as it is, between brackets."""

    def get(self, text: str, default: Any = None) -> Any:
        said = default if isinstance(default, tuple) else (text,)
        return tuple(f"⟦{one}⟧" for one in said)

    def __contains__(self, text: object) -> bool:
        return True


def test_every_word_is_in_the_catalogue() -> None:
    speaking = Language("de", _Wrapped({"": ("",)}))
    html = render(_of_numbers(abuse()), speaking)
    labels = " ".join(re.findall(r'aria-label="([^"]*)"', html.replace(STYLE, "")))
    left = f"{text_of(html)} {labels}"
    while "⟦" in left:
        left, found = re.subn(r"⟦[^⟦⟧]*⟧", " ", left)
        assert found
    assert set(re.findall(r"[A-Za-z]{2,}", left)) <= {"GBP", "UTC"}


def _of_numbers(value: Any, name: str = "") -> Any:
    """A case whose texts are numbers but for codes, so that all words left are the page's own."""
    if isinstance(value, str):
        return value if name in CODES else "7"
    if isinstance(value, tuple):
        return tuple(_of_numbers(each, name) for each in value)
    if isinstance(value, AuditTold):
        return replace(value, actor="7", action="7", content={"7": "7"})
    if is_dataclass(value) and not isinstance(value, type):
        told = {f.name: _of_numbers(getattr(value, f.name), f.name) for f in fields(value)}
        return replace(value, **told)
    return value


# --- a page by itself ----------------------------------------------------------------------------


def test_the_page_needs_and_allows_nothing_else(pages: dict[str, str]) -> None:
    for html in pages.values():
        assert f"<style>{STYLE}</style>" in html
        assert "<script" not in html and "@import" not in html and "url(" not in html
        markup = html.replace(STYLE, "")
        inside = re.findall(r"<[a-z][^<>]*>", markup)
        bare = [re.sub(r'"[^"]*"', '""', tag) for tag in inside]  # attributes without their values
        assert not [tag for tag in bare if re.search(r"\s(style|src|on\w+)=", tag)]
        targets = re.findall(r'\shref="([^"]*)"', " ".join(inside))
        assert targets and all(target.startswith("#") for target in targets)


def test_ids_are_unique_and_every_reference_has_its_own(pages: dict[str, str]) -> None:
    for html in pages.values():
        ids = re.findall(r'\sid="([^"]*)"', html)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'(?:href="#|aria-labelledby=")([^"]*)', html)) <= set(ids)


def test_the_page_of_a_case_holds_the_same_report(pages: dict[str, str]) -> None:
    for name, case in CASES.items():
        parts = report(case(), ENGLISH, CUSTOMER)
        assert parts.verdict.strip()[:600] in pages[name]
        assert "A pseudonym" not in parts.verdict  # the case leads to the customer's page
        assert parts.reasons.strip() in pages[name]
        assert parts.body.count(f'<a href="{CUSTOMER}">Everything linked') == 1
        body = re.sub(f'<p><a href="{CUSTOMER}">[^<]*</a></p>', "", parts.body)
        before, after = body.split('<section aria-labelledby="audit">')
        assert before.strip() in pages[name]
        assert after.partition("</section>")[2].strip() in pages[name]  # the versions
        told = parts.reasons + parts.body
        assert [f'id="{where}">{said}' in told or where == "history"
                for where, said in parts.sections] == [True] * 8  # fmt: skip


def test_the_page_of_a_case_tells_itself_what_people_did() -> None:
    said = text_of(report(abuse(), ENGLISH, CUSTOMER).body)
    assert "Entries about this refund" in said
    assert "What people said" not in said


# --- in a browser --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_page_fits_a_desk_and_a_phone(
    opened: Opened, pages: dict[str, str], name: str
) -> None:  # fmt: skip
    page = opened(pages[name])
    grounds = []
    for width, scheme in ((1280, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        boxes = page.evaluate("""[...document.querySelectorAll('figure > svg')].map(s => {
            const box = s.getBoundingClientRect()
            return [box.height, box.right]
        })""")
        assert all(height > 40 and right <= width for height, right in boxes)
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]


def test_no_letter_of_a_drawing_is_small_or_outside(opened: Opened, pages: dict[str, str]) -> None:
    page = opened(pages["abuse"], 390)
    assert page.evaluate("""[...document.querySelectorAll('figure text')].every(t => {
        const box = t.getBoundingClientRect()
        return parseFloat(getComputedStyle(t).fontSize) >= 11 && box.left >= 0 && box.right <= 390
    })""")


def test_it_is_told_to_who_cannot_see(opened: Opened, pages: dict[str, str]) -> None:
    for name in ("abuse", "degraded"):
        page = opened(pages[name])
        levels = page.evaluate(
            "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))"
        )
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert page.locator("body > header, body > main, body > footer").count() == 3
        assert page.evaluate("[...document.querySelectorAll('th')].every(th => th.scope)")
        assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.caption)")
        labels = page.evaluate("[...document.querySelectorAll('figure > svg')].map(s => "
                               "s.role === 'img' && s.ariaLabel)")  # fmt: skip
        assert all(labels) and len(set(labels)) == len(labels)
        assert all(len(label) > 60 for label in labels)
        assert page.evaluate("[...document.querySelectorAll('svg')].every(s => "
                             "s.closest('[role=img],[aria-hidden=true]'))")  # fmt: skip


def test_nothing_hostile_runs_and_nothing_of_it_is_lost(
    opened: Opened, pages: dict[str, str]
) -> None:
    page, honest = opened(pages["hostile"]), opened(pages["abuse"])
    kinds = "[...new Set([...document.querySelectorAll('*')].map(e => e.tagName))].sort()"
    assert page.evaluate("window.hacked === undefined")
    assert set(page.evaluate(kinds)) <= set(honest.evaluate(kinds))
    said = page.evaluate("document.body.textContent")
    assert "{{7*7}}" in said and seen(HOSTILE) in said
    assert not set(said) & set("\u202e\u202c\u200f\u2067\x00\x07\x1b\ud83d")


@pytest.mark.parametrize("name", ["abuse", "degraded", "hostile"])
def test_it_prints_on_white_with_all_that_is_folded(
    opened: Opened, pages: dict[str, str], name: str
) -> None:
    page = opened(pages[name], 688, "dark")  # A4 without its margins
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    cut = """[...document.querySelectorAll('main *')].filter(e => !e.closest('summary')
        && e.textContent && (!e.checkVisibility({contentVisibilityAuto: true})
                             || e.getBoundingClientRect().right > 689)
        && !e.closest('h2') && !e.closest('svg')).map(e => e.outerHTML.slice(0, 200))"""
    assert page.evaluate(cut) == []
    printed = page.pdf(prefer_css_page_size=True)
    sheets = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert sheets >= {"abuse": 6, "degraded": 1, "hostile": 100}[name]
