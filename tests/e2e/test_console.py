"""The console as people use it: the real service, a real browser, from the first invitation on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from serving.store.store import Store
from tests.e2e.people import PASSWORD, Person, faults_of, is_wider_than_its_window, someone
from tests.e2e.service import Service, recourse
from tests.e2e.test_contract import changed
from tests.serving.receivers import Receiver, receiving

PATIENCE_SECONDS = 20
HELD = "qa-force-refund-manualreview@example.com"
WHY = "The parcel was signed for by the customer."
PRICES = (1_000, 2_000, 90_000)
"""What the refunds that wait are about, in minor units: the last is above an agent's limit."""


@dataclass
class Desk:
    """A service with cases that wait, somebody who takes webhooks, and people."""

    service: Service
    receiver: Receiver
    browser: Browser
    people: dict[str, Person] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Of the service."""
        return f"http://127.0.0.1:{self.service.port}"

    def ask(self, refund_id: str, amount: int, **more: Any) -> dict[str, Any]:
        """Ask for a refund that is to wait for a person, as its backend does."""
        body = changed(refundId=refund_id, amount=amount, nonRefundableAmount=0, **more)
        body["customer"] = {**body["customer"], "customerId": f"c {refund_id}", "email": HELD}
        body["order"] = {"orderId": f"o {refund_id}"}
        answer = self.service.client.post("/v2/refund?score=refundRequest", json=body,
                                          headers=self.service.headers("test"))  # fmt: skip
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()["data"]
        return told

    def store(self) -> Store:
        """The sandbox, to look into."""
        from serving.settings import Settings

        settings = Settings(home=self.service.home)
        return Store.open(settings.database_url_of("sandbox"), settings.secret_bytes())

    def person(self, role: str, limit: str = "") -> Person:
        """Somebody of a role, invited by the administrator on the page of accounts, signed in."""
        if role not in self.people:
            admin = self.people["admin"].page
            self.people["admin"].go("/accounts")
            admin.get_by_label("Name").fill(f"Some {role}")
            admin.get_by_label("Role").select_option(role)
            admin.get_by_label("Approves alone up to").fill(limit)
            admin.get_by_role("button", name="Invite").click()
            invitation = admin.get_by_label("Address of the invitation").input_value()
            person = someone(self.browser, self.address, f"Some {role}")
            person.enrol(invitation.removeprefix(self.address))
            self.people[role] = person
        return self.people[role]


@pytest.fixture(scope="module")
def desk(trained: Path, tmp_path_factory: Any, browser: Browser) -> Iterator[Desk]:
    home = tmp_path_factory.mktemp("console")
    (home / "model").symlink_to(trained / "model")
    settings = {"RECOURSE_WEBHOOK_ALLOW_PRIVATE": "true"}
    with receiving() as receiver, Service(home, settings=settings) as service:
        added = recourse(home, "webhooks", "add", receiver.url, "--type", "refund.reviewed",
                         "--mode", "test", **settings)  # fmt: skip
        receiver.secret = re.search(r"whsec_\S+", added)[0]  # type: ignore[index]
        made = Desk(service, receiver, browser)
        for number, price in enumerate(PRICES):
            assert made.ask(f"r-{number}", price)["action"] == "MANUAL_REVIEW"
        invitation = recourse(home, "accounts", "create", "Ann Lee", "--role", "admin", "--mode",
                              "test").strip()  # fmt: skip
        made.people["admin"] = ann = someone(browser, made.address, "Ann Lee")
        ann.enrol(invitation)
        yield made
        complaints = [each for person in made.people.values() for each in person.complaints]
        for person in made.people.values():
            person.page.context.close()
        assert complaints == []


def until(found: Any) -> bool:
    """Whether it came to be in time."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while not found():
        if time.monotonic() > ends:
            return False
        time.sleep(0.05)
    return True


def picture(folder: Path) -> Path:
    path = folder / "parcel.png"
    Image.new("RGB", (320, 240), "teal").save(path)
    return path


