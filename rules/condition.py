"""Conditions: CEL over flat facts, checked for types when loaded, three-valued when evaluated.

The CEL library compiles and evaluates; it has no type checker, and at run time it answers `false`
to `amount_minor == "20"` where the author made a mistake. So the text is also read here, by the
grammar of the CEL specification, for the part of the language that flat facts need: literals,
facts, lists of literals, operators, `?:` and the string predicates. The rest is refused by name.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import cel

#: A fact's value; None and NaN both mean unknown, an empty sequence of strings does not.
FactValue = float | str | bool | Sequence[str] | None
Facts = Mapping[str, FactValue]
KnownValue = float | str | bool | Sequence[str]


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake in a condition; `line` and `column` count from 1 within its text."""

    line: int
    column: int
    message: str
    expected: str
    nearest: str | None = None


class ConditionError(ValueError):
    """A condition that cannot be used; `faults` lists every mistake found in it."""

    def __init__(self, text: str, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        super().__init__(f"{text!r}: " + "; ".join(f.message for f in faults))


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition, the facts it reads, and its three-valued evaluation."""

    text: str
    reads: tuple[str, ...]
    program: cel.Program

    @classmethod
    def parse(cls, text: str, kinds: Mapping[str, str]) -> Condition:
        """Compile `text` over facts of the given kinds (name -> "double" | "string" | "bool" |
        "strings", a list of them).

        Raises:
            ConditionError: with every mistake in the text.

        >>> kinds = {"amount_minor": "double", "final_sale": "bool"}
        >>> condition = Condition.parse("final_sale || amount_minor > 100.0", kinds)
        >>> [condition.holds(cel.Context(f)) for f in ({"final_sale": True}, {"final_sale": False})]
        [True, None]
        >>> Condition.parse("amount_minr > 100", kinds)
        Traceback (most recent call last):
            ...
        rules.condition.ConditionError: 'amount_minr > 100': unknown fact 'amount_minr'; \
'100' is an integer, and facts are doubles
        """
        program = _compiled(text, kinds, "bool")
        return cls(text, tuple(program.variables()), program)

    def holds(self, context: cel.Context) -> bool | None:
        """Evaluate: True, False, or None when the declared facts cannot settle it.

        Unknown facts are not declared, and CEL's own logic decides what that means: `true || x`
        holds whatever x is. A comparison with the NaN of 0.0 / 0.0 is unsettled as well.
        """
        try:
            return bool(self.program.execute(context))
        except (RuntimeError, TypeError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class Amount:
    """A compiled amount: the language of conditions, with a double as its value."""

    text: str
    reads: tuple[str, ...]
    program: cel.Program

    @classmethod
    def parse(cls, text: str, kinds: Mapping[str, str]) -> Amount:
        """Compile `text`; kinds and errors as in `Condition.parse`.

        >>> amount = Amount.parse("paid - fee", {"paid": "double", "fee": "double"})
        >>> amount.minor(cel.Context({"paid": 500.0, "fee": 120.0}))
        380
        >>> amount.minor(cel.Context({"paid": 500.0})) is None
        True
        """
        program = _compiled(text, kinds, "double")
        return cls(text, tuple(program.variables()), program)

    def minor(self, context: cel.Context) -> int | None:
        """Evaluate, rounded down to whole minor units; None when it is unknown or not finite."""
        try:
            value = self.program.execute(context)
        except (RuntimeError, TypeError, ValueError):
            return None
        return math.floor(value) if math.isfinite(value) else None


def _compiled(text: str, kinds: Mapping[str, str], wanted: str) -> cel.Program:
    """Compile and check a text whose value is to be of the `wanted` type."""
    try:
        program = cel.compile(text)
    except ValueError as error:
        raise ConditionError(text, (_syntax_fault(str(error)),)) from None
    faults = _Checker(text, kinds, wanted).faults()
    if faults:
        raise ConditionError(text, faults)
    return program


def known_facts(facts: Facts, kinds: Mapping[str, str]) -> dict[str, KnownValue]:
    """Pick the facts named in `kinds` that are known, as the exact types CEL expects.

    Raises:
        TypeError: a fact is not of its kind: catalog and caller disagree.

    >>> kinds = {"a": "double", "b": "string", "c": "double"}
    >>> known_facts({"a": 3, "b": None, "c": float("nan"), "not read": "x"}, kinds)
    {'a': 3.0}
    """
    known: dict[str, KnownValue] = {}
    for name, kind in kinds.items():
        value = facts.get(name)
        if value is None or value != value:
            continue
        if type(value) is not _EXACT.get(kind):
            value = _convert(name, value, kind)
        known[name] = value
    return known


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the most similar of `names`, or None if none is similar.

    >>> nearest("refund_cuont", ["amount_minor", "refund_count"])
    'refund_count'
    """
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)


