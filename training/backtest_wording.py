"""A backtest in words: what its figures are called, what to keep in mind, and the whole as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from features.catalog import BY_NAME
from features.ledger import LEDGER_FACTS
from rules.backtest import Cause
from rules.condition import FactValue
from rules.decision import Action
from rules.policy import DECISION_FACTS
from serving.facts import MEANING
from training.backtest_report import BacktestReport, Example, Moves, Quantity, Shifts, Workload
from training.bootstrap import Interval
from training.policy_log_text import sentences
from training.propensity import COVERED
from training.wording import (
    NOT_KNOWN,
    amount,
    amount_of,
    count,
    percent,
    span,
    things,
)

FIGURES: Final[Mapping[str, str]] = {
    "abuse_stopped": "abuse stopped: held or prevented",
    "abuse_paid": "abuse paid",
    "honest_prevented": "honest refunds prevented",
    "honest_held": "honest refunds held for review",
    "reviews": "reviews",
    "cost": "cost of mistakes and reviews",
}
"""The figures that a reader is shown, in this order."""

DOING: Final[Mapping[Action, str]] = {
    Action.ALLOW: "paid", Action.REVIEW: "reviewed", Action.MANUAL_REVIEW: "held",
    Action.PREVENT: "prevented",
}  # fmt: skip

MOST_ROWS: Final = 12
"""Of a long list so many are shown; JSON has all."""


def day(at: int) -> str:
    """A day in UTC.

    >>> day(1_700_000_000_000)
    '2023-11-14'
    """
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d}"


def cause_in_words(cause: Cause) -> str:
    """A part of a policy as a reader finds it.

    >>> cause_in_words(Cause("rule", "serial_claims")), cause_in_words(Cause("band", "PREVENT"))
    ('rule serial_claims', 'the band for PREVENT')
    """
    if cause.kind in ("rule", "limit"):
        return f"{cause.kind} {cause.id}"
    return {"band": f"the band for {cause.id}", "fallback": f"the fallback, {cause.id}",
            "list": f"the {cause.id} list"}[cause.kind]  # fmt: skip


def kinds(shifts: Shifts) -> list[tuple[Action, Action, int]]:
    """The kinds of change that occur, and how many refunds each."""
    return [(a, b, n) for a, row in shifts.items() for b, n in row.items() if a is not b and n]


def label(abuse: bool | None) -> str:
    """What a refund turned out to be."""
    return "no label" if abuse is None else "abuse" if abuse else "honest"


def facts_in_words(one: Example, base: str) -> list[tuple[str, str]]:
    """The facts of an example and their values as a person reads them; ``base`` is the currency
    of the catalog's amounts.
    """
    return [(name, fact(name, value, _currency(name, one, base)))
            for name, value in one.facts.items()]  # fmt: skip


def _currency(name: str, one: Example, base: str) -> str | None:
    """What a fact's amount is in: the ledger's the order's, the request's own the refund's."""
    if name in LEDGER_FACTS:
        return one.order_currency or one.currency
    return base if name in BY_NAME or name in DECISION_FACTS else one.currency


def fact(name: str, value: FactValue, currency: str | None) -> str:
    r"""A fact's value as a person reads it; an amount in a currency that is known is money.

    >>> fact("payable_minor", 1250.0, "GBP"), fact("claim", None, None), fact("x", True, None)
    ('12.50\xa0GBP', 'not known', 'yes')
    >>> fact("asked_minor", 1500.0, "JPY"), fact("asked_minor", 1500.0, None)
    ('1,500\xa0JPY', '1,500 minor units')
    """
    if value is None or value != value:
        return NOT_KNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if name not in MEANING or MEANING[name].unit != "minor":
            return f"{value:,.6g}"
        return f"{value:,.0f} minor units" if currency is None else amount(value, currency)
    return value if isinstance(value, str) else ", ".join(value) or "none"


def in_short(report: BacktestReport) -> str:
    """How many refunds move, in a sentence."""
    if not report.moved:
        return f"None of {things(report.requests, 'refund')} would be decided otherwise."
    share = percent(report.moved / report.requests)
    verb = "is" if report.moved == 1 else "are"
    return (f"{count(report.moved)} of {things(report.requests, 'refund')} ({share}) {verb} "
            "decided otherwise, worth "
            f"{amount(report.moves.payable_minor, report.currency)}.")  # fmt: skip


