"""Money: minor units, and conversion by the rate of the day."""

from __future__ import annotations

import math
from datetime import date, timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from features.money import CURRENCIES, DAY_MS, MINOR_UNIT_DIGITS, Rates, RatesError

FIRST = date(2026, 1, 1)
FIRST_MS = 1_767_225_600_000

amounts = st.integers(0, 10**9)
currencies = st.sampled_from(CURRENCIES)
# Sixty-fourths are doubles exactly, and so are their products with amounts and powers of ten.
exact_rates = st.integers(1, 640).map(lambda part: part / 64)
rate_rows = st.lists(
    st.tuples(
        st.integers(0, 9).map(lambda days: (FIRST + timedelta(days)).isoformat()),
        st.sampled_from(["USD", "EUR", "JPY"]),
        exact_rates,
    ),
    max_size=12,
    unique_by=lambda row: row[:2],
)


def convert(rates: Rates, amount_minor: int, currency: str | None, at_ms: int) -> float:
    return float(rates.to_base(np.array([amount_minor]), [currency], np.array([at_ms]))[0])


@given(amounts, st.integers(0, 10 * DAY_MS), rate_rows)
def test_the_base_currency_stays_as_it_is(
    amount: int, at: int, rows: list[tuple[str, str, float]]
) -> None:
    assert convert(Rates.of("GBP", rows), amount, "GBP", FIRST_MS + at) == amount


@given(amounts, st.integers(-DAY_MS, 11 * DAY_MS), rate_rows)
def test_the_latest_rate_on_or_before_the_day_counts(
    amount: int, at: int, rows: list[tuple[str, str, float]]
) -> None:
    day = (FIRST + timedelta(days=at // DAY_MS)).isoformat()
    latest: tuple[str, float] | None = None
    for dated, currency, rate in rows:
        if currency == "USD" and dated <= day and (latest is None or dated >= latest[0]):
            latest = (dated, rate)
    got = convert(Rates.of("GBP", rows), amount, "USD", FIRST_MS + at)
    if latest is None:
        assert math.isnan(got)
    else:
        assert got == round(amount * Fraction(latest[1]))


@given(amounts, currencies, currencies.filter(lambda c: MINOR_UNIT_DIGITS[c] >= 2), exact_rates)
def test_minor_units_have_as_many_digits_as_their_currency(
    amount: int, currency: str, base: str, rate: float
) -> None:
    assume(currency != base)
    rates = Rates.of(base, [("2026-01-01", currency, rate)])
    digits = MINOR_UNIT_DIGITS[base] - MINOR_UNIT_DIGITS[currency]
    exact = amount * Fraction(rate) * Fraction(10) ** digits
    assert abs(Fraction(convert(rates, amount, currency, FIRST_MS)) - exact) <= Fraction(
        500_001, 1_000_000
    )


@pytest.mark.parametrize(("amount", "halved"), [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4)])
def test_halves_are_rounded_to_even(amount: int, halved: int) -> None:
    assert convert(Rates.of("GBP", [("2026-01-01", "USD", 0.5)]), amount, "USD", FIRST_MS) == halved


@given(st.lists(st.tuples(amounts, st.sampled_from(["GBP", "USD", "EUR", None, "ZZZ"]),
                          st.integers(0, 10 * DAY_MS)), min_size=1), rate_rows)  # fmt: skip
def test_many_amounts_convert_like_each_alone(
    rows: list[tuple[int, str | None, int]], dated: list[tuple[str, str, float]]
) -> None:
    rates = Rates.of("GBP", dated)
    together = rates.to_base(
        np.array([amount for amount, _, _ in rows]),
        [currency for _, currency, _ in rows],
        np.array([FIRST_MS + at for _, _, at in rows]),
    )
    alone = [convert(rates, amount, currency, FIRST_MS + at) for amount, currency, at in rows]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("currency", [None, "EUR", "ZZZ", "gbp", ""])
def test_without_a_rate_an_amount_is_unknown_even_zero(currency: str | None) -> None:
    rates = Rates.of("GBP", [("2026-01-01", "USD", 0.5), ("2026-01-02", "EUR", 0.5)])
    assert math.isnan(convert(rates, 0, currency, FIRST_MS))


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1) | amounts,
                          st.integers(-2, len(CURRENCIES) + 1) | st.just(-(2**63)),
                          st.integers(0, 10 * DAY_MS))), rate_rows)  # fmt: skip
