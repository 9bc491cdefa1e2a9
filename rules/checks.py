"""Checking a policy: every problem in the text at once, each with its place and what is right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from rules.condition import Amount, Condition, ConditionError, known_facts, nearest
from rules.document import (
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
from rules.source import Path, Source

_Model = TypeVar("_Model", bound=Part)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a policy: where, what, what was there, what would be right."""

    place: str
    line: int | None
    column: int | None
    message: str
    value: str
    expected: str
    nearest: str | None = None

    def __str__(self) -> str:
        at = f"line {self.line}:{self.column} " if self.line else ""
        got = f", got {self.value}" if self.value else ""
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{at}{self.place}: {self.message}{got}; expected {self.expected}{hint}"


class PolicyError(ValueError):
    """A policy that is refused; `problems` lists everything found, in the order of the text."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.line or 0, p.column or 0)))
        count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
        super().__init__("\n  ".join([f"policy refused, {count}:", *map(str, self.problems)]))


#: The condition of a rule or limit, and the amount of its follow-up where it has one.
Clause = tuple[Condition, Amount | None]


@dataclass(frozen=True, slots=True)
class Clauses:
    """What a policy says in CEL, compiled, in the order of its rules and its limits."""

    rules: tuple[Clause, ...]
    limits: tuple[Clause, ...]


def checked(text: str, kinds: Mapping[str, str]) -> tuple[Document, Clauses]:
    """Read a policy over facts of the given kinds.

    Raises:
        PolicyError: with every problem in the text.
    """
    source = Source.read(text)
    problems = [
        _problem(source, slip.path, slip.message, slip.value, slip.expected)
        for slip in source.slips
    ]
    document = _validated(source, problems)
    problems.extend(_band_problems(source))
    problems.extend(_duplicate_ids(source))
    rules = tuple(_checked_rules(source, kinds, problems))
    limits = tuple(_checked_limits(source, kinds, problems))
    if problems or document is None:
        raise PolicyError(problems)
    return document, Clauses(rules, limits)


# What a path in the document is called, and which model describes its keys.
_MODELS: Mapping[str, tuple[type[Part], str]] = {
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


def _problem(
    source: Source, path: Path, message: str, value: str, expected: str, near: str | None = None
) -> Problem:
    line, column = source.mark(path) or (None, None)
    return Problem(_place(source, path), line, column, message, value, expected, near)


def _place(source: Source, path: Path) -> str:
    """Write a path as its author would: rules by their id, the rest by position."""
    names: list[str] = []
    for index, step in enumerate(path):
        if isinstance(step, str):
            names.append(f".{step}" if names else step)
            continue
        rule_id = _at(source.value, (*path[: index + 1], "id")) if path[0] in _NAMED else None
        named = index == 1 and isinstance(rule_id, str)
        names.append(f".{rule_id}" if named else f"[{step}]")
    return "".join(names) or "policy"


_NAMED = ("rules", "limits")


def _at(value: Any, path: Path) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _raw(source: Source, key: str) -> list[Any]:
    """Return the list under a top-level key, or nothing where the text has no list there."""
    items = _at(source.value, (key,))
    return items if isinstance(items, list) else []


def _parse(model: type[_Model], raw: Any) -> _Model:
    """Validate plain values; through JSON, whose strict mode takes enum values and lists."""
    return model.model_validate_json(json.dumps(raw, default=str), strict=True)


def _parsed(model: type[_Model], raw: Any) -> _Model | None:
    try:
        return _parse(model, raw)
    except ValidationError:
        return None  # reported where the whole document is validated


def _validated(source: Source, problems: list[Problem]) -> Document | None:
    """Check keys, types and ranges of the whole document."""
    if not isinstance(source.value, dict):
        if not problems:
            problems.append(_problem(source, (), "not a policy", "", "a mapping of keys"))
        return None
    try:
        return _parse(Document, source.value)
    except ValidationError as error:
        slipped = {slip.path for slip in source.slips}  # said once is enough
        problems.extend(
            _structural(source, detail["loc"], detail)
            for detail in error.errors()
            if detail["loc"] not in slipped
        )
    return None


def _structural(source: Source, path: Path, detail: Mapping[str, Any]) -> Problem:
    """Translate one finding of pydantic into the words of a policy."""
    kind = detail["type"]
    if kind == "extra_forbidden":
        parent = next((step for step in reversed(path[:-1]) if isinstance(step, str)), "")
        model, name = _MODELS[parent]
        near = nearest(str(path[-1]), model.model_fields)
        return _problem(source, path, "unknown key", "", f"a key of {name}", near)
    if kind == "missing":
        example = path[-1] in ("examples", "hit", "miss")
        return _problem(source, path, "missing", "", "an example" if example else "a value")
    if kind == "too_short":
        return _problem(source, path, "empty", "", "at least one example")
    if kind == "json_invalid":
        return _problem(source, path, "not Unicode text", "", "no half of a surrogate pair")
    value = _at(source.value, path)
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']+)'", detail["ctx"]["expected"])
        near = nearest(str(value), choices)
        return _problem(source, path, "not a choice", repr(value), " or ".join(choices), near)
    expected = re.sub("^(Input should be|Value error,) ", "", detail["msg"])
    expected = expected.replace("String should match pattern", "text that matches")
    return _problem(source, path, "wrong value", repr(value)[:200], expected)


def _band_problems(source: Source) -> Iterator[Problem]:
    """Find bands out of order, and bands that could never decide because another covers them."""
    bands = [_parsed(Band, raw) for raw in _raw(source, "bands")]
    for i, band in enumerate(bands):
        for j, earlier in enumerate(bands[:i]):
            if band is None or earlier is None:
                continue
            path: Path = ("bands", i)
            if band.action < earlier.action:
                message = f"out of order after bands[{j}]"
                yield _problem(source, path, message, band.action, "bands from mild to severe")
            elif band.covers(earlier):
                message = f"overlaps bands[{j}], which could never decide"
                yield _problem(source, path, message, "", f"a threshold above that of bands[{j}]")
            elif band.action == earlier.action and earlier.covers(band):
                message = f"overlaps bands[{j}], which covers it"
                yield _problem(source, path, message, "", f"a threshold below that of bands[{j}]")


def _duplicate_ids(source: Source) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for key in _NAMED:
        for i, raw in enumerate(_raw(source, key)):
            here, rule_id = f"{key}[{i}]", _at(raw, ("id",))
            if isinstance(rule_id, str) and first.setdefault(rule_id, here) != here:
                message = f"id already used by {first[rule_id]}"
                yield _problem(source, (key, i, "id"), message, repr(rule_id), "an id of its own")


def _checked_rules(
    source: Source, kinds: Mapping[str, str], problems: list[Problem]
) -> Iterator[Clause]:
    """Compile every condition and run its examples, even in rules that have other problems."""
    for i in range(len(_raw(source, "rules"))):
        condition = _compiled(Condition, source, ("rules", i, "when"), kinds, problems)
        amount = _amount(source, ("rules", i), kinds, problems)
        problems.extend(_example_problems(source, ("rules", i, "examples"), condition, kinds))
        if condition is not None:
            yield condition, amount


def _checked_limits(
    source: Source, kinds: Mapping[str, str], problems: list[Problem]
) -> Iterator[Clause]:
    """Compile every limit whose window is one that the catalog counts."""
    for i, raw in enumerate(_raw(source, "limits")):
        amount = _amount(source, ("limits", i), kinds, problems)
        limit = _parsed(Limit, raw)
        if limit is None:
            continue
        if limit.fact not in kinds:
            pattern = re.compile(rf"refund_count_by_{limit.by}_(\d+)d")
            days = sorted(int(m[1]) for m in map(pattern.fullmatch, kinds) if m)
            near = min(days, key=lambda d: abs(d - limit.days), default=None)
            expected = (
                f"one of {', '.join(map(str, days))} days" if days else "an entity counted by"
            )
            here: Path = ("limits", i, "days")
            message = f"no count of refunds by {limit.by} over this window"
            hint = None if near is None else str(near)
            problems.append(_problem(source, here, message, str(limit.days), expected, hint))
            continue
        yield Condition.parse(limit.when, kinds), amount


def _amount(
    source: Source, path: Path, kinds: Mapping[str, str], problems: list[Problem]
) -> Amount | None:
    return _compiled(Amount, source, (*path, "follow_up", "amount_minor"), kinds, problems)


_Text = TypeVar("_Text", Condition, Amount)


def _compiled(
    kind: type[_Text], source: Source, path: Path, kinds: Mapping[str, str],
    problems: list[Problem],
) -> _Text | None:  # fmt: skip
    text = _at(source.value, path)
    if not isinstance(text, str):
        return None
    try:
        return kind.parse(text, kinds)
    except ConditionError as error:
        for fault in error.faults:
            message = f"{fault.message} (at {fault.line}:{fault.column} of the condition)"
            problems.append(_problem(source, path, message, "", fault.expected, fault.nearest))
    return None


def _example_problems(
    source: Source, path: Path, condition: Condition | None, kinds: Mapping[str, str]
) -> Iterator[Problem]:
    for name, outcome in (("hit", True), ("miss", False), ("unknown", None)):
        examples = _at(source.value, (*path, name))
        for i, example in enumerate(examples if isinstance(examples, list) else []):
            if not isinstance(example, dict):
                continue  # reported with the structure
            here = (*path, name, i)
            mistakes = list(_fact_problems(source, here, example, kinds))
            yield from mistakes
            if condition is None or mistakes:
                continue
            known = known_facts(example, kinds)
            held = condition.holds(known)
            if held is not outcome:
                got = {True: "hit", False: "miss", None: "unknown"}[held]
                missing = [fact for fact in condition.reads if fact not in known]
                why = f" (unknown: {', '.join(missing)})" if missing else ""
                yield _problem(source, here, "the example fails", f"{got}{why}", name)


def _fact_problems(
    source: Source, path: Path, example: Mapping[str, Any], kinds: Mapping[str, str]
) -> Iterator[Problem]:
    for name, value in example.items():
        kind = kinds.get(name)
        if kind is None:
            near = nearest(name, kinds)
            yield _problem(source, (*path, name), "unknown fact", name, "a fact's name", near)
            continue
        try:
            sound = value is None or name in known_facts({name: value}, {name: kind})
        except (TypeError, OverflowError):
            sound = False
        if not sound:  # NaN too: an example says null for unknown
            yield _problem(source, (*path, name), "wrong type", repr(value), f"a {kind} or null")
