"""What webhooks tell, type by type: enough to act on or to look up, and nothing of a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_OF_A_DECISION: Final = ("scoreId", "action", "source", "score", "riskLevel", "policyVersion",
                         "modelVersion", "degraded")  # fmt: skip


def refund_decided(refund_id: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The ``data`` of ``refund.decided``, of what was answered; what is unknown is left out.

    Customer, reasons and warnings are not in it: ``GET /v2/decision/{scoreId}`` has them, for a key
    that may read them.

    >>> refund_decided("r1", {"customerId": "c1", "scoreId": "s1", "action": "ALLOW",
    ...                       "reasons": [], "degraded": False})
    {'refundId': 'r1', 'scoreId': 's1', 'action': 'ALLOW', 'degraded': False}
    """
    return {"refundId": refund_id, **{name: data[name] for name in _OF_A_DECISION if name in data}}


def refund_reviewed(
    refund_id: str, score_id: str, act: str, disposition: str | None, abuse: bool | None
) -> dict[str, Any]:
    """The ``data`` of ``refund.reviewed``; ``act`` is approved, denied or information_requested.

    ``action`` is what the same request is answered with from now on, left out until that is known;
    why is not in it: ``GET /v2/reviews/{refundId}`` has it, for a key that may read it.

    >>> refund_reviewed("r1", "s1", "denied", "PREVENT", True)
    {'refundId': 'r1', 'scoreId': 's1', 'act': 'denied', 'action': 'PREVENT', 'abuse': True}
    >>> refund_reviewed("r1", "s1", "information_requested", None, None)
    {'refundId': 'r1', 'scoreId': 's1', 'act': 'information_requested'}
    """
    told = {"refundId": refund_id, "scoreId": score_id, "act": act, "action": disposition,
            "abuse": abuse}  # fmt: skip
    return {name: value for name, value in told.items() if value is not None}


def review_overdue(
    refund_id: str, score_id: str, due_at: int, expected_loss_minor: int | None
) -> dict[str, Any]:
    """The ``data`` of ``review.overdue``: what still waits, and was to be done by ``dueAt`` (ms).

    >>> review_overdue("r1", "s1", 1_000, 250)
    {'refundId': 'r1', 'scoreId': 's1', 'dueAt': 1000, 'expectedLoss': 250}
    """
    return {"refundId": refund_id, "scoreId": score_id, "dueAt": due_at,
            "expectedLoss": expected_loss_minor}  # fmt: skip


def policy_activated(version: str, hash: str, replaced: str | None, act: str) -> dict[str, Any]:
    """The ``data`` of ``policy.activated``; ``act`` is ``activated`` or ``rolled_back``.

    >>> policy_activated("2", "ab12", None, "activated")
    {'policyVersion': '2', 'policyHash': 'ab12', 'replaced': None, 'act': 'activated'}
    """
    return {"policyVersion": version, "policyHash": hash, "replaced": replaced, "act": act}


def model_promoted(version: str, replaced: str | None) -> dict[str, Any]:
    """The ``data`` of ``model.promoted``: which model decides now, and which did before.

    >>> model_promoted("4", "3")
    {'modelVersion': '4', 'replaced': '3'}
    """
    return {"modelVersion": version, "replaced": replaced}


def drift_detected(
    since: int, until: int, before_since: int, features: Sequence[Mapping[str, Any]],
    score: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """The ``data`` of ``drift.detected``: what moved from the period before to this one, how far.

    Times are epoch ms; the period before ends where this one begins. ``features`` and ``score``
    have ``name``, ``psi`` and ``threshold``, which chance alone does not pass; ``score`` is None
    where it did not move.

    >>> moved = {"name": "payable_minor", "psi": 0.31, "threshold": 0.02}
    >>> drift_detected(2_000, 3_000, 1_000, [moved], None)["features"]
    [{'name': 'payable_minor', 'psi': 0.31, 'threshold': 0.02}]
    """
    return {"since": since, "until": until, "beforeSince": before_since,
            "features": [dict(one) for one in features],
            "score": None if score is None else dict(score)}  # fmt: skip
