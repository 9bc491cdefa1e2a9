"""The dashboard: what waits now, what was answered and paid, and how right rules and model are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from starlette.responses import Response

from features.money import DAY_MS
from serving import figures, jobs
from serving.console import dashboard_plots as drawn
from serving.console.dashboard_plots import Document, Plot
from serving.console.visit import Page, Visit
from serving.figures import MADE_ANEW_MS, PERIODS, USUAL, Figures, Reported
from serving.language import Language
from serving.wire import InvalidRequest, Problem, shown

LEAST_CHANGE: Final = 0.005
"""A change of less is told as none."""


class Tile(NamedTuple):
    """A figure: what it is, how much, and what is said below it."""

    name: str
    value: str
    below: str
    is_bad: bool = False


class Part(NamedTuple):
    """A part of the page: what is said at its head, and its plots."""

    id: str
    title: str
    plots: list[Plot]
    said: str = ""


def show(visit: Visit) -> Response:
    """The figures of a period, by default of 30 days."""
    text = visit.query.get("days", str(USUAL)).strip()
    if text not in map(str, PERIODS):
        wanted = ", ".join(map(str, PERIODS))
        problem = Problem("days", f"must be one of {wanted}", shown(text))
        return _page(visit, USUAL, [problem], status=422)
    return _page(visit, int(text))


def make(visit: Visit) -> Response:
    """Have the report on a period made now."""
    text = visit.form.text("days")
    if text not in map(str, PERIODS):
        wanted = ", ".join(map(str, PERIODS))
        problem = Problem("days", f"must be one of {wanted}", shown(text))
        return _page(visit, USUAL, [problem], status=422)
    try:
        figures.ask_for(visit.desk.store, int(text), visit.at, by=visit.account.name, via=visit.via)
    except InvalidRequest as error:
        return _page(visit, int(text), list(error.problems), status=422)
    return visit.to("/dashboard", days=text, told="asked")


CALLS: Final = (
    Page("GET", "/dashboard", "read", show),
    Page("POST", "/dashboard", "review", make),
)


def _page(
    visit: Visit, days: int, problems: list[Problem] | None = None, status: int = 200
) -> Response:
    store, language = visit.desk.store, visit.language
    period = figures.period_of(store, days, visit.at)
    live = figures.figures_of(store, period)
    found = figures.reported(store, days)
    document = found.document
    currency = visit.desk.rates.base
    return visit.page(
        "dashboard.html.j2",
        status=status,
        problems=problems or [],
        days=days,
        period=period,
        periods=[(n, language.duration(float(n)) if n < 365 else language.say("1 year"))
                 for n in PERIODS],
        now=list(_live_tiles(live, currency, language)),
        made=_made(visit, found, days),
        failed=jobs.problem_of(found.failed, "live" if visit.store_name == "live" else "test",
                               language) if found.failed else None,
        changes=list(_changes(document, language)) if document else [],
        sums=list(_money_tiles(document, language)) if document else [],
        parts=[*_reported_parts(document, language), _reviews_part(live, language)]
        if document else [_reviews_part(live, language)],
        later=_later_parts(document, language) if document else [],
        analysts=live.analysts if visit.may("audit") else (), is_timed=live.is_timed,
        report=found.job.id if found.job else None,
    )  # fmt: skip


def _made(visit: Visit, found: Reported, days: int) -> list[str]:
    """How the report stands: as of when, and what is under way."""
    say, language = visit.language.say, visit.language
    said = []
    if found.job is not None:
        often = language.duration(MADE_ANEW_MS[days] / DAY_MS)
        said.append(say(
            "Figures of decisions are as of {when}; they are made anew when they are {age} old. "
            "The queue and the answers of analysts are as of now.",
            when=language.instant(int(found.job.arguments["until"])), age=often,
        ))  # fmt: skip
    if found.pending is not None:
        since = language.instant(found.pending.asked_at)
        said.append(
            say("They are being made since {when}: look again in a minute.", when=since)
            if found.pending.begun_at is not None
            else say("They were asked for at {when} and wait for their turn.", when=since)
        )
    elif found.job is None:
        said.append(say("Figures of decisions were not made yet: it takes a minute or so, and is "
                        "done by itself once there are decisions."))  # fmt: skip
    return said


# --- figures first -----------------------------------------------------------------------------


def _live_tiles(of: Figures, currency: str, language: Language) -> Iterator[Tile]:
    say, at = language.say, of.period.until
    waits, below = of.waits, say("nothing waits")
    if waits.oldest_at is not None:
        below = say("{amount} at stake, the oldest for {time}",
                    amount=language.money(waits.at_stake_minor, currency),
                    time=language.duration((at - waits.oldest_at) / DAY_MS))  # fmt: skip
    if waits.unknown:
        below += "; " + language.say_of(waits.unknown, "of {value} nobody can say how much",
                                        "of {value} nobody can say how much")  # fmt: skip
    yield Tile(say("Waiting now"), language.count(waits.cases), below)
    if of.is_timed:
        yield from _timed_tiles(of, language)
    yield Tile(say("Decided today"), language.count(of.decided_today),
               say("decisions since midnight UTC"))  # fmt: skip


def _timed_tiles(of: Figures, language: Language) -> Iterator[Tile]:
    say, waits = language.say, of.waits
    yield Tile(
        say("Overdue now"), language.count(waits.overdue),
        say("{share} of what waits", share=language.share(waits.overdue / waits.cases))
        if waits.cases else say("nothing waits"), waits.overdue > 0,
    )  # fmt: skip
    answered, late = of.total("answered"), of.total("late")
    yield Tile(
        say("Answered in time"),
        language.share(1 - late / answered) if answered else "–",
        say("{answered} answered, {late} late", answered=language.count(answered),
            late=language.count(late)),
    )  # fmt: skip
    yield Tile(
        say("Time to an answer"),
        language.duration(of.hours / 24) if of.hours is not None else "–",
        say("half of the answers took less"),
    )


def _money_tiles(of: Document, language: Language) -> Iterator[Tile]:
    say, now, before = language.say, of["now"], of["before"]

    def tile(name: str, column: str, more: str = "") -> Tile:
        amount, was = now["money"][column], before["money"][column]
        below = say("{change}; before {amount}", change=_change(amount, was, language),
                    amount=language.money(was, of["currency"]))  # fmt: skip
        return Tile(name, language.money(amount, of["currency"]), f"{below}. {more}".rstrip(". "))

    unknown = now["amount_unknown"]
    yield tile(say("Asked back"), "asked_minor", language.say_of(
        unknown, "Of {value} nobody can say how much", "Of {value} nobody can say how much",
    ) if unknown else "")  # fmt: skip
    yield tile(say("Asked back, of what is paid by now"), "paid_minor")
    yield tile(say("Held for review"), "held_minor",
               say("What people answered is told under Reviews"))  # fmt: skip
    yield tile(say("Prevented at once"), "prevented_minor")
    yield tile(say("Loss prevented, expected"), "loss_prevented_minor")


def _changes(of: Document, language: Language) -> Iterator[str]:
    """What is other than in the period before, in sentences; what matters most first."""
    say, now, before = language.say, of["now"], of["before"]
    length = language.duration(drawn.days_of(now["since"], now["until"]))
    if not before["refunds"]:
        yield language.say_of(now["refunds"], "{value} refund was decided; none in the {length} "
                              "before.", "{value} refunds were decided; none in the {length} "
                              "before.", length=length)  # fmt: skip
    else:
        change = _change(now["refunds"], before["refunds"], language)
        yield language.say_of(now["refunds"], "{value} refund was decided, {change} than in the "
                              "{length} before.", "{value} refunds were decided, {change} than in "
                              "the {length} before.", change=change, length=length)  # fmt: skip
        for action in ("MANUAL_REVIEW", "PREVENT"):
            yield _answered(of, action, language)
    if now["degraded"]:
        yield say("{share} of the refunds were decided without the model, before {before}.",
                  share=_rate(now["degraded"], now["refunds"], language),
                  before=_rate(before["degraded"], before["refunds"], language))  # fmt: skip
    surely = of["drift"]["features_surely_drifted"]
    if surely:
        yield language.say_of(surely, "{value} feature of the model surely drifted.",
                              "{value} features of the model surely drifted.")  # fmt: skip
    fit = of["calibration"]["whole"]
    if fit["fits"] is False:
        yield say("The model predicted {predicted} abuse and {observed} turned out so.",
                  predicted=language.share(fit["predicted"], 1),
                  observed=language.share(fit["observed"], 1))  # fmt: skip


def _answered(of: Document, action: str, language: Language) -> str:
    """How many got an answer, against the period before."""
    nothing = {"refunds": 0}
    n, was = (of[which]["actions"].get(action, nothing)["refunds"] for which in ("now", "before"))
    values = {
        "change": _change(n, was, language), "share": _rate(n, of["now"]["refunds"], language),
        "before": _rate(was, of["before"]["refunds"], language),
    }  # fmt: skip
    if action == "PREVENT":
        return language.say_of(
            n, "{value} was prevented, {change} than before: {share} of all, before {before}.",
            "{value} were prevented, {change} than before: {share} of all, before {before}.",
            **values,
        )  # fmt: skip
    return language.say_of(
        n, "{value} was held for review, {change} than before: {share} of all, before {before}.",
        "{value} were held for review, {change} than before: {share} of all, before {before}.",
        **values,
    )  # fmt: skip


def _change(now: float, before: float, language: Language) -> str:
    """How much more or less, in words that "than before" goes on.

    >>> from serving.language import ENGLISH
    >>> [_change(*of, ENGLISH) for of in ((112, 100), (50, 100), (100, 100), (5, 0))]
    ['12 % more', '50 % less', 'no more or less', 'more']
    """
    if not before:
        return language.say("more") if now else language.say("no more or less")
    by = now / before - 1
    if abs(by) < LEAST_CHANGE:
        return language.say("no more or less")
    if by > 0:
        return language.say("{share} more", share=language.share(by))
    return language.say("{share} less", share=language.share(-by))


def _rate(number: int, whole: int, language: Language) -> str:
    return language.share(number / whole, 1) if whole else "–"


# --- plots -------------------------------------------------------------------------------------


def _reported_parts(of: Document, language: Language) -> list[Part]:
    say = language.say
    return [
        Part("volumes", say("Decisions"), drawn.volumes(of, language),
             "" if of["now"]["degraded"] else
             say("Every refund of the period was decided with the model.")
             if of["now"]["refunds"] else say("No refund was decided in this period.")),
        Part("money", say("Money"), drawn.money(of, language)),
    ]  # fmt: skip


def _reviews_part(of: Figures, language: Language) -> Part:
    said = "" if of.total("answered") else language.say("No analyst answered in this period.")
    return Part("reviews", language.say("Reviews"), drawn.reviews(of, language), said)


def _later_parts(of: Document, language: Language) -> list[Part]:
    say = language.say
    rules, model, drift = (
        draw(of, language) for draw in (drawn.rules, drawn.model, drawn.drift)
    )  # fmt: skip
    return [
        Part("rules", say("Rules"), rules, "" if rules else say("No rule hit in this period.")),
        Part("model", say("The model"), model, _ranked(of, language)),
        Part("drift", say("Drift"), drift, "" if drift else
             say("Of drift nothing can be told: the two periods have too few customers, or were "
                 "not scored by the same features.")),
    ]  # fmt: skip


def _ranked(of: Document, language: Language) -> str:
    ranked = of["calibration"].get("ranked")
    if ranked is None:
        return language.say("No refund has a mature label yet, or all labels are of one kind.")
    return language.say(
        "Average precision is {value} (95 %: {low} to {high}) over {refunds} with a label; by "
        "chance it would be {chance}.", value=language.number(ranked["average_precision"], 2),
        low=language.number(ranked["interval"]["low"], 2),
        high=language.number(ranked["interval"]["high"], 2),
        refunds=language.say_of(ranked["refunds"], "{value} refund", "{value} refunds"),
        chance=language.number(ranked["prevalence"], 2),
    )  # fmt: skip
