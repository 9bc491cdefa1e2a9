"""The walk of docs/policy-walk.md: an analyst writes a rule, tries it, puts it in force, takes it
back, while a service is asked all the while. The commands are those of the page, over a smaller
history than the sample."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from features.tables import write_folder
from serving.home import Home
from tests.e2e.service import REPOSITORY, Service, environment
from tests.serving.champions import trained_model
from training.simulate import simulate

PAGE = (REPOSITORY / "docs" / "policy-walk.md").read_text(encoding="utf-8")
RULE = "repeated_empty_box"
CUSTOMERS = 68
CLAIMS = 3
PATIENCE_SECONDS = 30
"""How long something that happens within two seconds may take on a machine that does much else."""


def blocks(kind: str) -> list[str]:
    """The blocks of the page of one kind."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


START, WRITE, CHECK, BACKTEST, SHADOW, SHADOW_REPORT, ACTIVATE, ROLL_BACK, RECOMPUTE = blocks("sh")
(WRITTEN,) = blocks("yaml")


def run(block: str, home: Path) -> str:
    """Run a block of the page as it stands there, but over ``home`` in place of ``var``."""
    there = re.sub(r"\bvar/", f"{home}/", block).replace("data/sample", f"{home}/history")
    done = subprocess.run(
        ["bash", "-ec", there], cwd=REPOSITORY, env=environment(home), check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def claim(customer: int, number: int) -> dict[str, Any]:
    """The body of a customer's claim of an empty box: everything else about it is in order."""
    now, day = int(time.time()), 86_400
    order = f"walk-o-{customer}-{number}"
    return {
        "timestamp": now,
        "customer": {"customerId": f"walk-c-{customer}", "registrationTime": now - 400 * day,
                     "email": f"walk-{customer}@example.com"},
        "order": {"orderId": order, "orderTime": now - 6 * day, "deliveredTime": now - 2 * day,
                  "price": 4_000, "currency": "GBP",
                  "items": [{"sku": "cup", "quantity": 1, "price": 4_000, "category": "home"}]},
        "refund": {"refundId": f"walk-r-{customer}-{number}", "status": "OPEN", "type": "REFUND",
                   "initiatedBy": "CUSTOMER", "policy": "TERMS_AND_CONDITIONS", "amount": 4_000,
                   "currency": "GBP", "issuedTo": "ORIGINAL_PAYMENT_METHOD",
                   "items": [{"sku": "cup", "quantity": 1, "price": 4_000, "category": "home",
                              "refundReason": "EMPTY_BOX", "finalSale": False}]},
        "device": {"deviceId": f"walk-d-{customer}", "ipAddress": f"198.51.{customer}.7"},
        "paymentMethods": [{"paymentMethodId": f"walk-p-{customer}", "expiryMonth": 12,
                            "expiryYear": 2098}],
        "addresses": {"billing": {"country": "GB", "postalCode": f"W{customer}"},
                      "shipping": {"country": "GB", "postalCode": f"W{customer}"}},
    }  # fmt: skip


class Walk:
    """One service, and what its analyst does."""

    def __init__(self, home: Path, service: Service) -> None:
        self.home, self.service = home, service
        self.version = ""

    def ask(self, customer: int, number: int) -> dict[str, Any]:
        """A decision on a claim of the sandbox."""
        answer = self.service.score(claim(customer, number), "test")
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        self.version = data["policyVersion"]
        return data

    def until_decided_by(self, version: str, customer: int) -> None:
        """Ask until a version decides; each time about another refund of a customer of its own."""
        last = time.monotonic() + PATIENCE_SECONDS
        for number in range(10_000):
            self.ask(customer * 10_000 + number, 0)
            if self.version == version:
                return
            assert time.monotonic() < last, f"{self.version} decides, not {version}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """A service over a sandbox with the sample's history, and a small model."""
    home = tmp_path_factory.mktemp("walk")
    trained_model().save(home / "small")
    Home(home).serve_model(home / "small", "1")
    write_folder(simulate(customers=60, days=200, seed=3), home / "history")
    imported, _, served = START.strip().splitlines()
    run(imported, home)
    assert served == ".venv/bin/recourse serve --port 3000"
    with Service(home) as service:
        yield Walk(home, service)


def rules_hit(data: dict[str, Any]) -> list[str]:
    return [rule["ruleId"] for rule in data["rules"]["triggered"]]


def is_about(what: str) -> Callable[[str], bool]:
    return lambda line: what in line


def test_the_walk(walk: Walk) -> None:
    home = walk.home
    assert "empty_box_count_by_customer_365d" in run(WRITE, home)
    policy = home / "new.yaml"
    policy.write_text(policy.read_text(encoding="utf-8") + WRITTEN, encoding="utf-8")

    checked = run(CHECK, home)
    assert "policy empty-box-1" in checked
    assert any(map(is_about(RULE), checked.splitlines()[1:])), "what changes is said"

    told = run(BACKTEST, home)
    assert RULE in told
    assert (home / "backtest.html").read_text(encoding="utf-8").startswith("<!doctype html>")

    first = walk.ask(1_000_000, 0)["policyVersion"]
    told = run(SHADOW, home)
    assert "empty-box-1 is in force in place of " + first in told
    walk.until_decided_by("empty-box-1", 2)

    answers = {(c, n): walk.ask(c, n) for n in range(CLAIMS) for c in range(CUSTOMERS)}
    assert len(answers) >= 200
    repeated = [data for (_, number), data in answers.items() if number > 0]
    assert all(RULE in rules_hit(data) for data in repeated)
    assert {data["action"] for data in repeated} == {"ALLOW"}, "a shadow rule only watches"
    assert not any(RULE in rules_hit(data) for (_, n), data in answers.items() if n == 0)

    report = run(SHADOW_REPORT, home)
    assert RULE in report
    assert re.search(rf"\b{len(repeated)}\b", report), report

    told = run(ACTIVATE, home)
    assert "empty-box-2 is in force in place of empty-box-1, by bob" in told
    walk.until_decided_by("empty-box-2", 3)
    held = walk.ask(0, CLAIMS)
    assert (held["action"], held["source"]) == ("MANUAL_REVIEW", "RULE")
    assert "FREQUENT_EMPTY_BOX" in [reason["code"] for reason in held["reasons"]]
    assert held["followUp"] == {"code": "STEP_UP_VERIFICATION", "ruleId": RULE}

    listed = run(ROLL_BACK, home)
    assert "policy empty-box-1 is in force again, by bob" in listed
    walk.until_decided_by("empty-box-1", 4)
    assert RULE not in [
        rule["ruleId"] for rule in walk.ask(1, CLAIMS)["rules"]["triggered"]
        if rule["state"] == "active"
    ]  # fmt: skip

    found = json.loads(run(RECOMPUTE.strip() + " --json", home))
    assert found["share"] == 1.0
    assert found["decisions"] >= 200
    assert {"empty-box-1", "empty-box-2", first} <= set(found["by_policy"])
