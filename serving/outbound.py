"""Where the service may call out to: a URL that somebody typed must not reach what only we can.

The address is checked after the name is resolved, and the call goes to the address that was
checked, so a name that changes its mind in between reaches nothing else.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final

import httpx

MOST_CHARACTERS: Final = 2_000

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_HOLD_ANOTHER: Final = (_NAT64, ipaddress.IPv6Network("::/96"))
"""Whose last four bytes are an IPv4 address; the second is how it was written long ago."""

_LOCAL: Final = (ipaddress.IPv6Network("64:ff9b:1::/48"), ipaddress.IPv6Network("fec0::/10"))
"""A translator's and a site's own, which Python 3.11 takes for the internet's (RFC 8215, 3879)."""

_NUMBER: Final = re.compile(r"\d+|0x[\da-f]*")
"""What resolvers read as (the end of) an IPv4 address: 127.1, 2130706433, 0x7f000001."""


class UrlRefused(ValueError):  # noqa: N818 - it is what happened
    """A URL that is not called; the message says why and what would be right."""


def checked_url(text: str, *, allow_private: bool) -> httpx.URL:
    """A URL as it may be called, as far as can be told without resolving its name.

    Raises UrlRefused.

    >>> checked_url("https://shop.example/hook", allow_private=False).host
    'shop.example'
    >>> for text in ("ftp://x", "http://shop.example/", "https://u:p@x/", "https://127.0.0.1/",
    ...              "https://2130706433/"):
    ...     try: checked_url(text, allow_private=False)
    ...     except UrlRefused as error: print(error)
    ... # doctest: +NORMALIZE_WHITESPACE
    url: expected https://…, got ftp://
    url: expected https://…, got http:// (RECOURSE_WEBHOOK_ALLOW_PRIVATE allows it)
    url: expected no user and password in it; webhooks are signed
    url: 127.0.0.1 is not a public address (RECOURSE_WEBHOOK_ALLOW_PRIVATE allows it)
    url: 2130706433 is not a public address, expected a name or four decimal numbers
        (RECOURSE_WEBHOOK_ALLOW_PRIVATE allows it)
    """
    try:
        url = httpx.URL(text)
        port = url.port
    except (httpx.InvalidURL, ValueError) as error:
        raise UrlRefused(f"url: {error}") from error
    if len(text) > MOST_CHARACTERS or any(not one.isprintable() or one.isspace() for one in text):
        raise UrlRefused(f"url: expected at most {MOST_CHARACTERS} characters that can be seen")
    if url.scheme not in ("http", "https") or (url.scheme == "http" and not allow_private):
        hint = " (RECOURSE_WEBHOOK_ALLOW_PRIVATE allows it)" if url.scheme == "http" else ""
        raise UrlRefused(f"url: expected https://…, got {url.scheme}://{hint}")
    if url.userinfo:
        raise UrlRefused("url: expected no user and password in it; webhooks are signed")
    if not url.host or (port is not None and not 1 <= port <= 65_535):
        raise UrlRefused("url: expected a host and, if any, a port of 1 to 65535")
    if not allow_private:
        _refuse_private(url.host)
    return url


def _refuse_private(host: str) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name: it is resolved when it is called, but for what is no name
        last = host.rstrip(".").rpartition(".")[2].lower()
        if last == "localhost" or _NUMBER.fullmatch(last):
            raise UrlRefused(
                f"url: {host} is not a public address, expected a name or four decimal numbers "
                "(RECOURSE_WEBHOOK_ALLOW_PRIVATE allows it)"
            ) from None
        return
    if not is_public(address):
        raise UrlRefused(
            f"url: {address} is not a public address (RECOURSE_WEBHOOK_ALLOW_PRIVATE allows it)"
        )


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the internet's, also the one within it where it holds another.

    >>> [is_public(ipaddress.ip_address(one)) for one in (
    ...     "1.1.1.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
    ...     "2002:a00:1::", "fe80::1%eth0", "224.0.0.1", "0.0.0.0", "100.64.0.1", "::127.0.0.1",
    ...     "64:ff9b:1::a00:1", "fec0::1", "2606:4700::1111")].count(True)
    2
    """
    if isinstance(address, ipaddress.IPv6Address):
        within = address.ipv4_mapped or address.sixtofour
        if any(address in network for network in _HOLD_ANOTHER):
            within = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if within is not None:
            return is_public(within)
        if any(address in network for network in _LOCAL):
            return False
        if address.teredo is not None or address.scope_id is not None:
            return False
    return address.is_global and not address.is_multicast


def address_of(url: httpx.URL, *, allow_private: bool) -> str:
    """The address to call for a URL; raises UrlRefused if it, or any beside it, is not public.

    Raises OSError for a name that cannot be resolved, which may take the system a minute to say.
    """
    port = url.port or (443 if url.scheme == "https" else 80)
    found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    # The older kind first: it is the one that a host with both can nearly always be reached by.
    addresses = [str(place[4][0]) for place in sorted(found, key=lambda place: place[0])]
    if not allow_private:
        for one in addresses:
            if not is_public(ipaddress.ip_address(one)):
                raise UrlRefused(f"url: {url.host} is {one}, which is not a public address")
    return addresses[0]
