"""Idempotency-Key, after the IETF draft (draft-ietf-httpapi-idempotency-key-header): once is once.

What a call did first under a key is kept for 24 hours and told again; the same key with other
content, or on another call, is refused; so is a second request while the first is under way. Only
what was carried out is kept: a request that was refused may be mended and sent under its key.
Whoever asks is part of the key, so two of them never meet.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from serving.store import answered
from serving.store.answered import name_of
from serving.store.decisions import FirstResult
from serving.store.store import Store, Transaction
from serving.wire import InvalidRequest, Problem, shown

HEADER: Final = "Idempotency-Key"
MOST_CHARACTERS: Final = 255

_BARE: Final = re.compile(r"[!#-+\--:<-\[\]-~]+")
"""Visible ASCII without what has a meaning in a structured field: quote, comma, ; and backslash."""

_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
"""A string of RFC 9651."""


class KeyReusedError(Exception):
    """An idempotency key came with other content than at first."""


class InFlightError(Exception):
    """The first request with an idempotency key is still under way."""


@dataclass(frozen=True)
class Answer:
    """A body to send, and whether it repeats an earlier one."""

    body: Mapping[str, Any]
    replayed: bool = False


@dataclass(frozen=True)
class Claim:
    """An idempotency key of one API key, and a digest of what came with it."""

    api_key_id: str
    key: str
    content: str

    @property
    def name(self) -> str:
        """What it is called while it is in flight."""
        return name_of(self.api_key_id, self.key)

    def result(self, body: Mapping[str, Any], at: int) -> FirstResult:
        """What is kept of an answer given at ``at`` (epoch ms)."""
        return FirstResult(self.content, 200, body, at)

    def first(self, tx: Transaction, at: int) -> FirstResult | None:
        """What the key got at first; raises `KeyReusedError` if that came with other content."""
        return self.checked(tx.first_result(self.api_key_id, self.key, at))

    def checked(self, found: FirstResult | None) -> FirstResult | None:
        """A first result if it is of this content; raises `KeyReusedError` if of other."""
        if found is not None and found.content_hash != self.content:
            raise KeyReusedError(
                f"{HEADER}: {self.key!r} was used with other content, or on another call; "
                "use a new one"
            )
        return found

    def keep(self, tx: Transaction, body: Mapping[str, Any], at: int) -> None:
        """Bind the key to this answer."""
        tx.save_first_result(self.api_key_id, self.key, self.result(body, at))


def key_of(given: Sequence[str]) -> str | None:
    """The key in the values of a request's headers of this name, None without any.

    A string of a structured field, as the draft has it, or the same without its quotes, as most
    clients send it. Raises `InvalidRequest` for what is neither, and for more than one.

    >>> key_of(['"8e03978e-40d5"']), key_of(["8e03978e-40d5"]), key_of([])
    ('8e03978e-40d5', '8e03978e-40d5', None)
    >>> key_of([""])
    Traceback (most recent call last):
    ...
    serving.wire.InvalidRequest: Idempotency-Key: must be one string of 1 to 255 visible ASCII \
characters, got ""
    """
    if not given:
        return None
    text = given[0].strip()
    quoted = _QUOTED.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    is_whole = len(given) == 1 and (quoted is not None or _BARE.fullmatch(text) is not None)
    if not is_whole or not key.strip() or len(key) > MOST_CHARACTERS:
        message = f"must be one string of 1 to {MOST_CHARACTERS} visible ASCII characters"
        got = text if len(given) == 1 else list(given)
        raise InvalidRequest([Problem(HEADER, message, shown(got))])
    return key


def digest(call: str, content: str | bytes) -> str:
    """What a key is bound to: a call, as method and address, and the content sent to it.

    ``content`` is a digest of recognised fields, or a body: JSON in whatever order and spacing.

    >>> digest("POST /v2/x", b'{"a": 1, "b": 2}') == digest("POST /v2/x", b'{"b":2,"a":1}')
    True
    >>> digest("POST /v2/x", "content") == digest("POST /v2/y", "content")
    False
    """
    if isinstance(content, bytes):
        # A policy in YAML stays as it stands, and so does what is nested deeper than we write.
        with suppress(orjson.JSONDecodeError, orjson.JSONEncodeError):
            content = orjson.dumps(orjson.loads(content), option=orjson.OPT_SORT_KEYS)
    else:
        content = content.encode()
    return hashlib.blake2b(call.encode() + b"\n" + content, digest_size=16).hexdigest()


def take_off(store: Store, claim: Claim) -> None:
    """Hold a key until ``store.flights.end`` is called with its name."""
    if not store.flights.begin(claim.name):
        raise InFlightError(f"{HEADER}: the first request with {claim.key!r} is still under way")


def begin(store: Store, claim: Claim, at: int) -> Answer | None:
    """The answer that a key got at first, None if this is its first request: that is in flight now.

    Then it must be ended, by `end`. Raises `KeyReusedError` and `InFlightError`. ``at`` is the
    present (epoch ms).
    """
    take_off(store, claim)
    try:
        with store.reading() as tx:
            first = claim.first(tx, at)
    except BaseException:
        store.flights.end(claim.name)
        raise
    if first is None:
        return None
    store.flights.end(claim.name)
    return Answer(answered.open_(store.identifiers, claim.name, first.response), replayed=True)


def end(store: Store, claim: Claim, body: Mapping[str, Any] | None, at: int) -> None:
    """Bind a key to what was answered, and let it go; without an answer it is free again."""
    try:
        if body is not None:
            with store.write() as tx:
                claim.keep(tx, answered.seal(store.identifiers, claim.name, body), at)
    finally:
        store.flights.end(claim.name)


def once(
    store: Store, claim: Claim | None, at: int, act: Callable[[], Mapping[str, Any]]
) -> Answer:
    """The answer that ``act`` gives, or gave when this key first came.

    ``act`` commits what it does by itself, so a process that is killed between that and the keeping
    of its answer does it again when the request is sent again: it must bear that. Scored requests
    and reports do not: their answer is kept in the transaction of what they do. What is answered
    is kept sealed, as it may name a person. ``at`` is the present (epoch ms).
    """
    if claim is None:
        return Answer(act())
    if (first := begin(store, claim, at)) is not None:
        return first
    body = None
    try:
        body = act()
    finally:
        end(store, claim, body, at)
    return Answer(body)
