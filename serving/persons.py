"""Names of people: one spelling for each, so that nobody passes as a second person.

Who proposes a policy and who puts it in force are told apart by their names. A name that only
looks like another one, or is the same with something invisible in it, would be two people on paper.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MOST_CHARACTERS: Final = 100

# Categories that may stand in a name: letters, marks, numbers and punctuation, and the plain space.
_MAJOR: Final = "LMNP"
# Letters and marks that show nothing.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Scripts that are written together, in Japanese, Korean and Chinese.
_TOGETHER: Final = (
    {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"},
    {"CJK", "HANGUL"},
    {"CJK", "BOPOMOFO"},
)


class NameRefused(ValueError):  # noqa: N818 - it is what happened, as the API answers it
    """A text that is nobody's name; the message says why and what would be right."""


def name_of_person(text: str) -> str:
    r"""A person's name in its one spelling: NFKC, no space around it, one space within.

    Refused is what is blank, longer than 100 characters, holds what cannot be seen, or letters of
    more than one script: a Cyrillic letter among Latin ones looks the same and is another.

    Raises:
        NameRefused: with what is wrong.

    >>> name_of_person("  Ann  Lee ")
    'Ann Lee'
    >>> name_of_person("\u0430nn")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    serving.persons.NameRefused: name: ... got 'аnn' with letters of CYRILLIC and LATIN
    """
    name = " ".join(filter(None, unicodedata.normalize("NFKC", text).split(" ")))
    if not name or len(name) > MOST_CHARACTERS:
        raise NameRefused(
            f"name: expected a person's name of 1 to {MOST_CHARACTERS} characters, "
            f"got {_shown(text)}"
        )
    if unseen := [one for one in text + name if not _is_seen(one)]:
        raise NameRefused(
            f"name: expected a person's name that can be read, got {_shown(text)}, "
            f"which holds U+{ord(unseen[0]):04X}"
        )
    scripts = {unicodedata.name(one, "?").split()[0] for one in name if _is_letter(one)}
    if len(scripts) > 1 and not any(scripts <= together for together in _TOGETHER):
        raise NameRefused(
            "name: expected a person's name in letters of one script, "
            f"got {_shown(text)} with letters of {' and '.join(sorted(scripts))}"
        )
    return name


def is_same_person(one: str, other: str) -> bool:
    r"""Whether two names are one person's, also where one was kept before names were checked.

    >>> is_same_person("Ann Lee", " ann\u200b LEE"), is_same_person("Ann", "Bob")
    (True, False)
    """
    return compared(one) == compared(other)


def compared(name: str) -> str:
    r"""What a name is told from others by: the same for every spelling of one person's.

    Of a name that is written with letters only these and numbers count: there are many hyphens.

    >>> compared(" Ann\u200b LEE"), compared("Ann-Lee"), compared("Ann\u2010Lee")
    ('annlee', 'annlee', 'annlee')
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = "".join(one for one in folded if one != " " and _is_seen(one))
    bare = "".join(one for one in seen if unicodedata.category(one)[0] in "LMN")
    return bare or seen


def _is_seen(one: str) -> bool:
    if one.isascii():
        return one.isprintable()
    plain = unicodedata.category(one)[0] in _MAJOR or unicodedata.category(one) == "Zs"
    return plain and not _UNSEEN.match(one)


def _is_letter(one: str) -> bool:
    return unicodedata.category(one) in ("Lu", "Ll", "Lt", "Lo")


def _shown(text: str) -> str:
    return repr(text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…")
