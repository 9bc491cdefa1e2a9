"""What the synthetic shop did about each claim, and what it came to know of it later.

Declines, chargebacks, analysts and investigators see the truth of a claim only through evidence
that can be missing or wrong, and late. Times are float64 days since the start of the run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from training.world import (
    KINDS,
    Bools,
    Calendar,
    Floats,
    Ints,
    Orders,
    People,
    Rng,
    flattened,
    take,
)
from training.world_claims import Claims

DECLINE_REASONS = ("RISK", "POLICY", "MERCHANT")
RISK, POLICY, MERCHANT = range(3)
SOURCES = ("ANALYST", "CHARGEBACK", "INVESTIGATION")
ANALYST, CHARGEBACK, INVESTIGATION = range(3)
LABELS = ("NOT_REFUND_ABUSE", "REFUND_ABUSE", "UNREVIEWED")
STAGES = (
    "EARLY_FRAUD_WARNING",
    "REQUEST_FOR_INFORMATION",
    "NOTIFICATION_OF_CHARGEBACK",
    "CHARGEBACK",
    "CHARGEBACK_REVERSED",
    "SECOND_CHARGEBACK",
    "PREARBITRATION",
    "ARBITRATION",
)
WARNING, QUESTION, NOTIFIED, CHARGED, REVERSED, SECOND, PREARBITRATION, ARBITRATION = range(8)
OUTCOMES = ("ACCEPTED", "WON", "EXPIRED", "LOST")
ACCEPTED, WON, EXPIRED, LOST = range(4)
ANALYSTS = 9
CHARGEBACK_DESK, INVESTIGATORS = ANALYSTS, ANALYSTS + 1
REVIEWERS = (
    *(f"analyst-{number + 1:02d}" for number in range(ANALYSTS)),
    "chargeback-desk",
    "investigations",
)
LOOK_BACK_DAYS = 40  # how far back a closed investigation judges a customer's claims
RULE_CLAIMS, RULE_DAYS = 3, 90  # the past policy's idea of too many

# By mode (training.world_claims.MODES): how often there is evidence when the claim is made (scans,
# photographs), how often a parcel sent back is found wanting, how often an investigation opens.
_EVIDENCE = np.array([0, 0, 0, 0.55, 0.30, 0.24, 0.18, 0.44, 0.30, 0.30])
_FOUND_WANTING = np.array([0, 0, 0, 0.20, 0.42, 0.62, 0.20, 0.20, 0.20, 0.10])
_INVESTIGATED = np.array([0, 0, 0, 0.15, 0.10, 0.13, 0.09, 0.13, 0.10, 0])


@dataclass(frozen=True)
class Verdicts:
    """Closed investigations, in order of (whom, when): a customer or a farm as a whole."""

    ring: Ints
    time: Floats


def investigate(
    people: People, orders: Orders, claims: Claims, rng: Rng
) -> tuple[Verdicts, Floats]:
    """Investigations that some abusive claims start, and the day each customer is banned."""
    opened = np.flatnonzero(
        claims.abuse & (rng.random(len(claims.time)) < _INVESTIGATED[claims.mode])
    )
    ring = people.ring[orders.customer[claims.order[opened]]]
    start = claims.time[opened]
    closed = start + 2 + rng.gamma(2.2, 7.5, len(opened))
    banned = np.full(len(people.kind), np.inf)
    final = rng.random(len(opened)) < 0.45
    np.minimum.at(banned, ring[final], closed[final])
    verdicts = take(Verdicts(ring, closed), start <= banned[ring])
    return take(verdicts, np.lexsort((verdicts.time, verdicts.ring))), banned[people.ring]


@dataclass(frozen=True)
class Returns:
    """The way back of each claim's goods, one a row. NaN: it never happened."""

    sent: Bools
    scanned: Floats
    received: Floats
    lost: Bools
    inspected: Floats
    rejected: Bools

    @classmethod
    def draw(cls, claims: Claims, stopped: Bools, rng: Rng) -> Returns:
        """Most is sent back and is as it should be; what was `stopped` never sets out."""
        n = len(claims.time)
        wait = rng.gamma(2, 1, (3, n))
        sent = claims.returns & (rng.random(n) > 0.035) & ~stopped
        lost = sent & (rng.random(n) < 0.008)
        scanned = np.where(sent, claims.time + 0.4 + 1.6 * wait[0], np.nan)
        received = np.where(lost, np.nan, scanned + 0.8 + 1.2 * wait[1])
        inspected = received + 0.2 + 0.5 * wait[2]
        wanting = rng.random(n) < np.where(claims.abuse, _FOUND_WANTING[claims.mode], 0.012)
        return cls(sent, scanned, received, lost, inspected, wanting & ~np.isnan(inspected))


