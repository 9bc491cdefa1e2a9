"""The way into the console: nobody reaches what is not theirs, and no form is another's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.console import app as console
from serving.console.forms import MOST_FIELDS
from serving.console.table import PAGES
from serving.console.visit import Page
from serving.roles import MAY, ROLES, Role
from tests.serving.console.conftest import HOST, SANDBOX, SignedIn

GUARDED = [page for page in PAGES if page.may is not None]


def named(page: Page) -> str:
    return f"{page.method} {page.path}"


def address(page: Page) -> str:
    """An address of a page, whatever its parameters are."""
    steps = ["x" if step.startswith("{") else step for step in page.path.split("/")]
    return SANDBOX + "/".join(steps)


@pytest.fixture
def guest(app: Any) -> TestClient:
    return TestClient(app, base_url=HOST, follow_redirects=False)


def test_every_page_sends_a_stranger_to_sign_in(guest: TestClient) -> None:
    for page in GUARDED:
        answer = guest.request(page.method, address(page), data={"csrf": "0"})
        if page.method == "GET":
            assert answer.status_code == 303, named(page)
            assert answer.headers["location"].startswith(SANDBOX + "/sign-in"), named(page)
        else:
            assert answer.status_code in (303, 401), named(page)


def test_every_page_is_refused_to_the_roles_that_may_not(
    signed_in: Callable[..., SignedIn],
) -> None:
    clients = {role: signed_in(role) for role in ROLES}
    for page in GUARDED:
        for role, client in clients.items():
            if role in MAY[page.may]:  # type: ignore[index]
                continue
            answer = client.request(page.method, address(page), data={"csrf": client.csrf})
            assert answer.status_code == 403, (named(page), role)
            assert f"your role is {role}".capitalize() in answer.text


def test_no_form_does_anything_without_the_token_of_its_session(
    signed_in: Callable[..., SignedIn],
) -> None:
    admin, other = signed_in("admin"), signed_in("admin", "Another admin")
    for page in GUARDED:
        if page.method != "POST":
            continue
        for token in ("", "0" * 64, other.csrf):
            answer = admin.post(address(page), data={"csrf": token}, follow_redirects=False)
            assert answer.status_code == 403, named(page)
            assert "of another session" in answer.text


def test_a_form_of_another_site_is_refused(signed_in: Callable[..., SignedIn]) -> None:
    client = signed_in("admin")
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"},
                    {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}):  # fmt: skip
        answer = client.post(SANDBOX + "/sign-out", data={"csrf": client.csrf}, headers=headers)
        assert answer.status_code == 403 and "another site" in answer.text
    client.see("/queue")


def test_a_page_bears_a_policy_that_runs_nothing_but_our_files(
    signed_in: Callable[..., SignedIn],
) -> None:
    answer = signed_in("viewer").get(SANDBOX + "/queue")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<style" not in answer.text and " style=" not in answer.text


def test_what_pages_load_is_kept_by_browsers_and_found_by_its_content_alone(
    guest: TestClient,
) -> None:
    for path, kind, content in console.files().values():
        answer = guest.get(path)
        assert answer.content == content and answer.headers["content-type"].startswith(kind)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert guest.get(path.replace("/file/", "/file/0")).status_code == 404


def test_the_console_is_for_https_or_for_the_machine_itself(app: Any) -> None:
    answer = TestClient(app, base_url="http://shop.example").get(SANDBOX + "/sign-in")
    assert answer.status_code == 403 and "X-Forwarded-Proto" in answer.text
    by = {"x-forwarded-proto": "https"}
    # Whoever asks may say so; a proxy that is trusted is believed.
    stranger = TestClient(app, base_url="http://shop.example", headers=by)
    assert stranger.get(SANDBOX + "/sign-in").status_code == 403
    at = ("10.0.0.7", 1)
    proxied = TestClient(app, base_url="http://shop.example", headers=by, client=at)
    assert proxied.get(SANDBOX + "/sign-in").status_code == 200


def test_the_first_address_leads_to_the_store_that_one_is_signed_in_to(
    guest: TestClient, signed_in: Callable[..., SignedIn]
) -> None:
    assert guest.get("/console").headers["location"] == "/console/live/queue"
    client = signed_in("viewer")
    answer = client.get("/console", follow_redirects=False)
    assert answer.headers["location"] == "/console/sandbox/queue"
    assert guest.get("/console/sand").status_code == 404


def test_what_was_typed_is_not_lost_where_the_session_is_another_by_now(
    signed_in: Callable[..., SignedIn],
) -> None:
    fields = {"csrf": "0" * 64, "text": "what I typed"}
    answer = signed_in("viewer").post(SANDBOX + "/search", data=fields)
    assert answer.status_code == 403 and "what I typed" in answer.text


def test_what_was_typed_is_not_lost_where_a_session_has_ended(
    guest: TestClient, signed_in: Callable[..., SignedIn]
) -> None:
    fields = {"csrf": "0", "text": "what <b>I</b> typed", "password": "hidden"}
    answer = guest.post(SANDBOX + "/search", data=fields)
    assert answer.status_code == 401
    assert "what &lt;b&gt;I&lt;/b&gt; typed" in answer.text and "hidden" not in answer.text


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"content": b"{}", "headers": {"Content-Type": "application/json"}}, 415),
        ({"data": {"csrf": "0", "text": "a\0b"}}, 400),
        ({"data": {"text": "x" * 100_000}}, 413),
        ({"data": {"n": [str(n) for n in range(MOST_FIELDS + 1)]}}, 400),
        ({"content": b"no parts", "headers": {"Content-Type": "multipart/form-data"}}, 400),
    ],
)  # fmt: skip
def test_a_body_that_is_no_form_is_told_so(
    signed_in: Callable[..., SignedIn], sent: dict[str, Any], status: int
) -> None:
    answer = signed_in("viewer").post(SANDBOX + "/search", **sent)
    assert answer.status_code == status and "<h1>" in answer.text


def test_a_role_that_is_taken_away_ends_what_it_allowed_at_once(
    signed_in: Callable[..., SignedIn], desk: Any
) -> None:
    client = signed_in("manager")
    client.see("/audit")
    with desk.store.database.write() as connection:
        viewer: Role = "viewer"
        desk.store.accounts.change(connection, client.account._replace(role=viewer))
    client.see("/audit", 403)


def test_what_was_typed_is_told_with_a_refusal_that_its_page_does_not_make(
    signed_in: Callable[..., SignedIn],
) -> None:
    answer = signed_in("viewer").submit("/accounts", name="Kim <b>Lee</b>")
    assert answer.status_code == 403 and "Kim &lt;b&gt;Lee&lt;/b&gt;" in answer.text
