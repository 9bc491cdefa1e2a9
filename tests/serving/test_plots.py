"""Plots: what is drawn is what was given, nothing told by colour alone, and nothing unescaped."""

from __future__ import annotations

import math
import re
from typing import get_args
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import plots
from serving.plots import Axis, Estimate, Row, Series

HOSTILE = '"><script>alert(1)</script>'


@given(st.floats(1e-6, 1e12, allow_nan=False), st.booleans())
def test_an_axis_holds_what_is_on_it(highest: float, is_whole: bool) -> None:
    axis = Axis.of(highest, str, is_whole=is_whole)
    steps = {round(b / a, 9) for a, b in zip(axis.ticks[1:], axis.ticks[2:], strict=False)}
    assert axis.top >= highest * (1 - 1e-9) and axis.ticks[0] == 0
    assert 2 <= len(axis.ticks) <= 7 and all(step > 1 for step in steps)
    if is_whole:
        assert all(tick == int(tick) for tick in axis.ticks)


@pytest.mark.parametrize("nothing", [0, -3, math.nan])
def test_an_axis_of_nothing_is_one(nothing: float) -> None:
    assert Axis.of(nothing, str).ticks == (0, 1)


def heights(drawing: str, kind: str) -> list[float]:
    found = re.findall(rf'height="([\d.]+)" class="fill {kind}"', drawing)
    return [float(each) for each in found]


def test_bars_are_as_high_as_their_values() -> None:
    series = [Series("a", "good", [10, 0, 30]), Series("b", "bad", [10, None, 0])]
    drawn = plots.bars("p", ["1", "2", "3"], series, Axis.of(40, str), "What it shows.")
    per_unit = (plots.HEIGHT - 12) / 40
    assert heights(drawn, "good") == pytest.approx([10 * per_unit - 1, 30 * per_unit - 1], abs=0.1)
    assert heights(drawn, "bad") == pytest.approx([10 * per_unit - 1], abs=0.1)
    assert drawn.count("url(#p-bad)") == 1, "with a pattern"
    assert 'id="p-bad"' in drawn and "1\na: 10\nb: 10" in drawn


def test_lines_break_where_nothing_is_known() -> None:
    series = [Series("a", "wait", [1, 2, None, 4, 5])]
    drawn = plots.lines([*"abcde"], series, Axis.of(5, str), "What it shows.")
    assert drawn.count('class="stroke wait"') == 2 and drawn.count('class="dot wait"') == 4
    assert "c\na: –" in drawn


def every() -> list[str]:
    """A drawing of each kind, with words that would break out if they could."""
    axis = Axis.of(1, lambda value: f"{value}{HOSTILE}")
    row = Row(HOSTILE, HOSTILE, Estimate(0.5, 0.2, 0.9))
    series = [Series(HOSTILE, "bad", [0.5])]
    estimate = [Estimate(0.5, 0.2, 0.9, 0.4), Estimate(None, None, None)]
    return [
        plots.bars("p", [HOSTILE], series, axis, HOSTILE),
        plots.lines([HOSTILE], series, axis, HOSTILE),
        plots.estimates([HOSTILE, "b"], estimate, axis, HOSTILE),
        plots.levels("p", [row], axis, HOSTILE, line=0.5),
        plots.intervals([row, row._replace(estimate=Estimate(None, None, None))], axis, HOSTILE),
        plots.bars("p", [], [], axis, HOSTILE),
        plots.lines([], [], axis, HOSTILE),
    ]


@pytest.mark.parametrize("drawn", every())
def test_nothing_breaks_out_and_each_says_what_it_shows(drawn: str) -> None:
    root = ElementTree.fromstring(drawn)
    assert root.get("role") == "img" and root.get("aria-label") == HOSTILE
    for element in root.iter():
        assert element.tag in {"div", "svg", "rect", "line", "text", "path", "defs", "pattern",
                               "title"}  # fmt: skip
        assert not {name for name in element.attrib if name == "style" or name.startswith("on")}


def test_swatches_differ_without_colour() -> None:
    kinds = get_args(plots.Kind)
    for as_line in (False, True):
        shapes = {re.sub(r" class=\"[^\"]*\"", "", plots.swatch(kind, as_line=as_line))
                  for kind in kinds}  # fmt: skip
        assert len(shapes) == len(kinds)
