"""A real service in its own process, for tests: started, asked over HTTP, killed or stopped."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil

from serving.settings import Settings
from serving.store.store import Store

REPOSITORY = Path(__file__).resolve().parents[2]
RECOURSE = str(Path(sys.executable).with_name("recourse"))
READY_SECONDS = 60


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a command that works in ``home``, free of what else is set here."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RECOURSE_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "RECOURSE_HOME": str(home), **more}


def recourse(home: Path, *command: str, **more: str) -> str:
    """Run a command to its end; its standard output."""
    done = subprocess.run(
        [RECOURSE, *command], env=environment(home, **more), cwd=REPOSITORY, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(f"recourse {' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


@dataclass
class Service:
    """A service over one home. Use as a context manager."""

    home: Path
    clock: str = "ingest"
    settings: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1

    def __post_init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        self.keys = {mode: self.make_key(mode) for mode in ("live", "test")}

    def make_key(self, mode: str, *scopes: str) -> str:
        """A new key of the live or the test store."""
        settings = Settings(home=self.home, **{
            name.removeprefix("RECOURSE_").lower(): value for name, value in self.settings.items()
        }, clock=self.clock)  # fmt: skip
        which: Literal["live", "sandbox"] = "live" if mode == "live" else "sandbox"
        store = Store.open(settings.database_url_of(which), settings.secret_bytes(),
                           clock=settings.clock_of(which))  # fmt: skip
        try:
            given = scopes or ("score", "report", "review")
            return store.keys.create(mode, given, at=time.time_ns() // 10**6)  # type: ignore[arg-type]
        finally:
            store.close()

    def launch(self) -> None:
        """Start it."""
        with (self.home / "service.log").open("ab") as log:
            self.process = subprocess.Popen(
                [RECOURSE, "serve", "--port", str(self.port), "--clock", self.clock,
                 "--workers", str(self.workers)],
                # Noisy machines: only a test of the deadline may meet it.
                env=environment(self.home, RECOURSE_DEADLINE_MS="10000", **self.settings),
                cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def start(self) -> Service:
        """Start and wait until it is ready."""
        self.launch()
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            assert self.process.poll() is None, (self.home / "service.log").read_text()
            try:
                if self.client.get("/readyz").status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError("the service was not ready in time")

    def kill(self) -> None:
        """End every process of the service at once, as a power cut would."""
        # BentoML's workers lead sessions of their own, so the process group is not all of it.
        service = psutil.Process(self.process.pid)
        for process in [service, *service.children(recursive=True)]:
            process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in good order."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self.client.close()

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- calls -------------------------------------------------------------------------------

    def headers(self, mode: str = "live", **more: str) -> dict[str, str]:
        """The headers of a call with a key."""
        return {"Authorization": f"token {self.keys[mode]}", "Content-Type": "application/json",
                **more}  # fmt: skip

    def post(self, path: str, body: Any, mode: str = "live", **headers: str) -> httpx.Response:
        """Send a body (bytes as they are) with a key."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(path, content=content, headers=self.headers(mode, **headers))

    def score(self, body: Any, mode: str = "live", **headers: str) -> httpx.Response:
        """Ask for a decision."""
        return self.post("/v2/refund?score=refundRequest", body, mode, **headers)

    def features(self, score_id: str, mode: str = "live") -> dict[str, float | None]:
        """The feature row that a decision rests on."""
        answer = self.client.get(f"/v2/decision/{score_id}", headers=self.headers(mode))
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]["record"]["features"]  # type: ignore[no-any-return]
