"""Leaks: what a model could learn from that nobody knows when a refund is asked for.

Every training run looks for four kinds before a model is registered:

1. **A feature that separates alone** (`separates_alone`). Abuse takes many signs to tell. One that
   tells it by itself, out of time, was most likely written down once the answer was known.
2. **A score that collapses when the label gap widens** (`collapses_with_the_gap`). A verdict takes
   time. Those that are said to be known sooner than anybody could have reached them are held back
   until a label is mature, each table by itself: where the score then falls, it lived on them.
   Verdicts that took their time stay as they are, so an honest history of labels loses nothing.
3. **Training and test that share refunds** (`shared_refunds`), or lie in one another's time
   (`interleaved`), as after a random split.
4. **Features computed from what came later** (`future_facts`). The folder is cut at an instant and
   the features are computed again: nothing before that instant may change.

The first two suspect; a data scientist who knows when a fact was known may name it as trusted. The
last two prove, and no trust settles them. No check chooses anything of a model.

What none of them sees: a column that was overwritten later but tells little alone, and a verdict
dated wrongly but plausibly.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, NamedTuple

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier

from features.catalog import CHARGEBACK_STAGES, MODEL_FEATURES
from features.money import DAY_MS, Rates
from features.tables import Tables, canonical_table
from training.bootstrap import known, resample
from training.dataset import (
    MODEL_NAMES,
    Examples,
    FeatureFrame,
    TimeSplit,
    TooLittleData,
    feature_frame,
)
from training.ranking import Ranking
from training.recipe import Recipe

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Columns = Mapping[str, FloatArray]

Kind = Literal[
    "separates_alone", "collapses_with_the_gap", "shared_refunds", "interleaved", "future_facts"
]
Compute = Callable[[Tables, Rates], FeatureFrame]
"""What turns a folder into features: one row per row of refund_requests, in its order."""

VERDICTS: Final = ("labels", "disputes")
"""The tables that say what refunds turned out to be: beside features, what may be trusted."""

# --- what is expected ------------------------------------------------------------------------
# Beside each bound, the most that honest data came to: nine simulated shops (34 to 67 cases of
# abuse in the test), the sample (273) and six weeks of the Fraud Detection Handbook's cards (568).

PERFECT_AUC: Final = 0.99
"""No single fact separates so well out of time (honest: 0.78)."""

SHARE_OF_MODEL: Final = 0.75
"""A feature is suspect when its AP alone is so much of the whole model's, both taken above chance
(honest: 0.67) ..."""

SHARE_OF_REST: Final = 0.3
"""... and it goes so far from the AP of all features beside the suspects to a perfect 1."""

PURE: Final = 0.98
PURE_RECALL: Final = 0.35
"""Or when it finds this share of all abuse with hardly anybody honest among it (honest: 0.17, where
a simulated world lets nobody honest pay much)."""

SOON_MS: Final[Mapping[str, int]] = {
    "ANALYST": 15 * 60_000, "CHARGEBACK": DAY_MS, "INVESTIGATION": DAY_MS,
}  # fmt: skip
"""Sooner after what it is about no verdict is known: a case waits, is opened, read and judged; a
bank writes, and an investigator asks, on another day."""

TOO_SOON_SHARE: Final = 0.1
"""Of a source's verdicts: fewer are slips, for which nothing is computed (honest: 0.06, once 0.12,
as a chargeback may come before the refund)."""

COLLAPSE: Final = 0.2
"""A score collapses when it loses so much of its AP above chance (honest: 0.08)."""

COPIES_SHARE: Final = 0.01
"""More test rows than this, found in training under another id, are no coincidence (honest: 0)."""

INSTANTS: Final = (0.25, 0.5, 0.75, 0.95)
"""Where the folder is cut, as shares of its requests."""

# --- what it may cost ------------------------------------------------------------------------

MOST_ROWS: Final = 30_000
"""Training, and test, examples that probes look at: a random part of larger ones."""

MOST_REQUESTS: Final = 60_000
"""Requests whose features are computed again: of a larger folder, some customers' whole history."""

TREES: Final = 60
PROBE: Final = Recipe(learning_rate=0.1, num_leaves=15, min_data_in_leaf=30)
NARROW_PROBE: Final = Recipe(learning_rate=0.1, num_leaves=7, min_data_in_leaf=20)
"""How the whole model, and one of a few features, is estimated: quickly."""

