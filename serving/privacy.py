"""The calls about personal data: all that is known of a customer, and their erasure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from serving import disclosure, policies
from serving.desk import Desk
from serving.envelope import JSON
from serving.management import ADMIN
from serving.store.erasure import erase
from serving.store.keys import ApiKey

if TYPE_CHECKING:
    from serving.api import Api


class Privacy:
    """The calls about one customer's data, over the desks of an `Api`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def export(self, request: Request) -> Response:
        """All that is known about a customer, in one document that is sent as it is made."""
        customer_id = request.path_params["customerId"]
        made: list[Iterator[bytes]] = []

        def work(desk: Desk, key: ApiKey, at: int) -> Mapping[str, Any]:
            parts = disclosure.document(
                desk.store, customer_id, actor=policies.person_of(key.name, key.id), at=at,
                via=f"key:{key.id}",
            )  # fmt: skip
            head = orjson.dumps({"status": 200, "timestamp": at // 1000})
            made.append(chain([head[:-1], b',"data":'], parts, [b"}"]))
            return {}

        await self._api.manage(request, ADMIN, work, "reveal")
        return StreamingResponse(made[0], media_type=JSON)

    async def erase(self, request: Request) -> Response:
        """Erase a customer; the answer says how many rows of which table."""
        customer_id = request.path_params["customerId"]

        def work(desk: Desk, key: ApiKey, at: int) -> Mapping[str, Any]:
            erased = erase(
                desk.store, customer_id, actor=policies.person_of(key.name, key.id), at=at,
                via=f"key:{key.id}",
            )  # fmt: skip
            return {"customerId": customer_id, "known": erased.was_known,
                    "erased": dict(erased.rows)}  # fmt: skip

        return await self._api.manage(request, ADMIN, work, "reveal")
