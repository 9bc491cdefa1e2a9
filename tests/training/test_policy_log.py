"""Facts that older programs did not log are told from facts that are unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from features.events import RefundRequest
from features.ledger import LEDGER_FACTS, order_ledger
from rules.condition import FactValue
from rules.logged import Logged
from rules.policy import Policy
from tests.rules.logs import PLAIN
from tests.training.test_backtest import policy_of
from training.policy_log import OF_ORDERS, Logging
from training.policy_log_text import sentences


def rule(id: str, when: str, **example: Any) -> dict[str, Any]:
    return {
        "id": id, "version": 1, "stage": "hard", "when": when, "action": "PREVENT", "reason": "R",
        "description": "d", "examples": {"hit": [example], "miss": [dict.fromkeys(example, 0)]},
    }  # fmt: skip


@pytest.fixture(scope="module")
def policy() -> Policy:
    return policy_of("1", 1.0, "PREVENT", rules=[
        rule("held", "order_held_minor > 1.0", order_held_minor=2),
        rule("cancelled", "order_cancelled_after_days > 1.0 || order_held_minor > 9.0",
             order_cancelled_after_days=2, order_held_minor=0),
        rule("large", "payable_minor > 1.0", payable_minor=2),
    ])  # fmt: skip


def decided(
    number: int, facts: Mapping[str, FactValue], policy_hash: str | None = "h"
) -> list[Logged]:
    return [Logged(f"r{at}", "c", at, facts, None, PLAIN, policy_hash=policy_hash)
            for at in range(number)]  # fmt: skip


ORDER = {"order_count_by_order_365d": 1.0}
NEW = {**ORDER, **dict.fromkeys(OF_ORDERS, 0.0)}


def said(policy: Policy, *rows: Logged) -> list[str]:
    logging = Logging.of(policy)
    assert [*logging.watching(rows)] == [*rows]
    return [*sentences(logging.unlogged())]


def test_a_program_without_a_ledger_logged_none_of_it(policy: Policy) -> None:
    assert said(policy, *decided(20, ORDER)) == [
        "order_cancelled_after_days and order_held_minor were not logged with these decisions "
        "(20 of 20 that name an order): what cancelled and held do on them cannot be told."
    ]


def test_a_fact_that_came_later_is_missed_alone(policy: Policy) -> None:
    older = {name: 0.0 for name in NEW if name != "order_held_minor"}
    (sentence,) = said(policy, *decided(20, older))
    assert sentence.startswith("order_held_minor was not logged with these decisions (20 of 20")
    assert "what held and cancelled do" in sentence


def test_what_was_unknown_or_names_no_order_or_was_not_decided_is_not_missed(
    policy: Policy,
) -> None:
    assert said(policy, *decided(20, NEW)) == [], "no order was cancelled"
    assert said(policy, *decided(20, {})) == []
    assert said(policy, *decided(20, ORDER, None)) == []
    assert said(policy, *decided(18, ORDER), *decided(2, NEW)) != []
    assert said(policy, *decided(17, ORDER), *decided(3, NEW)) == []


def test_the_reasons_of_lines_are_missed_where_the_refund_gives_one() -> None:
    policy = policy_of("1", 1.0, "PREVENT", rules=[{
        **rule("beside", '"ITEM_DAMAGED" in item_reasons'),
        "examples": {"hit": [{"item_reasons": ["ITEM_DAMAGED"]}], "miss": [{"item_reasons": []}]},
    }])  # fmt: skip
    reason: dict[str, FactValue] = {**NEW, "refund_reason": "OTHER"}
    assert said(policy, *decided(9, NEW)) == []
    assert said(policy, *decided(9, {**reason, "item_reasons": ("OTHER",)})) == []
    assert said(policy, *decided(9, reason)) == [
        "item_reasons was not logged with these decisions (9 of 9 that name an order): what beside "
        "does on them cannot be told."
    ]


def test_parts_add_up(policy: Policy) -> None:
    whole, parts = Logging.of(policy), []
    for rows in (decided(3, ORDER), [], decided(4, NEW)):
        parts.append(Logging.of(policy))
        assert [*parts[-1].watching(rows)] == rows
        list(whole.watching(rows))
    assert Logging.together([Logging(), *parts]) == whole
    assert (whole.orders, whole.absent["order_held_minor"]) == (7, 3)


def test_the_ledger_tells_of_every_order_what_gives_older_programs_away() -> None:
    request = RefundRequest(refund_id="r", customer_id="c", order_id="o", known_at=1,
                            amount_minor=100, currency="GBP")  # fmt: skip
    told = order_ledger(request, [])
    assert {name for name in OF_ORDERS if told[name] is not None} == OF_ORDERS
    assert LEDGER_FACTS.keys() > OF_ORDERS
