"""The pages of the block list and the allow list: who is on them, why, until when; in and out.

Entries stand under pseudonyms. Original ids are shown, or leave the house as CSV, only to whoever
may see them and says why, and that they did is audited.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from starlette.responses import Response

from features.events import ENTITIES
from serving import listing
from serving.console.visit import Page, Visit
from serving.envelope import ApiError
from serving.explanation.words import entity_name
from serving.listing import BadLine
from serving.revealing import reason_of
from serving.store.lists import ListEntry, ListName
from serving.wire import InvalidRequest, Problem, shown

AT_ONCE: Final = 50
"""So many entries stand on a page."""

MOST_BYTES: Final = 2 * 1024 * 1024
"""Of a CSV file; a larger one is for the command."""

MOST_PROBLEMS: Final = 100
"""So many bad lines are shown of a CSV file."""

STANDINGS: Final = ("now", "over", "every")
"""Which entries are wanted: those that count now, those that are over, or all."""

CSV: Final = "text/csv; charset=utf-8"
_FIELDS: Final = ("entity", "id", "reason", "expires_at")


# --- what is wanted ----------------------------------------------------------------------------


def _name(visit: Visit) -> ListName:
    match visit.params["name"]:
        case "block":
            return "block"
        case "allow":
            return "allow"
    raise ApiError(404, f"list: expected block or allow, got {shown(visit.params['name'])!r}")


def _wanted(visit: Visit) -> dict[str, Any]:
    """Which entries an address, or a form that goes with a page, asks for.

    Raises `InvalidRequest`.
    """
    given = {name: visit.query.get(name) or visit.form.text(name)
             for name in ("kind", "standing", "after")}  # fmt: skip
    kind, standing = given["kind"] or None, given["standing"] or "now"
    problems = []
    if kind is not None and kind not in ENTITIES:
        problems.append(Problem("kind", f"must be one of {', '.join(ENTITIES)}", shown(kind)))
    if standing not in STANDINGS:
        told = f"must be one of {', '.join(STANDINGS)}"
        problems.append(Problem("standing", told, shown(standing)))
    place = re.fullmatch(r"(\d{1,15})-([\w-]{1,100})", given["after"]) if given["after"] else None
    if given["after"] and place is None:
        problems.append(Problem("after", "must be the end of a page", shown(given["after"])))
    if problems:
        raise InvalidRequest(problems)
    return {"kind": kind, "standing": standing,
            "after": (int(place[1]), place[2]) if place else None}  # fmt: skip


def _selection(visit: Visit, wanted: dict[str, Any]) -> dict[str, Any]:
    """The same as `Store.list_entries` takes it."""
    return {
        "entity": wanted["kind"],
        "in_force_at": visit.at if wanted["standing"] == "now" else None,
        "over_at": visit.at if wanted["standing"] == "over" else None,
    }


# --- the page ----------------------------------------------------------------------------------


def show(visit: Visit) -> Response:
    """A list, page by page."""
    return _page(visit)


def _page(
    visit: Visit, *, typed: dict[str, str] | None = None, problems: Iterable[Problem] = (),
    bad: Iterable[BadLine] = (), originals: dict[str, str] | None = None, about: str = "add",
    why: str = "", put_count: int = 0,
) -> Response:  # fmt: skip
    """The page, with what was typed and what is wrong with it.

    ``about`` is the form that is wrong: add, reveal or import. Of a file with ``bad`` lines nothing
    was put on the list, or so many entries beside them.
    """
    name, wanted, store = _name(visit), _wanted(visit), visit.desk.store
    found = store.list_entries(
        name, **_selection(visit, wanted), limit=AT_ONCE + 1, after=wanted["after"]
    )
    entries, problems, bad = found[:AT_ONCE], tuple(problems), tuple(bad)
    place = entries[-1].place if len(found) > AT_ONCE else None
    asked = {"kind": wanted["kind"], "standing": wanted["standing"]}
    path = f"/lists/{name}"
    return visit.page(
        "lists.html.j2", status=422 if problems or (bad and not put_count) else 200, name=name,
        entries=entries,
        asked=asked, after=_after(wanted["after"]), originals=originals, about=about, why=why,
        next=visit.link(path, **asked, after=_after(place)) if place else "",
        kinds=[(kind, entity_name(kind, visit.language)) for kind in ENTITIES],
        names={kind: entity_name(kind, visit.language) for kind in ENTITIES},
        counted=getattr(visit.desk.policies.now.lists, name), now=visit.at,
        typed={**dict.fromkeys(_FIELDS, ""), **(typed or {})}, problems=problems,
        bad=bad[:MOST_PROBLEMS], bad_lines=len({one.line for one in bad}),
        more=max(0, len(bad) - MOST_PROBLEMS),
        put_count=put_count,
        told=_put(visit, put_count) if put_count else
             "" if problems or bad else _told(visit, name, entries),
    )  # fmt: skip


def _after(place: tuple[int, str] | None) -> str | None:
    return f"{place[0]}-{place[1]}" if place else None


def _told(visit: Visit, name: ListName, entries: tuple[ListEntry, ...]) -> str:
    """What was just done, as far as the store says so."""
    say, store, value = visit.language.say, visit.desk.store, visit.query.get("value", "")
    match visit.query.get("told"):
        case "put" if any(one.value == value for one in entries[:1]):
            return say("It is on the list, and counts from now on.")
        case "off" if not _is_on(visit, name, value):
            return say("It is off the list.")
        case "import" if value.isascii() and value.isdigit() and len(value) < 16:
            with store.database.read() as connection:
                count = store.lists.count_put(connection, name, int(value))
            return _put(visit, count)
    return ""


def _put(visit: Visit, count: int) -> str:
    return visit.language.say_of(count, "{value} entry was put on the list.",
                                 "{value} entries were put on the list.")  # fmt: skip


def _is_on(visit: Visit, name: ListName, value: str) -> bool:
    store = visit.desk.store
    with store.database.read() as connection:
        found = store.lists.of_pseudonyms(connection, {"customer": value}, visit.at)
    return any(entry.list == name for entry in found)


# --- in and out --------------------------------------------------------------------------------


def put(visit: Visit) -> Response:
    """Put an entity on a list, or renew its entry."""
    name, typed = _name(visit), {field: visit.form.text(field) for field in _FIELDS}
    try:
        entry = listing.entry_of(typed["entity"], typed["id"], typed["reason"],
                                 typed["expires_at"], visit.at)  # fmt: skip
    except InvalidRequest as error:
        return _page(visit, typed=typed, problems=error.problems)
    [made] = listing.put(visit.desk.store, name, [entry], author=visit.account.name, at=visit.at,
                         via=visit.via)  # fmt: skip
    return visit.to(f"/lists/{name}", told="put", value=made.value)


def take_off(visit: Visit) -> Response:
    """Take an entity off a list."""
    name, value, wanted = _name(visit), visit.form.text("value"), _wanted(visit)
    listing.take_off_known(visit.desk.store, name, value, actor=visit.account.name, at=visit.at,
                           via=visit.via)  # fmt: skip
    return visit.to(f"/lists/{name}", kind=wanted["kind"], standing=wanted["standing"],
                    told="off", value=value)  # fmt: skip


# --- originals, and CSV ------------------------------------------------------------------------


def reveal(visit: Visit) -> Response:
    """The entries of a page with their original ids, once."""
    name, wanted, why = _name(visit), _wanted(visit), visit.form.text("reason")
    try:
        found = listing.shown(
            visit.desk.store, name, **_selection(visit, wanted), limit=AT_ONCE,
            after=wanted["after"], why=reason_of(why), actor=visit.account.name, at=visit.at,
            via=visit.via,
        )  # fmt: skip
    except InvalidRequest as error:
        return _page(visit, problems=error.problems, about="reveal", why=why)
    originals = {each["value"]: each["id"] or "" for each in found}
    return _page(visit, originals=originals, about="reveal", why=why)


def export_originals(visit: Visit) -> Response:
    """All entries that are wanted as CSV with their original ids, as an import takes them."""
    name, wanted, why = _name(visit), _wanted(visit), visit.form.text("reason")
    try:
        found = listing.shown(
            visit.desk.store, name, **_selection(visit, wanted), why=reason_of(why),
            actor=visit.account.name, at=visit.at, via=visit.via,
        )  # fmt: skip
    except InvalidRequest as error:
        return _page(visit, problems=error.problems, about="reveal", why=why)
    return _file(listing.originals_csv(found), f"{name}-list.csv")


def export(visit: Visit) -> Response:
    """All entries that are wanted as CSV, under their pseudonyms."""
    name, store = _name(visit), visit.desk.store
    found = store.list_entries(name, **_selection(visit, _wanted(visit)))
    made = listing.pseudonyms_csv(store, name, found, actor=visit.account.name, at=visit.at,
                                  via=visit.via)  # fmt: skip
    return _file(made, f"{name}-list-pseudonyms.csv")


def _file(content: bytes, name: str) -> Response:
    given = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, headers=given, media_type=CSV)


def bring(visit: Visit) -> Response:
    """Put the entities of a CSV file on a list: all, or none and what is wrong with each line."""
    name, upload = _name(visit), visit.form.file("file")
    if upload is None:
        problem = Problem("file", "is required: a CSV file of entity, id, reason, expires_at")
        return _page(visit, problems=[problem], about="import")
    parsed = listing.parse_csv(upload.content, at=visit.at)
    if parsed.problems and not visit.form.text("skip_bad"):
        return _page(visit, bad=parsed.problems, about="import")
    if not parsed.entries:
        problem = Problem("file", "must hold an entry below its first line")
        return _page(visit, bad=parsed.problems, problems=[problem], about="import")
    listing.put(visit.desk.store, name, parsed.entries, author=visit.account.name, at=visit.at,
                via=visit.via)  # fmt: skip
    if parsed.problems:  # shown at once: of these lines nothing is kept that could be told later
        return _page(visit, bad=parsed.problems, put_count=len(parsed.entries))
    return visit.to(f"/lists/{name}", told="import", value=visit.at)


def back(visit: Visit) -> Response:
    """The list, for whoever asks for what is only the address of a form, or for lists at all."""
    return visit.to(f"/lists/{visit.params.get('name', 'block')}")


CALLS: Final = (
    Page("GET", "/lists", "read", back),
    Page("GET", "/lists/{name}/reveal", "read", back),
    Page("GET", "/lists/{name}/import", "read", back),
    Page("GET", "/lists/{name}", "read", show),
    Page("POST", "/lists/{name}", "lists", put),
    Page("POST", "/lists/{name}/off", "lists", take_off),
    Page("POST", "/lists/{name}/reveal", "reveal", reveal),
    Page("POST", "/lists/{name}/originals", "reveal", export_originals),
    Page("POST", "/lists/{name}/export", "read", export),
    Page("POST", "/lists/{name}/import", "lists", bring, most_bytes=MOST_BYTES),
)