_EXACT: dict[str, type] = {"double": float, "string": str, "bool": bool}


def _convert(name: str, value: object, kind: str) -> KnownValue:
    """Turn an int, a NumPy number or a string enum into the plain type of its kind."""
    if kind == "double" and isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    if kind == "string" and isinstance(value, str):
        return str(value)
    if kind == "strings" and isinstance(value, list | tuple):
        return [str(_convert(name, item, "string")) for item in value]
    raise TypeError(f"fact {name}: expected a {kind}, got {value!r}")


_CEL_ERROR = re.compile(r"<input>:(\d+):(\d+): (.*)")


def _syntax_fault(message: str) -> Fault:
    """Read the first place out of the compiler's message: what follows is mostly its echo."""
    found = _CEL_ERROR.search(message)
    if "Recursion limit" in message or found is None:
        return Fault(1, 1, _TOO_DEEP, _READABLE)
    line, column, what = found.groups()
    return Fault(int(line), int(column), what.split(" expecting ")[0], "a CEL condition")


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
#: Binary operators from the loosest to the tightest; all associate to the left.
_LEVELS = (
    ("||",),
    ("&&",),
    ("==", "!=", "<", "<=", ">", ">=", "in"),
    ("+", "-"),
    ("*", "/", "%"),
)
_DEEPEST = 24
_TOO_DEEP = "nested too deeply"
_READABLE = "a condition that a reader can follow"
_PREDICATES = ("contains", "endsWith", "startsWith")
_UNSURE = ""  # the type of a part already found faulty: agrees with everything, so faults come once


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    offset: int


class _Outside(Exception):  # noqa: N818 - control flow inside this module
    """The text leaves the part of CEL that conditions use."""

    def __init__(self, token: _Token, message: str = "", expected: str = "") -> None:
        self.token = token
        self.message = message or f"{token.text!r} is not available in conditions"
        self.expected = expected or "facts, literals, operators and string predicates"


