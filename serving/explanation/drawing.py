"""What the page of an explanation draws, as SVG by hand: pure functions from values to markup.

Widths are in per cent and heights in pixels, so a drawing fills a phone and a desk and its letters
stay as large as the text around. There is no style attribute, script or reference: colours are
classes of ``explanation.css``. A drawing that is not told in text beside it says what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from markupsafe import Markup, escape

from serving.explanation.curve import Curve
from serving.explanation.parts import LANES, Linked, Links, Moment
from serving.language import Language

NEAR: Final = 4.0
"""Moments of a lane that are nearer than so many per cent of the width are one mark."""
MOST_LETTERS: Final = 34

_TITLES: Final = 12
_TICKS: Final = (
    (0.0001, 2), (0.001, 1), (0.005, 1), (0.01, 0), (0.02, 0), (0.05, 0), (0.1, 0), (0.25, 0),
    (0.5, 0), (0.75, 0), (0.9, 0), (0.95, 0), (0.99, 0), (0.999, 1), (0.9999, 2),
)  # fmt: skip
_TONES: Final = ("plain", "good", "wait", "bad")
_SHAPES: Final = {
    "plain": "M-6 0A6 6 0 1 1 6 0A6 6 0 1 1 -6 0Z", "good": "M-5.5 -5.5H5.5V5.5H-5.5Z",
    "wait": "M0 -7.5L7.5 6H-7.5Z", "bad": "M0 -8L8 0L0 8L-8 0Z",
}  # fmt: skip
_ICONS: Final = {
    "good": "M4 10.5L8.3 15L16 5.5", "bad": "M5 5L15 15M15 5L5 15",
    "wait": "M7 4.5V15.5M13 4.5V15.5", "mind": "M10 3.5V11.5M10 16V16.2",
}  # fmt: skip


# --- elements ------------------------------------------------------------------------------------


def tag(name: str, *inside: Markup | str, **attributes: object) -> Markup:
    """An element; what stands in it and in its attributes is escaped, None is left out.

    >>> tag("text", "a<b", x="3%", class_="soft", text_anchor="end", dx=None)
    Markup('<text x="3%" class="soft" text-anchor="end">a&lt;b</text>')
    """
    said = "".join(
        f' {_attribute(key)}="{of if isinstance(of, int | float) else escape(of)}"'
        for key, of in attributes.items()
        if of is not None
    )
    return Markup(f"<{name}{said}>{''.join(map(escape, inside))}</{name}>")


@cache
def _attribute(key: str) -> str:
    """An attribute as it is written; the names are those of this module."""
    return key if key == "viewBox" else key.strip("_").replace("_", "-")


def cut(text: str, most: int = MOST_LETTERS) -> str:
    """A text of at most so many characters.

    >>> cut("a payment method", 10), cut("a device", 10)
    ('a payment…', 'a device')
    """
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from low to high as places across a drawing, in per cent of its width."""

    low: float
    high: float
    right: float = 97.0

    def place(self, value: float) -> float:
        """Where a value lies.

        >>> Scale(0, 10).place(5), Scale(4, 4).place(4)
        (50.0, 3.0)
        """
        return 3 + (self.right - 3) * (value - self.low) / ((self.high - self.low) or 1)


def _at(place: float) -> str:
    return f"{place:.2f}%"


def _drawn(height: float, parts: Iterable[Markup], label: str | None = None) -> Markup:
    told = {"aria_hidden": "true"} if label is None else {"role": "img", "aria_label": label}
    return tag("svg", *parts, class_="drawn", width="100%", height=round(height), **told)


def _text(said: str, x: str, y: float, kind: str = "", anchor: str | None = None) -> Markup:
    return tag("text", said, x=x, y=y, class_=kind or None, text_anchor=anchor)


def _upright(place: float, top: float, bottom: float, kind: str) -> Markup:
    return tag("line", x1=_at(place), x2=_at(place), y1=top, y2=bottom, class_=kind)


def _level(y: float, kind: str) -> Markup:
    return tag("line", x1="0", x2="100%", y1=y, y2=y, class_=kind)


