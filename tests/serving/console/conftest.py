"""What tests of the console share: a desk with a small past, and clients signed in to it.

Nobody types a password here but in the tests of signing in: a session is kept as `sign_in` would.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from starlette.testclient import TestClient

from features.money import Rates
from rules.policy import Policy
from serving.accounts import invite, session_of
from serving.api import Api, create_app
from serving.console.app import Console
from serving.desk import Desk
from serving.language import ENGLISH
from serving.models import Models
from serving.policies import Policies, ensure_first
from serving.roles import Role
from serving.scorer import Champion
from serving.store.accounts import Account
from serving.store.store import Store
from tests.serving.conftest import DEFAULT_POLICY, SECRET

HOST = "http://localhost"
SANDBOX = "/console/sandbox"
PROXIES = ip_network("10.0.0.0/8")


class SignedIn(TestClient):
    """A browser of somebody who is signed in to the sandbox; addresses are below its own."""

    account: Account
    csrf: str

    def see(self, path: str, status: int = 200) -> str:
        """The text of a page."""
        answer = self.get(SANDBOX + path)
        assert answer.status_code == status, answer.text
        return answer.text

    def submit(self, path: str, files: Any = None, **fields: Any) -> Any:
        """What comes of a form; a redirect is not followed."""
        form = {"csrf": self.csrf, **fields}
        return self.post(SANDBOX + path, data=form, files=files, follow_redirects=False)


@pytest.fixture
def desk(champion: Champion, policy: Policy, tmp_path_factory: Any) -> Iterator[Desk]:
    """The desk of an empty sandbox, whose clock is that of what it is told."""
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('desk')}/s.db", SECRET, clock="event")
    ensure_first(store, DEFAULT_POLICY.read_text(), 1)
    models = Models()
    models.put("champion", champion)
    yield Desk(store, Policies(policy), models, Rates("GBP"), SECRET, 10_000, is_sandbox=True)
    store.close()


@pytest.fixture
def app(desk: Desk) -> Iterator[Any]:
    """The application of a worker over the one desk."""
    api = Api({"test": desk, "live": desk}, 256 * 1024)
    console = Console(api, ENGLISH, [PROXIES])
    yield create_app(lambda: api, console=console)
    console.close()
    api.finish()


@pytest.fixture
def signed_in(app: Any, desk: Desk) -> Callable[..., SignedIn]:
    """Called with a role, and a name and a limit, it gives a client who is signed in."""

    def sign_in(role: Role = "agent", name: str = "", limit_minor: int | None = None) -> SignedIn:
        client = SignedIn(app, base_url=HOST)
        client.account = an_account(desk.store, role, name or f"Some {role}", limit_minor)
        token = a_session(desk.store, client.account)
        client.cookies.set("recourse_sandbox", token)
        session = session_of(desk.store, token, now_ms())
        assert session is not None
        client.csrf = session.csrf
        return client

    return sign_in


def now_ms() -> int:
    """The present, as the console has it."""
    return time.time_ns() // 1_000_000


def an_account(store: Store, role: Role, name: str, limit_minor: int | None = None) -> Account:
    """An account whose holder is enrolled, with a password that nobody knows."""
    at = now_ms()
    account, token = invite(store, name, role, limit_minor, by="a test", via="a test", at=at)
    with store.database.write() as connection:
        invitation = hashlib.sha256(token.encode()).hexdigest()
        store.accounts.enrol(connection, account.id, invitation, "no hash", 0)
        found = store.accounts.get(connection, account.id)
    assert found is not None
    return found


def a_session(store: Store, account: Account) -> str:
    """The token of a new session."""
    token = secrets.token_urlsafe(32)
    with store.database.write() as connection:
        session_id = hashlib.sha256(token.encode()).hexdigest()
        store.accounts.begin(connection, session_id, account.id, now_ms())
    return token
