"""The outbox: what webhooks are to tell, kept in the transaction of what they tell.

An announcement is a row for each endpoint that wants its type, and no row where none does. So
what was committed is told, though the process dies the next instant, and what was rolled back is
not. `serving.webhooks` sends the rows and says here what became of each.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import orjson
from sqlalchemy import (
    BigInteger,
    Connection,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    update,
)

from serving.store.database import Database
from serving.store.identifiers import Identifiers
from serving.store.schema import webhook_endpoints, webhook_outbox

EventType: TypeAlias = Literal[
    "refund.decided", "refund.reviewed", "review.overdue", "policy.activated", "model.promoted",
    "drift.detected",
]  # fmt: skip

TYPES: Final[tuple[EventType, ...]] = (
    "refund.decided", "refund.reviewed", "review.overdue", "policy.activated", "model.promoted",
    "drift.detected",
)  # fmt: skip
"""What can be told."""

MOST_ENDPOINTS: Final = 32
"""How many may be told at a time: each has connections of its own."""

SECRET_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32
_SEALED_AS: Final = "webhook"

_ENDPOINT: Final = ("id", "url", "types", "created_at", "disabled_at", "disabled_why",
                    "previous_until")  # fmt: skip
_DELIVERY: Final = ("webhook_id", "endpoint_id", "type", "payload", "created_at", "due_since",
                    "next_at", "attempts", "delivered_at", "dead_at", "outcome")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Who is told: a URL and the types it wants; times are epoch ms."""

    id: str
    url: str
    types: tuple[str, ...]
    created_at: int
    disabled_at: int | None = None
    disabled_why: str | None = None
    previous_until: int | None = None
    """Until when the secret before the present one signs, too; None where there is none."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook on its way to one endpoint; times are epoch ms.

    ``webhook_id`` is the same to every endpoint and at every attempt, so that whoever is told twice
    can know. ``next_at`` is None once it was delivered or given up.
    """

    webhook_id: str
    endpoint_id: str
    type: str
    payload: str
    created_at: int
    due_since: int
    next_at: int | None
    attempts: int
    delivered_at: int | None
    dead_at: int | None
    outcome: str | None
    """What came of the last attempt, such as ``HTTP 204``."""

    @property
    def state(self) -> Literal["waiting", "delivered", "dead"]:
        """Where it stands."""
        if self.next_at is not None:
            return "waiting"
        return "delivered" if self.dead_at is None else "dead"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of sending a delivery at ``at``; ``next_at`` is None where no other follows."""

    delivery: Delivery
    at: int
    outcome: str
    is_delivered: bool = False
    next_at: int | None = None


class Outbox:
    """The webhooks of one database. Holds no state of its own.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> database = Database(f"sqlite:///{folder.name}/s.db")
    >>> database.create("key", "ingest")
    >>> outbox = Outbox(database, Identifiers(b"a secret of 16 bytes or more"))
    >>> with database.write() as connection:
    ...     endpoint, secret = outbox.add(connection, "https://shop.example/hook",
    ...                                   ["policy.activated"], at=1_000)
    ...     outbox.announce(connection, "policy.activated", {"policyVersion": "2"}, 1_500)
    ...     outbox.announce(connection, "refund.decided", {"refundId": "r"}, 1_600)
    >>> with database.read() as connection:
    ...     [delivery] = outbox.due(connection, endpoint.id, at=2_000, limit=10)
    >>> print(delivery.payload)
    {"type":"policy.activated","timestamp":"1970-01-01T00:00:01.500Z","data":{"policyVersion":"2"}}
    >>> database.close(); folder.cleanup()
    """

    def __init__(self, database: Database, identifiers: Identifiers) -> None:
        self._database = database
        self._identifiers = identifiers

    # --- announcing --------------------------------------------------------------------------

    def announce(
        self, connection: Connection, event_type: EventType, data: Mapping[str, Any], at: int
    ) -> None:
        """Keep for each endpoint that wants this type what it is to be told.

        One statement, whoever adds or disables an endpoint meanwhile; where there is no endpoint
        nothing is made ready for it. ``data`` must hold nothing of a person, and ``at`` is epoch
        ms.
        """
        any_endpoint = self._database.prepared("any_endpoint", _any)
        if not self._database.run(connection, any_endpoint, any_endpoint.bind({})):
            return
        statement = self._database.prepared("announce", _announcing)
        told = payload(event_type, data, at)
        values = {"webhook_id": webhook_id(at), "type": event_type, "at": at, "payload": told,
                  "wanted": f"% {event_type} %"}  # fmt: skip
        self._database.run(connection, statement, statement.bind(values))

    # --- endpoints ---------------------------------------------------------------------------

    def add(
        self, connection: Connection, url: str, types: Iterable[str], at: int
    ) -> tuple[Endpoint, str]:
        """A new endpoint and its secret, which is shown to nobody again.

        One of this URL that was disabled is the same endpoint again, with these types and a new
        secret: what it missed can be sent again. Raises `ValueError` for types that do not exist,
        and for a URL that is told already.
        """
        given = set(types)
        wanted = tuple(one for one in TYPES if one in given)
        if not given or given.difference(TYPES):
            got = ", ".join(map(repr, sorted(given.difference(TYPES)))) or "none"
            raise ValueError(f"types: expected some of {', '.join(TYPES)}, got {got}")
        self._database.lock(connection, [("webhook endpoints",)])
        before = self._by(connection, webhook_endpoints.c.url == url)
        if before is not None and before.disabled_at is None:
            raise ValueError(f"url: {url} is told already, as {before.id}; disable it first")
        if sum(one.disabled_at is None for one in self.endpoints(connection)) >= MOST_ENDPOINTS:
            raise ValueError(f"url: {MOST_ENDPOINTS} endpoints are told already; disable one first")
        secret = new_secret()
        endpoint = Endpoint(before.id if before else f"whe_{secrets.token_hex(8)}", url, wanted, at)
        row = {"url": url, "types": f" {' '.join(wanted)} ", "created_at": at,
               "secret": self._sealed(endpoint.id, secret), "previous_secret": None,
               "previous_until": None, "disabled_at": None, "disabled_why": None}  # fmt: skip
        if before is None:
            connection.execute(insert(webhook_endpoints).values(id=endpoint.id, **row))
        else:
            connection.execute(_endpoint_update(before.id).values(**row))
        return endpoint, secret

    def endpoints(self, connection: Connection) -> list[Endpoint]:
        """Every endpoint, also what is disabled, the oldest first."""
        order = (webhook_endpoints.c.created_at, webhook_endpoints.c.id)
        statement = select(*(webhook_endpoints.c[name] for name in _ENDPOINT)).order_by(*order)
        return [_endpoint(row) for row in connection.execute(statement)]

    def endpoint(self, connection: Connection, named: str) -> Endpoint | None:
        """The endpoint of this id or URL."""
        columns = webhook_endpoints.c
        return self._by(connection, or_(columns.id == named, columns.url == named))

    def _by(self, connection: Connection, condition: Any) -> Endpoint | None:
        statement = select(*(webhook_endpoints.c[name] for name in _ENDPOINT)).where(condition)
        row = connection.execute(statement).first()
        return None if row is None else _endpoint(row)

    def disable(self, connection: Connection, endpoint_id: str, why: str, at: int) -> bool:
        """Tell an endpoint nothing any more; what still waits for it is given up.

        Returns whether it was told until now.
        """
        columns = webhook_endpoints.c
        statement = _endpoint_update(endpoint_id).where(columns.disabled_at.is_(None))
        done = connection.execute(statement.values(disabled_at=at, disabled_why=why))
        waiting = webhook_outbox.c.next_at.is_not(None)
        connection.execute(
            update(webhook_outbox)
            .where(webhook_outbox.c.endpoint_id == endpoint_id, waiting)
            .values(next_at=None, dead_at=at, outcome="the endpoint was disabled")
        )
        return done.rowcount > 0

    def secrets_of(self, connection: Connection, endpoint_id: str, at: int) -> list[str]:
        """What signs for an endpoint at this instant: its secret, then the one before it."""
        columns = webhook_endpoints.c
        found = connection.execute(
            select(columns.secret, columns.previous_secret, columns.previous_until).where(
                columns.id == endpoint_id
            )
        ).first()
        if found is None:
            return []
        sealed = [found[0], found[1] if found[2] and at < found[2] else None]
        reveal = self._identifiers.reveal
        return [reveal(_SEALED_AS, endpoint_id, one) for one in sealed if one is not None]

    def rotate_secret(
        self, connection: Connection, endpoint_id: str, at: int, overlap_ms: int
    ) -> str:
        """A new secret for an endpoint; for ``overlap_ms`` the present one signs beside it.

        Raises `LookupError` for an endpoint that is not there.
        """
        columns = webhook_endpoints.c
        secret = new_secret()
        done = connection.execute(
            _endpoint_update(endpoint_id).values(
                previous_secret=columns.secret, previous_until=at + overlap_ms,
                secret=self._sealed(endpoint_id, secret),
            )
        )  # fmt: skip
        if not done.rowcount:
            raise LookupError(f"endpoint: none is {endpoint_id!r}")
        return secret

    def reseal(self, connection: Connection, old: Identifiers) -> int:
        """Put the secrets that ``old`` sealed under this store's key; returns of how many."""
        columns = webhook_endpoints.c
        rows = connection.execute(select(columns.id, columns.secret, columns.previous_secret)).all()
        for endpoint_id, secret, previous in rows:
            sealed = [
                None if one is None
                else self._sealed(endpoint_id, old.reveal(_SEALED_AS, endpoint_id, one))
                for one in (secret, previous)
            ]  # fmt: skip
            statement = _endpoint_update(endpoint_id)
            connection.execute(statement.values(secret=sealed[0], previous_secret=sealed[1]))
        return len(rows)

    def _sealed(self, endpoint_id: str, secret: str) -> bytes:
        return self._identifiers.seal(_SEALED_AS, endpoint_id, secret)

    # --- deliveries --------------------------------------------------------------------------

    def due(self, connection: Connection, endpoint_id: str, at: int, limit: int) -> list[Delivery]:
        """What is to be sent to an endpoint by ``at``, the longest due first."""
        columns = webhook_outbox.c
        statement = (
            _deliveries()
            .where(columns.endpoint_id == endpoint_id, columns.next_at <= at)
            .order_by(columns.next_at, columns.created_at)
            .limit(limit)
        )
        return [Delivery(*row) for row in connection.execute(statement)]

    def settle(self, connection: Connection, attempts: Sequence[Attempt]) -> None:
        """Keep what came of attempts; a delivery that was settled meanwhile stays as it is."""
        columns = webhook_outbox.c
        statement = (
            update(webhook_outbox)
            .where(
                columns.webhook_id == bindparam("of"), columns.endpoint_id == bindparam("to"),
                columns.next_at == bindparam("was"),
            )
            .values(
                attempts=columns.attempts + 1, next_at=bindparam("then"),
                outcome=bindparam("came"), delivered_at=bindparam("done"),
                dead_at=bindparam("dead"),
            )
        )  # fmt: skip
        rows = [
            {"of": one.delivery.webhook_id, "to": one.delivery.endpoint_id,
             "was": one.delivery.next_at, "then": one.next_at, "came": one.outcome,
             "done": one.at if one.is_delivered else None,
             "dead": one.at if not one.is_delivered and one.next_at is None else None}
            for one in sorted(attempts, key=lambda a: a.delivery.webhook_id)
        ]  # fmt: skip
        if rows:
            connection.execute(statement, rows)

    def deliveries(
        self, connection: Connection, *, only_dead: bool = False, limit: int = 100
    ) -> list[Delivery]:
        """The latest deliveries, whatever became of them, or those given up; the newest first."""
        columns = webhook_outbox.c
        statement = _deliveries().order_by(columns.webhook_id.desc(), columns.endpoint_id)
        if only_dead:
            statement = statement.where(columns.dead_at.is_not(None))
        return [Delivery(*row) for row in connection.execute(statement.limit(limit))]

    def replay(
        self, connection: Connection, at: int, *, webhook_id: str | None = None,
        only_dead: bool = False, since: int | None = None,
    ) -> int:  # fmt: skip
        """Send again, under the same ids, what was delivered or given up; returns how many.

        Of one webhook, of what was given up, or of what was announced at ``since`` (epoch ms) or
        later; several narrow it down. What is for a disabled endpoint stays where it is.
        """
        columns, to = webhook_outbox.c, webhook_endpoints.c
        told = select(to.id).where(to.disabled_at.is_(None))
        statement = update(webhook_outbox).where(
            columns.next_at.is_(None), columns.endpoint_id.in_(told)
        )
        if webhook_id is not None:
            statement = statement.where(columns.webhook_id == webhook_id)
        if only_dead:
            statement = statement.where(columns.dead_at.is_not(None))
        if since is not None:
            statement = statement.where(columns.webhook_id >= _first_id(since))
        again = statement.values(next_at=at, due_since=at, attempts=0, delivered_at=None,
                                 dead_at=None)  # fmt: skip
        return connection.execute(again).rowcount

    def remove(self, connection: Connection, before: int, limit: int) -> int:
        """Remove up to ``limit`` deliveries announced before this instant that nothing waits for.

        Returns how many were removed.
        """
        columns = webhook_outbox.c
        old = (
            select(columns.webhook_id, columns.endpoint_id)
            .where(columns.webhook_id < _first_id(before), columns.next_at.is_(None))
            .limit(limit)
        )
        gone = delete(webhook_outbox).where(
            tuple_(columns.webhook_id, columns.endpoint_id).in_(old)
        )
        return connection.execute(gone).rowcount

    def backlog(self, connection: Connection) -> tuple[int, int | None, int]:
        """How many deliveries wait, when the oldest of them was announced, how many were given up.

        Both are counted on small indexes, of what waits and of what was given up.
        """
        columns = webhook_outbox.c
        waiting, oldest = connection.execute(
            select(func.count(), func.min(columns.created_at)).where(columns.next_at.is_not(None))
        ).one()
        dead = connection.execute(
            select(func.count()).select_from(webhook_outbox).where(columns.dead_at.is_not(None))
        ).scalar_one()
        return waiting, oldest, dead


