"""Who uses the console: invitations, signing in, sessions, and what each may; every act is audited.

Somebody signs in with a name, a password and a one-time code (RFC 6238). A refusal does not say
which of them was wrong, a name that nobody has is treated as every other, and after five failures
in a row whoever tries a name waits. Times are epoch milliseconds.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, cast

import pyotp
from sqlalchemy import Connection

from features.money import MINOR_UNIT_DIGITS
from serving.persons import NameRefused, is_same_person, name_of_person
from serving.proofs import hashed_password, is_password, password_problem, renewed, step_of
from serving.roles import ROLES, Role, may
from serving.store.accounts import Account, Accounts, Credentials, KeptSession, Tries
from serving.store.audit import AuditEntry
from serving.store.database import STORE_UNAVAILABLE
from serving.store.store import Store
from serving.wire import InvalidRequest, Problem, nearest

MINUTE_MS: Final = 60_000
IDLE_MS: Final = 60 * MINUTE_MS
"""A session ends that is not used for so long …"""
WHOLE_MS: Final = 12 * 60 * MINUTE_MS
"""… and so long after it began."""
SEEN_MS: Final = MINUTE_MS
"""How often it is kept that a session is used."""
INVITED_MS: Final = 72 * 60 * MINUTE_MS
"""How long an invitation is good."""

TRIES: Final = 5
"""So many failures in a row, and whoever tries that name waits."""
MOST_WAIT_MS: Final = 15 * MINUTE_MS
REMEMBERED_MS: Final = 24 * 60 * MINUTE_MS
"""Failures are forgotten that long after the last one."""

_TOKEN_BYTES: Final = 32


class SignInRefusedError(Exception):
    """Somebody was not let in; the message does not say what was wrong.

    ``locked_until`` is until when nobody is under that name, None where nobody is made to wait.
    """

    def __init__(self, locked_until: int | None = None) -> None:
        told = "the name, the password or the code is not right"
        super().__init__(told if locked_until is None else "too many tries failed: wait")
        self.locked_until = locked_until


class InvitationError(Exception):
    """An invitation that is nobody's, was used, or is over."""

    def __init__(self) -> None:
        super().__init__("this invitation is not good (any more): ask for a new one")


class UnknownAccountError(LookupError):
    """There is no such account."""

    def __init__(self, named: str, near: str | None = None) -> None:
        hint = f"; did you mean {near}?" if near else ""
        super().__init__(f"account: nobody has {named[:120]!r}{hint}")


class AccountConflictError(Exception):
    """What an account must not become; the message says why."""


class Session(NamedTuple):
    """Somebody who is signed in; ``csrf`` is what their forms hold."""

    id: str
    account: Account
    csrf: str
    began_at: int
    seen_at: int

    def is_form_of(self, token: str) -> bool:
        """Whether a form with this token was made for this session."""
        return hmac.compare_digest(token.encode(), self.csrf.encode())


# --- sessions ----------------------------------------------------------------------------------


def session_of(store: Store, token: str, at: int) -> Session | None:
    """The session that a browser holds the token of; None where it has ended, or never was."""
    kept = store.accounts.session(_hash(token))
    if kept is None or not is_going_on(kept, at) or not kept.account.is_active:
        return None
    if at - kept.seen_at >= SEEN_MS:
        with suppress(*STORE_UNAVAILABLE):  # whoever only reads can go on
            store.accounts.see(kept.id, at)
    csrf = hmac.new(token.encode(), b"recourse form", hashlib.sha256).hexdigest()
    return Session(kept.id, kept.account, csrf, kept.began_at, kept.seen_at)


def is_going_on(session: KeptSession | Session, at: int) -> bool:
    """Whether a session has neither run out nor been left unused for too long."""
    return at < min(session.began_at + WHOLE_MS, session.seen_at + IDLE_MS)


def sign_out(store: Store, token: str, *, at: int) -> None:
    """End a session; one that has ended is left at that."""
    kept = store.accounts.session(_hash(token))
    if kept is None:
        return
    with store.database.write() as connection:
        if store.accounts.end(connection, kept.account.id, only=kept.id):
            _audit(store, connection, "signed_out", kept.account, at)


