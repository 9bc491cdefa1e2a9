"""What is wrong with an option or a setting, in one plain sentence: its name, what, and the value.

Types are checked by pydantic, in the words of its own; these are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

if TYPE_CHECKING:
    from typer.exceptions import TyperException

SECRETS: Final = ("secret", "database_url", "sandbox_database_url")
"""Settings whose value is not repeated: it may hold a password."""

_EXPECTED: Final = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a number",
    "bool": "true or false",
    "ip_v4_network": "an IP address or a network",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "literal_error": "{expected}",
    "enum": "{expected}",
}
"""By pydantic's kind of error, or by how it begins."""


def expected(problem: Mapping[str, Any]) -> str:
    """What was expected in place of a value that pydantic refused.

    >>> expected({"type": "int_parsing", "msg": "Input should be a valid integer, unable to …"})
    'expected a whole number'
    >>> expected({"type": "greater_than_equal", "msg": "Input …", "ctx": {"ge": 1}})
    'expected at least 1'
    >>> expected({"type": "value_error", "msg": "Value error, 'x' is not one of 'live', 'test'."})
    "expected 'live' or 'test'"
    >>> expected({"type": "value_error", "msg": "Value error, expected an ISO 4217 code"})
    'expected an ISO 4217 code'
    """
    kind, message = problem["type"], problem["msg"].removeprefix("Value error, ").rstrip(".")
    for name in (kind, kind.partition("_")[0]):
        if name in _EXPECTED:
            return "expected " + _EXPECTED[name].format_map(problem.get("ctx", {}))
    choices = re.fullmatch(r".* is not one of (.+)", message, re.DOTALL)
    if choices:
        return "expected " + " or ".join(choices[1].rsplit(", ", 1))
    told: str = message.replace("Input should be", "expected", 1)
    return told


def of_settings(error: ValidationError) -> str:
    """What is wrong with settings, each once."""
    return "; ".join(_settings(error.errors()))


def _settings(problems: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    seen = set()
    for problem in problems:
        setting = str(problem["loc"][0])
        if setting in seen:  # the same of another type that would have done
            continue
        seen.add(setting)
        got = "" if setting in SECRETS else f", got {problem['input']!r}"
        yield f"RECOURSE_{setting.upper()}: {expected(problem)}{got}"


def of_call(error: TyperException) -> str:
    """How a command was wrongly called, and where it says how it is called."""
    message, context = error.format_message().rstrip("."), getattr(error, "ctx", None)
    if message.startswith("Invalid value"):
        named = message.partition(": ")[0].removeprefix("Invalid value").removeprefix(" for ")
        name = named.replace("'", "")
        told = error.message.rstrip(".")
        if isinstance(error.__cause__, ValidationError):
            problem = error.__cause__.errors()[0]
            told = f"{expected(problem)}, got {problem['input']!r}"
        message = f"{name}: {told}".removeprefix(": ")
    return f"{message}; see {context.command_path} --help" if message and context else message
