"""Linked accounts: counted as features count them, the most telling first, bounded."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from features.catalog import PLAN
from features.engine import Past, compute_one
from features.events import ENTITIES, Event, Label, RefundOutcome, RefundRequest
from features.money import Rates
from serving.explanation.links import POOL, links_of
from serving.language import ENGLISH
from serving.scorer import keys_of
from serving.store.erasure import erase
from serving.store.store import Store
from tests.serving.explanation.stored import NOW, asked, day, decide, order, put

SECRET = b"a secret of 16 bytes or more"
SHARED = {"device_id": "phone", "payment_method_id": "card", "ip": "192.0.2.1",
          "email": "ann@example.org", "address_id": "home"}  # fmt: skip

pytestmark = pytest.mark.each_store


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = Store.open(store_url, SECRET)
    yield opened
    opened.close()


def test_the_most_telling_accounts_come_first_with_what_is_known_of_them(store: Store) -> None:
    put(store, [
        order("o-ann", -40, **SHARED),
        # Bob shares two hubs, and asked for refunds with one of them.
        order("o-bob", -30, "bob", device_id="phone", payment_method_id="card"),
        asked("r-bob1", -20, "bob", device_id="phone"),
        asked("r-bob2", -10, "bob", device_id="phone"),
        RefundOutcome(refund_id="r-bob1", status="DECLINED", known_at=day(-19)),
        RefundOutcome(refund_id="r-bob2", status="DECLINED", known_at=day(-9)),
        RefundOutcome(refund_id="r-bob2", status="COMPLETED", known_at=day(-8)),
        # Cora was confirmed on another device, Dan was cleared since, Eve is confirmed too late.
        order("o-cora", -300, "cora", ip="192.0.2.1"),
        asked("r-cora", -200, "cora", device_id="tablet"),
        Label(refund_id="r-cora", label="REFUND_ABUSE", known_at=day(-100)),
        Label(refund_id="r-cora", label="REFUND_ABUSE", source="ANALYST", known_at=day(-90)),
        Label(customer_id="cora", label="REFUND_ABUSE", known_at=day(-80)),
        asked("r-dan", -50, "dan", device_id="phone", payment_method_id="card", ip="192.0.2.1"),
        Label(refund_id="r-dan", label="REFUND_ABUSE", known_at=day(-40)),
        Label(refund_id="r-dan", label="NOT_REFUND_ABUSE", known_at=day(-30)),
        asked("r-eve", -3, "eve", device_id="phone"),
        # Too old, and too late, to be linked at all.
        order("o-old", -366, "old", device_id="phone"),
    ])  # fmt: skip
    decision = decide(store, asked("r", 0, order_id="o-ann", **SHARED))
    put(store, [
        Label(refund_id="r-eve", label="REFUND_ABUSE", known_at=day(1)),
        order("o-late", 1, "late", device_id="phone"),
    ])  # fmt: skip
    links = links_of(store, decision, ENGLISH)
    mac = store.identifiers.mac
    assert links.customer == mac("customer", "ann")
    assert [(hub.kind, hub.name, hub.accounts) for hub in links.hubs] == [
        ("device", "device", 4), ("payment_method", "payment method", 3),
        ("address", "address", 1), ("ip", "IP address", 3), ("email", "e-mail address", 1),
    ]  # fmt: skip
    assert [hub.value for hub in links.hubs] == [
        mac(kind, SHARED[column])
        for kind, column in (("device", "device_id"), ("payment_method", "payment_method_id"),
                             ("address", "address_id"), ("ip", "ip"), ("email", "email"))
    ]  # fmt: skip
    kind_of = {hub.value: hub.kind for hub in links.hubs}
    assert [
        (one.customer, [kind_of[value] for value in one.through], one.orders, one.refunds,
         one.refused, one.confirmed_abuse, one.last_seen)
        for one in links.accounts
    ] == [
        (mac("customer", "cora"), ["ip"], 1, 0, 0, 2, day(-300)),
        (mac("customer", "dan"), ["device", "payment_method", "ip"], 0, 1, 0, 0, day(-50)),
        (mac("customer", "bob"), ["device", "payment_method"], 1, 2, 1, 0, day(-10)),
        (mac("customer", "eve"), ["device"], 0, 1, 0, 0, day(-3)),
    ]  # fmt: skip
    assert links.left_out == 0


def features_of(store: Store, request: RefundRequest) -> dict[str, float]:
    read = store.read(keys_of(request), request.known_at, tuple(PLAN.reads))
    past = Past(read.rows, read.pseudonyms, read.first_seen)
    return dict(compute_one(PLAN, request, past, Rates("GBP")))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("make", "feature"),
    [(order, "order_customer_distinct_by_{}_365d"), (asked, "customer_distinct_by_{}_365d")],
)
def test_accounts_are_counted_as_the_catalog_counts_them(
    store: Store, make: Callable[..., Event], feature: str, seed: int
) -> None:
    drawn = random.Random(seed)
    own = {name: f"{name}-0" for name in SHARED} | {"ip": "192.0.2.10"}
    put(store, [make("own", -1, **own)])
    put(store, [
        make(f"n{n}", -1 - drawn.random() * 400, f"c{drawn.randrange(25)}",
             **{name: own[name][:-1] + drawn.choice("0123") for name in SHARED
                if drawn.random() < 0.8})
        for n in range(120)
    ])  # fmt: skip
    request = asked("r", 0, **own)
    row = features_of(store, request)
    links = links_of(store, decide(store, request), ENGLISH, most=POOL)
    counts = {hub.kind: hub.accounts for hub in links.hubs}
    assert counts == {kind: row[feature.format(kind)] for kind in ENTITIES[1:]}
    assert min(counts.values()) > 3
    assert counts == {
        hub.kind: 1 + sum(hub.value in one.through for one in links.accounts) for hub in links.hubs
    }


def test_an_office_of_1500_accounts_is_told_of_by_its_most_telling_ones(store: Store) -> None:
    office = {"ip": "198.51.100.7"}
    put(store, [order(f"o{n}", -200 + n / 100, f"c{n}", **office) for n in range(1_500)])
    put(store, [asked(f"r{n}", -100 + n / 100, f"c{n}", **office) for n in range(0, 1_500, 2)])
    put(store, [Label(refund_id="r200", label="REFUND_ABUSE", known_at=day(-1))])
    decision = decide(store, asked("r", 0, device_id="desk", **office))
    links = links_of(store, decision, ENGLISH, most=8)
    assert [hub.accounts for hub in links.hubs] == [1, 1_251]
    assert len(links.accounts) == 8
    assert links.left_out == 1_250 - 8
    first = links.accounts[0]
    assert first.customer == store.identifiers.mac("customer", "c200")
    assert (first.confirmed_abuse, first.refunds) == (1, 1)


def test_no_more_accounts_are_left_out_than_are_looked_into(store: Store) -> None:
    put(store, [order(f"o{n}", -1, f"c{n}", ip="192.0.2.9") for n in range(POOL + 5)])
    links = links_of(store, decide(store, asked("r", 0, ip="192.0.2.9")), ENGLISH, most=POOL + 5)
    assert (len(links.accounts), links.left_out) == (POOL, 5)


def test_a_request_of_which_nothing_is_known_is_linked_to_nobody(store: Store) -> None:
    put(store, [order("o", -1, "bob", device_id="phone")])
    links = links_of(store, decide(store, asked("r", 0)), ENGLISH)
    assert (links.hubs, links.accounts, links.left_out) == ((), (), 0)


def test_the_same_refund_asked_by_another_account_links_nobody(store: Store) -> None:
    put(store, [asked("r", -1, "bob", device_id="phone")])
    links = links_of(store, decide(store, asked("r", 0, device_id="phone")), ENGLISH)
    assert [hub.accounts for hub in links.hubs] == [1]


def test_after_erasures_the_links_stand_between_strangers(store: Store) -> None:
    put(store, [order("o-bob", -9, "bob", device_id="phone", payment_method_id="his"),
                asked("r-bob", -5, "bob", device_id="phone"),
                Label(refund_id="r-bob", label="REFUND_ABUSE", known_at=day(-3))])  # fmt: skip
    decision = decide(store, asked("r", 0, device_id="phone", payment_method_id="hers"))
    before = links_of(store, decision, ENGLISH)
    for who in ("bob", "ann"):
        erase(store, who, actor="eve", at=NOW)
        kept = store.decision(decision.score_id)
        assert kept is not None
        after = links_of(store, kept, ENGLISH)
        assert [hub.accounts for hub in after.hubs] == [hub.accounts for hub in before.hubs]
        (linked,) = after.accounts
        assert (linked.orders, linked.refunds, linked.confirmed_abuse) == (1, 1, 1)
        assert linked.customer != before.accounts[0].customer
    assert after.customer != before.customer
