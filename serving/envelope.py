"""The one envelope: how calls are answered over HTTP, and how every refusal and failure is."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rules.policy import PolicyError
from serving import answers
from serving.accounts import AccountConflictError, UnknownAccountError
from serving.attachments import AlteredAttachmentError, UnknownAttachmentError
from serving.headers import secured, sent
from serving.idempotency import Answer, InFlightError, KeyReusedError
from serving.logs import begin_request
from serving.persons import NameRefused
from serving.policies import (
    ActivationRefused,
    AlteredPolicyError,
    NobodyNamed,
    SuccessionError,
    UnknownPolicyError,
)
from serving.reviews import ActRefusedError, ReviewConflictError, UnknownReviewError
from serving.store.database import STORE_UNAVAILABLE
from serving.store.policies import PolicyExistsError
from serving.store.refunds import TransitionRefusedError
from serving.wire import InvalidRequest, Problem, shown

log = structlog.get_logger()

JSON: Final = "application/json"


class ApiError(Exception):
    """A refusal, answered in our envelope."""

    def __init__(
        self, status: int, message: str, problems: tuple[Problem, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.problems = status, message, problems
        self.headers = dict(headers or {})


def json_response(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A body as it goes out."""
    return Response(orjson.dumps(body), status, headers, JSON)


def respond(answer: Answer) -> Response:
    """What a desk answered."""
    headers = {"Idempotent-Replayed": "true"} if answer.replayed else None
    return json_response(answer.body, headers=headers)


def failed(error: Exception) -> Response:
    """Any failure in our envelope; what we did not foresee says nothing of itself."""
    body, headers = refusal(error)
    return json_response(body, body["status"], headers)


def refusal(error: Exception) -> tuple[answers.ErrorBody, Mapping[str, str]]:
    """Any failure as it is told, and the headers that its answer bears."""
    match error:
        case ApiError():
            return answers.error_body(error.status, error.message, error.problems), error.headers
        case InvalidRequest():
            return answers.error_body(400, error.message, error.problems), {}
        case PolicyError():
            status = 409 if isinstance(error, SuccessionError) else 400
            problems = tuple(_policy_problems(error))
            message = str(error).partition("\n")[0].rstrip(":")
            return answers.error_body(status, message, problems), {}
        case KeyReusedError():
            return answers.error_body(422, str(error)), {}
        case InFlightError():
            return answers.error_body(409, str(error)), {"Retry-After": "1"}
        case (
            UnknownPolicyError() | UnknownReviewError() | UnknownAccountError()
            | UnknownAttachmentError()
        ):  # fmt: skip
            return answers.error_body(404, str(error)), {}
        case NobodyNamed() | ActRefusedError():
            return answers.error_body(403, str(error)), {}
        case NameRefused():
            told = f"Authorization: the holder of this key: {error}; make a key with another name"
            return answers.error_body(403, told), {}
        case (
            ActivationRefused() | PolicyExistsError() | AlteredPolicyError()
            | ReviewConflictError() | TransitionRefusedError() | AccountConflictError()
            | AlteredAttachmentError()
        ):  # fmt: skip
            return answers.error_body(409, str(error)), {}
        case HTTPException(status_code=404):
            told = "no such address" if error.detail == "Not Found" else error.detail
            return answers.error_body(404, f"{told}; see /docs"), {}
        case HTTPException():
            return answers.error_body(error.status_code, str(error.detail)), error.headers or {}
        case _ if isinstance(error, STORE_UNAVAILABLE):
            log.error("store_unavailable", error=type(error).__name__)
            told = "the store cannot be reached: nothing was recorded"
            return answers.error_body(503, told), {"Retry-After": "1"}
        case _:
            log.error("unforeseen", exc_info=error)
            return answers.error_body(500, "something went wrong on our side"), {}


def _policy_problems(error: PolicyError) -> Iterator[Problem]:
    """What is wrong with a policy, each problem at its place in the document."""
    for problem in error.problems:
        at = f"line {problem.line}:{problem.column}: " if problem.line else ""
        near = f"; did you mean {problem.nearest}?" if problem.nearest else ""
        message = f"{at}{problem.message}; expected {problem.expected}{near}"
        yield Problem(problem.place, message, shown(problem.value) or None)


class Envelope:
    """The outermost layer: a request id on every answer, and no error that escapes unwrapped."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = secrets.token_hex(16)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = secured(message, request_id)
            elif scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        begin_request(request_id, sent(scope, b"traceparent", None))
        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            return  # nobody is left to answer, and nothing was recorded
        except Exception as error:
            if started:
                raise
            await failed(error)(scope, receive, send_with_id)
