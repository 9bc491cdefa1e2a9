"""A customer is erased: who they were goes, what was counted stays.

Their pseudonym, and those of the e-mail, device, payment method, address and IP that no other
customer's event bears, are replaced by random ones in everything that holds them, and the
ciphertexts that told what the old ones stood for are deleted. So every count that they are part of
stands, nobody can tell any more whose it was, and who comes back under the same id is a stranger.
What is shared with another customer stays as it is: it is the other's history too. Free text about
them goes, and so does what the block and allow lists say of what was theirs alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
import structlog
from sqlalchemy import Connection, delete, select, tuple_, update

from features.events import COLUMN_OF
from serving.store.answered import delete_naming
from serving.store.audit import AuditEntry
from serving.store.database import STORE_UNAVAILABLE, Database
from serving.store.holdings import Holdings, Person, have_moved, holdings_of, in_parts
from serving.store.indexing import StoredEvent
from serving.store.renaming import (
    ERASED,
    FORMER,
    Renames,
    change_events,
    random_event_id,
    random_pseudonym,
    rename_entities,
    rename_refunds,
    renamed,
    unsay_justifications,
    without_free_text,
)
from serving.store.schema import decisions, idempotency_keys, identifiers, lists, reviews
from serving.store.store import Store

log = structlog.get_logger()

TRIES: Final = 3
"""How often a customer's holdings are looked up beside those who write, before under their lock."""

_CHECKPOINT_WAIT_MS: Final = 50
_AFTER_FORMER: Final = FORMER[:-1] + ";"


@dataclass(frozen=True)
class Erased:
    """What an erasure did: ``successor`` is the customer's random pseudonym from now on.

    ``rows`` counts, by table, the rows that were changed or deleted.
    """

    successor: str
    rows: Mapping[str, int]

    @property
    def was_known(self) -> bool:
        """Whether anything was held of the customer; some first results go with anybody."""
        return any(count for table, count in self.rows.items() if table != "idempotency_keys")


def erase(store: Store, customer_id: str, *, actor: str, at: int, via: str | None = None) -> Erased:
    """Erase a customer; one of whom nothing is held is erased already.

    All in one transaction, so a crash leaves all or nothing, and a decision that is being made
    meanwhile is made again, on a stranger. What must be looked through is looked through before,
    beside those who write, and again where they wrote about the customer. The act is audited, with
    ``actor``, the counts and the successor; ``via`` is how the audit log names who asked, where
    that is more than the person.
    """
    customer = store.identifiers.mac("customer", customer_id)
    database = store.database
    for _ in range(TRIES - 1):
        with database.read() as connection:
            holdings = holdings_of(database, connection, customer)
        with _thorough(database) as connection:
            database.lock(connection, holdings.names)
            if not have_moved(database, connection, holdings):
                erased = _erase(store, connection, holdings, actor, at, via)
                break
    else:
        with _thorough(database) as connection:
            database.lock(connection, [("customer", customer)])
            holdings = holdings_of(database, connection, customer)
            database.lock(connection, holdings.names)
            erased = _erase(store, connection, holdings, actor, at, via)
    forget_log(database)
    return erased


def _erase(
    store: Store, connection: Connection, holdings: Holdings, actor: str, at: int, via: str | None
) -> Erased:
    new = {person: random_pseudonym() for person in sorted(holdings.own)}
    successor = new["customer", holdings.customer]
    refund_ids = [name.value for name in holdings.about if name.kind == "refund_request"]
    former = _former(store, connection, new)
    said = {value for _, value in [*new, *former]} | _originals(store, connection, new)
    rows = {
        **change_events(store.database, connection, holdings.seqs, _anonymous(new)),
        "entities": rename_entities(connection, new),
        "refunds": rename_refunds(connection, new, refund_ids),
        "reviews": rename_refunds(connection, new, refund_ids, reviews),
        "review_acts": unsay_justifications(connection, refund_ids),
        "attachments": store.attachments.remove_of(connection, refund_ids),
        "decisions": _change_decisions(connection, holdings.decided, new),
        "idempotency_keys": _delete_results(connection, holdings.results)
        + delete_naming(connection, store.identifiers, said),
        "lists": _delete_named(connection, lists, lists.c.entity, lists.c.value, new),
        "identifiers": _delete_named(connection, identifiers, identifiers.c.kind,
                                     identifiers.c.mac, [*new, *former]),
        "audit_log": store.audit_log.erase_naming(
            connection, {value for _, value in [*new, *former]}
        )
        + store.audit_log.erase_about(connection, [f"refund:{each}" for each in refund_ids]),
    }  # fmt: skip
    entry = AuditEntry(at, via or actor, "customer_erased", f"customer:{successor}",
                       {"rows": rows}, {"by": actor})  # fmt: skip
    store.audit_log.append(connection, entry)
    return Erased(successor, rows)


def _anonymous(new: Renames) -> Any:
    """What makes of an event one that betrays nobody whose pseudonyms are replaced."""

    def change(event: StoredEvent) -> StoredEvent:
        payload = without_free_text(event.event_type, renamed(event.payload, new))
        event_id = event.event_id
        if event.event_type == "label" and payload.get("customer_id") != event.payload.get(
            COLUMN_OF["customer"]
        ):
            # The id of a verdict on a customer is a hash of the customer's id, among others.
            event_id = payload["event_id"] = random_event_id()
        return replace(event, event_id=event_id, payload=payload)

    return change


