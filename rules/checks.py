"""Checking a policy: every problem in the text at once, each with its place and what is right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from rules.clauses import Clauses, clauses_of
from rules.document import (
    Advice,
    Band,
    Costs,
    Document,
    Examples,
    Exploration,
    Limit,
    Lists,
    Part,
    Rule,
    Suggestion,
)
from rules.lexer import nearest
from rules.problems import NAMED, Findings, PolicyError, Problem
from rules.source import Path, Source

__all__ = ["Clauses", "PolicyError", "Problem", "checked", "document_of"]

_Model = TypeVar("_Model", bound=Part)


def checked(text: str, kinds: Mapping[str, str]) -> tuple[Document, Clauses]:
    """Read a policy over facts of the given kinds.

    Raises:
        PolicyError: with every problem in the text.
    """
    findings, document = _read(text)
    _check_bands(findings)
    _check_ids(findings)
    limits = {i: _parsed(Limit, raw) for i, raw in enumerate(findings.items("limits"))}
    sound = {i: limit for i, limit in limits.items() if limit is not None}
    clauses = clauses_of(findings, sound, kinds)
    if findings.problems or document is None:
        raise PolicyError(findings.problems)
    return document, clauses


def document_of(text: str) -> Document:
    """Read a policy's keys and values, without asking what its conditions say.

    Raises:
        PolicyError: with every problem in its keys and values.
    """
    findings, document = _read(text)
    if findings.problems or document is None:
        raise PolicyError(findings.problems)
    return document


def _read(text: str) -> tuple[Findings, Document | None]:
    source = Source.read(text)
    findings = Findings(source)
    for slip in source.slips:
        findings.add(slip.path, slip.message, slip.value, slip.expected, key=slip.key)
    return findings, _validated(findings)


def _parse(model: type[_Model], raw: Any) -> _Model:
    """Validate plain values; through JSON, whose strict mode takes enum values and lists."""
    return model.model_validate_json(json.dumps(raw, default=str), strict=True)


def _parsed(model: type[_Model], raw: Any) -> _Model | None:
    try:
        return _parse(model, raw)
    except ValidationError:
        return None  # reported where the whole document is validated


def _validated(findings: Findings) -> Document | None:
    """Check keys, types and ranges of the whole document."""
    source = findings.source
    if not isinstance(source.value, dict):
        if not findings.problems:
            findings.add((), "not a policy", "", "a mapping of keys")
        return None
    try:
        return _parse(Document, source.value)
    except ValidationError as error:
        slipped = {slip.path for slip in source.slips}  # said once is enough
        for detail in error.errors():
            if detail["loc"] not in slipped:
                _add_structural(findings, detail["loc"], detail)
    return None


# What a key of the document is called, and which model describes the keys below it.
_MODELS: Final[Mapping[str, tuple[type[Part], str]]] = {
    "": (Document, "the policy"),
    "costs": (Costs, "costs"),
    "exploration": (Exploration, "exploration"),
    "bands": (Band, "a band"),
    "rules": (Rule, "a rule"),
    "limits": (Limit, "a limit"),
    "lists": (Lists, "lists"),
    "follow_up": (Suggestion, "a follow-up"),
    "examples": (Examples, "examples"),
}
_MISSING: Final = {
    "examples": "an example of a hit and one of a miss",
    "hit": "an example",
    "miss": "an example",
}
# Kinds of finding that pydantic words for programmers, in the words of a policy.
_WORDS: Final[Mapping[str, str]] = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "tuple_type": "a list",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "dict_type": "a mapping of facts",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "string_too_long": "at most {max_length} characters",
    "too_long": "at most {max_length} items",
    "string_too_short": "some text",
}


def _add_structural(findings: Findings, path: Path, detail: Mapping[str, Any]) -> None:
    """Translate one finding of pydantic into the words of a policy."""
    kind, value = detail["type"], findings.at(path)
    if kind == "extra_forbidden":
        parent = next((step for step in reversed(path[:-1]) if isinstance(step, str)), "")
        model, name = _MODELS[parent] if path[0] != "bands" or parent == "bands" else _ADVICE
        near = nearest(str(path[-1]), model.model_fields)
        findings.add(path, "unknown key", "", f"a key of {name}", near, key=True)
    elif kind == "missing":
        findings.add(path, "missing", "", _MISSING.get(str(path[-1]), "a value"))
    elif kind == "too_short":
        if not value:  # else each of its items was refused, and said so
            findings.add(path, "empty", "", "at least one example")
    elif kind == "json_invalid":
        findings.add(path, "not Unicode text", "", "no half of a surrogate pair")
    elif kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']+)'", detail["ctx"]["expected"])
        near = nearest(str(value), choices) or nearest(str(value).upper(), choices)
        findings.add(path, "not a choice", repr(value)[:200], " or ".join(choices), near)
    elif kind == "value_error":
        findings.add(path, "incomplete", "", str(detail["ctx"]["error"]))
    else:
        expected, near = _expected(detail, value)
        findings.add(path, "wrong value", repr(value)[:200], expected, near)


_ADVICE: Final = (Advice, "a band's follow-up")


def _expected(detail: Mapping[str, Any], value: Any) -> tuple[str, str | None]:
    """Say what a wrong value should have been, and the nearest that would be right."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "string_type" and isinstance(value, int | float):
        return "text, in quotes", f'"{value}"'
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        cleaned = re.sub(r"\W+", "_", str(value))
        tries = (cleaned, cleaned.upper(), cleaned.lower())
        return f"text that matches {pattern}", next(filter(re.compile(pattern).match, tries), None)
    if kind in _WORDS:
        return _WORDS[kind].format(**context), None
    return detail["msg"].removeprefix("Input should be "), None


def _check_bands(findings: Findings) -> None:
    """Find bands out of order, and bands that could never decide because another covers them."""
    bands = [_parsed(Band, raw) for raw in findings.items("bands")[:_MANY_BANDS]]
    for i, band in enumerate(bands):
        for j, earlier in enumerate(bands[:i]):
            if band is not None and earlier is not None:
                for message, value, expected in _conflict(band, earlier, f"bands[{j}]"):
                    findings.add(("bands", i), message, value, expected)


_MANY_BANDS: Final = 100


def _conflict(band: Band, earlier: Band, name: str) -> Iterator[tuple[str, str, str]]:
    if band.action < earlier.action:
        yield f"out of order after {name}", band.action, f"mild before severe: move it above {name}"
    elif band.covers(earlier):
        yield f"overlaps {name}, which could never decide", "", f"a threshold above that of {name}"
    elif band.action == earlier.action and earlier.covers(band):
        yield f"overlaps {name}, which covers it", "", f"a threshold below that of {name}"


def _check_ids(findings: Findings) -> None:
    """Find ids given twice: rules and limits share them."""
    first: dict[str, Path] = {}
    for key in NAMED:
        for i in range(len(findings.items(key))):
            path: Path = (key, i, "id")
            held = findings.at(path)
            if isinstance(held, str) and first.setdefault(held, path) != path:
                place = findings.source.place(first[held])
                where = f" on line {place.line}" if place else ""
                findings.add(path, f"id already used{where}", repr(held), "an id of its own")
