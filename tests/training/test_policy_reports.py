"""The policy reports over a real store: what was decided, what became known, who is left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from features.money import Rates
from rules.decision import Action
from rules.policy import Policy
from serving.facts import FACTS
from serving.store.store import Store
from serving.store.transfer import export
from tests.serving.test_desk import NOW, SECRET
from tests.training.test_challenger import LARGE_MINOR, Shop, by_amount
from training.dataset import end_of
from training.policy_reports import (
    folder_quality_report,
    policies_of,
    store_exploration_report,
    store_quality_report,
    store_shadow_report,
)
from training.shadow_report import Advice

MODEL = by_amount(0.02, 0.7, "1")
SHARE = 0.5
BANDS = [{"action": "MANUAL_REVIEW", "probability_at_least": 0.6}]


def rule(id: str, above_minor: float, action: str, mode: str) -> dict[str, Any]:
    return {"id": id, "version": 1, "stage": "risk", "mode": mode, "action": action,
            "when": f"payable_minor >= {above_minor}", "reason": "LARGE", "description": "Large",
            "examples": {"hit": [{"payable_minor": above_minor}],
                         "miss": [{"payable_minor": above_minor - 1}]}}  # fmt: skip


def text_of(version: str, **changes: Any) -> str:
    return json.dumps({
        "version": version, "bands": BANDS,
        "costs": {"fee_minor": 500, "review_minor": 400, "prevented_honest_multiple": 1.5},
        "exploration": {"share": SHARE, "max_amount_minor": 100_000},
        "rules": [rule("refuse_large", float(LARGE_MINOR), "PREVENT", "shadow"),
                  rule("hold_any", 900.0, "MANUAL_REVIEW", "shadow"),
                  rule("hold_huge", 1e6, "MANUAL_REVIEW", "live")],
        **changes,
    })  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Thirty honest refunds and ten of abuse, which the model holds unless exploration pays them.

    The last four were decided by a policy that the store does not keep.
    """
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('shop')}/shop.db", SECRET)
    opened = Shop(store)
    policy = Policy.from_yaml(text_of("1"), facts=FACTS)
    with store.write() as tx:
        tx.add_policy(version="1", hash=policy.hash, text=policy.text, author="ann", note=None,
                      at=NOW)  # fmt: skip
    opened.decide(MODEL, None, policy)
    stranger = Policy.from_yaml(text_of("elsewhere"), facts=FACTS)
    opened.decide(MODEL, None, stranger, amounts=[1000] * 4)
    opened.look_into([*([1000] * 30), *([5000] * 10), *([1000] * 4)])
    yield opened
    store.close()


@pytest.fixture(scope="module")
def explored(shop: Shop) -> int:
    found = sum(one.record["decision"]["explored"] for one in shop.store.decisions())
    assert 0 < found < 10
    return found


def test_shadow_rules_of_a_store(shop: Shop, explored: int) -> None:
    report = store_shadow_report(shop.store, maturity_days=30)
    assert (report.requests, report.elsewhere, report.currency) == (44, 4, "GBP")
    assert report.policies == {"1": 40}
    refuse, hold = report.rules
    assert (refuse.rule_id, refuse.hits, refuse.evaluated) == ("refuse_large", 10, 40)
    # The draw is left out: the ten were held by the band, and would have been refused.
    assert [(s.before, s.after, s.requests) for s in refuse.changes] == [
        (Action.MANUAL_REVIEW, Action.PREVENT, 10)
    ]
    assert (refuse.precision.labelled, refuse.precision.unseen) == (explored, 10 - explored)
    assert refuse.precision.share.value == 1.0
    assert refuse.effect.saved.minor == 400 * explored
    weighed = refuse.effect.saved_weighted
    assert weighed is not None and weighed.minor == 400 * explored / SHARE
    assert refuse.advice is Advice.TOO_FEW
    assert [(s.before, s.after, s.requests) for s in hold.changes] == [
        (Action.ALLOW, Action.MANUAL_REVIEW, 30)
    ]
    assert hold.effect.saved.minor == -400 * 30
    assert hold.advice is Advice.WORSE_LIVE


