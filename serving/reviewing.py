"""The calls of the review desk: what waits for a person, one review, and what people do on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_args

from pydantic import StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from serving import reviews
from serving.desk import Desk
from serving.envelope import ApiError
from serving.managed import ProposalBody, ReviewActBody, ReviewBody, ReviewData
from serving.management import Query, validated
from serving.reviews import ACTS, MOST_CHARACTERS, Doing, role_above
from serving.store.keys import ApiKey
from serving.store.reviews import Act, Review, Status, Wanted, place_in
from serving.store.store import Store
from serving.wire import (
    Flag,
    Identifier,
    InvalidRequest,
    OneOf,
    Problem,
    Says,
    Wire,
    load_object,
    shown,
)

if TYPE_CHECKING:
    from serving.api import Api

SCOPE: Final = ("review",)
STATUSES: Final = get_args(Status)
QUEUE: Final = (
    "status", "assignee", "overdue", "proposed", "payableAtLeast", "currency", "orderId",
    "customer", "openedUntil", "limit", "after",
)  # fmt: skip
"""What the queue is asked for by."""

MOST_EARLIER: Final = 100
"""How many earlier reviews of a refund are answered at most: one asked for again and again."""

_PLACE: Final = re.compile(r"(-?[0-9]{1,18}|-4611686018427387904)\.([0-9a-zA-Z_-]{1,256})")

_JUSTIFICATION: Final = f"must be a string of at most {MOST_CHARACTERS} characters"


class ReviewActionBody(Wire):
    """What is done on a review, and why: 10 characters at least, but in a note, which is its own.

    ``abuse`` is the analyst's verdict, apart from the answer: a claim may be refused for coming too
    late. ``scoreId`` is the decision that was read: if the review is about another by now, nothing
    is done. ``assignee`` is for assign: a person, or empty for nobody.
    """

    act: Annotated[str, OneOf(ACTS)]
    justification: Annotated[
        str,
        StringConstraints(strict=True, min_length=1, max_length=MOST_CHARACTERS),
        Says("justification", _JUSTIFICATION),
    ] | None = None  # fmt: skip
    abuse: Flag | None = None
    assignee: Annotated[
        str, StringConstraints(strict=True, max_length=100),
        Says("person", "must be a person's name of at most 100 characters"),
    ] | None = None  # fmt: skip
    score_id: Identifier | None = None


class Reviewing:
    """The calls about reviews, over the desks of an `Api`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def queue(self, request: Request) -> Response:
        """What waits, the most at stake first.

        ``?status=`` OPEN, WAITING or DONE, ``?assignee=`` one person's, or empty for nobody's,
        ``?overdue=true`` what is late, ``?proposed=`` what waits for a second person, or not;
        further by amount, currency, order, customer and age. ``?limit=`` so many, ``?after=`` the
        ``next`` of the page before.
        """

        def work(desk: Desk, key: ApiKey, at: int) -> Mapping[str, Any]:
            query = Query(request.query_params, QUEUE)
            status = query.one_of("status", STATUSES)
            overdue, limit, after = query.flag("overdue"), query.limit(), _after(query)
            proposed = query.flag("proposed") if query.given("proposed") is not None else None
            wanted = Wanted(
                status=cast(Status | None, status), assignee=query.given("assignee"),
                overdue_at=at if overdue else None, proposed=proposed,
                payable_at_least=_number(query, "payableAtLeast"),
                currency=query.given("currency"), order_id=query.given("orderId"),
                customer=query.given("customer"), opened_until=_number(query, "openedUntil"),
            )  # fmt: skip
            query.refuse()
            found = desk.store.review_queue(**wanted, limit=limit + 1, after=after)
            place = place_in(found[limit - 1]) if len(found) > limit else None
            return {
                "reviews": [
                    body_of(desk.store, review, at, desk.rates.base) for review in found[:limit]
                ],
                "next": f"{place[0]}.{place[1]}" if place else None,
            }

        return await self._api.manage(request, SCOPE, work)

    async def review(self, request: Request) -> Response:
        """The latest review of a refund, with all that was done on the refund's reviews."""
        refund_id = request.path_params["refundId"]

        def work(desk: Desk, key: ApiKey, at: int) -> Mapping[str, Any]:
            return cast(Mapping[str, Any], data_of(desk, refund_id, at))

        return await self._api.manage(request, SCOPE, work)

    async def act(self, request: Request) -> Response:
        """Do one of `serving.reviews.ACTS`, as the person whose key it is."""
        refund_id = request.path_params["refundId"]
        body = await self._api.body(request)

        def work(desk: Desk, key: ApiKey, at: int) -> Mapping[str, Any]:
            if key.name is None:
                raise ApiError(
                    403, "Authorization: this key bears no name, and a review is signed by a "
                    "person; ask with a key that was made with recourse keys create --name",
                )  # fmt: skip
            reviews.act_on(
                desk.store, refund_id, _doing(load_object(body), by=key.name), at=at,
                via=f"key:{key.id}", limit_minor=desk.review_limit_minor, review_ms=desk.review_ms,
            )  # fmt: skip
            return cast(Mapping[str, Any], data_of(desk, refund_id, at))

        return await self._api.manage(request, SCOPE, work)


