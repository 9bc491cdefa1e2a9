"""The page of a backtest: one HTML file that needs nothing else, what the change is worth first.

What is said lies in `training.backtest_wording`, how it is laid out in
``templates/backtest.html.j2``. All text is data, so it is escaped, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from rules.decision import Action
from serving.pages import environment
from training import backtest_wording as words
from training.backtest_report import BacktestReport, Moves, Quantity
from training.page import TEMPLATES
from training.wording import amount, amount_of, capital, count, percent, span, things


def page(report: BacktestReport) -> str:
    """The page of a backtest, as HTML."""
    pages = environment(TEMPLATES)
    currency = report.currency
    pages.filters |= {
        "count": count, "percent": percent, "capital": capital, "day": words.day,
        "money": partial(amount, currency=currency), "cause": words.cause_in_words,
        "label": words.label, "doing": words.DOING.__getitem__, "span": span,
        "things": things,
    }  # fmt: skip
    return pages.get_template("backtest.html.j2").render(
        r=report, words=words, currency=currency, counted=count,
        short=words.in_short(report), worth=words.worth(report.moves, currency),
        tone=_tone(report), kinds=words.kinds(report.shifts), figures=tuple(_figures(report)),
        caveats=tuple(words.caveats(report)), divisions=_divisions(report),
        capacity=report.costs.reviews_per_day, workloads=_workloads(report),
        examples=_examples(report), moved_kinds=_moved_kinds, in_force=_in_force(report),
        now="now" if report.before_is_in_force else f"under {report.before_name}",
        then="then" if report.before_is_in_force else f"under {report.after_name}",
    )  # fmt: skip


def _in_force(report: BacktestReport) -> str:
    """What is said behind the name of the policy that the candidate is held against."""
    return ", in force" if report.before_is_in_force else ""


def _tone(report: BacktestReport) -> str:
    interval = report.moves.saved_interval
    return "good" if interval.low > 0 else "bad" if interval.high < 0 else "wait"


def _figures(report: BacktestReport) -> Iterator[dict[str, Any]]:
    """What a reader is shown of the figures, weighted ones beside them where there are any."""
    money = amount_of(report.currency)
    for name, said in words.FIGURES.items():
        rows = []
        for part, text in (("count", count), ("minor", money)):
            quantity = getattr(report.figures[name], part)
            if quantity is None:
                continue
            weighted = report.weighted and getattr(report.weighted.figures[name], part)
            rows.append({
                "cells": _cells(quantity, text),
                "weighted": _cells(weighted, text) if weighted else None,
            })  # fmt: skip
        yield {"name": said, "rows": rows}


def _cells(of: Quantity, text: Any) -> tuple[str, str, str, str, str]:
    """Before and after, the change, and the intervals of after and of the change."""
    rise = text(of.rise)
    return (
        text(of.before), text(of.after), rise if of.rise <= 0 else f"+{rise}",
        span(of.after_interval, text), span(of.rise_interval, text),
    )  # fmt: skip


def _divisions(report: BacktestReport) -> dict[str, list[Any]]:
    """Segments by what divides them, the longest lists cut; months are a chart of bars."""
    found: dict[str, list[Any]] = {}
    for one in report.segments:
        found.setdefault(one.by, []).append(one)
    return {by: each if by == "month" else each[: words.MOST_ROWS] for by, each in found.items()}


def _workloads(report: BacktestReport) -> list[tuple[str, Any, float]]:
    """Whose, what of the desk, and what the reviews cost a day."""
    return [
        (name, workload, workload.per_day * report.costs.review_minor)
        for name, workload in (
            (f"Policy {report.before_name}{_in_force(report)}", report.workload_before),
            (f"Policy {report.after_name}", report.workload_after),
        )
    ]


def _examples(report: BacktestReport) -> list[tuple[Action, Action, int, list[Any]]]:
    """By kind of change: how many there are, and the examples with their facts in words."""
    return [
        (before, after, number, [
            (one, words.facts_in_words(one, report.currency))
            for one in report.examples if (one.before, one.after) == (before, after)
        ])
        for before, after, number in words.kinds(report.shifts)
    ]  # fmt: skip


def _moved_kinds(moves: Moves) -> list[tuple[str, str, int]]:
    """The kinds of change among refunds, in the words of a reader."""
    return [(words.DOING[a], words.DOING[b], n) for a, b, n in words.kinds(moves.shifts)]
