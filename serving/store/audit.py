"""The audit log: who did what to what, appended in the transaction of what it records.

Entries are sealed into a chain afterwards (`serving.store.seals`), and stay as they are for ever.
What is personal in one stands beside it, and only its commitment is sealed: erasing it leaves the
entry, and the chain, whole.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, Row, bindparam, func, or_, select, update

from serving.store.database import Database
from serving.store.holdings import in_parts
from serving.store.schema import audit_log

_COLUMNS: Final = ("at", "actor", "action", "subject", "content")
_PERSONAL: Final = (*_COLUMNS, "commitment", "personal")
_KEPT: Final = ("seq", *_PERSONAL)
_SALT_BYTES: Final = 16
_AT_ONCE: Final = 500
_IN_ONE_TEXT: Final = 40


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry, at an instant in epoch ms.

    ``subject`` and ``content`` must hold no identifier, pseudonym or name of a person, and no free
    text: those go into ``personal``, which can be erased. None there is nothing personal, or what
    was erased.
    """

    at: int
    actor: str
    action: str
    subject: str
    content: Mapping[str, Any]
    personal: Mapping[str, Any] | None = None


NAMING: Final = ("customer", "list:allow", "list:block")
"""The subjects of entries whose ``personal`` may hold a pseudonym."""


class KeptEntry(NamedTuple):
    """An entry as its row has it, texts unparsed: what the chain of seals is about.

    ``commitment`` is the SHA-256 of the text of ``personal``, salt included, in hexadecimal; None
    where there was nothing personal. Of what was erased the commitment stays.
    """

    seq: int
    at: int
    actor: str
    action: str
    subject: str
    content: str
    commitment: str | None
    personal: str | None

    @property
    def is_erased(self) -> bool:
        """Whether what was personal in it is gone."""
        return self.commitment is not None and self.personal is None

    @property
    def keeps_its_word(self) -> bool:
        """Whether what is personal in it is what was committed to, or was erased."""
        if self.personal is None:
            return True
        texts = isinstance(self.personal, str) and isinstance(self.commitment, str)
        return texts and commitment_of(self.personal) == self.commitment

    def sealed_bytes(self) -> bytes:
        """What a seal vouches for: all but ``personal``, in one unambiguous form.

        SQLite lets anything stand in a column: bytes where text belongs have a form, too.

        >>> KeptEntry(7, 5, "key:k", "decided", "refund:r", '{"a":1}', None, None).sealed_bytes()
        b'[7,5,"key:k","decided","refund:r","{\\\\"a\\\\":1}",null]'
        """
        return orjson.dumps(self[:-1], default=lambda raw: {"bytes": raw.hex()})

    def entry(self) -> AuditEntry:
        """The entry, parsed."""
        personal = None if self.personal is None else orjson.loads(self.personal)["personal"]
        content = orjson.loads(self.content)
        return AuditEntry(self.at, self.actor, self.action, self.subject, content, personal)


def commitment_of(personal: str) -> str:
    """The commitment to the text of a row's ``personal``.

    The salt of 128 bits in the text keeps anybody from guessing what was erased.

    >>> commitment_of('{"salt":"00","personal":{"by":"Ann"}}')[:16]
    'f91340673cde6b03'
    """
    return hashlib.sha256(personal.encode()).hexdigest()


LOOKED_THROUGH: Final = 500_000
"""So many entries are looked through at a time for those of an actor, an action or a period."""


class Wanted(NamedTuple):
    """Which entries are looked for; None is any.

    ``actors`` are what may stand as the actor, of which the first may be a person's name, too, and
    then stand as who acted by a key or at a command line. Of ``since <= at < until`` (epoch ms).
    """

    actors: tuple[str, ...] = ()
    action: str | None = None
    subject: str | None = None
    since: int | None = None
    until: int | None = None


class Found(NamedTuple):
    """Entries that were looked for; below the seq ``before`` there may be more, None: no more.

    ``is_full`` says that there are, else that so many were looked through.
    """

    entries: list[KeptEntry]
    before: int | None
    is_full: bool


