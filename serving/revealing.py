"""Original identifiers, shown to whoever may see them: that they are is audited before.

Every page shows pseudonyms. What stands behind some of them is shown once, for a reason that is
kept with who asked, where erasing the customer takes it away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from serving.store.holdings import Person
from serving.store.store import Store
from serving.wire import InvalidRequest, Problem, shown

LEAST_CHARACTERS: Final = 10
MOST_CHARACTERS: Final = 300


def reason_of(text: str) -> str:
    """Why originals are wanted, as it is kept; raises `InvalidRequest` for what says nothing."""
    why = text.strip()
    is_seen = why.isprintable() and any(one.isalpha() for one in why)
    if not is_seen or not LEAST_CHARACTERS <= len(why) <= MOST_CHARACTERS:
        told = (f"must be {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters that can be read, "
                "letters among them")  # fmt: skip
        raise InvalidRequest([Problem("reason", told, shown(text))])
    return why


def reveal(
    store: Store, persons: Iterable[Person], reason: str, *, about: Person, actor: str, at: int,
    via: str | None = None,
) -> dict[Person, str]:  # fmt: skip
    """The originals of pseudonyms (kind, pseudonym); what was erased is left out.

    ``about`` is whose page they are shown on, ``actor``, ``at`` (epoch ms) and ``via`` as in
    `serving.listing.put`. Raises `InvalidRequest` for a reason that is none, before anything is
    shown or audited.
    """
    why = reason_of(reason)
    wanted = sorted(set(persons))
    count = Counter(kind for kind, _ in wanted)
    with store.write() as tx:
        tx.audit(via or actor, "identifiers_revealed", "customer",
                 {"identifiers": len(wanted), "kinds": dict(count)}, at=at,
                 personal={"by": actor, "reason": why, about[0]: about[1]})  # fmt: skip
    return {
        (kind, value): original
        for kind in count
        for value, original in store.reveal(
            kind, [value for of, value in wanted if of == kind]
        ).items()
    }
