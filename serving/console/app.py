"""The way into the console: who it is, what they may, and one shape for every refusal.

A page that somebody must be signed in for is reached by nobody else, and a form does nothing
without the token of its own session: both are asked here, once, before any page's own code runs.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from jinja2 import Environment
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from serving.accounts import Session, session_of
from serving.console.forms import check_query, form_of
from serving.console.table import PAGES
from serving.console.visit import MOST_FORM_BYTES, ROOT, Guest, Page, StoreName, Visit
from serving.desk import Desk
from serving.envelope import ApiError, refusal
from serving.explanation.drawing import cut
from serving.explanation.page import capital
from serving.explanation.parts import Explanation
from serving.gate import Network, address_of, busy, is_asked_securely
from serving.headers import IMMUTABLE, sent
from serving.language import Language
from serving.limits import Buckets, Turns, whole_seconds
from serving.pages import TEMPLATES, environment
from serving.roles import MAY, ROLES, Permission, Role
from serving.routing import Call, Handler, Router
from serving.seen import seen

if TYPE_CHECKING:
    from serving.api import Api

HERE: Final = Path(__file__).parent
THREADS: Final = 2
"""So many pages are made at a time; a decision waits for none of them."""

POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of every page: only files of ours are loaded, or run."""

REQUESTS_PER_SECOND, REQUESTS_AT_ONCE = 20.0, 120.0
"""What one session may ask for."""

SESSIONS_OF_AN_ADDRESS: Final = 10
"""An address may ask as much as so many sessions: an office has one, a forger of them too."""

ENTRIES_PER_SECOND, ENTRIES_AT_ONCE = 1 / 6, 20.0
"""How often one address may try to come in."""

MOST_AT_DOOR: Final = 16
"""So many may wait to come in, which takes each a fifth of a second."""

T = TypeVar("T")

_STYLES: Final = (
    TEMPLATES / "page.css", TEMPLATES / "explanation.css", *sorted((HERE / "styles").glob("*.css")),
)  # fmt: skip

_MODES: Final[Mapping[str, str]] = {"live": "live", "sandbox": "test"}
_NO_TEXT: Final = ("csrf", "password", "again", "code", "old", "new", "act", "scoreId", "sure")


