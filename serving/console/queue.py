"""The queue: what waits for a person, the most at stake first; to start with, or to do at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from markupsafe import Markup
from starlette.responses import Response

from features.money import MINOR_UNIT_DIGITS
from serving import codes, waiting
from serving.accounts import limit_of
from serving.console.forms import Form
from serving.console.visit import Page, Visit
from serving.envelope import ApiError
from serving.explanation import drawing, words
from serving.explanation.annals import act_told
from serving.language import Language
from serving.reviews import (
    MOST_AT_ONCE,
    ActRefusedError,
    Doing,
    ReviewConflictError,
    UnknownReviewError,
    act_on,
    act_on_many,
)
from serving.roles import rank_of
from serving.store.refunds import TransitionRefusedError
from serving.store.reviews import Review, Wanted, place_in
from serving.vocabulary import word_of
from serving.wire import InvalidRequest, Problem, shown

ROWS: Final = 50
MOST_PEOPLE: Final = 200
RECENT_MS: Final = 10 * 60_000
"""What was done longer ago is not told as if it were just now."""

REFUSED: Final = (
    UnknownReviewError, ReviewConflictError, ActRefusedError, TransitionRefusedError,
)  # fmt: skip
"""How an act on a review may be refused."""

_STATUS: Final[Mapping[str, Wanted]] = {
    "": {}, "open": {"status": "OPEN"}, "information": {"status": "WAITING"},
    "second": {"proposed": True, "status": None}, "done": {"status": "DONE"},
}  # fmt: skip
_WHOSE: Final = ("", "mine", "nobody")
_ASSIGNING: Final = ("assign", "take")

NOBODY: Final = "-"
"""What forms send to give a case to nobody; it is no name."""


class Filter(NamedTuple):
    """What of the queue is asked for, as the address says it."""

    whose: str = ""
    status: str = ""
    overdue: str = ""
    least: str = ""
    most: str = ""
    currency: str = ""

    @classmethod
    def of(cls, text: Callable[[str], str]) -> Filter:
        """The filter that is in force, by what gives the text of a name."""
        return cls(*(text(name).strip() for name in cls._fields))

    @property
    def address(self) -> dict[str, str]:
        """The parts of an address that ask for it."""
        return {name: value for name, value in self._asdict().items() if value}


# --- what is shown -------------------------------------------------------------------------------


def show(visit: Visit) -> Response:
    """A part of the queue."""
    return _page(visit)


def _page(
    visit: Visit, *, problems: Sequence[Problem] = (), status: int = 200,
    outcomes: Sequence[tuple[str, str | None]] = (), typed: Mapping[str, str] | None = None,
    chosen: Sequence[str] = (), did: str = "",
) -> Response:  # fmt: skip
    store, language = visit.desk.store, visit.language
    asked = filter_of(visit)
    wanted, wrong = _wanted(visit, asked)
    after = visit.query.get("after", "")
    place = waiting.place_of_text(after) if after else None
    if after and place is None:
        wrong.append(Problem("after", "must be the next of the page before", shown(after)))
    part = waiting.part_of_queue(store, limit=ROWS, after=place, **wanted)
    following = part.next and visit.link(
        "/queue", **asked.address, after=waiting.text_of(part.next)
    )  # fmt: skip
    return visit.page(
        "queue.html.j2", status=status if not wrong else 422, asked=asked, cases=part.cases,
        problems=[*problems, *wrong], is_filter_wrong=bool(wrong),
        wrong={one.field for one in problems}, outcomes=outcomes, typed=typed or _NOTHING,
        chosen=chosen, did=did, within=_within(visit), nobody=NOBODY,
        counts=waiting.counts_of(store, visit.account.name, visit.at),
        following=following, is_first=not after, base=visit.desk.rates.base, now=visit.at,
        is_timed=store.clock == "ingest", reason=lambda one: _reason(one, language),
        level=lambda level: words.risk_level_name(level, language), meter=_meter,
        people=people_of(visit), most=MOST_AT_ONCE,
        last=told_of(visit, visit.query.get("done", "")),
    )  # fmt: skip


def filter_of(visit: Visit) -> Filter:
    """The filter in force: a form carries it along, else the address has it."""
    return Filter.of(lambda name: visit.form.text(name) or visit.query.get(name, ""))


def _within(visit: Visit) -> tuple[str, int] | None:
    """What somebody with a limit may approve alone: the limit as a filter has it, and how many."""
    limit = visit.account.limit_minor
    if limit is None or not visit.may("review"):
        return None
    digits = MINOR_UNIT_DIGITS[visit.desk.rates.base]
    text = f"{limit / 10**digits:.{digits}f}"
    return text, visit.desk.store.count_review_queue(payable_at_most=limit)


def _reason(reason: waiting.Reason, language: Language) -> str:
    """A reason's name; where it is about what was asked, in which words that was."""
    name = codes.name_of_code(reason.code, language)
    word = reason.value and word_of(reason.feature, reason.value, language)
    return language.say("{reason}: {word}", reason=name, word=word) if word else name


