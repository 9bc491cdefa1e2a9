"""Evidence on a refund's case: photos and PDF documents, checked, sealed in the store, audited.

What a file is comes from its content, never from its name or from what a browser says of it, and
that kind is what it is to be served as, with ``X-Content-Type-Options: nosniff``: a file that is a
picture and something else besides is a picture to whoever opens it. A picture is decoded once, to
know that it is one; a PDF is not looked into, so it is to be served as a download. Files are kept
as they came, with what a camera wrote into them: they are evidence.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import unicodedata
import warnings
from io import BytesIO
from typing import Final

from cryptography.exceptions import InvalidTag
from PIL import Image, UnidentifiedImageError

from serving.persons import is_same_person, name_of_person
from serving.reviews import ActRefusedError, authority_of
from serving.roles import may
from serving.store.attachments import Attachment, Kind
from serving.store.refunds import Refund
from serving.store.store import Store, Transaction
from serving.wire import InvalidRequest, Problem, shown

MOST_BYTES: Final = 5 * 1024 * 1024
MOST_OF_A_REFUND: Final = 20
MOST_SCANS: Final = 32
MOST_PIXELS: Final = 50_000_000
"""A picture of so many is 200 MB while it is decoded."""

MOST_CHARACTERS: Final = 120

ENDINGS: Final[dict[Kind, tuple[str, ...]]] = {
    "image/png": (".png",), "image/jpeg": (".jpg", ".jpeg"), "image/webp": (".webp",),
    "application/pdf": (".pdf",),
}  # fmt: skip
"""How the names of files of a kind end."""

_FORMATS: Final[dict[Kind, str]] = {
    "image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP",
}  # fmt: skip
_EXPECTED: Final = "must be a PNG, JPEG or WebP picture, or a PDF document"
_TAIL_BYTES: Final = 1024
_DECODING: Final = threading.Lock()


class UnknownAttachmentError(LookupError):
    """No such attachment, or no such refund, is known; the message is its argument."""


class AlteredAttachmentError(Exception):
    """The content is not what was attached: the store was tampered with."""


def attach(
    store: Store, refund_id: str, name: str, content: bytes, *, by: str, at: int,
    via: str | None = None,
) -> Attachment:  # fmt: skip
    """Keep a file as evidence on a refund that is known; ``at`` is epoch ms.

    ``by`` is whoever attaches it; ``via`` as for `serving.reviews.act_on`.

    Raises:
        serving.wire.InvalidRequest: the content is no such file, too much, or one too many.
        UnknownAttachmentError: nothing ever named the refund.
        serving.reviews.ActRefusedError: whoever attaches it may not.
    """
    author, kind = name_of_person(by), kind_of(content)
    with store.write_on_refund(_known(store, refund_id)) as tx:
        _refuse_unless_may_review(tx, author)
        there = tx.attachments(refund_id)
        if len(there) >= MOST_OF_A_REFUND:
            told = f"must be one of at most {MOST_OF_A_REFUND} of a refund: remove another first"
            raise InvalidRequest([Problem("file", told)])
        if there:  # of several that are sent at once each comes after the one before
            at = max(at, there[-1].added_at + 1)
        added = Attachment(
            secrets.token_hex(16), refund_id, cleaned(name, kind), kind, len(content),
            hashlib.sha256(content).hexdigest(), author, at,
        )  # fmt: skip
        tx.attach(added, content)
        _record(tx, added, "attachment_added", author, at, via)
    return added


def attachments_of(store: Store, refund_id: str) -> list[Attachment]:
    """What is attached to a refund, the first first."""
    if "\0" in refund_id:
        return []
    with store.reading() as tx:
        return tx.attachments(refund_id)


def read(store: Store, id: str) -> tuple[Attachment, bytes]:
    """An attachment with its content, which is what was attached.

    Raises `UnknownAttachmentError`, and `AlteredAttachmentError` where the store was tampered with.
    """
    with store.reading() as tx:
        found = _attachment(tx, id)
        try:
            content = tx.attached(id)
        except InvalidTag:
            content = b""
    if hashlib.sha256(content).hexdigest() != found.sha256:
        raise AlteredAttachmentError(f"attachment {id!r}: its content is not what was attached")
    return found, content


def remove(store: Store, id: str, *, by: str, at: int, via: str | None = None) -> Attachment:
    """Delete an attachment with its content; the audit log keeps that there was one.

    Whoever added it may, and whose role may give reviews to others. Raises
    `UnknownAttachmentError`, and `serving.reviews.ActRefusedError` for anybody else.
    """
    person = name_of_person(by)
    with store.reading() as tx:
        found = _attachment(tx, id)
    with store.write_on_refund(_known(store, found.refund_id)) as tx:
        found = _attachment(tx, id)
        leads = _refuse_unless_may_review(tx, person)
        if not leads and not is_same_person(found.author, person):
            raise ActRefusedError(f"{found.author} attached it: expected them, or a manager or "
                                  f"admin, to remove it, got {person}")  # fmt: skip
        tx.detach(id)
        _record(tx, found, "attachment_removed", person, at, via)
    return found


def kind_of(content: bytes) -> Kind:
    """What a file is, by its content; raises `InvalidRequest` for what is not to be attached.

    >>> kind_of(b"%PDF-1.7 ... %%EOF")
    'application/pdf'
    >>> kind_of(b"<svg onload=...>")
    Traceback (most recent call last):
    ...
    serving.wire.InvalidRequest: file: must be a PNG, JPEG or WebP picture, or a PDF document
    """
    if not content:
        raise _refused("is empty")
    if len(content) > MOST_BYTES:
        raise _refused(f"must be at most {MOST_BYTES:,} bytes, got {len(content):,}")
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _picture(content, "image/png")
    if content.startswith(b"\xff\xd8\xff"):
        return _picture(content, "image/jpeg")
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _picture(content, "image/webp")
    if not content.startswith(b"%PDF-"):
        raise _refused(_EXPECTED)
    if b"%%EOF" not in content[-_TAIL_BYTES:]:
        raise _refused("must be a whole PDF document: its end is missing")
    return "application/pdf"


def _picture(content: bytes, kind: Kind) -> Kind:
    """The kind, of a picture that can be decoded, stands still, and is not too large.

    A JPEG may go over all its pixels in each of thousands of scans, which would take an hour; as
    cameras and browsers make them they have a dozen at most.
    """
    if kind == "image/jpeg" and content.count(b"\xff\xda") > MOST_SCANS:
        raise _refused(f"must be a picture of at most {MOST_SCANS} scans: save it anew, not "
                       "progressive")  # fmt: skip
    with _DECODING, warnings.catch_warnings():  # one at a time: each may be 200 MB
        warnings.simplefilter("ignore")
        try:
            with Image.open(BytesIO(content), formats=(_FORMATS[kind],)) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise _refused(f"must be a picture of at most {MOST_PIXELS:,} pixels, got "
                                   f"{picture.width:,} × {picture.height:,}")  # fmt: skip
                if kind != "image/jpeg" and getattr(picture, "n_frames", 1) > 1:
                    raise _refused("must be a picture that stands still: attach one frame of it")
                picture.load()
        except InvalidRequest:
            raise
        except Image.DecompressionBombError as error:
            told = f"must be a picture of at most {MOST_PIXELS:,} pixels"
            raise _refused(told) from error
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, MemoryError,
                OverflowError) as error:  # fmt: skip
            raise _refused("must be a whole picture: this one cannot be decoded") from error
    return kind


def cleaned(name: str, kind: Kind) -> str:
    r"""A file's name for display: its last part, what can be seen of it, with the kind's ending.

    >>> cleaned("..\\..\\etc/re\u202ecu.exe", "image/png"), cleaned(" . ", "application/pdf")
    ('recu.exe.png', 'file.pdf')
    >>> cleaned("Quittung 7.JPG", "image/jpeg")
    'Quittung 7.JPG'
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    seen = "".join(one if one.isprintable() else " " if one.isspace() else "" for one in last)
    text = " ".join(seen.split()).strip(" .") or "file"
    endings = ENDINGS[kind]
    ending = next((text[-len(each) :] for each in endings if text.lower().endswith(each)), "")
    stem = text[: len(text) - len(ending)].rstrip(" .") or "file"
    ending = ending or endings[0]
    return stem[: MOST_CHARACTERS - len(ending)] + ending


