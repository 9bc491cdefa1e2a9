"""The outbox: told is what was committed, to whom it may concern, and sent again under its id."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pytest
from sqlalchemy import event, select

from serving.store.identifiers import Identifiers
from serving.store.outbox import TYPES, Attempt, Delivery, Endpoint, payload, webhook_id
from serving.store.schema import webhook_endpoints
from serving.store.store import Store
from tests.serving.store.conftest import SECRET

URL = "https://shop.example/hook"


def add(store: Store, url: str = URL, types: Sequence[str] = TYPES, at: int = 1) -> Endpoint:
    with store.database.write() as connection:
        return store.outbox.add(connection, url, types, at)[0]


def announce(store: Store, *ats: int, event_type: str = "refund.decided") -> None:
    for at in ats:
        with store.write() as tx:
            tx.announce(event_type, {"refundId": f"r{at}"}, at)  # type: ignore[arg-type]


def due(store: Store, endpoint: Endpoint, at: int = 10**9, limit: int = 100) -> list[Delivery]:
    with store.database.read() as connection:
        return store.outbox.due(connection, endpoint.id, at, limit)


def deliveries(store: Store, only_dead: bool = False) -> list[Delivery]:
    with store.database.read() as connection:
        return store.outbox.deliveries(connection, only_dead=only_dead)


def settle(store: Store, *attempts: Attempt) -> None:
    with store.database.write() as connection:
        store.outbox.settle(connection, attempts)


def test_each_endpoint_is_told_what_it_wants_under_one_id(either: Store) -> None:
    every = add(either)
    one = add(either, "https://other.example/", ["policy.activated"])
    announce(either, 5)
    announce(either, 6, event_type="policy.activated")
    assert [d.type for d in due(either, every)] == ["refund.decided", "policy.activated"]
    [told] = due(either, one)
    assert told.webhook_id == due(either, every)[1].webhook_id
    assert orjson.loads(told.payload) == {
        "type": "policy.activated", "timestamp": "1970-01-01T00:00:00.006Z",
        "data": {"refundId": "r6"},
    }  # fmt: skip
    assert told.state == "waiting"


def test_nothing_is_kept_for_nobody_nor_of_what_was_rolled_back(either: Store) -> None:
    announce(either, 5)
    endpoint = add(either)
    with pytest.raises(RuntimeError), either.write() as tx:
        tx.announce("refund.decided", {"refundId": "r"}, 6)
        raise RuntimeError
    assert due(either, endpoint) == deliveries(either) == []
    announce(either, 7)
    assert [d.created_at for d in due(either, endpoint)] == [7]


def test_what_is_due_comes_the_longest_due_first_and_no_more_than_asked(either: Store) -> None:
    endpoint = add(either)
    announce(either, 30, 10, 20)
    assert [d.created_at for d in due(either, endpoint, at=20)] == [10, 20]
    assert [d.created_at for d in due(either, endpoint, limit=2)] == [10, 20]


def test_an_attempt_is_kept_once(either: Store) -> None:
    endpoint = add(either)
    announce(either, 1, 2, 3)
    first, second, third = due(either, endpoint)
    settle(
        either,
        Attempt(third, 50, "HTTP 500"),
        Attempt(first, 50, "HTTP 204", is_delivered=True),
        Attempt(second, 50, "HTTP 503", next_at=90),
    )
    # Another sender, which did not know, sent the same and failed: it stays delivered.
    settle(either, Attempt(first, 60, "HTTP 500", next_at=99))
    assert [(d.state, d.attempts, d.outcome) for d in deliveries(either)] == [
        ("dead", 1, "HTTP 500"), ("waiting", 1, "HTTP 503"), ("delivered", 1, "HTTP 204"),
    ]  # fmt: skip
    assert [d.webhook_id for d in deliveries(either, only_dead=True)] == [third.webhook_id]
    assert due(either, endpoint, at=89) == []
    assert either.outbox_lag(at=92) == (1, 90, 1)


def test_what_is_sent_again_keeps_its_id(either: Store) -> None:
    endpoint = add(either)
    announce(either, 1, 2, 3)
    one, two, three = due(either, endpoint)
    settle(either, Attempt(one, 9, "HTTP 204", is_delivered=True), Attempt(two, 9, "HTTP 500"))

    def replay(**given: object) -> tuple[int, list[str]]:
        with either.database.write() as connection:
            count = either.outbox.replay(connection, 500, **given)  # type: ignore[arg-type]
        again = [d for d in due(either, endpoint) if d.due_since == 500]
        assert all(d.attempts == 0 and d.next_at == 500 for d in again)
        settle(either, *(Attempt(d, 600, "HTTP 500") for d in again))
        return count, [d.webhook_id for d in again]

    assert replay(only_dead=True) == (1, [two.webhook_id])
    assert replay(webhook_id=one.webhook_id) == (1, [one.webhook_id])
    assert replay(since=2) == (1, [two.webhook_id])  # the third still waits, as it is
    assert replay(webhook_id="msg_of nobody") == (0, [])
    assert three.webhook_id in {d.webhook_id for d in due(either, endpoint)}


def test_a_disabled_endpoint_is_told_nothing_and_can_come_back(either: Store) -> None:
    endpoint = add(either, types=["refund.decided"])
    announce(either, 5)
    with either.database.write() as connection:
        before = either.outbox.secrets_of(connection, endpoint.id, 6)
        assert either.outbox.disable(connection, endpoint.id, "410 Gone", 6)
        assert not either.outbox.disable(connection, endpoint.id, "again", 7)
        assert either.outbox.replay(connection, 8, only_dead=True) == 0
    announce(either, 9)
    [missed] = deliveries(either)
    assert (missed.state, missed.outcome) == ("dead", "the endpoint was disabled")
    with either.database.read() as connection:
        [kept] = either.outbox.endpoints(connection)
    assert (kept.disabled_at, kept.disabled_why) == (6, "410 Gone")
    again = add(either, types=["policy.activated"], at=10)
    with either.database.write() as connection:
        assert either.outbox.replay(connection, 11, only_dead=True) == 1
        assert either.outbox.secrets_of(connection, again.id, 11) != before
    assert again.id == endpoint.id
    assert again.types == ("policy.activated",)
    assert [d.webhook_id for d in due(either, again)] == [missed.webhook_id]


def test_an_endpoint_is_refused_by_name(store: Store) -> None:
    endpoint = add(store)
    with pytest.raises(ValueError, match=rf"is told already, as {endpoint.id}; disable it first"):
        add(store)
    with pytest.raises(ValueError, match=r"types: expected some of .*, got 'refund.decide'"):
        add(store, "https://other.example/", ["refund.decide", "refund.decided"])
    with pytest.raises(ValueError, match="got none"):
        add(store, "https://other.example/", [])


def test_secrets_are_sealed_and_the_one_before_signs_for_a_while(either: Store) -> None:
    with either.database.write() as connection:
        endpoint, first = either.outbox.add(connection, URL, TYPES, 1)
        second = either.outbox.rotate_secret(connection, endpoint.id, at=100, overlap_ms=50)
        with pytest.raises(LookupError, match="none is 'whe_'"):
            either.outbox.rotate_secret(connection, "whe_", at=100, overlap_ms=50)
    with either.database.read() as connection:
        assert either.outbox.secrets_of(connection, endpoint.id, 149) == [second, first]
        assert either.outbox.secrets_of(connection, endpoint.id, 150) == [second]
        assert either.outbox.secrets_of(connection, "whe_", 150) == []
        found = either.outbox.endpoint(connection, URL)
        row = connection.execute(select(webhook_endpoints)).one()
    assert found is not None
    assert found.previous_until == 150
    assert first.startswith("whsec_")
    assert all(secret.encode() not in bytes(kept) for kept in row
               if isinstance(kept, bytes) for secret in (first, second))  # fmt: skip


def test_secrets_move_to_another_key_of_the_store(store: Store) -> None:
    with store.database.write() as connection:
        endpoint, first = store.outbox.add(connection, URL, TYPES, 1)
        second = store.outbox.rotate_secret(connection, endpoint.id, at=100, overlap_ms=50)
        old = Identifiers(SECRET)
        store.outbox._identifiers = Identifiers(b"another secret of the store's")
        assert store.outbox.reseal(connection, old) == 1
        assert store.outbox.secrets_of(connection, endpoint.id, 149) == [second, first]


def test_what_is_old_and_waits_for_nothing_is_removed(either: Store) -> None:
    endpoint = add(either)
    announce(either, 100, 200, 300)
    one, two, _ = due(either, endpoint)
    settle(either, Attempt(one, 900, "HTTP 204", is_delivered=True))
    with either.database.write() as connection:
        assert either.outbox.remove(connection, before=300, limit=10) == 1
        assert either.outbox.remove(connection, before=300, limit=10) == 0
    assert [d.created_at for d in deliveries(either)] == [300, 200]
    settle(either, Attempt(two, 900, "HTTP 500"))
    with either.database.write() as connection:
        assert either.outbox.remove(connection, before=201, limit=10) == 1


def test_what_a_sender_asks_each_second_reads_what_waits_alone(store: Store) -> None:
    endpoint = add(store)
    asked: list[tuple[str, object]] = []

    def listen(_: object, __: object, statement: str, values: object, *___: object) -> None:
        asked.append((statement, values))

    event.listen(store.database._reading, "before_cursor_execute", listen)
    due(store, endpoint)
    store.outbox_lag(at=1)
    event.remove(store.database._reading, "before_cursor_execute", listen)
    with store.database.read() as connection:
        plans = [
            connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            for statement, values in asked
        ]
    assert [[row[-1] for row in plan] for plan in plans] == [
        ["SEARCH webhook_outbox USING INDEX webhook_outbox_by_next_at"
         " (endpoint_id=? AND next_at<?)"],
        ["SCAN webhook_outbox USING COVERING INDEX webhook_outbox_by_next_at"],
        ["SEARCH webhook_outbox USING COVERING INDEX webhook_outbox_by_dead_at (dead_at>?)"],
    ]  # fmt: skip


def test_ids_are_in_the_order_of_time() -> None:
    ids = [webhook_id(at) for at in (0, 9, 1_780_000_000_000, 10**14)]
    assert ids == sorted(ids)
    assert len({webhook_id(9) for _ in range(100)}) == 100


def test_a_time_is_told_to_the_millisecond_in_utc() -> None:
    told = orjson.loads(payload("refund.decided", {}, 1_780_000_000_007))
    assert told["timestamp"] == "2026-05-28T20:26:40.007Z"
