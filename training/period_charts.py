"""The charts of the report on a period: inline SVG in the page's colours, as `training.charts`.

What is named in a chart is the program's own; words of records stand in tables alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np

from features.money import DAY_MS
from rules.decision import Action
from serving.codes import name_of_code
from serving.explanation.words import action_name
from serving.language import Language
from training.charts import COLOURS, drawing
from training.period_labels import Month, Reviewed

if TYPE_CHECKING:
    from training.period import Driver, PeriodReport
    from training.period_drift import Moved

COLOUR_OF: Final = {
    Action.ALLOW: "third", Action.REVIEW: "fourth", Action.MANUAL_REVIEW: "second",
    Action.PREVENT: "fifth",
}  # fmt: skip
MOST_DRIVERS: Final = 14
LEAST_LABELS: Final = 30
"""Of a month with fewer labels no share is drawn: its interval would hide the others."""
MOST_NUMBERED: Final = 12
"""So many features of the drift's picture bear the numbers that they have in the table."""


def actions(report: PeriodReport, language: Language) -> str:
    """How many refunds got which action, by day or week, over both periods."""
    width = report.slice_days * 0.86
    at = np.array([one.since for one in report.slices]) / DAY_MS
    with drawing("actions", 3.1) as drawn:
        axes = drawn.figure.add_subplot()
        bottom = np.zeros(len(at))
        for action in (Action.ALLOW, Action.REVIEW, Action.MANUAL_REVIEW, Action.PREVENT):
            count = np.array([one.actions.get(action, 0) for one in report.slices], float)
            if not count.any():
                continue
            axes.bar(at, count, width, bottom, align="edge", color=COLOURS[COLOUR_OF[action]],
                     label=action_name(action.value, language))  # fmt: skip
            bottom += count
        top = max(1.0, float(bottom.max(initial=0)) * 1.12)
        border = report.now.since / DAY_MS
        axes.axvline(border, color=COLOURS["ink"], linewidth=1, linestyle="dashed")
        axes.annotate(language.say("this period →"), (border, top), (4, -2), va="top",
                      textcoords="offset points", fontsize=7.5)  # fmt: skip
        end = report.now.until / DAY_MS
        axes.set(xlim=(report.before.since / DAY_MS, max(end, at[-1] + width)), ylim=(0, top),
                 ylabel=language.say("refunds a day") if report.slice_days == 1
                 else language.say("refunds a week"))  # fmt: skip
        ticks = np.linspace(report.before.since, report.now.until, 5)[:4]
        axes.set_xticks(ticks / DAY_MS, [language.day(int(one)) for one in ticks], fontsize=7.5)
        _counts(axes.yaxis, language)
        axes.grid(axis="x", visible=False)
        drawn.figure.legend(loc="outside lower left", ncols=4, fontsize=7.5)
    return drawn.svg


def drivers(each: Sequence[Driver], language: Language) -> str:
    """What the heaviest reason codes add in the mean, before and now."""
    shown = each[:MOST_DRIVERS]
    with drawing("drivers", 0.8 + 0.3 * len(shown)) as drawn:
        axes = drawn.figure.add_subplot()
        place = np.arange(len(shown))
        was, now = (np.array([getattr(one, name) for one in shown])
                    for name in ("mean_before", "mean"))  # fmt: skip
        axes.axvline(0, color=COLOURS["ink"], linewidth=0.8)
        axes.hlines(place, np.fmin(was, now), np.fmax(was, now), color=COLOURS["quiet"],
                    linewidth=1.4)  # fmt: skip
        axes.plot(was, place, "o", color=COLOURS["quiet"], markersize=4, markerfacecolor="none",
                  label=language.say("period before"))  # fmt: skip
        axes.plot(now, place, "o", color=COLOURS["first"], markersize=4.5,
                  label=language.say("this period"))  # fmt: skip
        names = [fill(name_of_code(one.code, language), 24) for one in shown]
        axes.set_yticks(place, names, fontsize=7.5, linespacing=0.95)
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
        axes.invert_yaxis()
        axes.set_xlabel(language.say("mean weight; to the right it raises the risk"))
        axes.xaxis.set_major_formatter(lambda value, _: language.signed(value))
        drawn.figure.legend(loc="outside lower right", ncols=2, fontsize=7.5)
    return drawn.svg


def drift(features: Sequence[Moved], language: Language) -> str:
    """How far features moved, against how much the model looks at them."""
    times = np.array([one.drift.times for one in features])
    share = np.array([one.share or 0.0 for one in features])
    surely = np.array([one.surely for one in features])
    x = np.clip(times, 0.03, None)
    with drawing("drift", 3.3) as drawn:
        axes = drawn.figure.add_subplot()
        axes.axvline(1, color=COLOURS["ink"], linewidth=0.9, linestyle="dashed",
                     label=language.say("a feature's threshold"))  # fmt: skip
        axes.plot(x[~surely], share[~surely], "o", color=COLOURS["quiet"], markersize=3,
                  label=language.say("may be chance"))  # fmt: skip
        axes.plot(x[surely], share[surely], "o", color=COLOURS["second"], markersize=4.5,
                  label=language.say("surely moved"))  # fmt: skip
        for i in range(min(MOST_NUMBERED, int((times > 1).sum()))):
            axes.annotate(language.count(i + 1), (x[i], share[i]), (4, 3),
                          textcoords="offset points", fontsize=7)  # fmt: skip
        axes.set_xscale("log")
        axes.set(xlabel=language.say("how far it moved, in units of its threshold"),
                 ylabel=language.say("share of the model"), ylim=(0, None))  # fmt: skip
        axes.xaxis.set_major_formatter(lambda value, _: language.number(value, int(value < 1)))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.yaxis.set_major_formatter(lambda value, _: language.share(value, int(value < 0.01)))
        drawn.figure.legend(loc="outside lower left", ncols=3, fontsize=7.5)
    return drawn.svg


