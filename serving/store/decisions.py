"""What was decided and answered: decision records, and the first result of each idempotency key.

Records and responses are the caller's documents and are kept as they are. They must hold no
identifier of a person: pseudonyms stand in records, and a response gets its ids back from the
request that is sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Connection, bindparam, select, update

from serving.store.database import Database
from serving.store.schema import decisions, idempotency_keys, refunds

IDEMPOTENCY_MS: Final = 24 * 3_600_000
"""How long a first result is replayed."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision as stored: ``record`` is its grounds, ``response`` what was answered."""

    score_id: str
    refund_id: str
    content_hash: str
    decided_at: int
    record: Mapping[str, Any]
    response: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FirstResult:
    """What the first request with an idempotency key got."""

    content_hash: str
    status: int
    response: Mapping[str, Any]
    created_at: int


_DECISION: Final = ("score_id", "refund_id", "content_hash", "decided_at", "record", "response")
_RESULT: Final = ("content_hash", "status", "response", "created_at")


class Decisions:
    """Decisions of one database. Holds no state of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, connection: Connection, decision: Decision) -> None:
        """Store a decision and make it the refund's last one."""
        d = decision
        row = (d.score_id, d.refund_id, d.content_hash, d.decided_at, _json(d.record),
               _json(d.response))  # fmt: skip
        self._database.run(connection, self._database.inserting(decisions, _DECISION), row)
        last = self._database.prepared(
            "last_decision",
            lambda: (
                update(refunds)
                .where(refunds.c.refund_id == bindparam("refund"))
                .values(score_id=bindparam("score"))
            ),
        )
        values = {"refund": d.refund_id, "score": d.score_id}
        self._database.run(connection, last, last.bind(values))

    def find(self, connection: Connection, refund_id: str, content_hash: str) -> Decision | None:
        """The latest decision about exactly this content."""
        prepared = self._database.prepared(
            "find_decision",
            lambda: (
                select(*(decisions.c[name] for name in _DECISION))
                .where(
                    decisions.c.refund_id == bindparam("refund"),
                    decisions.c.content_hash == bindparam("content"),
                )
                .order_by(decisions.c.decided_at.desc(), decisions.c.score_id.desc())
                .limit(1)
            ),
        )
        values = {"refund": refund_id, "content": content_hash}
        found = self._database.run(connection, prepared, prepared.bind(values))
        return _decision(found[0]) if found else None

    def get(self, connection: Connection, score_id: str) -> Decision | None:
        """The decision of this id."""
        columns = [decisions.c[name] for name in _DECISION]
        statement = select(*columns).where(decisions.c.score_id == score_id)
        row = connection.execute(statement).fetchone()
        return _decision(row) if row else None

    def of_refund(self, connection: Connection, refund_id: str) -> list[Decision]:
        """Every decision on a refund, the latest first."""
        columns = [decisions.c[name] for name in _DECISION]
        statement = (
            select(*columns)
            .where(decisions.c.refund_id == refund_id)
            .order_by(decisions.c.decided_at.desc(), decisions.c.score_id.desc())
        )
        return [_decision(row) for row in connection.execute(statement)]

    def first_result(
        self, connection: Connection, api_key_id: str, key: str, at: int
    ) -> FirstResult | None:
        """What the key got at first, if that is not 24 hours old at ``at``."""
        prepared = self._database.prepared(
            "first_result",
            lambda: select(*(idempotency_keys.c[name] for name in _RESULT)).where(
                idempotency_keys.c.api_key_id == bindparam("api_key"),
                idempotency_keys.c.key == bindparam("key"),
                idempotency_keys.c.created_at > bindparam("since"),
            ),
        )
        values = {"api_key": api_key_id, "key": key, "since": at - IDEMPOTENCY_MS}
        found = self._database.run(connection, prepared, prepared.bind(values))
        if not found:
            return None
        content_hash, status, response, created_at = found[0]
        return FirstResult(content_hash, status, orjson.loads(response), created_at)

    def save_first_result(
        self, connection: Connection, api_key_id: str, key: str, result: FirstResult
    ) -> None:
        """Store what a key got, in place of a result that has expired."""
        columns = ("api_key_id", "key", *_RESULT)
        row = (api_key_id, key, result.content_hash, result.status, _json(result.response),
               result.created_at)  # fmt: skip
        statement = self._database.inserting(idempotency_keys, columns, "replace")
        self._database.run(connection, statement, row)


def _decision(row: Any) -> Decision:
    documents = orjson.loads(row[4]), orjson.loads(row[5])
    return Decision(row[0], row[1], row[2], row[3], *documents)


def _json(document: Mapping[str, Any]) -> str:
    return orjson.dumps(document).decode()