class Console:
    """An ASGI application over the desks of an `Api`; ``proxies`` as `Gate` takes them."""

    def __init__(
        self, api: Api, language: Language, proxies: Sequence[Network] = (),
        pages: Sequence[Page] = PAGES,
    ) -> None:  # fmt: skip
        self._api, self.language, self._proxies = api, language, proxies
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="console")
        self._turns = Turns(api.limits.waiting)
        # What checks a password takes a fifth of a second, for whoever asks: no page waits for it.
        self._door = ThreadPoolExecutor(1, thread_name_prefix="console-door")
        self._at_door = Turns(MOST_AT_DOOR)
        many = SESSIONS_OF_AN_ADDRESS
        self._asking = Buckets(REQUESTS_PER_SECOND, REQUESTS_AT_ONCE)
        self._coming = Buckets(REQUESTS_PER_SECOND * many, REQUESTS_AT_ONCE * many)
        self._entering = Buckets(ENTRIES_PER_SECOND, ENTRIES_AT_ONCE)
        self.files = files()
        self._templates = _templates(language, self.files)
        self._router: Router[Console] = Router([*_FIRST, *map(_call, pages)], lambda: self)

    def close(self) -> None:
        """Finish the pages that were asked for, and make no more."""
        self._threads.shutdown(wait=True)
        self._door.shutdown(wait=True)

    def explain(self, desk: Desk, score_id: str) -> Explanation | None:
        """Everything that is told of a decision; None where there is no such decision."""
        return self._api.explaining.explain(desk, score_id)

    def rendered(
        self, template: str, guest: Guest | None, values: Mapping[str, Any], status: int = 200
    ) -> Response:
        """A page made of a template, for somebody."""
        token = guest.session.csrf if isinstance(guest, Visit) else ""
        hidden = Markup('<input type="hidden" name="csrf" value="{}">').format(token)
        account = guest.account if isinstance(guest, Visit) else None
        text = self._templates.get_template(template).render(
            visit=guest, account=account, csrf=hidden, **values
        )
        headers = {"Content-Security-Policy": POLICY}
        return Response(text, status, headers, "text/html")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            await self._router(scope, receive, send)
        except ClientDisconnect:
            return  # nobody is left to answer
        except Exception as error:
            await self._failed(error, None)(scope, receive, send)

    # --- one request -------------------------------------------------------------------------

    async def serve(self, page: Page, request: Request) -> Response:
        """Answer a request for a page."""
        guest = self._guest(request)
        self._limit(page, guest)
        if page.method == "POST":
            _refuse_foreign(request)
            if page.may is not None and page.most_bytes > MOST_FORM_BYTES:
                # Nothing large is read for whoever asks.
                refused = await self._work(lambda: self._refused(page, guest, self._session(guest)))
                if refused is not None:
                    return refused
            guest = replace(guest, form=await form_of(request, page.most_bytes))
        is_entering = page.may is None and page.method == "POST"
        return await self._work(lambda: self._answer(page, guest), is_entering=is_entering)

    def _guest(self, request: Request) -> Guest:
        name, scope = request.path_params["store"], request.scope
        if name not in _MODES:
            raise HTTPException(404, "there are two stores, /console/live and /console/sandbox")
        is_secure = is_asked_securely(scope, self._proxies)
        if not is_secure and not _is_loopback(sent(scope, b"host", "")):
            raise ApiError(403, "the console is for https, or for the machine itself: ask for it "
                                "behind a proxy in RECOURSE_TRUSTED_PROXIES that says "
                                "X-Forwarded-Proto: https")  # fmt: skip
        query = request.query_params
        check_query(query)
        desk = self._api.desks[cast(Any, _MODES[name])]
        return Guest(
            self, cast(StoreName, name), desk, self._api.now(), request.path_params, query,
            address_of(scope, self._proxies), is_secure=is_secure, path=request.url.path,
            host=sent(scope, b"host", ""),
            token=request.cookies.get(cookie_of(name), ""),
        )  # fmt: skip

    def _limit(self, page: Page, guest: Guest) -> None:
        now = time.monotonic()
        wait = self._coming.take(guest.address, now)
        if wait is None:
            who = hashlib.sha256(guest.token.encode()).digest() if guest.token else guest.address
            wait = self._asking.take(who, now)
        if wait is None and page.may is None and page.method == "POST":
            wait = self._entering.take(guest.address, now)
        if wait is not None:
            told = "too many requests came from here: wait a little, and ask again"
            raise ApiError(429, told, headers={"Retry-After": whole_seconds(wait)})

    async def _work(self, work: Callable[[], T], *, is_entering: bool = False) -> T:
        """What ``work`` gives, done on a thread of the console."""
        now = time.monotonic()
        turns = self._at_door if is_entering else self._turns
        if turns.is_full(now):
            raise busy(503, "too many pages are asked for")
        ticket = turns.enter(now)
        threads = self._door if is_entering else self._threads
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work)
        finally:
            turns.leave(ticket)

    def _answer(self, page: Page, guest: Guest) -> Response:
        try:
            if page.may is None:
                return page.handler(guest)
            session = self._session(guest)
            refused = self._refused(page, guest, session)
            if refused is not None or session is None:
                return refused or self._signed_out(page, guest)
            guest = Visit(**vars(guest), session=session)
            if page.method == "POST" and not session.is_form_of(guest.form.text("csrf")):
                return self._not_taken(guest, 403)
            return page.handler(guest)
        except Exception as error:
            return self._failed(error, guest)

    def _refused(self, page: Page, guest: Guest, session: Session | None) -> Response | None:
        """What is answered to whoever may not have a page, None to whoever may."""
        if session is None:
            return self._signed_out(page, guest)
        needed = cast(Permission, page.may)
        if session.account.role in MAY[needed]:
            return None
        able = ", ".join(role for role in ROLES if role in MAY[needed])
        told = f"your role is {session.account.role}; this is for the roles {able}"
        return self._failed(ApiError(403, told), Visit(**vars(guest), session=session))

    def _session(self, guest: Guest) -> Session | None:
        return session_of(guest.desk.store, guest.token, guest.at) if guest.token else None

    def _signed_out(self, page: Page, guest: Guest) -> Response:
        """Ask to sign in; what was typed is shown once more, so that it can be kept."""
        if page.method == "GET":
            return guest.to("/sign-in", then=_back(guest))
        return self._not_taken(guest, 401)

    def _not_taken(self, guest: Guest, status: int) -> Response:
        """Tell that a form did nothing: 401 for nobody's, 403 for one of another session."""
        values = {"typed": _typed(guest), "is_signed_in": status == 403, "then": _back(guest)}
        return self.rendered("not_taken.html.j2", guest, values, status)

    def _failed(self, error: Exception, guest: Guest | None) -> Response:
        body, headers = refusal(error)
        status = body["status"]
        message = body["message"].removesuffix("; see /docs")
        values = {"status": status, "message": message, "typed": _typed(guest),
                  "problems": body.get("validationErrors", [])}  # fmt: skip
        answer = self.rendered("error.html.j2", guest, values, status)
        answer.headers.update(headers)
        return answer


def _typed(guest: Guest | None) -> list[tuple[str, str]]:
    """What was typed into a form that did nothing, so that it is not lost: the texts, by field."""
    sent = guest.form.every() if guest is not None else []
    return [(name, text) for name, text in sent if name not in _NO_TEXT and text]


def cookie_of(store_name: str) -> str:
    """The cookie that holds a session with a store."""
    return f"recourse_{store_name}"


