"""Structured logs: one JSON object a line on standard error. Nothing personal is ever put in.

Every line that is written while a request is answered carries its ``request_id`` and, where the
caller sent a W3C ``traceparent``, its ``trace_id``.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog

from serving.stacks import without_values

TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
"""Version, trace id, parent span, flags; a later version may say more."""

_REQUEST: ContextVar[tuple[str, str | None] | None] = ContextVar("request", default=None)


def begin_request(request_id: str, traceparent: str | None = None) -> None:
    """Let every line from here on, in this context, name the request it is about.

    A server runs each request in a context of its own, so nothing has to be taken back. A thread
    that works for the request must be given its context (``contextvars.copy_context().run``).
    """
    _REQUEST.set((request_id, trace_id_of(traceparent)))


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace that a ``traceparent`` header names; None for what is none.

    >>> trace_id_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    '4bf92f3577b34da6a3ce929d0e0e4736'
    >>> trace_id_of("00-00000000000000000000000000000000-00f067aa0ba902b7-01") is None
    True
    >>> trace_id_of("my-trace") is None
    True
    """
    found = TRACEPARENT.fullmatch(traceparent) if traceparent else None
    trace_id = found[1] if found else ""
    return trace_id if trace_id.strip("0") else None


def _name_request(_: object, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if (request := _REQUEST.get()) is not None:
        entry["request_id"] = request[0]
        if request[1] is not None:
            entry["trace_id"] = request[1]
    return entry


def _as_line(entry: MutableMapping[str, Any], **_: Any) -> str:
    return orjson.dumps(entry, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


class _Line(logging.Formatter):
    """What a library says by `logging`, as a line like ours."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON, with exceptions as ours are told."""
        at = datetime.fromtimestamp(record.created, UTC)
        entry: MutableMapping[str, Any] = {
            "event": record.getMessage(), "logger": record.name, "exc_info": record.exc_info,
            "level": record.levelname.lower(), "timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }  # fmt: skip
        return _as_line(_name_request(None, "", without_values(None, "", entry)))


def configure_libraries() -> None:
    """Let what libraries say in this process be lines like ours: JSON, on standard error, once."""
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, [*logging.Logger.manager.loggerDict])]
    for logger in loggers:
        if logger is not root and logger.propagate and root.handlers:
            logger.handlers.clear()  # what root's say again
        for handler in logger.handlers:
            handler.setFormatter(_Line())
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
                handler.setStream(sys.stderr)


def configure_logs(level: str, count: Callable[[str, str], None] | None = None) -> None:
    """Send every event at or above ``level`` to standard error as a line of JSON.

    ``count`` is told the event and the level of each, WARNING and above: whatever is worth a line
    can ring an alarm. Events are words of this program, so there are few.
    """

    def counted(_: object, level: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if count is not None and level in ("warning", "error", "critical"):
            count(str(entry["event"]), level)
        return entry

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _name_request,
            counted,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            without_values,
            structlog.processors.JSONRenderer(serializer=_as_line),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        # Standard error as it is when something is said: a command run in a process of another, as
        # tests do, has its own.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )
