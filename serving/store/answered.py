"""What calls of the management were answered under an idempotency key, kept where none can read it.

Unlike a decision, such an answer may name a person: an entry of a list, or a line of history that
was refused, says back what was sent. So it is kept under the cipher of identifiers, and goes with
whom it names.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import orjson
from sqlalchemy import Connection, delete, select

from serving.store.identifiers import Identifiers
from serving.store.schema import idempotency_keys

_KIND: Final = "answer"
_SEALED: Final = "sealed"


def name_of(api_key_id: str, key: str) -> str:
    """What an idempotency key of an API key is called."""
    return f"{api_key_id} {key}"


def seal(identifiers: Identifiers, name: str, body: Mapping[str, Any]) -> dict[str, str]:
    """An answer as it is kept, for the key of this name.

    >>> identifiers = Identifiers(b"a secret of 16 bytes or more")
    >>> kept = seal(identifiers, "key_1 k", {"id": "c-4711"})
    >>> list(kept), open_(identifiers, "key_1 k", kept)
    (['sealed'], {'id': 'c-4711'})
    """
    sealed = identifiers.seal(_KIND, name, orjson.dumps(body).decode())
    return {_SEALED: base64.b64encode(sealed).decode()}


def open_(identifiers: Identifiers, name: str, kept: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer again; one that is not sealed, as a decision's, as it is."""
    if kept.keys() != {_SEALED}:
        return kept
    text = identifiers.reveal(_KIND, name, base64.b64decode(kept[_SEALED]))
    found: Mapping[str, Any] = orjson.loads(text)
    return found


def reseal(before: Identifiers, after: Identifiers, name: str, text: str) -> str:
    """The text of a kept answer under another secret."""
    kept = orjson.loads(text)
    if kept.keys() != {_SEALED}:
        return text
    return orjson.dumps(seal(after, name, open_(before, name, kept))).decode()


def delete_naming(connection: Connection, identifiers: Identifiers, texts: Collection[str]) -> int:
    """Delete the sealed answers that hold one of these as a value; returns how many.

    There are those of two days, all of which are looked through. An answer to a backfill says of
    most lines only that they were recorded: nobody can tell of whom, so each goes.
    """
    sought = [orjson.dumps(text).decode() for text in texts]
    k, count = idempotency_keys.c, 0
    for api_key_id, key, text in _sealed(connection):
        name = name_of(api_key_id, key)
        answer = open_(identifiers, name, orjson.loads(text))
        said = orjson.dumps(answer).decode()
        if "lines" in answer["data"] or any(one in said for one in sought):
            is_it = (k.api_key_id == api_key_id) & (k.key == key)
            count += connection.execute(delete(idempotency_keys).where(is_it)).rowcount
    return count


def _sealed(connection: Connection) -> Iterator[tuple[str, str, str]]:
    k = idempotency_keys.c
    statement = select(k.api_key_id, k.key, k.response).where(
        k.response.startswith(f'{{"{_SEALED}":', autoescape=True)
    )
    yield from (tuple(row) for row in connection.execute(statement).fetchall())
