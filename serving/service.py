"""The BentoML service: wiring only. What it serves is `serving.worker`, loaded in each worker.

The process that starts the workers loads this file too and decides nothing, so what costs seconds
to load is loaded by the workers alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import bentoml
import structlog
from starlette.types import Receive, Scope, Send

from serving.front import FrontedService
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.worker import Worker

PARENT_CHECK_SECONDS = 0.2
SUPERVISOR = "RECOURSE_SUPERVISOR"
"""Where `recourse serve` says which process it is, before it starts workers."""

log = structlog.get_logger()

_WORKERS: list[Worker] = []
"""This process's worker, once it has opened its stores; BentoML serves nothing before."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """What the worker serves."""
    await _WORKERS[0].app(scope, receive, send)


def supervisor() -> int:
    """The process that started this worker.

    As it says itself: one that is killed while its workers start is no longer their parent.
    """
    return int(os.environ.get(SUPERVISOR, os.getppid()))


def end_with(parent: int, stop_seconds: float) -> None:
    """End this worker, within ``stop_seconds``, when the process that started it is gone.

    BentoML's workers hold the listening socket. One that outlives a killed supervisor would answer
    beside its successor, or keep it from the address.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        log.error("parent_gone", parent=parent)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(stop_seconds)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


@contextmanager
def not_installed(*names: str) -> Iterator[None]:
    """Let these packages look as if they were not installed, as they are not in a Bento.

    LightGBM loads pandas and scikit-learn where it finds them, which takes a worker two seconds and
    130 MB, and serving uses neither.
    """
    hidden: dict[str, Any] = {name: None for name in names if name not in sys.modules}
    sys.modules.update(hidden)  # an import that finds None there fails as for want of the package
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@bentoml.service(
    name="recourse",
    service_class=FrontedService,
    workers=Settings().workers,
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
    # Its metrics are labelled with the path, so each refund asked for would leave one, with the
    # customer's id in it. Ours are at the same address.
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*"},
)
@bentoml.asgi_app(app, path="/")
class Recourse:
    """Risk scoring for refund abuse."""

    def __init__(self) -> None:
        with not_installed("pandas", "sklearn"):
            import lightgbm  # noqa: F401 - it is to be loaded here
        from serving.logs import configure_libraries
        from serving.worker import Worker

        configure_libraries()
        settings = Settings()
        end_with(supervisor(), settings.stop_seconds)
        _WORKERS.append(Worker(settings))

    async def __is_ready__(self) -> bool:
        """Whether a decision could be made and kept now."""
        return bool(_WORKERS) and _WORKERS[0].is_ready

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Finish what was accepted."""
        if _WORKERS:
            _WORKERS[0].close()
