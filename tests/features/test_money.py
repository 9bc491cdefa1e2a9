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


@given(st.lists(st.tuples(amounts, st.sampled_from(["GBP", "USD", "EUR", None, "XXX"]),
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


@pytest.mark.parametrize("currency", [None, "EUR", "XXX", "gbp", ""])
def test_without_a_rate_an_amount_is_unknown_even_zero(currency: str | None) -> None:
    rates = Rates.of("GBP", [("2026-01-01", "USD", 0.5), ("2026-01-02", "EUR", 0.5)])
    assert math.isnan(convert(rates, 0, currency, FIRST_MS))


def test_a_repeated_day_keeps_its_last_row() -> None:
    rates = Rates.of("GBP", [("2026-01-01", "USD", 0.5), ("2026-01-01", "USD", 0.25)])
    assert convert(rates, 100, "USD", FIRST_MS) == 25


def test_currencies_are_codes_with_their_digits() -> None:
    assert list(CURRENCIES) == sorted(set(CURRENCIES))
    assert all(len(code) == 3 and code.isupper() for code in CURRENCIES)
    assert {MINOR_UNIT_DIGITS[c] for c in ("GBP", "JPY", "KWD", "CLF")} == {2, 0, 3, 4}


def test_rates_to_another_base_are_refused_and_not_taken_for_ours() -> None:
    rows = [("2026-01-01", "USD", 0.8), ("2026-01-01", "EUR", 0.9)]
    with pytest.raises(RatesError, match=r"expected 1 for the base currency USD, got 0\.8"):
        Rates.of("USD", rows)
    assert Rates.of("EUR", [("2026-01-01", "EUR", 1.0)]).base == "EUR"
