"""Conditions and amounts: CEL over flat facts, typed when loaded, three-valued when evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real

from rules.evaluation import Known, Run
from rules.expression import compiled
from rules.lexer import ConditionError, Fault, nearest

__all__ = [
    "Amount",
    "Condition",
    "ConditionError",
    "FactValue",
    "Facts",
    "Fault",
    "KnownValue",
    "known_facts",
    "nearest",
]

#: A fact's value; None and NaN both mean unknown, an empty sequence of strings does not.
FactValue = float | str | bool | Sequence[str] | None
Facts = Mapping[str, FactValue]
KnownValue = float | str | bool | Sequence[str]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that is sound, and the facts it reads. Equal when the texts are."""

    text: str
    reads: tuple[str, ...]
    run: Run = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str, kinds: Mapping[str, str]) -> Condition:
        """Read `text` over facts of the given kinds.

        A kind is "double", "string", "bool" or "strings", a list of strings.

        Raises:
            ConditionError: with every mistake in the text.

        >>> kinds = {"amount_minor": "double", "final_sale": "bool"}
        >>> condition = Condition.parse("final_sale || amount_minor > 100.0", kinds)
        >>> condition.holds({"final_sale": True}), condition.holds({"final_sale": False})
        (True, None)
        >>> Condition.parse("amount_minr > 100", kinds)
        Traceback (most recent call last):
            ...
        rules.lexer.ConditionError: 'amount_minr > 100': unknown fact 'amount_minr'; \
'100' is an integer, and facts are doubles
        """
        return cls(text, *compiled(text, kinds, "bool"))

    def holds(self, known: Known) -> bool | None:
        """Evaluate: True, False, or None when the known facts cannot settle it.

        The logic is CEL's own: `true || x` holds whatever x is. A comparison by size with the NaN
        of 0.0 / 0.0 is unsettled as well.
        """
        held: bool | None = self.run(known)
        return held


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount that is sound: the language of conditions, with a double as its value."""

    text: str
    reads: tuple[str, ...]
    run: Run = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str, kinds: Mapping[str, str]) -> Amount:
        """Read `text`; kinds and errors as in `Condition.parse`.

        >>> amount = Amount.parse("paid - fee", {"paid": "double", "fee": "double"})
        >>> amount.minor({"paid": 500.0, "fee": 120.0}), amount.minor({"paid": 500.0})
        (380, None)
        """
        return cls(text, *compiled(text, kinds, "double"))

    def minor(self, known: Known) -> int | None:
        """Evaluate, rounded down to whole minor units; None when unknown or not finite."""
        value = self.run(known)
        return math.floor(value) if value is not None and math.isfinite(value) else None


class KnownFacts(dict[str, KnownValue]):
    """Facts all of which are known and plain values of their kinds: nothing is left to look for.

    Who decides the same facts under several policies, or a million of them, makes them once.
    """


def known_facts(facts: Facts, kinds: Mapping[str, str]) -> dict[str, KnownValue]:
    """Pick the facts named in `kinds` that are known, as plain values of their kind.

    `KnownFacts` come back as they are, with all that they hold.

    Raises:
        TypeError: a fact is not of its kind: catalog and caller disagree.

    >>> kinds = {"a": "double", "b": "string", "c": "double"}
    >>> known_facts({"a": 3, "b": None, "c": float("nan"), "not read": "x"}, kinds)
    {'a': 3.0}
    """
    if facts.__class__ is KnownFacts:
        return facts
    known: dict[str, KnownValue] = {}
    get, exact = facts.get, _EXACT
    for name, kind in kinds.items():
        value = get(name)
        if value.__class__ is exact[kind]:
            if value == value:
                known[name] = value  # type: ignore[assignment]  # of its kind, so not None
        elif value is not None and value == value:
            known[name] = _convert(name, value, kind)
    return known


# The class a value of each kind has as it is; a tuple of strings is looked through all the same.
_EXACT: Mapping[str, type | None] = {"double": float, "string": str, "bool": bool, "strings": None}


def _convert(name: str, value: object, kind: str) -> KnownValue:
    """Turn an int, a NumPy number or a string enum into the plain type of its kind."""
    if kind == "double" and isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    if kind == "string" and isinstance(value, str):
        return str(value)
    if kind == "strings" and isinstance(value, list | tuple):
        return tuple(str(_convert(name, one, "string")) for one in value)
    raise TypeError(f"fact {name}: expected a {_NAMED[kind]}, got {value!r}")


_NAMED: Mapping[str, str] = {
    "double": "double",
    "string": "string",
    "bool": "bool",
    "strings": "list of strings",
}
