"""What is drawn: true to its values, and only markup of our own."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.explanation import drawing
from serving.explanation.curve import Curve, log_odds
from serving.explanation.parts import LANES, Moment
from serving.language import ENGLISH
from tests.serving.explanation.cases import HOSTILE, NOW, abuse, borderline, hostile

DAY_MS = 86_400_000
chances = st.floats(0.0001, 0.9999)
points = st.lists(st.tuples(st.floats(-8, 8), chances), min_size=2, max_size=20)


class Elements(HTMLParser):
    """The elements of some markup, with their attributes."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[tuple[str, set[str]]] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name for name, _ in attrs}))


# --- the curve -----------------------------------------------------------------------------------


@given(points, st.floats(-12, 12), st.floats(0, 3))
def test_a_curve_never_falls(given: list[tuple[float, float]], score: float, more: float) -> None:
    curve = Curve.of(given)
    assert 0 <= curve.probability(score) <= curve.probability(score + more) + 1e-9 <= 1 + 1e-9


@given(chances, chances, chances)
def test_a_curve_goes_through_its_ends_and_back(low: float, high: float, between: float) -> None:
    if high - low < 0.01:
        return
    curve = Curve.of([(-1.0, low), (2.0, high)])
    assert curve.probability(-1.0) == pytest.approx(low)
    assert curve.probability(2.0) == pytest.approx(high)
    assert curve.probability(curve.score(between)) == pytest.approx(between)


def test_a_level_or_certain_curve_can_be_drawn() -> None:
    level = Curve.of([(0.0, 0.0), (1.0, 0.2), (2.0, 0.2), (3.0, 1.0)])
    assert level.probability(1.5) == pytest.approx(0.2)
    assert level.score(0.2) == pytest.approx(1.0)
    assert level.probability(-1e9) == pytest.approx(0, abs=1e-6)


# --- the timeline --------------------------------------------------------------------------------

moments = st.builds(
    Moment, at=st.integers(NOW - 400 * DAY_MS, NOW + 30 * DAY_MS), lane=st.sampled_from(LANES),
    title=st.text(max_size=20), tone=st.sampled_from(("plain", "good", "bad", "wait")),
    is_later=st.booleans(),
)  # fmt: skip


@given(st.lists(moments, min_size=1, max_size=60))
def test_every_moment_is_in_one_mark(given: list[Moment]) -> None:
    drawn = drawing.timeline(given, NOW, ENGLISH, "a label")
    several = [int(n) for n in re.findall(r'class="many[^>]*>([\d,]+)<', drawn)]
    alone = drawn.count('class="mark') - len(several)
    assert sum(several) + alone == len(given)
    places = [float(x) for x in re.findall(r'<svg x="([\d.]+)%"', drawn)]
    assert all(3 <= place <= 97.01 for place in places)


def test_marks_of_before_and_after_the_decision_stay_apart() -> None:
    told = [Moment(NOW - 90 * DAY_MS, "orders", "a"), Moment(NOW, "refunds", "b"),
            Moment(NOW + 1, "refunds", "c", is_later=True)]  # fmt: skip
    drawn = drawing.timeline(told, NOW, ENGLISH, "a label")
    assert "many" not in drawn and drawn.count("hollow") == 1


def test_all_at_one_instant_can_be_drawn() -> None:
    told = [Moment(NOW, lane, "a") for lane in LANES]
    assert drawing.timeline(told, NOW, ENGLISH, "a label").count('class="mark') == len(LANES)


# --- waterfall and graph -------------------------------------------------------------------------


@given(st.lists(st.floats(-4, 4), max_size=12), chances)
def test_the_waterfall_stays_within_its_width(weights: list[float], base: float) -> None:
    at, steps = log_odds(base), []
    for weight in [0.0, *weights, 0.0]:
        steps.append(drawing.Step("a reason", at, at + weight, "5 %"))
        at += weight
    drawn = drawing.waterfall(steps, Curve.of([]), ENGLISH, "a label")
    bars = re.findall(r'<rect x="([-\d.]+)%" y="\d+" width="([\d.]+)%"', drawn)
    assert len(bars) == len(steps)
    assert all(float(x) >= 1 and float(x) + float(width) <= 97 for x, width in bars)


def test_confirmed_abuse_stands_out_by_shape_word_and_line() -> None:
    drawn = drawing.graph(abuse().links, ENGLISH, "a label")
    assert drawn.count('class="node bad"') == 2 and drawn.count('class="tie bad"') == 4
    assert "2 cases of abuse" in drawn and "1 case of abuse" in drawn
    assert 'class="tie bad"' not in drawing.graph(borderline().links, ENGLISH, "a label")


def test_hostile_text_adds_no_element_and_no_attribute() -> None:
    bad = hostile()
    drawn = [
        drawing.timeline(bad.timeline.moments, NOW, ENGLISH, HOSTILE),
        drawing.graph(bad.links, ENGLISH, HOSTILE),
        drawing.waterfall([drawing.Step(HOSTILE, 0, 1, HOSTILE)], Curve.of([]), ENGLISH, HOSTILE),
    ]
    for markup in drawn:
        for name, attributes in Elements(markup).found:
            assert name in {"svg", "text", "rect", "line", "circle", "path", "title"}
            assert not {key for key in attributes if key.startswith(("on", "style", "href"))}
