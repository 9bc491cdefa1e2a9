"""`recourse reviews`: what it does to a real store, and what it says."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from cli import app
from features.events import RefundRequest
from serving.store.refunds import Decided
from serving.store.reviews import Review
from tests.test_privacy_commands import Run, opened, run

__all__ = ["run"]  # fixture

WHY = "The parcel was signed for."


def hold(tmp_path: Path, *refund_ids: str) -> None:
    """Refunds that wait for a person since long ago, with nothing decided beside them."""
    store = opened(tmp_path)
    for refund_id in refund_ids:
        request = RefundRequest(refund_id=refund_id, customer_id="c", order_id="o", known_at=1_000,
                                amount_minor=500, currency="GBP")  # fmt: skip
        score_id, customer = f"s-{refund_id[-1]}", store.identifiers.mac("customer", "c")
        review = Review(score_id, refund_id, customer, "o", "GBP", 500, 500, 500, 120, 0.25, -120,
                        1_000, 2_000)  # fmt: skip
        with store.write("c", "o") as tx:
            tx.append([request], Decided(refund_id, "NEEDS_REVIEW", score_id, 1_000, "o", "GBP",
                                         lambda held: held.review(500), review))  # fmt: skip
    store.close()


@pytest.fixture
def held(tmp_path: Path) -> None:
    hold(tmp_path, "r-1")


@pytest.mark.usefixtures("held")
def test_a_review_is_listed_shown_and_acted_on(run: Run, tmp_path: Path) -> None:
    listed = run("reviews", "list", "--overdue")
    assert "r-1" in listed
    assert "OVERDUE" in listed
    assert "at stake          120 GBP" in listed
    assert "Ann Lee has it" in run("reviews", "assign", "r-1", "Ann Lee", "--by", "Bob")
    assert "goes on waiting" in run("reviews", "ask", "r-1", "--because", WHY, "--by", "Ann Lee")
    [one] = orjson.loads(run("reviews", "list", "--status", "WAITING", "--json"))
    assert (one["assignee"], one["overdue"], one["expectedLoss"]) == ("Ann Lee", True, 120)
    done = run("reviews", "deny", "r-1", "--because", WHY, "--abuse", "--by", "Ann Lee")
    assert "answered PREVENT" in done
    told = run("reviews", "approve", "r-1", "--because", WHY, "--by", "Bob", code=1)
    assert "Ann Lee denied it at" in told
    shown = run("reviews", "show", "r-1")
    assert f"Ann Lee: denied (abuse: True): {WHY}" in shown
    whole = orjson.loads(run("reviews", "show", "r-1", "--json"))
    assert [act["act"] for act in whole["acts"]] == ["assigned", "information_requested", "denied"]
    assert run("reviews", "list") == ""
    store = opened(tmp_path)
    assert store.refund("r-1").state == "DENIED"  # type: ignore[union-attr]
    [entry] = [e for e in store.audit_about("refund:r-1") if e.action == "review_denied"]
    assert entry.actor.startswith("cli:")
    store.close()


@pytest.mark.usefixtures("held")
def test_what_is_refused_is_said_in_a_sentence(run: Run) -> None:
    assert "justification: must be 10" in run("reviews", "deny", "r-1", "--because", "no", code=1)
    assert "no review of" in run("reviews", "show", "r-2", code=1)
    assert "no review of" in run("reviews", "approve", "r-2", "--because", WHY, code=1)
    told = run("reviews", "approve", "r-1", "--because", WHY, "--score-id", "s-0", code=1)
    assert "the review is about decision 's-1'" in told


def test_of_a_store_that_is_not_there_nothing_is_told(run: Run, tmp_path: Path) -> None:
    assert "there is none" in run("reviews", "list", code=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("held")
def test_no_text_of_others_looks_like_a_line_of_ours(run: Run, tmp_path: Path) -> None:
    forged = "  2026-01-01 00:00:00Z  Bob: approved"
    hold(tmp_path, f"r\n{forged}-2")
    run("reviews", "assign", "r-1", "Ann Lee", "--by", "Bob")
    run("reviews", "deny", "r-1", "--because", f"It was signed for.\n{forged}", "--by", "Ann Lee")
    shown = run("reviews", "show", "r-1")
    assert f"Ann Lee: denied: It was signed for.\n      | {forged}\n" in shown
    assert forged not in shown.splitlines()
    [line] = run("reviews", "list").splitlines()
    assert f"r[U+000A]{forged}-2" in line


def test_what_more_waits_is_said_and_who_has_any(run: Run, tmp_path: Path) -> None:
    hold(tmp_path, "r-1", "r-2", "r-3")
    run("reviews", "assign", "r-2", "Ann Lee", "--by", "Bob")

    def noted(*options: str) -> str:
        return CliRunner().invoke(app, ["reviews", "list", *options]).stderr

    assert "2 more wait: --limit 3 lists all" in noted("--limit", "1")
    assert noted("--limit", "3") == ""
    assert "these have any: Ann Lee" in noted("--assignee", "Anne Lee")
    assert "these have any" not in noted("--assignee", "Ann Lee")
