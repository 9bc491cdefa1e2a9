"""The report on the decisions of a period, beside those of the period of equal length before it.

A refund counts once, by its last decision of the period. Amounts are minor units of the base
currency, times epoch ms, weights log-odds. What is drawn of it lies in `training.period_page`.

**What drives risk.** The weight of a reason code is what its features added to the score of a
refund (`serving.reasons`). A change of its mean is **sure** where it is more than 2.58 standard
errors (99 %) of the difference, which count customers (the linearised mean, Cochran 1977, section
6.4). Where another model decides, part of a change is the model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from features.money import DAY_MS
from rules.decision import Action, Source
from rules.document import Costs
from serving import announcements
from serving.language import ENGLISH, Language
from serving.store.store import Store
from training.bootstrap import known
from training.costs import ALLOWED
from training.labels import DEFAULT_MATURITY_DAYS
from training.period_drift import ROUNDS, Moved, PeriodDrift, period_drift
from training.period_labels import Calibration, Reviews, calibration, paid, reviews, waiting
from training.period_money import Sums, sums
from training.period_read import Dictionary, FloatArray, IntArray, Mask, Refunds, read
from training.period_rules import RuleUse, answered, rules_used
from training.period_text import text
from training.store_labels import end_of_store, label_tables

MOST_DAYS: Final = 45
"""Of a longer period the actions are counted by week."""

CALIBRATED_DAYS: Final = 180
"""Calibration reaches so far back behind the time that labels take to mature."""

_SURE: Final = 2.5758
_ACTIONS: Final = (Action.ALLOW, Action.REVIEW, Action.MANUAL_REVIEW, Action.PREVENT)


@dataclass(frozen=True)
class Part:
    """Some refunds: how many, and what they are worth where that is known."""

    refunds: int
    minor: float

    @classmethod
    def of(cls, of: Refunds, which: Mask) -> Part:
        """The refunds (n,) chosen."""
        return cls(int(which.sum()), float(np.nansum(of.table["payable_minor"][which])))


@dataclass(frozen=True)
class Group:
    """Refunds that are alike, such as those of a channel, and what was answered them."""

    name: str
    whole: Part
    actions: Mapping[Action, Part]

    @classmethod
    def of(cls, name: str, of: Refunds, which: Mask) -> Group:
        """The refunds (n,) chosen; an action that none got is left out."""
        action = of.table["action"]
        return cls(
            name,
            Part.of(of, which),
            {one: Part.of(of, which & (action == one.severity)) for one in _ACTIONS
             if (which & (action == one.severity)).any()},
        )  # fmt: skip

    def part(self, action: Action) -> Part:
        """What of them got an action."""
        return self.actions.get(action, Part(0, 0.0))

    def share(self, action: Action) -> float:
        """The share of them that got an action, NaN of none."""
        return self.part(action).refunds / self.whole.refunds if self.whole.refunds else np.nan

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        actions = {one.value: asdict(part) for one, part in self.actions.items()}
        return {"name": self.name, **asdict(self.whole), "actions": actions}


@dataclass(frozen=True)
class Volume:
    """What was decided in ``since <= decided_at < until``.

    ``expected_lost_minor`` is what abuse is expected to have been paid: the probability times the
    amount, over what was allowed. Parts are sorted, the largest first; versions of models and
    policies come with how many refunds each decided.
    """

    since: int
    until: int
    decisions: int
    customers: int
    whole: Group
    degraded: int
    explored: int
    amount_unknown: int
    expected_lost_minor: float
    money: Sums
    sources: tuple[Group, ...]
    channels: tuple[Group, ...]
    models: Mapping[str, int]
    policies: Mapping[str, int]

    @property
    def refunds(self) -> int:
        """How many refunds there are."""
        return self.whole.whole.refunds

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        names = ("since", "until", "decisions", "refunds", "customers", "degraded", "explored",
                 "amount_unknown", "expected_lost_minor")  # fmt: skip
        return {
            **{name: getattr(self, name) for name in names},
            "models": dict(self.models),
            "policies": dict(self.policies),
            "money": self.money.to_json(),
            **self.whole.to_json(),
            "sources": [one.to_json() for one in self.sources],
            "channels": [one.to_json() for one in self.channels],
        }


@dataclass(frozen=True)
class Driver:
    """A reason code, and what it weighs in the mean of a period's scored refunds.

    ``size`` is the mean whatever the sign: how much it moves scores at all. Before is NaN where
    nothing was scored. ``sure`` says that the mean did not change by chance.
    """

    code: str
    mean_before: float
    mean: float
    size_before: float
    size: float
    sure: bool

    @property
    def rise(self) -> float:
        """By how much more it raises the risk than before."""
        return self.mean - self.mean_before

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {name: known(value) if isinstance(value, float) else value
                for name, value in {**asdict(self), "rise": self.rise}.items()}  # fmt: skip


@dataclass(frozen=True)
class Told:
    """A reason that was given, who gave it (``model``, ``rule`` or ``list``), and on what."""

    code: str
    by: str
    before: Part
    now: Group

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"by": self.by, "before": asdict(self.before), **self.now.to_json()}


@dataclass(frozen=True)
class Slice:
    """A day or a week from ``since`` (epoch ms): how many refunds got which action, and money.

    ``degraded`` were decided without the model, ``fallback`` had their answer from that.
    """

    since: int
    refunds: int
    actions: Mapping[Action, int]
    degraded: int
    fallback: int
    money: Sums

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"since": self.since, "refunds": self.refunds, "degraded": self.degraded,
                "fallback": self.fallback, "money": self.money.to_json(),
                "actions": {one.value: n for one, n in self.actions.items()}}  # fmt: skip


@dataclass(frozen=True)
class PeriodReport:
    """All that is told of a period (``now``) and of the one before it."""

    currency: str
    costs: Costs
    before: Volume
    now: Volume
    slice_days: int
    slices: tuple[Slice, ...]
    """Of both periods, in order."""
    drivers: tuple[Driver, ...]
    """The heaviest of this period first."""
    told: tuple[Told, ...]
    """The reasons given most often first."""
    rules: tuple[RuleUse, ...]
    """The rules that hit most often first."""
    drift: PeriodDrift
    calibration: Calibration
    reviews_before: Reviews
    reviews: Reviews

    @property
    def model_changed(self) -> bool:
        """Whether not the same one model scored both periods."""
        return len({*self.before.models, *self.now.models}) > 1

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "currency": self.currency,
            "costs": self.costs.model_dump(mode="json"),
            "now": self.now.to_json(),
            "before": self.before.to_json(),
            "model_changed": self.model_changed,
            "slice_days": self.slice_days,
            "slices": [one.to_json() for one in self.slices],
            "drivers": [one.to_json() for one in self.drivers],
            "reasons": [one.to_json() for one in self.told],
            "rules": [one.to_json() for one in self.rules],
            "drift": self.drift.to_json(),
            "calibration": self.calibration.to_json(),
            "reviews": self.reviews.to_json(),
            "reviews_before": self.reviews_before.to_json(),
        }

    def to_text(self, language: Language = ENGLISH) -> str:
        """The report for a person to read, on one screen."""
        return text(self, language)


def period_report(
    store: Store,
    *,
    since: int,
    until: int,
    costs: Costs,
    base_currency: str,
    maturity_days: int = DEFAULT_MATURITY_DAYS,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> PeriodReport:
    """Report on decisions of ``since <= decided_at < until`` (epoch ms), and on those before.

    ``rounds`` of the bootstrap, with the ``seed``, give the thresholds of drift. Labels and the
    queue are as they are known at the end of the store. Raises ValueError where the period is
    empty, LookupError where the store holds neither a refund request nor a decision.
    """
    if until <= since:
        raise ValueError(f"until: expected an instant after since, {since}, got {until}")
    as_of = end_of_store(store)
    words, before_since = Dictionary(), 2 * since - until
    before, now = read(store, before_since, since, words), read(store, since, until, words)
    tables = label_tables(store, as_of)
    was_paid, is_paid = (paid(of, tables, as_of) for of in (before, now))
    still = waiting(store)
    first = max(0, until - (maturity_days + CALIBRATED_DAYS) * DAY_MS)
    earlier = read(store, min(first, before_since), before_since, words, weights=False)
    mature = Refunds.together([earlier, before, now])
    sources, customers = words.sources.met, words.customers.met
    reviewed = [reviews(of, tables, still, sources, customers, maturity_days)
                for of in (before, now)]  # fmt: skip
    slice_days = 1 if until - since <= MOST_DAYS * DAY_MS else 7
    return PeriodReport(
        currency=base_currency,
        costs=costs,
        before=_volume(before, before_since, since, words, sums(before, was_paid, costs)[0]),
        now=_volume(now, since, until, words, sums(now, is_paid, costs)[0]),
        slice_days=slice_days,
        slices=(*_slices(before, before_since, since, slice_days, words, was_paid, costs),
                *_slices(now, since, until, slice_days, words, is_paid, costs)),
        drivers=drivers(before, now),
        told=_told(before, now, words),
        rules=rules_used(before, now, mature, tables, answered(store, since), words,
                         as_of=as_of, maturity_days=maturity_days),
        drift=period_drift(before, now, rounds=rounds, seed=seed),
        calibration=calibration(mature, tables, costs, as_of=as_of, maturity_days=maturity_days),
        reviews_before=reviewed[0],
        reviews=reviewed[1],
    )  # fmt: skip


# --- what was decided ----------------------------------------------------------------------------


def _volume(of: Refunds, since: int, until: int, words: Dictionary, money: Sums) -> Volume:
    table = of.table
    expected = table["probability"] * table["payable_minor"]
    return Volume(
        since=since,
        until=until,
        decisions=of.decisions,
        customers=len(np.unique(table["customer"])),
        whole=Group.of("all", of, np.ones(len(of), np.bool_)),
        degraded=int(table["degraded"].sum()),
        explored=int(table["explored"].sum()),
        amount_unknown=int(np.isnan(table["payable_minor"]).sum()),
        expected_lost_minor=float(np.nansum(expected[table["action"] == ALLOWED])),
        money=money,
        sources=_groups(of, "source", words.sources.met),
        channels=_groups(of, "channel", words.channels.met),
        models=_counts(table["model"], words.models.met),
        policies=_counts(table["policy"], words.policies.met),
    )


def _groups(of: Refunds, column: str, names: list[str]) -> tuple[Group, ...]:
    numbers = of.table[column]
    found = [Group.of(names[i], of, numbers == i) for i in np.unique(numbers).tolist()]
    return tuple(sorted(found, key=lambda group: (-group.whole.refunds, group.name)))


def _counts(numbers: IntArray, names: list[str]) -> dict[str, int]:
    """How many refunds have which word, those without left out."""
    found, count = np.unique(numbers[numbers >= 0], return_counts=True)
    return {names[i]: n for i, n in zip(found.tolist(), count.tolist(), strict=True)}


def _slices(
    of: Refunds, since: int, until: int, days: int, words: Dictionary, is_paid: Mask, costs: Costs
) -> list[Slice]:
    width = days * DAY_MS
    number = -(-(until - since) // width)
    place = (of.table["decided_at"] - since) // width
    count = {one: np.bincount(place[of.table["action"] == one.severity], minlength=number)
             for one in _ACTIONS}  # fmt: skip
    degraded = np.bincount(place[of.table["degraded"]], minlength=number)
    is_fallback = of.table["source"] == words.sources(Source.FALLBACK.value)
    fallback = np.bincount(place[is_fallback], minlength=number)
    money = sums(of, is_paid, costs, place, number)
    return [
        Slice(since + i * width, sum(int(n[i]) for n in count.values()),
              {one: int(n[i]) for one, n in count.items() if n.any()}, int(degraded[i]),
              int(fallback[i]), money[i])
        for i in range(number)
    ]  # fmt: skip


# --- what drives risk ----------------------------------------------------------------------------


def drivers(before: Refunds, now: Refunds) -> tuple[Driver, ...]:
    """What each reason code weighs in two periods, the heaviest of the later first.

    Codes that weigh nothing in either are left out, and without a scored refund there are none.
    """
    (mean_before, size_before, error_before), (mean, size, error) = map(_weighed, (before, now))
    sure = np.abs(mean - mean_before) > _SURE * np.sqrt(error_before**2 + error**2)
    found = [
        Driver(code, float(mean_before[i]), float(mean[i]), float(size_before[i]),
               float(size[i]), bool(sure[i]))
        for i, code in enumerate(now.codes)
        if max(np.nan_to_num([size_before[i], size[i]])) > 0
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda one: (-np.nan_to_num(one.size), one.code)))


def _weighed(of: Refunds) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, mean size and standard error of the mean by code; NaN without a scored refund."""
    used = of.explained
    if not used.any():
        nothing = np.full(len(of.codes), np.nan)
        return nothing, nothing, nothing
    weights = of.weights[used]
    mean = weights.mean(axis=0, dtype=np.float64)
    _, who = np.unique(of.table["customer"][used], return_inverse=True)
    order = np.argsort(who, kind="stable")
    begins = np.flatnonzero(np.diff(who[order], prepend=-1))
    residual = np.add.reduceat(weights[order] - mean, begins, axis=0)
    error = np.sqrt((residual**2).sum(axis=0)) / len(weights)
    return mean, np.abs(weights).mean(axis=0, dtype=np.float64), error


