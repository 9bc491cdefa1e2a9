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
>>> count_same("order", "device", by="customer", days=365).name
'order_count_by_customer_and_device_365d'
>>> won = where("chargeback_won", outcome=("WON",))
>>> standing("dispute", "dispute", by="customer", days=365, where=won).name
'chargeback_won_count_by_customer_365d'
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from features.attribution import CODES, IDENTITIES, REQUEST_FIELDS, STREAM_COLUMNS, STREAM_KEYS
from features.events import ENTITIES, KEYS

MAX_DAYS: Final = 365
"""The longest window: a decision must read a bounded slice of history."""

Family = Literal[
    "velocity", "amount", "account_age", "device", "chargeback", "return", "order",
    "label_history", "claim",
]  # fmt: skip
Unit = Literal["count", "minor", "days", "share", "ratio", "flag", "code", "bits"]


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


Op = Literal[
    "count", "count_same", "standing", "distinct", "distinct_near", "entropy", "total", "mean",
    "median", "maximum", "last", "since_last", "since_first",
]  # fmt: skip

_ABOUT_VALUES: Final = ("distinct", "distinct_near", "entropy")
"""Operations on which values there are, not how large: their column is a code or an identity."""


_ON_NUMBERS: Final = ("total", "mean", "median", "maximum")

_NEARABLE: Final = ("registered_at", "ordered_at", "delivered_at")


@dataclass(frozen=True)
class Near:
    """Only events whose ``column`` is within so many days of the request's own field of that name.

    Exactly so many days away is within. A request without the field gives NaN.
    """

    column: str
    days: int

    def __post_init__(self) -> None:
        if self.column not in _NEARABLE:
            raise ValueError(f"near: {self.column!r} is no time that events and requests have"
                             f"{_nearest(self.column, _NEARABLE)}")  # fmt: skip
        if not 1 <= self.days <= MAX_DAYS:
            raise ValueError(f"within_days: expected 1 to {MAX_DAYS}, got {self.days}")


@dataclass(frozen=True)
class Aggregate(Expression):
    """One number over the events of one stream, of one key's holder, within a window."""

    op: Op
    stream: str
    column: str | None
    by: str
    days: int
    where: Where | None = None
    near: Near | None = None

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
        self._check_column()

    def _check_column(self) -> None:
        """An operation is about columns of one kind: values, identities, or the request's keys."""
        column, stream = self.column, self.stream
        if column is None:
            return
        is_identity = column in KEYS or column in IDENTITIES
        if self.op == "count_same" and column not in KEYS:
            raise ValueError(f"count_same: {column!r} is no key{_nearest(column, KEYS)}")
        if self.op == "standing":
            if stream == "refund_request":
                raise ValueError("standing: a refund request is one event, it has no later state")
            if not is_identity:
                raise ValueError(f"standing: {column!r} names nothing"
                                 f"{_nearest(column, sorted(IDENTITIES))}")  # fmt: skip
        elif self.op == "entropy" and column not in CODES:
            # A sum of logarithms depends on its order, and identifiers are met in any.
            raise ValueError(f"entropy: {column} of {stream} is no code"
                             f"{_nearest(column, CODES)}")  # fmt: skip
        elif self.op in _ABOUT_VALUES:
            if not is_identity and column not in CODES:
                raise ValueError(f"{self.op}: {column} of {stream} is neither code nor identity")
        elif self.op != "count_same" and is_identity:
            raise ValueError(f"{self.op}: {column} of {stream} is an identity, not a number")
        if self.op in _ON_NUMBERS and column in CODES:
            raise ValueError(f"{self.op}: {column} of {stream} is a code, not a number")
        if self.by == "refund" and STREAM_COLUMNS[stream].get(column, ("", ""))[1] == "paid":
            raise ValueError(f"{column} of {stream} is not kept by 'refund': what a refund asked "
                             "for may come later")  # fmt: skip

    @property
    def columns(self) -> frozenset[str]:
        """The columns and keys of the stream that this reads."""
        tested = {c for group in (self.where.groups if self.where else ()) for c, _ in group}
        own = {self.column} if self.column else set()
        return frozenset(tested | own | ({self.near.column} if self.near else set()))

    @property
    def noun(self) -> str:
        """What is counted: the condition's noun, or the event's."""
        return self.where.noun if self.where else self.stream.removesuffix("_request")

    @property
    def scope(self) -> str:
        """The part of the name that says whose and since when."""
        also = f"_and_{self.column}" if self.op == "count_same" else ""
        return f"by_{self.by}{also}_{self.days}d"

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """The derived name."""
        if self.op in _ABOUT_VALUES:
            plain = self.where is None and self.stream == "refund_request"
            prefix = "" if plain or self.noun == self.column else f"{self.noun}_"
            near = f"_{self.near.column.removesuffix('_at')}_within_{self.near.days}d" \
                if self.near else ""  # fmt: skip
            how = "entropy" if self.op == "entropy" else "distinct"
            return f"{prefix}{self.column}{near}_{how}_{self.scope}"
        if self.op in ("since_last", "since_first"):
            return f"days_{self.op}_{self.noun}_{self.scope}"
        if self.op in ("count", "count_same", "standing"):
            return f"{self.noun}_count_{self.scope}"
        suffix = {"total": "sum", "maximum": "max"}.get(self.op, self.op)
        return f"{self.noun}_{self.column}_{suffix}_{self.scope}"


