"""Packed: an event as the few numbers that features read of it, in a fixed number of bytes.

The store keeps an event once as a document and, for each key that holds it, packed: a decision then
reads its slices of history as bytes that become arrays in one stroke, without a document parsed.

Every packed event begins with two instants in epoch ms: ``at``, from which it counts in the
holder's history, and ``known_at``, its own. The columns of its stream follow and, where features
may look at them, its own keys. Identifiers stand as 63-bit hashes: two of the few thousand that
share a slice are equal by chance once in 10^12 slices. Money is in its own currency: rates are
applied when it is read.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from features.attribution import CASE, CODES, PLACE, STREAM_COLUMNS, STREAM_KEYS
from features.events import COLUMN_OF, due_minor

UNKNOWN: Final = -1
"""What stands for a value that is not known: times, amounts, counts, codes and hashes are 0 up."""


def _layout(event_type: str) -> np.dtype[np.void]:
    fields = [("at", "<i8"), ("known_at", "<i8")]
    columns = STREAM_COLUMNS[event_type]
    for column, (_, how) in columns.items():
        fields.append((column, "<i2" if column == "currency" else "i1" if how == "code" else "<i8"))
    if "currency" not in columns and any(how in ("base", "paid") for _, how in columns.values()):
        fields.append(("currency", "<i2"))
    if event_type in ("order", "refund_request"):
        fields += [(key, "<i8") for key in STREAM_KEYS[event_type]]
    fields.sort(key=lambda field: _WIDTH[field[1]], reverse=True)
    names, formats = zip(*fields, strict=True)
    offsets = list(itertools.accumulate((_WIDTH[kind] for kind in formats), initial=0))
    size = -(-offsets.pop() // 8) * 8
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


_WIDTH: Final = {"<i8": 8, "<i2": 2, "i1": 1}


LAYOUT: Final[Mapping[str, np.dtype[np.void]]] = {kind: _layout(kind) for kind in STREAM_COLUMNS}
"""How an event of each type is packed: little-endian, the widest fields first, so that those of 8
bytes are read as a whole; `UNKNOWN` is -1."""

_TAKEN: Final = 1
"""Rises when an event is packed otherwise though the layout stays: another hash, another rule."""

LAYOUT_HASH: Final = hashlib.sha256(
    repr([
        _TAKEN,
        [(kind, str(layout), STREAM_COLUMNS[kind]) for kind, layout in LAYOUT.items()],
        sorted(CODES.items()),
    ]).encode()
).hexdigest()  # fmt: skip
"""Changes whenever a packed event would be read differently: the store then packs anew."""


def id63(value: str) -> int:
    """A 63-bit hash of an identifier.

    >>> id63("c1") == id63("c1"), id63("c1") == id63("c2"), id63("c1") >= 0
    (True, False, True)
    """
    digest = hashlib.blake2b(value.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


# --- what each field takes from an event and from the refund it names ------------------------

Content: TypeAlias = Mapping[str, Any]
Take: TypeAlias = Callable[[Content, Content], int]


def _number(column: str) -> Take:
    def take(event: Content, named: Content) -> int:
        value: int | None = event.get(column)
        return UNKNOWN if value is None else value

    return take


def _code(column: str, vocabulary: str, *, of_named: bool = False) -> Take:
    places, outside = PLACE[vocabulary], len(CODES[vocabulary])

    def take(event: Content, named: Content) -> int:
        value = (named if of_named else event).get(column)
        return UNKNOWN if value is None else places.get(value, outside)

    return take


def _identity(column: str) -> Take:
    def take(event: Content, named: Content) -> int:
        value = event.get(column)
        return UNKNOWN if value is None else id63(value)

    return take


def _case(event: Content, named: Content) -> int:
    """The refund an event names, else the order, else the customer: never equal across kinds."""
    for kind in CASE:
        value = event.get(COLUMN_OF[kind])
        if value is not None:
            return id63(f"{kind}|{value}")
    return UNKNOWN


def _paid(event: Content, named: Content) -> int:
    """What an outcome says was paid, else what the refund asked for less what policy keeps.

    A verdict says no amount: it is about what the refund would be paid. All are in the refund's
    currency, so nothing is known of them before the refund is.
    """
    if not named:
        return UNKNOWN
    said = event.get("amount_minor")
    if said is not None:
        return int(said)
    return due_minor(named["amount_minor"], named.get("non_refundable_minor"))


def _take(event_type: str, field: str) -> Take:
    columns = STREAM_COLUMNS[event_type]
    origin, how = columns.get(field, ("", ""))
    if field in ("at", "known_at") or how in ("number", "base"):
        return _number(origin or field)
    if field == "currency":
        of_named = any(how == "paid" for _, how in columns.values())
        return _code("currency", "currency", of_named=of_named)
    if how == "code":
        return _code(origin, field)
    if how in ("case", "paid"):
        return _case if how == "case" else _paid
    return _identity(origin or COLUMN_OF[field])


_TYPE_CODES: Final = {"<i8": "q", "<i2": "h", "i1": "b"}


def _struct(layout: np.dtype[np.void]) -> struct.Struct:
    names = layout.names or ()
    kinds = [str(layout[name].str).lstrip("|") for name in names]
    filled = sum(_WIDTH[kind] for kind in kinds)
    codes = "".join(_TYPE_CODES[kind] for kind in kinds)
    return struct.Struct(f"<{codes}{layout.itemsize - filled}x")


# Per event type: its bytes, and what takes each field but the first, ``at``.
_PACKING: Final[Mapping[str, tuple[struct.Struct, tuple[Take, ...]]]] = {
    event_type: (
        _struct(layout),
        tuple(_take(event_type, field) for field in (layout.names or ())[1:]),
    )
    for event_type, layout in LAYOUT.items()
}


def pack(event_type: str, event: Content, at: int, named: Content | None = None) -> bytes:
    """An event that counts from ``at`` on in its holder's history, as `LAYOUT` says.

    ``event`` has the columns of its table, ``None`` or absent where nothing is given; ``named`` is
    the first version of the refund it names, where that is known.

    >>> data = pack("return", {"known_at": 5, "refund_id": "r1", "status": "LOST"}, at=7)
    >>> row = np.frombuffer(data, LAYOUT["return"])[0]
    >>> int(row["at"]), int(row["known_at"]), CODES["return_status"][row["return_status"]]
    (7, 5, 'LOST')
    """
    layout, takes = _PACKING[event_type]
    refund = named or {}
    return layout.pack(at, *[take(event, refund) for take in takes])
