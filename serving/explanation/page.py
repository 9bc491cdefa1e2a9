"""The page of an explanation: one HTML file that needs nothing else, the verdict first.

How it is laid out lies in ``serving/templates/explanation*.html.j2``, what is drawn in
`serving.explanation.drawing`. The page of a case holds the same, as a `Report`. All text is data:
it is escaped, whoever wrote it, and a character that shows nothing or turns the direction of what
follows is written by its number.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple, cast

import orjson
from jinja2 import Environment
from markupsafe import Markup

from features.money import DAY_MS
from rules.decision import Action, Source
from serving.explanation import drawing, words
from serving.explanation.curve import Curve
from serving.explanation.drawing import Step, cut
from serving.explanation.parts import LANES, Explanation, Links, Moment, ReasonTold, RuleTold
from serving.language import Language
from serving.pages import TEMPLATES, environment
from serving.seen import seen

STYLE: Final = "".join(
    (TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "explanation.css")
)
"""The one style sheet of the page."""

STYLE_POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src "
    f"'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)
"""The page's Content-Security-Policy: its own style sheet, and nothing else at all."""

MOST_STEPS: Final = 10
"""So many reasons stand in the waterfall; the others are gathered behind them."""

MOST_NAMED: Final = 3
LONGEST_NAME: Final = 80
LEAST_TOLD: Final = 0.005
"""Reasons that weigh less (log-odds) would be told as 0.00: they are counted only."""
"""So many reasons are named beside the verdict."""

CLOSER_DAYS: Final = 30
"""A long history is drawn a second time, of so many days before the decision alone."""

_LONG_DAYS, _FEW = 120, 4
_TONES: Final = {Action.ALLOW: "good", Action.PREVENT: "bad"}


def render(explanation: Explanation, language: Language) -> str:
    """The page of one explanation, as HTML."""
    return _pages(language).get_template("explanation.html.j2").render(_told(explanation, language))


class Report(NamedTuple):
    """An explanation as parts of a page: verdict, reasons, what else is told, and where that is.

    Each begins with a heading of the second level, in an element of the class ``report``; their
    styles are those of ``explanation.css``. ``sections`` are ids with their names, the reasons'
    first.
    """

    verdict: Markup
    reasons: Markup
    body: Markup
    sections: tuple[tuple[str, str], ...]


def report(explanation: Explanation, language: Language, customer_link: str) -> Report:
    """An explanation for the page of a case, which tells itself what people did.

    ``customer_link`` is the address of the page of the customer.
    """
    told = _told(explanation, language, customer_link)
    verdict, reasons, body = (
        Markup(_pages(language).get_template(f"explanation_{part}.html.j2").render(told))
        for part in ("verdict", "reasons", "body")
    )  # fmt: skip
    return Report(verdict, reasons, body, told["sections"])


def _told(
    explanation: Explanation, language: Language, customer_link: str | None = None
) -> dict[str, Any]:
    """What the templates tell; only the page of a case has a link to that of the customer."""
    told, is_case = seen(explanation), customer_link is not None
    return {
        "e": told, "is_case": is_case, "sections": _sections(language, is_case),
        "customer_link": customer_link,
        **_reasons(told, language), **_drawn(told, language), **_rules(told.rules),
    }  # fmt: skip


@lru_cache(8)
def _pages(language: Language) -> Environment:
    """The templates that speak a language."""
    pages = environment(language=language)
    pages.filters |= {
        name: partial(named, language=language)
        for name, named in {
            "action": words.action_name, "source": words.source_name,
            "risk_level": words.risk_level_name, "follow_up": words.follow_up_name,
        }.items()
    }  # fmt: skip
    pages.tests["telling"] = lambda weight: abs(weight) >= LEAST_TOLD
    pages.filters |= {"missing": partial(words.missing, language=language)}
    pages.filters |= {"cut": cut, "capital": capital, "plain": plain}
    pages.globals |= {
        "tone": tone, "icon": drawing.icon, "sign": drawing.sign, "bar": drawing.bar,
        "meter": drawing.meter, "style": Markup(STYLE),
        "share_of": partial(share_of, language=language),
        "legend": [
            ("plain", language.say("happened")), ("good", language.say("good for the shop")),
            ("wait", language.say("still open")), ("bad", language.say("bad for the shop")),
        ],
    }  # fmt: skip
    return pages


