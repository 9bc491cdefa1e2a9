"""The challenger's report: what both said, where they part, and who was right."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
import yaml

import rules
from features.catalog import MODEL_FEATURES
from features.money import DAY_MS, Rates
from rules.decision import Action
from rules.policy import Policy
from serving import contract
from serving.desk import Desk
from serving.facts import FACTS
from serving.models import Models
from serving.policies import Policies
from serving.scorer import Champion
from serving.store.store import Store
from tests.serving.champions import fixed
from tests.serving.test_desk import BODY, LATE_BODY, ME, NOW, SECRET, report
from training.challenger import ChallengerReport, challenger_report

ALLOW, REVIEW, PREVENT = Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT
DEFAULT = yaml.safe_load(
    (Path(rules.__file__).parent / "policies" / "default.yaml").read_text(encoding="utf-8")
)
LARGE_MINOR = 4000
AMOUNTS = [1000] * 30 + [5000] * 10
"""What the customers of the shop ask back; the large amounts are abuse."""


def policy_of(**changes: Any) -> Policy:
    return Policy.from_yaml(yaml.safe_dump({**DEFAULT, **changes}), facts=FACTS)


POLICY = policy_of()
COSTS = POLICY.costs


def by_amount(small: float, large: float, version: str) -> Champion:
    """A model that looks at the amount alone."""
    payable = [feature.name for feature in MODEL_FEATURES].index("payable_minor")
    base = fixed()
    model = SimpleNamespace(
        reference=base.model.reference,
        predict=lambda matrix: np.where(matrix[:, payable] >= LARGE_MINOR, large, small),
    )
    return Champion(model, base.explainer, version, base.ranking)  # type: ignore[arg-type]


BLIND = by_amount(0.02, 0.02, "1")
SEEING = by_amount(0.02, 0.95, "2")
HOLDING = by_amount(0.02, 0.95, "1")


class Shop:
    """A desk whose customers each ask once, a minute apart, and whose refunds are looked into."""

    def __init__(self, store: Store) -> None:
        self.store, self.at = store, NOW
        self.ids: list[str] = []

    def decide(
        self, champion: Champion | None, challenger: Champion | None, policy: Policy = POLICY,
        amounts: list[int] = AMOUNTS, body: dict[str, Any] = BODY,
    ) -> None:  # fmt: skip
        models, rates = Models(champion, challenger), Rates("GBP")
        desk = Desk(self.store, Policies(policy), models, rates, SECRET, 60_000)
        for amount in amounts:
            self.at += 60_000
            refund_id = f"r-{len(self.ids)}"
            self.ids.append(refund_id)
            one = {**body, "customer": {"customerId": f"c-{refund_id}"},
                   "device": {"deviceId": f"d-{refund_id}"},
                   "paymentMethods": [{"paymentMethodId": f"p-{refund_id}"}]}  # fmt: skip
            answer = desk.decide(report(one, refund_id, amount=amount), lambda: self.at, ME)
            if answer.body["data"]["action"] == "ALLOW":
                self.report({"refund": {"refundId": refund_id, "status": "COMPLETED"}})

    def report(self, body: dict[str, Any]) -> None:
        said = contract.parse_refund(orjson.dumps(body), scored=False)
        self._desk().record(said, self.at, "key:1")

    def look_into(self, amounts: list[int] = AMOUNTS, days: int = 90) -> None:
        """After some days somebody says of each refund what it was, where it was paid."""
        self.at += days * DAY_MS
        for refund_id, amount in zip(self.ids, amounts, strict=True):
            if self.store.refund(refund_id).state != "REFUNDED":  # type: ignore[union-attr]
                continue
            word = "REFUND_ABUSE" if amount >= LARGE_MINOR else "NOT_REFUND_ABUSE"
            body = {"category": "REFUND_ABUSE", "review": word, "refundId": refund_id,
                    "reviewer": {"name": "a", "email": "a@b.example"}}  # fmt: skip
            label = contract.parse_label(orjson.dumps(body), f"c-{refund_id}")
            self._desk().record(label, self.at, "key:1")

    def _desk(self) -> Desk:
        return Desk(self.store, Policies(POLICY), Models(), Rates("GBP"), SECRET, 60_000)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    store = Store.open(f"sqlite:///{tmp_path}/shop.db", SECRET)
    yield Shop(store)
    store.close()


@pytest.fixture
def judged(shop: Shop) -> ChallengerReport:
    """A champion that pays everything, and a challenger that sees through it."""
    shop.decide(BLIND, SEEING)
    shop.look_into()
    return challenger_report(shop.store, COSTS)


def test_every_decision_is_compared(judged: ChallengerReport) -> None:
    assert (judged.version, judged.champions) == ("2", {"1": 40})
    assert (judged.decisions, judged.scored, judged.unscored, judged.elsewhere) == (40, 40, {}, 0)
    assert judged.agreement == {ALLOW: {ALLOW: 30, PREVENT: 10}}
    assert judged.agreed == 30
    assert judged.mean["challenger"] == pytest.approx(0.02 + 0.93 / 4)
    assert judged.quantiles["champion"] == [0.02] * 7
    assert judged.quantiles["challenger"][0] == 0.02
    assert judged.quantiles["challenger"][-1] == 0.95


def test_who_was_right_is_told_in_probability_and_in_money(judged: ChallengerReport) -> None:
    labelled = judged.labelled
    assert labelled is not None
    assert (labelled.refunds, labelled.abuse) == (40, 10)
    figures = labelled.figures
    ap, brier, cost = (figures[n] for n in ("average_precision", "brier", "cost_per_1000_minor"))
    assert (ap.champion, ap.challenger) == (0.25, 1.0)
    assert brier.champion == pytest.approx((30 * 0.02**2 + 10 * 0.98**2) / 40)
    assert brier.challenger == pytest.approx((30 * 0.02**2 + 10 * 0.05**2) / 40)
    assert (cost.champion, cost.challenger) == (10 * 5500 * 1000 / 40, 0.0)
    for name, figure in figures.items():
        assert 0 < figure.gain.low <= figure.gain.high, name


def test_the_gain_is_turned_around_with_the_roles(shop: Shop) -> None:
    shop.decide(replace(SEEING, version="1"), replace(BLIND, version="2"),
                policy_of(bands=[{"action": "PREVENT", "probability_at_least": 1.0}]))  # fmt: skip
    shop.look_into()
    labelled = challenger_report(shop.store, COSTS).labelled
    assert labelled is not None
    for name in ("average_precision", "auc", "brier", "log_loss"):
        assert labelled.figures[name].gain.high < 0, name
    assert labelled.figures["cost_per_1000_minor"].gain.low == 0


def test_without_mature_labels_there_is_no_judgement_but_a_report(shop: Shop) -> None:
    shop.decide(BLIND, SEEING)
    shop.look_into(days=30)
    report = challenger_report(shop.store, COSTS)
    assert (report.labelled, report.immature, report.censored) == (None, 40, 0)
    assert "no refund has a mature label: 40 younger than 60 days" in report.to_text()
    sooner = challenger_report(shop.store, COSTS, maturity_days=20)
    assert sooner.labelled is not None
    assert sooner.labelled.refunds == 40


def test_what_was_held_is_censored_and_counted(shop: Shop) -> None:
    shop.decide(HOLDING, replace(BLIND, version="2"))
    shop.look_into()
    report = challenger_report(shop.store, COSTS)
    assert report.agreement == {ALLOW: {ALLOW: 30}, PREVENT: {ALLOW: 10}}
    assert report.censored == 10
    assert report.labelled is not None
    assert (report.labelled.refunds, report.labelled.abuse) == (30, 0)
    assert report.weighted is None
    assert "average precision    cannot be told" in report.to_text()
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["labelled"]["average_precision"]["champion"] is None


def test_exploration_lets_the_held_ones_speak(shop: Shop) -> None:
    """Of the held ones about half are paid by chance, and each of these stands for two."""
    half = policy_of(exploration={"share": 0.5, "max_amount_minor": 9000})
    amounts = AMOUNTS * 2
    shop.decide(HOLDING, replace(BLIND, version="2"), half, amounts)
    shop.look_into(amounts)
    report = challenger_report(shop.store, COSTS)
    assert report.agreement == {ALLOW: {ALLOW: 60}, PREVENT: {ALLOW: 20}}, "before exploration"
    assert report.labelled is not None
    explored = report.labelled.abuse
    assert 0 < explored < 20
    assert report.censored == 20 - explored
    weighted = report.weighted
    assert weighted is not None
    assert (weighted.refunds, weighted.abuse) == (60 + explored, explored)
    cost = weighted.figures["cost_per_1000_minor"]
    assert cost.challenger == pytest.approx(1000 * 2 * explored * 5500 / (60 + 2 * explored))
    assert cost.champion == 0, "it would have prevented them"
    assert "weighed by the chance they had" in report.to_text()


def test_only_what_both_scored_is_compared(shop: Shop) -> None:
    shop.decide(BLIND, None, amounts=[1000])
    shop.decide(BLIND, SEEING, amounts=[1000, 5000])
    shop.decide(None, SEEING, amounts=[1000])
    shop.decide(BLIND, replace(fixed(fails=RuntimeError("boom")), version="2"), amounts=[1000])
    shop.decide(BLIND, replace(SEEING, version="3"), amounts=[1000])
    second = challenger_report(shop.store, COSTS, version="2")
    assert (second.decisions, second.scored, second.elsewhere) == (6, 2, 2)
    assert second.unscored == {"no model is loaded": 1, "the challenger failed": 1}
    assert challenger_report(shop.store, COSTS).version == "3", "the one scored last"


def test_a_period_is_a_period(shop: Shop) -> None:
    shop.decide(BLIND, SEEING, amounts=[1000] * 3)
    second = NOW + 2 * 60_000
    assert challenger_report(shop.store, COSTS, since=second).scored == 2
    assert challenger_report(shop.store, COSTS, until=second).scored == 1


def test_a_rule_decides_for_both(shop: Shop) -> None:
    shop.decide(BLIND, SEEING, amounts=[5000], body=LATE_BODY)
    assert challenger_report(shop.store, COSTS).agreement == {PREVENT: {PREVENT: 1}}


@pytest.mark.parametrize(
    ("decide", "told"),
    [(lambda shop: None, "scored by a challenger: expected some, after recourse challenger set"),
     (lambda shop: shop.decide(BLIND, None, amounts=[1000]), "scored by a challenger"),
     (lambda shop: shop.decide(BLIND, replace(SEEING, version="8"), amounts=[1000]),
      "scored by challenger 9")],
)  # fmt: skip
def test_nothing_to_compare_is_said(shop: Shop, decide: Callable[[Shop], None], told: str) -> None:
    decide(shop)
    with pytest.raises(LookupError, match=told):
        challenger_report(shop.store, COSTS, version="9" if "9" in told else None)


def test_the_text_tells_what_the_json_does(judged: ChallengerReport) -> None:
    text = judged.to_text()
    document = json.loads(json.dumps(judged.to_json(), allow_nan=False))
    assert text.startswith("challenger 2 beside champion 1 (40): 40 of 40 decisions scored by both")
    assert "actions: 30 the same, 10 other\n  ALLOW -> PREVENT: 10\n" in text
    assert document["agreement"] == {"ALLOW": {"ALLOW": 30, "PREVENT": 10}}
    brier = document["labelled"]["brier"]
    assert f"{brier['champion']:>8.4f}  {brier['challenger']:>10.4f}" in text
    assert document["percentiles"] == [1, 10, 25, 50, 75, 90, 99]
