"""The OpenAPI 3.1 document of all calls: from the table of calls, the wire's models and answers.

What a call is for stands in `serving.described`; schemas are those that bodies are read with and
answers are made of, so the document says what the program does. `document` refuses a call that is
not described, and a description of no call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

from serving import answers
from serving.described import (
    DESCRIBED,
    IDEMPOTENCY_KEY,
    REFUSALS,
    TAGS,
    TRACEPARENT,
    Described,
    Parameter,
)  # fmt: skip
from serving.envelope import JSON
from serving.examples import Example
from serving.routing import Call, template_of

TITLE: Final = "Recourse"
VERSION: Final = "2"
"""That of the calls, as it stands in their addresses."""

_ABOUT: Final = """\
Recourse decides whether a refund is paid: ALLOW, PREVENT or MANUAL_REVIEW, with its reasons.

Every call but this page's takes a key: `Authorization: token sk_live_…` (or `Bearer`). A key with
`_test_` in it reaches the sandbox, which shares nothing with live data. Every answer bears
`X-Request-Id`. Every error is one envelope, `{status, message, validationErrors?}`, and names the
field, the value and what was expected, all problems at once.

Amounts are integers of minor units with an ISO 4217 currency. Times in requests are Unix seconds,
milliseconds, microseconds or nanoseconds, told apart by magnitude and kept to the millisecond; in
answers `timestamp` is Unix seconds, every other time epoch milliseconds. Fields that we do not know
are ignored, but for those of lists and policies, which are refused; null says the same as leaving a
field out. A value outside an open list of words is kept and answered with a warning.

`/livez`, `/readyz` and `/metrics` answer without a key: health, readiness, Prometheus."""

_SCHEMAS: Final = "#/components/schemas/"
_REQUEST_ID: Final = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}

_HEADERS: Final[Mapping[str, Any]] = {
    "X-Request-Id": {
        "description": "Names the request in our logs; say it when you ask about an answer.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
    "Idempotent-Replayed": {
        "description": "`true` where the answer repeats one that was given before.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Retry-After": {
        "description": "After so many seconds it may be tried again.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "Allow": {
        "description": "The methods that the address allows.",
        "schema": {"type": "string"},
    },
    "WWW-Authenticate": {
        "description": "How to say who asks.",
        "schema": {"type": "string"},
    },
}

_BORNE: Final[Mapping[int, str]] = {
    401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After", 503: "Retry-After",
}  # fmt: skip
"""The header that a refusal bears beside its request id."""

OF_A_KEY: Final = (409, 422)
"""What a POST refuses because of its idempotency key: in flight, or used with other content."""

_SECURITY: Final[Mapping[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The key as a bearer token. Its scopes stand beside each call; one of those "
        "that are named is enough.",
    },
    "token": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "The same key as `token sk_live_…`.",
    },
}


def document(
    calls: Iterable[Call[Any]], described: Mapping[tuple[str, str], Described] = DESCRIBED
) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a table of calls.

    Raises LookupError for calls that nobody described, and for descriptions of no call.
    """
    found = {(call.method, template_of(call.path)): call for call in calls}
    if apart := sorted(found.keys() ^ described.keys()):
        named = ", ".join(f"{method} {path}" for method, path in apart)
        raise LookupError(f"in the table of calls or in serving.described, not in both: {named}")
    schemas = _Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), call in found.items():
        operation = _operation(call, path, described[method, path], schemas)
        paths.setdefault(path, {})[method.lower()] = operation
    error = schemas.of(answers.ErrorBody)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION, "description": _ABOUT,
                 "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": told} for name, told in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components().items())),
            "responses": {str(status): _refusal(status, error) for status in REFUSALS},
            "parameters": {TRACEPARENT.name: _parameter(TRACEPARENT, {})},
            "headers": dict(_HEADERS),
            "securitySchemes": dict(_SECURITY),
        },
    }  # fmt: skip


# --- a call ------------------------------------------------------------------------------------


def _operation(call: Call[Any], path: str, told: Described, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": told.operation_id,
        "summary": call.summary,
        "description": told.description,
        "tags": [told.tag],
        "security": [{scheme: [scope]} for scope in told.scopes for scheme in _SECURITY],
        "parameters": [_parameter(each, told.examples) for each in _parameters(call, path, told)]
        + [{"$ref": "#/components/parameters/traceparent"}],
    }
    if told.bodies:
        operation["requestBody"] = {
            "required": told.needs_body,
            "content": {
                media: {"schema": schemas.of(body), "examples": {
                    name: {"summary": one.summary, "value": one.body}
                    for name, one in told.examples.items()
                    if one.body is not None and one.media == media
                }}
                for media, body in told.bodies.items()
            },
        }  # fmt: skip
    refusals = sorted({*told.refusals, *(OF_A_KEY if call.method == "POST" else ())})
    operation["responses"] = {"200": _answer(call, told, schemas)} | {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in refusals
    }
    return {name: value for name, value in operation.items() if value != []}


