"""Stores of any size: the events of one store over and over, each time of other people.

`Populations` copies what a template store holds into an empty one, as the service would have kept
it: events, the packed index, entities, refunds and identifiers, each population under ids and
pseudonyms of its own. Every customer of every population can then be asked about, so a benchmark
touches the whole of a large store. Straight SQL: ten million events in minutes.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from features.events import COLUMN_OF, ENTITIES, address_key, normalise_ip
from features.tables import Tables
from serving.store.identifiers import Identifiers
from serving.store.indexing import SLICE_OF
from serving.store.store import Store

_BATCH: Final = 20_000
_KEY_OF_SLICE: Final = {number: key for (key, _), number in SLICE_OF.items()}
_PERSONS: Final = {COLUMN_OF[entity]: entity for entity in ENTITIES}


def renamed(column: str, value: str, population: int) -> str:
    """What an original of a row is called in a population, as a body sends it.

    >>> renamed("customer_id", "c1", 3), renamed("email", "ann@example.com", 3)
    ('c1~3', 'x3.ann@example.com')
    >>> renamed("ip", "203.0.113.7", 3)
    '2001:db8:57c3:d9a2::1'
    """
    if column == "email":
        return f"x{population}.{value}"
    if column == "ip":
        digest = hashlib.blake2b(
            f"{population}|{normalise_ip(value)}".encode(), digest_size=4
        ).hexdigest()
        return f"2001:db8:{int(digest[:4], 16):x}:{int(digest[4:], 16):x}::1"
    return f"{value}~{population}"


def row_of(row: Mapping[str, Any], population: int) -> dict[str, Any]:
    """A row of a data folder with the ids that it has in a population."""
    named = (*_PERSONS, "order_id", "refund_id")
    return {
        column: renamed(column, value, population) if column in named and value else value
        for column, value in row.items()
    }


@dataclass
class Populations:
    """The template: a store's file, its secret, and the data folder that it was imported from."""

    template: Path
    secret: bytes
    tables: Tables
    _originals: dict[str, tuple[str, str]] = field(default_factory=dict)
    _countries: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sealed = Identifiers(self.secret)
        with sqlite3.connect(self.template) as template:
            rows = template.execute("SELECT kind, mac, ciphertext FROM identifiers")
            for kind, mac, ciphertext in rows:
                if kind in ENTITIES:
                    self._originals[mac] = (kind, sealed.reveal(kind, mac, ciphertext))
        for name in ("orders", "refund_requests"):
            if name in self.tables and self.tables[name].num_rows:
                columns = self.tables[name].select(["address_id", "shipping_country"])
                for address, country in zip(*columns.to_pydict().values(), strict=True):
                    self._countries.setdefault(address, country)

    def fill(self, target: Path, populations: Iterable[int], customers: int | None = None) -> int:
        """Copy populations into the store at ``target``, which must be new; the events it has.

        ``customers`` is how many customers' events are copied, the first by pseudonym; None: all.
        """
        Store.open(f"sqlite:///{target}", self.secret, clock="event").close()
        connection = sqlite3.connect(target, isolation_level=None)
        try:
            for pragma in ("synchronous = OFF", "journal_mode = OFF", "cache_size = -2000000"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("ATTACH ? AS template", (str(self.template),))
            self._choose(connection, customers)
            for population in populations:
                connection.execute("BEGIN")
                self._copy(connection, population)
                connection.execute("COMMIT")
            connection.execute("ANALYZE main")
            connection.execute("PRAGMA journal_mode = WAL")
            (events,) = connection.execute("SELECT count(*) FROM main.events").fetchone()
            return int(events)
        finally:
            connection.close()

    def events(self) -> int:
        """How many events the template holds."""
        return self._count("events")

    def customers(self) -> int:
        """How many customers the template knows."""
        return self._count("entities WHERE kind = 'customer'")

    def known(self, store: Path) -> set[str]:
        """The customers, by the ids of the data folder, whose first population a store knows."""
        sealed = Identifiers(self.secret)
        with sqlite3.connect(store) as connection:
            rows = connection.execute("SELECT value FROM entities WHERE kind = 'customer'")
            kept = {value for (value,) in rows}
        return {
            value for kind, value in self._originals.values()
            if kind == "customer"
            and sealed.mac(kind, renamed("customer_id", value, 1)) in kept
        }  # fmt: skip

    def _count(self, what: str) -> int:
        with sqlite3.connect(self.template) as template:
            (count,) = template.execute(f"SELECT count(*) FROM {what}").fetchone()
        return int(count)

    def _choose(self, connection: sqlite3.Connection, customers: int | None) -> None:
        connection.execute("CREATE TEMP TABLE chosen (event_id TEXT PRIMARY KEY) WITHOUT ROWID")
        if customers is None:
            connection.execute("INSERT INTO chosen SELECT event_id FROM template.events")
            return
        connection.execute(
            "INSERT OR IGNORE INTO chosen SELECT event_id FROM template.event_keys WHERE key_value "
            "IN (SELECT value FROM template.entities WHERE kind = 'customer' ORDER BY value "
            "LIMIT ?)",
            (customers,),
        )
        # What names their orders and refunds goes along, though no index of theirs leads to it.
        for column in ("order_id", "refund_id"):
            connection.execute(
                f"INSERT OR IGNORE INTO chosen SELECT event_id FROM template.events WHERE {column} "
                f"IN (SELECT {column} FROM template.events WHERE event_id IN chosen)"
            )

    def _copy(self, connection: sqlite3.Connection, population: int) -> None:
        renaming = _Renaming(self.secret, self._originals, self._countries, population)
        (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM main.events").fetchone()
        for table, rename in (
            ("events", renaming.event), ("event_keys", renaming.key),
            ("entities", renaming.entity), ("refunds", renaming.refund),
            ("identifiers", renaming.identifier),
        ):  # fmt: skip
            chosen = " WHERE event_id IN chosen" if table.startswith("event") else ""
            found = connection.execute(f"SELECT * FROM template.{table}{chosen}")
            columns = [name for name, *_ in found.description]
            places = ", ".join("?" * len(columns))
            insert = f"INSERT OR IGNORE INTO main.{table} ({', '.join(columns)}) VALUES ({places})"
            for batch in _batches(found):
                rows = [rename(dict(zip(columns, row, strict=True)), last) for row in batch]
                # In key order: a row then lands beside the one before it.
                if table == "event_keys":
                    rows.sort()
                connection.executemany(insert, rows)


@dataclass
class _Renaming:
    """The rows of one population."""

    secret: bytes
    originals: Mapping[str, tuple[str, str]]
    countries: Mapping[str, str | None]
    population: int

    def __post_init__(self) -> None:
        self._identifiers = Identifiers(self.secret)
        self._macs: dict[str, str] = {}

    def mac(self, pseudonym: str) -> str:
        """The pseudonym in this population of one in the template."""
        found = self._macs.get(pseudonym)
        if found is None:
            kind, value = self.originals.get(pseudonym, ("customer", pseudonym))
            name = renamed(COLUMN_OF[kind], value, self.population)
            if kind == "address":
                name = address_key(name, None, self.countries.get(value)) or name
            elif kind == "ip":
                name = name.replace("::1", "::/64")
            found = self._macs[pseudonym] = self._identifiers.mac(kind, name)
        return found

    def event(self, row: dict[str, Any], last: int) -> tuple[Any, ...]:
        payload = orjson.loads(row["payload"])
        for column in _PERSONS.keys() & payload.keys():
            payload[column] = self.mac(payload[column])
        for column in ("order_id", "refund_id"):
            if column in payload:
                payload[column] = row[column] = renamed(column, payload[column], self.population)
        payload["event_id"] = row["event_id"] = self._event_id(row["event_id"])
        row["payload"] = orjson.dumps(payload).decode()
        row["seq"] += last
        return tuple(row.values())

    def key(self, row: dict[str, Any], last: int) -> tuple[Any, ...]:
        is_person = _KEY_OF_SLICE[row["slice"]] in ENTITIES
        value = row["key_value"]
        row["key_value"] = self.mac(value) if is_person else f"{value}~{self.population}"
        row["event_id"] = self._event_id(row["event_id"])
        return tuple(row.values())

    def entity(self, row: dict[str, Any], last: int) -> tuple[Any, ...]:
        row["value"] = self.mac(row["value"])
        return tuple(row.values())

    def refund(self, row: dict[str, Any], last: int) -> tuple[Any, ...]:
        row["refund_id"] = renamed("refund_id", row["refund_id"], self.population)
        row["order_id"] = row["order_id"] and renamed("order_id", row["order_id"], self.population)
        row["customer"] = row["customer"] and self.mac(row["customer"])
        return tuple(row.values())

    def identifier(self, row: dict[str, Any], last: int) -> tuple[Any, ...]:
        row["mac"] = self.mac(row["mac"])  # its ciphertext stays: no decision reads it
        return tuple(row.values())

    def _event_id(self, event_id: str) -> str:
        # 32 hexadecimal digits as before, anywhere in the index.
        return hashlib.blake2b(f"{self.population}|{event_id}".encode(), digest_size=16).hexdigest()


def _batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
