"""The client: an answer or a safe decision within the budget, and no failure that pays."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

import client
from client import (
    CAUSES,
    AsyncRecourse,
    Breaker,
    Decision,
    Failure,
    NoAnswer,
    PayBelow,
    Recourse,
    Refused,
    Reply,
    Send,
    Wait,
    WebhookRefused,
    verify_webhook,
)

DOCS = Path(__file__).parents[1] / "docs" / "client.md"
BODY: dict[str, Any] = {
    "customer": {"customerId": "c1", "registrationTime": 1_600_000_000},
    "order": {"orderId": "o1", "price": 5_000, "currency": "GBP"},
    "refund": {"refundId": "r1", "amount": 900, "currency": "GBP", "refundReason": "OTHER"},
}
ALLOWED = {"status": 200, "data": {"action": "ALLOW", "source": "MODEL", "scoreId": "s1",
                                   "degraded": False, "rules": {"triggered": []}}}  # fmt: skip


def reply(status: int = 200, body: Any = ALLOWED, **headers: str) -> Reply:
    return Reply(status, headers, json.dumps(body).encode())


class Fake:
    """A clock, and a service that gives scripted outcomes, each after so many seconds."""

    def __init__(self, *outcomes: tuple[Reply | Failure, float]) -> None:
        self.now, self.outcomes = 100.0, list(outcomes)
        self.sent: list[Send] = []
        self.waited: list[float] = []

    def drive(self, steps: Any) -> Any:
        outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                return done.value
            if isinstance(step, Wait):
                self.now += step.seconds
                self.waited.append(step.seconds)
                outcome = None
                continue
            self.sent.append(step)
            outcome, seconds = self.outcomes.pop(0) if self.outcomes else (reply(), 0.001)
            if seconds > step.timeout:
                outcome, seconds = Failure("timeout", "ReadTimeout"), step.timeout
            self.now += seconds

    def core(self, timeout: float = 0.75, **given: Any) -> client._Core:
        return client._Core("sk", timeout, clock=lambda: self.now, wall=lambda: 1.7e9,
                            draw=lambda: 0.5, **given)  # fmt: skip

    def decide(self, **given: Any) -> Decision:
        decided: Decision = self.drive(self.core(**given).decide(BODY, None))
        return decided


DOWN = Failure("unreachable", "ConnectError")


def test_it_is_one_file_that_needs_httpx_alone() -> None:
    tree = ast.parse(Path(client.__file__).read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or "."] if isinstance(node, ast.ImportFrom)
                     else [alias.name for alias in node.names])
    }  # fmt: skip
    assert imported - sys.stdlib_module_names == {"httpx"}


# --- the budget --------------------------------------------------------------------------------


def test_an_answer_is_given_as_it_came() -> None:
    told = {**ALLOWED, "data": {**ALLOWED["data"], "score": 12, "policyVersion": "3",  # type: ignore[dict-item]
                                "warnings": [{"class": "device-missing"}]}}  # fmt: skip
    fake = Fake((reply(200, told, **{"idempotent-replayed": "true", "x-request-id": "q"}), 0.1))
    decision = fake.decide()
    assert (decision.action, decision.pays, decision.is_fallback) == ("ALLOW", True, False)
    assert (decision.score, decision.policy_version, decision.score_id) == (12, "3", "s1")
    assert [one["class"] for one in decision.warnings] == ["device-missing"]
    assert (decision.replayed, decision.request_id, decision.cause) == (True, "q", None)
    [sent] = fake.sent
    assert sent.path == "/v2/refund?score=refundRequest"
    assert sent.headers["authorization"] == "token sk"
    assert sent.headers["idempotency-key"] == decision.idempotency_key


@pytest.mark.parametrize(
    "failure",
    [DOWN, Failure("timeout", ""), Failure("error", ""), reply(409), reply(429), reply(500),
     reply(502), reply(503), reply(504)],
)  # fmt: skip
def test_what_may_pass_is_tried_again_under_the_same_key(failure: Reply | Failure) -> None:
    fake = Fake((failure, 0.01))
    assert fake.decide().pays
    assert len({sent.headers["idempotency-key"] for sent in fake.sent}) == 1
    assert len({sent.content for sent in fake.sent}) == 1
    assert (len(fake.sent), len(fake.waited)) == (2, 1)


def test_an_attempt_that_hangs_leaves_time_for_another() -> None:
    fake = Fake((reply(), 60.0))
    assert fake.decide().pays
    assert [round(sent.timeout, 3) for sent in fake.sent] == [0.45, 0.165]


def test_retry_after_is_waited_for_if_it_fits() -> None:
    fake = Fake((reply(429, **{"retry-after": "1"}), 0.01))
    assert fake.decide(timeout=3).pays
    assert fake.waited == [1.0]
    fake = Fake((reply(503, **{"retry-after": "1"}), 0.01))
    decision = fake.decide()
    assert (decision.action, decision.cause, len(fake.sent)) == ("MANUAL_REVIEW", "unavailable", 1)


OUTCOMES = st.one_of(
    st.sampled_from([Failure(cause, "") for cause in CAUSES]),
    st.builds(reply, st.sampled_from([200, 301, 409, 429, 500, 502, 503, 504, 599]),
              st.sampled_from([ALLOWED, {}, [], {"data": {"action": "PAY"}}, None])),
)  # fmt: skip


@given(st.lists(st.tuples(OUTCOMES, st.floats(0, 2)), max_size=8), st.floats(0.05, 2))
def test_whatever_happens_a_decision_comes_in_time_and_pays_only_if_the_service_says_so(
    outcomes: list[tuple[Reply | Failure, float]], budget: float
) -> None:
    told = [outcome for outcome, _ in outcomes]
    fake = Fake(*outcomes, *[(reply(500), 0.01)] * 9)
    decision = fake.decide(timeout=budget)
    assert fake.now <= 100 + budget + 2 * client.LEAST_SECONDS
    assert len(fake.sent) <= client.MOST_ATTEMPTS
    if decision.pays:
        last = told[len(fake.sent) - 1]
        assert isinstance(last, Reply)
        assert (last.status, json.loads(last.content)) == (200, ALLOWED)
    else:
        assert (decision.action, decision.source, decision.degraded) == (
            "MANUAL_REVIEW", "CLIENT_FALLBACK", True,
        )  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [reply(200, {"data": {"action": "PAY"}}), reply(200, "<html>"), reply(200, {"data": []}),
     Reply(200, {}, b"\xff"), reply(301, ALLOWED), reply(204, ALLOWED["data"])],
)  # fmt: skip
def test_what_is_no_answer_of_ours_does_not_pay(answer: Reply) -> None:
    decision = Fake(*[(answer, 0.01)] * 9).decide()
    assert (decision.pays, decision.cause) == (False, "error")


def test_a_refusal_is_raised_with_all_that_is_wrong() -> None:
    problems = [{"field": "refund.amount", "message": "is required", "value": None}]
    body = {"status": 400, "message": "refund.amount: is required", "validationErrors": problems}
    fake = Fake((reply(400, body, **{"x-request-id": "q"}), 0.01))
    with pytest.raises(Refused, match=r"400: refund\.amount: is required") as caught:
        fake.decide(fallback=PayBelow(minor=10_000, currency="GBP"))
    assert caught.value.validation_errors == tuple(problems)
    assert caught.value.request_id == "q"
    for status in (401, 403, 404, 405, 413, 415, 422):
        with pytest.raises(Refused, match=f"{status}: HTTP {status}"):
            Fake((Reply(status, {}, b"no JSON"), 0.01)).decide()


def test_of_several_failures_the_worst_is_told() -> None:
    """A request that breaks the service, which is then not reachable, was not unlucky."""
    fake = Fake((Failure("error", "RemoteProtocolError"), 0.01), *[(DOWN, 0.01)] * 9)
    assert fake.decide().cause == "error"


# --- the breaker -------------------------------------------------------------------------------


def test_after_failures_in_a_row_nothing_is_sent_until_one_tries() -> None:
    breaker = Breaker(failures=3, reset_seconds=5)
    fake = Fake(*[(DOWN, 0.01)] * 1_000)
    core = fake.core(breaker=breaker)

    def ask() -> tuple[int, Any]:
        before = len(fake.sent)
        decision = fake.drive(core.decide(BODY, None))
        return len(fake.sent) - before, decision.cause

    assert [ask()[0] > 0 for _ in range(4)] == [True, True, True, False]
    fake.now += 4.9
    assert ask() == (0, "unreachable")
    fake.now += 0.2
    assert ask()[0] > 0  # the trial, which fails
    assert ask()[0] == 0
    fake.now += 5.1
    fake.outcomes = []
    assert ask() == (1, None)
    assert ask() == (1, None)


def test_of_many_at_once_one_tries() -> None:
    breaker = Breaker(failures=1, reset_seconds=5)
    breaker.failed("unreachable", 0.0)
    start = threading.Barrier(8)

    def ask(_: int) -> bool:
        start.wait()
        return breaker.closed_to(6.0) is None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 1


@pytest.mark.parametrize("answer", [reply(), reply(400), reply(409), reply(429), reply(500)])
def test_a_service_that_answers_is_up(answer: Reply) -> None:
    breaker = Breaker(failures=2, reset_seconds=5)
    breaker.failed("timeout", 100.0)
    fake = Fake(*[(answer, 0.01)] * 9)
    with suppress(Refused):
        fake.decide(breaker=breaker)
    breaker.failed("timeout", 100.0)
    assert breaker.closed_to(100.1) is None


def test_what_opened_the_circuit_is_told_to_the_others() -> None:
    breaker = Breaker(failures=2, reset_seconds=5)
    breaker.failed("error", 100.0)
    breaker.failed("unreachable", 100.0)
    decision = Fake().decide(breaker=breaker, fallback=PayBelow(minor=10_000, currency="GBP"))
    assert (decision.action, decision.cause) == ("MANUAL_REVIEW", "error")


# --- the fallback ------------------------------------------------------------------------------


def small(refund_id: str = "r1", customer_id: str | None = "c1", **refund: Any) -> dict[str, Any]:
    return {
        "customer": {"customerId": customer_id, "registrationTime": 1_600_000_000},
        "refund": {"refundId": refund_id, "amount": 900, "currency": "GBP", **refund},
    }


T = 1_700_000_000.0


def pay_below(**given: Any) -> PayBelow:
    return PayBelow(**{"minor": 1_000, "currency": "GBP", **given})


def test_small_refunds_of_known_customers_are_paid_where_the_service_is_gone() -> None:
    told = {cause: pay_below().decide(small(), cause, T) for cause in CAUSES}
    assert {cause for cause, action in told.items() if action == "ALLOW"} == {
        "unreachable", "unavailable",
    }  # fmt: skip
    assert set(told.values()) == {"ALLOW", "MANUAL_REVIEW"}


@pytest.mark.parametrize(
    "body",
    [
        {}, {"refund": None}, {"refund": 3}, small(amount=1_001), small(amount="900"),
        small(amount=True), small(amount=9.5), small(amount=-1), small(amount=None),
        small(nonRefundableAmount="0"), small(nonRefundableAmount=901), small(currency="EUR"),
        small(refundId=""), small(refundId=None), small(customer_id=None), small(customer_id=""),
        {**small(), "customer": {"customerId": "c1"}}, {**small(), "customer": None},
        {**small(), "customer": {"customerId": "c1", "registrationTime": T - 89 * 86_400}},
        {**small(), "customer": {"customerId": "c1", "registrationTime": T + 1}},
        {**small(), "customer": {"customerId": "c1", "registrationTime": "2001"}},
        {**small(), "customer": {"customerId": "c1", "registrationTime": 0}},
    ],
)  # fmt: skip
def test_what_is_large_unknown_or_odd_is_held(body: dict[str, Any]) -> None:
    assert pay_below().decide(body, "unreachable", T) == "MANUAL_REVIEW"


def test_fees_are_not_paid_and_times_are_told_by_magnitude() -> None:
    assert pay_below().decide(small(amount=1_500, nonRefundableAmount=600), "unreachable", T)
    for unit in (1, 1_000, 1_000_000_000):
        body = {**small(), "customer": {"customerId": "c1",
                                        "registrationTime": 1_600_000_000 * unit}}  # fmt: skip
        assert pay_below().decide(body, "unreachable", T) == "ALLOW"


def test_each_customer_and_all_together_are_paid_so_much() -> None:
    policy = pay_below(per_customer=2, total_minor=3_000)

    def ask(refund_id: str, customer: str, at: float = T, amount: int = 900) -> bool:
        body = small(refund_id, customer, amount=amount)
        return policy.decide(body, "unreachable", at) == "ALLOW"

    assert ask("r1", "c1") and ask("r2", "c1")
    assert not ask("r3", "c1")
    assert ask("r1", "c1", T + 1)  # asked again it gets what it got
    assert not ask("r1", "c1", amount=901) and not ask("r1", "c2")  # but for that alone
    assert ask("r4", "c2")
    assert not ask("r5", "c3")  # 2,700 of 3,000 are out
    assert ask("r5", "c3", T + 3_600)
    assert not ask("r3", "c1", T + 86_399) and ask("r3", "c1", T + 86_400)


def test_many_at_once_do_not_pass_the_limit() -> None:
    policy = pay_below(total_minor=4_500)
    with ThreadPoolExecutor(8) as pool:
        bodies = [small(f"r{i}", f"c{i}") for i in range(40)]
        told = list(pool.map(lambda body: policy.decide(body, "unreachable", T), bodies))
    assert told.count("ALLOW") == 5


def test_standing_is_the_callers_to_judge() -> None:
    known = {"c7"}
    policy = pay_below(standing=lambda body: body["customer"]["customerId"] in known)
    assert policy.decide(small("r1", "c7"), "unreachable", T) == "ALLOW"
    assert policy.decide(small("r2", "c8"), "unreachable", T) == "MANUAL_REVIEW"
    new = {**small("r3", "c9"), "customer": {"customerId": "c9"}}
    assert pay_below(only_known_customers=False).decide(new, "unreachable", T) == "ALLOW"


def test_a_fallback_is_told_and_reconciled_under_its_key() -> None:
    told: list[Decision] = []
    fake = Fake(*[(DOWN, 0.01)] * 5)
    core = fake.core(on_fallback=told.append)
    held = fake.drive(core.decide(BODY, "my key"))
    assert told == [held]
    fake.outcomes = []
    decided = fake.drive(core.reconcile(held))
    assert (decided.pays, decided.is_fallback) == (True, False)
    assert {(sent.headers["idempotency-key"], sent.content) for sent in fake.sent} == {
        ("my key", fake.sent[0].content)
    }
    fake.outcomes = [(DOWN, 0.01)] * 9
    with pytest.raises(NoAnswer, match=r"no answer \(unreachable\)"):
        fake.drive(core.reconcile(held))


# --- over HTTP ---------------------------------------------------------------------------------


@contextmanager
def answering(act: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A real server that does something to each request; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            act(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def allow(handler: BaseHTTPRequestHandler) -> None:
    told = json.dumps(ALLOWED).encode()
    handler.send_response(200)
    handler.send_header("content-length", str(len(told)))
    handler.end_headers()
    handler.wfile.write(told)


ALONE = """
import asyncio, importlib.metadata, re, sys

