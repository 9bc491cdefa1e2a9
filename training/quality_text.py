"""The report on a policy's quality as an analyst reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rules.decision import Mode, Stage
from serving.language import NBSP
from training.policy_figures import Money
from training.policy_judgement import day_of
from training.policy_log_text import sentences
from training.shadow_text import how_to_read, money_text, precision_lines
from training.wording import amount, bands_in_words, listed, percent, things

if TYPE_CHECKING:
    from training.quality_report import QualityReport, RuleQuality

_MOST_OVERLAPS = 3


def text(report: QualityReport) -> str:
    """The whole report: findings first, then rule by rule."""
    return "\n".join(_lines(report)).replace(NBSP, " ")


def _lines(report: QualityReport) -> Iterator[str]:
    counts = report.counts
    over = f"policy {report.policy.version} over {things(counts.requests, 'request')}"
    if not counts.requests:
        yield over
        return
    yield f"{over} from {day_of(counts.first_at)} to {day_of(counts.last_at)}"
    answers = [f"{action.value} {n:,}" for action, n in sorted(counts.actions.items())]
    yield f"  it would answer {listed(answers)}"
    if counts.payable_unknown:
        yield (
            f"  the amount of {counts.payable_unknown:,} is not known in {report.currency}: they "
            "are in no sum of money"
        )
    yield ""
    yield things(len(report.findings), "finding") if report.findings else "no finding"
    for number, finding in enumerate(report.findings, 1):
        stake = amount(finding.at_stake_minor, report.currency)
        yield f"  {number}. {finding.sentence}" + f" At stake: {stake}." * (
            finding.at_stake_minor > 0
        )
    for rule in report.rules:
        yield ""
        yield from _rule(rule, report)
    yield ""
    yield "bands"
    for band in counts.bands:
        words = bands_in_words([band.band], report.currency)[0].rstrip(".")
        yield f"  {words}: reached by {band.reached:,}, decided {band.decisive:,}"
    yield ""
    if any(rule.count.stage is Stage.HARD for rule in report.rules):
        yield (
            "Hard rules refuse what the terms do not owe, also to the honest: that few of their "
            "hits are abuse says nothing against them."
        )
    yield from sentences(report.unlogged)
    yield from how_to_read(report.maturity)


def _rule(rule: RuleQuality, report: QualityReport) -> Iterator[str]:
    count = rule.count
    kind = {Stage.HARD: ", hard", Stage.LIMIT: ", limit", Stage.RISK: ""}[count.stage]
    mode = kind if count.mode is Mode.LIVE else f"{kind}, in the shadow"
    held = (
        f", which alone held {count.decisive_unknowns:,} of them" if count.decisive_unknowns else ""
    )
    yield f"{count.rule_id} (version {count.version}, {count.action.value}{mode})"
    yield (
        f"  hit {count.hits:,} ({percent(rule.share)}), could not be settled on "
        f"{count.unknowns:,}{held}; last hit {day_of(count.last_hit)}"
    )
    if count.rule_id in report.guards:
        guarded = report.guards[count.rule_id]
        held = f"what {listed(guarded)} cannot settle" if guarded else "what it cannot settle"
        yield f"  a guard: it is there to hold {held}, whatever it hits besides"
    if not count.hits:
        return
    if count.mode is Mode.LIVE:
        yield (
            f"  decisive on {count.decisive:,}, worth "
            f"{amount(count.decisive_minor, report.currency)}; its hits ask for "
            f"{amount(count.payable_minor, report.currency)}"
        )
    else:
        yield f"  its hits ask for {amount(count.payable_minor, report.currency)}"
    for overlap in rule.overlaps[:_MOST_OVERLAPS]:
        yield (
            f"    {overlap.other} hits {overlap.common:,} of them too ({percent(overlap.share)}; "
            f"{percent(overlap.jaccard)} of what either hits)"
        )
    yield from precision_lines(rule.precision, report.maturity)
    yield from _money(rule, report.currency)


def _money(rule: RuleQuality, currency: str) -> Iterator[str]:
    def line(what: str, money: Money) -> Iterator[str]:
        if money.refunds:
            yield f"    {what} {money_text(money, currency)}"

    yield from line("abuse among its hits", rule.abuse)
    yield from line("honest among its hits", rule.honest)
    yield from line("abuse stopped by it alone", rule.abuse_stopped)
    yield from line("honest refused by it alone", rule.honest_prevented)
    yield from line("honest held by it alone", rule.honest_held)
    yield from line("cost saved by it alone", rule.saved)
