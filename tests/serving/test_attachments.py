"""Evidence: what a file is comes from its content, it is sealed, and it goes with its customer."""

from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import text

from features.money import DAY_MS
from serving.attachments import (
    ENDINGS,
    MOST_BYTES,
    AlteredAttachmentError,
    UnknownAttachmentError,
    attach,
    attachments_of,
    cleaned,
    kind_of,
    read,
    remove,
)
from serving.desk import Desk
from serving.disclosure import document as document_of
from serving.reviews import ActRefusedError
from serving.store.erasure import erase
from serving.store.retention import Keep, apply
from serving.store.rotation import rotate
from serving.store.store import Store
from serving.wire import InvalidRequest
from tests.serving.store.test_rotation import seal_and_vouch
from tests.serving.test_approvals import account
from tests.serving.test_desk import NOW, SECRET, Clock, now, open_desk, url
from tests.serving.test_reviews import CUSTOMER, decided, policy

__all__ = ["now", "open_desk", "policy", "url"]  # fixtures

PDF = b"%PDF-1.7\n1 0 obj <</Type /Catalog>> endobj\ntrailer <</Root 1 0 R>>\n%%EOF\n"


def picture(kind: str = "PNG", size: tuple[int, int] = (8, 6), **more: Any) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, kind, **more)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    checked = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checked)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header tells so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1_000_000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def animated(kind: str) -> bytes:
    frames, file = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 99)], BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=50)
    return file.getvalue()


@pytest.fixture
def desk(open_desk: Any, now: Clock) -> Desk:
    opened: Desk = open_desk()
    decided(opened, now)
    return opened


@pytest.mark.each_store
def test_a_file_is_kept_sealed_and_read_as_it_came(desk, now):
    content = picture("JPEG")
    added = attach(desk.store, "r-1", "C:\\fakepath\\box.JPG", content, by="Ann", at=now(),
                   via="account:a1")  # fmt: skip
    assert (added.name, added.kind, added.size_bytes) == ("box.JPG", "image/jpeg", len(content))
    assert read(desk.store, added.id) == (added, content)
    with desk.store.database.read() as connection:
        kept = connection.execute(text("SELECT content FROM attachments")).scalar_one()
    assert content[:8] not in bytes(kept)
    entry = desk.store.audit_about("refund:r-1")[-1]
    assert (entry.actor, entry.action) == ("account:a1", "attachment_added")
    # Who has the file could tell by its digest that it was attached: that is erased as well.
    assert entry.personal == {"by": "Ann", "name": "box.JPG", "sha256": added.sha256}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (picture(), "image/png"), (picture("JPEG"), "image/jpeg"), (picture("WEBP"), "image/webp"),
        (PDF, "application/pdf"),
        (picture() + b"<script>alert(1)</script>", "image/png"),
        (b"%PDF-1.4 <script>alert(1)</script> %%EOF", "application/pdf"),
    ],
)  # fmt: skip
def test_what_a_file_is_comes_from_its_content_also_of_one_that_is_two_things(content, kind):
    assert kind_of(content) == kind


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "PNG, JPEG or WebP"),
        (b"GIF89a" + b"\0" * 50, "PNG, JPEG or WebP"),
        (b"MZ\x90\0" * 50, "PNG, JPEG or WebP"),
        (b" " + PDF, "PNG, JPEG or WebP"),
        (PDF[:40], "its end is missing"),
        (PDF + b" " * 2000, "its end is missing"),
        (picture()[:40], "cannot be decoded"),
        (picture("JPEG")[:300], "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n<html>", "cannot be decoded"),
        (b"\xff\xd8\xff" + picture(), "cannot be decoded"),
        (b"RIFF\x04\0\0\0WEBPxxxx", "cannot be decoded"),
        (bomb(30_000, 30_000), "at most 50,000,000 pixels"),
        (b"\xff\xd8\xff" + 33 * b"\xff\xda", "at most 32 scans"),
        (bomb(7_100, 7_100), "got 7,100 × 7,100"),
        (bomb(5_000, 5_000), "cannot be decoded"),
        (animated("PNG"), "stands still"),
        (animated("WEBP"), "stands still"),
        (PDF + b" " * MOST_BYTES, "at most 5,242,880 bytes"),
    ],
)
def test_what_is_no_such_file_is_refused_by_name(content, told):
    with pytest.raises(InvalidRequest) as refused:
        kind_of(content)
    [problem] = refused.value.problems
    assert (problem.field, told in problem.message) == ("file", True)


@hypothesis_settings(max_examples=60)
@given(place=st.integers(0, 200), value=st.integers(0, 255), which=st.sampled_from(
    [picture(), picture("JPEG"), picture("WEBP"), PDF]))  # fmt: skip
def test_a_damaged_file_is_taken_or_refused_and_nothing_else(place, value, which):
    content = bytearray(which)
    content[place % len(content)] = value
    try:
        assert kind_of(bytes(content)) in ENDINGS
    except InvalidRequest as error:
        assert error.problems[0].field == "file"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd.png"), ("a\x00b\x1b[2J.png", "ab[2J.png"),
        ("=HYPERLINK(1).png", "=HYPERLINK(1).png"), ("", "file.png"), ("...", "file.png"),
        (".png", "png.png"), ("\u202egnp.exe", "gnp.exe.png"), ("a\nb.png", "a b.png"),
        ("<img src=x>.png", "<img src=x>.png"), ("x" * 500 + ".png", "x" * 116 + ".png"),
    ],
)  # fmt: skip
def test_a_name_is_for_display_alone(name, shown):
    assert cleaned(name, "image/png") == shown


