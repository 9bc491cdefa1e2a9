"""What a backtest found, as values: who moves, why, and what it is worth, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rules.backtest import Cause
from rules.condition import FactValue
from rules.decision import Action
from rules.document import Costs
from training.bootstrap import Interval, known
from training.policy_log import Unlogged

Shifts = Mapping[Action, Mapping[Action, int]]
"""``shifts[a][b]`` refunds are answered with a by the other policy and with b by the candidate."""


@dataclass(frozen=True, slots=True)
class Tally:
    """A number of refunds and the sum of what would be paid, in whole minor units.

    Refunds whose amount in the base currency is unknown are counted and add nothing.
    """

    count: int = 0
    payable_minor: int = 0


@dataclass(frozen=True, slots=True)
class Ledger:
    """What one policy would do: all refunds by action, the labelled ones by right or wrong.

    ``cost_minor`` adds up what is known: amount and fee of each paid abuse, the stated multiple of
    each prevented honest refund, and one review for each held refund.
    """

    version: str
    hash: str
    paid: Tally
    held: Tally
    prevented: Tally
    abuse_paid: Tally
    abuse_held: Tally
    abuse_prevented: Tally
    honest_held: Tally
    honest_prevented: Tally
    cost_minor: float


@dataclass(frozen=True, slots=True)
class Quantity:
    """A figure under both policies, and the 95 % interval of each and of what it rises by."""

    before: float
    after: float
    before_interval: Interval
    after_interval: Interval
    rise_interval: Interval

    @property
    def rise(self) -> float:
        """After less before."""
        return self.after - self.before

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {
            "before": known(self.before), "before_interval": self.before_interval.to_json(),
            "after": known(self.after), "after_interval": self.after_interval.to_json(),
            "rise": known(self.rise), "rise_interval": self.rise_interval.to_json(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """How many, and how much in minor units of the base currency; ``cost`` has no number."""

    count: Quantity | None
    minor: Quantity | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "count": self.count.to_json() if self.count else None,
            "minor": self.minor.to_json() if self.minor else None,
        }


Figures = Mapping[str, Figure]
"""``abuse_paid``, ``abuse_held``, ``abuse_prevented``, ``abuse_stopped`` (the last two together),
``honest_held``, ``honest_prevented``, ``honest_customers_prevented`` (a number alone), ``reviews``
(their cost) and ``cost``: what a policy's mistakes and reviews cost in all."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """The figures once more, each paid refund weighed by one over the chance it had to be paid.

    ``refunds`` counts by fate (`training.propensity`) what figures were taken from, ``labelled``
    those of them with a mature label. PAID, EXPLORED and HELD are spoken for; the rest is not.
    """

    figures: Figures
    refunds: Mapping[str, int]
    labelled: Mapping[str, int]
    effective_size: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "figures": {name: figure.to_json() for name, figure in self.figures.items()},
            "refunds": dict(self.refunds), "labelled": dict(self.labelled),
            "effective_size": self.effective_size,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Workload:
    """What a policy asks of the review desk: refunds held on a day (UTC), and days above room."""

    per_day: float
    per_day_interval: Interval
    busiest_day: int
    days_over: int | None
    """Days with more than ``reviews_per_day``; None where the policy names no capacity."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "per_day_interval": self.per_day_interval.to_json()}


