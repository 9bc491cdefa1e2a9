"""The pages of accounts: everybody's, for administrators, and one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from features.money import MINOR_UNIT_DIGITS
from serving import accounts as people
from serving.accounts import (
    IDLE_MS,
    WHOLE_MS,
    AccountConflictError,
    SignInRefusedError,
    UnknownAccountError,
    change_password,
    end_sessions,
    invite,
    invite_again,
    is_going_on,
    limit_of,
)
from serving.console.visit import Page, Visit
from serving.roles import MAY, ROLES, may
from serving.store.accounts import Account
from serving.wire import InvalidRequest, Problem

_DAY_MS: Final = 86_400_000
_ACTS_SHOWN: Final = 20

# --- everybody's -------------------------------------------------------------------------------


def show_accounts(visit: Visit) -> Response:
    """Who has an account, and the form that invites somebody."""
    return _accounts(visit, 200, {"role": "agent"})


def do_invite(visit: Visit) -> Response:
    """Invite somebody, and show the address of the invitation, this once."""
    given = {field: visit.form.text(field) for field in ("name", "role", "limit", "any")}
    try:
        account, token = invite(visit.desk.store, given["name"], given["role"], _limit(visit),
                                by=visit.account.name, via=visit.via, at=visit.at)  # fmt: skip
    except InvalidRequest as error:
        return _accounts(visit, 422, given, error.problems)
    except AccountConflictError as error:
        return _accounts(visit, 409, given, conflict=str(error))
    return _invited(visit, account, token)


def _accounts(
    visit: Visit, status: int, given: Mapping[str, str], problems: Sequence[Problem] = (),
    conflict: str = "",
) -> Response:  # fmt: skip
    store = visit.desk.store
    return visit.page(
        "accounts.html.j2", status=status, found=store.accounts.all(), given=given,
        locked=store.accounts.locked(visit.at), problems=problems, conflict=conflict,
        **_shared(visit),
    )  # fmt: skip


def _invited(visit: Visit, account: Account, token: str) -> Response:
    scheme = "https" if visit.is_secure else "http"
    address = f"{scheme}://{visit.host}{visit.link('/welcome', invitation=token)}"
    return visit.page("invited.html.j2", invited=account, address=address)


def show_account(visit: Visit) -> Response:
    """An account, what was done to it, and the forms that change it."""
    return _account(visit, _found(visit), 200)


def do_account(visit: Visit) -> Response:
    """Change an account, disable or enable it, or invite its holder again."""
    account, act = _found(visit), visit.form.text("act")
    of_whom: dict[str, Any] = {"by": visit.account.name, "via": visit.via, "at": visit.at}
    store = visit.desk.store
    try:
        match act:
            case "invite":
                return _invited(visit, *invite_again(store, account.id, **of_whom))
            case "change":
                role = visit.form.text("role")
                people.change(store, account.id, role, _limit(visit), **of_whom)
            case "disable":
                people.disable(store, account.id, **of_whom)
            case "enable":
                people.enable(store, account.id, **of_whom)
            case _:
                told = "must be change, invite, disable or enable"
                raise InvalidRequest([Problem("act", told, act[:40])])
    except InvalidRequest as error:
        given = {field: visit.form.text(field) for field in ("role", "limit", "any")}
        return _account(visit, account, 422, given, error.problems)
    except AccountConflictError as error:
        return _account(visit, account, 409, conflict=str(error))
    return visit.to(f"/accounts/{account.id}", told=act)


def _account(
    visit: Visit, account: Account, status: int, given: Mapping[str, str] | None = None,
    problems: Sequence[Problem] = (), conflict: str = "",
) -> Response:  # fmt: skip
    store = visit.desk.store
    with store.database.read() as connection:
        acts = store.audit_log.latest(connection, subject=account.subject, limit=_ACTS_SHOWN)
    limit = account.limit_minor
    stands = {"role": account.role, "any": "yes" if limit is None else "",
              "limit": "" if limit is None else _plain(limit, visit.desk.rates.base)}  # fmt: skip
    return visit.page(
        "account_of.html.j2", status=status, of=account, given=given or stands, problems=problems,
        conflict=conflict, told_key=visit.query.get("told", ""), acts=acts,
        names={each.subject: each.name for each in store.accounts.all()},
        locked=store.accounts.locked(visit.at).get(account.id),
        sessions=_sessions(visit, account), is_own=account.id == visit.account.id,
        **_shared(visit),
    )  # fmt: skip


def _found(visit: Visit) -> Account:
    with visit.desk.store.database.read() as connection:
        found = visit.desk.store.accounts.get(connection, visit.params["id"])
    if found is None:
        raise UnknownAccountError(visit.params["id"])
    return found


def _limit(visit: Visit) -> int | None:
    """What a form says of a limit: an amount, or that there is none."""
    text, is_any = visit.form.text("limit").strip(), bool(visit.form.text("any"))
    if text and is_any:
        told = "must be either an amount or any amount, not both"
        raise InvalidRequest([Problem("limit", told, text[:40])])
    return None if is_any else limit_of(text or "0", visit.desk.rates.base)


def _plain(minor: int, currency: str) -> str:
    """An amount as a form takes it.

    >>> _plain(50_050, "GBP"), _plain(500, "JPY")
    ('500.50', '500')
    """
    digits = MINOR_UNIT_DIGITS[currency]
    whole, part = divmod(minor, 10**digits)
    return f"{whole}.{part:0{digits}}" if digits else str(whole)


def _shared(visit: Visit) -> dict[str, Any]:
    """What the templates of accounts say alike."""
    language, base = visit.language, visit.desk.rates.base

    def upto(account: Account) -> str:
        limit = account.limit_minor
        if not may(account.role, "review"):
            return language.say("nothing")
        return language.say("any amount") if limit is None else language.money(limit, base)

    return {"upto": upto, "currency": base, "roles": ROLES, "state": _state(visit),
            "may_do": _may_do(visit),
            "labels": {"name": language.say("Name"), "role": language.say("Role"),
                       "limit": language.say("Approves alone up to")}}  # fmt: skip


def _state(visit: Visit) -> Callable[[Account, int | None], tuple[str, str]]:
    """How an account stands, and how that looks."""
    say, instant = visit.language.say, visit.language.instant

    def state(account: Account, locked: int | None) -> tuple[str, str]:
        if account.disabled_at is not None:
            return "bad", say("Disabled")
        if locked is not None:
            return "wait", say("Locked until {time}", time=instant(locked))
        if account.is_enrolled:
            return "good", say("Can sign in")
        if visit.at < (account.invited_until or 0):
            return "wait", say("Invited until {time}", time=instant(account.invited_until or 0))
        return "bad", say("The invitation has run out")

    return state


def _may_do(visit: Visit) -> Callable[[str], list[str]]:
    say = visit.language.say
    named = {
        "read": say("see every page with persons under pseudonyms"),
        "review": say("take reviews and act on them"),
        "assign": say("give reviews to others"),
        "reveal": say("see original identifiers"), "lists": say("change lists"),
        "policies": say("propose policies and put them in force"),
        "audit": say("read the audit log"), "accounts": say("make and change accounts"),
    }  # fmt: skip
    return lambda role: [text for permission, text in named.items() if role in MAY[permission]]  # type: ignore[index]


# --- one's own ---------------------------------------------------------------------------------


def show_own(visit: Visit) -> Response:
    """One's own account."""
    return _own(visit, 200)