def test_currencies_by_code_convert_like_those_by_name(
    rows: list[tuple[int, int, int]], dated: list[tuple[str, str, float]]
) -> None:
    rates = Rates.of("GBP", dated)
    given_amounts = np.array([amount for amount, _, _ in rows], np.int64)
    codes = np.array([code for _, code, _ in rows], np.int64)
    names = [CURRENCIES[code] if 0 <= code < len(CURRENCIES) else None for _, code, _ in rows]
    at = np.array([FIRST_MS + at for _, _, at in rows], np.int64)
    by_code = rates.to_base_codes(given_amounts, codes, at)
    assert by_code.dtype == np.float64
    np.testing.assert_array_equal(by_code, rates.to_base(given_amounts, names, at))
    of_objects = np.array(names, dtype=object)
    np.testing.assert_array_equal(by_code, rates.to_base(given_amounts, of_objects, at))


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["GBP", "USD"]), exact_rates)
def test_what_a_double_cannot_hold_exactly_is_unknown(
    amount: int, currency: str, rate: float
) -> None:
    got = convert(Rates.of("GBP", [("2026-01-01", "USD", rate)]), amount, currency, FIRST_MS)
    exact = round(amount * Fraction(rate if currency == "USD" else 1))
    if max(abs(amount), abs(exact)) < 2**53 - 1:
        assert got == pytest.approx(exact, rel=2**-52, abs=1)
        assert currency != "GBP" or got == amount
    elif max(abs(amount), abs(exact)) > 2**53:
        assert math.isnan(got)


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        (2**53 - 1, "GBP", 2**53 - 1), (2**53, "GBP", math.nan), (2**53 + 1, "GBP", math.nan),
        (10**15, "USD", 8 * 10**15), (2**50, "USD", math.nan), (2**50 - 1, "USD", 2**53 - 8),
        (2**53, "JPY", math.nan), (-(2**63), "JPY", math.nan),
    ],
)  # fmt: skip
def test_the_last_exact_amount_is_known_and_the_next_is_not(
    amount: int, currency: str, expected: float
) -> None:
    rates = Rates.of("GBP", [("2026-01-01", "USD", 8.0), ("2026-01-01", "JPY", 2.0**-30)])
    np.testing.assert_array_equal(convert(rates, amount, currency, FIRST_MS), expected)


def test_unknown_amounts_stay_unknown() -> None:
    rates = Rates.of("GBP", [("2026-01-01", "USD", 0.5)])
    at = np.full(3, FIRST_MS)
    got = rates.to_base(np.array([np.nan, np.inf, 4.0]), ["USD", "GBP", "USD"], at)
    np.testing.assert_array_equal(got, [np.nan, np.nan, 2.0])


def test_nothing_converts_to_nothing() -> None:
    nothing = np.array([], np.int64)
    assert Rates("GBP").to_base(nothing, [], nothing).tolist() == []


def test_a_day_has_one_rate_which_may_be_said_twice() -> None:
    twice = [("2026-01-01", "USD", 0.5), ("2026-01-01", "USD", 0.5)]
    assert convert(Rates.of("GBP", twice), 100, "USD", FIRST_MS) == 50
    with pytest.raises(RatesError, match=r"one rate of USD on 2026-01-01, got 0\.5 and 0\.25"):
        Rates.of("GBP", [*twice, ("2026-01-01", "USD", 0.25)])


@pytest.mark.parametrize("rate", [0.0, -0.5, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("currency", ["USD", "GBP"])
def test_a_rate_is_a_number_above_zero(currency: str, rate: float) -> None:
    with pytest.raises(RatesError, match=f"above 0, got {rate} of {currency} on 2026-01-02"):
        Rates.of("GBP", [("2026-01-01", "USD", 0.5), ("2026-01-02", currency, rate)])


def test_all_that_is_wrong_with_the_rates_is_said_at_once() -> None:
    rows = [("2026-01-01", "USD", 0.0), ("2026-01-01", "GBP", 2.0), ("2026-01-02", "EUR", 0.5),
            ("2026-01-02", "EUR", 0.6)]  # fmt: skip
    with pytest.raises(RatesError) as error:
        Rates.of("GBP", rows)
    assert str(error.value).count("expected") == 3


def test_currencies_are_codes_with_their_digits() -> None:
    assert list(CURRENCIES) == sorted(set(CURRENCIES))
    assert all(len(code) == 3 and code.isupper() for code in CURRENCIES)
    assert {MINOR_UNIT_DIGITS[c] for c in ("GBP", "JPY", "KWD", "CLF")} == {2, 0, 3, 4}


def test_rates_to_another_base_are_refused_and_not_taken_for_ours() -> None:
    rows = [("2026-01-01", "USD", 0.8), ("2026-01-01", "EUR", 0.9)]
    with pytest.raises(RatesError, match=r"expected 1 for the base currency USD, got 0\.8"):
        Rates.of("USD", rows)
    assert Rates.of("EUR", [("2026-01-01", "EUR", 1.0)]).base == "EUR"