def _sections(language: Language, is_case: bool) -> tuple[tuple[str, str], ...]:
    """Where the parts below the verdict stand, and what they are called."""
    return (
        ("reasons", language.say("Reasons")),
        ("change", language.say("What would change it")),
        ("way", language.say("From base rate to score")),
        ("history", language.say("History")),
        ("links", language.say("Linked accounts")),
        ("rules", language.say("Rules")),
        ("audit", language.say("Audit log"))
        if is_case
        else ("notes", language.say("Notes and audit")),
        ("versions", language.say("Versions")),
    )


def tone(action: str) -> str:
    """The colour and sign of an action.

    >>> tone("ALLOW"), tone("PREVENT"), tone("MANUAL_REVIEW")
    ('good', 'bad', 'wait')
    """
    return _TONES.get(cast(Action, action), "wait")


def capital(text: str) -> str:
    """A text with a capital letter at its beginning.

    >>> capital("9 requests"), capital("the account is new")
    ('9 requests', 'The account is new')
    """
    return text[:1].upper() + text[1:]


def plain(value: Any) -> str:
    """A value of an audit entry as text.

    >>> plain("a"), plain({"b": [1, None]})
    ('a', '{"b":[1,null]}')
    """
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def share_of(reason: ReasonTold, language: Language) -> str:
    """What part of the way from the base rate to the score a reason makes, in words.

    The score may lie above the base rate or below it; what leads away takes a part back.
    """
    share = reason.share or 0.0
    said = language.share(abs(share))
    match share >= 0, reason.contribution > 0:
        case True, True:
            return language.say("{share} of the way up", share=said)
        case True, False:
            return language.say("{share} of the way down", share=said)
        case False, True:
            return language.say("takes back {share} of the way down", share=said)
        case _:
            return language.say("takes back {share} of the way up", share=said)


# --- what the parts of the page need -------------------------------------------------------------


def _reasons(told: Explanation, language: Language) -> dict[str, Any]:
    """The heaviest weight, what to name of it beside the verdict, and the waterfall, if any."""
    reasons, verdict = _by_weight(told), told.verdict
    is_by_model = verdict.source == Source.MODEL
    named = [
        language.say("{reason} ({weight})", reason=cut(one.name, LONGEST_NAME),
                     weight=language.signed(one.contribution))
        for one in (reasons[:MOST_NAMED] if is_by_model else ())
    ]  # fmt: skip
    return {
        "is_by_model": is_by_model,
        "weightiest": "; ".join(named),
        "heaviest": max((abs(one.contribution) for one in reasons), default=0.0),
        "waterfall": _waterfall(told, reasons, language),
    }


def _by_weight(told: Explanation) -> list[ReasonTold]:
    both = (*told.raising, *told.lowering)
    return sorted(both, key=lambda one: -abs(one.contribution))


def _waterfall(
    told: Explanation, reasons: Sequence[ReasonTold], language: Language
) -> Markup | None:
    base, score, verdict = told.base_log_odds, told.log_odds, told.verdict
    if base is None or score is None:
        return None
    ends = [(at, p) for at, p in ((base, verdict.base_rate), (score, verdict.probability))
            if p is not None]  # fmt: skip
    curve = Curve.of(told.calibration or ends)

    def step(name: str, before: float, after: float) -> Step:
        return Step(name, before, after, language.probability(curve.probability(after)))

    steps, at = [step(language.say("Base rate"), base, base)], base
    for one in reasons[:MOST_STEPS]:
        steps.append(step(one.name, at, at + one.contribution))
        at += one.contribution
    if len(reasons) > MOST_STEPS or abs(score - at) > 1e-6:
        steps.append(step(language.say("Everything else"), at, score))
    steps.append(step(language.say("Score of this refund"), score, score))
    said = "; ".join(
        language.say(
            "{reason}: {probability}", reason=cut(one.name, LONGEST_NAME), probability=one.said
        )
        for one in steps
    )
    label = language.say(
        "From base rate to score, with the probability after each reason: {steps}.", steps=said
    )
    return drawing.waterfall(steps, curve, language, label)


