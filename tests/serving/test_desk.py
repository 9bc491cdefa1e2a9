"""The desk: what it answers is what it keeps, whatever fails and whoever else asks meanwhile."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy.exc import OperationalError

from features.money import DAY_MS, Rates
from features.packed import LAYOUT
from serving import contract
from serving.desk import OPTIMISTIC_TRIES, Desk, KeyReusedError, Sender
from serving.metrics import Metrics
from serving.models import Models
from serving.policies import Policies
from serving.store.decisions import IDEMPOTENCY_MS
from serving.store.store import Store, Transaction
from tests.serving.champions import fixed

SECRET = b"a secret of 16 bytes or more"
NOW = 1_780_000_000_000
ME = Sender("key_1")
CONTRACT = Path(__file__).parents[1] / "contract"
CHAMPION = fixed()
NAMES = {
    "customer": "cust-in-clear",
    "email": "someone@in-clear.example",
    "device": "device-in-clear",
    "ip": "203.0.113.77",
    "method": "card-in-clear",
    "street": "12 Clear Street",
}

BODY: dict[str, Any] = {
    "timestamp": NOW,
    "customer": {"customerId": NAMES["customer"], "email": NAMES["email"]},
    "order": {"orderId": "o-1", "orderTime": NOW - 9 * DAY_MS, "deliveredTime": NOW - 5 * DAY_MS,
              "price": 9000, "currency": "GBP"},
    "refund": {"refundId": "r-1", "status": "OPEN", "type": "REFUND", "amount": 1000,
               "currency": "GBP", "policy": "STATUTORY", "refundReason": "CHANGED_MIND",
               "items": [{"refundReason": "CHANGED_MIND", "quantity": 1, "finalSale": False}]},
    "device": {"deviceId": NAMES["device"], "ipAddress": NAMES["ip"]},
    "paymentMethods": [{"paymentMethodId": NAMES["method"]}],
    "addresses": {"shipping": {"street": NAMES["street"], "country": "GB"}},
}  # fmt: skip
"""A refund that no rule of the default policy has anything against."""

LATE_BODY = deepcopy(BODY)
LATE_BODY["order"]["deliveredTime"] = NOW - 31 * DAY_MS
LATE_BODY["order"]["orderTime"] = NOW - 35 * DAY_MS
"""The same, outside the return window: a hard rule prevents it."""


def report(body: dict[str, Any] = BODY, refund_id: str | None = None, **refund: Any) -> Any:
    """The report of a refund; one with an id of its own is of an order of its own."""
    made = {**body, "refund": {**body["refund"], **refund}}
    if refund_id:
        made["refund"]["refundId"] = refund_id
        made["order"] = {**body["order"], "orderId": f"order of {refund_id}"}
    return contract.parse_refund(orjson.dumps(made), scored=True)


class Clock:
    """One clock for all who ask: never the same time twice."""

    def __init__(self) -> None:
        self._ticks = itertools.count(NOW)  # a count's next is one step of the interpreter

    def __call__(self) -> int:
        return next(self._ticks)


class Hooked(Store):
    """A store in which something happens between a decision's read and its write."""

    def between(self, happening: Callable[[], None], times: int = 1) -> None:
        self._happening, self._left = happening, times

    def grounds(self, *of: Any) -> Any:
        found = super().grounds(*of)
        if getattr(self, "_left", 0) > 0:
            self._left -= 1
            self._happening()
        return found


class Unlucky(Store):
    """A store whose commits fail."""

    @contextmanager
    def write(
        self, customer_id: str | None = None, order_id: str | None = None
    ) -> Iterator[Transaction]:
        with super().write(customer_id, order_id) as tx:
            yield tx
            raise OperationalError("COMMIT", None, OSError("disk full"))


SQLITE = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
"""About its one lock, or its files."""


@pytest.fixture
def url(store_url: str) -> str:
    """An empty store: what a desk does is the same on each kind."""
    return store_url


@pytest.fixture
def open_desk(url, policy) -> Iterator[Callable[..., Desk]]:
    opened: list[Store] = []

    def open_one(kind: type[Store] = Store, **given: Any) -> Desk:
        opened.append(kind.open(url, SECRET, clock="ingest"))
        models = Models(given.pop("champion", CHAMPION), given.pop("challenger", None))
        usual = {"models": models, "policies": Policies(given.pop("policy", policy)),
                 "rates": Rates("GBP"), "secret": SECRET, "deadline_ms": 60_000}  # fmt: skip
        return Desk(store=opened[-1], **{**usual, **given})

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def desk(open_desk) -> Desk:
    return open_desk()


@pytest.fixture
def now() -> Clock:
    return Clock()


def data(answer: Any) -> dict[str, Any]:
    return answer.body["data"]


def kept(desk: Desk, answer: Any) -> dict[str, Any]:
    decision = desk.store.decision(data(answer)["scoreId"])
    assert decision is not None, "answered, and not kept"
    return decision.record


def earlier(desk: Desk, answer: Any) -> float:
    """How many earlier refunds of the customer a decision saw."""
    return kept(desk, answer)["features"]["refund_count_by_customer_1d"]


def said(answer: Any) -> list[str]:
    return [warning["msg"] for warning in data(answer)["warnings"]]


def classes(answer: Any) -> set[str]:
    return {warning["class"] for warning in data(answer)["warnings"]}


# --- durable before answered ---------------------------------------------------------------------


@pytest.mark.each_store
def test_an_answer_is_what_another_process_would_find(desk, now, url):
    answer = desk.decide(report(), now, ME)
    assert (data(answer)["action"], data(answer)["source"]) == ("ALLOW", "MODEL")
    other = Store.open(url, SECRET)
    (decision,) = other.decisions_of("r-1")
    assert decision.score_id == data(answer)["scoreId"]
    assert decision.response == {
        **answer.body, "data": {k: v for k, v in data(answer).items() if k != "customerId"}
    }  # fmt: skip
    assert decision.record["decision"]["action"] == "ALLOW"
    assert other.refund("r-1").state == "APPROVED"
    (entry,) = other.audit_about("refund:r-1")
    assert (entry.actor, entry.action) == ("key:key_1", "decided")
    assert entry.content["score_id"] == decision.score_id
    pairs = [("customer", "refund_request"), ("customer", "order")]
    rows = other.read({"customer": NAMES["customer"]}, NOW + 10, pairs).rows
    assert [len(rows[pair]) for pair in pairs] == [LAYOUT[kind].itemsize for _, kind in pairs]
    other.close()


@pytest.mark.each_store
def test_what_could_not_be_committed_is_not_answered(open_desk, now):
    with pytest.raises(OperationalError):
        open_desk(Unlucky).decide(report(), now, Sender("key_1", "k"))
    after = open_desk()
    assert after.store.refund("r-1") is None
    assert after.store.decisions_of("r-1") == after.store.audit_about("refund:r-1") == []
    assert not after.decide(report(), now, Sender("key_1", "k")).replayed


@pytest.mark.parametrize(
    ("probability", "action", "state"),
    [(0.01, "ALLOW", "APPROVED"), (0.6, "MANUAL_REVIEW", "NEEDS_REVIEW"),
     (0.99, "PREVENT", "DENIED")],
)  # fmt: skip
def test_the_refund_is_where_its_decision_puts_it(open_desk, now, probability, action, state):
    desk = open_desk(champion=fixed(probability))
    answer = desk.decide(report(amount=5000), now, ME)
    assert data(answer)["action"] == action
    assert desk.store.refund("r-1").state == state


def test_the_record_recomputes_the_answer(open_desk, now, champion):
    desk = open_desk(champion=champion)
    answer = desk.decide(report(), now, ME)
    record = kept(desk, answer)
    assert data(answer)["abuseProbability"] == round(record["probability"], 4)
    assert len(record["contributions"]) == len(champion.model.feature_names) + 1
    assert [r["code"] for r in data(answer)["reasons"]] == [r["code"] for r in record["reasons"]]
    assert record["model_version"] == data(answer)["modelVersion"] == "7"
    assert record["decision"]["policy_hash"] == desk.policies.now.hash
    assert record["cutoff"] == NOW


