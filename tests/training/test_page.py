"""The page of a training run: what it says, that it shows nothing unknown, and that text is data.

Some of it is looked at in a real browser: no request, no error, no scroll, nothing that runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from serving.pages import TEMPLATES
from training import charts, wording
from training.bootstrap import Interval
from training.fairness import Fairness, GroupRate
from training.leaks import Check, Leak, LeakReport
from training.page import render, write_page
from training.proposal import money
from training.report import Picture, TrainedReport

Drawn = tuple[TrainedReport, Picture]
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked=1'>\"&'"
NAN = float("nan")
UNKNOWN = Interval(NAN, NAN)


@pytest.fixture(scope="module")
def html(drawn: Drawn) -> str:
    return render(*drawn)


@pytest.fixture(scope="module")
def few(drawn: Drawn) -> Picture:
    """The picture with the three weightiest features alone: as much page, drawn in no time."""
    picture = drawn[1]
    kept = np.argsort(-np.abs(picture.values).mean(axis=0))[:3]
    names = tuple(picture.manifest.feature_names[i] for i in kept)
    return replace(
        picture, values=picture.values[:200, kept], rows=picture.rows[:200, kept],
        manifest=replace(picture.manifest, feature_names=names),
    )  # fmt: skip


def text_of(html: str) -> str:
    """What a reader sees: without styles, tags and charts."""
    html = re.sub(r"<(style|svg)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"[^\S\xa0]+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def words_of(html: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text_of(html).lower()))


# --- what it says --------------------------------------------------------------------------------


def test_the_written_page_is_the_report_of_the_run(report: TrainedReport, html: str) -> None:
    assert report.kept is not None
    written = report.kept.read_text(encoding="utf-8")
    assert text_of(written) == text_of(html)
    assert 100_000 < len(written.encode()) < 3_000_000


def test_the_same_run_gives_the_same_page(drawn: Drawn, few: Picture) -> None:
    assert render(drawn[0], few) == render(drawn[0], few)


def test_a_manager_reads_what_it_is_worth(report: TrainedReport, html: str) -> None:
    seen = text_of(html).replace(wording.NBSP, " ")
    ours = report.outcome.cost_minor_per_1000
    per_month = report.outcome.refunds.count / report.outcome.days * wording.DAYS_PER_MONTH
    cheapest = min(one.cost_per_1000_minor for one in report.blueprint_costs)
    for theirs in (
        report.outcome_of_paying_all.cost_minor_per_1000,
        cheapest,
        report.outcome_of_policy.cost_minor_per_1000,
    ):
        assert money(theirs, "GBP") in seen
        assert money(theirs - ours, "GBP") in seen
        assert money((theirs - ours) * per_month / 1000, "GBP") in seen
    found = report.outcome.abuse_held.count + report.outcome.abuse_prevented.count
    assert f"stop {found:.0f} of {report.n_positives_test} cases of abuse" in seen
    assert "Registered as version 1, now champion" in seen
    assert "recourse policy check policy-proposal.yaml" in seen
    assert "recourse promote" not in seen


def test_every_baseline_segment_source_check_and_fold_is_there(
    report: TrainedReport, html: str
) -> None:
    seen = text_of(html)
    for one in report.against:
        assert wording.capital(wording.BASELINES[one.name]) in seen
        assert f"{one.baseline.average_precision:.3f}" in seen
    for segment in report.segments:
        assert segment.name in seen
    for row in report.label_delays:
        assert str(row["month"]) in seen
    for check in report.leaks.checks:
        assert wording.capital(check.says) in seen
    for ap in report.validation["average_precision_by_fold"]:
        assert f"{ap:.3f}" in seen
    for name, _ in report.top_features[:10]:
        assert wording.capital(wording.feature_sentence(name)) in seen
        assert name in seen.replace(" ", "")
    for doubt in report.doubts:
        assert wording.capital(doubt) in seen
    assert report.run_id in seen
    assert "reputation of the IP address is not known" in seen


def test_a_refused_model_says_why_and_is_not_promoted(drawn: Drawn, few: Picture) -> None:
    leak = Leak("separates_alone", "shipping_minor", {"auc": 0.999}, "shipping_minor tells it all")
    found = LeakReport((leak,), (), (Check("separates_alone", {"auc": NAN}, "one was found"),))
    refused = replace(
        drawn[0], model_version=None, champion=False, leaks=found,
        refusals=(leak.says, "the model is not better than amount alone"),
    )  # fmt: skip
    seen = text_of(render(refused, few))
    assert seen.index("Not registered") < seen.index("shipping_minor tells it all.")
    assert wording.LEAK in seen and "Not while there is a leak" in seen
    assert "Would be saved a month" in seen and "Saved a month, against" not in seen
    assert "The model is not better than amount alone" in seen
    assert "Train again" in seen and "--trust" in seen
    assert "recourse promote" not in seen and "None found" not in seen


def test_a_version_beside_a_champion_is_to_be_promoted(drawn: Drawn, few: Picture) -> None:
    seen = text_of(render(replace(drawn[0], model_version="7", champion=False), few))
    assert "Registered as version 7, not yet champion" in seen
    assert "recourse challenger set 7" in seen and "recourse promote 7" in seen


def test_weighted_figures_stand_beside_those_as_labelled(drawn: Drawn, few: Picture) -> None:
    report = drawn[0]
    judged = {**report.judgement.to_json(), "average_precision": 0.1234}
    coverage = {"refunds": {"PAID": 90, "HELD": 10}, "labelled": {"PAID": 80},
                "covered_share": 0.875, "covered_abuse_share": None}  # fmt: skip
    weighted = {"coverage": coverage, "effective_size": 321.0, "judgement": judged}
    seen = text_of(render(replace(report, weighted=weighted), few)).replace(wording.NBSP, " ")
    assert "0.123" in seen and "speak for 87.5 % of the refunds" in seen
    assert "as much as 321 refunds" in seen and "not known of the abuse" in seen
    nothing = text_of(render(replace(report, weighted={**weighted, "judgement": None}), few))
    assert "0.123" not in nothing and "as much as 321 refunds" in nothing


# --- nothing unknown is shown --------------------------------------------------------------------


def blank(report: TrainedReport) -> TrainedReport:
    """A report in which everything that may be unknown is."""
    figures = replace(report.judgement.figures, **{
        name: NAN for name in vars(report.judgement.figures) if name not in ("n", "n_positives")
    })  # fmt: skip
    judgement = replace(
        report.judgement, figures=figures, intervals=dict.fromkeys(report.judgement.intervals,
                                                                   UNKNOWN),
    )  # fmt: skip
    against = tuple(
        replace(one, model=figures, baseline=figures, average_precision_gain=UNKNOWN,
                auc_gain=UNKNOWN)
        for one in report.against
    )  # fmt: skip
    segments = tuple(
        replace(one, average_precision=NAN, average_precision_interval=UNKNOWN, lift=NAN, tpr=NAN,
                fpr=NAN, prevalence=NAN, mean_probability=NAN)
        for one in report.segments
    )  # fmt: skip
    drift = replace(
        report.drift, features=tuple(
            replace(one, median_before=NAN, median_after=NAN, psi=NAN, threshold=NAN)
            for one in report.drift.features
        ),
    )  # fmt: skip
    endless = replace(report.placement.chosen, reviews_per_day_at_most=math.inf)
    empty = replace(report.outcome, desk=None, abuse_paid_minor_per_1000=NAN)
    return replace(
        report, judgement=judgement, against=against, segments=segments, drift=drift,
        placement=replace(report.placement, chosen=endless), outcome=empty,
        outcome_of_policy=empty, outcome_of_paying_all=empty, label_delays=(),
        blueprint_unknown={}, sizes=tuple(replace(one, decision_ms=NAN) for one in report.sizes),
        blueprint_costs=tuple(
            replace(one, cost_per_1000_minor=NAN) for one in report.blueprint_costs
        ),
        fairness=(Fairness("channel", "flagged", (GroupRate("web", 3, NAN, False),), NAN,
                           UNKNOWN),),
    )  # fmt: skip


def test_what_is_unknown_is_said_so_and_never_shown_as_a_number(
    drawn: Drawn, few: Picture, html: str
) -> None:
    unknown = render(blank(drawn[0]), few)
    for page in (html, unknown):
        assert not words_of(page) & {"nan", "inf", "undefined", "null"}
        assert "None" not in text_of(page).replace("None found", "")
    assert text_of(unknown).count("not known") > 60
    assert "without end" in text_of(unknown)
    assert "Cannot be told" in text_of(unknown)


def test_features_outside_the_catalog_are_drawn_by_their_names(drawn: Drawn, few: Picture) -> None:
    names = ("one_nobody_knows", *few.manifest.feature_names[1:])
    rows = few.rows.copy()
    rows[:, 0] = NAN  # never known either
    strange = replace(few, rows=rows, manifest=replace(few.manifest, feature_names=names))
    assert "one_nobody_knows" in text_of(render(drawn[0], strange))


# --- text is data --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(drawn: Drawn, few: Picture) -> str:
    """A page in which every text that comes from outside is an attack."""
    report = drawn[0]
    leak = Leak("separates_alone", HOSTILE, {HOSTILE: 1.0}, HOSTILE)
    bad = replace(
        report, policy_version=HOSTILE, run_id=HOSTILE, doubts=(HOSTILE,), refusals=(HOSTILE,),
        model_version=None, champion=False,
        segments=(replace(report.segments[0], by=HOSTILE, name=HOSTILE),),
        fairness=(Fairness(HOSTILE, HOSTILE, (GroupRate(HOSTILE, 300, 0.05, True),), 0.5,
                           Interval(0.1, 1.0)),),
        leaks=LeakReport((leak,), (leak,), (Check("interleaved", {HOSTILE: 1.0}, HOSTILE),)),
        recipe={HOSTILE: HOSTILE}, seconds={HOSTILE: 1.0}, calibrator=HOSTILE,
        against=tuple(replace(one, name=HOSTILE) for one in report.against),
    )  # fmt: skip
    manifest = replace(few.manifest, feature_names=(HOSTILE, *few.manifest.feature_names[1:]),
                       libraries={HOSTILE: HOSTILE}, data_digest=HOSTILE)  # fmt: skip
    named = tuple(replace(one, name=HOSTILE) for one in few.baselines)
    return render(bad, replace(few, manifest=manifest, baselines=named))


def test_hostile_text_is_escaped_everywhere(hostile: str) -> None:
    assert "<script" not in hostile and "<img" not in hostile
    assert hostile.count("&lt;script&gt;") > 15


def test_a_chart_takes_its_labels_literally() -> None:
    rising = np.linspace(0, 1, 50)
    drawn = charts.growth(rising.tolist(), 10)
    assert "10 trees taken" in drawn
    with charts.drawing("own", 2.0) as drawing:
        drawing.figure.add_subplot().set_xlabel("$x^2$ </svg><b>bold</b>")
    assert "$x^2$ &lt;/svg&gt;&lt;b&gt;" in drawing.svg


# --- a page by itself ----------------------------------------------------------------------------


def test_the_page_needs_nothing_else(html: str) -> None:
    assert set(re.findall(r'\bsrc="([^"]*)', html)) == set()
    for target in re.findall(r'\bhref="([^"]*)', html):
        assert target.startswith(("#", "data:")), target
    assert "@import" not in html and "url(http" not in html
    assert "<script" not in html


def test_ids_are_unique_and_every_reference_has_its_own(html: str) -> None:
    ids = re.findall(r'\bid="([^"]*)', html)
    assert len(ids) == len(set(ids))
    named = re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]*)', html)
    assert named and set(named) <= set(ids)


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def palettes() -> Iterator[dict[str, str]]:
    css = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    for block in re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL):
        yield dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))


def test_text_and_lines_stand_out_in_light_and_dark() -> None:
    light, dark = palettes()
    assert set(light) == set(dark) >= set(charts.COLOURS)
    for colours in (light, dark):
        for behind in ("paper", "card"):
            for name in ("ink", "quiet", "good", "bad", "wait", "link"):
                assert contrast(colours[name], colours[behind]) >= 4.5, (name, behind)
        for name in ("first", "second", "third", "fourth", "fifth", "quiet"):
            assert contrast(colours[name], colours["paper"]) >= 3, name
        assert contrast(charts.DOT_COLOUR, colours["paper"]) >= 3


# --- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slope", "low", "high", "tone"),
    [(1.0, 0.9, 1.1, "good"), (0.8, 0.7, 0.95, "bad"), (1.3, 1.1, 1.5, "bad"),
     (0.8, 0.5, 1.2, "wait"), (NAN, NAN, NAN, "wait")],
)  # fmt: skip
def test_probabilities_are_believed_as_far_as_the_slope_goes(
    report: TrainedReport, slope: float, low: float, high: float, tone: str
) -> None:
    judgement = replace(
        report.judgement, figures=replace(report.judgement.figures, calibration_slope=slope),
        intervals={**report.judgement.intervals, "calibration_slope": Interval(low, high)},
    )  # fmt: skip
    assert wording.believed(replace(report, judgement=judgement)).tone == tone


def test_caveats_name_what_a_reader_must_know(report: TrainedReport) -> None:
    def caveats(**changed: Any) -> str:
        return " ".join(wording.caveats(replace(report, **changed)))

    assert "read the intervals" in caveats(n_positives_test=wording.FEW_POSITIVES - 1)
    assert "read the intervals" not in caveats(n_positives_test=wording.FEW_POSITIVES)
    assert "never labelled" not in caveats(test_labels={})
    moved = replace(report.drift, score=replace(report.drift.score, drifted=True))
    assert "score itself has moved" in caveats(drift=moved)
    trusted = LeakReport((), (Leak("separates_alone", "ip_risk", {}, "it does"),), ())
    assert "vouched for ip_risk" in caveats(leaks=trusted)
    unknown = replace(report.outcome, amount_unknown=3.0)
    assert "3 refunds of the test" in caveats(outcome=unknown)


def test_a_fall_is_told_as_one(report: TrainedReport) -> None:
    cheap = replace(report.outcome_of_policy, abuse_paid_minor_per_1000=0.0,
                    honest_prevented_minor_per_1000=0.0, reviews_minor_per_1000=0.0)  # fmt: skip
    saved = wording.savings(replace(report, outcome_of_policy=cheap))[-1]
    assert saved.saved_per_1000_minor == pytest.approx(-report.outcome.cost_minor_per_1000)


def test_reliability_intervals_hold_the_share_observed() -> None:
    draw = np.random.default_rng(0)
    probability = draw.random(5000)
    abuse = (draw.random(5000) < probability).astype(float)
    found = charts.reliability_bins(probability, abuse)
    assert sum(one["refunds"] for one in found) == 5000
    assert all(0 <= one["low"] <= one["observed"] <= one["high"] <= 1 for one in found)
    held = [one["low"] <= one["predicted"] <= one["high"] for one in found]
    assert sum(held) >= len(found) - 1


# --- in a browser --------------------------------------------------------------------------------


Opened = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Opens HTML from a file; whatever is said on the console, or asked of a network, fails."""
    trouble: list[str] = []
    pages: list[Page] = []

    def open_page(html: str, width: int = 1280, scheme: Any = "light") -> Page:
        path = tmp_path / "report.html"
        path.write_text(html, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda said: trouble.append(said.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda asked: trouble.extend(
            [asked.url] if not asked.url.startswith(("data:", path.as_uri())) else []
        ))  # fmt: skip
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert trouble == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_desk_and_a_phone(
    opened: Opened, html: str, width: int, scheme: str
) -> None:
    page = opened(html, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.scrollHeight") > 5000
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    for chart in page.locator("figure svg").all():
        box = chart.bounding_box()
        assert box is not None and box["height"] > 100 and box["width"] <= width


def test_headings_tables_and_charts_are_told_to_who_cannot_see(opened: Opened, html: str) -> None:
    page = opened(html)
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.locator("h2").all_inner_texts()[0] == "Summary"
    assert page.evaluate("[...document.querySelectorAll('th')].every(th => th.scope)")
    assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.caption.innerText)")
    alts = page.evaluate("[...document.querySelectorAll('[role=img]')].map(c => c.ariaLabel)")
    assert len(alts) == len(set(alts)) == 15 and all(len(alt) > 40 for alt in alts)
    assert page.locator("[role=img]").count() == page.locator("figure").count()


def test_nothing_hostile_runs(opened: Opened, hostile: str) -> None:
    page = opened(hostile)
    page.wait_for_load_state("load")
    assert page.evaluate("window.hacked === undefined")
    assert page.locator("img, script").count() == 0
    assert page.get_by_text("window.hacked").count() > 5


def test_it_prints_on_white_whatever_the_screen_is(opened: Opened, html: str) -> None:
    page = opened(html, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_a_page_is_written_as_one_file(drawn: Drawn, few: Picture, tmp_path: Path) -> None:
    write_page(drawn[0], few, tmp_path / "report.html")
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
