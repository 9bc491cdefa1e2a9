"""What the service is measured against: two handlers that score the same body with the same model.

Neither authenticates, reads history, applies rules or keeps anything: what they leave out is what
the ratios price. Both read the served model of RECOURSE_HOME.

- `floor`: Starlette, JSON parsed, one NumPy row, `Booster.predict`. Less is not a scoring service.
- `usual`: FastAPI with a pydantic body, a pandas row, the model's predict on it, and the values of
  `shap.TreeExplainer`: how such a service is commonly written.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np
import orjson
import pandas as pd
import shap
from fastapi import FastAPI
from numpy.typing import NDArray
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.home import Home
from serving.model import AbuseModel

AMOUNT: Final = "payable_minor"
MOST_REASONS: Final = 5


def _load() -> tuple[lightgbm.Booster, list[str], NDArray[np.float64]]:
    """The trees, their features' names, and a row of medians: what no body says is typical."""
    model = AbuseModel.load(Home(Path(os.environ["RECOURSE_HOME"])).served_model())
    medians = model.reference.quantiles[:, model.reference.quantiles.shape[1] // 2]
    return model.booster, list(model.feature_names), medians


def floor() -> Starlette:
    """The floor."""
    booster, names, medians = _load()
    amount = names.index(AMOUNT)

    async def score(request: Request) -> Response:
        body = orjson.loads(await request.body())
        row = medians.copy()
        row[amount] = body["refund"]["amount"]
        probability = float(booster.predict(row[np.newaxis], num_threads=1)[0])
        answer = {"refundId": body["refund"]["refundId"], "abuseProbability": probability}
        return Response(orjson.dumps(answer), media_type="application/json")

    return Starlette(routes=[Route("/v2/refund", score, methods=["POST"]), _ready()])


class RefundPart(BaseModel):
    """What the usual stack reads of a refund."""

    refundId: str  # noqa: N815 - the wire's own name
    amount: int


class RefundBody(BaseModel):
    """What the usual stack reads of a body."""

    refund: RefundPart


def usual() -> FastAPI:
    """The usual stack."""
    booster, names, medians = _load()
    typical = dict(zip(names, medians.tolist(), strict=True))
    explainer = shap.TreeExplainer(booster)
    app = FastAPI(routes=[_ready()])

    @app.post("/v2/refund")
    def score(body: RefundBody) -> dict[str, Any]:
        frame = pd.DataFrame([{**typical, AMOUNT: float(body.refund.amount)}])
        # What LGBMClassifier.predict_proba comes down to, once its own checks are through.
        probability = float(booster.predict(frame, num_threads=1)[0])
        values = pd.Series(explainer.shap_values(frame)[0], index=names)
        reasons = values.sort_values(ascending=False).head(MOST_REASONS)
        return {
            "refundId": body.refund.refundId,
            "abuseProbability": probability,
            "reasons": [
                {"feature": name, "value": _known(frame[name].iloc[0]), "contribution": value}
                for name, value in reasons.items()
            ],
        }

    return app


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _ready() -> Route:
    async def ready(_: Request) -> Response:
        return Response(b"")

    return Route("/readyz", ready)
