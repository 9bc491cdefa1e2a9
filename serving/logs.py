"""Structured logs: one JSON object a line on standard error. Nothing personal is ever put in."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs(level: str) -> None:
    """Send every event at or above ``level`` to standard error as a line of JSON."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        # Standard error as it is when something is said: a command run in a process of another, as
        # tests do, has its own.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )
