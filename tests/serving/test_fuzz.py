"""A thousand hostile calls: none brings about a 500, and no answer tells of the program."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import orjson
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import MUST_MEET, Report, Spoiler, opened, samples, sent
from benchmarks.inprocess import InProcess


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    app = opened(f"sqlite:///{tmp_path_factory.mktemp('fuzz')}/s.db")
    yield app
    app.close()


def test_no_hostile_call_brings_about_a_fault(app):
    report, known = Report(), samples()
    with asyncio.Runner() as runner, structlog.testing.capture_logs() as logs:

        @settings(max_examples=1000)
        @given(st.integers(0, 2**64 - 1))
        def send(seed: int) -> None:
            runner.run(sent(app, known, seed, report))
            assert report.faults == report.telling == []

        send()
    assert sum(report.statuses.values()) >= 1000
    assert report.statuses.keys() >= MUST_MEET
    assert [line for line in logs if line["event"] == "unforeseen"] == []


def test_a_fault_would_be_found(app, monkeypatch):
    faulty, telling = Report(), Report()
    monkeypatch.setattr(app.api, "max_body_bytes", "no number")
    with structlog.testing.capture_logs():
        asyncio.run(_all(app, faulty))
        told = {"status": 500, "message": "Traceback (most recent call last)"}
        monkeypatch.setattr("serving.answers.error_body", lambda *_: told)
        asyncio.run(_all(app, telling))
    assert faulty.faults
    assert not faulty.telling
    assert telling.telling


async def _all(app: InProcess, report: Report) -> None:
    for seed in range(12):
        await sent(app, samples(), seed, report)


def test_the_same_seed_is_the_same_call():
    known = samples()
    calls = [Spoiler(seed).call(known, "key") for seed in range(200)]
    assert calls == [Spoiler(seed).call(known, "key") for seed in range(200)]
    assert len({call.body for call in calls}) > 100
    read = 0
    for call in calls:
        try:
            orjson.loads(call.body)
        except orjson.JSONDecodeError:
            continue
        read += 1
    assert 60 < read < 180  # neither all of them are JSON, nor hardly any
