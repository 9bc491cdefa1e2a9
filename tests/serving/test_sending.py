"""Webhooks arrive signed, once each if all goes well, and again if not, whoever sends them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from serving.sending import LEASE, LEASE_MS, MOST_REMOVED, Sender, announce_model
from serving.store.outbox import TYPES, Delivery, Endpoint
from serving.store.store import Store
from serving.webhooks import AT_ONCE, DAY_MS, GIVE_UP_MS, LONGEST_WAIT_MS, next_attempt
from tests.serving.receivers import Receiver, receiving

SECRET = b"a secret of 16 bytes or more"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/webhooks.db"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store.open(url, SECRET)
    yield opened
    opened.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


class Time:
    """The present, moved on by hand; signatures are of now, so it begins there."""

    def __init__(self) -> None:
        self.at = time.time_ns() // 10**6

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def now() -> Time:
    return Time()


def add(store: Store, receiver: Receiver, types: Sequence[str] = TYPES) -> Endpoint:
    with store.database.write() as connection:
        endpoint, receiver.secret = store.outbox.add(connection, receiver.url, types, 1)
    return endpoint


def announce(store: Store, at: int, count: int = 1) -> None:
    for number in range(count):
        with store.write() as tx:
            tx.announce("refund.decided", {"refundId": f"r{number}"}, at)


def deliveries(store: Store) -> list[Delivery]:
    with store.database.read() as connection:
        return store.outbox.deliveries(connection)


def look(store: Store, now: Callable[[], int], times: int = 1, **given: Any) -> None:
    """Look so often as one sender, each time until all that was due has been tried."""

    async def run() -> None:
        usual = {"allow_private": True, "now": now, "draw": lambda: 0.5, "timeout": 5}
        sender = Sender(store, **{**usual, **given})
        try:
            for _ in range(times):
                await sender.look()
                await sender.settled()
        finally:
            await sender.close()

    asyncio.run(run())


def test_a_webhook_arrives_signed_and_once(store: Store, receiver: Receiver, now: Time) -> None:
    add(store, receiver)
    announce(store, now.at)
    look(store, now, times=3)
    [(headers, told)] = receiver.came
    assert told["data"] == {"refundId": "r0"}
    assert told["type"] == "refund.decided"
    assert headers["host"] in receiver.url
    assert int(headers["webhook-timestamp"]) == now.at // 1000
    [delivery] = deliveries(store)
    assert (delivery.state, delivery.outcome, delivery.attempts) == ("delivered", "HTTP 204", 1)
    assert (headers["webhook-id"], receiver.forged) == (delivery.webhook_id, [])


def test_more_than_fits_at_once_is_sent_in_one_look(
    store: Store, receiver: Receiver, now: Time
) -> None:
    add(store, receiver)
    announce(store, now.at, count=2 * AT_ONCE + 3)
    look(store, now)
    assert len(set(receiver.ids)) == len(receiver.ids) == 2 * AT_ONCE + 3


def test_what_fails_is_sent_again_later_under_its_id(
    store: Store, receiver: Receiver, now: Time
) -> None:
    receiver.replies = [(500, {}), (302, {"location": receiver.url}), (429, {"retry-after": "60"})]
    add(store, receiver)
    announce(store, now.at)
    waits, outcomes = [], []
    for _ in range(4):
        look(store, now, times=2)  # a second look before it is due sends nothing
        [delivery] = deliveries(store)
        outcomes.append(delivery.outcome)
        if delivery.next_at is not None:
            waits.append(delivery.next_at - now.at)
            now.at = delivery.next_at
    assert outcomes == ["HTTP 500", "HTTP 302, a redirect, which is not followed", "HTTP 429",
                        "HTTP 204"]  # fmt: skip
    assert waits == [5_000, 10_000, 60_000]
    assert receiver.ids == [deliveries(store)[0].webhook_id] * 4


def test_attempts_spread_over_three_days() -> None:
    for draw, few, many in ((0.999, 20, 30), (0.5, 25, 45), (0.05, 200, 300)):
        at, attempts = 0, 0
        while (then := next_attempt(attempts + 1, 0, at, draw)) is not None:
            assert at < then <= at + max(LONGEST_WAIT_MS, 1)
            at, attempts = then, attempts + 1
        assert GIVE_UP_MS - LONGEST_WAIT_MS < at <= GIVE_UP_MS
        assert few < attempts < many


def test_what_failed_for_three_days_is_given_up_and_can_be_sent_again(
    store: Store, receiver: Receiver, now: Time
) -> None:
    receiver.replies = [(503, {}), (503, {})]
    add(store, receiver)
    announce(store, now.at - GIVE_UP_MS)
    look(store, now)
    [dead] = deliveries(store)
    assert (dead.state, dead.dead_at, dead.attempts) == ("dead", now.at, 1)
    with store.database.write() as connection:
        store.outbox.replay(connection, now.at, only_dead=True)
    look(store, now)  # three days begin again
    [waiting] = deliveries(store)
    assert waiting.next_at is not None
    now.at = waiting.next_at
    look(store, now)
    assert deliveries(store)[0].state == "delivered"
    assert set(receiver.ids) == {dead.webhook_id}


def test_an_endpoint_that_is_gone_is_disabled_and_told_no_more(
    store: Store, receiver: Receiver, now: Time
) -> None:
    receiver.replies = [(410, {})]
    endpoint = add(store, receiver)
    announce(store, now.at)
    look(store, now)
    announce(store, now.at)
    look(store, now)
    assert len(receiver.came) == 1
    with store.database.read() as connection:
        [kept] = store.outbox.endpoints(connection)
    assert (kept.disabled_at, kept.disabled_why) == (now.at, "it answered 410 Gone")
    [entry] = store.audit_about(f"webhook:{endpoint.id}")
    assert (entry.actor, entry.action) == ("recourse", "webhook_disabled")


def test_one_that_hangs_holds_up_nobody_and_fails(
    store: Store, receiver: Receiver, now: Time
) -> None:
    with receiving() as slow:
        slow.hangs = True
        add(store, slow)
        endpoint = add(store, receiver)
        announce(store, now.at)

        async def run() -> bool:
            sender = Sender(store, allow_private=True, now=now, timeout=0.3)
            await sender.look()
            while not receiver.came or endpoint.id in sender._busy:
                await asyncio.sleep(0.01)
            was_waiting = bool(sender._busy)
            await sender.settled()
            await sender.close()
            return was_waiting

        assert asyncio.run(run())
        slow.hang.set()
    outcomes = {d.endpoint_id: d.outcome for d in deliveries(store)}
    assert outcomes.pop(endpoint.id) == "HTTP 204"
    assert list(outcomes.values()) == ["no answer within 0.3 s"]


def test_nobody_listening_is_a_failure_as_any(store: Store, receiver: Receiver, now: Time) -> None:
    receiver.url = "http://127.0.0.1:9/"
    add(store, receiver)
    announce(store, now.at)
    look(store, now)
    [delivery] = deliveries(store)
    assert delivery.state == "waiting"
    assert delivery.outcome is not None
    assert delivery.outcome.startswith("ConnectError")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_private_address_is_never_called_unless_that_is_wanted(
    store: Store, receiver: Receiver, now: Time, host: str
) -> None:
    receiver.url = receiver.url.replace("127.0.0.1", host).replace("http:", "https:")
    add(store, receiver)
    announce(store, now.at)
    look(store, now, allow_private=False)
    [delivery] = deliveries(store)
    assert "not a public address" in (delivery.outcome or "")
    assert receiver.came == receiver.forged == []


def test_both_secrets_sign_while_one_takes_over(
    store: Store, receiver: Receiver, now: Time
) -> None:
    endpoint = add(store, receiver)
    old = receiver.secret
    with store.database.write() as connection:
        new = store.outbox.rotate_secret(connection, endpoint.id, now.at, overlap_ms=1_000)
    for secret, at, is_known in ((old, 0, True), (new, 0, True), (old, 1_000, False)):
        receiver.secret, receiver.came, receiver.forged = secret, [], []
        now.at += at
        announce(store, now.at)
        look(store, now)
        assert (bool(receiver.came), bool(receiver.forged)) == (is_known, not is_known)


def test_one_process_sends_and_another_takes_over_when_it_is_gone(
    store: Store, receiver: Receiver, now: Time
) -> None:
    add(store, receiver)
    store.leases.take(LEASE, "one that was killed", now.at, LEASE_MS)
    announce(store, now.at)
    now.at += LEASE_MS - 1
    look(store, now)
    assert receiver.came == []
    now.at += 1
    look(store, now)
    assert len(receiver.came) == 1
    assert store.leases.take(LEASE, "another", now.at, LEASE_MS)  # one that ends gives it back


def test_a_clock_that_was_wrong_keeps_nobody_from_sending(
    store: Store, receiver: Receiver, now: Time
) -> None:
    add(store, receiver)
    store.leases.take(LEASE, "one that was killed", now.at + 10 * DAY_MS, LEASE_MS)
    announce(store, now.at)
    look(store, now)
    assert len(receiver.came) == 1


COMMITS = """
import os, signal, sys
from serving.store.store import Store
store = Store.open(sys.argv[1], b"a secret of 16 bytes or more")
with store.write() as tx:
    tx.announce("refund.decided", {"refundId": "r"}, int(sys.argv[2]))
