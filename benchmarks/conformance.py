"""Does the service do what its OpenAPI document says? Schemathesis asks, over every call.

``python -m benchmarks.conformance [--examples N]`` makes calls from the document alone: N that its
schemas allow, and N that they do not, for each call, and sends them to the whole application in
this process, over a real store. An answer must be none of 500 and above, of a status, a media type,
a schema and headers that the document names; and what the schemas do not allow must be refused.
Prints one JSON document; exit code 1 unless every answer conforms.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import schemathesis
import structlog
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from benchmarks.fuzz import opened
from benchmarks.inprocess import InProcess

CHECKS: Final = (
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_schema_conformance, response_headers_conformance, negative_data_rejection,
)  # fmt: skip


@dataclass
class Report:
    """What was asked and answered."""

    asked: Counter[str] = field(default_factory=Counter)
    """How often each call was."""
    statuses: Counter[int] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    """By call and check, the first failure."""


def conform(app: InProcess, examples: int, modes: tuple[GenerationMode, ...]) -> Report:
    """Send so many calls of each mode for each call of the document."""
    report = Report()
    schema = schemathesis.openapi.from_asgi("/openapi.json", app.app)
    schema.config.update(headers={"Authorization": f"token {app.key}"})
    refusing = schema.config.checks.negative_data_rejection
    refusing.expected_statuses = [*refusing.expected_statuses, "413"]
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in modes:
            _ask(operation, mode, examples, report)
    return report


def _ask(operation: Any, mode: GenerationMode, examples: int, report: Report) -> None:
    how = settings(max_examples=examples, deadline=None, database=None, derandomize=True,
                   phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip

    @how
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        answer = case.call()
        report.asked[operation.label] += 1
        report.statuses[answer.status_code] += 1
        try:
            case.validate_response(answer, checks=CHECKS)
        except (Failure, FailureGroup) as failure:
            told = getattr(failure, "exceptions", None) or [failure]
            for one in told:
                name = f"{operation.label}: {type(one).__name__}"
                report.failures.setdefault(name, f"{one}\n{case.as_curl_command()}"[:2_000])

    with suppress(Unsatisfiable):  # a call that takes nothing has nothing to be said wrongly
        ask()


def main(arguments: list[str]) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=200, help="of each call and each mode")
    given_ = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory() as folder:
        app = opened(f"sqlite:///{folder}/conformance.db")
        started = time.perf_counter()
        report = conform(app, given_.examples, (GenerationMode.POSITIVE, GenerationMode.NEGATIVE))
        seconds = time.perf_counter() - started
        app.close()
    told = {
        "calls": len(report.asked),
        "asked": sum(report.asked.values()),
        "seconds": round(seconds, 1),
        "statuses": {str(status): count for status, count in sorted(report.statuses.items())},
        "failures": report.failures,
    }
    print(json.dumps(told, indent=2))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
