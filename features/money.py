"""Money: ISO 4217 currencies, their minor units, and dated conversion to one base currency."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features import kernels

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
"""The currencies in a fixed order: a currency's place is its numeric code."""

_CODE: Final = {currency: code for code, currency in enumerate(CURRENCIES)}

EXACT_BELOW: Final = 2.0**53
"""From here on a double no longer tells a whole number from the next."""


class RatesError(ValueError):
    """Exchange rates that no amount can be converted by; says all that is wrong with them."""


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
    by_day: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Per currency the days since 1970 that have a rate, and the rate."""

    @classmethod
    def of(cls, base: str, rows: Iterable[tuple[str, str, float]]) -> Rates:
        """Rates from rows of (ISO date, currency, rate); a row may be repeated.

        Raises RatesError for a rate that is not a number above 0, for two rates of one currency on
        one day, and for rates that are to another base: the base is worth one of itself.

        >>> Rates.of("GBP", [("2026-01-01", "USD", 0.80), ("2026-01-01", "USD", 0.70)])
        Traceback (most recent call last):
        features.money.RatesError: fx_rates: expected one rate of USD on 2026-01-01, got 0.8 and 0.7
        """
        by_day: dict[str, dict[int, float]] = {}
        problems = []
        for date, currency, rate in rows:
            day = int(np.datetime64(date, "D").astype(np.int64))
            first = by_day.setdefault(currency, {}).setdefault(day, rate)
            if not 0 < rate < math.inf:
                problems.append(f"expected a number above 0, got {rate} of {currency} on {date}")
            elif currency == base and rate != 1:
                problems.append(f"expected 1 for the base currency {base}, got {rate} on {date}: "
                                "these rates are to another base")  # fmt: skip
            elif first != rate:
                problems.append(
                    f"expected one rate of {currency} on {date}, got {first} and {rate}"
                )
        if problems:
            raise RatesError("fx_rates: " + "; ".join(problems))
        return cls(base, by_day)

    @cached_property
    def factors(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Instants (k,) at which rates change, and the factors (currencies, k + 1) from then.

        A factor turns minor units of a currency into minor units of the base. Column 0 is before
        the first instant.
        """
        days = sorted({day for dated in self.by_day.values() for day in dated})
        factors = np.full((len(CURRENCIES), len(days) + 1), np.nan)
        for currency in MINOR_UNIT_DIGITS.keys() & self.by_day:
            scale = 10.0 ** (MINOR_UNIT_DIGITS[self.base] - MINOR_UNIT_DIGITS[currency])
            rate = math.nan
            for place, day in enumerate(days, 1):
                rate = self.by_day[currency].get(day, rate)
                factors[_CODE[currency], place] = rate * scale
        factors[_CODE[self.base]] = 1
        return np.array(days, np.int64) * DAY_MS, factors

    def to_base_codes(
        self,
        amounts_minor: NDArray[np.int64] | NDArray[np.float64],
        currency_codes: NDArray[np.integer],
        at_ms: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Amounts (n,) in whole minor units of the base currency; NaN where unknown.

        ``currency_codes`` (n,) are places in `CURRENCIES`; any other number is no currency.
        Rounds half to even, the convention that adds no bias over many amounts. An amount of
        2^53 minor units or more, before or after conversion, is unknown: a double would not hold
        it exactly.

        >>> codes = np.array([CURRENCIES.index("GBP"), CURRENCIES.index("GBP"), -1])
        >>> Rates("GBP").to_base_codes(np.array([1000, 2**53, 1000]), codes, np.zeros(3)).tolist()
        [1000.0, nan, nan]
        """
        return kernels.convert(
            np.asarray(amounts_minor, np.float64), np.asarray(currency_codes, np.int64),
            np.asarray(at_ms, np.int64), *self.factors, EXACT_BELOW,
        )  # fmt: skip

    def to_base(
        self,
        amounts_minor: NDArray[np.int64] | NDArray[np.float64],
        currencies: Sequence[str | None] | NDArray[np.object_],
        at_ms: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """`to_base_codes` of currencies (n,) by name; a name that is no currency's is unknown."""
        names = currencies.tolist() if isinstance(currencies, np.ndarray) else currencies
        codes = np.array([_CODE.get(name, -1) if name else -1 for name in names], np.int64)
        return self.to_base_codes(amounts_minor, codes, at_ms)
