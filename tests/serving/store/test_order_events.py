"""The documents of an order: a store gives what a folder of the same history does, by index."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings

from features.events import Event, RefundOutcome, RefundRequest, Transaction
from features.folder import FolderEvents
from features.ledger import order_ledger
from serving.store.store import Store
from tests.features.ledgers import histories, tables_of

_NUMBER = itertools.count()


def apart(events: Sequence[Event], number: int) -> list[Event]:
    """The same history under names that no other history has."""
    named = ("event_id", "order_id", "refund_id", "transaction_id")
    return [
        event.model_copy(
            update={
                column: f"{value}-{number}"
                for column in named
                if (value := getattr(event, column, None)) is not None
            }
        )
        for event in events
    ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories())
def test_store_and_folder_give_the_same_ledger(
    either: Store, history: tuple[RefundRequest, list[Event]]
) -> None:
    """Whatever else the store holds, in whatever order it came, persons under pseudonyms."""
    request, *events = apart([history[0], *history[1]], next(_NUMBER))
    assert isinstance(request, RefundRequest)
    for part in (events[:4], events[4:]):
        with either.write() as tx:
            tx.append(part)
    folder = FolderEvents(tables_of(events))
    served = order_ledger(request, either.order_events(request))
    assert served == order_ledger(request, folder.of_order(request))
    assert served == order_ledger(request, events)


def asked(refund_id: str, known_at: int, **fields: object) -> RefundRequest:
    given: dict[str, object] = {
        "customer_id": "c1", "order_id": "o1", "amount_minor": 5, "currency": "GBP", **fields,
    }  # fmt: skip
    return RefundRequest(refund_id=refund_id, known_at=known_at, **given)


def test_who_is_not_named_by_the_request_stays_under_a_pseudonym(either: Store) -> None:
    with either.write() as tx:
        tx.append([asked("r1", 5, email="ann@x", payment_method_id="card"),
                   asked("r2", 6, customer_id="c2", email="bob@x")])  # fmt: skip
    request = asked("r3", 9, email="bob@x", payment_method_id="card")
    first, second = sorted(either.order_events(request), key=lambda event: event.known_at)
    assert isinstance(first, RefundRequest)
    assert isinstance(second, RefundRequest)
    assert (first.customer_id, first.payment_method_id) == ("c1", "card")
    assert first.email not in (None, "ann@x")
    assert second.email == "bob@x"
    assert second.customer_id != "c2"


def test_what_is_of_no_order_has_no_documents(either: Store) -> None:
    with either.write() as tx:
        tx.append([asked("r1", 5)])
    assert either.order_events(asked("r2", 9, order_id=None)) == []
    assert either.order_events(asked("r2", 9, order_id="o2")) == []


def test_a_crowded_order_gives_the_latest_of_each_type(store: Store) -> None:
    refunds = [asked(f"r{n}", n) for n in range(1_003)]
    paid = [RefundOutcome(refund_id=f"r{n}", status="COMPLETED", known_at=2_000 + n)
            for n in range(1_003)]  # fmt: skip
    moved = [Transaction(transaction_id=f"t{n}", kind="REFUND", refund_id=f"r{n}", amount_minor=5,
                         currency="GBP", known_at=2_000 + n) for n in range(1_003)]  # fmt: skip
    with store.write() as tx:
        tx.append([*refunds, *paid, *moved])
    request = asked("now", 9_000)
    found = store.order_events(request)
    for kind in (RefundRequest, RefundOutcome, Transaction):
        names = {event.refund_id for event in found if isinstance(event, kind)}  # type: ignore[attr-defined]
        assert names == {f"r{n}" for n in range(3, 1_003)}
    assert order_ledger(request, found) == order_ledger(request, [*refunds, *paid, *moved])


def test_the_documents_of_an_order_are_found_by_index_alone(store: Store) -> None:
    request = asked("r", 9)
    store.order_events(request)
    statement = store.database.prepared("order_events", lambda: None)  # type: ignore[arg-type,return-value]
    values = statement.bind({"order": "o1", "refund": "r", "cutoff": 9})
    with store.database.read() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement.sql}", values)
        plan = [str(row[-1]) for row in rows]
    reads = [step for step in plan if "events" in step]
    assert len(reads) >= 6
    for step in reads:
        assert step.startswith("SEARCH events USING INDEX events_by_"), step
        assert "event_type=? AND known_at<?" in step, step
