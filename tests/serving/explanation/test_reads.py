"""What surrounds a decision is read through indexes: no statement reads a table from end to end."""

from __future__ import annotations

from typing import Any

import pytest

from serving.explanation.annals import audit_of, notes_of
from serving.explanation.links import links_of
from serving.explanation.timeline import timeline_of
from serving.language import ENGLISH
from serving.store.store import Store
from tests.serving.explanation.stored import asked, decide, order, put
from tests.serving.listening import listen
from tests.serving.test_plans import PLANNED, read_whole

SECRET = b"a secret of 16 bytes or more"


@pytest.mark.each_store
def test_no_statement_reads_a_table_from_end_to_end(store_url: str) -> None:
    store = Store.open(store_url, SECRET)
    shared = {"device_id": "phone", "payment_method_id": "card"}
    put(store, [order("o", -3, **shared), order("o-bob", -2, "bob", **shared),
                asked("r-bob", -1, "bob", **shared)])  # fmt: skip
    decision = decide(store, asked("r", 0, order_id="o", **shared))
    statements: dict[str, Any] = {}
    listen(store, lambda text, given: statements.setdefault(text, given))
    timeline_of(store, decision, ENGLISH)
    links_of(store, decision, ENGLISH)
    notes_of(store, "r", ENGLISH)
    audit_of(store, "r")
    store.database.close()
    planned = {text: given for text, given in statements.items() if PLANNED.match(text)}
    assert len(planned) > 8
    with store.database.read() as connection:
        if not store.database.is_sqlite:
            connection.exec_driver_sql("SET enable_seqscan = off")
        for text, given in planned.items():
            assert read_whole(connection, store, text, given) == [], text
    store.close()
