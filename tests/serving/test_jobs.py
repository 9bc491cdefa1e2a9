"""Jobs: asked for once, done by a child process of one worker, and what becomes of those that fail.

The child processes are real; but for one they run a line of Python in place of the command.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from features.money import DAY_MS, Rates
from rules.policy import Policy
from serving import governance, jobs
from serving.desk import Desk
from serving.facts import FACTS
from serving.jobs import GIVEN_UP, NOT_INSTALLED, OUT_OF_TIME, PAGE, JobWatch
from serving.models import Models
from serving.policies import Policies
from serving.store.jobs import MOST_KEPT, Job
from serving.store.store import Store
from serving.wire import InvalidRequest
from tests.serving.documents import document, rule
from tests.serving.test_desk import CHAMPION, ME, NOW, SECRET, report

PERIOD: dict[str, Any] = {"since": 5}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path}/live.db", SECRET, clock="ingest")
    yield opened
    opened.close()


def running(code: str, seen: list[Path] | None = None) -> Callable[[Job, Path], list[str]]:
    """A program that runs some Python, which knows its folder as ``folder``."""

    def program(job: Job, folder: Path) -> list[str]:
        if seen is not None:
            seen.append(folder)
        told = f"import os, sys, time; folder = {str(folder)!r}\n{code}"
        return [sys.executable, "-S", "-c", told]

    return program


def watch(store: Store, code: str = "print('{}')", **how: Any) -> JobWatch:
    given = {"program": running(code, how.pop("seen", None)), **how}
    return JobWatch(store, "live", {}, **given)


def asked(store: Store, kind: Any = "period", at: int = 10, **arguments: Any) -> Job:
    return jobs.ask(store, kind, arguments or PERIOD, by="ann", at=at, via="account:a1")


def stands(store: Store, job: Job) -> Job:
    found = jobs.get(store, job.id)
    assert found is not None
    return found


# --- asked for -----------------------------------------------------------------------------------


@pytest.mark.each_store
def test_the_same_is_made_once_and_that_it_was_asked_for_is_audited(store_url):
    store = Store.open(store_url, SECRET)
    try:
        job = asked(store, since=5, until=None)
        assert (job.state, job.asked_by, job.arguments) == ("waiting", "ann", {"since": 5})
        assert asked(store, at=99) == job == stands(store, job)
        other = asked(store, since=6, at=11)
        assert jobs.history(store, "period") == [other, job]
        assert jobs.latest(store, "period", arguments=PERIOD) == job
        assert jobs.latest(store, "backtest") is None
        entries = store.audit_about("job:period")
        assert [(one.actor, one.action, one.content["since"]) for one in entries] == [
            ("account:a1", "asked_for", 5), ("account:a1", "asked_for", 6)]  # fmt: skip
        assert watch(store, "print('{\"a\": 1}')").look()
        assert jobs.latest(store, "period", ended=False) == other
        ended = jobs.latest(store, "period", ended=True)
        assert ended and (ended.id, ended.state) == (job.id, "done")
        assert jobs.document(store, ended) == {"a": 1}
        assert asked(store, at=100).id != job.id  # it is done, so this is another
    finally:
        store.close()


def test_no_more_than_some_wait_and_no_more_than_some_are_kept(store):
    for n in range(jobs.MOST_WAITING):
        asked(store, since=n)
    with pytest.raises(InvalidRequest, match="job: must wait: 10 are asked for"):
        asked(store, since=99)
    never = watch(store, program=lambda job, folder: None)
    for n in range(MOST_KEPT + 5):
        with suppress(InvalidRequest):
            asked(store, at=20 + n, since=100 + n)
        assert never.look()
    while never.look():
        pass
    asked(store, at=99, since=1_000)
    found = jobs.history(store, "period")
    assert [job.state for job in found] == ["waiting", *["failed"] * (MOST_KEPT - 1)]


# --- done ----------------------------------------------------------------------------------------


def test_a_job_is_done_and_leaves_its_document_and_its_page(store):
    job = asked(store)
    code = f"open(folder + '/{PAGE}', 'w').write('<p>ü</p>'); print('[1, 2]')"
    seen: list[Path] = []
    assert watch(store, code, seen=seen).look()
    done = stands(store, job)
    assert (done.state, done.problem, done.tries) == ("done", None, 1)
    assert done.begun_at and done.done_at and done.begun_at <= done.done_at
    assert (jobs.document(store, done), jobs.page(store, done)) == ([1, 2], "<p>ü</p>")
    assert not seen[0].exists()
    assert not watch(store).look()  # nothing is left to be done


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("sys.exit('a\\n\\nthe store: none there\\n\\n')", "the store: none there"),
        ("sys.exit(3)", "its program ended with code 3, and said nothing"),
        ("print('no json')", "its program left no JSON document"),
        ("sys.stderr.buffer.write(b'\\xff\\0!' + b'x' * 9000); sys.exit(1)", "\ufffd!" + "x" * 498),
    ],
)
def test_what_fails_says_why(store, code, problem):
    job = asked(store)
    assert watch(store, code).look()
    assert (stands(store, job).state, stands(store, job).problem) == ("failed", problem)
    assert jobs.problem_of(stands(store, job), "live") == problem


def test_where_the_program_is_not_installed_the_command_is_told(store):
    job = asked(store, "backtest", policy="2", against="it's", since=0)
    assert watch(store, program=lambda job, folder: None).look()
    failed = stands(store, job)
    assert failed.problem == NOT_INSTALLED
    assert jobs.problem_of(failed, "test").endswith(
        "recourse backtest --policy=2 '--against=it'\"'\"'s' --mode=test "
        "--since=1970-01-01T00:00:00.000Z"
    )


def test_what_takes_too_long_is_ended_with_whatever_it_began(store, tmp_path):
    job = asked(store)
    grandchild = tmp_path / "pid"
    code = (f"child = os.fork()\nif child: open({str(grandchild)!r}, 'w').write(str(child))\n"
            "time.sleep(600)")  # fmt: skip
    watching = watch(store, code, most_seconds=0.5)
    assert watching.look()
    assert stands(store, job).problem == OUT_OF_TIME
    assert "15 minutes" in jobs.problem_of(stands(store, job), "live")
    with pytest.raises(ProcessLookupError):
        waited_for_end(int(grandchild.read_text()))


def waited_for_end(pid: int) -> None:
    """Raises ProcessLookupError once a process is gone, a zombie's parent being whoever adopts."""
    for _ in range(200):
        os.kill(pid, 0)
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            raise ProcessLookupError
        time.sleep(0.02)


