"""What the exploration draw made of each refund that a policy would hold: counted, not judged.

A refund counts once: by the decision that explored it, else by its last one. Analysts' dispositions
and sandbox actions are no decisions of the policy and are left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, NamedTuple

from rules.backtest import as_backtested
from rules.decision import Action, Decision, Mode, Source, Stage
from rules.document import Exploration
from rules.engine import decide
from rules.logged import Logged
from rules.policy import Policy

FINEST: Final = 1000
"""Draws are counted by the thousandth."""

_NO_CAP: Final = 1e18


class Lot(StrEnum):
    """What the draw made of a refund that the policy would hold."""

    EXPLORED = "EXPLORED"
    HELD = "HELD"
    ABOVE_CAP = "ABOVE_CAP"
    AMOUNT_UNKNOWN = "AMOUNT_UNKNOWN"
    NEVER = "NEVER"
    """Held by a hard rule, a limit, a list or the fallback: never explored, whatever its amount."""


class HeldRefund(NamedTuple):
    """A refund that was held, or would have been; NaN is what is not known."""

    lot: Lot
    policy_hash: str
    customer: int
    decided_at: int
    payable_minor: float
    abuse: float
    severity: int
    """Of what the policy came to before the draw."""
    propensity: float
    probability: float
    why: str


@dataclass(slots=True)
class ExplorationCounts:
    """Decided requests, oldest first: a tuple of each refund held, and counts.

    ``policies`` by hash are those that decided; requests of others are counted as ``elsewhere``.
    ``draws`` counts draws by the thousandth; ``eligible`` and ``explored`` the refunds that each
    policy could explore and did; ``labelled_paid`` those with a label that were paid whatever was
    drawn. Sets hold hashes of ids, as there may be millions.
    """

    policies: Mapping[str, Policy]
    decisions: int = 0
    elsewhere: int = 0
    first_at: int | None = None
    last_at: int | None = None
    draws: Counter[int] = field(default_factory=Counter)
    held: dict[str, HeldRefund] = field(default_factory=dict)
    eligible: dict[str, set[int]] = field(default_factory=dict)
    explored: dict[str, set[int]] = field(default_factory=dict)
    labelled_paid: set[int] = field(default_factory=set)
    _customers: dict[str, int] = field(default_factory=dict)
    _drawn: set[int] = field(default_factory=set)
    _capless: dict[str, Policy] = field(default_factory=dict)

    def take(self, row: Logged) -> None:
        """Count one decided request."""
        self.decisions += 1
        self.first_at = row.decided_at if self.first_at is None else self.first_at
        self.last_at = row.decided_at
        policy = self.policies.get(row.policy_hash or "")
        if policy is None:
            self.elsewhere += 1
            return
        own = row.circumstances
        if policy.exploration is None or own.disposition or own.sandbox:
            return
        self._draw(row, policy.hash)
        if row.action is Action.ALLOW and not row.explored:
            if row.abuse is not None:
                self.labelled_paid.add(hash(row.refund_id))
            if (before := self.held.get(row.refund_id)) and before.lot is not Lot.EXPLORED:
                del self.held[row.refund_id]
            return
        found = self._held(row, policy)
        before = self.held.get(row.refund_id)
        if before is None or before.lot is not Lot.EXPLORED:
            self.held[row.refund_id] = found

    def _draw(self, row: Logged, policy_hash: str) -> None:
        """Count a draw once: that of a refund is the same under the same policy each time."""
        draw = row.circumstances.exploration_draw
        own = hash((row.refund_id, policy_hash))
        if draw is not None and own not in self._drawn:
            self._drawn.add(own)
            self.draws[int(draw * FINEST)] += 1
        if row.explored or row.propensity < 1:
            self.eligible.setdefault(policy_hash, set()).add(own)
        if row.explored:
            self.explored.setdefault(policy_hash, set()).add(own)

    def _held(self, row: Logged, policy: Policy) -> HeldRefund:
        plain = decide(row.facts, row.score, policy, as_backtested(row.circumstances))
        lot = self._lot(row, policy, plain)
        payable = row.payable_minor
        return HeldRefund(
            lot=lot,
            policy_hash=policy.hash,
            customer=self._customers.setdefault(row.customer, len(self._customers)),
            decided_at=row.decided_at,
            payable_minor=math.nan if payable is None else payable,
            abuse=math.nan if row.abuse is None else float(row.abuse),
            severity=plain.action.severity,
            propensity=row.propensity,
            probability=math.nan if row.score is None else row.score.probability,
            why=_why(plain) if lot is Lot.NEVER else "",
        )

    def _lot(self, row: Logged, policy: Policy, plain: Decision) -> Lot:
        if row.explored:
            return Lot.EXPLORED
        if row.propensity < 1:
            return Lot.HELD
        capless = self._without_cap(policy)
        anyway = decide(row.facts, row.score, capless, row.circumstances)
        if anyway.explored or anyway.propensity < 1:
            return Lot.ABOVE_CAP
        by_chance = plain.source in (Source.MODEL, Source.RULE) and not any(
            rule.mode is Mode.LIVE
            and rule.stage is not Stage.RISK
            and rule.calls_for > Action.ALLOW
            for rule in plain.rules
        )
        return Lot.AMOUNT_UNKNOWN if by_chance and row.payable_minor is None else Lot.NEVER

    def _without_cap(self, policy: Policy) -> Policy:
        if policy.hash not in self._capless and policy.exploration is not None:
            everything = Exploration(share=policy.exploration.share, max_amount_minor=_NO_CAP)
            self._capless[policy.hash] = replace(policy, exploration=everything)
        return self._capless[policy.hash]


def _why(plain: Decision) -> str:
    """What held a refund, in the words of the report."""
    if plain.source is Source.RULE:
        return "hard rules"
    return {Source.RATE_LIMIT: "limits", Source.LIST: "lists", Source.FALLBACK: "the fallback"}.get(
        plain.source, "other parts"
    )