@dataclass(frozen=True)
class Reviews:
    """What an analyst said of each claim, one a row; `time` is NaN where none looked."""

    time: Floats
    abuse: Bools
    analyst: Ints
    on_request: Bools  # before the money moved, not after an inspection


@dataclass(frozen=True)
class Handling:
    """How each claim ended under the past policy, one a row."""

    returns: Returns
    reviews: Reviews
    ruled_out: Bools  # declined by a rule, mostly unseen by anyone
    decline: Ints  # index into DECLINE_REASONS, -1 if not declined
    withdrawn: Bools
    paid: Bools
    closed: Floats


def handle(
    people: People, orders: Orders, claims: Claims, amount_gbp: Floats, rng: Rng
) -> Handling:
    """Rules first, then analysts for some, then the parcel, then the money.

    The past policy is crude: too many claims without goods in 90 days, or a dear one from a new
    account. It hits honest customers too, and whom it declines is seldom looked at again.
    """
    n = len(claims.time)
    customer = orders.customer[claims.order]
    empty_handed = ~claims.returns
    recent = np.zeros(n, dtype=np.int64)
    recent[empty_handed] = _earlier(customer[empty_handed], claims.time[empty_handed], RULE_DAYS)
    new = claims.time - people.registered[customer] < 21
    flagged = empty_handed & ((recent >= RULE_CLAIMS) | (new & (amount_gbp > 120)))
    ruled_out = flagged & (rng.random(n) < 0.4)
    returns = Returns.draw(claims, ruled_out, rng)
    reviews = _review(people.appetite[customer], claims, returns, flagged, ruled_out, rng)

    u, wait = rng.random((4, n)), rng.gamma(2, 1, n)
    risky = reviews.abuse & reviews.on_request & (u[0] < 0.55)
    unsent = claims.returns & ~returns.sent
    refused = (returns.rejected & (u[0] < 0.6)) | (unsent & (u[0] < 0.7))
    decline = np.select(
        [ruled_out, risky, refused], [np.where(u[1] < 0.5, RISK, POLICY), RISK, MERCHANT], -1
    )
    # Some shops pay at the first scan of the return, most when it has been looked at.
    looked_at = np.where(np.isnan(returns.inspected), claims.time + 20, returns.inspected)
    on_return = np.where((u[2] < 0.3) & returns.sent & ~refused, returns.scanned, looked_at)
    closed = np.select(
        [ruled_out, risky, refused, claims.returns],
        [claims.time + 0.003 + 0.01 * u[3], reviews.time + 0.01, looked_at + 0.1, on_return],
        claims.time + 0.1 + 0.8 * wait,
    )
    withdrawn = (decline < 0) & (unsent | (u[1] > 0.992))
    return Handling(
        returns=returns,
        reviews=reviews,
        ruled_out=ruled_out,
        decline=decline,
        withdrawn=withdrawn,
        paid=(decline < 0) & ~withdrawn,
        closed=closed,
    )


def _review(
    appetite: Floats, claims: Claims, returns: Returns, flagged: Bools, ruled_out: Bools, rng: Rng
) -> Reviews:
    """Analysts see what evidence points to, some of what was flagged, bad returns, a random few.

    Each has a threshold of their own, and frequent returners annoy them all.
    """
    n = len(claims.time)
    u, wait = rng.random((5, n)), rng.gamma(2, 1, n)
    pointed = u[0] < np.where(claims.abuse, _EVIDENCE[claims.mode], 0.003)
    seen = pointed | (flagged & (u[1] < 0.5)) | (u[1] > 0.978)
    seen &= ~ruled_out | (u[2] < 0.12)
    after = returns.rejected & (u[3] < 0.85) & ~seen
    time = np.where(seen, claims.time + 0.15 + 1.4 * wait, np.nan)
    analyst = rng.integers(0, ANALYSTS, n)
    sharp, harsh = rng.uniform(0.68, 0.93, ANALYSTS), rng.uniform(0.01, 0.05, ANALYSTS)
    suspects = harsh[analyst] * np.where(appetite > 1.8, 2.2, 1.0)
    detects = sharp[analyst] * np.where(pointed, 1, 0.75)
    guess = np.where(claims.abuse, detects, suspects)
    guess = np.where(returns.rejected, np.where(claims.abuse, 0.92, 0.2), guess)
    return Reviews(
        time=np.where(after, returns.inspected + 0.2 + 1.2 * wait, time),
        abuse=(u[4] < guess) & (seen | after),
        analyst=analyst,
        on_request=seen,
    )