# --- a model that fails or is late ---------------------------------------------------------------

BROKEN = {
    "no model": lambda: None,
    "raises": lambda: fixed(fails=RuntimeError("boom")),
    "says nonsense": lambda: fixed(float("nan")),
    "late": lambda: fixed(seconds=0.03),
}


@pytest.fixture(params=BROKEN)
def without_model(request, open_desk) -> Desk:
    # Real time is compared with a real deadline, so the slow model is far beyond it.
    deadline_ms = 20 if request.param == "late" else 60_000
    return open_desk(champion=BROKEN[request.param](), deadline_ms=deadline_ms)


def test_without_a_score_the_fallback_decides_and_is_recorded(without_model, now):
    answer = without_model.decide(report(), now, ME)
    assert (data(answer)["action"], data(answer)["source"]) == ("MANUAL_REVIEW", "FALLBACK")
    assert data(answer)["degraded"]
    assert "degraded" in classes(answer)
    assert not {"score", "abuseProbability", "riskLevel"} & data(answer).keys()
    record = kept(without_model, answer)
    assert record["problem"]
    assert record["probability"] is record["contributions"] is None
    assert without_model.store.refund("r-1").state == "NEEDS_REVIEW"


def test_without_a_score_hard_rules_hold(without_model, now):
    answer = without_model.decide(report(LATE_BODY), now, ME)
    assert (data(answer)["action"], data(answer)["source"]) == ("PREVENT", "RULE")
    assert [reason["code"] for reason in data(answer)["reasons"]] == ["POLICY_WINDOW_EXCEEDED"]
    assert data(answer)["degraded"]
    assert kept(without_model, answer)["decision"]["action"] == "PREVENT"


def test_a_degraded_decision_is_history_as_any_other(without_model, now):
    without_model.decide(report(), now, ME)
    assert earlier(without_model, without_model.decide(report(refund_id="r-2"), now, ME)) == 1


# --- one customer, many refunds at once ----------------------------------------------------------


@pytest.mark.each_store
def test_a_customer_who_moved_between_read_and_write_is_decided_again(open_desk, now):
    other, desk = open_desk(), open_desk(Hooked)
    desk.store.between(lambda: other.decide(report(refund_id="r-other"), now, ME))
    answer = desk.decide(report(), now, ME)
    assert earlier(desk, answer) == 1
    assert len(desk.store.decisions_of("r-1")) == 1
    assert earlier(other, other.decide(report(refund_id="r-last"), now, ME)) == 2


@pytest.mark.each_store
def test_a_customer_who_keeps_moving_is_decided_under_the_lock(open_desk, now):
    others, desk = open_desk(), open_desk(Hooked)
    ids = (f"r-other-{number}" for number in itertools.count())
    desk.store.between(
        lambda: others.decide(report(refund_id=next(ids)), now, ME), OPTIMISTIC_TRIES
    )
    assert earlier(desk, desk.decide(report(), now, ME)) == OPTIMISTIC_TRIES


@pytest.mark.each_store
@pytest.mark.parametrize("attempt", range(OPTIMISTIC_TRIES))
def test_what_commits_between_cutoff_and_read_is_seen(open_desk, now, attempt):
    """The other one's time is later than the cutoff, and it is committed before the read."""
    other, desk = open_desk(), open_desk(Hooked)
    asked = 0

    def interrupted() -> int:
        nonlocal asked
        cutoff, asked = now(), asked + 1
        if asked == attempt + 1:
            other.decide(report(refund_id="r-other"), now, ME)
        return cutoff

    if attempt:
        desk.store.between(lambda: other.decide(report(refund_id="r-first"), now, ME))
    assert earlier(desk, desk.decide(report(), interrupted, ME)) == attempt + 1


