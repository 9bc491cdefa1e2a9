"""The gate: whether a challenger is better than the champion, on the same refunds, new to both.

It passes when all of this holds; each objection is a sentence of its own:

- **better**: its AP, or the cost of its decisions, is surely better: the paired 95 % bootstrap
  interval of what is gained lies above zero. And the other of the two is not surely worse. Both
  models decide by the bands of one policy, the one that would stay.
- **calibration no worse**: neither Brier score nor log-loss is surely higher; nor is the slope of
  logistic recalibration outside its bounds and surely further from 1 than the champion's. Noise
  decides nothing: a difference counts where its interval excludes zero.
- **fair**: of no column that names groups is the FPR ratio surely below its bound.
- **fast**: a decision with its reasons takes no longer than a stated time, or than a stated
  multiple of the champion's, the two measured in turns on the same rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rules.document import Band, Costs
from serving.explain import TreeExplainer
from serving.model import AbuseModel
from training.bootstrap import BOOTSTRAP_ROUNDS, Interval, Rounds, interval, resample
from training.costs import PREVENTED, cost_of
from training.evaluate import Desk, Figures, Meter, Truth, decided
from training.fairness import Fairness, fairness

FloatArray = NDArray[np.float64]

TIMED_ROWS: Final = 200
"""Single decisions that are timed of each model."""

FALSE_RATE: Final = 0.05
"""Beside what is prevented, fairness is judged where 5 % of the honest refunds are flagged."""


@dataclass(frozen=True)
class Bounds:
    """What the gate allows.

    ``fpr_ratio_at_least`` for every named group column; a decision passes that takes at most
    ``latency_ms``, or ``latency_ratio`` times the champion's; ``slope`` is where the calibration
    slope is good enough whatever the champion's is.
    """

    fpr_ratio_at_least: float = 0.5
    latency_ratio: float = 1.5
    latency_ms: float = 1.0
    slope: tuple[float, float] = (0.9, 1.1)


@dataclass(frozen=True)
class Latency:
    """The median time of a single decision with its reasons, in milliseconds."""

    challenger_ms: float
    champion_ms: float

    @property
    def ratio(self) -> float:
        """The challenger's time as a multiple of the champion's."""
        return self.challenger_ms / self.champion_ms


@dataclass(frozen=True)
class Comparison:
    """Challenger and champion on the same refunds, with paired 95 % intervals.

    ``gain`` is of AP, ``saving`` of cost per 1,000 refunds in minor units: above zero is better.
    ``brier_rise``, ``log_loss_rise`` and ``slope_rise`` (of the slope's distance from 1): above
    zero is worse. ``fairness`` is the challenger's; ``notes`` say what could not be judged.
    """

    challenger: Figures
    champion: Figures
    gain: Interval
    saving: Interval
    brier_rise: Interval
    log_loss_rise: Interval
    slope_rise: Interval
    fairness: tuple[Fairness, ...]
    latency: Latency | None
    notes: tuple[str, ...]

    @property
    def refunds(self) -> int:
        """How many refunds both were judged on."""
        return int(self.challenger.n)

    @property
    def positives(self) -> int:
        """How many of them were abuse."""
        return int(self.challenger.n_positives)

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        intervals = ("gain", "saving", "brier_rise", "log_loss_rise", "slope_rise")
        return {
            "refunds": self.refunds,
            "positives": self.positives,
            "challenger": self.challenger.to_json(),
            "champion": self.champion.to_json(),
            **{name: getattr(self, name).to_json() for name in intervals},
            "fairness": [each.to_json() for each in self.fairness],
            "latency": None if self.latency is None else asdict(self.latency),
            "notes": list(self.notes),
        }


def compare(
    challenger: FloatArray,
    champion: FloatArray,
    truth: Truth,
    *,
    bands: Sequence[Band],
    costs: Costs,
    groups: Mapping[str, NDArray[np.object_]] | None = None,
    latency: Latency | None = None,
    desk: Desk | None = None,
    rounds: int = BOOTSTRAP_ROUNDS,
    seed: int = 0,
) -> Comparison:
    """Compare two models' probabilities (n,) of the same refunds, whose truth is known.

    ``groups`` holds the group (n,) of each refund by the column that names it.
    """
    meters, prevented = {}, {}
    for name, score in (("challenger", challenger), ("champion", champion)):
        action = decided(bands, score, truth, costs)
        cost_minor = cost_of(action, truth.abuse, truth.amount_minor, costs)
        meters[name] = Meter(score, truth, desk=desk, cost_minor=cost_minor)
        prevented[name] = action == PREVENTED
    drawn = resample(meters, truth.customer, truth.weight, rounds=rounds, seed=seed)
    ratios: list[Fairness] = []
    cut = meters["challenger"].ranking.threshold(FALSE_RATE, truth.weight)
    for column, group in (groups or {}).items():
        for flagged, meaning in (
            (prevented["challenger"], "prevented"),
            (challenger >= cut, f"flagged with {FALSE_RATE:.0%} of the honest refunds"),
        ):
            ratios.append(
                fairness(
                    column, group, flagged, truth.abuse, truth.customer, meaning=meaning,
                    weight=truth.weight, rounds=rounds, seed=seed,
                )
            )  # fmt: skip
    return Comparison(
        challenger=meters["challenger"].figures(),
        champion=meters["champion"].figures(),
        gain=drawn.gain("challenger", "champion", "average_precision"),
        saving=drawn.gain("champion", "challenger", "cost_per_1000_minor"),
        brier_rise=drawn.gain("challenger", "champion", "brier"),
        log_loss_rise=drawn.gain("challenger", "champion", "log_loss"),
        slope_rise=_slope_rise(drawn),
        fairness=tuple(ratios),
        latency=latency,
        notes=tuple(_notes(ratios, latency)),
    )


def _slope_rise(drawn: Rounds) -> Interval:
    ours, theirs = (np.abs(drawn.values[name]["calibration_slope"] - 1)
                    for name in ("challenger", "champion"))  # fmt: skip
    return interval(ours - theirs)


def _notes(ratios: Sequence[Fairness], latency: Latency | None) -> list[str]:
    notes = [
        f"{one.column}: no FPR ratio of refunds {one.flagged}, {_why_none(one)}"
        for one in ratios
        if np.isnan(one.ratio)
    ]
    if not ratios:
        notes.append("fairness is not judged: no groups were named at training")
    if latency is None:
        notes.append("latency is not judged: it was not measured")
    return notes


def _why_none(one: Fairness) -> str:
    enough = sum(group.counts for group in one.groups)
    return "nobody honest is" if enough > 1 else "fewer than two groups have enough honest refunds"


# --- objections --------------------------------------------------------------------------------


def objections(found: Comparison, bounds: Bounds) -> list[str]:
    """Every reason against the challenger, in sentences; empty where it may be promoted."""
    return [
        *_not_better(found),
        *_worse_calibrated(found, bounds),
        *_unfair(found, bounds),
        *_slow(found, bounds),
    ]


def _not_better(found: Comparison) -> list[str]:
    ours, theirs = found.challenger, found.champion
    said = {
        "gain": f"average precision {ours.average_precision:.3f} against "
        f"{theirs.average_precision:.3f}",
        "saving": f"cost per 1,000 refunds {ours.cost_per_1000_minor:,.0f} against "
        f"{theirs.cost_per_1000_minor:,.0f} minor units",
    }
    detail = {
        "gain": f"the 95 % interval of the gain is {_span(found.gain, '+.3f')}",
        "saving": f"the 95 % interval of the saving is {_span(found.saving, '+,.0f')}",
    }
    sides = {"gain": found.gain, "saving": found.saving}
    better = any(side.low > 0 for side in sides.values())
    reasons = [
        f"it is surely worse by one measure: {said[name]}, {detail[name]}"
        for name, side in sides.items()
        if side.high < 0
    ]
    if not better:
        both = "; ".join(f"{said[name]}, {detail[name]}" for name in sides)
        reasons.insert(0, f"it is not surely better on {found.positives} cases of abuse: {both}")
    return reasons


def _worse_calibrated(found: Comparison, bounds: Bounds) -> list[str]:
    ours, theirs = found.challenger, found.champion
    reasons = [
        f"its probabilities are surely worse: {name} {our:.5f} against {their:.5f}, the 95 % "
        f"interval of the rise is {_span(rise, '+.5f')}"
        for name, our, their, rise in (
            ("Brier score", ours.brier, theirs.brier, found.brier_rise),
            ("log-loss", ours.log_loss, theirs.log_loss, found.log_loss_rise),
        )
        if rise.low > 0
    ]
    low, high = bounds.slope
    if not low <= ours.calibration_slope <= high and found.slope_rise.low > 0:
        reasons.append(
            f"its calibration slope {ours.calibration_slope:.2f} is outside {low:g} to {high:g} "
            f"and surely further from 1 than the champion's {theirs.calibration_slope:.2f}"
        )
    return reasons


def _unfair(found: Comparison, bounds: Bounds) -> list[str]:
    reasons = []
    for one in found.fairness:
        if one.interval.high < bounds.fpr_ratio_at_least:
            counted = sorted((g for g in one.groups if g.counts), key=lambda g: g.false_rate)
            low, high = counted[0], counted[-1]
            reasons.append(
                f"it is uneven between groups of {one.column}: of the honest refunds "
                f"{low.false_rate:.2%} in {low.group} and {high.false_rate:.2%} in {high.group} "
                f"are {one.flagged}; the ratio {one.ratio:.2f} (95 % interval "
                f"{_span(one.interval, '.2f')}) is surely below {bounds.fpr_ratio_at_least:g}"
            )
    return reasons


def _slow(found: Comparison, bounds: Bounds) -> list[str]:
    taken = found.latency
    if taken is None or taken.challenger_ms <= bounds.latency_ms:
        return []
    if taken.ratio <= bounds.latency_ratio:
        return []
    return [
        f"it is slow: {taken.challenger_ms:.2f} ms a decision, {taken.ratio:.1f} times the "
        f"champion's; at most {bounds.latency_ms:g} ms or {bounds.latency_ratio:g} times are "
        f"allowed"
    ]


def _span(of: Interval, form: str) -> str:
    return f"{of.low:{form}} to {of.high:{form}}"


# --- latency -----------------------------------------------------------------------------------


def measure_latency(
    challenger: AbuseModel, champion: AbuseModel, rows: FloatArray, *, at_most: int = TIMED_ROWS
) -> Latency:
    """Time single decisions, probability and SHAP contributions, on the first rows (n, features).

    The models take turns row by row, so that whatever else the machine does hits both alike.
    """
    return Latency(*in_turns(_decision(challenger), _decision(champion), rows[:at_most]))


def _decision(model: AbuseModel) -> Callable[[FloatArray], object]:
    explainer = TreeExplainer.from_booster(model.booster)
    explainer.warm_up()
    return lambda row: (model.predict(row), explainer.contributions(row))


def in_turns(
    first: Callable[[FloatArray], object],
    second: Callable[[FloatArray], object],
    rows: FloatArray,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> tuple[float, float]:
    """Median milliseconds of two functions of single rows (1, features), called in turns.

    Who begins alternates. ``clock`` gives nanoseconds.
    """
    calls = (first, second)
    taken = np.empty((2, len(rows)))
    for call in calls:
        call(rows[:1])
    for i in range(len(rows)):
        for place in (i % 2, 1 - i % 2):
            start = clock()
            calls[place](rows[i : i + 1])
            taken[place, i] = clock() - start
    ours, theirs = (np.median(taken, axis=1) / 1e6).tolist()
    return ours, theirs
