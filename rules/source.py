"""A YAML text as plain values, with the place of everything in it and each slip in the writing.

PyYAML's own loader lets a repeated key win silently and forgets where a value stood.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml
from yaml.constructor import SafeConstructor

from rules.nodes import node_of

Path = tuple[str | int, ...]

#: In bytes of UTF-8, far above any policy: 500 rules of 1,000. What is longer is not read at all.
LONGEST = 500_000
_YAML = "a YAML document; a condition with quotes or a colon stands on lines of its own after |-"
_BREAK = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")


def lines_of(text: str) -> list[str]:
    """Cut a text into lines as YAML counts them.

    >>> lines_of("a: 1\\r\\nb: 2\\n")
    ['a: 1', 'b: 2', '']
    """
    return _BREAK.split(text)


class Place(NamedTuple):
    """Line and column, from 1, and how many characters of that line."""

    line: int
    column: int
    length: int


@dataclass(frozen=True, slots=True)
class Slip:
    """Something wrong with the YAML itself, at `path`; at its key where `key` says so."""

    path: Path
    message: str
    value: str
    expected: str
    key: bool = False


@dataclass(slots=True)
class Source:
    """What a YAML text says (`value`), where, and its slips.

    >>> source = Source.read("rules:\\n- id: a\\n  id: b\\n")
    >>> source.value, source.place(("rules", 0, "id"))
    ({'rules': [{'id': 'a'}]}, Place(line=2, column=7, length=1))
    >>> source.slips[0].message, source.slips[0].value
    ('key given twice', 'id')
    """

    text: str
    value: Any = None
    slips: list[Slip] = field(default_factory=list)
    _spans: dict[Path, tuple[int, int]] = field(default_factory=dict)
    _keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    _scalars: dict[Path, yaml.ScalarNode] = field(default_factory=dict)
    _starts: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, text: str) -> Source:
        """Read one YAML document; never raises: what cannot be read is a slip."""
        source = cls(text)
        source._starts = [0, *(match.end() for match in _BREAK.finditer(text))]
        if (length := len(text.encode(errors="replace"))) > LONGEST:
            source._slip((), "too long", f"{length} bytes", f"at most {LONGEST}")
            return source
        try:
            node = node_of(text)
            if node is not None:
                source.value = source._build(SafeConstructor(), node, (), set())
        except yaml.MarkedYAMLError as error:
            if error.problem_mark:
                source._spans[()] = (error.problem_mark.index, error.problem_mark.index + 1)
            source._slip((), "not YAML", error.problem or "", _YAML)
        except yaml.YAMLError as error:
            source._slip((), "not YAML", str(error), "a YAML document")
        except RecursionError:
            source._slip((), "nested too deeply", "", "a policy document")
        return source

    def place(self, path: Path, *, key: bool = False) -> Place | None:
        """Return the place of the value at `path`, or of the nearest thing around it that has one.

        With `key`, the place of the key that the value stands under.
        """
        if key and path in self._keys:
            return self._place(*self._keys[path])
        for length in range(len(path), -1, -1):
            if path[:length] in self._spans:
                return self._place(*self._spans[path[:length]])
        return None

    def place_within(self, path: Path, line: int, column: int, length: int) -> Place | None:
        """Return the place in this text of a line and column of the string at `path`.

        >>> source = Source.read('when: |-\\n    a\\n    && b\\n')
        >>> source.place_within(("when",), 2, 4, 1)  # the b
        Place(line=3, column=8, length=1)
        """
        node = self._scalars.get(path)
        if node is None:
            return self.place(path)
        spans = _spans(self.text, node)
        lines = node.value.split("\n")
        at = sum(len(one) + 1 for one in lines[: line - 1]) + column - 1
        first, last = (spans[min(i, len(spans) - 1)] for i in (at, at + length - 1))
        return self._place(first[0], last[1])

    def _place(self, start: int, end: int) -> Place:
        line = bisect.bisect_right(self._starts, start)
        begin = self._starts[line - 1]
        shown = _BREAK.split(self.text[begin : begin + LONGEST], maxsplit=1)[0]
        length = max(1, min(end - begin, len(shown.rstrip())) - (start - begin))
        return Place(line, start - begin + 1, length)

    def _slip(
        self, path: Path, message: str, value: str, expected: str, *, key: bool = False
    ) -> None:
        self.slips.append(Slip(path, message, value, expected, key))

    def _build(self, plain: SafeConstructor, node: yaml.Node, path: Path, seen: set[int]) -> Any:
        if id(node) in seen:  # an alias is the very same node: refused, so nothing can explode
            self._slip(path, "an alias", "", "the value written out", key=True)
            return None
        seen.add(id(node))
        self._spans[path] = (node.start_mark.index, node.end_mark.index)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(plain, node, path, seen)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(plain, n, (*path, i), seen) for i, n in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            self._scalars[path] = node
        try:
            return plain.construct_object(node)
        except (yaml.YAMLError, ValueError):
            if node.tag.startswith("!"):
                value = f"{node.tag} {node.value}".strip()[:80]
                self._slip(path, "a text that begins with '!'", value, "the text in quotes")
            else:
                self._slip(path, "cannot be read", str(node.value)[:80], "a plain YAML value")
            return None

    def _mapping(
        self, plain: SafeConstructor, node: yaml.MappingNode, path: Path, seen: set[int]
    ) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str):
                self._slip(path, "a key that is not a plain name", "", "a plain name")
                continue
            if key in built:
                again = (*path, key, "")  # a path of its own: the first one keeps its place
                self._keys[again] = (key_node.start_mark.index, key_node.end_mark.index)
                self._slip(again, "key given twice", key, "the key once", key=True)
                continue
            self._keys[*path, key] = (key_node.start_mark.index, key_node.end_mark.index)
            built[key] = self._build(plain, value_node, (*path, key), seen)
        return built


_ESCAPE = re.compile(r"\\(?:x.{2}|u.{4}|U.{8}|.)", re.DOTALL)
_CONTINUED = re.compile(r"\\(?:\r\n|[\r\n\x85\u2028\u2029])")


def _spans(text: str, node: yaml.ScalarNode) -> list[tuple[int, int]]:
    """Return from where to where in the text each character of a scalar stands, and its end.

    YAML folds and drops whitespace and escapes in quotes; all else stands in the text in the order
    of the value, so each character is looked for from the last one on. Whitespace itself is placed
    only roughly: no fault begins with it.
    """
    at, end = node.start_mark.index, node.end_mark.index
    if node.style in ("|", ">"):
        header = _BREAK.search(text, at)
        at = header.end() if header else end
    elif node.style in ("'", '"'):
        at, end = at + 1, end - 1
    spans, last = [], at
    for character in node.value:
        blank = character.isspace()
        while at < end:
            continued = _CONTINUED.match(text, at) if node.style == '"' else None
            if continued is None and (blank or not text[at].isspace()):
                break
            at = continued.end() if continued else at + 1
        start, at = at, at + _width(text, at, node.style, blank)
        spans.append((start, at))
        last = last if blank else at
    return [*spans, (last, last + 1)]


def _width(text: str, at: int, style: str | None, blank: bool) -> int:
    """How many characters of the text make one of the value."""
    if style == '"' and (escape := _ESCAPE.match(text, at)):
        return len(escape[0])
    if style == "'" and text.startswith("''", at):
        return 2
    return int(not blank or text[at : at + 1].isspace())
