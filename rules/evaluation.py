"""What the parts of a condition compute: one small function each, over the facts that are known.

The answers are those of the CEL specification, with None where CEL would fail because a fact is not
declared or not a number: `&&` and `||` settle what they can, everything else passes None on. The
CEL library gives the same answers (the tests compare them on generated conditions), but needs a
context for each request: declaring 60 facts takes it longer than all of this.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

#: Facts by name, the unknown ones left out.
Known = Mapping[str, Any]
#: A part of a condition, ready to run; None is unknown.
Run = Callable[[Known], Any]
Binary = Callable[[Any, Any], Any]


def _divide(left: float, right: float) -> float:
    """Divide as IEEE 754 does, without an exception."""
    if right:
        return left / right
    if not left or left != left:
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


ARITHMETIC: Final[Mapping[str, Binary]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
}
EQUALITIES: Final[Mapping[str, Binary]] = {"==": operator.eq, "!=": operator.ne}
ORDERINGS: Final[Mapping[str, Binary]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
PREDICATES: Final[Mapping[str, Binary]] = {
    "contains": operator.contains,
    "endsWith": str.endswith,
    "startsWith": str.startswith,
}


def fact(name: str) -> Run:
    """Read a fact.

    >>> run = fact("final_sale")
    >>> run({"final_sale": True}), run({})
    (True, None)
    """

    def run(known: Known) -> Any:
        return known.get(name)

    return run


def literal(value: Any) -> Run:
    """Give the same value always."""
    return lambda _: value


def fact_against(test: Binary, name: str, value: Any) -> Run:
    """Test a fact against a literal: what most conditions are made of, in one step."""

    def run(known: Known) -> bool | None:
        found = known.get(name)
        return None if found is None else test(found, value)

    return run


def applied(test: Binary, left: Run, right: Run) -> Run:
    """Apply a test that every pair of known values has an answer to."""

    def run(known: Known) -> Any:
        first = left(known)
        if first is None:
            return None
        second = right(known)
        return None if second is None else test(first, second)

    return run


def ordered(test: Binary, left: Run, right: Run) -> Run:
    """Compare two numbers by size; what is not a number has no place in any order.

    >>> nan = applied(ARITHMETIC["/"], literal(0.0), literal(0.0))
    >>> ordered(operator.lt, nan, literal(1.0))({}) is None
    True
    """

    def run(known: Known) -> bool | None:
        first, second = left(known), right(known)
        if first is None or second is None or first != first or second != second:
            return None
        return bool(test(first, second))

    return run


def every(parts: Sequence[Run]) -> Run:
    """Join by `&&`: one miss settles it, whatever the others are.

    >>> every([literal(None), literal(False)])({})
    False
    """

    def run(known: Known) -> bool | None:
        held: bool | None = True
        for part in parts:
            one = part(known)
            if one is False:
                return False
            if one is None:
                held = None
        return held

    return run


def some(parts: Sequence[Run]) -> Run:
    """Join by `||`: one hit settles it, whatever the others are.

    >>> some([literal(None), literal(True)])({})
    True
    """

    def run(known: Known) -> bool | None:
        held: bool | None = False
        for part in parts:
            one = part(known)
            if one is True:
                return True
            if one is None:
                held = None
        return held

    return run


def chained(first: Run, rest: Sequence[tuple[Binary, Run]]) -> Run:
    """Compute a chain of operators of one rank, from left to right, however long it is."""

    def run(known: Known) -> float | None:
        value = first(known)
        for step, part in rest:
            other = part(known)
            if value is None or other is None:
                return None
            value = step(value, other)
        return value  # type: ignore[no-any-return]

    return run


def changed(change: Callable[[Any], Any], part: Run) -> Run:
    """Negate a known value, in either sense."""

    def run(known: Known) -> Any:
        value = part(known)
        return None if value is None else change(value)

    return run


def chosen(condition: Run, yes: Run, no: Run) -> Run:
    """Take one of two branches, and never look at the other."""

    def run(known: Known) -> Any:
        held = condition(known)
        if held is None:
            return None
        return yes(known) if held else no(known)

    return run


def listed(parts: Sequence[Run]) -> Run:
    """Make a list; one unknown element leaves the whole of it unknown."""

    def run(known: Known) -> list[Any] | None:
        values = [part(known) for part in parts]
        return None if None in values else values

    return run


def within(value: Any, values: Sequence[Any]) -> bool:
    """Whether a value equals one of a list; NaN equals nothing, not even itself.

    >>> within(1.0, [0.0, 1.0]), within(math.nan, [math.nan])
    (True, False)
    """
    return value == value and value in values
