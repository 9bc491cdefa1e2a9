"""What the API answers: the bodies of decisions, records and errors, and the warnings' catalogue.

Plain values in, plain dictionaries out; the types are what OpenAPI is published from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NotRequired

import orjson

# On Python before 3.12 pydantic reads a TypedDict from here only.
from typing_extensions import TypedDict

from serving.wire import Problem, did_you_mean, shown

ActionName = Literal["ALLOW", "PREVENT", "MANUAL_REVIEW", "REVIEW"]
"""What to do with the refund; REVIEW comes from the sandbox only."""

SourceName = Literal["RULE", "MODEL", "LIST", "MANUAL_REVIEW", "RATE_LIMIT", "FALLBACK"]
"""What made the decision; clients build nothing on it."""

FollowUpName = Literal["STORE_CREDIT", "WAIT_FOR_RETURN", "STEP_UP_VERIFICATION", "PARTIAL_AMOUNT"]
"""What may be offered beside a hold or a refusal."""

WarningClass = Literal[
    "customer-not-found", "order-not-found", "device-missing", "unknown-value", "fact-missing",
    "late-event", "unexpected-transition", "degraded",
]  # fmt: skip
"""Stable, and safe to program against."""

WarningBody = TypedDict("WarningBody", {"class": WarningClass, "msg": str, "help": str})
"""Something about a request that its sender may want to mend; never a refusal."""


class ReasonBody(TypedDict):
    """Why: a reason code, its sentence and, of the model's reasons, the feature behind it."""

    code: str
    description: str
    feature: NotRequired[str]
    value: NotRequired[float | str | None]
    contribution: NotRequired[float]


class RuleBody(TypedDict):
    """A rule that was hit; ``passive`` if it runs in the shadow and had no say."""

    triggered: bool
    description: str
    state: Literal["active", "passive"]
    action: str
    ruleId: NotRequired[str]
    ruleVersion: NotRequired[int]


class RulesBody(TypedDict):
    """The rules that were hit."""

    triggered: list[RuleBody]


class FollowUpBody(TypedDict):
    """What may be offered instead, and the rule that says so: advice, nothing acts on it here.

    ``amount`` is in minor units of ``currency``, that of the request.
    """

    code: FollowUpName
    amount: NotRequired[int]
    currency: NotRequired[str]
    ruleId: NotRequired[str]


class DecisionData(TypedDict):
    """A decision; what is unknown is left out. Build nothing on ``source``."""

    customerId: str
    action: ActionName
    source: SourceName
    score: NotRequired[int]
    scoreId: str
    abuseProbability: NotRequired[float]
    riskLevel: NotRequired[str]
    reasons: list[ReasonBody]
    rules: RulesBody
    warnings: list[WarningBody]
    modelVersion: NotRequired[str]
    policyVersion: NotRequired[str]
    degraded: bool
    followUp: NotRequired[FollowUpBody]


class DecisionBody(TypedDict):
    """The answer to a scored request; ``timestamp`` in Unix seconds."""

    status: int
    timestamp: int
    data: DecisionData


class RecordedData(TypedDict):
    """What was recorded, by the ids the report gave; ``recorded`` names the kinds of events."""

    customerId: NotRequired[str]
    orderId: NotRequired[str]
    refundId: NotRequired[str]
    recorded: list[str]
    warnings: list[WarningBody]


class RecordedBody(TypedDict):
    """The answer to a report, which carries no recommendation."""

    status: int
    timestamp: int
    data: RecordedData


class ValidationErrorBody(TypedDict):
    """What is wrong with one field."""

    field: str
    message: str
    value: Any


class ErrorBody(TypedDict):
    """Any refusal; ``validationErrors`` lists all that is wrong with a body."""

    status: int
    message: str
    validationErrors: NotRequired[list[ValidationErrorBody]]


