"""The timeline: all that is about the refund, what is nearest of the rest, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from features.events import (
    VOCABULARY,
    Dispute,
    Label,
    OrderUpdate,
    RefundOutcome,
    Return,
    Transaction,
)
from serving.explanation.happenings import happening
from serving.explanation.parts import LANES, Timeline
from serving.explanation.timeline import timeline_of
from serving.language import ENGLISH, Language
from serving.store import around
from serving.store.erasure import erase
from serving.store.store import Store
from tests.serving.explanation.stored import NOW, asked, day, decide, order, put

SECRET = b"a secret of 16 bytes or more"
HOSTILE = '<script>alert(1)</script>\u202e{amount}%s=1+1\n"\U0001f4a3' + "x" * 900

pytestmark = pytest.mark.each_store


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = Store.open(store_url, SECRET)
    yield opened
    opened.close()


def told(timeline: Timeline) -> list[str]:
    return [
        moment.title + (f" [{moment.detail}]" if moment.detail else "")
        for moment in timeline.moments
    ]


def history(store: Store) -> Any:
    """Ann's past, a decision on ``r``, and what came after it."""
    put(store, [
        order("o1", -30, item_count=1), order("o", -9, item_count=3),
        Transaction(transaction_id="t1", kind="CAPTURE", order_id="o", known_at=day(-9),
                    amount_minor=9_000, currency="GBP", success=True),
        OrderUpdate(order_id="o", status="DELIVERED", known_at=day(-5), delivered_at=day(-6)),
        asked("r1", -20, reason="ITEM_NOT_RECEIVED", order_id="o1"),
        RefundOutcome(refund_id="r1", status="COMPLETED", known_at=day(-19), amount_minor=4_000),
        Label(refund_id="r1", label="REFUND_ABUSE", source="INVESTIGATION", known_at=day(-3)),
        Label(customer_id="ann", label="UNREVIEWED", known_at=day(-2)),
        Dispute(dispute_id="d1", order_id="o1", known_at=day(-4), stage="CHARGEBACK",
                amount_minor=9_000, currency="GBP", reason="not received"),
        Return(refund_id="r", status="LABEL_CREATED", known_at=day(-1)),
        order("o-bob", -1, "bob"), asked("r-bob", -1, "bob"),
    ])  # fmt: skip
    decide(store, asked("r1", -20, reason="ITEM_NOT_RECEIVED", order_id="o1"),
           action="ALLOW", abuseProbability=0.08)  # fmt: skip
    decision = decide(store, asked("r", 0, reason="EMPTY_BOX", order_id="o", type="GOODWILL"))
    put(store, [
        Return(refund_id="r", status="RECEIVED", known_at=day(2)),
        RefundOutcome(refund_id="r", status="DECLINED", known_at=day(3), decline_reason="RISK"),
        order("o2", 4), Dispute(dispute_id="d1", order_id="o1", known_at=day(5), outcome="LOST"),
    ])  # fmt: skip
    decide(store, asked("r", 6, reason="EMPTY_BOX", order_id="o", amount_minor=3_000),
           action="PREVENT", source="RULE", abuseProbability=None, degraded=True)  # fmt: skip
    return decision


def test_it_tells_the_customers_past_and_what_came_after_in_words(store: Store) -> None:
    timeline = timeline_of(store, history(store), ENGLISH)
    assert told(timeline) == [
        "Ordered 1 item",
        "Asked 49.00 GBP back: item not received",
        "Decided: Allow (the model, 8.0 %)",
        "Refund paid",
        "Ordered 3 items",
        "Payment taken",
        "Order delivered [delivered on 22 May 2026]",
        "Chargeback opened [reason: not received]",
        "Confirmed as abuse by an investigation",
        "Set back to not reviewed [about the customer, not about one refund]",
        "Return label made",
        "Asked 49.00 GBP back: empty box [as goodwill]",
        "Decided: Manual review (the model, 62 %)",
        "Return received",
        "Refund declined as too risky",
        "Placed an order",
        "Dispute lost by the shop",
        "Asked 30.00 GBP back, in a later version of the request: empty box",
        "Decided again: Prevent (a rule) [without the model]",
    ]
    own = [one.title for one in timeline.moments if one.is_own]
    assert own == [told(timeline)[n].partition(" [")[0] for n in (4, 5, 6, 10, 11, 12, 13, 14, 17,
                                                                  18)]  # fmt: skip
    later = [one.is_later for one in timeline.moments]
    assert later == [False] * 13 + [True] * 6
    assert {one.lane for one in timeline.moments} == set(LANES)
    paid = next(one for one in timeline.moments if one.title == "Refund paid")
    assert (paid.amount_minor, paid.currency, paid.refund_id) == (4_000, "GBP", "r1")
    assert (timeline.left_out, timeline.left_out_later) == (0, 0)