@SQLITE
def test_the_cutoff_of_a_decision_under_the_lock_is_later_than_what_it_waited_for(open_desk, now):
    others, desk = open_desk(), open_desk(Hooked)
    ids = (f"r-other-{number}" for number in itertools.count())
    desk.store.between(
        lambda: others.decide(report(refund_id=next(ids)), now, ME), OPTIMISTIC_TRIES
    )
    held: list[bool] = []

    def watched() -> int:
        with ThreadPoolExecutor(1) as pool:  # SQLite's lock is the connection's, not the thread's
            held.append(pool.submit(_is_locked, others.store).result())
        return now()

    desk.decide(report(), watched, ME)
    assert held == [False] * OPTIMISTIC_TRIES + [True]


def _is_locked(store: Store) -> bool:
    with store.database.read() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError:
            return True
        finally:
            connection.exec_driver_sql("PRAGMA busy_timeout = 5000")
        connection.exec_driver_sql("ROLLBACK")
        return False


@pytest.mark.each_store
@pytest.mark.parametrize("_", range(2))
def test_ten_refunds_at_once_each_see_those_before(open_desk, now, _):
    desks = [open_desk(), open_desk()]
    start = threading.Barrier(10)

    def decide(number: int) -> Any:
        start.wait()
        return desks[number % 2].decide(report(refund_id=f"r-{number}"), now, ME)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(decide, range(10)))
    records = [kept(desks[0], answer) for answer in answers]
    in_order = sorted(records, key=lambda record: record["cutoff"])
    seen = [record["features"]["refund_count_by_customer_1d"] for record in in_order]
    assert seen == list(range(10))
    actions = [record["decision"]["action"] for record in in_order]
    assert actions == ["ALLOW"] * 3 + ["MANUAL_REVIEW"] * 7  # three earlier ones in 30 days hold it


def test_another_customers_refunds_are_no_reason_to_decide_again(open_desk, now):
    other, desk = open_desk(), open_desk(Hooked)
    stranger = {**BODY, "customer": {"customerId": "somebody else"}}
    desk.store.between(lambda: other.decide(report(stranger, "r-other"), now, ME))
    times = []
    desk.decide(report(), lambda: times.append(now()) or times[-1], ME)
    assert len(times) == 1


# --- asked again ---------------------------------------------------------------------------------


@pytest.mark.each_store
def test_the_same_refund_again_gets_the_same_answer_and_counts_once(desk, now):
    first = desk.decide(report(), now, ME)
    told_later = {**BODY, "timestamp": NOW + 99, "device": {**BODY["device"], "userAgent": "x"}}
    again = desk.decide(report(told_later), now, Sender("key_2"))
    assert (first.replayed, again.replayed) == (False, True)
    assert again.body == first.body
    assert data(again)["customerId"] == NAMES["customer"]
    assert len(desk.store.decisions_of("r-1")) == 1
    assert len(desk.store.audit_about("refund:r-1")) == 1
    assert earlier(desk, desk.decide(report(refund_id="r-2"), now, ME)) == 1


@pytest.mark.each_store
def test_a_refund_with_another_amount_is_decided_anew_and_still_counts_once(desk, now):
    first = desk.decide(report(), now, ME)
    other = desk.decide(report(amount=900), now, ME)
    assert not other.replayed
    assert data(other)["scoreId"] != data(first)["scoreId"]
    assert earlier(desk, other) == 0
    assert kept(desk, other)["features"]["payable_minor"] == 900
    assert [d.score_id for d in desk.store.decisions_of("r-1")] == [
        data(other)["scoreId"], data(first)["scoreId"]
    ]  # fmt: skip
    assert earlier(desk, desk.decide(report(refund_id="r-2"), now, ME)) == 1
    assert desk.decide(report(), now, ME).body == first.body


def test_a_paid_refund_with_another_amount_is_prevented_and_stays_paid(desk, now):
    desk.decide(report(), now, ME)
    outcome = {**BODY, "refund": {"refundId": "r-1", "status": "COMPLETED"}}
    desk.record(contract.parse_refund(orjson.dumps(outcome), scored=False), now(), "key:key_1")
    again = desk.decide(report(amount=900), now, ME)
    assert data(again)["action"] == "PREVENT"
    assert data(again)["reasons"][0]["code"] == "ALREADY_REFUNDED"
    assert desk.store.refund("r-1").state == "REFUNDED"


