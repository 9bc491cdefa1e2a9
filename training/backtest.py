"""Two policies over a data folder: its requests as facts, its mature labels as the truth."""

from __future__ import annotations

from collections.abc import Iterator

from features.money import Rates
from features.tables import Tables
from rules.backtest import BacktestReport, LoggedFacts, backtest
from rules.policy import Policy
from serving.batch import judge_folder
from serving.facts import facts_of
from serving.scorer import Champion
from training.labels import label_refunds


def backtest_folder(
    tables: Tables, champion: Champion, before: Policy, after: Policy, rates: Rates,
    *, as_of: int, maturity_days: int,
) -> BacktestReport:  # fmt: skip
    """What ``after`` would change against ``before``, on every request of canonical tables.

    Labels are those known at ``as_of`` (epoch ms) of refunds mature by then.
    """
    labels = label_refunds(tables, as_of=as_of, maturity_days=maturity_days)
    abuse = dict(zip(labels.row.tolist(), labels.abuse.tolist(), strict=True))

    def logged() -> Iterator[LoggedFacts]:
        for place, judged in enumerate(judge_folder(tables, champion, before, rates)):
            request, verdict = judged.request, judged.verdict
            label = abuse.get(place)
            yield LoggedFacts(
                request.refund_id,
                facts_of(request, verdict.row),
                verdict.score,
                abuse=None if label is None or label != label else bool(label),
            )

    return backtest(before, after, logged())


def to_text(report: BacktestReport) -> str:
    """The report for a person to read; amounts in minor units of the base currency."""
    lines = [f"{report.requests:,} requests, {report.labelled:,} with a mature label"]
    for name, ledger in (("before", report.before), ("after", report.after)):
        lines += [
            f"{name}: policy {ledger.version}",
            f"  paid {ledger.paid.count:,}, held {ledger.held.count:,}, "
            f"prevented {ledger.prevented.count:,}",
            f"  abuse paid {ledger.abuse_paid.payable_minor:,.0f}, "
            f"honest prevented {ledger.honest_prevented.payable_minor:,.0f}, "
            f"cost {ledger.cost_minor:,.0f}",
        ]
    for was, row in report.shifts.items():
        for now, number in row.items():
            if was != now and number:
                lines.append(f"  {was.value} -> {now.value}: {number:,}")
    return "\n".join(lines)
