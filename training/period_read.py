"""The decisions of a stretch of time as columns: what a report over many of them counts.

Of each refund the last decision of the stretch stands, an analyst's only where there is no other,
so a refund that was sent again counts once. Weights are summed up by reason code while reading, as
`serving.reasons` groups them: a million decisions keep 50 numbers each instead of 500. Feature
rows are kept of every so many decisions only, at most `MOST_SAMPLED` of a stretch.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import func, select

from features.catalog import BY_NAME, FEATURES
from rules.decision import Action, Source
from serving.codes import NO_HISTORY, NOT_KNOWN
from serving.logged import without_misses
from serving.reasons import Ranking
from serving.store.decisions import RawDecision
from serving.store.schema import decisions
from serving.store.store import Store
from training.backtest_sums import last_of_each

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

MOST_SAMPLED: Final = 20_000
"""Of so many decisions of a stretch, evenly spread, the feature rows are kept."""

LISTED: Final = "LISTED"
"""The reason code of whom a list answered for, as an answer has it: a list's own words are free."""

_CHUNK: Final = 4_096
_ANALYST: Final = Source.MANUAL_REVIEW.value
_CODES: Final = (*dict.fromkeys(f.reason_code for f in FEATURES), NO_HISTORY, NOT_KNOWN)
"""Every reason code that a value may count to."""

Kept = tuple[str, tuple[str, ...]]
"""What feature rows are comparable by: the catalog's hash, and the model's features in order."""


class Words:
    """Words met so far, numbered from 0: a column of words is one of numbers.

    >>> words = Words()
    >>> words("a"), words("b"), words("a"), words.met
    (0, 1, 0, ['a', 'b'])
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def __call__(self, word: Hashable) -> int:
        """The number of a word."""
        return self._numbers.setdefault(word, len(self._numbers))

    @property
    def met(self) -> list[Any]:
        """The words, in the order of their numbers."""
        return [*self._numbers]


@dataclass
class Dictionary:
    """The words of all columns of a report, shared by its stretches."""

    customers: Words = field(default_factory=Words)
    sources: Words = field(default_factory=Words)
    channels: Words = field(default_factory=Words)
    models: Words = field(default_factory=Words)
    policies: Words = field(default_factory=Words)
    reasons: Words = field(default_factory=Words)
    """Of (who says it, code): the model, a rule or a list."""
    rules: Words = field(default_factory=Words)
    """Of (rule id, mode, the action that it asks for)."""


@dataclass(frozen=True)
class Sample:
    """Feature rows of some scored refunds: ``values`` (s, features), NaN where unknown.

    ``weights`` (s, features) is what each added to the score in log-odds, ``row`` (s,) the place of
    the refund among all of the stretch.
    """

    row: IntArray
    values: FloatArray
    weights: FloatArray


TABLE: Final = np.dtype([
    ("decided_at", "i8"), ("customer", "i8"), ("action", "i1"), ("source", "i4"),
    ("channel", "i4"), ("model", "i4"), ("policy", "i4"), ("degraded", "?"), ("explored", "?"),
    ("by_analyst", "?"), ("propensity", "f8"), ("probability", "f8"), ("payable_minor", "f8"),
])  # fmt: skip
"""What is kept of every refund; words are numbers of the report's `Dictionary`, -1 for no model.

