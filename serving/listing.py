"""The block and allow lists as people keep them: entries checked, put on, shown, and read from CSV.

What is wrong with an entry is said all at once, by field. An id is what the wire takes as one, so
that whoever can ask for a refund can be listed. Each entry that is put on a list or taken off it
leaves an audit entry in the same transaction, with the entity's pseudonym in what can be erased.
"""

from __future__ import annotations

import csv
import io
import ipaddress
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from features.events import ENTITIES, NORMALISE
from features.tables import LATEST_MS
from rules.condition import nearest
from serving.bodies import AddressPart
from serving.store.audit import AuditEntry
from serving.store.lists import ListEntry, ListName, NewEntry
from serving.store.store import Store
from serving.wire import Identifier, InvalidRequest, Problem, to_millis
from serving.wire import shown as shortened

MAX_REASON_CHARACTERS: Final = 300
COLUMNS: Final = ("entity", "id", "reason", "expires_at")
_NEEDED: Final = COLUMNS[:3]
_AT_ONCE: Final = 1_000
_PAUSE_SECONDS: Final = 0.05
_IDENTIFIER: Final[TypeAdapter[str]] = TypeAdapter(Identifier)


class Entry(NewEntry):
    """An entry that may be put on a list: its entity in the one spelling that requests are read in.

    >>> Entry.of("email", "Ann+x@Example.com", "ring of June", None, at=0).original
    'ann@example.com'
    >>> Entry.of("address", "1 High St. | AB1 2CD | gb", "drop address", None, at=0).original
    'addr_48afaecd23e88808349df992'
    >>> Entry.of("devise", "d1", " ", 5, at=10)
    Traceback (most recent call last):
    ...
    serving.wire.InvalidRequest: entity: must be one of customer, device, payment_method, address, \
ip, email (did you mean device?), got "devise"; reason: must be 1 to 300 characters, got " "; \
expires_at: must be later than now, got 5
    """

    __slots__ = ()

    @classmethod
    def of(cls, entity: str, original: str, reason: str, expires_at: int | None, at: int) -> Entry:
        """An entry as of ``at`` (epoch ms); raises `InvalidRequest`, a ValueError, if it is none.

        ``expires_at`` is the first instant at which it counts no more (epoch ms), None for never.
        """
        problems = []
        if entity not in ENTITIES:
            near = nearest(entity, ENTITIES)
            hint = f" (did you mean {near}?)" if near else ""
            message = f"must be one of {', '.join(ENTITIES)}{hint}"
            problems.append(Problem("entity", message, shortened(entity)))
        spelled = _spelled(entity, original)
        if spelled is None:
            problems.append(Problem("id", _ID_EXPECTED.get(entity, _AN_ID), shortened(original)))
        if not _fits(reason, MAX_REASON_CHARACTERS):
            message = f"must be 1 to {MAX_REASON_CHARACTERS} characters"
            problems.append(Problem("reason", message, shortened(reason)))
        if expires_at is not None and not at < expires_at < LATEST_MS:
            message = "must be later than now" if expires_at <= at else "must be before 2100"
            problems.append(Problem("expires_at", message, expires_at))
        if problems or spelled is None:
            raise InvalidRequest(problems)
        return cls(entity, spelled, reason.strip(), expires_at)


_AN_ID: Final = "must be 1 to 256 characters, not blank"
_LONGEST_EMAIL: Final = 256
_ID_EXPECTED: Final = {
    "address": "must be street | postal code | country, or the id that a data folder gives it",
    "email": "must be an e-mail address",
    "ip": "must be an IP address, or an IPv6 network of 64 bits",
}


def _fits(text: str, most: int) -> bool:
    return text.strip() != "" and len(text) <= most and text.isprintable()


def _spelled(entity: str, original: str) -> str | None:
    """The id as requests are read with it; None if no request could bear it."""
    try:
        given = _IDENTIFIER.validate_python(original)
    except ValidationError:
        return None
    if entity == "address":
        return _address(given)
    text = NORMALISE.get(entity, str)(given)
    if entity == "email" and ("@" not in text or len(text) > _LONGEST_EMAIL):
        return None
    if entity == "ip":
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            return None
        if network.prefixlen != (32 if network.version == 4 else 64):
            return None
    return text


