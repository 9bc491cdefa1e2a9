"""Why a feature has no value: nobody said whose, a fact is not known, or there is nothing earlier.

NaN stands for all three. They are told apart by what else a row holds: a count by device is NaN
only where the device is not known, so with a count beside it the time since the last refund with
that device is NaN because there was none. What is found here is data, read off the expressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from features.feature import (
    Age,
    Aggregate,
    Both,
    Coalesce,
    Difference,
    Expression,
    Feature,
    FirstSeen,
    Known,
    Ratio,
)

_COUNTS: Final = ("count", "count_same", "standing", "distinct")
"""Of nothing they are 0: NaN says that there is no holder to count for."""

_OF_SOMETHING: Final = ("entropy", "mean", "median", "maximum", "last", "since_last", "since_first")
"""Of nothing they are NaN."""

_ALWAYS_KNOWN: Final = ("customer", "refund")


def never_of_nothing(expression: Expression) -> bool:
    """Whether it is NaN only where the holder that it counts for is not known.

    >>> from features.feature import count, since_last
    >>> never_of_nothing(count("order", by="device", days=7))
    True
    >>> never_of_nothing(since_last("order", by="device"))
    False
    """
    if isinstance(expression, Difference | Both):
        return all(map(never_of_nothing, expression.inputs))
    return isinstance(expression, Aggregate) and expression.op in _COUNTS


def is_of_something(expression: Expression) -> bool:
    """Whether it is NaN where all it is made of is known, and there is nothing earlier.

    >>> from features.feature import Field, last, mean
    >>> ordered = mean("order", "amount", by="customer", days=365)
    >>> is_of_something(Ratio(Field("payable_minor"), ordered))
    True
    >>> is_of_something(Coalesce((Field("ordered_at"), last("order", "ordered_at", by="order"))))
    False
    """
    match expression:
        case Aggregate():
            return expression.op in _OF_SOMETHING
        case FirstSeen():
            return True
        case Ratio(top, bottom):
            return isinstance(bottom, Aggregate) or is_of_something(top)
        case Age(of):
            return is_of_something(of)
        case _:
            return False


def witnesses(features: Sequence[Feature]) -> tuple[tuple[int, ...], ...]:
    """Per feature, the places of those whose NaN says that something is not known: holders first.

    What is not `is_of_something` ends with itself, as does what no count by its holder stands
    beside. Where none of them is NaN and the feature is, there is nothing earlier.
    """
    counts: dict[str, int] = {}
    facts: dict[Expression, int] = {}
    for place, feature in enumerate(features):
        expression = feature.expression
        if isinstance(expression, Aggregate) and expression.op in ("count", "standing", "distinct"):
            counts.setdefault(expression.by, place)
        if not is_of_something(expression) and not never_of_nothing(expression):
            facts.setdefault(expression, place)
    found: list[tuple[int, ...]] = []
    for own, feature in enumerate(features):
        if never_of_nothing(feature.expression) or isinstance(feature.expression, Known):
            found.append((own,))
            continue
        parts = _parts(feature.expression)
        holders = dict.fromkeys(key for part in parts for key in _holders(part))
        of_something = is_of_something(feature.expression) and holders.keys() <= counts.keys()
        of_parts = (facts.get(each) for part in parts for each in (part, Age(part)))
        places = [*(counts[key] for key in holders if key in counts), *of_parts]
        others = dict.fromkeys(place for place in places if place is not None and place != own)
        found.append((*others,) if of_something else (*others, own))
    return tuple(found)


def _parts(expression: Expression) -> list[Expression]:
    """It and what it needs: not what others may stand in for."""
    inputs = () if isinstance(expression, Coalesce) else expression.inputs
    return [expression, *(part for each in inputs for part in _parts(each))]


def _holders(part: Expression) -> tuple[str, ...]:
    """The keys without which it has no value, but those that every request has."""
    keys: tuple[str, ...] = ()
    match part:
        case Aggregate():
            keys = (part.by, part.column or "") if part.op == "count_same" else (part.by,)
        case FirstSeen(entity):
            keys = (entity,)
    return tuple(key for key in keys if key not in _ALWAYS_KNOWN)
