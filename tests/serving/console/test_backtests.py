"""Backtests in the console: asked for, looked at while they are made, and what came of them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving import governance, jobs
from serving.desk import Desk
from serving.jobs import PAGE, JobWatch
from serving.store.jobs import Job
from tests.serving.conftest import DEFAULT_POLICY
from tests.serving.console.conftest import SignedIn

Clients = Callable[..., SignedIn]

NEXT = (
    DEFAULT_POLICY.read_text(encoding="utf-8")
    .replace('version: "2"', 'version: "3"')
    .replace("fee_minor: 500", "fee_minor: 600")
)
ACTIONS = ("ALLOW", "MANUAL_REVIEW", "PREVENT")


@pytest.fixture
def bob(signed_in: Clients, desk: Desk) -> SignedIn:
    governance.propose(desk.store, NEXT, author="Ann Lee", note=None, at=5)
    return signed_in("manager", "Bob Ray")


def interval(low: float | None, high: float | None) -> dict[str, float | None]:
    return {"low": low, "high": high}


def found(**more: Any) -> dict[str, Any]:
    """What a backtest leaves, as far as the page reads it."""
    shifts = {a: dict.fromkeys(ACTIONS, 0) for a in ACTIONS}
    shifts["ALLOW"]["MANUAL_REVIEW"] = 2
    moves = {
        "moved": 2, "shifts": shifts, "payable_minor": 1_240, "abuse": {"count": 0},
        "honest": {"count": 1}, "saved_minor": -800.0, "saved_interval": interval(-2000.0, -5.0),
    }  # fmt: skip
    return {
        "currency": "GBP", "requests": 1_309, "first_at": 0, "last_at": 86_400_000, "labelled": 9,
        "abuse": 1, "moves": moves,
        "figures": {"abuse_stopped": {"minor": {"before": 100, "after": 200}},
                    "honest_prevented": {"count": {"before": 3, "after": 4}}},
        "workload": {"before": {"per_day": 1.5}, "after": {"per_day": 2.5}},
        "causes": [{"kind": kind, "id": id, "alone": 2, **moves} for kind, id in
                   (("rule", "<b>odd</b>"), ("band", "PREVENT"), ("later", "x"))],
        **more,
    }  # fmt: skip


def made(desk: Desk, document: Any, page: str = "<!doctype html><p>whole") -> None:
    """Do the job that waits, with a program that leaves these."""

    def program(job: Job, folder: Path) -> list[str]:
        (folder / PAGE).write_text(page)
        return [sys.executable, "-S", "-c", f"print({json.dumps(document)!r})"]

    assert JobWatch(desk.store, "test", {}, program=program).look()


def asked(client: SignedIn, days: str = "all", against: str = "2") -> str:
    """The address of a backtest that was asked for, below the store's."""
    answer = client.submit("/policies/3/backtest", days=days, against=against)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"]).removeprefix("/console/sandbox")


def test_a_backtest_is_asked_for_waited_for_and_read(bob: SignedIn, desk: Desk) -> None:
    assert "It was not backtested yet." in bob.see("/policies/3/backtest")
    path = asked(bob)
    assert asked(bob) == path  # the same is made once
    assert "A backtest is under way" in bob.see("/policies/3/activate")
    assert "Nobody has tried" not in bob.see("/policies/3/activate")
    answer = bob.get(f"/console/sandbox{path}")
    assert answer.headers["refresh"] == "3"
    assert "It waits for its turn" in answer.text
    assert "This page looks again every 3 seconds." in answer.text
    still = bob.get(f"/console/sandbox{path}&still=1")
    assert "refresh" not in still.headers
    assert "Look again" in still.text

    made(desk, found(), "<!doctype html><style>p{}</style><p>whole")
    answer = bob.get(f"/console/sandbox{path}")
    assert "refresh" not in answer.headers
    page = answer.text
    assert "Dearer by 8.00 GBP (0.05 GBP to 20.00 GBP)." in page
    assert "1,309 refunds of 1 Jan 1970 to 2 Jan 1970, 9 of them" in page
    assert "Allow becomes Manual review: 2" in page
    assert "rule &lt;b&gt;odd&lt;/b&gt;" in page
    assert "the band for Prevent" in page
    assert "<strong>2.5</strong> instead of 1.5" in page

    job = re.search("/job/(job_[0-9a-f]+)", page)
    assert job is not None
    whole = bob.get(f"/console/sandbox/job/{job[1]}")
    assert whole.text.endswith("<p>whole")
    assert "sandbox" in whole.headers["content-security-policy"]
    assert "script-src" not in whole.headers["content-security-policy"]

    for path in ("/policies/3/activate", "/policies/3/diff"):
        assert "Dearer by 8.00 GBP (0.05 GBP to 20.00 GBP)." in bob.see(path)
    assert "Dearer by 8.00 GBP" in bob.see("/policies/3/backtest")


@pytest.mark.parametrize(
    ("saved", "tone"),
    [(interval(None, None), "not known"), (interval(0, 0), "Neither cheaper"),
     (interval(-5, 7), "Somewhere between dearer by 0.05 GBP and cheaper by 0.07 GBP"),
     (interval(0, 9), "Cheaper by up to 0.09 GBP"), (interval(3, 9), "Cheaper by 8.00 GBP")],
)  # fmt: skip
def test_money_is_said_with_its_range(
    bob: SignedIn, desk: Desk, saved: dict[str, float | None], tone: str
) -> None:
    path = asked(bob)
    made(desk, found(moves={**found()["moves"], "saved_interval": saved}))
    assert tone in bob.see(path)


def test_what_came_to_nothing_says_why(bob: SignedIn, desk: Desk) -> None:
    path = asked(bob, "30")
    assert JobWatch(desk.store, "test", {}, program=lambda job, folder: None).look()
    page = bob.see(path)
    assert "Nothing came of it" in page
    assert "recourse backtest --policy=3 --against=2 --mode=test --since=" in page
    id = path.partition("job=")[2]
    bob.see(f"/job/{id}", 404)
    assert "Not backtested" in bob.see("/policies/3/activate")


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"days": "31"}, "must be one of 30, 90, 365, all"), ({"against": "3"}, "another version")],
)
def test_what_cannot_be_backtested_is_refused(
    bob: SignedIn, desk: Desk, fields: dict[str, str], told: str
) -> None:
    answer = bob.submit("/policies/3/backtest", **{"days": "90", "against": "2", **fields})
    assert answer.status_code == 422
    assert told in answer.text
    assert jobs.history(desk.store, "backtest") == []


def test_no_more_are_asked_for_than_can_wait(bob: SignedIn, desk: Desk) -> None:
    for n in range(jobs.MOST_WAITING):
        jobs.ask(desk.store, "period", {"since": n}, by="x", at=5)
    answer = bob.submit("/policies/3/backtest", days="90", against="2")
    assert answer.status_code == 422
    assert "10 are asked for already" in answer.text


def test_what_is_no_job_is_none(bob: SignedIn) -> None:
    bob.see("/job/job_1", 404)
    bob.see("/policies/3/backtest?job=job_1", 404)


def test_in_a_store_with_its_own_clock_the_last_days_end_with_its_last_decision(desk: Desk) -> None:
    day = 86_400_000
    assert jobs.first_instant(desk.store, 30, 40 * day + 5) == 10 * day
    assert jobs.first_instant(desk.store, None, 5) is None
