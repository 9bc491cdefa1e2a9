"""Figures and findings of a training run in the words of its report; what is unknown is said so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from features.catalog import BY_NAME
from rules.decision import Action
from rules.document import Band
from serving.language import ENGLISH, NBSP
from training.bands import Outcome
from training.baselines import BlueprintCost
from training.bootstrap import Interval
from training.labels import CENSORED, IGNORED, IMMATURE
from training.report import TrainedReport

NOT_KNOWN: Final = "not known"
_ENDLESS: Final = "without end"
DAYS_PER_MONTH: Final = 365.25 / 12
FEW_POSITIVES: Final = 200
"""Fewer cases of abuse in the test than these: read the intervals, not the figures."""

SLOPE: Final = (0.9, 1.1)
"""Within these a calibration slope is as good as 1."""

LEAK: Final = "Until the leak is settled no figure of this page is to be believed, money included."

BASELINES: Final[Mapping[str, str]] = {
    "blueprint_score": "the blueprint's score",
    "blueprint_score_ip_high": "the blueprint's score, an unknown IP address taken for risky",
    "logistic_regression": "a logistic regression on the same features",
    "amount_alone": "the amount alone",
    "champion": "the present champion",
}
_SIGNALS: Final[Mapping[str, str]] = {
    "amount": "the amount", "account_age": "the age of the account",
    "ip_risk": "the reputation of the IP address",
}  # fmt: skip
Tone = Literal["good", "bad", "wait"]
Text = Callable[[float], str]


# --- numbers -------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many digits behind the point.

    >>> number(0.47774), number(float("nan")), number(None)
    ('0.478', 'not known', 'not known')
    """
    return _ENDLESS if _is_endless(value) else ENGLISH.number(value, digits)


def _is_endless(value: float | None) -> bool:
    return value is not None and math.isinf(value)


def signed(value: float | None, digits: int = 3) -> str:
    """A gain with its sign.

    >>> signed(0.4), signed(-0.024), signed(None)
    ('+0.400', '-0.024', 'not known')
    """
    return number(value, digits) if value is None else ENGLISH.signed(value, digits)


def count(value: float | None) -> str:
    """A number of things, with a digit behind the point where it is small and no whole one.

    >>> count(7233.0), count(3.62), count(1234.5), count(97.99)
    ('7,233', '3.6', '1,234', '98')
    """
    return _ENDLESS if _is_endless(value) else ENGLISH.count(value)


def percent(value: float | None, digits: int = 1) -> str:
    r"""A share in per cent, held together by a space that does not break.

    >>> percent(0.0348), percent(None)
    ('3.5\xa0%', 'not known')
    """
    return ENGLISH.share(value, digits).replace(" %", f"{NBSP}%")


def span(interval: Interval | Mapping[str, float | None] | None, text: Text = number) -> str:
    """An interval; what is unknown at either end makes it unknown.

    >>> span(Interval(0.402, 0.543)), span({"low": None, "high": 1.0})
    ('0.402 to 0.543', 'not known')
    """
    if interval is None:
        return NOT_KNOWN
    ends = (interval.low, interval.high) if isinstance(interval, Interval) else interval.values()
    low, high = (text(math.nan if end is None else end) for end in ends)
    return NOT_KNOWN if NOT_KNOWN in (low, high) else f"{low} to {high}"


def amount(minor: float | None, currency: str) -> str:
    r"""Money as `Language.money` writes it, held together by a space that does not break.

    >>> amount(120801.9, "GBP"), amount(float("nan"), "GBP")
    ('1,208.02\xa0GBP', 'not known')
    """
    text = ENGLISH.money(minor, currency)
    return text if text == NOT_KNOWN else text.replace(" ", NBSP)


def amount_of(currency: str) -> Text:
    r"""Amounts of a currency, as `span` takes it.

    >>> span(Interval(100.0, 250.0), amount_of("GBP"))
    '1.00\xa0GBP to 2.50\xa0GBP'
    """
    return partial(amount, currency=currency)


two_digits: Final[Text] = partial(number, digits=2)


