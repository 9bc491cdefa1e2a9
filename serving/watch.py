"""How long one decision may take, and how long each part of it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from serving.metrics import STAGES
from serving.scorer import Late

STAGE_OF: Final = {**dict(zip(STAGES, STAGES, strict=True)), "explanation": "explain"}
"""What is called by a name, as a stage of `serving.metrics.STAGES`."""

NEVER_LATE: Final = frozenset({"parse", "read", "features", "rules", "write"})
"""Parts that are done however late it is: a decision is made from what there is, and kept."""


class Watch:
    """The deadline of one decision, and a stop-watch for its stages.

    Called with the name of the stage to come. Raises `Late` when ``limit_ms`` have passed since
    ``arrived``, by the monotonic clock, so what it waited counts too; the time that it is stopped
    for a challenger does not.

    >>> watch = Watch(limit_ms=60_000)
    >>> for stage in ("parse", "model", "explanation", "write"):
    ...     watch(stage)
    >>> list(watch.seconds()), watch.seconds()["total"] >= watch.seconds()["write"]
    (['parse', 'model', 'explain', 'write', 'total'], True)
    """

    __slots__ = ("_arrived", "_limit_ms", "_marks", "_stopped")

    def __init__(self, limit_ms: float, arrived: float | None = None) -> None:
        self._limit_ms = limit_ms
        self._arrived = time.monotonic() if arrived is None else arrived
        self._marks: list[tuple[str, float]] = []
        self._stopped = 0.0

    def __call__(self, stage: str) -> None:
        """End the stage before, and begin this one if there is time for it."""
        now = time.monotonic()
        self._marks.append((STAGE_OF.get(stage, ""), now))
        taken = (now - self._arrived - self._stopped) * 1000
        if taken > self._limit_ms and stage not in NEVER_LATE:
            raise Late(f"{taken:.0f} ms had passed before {stage}, of {self._limit_ms}")

    def pause(self) -> None:
        """End the stage before: what comes until the next one is waiting, and is no stage."""
        self._marks.append(("", time.monotonic()))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done within is not on the decision's account."""
        started = time.monotonic()
        yield
        self._stopped += time.monotonic() - started

    def seconds(self) -> dict[str, float]:
        """How long each stage took until now, tries together; ``total`` since the arrival."""
        end = time.monotonic()
        found: dict[str, float] = {}
        for (stage, began), (_, ended) in zip(
            self._marks, [*self._marks[1:], ("", end)], strict=True
        ):
            found[stage] = found.get(stage, 0.0) + ended - began
        found.pop("", None)
        return {**found, "total": end - self._arrived}
