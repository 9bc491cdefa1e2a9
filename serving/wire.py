"""The wire's scalars and how a body that breaks them is refused: every problem, by its path.

Strict types, whose one message says what the field must be; JSON of bounded depth; and
`InvalidRequest`, which lists all that is wrong with a body. `serving.contract` builds its models
from these.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar

import numpy as np
import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from features.events import normalise_email, normalise_ip
from features.money import MINOR_UNIT_DIGITS
from features.tables import EARLIEST_MS, LATEST_MS

MAX_DEPTH: Final = 32
"""Objects and arrays within each other; the contract itself needs five."""

MAX_ENTRIES: Final = 1000
"""Lines of an order or refund, and entries of any other array."""

MAX_MINOR: Final = 10**15
MAX_QUANTITY: Final = 10**6
MAX_PROBLEMS: Final = 100
"""Beyond it problems are counted, not listed: a refusal must not outgrow its request."""

MAX_SHOWN: Final = 120
"""Characters of an offending value that are shown back."""


# --- problems ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field; ``value`` is what was sent, shortened, None if nothing was.

    >>> str(Problem("refund.amount", "must be an integer of minor units", "10.00"))
    'refund.amount: must be an integer of minor units, got "10.00"'
    """

    field: str
    message: str
    value: Any = None

    def __str__(self) -> str:
        got = "" if self.value is None else f", got {orjson.dumps(self.value).decode()}"
        return f"{self.field}: {self.message}{got}"


