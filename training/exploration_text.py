"""The report on exploration as an analyst reads it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from rules.exploration import Lot
from serving.language import NBSP
from training.policy_figures import LEAST_CUSTOMERS
from training.policy_judgement import day_of
from training.shadow_text import how_to_read, money_text, share_text
from training.wording import amount, amount_of, count, listed, percent, span, things

if TYPE_CHECKING:
    from training.exploration import Draw, ExplorationReport

UNLIKELY: Final = 0.001
"""What comes by chance less often than this is worth looking into."""


def text(report: ExplorationReport) -> str:
    """The whole report."""
    return "\n".join(_lines(report)).replace(NBSP, " ")


def _lines(report: ExplorationReport) -> Iterator[str]:
    yield (
        f"exploration on {things(report.decisions, 'decision')} from {day_of(report.first_at)} to "
        f"{day_of(report.last_at)}"
    )
    if report.elsewhere:
        yield f"  {report.elsewhere:,} were made by policies that are not at hand: left out"
    if not report.explores:
        yield "no policy of that time explores: what held refunds are, nobody can know"
        return
    yield from _drawn(report)
    yield from _cost(report)
    yield from _taught(report)
    yield from _dark(report)
    yield ""
    yield from how_to_read(report.maturity)


def _drawn(report: ExplorationReport) -> Iterator[str]:
    for draw in report.draws:
        yield (
            f"policy {draw.policy} pays {percent(draw.share)} of held refunds up to "
            f"{amount(draw.max_amount_minor, report.currency)}"
        )
        yield from _share(draw)
    if math.isnan(report.uniform_chance):
        yield f"  {things(report.drawn, 'draw')}: too few to test whether they are even"
    else:
        even = "are as even as chance makes them" if report.uniform_chance >= UNLIKELY else (
            "are not even: the secret or the draw is not what it should be, and no weight of "
            "these labels is to be trusted until that is found out"
        )  # fmt: skip
        yield (
            f"  {things(report.drawn, 'draw')} {even} (so uneven by chance in "
            f"{_chance(report.uniform_chance)} of cases)"
        )


def _share(draw: Draw) -> Iterator[str]:
    if not draw.eligible:
        yield "  no refund could be explored"
        return
    yield (
        f"  {draw.explored:,} of {things(draw.eligible, 'refund')} that could be explored were: "
        f"{percent(draw.realised.value)} ({span(draw.realised.interval, percent)}; so far off by "
        f"chance in {_chance(draw.chance)} of cases)"
    )
    if draw.chance < UNLIKELY:
        yield (
            "  that is hardly chance. More than the share: somebody may send held refunds again "
            "under new ids until one is paid. Fewer: decisions may be missing"
        )


def _chance(chance: float) -> str:
    return f"less than {percent(0.0001, 2)}" if chance < 0.0001 else percent(chance, 2)


def _cost(report: ExplorationReport) -> Iterator[str]:
    explored = report.refunds[Lot.EXPLORED]
    say = partial(money_text, currency=report.currency)
    yield "what it cost"
    yield (
        f"  {things(explored, 'refund')} released, worth "
        f"{amount(report.payable_minor[Lot.EXPLORED], report.currency)}; {report.paid:,} paid so "
        f"far, {amount(report.paid_minor, report.currency)}"
    )
    if report.labelled:
        yield f"  abuse paid, fees included: {say(report.abuse_paid)}"
        harm = say(report.honest_released)
        yield f"  harm not done to honest customers who would be refused: {harm}"
    yield (
        f"  {things(report.reviews_spared, 'review')} spared, worth "
        f"{amount(report.reviews_spared_minor, report.currency)}"
    )
    if report.labelled:
        less = " (below 0: it saved money)" if report.net_cost.minor < 0 else ""
        yield (
            "  net, over labelled refunds, against what holding them would have cost: "
            f"{say(report.net_cost)}{less}"
        )


def _taught(report: ExplorationReport) -> Iterator[str]:
    yield "what it taught"
    yield (
        f"  {things(report.labelled, 'label')} so far, {report.abuse:,} of abuse; {report.young:,} "
        f"more refunds are younger than {things(report.maturity.days, 'day')}"
    )
    if not report.labelled:
        yield "  nothing can be told of held refunds yet"
        return
    rate = report.abuse_rate
    yield f"  of the refunds held that could be explored, abuse are {share_text(rate)}"
    if rate.customers < LEAST_CUSTOMERS:
        yield (
            f"  these are labels of {things(rate.customers, 'customer')}: read the interval, not "
            "the figure, until there are "
            f"{LEAST_CUSTOMERS}"
        )
    if report.reviewed_rate.refunds:
        yield (
            "  of those held that somebody looked into, a choice and not a sample, they are "
            f"{share_text(report.reviewed_rate)}"
        )
    yield (
        f"  weighed, the {report.labelled + report.labelled_paid:,} labels of paid refunds say as "
        f"much as {count(report.effective_size)} of equal weight"
    )
    yield from _held_cost(report)


def _held_cost(report: ExplorationReport) -> Iterator[str]:
    held, money = report.held_cost, amount_of(report.currency)
    if math.isnan(held.by_exploration):
        return
    more = "more" if held.change >= 0 else "less"
    yield (
        f"  holding the {things(held.refunds, 'refund')} that could be explored costs "
        f"{money(held.by_exploration)} ({span(held.interval, money)}), {money(abs(held.change))} "
        f"{more} than the {money(held.by_model)} that the model expects (difference "
        f"{span(held.change_interval, money)})"
    )
    if not math.isnan(held.by_reviews):
        reviews = money(held.by_reviews)
        yield f"    by the labels of those that somebody looked into it would be {reviews}"
    yield (
        f"    paying them all would cost {money(held.holding_saves)} more than holding them "
        f"({span(held.holding_saves_interval, money)})"
        if held.holding_saves >= 0
        else f"    paying them all would cost {money(-held.holding_saves)} less than holding them "
        f"(what holding saves: {span(held.holding_saves_interval, money)})"
    )


def _dark(report: ExplorationReport) -> Iterator[str]:
    yield "what it leaves in the dark"
    refunds, minor = report.refunds, report.payable_minor
    held = sum(refunds.values())
    money = sum(minor.values())
    yield (
        f"  above the amount: {things(refunds[Lot.ABOVE_CAP], 'refund')} of {held:,} held, "
        f"{amount(minor[Lot.ABOVE_CAP], report.currency)} of {amount(money, report.currency)}"
    )
    if refunds[Lot.AMOUNT_UNKNOWN]:
        yield (
            f"  amount not known in {report.currency}: "
            f"{things(refunds[Lot.AMOUNT_UNKNOWN], 'refund')}"
        )
    if refunds[Lot.NEVER]:
        by = listed([f"{why} ({n:,})" for why, n in report.unlooked.items()])
        yield (
            f"  held whatever was drawn: {things(refunds[Lot.NEVER], 'refund')}, "
            f"{amount(minor[Lot.NEVER], report.currency)}, by {by}"
        )
