"""What the page of a customer draws: the history in lanes, refunds by amount, linked accounts.

All that is drawn is told in tables, too; each drawing says what it shows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final

from markupsafe import Markup

from serving.customer import CustomerFile, RefundTold, Standing
from serving.explanation import drawing
from serving.explanation.drawing import Dot
from serving.explanation.page import graph_label
from serving.explanation.parts import LANES
from serving.language import Language
from serving.seen import seen

LOOKS: Final[dict[Standing, tuple[str, bool]]] = {
    "paid": ("plain", False), "refused": ("bad", False), "waiting": ("wait", False),
    "promised": ("wait", True), "ended": ("plain", True),
}  # fmt: skip
"""The tone, and so the shape and colour, of a refund's mark, and whether it is hollow."""


def standing_name(standing: Standing, language: Language) -> str:
    """Where a refund stands, as a reader calls it.

    >>> from serving.language import ENGLISH
    >>> standing_name("waiting", ENGLISH)
    'waiting for a person'
    """
    return {
        "paid": language.say("paid"), "refused": language.say("refused"),
        "waiting": language.say("waiting for a person"),
        "promised": language.say("open, not paid yet"),
        "ended": language.say("cancelled"),
    }[standing]  # fmt: skip


def history(told: CustomerFile, language: Language) -> Markup | None:
    """The rows of a page of the history in lanes over time; None for fewer than two."""
    moments = seen(told.history.moments)
    if len(moments) < 2:
        return None
    count = Counter(one.lane for one in moments)
    lanes = [
        language.say("{lane}: {number}", lane=drawing.lane_name(lane, language),
                     number=language.count(count[lane]))
        for lane in LANES if count[lane]
    ]  # fmt: skip
    label = language.say(
        "Events over time, from {first} to {last}: {lanes}. The table below tells each.",
        first=language.day(moments[0].at), last=language.day(moments[-1].at),
        lanes=", ".join(lanes),
    )  # fmt: skip
    return drawing.timeline(moments, None, language, label)


def refunds(told: CustomerFile, currency: str, language: Language) -> Markup | None:
    """The latest refunds by time and amount, in the base currency; None for fewer than two."""
    many = [one for one in told.refunds if one.base_minor is not None]
    if len(many) < 2:
        return None
    count = Counter(one.standing for one in many)
    said = [
        language.say("{what}: {number}", what=standing_name(standing, language),
                     number=language.count(count[standing]))
        for standing in LOOKS if count[standing]
    ]  # fmt: skip
    label = language.say(
        "Refunds by time and amount, from {first} to {last}; {counts}. The table below tells each.",
        first=language.day(many[-1].refund.at), last=language.day(many[0].refund.at),
        counts=", ".join(said),
    )  # fmt: skip
    return drawing.dots([_dot(one, currency, language) for one in reversed(many)], currency,
                        language, label)  # fmt: skip


def _dot(one: RefundTold, currency: str, language: Language) -> Dot:
    tone, is_hollow = LOOKS[one.standing]
    minor = one.base_minor or 0.0
    said = language.say(
        "{refund}, {day}: {amount}, {standing}", refund=seen(drawing.cut(one.refund.refund_id)),
        day=language.day(one.refund.at), amount=language.money(minor, currency),
        standing=standing_name(one.standing, language),
    )  # fmt: skip
    return Dot(one.refund.at, minor, tone, said, is_hollow, bool(one.is_abuse))


def graph(told: CustomerFile, language: Language) -> Markup | None:
    """The customer, what leads to others, and these; None where nothing does."""
    links = told.links
    if not links.accounts:
        return None
    leading = {value for one in links.accounts for value in one.through}
    drawn = replace(links, hubs=tuple(hub for hub in links.hubs if hub.value in leading))
    return drawing.graph(drawn, language, graph_label(drawn, language))
