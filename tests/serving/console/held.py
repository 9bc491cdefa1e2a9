"""What tests of the queue and of cases share: a desk that holds refunds, and those it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from features.money import DAY_MS, Rates
from rules.policy import Policy
from serving.desk import Desk
from serving.facts import FACTS
from serving.models import Models
from serving.policies import Policies, ensure_first
from serving.scorer import Champion
from serving.store.store import Store
from tests.serving.conftest import SECRET
from tests.serving.console.conftest import now_ms
from tests.serving.documents import BALANCE, UNHELD, document, rule
from tests.serving.test_desk import ME, Clock
from tests.serving.test_reservations import asked

TEXT = document("1", BALANCE, UNHELD, rule(5_000))
WHY = "The carrier says that the parcel was signed for."

Held = Callable[..., str]


@pytest.fixture
def desk(champion: Champion, tmp_path_factory: Any) -> Iterator[Desk]:
    """The desk of an empty sandbox that holds refunds of 50.00 and more."""
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('desk')}/s.db", SECRET)
    ensure_first(store, TEXT, 1)
    models = Models()
    models.put("champion", champion)
    policies = Policies(Policy.from_yaml(TEXT, facts=FACTS))
    yield Desk(store, policies, models, Rates("GBP"), SECRET, 10_000, is_sandbox=True)
    store.close()


@pytest.fixture
def held(desk: Desk) -> Held:
    """Called with a refund's id it is held, or paid or refused as its amount says."""

    def hold(refund_id: str, amount: int = 6_000, *, days_ago: float = 0, **said: Any) -> str:
        at = now_ms() - round(days_ago * DAY_MS)
        desk.decide(asked(refund_id, amount, order_id=f"o-{refund_id}", **said), lambda: at, ME)
        return refund_id

    return hold


__all__ = ["WHY", "Clock", "Held", "desk", "held"]