def _doing(raw: Mapping[str, Any], by: str) -> Doing:
    """What a body asks for; raises `InvalidRequest` with all that is wrong with it, by field."""
    problems: list[Problem] = []
    try:
        validated(ReviewActionBody, raw)
    except InvalidRequest as error:
        problems += error.problems
    said = {problem.field for problem in problems}
    texts = {
        name: value if isinstance(value := raw.get(wire), str) else None
        for name, wire in (("act", "act"), ("justification", "justification"),
                           ("assignee", "assignee"), ("score_id", "scoreId"))
    }  # fmt: skip
    abuse = raw.get("abuse")
    try:
        doing = Doing.of(
            texts["act"] or "", by=by, abuse=abuse if isinstance(abuse, bool) else None,
            justification=texts["justification"], assignee=texts["assignee"],
            score_id=texts["score_id"],
        )  # fmt: skip
    except InvalidRequest as error:
        problems += (problem for problem in error.problems if problem.field not in said)
        raise InvalidRequest(problems) from None
    if problems:
        raise InvalidRequest(problems)
    return doing


def _after(query: Query) -> tuple[int, str] | None:
    """The place of the last review of the page before."""
    given = query.given("after")
    if given is None:
        return None
    found = _PLACE.fullmatch(given)
    if found is None:
        query.add("after", "must be the next of the page before", given)
        return None
    return int(found[1]), found[2]


def _number(query: Query, name: str) -> int | None:
    """A whole number that is asked by."""
    given = query.given(name)
    if given is None or (given.isascii() and given.isdigit() and len(given) <= 18):
        return None if given is None else int(given)
    query.add(name, "must be a whole number of at most 18 digits", given)
    return None


def data_of(desk: Desk, refund_id: str, at: int) -> ReviewData:
    """A refund's latest review and its acts; raises `ApiError` (404) for one without any."""
    most = 1 + MOST_EARLIER
    every, acts = desk.store.reviews_of(refund_id, most) if "\0" not in refund_id else ([], [])
    if not every:
        raise ApiError(404, f"refundId: no review of refund {shown(refund_id)!r} is known")
    found = cast(ReviewData, body_of(desk.store, every[0], at, desk.rates.base))
    found["acts"] = acts_of(acts)
    found["earlier"] = [body_of(desk.store, review, at, desk.rates.base) for review in every[1:]]
    return found


def body_of(store: Store, review: Review, at: int, base_currency: str) -> ReviewBody:
    """A review of a store as it is answered at ``at`` (epoch ms)."""
    return {
        "refundId": review.refund_id,
        "scoreId": review.score_id,
        "status": review.status,
        "customer": review.customer,
        "orderId": review.order_id,
        "amount": review.amount_minor,
        "due": review.due_minor,
        "currency": review.currency,
        "payable": review.payable_minor,
        "expectedLoss": review.expected_loss_minor,
        "baseCurrency": base_currency,
        "abuseProbability": review.probability,
        "openedAt": review.opened_at,
        "dueAt": review.due_at,
        "overdue": store.is_overdue(review, at),
        "assignee": review.assignee,
        "disposition": review.disposition,
        "ending": review.ending,
        "closedAt": review.closed_at,
        "closedBy": review.closed_by,
        "proposal": _proposal_of(review),
    }


def _proposal_of(review: Review) -> ProposalBody | None:
    if (found := review.proposal) is None:
        return None
    return {"by": found.first_by, "at": found.first_at, "abuse": found.abuse,
            "needs": role_above(found.first_rank)}  # fmt: skip


def acts_of(acts: Iterable[Act]) -> list[ReviewActBody]:
    """What people did, as it is answered."""
    return [
        {"scoreId": act.score_id, "at": act.at, "act": act.act, "by": act.actor,
         "justification": act.justification, "abuse": act.abuse, "assignee": act.assignee}
        for act in acts
    ]  # fmt: skip