# --- workers that end ----------------------------------------------------------------------------


def test_a_worker_that_stops_ends_the_child_and_leaves_the_job_to_another(store, tmp_path):
    job = asked(store)
    begun = tmp_path / "pid"
    stopped = watch(store, f"open({str(begun)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    looking = threading.Thread(target=stopped.look)
    looking.start()
    while not (begun.exists() and begun.read_text()):
        time.sleep(0.01)
    assert stands(store, job).state == "under way"
    assert not watch(store).look()  # another worker: one runs the jobs
    stopped.stop()
    looking.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)
    assert (stands(store, job).state, stands(store, job).tries) == ("waiting", 0)
    assert watch(store).look()  # the lease was given back
    assert stands(store, job).state == "done"


def die_with(store: Store, job: Job) -> None:
    """A worker that dies once it has begun a job: its lease runs out some time."""
    with store.database.write() as connection:
        first = store.jobs.next(connection)
        assert first == stands(store, job)
        store.jobs.begin(connection, first, 20)


def test_a_child_that_was_asked_to_end_before_its_worker_was_leaves_the_job_to_another(store):
    job = asked(store)
    watching = watch(store, "os.kill(os.getpid(), 15); time.sleep(60)")
    Timer(1.0, watching.stop).start()
    assert not watching.look()
    assert (stands(store, job).state, stands(store, job).tries) == ("waiting", 0)


def test_a_job_whose_worker_died_is_begun_once_more_and_then_given_up(store):
    job = asked(store)
    die_with(store, job)
    late, watching = stands(store, job), watch(store)
    assert watching.look()
    assert (stands(store, job).state, stands(store, job).tries) == ("done", 2)
    with store.database.write() as connection:  # the dead was only slow: it has no say any more
        assert not store.jobs.end(connection, late, 30, problem="mine")
    again = asked(store, at=40)
    die_with(store, again)
    die_with(store, again)
    assert watching.look()
    assert stands(store, again).problem == GIVEN_UP
    assert "begun twice" in jobs.problem_of(stands(store, again), "live")


def test_what_cannot_be_run_at_all_is_given_up(store):
    job = asked(store)
    nothing = watch(store, program=lambda job, folder: [str(folder / "none")])
    assert not nothing.look()
    assert not nothing.look()
    assert nothing.look()
    assert stands(store, job).problem == GIVEN_UP


def test_started_it_looks_by_itself_at_low_priority(store, monkeypatch):
    monkeypatch.setattr(jobs, "LOOK_SECONDS", 0.01)
    job = asked(store)
    watching = watch(store, "time.sleep(0.2); print(os.getpriority(os.PRIO_PROCESS, 0))")
    watching.start()
    while stands(store, job).done_at is None:
        time.sleep(0.02)
    watching.stop()
    assert jobs.document(store, job) == jobs.NICENESS


# --- the command itself --------------------------------------------------------------------------


def test_a_backtest_of_a_policy_against_another(store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    for version, text in (("1", document("1")), ("2", document("2", rule(400, version=2)))):
        governance.propose(store, text, author="ann", note=None, at=NOW)
        if version == "1":
            governance.activate(store, "1", actor="bob", at=NOW, second_person=True)
    policy = Policy.from_yaml(document("1"), facts=FACTS)
    desk = Desk(store, Policies(policy), Models(CHAMPION), Rates("GBP"), SECRET, 60_000)
    for n in range(3):
        desk.decide(report(refund_id=f"r{n}"), lambda n=n: NOW + n, ME)
    job = asked(store, "backtest", policy="2", against="1", since=NOW - DAY_MS)
    assert JobWatch(store, "live", jobs.environment_of(tmp_path)).look()
    done = stands(store, job)
    assert done.problem is None
    found = jobs.document(store, done)
    assert found["decisions"] == 3
    page = jobs.page(store, done)
    assert page is not None and page.startswith("<!doctype html>")
