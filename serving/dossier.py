"""All that is known of one refund, as it is read by id: state, facts, outcome, decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NotRequired, cast

# On Python before 3.12 pydantic reads a TypedDict from here only.
from typing_extensions import TypedDict

from serving import answers
from serving.envelope import ApiError
from serving.store.indexing import StoredEvent
from serving.store.refunds import State
from serving.store.store import Store
from serving.wire import shown


class OutcomeBody(TypedDict):
    """What became of a refund; ``amount`` is what was paid, where it was told."""

    status: str
    at: int
    amount: NotRequired[int]
    declineReason: NotRequired[str]


class FactBody(TypedDict):
    """A fact about a refund, ``at`` when it became known (epoch ms); what was not told is left out.

    ``event`` is the type of the event: refund_request, refund_outcome, transaction, return, label.
    """

    event: str
    at: int
    status: NotRequired[str]
    amount: NotRequired[int]
    nonRefundableAmount: NotRequired[int]
    currency: NotRequired[str]
    refundReason: NotRequired[str]
    declineReason: NotRequired[str]
    transactionId: NotRequired[str]
    type: NotRequired[str]
    success: NotRequired[bool]
    review: NotRequired[str]
    source: NotRequired[str]


class PastDecision(TypedDict):
    """A decision as it was answered at ``timestamp`` (Unix seconds), less the customer's id."""

    timestamp: int
    action: answers.ActionName
    source: answers.SourceName
    score: NotRequired[int]
    scoreId: str
    abuseProbability: NotRequired[float]
    riskLevel: NotRequired[str]
    reasons: list[answers.ReasonBody]
    rules: answers.RulesBody
    warnings: list[answers.WarningBody]
    modelVersion: NotRequired[str]
    policyVersion: NotRequired[str]
    degraded: bool
    followUp: NotRequired[answers.FollowUpBody]


class RefundData(TypedDict):
    """A refund: where it stands since ``stateAt``, and how it came there.

    ``payable`` and ``currency`` are of its latest request, null where only reports named it.
    ``history`` is the facts, the oldest first; ``decisions`` are the latest first. Times are epoch
    milliseconds.
    """

    refundId: str
    state: State
    stateAt: int
    firstKnownAt: int | None
    orderId: str | None
    payable: int | None
    currency: str | None
    outcome: OutcomeBody | None
    history: list[FactBody]
    decisions: list[PastDecision]


_SAID: Final[Mapping[str, Mapping[str, str]]] = {
    "refund_request": {"amount_minor": "amount", "non_refundable_minor": "nonRefundableAmount",
                       "currency": "currency", "reason": "refundReason"},
    "refund_outcome": {"status": "status", "amount_minor": "amount",
                       "decline_reason": "declineReason"},
    "transaction": {"transaction_id": "transactionId", "kind": "type", "amount_minor": "amount",
                    "currency": "currency", "success": "success"},
    "return": {"status": "status"},
    "label": {"label": "review", "source": "source"},
}  # fmt: skip
"""What is told of each event about a refund, by the names of the wire; nothing of a person."""


def refund_data(store: Store, refund_id: str) -> RefundData:
    """All that is known of a refund; raises `ApiError` (404) for one that nothing ever named."""
    refund = store.refund(refund_id)
    if refund is None:
        raise ApiError(404, f"refundId: no refund {shown(refund_id)!r} is known")
    facts = [_fact(event) for event in store.refund_events(refund_id)]
    return {
        "refundId": refund_id,
        "state": refund.state,
        "stateAt": refund.state_at,
        "firstKnownAt": refund.first_known_at,
        "orderId": refund.order_id,
        "payable": refund.payable_minor,
        "currency": refund.currency,
        "outcome": _outcome(facts),
        "history": facts,
        "decisions": [_past(d.response) for d in store.decisions_of(refund_id)],
    }


def _fact(event: StoredEvent) -> FactBody:
    said = _SAID.get(event.event_type, {})
    told = {word: event.payload[name] for name, word in said.items() if name in event.payload}
    return cast(FactBody, {"event": event.event_type, "at": event.known_at, **told})


def _outcome(facts: list[FactBody]) -> OutcomeBody | None:
    """The latest outcome, which is where the refund stands unless it was asked for again since."""
    told = next((fact for fact in reversed(facts) if fact["event"] == "refund_outcome"), None)
    if told is None:
        return None
    return cast(OutcomeBody, {name: value for name, value in told.items() if name != "event"})


def _past(response: Mapping[str, Any]) -> PastDecision:
    return cast(PastDecision, {"timestamp": response["timestamp"], **response["data"]})