ROUNDS: Final = 200
LEAVES: Final = 16


@dataclass(frozen=True)
class Leak:
    """Something that was found: of which kind, whom it names, its figures, and one sentence."""

    kind: Kind
    suspect: str
    evidence: Mapping[str, float]
    says: str


@dataclass(frozen=True)
class Check:
    """What was looked at, found or not: figures by name, and the same as one sentence."""

    looked_for: Kind
    figures: Mapping[str, float]
    says: str


@dataclass(frozen=True)
class LeakReport:
    """Leaks that keep a model from being registered, those that are trusted, and every check."""

    leaks: tuple[Leak, ...]
    trusted: tuple[Leak, ...]
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the model is not to be registered; empty where it may be."""
        return tuple(leak.says for leak in self.leaks)

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is unknown.

        >>> LeakReport((), (), (Check("interleaved", {"gap_days": float("nan")}, "-"),)).to_json()
        {'leaks': [], 'trusted': [], 'checks': [{'looked_for': 'interleaved', \
'figures': {'gap_days': None}, 'says': '-'}]}
        """
        return {
            name: [
                {field: {k: known(v) for k, v in value.items()} if isinstance(value, dict)
                 else value for field, value in asdict(one).items()}
                for one in getattr(self, name)
            ]
            for name in ("leaks", "trusted", "checks")
        }  # fmt: skip


class Found(NamedTuple):
    """The result of one check."""

    leaks: Sequence[Leak]
    checks: Sequence[Check]


def find_leaks(
    split: TimeSplit,
    tables: Tables,
    rates: Rates,
    *,
    trusted: Collection[str] = (),
    compute: Compute = feature_frame,
    seed: int = 0,
) -> LeakReport:
    """Look for leaks in a split of a canonical folder whose features ``compute`` has made.

    ``trusted`` are features, and tables of `VERDICTS`, of which somebody vouches that they were
    known when they say. Raises ValueError for a name that is neither, and TooLittleData unless
    training and test have both abuse and clean refunds. The same seed finds the same.
    """
    check_trusted(trusted, split.train.names)
    for name, examples in (("training", split.train), ("the test", split.test)):
        if not 0 < examples.positives < len(examples):
            raise TooLittleData(f"leaks: expected abuse and clean refunds in {name}, got "
                                f"{examples.positives} of abuse in {len(examples)}")  # fmt: skip
    part = _part_of(split, tables, rates, compute, seed)
    found = (
        separates_alone(split, trusted=trusted, seed=seed),
        _collapses(split, part, rates, compute, seed),
        shared_refunds(split),
        interleaved(split),
        _future_facts(part, rates, compute),
    )
    leaks = [leak for one in found for leak in one.leaks]
    settled = [leak for leak in leaks if _may_be_trusted(leak) and leak.suspect in trusted]
    return LeakReport(
        tuple(leak for leak in leaks if leak not in settled), tuple(settled),
        tuple(check for one in found for check in one.checks),
    )  # fmt: skip


def _may_be_trusted(leak: Leak) -> bool:
    return leak.kind in ("separates_alone", "collapses_with_the_gap")


def check_trusted(trusted: Collection[str], features: Sequence[str]) -> None:
    """Raise ValueError, naming the nearest, for what is no feature and no table of verdicts."""
    names = (*VERDICTS, *features)
    wrong = []
    for name in sorted(set(trusted) - set(names)):
        near = difflib.get_close_matches(name, names, 1)
        hint = f", did you mean {near[0]}?" if near else ""
        wrong.append(f"{name!r}{hint}")
    if wrong:
        raise ValueError(f"trusted: expected features of the catalog, or {' or '.join(VERDICTS)}, "
                         f"got {'; '.join(wrong)}")  # fmt: skip


def _trust(suspect: str) -> str:
    return f"if it was, say so with --trust {suspect}"


def _span(days: float) -> str:
    """A time in its own unit.

    >>> _span(5 / 24 / 60), _span(0.25), _span(12.3)
    ('5.0 minutes', '6.0 hours', '12.3 days')
    """
    minutes = days * 24 * 60
    if minutes < 60:
        return f"{minutes:.1f} minutes"
    return f"{days * 24:.1f} hours" if days < 2 else f"{days:.1f} days"


