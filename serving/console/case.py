"""A case: why a refund waits, what is known and was said of it, and the acts that settle it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote

from starlette.responses import Response

from serving import asked, attachments
from serving.attachments import MOST_BYTES, MOST_OF_A_REFUND, UnknownAttachmentError
from serving.console.queue import (
    NOBODY,
    REFUSED,
    Told,
    assignee_of,
    filter_of,
    onward,
    people_of,
    told_of,
    verdict_of,
)
from serving.console.visit import Page, Visit
from serving.customer import brief_of
from serving.envelope import ApiError, refusal
from serving.explanation.annals import act_told
from serving.explanation.page import report
from serving.explanation.words import action_name
from serving.reviews import (
    LEAST_CHARACTERS,
    MOST_CHARACTERS,
    Authority,
    Doing,
    act_on,
)
from serving.store.attachments import Attachment
from serving.store.reviews import Review
from serving.waiting import CaseFile, case_file
from serving.wire import InvalidRequest, Problem, shown

FILES_AT_ONCE: Final = 5
MOST_UPLOAD_BYTES: Final = FILES_AT_ONCE * MOST_BYTES + 64 * 1024

_SETTLING: Final = ("approve", "deny", "request_information")
"""After these the next case opens."""

_ON_DECISION: Final = (*_SETTLING, "reopen")
"""These are about the decision that was read."""

_FIELDS: Final = ("justification", "abuse", "stay", "note", "assignee")

FILE_POLICY: Final = "default-src 'none'; sandbox; frame-ancestors 'none'"
"""The Content-Security-Policy of what people attached: nothing in it does anything."""


class Trouble(NamedTuple):
    """Why an act was not done: problems by field, one message, or files that were not attached.

    ``is_doubted`` where it is done once it is sent again.
    """

    status: int
    problems: Sequence[Problem] = ()
    message: str = ""
    files: Sequence[Problem] = ()
    attached: int = 0
    is_doubted: bool = False


FINE: Final = Trouble(200)


def show(visit: Visit) -> Response:
    """The page of a case."""
    return _page(visit, visit.params["refundId"])


def _page(visit: Visit, refund_id: str, trouble: Trouble = FINE) -> Response:
    store, language = visit.desk.store, visit.language
    case = case_file(store, refund_id, _who(visit))
    if case is None:
        raise ApiError(404, f"refundId: no decision on refund {shown(refund_id)!r} is known")
    score_id = visit.query.get("decision", case.score_id)
    if score_id != case.score_id and score_id not in {known for known, _ in case.decisions}:
        told = f"decision: none of {shown(score_id)!r} on refund {refund_id!r} is known"
        raise ApiError(404, told)
    explanation = visit.console.explain(visit.desk, score_id)
    notes = (
        explanation.notes if explanation else tuple(act_told(act, language) for act in case.acts)
    )
    given = [act_told(act, language) for act in case.acts if act.act == "assigned"]
    customer = explanation.verdict.customer if explanation else ""
    customer = customer or (case.review.customer if case.review else "")
    link = visit.link(f"/customer/{customer}")
    return visit.page(
        "case.html.j2", status=trouble.status, case=case, review=case.review, trouble=trouble,
        problems=trouble.problems, wrong={one.field for one in trouble.problems},
        typed={name: visit.form.text(name) for name in _FIELDS},
        score_id=score_id, is_latest=score_id == case.score_id, asked=filter_of(visit),
        report=report(explanation, language, link) if explanation else None,
        what_is_asked=asked.asked_of(store, score_id, language), customer_link=link,
        brief=brief_of(store, customer) if customer else None, nobody=NOBODY,
        notes=[note for note in notes if note not in given], given=given,
        files=attachments.attachments_of(store, refund_id), now=visit.at,
        is_timed=store.clock == "ingest", base=visit.desk.rates.base,
        least=LEAST_CHARACTERS, most=MOST_CHARACTERS, most_files=MOST_OF_A_REFUND,
        at_once=FILES_AT_ONCE, most_bytes=MOST_BYTES, last=_told(visit, case),
        people=people_of(visit), is_own=lambda one: one.author == visit.account.name,
        ended=_ended(case, visit), earlier=[_how(one, visit) for one in case.earlier],
    )  # fmt: skip


def _who(visit: Visit) -> Authority:
    account = visit.account
    return Authority(account.name, account.role, account.limit_minor, has_account=True)


def _told(visit: Visit, case: CaseFile) -> Told | None:
    """What was done just now, as the store has it: an act, or a file."""
    done, added = visit.query.get("done", ""), visit.query.get("file", "")
    if added:
        found = attachments.attachments_of(visit.desk.store, case.refund_id)
        names = [one.name for one in found
                 if one.id == added and one.author == visit.account.name]  # fmt: skip
        if names:
            said = visit.language.say("Attached: {name}", name=names[0])
            return Told(case.refund_id, said)
    return told_of(visit, done)


def _ended(case: CaseFile, visit: Visit) -> str | None:
    """How a review that is done ended, and what the shop gets to hear, or did since."""
    review, say = case.review, visit.language.say
    if review is None or review.closed_at is None:
        return None
    ended = _how(review, visit)
    if review.disposition is None:
        return ended
    since = {
        "EXECUTING": say("It is reported as being paid since."),
        "REFUNDED": say("It was reported paid since, so it is not paid again."),
        "FAILED": say("Paying it was reported to have failed since."),
        "CANCELED": say("It was reported canceled since."),
    }.get(case.state or "")  # fmt: skip
    return f"{ended} {since or _promised(review, visit)}"


def _promised(review: Review, visit: Visit) -> str:
    return visit.language.say(
        "The shop is told so by the webhook refund.reviewed; asked again with the same fields, it "
        "is answered: {action}.",
        action=action_name(cast(Any, review.disposition), visit.language),
    )


def _how(review: Review, visit: Visit) -> str:
    """How a review ended."""
    say, who = visit.language.say, review.closed_by or ""
    when = visit.language.instant(review.closed_at or 0)
    match review.ending:
        case "approved" if review.approval is not None and review.approval.second_by:
            first, second = review.approval.first_by, review.approval.second_by
            return say("{first} and {second} approved it, on {when}.", first=first,
                       second=second, when=when)  # fmt: skip
        case "approved":
            return say("{person} approved it, on {when}.", person=who, when=when)
        case "denied":
            return say("{person} denied it, on {when}.", person=who, when=when)
        case "decided_again":
            return say("It was asked for again with other fields, and decided anew, on {when}.",
                       when=when)  # fmt: skip
        case "paid":
            return say("It was reported paid, on {when}.", when=when)
        case "declined":
            return say("It was reported declined, on {when}.", when=when)
        case _:
            return say("It was reported canceled, on {when}.", when=when)


# --- acts ----------------------------------------------------------------------------------------


def act(visit: Visit) -> Response:
    """Do something on the case; then the next one opens, or the same again."""
    refund_id, form, say = visit.params["refundId"], visit.form, visit.language.say
    what = form.text("act")
    if what == "attach":
        return _attach(visit)
    if not what:  # Enter was pressed
        told = say("Choose what to do: press one of the buttons")
        return _page(visit, refund_id, Trouble(422, message=told))
    try:
        doing = _doing(visit, what)
        if what == "approve" and doing.abuse and not form.text("sure"):
            told = say("You approve a refund that you call abuse: send it again to do so")
            return _page(visit, refund_id, Trouble(422, message=told, is_doubted=True))
        done = act_on(visit.desk.store, refund_id, doing, at=visit.at, via=visit.via,
                      review_ms=visit.desk.review_ms)  # fmt: skip
    except InvalidRequest as error:
        return _page(visit, refund_id, Trouble(422, _named(error, what)))
    except REFUSED as error:
        body = refusal(error)[0]
        told = _asked_anew(visit, refund_id) or body["message"]
        return _page(visit, refund_id, Trouble(body["status"], message=told))
    if what in _SETTLING and not form.text("stay"):
        is_still_there = filter_of(visit).status == "information" and done.closed_at is None
        return onward(visit, done=refund_id, after=done if is_still_there else None)
    return visit.to("/case", refund_id, done=refund_id, **filter_of(visit).address)


def _asked_anew(visit: Visit, refund_id: str) -> str | None:
    """What changed since the decision that was read; None where that is the one that waits."""
    store, language, read = visit.desk.store, visit.language, visit.form.text("scoreId")
    now = next((one for one in store.reviews_of(refund_id)[0] if one.closed_at is None), None)
    decision = store.decision(read) if read else None
    if now is None or decision is None or decision.refund_id != refund_id or read == now.score_id:
        return None
    before, after = (asked.asked_of(store, each, language) for each in (read, now.score_id))
    found = asked.changes(before, after, language) if before and after else []
    changed = "; ".join(found) or language.say("other fields")
    return language.say("It was asked for again meanwhile: {changes}. Read it again",
                        changes=changed)  # fmt: skip


def _doing(visit: Visit, what: str) -> Doing:
    form, name = visit.form, visit.account.name
    assignee = assignee_of(what, form.text("assignee"), name)
    text = form.text("note") if what == "note" else form.text("justification")
    is_explained = what in _ON_DECISION or what == "note"
    return Doing.of(
        "assign" if assignee is not None else what, by=name, assignee=assignee,
        justification=text or None if is_explained else None,
        abuse=verdict_of(form.text("abuse")) if what in _SETTLING else None,
        score_id=form.text("scoreId") or None if what in _ON_DECISION else None,
    )  # fmt: skip


def _named(error: InvalidRequest, what: str) -> list[Problem]:
    """The problems, by the names that the form's fields have."""
    renamed: Mapping[str, str] = {"justification": "note"} if what == "note" else {}
    return [Problem(renamed.get(one.field, one.field), one.message, one.value)
            for one in error.problems]  # fmt: skip


