"""The review desk at the command line: list what waits, show a review, act on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from commands.shared import (
    AsJson,
    By,
    ModeOption,
    asking,
    kept_store_of,
    note,
    now_ms,
    person,
    print_json,
    print_table,
    refuse,
    said,
    settings_of,
    shown_time,
)

if TYPE_CHECKING:
    from serving.managed import ReviewBody

app = typer.Typer(no_args_is_help=True, help="The review desk: refunds that wait for a person.")

_MOST_NAMES: Final = 20

RefundId = Annotated[str, typer.Argument(help="The refund, as requests name it.")]
Because = Annotated[str, typer.Option("--because", help="Why: 10 to 2,000 characters.")]
Abuse = Annotated[
    bool | None,
    typer.Option("--abuse/--no-abuse", help="Your verdict, which models learn from; none if left "
                 "out: a claim may be refused and be honest."),
]  # fmt: skip
ScoreId = Annotated[
    str | None, typer.Option("--score-id", help="The decision you read: refused if it is another.")
]


@app.command("list")
def list_(
    status: Annotated[
        Literal["OPEN", "WAITING", "DONE"] | None, typer.Option(help="Only these.")
    ] = None,
    assignee: Annotated[
        str | None, typer.Option(help="Only this person's; '' for nobody's.")
    ] = None,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only what is late.")] = False,
    proposed: Annotated[
        bool, typer.Option("--proposed", help="Only what waits for a second person.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """List what waits for a person, what is most at stake first.

    Example: `recourse reviews list --overdue`
    """
    from serving.reviewing import body_of

    at, base = now_ms(), settings_of().base_currency
    wanted: Any = {"status": status, "assignee": assignee, "overdue_at": at if overdue else None,
                   "proposed": True if proposed else None}  # fmt: skip
    with kept_store_of(mode) as store:
        found = store.review_queue(**wanted, limit=limit)
        more = store.count_review_queue(**wanted) - len(found) if len(found) == limit else 0
        having = store.review_assignees(_MOST_NAMES) if assignee and not found else []
        bodies = [body_of(store, review, at, base) for review in found]
    if as_json:
        print_json(bodies)
    else:
        for body in bodies:
            _print_waiting(body)
    if more > 0:
        note.print(f"{more:,} more {'are done' if status == 'DONE' else 'wait'}: --limit "
                   f"{len(found) + more} lists all", markup=False)  # fmt: skip
    if not found:
        note.print(f"nothing like this waits in the {mode} store", markup=False)
    if having:
        names = ", ".join(map(_seen, having))
        note.print(f"of what waits, these have any: {names}", markup=False)


def _print_waiting(body: ReviewBody) -> None:
    """A line of the queue."""
    loss, base = body["expectedLoss"], body["baseCurrency"]
    at_stake = "unknown" if loss is None else f"{loss:,} {base}"
    whose = f"  {_seen(body['assignee'])}" if body["assignee"] else ""
    late = "  OVERDUE" if body["overdue"] else ""
    late += "  PROPOSED" if body["proposal"] else ""
    print(f"  {_seen(body['refundId']):<28} {body['status']:<8} at stake {at_stake:>16}  asked "
          f"{body['amount']:,} {_seen(body['currency'])}  due {shown_time(body['dueAt'])}"
          f"{whose}{late}")  # fmt: skip


@app.command("show")
def show(refund_id: RefundId, mode: ModeOption = "live", as_json: AsJson = False) -> None:
    """Show the latest review of a refund, and what people did and why.

    Example: `recourse reviews show r-1 --json`
    """
    from serving.reviewing import acts_of, body_of

    at, base = now_ms(), settings_of().base_currency
    with kept_store_of(mode) as store:
        every, acts = store.reviews_of(refund_id)
        bodies = [body_of(store, review, at, base) for review in every]
    if not bodies:
        refuse(f"{_seen(refund_id)}: no review of it is known in the {mode} store")
    body: dict[str, Any] = {**bodies[0]}
    if as_json:
        print_json({**body, "acts": acts_of(acts), "earlier": bodies[1:]})
        return
    times, proposal = ("openedAt", "dueAt", "closedAt"), body.pop("proposal")
    print_table((name, shown_time(value) if name in times else _seen(value))
                for name, value in body.items() if value is not None)  # fmt: skip
    if proposal:
        print(f"  approval proposed by {_seen(proposal['by'])}; waits for "
              f"{proposal['needs'] or 'somebody'} or higher whose limit is enough")  # fmt: skip
    for act in acts:
        print(f"  {shown_time(act.at)}  {_seen(act.actor)}: {act.act}"
              f"{f' {_seen(act.assignee)}' if act.assignee else ''}"
              f"{'' if act.abuse is None else f' (abuse: {act.abuse})'}"
              f"{f': {_quoted(act.justification)}' if act.justification else ''}")  # fmt: skip


@app.command("approve")
def approve(
    refund_id: RefundId, because: Because, abuse: Abuse = None, score_id: ScoreId = None,
    by: By = None, mode: ModeOption = "live", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Approve a refund that waits: asked again, it is allowed, unless a hard rule prevents it.

    Example: `recourse reviews approve r-1 --because "The carrier lost the parcel." --no-abuse`
    """
    _act("approve", refund_id, by, mode, as_json, justification=because, abuse=abuse,
         score_id=score_id)  # fmt: skip


