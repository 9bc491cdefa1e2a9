"""What a form sent: its texts and its files, within bounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.types import Message, Receive

from serving.envelope import ApiError
from serving.headers import sent
from serving.receiving import read_in_time
from serving.wire import InvalidRequest, Problem, shown

KINDS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
MOST_FIELDS: Final = 1_000
MOST_FILES: Final = 20


class Upload(NamedTuple):
    """A file as it was sent: what it is called, and is said to be, is whatever the sender says."""

    name: str
    kind: str
    content: bytes


class Form:
    """The fields of a form; one that was left out is an empty text.

    >>> form = Form([("act", "deny"), ("refund", "r1"), ("refund", "r2")])
    >>> form.text("act"), form.text("none"), form.texts("refund"), form.file("proof")
    ('deny', '', ['r1', 'r2'], None)
    """

    def __init__(self, texts: Iterable[tuple[str, str]] = (),
                 files: Iterable[tuple[str, Upload]] = ()) -> None:  # fmt: skip
        self._texts: dict[str, list[str]] = {}
        self._files: dict[str, list[Upload]] = {}
        for name, text in texts:
            self._texts.setdefault(name, []).append(text)
        for name, file in files:
            self._files.setdefault(name, []).append(file)

    def text(self, name: str) -> str:
        """What a field says; of several with one name the first."""
        return next(iter(self.texts(name)), "")

    def texts(self, name: str) -> list[str]:
        """What every field of a name says, in the form's order."""
        return self._texts.get(name, [])

    def every(self) -> list[tuple[str, str]]:
        """Every text with the name of its field."""
        return [(name, text) for name, texts in self._texts.items() for text in texts]

    def file(self, name: str) -> Upload | None:
        """A file, if one was chosen."""
        return next(iter(self.files(name)), None)

    def files(self, name: str) -> list[Upload]:
        """Every file of a field, in the form's order."""
        return self._files.get(name, [])


async def form_of(request: Request, most: int) -> Form:
    """The form that a request sends, of at most so many bytes.

    Line ends are those of Unix. Raises `ApiError` for another kind of body or a larger one, and
    `InvalidRequest` for what no database takes.
    """
    kind = sent(request.scope, b"content-type", "").partition(";")[0].strip().lower()
    if kind not in KINDS:
        raise ApiError(
            415, f"Content-Type: must be {' or '.join(KINDS)}, got {kind[:60] or 'none'}"
        )
    body = await read_in_time(request.receive, most)
    whole = Request(request.scope, _giving(body))
    try:
        async with whole.form(
            max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=most
        ) as found:
            texts = [(n, _plain(n, v)) for n, v in found.multi_items() if isinstance(v, str)]
            files = [
                (name, Upload(each.filename, each.content_type or "", await each.read()))
                for name, each in found.multi_items()
                if isinstance(each, UploadFile) and each.filename
            ]
    except MultiPartException as error:
        raise ApiError(400, f"body: is no form: {error.message.rstrip('.')}") from None
    return Form(texts, files)


def check_query(query: Mapping[str, str]) -> None:
    """Refuse an address that holds what no database takes; raises `InvalidRequest`."""
    for name, value in query.items():
        _plain(name, value)


def _plain(name: str, text: str) -> str:
    if "\0" in text or any("\ud800" <= one <= "\udfff" for one in text):
        told = "must hold no NUL and no half characters"
        raise InvalidRequest([Problem(name[:40], told, shown(text))])
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _giving(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