def worth(moves: Moves, currency: str) -> str:
    """What it is worth that refunds move, in a sentence."""
    interval = span(moves.saved_interval, amount_of(currency))
    if moves.saved_interval.low > 0:
        return f"Cheaper by {amount(moves.saved_minor, currency)} ({interval})."
    if moves.saved_interval.high < 0:
        around = Interval(-moves.saved_interval.high, -moves.saved_interval.low)
        return (f"Dearer by {amount(-moves.saved_minor, currency)} "
                f"({span(around, amount_of(currency))}).")  # fmt: skip
    if interval == NOT_KNOWN:
        return "Whether it is cheaper or dearer is not known."
    if moves.saved_interval.low == moves.saved_interval.high:
        return "Neither cheaper nor dearer."
    dearer, cheaper = (
        amount(abs(end), currency) for end in (moves.saved_interval.low, moves.saved_interval.high)
    )
    return ("Neither surely cheaper nor surely dearer: between "
            f"{dearer} dearer and {cheaper} cheaper.")  # fmt: skip


def desk(workload: Workload, capacity: float | None) -> str:
    """What a policy asks of the review desk, in a sentence."""
    said = (
        f"{things(workload.per_day, 'review')} a day ({span(workload.per_day_interval, count)}), "
    )
    said += f"{count(workload.busiest_day)} on the busiest"
    if workload.days_over is None or capacity is None:
        return f"{said}; the policy names no capacity."
    return f"{said}; more than {count(capacity)} on {things(workload.days_over, 'day')}."


def caveats(report: BacktestReport) -> Iterator[str]:
    """What a reader should keep in mind, in sentences."""
    if report.source == "store":
        yield (
            "Labels are censored by the decisions that were made: what was held or prevented was "
            "not paid, so its label is not known unless somebody looked into it. Abuse that was "
            "stopped is therefore undercounted, and what a candidate would pay that was held is "
            "mostly unlabelled."
        )
        yield from _about_weights(report)
    if report.unlabelled or report.immature:
        yield (
            f"{things(report.unlabelled, 'refund')} had time for a label and "
            f"{'has' if report.unlabelled == 1 else 'have'} none; {count(report.immature)} more "
            f"are younger than {things(report.maturity_days, 'day')}. They count as moved and as "
            "reviews, and in no figure of abuse or of honest customers."
        )
    if report.moved and not report.moves.abuse.count and not report.moves.honest.count:
        yield "No refund that moves has a label: what the change is worth cannot be told."
    yield from _about_the_log(report)
    yield (f"A review is taken to find the truth. Both policies are judged by the costs of "
           f"{report.costs_of}, {_scores(report)}, without exploration and without analysts' "
           "decisions.")  # fmt: skip


def _scores(report: BacktestReport) -> str:
    """What both policies decide on."""
    if report.source == "store":
        return "on scores as they were logged"
    if report.new_from is None:
        return "without scores, for no model is served"
    return "on the scores of the model that is served now"


def _about_weights(report: BacktestReport) -> Iterator[str]:
    if report.weighted is None:
        yield ("No refund with a label was paid by exploration, so nothing makes up for the labels "
               "that are not there.")  # fmt: skip
        return
    covered = sum(report.weighted.refunds[fate] for fate in COVERED)
    yield (
        f"The weighted figures speak for {percent(covered / report.requests)} of the refunds, "
        "those that had a chance to be paid; they say as much as "
        f"{count(report.weighted.effective_size)} refunds of equal weight."
    )


def _about_the_log(report: BacktestReport) -> Iterator[str]:
    yield from sentences(report.unlogged)
    if report.learnt and report.new_from is not None:
        since = day(report.new_from)
        yield (f"Before {since} the model may have learnt from the refunds, {count(report.learnt)} "
               "here: its scores are better on them than they will be. Begin then to leave them "
               "out.")  # fmt: skip
    if report.own_same < report.own:
        yield (
            f"Of {things(report.own, 'refund')} that policy {report.before_name} itself "
            f"decided, {count(report.own - report.own_same)} come out otherwise than logged: what "
            "was logged is not all that they rested on."
        )
    if report.repeated:
        yield (f"{things(report.repeated, 'decision')} on refunds that were decided more than once "
               "are left out: a refund counts once.")  # fmt: skip
    if report.unreadable:
        yield (f"{things(report.unreadable, 'decision')} were stored without their facts and "
               "cannot be made again.")  # fmt: skip
    if report.degraded:
        yield (f"{things(report.degraded, 'decision')} without a score stay so: both policies "
               "answer by their fallback.")  # fmt: skip
    if report.payable_unknown:
        yield (f"Of {things(report.payable_unknown, 'refund')} the amount is not known in "
               f"{report.currency}: they are counted and add nothing to sums.")  # fmt: skip


