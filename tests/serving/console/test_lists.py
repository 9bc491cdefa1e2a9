"""The pages of the lists: in and out, under pseudonyms, with originals for a reason, as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any

import pytest

from serving import listing
from serving.desk import Desk
from serving.listing import Entry
from serving.store.lists import NewEntry
from tests.serving.console.conftest import SignedIn, now_ms

Clients = Callable[..., SignedIn]

WHY = "to answer the customer's letter"
HOSTILE = '<script>alert(1)</script>"\u202e'


@pytest.fixture
def ann(signed_in: Clients) -> SignedIn:
    return signed_in("manager", "Ann Lee")


def on(desk: Desk, name: Any = "block") -> list[str]:
    return [entry.entity for entry in desk.store.list_entries(name)]


def put(desk: Desk, *ids: str, entity: str = "device", at: int = 10, **more: Any) -> None:
    listing.put(desk.store, "block", [NewEntry(entity, id, "ring", **more) for id in ids],
                author="Bob", at=at)  # fmt: skip


def test_an_entity_is_put_on_a_list_and_taken_off(ann: SignedIn, desk: Desk) -> None:
    given = {"entity": "device", "id": "dev-in-clear", "reason": f"ring {HOSTILE[:-1]}"}
    answer = ann.submit("/lists/block", **given)
    assert answer.status_code == 303
    page = ann.see(str(answer.headers["location"]).removeprefix("/console/sandbox"))
    assert "It is on the list, and counts from now on." in page
    assert "dev-in-clear" not in page
    assert "<script>alert" not in page
    assert "Ann Lee" in page
    assert "for good" in page
    [entry] = desk.store.list_entries("block")
    audited = desk.store.audit_about("list:block")[-1]
    assert (audited.actor, audited.action) == (f"account:{ann.account.id}", "listed")
    answer = ann.submit("/lists/block/off", value=entry.value, kind="device", standing="every")
    place = str(answer.headers["location"])
    assert "kind=device&standing=every&told=off" in place
    assert "It is off the list." in ann.see(place.removeprefix("/console/sandbox"))
    assert on(desk) == []
    assert ann.see("/lists/block?told=put&value=x").count('role="status"') == 0  # it was not


def test_a_bad_entry_is_told_with_all_that_was_typed(ann: SignedIn, desk: Desk) -> None:
    given = {"entity": "email", "id": f"no mail {HOSTILE}", "reason": " ", "expires_at": "soon"}
    answer = ann.submit("/lists/allow", **given)
    assert answer.status_code == 422
    page = answer.text
    assert "3 things are to be put right" in page
    assert "must be an e-mail address" in page
    assert "must be ISO 8601" in page
    assert 'value="soon"' in page
    assert '<option value="email" selected>' in page
    assert "<script>alert" not in page
    assert "\u202e" not in page
    past = ann.submit("/lists/allow", entity="ip", id="::1", reason="x", expires_at="2020-01-01")
    assert "must be later than now" in past.text
    assert "2020-01-01" in past.text
    assert on(desk, "allow") == []
    ann.see("/lists/grey", 404)


def test_entries_are_chosen_by_kind_and_standing_page_by_page(ann: SignedIn, desk: Desk) -> None:
    put(desk, *(f"d{n}" for n in range(60)))
    put(desk, "c1", entity="customer", at=20, expires_at=30)
    page = ann.see("/lists/block")
    assert page.count("data-row") == 50
    after = re.search(r'href="(/console/sandbox/lists/block\?[^"]*after=[^"]+)"', page)
    assert after is not None
    rest = ann.see(after[1].replace("&amp;", "&").removeprefix("/console/sandbox"))
    assert rest.count("data-row") == 10
    for entry in desk.store.list_entries("block"):  # whatever a pseudonym is made of
        ann.see(f"/lists/block?after={entry.created_at}-{entry.value}")
    over = ann.see("/lists/block?standing=over")
    assert over.count("data-row") == 1
    assert "expired" in over
    assert ann.see("/lists/block?standing=every&kind=customer").count("data-row") == 1
    assert "Nobody is on it" in ann.see("/lists/block?kind=email")
    for wrong in ("kind=devise", "standing=x", "after=x", "after=1-%00"):
        assert "must" in ann.see(f"/lists/block?{wrong}", 400)


def test_originals_are_shown_for_a_reason_to_who_may_see_them(
    ann: SignedIn, signed_in: Clients, desk: Desk
) -> None:
    put(desk, "dev-in-clear", HOSTILE)
    refused = ann.submit("/lists/block/reveal", reason="why")
    assert refused.status_code == 422
    assert "dev-in-clear" not in refused.text
    assert desk.store.audit_about("list:block")[-1].action == "listed"
    page = ann.submit("/lists/block/reveal", reason=WHY).text
    assert "dev-in-clear" in page
    assert "<script>alert" not in page
    entry = desk.store.audit_about("list:block")[-1]
    assert (entry.action, entry.content) == ("revealed", {"entries": 2})
    assert entry.personal == {"by": "Ann Lee", "reason": WHY}
    agent = signed_in("agent")
    assert "Original ids" not in agent.see("/lists/block")
    for path in ("/reveal", "/originals"):
        assert agent.submit(f"/lists/block{path}", reason=WHY).status_code == 403


def test_lists_go_out_as_csv_and_come_in_again(ann: SignedIn, desk: Desk) -> None:
    ids = ["=1+1", "+1", "-1", "@x", "'=a", 'plain, "quoted"']
    put(desk, *ids)
    answer = ann.submit("/lists/block/originals", reason=WHY)
    assert answer.headers["content-disposition"] == 'attachment; filename="block-list.csv"'
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))
    assert sorted(row["id"][0] for row in rows) == ["'"] * 5 + ["p"]
    file = {"file": ("l.csv", answer.content, "text/csv")}
    back = ann.submit("/lists/allow/import", files=file)
    told = ann.see(str(back.headers["location"]).removeprefix("/console/sandbox"))
    assert "6 entries were put on the list." in told
    values = {entry.value for entry in desk.store.list_entries("block")}
    assert {entry.value for entry in desk.store.list_entries("allow")} == values
    under = ann.submit("/lists/block/export").content.decode("utf-8-sig")
    assert all(value in under for value in values)
    assert "plain" not in under
    assert desk.store.audit_about("list:block")[-1].action == "exported"
    assert ann.submit("/lists/block/originals", reason="").status_code == 422


def test_a_bad_file_is_told_line_by_line_and_nothing_is_put(ann: SignedIn, desk: Desk) -> None:
    data = f"entity,id,reason\ndevice,d1,ring\ngadget,{HOSTILE},ring\nemail,x,ring\n".encode()
    answer = ann.submit("/lists/block/import", files={"file": ("x", data, "image/png")})
    assert answer.status_code == 422
    assert "2 lines of the file are bad, so nothing was put" in answer.text
    assert "line 3: <code>entity</code> must be one of" in answer.text
    assert "<script>alert" not in answer.text
    assert on(desk) == []
    rest = ann.submit("/lists/block/import", files={"file": ("x", data, "")}, skip_bad="yes")
    assert rest.status_code == 200
    assert "1 entry was put on the list." in rest.text
    assert "2 lines were left out:" in rest.text
    assert "line 3: <code>entity</code> must be one of" in rest.text
    assert "line 4: <code>id</code> must be an e-mail address" in rest.text
    assert on(desk) == ["device"]
    for wrong, told in ((None, "is required"), (b"entity,id,reason\n", "must hold an entry"),
                        (b"\xff\xfe\x00", "is required")):  # fmt: skip
        files = None if wrong is None else {"file": ("x.csv", wrong, "text/csv")}
        assert told in ann.submit("/lists/block/import", files=files).text
    many = b"entity,id,reason\n" + b"gadget,a,b\n" * 150
    assert "And 50 more problems." in ann.submit("/lists/block/import",
                                                 files={"file": ("x", many, "")}).text  # fmt: skip


@pytest.mark.parametrize(
    ("path", "list"),
    [("/lists", "block"), ("/lists/allow/import", "allow"), ("/lists/block/reveal", "block")],
)
def test_an_address_of_a_form_and_of_lists_at_all_lead_to_a_list(
    ann: SignedIn, path: str, list: str
) -> None:
    answer = ann.get(f"/console/sandbox{path}", follow_redirects=False)
    assert answer.headers["location"] == f"/console/sandbox/lists/{list}"


def test_who_may_not_change_lists_reads_them(signed_in: Clients, desk: Desk) -> None:
    put(desk, "d1", at=now_ms())
    viewer = signed_in("viewer")
    page = viewer.see("/lists/block")
    assert "Put somebody on it" not in page
    assert "Take off" not in page
    for path in ("", "/off", "/import"):
        assert viewer.submit(f"/lists/block{path}").status_code == 403
    assert viewer.submit("/lists/block/export").status_code == 200


def test_an_entry_whose_kind_the_policy_does_not_count_says_so(ann: SignedIn, desk: Desk) -> None:
    listing.put(desk.store, "allow", [Entry.of("device", "d", "x", None, 1)], author="B", at=2)
    assert "not counted" in ann.see("/lists/allow")
    assert "The policy in force counts entries of: customer." in ann.see("/lists/allow")