@cache
def icon(tone: str) -> Markup:
    """The sign of a tone; it stands beside the word that says the same."""
    return tag("svg", tag("path", d=_ICONS[tone]), class_="icon", viewBox="0 0 20 20",
               aria_hidden="true")  # fmt: skip


@cache
def sign(kind: str, is_later: bool = False) -> Markup:
    """A mark of the timeline or the graph, for the legend."""
    shape = tag("path", d=_SHAPES[kind], class_=f"mark {kind}{' hollow' if is_later else ''}")
    return tag("svg", shape, class_="sign", viewBox="-10 -10 20 20", aria_hidden="true")


# --- probability and weights ---------------------------------------------------------------------


def meter(probability: float, base_rate: float | None) -> Markup:
    """A probability on the way from never to certain, the base rate a line across."""
    filled = _at(100 * probability)
    return _drawn(16, [
        tag("rect", x=0, y=4, width="100%", height=8, rx=4, class_="track"),
        tag("rect", x=0, y=4, width=filled, height=8, rx=4, class_="level"),
        *([_upright(100 * base_rate, 0, 16, "now")] if base_rate is not None else []),
    ])  # fmt: skip


def bar(weight: float, heaviest: float) -> Markup:
    """A reason's weight as a bar from the middle, to the right if it raises the risk."""
    length = 50 * abs(weight) / (heaviest or 1)
    kind, start = ("raise", 50.0) if weight > 0 else ("lower", 50 - length)
    return _drawn(14, [
        _level(7, "grid"),
        tag("rect", x=_at(start), y=1, width=_at(length), height=12, class_=kind),
        _upright(50, 0, 14, "axis"),
    ])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the waterfall: the score before and after it, and the probability in words."""

    name: str
    before: float
    after: float
    said: str


def waterfall(steps: Sequence[Step], curve: Curve, language: Language, label: str) -> Markup:
    """From the first step, the base rate, to the last, the score.

    Bars are as long as their weight in log-odds, and the axis says which probability is where.
    """
    places = [at for one in steps for at in (one.before, one.after)]
    spare = 0.04 * max(max(places) - min(places), 0.5)
    scale = Scale(min(places) - spare, max(places) + spare, right=84)
    row, bottom = 38, 38 * len(steps) + 4
    parts = [*_axis(curve, scale, bottom, language)]
    for (number, one), after in zip(enumerate(steps), [*steps[1:], None], strict=True):
        parts += _step(one, row * number, number == 0 or after is None, scale)
        if after is not None:
            top = row * number
            parts.append(_upright(scale.place(one.after), top + 32, top + row + 20, "join"))
    return _drawn(bottom + 22, parts, label)


def _step(one: Step, top: float, is_end: bool, scale: Scale) -> Iterator[Markup]:
    start, end = sorted((scale.place(one.before), scale.place(one.after)))
    if is_end:
        start, end, kind = end - 0.6, end + 0.6, "whole"
    else:
        kind = "raise" if one.after > one.before else "lower"
    yield _text(cut(one.name), "0", top + 14, "halo strong" if is_end else "halo")
    yield _text(one.said, "100%", top + 14, "halo strong" if is_end else "halo soft", "end")
    yield tag("rect", x=_at(start), y=top + 20, width=_at(max(end - start, 0.3)), height=12,
              class_=kind)  # fmt: skip


def _axis(curve: Curve, scale: Scale, bottom: float, language: Language) -> Iterator[Markup]:
    """Lines at round probabilities, as many as have room."""
    last = -math.inf
    for probability, digits in _TICKS:
        place = scale.place(curve.score(probability))
        if 3 <= place <= scale.right and place - last >= 12:
            last = place
            yield _upright(place, 0, bottom, "grid")
            said = language.share(probability, digits)
            yield _text(said, _at(place), bottom + 16, "soft", "middle")


# --- the timeline --------------------------------------------------------------------------------


def lane_name(lane: str, language: Language) -> str:
    """A row of the timeline, as a reader calls it.

    >>> from serving.language import ENGLISH
    >>> lane_name("verdicts", ENGLISH)
    'What people found'
    """
    return {
        "orders": language.say("Orders"),
        "refunds": language.say("Refunds"),
        "returns": language.say("Returns"),
        "disputes": language.say("Disputes"),
        "verdicts": language.say("What people found"),
        "decisions": language.say("Decisions"),
    }[lane]


def timeline(
    moments: Sequence[Moment], decided_at: int | None, language: Language, label: str
) -> Markup:
    """Moments in lanes over time; the decision is a line across, what came later lies behind it.

    There are moments, or a decision.
    """
    times = [one.at for one in moments] + ([] if decided_at is None else [decided_at])
    scale = Scale(min(times), max(times))
    lanes = [lane for lane in LANES if any(one.lane == lane for one in moments)]
    row, top = 46, 20
    bottom = top + row * len(lanes)
    here = None if decided_at is None else scale.place(decided_at)
    parts = []
    if here is not None and here < scale.place(max(times)):
        parts.append(tag("rect", x=_at(here), y=top, width=_at(100 - here), height=bottom - top,
                         class_="later"))  # fmt: skip
    parts += _days(scale, top, bottom, language)
    if here is not None:
        parts.append(_upright(here, top - 4, bottom, "now"))
        anchor = "start" if here < 15 else "end" if here > 85 else "middle"
        parts.append(_text(language.say("Decision"), _at(here), top - 8, "strong", anchor))
    for number, lane in enumerate(lanes):
        y = top + row * number
        parts += [_text(lane_name(lane, language), "0", y + 14, "halo"), _level(y + 31, "grid")]
        parts += _marks([one for one in moments if one.lane == lane], y + 31, scale, language)
    return _drawn(bottom + 22, parts, label)


def _days(scale: Scale, top: float, bottom: float, language: Language) -> Iterator[Markup]:
    """The days at both ends and in the middle; one that would stand twice stands once."""
    said = ""
    for share, anchor, x in ((0.0, "start", "0"), (0.5, "middle", "50%"), (1.0, "end", "100%")):
        at = scale.low + share * (scale.high - scale.low)
        day = language.day(int(at))
        yield _upright(scale.place(at), top, bottom, "grid")
        if day != said:
            yield _text(day, x, bottom + 16, "soft", anchor)
        said = day


def _marks(
    moments: Iterable[Moment], y: float, scale: Scale, language: Language
) -> Iterator[Markup]:
    """A mark for each moment, and one for all that would lie upon one another."""
    several: list[list[Moment]] = []
    for one in sorted(moments, key=lambda one: one.at):
        last = several[-1][0] if several else None
        is_near = last is not None and scale.place(one.at) - scale.place(last.at) < NEAR
        if last is not None and is_near and last.is_later == one.is_later:
            several[-1].append(one)
        else:
            several.append([one])
    for each in several:
        yield _mark(each, scale.place((each[0].at + each[-1].at) / 2), y, language)


def _mark(moments: Sequence[Moment], place: float, y: float, language: Language) -> Markup:
    """The worst tone of several is theirs; their shape is larger, with their number in it."""
    tone, number = max((one.tone for one in moments), key=_TONES.index), len(moments)
    look = f"{tone} hollow" if moments[0].is_later else tone
    titles = [
        language.say("{day}: {what}", day=language.day(one.at), what=cut(one.title, 90))
        for one in moments[:_TITLES]
    ]
    inside = [tag("title", "\n".join([*titles, *["…"] * (number > _TITLES)]))]
    if any(one.is_own for one in moments):
        inside.append(tag("circle", r=10.5 if number == 1 else 15, class_="own"))
    larger = None if number == 1 else "scale(1.6)"
    inside.append(tag("path", d=_SHAPES[tone], class_=f"mark {look}", transform=larger))
    if number > 1:
        lower = 6 if tone == "wait" else 4
        inside.append(_text(language.count(number), "0", lower, f"many {look}", "middle"))
    # A drawing within the drawing: the only way to a place in per cent for what is in pixels.
    return tag("svg", *inside, x=_at(place), y=y, overflow="visible")


# --- amounts over time ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dot:
    """An amount at an instant; its shape and colour are those of a tone, ``said`` is its text."""

    at: int
    minor: float
    tone: str
    said: str
    is_hollow: bool = False
    is_ringed: bool = False


def dots(many: Sequence[Dot], currency: str, language: Language, label: str) -> Markup:
    """Amounts of one currency over time, the higher the more; there is one at least."""
    scale = Scale(min(one.at for one in many), max(one.at for one in many))
    most = _round_above(max(one.minor for one in many))
    top, bottom = 24, 224

    def height(minor: float) -> float:
        return round(bottom - (bottom - top) * minor / most, 1)

    parts = [*_days(scale, top, bottom, language)]
    for share in (0.0, 0.5, 1.0):
        y = height(share * most)
        said = language.money(share * most, currency) if share else ""
        parts += [_level(y, "grid"), _text(said, "0", y - 4, "halo soft")]
    for one in many:
        look = f"mark {one.tone}{' hollow' if one.is_hollow else ''}"
        inside = [tag("title", one.said), tag("path", d=_SHAPES[one.tone], class_=look)]
        if one.is_ringed:
            inside.append(tag("circle", r=10.5, class_="own"))
        parts.append(tag("svg", *inside, x=_at(scale.place(one.at)), y=height(one.minor),
                         overflow="visible"))  # fmt: skip
    return _drawn(bottom + 22, parts, label)


def _round_above(value: float) -> float:
    """A round number that is no lower.

    >>> [_round_above(value) for value in (0, 7, 130, 4_900, 60_000)]
    [1.0, 8.0, 200.0, 5000.0, 60000.0]
    """
    if value <= 1:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return float(next(step * unit for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * unit >= value))


# --- linked accounts -----------------------------------------------------------------------------

_CUSTOMER, _HUB, _ACCOUNT = 7.0, 35.0, 63.0


def graph(links: Links, language: Language, label: str) -> Markup:
    """The customer, what it used, and who else used that: three columns and lines between them.

    ``links`` has hubs; those that lead to no account of ``links`` are drawn too.
    """
    row = 44
    height = row * max(len(links.hubs), len(links.accounts), 1)
    hubs = {hub.value: height * (n + 0.5) / len(links.hubs) for n, hub in enumerate(links.hubs)}
    heights = [height * (n + 0.5) / (len(links.accounts) or 1) for n in range(len(links.accounts))]
    parts = [_line(_CUSTOMER, height / 2, _HUB, y, "tie") for y in hubs.values()]
    for one, y in zip(links.accounts, heights, strict=True):
        kind = "tie bad" if one.confirmed_abuse else "tie"
        parts += [_line(_HUB, hubs[of], _ACCOUNT, y, kind) for of in one.through if of in hubs]
    parts += [*_node(_CUSTOMER, height / 2, "self"), *_named(cut(links.customer, 7), _CUSTOMER,
                                                            height / 2)]  # fmt: skip
    for hub in links.hubs:
        parts += [*_node(_HUB, hubs[hub.value], "hub"), *_named(cut(hub.name, 16), _HUB,
                                                                hubs[hub.value])]  # fmt: skip
    for one, y in zip(links.accounts, heights, strict=True):
        kind = "bad" if one.confirmed_abuse else "plain"
        parts += [
            *_node(_ACCOUNT, y, kind),
            _text(cut(one.customer, 9), _at(_ACCOUNT + 4), y - 2, "halo mono"),
            _text(_told_of(one, language), _at(_ACCOUNT + 4), y + 13, f"halo soft {kind}"),
        ]  # fmt: skip
    return _drawn(height, parts, label)


def _told_of(one: Linked, language: Language) -> str:
    if one.confirmed_abuse:
        return language.say_of(
            one.confirmed_abuse, "{value} case of abuse", "{value} cases of abuse"
        )
    return language.say_of(one.refunds, "{value} refund", "{value} refunds")


def _line(x: float, y: float, to_x: float, to_y: float, kind: str) -> Markup:
    return tag("line", x1=_at(x), y1=round(y, 1), x2=_at(to_x), y2=round(to_y, 1), class_=kind)


def _node(place: float, y: float, kind: str) -> Iterator[Markup]:
    shape = _SHAPES["bad" if kind == "bad" else "good" if kind == "hub" else "plain"]
    yield tag("svg", tag("path", d=shape, class_=f"node {kind}"), x=_at(place), y=round(y, 1),
              overflow="visible")  # fmt: skip


def _named(name: str, place: float, y: float) -> Iterator[Markup]:
    yield _text(name, _at(place), round(y - 12, 1), "halo", "middle")
