"""No statement in the path of a decision or a report reads more of a table than it gives.

The statements are those that the driver was given, so one that is new is looked at by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection

from serving import contract
from serving.desk import Desk, Sender
from serving.store.schema import metadata
from serving.store.store import Store
from tests.serving.listening import listen
from tests.serving.test_desk import BODY, NAMES, NOW, Clock, now, open_desk, put_on, report, url

__all__ = ["now", "open_desk", "url"]  # fixtures

pytestmark = pytest.mark.each_store

PLANNED = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)
"""The rest begins and ends transactions, and sets up connections."""

KEPT_WHOLE = frozenset({"webhook_endpoints", "policies", "policy_acts", "meta", "alembic_version"})
"""Tables with a row for each thing that a person set up: no decision adds to them."""

SENT: tuple[tuple[Any, Mapping[str, Any]], ...] = (
    (contract.parse_order,
     {"customer": BODY["customer"], "order": BODY["order"],
      "transactions": [{"transactionId": "t-1", "type": "CAPTURE", "amount": 9000,
                        "currency": "GBP", "success": True}]}),
    (contract.parse_return, {"return": {"refundId": "r-1", "status": "RECEIVED"}}),
    (contract.parse_dispute,
     {"customer": BODY["customer"], "dispute": {"disputeId": "d", "stage": "CHARGEBACK"}}),
    (lambda body: contract.parse_label(body, NAMES["customer"]),
     {"category": "REFUND_ABUSE", "review": "REFUND_ABUSE", "refundId": "r-1"}),
    *((lambda body: contract.parse_refund(body, scored=False),
       {"refund": {"refundId": "r-1", "status": status}})
      for status in ("COMPLETED", "COMPLETED", "FAILED", "COMPLETED")),
)  # fmt: skip


def a_day_at(desk: Desk, now: Clock) -> None:
    """What a backend sends: new, again, changed, with a key, and about what happened since."""
    mine = Sender("key_1", "k-1")
    for sender in (mine, mine, Sender("key_2", "k-1"), Sender("key_1")):
        desk.decide(report(), now, sender)
    desk.decide(report(amount=900), now, Sender("key_1"))
    for parse, body in SENT * 2:
        desk.record(parse(orjson.dumps(body)), now(), "key:key_1")
    desk.decide(report(amount=800), now, Sender("key_1"))
    desk.decide(report(refund_id="r-2"), now, Sender("key_1"))
    desk.store.keys.verify("sk_live_nobody has it")
    desk.store.last_policy_act()


@pytest.fixture
def heard(open_desk, now) -> Iterator[tuple[Store, dict[str, Any]]]:
    """A store, and the statements of a day by their text, each with its first parameters."""
    desk = open_desk()
    with desk.store.write() as tx:
        desk.store.outbox.add(tx._connection, "https://example.com/", ["refund.decided"], NOW)
    put_on(desk, "allow", "device")
    statements: dict[str, Any] = {}
    listen(desk.store, lambda text, given: statements.setdefault(text, given))
    a_day_at(desk, now)
    desk.store.database.close()
    found = {text: given for text, given in statements.items() if PLANNED.match(text)}
    yield desk.store, found


def read_whole(connection: Connection, store: Store, text: str, given: Any) -> list[str]:
    """The tables that a statement reads from end to end."""
    if store.database.is_sqlite:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").fetchall()
        return list(_scanned(text, [str(row[-1]) for row in rows]))
    cursor = connection.connection.cursor()
    cursor.execute(f"EXPLAIN (FORMAT JSON) {text}", given)
    ((found,),) = cursor.fetchall()
    plan = found if isinstance(found, list) else json.loads(found)
    return list(_read_whole(plan[0]["Plan"], above=""))


def _scanned(text: str, plan: list[str]) -> Iterator[str]:
    named = dict(re.findall(r'\b(?:FROM|JOIN)\s+"?(\w+)"?\s+AS\s+"?(\w+)"?', text))
    table_of = {alias: table for table, alias in named.items()}
    made = {step.split()[1] for step in plan if step.startswith(("MATERIALIZE", "CO-ROUTINE"))}
    for step in plan:
        if (found := re.match(r"SCAN (\w+)", step)) and found[1] not in made:
            table = table_of.get(found[1], found[1])
            if table in metadata.tables:
                yield table


def _read_whole(node: Mapping[str, Any], above: str) -> Iterator[str]:
    kind = node["Node Type"]
    by_index = kind in ("Index Scan", "Index Only Scan") and "Index Cond" not in node
    # The first of an index, as the highest number is: one row, if none of them is passed over.
    is_first = above == "Limit" and "Filter" not in node
    if kind == "Seq Scan" or (by_index and not is_first):
        yield node["Relation Name"]
    for below in node.get("Plans", ()):
        yield from _read_whole(below, kind)


def test_no_statement_of_a_day_reads_a_table_from_end_to_end(heard):
    store, statements = heard
    assert len(statements) > 30
    assert {name for name in metadata.tables if any(name in text for text in statements)} >= {
        "api_keys", "audit_log", "decisions", "entities", "event_keys", "events",
        "idempotency_keys", "identifiers", "lists", "refunds", "reservations", "webhook_outbox",
    }  # fmt: skip
    with store.database.read() as connection:
        if not store.database.is_sqlite:
            # An empty table is cheapest to read whole: only to where nothing else will do.
            connection.exec_driver_sql("SET enable_seqscan = off")
        whole = {
            table: text
            for text, given in statements.items()
            for table in read_whole(connection, store, text, given)
            if table not in KEPT_WHOLE
        }
        if not store.database.is_sqlite:
            connection.exec_driver_sql("RESET enable_seqscan")
    assert whole == {}


def test_the_test_sees_a_table_that_is_read_whole(heard):
    store, _ = heard
    with store.database.read() as connection:
        if not store.database.is_sqlite:
            connection.exec_driver_sql("SET enable_seqscan = off")
        for text in ("SELECT * FROM events WHERE payload = 'x'",
                     "SELECT e.seq FROM events AS e ORDER BY e.seq"):  # fmt: skip
            assert read_whole(connection, store, text, None) == ["events"]
        if not store.database.is_sqlite:
            connection.exec_driver_sql("RESET enable_seqscan")