def end_sessions(
    store: Store, account: Account, *, at: int, only: str | None = None,
    besides: str | None = None,
) -> int:  # fmt: skip
    """End sessions of one's own: one, or all, or all besides one, by ids; returns how many."""
    with store.database.write() as connection:
        count = store.accounts.end(connection, account.id, only=only, besides=besides)
        if count:
            _audit(store, connection, "session_ended", account, at, {"sessions": count})
    return count


# --- signing in --------------------------------------------------------------------------------


def sign_in(store: Store, name: str, password: str, code: str, *, at: int) -> str:
    """Let somebody in; returns the token of their session, of which only a hash is kept.

    Raises:
        SignInRefusedError: whatever is wrong; after five failures in a row with how long to wait.
    """
    accounts = store.accounts
    tries = _count(store, name, at)
    with store.database.read() as connection:
        account = accounts.by_name(connection, name)
        held = Credentials(None, None, None)
        if account is not None:
            held = accounts.credentials(connection, account.id)
    is_right = is_password(held.password, password)
    step = step_of(held.secret, code, at)
    why = _refusal(account, is_right, step)
    anew = renewed(held.password, password) if is_right else None
    with store.database.write() as connection:
        if account is not None and held.password is not None and step is not None and why is None:
            if accounts.take_code(connection, account.id, held.password, step):
                if anew is not None:
                    accounts.set_password(connection, account.id, anew)
                return _began(store, connection, account, at)
            why = "code used"
        content = {"why": why, "failures": tries.failures, "locked_until": tries.locked_until}
        _audit(store, connection, "sign_in_refused", account, at, content)
    raise SignInRefusedError(tries.locked_until)


def _count(store: Store, name: str, at: int) -> Tries:
    """Count a try as failed before it is looked at, so that of many at once none is too many."""
    with store.database.write() as connection:
        before = store.accounts.tries(connection, name)
        if before is None or at - before.last_at >= REMEMBERED_MS:
            before = Tries(0, at, None)
        until = before.locked_until
        # A lock that ends further ahead than any is given for was set by a clock that was wrong.
        if until is not None and at < until <= at + MOST_WAIT_MS:
            raise SignInRefusedError(until)
        failures = before.failures + 1
        wait = wait_ms(failures)
        tries = Tries(failures, at, at + wait if wait else None)
        store.accounts.forget_tries_before(connection, at - REMEMBERED_MS)
        store.accounts.keep_tries(connection, name, tries)
    return tries


def wait_ms(failures: int) -> int:
    """How long whoever failed so often in a row waits.

    >>> [wait_ms(failures) // 60_000 for failures in (4, 5, 6, 7, 8, 9, 1000)]
    [0, 1, 2, 4, 8, 15, 15]
    """
    if failures < TRIES:
        return 0
    return min(MINUTE_MS << min(failures - TRIES, 10), MOST_WAIT_MS)


def _refusal(account: Account | None, is_right: bool, step: int | None) -> str | None:
    """Why somebody is not let in, for the audit log alone."""
    if account is None:
        return "nobody of that name"
    if not account.is_enrolled:
        return "not enrolled"
    if account.disabled_at is not None:
        return "disabled"
    if not is_right:
        return "password"
    return "code" if step is None else None


def _began(store: Store, connection: Connection, account: Account, at: int) -> str:
    """Begin a session of whoever has proved who they are."""
    accounts, token = store.accounts, secrets.token_urlsafe(_TOKEN_BYTES)
    accounts.forget_tries(connection, account.name)
    accounts.end_before(connection, at - WHOLE_MS, at - IDLE_MS)
    accounts.begin(connection, _hash(token), account.id, at)
    _audit(store, connection, "signed_in", account, at)
    return token


# --- one's own password ------------------------------------------------------------------------


