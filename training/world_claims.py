"""The hidden world's refund requests: what customers ask back, why, and whether it is true.

The truth of a claim (`Claims.abuse`) is settled here, when it is made. Times are float64 days since
the start of the run, as in `training.world`; NaN: never.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.world import (
    FARM,
    HIJACKED,
    KINDS,
    Bools,
    Calendar,
    Floats,
    Ints,
    Lines,
    Orders,
    Parcels,
    People,
    Rng,
    pick,
    pick_by,
    take,
)

REASONS = (
    "CHANGED_MIND",
    "NOT_AS_DESCRIBED",
    "CUSTOMER_INCORRECT_ITEM",
    "ITEM_NOT_RECEIVED",
    "LATE_DELIVERY",
    "ITEM_DAMAGED",
    "MISSING_ITEM",
    "WRONG_ITEM_SENT",
    "EMPTY_BOX",
    "OTHER",
)
MIND, NOT_AS, MISTAKEN, NOT_RECEIVED, LATE, DAMAGED, MISSING, WRONG, EMPTY, OTHER = range(10)
TYPES = ("REFUND", "RETURN", "STORE_CREDIT", "GOODWILL", "INSTANT", "REPLACEMENT")
ISSUED_TO = ("ORIGINAL_PAYMENT_METHOD", "GIFT_CARD", "STORE_CREDIT", "BANK_TRANSFER")
INITIATED_BY = ("CUSTOMER", "AGENT", "MERCHANT")
POLICIES = ("TERMS_AND_CONDITIONS", "GOODWILL", "STATUTORY")
RETURN_WINDOW_DAYS = 30

# A claim's mode says who makes it up: a kind of customer, or an otherwise honest one, once.
OPPORTUNIST = len(KINDS)
MODES = (*KINDS, "opportunist")

# How likely each false claim is to say what: a row a mode (honest kinds make none up), a column
# a reason.
_NO_PRETEXT = (0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
_PRETEXTS_FIRST = (
    *(_NO_PRETEXT,) * 3,
    (0, 0.03, 0, 0.74, 0.06, 0.05, 0.10, 0, 0.02, 0),
    (0.60, 0.22, 0.16, 0, 0, 0, 0, 0, 0, 0.02),
    (0.42, 0.24, 0.10, 0, 0, 0.10, 0, 0.12, 0, 0.02),
    (0.42, 0.20, 0.08, 0.14, 0, 0.10, 0.04, 0, 0, 0.02),
    (0.06, 0.08, 0, 0.42, 0.04, 0.20, 0.14, 0.04, 0, 0.02),
    (0.10, 0.10, 0, 0.48, 0.08, 0.06, 0.10, 0.03, 0, 0.05),
    (0.10, 0.15, 0, 0.30, 0.10, 0.15, 0.15, 0.03, 0, 0.02),
)
# The tactic changes mid-run: once non-delivery is checked against the carrier's scans, its
# claimers and the farms move to missing items and damage, swappers to boxes that came empty.
_PRETEXTS_LATER = (
    *(_NO_PRETEXT,) * 3,
    (0.02, 0.12, 0, 0.26, 0.04, 0.22, 0.26, 0.03, 0.05, 0),
    _PRETEXTS_FIRST[4],
    (0.20, 0.16, 0.06, 0, 0, 0.12, 0, 0.12, 0.32, 0.02),
    _PRETEXTS_FIRST[6],
    (0.08, 0.16, 0, 0.16, 0.04, 0.28, 0.22, 0.04, 0, 0.02),
    *_PRETEXTS_FIRST[8:],
)
_SECOND_THOUGHTS = (0.62, 0.17, 0.17, 0, 0, 0, 0, 0, 0, 0.04)
# By reason, how often the goods are to come back.
_SENT_BACK = np.array([1, 0.95, 1, 0, 0.2, 0.45, 0, 0.7, 0.1, 0.6])


@dataclass(frozen=True)
class Stories:
    """What each order would be claimed for, one a row: `reason` is -1 where nothing is wrong."""

    reason: Ints
    time: Floats
    mode: Ints  # -1 for an honest claim
    some_lines: Bools  # about some lines only


@dataclass(frozen=True)
class Claims:
    """Refund requests, one a row, in order of time."""

    order: Ints
    batch: Ints  # 1 or 2: the first or second request for lines of the order
    time: Floats
    reason: Ints
    mode: Ints
    abuse: Bools  # the truth
    returns: Bools  # the goods are to come back


def draw_claims(
    people: People, orders: Orders, lines: Lines, parcels: Parcels, calendar: Calendar, rng: Rng
) -> tuple[Claims, Ints]:
    """Every refund request of the run, and for each line the batch it is asked in (0: none).

    At most one story is told about an order: a false one if it was made to be abused, else the
    first fault that befell it, else what will not be kept, which may go back in two parts.
    """
    n = len(orders.time)
    kept_days = 0.5 + rng.gamma(2.0, 4.2, n)
    kept_at = parcels.delivered + np.minimum(kept_days, RETURN_WINDOW_DAYS + 2 * rng.random(n))
    tales = _merged(_faults(parcels, rng), _lies(people, orders, parcels, calendar, kept_at, rng))
    batch = _batches(lines, tales, ~np.isnan(parcels.delivered), rng)

    parts = [np.unique(lines.order[batch == number]) for number in (1, 2)]
    order = np.concatenate(parts)
    mind = pick(_SECOND_THOUGHTS, len(order), rng)
    told = tales.reason[order] >= 0
    reason = np.where(told, tales.reason[order], mind)
    time = np.where(told, tales.time[order], kept_at[order])
    time[len(parts[0]) :] += rng.gamma(2, 2.0, len(parts[1]))
    claims = Claims(
        order=order,
        batch=np.repeat([1, 2], [len(part) for part in parts]),
        time=time,
        reason=reason,
        mode=tales.mode[order],
        abuse=tales.mode[order] >= 0,
        returns=rng.random(len(order)) < _SENT_BACK[reason],
    )
    by_time = np.argsort(time, kind="stable")
    return take(claims, by_time[time[by_time] < calendar.days]), batch


def _faults(parcels: Parcels, rng: Rng) -> Stories:
    """What honestly went wrong, as the customer tells it; not everyone complains."""
    n = len(parcels.shipped)
    speaks, tells, early = rng.random((3, n))
    wait = rng.exponential(1, (2, n))
    arrived = ~np.isnan(parcels.delivered)
    due = parcels.shipped + 6.5
    late = arrived & (parcels.delivered > due)
    reason = np.select(
        [
            parcels.lost & (speaks < 0.93),
            parcels.stolen & (speaks < 0.9),
            late & (speaks < 0.3),
            parcels.damaged & arrived & (speaks < 0.85),
            parcels.short & arrived & (speaks < 0.9),
            parcels.wrong & arrived & (speaks < 0.85),
        ],
        [
            np.where(tells < 0.92, NOT_RECEIVED, LATE),
            np.where(tells < 0.93, NOT_RECEIVED, MISSING),
            np.where(tells < 0.55, NOT_RECEIVED, LATE),
            np.where(tells < 0.85, DAMAGED, NOT_AS),
            np.where(tells < 0.93, MISSING, EMPTY),
            np.where(tells < 0.90, WRONG, OTHER),
        ],
        default=-1,
    )
    noticed = parcels.delivered + 0.3 + 2.0 * wait[1]
    impatient = due + early * np.maximum(parcels.delivered - due, 0)
    time = np.where(late & ~parcels.stolen, impatient, noticed)
    return Stories(
        reason=reason,
        time=np.where(parcels.lost, due + 3 * wait[0], time),
        mode=np.full(n, -1),
        some_lines=np.isin(reason, [DAMAGED, MISSING, WRONG]),
    )


def _lies(
    people: People, orders: Orders, parcels: Parcels, calendar: Calendar, kept_at: Floats, rng: Rng
) -> Stories:
    """What is made up about parcels that came as they should."""
    n, customer = len(orders.time), orders.customer
    tempted = rng.random(n) < people.temptation[customer]
    lies = (orders.intent | (tempted & (orders.thief < 0))) & ~np.isnan(parcels.delivered)
    mode = np.where(orders.intent, people.kind[customer], OPPORTUNIST)
    # Word of a new check gets around within some weeks.
    changed = orders.time + 40 * rng.random(n) > 0.52 * calendar.days
    first, later = (pick_by(mode, table, rng) for table in (_PRETEXTS_FIRST, _PRETEXTS_LATER))
    pretext = np.where(changed, later, first)
    # A false claim is as prompt as a true one, except that what is to be worn is worn first.
    pace = rng.random(n)
    prompt_at = parcels.delivered + 0.3 + (1.5 + 4 * pace) * rng.exponential(1, n)
    time = np.where(pretext <= MISTAKEN, kept_at, prompt_at)
    worn = mode == KINDS.index("wardrober")
    share = np.where(pretext <= MISTAKEN, 0.6, np.where(changed, 0.5, 0.25))
    return Stories(
        reason=np.where(lies, pretext, -1),
        time=np.where(worn, parcels.delivered + 5 + 22 * pace, time),
        mode=np.where(lies, mode, -1),
        some_lines=rng.random(n) < share,
    )


def _merged(faults: Stories, lies: Stories) -> Stories:
    lying = lies.reason >= 0
    return Stories(
        reason=np.where(lying, lies.reason, faults.reason),
        time=np.where(lying, lies.time, faults.time),
        mode=lies.mode,
        some_lines=np.where(lying, lies.some_lines, faults.some_lines),
    )


def _batches(lines: Lines, stories: Stories, arrived: Bools, rng: Rng) -> Ints:
    """For each line, the request it is asked back in: 1, 2, or 0 for none."""
    told = stories.reason[lines.order] >= 0
    named = ~stories.some_lines[lines.order] | (lines.number == 1)
    named |= rng.random(len(told)) < 0.3
    asked = np.where(told, named, lines.unwanted & arrived[lines.order])
    second = ~told & (lines.number > 1) & (rng.random(len(told)) < 0.12)
    return np.where(asked, 1 + second, 0)


def fill_forms(claims: Claims, people: People, customer: Ints, rng: Rng) -> dict[str, Ints]:
    """The smaller choices of a request, as codes: type, issued_to, initiated_by, policy."""
    odd = np.where(claims.mode == HIJACKED, 2, np.where(people.kind[customer] == FARM, 1, 0))
    stays = [[0.62, 0, 0.06, 0.12, 0.10, 0.10], [0.62, 0, 0.05, 0.11, 0.16, 0.06]]
    comes = [0, 0.86, 0.06, 0, 0.05, 0.03]
    kind = pick_by(np.where(claims.returns, 2, np.minimum(odd, 1)), [*stays, comes], rng)
    issued = [[0.90, 0.04, 0.04, 0.02], [0.84, 0.09, 0.02, 0.05], [0.55, 0.28, 0.03, 0.14]]
    issued_to = pick_by(odd, issued, rng)
    faulty = np.isin(claims.reason, [DAMAGED, NOT_AS])
    policy = np.where(faulty & (rng.random(len(kind)) < 0.35), POLICIES.index("STATUTORY"), 0)
    return {
        "type": kind,
        "issued_to": np.where(kind == TYPES.index("STORE_CREDIT"), 2, issued_to),
        "initiated_by": pick((0.92, 0.07, 0.01), len(kind), rng),
        "policy": np.where(kind == TYPES.index("GOODWILL"), POLICIES.index("GOODWILL"), policy),
    }