def _earlier(who: Ints, time: Floats, days: float) -> Ints:
    """How many rows of the same customer came in the `days` before each row."""
    span = 4 * (float(time.max(initial=0)) + days + 1)
    place = who * span + time
    order = np.sort(place)
    return np.searchsorted(order, place, "left") - np.searchsorted(order, place - days, "left")


@dataclass(frozen=True)
class Disputes:
    """Chargebacks, one a row, in order of time."""

    order: Ints
    claim: Ints  # the order's first claim, -1 if no refund was ever asked for it
    time: Floats  # of the notification
    abuse: Bools  # whether it was a customer or a thief who cheated


def dispute(
    orders: Orders, claims: Claims, handling: Handling, calendar: Calendar, rng: Rng
) -> Disputes:
    """Double dips, owners of stolen accounts, ordinary card fraud, and the wronged.

    A declined honest customer may go to the bank as well: that chargeback is no abuse.
    """
    n, m = len(claims.time), len(orders.time)
    chance = rng.random(n)
    dips = (claims.mode == KINDS.index("double_dipper")) & handling.paid & (chance < 0.72)
    declined = handling.decline >= 0
    claim = np.flatnonzero(dips | (declined & (chance < np.where(claims.abuse, 0.05, 0.10))))
    pace = np.where(dips[claim], 7.5, 10) * rng.gamma(2.4, 1, len(claim))
    fraud = (orders.thief >= 0) & (rng.random(m) < 0.8) | (rng.random(m) < 0.0008)
    order = np.setdiff1d(np.flatnonzero(fraud), claims.order[claim])
    found_out = orders.time[order] + 3 + 8.5 * rng.gamma(2.2, 1, len(order))
    first_claim = np.full(m, -1)
    first_claim[claims.order[::-1]] = np.arange(n)[::-1]
    disputes = Disputes(
        order=np.concatenate([claims.order[claim], order]),
        claim=np.concatenate([claim, first_claim[order]]),
        time=np.concatenate([handling.closed[claim] + 1 + pace, found_out]),
        abuse=np.concatenate([claims.abuse[claim], orders.thief[order] >= 0]),
    )
    by_time = np.argsort(disputes.time, kind="stable")
    return take(disputes, by_time[disputes.time[by_time] < calendar.days])


def dispute_stages(start: Floats, rng: Rng) -> tuple[Ints, Ints, Ints, Floats]:
    """(dispute, stage, outcome, time) of every step of disputes notified at `start`."""
    n = len(start)
    u, wait = rng.random((5, n)), rng.exponential(1, (4, n))

    def when(happens: Bools, moment: Floats) -> Floats:
        return np.where(happens, moment, np.nan)

    everyone, notified = np.ones(n, dtype=np.bool_), u[4] < 0.6
    won = u[0] < 0.25
    again = won & (u[1] < 0.2)
    outcome = np.select([won, u[0] < 0.6, u[0] < 0.9], [WON, ACCEPTED, LOST], EXPIRED)
    ends = start + 20 + 12 * wait[0]
    appeal = ends + 10 + 9 * wait[1]
    steps: list[tuple[int, Ints | int, Floats]] = [
        (WARNING, -1, when(u[3] < 0.35, start - 0.5 - 4 * u[2])),
        (QUESTION, -1, when(u[3] > 0.92, start - 0.5 - 3 * u[2])),
        (NOTIFIED, -1, when(notified, start)),
        (CHARGED, -1, when(everyone, start + np.where(notified, 2 + 3 * wait[3], 0))),
        (REVERSED, outcome, when(won, ends)),
        (CHARGED, outcome, when(~won, ends)),
        (SECOND, -1, when(again, appeal)),
        (PREARBITRATION, -1, when(again & (u[2] < 0.5), appeal + 9)),
        (ARBITRATION, LOST, when(again & (u[2] < 0.25), appeal + 40 + 9 * wait[2])),
    ]
    step, row, moment = flattened(*(step[2] for step in steps))
    outcomes = np.array([np.broadcast_to(step[1], n) for step in steps])
    return row, np.array([step[0] for step in steps])[step], outcomes[step, row], moment


