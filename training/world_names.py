"""Ids, IP addresses and e-mail addresses of the synthetic world."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.world import FARM, Ints, People, Places, Rng

_DIGITS = np.frombuffer(b"0123456789abcdefghjkmnpqrstvwxyz", dtype=np.uint8)
_FIRST = ("alex", "sam", "jo", "kim", "robin", "chris", "pat", "lee", "ana", "eva", "max", "mia")
_LAST = ("smith", "jones", "brown", "patel", "khan", "meyer", "dubois", "novak", "berg", "walsh")
_DOMAINS = ("example.com", "example.net", "example.org", "mail.example", "post.example")


def words(vocabulary: Sequence[str] | pa.Array, codes: Ints) -> pa.Array:
    """Strings by code; a negative code is null.

    >>> words(("a", "b"), np.array([1, -1])).to_pylist()
    ['b', None]
    """
    return pa.array(vocabulary, pa.string()).take(pa.array(codes, mask=codes < 0))


def serials(prefix: str, count: int) -> pa.Array:
    """Distinct ids that rise with their number, but for an order of their own within each 32.

    As a shop's numbers do; and a column of them in order of time is small on disk.

    >>> serials("o", 3).to_pylist()
    ['o0000', 'o000d', 'o000t']
    """
    block, place = np.divmod(np.arange(count), 32)
    value = block * 32 + (place * 13 + block * 19) % 32
    width = 4
    while 32**width < count + 32:
        width += 1
    text = np.empty((count, len(prefix) + width), dtype=np.uint8)
    text[:, : len(prefix)] = np.frombuffer(prefix.encode(), dtype=np.uint8)
    text[:, len(prefix) :] = _DIGITS[(value[:, None] >> (5 * np.arange(width - 1, -1, -1))) & 31]
    return pa.array(text.view(f"S{text.shape[1]}").ravel(), pa.binary()).cast(pa.string())


def tokens(prefix: str, count: int, rng: Rng) -> pa.Array:
    """Distinct ids that say nothing about their order."""
    return serials(prefix, count).take(pa.array(rng.permutation(count)))


def named(prefix: str, ordered: Ints, asked: Ints, rng: Rng) -> tuple[pa.Array, pa.Array]:
    """Ids of the things behind two columns of codes; the same code has the same id in both."""
    codes, place = np.unique(np.concatenate([ordered, asked]), return_inverse=True)
    place = np.where(codes[place] < 0, -1, place)
    ids = tokens(prefix, len(codes), rng)
    return words(ids, place[: len(ordered)]), words(ids, place[len(ordered) :])


def ips(ordered: Places, asked: Places, rng: Rng) -> tuple[pa.Array, pa.Array]:
    """Private IPv4 addresses; one network in four is a documentation IPv6 /64 instead."""
    codes = np.concatenate([ordered.ip, asked.ip])
    host = np.concatenate([ordered.ip_host, asked.ip_host])
    distinct, place = np.unique(codes, return_inverse=True)
    network = rng.permutation(max(len(distinct), 2**16))[place]
    byte = pa.array([str(value) for value in range(256)])
    parts = [byte.take(pa.array((network >> shift) & 255)) for shift in (16, 8, 0)]
    v4 = pc.binary_join_element_wise("10", *parts, ".")
    word = pa.array([f"{value:x}" for value in range(2**16)])
    high, low, end = (word.take(pa.array(v)) for v in (network >> 16, network & 0xFFFF, host + 1))
    v6 = pc.binary_join_element_wise("2001:db8", high, low, "1:", end, ":")
    address = pc.if_else(pa.array(network % 4 == 0), v6, v4)
    address = pc.if_else(pa.array(codes >= 0), address, pa.scalar(None, pa.string()))
    return address.slice(0, len(ordered.ip)), address.slice(len(ordered.ip))


def emails(people: People, rng: Rng) -> pa.Array:
    """One address a customer; the accounts of a farm are often variants of one mailbox."""
    number = np.arange(len(people.kind))
    first, last = (rng.integers(0, len(names), len(number)) for names in (_FIRST, _LAST))
    owner = np.where((people.kind == FARM) & (people.ring % 2 == 0), people.ring, number)
    suffix = pa.array(owner).cast(pa.string())
    tag = pc.binary_join_element_wise("+", pa.array(number - owner).cast(pa.string()), "")
    tag = pc.if_else(pa.array(owner != number), tag, "")
    user = [words(_FIRST, first[owner]), ".", words(_LAST, last[owner]), suffix, tag, "@"]
    return pc.binary_join_element_wise(*user, words(_DOMAINS, first[owner] % len(_DOMAINS)), "")
