"""The block and allow lists: who is on them, and until when."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from features.events import ENTITIES
from serving.store.database import Prepared, Row
from serving.store.lists import NewEntry
from serving.store.store import Store


def test_an_entry_matches_its_entity_until_it_expires(either: Store) -> None:
    with either.write() as tx:
        blocked = tx.put_on_list(
            "block", "email", "a@x.com", reason="fraud", author="ann", at=1, expires_at=10
        )
        allowed = tx.put_on_list("allow", "customer", "c1", reason="staff", author="ann", at=2)
        tx.put_on_list(
            "block", "device", "c1", reason="same text, another kind", author="bob", at=2
        )
    keys = {"email": "a@x.com", "customer": "c1", "order": "o1"}
    assert set(either.matching_lists(keys, at=9)) == {blocked, allowed}
    assert either.matching_lists(keys, at=10) == (allowed,)
    assert either.matching_lists({}, at=9) == ()
    assert either.reveal("email", [blocked.value]) == {blocked.value: "a@x.com"}


def test_an_entry_is_renewed_and_removed(either: Store) -> None:
    with either.write() as tx:
        tx.put_on_list("block", "ip", "192.0.2.1", reason="old", author="ann", at=1, expires_at=2)
        renewed = tx.put_on_list("block", "ip", "192.0.2.1", reason="new", author="bob", at=3)
    assert either.list_entries("block") == (renewed,)
    assert either.list_entries("allow") == ()
    with either.write() as tx:
        assert tx.take_off_list("block", "ip", "192.0.2.1")
        assert not tx.take_off_list("block", "ip", "192.0.2.1")
    assert either.matching_lists({"ip": "192.0.2.1"}, at=4) == ()


def test_only_entities_are_listed(either: Store) -> None:
    with pytest.raises(ValueError, match="expected one of customer"), either.write() as tx:
        tx.put_on_list("block", "order", "o1", reason="", author="ann", at=1)


def test_an_entry_ends_at_the_very_instant(either: Store) -> None:
    with either.write() as tx:
        for instant in (1_000, 1_001, 1_002):
            tx.put_on_list("block", "ip", f"192.0.2.{instant - 999}", reason="", author="ann", at=1,
                           expires_at=instant)  # fmt: skip

    def blocked(at: int) -> int:
        return sum(bool(either.matching_lists({"ip": f"192.0.2.{n}"}, at)) for n in (1, 2, 3))

    assert [blocked(at) for at in (999, 1_000, 1_001, 1_002)] == [3, 2, 1, 0]
    assert [len(either.list_entries("block", in_force_at=at)) for at in (999, 1_000, 1_002)] == [
        3, 2, 0
    ]  # fmt: skip


def test_many_are_put_on_a_list_at_once_and_the_last_of_one_counts(either: Store) -> None:
    new = [NewEntry("email", f"{n % 4}@x.com", f"line {n}", 100 + n) for n in range(6)]
    with either.write() as tx:
        tx.put_on_list("block", "email", "0@x.com", reason="old", author="ann", at=1)
        put = tx.put_many_on_list("block", new, author="bob", at=2)
    assert sorted(e.reason for e in put) == ["line 2", "line 3", "line 4", "line 5"]
    assert {e.author for e in put} == {"bob"}
    assert set(either.list_entries("block")) == set(put)
    originals = either.reveal("email", [e.value for e in put])
    assert sorted(originals.values()) == [f"{n}@x.com" for n in range(4)]
    with pytest.raises(ValueError, match="got 'order'"), either.write() as tx:
        tx.put_many_on_list("allow", [new[0], NewEntry("order", "o", "")], author="ann", at=3)
    assert either.list_entries("allow") == ()
    with either.write() as tx:
        assert tx.put_many_on_list("allow", [], author="ann", at=3) == ()


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_entries_are_paged_newest_first(either: Store, limit: int) -> None:
    with either.write() as tx:
        for n in range(8):  # pairs of one instant
            entity = ("ip", "email")[n % 2]
            tx.put_on_list("block", entity, f"e{n}", reason=f"{n}", author="ann", at=n // 2,
                           expires_at=50 if n < 4 else None)  # fmt: skip
        tx.put_on_list("allow", "ip", "e", reason="", author="ann", at=9)
    whole = either.list_entries("block")
    assert [e.created_at for e in whole] == [3, 3, 2, 2, 1, 1, 0, 0]
    for wanted in ({}, {"entity": "ip"}, {"in_force_at": 50}, {"entity": "ip", "in_force_at": 50}):
        pages, after = [], None
        while page := either.list_entries("block", limit=limit, after=after, **wanted):
            assert len(page) <= limit
            pages += page
            after = page[-1].place
        assert pages == [
            e
            for e in whole
            if e.entity == wanted.get("entity", e.entity)
            and ("in_force_at" not in wanted or e.expires_at is None)
        ]


def test_a_decision_asks_once_whatever_the_length_of_the_lists(
    either: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One search of the primary key for all six entities: none of it grows with the lists."""
    keys = {kind: f"of {kind}" for kind in ENTITIES}
    asked: list[tuple[str, Row]] = []
    run = either.database.run

    def noted(connection: Connection, statement: Prepared, values: Row) -> list[Row]:
        asked.append((statement.sql, values))
        return run(connection, statement, values)

    with either.write() as tx:
        for kind, original in keys.items():
            tx.put_on_list("block", kind, original, reason="", author="ann", at=1)
        many = (NewEntry("email", f"{n}@x.com", "") for n in range(3_000))
        tx.put_many_on_list("block", many, author="ann", at=1)
    monkeypatch.setattr(either.database, "run", noted)
    assert len(either.matching_lists(keys, at=2)) == len(ENTITIES)
    [(sql, values)] = asked
    with either.database.read() as connection:
        if either.database.is_sqlite:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all()
            assert [line[3] for line in plan] == ["SEARCH lists USING PRIMARY KEY (value=?)"]
        else:
            connection.exec_driver_sql("ANALYZE lists")
            lines = connection.exec_driver_sql(f"EXPLAIN {sql}", values).scalars().all()
            assert "lists_pkey" in "".join(lines)
            assert "Seq Scan" not in "".join(lines)