def test_an_idempotency_key_replays_its_first_result(desk, now):
    me = Sender("key_1", "k-1")
    first = desk.decide(report(), now, me)
    again = desk.decide(report(), now, me)
    assert again.replayed
    assert again.body == first.body


@pytest.mark.each_store
def test_an_idempotency_key_with_other_content_is_refused_and_nothing_kept(desk, now):
    me = Sender("key_1", "k-1")
    desk.decide(report(), now, me)
    with pytest.raises(KeyReusedError, match=r"Idempotency-Key: 'k-1' was used with other content"):
        desk.decide(report(refund_id="r-2"), now, me)
    assert desk.store.refund("r-2") is None
    assert not desk.decide(report(refund_id="r-2"), now, Sender("key_2", "k-1")).replayed


def test_a_key_that_was_answered_by_a_replay_is_bound_to_that_content(desk, now):
    first = desk.decide(report(), now, ME)
    me = Sender("key_1", "k-1")
    assert desk.decide(report(), now, me).body == first.body
    with pytest.raises(KeyReusedError):
        desk.decide(report(refund_id="r-2"), now, me)


@pytest.mark.each_store
def test_an_idempotency_key_is_free_again_after_a_day(desk):
    me = Sender("key_1", "k-1")
    desk.decide(report(), lambda: NOW, me)
    with pytest.raises(KeyReusedError):
        desk.decide(report(refund_id="r-2"), lambda: NOW + IDEMPOTENCY_MS - 1, me)
    assert not desk.decide(report(refund_id="r-2"), lambda: NOW + IDEMPOTENCY_MS, me).replayed


# --- the sandbox and the lists -------------------------------------------------------------------

FORCED = {
    "qa-force-refund-allow@any.example": "ALLOW",
    "qa-force-refund-prevent@any.example": "PREVENT",
    "QA-Force-Refund-ManualReview+7@any.example": "MANUAL_REVIEW",
    "qa-force-refund-review@any.example": "REVIEW",
}


def sent_by(email: str, body: dict[str, Any] = BODY) -> Any:
    return report({**body, "customer": {**body["customer"], "email": email}})


@pytest.mark.parametrize(("email", "action"), FORCED.items())
def test_the_sandbox_answers_as_it_is_told(open_desk, now, email, action):
    desk = open_desk(is_sandbox=True)
    answer = desk.decide(sent_by(email), now, ME)
    assert (data(answer)["action"], data(answer)["source"]) == (action, "RULE")
    assert kept(desk, answer)["decision"]["action"] == action


@pytest.mark.parametrize("email", FORCED)
def test_nobody_tells_the_live_desk_what_to_answer(desk, now, email):
    assert data(desk.decide(sent_by(email, LATE_BODY), now, ME))["action"] == "PREVENT"


def test_the_sandbox_decides_by_itself_what_it_is_not_told(open_desk, now):
    desk = open_desk(is_sandbox=True)
    answer = desk.decide(sent_by("not-qa-force-refund-allow@any.example", LATE_BODY), now, ME)
    assert data(answer)["action"] == "PREVENT"


def put_on(desk: Desk, name: str, entity: str = "customer", **more: Any) -> None:
    with desk.store.write() as tx:
        tx.put_on_list(name, entity, NAMES[entity], reason=f"on the {name} list", author="ann",
                       at=NOW, **more)  # fmt: skip


@pytest.mark.parametrize("entity", ["customer", "email", "device", "ip"])
def test_a_blocked_entity_is_prevented(desk, now, entity):
    put_on(desk, "block", entity)
    answer = desk.decide(report(), now, ME)
    assert (data(answer)["action"], data(answer)["source"]) == ("PREVENT", "LIST")
    assert {"code": "LISTED", "description": "on the block list"} in data(answer)["reasons"]


def test_an_allowed_customer_passes_the_bands_but_no_hard_rule(open_desk, now):
    desk = open_desk(champion=fixed(0.99))
    put_on(desk, "allow")
    answer = desk.decide(report(amount=5000), now, ME)
    assert (data(answer)["action"], data(answer)["source"]) == ("ALLOW", "LIST")
    late = desk.decide(report(LATE_BODY, "r-2"), now, ME)
    assert (data(late)["action"], data(late)["source"]) == ("PREVENT", "RULE")