def _probe(
    matrix: FloatArray, abuse: FloatArray, later: FloatArray, names: Sequence[str],
    recipe: Recipe, seed: int,
) -> FloatArray:  # fmt: skip
    """Scores of ``later`` (n, F) by a quick model of ``matrix`` (m, F)."""
    codes = [f.name for f in MODEL_FEATURES if f.unit == "code" and f.name in names]
    seen = lightgbm.Dataset(
        matrix, abuse, feature_name=list(names), categorical_feature=codes,
        params={"verbosity": -1, "num_threads": 1},
    )  # fmt: skip
    # One thread: on a busy machine two wait for one another ten times as long as they work here.
    booster = lightgbm.train({**recipe.parameters(seed), "num_threads": 1}, seen, TREES)
    return np.asarray(booster.predict(later, raw_score=True), np.float64)


def _ap(score: FloatArray, abuse: FloatArray) -> float:
    return Ranking(score, abuse).figures()["average_precision"]


def _least_gain(
    score: FloatArray, other: FloatArray, abuse: FloatArray, customer: IntArray, seed: int
) -> float:
    """By how much AP ``score`` is better than ``other``: the low end of the 95 % interval."""
    rounds = resample(
        {"score": Ranking(score, abuse).figures, "other": Ranking(other, abuse).figures},
        customer, rounds=ROUNDS, seed=seed,
    )  # fmt: skip
    return rounds.gain("score", "other", "average_precision").low


def _some(examples: Examples, seed: int) -> Examples:
    """At most `MOST_ROWS` of the examples, in order."""
    if len(examples) <= MOST_ROWS:
        return examples
    draw = np.random.default_rng(seed)
    return examples.where(np.sort(draw.choice(len(examples), MOST_ROWS, replace=False)))


# --- 1: a feature that separates alone -------------------------------------------------------


@dataclass(frozen=True)
class _Alone:
    """What each model input says by itself: scores (n, F) of the test, and their figures (F,)."""

    scores: FloatArray
    ap: FloatArray
    auc: FloatArray
    pure: FloatArray


def separates_alone(split: TimeSplit, *, trusted: Collection[str] = (), seed: int = 0) -> Found:
    """Features that tell abuse by themselves, out of time; also by being known or not.

    A feature alone is a small tree on the training examples, so that codes, missing values and
    bumps count as they do in a model. It is suspect when it is near perfect, when it is as good as
    the whole model and far better than all that are not suspect together, or when it finds a good
    part of all abuse and nothing else. What is ``trusted`` is left out of the model that the others
    are compared with, so that it hides none of them.
    """
    train, test = _some(split.train, seed), _some(split.test, seed)
    matrix, later = train.inputs, test.inputs
    alone = _each_alone(matrix, train.abuse, later, test.abuse)

    def together(columns: IntArray) -> FloatArray:
        if not len(columns):
            return np.zeros(len(test))
        names = [MODEL_NAMES[column] for column in columns]
        return _probe(matrix[:, columns], train.abuse, later[:, columns], names, PROBE, seed)

    untrusted = np.flatnonzero([name not in trusted for name in MODEL_NAMES])
    whole = _ap(together(untrusted), test.abuse)
    near_perfect = (alone.auc >= PERFECT_AUC) | (alone.pure >= PURE_RECALL)
    chance = float(test.abuse.mean())
    telling = alone.ap - chance >= SHARE_OF_MODEL * max(whole - chance, 0.0)
    suspects = np.flatnonzero(near_perfect | (telling & (alone.ap > chance)))
    check = _looked_at_each(alone, whole, len(suspects), test)
    if not len(suspects):
        return Found((), (check,))
    others = np.setdiff1d(untrusted, suspects)
    rest = together(others)
    next_ap = float(alone.ap[others].max(initial=0.0))
    leaks = [
        _told(alone, column, later[:, column], test, whole, rest, next_ap)
        for column in suspects.tolist()
        if _tells_too_much(alone, column, test, rest, seed)
    ]
    return Found(leaks, (check,))


def _looked_at_each(alone: _Alone, whole: float, suspects: int, test: Examples) -> Check:
    first, second = np.argsort(-alone.ap, kind="stable")[:2].tolist()
    figures = {
        "features": len(alone.ap), "whole_model_ap": whole, "prevalence": test.abuse.mean(),
        "most_auc": alone.auc.max(), "most_ap": alone.ap[first], "next_ap": alone.ap[second],
        "most_pure_recall": alone.pure.max(), "suspects": suspects,
    }  # fmt: skip
    plain = {name: float(value) for name, value in figures.items()}
    return Check("separates_alone", plain, (
        f"of {len(alone.ap)} features {MODEL_NAMES[first]} says most alone: AP "
        f"{alone.ap[first]:.3f} out of time, the whole model {whole:.3f}, the next feature "
        f"{alone.ap[second]:.3f}; the best AUC of one is {alone.auc.max():.3f}"
    ))  # fmt: skip


