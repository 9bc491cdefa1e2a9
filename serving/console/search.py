"""The page of what was found by an id.

What is typed may be a person's original, so it comes by a form and stands in no address: one thing
that was found leads to its own page, several to an address that names them, persons by pseudonym.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from features.events import ENTITIES
from serving.console.visit import Page, Visit
from serving.customer import STANDING
from serving.explanation import drawing, pictures
from serving.explanation.words import entity_name
from serving.finding import Findings, Reference, find, recall
from serving.wire import InvalidRequest

KINDS: Final = ("refund", "order", "decision", *ENTITIES)
MOST_RECALLED: Final = 60
"""So many references an address may name: what one search finds at most, and some."""


def show(visit: Visit) -> Response:
    """What an address names, or the empty form."""
    named = [(kind, value) for kind, value in visit.query.multi_items() if kind in KINDS]
    return _page(visit, recall(visit.desk.store, named[:MOST_RECALLED]), bool(named))


def look(visit: Visit) -> Response:
    """Find what was typed."""
    text, store = visit.form.text("text"), visit.desk.store
    try:
        found = find(store, text, at=visit.at)
    except InvalidRequest as error:
        return _page(visit, Findings(), False, 422, text=text, problems=error.problems)
    if not found.references:
        return _page(visit, found, True, 404, text=text)
    sole = found.sole(text.strip())
    steps = _steps_to(sole, found)
    if steps:
        return visit.to(*steps, decision=sole[1] if sole and sole[0] == "decision" else None)
    more = [("more", "1")] if found.more_refunds or found.more_orders else []
    return RedirectResponse(_address(visit, [*found.references, *more]), 303)


def _steps_to(sole: Reference | None, found: Findings) -> tuple[str, ...]:
    """The page of the one thing that was found, if it has one: of a refund that of its case."""
    cases = {one.refund_id: one for one in found.refunds if one.score_id is not None}
    match sole:
        case ("refund", refund_id) if refund_id in cases:
            return "/case", refund_id
        case ("decision", _):
            return "/case", found.decisions[0].refund.refund_id
        case ("customer", pseudonym):
            return "/customer", pseudonym
        case (kind, pseudonym) if kind in ENTITIES:
            return "/entity", kind, pseudonym
    return ()


def _address(visit: Visit, named: list[tuple[str, str]]) -> str:
    return f"{visit.link('/search')}?{urlencode(named)}"


def _page(
    visit: Visit, found: Findings, is_asked: bool, status: int = 200, *, text: str = "",
    problems: Any = (),
) -> Response:  # fmt: skip
    language = visit.language
    return visit.page(
        "search.html.j2", status=status, found=found, is_asked=is_asked, text=text,
        problems=problems, more="more" in visit.query, sign=drawing.sign, look=pictures.LOOKS,
        kind_name=lambda kind: entity_name(kind, language), standings=STANDING,
        standing=lambda one: pictures.standing_name(one, language),
    )  # fmt: skip


CALLS: Final = (Page("GET", "/search", "read", show), Page("POST", "/search", "read", look))
"""The page, and what its form does."""
