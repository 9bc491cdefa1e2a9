"""The challenger's report: what it said in the shadow, what was decided, and who was right.

The service scores a challenger beside the champion on the same feature rows and never acts on it.
So the two are compared on live traffic before anything is promoted: how their probabilities lie,
which actions the policy would have changed, and, where labels are mature by now, whose
probabilities were better and whose actions cheaper.

Labelled refunds are a choice of the champion: what it held was not paid, is *censored*, and is in
no figure unless somebody looked into it or exploration paid it. Where exploration did, the figures
are given a second time, each refund weighed by the chance it had (`training.propensity`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.tables import Tables
from rules.decision import Action
from rules.document import Costs
from serving.store.store import Store
from serving.store.transfer import export
from training.bootstrap import Interval, Measure, known, resample
from training.costs import cost_of, mean_cost
from training.dataset import end_of
from training.labels import CENSORED, DEFAULT_MATURITY_DAYS, IMMATURE, label_refunds
from training.propensity import fates, weights
from training.ranking import Ranking

FloatArray = NDArray[np.float64]

PERCENTILES: Final = (1, 10, 25, 50, 75, 90, 99)

HIGHER_IS_BETTER: Final = ("average_precision", "auc")

_LEAST: Final = float(np.finfo(np.float64).eps)
"""A probability nearer to 0 or 1 costs no more log-loss than this one, as in scikit-learn."""


@dataclass(frozen=True)
class Pair:
    """One decision that both scored.

    ``action`` is what was answered, with its ``propensity`` and whether it was ``explored``; the
    other actions are those that the policy came to before exploration. ``payable_minor`` is in the
    base currency, NaN where unknown.
    """

    refund_id: str
    customer: str
    champion_version: str
    champion: float
    challenger: float
    champion_action: Action
    challenger_action: Action
    payable_minor: float
    action: Action
    explored: bool
    propensity: float

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Pair:
        """The pair in a decision's record that has both probabilities."""
        payable, decision = record["features"]["payable_minor"], record["decision"]
        return cls(
            record["refund_id"], record["keys"]["customer"], record["model_version"],
            record["probability"], record["shadow"]["probability"],
            _before_exploration(decision), Action(record["shadow"]["action"]),
            math.nan if payable is None else payable,
            Action(decision["action"]), decision["explored"], decision["propensity"],
        )  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One figure of both, and the 95 % interval of what the challenger gains: above 0 is better.

    NaN where it cannot be told: AP and AUC where all refunds are abuse or none is, cost where no
    amount is known.
    """

    champion: float
    challenger: float
    gain: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown."""
        return {"champion": known(self.champion), "challenger": known(self.challenger),
                "gain": self.gain.to_json()}  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """Both on refunds with mature labels: how many, how many of them abuse, and the figures.

    Average precision, AUC, Brier score, log-loss, and the cost of the actions per 1,000 refunds in
    minor units of the base currency.
    """

    refunds: int
    abuse: int
    figures: Mapping[str, Figure]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"refunds": self.refunds, "abuse": self.abuse,
                **{name: figure.to_json() for name, figure in self.figures.items()}}  # fmt: skip


@dataclass(frozen=True)
class ChallengerReport:
    """What a challenger said over the decisions of a period.

    ``unscored`` counts by reason the decisions on which it, or the champion, has no score;
    ``elsewhere`` those made without it. ``agreement[a][b]`` counts the decisions on which the
    champion's score led to action a and the challenger's to b. ``quantiles`` has `PERCENTILES`.
    """

    version: str
    champions: dict[str, int]
    decisions: int
    scored: int
    unscored: dict[str, int]
    elsewhere: int
    mean: dict[str, float]
    quantiles: dict[str, list[float]]
    agreement: dict[Action, dict[Action, int]]
    maturity_days: int
    immature: int
    censored: int
    labelled: Judgement | None
    """On all refunds with a mature label, a refund once, by its last decision of the period."""
    weighted: Judgement | None
    """On those that were paid, weighed by their chance; None where exploration paid none."""

    @property
    def agreed(self) -> int:
        """How many decisions would have been the same."""
        return sum(row.get(action, 0) for action, row in self.agreement.items())

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        judged = {"labelled": self.labelled, "weighted": self.weighted}
        return {**asdict(self), "percentiles": list(PERCENTILES), "agreed": self.agreed,
                "agreement": {a.value: {b.value: n for b, n in row.items()}
                              for a, row in self.agreement.items()},
                **{name: j.to_json() if j else None for name, j in judged.items()}}  # fmt: skip

    def to_text(self) -> str:
        """The report for a person to read; amounts in minor units of the base currency."""
        champions = ", ".join(f"{version} ({n:,})" for version, n in self.champions.items())
        lines = [
            f"challenger {self.version} beside champion {champions}: "
            f"{self.scored:,} of {self.decisions:,} decisions scored by both",
            *(f"  {n:,} without both scores: {why}" for why, n in self.unscored.items()),
            *([f"  {self.elsewhere:,} made without it"] if self.elsewhere else []),
            "probability   mean  " + "".join(f"{f'p{p}':>8}" for p in PERCENTILES),
            *(f"  {who:<10} {self.mean[who]:.4f}  " + "".join(f"{x:>8.4f}" for x in quantiles)
              for who, quantiles in self.quantiles.items()),
            f"actions: {self.agreed:,} the same, {self.scored - self.agreed:,} other",
            *(f"  {a.value} -> {b.value}: {n:,}" for a, row in self.agreement.items()
              for b, n in row.items() if a is not b),
            *self._labelled(),
        ]  # fmt: skip
        return "\n".join(lines)

    def _labelled(self) -> Iterable[str]:
        left_out = (f"{self.immature:,} younger than {self.maturity_days} days, "
                    f"{self.censored:,} censored")  # fmt: skip
        if self.labelled is None:
            yield f"no refund has a mature label: {left_out}"
            return
        yield from _lines("with a mature label", self.labelled)
        yield f"  left out: {left_out}"
        if self.weighted is not None:
            yield from _lines("that were paid, weighed by the chance they had", self.weighted)


