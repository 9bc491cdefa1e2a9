"""The charts of a training report: inline SVG whose colours are the page's own, light and dark.

Each chart is drawn small, so that its text is still read on a phone. Colours are drawn as
stand-ins and then replaced by the page's CSS variables; text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from features.money import MINOR_UNIT_DIGITS
from training.bands import Outcome
from training.thresholds import CurvePoint, Placement

FloatArray = NDArray[np.float64]

COLOURS: Final = {
    "ink": "#0a0b01", "quiet": "#0a0b02", "grid": "#0a0b03", "first": "#0a0b04",
    "second": "#0a0b05", "third": "#0a0b06", "fourth": "#0a0b07", "fifth": "#0a0b08",
}  # fmt: skip
"""The page's colours by name, and what stands in for them until the SVG is written."""

DOT_COLOUR: Final = "#3a7fd5"
"""Of dots, which are pixels and keep their colour: seen on white and on black."""

WIDTH_INCH: Final = 4.4
_CURVE_POINTS: Final = 300
_LINES: Final = ("solid", "dashed", "dotted", "dashdot", (0, (5, 1, 1, 1, 1, 1)))
_NAMES: Final = ("first", "second", "third", "fourth", "fifth")

_STYLE: Final[Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.edgecolor": COLOURS["quiet"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": COLOURS["ink"],
    "lines.linewidth": 1.6,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "recourse",
    "text.color": COLOURS["ink"],
    "text.parse_math": False,
    "xtick.color": COLOURS["quiet"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.color": COLOURS["quiet"],
    "ytick.labelcolor": COLOURS["ink"],
}


@dataclass
class Drawing:
    """A figure to draw on, and once that is done its ``svg``."""

    figure: Figure
    svg: str = ""


@contextmanager
def drawing(name: str, height_inch: float) -> Iterator[Drawing]:
    """A figure in the page's style, written on leaving.

    ``name`` makes the ids within the SVG its own, as several stand in one page.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_INCH, height_inch), layout="constrained")
        drawn = Drawing(figure)
        yield drawn
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, dpi=200)
    drawn.svg = _inline(buffer.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    """An SVG file as a part of a page: no prolog, ids of its own, the page's colours and size."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    for colour, stand_in in COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{colour})")
    return svg


def _thinned(rising: FloatArray, beside: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two columns (n,) where the first, from 0 to 1, has come so far along, the ends among them."""
    steps = np.searchsorted(rising, np.linspace(0, 1, _CURVE_POINTS))
    kept = np.unique(np.concatenate([[0], np.minimum(steps, len(rising) - 1)]))
    return rising[kept], beside[kept]


def _percent_axis(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


# --- rank ----------------------------------------------------------------------------------------


def precision_recall(
    scores: Sequence[tuple[str, FloatArray, FloatArray]], led_to: Outcome, prevalence: float
) -> str:
    """Precision against recall of scores: ``(name, score (n,), abuse (n,))``, the model first.

    The diamond is what the bands do, which weigh money as well.
    """
    with drawing("pr", 3.9) as drawn:
        axes = drawn.figure.add_subplot()
        for (name, score, abuse), line, colour in zip(scores, _LINES, _NAMES, strict=False):
            precision, recall, _ = precision_recall_curve(abuse, score)
            # From few flagged to all; the first point, (0, 1), is there by convention alone.
            x, y = _thinned(recall[-2::-1], precision[-2::-1])
            axes.plot(x, y, label=name, linestyle=line, color=COLOURS[colour])
        axes.axhline(prevalence, color=COLOURS["quiet"], linewidth=0.8,
                     label=f"chance: {100 * prevalence:.1f} % are abuse")  # fmt: skip
        flagged = led_to.held.count + led_to.prevented.count
        found = led_to.abuse_held.count + led_to.abuse_prevented.count
        if flagged and found:
            recall_of_bands = found / (found + led_to.abuse_paid.count)
            axes.plot(recall_of_bands, found / flagged, "D", color=COLOURS["ink"], markersize=5,
                      label="the proposed bands")  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall: share of all abuse that is flagged",
                 ylabel="precision: share of flagged that is abuse")  # fmt: skip
        _percent_axis(axes.xaxis)
        _percent_axis(axes.yaxis)
        drawn.figure.legend(loc="outside lower left", ncols=1, fontsize=7.5)
    return drawn.svg


# --- probabilities -------------------------------------------------------------------------------

_EDGES: Final = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def reliability_bins(probability: FloatArray, abuse: FloatArray) -> list[dict[str, float]]:
    """Refunds by their probability: how many, the mean said, the share observed, its interval.

    The bounds are fixed, so that the few of high probability are seen apart. The 95 % interval is
    Wilson's (1927).

    >>> bins = reliability_bins(np.array([0.001, 0.5]), np.array([0.0, 1.0]))
    >>> [(one["from"], one["refunds"], one["observed"]) for one in bins]
    [(0.0, 1, 0.0), (0.4, 1, 1.0)]
    """
    place = np.clip(np.searchsorted(_EDGES, probability, side="right") - 1, 0, len(_EDGES) - 2)
    found = []
    for i in np.unique(place).tolist():
        rows = place == i
        n, cases = int(rows.sum()), float(abuse[rows].sum())
        low, high = _wilson(cases, n)
        found.append({
            "from": _EDGES[i], "to": _EDGES[i + 1], "refunds": n, "abuse": int(cases),
            "predicted": float(probability[rows].mean()), "observed": cases / n, "low": low,
            "high": high,
        })  # fmt: skip
    return found


def _wilson(cases: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    share, z2 = cases / n, z * z / n
    middle = (share + z2 / 2) / (1 + z2)
    half = z / (1 + z2) * np.sqrt(share * (1 - share) / n + z2 / (4 * n))
    # Where none or all are cases the bound is the share itself, but for rounding.
    return float(np.clip(middle - half, 0, share)), float(np.clip(middle + half, share, 1))


def reliability(bins: Sequence[dict[str, float]]) -> str:
    """Predicted against observed shares with intervals, over how many refunds that is."""
    with drawing("reliability", 4.3) as drawn:
        above, below = drawn.figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        x, y, low, high, n = (
            np.array([one[key] for one in bins])
            for key in ("predicted", "observed", "low", "high", "refunds")
        )
        above.plot([0, 1], [0, 1], color=COLOURS["quiet"], linewidth=0.9, linestyle="dashed",
                   label="perfect")  # fmt: skip
        above.errorbar(
            x,
            y,
            yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)],
            fmt="o",
            markersize=4,
            color=COLOURS["first"],
            capsize=2,
            label="observed, 95 %",
        )
        for axis in (above, below):
            axis.set_xscale("function", functions=(_root, np.square))
        above.set_yscale("function", functions=(_root, np.square))
        ticks = [0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1]
        above.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks,
                  ylabel="share that was abuse")  # fmt: skip
        above.legend(loc="upper left", fontsize=7.5)
        below.bar(
            [one["from"] for one in bins],
            n,
            [one["to"] - one["from"] for one in bins],
            align="edge",
            color=COLOURS["first"],
            edgecolor=COLOURS["grid"],
            linewidth=0.5,
        )
        below.set(yscale="log", ylabel="refunds", xlabel="probability of abuse that the model says")
        below.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        below.yaxis.set_minor_locator(mpl.ticker.NullLocator())
        _percent_axis(above.yaxis)
        _percent_axis(below.xaxis)
    return drawn.svg


def _root(values: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.maximum(values, 0)))


# --- money ---------------------------------------------------------------------------------------


def cost_curve(placement: Placement, measured: Outcome, currency: str) -> str:
    """The expected cost of 1,000 refunds against reviews per day, and what the test came to."""
    unit = 10 ** MINOR_UNIT_DIGITS[currency]

    def at(point: CurvePoint) -> tuple[float, float]:
        return point.outcome.reviews_per_day, point.outcome.cost_minor_per_1000 / unit

    with drawing("cost", 3.7) as drawn:
        axes = drawn.figure.add_subplot()
        x = [point.outcome.reviews_per_day for point in placement.curve]
        axes.plot(*zip(*map(at, placement.curve), strict=True), color=COLOURS["first"],
                  label="best bands, expected")  # fmt: skip
        axes.plot(x, [point.optimum_minor_per_1000 / unit for point in placement.curve],
                  color=COLOURS["second"], linestyle="dashed",
                  label="best action for each refund, expected")  # fmt: skip
        for staffing, mark, name in (
            (placement.one_fewer, "v", "one reviewer fewer"),
            (placement.one_more, "^", "one reviewer more"),
        ):
            axes.plot(*at(staffing.point), mark, color=COLOURS["first"], markersize=6,
                      markerfacecolor="none", label=name)  # fmt: skip
        axes.plot(*at(placement.chosen), "D", color=COLOURS["ink"], markersize=6,
                  label="proposed bands, expected")  # fmt: skip
        axes.plot(measured.reviews_per_day, measured.cost_minor_per_1000 / unit, "x",
                  color=COLOURS["third"], markersize=7, markeredgewidth=2,
                  label="proposed bands, measured on the test")  # fmt: skip
        axes.set(xlabel="reviews per day", ylabel=f"cost of 1,000 refunds, {currency}")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        drawn.figure.legend(loc="outside lower left", ncols=1, fontsize=7.5)
    return drawn.svg


# --- trees ---------------------------------------------------------------------------------------


def growth(curve: Sequence[float], trees: int) -> str:
    """Mean AP of the folds after each tree, and how many were taken."""
    with drawing("growth", 2.7) as drawn:
        axes = drawn.figure.add_subplot()
        axes.plot(np.arange(1, len(curve) + 1), curve, color=COLOURS["first"],
                  label="mean of the folds")  # fmt: skip
        axes.plot(trees, curve[trees - 1], "D", color=COLOURS["ink"], markersize=5,
                  label=f"{trees} trees taken")  # fmt: skip
        axes.set(xlabel="trees", ylabel="average precision")
        axes.legend(loc="lower right", fontsize=7.5)
    return drawn.svg
