"""The database under the store: engines, transactions, prepared statements.

Everything that differs between SQLite and PostgreSQL is in this file. Statements are built with
SQLAlchemy Core and rendered once to text with positional parameters: rendering is what costs most
of a small statement's time, and the path of a decision has a dozen of them.
"""

from __future__ import annotations

import hashlib
import select as system
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import sqlalchemy
import structlog
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    LargeBinary,
    Table,
    Text,
    cast,
    event,
    func,
    insert,
    literal_column,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ClauseElement

from features.packed import LAYOUT_HASH
from serving.store.schema import SCHEMA_VERSION, event_keys, meta

log = structlog.get_logger()

Clock: TypeAlias = Literal["ingest", "event"]
Row: TypeAlias = tuple[Any, ...]
Mark: TypeAlias = tuple[object, int, int]

BUSY_TIMEOUT_MS: Final = 5_000
"""How long a writer waits for another before the store counts as unavailable."""

MOST_CHANGES_IN_LOG: Final = 10_000
"""After so many changed rows, some 60 MB of SQLite's log, whoever commits writes the log back, lest
it grow without end. A service does it beside its decisions, so that little is left by then."""

FEW_FRAMES: Final = 2_000
"""A log of no more frames, 8 MB, is one that was begun anew not long ago."""

UPGRADE_SECONDS: Final = 1_800
"""How long a worker waits for another to upgrade the store."""

STORE_UNAVAILABLE: Final = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,
)
"""What a read or write raises when the database cannot be reached or stays locked."""


class StoreRefusedError(Exception):
    """The store is there, but this program must not use it; the message says why."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement as the driver takes it, the names of its parameters in order, and constants."""

    sql: str
    names: tuple[str, ...]
    constants: Mapping[str, Any]

    def bind(self, values: Mapping[str, Any]) -> Row:
        """The positional parameters of one execution."""
        every = {**self.constants, **values}
        return tuple([every[name] for name in self.names])


_BEGIN: Final = Prepared("BEGIN IMMEDIATE", (), {})
_COMMIT: Final = Prepared("COMMIT", (), {})
_WRITE_BACK: Final = Prepared("PRAGMA wal_checkpoint(PASSIVE)", (), {})
_LAST_SEQ: Final = Prepared("SELECT seq FROM sqlite_sequence WHERE name = 'events'", (), {})
_DATA_VERSION: Final = Prepared("PRAGMA data_version", (), {})


