"""The service under measurement: real processes on free loopback ports, and a plain client of them.

A `Recourse` is one RECOURSE_HOME of its own, driven by the commands a user has. Benchmarks replay
the past, so they use the sandbox, the only store that may take its time from the data.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import orjson
import psutil

from serving.home import Home
from serving.models import load_champion
from serving.settings import Settings

ROOT: Final = Path(__file__).resolve().parent.parent
SAMPLE: Final = ROOT / "data" / "sample"
SAMPLE_MATURITY_DAYS: Final = "30"
_START_SECONDS: Final = 120
_STOP_SECONDS: Final = 20


class BenchmarkError(Exception):
    """A benchmark cannot be run; says why in one sentence."""


@dataclass(frozen=True)
class Recourse:
    """The `recourse` command over one home, its sandbox on the clock of the data."""

    home: Path
    clock: Literal["ingest", "event"] = "event"
    more: Mapping[str, str] = field(default_factory=dict)
    """Settings besides, by the names of their environment variables."""

    def run(self, *arguments: str) -> str:
        """Run ``recourse …`` and return its standard output; raises BenchmarkError if it fails."""
        command = [sys.executable, "-m", "cli", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            said = done.stderr.strip() or f"exit code {done.returncode}"
            raise BenchmarkError(f"recourse {' '.join(arguments)}: {said}")
        return done.stdout

    def import_folder(self, folder: Path) -> None:
        """Load a data folder into the sandbox."""
        self.run("import", str(folder), "--mode", "test")

    def create_key(self, *scopes: str) -> str:
        """A key of the sandbox."""
        options = [option for scope in scopes for option in ("--scope", scope)]
        return self.run("keys", "create", "--mode", "test", *options).strip()

    @contextmanager
    def serve(self, workers: int = 1) -> Iterator[int]:
        """Serve while the ``with`` block lasts; gives the port."""
        port = free_port()
        log = self.home / "serve.log"
        with running(self._serving(port, workers), port, "/readyz", log, self._environment):
            yield port

    def start(self, port: int, workers: int = 1) -> Served:
        """Begin to serve, for a caller who kills it: `Served.wait` until it is ready."""
        with (self.home / "serve.log").open("ab") as output:
            process = subprocess.Popen(
                self._serving(port, workers), cwd=ROOT, env=dict(self._environment),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        return Served(process, port, self.home / "serve.log")

    def _serving(self, port: int, workers: int) -> list[str]:
        return [sys.executable, "-m", "cli", "serve", "--port", str(port), "--clock", self.clock,
                "--workers", str(workers)]  # fmt: skip

    def settings(self) -> Settings:
        """The settings that this home is served with."""
        return Settings(home=self.home, clock=self.clock)

    def obtain_model(self, source: Path | None) -> None:
        """Serve the model that the home ``source`` serves, or for None one trained on the sample.

        Raises BenchmarkError when ``source`` has no model, or one of another catalog.
        """
        if source is None:
            self.run("train", "--data", str(SAMPLE), "--maturity-days", SAMPLE_MATURITY_DAYS)
            return
        version = Home(source).served_version()
        if version is None:
            raise BenchmarkError(f"{source}: no model is served; train one there first")
        Home(self.home).serve_model(Home(source).model(version), version)
        try:
            load_champion(self.settings())
        except ValueError as error:
            raise BenchmarkError(f"{source}: model {version} cannot be served: {error}") from error

    @property
    def _environment(self) -> Mapping[str, str]:
        given = {name: v for name, v in os.environ.items() if not name.startswith("RECOURSE_")}
        return {**given, "RECOURSE_HOME": str(self.home.resolve()), "RECOURSE_CLOCK": self.clock,
                **self.more}  # fmt: skip


# --- processes -------------------------------------------------------------------------------


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(
    command: Sequence[str], port: int, ready: str, log: Path, environment: Mapping[str, str]
) -> Iterator[None]:
    """A server, from the moment that GET ``ready`` answers 200 to the end of the ``with`` block.

    What it prints goes to ``log``. Raises BenchmarkError with the end of it when the server stops,
    or is not ready within two minutes.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt from the keyboard is ours to pass on
        )  # fmt: skip
    try:
        _wait_until_ready(process, port, ready, log)
        yield
    finally:
        _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, ready: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if Client(port).get(ready).status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    tail = log.read_text(errors="replace").strip().splitlines()[-5:]
    raise BenchmarkError(f"the server on port {port} did not start: " + " | ".join(tail))


def _stop(process: subprocess.Popen[bytes]) -> None:
    # Workers lead sessions of their own, so a signal to the group would miss them.
    workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for worker in psutil.wait_procs(workers, timeout=_STOP_SECONDS)[1]:
        worker.kill()


@dataclass(frozen=True)
class Served:
    """A service that is running, or was: all of its processes."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def wait(self) -> None:
        """Wait until it is ready; raises BenchmarkError when it ends before."""
        _wait_until_ready(self.process, self.port, "/readyz", self.log)

    def workers(self) -> list[psutil.Process]:
        """Those that answer, the oldest first."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
            alive = [one for one in found if one.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []
        return sorted(alive, key=lambda one: one.create_time())

    def kill(self) -> None:
        """Kill every process at once, as a power cut would."""
        workers = self.workers()
        self.process.kill()
        for worker in workers:
            worker.kill()
        self.process.wait()
        psutil.wait_procs(workers, timeout=_STOP_SECONDS)

    def memory_bytes(self) -> int:
        """What its processes hold together, what they share counted in each."""
        every = [psutil.Process(self.process.pid), *self.workers()]
        return sum(int(one.memory_info().rss) for one in every)

    def stop(self) -> None:
        """End it in good order."""
        _stop(self.process)


def say(stage: str) -> None:
    """Tell a waiting reader, on standard error, what is being done."""
    print(f"  {stage} …", file=sys.stderr, flush=True)


# --- a client --------------------------------------------------------------------------------


class Reply(NamedTuple):
    """An answer: its status, its JSON (None if it is none) and how long it took."""

    status: int
    body: Any
    ms: float


class Client:
    """One keep-alive connection, one request at a time."""

    def __init__(self, port: int, key: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"token {key}"

    def post(self, path: str, body: Mapping[str, Any]) -> Reply:
        """Send a JSON body."""
        return self._ask("POST", path, orjson.dumps(body))

    def get(self, path: str) -> Reply:
        """Read."""
        return self._ask("GET", path, None)

    def text(self, path: str) -> str:
        """What a page says, whatever it is."""
        self._connection.request("GET", path)
        return self._connection.getresponse().read().decode()

    def _ask(self, method: str, path: str, body: bytes | None) -> Reply:
        started = time.perf_counter()
        self._connection.request(method, path, body, self._headers)
        response = self._connection.getresponse()
        text = response.read()
        ms = (time.perf_counter() - started) * 1000
        is_json = (response.getheader("Content-Type") or "").startswith("application/json")
        return Reply(response.status, orjson.loads(text) if is_json and text else None, ms)
