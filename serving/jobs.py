"""Backtests and reports of a period, asked for on a page and made beside the service.

Each takes longer than a page may, and needs what the service itself does not load: so a child
process makes it, the command that a person would type, at low priority. Of several workers one runs
the jobs of a store, one after another; a job whose worker died is begun once more, then given up.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, NamedTuple

import structlog
from sqlalchemy import func, select

from features.money import DAY_MS
from serving.language import ENGLISH, Language
from serving.store.audit import AuditEntry
from serving.store.database import STORE_UNAVAILABLE
from serving.store.jobs import Job, Kind
from serving.store.schema import decisions
from serving.store.store import Store
from serving.wire import InvalidRequest, Problem

LOOK_SECONDS: Final = 1.0
"""How often a worker looks whether a job was asked for."""

MOST_SECONDS: Final = 900.0
"""A job that takes longer is ended."""

MOST_WAITING: Final = 10
"""So many jobs of a store may wait or be under way."""

MOST_TRIES: Final = 2
LEASE: Final = "jobs"
LEASE_SECONDS: Final = 20.0
NICENESS: Final = 15

NOT_INSTALLED, OUT_OF_TIME, GIVEN_UP = "not installed", "out of time", "given up"
"""Problems of a job besides what its program said; `problem_of` says them in words."""

_POLL_SECONDS: Final = 0.1
_ENDING_SECONDS: Final = 5.0
"""A child that was asked to end is one of a service that stops, which hears of it as soon."""
_MOST_TOLD: Final = 500

log = structlog.get_logger()

Mode = Literal["live", "test"]

Program = Callable[[Job, Path], Sequence[str] | None]
"""Gives the command that does a job in a folder of its own, None where it is not installed.

It prints one JSON document, and leaves a page for a browser in the folder as `PAGE`.
"""

PAGE: Final = "page.html"


# --- asked for ---------------------------------------------------------------------------------


def ask(
    store: Store, kind: Kind, arguments: Mapping[str, Any], *, by: str, at: int,
    via: str | None = None,
) -> Job:  # fmt: skip
    """Ask for a job; the same one that waits or is under way is not made a second time.

    Of a ``backtest`` the arguments are the versions ``policy`` and ``against``; of both kinds
    ``since`` and ``until``, epoch ms, of when was decided; what is None is left out. Raises
    `InvalidRequest` where too many wait.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    with store.database.write() as connection:
        store.jobs.lock(connection)
        same = store.jobs.of_kind(connection, kind, arguments=given, ended=False, limit=1)
        if same:
            return same[0]
        if store.jobs.count_waiting(connection) >= MOST_WAITING:
            told = f"must wait: {MOST_WAITING} are asked for already; ask again when fewer are"
            raise InvalidRequest([Problem("job", told)])
        job = store.jobs.add(connection, kind, given, by, at)
        store.jobs.prune(connection, kind)
        asked = AuditEntry(at, via or by, "asked_for", f"job:{kind}", given, {"by": by})
        store.audit_log.append(connection, asked)
    return job


def first_instant(store: Store, days: int | None, at: int) -> int | None:
    """Since when are the last so many days, from the start of one on; None for all there is.

    Until ``at`` (epoch ms), or until the last decision where the store's clock is that of what it
    is told: the present tells nothing there.
    """
    if days is None:
        return None
    if store.clock == "event":
        with store.database.read() as connection:
            at = connection.execute(select(func.max(decisions.c.decided_at))).scalar() or at
    return at // DAY_MS * DAY_MS - days * DAY_MS


def get(store: Store, id: str) -> Job | None:
    """A job by its id."""
    with store.database.read() as connection:
        return store.jobs.get(connection, id)


def latest(
    store: Store, kind: Kind, *, arguments: Mapping[str, Any] | None = None,
    ended: bool | None = None,
) -> Job | None:  # fmt: skip
    """The job of a kind that was asked for last: of these arguments, ended or not, where given."""
    return next(iter(history(store, kind, arguments=arguments, ended=ended)), None)


def history(
    store: Store, kind: Kind, *, arguments: Mapping[str, Any] | None = None,
    ended: bool | None = None,
) -> list[Job]:  # fmt: skip
    """The jobs of a kind that are kept, the latest first; see `latest`."""
    with store.database.read() as connection:
        return store.jobs.of_kind(connection, kind, arguments=arguments, ended=ended)


def document(store: Store, job: Job) -> Any:
    """What came of a job, as the JSON of its command has it; None where nothing did."""
    with store.database.read() as connection:
        return store.jobs.document(connection, job.id)


def page(store: Store, job: Job) -> str | None:
    """The same as an HTML page of its own."""
    with store.database.read() as connection:
        return store.jobs.page(connection, job.id)


# --- the command -------------------------------------------------------------------------------


def command_of(job: Job, mode: Mode) -> list[str]:
    """What a person types to have the same, behind ``recourse``; a report asks for a beginning.

    >>> job = Job("job_1", "backtest", {"policy": "2", "against": "1", "since": 0}, "ann", 5)
    >>> " ".join(command_of(job, "live"))
    'backtest --policy=2 --against=1 --mode=live --since=1970-01-01T00:00:00.000Z'
    >>> command_of(Job("job_1", "period", {}, "ann", 5), "test")[1:]
    ['--mode=test', '--since=1970-01-01T00:00:00.000Z']
    """
    given = {"since": 0, **job.arguments} if job.kind == "period" else job.arguments
    words = ["report"]
    if job.kind == "backtest":
        words = ["backtest", f"--policy={given['policy']}", f"--against={given['against']}"]
    words.append(f"--mode={mode}")
    return words + [f"--{name}={_iso(given[name])}" for name in ("since", "until") if name in given]


def problem_of(job: Job, mode: Mode, language: Language = ENGLISH) -> str:
    """Why nothing came of a job, in words, and what to do about it."""
    if job.problem == NOT_INSTALLED:
        typed = shlex.join(["recourse", *command_of(job, mode)])
        return language.say(
            "The program that makes this is not installed beside the service. Where it is: "
            "{command}", command=typed,
        )  # fmt: skip
    if job.problem == OUT_OF_TIME:
        return language.say(
            "It took longer than {minutes} minutes and was ended. Ask for a shorter period.",
            minutes=language.count(MOST_SECONDS / 60),
        )
    if job.problem == GIVEN_UP:
        return language.say("It was begun twice and ended neither time, so it was given up.")
    return job.problem or ""


def _iso(at: int) -> str:
    seconds, ms = divmod(at, 1_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ms:03}Z"


class Recourse:
    """The program that does the jobs of one store: the command ``recourse``, where it is there."""

    def __init__(self, store: Store, mode: Mode) -> None:
        self._store, self._mode = store, mode

    def __call__(self, job: Job, folder: Path) -> Sequence[str] | None:
        """The command for a job; the policies that it names lie in the folder as files.

        So no version is taken for a file, which a command takes a name for first.
        """
        if any(importlib.util.find_spec(name) is None for name in ("cli", "commands", "training")):
            return None
        named = dict(job.arguments)
        for name in ("policy", "against"):
            if name in named:
                kept = self._store.policy(named[name])
                named[name] = str(folder / f"{name}.yaml")
                Path(named[name]).write_text(kept.text if kept else "", encoding="utf-8")
        words = command_of(job._replace(arguments=named), self._mode)
        return [sys.executable, "-m", "cli", *words, "--json", f"--out={folder / PAGE}"]


# --- done --------------------------------------------------------------------------------------


class Made(NamedTuple):
    """What came of a job: a problem, or what is to be kept."""

    problem: str | None = None
    document: str | None = None
    page: str | None = None


class JobWatch:
    """Does the jobs of one store, one after another, on a thread of its own, from start to stop.

    ``environment`` is set in that of the child processes; ``program`` says what they run.
    """

    def __init__(
        self, store: Store, mode: Mode, environment: Mapping[str, str], *,
        program: Program | None = None, most_seconds: float = MOST_SECONDS,
    ) -> None:  # fmt: skip
        self._store, self._environment = store, environment
        self._program = program or Recourse(store, mode)
        self._most_seconds = most_seconds
        self._holder = secrets.token_hex(8)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"jobs-{mode}", daemon=True)

    def start(self) -> None:
        """Begin; the first look comes after `LOOK_SECONDS`."""
        self._thread.start()

    def stop(self) -> None:
        """End, and with it what is under way, which another worker then begins anew."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._ending.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> bool:
        """Do one job if there is one and no other process sees to them; whether one was done."""
        try:
            with self._store.database.read() as connection:
                job = self._store.jobs.next(connection)
            if job is None or not self._leads():
                return False
            done = self._see_to()
            if self._ending.is_set():
                self._store.leases.give_back(LEASE, self._holder)
        except STORE_UNAVAILABLE as error:
            log.error("jobs_not_seen_to", error=type(error).__name__)
            return False
        except Exception as error:  # a fault of ours: the thread goes on
            log.error("jobs_not_seen_to", exc_info=error)
            return False
        return done

    def _leads(self) -> bool:
        return self._store.leases.take(LEASE, self._holder, _now(), int(LEASE_SECONDS * 1_000))

    def _see_to(self) -> bool:
        """Do the next job, now that nobody else does: one that is under way is of a dead worker."""
        jobs = self._store.jobs
        with self._store.database.write() as connection:
            job = jobs.next(connection)
            if job is None:
                return False
            if job.tries >= MOST_TRIES:
                return jobs.end(connection, job, _now(), problem=GIVEN_UP)
            job = jobs.begin(connection, job, _now())
        made = self._make(job)
        with self._store.database.write() as connection:
            if made is None:
                jobs.put_back(connection, job)
                return False
            jobs.end(connection, job, _now(), **made._asdict())
        log.info("job_done", kind=job.kind, id=job.id, failed=made.problem is not None)
        return True

    def _make(self, job: Job) -> Made | None:
        """What comes of a job; None where this is ended meanwhile."""
        with TemporaryDirectory(prefix="recourse-job-") as name:
            folder = Path(name)
            command = self._program(job, folder)
            if command is None:
                return Made(NOT_INSTALLED)
            told, said = folder / "stdout", folder / "stderr"
            with told.open("wb") as out, said.open("wb") as errors:
                child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                    env={**os.environ, **self._environment}, process_group=0,
                )  # fmt: skip
                try:
                    with suppress(OSError):  # it is over already
                        os.setpriority(os.PRIO_PGRP, child.pid, NICENESS)
                    code = self._wait(child)
                finally:
                    _end(child)
            if code == -signal.SIGTERM and self._ending.wait(_ENDING_SECONDS):
                code = None  # whoever stops a service asks its children first
            if code is None:
                return None if self._ending.is_set() else Made(OUT_OF_TIME)
            return _made(code, folder)

    def _wait(self, child: subprocess.Popen[bytes]) -> int | None:
        """The exit code of a child; None where it takes too long or this is ended."""
        began = led = time.monotonic()
        while (code := child.poll()) is None:
            now = time.monotonic()
            if now - led > LEASE_SECONDS / 4:
                led = now
                with suppress(*STORE_UNAVAILABLE):
                    self._leads()
            if now - began > self._most_seconds or self._ending.wait(_POLL_SECONDS):
                return None
        return code


def environment_of(home: Path) -> dict[str, str]:
    """What the child processes of a service are told besides what it was told itself."""
    return {"RECOURSE_HOME": str(home.resolve()), "RECOURSE_LOG_LEVEL": "ERROR"}


def _made(code: int, folder: Path) -> Made:
    """What a child left behind."""
    said = (folder / "stderr").read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = (lines[-1] if lines else "").replace("\0", "")[:_MOST_TOLD]
    if code != 0:
        return Made(last or f"its program ended with code {code}, and said nothing")
    told = (folder / "stdout").read_text(encoding="utf-8", errors="replace")
    try:
        json.loads(told)
    except ValueError:
        return Made("its program left no JSON document")
    path = folder / PAGE
    return Made(None, told, path.read_text(encoding="utf-8") if path.exists() else None)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child and whatever it began itself, and forget it."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _now() -> int:
    return time.time_ns() // 10**6
