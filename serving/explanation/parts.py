"""The explanation of one decision as values: what its page draws and its JSON holds.

Sentences are in the language that the service speaks, and stand beside the numbers they tell.
Persons stand under pseudonyms. Times are epoch milliseconds, amounts minor units, weights log-odds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, cast

from pydantic import ConfigDict, TypeAdapter
from pydantic.alias_generators import to_camel

Lane = Literal["orders", "refunds", "returns", "disputes", "verdicts", "decisions"]
"""A row of the timeline."""

LANES: Final[tuple[Lane, ...]] = (
    "orders",
    "refunds",
    "returns",
    "disputes",
    "verdicts",
    "decisions",
)


class Part:
    """A part of an explanation: its fields have the names of the wire in JSON."""

    __slots__ = ()
    __pydantic_config__: ClassVar = ConfigDict(alias_generator=to_camel)


@dataclass(frozen=True, slots=True)
class FactTold(Part):
    """A feature, its value in a sentence, and what it adds to the score (log-odds).

    ``standing`` says where the value stands among all refund requests, ``own_past`` what it was at
    this customer's earlier ones; either is None where there is nothing to tell.
    """

    feature: str
    sentence: str
    value: float | str | None
    contribution: float
    standing: str | None = None
    own_past: str | None = None


@dataclass(frozen=True, slots=True)
class ReasonTold(Part):
    """A reason code with all that its features add: above 0 it raises the risk, below it lowers it.

    ``share`` is that of the way from the base rate to the score, in log-odds: below 0 it leads
    away, and it is None where there is no way to speak of. ``facts`` begin with the strongest.
    """

    code: str
    name: str
    contribution: float
    share: float | None
    facts: tuple[FactTold, ...]


@dataclass(frozen=True, slots=True)
class Verdict(Part):
    """What was answered, and what settled it: ``decided_by`` in sentences, the weightiest first.

    ``asked_minor`` and ``currency`` are the request's own, ``payable_minor`` is in the base
    currency. ``band`` is the action of the score alone. ``base_rate`` is where the model begins:
    the probability of its average score.
    """

    score_id: str
    refund_id: str
    order_id: str | None
    customer: str
    decided_at: int
    action: str
    source: str
    decided_by: tuple[str, ...]
    asked_minor: int
    currency: str
    payable_minor: float | None
    base_currency: str
    probability: float | None
    base_rate: float | None
    risk_level: str | None
    expected_loss_minor: float | None
    band: str | None
    degraded: bool
    explored: bool
    follow_up: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Edge(Part):
    """The policy's edge that is nearest to where the score lies; ``action`` is what lies beyond.

    ``kind`` is what would have to move, with the rest as it is: the probability, or the amount that
    is asked for (minor units of the request's own currency).
    """

    kind: Literal["probability", "amount"]
    at: float
    action: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Change(Part):
    """A fact still to come, or another circumstance, and what would be answered then.

    ``happened_at`` is when it did come, if it came after the decision.
    """

    kind: str
    sentence: str
    action: str
    probability: float | None
    moves: bool
    happened_at: int | None = None


@dataclass(frozen=True, slots=True)
class WhatIf(Part):
    """What would change the verdict, through the real decision function.

    ``problem`` says why nothing could be computed, where that is so. ``differs`` says what is
    different already when the decision is made again from the store as it is now, ``unmoved`` that
    no score, or no lower one, would change the answer.
    """

    edges: tuple[Edge, ...] = ()
    changes: tuple[Change, ...] = ()
    differs: str | None = None
    unmoved: str | None = None
    problem: str | None = None


Tone = Literal["plain", "good", "bad", "wait"]


@dataclass(frozen=True, slots=True)
class Moment(Part):
    """Something that happened, as the timeline draws it: ``title`` in words, ``detail`` beside it.

    ``is_own`` where it is about the refund that was decided, ``is_later`` where it became known
    after the decision. ``tone`` colours it: good and bad are for the shop.
    """

    at: int
    lane: Lane
    title: str
    detail: str = ""
    amount_minor: int | None = None
    currency: str | None = None
    refund_id: str | None = None
    order_id: str | None = None
    is_own: bool = False
    is_later: bool = False
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Timeline(Part):
    """The customer's events around a decision, the oldest first.

    ``left_out`` older ones are not shown, and ``left_out_later`` that came long after.
    """

    moments: tuple[Moment, ...] = ()
    left_out: int = 0
    left_out_later: int = 0


@dataclass(frozen=True, slots=True)
class Hub(Part):
    """Something the request's customer used that others may have used too.

    ``kind`` is an entity, ``value`` its pseudonym, ``accounts`` how many customers used it.
    """

    kind: str
    value: str
    name: str
    accounts: int


@dataclass(frozen=True, slots=True)
class Linked(Part):
    """Another customer, the hubs (their ``value``) that lead there, and what is known of them.

    ``orders`` and ``refunds`` count what was done with a hub and ``last_seen`` is the last of them;
    ``refused`` and ``confirmed_abuse`` count their refunds wherever they were.
    """

    customer: str
    through: tuple[str, ...]
    orders: int
    refunds: int
    refused: int
    confirmed_abuse: int
    last_seen: int


@dataclass(frozen=True, slots=True)
class Links(Part):
    """Accounts linked through a device, payment method, address, IP or e-mail before the decision.

    ``accounts`` begin with the most telling; ``left_out`` are not among them.
    """

    customer: str
    hubs: tuple[Hub, ...] = ()
    accounts: tuple[Linked, ...] = ()
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class RuleTold(Part):
    """A rule of the policy on this request; ``decisive`` where it called for what was answered.

    ``action`` is the rule's, and of one that could not be settled what that called for.
    """

    rule_id: str
    version: int
    mode: str
    stage: str
    outcome: Literal["hit", "unknown", "miss"]
    action: str
    description: str
    reason: str
    unknown_facts: tuple[str, ...] = ()
    decisive: bool = False


@dataclass(frozen=True, slots=True)
class Note(Part):
    """What a person said about the refund, or did with it."""

    at: int
    author: str
    said: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AuditTold(Part):
    """An entry of the audit log about the refund; ``erased`` where its personal part is gone."""

    seq: int
    at: int
    actor: str
    action: str
    content: Mapping[str, Any]
    erased: bool = False


@dataclass(frozen=True, slots=True)
class Versions(Part):
    """What the decision was made with, and the program that explains it."""

    model: str | None
    policy: str
    policy_hash: str
    catalog_hash: str
    base_currency: str


@dataclass(frozen=True, slots=True)
class Explanation(Part):
    """Everything that is told of one decision.

    ``raising`` and ``lowering`` begin with the strongest. ``base_log_odds`` and ``log_odds`` are
    where the waterfall begins and ends, None without a model. ``calibration`` are points (log-odds,
    probability) of the model's curve that span it; without any, it is drawn by its two ends.
    """

    language: str
    verdict: Verdict
    raising: tuple[ReasonTold, ...]
    lowering: tuple[ReasonTold, ...]
    base_log_odds: float | None
    log_odds: float | None
    what_if: WhatIf
    timeline: Timeline
    links: Links
    rules: tuple[RuleTold, ...]
    warnings: tuple[str, ...]
    notes: tuple[Note, ...]
    audit: tuple[AuditTold, ...]
    versions: Versions
    calibration: tuple[tuple[float, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, by the names of the wire."""
        return cast(dict[str, Any], _PLAIN.dump_python(self, mode="json", by_alias=True))


_PLAIN: Final = TypeAdapter(Explanation)