# --- as text -------------------------------------------------------------------------------------


def to_text(report: BacktestReport) -> str:
    """The report for a person to read; amounts in the base currency."""
    capacity = report.costs.reviews_per_day
    return "\n".join([
        f"policy {report.after_name} against {report.before_name}"
        f"{', in force' if report.before_is_in_force else ''}: "
        f"{things(report.requests, 'refund')} from {day(report.first_at)} to "
        f"{day(report.last_at)}, {count(report.labelled)} with a mature label, "
        f"{count(report.abuse)} of them abuse",
        *([" what differs:", *(f"  {one}" for one in report.differences)]
          if report.differences else []),
        in_short(report),
        *(f"  {a.value} -> {b.value}: {n:,}" for a, b, n in kinds(report.shifts)),
        *_figures(report),
        f"reviews, {report.before_name}: {desk(report.workload_before, capacity)}",
        f"reviews, {report.after_name}: {desk(report.workload_after, capacity)}",
        *_causes(report),
        *_segments(report),
        *_examples(report),
        "to keep in mind:",
        *(f"  {one}" for one in caveats(report)),
    ]).replace("\N{NO-BREAK SPACE}", " ")  # fmt: skip


def _figures(report: BacktestReport) -> Iterator[str]:
    tables = [("by labels as they are", report.figures)]
    if report.weighted is not None:
        tables.append(("each paid refund weighed by its chance", report.weighted.figures))
    for title, figures in tables:
        yield f"{title}: {'before':>24} {'after':>16}  change (95 %)"
        for name, words in FIGURES.items():
            figure = figures[name]
            if figure.count is not None and name != "reviews":
                yield f"  {words:<34} {_both(figure.count, count)}"
                words = ""
            if figure.minor is not None:
                yield f"  {words:<34} {_both(figure.minor, amount_of(report.currency))}"


def _both(of: Quantity, text: Callable[[float], str]) -> str:
    return (f"{text(of.before):>16} {text(of.after):>16}  {text(of.rise)} "
            f"({span(of.rise_interval, text)})")  # fmt: skip


def _causes(report: BacktestReport) -> Iterator[str]:
    if report.causes:
        yield "because of:"
    for one in report.causes:
        moved = ", ".join(f"{a.value} -> {b.value} {n:,}" for a, b, n in kinds(one.moves.shifts))
        yield f"  {cause_in_words(one.cause)}: {moved}; alone {one.alone:,}. " \
              f"{_truth(one.moves)}. {worth(one.moves, report.currency)}"  # fmt: skip


def _truth(moves: Moves) -> str:
    return (f"{count(moves.abuse.count)} abuse, {count(moves.honest.count)} honest, "
            f"{count(moves.unlabelled)} without a label")  # fmt: skip


def _segments(report: BacktestReport) -> Iterator[str]:
    for by in dict.fromkeys(one.by for one in report.segments):
        rows = [one for one in report.segments if one.by == by and one.moves.moved]
        if not rows:
            continue
        yield f"by {by}:"
        for one in rows[:MOST_ROWS]:
            moved = ", ".join(f"{DOING[a]} -> {DOING[b]} {n:,}"
                              for a, b, n in kinds(one.moves.shifts))  # fmt: skip
            yield f"  {one.name:<24} {one.moves.moved:,} of {one.refunds:,}: {moved}"
        if len(rows) > MOST_ROWS:
            yield f"  and {len(rows) - MOST_ROWS} more, in --json"


def _examples(report: BacktestReport) -> Iterator[str]:
    for a, b, _ in kinds(report.shifts):
        yield f"for example, {a.value} -> {b.value}:"
        for one in report.examples:
            if (one.before, one.after) == (a, b):
                yield f"  {_example(one, report.currency)}"


def _example(one: Example, currency: str) -> str:
    why = ", ".join(map(cause_in_words, one.causes))
    facts = ", ".join(f"{name} {value}" for name, value in facts_in_words(one, currency))
    payable = NOT_KNOWN if one.payable_minor is None else amount(one.payable_minor, currency)
    return f"{one.refund_id} ({payable}, {label(one.abuse)}): {why}; {facts}"