def _each_alone(
    matrix: FloatArray, abuse: FloatArray, later: FloatArray, later_abuse: FloatArray
) -> _Alone:
    scores = np.empty(later.shape)
    least = max(20, len(abuse) // 500)
    for column in range(matrix.shape[1]):
        tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES, min_samples_leaf=least, random_state=0)
        tree.fit(matrix[:, [column]], abuse)
        scores[:, column] = tree.predict_proba(later[:, [column]])[:, 1]
    figures = [Ranking(score, later_abuse).figures() for score in scores.T]
    return _Alone(
        scores, np.array([of["average_precision"] for of in figures]),
        np.array([of["auc"] for of in figures]),
        np.array([_pure_recall(score, later_abuse) for score in scores.T]),
    )  # fmt: skip


def _pure_recall(score: FloatArray, abuse: FloatArray) -> float:
    """The share of all abuse that the purest scores find; 0 for fewer than ten cases.

    >>> _pure_recall(np.array([0.9] * 10 + [0.1] * 40), np.array([1.0] * 10 + [0.0, 1.0] * 20))
    0.3333333333333333
    """
    order = np.argsort(-score, kind="stable")
    caught = np.cumsum(abuse[order])
    whole_ties = np.append(np.diff(score[order]) != 0, True)
    pure = whole_ties & (caught >= PURE * np.arange(1, len(abuse) + 1)) & (caught >= 10)
    return float(caught[pure].max(initial=0.0) / abuse.sum())


def _tells_too_much(
    alone: _Alone, column: int, test: Examples, rest: FloatArray, seed: int
) -> bool:
    if alone.auc[column] >= PERFECT_AUC or alone.pure[column] >= PURE_RECALL:
        return True
    others = _ap(rest, test.abuse)
    if alone.ap[column] - others < SHARE_OF_REST * (1 - others):
        return False
    return _least_gain(alone.scores[:, column], rest, test.abuse, test.customer, seed) > 0


def _told(
    alone: _Alone, column: int, values: FloatArray, test: Examples, whole: float,
    rest: FloatArray, next_ap: float,
) -> Leak:  # fmt: skip
    name, others = MODEL_NAMES[column], _ap(rest, test.abuse)
    missing = np.isnan(values).astype(np.float64)
    by_absence = max(_ap(missing, test.abuse), _ap(-missing, test.abuse))
    evidence = {
        "ap_alone": float(alone.ap[column]), "auc_alone": float(alone.auc[column]),
        "pure_recall": float(alone.pure[column]), "ap_of_being_known_or_not": by_absence,
        "whole_model_ap": whole, "other_features_ap": others, "next_feature_ap": next_ap,
    }  # fmt: skip
    what = f"whether {name} is known" if by_absence >= 0.9 * alone.ap[column] else name
    pure = (f" and finds {alone.pure[column]:.0%} of all abuse with hardly an honest refund among "
            "it" if alone.pure[column] >= PURE_RECALL else "")  # fmt: skip
    return Leak("separates_alone", name, evidence, (
        f"leak: {what} alone reaches AP {alone.ap[column]:.2f} (AUC {alone.auc[column]:.3f}) of "
        f"the test{pure}; the whole model reaches {whole:.2f}, all features that are not suspect "
        f"{others:.2f}, the next one alone {next_ap:.2f}; expected no feature to say as much as "
        f"the others together, unless it was known when the refund was asked for: {_trust(name)}"
    ))  # fmt: skip


# --- 2: a score that collapses when the label gap widens -------------------------------------