def things(how_many: float, one: str, many: str | None = None) -> str:
    """A number and its noun.

    >>> things(1, "day"), things(2, "refusal"), things(3, "case of abuse", "cases of abuse")
    ('1 day', '2 refusals', '3 cases of abuse')
    """
    return f"{count(how_many)} {one if how_many == 1 else many or one + 's'}"


def listed(parts: Sequence[str]) -> str:
    """Parts in one sentence.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    return ENGLISH.listed(parts)


def capital(sentence: str) -> str:
    """A sentence's first letter raised, unless it begins with a name such as a feature's.

    >>> capital("the AP is 0.5"), capital("ip_risk tells too much")
    ('The AP is 0.5', 'ip_risk tells too much')
    """
    first = sentence.partition(" ")[0]
    return sentence if "_" in first else sentence[:1].upper() + sentence[1:]


# --- features ------------------------------------------------------------------------------------


def feature_sentence(name: str) -> str:
    """What a feature says, with … for its number; the name itself where the catalog has none.

    >>> feature_sentence("refund_count_by_customer_30d")
    '… earlier refund requests by this customer in 30 days'
    """
    feature = BY_NAME.get(name)
    return name if feature is None else feature.sentence.many.replace("{value}", "…")


def feature_unit(name: str, currency: str) -> str:
    """The unit of a feature's axis.

    >>> feature_unit("payable_minor", "GBP"), feature_unit("refund_count_by_customer_30d", "GBP")
    ('GBP', 'number')
    """
    feature = BY_NAME.get(name)
    return NOT_KNOWN if feature is None else {
        "count": "number", "minor": currency, "days": "days", "share": "%", "ratio": "times",
        "flag": "no or yes", "code": "word", "bits": "bits",
    }[feature.unit]  # fmt: skip


def feature_value(name: str, value: float, currency: str) -> str:
    r"""A feature's value as a person reads it.

    >>> feature_value("payable_minor", 1250.0, "GBP"), feature_value("reason", float("nan"), "GBP")
    ('12.50 GBP', 'not known')
    """
    feature = BY_NAME.get(name)
    if math.isnan(value):
        return NOT_KNOWN
    if feature is None or feature.unit == "code":
        return number(value, 2)
    return ENGLISH.value(value, feature.unit, currency)


# --- bands ---------------------------------------------------------------------------------------


def bands_in_words(bands: Sequence[Band], currency: str) -> list[str]:
    r"""Bands as sentences, the severe ones first.

    >>> bands_in_words([Band(action="PREVENT", probability_at_least=0.9)], "GBP")
    ['Prevent from a probability of abuse of 90\xa0% on.', 'Pay every other refund.']
    """
    verbs = {Action.PREVENT: "Prevent", Action.MANUAL_REVIEW: "Send to review"}
    said = []
    for band in sorted(bands, key=lambda band: -band.action.severity):
        least = []
        if band.expected_loss_minor_at_least is not None:
            least.append(
                f"an expected loss of {amount(band.expected_loss_minor_at_least, currency)}"
            )
        if band.probability_at_least is not None:
            digits = 0 if (100 * band.probability_at_least) % 1 < 1e-9 else 2
            share = percent(band.probability_at_least, digits)
            least.append(f"a probability of abuse of {share}")
        said.append(f"{verbs[band.action]} from {listed(least)} on.")
    return [*said, "Pay every other refund." if said else "Pay every refund."]


# --- what a manager asks -------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """An answer: good, bad or wait, in a few words, and the sentences behind it."""

    tone: Tone
    title: str
    says: tuple[str, ...]


def verdict(report: TrainedReport) -> Finding:
    """Whether the model was registered and serves, or every reason why not."""
    if report.model_version is None:
        reasons = [f"{capital(refusal)}." for refusal in report.refusals]
        return Finding("bad", "Not registered", (*reasons, *([LEAK] if report.leaks.leaks else [])))
    version = f"version {report.model_version}"
    if report.champion:
        return Finding("good", f"Registered as {version}, now champion", (
            "It is the first model of this home, so it serves already.",
        ))  # fmt: skip
    return Finding("wait", f"Registered as {version}, not yet champion", (
        "The present champion goes on deciding until somebody promotes this version.",
    ))  # fmt: skip


def refunds_per_month(outcome: Outcome) -> float:
    """How many refunds of known amount a month of the test has."""
    return (outcome.refunds.count - outcome.amount_unknown) / outcome.days * DAYS_PER_MONTH


def cheapest(costs: Sequence[BlueprintCost]) -> BlueprintCost | None:
    """The reading of the blueprint that costs least: the hardest to beat."""
    known = [one for one in costs if math.isfinite(one.cost_per_1000_minor)]
    return min(known, key=lambda one: one.cost_per_1000_minor, default=None)


@dataclass(frozen=True)
class Saving:
    """What the proposed bands save beside another way of deciding, in minor units."""

    instead_of: str
    cost_per_1000_minor: float
    saved_per_1000_minor: float
    saved_per_month_minor: float


def savings(report: TrainedReport) -> tuple[Saving, ...]:
    """Against paying all, the blueprint, and this model at the current policy's bands."""
    ours = report.outcome.cost_minor_per_1000
    others = [("paying every refund", report.outcome_of_paying_all.cost_minor_per_1000)]
    blueprint = cheapest(report.blueprint_costs)
    if blueprint is not None:
        others.append(
            ("the blueprint's score at its own bands, in its cheapest reading",
             blueprint.cost_per_1000_minor)
        )  # fmt: skip
    others.append(
        (f"this model at the bands of policy {report.policy_version}",
         report.outcome_of_policy.cost_minor_per_1000)
    )  # fmt: skip
    thousands = refunds_per_month(report.outcome) / 1000
    return tuple(
        Saving(name, theirs, theirs - ours, (theirs - ours) * thousands) for name, theirs in others
    )


