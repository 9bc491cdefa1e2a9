"""Finding: by one text exactly what bears it, as a look at every event says; cheap and bounded."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.events import COLUMN_OF, ENTITIES, RefundOutcome, Transaction
from serving import finding
from serving.finding import MOST_FOUND, MOST_USES, find, recall, uses_of
from serving.store.erasure import erase
from serving.store.indexing import Name, StoredEvent
from serving.store.lists import NewEntry
from serving.store.store import Store
from serving.wire import InvalidRequest
from tests.serving.explanation.stored import NOW, asked, day, decide, order, put

SECRET = b"a secret of 16 bytes or more"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = Store.open(store_url, SECRET)
    yield opened
    opened.close()


def filled(store: Store) -> list[str]:
    """Put a small past in; returns all the originals there are."""
    drawn = random.Random(5)
    originals = {"device": ["d1", "d2", "a1"], "payment_method": ["p1", "a1"], "ip": ["192.0.2.1"],
                 "email": ["ann@example.org", "b@example.org"], "address": ["h1"]}  # fmt: skip
    for n in range(30):
        used = {COLUMN_OF[kind]: drawn.choice(every) for kind, every in originals.items()}
        customer, order_id = f"c{drawn.randrange(6)}", f"a{drawn.randrange(40)}"
        put(store, [order(order_id, -50 + n, customer, **used)])
        request = asked(f"{drawn.choice('ar')}{n}", -20 + n, customer, order_id=order_id, **used)
        if n % 3:
            put(store, [request])
        else:
            decide(store, request, f"a{n}" if n % 2 else None)
    put(store, [RefundOutcome(refund_id="a-told", status="DECLINED", known_at=day(1)),
                Transaction(order_id="a-named", transaction_id="t", kind="CAPTURE",
                            amount_minor=5, currency="GBP", known_at=day(1))])  # fmt: skip
    with store.write() as tx:
        tx.put_many_on_list("block", [NewEntry("device", "never-seen", "x")], author="Ann", at=NOW)
    return [*(f"c{n}" for n in range(6)), "never-seen",
            *(each for every in originals.values() for each in every)]  # fmt: skip


def named(store: Store) -> Mapping[str, set[str]]:
    """What there is by kind, from every event, decision and list entry."""
    found: dict[str, set[str]] = {
        kind: set() for kind in ("refund", "order", "decision", *ENTITIES)
    }
    for event in store.events():
        for kind in ("refund", "order", *ENTITIES):
            if (value := event.payload.get(COLUMN_OF[kind])) is not None:
                found[kind].add(value)
    found["decision"] = {decision.score_id for decision in store.decisions()}
    for name in ("block", "allow"):
        for entry in store.list_entries(name):
            found[entry.entity].add(entry.value)
    return found


@pytest.mark.each_store
def test_exactly_what_bears_a_text_is_found(store: Store) -> None:
    originals = filled(store)
    there = named(store)
    ids = sorted(there["refund"] | there["order"] | there["decision"])
    pseudonyms = sorted(value for kind in ENTITIES for value in there[kind])
    texts = st.one_of(
        st.sampled_from([*ids, *originals, *pseudonyms]),
        st.sampled_from(ids).map(lambda each: each[:1]),
        st.sampled_from(originals).map(lambda each: f" {each.upper()}\n"),
        st.text(min_size=1, max_size=30),
    )

    @settings(max_examples=60, deadline=None,
              suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
    @given(texts)
    def check(text: str) -> None:
        wanted = text.strip()
        try:
            found = find(store, text, at=NOW)
        except InvalidRequest:
            assert not wanted or "\0" in wanted or any("\ud800" <= c <= "\udfff" for c in wanted)
            return
        by_kind: dict[str, list[str]] = {}
        for kind, value in found.references:
            by_kind.setdefault(kind, []).append(value)
        for kind in ("refund", "order"):
            begun = ([each for each in there[kind] if each.startswith(spelled)]
                     for spelled in (wanted, wanted.lower(), wanted.upper()))  # fmt: skip
            expected = sorted(next(filter(None, begun), []))
            assert by_kind.get(kind, []) == expected[:MOST_FOUND]
        assert by_kind.get("decision", []) == [wanted] * (wanted in there["decision"])
        for kind in ENTITIES:
            spelled = {wanted, text, wanted.lower() if kind in ("email", "ip") else wanted}
            expected = sorted(there[kind] & ({store.identifiers.mac(kind, s) for s in spelled}
                                             | {wanted}))  # fmt: skip
            assert by_kind.get(kind, []) == expected, kind
        assert recall(store, found.references).references == found.references
        if text in originals:
            assert text not in [v for k, v in found.references if k in ENTITIES]

    check()


def test_a_prefix_of_many_says_that_there_are_more(store: Store) -> None:
    put(store, [asked(f"r{n:02}", n, order_id=f"o{n:02}") for n in range(25)])
    found = find(store, "r", at=NOW)
    assert [one.refund_id for one in found.refunds] == [f"r{n:02}" for n in range(20)]
    assert (found.more_refunds, found.more_orders) == (True, False)
    assert find(store, "o", at=NOW).more_orders
    assert find(store, "r24", at=NOW).sole("r24") == ("refund", "r24")


def test_what_a_finding_leads_to_stands_beside_it(store: Store) -> None:
    put(store, [order("o1", -9, "bob")])
    decide(store, asked("r1", 0, "bob", order_id="o1"), "5c0de")
    found = find(store, "o1", at=NOW)
    assert [
        (one.order_id, one.customer, [r.refund_id for r in one.refunds]) for one in found.orders
    ] == [("o1", store.identifiers.mac("customer", "bob"), ["r1"])]
    [decision] = find(store, "5c0de", at=NOW).decisions
    assert (decision.refund.refund_id, decision.refund.payable_minor) == ("r1", 4_900)
    assert (
        recall(store, [("refund", "r2"), ("order", "\0"), ("customer", "c")]) == finding.Findings()
    )


@pytest.mark.parametrize("text", ["", "  ", "a\0b", "x" * 257, "\ud800"])
def test_what_no_id_can_be_is_refused(store: Store, text: str) -> None:
    with pytest.raises(InvalidRequest, match="text: must be 1 to 256 characters"):
        find(store, text, at=NOW)


def test_whoever_was_erased_is_found_no_more(store: Store) -> None:
    put(store, [asked("r1", 0, "bob", email="bob@example.org")])
    erase(store, "bob", actor="a test", at=NOW)
    for text in ("bob", "bob@example.org", store.identifiers.mac("customer", "bob")):
        assert not find(store, text, at=NOW).references
    assert find(store, "r1", at=NOW).refunds


@pytest.mark.each_store
def test_who_used_a_thing_is_counted_as_every_event_says(store: Store) -> None:
    filled(store)
    every_event, there = firsts(store), named(store)
    for kind in ENTITIES[1:]:
        for pseudonym in there[kind]:
            uses = uses_of(store, kind, pseudonym)
            expected: dict[str, list[Any]] = {}
            for event in every_event:
                if event.payload.get(COLUMN_OF[kind]) == pseudonym:
                    expected.setdefault(event.payload["customer_id"], []).append(event)
            told = {user.customer: (user.orders, user.refunds, user.first_at, user.last_at)
                    for user in uses.users}  # fmt: skip
            assert told == {
                customer: (
                    sum(e.event_type == "order" for e in every),
                    sum(e.event_type == "refund_request" for e in every),
                    min(e.known_at for e in every), max(e.known_at for e in every),
                )
                for customer, every in expected.items()
            }  # fmt: skip
            assert {one.refund_id for one in uses.refunds} == {
                e.payload["refund_id"] for every in expected.values() for e in every
                if e.event_type == "refund_request"
            }  # fmt: skip
            assert uses.is_known


def firsts(store: Store) -> list[StoredEvent]:
    """The first versions of orders and refunds."""
    first: dict[Name, StoredEvent] = {}
    for event in store.events():
        name = event.own_name()
        if name and (name not in first or event.is_before(first[name])):
            first[name] = event
    return [*first.values()]


def test_of_a_thing_that_many_use_the_latest_are_told(store: Store) -> None:
    put(store, [order(f"o{n}", -n / 100, f"c{n % 400}", device_id="kiosk")
                for n in range(MOST_USES + 5)])  # fmt: skip
    uses = uses_of(store, "device", store.identifiers.mac("device", "kiosk"))
    assert (len(uses.users), uses.user_count, uses.is_cut) == (finding.MOST_USERS, 400, True)
    assert uses.users[0].customer == store.identifiers.mac("customer", "c0")
    assert sum(user.orders for user in uses.users) == 300
    assert not uses_of(store, "device", "nothing").is_known