def _meter(review: Review) -> Markup | str:
    return "" if review.probability is None else drawing.meter(review.probability, None)


class Told(NamedTuple):
    """What somebody did just now on a refund, in words."""

    refund_id: str
    said: str


def told_of(visit: Visit, refund_id: str) -> Told | None:
    """The last thing that whoever asks did on a refund, as the store has it, if it is not old."""
    store = visit.desk.store
    act = waiting.last_of(store.reviews_of(refund_id, 1)[1], visit.account.name)
    is_old = act is not None and store.clock == "ingest" and act.at < visit.at - RECENT_MS
    if act is None or is_old:
        return None
    return Told(refund_id, act_told(act, visit.language).said)


def people_of(visit: Visit) -> list[str]:
    """To whom a case may be given: who has an account, and who has cases already."""
    if not visit.may("assign"):
        return []
    store = visit.desk.store
    active = {one.name for one in store.accounts.all() if one.is_active and one.role != "viewer"}
    return sorted(active | set(store.review_assignees(MOST_PEOPLE)), key=str.casefold)


_NOTHING: Final = {"justification": "", "assignee": "", "abuse": ""}


def _wanted(visit: Visit, asked: Filter) -> tuple[Wanted, list[Problem]]:
    """What a filter asks the store for, and what is wrong with it."""
    wrong: list[Problem] = []
    if asked.status not in _STATUS:
        wrong.append(_one_of("status", _STATUS, asked.status))
    if asked.whose not in _WHOSE:
        wrong.append(_one_of("whose", _WHOSE, asked.whose))
    wanted: dict[str, Any] = {**_STATUS.get(asked.status, {})}
    if asked.whose:
        # Of what is done, mine is what I ended: who answers at once has taken nothing.
        whose = "closed_by" if (asked.status, asked.whose) == ("done", "mine") else "assignee"
        wanted[whose] = visit.account.name if asked.whose == "mine" else ""
    if asked.overdue:
        wanted["overdue_at"] = visit.at
    for name in ("least", "most"):
        if not (text := getattr(asked, name)):
            continue
        try:
            wanted[f"payable_at_{name}"] = limit_of(text, visit.desk.rates.base)
        except InvalidRequest as error:
            wrong += (Problem(name, one.message, one.value) for one in error.problems)
    if asked.currency:
        wanted["currency"] = asked.currency.upper()
        if not re.fullmatch("[A-Z]{3}", wanted["currency"]):
            told = "must be the three letters of a currency, such as GBP"
            wrong.append(Problem("currency", told, shown(asked.currency)))
    return cast(Wanted, wanted), wrong


def _one_of(name: str, known: Any, given: str) -> Problem:
    return Problem(name, f"must be one of {', '.join(filter(None, known))}, or empty", shown(given))


# --- what is done --------------------------------------------------------------------------------


def act(visit: Visit) -> Response:
    """Do the same on every chosen case, and tell what became of each."""
    form, name = visit.form, visit.account.name
    what, chosen = form.text("act"), form.texts("refund")
    typed = {field: form.text(field) for field in _NOTHING}
    if not what:  # Enter was pressed
        wrong = Problem("act", "must be chosen: press the button of what is to be done")
        return _page(visit, problems=[wrong], status=422, typed=typed, chosen=chosen)
    if what != "take" and not visit.may("assign"):
        raise ApiError(403, "act: only managers and administrators act on many cases at once; "
                            "open one, or take them")  # fmt: skip
    try:
        if not chosen:
            raise InvalidRequest([Problem("refund", "must be chosen: tick one case at least")])
        doing = Doing.of(
            "assign" if what in _ASSIGNING else what, by=name, abuse=verdict_of(typed["abuse"]),
            justification=None if what in _ASSIGNING else typed["justification"] or None,
            assignee=assignee_of(what, typed["assignee"], name),
        )  # fmt: skip
        done = act_on_many(visit.desk.store, chosen, doing, at=visit.at, via=visit.via,
                           read=_read(form) if what in _DECIDING else None)  # fmt: skip
    except InvalidRequest as error:
        return _page(visit, problems=error.problems, status=422, typed=typed, chosen=chosen)
    told = [(refund, str(result) if isinstance(result, Exception) else None)
            for refund, result in done.items()]  # fmt: skip
    refused = [refund for refund, why in told if why]
    did = _did(what, len(told) - len(refused), doing, visit.language)
    return _page(visit, outcomes=told, chosen=refused, typed=typed if refused else None, did=did,
                 status=409 if len(refused) == len(told) else 200)  # fmt: skip


