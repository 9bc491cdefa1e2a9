"""A policy as a page tells it: its changes as sentences, its text by lines, and two texts apart."""

from __future__ import annotations

from array import array
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

MOST_APART: Final = 1_000
"""Texts in which more lines come and go are put side by side by their ends alone."""


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
    """The rows that are shown: those that differ, with those around them, and gaps between."""
    every = list(_aligned(old, new))
    near = {
        at + step for at, row in enumerate(every) if row.sign != " "
        for step in range(-AROUND, AROUND + 1)
    }  # fmt: skip
    last = -1
    for at, row in enumerate(every):
        if at in near:
            if at - last > 1:
                yield Row(" ", None, None, "")
            yield row
            last = at


def _aligned(old: Sequence[str], new: Sequence[str]) -> Iterator[Row]:
    """Every line of both texts in order; between two that are kept first those that go."""
    i = j = 0
    for at_old, at_new in [*_kept(old, new), (len(old), len(new))]:
        yield from (Row("-", at + 1, None, old[at]) for at in range(i, at_old))
        yield from (Row("+", None, at + 1, new[at]) for at in range(j, at_new))
        if at_old < len(old):
            yield Row(" ", at_old + 1, at_new + 1, old[at_old])
        i, j = at_old + 1, at_new + 1


def _kept(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Where each line that both texts keep stands in either; as many as can be.

    By the greedy algorithm of Myers (1986): `difflib` takes lines that are common in a text for
    junk, so shows some as changed that are not, or takes cubic time.

    >>> _kept("abcabba", "cbabac")
    [(2, 0), (3, 2), (4, 3), (6, 4)]
    """
    reached: dict[int, int] = {1: 0}
    trace: list[array[int]] = []
    for apart in range(min(len(old) + len(new), MOST_APART) + 1):
        for k in range(-apart, apart + 1, 2):  # k: how much further along in the old text
            comes = k == -apart or (k != apart and reached[k - 1] < reached[k + 1])
            x = reached[k + 1] if comes else reached[k - 1] + 1
            while x < len(old) and 0 <= x - k < len(new) and old[x] == new[x - k]:
                x += 1
            reached[k] = x
            if x >= len(old) and x - k >= len(new):
                return _walked_back(trace, len(old), len(new))
        trace.append(array("i", [reached[k] for k in range(-apart, apart + 1, 2)]))
    return _ends(old, new)


def _walked_back(trace: Sequence[array[int]], x: int, y: int) -> list[tuple[int, int]]:
    """The lines that are kept on the way to the ends of both texts; found from there."""
    kept = []
    for apart in range(len(trace), 0, -1):
        before, k = trace[apart - 1], x - y
        below, above = (k - apart) // 2 + apart - 1, (k - apart) // 2 + apart
        comes = k == -apart or (k != apart and before[below] < before[above])
        x_from = before[above] if comes else before[below]
        y_from = x_from - (k + 1 if comes else k - 1)
        x_at = x_from if comes else x_from + 1
        while x > x_at:
            x, y = x - 1, y - 1
            kept.append((x, y))
        x, y = x_from, y_from
    return [*((at, at) for at in range(x)), *kept[::-1]]


def _ends(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """The lines with which both texts begin, and those with which they end."""
    most = min(len(old), len(new))
    first = next((at for at in range(most) if old[at] != new[at]), most)
    last = next((at for at in range(most - first) if old[-1 - at] != new[-1 - at]), most - first)
    return [*((at, at) for at in range(first)),
            *((len(old) - at, len(new) - at) for at in range(last, 0, -1))]  # fmt: skip


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
