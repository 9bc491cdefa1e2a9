"""What is wrong with a policy: problems, each with its place and what would be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rules.lexer import Fault
from rules.source import Path, Place, Source


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a policy: where, what, what was there, what would be right.

    `place` names the part of the policy; `line` and `column` count from 1 in its text and are None
    where the text has no such place. `length` is how many characters of that line it concerns. A
    warning keeps no policy from being used.
    """

    place: str
    line: int | None
    column: int | None
    message: str
    value: str
    expected: str
    nearest: str | None = None
    length: int = 1
    is_warning: bool = False

    def __str__(self) -> str:
        at = f"line {self.line}:{self.column} " if self.line else ""
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{at}{self.place}: {self.found}; expected {self.expected}{hint}"

    @property
    def found(self) -> str:
        """The message, with what was there."""
        return f"{self.message}, got {self.value}" if self.value else self.message


class PolicyError(ValueError):
    """A policy that is refused; `problems` lists everything found, in the order of the text."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.line or 0, p.column or 0)))
        super().__init__("\n  ".join([f"policy refused, {counted(self.problems)}:",
                                      *map(str, self.problems)]))  # fmt: skip


def counted(problems: Sequence[Problem]) -> str:
    """Write how many there are, problems and warnings.

    >>> counted([])
    '0 problems'
    """
    warnings = sum(problem.is_warning for problem in problems)
    parts = [_plural(len(problems) - warnings, "problem")] if len(problems) > warnings else []
    parts += [_plural(warnings, "warning")] if warnings else []
    return ", ".join(parts) or "0 problems"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


class Findings:
    """The problems found in one text so far."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def add(
        self, path: Path, message: str, value: str, expected: str, near: str | None = None,
        *, key: bool = False,
    ) -> None:  # fmt: skip
        """Note a problem at the value of `path`, or at its key."""
        self._add(path, self.source.place(path, key=key), message, value, expected, near)

    def add_fault(self, path: Path, fault: Fault) -> None:
        """Note a fault of the condition that stands at `path`, where it is within the text."""
        place = self.source.place_within(path, fault.line, fault.column, fault.length)
        self._add(path, place, fault.message, "", fault.expected, fault.nearest)

    def _add(
        self, path: Path, place: Place | None, message: str, value: str, expected: str,
        near: str | None,
    ) -> None:  # fmt: skip
        line, column, length = place or (None, None, 1)
        name = self._name(path)
        self.problems.append(Problem(name, line, column, message, value, expected, near, length))

    def _name(self, path: Path) -> str:
        """Write a path as its author would: rules and limits by their id, the rest by position."""
        names: list[str] = []
        for index, step in enumerate(path):
            if step == "":
                continue
            if isinstance(step, str):
                names.append(f".{step}" if names else step)
                continue
            held = self.at((*path[: index + 1], "id")) if path[0] in NAMED else None
            by_id = index == 1 and isinstance(held, str)
            names.append(f".{held}" if by_id else f"[{step}]")
        return "".join(names) or "policy"

    def at(self, path: Path) -> Any:
        """Return the value at `path`, None where the text has none."""
        value = self.source.value
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def items(self, *path: str | int) -> list[Any]:
        """Return the list at `path`, empty where the text has none there."""
        found = self.at(path)
        return found if isinstance(found, list) else []


#: The lists of the document whose items have an id.
NAMED = ("rules", "limits")
