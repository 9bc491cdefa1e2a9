"""Another secret: the same persons, the same features, and who was erased stays so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from features.events import Label, Order, RefundRequest
from serving.disclosure import document
from serving.heads import HeadFile
from serving.idempotency import Answer, Claim, once
from serving.sealing import Sealer
from serving.store.database import StoreRefusedError
from serving.store.erasure import erase
from serving.store.rotation import rotate
from serving.store.store import Store
from serving.vouching import Finding, vouch
from tests.serving.store.conftest import SECRET
from tests.serving.store.test_erasure import everything, features_of
from tests.serving.store.test_history import dump

NEW = b"another secret, as long as the first"
Refund = Callable[..., RefundRequest]


def asked_by(refund: Refund) -> list[RefundRequest]:
    return [
        refund(f"r{i}", known_at=1_000 + i, customer_id=f"c{i % 3}", device_id=f"d{i % 2}",
               order_id=f"o{i % 4}", email=f"e{i % 3}@x.com")
        for i in range(12)
    ]  # fmt: skip


def seal_and_vouch(store: Store, secret: bytes, head: Path) -> list[Finding]:
    """Seal what there is, as a service does, and say what is wrong with the chain."""
    findings: list[Finding] = []
    sealer = Sealer(store, secret, head)
    sealer.seal()
    sealer.give_up()
    vouched = vouch(store, secret, HeadFile(head).read(), findings.append)
    assert vouched.sealed > 0
    return findings


def test_everything_is_as_it_was_under_another_secret(
    either_url: str, refund: Refund, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than what a log holds before it is written back, as of every store that has lived.
    monkeypatch.setattr("serving.store.database.MOST_CHANGES_IN_LOG", 20)
    asked = asked_by(refund)
    order = Order(order_id="o1", customer_id="c1", known_at=900, amount_minor=5, currency="GBP")
    label = Label(customer_id="c2", known_at=950, label="REFUND_ABUSE", reviewer="Ann Lee")
    store = Store.open(either_url, SECRET)
    key = store.keys.create("live", ["admin"], 1)
    with store.write() as tx:
        tx.append([order, label, *asked])
        tx.put_on_list("block", "customer", "c1", reason="said Ann", author="ann", at=1)
        listed = store.identifiers.mac("customer", "c1")
        said = {"reason": "said Ann", "value": listed}
        tx.audit("ann", "listed", "list:block", {"entity": "customer"}, at=1, personal=said)
    exported = store.identifiers.mac("customer", "c2")
    assert b"".join(document(store, "c2", actor="ann", at=1))
    claim = Claim("key_1", "k", "content")
    once(store, claim, 1, lambda: {"data": {"id": "c1"}})
    erase(store, "c0", actor="ann", at=2)
    rest = [request for request in asked if request.customer_id != "c0"]
    features = [features_of(store, request) for request in rest]
    refunds_before = dump(store)[2]
    assert seal_and_vouch(store, SECRET, tmp_path / "head") == []
    store.close()

    rotated = rotate(either_url, SECRET, NEW, actor="ann", at=3)

    assert rotated.rows["lists"] == 1
    with pytest.raises(StoreRefusedError, match="expected the secret the store was made with"):
        Store.open(either_url, SECRET, create=False)
    store = Store.open(either_url, NEW, create=False)
    assert [features_of(store, request) for request in rest] == features
    after = dump(store)
    with store.write() as tx:
        store.history.reindex(tx._connection)
    assert dump(store) == after
    assert len(after[2]) == len(refunds_before)
    assert store.keys.verify(key) is not None
    assert [entry.list for entry in store.matching_lists({"customer": "c1"}, 10)] == ["block"]
    assert not store.read({"customer": "c0"}, 9_999, ()).first_seen["customer"]
    assert '"c1"' not in everything(store), "an answer is kept sealed"
    assert once(store, claim, 2, dict) == Answer({"data": {"id": "c1"}}, replayed=True)
    mac = store.identifiers.mac("customer", "c1")
    assert store.reveal("customer", [mac]) == {mac: "c1"}
    # What was audited under the old pseudonym can be read, and is erased with the person.
    assert store.reveal("former:customer", [listed]) == {listed: "c1"}
    [entry] = store.audit_about("list:block")
    assert entry.personal == said
    assert erase(store, "c1", actor="ann", at=4).rows["idempotency_keys"] == 1
    assert exported in everything(store)
    erase(store, "c2", actor="ann", at=4)
    assert exported not in everything(store), "nor what was audited of an export"
    assert not store.reveal("former:customer", [listed])
    [entry] = store.audit_about("list:block")
    assert entry.personal is None
    assert mac not in everything(store)
    assert listed not in everything(store)
    assert seal_and_vouch(store, NEW, tmp_path / "head") == []
    store.close()


def test_a_store_in_use_is_left_alone(either_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.store.rotation._WAIT_MS", 10)
    store = Store.open(either_url, SECRET)
    with store.database.read() as connection:
        connection.exec_driver_sql("SELECT 1")
    with pytest.raises(StoreRefusedError, match="in use"):
        rotate(either_url, SECRET, NEW, actor="ann", at=1)
    store.close()
    with pytest.raises(StoreRefusedError, match="expected another one"):
        rotate(either_url, SECRET, SECRET, actor="ann", at=1)
    rotate(either_url, SECRET, NEW, actor="ann", at=1)
    Store.open(either_url, NEW, create=False).close()
