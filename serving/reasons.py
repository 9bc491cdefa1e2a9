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
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.absence import is_of_something, witnesses
from features.attribution import CODES
from features.feature import Aggregate, Feature, Field
from features.kernels import FloatArray, IntArray, compiled
from serving.codes import NO_HISTORY, NOT_KNOWN
from serving.language import ENGLISH, Language
from serving.model import Reference

MAX_REASONS: Final = 6

LEAST_SHARE: Final = 0.02
"""What weighs less than this part of all that raises the risk is no reason."""

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
    ``currency`` is that of amounts. Raises ValueError where nothing earlier could not be told from
    what is not known, as `features.absence.witnesses` does.
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
        self._of_something = np.array([is_of_something(f.expression) for f in features], np.bool_)
        quantiles = np.full((len(self.features), 1), np.nan)
        self._partly_known = np.zeros(len(self.features), np.bool_)
        if reference is not None:
            quantiles = np.ascontiguousarray(reference.quantiles)
            self._partly_known = reference.unknown_share > 0
        self._quantiles = quantiles

    def reasons(
        self, values: FloatArray, contributions: FloatArray, most: int = MAX_REASONS
    ) -> tuple[Reason, ...]:
        """The reason codes that raise the risk, strongest first, at most ``most`` of them.

        ``values`` (n,) and ``contributions`` (n,) are one row in the order of the features; the
        expected value that ends a SHAP row is not part of it, and is not looked at.
        """
        codes, places, weights = _raising(
            self._code_of, self._why, self._of_something, values, contributions,
            len(self.codes), most,
        )  # fmt: skip
        return tuple([
            Reason(self.codes[code], self._described(place, values), self.features[place].name,
                   told_value(self.features[place], float(values[place])), weight)
            for code, place, weight in zip(
                codes.tolist(), places.tolist(), weights.tolist(), strict=True
            )
        ])  # fmt: skip

    def grouped(self, values: FloatArray) -> IntArray:
        """The place among ``codes`` that each of one row's values (n,) counts to, as reasons do."""
        found: IntArray = _codes(
            self._code_of, self._why, self._of_something, values, len(self.codes)
        )
        return found

    def sentence(self, place: int, values: FloatArray) -> str:
        """What the feature at a place says of a row's values (n,), or why it says nothing."""
        if math.isnan(values[place]):
            unknown = (why for why in self._witnesses[place] if math.isnan(values[why]))
            return self.language.say(self.features[next(unknown, place)].sentence.none)
        return sentence(self.features[place], float(values[place]), self.currency, self.language)

    def standing(self, place: int, value: float) -> str | None:
        """Where a value stands among those of training; None where that tells nothing.

        It never claims more than was seen: so many of so many parts, rounded down.
        """
        unit = self.features[place].unit
        if unit in ("code", "flag"):
            return None
        below, above = _sides(self._quantiles[place], value)
        parts = self._quantiles.shape[1] - 1
        least = TELLING * parts
        if parts < 100 or max(below, above) < least:
            return None
        is_high = below >= least
        if (below if is_high else above) == parts:
            return _beyond(unit, is_high, self.language)
        side = below if is_high else above
        tell = _among_known if self._partly_known[place] else _among_all
        words = self.language
        return tell(unit, is_high, words.count(side), words.count(parts), words)

    def _described(self, place: int, values: FloatArray) -> str:
        said, stands = self.sentence(place, values), self.standing(place, float(values[place]))
        if stands is None:
            return said
        return self.language.say("{fact}; {standing}", fact=said, standing=stands)


@compiled
def _code(
    place: int, code_of: IntArray, why: IntArray, of_something: NDArray[np.bool_],
    values: FloatArray, codes: int,
) -> int:  # fmt: skip
    """The code that a value counts to; the last two of the ``codes``: nothing earlier, not known.

    ``why`` (n, w) are the places whose NaN is why a value is NaN, -1 for none; ``of_something``
    (n,) whether one is NaN over nothing, too.
    """
    if not np.isnan(values[place]):
        return int(code_of[place])
    if not of_something[place]:
        return codes - 1
    for witness in why[place]:
        if witness >= 0 and np.isnan(values[witness]):
            return codes - 1
    return codes - 2


