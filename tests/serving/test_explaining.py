"""The calls that explain a decision: the page, the values, and who may have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from serving.desk import Desk
from serving.explanation.assemble import Explainer
from serving.explanation.page import STYLE_POLICY, render
from serving.language import ENGLISH
from tests.serving.test_desk import ME, Clock, open_desk, report, url
from tests.serving.test_management import Client, refused, told

__all__ = ["open_desk", "url"]  # fixtures

PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
"""What a browser would rather have."""


@pytest.fixture
def desk(open_desk: Any) -> Desk:
    return open_desk()


@pytest.fixture
def call(desk: Desk) -> Iterator[Client]:
    yield Client(desk, second_person=False)


@pytest.fixture
def score_id(desk: Desk) -> str:
    return desk.decide(report(), Clock(), ME).body["data"]["scoreId"]


def get(call: Client, path: str, scopes: tuple[str, ...] = ("review",), **headers: str) -> Any:
    call.http.headers = headers
    return call("GET", path, scopes=scopes)


def test_a_browser_gets_the_page_and_a_program_the_record(call, score_id):
    page = get(call, f"/v2/decision/{score_id}", accept=PAGE)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == STYLE_POLICY
    assert page.headers["vary"] == "Accept"
    assert page.headers["x-request-id"]
    assert page.text.startswith("<!doctype html>")
    for accept in ("*/*", "application/json", "text/html;q=0.5, application/json"):
        record = get(call, f"/v2/decision/{score_id}", accept=accept)
        assert told(record)["scoreId"] == score_id
        assert record.headers["vary"] == "Accept"


def test_the_page_and_the_values_are_those_of_the_command(call, desk, score_id):
    explainer = Explainer(lambda: desk.models.now.champion)
    explained = explainer.explain(desk.store, score_id, desk.rates)
    page = get(call, f"/v2/decision/{score_id}", accept=PAGE)
    assert page.text == render(explained, ENGLISH)
    values = told(get(call, f"/v2/decision/{score_id}/explanation"))
    assert values == explained.to_json()


def test_a_key_without_the_scope_or_of_no_decision_is_refused_in_the_envelope(call, score_id):
    for path in (f"/v2/decision/{score_id}", f"/v2/decision/{score_id}/explanation"):
        body = refused(get(call, path, scopes=("score", "report"), accept=PAGE), 403)
        assert body["message"].endswith("lacks the scope review, it has report, score")
    for path in ("/v2/decision/no-such", "/v2/decision/no-such/explanation"):
        body = refused(get(call, path, accept=PAGE), 404)
        assert body["message"] == "scoreId: no decision 'no-such' is known"
    body = refused(get(call, "/v2/decision/r-1"), 404)
    assert body["message"].endswith(f", but a refund; the last decision on it is {score_id!r}")
    refused(call("POST", f"/v2/decision/{score_id}/explanation", {}), 405)