def test_who_is_on_both_lists_is_blocked(desk, now):
    put_on(desk, "allow")
    put_on(desk, "block", "device")
    assert data(desk.decide(report(), now, ME))["action"] == "PREVENT"


@pytest.mark.each_store
def test_an_entry_that_has_expired_bears_on_nothing(desk, now):
    put_on(desk, "block", expires_at=NOW)
    assert data(desk.decide(report(), now, ME))["action"] == "ALLOW"


# --- personal data -------------------------------------------------------------------------------


def test_neither_records_nor_responses_hold_an_identifier(open_desk, now, champion, tmp_path):
    desk = open_desk(champion=champion)
    answers = [
        desk.decide(report(), now, Sender("key_1", "k")),
        desk.decide(report(LATE_BODY, "r-2"), now, ME),
    ]
    for answer in answers:
        decision = desk.store.decision(data(answer)["scoreId"])
        for document in (decision.record, decision.response):
            told = orjson.dumps(document).decode()
            assert not [name for name in NAMES.values() if name in told]
        assert decision.record["keys"].keys() >= {"customer", "email", "device", "ip"}
    (entry,) = desk.store.audit_about("refund:r-1")
    assert not [name for name in NAMES.values() if name in str(entry)]


@SQLITE
def test_no_identifier_is_in_the_files_in_clear(open_desk, now, tmp_path):
    desk = open_desk()
    put_on(desk, "block", "device")
    desk.decide(report(), now, Sender("key_1", "k"))
    desk.decide(report(), now, Sender("key_1", "k"))
    desk.store.close()
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"r-1" in files, "the files hold what was decided"
    assert not [name for name in NAMES.values() if name.encode() in files]


def test_a_replay_names_the_customer_though_the_kept_response_does_not(desk, now):
    desk.decide(report(), now, ME)
    (decision,) = desk.store.decisions_of("r-1")
    assert "customerId" not in decision.response["data"]
    assert data(desk.decide(report(), now, ME))["customerId"] == NAMES["customer"]


# --- what is no history --------------------------------------------------------------------------


def test_an_ignored_refund_is_decided_and_is_no_history(desk, now):
    first = desk.decide(report(ignore=True), now, ME)
    assert data(first)["action"] == "ALLOW"
    assert desk.decide(report(ignore=True), now, ME).replayed
    assert earlier(desk, desk.decide(report(refund_id="r-2"), now, ME)) == 0


def test_a_refund_ignored_later_stays_the_history_that_it_was(desk, now):
    desk.decide(report(), now, ME)
    desk.decide(report(ignore=True), now, ME)
    assert earlier(desk, desk.decide(report(refund_id="r-2"), now, ME)) == 1


def test_warming_up_keeps_nothing(open_desk, now, champion):
    desk = open_desk(champion=champion)
    desk.warm_up()
    assert desk.store.refund("-") is None
    assert desk.store.decisions_of("-") == []
    assert "customer-not-found" in classes(desk.decide(report(), now, ME))


# --- warnings ------------------------------------------------------------------------------------


def test_an_unknown_customer_and_order_are_warned_about_once_only(desk, now):
    bare = {**BODY, "order": {k: v for k, v in BODY["order"].items() if k != "price"}}
    found = {"customer-not-found", "order-not-found"}
    assert classes(desk.decide(report(bare), now, ME)) & found == found
    assert classes(desk.decide(report(refund_id="r-2"), now, ME)) & found == set()
    bare["order"]["orderId"] = "order of r-2"
    again = report(bare, amount=1, refundId="r-3")
    assert classes(desk.decide(again, now, ME)) & found == set(), "the order was told since"


def test_a_rule_that_cannot_be_settled_is_said_to_be_so(desk, now):
    bare = {**BODY, "order": {"orderId": "o-1", "price": 9000, "currency": "GBP"}}
    answer = desk.decide(report(bare), now, ME)
    assert data(answer)["action"] == "MANUAL_REVIEW"
    told = [w["msg"] for w in data(answer)["warnings"] if w["class"] == "fact-missing"]
    assert any("return_window_unproven" in msg and "ordered_age_days" in msg for msg in told)
    (reason,) = [r for r in data(answer)["reasons"] if r["code"] == "FACT_MISSING"]
    assert reason["description"].startswith("not settled, as ")