# --- decisions ---------------------------------------------------------------------------------


def _change_decisions(connection: Connection, decided: Sequence[str], new: Renames) -> int:
    """Decisions name the successor, and no longer say what was said of the customer."""
    d = decisions.c
    for part in in_parts(decided):
        found = select(d.score_id, d.record, d.response).where(d.score_id.in_(part))
        for score_id, record, response in connection.execute(found).fetchall():
            kept, told = _impersonal(orjson.loads(record), orjson.loads(response), new)
            connection.execute(
                update(decisions).where(d.score_id == score_id).values(
                    record=orjson.dumps(kept).decode(), response=orjson.dumps(told).decode(),
                    # It is a hash of the request's content, identifiers among it.
                    content_hash=random_event_id(),
                )
            )  # fmt: skip
    return len(decided)


def _impersonal(
    record: dict[str, Any], response: dict[str, Any], new: Renames
) -> tuple[dict[str, Any], dict[str, Any]]:
    keys = record["keys"]
    erased = {kind for kind, value in keys.items() if (kind, value) in new}
    record["keys"] = {kind: new.get((kind, value), value) for kind, value in keys.items()}
    said: set[str] = set()
    kept: set[str] = set()
    for name in ("block", "allow"):
        for hit in record.get("lists", {}).get(name, ()):
            (said if hit[0] in erased else kept).add(hit[1])
            if hit[0] in erased:
                hit[1] = ERASED
    gone = said - kept
    decision = record["decision"]
    decision["list_reasons"] = [
        ERASED if reason in gone else reason for reason in decision.get("list_reasons", ())
    ]
    data = response["data"]
    for reason in data.get("reasons", ()):
        if reason.get("code") == "LISTED" and reason.get("description") in gone:
            reason["description"] = ERASED
    for warning in data.get("warnings", ()):
        if warning.get("class") == "unknown-value":  # it quotes what was sent
            warning["msg"] = ERASED
    return record, response


def _delete_results(connection: Connection, results: Sequence[tuple[str, str]]) -> int:
    """First results of idempotency keys bear a hash of what was sent, and may quote it."""
    key = idempotency_keys.c
    count = 0
    for api_key_id, name in results:
        is_it = (key.api_key_id == api_key_id) & (key.key == name)
        count += connection.execute(delete(idempotency_keys).where(is_it)).rowcount
    return count


def _delete_named(
    connection: Connection, table: Any, kind: Any, value: Any, persons: Iterable[Person]
) -> int:
    """Delete what a table holds about pseudonyms."""
    return sum(
        connection.execute(delete(table).where(kind == named, value == pseudonym)).rowcount
        for named, pseudonym in sorted(persons)
    )


def _originals(store: Store, connection: Connection, new: Renames) -> set[str]:
    """What the pseudonyms stand for."""
    i = identifiers.c
    statement = select(i.kind, i.mac, i.ciphertext)
    return {
        store.identifiers.reveal(kind, mac, sealed)
        for part in in_parts(sorted(new))
        for kind, mac, sealed in connection.execute(
            statement.where(tuple_(i.kind, i.mac).in_(part))
        )
    }


def _former(store: Store, connection: Connection, new: Renames) -> list[Person]:
    """The pseudonyms that they had under earlier secrets, as far as audit entries name them."""
    i, reveal = identifiers.c, store.identifiers.reveal
    columns = (i.kind, i.mac, i.ciphertext)
    former = connection.execute(
        select(*columns).where(i.kind >= FORMER, i.kind < _AFTER_FORMER)
    ).fetchall()
    if not former:
        return []
    named = tuple_(i.kind, i.mac).in_(list(new))
    theirs = {
        (FORMER + kind, reveal(kind, mac, sealed))
        for kind, mac, sealed in connection.execute(select(*columns).where(named))
    }
    return [(kind, mac) for kind, mac, sealed in former
            if (kind, reveal(kind, mac, sealed)) in theirs]  # fmt: skip


# --- SQLite's files ----------------------------------------------------------------------------


@contextmanager
def _thorough(database: Database) -> Iterator[Connection]:
    """A write transaction that leaves nothing of what it deletes in the database's file."""
    with database.write() as connection:
        if not database.is_sqlite:
            yield connection
            return
        before = connection.exec_driver_sql("PRAGMA secure_delete").scalar()
        connection.exec_driver_sql("PRAGMA secure_delete = ON")
        try:
            yield connection
        finally:
            connection.exec_driver_sql(f"PRAGMA secure_delete = {before}")


def forget_log(database: Database) -> bool:
    """Empty SQLite's write-ahead log, which holds pages as they were; returns whether it is empty.

    It cannot be emptied while somebody reads from it; then whoever writes next does, or the next
    pass of retention. Nor is that tried while somebody writes: SQLite would write the log back all
    the same, and not in the one way that is safe (see `Database.write_back`).
    """
    if not database.is_sqlite:
        return True
    try:
        with database.read() as connection:
            waits = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {_CHECKPOINT_WAIT_MS}")
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                connection.exec_driver_sql("ROLLBACK")
                busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").first()
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {waits}")
    except STORE_UNAVAILABLE:
        return False
    return busy is not None and not busy[0]
