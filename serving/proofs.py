"""What one proves with that an account is one's own: a password, and one-time codes (RFC 6238)."""

from __future__ import annotations

import hmac
import secrets
import unicodedata
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from threading import BoundedSemaphore
from typing import Final

import pyotp
from argon2 import PasswordHasher, profiles
from argon2.exceptions import InvalidHashError, VerificationError

from serving.persons import compared

PASSWORD_CHARACTERS: Final = (12, 128)
_FEWEST_DIFFERENT: Final = 5
_MOST_ALIKE: Final = 0.7
"""A larger share of characters that are as far from the one before makes a row: 1234, aaaa."""

STEP_MS: Final = 30_000
"""How long one code is shown, and so how far a clock may be off."""

HASHER = PasswordHasher.from_parameters(profiles.RFC_9106_LOW_MEMORY)
"""Makes and checks hashes of passwords: 64 MiB and three passes."""
_AT_ONCE: Final = BoundedSemaphore(2)
"""So many passwords are checked at a time, whoever asks: each takes its memory."""
_DECOY_BYTES: Final = 32


def is_password(hashed: str | None, password: str) -> bool:
    """Whether a password is the one of a hash; where there is none, no less is done."""
    decoy = _decoy(HASHER)
    with _AT_ONCE:
        try:
            is_right = HASHER.verify(hashed or decoy, normal(password))
        except (VerificationError, InvalidHashError):
            return False
    return is_right and hashed is not None


def renewed(hashed: str | None, password: str) -> str | None:
    """A new hash of a password, where the one there is was made with other parameters."""
    return hashed_password(password) if hashed and HASHER.check_needs_rehash(hashed) else None


def hashed_password(password: str) -> str:
    """The argon2id hash of a password, with its salt and parameters."""
    with _AT_ONCE:
        return HASHER.hash(normal(password))


@lru_cache(maxsize=4)
def _decoy(hasher: PasswordHasher) -> str:
    return hasher.hash(secrets.token_bytes(_DECOY_BYTES))


def normal(password: str) -> bytes:
    r"""A password in its one spelling (NFKC): one keyboard gives "é" as one character, another two.

    >>> normal("caf\u00e9") == normal("cafe\u0301")
    True
    """
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")


def step_of(secret: str | None, code: str, at: int) -> int | None:
    """The step of time that a code belongs to: the present one, the one before or after.

    >>> secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    >>> step_of(secret, "287 082", at=59_000), step_of(secret, "287082", at=120_000)
    (1, None)
    """
    given = "".join(unicodedata.normalize("NFKC", code[:40]).split()).encode("utf-8", "replace")
    totp, found = pyotp.TOTP(secret or pyotp.random_base32()), None
    for step in (now := at // STEP_MS) + 1, now - 1, now:
        if hmac.compare_digest(totp.generate_otp(max(step, 0)).encode(), given):
            found = step
    return found if secret is not None else None


def password_problem(password: str, name: str) -> str | None:
    """What is wrong with a password that somebody of this name chooses; None if nothing is.

    >>> password_problem("correct horse battery staple", "Ann")
    >>> password_problem("short", "Ann")
    'must have 12 to 128 characters, got 5'
    >>> password_problem("ababababababab", "Ann")
    'must not be one short piece again and again, nor a row of neighbours'
    """
    text = normal(password).decode("utf-8", "surrogatepass")
    least, most = PASSWORD_CHARACTERS
    if not least <= len(text) <= most:
        return f"must have {least} to {most} characters, got {len(text):,}"
    bare, own = ("".join(filter(str.isalnum, compared(each))) for each in (text, name))
    if own and own in bare and len(bare) - len(own) < least // 2:
        return "must not be one's own name, nor little more than that"
    is_repeated = (text + text).find(text, 1) < len(text)
    ((_, alike),) = Counter(ord(b) - ord(a) for a, b in pairwise(text)).most_common(1)
    is_row = alike > _MOST_ALIKE * len(text)
    if is_repeated or is_row or len(set(text.casefold())) < _FEWEST_DIFFERENT:
        return "must not be one short piece again and again, nor a row of neighbours"
    return None
