"""How much a key may ask, and how often an address may guess one: token buckets, times passed in.

A worker counts for itself: each of n workers allows an n-th of a key's rate, which is the whole
where connections spread over them. Memory is bounded, whatever is sent.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final

DEFAULT_RATE: Final = 2_000.0
"""Requests a second of one key: more than one worker decides, so that a backend at its busiest is
never refused for it."""

SECONDS_OF_BURST: Final = 2
DEFAULT_FAILURES: Final = 30
DEFAULT_WAITING: Final = 256

LONGEST_WAIT_SECONDS: Final = 0.5
"""Who would wait longer is refused: a client that was told to wait 750 ms has given up by then, and
a decision that nobody waits for only keeps the others."""

FEW: Final = 8
"""So many may wait whatever it takes: a store that is slow for a moment refuses nobody."""

MOST_REMEMBERED: Final = 10_000
"""Names that a `Buckets` keeps apart; an address is one."""


class Buckets:
    """A token bucket for each name: ``burst`` at once, and ``rate`` a second from then on.

    Kept as one number a name, the time at which its bucket will be full again (the generic cell
    rate algorithm, ITU-T I.371). Times are seconds of any clock that does not go back.

    >>> buckets = Buckets(rate=2, burst=3)
    >>> [buckets.take("k", now=0.0) for _ in range(4)]
    [None, None, None, 0.5]
    >>> buckets.take("k", now=0.5), buckets.take("k", now=0.5)
    (None, 0.5)
    >>> buckets.take("other", now=0.5)
    """

    def __init__(self, rate: float, burst: float, most: int = MOST_REMEMBERED) -> None:
        self._each = 1 / rate
        self._depth = max(burst, 1) / rate
        self._most = most
        self._full_at: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, name: Hashable, now: float) -> float | None:
        """Seconds until the next token, None where there is one."""
        over = max(self._full_at.get(name, now), now) + self._each - now - self._depth
        return over if over > 1e-9 else None

    def take(self, name: Hashable, now: float) -> float | None:
        """Take a token: None, or where there is none the seconds until there will be."""
        wait = self.wait(name, now)
        if wait is None:
            if name not in self._full_at and len(self._full_at) >= self._most:
                self._forget(now)
            self._full_at[name] = max(self._full_at.get(name, now), now) + self._each
        return wait

    def _forget(self, now: float) -> None:
        """Drop the buckets that are full anyway, and where that is not enough the older half."""
        left = [(name, at) for name, at in self._full_at.items() if at > now]
        self._full_at = dict(left[-(self._most // 2) :])


class Turns:
    """Who waits for a turn, and since when; they are served about in the order in which they came.

    ``most`` may wait at all; more than `FEW` only while none has waited for ``seconds``.

    >>> turns = Turns(most=20, seconds=0.5)
    >>> for _ in range(9):
    ...     _ = turns.enter(now=1.0)
    >>> turns.waited(now=1.25), turns.is_full(now=1.25), turns.is_full(now=1.75)
    (0.25, False, True)
    """

    def __init__(self, most: int, seconds: float = math.inf) -> None:
        self._most, self._seconds = most, seconds
        self._since: dict[object, float] = {}

    def enter(self, now: float) -> object:
        """Count somebody in; returns what `leave` takes."""
        ticket = object()
        self._since[ticket] = now
        return ticket

    def leave(self, ticket: object) -> None:
        """Count them out."""
        del self._since[ticket]

    def waited(self, now: float) -> float:
        """Seconds that whoever waits longest has waited, 0 where nobody does."""
        return now - next(iter(self._since.values()), now)

    def is_full(self, now: float) -> bool:
        """Whether nobody more may wait."""
        waiting = len(self._since)
        return waiting >= self._most or (waiting > FEW and self.waited(now) > self._seconds)


class Limits:
    """The limits of one worker. Belongs to the event loop: nothing here takes a lock.

    ``rate`` requests a second of one key and ``burst`` at once (None: two seconds' worth), shared
    by ``workers``; 0 is no limit. ``failures`` a minute of unknown keys from one address, 0 for no
    limit. ``waiting`` requests that may wait for their decision, and of one key three quarters, or
    half of those that wait when that takes long: whoever floods the service leaves room for others.

    >>> limits = Limits(rate=16, burst=4, workers=2, failures=60)
    >>> [limits.admit("key", now=0.0) for _ in range(3)]
    [None, None, 0.125]
    >>> any([limits.failed("192.0.2.1", now=0.0) for _ in range(60)])
    True
    >>> limits.blocked("192.0.2.1", now=0.0), limits.blocked("192.0.2.2", now=0.0)
    (1.0, None)
    """

    def __init__(
        self, rate: float = DEFAULT_RATE, burst: float | None = None, *, workers: int = 1,
        failures: int = DEFAULT_FAILURES, waiting: int = DEFAULT_WAITING,
    ) -> None:  # fmt: skip
        self.rate = rate
        self.failures = failures
        self.waiting = waiting
        self.waiting_of_one = max(1, waiting * 3 // 4)
        at_once = SECONDS_OF_BURST * rate if burst is None else burst
        self._keys = Buckets(rate / workers, at_once / workers) if rate else None
        self._addresses = Buckets(failures / 60, failures) if failures else None
        self._inside: dict[Hashable, int] = {}
        self._all_inside = 0
        self._known: dict[Hashable, None] = {}

    # --- keys --------------------------------------------------------------------------------

    def admit(self, key: Hashable, now: float) -> float | None:
        """Count a request of a key: None, or the seconds it is to wait."""
        return None if self._keys is None else self._keys.take(key, now)

    def enter(self, key: Hashable, waited: float = 0.0) -> bool:
        """Count a request of a key as being answered; False where too many of it are.

        ``waited`` as `Turns` tells it, in seconds. To be followed by `leave` where it is True.
        """
        inside = self._inside.get(key, 0)
        is_slow = waited > LONGEST_WAIT_SECONDS / 2
        if inside >= self.waiting_of_one or (is_slow and inside >= max(FEW, self._all_inside / 2)):
            return False
        self._inside[key] = inside + 1
        self._all_inside += 1
        return True

    def leave(self, key: Hashable) -> None:
        """A request that entered is answered."""
        self._all_inside -= 1
        inside = self._inside.get(key, 0) - 1
        if inside > 0:
            self._inside[key] = inside
        else:
            self._inside.pop(key, None)

    def is_known(self, key: Hashable) -> bool:
        """Whether the key was in force when it was looked up last."""
        return key in self._known

    def learn(self, key: Hashable, *, in_force: bool) -> None:
        """What the store said of a key."""
        if not in_force:
            self._known.pop(key, None)
        elif key not in self._known:
            if len(self._known) >= MOST_REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[key] = None

    # --- addresses ---------------------------------------------------------------------------

    def failed(self, address: str, now: float) -> bool:
        """Count a key that the store does not know; True where no further one is allowed."""
        if self._addresses is None:
            return False
        self._addresses.take(address, now)
        return self._addresses.wait(address, now) is not None

    def blocked(self, address: str, now: float) -> float | None:
        """Seconds until an address may try another key that is not known, None if now."""
        return None if self._addresses is None else self._addresses.wait(address, now)


def whole_seconds(wait: float) -> str:
    """What ``Retry-After`` says: whole seconds, one at least.

    >>> whole_seconds(0.0004), whole_seconds(2.1)
    ('1', '3')
    """
    return str(max(1, math.ceil(wait)))
