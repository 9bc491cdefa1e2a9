"""API keys: create, list, revoke."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from commands.shared import (
    AsJson,
    By,
    ModeOption,
    asking,
    now_ms,
    open_store,
    person,
    print_json,
    refuse,
)

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")


@app.command("create")
def create_key(
    scope: Annotated[
        list[str] | None, typer.Option(help="score, report, review, admin; may be repeated.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Who holds it: what it does to policies bears this name.")
    ] = None,
    by: By = None,
    mode: ModeOption = "test",
) -> None:
    """Make an API key and print it, this once.

    Example: `recourse keys create --mode live --scope score --scope report`
    """
    store = open_store(mode)
    try:
        key = store.keys.create(mode, scope or ["score", "report"], now_ms(), name, by=person(by),
                                via=asking())  # fmt: skip
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    finally:
        store.close()
    print(key)


@app.command("list")
def list_keys(mode: ModeOption = "test", as_json: AsJson = False) -> None:
    """List the API keys of a store, without the keys themselves.

    Example: `recourse keys list --mode live`
    """
    store = open_store(mode)
    found = [{**asdict(key), "scopes": sorted(key.scopes)} for key in store.keys.all()]
    store.close()
    if as_json:
        print_json(found)
    for key in [] if as_json else found:
        state = "revoked" if key["revoked_at"] else "in force"
        holder = f"  {key['name']}" if key["name"] else ""
        print(f"  {key['id']}  {state}  {', '.join(key['scopes'])}{holder}")


@app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="As `recourse keys list` shows it.")],
    by: By = None,
    mode: ModeOption = "test",
) -> None:
    """End an API key; it is refused from now on.

    Example: `recourse keys revoke key_0123456789abcdef --mode live`
    """
    store = open_store(mode)
    was_there = store.keys.revoke(key_id, now_ms(), by=person(by), via=asking())
    store.close()
    if not was_there:
        refuse(f"key id: no key {key_id!r} is in force in the {mode} store")
    print(f"{key_id} is revoked")
