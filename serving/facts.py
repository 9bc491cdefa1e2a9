"""The facts a policy may read about one request: its feature row, its words, and what is known.

A feature that holds a code is a word here, under the name the policy's authors expect
(``refund_reason == "ITEM_NOT_RECEIVED"``); a NaN stays NaN, and the rules treat it as unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from features.attribution import CODES
from features.balance import exact_minor
from features.catalog import FEATURES
from features.events import ENTITIES, VOCABULARY, RefundRequest, due_minor
from features.ledger import LEDGER, LEDGER_FACTS, Fact, Meaning

_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "currency": ("currency", "the currency that the refund is asked in (ISO 4217)"),
    "refund_reason": (
        "reason",
        "why it is asked: of several lines the reason of the dearest, unknown if none can be told",
    ),
    "refund_type": ("type", "what kind of refund it is, such as RETURN or GOODWILL"),
    "refund_policy": ("policy", "on what ground it is asked, such as STATUTORY or GOODWILL"),
    "claim": ("claim", "FULL or PARTIAL"),
    "initiated_by": ("initiated_by", "who asked: CUSTOMER, MERCHANT or AGENT"),
    "issued_to": ("issued_to", "where the money is to go, such as ORIGINAL_PAYMENT_METHOD"),
    "channel": ("channel", "the channel of the order, in the backend's own words"),
    "billing_country": ("billing_country", "the country of the billing address (ISO 3166)"),
    "shipping_country": ("shipping_country", "the country that the goods went to (ISO 3166)"),
}
"""Fact -> the field of a refund request that holds it, and what it is."""

WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    fact: VOCABULARY[column] for fact, (column, _) in _WORDS.items() if column in VOCABULARY
}
"""Fact -> the words it holds. A request may say another, which to a policy is unknown: a rule that
tests for a word must not be passed by spelling it otherwise."""

_REQUEST: Final[Mapping[str, Meaning]] = {
    "amount_minor": Meaning("double", "minor", "the whole amount of the refund, in its currency"),
    "nonrefundable_minor": Meaning(
        "double", "minor", "the part of the amount that the shop keeps, in its currency"
    ),
    "asked_minor": Meaning(
        "double", "minor", "what would be paid, in the refund's currency: the amount less that part"
    ),
    **{fact: Meaning("string", "word", says) for fact, (_, says) in _WORDS.items()},
    "order_currency": Meaning("string", "word", "the currency of the order (ISO 4217)"),
    "order_known": Meaning(
        "bool", "flag", "the order was reported before, or its price comes with the request"
    ),
    "payment_method_expired": Meaning(
        "bool", "flag", "the month in which the payment method expires is over"
    ),
    "asked_lines_minor": Meaning(
        "double",
        "minor",
        "what the lines of the refund are worth together; unknown unless all lines tell",
    ),
    "item_reasons": Meaning(
        "strings",
        "word",
        "why each line is asked for; where none tells, the refund's reason; unknown where one does "
        "not",
    ),
    "item_categories": Meaning(
        "strings", "word", "the categories of the refund's lines; unknown unless all lines tell"
    ),
    "item_skus": Meaning(
        "strings", "word", "the skus of the refund's lines; unknown unless all lines tell"
    ),
}
"""What a request itself tells, or with one look at its order."""

_DECISION: Final[Mapping[str, Meaning]] = {
    "probability": Meaning("double", "share", "the calibrated probability of abuse"),
    "expected_loss_minor": Meaning(
        "double", "minor", "the probability times what paying an abuser would lose"
    ),
    **{
        f"{entity}_on_{name}_list": Meaning(
            "bool", "flag",
            f"the request's {entity.replace('_', ' ')} is on the {name} list at the cutoff",
        )
        for name in ("block", "allow") for entity in ENTITIES
    },
}  # fmt: skip
"""What a decision brings: `rules.policy.DECISION_FACTS`."""

_FACTS: Final[Mapping[str, Meaning]] = {
    **_REQUEST,
    **LEDGER,
    **{
        feature.name: Meaning("double", feature.unit, feature.sentence.many.replace("{value}", "N"))
        for feature in FEATURES
        if feature.unit != "code"
    },
}

FACTS: Final[Mapping[str, str]] = {name: fact.kind for name, fact in _FACTS.items()}
"""Every fact of a request and its kind: what a policy is checked against when it is loaded."""

MEANING: Final[Mapping[str, Meaning]] = {**_FACTS, **_DECISION}
"""Every fact that a condition may read and what it is; N stands for the value of a feature."""


def facts_beside(
    request: RefundRequest, row: Mapping[str, float], ledger: Mapping[str, Fact] | None = None
) -> dict[str, Fact]:
    """The facts of one request that its feature row has not as they are; None where unknown.

    ``ledger`` is what `features.ledger.order_ledger` says of its order; without it those facts are
    unknown.
    """
    kept = request.non_refundable_minor
    currency = row["order_currency_last_by_order_365d"]
    return {
        **{fact: _listed(column, getattr(request, column)) for fact, column in _COLUMNS},
        "amount_minor": float(request.amount_minor),
        "nonrefundable_minor": float(kept or 0),
        "asked_minor": float(due_minor(request.amount_minor, kept)),
        "order_currency": None if math.isnan(currency) else _word("currency", currency),
        "order_known": row["order_count_by_order_365d"] > 0
        or request.order_amount_minor is not None,
        "payment_method_expired": _expired(request),
        "asked_lines_minor": _lines_minor(request),
        "item_reasons": _reasons(request),
        "item_categories": _of_every_line(request, "category"),
        "item_skus": _of_every_line(request, "sku"),
        **_NO_LEDGER,
        "final_sale": request.final_sale,
        **(ledger or {}),
    }


_COLUMNS: Final = tuple((fact, column) for fact, (column, _) in _WORDS.items())
_NO_LEDGER: Final[Mapping[str, Fact]] = dict.fromkeys(LEDGER_FACTS)
_LISTS: Final = {column: frozenset(words) for column, words in VOCABULARY.items()}


def _expired(request: RefundRequest) -> bool | None:
    """Whether the last instant at which the payment method was valid is before the cutoff."""
    expires_at = request.payment_method_expires_at
    return None if expires_at is None else expires_at < request.known_at


def _listed(column: str, word: str | None) -> str | None:
    """A word as it is; one that a list exists for and that is not on it is unknown."""
    words = _LISTS.get(column)
    return word if words is None or word in words else None


def _reasons(request: RefundRequest) -> tuple[str, ...] | None:
    """The lines' reasons, else the refund's own; unknown where any of them is not known."""
    said = [item.reason for item in request.items]
    if not any(said):
        said = [request.reason]
    known = [reason for reason in said if reason is not None and _listed("reason", reason)]
    return tuple(dict.fromkeys(known)) if len(known) == len(said) else None


def _of_every_line(request: RefundRequest, column: str) -> tuple[str, ...] | None:
    """What the lines say, each value once; unknown unless there are lines and all of them say it.

    A line that says nothing may be of any category: the list of the others would not tell so.
    """
    said = [getattr(item, column) for item in request.items]
    return tuple(dict.fromkeys(said)) if said and None not in said else None


def _lines_minor(request: RefundRequest) -> float | None:
    """What the lines are worth together; unknown unless there are lines and all of them say it."""
    said = [item.amount_minor for item in request.items]
    known = [amount for amount in said if amount is not None]
    return exact_minor(sum(known)) if said and len(known) == len(said) else None


def _word(column: str, code: float) -> str | None:
    words = CODES[column]
    return words[int(code)] if int(code) < len(words) else None


def _names_beside() -> tuple[str, ...]:
    names = [feature.name for feature in FEATURES]
    request = RefundRequest(
        refund_id="-", customer_id="-", known_at=0, amount_minor=0, currency="GBP"
    )
    row = dict.fromkeys(names, math.nan)
    beside = facts_beside(request, row)
    return tuple(name for name in {**row, **beside} if name in beside)


BESIDE: Final = _names_beside()
"""The facts that the feature row has not, or has as codes, in the order in which all are put."""