@dataclass(frozen=True)
class Field(Expression):
    """A number or code that the request itself carries; NaN where it does not."""

    column: str

    def __post_init__(self) -> None:
        if self.column not in REQUEST_FIELDS:
            raise ValueError(f"a request has no field {self.column!r}"
                             f"{_nearest(self.column, REQUEST_FIELDS)}")  # fmt: skip

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
class Both(Expression):
    """1 where each of two counts is above zero, else 0; NaN where either is unknown."""

    noun: str
    left: Aggregate
    right: Aggregate

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """The two counts."""
        return (self.left, self.right)

    @cached_property
    def name(self) -> str:  # type: ignore[override]
        """Named by what it is to have had both."""
        return f"{self.noun}_{self.left.scope}"


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


def count_same(
    stream: str, key: str, *, by: str, days: int, where: Where | None = None
) -> Aggregate:
    """How many events that have the request's own value of another key; NaN if it has none.

    The window is the holder's: its latest 1,000 events, whichever values they have.
    """
    return Aggregate("count_same", stream, key, by, days, where)


def standing(stream: str, column: str, *, by: str, days: int, where: Where) -> Aggregate:
    """How many different things stand as ``where`` says: the latest event about each is chosen.

    ``column`` identifies the thing: a dispute moves through stages, a verdict may be taken back.
    """
    return Aggregate("standing", stream, column, by, days, where)


def entropy(
    stream: str, column: str, *, by: str, days: int, where: Where | None = None
) -> Aggregate:
    """How mixed the known values are, in bits (Shannon 1948): 0 if all are one, NaN over nothing.

    ``-sum p log2 p`` over the share ``p`` of each value.
    """
    return Aggregate("entropy", stream, column, by, days, where)


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


def distinct_near(
    stream: str, column: str, *, near: str, within_days: int, by: str, days: int,
    where: Where | None = None,
) -> Aggregate:  # fmt: skip
    """How many different known values among the events whose ``near`` is close to the request's.

    >>> distinct_near("order", "customer", near="registered_at", within_days=7, by="device",
    ...               days=365).name
    'order_customer_registered_within_7d_distinct_by_device_365d'
    """
    return Aggregate("distinct_near", stream, column, by, days, where, Near(near, within_days))


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


def since_first(
    stream: str, *, by: str, days: int = MAX_DAYS, where: Where | None = None
) -> Aggregate:
    """Days since the earliest event that the window holds; NaN over nothing."""
    return Aggregate("since_first", stream, None, by, days, where)


_CHOICE: Final = re.compile(r"\(([^|()]*)\|([^|()]*)\)")


@dataclass(frozen=True)
class Sentence:
    """What an analyst is told of a feature's value: whole sentences, ``{value}`` where it stands.

    ``one`` is said of one thing and ``many`` of any other number; of what is no number of things
    both are the same, and of a flag ``one`` is said where it is set. ``none`` is said where there
    is no value, and ``below`` of how far a value is below 0.
    """

    one: str
    many: str
    none: str
    below: str | None = None


def says(what: str, none: str, below: str | None = None) -> Sentence:
    """A sentence whose ``(choices|of words)`` are those of one thing and of many.

    >>> told = says("{value} (claim was|claims were) refused", "no claim was made")
    >>> told.one, told.many
    ('{value} claim was refused', '{value} claims were refused')
    """
    return Sentence(_CHOICE.sub(r"\1", what), _CHOICE.sub(r"\2", what), none, below)


@dataclass(frozen=True)
class Feature:
    """A named number of the catalog and what an analyst is told about it.

    The value in its ``sentence`` is formatted by ``unit``. ``for_model`` is False where only rules
    read the number: it says nothing about abuse that others do not say better.
    """

    expression: Expression
    family: Family
    unit: Unit
    reason_code: str
    sentence: Sentence
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
