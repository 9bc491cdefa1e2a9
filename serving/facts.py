"""The facts a policy may read about one request: its feature row, its words, and what is known.

A feature that holds a code is a word here, under the name the policy's authors expect
(``refund_reason == "ITEM_NOT_RECEIVED"``); a NaN stays NaN, and the rules treat it as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from features.attribution import CODES
from features.catalog import FEATURES
from features.events import RefundRequest, due_minor
from features.ledger import LEDGER_FACTS, Fact

_WORDS: Final[Mapping[str, str]] = {
    "currency": "currency",
    "refund_reason": "reason",
    "refund_type": "type",
    "refund_policy": "policy",
    "claim": "claim",
    "initiated_by": "initiated_by",
    "issued_to": "issued_to",
    "channel": "channel",
    "billing_country": "billing_country",
    "shipping_country": "shipping_country",
}
"""Fact -> the field of a refund request that holds it."""

FACTS: Final[Mapping[str, str]] = {
    **{feature.name: "double" for feature in FEATURES if feature.unit != "code"},
    "amount_minor": "double",
    "nonrefundable_minor": "double",
    "asked_minor": "double",
    "probability": "double",
    "expected_loss_minor": "double",
    **dict.fromkeys(_WORDS, "string"),
    "order_currency": "string",
    "order_known": "bool",
    "final_sale": "bool",
    "payment_method_expired": "bool",
    "item_categories": "strings",
    "item_skus": "strings",
    **LEDGER_FACTS,
}
"""Every fact and its CEL type: what a policy is checked against when it is loaded."""


def facts_of(
    request: RefundRequest, row: Mapping[str, float], ledger: Mapping[str, Fact] | None = None
) -> dict[str, Fact]:
    """The facts of one request, given its feature row; None or NaN where nothing is known.

    ``ledger`` is what `features.ledger.order_ledger` says of its order; without it those facts are
    unknown.
    """
    kept = request.non_refundable_minor
    currency = row["order_currency_last_by_order_365d"]
    return {
        **row,
        **{fact: getattr(request, column) for fact, column in _WORDS.items()},
        "amount_minor": float(request.amount_minor),
        "nonrefundable_minor": float(kept or 0),
        "asked_minor": float(due_minor(request.amount_minor, kept)),
        "order_currency": None if np.isnan(currency) else _word("currency", currency),
        "order_known": row["order_count_by_order_365d"] > 0
        or request.order_amount_minor is not None,
        "final_sale": request.final_sale,
        "payment_method_expired": _expired(request),
        "item_categories": _of_every_line(request, "category"),
        "item_skus": _of_every_line(request, "sku"),
        **(dict.fromkeys(LEDGER_FACTS) if ledger is None else ledger),
    }


def _expired(request: RefundRequest) -> bool | None:
    """Whether the last instant at which the payment method was valid is before the cutoff."""
    expires_at = request.payment_method_expires_at
    return None if expires_at is None else expires_at < request.known_at


def _of_every_line(request: RefundRequest, column: str) -> tuple[str, ...] | None:
    """What the lines say, each value once; unknown unless there are lines and all of them say it.

    A line that says nothing may be of any category: the list of the others would not tell so.
    """
    said = [getattr(item, column) for item in request.items]
    return tuple(dict.fromkeys(said)) if said and None not in said else None


def _word(column: str, code: float) -> str | None:
    words = CODES[column]
    return words[int(code)] if int(code) < len(words) else None
