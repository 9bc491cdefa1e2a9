"""Contributions to ranked reason codes, each with a sentence in an analyst's language.

Contributions are exact SHAP values in log-odds. Those of one reason code are added up; only codes
that raise the risk are reasons for acting, the strongest first, each told by the feature that
contributed most to it. What is not known is a reason of its own, `NOT_KNOWN`: a prior chargeback
must not be named where the truth is that nobody sent the card.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.attribution import CODES
from features.feature import Aggregate, Feature, Field
from features.kernels import FloatArray, IntArray, compiled
from features.money import MINOR_UNIT_DIGITS

MAX_REASONS: Final = 6

NOT_KNOWN: Final = "NOT_KNOWN"
"""The reason code of features whose value is unknown, whatever they would say if it were known."""

RISK_LEVELS: Final = ((0.99, "highest"), (0.95, "high"), (0.80, "elevated"), (0.50, "low"))
"""Share of refund requests with a lower score, from which a level holds; below all: lowest."""


class Reason(NamedTuple):
    """Why the risk is higher: a code, what it weighs in log-odds, and the fact behind it.

    ``value`` is the feature's number, the word of a coded one, or None where it is unknown.
    """

    code: str
    description: str
    feature: str
    value: float | str | None
    contribution: float


class Ranking:
    """The reason codes of a model's features, told apart once for all rows."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = tuple(features)
        codes = dict.fromkeys(feature.reason_code for feature in features)
        self._codes = (*(code for code in codes if code != NOT_KNOWN), NOT_KNOWN)
        places = {code: place for place, code in enumerate(self._codes)}
        self._code_of = np.array([places[f.reason_code] for f in features], np.int64)

    def reasons(
        self, values: FloatArray, contributions: FloatArray, currency: str, most: int = MAX_REASONS
    ) -> tuple[Reason, ...]:
        """The reason codes that raise the risk, strongest first, at most ``most`` of them.

        ``values`` (n,) and ``contributions`` (n,) are one row in the order of the features; the
        expected value that ends a SHAP row is not part of it, and is not looked at.
        """
        codes, places, weights = _raising(
            self._code_of, values, contributions, len(self._codes), most
        )
        return tuple([
            self._reason(code, place, float(values[place]), currency, weight)
            for code, place, weight in zip(
                codes.tolist(), places.tolist(), weights.tolist(), strict=True
            )
        ])  # fmt: skip

    def _reason(self, code: int, place: int, value: float, currency: str, weight: float) -> Reason:
        feature = self._features[place]
        said = sentence(feature, value, currency)
        return Reason(self._codes[code], said, feature.name, _told(feature, value), weight)


@compiled
def _raising(
    code_of: IntArray, values: FloatArray, contributions: FloatArray, codes: int, most: int
) -> tuple[IntArray, IntArray, FloatArray]:
    """The codes that raise the risk, at most ``most``: their strongest features, what they weigh.

    The heaviest first, of equal ones that whose features begin first. The last of the ``codes`` is
    that of what is not known.
    """
    weights = np.zeros(codes)
    first, strongest = np.full(codes, -1), np.full(codes, -1)
    for place in range(len(code_of)):
        code = codes - 1 if np.isnan(values[place]) else code_of[place]
        weights[code] += contributions[place]
        if first[code] < 0:
            first[code] = strongest[code] = place
        elif contributions[place] > contributions[strongest[code]]:
            strongest[code] = place
    ranked = np.empty(min(most, codes), np.int64)
    for rank in range(len(ranked)):
        best = -1
        for code in range(codes):
            if weights[code] > 0 and first[code] >= 0 and (
                best < 0 or weights[code] > weights[best]
                or (weights[code] == weights[best] and first[code] < first[best])
            ):  # fmt: skip
                best = code
        if best < 0:
            ranked = ranked[:rank]
            break
        ranked[rank] = best
        first[best] = -1
    return ranked, strongest[ranked], weights[ranked]


def sentence(feature: Feature, value: float, currency: str) -> str:
    """What the feature says, its value filled in.

    >>> from features.catalog import BY_NAME
    >>> sentence(BY_NAME["refund_count_by_customer_30d"], 5.0, "GBP")
    '5 earlier refund requests by this customer in 30 days'
    >>> sentence(BY_NAME["payable_minor"], 129_900.0, "GBP")
    'the refund is worth 1,299.00 GBP'
    >>> sentence(BY_NAME["device_first_seen_age_days"], float("nan"), "GBP")
    'not known: this device was first seen … ago'
    """
    if math.isnan(value):
        return "not known: " + feature.sentence.replace("{value}", "…")
    if feature.unit == "code":
        return f"{feature.sentence}: {_told(feature, value)}"
    if feature.unit == "flag" and value == 0:
        return f"not so: {feature.sentence}"
    return feature.sentence.replace("{value}", formatted(value, feature.unit, currency))


def _told(feature: Feature, value: float) -> float | str | None:
    """A value as it is told to whoever does not know the codes: its number, its word, or None."""
    if math.isnan(value):
        return None
    expression = feature.expression
    if feature.unit == "code" and isinstance(expression, Field | Aggregate) and expression.column:
        words = CODES[expression.column]
        return words[int(value)] if value < len(words) else "a value outside the list"
    return value


def formatted(value: float, unit: str, currency: str) -> str:
    """A number as a person reads it.

    >>> [formatted(*of, "GBP") for of in ((0.6, "share"), (0.02, "days"), (1.5, "bits"))]
    ['60 %', '29 minutes', '1.5 bits']
    """
    match unit:
        case "count":
            return f"{value:,.0f}"
        case "share":
            return f"{value:.0%}".replace("%", " %")
        case "minor":
            digits = MINOR_UNIT_DIGITS[currency]
            return f"{value / 10**digits:,.{digits}f} {currency}"
        case "days":
            return _duration(value)
        case "bits":
            return f"{value:.1f} bits"
        case _:
            return f"{value:,.2g}" if abs(value) < 10 else f"{value:,.0f}"


def _duration(days: float) -> str:
    for size, name in ((1.0, "day"), (1 / 24, "hour")):
        if abs(days) >= 2 * size:
            return f"{days / size:,.0f} {name}s"
    return f"{days * 1440:,.0f} minutes"


def risk_level(score: float, quantiles: NDArray[np.float64]) -> str:
    """Where a score stands among those of training, in one word.

    ``quantiles`` (q,) are evenly spaced, from the smallest score to the largest.

    >>> even = np.linspace(0, 1, 101)
    >>> risk_level(0.995, even), risk_level(0.1, even)
    ('highest', 'lowest')
    """
    below = quantiles.searchsorted(score) / len(quantiles)
    for share, level in RISK_LEVELS:
        if below >= share:
            return level
    return "lowest"


def as_json(reason: Reason) -> Mapping[str, str | float | None]:
    """A reason as the response and the decision record show it.

    >>> as_json(Reason("CLAIM_KIND", "the type of the refund: INSTANT", "type", "INSTANT", 0.25))[
    ...     "value"
    ... ]
    'INSTANT'
    """
    return {
        "code": reason.code,
        "description": reason.description,
        "feature": reason.feature,
        "value": reason.value,
        "contribution": round(reason.contribution, 4),
    }
