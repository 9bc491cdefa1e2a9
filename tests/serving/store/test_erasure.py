"""Who a customer was goes, what was counted stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from sqlalchemy import Connection

from features.catalog import PLAN
from features.engine import Past, compute_one
from features.events import (
    COLUMN_OF,
    ENTITIES,
    Dispute,
    Event,
    Label,
    Order,
    RefundOutcome,
    RefundRequest,
    Transaction,
    derive_event_id,
)
from features.money import DAY_MS, Rates
from serving.scorer import keys_of
from serving.store.database import Database
from serving.store.decisions import FirstResult
from serving.store.erasure import erase, forget_log
from serving.store.holdings import Holdings, holdings_of
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


def test_what_is_written_meanwhile_is_erased_too(
    either: Store, refund: Refund, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = refund("r0", device_id="shared", email="ann@x.com", ip="192.0.2.1", order_id="o0")
    with either.write("c1") as tx:
        tx.append([asked, refund("r9", customer_id="c2", device_id="shared")])
    coming = [refund(f"r{i}", known_at=1_000 + i) for i in range(1, 3)]

    def interrupted(database: Database, connection: Connection, customer: str) -> Holdings:
        found = holdings_of(database, connection, customer)
        if coming:
            with either.write("c1") as tx:
                tx.append([coming.pop(0)])
                tx.append([refund("r8", known_at=2_000, customer_id="c2", ip="192.0.2.1")])
        return found

    monkeypatch.setattr("serving.store.erasure.holdings_of", interrupted)
    counts = erase(either, "c1", actor="ann", at=1).rows
    assert not coming  # it looked twice beside the writers, and then under their lock
    assert (counts["events"], counts["refunds"], counts["identifiers"]) == (3, 3, 2)
    text = everything(either)
    for kind, value in (("customer", "c1"), ("email", "ann@x.com")):
        assert either.identifiers.mac(kind, value) not in text
    for kind, value in (("device", "shared"), ("ip", "192.0.2.1")):  # the other's, too, by now
        assert either.identifiers.mac(kind, value) in text
    assert dump(either) == reindexed(either)


def test_what_a_key_got_goes_also_if_it_was_got_meanwhile(
    either: Store, refund: Refund, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that says what is known already appends nothing, and is kept for its key."""
    with either.write("c1") as tx:
        tx.append([refund("r0"), refund("r9", customer_id="c2")])
    coming = {"theirs": {"refundId": "r0"}, "nobody's": {}, "other's": {"refundId": "r9"}}

    def interrupted(database: Database, connection: Connection, customer: str) -> Holdings:
        found = holdings_of(database, connection, customer)
        with either.write() as tx:
            for key, named in coming.items():
                body = {"status": 200, "timestamp": 1, "data": {**named, "recorded": []}}
                tx.save_first_result("key_1", key, FirstResult("hash", 200, body, 1_000))
        coming.clear()
        return found

    monkeypatch.setattr("serving.store.erasure.holdings_of", interrupted)
    assert erase(either, "c1", actor="ann", at=1).rows["idempotency_keys"] == 2
    with either.database.read() as connection:
        kept = connection.exec_driver_sql("SELECT key FROM idempotency_keys").scalars().all()
    assert kept == ["other's"]


def test_free_text_and_what_was_listed_go(either: Store, refund: Refund) -> None:
    told = Dispute(order_id="o1", known_at=5, dispute_id="d", reason="Ann said so")
    paid = RefundOutcome(refund_id="r1", known_at=6, status="DECLINED", decline_reason="Ask Ann")
    label = Label(customer_id="c1", known_at=7, label="REFUND_ABUSE", reviewer="Bob")
    order = Order(order_id="o1", customer_id="c1", known_at=1, amount_minor=5, currency="GBP")
    payment = Transaction(transaction_id="t", order_id="o1", known_at=2, kind="CAPTURE",
                          amount_minor=5, currency="GBP", payment_method_id="card")  # fmt: skip
    event_id = derive_event_id("label", label.model_dump(exclude_none=True), repeats=True)
    with either.write() as tx:
        tx.append([order, payment, refund("r1", order_id="o1", claim="ANN LEE"), told, paid, label])
        tx.put_on_list("block", "customer", "c1", reason="Ann again", author="bob", at=1)
        tx.put_on_list("block", "payment_method", "card", reason="Ann's", author="bob", at=1)
    said = {"reason": "Ann again", "value": either.identifiers.mac("customer", "c1")}
    with either.write() as tx:
        tx.audit("bob", "listed", "list:block", {"entity": "customer"}, at=1, personal=said)
    assert "Ann" in everything(either)
    assert event_id in everything(either)
    counts = erase(either, "c1", actor="bob", at=9).rows
    assert (counts["lists"], counts["audit_log"]) == (2, 1)
    text = everything(either)
    assert "ann" not in text.lower()
    assert said["value"] not in text
    assert event_id not in text  # it is a hash of the customer's id
    assert either.identifiers.mac("payment_method", "card") not in text
    assert dump(either) == reindexed(either)
    with either.database.read() as connection:
        [last] = either.audit_log.latest(connection, limit=1)
    assert (last.action, last.entry().personal) == ("customer_erased", {"by": "bob"})
    assert last.entry().content == {"rows": counts}


def test_nothing_is_left_in_sqlites_files(tmp_path: Path, refund: Refund) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/store.db", b"a secret of 16 bytes or more")
    for start in range(0, 300, 10):  # pages split, and cells move between them
        with store.write() as tx:
            tx.append([
                refund(f"r{i}", 1_000 + i, customer_id=f"c{i % 60}", email=f"e{i % 60}@x.com")
                for i in range(start, start + 10)
            ])  # fmt: skip
    own = [store.identifiers.mac("customer", "c7"), store.identifiers.mac("email", "e7@x.com")]
    with store.database.read() as connection:
        sealed = connection.exec_driver_sql(
            f"SELECT ciphertext FROM identifiers WHERE mac IN ('{own[0]}', '{own[1]}')"
        ).scalars().all()  # fmt: skip
    gone = [*(mac.encode() for mac in own), *map(bytes, sealed)]
    assert len(gone) == 4

    def left() -> list[bytes]:
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        return [one for one in gone if one in content]

    assert left() == gone
    before = (tmp_path / "store.db").read_bytes()
    with store.database.session() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        assert not forget_log(store.database)
        other.rollback()
    assert (tmp_path / "store.db").read_bytes() == before, "while somebody writes, nothing is tried"
    erase(store, "c7", actor="ann", at=1)
    assert left() == []  # while the service runs on
    store.close()
