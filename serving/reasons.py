"""Contributions to ranked reason codes, each with a sentence in an analyst's language.

Contributions are exact SHAP values in log-odds. Those of one reason code are added up; only codes
that raise the risk are reasons for acting, the strongest first, each told by the feature that
contributed most to it. What is not known is a reason of its own, `NOT_KNOWN`: a prior chargeback
must not be named where the truth is that nobody sent the card. So is `NO_HISTORY`, where all is
known and there is nothing earlier to speak of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.absence import witnesses
from features.attribution import CODES
from features.feature import Aggregate, Feature, Field
from features.kernels import FloatArray, IntArray, compiled
from serving.codes import NO_HISTORY, NOT_KNOWN
from serving.language import ENGLISH, Language
from serving.model import Reference
from serving.vocabulary import word_of

MAX_REASONS: Final = 6

LEAST_SHARE: Final = 0.02
"""What weighs less than this part of all that raises the risk is no reason."""

KEPT: Final = 4096
"""So many sentences are kept at hand."""

TELLING: Final = 0.8
"""Where a value stands is said if at least this share of requests is on one side of it."""

RISK_LEVELS: Final = ((0.99, "highest"), (0.95, "high"), (0.80, "elevated"), (0.50, "low"))
"""Share of refund requests with a lower score, from which a level holds; below all: lowest."""


class Reason(NamedTuple):
    """Why the risk is higher: a code, what it weighs in log-odds, and the fact behind it.

    ``value`` is the feature's number, the word of a coded one, or None where there is none.
    """

    code: str
    description: str
    feature: str
    value: float | str | None
    contribution: float


class Ranking:
    """The reason codes of a model's features, told apart once for all rows.

    ``reference`` says where values stand among those of training, None for no such words;
    ``currency`` is that of amounts.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        reference: Reference | None = None,
        currency: str = "GBP",
        language: Language = ENGLISH,
    ) -> None:
        self.features = tuple(features)
        self.language, self.currency = language, currency
        self.codes = (*dict.fromkeys(f.reason_code for f in features), NO_HISTORY, NOT_KNOWN)
        places = {code: place for place, code in enumerate(self.codes)}
        self._code_of = np.array([places[f.reason_code] for f in features], np.int64)
        self._witnesses = witnesses(features)
        widest = max([1, *map(len, self._witnesses)])
        padded = [[*each, *[-1] * (widest - len(each))] for each in self._witnesses]
        self._why = np.array(padded, np.int64).reshape(len(padded), widest)
        quantiles = np.full((len(self.features), 1), np.nan)
        self._partly_known = [False] * len(self.features)
        if reference is not None:
            quantiles = np.array(reference.quantiles)
            quantiles[[f.unit in ("code", "flag") for f in self.features]] = np.nan
            self._partly_known = (reference.unknown_share > 0).tolist()
        self._quantiles = quantiles
        # What is said of a number of things, or of a side, is said again and again.
        self._of_things = lru_cache(KEPT)(self._told_of_things)
        self._of_side = lru_cache(KEPT)(self._told_of_side)

    def reasons(
        self, values: FloatArray, contributions: FloatArray, most: int = MAX_REASONS
    ) -> tuple[Reason, ...]:
        """The reason codes that raise the risk, strongest first, at most ``most`` of them.

        ``values`` (n,) and ``contributions`` (n,) are one row in the order of the features; the
        expected value that ends a SHAP row is not part of it, and is not looked at.
        """
        found, weights = _raising(
            self._code_of, self._why, self._quantiles, values, contributions, len(self.codes), most
        )
        return tuple([
            self._reason(code, place, side, values, weight)
            for (code, place, side), weight in zip(found.tolist(), weights.tolist(), strict=True)
        ])  # fmt: skip

    def _reason(
        self, code: int, place: int, side: int, values: FloatArray, weight: float
    ) -> Reason:
        feature, said = self.features[place], self.sentence(place, values)
        if side:
            stands = self._of_side(feature.unit, side, self._partly_known[place])
            said = self.language.say("{fact}; {standing}", fact=said, standing=stands)
        value = told_value(feature, values.item(place))
        return Reason(self.codes[code], said, feature.name, value, weight)

    def grouped(self, values: FloatArray) -> IntArray:
        """The place among ``codes`` that each of one row's values (n,) counts to, as reasons do."""
        found: IntArray = _codes(self._code_of, self._why, values, len(self.codes))
        return found

    def sentence(self, place: int, values: FloatArray) -> str:
        """What the feature at a place says of a row's values (n,), or why it says nothing."""
        feature, value = self.features[place], values.item(place)
        if math.isnan(value):
            unknown = (why for why in self._witnesses[place] if math.isnan(values.item(why)))
            return self.language.say(self.features[next(unknown, place)].sentence.none)
        if feature.unit in ("count", "flag", "code"):
            return self._of_things(place, value)
        return sentence(feature, value, self.currency, self.language)

    def standing(self, place: int, value: float) -> str | None:
        """Where a value stands among those of training; None where that tells nothing.

        It never claims more than was seen: so many of so many parts, rounded down.
        """
        side = _side(self._quantiles, place, value)
        if not side:
            return None
        return self._of_side(self.features[place].unit, side, self._partly_known[place])

    def _told_of_things(self, place: int, value: float) -> str:
        return sentence(self.features[place], value, self.currency, self.language)

    def _told_of_side(self, unit: str, side: int, partly_known: bool) -> str:
        parts = self._quantiles.shape[1] - 1
        if abs(side) == parts:
            return _beyond(unit, side > 0, self.language)
        tell = _among_known if partly_known else _among_all
        so_many, of_all = self.language.count(abs(side)), self.language.count(parts)
        return tell(unit, side > 0, so_many, of_all, self.language)