class AuditLog:
    """The audit log of one database. Holds no state of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, connection: Connection, entry: AuditEntry) -> None:
        """Add an entry."""
        self.append_many(connection, [entry])

    def append_many(self, connection: Connection, entries: Iterable[AuditEntry]) -> None:
        """Add entries, in this order."""
        rows: list[tuple[Any, ...]] = []
        with_personal = False
        for e in entries:
            commitment, personal = _committed(e.personal)
            with_personal = with_personal or personal is not None
            content = orjson.dumps(e.content).decode()
            rows.append((e.at, e.actor, e.action, e.subject, content, commitment, personal))
        if with_personal:
            statement = self._database.inserting(audit_log, _PERSONAL)
        else:  # decisions and reports, which there are most of
            statement = self._database.inserting(audit_log, _COLUMNS)
            rows = [row[: len(_COLUMNS)] for row in rows]
        self._database.run_many(connection, statement, rows)

    def about(self, connection: Connection, subject: str) -> list[AuditEntry]:
        """The entries about one subject, oldest first."""
        statement = _select().where(audit_log.c.subject == subject).order_by(audit_log.c.seq)
        return [_kept(row).entry() for row in connection.execute(statement)]

    def latest(
        self, connection: Connection, *, subject: str | None = None, since: int | None = None,
        limit: int = 100,
    ) -> list[KeptEntry]:  # fmt: skip
        """The last ``limit`` entries, the newest first: about one subject, of ``at >= since``."""
        statement = _select().order_by(audit_log.c.seq.desc()).limit(limit)
        if subject is not None:
            statement = statement.where(audit_log.c.subject == subject)
        if since is not None:
            statement = statement.where(audit_log.c.at >= since)
        return [_kept(row) for row in connection.execute(statement)]

    def search(
        self, connection: Connection, wanted: Wanted, *, before: int | None = None, limit: int = 50
    ) -> Found:
        """The last ``limit`` entries of those wanted, the newest first, below the seq ``before``.

        But for one subject no index helps: the latest `LOOKED_THROUGH` entries are looked through,
        and where to go on is told, so that it takes no longer for a longer log.
        """
        last = self.last_seq(connection) + 1 if before is None else before
        least = 0 if wanted.subject is not None else max(last - LOOKED_THROUGH, 0)
        c, holds = audit_log.c, func.instr if self._database.is_sqlite else func.strpos
        which = [c.seq < last, c.seq >= least]
        if wanted.subject is not None:
            which.append(c.subject == wanted.subject)
        if wanted.action is not None:
            which.append(c.action == wanted.action)
        if wanted.actors:
            named = orjson.dumps({"by": wanted.actors[0]}).decode()[1:-1]
            which.append(c.actor.in_(wanted.actors) | (holds(c.personal, named) > 0))
        if wanted.since is not None:
            which.append(c.at >= wanted.since)
        if wanted.until is not None:
            which.append(c.at < wanted.until)
        statement = _select().where(*which).order_by(c.seq.desc()).limit(limit + 1)
        entries = [_kept(row) for row in connection.execute(statement)]
        if len(entries) > limit:
            return Found(entries[:limit], entries[limit - 1].seq, is_full=True)
        return Found(entries, least if least > 1 else None, is_full=False)

    def after(
        self, connection: Connection, seq: int, until: int | None = None, limit: int = _AT_ONCE
    ) -> list[KeptEntry]:
        """The first ``limit`` entries above a seq, up to and with ``until``, in order of seq."""
        prepared = self._database.prepared(
            "audit_after",
            lambda: (
                _select()
                .where(audit_log.c.seq > bindparam("seq"), audit_log.c.seq <= bindparam("until"))
                .order_by(audit_log.c.seq)
                .limit(bindparam("most"))
            ),
        )
        last = 2**63 - 1 if until is None else until
        values = {"seq": seq, "until": last, "most": limit}
        rows = self._database.run(connection, prepared, prepared.bind(values))
        return [KeptEntry._make(row) for row in rows]

    def seqs_after(self, connection: Connection, seq: int, until: int, limit: int) -> list[int]:
        """As `after`, the seqs alone."""
        statement = (
            select(audit_log.c.seq)
            .where(audit_log.c.seq > seq, audit_log.c.seq <= until)
            .order_by(audit_log.c.seq)
            .limit(limit)
        )
        return list(connection.execute(statement).scalars())

    def count_after(self, connection: Connection, seq: int) -> tuple[int, int | None]:
        """How many entries there are above a seq, and the time of the first of them (ms)."""
        statement = select(func.count(), func.min(audit_log.c.at)).where(audit_log.c.seq > seq)
        count, oldest = connection.execute(statement).one()
        return count, oldest

    def these(self, connection: Connection, seqs: Collection[int]) -> Iterator[KeptEntry]:
        """The entries of these seqs that there are."""
        statement = _select().where(audit_log.c.seq.in_(list(seqs))).order_by(audit_log.c.seq)
        for row in connection.execute(statement):
            yield _kept(row)

    def last_seq(self, connection: Connection) -> int:
        """The highest seq, 0 for an empty log."""
        return connection.execute(select(func.max(audit_log.c.seq))).scalar() or 0

    def erase_before(self, connection: Connection, before: int) -> int:
        """Erase for good what is personal in entries of ``at < before``; returns in how many.

        The entries stay, and the chain of seals stays valid.
        """
        return self._erase(connection, audit_log.c.at < before)

    def erase_naming(self, connection: Connection, pseudonyms: Collection[str]) -> int:
        """As `erase_before`, of entries that hold one of these pseudonyms."""
        holds, every = func.instr if self._database.is_sqlite else func.strpos, sorted(pseudonyms)
        return sum(
            self._erase(
                connection,
                audit_log.c.subject.in_(NAMING)
                & or_(*(holds(audit_log.c.personal, one) > 0 for one in part)),
            )
            for part in in_parts(every, _IN_ONE_TEXT)
        )

    def erase_about(self, connection: Connection, subjects: Sequence[str]) -> int:
        """As `erase_before`, of entries about these subjects."""
        return sum(
            self._erase(connection, audit_log.c.subject.in_(part)) for part in in_parts(subjects)
        )

    def _erase(self, connection: Connection, which: ColumnElement[bool]) -> int:
        is_it = audit_log.c.personal.is_not(None) & which
        return connection.execute(update(audit_log).where(is_it).values(personal=None)).rowcount


def _committed(personal: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """The commitment and the text of what is personal; nothing where every value is None."""
    if personal is None or all(value is None for value in personal.values()):
        return None, None
    salted = {"salt": secrets.token_hex(_SALT_BYTES), "personal": personal}
    text = orjson.dumps(salted).decode()
    return commitment_of(text), text


def _select() -> Any:
    return select(*(audit_log.c[name] for name in _KEPT))


def _kept(row: Row[Any]) -> KeptEntry:
    return KeptEntry._make(row)
