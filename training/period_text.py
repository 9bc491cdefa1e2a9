"""The report on a period in words: what to look at, and a screen of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from features.money import DAY_MS
from rules.decision import Action
from serving.codes import name_of_code
from serving.explanation.words import action_name
from serving.language import Language
from training.policy_figures import wilson

if TYPE_CHECKING:
    from training.period import Driver, PeriodReport
    from training.period_labels import Fit

SHOWN: Final = (Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT)
MUCH_DEGRADED: Final = 0.01
"""Above this share without a model the report says so first."""

_MOST_LINES: Final = 6


def text(report: PeriodReport, language: Language) -> str:
    """The report for a person to read, on one screen; shares of the period before in brackets."""
    say, now, before = language.say, report.now, report.before
    lines = [title(report, language), headline(report, language)]
    if not now.refunds:
        return "\n".join(lines)
    lines += [f"  ! {one}" for one in findings(report, language)]
    lines.append(say("asked back: {amount} ({before})",
                     amount=language.money(now.whole.whole.minor, report.currency),
                     before=language.money(before.whole.whole.minor, report.currency)))  # fmt: skip
    for action in SHOWN:
        part = now.whole.part(action)
        lines.append("  " + say(
            "{action}: {share} ({before}), {amount}", action=action_name(action.value, language),
            share=language.share(now.whole.share(action), 1),
            before=language.share(before.whole.share(action), 1),
            amount=language.money(part.minor, report.currency),
        ))  # fmt: skip
    lines += [expected(report, language), prevented(report, language)]
    moved = movers(report)
    if moved:
        lines.append(say("what drives risk, in the mean, and what it did before:"))
        lines += [f"  {mover(one, language)}" for one in moved[:_MOST_LINES]]
    if report.told:
        lines.append(say("reasons given most often:"))
        lines += [
            "  " + say("{reason}: {refunds}, {amount}", reason=name_of_code(one.code, language),
                       refunds=language.say_of(one.now.whole.refunds, "{value} refund",
                                               "{value} refunds"),
                       amount=language.money(one.now.whole.minor, report.currency))
            for one in report.told[:_MOST_LINES]
        ]  # fmt: skip
    lines += rules_in_short(report, language)
    lines += [drift_in_short(report, language), calibration_in_short(report, language),
              reviews_in_short(report, language)]  # fmt: skip
    return "\n".join(lines)


def title(report: PeriodReport, language: Language) -> str:
    """What the report is on."""
    return language.say(
        "Refund decisions, {since} to {until}",
        since=language.day(report.now.since), until=language.day(report.now.until - 1),
    )  # fmt: skip


def headline(report: PeriodReport, language: Language) -> str:
    """How much was decided, against the period before."""
    now, before = report.now.refunds, report.before.refunds
    length = language.duration((report.now.until - report.now.since) / DAY_MS)
    if not now:
        return language.say("No refund was decided in this period.")
    if not before:
        return language.say_of(
            now, "{value} refund was decided; none in the {length} before.",
            "{value} refunds were decided; none in the {length} before.", length=length,
        )  # fmt: skip
    if now >= before:
        return language.say_of(
            now, "{value} refund was decided, {more} more than in the {length} before.",
            "{value} refunds were decided, {more} more than in the {length} before.",
            more=language.count(now - before), length=length,
        )  # fmt: skip
    return language.say_of(
        now, "{value} refund was decided, {fewer} fewer than in the {length} before.",
        "{value} refunds were decided, {fewer} fewer than in the {length} before.",
        fewer=language.count(before - now), length=length,
    )  # fmt: skip


def findings(report: PeriodReport, language: Language) -> Iterator[str]:
    """What somebody should look at, the most urgent first; nothing where nothing is."""
    say, now, before = language.say, report.now, report.before
    degraded = now.degraded / now.refunds if now.refunds else 0.0
    if degraded > MUCH_DEGRADED:
        yield say("{share} of the refunds were decided without the model.",
                  share=language.share(degraded, 1))  # fmt: skip
    for action in SHOWN:
        a, b = (of.whole.share(action) for of in (before, now))
        if not (before.refunds and now.refunds):
            continue
        # Intervals that do not touch: the shares differ, whatever one customer did.
        was, is_ = (wilson(x, of.customers) for x, of in ((a, before), (b, now)))
        if was.high < is_.low or is_.high < was.low:
            values = {"action": action_name(action.value, language),
                      "before": language.share(a, 1), "now": language.share(b, 1)}  # fmt: skip
            yield (say("“{action}” was answered more often: {now}, before {before}.", **values)
                   if b > a else
                   say("“{action}” was answered less often: {now}, before {before}.", **values)
                   )  # fmt: skip
    if report.model_changed:
        yield say("Not one model scored both periods: what weights and scores did is in part the "
                  "models' difference.")  # fmt: skip
    drift = report.drift
    if drift.score is not None and drift.score.surely:
        yield say("Scores have moved more than chance moves them.")
    surely = sum(one.surely for one in drift.features)
    if surely:
        share = sum(one.share or 0.0 for one in drift.features if one.surely)
        yield language.say_of(
            surely, "{value} feature surely drifted; it makes {share} of the model.",
            "{value} features surely drifted; they make {share} of the model.",
            share=language.share(share, 1),
        )  # fmt: skip
    fit = report.calibration.weighted or report.calibration.whole
    if fit.fits is False:
        yield fit_in_words(fit, language)
    if report.reviews.open and report.reviews.oldest_open_at is not None:
        waited = (report.calibration.as_of - report.reviews.oldest_open_at) / DAY_MS
        yield language.say_of(
            report.reviews.open,
            "{value} refund of this period still waits for a review, for {waited}.",
            "{value} refunds of this period still wait for a review, the oldest for {waited}.",
            waited=language.duration(waited),
        )  # fmt: skip


def fit_in_words(fit: Fit, language: Language) -> str:
    """What the model predicted, and what turned out."""
    values = {
        "predicted": language.share(fit.predicted, 1), "observed": language.share(fit.observed, 1),
        "low": language.share(fit.interval.low, 1), "high": language.share(fit.interval.high, 1),
    }  # fmt: skip
    if not fit.refunds:
        return language.say("No refund has a mature label yet.")
    if fit.fits:
        return language.say("The model predicted {predicted} abuse and {observed} turned out so "
                            "(95 %: {low} to {high}): it can be believed.", **values)  # fmt: skip
    if fit.predicted > fit.observed:
        return language.say("The model predicted {predicted} abuse and {observed} turned out so "
                            "(95 %: {low} to {high}): it says too much.", **values)  # fmt: skip
    return language.say("The model predicted {predicted} abuse and {observed} turned out so "
                        "(95 %: {low} to {high}): it says too little.", **values)  # fmt: skip


def movers(report: PeriodReport) -> list[Driver]:
    """The drivers whose mean weight surely changed, the largest change first."""
    return sorted((one for one in report.drivers if one.sure), key=lambda one: -abs(one.rise))


def mover(one: Driver, language: Language) -> str:
    """What became of a driver, which is told by both means: one may have changed sides."""
    values = {"reason": name_of_code(one.code, language), "now": language.signed(one.mean, 3),
              "before": language.signed(one.mean_before, 3)}  # fmt: skip
    say = language.say
    if one.mean > 0 > one.mean_before:
        return say("{reason}: {now}, before {before}: raises the risk now, lowered it before",
                   **values)  # fmt: skip
    if one.mean < 0 < one.mean_before:
        return say("{reason}: {now}, before {before}: lowers the risk now, raised it before",
                   **values)  # fmt: skip
    if one.mean > 0 or one.mean_before > 0:
        return (say("{reason}: {now}, before {before}: raises the risk more", **values)
                if one.rise > 0 else
                say("{reason}: {now}, before {before}: raises the risk less", **values)
                )  # fmt: skip
    return (say("{reason}: {now}, before {before}: lowers the risk more", **values)
            if one.rise < 0 else
            say("{reason}: {now}, before {before}: lowers the risk less", **values)
            )  # fmt: skip


def expected(report: PeriodReport, language: Language) -> str:
    """What abuse is expected to have been paid."""
    return language.say(
        "Of what was allowed, the model expects {now} to be abuse; before {before}.",
        now=language.money(report.now.expected_lost_minor, report.currency),
        before=language.money(report.before.expected_lost_minor, report.currency),
    )  # fmt: skip


def prevented(report: PeriodReport, language: Language) -> str:
    """What preventing is expected to have saved, and what it cost."""
    now, before = report.now.money, report.before.money

    def money(minor: float) -> str:
        return language.money(minor, report.currency)

    said = language.say(
        "Of what was prevented, it expects {now} to be abuse; before {before}. Refusing the honest "
        "among them is expected to cost {honest}, and the reviews of the period {reviews}.",
        now=money(now.loss_prevented_minor), before=money(before.loss_prevented_minor),
        honest=money(now.honest_minor), reviews=money(now.review_minor),
    )  # fmt: skip
    if not now.unscored:
        return said
    return f"{said} " + language.say_of(
        now.unscored,
        "{value} refund was prevented without a probability and counts as nothing here.",
        "{value} refunds were prevented without a probability and count as nothing here.",
    )


def problem_in_words(problem: str, language: Language) -> str:
    """Why nothing is said of drift."""
    return {
        "other_catalog": language.say("the features of the two periods are not the same, as "
                                      "another model or program counted them"),
        "other_model": language.say("another model scored the period before"),
        "too_few": language.say("there are too few customers in one of the periods"),
        "not_scored": language.say("there are no scored refunds in one of the periods"),
    }[problem]  # fmt: skip


def rules_in_short(report: PeriodReport, language: Language) -> Iterator[str]:
    """The rules that hit most often, a line each below a heading."""
    if report.rules:
        yield language.say("rules that hit most often:")
    for one in report.rules[:_MOST_LINES]:
        hits = language.say_of(one.hits, "{value} hit", "{value} hits")
        if not one.labelled:
            yield "  " + language.say("{rule}: {hits}, no label yet", rule=one.rule_id, hits=hits)
            continue
        yield "  " + language.say(
            "{rule}: {hits}, {precision} of {labelled} with a label are abuse", rule=one.rule_id,
            hits=hits, precision=language.share(one.precision.value),
            labelled=language.count(one.labelled),
        )  # fmt: skip


def drift_in_short(report: PeriodReport, language: Language) -> str:
    """What moved, in one sentence."""
    drift = report.drift
    if drift.problem is not None:
        return language.say("Drift cannot be told: {why}.",
                            why=problem_in_words(drift.problem, language))  # fmt: skip
    surely = sum(one.surely for one in drift.features)
    return language.say_of(
        len(drift.drifted),
        "{value} of {all} features is over its own threshold, {surely} surely moved.",
        "{value} of {all} features are over their own thresholds, {surely} surely moved.",
        all=language.count(len(drift.features)), surely=language.count(surely),
    )  # fmt: skip


def calibration_in_short(report: PeriodReport, language: Language) -> str:
    """Whether the model can be believed, in one sentence."""
    return fit_in_words(report.calibration.weighted or report.calibration.whole, language)


def reviews_in_short(report: PeriodReport, language: Language) -> str:
    """What became of the refunds held, in one sentence."""
    found = report.reviews
    if not found.whole.reviewed:
        return language.say_of(
            found.held, "{value} refund was held for review and none has a verdict.",
            "{value} refunds were held for review and none has a verdict.",
        )  # fmt: skip
    return language.say_of(
        found.held,
        "{value} refund was held for review, {reviewed} have a verdict, {share} of these "
        "confirmed as abuse; half took less than {hours}.",
        "{value} refunds were held for review, {reviewed} have a verdict, {share} of these "
        "confirmed as abuse; half took less than {hours}.",
        reviewed=language.count(found.whole.reviewed), share=language.share(found.whole.share),
        hours=language.duration(found.hours_median / 24),
    )  # fmt: skip