class InvalidRequest(ValueError):  # noqa: N818 - it names what the API answers, not a fault of ours
    """A body was refused; holds every problem, at most one for a field."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        first: dict[str, Problem] = {}
        for problem in problems:
            first.setdefault(problem.field, problem)
        self.problems = tuple(first.values())[:MAX_PROBLEMS]
        more = len(first) - len(self.problems)
        self.message = "; ".join(map(str, self.problems)) + (f"; and {more} more" if more else "")
        super().__init__(self.message)


def nearest(value: str, known: Iterable[str]) -> str | None:
    """The known value that ``value`` was probably meant to be, whatever its case.

    >>> nearest("ITEM_NOT_RECIEVED", ["ITEM_DAMAGED", "ITEM_NOT_RECEIVED"])
    'ITEM_NOT_RECEIVED'
    >>> nearest("refundrequst", ["refundRequest"])
    'refundRequest'
    """
    spelled = {one.upper(): one for one in known}
    near = difflib.get_close_matches(value.upper()[:64], spelled, 1)
    return spelled[near[0]] if near else None


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """A hint for a message, empty when nothing is near."""
    near = nearest(value, known)
    return f" (did you mean {near}?)" if near else ""


def absent(raw: Mapping[str, Any], path: str) -> bool:
    """Whether a body says nothing at a dotted path; null says nothing.

    A parent of the wrong type is a problem of its own, not an absence.

    >>> [absent(raw, "order.price") for raw in ({}, {"order": {"price": None}}, {"order": 1})]
    [True, True, False]
    """
    value: Any = raw
    for key in path.split("."):
        if value is None:
            return True
        if not isinstance(value, dict):
            return False
        value = value.get(key)
    return value is None


def shown(value: Any) -> Any:
    """A value as an error may repeat it: long ones are cut, and it is always valid JSON text."""
    if isinstance(value, str):
        text = value.encode(errors="replace").decode()
        return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
    if isinstance(value, list | dict):
        text = orjson.dumps(value).decode()
        return value if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
    return value


def _path(loc: Sequence[int | str]) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return path.removeprefix(".") or "body"


_STRUCTURE: Final = {
    "missing": "is required",
    "model_type": "must be an object",
    "tuple_type": "must be an array",
    "too_long": f"must have at most {MAX_ENTRIES} entries",
}


def _message(error: ErrorDetails) -> str:
    kind, value = error["type"], error["input"]
    message = _STRUCTURE.get(kind, error["msg"])
    if isinstance(value, str) and "\0" in value:
        return "must hold no NUL character"
    if value is None and not isinstance(error["loc"][-1], int):
        return "is required"
    if kind == "currency" and isinstance(value, str):
        # A code begins with its country, so GBX is nearer to GBP than letters alone would say.
        likely = [code for code in MINOR_UNIT_DIGITS if code[:2] == value.strip().upper()[:2]]
        return message + did_you_mean(value, likely)
    if isinstance(value, int) and not isinstance(value, bool):
        if kind == "id":
            return f'{message} (write "{value}")'
        if kind == "amount":
            return f"{message}, " + ("not negative" if value < 0 else "at most 10^15")
    return message


def _problem(error: ErrorDetails) -> Problem:
    missing = error["type"] == "missing"
    value = None if missing else shown(error["input"])
    return Problem(_path(error["loc"]), _message(error), value)


# --- scalars -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Says:
    """Whatever goes wrong before it in an ``Annotated``, the field answers with one sentence."""

    kind: str
    message: str
    told: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What is checked besides, in the words of JSON Schema."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The schema so far, its errors replaced."""
        return core_schema.custom_error_schema(
            handler(source), custom_error_type=self.kind, custom_error_message=self.message
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The sentence as the description, for OpenAPI."""
        return {**handler(schema), **self.told, "description": self.message}


def to_millis(time: int) -> int:
    """Unix seconds, milli-, micro- or nanoseconds, told apart by magnitude, as milliseconds.

    Seconds reach to the year 5138; milliseconds begin in March 1973.

    >>> [to_millis(1_636_629_706 * 10**digits) for digits in (0, 3, 6, 9)]
    [1636629706000, 1636629706000, 1636629706000, 1636629706000]
    """
    if time < 10**11:
        return time * 1000
    if time < 10**14:
        return time
    return time // (1000 if time < 10**17 else 10**6)


def _of_this_age(time: int) -> int:
    # What a data folder refuses is kept out of the store, or its export could not be read again.
    if not EARLIEST_MS <= (millis := to_millis(time)) < LATEST_MS:
        raise ValueError(time)
    return millis


def _known_currency(code: str) -> str:
    if code not in MINOR_UNIT_DIGITS:
        raise ValueError(code)
    return code


def _one_mailbox(email: str) -> str:
    return _fitting(normalise_email(email))


def _one_network(ip: str) -> str:
    return _fitting(normalise_ip(ip))


def _fitting(text: str) -> str:
    # Unicode normalisation may lengthen a text, and trimming may leave nothing of it.
    if not 1 <= len(text) <= 256:
        raise ValueError(text)
    return text


_NO_NUL: Final = r"^[^\x00]*$"
_NOT_BLANK: Final = r"^[^\x00]*[^\x00\s][^\x00]*$"

Identifier = Annotated[
    str,
    StringConstraints(strict=True, max_length=256, pattern=_NOT_BLANK),
    Says("id", "must be a string of 1 to 256 characters"),
]
Text = Annotated[
    str,
    StringConstraints(strict=True, max_length=1024, pattern=_NO_NUL),
    Says("text", "must be a string of at most 1024 characters"),
]
Word = Annotated[
    str,
    # One spelling per value. 256 characters, as upper case may be three times as long.
    StringConstraints(
        strict=True, strip_whitespace=True, to_upper=True, max_length=256, pattern=_NOT_BLANK
    ),
    Says("word", "must be a string of 1 to 256 characters"),
]
Amount = Annotated[
    int,
    Field(strict=True, ge=0, le=MAX_MINOR),
    Says("amount", "must be an integer of minor units"),
]
Quantity = Annotated[
    int,
    Field(strict=True, ge=0, le=MAX_QUANTITY),
    Says("count", "must be a whole number from 0 to 10^6"),
]
Currency = Annotated[
    str,
    Field(strict=True, min_length=3, max_length=3),
    AfterValidator(_known_currency),
    Says("currency", "must be an ISO 4217 code in upper case", {"enum": sorted(MINOR_UNIT_DIGITS)}),
]
Time = Annotated[
    int,
    # Zero is what a client sends that has no time; an account is not as old as Unix.
    Field(strict=True, gt=0, lt=2**63),
    AfterValidator(_of_this_age),
    Says(
        "time",
        "must be Unix time as an integer of seconds, milliseconds, microseconds or nanoseconds, "
        "from 1990 to 2099; it is kept to the millisecond",
        {
            "anyOf": [
                {"minimum": EARLIEST_MS * unit // 1000, "maximum": LATEST_MS * unit // 1000 - 1}
                for unit in (1, 10**3, 10**6, 10**9)
            ]
        },
    ),
]
Month = Annotated[
    int, Field(strict=True, ge=1, le=12), Says("month", "must be a month as a number from 1 to 12")
]
Year = Annotated[
    int,
    Field(strict=True, ge=1990, le=2099),
    Says("year", "must be a year as a number of four digits, from 1990 to 2099"),
]
Flag = Annotated[bool, Field(strict=True), Says("flag", "must be true or false")]
Share = Annotated[
    float,
    Field(strict=True, ge=0, le=1, allow_inf_nan=False),
    Says("share", "must be a number from 0 to 1"),
]
Email = Annotated[
    str,
    StringConstraints(strict=True, max_length=256, pattern=_NO_NUL),
    AfterValidator(_one_mailbox),
    Says("email", "must be an e-mail address of at most 256 characters"),
]
Ip = Annotated[
    str,
    StringConstraints(strict=True, max_length=256, pattern=_NO_NUL),
    AfterValidator(_one_network),
    Says(
        "ip",
        "must be an IP address as a string",
        {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
    ),
]

Entry = TypeVar("Entry")
Array = Annotated[
    tuple[Entry, ...],
    Field(max_length=MAX_ENTRIES),
    BeforeValidator(lambda entries: () if entries is None else entries),
]


@dataclass(frozen=True)
class OneOf:
    """Metadata of a closed list: another value is a problem."""

    choices: tuple[str, ...]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The schema so far, then the check."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The choices, for OpenAPI."""
        return {"type": "string", "enum": [*self.choices]}

    def _check(self, word: str) -> str:
        if word in self.choices:
            return word
        context = {"choices": ", ".join(self.choices), "hint": did_you_mean(word, self.choices)}
        raise PydanticCustomError("choice", "must be one of {choices}{hint}", context)


@dataclass(frozen=True)
class Known:
    """Metadata of an open list: another value is kept and answered with a warning.

    ``otherwise`` is what another value means, where it means more than that.
    """

    choices: tuple[str, ...]
    otherwise: str = ""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The choices as examples, for OpenAPI; of an array they are those of an entry."""
        told, examples = handler(schema), {"examples": [*self.choices]}
        if "items" in told:
            return {**told, "items": {**told["items"], **examples}}
        return {**told, **examples}


class Wire(BaseModel):
    """A part of a body: camelCase, unknown fields ignored, null the same as absent."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


# --- bodies ------------------------------------------------------------------------------------


_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STEPS: Final = np.zeros(256, np.int32)
_STEPS[[*b"{["]] = 1
_STEPS[[*b"}]"]] = -1


def _depth(body: bytes) -> int:
    """How deep objects and arrays lie within each other, of any bytes, before they are parsed."""
    brackets = np.frombuffer(_STRING.sub(b"", body), np.uint8)
    return int(_STEPS[brackets].cumsum().max(initial=0))


def load_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; raises `InvalidRequest` naming the position of bad JSON."""
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise InvalidRequest([Problem("body", f"must be nested at most {MAX_DEPTH} levels deep")])
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest([Problem("body", f"must be JSON: {error.msg} at {where}")]) from None
    if not isinstance(raw, dict):
        raise InvalidRequest([Problem("body", "must be a JSON object", shown(raw))])
    return raw


Part = TypeVar("Part", bound=Wire)


def validate(model: type[Part], raw: Mapping[str, Any], problems: Iterable[Problem] = ()) -> Part:
    """``raw`` as a ``model``; raises `InvalidRequest` with its problems and those given."""
    found = list(problems)
    try:
        part = model.model_validate(raw)
    except ValidationError as error:
        # Of a part that is not there, what was needed of it has been said.
        said = {problem.field.rpartition(".")[0] for problem in found}
        found += (
            problem
            for problem in map(_problem, error.errors(include_url=False, include_context=False))
            if problem.value is not None or problem.field not in said
        )
    if found:
        raise InvalidRequest(found)
    return part
