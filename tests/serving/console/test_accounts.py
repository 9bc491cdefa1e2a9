"""The pages of accounts: who may what, and one's own password and sessions."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import pyotp
import pytest
from argon2 import PasswordHasher

from serving import proofs
from serving.accounts import find, invitation, session_of
from serving.desk import Desk
from tests.serving.console.conftest import HOST, SANDBOX, SignedIn, a_session, an_account, now_ms

Sign = Callable[..., SignedIn]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hasher that takes no time to speak of."""
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(proofs, "HASHER", hasher)


def token_in(page: str) -> str:
    """The token of the invitation whose address a page shows."""
    address = re.search(r'value="([^"]*/welcome\?invitation=[^"]*)"', page)
    assert address is not None
    told = html.unescape(address[1])
    assert told.startswith(f"{HOST}{SANDBOX}/welcome?invitation=")
    return told.partition("=")[2]


def test_an_admin_invites_somebody_and_sees_the_address_once(signed_in: Sign, desk: Desk) -> None:
    admin = signed_in("admin")
    answer = admin.submit("/accounts", name="Bob", role="agent", limit="500.50")
    token = token_in(answer.text)
    assert invitation(desk.store, token, now_ms()).account.limit_minor == 50_050
    page = admin.see("/accounts")
    assert token not in page and "500.50 GBP" in page and "Invited until" in page
    [entry] = desk.store.audit_about(find(desk.store, "Bob").subject)
    assert (entry.actor, entry.personal) == (
        f"account:{admin.account.id}", {"name": "Bob", "by": "Some admin"}
    )  # fmt: skip
    again = admin.submit("/accounts", name="bob", role="agent", any="yes")
    assert again.status_code == 409 and "Bob has an account already" in again.text


def test_what_was_typed_stays_where_something_is_wrong(signed_in: Sign, desk: Desk) -> None:
    admin = signed_in("admin")
    for fields, told in (
        ({"limit": "1,5"}, "must be an amount of GBP as 1500 or 1500.00"),
        ({"limit": "5", "any": "yes"}, "must be either an amount or any amount"),
        ({"role": "boss"}, "must be one of viewer, agent"),
        ({"name": "<script>alert(1)</script>\u200b"}, "which holds U+200B"),
    ):
        answer = admin.submit("/accounts", **{"name": "Bob B", "role": "finance", **fields})
        assert answer.status_code == 422 and told in answer.text
        assert "<script>alert" not in answer.text
        if "name" not in fields:
            assert 'value="Bob B"' in answer.text
        if "role" not in fields:
            assert '<option value="finance" selected>' in answer.text
    assert len(desk.store.accounts.all()) == 1


def test_an_admin_changes_disables_enables_and_invites_again(signed_in: Sign, desk: Desk) -> None:
    admin, bob = signed_in("admin"), signed_in("agent", "Bob", 500)
    path = f"/accounts/{bob.account.id}"
    assert 'value="5.00"' in admin.see(path)
    answer = admin.submit(path, act="change", role="manager", any="yes")
    told = admin.get(answer.headers["location"]).text
    assert "Bob is Manager now, and approves alone up to: any amount." in told
    assert "Manager" in bob.see("/account")
    answer = admin.submit(path, act="disable")
    assert "Bob is signed out everywhere" in admin.get(answer.headers["location"]).text
    assert bob.get(SANDBOX + "/account", follow_redirects=False).status_code == 303
    assert "Bob is signed out" not in admin.see(path + "?told=enable")
    assert admin.submit(path, act="invite").status_code == 409
    admin.submit(path, act="enable")
    token = token_in(admin.submit(path, act="invite").text)
    assert invitation(desk.store, token, now_ms()).account.name == "Bob"
    assert admin.submit(path, act="promote").status_code == 422
    admin.see("/accounts/acc_0", 404)


def test_nobody_changes_their_own_account(signed_in: Sign) -> None:
    admin = signed_in("admin")
    path = f"/accounts/{admin.account.id}"
    assert 'value="disable"' not in admin.see(path)
    for act in ("disable", "enable", "change", "invite"):
        answer = admin.submit(path, act=act, role="admin", any="yes")
        assert answer.status_code == 409 and "Nothing was done:" in answer.text


def test_sessions_of_ones_own_are_seen_and_ended(signed_in: Sign, desk: Desk) -> None:
    agent = signed_in("agent")
    others = [a_session(desk.store, agent.account) for _ in range(2)]
    page = agent.see("/account")
    assert page.count("This session") == 1
    ids = re.findall('name="only" value="([0-9a-f]{64})"', page)
    assert len(ids) == 2
    agent.submit("/account/sessions", only=ids[0])
    assert sum(session_of(desk.store, one, now_ms()) is not None for one in others) == 1
    answer = agent.submit("/account/sessions")
    assert "You have 1 session now." in agent.get(answer.headers["location"]).text
    other = a_session(desk.store, an_account(desk.store, "agent", "Other"))
    theirs = session_of(desk.store, other, now_ms())
    assert theirs is not None
    agent.submit("/account/sessions", only=theirs.id)
    assert session_of(desk.store, other, now_ms()) is not None, "another's is not ended"


def test_a_password_is_changed_on_the_page(signed_in: Sign, desk: Desk) -> None:
    agent = signed_in("agent")
    with desk.store.database.write() as connection:
        hashed = proofs.HASHER.hash("the present password")
        desk.store.accounts.set_password(connection, agent.account.id, hashed)
        secret = desk.store.accounts.credentials(connection, agent.account.id).secret
    fields: dict[str, Any] = {
        "old": "the present password", "code": pyotp.TOTP(str(secret)).now(),
        "password": "an entirely other one", "again": "an entirely other one",
    }  # fmt: skip
    answer = agent.submit("/account/password", **{**fields, "again": "no"})
    assert answer.status_code == 422 and "must be the same password once more" in answer.text
    answer = agent.submit("/account/password", **{**fields, "old": "wrong"})
    assert answer.status_code == 422 and "the present password or the code" in answer.text
    assert "entirely other" not in answer.text
    answer = agent.submit("/account/password", **fields)
    assert "Your password is another one now" in agent.get(answer.headers["location"]).text
