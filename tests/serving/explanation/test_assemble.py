"""The whole explanation of stored decisions: put together, rendered, and told on a screen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from features.money import DAY_MS
from serving.desk import Desk
from serving.explanation.assemble import Explainer
from serving.explanation.page import render
from serving.explanation.parts import Explanation
from serving.explanation.text import to_text
from serving.home import Home
from serving.language import ENGLISH
from serving.scorer import Champion
from serving.store.erasure import erase
from serving.store.lists import NewEntry
from serving.store.store import Store
from tests.serving.champions import fixed, trained_model
from tests.serving.explanation.test_scene import CHAMPION, RATES, make_desk
from tests.serving.test_desk import LATE_BODY, ME, NAMES, NOW, SECRET, Clock, report


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = Store.open(store_url, SECRET, clock="ingest")
    yield opened
    opened.close()


def explained(desk: Desk, asked: Any = None, **how: Any) -> Explanation:
    answer = desk.decide(asked or report(), Clock(), ME)
    explainer = Explainer(lambda: desk.models.now.champion, **how)
    found = explainer.explain(desk.store, answer.body["data"]["scoreId"], RATES)
    assert found is not None
    assert found.verdict.action == answer.body["data"]["action"]
    assert_told_everywhere(found)
    return found


def assert_told_everywhere(found: Explanation) -> None:
    """Page, screen and JSON tell the same, and nothing but plain values is in the JSON."""
    page, screen = render(found, ENGLISH), to_text(found, ENGLISH)
    document = orjson.loads(orjson.dumps(found.to_json()))
    assert document["verdict"]["scoreId"] == found.verdict.score_id
    assert found.verdict.refund_id in page
    assert screen.startswith(("Allow", "Manual review", "Prevent"))
    for said in found.verdict.decided_by:
        assert said in screen
        # A page may put marks into long names, to break them.
        assert said in re.sub(r"<wbr>", "", page).replace("&#34;", '"').replace("&#39;", "'")


@pytest.mark.each_store
def test_the_models_verdict_is_explained_to_the_last_log_odd(store: Store) -> None:
    found = explained(make_desk(store))
    weights = [r.contribution for r in (*found.raising, *found.lowering)]
    assert found.base_log_odds is not None
    assert found.log_odds == pytest.approx(found.base_log_odds + sum(weights), abs=1e-9)
    assert found.verdict.base_rate == pytest.approx(
        float(CHAMPION.model.calibrator.probability(found.base_log_odds))
    )
    assert found.calibration[0][0] < min(found.base_log_odds, found.log_odds)
    assert all(r.contribution > 0 for r in found.raising)
    assert all(r.contribution < 0 for r in found.lowering)
    assert found.versions.model == "7"


def test_its_reasons_are_those_of_the_answer(store: Store) -> None:
    desk = make_desk(store)
    answer = desk.decide(report(), Clock(), ME).body["data"]
    told = Explainer(lambda: CHAMPION).explain(store, answer["scoreId"], RATES)
    assert told is not None
    by_code = {reason.code: reason for reason in told.raising}
    for reason in answer["reasons"]:
        ours = by_code[reason["code"]]
        assert reason["contribution"] == round(ours.contribution, 4)
        assert reason["description"].startswith(ours.facts[0].sentence)


def test_a_rule_settles_it_in_its_own_words(store: Store) -> None:
    found = explained(make_desk(store, champion=fixed(0.01)), report(LATE_BODY))
    assert found.verdict.source == "RULE"
    assert found.verdict.decided_by == (
        "Rule outside_return_window (version 2): Requested more than 30 days after delivery",
    )
    assert [rule.rule_id for rule in found.rules if rule.decisive] == ["outside_return_window"]


def test_bands_are_told_with_where_they_begin(store: Store) -> None:
    found = explained(make_desk(store, champion=fixed(0.5)), report(amount=9_000))
    assert found.verdict.decided_by == (
        "The probability of abuse is 50 %, the expected loss 47.50 GBP: that is in the policy's "
        "band for Manual review, which begins at a probability of 25 % and an expected loss of "
        "5.00 GBP.",
    )
    found = explained(make_desk(store, champion=fixed(0.01)), report(refund_id="another"))
    assert found.verdict.decided_by[0].endswith(
        "none of the policy's bands is reached, and no rule calls for more."
    )


def test_a_list_and_a_missing_model_are_told(store: Store) -> None:
    desk = make_desk(store, champion=None)
    found = explained(desk)
    assert found.verdict.degraded
    assert found.verdict.decided_by == (
        "There was no score, so the policy's fallback answered: Manual review.",
    )
    assert (found.raising, found.lowering, found.log_odds) == ((), (), None)
    with store.write() as tx:
        tx.put_many_on_list("block", [NewEntry("device", NAMES["device"], "ring of June")],
                            author="ann", at=NOW - 1)  # fmt: skip
    found = explained(desk, report(refund_id="later"))
    assert found.verdict.decided_by == (
        "The device is on the list of the blocked: ring of June",
        "There was no score: no model is loaded.",
    )


# --- what is there no more -----------------------------------------------------------------------


def test_an_earlier_model_is_found_where_it_was_promoted(store: Store, tmp_path: Path) -> None:
    desk = make_desk(store)
    answer = desk.decide(report(), Clock(), ME).body["data"]
    trained_model().save(tmp_path / "model" / "7")
    served = Champion.of(trained_model(), "8")
    with_it = Explainer(lambda: served, home=Home(tmp_path))
    without = Explainer(lambda: served, home=Home(tmp_path / "elsewhere"))
    here, gone = (each.explain(store, answer["scoreId"], RATES) for each in (with_it, without))
    assert here is not None
    assert gone is not None
    assert here.verdict.base_rate is not None
    assert here.what_if.differs is None
    assert gone.verdict.base_rate is None
    assert gone.what_if.differs is not None
    assert "7" in gone.what_if.differs
    assert [r.contribution for r in here.raising] == [r.contribution for r in gone.raising]
    assert_told_everywhere(gone)


@pytest.mark.each_store
def test_an_erased_customers_decision_is_explained_as_a_strangers(store: Store) -> None:
    desk = make_desk(store)
    answer = desk.decide(report(), Clock(), ME).body["data"]
    with store.write() as tx:
        entry = NewEntry("customer", NAMES["customer"], "Ann of Clear Street")
        tx.put_many_on_list("block", [entry], author="ann", at=NOW + 5)
    listed = desk.decide(report(refund_id="listed"), lambda: NOW + 9, ME).body["data"]
    erase(store, NAMES["customer"], actor="eve", at=NOW + DAY_MS)
    found = Explainer(lambda: CHAMPION).explain(store, listed["scoreId"], RATES)
    assert found is not None
    assert found.verdict.source == "LIST"
    assert "Ann of Clear Street" not in render(found, ENGLISH) + str(found.to_json())
    found = Explainer(lambda: CHAMPION).explain(store, answer["scoreId"], RATES)
    assert found is not None
    assert_told_everywhere(found)
    page = render(found, ENGLISH)
    assert not [name for name in NAMES.values() if name in page]


def test_no_identifier_of_a_person_is_told(store: Store) -> None:
    found = explained(make_desk(store))
    told = render(found, ENGLISH) + str(found.to_json()) + to_text(found, ENGLISH)
    assert not [name for name in NAMES.values() if name in told]


def test_what_others_wrote_does_not_write_on_a_terminal(store: Store) -> None:
    hostile = "\x1b[31mRED\x07\r\nPrevent: forged\u202e"
    desk = make_desk(store)
    answer = desk.decide(report(refund_id=hostile), Clock(), ME).body["data"]
    found = Explainer(lambda: CHAMPION).explain(store, answer["scoreId"], RATES)
    assert found is not None
    told = to_text(found, ENGLISH)
    assert "refund [U+001B][31mRED[U+0007][U+000D][U+000A]Prevent: forged[U+202E] of" in told
    assert all(one.isprintable() for line in told.split("\n") for one in line)


def test_an_unknown_decision_is_none(store: Store) -> None:
    assert Explainer(lambda: None).explain(store, "no such", RATES) is None
