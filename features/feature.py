"""Feature: what is computed, from which events, over which window, and how it is said.

A definition is data. Its name is derived from it, never typed, so a name always says what the
number is; the engine reads the definition, and nothing else computes a feature.

>>> count("refund_request", by="customer", days=30).name
'refund_count_by_customer_30d'
>>> total("refund_request", "amount", by="device", days=7).name
'refund_amount_sum_by_device_7d'
>>> distinct("refund_request", "customer", by="device", days=90).name
'customer_distinct_by_device_90d'
>>> chargeback = where("chargeback", stage=("CHARGEBACK", "ARBITRATION"))
>>> count("dispute", by="payment_method", days=365, where=chargeback).name
'chargeback_count_by_payment_method_365d'
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from features.attribution import CODES, STREAM_COLUMNS, STREAM_KEYS
from features.events import ENTITIES

MAX_DAYS: Final = 365
"""The longest window: a decision must read a bounded slice of history."""

Family = Literal[
    "velocity", "amount", "account_age", "device", "chargeback", "return", "order",
    "label_history", "claim",
]  # fmt: skip
Unit = Literal["count", "minor", "days", "share", "ratio", "flag", "code"]


def _nearest(value: str, choices: Collection[str]) -> str:
    near = difflib.get_close_matches(value, choices, 1)
    return f", did you mean {near[0]}?" if near else f", expected one of {', '.join(choices)}"


@dataclass(frozen=True)
class Where:
    """Which events of a stream count; `noun` is what the chosen ones are called in names.

    An event counts when all conditions of any group hold; a condition pairs a coded column with
    the values it may have, None standing for "not given".
    """

    noun: str
    groups: tuple[tuple[tuple[str, tuple[str | None, ...]], ...], ...]


def where(noun: str, **conditions: tuple[str | None, ...]) -> Where:
    """Events for which every condition holds.

    >>> where("lost_return", return_status=("LOSS",))
    Traceback (most recent call last):
    ValueError: where: return_status is never 'LOSS', did you mean LOST?
    """
    for column, values in conditions.items():
        if column not in CODES:
            raise ValueError(f"where: no coded column {column!r}{_nearest(column, CODES)}")
        for value in values:
            if value is not None and value not in CODES[column]:
                raise ValueError(f"where: {column} is never {value!r}"
                                 f"{_nearest(value, CODES[column])}")  # fmt: skip
    return Where(noun, (tuple(conditions.items()),))


def either(noun: str, *alternatives: Where) -> Where:
    """Events that any of the alternatives picks."""
    return Where(noun, tuple(group for w in alternatives for group in w.groups))


class Expression:
    """A number per request. `name` is derived; `inputs` are the expressions it is made of."""

    name: str

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """The expressions this one is computed from."""
        return ()

    def walk(self) -> Iterator[Expression]:
        """This expression and all below it, inputs first."""
        for expression in self.inputs:
            yield from expression.walk()
        yield self


Op = Literal["count", "total", "mean", "median", "maximum", "distinct", "last", "since_last"]


@dataclass(frozen=True)
class Aggregate(Expression):
    """One number over the events of one stream, of one key's holder, within a window."""

    op: Op
    stream: str
    column: str | None
    by: str
    days: int
    where: Where | None = None

    def __post_init__(self) -> None:
        if self.stream not in STREAM_KEYS:
            raise ValueError(f"no event {self.stream!r}{_nearest(self.stream, STREAM_KEYS)}")
        keys = STREAM_KEYS[self.stream]
        if self.by not in keys:
            raise ValueError(f"{self.stream} is not kept by {self.by!r}{_nearest(self.by, keys)}")
        if not 1 <= self.days <= MAX_DAYS:
            raise ValueError(f"days: expected 1 to {MAX_DAYS}, got {self.days}")
        # A key that is inherited may become known later than the event: it is no value of it.
        own_keys = keys if self.stream in ("order", "refund_request") else ()
        columns = [*STREAM_COLUMNS[self.stream], *own_keys]
        for column in sorted(self.columns):
            if column not in columns:
                raise ValueError(f"{self.stream} has no column {column!r}"
                                 f"{_nearest(column, columns)}")  # fmt: skip

    @property
    def columns(self) -> frozenset[str]:
        """The columns and keys of the stream that this reads."""
        tested = {c for group in (self.where.groups if self.where else ()) for c, _ in group}
        return frozenset(tested | ({self.column} if self.column else set()))

    @property
    def noun(self) -> str:
        """What is counted: the condition's noun, or the event's."""
        return self.where.noun if self.where else self.stream.removesuffix("_request")

    @property
    def scope(self) -> str:
        """The part of the name that says whose and since when."""
        return f"by_{self.by}_{self.days}d"

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """The derived name."""
        if self.op == "distinct":
            plain = self.where is None and self.stream == "refund_request"
            prefix = "" if plain or self.noun == self.column else f"{self.noun}_"
            return f"{prefix}{self.column}_distinct_{self.scope}"
        if self.op == "since_last":
            return f"days_since_last_{self.noun}_{self.scope}"
        if self.op == "count":
            return f"{self.noun}_count_{self.scope}"
        suffix = {"total": "sum", "maximum": "max"}.get(self.op, self.op)
        return f"{self.noun}_{self.column}_{suffix}_{self.scope}"


