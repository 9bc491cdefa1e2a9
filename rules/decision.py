"""What a decision is made of: actions and their order, sources, rule results, the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

#: Reason code of a rule that could not be settled: its own code would claim what nobody knows.
FACT_MISSING = "FACT_MISSING"


class Action(StrEnum):
    """What the refund backend is asked to do, from the mildest to the most severe.

    REVIEW exists for clients of the reference API and is only ever answered by the sandbox.
    `severity` is the rank of an action: 0 for ALLOW, rising.

    >>> max(Action.MANUAL_REVIEW, Action.PREVENT, Action.ALLOW)
    <Action.PREVENT: 'PREVENT'>
    >>> Action.REVIEW < Action.PREVENT  # by severity, not by the alphabet
    True
    """

    ALLOW = "ALLOW"
    REVIEW = "REVIEW"
    MANUAL_REVIEW = "MANUAL_REVIEW"
    PREVENT = "PREVENT"

    severity: int

    def __init__(self, _: str) -> None:
        self.severity = len(type(self).__members__)

    def __lt__(self, other: object) -> bool:
        return self.severity < other.severity if isinstance(other, Action) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self.severity <= other.severity if isinstance(other, Action) else NotImplemented

    def __gt__(self, other: object) -> bool:
        return self.severity > other.severity if isinstance(other, Action) else NotImplemented

    def __ge__(self, other: object) -> bool:
        return self.severity >= other.severity if isinstance(other, Action) else NotImplemented


class Source(StrEnum):
    """Which part of the policy had the last word."""

    RULE = "RULE"
    MODEL = "MODEL"
    LIST = "LIST"
    MANUAL_REVIEW = "MANUAL_REVIEW"
    RATE_LIMIT = "RATE_LIMIT"
    FALLBACK = "FALLBACK"


class Mode(StrEnum):
    """Whether a rule acts (live) or is only evaluated and logged (shadow)."""

    LIVE = "live"
    SHADOW = "shadow"


class Stage(StrEnum):
    """Where a rule stands: before lists and model (hard), a limit, or beside the bands (risk)."""

    HARD = "hard"
    LIMIT = "limit"
    RISK = "risk"


class Outcome(StrEnum):
    """What evaluating a condition gave."""

    HIT = "hit"
    MISS = "miss"
    UNKNOWN = "unknown"


class FollowUpCode(StrEnum):
    """What the backend may offer beside the verdict. Advice: nothing acts on it here."""

    STORE_CREDIT = "STORE_CREDIT"
    WAIT_FOR_RETURN = "WAIT_FOR_RETURN"
    STEP_UP_VERIFICATION = "STEP_UP_VERIFICATION"
    PARTIAL_AMOUNT = "PARTIAL_AMOUNT"


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A suggestion, and the rule or limit that makes it; None where a band does.

    `amount_minor` belongs to PARTIAL_AMOUNT alone: whole minor units of the request's currency.
    """

    code: FollowUpCode
    rule_id: str | None = None
    amount_minor: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the suggestion as plain JSON values."""
        return {
            "code": self.code.value,
            "rule_id": self.rule_id,
            "amount_minor": self.amount_minor,
        }


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule, evaluated on one request.

    `action` is what the rule does on a hit; `calls_for` is what this outcome asks for: the action
    on a hit, MANUAL_REVIEW for an unknown that counts as review, else ALLOW. Only live rules are
    acted on. `reason` explains `calls_for`: an unsettled rule answers FACT_MISSING.
    """

    rule_id: str
    version: int
    mode: Mode
    stage: Stage
    outcome: Outcome
    action: Action
    calls_for: Action
    reason: str
    description: str
    unknown_facts: tuple[str, ...] = ()
    #: What is kept of a miss, made once: a decision keeps dozens of the same.
    brief: Mapping[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        brief = {"rule_id": self.rule_id, "version": self.version, "mode": self.mode._value_}
        object.__setattr__(self, "brief", brief)

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        # A member's own attribute: ``value`` takes five times as long, and there are a hundred.
        return {
            "rule_id": self.rule_id,
            "version": self.version,
            "mode": self.mode._value_,
            "stage": self.stage._value_,
            "outcome": self.outcome._value_,
            "action": self.action._value_,
            "calls_for": self.calls_for._value_,
            "reason": self.reason,
            "description": self.description,
            "unknown_facts": list(self.unknown_facts),
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one request, with all that led to it.

    `reasons` holds the reason codes of the live rules that called for the action taken, in policy
    order and without repetition; `list_reasons` those of the list entries when a list decided.
    `band` is the action of the score's band (None without a score). `propensity` is the probability
    with which this policy takes this action on this request: below 1 only where exploration may
    turn a hold into an ALLOW. `explored` says that it did: the `exploration_draw`, uniform in
    [0, 1) and None where none was made, was below the policy's share. `follow_up` is what may be
    offered instead, where somebody said so.
    """

    action: Action
    source: Source
    reasons: tuple[str, ...]
    list_reasons: tuple[str, ...]
    rules: tuple[RuleResult, ...]
    band: Action | None
    explored: bool
    exploration_draw: float | None
    propensity: float
    degraded: bool
    policy_version: str
    policy_hash: str
    follow_up: FollowUp | None = None
    _others: tuple[RuleResult, ...] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def hits(self) -> tuple[RuleResult, ...]:
        """The rules that hit, live and shadow, in policy order."""
        return tuple([rule for rule in self._no_misses() if rule.outcome is Outcome.HIT])

    @property
    def unknowns(self) -> tuple[RuleResult, ...]:
        """The rules that could not be settled, live and shadow, in policy order."""
        return tuple([rule for rule in self._no_misses() if rule.outcome is Outcome.UNKNOWN])

    def _no_misses(self) -> tuple[RuleResult, ...]:
        """The few rules that did not miss: an answer and its record ask for them six times."""
        if self._others is None:
            others = tuple([rule for rule in self.rules if rule.outcome is not Outcome.MISS])
            object.__setattr__(self, "_others", others)
            return others
        return self._others

    def to_json(self) -> dict[str, Any]:
        """Return the decision as plain JSON values; missed rules by id and version only."""
        return {
            "action": self.action._value_,
            "source": self.source._value_,
            "reasons": list(self.reasons),
            "list_reasons": list(self.list_reasons),
            "hits": [rule.to_json() for rule in self.hits],
            "unknowns": [rule.to_json() for rule in self.unknowns],
            "misses": [rule.brief for rule in self.rules if rule.outcome is Outcome.MISS],
            "band": self.band._value_ if self.band else None,
            "explored": self.explored,
            "exploration_draw": self.exploration_draw,
            "propensity": self.propensity,
            "degraded": self.degraded,
            "policy_version": self.policy_version,
            "policy_hash": self.policy_hash,
            "follow_up": self.follow_up.to_json() if self.follow_up else None,
        }
