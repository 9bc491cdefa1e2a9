"""What tests of the whole share: a small world, a home trained on it, a service over a copy."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import Connection

# Before LightGBM is loaded, as the Makefile and the command line have it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from serving.store import database
from tests.browser import CHROMIUM_ARGUMENTS, chromium
from tests.e2e.service import Service, recourse

# A first call compiles, and these machines are shared: how long an example takes proves nothing.
# Examples are the same in every run: what passes here passes there. `make fuzz` draws others.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, print_blob=True)
settings.load_profile("repeatable")


HEAVY = (
    "test_retraining.py", "test_readme.py", "test_notebooks.py", "test_durability.py",
    "test_history.py", "test_catalog.py", "test_scale.py", "test_policy_walk.py", "test_page.py",
    "test_scene.py", "test_promote.py", "test_oracle.py", "test_decision.py", "test_leaks.py",
    "test_replay.py", "test_operations.py", "test_online_retail.py", "test_policies.py",
)  # fmt: skip
"""The files that take longest: begun first, so that no worker is left with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of heavy files first; the order within a file stays."""
    places = {name: place for place, name in enumerate(HEAVY)}
    items.sort(key=lambda item: places.get(item.path.name, len(HEAVY)))


def pytest_collection_finish() -> None:
    """Look no more for garbage among what is there to the end: modules, tests, their parameters."""
    gc.collect()
    gc.freeze()


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:  # fmt: skip
    """A folder that one of the workers makes, and the others wait for."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    common = factory.getbasetemp().parent if is_worker else factory.getbasetemp()
    folder = common / name
    with (common / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".made").exists():
            folder.mkdir()
            make(folder)
            (folder / ".made").touch()
    return folder


@pytest.fixture(autouse=True)
def logs_as_delivered() -> None:
    """Let no test hear less than another: a command that ran before may ask for errors alone."""
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """Let no store of this process wait for the disk: what that is for, a power cut, is not tried
    here. `test_every_commit_is_synced` holds the setting; services that are started have it."""
    delivered = database._set_up_sqlite

    @wraps(delivered)
    def set_up(connection: Any, record: object) -> None:
        delivered(connection, record)
        connection.execute("PRAGMA synchronous = OFF")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_set_up_sqlite", set_up)
        yield


@pytest.fixture(scope="session", autouse=True)
def migrated_once() -> Iterator[None]:
    """Make the first SQLite store of this process by the migrations, and the later ones by the
    schema that they left there: a twentieth of the time."""
    delivered = database._migrate
    schema: list[str] = []

    def migrate(connection: Connection) -> None:
        run = connection.exec_driver_sql
        fresh = connection.dialect.name == "sqlite" and not run("SELECT 1 FROM sqlite_master").all()
        if fresh and schema:
            for statement in schema:
                run(statement)
            return
        delivered(connection)
        if fresh:
            made = run("SELECT name, type, sql FROM sqlite_master WHERE sql IS NOT NULL"
                       " AND name NOT LIKE 'sqlite_%' ORDER BY rowid").all()  # fmt: skip
            told = [sql for *_, sql in made]
            for name in (name for name, kind, _ in made if kind == "table"):
                for row in run(f'SELECT * FROM "{name}"').all():
                    values = ", ".join(f"'{text}'" for text in row)
                    told.append(f'INSERT INTO "{name}" VALUES ({values})')
            schema[:] = told

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_migrate", migrate)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic data folder."""

    def make(folder: Path) -> None:
        recourse(folder, "simulate", "--customers", "4000", "--days", "300", "--seed", "5",
                 "--out", str(folder / "data"))  # fmt: skip

    return made_once(tmp_path_factory, "world", make) / "data"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, as the system has it; one a module, since its loop bars asyncio from the others."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a champion trained on the small world."""
    return made_once(
        tmp_path_factory, "trained",
        lambda home: recourse(home, "train", "--data", str(world), "--maturity-days", "30"),
    )  # fmt: skip


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """A fresh home that serves the trained champion."""
    shutil.copytree(trained / "model", tmp_path / "model")
    return tmp_path


@pytest.fixture(scope="module")
def service(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service shared by a module's tests, over stores of its own."""
    home = tmp_path_factory.mktemp("service")
    shutil.copytree(trained / "model", home / "model")
    with Service(home) as running:
        yield running
