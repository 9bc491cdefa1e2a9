"""Bands: they cost what the formulas say, no others are cheaper, and a small desk binds."""

import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.decision import Action
from rules.document import Band, Costs
from rules.engine import Score, band_action
from training.bands import actions
from training.thresholds import Bands, default_costs, outcome, place_bands

COSTS = Costs(fee_minor=500, review_minor=400, prevented_honest_multiple=1.5)
SEEDS = st.integers(0, 2**32 - 1)


def refunds(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.beta(0.3, 3, n), draw.lognormal(8, 1, n)


# --- what bands lead to ------------------------------------------------------------------------


def test_each_action_costs_what_it_says() -> None:
    def cost(abuse: float, bands: Bands) -> float:
        return outcome(bands, np.array([0.6]), np.array([abuse]), np.array([1000.0]), 1, COSTS
                       ).cost_minor  # fmt: skip

    pay, review, prevent = Bands(1e9, None), Bands(1, None), Bands(1, 0.5)
    assert (cost(1, pay), cost(0, pay)) == (1500, 0)
    assert (cost(1, review), cost(0, review)) == (400, 400)
    assert (cost(1, prevent), cost(0, prevent)) == (0, 1500)


def test_the_ledger_of_a_day_by_hand() -> None:
    """Six refunds of 10.00: paid, held and prevented, one of each abuse and one honest."""
    probability = np.array([0.1, 0.1, 0.5, 0.5, 0.9, 0.9])
    abuse = np.array([1.0, 0, 1, 0, 1, 0])
    o = outcome(Bands(600, 0.8), probability, abuse, np.full(6, 1000.0), 2, COSTS)
    assert (o.paid.count, o.held.count, o.prevented.count) == (2, 2, 2)
    assert (o.paid.payable_minor, o.abuse_paid.payable_minor) == (2000, 1000)
    assert (o.abuse_held.count, o.abuse_prevented.count, o.honest_prevented.count) == (1, 1, 1)
    assert o.abuse_paid_minor_per_1000 == pytest.approx(1500 / 6 * 1000)
    assert o.honest_prevented_minor_per_1000 == pytest.approx(1500 / 6 * 1000)
    assert o.reviews_minor_per_1000 == pytest.approx(800 / 6 * 1000)
    assert o.cost_minor_per_1000 == pytest.approx(3800 / 6 * 1000)
    assert o.cost_minor_per_day == pytest.approx(1900)
    assert (o.reviews_per_day, o.prevented_share) == (1, pytest.approx(1 / 3))


def test_an_unknown_amount_has_no_cost_but_takes_its_room() -> None:
    two = np.array([0.9, 0.9]), np.array([1.0, 1.0]), np.array([1000.0, np.nan])
    paid = outcome(Bands(1e9, None, 0.95), *two, 1, COSTS)
    assert (paid.cost_minor, paid.amount_unknown, paid.amount_unknown_held) == (1500, 1, 0)
    held = outcome(Bands(1e9, None), *two, 1, COSTS)
    assert (held.cost_minor, held.reviews_per_day, held.amount_unknown_held) == (1500, 1, 1)


_LEVELS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
_LOSSES = st.sampled_from([0.0, 150.0, 400.0, 525.0, 5000.0])
_POLICIES = st.lists(
    st.builds(
        Band,
        action=st.sampled_from([Action.MANUAL_REVIEW, Action.PREVENT]),
        probability_at_least=_LEVELS,
        expected_loss_minor_at_least=st.none() | _LOSSES,
    )
    | st.builds(Band, action=st.just(Action.MANUAL_REVIEW), expected_loss_minor_at_least=_LOSSES),
    max_size=5,
)
_REFUNDS = st.lists(
    st.tuples(_LEVELS | st.floats(0, 1), st.sampled_from([0.0, 1000.0, 550.0, np.nan]),
              st.sampled_from([0.0, 1.0]), st.sampled_from([0.5, 1.0, 3.0])),
    min_size=1, max_size=30,
)  # fmt: skip


@given(_POLICIES, _REFUNDS)
def test_counts_are_those_of_the_engine_row_by_row(policy: list[Band], rows: list) -> None:
    probability, amount, abuse, weight = np.array(rows).T
    counted = outcome(policy, probability, abuse, amount, 1, COSTS, weight=weight)
    tally = dict.fromkeys((Action.ALLOW, Action.MANUAL_REVIEW, Action.PREVENT), 0.0)
    loss = [COSTS.expected_loss_minor(p, a) for p, a in zip(probability, amount, strict=True)]
    said = actions(policy, probability, np.array(loss))
    for p, expected, w, severity in zip(probability, loss, weight, said, strict=True):
        action = band_action(Score(float(p), float(expected)), policy)
        assert action.severity == severity
        tally[action] += w
    assert (counted.paid.count, counted.held.count, counted.prevented.count) == pytest.approx(
        tuple(tally.values())
    )


@given(SEEDS)
def test_a_weight_is_so_many_refunds(seed: int) -> None:
    probability, amount = refunds(seed, 40)
    amount[0] = np.nan
    weight = np.random.default_rng(seed).integers(0, 4, 40)
    weight[1] = 1
    one = outcome(Bands(500, 0.4), probability, probability, amount, 3, COSTS,
                  weight=weight.astype(float)).to_json()  # fmt: skip
    many = [np.repeat(column, weight) for column in (probability, probability, amount)]
    other = outcome(Bands(500, 0.4), *many, 3, COSTS).to_json()
    for name, value in one.items():
        assert value == (other[name] if name in ("bands", "desk") else pytest.approx(other[name]))


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.floats(0, 10))
def test_bands_are_placed_by_weight(seed: int, room: float) -> None:
    probability, amount = refunds(seed, 60)
    weight = np.random.default_rng(seed).integers(1, 4, 60)
    given_weight = place_bands(probability, amount, days=9, costs=COSTS, reviews_per_day=room,
                               weight=weight.astype(float)).chosen  # fmt: skip
    repeated = place_bands(np.repeat(probability, weight), np.repeat(amount, weight), days=9,
                           costs=COSTS, reviews_per_day=room).chosen  # fmt: skip
    assert given_weight.outcome.policy == repeated.outcome.policy
    assert given_weight.optimum_minor_per_1000 == pytest.approx(repeated.optimum_minor_per_1000)