def stopped_share(outcome: Outcome) -> tuple[float, float]:
    """Of the abuse, the share of cases, and of money, that is held or prevented; NaN of none."""
    parts = (outcome.abuse_held, outcome.abuse_prevented)
    every = (*parts, outcome.abuse_paid)

    def share(of: str) -> float:
        total = sum(getattr(one, of) for one in every)
        return sum(getattr(one, of) for one in parts) / total if total else math.nan

    return share("count"), share("payable_minor")


def workload(report: TrainedReport) -> str:
    """How much abuse the proposed bands stop, and what that asks of desk and customers."""
    led_to = report.outcome
    cases, value = stopped_share(led_to)
    found = led_to.abuse_held.count + led_to.abuse_prevented.count
    every = found + led_to.abuse_paid.count
    held = led_to.held.count
    hits = percent(led_to.abuse_held.count / held, 0) if held else NOT_KNOWN
    return (
        f"With {count(led_to.reviews_per_day)} reviews a day and "
        f"{things(led_to.prevented.count, 'refusal')} in {count(led_to.days)} days, the proposed "
        f"bands stop {count(found)} of {things(every, 'case of abuse', 'cases of abuse')} "
        f"({percent(cases, 0)}), and {percent(value, 0)} of the money in them. Of the refunds "
        f"reviewed {hits} are abuse; {things(led_to.honest_prevented.count, 'honest refund')} "
        f"{'is' if led_to.honest_prevented.count == 1 else 'are'} refused."
    )


def believed(report: TrainedReport) -> Finding:
    """Whether a probability can be taken at its word: mean, slope and its interval."""
    figures, slope = report.judgement.figures, report.judgement.intervals["calibration_slope"]
    sloped = number(figures.calibration_slope, 2)
    said = (
        f"On average it says {percent(figures.mean_probability)}, and "
        f"{percent(figures.prevalence)} were abuse. The calibration slope is {sloped} "
        f"({span(slope, two_digits)}); 1 is perfect."
    )
    value = figures.calibration_slope
    if report.leaks.leaks:
        return Finding("bad", "Not while there is a leak", (said,))
    if math.isnan(value) or math.isnan(slope.low):
        return Finding("wait", "Cannot be told", ("The test settles no calibration slope.",))
    low, high = SLOPE
    if low <= value <= high:
        return Finding("good", "Yes", (said,))
    if slope.low <= 1 <= slope.high:
        return Finding("wait", "Perhaps: too few cases to tell", (said,))
    how = "high probabilities are too high and low ones too low" if value < 1 else (
        "high probabilities are too low and low ones too high")  # fmt: skip
    return Finding("bad", "With care", (said, f"{capital(how)}: thresholds in money miss by that."))


