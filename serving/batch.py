"""Score a data folder: the service's own decision on every refund request, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from features.attribution import attribute
from features.catalog import PLAN
from features.engine import compute
from features.events import RefundRequest
from features.folder import FolderEvents
from features.ledger import LEDGER_FACTS, order_ledger
from features.money import Rates
from features.tables import Tables
from rules.engine import Circumstances
from rules.policy import Policy
from serving.scorer import Champion, Verdict, judge

SCORES: Final = pa.schema({
    "refund_id": pa.string(), "known_at": pa.int64(), "probability": pa.float64(),
    "action": pa.string(), "source": pa.string(), "reasons": pa.list_(pa.string()),
})  # fmt: skip
"""The columns of a table of scores, whatever is in it."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Judged:
    """One refund request of a folder and what would be decided on it."""

    request: RefundRequest
    verdict: Verdict


def judge_folder(
    tables: Tables, champion: Champion | None, policy: Policy, rates: Rates,
    progress: Progress = lambda done, total: None, *, reads: Collection[str] = (),
) -> Iterator[Judged]:  # fmt: skip
    """Decide every refund request of canonical tables, each as of its own ``known_at``.

    Lists, dispositions and exploration are the service's: a folder has none. What the service holds
    of an order for refunds that it allowed or reviews is here what other refunds ask for and no
    outcome has settled. Facts that ``reads`` names are told even if the policy does not read them.
    """
    history, requests = attribute(tables, rates)
    values = compute(PLAN, requests, history)
    total = len(requests)
    events = FolderEvents(tables)
    reads_ledger = not LEDGER_FACTS.keys().isdisjoint({*policy.reads, *reads})
    for place, request in enumerate(events.requests()):
        row = {name: float(column[place]) for name, column in values.items()}
        ledger = order_ledger(request, events.of_order(request)) if reads_ledger else None
        verdict = judge(request, row, champion, policy, Circumstances(), ledger=ledger)
        yield Judged(request, verdict)
        if place % 500 == 0 or place + 1 == total:
            progress(place + 1, total)


def score_folder(
    tables: Tables, champion: Champion, policy: Policy, rates: Rates, out: Path,
    progress: Progress = lambda done, total: None,
) -> Mapping[str, int]:  # fmt: skip
    """Write a table of `SCORES`, a row per refund request, to a Parquet file.

    Returns how many refund requests each action got.
    """
    rows = [
        {
            "refund_id": judged.request.refund_id,
            "known_at": judged.request.known_at,
            "probability": judged.verdict.score.probability if judged.verdict.score else None,
            "action": judged.verdict.decision.action.value,
            "source": judged.verdict.decision.source.value,
            "reasons": [*judged.verdict.decision.reasons,
                        *(reason.code for reason in judged.verdict.reasons)],
        }
        for judged in judge_folder(tables, champion, policy, rates, progress)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, SCORES), out)
    return Counter(str(row["action"]) for row in rows)