def test_of_many_events_the_nearest_are_told_and_the_others_counted(store: Store) -> None:
    put(store, [order("o", -300)])
    put(store, [order(f"o{n}", -200 + n / 20) for n in range(2_000)])
    put(store, [asked(f"r{n}", -90 + n / 20) for n in range(1_000)])
    decision = decide(store, asked("r", 0, order_id="o"))
    put(store, [order(f"later{n}", 1 + n) for n in range(100)])
    timeline = timeline_of(store, decision, ENGLISH, most=30)
    titles = told(timeline)
    assert len(titles) == 30
    assert titles[0] == "Placed an order", "the decided refund's own, though long ago"
    assert timeline.moments[0].order_id == "o"
    assert sum(one.is_later for one in timeline.moments) == 9
    before = [one.refund_id for one in timeline.moments if not one.is_own and not one.is_later]
    assert before == [f"r{n}" for n in range(982, 1_000)]
    assert timeline.left_out == 3_000 - 18
    assert timeline.left_out_later == 100 - 9


def test_what_is_missing_on_one_side_is_made_up_for_on_the_other(store: Store) -> None:
    decision = decide(store, asked("r", 0))
    put(store, [order(f"o{n}", 1 + n) for n in range(40)])
    timeline = timeline_of(store, decision, ENGLISH, most=20)
    assert [one.order_id for one in timeline.moments[2:]] == [f"o{n}" for n in range(18)]
    assert (timeline.left_out, timeline.left_out_later) == (0, 22)


def test_whatever_is_left_out_is_counted_once(store: Store) -> None:
    put(store, [asked(f"r{n}", -90 + n) for n in range(20)])
    put(store, [RefundOutcome(refund_id=f"r{n}", status="COMPLETED", known_at=day(-60 + n))
                for n in range(20)])  # fmt: skip
    timeline = timeline_of(store, decide(store, asked("r", 0)), ENGLISH, most=12)
    assert {one.title for one in timeline.moments[:10]} == {"Refund paid"}
    assert {one.currency for one in timeline.moments[:10]} == {None}
    assert (len(timeline.moments), timeline.left_out) == (12, 30)


def test_an_ignored_refund_is_told_as_its_own_and_as_nobody_elses(store: Store) -> None:
    decision = decide(store, asked("r", 0, ignore=True))
    other = decide(store, asked("r2", 1))
    assert told(timeline_of(store, decision, ENGLISH))[:2] == [
        "Asked 49.00 GBP back [not counted: a mistake of the shop's own]",
        "Decided: Manual review (the model, 62 %)",
    ]
    assert {one.refund_id for one in timeline_of(store, other, ENGLISH).moments} == {"r2"}


def test_a_dispute_told_of_the_payment_method_alone_is_the_customers(store: Store) -> None:
    put(store, [
        order("o-bob", -9, "bob", payment_method_id="card"),
        Dispute(dispute_id="his", order_id="o-bob", known_at=day(-3), stage="CHARGEBACK"),
        Dispute(dispute_id="any", payment_method_id="card", known_at=day(-2), stage="CHARGEBACK"),
    ])  # fmt: skip
    decision = decide(store, asked("r", 0, payment_method_id="card"))
    disputes = [one for one in timeline_of(store, decision, ENGLISH).moments
                if one.lane == "disputes"]  # fmt: skip
    assert [one.detail for one in disputes] == ["told of the payment method alone"]


def test_what_is_told_at_the_very_cutoff_came_with_the_request_or_later(store: Store) -> None:
    put(store, [order("other", 0), order("o", 0)])
    timeline = timeline_of(store, decide(store, asked("r", 0, order_id="o")), ENGLISH)
    assert [(one.order_id, one.is_later) for one in timeline.moments[:2]] == [
        ("other", True),
        ("o", False),
    ]


def test_of_one_instant_they_stand_as_they_came(store: Store) -> None:
    """Whatever their ids: the first version first, and each decision behind its request."""
    for number in range(1, 7):
        put(store, [order("o", 0, item_count=number)])
        action = "ALLOW" if number % 2 else "PREVENT"
        made = decide(store, asked("r", 0, order_id="o", amount_minor=100 * number),
                      score_id=f"s-{9 - number}", action=action)  # fmt: skip
    decide(store, asked("r", 0, order_id="o", amount_minor=100), score_id="s-0")
    titles = [one.title for one in timeline_of(store, made, ENGLISH).moments]
    later = [
        ("The order was reported again, with other fields",
         f"Asked {number}.00 GBP back, in a later version of the request",
         f"Decided again: {'Allow' if number % 2 else 'Prevent'} (the model, 62 %)")
        for number in range(2, 7)
    ]  # fmt: skip
    assert titles == [
        "Ordered 1 item", "Asked 1.00 GBP back", "Decided: Allow (the model, 62 %)",
        *(title for three in later for title in three),
        "Decided again: Manual review (the model, 62 %)",
    ]  # fmt: skip


