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

Fact = float | str | bool | None

_WORDS: Final[Mapping[str, str]] = {
    "currency": "currency",
    "refund_reason": "reason",
    "refund_type": "type",
    "refund_policy": "policy",
    "claim": "claim",
    "initiated_by": "initiated_by",
    "issued_to": "issued_to",
    "channel": "channel",
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
}
"""Every fact and its CEL type: what a policy is checked against when it is loaded."""


def facts_of(request: RefundRequest, row: Mapping[str, float]) -> dict[str, Fact]:
    """The facts of one request, given its feature row; None or NaN where nothing is known."""
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
    }


def _word(column: str, code: float) -> str | None:
    words = CODES[column]
    return words[int(code)] if int(code) < len(words) else None
