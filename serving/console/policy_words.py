"""A policy as a page tells it: its changes as sentences, its text by lines, and two texts apart."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

from rules.changes import Change
from rules.problems import Problem
from rules.source import lines_of
from serving.language import Language

AROUND: Final = 3
"""So many lines that are the same stand around each that is not."""

MOST_OF_A_LINE: Final = 240

MOST_LINES: Final = 10_000
"""Of a text so many lines are shown, and texts of more are not put side by side."""


def sentence(change: Change, language: Language) -> str:
    """A change as a sentence.

    >>> from serving.language import ENGLISH
    >>> sentence(Change("limit a_day", "at_most", "5", "3"), ENGLISH)
    'limit a_day: at_most 5 becomes 3'
    >>> sentence(Change("rule final_sale", "", "PREVENT when `final_sale`", None), ENGLISH)
    'rule final_sale goes: PREVENT when `final_sale`'
    """
    if not change.key and change.before is None:
        return language.say("{part} comes: {what}", part=change.part, what=change.after)
    if not change.key:
        return language.say("{part} goes: {what}", part=change.part, what=change.before)
    part = f"{change.part}: {change.key}" if change.part else change.key
    if change.before == change.after:
        return language.say("{part} changed", part=part)
    return language.say("{part} {before} becomes {after}", part=part, before=change.before,
                        after=change.after)  # fmt: skip


class Row(NamedTuple):
    """A line of two texts put side by side: ``sign`` is + where it comes, - where it goes.

    A row of neither text is a gap.
    """

    sign: Literal["+", "-", " "]
    before: int | None
    after: int | None
    text: str


def rows(before: str, after: str) -> list[Row] | None:
    """The lines in which two texts differ, and those around them; None where there are too many.

    >>> for row in rows("a\\nb\\nc", "a\\nB\\nc"): print(*row)
      1 1 a
    - 2 None b
    + None 2 B
      3 3 c
    """
    old, new = (lines_of(text.rstrip("\n")) for text in (before, after))
    return None if max(len(old), len(new)) > MOST_LINES else list(_rows(old, new))


def by_lines(text: str) -> list[str]:
    """The lines of a text, as many as are shown."""
    return lines_of(text.rstrip("\n"))[:MOST_LINES]


def _rows(old: Sequence[str], new: Sequence[str]) -> Iterator[Row]:
    groups = difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(AROUND)
    for number, group in enumerate(groups):
        if number or group[0][1]:
            yield Row(" ", None, None, "")
        for kind, i1, i2, j1, j2 in group:
            if kind == "equal":
                for i, j in zip(range(i1, i2), range(j1, j2), strict=True):
                    yield Row(" ", i + 1, j + 1, old[i])
                continue
            for i in range(i1, i2):
                yield Row("-", i + 1, None, old[i])
            for j in range(j1, j2):
                yield Row("+", None, j + 1, new[j])


class Pointed(NamedTuple):
    """A problem of a text with the line it is in, cut in three: what it is about is the middle."""

    problem: Problem
    start: str
    middle: str
    end: str


def pointed(problems: Sequence[Problem], text: str) -> list[Pointed]:
    """Problems with what they point at.

    >>> problem = Problem("fallbak", 2, 1, "unknown key", "", "a key", length=7)
    >>> pointed([problem], "version: 1\\nfallbak: ALLOW")[0][1:]
    ('', 'fallbak', ': ALLOW')
    """
    lines = lines_of(text)
    return [_pointed(problem, lines) for problem in problems]


def _pointed(problem: Problem, lines: Sequence[str]) -> Pointed:
    if problem.line is None or problem.column is None or problem.line > len(lines):
        return Pointed(problem, "", "", "")
    line, at = lines[problem.line - 1], problem.column - 1
    until = at + max(1, problem.length)
    first = max(0, at - MOST_OF_A_LINE // 2)
    start = ("…" if first else "") + line[first:at]
    end = line[until : first + MOST_OF_A_LINE]
    return Pointed(problem, start, line[at:until], end)
