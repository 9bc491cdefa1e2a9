"""The block and allow lists: who is on them, and until when."""

from __future__ import annotations

import pytest

from serving.store.store import Store


def test_an_entry_matches_its_entity_until_it_expires(store: Store) -> None:
    with store.write() as tx:
        blocked = tx.put_on_list(
            "block", "email", "a@x.com", reason="fraud", author="ann", at=1, expires_at=10
        )
        allowed = tx.put_on_list("allow", "customer", "c1", reason="staff", author="ann", at=2)
        tx.put_on_list(
            "block", "device", "c1", reason="same text, another kind", author="bob", at=2
        )
    keys = {"email": "a@x.com", "customer": "c1", "order": "o1"}
    assert set(store.matching_lists(keys, at=9)) == {blocked, allowed}
    assert store.matching_lists(keys, at=10) == (allowed,)
    assert store.matching_lists({}, at=9) == ()
    assert store.reveal("email", [blocked.value]) == {blocked.value: "a@x.com"}


def test_an_entry_is_renewed_and_removed(store: Store) -> None:
    with store.write() as tx:
        tx.put_on_list("block", "ip", "192.0.2.1", reason="old", author="ann", at=1, expires_at=2)
        renewed = tx.put_on_list("block", "ip", "192.0.2.1", reason="new", author="bob", at=3)
    assert store.list_entries("block") == (renewed,)
    assert store.list_entries("allow") == ()
    with store.write() as tx:
        assert tx.take_off_list("block", "ip", "192.0.2.1")
        assert not tx.take_off_list("block", "ip", "192.0.2.1")
    assert store.matching_lists({"ip": "192.0.2.1"}, at=4) == ()


def test_only_entities_are_listed(store: Store) -> None:
    with pytest.raises(ValueError, match="expected one of customer"), store.write() as tx:
        tx.put_on_list("block", "order", "o1", reason="", author="ann", at=1)
