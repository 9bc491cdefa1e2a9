"""What raised the risk of one request and what lowered it: every reason, with the facts behind it.

Grouped as `serving.reasons` groups what an answer tells: the same code has the same weight here,
and its first fact is the one that the answer tells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from features.feature import Feature
from features.kernels import FloatArray, IntArray
from serving.codes import name_of_code
from serving.explanation.parts import FactTold, ReasonTold
from serving.language import Language
from serving.model import Reference
from serving.reasons import Ranking, told_value

LEAST_SHARE: Final = 0.02
"""Facts that weigh less than this part of their reason are left out."""

LEAST_WAY: Final = 0.05
"""A score that is nearer to the base rate than this (log-odds) is no way to have shares of."""

ONLY_GROWS: Final = frozenset({
    "registered_age_days", "customer_first_seen_age_days", "email_first_seen_age_days",
})  # fmt: skip
"""What was less at every earlier request of the customer: that it was so tells nothing."""


def told(
    features: Sequence[Feature],
    values: FloatArray,
    contributions: FloatArray,
    past: FloatArray,
    reference: Reference | None,
    currency: str,
    language: Language,
) -> tuple[tuple[ReasonTold, ...], tuple[ReasonTold, ...]]:
    """The reasons that raise the risk, and those that lower it, each the strongest first.

    ``values`` and ``contributions`` (n,) are one row in the order of ``features``, NaN where there
    is no value, and log-odds; ``past`` (k, n) are the same values at the customer's earlier
    requests. ``reference`` may be that of another model of these features, or None: then nothing
    says where a value stands.
    """
    ranking = Ranking(features, reference, currency, language)
    code_of = ranking.grouped(values)
    weights = np.bincount(code_of, contributions, len(ranking.codes))
    first = np.full(len(ranking.codes), len(code_of))
    np.minimum.at(first, code_of, np.arange(len(code_of)))
    way = float(contributions.sum())
    strongest = np.lexsort((first, -np.abs(weights))).tolist()
    reasons = [
        ReasonTold(
            code=ranking.codes[code],
            name=name_of_code(ranking.codes[code], language),
            contribution=float(weights[code]),
            share=float(weights[code]) / way if abs(way) >= LEAST_WAY else None,
            facts=_once_each(
                _fact(ranking, place, values, float(contributions[place]), past)
                for place in _weighty(np.flatnonzero(code_of == code), contributions, weights[code])
            ),
        )
        for code in strongest
        if weights[code] != 0
    ]
    return (
        tuple(reason for reason in reasons if reason.contribution > 0),
        tuple(reason for reason in reasons if reason.contribution < 0),
    )


def _weighty(places: IntArray, contributions: FloatArray, weight: float) -> list[int]:
    """The facts of a reason that weigh something beside it: first what leads where it leads."""
    leading = contributions[places] * np.sign(weight)
    ranked = places[np.argsort(-leading, kind="stable")]
    strong = np.abs(contributions[ranked]) >= LEAST_SHARE * abs(weight)
    strong[0] = True
    return [int(place) for place in ranked[strong]]


def _once_each(facts: Iterable[FactTold]) -> tuple[FactTold, ...]:
    """What several features say in the same words is said once: a dozen lack the same address."""
    told: dict[str, FactTold] = {}
    for fact in facts:
        told.setdefault(fact.sentence, fact)
    return tuple(told.values())


def _fact(
    ranking: Ranking, place: int, values: FloatArray, contribution: float, past: FloatArray
) -> FactTold:
    feature, value = ranking.features[place], float(values[place])
    return FactTold(
        feature=feature.name,
        sentence=ranking.sentence(place, values),
        value=told_value(feature, value),
        contribution=contribution,
        standing=ranking.standing(place, value),
        own_past=own_past_of(feature, value, past[:, place], ranking.currency, ranking.language),
    )


def own_past_of(
    feature: Feature, value: float, past: FloatArray, currency: str, language: Language
) -> str | None:
    """What a feature's value was at the customer's earlier requests (k,), beside what it is now.

    None where there is nothing to compare: no earlier request, or none with a known value.

    >>> from features.catalog import BY_NAME
    >>> from serving.language import ENGLISH
    >>> amount, before = BY_NAME["payable_minor"], np.array([1500.0, 2500.0])
    >>> own_past_of(amount, 129_900.0, before, "GBP", ENGLISH)
    "more than at any of this customer's last 2 requests: at most 25.00 GBP"
    >>> own_past_of(amount, 2_000.0, before, "GBP", ENGLISH)
    "15.00 GBP to 25.00 GBP at this customer's last 2 requests"
    """
    known = past[~np.isnan(past)]
    if math.isnan(value) or not len(known) or feature.name in ONLY_GROWS:
        return None
    if feature.unit in ("code", "flag"):
        return _same_before(int((known == value).sum()), len(known), language)
    least, most = float(known.min()), float(known.max())
    low, high = (language.value(one, feature.unit, currency) for one in (least, most))
    if low == high == language.value(value, feature.unit, currency):
        return language.say_of(
            len(known),
            "the same at this customer's last request",
            "the same at this customer's last {value} requests",
        )
    if value > most:
        return _more(feature.unit, high, len(known), language)
    if value < least:
        return _less(feature.unit, low, len(known), language)
    return language.say_of(
        len(known),
        "{low} to {high} at this customer's last request",
        "{low} to {high} at this customer's last {value} requests",
        low=low,
        high=high,
    )


def _same_before(same: int, requests: int, language: Language) -> str:
    if same == requests:
        return language.say_of(
            requests,
            "the same at this customer's last request",
            "the same at this customer's last {value} requests",
        )
    if same == 0:
        return language.say_of(
            requests,
            "not so at this customer's last request",
            "not so at any of this customer's last {value} requests",
        )
    return language.say_of(
        requests,
        "the same at {same} of this customer's last {value} request",
        "the same at {same} of this customer's last {value} requests",
        same=language.count(same),
    )


def _more(unit: str, most: str, requests: int, language: Language) -> str:
    if unit == "days":
        return language.say_of(
            requests,
            "longer than at this customer's last request: {most}",
            "longer than at any of this customer's last {value} requests: at most {most}",
            most=most,
        )
    return language.say_of(
        requests,
        "more than at this customer's last request: {most}",
        "more than at any of this customer's last {value} requests: at most {most}",
        most=most,
    )


def _less(unit: str, least: str, requests: int, language: Language) -> str:
    if unit == "days":
        return language.say_of(
            requests,
            "shorter than at this customer's last request: {least}",
            "shorter than at any of this customer's last {value} requests: at least {least}",
            least=least,
        )
    if unit == "count":
        return language.say_of(
            requests,
            "fewer than at this customer's last request: {least}",
            "fewer than at any of this customer's last {value} requests: at least {least}",
            least=least,
        )
    return language.say_of(
        requests,
        "less than at this customer's last request: {least}",
        "less than at any of this customer's last {value} requests: at least {least}",
        least=least,
    )