def test_the_desks_days_are_counted() -> None:
    """Five reviews on the first day, none on the second, six on the third; room for two."""
    known_at = np.array([0] * 5 + [2 * 86_400_000] * 6 + [2 * 86_400_000 - 1])
    probability = np.array([0.9] * 11 + [0.0])
    o = outcome(Bands(1, None), probability, probability, np.full(12, 1000.0), 3, COSTS,
                known_at=known_at, reviews_per_day=2)  # fmt: skip
    assert o.desk is not None
    assert (o.desk.days, o.desk.days_over, o.desk.busiest_day, o.desk.largest_backlog) == (
        3, 2, 6, 5)  # fmt: skip  # three wait, then one, then five


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"abuse": np.zeros(3)}, r"one length for all, got \[2, 3, 2, 2\]"),
        ({"days": 0}, "days: expected more than 0, got 0"),
        ({"weight": np.zeros(2)}, "weight: "),
        ({"weight": np.array([1.0, -1.0])}, "weight: "),
        ({"probability": np.array([0.5, np.nan])}, "probability: "),
    ],
)
def test_what_cannot_be_counted_is_refused(change: dict, message: str) -> None:
    sound = {"probability": np.zeros(2), "abuse": np.zeros(2), "amount_minor": np.ones(2),
             "days": 1, "costs": COSTS}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        outcome(Bands(1, None), **(sound | change))


# --- bands as a policy has them ----------------------------------------------------------------


def test_bands_are_what_a_policy_reads() -> None:
    review, prevent = (Band.model_validate(b, strict=False) for b in Bands(1200.0, 0.9).to_policy())
    assert (review.expected_loss_minor_at_least, review.probability_at_least) == (1200, None)
    assert (prevent.expected_loss_minor_at_least, prevent.probability_at_least) == (None, 0.9)
    assert len(Bands(1200.0, None).to_policy()) == 1
    assert Bands(np.inf, None).to_policy() == []
    assert len(Bands(1200.0, 0.3, 0.3).written()) == 1  # the review band could never decide


@pytest.mark.parametrize("bands", [Bands(3, 0.5, 0.1), Bands(3, None), Bands(np.inf, 0.2)])
def test_thresholds_are_read_back(bands: Bands) -> None:
    assert Bands.of(bands.written()) == bands


@pytest.mark.parametrize(
    "extra",
    [
        Band(action="MANUAL_REVIEW", expected_loss_minor_at_least=9),
        Band(action="PREVENT", probability_at_least=0.95, expected_loss_minor_at_least=9),
    ],
)
def test_more_than_two_thresholds_are_not_two(extra: Band) -> None:
    with pytest.raises(ValueError, match="bands: expected at most one that reviews"):
        Bands.of((*Bands(400, 0.9).written(), extra))
    with pytest.raises(ValueError, match="with an expected loss"):
        Bands.of((Band(action="MANUAL_REVIEW", probability_at_least=0.1),))