print("committed", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_committed_before_a_kill_is_told_after_the_restart(
    store: Store, url: str, receiver: Receiver, now: Time
) -> None:
    add(store, receiver)
    killed = subprocess.run(
        [sys.executable, "-c", COMMITS, url, str(now.at)], check=False, capture_output=True,
        text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "committed\n"), killed.stderr
    look(store, now)
    assert [told["data"] for _, told in receiver.came] == [{"refundId": "r"}]


def test_what_was_sent_and_not_marked_is_sent_again_under_its_id(
    store: Store, receiver: Receiver, now: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, receiver)
    announce(store, now.at)

    def fails(*_: object) -> None:
        raise OSError("the process ends here")

    async def dies() -> None:
        sender = Sender(store, allow_private=True, now=now)
        monkeypatch.setattr(sender, "_settle", fails)
        await sender.look()
        await sender.settled()
        await sender.close()

    asyncio.run(dies())
    assert [delivery.state for delivery in deliveries(store)] == ["waiting"]
    look(store, now)
    first, again = receiver.ids
    assert first == again


def test_a_thread_sends_until_it_is_stopped(store: Store, receiver: Receiver) -> None:
    add(store, receiver)
    sender = Sender(store, allow_private=True)
    sender.start()
    announce(store, time.time_ns() // 10**6)
    until = time.monotonic() + 20
    while not receiver.came and time.monotonic() < until:
        time.sleep(0.02)
    sender.stop()
    assert [told["type"] for _, told in receiver.came] == ["refund.decided"]
    assert not sender._thread.is_alive()
    assert [d.state for d in deliveries(store)] == ["delivered"]


def test_a_promotion_is_told_once_whoever_sends(
    store: Store, receiver: Receiver, now: Time
) -> None:
    add(store, receiver)
    for version in (None, "1", "1", "2", None, "2", "1"):
        look(store, now, serving=lambda version=version: version)  # each a process of its own
    assert [told["data"] for _, told in receiver.came] == [
        {"modelVersion": "1", "replaced": None},
        {"modelVersion": "2", "replaced": "1"},
        {"modelVersion": "1", "replaced": "2"},
    ]


def test_a_store_that_knew_no_model_takes_note_of_the_one_that_decides(store: Store) -> None:
    assert not announce_model(store, "7", 1)
    assert announce_model(store, "8", 1)


def test_what_is_old_is_removed_a_little_at_a_time(
    store: Store, receiver: Receiver, now: Time
) -> None:
    add(store, receiver, ["refund.decided"])
    with store.write() as tx:
        for _ in range(MOST_REMOVED + 1):
            tx.announce("refund.decided", {}, now.at - 15 * DAY_MS)
    with store.database.write() as connection:
        connection.exec_driver_sql("UPDATE webhook_outbox SET next_at = NULL, delivered_at = 1")
    look(store, now)
    assert len(deliveries(store)) == 1
    look(store, now, times=2)
    assert deliveries(store) == []