@dataclass(frozen=True, slots=True)
class _Figure:
    drawing: Markup
    caption: str


def _drawn(told: Explanation, language: Language) -> dict[str, Any]:
    names = {hub.value: cut(hub.name, 40) for hub in told.links.hubs}
    return {
        "timelines": list(_timelines(told, language)),
        "graph": drawing.graph(told.links, language, graph_label(told.links, language)),
        "hub_names": lambda through: language.listed([names.get(of, of) for of in through]),
    }


def _timelines(told: Explanation, language: Language) -> Iterator[_Figure]:
    """All of the history; of a long one also what is near the decision, if that is much."""
    moments, decided_at = told.timeline.moments, told.verdict.decided_at
    if len(moments) < 2:
        return
    label = _timeline_label(moments, language)
    caption = language.say(
        "A number in a mark says how many events lie there; a ring is about this very refund or "
        "its order."
    )
    yield _Figure(drawing.timeline(moments, decided_at, language, label), caption)
    near = [one for one in moments if abs(one.at - decided_at) <= CLOSER_DAYS * DAY_MS]
    span = max(decided_at, moments[-1].at) - min(decided_at, moments[0].at)
    if span > _LONG_DAYS * DAY_MS and len(near) > _FEW:
        said = language.say_of(
            CLOSER_DAYS, "A closer look: {value} day before and after the decision.",
            "A closer look: {value} days before and after the decision.",
        )  # fmt: skip
        label = f"{said} {_timeline_label(near, language)}"
        yield _Figure(drawing.timeline(near, decided_at, language, label), said)


def _timeline_label(moments: Iterable[Moment], language: Language) -> str:
    each = list(moments)
    lanes = [
        language.say("{lane}: {number}", lane=drawing.lane_name(lane, language),
                     number=language.count(number))
        for lane in LANES
        if (number := sum(one.lane == lane for one in each))
    ]  # fmt: skip
    return language.say(
        "Events over time, from {first} to {last}: {lanes}. After the decision: {later}.",
        first=language.day(each[0].at), last=language.day(each[-1].at), lanes=", ".join(lanes),
        later=language.count(sum(one.is_later for one in each)),
    )  # fmt: skip


def graph_label(links: Links, language: Language) -> str:
    """What a drawing of linked accounts shows."""
    return language.say(
        "A graph of linked accounts: things the customer used: {hubs}; other accounts that used "
        "them: {accounts}; of these with confirmed abuse: {abuse}. The table below names them.",
        hubs=language.count(len(links.hubs)), accounts=language.count(len(links.accounts)),
        abuse=language.count(sum(one.confirmed_abuse > 0 for one in links.accounts)),
    )  # fmt: skip


def _rules(rules: Sequence[RuleTold]) -> dict[str, list[RuleTold]]:
    """Rules by what they came to, the decisive first."""
    live = [one for one in rules if one.mode != "shadow"]
    return {
        "hit": sorted((one for one in live if one.outcome == "hit"), key=lambda r: not r.decisive),
        "unsettled": sorted((one for one in live if one.outcome == "unknown"),
                            key=lambda r: not r.decisive),
        "shadow": [one for one in rules if one.mode == "shadow" and one.outcome != "miss"],
        "missed": [one for one in rules if one.outcome == "miss"],
    }  # fmt: skip
