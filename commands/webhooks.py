"""Webhooks: who is told what, what became of it, and sending it again."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from commands.shared import (
    AsJson,
    By,
    Mode,
    ModeOption,
    asking,
    instant,
    note,
    now_ms,
    person,
    print_json,
    refuse,
    settings_of,
    shown_time,
    store_of,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from serving.store.outbox import Delivery, Endpoint
    from serving.store.store import Store

app = typer.Typer(no_args_is_help=True, help="Webhooks: who is told what, and what became of it.")

Named = Annotated[str, typer.Argument(help="The endpoint's URL, or its id as `list` shows it.")]


@app.command("add")
def add(
    url: Annotated[str, typer.Argument(help="Where to post: https://…")],
    types: Annotated[
        list[str], typer.Option("--type", help="What to tell, such as refund.decided; repeat it.")
    ],
    by: By = None,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Tell an endpoint of events, and print the secret that signs them, this once.

    Example: `recourse webhooks add https://shop.example/hook --type refund.decided`
    """
    from serving.outbound import UrlRefused, checked_url

    at = now_ms()
    with store_of(mode) as store:
        try:
            checked_url(url, allow_private=settings_of().webhook_allow_private)
            with store.database.write() as connection:
                endpoint, secret = store.outbox.add(connection, url, types, at)
                _audit(store, connection, "webhook_added", endpoint.id, by, at,
                       types=list(endpoint.types))  # fmt: skip
        except UrlRefused as error:
            refuse(str(error))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    _print_secret(endpoint.id, secret, as_json=as_json)


@app.command("list")
def list_endpoints(mode: ModeOption = "live", as_json: AsJson = False) -> None:
    """List the endpoints, without their secrets, and what waits for them.

    Example: `recourse webhooks list --mode live`
    """
    with store_of(mode) as store:
        waiting, age_ms, dead = store.outbox_lag(now_ms())
        with store.database.read() as connection:
            found = store.outbox.endpoints(connection)
    if as_json:
        print_json({"endpoints": [asdict(one) for one in found], "waiting": waiting,
                    "oldest_waiting_ms": age_ms, "dead": dead})  # fmt: skip
        return
    for one in found:
        state = "told" if one.disabled_at is None else f"disabled: {one.disabled_why}"
        print(f"  {one.id}  {one.url}  {', '.join(one.types)}  {state}")
    print(f"waiting: {waiting:,}, the oldest for {age_ms / 1000:,.0f} s; given up: {dead:,}")


@app.command("disable")
def disable(
    endpoint: Named,
    why: Annotated[str, typer.Option(help="Why; it is kept.")] = "by hand",
    by: By = None,
    mode: ModeOption = "live",
) -> None:
    """Tell an endpoint nothing any more; what waits for it is given up.

    Adding the same URL again tells it again, with a new secret.

    Example: `recourse webhooks disable https://shop.example/hook --why moved`
    """
    at = now_ms()
    with store_of(mode) as store, store.database.write() as connection:
        found = _endpoint(store, connection, endpoint, mode)
        was_told = store.outbox.disable(connection, found.id, why, at)
        if was_told:
            _audit(store, connection, "webhook_disabled", found.id, by, at, why=why)
    if not was_told:
        refuse(f"endpoint: {found.id} is disabled already: {found.disabled_why}")
    print(f"{found.id} is told nothing any more")


@app.command("rotate-secret")
def rotate_secret(
    endpoint: Named, by: By = None, mode: ModeOption = "live", as_json: AsJson = False
) -> None:
    """Make a new secret for an endpoint and print it, this once; for a day both sign.

    Example: `recourse webhooks rotate-secret https://shop.example/hook`
    """
    from serving.webhooks import OVERLAP_MS

    at = now_ms()
    with store_of(mode) as store, store.database.write() as connection:
        found = _endpoint(store, connection, endpoint, mode)
        secret = store.outbox.rotate_secret(connection, found.id, at, OVERLAP_MS)
        _audit(store, connection, "webhook_secret_rotated", found.id, by, at)
    _print_secret(found.id, secret, as_json=as_json)
    note.print(f"the one before it signs beside it until {shown_time(at + OVERLAP_MS)}")


