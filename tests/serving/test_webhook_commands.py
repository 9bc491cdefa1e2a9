"""`recourse webhooks`: secrets shown once, what became of each webhook, and sending it again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from commands import webhooks
from commands.shared import now_ms, open_store
from serving.sending import Sender
from serving.store.store import Store
from tests.serving.receivers import Receiver, receiving

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call a command on a home of its own; gives the exit code and what was said."""
    monkeypatch.setenv("RECOURSE_HOME", str(tmp_path))
    monkeypatch.setenv("RECOURSE_WEBHOOK_ALLOW_PRIVATE", "true")

    def call(*words: str) -> tuple[int, str, str]:
        ended = CliRunner().invoke(webhooks.app, words)
        return ended.exit_code, ended.stdout, ended.stderr

    return call


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def store(run: Run) -> Iterator[Store]:
    opened = open_store("live")
    yield opened
    opened.close()


def read(run: Run, *words: str) -> Any:
    code, out, err = run(*words, "--json")
    assert code == 0, err
    return json.loads(out)


def send(store: Store) -> None:
    async def once() -> None:
        sender = Sender(store, allow_private=True)
        await sender.look()
        await sender.settled()
        await sender.close()

    asyncio.run(once())


def announce(store: Store) -> None:
    with store.write() as tx:
        tx.announce("refund.decided", {"refundId": "r"}, now_ms())


def test_an_endpoint_from_its_adding_to_its_end(run: Run, store: Store, receiver: Receiver) -> None:
    code, receiver.secret, said = run("add", receiver.url, "--type", "refund.decided")
    assert code == 0, said
    assert "shown this once" in said
    receiver.secret = receiver.secret.strip()
    [endpoint] = read(run, "list")["endpoints"]
    assert (endpoint["url"], endpoint["types"]) == (receiver.url, ["refund.decided"])
    assert "whsec_" not in json.dumps(endpoint)

    assert run("test", receiver.url)[1] == f"{receiver.url}: HTTP 204\n"
    assert receiver.came[-1][1]["type"] == "webhook.test"

    receiver.replies = [(500, {})]
    announce(store)
    send(store)
    assert "waiting until" in run("deliveries")[1]
    assert "tried 1 times: HTTP 500" in run("deliveries")[1]

    code, out, _ = run("rotate-secret", endpoint["id"])
    assert (code, out.startswith("whsec_"), out.strip() != receiver.secret) == (0, True, True)
    assert run("disable", endpoint["id"], "--why", "moved")[0] == 0
    assert "is disabled already: moved" in run("disable", endpoint["id"])[2]
    [dead] = read(run, "deliveries", "--dead")
    assert (dead["state"], dead["outcome"]) == ("dead", "the endpoint was disabled")
    assert read(run, "list")["dead"] == 1
    about = [entry.action for entry in store.audit_about(f"webhook:{endpoint['id']}")]
    assert about == ["webhook_added", "webhook_secret_rotated", "webhook_disabled"]


def test_what_was_told_is_told_again_under_its_id(
    run: Run, store: Store, receiver: Receiver
) -> None:
    receiver.secret = read(run, "add", receiver.url, "--type", "refund.decided")["secret"]
    announce(store)
    send(store)
    [told] = receiver.ids
    for words in (["replay", told], ["replay", "--since", "2026-01-01T00:00:00Z"]):
        assert read(run, *words) == {"replayed": 1}
        send(store)
    assert read(run, "replay", "--dead") == {"replayed": 0}
    assert receiver.ids == [told] * 3
    assert "is none of the live store" in run("replay", "msg_0")[2]
    assert run("replay")[0] == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["add", "ftp://x", "--type", "refund.decided"], "expected https://"),
        (["add", "http://u:p@x/", "--type", "refund.decided"], "no user and password"),
        (["add", "https://x/", "--type", "refund.decide"], "expected some of refund.decided"),
        (["disable", "https://nobody.example/"], "none of the live store is"),
        (["rotate-secret", "whe_0"], "none of the live store is"),
        (["test", "whe_0"], "none of the live store is"),
    ],
)
def test_what_is_wrong_is_said(run: Run, words: list[str], told: str) -> None:
    code, out, said = run(*words)
    assert code in (1, 2)
    assert told in " ".join(said.replace("│", " ").split())
    assert out == ""


def test_http_is_for_private_use_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOURSE_WEBHOOK_ALLOW_PRIVATE", "false")
    for url in ("http://shop.example/", "https://10.0.0.1/", "https://[::1]:8443/"):
        code, _, said = run("add", url, "--type", "refund.decided")
        assert (code, "RECOURSE_WEBHOOK_ALLOW_PRIVATE" in said) == (1, True)


def test_a_test_that_fails_says_so(run: Run, receiver: Receiver) -> None:
    receiver.replies = [(500, {})]
    receiver.secret = read(run, "add", receiver.url, "--type", "refund.decided")["secret"]
    code, out, said = run("test", receiver.url, "--json")
    assert (code, json.loads(out)["delivered"]) == (1, False)
    assert "not delivered: HTTP 500" in said
