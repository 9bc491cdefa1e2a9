"""A data folder's rows as events again: its refund requests, and the documents of their orders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Generic, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from features.events import (
    Event,
    Order,
    OrderUpdate,
    RefundOutcome,
    RefundRequest,
    Transaction,
)
from features.tables import SCHEMA, Tables, arrow_schema

_OF_ORDER: Final = (Order, OrderUpdate, Transaction, RefundRequest)
_OF_REFUND: Final = (RefundOutcome, Transaction)

AnyEvent = TypeVar("AnyEvent", bound=Event)
_Found: TypeAlias = "tuple[_Rows[Any], Mapping[str, Sequence[int]]]"


class FolderEvents:
    """Canonical tables, read event by event; a line goes to the event that it names, or the first.

    >>> from features.tables import canonical
    >>> asked = {"refund_id": "r", "customer_id": "c", "order_id": "o", "known_at": 9,
    ...          "amount_minor": 5, "currency": "GBP", "event_id": "e"}
    >>> update = {"order_id": "o", "known_at": 5, "status": "SHIPPED", "event_id": "u"}
    >>> tables = {model.table: canonical(model, pa.Table.from_pylist(
    ...               [row], arrow_schema(model.table)))
    ...           for model, row in ((RefundRequest, asked), (OrderUpdate, update))}
    >>> events = FolderEvents(tables)
    >>> [request] = events.requests()
    >>> sorted(event.event_type for event in events.of_order(request))
    ['order_update', 'refund_request']
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def requests(self) -> Iterator[RefundRequest]:
        """Every refund request with its lines, in the order of its table."""
        rows = self._requests
        return (rows.event(row) for row in range(len(rows)))

    def of_order(self, request: RefundRequest) -> list[Event]:
        """What `features.ledger.order_ledger` needs of a request's order, whenever it is known.

        The order's versions, updates, transactions and refund requests, with the outcomes of those
        refunds and the transactions that name them alone.
        """
        if request.order_id is None:
            return []
        found: list[Event] = [
            rows.event(row)
            for rows, by_order in self._by_order
            for row in by_order.get(request.order_id, ())
        ]
        asked = (event.refund_id for event in found if isinstance(event, RefundRequest))
        refunds = dict.fromkeys((*asked, request.refund_id))
        found += (
            rows.event(row)
            for rows, by_refund in self._by_refund
            for refund_id in refunds
            for row in by_refund.get(refund_id, ())
        )
        return found

    @cached_property
    def _requests(self) -> _Rows[RefundRequest]:
        return _Rows(RefundRequest, self._tables)

    @cached_property
    def _by_order(self) -> list[_Found]:
        """Rows of the orders that any request names."""
        named = pc.unique(_table(self._tables, RefundRequest)["order_id"])
        return [self._found(model, "order_id", named) for model in _OF_ORDER]

    @cached_property
    def _by_refund(self) -> list[_Found]:
        """Rows that belong to an order by the refund that they name alone."""
        named = pc.unique(_table(self._tables, RefundRequest)["refund_id"])
        return [self._found(model, "refund_id", named) for model in _OF_REFUND]

    def _found(self, model: type[Event], column: str, named: pa.Array) -> _Found:
        if model is RefundRequest:
            return self._requests, self._requests.places(column)
        table = _table(self._tables, model)
        wanted = pc.and_(pc.is_in(table[column], named), pc.is_valid(table[column]))
        if column == "refund_id" and "order_id" in table.column_names:
            wanted = pc.and_(wanted, pc.is_null(table["order_id"]))
        rows = _Rows(model, self._tables, wanted)
        return rows, rows.places(column)


class _Rows(Generic[AnyEvent]):
    """Rows of one event's table: those that ``wanted`` picks, or all."""

    def __init__(
        self, model: type[AnyEvent], tables: Tables, wanted: pa.ChunkedArray | None = None
    ) -> None:
        table = _table(tables, model)
        if wanted is not None:
            table = table.filter(wanted)
        self._model = model
        self._size: int = table.num_rows
        self._columns = {
            name: table[name].to_pylist() for name in table.column_names
            if table[name].null_count < table.num_rows
        }  # fmt: skip
        self._items = _items(tables, model)

    def __len__(self) -> int:
        return self._size

    def event(self, row: int) -> AnyEvent:
        """The event of a row, with its lines if it has any."""
        given = {name: values[row] for name, values in self._columns.items()}
        content = {name: value for name, value in given.items() if value is not None}
        if items := self._items.get(content["event_id"]):
            content["items"] = items
        return self._model(**content)

    def places(self, column: str) -> Mapping[str, Sequence[int]]:
        """The rows of each value of a column."""
        found: dict[str, list[int]] = {}
        for row, value in enumerate(self._columns.get(column, ())):
            found.setdefault(value, []).append(row)
        return found


def _table(tables: Tables, model: type[Event]) -> pa.Table:
    found = tables.get(model.table)
    return arrow_schema(model.table).empty_table() if found is None else found


def _items(tables: Tables, model: type[Event]) -> Mapping[str, list[dict[str, Any]]]:
    """The lines of each order or refund by the ``event_id`` they give, else of its first version.

    A line of an event that is not there belongs to none.
    """
    table = tables.get(model.item_table) if model.item_table else None
    if table is None or model.item_table is None:
        return {}
    parent = SCHEMA[model.item_table][1].name
    heads = _table(tables, model)
    first: dict[str, str] = {}
    for name, event_id in zip(heads[parent].to_pylist(), heads["event_id"].to_pylist(),
                              strict=True):  # fmt: skip
        first.setdefault(name, event_id)
    found: dict[str, list[dict[str, Any]]] = {}
    for item in table.to_pylist():
        event_id, name = item.pop("event_id"), item.pop(parent)
        line = {column: value for column, value in item.items() if value is not None}
        found.setdefault(event_id or first[name], []).append(line)
    return found
