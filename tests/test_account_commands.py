"""`recourse accounts`: what it does to a real store, and what it says."""

from __future__ import annotations

from pathlib import Path

import orjson
import pyotp
import pytest
from argon2 import PasswordHasher

from commands.shared import now_ms
from serving import proofs
from serving.accounts import enrol, invitation
from tests.test_privacy_commands import Run, opened, run

__all__ = ["run"]  # fixture

PASSWORD = "correct horse battery staple"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hasher that takes no time to speak of."""
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(proofs, "HASHER", hasher)


def take_up(home: Path, address: str) -> None:
    """Set a password at the address of an invitation."""
    path, _, token = address.strip().partition("?invitation=")
    assert path == "/console/live/welcome"
    store, at = opened(home), now_ms()
    code = pyotp.TOTP(invitation(store, token, at).secret).at(at // 1000)
    enrol(store, token, PASSWORD, PASSWORD, code, at=at)
    store.close()


def test_an_account_is_made_listed_changed_disabled_and_enabled(run: Run, tmp_path: Path) -> None:
    take_up(tmp_path, run("accounts", "create", "Ann Lee", "--role", "admin"))
    run("accounts", "create", "Bob", "--role", "agent", "--limit", "150.50")
    listed = run("accounts", "list")
    assert "admin    enrolled" in listed and "up to any amount  Ann Lee" in listed
    assert "invited until" in listed and "up to 150.50 GBP  Bob" in listed
    assert "Bob is manager, and approves up to 150.50 GBP alone" in run(
        "accounts", "change", "bob", "--role", "manager"
    )
    assert "approves any amount alone" in run("accounts", "change", "Bob", "--limit", "any")
    assert run("accounts", "disable", "Bob") == "Bob is disabled\n"
    assert "disabled" in run("accounts", "list")
    assert run("accounts", "enable", "Bob", "--by", "Ann Lee") == "Bob is enabled\n"
    again = orjson.loads(run("accounts", "invite", "Ann Lee", "--json"))
    assert again["address"].startswith("/console/live/welcome?invitation=")
    [ann, bob] = orjson.loads(run("accounts", "list", "--json"))
    assert (ann["is_enrolled"], bob["limit_minor"], bob["locked_until"]) == (False, None, None)
    store = opened(tmp_path)
    acts = [(each.action, each.actor[:4]) for each in store.audit_about(f"account:{bob['id']}")]
    store.close()
    assert acts == [("account_invited", "cli:")] + [("account_changed", "cli:")] * 4


def test_what_is_refused_is_said_in_one_sentence(run: Run, tmp_path: Path) -> None:
    assert "there is none" in run("accounts", "list", code=1)
    assert not list(tmp_path.iterdir()), "nor is a store made"
    take_up(tmp_path, run("accounts", "create", "Ann Lee", "--role", "admin"))
    for call, told in (
        (("create", "ann lee", "--role", "agent"), "Ann Lee has an account already"),
        (("create", "Bob", "--role", "agent", "--limit", "1,5"), "limit: must be an amount of GBP"),
        (("create", " ", "--role", "agent"), "name: expected a person's name"),
        (("invite", "An Lee"), "did you mean Ann Lee?"),
        (("disable", "Ann Lee"), "Ann Lee is the only admin who can sign in"),
        (("change", "Ann Lee", "--role", "agent"), "the only admin"),
        (("change", "Ann Lee", "--limit", "5", "--by", "ann lee"), "nobody changes what they may"),
    ):
        said = run("accounts", *call, code=1)
        assert told in said and said.count("\n") == 1, call