@compiled
def _codes(
    code_of: IntArray, why: IntArray, of_something: NDArray[np.bool_], values: FloatArray,
    codes: int,
) -> IntArray:  # fmt: skip
    """The code that each value counts to."""
    found = np.empty(len(code_of), np.int64)
    for place in range(len(code_of)):
        found[place] = _code(place, code_of, why, of_something, values, codes)
    return found


@compiled
def _raising(
    code_of: IntArray, why: IntArray, of_something: NDArray[np.bool_], values: FloatArray,
    contributions: FloatArray, codes: int, most: int,
) -> tuple[IntArray, IntArray, FloatArray]:  # fmt: skip
    """The codes that raise the risk, at most ``most``: their strongest features, what they weigh.

    The heaviest first, of equal ones that whose features begin first. What weighs next to nothing
    beside the others is left out.
    """
    weights = np.zeros(codes)
    first, strongest = np.full(codes, -1), np.full(codes, -1)
    for place in range(len(code_of)):
        code = _code(place, code_of, why, of_something, values, codes)
        weights[code] += contributions[place]
        if first[code] < 0:
            first[code] = strongest[code] = place
        elif contributions[place] > contributions[strongest[code]]:
            strongest[code] = place
    least = LEAST_SHARE * weights[weights > 0].sum()
    ranked = np.empty(min(most, codes), np.int64)
    for rank in range(len(ranked)):
        best = -1
        for code in range(codes):
            if weights[code] > 0 and first[code] >= 0 and (
                best < 0 or weights[code] > weights[best]
                or (weights[code] == weights[best] and first[code] < first[best])
            ):  # fmt: skip
                best = code
        if best < 0 or (rank > 0 and weights[best] < least):
            ranked = ranked[:rank]
            break
        ranked[rank] = best
        first[best] = -1
    return ranked, strongest[ranked], weights[ranked]


@compiled
def _sides(quantiles: FloatArray, value: float) -> tuple[int, int]:
    """How many parts of what was seen lie below a value, and above: at least so many.

    ``quantiles`` (q,) divide it into q - 1 parts. A value belongs to neither side of itself; what
    was never seen, or is NaN, has none.
    """
    if np.isnan(value) or np.isnan(quantiles[0]):
        return 0, 0
    below = int(np.searchsorted(quantiles, value, side="left"))
    above = len(quantiles) - int(np.searchsorted(quantiles, value, side="right"))
    return max(below - 1, 0), max(above - 1, 0)


def _among_all(unit: str, is_high: bool, side: str, parts: str, language: Language) -> str:
    say = language.say
    match unit, is_high:
        case "count", True:
            text = say("{side} of {parts} refund requests have fewer", side=side, parts=parts)
        case "count", False:
            text = say("{side} of {parts} refund requests have more", side=side, parts=parts)
        case "days", True:
            text = say("at {side} of {parts} refund requests it is shorter", side=side, parts=parts)
        case "days", False:
            text = say("at {side} of {parts} refund requests it is longer", side=side, parts=parts)
        case _, True:
            text = say("at {side} of {parts} refund requests it is less", side=side, parts=parts)
        case _:
            text = say("at {side} of {parts} refund requests it is more", side=side, parts=parts)
    return text


def _among_known(unit: str, is_high: bool, side: str, parts: str, language: Language) -> str:
    """The same of a fact that some requests have not."""
    say = language.say
    match unit, is_high:
        case "count", True:
            text = say("where this is known, {side} of {parts} refund requests have fewer",
                       side=side, parts=parts)  # fmt: skip
        case "count", False:
            text = say("where this is known, {side} of {parts} refund requests have more",
                       side=side, parts=parts)  # fmt: skip
        case "days", True:
            text = say("where this is known, it is shorter at {side} of {parts} refund requests",
                       side=side, parts=parts)  # fmt: skip
        case "days", False:
            text = say("where this is known, it is longer at {side} of {parts} refund requests",
                       side=side, parts=parts)  # fmt: skip
        case _, True:
            text = say("where this is known, it is less at {side} of {parts} refund requests",
                       side=side, parts=parts)  # fmt: skip
        case _:
            text = say("where this is known, it is more at {side} of {parts} refund requests",
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
        word = told_value(feature, value)
        if word == OUTSIDE:
            word = language.say("a value outside the list")
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
