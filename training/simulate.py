"""A synthetic online shop with customers and refund abusers, as the tables of a data folder.

A hidden world runs first (`training.world*`: people and purchases, claims and their truth, what
the shop did and learned); then its records are written down. Everything comes from one seed and
nothing from the clock: the same arguments give the same tables.
"""

from __future__ import annotations

from datetime import date
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from training.world import KINDS
from training.world_claims import MODES
from training.world_history import History
from training.world_names import words
from training.world_records import Records

END: Final = date(2026, 7, 1)
"""The first day after every simulated run: a constant, so that no byte depends on today."""


class World(NamedTuple):
    """The tables a shop would have, and the truth it would not.

    `truth["customers"]` has `customer_id, kind`; `truth["refunds"]` has `refund_id, abuse, mode`,
    where `mode` says who makes an abusive claim up and is null for an honest one.
    """

    tables: dict[str, pa.Table]
    truth: dict[str, pa.Table]


def simulate(customers: int, days: int, seed: int) -> dict[str, pa.Table]:
    """Every table of a data folder for `days` days of a shop, the last of them 2026-06-30 (UTC).

    Times are int64 epoch milliseconds, money int64 minor units, rows in order of
    (`known_at`, natural key). Raises ValueError, naming every argument that is too small.

    >>> tables = simulate(customers=300, days=90, seed=7)
    >>> tables["refund_requests"].column("refund_id").null_count
    0
    >>> tables["orders"].equals(simulate(customers=300, days=90, seed=7)["orders"])
    True
    >>> simulate(customers=0, days=90, seed=7)
    Traceback (most recent call last):
        ...
    ValueError: customers: got 0, expected at least 1
    """
    return simulate_with_truth(customers, days, seed).tables


def simulate_with_truth(customers: int, days: int, seed: int) -> World:
    """As `simulate`, with the hidden kind of each customer and whether each refund is abuse.

    >>> world = simulate_with_truth(customers=300, days=90, seed=7)
    >>> world.truth["refunds"].column_names
    ['refund_id', 'abuse', 'mode']
    """
    least = {"customers": (customers, 1), "days": (days, 1), "seed": (seed, 0)}
    wrong = [
        f"{name}: got {value}, expected at least {minimum}"
        for name, (value, minimum) in least.items()
        if value < minimum
    ]
    if wrong:
        raise ValueError("; ".join(wrong))
    history = History.draw(customers, days, END, np.random.default_rng(seed))
    records = Records(history)
    claims = history.claims
    truth = {
        "customers": pa.table(
            {"customer_id": records.customer_ids, "kind": words(KINDS, history.people.kind)}
        ),
        "refunds": pa.table(
            {
                "refund_id": records.refund_ids,
                "abuse": pa.array(claims.abuse),
                "mode": words(MODES, claims.mode),
            }
        ),
    }
    return World(records.tables(), truth)
