"""The documents of an order: a store gives what a folder of the same history does, by index."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings

from features.events import Event, RefundOutcome, RefundRequest, Transaction
from features.folder import FolderEvents
from features.ledger import order_ledger
from serving.store.statements import order_documents
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
    with pytest.MonkeyPatch.context() as patch:  # as if it were crowded
        patch.setattr("serving.store.history.MAX_EVENTS", 0)
        assert served == order_ledger(request, either.order_events(request))


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


def test_a_refund_asked_for_a_thousand_times_hides_no_other(either: Store) -> None:
    """Of each refund come the first version, the last, and that of its outcome."""
    number = next(_NUMBER)
    order = f"o-{number}"
    paid = [
        asked(f"p-{number}", 1, order_id=order),
        RefundOutcome(refund_id=f"p-{number}", status="COMPLETED", known_at=2),
    ]
    again = [asked(f"a-{number}", 10 + n, order_id=order, amount_minor=n) for n in range(1_100)]
    settled = RefundOutcome(refund_id=f"a-{number}", status="COMPLETED", known_at=500)
    with either.write() as tx:
        tx.append([*paid, *again, settled])
    request = asked("now", 9_000, order_id=order)
    found = either.order_events(request)
    versions = [e.amount_minor for e in found
                if isinstance(e, RefundRequest) and e.refund_id == f"a-{number}"]  # fmt: skip
    assert sorted(versions) == [0, 490, 1_099]
    served = order_ledger(request, found)
    assert served["order_paid_back_minor"] == 5 + 490
    assert served == order_ledger(request, [*paid, *again, settled])


@pytest.mark.parametrize("count", [1_000, 1_001, 1_003])
def test_a_crowded_order_shows_that_there_is_more(store: Store, count: int) -> None:
    """Never a part of its money: at the very limit all of it, beyond it nothing."""
    refunds = [asked(f"r{n}", n) for n in range(count)]
    paid = [RefundOutcome(refund_id=f"r{n}", status="COMPLETED", known_at=2_000 + n)
            for n in range(count)]  # fmt: skip
    with store.write() as tx:
        tx.append([*refunds, *paid])
    request = asked("now", 9_000)
    found = store.order_events(request)
    served = order_ledger(request, found)
    assert served == order_ledger(request, [*refunds, *paid])
    assert served["order_paid_back_minor"] == (5_000 if count == 1_000 else None)
    assert len(found) <= 2 * 1_001


@pytest.mark.parametrize("named", [{"order_id": "o1"}, {"refund_id": "r1"}])
def test_no_more_transactions_are_read_than_show_that_there_are_more(
    store: Store, named: dict[str, str]
) -> None:
    moved = [Transaction(transaction_id=f"t{n}", kind="REFUND", amount_minor=1, currency="GBP",
                         known_at=n, **named) for n in range(1_100)]  # fmt: skip
    with store.write() as tx:
        tx.append([asked("r1", 1), *moved])
    request = asked("now", 9_000)
    found = store.order_events(request)
    assert len(found) == 1 + 1_001
    assert order_ledger(request, found)["order_paid_back_minor"] is None


def test_what_names_order_and_refund_is_given_once(either: Store) -> None:
    told = {"transaction_id": "t", "kind": "REFUND", "amount_minor": 1, "currency": "GBP"}
    number = next(_NUMBER)
    events = apart([
        asked("r", 1),
        Transaction(known_at=2, order_id="o1", refund_id="r", **told),
        Transaction(known_at=3, refund_id="r", **told),
        Transaction(known_at=4, order_id="another", refund_id="r", **told),
    ], number)  # fmt: skip
    with either.write() as tx:
        tx.append(events)
    found = either.order_events(asked("now", 9_000, order_id=f"o1-{number}"))
    assert sorted(event.known_at for event in found) == [1, 2, 3]


def plan_of(store: Store, *, crowded: bool) -> list[str]:
    """How the database finds the documents of an order, were there ever so many others."""
    statement = store.database.prepared("tried", lambda: order_documents(crowded=crowded))
    values = statement.bind({"order": "o1", "refund": "r", "cutoff": 9})
    with store.database.read() as connection:
        if store.database.is_sqlite:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement.sql}", values)
            return [str(row[-1]) for row in rows]
        connection.exec_driver_sql("SET enable_seqscan = off")
        rows = connection.exec_driver_sql(f"EXPLAIN {statement.sql}", values)
        plan = [str(row[-1]) for row in rows]
        connection.exec_driver_sql("RESET enable_seqscan")
        return plan


@pytest.mark.parametrize(("crowded", "reads_by_index"), [(False, 3), (True, 10)])
def test_the_documents_of_an_order_are_found_by_index_alone(
    either: Store, crowded: bool, reads_by_index: int
) -> None:
    plan = plan_of(either, crowded=crowded)
    if either.database.is_sqlite:
        reads = [step for step in plan if re.search(r"\b(events|version|outcome)\b", step)]
        by_index = [
            step
            for step in reads
            if re.match(
                r"SEARCH \w+ USING (COVERING )?INDEX events_by_(order|refund)_id \(\w+=\?", step
            )
        ]
        by_number = [step for step in reads if "USING INTEGER PRIMARY KEY (rowid=?)" in step]
        assert len(by_index) >= reads_by_index, plan
        assert len(by_index) + len(by_number) == len(reads), plan
        of_a_type = [step for step in by_index if "event_type=?" in step]
        # All that names the order is read at once, as far as it is not too much.
        assert len(by_index) - len(of_a_type) == (0 if crowded else 1), plan
    else:
        assert not [step for step in plan if "Seq Scan on events" in step], plan
        by_index_there = [step for step in plan if "Index Cond" in step]
        assert len(by_index_there) >= reads_by_index - crowded, plan