@given(name=st.text(max_size=300), kind=st.sampled_from([*ENDINGS]))
def test_a_name_is_one_line_that_can_be_seen_and_no_path(name, kind):
    shown = cleaned(name, kind)
    assert shown.isprintable() and len(shown) <= 120
    assert not set(shown) & set("/\\") and not shown.startswith(".")
    assert shown.lower().endswith(ENDINGS[kind])
    assert cleaned(shown, kind) == shown


def test_only_what_is_known_has_evidence_and_no_more_than_twenty(desk, now):
    for wrong in ("r-9", "r\0"):
        with pytest.raises(UnknownAttachmentError, match="no refund"):
            attach(desk.store, wrong, "a.pdf", PDF, by="Ann", at=now())
    for wrong in ("x", "x\0"):
        with pytest.raises(UnknownAttachmentError, match="none of id"):
            read(desk.store, wrong)
    account(desk.store, "Vi", "viewer")
    with pytest.raises(ActRefusedError, match="Vi is viewer"):
        attach(desk.store, "r-1", "a.pdf", PDF, by="Vi", at=now())

    def add(number: int) -> bool:
        try:
            return bool(attach(desk.store, "r-1", f"{number}.pdf", PDF, by="Ann", at=number))
        except InvalidRequest as error:
            assert "at most 20 of a refund" in str(error)
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(add, range(23))) == 20
    assert len(attachments_of(desk.store, "r-1")) == 20


def test_who_added_it_removes_it_or_who_leads(desk, now):
    for name, role in (("Ann", "agent"), ("Al", "agent"), ("Mo", "manager")):
        account(desk.store, name, role)
    first, second = (attach(desk.store, "r-1", "a.pdf", PDF, by="Ann", at=now()) for _ in range(2))
    with pytest.raises(ActRefusedError, match="Ann attached it: expected them, or a manager"):
        remove(desk.store, first.id, by="Al", at=now())
    remove(desk.store, first.id, by="ann", at=now())
    remove(desk.store, second.id, by="Mo", at=now())
    assert attachments_of(desk.store, "r-1") == []
    with pytest.raises(UnknownAttachmentError):
        remove(desk.store, first.id, by="Ann", at=now())
    gone = desk.store.audit_about("refund:r-1")[-1]
    assert (gone.action, gone.content["attachment"]) == ("attachment_removed", second.id)


def test_content_that_was_changed_or_moved_in_the_database_is_not_shown(desk, now):
    one, other = (
        attach(desk.store, "r-1", "a", each, by="Ann", at=now()) for each in (PDF, picture())
    )
    with desk.store.write() as tx:
        tx._connection.execute(
            text("UPDATE attachments SET content = (SELECT content FROM attachments "
                 "WHERE id = :other) WHERE id = :one"), {"one": one.id, "other": other.id}
        )  # fmt: skip
    with pytest.raises(AlteredAttachmentError, match="not what was attached"):
        read(desk.store, one.id)
    assert read(desk.store, other.id)[1] == picture()


@pytest.mark.each_store
def test_evidence_is_told_of_and_erased_with_its_customer(desk, now, tmp_path):
    added = attach(desk.store, "r-1", "passport.pdf", PDF, by="Ann Lee", at=now())
    held = orjson.loads(b"".join(document_of(desk.store, CUSTOMER, actor="bob", at=now())))
    assert held["attachments"] == [
        {"refund_id": "r-1", "name": "passport.pdf", "kind": "application/pdf",
         "size_bytes": len(PDF), "added_at": added.added_at}
    ]  # fmt: skip
    assert "Ann" not in orjson.dumps(held).decode()
    assert erase(desk.store, CUSTOMER, actor="bob", at=now()).rows["attachments"] == 1
    assert attachments_of(desk.store, "r-1") == []
    entry = next(e for e in desk.store.audit_about("refund:r-1") if e.action == "attachment_added")
    assert entry.personal is None
    assert seal_and_vouch(desk.store, SECRET, tmp_path / "head") == []


@pytest.mark.each_store
def test_under_another_secret_evidence_is_what_it_was(desk, now, url):
    added = attach(desk.store, "r-1", "a.png", picture(), by="Ann", at=now())
    desk.store.close()
    new = b"another secret, as long as the first"
    assert rotate(url, SECRET, new, actor="bob", at=now()).rows["attachments"] == 1
    store = Store.open(url, new, create=False)
    assert read(store, added.id) == (added, picture())
    store.close()


@pytest.mark.parametrize("keep", [Keep(decisions=30), Keep(events=365)])
def test_evidence_goes_with_what_it_was_about(desk, now, keep):
    attach(desk.store, "r-1", "a.pdf", PDF, by="Ann", at=now())
    apply(desk.store, keep, at=NOW + 400 * DAY_MS, actor="bob", pause=lambda _: None)
    assert attachments_of(desk.store, "r-1") == []
