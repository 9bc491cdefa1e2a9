"""The pages of the policy: what is read there, refused with its lines, and put in force by two."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import governance
from serving.console.policy_words import MOST_LINES, rows
from serving.desk import Desk
from tests.serving.conftest import DEFAULT_POLICY
from tests.serving.console.conftest import SignedIn

Clients = Callable[..., SignedIn]

DEFAULT = DEFAULT_POLICY.read_text(encoding="utf-8")
NEXT = DEFAULT.replace('version: "2"', 'version: "3"').replace("fee_minor: 500", "fee_minor: 600")
HOSTILE = "<script>alert(1)</script>\u202e"


@pytest.fixture
def ann(signed_in: Clients) -> SignedIn:
    return signed_in("manager", "Ann Lee")


@pytest.fixture
def bob(signed_in: Clients) -> SignedIn:
    return signed_in("manager", "Bob Ray")


def proposed(client: SignedIn, text: str = NEXT, **more: Any) -> Any:
    return client.submit("/policies/2/next", text=text, **more)


def in_force(desk: Desk) -> str:
    found = desk.store.active_policy()
    assert found is not None
    return found.version


def test_a_policy_is_read_by_its_parts_and_its_lines(ann: SignedIn) -> None:
    page = ann.see("/policies")
    assert "in force" in page
    assert "recourse put policy 2 in force, the first" in page
    page = ann.see("/policies/2")
    assert (
        "Manual review at a probability of 25 % and an expected loss of 5.00 GBP, or more" in page
    )
    assert 'id="rule-refund_already_completed"' in page
    assert '<li id="L11"><a href="#L11" tabindex="-1" aria-hidden="true">11</a>' in page
    assert "More than 5 refund requests of one customer within 1 day" in page
    assert "Put in force …" not in page
    assert "olicy 9: no such version" in ann.see("/policies/9", 404)


def test_what_is_proposed_is_kept_and_acts_once_another_has_put_it_in_force(
    ann: SignedIn, bob: SignedIn, desk: Desk
) -> None:
    answer = proposed(ann, note=" dearer mistakes ")
    assert answer.headers["location"].endswith("/policies/3?told=proposed")
    page = ann.see("/policies/3?told=proposed")
    assert "Policy 3 is kept, by Ann Lee" in page
    assert "You wrote it, so somebody else" in page
    assert "Put in force …" not in page
    assert "second pair of eyes" in ann.see("/policies/3/activate")
    refused = ann.submit("/policies/3/activate")
    assert refused.status_code == 422
    assert "Ann Lee wrote it" in refused.text
    assert in_force(desk) == "2"

    page = bob.see("/policies/3/activate")
    assert "costs: fee_minor 500 becomes 600" in page
    assert "Not backtested" in page
    seen = re.search('name="instead_of" value="([0-9a-f]+)"', page)
    assert seen is not None
    done = bob.submit("/policies/3/activate", instead_of=seen[1], note="read <b>twice</b>")
    assert done.headers["location"].endswith("/policies/3?told=in-force")
    assert in_force(desk) == "3"
    page = bob.see("/policies/3?told=in-force")
    assert "Policy 3 is in force, by Bob Ray" in page
    assert "read &lt;b&gt;twice&lt;/b&gt;" in page
    entry = desk.store.audit_about("policy:3")[-1]
    assert (entry.actor, entry.action) == (f"account:{bob.account.id}", "activated")
    assert entry.personal == {"by": "Bob Ray", "note": "read <b>twice</b>"}


def test_there_is_a_way_back_which_one_person_goes(
    ann: SignedIn, bob: SignedIn, desk: Desk
) -> None:
    proposed(ann)
    assert "did not lead to the present one" in bob.see("/policies/3/roll-back")
    bob.submit("/policies/3/activate")
    page = bob.see("/policies")
    assert "Go back to policy 2" in page
    page = bob.see("/policies/2/roll-back")
    assert "costs: fee_minor 600 becomes 500" in page
    stale = bob.submit("/policies/2/roll-back", instead_of="0" * 64, note="typed")
    assert stale.status_code == 422
    assert "another policy was put in force meanwhile" in stale.text
    assert ">\ntyped</textarea>" in stale.text
    assert bob.submit("/policies/2/roll-back").status_code == 303
    assert in_force(desk) == "2"
    assert "Bob Ray went back to policy 2, from 3" in bob.see("/policies")
    assert "is in force already" in bob.see("/policies/2/activate")


def test_a_bad_text_is_shown_again_with_each_problem_at_its_line(ann: SignedIn, desk: Desk) -> None:
    text = NEXT.replace("fallback: MANUAL", "fallbak: MANUAL") + f"# {HOSTILE} </textarea>"
    answer = proposed(ann, text, note="why <i>")
    assert answer.status_code == 422
    page = answer.text
    assert "Did you mean fallback?" in page
    line = text.splitlines().index(next(one for one in text.splitlines() if "fallbak" in one)) + 1
    assert f'data-select-line="{line}" data-of="f-text">line {line}, column 1</a>' in page
    assert "<mark>fallbak</mark>" in page
    shown = re.search(r'<textarea id="f-text".*?>\n(.*?)</textarea>', page, re.DOTALL)
    assert shown is not None
    assert html.unescape(shown[1]) == text.replace("\u202e", "[U+202E]")
    assert "why &lt;i&gt;</textarea>" in page
    assert "<script>alert" not in page
    assert len(desk.store.policy_versions()) == 1


def test_a_file_is_taken_in_place_of_the_text(ann: SignedIn, desk: Desk) -> None:
    file = ("p.yaml", NEXT.replace("\n", "\r\n").encode("utf-8-sig"), "text/yaml")
    assert proposed(ann, "nothing", files={"file": file}).status_code == 303
    assert [kept.version for kept in desk.store.policy_versions()] == ["2", "3"]
    again = proposed(ann, NEXT)
    assert again.headers["location"].endswith("told=known")
    bad = proposed(ann, "x", files={"file": ("p", b"\xff\xfe", "image/png")}, note="n" * 501)
    assert bad.status_code == 422
    assert "must be text in UTF-8" in bad.text
    assert "must be at most 500 characters" in proposed(ann, NEXT, note="n" * 501).text


def test_what_follows_another_and_what_is_odd_is_told(ann: SignedIn) -> None:
    changed = NEXT.replace("at_most: 5", "at_most: 4")  # its version did not rise
    answer = proposed(ann, changed)
    assert answer.status_code == 422
    assert "limits.customer_per_day" in answer.text
    odd = (
        NEXT
        + """
  - {id: odd, version: 1, stage: risk, when: claim == 'FUL', action: PREVENT, reason: ODD,
     description: odd, examples: {hit: [{claim: FUL}], miss: [{claim: FULL}]}}
