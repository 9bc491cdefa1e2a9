"""What `History` stores and reads equals what a few lines of plain Python say it should."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.attribution import STREAM_KEYS
from features.events import (
    COLUMN_OF,
    ENTITIES,
    Dispute,
    Event,
    Label,
    Order,
    OrderItem,
    OrderUpdate,
    RefundOutcome,
    RefundRequest,
    Return,
    Transaction,
)
from features.money import DAY_MS
from features.packed import LAYOUT, UNKNOWN, id63, pack
from serving.store.history import LONGEST_WINDOW_MS
from serving.store.identifiers import KIND_OF_COLUMN
from serving.store.statements import MOST_ROWS, reading
from serving.store.store import Store

SECRET = b"a secret of 16 bytes or more"
PAIRS = [(key, event_type) for event_type, keys in STREAM_KEYS.items() for key in keys]
Refund = Callable[..., RefundRequest]

# --- generated histories ---------------------------------------------------------------------

_ids = {key: [f"{key}-{i}" for i in range(3)] for key in COLUMN_OF}
# Windows end 365 days before the cutoff: a few instants over 400 days meet every edge and tie.
_instants = st.sampled_from(
    [0, 1, DAY_MS, 30 * DAY_MS, 365 * DAY_MS, 365 * DAY_MS + 1, 400 * DAY_MS]
)


def _maybe(key: str) -> st.SearchStrategy[str | None]:
    return st.none() | st.sampled_from(_ids[key])


_people = {"customer_id": st.sampled_from(_ids["customer"])} | {
    COLUMN_OF[key]: _maybe(key) for key in ENTITIES if key != "customer"
}
_money = {"amount_minor": st.integers(0, 9), "currency": st.sampled_from(["GBP", "EUR"])}
_when = {"known_at": _instants}
_order, _refund = st.sampled_from(_ids["order"]), st.sampled_from(_ids["refund"])


def _about() -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries({}, optional={"order_id": _order, "refund_id": _refund}).filter(
        bool
    )


def _with(model: type[Event], about: st.SearchStrategy[dict[str, str]], **fields: object):
    columns = st.fixed_dictionaries({**_when, **fields})
    return st.builds(lambda a, b: model(**a, **b), about, columns)


_events = st.one_of(
    st.builds(Order, order_id=_order, **_people, **_money, **_when),
    st.builds(OrderUpdate, order_id=_order, status=st.just("DELIVERED"), **_when),
    _with(Transaction, _about(), transaction_id=st.just("t"), kind=st.just("CAPTURE"),
          payment_method_id=_maybe("payment_method"), **_money),
    st.builds(RefundRequest, refund_id=_refund, order_id=_maybe("order"),
              ignore=st.none() | st.booleans(), **_people, **_money, **_when),
    st.builds(RefundOutcome, refund_id=_refund, status=st.just("COMPLETED"),
              amount_minor=st.none() | st.just(5), **_when),
    _with(Return, _about(), status=st.just("RECEIVED")),
    _with(Dispute, st.sampled_from(["customer", "order", "payment_method"]).flatmap(
        lambda key: st.fixed_dictionaries({COLUMN_OF[key]: st.sampled_from(_ids[key])})),
        dispute_id=st.just("d")),
    _with(Label, st.sampled_from(["customer", "refund"]).flatmap(
        lambda key: st.fixed_dictionaries({COLUMN_OF[key]: st.sampled_from(_ids[key])})),
        label=st.just("REFUND_ABUSE"), reviewer=st.just("Ann Lee")),
)  # fmt: skip


@st.composite
def histories(draw: st.DrawFn) -> list[list[Event]]:
    """Events in order of arrival, cut into transactions; some come twice."""
    events = draw(st.lists(_events, max_size=25))
    numbered = [e.model_copy(update={"event_id": f"e{i:02}"}) for i, e in enumerate(events)]
    arriving = draw(st.permutations([*numbered, *numbered[:3]]))
    cuts = sorted(draw(st.lists(st.integers(0, len(arriving)), max_size=3)))
    return [arriving[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]


# --- the oracle ------------------------------------------------------------------------------


def once(arriving: Sequence[Event]) -> list[Event]:
    return list({event.event_id: event for event in arriving}.values())


def first_version(events: Sequence[Event], event_type: str, name: str) -> Event | None:
    column = {"refund_request": "refund_id", "order": "order_id"}[event_type]
    versions = [e for e in events if e.event_type == event_type and getattr(e, column) == name]
    return min(versions, key=lambda event: (event.known_at, event.event_id), default=None)


def named_by(event: Event, events: Sequence[Event]) -> Event | None:
    if event.event_type in ("order", "refund_request"):
        return None
    if refund_id := getattr(event, "refund_id", None):
        return first_version(events, "refund_request", refund_id)
    if order_id := getattr(event, "order_id", None):
        return first_version(events, "order", order_id)
    return None


def history_of(
    events: Sequence[Event], key: str, event_type: str, value: str
) -> Iterator[tuple[int, int, str]]:
    """(effective known_at, own known_at, event_id) of the holder's events of one type."""
    for event in events:
        if event.event_type != event_type or getattr(event, "ignore", None):
            continue
        own = {"refund_request": "refund_id", "order": "order_id"}.get(event_type)
        if own and first_version(events, event_type, getattr(event, own)) is not event:
            continue
        named = named_by(event, events)
        at, held = event.known_at, getattr(event, COLUMN_OF[key], None)
        if held is None and named is not None and key != "refund":
            held = getattr(named, COLUMN_OF[key], None)
            at = max(at, named.known_at)
        if held == value:
            yield at, event.known_at, str(event.event_id)


