"""Money: ISO 4217 currencies, their minor units, and dated conversion to one base currency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

DAY_MS: Final = 86_400_000

_TWO_DECIMALS = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD "
    "CAD CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD "
    "GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD "
    "MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP "
    "PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS "
    "TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
)
_NO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"

MINOR_UNIT_DIGITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(_TWO_DECIMALS.split(), 2),
    **dict.fromkeys(_NO_DECIMALS.split(), 0),
    **dict.fromkeys(_THREE_DECIMALS.split(), 3),
    "CLF": 4,
    "UYW": 4,
}
"""Active ISO 4217 currencies and how many digits their minor unit has."""

CURRENCIES: Final = tuple(sorted(MINOR_UNIT_DIGITS))


class RatesError(ValueError):
    """Exchange rates that are to another base currency than the one in use."""


@dataclass(frozen=True)
class Rates:
    """What one major unit of a currency was worth in the base currency, day by day.

    The latest rate on or before the day (UTC) counts; before a currency's first rate, and for a
    currency without rates, the value is unknown (NaN), never zero.

    >>> rates = Rates.of("GBP", [("2026-01-01", "USD", 0.80), ("2026-01-03", "USD", 0.75)])
    >>> second_of_january = 1_767_312_000_000
    >>> rates.to_base(np.array([1000, 1000, 1000]), ["USD", "GBP", "EUR"],
    ...               np.full(3, second_of_january)).tolist()
    [800.0, 1000.0, nan]
    >>> rates.to_base(np.array([1000]), ["JPY"], np.array([second_of_january])).tolist()
    [nan]
    """

    base: str = "GBP"
    days: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    rates: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def of(cls, base: str, rows: Iterable[tuple[str, str, float]]) -> Rates:
        """Rates from rows of (ISO date, currency, rate); a repeated day keeps its last row.

        Raises RatesError for rates that are to another base: the base is worth one of itself.
        """
        rows = list(rows)
        for date, currency, rate in rows:
            if currency == base and rate != 1:
                raise RatesError(f"fx_rates: expected 1 for the base currency {base}, got {rate} "
                                 f"on {date}: these rates are to another base")  # fmt: skip
        by_currency: dict[str, dict[int, float]] = {}
        for date, currency, rate in rows:
            day = int(np.datetime64(date, "D").astype(np.int64))
            by_currency.setdefault(currency, {})[day] = rate
        ordered = {currency: sorted(days.items()) for currency, days in by_currency.items()}
        return cls(
            base,
            {c: np.array([day for day, _ in rows], np.int64) for c, rows in ordered.items()},
            {c: np.array([rate for _, rate in rows], np.float64) for c, rows in ordered.items()},
        )

    def rate(self, currency: str, at_ms: NDArray[np.int64]) -> NDArray[np.float64]:
        """The rate of ``currency`` at each instant (n,), NaN where none is known."""
        if currency == self.base:
            return np.ones(len(at_ms))
        days = self.days.get(currency)
        if days is None:
            return np.full(len(at_ms), np.nan)
        row = np.searchsorted(days, np.asarray(at_ms) // DAY_MS, side="right") - 1
        return np.where(row >= 0, self.rates[currency][np.maximum(row, 0)], np.nan)

    def to_base(
        self,
        amounts_minor: NDArray[np.float64] | NDArray[np.int64],
        currencies: Sequence[str | None] | NDArray[np.object_],
        at_ms: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Amounts (n,) in whole minor units of the base currency; NaN where unknown.

        Rounds half to even, the convention that adds no bias over many amounts.
        """
        amounts = np.asarray(amounts_minor, np.float64)
        names = np.asarray(currencies, dtype=object)
        if (names == self.base).all():
            return amounts
        out = np.full(len(amounts), np.nan)
        for currency in {name for name in names.tolist() if name in MINOR_UNIT_DIGITS}:
            rows = names == currency
            digits = MINOR_UNIT_DIGITS[self.base] - MINOR_UNIT_DIGITS[currency]
            factor = self.rate(currency, at_ms[rows]) * 10.0**digits
            out[rows] = np.rint(amounts[rows] * factor)
        return out