def _known(store: Store, refund_id: str) -> Refund:
    refund = None if "\0" in refund_id else store.refund(refund_id)
    if refund is None:
        raise UnknownAttachmentError(f"refundId: no refund {shown(refund_id)!r} is known")
    return refund


def _attachment(tx: Transaction, id: str) -> Attachment:
    found = None if "\0" in id else tx.attachment(id)
    if found is None:
        raise UnknownAttachmentError(f"attachment: none of id {shown(id)!r} is known")
    return found


def _refuse_unless_may_review(tx: Transaction, name: str) -> bool:
    """Refuse whose role may not work on reviews; returns whether it leads those who do."""
    who = authority_of(tx, name)
    if not may(who.role, "review"):
        raise ActRefusedError(f"{who.name} is {who.role}: expected agent or higher to change what "
                              "is attached")  # fmt: skip
    return may(who.role, "assign")


def _record(
    tx: Transaction, one: Attachment, action: str, by: str, at: int, via: str | None
) -> None:
    """The audit entry: what file it was stays told, its name and who it was can be erased."""
    content = {"attachment": one.id, "kind": one.kind, "bytes": one.size_bytes}
    tx.audit(via or by, action, f"refund:{one.refund_id}", content, at=at,
             personal={"by": by, "name": one.name, "sha256": one.sha256})  # fmt: skip


def _refused(told: str) -> InvalidRequest:
    return InvalidRequest([Problem("file", told)])
