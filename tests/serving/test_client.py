"""The client, as a refund backend uses it, against the real service in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi.testclient import TestClient

from client import AsyncRecourse, Decision, Recourse, Refused
from serving.api import Api, create_app
from serving.desk import Desk
from tests.serving.test_desk import NOW, open_desk, url
from tests.test_client import BODY

__all__ = ["open_desk", "url"]  # fixtures


@pytest.fixture
def api(open_desk: Callable[..., Desk]) -> Iterator[Api]:
    desk = open_desk()
    opened = Api({"live": desk, "test": desk}, 64 * 1024)
    yield opened
    opened.finish()


def key_of(api: Api) -> str:
    return api.desks["live"].store.keys.create("live", ["score", "report", "review"], NOW)


def test_the_real_service_is_asked_and_told(api: Api) -> None:
    http = TestClient(create_app(lambda: api))

    def handle(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        return http.request(request.method, path, content=request.content, headers=request.headers)

    transport = httpx.MockTransport(handle)
    with Recourse("https://recourse.internal/", key_of(api), 60, transport=transport) as recourse:
        order = {"orderId": "o1", "price": 5_000, "currency": "GBP"}
        assert recourse.report_order(customer={"customerId": "c1"}, order=order)["orderId"] == "o1"
        first = recourse.decide(BODY)
        again = recourse.decide(BODY)
        assert (first.score_id, again.replayed) == (again.score_id, True)
        assert first.action in ("ALLOW", "MANUAL_REVIEW", "PREVENT")
        assert first.model_version == "fixed"
        paid = {**BODY, "refund": {"refundId": "r1", "status": "COMPLETED"}}
        assert recourse.report_refund(paid)["refundId"] == "r1"
        verdict = {"category": "REFUND_ABUSE", "review": "NOT_REFUND_ABUSE",
                   "reviewer": {"name": "Ann", "email": "ann@shop.example"}}  # fmt: skip
        assert recourse.label("c/1 ?", verdict)["customerId"] == "c/1 ?"
        dispute = {"disputeId": "d1", "stage": "CHARGEBACK"}
        recourse.report_dispute(customer={"customerId": "c1"}, dispute=dispute)
        with pytest.raises(Refused) as caught:
            recourse.decide(refund={"refundId": "r1"})
        assert {"refund.amount", "customer.customerId"} <= {
            problem["field"] for problem in caught.value.validation_errors
        }
        with pytest.raises(TypeError, match="'refnd'; did you mean refund"):
            recourse.decide(refnd={})


def test_the_real_service_is_asked_by_asyncio(api: Api) -> None:
    async def ask() -> list[Decision]:
        transport = httpx.ASGITransport(create_app(lambda: api))
        url, key = "https://recourse.internal", key_of(api)
        async with AsyncRecourse(url, key, 60, transport=transport) as recourse:
            await recourse.report_order(customer={"customerId": "c1"}, order=BODY["order"])
            decided = await asyncio.gather(*(recourse.decide(BODY) for _ in range(4)))
            with pytest.raises(Refused):
                await recourse.report_refund({})
            return decided

    decided = asyncio.run(ask())
    assert len({decision.score_id for decision in decided}) == 1
    assert sum(not decision.replayed for decision in decided) == 1