# --- reports -------------------------------------------------------------------------------------


def outcome(status: str, refund_id: str = "r-1", **refund: Any) -> Any:
    body = {"customer": BODY["customer"], "order": {"orderId": "o-1"},
            "refund": {"refundId": refund_id, "status": status, **refund}}  # fmt: skip
    return contract.parse_refund(orjson.dumps(body), scored=False)


@pytest.mark.each_store
def test_a_report_is_kept_and_audited(desk, now):
    desk.decide(report(), now, ME)
    answer = desk.record(outcome("COMPLETED"), now(), "key:key_1")
    assert data(answer)["warnings"] == []
    assert desk.store.refund("r-1").state == "REFUNDED"
    assert [entry.action for entry in desk.store.audit_about("refund:r-1")] == [
        "decided", "reported"
    ]  # fmt: skip
    again = desk.decide(report(refund_id="r-2"), now, ME)
    assert kept(desk, again)["features"]["refund_completed_count_by_customer_30d"] == 1


@pytest.mark.each_store
def test_a_surprise_is_kept_and_warned_about(open_desk, now):
    desk = open_desk(champion=fixed(0.99))
    desk.decide(report(amount=5000), now, ME)
    assert desk.store.refund("r-1").state == "DENIED"
    answer = desk.record(outcome("COMPLETED"), now(), "key:key_1")
    assert [w["class"] for w in data(answer)["warnings"]] == ["unexpected-transition"]
    assert desk.store.refund("r-1").state == "REFUNDED"
    strange = desk.record(outcome("COMPLETED", "r-never-seen"), now(), "key:key_1")
    assert "never seen before" in data(strange)["warnings"][0]["msg"]


@pytest.mark.each_store
@pytest.mark.parametrize("money", [{}, {"amount": 900, "currency": "GBP"}])
@pytest.mark.parametrize("status", ["COMPLETED", "DECLINED", "FAILED", "CANCELED"])
def test_an_outcome_of_a_refund_never_seen_is_told_whatever_it_says(open_desk, now, money, status):
    """Also where it says enough to be a request as well, which makes the refund known."""
    metrics = Metrics()
    desk = open_desk(metrics=metrics.of("live"))
    strange = outcome(status, "r-9", **money)
    for expected in ([f"refund.status: {status} reported of a refund never seen before"], []):
        assert said(desk.record(strange, now(), "key:key_1")) == expected
    metrics.carry()
    assert metrics.value("recourse_unexpected_transitions_total", store="live") == 1


@pytest.mark.each_store
def test_a_refund_that_was_reported_before_it_was_paid_is_no_surprise(desk, now):
    """Nobody need ask us."""
    money = {"amount": 900, "currency": "GBP"}
    asked = outcome("OPEN", "r-9", refundReason="CHANGED_MIND", **money)
    desk.record(asked, now(), "key:key_1")
    assert said(desk.record(outcome("COMPLETED", "r-9", **money), now(), "key:key_1")) == []


@pytest.mark.each_store
@pytest.mark.parametrize(("paid", "expected"), [
    ({"amount": 1000, "currency": "GBP"}, []),
    ({"amount": 1250, "currency": "GBP", "nonRefundableAmount": 250}, []),
    ({"amount": 1000}, []),
    ({"amount": 1001, "currency": "GBP"}, ["refund.amount: 1001 GBP reported as paid of a refund "
                                           "of which 1000 GBP was approved"]),
    ({"amount": 7000}, ["refund.amount: 7000 GBP reported as paid of a refund of which 1000 GBP "
                        "was approved"]),
    ({"amount": 10, "currency": "USD"}, ["refund.currency: 10 USD reported as paid of a refund "
                                         "of which 1000 GBP was approved"]),
])  # fmt: skip
def test_a_payment_of_more_than_was_approved_is_told(open_desk, now, paid, expected):
    metrics = Metrics()
    desk = open_desk(metrics=metrics.of("live"))
    assert data(desk.decide(report(), now, ME))["action"] == "ALLOW"
    assert said(desk.record(outcome("COMPLETED", **paid), now(), "key:key_1")) == expected
    assert desk.store.refund("r-1").state == "REFUNDED"
    metrics.carry()
    count = metrics.value("recourse_unexpected_transitions_total", store="live")
    assert (count or 0) == len(expected)