@dataclass(frozen=True, slots=True)
class Moves:
    """Refunds that move, and what it is worth.

    ``saved_minor`` is what they cost less under the candidate, over labels that are known and
    reviews; below 0 it costs more.
    """

    shifts: Shifts
    moved: int
    payable_minor: int
    abuse: Tally
    honest: Tally
    saved_minor: float
    saved_interval: Interval

    @property
    def unlabelled(self) -> int:
        """How many of those that move have no mature label."""
        return self.moved - self.abuse.count - self.honest.count

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {
            "moved": self.moved, "shifts": shifts_to_json(self.shifts),
            "payable_minor": self.payable_minor, "abuse": asdict(self.abuse),
            "honest": asdict(self.honest), "unlabelled": self.unlabelled,
            "saved_minor": known(self.saved_minor), "saved_interval": self.saved_interval.to_json(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class CausedBy:
    """Refunds that move because of one part of the policies, ``alone`` or with others."""

    cause: Cause
    moves: Moves
    alone: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.cause.kind, "id": self.cause.id, "alone": self.alone,
                **self.moves.to_json()}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Segment:
    """One value ``name`` of what refunds are divided ``by``, all of its refunds and those moved."""

    by: str
    name: str
    refunds: int
    held_before: int
    held_after: int
    moves: Moves

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "by": self.by, "name": self.name, "refunds": self.refunds,
            "held_before": self.held_before, "held_after": self.held_after, **self.moves.to_json(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """A refund that moves: why, by which facts, how much, and what it turned out to be.

    ``sources`` and ``reasons`` are those before and after; ``facts`` are those that the causes
    read, None where unknown. ``currency`` is the one that the refund is asked in.
    """

    refund_id: str
    decided_at: int
    before: Action
    after: Action
    sources: tuple[str, str]
    reasons_before: tuple[str, ...]
    reasons_after: tuple[str, ...]
    causes: tuple[Cause, ...]
    currency: str | None
    order_currency: str | None
    facts: Mapping[str, FactValue]
    payable_minor: int | None
    abuse: bool | None

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {
            **asdict(self), "before": self.before.value, "after": self.after.value,
            "sources": list(self.sources), "reasons_before": list(self.reasons_before),
            "reasons_after": list(self.reasons_after),
            "causes": [cause._asdict() for cause in self.causes],
            "facts": {name: None if value != value else value
                      for name, value in self.facts.items()},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class BacktestReport:
    """A candidate policy against another, over logged decisions or a data folder.

    The other, ``before``, is what the candidate would replace; ``before_is_in_force`` says whether
    it is the one in force.

    ``requests`` are the refunds that count, each once, by the policy's last decision before its
    money moved; ``repeated`` decisions were left out for that, ``unreadable`` ones because they
    were stored without facts. ``own`` of the requests were decided by ``before`` itself,
    nothing explored or overridden, and ``own_same`` of these it decides so again: 1 in 1 is to be
    expected, or what is logged is not what it rests on. ``learnt`` of the requests are from before
    ``new_from`` (epoch ms): the model that scored them here may have learnt from them.
    """

    source: Literal["store", "folder"]
    currency: str
    before_is_in_force: bool
    differences: tuple[str, ...]
    decisions: int
    requests: int
    unreadable: int
    degraded: int
    new_from: int | None
    learnt: int
    own: int
    own_same: int
    first_at: int
    last_at: int
    days: int
    maturity_days: int
    labelled: int
    abuse: int
    immature: int
    payable_unknown: int
    unlogged: tuple[Unlogged, ...]
    costs: Costs
    shifts: Shifts
    before: Ledger
    after: Ledger
    figures: Figures
    weighted: Weighted | None
    workload_before: Workload
    workload_after: Workload
    moves: Moves
    causes: tuple[CausedBy, ...]
    segments: tuple[Segment, ...]
    examples: tuple[Example, ...] = field(repr=False)

    @property
    def before_name(self) -> str:
        """The version of the other policy; with the hash where both have the same version."""
        return self._name(self.before)

    @property
    def after_name(self) -> str:
        """The version of the candidate; with the hash where both have the same version."""
        return self._name(self.after)

    @property
    def costs_of(self) -> str:
        """Whose costs both policies are judged by."""
        return "the policy in force" if self.before_is_in_force else f"policy {self.before_name}"

    def _name(self, of: Ledger) -> str:
        is_enough = self.before.version != self.after.version
        return of.version if is_enough else f"{of.version} ({of.hash[:8]})"

    @property
    def moved(self) -> int:
        """How many refunds the two decide differently."""
        return self.moves.moved

    @property
    def repeated(self) -> int:
        """How many decisions were left out, for the refund counts by another."""
        return self.decisions - self.unreadable - self.requests

    @property
    def unlabelled(self) -> int:
        """How many refunds are old enough for a label and have none: censored."""
        return self.requests - self.labelled - self.immature

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        plain = ("source", "currency", "before_is_in_force", "decisions", "requests", "repeated",
                 "unreadable", "degraded", "new_from", "learnt", "own", "own_same", "first_at",
                 "last_at", "days", "maturity_days", "labelled", "abuse", "immature", "unlabelled",
                 "payable_unknown")  # fmt: skip
        return {
            **{name: getattr(self, name) for name in plain},
            "unlogged": [one.to_json() for one in self.unlogged],
            "differences": list(self.differences),
            "costs": self.costs.model_dump(mode="json"),
            "shifts": shifts_to_json(self.shifts),
            "before": asdict(self.before),
            "after": asdict(self.after),
            "figures": {name: figure.to_json() for name, figure in self.figures.items()},
            "weighted": self.weighted.to_json() if self.weighted else None,
            "workload": {
                "reviews_per_day_at_most": self.costs.reviews_per_day,
                "before": self.workload_before.to_json(), "after": self.workload_after.to_json(),
            },
            "moves": self.moves.to_json(),
            "causes": [one.to_json() for one in self.causes],
            "segments": [one.to_json() for one in self.segments],
            "examples": [one.to_json() for one in self.examples],
        }  # fmt: skip


def shifts_to_json(shifts: Shifts) -> dict[str, dict[str, int]]:
    """A table of shifts with the names of the actions."""
    return {
        before.value: {after.value: count for after, count in row.items()}
        for before, row in shifts.items()
    }
