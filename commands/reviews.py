"""The review desk at the command line: list what waits, show a review, act on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

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
    shown_time,
)

app = typer.Typer(no_args_is_help=True, help="The review desk: refunds that wait for a person.")

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
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """List what waits for a person, what is most at stake first.

    Example: `recourse reviews list --overdue`
    """
    from serving.reviewing import body_of

    at = now_ms()
    with kept_store_of(mode) as store:
        found = store.review_queue(
            status=status, assignee=assignee, overdue_at=at if overdue else None, limit=limit
        )
    if as_json:
        print_json([body_of(review, at) for review in found])
        return
    for review in found:
        late = "  OVERDUE" if review.is_overdue(at) else ""
        whose = f"  {review.assignee}" if review.assignee else ""
        loss = (
            "unknown" if review.expected_loss_minor is None else f"{review.expected_loss_minor:,}"
        )
        print(f"  {_seen(review.refund_id):<28} {review.status:<8} at stake {loss:>12}  asked "
              f"{review.amount_minor:,} {review.currency}  due {shown_time(review.due_at)}"
              f"{whose}{late}")  # fmt: skip
    if not found:
        note.print(f"nothing like this waits in the {mode} store", markup=False)


@app.command("show")
def show(refund_id: RefundId, mode: ModeOption = "live", as_json: AsJson = False) -> None:
    """Show the latest review of a refund, and what people did and why.

    Example: `recourse reviews show r-1 --json`
    """
    from serving.reviewing import acts_of, body_of

    at = now_ms()
    with kept_store_of(mode) as store:
        every, acts = store.reviews_of(refund_id)
    if not every:
        refuse(f"{refund_id}: no review of it is known in the {mode} store")
    body: dict[str, Any] = {**body_of(every[0], at)}
    if as_json:
        print_json({**body, "acts": acts_of(acts),
                    "earlier": [body_of(review, at) for review in every[1:]]})  # fmt: skip
        return
    times = ("openedAt", "dueAt", "closedAt")
    print_table((name, shown_time(value) if name in times else _seen(value))
                for name, value in body.items() if value is not None)  # fmt: skip
    for act in acts:
        print(f"  {shown_time(act.at)}  {act.actor}: {act.act}"
              f"{f' {act.assignee}' if act.assignee else ''}"
              f"{'' if act.abuse is None else f' (abuse: {act.abuse})'}"
              f"{f': {act.justification}' if act.justification else ''}")  # fmt: skip


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


def _seen(value: Any) -> Any:
    """An id as a terminal may be given it: a backend may send what moves the cursor."""
    return repr(value) if isinstance(value, str) and not value.isprintable() else value


def _act(
    act: str, refund_id: str, by: str | None, mode: Literal["live", "test"], as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    from serving.reviewing import body_of
    from serving.reviews import Doing, ReviewConflictError, UnknownReviewError, act_on
    from serving.store.refunds import TransitionRefusedError

    try:
        doing, at = Doing.of(act, by=person(by), **given), now_ms()
        with kept_store_of(mode) as store:
            done = act_on(store, refund_id, doing, at=at, via=asking())
    except (ValueError, UnknownReviewError, ReviewConflictError, TransitionRefusedError) as error:
        refuse(said(error))
    if as_json:
        print_json(body_of(done, at))
    elif done.closed_at is not None:
        print(f"{refund_id}: {doing.kind} by {doing.by}; asked again, it is answered "
              f"{done.disposition}")  # fmt: skip
    elif doing.kind == "assigned":
        print(f"{refund_id}: {done.assignee or 'nobody'} has it")
    else:
        print(f"{refund_id}: information requested by {doing.by}; it goes on waiting")