def needs(name):
    try:
        found = importlib.metadata.requires(name) or ()
    except importlib.metadata.PackageNotFoundError:  # for another version of Python
        return set()
    plain = (re.match(r"[\\w.-]+", one)[0] for one in found if "extra ==" not in one)
    return {name.replace("-", "_").lower()}.union(*map(needs, plain))

there = sys.stdlib_module_names | needs("httpx") | {"client"}

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in there:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
from client import AsyncRecourse, Recourse

async def ask():
    async with AsyncRecourse(sys.argv[1], "sk", 10) as recourse:
        refund = {"refundId": "r1", "amount": 9, "currency": "GBP"}
        every = await asyncio.gather(*(recourse.decide(refund=refund) for _ in range(3)))
        print({one.action for one in every}, {one.source for one in every})

asyncio.run(ask())
"""
"""Asks where nothing can be imported but what httpx itself asks for."""


def test_asyncio_takes_nothing_but_httpx() -> None:
    with answering(allow) as url:
        command = [sys.executable, "-c", ALONE, url]
        done = subprocess.run(command, capture_output=True, text=True, cwd=DOCS.parents[1])
    assert (done.stdout, done.stderr) == ("{'ALLOW'} {'MODEL'}\n", "")


def hang(handler: BaseHTTPRequestHandler) -> None:
    threading.Event().wait(1)


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return
        time.sleep(0.01)


def cut(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def send_elsewhere(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(307)
    handler.send_header("location", "/elsewhere")
    handler.send_header("content-length", "0")
    handler.end_headers()


@pytest.mark.parametrize(
    ("act", "cause"),
    [(hang, "timeout"), (drip, "timeout"), (cut, "error"), (send_elsewhere, "error")],
)
def test_what_servers_do_when_they_fail(
    act: Callable[[BaseHTTPRequestHandler], None], cause: str
) -> None:
    async def ask(url: str) -> Decision:
        async with AsyncRecourse(url, "sk", 0.1) as recourse:
            return await recourse.decide(BODY)

    with answering(act) as url, Recourse(url, "sk", 0.1) as recourse:
        for decision in (recourse.decide(BODY), asyncio.run(ask(url))):
            assert (decision.action, decision.cause) == ("MANUAL_REVIEW", cause)


def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with Recourse(url, "sk", 0.1, report_timeout=0.1) as recourse:
        assert recourse.decide(BODY).cause == "unreachable"
        with pytest.raises(NoAnswer):
            recourse.report_order(BODY)


def test_what_is_no_url_or_key_is_refused() -> None:
    for host, key in (("recourse.internal", "sk"), ("ftp://x", "sk"), ("https://x", "")):
        with pytest.raises(ValueError, match="expected"):
            Recourse(host, key)


# --- webhooks ----------------------------------------------------------------------------------

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOLD = (
    b'{"type":"refund.decided","timestamp":"2026-05-28T20:26:40Z",'
    b'"data":{"refundId":"r1","action":"ALLOW"}}'
)


DATA = {"refundId": "r1", "action": "ALLOW"}


def signed(secret: str = SECRET, at: int = 1_780_000_000, body: bytes = TOLD) -> dict[str, str]:
    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), body.decode())
    return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(at), "webhook-signature": signature}


def verified(headers: Mapping[str, str], body: bytes = TOLD, **given: Any) -> Any:
    return verify_webhook(headers, body, **{"secret": SECRET, "now": 1_780_000_000, **given})


def test_what_the_service_signed_is_taken() -> None:
    event = verified(signed())
    assert (event.id, event.type, event.data) == ("msg_1", "refund.decided", DATA)
    other = "whsec_" + SECRET[:5:-1]
    assert verified(signed(), secret=[other, SECRET]) == event
    both = {**signed(), "webhook-signature": "v2,x v1,AAAA " + signed()["webhook-signature"]}
    assert verified(both) == event


@pytest.mark.parametrize(
    ("headers", "given"),
    [
        (signed(at=1_780_000_000 - 301), {}),
        (signed(at=1_780_000_000 + 301), {}),
        ({**signed(), "Webhook-Timestamp": "1780000001"}, {}),
        ({**signed(), "Webhook-Timestamp": "soon"}, {}),
        ({**signed(), "Webhook-Id": "msg_2"}, {}),
        ({**signed(), "webhook-signature": "v1,"}, {}),
        ({**signed(), "webhook-signature": "v1,ä"}, {}),
        (signed(), {"body": TOLD.replace(b"r1", b"r2")}),
        (signed(), {"secret": "whsec_c29tZXRoaW5nIGVsc2U="}),
        (signed(body=b"[]"), {"body": b"[]"}),
        ({}, {}),
    ],
)
def test_what_it_did_not_sign_now_is_refused(
    headers: dict[str, str], given: dict[str, Any]
) -> None:
    with pytest.raises(WebhookRefused, match="webhook: "):
        verified(headers, **given)


# --- the page ----------------------------------------------------------------------------------


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_puts_it_in_front_of_a_refund_in_ten_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, report, other, late, hook = snippets()
    assert len([line for line in first.splitlines() if line.strip()]) == 10
    asked: list[httpx.Request] = []
    answers = ["ALLOW", "PREVENT", "MANUAL_REVIEW", None]

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.url.query and (action := answers[0]) is not None:
            data = {**ALLOWED["data"], "action": action, "reasons": [{"code": "X"}]}  # type: ignore[dict-item]
            return httpx.Response(200, json={"data": data})
        return httpx.Response(503 if request.url.query else 200, json={"data": {"warnings": []}})

    def made(url: str, key: str, **given: Any) -> Recourse:
        transport = httpx.MockTransport(handle)
        return Recourse(url, key, transport=transport, sleep=lambda _: None, **given)

    with monkeypatch.context() as patched:
        patched.setattr(client, "Recourse", made)
        done: list[str] = []
        names: dict[str, Any] = {
            "URL": "https://x", "KEY": "sk", "request": BODY, "SECRET": SECRET,
            "pay": lambda request: done.append("paid"), "hold": lambda request: done.append("held"),
            "decline": lambda request, reasons: done.append(f"declined: {reasons[0]['code']}"),
            "seen_before": lambda id: False, "note": lambda *told: done.append(str(told)),
        }  # fmt: skip
        exec(first, names)
        while answers:
            names["on_refund_requested"](BODY)
            answers.pop(0)
        assert done == ["paid", "declined: X", "held", "held"]
        exec(report, names)
        assert [request.url.path for request in asked[-3:]] == [
            "/v2/refund", "/v2/order", "/v2/customer/c1/labels",
        ]  # fmt: skip
        answers[:] = [None]
        exec(other, names)
        names["held"] = names["recourse"].decide(BODY)
        answers[:] = ["ALLOW"]
        exec(late, names)
        assert done[-1] == "paid"
    exec(hook, names)
    told = signed(at=int(time.time()))
    assert names["hook"](told, TOLD) == 204
    assert done[-1] == "('r1', 'ALLOW')"
    assert names["hook"]({}, TOLD) == 400
