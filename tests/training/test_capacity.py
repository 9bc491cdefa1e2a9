"""Review desks: by hand, against the Handbook's own procedure, and never above their ceilings."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.money import DAY_MS
from training.capacity import CardDesk, Desk, RefundDesk, card_precision

# Day, customer, abuse; the score is a permutation, so that nothing is tied.
REFUNDS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), min_size=1, max_size=40
)


def columns(
    refunds: list[tuple[int, int, bool]], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    day, customer, abuse = (np.array(column) for column in zip(*refunds, strict=True))
    score = np.random.default_rng(seed).permutation(len(day)).astype(float)
    return score, abuse.astype(float), day * DAY_MS + 5, customer


def by_the_book(
    score: np.ndarray, abuse: np.ndarray, known_at: np.ndarray, customer: np.ndarray, k: int
) -> float:
    """Card precision as the Fraud Detection Handbook describes it, step by step."""
    frame = pd.DataFrame(
        {"day": known_at // DAY_MS, "customer": customer, "score": score, "abuse": abuse}
    )
    caught: set[int] = set()
    daily = []
    for _, today in frame.groupby("day"):
        open_ = today[~today["customer"].isin(caught)].groupby("customer").max()
        top = open_.sort_values("score", ascending=False).head(k)
        found = top.index[top["abuse"] == 1]
        daily.append(len(found) / k)
        caught.update(found)
    return float(np.mean(daily))


@given(REFUNDS, st.integers(1, 4), st.integers(0, 99))
def test_card_precision_is_the_handbooks_and_below_its_ceiling(
    refunds: list[tuple[int, int, bool]], k: int, seed: int
) -> None:
    given_ = columns(refunds, seed)
    precision, ceiling = card_precision(*given_, k)
    assert precision == pytest.approx(by_the_book(*given_, k))
    assert precision <= ceiling + 1e-12


def test_the_ceiling_can_be_reached_where_knowing_the_abuse_alone_is_not_enough() -> None:
    # Both are guilty on day 0, customer 1 on day 1 too: so customer 2 must be opened first.
    abuse, day, customer = np.ones(3), np.array([0, 0, 1]) * DAY_MS, np.array([1, 2, 1])
    assert card_precision(np.array([2.0, 1.0, 1.0]), abuse, day, customer, 1) == (0.5, 1.0)
    assert card_precision(np.array([1.0, 2.0, 1.0]), abuse, day, customer, 1) == (1.0, 1.0)


def test_a_queue_takes_the_riskiest_refunds_of_each_day() -> None:
    day = np.array([0, 0, 0, 1, 1, 2])
    score = np.array([0.9, 0.5, 0.7, 0.2, 0.3, 0.1])
    abuse = np.array([1, 1, 0, 1, 0, 1.0])
    figures = RefundDesk(score, abuse, day * DAY_MS, 2).figures()
    assert figures["precision_at_capacity"] == 3 / 5
    assert figures["recall_at_capacity"] == 3 / 4
    assert figures["precision_at_capacity_ceiling"] == 4 / 5
    assert figures["recall_at_capacity_ceiling"] == 1
    tight = RefundDesk(score, abuse, day * DAY_MS, 1).figures()
    assert tight["precision_at_capacity"] == 2 / 3
    assert tight["recall_at_capacity_ceiling"] == 3 / 4


@given(REFUNDS, st.integers(1, 4), st.integers(0, 99))
def test_the_abuse_itself_reaches_the_queues_ceilings(
    refunds: list[tuple[int, int, bool]], k: int, seed: int
) -> None:
    score, abuse, known_at, _ = columns(refunds, seed)
    for name in ("precision", "recall"):
        some = RefundDesk(score, abuse, known_at, k).figures()
        best = RefundDesk(abuse, abuse, known_at, k).figures()
        if abuse.any():
            ceiling = some[f"{name}_at_capacity_ceiling"]
            assert best[f"{name}_at_capacity"] == pytest.approx(ceiling)
            assert some[f"{name}_at_capacity"] <= ceiling + 1e-12


@given(REFUNDS, st.integers(1, 4), st.integers(0, 99), st.data())
def test_a_weight_is_a_number_of_copies_to_the_queue(
    refunds: list[tuple[int, int, bool]], k: int, seed: int, data: st.DataObject
) -> None:
    score, abuse, known_at, _ = columns(refunds, seed)
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(score),
                                        max_size=len(score))))  # fmt: skip
    weighed = RefundDesk(score, abuse, known_at, k).figures(times.astype(float))
    if times.any():
        copies = (np.repeat(column, times) for column in (score, abuse, known_at))
        copied = RefundDesk(*copies, k).figures()
        assert weighed == pytest.approx(copied, nan_ok=True)


@given(REFUNDS, st.integers(1, 4), st.integers(0, 99))
def test_a_customer_drawn_twice_is_two_customers(
    refunds: list[tuple[int, int, bool]], k: int, seed: int
) -> None:
    score, abuse, known_at, customer = columns(refunds, seed)
    drawn = CardDesk(score, abuse, known_at, customer, k).precision(np.full(len(score), 2.0))
    # As many days, and each twin ranks with its own.
    twice = CardDesk(np.tile(score, 2), np.tile(abuse, 2), np.tile(known_at, 2),
                     np.concatenate([customer, customer + 10]), k).precision()  # fmt: skip
    if k % 2 == 0:
        assert drawn == pytest.approx(twice)
    assert 0 <= drawn <= 1


def test_a_desk_says_its_capacity_or_takes_a_share() -> None:
    known_at = np.arange(1000) * DAY_MS // 100
    assert Desk().capacity(known_at) == (5, 5)
    assert Desk(share=0.001).capacity(known_at) == (1, 1)
    assert Desk(reviews_per_day=40, cards_per_day=100).capacity(known_at) == (40, 100)
