"""The head of a sealed audit log, kept in a file outside of its database.

A chain alone cannot tell that its end was cut off, or that the whole database was put back to an
older state: the file remembers how far it had come. One JSON object a line, the newest last.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson

MOST_LINES: Final = 1_000
"""A file with more is written anew with the last line of each day."""

_DAY_MS: Final = 86_400_000
_END: Final = 2**63


@dataclass(frozen=True, slots=True)
class Head:
    """How far a chain had come at an instant (epoch ms): ``position`` entries were sealed.

    ``seq`` is the last one's, ``mac`` its seal in hexadecimal.
    """

    at: int
    position: int
    seq: int
    mac: str


class HeadFile:
    """The file of one chain's heads; may be moved away at any time, and is then made anew.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = HeadFile(Path(folder) / "head.jsonl")
    ...     file.append(Head(at=1, position=2, seq=2, mac="ab"))
    ...     file.read()
    [Head(at=1, position=2, seq=2, mac='ab')]
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Head]:
        """Every head, the newest last, empty where there is no file.

        A line that is none, as a crash in the midst of writing leaves it, is left out.
        """
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [head for head in map(_head, lines) if head is not None]

    def append(self, head: Head) -> None:
        """Add a head and wait until the disk has it."""
        line = orjson.dumps(asdict(head)) + b"\n"
        is_new = not self.path.exists()
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        with os.fdopen(handle, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":  # a crash cut the last line off
                    line = b"\n" + line
            file.write(line)
            os.fsync(file.fileno())
        if is_new:
            _sync(self.path.parent)

    def compact(self, fits: Callable[[Head], bool]) -> bool:
        """Where there are many lines, keep the last of each day, and every one that does not fit.

        ``fits`` says whether the chain has that seal: what it has not is evidence. Returns whether
        the file was written anew, which is done at once or not at all.
        """
        heads = self.read()
        if len(heads) <= MOST_LINES:
            return False
        last_of = {head.at // _DAY_MS: head for head in heads}
        kept = [h for h in heads if last_of[h.at // _DAY_MS] is h or not fits(h)]
        staged = self.path.with_suffix(".new")
        with staged.open("wb") as file:
            file.writelines(orjson.dumps(asdict(head)) + b"\n" for head in kept)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(self.path)
        _sync(self.path.parent)
        return True


def _head(line: bytes) -> Head | None:
    try:
        head = Head(**orjson.loads(line))
        bytes.fromhex(head.mac)
    except (ValueError, TypeError):
        return None
    numbers = (head.at, head.position, head.seq)
    is_one = all(type(n) is int and 0 <= n < _END for n in numbers) and head.position > 0
    return head if is_one else None


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