@contextmanager
def fresh_store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(f"sqlite:///{folder}/store.db", SECRET, clock="event")
        yield store
        store.close()


def packed(store: Store, events: Sequence[Event], event: Event, at: int) -> bytes:
    """The event as it should stand in an index row, under pseudonyms."""
    content, named = event.model_dump(exclude_none=True), named_by(event, events)
    for column, kind in KIND_OF_COLUMN.items():
        if column in content:
            content[column] = store.identifiers.mac(kind, content[column])
    is_refund = named is not None and named.event_type == "refund_request"
    return pack(event.event_type, content, at, named.model_dump() if is_refund else None)


def dump(store: Store) -> list[list[Any]]:
    """All that is derived from events, in one order."""
    with store.database.read() as connection:
        return [
            sorted(connection.exec_driver_sql(f"SELECT {columns} FROM {table}"), key=repr)
            for table, columns in (("event_keys", "*"), ("events", "*"), ("refunds", "*"),
                                   ("entities", "kind, value, first_seen"))
        ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(batches=histories(), holder=st.integers(0, 2), cutoff=_instants, data=st.data())
def test_slices_equal_the_oracle(
    batches: list[list[Event]], holder: int, cutoff: int, data: st.DataObject
) -> None:
    events = once([event for batch in batches for event in batch])
    keys = {key: _ids[key][holder] for key in data.draw(st.sets(st.sampled_from(list(COLUMN_OF))))}
    with fresh_store() as store:
        for batch in batches:
            with store.write() as tx:
                tx.append(batch)
        slices = store.read(keys, cutoff, PAIRS)
        by_id = {event.event_id: event for event in events}
        expected = {}
        for key, event_type in (pair for pair in PAIRS if pair[0] in keys):
            held = sorted(
                row for row in history_of(events, key, event_type, keys[key])
                if cutoff - LONGEST_WINDOW_MS <= row[0] < cutoff
            )  # fmt: skip
            if held:
                expected[key, event_type] = b"".join(
                    packed(store, events, by_id[event_id], at) for at, _, event_id in held
                )
        assert slices.rows == expected
        for entity in set(keys) & set(ENTITIES):
            times = [
                e.known_at for e in events if getattr(e, COLUMN_OF[entity], None) == keys[entity]
            ]
            first = min(times, default=cutoff)
            assert slices.first_seen[entity] == (first if first < cutoff else None)
        assert slices.snapshot == len(events)


@settings(max_examples=25, deadline=None)
@given(batches=histories())
def test_one_by_one_equals_all_at_once(batches: list[list[Event]]) -> None:
    arriving = [event for batch in batches for event in batch]
    answers = []
    indexes = []
    for parts in ([arriving], [[event] for event in arriving]):
        with fresh_store() as store:
            found = []
            for part in parts:
                with store.write() as tx:
                    found += tx.append(part)
            answers.append(found)
            indexes.append(dump(store))
    assert answers[0] == answers[1]
    assert indexes[0] == indexes[1]


@settings(max_examples=50, deadline=None)
@given(batches=histories(), data=st.data())
def test_the_index_is_the_same_in_whatever_order_events_arrive(
    batches: list[list[Event]], data: st.DataObject
) -> None:
    arriving = once([event for batch in batches for event in batch])
    indexes = []
    for order in (arriving, data.draw(st.permutations(arriving))):
        with fresh_store() as store:
            for event in order:
                with store.write() as tx:
                    tx.append([event])
            indexes.append(dump(store)[0])
    assert indexes[0] == indexes[1]


@settings(max_examples=25, deadline=None)
@given(batches=histories())
def test_an_index_made_anew_is_the_same(batches: list[list[Event]]) -> None:
    with fresh_store() as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.store.history._BATCH", 4)
        for batch in batches:
            with store.write() as tx:
                tx.append(batch)
        before = dump(store)
        with store.write() as tx:
            store.history.reindex(tx._connection)
        assert dump(store) == before


def test_a_slice_holds_the_latest_rows(store: Store, refund: Refund) -> None:
    count = MOST_ROWS + 50
    with store.write() as tx:
        tx.append(refund(f"r{i}", known_at=i) for i in range(count))
    pair = ("customer", "refund_request")
    slices = store.read({"customer": "c1"}, count - 1, [pair])
    found = np.frombuffer(slices.rows[pair], LAYOUT["refund_request"])
    assert found["at"].tolist() == list(range(count - 1 - MOST_ROWS, count - 1))


def test_a_crowded_key_is_read_slice_by_slice_and_says_the_same(
    either: Store, refund: Refund, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever crowds it: other slices, or events from before the window."""
    year = LONGEST_WINDOW_MS
    with either.write() as tx:
        tx.append(refund(f"r{i}", known_at=year + i, device_id="d1") for i in range(3))
        tx.append(refund(f"r{i}", known_at=i, order_id="same") for i in range(3, 6))
        tx.append(RefundOutcome(refund_id="r1", known_at=year + n, status="FAILED")
                  for n in (1, 2, 3))  # fmt: skip
        tx.append([refund("r6", known_at=year + 5, order_id="same"),
                   refund("same", known_at=year + 9, order_id="r1")])  # fmt: skip
    keys = {"customer": "c1", "device": "d1", "order": "same", "refund": "same"}
    cutoff = year + 100
    whole = either.read(keys, cutoff, PAIRS)
    assert len(whole.rows["order", "refund_request"]) == LAYOUT["refund_request"].itemsize
    # A key that is crowded at so many events has no slice with more than so many.
    for module in ("statements", "history"):
        monkeypatch.setattr(f"serving.store.{module}.MOST_ROWS", 5)
    either.database._prepared.clear()
    assert either.read(keys, cutoff, PAIRS) == whole
    prepared = [name[0] for name in either.database._prepared if name[0].startswith("read")]
    assert prepared == ["read", "read one by one"]


def test_events_hold_pseudonyms_and_what_they_inherit(store: Store, refund: Refund) -> None:
    asked = refund("r1", known_at=10, order_id="o1", email="ann@example.com", device_id="d1")
    label = Label(refund_id="r1", known_at=5, label="REFUND_ABUSE", reviewer="Ann Lee")
    with store.write() as tx:
        tx.append([label, asked])
    slices = store.read({"customer": "c1"}, 20, [("customer", "label")])
    [row] = np.frombuffer(slices.rows["customer", "label"], LAYOUT["label"])
    assert (row["at"], row["known_at"], row["case"]) == (10, 5, id63("refund|r1"))
    stored = {event.event_type: event.payload for event in store.events()}
    assert stored["refund_request"]["customer_id"] == store.identifiers.mac("customer", "c1")
    text = repr(stored)
    assert not any(original in text for original in ("ann@example.com", "Ann Lee", "'c1'", "d1'"))
    reviewer = stored["label"]["reviewer"]
    assert store.reveal("reviewer", [reviewer]) == {reviewer: "Ann Lee"}


def test_an_outcome_that_came_first_learns_what_was_asked(store: Store, refund: Refund) -> None:
    pair, keys = ("refund", "refund_outcome"), {"refund": "r1"}
    paid = []
    for event in (RefundOutcome(refund_id="r1", known_at=5, status="COMPLETED"), refund("r1")):
        with store.write() as tx:
            tx.append([event])
        rows = np.frombuffer(store.read(keys, 9_999, [pair]).rows[pair], LAYOUT[pair[1]])
        paid.append(rows["paid"].tolist())
    assert paid == [[UNKNOWN], [500]]


def test_items_are_part_of_the_event(store: Store) -> None:
    line = OrderItem(line_id="1", amount_minor=700, final_sale=False)
    order = Order(order_id="o1", customer_id="c1", known_at=1, amount_minor=700, currency="GBP",
                  items=(line,))  # fmt: skip
    with store.write() as tx:
        tx.append([order])
    [stored] = store.events()
    assert stored.payload["items"] == [{"line_id": "1", "amount_minor": 700, "final_sale": False}]


def test_the_customer_moves_with_what_others_append(store: Store, refund: Refund) -> None:
    outcome = RefundOutcome(refund_id="r1", known_at=3, status="COMPLETED")
    update = OrderUpdate(order_id="o1", known_at=4, status="SHIPPED")
    moves = []
    for event in (refund("r0"), refund("r0"), outcome, refund("r9", customer_id="c2"), update,
                  refund("r1", ignore=True)):  # fmt: skip
        slices = store.read({"customer": "c1"}, 9_999, [])
        with store.write("c1") as tx:
            tx.append([event])
        with store.write("c1") as tx:
            moves.append(tx.customer_moved_since(slices))
    # An ignored refund is no history, but through it the outcome becomes its customer's.
    assert moves == [True, False, False, False, False, True]


def test_an_unknown_pair_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="'refund_requests'"):
        store.read({"customer": "c1"}, 1, [("customer", "refund_requests")])


@pytest.mark.parametrize("crowded", [False, True])
def test_no_read_scans_a_table(store: Store, crowded: bool) -> None:
    statement = store.database.prepared(
        "tried", lambda: reading(store.database, tuple(PAIRS), crowded=crowded)
    )
    values = statement.bind({**dict.fromkeys(COLUMN_OF, "x"), "cutoff": 1, "since": 0})
    with store.database.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement.sql}", values).fetchall()
    steps = [step[3] for step in plan]
    by_key = [step for step in steps if step.startswith("SEARCH event_keys USING PRIMARY KEY")]
    assert len(by_key) == (len(PAIRS) if crowded else len(COLUMN_OF))
    made = {step.split()[1] for step in steps if step.startswith("CO-ROUTINE")}
    # What is scanned is what was found already; MAX(seq) is one look.
    assert [s for s in steps if s.startswith("SCAN") and s.split()[1] not in made] == []
    # The latest events of a slice, which are only so many, are put in order.
    sorts = [step for step in steps if "TEMP B-TREE" in step]
    assert len(sorts) == (len(PAIRS) if crowded else 0)


@pytest.mark.parametrize("batch", [1, 2, 10_000])
def test_events_come_in_order_up_to_a_sequence_number(
    store: Store, refund: Refund, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.store.history._BATCH", batch)
    with store.write() as tx:
        appended = tx.append([refund("r1", known_at=9), refund("r2", known_at=3), refund("r3")])
    found = list(store.events())
    assert [event.seq for event in found] == [1, 2, 3]
    assert [event.event_id for event in found] == [new.event_id for new in appended]
    assert [event.known_at for event in found] == [9, 3, 1_000]
    assert list(store.events(until_seq=2)) == found[:2]
    assert list(store.events(until_seq=0)) == []
