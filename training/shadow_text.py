"""The report on shadow rules as an analyst reads it, and the advice in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from features.money import DAY_MS
from rules.decision import Action, Stage
from serving.language import NBSP
from training.policy_figures import LEAST_CUSTOMERS, Money, Share
from training.policy_judgement import Maturity, Precision, day_of
from training.policy_log_text import sentences
from training.wording import amount, amount_of, count, listed, percent, span, things

if TYPE_CHECKING:
    from training.shadow_report import ShadowReport, ShadowRule

_MOST_NAMED = 3

HARD = "It is a hard rule: labels of abuse do not judge what your terms do not owe."


def text(report: ShadowReport) -> str:
    """The whole report."""
    return "\n".join(_lines(report)).replace(NBSP, " ")


def _lines(report: ShadowReport) -> Iterator[str]:
    by = listed([f"{version} ({n:,})" for version, n in report.policies.items()])
    yield (
        f"shadow rules on {things(report.requests, 'decision')} from {day_of(report.first_at)} to "
        f"{day_of(report.last_at)}" + (f", by policy {by}" if by else "")
    )
    if report.elsewhere:
        yield f"  {report.elsewhere:,} were made by policies that are not at hand: left out"
    if not report.rules:
        yield "no rule and no limit was in the shadow"
    for rule in report.rules:
        yield ""
        yield from _rule(rule, report)
    if report.unlogged:
        yield ""
        yield from sentences(report.unlogged)
    if any(rule.hits for rule in report.rules):
        yield ""
        yield from how_to_read(report.maturity)


def _rule(rule: ShadowRule, report: ShadowReport) -> Iterator[str]:
    money = amount_of(report.currency)
    yield f"{rule.rule_id} (version {rule.version}, {rule.action.value}): {rule.description}"
    yield (
        f"  seen {things(rule.evaluated, 'request')}: hit {rule.hits:,} "
        f"({percent(rule.hit_rate)}), could not be settled on {rule.unknowns:,}; "
        f"last hit {day_of(rule.last_hit)}"
    )
    if rule.missing:
        yield f"  not settled for want of {_named(rule.missing)}"
    if not (rule.hits or rule.changes):
        yield f"  advice: {advice(rule, report)}"
        return
    yield f"  its hits ask for {money(rule.hits_minor)}"
    yield from _changes(rule, report)
    if rule.hits:
        yield from _overlap(rule)
        yield from precision_lines(rule.precision, report.maturity)
    yield from _money(rule, report)
    yield f"  advice: {advice(rule, report)}"


def _changes(rule: ShadowRule, report: ShadowReport) -> Iterator[str]:
    of_them = (
        f", {rule.changed_unknowns:,} of them because it could not be settled"
        if rule.changed_unknowns else ""
    )  # fmt: skip
    yield f"  had it been live, {things(rule.changed, 'answer')} would be another{of_them}"
    for shift in rule.changes:
        yield (
            f"    {shift.before.value} -> {shift.after.value}: {shift.requests:,}, "
            f"{amount(shift.payable_minor, report.currency)}"
        )
    if rule.reviews_per_day:
        more = "more" if rule.reviews_per_day > 0 else "fewer"
        room = report.costs.reviews_per_day
        desk = f"; the desk takes {count(room)} a day" if room is not None else ""
        yield f"    {_rate(abs(rule.reviews_per_day))} reviews a day {more}{desk}"


def _rate(per_day: float) -> str:
    return f"{per_day:,.0f}" if per_day >= 10 else f"{per_day:.2g}"


def _overlap(rule: ShadowRule) -> Iterator[str]:
    yield (
        f"  {percent(rule.answered_by_rule / rule.hits)} of its hits a live rule or limit answers "
        f"already, {percent(rule.answered / rule.hits)} are answered as severely by whatever part "
        "of the policy"
    )
    if rule.beside:
        yield f"    hit together with {_named(rule.beside)}"


def _named(counted: Mapping[str, int]) -> str:
    named = [f"{name} ({n:,})" for name, n in [*counted.items()][:_MOST_NAMED]]
    return listed(named) + (" and others" if len(counted) > _MOST_NAMED else "")


def precision_lines(precision: Precision, maturity: Maturity) -> Iterator[str]:
    """What labels say of hits."""
    without = [
        f"{precision.young:,} younger than {things(maturity.days, 'day')}"
        if precision.young
        else "",
        f"{precision.unseen:,} neither paid nor looked into" if precision.unseen else "",
    ]
    missing = listed([part for part in without if part])
    yield (
        f"  {precision.labelled:,} of {things(precision.refunds, 'refund')} hit have a label"
        + (f"; without one: {missing}" if missing else "")
    )
    if precision.labelled:
        yield f"    {precision.abuse:,} are abuse: {share_text(precision.share)}"
    if precision.weighted is not None:
        yield (
            f"    by those paid, each for as many as it stands for: "
            f"{share_text(precision.weighted)}"
        )


def share_text(share: Share) -> str:
    """A share with its interval and what it rests on."""
    return (
        f"{percent(share.value)} ({span(share.interval, percent)}; "
        f"{things(share.refunds, 'refund')} of {things(share.customers, 'customer')})"
    )


def money_text(money: Money, currency: str) -> str:
    """A sum with its interval; where nothing adds up, just that."""
    if not money.refunds:
        return "nothing"
    said = f"{amount(money.minor, currency)} on {things(money.refunds, 'refund')}"
    return f"{said} ({span(money.interval, amount_of(currency))})"


def _money(rule: ShadowRule, report: ShadowReport) -> Iterator[str]:
    effect = rule.effect
    if not effect.labelled:
        return
    say = partial(money_text, currency=report.currency)
    yield (
        f"  on the {effect.labelled:,} labelled of {things(effect.changed, 'refund')} answered "
        "otherwise:"
    )
    yield f"    abuse stopped {say(effect.abuse_stopped)}"
    if effect.honest_prevented.refunds:
        yield f"    honest refused {say(effect.honest_prevented)}"
    if effect.honest_held.refunds:
        yield f"    honest held for a review {say(effect.honest_held)}"
    yield f"    cost saved {say(effect.saved)}"
    if effect.saved_weighted is not None:
        yield (
            "    cost saved, by those paid, each for as many as it stands for: "
            f"{say(effect.saved_weighted)}"
        )


def advice(rule: ShadowRule, report: ShadowReport) -> str:
    """One sentence: is there enough to judge by, and is the rule better live?"""
    said = {
        "NEVER_HITS": _never_hits,
        "CHANGES_NOTHING": _changes_nothing,
        "TOO_FEW": _too_few,
        "BETTER_LIVE": _better,
        "WORSE_LIVE": _worse,
        "CANNOT_BE_TOLD": _untold,
    }[rule.advice.value]
    also = f" {HARD}" if rule.stage is Stage.HARD and rule.effect.labelled else ""
    return (said(rule, report) + also).replace(NBSP, " ")


def _never_hits(rule: ShadowRule, report: ShadowReport) -> str:
    if rule.unknowns > rule.evaluated / 2:
        return (
            "nothing to judge: it could mostly not be settled, for want of "
            f"{_named(rule.missing)}; send these facts or write the rule without them."
        )
    # With no hit in n the share is below 3 / n, at 95 % (the rule of three).
    most = min(1.0, 3 / rule.evaluated)
    return (
        f"nothing to judge: no hit in {things(rule.evaluated, 'request')}, so at most "
        f"{percent(most, 2)} of requests are such; wait, or widen the condition."
    )


def _changes_nothing(rule: ShadowRule, report: ShadowReport) -> str:
    return (
        f"live, it would change nothing: all its {things(rule.hits, 'hit')} were answered as "
        "severely by other parts of the policy; put it live only to give its reason, or remove it."
    )


def _too_few(rule: ShadowRule, report: ShadowReport) -> str:
    effect, precision = rule.effect, rule.precision
    there = effect.saved.customers
    said = (
        f"too early to judge: labelled refunds of {things(there, 'customer')} whose answer would "
        f"change, and it takes {LEAST_CUSTOMERS}"
    )
    if precision.young and precision.last_matures_at is not None:
        return (
            f"{said}; {things(precision.young, 'hit')} may have a label by "
            f"{day_of(precision.last_matures_at + DAY_MS - 1)}. Leave it in the shadow."
        )
    days = (rule.last_at - rule.first_at) / DAY_MS
    if there and days >= 1:
        more = math.ceil(days * (LEAST_CUSTOMERS - there) / there)
        return f"{said}; at this rate in {things(more, 'day')} more. Leave it in the shadow."
    return f"{said}. Leave it in the shadow."


def _interval(rule: ShadowRule, report: ShadowReport) -> str:
    saved = rule.effect.saved
    return (
        f"{amount(saved.minor, report.currency)} over the labelled refunds, and with 95 % "
        f"confidence {span(saved.interval, amount_of(report.currency))}"
    )


def _better(rule: ShadowRule, report: ShadowReport) -> str:
    also = ""
    room = report.costs.reviews_per_day
    if room is not None and rule.reviews_per_day > 0:
        also = (
            f" Mind the desk: {_rate(rule.reviews_per_day)} more reviews a day, where it takes "
            f"{count(room)}."
        )
    return f"better live: it would have saved {_interval(rule, report)}.{also}"


def _worse(rule: ShadowRule, report: ShadowReport) -> str:
    milder = ", or let it hold instead of refuse" if rule.action is Action.PREVENT else ""
    return (
        f"not live as it stands: it would have saved {_interval(rule, report)}. Narrow it{milder}."
    )  # fmt: skip


def _untold(rule: ShadowRule, report: ShadowReport) -> str:
    return (
        f"cannot be told yet: it would have saved {_interval(rule, report)}, which may be a gain "
        "or a loss. Leave it in the shadow until there are more labels."
    )


def how_to_read(maturity: Maturity) -> Iterator[str]:
    """What figures, labels and intervals mean, for the end of a report."""
    yield (
        f"How to read this. Labels are those known on {day_of(maturity.as_of - 1)}, of refunds at "
        f"least {things(maturity.days, 'day')} old. A held refund that nobody looked into has "
        "none: figures over labelled refunds speak for refunds that were paid or looked into."
    )
    yield (
        "In brackets stand 95 % intervals. Those of shares are Wilson's, and count customers and "
        "not refunds, for one customer's refunds are alike; Wilson's holds for few cases and when "
        "all are abuse. Those of money draw customers again and again (bootstrap)."
    )
