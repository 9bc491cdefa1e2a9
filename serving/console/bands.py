"""The bands of a policy as a picture: which scores call for what, by probability and by loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from markupsafe import Markup

from rules.document import Band
from serving.explanation.drawing import tag
from serving.explanation.words import action_name
from serving.language import Language

HEIGHT: Final = 170
_TOP, _BOTTOM, _LEFT, _RIGHT = 6, 140, 16.0, 98.0
_APART, _OF_ENDS, _ABOVE = 8.0, 13.0, 14
"""Figures of an axis that are nearer than so many per cent, or pixels, are not both written."""

_TONES: Final = {"MANUAL_REVIEW": "wait", "PREVENT": "bad"}


def in_words(band: Band, currency: str, language: Language) -> str:
    """From where on a band holds, as a sentence.

    >>> from serving.language import ENGLISH
    >>> band = Band(action="PREVENT", probability_at_least=0.8, expected_loss_minor_at_least=2000)
    >>> in_words(band, "GBP", ENGLISH)
    'Prevent at a probability of 80 % and an expected loss of 20.00 GBP, or more'
    """
    action = action_name(band.action, language)
    chance, loss = band.probability_at_least, band.expected_loss_minor_at_least
    share = language.share(chance, 0 if chance is None or round(chance, 2) == chance else 2)
    money = language.money(loss, currency)
    if loss is None:
        return language.say(
            "{action} at a probability of {share} or more", action=action, share=share
        )
    if chance is None:
        return language.say("{action} at an expected loss of {money} or more", action=action,
                            money=money)  # fmt: skip
    return language.say(
        "{action} at a probability of {share} and an expected loss of {money}, or more",
        action=action, share=share, money=money,
    )  # fmt: skip


def drawn(bands: Sequence[Band], currency: str, language: Language) -> Markup | None:
    """Probability to the right, expected loss upwards by its order of magnitude; None of none.

    The bands are to be told in words beside it.
    """
    if not bands:
        return None
    losses = sorted({loss for band in bands if (loss := band.expected_loss_minor_at_least)})
    low, high = (losses[0] / 4, losses[-1] * 6) if losses else (1.0, 10.0)
    parts = [tag("rect", x=f"{_LEFT}%", y=_TOP, width=f"{_RIGHT - _LEFT}%", height=_BOTTOM - _TOP,
                 class_="track")]  # fmt: skip
    for band in bands:
        left = _across(band.probability_at_least or 0)
        bottom = _up(band.expected_loss_minor_at_least or 0, low, high)
        parts.append(tag(
            "rect", x=f"{left:.2f}%", y=_TOP, width=f"{_RIGHT - left:.2f}%",
            height=round(bottom - _TOP, 1), class_=f"band {_TONES[band.action]}",
        ))  # fmt: skip
    chances = sorted({band.probability_at_least or 0 for band in bands})
    parts += _figures_across(chances, language)
    parts += _figures_up(losses, low, high, currency, language)
    label = language.say("The bands by probability of abuse and expected loss, told beside it.")
    return tag("svg", *parts, class_="drawn bands", width="100%", height=HEIGHT, role="img",
               aria_label=label)  # fmt: skip


def _figures_across(chances: Sequence[float], language: Language) -> Iterator[Markup]:
    """The thresholds, and then the ends where there is room for them."""
    shown: list[float] = []
    for chance in (*chances, 0.0, 1.0):
        x = _across(chance)
        room = _APART if chance in chances else _OF_ENDS
        if all(abs(x - other) >= room for other in shown):
            shown.append(x)
            anchor = "end" if chance == 1 else "start" if chance == 0 else "middle"
            yield tag("text", language.share(chance), x=f"{x:.2f}%", y=_BOTTOM + 16, class_="soft",
                      text_anchor=anchor)  # fmt: skip


def _figures_up(
    losses: Sequence[float], low: float, high: float, currency: str, language: Language
) -> Iterator[Markup]:
    shown = float(HEIGHT)
    for loss in losses:
        y = _up(loss, low, high)
        if shown - y >= _ABOVE:
            shown = y
            yield tag("text", language.money(loss, currency), x=f"{_LEFT - 1}%", y=round(y + 4, 1),
                      class_="soft", text_anchor="end")  # fmt: skip


def _across(chance: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * chance


def _up(loss: float, low: float, high: float) -> float:
    share = math.log(max(loss, low) / low) / math.log(high / low)
    return _BOTTOM - (_BOTTOM - _TOP) * share