def _about(verdicts: pd.DataFrame, tables: Tables) -> IntArray:
    """When the latest thing each verdict (n,) can be about was known (epoch ms), -1 for nothing.

    That is the refund or the order it names, whenever it came, or the last refund request before
    it of the order, customer or payment method that it names.
    """
    keys = ["refund_id", "order_id", "customer_id", "payment_method_id"]
    requests = tables["refund_requests"].select(["known_at", *keys]).to_pandas()
    named = {"refund_id": requests}
    if "orders" in tables:
        named["order_id"] = tables["orders"].select(["known_at", "order_id"]).to_pandas()
    about = np.full(len(verdicts), -1, np.int64)
    for key in (key for key in keys if key in verdicts):
        naming = verdicts[key].notna().to_numpy()
        if key in named:
            first = named[key].dropna(subset=key).drop_duplicates(key).set_index(key)["known_at"]
            at = verdicts[key].map(first).fillna(-1).to_numpy(np.int64)
            about = np.maximum(about, at)
        asked = requests.loc[requests[key].notna(), ["known_at", key]].astype({key: object})
        if key != "refund_id" and naming.any() and len(asked):
            asked = asked.assign(at=asked["known_at"])
            verdict = verdicts.loc[naming, ["known_at", key]].astype({key: object})
            last = pd.merge_asof(verdict, asked, on="known_at", by=key, allow_exact_matches=True)
            about[naming] = np.maximum(about[naming], last["at"].fillna(-1).to_numpy(np.int64))
    return about


@dataclass(frozen=True)
class _Timing:
    """When the verdicts (n,) of a table were known, and what they are about; source by name."""

    known_at: IntArray
    about: IntArray
    source: NDArray[np.object_]

    @property
    def too_soon(self) -> BoolArray:
        """Which were known before anybody could have reached them."""
        least = np.array([SOON_MS.get(source, -1) for source in self.source], np.int64)
        return (self.about >= 0) & (least >= 0) & (self.known_at - self.about < least)


def _timing(table: str, tables: Tables) -> _Timing:
    verdicts = tables[table].to_pandas()
    if table == "labels":
        source = verdicts["source"].fillna("ANALYST").to_numpy(object)
    else:  # Neither a warning nor a question is a verdict: both may come at once.
        stage = verdicts["stage"]
        charged = (stage.isna() | stage.isin(CHARGEBACK_STAGES)).to_numpy()
        source = np.where(charged, "CHARGEBACK", "WARNING").astype(object)
    return _Timing(verdicts["known_at"].to_numpy(np.int64), _about(verdicts, tables), source)


def _collapses(split: TimeSplit, part: _Part, rates: Rates, compute: Compute, seed: int) -> Found:
    """Tables of verdicts on whose early arrival the score lives, each held back by itself."""
    leaks, checks = [], []
    for table in (name for name in VERDICTS if name in part.tables and len(part.tables[name])):
        timing = _timing(table, part.tables)
        delays = (timing.known_at - timing.about)[timing.about >= 0] / DAY_MS
        shares = {
            source: float(timing.too_soon[timing.source == source].mean())
            for source in sorted(set(timing.source) & set(SOON_MS))
        }
        figures = {
            "verdicts": float(len(timing.about)), "too_soon": float(timing.too_soon.sum()),
            "delay_days_p50": float(np.median(delays)) if len(delays) else float("nan"),
            **{f"too_soon_share_{source.lower()}": share for source, share in shares.items()},
        }  # fmt: skip
        says = (
            f"{table}: {timing.too_soon.sum():,} of {len(timing.about):,} verdicts were known "
            f"sooner than anybody could reach them, half of all within "
            f"{_span(figures['delay_days_p50'])}"
        )
        early = [source for source, share in shares.items() if share >= TOO_SOON_SHARE]
        if early:
            loss = _loss(table, timing, split, part, rates, compute, seed)
            figures |= loss
            says += (
                f"; held back to {split.maturity_days} days, the features they carry fall from AP "
                f"{loss['ap_as_is']:.3f} to {loss['ap_held_back']:.3f}"
            )
            if loss["loss"] >= COLLAPSE and loss["least_loss_of_ap"] > 0:
                leaks.append(_collapsed(table, early, figures, split.maturity_days))
        checks.append(Check("collapses_with_the_gap", figures, says))
    return Found(leaks, checks)