def files() -> dict[str, tuple[str, str, bytes]]:
    """What pages load from us, by name: the address, which the content names; kind; content."""
    found = {
        "console.css": ("text/css", b"\n".join(path.read_bytes() for path in _STYLES)),
        "console.js": ("text/javascript", (HERE / "console.js").read_bytes()),
        "icon.svg": ("image/svg+xml", (HERE / "icon.svg").read_bytes()),
    }
    return {name: (f"{ROOT}/file/{_digest(content)}/{name}", kind, content)
            for name, (kind, content) in found.items()}  # fmt: skip


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()[:12]).decode()


def _templates(language: Language, served: Mapping[str, tuple[str, str, bytes]]) -> Environment:
    made = environment(HERE / "templates", language=language)
    made.auto_reload = False
    # Whoever wrote a text, no character of it acts on who reads it.
    made.finalize = lambda value: seen(value) if type(value) is str else value
    made.filters |= {
        "capital": capital, "cut": cut, "iso": _iso, "role": partial(role_name, language=language),
    }  # fmt: skip
    made.globals |= {
        "file": {name: address for name, (address, _, _) in served.items()},
        "places": partial(places, language), "is_here": _is_here,
        "headline": partial(headline, language=language),
    }  # fmt: skip
    return made


def places(language: Language) -> list[tuple[str, str, Permission, str]]:
    """What the head of every page leads to: address, name, whom it is for, key."""
    return [
        ("/queue", language.say("Queue"), "read", "q"),
        ("/dashboard", language.say("Dashboard"), "read", "d"),
        ("/lists/block", language.say("Lists"), "read", "l"),
        ("/policies", language.say("Policies"), "read", "p"),
        ("/accounts", language.say("Accounts"), "accounts", "c"),
        ("/audit", language.say("Audit log"), "audit", "u"),
    ]


def _is_here(guest: Guest, place: str) -> bool:
    """Whether a page is at a place, or below it."""
    step = f"{ROOT}/{guest.store_name}/{place.split('/')[1]}"
    return f"{guest.path}/".startswith(f"{step}/")


def role_name(role: Role, language: Language) -> str:
    """A role as people call it."""
    return {
        "viewer": language.say("Viewer"), "agent": language.say("Agent"),
        "manager": language.say("Manager"), "finance": language.say("Finance"),
        "admin": language.say("Administrator"),
    }[role]  # fmt: skip


def headline(status: int, language: Language) -> str:
    """What a refusal is headed by."""
    return {
        403: language.say("This is not for you"), 404: language.say("There is no such page"),
        409: language.say("It is otherwise by now"), 429: language.say("A little slower"),
        500: language.say("Something went wrong on our side"),
        503: language.say("Not just now"),
    }.get(status, language.say("That could not be done"))  # fmt: skip


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds")


async def _first(request: Request) -> Response:
    """The console's own address leads to the queue, of the store that one is signed in to."""
    name = request.path_params.get("store")
    if name is None:
        is_sandbox = cookie_of("sandbox") in request.cookies
        name = "sandbox" if is_sandbox and cookie_of("live") not in request.cookies else "live"
    elif name not in _MODES:
        raise HTTPException(404, "there are two stores, /console/live and /console/sandbox")
    return RedirectResponse(f"{ROOT}/{name}/queue", 303)


def _file(console: Console) -> Handler:
    async def answer(request: Request) -> Response:
        address, kind, content = console.files.get(request.path_params["name"], ("", "", b""))
        if address != request.url.path:
            raise HTTPException(404)
        return Response(content, media_type=kind, headers={"Cache-Control": IMMUTABLE})

    return answer


_FIRST: Final[tuple[Call[Console], ...]] = (
    Call("GET", ROOT, lambda _: _first, "The queue"),
    Call("GET", ROOT + "/file/{digest}/{name}", _file, "What a page loads"),
    Call("GET", ROOT + "/{store}", lambda _: _first, "The queue of a store"),
)


def _call(page: Page) -> Call[Console]:
    path = f"{ROOT}/{{store}}{page.path}"
    return Call(page.method, path, lambda console: partial(console.serve, page), page.path)


def _refuse_foreign(request: Request) -> None:
    """Refuse a form that another site sent: a browser says from where it comes."""
    site = sent(request.scope, b"sec-fetch-site", None)
    origin = sent(request.scope, b"origin", None)
    is_ours = site in (None, "same-origin", "none")
    if origin is not None and site is None:
        is_ours = urlsplit(origin).netloc == sent(request.scope, b"host", "")
    if not is_ours:
        raise ApiError(403, "this form was sent from another site, so nothing was done")


def _is_loopback(host: str) -> bool:
    """Whether a Host header names the machine itself.

    >>> [_is_loopback(host) for host in ("localhost:3000", "127.0.0.1", "[::1]:80", "shop.example")]
    [True, True, True, False]
    """
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _back(guest: Guest) -> str | None:
    """Where to go on after signing in: a page of the same store, as its path below it."""
    below = guest.path.removeprefix(f"{ROOT}/{guest.store_name}")
    return below if below not in ("", "/queue") else None