def change_password(
    store: Store, session: Session, old: str, code: str, new: str, again: str, *, at: int
) -> None:
    """Put another password in place of one's own, and end every other session of one's own.

    Raises:
        InvalidRequest: for a new one that is not good, before anything else is looked at.
        SignInRefusedError: as `sign_in`, for a wrong old one or a wrong code.
    """
    _check_password(new, again, session.account.name)
    account, accounts = session.account, store.accounts
    tries = _count(store, account.name, at)
    with store.database.read() as connection:
        held = accounts.credentials(connection, account.id)
    is_right = is_password(held.password, old)
    step = step_of(held.secret, code, at)
    hashed = hashed_password(new)
    with store.database.write() as connection:
        if (
            is_right and held.password is not None and step is not None
            and accounts.take_code(connection, account.id, held.password, step)
        ):  # fmt: skip
            accounts.set_password(connection, account.id, hashed)
            accounts.forget_tries(connection, account.name)
            ended = accounts.end(connection, account.id, besides=session.id)
            _audit(store, connection, "password_changed", account, at, {"sessions": ended})
            return
        content = {"failures": tries.failures, "locked_until": tries.locked_until}
        _audit(store, connection, "password_change_refused", account, at, content)
    raise SignInRefusedError(tries.locked_until)


def _check_password(password: str, again: str, name: str) -> None:
    if problem := password_problem(password, name):
        raise InvalidRequest([Problem("password", problem)])
    if password != again:
        raise InvalidRequest([Problem("again", "must be the same password once more")])


# --- invitations -------------------------------------------------------------------------------


class Invitation(NamedTuple):
    """What an invitation lets somebody set up: ``secret`` is that of their one-time codes."""

    account: Account
    secret: str

    def address_of_codes(self, issuer: str) -> str:
        """What an app for one-time codes takes, as a QR code shows it."""
        return pyotp.TOTP(self.secret).provisioning_uri(name=self.account.name, issuer_name=issuer)


def invite(
    store: Store, name: str, role: str, limit_minor: int | None, *, by: str, via: str, at: int
) -> tuple[Account, str]:
    """A new account, and the token of the invitation with which its holder sets a password.

    ``limit_minor`` is up to how much they approve alone, in minor units of the base currency; None
    is any amount, and whoever may not act on reviews has 0. ``by`` is who invites them, and ``via``
    how the audit log names who asked.

    Raises:
        InvalidRequest: for a name, role or limit that is none.
        AccountConflictError: where somebody of that name has an account.
    """
    person, checked = _checked(name, role, limit_minor)
    account = Account(f"acc_{secrets.token_hex(8)}", person, *checked, at, None, None,
                      is_enrolled=False)  # fmt: skip
    with store.database.write() as connection:
        store.accounts.lock(connection)
        there = store.accounts.by_name(connection, person)
        if there is not None:
            raise AccountConflictError(
                f"name: {there.name} has an account already; invite them again to let them set "
                "another password"
            )
        store.accounts.add(connection, account)
        content = {"role": account.role, "limit_minor": account.limit_minor}
        return _invited(store, connection, account, by, via, at, content)


def invite_again(
    store: Store, account_id: str, *, by: str, via: str, at: int
) -> tuple[Account, str]:
    """Let an account's holder set another password and other codes; until then they are out.

    Raises:
        UnknownAccountError: where there is no such account.
        AccountConflictError: for one's own account, and for one that is disabled.
    """
    with store.database.write() as connection:
        store.accounts.lock(connection)
        account = _known(store, connection, account_id)
        if via == account.subject:
            raise AccountConflictError(
                "nobody invites themselves again: ask another admin, or change your password"
            )
        if account.disabled_at is not None:
            raise AccountConflictError(f"{account.name} is disabled: enable the account first")
        invited = _invited(store, connection, account, by, via, at, {})
        store.accounts.forget_tries(connection, account.name)
        store.accounts.end(connection, account.id)
        return invited


def _invited(
    store: Store, connection: Connection, account: Account, by: str, via: str, at: int,
    content: Mapping[str, Any],
) -> tuple[Account, str]:  # fmt: skip
    token, until = secrets.token_urlsafe(_TOKEN_BYTES), at + INVITED_MS
    secret = pyotp.random_base32()
    store.accounts.invite(connection, account.id, _hash(token), until, secret)
    content = {**content, "until": until}
    _audit(store, connection, "account_invited", account, at, content, by=by, via=via)
    return account._replace(invited_until=until, is_enrolled=False), token