def test_more_than_nothing_is_more(desk, now):
    assert data(desk.decide(report(amount=0), now, ME))["action"] == "ALLOW"
    [more] = said(desk.record(outcome("COMPLETED", amount=1, currency="GBP"), now(), "key:key_1"))
    assert more.endswith("of which 0 GBP was approved")


def test_the_references_payment_of_more_than_its_request_is_recorded_and_told(open_desk, now):
    """Its request is of 750; that is allowed in the sandbox, and 7000 are told to be paid."""
    desk = open_desk(is_sandbox=True)
    asked, paid = ((CONTRACT / f"request-{name}.json").read_bytes()
                   for name in ("sandbox-allow", "outcome-full"))  # fmt: skip
    allowed = desk.decide(contract.parse_refund(asked, scored=True), now, ME)
    assert data(allowed)["action"] == "ALLOW"
    answer = desk.record(contract.parse_refund(paid, scored=False), now(), "key:key_1")
    assert answer.body["status"] == 200
    assert said(answer) == [
        "refund.amount: 7000 GBP reported as paid of a refund of which 750 GBP was approved"
    ]


@pytest.mark.each_store
def test_what_was_approved_is_known_after_less_was_paid(desk, now):
    desk.decide(report(), now, ME)

    def paid(amount: int) -> list[str]:
        told = outcome("COMPLETED", amount=amount, currency="GBP")
        return said(desk.record(told, now(), "key:key_1"))

    assert [paid(300), paid(1000)] == [[], []]
    [more] = paid(1100)
    assert more.endswith("of which 1000 GBP was approved")
    [less] = paid(200)
    assert "less is reported as paid than before" in less


@pytest.mark.each_store
def test_what_a_later_report_asks_for_is_not_approved_by_it(desk, now):
    desk.decide(report(), now, ME)
    money = {"amount": 7000, "currency": "GBP"}
    desk.record(outcome("OPEN", refundReason="CHANGED_MIND", **money), now(), "key:key_1")
    [more] = said(desk.record(outcome("COMPLETED", **money), now(), "key:key_1"))
    assert more.startswith("refund.amount: 7000 GBP")


def test_a_currency_without_an_exchange_rate_is_told_as_one(open_desk, now):
    """No field would help; a rate does."""
    order = {**BODY["order"], "price": 900_000, "currency": "JPY"}

    def waiting(refund_id: str, **given: Any) -> list[dict[str, str]]:
        asked = report({**BODY, "order": order}, refund_id, amount=100_000, currency="JPY")
        warnings = data(open_desk(**given).decide(asked, now, ME))["warnings"]
        return [warning for warning in warnings if "payable_minor" in warning["msg"]]

    warnings = waiting("r-1")
    assert warnings
    for warning in warnings:
        assert warning["class"] == "fact-missing"
        assert warning["msg"].endswith("; this store has no exchange rate for JPY")
        assert "recourse import" in warning["help"]
        assert ("Send the fields" in warning["help"]) == ("(" in warning["msg"])
    assert any("Send the fields" not in warning["help"] for warning in warnings)
    assert not waiting("r-2", rates=Rates.of("GBP", [("2026-01-01", "JPY", 0.005)]))


@pytest.mark.each_store
def test_a_report_makes_a_decision_in_flight_be_made_again(open_desk, now):
    other, desk = open_desk(), open_desk(Hooked)
    desk.decide(report(), now, ME)
    desk.store.between(lambda: other.record(outcome("COMPLETED"), now(), "key:key_1"))
    answer = desk.decide(report(amount=900), now, ME)
    assert data(answer)["action"] == "PREVENT"
