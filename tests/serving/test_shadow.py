"""The challenger: scored beside each decision, logged, never acted on, and never in the way."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import structlog
import yaml

from rules.policy import Policy
from serving.facts import FACTS
from serving.models import Models
from serving.policies import Policies
from serving.scorer import Champion
from tests.serving.champions import fixed
from tests.serving.conftest import DEFAULT_POLICY
from tests.serving.test_desk import LATE_BODY, ME, Clock, data, kept, open_desk, report, url

__all__ = ["open_desk", "url"]  # fixtures

PROBLEMS = {
    "raises": (fixed(fails=RuntimeError("boom")), "the challenger failed: RuntimeError: boom"),
    "says nonsense": (fixed(7.0), "the challenger failed: ValueError: probability: expected"),
}


def challenger(model: Champion, version: str = "2") -> Champion:
    return replace(model, version=version)


@pytest.fixture
def now() -> Clock:
    return Clock()


def but_for_chance(body: Any) -> Any:
    """An answer less what is drawn anew for each."""
    return {**body, "data": {k: v for k, v in body["data"].items() if k != "scoreId"}}


def test_what_it_would_have_led_to_is_logged(open_desk, now):
    desk = open_desk(champion=fixed(0.01), challenger=challenger(fixed(0.99)))
    answer = desk.decide(report(amount=5000), now, ME)
    assert data(answer)["action"] == "ALLOW"
    record = kept(desk, answer)
    assert (record["model_version"], record["probability"]) == ("fixed", 0.01)
    assert record["shadow"] == {
        "version": "2", "probability": 0.99, "expected_loss_minor": 0.99 * 5500,
        "action": "PREVENT", "source": "MODEL", "problem": None,
    }  # fmt: skip
    assert desk.store.refund("r-1").state == "APPROVED"


def test_rules_and_lists_stand_in_the_shadow_too(open_desk, now):
    desk = open_desk(champion=fixed(0.99), challenger=challenger(fixed(0.01)))
    late = desk.decide(report(LATE_BODY), now, ME)
    shadow = kept(desk, late)["shadow"]
    assert (shadow["action"], shadow["source"]) == ("PREVENT", "RULE")


@pytest.mark.parametrize("probability", [0.01, 0.6, 0.99])
def test_the_answer_is_the_same_with_and_without(open_desk, probability):
    alone, beside = (
        open_desk(challenger=c).decide(report(refund_id="r-1"), lambda: 1_780_000_000_000, ME)
        for c in (None, challenger(fixed(probability)))
    )
    assert beside.replayed  # one store: the second desk gives the first one's answer
    assert beside.body == alone.body


@pytest.mark.parametrize("body", [report(amount=5000), report(LATE_BODY)], ids=["plain", "late"])
def test_a_challenger_changes_nothing_but_its_own_entry(open_desk, body, tmp_path, policy):
    from features.money import Rates
    from serving.desk import Desk
    from serving.store.store import Store

    told = []
    for name, other in (("without", None), ("with", challenger(fixed(0.99)))):
        store = Store.open(f"sqlite:///{tmp_path}/{name}.db", b"a secret of 16 bytes or more")
        desk = Desk(store, Policies(policy), Models(fixed(), other), Rates("GBP"), b"s", 60_000)
        answer = desk.decide(body, Clock(), ME)
        record = dict(kept(desk, answer))
        shadow = record.pop("shadow", None)
        assert (shadow is None) == (other is None)
        told.append((but_for_chance(answer.body), record | {"keys": None, "snapshot": None}))
        store.close()
    assert told[0] == told[1]


@pytest.mark.parametrize(("broken", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_a_challenger_that_fails_is_said_so_and_logged_once(open_desk, now, broken, problem):
    desk = open_desk(challenger=challenger(broken))
    with structlog.testing.capture_logs() as told:
        for refund in ("r-1", "r-2", "r-3"):
            answer = desk.decide(report(refund_id=refund), now, ME)
            assert (data(answer)["action"], data(answer)["degraded"]) == ("ALLOW", False)
            shadow = kept(desk, answer)["shadow"]
            assert shadow["probability"] is shadow["action"] is None
            assert shadow["problem"].startswith(problem)
    (entry,) = told
    assert (entry["event"], entry["version"]) == ("challenger_not_scored", "2")


def test_a_challenger_is_skipped_when_the_deadline_has_passed(open_desk, now):
    asked: list[int] = []

    class Slow:
        """The champion's explanation takes so long that nothing is left for anybody else."""

        def __init__(self) -> None:
            self.model = fixed().model

        def contributions(self, matrix: Any) -> Any:
            time.sleep(0.3)
            return self.model.contributions(matrix)

    other = fixed()
    other.model.predict = lambda matrix: asked.append(1)  # type: ignore[method-assign]
    desk = open_desk(champion=replace(fixed(), explainer=Slow()), challenger=challenger(other),
                     deadline_ms=250)  # fmt: skip
    desk.store.read({}, 0, ())  # opened before its time counts
    answer = desk.decide(report(), now, ME)
    assert kept(desk, answer)["shadow"]["problem"].startswith("the challenger was late: ")
    assert asked == []


def test_the_time_of_a_challenger_is_not_on_the_decisions_account(open_desk, now):
    """Made again because the customer moved: the second attempt has all the time the first left."""
    from tests.serving.test_desk import Hooked

    slow = challenger(fixed(seconds=1.2))
    other = open_desk()
    desk = open_desk(Hooked, challenger=slow, deadline_ms=1000)
    desk.store.between(lambda: other.decide(report(refund_id="r-other"), now, ME))
    answer = desk.decide(report(), now, ME)
    assert not data(answer)["degraded"], data(answer)["warnings"]
    assert kept(desk, answer)["features"]["refund_count_by_customer_1d"] == 1


def test_no_score_of_the_champion_is_no_reason_to_skip_it(open_desk, now):
    desk = open_desk(champion=None, challenger=challenger(fixed(0.01)))
    answer = desk.decide(report(), now, ME)
    assert data(answer)["degraded"]
    assert kept(desk, answer)["shadow"]["action"] == "ALLOW"


def test_the_action_is_the_one_before_exploration(open_desk, now):
    document = yaml.safe_load(DEFAULT_POLICY.read_text(encoding="utf-8"))
    document["exploration"] = {"share": 1.0, "max_amount_minor": 10_000}
    exploring = Policy.from_yaml(yaml.safe_dump(document), facts=FACTS)
    desk = open_desk(policy=exploring, champion=fixed(0.99), challenger=challenger(fixed(0.98)))
    answer = desk.decide(report(amount=5000), now, ME)
    record = kept(desk, answer)
    assert (data(answer)["action"], record["decision"]["explored"]) == ("ALLOW", True)
    assert record["shadow"]["action"] == "PREVENT"
