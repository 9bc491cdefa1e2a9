"""What the chain of seals vouches for: every entry that was altered, removed or inserted, by name.

The log is read in parts beside those who write to it; a million entries take about ten seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import orjson

from serving.heads import Head
from serving.store.audit import KeptEntry
from serving.store.database import Database
from serving.store.seals import GENESIS, Sealed, SealKeys, Seals
from serving.store.store import Store

PART: Final = 10_000
_LOWEST: Final = -(2**63)
_ERASING: Final = ("customer_erased", "retention_applied")

Problem: TypeAlias = Literal[
    "altered", "personal_altered", "removed", "inserted", "seal_altered", "seal_removed", "cut_off",
    "head_differs", "no_head", "erased_unrecorded",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; of an entry that is gone only the ``seq`` is known."""

    problem: Problem
    message: str
    position: int | None = None
    seq: int | None = None
    at: int | None = None
    action: str | None = None
    subject: str | None = None

    def __str__(self) -> str:
        entry = "" if self.seq is None else f"entry {self.seq}"
        known = "" if self.action is None else f" ({self.action} {self.subject})"
        return f"{entry}{known}: {self.message}" if entry else self.message


@dataclass(frozen=True, slots=True)
class Vouched:
    """What was looked at: of ``findings`` there are none where all is well.

    ``head`` is the last exported one that the chain has; what was sealed after it,
    ``sealed_since``, and what is not sealed yet, ``unsealed``, could be cut off unseen.
    """

    sealed: int
    erased: int
    head: Head | None
    sealed_since: int
    unsealed: int
    unsealed_since: int | None
    findings: int

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def vouch(
    store: Store, secret: bytes, heads: Sequence[Head], found: Callable[[Finding], None], *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Vouched:  # fmt: skip
    """Check the whole log against its seals, and these against the exported heads.

    ``found`` is told each finding as it is found, ``progress`` how many seals of how many are
    checked. Nothing is written. Raises `serving.store.seals.KeyLostError`.
    """
    with _as_it_stands(store.database):
        return _vouch(store, secret, heads, found, progress)


def _vouch(
    store: Store, secret: bytes, heads: Sequence[Head], found: Callable[[Finding], None],
    progress: Callable[[int, int], None],
) -> Vouched:  # fmt: skip
    seals, log = Seals(store.database), store.audit_log
    with store.database.read() as connection:
        keys, end = SealKeys.kept(connection, secret), seals.last(connection).position
    walk = _Walk(keys, heads, found)
    for part in _parts_of_chain(store, seals):
        for sealed in part:
            walk.step(sealed)
        progress(min(walk.position, end), end)
    walk.end()
    last = max([*walk.seqs, *(head.seq for head in heads)], default=0)
    sealed_seqs = np.unique(np.array(walk.seqs, np.int64))
    for seqs in _parts_of_log(store, last):
        there = np.array(seqs, np.int64)
        for entry in _these(
            store, there[~np.isin(there, sealed_seqs, assume_unique=True)].tolist()
        ):
            told = "was inserted, or its seal was removed: no seal is about it"
            walk.found(_named("inserted", told, entry))
    with store.database.read() as connection:
        unsealed, unsealed_since = log.count_after(connection, last)
    recorded = walk.recorded + sum(map(_erased_by, _tail(store, last)))
    if walk.erased > recorded:
        told = (f"what is personal is gone from {walk.erased:,} entries, but erasures and "
                f"retention account for {recorded:,} of them")  # fmt: skip
        walk.found(Finding("erased_unrecorded", told))
    return Vouched(
        sealed=len(walk.seqs), erased=walk.erased, head=walk.head,
        sealed_since=walk.position - (walk.head.position if walk.head else 0),
        unsealed=unsealed, unsealed_since=unsealed_since, findings=walk.findings,
    )  # fmt: skip


@contextmanager
def _as_it_stands(database: Database) -> Iterator[None]:
    """On SQLite text that is none comes as its bytes, so that it is found, not stumbled over."""
    if not database.is_sqlite:
        yield
        return
    with database.read() as connection:
        raw: Any = connection.connection.dbapi_connection
        raw.text_factory = _text
        try:
            yield
        finally:
            raw.text_factory = str


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _parts_of_chain(store: Store, seals: Seals) -> Iterator[list[Sealed]]:
    position = _LOWEST
    while True:
        with store.database.read() as connection:
            part = seals.after(connection, position, PART)
        if not part:
            return
        yield part
        position = part[-1].seal.position


def _parts_of_log(store: Store, until: int) -> Iterator[list[int]]:
    seq = _LOWEST
    while True:
        with store.database.read() as connection:
            part = store.audit_log.seqs_after(connection, seq, until, PART)
        if not part:
            return
        yield part
        seq = part[-1]


def _these(store: Store, seqs: Sequence[int]) -> Iterator[KeptEntry]:
    for start in range(0, len(seqs), 500):
        with store.database.read() as connection:
            yield from store.audit_log.these(connection, seqs[start : start + 500])


def _tail(store: Store, seq: int) -> Iterator[KeptEntry]:
    """What is not sealed yet: also what erased while this was looked at."""
    while True:
        with store.database.read() as connection:
            part = store.audit_log.after(connection, seq, limit=PART)
        if not part:
            return
        yield from part
        seq = part[-1].seq


def _erased_by(entry: KeptEntry) -> int:
    """From how many entries an act took what was personal, as it says itself."""
    if entry.action not in _ERASING:
        return 0
    try:
        erased = orjson.loads(entry.content)["rows"].get("audit_log", 0)
    except (AttributeError, KeyError, TypeError, ValueError):  # altered, and found to be so
        return 0
    return erased if isinstance(erased, int) else 0


class _Walk:
    """Along the chain, seal by seal.

    Where a seal does not follow, its entry was altered if the next seal follows from this one as
    it stands, and the seal itself if the next follows from what it should be.
    """

    def __init__(
        self, keys: SealKeys, heads: Sequence[Head], found: Callable[[Finding], None]
    ) -> None:
        self._keys, self._found = keys, found
        self._heads: dict[int, list[Head]] = {}
        for head in heads:
            self._heads.setdefault(head.position, []).append(head)
        self._unfit: list[Head] = []
        # What the seal before may have been, the likelier first; none where that is unknown.
        self._before: list[bytes] = [GENESIS]
        self._doubtful: tuple[int, KeptEntry] | None = None
        self._entry: KeptEntry | None = None
        self.position = 0
        self.seqs: list[int] = []
        self.erased = self.recorded = self.findings = 0
        self.head: Head | None = None

    def found(self, finding: Finding) -> None:
        """Tell of a finding."""
        self.findings += 1
        self._found(finding)

    def step(self, sealed: Sealed) -> None:
        """Check the next seal and its entry."""
        (position, seq, mac), entry = sealed
        if position != self.position + 1:
            self._gap(position)
        self.position = position
        if not isinstance(mac, bytes):  # whatever it is, nothing follows from it
            mac = b""
        if not isinstance(seq, int):
            self._settle(None)
            told = f"the seal at position {position:,} was altered: it names no entry, but {seq!r}"
            self.found(Finding("seal_altered", told, position))
            self._before = [mac]
            return
        self.seqs.append(seq)
        self._look_at_head(position, seq, mac)
        if entry is None:
            self._settle(None)
            told = "was removed: its seal is there"
            if self._entry is not None:
                told = f"{told}, after entry {self._entry.seq} of {_time(self._entry.at)}"
            self.found(Finding("removed", told, position, seq))
            self._before = [mac]
            return
        self._entry = entry
        if not entry.keeps_its_word:
            self._name("personal_altered", "what is personal in it is not what was committed to",
                       position, entry)  # fmt: skip
        self.erased += entry.is_erased
        self.recorded += _erased_by(entry)
        expected = [self._keys.seal(before, position, entry) for before in self._before]
        follows = expected.index(mac) if mac in expected else None
        self._settle(follows)
        self._before = [mac]
        if follows is None and expected:
            self._doubtful = position, entry
            self._before = [mac, expected[0]]

    def end(self) -> None:
        """Say what is left to be said after the last seal."""
        exported = [head.mac for head in self._heads.get(self.position, ())]
        macs = [before.hex() for before in self._before]  # as it is, and as it should be
        self._settle(next((n for n, mac in enumerate(macs) if mac in exported), None))
        furthest = max(self._heads, default=0)
        if furthest > self.position:
            head = self._heads[furthest][-1]
            self.found(
                Finding(
                    "cut_off",
                    f"the chain ends at position {self.position:,}, but at {_time(head.at)} it had "
                    f"come to position {head.position:,}, entry {head.seq:,}: its end was cut off, "
                    "or the database was put back to an older state",
                    head.position,
                )
            )
        for head in self._unfit[:1]:
            more = f", as are {len(self._unfit) - 1} later ones" if self._unfit[1:] else ""
            self.found(
                Finding(
                    "head_differs",
                    f"the seal at position {head.position:,} is not the one exported at "
                    f"{_time(head.at)}{more}: the chain was written anew, or the database was put "
                    "back to an older state and went on from there",
                    head.position,
                )
            )
        if self.position and not self._heads:
            told = "no head was exported: whether the end was cut off cannot be told"
            self.found(Finding("no_head", told))

    def _gap(self, position: int) -> None:
        self._settle(None)
        first = self.position + 1
        gone = f"{first:,}" if position == first + 1 else f"{first:,} to {position - 1:,}"
        self.found(
            Finding(
                "seal_removed",
                f"the seals at position {gone} were removed, so that nothing vouches for the entry "
                f"at position {position:,}"
                if position > first
                else f"the seal at position {position:,} was inserted",
                position,
            )
        )
        self._before = []

    def _look_at_head(self, position: int, seq: int, mac: bytes) -> None:
        for head in self._heads.get(position, ()):
            if (head.seq, head.mac) == (seq, mac.hex()):
                self.head = head
            else:
                self._unfit.append(head)

    def _settle(self, follows: int | None) -> None:
        """Name what did not follow, now that it is known what follows from it."""
        if self._doubtful is None:
            return
        position, entry = self._doubtful
        self._doubtful = None
        if follows == 0:
            self._name("altered", "was altered", position, entry)
        elif follows == 1:
            self._name("seal_altered", "its seal was altered", position, entry)
        else:
            self._name("altered", "was altered, or its seal", position, entry)

    def _name(self, problem: Problem, message: str, position: int, entry: KeptEntry) -> None:
        self.found(_named(problem, message, entry, position))


def _named(
    problem: Problem, message: str, entry: KeptEntry, position: int | None = None
) -> Finding:  # fmt: skip
    """A finding about an entry that is there."""
    at = entry.at if isinstance(entry.at, int) else None
    action, subject = (v if isinstance(v, str) else repr(v) for v in (entry.action, entry.subject))
    return Finding(problem, message, position, entry.seq, at, action, subject)


def _time(at: Any) -> str:
    if not isinstance(at, int):  # SQLite lets anything stand there
        return repr(at)
    return np.datetime_as_string(np.datetime64(at, "ms"), unit="s") + "Z"
