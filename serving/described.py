"""What each call is for, takes, answers and refuses: what OpenAPI says beside the schemas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, get_args

from features.events import ENTITIES
from serving import (
    answers,
    backfill,
    dossier,
    examples,
    managed,
    management,
    reports,
    reviewing,
)
from serving.api import MAX_LATENCY_MS, SCORE_VALUE
from serving.backfill import MAX_LINES, NDJSON, PARSE, Kind
from serving.envelope import JSON
from serving.examples import YAML, Example
from serving.explanation.parts import Explanation
from serving.idempotency import MOST_CHARACTERS
from serving.management import MOST_ENTRIES
from serving.store.lists import ListName
from serving.wire import Problem

Where = Literal["path", "query", "header"]
Schema = Mapping[str, Any]

SCORING, REPORTING, READING, REVIEWING = "scoring", "reporting", "reading", "reviewing"
HISTORY, POLICY, LISTS, PRIVACY, ABOUT = "history", "policy", "lists", "personal data", "about"

TAGS: Final[Mapping[str, str]] = {
    SCORING: "Before money moves: is this refund to be paid?",
    REPORTING: "What happened: recorded as it stands, also when it surprises.",
    READING: "Refunds and decisions by id.",
    HISTORY: "What happened before Recourse was there.",
    REVIEWING: "What waits for a person, what is most at stake first.",
    POLICY: "The documents that decide. A change is a new version.",
    LISTS: "Entities that are blocked or allowed, until an entry expires.",
    PRIVACY: "What is known about a customer, and its erasure.",
    ABOUT: "This documentation.",
}


class Parameter(NamedTuple):
    """A parameter of a call."""

    name: str
    where: Where
    description: str
    schema: Schema


@dataclass(frozen=True)
class Described:
    """A call: of several ``scopes`` one is enough; ``answers`` are by media type, as ``bodies``."""

    operation_id: str
    tag: str
    description: str
    answers: Mapping[str, Any]
    scopes: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    bodies: Mapping[str, Any] = field(default_factory=dict)
    needs_body: bool = True
    examples: Mapping[str, Example] = field(default_factory=dict)
    answered: Mapping[str, Any] = field(default_factory=dict)
    """Examples of answers, by name."""
    answer_description: str = "Done."
    more_refusals: tuple[int, ...] = ()
    """Besides those that follow from its scopes, its bodies and its path."""
    links: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def refusals(self) -> tuple[int, ...]:
        """The statuses of its refusals, less those that come of an idempotency key."""
        found = {405, 500, *self.more_refusals}
        if self.scopes:
            found |= {401, 403, 429, 503}
        if self.bodies:
            found |= {400, 408, 413, 415}
        if any(each.where == "query" for each in self.parameters):
            found.add(400)
        if any(each.where == "path" for each in self.parameters):
            found.add(404)
        return tuple(sorted(found))


def _error(status: int, message: str, problem: Problem | None = None) -> answers.ErrorBody:
    return answers.error_body(status, message, [problem] if problem else ())


_NO_AMOUNT: Final = Problem("refund.amount", "must be an integer of minor units", "10.00")

REFUSALS: Final[Mapping[int, tuple[str, Any]]] = {
    400: (
        "Something is wrong with what was sent: all of it, by field.",
        _error(400, str(_NO_AMOUNT), _NO_AMOUNT),
    ),
    401: (
        "No key, or one that is not known.",
        _error(401, "Authorization: is required, as in: token sk_live_…"),
    ),
    403: (
        "The key may not do this.",
        _error(403, "Authorization: this key lacks the scope admin, it has report, score"),
    ),
    404: ("There is no such thing.", _error(404, "refundId: no refund 'r-1' is known")),
    405: (
        "The address does not allow this method.",
        _error(405, "PUT is not allowed at this address, but OPTIONS, POST"),
    ),
    408: (
        "The body did not come in time; nothing was acknowledged. Send it again.",
        _error(408, "body: must be complete within 13 s"),
    ),
    409: (
        "It conflicts with what is going on, or with what is there.",
        _error(409, "policy 2: is in force already"),
    ),
    413: ("The body is too large.", _error(413, "body: must be at most 262144 bytes")),
    415: (
        "The body is of a kind that is not taken here.",
        _error(415, "Content-Type: must be application/json, got text/plain"),
    ),
    422: (
        "The idempotency key came with other content before.",
        _error(
            422,
            "Idempotency-Key: 'k-1' was used with other content, or on another call; use a new one",
        ),
    ),
    429: (
        "Too much was asked with this key, or from this address with unknown keys.",
        _error(429, "this API key asks more than 2000 times a second"),
    ),
    500: ("Something went wrong on our side.", _error(500, "something went wrong on our side")),
    503: (
        "The store cannot be reached; nothing was acknowledged. Send it again.",
        _error(503, "the store cannot be reached: nothing was recorded"),
    ),
}
"""Every refusal: what it means, and an example."""


# --- parameters --------------------------------------------------------------------------------

_ID: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"\S"}

CUSTOMER_ID: Final = Parameter("customerId", "path", "The customer, as your requests name it.", _ID)
REFUND_ID: Final = Parameter("refundId", "path", "The refund, as your requests name it.", _ID)
SCORE_ID: Final = Parameter("scoreId", "path", "The decision, as its answer names it.", _ID)
POLICY_VERSION: Final = Parameter("version", "path", "The version, as the policy says it.", _ID)
LIST: Final = Parameter(
    "name", "path", "Which list.", {"type": "string", "enum": [*get_args(ListName)]}
)

_FLAG: Final[Schema] = {"type": "string", "enum": ["true", "false"], "default": "false"}
_ENTITY: Final[Schema] = {"type": "string", "enum": [*ENTITIES]}

SCORE: Final = Parameter(
    "score", "query", "Asks for a decision; without it the body is a report.",
    {"type": "string", "enum": [SCORE_VALUE]},
)  # fmt: skip
IDEMPOTENCY_KEY: Final = Parameter(
    "Idempotency-Key", "header",
    "Sent again with the same key, the first answer is given again for 24 hours. Without it a "
    "refund's id and content tell whether it is the same request. A refund that was reported "
    "CANCELED or DECLINED and is asked for again takes a new key: the old answer holds nothing.",
    {"type": "string", "minLength": 1, "maxLength": MOST_CHARACTERS},
)  # fmt: skip
"""Taken by every POST."""
MIN_LATENCY: Final = Parameter(
    "Recourse-Min-Latency", "header",
    "In the sandbox: answer after so many milliseconds at the earliest, at most 10000.",
    {"type": "integer", "minimum": 0, "maximum": MAX_LATENCY_MS},
)  # fmt: skip
NOTE: Final = Parameter(
    "note", "query", "Why it is proposed; without it the document's own note says so.",
    {"type": "string", "maxLength": 1024},
)  # fmt: skip
TRACEPARENT: Final = Parameter(
    "traceparent", "header", "The caller's trace (W3C Trace Context), which ours goes on with.",
    {"type": "string", "examples": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]},
)  # fmt: skip
"""Taken by every call."""

_OF_ENTRIES: Final = (
    LIST,
    Parameter("entity", "query", "Of this kind alone.", _ENTITY),
    Parameter("expired", "query", "Also those that have expired.", _FLAG),
    Parameter("reveal", "query", "With the original ids, which is audited.", _FLAG),
    Parameter("limit", "query", "At most so many.",
              {"type": "integer", "minimum": 1, "maximum": MOST_ENTRIES, "default": 100}),
    Parameter("after", "query", "Go on after the page before: its `next`.",
              {"type": "string", "pattern": "^[0-9]{1,18}\\.[0-9a-zA-Z_-]+$"}),
)  # fmt: skip


_WHOLE: Final = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}

_OF_QUEUE: Final = (
    Parameter("status", "query", "Of these alone; without it OPEN and WAITING.",
              {"type": "string", "enum": [*reviewing.STATUSES]}),
    Parameter("assignee", "query", "Of this person alone; empty for nobody's.",
              {"type": "string", "maxLength": 100}),
    Parameter("overdue", "query", "Only what was to be done by now.", _FLAG),
    Parameter("proposed", "query", "Only what somebody approved above their limit, which waits for "
              "a second person; with false only what does not.", _FLAG),
    Parameter("payableAtLeast", "query", "From so much on, in minor units of the base currency.",
              _WHOLE),
    Parameter("currency", "query", "Of refunds in this currency alone.",
              {"type": "string", "pattern": "^[A-Z]{3}$"}),
    Parameter("orderId", "query", "Of this order alone.", {"type": "string"}),
    Parameter("customer", "query", "Of this customer alone: a pseudonym, as in the answer.",
              {"type": "string"}),
    Parameter("openedUntil", "query", "Only what waits since then (epoch ms) or longer.", _WHOLE),
    Parameter("limit", "query", "At most so many.",
              {"type": "integer", "minimum": 1, "maximum": MOST_ENTRIES, "default": 100}),
    Parameter("after", "query", "Go on after the page before: its `next`.",
              {"type": "string", "pattern": "^-?[0-9]{1,19}\\.[0-9a-zA-Z_-]+$"}),
)  # fmt: skip


def _envelope(data: Any) -> Mapping[str, Any]:
    """The schema of an answer around its data."""
    return {
        JSON: {
            "type": "object",
            "required": ["status", "timestamp", "data"],
            "properties": {
                "status": {"type": "integer", "const": 200},
                "timestamp": {"type": "integer", "description": "Unix seconds."},
                "data": data,
            },
        }
    }


# --- bodies ------------------------------------------------------------------------------------

_SCORED_REFUND: Final = {
    "title": "A refund request to be decided",
    "description": "With `?score=refundRequest`: status OPEN, who asks, of which order, how much, "
    "and a `refundReason` on every item, or on the refund when there are no items.",
    "allOf": [
        reports.RefundReport,
        {
            "type": "object",
            "required": ["customer", "order", "refund"],
            "properties": {
                "customer": {"type": "object", "required": ["customerId"]},
                "order": {"type": "object", "required": ["orderId"]},
                "refund": {"type": "object", "required": ["refundId", "status", "amount",
                                                          "currency"]},
            },
        },
    ],
}  # fmt: skip

_OF_BACKFILL: Final[Mapping[Kind, Any]] = {
    "refund": reports.RefundReport, "order": reports.OrderReport, "return": reports.ReturnReport,
    "dispute": reports.DisputeReport, "label": reports.LabelReport,
}  # fmt: skip


def _history(kind: Kind) -> Described:
    body = {"allOf": [_OF_BACKFILL[kind], {"type": "object", "required": ["timestamp"]}]}
    lines = {"type": "string", "description": "Such an object on each line."}
    return Described(
        f"backfill{kind.capitalize()}", HISTORY,
        "History is recorded as of its `timestamp`, which must be given and lie in the past, in "
        "stores of either clock. It is never scored. With `application/x-ndjson` each line is "
        f"answered, at most {MAX_LINES} of them: good ones are kept though others are refused, "
        "and the answer is 200 also where all are. The same again records nothing twice, with or "
        "without an idempotency key. It moves windows of the past, hence its scope.",
        _envelope(backfill.BackfillData), backfill.SCOPES,
        bodies={JSON: body, NDJSON: lines}, examples=examples.history(kind),
        answered=examples.TAKEN, answer_description="What became of each line.",
    )  # fmt: skip


# --- the calls ---------------------------------------------------------------------------------

_REPORTED: Final = "What was recorded, without a recommendation."
_LINKS: Final = {
    "decision": {
        "operationId": "readDecision",
        "parameters": {"scoreId": "$response.body#/data/scoreId"},
        "description": "The full record of the decision.",
    },
    "explanation": {
        "operationId": "explainDecision",
        "parameters": {"scoreId": "$response.body#/data/scoreId"},
        "description": "Why it was made, and what would change it.",
    },
    "refund": {
        "operationId": "readRefund",
        "parameters": {"refundId": "$request.body#/refund/refundId"},
        "description": "All that is known of the refund.",
    },
}


def _report(operation_id: str, description: str, body: Any, shown: Any, **more: Any) -> Described:
    return Described(
        operation_id, REPORTING, description, {JSON: answers.RecordedBody}, ("report",),
        bodies={JSON: body}, examples=shown, answered=examples.RECORDED,
        answer_description=_REPORTED, **more,
    )  # fmt: skip


DESCRIBED: Final[Mapping[tuple[str, str], Described]] = {
    ("POST", "/v2/refund"): Described(
        "scoreOrReportRefund", SCORING,
        "With `?score=refundRequest` (scope score): whether to pay, and why. Only what was written "
        "is answered. The same request again gets the same answer, or what an analyst decided "
        "since.\n\nWithout it (scope report): a refund, or its outcome, is recorded. A report is "
        "never refused for surprising us: money has moved.",
        {JSON: {"anyOf": [answers.DecisionBody, answers.RecordedBody]}}, ("score", "report"),
        (SCORE, MIN_LATENCY),
        {JSON: {"anyOf": [_SCORED_REFUND, reports.RefundReport]}},
        examples=examples.REFUND, answered=examples.DECIDED,
        answer_description="The decision, or what was recorded.",
        links=_LINKS,
    ),
    ("POST", "/v2/order"): _report(
        "reportOrder", "An order, or a change of one: `status.stage` is accepted, fulfilled, "
        "delivered, refunded or cancelled.", reports.OrderReport, examples.ORDER),
    ("POST", "/v2/return"): _report(
        "reportReturn", "Where goods on their way back are. It names its refund, its order or "
        "both, in either place.", reports.ReturnReport, examples.RETURN),
    ("POST", "/v2/dispute"): _report(
        "reportDispute", "A stage or an outcome of a dispute of an order, a payment method or a "
        "customer: the first that is given counts.", reports.DisputeReport, examples.DISPUTE),
    ("POST", "/v2/customer/{customerId}/labels"): _report(
        "label", "A verdict on a refund, or on the customer when it names none.",
        reports.LabelReport, examples.LABEL, parameters=(CUSTOMER_ID,)),
    ("GET", "/v2/customer/{customerId}/export"): Described(
        "exportCustomer", PRIVACY, "All that is known about a customer, originals included. It is "
        "audited.", _envelope({"type": "object", "additionalProperties": True}), ("admin",),
        (CUSTOMER_ID,), examples=examples.OF_CUSTOMER,
        answer_description="One document, sent as it is made."),
    ("DELETE", "/v2/customer/{customerId}"): Described(
        "eraseCustomer", PRIVACY, "Deletes what tells who a customer is; what was counted stays. "
        "It cannot be undone. Whoever comes back under the same id is a stranger.",
        _envelope(managed.ErasedData), ("admin",), (CUSTOMER_ID,), examples=examples.OF_CUSTOMER,
        answer_description="How much was changed or deleted."),
    ("GET", "/v2/refund/{refundId}"): Described(
        "readRefund", READING, "Where a refund stands, the facts about it, what became of it, and "
        "the decisions on it.", _envelope(dossier.RefundData), ("report",), (REFUND_ID,),
        examples=examples.OF_REFUND, answer_description="The refund."),
    ("GET", "/v2/decision/{scoreId}"): Described(
        "readDecision", READING, "The full record of one decision, from which it can be made "
        "again. With `Accept: text/html` the explanation of it: a page that needs nothing from "
        "elsewhere, to be read, kept or printed.",
        {**_envelope(managed.DecisionRecord), "text/html": {"type": "string"}}, ("review",),
        (SCORE_ID,), examples=examples.OF_DECISION,
        answer_description="The record, or the page; persons by pseudonym."),
    ("GET", "/v2/decision/{scoreId}/explanation"): Described(
        "explainDecision", READING, "Why it was made, what would change it, and what surrounds it, "
        "as values beside the sentences that tell them. It is made of what the decision rested "
        "on; what would change it is found by making it again.",
        _envelope(Explanation), ("review",), (SCORE_ID,), examples=examples.OF_DECISION,
        answer_description="The explanation; persons by pseudonym."),
    ("GET", "/v2/reviews"): Described(
        "readReviews", REVIEWING, "Refunds that wait for a person, what is most at stake first: by "
        "the expected loss, without a score by the whole amount. Those that are done only where "
        "they are asked for, the last done first.", _envelope(managed.ReviewsData),
        reviewing.SCOPE, _OF_QUEUE, examples=examples.QUEUE,
        answer_description="A page of the queue."),
    ("GET", "/v2/reviews/{refundId}"): Described(
        "readReview", REVIEWING, "The latest review of a refund, what people did and why, and the "
        "reviews before it.", _envelope(managed.ReviewData), reviewing.SCOPE, (REFUND_ID,),
        examples=examples.OF_REVIEW, answer_description="The review."),
    ("POST", "/v2/reviews/{refundId}"): Described(
        "review", REVIEWING, "Approves, denies, asks for information, assigns, notes, takes an "
        "approval back or reopens a refusal, in the name of the key's holder. Once it is approved "
        "or denied the same request is answered with that: ask again before money moves. An "
        "approval above one's limit waits for a second person of a higher role. What changed since "
        "is refused: the first of two who decide decides.", _envelope(managed.ReviewData),
        reviewing.SCOPE, (REFUND_ID,),
        {JSON: reviewing.ReviewActionBody}, examples=examples.REVIEW, more_refusals=(409,),
        answer_description="The review as it stands now."),
    ("GET", "/v2/policies"): Described(
        "readPolicies", POLICY, "Every version, and every act that put one in force.",
        _envelope(managed.PoliciesData), management.REVIEW,
        answer_description="Versions and acts, the newest first."),
    ("POST", "/v2/policies"): Described(
        "proposePolicy", POLICY, "Keeps a policy document, in YAML or JSON, as a version that does "
        "not act yet. A bad one is refused with every problem at its line.",
        _envelope(managed.ProposedData), management.ADMIN, (NOTE,),
        {YAML: {"type": "string"}, "text/yaml": {"type": "string"},
         "application/x-yaml": {"type": "string"}, JSON: {"type": "object"}},
        examples=examples.POLICY, more_refusals=(409,),
        answer_description="The version, and what it changes of the one in force."),
    ("GET", "/v2/policies/{version}"): Described(
        "readPolicy", POLICY, "One version with its document, as it was given.",
        _envelope(managed.PolicyData), management.REVIEW, (POLICY_VERSION,),
        examples=examples.VERSION, more_refusals=(409,), answer_description="The version."),
    ("POST", "/v2/policies/{version}/activate"): Described(
        "activatePolicy", POLICY, "Puts a version in force; workers take it up within seconds. "
        "Where settings ask for a second person, its author cannot.",
        _envelope(managed.ActBody), management.ADMIN, (POLICY_VERSION,),
        {JSON: management.NoteBody}, needs_body=False, examples=examples.ACTIVATE,
        more_refusals=(409,), answer_description="The act."),
    ("GET", "/v2/lists/{name}"): Described(
        "readList", LISTS, "The entries in force, the newest first, by pseudonym.",
        _envelope(managed.EntriesData), management.REVIEW, _OF_ENTRIES,
        examples=examples.ENTRIES, answer_description="A page of the list."),
    ("POST", "/v2/lists/{name}"): Described(
        "putOnList", LISTS, "Puts an entity on a list, or renews its entry; it counts from the "
        "next decision on.", _envelope(managed.ListedData), management.REVIEW, (LIST,),
        {JSON: management.EntryBody}, examples=examples.LIST, answer_description="The entry."),
    ("DELETE", "/v2/lists/{name}"): Described(
        "takeOffList", LISTS, "Takes an entity off a list, which the query names or a body. An id "
        "in an address may be logged on its way: what names a person is better sent in a body.",
        _envelope(managed.UnlistedData), management.REVIEW,
        (LIST, Parameter("entity", "query", "The kind of the entity.", _ENTITY),
         Parameter("id", "query", "The entity's id.", _ID)),
        {JSON: management.EntityBody}, needs_body=False, examples=examples.UNLIST,
        answer_description="What was taken off."),
    **{("POST", f"/v2/backfill/{kind}"): _history(kind) for kind in PARSE},
    ("GET", "/openapi.json"): Described(
        "openapi", ABOUT, "This document, OpenAPI 3.1.", {JSON: {"type": "object"}},
        answer_description="The document."),
    ("GET", "/docs"): Described(
        "docs", ABOUT, "This document, to be read by people.", {"text/html": {"type": "string"}},
        answer_description="A page that needs nothing from elsewhere."),
}  # fmt: skip
"""By method and path."""