# --- evidence ------------------------------------------------------------------------------------


def _attach(visit: Visit) -> Response:
    """Attach files; those that are refused are told, and hinder no others."""
    refund_id, files = visit.params["refundId"], visit.form.files("file")
    problems, added = [], list[Attachment]()
    if not files:
        problems.append(Problem("file", "must be chosen"))
    if len(files) > FILES_AT_ONCE:
        problems.append(Problem("file", f"must be at most {FILES_AT_ONCE} at once", len(files)))
        files = []
    try:
        for file in files:
            try:
                added.append(attachments.attach(
                    visit.desk.store, refund_id, file.name, file.content, by=visit.account.name,
                    at=visit.at, via=visit.via,
                ))  # fmt: skip
            except InvalidRequest as error:
                problems += [Problem(shown(file.name) or "file", one.message, one.value)
                             for one in error.problems]  # fmt: skip
    except UnknownAttachmentError as error:
        raise ApiError(404, str(error)) from None
    if problems:
        return _page(visit, refund_id, Trouble(422, files=problems, attached=len(added)))
    return visit.to("/case", refund_id, file=added[-1].id, **filter_of(visit).address)


def attachment(visit: Visit) -> Response:
    """The content of a file: pictures are shown, anything else is saved."""
    try:
        found, content = attachments.read(visit.desk.store, visit.params["id"])
    except UnknownAttachmentError as error:
        raise ApiError(404, str(error)) from None
    except attachments.AlteredAttachmentError as error:
        raise ApiError(409, str(error)) from None
    how = "inline" if found.kind.startswith("image/") else "attachment"
    headers = {
        "Content-Disposition": f"{how}; filename*=UTF-8''{quote(found.name, safe='')}",
        "Content-Security-Policy": FILE_POLICY, "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "private, no-store",
    }  # fmt: skip
    return Response(content, headers=headers, media_type=found.kind)


def detach(visit: Visit) -> Response:
    """Remove a file."""
    try:
        gone = attachments.remove(visit.desk.store, visit.params["id"], by=visit.account.name,
                                  at=visit.at, via=visit.via)  # fmt: skip
    except UnknownAttachmentError as error:
        raise ApiError(404, str(error)) from None
    return visit.to("/case", gone.refund_id)


CALLS: Final[tuple[Page, ...]] = (
    Page("GET", "/case/{refundId:path}", "read", show),
    Page("POST", "/case/{refundId:path}", "review", act, MOST_UPLOAD_BYTES),
    Page("GET", "/attachment/{id}", "read", attachment),
    Page("POST", "/attachment/{id}", "review", detach),
)
