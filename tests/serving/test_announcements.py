"""What is decided or put in force is announced with it, once, and tells nothing of a person."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from serving import policies
from serving.desk import Desk
from serving.policies import ActivationRefused
from serving.store.outbox import TYPES
from tests.serving.documents import document, rule
from tests.serving.test_desk import ME, NAMES, Clock, open_desk, report, url

__all__ = ["open_desk", "url"]  # fixtures


@pytest.fixture
def desk(open_desk: Any) -> Desk:
    opened: Desk = open_desk()
    with opened.store.database.write() as connection:
        opened.store.outbox.add(connection, "https://shop.example/hook", TYPES, 1)
    return opened


def announced(desk: Desk) -> list[dict[str, Any]]:
    with desk.store.database.read() as connection:
        return [orjson.loads(d.payload) for d in desk.store.outbox.deliveries(connection)]


def test_a_decision_is_announced_once_whoever_asks_again(desk: Desk) -> None:
    clock = Clock()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: desk.decide(report(), clock, ME), range(4)))
    data = answers[0].body["data"]
    [told] = announced(desk)
    assert told["type"] == "refund.decided"
    assert told["data"] == {
        "refundId": "r-1",
        **{name: data[name] for name in ("scoreId", "action", "source", "score", "riskLevel",
                                         "policyVersion", "modelVersion", "degraded")},
    }  # fmt: skip


def test_an_announcement_tells_nothing_of_a_person(desk: Desk) -> None:
    desk.decide(report(), Clock(), ME)
    text = orjson.dumps(announced(desk)).decode()
    assert not [name for name in NAMES.values() if name in text]


def test_a_policy_in_force_is_announced_and_a_refused_one_is_not(desk: Desk) -> None:
    store = desk.store
    policies.ensure_first(store, document("1"), 1)
    policies.propose(store, document("2", rule(40_000, version=2)), author="ann", note=None, at=2)
    policies.activate(store, "2", actor="bob", at=3, second_person=True)
    with pytest.raises(ActivationRefused):
        policies.activate(store, "2", actor="bob", at=4, second_person=True)
    policies.roll_back(store, actor="ann", at=5)
    told = announced(desk)[::-1]
    assert {one["type"] for one in told} == {"policy.activated"}
    assert [(one["data"]["policyVersion"], one["data"]["replaced"], one["data"]["act"])
            for one in told] == [
        ("1", None, "activated"), ("2", "1", "activated"), ("1", "2", "rolled_back"),
    ]  # fmt: skip
    assert [one["data"]["policyHash"] for one in told] == [act.hash for act in store.policy_acts()]
    assert "ann" not in orjson.dumps(told).decode()
