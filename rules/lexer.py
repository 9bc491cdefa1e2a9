"""Cutting a CEL text into tokens, and saying where and why a text is no CEL."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake in a text: where (from 1), over how many characters, and what would be right."""

    line: int
    column: int
    message: str
    expected: str
    nearest: str | None = None
    length: int = 1


class ConditionError(ValueError):
    """A condition or amount that cannot be used; `faults` lists every mistake found in it."""

    def __init__(self, text: str, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{text!r}: " + "; ".join(f.message for f in self.faults))


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the most similar of `names`, or None if none is similar.

    >>> nearest("refund_cuont", ["amount_minor", "refund_count"])
    'refund_count'
    """
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)


class Token(NamedTuple):
    """A piece of a text; `kind` is string, double, int, name, op, other or end."""

    kind: str
    text: str
    offset: int


_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<string>[rR](?:"[^"]*"|'[^']*')|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<double>\d*\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
    |(?P<int>0[xX][0-9a-fA-F]+[uU]?|\d+[uU]?)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<op>&&|\|\||[=!<>]=|[-+*/%<>!?:.,()\[\]])
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def tokens_of(text: str) -> list[Token]:
    """Cut a text into tokens, the last one of kind "end"."""
    return [
        *(
            Token(match.lastgroup or "", match.group(), match.start())
            for match in _TOKEN.finditer(text)
            if match.lastgroup != "space"
        ),
        Token("end", "", len(text)),
    ]


# What people write who come from SQL, Python or a word processor, and what CEL calls it.
_HABITS: Final[Mapping[str, str]] = {
    "and": "&&",
    "or": "||",
    "not": "!",
    "=": "==",
    "&": "&&",
    "|": "||",
    "AND": "&&",
    "OR": "||",
    "NOT": "!",
    "is": "==",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
}
_CULPRIT = re.compile(r"(?:input|at:) '([^']+)'")
_CEL_ERROR = re.compile(r"<input>:(\d+):(\d+): (.*)")
TOO_DEEP = "nested too deeply"
READABLE = "a condition that a reader can follow"


def syntax_fault(message: str, text: str, tokens: Sequence[Token]) -> Fault:
    """Say what is wrong with a text that is no CEL: a known habit, or the compiler's first word.

    What follows in the compiler's message is mostly an echo of its first word.
    """
    for token in tokens:
        if token.kind in ("name", "other") and token.text in _HABITS:
            meant = _HABITS[token.text]
            what = f"{token.text!r} is not CEL"
            return fault_at(text, token, what, meant)
    found = _CEL_ERROR.search(message)
    if "Recursion limit" in message or found is None:
        return Fault(1, 1, TOO_DEEP, READABLE)
    line, column, what = found.groups()
    if "<EOF>" in what.split(" expecting ")[0]:
        return Fault(int(line), int(column), "ends too early", "the rest of a CEL condition")
    where = _CULPRIT.search(what)
    culprit = where[1] if where else what
    message = f"{culprit!r} has no meaning here"
    return Fault(int(line), int(column), message, "a CEL condition", None, len(culprit))


def fault_at(
    text: str, token: Token, message: str, expected: str, near: str | None = None
) -> Fault:
    """Make a fault whose place is a token's."""
    before = text[: token.offset]
    column = token.offset - (before.rfind("\n") + 1) + 1
    length = max(1, len(token.text.split("\n")[0]))
    return Fault(before.count("\n") + 1, column, message, expected, near, length)