def decision_body(
    *,
    decided_at: int,
    customer_id: str,
    action: ActionName,
    source: SourceName,
    score_id: str,
    probability: float | None = None,
    risk_level: str | None = None,
    reasons: Iterable[ReasonBody] = (),
    rules: Iterable[RuleBody] = (),
    warnings: Iterable[WarningBody] = (),
    model_version: str | None = None,
    policy_version: str | None = None,
    degraded: bool = False,
    follow_up: FollowUpBody | None = None,
) -> DecisionBody:
    """The answer to a scored request made at ``decided_at`` (epoch ms).

    >>> body = decision_body(decided_at=1637933719250, customer_id="c", action="PREVENT",
    ...                      source="MODEL", score_id="s", probability=0.87312)
    >>> body["timestamp"], body["data"]["score"], body["data"]["abuseProbability"]
    (1637933719, 87, 0.8731)
    """
    data: DecisionData = {
        "customerId": customer_id,
        "action": action,
        "source": source,
        "scoreId": score_id,
        "reasons": [_without_nan(reason) for reason in reasons],
        "rules": {"triggered": list(rules)},
        "warnings": list(warnings),
        "degraded": degraded,
    }
    if probability is not None:
        data["score"] = round(100 * probability)
        data["abuseProbability"] = round(probability, 4)
    if risk_level is not None:
        data["riskLevel"] = risk_level
    if model_version is not None:
        data["modelVersion"] = model_version
    if policy_version is not None:
        data["policyVersion"] = policy_version
    if follow_up is not None:
        data["followUp"] = follow_up
    return {"status": 200, "timestamp": decided_at // 1000, "data": data}


def _without_nan(reason: ReasonBody) -> ReasonBody:
    """JSON knows no NaN: an unknown value is null."""
    value = reason.get("value")
    if isinstance(value, float) and not math.isfinite(value):
        return {**reason, "value": None}
    return reason


def recorded_body(
    *,
    recorded_at: int,
    customer_id: str | None = None,
    order_id: str | None = None,
    refund_id: str | None = None,
    recorded: Iterable[str] = (),
    warnings: Iterable[WarningBody] = (),
) -> RecordedBody:
    """The answer to a report received at ``recorded_at`` (epoch ms).

    >>> recorded_body(recorded_at=1637933719250, refund_id="r", recorded=["label"])["data"]
    {'refundId': 'r', 'recorded': ['label'], 'warnings': []}
    """
    ids = {"customerId": customer_id, "orderId": order_id, "refundId": refund_id}
    given = {name: value for name, value in ids.items() if value is not None}
    data: Any = {**given, "recorded": list(recorded), "warnings": list(warnings)}
    return {"status": 200, "timestamp": recorded_at // 1000, "data": data}


def error_body(status: int, message: str, problems: Sequence[Problem] = ()) -> ErrorBody:
    """A refusal in the one envelope.

    >>> error_body(400, "refund.amount: is required", [Problem("refund.amount", "is required")])
    ... # doctest: +NORMALIZE_WHITESPACE
    {'status': 400, 'message': 'refund.amount: is required',
     'validationErrors': [{'field': 'refund.amount', 'message': 'is required', 'value': None}]}
    """
    body: ErrorBody = {"status": status, "message": message}
    if problems:
        body["validationErrors"] = [
            {"field": p.field, "message": p.message, "value": p.value} for p in problems
        ]
    return body


# --- warnings ----------------------------------------------------------------------------------

_HELP: Final[dict[WarningClass, str]] = {
    "customer-not-found": "Nothing is known of this customer but this request, so the score rests "
    "on less. Send orders as they are placed, or import your history.",
    "order-not-found": "The refund could not be checked against its order. Send orders to "
    "/v2/order, or order.price and order.currency with the refund.",
    "device-missing": "Device and network history could not be used. Send device.deviceId and "
    "device.ipAddress of the customer who asked for the refund.",
    "unknown-value": "It counts as none of the values that we know; a status, stage or kind of "
    "transaction that is unknown records nothing by itself. If it is a mistake, correct it.",
    "fact-missing": "What needs it was decided without it, or waits for a person. Send the fields "
    "that are named, with the request or in reports before it, if you have them.",
    "late-event": "The event arrived later than others that it precedes; decisions made in "
    "between did not see it. Send events as they happen.",
    "unexpected-transition": "The report is recorded as it stands. Look into the refund if this "
    "was not meant.",
    "degraded": "The decision was made without the model, by the fallback of the policy. It is "
    "recorded; nothing needs to be sent again.",
}


_LOAD_RATES: Final = (
    "Load exchange rates: `recourse import FOLDER`, a data folder with a table fx_rates (date, "
    "currency, rate; see docs/data-folder.md); its refund_requests may be empty."
)


def _warning(kind: WarningClass, msg: str, help: str | None = None) -> WarningBody:
    return {"class": kind, "msg": msg, "help": help or _HELP[kind]}


def customer_not_found() -> WarningBody:
    """No history of the customer."""
    return _warning("customer-not-found", "customer.customerId: no earlier event of this customer")


def order_not_found() -> WarningBody:
    """The refund names an order that nobody reported."""
    return _warning("order-not-found", "order.orderId: no order of this id was reported")


def device_missing() -> WarningBody:
    """A refund request without its device."""
    return _warning("device-missing", "device.deviceId: not given")


def unknown_value(field: str, value: str, known: Iterable[str], then: str = "") -> WarningBody:
    """A value outside the field's list, with the nearest in it, and what that means if more.

    >>> unknown_value("refund.claim", "FULLY", ("FULL", "PARTIAL"))["msg"]
    'refund.claim: "FULLY" is not a value we know (did you mean FULL?)'
    """
    hint = did_you_mean(value, known)
    said = orjson.dumps(shown(value)).decode()
    so = f": {then}" if then else ""
    return _warning("unknown-value", f"{field}: {said} is not a value we know{hint}{so}")


def other_currency(field: str, currency: str, expected: str) -> WarningBody:
    """A part of an amount in another currency than the whole: its amount is unknown to us."""
    msg = f"{field}: {currency} differs from {expected}, that of the whole; the amount is left out"
    return _warning("unknown-value", msg)


def fact_missing(field: str, consequence: str) -> WarningBody:
    """Something that was not known and what it kept from happening.

    >>> fact_missing("order.deliveredTime", "rule return_window could not be settled")["msg"]
    'order.deliveredTime is not known: rule return_window could not be settled'
    """
    return _warning("fact-missing", f"{field} is not known: {consequence}")


def unsettled(
    rule_id: str, facts: Mapping[str, Sequence[str]], *, holds: bool,
    without_rate: str | None = None,
) -> WarningBody:  # fmt: skip
    """A rule that could not be settled: which facts were not known, and the fields that tell them.

    ``without_rate`` is the currency of the refund if it has no exchange rate and facts wait for it.

    >>> unsettled("window", {"delivered_age_days": ["order.deliveredTime"]}, holds=True)["msg"]
    'rule window could not be settled, so a person has to: not known is delivered_age_days \
(order.deliveredTime)'
    >>> unsettled("high", {"payable_minor": ()}, holds=False, without_rate="JPY")["msg"]
    'rule high could not be settled: not known is payable_minor; this store has no exchange rate \
for JPY'
    """
    named = ", ".join(
        f"{fact} ({', '.join(fields)})" if fields else fact for fact, fields in facts.items()
    )
    then = ", so a person has to" if holds else ""
    verb = "is" if len(facts) == 1 else "are"
    msg = f"rule {rule_id} could not be settled{then}: not known {verb} {named}"
    if without_rate is None:
        return _warning("fact-missing", msg)
    send = f" {_HELP['fact-missing']}" if any(facts.values()) else ""
    return _warning(
        "fact-missing", f"{msg}; this store has no exchange rate for {without_rate}",
        f"{_LOAD_RATES}{send}",
    )  # fmt: skip


def late_event(late_ms: int) -> WarningBody:
    """An event whose own time lies ``late_ms`` before what was already known.

    >>> late_event(90_000)["msg"]
    'timestamp: 90 s before an event already recorded'
    """
    return _warning(
        "late-event", f"timestamp: {late_ms // 1000} s before an event already recorded"
    )


def unexpected_transition(before: str | None, after: str) -> WarningBody:
    """A report that the refund's lifecycle did not lead one to expect.

    >>> unexpected_transition("DENIED", "COMPLETED")["msg"]
    'refund.status: COMPLETED reported of a refund that was DENIED'
    >>> unexpected_transition("REFUNDED", "COMPLETED")["msg"]
    'refund.amount: less is reported as paid than before; the greater payment counts'
    """
    if (before, after) == ("REFUNDED", "COMPLETED"):  # all else of it is no surprise
        less = "less is reported as paid than before; the greater payment counts"
        return _warning("unexpected-transition", f"refund.amount: {less}")
    was = f"that was {before}" if before else "never seen before"
    return _warning("unexpected-transition", f"refund.status: {after} reported of a refund {was}")


def paid_otherwise(
    paid_minor: int, currency: str | None, approved_minor: Mapping[str, int]
) -> WarningBody:
    """A payment of more than was approved, or in another currency; what was, by currency.

    >>> paid_otherwise(7000, "GBP", {"GBP": 1000})["msg"]
    'refund.amount: 7000 GBP reported as paid of a refund of which 1000 GBP was approved'
    >>> paid_otherwise(1000, "USD", {"GBP": 1000})["msg"]
    'refund.currency: 1000 USD reported as paid of a refund of which 1000 GBP was approved'
    """
    field = "amount" if currency in approved_minor else "currency"
    approved = " or ".join(f"{minor} {name}" for name, minor in approved_minor.items())
    return _warning(
        "unexpected-transition",
        f"refund.{field}: {paid_minor} {currency} reported as paid of a refund of which {approved} "
        "was approved",
    )


def degraded(why: str) -> WarningBody:
    """A decision by the policy's fallback.

    >>> degraded("the model missed its deadline")["msg"]
    'decided without the model: the model missed its deadline'
    """
    return _warning("degraded", f"decided without the model: {why}")
