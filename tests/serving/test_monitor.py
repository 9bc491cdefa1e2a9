"""The skew monitor: silent where serving and training agree, and exact about where they do not."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

import cli
from features.catalog import BY_NAME
from features.events import EVENTS, Event, Order, RefundOutcome, RefundRequest, derive_event_id
from features.money import DAY_MS, Rates
from rules.policy import Policy
from serving import contract
from serving.desk import Desk
from serving.models import Models
from serving.monitor import MOST_EVENTS, MOST_LISTED, Skew, skew
from serving.policies import Policies
from serving.settings import Settings
from serving.store.schema import decisions, events
from serving.store.store import Store
from tests.features.histories import RATES, Events, histories
from tests.serving.champions import fixed
from tests.serving.test_desk import BODY, ME, NAMES, NOW, SECRET, Clock, Hooked, data, report

REFUNDS = "refund_count_by_customer_30d"
ORDERS = "order_count_by_customer_365d"


def desk_over(store: Store, policy: Policy, rates: Rates | None = None) -> Desk:
    models = Models(fixed())
    return Desk(store, Policies(policy), models, rates or Rates("GBP"), SECRET, deadline_ms=60_000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Hooked]:
    opened = Hooked.open(f"sqlite:///{tmp_path}/skew.db", SECRET)
    yield opened
    opened.close()


@pytest.fixture
def desk(store: Hooked, policy: Policy) -> Desk:
    return desk_over(store, policy)


@pytest.fixture
def now() -> Clock:
    return Clock()


def found(desk: Desk, **between: int) -> Skew:
    return skew(desk.store, desk.rates, **between)


def counts(skew: Skew) -> dict[str, int]:
    """The counts that are not nothing."""
    return {name: n for name, n in skew.counts.items() if n and name != "features"}


def change(desk: Desk, score_id: str, **changes: Any) -> None:
    """Tamper with the record of a decision."""
    decision = desk.store.decision(score_id)
    with desk.store.database.write() as connection:
        connection.execute(delete(decisions).where(decisions.c.score_id == score_id))
    with desk.store.write() as tx:
        tx.save_decision(replace(decision, record={**decision.record, **changes}))


def change_row(desk: Desk, score_id: str, **changes: float | None) -> None:
    """Tamper with features that a decision logged."""
    row = desk.store.decision(score_id).record["features"]
    change(desk, score_id, features={**row, **changes})


def append(desk: Desk, *arriving: Event) -> list[str]:
    """What a backfill does: events come now that were known before."""
    with desk.store.write() as tx:
        return [appended.event_id for appended in tx.append(arriving)]


def backfilled_order(known_at: int, **more: Any) -> Order:
    facts = {"order_id": "o-late", "customer_id": NAMES["customer"], "amount_minor": 700}
    return Order(**{**facts, "known_at": known_at, "currency": "GBP", **more})


# --- agreement -----------------------------------------------------------------------------------


def test_what_was_served_is_what_is_computed(desk, now):
    stranger = {**deepcopy(BODY), "customer": {"customerId": "somebody else"}}
    for number in range(4):
        desk.decide(report(refund_id=f"r-{number}"), now, ME)
        desk.decide(report(stranger, f"s-{number}", amount=100 + number), now, ME)
        paid = {**BODY, "refund": {"refundId": f"r-{number}", "status": "COMPLETED"}}
        desk.record(contract.parse_refund(orjson.dumps(paid), scored=False), now(), "key:key_1")
    last = desk.decide(report(refund_id="r-last"), now, ME)
    told = found(desk)
    assert counts(told) == {"decisions": 9, "compared": 9, "equal": 9}
    assert told.is_exact
    row = desk.store.decision(data(last)["scoreId"]).record["features"]
    assert row[REFUNDS] == 4, "equality over nothing would mean little"


def test_of_no_decisions_nothing_is_found(desk):
    assert counts(found(desk)) == {}
    assert found(desk).is_exact


def test_only_the_decisions_of_the_time_asked_for_are_compared(desk):
    for number in range(4):
        desk.decide(report(refund_id=f"r-{number}"), lambda at=NOW + number: at, ME)
    assert found(desk, since=NOW + 1).decisions == 3
    assert found(desk, since=NOW + 1, until=NOW + 3).decisions == 2


def test_a_request_sent_again_from_another_device_is_compared_as_it_was_sent(desk, now):
    desk.decide(report(), now, ME)
    other = {**BODY, "device": {**BODY["device"], "deviceId": "another device"}}
    again = desk.decide(report(other), now, ME)
    assert not again.replayed
    desk.decide(report(other, "r-2"), now, ME)
    assert [e.event_type for e in desk.store.events()].count("refund_request") == 2
    assert counts(found(desk)) == {"decisions": 3, "compared": 3, "equal": 3}


def test_amounts_are_compared_under_the_rates_that_served_them(store, policy, now):
    rates = Rates.of("GBP", [("2026-01-01", "USD", 0.75)])
    desk = desk_over(store, policy, rates)
    for number in range(2):
        desk.decide(report(refund_id=f"r-{number}", amount=1000, currency="USD"), now, ME)
    assert skew(store, rates).equal == 2
    assert skew(store, Rates("GBP")).mismatched == 2
    assert counts(skew(store, Rates("EUR"))) == {"decisions": 2, "other_catalog": 2}


# --- differences ---------------------------------------------------------------------------------


def test_a_value_that_was_not_so_is_mismatched_and_named(desk, now):
    desk.decide(report(refund_id="r-0"), now, ME)
    score_id = data(desk.decide(report(), now, ME))["scoreId"]
    change_row(desk, score_id, **{REFUNDS: 7})
    told = found(desk)
    assert counts(told) == {"decisions": 2, "compared": 2, "equal": 1, "mismatched": 1}
    assert not told.is_exact
    (difference,) = told.mismatches
    assert (difference.kind, difference.refund_id, difference.score_id) == (
        "mismatched", "r-1", score_id
    )  # fmt: skip
    assert (difference.feature, difference.logged, difference.recomputed) == (REFUNDS, 7, 1)
    (before,) = [e for e in difference.events if e.known_at < difference.cutoff]
    assert before.event_type == "refund_request"
    assert told.differing_features == {REFUNDS: 1}
    for part in (REFUNDS, "r-1", " 7", " 1", before.event_id):
        assert part in str(difference)


def test_unknown_is_not_zero_and_equals_unknown(desk, now):
    score_id = data(desk.decide(report(), now, ME))["scoreId"]
    row = desk.store.decision(score_id).record["features"]
    unknown, zero = (next(name for name in row if row[name] == value) for value in (None, 0))
    change_row(desk, score_id, **{unknown: 0, zero: None})
    told = {d.feature: (d.logged, d.recomputed) for d in found(desk).mismatches}
    assert told == {unknown: (0, None), zero: (None, 0)}


def test_what_was_backfilled_since_is_late_and_the_event_is_named(desk, now):
    desk.decide(report(), now, ME)
    (event_id,) = append(desk, backfilled_order(NOW - DAY_MS))
    told = found(desk)
    assert counts(told) == {"decisions": 1, "compared": 1, "late_visible": 1}
    assert told.is_exact
    (difference,) = [d for d in told.late if d.feature == ORDERS]
    assert (difference.logged, difference.recomputed) == (0, 1)
    (event,) = difference.events
    assert (event.event_id, event.event_type, event.known_at) == (event_id, "order", NOW - DAY_MS)
    assert event.seq > difference.snapshot
    assert told.mismatches == []
    assert event_id in str(difference)


def test_what_was_backfilled_outside_every_window_or_after_the_cutoff_changes_nothing(desk, now):
    desk.decide(report(), now, ME)
    append(desk, backfilled_order(NOW), backfilled_order(NOW - DAY_MS, customer_id="another"))
    assert found(desk).equal == 1


def test_an_event_that_belongs_to_the_customer_by_what_it_names_is_named_too(desk, now):
    desk.decide(report(refund_id="r-0"), lambda: NOW - 2 * DAY_MS, ME)
    desk.decide(report(), now, ME)
    (event_id,) = append(
        desk, RefundOutcome(refund_id="r-0", known_at=NOW - DAY_MS, status="COMPLETED")
    )
    told = found(desk)
    assert counts(told) == {"decisions": 2, "compared": 2, "equal": 1, "late_visible": 1}
    by_feature = {d.feature: d for d in told.late}
    completed = by_feature["refund_completed_count_by_customer_30d"]
    assert (completed.logged, completed.recomputed) == (0, 1)
    assert [event.event_id for event in completed.events] == [event_id]


def test_a_concurrent_commit_is_late_and_nothing_else(store, desk, now):
    other = {**BODY, "customer": {"customerId": "somebody else"}}
    store.between(lambda: desk.decide(report(other, "r-other"), lambda: NOW - 5, ME))
    desk.decide(report(), now, ME)
    told = found(desk)
    assert counts(told) == {"decisions": 2, "compared": 2, "equal": 1, "late_visible": 1}
    devices = next(d for d in told.late if d.feature == "refund_count_by_device_7d")
    assert (devices.logged, devices.recomputed) == (0, 1)
    assert "refund_request" in {event.event_type for event in devices.events}


def test_a_wrong_value_is_told_from_a_late_one_in_the_same_row(desk, now):
    score_id = data(desk.decide(report(), now, ME))["scoreId"]
    change_row(desk, score_id, **{REFUNDS: 7})
    append(desk, backfilled_order(NOW - DAY_MS))
    told = found(desk)
    assert counts(told) == {"decisions": 1, "compared": 1, "mismatched": 1}
    assert [(d.feature, d.recomputed) for d in told.mismatches] == [(REFUNDS, 0)]
    assert {d.feature: d.recomputed for d in told.late}[ORDERS] == 1
    assert told.findings[0] is told.mismatches[0]


def test_differences_and_their_events_are_listed_up_to_a_bound_and_counted_beyond(desk, now):
    append(desk, *(backfilled_order(NOW - n, order_id=f"o-{n}") for n in range(1, 31)))
    for number in range(12):
        desk.decide(report(refund_id=f"r-{number}"), now, ME)
    for decision in desk.store.decisions():
        change(desk, decision.score_id, features=dict.fromkeys(BY_NAME, -1.5))
    told = found(desk)
    assert told.mismatched == 12
    assert len(told.mismatches) == MOST_LISTED < sum(told.differing_features.values())
    assert max(len(d.events) for d in told.mismatches) == MOST_EVENTS
    assert json.loads(json.dumps(told.to_json()))["mismatched"] == 12


# --- gaps ----------------------------------------------------------------------------------------


def test_a_decision_whose_request_is_gone_is_missing(desk, now):
    desk.decide(report(refund_id="r-0"), now, ME)
    score_id = data(desk.decide(report(), now, ME))["scoreId"]
    event_id = desk.store.decision(score_id).record["event_id"]
    with desk.store.database.write() as connection:
        connection.execute(delete(events).where(events.c.event_id == event_id))
    told = found(desk)
    assert counts(told) == {"decisions": 2, "compared": 1, "equal": 1, "missing": 1}
    assert not told.is_exact
    (gap,) = told.gaps
    assert (gap.kind, gap.refund_id, gap.score_id) == ("missing", "r-1", score_id)
    assert event_id in gap.problem


WHOLE = dict.fromkeys(BY_NAME, 0.0)
GAPS = {
    "none": (None, "missing", "it has no row"),
    "empty": ({}, "missing", "it has no row"),
    "one less": ({n: v for n, v in WHOLE.items() if n != REFUNDS}, "missing", REFUNDS),
    "one more": ({**WHOLE, "refund_cuont": 1.0}, "extra", "refund_cuont"),
}


@pytest.mark.parametrize(("row", "kind", "problem"), GAPS.values(), ids=GAPS)
def test_a_row_that_is_not_the_catalogs_is_missing_or_extra(desk, now, row, kind, problem):
    score_id = data(desk.decide(report(), now, ME))["scoreId"]
    change(desk, score_id, features=row)
    told = found(desk)
    assert counts(told) == {"decisions": 1, kind: 1}
    assert not told.is_exact
    assert problem in str(told.gaps[0])


def test_a_row_of_another_catalog_is_counted_apart(desk, now):
    score_id = data(desk.decide(report(), now, ME))["scoreId"]
    change(desk, score_id, catalog_hash="of before", features={"of_before": 1})
    desk.decide(report(refund_id="r-2"), now, ME)
    told = found(desk)
    assert counts(told) == {"decisions": 2, "compared": 1, "equal": 1, "other_catalog": 1}
    assert told.is_exact


def test_where_no_row_can_be_compared_nothing_is_vouched_for(desk, now):
    score_id = data(desk.decide(report(), now, ME))["scoreId"]
    change(desk, score_id, catalog_hash="of before")
    told = found(desk)
    assert counts(told) == {"decisions": 1, "other_catalog": 1}
    assert not told.is_exact


@pytest.mark.parametrize("lost", [{"keys": {"customer": "somebody"}}, {"cutoff": 1}])
def test_keys_and_times_that_the_request_did_not_have_are_no_grounds(desk, now, lost):
    score_id = data(desk.decide(report(), now, ME))["scoreId"]
    change(desk, score_id, **lost)
    told = found(desk)
    assert counts(told) == {"decisions": 1, "missing": 1}
    assert "not those of its request event" in str(told.gaps[0])


def test_a_decision_made_meanwhile_is_left_to_the_next_run(store, desk, now):
    class Busy(Hooked):
        def events(self, until_seq: int | None = None) -> Iterator[Any]:
            yield from list(super().events(until_seq))
            desk.decide(report(refund_id=f"r-{now()}"), now, ME)

    desk.decide(report(), now, ME)
    busy = Busy(store.database, store.identifiers, store.clock)
    assert counts(skew(busy, desk.rates)) == {"decisions": 1, "compared": 1, "equal": 1}


# --- any history ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """A report of nothing but a refund request, as the desk takes it."""

    request: RefundRequest

    @property
    def customer(self) -> Any:
        return SimpleNamespace(customer_id=self.request.customer_id)

    @property
    def order(self) -> Any:
        return SimpleNamespace(order_id=self.request.order_id)

    @property
    def refund(self) -> Any:
        asked = self.request
        return SimpleNamespace(
            refund_id=asked.refund_id, amount=asked.amount_minor, currency=asked.currency,
            non_refundable_amount=asked.non_refundable_minor,
        )  # fmt: skip

    @property
    def content_hash(self) -> str:
        return f"{self.request.event_id} {self.request.model_dump(exclude={'known_at'})}"

    def events(self, known_at: int) -> list[Event]:
        return [self.request.model_copy(update={"known_at": known_at})]

    def warnings(self) -> list[Any]:
        return []


@settings(max_examples=25, deadline=None)
@given(history=histories(), data=st.data())
def test_whatever_happened_serving_and_training_agree(policy, history, data):
    with TemporaryDirectory() as folder:
        store = Store.open(f"sqlite:///{folder}/any.db", SECRET)
        desk = desk_over(store, policy, Rates.of("GBP", RATES))
        for event in data.draw(arrivals(history)):
            if isinstance(event, RefundRequest):
                desk.decide(Scored(event), lambda at=event.known_at: at, ME)
            else:
                append(desk, event)
        told = found(desk)
        store.close()
    assert told.decisions > 0
    assert told.is_exact, [str(one) for one in told.findings]
    assert told.compared == told.decisions == told.equal + told.late_visible


@st.composite
def arrivals(draw: st.DrawFn, history: Events) -> list[Event]:
    """The events in the order of their times, some that are about others much later.

    Two versions of one refund at one instant come in the order that a data folder has them in.
    """
    timed = []
    for kind, rows in history.items():
        for row in rows:
            delay = 0 if kind == "refund_request" else draw(st.sampled_from((0, 0, 200)))
            given = {name: value for name, value in row.items() if value is not None}
            event_id = given.get("event_id") or derive_event_id(
                kind, given, repeats=EVENTS[kind].repeats
            )
            event = EVENTS[kind](**{**given, "event_id": f"{kind} {event_id}"})
            at = event.known_at + delay * DAY_MS
            timed.append((at, kind != "refund_request", event.event_id, event))
    return [event for *_, event in sorted(timed, key=lambda one: one[:3])]


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def recourse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., Any]:
    """Run ``recourse …`` over the home `home_desk` is in: exit code, output, errors."""
    monkeypatch.setenv("RECOURSE_HOME", str(tmp_path))

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["recourse", *words])
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def home_desk(tmp_path: Path, policy: Policy) -> Iterator[Desk]:
    home = Settings(home=tmp_path)
    opened = Store.open(home.database_url_of("sandbox"), home.secret_bytes())
    yield desk_over(opened, policy)
    opened.close()


def test_the_command_is_silent_about_what_agrees(home_desk, now, recourse):
    home_desk.decide(report(), now, ME)
    code, out, err = recourse("skew", "--mode", "test")
    assert (code, err) == (0, "")
    assert re.search(r"equal +1\n", out)
    assert re.search(r"late visible +0\n", out)
    code, out, _ = recourse("skew", "--mode", "test", "--json", "--since", str(NOW + 1))
    assert (code, json.loads(out)["decisions"]) == (0, 0)


def test_the_command_tells_what_differs_and_ends_with_code_1(home_desk, now, recourse):
    score_id = data(home_desk.decide(report(), now, ME))["scoreId"]
    change_row(home_desk, score_id, **{REFUNDS: 7})
    code, out, err = recourse("skew", "--mode", "test")
    assert code == 1
    assert f"mismatched: {REFUNDS} of refund r-1 was 7, recomputed 0" in out
    assert err == "the test store: 1 rows are mismatched, 0 missing, 0 extra; expected none\n"
    code, out, _ = recourse("skew", "--mode", "test", "--json")
    (difference,) = json.loads(out)["mismatches"]
    assert (code, difference["feature"], difference["logged"]) == (1, REFUNDS, 7)


def test_a_time_that_is_none_is_a_wrong_call(recourse):
    code, out, err = recourse("skew", "--until", "yesterday")
    assert (code, out) == (2, "")
    assert "--until: expected ISO 8601" in err