"""
    )
    assert proposed(ann, odd).status_code == 303
    assert "Probably meant otherwise" in ann.see("/policies/3")


def test_two_versions_are_told_apart_in_meaning_and_by_lines(
    ann: SignedIn, bob: SignedIn, signed_in: Clients
) -> None:
    proposed(ann)
    page = signed_in("viewer").see("/policies/3/diff")
    assert "Against policy 2, which is in force." in page
    assert "costs: fee_minor 500 becomes 600" in page
    comes = re.findall(r'<tr class="comes">.*?<code>(.*?)</code>', page)
    goes = re.findall(r'<tr class="goes">.*?<code>(.*?)</code>', page)
    assert [one.strip() for one in comes] == ["version: &#34;3&#34;", "fee_minor: 600"]
    assert [one.strip() for one in goes] == ["version: &#34;2&#34;", "fee_minor: 500"]
    assert "There is nothing to compare it with." in ann.see("/policies/2/diff")
    assert "costs: fee_minor 600 becomes 500" in ann.see("/policies/2/diff?against=3")
    assert "no such version" in ann.see("/policies/3/diff?against=9", 404)
    bob.submit("/policies/3/activate")
    assert "Against policy 2, by recourse." in ann.see("/policies/3/diff")


def test_lines_that_are_common_in_a_text_are_told_apart_by_those_around_them() -> None:
    old = ["x", *(f"{n}\n  stage: risk\n  mode: live" for n in range(300))]
    new = [*old[:150], "new\n  stage: risk\n  mode: live", *old[151:]]
    found = rows("\n".join(old), "\n".join(new))
    assert found is not None
    assert [(row.sign, row.text) for row in found if row.sign != " "] == [
        ("-", "149"), ("+", "new"),
    ]  # fmt: skip


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_each_line_of_both_texts_is_told_once(old: str, new: str) -> None:
    found = rows("\n".join(old), "\n".join(new)) or []
    kept = [row for row in found if row.before and row.after]
    assert all(old[(row.before or 0) - 1] == new[(row.after or 0) - 1] for row in kept)
    if all(row.before or row.after for row in found) and found:  # no gap: the whole is shown
        last_of_both = max(row.before or 0 for row in found), max(row.after or 0 for row in found)
        ends = old[last_of_both[0] :], new[last_of_both[1] :]
        assert ends[0] == ends[1]
        told = ("".join(row.text for row in found if row.sign != sign) for sign in "+-")
        assert [*told] == [old[: last_of_both[0]], new[: last_of_both[1]]]


def test_texts_that_have_little_in_common_are_put_side_by_side_in_time() -> None:
    old, new = ["a"] * 4_000, [line for n in range(2_000) for line in ("a", str(n))]
    found = rows("\n".join(old), "\n".join(new))
    assert found is not None and [row.text for row in found if row.sign == "+"] == new[1:]


def test_a_version_that_this_program_cannot_read_is_shown_and_not_put_in_force(
    ann: SignedIn, desk: Desk
) -> None:
    with desk.store.write() as tx:  # as an older program kept it
        tx.add_policy(version="1.9", hash="f" * 64, text=f"version: '1.9'\nrules: {HOSTILE}\n",
                      author="Old <b>Hand</b>", note=HOSTILE, at=5)  # fmt: skip
    for path in ("", "/diff", "/activate"):
        page = ann.see(f"/policies/1.9{path}")
        assert "policy refused" in page
        assert "<script>alert" not in page
        assert "\u202e" not in page
    assert ann.submit("/policies/1.9/activate").status_code == 422
    assert in_force(desk) == "2"


def test_who_may_not_change_policies_sees_them_without_the_means(signed_in: Clients) -> None:
    agent = signed_in("agent")
    for path in ("/policies", "/policies/2", "/policies/2/diff", "/policies/2/backtest"):
        page = agent.see(path)
        assert "/next" not in page
        assert '<button class="main">' not in page
    for path in ("/policies/2/next", "/policies/2/activate", "/policies/2/roll-back"):
        agent.see(path, 403)
        assert agent.submit(path).status_code == 403
    assert agent.submit("/policies/2/backtest").status_code == 403


def test_the_settings_may_let_an_author_alone_but_not_here(ann: SignedIn, desk: Desk) -> None:
    proposed(ann)
    assert ann.submit("/policies/3/activate").status_code == 422
    governance.activate(desk.store, "3", actor="Ann Lee", at=9, second_person=False)  # the command
    assert in_force(desk) == "3"


def test_a_text_of_very_many_lines_is_shown_in_part(ann: SignedIn) -> None:
    assert proposed(ann, NEXT + "#\n" * 20_000).status_code == 303
    assert ann.see("/policies/3").count('<li id="L') == MOST_LINES
    assert "too many lines" in ann.see("/policies/3/diff")
