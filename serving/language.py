"""The one language that analysts are spoken to in: texts from a catalogue, and every number's form.

The source of every text is English and stands where it is said, as `Language.say` and
`Language.say_of` are given it; ``serving/texts/recourse.pot`` lists them all, and ``make docs``
makes it. A translation is a ``.po`` file, which any translator's tool writes; what it does not have
is said in English. Marks in numbers, months and plurals are those of Unicode's CLDR, by Babel.

No number is formatted anywhere else: what a reason says in an answer and in a report is the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime, format_skeleton

from features.money import MINOR_UNIT_DIGITS
from serving.translations import LanguageError, Plural, Texts, read

TEXTS: Final = Path(__file__).parent / "texts"
"""Where the catalogue lies, and the translations that come with the program."""

SOURCE: Final = "en"
"""What texts are written in."""

NBSP: Final = "\N{NO-BREAK SPACE}"
_LOCALE_OF_SOURCE: Final = "en_GB"
_HOUR, _MINUTE, _YEAR = 1 / 24, 1 / 1440, 365.25

_TAG: Final = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}")


class Language:
    """Texts and numbers in one language; English where nothing else is asked for.

    >>> english = Language()
    >>> english.say("{who} paid {what}", who="ann", what=english.money(129_900, "GBP"))
    'ann paid 1,299.00 GBP'
    >>> [english.say_of(n, "{value} claim", "{value} claims") for n in (1, 2_000)]
    ['1 claim', '2,000 claims']
    """

    def __init__(
        self, tag: str = SOURCE, texts: Texts | None = None,
        plural: Plural = lambda number: int(number != 1),
    ) -> None:  # fmt: skip
        try:
            self.locale = Locale.parse(_LOCALE_OF_SOURCE if tag == SOURCE else _locale_name(tag))
        except (UnknownLocaleError, ValueError):
            told = f"language: expected a code such as en or pt-BR, got {tag!r}"
            raise LanguageError(told) from None
        self.tag = tag
        self._texts = texts or {}
        self._form = plural
        marks = self.locale.number_symbols["latn"]
        self._marks = str.maketrans({",": marks["group"], ".": marks["decimal"]})
        self._keeps_marks = (marks["group"], marks["decimal"]) == (",", ".")

    @classmethod
    def of(cls, tag: str, folder: Path | None = None) -> Language:
        """A language by its code: English, or what ``TAG.po`` in ``folder`` or with us translates.

        Raises LanguageError for a code without a translation, and for one with mistakes: all.
        """
        if tag == SOURCE:
            return cls()
        if not _TAG.fullmatch(tag):
            raise LanguageError(f"language: expected a code such as en or pt-BR, got {tag[:40]!r}")
        places = [each for each in (folder, TEXTS) if each is not None]
        found = [path for each in places if (path := each / f"{tag}.po").is_file()]
        if not found:
            known = sorted({SOURCE, *(path.stem for each in places for path in each.glob("*.po"))})
            raise LanguageError(f"language: expected one of {', '.join(known)}, got {tag!r}")
        return cls(tag, *read(_locale_name(tag), found[0]))

    # --- texts -------------------------------------------------------------------------------

    def say(self, text: str, /, **values: object) -> str:
        """A text with its ``{names}`` filled in; the values are never looked into."""
        said = self._texts.get(text)
        return (said[0] if said else text).format_map(values)

    def say_of(self, count: float, one: str, many: str, /, **values: object) -> str:
        """A text about so many things; ``{value}`` is the number, if it is not given."""
        whole = int(count) if math.isfinite(count) and count == int(count) else 2
        said = self._texts.get(one, (one, many))
        form = self._form(abs(whole)) if one in self._texts else int(whole != 1)
        return said[min(form, len(said) - 1)].format_map(
            {"value": self.count(count), **values}
        )  # fmt: skip

    def listed(self, parts: Sequence[str]) -> str:
        """Parts in one sentence.

        >>> Language().listed(["a", "b", "c"]), Language().listed(["a"])
        ('a, b and c', 'a')
        """
        if len(parts) < 2:
            return "".join(parts)
        return self.say("{parts} and {last}", parts=", ".join(parts[:-1]), last=parts[-1])

    # --- numbers -----------------------------------------------------------------------------

    def number(self, value: float | None, digits: int = 0) -> str:
        """A number with so many digits behind its point.

        >>> Language().number(1234.5678, 2), Language("de").number(1234.5678, 2)
        ('1,234.57', '1.234,57')
        >>> Language().number(float("nan")), Language().number(-0.0001, 2)
        ('not known', '0.00')
        """
        if value is None or not math.isfinite(value):
            return self.say("not known")
        text = f"{value:z,.{digits}f}"
        return text if self._keeps_marks else text.translate(self._marks)

    def signed(self, value: float, digits: int = 2) -> str:
        """A number with its sign.

        >>> Language().signed(0.4), Language().signed(-0.024), Language().signed(0.001)
        ('+0.40', '-0.02', '0.00')
        """
        text = self.number(value, digits)
        return f"+{text}" if value > 0 and text.strip("0.,") else text

    def count(self, value: float | None) -> str:
        """A number of things.

        >>> Language().count(7233.0), Language().count(3.62)
        ('7,233', '3.6')
        """
        is_whole = value is None or not math.isfinite(value) or not round(value % 1, 1) % 1
        return self.number(value, 0 if is_whole or abs(value or 0) >= 100 else 1)

    def share(self, value: float | None, digits: int = 0) -> str:
        """A share in per cent.

        >>> Language().share(0.6), Language().share(0.034, 1)
        ('60 %', '3.4 %')
        """
        known = value is not None and math.isfinite(value)
        return f"{self.number(100 * (value or 0), digits)} %" if known else self.number(None)

    def probability(self, value: float | None) -> str:
        """A probability in per cent, as precise as it has to be near 0 and 1.

        >>> [Language().probability(p) for p in (0.8731, 0.0214, 0.00031, 0.99991)]
        ['87 %', '2.1 %', 'less than 0.1 %', 'more than 99.9 %']
        """
        if value is None or not math.isfinite(value):
            return self.number(None)
        if value < 0.001:
            return self.say("less than {share}", share=self.share(0.001, 1))
        if value > 0.999:
            return self.say("more than {share}", share=self.share(0.999, 1))
        return self.share(value, 0 if 0.1 <= value <= 0.9 else 1)

    def money(self, minor: float | None, currency: str) -> str:
        """An amount of minor units, with the code of its currency.

        >>> Language().money(129_900, "GBP"), Language().money(500, "JPY")
        ('1,299.00 GBP', '500 JPY')
        """
        if minor is None or not math.isfinite(minor):
            return self.number(None)
        digits = MINOR_UNIT_DIGITS.get(currency, 2)
        return f"{self.number(minor / 10**digits, digits)} {currency}"

    def duration(self, days: float) -> str:
        """How long something took, in the unit that tells most.

        >>> [Language().duration(days) for days in (0.0, 1 / 1440, 0.02, 1.2, 12.0, 800.0)]
        ['less than a minute', '1 minute', '29 minutes', '29 hours', '12 days', '2.2 years']
        """
        length = abs(days)
        if length >= 2 * _YEAR:
            years = round(days / _YEAR, 1)
            return self.say_of(years, "{value} year", "{value} years", value=self.count(years))
        if length >= 2:
            return self.say_of(round(days), "{value} day", "{value} days")
        if length >= 2 * _HOUR:
            return self.say_of(round(days / _HOUR), "{value} hour", "{value} hours")
        if length < _MINUTE / 2:
            return self.say("less than a minute")
        return self.say_of(round(days / _MINUTE), "{value} minute", "{value} minutes")

    def value(self, value: float, unit: str, currency: str) -> str:
        """A feature's number as a person reads it; ``unit`` is a `features.feature.Unit`.

        >>> english = Language()
        >>> [english.value(*of, "GBP") for of in ((0.6, "share"), (0.02, "days"), (1.5, "bits"))]
        ['60 %', '29 minutes', '1.5 bits']
        >>> [english.value(x, "ratio", "GBP") for x in (0.034, 1.5, 12.3)]
        ['0.034', '1.5', '12']
        """
        match unit:
            case "count":
                return self.count(value)
            case "share":
                return self.share(value, 0 if not 0 < abs(value) < 0.01 else 1)
            case "minor":
                return self.money(value, currency)
            case "days":
                return self.duration(value)
            case "bits":
                return self.say("{value} bits", value=self.number(value, 1))
            case _:
                return self._ratio(value)

    def _ratio(self, value: float) -> str:
        """Two digits that tell something: 0.034, 1.5, 12."""
        if not math.isfinite(value) or value == 0 or abs(value) >= 10:
            return self.number(value)
        return self.number(value, max(0, 1 - math.floor(math.log10(abs(value)))))

    # --- times -------------------------------------------------------------------------------

    def instant(self, at: int) -> str:
        """Epoch ms as a person reads it, to the second, in UTC.

        >>> Language().instant(1_637_933_719_250)
        '26 Nov 2021, 13:35:19 UTC'
        """
        moment = datetime.fromtimestamp(at / 1000, UTC)
        return f"{self.day(at)}, {format_datetime(moment, 'HH:mm:ss', locale=self.locale)} UTC"

    def day(self, at: int) -> str:
        """The day of an instant in epoch ms, in UTC.

        >>> Language().day(1_637_933_719_250), Language("de").day(1_637_933_719_250)
        ('26 Nov 2021', '26.11.2021')
        """
        return format_date(datetime.fromtimestamp(at / 1000, UTC), "medium", locale=self.locale)

    def short_day(self, at: int) -> str:
        """The day of an instant in epoch ms without its year, in UTC: for the axis of a plot.

        >>> Language().short_day(1_637_933_719_250), Language("de").short_day(1_637_933_719_250)
        ('26 Nov', '26. Nov.')
        """
        moment = datetime.fromtimestamp(at / 1000, UTC)
        return format_skeleton("MMMd", moment, locale=self.locale)

    def globals(self) -> dict[str, Any]:
        """What a page's template calls: ``say`` and ``say_of``; its filters are the methods."""
        return {"say": self.say, "say_of": self.say_of, "language": self}


def _locale_name(tag: str) -> str:
    return tag.replace("-", "_")


ENGLISH: Final = Language()
"""The source language, made once."""
