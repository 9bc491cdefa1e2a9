"""Labels: whose word counts, when, and what is in no training set; and a naive oracle of it all."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.catalog import CHARGEBACK_STAGES
from features.money import DAY_MS
from tests.training.tables import START, folder_of
from training.labels import CENSORED, CLEAN, IGNORED, IMMATURE, SOURCES, label_refunds

MATURITY_DAYS = 60
END = START + 400 * DAY_MS


def day(number: float) -> int:
    return START + round(number * DAY_MS)


def request(refund: str = "r1", at: float = 100, **more: Any) -> dict[str, Any]:
    return {"refund_id": refund, "customer_id": "c1", "order_id": "o1", "known_at": day(at),
            "amount_minor": 100, "currency": "GBP", **more}  # fmt: skip


def paid(refund: str = "r1", at: float = 101) -> dict[str, Any]:
    return {"refund_id": refund, "known_at": day(at), "status": "COMPLETED"}


def said(verdict: str, at: float, source: str | None = "ANALYST", **whom: str) -> dict[str, Any]:
    return {**(whom or {"refund_id": "r1"}), "known_at": day(at), "label": verdict,
            "source": source}  # fmt: skip


def chargeback(at: float, stage: str | None = "CHARGEBACK", **more: Any) -> dict[str, Any]:
    return {"dispute_id": "d1", "order_id": "o1", "known_at": day(at), "stage": stage, **more}


ABUSE, HONEST, UNREVIEWED = "REFUND_ABUSE", "NOT_REFUND_ABUSE", "UNREVIEWED"


def label_of(refund: str = "r1", as_of: int = END, **tables: Any) -> tuple[float, str]:
    folder = folder_of(**{"refund_requests": [request()], **tables})
    labels = label_refunds(folder, as_of=as_of, maturity_days=MATURITY_DAYS)
    ids = folder["refund_requests"]["refund_id"].take(labels.row).to_pylist()
    place = ids.index(refund)
    return float(labels.abuse[place]), str(labels.basis[place])


def is_left_out(label: tuple[float, str], why: str) -> bool:
    return math.isnan(label[0]) and label[1] == why


# --- maturity and censoring ----------------------------------------------------------------------


def test_paid_and_never_spoken_of_is_clean_once_mature() -> None:
    mature = day(100 + MATURITY_DAYS)
    assert label_of(refund_outcomes=[paid()], as_of=mature) == (0.0, CLEAN)
    assert is_left_out(label_of(refund_outcomes=[paid()], as_of=mature - 1), IMMATURE)


def test_an_early_label_makes_no_refund_mature() -> None:
    labels = [said(ABUSE, 105)]
    assert is_left_out(label_of(labels=labels, as_of=day(150)), IMMATURE)
    assert label_of(labels=labels, as_of=day(160)) == (1.0, "ANALYST")


@pytest.mark.parametrize("outcomes", [[], [{**paid(), "status": "DECLINED"}],
                                      [{**paid(), "status": "FAILED"}]])  # fmt: skip
def test_unlabelled_and_unpaid_is_censored_never_negative(outcomes: list[dict[str, Any]]) -> None:
    assert is_left_out(label_of(refund_outcomes=outcomes), CENSORED)


def test_a_successful_refund_transaction_is_a_payment() -> None:
    moved = {"transaction_id": "t", "refund_id": "r1", "known_at": day(102), "kind": "REFUND",
             "amount_minor": 100, "currency": "GBP", "success": None}  # fmt: skip
    assert label_of(transactions=[moved]) == (0.0, CLEAN)
    assert is_left_out(label_of(transactions=[{**moved, "success": False}]), CENSORED)
    assert is_left_out(label_of(transactions=[{**moved, "kind": "CAPTURE"}]), CENSORED)


def test_ignore_keeps_a_refund_out_on_whichever_version_it_came() -> None:
    versions = [request(), request(at=300, ignore=True)]
    label = label_of(refund_requests=versions, labels=[said(ABUSE, 110)], as_of=day(200))
    assert is_left_out(label, IGNORED)


def test_a_refund_counts_once_at_its_first_version() -> None:
    folder = folder_of(refund_requests=[request(), request(at=110, amount_minor=1)])
    labels = label_refunds(folder, as_of=END)
    assert len(labels) == 1 and labels.known_at.tolist() == [day(100)]


# --- whose word counts ---------------------------------------------------------------------------


def test_investigation_beats_chargeback_beats_analyst() -> None:
    labels = [said(HONEST, 105, "INVESTIGATION"), said(ABUSE, 120, "CHARGEBACK"),
              said(HONEST, 130, "ANALYST")]  # fmt: skip
    assert label_of(labels=labels) == (0.0, "INVESTIGATION")
    assert label_of(labels=labels[1:]) == (1.0, "CHARGEBACK")
    assert label_of(labels=labels[2:]) == (0.0, "ANALYST")


def test_of_one_source_the_latest_word_counts() -> None:
    labels = [said(ABUSE, 105), said(HONEST, 120)]
    assert label_of(labels=labels) == (0.0, "ANALYST")
    assert label_of(labels=labels, as_of=day(170)) == (0.0, "ANALYST")
    assert label_of(labels=[said(ABUSE, 105), said(HONEST, 180)], as_of=day(170))[0] == 1.0


def test_unreviewed_withdraws_and_lets_the_next_source_speak() -> None:
    labels = [said(ABUSE, 105, "INVESTIGATION"), said(UNREVIEWED, 110, "INVESTIGATION")]
    assert label_of(labels=labels, refund_outcomes=[paid()]) == (0.0, CLEAN)
    assert label_of(labels=[*labels, said(ABUSE, 104)]) == (1.0, "ANALYST")
    assert is_left_out(label_of(labels=labels), CENSORED)


def test_a_label_without_source_is_an_analysts() -> None:
    assert label_of(labels=[said(ABUSE, 105, None)]) == (1.0, "ANALYST")


@pytest.mark.parametrize(
    ("at", "abuse"), [(99, False), (100, True), (160, True), (160 + 1e-6, False)]
)
def test_a_customers_label_covers_the_maturity_window_before_it(at: float, abuse: bool) -> None:
    label = label_of(labels=[said(ABUSE, at, customer_id="c1")], refund_outcomes=[paid()])
    assert label == ((1.0, "ANALYST") if abuse else (0.0, CLEAN))
    other = label_of(labels=[said(ABUSE, at, customer_id="c2")], refund_outcomes=[paid()])
    assert other == (0.0, CLEAN)


def test_unreviewed_of_a_customer_voids_that_sources_labels_of_the_customer_alone() -> None:
    whole = said(ABUSE, 120, customer_id="c1")
    void = said(UNREVIEWED, 300, customer_id="c1")
    assert label_of(labels=[whole, void], refund_outcomes=[paid()]) == (0.0, CLEAN)
    assert label_of(labels=[whole, said(ABUSE, 110), void]) == (1.0, "ANALYST")
    investigated = said(ABUSE, 120, "INVESTIGATION", customer_id="c1")
    assert label_of(labels=[investigated, void]) == (1.0, "INVESTIGATION")


# --- chargebacks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", CHARGEBACK_STAGES)
@pytest.mark.parametrize("at", [90, 150])
def test_money_back_from_the_bank_and_from_the_shop_is_abuse(stage: str, at: float) -> None:
    label = label_of(disputes=[chargeback(at, stage)], refund_outcomes=[paid()])
    assert label == (1.0, "CHARGEBACK")


def test_a_chargeback_that_the_merchant_wins_is_still_a_double_dip() -> None:
    ended = [chargeback(150), chargeback(180, "CHARGEBACK_REVERSED", outcome="WON")]
    assert label_of(disputes=ended, refund_outcomes=[paid()]) == (1.0, "CHARGEBACK")


@pytest.mark.parametrize("stage", ["EARLY_FRAUD_WARNING", "REQUEST_FOR_INFORMATION", None])
def test_a_warning_or_question_is_no_chargeback(stage: str | None) -> None:
    label = label_of(disputes=[chargeback(150, stage)], refund_outcomes=[paid()])
    assert label == (0.0, CLEAN)


def test_a_declined_customer_who_goes_to_the_bank_is_no_abuser() -> None:
    assert is_left_out(label_of(disputes=[chargeback(150)]), CENSORED)


def test_a_chargeback_of_another_order_or_of_a_card_says_nothing() -> None:
    for named in ({"order_id": "o2"}, {"order_id": None, "payment_method_id": "p"}):
        label = label_of(disputes=[chargeback(150, **named)], refund_outcomes=[paid()])
        assert label == (0.0, CLEAN)


def test_a_chargeback_counts_from_when_both_it_and_the_payment_were_known() -> None:
    tables = {"disputes": [chargeback(200)], "refund_outcomes": [paid()]}
    assert label_of(**tables, as_of=day(200)) == (0.0, CLEAN)
    assert label_of(**tables, as_of=day(200) + 1) == (1.0, "CHARGEBACK")
    late = {"disputes": [chargeback(150)], "refund_outcomes": [paid(at=300)]}
    assert is_left_out(label_of(**late, as_of=day(300)), CENSORED)


def test_the_chargeback_desk_may_take_a_chargeback_back() -> None:
    label = label_of(disputes=[chargeback(150)], refund_outcomes=[paid()],
                     labels=[said(HONEST, 151, "CHARGEBACK")])  # fmt: skip
    assert label == (0.0, "CHARGEBACK")


# --- bad input, counts, and the oracle -----------------------------------------------------------


def test_a_maturity_below_a_day_is_refused() -> None:
    with pytest.raises(ValueError, match="maturity_days: expected at least 1, got 0"):
        label_refunds(folder_of(refund_requests=[request()]), as_of=END, maturity_days=0)


def test_counts_say_how_many_refunds_each_source_settled() -> None:
    folder = folder_of(refund_requests=[request(), request("r2"), request("r3", 390)],
                       labels=[said(ABUSE, 110)], refund_outcomes=[paid("r2")])  # fmt: skip
    counts = label_refunds(folder, as_of=END).counts()
    assert {basis: tuple(c.values()) for basis, c in counts.items() if c["refunds"]} == {
        "ANALYST": (1, 1), CLEAN: (1, 0), IMMATURE: (1, 0),
    }  # fmt: skip


days = st.integers(0, 40).map(lambda n: day(10 * n))
refunds = st.sampled_from(["r1", "r2", "r3"])
customers = st.sampled_from(["c1", "c2"])
orders = st.sampled_from(["o1", "o2", None])
requests = st.fixed_dictionaries({
    "refund_id": refunds, "customer_id": customers, "order_id": orders, "known_at": days,
    "amount_minor": st.just(5), "currency": st.just("GBP"),
    "ignore": st.sampled_from([None, None, None, False, True]),
})  # fmt: skip
outcomes = st.fixed_dictionaries({
    "refund_id": refunds, "known_at": days, "status": st.sampled_from(["COMPLETED", "DECLINED"]),
})  # fmt: skip
disputes = st.fixed_dictionaries({
    "dispute_id": st.sampled_from(["d1", "d2"]), "order_id": st.sampled_from(["o1", "o2"]),
    "known_at": days,
    "stage": st.sampled_from(["CHARGEBACK", "ARBITRATION", "EARLY_FRAUD_WARNING", None]),
})  # fmt: skip
verdicts = st.fixed_dictionaries({
    "known_at": days, "label": st.sampled_from([ABUSE, HONEST, UNREVIEWED]),
    "source": st.sampled_from([*SOURCES, None]),
})  # fmt: skip
labels_ = st.builds(
    lambda whom, what: {**whom, **what},
    st.one_of(refunds.map(lambda r: {"refund_id": r}), customers.map(lambda c: {"customer_id": c})),
    verdicts,
)


@settings(deadline=None)
@given(
    st.lists(requests, min_size=1, max_size=5),
    st.lists(outcomes, max_size=4),
    st.lists(disputes, max_size=4),
    st.lists(labels_, max_size=6),
    days,
)
def test_labels_agree_with_plain_loops(
    asked: list[Any], ended: list[Any], disputed: list[Any], verdicts: list[Any], as_of: int
) -> None:
    rows = {"refund_requests": asked, "refund_outcomes": ended, "disputes": disputed,
            "labels": verdicts}  # fmt: skip
    # An id each: what comes after another is then the same in the folder and in the loops.
    for table in rows.values():
        for number, row in enumerate(table):
            row["event_id"] = f"{number:03}"
    folder = folder_of(**rows)
    found = label_refunds(folder, as_of=as_of, maturity_days=MATURITY_DAYS)
    ids = folder["refund_requests"]["refund_id"].take(found.row).to_pylist()
    got = {
        refund: (None if math.isnan(abuse) else abuse, basis)
        for refund, abuse, basis in zip(ids, found.abuse.tolist(), found.basis, strict=True)
    }
    assert got == naive_labels(rows, as_of)


def naive_labels(rows: dict[str, list[Any]], as_of: int) -> dict[str, tuple[float | None, str]]:
    def by_time(table: str) -> list[Any]:
        return sorted(rows[table], key=lambda row: (row["known_at"], row["event_id"]))

    def seen(table: str) -> list[Any]:
        return [row for row in by_time(table) if row["known_at"] < as_of]

    window = MATURITY_DAYS * DAY_MS
    first: dict[str, Any] = {}
    for row in by_time("refund_requests"):
        first.setdefault(row["refund_id"], row)
    labels: dict[str, tuple[float | None, str]] = {}
    for refund, asked in first.items():
        if asked["known_at"] >= as_of:
            continue
        paid_at = [o["known_at"] for o in seen("refund_outcomes")
                   if o["refund_id"] == refund and o["status"] == "COMPLETED"]  # fmt: skip
        words: dict[str, list[tuple[int, int, str]]] = {source: [] for source in SOURCES}
        started = set()
        for dispute in seen("disputes"):
            mine = asked["order_id"] is not None and dispute["order_id"] == asked["order_id"]
            if mine and paid_at and dispute["stage"] in CHARGEBACK_STAGES:
                if dispute["dispute_id"] not in started:
                    known = max(dispute["known_at"], min(paid_at))
                    words["CHARGEBACK"].append((known, 0, ABUSE))
                started.add(dispute["dispute_id"])
        for label in seen("labels"):
            source = label["source"] or "ANALYST"
            if label.get("customer_id") == asked["customer_id"]:
                if label["label"] == UNREVIEWED:
                    words[source] = [word for word in words[source] if word[1] != 1]
                elif 0 <= label["known_at"] - asked["known_at"] <= window:
                    words[source].append((label["known_at"], 1, label["label"]))
            elif label.get("refund_id") == refund:
                words[source].append((label["known_at"], 2, label["label"]))
        labels[refund] = (0.0, CLEAN) if paid_at else (None, CENSORED)
        for source in SOURCES:
            latest = max(words[source], key=lambda w: w[:2], default=(0, 0, UNREVIEWED))
            # `max` keeps the first of equals, and the later row of one instant counts.
            same = [w for w in words[source] if w[:2] == latest[:2]]
            verdict = same[-1][2] if same else UNREVIEWED
            if verdict != UNREVIEWED:
                labels[refund] = (float(verdict == ABUSE), source)
                break
        if asked["known_at"] + window > as_of:
            labels[refund] = (None, IMMATURE)
        if any(r["ignore"] for r in rows["refund_requests"] if r["refund_id"] == refund):
            labels[refund] = (None, IGNORED)
    return labels
