"""The page of a case: what it tells, what people do there, and what they attach."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from typing import Any

import pytest
from PIL import Image

from features.money import DAY_MS
from serving.attachments import attachments_of
from serving.console.case import FILE_POLICY
from serving.reviews import Doing, act_on
from tests.serving.console.conftest import SANDBOX, SignedIn, now_ms
from tests.serving.console.held import WHY, Held, desk, held
from tests.serving.console.test_queue import said
from tests.serving.test_desk import BODY, ME, report
from tests.serving.test_reservations import outcome

__all__ = ["desk", "held"]  # fixtures

SignIn = Callable[..., SignedIn]
PDF = b"%PDF-1.7\n...\n%%EOF\n"


def picture() -> bytes:
    made = BytesIO()
    Image.new("RGB", (3, 2)).save(made, "PNG")
    return made.getvalue()


def score_of(html: str) -> str:
    found = re.search(r'name="scoreId" value="([^"]*)"', html)
    assert found is not None
    return found[1]


def buttons(html: str) -> set[str]:
    return set(re.findall(r'<button name="act" value="(\w+)"', html))


# --- what it tells -------------------------------------------------------------------------------


def test_it_tells_all_that_one_decides_by_and_under_headings_in_order(
    signed_in: SignIn, held: Held
) -> None:
    held("r-1", customer="c")
    html = signed_in("agent", "Ann").see("/case/r-1")
    for part in (
        "Refund r-1", "60.00 GBP", "o-r-1", "24 hours left", "Manual review", "Reasons", "Open",
        "What raises the risk", "Linked accounts", "Audit log", "Versions",
    ):  # fmt: skip
        assert part in said(html), part
    levels = [int(level) for level in re.findall(r"<h([1-4])[ >]", html)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = re.findall(r'\sid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', html)) <= set(ids)
    assert " style=" not in html and "<style" not in html


def test_a_viewer_reads_only(signed_in: SignIn, held: Held) -> None:
    held("r-1")
    client = signed_in("viewer")
    html = client.see("/case/r-1")
    assert not buttons(html) and "Your role reads only." in html
    assert client.submit("/case/r-1", act="deny", justification=WHY).status_code == 403


def test_what_was_never_held_is_told_and_what_is_not_known_is_not_found(
    signed_in: SignIn, held: Held
) -> None:
    held("r-1", 1_000)
    ann = signed_in("agent", "Ann")
    html = ann.see("/case/r-1")
    assert "it was decided at once" in html and not buttons(html) - {"note", "attach"}
    for wrong in ("r-9", "r-1?decision=no-such", "%3Cscript%3E"):
        assert "<script>" not in ann.see(f"/case/{wrong}", 404)


@pytest.mark.parametrize("refund_id", ["a/b c?d#e", "<script>alert(1)</script>", "é\u202ex"])
def test_any_id_is_the_id_of_a_case(signed_in: SignIn, held: Held, refund_id: str) -> None:
    held(refund_id)
    ann = signed_in("agent", "Ann")
    opened = ann.submit("/next").headers["location"]
    html = ann.see(opened.removeprefix(SANDBOX))
    assert "<script>alert" not in html and "\u202e" not in said(html)
    again = re.search(r'<aside.*?action="([^"]*)"', html, re.DOTALL)
    assert again is not None
    done = ann.submit(again[1].removeprefix(SANDBOX), act="deny", justification=WHY, stay="yes")
    assert done.status_code == 303
    assert "Denied" in said(ann.see(done.headers["location"].removeprefix(SANDBOX)))


# --- acts ----------------------------------------------------------------------------------------


def test_after_an_act_the_next_case_opens_and_says_what_was_done(
    desk: Any, signed_in: SignIn, held: Held
) -> None:
    held("r-1", 9_000)
    held("r-2", 6_000, customer="b")
    ann = signed_in("agent", "Ann")
    shown = ann.see("/case/r-1")
    done = ann.submit("/case/r-1", act="deny", justification=WHY, abuse="yes",
                      scoreId=score_of(shown))  # fmt: skip
    assert done.headers["location"] == f"{SANDBOX}/case/r-2?done=r-1"
    following = ann.see("/case/r-2?done=r-1")
    assert re.search(r'role="status"><strong>Denied: it is abuse\.</strong> Refund\s*'
                     r'<a href="/console/sandbox/case/r-1">', following)  # fmt: skip
    assert "Yours" in said(following)  # it was taken
    last = ann.submit("/case/r-2", act="approve", justification=WHY, abuse="no")
    assert last.headers["location"] == f"{SANDBOX}/queue?done=r-2"
    ended = said(ann.see("/case/r-1"))
    assert "Ann denied it" in ended and "it is answered: Prevent." in ended and WHY in ended
    assert desk.store.refund("r-1").state == "DENIED"
    entries = desk.store.audit_about("refund:r-1")
    assert any(entry.actor == ann.account.subject for entry in entries)


def test_one_may_stay_and_other_acts_stay(signed_in: SignIn, held: Held) -> None:
    held("r-1", 9_000)
    held("r-2", 6_000, customer="b")
    ann = signed_in("agent", "Ann")
    for fields in (
        {"act": "take"}, {"act": "release"}, {"act": "note", "note": "Called twice."},
        {"act": "request_information", "justification": WHY, "stay": "yes"},
    ):  # fmt: skip
        done = ann.submit("/case/r-1", **fields)
        assert done.headers["location"] == f"{SANDBOX}/case/r-1?done=r-1", fields
    html = said(ann.see("/case/r-1"))
    for part in ("Assigned to Ann", "Assigned to nobody", "Called twice.", "Asked for information"):
        assert part in html


def test_what_is_wrong_is_told_and_nothing_that_was_typed_is_lost(
    signed_in: SignIn, held: Held
) -> None:
    held("r-1")
    ann = signed_in("agent", "Ann")
    short = ann.submit("/case/r-1", act="deny", justification="<b>no", abuse="yes", stay="yes")
    assert short.status_code == 422 and "must be 10 to 2000 characters" in short.text
    assert "&lt;b&gt;no</textarea>" in short.text
    assert re.search(r'name="abuse" value="yes" checked', short.text)
    assert re.search(r'name="stay" value="yes" checked', short.text)
    with_verdict = ann.submit("/case/r-1", act="request_information", justification=WHY, abuse="no")
    assert with_verdict.status_code == 422 and WHY in with_verdict.text
    unseen = ann.submit("/case/r-1", act="note", note="\u202e\u202e")
    assert unseen.status_code == 422 and "<code>note</code>" in unseen.text
    odd = ann.submit("/case/r-1", act="shred", justification=WHY)
    assert odd.status_code == 422 and "shred" in odd.text


def test_enter_settles_nothing_and_what_was_typed_is_kept(
    desk: Any, signed_in: SignIn, held: Held
) -> None:
    held("r-1")
    ann = signed_in("agent", "Ann")
    form = re.search(r'<form(?:(?!</form>).)*name="justification".*?</form>', ann.see("/case/r-1"),
                     re.DOTALL)  # fmt: skip
    assert form is not None
    assert re.findall("<button[^>]*>", form[0])[0] == '<button name="act" value="" hidden>'
    sent = ann.submit("/case/r-1", act="", justification=WHY, abuse="no")
    assert sent.status_code == 422 and "Choose what to do" in sent.text
    assert f"{WHY}</textarea>" in sent.text and 'value="no" checked' in sent.text
    assert desk.store.refund("r-1").state == "NEEDS_REVIEW"


def test_to_approve_what_one_calls_abuse_is_asked_once_more(
    desk: Any, signed_in: SignIn, held: Held
) -> None:
    held("r-1")
    ann = signed_in("agent", "Ann")
    assert 'name="sure"' not in ann.see("/case/r-1")
    fields = {"act": "approve", "justification": WHY, "abuse": "yes"}
    short = ann.submit("/case/r-1", **{**fields, "justification": "no"})
    assert "10 to 2000" in short.text and 'name="sure"' not in short.text
    asked = ann.submit("/case/r-1", **fields)
    assert asked.status_code == 422 and "that you call abuse: send it again" in asked.text
    assert f"{WHY}</textarea>" in asked.text and 'name="sure" value="yes"' in asked.text
    assert desk.store.refund("r-1").state == "NEEDS_REVIEW"
    assert ann.submit("/case/r-1", **fields, sure="yes").status_code == 303
    assert desk.store.refund("r-1").state == "APPROVED"


def test_what_is_kept_by_the_shop_is_not_among_what_is_asked_back(
    signed_in: SignIn, held: Held
) -> None:
    held("r-1", 9_000, nonRefundableAmount=2_500)
    ann = signed_in("agent", "Ann")
    assert "65.00 GBP of 90.00 GBP asked" in said(ann.see("/queue"))
    assert "65.00 GBP 25.00 GBP of 90.00 GBP is kept by the shop" in said(ann.see("/case/r-1"))


def test_it_tells_what_is_asked_and_who_asks_in_brief(
    desk: Any, signed_in: SignIn, held: Held
) -> None:
    held("r-0", 6_000)
    at, line = now_ms(), {"sku": "<b>x", "quantity": 2, "price": 4_500, "refundReason": "EMPTY_BOX"}
    body = {**BODY, "order": {"orderId": "o-1", "orderTime": at - 3 * DAY_MS}, "timestamp": at}
    desk.decide(report(body, amount=9_000, items=[line]), lambda: at, ME)
    html = signed_in("agent", "Ann").see("/case/r-1")
    for part in ("What is asked", "Reason empty box", "3 days before", "2 × <b>x",
                 "2 refunds wait", "Nobody else used what this"):  # fmt: skip
        assert part in said(html), part
    assert "<b>x" not in html
    assert html.index('id="reasons"') < html.index('id="said"') < html.index('id="change"')


def test_acts_go_on_within_the_filter_in_force(desk: Any, signed_in: SignIn, held: Held) -> None:
    for number, amount in enumerate((9_000, 8_000, 7_000, 6_000)):
        held(f"r-{number}", amount, customer=f"c{number}")
    mia = signed_in("manager", "Mia")
    opened = mia.submit("/next", most="80").headers["location"]
    assert opened == f"{SANDBOX}/case/r-1?most=80"
    assert 'name="most" value="80"' in mia.see("/case/r-1?most=80")
    done = mia.submit("/case/r-1", act="deny", justification=WHY, most="80")
    assert done.headers["location"] == f"{SANDBOX}/case/r-2?done=r-1&most=80"
    noted = mia.submit("/case/r-2", act="note", note="Hm.", most="80")
    assert noted.headers["location"] == f"{SANDBOX}/case/r-2?done=r-2&most=80"
    wrong = mia.submit("/case/r-2", act="deny", justification="no", most="80")
    assert wrong.status_code == 422 and 'name="most" value="80"' in wrong.text
    left = mia.submit("/next", after="r-2", release="yes", most="80")
    assert left.headers["location"] == f"{SANDBOX}/case/r-3?most=80"
    assert mia.submit("/next", most="x").headers["location"] == f"{SANDBOX}/queue?most=x"
    assert mia.submit("/next", status="done").headers["location"].endswith("/case/r-0")
    ann = signed_in("agent", "Ann", 5_000)
    for refund_id in ("r-2", "r-3"):
        ann.submit(f"/case/{refund_id}", act="approve", justification=WHY)
    second = mia.submit("/case/r-2", act="approve", justification=WHY, status="second")
    assert second.headers["location"] == f"{SANDBOX}/case/r-3?done=r-2&status=second"
    assert "Ann and Mia" in said(mia.see("/queue?status=done"))
    mia.submit("/case/r-3", act="request_information", justification=WHY, stay="yes")
    again = mia.submit("/case/r-3", act="request_information", justification=WHY,
                       status="information")  # fmt: skip
    assert again.headers["location"] == f"{SANDBOX}/queue?done=r-3&status=information"


def test_a_decision_made_anew_meanwhile_is_to_be_read_first(signed_in: SignIn, held: Held) -> None:
    held("r-1", 6_000)
    ann = signed_in("agent", "Ann")
    read = score_of(ann.see("/case/r-1"))
    held("r-1", 7_000)
    late = ann.submit("/case/r-1", act="approve", justification=WHY, scoreId=read)
    told = "It was asked for again meanwhile: Asked back: 60.00 GBP → 70.00 GBP. Read it again."
    assert late.status_code == 409 and told in said(late.text) and WHY in late.text
    assert "scoreId:" not in late.text
    assert score_of(late.text) != read and "70.00 GBP" in late.text
    earlier = ann.see(f"/case/r-1?decision={read}")
    assert "an earlier decision" in earlier and not buttons(earlier)
    assert "asked for again with other fields" in said(late.text)
    assert ann.submit("/case/r-1", act="approve", justification=WHY,
                      scoreId=score_of(late.text)).status_code == 303  # fmt: skip
    again = ann.submit("/case/r-1", act="deny", justification=WHY)
    assert again.status_code == 409 and "Ann approved it" in again.text
    assert f"readonly>\n{WHY}</textarea>" in again.text and "Add it as a note" in again.text
    assert re.search(rf'<details open>.*name="note"[^>]*>\n{WHY}</textarea>', again.text, re.DOTALL)


def test_above_a_limit_an_approval_is_proposed_and_a_second_person_ends_it(
    desk: Any, signed_in: SignIn, held: Held
) -> None:
    held("r-1", 6_000)
    ann, bob = signed_in("agent", "Ann", 5_000), signed_in("agent", "Bob", 5_000)
    mia = signed_in("manager", "Mia")
    shown = ann.see("/case/r-1")
    assert "60.00 GBP is above your limit of 50.00 GBP." in said(shown)
    assert "Who can approve it: Mia." in said(shown)
    assert "Propose approval" in shown and ">Approve</button>" not in shown
    ann.submit("/case/r-1", act="approve", justification=WHY, abuse="no")
    own, other = ann.see("/case/r-1"), bob.see("/case/r-1")
    assert {"withdraw", "deny"} <= buttons(own) and "approve" not in buttons(own)
    assert "is not enough to approve it" in other and "approve" not in buttons(other)
    assert bob.submit("/case/r-1", act="approve", justification=WHY).status_code == 403
    second = mia.see("/case/r-1")
    assert "Approve as the second" in second and WHY in second
    mia.submit("/case/r-1", act="approve", justification=WHY)
    assert desk.store.refund("r-1").state == "APPROVED"
    assert "Ann and Mia approved it" in ann.see("/case/r-1")


def test_a_proposal_is_withdrawn_by_who_made_it(signed_in: SignIn, held: Held) -> None:
    held("r-1", 6_000)
    ann = signed_in("agent", "Ann", 5_000)
    ann.submit("/case/r-1", act="approve", justification=WHY)
    ann.submit("/case/r-1", act="withdraw")
    assert "Propose approval" in ann.see("/case/r-1")


def test_a_manager_gives_a_case_and_reopens_a_refusal(
    desk: Any, signed_in: SignIn, held: Held
) -> None:
    held("r-1")
    ann, mia = signed_in("agent", "Ann"), signed_in("manager", "Mia")
    assert "assign" not in buttons(ann.see("/case/r-1"))
    mia.submit("/case/r-1", act="assign", assignee="Ann")
    assert "Ann works on this case." in mia.see("/case/r-1")
    assert ann.submit("/case/r-1", act="assign", assignee="Mia").status_code == 403
    ann.submit("/case/r-1", act="deny", justification=WHY)
    assert "reopen" not in buttons(ann.see("/case/r-1"))
    assert "reopen" in buttons(mia.see("/case/r-1"))
    mia.submit("/case/r-1", act="reopen", justification=WHY)
    assert "Reopened it" in mia.see("/case/r-1") and "approve" in buttons(mia.see("/case/r-1"))


def test_a_case_whose_decision_is_gone_is_still_a_page(
    desk: Any, signed_in: SignIn, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    held("r-1")
    act_on(desk.store, "r-1", Doing.of("deny", by="Ann", justification=WHY), at=now_ms())
    ann = signed_in("agent", "Ann")
    monkeypatch.setattr("serving.console.app.Console.explain", lambda *_: None)
    html = ann.see("/case/r-1")
    assert "The decision is not kept any more" in html and WHY in html


# --- evidence ------------------------------------------------------------------------------------


def test_files_are_attached_shown_and_removed(desk: Any, signed_in: SignIn, held: Held) -> None:
    held("r-1")
    ann, bob = signed_in("agent", "Ann"), signed_in("agent", "Bob")
    done = ann.submit("/case/r-1", act="attach", files=[("file", ("a.png", picture(), "text/html")),
                                            ("file", ("b.pdf", PDF, "image/png"))])  # fmt: skip
    assert done.status_code == 303
    image, paper = attachments_of(desk.store, "r-1")
    html = ann.see(done.headers["location"].removeprefix(SANDBOX))
    assert re.search(r'role="status"><strong>Attached: [ab]\.(png|pdf)\.', html)
    assert f'<img src="{SANDBOX}/attachment/{image.id}" alt="Picture a.png"' in html
    assert "Remove" in html and "Remove" not in bob.see("/case/r-1")
    for file, kind, how in ((image, "image/png", "inline"),
                            (paper, "application/pdf", "attachment")):  # fmt: skip
        answer = bob.get(f"{SANDBOX}/attachment/{file.id}")
        assert answer.headers["content-type"] == kind
        assert answer.headers["content-disposition"].startswith(how + "; filename*=UTF-8''")
        assert answer.headers["content-security-policy"] == FILE_POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert bob.submit(f"/attachment/{image.id}").status_code == 403
    assert ann.submit(f"/attachment/{image.id}").headers["location"] == f"{SANDBOX}/case/r-1"
    assert [one.id for one in attachments_of(desk.store, "r-1")] == [paper.id]
    ann.see(f"/attachment/{image.id}", 404)


def test_what_is_no_evidence_is_refused_and_hinders_no_other(
    desk: Any, signed_in: SignIn, held: Held
) -> None:
    held("r-1")
    ann = signed_in("agent", "Ann")
    for name, content in (("x.png", b"<svg onload=alert(1)>"), ("<b>.html", b"<script>"),
                          ("../../etc/passwd", b"MZ"), ("e.pdf", b"")):  # fmt: skip
        done = ann.submit("/case/r-1", act="attach", files=[("file", (name, content, "image/png")),
                                                ("file", ("ok.pdf", PDF, ""))])  # fmt: skip
        assert done.status_code == 422 and "<script>" not in done.text and "<b>" not in done.text
        assert "One file was not attached:" in said(done.text)
        assert "1 other was attached." in said(done.text)
    assert [one.name for one in attachments_of(desk.store, "r-1")] == ["ok.pdf"] * 4
    assert ann.submit("/case/r-1", act="attach").status_code == 422
    many = [("file", (f"{n}.pdf", PDF, "")) for n in range(6)]
    assert "at most 5 at once" in ann.submit("/case/r-1", act="attach", files=many).text
    assert ann.submit("/case/r-9", act="attach", files=many[:1]).status_code == 404
    assert signed_in("viewer").submit("/case/r-1", act="attach", files=many[:1]).status_code == 403


@pytest.mark.parametrize("refund_id", ["../../accounts", "a/b/", "a b?c#d", "é/ü"])
def test_a_refund_is_reached_whatever_its_id_holds(
    signed_in: SignIn, held: Held, refund_id: str
) -> None:
    held(refund_id)
    client = signed_in("agent")
    link = re.search(r'href="(/console/sandbox/case/[^"]+)" data-row', client.see("/queue"))
    assert link is not None
    page = client.get(link[1])
    assert page.status_code == 200 and refund_id in said(page.text)
    assert client.submit("/search", text=refund_id).headers["location"] == link[1]


def test_of_what_was_paid_since_nothing_is_promised_nor_reopened(
    desk: Any, signed_in: SignIn, held: Held
) -> None:
    held("r-1")
    mia = signed_in("manager", "Mia")
    act_on(desk.store, "r-1", Doing.of("deny", by="Ann", justification=WHY), at=now_ms())
    before = said(mia.see("/case/r-1"))
    assert "it is answered: Prevent" in before and "Reopen the refusal" in before
    desk.record(outcome("r-1", "COMPLETED"), now_ms(), "key:key_1")
    after = said(mia.see("/case/r-1"))
    assert "It was reported paid since" in after
    assert "is answered: Prevent" not in after and "Reopen the refusal" not in after
