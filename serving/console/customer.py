"""The pages of a customer and of a thing that customers use: what is known, lists, originals.

Persons stand under pseudonyms. What these stand for is in the answer to one form alone, for a
reason, audited before it is shown; it is in no address, and a page asked for again has it no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from features.events import ENTITIES
from features.money import DAY_MS
from serving import listing
from serving.console.visit import Page, Visit
from serving.customer import STANDING, CustomerFile, Place, customer_of
from serving.envelope import ApiError
from serving.explanation import drawing, pictures
from serving.explanation.page import tone
from serving.explanation.words import action_name, entity_name
from serving.finding import uses_of
from serving.revealing import reveal
from serving.store.holdings import Person
from serving.store.lists import ListEntry, ListName
from serving.wire import InvalidRequest, Problem, did_you_mean, shown

LISTS: Final[tuple[ListName, ...]] = ("block", "allow")
DAYS: Final = ("", "7", "30", "90", "365")
"""For how long an entity may be put on a list here: '' for as long as nobody takes it off."""


# --- whose page it is ----------------------------------------------------------------------------


def _whose(visit: Visit) -> Person:
    """The kind and pseudonym that an address names."""
    kind = visit.params.get("kind", "customer")
    if kind not in ENTITIES:
        hint = did_you_mean(kind, ENTITIES)
        raise ApiError(404, f"kind: expected one of {', '.join(ENTITIES)}{hint}, "
                            f"got {shown(kind)!r}")  # fmt: skip
    return kind, visit.params["pseudonym"]


def _place_of(person: Person) -> str:
    kind, pseudonym = person
    return f"/customer/{pseudonym}" if kind == "customer" else f"/entity/{kind}/{pseudonym}"


def show(visit: Visit) -> Response:
    """The page of a customer, or of a thing."""
    return _page(visit, _whose(visit))


def back(visit: Visit) -> Response:
    """What a form did is asked for again: its page."""
    return visit.to(_place_of(_whose(visit)))


def _page(visit: Visit, person: Person, status: int = 200, **beside: Any) -> Response:
    kind, pseudonym = person
    shared = {
        "kind": kind, "pseudonym": pseudonym, "name": entity_name(kind, visit.language),
        "here": visit.link(_place_of(person)), "problems": (), "typed": {}, "originals": None,
        "days": _days(visit), "action": lambda word: action_name(word, visit.language),
        "tone": tone, "icon": drawing.icon, "sign": drawing.sign,
        "standing": lambda one: pictures.standing_name(one, visit.language),
        "look": pictures.LOOKS, "standings": STANDING, **beside,
    }  # fmt: skip
    if kind != "customer":
        uses = uses_of(visit.desk.store, kind, pseudonym)
        done = _done(visit, uses.listed)
        return visit.page("entity.html.j2", status=status if uses.is_known else 404, c=uses,
                          done=done, **shared)  # fmt: skip
    told, before = _file(visit, pseudonym)
    language, base = visit.language, visit.desk.rates.base
    return visit.page(
        "customer.html.j2", status=status if told.is_known else 404, c=told, base=base,
        before=before, is_timed=visit.desk.store.clock == "ingest", done=_done(visit, told.listed),
        refunds_drawn=pictures.refunds(told, base, language),
        history_drawn=pictures.history(told, language), graph=pictures.graph(told, language),
        names={hub.value: hub for hub in told.links.hubs}, **shared,
    )  # fmt: skip


def _file(visit: Visit, pseudonym: str) -> tuple[CustomerFile, Place | None]:
    text = visit.query.get("before")
    before = Place.of(text) if text else None
    desk = visit.desk
    told = customer_of(desk.store, pseudonym, desk.rates, visit.at, visit.language, before=before)
    return told, before


def _days(visit: Visit) -> list[tuple[str, str]]:
    """The choices of for how long."""
    language = visit.language
    return [(each, language.duration(int(each)) if each
             else language.say("until somebody takes it off")) for each in DAYS]  # fmt: skip


def _done(visit: Visit, entries: Sequence[ListEntry]) -> str:
    """What was done just now, as the store says that it is."""
    say, on = visit.language.say, {entry.list for entry in entries if entry.is_in_force(visit.at)}
    match visit.query.get("told"):
        case "block" if "block" in on:
            return say("It is on the block list: what bears it is refused from now on.")
        case "allow" if "allow" in on:
            return say("It is on the allow list from now on.")
        case "off-block" if "block" not in on:
            return say("It is on the block list no more.")
        case "off-allow" if "allow" not in on:
            return say("It is on the allow list no more.")
        case _:
            return ""


# --- what is done there --------------------------------------------------------------------------


def show_originals(visit: Visit) -> Response:
    """What the pseudonyms of a page stand for, once."""
    person, reason = _whose(visit), visit.form.text("reason")
    wanted = {person}
    if person[0] == "customer":
        told, _ = _file(visit, person[1])
        wanted |= {(one.kind, one.pseudonym) for one in told.used}
    try:
        originals = reveal(visit.desk.store, wanted, reason, about=person, actor=visit.account.name,
                           at=visit.at, via=visit.via)  # fmt: skip
    except InvalidRequest as error:
        return _page(visit, person, 422, problems=error.problems, typed={"why": reason})
    return _page(visit, person, originals=originals)


def put_on_list(visit: Visit) -> Response:
    """Put a customer or a thing on the block or the allow list."""
    person, form = _whose(visit), visit.form
    name, reason, days = form.text("list"), form.text("reason"), form.text("days")
    problems = []
    if name not in LISTS:
        problems.append(Problem("list", f"must be one of {', '.join(LISTS)}", shown(name)))
    if days not in DAYS:
        told = f"must be one of {', '.join(filter(None, DAYS))}, or nothing"
        problems.append(Problem("days", told, shown(days)))
    try:
        if problems:
            raise InvalidRequest(problems)
        until = visit.at + int(days) * DAY_MS if days else None
        listing.put_known(
            visit.desk.store, "block" if name == "block" else "allow", *person, reason, until,
            author=visit.account.name, at=visit.at, via=visit.via,
        )  # fmt: skip
    except InvalidRequest as error:
        typed = {"list": name, "reason": reason, "days": days}
        return _page(visit, person, 422, problems=error.problems, typed=typed)
    return visit.to(_place_of(person), told=name)


def take_off_list(visit: Visit) -> Response:
    """Take a customer or a thing off a list."""
    person, name = _whose(visit), visit.form.text("list")
    if name not in LISTS:
        problem = Problem("list", f"must be one of {', '.join(LISTS)}", shown(name))
        return _page(visit, person, 422, problems=(problem,))
    listing.take_off_known(
        visit.desk.store, "block" if name == "block" else "allow", person[1],
        actor=visit.account.name, at=visit.at, via=visit.via,
    )  # fmt: skip
    return visit.to(_place_of(person), told=f"off-{name}")


_AT: Final = ("/customer/{pseudonym}", "/entity/{kind}/{pseudonym}")

CALLS: Final = tuple(
    page
    for path in _AT
    for page in (
        Page("GET", path, "read", show),
        Page("POST", f"{path}/reveal", "reveal", show_originals),
        Page("POST", f"{path}/list", "lists", put_on_list),
        Page("POST", f"{path}/unlist", "lists", take_off_list),
        *(Page("GET", f"{path}/{act}", "read", back) for act in ("reveal", "list", "unlist")),
    )
)
"""The pages, and what their forms do."""