def _address(text: str) -> str | None:
    """The id of an address that is written out, as a request that names it gets it; an id as is."""
    parts = [part.strip() for part in text.split("|")]
    if len(parts) == 1:  # a street alone would be on the list, and never be found again
        return None if re.search(r"\s", text) else text
    if len(parts) != 3:
        return None
    named = dict(zip(("street", "postalCode", "country"), parts, strict=True))
    return AddressPart.model_validate(named).address_id


# --- in the store ------------------------------------------------------------------------------


def put(
    store: Store, name: ListName, entries: Iterable[NewEntry], *, author: str, at: int,
    via: str | None = None,
) -> tuple[ListEntry, ...]:  # fmt: skip
    """Put entities on a list or renew their entries; they count from now on.

    In transactions of 1,000 entries, with a pause between them for those who decide meanwhile: a
    crash on the way leaves the first thousands on the list, each whole, and the same call again
    puts all. Of one entity the last entry counts. ``via`` is how the audit log names who asked,
    where that is more than the person: an API key, a login.

    Returns the entries as they now stand. Raises `ValueError`, before anything is put, for what is
    no entity.
    """
    last = {(entry.entity, entry.original): entry for entry in entries}
    if unknown := sorted({entity for entity, _ in last} - {*ENTITIES}):
        raise ValueError(f"entity: expected one of {', '.join(ENTITIES)}, got {unknown[0]!r}")
    every, done = list(last.values()), list[ListEntry]()
    for start in range(0, len(every), _AT_ONCE):
        if start:
            time.sleep(_PAUSE_SECONDS)
        with store.write() as tx:
            part = every[start : start + _AT_ONCE]
            put_now = tx.put_many_on_list(name, part, author=author, at=at)
            tx.audit_many(
                AuditEntry(at, via or author, "listed", f"list:{name}",
                           {"entity": entry.entity, "expires_at": entry.expires_at},
                           {"by": author, "reason": entry.reason, "value": entry.value})
                for entry in put_now
            )  # fmt: skip
        done += put_now
    return tuple(done)


def take_off(
    store: Store, name: ListName, entity: str, original: str, *, actor: str, at: int,
    via: str | None = None,
) -> bool:  # fmt: skip
    """Take an entity off a list; returns whether it was on it. Raises `InvalidRequest`."""
    gone = Entry.of(entity, original, "-", None, at)
    value = store.identifiers.mac(gone.entity, gone.original)
    return take_off_known(store, name, value, actor=actor, at=at, via=via)


def put_known(
    store: Store, name: ListName, entity: str, value: str, reason: str,
    expires_at: int | None = None, *, author: str, at: int, via: str | None = None,
) -> ListEntry:  # fmt: skip
    """As `put`, of one entity by its pseudonym, of which the original is never shown.

    Raises `InvalidRequest` for a bad reason or end, and where the original is not kept.
    """
    problems: list[Problem] = []
    try:
        Entry.of("customer", "-", reason, expires_at, at)
    except InvalidRequest as error:
        problems += error.problems
    original = store.reveal(entity, [value]).get(value)
    if original is None:
        problems.append(Problem("id", "must be of an entity whose original is kept: there is none, "
                                "or it was erased", shortened(value)))  # fmt: skip
    if problems or original is None:
        raise InvalidRequest(problems)
    new = NewEntry(entity, original, reason.strip(), expires_at)
    [entry] = put(store, name, [new], author=author, at=at, via=via)
    return entry


def take_off_known(
    store: Store, name: ListName, value: str, *, actor: str, at: int, via: str | None = None
) -> bool:
    """As `take_off`, of an entity by its pseudonym, though its original be erased."""
    with store.database.write() as connection:
        entity = store.lists.remove(connection, name, value)
        if entity is not None:
            store.audit_log.append(connection, AuditEntry(
                at, via or actor, "unlisted", f"list:{name}", {"entity": entity},
                {"by": actor, "value": value},
            ))  # fmt: skip
    return entity is not None