class Database:
    """Connections to one database. Safe to use from several threads: each takes its own.

    On SQLite a thread keeps its connection, for what it reads and what it writes: taking one from a
    pool costs as much as two small reads, and a connection keeps its page cache over its own
    writes, not over another's. What a thread reads within its transaction is as that left it.

    Reads run in autocommit: a read is one statement, hence one snapshot. Writes run in one
    transaction that on SQLite holds the only write lock from its start.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite and parsed.database in (None, "", ":memory:"):
            raise ValueError(
                f"store url {url!r}: expected a file, as in sqlite:////var/recourse.db"
            )
        self._reading, self._writing = (
            self._sqlite_engines(parsed) if self.is_sqlite else self._postgresql_engines(parsed)
        )
        self._driver_error: type[Exception] = self._writing.dialect.loaded_dbapi.Error
        self._prepared: dict[Hashable, Prepared] = {}
        self._once_committed: dict[Connection, list[Callable[[], None]]] = {}
        self._of_thread = threading.local()
        self._changes_in_log = 0
        self._kept: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._upsert = sqlite.insert if self.is_sqlite else postgresql.insert

    @property
    def url(self) -> str:
        """Where the database is, as another process opens it: with its password, if it has one."""
        return self._reading.url.render_as_string(hide_password=False)

    @property
    def path(self) -> str:
        """The file of an SQLite database."""
        return str(self._reading.url.database)

    def session(self) -> Connection:
        """A connection of the caller's own, on which each statement is by itself; to be closed."""
        return self._reading.connect()

    def _sqlite_engines(self, url: sqlalchemy.URL) -> tuple[Engine, Engine]:
        engine = sqlalchemy.create_engine(
            url, pool_use_lifo=True, max_overflow=-1,  # as many as there are threads
            connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "cached_statements": 512},
        )  # fmt: skip
        event.listen(engine, "connect", _set_up_sqlite)
        return engine, engine

    def _postgresql_engines(self, url: sqlalchemy.URL) -> tuple[Engine, Engine]:
        given = {name: value for name, value in _POSTGRESQL.items() if name not in url.query}

        # Named, whatever the server's default is: who waited for a lock has to see what came of it.
        def engine(level: Literal["AUTOCOMMIT", "READ COMMITTED"]) -> Engine:
            made = sqlalchemy.create_engine(
                url, paramstyle="format", pool_use_lifo=True, isolation_level=level,
                connect_args=given,
            )  # fmt: skip
            event.listen(made, "connect", _set_up_postgresql)
            event.listen(made, "checkout", _refuse_cut_off(made.dialect))
            return made

        return engine("AUTOCOMMIT"), engine("READ COMMITTED")

    # --- transactions ------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection on which every statement is its own snapshot."""
        if self.is_sqlite:
            yield self._own()
            return
        with self._reading.connect() as connection:
            yield connection

    def _own(self) -> Connection:
        """The connection of this thread, to SQLite."""
        found: Connection | None = getattr(self._of_thread, "connection", None)
        if found is None or found.closed:
            found = self._of_thread.connection = self._reading.connect()
            self._of_thread.raw = found.connection.dbapi_connection
            self._of_thread.cursor = self._of_thread.raw.cursor()
            self._kept.add(found)
        return found

    @contextmanager
    def _sqlite_transaction(self) -> Iterator[Connection]:
        connection = self._own()
        raw = self._of_thread.raw
        before = raw.total_changes
        if raw.in_transaction:
            raise RuntimeError("write: expected no transaction of this thread, got one under way")
        # SQLAlchemy has its own idea of a transaction, once something went through it; all that it
        # does at the end of one takes as long as three small statements.
        if connection.in_transaction():
            connection.rollback()
        # The write lock is taken first: taken later, the snapshot may be stale by then.
        self.run(connection, _BEGIN, ())
        try:
            yield connection
            self.run(connection, _COMMIT, ())
        finally:
            if raw.in_transaction:
                raw.rollback()
        self._changes_in_log += raw.total_changes - before
        if self._changes_in_log > MOST_CHANGES_IN_LOG:
            try:
                self.write_back(whole=True)
            except Exception as error:  # what is committed is kept, in the log if not in the file
                log.error("log_not_written_back", exc_info=error)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A write transaction: committed at the end, rolled back on any exception."""
        acts: list[Callable[[], None]] = []
        begin = self._sqlite_transaction if self.is_sqlite else self._writing.begin
        with begin() as connection:
            self._once_committed[connection] = acts
            try:
                yield connection
            finally:
                del self._once_committed[connection]
        for act in acts:
            act()

    def once_committed(self, connection: Connection, act: Callable[[], None]) -> None:
        """Do something when the write transaction of this connection is kept, and else never."""
        self._once_committed[connection].append(act)

    def lock(self, connection: Connection, names: Iterable[Sequence[str]]) -> None:
        """Hold other writers off these names until the transaction ends.

        SQLite has one writer at a time, so nothing is left to do. Names are locked in one order,
        so that two transactions wait for each other only if they lock several times. PostgreSQL
        has room for some thousand locks in all: whoever wants more than a few hundred, such as an
        import, locks every name there is.
        """
        if self.is_sqlite or not (numbers := sorted({lock_number(name) for name in names})):
            return
        if len(numbers) > MOST_LOCKS:
            connection.exec_driver_sql(_LOCK_ALL, (_EVERY_NAME,))
        else:
            connection.exec_driver_sql(_LOCK, (_EVERY_NAME, numbers))

    def writers(self, connection: Connection, table: str) -> frozenset[str]:
        """The transactions that have written to a table and are not over; on SQLite none is seen.

        Whoever writes there holds a lock on it, from before a number is drawn until the end.
        """
        if self.is_sqlite:
            return frozenset()
        found = connection.exec_driver_sql(_WRITERS, (table,))
        return frozenset(found.scalars())

    def reserve_seqs(self, connection: Connection, count: int) -> Sequence[int]:
        """The next ``count`` values of ``events.seq``, never given twice, ascending."""
        if self.is_sqlite:
            found = self.run(connection, _LAST_SEQ, ())
            last = found[0][0] if found else 0
            return range(last + 1, last + count + 1)
        drawn = connection.exec_driver_sql(
            "SELECT nextval(pg_get_serial_sequence('events', 'seq')) FROM generate_series(1, %s)",
            (count,),
        )
        return sorted(drawn.scalars())

    def mark(self, connection: Connection) -> Mark | None:
        """A mark that is another one once anything was written, by whomever.

        What others write counts once it is committed, what this connection writes counts at once.
        On PostgreSQL, which tells no such thing, there is None.
        """
        if not self.is_sqlite:
            return None
        ((of_others,),) = self.run(connection, _DATA_VERSION, ())
        raw: Any = connection.connection.dbapi_connection
        return raw, of_others, raw.total_changes

    def write_back(self, *, whole: bool = False) -> None:
        """Write SQLite's log back to the file as far as no reader needs it; nobody waits for that.

        A decision that did it itself would take sixty milliseconds every hundredth time. But what
        is committed meanwhile is left, and only a log of which nothing is left is begun anew: so
        now and then it is written back ``whole``, and who wants to write waits.

        Before 3.51.3, SQLite loses what others commit when they begin the log anew just as it
        begins to be written back (see https://sqlite.org/wal.html#walresetbug), so it is not let do
        that of its own accord. Nobody begins the log anew while another connection holds the write
        lock. Nor while one reads, where anything is left to be written back; where nothing is, that
        reader holds off the writing back itself.
        """
        if not self.is_sqlite:
            return
        with self._reading.connect() as other:
            other.exec_driver_sql("BEGIN IMMEDIATE" if whole else "BEGIN")
            other.exec_driver_sql("SELECT count(*) FROM sqlite_master")
            ((is_busy, frames, written_back),) = self.run(self._own(), _WRITE_BACK, ())
            other.rollback()
        if not is_busy and frames == written_back and (whole or frames < FEW_FRAMES):
            self._changes_in_log = 0

    def close(self) -> None:
        """Close every connection; a thread that asks again gets a new one."""
        for connection in list(self._kept):
            connection.close()
        self._reading.dispose()
        self._writing.dispose()

    # --- statements --------------------------------------------------------------------------

    def run(self, connection: Connection, statement: Prepared, values: Row) -> list[Row]:
        """Execute a prepared statement straight on the driver; returns the rows it gives.

        SQLAlchemy's own way around the driver costs 25 µs a statement, half of a decision's
        writes. Errors are SQLAlchemy's all the same.
        """
        cursor = self._cursor(connection)
        try:
            cursor.execute(statement.sql, values)
            return cursor.fetchall() if cursor.description else []
        except self._driver_error as error:
            raise self._wrapped(error, statement, values) from error

    def run_many(self, connection: Connection, statement: Prepared, rows: Sequence[Row]) -> None:
        """Execute a prepared statement once per row."""
        cursor = self._cursor(connection)
        try:
            if len(rows) == 1:
                cursor.execute(statement.sql, rows[0])
            else:
                cursor.executemany(statement.sql, rows)
        except self._driver_error as error:
            raise self._wrapped(error, statement, rows) from error

    def _cursor(self, connection: Connection) -> Any:
        """A cursor of the driver: of this thread's own connection always the same, as no statement
        is left half read."""
        of_thread = self._of_thread
        if getattr(of_thread, "connection", None) is connection and not connection.closed:
            return of_thread.cursor
        return connection.connection.cursor()

    def _wrapped(self, error: Exception, statement: Prepared, values: Any) -> BaseException:
        return sqlalchemy.exc.DBAPIError.instance(
            statement.sql, values, error, self._driver_error, hide_parameters=True
        )

    def prepared(self, name: Hashable, build: Callable[[], ClauseElement]) -> Prepared:
        """The statement of this name, built and rendered at its first use."""
        found = self._prepared.get(name)
        if found is None:
            found = self._prepared[name] = self._render(build(), None)
        return found

    def inserting(
        self,
        table: Table,
        columns: Sequence[str],
        on_conflict: Literal["fail", "ignore", "replace"] = "fail",
    ) -> Prepared:
        """An INSERT of these columns, named in the table's order.

        ``replace`` overwrites them where the primary key is there already.
        """
        name = ("insert", table.name, tuple(columns), on_conflict)
        found = self._prepared.get(name)
        if found is None:
            statement: Any = self._upsert(table)
            keys = [column.name for column in table.primary_key]
            if on_conflict == "ignore":
                statement = statement.on_conflict_do_nothing(index_elements=keys)
            elif on_conflict == "replace":
                new = {c: statement.excluded[c] for c in columns if c not in keys}
                statement = statement.on_conflict_do_update(index_elements=keys, set_=new)
            found = self._prepared[name] = self._render(statement, columns)
        return found

    def upserting(
        self,
        table: Table,
        columns: Sequence[str],
        update: Callable[[Any], tuple[Mapping[str, Any], Any]],
    ) -> Prepared:
        """An INSERT that updates the row already there: ``update(new)`` gives (set, where)."""
        name = ("upsert", table.name, tuple(columns))
        found = self._prepared.get(name)
        if found is None:
            statement: Any = self._upsert(table)
            changes, where = update(statement.excluded)
            keys = [column.name for column in table.primary_key]
            statement = statement.on_conflict_do_update(
                index_elements=keys, set_=changes, where=where
            )
            found = self._prepared[name] = self._render(statement, columns)
        return found

    def snapshot(self, seq: ColumnElement[int]) -> ColumnElement[str]:
        """What a statement sees, as text: the highest number, and on PostgreSQL which transactions.

        There numbers are given out before they are committed, in whatever order.
        """
        highest = func.coalesce(cast(func.max(seq), Text), literal_column("'0'"))
        if self.is_sqlite:
            return highest
        return highest + literal_column("' '") + cast(func.pg_current_snapshot(), Text)

    def joined(
        self, column: ColumnElement[bytes], *order: ColumnElement[Any],
        where: ColumnElement[bool],
    ) -> ColumnElement[bytes]:  # fmt: skip
        """The bytes of a group of rows as one value, in this order, which on SQLite they are in.

        A driver makes Python objects of each row, which takes three times as long as to find it.
        SQLite joins blobs as the texts they would be, in UTF-8 byte for byte and with any NUL, as
        it comes to them: in the order of the index, or of the subselect, that is read.
        """
        if self.is_sqlite:
            joined = func.group_concat(column, literal_column("''")).filter(where)
            return cast(joined, LargeBinary)
        nothing = cast(literal_column("''"), LargeBinary)
        in_order = postgresql.aggregate_order_by(nothing, *order)
        return func.string_agg(column, in_order).filter(where)

    def digits(self, column: ColumnElement[int]) -> ColumnElement[str]:
        """The numbers of a group of rows, each a digit, as one text."""
        nothing: ColumnElement[str] = literal_column("''")
        if self.is_sqlite:
            return func.group_concat(column, nothing)
        return func.string_agg(cast(column, Text), nothing)

    def _render(self, statement: ClauseElement, columns: Sequence[str] | None) -> Prepared:
        compiled: Any = statement.compile(
            dialect=self._writing.dialect,
            column_keys=list(columns) if columns is not None else None,
        )
        names = tuple(compiled.positiontup or ())
        if columns is not None and names != tuple(columns):
            raise ValueError(f"columns {tuple(columns)}: expected the table's order, {names}")
        constants = {k: value for k, value in compiled.params.items() if value is not None}
        return Prepared(str(compiled), names, constants)

    # --- making and checking -----------------------------------------------------------------

    def create(self, key_id: str, clock: Clock) -> None:
        """Make the tables of an empty database; leave those of a store as they are."""
        with self.read() as connection:
            if sqlalchemy.inspect(connection).has_table(meta.name):
                return
        with self.write() as connection:
            self.lock(connection, [("schema",)])
            if sqlalchemy.inspect(connection).has_table(meta.name):
                return  # another was faster
            _migrate(connection)
            kept = {"key_id": key_id, "clock": clock, "packed_layout": LAYOUT_HASH}
            connection.execute(insert(meta), [{"name": n, "value": v} for n, v in kept.items()])

    def check(self, key_id: str) -> Clock:
        """The clock of the store.

        Raises `StoreRefusedError` when there is no store, a newer program made it, or its
        pseudonyms come from another secret (nobody's history would ever be found).
        """
        with self.read() as connection:
            if not sqlalchemy.inspect(connection).has_table(meta.name):
                raise StoreRefusedError("the database holds no store: open it with create=True")
            found, version = _kept(connection), schema_version(connection)
        if version > SCHEMA_VERSION:
            raise StoreRefusedError(
                f"the store has schema version {version}, expected at most {SCHEMA_VERSION}: "
                "a newer program made it"
            )
        if found["key_id"] != key_id:
            raise StoreRefusedError(
                f"the store's pseudonyms come from key {found['key_id']}, the secret given is "
                f"key {key_id}: expected the secret the store was made with"
            )
        return "event" if found["clock"] == "event" else "ingest"

    def upgrade(self, *, allowed: bool) -> None:
        """Bring the tables of an older program's store to this program's schema.

        Raises `StoreRefusedError` where that is to be done and not allowed.
        """

        def is_done(connection: Connection) -> bool:
            return schema_version(connection) == SCHEMA_VERSION

        with self.read() as connection:
            version = schema_version(connection)
        if not allowed and version < SCHEMA_VERSION:
            raise StoreRefusedError(
                f"the store was made by another version of this program (schema version {version}, "
                f"expected {SCHEMA_VERSION}): end what runs of that version and start the service "
                "once, which upgrades it"
            )
        self.once(is_done, _migrate)

    def once(
        self, is_done: Callable[[Connection], bool], act: Callable[[Connection], None]
    ) -> None:
        """Do in a write transaction what is not done yet, as one of several workers that would.

        The others wait until it is done, for `UPGRADE_SECONDS` at most.
        """
        deadline = time.monotonic() + UPGRADE_SECONDS
        while True:
            with self.read() as connection:
                if is_done(connection):
                    return
            try:
                with self.write() as connection:
                    self.lock(connection, [("schema",)])
                    if not is_done(connection):  # else another was faster
                        act(connection)
            except STORE_UNAVAILABLE:
                if time.monotonic() > deadline:  # another is at it, and holds the only lock
                    raise

    def is_current(self, connection: Connection) -> bool:
        """Whether the index of keys is packed by this program's layout."""
        return _kept(connection).get("packed_layout") == LAYOUT_HASH

    def empty_index(self, connection: Connection) -> None:
        """Leave the index of keys empty, for the caller to fill in the same transaction."""
        event_keys.drop(connection)
        event_keys.create(connection)
        row = ("packed_layout", LAYOUT_HASH)
        self.run(connection, self.inserting(meta, ("name", "value"), "replace"), row)


def schema_version(connection: Connection) -> int:
    """The version of a store's schema: as Alembic keeps it, or as was kept before there was any."""
    if sqlalchemy.inspect(connection).has_table("alembic_version"):
        kept = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
        return int(kept)
    return int(_kept(connection)["schema_version"])


def _migrate(connection: Connection) -> None:
    # Alembic takes a quarter of a second to load, which a store that is up to date need not wait.
    from serving.store.migrations import upgrade

    upgrade(connection)


def _kept(connection: Connection) -> dict[str, str]:
    return {row.name: row.value for row in connection.execute(select(meta))}


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, not where the driver does
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    # What is deleted, or moved to another page, leaves no copy behind: erasure relies on it.
    connection.execute("PRAGMA secure_delete = FAST")
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # see `Database.write_back`
    # A decision touches some two hundred pages, most of them new to this connection: mapped, they
    # come from the system's cache without a call for each.
    connection.execute("PRAGMA mmap_size = 4294967296")


_POSTGRESQL: Final = {"connect_timeout": 5, "tcp_user_timeout": BUSY_TIMEOUT_MS}
"""How long a server that says nothing is waited for: in seconds, and in milliseconds."""

MOST_LOCKS: Final = 500
"""So many names are locked one by one."""

_LOCK: Final = """SELECT pg_advisory_xact_lock_shared(%s) UNION ALL
SELECT pg_advisory_xact_lock(number) FROM unnest(%s::bigint[]) AS number"""
"""Row by row, so in the order given; the first one is held off by whoever holds every name."""

_LOCK_ALL: Final = "SELECT pg_advisory_xact_lock(%s)"


def _set_up_postgresql(connection: Any, _: object) -> None:
    connection.execute(f"SET lock_timeout = {BUSY_TIMEOUT_MS}")
    connection.commit()


def _refuse_cut_off(dialect: Any) -> Callable[[Any, object, object], None]:
    """What looks at a connection before it is used, and has the pool replace one that is gone.

    A server that stops, or ends a session, says so on the connection, and else says nothing
    unasked: to see that nothing came takes two microseconds, to ask as long as a statement.
    """

    def look(connection: Any, _: object, __: object) -> None:
        try:
            waiting = system.poll()
            waiting.register(connection.fileno(), system.POLLIN)
            if waiting.poll(0):
                dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise sqlalchemy.exc.InvalidatePoolError(str(error)) from error

    return look


def _switch_to_wal(connection: Any) -> None:
    """Switching needs the file alone and does not wait for it: two workers may start at once."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


_WRITERS: Final = """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND relation = %s::regclass
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def lock_number(name: Sequence[str]) -> int:
    """The number that an advisory lock has by its name: 64 bits, signed."""
    digest = hashlib.blake2b("\0".join(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


_EVERY_NAME: Final = lock_number(("every name",))


def padded_size(count: int) -> int:
    """How many places a list of ``count`` values gets, so that few statement texts exist.

    >>> [padded_size(n) for n in (1, 2, 3, 1000)]
    [1, 2, 4, 1024]
    """
    return 1 << max(count - 1, 0).bit_length()


def padded(values: Sequence[Any]) -> list[Any]:
    """The values, the last repeated up to `padded_size`.

    >>> padded(["a", "b", "c"])
    ['a', 'b', 'c', 'c']
    """
    return [*values, *[values[-1]] * (padded_size(len(values)) - len(values))]