def invitation(store: Store, token: str, at: int) -> Invitation:
    """What an invitation is to; raises `InvitationError` for one that is not good."""
    with store.database.read() as connection:
        return _invitation(store.accounts, connection, token, at)


def _invitation(
    accounts: Accounts, connection: Connection, token: str, at: int
) -> Invitation:  # fmt: skip
    account = accounts.by_invitation(connection, _hash(token))
    if account is None or account.disabled_at is not None or at >= (account.invited_until or 0):
        raise InvitationError
    secret = accounts.credentials(connection, account.id).secret
    return Invitation(account, str(secret))


def enrol(store: Store, token: str, password: str, again: str, code: str, *, at: int) -> str:
    """Take an invitation up with a password and a first code; returns the token of a session.

    Raises:
        InvitationError: for one that is not good (any more).
        InvalidRequest: for a password that is not good, or a code that is not the present one.
    """
    invited = invitation(store, token, at)
    _check_password(password, again, invited.account.name)
    step = step_of(invited.secret, code, at)
    if step is None:
        told = ("must be the six digits that the app shows now; if they are, the clock of the "
                "device is wrong")  # fmt: skip
        raise InvalidRequest([Problem("code", told)])
    hashed = hashed_password(password)
    accounts = store.accounts
    with store.database.write() as connection:
        account = _invitation(accounts, connection, token, at).account
        if not accounts.enrol(connection, account.id, _hash(token), hashed, step):
            raise InvitationError
        _audit(store, connection, "account_enrolled", account, at)
        return _began(store, connection, account, at)


# --- what an account may -----------------------------------------------------------------------


def change(
    store: Store, account_id: str, role: str, limit_minor: int | None, *, by: str, via: str, at: int
) -> Account:  # fmt: skip
    """Change what an account's holder may, from their next request on; the rest is as for `invite`.

    Raises:
        UnknownAccountError: where there is no such account.
        InvalidRequest: for a role or limit that is none.
        AccountConflictError: for one's own account, and where no admin would be left.
    """
    with _changing(store, account_id, by=by, via=via) as (connection, before):
        _, (role, limit_minor) = _checked(before.name, role, limit_minor)
        after = before._replace(role=role, limit_minor=limit_minor)
        _change(store, connection, before, after, by=by, via=via, at=at)
    return after


def disable(store: Store, account_id: str, *, by: str, via: str, at: int) -> Account:
    """Let an account's holder in no more, and sign them out; refuses as `change` does."""
    with _changing(store, account_id, by=by, via=via) as (connection, before):
        after = before._replace(disabled_at=before.disabled_at or at)
        _change(store, connection, before, after, by=by, via=via, at=at)
        store.accounts.end(connection, before.id)
    return after


def enable(store: Store, account_id: str, *, by: str, via: str, at: int) -> Account:
    """Let an account's holder in again, at once, however many tries failed; else as `disable`."""
    with _changing(store, account_id, by=by, via=via) as (connection, before):
        after = before._replace(disabled_at=None)
        _change(store, connection, before, after, by=by, via=via, at=at)
        if store.accounts.forget_tries(connection, before.name):
            _audit(store, connection, "account_unlocked", after, at, by=by, via=via)
    return after


@contextmanager
def _changing(
    store: Store, account_id: str, *, by: str, via: str
) -> Iterator[tuple[Connection, Account]]:
    """A transaction in which an account of another person is changed, and nobody else's is.

    Everybody changes an account before its tries and its sessions, lest two wait for each other.
    """
    with store.database.write() as connection:
        store.accounts.lock(connection)
        before = _known(store, connection, account_id)
        if via == before.subject or is_same_person(by, before.name):
            raise AccountConflictError("nobody changes what they may themselves: ask another admin")
        yield connection, before


