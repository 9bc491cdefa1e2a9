"""What was decided and answered: decision records, and the first result of each idempotency key.

Records and responses are the caller's documents and come back as they were given. They must hold no
identifier of a person: pseudonyms stand in records, and a response gets its ids back from the
request that is sent again.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, func, literal_column, select, tuple_, update

from serving.store.database import Database
from serving.store.reviews import Reviewed, disposition_of
from serving.store.schema import decisions, idempotency_keys, name_lists, refunds, reviews

IDEMPOTENCY_MS: Final = 24 * 3_600_000
"""How long a first result is replayed."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision as stored: ``record`` is its grounds, ``response`` what was answered.

    ``reviewed`` tells of the review that it opened; known only of what `Decisions.find` gives.
    """

    score_id: str
    refund_id: str
    content_hash: str
    decided_at: int
    record: Mapping[str, Any]
    response: Mapping[str, Any]
    reviewed: Reviewed | None = None


@dataclass(frozen=True, slots=True)
class FirstResult:
    """What the first request with an idempotency key got."""

    content_hash: str
    status: int
    response: Mapping[str, Any]
    created_at: int


class RawDecision(NamedTuple):
    """A decision as it is read by the million: ``record`` is JSON text without the numbers.

    ``features`` are float64, little-endian, one for each of ``feature_names``, NaN where unknown
    (``np.frombuffer(raw.features, "<f8")``); both are empty for a decision made without any.
    Contributions are alike, and empty also where they were not asked for.
    """

    score_id: str
    refund_id: str
    decided_at: int
    record: str
    features: bytes
    feature_names: tuple[str, ...]
    contributions: bytes = b""
    contribution_names: tuple[str, ...] = ()


class Numbers(NamedTuple):
    """A number for each name, NaN where unknown: so a part of a record may be saved.

    It comes back as a mapping. Whoever has an array need not make one of it, of which the store
    makes an array again.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]


NUMBERED: Final = {"features": "feature_names", "contributions": "contribution_names"}
"""Parts of a record with a number per name, each a column, and the column with the id of the names.
These are the same in every record of a catalog, so the list of them is kept once."""

_DECISION: Final = (
    "score_id", "refund_id", "content_hash", "decided_at", "record", "response",
    *(column for columns in NUMBERED.items() for column in columns),
)  # fmt: skip
_RAW: Final = ("score_id", "refund_id", "decided_at", "record", "features", "feature_names")
_RAW_WHOLE: Final = (*_RAW, "contributions", "contribution_names")
_BATCH: Final = 500
_END_OF_TIME: Final = 2**63 - 1
_RESULT: Final = ("content_hash", "status", "response", "created_at")