# --- where they lie ----------------------------------------------------------------------------


def _upper_sets(probability: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """All that bands of one action can reach, however many: (sets, refunds)."""
    above = (probability[None] >= probability[:, None]) & (loss[None] >= loss[:, None])
    sets = np.array(list(product([False, True], repeat=len(loss))))
    closed = ~((sets[:, :, None] & above[None]) & ~sets[:, None, :]).any((1, 2))
    return sets[closed]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 99), st.integers(1, 20_000)), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.3, 1.5]), st.sampled_from([0, 500]), st.sampled_from([0, 30, 400]),
)  # fmt: skip
def test_no_bands_of_any_number_are_cheaper_than_two_thresholds(
    rows: list, multiple: float, fee: int, review: int
) -> None:
    costs = Costs(fee_minor=fee, review_minor=review, prevented_honest_multiple=multiple)
    probability, amount = np.array(rows).T * np.array([[0.01], [1.0]])
    loss = probability * (amount + fee)
    reach = _upper_sets(probability, loss)
    prevented, held = reach[:, None], reach[None]
    honest = (1 - probability) * multiple * amount
    cheapest = np.where(prevented, honest, np.where(held, review, loss)).sum(2).min()
    placed = place_bands(probability, amount, days=1, costs=costs, reviews_per_day=np.inf)
    slack = 1e-6 if review else len(rows)  # no review threshold is below one minor unit
    assert placed.chosen.outcome.cost_minor * len(rows) <= cheapest + slack


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(1, 20_000)), min_size=1, max_size=6),
    st.integers(0, 6),
)  # fmt: skip
def test_the_optimum_is_the_best_of_all_ways_to_act(rows: list, room: int) -> None:
    probability, amount = np.array(rows).T
    each = np.array([
        probability * (amount + 500), np.full(len(rows), 400.0), (1 - probability) * 1.5 * amount
    ])  # fmt: skip
    ways = (np.array(way) for way in product(range(3), repeat=len(rows)))
    best = min(each[way, np.arange(len(rows))].sum() for way in ways if (way == 1).sum() <= room)
    placed = place_bands(probability, amount, days=1, costs=COSTS, reviews_per_day=room)
    assert placed.chosen.optimum_minor_per_1000 * len(rows) / 1000 == pytest.approx(best)
    assert placed.chosen.regret_minor_per_1000 >= -1e-6


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.floats(0.5, 40), st.booleans())
def test_bands_keep_within_capacity_and_no_affordable_ones_are_cheaper(
    seed: int, capacity: float, weighted: bool
) -> None:
    draw = np.random.default_rng(seed)
    probability, amount = refunds(seed, 300)
    weight = draw.choice([0.5, 1.0, 4.0], 300) if weighted else np.ones(300)
    placed = place_bands(probability, amount, days=10, costs=COSTS, reviews_per_day=capacity,
                         weight=weight)  # fmt: skip
    bands, curve = placed.bands, [point.outcome for point in placed.curve]

    def expected(bands: Bands):
        return outcome(bands, probability, probability, amount, 10, COSTS, weight=weight)

    chosen = expected(bands)
    assert chosen.reviews_per_day <= capacity * (1 + 1e-6)
    others = [expected(Bands(float(draw.integers(400, 9000)), draw.choice([None, 0.6, 0.9, 0.99])))
              for _ in range(30)]  # fmt: skip
    affordable = [o for o in (*curve, *others) if o.reviews_per_day <= capacity]
    assert chosen.cost_minor <= min(o.cost_minor for o in affordable) + 1e-9
    assert bands.review_loss_minor >= COSTS.review_minor


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.floats(0, 40), st.sampled_from([0.05, 0.5, 0.95]))
def test_unknown_amounts_do_not_flood_the_desk(seed: int, capacity: float, share: float) -> None:
    probability, amount = refunds(seed, 300)
    amount[np.random.default_rng(seed).random(300) < share] = np.nan
    placed = place_bands(probability, amount, days=10, costs=COSTS, reviews_per_day=capacity)
    assert placed.chosen.outcome.reviews_per_day <= capacity + 1e-9
    known = ~np.isnan(amount)
    held = actions(placed.bands.written(), probability, probability * (amount + 500))[known] > 0
    by_loss = (probability * (amount + 500))[known] >= placed.bands.review_loss_minor
    assert (held | ~by_loss).all()  # the probability asked of the unknown costs no known one


