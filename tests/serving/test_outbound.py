"""Where webhooks may go: to whom the certificate names, and to no address within our walls."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from serving import outbound, webhooks
from serving.outbound import UrlRefused, address_of, checked_url
from serving.store.outbox import new_secret
from tests.serving.receivers import receiving


@pytest.mark.parametrize(
    "url",
    [
        "", "shop.example/hook", "//shop.example/", "file:///etc/passwd", "gopher://x/",
        "https://", "https://:443/", "https://x:0/", "https://x:99999/", "https://x/\r\nhost: y",
        "https://u@x/", "https://x/" + "y" * 2_000, "https://10.0.0.1/", "https://[::1]/",
        "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/latest/meta-data",
        "https://0.0.0.0/", "https://[fd00::1]/", "https://[64:ff9b::7f00:1]/", "http://x/",
    ],
)  # fmt: skip
def test_what_may_not_be_called_is_refused(url: str) -> None:
    with pytest.raises(UrlRefused, match="url: "):
        checked_url(url, allow_private=False)


@given(st.text(max_size=40), st.sampled_from(["", "https://", "http://", "https://x/"]))
def test_whatever_is_typed_is_a_url_or_refused(text: str, before: str) -> None:
    try:
        url = checked_url(before + text, allow_private=False)
    except UrlRefused:
        return
    assert (url.scheme, bool(url.host), url.userinfo) == ("https", True, b"")


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "localhost", "x.localhost."])
def test_another_way_to_write_a_private_address_is_found_out(host: str) -> None:
    with pytest.raises(UrlRefused, match="is not a public address"):
        checked_url(f"https://{host}/", allow_private=False)
    assert checked_url(f"https://{host}/", allow_private=True).host == host


def test_a_name_of_a_private_address_is_found_out_when_it_is_resolved() -> None:
    with pytest.raises(UrlRefused, match="which is not a public address"):
        address_of(httpx.URL("https://localhost/"), allow_private=False)


def test_a_name_with_a_private_address_beside_a_public_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(*_: object, **__: object) -> list[Any]:
        return [
            (socket.AF_INET6, 1, 6, "", ("2606:4700::1111", 443, 0, 0)),
            (socket.AF_INET, 1, 6, "", ("1.1.1.1", 443)),
            *([(socket.AF_INET, 1, 6, "", ("10.0.0.1", 443))] if is_private else []),
        ]

    monkeypatch.setattr(outbound.socket, "getaddrinfo", resolve)
    url, is_private = httpx.URL("https://shop.example/"), False
    assert address_of(url, allow_private=False) == "1.1.1.1"
    is_private = True
    with pytest.raises(UrlRefused, match=r"shop\.example is 10\.0\.0\.1"):
        address_of(url, allow_private=False)


def certificate(folder: Path, name: str) -> Path:
    """A certificate for one host name, signed by itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )  # fmt: skip
    return path


@pytest.mark.parametrize(("name", "arrives"), [("localhost", True), ("shop.example", False)])
def test_the_certificate_must_name_the_host_though_its_address_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arrives: bool
) -> None:
    file = certificate(tmp_path, name)
    monkeypatch.setattr(webhooks, "_trust", lambda: ssl.create_default_context(cafile=file))
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(file)
    with receiving(shown) as receiver:
        receiver.secret = new_secret()
        came = asyncio.run(
            webhooks.send_once(
                receiver.url.replace("http://127.0.0.1", "https://localhost"), "msg_1", "{}",
                [receiver.secret], int(datetime.now(UTC).timestamp() * 1000), allow_private=True,
            )
        )  # fmt: skip
    assert came.is_delivered is arrives
    assert bool(receiver.came) is arrives
    assert arrives or "certificate" in came.told
    if arrives:
        assert receiver.came[0][0]["host"].startswith("localhost:")
