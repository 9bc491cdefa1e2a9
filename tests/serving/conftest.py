"""What the tests of serving share: a tiny trained champion, the default policy over FACTS, and a
real PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import rules
from benchmarks import postgresql
from features.catalog import FEATURES
from rules.policy import Policy, load_policy
from serving.facts import FACTS
from serving.scorer import Champion
from serving.store.store import Store
from tests.serving.champions import trained_model

EVERY_STORE = "RECOURSE_TEST_EVERY_STORE"
"""Set, it lets every test of a store run on PostgreSQL, too: a minute more."""

SECRET = b"a secret of 16 bytes or more"
DEFAULT_POLICY = Path(rules.__file__).parent / "policies" / "default.yaml"


def pytest_configure(config: pytest.Config) -> None:
    """Declare what tests are marked with."""
    config.addinivalue_line("markers", "each_store: runs on SQLite and on PostgreSQL always")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for `store_url` on both stores, if it is marked so or every test is to."""
    given = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "store_url" in metafunc.fixturenames and "store_url" not in given:
        on_both = (
            "either" in metafunc.fixturenames
            or metafunc.definition.get_closest_marker("each_store") is not None
            or EVERY_STORE in os.environ
        )
        kinds = ["sqlite", "postgresql"] if on_both else ["sqlite"]
        metafunc.parametrize("store_url", kinds, indirect=True)


@pytest.fixture(scope="session")
def champion() -> Champion:
    return Champion.of(trained_model(), "7")


@pytest.fixture(scope="session")
def policy() -> Policy:
    return load_policy(DEFAULT_POLICY, FACTS)


@pytest.fixture(scope="session")
def complete() -> Policy:
    """The default policy of a merchant who reports every order and capture."""
    text = DEFAULT_POLICY.read_text(encoding="utf-8")
    changed = text.replace("orders_complete: false", "orders_complete: true")
    assert changed != text
    return Policy.from_yaml(changed, facts=FACTS)


@pytest.fixture(scope="session")
def plain_row() -> dict[str, float]:
    """A feature row of a customer with a short and harmless past."""
    return {feature.name: 1.0 for feature in FEATURES}


# --- stores ----------------------------------------------------------------------------------


def make_store(url: str) -> None:
    """Make an empty store."""
    Store.open(url, SECRET).close()


@pytest.fixture(scope="session")
def new_database() -> Iterator[postgresql.Server]:
    """Called, it gives the urls of new, empty databases of one PostgreSQL server."""
    # Not under pytest's own folder: a second run of tests bars the server's user from that.
    with (
        TemporaryDirectory(prefix="recourse-") as folder,
        postgresql.running(Path(folder)) as server,
    ):
        server.forget_power_cuts()
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def either_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The url of an empty database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/either.db"
    made: str = request.getfixturevalue("new_database")()
    return made


@pytest.fixture
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The url of an empty store: SQLite, and PostgreSQL where `pytest_generate_tests` says so."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/either.db"
    server: postgresql.Server = request.getfixturevalue("new_database")
    return server.like(make_store)