def test_one_rule_and_one_stretch_of_time(shop: Shop) -> None:
    until = NOW + 11 * 60_000
    report = store_shadow_report(shop.store, rule_id="hold_any", until=until, maturity_days=30)
    assert (report.requests, [rule.rule_id for rule in report.rules]) == (10, ["hold_any"])


def test_exploration_of_a_store(shop: Shop, explored: int) -> None:
    report = store_exploration_report(shop.store, maturity_days=30)
    (draw,) = report.draws
    assert (draw.policy, draw.explored, draw.eligible) == ("1", explored, 10)
    assert (report.paid, report.paid_minor) == (explored, 5000 * explored)
    assert (report.labelled, report.abuse_rate.value) == (explored, 1.0)
    assert report.abuse_paid.minor == 5500 * explored
    assert report.net_cost.minor == (5500 - 400) * explored
    assert report.labelled_paid == 30
    assert report.drawn == 40
    assert "How to read this" in report.to_text()


def test_quality_is_the_same_over_a_store_and_over_its_export(shop: Shop) -> None:
    (policy,) = policies_of(shop.store).values()
    stored = store_quality_report(shop.store, policy, maturity_days=30)
    tables = export(shop.store)
    folder = folder_quality_report(tables, MODEL, policy, Rates("GBP"), as_of=end_of(tables),
                                   maturity_days=30)  # fmt: skip
    assert stored.counts.requests == folder.counts.requests == 44
    for one, other in zip(stored.rules, folder.rules, strict=True):
        for name in ("rule_id", "hits", "unknowns", "decisive", "payable_minor"):
            assert getattr(one.count, name) == getattr(other.count, name), name
        assert one.precision.labelled == other.precision.labelled
        assert one.precision.abuse == other.precision.abuse
    assert stored.counts.together == folder.counts.together
    assert [c.decisive for c in stored.counts.bands] == [10]
    assert [f.rules for f in stored.findings] == [("hold_huge",)]
    assert folder.rules[0].precision.weighted is None, "a folder was not decided"


def test_a_folder_tells_what_it_knows_of_an_order(shop: Shop) -> None:
    ledgered = rule("other_person", 1.0, "MANUAL_REVIEW", "live") | {
        "when": "order_customer_differs",
        "examples": {"hit": [{"order_customer_differs": True}],
                     "miss": [{"order_customer_differs": False}]},
    }  # fmt: skip
    policy = Policy.from_yaml(text_of("3", rules=[ledgered]), facts=FACTS)
    tables = export(shop.store)
    report = folder_quality_report(tables, MODEL, policy, Rates("GBP"), as_of=end_of(tables),
                                   maturity_days=30)  # fmt: skip
    assert (report.rules[0].count.hits, report.rules[0].count.unknowns) == (0, 0)


def test_what_cannot_be_reported_is_refused_by_name(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"no policy of the store has such.*mean hold_any"):
        store_shadow_report(shop.store, rule_id="hold_eny")
    with pytest.raises(LookupError, match="never in the shadow"):
        store_shadow_report(shop.store, rule_id="hold_huge")
    empty = Store.open(f"sqlite:///{tmp_path}/empty.db", SECRET)
    try:
        for made in (store_shadow_report, store_exploration_report):
            with pytest.raises(LookupError, match="expected some"):
                made(empty)
    finally:
        empty.close()


def test_a_stretch_without_decisions_says_so(shop: Shop) -> None:
    report = store_shadow_report(shop.store, until=1, maturity_days=30)
    assert report.requests == 0
    assert "no rule and no limit was in the shadow" in report.to_text()
    json.dumps(report.to_json(), allow_nan=False)
