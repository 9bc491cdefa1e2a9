"""Translations of the catalogue of texts, read from ``.po`` files and checked before they are said.

A mistake in one must show when the service starts, not in the middle of an answer: each text is to
hold the names that its source holds, as they stand, and plurals are to be told of every number.
"""

from __future__ import annotations

import gettext
import io
import re
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from babel import UnknownLocaleError
from babel.messages.catalog import Message
from babel.messages.pofile import PoFileError, read_po

Texts = Mapping[str, Sequence[str]]
"""English text -> its translation, of a counted thing one for each plural form."""

Plural = Callable[[int], int]
"""Which of the plural forms a number takes."""

MOST_BYTES: Final = 8 * 1024 * 1024
MOST_FORMS: Final = 6
"""No language has more plurals (CLDR)."""

_TRIED: Final = 1_000
_FORMS: Final = re.compile(rb"nplurals\s*=\s*(\d+)")


class LanguageError(ValueError):
    """A language that cannot be spoken, with all that is wrong with its translation."""


def read(locale: str, path: Path) -> tuple[Texts, Plural]:
    """The texts of a translation, and its plurals.

    Raises LanguageError with every mistake and its line. What is not translated, or marked as
    fuzzy, is left out.
    """
    content = path.read_bytes()
    if len(content) > MOST_BYTES:
        raise LanguageError(f"{path}: expected at most {MOST_BYTES:,} bytes, got {len(content):,}")
    forms = _FORMS.search(content)
    if forms and (len(forms[1]) > 3 or not 1 <= int(forms[1]) <= MOST_FORMS):
        raise LanguageError(f"{path}: nplurals: expected 1 to {MOST_FORMS}, "
                            f"got {forms[1][:20].decode()}")  # fmt: skip
    try:
        catalogue = read_po(io.BytesIO(content), locale=locale, abort_invalid=True)
        plural = _plural(catalogue.plural_expr, catalogue.num_plurals)
    except (PoFileError, UnknownLocaleError, ValueError, RecursionError) as error:
        raise LanguageError(f"{path}: {error}") from error
    texts: dict[str, Sequence[str]] = {}
    problems: list[str] = []
    for message in catalogue:
        sources, given = _forms(message.id), _forms(message.string)
        if not sources[0] or message.fuzzy or not all(given):
            continue
        problems += [f"{path}:{message.lineno}: {told}" for told in _mistakes(message)]
        texts[sources[0]] = given
    if problems:
        raise LanguageError("\n".join(problems))
    return texts, plural


def placeholders(text: str) -> set[str]:
    """The names that a text wants filled in, which are to stand alone between braces.

    >>> sorted(placeholders("{value} refunds by {who}"))
    ['value', 'who']
    >>> placeholders("{value!r}")
    Traceback (most recent call last):
    ...
    ValueError: expected a name between braces, as in {value}, got {value!r}
    """
    names = set()
    for _, name, form, conversion in string.Formatter().parse(text):
        if name is None:
            continue
        if form or conversion or not name.isidentifier():
            got = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise ValueError(f"expected a name between braces, as in {{value}}, got {{{got}}}")
        names.add(name)
    return names


def _plural(rule: str, forms: int) -> Plural:
    """The rule as a function that was tried on many numbers; raises ValueError."""
    plural: Plural = gettext.c2py(rule)
    try:
        found = {plural(number) for number in range(_TRIED)}
    except ZeroDivisionError as error:
        raise ValueError(f"plural: {rule!r} is not told of every number") from error
    if not found <= set(range(forms)):
        raise ValueError(f"plural: {rule!r} gives {sorted(found)}, expected 0 to {forms - 1}")
    return plural


def _forms(of: str | Sequence[str] | None) -> Sequence[str]:
    return (of or "",) if isinstance(of, str) or of is None else of


def _mistakes(message: Message) -> list[str]:
    """What names a translation has that its source has not, or lacks."""
    sources, given = _forms(message.id), _forms(message.string)
    wanted = set().union(*map(placeholders, sources))
    mistakes = []
    for number, text in enumerate(given, 1):
        # A form for few things may say so in a word: "a day".
        needed = wanted if number == len(given) else wanted - {"value"}
        try:
            names = placeholders(text)
        except ValueError as error:
            mistakes.append(f"{text!r}: {error}")
            continue
        if strange := _named(names - wanted):
            mistakes.append(f"{strange} is not in {sources[0]!r}")
        if lost := _named(needed - names):
            mistakes.append(f"{text!r} lacks {lost}")
    return mistakes


def _named(names: set[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))