def _lines(which: str, judged: Judgement) -> Iterable[str]:
    yield f"{judged.refunds:,} refunds {which}, {judged.abuse:,} abuse"
    yield f"  {'':<20} champion  challenger  gain (95 %)"
    for name, figure in judged.figures.items():
        digits = 0 if name.endswith("minor") else 4
        numbers = (figure.champion, figure.challenger, figure.gain.low, figure.gain.high)
        if not np.isfinite(numbers).all():
            yield f"  {name.replace('_', ' '):<20} cannot be told"
            continue
        yield (
            f"  {name.replace('_', ' '):<20} {figure.champion:>8,.{digits}f}  "
            f"{figure.challenger:>10,.{digits}f}  "
            f"{figure.gain.low:+,.{digits}f} to {figure.gain.high:+,.{digits}f}"
        )


def challenger_report(
    store: Store,
    costs: Costs,
    *,
    version: str | None = None,
    since: int | None = None,
    until: int | None = None,
    maturity_days: int = DEFAULT_MATURITY_DAYS,
) -> ChallengerReport:
    """Compare a challenger with who decided, on ``since <= decided_at < until`` (epoch ms).

    ``version`` is by default the one scored last. Labels are those known at the end of the store.
    Raises LookupError where no decision of that time was scored in the shadow.
    """
    decisions, latest, pairs, unscored = _heard(store, since, until)
    version = version or latest
    if version is None or version not in pairs.keys() | unscored.keys():
        who = f"challenger {version}" if version else "a challenger"
        raise LookupError(f"no decision of that time was scored by {who}: expected some, after "
                          "recourse challenger set VERSION")  # fmt: skip
    of, without = pairs.get(version, []), unscored.get(version, Counter())
    last = {pair.refund_id: pair for pair in of}
    abuse, basis = _labels(export(store), last, maturity_days)
    labelled = [(pair, abuse[id]) for id, pair in last.items() if not math.isnan(abuse[id])]
    has_explored = any(pair.explored for pair, _ in labelled)
    probability = {"champion": np.array([pair.champion for pair in of]),
                   "challenger": np.array([pair.challenger for pair in of])}  # fmt: skip
    return ChallengerReport(
        version=version,
        champions=dict(sorted(Counter(pair.champion_version for pair in of).items())),
        decisions=decisions,
        scored=len(of),
        unscored=dict(without),
        elsewhere=decisions - len(of) - without.total(),
        mean={who: float(p.mean()) for who, p in probability.items() if len(of)},
        quantiles={
            who: np.percentile(p, PERCENTILES).tolist() for who, p in probability.items() if len(of)
        },
        agreement=_agreement(of),
        maturity_days=maturity_days,
        immature=basis[IMMATURE],
        censored=basis[CENSORED],
        labelled=_judged(labelled, costs, weighted=False) if labelled else None,
        weighted=_judged(labelled, costs, weighted=True) if has_explored else None,
    )


def _heard(
    store: Store, since: int | None, until: int | None
) -> tuple[int, str | None, dict[str, list[Pair]], dict[str, Counter[str]]]:
    """How many decisions a period has and its last challenger; and by challenger its pairs, and
    why others are none."""
    decisions, version = 0, None
    pairs: dict[str, list[Pair]] = {}
    unscored: dict[str, Counter[str]] = {}
    for decision in store.decisions(since, until):
        decisions += 1
        record = decision.record
        shadow = record.get("shadow")
        if shadow is None:
            continue
        version = shadow["version"]
        missing = shadow["problem"] or record["problem"]
        if missing is None:
            pairs.setdefault(version, []).append(Pair.of(record))
        else:
            unscored.setdefault(version, Counter())[missing.partition(":")[0]] += 1
    return decisions, version, pairs, unscored


