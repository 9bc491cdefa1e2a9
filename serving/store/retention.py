"""What has been kept long enough goes: in small transactions, and nothing that a window may read.

Events go with all that belongs together: an order, its refunds and whatever names them, once the
last of it is old enough, so that nothing loses what it inherits from. Their refunds, reservations
and reviews go with them, and ciphertexts of identifiers that nothing bears any more. When an
entity was first seen stays: features know it for life.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Table, and_, bindparam, delete, exists, func, select, tuple_

from features.money import DAY_MS
from serving.store.audit import AuditEntry
from serving.store.holdings import in_parts, slices_of
from serving.store.indexing import NAMING_COLUMN, KeyRow, Name, StoredEvent, rows_of
from serving.store.schema import (
    attachments,
    audit_log,
    decisions,
    event_keys,
    events,
    idempotency_keys,
    identifiers,
    lists,
    meta,
    refunds,
    reservations,
    review_acts,
    review_approvals,
    reviews,
)
from serving.store.store import Store

LONGEST_WINDOW_DAYS: Final = 365
"""No event goes sooner: a feature may read it."""

SEVERAL: Final = 500
"""How many rows go in one transaction, of events about so many."""

_LOOKED_AT: Final = 200_000
"""How many events one pass looks at; the next pass goes on from there."""

_AUDIT_LOG: Final = "audit_log"
_CURSOR: Final = "retention_seq"
_PAUSE_SECONDS: Final = 0.02


@dataclass(frozen=True)
class Keep:
    """How many days each table is kept; None: for ever.

    ``decisions`` is of reviews that ended, too, and of what people did and attached there.
    ``audit`` is of what is personal in audit entries: the entries stay. ``lists`` counts from when
    an entry expired.
    """

    events: int | None = None
    decisions: int | None = None
    idempotency: int | None = 2
    audit: int | None = None
    lists: int | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for what features still read."""
        if self.events is not None and self.events < LONGEST_WINDOW_DAYS:
            raise ValueError(
                f"retention of events: expected at least {LONGEST_WINDOW_DAYS} days, which the "
                f"longest window reads, got {self.events}"
            )
        for name, days in vars(self).items():
            if days is not None and days < 1:
                raise ValueError(f"retention of {name}: expected at least 1 day, got {days}")


@dataclass
class Applied:
    """What went, or would go, by table; ``left`` says what was left alone and why."""

    rows: dict[str, int] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def add(self, table: str, count: int) -> None:
        """Count rows."""
        name = "".join(table)  # SQLAlchemy's names are no plain strings
        self.rows[name] = self.rows.get(name, 0) + count


def apply(
    store: Store, keep: Keep, *, at: int, actor: str, via: str | None = None, dry_run: bool = False,
    whole: bool = True, pause: Callable[[float], None] = time.sleep,
) -> Applied:  # fmt: skip
    """Let go of what is older than ``keep`` says at ``at`` (epoch ms).

    ``whole`` looks at every event; without it one pass looks at some, and the next goes on from
    there. With ``dry_run`` nothing is changed. What went is audited with its counts. In a store
    with the clock ``event`` the present tells no age, so events and decisions stay.
    """
    applied = Applied()

    def entry(rows: Mapping[str, int]) -> AuditEntry:
        content = {"keep_days": vars(keep), "rows": dict(rows)}
        return AuditEntry(at, via or actor, "retention_applied", "retention", content,
                          {"by": actor})  # fmt: skip

    run = _Pass(store, at, applied, dry_run, pause, entry)
    try:
        _let_go(store, keep, run, applied, whole=whole)
    finally:  # what went before something failed did go
        # What went of the audit log was recorded with it.
        rows = {table: n for table, n in applied.rows.items() if table != _AUDIT_LOG}
        if not dry_run and any(rows.values()):
            with store.write() as tx:
                tx.audit_many([entry(rows)])
    return applied


def _let_go(store: Store, keep: Keep, run: _Pass, applied: Applied, *, whole: bool) -> None:
    if keep.idempotency is not None:
        run.old(idempotency_keys, idempotency_keys.c.created_at, keep.idempotency)
    if keep.lists is not None:
        run.old(lists, lists.c.expires_at, keep.lists)
    if keep.audit is not None:
        run.audit(keep.audit)
    if store.clock == "event":
        if keep.events or keep.decisions:
            applied.left.append("events and decisions: the store's clock is that of its events")
        return
    if keep.decisions is not None:
        run.old(decisions, decisions.c.decided_at, keep.decisions)
        run.old(reviews, reviews.c.closed_at, keep.decisions)
        run.old(review_acts, review_acts.c.at, keep.decisions)
        run.old(attachments, attachments.c.added_at, keep.decisions)
        reviewed = exists().where(reviews.c.score_id == review_approvals.c.score_id)
        run.old(review_approvals, review_approvals.c.first_at, keep.decisions, ~reviewed)
    if keep.events is not None:
        run.events(keep.events, whole=whole)