@app.command("deny")
def deny(
    refund_id: RefundId, because: Because, abuse: Abuse = None, score_id: ScoreId = None,
    by: By = None, mode: ModeOption = "live", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Deny a refund that waits: asked again, it is prevented.

    Example: `recourse reviews deny r-1 --because "The parcel was signed for." --abuse --by Ann`
    """
    _act("deny", refund_id, by, mode, as_json, justification=because, abuse=abuse,
         score_id=score_id)  # fmt: skip


@app.command("ask")
def ask(
    refund_id: RefundId, because: Because, score_id: ScoreId = None, by: By = None,
    mode: ModeOption = "live", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Ask for more information; the refund goes on waiting.

    Example: `recourse reviews ask r-1 --because "A photo of the empty box is needed."`
    """
    _act("request_information", refund_id, by, mode, as_json, justification=because,
         score_id=score_id)  # fmt: skip


@app.command("assign")
def assign(
    refund_id: RefundId,
    to: Annotated[str, typer.Argument(help="Whose it is from now on; '' for nobody's.")],
    by: By = None, mode: ModeOption = "live", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Make a review somebody's.

    Example: `recourse reviews assign r-1 Ann`
    """
    _act("assign", refund_id, by, mode, as_json, assignee=to)


@app.command("note")
def note_(
    refund_id: RefundId,
    text: Annotated[str, typer.Argument(help="The note: up to 2,000 characters.")],
    by: By = None, mode: ModeOption = "live", as_json: AsJson = False,
) -> None:  # fmt: skip
    """Note something on a review; nothing else changes.

    Example: `recourse reviews note r-1 "The carrier answers by Friday."`
    """
    _act("note", refund_id, by, mode, as_json, justification=text)


@app.command("withdraw")
def withdraw(
    refund_id: RefundId, by: By = None, mode: ModeOption = "live", as_json: AsJson = False
) -> None:
    """Take back an approval of yours that waits for a second person.

    Example: `recourse reviews withdraw r-1 --by Ann`
    """
    _act("withdraw", refund_id, by, mode, as_json)


@app.command("reopen")
def reopen(
    refund_id: RefundId, because: Because, by: By = None, mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Let a refund that was refused wait for a person, who may approve it.

    Example: `recourse reviews reopen r-1 --because "The courier admits the theft."`
    """
    _act("reopen", refund_id, by, mode, as_json, justification=because)


def _seen(value: Any) -> Any:
    """What others wrote as one line of a terminal: nothing in it moves the cursor."""
    from serving.seen import seen

    return seen(value, line=True)


def _quoted(text: str) -> str:
    """A text of several lines, each but the first marked: none looks like a line of ours."""
    return "\n      | ".join(map(_seen, text.split("\n")))


def _act(
    act: str, refund_id: str, by: str | None, mode: Literal["live", "test"], as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    from serving.reviewing import body_of
    from serving.reviews import (
        ActRefusedError,
        Doing,
        ReviewConflictError,
        UnknownReviewError,
        act_on,
        role_above,
    )
    from serving.store.refunds import TransitionRefusedError

    try:
        doing, at, settings = Doing.of(act, by=person(by), **given), now_ms(), settings_of()
        with kept_store_of(mode) as store:
            done = act_on(store, refund_id, doing, at=at, via=asking(),
                          limit_minor=settings.review_limit_minor,
                          review_ms=round(settings.review_hours * 3_600_000))  # fmt: skip
            body = body_of(store, done, at, settings.base_currency)
    except (ValueError, UnknownReviewError, ReviewConflictError, ActRefusedError,
            TransitionRefusedError) as error:  # fmt: skip
        refuse(said(error))
    name = _seen(refund_id)
    if as_json:
        print_json(body)
    elif doing.kind == "noted":
        print(f"{name}: noted by {doing.by}")
    elif doing.kind == "approved" and done.proposal is not None:
        role = role_above(done.proposal.first_rank)
        who = f"{role} or higher" if role else "somebody"
        print(f"{name}: approval proposed by {doing.by}, above their limit; it waits for {who} "
              "whose limit is enough")  # fmt: skip
    elif done.closed_at is not None:
        unless = ", unless a hard rule prevents it" if done.disposition == "ALLOW" else ""
        print(f"{name}: {doing.kind} by {doing.by}; asked again, it is answered "
              f"{done.disposition}{unless}")  # fmt: skip
    elif doing.kind == "assigned":
        print(f"{name}: {_seen(done.assignee) or 'nobody'} has it")
    elif doing.kind == "proposal_withdrawn":
        print(f"{name}: {doing.by} took the approval back; it goes on waiting")
    elif doing.kind == "reopened":
        print(f"{name}: reopened by {doing.by}; it waits for a person")
    else:
        print(f"{name}: information requested by {doing.by}; it goes on waiting")