def test_the_first_administrator_signs_in_with_a_password_and_a_code(desk: Desk) -> None:
    person = someone(desk.browser, desk.address, "Ann Lee")
    person.secret, person.taken_at = desk.people["admin"].secret, desk.people["admin"].taken_at
    person.go("/dashboard")
    assert person.url.startswith("/sign-in")
    person.page.get_by_label("Name").fill("Ann Lee")
    person.page.get_by_label("Password").fill("not the password at all")
    person.page.get_by_label("One-time code").fill("000000")
    person.page.get_by_role("button", name="Sign in").click()
    expect(person.page.get_by_role("alert")).to_contain_text("is not right")
    assert faults_of(person.page) == {}
    person.sign_in()
    expect(person.page.get_by_role("heading", name="Dashboard", level=1)).to_be_visible()
    desk.people["admin"].taken_at = person.taken_at
    person.page.context.close()


def test_an_agent_takes_the_first_case_and_denies_it_with_evidence(
    desk: Desk, tmp_path: Path
) -> None:
    agent = desk.person("agent", "100")
    page = agent.page
    agent.go("/queue")
    rows = page.locator("table.cases tbody tr")
    assert rows.count() == len(PRICES)
    first = rows.first.locator("th a").inner_text()
    page.get_by_role("button", name="Start with the first case").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(first)
    expect(page.get_by_text("Yours", exact=True)).to_be_visible()
    agent.go("/case/r-0")
    expect(page.locator("ol.reasons li.reason").first).to_be_visible()
    page.locator("summary", has_text="Attach files").click()
    page.get_by_label("Attach pictures or PDF documents").set_input_files(picture(tmp_path))
    page.get_by_role("button", name="Attach", exact=True).click()
    shown = page.get_by_role("img", name="Picture parcel.png")
    expect(shown).to_be_visible()
    shown.scroll_into_view_if_needed()  # only then it is loaded
    assert until(lambda: shown.evaluate("image => image.complete && image.naturalWidth") == 320)
    page.get_by_label("Justification").fill(WHY)
    page.get_by_label("Yes", exact=True).check()
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("status")).to_contain_text("r-0")
    assert re.match(r"/case/r-[12]\?done=r-0$", agent.url)  # the next one opened by itself

    def told() -> list[Any]:
        return [body for _, body in desk.receiver.came if body["data"]["refundId"] == "r-0"]

    assert until(told) and not desk.receiver.forged
    assert told()[0]["type"] == "refund.reviewed"
    answer = desk.ask("r-0", PRICES[0])
    assert (answer["action"], answer["source"]) == ("PREVENT", "MANUAL_REVIEW")
    store = desk.store()
    labels = [one.payload for one in store.refund_events("r-0") if one.event_type == "label"]
    assert [label["label"] for label in labels] == ["REFUND_ABUSE"]
    entries = {entry.action: entry for entry in store.audit_about("refund:r-0")}
    store.close()
    assert entries["review_denied"].actor.startswith("account:")
    personal = entries["review_denied"].personal or {}
    assert (personal["by"], personal["justification"]) == ("Some agent", WHY)


def test_an_amount_above_an_agents_limit_needs_a_second_person_of_a_higher_role(
    desk: Desk,
) -> None:
    agent, manager = desk.person("agent", "100"), desk.person("manager", "2000")
    agent.go("/case/r-2")
    expect(agent.page.get_by_text("is above your limit")).to_be_visible()
    agent.page.get_by_label("Justification").fill("The carrier confirmed that it was lost.")
    agent.page.get_by_label("Stay on this case afterwards").check()
    agent.page.get_by_role("button", name="Propose approval").click()
    expect(agent.page.get_by_text("waits for somebody of a higher role").first).to_be_visible()
    expect(agent.page.get_by_role("button", name=re.compile("^(Approve|Propose)"))).to_have_count(0)
    assert desk.ask("r-2", PRICES[2])["action"] == "MANUAL_REVIEW"
    manager.go("/queue?status=second")
    manager.page.get_by_role("link", name="r-2", exact=True).click()
    expect(manager.page.get_by_text("Some agent proposed to approve it")).to_be_visible()
    manager.page.get_by_label("Justification").fill("Seen the carrier's letter as well.")
    manager.page.get_by_label("Stay on this case afterwards").check()
    manager.page.get_by_role("button", name="Approve as the second").click()
    expect(manager.page.locator(".glance")).to_contain_text("Approved")
    answer = desk.ask("r-2", PRICES[2])
    assert (answer["action"], answer["source"]) == ("ALLOW", "MANUAL_REVIEW")
    store = desk.store()
    acts = [entry.action for entry in store.audit_about("refund:r-2")]
    store.close()
    assert "review_approval_proposed" in acts and "review_approved" in acts


def test_a_role_that_may_not_sees_neither_the_way_nor_the_page(desk: Desk) -> None:
    viewer = desk.person("viewer")
    viewer.go("/case/r-1")
    expect(viewer.page.get_by_text("Your role reads only")).to_be_visible()
    expect(viewer.page.get_by_role("button", name="Approve")).to_have_count(0)
    expect(viewer.page.get_by_role("link", name="Accounts", exact=True)).to_have_count(0)
    viewer.go("/accounts")
    expect(viewer.page.get_by_role("heading", level=1)).to_have_text("This is not for you")
    expect(viewer.page.get_by_role("alert")).to_contain_text(
        "your role is viewer", ignore_case=True
    )


def test_a_case_is_worked_from_the_keyboard_alone(desk: Desk) -> None:
    desk.ask("r-key", 1_500)
    agent = desk.person("agent", "100")
    page = agent.page
    agent.go("/queue")
    for _ in range(10):  # to the row of the case
        page.keyboard.press("j")
        if page.evaluate("document.activeElement.innerText").strip() == "r-key":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("r-key")
    page.keyboard.press("w")
    page.keyboard.type("The customer's photograph shows the damage.")
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.get_by_role("status")).to_contain_text("r-key")
    answer = desk.ask("r-key", 1_500)
    assert (answer["action"], answer["source"]) == ("ALLOW", "MANUAL_REVIEW")
    page.keyboard.press("q")
    expect(page.get_by_role("heading", name="Queue", level=1)).to_be_visible()


def test_enter_on_a_choice_settles_nothing_without_script_either(desk: Desk) -> None:
    desk.ask("r-enter", 1_600)
    signed_in = desk.person("agent", "100").page.context.storage_state()
    context = desk.browser.new_context(java_script_enabled=False, storage_state=signed_in)
    page = context.new_page()
    page.goto(f"{desk.address}/console/sandbox/case/r-enter")
    page.get_by_label("Justification").fill(WHY)
    page.get_by_label("No", exact=True).check()
    page.get_by_label("No", exact=True).press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Choose what to do")
    expect(page.get_by_label("Justification")).to_have_value(WHY)
    context.close()
    assert desk.ask("r-enter", 1_600)["action"] == "MANUAL_REVIEW"


def test_the_sandbox_is_no_way_into_the_live_store(desk: Desk) -> None:
    admin = desk.people["admin"].page
    admin.goto(f"{desk.address}/console/live/queue")
    assert admin.url.startswith(f"{desk.address}/console/live/sign-in")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_and_fits_a_phone(desk: Desk, scheme: Any) -> None:
    ann = desk.people["admin"]
    desk.ask("r-look", 3_000)
    ann.page.emulate_media(color_scheme=scheme)
    ann.go("/case/r-look")
    customer = ann.page.get_by_role("link", name=re.compile("…")).first.get_attribute("href") or ""
    faults, wide = {}, []
    paths = ("/queue", "/queue?status=done", "/case/r-look", "/case/r-2", "/dashboard",
             customer.removeprefix("/console/sandbox"), "/lists/block", "/policies",
             "/accounts", "/account", "/audit", "/nothing")  # fmt: skip
    for path in paths:
        ann.page.set_viewport_size({"width": 1280, "height": 900})
        ann.go(path)
        for details in ann.page.locator("main details:not([open]) > summary").all()[:12]:
            if details.is_visible():
                details.click()
        if found := faults_of(ann.page):
            faults[path] = found
        ann.page.set_viewport_size({"width": 390, "height": 844})
        ann.go(path)
        if is_wider_than_its_window(ann.page):
            wide.append(path)
    assert faults == {} and wide == []


def test_signing_out_ends_it(desk: Desk) -> None:
    ann = desk.people["admin"]
    ann.page.set_viewport_size({"width": 1280, "height": 900})
    ann.go("/queue")
    ann.page.locator("details.own summary").click()
    ann.page.get_by_role("button", name="Sign out").click()
    assert ann.url.startswith("/sign-in")
    ann.go("/queue")
    assert ann.url.startswith("/sign-in")
    assert PASSWORD not in (desk.service.home / "service.log").read_text()