def _before_exploration(decision: Mapping[str, Any]) -> Action:
    """The action that a recorded decision came to before exploration may have paid it anyway.

    Only bands and risk rules are explored, so the most severe of their calls is what it was.

    >>> held = {"mode": "live", "calls_for": "MANUAL_REVIEW"}
    >>> _before_exploration({"action": "ALLOW", "explored": True, "band": "ALLOW",
    ...                      "hits": [held], "unknowns": []})
    <Action.MANUAL_REVIEW: 'MANUAL_REVIEW'>
    """
    if not decision["explored"]:
        return Action(decision["action"])
    rules = (*decision["hits"], *decision["unknowns"])
    calls = [rule["calls_for"] for rule in rules if rule["mode"] == "live"]
    return max(map(Action, (decision["band"], *calls)))


def _agreement(pairs: Sequence[Pair]) -> dict[Action, dict[Action, int]]:
    counts = Counter((pair.champion_action, pair.challenger_action) for pair in pairs)
    table: dict[Action, dict[Action, int]] = {}
    for (was, would_be), number in sorted(counts.items()):
        table.setdefault(was, {})[would_be] = number
    return table


def _labels(
    tables: Tables, wanted: Mapping[str, Pair], maturity_days: int
) -> tuple[dict[str, float], Counter[str]]:
    """The label of each refund wanted (NaN: none), and how many have which basis."""
    labels = label_refunds(tables, as_of=end_of(tables), maturity_days=maturity_days)
    ids = tables["refund_requests"]["refund_id"].take(labels.row).to_pylist()
    abuse = dict.fromkeys(wanted, math.nan)
    basis: Counter[str] = Counter()
    for refund_id, label, of in zip(ids, labels.abuse.tolist(), labels.basis, strict=True):
        if refund_id in wanted:
            abuse[refund_id] = label
            basis[of] += 1
    return abuse, basis


# --- who was right ---------------------------------------------------------------------------


def _judged(labelled: Sequence[tuple[Pair, float]], costs: Costs, *, weighted: bool) -> Judgement:
    """Both on labelled refunds that have a weight; raises ValueError where none has."""
    pairs = [pair for pair, _ in labelled]
    abuse = np.array([label for _, label in labelled])
    weight = _weights(pairs) if weighted else np.ones(len(pairs))
    used = weight > 0
    if not used.any():
        raise ValueError("weight: expected one refund that was paid, got none")
    amount = np.array([pair.payable_minor for pair in pairs])
    _, customer = np.unique([pair.customer for pair in pairs], return_inverse=True)
    measures = {}
    for who in ("champion", "challenger"):
        score = np.array([getattr(pair, who) for pair in pairs])
        action = np.array([getattr(pair, f"{who}_action").severity for pair in pairs])
        spent = cost_of(action, abuse, amount, costs)
        measures[who] = _measure(score[used], abuse[used], spent[used])
    drawn = resample(measures, customer[used], weight[used])
    found = {who: measure(weight[used]) for who, measure in measures.items()}
    return Judgement(
        int(used.sum()),
        int(abuse[used].sum()),
        {
            name: Figure(
                found["champion"][name],
                found["challenger"][name],
                drawn.gain("challenger", "champion", name)
                if name in HIGHER_IS_BETTER
                else drawn.gain("champion", "challenger", name),
            )
            for name in found["champion"]
        },
    )


def _measure(score: FloatArray, abuse: FloatArray, cost_minor: FloatArray) -> Measure:
    """The figures of probabilities (n,) and of the cost (n,) of the actions they led to.

    >>> measure = _measure(np.array([0.2, 0.9]), np.array([0.0, 1.0]), np.array([0.0, 4.0]))
    >>> {name: round(value, 3) for name, value in measure(np.ones(2)).items()}
    {'average_precision': 1.0, 'auc': 1.0, 'brier': 0.025, 'log_loss': 0.164, \
'cost_per_1000_minor': 2000.0}
    """
    ranking = Ranking(score, abuse)
    of_the_truth = np.clip(np.where(abuse == 1, score, 1 - score), _LEAST, 1 - _LEAST)

    def figures(weight: FloatArray) -> dict[str, float]:
        ranked = ranking.figures(weight)
        return {
            "average_precision": ranked["average_precision"],
            "auc": ranked["auc"],
            "brier": float(np.average((score - abuse) ** 2, weights=weight)),
            "log_loss": float(np.average(-np.log(of_the_truth), weights=weight)),
            "cost_per_1000_minor": 1000 * mean_cost(cost_minor, weight),
        }

    return figures


def _weights(pairs: Sequence[Pair]) -> FloatArray:
    """What the refunds weigh (n,) for the chance that the policy gave them to be paid."""
    action = np.array([pair.action.value for pair in pairs], object)
    explored = np.array([pair.explored for pair in pairs], np.bool_)
    propensity = np.array([pair.propensity for pair in pairs])
    return weights(fates(action, explored, propensity), propensity)