def shown(
    store: Store, name: ListName, *, entity: str | None = None, in_force_at: int | None = None,
    over_at: int | None = None, actor: str, at: int, via: str | None = None,
    limit: int | None = None, after: tuple[int, str] | None = None, why: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Entries with their original ids, the newest first; that they were revealed is audited.

    Arguments as `Store.list_entries` takes them, and ``why`` they are wanted. An erased id is None.
    """
    found = store.list_entries(
        name, entity=entity, in_force_at=in_force_at, over_at=over_at, limit=limit, after=after
    )
    originals: dict[str, str] = {}
    for kind in sorted({entry.entity for entry in found}):
        values = [entry.value for entry in found if entry.entity == kind]
        for start in range(0, len(values), _AT_ONCE):
            originals |= store.reveal(kind, values[start : start + _AT_ONCE])
    with store.write() as tx:
        personal = {"by": actor} if why is None else {"by": actor, "reason": why}
        tx.audit(via or actor, "revealed", f"list:{name}", {"entries": len(found)}, at=at,
                 personal=personal)  # fmt: skip
    return [
        {"entity": entry.entity, "id": originals.get(entry.value), "value": entry.value,
         "reason": entry.reason, "author": entry.author, "created_at": entry.created_at,
         "expires_at": entry.expires_at}
        for entry in found
    ]  # fmt: skip


# --- as CSV ------------------------------------------------------------------------------------

PSEUDONYMOUS: Final = ("entity", "pseudonym", "reason", "expires_at", "author", "created_at")


def originals_csv(entries: Iterable[Mapping[str, Any]]) -> bytes:
    r"""Entries as `shown` gives them, as CSV that `parse_csv` reads; those erased are left out.

    No cell is a formula to whoever opens it: see `inert`.

    >>> entry = {"entity": "device", "id": "=1+1", "reason": "ring", "expires_at": 0}
    >>> originals_csv([entry]).decode("utf-8-sig")
    "entity,id,reason,expires_at\r\ndevice,'=1+1,ring,1970-01-01T00:00:00+00:00\r\n"
    """
    there = (entry for entry in entries if entry["id"] is not None)
    return _csv(COLUMNS, ({**e, "expires_at": _iso(e["expires_at"])} for e in there))


def pseudonyms_csv(
    store: Store, name: ListName, entries: Iterable[ListEntry], *, actor: str, at: int,
    via: str | None = None,
) -> bytes:  # fmt: skip
    """Entries as CSV under their pseudonyms; that they were exported is audited."""
    rows = [
        {"entity": entry.entity, "pseudonym": entry.value, "reason": entry.reason,
         "expires_at": _iso(entry.expires_at), "author": entry.author or "",
         "created_at": _iso(entry.created_at)}
        for entry in entries
    ]  # fmt: skip
    with store.write() as tx:
        tx.audit(via or actor, "exported", f"list:{name}", {"entries": len(rows)}, at=at,
                 personal={"by": actor})  # fmt: skip
    return _csv(PSEUDONYMOUS, rows)


def inert(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: before what might be one is an apostrophe.

    Before an apostrophe, too, so that `parse_csv` takes back exactly those that were put there.

    >>> inert("=1+1"), inert("'a"), inert("a=1")
    ("'=1+1", "''a", 'a=1')
    """
    return f"'{cell}" if cell.startswith(_ACTS) else cell


def _read(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_ACTS) else cell


_ACTS: Final = ("=", "+", "-", "@", "\t", "\r", "'")


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows([inert(row[name]) for name in columns] for row in rows)
    return file.getvalue().encode("utf-8-sig")  # spreadsheets take it for UTF-8 by its mark


def _iso(at: int | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at / 1000, UTC).isoformat()


# --- from CSV ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BadLine:
    """What is wrong with one field of one line, counted from 1.

    >>> str(BadLine(3, Problem("id", "must be an e-mail address", "ann")))
    'line 3: id: must be an e-mail address, got "ann"'
    """

    line: int
    problem: Problem

    def __str__(self) -> str:
        return f"line {self.line}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a CSV file holds: entries, in its order, and every problem of every bad line."""

    entries: tuple[Entry, ...]
    problems: tuple[BadLine, ...]


def parse_csv(data: bytes, *, at: int) -> Parsed:
    r"""The entries in a CSV file, in UTF-8 with a header: entity, id, reason, perhaps expires_at.

    Columns in any order. Ids are taken as they stand, with the spaces around them, but for an
    apostrophe that `inert` put before what might be a formula. ``expires_at``
    is ISO 8601 (a date is its first instant, a time without a zone is UTC) or Unix time; empty for
    never. A line that says again what an earlier one said of the same entity is bad: which of the
    two was meant is not for a program to tell.

    >>> parsed = parse_csv(b"id,entity,reason\nd1,device,ring\nd2,gadget,ring\nd1,device,x\n", at=0)
    >>> [entry.original for entry in parsed.entries]
    ['d1']
    >>> [str(bad) for bad in parsed.problems][1]
    'line 4: id: must be another entity than that of line 2, got "d1"'
    """
    # What is no UTF-8 must fail in its own line only.
    text = data.decode("utf-8-sig", errors="surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines = _lines(reader)
    number, header = next(lines, (1, []))
    if isinstance(header, BadLine):
        return Parsed((), (header,))
    columns = [name.strip().lower() for name in header]
    if problems := list(_header_problems(columns)):
        return Parsed((), tuple(BadLine(number, problem) for problem in problems))
    entries: dict[tuple[str, str], tuple[int, Entry]] = {}
    bad: list[BadLine] = []
    for number, cells in lines:
        if isinstance(cells, BadLine):
            bad.append(cells)
            continue
        try:
            entry = _entry(columns, cells, at)
            key = entry.entity, entry.original
            if key in entries:
                message = f"must be another entity than that of line {entries[key][0]}"
                raise InvalidRequest([Problem("id", message, shortened(entry.original))])
            entries[key] = number, entry
        except InvalidRequest as error:
            bad += (BadLine(number, problem) for problem in error.problems)
    return Parsed(tuple(entry for _, entry in entries.values()), tuple(bad))


def _lines(reader: Any) -> Iterator[tuple[int, list[str] | BadLine]]:
    """Each record with the line that it begins in; those that are no CSV as what is wrong."""
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, BadLine(number, Problem("line", f"must be CSV: {error}"))
            continue
        if cells:
            yield number, cells


def _header_problems(columns: Sequence[str]) -> Iterator[Problem]:
    for name in _NEEDED:
        if name not in columns:
            yield Problem(name, f"is required: the first line names {', '.join(COLUMNS)}")
    for name in columns:
        if name not in COLUMNS:
            near = nearest(name, COLUMNS)
            hint = f" (did you mean {near}?)" if near else ""
            message = f"must be one of {', '.join(COLUMNS)}{hint}"
            yield Problem("header", message, _utf8(shortened(name)))
    for name in sorted({name for name in columns if columns.count(name) > 1}):
        yield Problem("header", "must name each column once", _utf8(name))


def _entry(columns: Sequence[str], cells: Sequence[str], at: int) -> Entry:
    if len(cells) != len(columns):
        message = f"must have {len(columns)} fields, as the first line has"
        raise InvalidRequest([Problem("line", message, len(cells))])
    if wrong := [name for name, cell in zip(columns, cells, strict=True) if cell != _utf8(cell)]:
        raise InvalidRequest([Problem(name, "must be UTF-8") for name in wrong])
    # An id with a space at its end is another customer's.
    row = {name: _read(cell) if name == "id" else _read(cell).strip()
           for name, cell in zip(columns, cells, strict=True)}  # fmt: skip
    return entry_of(row["entity"].lower(), row["id"], row["reason"], row.get("expires_at", ""), at)


def entry_of(entity: str, original: str, reason: str, expires_at: str, at: int) -> Entry:
    """An entry as somebody types it, ``expires_at`` as `parse_csv` has it; raises `InvalidRequest`.

    >>> entry_of("device", "d1", "ring", "2026-12-31", at=0).expires_at
    1798675200000
    """
    problems: list[Problem] = []
    until = None
    try:
        until = _instant(expires_at)
    except (ValueError, OverflowError):
        message = "must be ISO 8601, as in 2026-12-31T00:00:00Z, or Unix time"
        problems.append(Problem("expires_at", message, shortened(expires_at)))
    try:
        entry = Entry.of(entity, original, reason, until, at)
    except InvalidRequest as error:
        problems += (replace(one, value=shortened(expires_at)) if one.field == "expires_at" else one
                     for one in error.problems)  # fmt: skip
    if problems:
        raise InvalidRequest(problems)
    return entry


def _instant(text: str) -> int | None:
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return to_millis(int(text))
    moment = datetime.fromisoformat(text)
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(zoned.timestamp() * 1000)


def _utf8(text: str) -> str:
    return text.encode(errors="replace").decode()
