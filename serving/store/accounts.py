"""The accounts of people who use the console, their sessions, and tries to sign in, as rows.

What may be done with them, and that it is audited, is for `serving.accounts`. A secret of one-time
codes stands under AES-GCM, a password as its argon2 hash; of an invitation and of a session there
is the hash alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, update

from serving.persons import compared
from serving.roles import Role
from serving.store.database import Database
from serving.store.identifiers import Identifiers
from serving.store.schema import accounts, sessions, sign_in_tries

_SEALED_AS: Final = "totp"
_TRIED_AS: Final = "sign-in"
_MOST_OF_A_NAME: Final = 200


class Account(NamedTuple):
    """Somebody who may use the console; times are epoch ms.

    ``limit_minor`` is up to how much they approve alone, in minor units of the base currency, None
    for any amount. Until they are enrolled they cannot sign in, and ``invited_until`` says how long
    their invitation is good for; None where there is none.
    """

    id: str
    name: str
    role: Role
    limit_minor: int | None
    created_at: int
    disabled_at: int | None
    invited_until: int | None
    is_enrolled: bool

    @property
    def subject(self) -> str:
        """What audit entries about the account name, and entries of what its holder does."""
        return f"account:{self.id}"

    @property
    def is_active(self) -> bool:
        """Whether its holder can sign in."""
        return self.is_enrolled and self.disabled_at is None


class Credentials(NamedTuple):
    """What somebody proves with that an account is theirs.

    ``secret`` is that of the one-time codes in base32, ``step`` the last of them that was taken.
    """

    password: str | None
    secret: str | None
    step: int | None


class KeptSession(NamedTuple):
    """A session, by the hash of its token; times are epoch ms."""

    id: str
    account: Account
    began_at: int
    seen_at: int


class Tries(NamedTuple):
    """How often in a row signing in failed under a name, and when last; times are epoch ms."""

    failures: int
    last_at: int
    locked_until: int | None


class Accounts:
    """The accounts of one database. Holds no state of its own: what changes counts at once."""

    def __init__(self, database: Database, identifiers: Identifiers) -> None:
        self._database = database
        self._identifiers = identifiers

    # --- accounts ----------------------------------------------------------------------------

    def get(self, connection: Connection, account_id: str) -> Account | None:
        """An account by its id."""
        row = connection.execute(_select().where(accounts.c.id == account_id)).one_or_none()
        return None if row is None else _account(row)

    def by_name(self, connection: Connection, name: str) -> Account | None:
        """The account of a person, however their name is spelt."""
        key = compared(name[:_MOST_OF_A_NAME])
        row = connection.execute(_select().where(accounts.c.name_key == key)).one_or_none()
        return None if row is None else _account(row)

    def by_invitation(self, connection: Connection, invitation: str) -> Account | None:
        """The account that an invitation of this hash is to, for however long it is good."""
        row = connection.execute(_select().where(accounts.c.invitation == invitation)).one_or_none()
        return None if row is None else _account(row)

    def all(self) -> list[Account]:
        """Every account there is, by name."""
        with self._database.read() as connection:
            found = connection.execute(_select().order_by(accounts.c.name_key))
            return [_account(row) for row in found]

    def lock(self, connection: Connection) -> None:
        """Hold off whoever else makes or changes accounts, so that what is read here stays so."""
        self._database.lock(connection, [("accounts",)])

    def add(self, connection: Connection, account: Account) -> None:
        """Keep a new account, whose holder is still to be invited."""
        connection.execute(
            insert(accounts).values(
                id=account.id, name=account.name, name_key=compared(account.name),
                role=account.role, limit_minor=account.limit_minor, created_at=account.created_at,
            )
        )  # fmt: skip

    def change(self, connection: Connection, account: Account) -> None:
        """Keep what an account's holder may do, and whether it is disabled."""
        self._set(connection, account.id, role=account.role, limit_minor=account.limit_minor,
                  disabled_at=account.disabled_at)  # fmt: skip

    def invite(
        self, connection: Connection, account_id: str, invitation: str, until: int, secret: str
    ) -> None:
        """Put an invitation of this hash in place of what its holder signed in with so far."""
        self._set(connection, account_id, invitation=invitation, invited_until=until,
                  password=None, totp=self._sealed(account_id, secret), totp_step=None)  # fmt: skip

    def enrol(
        self, connection: Connection, account_id: str, invitation: str, password: str, step: int
    ) -> bool:
        """Use an invitation up; whether it was still there."""
        statement = (
            update(accounts)
            .where(accounts.c.id == account_id, accounts.c.invitation == invitation)
            .values(password=password, totp_step=step, invitation=None, invited_until=None)
        )
        return connection.execute(statement).rowcount > 0

    # --- what is proved with -----------------------------------------------------------------

    def credentials(self, connection: Connection, account_id: str) -> Credentials:
        """What an account's holder signs in with."""
        columns = accounts.c
        password, totp, step = connection.execute(
            select(columns.password, columns.totp, columns.totp_step).where(
                columns.id == account_id
            )
        ).one()
        secret = None
        if totp is not None:
            secret = self._identifiers.reveal(_SEALED_AS, account_id, totp)
        return Credentials(password, secret, step)

    def take_code(
        self, connection: Connection, account_id: str, password: str, step: int
    ) -> bool:  # fmt: skip
        """Take a one-time code of this step; whether it, and any later one, was not taken yet.

        Nor is it where the password (a hash) is another by now, or the account is disabled.
        """
        columns = accounts.c
        statement = (
            update(accounts)
            .where(
                columns.id == account_id, columns.password == password,
                columns.disabled_at.is_(None),
                or_(columns.totp_step.is_(None), columns.totp_step < step),
            )
            .values(totp_step=step)
        )  # fmt: skip
        return connection.execute(statement).rowcount > 0

    def set_password(self, connection: Connection, account_id: str, password: str) -> None:
        """Put the hash of another password in place of an account's."""
        self._set(connection, account_id, password=password)

    def reseal(self, connection: Connection, old: Identifiers) -> int:
        """Put the secrets that ``old`` sealed under this store's key; returns of how many.

        Failed tries, whose names stand under ``old``, are forgotten.
        """
        statement = select(accounts.c.id, accounts.c.totp).where(accounts.c.totp.is_not(None))
        rows = connection.execute(statement).all()
        for account_id, totp in rows:
            secret = old.reveal(_SEALED_AS, account_id, totp)
            self._set(connection, account_id, totp=self._sealed(account_id, secret))
        connection.execute(delete(sign_in_tries))
        return len(rows)

    # --- tries -------------------------------------------------------------------------------

    def tries(self, connection: Connection, name: str) -> Tries | None:
        """What failed under a name, which others who try it wait for until the transaction ends."""
        mac = self._tried(name)
        self._database.lock(connection, [("sign-in", mac)])
        columns = sign_in_tries.c
        row = connection.execute(
            select(columns.failures, columns.last_at, columns.locked_until).where(
                columns.name_mac == mac
            )
        ).one_or_none()
        return None if row is None else Tries._make(row)

    def keep_tries(self, connection: Connection, name: str, tries: Tries) -> None:
        """Keep what failed under a name."""
        columns = ("name_mac", "failures", "last_at", "locked_until")
        statement = self._database.inserting(sign_in_tries, columns, "replace")
        self._database.run(connection, statement, (self._tried(name), *tries))

    def forget_tries(self, connection: Connection, name: str) -> bool:
        """Forget what failed under a name; whether anything did."""
        statement = delete(sign_in_tries).where(sign_in_tries.c.name_mac == self._tried(name))
        return connection.execute(statement).rowcount > 0

    def forget_tries_before(self, connection: Connection, before: int) -> None:
        """Forget what failed under any name the last time before an instant (epoch ms)."""
        connection.execute(delete(sign_in_tries).where(sign_in_tries.c.last_at < before))

    def locked(self, at: int) -> Mapping[str, int]:
        """Until when which account takes nobody in, as too many tries failed; by account id."""
        columns = sign_in_tries.c
        statement = select(columns.name_mac, columns.locked_until).where(columns.locked_until > at)
        with self._database.read() as connection:
            until = {row.name_mac: int(row.locked_until) for row in connection.execute(statement)}
        named = {self._tried(one.name): one.id for one in (self.all() if until else ())}
        return {named[mac]: ends for mac, ends in until.items() if mac in named}

    # --- sessions ----------------------------------------------------------------------------

    def session(self, session_id: str) -> KeptSession | None:
        """A session, and whose it is."""
        prepared = self._database.prepared(
            "session", lambda: _select_sessions().where(sessions.c.id == bindparam("id"))
        )
        with self._database.read() as connection:
            rows = self._database.run(connection, prepared, (session_id,))
        return _session(rows[0]) if rows else None

    def last_seen_at(self, connection: Connection) -> int:
        """When somebody was last at the console with a session that is kept; 0 if nobody was."""
        return connection.execute(select(func.max(sessions.c.seen_at))).scalar_one() or 0

    def sessions_of(self, account_id: str) -> list[KeptSession]:
        """The sessions of an account, the one that was used last first."""
        statement = (
            _select_sessions()
            .where(sessions.c.account_id == account_id)
            .order_by(sessions.c.seen_at.desc(), sessions.c.id)
        )
        with self._database.read() as connection:
            return [_session(row) for row in connection.execute(statement)]

    def begin(self, connection: Connection, session_id: str, account_id: str, at: int) -> None:
        """Keep a new session."""
        connection.execute(
            insert(sessions).values(id=session_id, account_id=account_id, began_at=at, seen_at=at)
        )

    def see(self, session_id: str, at: int) -> None:
        """Keep that a session was used."""
        statement = update(sessions).where(sessions.c.id == session_id, sessions.c.seen_at < at)
        with self._database.write() as connection:
            connection.execute(statement.values(seen_at=at))

    def end(
        self, connection: Connection, account_id: str, *, only: str | None = None,
        besides: str | None = None,
    ) -> int:  # fmt: skip
        """End the sessions of an account: one, or all, or all besides one; returns how many."""
        statement = delete(sessions).where(sessions.c.account_id == account_id)
        if only is not None:
            statement = statement.where(sessions.c.id == only)
        if besides is not None:
            statement = statement.where(sessions.c.id != besides)
        return connection.execute(statement).rowcount

    def end_before(self, connection: Connection, began: int, seen: int) -> None:
        """Delete the sessions that began before an instant, or were last used before another."""
        over = or_(sessions.c.began_at < began, sessions.c.seen_at < seen)
        connection.execute(delete(sessions).where(over))

    # --- how ---------------------------------------------------------------------------------

    def _set(self, connection: Connection, account_id: str, **values: Any) -> None:
        connection.execute(update(accounts).where(accounts.c.id == account_id).values(**values))

    def _sealed(self, account_id: str, secret: str) -> bytes:
        return self._identifiers.seal(_SEALED_AS, account_id, secret)

    def _tried(self, name: str) -> str:
        return self._identifiers.mac(_TRIED_AS, compared(name[:_MOST_OF_A_NAME]))


def _columns() -> list[Any]:
    named = ("id", "name", "role", "limit_minor", "created_at", "disabled_at", "invited_until")
    return [*(accounts.c[name] for name in named), accounts.c.password.is_not(None)]


def _select() -> Any:
    return select(*_columns())


def _select_sessions() -> Any:
    columns = sessions.c
    return select(columns.id, columns.began_at, columns.seen_at, *_columns()).join_from(
        sessions, accounts, accounts.c.id == columns.account_id
    )


def _account(row: Any) -> Account:
    *rest, is_enrolled = row
    return Account._make([*rest, bool(is_enrolled)])


def _session(row: Any) -> KeptSession:
    session_id, began_at, seen_at, *rest = row
    return KeptSession(session_id, _account(rest), began_at, seen_at)
