"""Pseudonyms tell nothing, and ciphertexts open only for what they were made for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from features.events import RefundRequest
from serving.store.identifiers import Identifiers
from serving.store.store import Store

IDENTIFIERS = Identifiers(b"a secret of 16 bytes or more")


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