def next_steps(report: TrainedReport, proposal: str) -> list[tuple[str, str]]:
    """What to do now: a sentence and, where there is one, the command."""
    if report.model_version is None:
        return [
            ("Settle every reason above. A suspect of the leak detector that was truly known in "
             "time may be vouched for with --trust.", ""),
            ("Train again. Until then the present champion, or the policy alone, decides.", ""),
        ]  # fmt: skip
    steps = []
    if not report.champion:
        number = report.model_version
        steps += [
            ("Watch it beside the champion on live requests, without acting on it.",
             f"recourse challenger set {number}"),
            ("Promote it: the gate compares it with the champion and lists every objection.",
             f"recourse promote {number}"),
        ]  # fmt: skip
    return [
        *steps,
        (f"Review the proposed policy, {proposal} beside this page, and try it on past decisions. "
         "Nothing changes until somebody activates it.", f"recourse policy check {proposal}"),
    ]  # fmt: skip


def caveats(report: TrainedReport) -> Iterator[str]:
    """What a reader should keep in mind, in sentences."""
    yield from (f"{capital(doubt)}." for doubt in report.doubts)
    if report.n_positives_test < FEW_POSITIVES:
        few = things(report.n_positives_test, "case of abuse", "cases of abuse")
        yield f"The test has {few}: read the intervals, not the figures."
    yield from _about_labels(report)
    yield from _about_the_desk(report.outcome)
    for leak in report.leaks.trusted:
        yield f"Somebody vouched for {leak.suspect}, which the leak detector suspects: {leak.says}."
    if report.drift.score.drifted:
        yield ("The score itself has moved from training to test further than chance brings about: "
               "see the drift below.")  # fmt: skip
    if (unknown := report.outcome.amount_unknown) > 0:
        yield (f"Of {things(unknown, 'refund')} of the test the amount is not known in "
               f"{report.base_currency}: they are in no figure of money.")  # fmt: skip
    yield ("Money is counted on refunds whose label is known. A review is taken to find the truth, "
           "and rules, lists and analysts are left out.")  # fmt: skip


def _about_labels(report: TrainedReport) -> Iterator[str]:
    labels = report.test_labels
    censored = labels.get(CENSORED, {}).get("refunds", 0)
    mature = sum(of["refunds"] for basis, of in labels.items() if basis not in (IMMATURE, IGNORED))
    if not censored:
        return
    yield (
        f"{things(censored, 'mature refund')} of {count(mature)} in the test "
        f"({percent(censored / mature)}) were not paid and never labelled: nobody saw what they "
        "would have been, and they are in no figure. "
        + (
            "The data hold no decisions with their propensities, so nothing makes up for that."
            if report.weighted is None
            else f"Weighted figures, which speak for "
            f"{percent(report.weighted['coverage']['covered_share'])} of the refunds, stand under "
            "Data."
        )
    )


def _about_the_desk(led_to: Outcome) -> Iterator[str]:
    desk = led_to.desk
    if desk is not None and desk.days_over:
        yield (
            f"On {things(desk.days_over, 'day')} of {count(desk.days)} more refunds called for a "
            f"review than the desk takes ({count(desk.reviews_per_day_at_most)}); at worst "
            f"{count(desk.largest_backlog)} were left waiting."
        )


def blueprint_unknown(report: TrainedReport) -> list[str]:
    """For which of the blueprint's signals how much is unknown, and what that does to it."""
    said = []
    for signal, share in report.blueprint_unknown.items():
        if not share > 0:
            continue
        known = (
            f"{capital(_SIGNALS.get(signal, signal))} is not known for {percent(share)} of the "
            "test refunds"
        )
        said.append(
            f"{known}: there its ten points are unknown, and the score is given twice, "
            "without them and with them." if signal == "ip_risk"
            else f"{known}: there it gets no points."
        )  # fmt: skip
    return said
