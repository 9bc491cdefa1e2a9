"""Who a customer was goes, what was counted stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings

from features.catalog import PLAN
from features.engine import Past, compute_one
from features.events import (
    COLUMN_OF,
    ENTITIES,
    Event,
    RefundRequest,
)
from features.money import DAY_MS, Rates
from serving.scorer import keys_of
from serving.store.erasure import erase
from serving.store.store import Store
from tests.serving.store.test_history import _ids, dump, fresh_store, histories, once

RATES = Rates.of("GBP", [])
Refund = Callable[..., RefundRequest]

TABLES = ("events", "event_keys", "entities", "identifiers", "refunds", "decisions", "lists",
          "idempotency_keys", "audit_log")  # fmt: skip


def features_of(store: Store, request: RefundRequest) -> dict[str, str]:
    """Every feature of a request, to the bit; NaN equals itself."""
    read = store.read(keys_of(request), request.known_at, tuple(PLAN.reads))
    past = Past(read.rows, read.pseudonyms, read.first_seen)
    found = compute_one(PLAN, request, past, RATES)
    return {name: repr(value) for name, value in found.items()}


def everything(store: Store) -> str:
    """All that stands in the store, as text."""
    with store.database.read() as connection:
        return repr([
            connection.exec_driver_sql(f"SELECT * FROM {table}").fetchall() for table in TABLES
        ])  # fmt: skip


def reindexed(store: Store) -> list[list[Any]]:
    with store.write() as tx:
        store.history.reindex(tx._connection)
    return dump(store)


@settings(max_examples=15)
@given(batches=histories())
def test_the_others_features_are_the_same_and_the_customer_is_a_stranger(
    batches: list[list[Event]],
) -> None:
    events = once([event for batch in batches for event in batch])
    gone, *others = _ids["customer"]
    asked = [e for e in events if isinstance(e, RefundRequest) and e.customer_id in others]
    asked += [
        RefundRequest(refund_id="new", customer_id=other, known_at=401 * DAY_MS, amount_minor=5,
                      currency="GBP", order_id=_ids["order"][i], device_id=shared)
        for i, other in enumerate(others)
        for shared in sorted({e.device_id for e in asked if e.device_id})
    ]  # fmt: skip
    with fresh_store() as store:
        for batch in batches:
            with store.write() as tx:
                tx.append(batch)
        before = [features_of(store, request) for request in asked]
        erased = erase(store, gone, actor="ann", at=1)
        assert [features_of(store, request) for request in asked] == before
        assert dump(store) == reindexed(store)
        pseudonym = store.identifiers.mac("customer", gone)
        assert pseudonym not in everything(store)
        slices = store.read({"customer": gone}, 500 * DAY_MS, tuple(PLAN.reads))
        assert not slices.rows
        assert slices.first_seen == {"customer": None}
        _assert_own_are_gone(store, events, gone)
        again = erase(store, gone, actor="ann", at=2)
        assert not any(again.rows.values())
        assert again.successor != erased.successor


def _assert_own_are_gone(store: Store, events: Sequence[Event], gone: str) -> None:
    """Of each identifier either another customer's event bears it, or the store does not."""
    text = everything(store)
    for kind in ENTITIES:
        column = COLUMN_OF[kind]
        of_others = {
            getattr(e, column, None) for e in events
            if getattr(e, "customer_id", gone) not in (gone, None)
        }  # fmt: skip
        of_customer = {
            getattr(e, column, None) for e in events if getattr(e, "customer_id", None) == gone
        }
        for value in of_customer - of_others - {None}:
            # A payment of another's order counts as theirs too, which events alone do not say.
            if kind != "payment_method":
                assert store.identifiers.mac(kind, value) not in text
        for value in of_others - {None}:
            assert store.reveal(kind, [store.identifiers.mac(kind, value)]) != {}
