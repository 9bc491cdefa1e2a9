"""What people answer at reviews is what the next training learns from, by whichever way."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.money import DAY_MS
from features.tables import Tables
from serving.reviews import Doing, act_on
from serving.store.store import Store
from serving.store.transfer import export
from tests.serving.test_desk import ME, NOW, SECRET, Clock
from tests.serving.test_reservations import asked, order
from tests.serving.test_reviews import WHY, desk_of
from training.labels import label_refunds
from training.store_labels import label_tables


@pytest.mark.parametrize("tables_of", [export, label_tables])
def test_the_verdict_of_a_review_is_the_label_of_its_refund(tmp_path: Path, tables_of):
    store, now = Store.open(f"sqlite:///{tmp_path}/s.db", SECRET), Clock()
    desk = desk_of(store)
    for number, (act, abuse) in enumerate(
        [("deny", True), ("approve", False), ("deny", None), ("deny", False)]
    ):
        order(desk, now, f"o-{number}")
        desk.decide(asked(f"r-{number}", 6000, order_id=f"o-{number}"), now, ME)
        doing = Doing.of(act, by="Ann", justification=WHY, abuse=abuse)
        act_on(store, f"r-{number}", doing, at=now())
    tables: Tables = tables_of(store)
    labels = label_refunds(tables, as_of=NOW + 400 * DAY_MS)
    names = tables["refund_requests"]["refund_id"].take(labels.row).to_pylist()
    found = dict(zip(names, zip(labels.abuse.tolist(), labels.basis, strict=True), strict=True))
    assert (found["r-0"], found["r-1"]) == ((1.0, "ANALYST"), (0.0, "ANALYST"))
    assert found["r-3"] == (0.0, "ANALYST"), "refused for coming too late, and honest"
    assert found["r-2"][0] != found["r-2"][0], "nobody said, and nothing was paid"
    store.close()
