"""The demo: the cases it picks, the bodies it sends, and the service that it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from features.events import RefundRequest
from features.money import DAY_MS
from features.tables import Tables, read_folder, write_folder
from serving import contract
from tests.training.tables import folder_of
from training import demo
from training.simulate import simulate

NOT_SENT = {"event_id", "address_id", "billing_country", "shipping_country", "channel",
            "order_amount_minor", "items", "item_count", "ignore"}  # fmt: skip
"""Columns that a body of the demo does not carry, or carries in another shape."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """As the demo has it: read from files, where identifiers get their one spelling."""
    folder = tmp_path_factory.mktemp("world")
    write_folder(simulate(customers=400, days=200, seed=7), folder)
    return read_folder(folder).tables


@pytest.fixture(scope="module")
def rows(world) -> list[dict[str, Any]]:
    return world["refund_requests"].to_pylist()


# --- the bodies ----------------------------------------------------------------------------------


def test_every_row_with_an_order_is_a_body_that_says_the_same(world, rows):
    said = 0
    for place, row in enumerate(rows):
        if row["order_id"] is None:
            continue
        body = orjson.dumps(demo.request_of(world, place))
        report = contract.parse_refund(body, scored=True)
        events = report.events(report.timestamp)
        (request,) = (event for event in events if isinstance(event, RefundRequest))
        expected = {k: v for k, v in row.items() if k not in NOT_SENT}
        assert {k: getattr(request, k) for k in expected} == expected
        assert request.item_count == (row["item_count"] or 1)
        said += 1
    assert said > 50


def test_the_references_example_is_accepted():
    report = contract.parse_refund(orjson.dumps(demo.REFERENCE), scored=True)
    assert report.refund.amount == 1000
    assert report.customer.customer_id == "abc-123-ZYZ"


# --- the cases -----------------------------------------------------------------------------------


def test_the_cases_are_an_abuser_and_an_honest_customer_of_the_last_week(world, rows):
    honest, abuser = demo.pick_cases(world)
    last = max(row["known_at"] for row in rows)
    refunds = {row["refund_id"]: row["customer_id"] for row in rows}
    confirmed = {label["customer_id"] or refunds.get(label["refund_id"])
                 for label in world["labels"].to_pylist()
                 if label["label"] == "REFUND_ABUSE"}  # fmt: skip
    for row in (rows[honest], rows[abuser]):
        assert last - row["known_at"] <= demo.LAST_DAYS * DAY_MS
        assert row["order_id"] is not None
    assert rows[abuser]["customer_id"] in confirmed
    assert rows[honest]["customer_id"] not in confirmed
    assert rows[honest]["type"] == "REFUND"
    assert rows[honest]["amount_minor"] <= np.median([row["amount_minor"] for row in rows])


def test_who_was_confirmed_or_disputed_is_not_the_honest_one():
    """Four customers of one small week; all but the plain one have something against them."""
    customers = ("confirmed", "disputed", "plain", "large")
    amounts = (100, 100, 100, 9000)
    folder = folder_of(
        refund_requests=[
            {"refund_id": f"r-{who}", "customer_id": who, "known_at": 10 * DAY_MS, "type": "REFUND",
             "amount_minor": amount, "currency": "GBP", "order_id": f"o-{who}"}
            for who, amount in zip(customers, amounts, strict=True)
        ],
        orders=[
            {"order_id": f"o-{who}", "customer_id": who, "known_at": 9 * DAY_MS, "currency": "GBP",
             "amount_minor": 10_000}
            for who in customers
        ],
        labels=[{"refund_id": "r-confirmed", "label": "REFUND_ABUSE", "known_at": 11 * DAY_MS}],
        disputes=[{"dispute_id": "d-1", "order_id": "o-disputed", "known_at": 11 * DAY_MS}],
    )  # fmt: skip
    who = folder["refund_requests"]["customer_id"].to_pylist()
    honest, abuser = demo.pick_cases(folder)
    assert (who[honest], who[abuser]) == ("plain", "confirmed")


# --- the service that it leaves running ----------------------------------------------------------


@pytest.fixture
def sleeper() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """A process of some home that does nothing until it is ended."""
    started: list[subprocess.Popen[bytes]] = []

    def start(home: Path) -> subprocess.Popen[bytes]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"],
                env={**os.environ, "RECOURSE_HOME": str(home)}, stdout=subprocess.PIPE,
            )
        )  # fmt: skip
        assert started[-1].stdout is not None
        started[-1].stdout.readline()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def remember(home: Path, pid: int) -> None:
    (home / "service.pid").write_text(f"{pid}\n", encoding="ascii")


def test_the_service_of_this_home_is_ended(tmp_path, sleeper):
    process = sleeper(tmp_path)
    remember(tmp_path, process.pid)
    demo.stop(tmp_path)
    assert process.wait(5) < 0
    assert not (tmp_path / "service.pid").exists()


def test_a_process_that_got_the_number_since_is_left_alone(tmp_path, sleeper):
    process = sleeper(tmp_path / "another home")
    remember(tmp_path, process.pid)
    demo.stop(tmp_path)
    assert process.poll() is None
    assert not (tmp_path / "service.pid").exists()


def test_stopping_what_is_not_there_does_nothing(tmp_path, sleeper):
    demo.stop(tmp_path)
    process = sleeper(tmp_path)
    process.kill()
    process.wait()
    remember(tmp_path, process.pid)
    demo.stop(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- printing ------------------------------------------------------------------------------------


def test_a_decision_is_printed_with_what_led_to_it(capsys):
    demo._print_decision({
        "action": "PREVENT", "source": "RULE", "score": 87, "riskLevel": "highest",
        "reasons": [{"code": "ALREADY_REFUNDED", "description": "paid before"},
                    {"code": "ACCOUNT_AGE", "description": "young", "contribution": 1.234}],
        "rules": {"triggered": [
            {"ruleId": "acting", "state": "active", "description": "d", "action": "PREVENT"},
            {"ruleId": "shadow", "state": "passive", "description": "d", "action": "PREVENT"},
        ]},
        "warnings": [{"class": "device-missing", "msg": "no device"}],
    })  # fmt: skip
    printed = capsys.readouterr().out
    assert printed.startswith("  PREVENT, by RULE; score 87 (highest risk)\n")
    for part in ("ALREADY_REFUNDED", "young  +1.23", "rule acting: d -> PREVENT",
                 "warning device-missing: no device"):  # fmt: skip
        assert part in printed
    assert "shadow" not in printed


def test_a_decision_without_a_score_says_so(capsys):
    demo._print_decision({"action": "MANUAL_REVIEW", "source": "FALLBACK", "reasons": [],
                          "rules": {"triggered": []}, "warnings": []})  # fmt: skip
    assert capsys.readouterr().out == "  MANUAL_REVIEW, by FALLBACK; no score\n"


@pytest.mark.parametrize(("lines", "shown"), [(3, 3), (14, 14), (15, 15), (40, 15)])
def test_a_long_print_is_shortened_and_says_by_how_much(lines, shown):
    text = demo._shortened("\n".join(f"line {number}" for number in range(lines)) + "\n")
    assert len(text.splitlines()) == shown
    assert text.endswith(f"… and {lines - 14} more lines") == (lines > 14)
