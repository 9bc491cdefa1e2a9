"""The pages by which one comes in and goes: signing in, taking an invitation up, signing out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import segno
from markupsafe import Markup
from starlette.responses import Response

from serving.accounts import (
    InvitationError,
    SignInRefusedError,
    enrol,
    invitation,
    session_of,
    sign_in,
    sign_out,
)
from serving.console.visit import ROOT, Guest, Page, Visit
from serving.wire import InvalidRequest, Problem

_DAY_MS: Final = 86_400_000
_THEN: Final = re.compile(r"/[^/\\][^\\]{0,499}")


def show_sign_in(guest: Guest) -> Response:
    """The form; whoever is signed in already goes on."""
    then = _then(guest.query.get("then", ""))
    if guest.token and session_of(guest.desk.store, guest.token, guest.at) is not None:
        return guest.to(then or "/queue")
    return _sign_in(guest, 200, then, told=guest.query.get("told", ""))


def do_sign_in(guest: Guest) -> Response:
    """Let somebody in, to the page that they asked for."""
    name, password, code = (guest.form.text(field) for field in ("name", "password", "code"))
    then = _then(guest.form.text("then"))
    given = {"name": name.strip(), "password": password, "code": code.strip()}
    if missing := [
        Problem(field, "must be filled in") for field, text in given.items() if not text
    ]:
        return _sign_in(guest, 422, then, name=name, problems=missing)
    try:
        token = sign_in(guest.desk.store, name, password, code, at=guest.at)
    except SignInRefusedError as error:
        return _sign_in(guest, 401, then, name=name, refused=error)
    return guest.holding(guest.to(then or "/queue"), token)


def _sign_in(
    guest: Guest, status: int, then: str, *, name: str = "", told: str = "",
    problems: Sequence[Problem] = (), refused: SignInRefusedError | None = None,
) -> Response:  # fmt: skip
    locked = None if refused is None else refused.locked_until
    wait = None if locked is None else (locked - guest.at) / _DAY_MS
    other = "sandbox" if guest.store_name == "live" else "live"
    return guest.page(
        "sign_in.html.j2", status=status, then=then, name=name[:100], told_key=told,
        problems=problems, refused=refused, wait=wait, other=f"{ROOT}/{other}/sign-in",
    )  # fmt: skip


def _then(path: str) -> str:
    """Where to go on: a page of this store, else ''.

    >>> _then("/case/r1"), _then("//evil.example"), _then("https://evil.example"), _then("/a/../b")
    ('/case/r1', '', '', '')
    """
    is_ours = _THEN.fullmatch(path) and ".." not in path.split("/")
    return path if is_ours else ""


def do_sign_out(visit: Visit) -> Response:
    """End the session."""
    sign_out(visit.desk.store, visit.token, at=visit.at)
    return visit.holding(visit.to("/sign-in", told="out"), "")


def show_welcome(guest: Guest) -> Response:
    """What an invitation lets its holder set up."""
    return _welcome(guest, guest.query.get("invitation", ""), 200)


def do_welcome(guest: Guest) -> Response:
    """Take an invitation up, and sign its holder in."""
    token, store = guest.form.text("invitation"), guest.desk.store
    password, again, code = (guest.form.text(field) for field in ("password", "again", "code"))
    try:
        session = enrol(store, token, password, again, code, at=guest.at)
    except InvitationError:
        return _welcome(guest, token, 200)
    except InvalidRequest as error:
        return _welcome(guest, token, 422, problems=error.problems)
    return guest.holding(guest.to("/account", told="welcome"), session)


def _welcome(
    guest: Guest, token: str, status: int, *, problems: Sequence[Problem] = ()
) -> Response:  # fmt: skip
    try:
        invited = invitation(guest.desk.store, token, guest.at)
    except InvitationError:
        return guest.page("not_invited.html.j2", status=404)
    issuer = "Recourse" if guest.store_name == "live" else "Recourse sandbox"
    address = invited.address_of_codes(issuer)
    return guest.page(
        "welcome.html.j2", status=status, invited=invited.account, token=token, address=address,
        code=qr_code(address), problems=problems,
        secret=" ".join(re.findall(".{1,4}", invited.secret)),
    )  # fmt: skip


def qr_code(text: str) -> Markup:
    """A QR code as SVG, black on white in either theme, as cameras want it.

    >>> svg = qr_code("otpauth://totp/x?secret=A")
    >>> svg[:4], "style" in svg
    (Markup('<svg'), False)
    """
    made = segno.make(text, error="m", micro=False)
    return Markup(made.svg_inline(scale=5, light="#fff", svgclass="qr", lineclass=None))


CALLS: Final = (
    Page("GET", "/sign-in", None, show_sign_in),
    Page("POST", "/sign-in", None, do_sign_in),
    Page("POST", "/sign-out", "read", do_sign_out),
    Page("GET", "/welcome", None, show_welcome),
    Page("POST", "/welcome", None, do_welcome),
)
"""The pages, and what their forms do."""
