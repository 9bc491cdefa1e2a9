"""Every call that Schemathesis makes of the document alone is answered as the document says."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import orjson
import pytest
import structlog
from schemathesis.generation import GenerationMode

from benchmarks.conformance import conform
from benchmarks.fuzz import opened
from benchmarks.inprocess import InProcess
from serving import docs
from serving.api import CALLS
from serving.openapi import document

POSITIVE = (GenerationMode.POSITIVE,)
EXAMPLES = 2


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    app = opened(f"sqlite:///{tmp_path_factory.mktemp('schema')}/s.db")
    yield app
    app.close()


def test_every_answer_conforms_to_the_document(app):
    with structlog.testing.capture_logs():
        report = conform(app, EXAMPLES, POSITIVE)
    assert report.failures == {}
    described = {f"{call.method} {call.path.replace(':path', '')}" for call in CALLS}
    assert report.asked.keys() == described - {"GET /openapi.json"}  # which it has read
    assert {200, 400, 404} <= report.statuses.keys()


def test_an_answer_that_does_not_would_be_found(app, monkeypatch):
    told: dict[str, Any] = deepcopy(document(CALLS))
    path = "/v2/lists/{name}"
    told["paths"] = {path: {"get": told["paths"][path]["get"]}}
    told["components"]["schemas"]["EntriesData"]["required"].append("total")
    monkeypatch.setattr(docs, "_document_text", lambda: orjson.dumps(told))
    report = conform(app, EXAMPLES, POSITIVE)
    assert [*report.failures] == ["GET /v2/lists/{name}: JsonSchemaError"]
