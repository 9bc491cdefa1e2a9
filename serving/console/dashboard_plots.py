"""What the dashboard draws: live figures and the report on a period, as plots with their tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from markupsafe import Markup

from features.money import DAY_MS, MINOR_UNIT_DIGITS
from serving import plots
from serving.codes import name_of_code
from serving.explanation.words import action_name
from serving.figures import Figures
from serving.language import Language
from serving.plots import Axis, Estimate, Kind, Row, Series
from serving.seen import seen

Document: TypeAlias = Mapping[str, Any]
"""The report on a period as `training.period.PeriodReport.to_json` gives it."""

MOST_ROWS: Final = 10
"""Of rules and features so many are drawn; their tables have more."""

MOST_TABLED: Final = 30

_KIND_OF: Final[dict[str, Kind]] = {
    "ALLOW": "good", "MANUAL_REVIEW": "wait", "REVIEW": "other", "PREVENT": "bad",
}  # fmt: skip
_ANSWERS: Final = ("ALLOW", "REVIEW", "MANUAL_REVIEW", "PREVENT")


class Key(NamedTuple):
    """A line of a legend: what it looks like, its name, and what is said of it."""

    swatch: Markup
    name: str
    said: str = ""


class Plot(NamedTuple):
    """A plot: its title, the unit of its axis, drawing, legend, and the same as a table.

    The first cell of a row names it. ``note`` says what is to be known to read it.
    """

    title: str
    unit: str
    drawing: Markup
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    keys: Sequence[Key] = ()
    note: str = ""


# --- volumes and money -------------------------------------------------------------------------


def volumes(of: Document, language: Language) -> list[Plot]:
    """What was answered over time, and how much of it without the model."""
    say, slices = language.say, _slices(of)
    slots = [language.short_day(one["since"]) for one in slices]
    answers = [a for a in _ANSWERS if any(a in one["actions"] for one in slices)]
    refunds = of["now"]["refunds"]
    series = []
    for answer in answers:
        values = [one["actions"].get(answer, 0) for one in slices]
        said = _part(sum(values), refunds, language)
        series.append(Series(_name(answer, language), _KIND_OF[answer], values, said))
    axis = _counts([one["refunds"] for one in slices], language)
    unit = _unit(of, say("refunds a day"), say("refunds a week"))
    head = [_when(of, language), say("Refunds"), *(one.name for one in series)]
    rows = [
        [slots[i], language.count(one["refunds"]),
         *(language.count(each.values[i]) for each in series)]
        for i, one in enumerate(slices)
    ]  # fmt: skip
    label = say(
        "Stacked bars of {unit}: {refunds} in all, of which {parts}.", unit=unit,
        refunds=language.count(refunds), parts=_told(series, language) or say("none"),
    )  # fmt: skip
    found = [Plot(say("What was answered"), unit, plots.bars("volume", slots, series, axis, label),
                  head, rows, _keys(series))]  # fmt: skip
    if of["now"]["degraded"]:
        found.append(_degraded(slices, slots, refunds, unit, language))
    return found


def _degraded(
    slices: Sequence[Document], slots: Sequence[str], refunds: int, unit: str, language: Language
) -> Plot:
    say = language.say
    parts: list[tuple[str, Kind, Callable[[Document], int]]] = [
        (say("answered by rules or lists"), "wait", lambda one: one["degraded"] - one["fallback"]),
        (say("answered by the fallback"), "bad", lambda one: one["fallback"]),
    ]
    series = [
        Series(name, kind, [max(0, part(one)) for one in slices],
               _part(sum(max(0, part(one)) for one in slices), refunds, language))
        for name, kind, part in parts
    ]  # fmt: skip
    totals = [sum(one.values[i] or 0 for one in series) for i in range(len(slots))]
    shares = [
        _share(totals[i] / one["refunds"] if one["refunds"] else None, language, 1)
        for i, one in enumerate(slices)
    ]
    label = say("Stacked bars of refunds decided without the model: {parts}.",
                parts=_told(series, language))  # fmt: skip
    rows = [
        [slots[i], *(language.count(one.values[i]) for one in series), shares[i]]
        for i in range(len(slots))
    ]
    return Plot(
        say("Decided without the model"), unit,
        plots.bars("degraded", slots, series, _counts(totals, language), label),
        [say("From"), *(one.name for one in series), say("Share of all")], rows, _keys(series),
        say("Without the model a decision rests on rules and lists; where these say nothing the "
            "policy's fallback answers."),
    )  # fmt: skip


def money(of: Document, language: Language) -> list[Plot]:
    """What was asked for and how it was answered; what is expected to be lost, and prevented."""
    say, slices, currency = language.say, _slices(of), of["currency"]
    slots = [language.short_day(one["since"]) for one in slices]
    whole = 10 ** MINOR_UNIT_DIGITS.get(currency, 2)

    def series(name: str, column: str, kind: Kind) -> Series:
        values = [one["money"][column] / whole for one in slices]
        return Series(name, kind, values, language.money(of["now"]["money"][column], currency))

    def drawn(
        title: str, each: Sequence[Series], others: Sequence[Series], note: str, *, is_stack: bool
    ) -> Plot:
        highest = [sum(one.values[i] or 0 for one in each) if is_stack
                   else max(one.values[i] or 0 for one in each)
                   for i in range(len(slots))]  # fmt: skip
        axis = _numbers(highest, language)
        label = say("{title}, in {unit}: {parts}.", title=title, unit=unit,
                    parts=_told(each, language))  # fmt: skip
        drawing = (plots.bars("money", slots, each, axis, label) if is_stack
                   else plots.lines(slots, each, axis, label))  # fmt: skip
        tabled = [*each, *others]
        rows = [
            [slots[i], *(language.money((one.values[i] or 0) * whole, currency) for one in tabled)]
            for i in range(len(slots))
        ]
        head = [_when(of, language), *(one.name for one in tabled)]
        return Plot(title, unit, drawing, head, rows, _keys(each, as_line=not is_stack), note)

    unit = _unit(of, say("{currency} a day", currency=currency),
                 say("{currency} a week", currency=currency))  # fmt: skip
    answered = [
        series(_name("ALLOW", language), "allowed_minor", "good"),
        series(_name("MANUAL_REVIEW", language), "held_minor", "wait"),
        series(_name("PREVENT", language), "prevented_minor", "bad"),
    ]
    expected = [
        series(say("loss prevented"), "loss_prevented_minor", "good"),
        series(say("loss expected in what was allowed"), "lost_minor", "bad"),
    ]
    costs = [
        series(say("honest customers refused"), "honest_minor", "wait"),
        series(say("reviews"), "review_minor", "other"),
    ]
    return [
        drawn(say("What was asked back, by its answer"), answered,
              [series(say("asked"), "asked_minor", "other"),
               series(say("of it of refunds paid by now"), "paid_minor", "other")],
              say("A refund counts on the day of the last decision on it, with what was asked. "
                  "Paid are those that were reported so by now, in part or whole, whatever was "
                  "answered first."),
              is_stack=True),
        drawn(say("Loss prevented and loss expected"), expected, costs,
              _loss_told(of, language), is_stack=False),
    ]  # fmt: skip


def _loss_told(of: Document, language: Language) -> str:
    """What loss prevented means, and what it is held against."""
    say, found, currency = language.say, of["now"]["money"], of["currency"]
    told = say(
        "What was prevented never shows what it would have been, so loss prevented is an "
        "expectation: the probability of abuse times the amount, over what was prevented; loss "
        "expected is the same over what was allowed. Against it stand, by the policy's costs, "
        "{honest} for honest customers who were refused ({multiple} times their amounts) and "
        "{reviews} for reviews ({each} each).",
        honest=language.money(found["honest_minor"], currency),
        multiple=language.count(of["costs"]["prevented_honest_multiple"]),
        reviews=language.money(found["review_minor"], currency),
        each=language.money(of["costs"]["review_minor"], currency),
    )  # fmt: skip
    if not found["unscored"]:
        return told
    return f"{told} " + language.say_of(
        found["unscored"],
        "{value} refund was prevented by a rule or a list without a probability, and counts as "
        "nothing prevented.",
        "{value} refunds were prevented by rules or lists without a probability, and count as "
        "nothing prevented.",
    )  # fmt: skip


# --- reviews -----------------------------------------------------------------------------------


def reviews(of: Figures, language: Language) -> list[Plot]:
    """What came to the queue and left it; and if any was answered, in time or not, and how."""
    say, slots = language.say, of.slots
    days = [language.short_day(one.since) for one in slots]
    is_daily = of.period.slot_days == 1
    unit = say("refunds a day") if is_daily else say("refunds a week")
    from_ = say("Day") if is_daily else say("Week from")

    def counted(name: str, kind: Kind, value: Callable[[Any], int], said: str = "") -> Series:
        values = [value(one) for one in slots]
        return Series(name, kind, values, said or language.count(sum(values)))

    flow = [
        counted(say("began to wait"), "bad", lambda one: one.opened),
        counted(say("answered or settled"), "good", lambda one: one.answered + one.otherwise),
        counted(say("waiting at the end"), "other", lambda one: one.backlog,
                language.count(of.waits.cases)),
    ]  # fmt: skip
    answered = of.total("answered")
    done = [
        counted(say("in time"), "good", lambda one: one.in_time,
                _part(of.total("in_time"), answered, language)),
        counted(say("late"), "bad", lambda one: one.late,
                _part(of.total("late"), answered, language)),
    ]  # fmt: skip
    are_hours = max([one.hours or 0 for one in slots], default=0) >= 1
    factor = 1 if are_hours else 60
    name = say("hours to an answer") if are_hours else say("minutes to an answer")
    taken = [None if one.hours is None else one.hours * factor for one in slots]
    times = [Series(name, "other", taken,
                    "" if of.hours is None else language.number(of.hours * factor, 1))]  # fmt: skip
    shares = [one.approved / one.answered if one.answered else None for one in slots]
    approved = [Series(say("approved"), "good", shares,
                       _part(of.total("approved"), answered, language))]  # fmt: skip

    def plot(
        title: str, in_: str, each: Sequence[Series], axis: Axis, said: Callable[[float], str],
        note: str = "", *, stacked: bool = False,
    ) -> Plot:  # fmt: skip
        label = say("{title}, in {unit}: {parts}.", title=title, unit=in_,
                    parts=_told(each, language))  # fmt: skip
        drawing = (plots.bars("answers", days, each, axis, label) if stacked
                   else plots.lines(days, each, axis, label))  # fmt: skip
        rows = [[days[i], *("–" if one.values[i] is None else said(one.values[i] or 0.0)
                            for one in each)] for i in range(len(days))]  # fmt: skip
        return Plot(title, in_, drawing, [from_, *(one.name for one in each)], rows,
                    _keys(each, as_line=not stacked), note)  # fmt: skip

    found = [
        plot(say("The queue"), unit, flow,
             _counts([v or 0 for one in flow for v in one.values], language), language.count,
             say("A refund that is decided again while it waits goes on waiting.")),
    ]  # fmt: skip
    if not answered:
        return found
    if of.is_timed:
        less = (say("hours, half of the answers took less") if are_hours else
                say("minutes, half of the answers took less"))  # fmt: skip
        found += [
            plot(say("Answers of analysts, in time or late"), unit, done,
                 _counts([one.answered for one in slots], language), language.count, stacked=True),
            plot(say("Time to an answer"), less, times,
                 _numbers([1, *(one or 0 for one in taken)], language),
                 lambda value: language.number(value, 1)),
        ]  # fmt: skip
    return [
        *found,
        plot(say("Share approved"), say("share of the answers"), approved,
             Axis((0, 0.25, 0.5, 0.75, 1), language.share), language.share),
    ]  # fmt: skip


# --- rules, model, drift -----------------------------------------------------------------------


def rules(of: Document, language: Language) -> list[Plot]:
    """How often rules hit, and how often they were right."""
    say, each = language.say, [one for one in of["rules"] if one["hits"]]
    if not each:
        return []
    shown = each[:MOST_ROWS]
    tabled = each[:MOST_TABLED]
    asked = [
        [_rule(one), _asks(one, language), language.count(one["hits"]),
         language.count(one["before"]), language.money(one["minor"], of["currency"]),
         language.count(one["called"])]
        for one in tabled
    ]  # fmt: skip
    judged = [
        [_rule(one), _of(one["approved"], one["answered"], language),
         _share(one["precision"], language), _span(one["precision_interval"], language),
         language.count(one["labelled"])]
        for one in tabled
    ]  # fmt: skip
    hits = [
        Row(_rule(one), language.count(one["hits"]), Estimate(one["hits"], None, None),
            "other" if one["mode"] == "shadow" else _KIND_OF.get(one["action"], "other"))
        for one in shown
    ]  # fmt: skip
    right = [
        Row(_rule(one), _precision(one, language),
            Estimate(one["precision"], one["precision_interval"]["low"],
                     one["precision_interval"]["high"]))
        for one in shown
    ]  # fmt: skip
    kinds = {
        "wait": _name("MANUAL_REVIEW", language), "bad": _name("PREVENT", language),
        "good": _name("ALLOW", language), "other": say("in the shadow, or another answer"),
    }  # fmt: skip
    drawn = {row.kind for row in hits}
    keys = [Key(plots.swatch(kind), name) for kind, name in _kinds(kinds) if kind in drawn]
    most = say("{rule}: {said}", rule=hits[0].name, said=hits[0].said)
    axis = _counts([one["hits"] for one in shown], language)
    ends = [one["precision_interval"]["high"] or 0 for one in shown]
    return [
        Plot(say("Refunds that a rule hit"), say("refunds of the period"),
             plots.levels("hits", hits, axis,
                          say("Bars of how many refunds each rule hit, the most first: {most}.",
                              most=most)),
             [say("Rule"), say("Asks for"), say("Hits"), say("Hits before"), say("Amount"),
              say("Answered so")],
             asked, keys,
             say("A refund may be hit by several rules. What a rule asks for is its colour and "
                 "pattern.")),
        Plot(say("How often a hit is abuse"), say("share of the hits with a label, 95 %"),
             plots.intervals(right, _shares([*ends, 0.1], language),
                             say("Dots with intervals: the share of each rule's labelled hits "
                                 "that are abuse. {first}: {said}.", first=right[0].name,
                                 said=right[0].said)),
             [say("Rule"), say("Overturned by analysts"), say("Precision"), say("95 %"),
              say("With a label")],
             judged, (),
             say("Over refunds of the period and of the months before it, as a label takes "
                 "{days} to mature. Overturned, in the table, are held refunds of the period that "
                 "an analyst approved.",
                 days=language.duration(of["calibration"]["maturity_days"]))),
    ]  # fmt: skip


def model(of: Document, language: Language) -> list[Plot]:
    """Whether probabilities can be believed, by month as labels mature."""
    say, months = language.say, of["calibration"]["months"]
    known = [one for one in months if one["fit"]["refunds"]]
    if not known:
        return []
    each = [
        Estimate(
            one["fit"]["observed"],
            one["fit"]["interval"]["low"],
            one["fit"]["interval"]["high"],
            one["fit"]["predicted"],
        )
        for one in known
    ]
    ends = [end or 0 for one in each for end in (one.high, one.other)]
    head = [say("Month"), say("Refunds"), say("With a label"), say("Abuse"), say("Predicted"),
            say("Observed"), say("95 %")]  # fmt: skip
    rows = [
        [one["month"], language.count(one["refunds"]), language.count(one["labelled"]),
         language.count(one["fit"]["abuse"]), _share(one["fit"]["predicted"], language, 1),
         _share(one["fit"]["observed"], language, 1), _span(one["fit"]["interval"], language, 1)]
        for one in months
    ]  # fmt: skip
    last = known[-1]
    label = say(
        "Dots with 95 % intervals of the share of abuse by month of decision, against diamonds for "
        "what the model predicted; in {month} {observed} against {predicted}.",
        month=last["month"], observed=_share(last["fit"]["observed"], language, 1),
        predicted=_share(last["fit"]["predicted"], language, 1),
    )  # fmt: skip
    keys = [Key(plots.swatch("other", as_line=True), say("turned out as abuse, 95 %")),
            Key(plots.swatch("bad", as_line=True, is_hollow=True), say("predicted"))]  # fmt: skip
    return [Plot(
        say("Predicted and observed abuse"), say("share of refunds with a label"),
        plots.estimates([one["month"] for one in known], each, _shares(ends, language), label),
        head, rows, keys,
        say("By month of decision; later months wait for their labels. A diamond within its "
            "interval can be believed."),
    )]  # fmt: skip


def drift(of: Document, language: Language) -> list[Plot]:
    """How far features moved from the period before, in units of their own thresholds."""
    say, features = language.say, of["drift"]["features"]
    if not features:
        return []
    shown = features[:MOST_ROWS]
    rows = [
        Row(one["name"],
            say("{times} times ({share})", times=language.number(one["times"], 1),
                share=_share(one["share_of_model"], language, 1)),
            Estimate(one["times"], None, None), "bad" if one["surely"] else "good")
        for one in shown
    ]  # fmt: skip
    head = [say("Feature"), say("PSI"), say("Threshold"), say("Surely moved"),
            say("Share of the model"), say("Tells of")]  # fmt: skip
    table = [
        [one["name"], language.number(one["psi"], 4), language.number(one["threshold"], 4),
         say("yes") if one["surely"] else say("no"), _share(one["share_of_model"], language, 1),
         name_of_code(one["reason_code"], language) if one["reason_code"] else "–"]
        for one in features[:MOST_TABLED]
    ]  # fmt: skip
    times = [one["times"] or 0 for one in shown]
    named: list[tuple[Kind, str]] = [
        ("bad", say("surely moved")), ("good", say("may be chance")),
    ]  # fmt: skip
    keys = [Key(plots.swatch(kind), name) for kind, name in named
            if any(row.kind == kind for row in rows)]  # fmt: skip
    label = say(
        "Bars of how far features moved, in units of their thresholds, the furthest first: "
        "{feature}, {said}.", feature=shown[0]["name"], said=rows[0].said,
    )  # fmt: skip
    axis = Axis.of(max([*times, 1.5]), str)
    return [Plot(
        say("How far features moved"),
        say("times the feature's own threshold, which is the line (and its share of the model)"),
        plots.levels("drift", rows, axis, label, line=1.0), head, table, keys,
        say("PSI from the period before to this one. A threshold is what chance comes to once in a "
            "hundred times; what surely moved did so further than chance would move any of "
            "{number} features.", number=language.count(len(features))),
    )]  # fmt: skip


# --- in words ----------------------------------------------------------------------------------


def _slices(of: Document) -> list[Document]:
    """Those of the period itself."""
    return [one for one in of["slices"] if one["since"] >= of["now"]["since"]]


def _when(of: Document, language: Language) -> str:
    return language.say("Day") if of["slice_days"] == 1 else language.say("Week from")


def _unit(of: Document, daily: str, weekly: str) -> str:
    return daily if of["slice_days"] == 1 else weekly


def _name(action: str, language: Language) -> str:
    return action_name(action, language)


def _rule(of: Document) -> str:
    return seen(str(of["rule_id"]), line=True)


def _asks(of: Document, language: Language) -> str:
    name = _name(of["action"], language)
    if of["mode"] != "shadow":
        return name
    return language.say("{action}, in the shadow", action=name)


def _precision(of: Document, language: Language) -> str:
    if not of["labelled"]:
        return language.say("no label yet")
    return language.say("{share} of {labelled}", share=_share(of["precision"], language),
                        labelled=language.count(of["labelled"]))  # fmt: skip


def _kinds(names: Mapping[str, str]) -> list[tuple[Kind, str]]:
    order: tuple[Kind, ...] = ("good", "wait", "bad", "other")
    return [(kind, names[kind]) for kind in order]


def _keys(each: Sequence[Series], *, as_line: bool = False) -> list[Key]:
    return [Key(plots.swatch(one.kind, as_line=as_line), one.name, one.said) for one in each]


def _told(each: Sequence[Series], language: Language) -> str:
    return language.listed([f"{one.name} {one.said}".strip() for one in each]) if each else ""


def _part(number: float, whole: float, language: Language) -> str:
    """A count, and the share of all that it is.

    >>> from serving.language import ENGLISH
    >>> _part(3, 12, ENGLISH), _part(0, 0, ENGLISH)
    ('3 (25 %)', '0')
    """
    if not whole:
        return language.count(number)
    share = number / whole
    return language.say("{count} ({share})", count=language.count(number),
                        share=_share(share, language, int(0 < share < 0.1)))  # fmt: skip


def _of(number: int, whole: int, language: Language) -> str:
    if not whole:
        return "–"
    return language.say("{number} of {whole}", number=language.count(number),
                        whole=language.count(whole))  # fmt: skip


def _share(value: float | None, language: Language, digits: int = 0) -> str:
    return "–" if value is None else language.share(value, digits)


def _span(of: Document, language: Language, digits: int = 0) -> str:
    if of["low"] is None or of["high"] is None:
        return "–"
    return language.say("{low} to {high}", low=language.share(of["low"], digits),
                        high=language.share(of["high"], digits))  # fmt: skip


def _counts(values: Sequence[float], language: Language) -> Axis:
    return Axis.of(max(values, default=0), language.count, is_whole=True)


def _shares(values: Sequence[float | None], language: Language) -> Axis:
    axis = Axis.of(min(max((value or 0 for value in values), default=0), 1.0), str)
    digits = _digits([100 * tick for tick in axis.ticks])
    return axis._replace(said=lambda value: language.share(value, digits if value else 0))


def _numbers(values: Sequence[float], language: Language) -> Axis:
    axis = Axis.of(max(values, default=0), str)
    digits = _digits(axis.ticks)
    return axis._replace(said=lambda value: language.number(value, digits if value else 0))


def _digits(ticks: Sequence[float]) -> int:
    """How many digits tell one tick from the next.

    >>> _digits([0, 0.5, 1]), _digits([0, 20, 40])
    (1, 0)
    """
    return next((n for n in range(4) if all(abs(t - round(t, n)) < 1e-9 for t in ticks)), 4)


def days_of(since: int, until: int) -> int:
    """How many days of UTC lie in a stretch of time, begun ones included.

    >>> days_of(0, DAY_MS), days_of(0, DAY_MS + 1)
    (1, 2)
    """
    return -(-(until - since) // DAY_MS)
