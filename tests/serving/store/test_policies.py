"""Policies are kept for ever, and every act that put one in force is."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from serving.store.policies import PolicyAct, PolicyExistsError, PolicyVersion
from serving.store.store import Store, Transaction

FIRST = {
    "version": "1",
    "hash": "aa",
    "text": "version: 1\n",
    "author": "ann",
    "note": None,
    "at": 5,
}
SECOND = {"version": "2", "hash": "bb", "text": "version: 2\n", "author": "bob", "note": "stricter",
          "at": 6}  # fmt: skip


def kept(policy: dict[str, Any]) -> PolicyVersion:
    fields = {name: value for name, value in policy.items() if name != "at"}
    return PolicyVersion(**fields, created_at=policy["at"])


def test_a_policy_comes_back_as_it_was_given(either: Store) -> None:
    assert (either.policy_versions(), either.policy("1"), either.policy_by_hash("aa")) == (
        [], None, None
    )  # fmt: skip
    with either.write() as tx:
        assert tx.add_policy(**SECOND) == kept(SECOND)
        assert tx.add_policy(**FIRST) == kept(FIRST)
        assert tx.policy("2") == kept(SECOND)
    assert either.policy_versions() == [kept(FIRST), kept(SECOND)]
    assert either.policy("1") == either.policy_by_hash("aa") == kept(FIRST)


def test_the_same_policy_again_is_the_one_that_is_kept(either: Store) -> None:
    with either.write() as tx:
        tx.add_policy(**FIRST)
        assert tx.add_policy(**{**FIRST, "author": "eve", "at": 9}) == kept(FIRST)
    assert either.policy_versions() == [kept(FIRST)]


def test_a_version_is_never_given_other_content(either: Store) -> None:
    with either.write() as tx:
        tx.add_policy(**FIRST)
    message = r"policy '1' is kept with hash aa, got other content with hash cc"
    with pytest.raises(PolicyExistsError, match=message), either.write() as tx:
        tx.add_policy(**{**FIRST, "hash": "cc"})
    assert either.policy_versions() == [kept(FIRST)]


def test_the_last_act_says_which_policy_is_in_force(either: Store) -> None:
    assert (either.active_policy(), either.last_policy_act(), either.policy_acts()) == (None, 0, [])
    with either.write() as tx:
        tx.add_policy(**FIRST)
        tx.add_policy(**SECOND)
        assert tx.active_policy() is None
        first = tx.activate_policy("aa", actor="ann", at=10)
        assert tx.active_policy() == kept(FIRST)
    assert either.last_policy_act() == first.seq
    with either.write() as tx:
        second = tx.activate_policy("bb", actor="cy", at=11, note="as agreed")
    with either.write() as tx:
        third = tx.activate_policy("aa", actor="ann", at=12, act="rolled_back")
    assert either.active_policy() == kept(FIRST)
    assert either.last_policy_act() == third.seq
    assert first.seq < second.seq < third.seq
    assert either.policy_acts() == [
        PolicyAct(first.seq, 10, "activated", "aa", None, "ann", None),
        PolicyAct(second.seq, 11, "activated", "bb", "aa", "cy", "as agreed"),
        PolicyAct(third.seq, 12, "rolled_back", "aa", "bb", "ann", None),
    ]


def test_only_a_policy_that_is_kept_is_put_in_force(store: Store) -> None:
    with pytest.raises(ValueError, match="that is kept, got 'aa'"), store.write() as tx:
        tx.activate_policy("aa", actor="ann", at=1)
    with store.write() as tx:
        tx.add_policy(**FIRST)
        with pytest.raises(ValueError, match="activated or rolled_back, got 'forced'"):
            tx.activate_policy("aa", actor="ann", at=1, act="forced")  # type: ignore[arg-type]


def test_what_is_not_committed_never_was(either: Store) -> None:
    with pytest.raises(RuntimeError), either.write() as tx:
        tx.add_policy(**FIRST)
        tx.activate_policy("aa", actor="ann", at=1)
        raise RuntimeError
    assert (either.active_policy(), either.policy_versions()) == (None, [])


def test_acts_at_once_each_know_what_they_replaced(either: Store) -> None:
    with either.write() as tx:
        tx.add_policy(**FIRST)
        tx.add_policy(**SECOND)
    start = threading.Barrier(8)

    def act(number: int) -> None:
        start.wait()
        with either.write() as tx:
            tx.activate_policy("ab"[number % 2] * 2, actor=f"a{number}", at=number)

    with ThreadPoolExecutor(8) as pool:
        for job in [pool.submit(act, number) for number in range(8)]:
            job.result()
    acts = either.policy_acts()
    assert [a.replaced for a in acts] == [None, *(a.hash for a in acts[:-1])]
    assert either.last_policy_act() == acts[-1].seq


# --- what the database refuses -------------------------------------------------------------------

TABLES = ("policies", "policy_acts", "audit_log")


def fill(tx: Transaction) -> None:
    tx.add_policy(**FIRST)
    tx.activate_policy("aa", actor="ann", at=1)
    tx.audit("ann", "activated", "policy:1", {}, at=1)


def rows(store: Store, table: str) -> list[Any]:
    with store.database.read() as connection:
        return list(connection.execute(text(f"SELECT * FROM {table}")))


@pytest.mark.parametrize("table", TABLES)
def test_the_database_itself_refuses_to_change_what_is_kept(either: Store, table: str) -> None:
    with either.write() as tx:
        fill(tx)
    before = rows(either, table)
    assert len(before) == 1
    column = "text" if table == "policies" else "at"
    attempts = [
        f"UPDATE {table} SET {column} = {column}",
        f"DELETE FROM {table}",
        f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}"
        if either.database.is_sqlite
        else f"TRUNCATE {table}",
    ]
    for attempt in attempts:
        refused = pytest.raises(DBAPIError, match=f"{table} is only ever appended to")
        with refused, either.database.write() as connection:
            connection.execute(text(attempt))
    assert rows(either, table) == before
    with either.write() as tx:  # and goes on to take what is new
        tx.add_policy(**SECOND)
        tx.activate_policy("bb", actor="ann", at=2)
        tx.audit("ann", "activated", "policy:2", {}, at=2)
    assert len(rows(either, table)) == 2