@app.command("deliveries")
def deliveries(
    dead: Annotated[bool, typer.Option("--dead", help="Only what was given up.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Show the latest webhooks and what became of them, the newest first.

    Example: `recourse webhooks deliveries --dead`
    """
    with store_of(mode) as store, store.database.read() as connection:
        found = store.outbox.deliveries(connection, only_dead=dead, limit=limit)
    if as_json:
        print_json([{**asdict(one), "state": one.state} for one in found])
        return
    for one in found:
        print(f"  {one.webhook_id}  {one.endpoint_id}  {one.type:<16} {_shown_state(one)}")
    if not found:
        note.print(f"the {mode} store has no such delivery", markup=False)


@app.command("replay")
def replay(
    webhook: Annotated[
        str | None, typer.Argument(help="A webhook's id, as `deliveries` shows it.")
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All that was given up.")] = False,
    since: Annotated[
        str | None, typer.Option(help="All that was announced then or later; ISO 8601.")
    ] = None,
    by: By = None,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Send again what was delivered or given up, under the same webhook-id.

    Several choices narrow it down: `--dead --since T` is what was given up since then.

    Example: `recourse webhooks replay --dead`
    """
    from_at, at = instant(since, "--since"), now_ms()
    if webhook is None and not dead and from_at is None:
        raise typer.BadParameter("expected a webhook's id, --dead or --since")
    with store_of(mode) as store, store.database.write() as connection:
        count = store.outbox.replay(connection, at, webhook_id=webhook, only_dead=dead,
                                    since=from_at)  # fmt: skip
        if count:
            _audit(store, connection, "webhooks_replayed", webhook or "*", by, at, dead=dead,
                   since=from_at, count=count)  # fmt: skip
    if webhook is not None and not count:
        refuse(f"webhook: {webhook!r} is none of the {mode} store that could be sent again: it "
               "waits, was removed, or its endpoint is disabled")  # fmt: skip
    if as_json:
        print_json({"replayed": count})
    else:
        print(f"to be sent again: {count:,}")


@app.command("test")
def test(endpoint: Named, mode: ModeOption = "live", as_json: AsJson = False) -> None:
    """Post one signed webhook of the type webhook.test to an endpoint now, and say what came.

    Example: `recourse webhooks test https://shop.example/hook`
    """
    from serving.store.outbox import payload, webhook_id
    from serving.webhooks import send_once

    at = now_ms()
    with store_of(mode) as store, store.database.read() as connection:
        found = _endpoint(store, connection, endpoint, mode)
        secrets = store.outbox.secrets_of(connection, found.id, at)
    allow_private = settings_of().webhook_allow_private
    told = payload("webhook.test", {"endpointId": found.id}, at)
    came = asyncio.run(
        send_once(found.url, webhook_id(at), told, secrets, at, allow_private=allow_private)
    )
    if as_json:
        print_json({"endpoint": found.id, "delivered": came.is_delivered, "outcome": came.told})
    else:
        print(f"{found.url}: {came.told}")
    if not came.is_delivered:
        refuse(f"{found.url}: not delivered: {came.told}")


def _shown_state(one: Delivery) -> str:
    if one.next_at is not None:
        tried = f", tried {one.attempts} times: {one.outcome}" if one.attempts else ""
        return f"waiting until {shown_time(one.next_at)}{tried}"
    ended = one.delivered_at or one.dead_at or one.created_at
    return f"{one.state} {shown_time(ended)}: {one.outcome}"


def _print_secret(endpoint_id: str, secret: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"endpoint": endpoint_id, "secret": secret})
    else:
        note.print(f"{endpoint_id}; its secret, shown this once:", markup=False)
        print(secret)


def _endpoint(store: Store, connection: Connection, named: str, mode: Mode) -> Endpoint:
    found = store.outbox.endpoint(connection, named)
    return found if found is not None else _unknown(store, connection, named, mode)


def _unknown(store: Store, connection: Connection, named: str, mode: Mode) -> NoReturn:
    from rules.condition import nearest

    near = nearest(named, [one.url for one in store.outbox.endpoints(connection)])
    hint = f"; did you mean {near}?" if near else ""
    refuse(f"endpoint: none of the {mode} store is {named!r}{hint}")


def _audit(
    store: Store, connection: Connection, action: str, subject: str, by: str | None, at: int, *,
    why: str | None = None, **content: Any,
) -> None:  # fmt: skip
    from serving.store.audit import AuditEntry

    personal = {"by": person(by)} if why is None else {"by": person(by), "why": why}
    entry = AuditEntry(at, asking(), action, f"webhook:{subject}", content, personal)
    store.audit_log.append(connection, entry)
