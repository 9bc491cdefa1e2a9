"""Small policies for tests, as text: one rule about the amount, and whatever else is asked for."""

from __future__ import annotations

from typing import Any

import yaml


def rule(at_least: int = 50_000, **changes: Any) -> dict[str, Any]:
    """A risk rule about the amount."""
    return {
        "id": "large_amount",
        "version": 1,
        "stage": "risk",
        "when": f"amount_minor >= {at_least}.0",
        "action": "MANUAL_REVIEW",
        "reason": "AMOUNT_OVER_AUTO_APPROVE_LIMIT",
        "description": "A person approves large amounts",
        "examples": {"hit": [{"amount_minor": at_least}], "miss": [{"amount_minor": at_least - 1}]},
        **changes,
    }


def document(version: str = "1", *rules: dict[str, Any], **changes: Any) -> str:
    """A policy's text."""
    return yaml.safe_dump(
        {
            "version": version,
            "bands": [
                {"action": "MANUAL_REVIEW", "probability_at_least": 0.5},
                {"action": "PREVENT", "probability_at_least": 0.9},
            ],
            "rules": list(rules or (rule(),)),
            **changes,
        },
        sort_keys=False,
    )


BALANCE = rule(
    id="amount_above_captured",
    stage="hard",
    requires="orders_complete",
    when="asked_minor > order_captured_minor - order_paid_back_minor - order_reserved_minor",
    action="PREVENT",
    reason="AMOUNT_ABOVE_CAPTURED",
    description="More than is left of what was captured",
    follow_up={
        "code": "PARTIAL_AMOUNT",
        "amount_minor": "order_captured_minor - order_paid_back_minor - order_reserved_minor",
    },
    examples={
        "hit": [{"asked_minor": 2, "order_captured_minor": 1, "order_paid_back_minor": 0,
                 "order_reserved_minor": 0}],
        "miss": [{"asked_minor": 1, "order_captured_minor": 1, "order_paid_back_minor": 0,
                  "order_reserved_minor": 0}],
    },
)  # fmt: skip
"""What two refunds of one order race for."""

UNHELD = rule(
    id="amount_above_unheld",
    stage="hard",
    requires="orders_complete",
    when=f"{BALANCE['when']} - order_held_minor",
    reason="AMOUNT_ABOVE_CAPTURED",
    description="More than is left besides what waits for a person",
    examples={
        "hit": [{"asked_minor": 1, "order_captured_minor": 1, "order_paid_back_minor": 0,
                 "order_reserved_minor": 0, "order_held_minor": 1}],
        "miss": [{"asked_minor": 1, "order_captured_minor": 1, "order_paid_back_minor": 0,
                  "order_reserved_minor": 0, "order_held_minor": 0}],
    },
)  # fmt: skip
"""What is held for review makes others wait, and refuses nobody."""
