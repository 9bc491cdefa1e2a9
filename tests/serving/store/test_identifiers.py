"""Pseudonyms tell nothing, and ciphertexts open only for what they were made for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from features.events import RefundRequest
from serving.store.erasure import erase
from serving.store.identifiers import Identifiers
from serving.store.store import Store

SECRET = b"a secret of 16 bytes or more"
IDENTIFIERS = Identifiers(SECRET)


@given(st.text(min_size=1), st.sampled_from(["customer", "email", "reviewer"]))
def test_an_original_comes_back(value: str, kind: str) -> None:
    mac = IDENTIFIERS.mac(kind, value)
    assert mac == IDENTIFIERS.mac(kind, value)
    assert mac != Identifiers(b"another secret, long enough").mac(kind, value)
    sealed = IDENTIFIERS.seal(kind, mac, value)
    assert sealed != IDENTIFIERS.seal(kind, mac, value)
    assert IDENTIFIERS.reveal(kind, mac, sealed) == value


def test_a_ciphertext_moved_to_another_row_is_refused() -> None:
    mac = IDENTIFIERS.mac("email", "a@x.com")
    sealed = IDENTIFIERS.seal("email", mac, "a@x.com")
    with pytest.raises(InvalidTag):
        IDENTIFIERS.reveal("email", IDENTIFIERS.mac("email", "b@x.com"), sealed)
    with pytest.raises(InvalidTag):
        IDENTIFIERS.reveal("customer", mac, sealed)


def test_no_identifier_stands_in_the_file(
    store: Store, tmp_path: Path, refund: Callable[..., RefundRequest]
) -> None:
    people = {
        "customer_id": "customer-4711", "device_id": "device-4711", "email": "ann@example.com",
        "payment_method_id": "card-4711", "address_id": "address-4711", "ip": "192.0.2.47",
    }  # fmt: skip
    with store.write("customer-4711") as tx:
        tx.append([refund("refund-4711", **people)])
        tx.put_on_list("block", "email", "bob@example.com", reason="fraud", author="ann", at=1)
    store.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"refund-4711" in content
    for original in (*people.values(), "bob@example.com"):
        assert original.encode() not in content


def test_an_original_is_sealed_once_and_again_after_another_process_erased_it(
    store: Store, url: str, refund: Callable[..., RefundRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = []
    seal = Identifiers.seal

    def noted(self: Identifiers, kind: str, pseudonym: str, value: str) -> bytes:
        sealed.append((kind, value))
        return seal(self, kind, pseudonym, value)

    def take_in(refund_id: str, **more: str) -> list[tuple[str, str]]:
        sealed.clear()
        with store.write() as tx:
            tx.append([refund(refund_id, email="a@x.com", **more)])
        return sorted(sealed)

    both = [("customer", "c1"), ("email", "a@x.com")]
    monkeypatch.setattr(Identifiers, "seal", noted)
    assert take_in("r1") == both
    assert take_in("r2", device_id="d1") == [("device", "d1")]
    assert take_in("r3", device_id="d1") == []
    other = Store.open(url, SECRET)
    erase(other, "c1", actor="ann", at=1)
    other.close()
    assert take_in("r4") == both
    mac = store.identifiers.mac("email", "a@x.com")
    assert store.reveal("email", [mac]) == {mac: "a@x.com"}
