"""The accounts of people who use the console: create, list, invite, change, disable, enable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.shared import (
    AsJson,
    By,
    Mode,
    ModeOption,
    asking,
    kept_store_of,
    note,
    now_ms,
    person,
    print_json,
    refuse,
    said,
    settings_of,
    shown_time,
    store_of,
)
from serving.roles import Role

if TYPE_CHECKING:
    from serving.store.accounts import Account

app = typer.Typer(no_args_is_help=True, help="Who uses the console, and what they may do there.")

Named = Annotated[str, typer.Argument(help="Their name, or the account's id as `list` shows it.")]
Limit = Annotated[
    str | None,
    typer.Option(help="Up to how much they approve alone, in major units of the base currency, as "
                 "500 or 500.00; any for any amount."),
]  # fmt: skip


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who it is for: their acts bear this name.")],
    role: Annotated[Role, typer.Option(help="What they may do; the next may all that one may.")],
    limit: Limit = None,
    by: By = None,
    mode: ModeOption = "live",
    as_json: AsJson = False,
) -> None:
    """Make an account and print the address at which its holder sets a password, this once.

    The console of each store has accounts of its own. Without `--limit`, an admin approves any
    amount, and whoever else may approve needs a second person for each.

    Example: `recourse accounts create "Ann Lee" --role admin`
    """
    from serving.accounts import invite

    with _told(), store_of(mode) as store:
        upto = _minor(limit, 0 if role != "admin" else None)
        account, token = invite(store, name, role, upto, by=person(by), via=asking(), at=now_ms())
    _print_invitation(account, token, mode, as_json=as_json)


@app.command("list")
def list_(mode: ModeOption = "live", as_json: AsJson = False) -> None:
    """List the accounts of a store: who may do what, up to how much, and who cannot sign in.

    Example: `recourse accounts list --mode live`
    """
    at = now_ms()
    with kept_store_of(mode) as store:
        locked = store.accounts.locked(at)
        found = [
            {**one._asdict(), "locked_until": locked.get(one.id)} for one in store.accounts.all()
        ]
    if as_json:
        print_json(found)
        return
    money, currency = settings_of().spoken().money, settings_of().base_currency
    for one in found:
        upto = "any amount" if one["limit_minor"] is None else money(one["limit_minor"], currency)
        print(f"  {one['id']}  {one['role']:<8} {_state(one, at):<32} up to {upto}  {one['name']}")


@app.command("invite")
def invite_(
    name: Named, by: By = None, mode: ModeOption = "live", as_json: AsJson = False
) -> None:  # fmt: skip
    """Let somebody set another password and other one-time codes; what they had is void at once.

    Example: `recourse accounts invite "Ann Lee" --mode live`
    """
    from serving.accounts import find, invite_again

    with _told(), kept_store_of(mode) as store:
        account, token = invite_again(
            store, find(store, name).id, by=person(by), via=asking(), at=now_ms()
        )
    _print_invitation(account, token, mode, as_json=as_json)


@app.command("change")
def change(
    name: Named,
    role: Annotated[Role | None, typer.Option(help="What they may do from now on.")] = None,
    limit: Limit = None,
    by: By = None,
    mode: ModeOption = "live",
) -> None:
    """Change somebody's role, or up to how much they approve alone; it counts at once.

    Example: `recourse accounts change "Ann Lee" --role manager --limit 500`
    """
    from serving.accounts import change, find

    if role is None and limit is None:
        raise typer.BadParameter("expected --role, --limit or both")
    with _told(), kept_store_of(mode) as store:
        before = find(store, name)
        upto = _minor(limit, before.limit_minor)
        after = change(store, before.id, role or before.role, upto,
                       by=person(by), via=asking(), at=now_ms())  # fmt: skip
    print(f"{after.name} is {after.role}, and approves {_upto(after)} alone")


@app.command("disable")
def disable(name: Named, by: By = None, mode: ModeOption = "live") -> None:
    """Let somebody in no more, and end their sessions.

    Example: `recourse accounts disable "Ann Lee" --mode live`
    """
    from serving import accounts

    with _told(), kept_store_of(mode) as store:
        after = accounts.disable(store, accounts.find(store, name).id, by=person(by), via=asking(),
                                 at=now_ms())  # fmt: skip
    print(f"{after.name} is disabled")


@app.command("enable")
def enable(name: Named, by: By = None, mode: ModeOption = "live") -> None:
    """Let somebody in again: who was disabled, or is to wait after too many tries that failed.

    Example: `recourse accounts enable "Ann Lee" --mode live`
    """
    from serving import accounts

    with _told(), kept_store_of(mode) as store:
        after = accounts.enable(store, accounts.find(store, name).id, by=person(by), via=asking(),
                                at=now_ms())  # fmt: skip
    print(f"{after.name} is enabled")


@contextmanager
def _told() -> Iterator[None]:
    """What is refused, in the sentence that it is refused with."""
    from serving.accounts import AccountConflictError, UnknownAccountError
    from serving.wire import InvalidRequest

    try:
        yield
    except (AccountConflictError, UnknownAccountError, InvalidRequest) as error:
        refuse(said(error))


def _minor(limit: str | None, otherwise: int | None) -> int | None:
    from serving.accounts import limit_of

    return otherwise if limit is None else limit_of(limit, settings_of().base_currency)


def _upto(account: Account) -> str:
    if account.limit_minor is None:
        return "any amount"
    settings = settings_of()
    return f"up to {settings.spoken().money(account.limit_minor, settings.base_currency)}"


def _state(account: dict[str, Any], at: int) -> str:
    if account["disabled_at"] is not None:
        return "disabled"
    if account["locked_until"] is not None:
        return f"waits until {shown_time(account['locked_until'])}"
    if account["is_enrolled"]:
        return "enrolled"
    until = account["invited_until"]
    return f"invited until {shown_time(until)}" if at < until else "invitation is over"


def _print_invitation(account: Account, token: str, mode: Mode, *, as_json: bool) -> None:
    store = "live" if mode == "live" else "sandbox"
    path, until = f"/console/{store}/welcome?invitation={token}", account.invited_until or 0
    if as_json:
        print_json({**account._asdict(), "address": path})
        return
    note.print(
        f"{account.name} ({account.id}) sets a password at this path of the service's address "
        f"until {shown_time(until)}; it is good once, so let nobody else have it:",
        markup=False, highlight=False,
    )  # fmt: skip
    print(path)
