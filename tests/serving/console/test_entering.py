"""Coming in and going: the forms say what is wrong, lose nothing, and lead nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyotp
import pytest
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from serving import proofs
from serving.accounts import invitation, invite
from serving.desk import Desk
from tests.serving.console.conftest import HOST, SANDBOX, SignedIn, now_ms

PASSWORD = "correct horse battery staple"
COOKIE = "recourse_sandbox"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hasher that takes no time to speak of."""
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(proofs, "HASHER", hasher)


@pytest.fixture
def guest(app: Any) -> TestClient:
    return TestClient(app, base_url=HOST, follow_redirects=False)


def invited(desk: Desk, name: str = "Ann Lee") -> tuple[str, str]:
    """The token of an invitation, and the secret of its codes."""
    _, token = invite(desk.store, name, "admin", None, by="a test", via="a test", at=now_ms())
    return token, invitation(desk.store, token, now_ms()).secret


def test_one_takes_an_invitation_up_signs_out_and_in_again(guest: TestClient, desk: Desk) -> None:
    token, secret = invited(desk)
    page = guest.get(f"{SANDBOX}/welcome?invitation={token}").text
    assert secret in page.replace(" ", "")
    assert f"otpauth://totp/Recourse%20sandbox:Ann%20Lee?secret={secret}" in page
    assert "<svg width=" in page
    assert "style=" not in page
    totp = pyotp.TOTP(secret)
    fields = {"invitation": token, "password": PASSWORD, "again": PASSWORD}
    now = now_ms() // 1000
    answer = guest.post(SANDBOX + "/welcome", data={**fields, "code": totp.at(now)})
    assert answer.headers["location"] == SANDBOX + "/account?told=welcome"
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", f"Path={SANDBOX}", "SameSite=lax"))
    own = guest.get(answer.headers["location"]).text
    assert "Password and codes are set" in own
    found = re.search('name="csrf" value="([0-9a-f]+)"', own)
    assert found is not None
    assert guest.get(SANDBOX + "/sign-in").headers["location"] == SANDBOX + "/queue"
    held = guest.cookies[COOKIE]
    answer = guest.post(SANDBOX + "/sign-out", data={"csrf": found[1]})
    assert answer.headers["location"] == SANDBOX + "/sign-in?told=out"
    assert COOKIE not in guest.cookies
    guest.cookies.set(COOKIE, held)
    assert guest.get(SANDBOX + "/account").status_code == 303, "it ended here, too"
    guest.cookies.clear()
    assert guest.get(f"{SANDBOX}/welcome?invitation={token}").status_code == 404
    fields = {"name": "ann lee", "password": PASSWORD, "code": totp.at(now + 30)}
    answer = guest.post(SANDBOX + "/sign-in", data={**fields, "then": "/case/r 1"})
    assert answer.headers["location"] == SANDBOX + "/case/r%201"


def test_a_wrong_form_of_an_invitation_keeps_what_was_scanned(
    guest: TestClient, desk: Desk
) -> None:
    token, secret = invited(desk)
    fields = {"invitation": token, "password": "short", "again": "short", "code": "1"}
    answer = guest.post(SANDBOX + "/welcome", data=fields)
    assert answer.status_code == 422
    assert '<a href="#f-password">Password</a>: must have 12 to 128 characters' in answer.text
    assert secret in answer.text.replace(" ", "")
    assert 'value="short"' not in answer.text


@pytest.mark.parametrize("token", ["", "x" * 43, "<script>", "\u202e"])
def test_what_is_no_invitation_is_told_so(guest: TestClient, token: str) -> None:
    answer = guest.get(SANDBOX + "/welcome", params={"invitation": token})
    assert answer.status_code == 404 and "Ask whoever invited you" in answer.text
    assert guest.post(SANDBOX + "/welcome", data={"invitation": token}).status_code == 404


def test_who_is_not_let_in_is_told_one_thing_and_keeps_the_name(
    guest: TestClient, desk: Desk
) -> None:
    invited(desk)
    for name in ("Ann Lee", "<b>Nobody</b>"):
        fields = {"name": name, "password": "wrong <i>", "code": "123456", "then": "/audit"}
        for _ in range(4):
            answer = guest.post(SANDBOX + "/sign-in", data=fields)
            assert answer.status_code == 401 and "set-cookie" not in answer.headers
            assert "the name, the password or the code is not right" in answer.text
        assert "<b>Nobody" not in answer.text and "wrong" not in answer.text
        assert 'name="then" value="/audit"' in answer.text
        answer = guest.post(SANDBOX + "/sign-in", data=fields)
        assert "Nobody is let in under it for 1 minute more" in answer.text


def test_what_is_left_empty_is_told_and_counts_for_nothing(guest: TestClient, desk: Desk) -> None:
    for _ in range(6):
        answer = guest.post(SANDBOX + "/sign-in", data={"name": "Ann", "code": " "})
        assert answer.status_code == 422
        assert "2 things are to be put right" in answer.text
    assert desk.store.audit_about("account:unknown") == []


def test_the_form_says_which_store_it_is_and_leads_to_the_other(guest: TestClient) -> None:
    for store, other in (("live", "sandbox"), ("sandbox", "live")):
        page = guest.get(f"/console/{store}/sign-in").text
        assert f"This is the {store}" in page
        assert f'href="/console/{other}/sign-in"' in page


@pytest.mark.parametrize(
    "then", ["//evil.example", "https://evil.example", "/\\evil.example", "/../../metrics", "x"]
)
def test_signing_in_leads_nowhere_else(
    app: Any, signed_in: Callable[..., SignedIn], then: str
) -> None:
    client = signed_in("viewer")
    answer = client.get(SANDBOX + "/sign-in", params={"then": then}, follow_redirects=False)
    assert answer.headers["location"] == SANDBOX + "/queue"
    page = TestClient(app, base_url=HOST).get(SANDBOX + "/sign-in", params={"then": then}).text
    assert 'name="then" value=""' in page
