"""Policies and lists over the real server: what is put in force acts without a restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from serving.policies import DEFAULT_POLICY
from tests.e2e.service import Service, recourse
from tests.e2e.test_contract import changed

DEFAULT: dict[str, Any] = yaml.safe_load(DEFAULT_POLICY.read_text(encoding="utf-8"))
PATIENCE_SECONDS = 30
"""Machines are shared: only a policy that never acts may fail here."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for a second person; without a model, which no policy needs to act."""
    home = tmp_path_factory.mktemp("policies")
    with Service(home, settings={"RECOURSE_POLICY_SECOND_PERSON": "true"}) as running:
        for name in ("ann", "bob"):
            running.keys[name] = recourse(
                home,
                "keys",
                "create",
                "--mode",
                "live",
                "--name",
                name,
                "--scope",
                "admin",
                "--scope",
                "review",
            ).strip()
        yield running


def document(version: str, **changes: Any) -> bytes:
    return yaml.safe_dump({**DEFAULT, "version": version, **changes}).encode()


def refusing(version: str) -> bytes:
    """The default policy, and a rule against the requests of this test."""
    rule = {
        "id": "refused_by_test", "version": 1, "stage": "hard", "on_unknown": "miss",
        "when": "amount_minor == 777.0", "action": "PREVENT", "reason": "REFUSED_BY_TEST",
        "description": "Refused by a test", "follow_up": {"code": "STORE_CREDIT"},
        "examples": {"hit": [{"amount_minor": 777}], "miss": [{"amount_minor": 778}]},
    }  # fmt: skip
    return document(version, rules=[*DEFAULT["rules"], rule])


@pytest.fixture(scope="module")
def ask(served: Service) -> Callable[..., dict[str, Any]]:
    """A new refund's decision each time."""
    count = iter(range(10_000))

    def one(mode: str = "live") -> dict[str, Any]:
        number = next(count)
        body = changed(refundId=f"r-{number}", amount=777)
        body["order"]["orderId"] = f"o-{number}"
        body["customer"]["customerId"] = f"c-{number}"
        answer = served.score(body, mode)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]  # type: ignore[no-any-return]

    return one


def until(ask: Callable[..., dict[str, Any]], version: str) -> dict[str, Any]:
    """The first decision by this version of the policy."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends:
        if (found := ask())["policyVersion"] == version:
            return found
        time.sleep(0.05)
    raise AssertionError(f"policy {version} was never taken up")


def test_a_policy_is_proposed_activated_by_another_acts_and_is_gone_back_from(
    served: Service, ask: Callable[..., dict[str, Any]]
) -> None:
    first = DEFAULT["version"]
    assert ask()["policyVersion"] == first
    proposed = served.post("/v2/policies", refusing("e2e-1"), "ann",
                           **{"Content-Type": "application/yaml"})  # fmt: skip
    assert proposed.status_code == 200, proposed.text
    assert any("refused_by_test" in told for told in proposed.json()["data"]["changes"])
    assert ask()["policyVersion"] == first, "a proposal does not act"
    alone = served.post("/v2/policies/e2e-1/activate", {}, "ann")
    assert (alone.status_code, "ann wrote it" in alone.json()["message"]) == (409, True)
    act = served.post("/v2/policies/e2e-1/activate", {"note": "as a test"}, "bob")
    assert act.json()["data"]["replaced"] == first, act.text
    acting = until(ask, "e2e-1")
    assert (acting["action"], acting["source"]) == ("PREVENT", "RULE")
    assert acting["reasons"][0]["code"] == "REFUSED_BY_TEST"
    assert acting["followUp"] == {"code": "STORE_CREDIT", "ruleId": "refused_by_test"}
    assert ask("test")["policyVersion"] == first, "the sandbox has policies of its own"
    told = recourse(served.home, "policy", "rollback", "--by", "ann", "--note", "enough")
    assert first in told
    assert until(ask, first)["action"] != "PREVENT"
    listed = served.client.get("/v2/policies", headers=served.headers("bob")).json()["data"]
    assert [(act["act"], act["version"], act["actor"]) for act in listed["acts"]] == [
        ("rolled_back", first, "ann"), ("activated", "e2e-1", "bob"),
        ("activated", first, "recourse"),
    ]  # fmt: skip


def test_a_broken_policy_is_refused_and_the_running_one_stays(
    served: Service, ask: Callable[..., dict[str, Any]]
) -> None:
    before = ask()["policyVersion"]
    answer = served.post("/v2/policies", document("e2e-bad", bands=[{"action": "ALOW"}]), "ann",
                         **{"Content-Type": "application/yaml"})  # fmt: skip
    assert answer.status_code == answer.json()["status"] == 400
    assert answer.json()["validationErrors"]
    assert ask()["policyVersion"] == before


def test_a_listed_device_is_refused_from_the_next_request_on(
    served: Service, ask: Callable[..., dict[str, Any]]
) -> None:
    device = changed()["device"]["deviceId"]
    entry = {"entity": "device", "id": device, "reason": "ring of the test"}
    put = served.post("/v2/lists/block", entry, "ann")
    assert put.status_code == 200, put.text
    blocked = ask()
    assert (blocked["action"], blocked["source"]) == ("PREVENT", "LIST")
    assert {"code": "LISTED", "description": "ring of the test"} in blocked["reasons"]
    shown = served.client.get("/v2/lists/block?reveal=true", headers=served.headers("bob"))
    assert [one["id"] for one in shown.json()["data"]["entries"]] == [device]
    gone = served.client.request(
        "DELETE", "/v2/lists/block", json=entry, headers=served.headers("bob")
    )
    assert gone.status_code == 200, gone.text
    assert ask()["source"] != "LIST"
    refused = served.post("/v2/lists/block", entry, "live", Authorization="token nobody")
    assert refused.status_code == 401


def test_all_that_was_decided_is_decided_so_again(served: Service) -> None:
    assert "share 1" in recourse(served.home, "policy", "recompute")
    assert "share 1" in recourse(served.home, "policy", "recompute", "--mode", "test")


def test_the_calls_are_documented(served: Service) -> None:
    paths = served.client.get("/openapi.json").json()["paths"]
    assert paths["/v2/policies"].keys() == {"get", "post"}
    assert paths["/v2/lists/{name}"].keys() == {"get", "post", "delete"}
    assert {"/v2/policies/{version}", "/v2/policies/{version}/activate"} <= paths.keys()
