"""API keys: shown once, verified, scoped, revoked."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.store.keys import RotatedError
from serving.store.store import Store


def test_a_key_is_verified_until_it_is_revoked(store: Store) -> None:
    key = store.keys.create("live", ["score", "report"], at=5)
    assert key.startswith("sk_live_")
    assert len(key.removeprefix("sk_live_")) == 43  # 256 bits in base64
    found = store.keys.verify(key)
    assert found is not None
    assert (found.mode, found.scopes, found.created_at) == ("live", {"score", "report"}, 5)
    assert store.keys.verify(key + "x") is None
    assert store.keys.revoke(found.id, at=9)
    assert not store.keys.revoke(found.id, at=10)
    assert store.keys.verify(key) is None
    assert [entry.revoked_at for entry in store.keys.all()] == [9]


def test_keys_differ_and_are_not_stored(store: Store, tmp_path: Path) -> None:
    keys = {store.keys.create("test", ["admin"], at=1) for _ in range(5)}
    assert len(keys) == 5
    assert len(store.keys.all()) == 5
    store.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(key.encode() in content for key in keys)


def test_a_key_bears_the_name_of_its_holder(store: Store) -> None:
    found = store.keys.verify(store.keys.create("live", ["admin"], at=1, name="Ann Lee"))
    assert found is not None
    assert found.name == "Ann Lee"
    with pytest.raises(ValueError, match="name: expected a person's name of 1 to 100 characters"):
        store.keys.create("live", ["admin"], at=1, name=" ")


@pytest.mark.parametrize("name", ["ann\u200b", "\u0430nn", "ann\n", "", "x" * 101])
def test_a_holder_has_a_name_that_can_be_read(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="name: expected a person's name"):
        store.keys.create("live", ["admin"], at=1, name=name)
    assert store.keys.all() == []


def test_who_makes_and_ends_a_key_is_audited(store: Store) -> None:
    store.keys.create("live", ["admin"], 5, " Ann  Lee", by="bob", via="cli:root")
    (key,) = store.keys.all()
    assert not store.keys.revoke("key_0", 8, by="bob")
    assert store.keys.revoke(key.id, 9, by="cy")
    assert not store.keys.revoke(key.id, 10, by="cy")
    entries = store.audit_about(f"key:{key.id}")
    assert [(e.at, e.actor, e.action, e.content, e.personal) for e in entries] == [
        (5, "cli:root", "key_created", {"mode": "live", "scopes": ["admin"], "expires_at": None},
         {"name": "Ann Lee", "by": "bob"}),
        (9, "cy", "key_revoked", {}, {"by": "cy"}),
    ]  # fmt: skip


@pytest.mark.parametrize("scopes", [[], ["score", "root"]])
def test_scopes_must_exist(store: Store, scopes: list[str]) -> None:
    with pytest.raises(ValueError, match="scopes: expected some of score, report, review, admin"):
        store.keys.create("test", scopes, at=1)


def test_a_key_ends_at_its_time(store: Store) -> None:
    key = store.keys.create("live", ["score"], at=5, expires_at=9)
    assert store.keys.verify(key, at=8) is not None
    assert store.keys.verify(key, at=9) is None
    with pytest.raises(ValueError, match="expires_at: expected a time after 5 ms, got 5"):
        store.keys.create("live", ["score"], at=5, expires_at=5)


def test_a_key_is_replaced_and_goes_on_for_the_grace(store: Store) -> None:
    old = store.keys.create("live", ["score", "report"], at=0, name="Ann", expires_at=100)
    (before,) = store.keys.all()
    rotated = store.keys.rotate(before.id, 50, grace_ms=10, by="bob", via="cli:root")
    assert rotated is not None
    key, new, ends = rotated
    assert (new.mode, new.scopes, new.name) == (before.mode, before.scopes, "Ann")
    assert (new.created_at, new.expires_at, ends) == (50, 150, 60)
    assert store.keys.verify(key, at=149) == new
    assert [store.keys.verify(old, at) is None for at in (59, 60)] == [False, True]
    (entry,) = [e for e in store.audit_about(f"key:{before.id}") if e.action == "key_rotated"]
    assert (entry.actor, entry.content) == ("cli:root", {"to": new.id, "ends_at": 60})
    assert store.keys.rotate(before.id, 60, grace_ms=10) is None, "it has ended"
    at_once = store.keys.rotate(new.id, 70, grace_ms=0, expires_at=80)
    assert at_once is not None
    assert store.keys.verify(key, at=70) is None
    assert at_once[1].expires_at == 80


def test_a_key_has_one_successor_at_a_time(store: Store) -> None:
    def rotate(key_id: str, at: int, grace_ms: int = 50) -> str:
        rotated = store.keys.rotate(key_id, at, grace_ms)
        assert rotated is not None
        return rotated[1].id

    store.keys.create("live", ["score"], at=0)
    (old,) = store.keys.all()
    first = rotate(old.id, 10)
    with pytest.raises(
        RotatedError, match=f"{old.id} was rotated already: in its place is {first}"
    ):
        rotate(old.id, 11)
    second = rotate(first, 12, grace_ms=0)
    with pytest.raises(RotatedError) as refused:
        rotate(old.id, 13)
    assert refused.value.successor == second
    assert len(store.keys.all()) == 3
    # Nobody has it: it is revoked, and the old one is rotated again, for no longer than it had.
    assert store.keys.revoke(second, 14)
    third = rotate(old.id, 15)
    ends = {key.id: key.expires_at for key in store.keys.all()}
    assert (ends[old.id], ends[third]) == (60, None)
