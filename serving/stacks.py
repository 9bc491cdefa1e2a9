"""What is logged of an exception: where it came from and what it is, and no value.

The message of an exception quotes what it was raised for: the input that a model refused, the key
that a mapping lacks, the row that a database has already. Any of them may be a person's.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any, Final

MOST_CAUSES: Final = 10


def without_values(
    _: object, __: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:  # fmt: skip
    """A structlog processor: ``exc_info`` becomes ``exception``, the stack without messages."""
    given = entry.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else given
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        entry["exception"] = "\n".join(_told(error))
    return entry


def _told(error: BaseException) -> Iterator[str]:
    """The exceptions that led to one, the one last, each with its stack.

    >>> try:
    ...     {}["c-4711"]
    ... except KeyError as error:
    ...     print(*_told(error), sep="\\n")
    KeyError
      <doctest serving.stacks._told[0]>:2 in <module>
    """
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain and len(chain) < MOST_CAUSES:
        chain.append(at)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    for one in reversed(chain):
        kind = type(one)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        yield f"{module}{kind.__qualname__}"
        for frame in traceback.extract_tb(one.__traceback__):
            yield f"  {frame.filename}:{frame.lineno} in {frame.name}"
