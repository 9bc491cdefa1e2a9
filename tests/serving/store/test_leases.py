"""A lease has one holder at a time, on either store."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from serving.sending import announce_model
from serving.store.store import Store


def test_a_lease_is_held_renewed_lost_and_given_back(either: Store) -> None:
    take = either.leases.take
    assert take("webhooks", "a", at=1_000, ms=100)
    assert not take("webhooks", "b", at=1_099, ms=100)
    assert take("another", "b", at=1_099, ms=100)
    assert take("webhooks", "a", at=1_050, ms=100)  # until 1,150 now
    assert not take("webhooks", "b", at=1_149, ms=100)
    assert take("webhooks", "b", at=1_150, ms=100)
    assert not take("webhooks", "a", at=1_151, ms=100)
    either.leases.give_back("webhooks", "a")  # who has lost it gives nothing back
    assert not take("webhooks", "a", at=1_152, ms=100)
    either.leases.give_back("webhooks", "b")
    assert take("webhooks", "a", at=1_153, ms=100)


def test_of_many_who_ask_at_once_one_gets_it(either: Store) -> None:
    start = threading.Barrier(6)

    def ask(who: int) -> bool:
        start.wait()
        return either.leases.take("webhooks", f"process {who}", at=1_000, ms=100)

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(ask, range(6))) == 1


def test_a_promotion_is_noted_and_announced(either: Store) -> None:
    with either.database.write() as connection:
        endpoint, _ = either.outbox.add(connection, "https://shop.example/", ["model.promoted"], 1)
    assert [announce_model(either, version, 5) for version in ("1", "2", "2", None, "1")] == [
        False, True, False, False, True,
    ]  # fmt: skip
    with either.database.read() as connection:
        assert len(either.outbox.due(connection, endpoint.id, 9, 9)) == 2