def _collapsed(
    table: str, early: Sequence[str], figures: Mapping[str, float], maturity_days: int
) -> Leak:
    shares = ", ".join(f"{figures[f'too_soon_share_{s.lower()}']:.0%} of {s}" for s in early)
    return Leak("collapses_with_the_gap", table, figures, (
        f"leak: {table} are known too soon ({shares}; half of all within "
        f"{_span(figures['delay_days_p50'])} of what they are about). Held back until a "
        f"label is mature ({maturity_days} days), the {figures['features']:.0f} features they "
        f"carry fall from AP {figures['ap_as_is']:.2f} to {figures['ap_held_back']:.2f}, and the "
        f"whole model from {figures['whole_model_ap_as_is']:.2f} to "
        f"{figures['whole_model_ap_held_back']:.2f}; expected a loss below {COLLAPSE:.0%} of what "
        f"is above chance, unless each was known when it says: {_trust(table)}"
    ))  # fmt: skip


def _held_back(table: str, timing: _Timing, tables: Tables, maturity_days: int) -> Tables:
    """The folder with the verdicts that came too soon known when a label is mature."""
    mature = timing.about + maturity_days * DAY_MS
    at = pa.array(np.where(timing.too_soon, mature, timing.known_at), pa.int64())
    held = tables[table]
    place = held.schema.get_field_index("known_at")
    return {**tables, table: canonical_table(table, held.set_column(place, "known_at", at))}


def _loss(
    table: str, timing: _Timing, split: TimeSplit, part: _Part, rates: Rates, compute: Compute,
    seed: int,
) -> dict[str, float]:  # fmt: skip
    """AP of the later half of the examples, learnt from the earlier, as is and held back.

    Judged are the features that change, by themselves: among all others a part of what the
    verdicts say is said again, and the fall would hide in the noise of a small test.
    """
    held = compute(_held_back(table, timing, part.tables, split.maturity_days), rates)
    rows, abuse, customer = part.examples
    as_is, changed = {}, {}
    for name in MODEL_NAMES:
        as_is[name], changed[name] = part.features[name][rows], held.columns[name][rows]
    carried = [name for name in MODEL_NAMES if not _same(as_is[name], changed[name]).all()]
    half = len(rows) // 2
    if not carried or not 0 < abuse[:half].sum() < half:
        return dict.fromkeys(_LOSS, 0.0)

    def score(columns: Columns, names: Sequence[str], recipe: Recipe) -> FloatArray:
        matrix = np.column_stack([columns[name] for name in names])
        return _probe(matrix[:half], abuse[:half], matrix[half:], names, recipe, seed)

    later, chance = abuse[half:], float(abuse[half:].mean())
    ours, theirs = (score(of, carried, NARROW_PROBE) for of in (as_is, changed))
    whole, fallen = (_ap(score(of, MODEL_NAMES, PROBE), later) for of in (as_is, changed))
    before, after = _ap(ours, later), _ap(theirs, later)
    least = _least_gain(ours, theirs, later, customer[half:], seed)
    loss = (before - after) / (before - chance) if before > chance else 0.0
    figures = (len(carried), before, after, loss, least, whole, fallen)
    return dict(zip(_LOSS, map(float, figures), strict=True))


_LOSS: Final = (
    "features", "ap_as_is", "ap_held_back", "loss", "least_loss_of_ap", "whole_model_ap_as_is",
    "whole_model_ap_held_back",
)  # fmt: skip


# --- 3: training and test that share refunds, or their time ----------------------------------


def shared_refunds(split: TimeSplit) -> Found:
    """Refunds that are in training and test, or in one of them twice; and copies of rows."""
    train, test = split.train, split.test
    both = np.intersect1d(train.refund_id.astype(str), test.refund_id.astype(str))
    twice = [str(name) for part in (train, test) for name in _repeated(part.refund_id)]
    copies, by_chance = _copies(train, test)
    figures = {
        "in_both": float(len(both)), "twice_in_one": float(len(twice)),
        "copies_in_test_share": copies, "copies_within_training_share": by_chance,
    }  # fmt: skip
    check = Check("shared_refunds", figures, (
        f"{len(both):,} refunds are in both training and test, {len(twice):,} twice in one of "
        f"them, and {copies:.2%} of the test rows are in training under another id"
    ))  # fmt: skip
    leaks = []
    for ids, where in ((both.tolist(), "in both training and test"),
                       (twice, "twice in training or in the test")):  # fmt: skip
        if ids:
            leaks.append(Leak("shared_refunds", _few(ids), figures, (
                f"leak: {len(ids):,} refunds are {where}, among them {_few(ids)}; expected none: "
                "what was learnt by heart would be taken for knowledge"
            )))  # fmt: skip
    if copies > COPIES_SHARE + 2 * by_chance:
        leaks.append(Leak("shared_refunds", "copies under other ids", figures, (
            f"leak: {copies:.1%} of the test rows are, feature by feature, rows of the training "
            f"under another refund_id; expected at most {COPIES_SHARE:.0%} beyond the "
            f"{by_chance:.1%} that come by chance within the training: remove the copies"
        )))  # fmt: skip
    return Found(leaks, (check,))


