"""API keys: create, list, rotate, revoke."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from commands.shared import (
    AsJson,
    By,
    ModeOption,
    asking,
    instant,
    note,
    now_ms,
    open_store,
    person,
    print_json,
    refuse,
    shown_time,
)

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, rotate, revoke.")

Expires = Annotated[
    str | None, typer.Option("--expires", help="When it ends: 90d, 12h, 30m, or an ISO 8601 time.")
]

MS_OF: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}
"""What a span of time is given in."""


def span_ms(text: str, option: str) -> int:
    """A span of time in ms, of a whole number and a unit.

    >>> span_ms("24h", "--grace")
    86400000
    """
    if text[:-1].isdecimal() and text[-1:] in MS_OF:
        return int(text[:-1]) * MS_OF[text[-1]]
    raise typer.BadParameter(
        f"expected a whole number of days, hours, minutes or seconds, as 24h, got {text!r}",
        param_hint=option,
    )


def _end(text: str | None, now: int) -> int | None:
    """When a key ends, of ``--expires``: a span from now, or a time after now."""
    if text is None:
        return None
    try:
        end = now + span_ms(text, "--expires") if text[-1:] in MS_OF else instant(text, "--expires")
    except typer.BadParameter:
        raise typer.BadParameter(
            f"expected a span, as 90d, 12h or 30m, or an ISO 8601 time with offset, got {text!r}",
            param_hint="--expires",
        ) from None
    if end is not None and end <= now:
        raise typer.BadParameter(
            f"expected a time that is still to come, got {text!r}", param_hint="--expires"
        )
    return end


@app.command("create")
def create_key(
    scope: Annotated[
        list[str] | None, typer.Option(help="score, report, review, admin; may be repeated.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Who holds it: what it does to policies bears this name.")
    ] = None,
    expires: Expires = None,
    by: By = None,
    mode: ModeOption = "test",
) -> None:
    """Make an API key and print it, this once.

    Example: `recourse keys create --mode live --scope score --scope report`
    """
    now = now_ms()
    ends = _end(expires, now)
    store = open_store(mode)
    try:
        key = store.keys.create(mode, scope or ["score", "report"], now, name, by=person(by),
                                via=asking(), expires_at=ends)  # fmt: skip
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
        holder = f"  {key['name']}" if key["name"] else ""
        print(f"  {key['id']}  {_state(key, now_ms())}  {', '.join(key['scopes'])}{holder}")


def _state(key: dict[str, Any], now: int) -> str:
    ends = key["expires_at"]
    if key["revoked_at"]:
        return "revoked"
    if ends is None:
        return "in force"
    return f"in force until {shown_time(ends)}" if now < ends else f"ended {shown_time(ends)}"


@app.command("rotate")
def rotate_key(
    key_id: Annotated[str, typer.Argument(help="As `recourse keys list` shows it.")],
    grace: Annotated[
        str, typer.Option(help="How long the old key goes on: 24h, 7d, 0s for no longer.")
    ] = "24h",
    expires: Expires = None,
    by: By = None,
    mode: ModeOption = "test",
) -> None:
    """Make a key in place of another, of its scopes and name, and print it, this once.

    The old one ends after the grace, in which whoever holds it takes the new one. The new one ends
    after as long as the old one had, where `--expires` says nothing else. A key is rotated once, as
    long as its successor is not revoked.

    Example: `recourse keys rotate key_0123456789abcdef --grace 24h --mode live`
    """
    from serving.store.keys import RotatedError

    now, grace_ms = now_ms(), span_ms(grace, "--grace")
    ends = _end(expires, now)
    store = open_store(mode)
    try:
        rotated = store.keys.rotate(key_id, now, grace_ms, by=person(by), via=asking(),
                                    expires_at=ends)  # fmt: skip
    except RotatedError as error:
        refuse(f"key id: {error}; if nobody has that key, revoke it first")
    finally:
        store.close()
    if rotated is None:
        refuse(f"key id: no key {key_id!r} is in force in the {mode} store")
    key, new, old_ends = rotated
    note.print(f"{key_id} ends at {shown_time(old_ends)}; in its place is {new.id}", markup=False)
    print(key)


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