_DECIDING: Final = ("approve", "deny", "request_information")
"""These are about the decision that the list showed."""


def _read(form: Form) -> dict[str, str]:
    """The decision that each row of the list was about, by refund."""
    said = (text.partition(" ") for text in form.texts("read"))
    return {refund_id: score_id for score_id, _, refund_id in said}


def assignee_of(what: str, chosen: str, name: str) -> str | None:
    """Whom an act gives a case to, '' for nobody, None where it gives it to no one.

    ``chosen`` is what the form sends. Raises `InvalidRequest` where nobody is chosen, not even
    `NOBODY`.

    >>> assignee_of("take", "", "Ann"), assignee_of("assign", NOBODY, "Ann")
    ('Ann', '')
    """
    if what == "assign" and not chosen:
        raise InvalidRequest([Problem("assignee", "must be chosen: to whom it is given")])
    given = {"take": name, "release": "", "assign": "" if chosen == NOBODY else chosen}
    return given.get(what)


def _did(what: str, count: int, doing: Doing, language: Language) -> str:
    """What was done on so many cases, in words."""
    say_of = language.say_of
    match what, doing.assignee:
        case _ if not count:
            return language.say("Nothing was done.")
        case "take", _:
            return say_of(count, "Took {value} case:", "Took {value} cases:")
        case "assign", str(person):
            return say_of(count, "Gave {value} case to {person}:",
                          "Gave {value} cases to {person}:", person=person)  # fmt: skip
        case "assign", _:
            return say_of(count, "Gave {value} case back to nobody:",
                          "Gave {value} cases back to nobody:")  # fmt: skip
        case "deny", _:
            return say_of(count, "Denied {value} case:", "Denied {value} cases:")
        case "request_information", _:
            return say_of(count, "Asked for information on {value} case:",
                          "Asked for information on {value} cases:")  # fmt: skip
        case "note", _:
            return say_of(count, "Noted on {value} case:", "Noted on {value} cases:")
        case _:
            return say_of(count, "Done on {value} case:", "Done on {value} cases:")


def verdict_of(text: str) -> bool | None:
    """A verdict of abuse as forms send it; raises `InvalidRequest` for what is none.

    >>> verdict_of("yes"), verdict_of("no"), verdict_of("")
    (True, False, None)
    """
    if text not in ("yes", "no", ""):
        raise InvalidRequest([Problem("abuse", "must be yes, no or empty", shown(text))])
    return {"yes": True, "no": False}.get(text)


def start(visit: Visit) -> Response:
    """Open the next case, after the one that the form names, which is given back if it says so."""
    store, left = visit.desk.store, visit.form.text("after")
    reviews = store.reviews_of(left, 1)[0] if left else []
    review = next((one for one in reviews if one.closed_at is None), None)
    if review is None:
        return onward(visit)
    if visit.form.text("release") and review.assignee == visit.account.name:
        _assign(visit, review.refund_id, "")
    return onward(visit, after=review)


def onward(visit: Visit, *, after: Review | None = None, done: str | None = None) -> Response:
    """Send somebody on to their next case, which is theirs from then on; to the queue if none is.

    The next of what the filter asks for that is in force. ``done`` is the refund that they just
    did something on.
    """
    name, rank = visit.account.name, rank_of(visit.account.role)
    asked = filter_of(visit)
    if asked.status == "done":
        asked = Filter()
    wanted, wrong = _wanted(visit, asked)
    place = place_in(after) if after else None
    review = None if wrong else visit.desk.store.next_review(name, rank, place, **wanted)
    if review is None:  # the queue tells what is wrong with a filter
        return visit.to("/queue", done=done, **asked.address)
    if review.assignee is None:
        _assign(visit, review.refund_id, name)
    return visit.to("/case", review.refund_id, done=done, **asked.address)


def _assign(visit: Visit, refund_id: str, name: str) -> None:
    """Give a case to somebody, or back; what was done with it meanwhile its page tells."""
    doing = Doing.of("assign", by=visit.account.name, assignee=name)
    try:
        act_on(visit.desk.store, refund_id, doing, at=visit.at, via=visit.via)
    except REFUSED:
        return


CALLS: Final = (
    Page("GET", "/queue", "read", show),
    Page("POST", "/queue", "review", act),
    Page("POST", "/next", "review", start),
)
