"""Which facts that a policy reads were not logged with decisions: there nothing can be told of it.

A record holds the facts that were known, so a fact that an older program did not know of looks like
one that was unknown. What this program always tells of a request, or of an order that it names,
gives the older ones away.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from features.ledger import LEDGER_FACTS
from rules.logged import Logged
from rules.policy import CompiledRule, Policy

ORDER_NAMED: Final = frozenset({
    "order_count_by_order_365d", "captured_minor_sum_by_order_365d",
    "refunded_minor_sum_by_order_365d",
})  # fmt: skip
"""Known only of requests that name an order, whatever program decided them."""

OF_ORDERS: Final = frozenset({
    "order_captured_minor", "order_paid_back_minor", "order_reserved_minor", "order_held_minor",
})  # fmt: skip
"""Told of every order that a request names, but for one in several currencies."""

OF_REQUESTS: Final = frozenset({"asked_minor", "nonrefundable_minor", "order_known"})
"""Told of every request."""

WITH: Final[Mapping[str, str]] = {"item_reasons": "refund_reason"}
"""Fact -> the fact that nearly never comes without it: a request that gives no reason line by line
gives the refund's."""

NEARLY_ALL: Final = 0.9
"""What is not there on this share of the decisions that name an order was not logged."""


@dataclass(frozen=True, slots=True)
class Unlogged:
    """A fact that was not logged with ``absent`` of the ``orders`` decisions that name an order."""

    fact: str
    rules: tuple[str, ...]
    absent: int
    orders: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"fact": self.fact, "rules": list(self.rules), "absent": self.absent,
                "orders": self.orders}  # fmt: skip


@dataclass(slots=True)
class Logging:
    """Counts, for facts with the rules that read them, the decisions that lack them.

    >>> from rules.engine import Circumstances
    >>> logging = Logging({"order_held_minor": ("again",)})
    >>> row = Logged("r", "c", 0, {"order_count_by_order_365d": 1.0}, None, Circumstances(),
    ...              policy_hash="h")
    >>> [*logging.watching([row, row])] == [row, row]
    True
    >>> logging.unlogged()
    (Unlogged(fact='order_held_minor', rules=('again',), absent=2, orders=2),)
    """

    rules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    orders: int = 0
    absent: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, policy: Policy) -> Logging:
        """Nothing counted yet of what the rules and limits of a policy read."""
        return cls.of_rules(policy.rules)

    @classmethod
    def of_rules(cls, rules: Iterable[CompiledRule]) -> Logging:
        """Nothing counted yet of what these read."""
        readers: dict[str, dict[str, None]] = defaultdict(dict)
        for rule in rules:
            for name in sorted(rule.reads & (LEDGER_FACTS.keys() | OF_REQUESTS | WITH.keys())):
                readers[name][rule.id] = None
        return cls({name: tuple(ids) for name, ids in sorted(readers.items())})

    @classmethod
    def together(cls, parts: Iterable[Logging]) -> Logging:
        """What several counted of other decisions."""
        whole = cls()
        for part in parts:
            whole.rules = whole.rules or part.rules
            whole.orders += part.orders
            whole.absent.update(part.absent)
        return whole

    @property
    def reads(self) -> frozenset[str]:
        """The facts that a decision is to be read with; none where there is nothing to count."""
        if not self.rules:
            return frozenset()
        return frozenset({*self.rules, *ORDER_NAMED, *OF_ORDERS, *WITH.values()})

    def watching(self, rows: Iterable[Logged]) -> Iterator[Logged]:
        """The same rows, counted as they pass; what was not decided was not logged either."""
        if not self.rules:
            yield from rows
            return
        for row in rows:
            facts = row.facts.keys()
            if row.policy_hash is not None and not facts.isdisjoint(ORDER_NAMED):
                self.orders += 1
                for name in self.rules:
                    if name not in facts and _would_be_there(name, facts):
                        self.absent[name] += 1
            yield row

    def unlogged(self) -> tuple[Unlogged, ...]:
        """The facts that nearly all decisions lack that name an order."""
        return tuple(
            Unlogged(name, rules, self.absent[name], self.orders)
            for name, rules in self.rules.items()
            if self.orders and self.absent[name] >= NEARLY_ALL * self.orders
        )


def _would_be_there(name: str, facts: Collection[str]) -> bool:
    """Whether this program would have told of a fact that is not among those of a request.

    Of what an order tells only sometimes: none of the ledger is there.
    """
    if name in OF_ORDERS or name in OF_REQUESTS:
        return True
    return WITH[name] in facts if name in WITH else OF_ORDERS.isdisjoint(facts)
