"""Hostile refunds, from the wire to the answer: each is held, whatever is left out of its body."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from features.money import DAY_MS, Rates
from rules.decision import FACT_MISSING, Action, Stage
from rules.policy import Policy
from serving import contract
from serving.desk import Desk, Sender
from serving.models import Models
from serving.policies import Policies
from serving.store.store import Store, Transaction
from serving.wire import InvalidRequest
from tests.serving.champions import fixed
from tests.serving.hostile import GONE, NOW, body_of, known_well, own_order, put, raw
from tests.serving.hostile_cases import HOSTILE, SHADOW

SECRET = b"a secret of 16 bytes or more"
ME = Sender("key_1")


class _UndoneError(Exception):
    """Nothing of this is to be kept."""


class Trial(Store):
    """A store whose decisions are made in full and then undone, so that each meets one history."""

    undoes = False

    @contextmanager
    def write(
        self, customer_id: str | None = None, order_id: str | None = None
    ) -> Iterator[Transaction]:
        try:
            with super().write(customer_id, order_id) as tx:
                yield tx
                if self.undoes:
                    raise _UndoneError
        except _UndoneError:
            pass


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, complete: Policy) -> Iterator[Desk]:
    """A desk of a merchant who reports everything, with all that was reported about the cases."""
    path = tmp_path_factory.mktemp("hostile") / "desk.db"
    store = Trial.open(f"sqlite:///{path}", SECRET, clock="ingest")
    champion = fixed()
    champion.model.predict = lambda matrix: np.full(len(matrix), 0.01)  # without a pause
    desk = Desk(store=store, policies=Policies(complete), models=Models(champion, None),
                rates=Rates("GBP"), secret=SECRET, deadline_ms=600_000)  # fmt: skip
    reported = [own_order("honest", {}), *known_well("honest")]
    for case, hostile in HOSTILE.items():
        reported += hostile.reports(case)
    for parse, body, days in sorted(reported, key=lambda told: -told[2]):
        desk.record(parse(raw(body)), NOW - int(days * DAY_MS), "test")
    for case, hostile in HOSTILE.items():
        for body in hostile.asked_before(case):
            report = contract.parse_refund(raw(body), scored=True)
            decided = desk.decide(report, lambda: NOW - DAY_MS, ME).body["data"]
            assert decided["action"] == Action.MANUAL_REVIEW
    store.undoes = True
    yield desk
    store.close()


class Answered:
    """What the desk answered to a body, and the codes of its reasons."""

    def __init__(self, desk: Desk, body: Any) -> None:
        report = contract.parse_refund(raw(body), scored=True)
        data = desk.decide(report, lambda: NOW, ME).body["data"]
        self.action = Action(data["action"])
        self.codes = {reason["code"] for reason in data["reasons"]}
        self.hits = {rule["ruleId"] for rule in data["rules"]["triggered"]}
        self.source = data["source"]


def copy_of(body: Any) -> Any:
    """A copy to change."""
    return orjson.loads(raw(body))


def paths_of(body: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every field of a body, and every part that holds some."""
    inner = body.items() if isinstance(body, dict) else enumerate(body)
    for step, value in inner:
        here = (*path, str(step))
        yield here
        if isinstance(value, dict | list):
            yield from paths_of(value, here)


def facts_in(body: Any) -> str:
    """The events that a body says, as a text to compare."""
    return repr(contract.parse_refund(raw(body), scored=True).events(NOW))


def variants(body: Any) -> Iterator[tuple[str, Any]]:
    """The body without each of its fields in turn, with null in its place, and with none of them.

    What the contract requires it refuses to be without, and that is no answer at all.
    """
    seen = {facts_in(body)}
    bare = copy_of(body)
    for path in sorted(paths_of(body), key=len, reverse=True):
        for value in (GONE, None):
            changed = copy_of(body)
            put(changed, path, value)
            try:
                facts = facts_in(changed)
            except InvalidRequest:
                continue
            if facts not in seen:  # the same facts, said otherwise, are the same decision
                seen.add(facts)
                yield ".".join(path), changed
            if value is GONE:
                _without(bare, path)
    yield "", bare


def _without(bare: Any, path: tuple[str, ...]) -> None:
    """Take one more field away, unless the contract then refuses what is left."""
    before = copy_of(bare)
    try:
        put(bare, path, GONE)
        facts_in(bare)
    except (InvalidRequest, LookupError):
        bare.clear()
        bare.update(before)


def is_held(full: Answered, left: Answered) -> bool:
    """Whether leaving something out has won nothing.

    A refusal may turn into a review, where what it stood on is not known any more: nobody is
    refused for what nobody knows. It never turns into money.
    """
    if left.action >= full.action:
        return True
    return left.action is Action.MANUAL_REVIEW and FACT_MISSING in left.codes


def test_the_honest_request_is_paid(desk):
    answered = Answered(desk, body_of("honest", {}))
    assert (answered.action, answered.hits) == (Action.ALLOW, set())


def test_every_rule_and_limit_has_its_case(complete):
    assert {rule.hit.rule_id for rule in complete.rules} == HOSTILE.keys()


@pytest.mark.parametrize("case", HOSTILE)
def test_it_is_held_whatever_is_left_out(case, desk, complete):
    hostile = HOSTILE[case]
    body = hostile.body(case)
    full = Answered(desk, body)
    (rule,) = (rule for rule in complete.rules if rule.hit.rule_id == case)
    if case in SHADOW:
        assert (full.action, full.hits) == (Action.ALLOW, {case})
        return
    if case == "return_window_unproven":
        assert FACT_MISSING in full.codes
    else:
        assert case in full.hits
        assert rule.hit.reason in full.codes
    assert full.action is rule.hit.action
    assert full.source == ("RATE_LIMIT" if rule.hit.stage is Stage.LIMIT else "RULE")

    tried = 0
    for path, changed in variants(body):
        left = Answered(desk, changed)
        tried += 1
        if path.startswith(hostile.unreported) if hostile.unreported else False:
            continue
        if path == "" and hostile.unreported:
            continue
        assert is_held(full, left), (path, left.action, left.codes)
    assert tried > (15 if case == "order_unknown" else 30), tried


# --- what the default policy answers to those who send little ------------------------------------

CONTRACT = Path(__file__).parents[1] / "contract"


def test_the_reference_s_own_request_is_paid_by_the_default_policy(tmp_path, policy):
    """A customer, an order and a device that nobody knows: an everyday amount, and a low score."""
    store = Store.open(f"sqlite:///{tmp_path}/desk.db", SECRET, clock="ingest")
    desk = Desk(store=store, policies=Policies(policy), models=Models(fixed(0.05), None),
                rates=Rates("GBP"), secret=SECRET, deadline_ms=600_000)  # fmt: skip
    body = orjson.loads((CONTRACT / "request-score.json").read_bytes())
    answered = Answered(desk, body)
    assert (answered.action, answered.source, answered.hits) == (
        Action.ALLOW, "MODEL", {"order_unknown"}
    )  # fmt: skip
    store.close()
