"""Plots for pages, as SVG by hand like `serving.explanation.drawing`: bars, lines, intervals, rows.

A plot is its axis, which is as wide as its words, and the drawing, in per cent by pixels. It has no
style attribute and no script. Nothing is told by colour alone: fills have patterns, lines have
marks of their own shape and dashes, and the table that stands below a plot has every value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from markupsafe import Markup

from serving.explanation.drawing import cut, tag

Kind = Literal["good", "wait", "bad", "other"]
"""How a series looks: its colour, and the pattern, mark and dash that tell it without one."""

HEIGHT: Final = 190
_TOP: Final = 12
_LETTER: Final = 7.2
"""About how wide a letter of an axis is, in pixels."""
_ROW: Final = 40

_PATTERNS: Final[dict[Kind, str]] = {
    "good": "", "wait": "M-1 1L1 -1M0 7L7 0M6 8L8 6", "bad": "M0 0L7 7M7 0L0 7",
    "other": "M0 3.5H7",
}  # fmt: skip
_MARKS: Final[dict[Kind, str]] = {
    "good": "M-4 -4H4V4H-4Z", "wait": "M0 -5.5L5 4H-5Z", "bad": "M0 -5.5L5.5 0L0 5.5L-5.5 0Z",
    "other": "M-4.2 0A4.2 4.2 0 1 1 4.2 0A4.2 4.2 0 1 1 -4.2 0Z",
}  # fmt: skip
_DASHES: Final[dict[Kind, str | None]] = {"good": None, "wait": "7 3", "bad": "2 3", "other": None}


class Series(NamedTuple):
    """What a plot shows over its slots, None where nothing is known; ``said`` is for its legend."""

    name: str
    kind: Kind
    values: Sequence[float | None]
    said: str = ""


class Estimate(NamedTuple):
    """A value with its interval, and what it is held against; None for what is not known."""

    value: float | None
    low: float | None
    high: float | None
    other: float | None = None


class Row(NamedTuple):
    """A row of a plot whose rows are named: its name, what is said of it at its right end."""

    name: str
    said: str
    estimate: Estimate
    kind: Kind = "other"


class Axis(NamedTuple):
    """Round values from 0 to ``top``, and how a value is said."""

    ticks: tuple[float, ...]
    said: Callable[[float], str]

    @property
    def top(self) -> float:
        """The highest value there is room for."""
        return self.ticks[-1]

    @classmethod
    def of(cls, highest: float, said: Callable[[float], str], *, is_whole: bool = False) -> Axis:
        """An axis up to at least ``highest``, with a handful of ticks.

        >>> Axis.of(88, str).ticks, Axis.of(0, str).ticks
        ((0, 20, 40, 60, 80, 100), (0, 1))
        >>> Axis.of(1, str, is_whole=True).ticks, Axis.of(0.03, str).ticks
        ((0, 1), (0, 0.01, 0.02, 0.03))
        """
        if not highest > 0:
            return cls((0, 1), said)
        power = 10.0 ** math.floor(math.log10(highest / 4))
        steps = [step * power for step in (1, 2, 2.5, 5, 10)]
        if is_whole:
            steps = [step for step in steps if step == int(step)] or [1]
        step = next((one for one in steps if highest / one <= 5), steps[-1])
        number = math.ceil(highest / step - 1e-9)
        ticks = tuple(float(f"{step * i:.12g}") for i in range(number + 1))
        return cls(tuple(int(one) if one == int(one) else one for one in ticks), said)


# --- over time ---------------------------------------------------------------------------------


def bars(
    name: str, slots: Sequence[str], series: Sequence[Series], axis: Axis, label: str
) -> Markup:
    """Stacked bars, the first series at the bottom; ``name`` is the plot's own within its page."""
    parts = [_patterns(name, {one.kind for one in series}), *_levels(axis)]
    width = 100 / max(len(slots), 1)
    for i, slot in enumerate(slots):
        bottom = 0.0
        for one in series:
            value = one.values[i] or 0.0
            if value > 0:
                top = _y(bottom + value, axis)
                height = max(_y(bottom, axis) - top - 1, 1.0)
                at = {"x": _at(width * (i + 0.11)), "width": _at(width * 0.78),
                      "y": round(top, 1), "height": round(height, 1)}  # fmt: skip
                parts.append(tag("rect", **at, class_=f"fill {one.kind}"))
                if _PATTERNS[one.kind]:
                    parts.append(tag("rect", **at, fill=f"url(#{name}-{one.kind})"))
            bottom += value
        told = [f"{one.name}: {_said(one.values[i], axis)}" for one in series]
        parts.append(_hover(width * i, width, "\n".join([slot, *told])))
    return _plot([*parts, *_days(slots)], axis, label)


