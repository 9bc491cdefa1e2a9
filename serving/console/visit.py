"""What a page of the console is given: who asks, for what, of which store; and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import quote, urlencode

from starlette.datastructures import QueryParams
from starlette.responses import RedirectResponse, Response

from serving.console.forms import Form
from serving.desk import Desk
from serving.language import Language
from serving.roles import Permission, may

if TYPE_CHECKING:
    from serving.accounts import Session
    from serving.console.app import Console
    from serving.store.accounts import Account

StoreName: TypeAlias = Literal["live", "sandbox"]

ROOT: Final = "/console"
MOST_FORM_BYTES: Final = 64 * 1024
"""A form of texts is no larger, if its page does not say otherwise."""


@dataclass(frozen=True)
class Guest:
    """A request of somebody who is not signed in, or need not be; ``at`` is now, in epoch ms."""

    console: Console
    store_name: StoreName
    desk: Desk
    at: int
    params: Mapping[str, str]
    query: QueryParams
    address: str
    form: Form = field(default_factory=Form)
    is_secure: bool = False
    path: str = ""
    host: str = ""
    """What the browser calls this service, with the port."""
    token: str = field(default="", repr=False)
    """What the browser holds for its session, '' for nothing."""

    @property
    def language(self) -> Language:
        """What analysts are spoken to in."""
        return self.console.language

    def link(self, path: str, /, *steps: str, **query: object) -> str:
        """The address of a page of this store: ``path``, and below it what others named.

        A step is quoted whole, a slash in it too, and of the query what is None is left out.

        >>> from types import SimpleNamespace
        >>> Guest.link(SimpleNamespace(store_name="live"), "/case", "../r 1", after=None, page=2)
        '/console/live/case/..%2Fr%201?page=2'
        """
        given = urlencode({name: value for name, value in query.items() if value is not None})
        address = "/".join((quote(path), *(quote(step, safe="") for step in steps)))
        return f"{ROOT}/{self.store_name}{address}" + (f"?{given}" if given else "")

    def to(self, path: str, /, *steps: str, **query: object) -> Response:
        """Send the browser to a page, which it asks for with GET."""
        return RedirectResponse(self.link(path, *steps, **query), 303)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A page made of a template of ours, which knows this as ``visit``."""
        return self.console.rendered(template, self, values, status)

    def may(self, permission: Permission) -> bool:
        """Nothing is for whoever is not signed in."""
        return False

    def holding(self, answer: Response, token: str) -> Response:
        """An answer after which the browser holds the token of a session, or with '' none."""
        answer.set_cookie(
            f"recourse_{self.store_name}", token, max_age=None if token else 0, httponly=True,
            path=f"{ROOT}/{self.store_name}", secure=self.is_secure, samesite="lax",
        )  # fmt: skip
        return answer


@dataclass(frozen=True)
class Visit(Guest):
    """A request of somebody who is signed in."""

    session: Session = field(kw_only=True)

    @property
    def account(self) -> Account:
        """Whose account it is, as it stands now."""
        return self.session.account

    @property
    def via(self) -> str:
        """How the audit log names who asks."""
        return f"account:{self.account.id}"

    def may(self, permission: Permission) -> bool:
        """Whether their role may do something."""
        return may(self.account.role, permission)


@dataclass(frozen=True)
class Page:
    """A page, or what a form does: asked for by ``method`` at ``path`` below a store's address.

    ``may`` is what one must be allowed to, None for whoever comes: ``handler`` then takes a
    `Guest`. A form has ``most_bytes`` at most.
    """

    method: Literal["GET", "POST"]
    path: str
    may: Permission | None
    handler: Callable[[Any], Response]
    most_bytes: int = MOST_FORM_BYTES
