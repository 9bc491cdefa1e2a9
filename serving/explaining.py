"""The calls that explain: a decision's record, its explanation, and the page for a person.

What is explained is computed on the thread of the management, so no decision waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response

from serving.desk import Desk
from serving.envelope import ApiError
from serving.explanation.assemble import Explainer, not_known
from serving.explanation.page import STYLE_POLICY, render
from serving.explanation.parts import Explanation
from serving.headers import all_sent
from serving.home import Home
from serving.language import ENGLISH, Language
from serving.scorer import Champion
from serving.store.store import Store

if TYPE_CHECKING:
    from serving.api import Api

HTML: Final = "text/html"
SCOPE: Final = "review"


class Explaining:
    """The calls about one decision, over the desks of an `Api`."""

    def __init__(self, api: Api, *, home: Home | None = None, language: Language = ENGLISH) -> None:
        self._api, self._language = api, language
        self._explainer = Explainer(self._champion, home=home, language=language)

    def explain(self, desk: Desk, score_id: str) -> Explanation | None:
        """Everything that is told of a decision of a desk; None where there is no such decision."""
        return self._explainer.explain(desk.store, score_id, desk.rates)

    def _champion(self) -> Champion | None:
        """Who decides now, on every desk: they share their models."""
        return next(iter(self._api.desks.values())).models.now.champion

    async def decision(self, request: Request) -> Response:
        """The full record of one decision; the page where the reader would rather have HTML."""
        if prefers_html(", ".join(all_sent(request.scope, b"accept"))):
            page = await self._api.office(lambda: render(self._explained(request), self._language))
            headers = {"Content-Security-Policy": STYLE_POLICY, "Vary": "Accept"}
            return Response(page, media_type=HTML, headers=headers)
        score_id = request.path_params["scoreId"]

        def find(desk: Desk) -> Mapping[str, Any]:
            decision = desk.store.decision(score_id)
            if decision is None:
                raise unknown(desk.store, score_id)
            return {"scoreId": score_id, "decidedAt": decision.decided_at,
                    "record": decision.record, "response": decision.response}  # fmt: skip

        told = await self._api.read(request, SCOPE, find)
        told.headers["Vary"] = "Accept"
        return told

    async def explanation(self, request: Request) -> Response:
        """Why it was made, what would change it and what surrounds it, as values."""
        return self._api.told(await self._api.office(lambda: self._explained(request).to_json()))

    def _explained(self, request: Request) -> Explanation:
        desk, _ = self._api.admit(request, SCOPE)
        score_id = request.path_params["scoreId"]
        found = self.explain(desk, score_id)
        if found is None:
            raise unknown(desk.store, score_id)
        return found


def unknown(store: Store, score_id: str) -> ApiError:
    """What is answered to who asks for a decision that there is not."""
    return ApiError(404, f"scoreId: {not_known(store, score_id)}")


def prefers_html(accept: str) -> bool:
    """Whether an Accept header asks for HTML before JSON (RFC 9110, section 12.5.1).

    >>> prefers_html("text/html,application/xhtml+xml,*/*;q=0.8"), prefers_html("*/*")
    (True, False)
    >>> prefers_html("application/json, text/html;q=0.9"), prefers_html("text/html;q=0")
    (False, False)
    """
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, *parameters = (each.strip() for each in part.split(";"))
        weights[kind] = next(
            (_weight(each[2:]) for each in parameters if each.startswith("q=")), 1.0
        )

    def weight_of(kind: str) -> float:
        family = kind.partition("/")[0] + "/*"
        return next((weights[each] for each in (kind, family, "*/*") if each in weights), 0.0)

    return weight_of(HTML) > weight_of("application/json")


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