def lines(slots: Sequence[str], series: Sequence[Series], axis: Axis, label: str) -> Markup:
    """Lines with a mark at each value that is known, broken where one is not."""
    parts = [*_levels(axis)]
    width = 100 / max(len(slots), 1)
    for one in series:
        points = [
            None if value is None else (width * (i + 0.5), _y(value, axis))
            for i, value in enumerate(one.values)
        ]
        for here, there in pairwise(points):
            if here is not None and there is not None:
                parts.append(tag("line", x1=_at(here[0]), y1=round(here[1], 1), x2=_at(there[0]),
                                 y2=round(there[1], 1), class_=f"stroke {one.kind}",
                                 stroke_dasharray=_DASHES[one.kind]))  # fmt: skip
        parts += [_mark(*point, one.kind) for point in points if point is not None]
    for i, slot in enumerate(slots):
        told = [f"{one.name}: {_said(one.values[i], axis)}" for one in series]
        parts.append(_hover(width * i, width, "\n".join([slot, *told])))
    return _plot([*parts, *_days(slots)], axis, label)


def estimates(slots: Sequence[str], each: Sequence[Estimate], axis: Axis, label: str) -> Markup:
    """Values with their intervals as dots and lines; a diamond is what each is held against."""
    parts = [*_levels(axis)]
    width = 100 / max(len(slots), 1)
    for i, one in enumerate(each):
        at = width * (i + 0.5)
        if one.low is not None and one.high is not None:
            parts.append(tag("line", x1=_at(at), x2=_at(at), y1=round(_y(one.low, axis), 1),
                             y2=round(_y(one.high, axis), 1), class_="stroke other"))  # fmt: skip
        if one.value is not None:
            parts.append(_mark(at, _y(one.value, axis), "other"))
        if one.other is not None:
            parts.append(_mark(at, _y(one.other, axis), "bad", is_hollow=True))
    return _plot([*parts, *_days(slots)], axis, label)


# --- by name -----------------------------------------------------------------------------------


def levels(
    name: str, rows: Sequence[Row], axis: Axis, label: str, *, line: float | None = None
) -> Markup:
    """A bar for each row, its words above it; ``line`` is a value that they are held against."""
    parts = [_patterns(name, {row.kind for row in rows})]
    for number, row in enumerate(rows):
        top, value = _ROW * number, row.estimate.value or 0.0
        at = {"x": "0", "y": top + 21, "width": _at(100 * min(value / axis.top, 1)), "height": 11}
        parts += _named(row, top)
        parts += [tag("rect", **{**at, "width": "100%"}, class_="track"),
                  tag("rect", **at, class_=f"fill {row.kind}")]  # fmt: skip
        if _PATTERNS[row.kind]:
            parts.append(tag("rect", **at, fill=f"url(#{name}-{row.kind})"))
        if line is not None:
            at_line = _at(100 * line / axis.top)
            parts.append(
                tag("line", x1=at_line, x2=at_line, y1=top + 19, y2=top + 35, class_="now")
            )
    return _rows(parts, len(rows), label)


def intervals(rows: Sequence[Row], axis: Axis, label: str) -> Markup:
    """A dot with its interval for each row, on a line from 0 to the end of the axis."""
    parts: list[Markup] = []
    bottom = _ROW * len(rows)
    for tick in axis.ticks:
        place = 1.5 + 97 * tick / axis.top
        anchor = "start" if tick == 0 else "end" if tick == axis.top else "middle"
        parts.append(tag("text", axis.said(tick), x=_at(place), y=bottom + 14, class_="soft",
                         text_anchor=anchor))  # fmt: skip
    for number, row in enumerate(rows):
        top, one = _ROW * number, row.estimate
        parts += _named(row, top)
        parts.append(tag("line", x1="0", x2="100%", y1=top + 27, y2=top + 27, class_="grid"))
        if one.value is None:
            continue
        places = [1.5 + 97 * (one.value if end is None else end) / axis.top
                  for end in (one.low, one.high)]  # fmt: skip
        parts.append(tag("line", x1=_at(places[0]), x2=_at(places[1]), y1=top + 27, y2=top + 27,
                         class_=f"stroke {row.kind}"))  # fmt: skip
        parts.append(_mark(1.5 + 97 * one.value / axis.top, top + 27, row.kind))
    return _rows(parts, len(rows), label, below=20)


