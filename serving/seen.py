"""What others wrote, made visible: no character of it acts on who reads it.

Controls, halves of a character, what shows nothing and what turns the direction of text are told by
number, not taken away: an auditor sees that they were there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any, Final, TypeVar, cast

_HIDDEN: Final = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff"
)
_ON_A_PAGE: Final = re.compile(f"[{_HIDDEN}]")
_ON_A_LINE: Final = re.compile(f"[\t\n{_HIDDEN}]")

T = TypeVar("T")


def seen(value: T, *, line: bool = False) -> T:
    r"""A text, or every text in a value, with what cannot be seen told by number.

    On a ``line`` of its own a text has no tabs and line ends either.

    >>> seen("a\u202eb"), seen({"a": ["\x1b[31m"]}), seen("a\nb", line=True)
    ('a[U+202E]b', {'a': ['[U+001B][31m']}, 'a[U+000A]b')
    """
    changed: Any = value
    if isinstance(value, str):
        hidden = _ON_A_LINE if line else _ON_A_PAGE
        changed = hidden.sub(lambda found: f"[U+{ord(found[0]):04X}]", value)
    elif isinstance(value, Mapping):
        changed = {seen(key, line=line): seen(each, line=line) for key, each in value.items()}
    elif isinstance(value, (tuple, list)):
        changed = type(value)(seen(each, line=line) for each in value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {}
        for name in value.__dataclass_fields__:
            part = getattr(value, name)
            if (shown := seen(part, line=line)) != part:
                parts[name] = shown
        changed = replace(value, **parts) if parts else value
    return cast(T, changed)