def _few(ids: Sequence[str]) -> str:
    """The first ids, and how many more.

    >>> _few(["r1", "r2", "r3", "r4", "r5"])
    'r1, r2, r3 and 2 more'
    """
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3:,} more" if len(ids) > 3 else "")


def _repeated(ids: NDArray[np.object_]) -> NDArray[np.str_]:
    names, counts = np.unique(ids.astype(str), return_counts=True)
    return names[counts > 1]


def _copies(train: Examples, test: Examples) -> tuple[float, float]:
    """The share of test rows that are training rows of other refunds, and what chance makes it.

    Chance is what the later half of the training examples repeats of the earlier.
    """
    learnt, judged = _fingerprints(train), _fingerprints(test)
    new = ~np.isin(test.refund_id.astype(str), train.refund_id.astype(str))
    half = len(learnt) // 2
    return (
        float((np.isin(judged, learnt) & new).mean()),
        float(np.isin(learnt[half:], learnt[:half]).mean()),
    )


def _fingerprints(examples: Examples) -> NDArray[np.uint64]:
    """A hash (n,) of each row's model inputs; two of a million rows share one once in 10^7."""
    found = np.zeros(len(examples), np.uint64)
    for name in MODEL_NAMES:
        values = examples.column(name) + 0.0  # makes -0.0 a 0.0
        bits = np.where(np.isnan(values), np.nan, values).view(np.uint64)
        found = (found ^ bits) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    return found


def interleaved(split: TimeSplit) -> Found:
    """Whether every training refund was mature before the first of the test, as in service.

    Its measure is how often a training refund is later than one of the test: never in a split in
    time, in half of all pairs in a random one.
    """
    train, test = split.train.known_at, split.test.known_at
    start = min(split.test_from, int(test.min()))
    later = float(np.searchsorted(np.sort(test), train).mean() / len(test))
    figures = {
        "later_pairs": later, "train_after_test_began": float((train >= start).mean()),
        "train_within_label_gap": float((train > start - split.maturity_days * DAY_MS).mean()),
        "test_before_training_ended": float((test <= train.max()).mean()),
        "gap_days": float(start - int(train.max())) / DAY_MS,
    }  # fmt: skip
    check = Check("interleaved", figures, (
        f"the last training refund came {figures['gap_days']:.1f} days before the test began; a "
        f"training refund is later than a test refund in {later:.1%} of pairs"
    ))  # fmt: skip
    if not figures["train_within_label_gap"]:
        return Found((), (check,))
    if later > 0:
        says = (
            f"leak: training and test are mixed in time: a training refund is later than a test "
            f"refund in {later:.1%} of pairs (a split in time: 0 %, a random split: 50 %), "
            f"{figures['train_after_test_began']:.1%} of the training refunds came after the test "
            f"began and {figures['test_before_training_ended']:.1%} of the test refunds before the "
            "training ended: the model would learn the future it is asked to predict; split in "
            "time, with training_frame"
        )
    else:
        says = (
            f"leak: {figures['train_within_label_gap']:.1%} of the training refunds came less than "
            f"{split.maturity_days} days before the test began, the last {figures['gap_days']:.1f}:"
            " their labels were not known then; end the training earlier"
        )
    return Found((Leak("interleaved", "the split", figures, says),), (check,))


# --- 4: features computed from what came later -----------------------------------------------


