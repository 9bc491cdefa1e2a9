"""Problems shown as a compiler would: each with its line of the text and what it points at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rules.problems import Problem, counted
from rules.source import lines_of

_WIDTH: Final = 100  # of what is shown of a line


def render(problems: Sequence[Problem], text: str, name: str) -> str:
    """Write every problem with its place in `text`, the file or policy called `name`.

    >>> from rules.policy import Policy, PolicyError
    >>> text = "version: '1'\\nbands: []\\nrules: []\\nfallbak: ALLOW\\n"
    >>> try:
    ...     Policy.from_yaml(text, facts={})
    ... except PolicyError as error:
    ...     print(render(error.problems, text, "policy.yaml"))
    error: unknown key
      --> policy.yaml:4:1 (fallbak)
      |
    4 | fallbak: ALLOW
      | ^^^^^^^
      = expected a key of the policy
      = help: did you mean fallback?
    <BLANKLINE>
    1 problem in policy.yaml
    """
    lines = lines_of(text)
    blocks = ["\n".join(_block(problem, lines, name)) for problem in problems]
    return "\n\n".join([*blocks, f"{counted(problems)} in {name}"])


def _block(problem: Problem, lines: Sequence[str], name: str) -> Iterator[str]:
    yield f"{'warning' if problem.is_warning else 'error'}: {_plain(problem.found)}"
    margin = " "
    if problem.line is None or problem.column is None:
        yield f" --> {name} ({problem.place})"
    else:
        number = str(problem.line)
        margin = " " * (len(number) + 1)
        yield f"{margin}--> {name}:{number}:{problem.column} ({problem.place})"
        shown, before = _window(lines[problem.line - 1], problem.column)
        length = max(1, min(problem.length, len(shown) - before))
        yield f"{margin}|"
        yield f"{number} | {shown}".rstrip()
        yield f"{margin}| {' ' * before}{'^' * length}"
    yield f"{margin}= expected {_plain(problem.expected)}"
    if problem.nearest:
        yield f"{margin}= help: did you mean {_plain(problem.nearest)}?"


def _window(line: str, column: int) -> tuple[str, int]:
    """Return what to show of a line, and where in it the column stands.

    >>> _window("a: 1", 4)
    ('a: 1', 3)
    >>> shown, before = _window("x" * 500 + "here" + "y" * 500, 501)
    >>> shown[before : before + 4], len(shown)
    ('here', 102)
    """
    line, before = _plain(line), column - 1
    if len(line) <= _WIDTH:
        return line, before
    start = max(0, min(before - _WIDTH // 2, len(line) - _WIDTH))
    cut = line[start : start + _WIDTH]
    left, right = "…" if start else "", "…" if start + _WIDTH < len(line) else ""
    return f"{left}{cut}{right}", before - start + len(left)


def _plain(text: str) -> str:
    """Replace what would move the cursor or steer a terminal, one character by one."""
    return "".join(one if one.isprintable() else " " for one in text)
