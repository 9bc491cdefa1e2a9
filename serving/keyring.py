"""API keys that were found in force a moment ago, so that not each request asks the store.

A key that is revoked is refused within `SECONDS`, by every worker.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Final

from serving.store.keys import ApiKey
from serving.store.store import Store

SECONDS: Final = 1.0
"""For how long a key is believed to be in force without being looked up."""

MOST: Final = 1_000
"""How many keys are remembered: beyond it all are looked up anew."""


class KeyRing:
    """The keys of a worker's stores. Threads may share it; nothing is remembered of unknown keys.

    ``clock`` gives seconds that do not go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[tuple[int, bytes], tuple[float, ApiKey]] = {}

    def verify(self, store: Store, key: str, at: int) -> ApiKey | None:
        """The key's entry; None for one that is unknown, was revoked, or has ended at ``at`` (ms).

        Raises what `STORE_UNAVAILABLE` lists when the store cannot be asked.
        """
        name = (id(store), hashlib.sha256(key.encode()).digest())
        until, known = self._known.get(name, (0.0, None))
        now = self._clock()
        if known is None or now >= until:
            known = store.keys.verify(key, at)
            if known is None:
                self._known.pop(name, None)
                return None
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[name] = (now + SECONDS, known)
        return known if known.in_force(at) else None
