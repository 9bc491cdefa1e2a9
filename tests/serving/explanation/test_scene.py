"""A scene decides as the desk did, and with supposed events as the desk would if they came."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.catalog import MODEL_FEATURES
from features.events import (
    Dispute,
    Event,
    Label,
    OrderUpdate,
    RefundOutcome,
    RefundRequest,
    Return,
    Transaction,
)
from features.money import DAY_MS, Rates
from rules.policy import Policy
from serving.desk import Desk
from serving.explanation.own_past import own_past
from serving.explanation.scene import NoSceneError, Scene, scene_of
from serving.facts import FACTS
from serving.governance import ensure_first
from serving.language import ENGLISH
from serving.models import Models
from serving.policies import Policies
from serving.scorer import Champion, Verdict
from serving.store.erasure import erase
from serving.store.store import Store
from serving.watch import Watch
from tests.serving.champions import trained_model
from tests.serving.conftest import DEFAULT_POLICY
from tests.serving.documents import BALANCE, UNHELD, document, rule
from tests.serving.store.test_history import histories
from tests.serving.test_desk import BODY, ME, NAMES, NOW, SECRET, Clock, report

CHAMPION = Champion.of(trained_model(), "7")
RATES = Rates("GBP")
DEFAULT = DEFAULT_POLICY.read_text(encoding="utf-8")
COMPLETE = DEFAULT.replace("orders_complete: false", "orders_complete: true")
ABOVE = rule(5_000)
START = 10_000 * DAY_MS
CUTOFF = START + 401 * DAY_MS


def make_desk(store: Store, text: str = DEFAULT, champion: Champion | None = CHAMPION) -> Desk:
    ensure_first(store, text, at=1)
    policy = Policies(Policy.from_yaml(text, facts=FACTS))
    return Desk(store, policy, Models(champion), RATES, SECRET, 60_000)


def scene(desk: Desk, answer: Any) -> Scene:
    decision = desk.store.decision(answer.body["data"]["scoreId"])
    assert decision is not None
    return scene_of(desk.store, decision, desk.models.now.champion, RATES)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = Store.open(store_url, SECRET, clock="ingest")
    yield opened
    opened.close()


def assert_same(one: Verdict, other: Verdict) -> None:
    """To the bit, and in every word."""
    ours, theirs = ({k: v for k, v in told.facts.items() if v == v} for told in (one, other))
    assert ours == theirs
    assert one.score == other.score
    assert one.decision.to_json() == other.decision.to_json()


def assert_made_again(was: Scene) -> None:
    """The decision comes out as it is kept."""
    again, record = was.decide(), was.record
    kept = {name: math.nan if v is None else v for name, v in record["features"].items()}
    assert {
        n
        for n, v in kept.items()
        if not (v == again.row[n] or (v != v and again.row[n] != again.row[n]))
    } == set()
    assert again.decision.to_json() == record["decision"]
    assert (again.score.probability if again.score else None) == record["probability"]


# --- as the desk decides -------------------------------------------------------------------------

_ASKED: Mapping[str, Any] = {
    **BODY,
    "customer": {"customerId": "customer-0"},
    "order": {**BODY["order"], "orderId": "order-0", "orderTime": CUTOFF - 40 * DAY_MS,
              "deliveredTime": None},
    "refund": {**BODY["refund"], "refundId": "refund-0", "type": "RETURN"},
    "device": {"deviceId": "device-0", "ipAddress": "ip-0"},
    "paymentMethods": [{"paymentMethodId": "payment_method-0"}],
}  # fmt: skip


@st.composite
def supposed(draw: st.DrawFn) -> Callable[[Scene], list[tuple[Event, Event]]]:
    """Events that may still come about what a scene knows: as it takes them, and as a desk does."""
    choices = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=6))

    def make(scene: Scene) -> list[tuple[Event, Event]]:
        refunds = sorted(n.value for n in scene.first if n.kind == "refund_request")
        at = {"known_at": scene.told_at}
        found = []
        for kind, number in choices:
            refund = {"refund_id": refunds[number % len(refunds)]}
            order = {"order_id": "order-0"}
            event: Event
            match kind:
                case 0:
                    status = ("RECEIVED", "REJECTED", "LOST")[number % 3]
                    event = Return(status=status, **at, **(refund if number < 7 else order))
                case 1:
                    event = OrderUpdate(status="DELIVERED", delivered_at=CUTOFF - DAY_MS,
                                        **order, **at)  # fmt: skip
                case 2:
                    status = ("COMPLETED", "DECLINED")[number % 2]
                    event = RefundOutcome(status=status, **refund, **at)
                case 3:
                    verdict = ("REFUND_ABUSE", "NOT_REFUND_ABUSE")[number % 2]
                    event = Label(label=verdict, source="ANALYST", **refund, **at)
                case 4:
                    event = Transaction(transaction_id=f"t{number}", kind="CAPTURE", currency="GBP",
                                        amount_minor=number, **order, **at)  # fmt: skip
                case _:
                    key = ("customer", "payment_method", "order")[number % 3]
                    named = {f"{key}_id": f"{key}-0"}
                    said = {"dispute_id": f"d{number % 2}", "stage": "CHARGEBACK", **at}
                    event = Dispute(**said, **named)
                    found.append((Dispute(**said, **_pseudonymous(scene, key)), event))
                    continue
            found.append((event, event))
        return found

    return make


def _pseudonymous(scene: Scene, key: str) -> dict[str, str]:
    return {f"{key}_id": scene.record["keys"][key]}


@settings(max_examples=25)
@given(batches=histories(), coming=supposed(), days=st.sampled_from([0, 30]))
def test_supposed_events_are_what_they_would_be_if_they_came(
    batches: list[list[Event]], coming: Callable[[Scene], list[tuple[Event, Event]]], days: int
) -> None:
    with TemporaryDirectory() as folder:
        store = Store.open(f"sqlite:///{folder}/s.db", SECRET, clock="event")
        for batch in batches:
            with store.write() as tx:
                tx.append(e.model_copy(update={"known_at": START + e.known_at}) for e in batch)
        desk = make_desk(store, COMPLETE)
        asked = report(_ASKED)
        was = scene(desk, desk.decide(asked, lambda: CUTOFF, ME))
        assert was.cutoff == CUTOFF
        assert_made_again(was)
        pairs = coming(was)
        ours = was.decide_after(*(event for event, _ in pairs), days=days)
        with store.write() as tx:
            tx.append([event for _, event in pairs])
        at = was.told_at + 1 + days * DAY_MS
        request = next(e for e in asked.events(at) if isinstance(e, RefundRequest))
        reserved = store.reserved("order-0", besides="refund-0")
        assert_same(ours, desk.judge(request, Watch(math.inf), reserved).verdict)
        store.close()


@settings(max_examples=25)
@given(batches=histories(), coming=supposed())
def test_events_supposed_before_are_what_they_would_have_been(
    batches: list[list[Event]], coming: Callable[[Scene], list[tuple[Event, Event]]]
) -> None:
    with TemporaryDirectory() as folder:

        def decided(name: str, events: list[Event]) -> tuple[Store, Scene]:
            store = Store.open(f"sqlite:///{folder}/{name}.db", SECRET, clock="event")
            for batch in batches:
                with store.write() as tx:
                    tx.append(e.model_copy(update={"known_at": START + e.known_at}) for e in batch)
            with store.write() as tx:
                tx.append(events)
            desk = make_desk(store, COMPLETE)
            return store, scene(desk, desk.decide(report(_ASKED), lambda: CUTOFF, ME))

        without, was = decided("without", [])
        at = {"known_at": was.told_before}
        pairs = [
            tuple(event.model_copy(update=at) for event in pair)
            for pair in coming(was)
            if not (isinstance(pair[0], Dispute) and pair[0].order_id is None)  # they meet persons
        ]
        another, theirs = decided("with", [event for _, event in pairs])
        assert theirs.cutoff == was.cutoff
        assert_same(was.decide_had(*(event for event, _ in pairs)), theirs.decide())
        for store in (without, another):
            store.close()


# --- what a decision rested on -------------------------------------------------------------------


@pytest.mark.each_store
def test_a_decision_is_made_again_as_it_was_however_much_came_since(store: Store) -> None:
    ticks = Clock()
    desk = make_desk(store)
    for number in range(3):
        desk.decide(report(refund_id=f"r-{number}", amount=4_000), ticks, ME)
    answer = desk.decide(report(refund_id="r-9"), ticks, ME)
    was = scene(desk, answer)
    assert_made_again(was)
    with store.write() as tx:
        declined = RefundOutcome(refund_id="r-9", status="DECLINED", known_at=NOW + DAY_MS)
        tx.append([declined, Label(refund_id="r-1", label="REFUND_ABUSE", known_at=NOW + DAY_MS)])
    desk.decide(report(refund_id="r-10"), ticks, ME)
    assert_made_again(scene(desk, answer))
    assert scene(desk, answer).came("label", refund_id="r-1") is not None
    assert scene(desk, answer).before("label") == []


@pytest.mark.each_store
def test_what_others_held_of_the_order_then_is_replayed(store: Store) -> None:
    """One waits for a person, another asks for the rest; then the first is declined."""
    text = document("1", BALANCE, UNHELD, ABOVE, orders_complete=True)
    desk, ticks = make_desk(store, text), Clock()
    with store.write() as tx:
        tx.append([Transaction(transaction_id="t", kind="CAPTURE", order_id="o-1", currency="GBP",
                               amount_minor=9_000, known_at=NOW - DAY_MS)])  # fmt: skip
    first = {**BODY, "refund": {**BODY["refund"], "refundId": "r-1", "amount": 5_000}}
    second = {**BODY, "refund": {**BODY["refund"], "refundId": "r-2", "amount": 4_500}}
    desk.decide(report(first), ticks, ME)
    answer = desk.decide(report(second), ticks, ME)
    assert answer.body["data"]["action"] == "MANUAL_REVIEW"
    declined = RefundOutcome(refund_id="r-1", status="DECLINED", known_at=NOW + DAY_MS)
    for _ in range(2):  # as it is, and when the store knows better by now
        was = scene(desk, answer)
        assert [one[:5] for one in was.reserved] == [("r-1", "o-1", "GBP", 0, 5_000)]
        assert_made_again(was)
        supposed = declined.model_copy(update={"known_at": was.told_at})
        assert was.decide_after(supposed).decision.action == "ALLOW"
        assert was.decide_after().decision.action == "MANUAL_REVIEW"
        with store.write() as tx:
            tx.append([declined])


def test_a_smaller_amount_is_decided_as_if_it_had_been_asked(store: Store) -> None:
    desk, ticks = make_desk(store), Clock()
    was = scene(desk, desk.decide(report(amount=30_000), ticks, ME))
    again = make_desk(store)
    less = again.decide(report(refund_id="r-2", amount=9_000), lambda: NOW - DAY_MS, ME)
    found = was.decide(amount_minor=9_000)
    assert found.decision.action == less.body["data"]["action"]
    assert found.row["payable_minor"] == 9_000


def test_a_model_that_is_gone_leaves_its_score(store: Store) -> None:
    desk, ticks = make_desk(store), Clock()
    answer = desk.decide(report(), ticks, ME)
    desk.models.put("champion", None)
    was = scene(desk, answer)
    assert was.decide().decision.to_json() == was.record["decision"]
    assert was.decide().score.probability == was.record["probability"]


def test_what_cannot_be_made_again_says_why(store: Store) -> None:
    desk, ticks = make_desk(store), Clock()
    answer = desk.decide(report(), ticks, ME)
    decision = store.decision(answer.body["data"]["scoreId"])
    assert decision is not None
    made = {**decision.record["decision"], "policy_hash": "another"}
    with pytest.raises(NoSceneError) as missing:
        scene_of(store, replace(decision, record={**decision.record, "decision": made}),
                 CHAMPION, RATES)  # fmt: skip
    assert "policy" in missing.value.told(ENGLISH)
    with pytest.raises(NoSceneError) as missing:
        scene_of(store, replace(decision, record={**decision.record, "event_id": "another"}),
                 CHAMPION, RATES)  # fmt: skip
    assert "request" in missing.value.told(ENGLISH)


# --- the customer's own past ---------------------------------------------------------------------


@pytest.mark.each_store
def test_own_past_is_what_was_logged(store: Store) -> None:
    desk, ticks = make_desk(store), Clock()
    answers = [
        desk.decide(report(refund_id=f"r-{number}", amount=1_000 + number), ticks, ME)
        for number in range(4)
    ]
    logged = [store.decision(answer.body["data"]["scoreId"]) for answer in answers]
    last = logged[-1]
    assert last is not None
    names = [feature.name for feature in MODEL_FEATURES]
    expected = np.array(
        [[one.record["features"][name] for name in names] for one in logged[:-1] if one],
        np.float64,
    )
    found = own_past(store, last, RATES)
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(own_past(store, last, RATES, most=2), expected[1:], equal_nan=True)
    first = logged[0]
    assert first is not None
    assert own_past(store, first, RATES).shape == (0, len(names))


@pytest.mark.each_store
def test_a_customer_who_was_erased_is_decided_as_before(store: Store) -> None:
    desk, ticks = make_desk(store), Clock()
    desk.decide(report(refund_id="r-0"), ticks, ME)
    answer = desk.decide(report(refund_id="r-1"), ticks, ME)
    before = own_past(store, scene(desk, answer).decision, RATES)
    erase(store, NAMES["customer"], actor="ann", at=NOW + DAY_MS)
    was = scene(desk, answer)
    assert_made_again(was)
    assert len(was.before("refund_request")) == 1
    assert np.array_equal(own_past(store, was.decision, RATES), before, equal_nan=True)