class _Checker:
    """A recursive-descent reader of one condition that gives every part a type.

    A type is "double", "string", "bool" or "list of " one of them. The text has been accepted by
    the CEL compiler, so it is well-formed; what is looked for is meaning.
    """

    def __init__(self, text: str, kinds: Mapping[str, str], wanted: str) -> None:
        self._text = text
        self._wanted = wanted
        self._kinds = kinds
        self._found: list[Fault] = []
        self._tokens = [
            _Token(match.lastgroup or "", match.group(), match.start())
            for match in _TOKEN.finditer(text)
            if match.lastgroup != "space"
        ]
        self._tokens.append(_Token("end", "", len(text)))
        self._at = 0
        self._depth = 0

    def faults(self) -> tuple[Fault, ...]:
        try:
            kind = self._choice()
            if self._next.kind != "end":
                raise _Outside(self._next)
        except _Outside as outside:
            self._fault(outside.token, outside.message, outside.expected)
        else:
            what = "condition" if self._wanted == "bool" else "amount"
            message = f"the {what} is a {kind}"
            self._agree(self._tokens[0], message, f"a {self._wanted}", kind, self._wanted)
        return tuple(self._found)

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        if self._next.text != text:
            raise _Outside(self._next)
        self._at += 1

    def _fault(self, token: _Token, message: str, expected: str, near: str | None = None) -> None:
        before = self._text[: token.offset]
        column = token.offset - (before.rfind("\n") + 1) + 1
        self._found.append(Fault(before.count("\n") + 1, column, message, expected, near))

    def _agree(self, token: _Token, message: str, expected: str, kind: str, wanted: str) -> None:
        if kind not in (wanted, _UNSURE):
            self._fault(token, message, expected)

    def _choice(self) -> str:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _Outside(self._next, _TOO_DEEP, _READABLE)
        kind = self._binary(0)
        if self._next.text == "?":
            kind = self._branches(kind)
        self._depth -= 1
        return kind

    def _branches(self, kind: str) -> str:
        token = self._take()
        self._agree(token, f"'?' chooses by a {kind}", "a bool before '?'", kind, "bool")
        yes = self._binary(0)
        self._expect(":")
        return self._same(token, yes, self._choice(), "two values of one type around ':'")

    def _binary(self, level: int) -> str:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while self._next.kind in ("op", "name") and self._next.text in _LEVELS[level]:
            token = self._take()
            left = self._operator(token, left, self._binary(level + 1))
        return left

    def _operator(self, token: _Token, left: str, right: str) -> str:
        operator = token.text
        if operator in ("==", "!="):
            self._same(token, left, right, "two values of one type")
            return "bool"
        if operator == "in":
            if _UNSURE not in (left, right) and right != f"list of {left}":
                self._fault(token, f"'in' between {left} and {right}", f"a list of {left}")
            return "bool"
        if operator == "%":
            self._fault(token, "'%' is not defined for doubles", "+, -, * or /")
            return "double"
        wanted = "bool" if operator in ("&&", "||") else "double"
        if {left, right} - {wanted, _UNSURE}:
            message = f"{operator!r} between {left or 'a fault'} and {right or 'a fault'}"
            self._fault(token, message, f"a {wanted} on both sides")
        return "double" if operator in ("+", "-", "*", "/") else "bool"

    def _same(self, token: _Token, left: str, right: str, expected: str) -> str:
        if _UNSURE in (left, right):
            return left or right
        if left != right or left.startswith("list"):
            self._fault(token, f"{token.text!r} between {left} and {right}", expected)
            return _UNSURE
        return left

    def _unary(self) -> str:
        token = self._next
        if token.text not in ("!", "-"):
            return self._member()
        while self._next.text == token.text:
            self._take()
        wanted = "bool" if token.text == "!" else "double"
        kind = self._unary()
        self._agree(token, f"{token.text!r} before a {kind}", f"a {wanted}", kind, wanted)
        return wanted

    def _member(self) -> str:
        kind = self._primary()
        while self._next.text == ".":
            dot, predicate = self._take(), self._take()
            if predicate.text not in _PREDICATES or self._next.text != "(":
                raise _Outside(predicate)
            self._take()
            argument = self._choice()
            self._expect(")")
            for part in (kind, argument):
                message = f"'.{predicate.text}' on a {kind} with a {argument}"
                self._agree(dot, message, "two strings", part, "string")
            kind = "bool"
        return kind

    def _primary(self) -> str:
        token = self._take()
        if token.kind in ("double", "string"):
            return token.kind
        if token.kind == "int":
            hint = f"{int(token.text.rstrip('uU'), 0)}.0"
            self._fault(token, f"{token.text!r} is an integer, and facts are doubles", hint)
            return "double"
        if token.kind == "name" and token.text != "null" and self._next.text != "(":
            return "bool" if token.text in ("true", "false") else self._fact(token)
        if token.text == "(":
            kind = self._choice()
            self._expect(")")
            return kind
        if token.text == "[":
            return self._list(token)
        raise _Outside(token)

    def _fact(self, token: _Token) -> str:
        kind = self._kinds.get(token.text)
        if kind is None:
            near = nearest(token.text, self._kinds)
            self._fault(token, f"unknown fact {token.text!r}", "the name of a fact", near)
            return _UNSURE
        return "list of string" if kind == "strings" else kind

    def _list(self, token: _Token) -> str:
        kinds = set()
        while self._next.text != "]":
            kinds.add(self._choice())
            if self._next.text != "]":
                self._expect(",")
        self._take()
        kinds.discard(_UNSURE)
        if len(kinds) > 1:
            self._fault(token, f"a list of {' and '.join(sorted(kinds))}", "values of one type")
        return f"list of {kinds.pop()}" if len(kinds) == 1 else _UNSURE