class _Pass:
    """One pass over a store."""

    def __init__(
        self, store: Store, at: int, applied: Applied, dry_run: bool,
        pause: Callable[[float], None], entry: Callable[[Mapping[str, int]], AuditEntry],
    ) -> None:  # fmt: skip
        self._store, self._at, self._applied, self._dry_run = store, at, applied, dry_run
        self._pause, self._entry = pause, entry

    def _limit(self, days: int) -> int:
        return self._at - days * DAY_MS

    # --- rows that stand for themselves --------------------------------------------------------

    def old(self, table: Table, column: Any, days: int, *only: Any) -> None:
        """Delete rows by their own time, the oldest first, ``only`` those of these conditions."""
        is_old = and_(column < self._limit(days), *only)
        self._applied.add(table.name, 0)
        if self._dry_run:
            with self._store.database.read() as connection:
                counted = connection.execute(select(func.count()).select_from(table).where(is_old))
                self._applied.add(table.name, counted.scalar_one())
            return
        keys = tuple_(*table.primary_key.columns)
        some = select(*table.primary_key.columns).where(is_old).order_by(column).limit(SEVERAL)
        while True:
            with self._store.database.write() as connection:
                gone = connection.execute(delete(table).where(keys.in_(some))).rowcount
            self._applied.add(table.name, gone)
            if gone < SEVERAL:
                return
            self._pause(_PAUSE_SECONDS)

    def audit(self, days: int) -> None:
        """Erase what is personal in audit entries, and record it: `serving.vouching` counts."""
        if self._dry_run:
            is_old = audit_log.c.personal.is_not(None) & (audit_log.c.at < self._limit(days))
            counting = select(func.count()).select_from(audit_log).where(is_old)
            with self._store.database.read() as connection:
                self._applied.add("audit_log", connection.execute(counting).scalar_one())
            return
        with self._store.database.write() as connection:
            erased = self._store.audit_log.erase_before(connection, self._limit(days))
            if erased:
                entry = self._entry({_AUDIT_LOG: erased})
                self._store.audit_log.append(connection, entry)
        self._applied.add("audit_log", erased)

    # --- events --------------------------------------------------------------------------------

    def events(self, days: int, *, whole: bool) -> None:
        """Delete events with all that they belong to, where all of it is old."""
        limit, e = self._limit(days), events.c
        self._applied.add("events", 0)
        after, end = (0, None) if whole else self._stretch()
        seen: set[int] = set()
        while True:
            statement = select(*_COLUMNS).where(e.seq > after, e.known_at < limit)
            if end is not None:
                statement = statement.where(e.seq <= end)
            with self._store.database.read() as connection:
                seeds = _stored(connection, statement.order_by(e.seq).limit(SEVERAL))
                groups = self._groups(connection, seeds, limit, seen)
            if groups:
                self._let_go(groups, limit)
            if len(seeds) < SEVERAL:
                return
            after = seeds[-1].seq

    def _stretch(self) -> tuple[int, int]:
        """The numbers of the events that this pass looks at; told the next where to go on."""
        with self._store.database.write() as connection:
            kept = connection.execute(select(meta.c.value).where(meta.c.name == _CURSOR)).scalar()
            last = connection.execute(select(func.max(events.c.seq))).scalar() or 0
            after = int(kept or 0) if int(kept or 0) < last else 0
            end = min(after + _LOOKED_AT, last)
            if not self._dry_run:
                statement = self._store.database.inserting(meta, ("name", "value"), "replace")
                self._store.database.run(connection, statement, (_CURSOR, str(end)))
        return after, end

    def _groups(
        self, connection: Connection, seeds: Iterable[StoredEvent], limit: int, seen: set[int]
    ) -> list[list[StoredEvent]]:
        """What the seeds belong to, each group once, where all of it is older than the limit."""
        groups = []
        for seed in seeds:
            if seed.seq in seen:
                continue
            group = _group(connection, seed, limit)
            seen |= {event.seq for event in group}
            if all(event.known_at < limit for event in group):
                groups.append(group)
        return groups

    def _let_go(self, groups: Sequence[Sequence[StoredEvent]], limit: int) -> None:
        if self._dry_run:
            self._applied.add("events", sum(map(len, groups)))
            return
        with self._store.database.write() as connection:
            names = {name for group in groups for event in group for name in _names(event)}
            self._store.database.lock(connection, ((NAMING_COLUMN[n.kind], n.value) for n in names))
            for group in groups:
                now = _group(connection, group[0], limit)  # something may have come meanwhile
                if now and all(event.known_at < limit for event in now):
                    self._delete(connection, now)
        self._pause(_PAUSE_SECONDS)

    def _delete(self, connection: Connection, group: Sequence[StoredEvent]) -> None:
        first: dict[Name, StoredEvent] = {}
        for event in group:
            name = event.own_name()
            if name and (name not in first or event.is_before(first[name])):
                first[name] = event
        rows = {row[:-1] for event in group for row in rows_of(event, first)}
        columns = KeyRow._fields[:-1]
        if rows:
            statement = delete(event_keys).where(
                *(event_keys.c[name] == bindparam(f"old_{name}") for name in columns)
            )
            named = [{f"old_{n}": v for n, v in zip(columns, row, strict=True)} for row in rows]
            connection.execute(statement, named)
        self._applied.add("event_keys", len(rows))
        for seqs in in_parts([event.seq for event in group]):
            connection.execute(delete(events).where(events.c.seq.in_(seqs)))
        self._applied.add("events", len(group))
        refund_ids = sorted(n.value for n in first if n.kind == "refund_request")
        for part in in_parts(refund_ids):
            theirs = select(reviews.c.score_id).where(reviews.c.refund_id.in_(part))
            those = review_approvals.c.score_id.in_(theirs)
            gone = connection.execute(delete(review_approvals).where(those))
            self._applied.add(review_approvals.name, gone.rowcount)
        for table in (refunds, reservations, reviews, review_acts, attachments):
            for part in in_parts(refund_ids):
                gone = connection.execute(delete(table).where(table.c.refund_id.in_(part)))
                self._applied.add(table.name, gone.rowcount)
        for kind, value in sorted({one for event in group for one in event.direct_entities()}):
            self._forget(connection, kind, value)

    def _forget(self, connection: Connection, kind: str, value: str) -> None:
        """Delete the ciphertext of an identifier that nothing bears any more."""
        k = event_keys.c
        borne = exists().where(k.slice.in_(slices_of(kind)), k.key_value == value)
        listed = exists().where(lists.c.value == value)
        gone = delete(identifiers).where(
            identifiers.c.kind == kind, identifiers.c.mac == value, ~borne, ~listed
        )
        self._applied.add("identifiers", connection.execute(gone).rowcount)


