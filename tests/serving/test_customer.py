"""All that is known of a customer: told once each, in time order, as a look at every event says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from features.events import (
    Dispute,
    Event,
    Label,
    OrderUpdate,
    RefundOutcome,
    Return,
    Transaction,
)
from features.money import DAY_MS, Rates
from serving import customer as module
from serving.customer import CustomerFile, Place, customer_of
from serving.explanation import pictures
from serving.explanation.parts import Moment
from serving.language import ENGLISH
from serving.listing import put_known, take_off_known
from serving.revealing import reveal
from serving.store.audit import AuditEntry
from serving.store.erasure import erase
from serving.store.reviews import Act
from serving.store.schema import attachments
from serving.store.store import Store
from serving.wire import InvalidRequest
from tests.serving.explanation.stored import NOW, asked, day, decide, order, put

SECRET = b"a secret of 16 bytes or more"
RATES = Rates("GBP")


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = Store.open(store_url, SECRET)
    yield opened
    opened.close()


def of(store: Store, customer: str = "ann", at: int = NOW, **more: Any) -> CustomerFile:
    return customer_of(store, store.identifiers.mac("customer", customer), RATES, at, ENGLISH,
                       **more)  # fmt: skip


def every_moment(store: Store, customer: str) -> list[Moment]:
    """The whole history, page by page, the oldest first."""
    found: list[Moment] = []
    before: Place | None = None
    while True:
        page = of(store, customer, before=before).history
        found[:0] = page.moments
        if (before := page.older) is None:
            return found


@pytest.mark.each_store
def test_what_there_is_of_a_customer_is_told(store: Store) -> None:
    put(store, [
        order("o1", -40, device_id="phone", email="ann@example.org", registered_at=day(-400)),
        order("o2", -30, device_id="phone", currency="EUR", amount_minor=5_000),
        OrderUpdate(order_id="o1", status="DELIVERED", known_at=day(-35)),
        asked("r1", -20, order_id="o1", amount_minor=4_000, non_refundable_minor=500),
        RefundOutcome(refund_id="r1", status="COMPLETED", amount_minor=3_000, known_at=day(-18)),
        Transaction(transaction_id="t", refund_id="r1", kind="REFUND", amount_minor=3_000,
                    currency="GBP", known_at=day(-18)),
        Return(refund_id="r1", status="RECEIVED", known_at=day(-17)),
        Label(refund_id="r1", label="REFUND_ABUSE", source="ANALYST", known_at=day(-10)),
        Dispute(dispute_id="d", order_id="o1", stage="CHARGEBACK", known_at=day(-9)),
        Dispute(dispute_id="d", order_id="o1", outcome="LOST", known_at=day(-8)),
        order("o-bob", -5, "bob", device_id="phone"),
        Label(customer_id="bob", label="REFUND_ABUSE", known_at=day(-4)),
    ])  # fmt: skip
    decide(store, asked("r2", -3, order_id="o2", amount_minor=700, currency="EUR"), "s2")
    with store.database.write() as connection:
        store.reviews.add_act(connection, Act("r2", "s2", day(-2), "information_requested", "Mia",
                                              "Please send a photo."))  # fmt: skip
        connection.execute(attachments.insert().values(
            id="f", refund_id="r2", name="photo.png", kind="image/png", size_bytes=3, sha256="0",
            author="Mia", added_at=day(-1), content=b"x",
        ))  # fmt: skip
    put_known(store, "block", "customer", store.identifiers.mac("customer", "ann"), "ring of June",
              author="Mia", at=NOW - 5)  # fmt: skip
    told = of(store)
    assert [f"{one.title} [{one.detail}]".removesuffix(" []") for one in told.history.moments] == [
        "Placed an order",
        "Order delivered",
        "Placed an order",
        "Asked 40.00 GBP back [5.00 GBP of it is kept by the shop's terms]",
        "Money paid back",
        "Refund paid",
        "Return received",
        "Confirmed as abuse by an analyst",
        "Chargeback opened",
        "Dispute lost by the shop",
        "Asked 7.00 EUR back",
        "Decided: Manual review (the model, 62 %)",
        "Asked for information [by Mia; Please send a photo.]",
        "A file was attached: photo.png [by Mia]",
        "Put on the block list: ring of June [by Mia]",
    ]
    f = told.figures
    assert (f.orders, f.orders_refunded, f.refunds, f.refund_rate) == (2, 2, 2, 1.0)
    assert (f.first_seen, f.registered_at) == (day(-40), day(-400))
    assert [(s.currency, s.asked_minor, s.paid_minor, s.refused_minor) for s in f.sums] == [
        ("EUR", 700, 0, 0), ("GBP", 3_500, 3_000, 0)]  # fmt: skip
    assert f.asked_base_minor is None, "there is no rate for euros"
    assert (f.disputes, f.chargebacks, f.chargebacks_lost) == (1, 1, 1)
    assert (f.confirmed_abuse, f.cleared) == (1, 0)
    assert [(one.refund.refund_id, one.standing, one.is_abuse) for one in told.refunds] == [
        ("r2", "promised", None), ("r1", "paid", True)]  # fmt: skip
    assert told.refunds[0].answer is not None
    assert [(u.kind, u.uses, u.first_at, u.last_at, u.others) for u in told.used] == [
        ("device", 2, day(-40), day(-30), 1), ("email", 1, day(-40), day(-40), 0)]  # fmt: skip
    [linked] = told.links.accounts
    assert (linked.customer, linked.confirmed_abuse) == (
        store.identifiers.mac("customer", "bob"),
        1,
    )
    assert [entry.list for entry in told.listed] == ["block"]
    assert (told.is_known, told.erased_at) == (True, None)


def a_past(seed: int) -> list[Event]:
    """Orders, refunds and what is told of them, of a few customers, in any order of arrival."""
    drawn = random.Random(seed)
    found: list[Event] = []
    for n in range(40):
        customer, order_id = f"c{drawn.randrange(3)}", f"o{drawn.randrange(15)}"
        at = drawn.random() * 100 - 100
        match drawn.randrange(8):
            case 0 | 1:
                found.append(order(order_id, at, customer))
            case 2 | 3:
                found.append(asked(f"r{drawn.randrange(12)}", at, customer, order_id=order_id,
                                   ignore=drawn.random() < 0.2 or None))  # fmt: skip
            case 4:
                found.append(OrderUpdate(order_id=order_id, status="SHIPPED", known_at=day(at)))
            case 5:
                found.append(RefundOutcome(refund_id=f"r{drawn.randrange(12)}",
                                           status="COMPLETED", known_at=day(at)))  # fmt: skip
            case 6:
                found.append(Label(refund_id=f"r{drawn.randrange(12)}", label="REFUND_ABUSE",
                                   known_at=day(at)))  # fmt: skip
            case _:
                found.append(Dispute(dispute_id=f"d{n}", order_id=order_id, known_at=day(at)))
    return found


def expected_of(store: Store, customer: str) -> set[str]:
    """The events of a customer, by a look at all: what they first told of, and what names that.

    But for requests that are not to be counted, which stand in no history.
    """
    every = list(store.events())
    first: dict[Any, Any] = {}
    for event in every:
        name = event.own_name()
        if name and (name not in first or event.is_before(first[name])):
            first[name] = event
    found = set()
    for event in every:
        own, name = event.own_name(), event.names()
        mine = event.payload.get("customer_id") == customer
        if own is not None:
            is_counted = not first[own].payload.get("ignore")
            if is_counted and first[own].payload["customer_id"] == customer:
                found.add(event.event_id)
        elif mine or (name in first and first[name].payload["customer_id"] == customer):
            found.add(event.event_id)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_the_history_is_what_a_look_at_every_event_says(
    store: Store, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 7)
    put(store, a_past(seed))
    for name in ("c0", "c1", "c2"):
        customer = store.identifiers.mac("customer", name)
        with store.database.read() as connection:
            look = module._Look(store, connection, customer, ENGLISH)
            f = look.figures(RATES)
        assert module.brief_of(store, customer) == (
            f.orders, f.orders_refunded, f.by_standing.get("waiting", 0), f.confirmed_abuse
        )  # fmt: skip
        told = {place.id for place in look.places}
        assert expected_of(store, customer) <= told
        expected = expected_of(store, customer)
        for event in store.events():  # nothing of another is among them
            if event.event_id in told and "customer_id" in event.payload:
                assert event.payload["customer_id"] == customer or event.event_id in expected
        moments = every_moment(store, name)
        assert len(moments) == len(look.places)
        assert [one.at for one in moments] == sorted(one.at for one in moments)


def test_what_stands_in_no_history_is_told_where_it_is_the_customers(store: Store) -> None:
    put(store, [
        order("o-bob", -30, "bob"),
        OrderUpdate(order_id="o-bob", status="SHIPPED", known_at=day(-29)),
        order("o1", -20, payment_method_id="card"),
        asked("r-no", -10, order_id="o1", ignore=True),
        asked("r1", -9, order_id="o-bob", amount_minor=100),
        asked("r1", -8, order_id="o-bob", amount_minor=200),
        asked("r-bob", -7, "bob", order_id="o1"),
        Dispute(dispute_id="d", payment_method_id="card", stage="CHARGEBACK", known_at=day(-6)),
    ])  # fmt: skip
    told = of(store)
    assert [f"{one.title} [{one.detail}]".removesuffix(" []") for one in told.history.moments] == [
        "Placed an order",
        "Asked 49.00 GBP back [not counted: a mistake of the shop's own]",
        "Asked 1.00 GBP back",
        "Asked 2.00 GBP back, in a later version of the request",
        "Chargeback opened [told of the payment method alone]",
    ]
    assert (told.figures.refunds, told.figures.orders_refunded) == (1, 0)
    assert {one.refund.refund_id for one in told.refunds} == {"r1", "r-no"}


def test_by_the_clock_of_events_a_year_is_that_before_the_last_one(tmp_path: Path) -> None:
    held = Store.open(f"sqlite:///{tmp_path}/event.db", SECRET, clock="event")
    put(held, [order("o1", -3_000, device_id="d"), order("o2", -2_900, "bob", device_id="d")])
    for name in ("ann", "bob"):
        put_known(held, "allow", "customer", held.identifiers.mac("customer", name), "known",
                  author="Mia", at=NOW)  # fmt: skip
    assert [len(of(held, name).links.accounts) for name in ("ann", "bob")] == [0, 1]
    held.close()


def test_a_long_history_is_told_in_pages(store: Store) -> None:
    put(store, [order(f"o{n}", n / 100, device_id=f"d{n}") for n in range(300)])
    put(store, [asked(f"r{n}", n / 100, order_id=f"o{n}") for n in range(300)])
    told = of(store, at=day(4))
    assert (len(told.history.moments), told.history.total, told.history.is_cut) == (200, 600, False)
    assert (told.figures.refunds, len(told.refunds)) == (300, module.PAGE)
    assert told.refunds[0].refund.refund_id == "r299"
    assert (len(told.used), told.used_left_out) == (module.MOST_USED, 300 - module.MOST_USED)
    older = of(store, at=day(4), before=told.history.older).history
    assert older.moments[-1].order_id == "o199"
    assert Counter(one.lane for one in every_moment(store, "ann")) == {
        "orders": 300,
        "refunds": 300,
    }
    drawn = pictures.refunds(told, "GBP", ENGLISH)
    assert drawn is not None and drawn.count('class="mark') == module.PAGE


def test_of_one_who_is_not_there_nothing_is_known(store: Store) -> None:
    told = of(store, "nobody")
    assert not told.is_known
    assert told.figures.refund_rate is None
    assert pictures.history(told, ENGLISH) is pictures.graph(told, ENGLISH) is None


def test_whose_page_it_is_once_they_were_erased(store: Store) -> None:
    put(store, [order("o1", -9), asked("r1", -5, order_id="o1", email="ann@example.org")])
    erased = erase(store, "ann", actor="a test", at=NOW)
    assert not of(store).is_known
    left = customer_of(store, erased.successor, RATES, NOW, ENGLISH)
    assert (left.erased_at, left.figures.refunds) == (NOW, 1)
    [email] = left.used
    assert reveal(store, [("customer", erased.successor), ("email", email.pseudonym)],
                  "somebody asked", about=("customer", erased.successor), actor="Mia",
                  at=NOW) == {}  # fmt: skip
    with pytest.raises(InvalidRequest, match="id: must be of an entity whose original is kept"):
        put_known(store, "block", "email", email.pseudonym, "x", author="Mia", at=NOW)


@pytest.mark.parametrize("text", ["", "5", "a-1-x", "1--x"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="before: must be a place in the history"):
        Place.of(text)


# --- originals -----------------------------------------------------------------------------------


def audited(store: Store) -> list[AuditEntry]:
    return [e for e in store.audit_about("customer") if e.action == "identifiers_revealed"]


def test_originals_are_shown_after_that_they_are_is_audited(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, [order("o1", -9, device_id="phone")])
    ann, phone = (store.identifiers.mac(*one) for one in (("customer", "ann"), ("device", "phone")))
    seen: list[int] = []
    shown = store.reveal

    def counting(kind: str, pseudonyms: Any) -> dict[str, str]:
        seen.append(len(audited(store)))
        return shown(kind, pseudonyms)

    monkeypatch.setattr(store, "reveal", counting)
    assert reveal(store, [("device", phone), ("customer", ann)], " She asked what we hold. ",
                  about=("customer", ann), actor="Mia", at=5, via="account:1") == {
        ("customer", ann): "ann", ("device", phone): "phone"}  # fmt: skip
    assert set(seen) == {1}, "audited before anything is shown"
    [entry] = audited(store)
    assert (entry.actor, entry.at) == ("account:1", 5)
    assert entry.content == {"identifiers": 2, "kinds": {"customer": 1, "device": 1}}
    assert entry.personal == {"by": "Mia", "reason": "She asked what we hold.", "customer": ann}
    erase(store, "ann", actor="a test", at=NOW)
    assert audited(store)[0].personal is None


@pytest.mark.parametrize(
    "reason", ["", "short", " " * 20, "1234567890", "a\u202ebcdefghijk", "x" * 301]
)
def test_without_a_reason_nothing_is_shown_or_audited(store: Store, reason: str) -> None:
    put(store, [order("o1", -9)])
    ann = ("customer", store.identifiers.mac("customer", "ann"))
    with pytest.raises(InvalidRequest, match="reason: must be 10 to 300 characters"):
        reveal(store, [ann], reason, about=ann, actor="Mia", at=5)
    assert not audited(store)


def test_whom_a_page_shows_is_listed_by_pseudonym(store: Store) -> None:
    put(store, [order("o1", -9, address_id="an id with spaces")])
    home = store.identifiers.mac("address", "an id with spaces")
    entry = put_known(store, "block", "address", home, " drop ", NOW + DAY_MS, author="Mia", at=NOW)
    assert (entry.value, entry.reason, entry.author) == (home, "drop", "Mia")
    assert store.matching_lists({"address": "an id with spaces"}, NOW)
    with pytest.raises(InvalidRequest, match=r"reason: must be 1 to 300.*expires_at: must be"):
        put_known(store, "block", "address", home, " ", NOW, author="Mia", at=NOW)
    assert take_off_known(store, "block", home, actor="Mia", at=NOW)
    assert not take_off_known(store, "block", home, actor="Mia", at=NOW)
    actions = [e.action for e in store.audit_about("list:block")]
    assert actions == ["listed", "unlisted"]