``action`` is a severity. ``payable_minor``, in the base currency, and ``probability`` are NaN where
unknown."""


@dataclass(frozen=True)
class Refunds:
    """The refunds decided in a stretch, once each, in order of their decisions; arrays (n,).

    ``weights`` (n, codes) is what each of ``codes`` added to the score, in log-odds, NaN where
    nothing was explained. ``told`` (t, 2) pairs places of refunds with reasons that were given,
    ``hits`` (h, 2) with rules that hit.
    ``decisions`` counts those that another followed, too.
    """

    refund_id: NDArray[np.object_]
    table: NDArray[Any]
    weights: NDArray[np.float32]
    told: IntArray
    hits: IntArray
    samples: Mapping[Kept, Sample]
    decisions: int
    codes: tuple[str, ...] = _CODES

    def __len__(self) -> int:
        return len(self.table)

    @property
    def explained(self) -> Mask:
        """Which refunds (n,) have weights."""
        return ~np.isnan(self.weights[:, -1])

    def at(self, chosen: IntArray) -> Refunds:
        """The refunds at these places, which rise."""
        if len(chosen) == len(self):
            return self
        place = np.full(len(self), -1)
        place[chosen] = np.arange(len(chosen))
        return replace(
            self, refund_id=self.refund_id[chosen], table=self.table[chosen],
            weights=self.weights[chosen], told=_paired(self.told, place),
            hits=_paired(self.hits, place),
            samples={kept: _moved(one, place) for kept, one in self.samples.items()},
        )  # fmt: skip

    @classmethod
    def together(cls, parts: Sequence[Refunds]) -> Refunds:
        """The refunds of stretches that follow one another, each in its last, without weights."""
        later: set[str] = set()
        kept: list[Refunds] = []
        for part in reversed(parts):
            is_last = np.array([one not in later for one in part.refund_id], np.bool_)
            kept.insert(0, part.at(np.flatnonzero(is_last)))
            later.update(part.refund_id)
        table = np.concatenate([part.table for part in kept])
        first = np.cumsum([0, *map(len, kept)])[: len(kept)]
        hits = [part.hits + np.array([at, 0]) for part, at in zip(kept, first, strict=True)]
        return cls(
            refund_id=np.concatenate([part.refund_id for part in kept]), table=table,
            weights=np.zeros((len(table), 0), np.float32), told=np.zeros((0, 2), np.int64),
            hits=np.concatenate(hits),
            samples={}, decisions=sum(part.decisions for part in parts), codes=(),
        )  # fmt: skip


def _paired(pairs: IntArray, place: IntArray) -> IntArray:
    """Pairs (t, 2) of what is kept, with where it stands now; ``place`` is -1 of what is not."""
    there = pairs[place[pairs[:, 0]] >= 0]
    return np.column_stack([place[there[:, 0]], there[:, 1]])


def _moved(sample: Sample, place: IntArray) -> Sample:
    there = place[sample.row] >= 0
    return Sample(place[sample.row][there], sample.values[there], sample.weights[there])


def read(
    store: Store, since: int, until: int, words: Dictionary, *, weights: bool = True
) -> Refunds:
    """The refunds with a decision of ``since <= decided_at < until`` (epoch ms).

    Without ``weights`` none is explained, which saves half of what there is to read.
    """
    at = decisions.c.decided_at
    with store.database.read() as connection:
        wanted = select(func.count()).where(at >= since, at < until)
        count = connection.execute(wanted).scalar_one()
    rows = _Rows(words, step=max(1, math.ceil(count / MOST_SAMPLED)))
    rows.add(store.raw_decisions(since, until, contributions=weights))
    return rows.refunds()


class _Rows:
    """What is kept of decisions as they are read; numbers are worked on by the thousand."""

    def __init__(self, words: Dictionary, step: int) -> None:
        self._words, self._step = words, step
        self._ids: list[str] = []
        self._told: list[tuple[int, int]] = []
        self._hits: list[tuple[int, int]] = []
        self._run: list[tuple[Any, ...]] = []
        self._tables: list[NDArray[Any]] = [np.zeros(0, TABLE)]
        self._weights = [np.zeros((0, len(_CODES)), np.float32)]
        self._samples: dict[Kept, list[Sample]] = {}

    def add(self, raws: Iterable[RawDecision]) -> None:
        """Read decisions, in runs of those whose numbers have the same names."""
        run: list[RawDecision] = []
        kept: tuple[Any, ...] = ()
        for raw in raws:
            catalog = self._one(raw)
            if run and (len(run) == _CHUNK or (catalog, *raw[5::2]) != kept):
                self._numbers(run, str(kept[0]))
                run = []
            if not run:
                kept = (catalog, *raw[5::2])
            run.append(raw)
        if run:
            self._numbers(run, str(kept[0]))

    def _one(self, raw: RawDecision) -> str:
        """What a record says; answers the hash of the catalog that its features are of."""
        record = orjson.loads(without_misses(raw.record))
        decision, words, place = record["decision"], self._words, len(self._ids)
        probability, model = record["probability"], record.get("model_version")
        self._ids.append(raw.refund_id)
        self._run.append((
            raw.decided_at,
            words.customers(record["keys"]["customer"]),
            _SEVERITY[decision["action"]],
            words.sources(decision["source"]),
            words.channels((record.get("facts") or {}).get("channel") or ""),
            -1 if model is None else words.models(model),
            words.policies(decision["policy_version"]),
            decision["degraded"],
            decision["explored"],
            decision["source"] == _ANALYST,
            decision["propensity"],
            math.nan if probability is None else probability,
            math.nan,
        ))  # fmt: skip
        reason = words.reasons
        told = [reason(("model", one["code"])) for one in record["reasons"]]
        told += [reason(("rule", code)) for code in decision["reasons"]]
        if decision.get("list_reasons"):
            told.append(reason(("list", LISTED)))
        self._told += [(place, one) for one in told]
        self._hits += [(place, words.rules((hit["rule_id"], hit["mode"], hit["action"])))
                       for hit in decision.get("hits", ())]  # fmt: skip
        return str(record.get("catalog_hash"))

    def _numbers(self, run: list[RawDecision], catalog: str) -> None:
        """What vectors of the same names say: amounts, weights by reason code, the sample."""
        names, added = run[0].feature_names, run[0].contribution_names
        values = _matrix([raw.features for raw in run], len(names))
        first = sum(map(len, self._tables))
        table, self._run = np.array(self._run[: len(run)], TABLE), self._run[len(run) :]
        if "payable_minor" in names:
            table["payable_minor"] = values[:, names.index("payable_minor")]
        self._tables.append(table)
        model = tuple(name for name in added if name != "expected")
        if not model or not set(model) <= set(names):
            self._weights.append(np.full((len(run), len(_CODES)), np.nan, np.float32))
            return
        weights = _matrix([raw.contributions for raw in run], len(added))[:, : len(model)]
        values = values[:, [names.index(name) for name in model]]
        self._weights.append(_by_code(model, values, weights))
        chosen = np.flatnonzero((first + np.arange(len(run))) % self._step == 0)
        self._samples.setdefault((catalog, model), []).append(
            Sample(first + chosen, values[chosen], weights[chosen])
        )

    def refunds(self) -> Refunds:
        """What was read, each refund once."""
        found = Refunds(
            refund_id=np.array(self._ids, object),
            table=np.concatenate(self._tables),
            weights=np.concatenate(self._weights),
            told=np.array(self._told, np.int64).reshape(-1, 2),
            hits=np.array(self._hits, np.int64).reshape(-1, 2),
            samples={kept: _joined(parts) for kept, parts in self._samples.items()},
            decisions=len(self._ids),
        )
        of = found.table
        return found.at(last_of_each(self._ids, of["decided_at"], of["by_analyst"], {}))


_SEVERITY: Final = {action.value: action.severity for action in Action}


def _matrix(rows: list[bytes], width: int) -> FloatArray:
    """Vectors of one width, of which one without numbers is unknown, as rows (n, width)."""
    nothing = np.full(width, np.nan, "<f8").tobytes()
    return np.frombuffer(b"".join([row or nothing for row in rows]), "<f8").reshape(-1, width)


def _by_code(
    model: tuple[str, ...], values: FloatArray, weights: FloatArray
) -> NDArray[np.float32]:
    """Weights (n, features) summed up (n, codes) by what a reason would be told by.

    What no catalog of this program has counts to no code, and is NaN if the rest cannot be grouped.
    """
    there = [place for place, name in enumerate(model) if name in BY_NAME]
    ranking = _ranking(tuple(model[place] for place in there))
    if ranking is None:
        return np.full((len(values), len(_CODES)), np.nan, np.float32)
    code_of = np.array([_CODES.index(code) for code in ranking.codes])
    rows = np.ascontiguousarray(values[:, there])
    code = code_of[np.array([ranking.grouped(row) for row in rows])]
    place = np.arange(len(rows))[:, None] * len(_CODES) + code
    sums = np.bincount(place.ravel(), weights[:, there].ravel(), len(rows) * len(_CODES))
    return sums.reshape(len(rows), -1).astype(np.float32)


@lru_cache(maxsize=16)
def _ranking(model: tuple[str, ...]) -> Ranking | None:
    """What tells the codes of a model's features apart; None where it cannot."""
    try:
        return Ranking([BY_NAME[name] for name in model]) if model else None
    except ValueError:  # of an older catalog, which lacked what tells why a value is NaN
        return None


def _joined(parts: list[Sample]) -> Sample:
    return Sample(
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )
