"""The pages of customers, of what they use, and of what was found, as a browser asks for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from features.events import Label
from serving.desk import Desk
from serving.seen import seen
from serving.store.erasure import erase
from tests.serving.console.conftest import SANDBOX, SignedIn, now_ms
from tests.serving.explanation.stored import asked, day, decide, order, put

SignIn = Callable[..., SignedIn]
HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\u202egnp.exe", "x" * 250,
    "=cmd|' /C calc'!A0", "{{ 7 * 7 }}", "a/../../etc", "?a=b&c#d", "\u200b\u200b", "%00",
]  # fmt: skip
EMAIL = "ann@example.org"


@pytest.fixture
def ann(desk: Desk) -> str:
    """A customer's pseudonym, who has a past with somebody else's device."""
    put(desk.store, [
        order("o1", -9, device_id="phone", email=EMAIL, ip="192.0.2.1"),
        order("o2", -5, "bob", device_id="phone"),
        asked("r0", -4, order_id="o1"),
        Label(refund_id="r0", label="REFUND_ABUSE", source="ANALYST", known_at=day(-2)),
    ])  # fmt: skip
    decide(desk.store, asked("r1", 0, order_id="o1", amount_minor=12_300), "5c0de")
    return desk.store.identifiers.mac("customer", "ann")


def test_a_page_tells_all_that_is_known(ann: str, desk: Desk, signed_in: SignIn) -> None:
    text = signed_in("viewer").see(f"/customer/{ann}")
    for told in (
        "123.00 GBP", "Confirmed as abuse by an analyst", "Linked accounts", "62 %",
        'href="/console/sandbox/case/r1"', "Placed an order", "Confirmed abuse",
    ):  # fmt: skip
        assert told in text
    device = desk.store.identifiers.mac("device", "phone")
    bob = desk.store.identifiers.mac("customer", "bob")
    assert f"/entity/device/{device}" in text
    assert f"/customer/{bob}" in text
    assert text.count("<h1") == 1
    assert 'style="' not in text
    for original in ("ann", "phone", EMAIL, "192.0.2.1"):
        assert not re.search(rf"\b{re.escape(original)}\b", text), "no original is shown"


def test_the_page_of_a_thing_tells_who_used_it(ann: str, desk: Desk, signed_in: SignIn) -> None:
    device = desk.store.identifiers.mac("device", "phone")
    client = signed_in()
    text = client.see(f"/entity/device/{device}")
    assert "2 customers used it" in text
    assert ann in text
    assert "Nothing is known" in client.see("/entity/device/nothing", 404)
    assert "did you mean device?" in client.see("/entity/devise/x", 404)


def test_of_whom_nothing_is_known_the_page_says_so(ann: str, desk: Desk, signed_in: SignIn) -> None:
    erased = erase(desk.store, "ann", actor="a test", at=now_ms())
    assert "Nothing is known" in signed_in().see(f"/customer/{ann}", 404)
    text = signed_in("manager").see(f"/customer/{erased.successor}")
    assert "This customer was erased on" in text


# --- originals -----------------------------------------------------------------------------------


def test_originals_are_shown_once_and_audited(ann: str, desk: Desk, signed_in: SignIn) -> None:
    client = signed_in("manager", "Mia")
    answer = client.submit(f"/customer/{ann}/reveal", reason="She asked for it by letter.")
    assert answer.status_code == 200
    for original in ("ann", "phone", EMAIL, "192.0.2.1"):
        assert f'<code class="shown"><bdi>{original}</bdi></code>' in answer.text
    assert "no-store" in answer.headers["cache-control"]
    [entry] = [e for e in desk.store.audit_about("customer") if e.action == "identifiers_revealed"]
    assert entry.actor == f"account:{client.account.id}"
    kinds = {"customer": 1, "device": 1, "email": 1, "ip": 1}
    assert entry.content == {"identifiers": 4, "kinds": kinds}
    assert entry.personal == {"by": "Mia", "reason": "She asked for it by letter.", "customer": ann}
    assert EMAIL not in client.see(f"/customer/{ann}")
    assert EMAIL not in client.see(f"/customer/{ann}/reveal"), "asked for again it leads back"


@pytest.mark.parametrize("role", ["viewer", "agent"])
def test_whoever_may_not_sees_no_original(
    ann: str, desk: Desk, signed_in: SignIn, role: Any
) -> None:
    client = signed_in(role)
    assert "Show the originals" not in client.see(f"/customer/{ann}")
    answer = client.submit(f"/customer/{ann}/reveal", reason="I would like to see.")
    assert answer.status_code == 403
    assert EMAIL not in answer.text
    assert not [e for e in desk.store.audit_about("customer") if e.action == "identifiers_revealed"]


def test_without_a_reason_the_form_comes_back_as_it_was(ann: str, signed_in: SignIn) -> None:
    answer = signed_in("manager").submit(f"/customer/{ann}/reveal", reason="because")
    assert answer.status_code == 422
    assert "must be 10 to 300 characters" in answer.text
    assert 'value="because"' in answer.text
    assert EMAIL not in answer.text


# --- lists ---------------------------------------------------------------------------------------


def test_a_customer_is_put_on_a_list_and_taken_off(ann: str, desk: Desk, signed_in: SignIn) -> None:
    client = signed_in("manager", "Mia")
    here = f"/customer/{ann}"
    answer = client.submit(f"{here}/list", list="block", reason="ring of June", days="30")
    assert answer.headers["location"] == f"{SANDBOX}{here}?told=block"
    text = client.see(f"{here}?told=block")
    assert "It is on the block list" in text
    assert "ring of June" in text
    [entry] = desk.store.matching_lists({"customer": "ann"}, now_ms())
    assert (entry.author, entry.value) == ("Mia", ann)
    assert "It is on the allow list" not in client.see(f"{here}?told=allow"), "the store says it"
    assert client.submit(f"{here}/unlist", list="block").status_code == 303
    assert not desk.store.matching_lists({"customer": "ann"}, now_ms())
    audited = desk.store.audit_about("list:block")
    assert [(e.action, e.actor) for e in audited] == [
        (act, f"account:{client.account.id}") for act in ("listed", "unlisted")
    ]


def test_a_bad_entry_says_all_that_is_wrong_and_loses_nothing(ann: str, signed_in: SignIn) -> None:
    client = signed_in("manager")
    answer = client.submit(f"/customer/{ann}/list", list="blok", reason="kept", days="31")
    assert answer.status_code == 422
    assert "must be one of block, allow" in answer.text
    assert "must be one of 7, 30, 90, 365" in answer.text
    assert 'value="kept"' in answer.text
    assert '<a href="#f-days">For how long</a>: must be' in answer.text
    unsaid = client.submit(f"/customer/{ann}/reveal", reason="x")
    assert '<a href="#f-why">Why do you need them?</a>: must be' in unsaid.text
    assert client.submit(f"/customer/{ann}/list", list="block", reason=" ").status_code == 422
    assert client.submit(f"/customer/{ann}/unlist", list="x").status_code == 422


@pytest.mark.parametrize("act", ["list", "unlist"])
def test_an_agent_puts_nobody_on_a_list(ann: str, signed_in: SignIn, act: str) -> None:
    client = signed_in("agent")
    assert "Put on a list" not in client.see(f"/customer/{ann}")
    answer = client.submit(f"/customer/{ann}/{act}", list="block", reason="x")
    assert answer.status_code == 403


# --- finding -------------------------------------------------------------------------------------


def found(client: SignedIn, text: str) -> str:
    """Where a search leads to, below the store's address."""
    answer = client.submit("/search", text=text)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"]).removeprefix(SANDBOX)


def test_what_was_found_has_an_address_without_what_was_typed(
    ann: str, desk: Desk, signed_in: SignIn
) -> None:
    client, mac = signed_in("viewer"), desk.store.identifiers.mac
    assert found(client, "r1") == "/case/r1"
    assert found(client, "5c0de") == "/case/r1?decision=5c0de"
    assert found(client, " ann ") == f"/customer/{ann}"
    assert found(client, EMAIL.upper()) == f"/entity/email/{mac('email', EMAIL)}"
    assert found(client, "192.0.2.1") == f"/entity/ip/{mac('ip', '192.0.2.1')}"
    assert found(client, ann) == f"/customer/{ann}"
    assert found(client, "r0") == "/search?refund=r0", "nobody decided on it, so it has no case"
    assert found(client, "r") == "/search?refund=r0&refund=r1"
    text = client.see(found(client, "o1"))
    assert "r1" in text
    assert f"/customer/{ann}" in text


def test_what_is_not_found_is_kept_in_the_box(ann: str, signed_in: SignIn) -> None:
    client = signed_in()
    answer = client.submit("/search", text="nobody@example.org")
    assert answer.status_code == 404
    assert "Nothing was found." in answer.text
    assert 'value="nobody@example.org"' in answer.text
    assert client.submit("/search", text=" ").status_code == 422
    assert client.submit("/search", text="x" * 300).status_code == 422
    assert client.submit("/search", text="a\0b").status_code in (400, 422)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_ids_are_inert(desk: Desk, signed_in: SignIn, hostile: str) -> None:
    client = signed_in("manager")
    put(desk.store, [order(hostile, -9, hostile, device_id=hostile)])
    decide(desk.store, asked(hostile, 0, hostile, order_id=hostile, device_id=hostile))
    customer = desk.store.identifiers.mac("customer", hostile)
    pages = [
        client.see(f"/customer/{customer}"),
        client.see(f"/entity/device/{desk.store.identifiers.mac('device', hostile)}"),
        client.get(f"{SANDBOX}/search", params={"refund": hostile, "order": hostile}).text,
        client.submit(f"/customer/{customer}/reveal", reason="to see what it is").text,
        client.submit(f"/customer/{customer}/list", list="block", reason=hostile).text,
        client.submit("/search", text=f"{hostile}{hostile}"[:200] + "?").text,
    ]
    for text in pages:
        assert "<script>alert" not in text
        assert "<img" not in text
        assert not [one for one in text if seen(one) != one], "nothing unseen is on a page"


@pytest.mark.parametrize("path", ["/customer/" + "x" * 3_000, "/customer/%3Cscript%3E",
                                  "/entity/ip/%E2%80%AE", "/customer/x?before=1-2-3"])  # fmt: skip
def test_an_address_of_nothing_is_told_so(signed_in: SignIn, path: str) -> None:
    text = signed_in().see(path, 404)
    assert "Nothing is known" in text
    assert "<script>" not in text.replace('<script src="', "")
    assert "\u202e" not in text


def test_a_bad_place_is_one_clear_error(ann: str, signed_in: SignIn) -> None:
    text = signed_in().see(f"/customer/{ann}?before=soon", 400)
    assert "must be a place in the history" in text
