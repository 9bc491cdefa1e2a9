"""The backtest: a candidate policy against another, over a store or a data folder.

Labels are *censored* by the decisions that were made: what was held or prevented was not paid and
has no label, unless somebody looked into it. So what a store's labels say of a candidate that pays
more is little, and where exploration paid some of what would have been held, the figures are given
a second time, each refund weighed by the chance it had (`training.propensity`). In a data folder
all labels that are mature count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final, Literal

import numpy as np
import orjson

from features.events import ENTITIES
from features.money import DAY_MS, Rates
from features.tables import Tables
from rules.backtest import backtest
from rules.changes import changes
from rules.decision import Source
from rules.engine import Circumstances, ListMatch
from rules.logged import Logged
from rules.policy import Policy
from serving.batch import judge_folder
from serving.logged import logged_decisions
from serving.scorer import Champion, keys_of
from serving.store.store import Store
from training.backtest_figures import measured, weighted
from training.backtest_groups import examples, groups_of, moves_of, worth_of
from training.backtest_read import (
    Reading,
    is_as_written,
    pool,
    rows_of,
    without_cycle_collection,
)
from training.backtest_report import BacktestReport
from training.backtest_rows import UNKNOWN, Recorder, Rows, merged
from training.backtest_sums import (
    Truth,
    counted,
    last_of_each,
    ledger,
    saved_minor,
    shifts,
    workload_of,
)
from training.backtest_wording import to_text
from training.labels import DEFAULT_MATURITY_DAYS, label_refunds, paid_at
from training.store_labels import end_of_store, label_tables

__all__ = ["backtest_folder", "backtest_store", "folder_requests", "labelled", "to_text"]

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""

PARTS_PER_PROCESS: Final = 8
"""A store is read in so many stretches of time for each process: none of them idles for long."""


def _no_progress(done: int, total: int) -> None:
    """Nobody watches."""


# --- a data folder -------------------------------------------------------------------------------


def folder_requests(
    tables: Tables, champion: Champion | None, policy: Policy, rates: Rates,
    as_of: int, maturity_days: int = DEFAULT_MATURITY_DAYS, progress: Progress = _no_progress, *,
    reads: Collection[str] = (),
) -> Iterator[Logged]:  # fmt: skip
    """Every refund of canonical tables by its first request, as training takes it, and its label.

    Scores are the champion's, the expected loss as ``policy``'s costs have it. Labels are those
    known at ``as_of`` (epoch ms) of refunds mature by then. A request of a refund that was
    requested before is left out. Facts of an order's documents are told only where ``policy`` reads
    one, or ``reads`` names one.
    """
    labels = label_refunds(tables, as_of=as_of, maturity_days=maturity_days)
    abuse = dict(zip(labels.row.tolist(), labels.abuse.tolist(), strict=True))
    seen: set[str] = set()
    named = frozenset(ENTITIES)
    for place, judged in enumerate(
        judge_folder(tables, champion, policy, rates, progress, reads=reads)
    ):
        request, verdict = judged.request, judged.verdict
        if request.refund_id in seen:
            continue
        seen.add(request.refund_id)
        label = abuse.get(place, math.nan)
        yield Logged(
            refund_id=request.refund_id,
            customer=request.customer_id,
            decided_at=request.known_at,
            facts=verdict.facts,
            score=verdict.score,
            circumstances=Circumstances(lists=ListMatch(entities=named & keys_of(request).keys())),
            abuse=None if math.isnan(label) else bool(label),
        )


def backtest_folder(
    tables: Tables, champion: Champion | None, before: Policy, after: Policy, rates: Rates,
    *, as_of: int, since: int | None = None, until: int | None = None,
    maturity_days: int = DEFAULT_MATURITY_DAYS, seed: int = 0, progress: Progress = _no_progress,
    before_is_in_force: bool = False,
) -> BacktestReport:  # fmt: skip
    """What ``after`` would change against ``before``, on the refunds of canonical tables.

    Those requested at ``since <= known_at < until`` (epoch ms; None: no bound). Labels are those
    known at ``as_of`` of refunds mature by then. Both policies are judged by the costs of
    ``before``. The seed settles draws and examples. Raises LookupError where there is no request.
    """
    first, last = since or 0, 2**63 - 1 if until is None else until
    requests = folder_requests(tables, champion, before, rates, as_of, maturity_days, progress,
                               reads=after.reads)  # fmt: skip
    recorder = Recorder(before, after, seed)
    wanted = (request for request in requests if first <= request.decided_at < last)
    for compared in backtest(before, after, wanted):
        recorder.add(compared)
    known_at = tables["refund_requests"]["known_at"].to_numpy()
    return _report(recorder.rows(), before, after, None, source="folder", currency=rates.base,
                   decisions=int(((known_at >= first) & (known_at < last)).sum()), as_of=as_of,
                   maturity_days=maturity_days, seed=seed, before_is_in_force=before_is_in_force,
                   new_from=None if champion is None else champion.model.manifest.test_from,
                   )  # fmt: skip


# --- a store -------------------------------------------------------------------------------------


def backtest_store(
    store: Store, before: Policy, after: Policy, *, since: int | None = None,
    until: int | None = None, maturity_days: int = DEFAULT_MATURITY_DAYS, seed: int = 0,
    processes: int = 1, progress: Progress = _no_progress, before_is_in_force: bool = False,
) -> BacktestReport:  # fmt: skip
    """What ``after`` would have changed on decisions of ``since <= decided_at < until`` (epoch ms).

    Labels are those known at the end of the store. Both policies are judged by the costs of
    ``before``; the seed settles draws and examples. The report is the same with any number of
    processes; a policy that was made by `Policy.with_mode` or `Policy.without` is no document, so
    then one process does it all. Raises LookupError where no decision can be decided again.
    """
    as_of = end_of_store(store)
    until = as_of if until is None else min(until, as_of)
    stretches = store.decision_ranges(PARTS_PER_PROCESS * processes, since, until)
    if not stretches:
        raise LookupError("the store has no decision of that time: expected some")
    with ExitStack() as stack:
        stack.enter_context(without_cycle_collection())
        if processes == 1 or not (is_as_written(before) and is_as_written(after)):
            reading = Reading(store.decision_log, before, after, seed)
            found: Iterator[Rows] = map(reading.rows, stretches)
        else:
            executor = stack.enter_context(pool(processes, store.database.url, before, after, seed))
            found = executor.map(rows_of, stretches)  # goes on while labels are looked up here
        truth = _truth(store, as_of, maturity_days)
        parts = _watched(found, len(stretches), progress)
    return _report(merged(parts), before, after, truth, source="store", currency=_currency(store),
                   decisions=None, as_of=as_of, maturity_days=maturity_days, seed=seed,
                   before_is_in_force=before_is_in_force)  # fmt: skip


def labelled(
    store: Store, *, reads: Collection[str] | None = None, since: int | None = None,
    until: int | None = None, maturity_days: int = DEFAULT_MATURITY_DAYS,
) -> Iterator[Logged]:  # fmt: skip
    """Logged decisions with their labels, each refund once, as a backtest counts them.

    A refund comes by the policy's last decision of that time before its money moved. Labels are
    those known at the end of the store, where they are mature. The store is read twice.
    """
    as_of = end_of_store(store)
    until = as_of if until is None else min(until, as_of)
    truth = _truth(store, as_of, maturity_days)
    ids, decided_at, by_analyst = [], [], []
    for row in logged_decisions(store, reads=(), since=since, until=until):
        ids.append(row.refund_id)
        decided_at.append(row.decided_at)
        by_analyst.append(row.source is Source.MANUAL_REVIEW)
    places = last_of_each(ids, np.array(decided_at, np.int64), np.array(by_analyst, np.bool_),
                          truth.paid_at)  # fmt: skip
    counts = frozenset(places.tolist())
    for place, row in enumerate(logged_decisions(store, reads=reads, since=since, until=until)):
        if place in counts:
            yield replace(row, abuse=truth.abuse.get(row.refund_id))


def _truth(store: Store, as_of: int, maturity_days: int) -> Truth:
    tables = label_tables(store, as_of)
    labels = label_refunds(tables, as_of=as_of, maturity_days=maturity_days)
    ids = tables["refund_requests"]["refund_id"].take(labels.row).to_pylist()
    return Truth(
        {id: said == 1 for id, said in zip(ids, labels.abuse.tolist(), strict=True)
         if not math.isnan(said)},
        {str(id): int(at) for id, at in paid_at(tables, as_of).items()},
    )  # fmt: skip


def _currency(store: Store) -> str:
    """The base currency of the store's decisions, of which there are some."""
    return str(orjson.loads(next(store.raw_decisions()).record)["base_currency"])


