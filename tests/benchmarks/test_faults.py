"""The witness of the fault benchmark finds what is wrong; the benchmark runs in the e2e tests."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from benchmarks.traffic import SCORED, Backend, Ledger, Sent
from benchmarks.witness import Findings, examine
from features.money import Rates
from rules.policy import Policy
from serving import contract
from serving.desk import Desk, Sender
from serving.facts import FACTS
from serving.models import Models
from serving.policies import Policies
from serving.store.store import Store
from tests.serving.champions import fixed
from tests.serving.documents import document, rule

SECRET = b"a secret of 16 bytes or more"
POLICY = Policy.from_yaml(document("1", rule()), facts=FACTS)


class Shop(Backend):
    """A backend over a desk in this process."""

    def __init__(self, desk: Desk, ledger: Ledger) -> None:
        super().__init__(0, "", ledger, "f0-0", seed=1)
        self._desk, self._at = desk, time.time_ns() // 10**6

    def now(self) -> int:
        self._at += 1
        return self._at

    def _ask(self, one: Sent) -> tuple[int, bool, bytes]:
        report = contract.parse_refund(one.body, scored=one.path == SCORED)
        answer = (
            self._desk.decide(report, self.now, Sender("key", one.key))
            if one.path == SCORED
            else self._desk.record(report, self.now(), "key:key")
        )
        return 200, answer.replayed, orjson.dumps(answer.body)


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, ledger: Ledger) -> Path:
    """The file of a store that a backend has worked with."""
    file = tmp_path_factory.mktemp("faults") / "store.db"
    store = Store.open(f"sqlite:///{file}", SECRET)
    with store.database.write() as connection:
        store.outbox.add(connection, "https://example.com/", ["refund.decided"], 1)
    shop = Shop(
        Desk(store, Policies(POLICY), Models(fixed()), Rates("GBP"), SECRET, 60_000), ledger
    )
    for _ in range(60):
        assert shop.step()
    store.close()
    return file


@pytest.fixture
def examined(made: Path, ledger: Ledger, tmp_path: Path) -> Callable[..., Findings]:
    """What the witness finds once these statements have altered a copy of the store."""

    def with_changes(*statements: str) -> Findings:
        copy = tmp_path / "copy.db"
        with sqlite3.connect(made) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        with sqlite3.connect(copy) as connection:
            for statement in statements:
                connection.execute(statement)
        return examine(f"sqlite:///{copy}", "f0", ledger, announced=True)

    return with_changes


ONE = "(SELECT min(refund_id) FROM decisions)"
TOLD = "(SELECT min(refund_id) FROM events WHERE event_type = 'refund_outcome')"


def test_what_is_as_it_was_acknowledged_is_sound(examined, ledger):
    assert ledger.acknowledged > 20
    assert ledger.replayed > 3
    assert examined().sound


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        ((f"DELETE FROM decisions WHERE refund_id = {ONE}",),
         {"lost", "velocity_wrong", "unaudited", "unannounced"}),
        ((f"DELETE FROM events WHERE refund_id = {TOLD} AND event_type = 'refund_outcome'",),
         {"lost", "reservations_wrong"}),
        (("CREATE TABLE again AS SELECT * FROM decisions LIMIT 1",
          "UPDATE again SET score_id = 'another', decided_at = decided_at + 1",
          "INSERT INTO decisions SELECT * FROM again"),
         {"duplicated", "velocity_wrong", "unaudited", "unannounced"}),
        ((f"UPDATE events SET refund_id = {ONE} WHERE event_type = 'refund_request'",),
         {"duplicated", "lost"}),
        (("UPDATE decisions SET features = (SELECT features FROM decisions ORDER BY decided_at)",),
         {"velocity_wrong"}),
        ((f"UPDATE reservations SET promised_minor = 999 WHERE refund_id = {ONE}",),
         {"reservations_wrong"}),
        ((f"UPDATE refunds SET state = 'APPROVED' WHERE refund_id = {TOLD}",),
         {"reservations_wrong"}),
    ],
)  # fmt: skip
def test_what_is_not_is_told(examined, statements, found):
    got = examined(*statements)
    told = {name for name in vars(got) if name != "examples" and getattr(got, name)}
    assert told == found
    assert got.examples