def months(each: Sequence[Month], language: Language) -> str:
    """Predicted and observed share of abuse by month, over how many labels that is."""
    known = [(i, one.fit) for i, one in enumerate(each) if one.fit.refunds >= LEAST_LABELS]
    with drawing("months", 3.6) as drawn:
        above, below = drawn.figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
        place = np.array([i for i, _ in known], float)
        observed = np.array([fit.observed for _, fit in known])
        low, high = (np.array([getattr(fit.interval, end) for _, fit in known])
                     for end in ("low", "high"))  # fmt: skip
        above.errorbar(
            place, observed, [np.maximum(observed - low, 0), np.maximum(high - observed, 0)],
            fmt="o", markersize=4, capsize=2, color=COLOURS["first"],
            label=language.say("turned out as abuse, 95 %"),
        )  # fmt: skip
        above.plot(place, [fit.predicted for _, fit in known], "D", markersize=5, color="none",
                   markeredgecolor=COLOURS["second"], label=language.say("predicted"))  # fmt: skip
        above.set(ylim=(0, None), ylabel=language.say("share of abuse"))
        _shares(above.yaxis, language)
        bottom = np.zeros(len(each))
        for name, colour, label in (
            ("labelled", "first", language.say("with a label")),
            ("censored", "quiet", language.say("not paid, no label")),
            ("immature", "grid", language.say("too young")),
        ):
            count = np.array([getattr(one, name) for one in each], float)
            below.bar(np.arange(len(each)), count, 0.7, bottom, color=COLOURS[colour], label=label)
            bottom += count
        below.set(ylabel=language.say("refunds"), xlim=(-0.6, max(len(each), 1) - 0.4))
        below.set_xticks(np.arange(len(each)), [one.month for one in each], fontsize=7.5)
        _counts(below.yaxis, language)
        below.grid(axis="x", visible=False)
        drawn.figure.legend(loc="outside lower left", ncols=3, fontsize=7.5)
    return drawn.svg


def reliability(bins: Sequence[dict[str, float]], language: Language) -> str:
    """Predicted against observed share of abuse, by bin of probability, with 95 % intervals."""
    x, y, low, high = (np.array([one[key] for one in bins])
                       for key in ("predicted", "observed", "low", "high"))  # fmt: skip
    with drawing("reliability", 3.6) as drawn:
        axes = drawn.figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=COLOURS["quiet"], linewidth=0.9, linestyle="dashed",
                  label=language.say("as predicted"))  # fmt: skip
        axes.errorbar(x, y, [np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt="o",
                      markersize=4, capsize=2, color=COLOURS["first"],
                      label=language.say("turned out as abuse, 95 %"))  # fmt: skip
        axes.set_xscale("function", functions=(_root, np.square))
        axes.set_yscale("function", functions=(_root, np.square))
        ticks = [0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1]
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks,
                 xlabel=language.say("probability of abuse that the model says"),
                 ylabel=language.say("share that turned out as abuse"))  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            _shares(axis, language)
        axes.legend(loc="upper left", fontsize=7.5)
    return drawn.svg


def bands(each: Sequence[Reviewed], names: Sequence[str], language: Language) -> str:
    """What analysts confirmed of held refunds, against what the model said, by its bands."""
    known = np.array([i for i, one in enumerate(each) if one.reviewed], int)
    shown = [each[i] for i in known.tolist()]
    share, said = (np.array([getattr(one, name) for one in shown], float)
                   for name in ("share", "predicted"))  # fmt: skip
    low, high = (np.array([getattr(one.interval, end) for one in shown], float)
                 for end in ("low", "high"))  # fmt: skip
    with drawing("bands", 2.9) as drawn:
        axes = drawn.figure.add_subplot()
        axes.bar(known, share, 0.62, color=COLOURS["first"], alpha=0.55,
                 label=language.say("confirmed by analysts, 95 %"))  # fmt: skip
        axes.errorbar(known, share, [np.maximum(share - low, 0), np.maximum(high - share, 0)],
                      fmt="none", ecolor=COLOURS["ink"], capsize=2, linewidth=1)  # fmt: skip
        axes.plot(known, said, "D", markersize=5, color="none",
                  markeredgecolor=COLOURS["second"], label=language.say("predicted"))  # fmt: skip
        axes.set_xticks(np.arange(len(each)), names, fontsize=7)
        axes.set(ylim=(0, 1), xlim=(-0.6, len(each) - 0.4),
                 xlabel=language.say("probability of abuse that the model says"))  # fmt: skip
        _shares(axes.yaxis, language)
        axes.grid(axis="x", visible=False)
        drawn.figure.legend(loc="outside lower left", ncols=2, fontsize=7.5)
    return drawn.svg


def _root(values: Any) -> Any:
    return np.sqrt(np.maximum(values, 0))


def _shares(axis: Any, language: Language) -> None:
    axis.set_major_formatter(lambda value, _: language.share(value))


def _counts(axis: Any, language: Language) -> None:
    axis.set_major_formatter(lambda value, _: language.count(value))