def do_sessions(visit: Visit) -> Response:
    """End one session of one's own, or all others."""
    only = visit.form.text("only") or None
    besides = None if only else visit.session.id
    end_sessions(visit.desk.store, visit.account, only=only, besides=besides, at=visit.at)
    return visit.to("/account", told="sessions")


def do_password(visit: Visit) -> Response:
    """Put another password in place of one's own."""
    old, code, new, again = (visit.form.text(each) for each in ("old", "code", "password", "again"))
    try:
        change_password(visit.desk.store, visit.session, old, code, new, again, at=visit.at)
    except InvalidRequest as error:
        return _own(visit, 422, error.problems)
    except SignInRefusedError as error:
        return _own(visit, 422, refused=error)
    return visit.to("/account", told="password")


def _own(
    visit: Visit, status: int, problems: Sequence[Problem] = (),
    refused: SignInRefusedError | None = None,
) -> Response:  # fmt: skip
    locked = None if refused is None else refused.locked_until
    return visit.page(
        "account.html.j2", status=status, problems=problems, refused=refused,
        wait=None if locked is None else (locked - visit.at) / _DAY_MS,
        told_key=visit.query.get("told", ""), sessions=_sessions(visit, visit.account),
        idle=IDLE_MS / _DAY_MS, whole=WHOLE_MS / _DAY_MS, **_shared(visit),
    )  # fmt: skip


def _sessions(visit: Visit, account: Account) -> list[Any]:
    found = visit.desk.store.accounts.sessions_of(account.id)
    return [each for each in found if is_going_on(each, visit.at)]


CALLS: Final = (
    Page("GET", "/accounts", "accounts", show_accounts),
    Page("POST", "/accounts", "accounts", do_invite),
    Page("GET", "/accounts/{id}", "accounts", show_account),
    Page("POST", "/accounts/{id}", "accounts", do_account),
    Page("GET", "/account", "read", show_own),
    Page("POST", "/account/sessions", "read", do_sessions),
    Page("POST", "/account/password", "read", do_password),
)
"""The pages, and what their forms do."""