def _parameters(call: Call[Any], path: str, told: Described) -> Iterator[Parameter]:
    """Those of a call; what its path names is declared, and nothing else as of the path."""
    named = set(re.findall("{([A-Za-z]+)}", path))
    declared = {each.name for each in told.parameters if each.where == "path"}
    if named != declared:
        raise LookupError(f"{path}: expected the parameters {named}, got {declared}")
    yield from told.parameters
    if call.method == "POST":
        yield IDEMPOTENCY_KEY


def _parameter(parameter: Parameter, shown: Mapping[str, Example]) -> dict[str, Any]:
    examples = {
        name: {"value": one.given[parameter.name]}
        for name, one in shown.items()
        if parameter.name in one.given
    }
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
        **({"examples": examples} if examples else {}),
    }


def _answer(call: Call[Any], told: Described, schemas: _Schemas) -> dict[str, Any]:
    headers: dict[str, Any] = dict(_REQUEST_ID)
    if call.method == "POST":
        headers["Idempotent-Replayed"] = {"$ref": "#/components/headers/Idempotent-Replayed"}
    content = {
        media: {"schema": schemas.of(answer)} | (
            {"examples": {name: {"value": value} for name, value in told.answered.items()}}
            if told.answered else {}
        )
        for media, answer in told.answers.items()
    }  # fmt: skip
    answer: dict[str, Any] = {"description": told.answer_description, "headers": headers,
                              "content": content}  # fmt: skip
    if told.links:
        answer["links"] = {name: dict(link) for name, link in told.links.items()}
    return answer


def _refusal(status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    headers: dict[str, Any] = dict(_REQUEST_ID)
    if status in _BORNE:
        headers[_BORNE[status]] = {"$ref": f"#/components/headers/{_BORNE[status]}"}
    description, example = REFUSALS[status]
    return {
        "description": description,
        "headers": headers,
        "content": {JSON: {"schema": dict(error), "example": example}},
    }


# --- schemas -----------------------------------------------------------------------------------


class _Schemas:
    """JSON Schemas of models and types, each once, told apart by what they are named."""

    def __init__(self) -> None:
        self._components: dict[str, Any] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a model, of a TypedDict, or one that is given as it is."""
        if isinstance(kind, Mapping):
            return {key: self._inside(key, value) for key, value in kind.items()}
        is_read = isinstance(kind, type) and issubclass(kind, BaseModel)
        made = TypeAdapter(kind).json_schema(
            ref_template=_SCHEMAS + "{model}", mode="validation" if is_read else "serialization"
        )
        for name, schema in made.pop("$defs", {}).items():
            self._keep(name, schema, is_read)
        if "properties" not in made:
            return _plain(made, is_read)
        self._keep(kind.__name__, made, is_read)
        return {"$ref": _SCHEMAS + kind.__name__}

    def _inside(self, key: str, value: Any) -> Any:
        if key in _SEVERAL:
            return [self.of(each) for each in value]
        if key == "properties":
            return {name: self.of(each) for name, each in value.items()}
        return value

    def components(self) -> dict[str, Any]:
        """Every named schema so far."""
        return self._components

    def _keep(self, name: str, schema: Mapping[str, Any], is_read: bool) -> None:
        plain = _plain(schema, is_read)
        if self._components.setdefault(name, plain) != plain:
            raise LookupError(f"two different schemas are named {name}")


_INNER: Final = ("items", "additionalProperties")
_SEVERAL: Final = ("anyOf", "allOf", "oneOf")
_NULL: Final = {"type": "null"}


def _plain(schema: Mapping[str, Any], is_read: bool) -> dict[str, Any]:
    """A schema as people read it: no titles made of names, no defaults, Markdown in descriptions.

    Of what is read, null says the same as leaving a field out.
    """
    plain: dict[str, Any] = {}
    required = schema.get("required", ())
    for key, value in schema.items():
        if key == "properties":
            plain[key] = {
                name: _or_null(_plain(each, is_read)) if is_read and name not in required
                else _plain(each, is_read)
                for name, each in value.items()
            }  # fmt: skip
        elif key in _INNER and isinstance(value, dict):
            plain[key] = _plain(value, is_read)
        elif key in _SEVERAL:
            plain[key] = [_plain(each, is_read) for each in value]
        elif key == "description":
            plain[key] = value.replace("``", "`")
        elif key not in ("title", "default"):
            plain[key] = value
    if _NULL in plain.get("anyOf", ()) and len(plain["anyOf"]) == 2:
        [some] = [each for each in plain.pop("anyOf") if each != _NULL]
        return _or_null({**some, **plain})
    return plain


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, or null.

    >>> _or_null({"type": "string", "enum": ["A"]})
    {'type': ['string', 'null'], 'enum': ['A', None]}
    >>> _or_null({"$ref": "#/a"})
    {'anyOf': [{'$ref': '#/a'}, {'type': 'null'}]}
    """
    kind = schema.get("type")
    if isinstance(kind, str):
        more = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
        return {**schema, "type": [kind, "null"], **more}
    if kind is None and _NULL not in schema.get("anyOf", ()):
        return {"anyOf": [schema, _NULL]}
    return schema