def _watched(parts: Iterable[Rows], total: int, progress: Progress) -> list[Rows]:
    done = []
    for part in parts:
        done.append(part)
        progress(len(done), total)
    return done


# --- the report ----------------------------------------------------------------------------------


def _report(
    rows: Rows, before: Policy, after: Policy, truth: Truth | None, *,
    source: Literal["store", "folder"], currency: str, decisions: int | None, as_of: int,
    maturity_days: int, seed: int, before_is_in_force: bool, new_from: int | None = None,
) -> BacktestReport:  # fmt: skip
    """The report on rows, by the costs of ``before``; ``decisions`` counts those left out as well.

    Without ``truth`` labels are those of the rows. Before ``new_from`` (epoch ms) are requests that
    the model may have learnt from.
    """
    if not len(rows):
        raise LookupError(
            "no refund request can be decided again: expected some"
            + (f"; {rows.unreadable:,} decisions were stored without facts" * bool(rows.unreadable))
        )
    costs, of = before.costs, counted(rows, truth)
    saved, groups = saved_minor(of, costs), groups_of(of, rows)
    found = measured(of, costs, np.ones(len(of)), worth_of(of, groups, saved), seed=seed)
    all_moves, segments, causes = moves_of(of, groups, saved, found.saved)
    at, no_label = of.table["decided_at"], of.abuse == UNKNOWN
    days = int(at.max() // DAY_MS - at.min() // DAY_MS + 1)
    workload = partial(workload_of, of, days=days, costs=costs)
    reviews = found.figures["reviews"].count
    if reviews is None:
        raise ValueError("reviews: expected a number of them")
    return BacktestReport(
        source=source, currency=currency, before_is_in_force=before_is_in_force,
        differences=_differences(before, after),
        decisions=len(rows) + rows.unreadable if decisions is None else decisions,
        requests=len(of), unreadable=rows.unreadable,
        degraded=int(of.table["degraded"].sum()),
        new_from=new_from, learnt=0 if new_from is None else int((at < new_from).sum()),
        own=int(of.table["own"].sum()), own_same=int(of.table["same"].sum()),
        first_at=int(at.min()), last_at=int(at.max()), days=days, maturity_days=maturity_days,
        labelled=int((~no_label).sum()), abuse=int((of.abuse == 1).sum()),
        immature=int((no_label & (at + maturity_days * DAY_MS > as_of)).sum()),
        payable_unknown=int((of.table["payable_minor"] == UNKNOWN).sum()),
        unlogged=rows.logging.unlogged(), costs=costs,
        shifts=shifts(of.before, of.after),
        before=ledger(of, of.before, before, costs), after=ledger(of, of.after, after, costs),
        figures=found.figures,
        weighted=weighted(of, costs, seed=seed) if source == "store" else None,
        workload_before=workload(of.before, reviews.before, reviews.before_interval),
        workload_after=workload(of.after, reviews.after, reviews.after_interval),
        moves=all_moves, causes=causes, segments=segments, examples=tuple(examples(rows, of)),
    )  # fmt: skip


def _differences(before: Policy, after: Policy) -> tuple[str, ...]:
    """What the candidate's document says otherwise, in sentences."""
    return tuple(change.to_text() for change in changes(before, after))