@compiled
def _code(place: int, code_of: IntArray, why: IntArray, values: FloatArray, codes: int) -> int:
    """The code that a value counts to; the last two of the ``codes``: nothing earlier, not known.

    ``why`` (n, w) are the places whose NaN says that something is not known, -1 for none.
    """
    if not np.isnan(values[place]):
        return int(code_of[place])
    for witness in why[place]:
        if witness >= 0 and np.isnan(values[witness]):
            return codes - 1
    return codes - 2


@compiled
def _codes(code_of: IntArray, why: IntArray, values: FloatArray, codes: int) -> IntArray:
    """The code that each value counts to."""
    found = np.empty(len(code_of), np.int64)
    for place in range(len(code_of)):
        found[place] = _code(place, code_of, why, values, codes)
    return found


@compiled
def _side(quantiles: FloatArray, place: int, value: float) -> int:
    """How many parts of what was seen of a feature lie below a value: at least so many.

    ``quantiles`` (n, q) divide each into q - 1 parts. Below 0 it says how many lie above it, and it
    is 0 where the larger side is not `TELLING`. A value belongs to neither side of itself; what was
    never seen, or is NaN, has none.
    """
    seen = quantiles[place]
    if np.isnan(value) or np.isnan(seen[0]):
        return 0
    below = int(np.searchsorted(seen, value, side="left")) - 1
    above = len(seen) - int(np.searchsorted(seen, value, side="right")) - 1
    if max(below, above) < TELLING * (len(seen) - 1):
        return 0
    return below if below > above else -above


@compiled
def _raising(
    code_of: IntArray, why: IntArray, quantiles: FloatArray, values: FloatArray,
    contributions: FloatArray, codes: int, most: int,
) -> tuple[IntArray, FloatArray]:  # fmt: skip
    """The codes that raise the risk, at most ``most``, and what they weigh.

    Of each (r, 3) its place, that of its strongest feature, and where the value of that stands, as
    `_side` says. The heaviest come first, of equal ones that whose features begin first. What
    weighs next to nothing beside the others is left out.
    """
    weights = np.zeros(codes)
    first, strongest = np.full(codes, -1), np.full(codes, -1)
    for place in range(len(code_of)):
        code = _code(place, code_of, why, values, codes)
        weights[code] += contributions[place]
        if first[code] < 0:
            first[code] = strongest[code] = place
        elif contributions[place] > contributions[strongest[code]]:
            strongest[code] = place
    least = LEAST_SHARE * np.maximum(weights, 0).sum()
    found, weighed = np.empty((min(most, codes), 3), np.int64), np.empty(min(most, codes))
    for rank in range(len(found)):
        best = -1
        for code in range(codes):
            if weights[code] > 0 and first[code] >= 0 and (
                best < 0 or weights[code] > weights[best]
                or (weights[code] == weights[best] and first[code] < first[best])
            ):  # fmt: skip
                best = code
        if best < 0 or (rank > 0 and weights[best] < least):
            return found[:rank], weighed[:rank]
        place = strongest[best]
        found[rank] = best, place, _side(quantiles, place, values[place])
        weighed[rank] = weights[best]
        first[best] = -1
    return found, weighed