def _change(
    store: Store, connection: Connection, before: Account, after: Account, *,
    by: str, via: str, at: int,
) -> None:  # fmt: skip
    if after == before:
        return
    _keep_an_admin(store.accounts, before, after)
    store.accounts.change(connection, after)
    changes = {
        name: {"from": old, "to": new}
        for name, old, new in zip(before._fields, before, after, strict=True)
        if old != new
    }
    content = {"changes": changes}
    _audit(store, connection, "account_changed", after, at, content, by=by, via=via)


def find(store: Store, named: str) -> Account:
    """An account by its id or its holder's name; raises `UnknownAccountError`."""
    with store.database.read() as connection:
        found = store.accounts.get(connection, named) or store.accounts.by_name(connection, named)
    if found is None:
        near = nearest(named, [account.name for account in store.accounts.all()])
        raise UnknownAccountError(named, near)
    return found


def limit_of(text: str, currency: str) -> int | None:
    """A limit as people write it, in minor units: major units of a currency, ``any`` for None.

    Raises `InvalidRequest` for anything else.

    >>> limit_of("500", "GBP"), limit_of("500.5", "GBP"), limit_of("500", "JPY")
    (50000, 50050, 500)
    >>> limit_of("1,500", "GBP")
    Traceback (most recent call last):
    serving.wire.InvalidRequest: limit: must be an amount of GBP as 1500 or 1500.00, got "1,500"
    """
    given = text.strip()
    if given.casefold() == "any":
        return None
    digits = MINOR_UNIT_DIGITS[currency]
    if not re.fullmatch(
        rf"[0-9]{{1,12}}(\.[0-9]{{1,{digits}}})?" if digits else "[0-9]{1,12}", given
    ):
        example = f"1500 or 1500.{'0' * digits}" if digits else "1500"
        raise InvalidRequest(
            [Problem("limit", f"must be an amount of {currency} as {example}", text[:40])]
        )
    whole, _, part = given.partition(".")
    return int(whole + part.ljust(digits, "0"))


def _keep_an_admin(accounts: Accounts, before: Account, after: Account) -> None:
    def leads(account: Account) -> bool:
        return account.role == "admin" and account.is_active

    if not leads(before) or leads(after):
        return
    if not any(leads(other) for other in accounts.all() if other.id != before.id):
        told = f"{before.name} is the only admin who can sign in: make another one first"
        raise AccountConflictError(told)


def _known(store: Store, connection: Connection, account_id: str) -> Account:
    account = store.accounts.get(connection, account_id)
    if account is None:
        raise UnknownAccountError(account_id)
    return account


def _checked(
    name: str, role: str, limit_minor: int | None
) -> tuple[str, tuple[Role, int | None]]:  # fmt: skip
    problems, person = [], ""
    try:
        person = name_of_person(name)
    except NameRefused as error:
        problems.append(Problem("name", str(error).removeprefix("name: "), None))
    if role not in ROLES:
        problems.append(Problem("role", f"must be one of {', '.join(ROLES)}", role[:40]))
    if limit_minor is not None and not 0 <= limit_minor < 2**53:
        problems.append(Problem("limit", "must be 0 or more", str(limit_minor)[:40]))
    if problems:
        raise InvalidRequest(problems)
    known = cast(Role, role)
    return person, (known, limit_minor if may(known, "review") else 0)


# --- how ---------------------------------------------------------------------------------------


def _audit(
    store: Store, connection: Connection, action: str, account: Account | None, at: int,
    content: Mapping[str, Any] | None = None, *, by: str | None = None, via: str | None = None,
) -> None:  # fmt: skip
    """Keep what somebody did to an account, by default its holder themselves.

    Of a name that nobody has nothing is kept: people type passwords there.
    """
    subject = "account:unknown" if account is None else account.subject
    name = None if account is None else account.name
    entry = AuditEntry(at, via or subject, action, subject, content or {},
                       {"name": name, "by": by or name})  # fmt: skip
    store.audit_log.append(connection, entry)


def _hash(token: str) -> str:
    # A token holds 256 random bits, so there is nothing to guess and no slow hash is needed.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