_COLUMNS: Final = tuple(
    events.c[name] for name in ("seq", "event_id", "event_type", "known_at", "payload")
)


def _stored(connection: Connection, statement: Any) -> list[StoredEvent]:
    rows = connection.execute(statement).fetchall()
    return [StoredEvent(r[0], r[1], r[2], r[3], orjson.loads(r[4])) for r in rows]


def _names(event: StoredEvent) -> set[Name]:
    """The order and the refund that an event is or names: both, if it has both."""
    return {
        Name(kind, event.payload[column])
        for kind, column in NAMING_COLUMN.items()
        if column in event.payload
    }


def _group(connection: Connection, seed: StoredEvent, limit: int) -> list[StoredEvent]:
    """All events that belong with one, over orders and refunds that they have in common.

    The search ends early where one of them is not older than the limit.
    """
    found = {e.seq: e for e in _stored(connection, select(*_COLUMNS).where(
        events.c.seq == seed.seq))}  # fmt: skip
    looked_up: set[Name] = set()
    while True:
        ahead = {name for e in found.values() for name in _names(e)} - looked_up
        if not ahead or any(e.known_at >= limit for e in found.values()):
            return list(found.values())
        looked_up |= ahead
        for kind, column in NAMING_COLUMN.items():
            ids = sorted(name.value for name in ahead if name.kind == kind)
            for part in in_parts(ids):
                statement = select(*_COLUMNS).where(events.c[column].in_(part))
                found |= {e.seq: e for e in _stored(connection, statement)}
