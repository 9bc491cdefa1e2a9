"""What a store tells of itself: whether it takes writes, how large it is, what it lags behind."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, func, select

from serving.store.database import Database
from serving.store.schema import audit_log, audit_seals, events, fx_rates


@dataclass(frozen=True, slots=True)
class Vitals:
    """What was found at one look; times are epoch ms, None where there is nothing of it."""

    latest_known_at: int | None
    """The time of the event that was stored last."""
    unsealed: int
    """How many audit entries were numbered since the last one that a seal covers."""
    unsealed_since: int | None
    """The time of the first of them."""


def vitals(database: Database) -> Vitals:
    """Look at a store in a write transaction that waits as any writer does, and keeps nothing.

    Each statement finds one row by its key. Raises what `STORE_UNAVAILABLE` lists when the database
    takes no writes.
    """
    last_event = select(events.c.known_at).order_by(events.c.seq.desc()).limit(1)
    last_seal = select(audit_seals.c.seq).order_by(audit_seals.c.position.desc()).limit(1)
    with database.write() as connection:
        if (
            not database.is_sqlite
            and connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar()
        ):
            raise sqlalchemy.exc.OperationalError(
                "a standby takes no writes", None, Exception("in recovery")
            )
        latest = connection.execute(last_event).scalar()
        sealed = connection.execute(last_seal).scalar() or 0
        last = connection.execute(select(func.max(audit_log.c.seq))).scalar() or 0
        first_open = connection.execute(
            select(audit_log.c.at)
            .where(audit_log.c.seq > sealed)
            .order_by(audit_log.c.seq)
            .limit(1)
        ).scalar()
    return Vitals(latest, max(0, last - sealed), first_open)


def sizes(database: Database) -> dict[str, int]:
    """How many bytes the database takes, as ``store_bytes``.

    Of SQLite also those of its write-ahead log, ``store_wal_bytes``, and those left on its disk,
    ``store_free_bytes``.
    """
    if not database.is_sqlite:
        with database.read() as connection:
            statement = "SELECT pg_database_size(current_database())"
            return {"store_bytes": int(connection.exec_driver_sql(statement).scalar_one())}
    path = Path(str(sqlalchemy.make_url(database.url).database))
    log = Path(f"{path}-wal")
    return {
        "store_bytes": path.stat().st_size,
        "store_wal_bytes": log.stat().st_size if log.exists() else 0,
        "store_free_bytes": shutil.disk_usage(path.parent).free,
    }


def rates_mark(connection: Connection) -> tuple[Any, ...]:
    """What differs after exchange rates were added, replaced or removed: count, last day, sum."""
    columns = fx_rates.c
    found = connection.execute(
        select(func.count(), func.max(columns.date), func.sum(columns.rate))
    ).one()
    return tuple(found)