def _among_all(unit: str, is_high: bool, side: str, parts: str, language: Language) -> str:
    say = language.say
    match unit, is_high:
        case "count", True:
            text = say("{side} of {parts} refund requests have fewer", side=side, parts=parts)
        case "count", False:
            text = say("{side} of {parts} refund requests have more", side=side, parts=parts)
        case "days", True:
            text = say("shorter at {side} of {parts} refund requests", side=side, parts=parts)
        case "days", False:
            text = say("longer at {side} of {parts} refund requests", side=side, parts=parts)
        case _, True:
            text = say("less at {side} of {parts} refund requests", side=side, parts=parts)
        case _:
            text = say("more at {side} of {parts} refund requests", side=side, parts=parts)
    return text


def _among_known(unit: str, is_high: bool, side: str, parts: str, language: Language) -> str:
    """The same of a fact that some requests have not."""
    say = language.say
    match unit, is_high:
        case "count", True:
            text = say("{side} of {parts} refund requests where it is known have fewer",
                       side=side, parts=parts)  # fmt: skip
        case "count", False:
            text = say("{side} of {parts} refund requests where it is known have more",
                       side=side, parts=parts)  # fmt: skip
        case "days", True:
            text = say("shorter at {side} of {parts} refund requests where it is known",
                       side=side, parts=parts)  # fmt: skip
        case "days", False:
            text = say("longer at {side} of {parts} refund requests where it is known",
                       side=side, parts=parts)  # fmt: skip
        case _, True:
            text = say("less at {side} of {parts} refund requests where it is known",
                       side=side, parts=parts)  # fmt: skip
        case _:
            text = say("more at {side} of {parts} refund requests where it is known",
                       side=side, parts=parts)  # fmt: skip
    return text


def _beyond(unit: str, is_high: bool, language: Language) -> str:
    """Of a value that is outside of all that training saw."""
    match unit, is_high:
        case "count", True:
            return language.say("more than at any refund request that the model learnt from")
        case "count", False:
            return language.say("fewer than at any refund request that the model learnt from")
        case "days", True:
            return language.say("longer than at any refund request that the model learnt from")
        case "days", False:
            return language.say("shorter than at any refund request that the model learnt from")
        case _, True:
            return language.say("more than at any refund request that the model learnt from")
        case _:
            return language.say("less than at any refund request that the model learnt from")


def sentence(feature: Feature, value: float, currency: str, language: Language = ENGLISH) -> str:
    """What the feature says, its value filled in.

    >>> from features.catalog import BY_NAME
    >>> [sentence(BY_NAME["refund_count_by_customer_30d"], n, "GBP") for n in (1.0, 5.0)][0]
    '1 earlier refund request by this customer in 30 days'
    >>> sentence(BY_NAME["payable_minor"], 129_900.0, "GBP")
    'the refund is worth 1,299.00 GBP'
    >>> sentence(BY_NAME["registered_to_ordered_days"], -3.0, "GBP")
    'the account was registered 3 days after its order'
    >>> sentence(BY_NAME["device_first_seen_age_days"], float("nan"), "GBP")
    'this device was never seen before'
    """
    said = feature.sentence
    if math.isnan(value):
        return language.say(said.none)
    if feature.unit == "code":
        code = str(told_value(feature, value))
        if code == OUTSIDE:
            word = language.say("a value outside the list")
        else:
            word = word_of(feature.name, code, language) or code
        return language.say(said.many, value=word)
    if feature.unit == "flag":
        return language.say(said.one if value else said.many)
    if value < 0 and said.below is not None:
        return language.say(said.below, value=language.value(-value, feature.unit, currency))
    if said.one == said.many:
        return language.say(said.many, value=language.value(value, feature.unit, currency))
    return language.say_of(value, said.one, said.many)


OUTSIDE: Final = "a value outside the list"


def told_value(feature: Feature, value: float) -> float | str | None:
    """A value as it is told to whoever does not know the codes: its number, its word, or None."""
    if math.isnan(value):
        return None
    expression = feature.expression
    if feature.unit == "code" and isinstance(expression, Field | Aggregate) and expression.column:
        words = CODES[expression.column]
        return words[int(value)] if value < len(words) else OUTSIDE
    return value


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
