"""People at the console, in a real browser: they take invitations up, sign in, and work by name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyotp
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

PASSWORD = "a tram to the sea and back"
STEP_SECONDS = 30


@dataclass
class Person:
    """Somebody with a browser of their own; ``secret`` is that of their one-time codes."""

    page: Page
    address: str
    name: str
    secret: str = ""
    taken_at: float = 0
    complaints: list[str] = field(default_factory=list)
    """What the browser complained about: a script that failed, or was barred."""

    @property
    def url(self) -> str:
        """Where they are, below the console of the sandbox."""
        return self.page.url.removeprefix(f"{self.address}/console/sandbox")

    def go(self, path: str) -> None:
        """Open a page of the sandbox."""
        self.page.goto(f"{self.address}/console/sandbox{path}")

    def code(self) -> str:
        """A code that was not taken yet: of the present step, or of the next, which counts too."""
        at = time.time()
        if at // STEP_SECONDS <= self.taken_at // STEP_SECONDS:
            at = self.taken_at + STEP_SECONDS
        self.taken_at = at
        return pyotp.TOTP(self.secret).at(int(at))

    def enrol(self, invitation: str) -> None:
        """Take an invitation up: codes, a password, and in."""
        self.page.goto(self.address + invitation)
        key = self.page.locator(".key-groups").inner_text()
        self.secret = "".join(key.split())
        self.page.get_by_label("One-time code").fill(self.code())
        self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        self.page.get_by_label("The password once more").fill(PASSWORD)
        self.page.get_by_role("button", name="Set both and sign in").click()
        expect(self.page.get_by_role("status")).to_be_visible()

    def sign_in(self) -> None:
        """Sign in at the page one was sent to."""
        self.page.get_by_label("Name").fill(self.name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_label("One-time code").fill(self.code())
        self.page.get_by_role("button", name="Sign in").click()


def someone(browser: Browser, address: str, name: str, **options: object) -> Person:
    """Somebody new, with a browser of their own."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(15_000)
    person = Person(page, address, name)

    def told(message: ConsoleMessage) -> None:
        # That an answer was a refusal is told there too, which a test may have asked for.
        if message.type in ("error", "warning") and "Failed to load" not in message.text:
            person.complaints.append(f"{page.url}: {message.text}")

    page.on("console", told)
    page.on("pageerror", lambda error: person.complaints.append(f"{page.url}: {error}"))
    return person


def faults_of(page: Page) -> Mapping[str, str]:
    """What axe finds wrong with a page, by rule: where."""
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    found = Axe().run(page, options=rules)
    return {
        one["id"]: "; ".join(node["html"][:200] for node in one["nodes"][:3])
        for one in found.response["violations"]
    }


def is_wider_than_its_window(page: Page) -> bool:
    """Whether a page scrolls sideways."""
    width = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    return bool(page.evaluate(width))