def _told(before: Refunds, now: Refunds, words: Dictionary) -> tuple[Told, ...]:
    """The reasons given, each once on a refund."""
    found = []
    for number, (by, code) in enumerate(words.reasons.met):
        was, which = (_with_reason(of, number) for of in (before, now))
        if was.any() or which.any():
            found.append(Told(code, by, Part.of(before, was), Group.of(code, now, which)))
    return tuple(
        sorted(found, key=lambda one: (-one.now.whole.refunds, -one.before.refunds, one.code))
    )


def _with_reason(of: Refunds, number: int) -> Mask:
    found = np.zeros(len(of), np.bool_)
    found[of.told[of.told[:, 1] == number, 0]] = True
    return found


# --- telling -------------------------------------------------------------------------------------


def announce_drift(store: Store, report: PeriodReport, at: int) -> bool:
    """Put ``drift.detected`` into the outbox at ``at`` (epoch ms), if something surely drifted.

    Returns whether it did. Whoever asks twice tells twice.
    """
    surely = report.drift.surely
    if not surely:
        return False
    score = report.drift.score
    data = announcements.drift_detected(
        report.now.since, report.now.until, report.before.since,
        [_announced(one) for one in surely if one is not score],
        _announced(score) if score in surely and score is not None else None,
    )  # fmt: skip
    with store.database.write() as connection:
        store.outbox.announce(connection, "drift.detected", data, at)
    return True


def _announced(one: Moved) -> dict[str, Any]:
    return {"name": one.drift.name, "psi": round(one.drift.psi, 6),
            "threshold": round(one.drift.threshold, 6)}  # fmt: skip
