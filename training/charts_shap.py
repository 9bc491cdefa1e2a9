"""What a model looks at, drawn by the shap library: a beeswarm, and a feature's dependence.

Features are named by the catalog's sentences and drawn in their units. Dots are pixels: thousands
of them as shapes would make a page of megabytes.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np
import shap
from numpy.typing import NDArray

from features.attribution import CODES
from features.catalog import BY_NAME
from features.feature import Aggregate, Field
from features.money import MINOR_UNIT_DIGITS
from training.charts import COLOURS, DOT_COLOUR, drawing
from training.wording import capital, feature_sentence, feature_unit

FloatArray = NDArray[np.float64]

SWARM: Final = 15
"""How many features a beeswarm shows."""
PARTNERS: Final = 25
"""Among how many features the one is looked for that another depends on."""
_MIDDLE_SHARE: Final = 99.0
_MOST_WORDS: Final = 16


@dataclass(frozen=True)
class Looks:
    """SHAP values (k, features) in log-odds of the refunds ``rows`` (k, features), by name."""

    names: tuple[str, ...]
    values: FloatArray
    rows: FloatArray
    currency: str

    def order(self) -> list[int]:
        """The places of features, those first that move the score most: mean absolute value."""
        weight = np.abs(self.values).mean(axis=0)
        return [int(place) for place in np.argsort(-weight, kind="stable")]

    def explanation(self) -> Any:
        """The same as the shap library takes it."""
        return shap.Explanation(
            self.values, np.zeros(len(self.values)), self.rows, feature_names=list(self.names)
        )


@contextmanager
def _leaving_no_trace() -> Iterator[None]:
    """The shap library draws from numpy's global state and opens figures of pyplot's: undo both."""
    state, open_before = np.random.get_state(), set(plt.get_fignums())
    np.random.seed(0)
    try:
        with warnings.catch_warnings():
            for expected in ("Adding colorbar to a different Figure", "All-NaN slice"):
                warnings.filterwarnings("ignore", expected)
            yield
    finally:
        np.random.set_state(state)
        for number in set(plt.get_fignums()) - open_before:
            plt.close(number)


def beeswarm(looks: Looks, most: int = SWARM) -> str:
    """A dot for each refund and feature: to the right it raised the risk, red is a high value."""
    shown = min(most, len(looks.names))
    with _leaving_no_trace(), drawing("swarm", 0.42 * shown + 0.6) as drawn:
        axes = drawn.figure.add_subplot()
        shap.plots.beeswarm(
            looks.explanation(), max_display=shown, ax=axes, show=False, plot_size=None, s=7,
            color_bar=False, group_remaining_features=False,
        )  # fmt: skip
        _own_colours(drawn.figure)
        left = axes.get_xlim()[0]
        for row, place in enumerate(reversed(looks.order()[:shown])):
            name = textwrap.shorten(capital(feature_sentence(looks.names[place])), 74)
            axes.text(left, row + 0.4, name, fontsize=7, va="bottom", clip_on=False)
        axes.set_yticks([])
        axes.set_ylim(-0.6, shown - 0.1)
        axes.set_xlabel("contribution to the risk, in log-odds", fontsize=8)
        axes.tick_params(labelsize=8)
    return drawn.svg


def _own_colours(figure: Any) -> None:
    """The page's colours and sizes in place of the library's, and its dots as pixels."""
    for axes in figure.axes:
        for dots in axes.collections:
            dots.set_rasterized(True)
        for line in axes.lines:
            line.set_color(COLOURS["grid"])
        axes.xaxis.label.set(color=COLOURS["ink"], size=8)
        axes.yaxis.label.set(color=COLOURS["ink"], size=8)
        axes.tick_params(colors=COLOURS["quiet"], labelcolor=COLOURS["ink"], labelsize=8)
        for spine in axes.spines.values():
            spine.set_color(COLOURS["quiet"])


def partner(looks: Looks, place: int) -> int | None:
    """The feature whose value best explains where this one says more or less; None without one.

    It is one of the `PARTNERS` that move the score most. Codes are left out: the order of their
    colours would mean nothing.
    """
    others = [i for i in looks.order()[:PARTNERS] if i != place and not _is_code(looks.names[i])
              and np.isfinite(looks.rows[:, i]).any()]  # fmt: skip
    if not others:
        return None
    chosen = [place, *others]
    ranked = shap.utils.approximate_interactions(0, looks.values[:, chosen], looks.rows[:, chosen])
    return chosen[next(int(i) for i in ranked if i != 0)]


def _is_code(name: str) -> bool:
    return name in BY_NAME and BY_NAME[name].unit == "code"


def dependence(looks: Looks, place: int, by: int | None) -> str:
    """What a feature's value does to the risk; coloured ``by`` another, if there is one.

    The axis leaves out the outermost 1 % of values. Unknown ones are drawn as ticks at its left.
    """
    name = looks.names[place]
    rows = looks.rows.copy()
    rows[:, place] = in_unit(rows[:, place], name, looks.currency)
    if by is not None:
        rows[:, by] = in_unit(rows[:, by], looks.names[by], looks.currency)
    explained = Looks(looks.names, looks.values, rows, looks.currency).explanation()
    low, high = _middle(rows[:, place])
    with _leaving_no_trace(), drawing(f"dependence{place}", 2.8) as drawn:
        axes = drawn.figure.add_subplot()
        shap.plots.scatter(
            explained[:, place], color=DOT_COLOUR if by is None else explained[:, by], ax=axes,
            show=False, hist=False, dot_size=7, alpha=0.8, xmin=low, xmax=high,
        )  # fmt: skip
        _own_colours(drawn.figure)
        axes.axhline(0, color=COLOURS["quiet"], linewidth=0.8)
        axes.set_xlabel(feature_unit(name, looks.currency))
        axes.set_ylabel("contribution, log-odds")
        for bar in drawn.figure.axes[1:]:
            bar.set_ylabel("")
        if _is_code(name):
            _words(axes, name, rows[:, place])
    return drawn.svg


def in_unit(values: FloatArray, name: str, currency: str) -> FloatArray:
    """Values (n,) as the axis shows them: money in whole units, shares in per cent.

    >>> in_unit(np.array([1250.0, np.nan]), "payable_minor", "GBP").tolist()
    [12.5, nan]
    """
    unit = BY_NAME[name].unit if name in BY_NAME else "count"
    scale = {"minor": 10.0 ** -MINOR_UNIT_DIGITS[currency], "share": 100.0}.get(unit, 1.0)
    return values * scale


def _middle(values: FloatArray) -> tuple[float | None, float | None]:
    """The bounds of the middle 99 % of known values, a little wider; None where they are one."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None, None
    low, high = np.percentile(known, [(100 - _MIDDLE_SHARE) / 2, (100 + _MIDDLE_SHARE) / 2])
    room = 0.03 * (high - low)
    return (float(low - room), float(high + room)) if room > 0 else (None, None)


def _words(axes: Any, name: str, values: FloatArray) -> None:
    """Name the places of a coded axis by their words."""
    expression = BY_NAME[name].expression
    if not (isinstance(expression, Field | Aggregate) and expression.column):
        return
    words: Sequence[str] = CODES[expression.column]
    seen = np.unique(values[np.isfinite(values)]).astype(int).tolist()
    if len(seen) > _MOST_WORDS:
        return
    said = [words[code] if code < len(words) else "(another)" for code in seen]
    lying = {"rotation": 55, "ha": "right", "rotation_mode": "anchor"} if len(seen) > 4 else {}
    axes.set_xticks(seen, [word.replace("_", " ").lower() for word in said], fontsize=7, **lying)
    axes.set_xlim(seen[0] - 0.7, seen[-1] + 0.7)
    axes.set_xlabel("")
