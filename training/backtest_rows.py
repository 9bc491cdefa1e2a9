"""What a backtest keeps of each decision: a row of small numbers, so that millions fit and merge.

`record` turns compared decisions into `Rows`; `merged` puts the rows of consecutive stretches of
time together, to the very rows that one pass over all of it gives. Figures are made of rows alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rules.backtest import Cause, Compared, facts_read
from rules.condition import FactValue
from rules.decision import Action, Decision, Source
from rules.logged import Logged
from rules.policy import Policy
from training.policy_log import Logging

FACTS: Final = ("payable_minor", "refund_reason", "channel", "registered_age_days",
                "shipping_country", "billing_country", "currency", "order_currency")  # fmt: skip
"""What a backtest reads of a request besides what the policies read."""

UNKNOWN: Final = -1
"""Stands in a row for an amount, a word, a label, an answer or a cause that is not there."""

ROW: Final = np.dtype([
    ("decided_at", "i8"), ("before", "i1"), ("after", "i1"), ("payable_minor", "i8"),
    ("abuse", "i1"), ("customer", "i4"), ("reason", "i4"), ("channel", "i4"), ("country", "i4"),
    ("age_days", "f8"), ("answered", "i1"), ("explored", "?"), ("propensity", "f8"),
    ("by_analyst", "?"), ("degraded", "?"), ("own", "?"), ("same", "?"), ("causes", "i4"),
])  # fmt: skip
"""Actions are severities, words places in `Rows`' lists of them. ``own`` says that the policy in
force made this decision itself, with nothing explored or overridden, and ``same`` that it does so
again; ``causes`` is a place among sets of causes."""

CANDIDATES: Final = 50
"""So many refunds a set of causes are kept, to pick examples from when labels are known."""

_CHUNK: Final = 8_192
Causes: TypeAlias = tuple[Cause, ...]
Stratum: TypeAlias = tuple[int, int, Causes]
"""Action before and after as severities, and what made the difference."""


@dataclass(frozen=True, slots=True)
class Case:
    """A refund that moved, as an example shows it; ``order`` is a hash that nobody chose."""

    order: int
    row: int
    refund_id: str
    reasons_before: tuple[str, ...]
    reasons_after: tuple[str, ...]
    sources: tuple[str, str]
    currency: str | None
    order_currency: str | None
    facts: dict[str, FactValue]


@dataclass
class Rows:
    """Compared decisions in order of time: ``table`` (n,) of `ROW`, and what its codes stand for.

    ``unreadable`` counts decisions that were stored without what it takes to decide them again;
    ``logging`` tells which facts the others were stored without.
    """

    table: NDArray[Any]
    refund_ids: list[str]
    customers: list[str]
    words: dict[str, list[str]]
    causes: list[Causes]
    cases: dict[Stratum, list[Case]]
    unreadable: int = 0
    logging: Logging = field(default_factory=Logging)

    def __len__(self) -> int:
        return len(self.table)


class _Codes(dict[Any, int]):
    """Things in the order in which they were met first."""

    def __missing__(self, key: Any) -> int:
        self[key] = code = len(self)
        return code


@dataclass
class Recorder:
    """Takes compared decisions one after another; `rows` gives what was kept of them."""

    before: Policy
    after: Policy
    seed: int
    _tables: list[NDArray[Any]] = field(default_factory=list)
    _chunk: list[tuple[Any, ...]] = field(default_factory=list)
    _refund_ids: list[str] = field(default_factory=list)
    _customers: _Codes = field(default_factory=_Codes)
    _reasons: _Codes = field(default_factory=_Codes)
    _channels: _Codes = field(default_factory=_Codes)
    _countries: _Codes = field(default_factory=_Codes)
    _causes: _Codes = field(default_factory=_Codes)
    _heaps: dict[Stratum, list[tuple[int, int, Case]]] = field(default_factory=dict)

    def add(self, compared: Compared) -> None:
        """Keep one decision."""
        row, before, after = compared.logged, compared.before, compared.after
        facts, payable = row.facts, row.payable_minor
        country = facts.get("shipping_country") or facts.get("billing_country")
        age = facts.get("registered_age_days")
        own = row.policy_hash == before.policy_hash and _undisturbed(row)
        self._chunk.append((
            row.decided_at,
            before.action.severity,
            after.action.severity,
            UNKNOWN if payable is None else round(payable),
            UNKNOWN if row.abuse is None else int(row.abuse),
            self._customers[row.customer],
            _code(self._reasons, facts.get("refund_reason")),
            _code(self._channels, facts.get("channel")),
            _code(self._countries, country),
            np.nan if age is None else age,
            UNKNOWN if row.action is None else row.action.severity,
            row.explored,
            row.propensity,
            row.source is Source.MANUAL_REVIEW,
            row.score is None,
            own,
            own and row.action is before.action,
            self._moved(compared) if compared.moved else UNKNOWN,
        ))  # fmt: skip
        self._refund_ids.append(row.refund_id)
        if len(self._chunk) == _CHUNK:
            self._flush()

    def rows(self, unreadable: int = 0, logging: Logging | None = None) -> Rows:
        """All that was kept."""
        self._flush()
        return Rows(
            np.concatenate(self._tables) if self._tables else np.empty(0, ROW),
            self._refund_ids,
            list(self._customers),
            {"reason": list(self._reasons), "channel": list(self._channels),
             "country": list(self._countries)},
            list(self._causes),
            {stratum: sorted((case for *_, case in heap), key=_by_order)
             for stratum, heap in self._heaps.items()},
            unreadable,
            logging or Logging(),
        )  # fmt: skip

    def _flush(self) -> None:
        if self._chunk:
            table = np.empty(len(self._chunk), ROW)
            for name, column in zip(ROW.names or (), zip(*self._chunk, strict=True), strict=True):
                table[name] = column
            self._tables.append(table)
            self._chunk.clear()

    def _moved(self, compared: Compared) -> int:
        """Keep a refund that moved as a possible example; returns the code of its causes."""
        causes = compared.causes
        stratum = (compared.before.action.severity, compared.after.action.severity, causes)
        heap = self._heaps.setdefault(stratum, [])
        row, place = compared.logged, len(self._refund_ids)
        key = f"{self.seed}|{row.refund_id}|{row.decided_at}".encode()
        order = int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
        if len(heap) < CANDIDATES or order < -heap[0][0]:
            push = heapq.heappush if len(heap) < CANDIDATES else heapq.heapreplace
            push(heap, (-order, -place, self._case(compared, causes, order, place)))
        return self._causes[causes]

    def _case(self, compared: Compared, causes: Causes, order: int, place: int) -> Case:
        row, score, lists = compared.logged, compared.logged.score, compared.logged.circumstances
        told = {
            **row.facts,
            **lists.lists.facts(),
            "probability": score.probability if score else None,
            "expected_loss_minor": score.expected_loss_minor if score else None,
        }
        return Case(
            order, place, row.refund_id, _reasons(compared.before), _reasons(compared.after),
            (compared.before.source.value, compared.after.source.value),
            _word(told.get("currency")), _word(told.get("order_currency")),
            {name: told.get(name) for name in facts_read(causes, self.before, self.after)},
        )  # fmt: skip


def record(
    compared: Iterable[Compared], before: Policy, after: Policy, seed: int
) -> Rows:  # fmt: skip
    """What a backtest keeps of decisions in order of time; the seed picks possible examples."""
    recorder = Recorder(before, after, seed)
    for one in compared:
        recorder.add(one)
    return recorder.rows()


def merged(parts: Sequence[Rows]) -> Rows:
    """The rows of parts that follow one another in time, as if recorded in one pass."""
    customers, causes = _Codes(), _Codes()
    words: dict[str, _Codes] = {"reason": _Codes(), "channel": _Codes(), "country": _Codes()}
    strata: dict[Stratum, list[Case]] = {}
    refund_ids: list[str] = []
    tables = []
    for part in parts:
        table = part.table.copy()
        _recode(table["customer"], part.customers, customers)
        _recode(table["causes"], part.causes, causes)
        for name, codes in words.items():
            _recode(table[name], part.words[name], codes)
        for stratum, cases in part.cases.items():
            moved = [_later(case, len(refund_ids)) for case in cases]
            strata[stratum] = sorted([*strata.get(stratum, ()), *moved], key=_by_order)[:CANDIDATES]
        refund_ids += part.refund_ids
        tables.append(table)
    return Rows(
        np.concatenate(tables) if tables else np.empty(0, ROW),
        refund_ids, list(customers), {name: list(codes) for name, codes in words.items()},
        list(causes), strata, sum(part.unreadable for part in parts),
        Logging.together(part.logging for part in parts),
    )  # fmt: skip


def _recode(column: NDArray[Any], own: Sequence[Any], common: _Codes) -> None:
    """Turn codes of one part into those of all, in place; unknown stays."""
    to = np.array([*(common[one] for one in own), UNKNOWN], np.int32)
    column[:] = to[column]  # the last place, -1, is the unknown's


def _later(case: Case, rows: int) -> Case:
    return Case(case.order, case.row + rows, case.refund_id, case.reasons_before,
                case.reasons_after, case.sources, case.currency, case.order_currency,
                case.facts)  # fmt: skip


def _by_order(case: Case) -> tuple[int, int]:
    return case.order, case.row


def _code(codes: _Codes, word: FactValue) -> int:
    return UNKNOWN if word is None or word != word else codes[word]


def _word(value: FactValue) -> str | None:
    return value if isinstance(value, str) else None


def _reasons(decision: Decision) -> tuple[str, ...]:
    return (*decision.reasons, *decision.list_reasons)


def _undisturbed(row: Logged) -> bool:
    """Whether the logged answer is the policy's own: not explored, not an analyst's."""
    return not row.explored and row.source is not Source.MANUAL_REVIEW


ACTIONS: Final = tuple(Action)
"""By severity, as rows hold them."""