@dataclass(frozen=True)
class Field(Expression):
    """A number or code that the request itself carries; NaN where it does not."""

    column: str

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """The field's own name."""
        return self.column


@dataclass(frozen=True)
class FirstSeen(Expression):
    """When any event first touched the request's entity; NaN if none did before the cutoff."""

    entity: str

    def __post_init__(self) -> None:
        if self.entity not in ENTITIES:
            raise ValueError(f"no entity {self.entity!r}{_nearest(self.entity, ENTITIES)}")

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """The derived name."""
        return f"{self.entity}_first_seen_at"


@dataclass(frozen=True)
class Coalesce(Expression):
    """The first of several expressions that is known."""

    of: tuple[Expression, ...]

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """The alternatives, best first."""
        return self.of

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """The name of the best alternative: the others stand in for it."""
        return self.of[0].name


@dataclass(frozen=True)
class Age(Expression):
    """Days from a business time to the cutoff; unknown when that time is later."""

    of: Expression

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """The time."""
        return (self.of,)

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """``delivered_at`` becomes ``delivered_age_days``."""
        return f"{self.of.name.removesuffix('_at')}_age_days"


@dataclass(frozen=True)
class Between(Expression):
    """Days from one business time to another, both before the cutoff; may be negative."""

    start: Expression
    end: Expression

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """Both times."""
        return (self.start, self.end)

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """``ordered_at`` and ``delivered_at`` become ``ordered_to_delivered_days``."""
        start, end = (time.name.removesuffix("_at") for time in self.inputs)
        return f"{start}_to_{end}_days"


@dataclass(frozen=True)
class Ratio(Expression):
    """One expression over another; over nothing it is NaN."""

    top: Expression
    bottom: Expression

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """Numerator and denominator."""
        return (self.top, self.bottom)

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """A share where a part of the same events in the same window is counted."""
        top, bottom = self.top, self.bottom
        if isinstance(top, Aggregate) and isinstance(bottom, Aggregate):
            same = (top.stream, top.scope, top.op) == (bottom.stream, bottom.scope, bottom.op)
            if same and top.where and top.op == "count":
                of = "" if bottom.where is None else f"_of_{bottom.noun}"
                return f"{top.noun}_share{of}_{top.scope}"
        return f"{top.name}_over_{bottom.name}"


@dataclass(frozen=True)
class Difference(Expression):
    """How many of one kind are left when those of another are taken away."""

    noun: str
    left: Aggregate
    right: Aggregate

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """Minuend and subtrahend."""
        return (self.left, self.right)

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """Named by what is left."""
        return f"{self.noun}_count_{self.left.scope}"


@dataclass(frozen=True)
class Known(Expression):
    """1 where the expression is known, 0 where it is not."""

    of: Expression

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """What may be known."""
        return (self.of,)

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """The derived name."""
        return f"{self.of.name}_known"


def count(stream: str, *, by: str, days: int, where: Where | None = None) -> Aggregate:
    """How many events."""
    return Aggregate("count", stream, None, by, days, where)


def total(stream: str, column: str, *, by: str, days: int, where: Where | None = None) -> Aggregate:
    """The sum of a column; NaN if any value in the window is unknown."""
    return Aggregate("total", stream, column, by, days, where)


def mean(stream: str, column: str, *, by: str, days: int, where: Where | None = None) -> Aggregate:
    """The mean of the known values; NaN over nothing."""
    return Aggregate("mean", stream, column, by, days, where)


def median(
    stream: str, column: str, *, by: str, days: int, where: Where | None = None
) -> Aggregate:
    """The median of the known values (mean of the middle two); NaN over nothing."""
    return Aggregate("median", stream, column, by, days, where)


def maximum(
    stream: str, column: str, *, by: str, days: int, where: Where | None = None
) -> Aggregate:
    """The largest known value; NaN over nothing."""
    return Aggregate("maximum", stream, column, by, days, where)


def distinct(
    stream: str, column: str, *, by: str, days: int, where: Where | None = None
) -> Aggregate:
    """How many different known values of a column or key."""
    return Aggregate("distinct", stream, column, by, days, where)


def last(
    stream: str, column: str, *, by: str, days: int = MAX_DAYS, where: Where | None = None
) -> Aggregate:
    """The latest known value of a column; NaN over nothing."""
    return Aggregate("last", stream, column, by, days, where)


def since_last(
    stream: str, *, by: str, days: int = MAX_DAYS, where: Where | None = None
) -> Aggregate:
    """Days since the latest event; NaN over nothing."""
    return Aggregate("since_last", stream, None, by, days, where)


@dataclass(frozen=True)
class Feature:
    """A named number of the catalog and what an analyst is told about it.

    ``sentence`` is filled with ``{value}``, formatted by ``unit``. ``for_model`` is False where
    only rules read the number: it says nothing about abuse that others do not say better.
    """

    expression: Expression
    family: Family
    unit: Unit
    reason_code: str
    sentence: str
    why: str
    for_model: bool = True

    @cached_property
    def name(self) -> str:
        """The derived name: column of the feature table, fact of the policy."""
        return self.expression.name


def definitions_hash(features: Collection[Feature]) -> str:
    """A digest that changes whenever any definition, or their order, does."""
    text = "\n".join(f"{f.name} = {f.expression!r}" for f in features)
    return hashlib.sha256(text.encode()).hexdigest()
