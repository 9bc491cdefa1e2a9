"""A batch: what it says of a row is what the service would have said, and all rows are written."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalog import PLAN
from features.engine import Past
from features.events import RefundRequest
from features.folder import FolderEvents
from features.ledger import LEDGER_FACTS, order_ledger
from features.money import Rates
from features.tables import Folder, Tables
from rules.policy import Policy
from serving.batch import SCORES, judge_folder, score_folder
from serving.facts import FACTS
from serving.reasons import as_json
from serving.scorer import Circumstances, Verdict, judge, keys_of, score
from serving.store.store import Store
from serving.store.transfer import import_folder
from tests.serving.champions import fixed
from tests.training.tables import START, folder_of, simulated
from training.dataset import feature_frame, rates_of


@pytest.fixture(scope="module")
def tables() -> Tables:
    return simulated(customers=120, days=200, seed=3)


@pytest.fixture(scope="module")
def rates(tables: Tables) -> Rates:
    return rates_of(tables)


@pytest.fixture(scope="module")
def events(tables: Tables) -> FolderEvents:
    return FolderEvents(tables)


@pytest.fixture(scope="module")
def requests(events: FolderEvents) -> list[RefundRequest]:
    return list(events.requests())


def same(one: Verdict, other: Verdict) -> bool:
    np.testing.assert_array_equal(one.contributions, other.contributions)
    np.testing.assert_equal(dict(one.row), dict(other.row))
    return (one.decision, one.score, one.risk_level, [*map(as_json, one.reasons)]) == (
        other.decision, other.score, other.risk_level, [*map(as_json, other.reasons)],
    )  # fmt: skip


def test_a_folder_s_requests_are_its_rows_with_their_lines(tables, requests):
    lines = Counter(row["refund_id"] for row in tables["refund_items"].to_pylist())
    rows = tables["refund_requests"].to_pylist()
    for request, row in zip(requests, rows, strict=True):
        said = {name: value for name, value in row.items() if value is not None}
        assert request.model_dump(exclude_none=True, exclude={"items"}) == said
        assert len(request.items) == lines[request.refund_id]
    assert sum(lines.values()) == sum(len(request.items) for request in requests) > 0


def test_a_batch_judges_each_row_as_judge_does(tables, rates, requests, events, champion, policy):
    frame = feature_frame(tables, rates)
    judged = list(judge_folder(tables, champion, policy, rates))
    assert [j.request.refund_id for j in judged] == list(frame.refund_id)
    assert [j.request for j in judged] == requests
    for found, request, values in zip(judged, requests, frame.matrix.tolist(), strict=True):
        row = dict(zip(frame.names, values, strict=True))
        ledger = order_ledger(request, events.of_order(request))
        alone = judge(request, row, champion, policy, Circumstances(), ledger=ledger)
        assert same(found.verdict, alone), request.refund_id


def test_a_batch_says_what_the_service_would_have_said(
    tables, rates, requests, events, champion, policy, tmp_path
):
    """From a store with the whole folder in it, each request as of its own cutoff."""
    store = Store.open(f"sqlite:///{tmp_path}/s.db", b"a secret of 16 bytes or more")
    import_folder(store, Folder(tables, ()))
    judged = list(judge_folder(tables, champion, policy, rates))
    with_history = paid_back = 0
    for place in range(0, len(requests), max(1, len(requests) // 40)):
        request = requests[place]
        slices = store.read(keys_of(request), request.known_at, PLAN.reads)
        past = Past(slices.rows, slices.pseudonyms, slices.first_seen)
        ledger = order_ledger(request, store.order_events(request))
        served = score(request, past, champion, policy, rates, Circumstances(), ledger=ledger)
        assert same(judged[place].verdict, served), request.refund_id
        with_history += served.row["order_count_by_customer_365d"] > 0
    assert with_history > 10, "equality over empty histories would mean little"
    for request in requests:
        served_ledger = order_ledger(request, store.order_events(request))
        assert served_ledger == order_ledger(request, events.of_order(request))
        paid_back += bool(served_ledger["order_paid_back_minor"])
    assert paid_back, "and so would equality over orders that nothing came of"
    store.close()


def test_scores_are_written_one_row_a_request(tables, rates, champion, policy, tmp_path):
    out = tmp_path / "scores.parquet"
    told: list[tuple[int, int]] = []
    actions = score_folder(
        tables, champion, policy, rates, out, lambda done, total: told.append((done, total))
    )
    judged = list(judge_folder(tables, champion, policy, rates))
    written = pq.read_table(out)
    assert written.schema == SCORES
    assert actions == Counter(j.verdict.decision.action.value for j in judged)
    assert told[-1] == (len(judged), len(judged))
    for row, found in zip(written.to_pylist(), judged, strict=True):
        decision = found.verdict.decision
        assert row == {
            "refund_id": found.request.refund_id,
            "known_at": found.request.known_at,
            "probability": found.verdict.score.probability,
            "action": decision.action.value,
            "source": decision.source.value,
            "reasons": [*decision.reasons, *(r.code for r in found.verdict.reasons)],
        }


def test_the_columns_are_the_same_whatever_is_in_them(policy, tmp_path):
    """No score anywhere, and no row at all, are tables like any other."""
    out = tmp_path / "scores.parquet"
    request = {"refund_id": "r-1", "customer_id": "c-1", "known_at": START, "amount_minor": 500,
               "currency": "GBP"}  # fmt: skip
    one = folder_of(refund_requests=[request])
    broken = fixed(fails=RuntimeError("boom"))
    assert score_folder(one, broken, policy, Rates("GBP"), out) == {"MANUAL_REVIEW": 1}
    assert pq.read_schema(out) == SCORES
    assert pq.read_table(out)["probability"].null_count == 1
    assert score_folder(folder_of(refund_requests=[]), broken, policy, Rates("GBP"), out) == {}
    assert pq.read_table(out).equals(pa.Table.from_pylist([], SCORES))


def test_each_request_is_judged_as_of_its_own_time(policy):
    def refund(number: int) -> dict[str, object]:
        return {"refund_id": f"r-{number}", "customer_id": "c-1", "known_at": START + number,
                "amount_minor": 500, "currency": "GBP"}  # fmt: skip

    tables = folder_of(refund_requests=[refund(number) for number in range(4)])
    judged = list(judge_folder(tables, fixed(), policy, Rates("GBP")))
    assert [j.verdict.row["refund_count_by_customer_1d"] for j in judged] == [0, 1, 2, 3]
    assert all(math.isnan(j.verdict.row["refund_count_by_device_7d"]) for j in judged)


def test_a_folder_is_judged_by_the_ledger_of_each_order_if_the_policy_asks(monkeypatch):
    """Two refunds of one piece: the second is one too many."""
    line = {"line_id": "1", "sku": "a", "quantity": 1}

    def refund(number: int) -> dict[str, object]:
        return {"refund_id": f"r-{number}", "customer_id": "c-1", "known_at": START + number,
                "order_id": "o-1", "amount_minor": 500, "currency": "GBP"}  # fmt: skip

    tables = folder_of(
        orders=[{"order_id": "o-1", "customer_id": "c-1", "known_at": START, "amount_minor": 500,
                 "currency": "GBP"}],
        order_items=[{"order_id": "o-1", "amount_minor": 500, **line}],
        refund_requests=[refund(1), refund(2)],
        refund_items=[{"refund_id": "r-1", **line}, {"refund_id": "r-2", **line}],
    )  # fmt: skip
    text = """{version: "1", bands: [], fallback: MANUAL_REVIEW, rules: [
      {id: twice, version: 1, stage: hard, when: FACT >= 1.0, action: PREVENT, reason: R,
       description: d, on_unknown: miss, examples: {hit: [{FACT: 1}], miss: [{FACT: 0}]}}]}"""
    asks = Policy.from_yaml(text.replace("FACT", "asked_twice_piece_count"), facts=FACTS)
    judged = list(judge_folder(tables, fixed(), asks, Rates("GBP")))
    assert [j.verdict.decision.source.value for j in judged] == ["MODEL", "RULE"]

    def never(*_: object) -> None:
        raise AssertionError("no ledger is needed")

    monkeypatch.setattr("serving.batch.order_ledger", never)
    other = Policy.from_yaml(text.replace("FACT", "refund_count_by_order_365d"), facts=FACTS)
    assert not LEDGER_FACTS.keys() & other.reads.keys()
    judged = list(judge_folder(tables, fixed(), other, Rates("GBP")))
    assert [j.verdict.decision.source.value for j in judged] == ["MODEL", "RULE"]