def _future_facts(part: _Part, rates: Rates, compute: Compute) -> Found:
    """Features that change when what came after an instant is taken away."""
    known_at = part.tables["refund_requests"]["known_at"].to_numpy().astype(np.int64)
    differing = dict.fromkeys(part.features, 0)
    reach_ms = dict.fromkeys(part.features, 0)
    compared = 0
    for instant in sorted({int(known_at[int(len(known_at) * share)]) for share in INSTANTS}):
        before = known_at < instant
        if not before.any():
            continue
        compared += int(before.sum())
        then = compute(_known_before(part.tables, instant), rates)
        for name, values in part.features.items():
            changed = ~_same(values[before], then.columns[name])
            if changed.any():
                differing[name] += int(changed.sum())
                ahead = instant - int(known_at[before][changed].min())
                reach_ms[name] = max(reach_ms[name], ahead)
    leaks = [
        _read_ahead(name, count, compared, reach_ms[name] / DAY_MS)
        for name, count in differing.items() if count
    ]  # fmt: skip
    figures = {"instants": float(len(INSTANTS)), "rows_compared": float(compared),
               "features": float(len(differing)), "features_that_differ": float(len(leaks)),
               "share_of_customers": part.share}  # fmt: skip
    check = Check("future_facts", figures, (
        f"{len(differing)} features of {compared:,} requests were computed again from what was "
        f"known before {len(INSTANTS)} instants: {len(leaks)} of them differ"
    ))  # fmt: skip
    return Found(leaks, (check,))


def _read_ahead(name: str, differ: int, compared: int, days: float) -> Leak:
    evidence = {"rows_that_differ": float(differ), "rows_compared": float(compared),
                "reads_days_ahead": days}  # fmt: skip
    return Leak("future_facts", name, evidence, (
        f"leak: {name} differs in {differ:,} of {compared:,} requests once what came later is "
        f"taken away: it reads {_span(days)} ahead, if not more; expected the same value "
        "from what was known before the request"
    ))  # fmt: skip


def _same(values: FloatArray, others: FloatArray) -> BoolArray:
    """Which values agree but for the rounding of sums that were added in another order."""
    return np.isclose(values, others, rtol=1e-9, atol=1e-9, equal_nan=True)


def _known_before(tables: Tables, instant: int) -> Tables:
    """The folder as it was at an instant."""
    return {
        name: table.filter(pc.less(table["known_at"], instant))
        if "known_at" in table.column_names else table
        for name, table in tables.items()
    }  # fmt: skip


# --- a part of a large folder ----------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A folder, or all events of a ``share`` of its customers, with features of its requests.

    ``examples`` are labelled requests in order of time: rows of the part, abuse, customer, (n,).
    """

    tables: Tables
    features: Columns
    examples: tuple[IntArray, FloatArray, IntArray]
    share: float


def _part_of(split: TimeSplit, tables: Tables, rates: Rates, compute: Compute, seed: int) -> _Part:
    requests = len(tables["refund_requests"])
    share = min(1.0, MOST_REQUESTS / requests)
    kept = np.ones(requests, np.bool_)
    part, features = tables, split.train.features
    if share < 1:
        masks = dict(_of_some_customers(tables, share, seed))
        part = {name: table.filter(masks[name]) for name, table in tables.items()}
        kept = masks["refund_requests"].to_numpy(zero_copy_only=False)
        features = compute(part, rates).columns
    row = np.concatenate([split.train.row, split.test.row])
    abuse = np.concatenate([split.train.abuse, split.test.abuse])
    customer = np.concatenate([split.train.customer, split.test.customer])
    chosen = np.flatnonzero(kept[row])
    chosen = chosen[np.argsort(row[chosen], kind="stable")]
    place = np.cumsum(kept) - 1
    return _Part(part, features, (place[row[chosen]], abuse[chosen], customer[chosen]), share)


def _of_some_customers(tables: Tables, share: float, seed: int) -> Iterator[tuple[str, pa.Array]]:
    """Per table, which rows are of a random share of the customers, or of no customer at all."""
    of_refunds = tables["refund_requests"]["customer_id"]
    of_orders = tables["orders"]["customer_id"] if "orders" in tables else of_refunds
    everybody = pc.unique(pa.chunked_array([*of_refunds.chunks, *of_orders.chunks], pa.string()))
    drawn = np.random.default_rng(seed).random(len(everybody)) < share
    chosen = {"customer_id": everybody.filter(pa.array(drawn))}
    for key, table in (("refund_id", "refund_requests"), ("order_id", "orders")):
        if table in tables:
            theirs = pc.is_in(tables[table]["customer_id"], chosen["customer_id"])
            chosen[key] = tables[table][key].filter(theirs).combine_chunks()
    for name, table in tables.items():
        keep = pa.nulls(len(table), pa.bool_())
        for key in (key for key in chosen if key in table.column_names):
            column = table[key].combine_chunks()
            of_them = pc.if_else(pc.is_valid(column), pc.is_in(column, chosen[key]), None)
            keep = pc.coalesce(keep, of_them)
        yield name, pc.fill_null(keep, True)