def swatch(kind: Kind, *, as_line: bool = False, is_hollow: bool = False) -> Markup:
    """What a series looks like, for its legend."""
    if as_line:
        inside = [tag("line", x1=0, x2=24, y1=7, y2=7, class_=f"stroke {kind}",
                      stroke_dasharray=_DASHES[kind])] if not is_hollow else []  # fmt: skip
        look = f"dot {kind} hollow" if is_hollow else f"dot {kind}"
        inside.append(tag("path", d=_MARKS[kind], class_=look, transform="translate(12 7)"))
        return tag("svg", *inside, class_="swatch", width=24, height=14, aria_hidden="true")
    inside = [tag("rect", width=14, height=14, class_=f"fill {kind}")]
    if _PATTERNS[kind]:
        inside += [tag("path", d=_PATTERNS[kind], class_="pattern", transform=f"translate({x} {y})")
                   for x in (0, 7) for y in (0, 7)]  # fmt: skip
    return tag("svg", *inside, class_="swatch", width=14, height=14, aria_hidden="true")


# --- parts -------------------------------------------------------------------------------------


def _plot(parts: Sequence[Markup], axis: Axis, label: str) -> Markup:
    said = [axis.said(tick) for tick in axis.ticks]
    width = round(max(map(len, said)) * _LETTER + 8)
    names = [tag("text", one, x=width - 8, y=round(_y(tick, axis) + 4, 1), class_="soft",
                 text_anchor="end")
             for one, tick in zip(said, axis.ticks, strict=True)]  # fmt: skip
    height = HEIGHT + 24
    left = tag("svg", *names, class_="drawn axis-of", width=width, height=height)
    right = tag("svg", *parts, class_="drawn", width="100%", height=height)
    return tag("div", left, tag("div", right, class_="area"), class_="plot", role="img",
               aria_label=label)  # fmt: skip


def _rows(parts: Sequence[Markup], number: int, label: str, below: int = 0) -> Markup:
    drawn = tag("svg", *parts, class_="drawn", width="100%", height=_ROW * number + below)
    return tag("div", drawn, class_="rows", role="img", aria_label=label)


def _named(row: Row, top: float) -> Iterator[Markup]:
    yield tag("text", cut(row.name, 30), x="0", y=top + 14, class_="halo")
    yield tag("text", row.said, x="100%", y=top + 14, class_="halo soft", text_anchor="end")


def _y(value: float, axis: Axis) -> float:
    return HEIGHT - (HEIGHT - _TOP) * min(value / axis.top, 1)


def _at(place: float) -> str:
    return f"{place:.2f}%"


def _said(value: float | None, axis: Axis) -> str:
    return "–" if value is None else axis.said(value)


def _levels(axis: Axis) -> Iterator[Markup]:
    for tick in axis.ticks:
        y = round(_y(tick, axis), 1)
        yield tag("line", x1="0", x2="100%", y1=y, y2=y, class_="axis" if tick == 0 else "grid")


def _days(slots: Sequence[str]) -> Iterator[Markup]:
    """The first slot, the last and what lies between: three, so that a phone has room."""
    number = len(slots)
    chosen = sorted({0, (number - 1) // 2, number - 1}) if number else []
    for i in chosen:
        place = 100 * (i + 0.5) / number
        anchor = "start" if place < 8 else "end" if place > 92 else "middle"
        x = {"start": "0", "end": "100%", "middle": _at(place)}[anchor]
        yield tag("line", x1=_at(place), x2=_at(place), y1=HEIGHT, y2=HEIGHT + 5, class_="axis")
        yield tag("text", slots[i], x=x, y=HEIGHT + 19, class_="soft", text_anchor=anchor)


def _hover(x: float, width: float, told: str) -> Markup:
    return tag("rect", tag("title", told), x=_at(x), y=0, width=_at(width), height=HEIGHT,
               class_="hover")  # fmt: skip


def _mark(place: float, y: float, kind: Kind, *, is_hollow: bool = False) -> Markup:
    look = f"dot {kind} hollow" if is_hollow else f"dot {kind}"
    return tag("svg", tag("path", d=_MARKS[kind], class_=look), x=_at(place), y=round(y, 1),
               overflow="visible")  # fmt: skip


def _patterns(name: str, kinds: set[Kind]) -> Markup:
    return tag("defs", *(
        tag("pattern", tag("path", d=_PATTERNS[kind], class_="pattern"), id=f"{name}-{kind}",
            width=7, height=7, patternUnits="userSpaceOnUse")
        for kind in sorted(kinds) if _PATTERNS[kind]
    ))  # fmt: skip
