"""The page of a report on a period: one HTML file that needs nothing else.

What is said lies in `training.period_text`, what is drawn in `training.period_charts`, how it is
laid out in ``templates/period.html.j2``. All text is data, so it is escaped, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any, Final

from markupsafe import Markup

from features.catalog import BY_NAME
from rules.decision import Action
from serving.codes import name_of_code
from serving.explanation.words import action_name, source_name
from serving.language import ENGLISH, Language
from serving.pages import environment
from training import period_charts as charts
from training import period_text as words
from training.page import TEMPLATES
from training.period import PeriodReport
from training.period_labels import BANDS, LEAST_COSTED

MOST_ROWS: Final = 20
"""Of a long table so many rows are shown; the JSON of the report has all."""

_COLUMNS: Final = (Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT)


def page(report: PeriodReport, language: Language = ENGLISH) -> str:
    """The page of a report, as HTML."""
    made = environment(TEMPLATES, language=language)
    made.filters |= {
        "action": lambda one: action_name(one.value, language),
        "source": partial(_source, language=language),
        "code": lambda one: name_of_code(one, language),
        "money": lambda minor: language.money(minor, report.currency),
    }
    return made.get_template("period.html.j2").render(
        r=report,
        now=report.now,
        before=report.before,
        title=words.title(report, language),
        headline=words.headline(report, language),
        findings=tuple(words.findings(report, language)),
        tiles=_tiles(report, language),
        expected=words.expected(report, language),
        prevented=words.prevented(report, language),
        rules=report.rules[:MOST_ROWS],
        actions=_COLUMNS,
        divisions=_divisions(report, language),
        drivers=report.drivers[:MOST_ROWS],
        movers=[words.mover(one, language) for one in words.movers(report)],
        told=report.told[:MOST_ROWS],
        said_by=_said_by(language),
        drift_in_short=words.drift_in_short(report, language),
        features=report.drift.features[:MOST_ROWS],
        median=partial(_median, currency=report.currency, language=language),
        score_problem=_score_problem(report, language),
        calibration=words.calibration_in_short(report, language),
        whole=words.fit_in_words(report.calibration.whole, language),
        reviews=words.reviews_in_short(report, language),
        bands=_bands(language),
        charts={name: Markup(svg) for name, svg in _charts(report, language).items()},
        most=MOST_ROWS,
        least_costed=LEAST_COSTED,
    )


def _charts(report: PeriodReport, language: Language) -> dict[str, str]:
    """The pictures by name, those left out of which there is nothing to see."""
    found = {}
    if report.now.refunds or report.before.refunds:
        found["actions"] = charts.actions(report, language)
    if report.drivers:
        found["drivers"] = charts.drivers(report.drivers, language)
    if report.drift.features:
        found["drift"] = charts.drift(report.drift.features, language)
    if report.calibration.bins:
        found["months"] = charts.months(report.calibration.months, language)
        found["reliability"] = charts.reliability(report.calibration.bins, language)
    if report.reviews.whole.reviewed:
        found["bands"] = charts.bands(report.reviews.bands, _bands(language), language)
    return found


def _tiles(report: PeriodReport, language: Language) -> list[tuple[str, str, str]]:
    """What a tile is on, its amount, and what stands below: how many, and what it was before."""
    say, money, share = language.say, language.money, language.share
    now, before = report.now, report.before

    def tile(name: str, action: Action) -> tuple[str, str, str]:
        below = say(
            "{share} of the refunds, before {before}", share=share(now.whole.share(action), 1),
            before=share(before.whole.share(action), 1),
        )  # fmt: skip
        return name, money(now.whole.part(action).minor, report.currency), below

    was = money(before.whole.whole.minor, report.currency)
    return [
        (say("Asked back"), money(now.whole.whole.minor, report.currency),
         say("before {amount}", amount=was)),
        tile(say("Allowed"), Action.ALLOW),
        tile(say("Held for review"), Action.MANUAL_REVIEW),
        tile(say("Prevented"), Action.PREVENT),
    ]  # fmt: skip


def _divisions(report: PeriodReport, language: Language) -> list[dict[str, Any]]:
    """Refunds by who had the last word and by channel: rows of (name, group, refunds before)."""
    say = language.say
    found = []
    for caption, head, column in (
        (say("By what had the last word"), say("Decided by"), "sources"),
        (say("By channel"), say("Channel"), "channels"),
    ):
        was = {one.name: one.whole.refunds for one in getattr(report.before, column)}
        rows = [
            (_source(one.name, language) or say("Not told"), one, was.get(one.name, 0))
            for one in getattr(report.now, column)
        ]
        found.append({"caption": caption, "head": head, "rows": rows[:MOST_ROWS]})
    return found


def _median(name: str, value: float, *, currency: str, language: Language) -> str:
    """A feature's median as it is read; of words and of yes or no it says nothing."""
    unit = BY_NAME[name].unit if name in BY_NAME else "ratio"
    return "–" if unit in ("code", "flag") else language.value(value, unit, currency)


def _source(name: str, language: Language) -> str:
    """What made decisions, at the head of a row; another word as it stands."""
    said = source_name(name, language)
    return said if said == name else said[:1].upper() + said[1:]


def _said_by(language: Language) -> Mapping[str, str]:
    return {"model": language.say("the model"), "rule": language.say("a rule"),
            "list": language.say("a list")}  # fmt: skip


def _bands(language: Language) -> list[str]:
    """The bands of probability, as a reader calls them."""
    return [
        language.say(
            "{low}–{high} %", low=language.number(100 * low), high=language.number(100 * high)
        )
        for low, high in pairwise(BANDS)
    ]


def _score_problem(report: PeriodReport, language: Language) -> str | None:
    problem = report.drift.score_problem
    return None if problem is None else words.problem_in_words(problem, language)