def test_a_decision_older_than_those_that_are_read_stands_where_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [decide(store, asked("r", days, amount_minor=100 + days)) for days in range(4)]
    monkeypatch.setattr(around, "_MOST_DECIDED", 2)
    moments = timeline_of(store, made[0], ENGLISH).moments
    told_of = [(one.at, one.title[:13]) for one in moments if one.lane == "decisions"]
    assert told_of == [
        (day(0), "Decided: Manu"), (day(2), "Decided again"), (day(3), "Decided again")
    ]  # fmt: skip


def test_after_an_erasure_it_is_told_of_the_stranger(store: Store) -> None:
    put(store, [asked("r0", -5, reason="ask Ann Lee of 12 High Street")])
    decision = history(store)
    before = timeline_of(store, decision, ENGLISH)
    erase(store, "ann", actor="eve", at=NOW)
    kept = store.decision(decision.score_id)
    assert kept is not None
    after = timeline_of(store, kept, ENGLISH)
    assert [one.at for one in after.moments] == [one.at for one in before.moments]
    assert "Asked 49.00 GBP back: a value that was erased" in told(after)
    assert "Chargeback opened [a value that was erased]" in told(after)
    assert "Ann Lee" not in repr(after)


def test_words_of_others_stand_as_they_are(store: Store) -> None:
    put(store, [
        order(HOSTILE[:200], -1),
        Dispute(dispute_id="d", order_id=HOSTILE[:200], known_at=day(-1), stage=HOSTILE,
                outcome=HOSTILE, reason=HOSTILE),
    ])  # fmt: skip
    request = asked(HOSTILE[:200], 0, reason=HOSTILE, type=HOSTILE, initiated_by=HOSTILE,
                    order_id=HOSTILE[:200])  # fmt: skip
    decision = decide(store, request, action=HOSTILE, source=HOSTILE)
    put(store, [RefundOutcome(refund_id=HOSTILE[:200], status="DECLINED", known_at=day(1),
                              decline_reason=HOSTILE)])  # fmt: skip
    outside = f"a value outside the list (“{HOSTILE}”)"
    assert told(timeline_of(store, decision, ENGLISH)) == [
        "Placed an order",
        f"Dispute ended: {outside} [Dispute: {outside}; reason: {HOSTILE}]",
        f"Asked 49.00 GBP back: {outside} [{outside}; {outside}]",
        f"Decided: {HOSTILE} ({HOSTILE}, 62 %)",
        f"Refund declined: {outside}",
    ]


class Wrapped(Language):
    """Marks whatever comes from the catalogue."""

    def say(self, text: str, /, **values: object) -> str:
        return f"⟦{super().say(text, **values)}⟧"

    def say_of(self, count: float, one: str, many: str, /, **values: object) -> str:
        return f"⟦{super().say_of(count, one, many, **values)}⟧"


def test_nothing_is_said_that_is_not_in_the_catalogue(store: Store) -> None:
    timeline = timeline_of(store, history(store), Wrapped())
    said = [one.title for one in timeline.moments]
    said += [part for one in timeline.moments if one.detail for part in one.detail.split("; ")]
    assert all(text.startswith("⟦") and text.endswith("⟧") for text in said)


def test_it_stands_without_the_request_that_retention_took(store: Store) -> None:
    decision = decide(store, asked("r", 0, order_id="o"))
    record = {**decision.record, "event_id": "gone"}
    assert len(timeline_of(store, replace(decision, record=record), ENGLISH).moments) == 2


WORDS = [
    ("refund_request", "reason"), ("refund_request", "type"), ("refund_request", "initiated_by"),
    ("refund_outcome", "decline_reason"), ("dispute", "stage"), ("dispute", "outcome"),
]  # fmt: skip


@pytest.mark.parametrize(("event_type", "column"), WORDS)
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_every_code_has_words_of_its_own(event_type: str, column: str, store: Store) -> None:
    base = {"amount_minor": 1, "currency": "GBP", "status": "DECLINED"}
    said = {
        code: happening(event_type, {**base, column: code}, ENGLISH)[:4]
        for code in VOCABULARY[column]
    }
    assert len({repr(one) for one in said.values()}) == len(said)
    assert "outside the list" not in repr(said)
    assert not any(code in repr(one) for code, one in said.items() if "_" in code)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_every_status_has_words_of_its_own(store: Store) -> None:
    for event_type, column, codes in (
        ("order_update", "status", VOCABULARY["order_status"]),
        ("refund_outcome", "status", VOCABULARY["outcome_status"]),
        ("return", "status", VOCABULARY["return_status"]),
        ("transaction", "kind", VOCABULARY["kind"]),
        ("label", "label", VOCABULARY["label"]),
    ):
        base = {"amount_minor": 1, "currency": "GBP", "known_at": NOW}
        titles = {happening(event_type, {**base, column: code}, ENGLISH).title for code in codes}
        assert len(titles) == len(codes)
        assert "outside the list" not in repr(titles)
