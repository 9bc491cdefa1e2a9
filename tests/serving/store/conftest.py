"""Stores on real SQLite files and on a real PostgreSQL, and events with little to type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from features.events import RefundRequest
from serving.store.store import Store

SECRET = b"a secret of 16 bytes or more"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store.open(url, SECRET)
    yield opened
    opened.close()


@pytest.fixture
def either(store_url: str) -> Iterator[Store]:
    """An empty store of either kind."""
    opened = Store.open(store_url, SECRET)
    yield opened
    opened.close()


@pytest.fixture
def refund() -> Callable[..., RefundRequest]:
    def make(refund_id: str, known_at: int = 1_000, **fields: object) -> RefundRequest:
        facts = {"customer_id": "c1", "amount_minor": 500, "currency": "GBP", **fields}
        return RefundRequest(refund_id=refund_id, known_at=known_at, **facts)

    return make