def webhook_id(at: int) -> str:
    """A new id; ids sort by their times, to the millisecond.

    >>> webhook_id(1_000) < webhook_id(1_001), len(webhook_id(1_000))
    (True, 36)
    """
    return f"{_first_id(at)}{secrets.token_hex(10)}"


def _first_id(at: int) -> str:
    return f"msg_{max(at, 0):012x}"


def payload(event_type: str, data: Mapping[str, Any], at: int) -> str:
    """What is sent, after Standard Webhooks: the type, its time in ISO 8601, and the data."""
    timestamp = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
    body = {"type": event_type, "timestamp": f"{timestamp[:-6]}Z", "data": data}
    return orjson.dumps(body).decode()


def new_secret() -> str:
    """A secret of 256 bits, as the ``standardwebhooks`` libraries take it."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _any() -> Any:
    return select(webhook_endpoints.c.id).limit(literal_column("1"))


def _announcing() -> Any:
    columns = ("webhook_id", "endpoint_id", "type", "payload", "created_at", "due_since",
               "next_at", "attempts")  # fmt: skip
    to, at = webhook_endpoints.c, bindparam("at", type_=BigInteger)
    told = {name: bindparam(name, type_=Text) for name in ("webhook_id", "type", "payload")}
    wanting = select(
        told["webhook_id"], to.id, told["type"], told["payload"], at, at, at, literal(0)
    ).where(and_(to.disabled_at.is_(null()), to.types.like(bindparam("wanted"))))  # fmt: skip
    return insert(webhook_outbox).from_select(columns, wanting, include_defaults=False)


def _deliveries() -> Any:
    return select(*(webhook_outbox.c[name] for name in _DELIVERY))


def _endpoint_update(endpoint_id: str) -> Any:
    return update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id)


def _endpoint(row: Any) -> Endpoint:
    return Endpoint(row[0], row[1], tuple(row[2].split()), *row[3:])
