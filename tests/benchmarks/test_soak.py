"""The soak benchmark asks what the contract knows, and counts what comes back as what it is."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.openloop import Shot, open_loop
from benchmarks.soak import MIXTURE, SCORED, Mixture, is_sound
from serving import contract
from serving.wire import InvalidRequest

ANSWERS = {
    b"good": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"fallback": b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"degraded":true}',
    b"later": b"HTTP/1.1 429 Later\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}",
    b"never": b"HTTP/1.1 503 Never\r\nContent-Length: 2\r\n\r\n{}",
    b"gone": b"",
}


@contextmanager
def answering() -> Iterator[int]:
    """A server that answers what it is asked for; gives its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while wanted := ANSWERS[(await reader.readuntil(b".")).rstrip(b".")]:
                writer.write(wanted)
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_every_answer_is_counted_as_what_it_is() -> None:
    kinds = [name.decode() for name in ANSWERS]
    shots = (Shot(kind, f"{kind}.".encode()) for kind in itertools.cycle(kinds))
    with answering() as port:
        tally = open_loop(port, shots, rate=500, seconds=0.4, connections=4)
    assert tally.due > 20
    sent = tally.kinds
    assert tally.refused == sent["later"] > 0
    assert tally.degraded == sent["fallback"] > 0
    assert tally.unexpected == {"never 503": sent["never"]}
    assert len(tally.ms) == sent["good"] + sent["fallback"]
    assert sent.total() + tally.broken == tally.due
    assert tally.errors == sent["never"] + tally.broken > sent["never"]


def test_what_waits_for_a_connection_waits_from_when_it_was_due() -> None:
    with answering() as port:
        shots = (Shot("good", b"good.") for _ in itertools.count())
        alone = open_loop(port, shots, rate=2_000, seconds=0.2, connections=1)
    assert len(alone.ms) == alone.due, "one connection sends all of them, however late"


def test_the_mixture_is_what_the_contract_takes() -> None:
    counted: Counter[str] = Counter()
    for shot in itertools.islice(iter(Mixture("sk_test_key")), 3_000):
        counted[shot.kind] += 1
        head, _, body = shot.request.partition(b"\r\n\r\n")
        path = head.split()[1].decode()
        assert b"Authorization: token sk_test_key" in head
        parse = {
            "/v2/order": contract.parse_order,
            "/v2/return": contract.parse_return,
            "/v2/dispute": contract.parse_dispute,
        }.get(path, lambda b: contract.parse_refund(b, scored=path == SCORED))  # noqa: B023
        if path.endswith("/labels"):
            assert contract.parse_label(body, path.split("/")[3]).events(1)
        elif shot.kind == "bad":
            assert shot.expected == {400}
            with pytest.raises(InvalidRequest):
                parse(body)
        else:
            assert parse(body).events(1)
    for kind, share in MIXTURE.items():
        assert counted[kind] == pytest.approx(30 * share, abs=60)
        assert counted[kind] > 0


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("soak", "errors", 1), ("soak", "refused", 1), ("soak", "degraded", 1), ("spike", "errors", 1),
     ("capacity_per_second", "recovered", 0.5)],
)  # fmt: skip
def test_it_is_sound_only_if_all_of_it_is(part: str, name: str, value: float) -> None:
    sound = {
        "soak": {"errors": 0, "refused": 0, "degraded": 0}, "spike": {"errors": 0, "refused": 9},
        "capacity_per_second": {"recovered": 0.97},
    }  # fmt: skip
    assert is_sound(sound)
    assert not is_sound({**sound, part: {**sound[part], name: value}})
