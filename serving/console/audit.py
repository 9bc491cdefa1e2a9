"""The page of the audit log: who did what to what, the newest first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

import orjson
from starlette.responses import Response

from features.money import DAY_MS
from serving.console.visit import Page, Visit
from serving.store.audit import Found, KeptEntry, Wanted
from serving.wire import InvalidRequest, Problem

_AT_ONCE: Final = 50
_TIMES: Final = 10**11
"""A number above is an instant in epoch ms, where its name says that it is one."""
_FIELDS: Final = ("actor", "action", "subject", "since", "until")

ACTIONS: Final = (
    "account_changed", "account_enrolled", "account_invited", "account_unlocked", "activated",
    "activation_refused",
    "backfilled", "customer_erased", "customer_exported", "decided", "identifiers_revealed",
    "key_created", "key_revoked", "key_rotated", "listed", "password_change_refused",
    "password_changed", "proposed", "reported", "retention_applied", "secret_rotated",
    "session_ended", "sign_in_refused", "signed_in", "signed_out", "unlisted", "webhook_added",
    "webhook_disabled", "webhook_secret_rotated", "webhooks_replayed",
)  # fmt: skip
"""What the form suggests; any other action is found as well."""


def show(visit: Visit) -> Response:
    """What is looked for in the log."""
    given = {field: visit.query.get(field, "").strip() for field in _FIELDS}
    try:
        wanted, before = _wanted(visit, given), _seq(visit.query.get("before", ""))
    except InvalidRequest as error:
        nothing = Found([], None, is_full=False)
        return _page(visit, 422, given, nothing, problems=error.problems)
    with visit.desk.store.database.read() as connection:
        found = visit.desk.store.audit_log.search(connection, wanted, before=before, limit=_AT_ONCE)
    entries = [
        each._replace(actor=str(each.actor), action=str(each.action), subject=str(each.subject))
        for each in found.entries
    ]
    return _page(visit, 200, given, found._replace(entries=entries), is_first=before is None)


def _page(
    visit: Visit, status: int, given: Mapping[str, str], found: Found, *, problems: Any = (),
    is_first: bool = True,
) -> Response:  # fmt: skip
    sought = {field: text for field, text in given.items() if text}
    onward = None
    if found.before is not None:
        onward = visit.link("/audit", **sought, before=found.before)
    return visit.page(
        "audit.html.j2", status=status, given=given, found=found, problems=problems,
        is_first=is_first, onward=onward, sought=sought, actions=ACTIONS,
        shown=lambda entry: _shown(visit, entry),
        first=visit.link("/audit", **sought),
        names={each.subject: each.name for each in visit.desk.store.accounts.all()},
        about=lambda subject: _address(visit, subject),
        only=lambda field, text: visit.link("/audit", **{**sought, field: text}),
    )  # fmt: skip


def _wanted(visit: Visit, given: Mapping[str, str]) -> Wanted:
    since, until = _day("since", given["since"]), _day("until", given["until"])
    if since is not None and until is not None and until < since:
        told = f"must not be before {given['since']}"
        raise InvalidRequest([Problem("until", told, given["until"])])
    actors: tuple[str, ...] = ()
    if given["actor"]:
        store = visit.desk.store
        with store.database.read() as connection:
            account = store.accounts.by_name(connection, given["actor"])
        actors = (given["actor"],) if account is None else (account.name, account.subject)
    return Wanted(actors, given["action"] or None, given["subject"] or None, since,
                  None if until is None else until + DAY_MS)  # fmt: skip


def _day(field: str, text: str) -> int | None:
    """The beginning of a day in epoch ms."""
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
        return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
    except ValueError:
        raise InvalidRequest([Problem(field, "must be a day as 2026-01-31", text[:40])]) from None


def _seq(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise InvalidRequest([Problem("before", "must be the number of an entry", text[:40])])
    return int(text)


def _shown(visit: Visit, entry: KeptEntry) -> list[tuple[str, str]]:
    """What stands in an entry, by name: values in short JSON, texts as they are."""
    try:
        told = entry.entry()
        parts = {**told.content, **(told.personal or {})}
        parts |= parts.pop("changes", None) or {}
    except (AttributeError, KeyError, TypeError, ValueError):  # somebody altered it in the database
        parts = {"altered": str(entry.content), "personal": str(entry.personal)}
    return [
        (name, _value(visit, name, value)) for name, value in parts.items() if value is not None
    ]


def _value(visit: Visit, name: str, value: Any) -> str:
    """A value as a person reads it: a time, an amount, what it was and became; else JSON."""
    language = visit.language
    match value:
        case {"from": old, "to": new}:
            return f"{_value(visit, name, old)} → {_value(visit, name, new)}"
        case str():
            return value
        case int() if value > _TIMES and name.endswith(("_at", "until")):
            return language.instant(value)
        case int() if name == "limit_minor":
            return language.money(value, visit.desk.rates.base)
        case None if name == "limit_minor":
            return language.say("any amount")
    return orjson.dumps(value).decode()


def _address(visit: Visit, subject: str) -> str | None:
    """The page of what an entry is about."""
    kind, _, name = subject.partition(":")
    match kind:
        case "refund":
            return visit.link("/case", name)
        case "account" if name != "unknown" and visit.may("accounts"):
            return visit.link(f"/accounts/{name}")
        case "list":
            return visit.link(f"/lists/{name}")
        case "policy":
            return visit.link("/policies")
    return None


CALLS: Final = (Page("GET", "/audit", "audit", show),)
"""The page."""