def test_the_curve_falls_from_no_desk_to_one_that_is_large_enough() -> None:
    probability, amount = refunds(4, 2000)
    placed = place_bands(probability, amount, days=20, costs=COSTS, reviews_per_day=20)
    rooms = [p.reviews_per_day_at_most for p in placed.curve]
    costs = [p.outcome.cost_minor for p in placed.curve]
    assert len(rooms) > 15
    assert rooms == sorted(set(rooms))
    assert costs == sorted(costs, reverse=True)
    assert (rooms[0], placed.curve[0].outcome.reviews_per_day) == (0, 0)
    assert placed.chosen in placed.curve
    without_end = place_bands(probability, amount, days=20, costs=COSTS, reviews_per_day=np.inf)
    assert costs[-1] == without_end.chosen.outcome.cost_minor
    pay_all = outcome(Bands(np.inf, None), probability, probability, amount, 20, COSTS)
    assert costs[0] < pay_all.cost_minor
    for every in (placed, without_end):
        assert "NaN" not in json.dumps(every.to_json(), allow_nan=False)


def test_a_reviewer_is_worth_what_choosing_anew_saves() -> None:
    probability, amount = refunds(4, 2000)
    many = {"days": 20, "costs": COSTS}
    placed = place_bands(probability, amount, reviews_per_day=20, reviews_per_reviewer_per_day=7,
                         **many)  # fmt: skip
    for staffing, room, sign in ((placed.one_more, 27, 1), (placed.one_fewer, 13, -1)):
        anew = place_bands(probability, amount, reviews_per_day=room, **many).chosen.outcome
        assert staffing.point.outcome.policy == anew.policy
        saved = (placed.chosen.outcome.cost_minor - anew.cost_minor) * 2000 / 20
        assert staffing.saved_minor_per_day == pytest.approx(saved)
        assert sign * staffing.saved_minor_per_day > 0
        further = anew.reviews_per_day - placed.chosen.outcome.reviews_per_day
        assert staffing.reviews_minor_per_day == pytest.approx(400 * further)
    assert placed.one_more.saved_minor_per_day < -placed.one_fewer.saved_minor_per_day


def test_a_desk_of_one_reviewer_can_be_given_up() -> None:
    probability, amount = refunds(4, 500)
    placed = place_bands(probability, amount, days=20, costs=COSTS, reviews_per_day=3)
    assert placed.one_fewer.point.reviews_per_day_at_most == 0
    assert placed.one_fewer.point.outcome.reviews_per_day == 0


def test_ties_do_not_pass_the_capacity() -> None:
    """A hundred refunds whose expected loss is a review's cost go all or none."""
    costs = COSTS.model_copy(update={"prevented_honest_multiple": 100.0})
    probability, amount = np.full(101, 0.5), np.append(np.full(100, 300.0), 9000.0)
    for room, held in ((100, 1), (101, 101)):
        placed = place_bands(probability, amount, days=1, costs=costs, reviews_per_day=room)
        assert placed.chosen.outcome.reviews_per_day == held


def test_the_capacity_is_the_policys_where_it_is_not_given() -> None:
    probability, amount = refunds(4, 500)
    stated = COSTS.model_copy(update={"reviews_per_day": 2.0})
    placed = place_bands(probability, amount, days=20, costs=stated, known_at=np.arange(500))
    assert placed.chosen.reviews_per_day_at_most == 2
    assert placed.chosen.outcome.desk is not None
    assert placed.chosen.outcome.desk.reviews_per_day_at_most == 2
    with pytest.raises(ValueError, match="reviews_per_day: expected a number, here or in the"):
        place_bands(probability, amount, days=20, costs=COSTS)
    with pytest.raises(ValueError, match="reviews_per_day: expected at least 0, got -1"):
        place_bands(probability, amount, days=20, costs=COSTS, reviews_per_day=-1)
    with pytest.raises(ValueError, match="amount_minor: expected at least one"):
        place_bands(probability, np.full(500, np.nan), days=20, costs=stated)


def test_the_default_costs_are_the_default_policys() -> None:
    assert default_costs() == COSTS


def test_preventing_never_pays_where_honest_customers_are_dear() -> None:
    dear = Costs(fee_minor=0, review_minor=1, prevented_honest_multiple=1e6)
    placed = place_bands(np.full(50, 0.5), np.full(50, 1000.0), days=1, costs=dear,
                         reviews_per_day=1000)  # fmt: skip
    assert placed.bands.prevent_probability is None
