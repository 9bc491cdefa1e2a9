"""Hears each statement that a store gives its driver, whoever prepared it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import event

from serving.store.store import Store

Heard = Callable[[str, Any], None]
"""Is told a statement and its parameters before it runs; None where they stand in it already."""


def listen(store: Store, heard: Heard) -> None:
    """Tell ``heard`` of every statement from now on, on whatever connection of the store."""
    database = store.database
    attach = _to_sqlite(heard) if database.is_sqlite else _to_postgresql(heard)
    for engine in (database._reading, database._writing):
        if not event.contains(engine.pool, "connect", attach):
            event.listen(engine.pool, "connect", attach)
    database.close()  # what is in the pool was made before


def _to_sqlite(heard: Heard) -> Callable[..., None]:
    def attach(connection: Any, _: object) -> None:
        connection.set_trace_callback(lambda statement: heard(statement, None))

    return attach


def _to_postgresql(heard: Heard) -> Callable[..., None]:
    class Listening(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **how: Any) -> Any:
            heard(str(query), params)
            return super().execute(query, params, **how)

        def executemany(self, query: Any, params_seq: Any, **how: Any) -> None:
            heard(str(query), next(iter(params_seq), None))
            super().executemany(query, params_seq, **how)

    def attach(connection: Any, _: object) -> None:
        connection.cursor_factory = Listening

    return attach