class Decisions:
    """Decisions of one database. Remembers the lists of names it met."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._list_of: dict[tuple[str, ...], tuple[str, str]] = {}
        self._names_of: dict[str, tuple[str, ...]] = {}
        self._kept: set[str] = set()

    def save(self, connection: Connection, decision: Decision, *, is_last: bool = False) -> None:
        """Store a decision and make it the refund's last one, unless it ``is_last`` already."""
        d, record = decision, dict(decision.record)
        numbers: list[bytes | str | None] = []
        for part in NUMBERED:
            kept = record.get(part)
            numbers += (None, None) if kept is None else self._numbers(connection, record.pop(part))
        row = (d.score_id, d.refund_id, d.content_hash, d.decided_at, _json(record),
               _json(d.response), *numbers)  # fmt: skip
        self._database.run(connection, self._database.inserting(decisions, _DECISION), row)
        if is_last:
            return
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
        """The latest decision about exactly this content, and what became of its review."""
        prepared = self._database.prepared(
            "find_decision",
            lambda: (
                select(
                    *(decisions.c[name] for name in _DECISION), reviews.c.status, reviews.c.ending
                )
                .select_from(
                    decisions.outerjoin(reviews, reviews.c.score_id == decisions.c.score_id)
                )
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
        if not found:
            return None
        *row, status, ending = found[0]
        decision = self._decision(connection, row)
        if status is None:
            return decision
        return replace(decision, reviewed=Reviewed(status != "DONE", disposition_of(ending)))

    def get(self, connection: Connection, score_id: str) -> Decision | None:
        """The decision of this id."""
        columns = [decisions.c[name] for name in _DECISION]
        statement = select(*columns).where(decisions.c.score_id == score_id)
        row = connection.execute(statement).fetchone()
        return self._decision(connection, row) if row else None

    def of_refund(self, connection: Connection, refund_id: str) -> list[Decision]:
        """Every decision on a refund, the latest first."""
        columns = [decisions.c[name] for name in _DECISION]
        statement = (
            select(*columns)
            .where(decisions.c.refund_id == refund_id)
            .order_by(decisions.c.decided_at.desc(), decisions.c.score_id.desc())
        )
        rows = connection.execute(statement).all()
        return [self._decision(connection, row) for row in rows]

    # --- many of them ------------------------------------------------------------------------

    def between(self, since: int | None, until: int | None) -> Iterator[Decision]:
        """Decisions with ``since <= decided_at < until``, oldest first; see `Store.decisions`."""
        with self._database.read() as connection:
            for row in self._rows(connection, _DECISION, since, until):
                yield self._decision(connection, row)

    def raw_between(
        self, since: int | None, until: int | None, *, contributions: bool = False
    ) -> Iterator[RawDecision]:
        """As `between`, for millions; see `Store.raw_decisions`."""
        columns = _RAW_WHOLE if contributions else _RAW
        with self._database.read() as connection:
            for row in self._rows(connection, columns, since, until):
                score_id, refund_id, at, text, numbers, list_id = row[:6]
                if list_id is None:
                    yield self._raw_of_old(connection, score_id, refund_id, at, text)
                else:
                    names = self._names_of.get(list_id) or self._names(connection, list_id)
                    raw = RawDecision(score_id, refund_id, at, text, numbers, names)
                    if contributions and row[7] is not None:
                        named = self._names_of.get(row[7]) or self._names(connection, row[7])
                        raw = RawDecision(*raw[:6], row[6], named)
                    yield raw

    def _rows(
        self, connection: Connection, columns: tuple[str, ...], since: int | None, until: int | None
    ) -> Iterator[Any]:
        time_and_id = tuple_(decisions.c.decided_at, decisions.c.score_id)
        prepared = self._database.prepared(
            ("decisions_between", columns),
            lambda: (
                select(*(decisions.c[name] for name in columns))
                .where(
                    time_and_id > tuple_(bindparam("at"), bindparam("after")),
                    decisions.c.decided_at < bindparam("until"),
                )
                .order_by(decisions.c.decided_at, decisions.c.score_id)
                .limit(literal_column(str(_BATCH)))
            ),
        )
        at, score_id = columns.index("decided_at"), columns.index("score_id")
        values = {"at": since or 0, "after": "", "until": _END_OF_TIME if until is None else until}
        while found := self._database.run(connection, prepared, prepared.bind(values)):
            yield from found
            values |= {"at": found[-1][at], "after": found[-1][score_id]}

    def _raw_of_old(
        self, connection: Connection, score_id: str, refund_id: str, at: int, text: str
    ) -> RawDecision:
        """A decision without numbers of its own: made without, or kept before they were."""
        record = orjson.loads(text)
        self._name_old(connection, record)
        features = record.pop("features", None)
        if features is None:
            return RawDecision(score_id, refund_id, at, text, b"", ())
        adds = record.pop("contributions", None) or {}
        numbers, added = (np.array([*of.values()], "<f8").tobytes() for of in (features, adds))
        return RawDecision(
            score_id, refund_id, at, _json(record), numbers, tuple(features), added, tuple(adds)
        )

    def ranges(
        self, connection: Connection, parts: int, since: int | None, until: int | None
    ) -> list[tuple[int, int]]:
        """Ranges of time with about as many decisions each; see `Store.decision_ranges`."""
        at, end = decisions.c.decided_at, _END_OF_TIME if until is None else until
        is_wanted = (at >= (since or 0)) & (at < end)
        count, last = connection.execute(
            select(func.count(), func.max(at)).where(is_wanted)
        ).one()  # fmt: skip
        if not count:
            return []
        nth = select(at).where(is_wanted).order_by(at, decisions.c.score_id).limit(1)
        cuts = {connection.execute(nth.offset(count * part // parts)).scalar_one()
                for part in range(parts)}  # fmt: skip
        return list(itertools.pairwise([*sorted(cuts), last + 1]))

    # --- records -----------------------------------------------------------------------------

    def _decision(self, connection: Connection, row: Any) -> Decision:
        record = orjson.loads(row[4])
        self._name_old(connection, record)
        for place, part in enumerate(NUMBERED):
            packed, list_id = row[6 + 2 * place : 8 + 2 * place]
            if packed is not None:
                numbers = np.frombuffer(packed, "<f8").tolist()
                named = zip(self._names(connection, list_id), numbers, strict=True)
                record[part] = {name: v if v == v else None for name, v in named}
        return Decision(row[0], row[1], row[2], row[3], record, orjson.loads(row[5]))

    def _name_old(self, connection: Connection, record: dict[str, Any]) -> None:
        """Give numbers their names where a store of version 2 or 3 kept them in the record."""
        for part in NUMBERED:
            kept = record.get(part)
            if kept is not None and "numbers" in kept:  # else version 1, which has them named
                names = self._names(connection, kept["names"])
                record[part] = dict(zip(names, kept["numbers"], strict=True))

    def _numbers(
        self, connection: Connection, kept: Numbers | Mapping[str, float | None]
    ) -> tuple[bytes, str]:
        """The numbers packed, and the id of the list of their names."""
        if not isinstance(kept, Numbers):
            kept = Numbers(tuple(kept), np.array(list(kept.values()), np.float64))
        if len(kept.names) != len(kept.values):
            raise ValueError(f"{len(kept.names)} names: expected as many numbers, "
                             f"got {len(kept.values)}")  # fmt: skip
        return kept.values.astype("<f8", copy=False).tobytes(), self._id(connection, kept.names)

    def _id(self, connection: Connection, names: tuple[str, ...]) -> str:
        if names not in self._list_of:
            text = _json(names)
            digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
            self._list_of[names] = digest, text
        list_id, text = self._list_of[names]
        if list_id not in self._kept:
            inserting = self._database.inserting(name_lists, ("id", "names"), "ignore")
            self._database.run(connection, inserting, (list_id, text))
            # Only then, as a transaction that put it there may come to nothing.
            self._database.once_committed(connection, lambda: self._kept.add(list_id))
        return list_id

    def _names(self, connection: Connection, list_id: str) -> tuple[str, ...]:
        """The names of a list, by its id, which is a hash of them."""
        if list_id not in self._names_of:
            prepared = self._database.prepared(
                "names",
                lambda: select(name_lists.c.names).where(name_lists.c.id == bindparam("list")),
            )
            ((text,),) = self._database.run(connection, prepared, (list_id,))
            self._names_of[list_id] = tuple(orjson.loads(text))
        return self._names_of[list_id]

    # --- idempotency keys ------------------------------------------------------------------

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


def _json(document: Any) -> str:
    return orjson.dumps(document).decode()
