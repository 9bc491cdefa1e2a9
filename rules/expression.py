"""Reading a CEL text: what type each part has, what is wrong with it, and how to evaluate it.

The CEL library tells whether a text is well-formed, but has no type checker: at run time it answers
`false` to `amount_minor == "20"`, where the author made a mistake. So the text is read here too, by
the grammar of the CEL specification, for the part of the language that flat facts need: literals,
facts, lists of literals, operators, `?:` and the string predicates. The rest is refused by name.

Nothing that is accepted can loop, recurse, call out or read anything but facts: there are no
macros, no functions and no indexing, and the depth of what is accepted is bounded.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import cel

from rules import evaluation
from rules.evaluation import ARITHMETIC, EQUALITIES, ORDERINGS, PREDICATES, Run
from rules.lexer import (
    READABLE,
    TOO_DEEP,
    ConditionError,
    Fault,
    Token,
    fault_at,
    nearest,
    syntax_fault,
    tokens_of,
)


class Expression(NamedTuple):
    """A text that is sound: the facts it reads, in the order of the alphabet, and what it does."""

    reads: tuple[str, ...]
    run: Run


def compiled(text: str, kinds: Mapping[str, str], wanted: str) -> Expression:
    """Read a text over facts of the given kinds; its value is to be of the type `wanted`.

    Raises:
        ConditionError: with every mistake in the text.
    """
    tokens = tokens_of(text)
    try:
        cel.compile(text)
    except ValueError as error:
        raise ConditionError(text, [syntax_fault(str(error), text, tokens)]) from None
    return _Reader(text, tokens, kinds, wanted).read()


class _Outside(Exception):  # noqa: N818 - control flow inside this module
    """The text leaves the part of CEL that conditions use."""

    def __init__(self, token: Token, message: str = "", expected: str = "") -> None:
        self.token = token
        self.message = message or f"{token.text!r} is not available in conditions"
        self.expected = expected or "facts, literals, operators and string predicates"


_DEEPEST = 24
_UNSURE = ""  # the type of a part already found faulty: agrees with everything, so faults come once
_UNREAD = evaluation.literal(None)


class _Part(NamedTuple):
    """A part of the text: its type, its function, and its name or value where it is that simple.

    A type is "double", "string", "bool" or "list of " one of them.
    """

    kind: str
    run: Run
    name: str | None = None
    value: Any = None


def _number_in(part: _Part) -> str | None:
    """Return the number that a literal string spells: written in quotes, it is meant without."""
    digits = part.kind == "string" and re.fullmatch(r"\s*(\d+)(\.\d+)?\s*", str(part.value))
    return f"{digits[1]}{digits[2] or '.0'}" if digits else None


class _Reader:
    """A recursive-descent reader of one text. The CEL compiler has found it well-formed."""

    def __init__(
        self, text: str, tokens: list[Token], kinds: Mapping[str, str], wanted: str
    ) -> None:
        self._text = text
        self._kinds = kinds
        self._wanted = wanted
        self._found: list[Fault] = []
        self._reads: set[str] = set()
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def read(self) -> Expression:
        part = _Part(_UNSURE, _UNREAD)
        try:
            part = self._choice()
            if self._next.kind != "end":
                raise _Outside(self._next)
        except _Outside as outside:
            self._fault(outside.token, outside.message, outside.expected)
        else:
            what = "condition" if self._wanted == "bool" else "amount"
            message = f"the {what} is a {part.kind}"
            self._agree(self._tokens[0], message, f"a {self._wanted}", part, self._wanted)
        if self._found:
            raise ConditionError(self._text, self._found)
        return Expression(tuple(sorted(self._reads)), part.run)

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += 1
        return token

    def _takes(self, texts: Iterable[str]) -> Token | None:
        """Take the next token if it is one of these operators."""
        found = self._next.kind in ("op", "name") and self._next.text in texts
        return self._take() if found else None

    def _expect(self, text: str) -> None:
        if self._next.text != text:
            raise _Outside(self._next)
        self._at += 1

    def _fault(self, token: Token, message: str, expected: str, near: str | None = None) -> None:
        self._found.append(fault_at(self._text, token, message, expected, near))

    def _agree(self, token: Token, message: str, expected: str, part: _Part, wanted: str) -> None:
        if part.kind not in (wanted, _UNSURE):
            self._fault(token, message, expected)

    def _choice(self) -> _Part:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _Outside(self._next, TOO_DEEP, READABLE)
        part = self._either()
        if token := self._takes("?"):
            self._agree(token, f"'?' chooses by a {part.kind}", "a bool before '?'", part, "bool")
            yes = self._either()
            self._expect(":")
            no = self._choice()
            kind = self._same(token, yes, no, "two values of one type around ':'")
            part = _Part(kind, evaluation.chosen(part.run, yes.run, no.run))
        self._depth -= 1
        return part

    def _either(self) -> _Part:
        return self._joined("||", self._both, evaluation.some)

    def _both(self) -> _Part:
        return self._joined("&&", self._relation, evaluation.every)

    def _joined(
        self, sign: str, inner: Callable[[], _Part], join: Callable[[Sequence[Run]], Run]
    ) -> _Part:
        parts = [inner()]
        while token := self._takes([sign]):
            parts.append(inner())
            self._both_of(token, parts[-2], parts[-1], "bool")
        if len(parts) == 1:
            return parts[0]
        return _Part("bool", join([part.run for part in parts]))

    def _relation(self) -> _Part:
        left = self._sum()
        token = self._takes((*EQUALITIES, *ORDERINGS, "in"))
        if token is None:
            return left
        right = self._sum()
        if again := self._takes((*EQUALITIES, *ORDERINGS, "in")):
            message = f"{again.text!r} after another comparison"
            raise _Outside(again, message, "one comparison, or two joined by '&&'")
        return self._compared(token, left, right)

    def _compared(self, token: Token, left: _Part, right: _Part) -> _Part:
        sign = token.text
        if sign == "in":
            if _UNSURE not in (left.kind, right.kind) and right.kind != f"list of {left.kind}":
                message = f"'in' between {left.kind} and {right.kind}"
                self._fault(token, message, f"a list of {left.kind}")
            if left.name and right.value is not None:
                return _Part(
                    "bool", evaluation.fact_against(evaluation.within, left.name, right.value)
                )
            return _Part("bool", evaluation.applied(evaluation.within, left.run, right.run))
        if sign in EQUALITIES:
            self._same(token, left, right, "two values of one type")
            test, join = EQUALITIES[sign], evaluation.applied
        else:
            self._both_of(token, left, right, "double")
            test, join = ORDERINGS[sign], evaluation.ordered
        if left.name and right.value is not None:
            return _Part("bool", evaluation.fact_against(test, left.name, right.value))
        return _Part("bool", join(test, left.run, right.run))

    def _sum(self) -> _Part:
        return self._arithmetic(("+", "-"), self._product)

    def _product(self) -> _Part:
        return self._arithmetic(("*", "/", "%"), self._unary)

    def _arithmetic(self, signs: Sequence[str], inner: Callable[[], _Part]) -> _Part:
        first = left = inner()
        rest = []
        while token := self._takes(signs):
            right = inner()
            if token.text == "%":
                self._fault(token, "'%' is not defined for doubles", "+, -, * or /")
                continue
            self._both_of(token, left, right, "double")
            rest.append((ARITHMETIC[token.text], right.run))
            left = _Part("double", _UNREAD)
        return _Part("double", evaluation.chained(first.run, rest)) if rest else first

    def _both_of(self, token: Token, left: _Part, right: _Part, wanted: str) -> None:
        if {left.kind, right.kind} - {wanted, _UNSURE}:
            kinds = f"{left.kind or 'a fault'} and {right.kind or 'a fault'}"
            message = f"{token.text!r} between {kinds}"
            near = _number_in(left) or _number_in(right) if wanted == "double" else None
            self._fault(token, message, f"a {wanted} on both sides", near)

    def _same(self, token: Token, left: _Part, right: _Part, expected: str) -> str:
        if _UNSURE in (left.kind, right.kind):
            return left.kind or right.kind
        kinds = {left.kind, right.kind}
        if len(kinds) > 1 or left.kind.startswith("list"):
            near = _number_in(left) or _number_in(right)
            message = f"{token.text!r} between {left.kind} and {right.kind}"
            self._fault(token, message, expected, near if "double" in kinds else None)
            return _UNSURE
        return left.kind

    def _unary(self) -> _Part:
        token = self._next
        if token.text not in ("!", "-"):
            return self._member()
        odd = False
        while self._next.text == token.text:
            self._take()
            odd = not odd
        wanted = "bool" if token.text == "!" else "double"
        part = self._unary()
        self._agree(token, f"{token.text!r} before a {part.kind}", f"a {wanted}", part, wanted)
        if not odd:
            return _Part(wanted, part.run)
        change = operator.not_ if wanted == "bool" else operator.neg
        if wanted == "double" and part.value is not None:
            return _Part(wanted, evaluation.literal(-part.value), value=-part.value)
        return _Part(wanted, evaluation.changed(change, part.run))

    def _member(self) -> _Part:
        part = self._primary()
        while self._next.text == ".":
            dot, predicate = self._take(), self._take()
            if predicate.text not in PREDICATES or self._next.text != "(":
                raise _Outside(predicate)
            self._take()
            argument = self._choice()
            self._expect(")")
            message = f"'.{predicate.text}' on a {part.kind} with a {argument.kind}"
            for one in (part, argument):
                self._agree(dot, message, "two strings", one, "string")
            test = PREDICATES[predicate.text]
            part = _Part("bool", evaluation.applied(test, part.run, argument.run))
        return part

    def _primary(self) -> _Part:
        token = self._take()
        if token.kind == "double":
            return self._literal("double", float(token.text))
        if token.kind == "string":
            return self._literal("string", cel.evaluate(token.text))
        if token.kind == "int":
            near = f"{int(token.text.rstrip('uU'), 0)}.0"
            message = f"{token.text!r} is an integer, and facts are doubles"
            self._fault(token, message, "a double", near)
            return _Part("double", _UNREAD)
        if token.text in ("true", "false"):
            return self._literal("bool", token.text == "true")
        if token.kind == "name" and token.text != "null" and self._next.text != "(":
            return self._fact(token)
        if token.text == "(":
            part = self._choice()
            self._expect(")")
            return part
        if token.text == "[":
            return self._list(token)
        raise _Outside(token)

    def _literal(self, kind: str, value: float | str | bool) -> _Part:
        return _Part(kind, evaluation.literal(value), value=value)

    def _fact(self, token: Token) -> _Part:
        kind = self._kinds.get(token.text)
        if kind is None:
            near = nearest(token.text, [*self._kinds, "true", "false"])
            self._fault(token, f"unknown fact {token.text!r}", "the name of a fact", near)
            return _Part(_UNSURE, _UNREAD)
        self._reads.add(token.text)
        kind = "list of string" if kind == "strings" else kind
        return _Part(kind, evaluation.fact(token.text), name=token.text)

    def _list(self, token: Token) -> _Part:
        parts = []
        while self._next.text != "]":
            parts.append(self._choice())
            if self._next.text != "]":
                self._expect(",")
        self._take()
        if not parts:
            self._fault(token, "an empty list", "at least one value")
        kinds = {part.kind for part in parts} - {_UNSURE}
        if len(kinds) > 1:
            self._fault(token, f"a list of {' and '.join(sorted(kinds))}", "values of one type")
        kind = f"list of {kinds.pop()}" if len(kinds) == 1 else _UNSURE
        values = [part.value for part in parts]
        run = evaluation.listed([part.run for part in parts])
        return _Part(kind, run, value=None if None in values else values)