@dataclass(frozen=True)
class Labels:
    """Labels, one a row. `claim` is -1 where the label is of the customer."""

    claim: Ints
    customer: Ints
    time: Floats
    label: Ints
    source: Ints
    reviewer: Ints


def label(
    people: People,
    orders: Orders,
    claims: Claims,
    handling: Handling,
    disputes: Disputes,
    verdicts: Verdicts,
    rng: Rng,
) -> Labels:
    """What each source came to say, and when. Of most honest claims nobody ever speaks."""
    customer = orders.customer[claims.order]
    reviewed = _analysts_labels(handling.reviews, customer, rng)
    unsure = take(reviewed, rng.random(len(reviewed.time)) < 0.025)
    withdrawn = replace(
        unsure,
        time=unsure.time + 1 + rng.exponential(3, len(unsure.time)),
        label=np.full(len(unsure.time), LABELS.index("UNREVIEWED")),
    )
    found = _investigators_labels(people.ring[customer], customer, claims, verdicts, rng)
    # Some verdicts are filed against the customer as a whole.
    whole = take(found, (rng.random(len(found.time)) < 0.08) & (found.label == 1))
    whole = replace(whole, claim=np.full(len(whole.time), -1))
    charged = _chargeback_labels(disputes, customer, claims, rng)
    parts = (reviewed, withdrawn, charged, found, whole)
    names = Labels.__dataclass_fields__
    return Labels(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


def _analysts_labels(reviews: Reviews, customer: Ints, rng: Rng) -> Labels:
    said = ~np.isnan(reviews.time) & (rng.random(len(customer)) < 0.94)
    claim = np.flatnonzero(said)
    return Labels(
        claim=claim,
        customer=customer[claim],
        time=reviews.time[claim],
        label=reviews.abuse[claim].astype(np.int64),
        source=np.full(len(claim), ANALYST),
        reviewer=reviews.analyst[claim],
    )


def _chargeback_labels(disputes: Disputes, customer: Ints, claims: Claims, rng: Rng) -> Labels:
    """The desk that handles chargebacks labels the claim behind each, with a few slips."""
    about = take(disputes, (disputes.claim >= 0) & (rng.random(len(disputes.time)) < 0.93))
    n = len(about.time)
    slips = rng.random(n) < 0.04
    return Labels(
        claim=about.claim,
        customer=customer[about.claim],
        time=np.maximum(about.time, claims.time[about.claim]) + 0.2 + rng.exponential(1, n),
        label=(about.abuse ^ slips).astype(np.int64),
        source=np.full(n, CHARGEBACK),
        reviewer=np.full(n, CHARGEBACK_DESK),
    )


def _investigators_labels(
    ring: Ints, customer: Ints, claims: Claims, verdicts: Verdicts, rng: Rng
) -> Labels:
    """A verdict looks back over the ring's claims of the weeks before.

    It finds most of the false ones, clears some honest ones and takes a few along.
    """
    n = len(claims.time)
    span = 4 * (float(verdicts.time.max(initial=0)) + float(claims.time.max(initial=0)) + 1)
    # A last verdict on nobody stands for "none follows".
    of = np.append(verdicts.ring, -1)
    at = np.append(verdicts.time, 0.0)
    order = verdicts.ring * span + verdicts.time
    after = np.searchsorted(order, ring * span + claims.time + 0.1, "right")
    judged = (of[after] == ring) & (at[after] - claims.time < LOOK_BACK_DAYS)
    claim = np.flatnonzero(judged & (rng.random(n) < np.where(claims.abuse, 0.9, 0.35)))
    abuse = claims.abuse[claim] | (rng.random(len(claim)) < 0.1)
    return Labels(
        claim=claim,
        customer=customer[claim],
        time=at[after[claim]],
        label=abuse.astype(np.int64),
        source=np.full(len(claim), INVESTIGATION),
        reviewer=np.full(len(claim), INVESTIGATORS),
    )
